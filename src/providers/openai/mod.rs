//! The `OpenAI` adapter, for `OpenAI` itself and for any server that speaks its dialect.
//!
//! Three pure parts around one conversation: [`request`] writes the JSON, [`answer`] reads it as it
//! arrives, [`error`] says what a refusal means. Which parameters a model family takes is the catalog's
//! business.

mod answer;
mod error;
#[cfg(test)]
mod golden;
mod request;
mod settings;
#[cfg(test)]
mod tests;
mod usage;

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use self::{
    answer::{AnswerError, AnswerReader, Event},
    error::ErrorBody,
    settings::Settings,
};
use super::{
    Call, ErrorKind, PictureEvent, PictureSink, Provider, ProviderError, Report,
    http::{self, Answer, Attempt, HttpClient, Mirrored},
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

    async fn paint(
        &self,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let mut attempt = self.http.begin(call.deadline)?;
        let body = request::body(
            &call.request,
            call.n,
            &call.route.upstream_model,
            &call.route.translation,
        )?;
        let body = serde_json::to_vec(&body).map_err(|_| {
            // Maps of strings and numbers always serialise.
            ProviderError::new(
                ErrorKind::InvalidRequest,
                "the request could not be written",
            )
        })?;
        let answer = attempt
            .post_json(&["images", "generations"], Bytes::from(body), call.n)
            .await?;
        let prompt = &call.request.prompt;
        if !matches!(answer.status, 200 | 201) {
            let text = answer.body.error_text(&attempt).await;
            let error = ErrorBody::read(&text);
            return Err(error.into_error(answer.status, &answer.headers, prompt, now()));
        }
        if answer.is_html() {
            return Err(malformed("is HTML"));
        }
        let mut pictures = Pictures {
            attempt: &mut attempt,
            sink,
            taken: 0,
            lost: Vec::new(),
        };
        pictures.take(call, answer).await
    }
}

/// The second half of a conversation: pictures on their way into the sink.
struct Pictures<'a, 'client> {
    attempt: &'a mut Attempt<'client>,
    sink: &'a mut dyn PictureSink,
    /// How many the sink has whole.
    taken: usize,
    /// Links that opened nothing: which picture it would have been, and why.
    lost: Vec<(usize, ProviderError)>,
}

impl Pictures<'_, '_> {
    async fn take(&mut self, call: &Call, answer: Answer) -> Result<Report, ProviderError> {
        let Answer {
            status,
            headers,
            mut body,
        } = answer;
        let mut reader = AnswerReader::new(call.n);
        while let Some(chunk) = body.next(self.attempt).await? {
            reader.push(chunk);
            while let Some(event) = reader.next().map_err(unreadable)? {
                match event {
                    Event::Picture(event) => self.deliver(event).await?,
                    Event::Link(link) => self.mirror(&link).await?,
                }
            }
            if reader.is_done() {
                break;
            }
        }
        if !reader.is_done() {
            return Err(if reader.is_blank() {
                malformed("is empty")
            } else {
                ProviderError::new(ErrorKind::Malformed, "the provider's answer broke off")
            });
        }
        body.let_go().await;
        let outcome = reader.finish();
        let error = outcome
            .error
            .map(|error| error.into_error(status, &headers, &call.request.prompt, now()));
        let mut report = outcome.report;
        for (place, _) in self.lost.iter().rev() {
            if *place < report.revised_prompts.len() {
                report.revised_prompts.remove(*place);
            }
        }
        report.refused = self
            .lost
            .drain(..)
            .map(|(_, error)| error)
            .chain(error)
            .collect();
        report.upstream_request_id = http::request_id(&headers);
        if self.taken > 0 {
            return Ok(report);
        }
        // The last is the provider's own word, if it gave one.
        Err(report
            .refused
            .pop()
            .unwrap_or_else(|| malformed("has no picture")))
    }

    async fn deliver(&mut self, event: PictureEvent) -> Result<(), ProviderError> {
        let ends = matches!(event, PictureEvent::End);
        self.attempt.deliver(self.sink, event).await?;
        self.taken += usize::from(ends);
        Ok(())
    }

    async fn mirror(&mut self, link: &str) -> Result<(), ProviderError> {
        match self.attempt.mirror(self.sink, link).await? {
            Mirrored::Whole => self.taken += 1,
            Mirrored::Lost(error) => self.lost.push((self.taken + self.lost.len(), error)),
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

fn unreadable(error: AnswerError) -> ProviderError {
    malformed(&format!("cannot be read: {error}"))
}
