//! Which members of an answer we know, where they stand, and how much of each is kept
//! (`contracts/openai-images.md`, sections 2, 3.1, 3.3 and 6).

/// A longer revised prompt is left out: no model's own prompt limit comes near it.
const MAX_REVISED_PROMPT_BYTES: usize = 64 * 1024;
/// A longer link is no link. (Signed ones take one or two KiB.)
const MAX_LINK_BYTES: usize = 8 * 1024;
/// Words such as a size, and an error's code.
const MAX_WORD_BYTES: usize = 256;
/// An error's message.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// Where in a document we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In an answer.
    Root,
    /// In an event of a stream, which is an answer and its one element at once.
    Event,
    Data,
    Item,
    Usage,
    InputDetails,
    OutputDetails,
    Error,
    /// In an error's `moderation_details`.
    Moderation,
    Categories,
    /// Somewhere nobody here knows.
    Elsewhere,
}

/// A member we know, in the place where we know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Created,
    Data,
    Usage,
    Size,
    Quality,
    Background,
    OutputFormat,
    Error,
    /// The `type` of an event.
    Event,
    DraftIndex,
    Base64,
    Link,
    RevisedPrompt,
    InputTokens,
    OutputTokens,
    InputDetails,
    OutputDetails,
    TextTokens,
    ImageTokens,
    CachedTokens,
    Message,
    Type,
    Code,
    Param,
    Moderation,
    ModerationStage,
    Categories,
    /// An element of [`Place::Categories`].
    Category,
    Unknown,
}

impl Field {
    pub(super) fn find(place: Place, name: &str) -> Self {
        match (place, name) {
            (Place::Root, "created") | (Place::Event, "created_at") => Self::Created,
            (Place::Root | Place::Event, "data") => Self::Data,
            (Place::Root | Place::Event, "usage") => Self::Usage,
            (Place::Root | Place::Event, "size") => Self::Size,
            (Place::Root | Place::Event, "quality") => Self::Quality,
            (Place::Root | Place::Event, "background") => Self::Background,
            (Place::Root | Place::Event, "output_format") => Self::OutputFormat,
            (Place::Root | Place::Event, "error") => Self::Error,
            (Place::Event, "type") => Self::Event,
            (Place::Event, "partial_image_index") => Self::DraftIndex,
            (Place::Event | Place::Item, "b64_json") => Self::Base64,
            (Place::Event | Place::Item, "url") => Self::Link,
            (Place::Event | Place::Item, "revised_prompt") => Self::RevisedPrompt,
            (Place::Event | Place::Error, "message") => Self::Message,
            (Place::Event | Place::Error, "code") => Self::Code,
            (Place::Event | Place::Error, "param") => Self::Param,
            (Place::Error, "type") => Self::Type,
            (Place::Event | Place::Error, "moderation_details") => Self::Moderation,
            (Place::Moderation, "moderation_stage") => Self::ModerationStage,
            (Place::Moderation, "categories") => Self::Categories,
            (Place::Usage, "input_tokens") => Self::InputTokens,
            (Place::Usage, "output_tokens") => Self::OutputTokens,
            (Place::Usage, "input_tokens_details") => Self::InputDetails,
            (Place::Usage, "output_tokens_details") => Self::OutputDetails,
            (Place::InputDetails | Place::OutputDetails, "text_tokens") => Self::TextTokens,
            (Place::InputDetails | Place::OutputDetails, "image_tokens") => Self::ImageTokens,
            (Place::InputDetails, "cached_tokens") => Self::CachedTokens,
            _ => Self::Unknown,
        }
    }

    /// How much of a string value is kept; `None` keeps nothing.
    pub(super) fn cap(self) -> Option<usize> {
        match self {
            Self::Size
            | Self::Quality
            | Self::Background
            | Self::OutputFormat
            | Self::Event
            | Self::Type
            | Self::Code
            | Self::Param
            | Self::ModerationStage
            | Self::Category => Some(MAX_WORD_BYTES),
            Self::Link => Some(MAX_LINK_BYTES),
            Self::RevisedPrompt => Some(MAX_REVISED_PROMPT_BYTES),
            Self::Message | Self::Error => Some(MAX_MESSAGE_BYTES),
            Self::Created
            | Self::Data
            | Self::Usage
            | Self::DraftIndex
            | Self::Base64
            | Self::InputTokens
            | Self::OutputTokens
            | Self::InputDetails
            | Self::OutputDetails
            | Self::TextTokens
            | Self::ImageTokens
            | Self::CachedTokens
            | Self::Moderation
            | Self::Categories
            | Self::Unknown => None,
        }
    }
}

/// What a document is: a whole answer, or one event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// It has not said so, as answers never do.
    #[default]
    Unsaid,
    /// A picture on its way.
    Draft,
    /// A picture.
    Finished,
    /// An error.
    Error,
    /// An event that nobody here knows.
    Other,
}

impl Kind {
    /// By the name of an event, which its `event:` line and its `type` say alike.
    pub(super) fn of_event(name: &str) -> Self {
        match name {
            "" | "message" => Self::Unsaid,
            "image_generation.partial_image" | "image_edit.partial_image" => Self::Draft,
            "image_generation.completed" | "image_edit.completed" => Self::Finished,
            "error" => Self::Error,
            _ => Self::Other,
        }
    }
}
