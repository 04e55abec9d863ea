//! The `OpenAI` adapter, for `OpenAI` itself and for any server that speaks its dialect.
//!
//! Pure parts around one conversation: [`request`] writes the JSON or the form, [`answer`] and [`stream`] read
//! what comes as it arrives, [`error`] says what a refusal means. Which parameters a model family takes is the
//! catalog's business.

mod answer;
mod error;
mod fields;
#[cfg(test)]
mod golden;
mod picture_text;
mod request;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod usage;

use std::{fmt, num::NonZeroU8};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::HeaderMap;

use self::{
    answer::{AnswerError, AnswerReader, Event, Outcome},
    error::ErrorBody,
    request::{Endpoint, Saying},
    settings::Settings,
    stream::StreamReader,
};
use super::{
    AccountReport, Call, ErrorKind, PictureEvent, PictureSink, Provider, ProviderError, Report,
    Task,
    http::{Answer, Attempt, HttpClient, Mirrored},
};
use crate::{clock::Clock, config::ProviderConfig};

/// One server that speaks `OpenAI`'s dialect.
pub struct OpenAi {
    http: HttpClient,
}

impl OpenAi {
    /// The provider of a `[providers.NAME]` section.
    ///
    /// # Errors
    /// A sentence naming the key that is wrong.
    pub fn new(
        name: &str,
        config: &ProviderConfig,
        max_picture_bytes: u64,
    ) -> Result<Self, String> {
        let Settings { base_url, headers } = Settings::read(config)?;
        Ok(Self {
            http: HttpClient::new(name, base_url, headers, config, max_picture_bytes)?,
        })
    }

    /// `GET /models` is free. Keys can be restricted to what they paint with, and not every
    /// server of this dialect has such a list.
    async fn ask_for_models(&self) -> Result<AccountReport, ProviderError> {
        let answer = self.http.inspect(&["models"], None).await?;
        match answer.status {
            200 => Ok(answer.report("the key works")),
            403 => Ok(AccountReport {
                warning: Some(
                    "the key is known, but may not list models; whether it may paint, only painting tells"
                        .to_owned(),
                ),
                ..answer.report("the key is restricted")
            }),
            404 | 405 => Ok(AccountReport {
                warning: Some("it has no list of models, so the key could not be tried".to_owned()),
                ..answer.report("the server answers")
            }),
            _ => Err(answer.refusal()),
        }
    }

    async fn paint(
        &self,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let mut attempt = self.http.begin(call.deadline)?;
        let outcome = Self::converse(&mut attempt, call, sink).await;
        attempt.sign(outcome)
    }

    async fn converse(
        attempt: &mut Attempt<'_>,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let drafts = drafts(call);
        // Each draft weighs as much as a picture.
        let pictures = call.n.saturating_add(drafts);
        let answer = ask(attempt, call, pictures).await?;
        let prompt = &call.request.prompt;
        if !matches!(answer.status, 200 | 201) {
            let text = answer.body.error_text(attempt).await;
            let error = ErrorBody::read(&text);
            return Err(error.into_error(answer.status, &answer.headers, prompt, now()));
        }
        if answer.is_html() {
            return Err(malformed("is HTML"));
        }
        let mut pictures = Pictures {
            attempt,
            sink,
            taken: 0,
            is_draft: false,
            is_lost: false,
            lost: Vec::new(),
        };
        pictures.take(call, drafts, answer).await
    }
}

/// Whether the provider is asked for events.
fn streams(call: &Call) -> bool {
    call.request.stream && call.route.streams && !matches!(call.task, Task::Vary(_))
}

/// How many drafts a call may bring. (Those of a stream that was not asked for are none of the client's.)
fn drafts(call: &Call) -> u8 {
    let each = call.request.partial_images.map_or(0, |drafts| drafts.value);
    if streams(call) {
        each.saturating_mul(call.n.get())
    } else {
        0
    }
}

/// Sends the request.
async fn ask(
    attempt: &Attempt<'_>,
    call: &Call,
    pictures: NonZeroU8,
) -> Result<Answer, ProviderError> {
    let endpoint = match call.task {
        Task::Generate => Endpoint::Generations,
        Task::Edit(_) => Endpoint::Edits,
        Task::Vary(_) => Endpoint::Variations,
    };
    let saying = Saying {
        endpoint,
        request: &call.request,
        n: call.n,
        upstream_model: &call.route.upstream_model,
        translation: &call.route.translation,
        stream: streams(call),
    };
    let path = endpoint.path();
    let form = match &call.task {
        Task::Generate => {
            let body = serde_json::to_vec(&saying.members()?).map_err(|_| {
                // Maps of strings and numbers always serialise.
                ProviderError::new(
                    ErrorKind::InvalidRequest,
                    "the request could not be written",
                )
            })?;
            return attempt.post_json(&path, Bytes::from(body), pictures).await;
        }
        Task::Edit(inputs) => saying.edit(inputs)?,
        Task::Vary(image) => saying.variation(image)?,
    };
    let (content_type, body) = form.encode();
    attempt
        .post(&path, &content_type, HeaderMap::new(), body, pictures)
        .await
}

/// The way in which an answer is written. Servers that do not stream answer a request for events with JSON,
/// and some send events although nobody asked; the first byte tells them apart.
enum Reader {
    Json(AnswerReader),
    Events(StreamReader),
}

impl Reader {
    /// The reader for a body that begins like this; `None` while it is only white space.
    fn for_beginning(
        chunk: &[u8],
        says_events: bool,
        call: &Call,
        drafts: u8,
        cap: u64,
    ) -> Option<Self> {
        let is_events = match chunk.trim_ascii_start().first()? {
            b'{' => false,
            // `event:`, `data:`, `id:`, `retry:` or a comment; no JSON begins so.
            b'e' | b'd' | b'i' | b'r' | b':' => true,
            _ => says_events,
        };
        Some(if is_events {
            Self::Events(StreamReader::new(call.n, drafts, cap))
        } else {
            Self::Json(AnswerReader::new(call.n))
        })
    }

    fn push(&mut self, chunk: Bytes) {
        match self {
            Self::Json(reader) => reader.push(chunk),
            Self::Events(reader) => reader.push(chunk),
        }
    }

    fn next(&mut self) -> Result<Option<Event>, ProviderError> {
        match self {
            Self::Json(reader) => reader.next(),
            Self::Events(reader) => reader.next(),
        }
        .map_err(unreadable)
    }

    /// Whether whatever follows does not matter.
    fn is_done(&self) -> bool {
        match self {
            Self::Json(reader) => reader.is_done(),
            Self::Events(reader) => reader.is_done(),
        }
    }

    /// Whether what came is whole as far as it goes. An answer that is not done never is; a stream may end,
    /// or break, between two of its events.
    fn is_whole(&self) -> bool {
        match self {
            Self::Json(reader) => reader.is_done(),
            Self::Events(reader) => reader.is_between_frames(),
        }
    }

    fn end(&mut self) -> Result<(), ProviderError> {
        match self {
            Self::Json(_) => Ok(()),
            Self::Events(reader) => reader.end().map_err(unreadable),
        }
    }

    fn finish(self) -> Outcome {
        match self {
            Self::Json(reader) => reader.finish(),
            Self::Events(reader) => reader.finish(),
        }
    }
}

/// The second half of a conversation: pictures on their way into the sink.
struct Pictures<'a, 'client> {
    attempt: &'a mut Attempt<'client>,
    sink: &'a mut dyn PictureSink,
    /// How many the sink has whole.
    taken: usize,
    /// The one that the sink is getting is a draft.
    is_draft: bool,
    /// The last one came as a link that opened nothing.
    is_lost: bool,
    /// Links that opened nothing: which picture it would have been, and why.
    lost: Vec<(usize, ProviderError)>,
}

impl Pictures<'_, '_> {
    async fn take(
        &mut self,
        call: &Call,
        drafts: u8,
        answer: Answer,
    ) -> Result<Report, ProviderError> {
        let says_events = answer.is_event_stream();
        let Answer {
            status,
            headers,
            mut body,
        } = answer;
        let cap = self.attempt.picture_cap();
        let mut reader = None;
        let mut end = loop {
            let chunk = match body.next(self.attempt).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let reader = match &mut reader {
                Some(reader) => reader,
                None => match Reader::for_beginning(&chunk, says_events, call, drafts, cap) {
                    Some(new) => reader.insert(new),
                    None => continue,
                },
            };
            reader.push(chunk);
            match self.hand_on(reader).await {
                Ok(()) if reader.is_done() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        let Some(mut reader) = reader else {
            end?;
            return Err(malformed("is empty"));
        };
        if end.is_ok() && !reader.is_done() {
            end = match reader.end() {
                Ok(()) => self.hand_on(&mut reader).await,
                Err(error) => Err(error),
            };
        }
        let is_done = reader.is_done();
        if end.is_ok() && !is_done && (self.taken == 0 || !reader.is_whole()) {
            end = Err(broke_off());
        }
        // Only a stream has said by then what its pictures used.
        let is_stream = matches!(reader, Reader::Events(_));
        let misses_some = (1..usize::from(call.n.get())).contains(&self.taken);
        if !(is_stream && misses_some) {
            end?;
            end = Ok(());
        }
        if is_done && end.is_ok() {
            body.let_go().await;
        }
        let outcome = reader.finish();
        let prompt = &call.request.prompt;
        let errors = outcome.errors.into_iter();
        let errors = errors.map(|error| error.into_error(status, &headers, prompt, now()));
        let mut report = outcome.report;
        // A picture whose event broke off behind it is in none of the counts.
        let is_counted = is_done || report.announced >= self.taken;
        report.usage = report.usage.filter(|_| is_counted);
        for (place, _) in self.lost.iter().rev() {
            if *place < report.revised_prompts.len() {
                report.revised_prompts.remove(*place);
            }
        }
        report.refused = self
            .lost
            .drain(..)
            .map(|(_, error)| error)
            .chain(end.err())
            .chain(errors)
            .collect();
        if self.taken > 0 {
            return Ok(report);
        }
        // The last is the provider's own word, if it gave one.
        Err(report
            .refused
            .pop()
            .unwrap_or_else(|| malformed("has no picture")))
    }

    /// Hands on what the reader has made of the last chunk.
    async fn hand_on(&mut self, reader: &mut Reader) -> Result<(), ProviderError> {
        while let Some(event) = reader.next()? {
            match event {
                Event::Picture(event) => self.deliver(event).await?,
                Event::Link(link) => self.mirror(&link).await?,
            }
        }
        Ok(())
    }

    async fn deliver(&mut self, event: PictureEvent) -> Result<(), ProviderError> {
        let mut is_whole_picture = false;
        match event {
            PictureEvent::Begin(_) | PictureEvent::Perhaps(_) => {
                self.is_draft = false;
                self.is_lost = false;
            }
            PictureEvent::Draft { .. } => {
                self.is_draft = true;
                self.is_lost = false;
            }
            PictureEvent::End => is_whole_picture = !self.is_draft,
            // There is nothing that it is about.
            PictureEvent::About(_) if self.is_lost => return Ok(()),
            PictureEvent::Data(_) | PictureEvent::About(_) | PictureEvent::Abandon => {}
        }
        self.attempt.deliver(self.sink, event).await?;
        self.taken += usize::from(is_whole_picture);
        Ok(())
    }

    async fn mirror(&mut self, link: &str) -> Result<(), ProviderError> {
        match self.attempt.mirror(self.sink, link).await? {
            Mirrored::Whole => {
                self.taken += 1;
                self.is_lost = false;
            }
            Mirrored::Lost(error) => {
                self.lost.push((self.taken + self.lost.len(), error));
                self.is_lost = true;
            }
        }
        Ok(())
    }
}

impl Provider for OpenAi {
    fn generate<'a>(
        &'a self,
        call: &'a Call,
        sink: &'a mut dyn PictureSink,
    ) -> BoxFuture<'a, Result<Report, ProviderError>> {
        Box::pin(self.paint(call, sink))
    }

    fn check_account(&self) -> BoxFuture<'_, Result<AccountReport, ProviderError>> {
        Box::pin(self.ask_for_models())
    }

    fn in_flight(&self) -> usize {
        self.http.calls_in_flight()
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OpenAi")
            .field("name", &self.http.name())
            .field("base_url", &self.http.base_url().as_str())
            .finish_non_exhaustive()
    }
}

/// For dates in `retry-after`, which are about the real world.
fn now() -> chrono::DateTime<chrono::Utc> {
    Clock::system().now()
}

fn malformed(what: &str) -> ProviderError {
    ProviderError::new(
        ErrorKind::Malformed,
        format!("the provider's answer {what}"),
    )
}

fn broke_off() -> ProviderError {
    ProviderError::new(ErrorKind::Malformed, "the provider's answer broke off")
}

fn unreadable(error: AnswerError) -> ProviderError {
    malformed(&format!("cannot be read: {error}"))
}
