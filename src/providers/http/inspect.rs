//! Asking a provider about our account: a small question that costs nothing, and what came back.

use std::{num::NonZeroU8, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, Method, header};
use tokio::time::Instant;

use super::{HttpClient, JSON, Payload, Witness, send_error};
use crate::{
    clock::Clock,
    providers::{AccountReport, ErrorKind, ProviderError, wording::in_our_words_with},
};

/// How long an answer to such a question may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A small answer.
pub(in crate::providers) struct Inspected {
    pub(in crate::providers) status: u16,
    pub(in crate::providers) headers: HeaderMap,
    pub(in crate::providers) body: Bytes,
    /// How far our clock is ahead of theirs, if they say what time it is.
    pub(in crate::providers) clock_ahead: Option<TimeDelta>,
}

impl HttpClient {
    /// Gets `base_url/path?query`.
    ///
    /// # Errors
    /// When no answer comes, or one that is a page for people.
    pub(in crate::providers) async fn inspect(
        &self,
        path: &[&str],
        query: Option<&str>,
    ) -> Result<Inspected, ProviderError> {
        let attempt = self.begin(Instant::now() + PATIENCE)?;
        let mut url = self.endpoint(path);
        url.set_query(query);
        let mut headers = self.headers.clone();
        headers.insert(header::ACCEPT, JSON);
        let nothing = Witness::default().watch(Payload::default());
        let request = self.connections.send(Method::GET, &url, headers, nothing);
        let response = tokio::time::timeout_at(attempt.ends_at(), request)
            .await
            .map_err(|_| {
                let kind = ErrorKind::Timeout { sent: true };
                ProviderError::new(kind, "the provider did not answer in time")
            })?
            .map_err(|error| send_error(&error, true))?;
        let answer = super::Answer::new(response, self.answer_cap(NonZeroU8::MIN));
        let (status, is_html) = (answer.status, answer.is_html());
        let headers = answer.headers;
        let body = answer.body.error_text(&attempt).await;
        if is_html || status < 300 && !body.trim_ascii_start().starts_with(b"{") {
            return Err(ProviderError {
                upstream_status: Some(status),
                ..ProviderError::new(ErrorKind::Malformed, "the answer is none of such an API")
            });
        }
        Ok(Inspected {
            status,
            clock_ahead: clock_ahead(&headers),
            headers,
            body,
        })
    }
}

impl Inspected {
    /// What the status means, for answers that say no more.
    pub(in crate::providers) fn refusal(&self) -> ProviderError {
        let kind = match self.status {
            401 | 403 => ErrorKind::Auth,
            402 => ErrorKind::QuotaExhausted,
            404 | 405 => ErrorKind::ModelUnavailable,
            429 => ErrorKind::RateLimited { retry_after: None },
            408 | 500.. => ErrorKind::Overloaded { retry_after: None },
            _ => ErrorKind::Malformed,
        };
        ProviderError {
            upstream_status: Some(self.status),
            ..ProviderError::new(kind, in_our_words_with(kind, self.status))
        }
    }

    /// What was found, with what the clocks say.
    pub(in crate::providers) fn report(&self, found: impl Into<String>) -> AccountReport {
        AccountReport {
            found: found.into(),
            warning: None,
            clock_ahead: self.clock_ahead,
        }
    }
}

fn clock_ahead(headers: &HeaderMap) -> Option<TimeDelta> {
    let theirs = headers.get(header::DATE)?.to_str().ok()?;
    let theirs = DateTime::parse_from_rfc2822(theirs).ok()?;
    Some(Clock::system().now() - theirs.with_timezone(&Utc))
}
