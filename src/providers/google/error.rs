//! Google's error bodies become our kinds (`contracts/google-imagen.md`, section 4).
//!
//! The machine-readable reason in `details` decides first, then the RPC status, then HTTP's: a bad key is a
//! 400 here, and a project without any quota a 429.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::verdict;
use crate::providers::{
    ErrorKind, ProviderError,
    http::retry_after,
    wording::{in_our_words_with, is_word, presentable},
};

/// How Imagen begins its refusals of a prompt (contract, 3.3).
const PROMPT_REFUSED: &str = "Image generation failed with the following error";
/// Nobody is left alone longer than this unasked.
const LONGEST_PAUSE_SECONDS: f64 = 600.0;

/// What an error said of itself.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct ErrorBody {
    message: String,
    /// `INVALID_ARGUMENT`
    status: Option<String>,
    /// Of the `ErrorInfo`: `API_KEY_INVALID`.
    reason: Option<String>,
    /// Of the `RetryInfo`.
    retry_delay: Option<Duration>,
    /// There is no quota at all, so that waiting does not help.
    has_no_quota: bool,
}

impl ErrorBody {
    /// Reads `{"error":{…}}`, alone or in a list; anything else (a page, a proxy's words) says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let document = document.get(0).unwrap_or(&document);
        let Some(error) = document.get("error") else {
            return Self::default();
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let message = text(error.get("message")).unwrap_or_default();
        let mut read = Self {
            has_no_quota: says_limit_0(&message),
            message,
            status: text(error.get("status")),
            ..Self::default()
        };
        let details = error.get("details").and_then(Value::as_array);
        for detail in details.into_iter().flatten() {
            read.detail(detail);
        }
        read
    }

    fn detail(&mut self, detail: &Value) {
        let kind = detail.get("@type").and_then(Value::as_str);
        let kind = kind.and_then(|kind| kind.rsplit('.').next());
        let is_zero = |value: Option<&Value>| {
            value.is_some_and(|value| value.as_str() == Some("0") || value.as_u64() == Some(0))
        };
        match kind {
            Some("ErrorInfo") => {
                let reason = detail.get("reason").and_then(Value::as_str);
                self.reason = self.reason.take().or(reason.map(str::to_owned));
                self.has_no_quota |= is_zero(detail.pointer("/metadata/quota_limit_value"));
            }
            Some("RetryInfo") => {
                let delay = detail.get("retryDelay").and_then(Value::as_str);
                self.retry_delay = delay.and_then(seconds);
            }
            Some("QuotaFailure") => {
                let violations = detail.get("violations").and_then(Value::as_array);
                self.has_no_quota |= violations
                    .into_iter()
                    .flatten()
                    .any(|violation| is_zero(violation.get("quotaValue")));
            }
            _ => {}
        }
    }

    /// What it means, coming with this status and these headers. `prompt` is what the caller asked for: no
    /// message that quotes it is passed on.
    pub(super) fn into_error(
        self,
        status: u16,
        headers: &HeaderMap,
        prompt: &str,
        now: DateTime<Utc>,
    ) -> ProviderError {
        if status == 400 && self.message.starts_with(PROMPT_REFUSED) {
            return verdict::of_prompt(&self.message, prompt, status);
        }
        let (kind, maybe_charged) = self.meaning(status);
        let pause = || {
            self.retry_delay
                .or_else(|| retry_after(headers, &self.message, now))
        };
        let kind = match kind {
            ErrorKind::RateLimited { .. } => ErrorKind::RateLimited {
                retry_after: pause(),
            },
            ErrorKind::Overloaded { .. } => ErrorKind::Overloaded {
                retry_after: pause(),
            },
            other => other,
        };
        let message = match kind {
            // Google Cloud names models with our project in front.
            ErrorKind::InvalidRequest if self.message.contains("projects/") => None,
            ErrorKind::InvalidRequest => presentable(&self.message, prompt),
            ErrorKind::Auth if self.status() == Some("FAILED_PRECONDITION") => Some(format!(
                "the provider does not serve this account or where it calls from (HTTP {status})"
            )),
            _ => None,
        };
        ProviderError {
            message: message.unwrap_or_else(|| in_our_words_with(kind, status)),
            // The caller's clients know OpenAI's codes, not Google's.
            code: (self.reason.or(self.status))
                .filter(|text| kind != ErrorKind::InvalidRequest && is_word(text)),
            upstream_status: Some(status),
            maybe_charged,
            ..ProviderError::new(kind, "")
        }
    }

    fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// The kind, and whether Google may charge for the call.
    fn meaning(&self, status: u16) -> (ErrorKind, bool) {
        const OVERLOADED: ErrorKind = ErrorKind::Overloaded { retry_after: None };
        if let Some(kind) = self.reason.as_deref().and_then(kind_of_reason) {
            return (kind, false);
        }
        let bad_key = self.message.starts_with("API key not valid")
            || self.message.starts_with("API key expired");
        match (status, self.status()) {
            (400, _) if bad_key => (ErrorKind::Auth, false),
            // A failed precondition is where we call from, or billing: nothing about the request, and true
            // of every model.
            (400, Some("FAILED_PRECONDITION")) | (401 | 403, _) => (ErrorKind::Auth, false),
            (400 | 413 | 422, _) => (ErrorKind::InvalidRequest, false),
            (402, _) => (ErrorKind::QuotaExhausted, false),
            (404 | 405 | 410, _) => (ErrorKind::ModelUnavailable, false),
            (429, _) if self.has_no_quota => (ErrorKind::QuotaExhausted, false),
            (429, _) => (ErrorKind::RateLimited { retry_after: None }, false),
            (409 | 500 | 501 | 503, _) => (OVERLOADED, false),
            // Cancelled or out of time midway, servers in between, statuses nobody documented.
            _ => (OVERLOADED, true),
        }
    }
}

/// Reasons that decide alone, from `google.api.ErrorReason` as far as the contract saw them, and the other
/// members of their families.
fn kind_of_reason(reason: &str) -> Option<ErrorKind> {
    Some(match reason {
        "SERVICE_DISABLED"
        | "CONSUMER_INVALID"
        | "CONSUMER_SUSPENDED"
        | "IAM_PERMISSION_DENIED"
        | "CREDENTIALS_MISSING" => ErrorKind::Auth,
        reason if reason.starts_with("API_KEY_") => ErrorKind::Auth,
        reason if reason.starts_with("ACCESS_TOKEN_") => ErrorKind::Auth,
        "BILLING_DISABLED" => ErrorKind::QuotaExhausted,
        "MODEL_CAPACITY_EXHAUSTED" => ErrorKind::Overloaded { retry_after: None },
        _ => return None,
    })
}

/// `… limit: 0` and `… limit: 0, model: …`, but not `limit: 05` or `limit: 0.5`.
fn says_limit_0(message: &str) -> bool {
    message.split("limit: 0").skip(1).any(|rest| {
        !rest
            .trim_start_matches('.')
            .starts_with(|next: char| next.is_ascii_digit())
    })
}

/// `37s`, `57.238747106s`.
fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(number.min(LONGEST_PAUSE_SECONDS)).ok()
}
