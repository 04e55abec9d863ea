//! Its error bodies become our kinds (`contracts/openai-images.md`, section 6).
//!
//! The code decides first, whatever the status: servers in between wrap refusals in 5xx, and a refusal that
//! is retried elsewhere is paid for three times. Then the status does; one that nobody documented is
//! undecided: next route, perhaps charged. Reading is lenient, because half of the errors come from proxies.

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::providers::{
    ErrorKind, ModerationDetails, ProviderError,
    http::retry_after,
    wording::{in_our_words_with, is_word, presentable},
};

/// What an error said of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) message: String,
    pub(super) error_type: Option<String>,
    pub(super) code: Option<String>,
    pub(super) param: Option<String>,
    pub(super) moderation: Moderation,
}

/// Its `moderation_details`, as they came.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Moderation {
    pub(super) stage: Option<String>,
    pub(super) categories: Vec<String>,
}

impl Moderation {
    fn read(details: &Value) -> Self {
        let categories = details.get("categories").and_then(Value::as_array);
        let mut moderation = Self {
            stage: (details.get("moderation_stage").and_then(Value::as_str)).map(str::to_owned),
            categories: Vec::new(),
        };
        for category in categories.into_iter().flatten().filter_map(Value::as_str) {
            moderation.add(category.to_owned());
        }
        moderation
    }

    /// One more category, unless there are enough.
    pub(super) fn add(&mut self, category: String) {
        if self.categories.len() < ModerationDetails::MAX_CATEGORIES {
            self.categories.push(category);
        }
    }

    fn checked(self) -> Option<ModerationDetails> {
        ModerationDetails::checked(&self.stage?, self.categories)
    }
}

impl ErrorBody {
    /// Reads `{"error":{…}}`, `{"error":"text"}`, `{"detail":"text"}`, `{"detail":[{…}]}`, and
    /// any of them in a list; anything else says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let document = document.get(0).unwrap_or(&document);
        let source = ["error", "detail"]
            .into_iter()
            .filter_map(|name| document.get(name))
            .find(|value| !value.is_null())
            .unwrap_or(document);
        let source = source.get(0).unwrap_or(source);
        if let Some(text) = source.as_str() {
            return Self {
                message: text.to_owned(),
                ..Self::default()
            };
        }
        let text = |name: &str| match source.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        // FastAPI's validator: `{"loc": ["body", "size"], "msg": "…", "type": "…"}`.
        let blamed = source
            .get("loc")
            .and_then(|place| place.as_array()?.last()?.as_str())
            .map(str::to_owned);
        Self {
            message: text("message").or_else(|| text("msg")).unwrap_or_default(),
            error_type: text("type").filter(|_| blamed.is_none()),
            code: text("code"),
            param: text("param").or(blamed),
            moderation: (source.get("moderation_details"))
                .map(Moderation::read)
                .unwrap_or_default(),
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
        let (kind, maybe_charged) = self.meaning(status);
        let retry_after = || retry_after(headers, &self.message, now);
        let kind = match kind {
            ErrorKind::RateLimited { .. } => ErrorKind::RateLimited {
                retry_after: retry_after(),
            },
            ErrorKind::Overloaded { .. } => ErrorKind::Overloaded {
                retry_after: retry_after(),
            },
            other => other,
        };
        let message = match kind {
            ErrorKind::InvalidRequest | ErrorKind::ContentRefused => {
                presentable(&self.message, prompt)
            }
            _ => None,
        };
        let message = message.unwrap_or_else(|| in_our_words_with(kind, status));
        ProviderError {
            message,
            code: self.code.filter(|text| is_word(text)),
            error_type: self.error_type.filter(|text| is_word(text)),
            param: self.param.filter(|text| is_word(text)),
            moderation: (self.moderation.checked()).filter(|_| kind == ErrorKind::ContentRefused),
            upstream_status: Some(status),
            maybe_charged,
            ..ProviderError::new(kind, "")
        }
    }

    /// The kind, and whether the provider may charge for the call.
    fn meaning(&self, status: u16) -> (ErrorKind, bool) {
        let named = [&self.code, &self.error_type]
            .into_iter()
            .flatten()
            .find_map(|name| kind_of_name(name));
        if let Some(kind) = named {
            return (kind, false);
        }
        // An error in a 200 has its status in its code, sometimes.
        let told = self.code.as_ref().and_then(|code| code.parse::<u16>().ok());
        match (status, told) {
            (200..=299, Some(told @ 400..=599)) => self.meaning_of_status(told),
            _ => self.meaning_of_status(status),
        }
    }

    fn meaning_of_status(&self, status: u16) -> (ErrorKind, bool) {
        const OVERLOADED: ErrorKind = ErrorKind::Overloaded { retry_after: None };
        let is_users_fault = matches!(
            self.error_type.as_deref(),
            Some("invalid_request_error" | "image_generation_user_error")
        );
        match status {
            400 | 413 | 422 if self.blames_model() => (ErrorKind::ModelUnavailable, false),
            400 | 413 | 422 => (ErrorKind::InvalidRequest, false),
            401 | 403 => (ErrorKind::Auth, false),
            402 => (ErrorKind::QuotaExhausted, false),
            404 | 405 | 410 => (ErrorKind::ModelUnavailable, false),
            409 | 425 | 500 | 501 | 503 | 529 => (OVERLOADED, false),
            429 => (ErrorKind::RateLimited { retry_after: None }, false),
            200..=299 if is_users_fault => (ErrorKind::InvalidRequest, false),
            // It began with a success, so it may have painted.
            200..=299 => (ErrorKind::Malformed, true),
            // Timeouts of servers in between, redirects, statuses nobody documented: undecided.
            _ => (OVERLOADED, true),
        }
    }

    /// Whether the model's name is what it does not like. We chose that name, not the caller.
    fn blames_model(&self) -> bool {
        self.param.as_deref() == Some("model")
            || (self.message.starts_with("The model ") && self.message.contains("does not exist"))
    }
}

/// Codes and types that decide alone. Content: `OpenAI`'s two, and Azure's. The rest: section 6.
fn kind_of_name(name: &str) -> Option<ErrorKind> {
    Some(match name {
        "content_policy_violation"
        | "moderation_blocked"
        | "content_filter"
        | "contentFilter"
        | "ResponsibleAIPolicyViolation" => ErrorKind::ContentRefused,
        "insufficient_quota"
        | "credit_balance_exhausted"
        | "billing_hard_limit_reached"
        | "billing_not_active" => ErrorKind::QuotaExhausted,
        "invalid_api_key" => ErrorKind::Auth,
        "model_not_found" => ErrorKind::ModelUnavailable,
        "rate_limit_exceeded" | "rate_limit_error" | "slow_down" => {
            ErrorKind::RateLimited { retry_after: None }
        }
        "server_error" | "server_is_overloaded" | "service_unavailable_error" => {
            ErrorKind::Overloaded { retry_after: None }
        }
        _ => return None,
    })
}
