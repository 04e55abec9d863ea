//! Reads an `ImagesResponse` as it arrives (`contracts/openai-images.md`, section 2), or the events of a
//! stream, which are as good as answers with one element (section 3.1).
//!
//! Chunks go in, pictures come out as slices of them, and what is left at the end is a [`Report`]. Members
//! may come in any order, whatever is not known is walked over, and nothing here grows with what a server
//! sends: see the caps in [`super::fields`]. No sockets: the adapter feeds it and hands on its events.

use std::{collections::VecDeque, num::NonZeroU8};

use bytes::Bytes;

use super::{
    error::ErrorBody,
    fields::{Field, Kind, Place},
    picture_text::{NotBase64, PictureText, is_data_url},
    usage::{self, Counts},
};
use crate::{
    catalog::{Background, Quality, TokenUsage},
    providers::{
        About, Encoding, PictureEvent, Report,
        json::{Container, JsonError, Token, Tokenizer},
    },
};

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
    /// Errors instead of pictures, or beside them; no more than pictures were asked for.
    pub(super) errors: Vec<ErrorBody>,
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
    /// An event whose JSON has no end.
    #[error("it has an event that breaks off")]
    TornEvent,
    /// An event that weighs more than a picture may.
    #[error("it has an event that is larger than a picture may be")]
    LargeEvent,
}

impl From<NotBase64> for AnswerError {
    fn from(_: NotBase64) -> Self {
        Self::DataUrl
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
    /// A picture, which begins as soon as its base64 does.
    Picture(PictureText),
    /// A picture that has begun and is handed on.
    Taken(PictureText),
}

/// What is known of the current element of `data`, or of the event.
#[derive(Default)]
struct Item {
    has_picture: bool,
    /// Its picture was handed on.
    is_taken: bool,
    /// Its picture was handed on before it was clear that it is one.
    is_doubtful: bool,
    link: Option<String>,
    revised_prompt: Option<String>,
}

/// What is known of the current document.
#[derive(Default)]
struct Document {
    kind: Kind,
    /// All that follows from it has been done.
    is_settled: bool,
    /// It has a `data` array, so that the pictures are in there.
    has_data: bool,
    draft_index: Option<u8>,
    about: About,
    counts: Counts,
    error: Option<ErrorBody>,
    /// An error that stands in the event itself.
    flat_error: ErrorBody,
}

/// Reads one answer. Feed it with [`AnswerReader::push`], then take events until there are none.
pub(super) struct AnswerReader {
    tokens: Tokenizer,
    places: Vec<Place>,
    field: Field,
    reading: Reading,
    events: VecDeque<Event>,
    is_stream: bool,
    document: Document,
    item: Item,
    report: Report,
    usage: Option<TokenUsage>,
    errors: Vec<ErrorBody>,
    n: u8,
    /// How many pictures may still be taken: those beyond the ones asked for are counted and left.
    wanted: u8,
    /// The same of drafts.
    drafts_wanted: u8,
    /// How many drafts of the next picture there were.
    drafts_seen: u8,
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
            is_stream: false,
            document: Document::default(),
            item: Item::default(),
            report: Report::default(),
            usage: None,
            errors: Vec::new(),
            n: n.get(),
            wanted: n.get(),
            drafts_wanted: 0,
            drafts_seen: 0,
        }
    }

    /// For the events of a stream with `n` pictures and at most `drafts` drafts in all. Each event is begun
    /// and ended with [`AnswerReader::begin_event`] and [`AnswerReader::end_event`].
    pub(super) fn for_stream(n: NonZeroU8, drafts: u8) -> Self {
        Self {
            is_stream: true,
            drafts_wanted: drafts,
            ..Self::new(n)
        }
    }

    /// Gives it the next chunk. The events of the one before must have been taken.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.tokens.push(chunk);
    }

    /// Whether the document is complete; whatever follows in it does not matter.
    pub(super) fn is_done(&self) -> bool {
        self.tokens.is_done()
    }

    /// Whether there is a picture or an error for each picture asked for.
    pub(super) fn is_satisfied(&self) -> bool {
        self.report.announced + self.errors.len() >= usize::from(self.n)
    }

    /// What the current document is, as far as it has said so.
    pub(super) fn kind(&self) -> Kind {
        self.document.kind
    }

    /// Whether all that the current document says is out.
    pub(super) fn is_settled(&self) -> bool {
        self.document.is_settled
    }

    /// Another event begins, of this kind by its name.
    pub(super) fn begin_event(&mut self, named: Kind) {
        self.tokens = Tokenizer::new();
        self.places.clear();
        self.field = Field::Unknown;
        self.reading = Reading::Nothing;
        self.item = Item::default();
        self.document = Document {
            kind: named,
            ..Document::default()
        };
    }

    /// The event ends, whose name has come by now if it has one.
    ///
    /// # Errors
    /// [`AnswerError::TornEvent`] when its JSON has no end, unless nobody cares for it.
    pub(super) fn end_event(&mut self, named: Kind) -> Result<(), AnswerError> {
        if self.document.kind == Kind::Unsaid {
            self.document.kind = named;
        }
        if !self.is_done() && self.document.kind != Kind::Other {
            return Err(AnswerError::TornEvent);
        }
        self.settle();
        Ok(())
    }

    /// Nobody cares for the rest of the event.
    pub(super) fn leave_event(&mut self) {
        self.document.kind = Kind::Other;
        self.settle();
    }

    /// An error that came in another way.
    pub(super) fn add_error(&mut self, error: ErrorBody) {
        if self.errors.len() < usize::from(self.n) {
            self.errors.push(error);
        }
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
        if !self.is_stream {
            self.settle();
        }
        self.report.usage = self.usage;
        while let Some(None) = self.report.revised_prompts.last() {
            self.report.revised_prompts.pop();
        }
        Outcome {
            report: self.report,
            errors: self.errors,
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
                // An event that has not said what it is may still say so in its name.
                let is_over = self.places.is_empty();
                if is_over && !(self.is_stream && self.document.kind == Kind::Unsaid) {
                    self.settle();
                }
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
        const TOP: [Option<Place>; 2] = [Some(Place::Root), Some(Place::Event)];
        let outer = self.places.last().copied();
        let is_top = TOP.contains(&outer);
        let place = match (outer, container, self.field) {
            (None, Container::Object, _) if self.is_stream => Place::Event,
            (None, Container::Object, _) => Place::Root,
            (None, Container::Array, _) => return Err(AnswerError::NotAnObject),
            (_, Container::Array, Field::Data) if is_top && !self.item.has_picture => {
                self.document.has_data = true;
                Place::Data
            }
            (_, Container::Object, Field::Usage) if is_top => Place::Usage,
            (_, Container::Object, Field::Error) if is_top => {
                self.document.error = Some(ErrorBody::default());
                Place::Error
            }
            (Some(Place::Data), Container::Object, _) => {
                self.item = Item::default();
                Place::Item
            }
            (Some(Place::Usage), Container::Object, Field::InputDetails) => Place::InputDetails,
            (Some(Place::Usage), Container::Object, Field::OutputDetails) => Place::OutputDetails,
            (Some(Place::Event | Place::Error), Container::Object, Field::Moderation) => {
                Place::Moderation
            }
            (Some(Place::Moderation), Container::Array, Field::Categories) => Place::Categories,
            _ => Place::Elsewhere,
        };
        self.places.push(place);
        self.field = match place {
            // Its elements have no names.
            Place::Categories => Field::Category,
            _ => Field::Unknown,
        };
        Ok(())
    }

    fn in_event(&self) -> bool {
        self.places.last() == Some(&Place::Event)
    }

    fn begin_string(&mut self) {
        self.reading = if self.field == Field::Base64 {
            Reading::Picture(PictureText::default())
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
            Reading::Taken(text) => {
                if let Some(data) = text.feed(piece)? {
                    self.picture_data(data);
                }
            }
            Reading::Text { kept, overflowed } => {
                let cap = self.field.cap().unwrap_or(0);
                let room = cap - kept.len();
                let fits = piece.len() <= room;
                if self.field == Field::Link
                    && !*overflowed
                    && is_data_url(kept.iter().chain(&piece))
                {
                    // Not a link but the picture itself.
                    let mut whole = std::mem::take(kept);
                    whole.extend_from_slice(&piece);
                    self.reading = Reading::Picture(PictureText::default());
                    return self.picture_piece(Bytes::from(whole));
                }
                *overflowed |= !fits;
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Reading::Picture(_) => self.picture_piece(piece)?,
        }
        Ok(())
    }

    /// A piece of a picture that has not begun.
    fn picture_piece(&mut self, piece: Bytes) -> Result<(), AnswerError> {
        let Reading::Picture(text) = &mut self.reading else {
            return Ok(());
        };
        if let Some(data) = text.feed(piece)? {
            let text = std::mem::take(text);
            self.begin_picture(text, data);
        }
        Ok(())
    }

    /// Begins a picture or a draft, unless this element already has one or enough have come.
    fn begin_picture(&mut self, text: PictureText, data: Bytes) {
        self.reading = Reading::Nothing;
        if self.item.has_picture || (self.in_event() && self.document.has_data) {
            return;
        }
        self.item.has_picture = true;
        let encoding = Encoding::Base64;
        let begin = match self.document.kind {
            _ if !self.in_event() => PictureEvent::Begin(encoding),
            Kind::Finished => PictureEvent::Begin(encoding),
            Kind::Unsaid => PictureEvent::Perhaps(encoding),
            Kind::Draft => PictureEvent::Draft {
                // Often the index comes only behind the picture, which is too large to be held for it; drafts
                // come in order (section 3.1).
                index: self.document.draft_index.unwrap_or(self.drafts_seen),
                encoding,
            },
            Kind::Error | Kind::Other => return,
        };
        let wanted = match begin {
            PictureEvent::Draft { .. } => {
                self.drafts_seen = self.drafts_seen.saturating_add(1);
                &mut self.drafts_wanted
            }
            _ => &mut self.wanted,
        };
        let Some(left) = wanted.checked_sub(1) else {
            return;
        };
        *wanted = left;
        self.item.is_taken = true;
        self.item.is_doubtful = matches!(begin, PictureEvent::Perhaps(_));
        self.emit(begin);
        self.reading = Reading::Taken(text);
        self.picture_data(data);
    }

    fn picture_data(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.emit(PictureEvent::Data(data));
        }
    }

    fn emit(&mut self, event: PictureEvent) {
        self.events.push_back(Event::Picture(event));
    }

    fn end_string(&mut self) -> Result<(), AnswerError> {
        match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Nothing => {}
            Reading::Taken(_) => self.end_picture(),
            Reading::Picture(text) => {
                if let Some(data) = text.finish()? {
                    self.begin_picture(PictureText::Base64, data);
                    if let Reading::Taken(_) =
                        std::mem::replace(&mut self.reading, Reading::Nothing)
                    {
                        self.end_picture();
                    }
                }
            }
            Reading::Text { kept, overflowed } => {
                let text = String::from_utf8_lossy(&kept).into_owned();
                self.text(text, overflowed);
            }
        }
        Ok(())
    }

    /// The picture's text is complete. A doubtful one ends with its event.
    fn end_picture(&mut self) {
        if !self.item.is_doubtful {
            self.emit(PictureEvent::End);
        }
    }

    /// A string value, or as much of it as its cap allows.
    fn text(&mut self, text: String, overflowed: bool) {
        let document = &mut self.document;
        let about = &mut document.about;
        match self.field {
            Field::Size => about.size = text.parse().ok(),
            Field::Quality => {
                about.quality = text.parse().ok().filter(|word| *word != Quality::Auto);
            }
            Field::Background => {
                about.background = text.parse().ok().filter(|word| *word != Background::Auto);
            }
            Field::OutputFormat => about.output_format = text.parse().ok(),
            Field::Event => {
                let kind = Kind::of_event(&text);
                if kind != Kind::Other || document.kind == Kind::Unsaid {
                    document.kind = kind;
                }
            }
            // Part of a link would be another link: better one that opens nothing.
            Field::Link if overflowed => self.item.link = Some(String::new()),
            Field::Link if !text.is_empty() => self.item.link = Some(text),
            Field::RevisedPrompt if !overflowed => self.item.revised_prompt = Some(text),
            Field::Error => document.error.get_or_insert_default().message = text,
            Field::Message => self.current_error().message = text,
            Field::Type => self.current_error().error_type = Some(text),
            Field::Code => self.current_error().code = Some(text),
            Field::Param => self.current_error().param = Some(text),
            Field::ModerationStage => self.current_error().moderation.stage = Some(text),
            Field::Category if !overflowed => self.current_error().moderation.add(text),
            _ => {}
        }
    }

    /// The error that the current member belongs to: the one in `error`, or the event itself.
    fn current_error(&mut self) -> &mut ErrorBody {
        if self.is_stream && !self.places.contains(&Place::Error) {
            &mut self.document.flat_error
        } else {
            self.document.error.get_or_insert_default()
        }
    }

    fn scalar(&mut self) {
        let text = self.tokens.text();
        let place = self.places.last();
        let document = &mut self.document;
        let counts = &mut document.counts;
        let count = match (self.field, place) {
            (Field::Created, _) => {
                document.about.created_at = text.parse().ok();
                return;
            }
            (Field::DraftIndex, _) => {
                document.draft_index = text.parse().ok();
                return;
            }
            (Field::Code, _) if text != "null" => {
                // Some servers write the status there, as a number.
                let code = text.to_owned();
                self.current_error().code = Some(code);
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

    /// An element of `data`, or a whole event with a picture, is complete.
    fn end_item(&mut self) {
        let item = std::mem::take(&mut self.item);
        let mut is_taken = item.is_taken;
        if !item.has_picture {
            let Some(link) = item.link else {
                return;
            };
            if self.wanted > 0 {
                self.wanted -= 1;
                self.events.push_back(Event::Link(link));
                is_taken = true;
            }
        }
        let about = About {
            revised_prompt: item.revised_prompt.clone(),
            ..self.document.about.clone()
        };
        if is_taken && about != About::default() {
            self.emit(PictureEvent::About(Box::new(about)));
        }
        self.report.announced += 1;
        self.drafts_seen = 0;
        // Pictures that are not taken have no place in the list.
        if self.report.revised_prompts.len() < usize::from(self.n) {
            self.report.revised_prompts.push(item.revised_prompt);
        }
    }

    /// The document is complete: does what follows from all of it.
    fn settle(&mut self) {
        if std::mem::replace(&mut self.document.is_settled, true) {
            return;
        }
        if self.document.kind == Kind::Unsaid && self.document.draft_index.is_some() {
            self.document.kind = Kind::Draft;
        }
        let kind = self.document.kind;
        if self.item.is_doubtful {
            if matches!(kind, Kind::Finished | Kind::Unsaid) && self.tokens.is_done() {
                self.emit(PictureEvent::End);
            } else {
                self.emit(PictureEvent::Abandon);
                self.wanted += 1;
                self.item.is_taken = false;
            }
        }
        match kind {
            Kind::Finished | Kind::Unsaid => {
                if self.is_stream && !self.document.has_data {
                    self.end_item();
                }
                self.report_document();
            }
            Kind::Draft if self.item.is_taken => {
                let about = self.document.about.clone();
                self.emit(PictureEvent::About(Box::new(about)));
            }
            Kind::Draft | Kind::Error | Kind::Other => {}
        }
        let flat = std::mem::take(&mut self.document.flat_error);
        let error = self.document.error.take();
        if let Some(error) = error.or_else(|| (kind == Kind::Error).then_some(flat)) {
            self.add_error(error);
        }
    }

    /// What an answer or a finished picture says goes into the report; later pictures have the last word,
    /// and each is counted with its own usage, as several are billed like as many calls (section 2).
    fn report_document(&mut self) {
        let Document { about, counts, .. } = &self.document;
        let report = &mut self.report;
        report.created = about.created_at.or(report.created);
        report.size = about.size.or(report.size);
        report.quality = about.quality.or(report.quality);
        report.background = about.background.or(report.background);
        report.output_format = about.output_format.or(report.output_format);
        self.usage = match (self.usage, counts.usage()) {
            (Some(so_far), Some(more)) => Some(usage::sum(so_far, more)),
            (so_far, more) => so_far.or(more),
        };
    }
}
