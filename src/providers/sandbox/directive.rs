//! Words in a prompt by which an app's tests make the sandbox fail in a chosen way.
//!
//! | in the prompt | what happens |
//! |---|---|
//! | `[sandbox:refuse]` | refused for its content, with the code of the model's family |
//! | `[sandbox:rate_limit]` | the provider has had too many requests; try again in a second |
//! | `[sandbox:error]` | the provider broke |
//! | `[sandbox:timeout]` | the provider did not answer in time (said at once, nobody waits) |
//! | `[sandbox:partial]` | the last picture of the request is refused, the others come |
//!
//! The first one in the prompt counts.

use std::time::Duration;

use crate::{
    catalog::ImageRequest,
    providers::{ErrorKind, ProviderError},
};

/// What a prompt tells the sandbox to do instead of painting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Directive {
    Refuse,
    RateLimit,
    Error,
    Timeout,
    Partial,
}

impl Directive {
    const ALL: [(&'static str, Self); 5] = [
        ("[sandbox:refuse]", Self::Refuse),
        ("[sandbox:rate_limit]", Self::RateLimit),
        ("[sandbox:error]", Self::Error),
        ("[sandbox:timeout]", Self::Timeout),
        ("[sandbox:partial]", Self::Partial),
    ];

    /// The first directive in a prompt.
    pub(super) fn of(prompt: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .filter_map(|(word, directive)| Some((prompt.find(word)?, *directive)))
            .min_by_key(|(place, _)| *place)
            .map(|(_, directive)| directive)
    }

    /// The error with which the whole call ends, if it does.
    pub(super) fn failure(self, request: &ImageRequest) -> Option<ProviderError> {
        let failure = |kind, status, message: &str| {
            let mut error = ProviderError::new(kind, message);
            error.upstream_status = status;
            // The sandbox costs nothing, so it never charges for what it did not deliver.
            error.maybe_charged = false;
            Some(error)
        };
        match self {
            Self::Refuse => Some(refusal(request)),
            Self::RateLimit => {
                let retry_after = Some(Duration::from_secs(1));
                failure(
                    ErrorKind::RateLimited { retry_after },
                    Some(429),
                    "the sandbox plays a rate limit",
                )
            }
            Self::Error => failure(
                ErrorKind::Overloaded { retry_after: None },
                Some(500),
                "the sandbox plays a server error",
            ),
            Self::Timeout => failure(
                ErrorKind::Timeout { sent: true },
                None,
                "the sandbox plays a timeout",
            ),
            Self::Partial => None,
        }
    }

    /// Whether picture `index` of the request is held back.
    pub(super) fn withholds(self, index: u8, request: &ImageRequest) -> bool {
        self == Self::Partial && index.saturating_add(1) >= request.n.get()
    }
}

/// A refusal in the words of the model's family (`contracts/openai-images.md`, section 6): only the
/// gpt-image family takes `moderation`.
pub(super) fn refusal(request: &ImageRequest) -> ProviderError {
    let (code, error_type) = if request.moderation.is_some() {
        ("moderation_blocked", "image_generation_user_error")
    } else {
        ("content_policy_violation", "invalid_request_error")
    };
    let mut error = ProviderError::new(
        ErrorKind::ContentRefused,
        "Your request was rejected by the safety system. (The sandbox plays this because the prompt asks for it.)",
    );
    error.code = Some(code.to_owned());
    error.error_type = Some(error_type.to_owned());
    error.upstream_status = Some(400);
    error
}
