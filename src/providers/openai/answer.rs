//! Reads an `ImagesResponse` as it arrives (`contracts/openai-images.md`, section 2).
//!
//! Chunks go in, pictures come out as slices of them, and what is left at the end is a [`Report`]. Members
//! may come in any order, whatever is not known is walked over, and nothing here grows with what a server
//! sends: see the caps below. No sockets: the adapter feeds it and hands on its events.

use std::{collections::VecDeque, num::NonZeroU8};

use bytes::Bytes;

use super::{error::ErrorBody, usage::Counts};
use crate::{
    catalog::{Background, Quality},
    providers::{
        Encoding, PictureEvent, Report,
        json::{Container, JsonError, Token, Tokenizer},
    },
};

/// A longer revised prompt is left out: no model's own prompt limit comes near it.
const MAX_REVISED_PROMPT_BYTES: usize = 64 * 1024;
/// A longer link is no link. (Signed ones take one or two KiB.)
const MAX_LINK_BYTES: usize = 8 * 1024;
/// Words such as a size, and an error's code.
const MAX_WORD_BYTES: usize = 256;
/// An error's message.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// What may stand before the comma of a `data:` URL.
const MAX_DATA_URL_HEAD_BYTES: usize = 256;

const DATA_URL: &[u8] = b"data:";

/// Something that the adapter has to do now, before it feeds more.
#[derive(Debug)]
pub(super) enum Event {
    /// Hand this to the sink.
    Picture(PictureEvent),
    /// The next picture is behind this link.
    Link(String),
}

/// What an answer was, all in all.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What it said of its pictures.
    pub(super) report: Report,
    /// An error instead of pictures, or beside them.
    pub(super) error: Option<ErrorBody>,
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Something other than an object.
    #[error("it is not an object")]
    NotAnObject,
    /// A `data:` URL that is not base64.
    #[error("it has a data URL that is not base64")]
    DataUrl,
}

/// Where in the document we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Data,
    Item,
    Usage,
    InputDetails,
    OutputDetails,
    Error,
    /// Somewhere nobody here knows.
    Elsewhere,
}

/// A member we know, in the place where we know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Created,
    Data,
    Usage,
    Size,
    Quality,
    Background,
    OutputFormat,
    Error,
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
    Unknown,
}

impl Field {
    fn find(place: Place, name: &str) -> Self {
        match (place, name) {
            (Place::Root, "created") => Self::Created,
            (Place::Root, "data") => Self::Data,
            (Place::Root, "usage") => Self::Usage,
            (Place::Root, "size") => Self::Size,
            (Place::Root, "quality") => Self::Quality,
            (Place::Root, "background") => Self::Background,
            (Place::Root, "output_format") => Self::OutputFormat,
            (Place::Root, "error") => Self::Error,
            (Place::Item, "b64_json") => Self::Base64,
            (Place::Item, "url") => Self::Link,
            (Place::Item, "revised_prompt") => Self::RevisedPrompt,
            (Place::Usage, "input_tokens") => Self::InputTokens,
            (Place::Usage, "output_tokens") => Self::OutputTokens,
            (Place::Usage, "input_tokens_details") => Self::InputDetails,
            (Place::Usage, "output_tokens_details") => Self::OutputDetails,
            (Place::InputDetails | Place::OutputDetails, "text_tokens") => Self::TextTokens,
            (Place::InputDetails | Place::OutputDetails, "image_tokens") => Self::ImageTokens,
            (Place::InputDetails, "cached_tokens") => Self::CachedTokens,
            (Place::Error, "message") => Self::Message,
            (Place::Error, "type") => Self::Type,
            (Place::Error, "code") => Self::Code,
            (Place::Error, "param") => Self::Param,
            _ => Self::Unknown,
        }
    }

    /// How much of a string value is kept; `None` keeps nothing.
    fn cap(self) -> Option<usize> {
        match self {
            Self::Size
            | Self::Quality
            | Self::Background
            | Self::OutputFormat
            | Self::Type
            | Self::Code
            | Self::Param => Some(MAX_WORD_BYTES),
            Self::Link => Some(MAX_LINK_BYTES),
            Self::RevisedPrompt => Some(MAX_REVISED_PROMPT_BYTES),
            Self::Message | Self::Error => Some(MAX_MESSAGE_BYTES),
            Self::Created
            | Self::Data
            | Self::Usage
            | Self::Base64
            | Self::InputTokens
            | Self::OutputTokens
            | Self::InputDetails
            | Self::OutputDetails
            | Self::TextTokens
            | Self::ImageTokens
            | Self::CachedTokens
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
    /// A picture, of which so much is seen that it could still begin with `data:`.
    PictureHead(Vec<u8>),
    /// Inside the head of a `data:` URL.
    DataUrlHead(Vec<u8>),
    /// A picture that has begun.
    Picture,
}

/// What is known of the current element of `data`.
#[derive(Default)]
struct Item {
    has_picture: bool,
    link: Option<String>,
    revised_prompt: Option<String>,
}

/// Reads one answer. Feed it with [`AnswerReader::push`], then take events until there are none.
pub(super) struct AnswerReader {
    tokens: Tokenizer,
    places: Vec<Place>,
    field: Field,
    reading: Reading,
    events: VecDeque<Event>,
    item: Item,
    report: Report,
    counts: Counts,
    error: Option<ErrorBody>,
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
            item: Item::default(),
            report: Report::default(),
            counts: Counts::default(),
            error: None,
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
    pub(super) fn next(&mut self) -> Result<Option<Event>, AnswerError> {
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
    pub(super) fn finish(mut self) -> Outcome {
        self.report.usage = self.counts.usage();
        while let Some(None) = self.report.revised_prompts.last() {
            self.report.revised_prompts.pop();
        }
        Outcome {
            report: self.report,
            error: self.error,
        }
    }

    fn take(&mut self, token: Token) -> Result<(), AnswerError> {
        match token {
            Token::Begin(container) => self.begin(container)?,
            Token::End => {
                if self.places.pop() == Some(Place::Item) {
                    self.end_item();
                }
                self.field = Field::Unknown;
            }
            Token::Name => {
                let place = self.places.last().copied().unwrap_or(Place::Elsewhere);
                self.field = Field::find(place, self.tokens.text());
            }
            Token::StringBegin => {
                if self.places.is_empty() {
                    return Err(AnswerError::NotAnObject);
                }
                self.begin_string();
            }
            Token::StringPiece(piece) => self.piece(piece)?,
            Token::StringEnd => self.end_string()?,
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
        let place = match (self.places.last(), container, self.field) {
            (None, Container::Object, _) => Place::Root,
            (None, Container::Array, _) => return Err(AnswerError::NotAnObject),
            (Some(Place::Root), Container::Array, Field::Data) => Place::Data,
            (Some(Place::Root), Container::Object, Field::Usage) => Place::Usage,
            (Some(Place::Root), Container::Object, Field::Error) => {
                self.error = Some(ErrorBody::default());
                Place::Error
            }
            (Some(Place::Data), Container::Object, _) => {
                self.item = Item::default();
                Place::Item
            }
            (Some(Place::Usage), Container::Object, Field::InputDetails) => Place::InputDetails,
            (Some(Place::Usage), Container::Object, Field::OutputDetails) => Place::OutputDetails,
            _ => Place::Elsewhere,
        };
        self.places.push(place);
        self.field = Field::Unknown;
        Ok(())
    }

    fn begin_string(&mut self) {
        self.reading = if self.field == Field::Base64 {
            Reading::PictureHead(Vec::new())
        } else if self.field.cap().is_some() {
            Reading::Text {
                kept: Vec::new(),
                overflowed: false,
            }
        } else {
            Reading::Nothing
        };
    }

    fn piece(&mut self, piece: Bytes) -> Result<(), AnswerError> {
        match &mut self.reading {
            Reading::Nothing => {}
            Reading::Picture => self.picture_data(piece),
            Reading::Text { kept, overflowed } => {
                let cap = self.field.cap().unwrap_or(0);
                let room = cap - kept.len();
                let fits = piece.len() <= room;
                let is_data_url = self.field == Field::Link
                    && !*overflowed
                    && kept.iter().chain(&piece).take(DATA_URL.len()).eq(DATA_URL);
                if is_data_url {
                    // Not a link but the picture itself.
                    let mut whole = std::mem::take(kept);
                    whole.extend_from_slice(&piece);
                    self.reading = Reading::DataUrlHead(Vec::new());
                    return self.data_url_head(Bytes::from(whole));
                }
                *overflowed |= !fits;
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Reading::PictureHead(head) if head.is_empty() && piece.len() >= DATA_URL.len() => {
                self.picture_head(piece)?;
            }
            Reading::PictureHead(head) => {
                head.extend_from_slice(&piece);
                if head.len() >= DATA_URL.len() {
                    let head = std::mem::take(head);
                    self.picture_head(Bytes::from(head))?;
                }
            }
            Reading::DataUrlHead(_) => self.data_url_head(piece)?,
        }
        Ok(())
    }

    /// Enough of a picture to tell base64 from a `data:` URL with base64 in it, which some servers send.
    fn picture_head(&mut self, head: Bytes) -> Result<(), AnswerError> {
        if head.starts_with(DATA_URL) {
            self.reading = Reading::DataUrlHead(Vec::new());
            self.data_url_head(head)
        } else {
            self.begin_picture();
            self.picture_data(head);
            Ok(())
        }
    }

    fn data_url_head(&mut self, mut piece: Bytes) -> Result<(), AnswerError> {
        let Reading::DataUrlHead(head) = &mut self.reading else {
            return Ok(());
        };
        let comma = memchr::memchr(b',', &piece);
        let part = piece.split_to(comma.unwrap_or(piece.len()));
        head.extend_from_slice(&part);
        if head.len() > MAX_DATA_URL_HEAD_BYTES {
            return Err(AnswerError::DataUrl);
        }
        if comma.is_some() {
            let is_base64 = head.to_ascii_lowercase().ends_with(b";base64");
            if !is_base64 {
                return Err(AnswerError::DataUrl);
            }
            let content = piece.slice(1..);
            self.begin_picture();
            self.picture_data(content);
        }
        Ok(())
    }

    /// Begins a picture, unless this element already has one or enough have come.
    fn begin_picture(&mut self) {
        self.reading = Reading::Nothing;
        if self.item.has_picture {
            return;
        }
        self.item.has_picture = true;
        if self.wanted > 0 {
            self.wanted -= 1;
            self.reading = Reading::Picture;
            self.emit(PictureEvent::Begin(Encoding::Base64));
        }
    }

    fn picture_data(&mut self, data: Bytes) {
        if matches!(self.reading, Reading::Picture) && !data.is_empty() {
            self.emit(PictureEvent::Data(data));
        }
    }

    fn emit(&mut self, event: PictureEvent) {
        self.events.push_back(Event::Picture(event));
    }

    fn end_string(&mut self) -> Result<(), AnswerError> {
        match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Nothing => {}
            Reading::Picture => self.emit(PictureEvent::End),
            Reading::PictureHead(head) => {
                if !head.is_empty() {
                    self.begin_picture();
                    self.picture_data(Bytes::from(head));
                    if matches!(self.reading, Reading::Picture) {
                        self.emit(PictureEvent::End);
                    }
                    self.reading = Reading::Nothing;
                }
            }
            Reading::DataUrlHead(_) => return Err(AnswerError::DataUrl),
            Reading::Text { kept, overflowed } => {
                let text = String::from_utf8_lossy(&kept).into_owned();
                self.text(text, overflowed);
            }
        }
        Ok(())
    }

    /// A string value, or as much of it as its cap allows.
    fn text(&mut self, text: String, overflowed: bool) {
        match self.field {
            Field::Size => self.report.size = text.parse().ok(),
            Field::Quality => {
                self.report.quality = text.parse().ok().filter(|word| *word != Quality::Auto);
            }
            Field::Background => {
                self.report.background = text.parse().ok().filter(|word| *word != Background::Auto);
            }
            Field::OutputFormat => self.report.output_format = text.parse().ok(),
            // Part of a link would be another link: better one that opens nothing.
            Field::Link if overflowed => self.item.link = Some(String::new()),
            Field::Link if !text.is_empty() => self.item.link = Some(text),
            Field::RevisedPrompt if !overflowed => self.item.revised_prompt = Some(text),
            Field::Error | Field::Message => self.error.get_or_insert_default().message = text,
            Field::Type => self.error.get_or_insert_default().error_type = Some(text),
            Field::Code => self.error.get_or_insert_default().code = Some(text),
            Field::Param => self.error.get_or_insert_default().param = Some(text),
            _ => {}
        }
    }

    fn scalar(&mut self) {
        let text = self.tokens.text();
        let place = self.places.last();
        let counts = &mut self.counts;
        let count = match (self.field, place) {
            (Field::Created, _) => {
                self.report.created = text.parse().ok();
                return;
            }
            (Field::Code, _) if text != "null" => {
                // Some servers write the status there, as a number.
                self.error.get_or_insert_default().code = Some(text.to_owned());
                return;
            }
            (Field::InputTokens, _) => &mut counts.input,
            (Field::OutputTokens, _) => &mut counts.output,
            (Field::TextTokens, Some(Place::OutputDetails)) => &mut counts.output_text,
            (Field::ImageTokens, Some(Place::OutputDetails)) => &mut counts.output_image,
            (Field::TextTokens, _) => &mut counts.input_text,
            (Field::ImageTokens, _) => &mut counts.input_image,
            (Field::CachedTokens, _) => &mut counts.cached,
            _ => return,
        };
        *count = text.parse().ok();
    }

    fn end_item(&mut self) {
        let item = std::mem::take(&mut self.item);
        if !item.has_picture {
            let Some(link) = item.link else {
                return;
            };
            if self.wanted > 0 {
                self.wanted -= 1;
                self.events.push_back(Event::Link(link));
            }
        }
        self.report.announced += 1;
        // Pictures that are not taken have no place in the list.
        if self.report.revised_prompts.len() < usize::from(self.n) {
            self.report.revised_prompts.push(item.revised_prompt);
        }
    }
}
