//! The one typed error every adapter ends in. Routing decides by kind, never by text.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What went wrong, in the terms that decide what happens next (design, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The provider refused the request's form: the caller's affair, no other route.
    InvalidRequest,
    /// The provider refused the content: the caller's affair, never retried, never failed over.
    ContentRefused,
    /// Our key is bad: the operator's affair, next route.
    Auth,
    /// Our account at the provider is empty: the operator's affair, next route.
    QuotaExhausted,
    /// The provider does not serve this model or this path: the operator's affair, next route. Unlike
    /// [`ErrorKind::Auth`] it says nothing about the provider's other models.
    ModelUnavailable,
    /// Too many requests from us.
    RateLimited {
        /// How long to leave the provider alone, if it said.
        retry_after: Option<Duration>,
    },
    /// The provider has no capacity or broke (any 5xx).
    Overloaded {
        /// How long to leave the provider alone, if it said.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    Timeout {
        /// Whether the request may have reached the provider.
        sent: bool,
    },
    /// The connection failed.
    Transport {
        /// Whether the request may have reached the provider.
        sent: bool,
    },
    /// We hung up: the client had left and the operator wants that (`on_disconnect = "cancel"`), or this process
    /// had to stop.
    Cancelled,
    /// An answer that cannot be read, or bytes that are no picture.
    Malformed,
    /// The pictures came, and we could not keep them: our own fault.
    Storage,
}

/// An error of one upstream call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// What it means for routing and for the caller.
    pub kind: ErrorKind,
    /// What happened, in our words or, for [`ErrorKind::InvalidRequest`] and
    /// [`ErrorKind::ContentRefused`], in the provider's: those are for the caller. Other kinds never
    /// repeat an upstream body, which may contain the prompt, our account's name or a purchase link.
    pub message: String,
    /// The provider's own code, kept exact because clients branch on it (`moderation_blocked`).
    pub code: Option<String>,
    /// The provider's own error type (`image_generation_user_error`).
    pub error_type: Option<String>,
    /// The parameter the provider blames.
    pub param: Option<String>,
    /// The HTTP status, if there was one.
    pub upstream_status: Option<u16>,
    /// The provider's name for this exchange (`x-request-id`), for its support.
    pub upstream_request_id: Option<String>,
    /// What the system or the TLS library says of a broken connection: for our log only, since it is in
    /// nobody's words.
    pub cause: Option<String>,
    /// What the provider's safety system says of a [`ErrorKind::ContentRefused`].
    pub moderation: Option<ModerationDetails>,
    /// Whether the provider may charge us for this call although it failed.
    pub maybe_charged: bool,
    /// Whether a [`ErrorKind::RateLimited`] closes our whole account, whatever the model: then all the
    /// provider's routes are left alone.
    pub whole_account: bool,
    /// Whether the same call may be made once more on the same route: it ended for sure, brought nothing,
    /// costs nothing, and the provider says that another try may go well.
    pub may_repeat: bool,
}

/// What `OpenAI`'s safety system says of a refusal (`contracts/openai-images.md`, section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModerationDetails {
    /// Whether the prompt was refused or what was painted.
    pub moderation_stage: ModerationStage,
    /// What it was refused for, in the provider's words.
    pub categories: Vec<String>,
}

/// Where a safety system said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModerationStage {
    /// At the prompt or the pictures sent.
    Input,
    /// At the picture painted.
    Output,
    /// It does not say.
    Unknown,
}

impl ModerationDetails {
    /// More categories than this are left out.
    pub(super) const MAX_CATEGORIES: usize = 16;

    /// What may be passed on of what a provider wrote; nothing without a stage that we know.
    pub(super) fn checked(
        stage: &str,
        categories: impl IntoIterator<Item = String>,
    ) -> Option<Self> {
        let moderation_stage = match stage {
            "input" => ModerationStage::Input,
            "output" => ModerationStage::Output,
            "unknown" => ModerationStage::Unknown,
            _ => return None,
        };
        let is_category = |text: &String| {
            let is_known = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_/-".contains(&byte)
            };
            (1..=64).contains(&text.len()) && text.bytes().all(is_known)
        };
        Some(Self {
            moderation_stage,
            categories: categories
                .into_iter()
                .filter(is_category)
                .take(Self::MAX_CATEGORIES)
                .collect(),
        })
    }
}

impl ProviderError {
    /// An error of this kind with a message and nothing else known.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: None,
            error_type: None,
            param: None,
            upstream_status: None,
            upstream_request_id: None,
            cause: None,
            moderation: None,
            maybe_charged: matches!(
                kind,
                ErrorKind::Timeout { sent: true }
                    | ErrorKind::Transport { sent: true }
                    | ErrorKind::Cancelled
                    | ErrorKind::Malformed
                    | ErrorKind::Storage
            ),
            whole_account: false,
            may_repeat: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_safety_system_says_is_checked() {
        let checked = |stage: &str, categories: &[&str]| {
            let categories = categories.iter().map(|&text| text.to_owned());
            ModerationDetails::checked(stage, categories)
        };
        let details = checked("output", &["sexual", "self-harm/intent", "x_1"]).unwrap();
        assert_eq!(
            serde_json::to_string(&details).unwrap(),
            r#"{"moderation_stage":"output","categories":["sexual","self-harm/intent","x_1"]}"#
        );
        assert_eq!(checked("", &["sexual"]), None);
        assert_eq!(checked("a red fox", &["sexual"]), None);
        let long = "x".repeat(65);
        let doubtful = ["A", "a red fox", "", "\"", &long, "violence"];
        assert_eq!(
            checked("unknown", &doubtful).unwrap().categories,
            ["violence"]
        );
        assert_eq!(checked("input", &["x"; 99]).unwrap().categories.len(), 16);
    }
}
