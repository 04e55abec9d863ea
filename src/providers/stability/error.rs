//! Its error bodies become our kinds (`contracts/stability.md`, section 4).
//!
//! The name decides first, then the status. Both shapes are read: `errors`, a list, of v2beta, and `message`
//! of v1, which the same server still has; anything else says nothing, because it is from a proxy.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::providers::{
    ErrorKind, ProviderError,
    http::retry_after,
    wording::{in_our_words_with, is_word, presentable},
};

/// What a caller reads of a refusal: `OpenAI`'s words for it (section 4, "Mapping").
pub(super) const MODERATION_BLOCKED: &str = "moderation_blocked";
pub(super) const USER_ERROR: &str = "image_generation_user_error";

/// Who exceeds 150 requests in 10 s is locked out for this long; no header says so (sections 4 and 6).
const LOCKED_OUT: Duration = Duration::from_mins(1);

/// What an error said of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ErrorBody {
    name: Option<String>,
    texts: Vec<String>,
}

impl ErrorBody {
    /// Reads `{"id","name","errors":[…]}` and `{"id","name","message"}`, any part of which may be missing.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let texts = |name: &str| match document.get(name) {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(items)) => items
                .iter()
                .filter_map(|item| Some(item.as_str()?.to_owned()))
                .collect(),
            _ => Vec::new(),
        };
        Self {
            name: document
                .get("name")
                .and_then(Value::as_str)
                .map(str::to_owned),
            texts: [texts("errors"), texts("message")].concat(),
        }
    }

    /// What it means, coming with this status and these headers. `prompts` are what the caller asked for and
    /// against: no message that quotes one is passed on.
    pub(super) fn into_error(
        self,
        status: u16,
        headers: &HeaderMap,
        prompts: &[&str],
        now: DateTime<Utc>,
    ) -> ProviderError {
        let text = self.texts.join("; ");
        let (kind, maybe_charged) = self.meaning(status);
        let kind = match kind {
            ErrorKind::RateLimited { .. } => ErrorKind::RateLimited {
                retry_after: retry_after(headers, &text, now).or(Some(LOCKED_OUT)),
            },
            ErrorKind::Overloaded { .. } => ErrorKind::Overloaded {
                retry_after: retry_after(headers, &text, now),
            },
            other => other,
        };
        let message = match kind {
            ErrorKind::InvalidRequest | ErrorKind::ContentRefused => prompts
                .iter()
                .try_fold(text, |text, prompt| presentable(&text, prompt)),
            _ => None,
        };
        let (code, error_type) = match (kind, status) {
            (ErrorKind::ContentRefused, _) => (Some(MODERATION_BLOCKED), Some(USER_ERROR)),
            (ErrorKind::InvalidRequest, 413) => (Some("image_too_large"), None),
            (ErrorKind::InvalidRequest, _) => (Some("invalid_value"), None),
            _ => (None, None),
        };
        let param = (kind == ErrorKind::InvalidRequest)
            .then(|| self.parameter())
            .flatten();
        ProviderError {
            message: message.unwrap_or_else(|| in_our_words_with(kind, status)),
            code: code.map(str::to_owned),
            error_type: error_type.map(str::to_owned),
            param,
            upstream_status: Some(status),
            maybe_charged,
            // The key is closed, not a model (section 4, "Facts").
            whole_account: matches!(kind, ErrorKind::RateLimited { .. }),
            ..ProviderError::new(kind, "")
        }
    }

    /// The kind, and whether the provider may charge for the call. Failed calls are free (section 4); what
    /// nobody documented is undecided.
    fn meaning(&self, status: u16) -> (ErrorKind, bool) {
        const OVERLOADED: ErrorKind = ErrorKind::Overloaded { retry_after: None };
        const RATE_LIMITED: ErrorKind = ErrorKind::RateLimited { retry_after: None };
        let kind = match (self.name.as_deref(), status) {
            (Some("content_moderation" | "public_figure"), _) => ErrorKind::ContentRefused,
            (Some("unauthorized"), _) | (_, 401) => ErrorKind::Auth,
            (Some("payment_required"), _) | (_, 402) => ErrorKind::QuotaExhausted,
            (Some("rate_limit_exceeded"), _) | (_, 429) => RATE_LIMITED,
            (Some("internal_error"), _) => OVERLOADED,
            (Some("not_found"), _) | (_, 404 | 405 | 410) => ErrorKind::ModelUnavailable,
            (Some("bad_request" | "invalid_language" | "payload_too_large"), _)
            | (_, 400 | 413 | 422) => {
                if self.blames_us() {
                    ErrorKind::ModelUnavailable
                } else {
                    ErrorKind::InvalidRequest
                }
            }
            // Only its moderation answers so (section 4); anything else is somebody in between.
            (None, 403) if self.speaks_of_moderation() => ErrorKind::ContentRefused,
            (_, 403) => ErrorKind::Auth,
            (_, 409 | 425 | 500 | 501 | 503 | 529) => OVERLOADED,
            // It began with a success, so it may have painted.
            (_, 200..=299) => return (ErrorKind::Malformed, true),
            // Timeouts of servers in between, redirects, statuses nobody documented.
            _ => return (OVERLOADED, true),
        };
        (kind, false)
    }

    fn speaks_of_moderation(&self) -> bool {
        self.texts.iter().any(|text| text.contains("moderation"))
    }

    /// The field that the first text begins with: `some-field: is required`.
    fn blamed(&self) -> Option<&str> {
        let (field, _) = self.texts.first()?.split_once(": ")?;
        is_word(field).then_some(field)
    }

    /// Whether it is about what we chose, not the caller.
    fn blames_us(&self) -> bool {
        matches!(
            self.blamed(),
            Some("model" | "mode" | "accept" | "content-type" | "authorization")
        )
    }

    /// The caller's parameter behind the field that is blamed (section 7.2).
    fn parameter(&self) -> Option<String> {
        if self.name.as_deref() == Some("invalid_language") {
            return Some("prompt".to_owned());
        }
        let parameter = match self.blamed()? {
            "aspect_ratio" => "size",
            field @ ("prompt" | "negative_prompt" | "output_format" | "seed" | "style_preset"
            | "cfg_scale" | "image" | "mask" | "strength" | "grow_mask") => field,
            _ => return None,
        };
        Some(parameter.to_owned())
    }
}
