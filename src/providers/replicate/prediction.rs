//! Reads a prediction as it arrives (`contracts/replicate.md`, sections 2.3 and 2.4).
//!
//! `output` is a string for some models and a list for others, and its strings are links or `data:` URLs
//! of many megabytes. Links are kept for later; the pictures of `data:` URLs come out at once, as slices of
//! the network's chunks, because `status` may stand behind them. Whoever asks again says which outputs
//! he has already, and these are walked over. The prompt, which the answer repeats, and the logs are walked
//! over too. No sockets.

use std::{collections::VecDeque, num::NonZeroU8};

use bytes::Bytes;
use chrono::DateTime;

use crate::providers::{
    Encoding, PictureEvent,
    json::{Container, JsonError, Token, Tokenizer},
};

/// A longer link is no link.
const MAX_LINK_BYTES: usize = 8 * 1024;
/// Ids, states, dates.
const MAX_WORD_BYTES: usize = 256;
/// An error's text.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// What may stand before the comma of a `data:` URL.
const MAX_DATA_URL_HEAD_BYTES: usize = 256;

const DATA_URL: &[u8] = b"data:";

/// How a prediction is doing (section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Starting,
    Processing,
    Succeeded,
    Failed,
    /// By somebody, or by its deadline while it ran.
    Canceled,
    /// By its deadline before it began.
    Aborted,
    /// A word that nobody knows; not the end.
    Other,
}

impl Status {
    fn of(word: &str) -> Self {
        match word {
            "starting" => Self::Starting,
            "processing" => Self::Processing,
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            "aborted" => Self::Aborted,
            _ => Self::Other,
        }
    }

    /// Whether nothing more comes.
    pub(super) fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Canceled | Self::Aborted => true,
            Self::Starting | Self::Processing | Self::Other => false,
        }
    }
}

/// What `output` was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Output {
    /// `null`, or not there.
    #[default]
    Absent,
    /// A list or a string; how many outputs it held. None at all is what the safety filter leaves.
    Strings(usize),
    /// Nothing that could hold pictures.
    Unknown,
}

impl Output {
    /// How many there are.
    pub(super) fn count(self) -> usize {
        match self {
            Self::Strings(count) => count,
            Self::Absent | Self::Unknown => 0,
        }
    }
}

/// A prediction, or as much of it as came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Prediction {
    /// Its name, if it can stand in a path and in a log line.
    pub(super) id: Option<String>,
    pub(super) status: Option<Status>,
    pub(super) output: Output,
    /// Links to pictures not had yet, with their place in the output. An empty one leads nowhere.
    pub(super) links: Vec<(usize, String)>,
    /// Why it failed.
    pub(super) error: Option<String>,
    /// In Unix seconds.
    pub(super) created: Option<i64>,
    /// The places of the outputs whose pictures were had, from this answer and from earlier ones.
    pub(super) had: Vec<usize>,
}

/// Why a prediction cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PredictionError {
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Something other than an object.
    #[error("it is not an object")]
    NotAnObject,
    /// A `data:` URL that is not base64.
    #[error("it has a data URL that is not base64")]
    DataUrl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Output,
    Error,
    Elsewhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Status,
    Output,
    Error,
    CreatedAt,
    ErrorText,
    Unknown,
}

impl Field {
    fn find(place: Place, name: &str) -> Self {
        match (place, name) {
            (Place::Root, "id") => Self::Id,
            (Place::Root, "status") => Self::Status,
            (Place::Root, "output") => Self::Output,
            (Place::Root, "error") => Self::Error,
            (Place::Root, "created_at") => Self::CreatedAt,
            // Some proxies make an object of it.
            (Place::Error, "message" | "detail" | "code") => Self::ErrorText,
            _ => Self::Unknown,
        }
    }
}

/// What becomes of the string that is being read.
enum Reading {
    Nothing,
    /// Kept, up to so many bytes.
    Text {
        kept: Vec<u8>,
        cap: usize,
    },
    /// An output: a link, or the head of a `data:` URL.
    Output(Vec<u8>),
    /// A picture that has begun.
    Picture,
}

/// Reads one prediction. Feed it with [`PredictionReader::push`], then take events until there are none.
pub(super) struct PredictionReader {
    tokens: Tokenizer,
    places: Vec<Place>,
    field: Field,
    reading: Reading,
    events: VecDeque<PictureEvent>,
    prediction: Prediction,
    wanted: usize,
}

impl PredictionReader {
    /// For a prediction of `n` pictures, of which those at the places `had` came already.
    pub(super) fn new(n: NonZeroU8, had: Vec<usize>) -> Self {
        Self {
            tokens: Tokenizer::new(),
            places: Vec::new(),
            field: Field::Unknown,
            reading: Reading::Nothing,
            events: VecDeque::new(),
            prediction: Prediction {
                had,
                ..Prediction::default()
            },
            wanted: usize::from(n.get()),
        }
    }

    /// Gives it the next chunk. The events of the one before must have been taken.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.tokens.push(chunk);
    }

    /// Whether the prediction is complete; whatever follows does not matter.
    pub(super) fn is_done(&self) -> bool {
        self.tokens.is_done()
    }

    /// Whether a picture has begun that is not complete.
    pub(super) fn is_inside_picture(&self) -> bool {
        matches!(self.reading, Reading::Picture)
    }

    /// The next event, or `None` when the chunk is used up.
    ///
    /// # Errors
    /// [`PredictionError`]; nothing more comes after one.
    pub(super) fn next(&mut self) -> Result<Option<PictureEvent>, PredictionError> {
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
    pub(super) fn finish(self) -> Prediction {
        self.prediction
    }

    fn take(&mut self, token: Token) -> Result<(), PredictionError> {
        match token {
            Token::Begin(container) => self.begin(container)?,
            Token::End => {
                self.places.pop();
                self.field = Field::Unknown;
            }
            Token::Name => {
                let place = self.places.last().copied().unwrap_or(Place::Elsewhere);
                self.field = Field::find(place, self.tokens.text());
            }
            Token::StringBegin => self.begin_string()?,
            Token::StringPiece(piece) => self.piece(piece)?,
            Token::StringEnd => self.end_string()?,
            Token::Scalar if self.places.is_empty() => return Err(PredictionError::NotAnObject),
            Token::Scalar => {
                if self.field == Field::Output && self.tokens.text() != "null" {
                    self.prediction.output = Output::Unknown;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, container: Container) -> Result<(), PredictionError> {
        let place = match (self.places.last(), container, self.field) {
            (None, Container::Object, _) => Place::Root,
            (None, Container::Array, _) => return Err(PredictionError::NotAnObject),
            (Some(Place::Root), Container::Array, Field::Output) => {
                // A second `output` in one object takes the place of the first.
                self.prediction.output = Output::Strings(0);
                self.prediction.links.clear();
                Place::Output
            }
            (Some(Place::Root), Container::Object, Field::Output) => {
                self.prediction.output = Output::Unknown;
                Place::Elsewhere
            }
            (Some(Place::Root), Container::Object, Field::Error) => {
                self.prediction.error.get_or_insert_default();
                Place::Error
            }
            _ => Place::Elsewhere,
        };
        self.places.push(place);
        self.field = Field::Unknown;
        Ok(())
    }

    fn begin_string(&mut self) -> Result<(), PredictionError> {
        let kept = Vec::new();
        self.reading = match (self.places.last(), self.field) {
            (None, _) => return Err(PredictionError::NotAnObject),
            (Some(Place::Root), Field::Output) | (Some(Place::Output), _) => Reading::Output(kept),
            (_, Field::Id | Field::Status | Field::CreatedAt) => {
                let cap = MAX_WORD_BYTES;
                Reading::Text { kept, cap }
            }
            (_, Field::Error | Field::ErrorText) => {
                let cap = MAX_ERROR_BYTES;
                Reading::Text { kept, cap }
            }
            (_, Field::Output | Field::Unknown) => Reading::Nothing,
        };
        Ok(())
    }

    fn piece(&mut self, piece: Bytes) -> Result<(), PredictionError> {
        match &mut self.reading {
            Reading::Nothing => {}
            Reading::Picture => self.events.push_back(PictureEvent::Data(piece)),
            Reading::Text { kept, cap } => {
                let room = *cap - kept.len();
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Reading::Output(kept) => {
                let is_data_url = kept
                    .iter()
                    .chain(&piece)
                    .zip(DATA_URL)
                    .all(|(byte, expected)| byte == expected);
                if is_data_url {
                    return self.data_url_head(piece);
                }
                // One byte beyond what is allowed shows that it was too long.
                let room = MAX_LINK_BYTES + 1 - kept.len();
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            }
        }
        Ok(())
    }

    fn data_url_head(&mut self, mut piece: Bytes) -> Result<(), PredictionError> {
        let Reading::Output(head) = &mut self.reading else {
            return Ok(());
        };
        let comma = memchr::memchr(b',', &piece);
        let part = piece.split_to(comma.unwrap_or(piece.len()));
        if head.len() + part.len() > MAX_DATA_URL_HEAD_BYTES {
            return Err(PredictionError::DataUrl);
        }
        head.extend_from_slice(&part);
        if comma.is_none() {
            return Ok(());
        }
        if !head.to_ascii_lowercase().ends_with(b";base64") {
            return Err(PredictionError::DataUrl);
        }
        let place = self.count_output();
        if !self.is_wanted(place) {
            self.reading = Reading::Nothing;
            return Ok(());
        }
        self.reading = Reading::Picture;
        // The answer may break off, and bring the picture again when it is asked for anew.
        let begin = PictureEvent::Perhaps(Encoding::Base64);
        self.events.push_back(begin);
        let content = piece.slice(1..);
        if !content.is_empty() {
            self.events.push_back(PictureEvent::Data(content));
        }
        Ok(())
    }

    fn end_string(&mut self) -> Result<(), PredictionError> {
        match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Nothing => {}
            Reading::Picture => {
                let place = self.prediction.output.count().saturating_sub(1);
                self.prediction.had.push(place);
                self.events.push_back(PictureEvent::End);
            }
            Reading::Text { kept, cap } => self.text(&kept, kept.len() == cap),
            Reading::Output(kept) => {
                if kept.starts_with(DATA_URL) {
                    return Err(PredictionError::DataUrl);
                }
                let place = self.count_output();
                if self.is_wanted(place) {
                    // Part of a link would be another link: better one that opens nothing.
                    let whole = kept.len() <= MAX_LINK_BYTES;
                    let link = whole.then(|| String::from_utf8(kept).ok()).flatten();
                    let link = link.unwrap_or_default();
                    self.prediction.links.push((place, link));
                }
            }
        }
        Ok(())
    }

    /// Whether the picture at this place was asked for and is not had yet.
    fn is_wanted(&self, place: usize) -> bool {
        place < self.wanted && !self.prediction.had.contains(&place)
    }

    /// Counts an output; says its place.
    fn count_output(&mut self) -> usize {
        let place = self.prediction.output.count();
        self.prediction.output = Output::Strings(place + 1);
        place
    }

    /// A string value, or as much of it as its cap allows.
    fn text(&mut self, kept: &[u8], overflowed: bool) {
        let text = String::from_utf8_lossy(kept);
        let prediction = &mut self.prediction;
        match self.field {
            Field::Id if !overflowed && is_id(&text) => prediction.id = Some(text.into_owned()),
            Field::Status => prediction.status = Some(Status::of(&text)),
            Field::CreatedAt => {
                let at = DateTime::parse_from_rfc3339(&text);
                prediction.created = at.ok().map(|at| at.timestamp());
            }
            Field::Error => prediction.error = Some(text.into_owned()),
            Field::ErrorText => {
                let error = prediction.error.get_or_insert_default();
                if !error.is_empty() {
                    error.push_str(": ");
                }
                error.push_str(&text);
            }
            Field::Id | Field::Output | Field::Unknown => {}
        }
    }
}

fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
