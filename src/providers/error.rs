//! The one typed error every adapter ends in. Routing decides by kind, never by text.

use std::time::Duration;

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
    /// We hung up, because the client had left and the operator wants that (`on_disconnect = "cancel"`).
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
    /// Whether the provider may charge us for this call although it failed.
    pub maybe_charged: bool,
    /// Whether a [`ErrorKind::RateLimited`] closes our whole account, whatever the model: then all the
    /// provider's routes are left alone.
    pub whole_account: bool,
    /// Whether the same call may be made once more on the same route: it ended for sure, brought nothing,
    /// costs nothing, and the provider says that another try may go well.
    pub may_repeat: bool,
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
