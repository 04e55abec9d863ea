//! Reads an answer of either protocol as it arrives (`contracts/google-imagen.md`, 2.3, 2.4 and 3.3).
//!
//! Chunks go in, pictures come out as slices of them. Members may come in any order, and one of them decides
//! over another: `"thought": true` makes a draft of the picture beside it, before or after. So a picture
//! ends with its part, not with its data, and one that turns out to be a draft is abandoned. A prediction has
//! no drafts: once it has said that it is a picture, it is one. Nothing here grows with what a server sends:
//! see the caps below.

use std::{collections::VecDeque, num::NonZeroU8};

use bytes::Bytes;

use super::usage::Counts;
use crate::providers::{
    About, Encoding, PictureEvent, Report,
    json::{Container, JsonError, Token, Tokenizer},
};

/// A longer rewritten prompt is left out: no model's own prompt limit comes near it.
const MAX_PROMPT_BYTES: usize = 64 * 1024;
/// Reasons, media types, ids.
const MAX_WORD_BYTES: usize = 256;
/// Explanations of a refusal.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// What an answer said beside its pictures: why there are none, or fewer.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// `promptFeedback.blockReason`
    pub(super) block_reason: Option<String>,
    /// `promptFeedback.blockReasonMessage`
    pub(super) block_message: Option<String>,
    /// `finishReason` of the first candidate that did not just stop, else `STOP`.
    pub(super) finish_reason: Option<String>,
    /// `finishMessage` of a candidate.
    pub(super) finish_message: Option<String>,
    /// `raiFilteredReason` of a prediction.
    pub(super) filtered_reason: Option<String>,
    /// A picture was put into a bucket instead of the answer.
    pub(super) has_bucket_link: bool,
    /// Some part is text.
    pub(super) has_text: bool,
    /// It holds an `error`.
    pub(super) has_error: bool,
}

impl Said {
    fn has_only_stopped(&self) -> bool {
        let reason = self.finish_reason.as_deref();
        reason.is_none_or(|reason| reason == "STOP")
    }
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Something other than an object.
    #[error("it is not an object")]
    NotAnObject,
}

/// Where in the document we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Candidates,
    Candidate,
    Content,
    Parts,
    /// A part of a candidate, or a prediction: what can hold a picture.
    Part,
    Predictions,
    Blob,
    Feedback,
    Usage,
    PromptDetails,
    CandidatesDetails,
    /// An element of either.
    Detail,
    /// Somewhere nobody here knows.
    Elsewhere,
}

/// A member we know, in the place where we know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Candidates,
    Predictions,
    Feedback,
    Usage,
    ResponseId,
    Error,
    Content,
    FinishReason,
    FinishMessage,
    Parts,
    Blob,
    Thought,
    Text,
    Picture,
    MediaType,
    RevisedPrompt,
    FilteredReason,
    BucketLink,
    BlockReason,
    BlockMessage,
    PromptCount,
    CachedCount,
    CandidatesCount,
    ThoughtsCount,
    PromptDetails,
    CandidatesDetails,
    Modality,
    TokenCount,
    Unknown,
}

impl Field {
    /// Protobuf's JSON has two spellings of every name, and both were seen.
    fn find(place: Place, name: &str) -> Self {
        match (place, name) {
            (Place::Root, "candidates") => Self::Candidates,
            (Place::Root, "predictions") => Self::Predictions,
            (Place::Root, "promptFeedback" | "prompt_feedback") => Self::Feedback,
            (Place::Root, "usageMetadata" | "usage_metadata") => Self::Usage,
            (Place::Root, "responseId" | "response_id") => Self::ResponseId,
            (Place::Root, "error") => Self::Error,
            (Place::Candidate, "content") => Self::Content,
            (Place::Candidate, "finishReason" | "finish_reason") => Self::FinishReason,
            (Place::Candidate, "finishMessage" | "finish_message") => Self::FinishMessage,
            (Place::Content, "parts") => Self::Parts,
            (Place::Part, "inlineData" | "inline_data") => Self::Blob,
            (Place::Part, "thought") => Self::Thought,
            (Place::Part, "text") => Self::Text,
            (Place::Part, "bytesBase64Encoded") | (Place::Blob, "data") => Self::Picture,
            (Place::Part | Place::Blob, "mimeType" | "mime_type") => Self::MediaType,
            (Place::Part, "prompt") => Self::RevisedPrompt,
            (Place::Part, "raiFilteredReason") => Self::FilteredReason,
            (Place::Part, "gcsUri") => Self::BucketLink,
            (Place::Feedback, "blockReason" | "block_reason") => Self::BlockReason,
            (Place::Feedback, "blockReasonMessage" | "block_reason_message") => Self::BlockMessage,
            (Place::Usage, "promptTokenCount" | "prompt_token_count") => Self::PromptCount,
            (Place::Usage, "cachedContentTokenCount" | "cached_content_token_count") => {
                Self::CachedCount
            }
            (Place::Usage, "candidatesTokenCount" | "candidates_token_count") => {
                Self::CandidatesCount
            }
            (Place::Usage, "thoughtsTokenCount" | "thoughts_token_count") => Self::ThoughtsCount,
            (Place::Usage, "promptTokensDetails" | "prompt_tokens_details") => Self::PromptDetails,
            (Place::Usage, "candidatesTokensDetails" | "candidates_tokens_details") => {
                Self::CandidatesDetails
            }
            (Place::Detail, "modality") => Self::Modality,
            (Place::Detail, "tokenCount" | "token_count") => Self::TokenCount,
            _ => Self::Unknown,
        }
    }

    /// How much of a string value is kept; `None` keeps nothing.
    fn cap(self) -> Option<usize> {
        match self {
            Self::ResponseId
            | Self::FinishReason
            | Self::BlockReason
            | Self::MediaType
            | Self::Modality => Some(MAX_WORD_BYTES),
            Self::FinishMessage | Self::BlockMessage | Self::FilteredReason => {
                Some(MAX_MESSAGE_BYTES)
            }
            Self::RevisedPrompt => Some(MAX_PROMPT_BYTES),
            Self::Candidates
            | Self::Predictions
            | Self::Feedback
            | Self::Usage
            | Self::Error
            | Self::Content
            | Self::Parts
            | Self::Blob
            | Self::Thought
            | Self::Text
            | Self::Picture
            | Self::BucketLink
            | Self::PromptCount
            | Self::CachedCount
            | Self::CandidatesCount
            | Self::ThoughtsCount
            | Self::PromptDetails
            | Self::CandidatesDetails
            | Self::TokenCount
            | Self::Unknown => None,
        }
    }
}

/// What becomes of the string that is being read.
enum Reading {
    Nothing,
    /// Kept, up to the field's cap.
    Text {
        kept: Vec<u8>,
        overflowed: bool,
    },
    Picture,
}

/// What became of the picture of a part.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Picture {
    /// None so far.
    #[default]
    Absent,
    /// It went out, and its end has not.
    Begun,
    /// It is more than was asked for, and is passed over.
    Surplus,
}

/// What is known of the current part or prediction.
#[derive(Debug, Default)]
struct Part {
    picture: Picture,
    is_thought: bool,
    /// It says what it is, and that is something other than a picture.
    is_foreign: bool,
    /// It cannot be taken back: a prediction that has said what it is.
    is_sure: bool,
    revised_prompt: Option<String>,
}

impl Part {
    fn is_delivery(&self) -> bool {
        !self.is_thought && !self.is_foreign
    }
}

/// An element of the details of token counts.
#[derive(Debug, Default)]
struct Detail {
    modality: String,
    count: u64,
}

/// Reads one answer. Feed it with [`AnswerReader::push`], then take events until there are none.
pub(super) struct AnswerReader {
    tokens: Tokenizer,
    places: Vec<Place>,
    field: Field,
    reading: Reading,
    events: VecDeque<PictureEvent>,
    part: Part,
    detail: Detail,
    report: Report,
    counts: Counts,
    said: Said,
    n: u8,
    /// How many pictures may still be taken: those beyond the ones asked for are counted and left.
    wanted: u8,
    is_blank: bool,
}

impl AnswerReader {
    /// For an answer to a call for `n` pictures.
    pub(super) fn new(n: NonZeroU8) -> Self {
        Self {
            tokens: Tokenizer::new(),
            places: Vec::new(),
            field: Field::Unknown,
            reading: Reading::Nothing,
            events: VecDeque::new(),
            part: Part::default(),
            detail: Detail::default(),
            report: Report::default(),
            counts: Counts::default(),
            said: Said::default(),
            n: n.get(),
            wanted: n.get(),
            is_blank: true,
        }
    }

    /// Gives it the next chunk. The events of the one before must have been taken.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.is_blank &= chunk.iter().all(u8::is_ascii_whitespace);
        self.tokens.push(chunk);
    }

    /// Whether nothing but white space came.
    pub(super) fn is_blank(&self) -> bool {
        self.is_blank
    }

    /// Whether the answer is complete; whatever follows does not matter.
    pub(super) fn is_done(&self) -> bool {
        self.tokens.is_done()
    }

    /// The next event, or `None` when the chunk is used up.
    ///
    /// # Errors
    /// [`AnswerError`]; nothing more comes after one.
    pub(super) fn next(&mut self) -> Result<Option<PictureEvent>, AnswerError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.tokens.next()? {
                Some(token) => self.take(token)?,
                None => return Ok(None),
            }
        }
    }

    /// What came, once it is complete (or as far as it is).
    pub(super) fn finish(mut self) -> (Report, Said) {
        self.report.usage = self.counts.usage();
        while let Some(None) = self.report.revised_prompts.last() {
            self.report.revised_prompts.pop();
        }
        (self.report, self.said)
    }

    fn take(&mut self, token: Token) -> Result<(), AnswerError> {
        match token {
            Token::Begin(container) => self.begin(container)?,
            Token::End => {
                self.end();
                self.field = Field::Unknown;
            }
            Token::Name => {
                let place = self.places.last().copied().unwrap_or(Place::Elsewhere);
                self.field = Field::find(place, self.tokens.text());
                self.said.has_error |= self.field == Field::Error;
            }
            Token::StringBegin => {
                if self.places.is_empty() {
                    return Err(AnswerError::NotAnObject);
                }
                self.begin_string();
            }
            Token::StringPiece(piece) => self.piece(piece),
            Token::StringEnd => self.end_string(),
            Token::Scalar => {
                if self.places.is_empty() {
                    return Err(AnswerError::NotAnObject);
                }
                self.scalar();
            }
        }
        Ok(())
    }

    fn begin(&mut self, container: Container) -> Result<(), AnswerError> {
        use Container::{Array, Object};
        let place = match (self.places.last(), container, self.field) {
            (None, Object, _) => Place::Root,
            (None, Array, _) => return Err(AnswerError::NotAnObject),
            (Some(Place::Root), Array, Field::Candidates) => Place::Candidates,
            (Some(Place::Root), Array, Field::Predictions) => Place::Predictions,
            (Some(Place::Root), Object, Field::Feedback) => Place::Feedback,
            (Some(Place::Root), Object, Field::Usage) => Place::Usage,
            (Some(Place::Candidates), Object, _) => Place::Candidate,
            (Some(Place::Candidate), Object, Field::Content) => Place::Content,
            (Some(Place::Content), Array, Field::Parts) => Place::Parts,
            (Some(Place::Parts | Place::Predictions), Object, _) => {
                self.part = Part::default();
                Place::Part
            }
            (Some(Place::Part), Object, Field::Blob) => Place::Blob,
            (Some(Place::Usage), Array, Field::PromptDetails) => Place::PromptDetails,
            (Some(Place::Usage), Array, Field::CandidatesDetails) => Place::CandidatesDetails,
            (Some(Place::PromptDetails | Place::CandidatesDetails), Object, _) => {
                self.detail = Detail::default();
                Place::Detail
            }
            _ => Place::Elsewhere,
        };
        self.places.push(place);
        self.field = Field::Unknown;
        Ok(())
    }

    fn end(&mut self) {
        match self.places.pop() {
            Some(Place::Part) => self.end_part(),
            Some(Place::Detail) => self.end_detail(),
            _ => {}
        }
    }

    fn begin_string(&mut self) {
        self.reading = match self.field {
            Field::Picture => Reading::Picture,
            field if field.cap().is_some() => Reading::Text {
                kept: Vec::new(),
                overflowed: false,
            },
            _ => Reading::Nothing,
        };
        self.said.has_text |= self.field == Field::Text;
        self.said.has_bucket_link |= self.field == Field::BucketLink;
    }

    fn piece(&mut self, piece: Bytes) {
        match &mut self.reading {
            Reading::Nothing => {}
            Reading::Picture => self.picture_data(piece),
            Reading::Text { kept, overflowed } => {
                let room = self.field.cap().unwrap_or(0) - kept.len();
                *overflowed |= piece.len() > room;
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            }
        }
    }

    /// A piece of a picture. The first begins it, unless it is known by then that nobody wants it.
    fn picture_data(&mut self, data: Bytes) {
        if self.part.picture == Picture::Absent && self.part.is_delivery() {
            self.part.picture = if self.wanted > 0 {
                self.events.push_back(if self.part.is_sure {
                    PictureEvent::Begin(Encoding::Base64)
                } else {
                    PictureEvent::Perhaps(Encoding::Base64)
                });
                Picture::Begun
            } else {
                Picture::Surplus
            };
        }
        if self.part.picture == Picture::Begun && self.part.is_delivery() {
            self.events.push_back(PictureEvent::Data(data));
        }
    }

    fn end_string(&mut self) {
        if let Reading::Text { kept, overflowed } =
            std::mem::replace(&mut self.reading, Reading::Nothing)
        {
            let text = String::from_utf8_lossy(&kept).into_owned();
            self.text(text, overflowed);
        }
    }

    /// A string value, or as much of it as its cap allows.
    fn text(&mut self, text: String, overflowed: bool) {
        let said = &mut self.said;
        match self.field {
            Field::ResponseId => {
                let is_plain = !overflowed
                    && (1..=128).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_graphic());
                self.report.upstream_request_id = is_plain.then_some(text);
            }
            Field::FinishReason if said.has_only_stopped() => said.finish_reason = Some(text),
            Field::FinishMessage => said.finish_message = Some(text),
            Field::BlockReason => said.block_reason = Some(text),
            Field::BlockMessage => said.block_message = Some(text),
            Field::FilteredReason => said.filtered_reason = Some(text),
            // What it said first counts: a picture that is out cannot be taken back.
            Field::MediaType if !self.part.is_sure => {
                let is_picture = text.starts_with("image/");
                self.part.is_foreign = !is_picture;
                self.part.is_sure = is_picture && self.is_in_prediction();
            }
            Field::RevisedPrompt if !overflowed => self.part.revised_prompt = Some(text),
            Field::Modality => self.detail.modality = text,
            _ => {}
        }
    }

    fn scalar(&mut self) {
        let text = self.tokens.text();
        if self.field == Field::Thought {
            self.part.is_thought = text == "true" && !self.is_in_prediction();
            return;
        }
        let count = match self.field {
            Field::PromptCount => &mut self.counts.prompt,
            Field::CachedCount => &mut self.counts.cached,
            Field::CandidatesCount => &mut self.counts.candidates,
            Field::ThoughtsCount => &mut self.counts.thoughts,
            Field::TokenCount => &mut self.detail.count,
            _ => return,
        };
        *count = text.parse().unwrap_or(0);
    }

    fn is_in_prediction(&self) -> bool {
        matches!(self.places[..], [.., Place::Predictions, Place::Part])
    }

    fn end_part(&mut self) {
        let part = std::mem::take(&mut self.part);
        if part.picture == Picture::Absent {
            return;
        }
        if !part.is_delivery() {
            if part.picture == Picture::Begun {
                self.events.push_back(PictureEvent::Abandon);
            }
            return;
        }
        self.report.announced += 1;
        if part.picture == Picture::Begun {
            self.events.push_back(PictureEvent::End);
            self.wanted -= 1;
            if part.revised_prompt.is_some() {
                self.events.push_back(PictureEvent::About(Box::new(About {
                    revised_prompt: part.revised_prompt.clone(),
                    ..About::default()
                })));
            }
        }
        // Pictures that are not taken have no place in the list.
        if self.report.revised_prompts.len() < usize::from(self.n) {
            self.report.revised_prompts.push(part.revised_prompt);
        }
    }

    fn end_detail(&mut self) {
        let Detail { modality, count } = std::mem::take(&mut self.detail);
        let counts = &mut self.counts;
        let sum = match (self.places.last(), modality.as_str()) {
            (Some(Place::PromptDetails), "IMAGE") => &mut counts.prompt_image,
            (Some(Place::CandidatesDetails), "IMAGE") => &mut counts.candidates_image,
            (Some(Place::CandidatesDetails), "TEXT") => &mut counts.candidates_text,
            _ => return,
        };
        *sum = sum.saturating_add(count);
    }
}
