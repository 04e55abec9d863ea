//! After a failed attempt: on to the next route, or back to the caller? Decided by kind alone
//! (design, sections 5 and 9).

use std::time::Duration;

use super::health::Outcome;
use crate::providers::{ErrorKind, ProviderError};

/// What happens after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another route may be tried.
    NextRoute,
    /// The caller gets this error.
    Stop,
}

/// Decides by kind. `retry_after_send` is the provider's setting: whether a request that was sent and
/// never answered may be made again elsewhere, at the risk of paying twice.
pub fn after_failure(kind: ErrorKind, retry_after_send: bool) -> Next {
    match kind {
        // Another provider would refuse it as well, or should not be asked to accept what one refused.
        ErrorKind::InvalidRequest
        | ErrorKind::ContentRefused
        // Our own store is broken; another provider's picture could not be kept either.
        | ErrorKind::Storage
        // Nobody is waiting any more.
        | ErrorKind::Cancelled => Next::Stop,
        ErrorKind::Auth
        | ErrorKind::ModelUnavailable
        | ErrorKind::QuotaExhausted
        | ErrorKind::RateLimited { .. }
        | ErrorKind::Overloaded { .. }
        | ErrorKind::Malformed
        | ErrorKind::Timeout { sent: false }
        | ErrorKind::Transport { sent: false } => Next::NextRoute,
        // The provider may be painting right now, and may charge for it.
        ErrorKind::Timeout { sent: true } | ErrorKind::Transport { sent: true } => {
            if retry_after_send {
                Next::NextRoute
            } else {
                Next::Stop
            }
        }
    }
}

/// What a failed call says about its route's health.
pub fn outcome(error: &ProviderError) -> Outcome {
    match error.kind {
        ErrorKind::InvalidRequest
        | ErrorKind::ContentRefused
        | ErrorKind::Storage
        | ErrorKind::Cancelled => Outcome::Neutral,
        ErrorKind::Auth | ErrorKind::QuotaExhausted => Outcome::AccountTrouble,
        ErrorKind::RateLimited { retry_after } => Outcome::LeaveAlone {
            retry_after,
            whole_account: error.whole_account,
        },
        ErrorKind::Overloaded {
            retry_after: Some(retry_after),
        } => Outcome::LeaveAlone {
            retry_after: Some(retry_after),
            whole_account: false,
        },
        // Without a status it was our own cap on calls in flight that refused, not the provider.
        ErrorKind::Overloaded { .. } if error.upstream_status.is_none() => Outcome::Neutral,
        ErrorKind::Overloaded { retry_after: None }
        | ErrorKind::ModelUnavailable
        | ErrorKind::Malformed
        | ErrorKind::Timeout { .. }
        | ErrorKind::Transport { .. } => Outcome::Failure,
    }
}

/// The same of a call that brought some of its pictures all the same: what is missing counts for nothing
/// against a route that works, unless the provider wants to be left alone.
pub fn partial_outcome(error: &ProviderError, images: u32, latency: Duration) -> Outcome {
    match outcome(error) {
        Outcome::Failure | Outcome::Neutral => Outcome::Success { images, latency },
        told @ (Outcome::LeaveAlone { .. } | Outcome::AccountTrouble | Outcome::Success { .. }) => {
            told
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_came_speak_for_their_route() {
        let latency = Duration::from_secs(3);
        let told = |kind| partial_outcome(&ProviderError::new(kind, ""), 2, latency);
        for kind in [
            ErrorKind::Malformed,
            ErrorKind::ContentRefused,
            ErrorKind::Timeout { sent: true },
            ErrorKind::Storage,
        ] {
            assert_eq!(
                told(kind),
                Outcome::Success { images: 2, latency },
                "{kind:?}"
            );
        }
        let limited = told(ErrorKind::RateLimited { retry_after: None });
        assert!(matches!(limited, Outcome::LeaveAlone { .. }), "{limited:?}");
        assert_eq!(told(ErrorKind::QuotaExhausted), Outcome::AccountTrouble);
    }

    #[test]
    fn kinds_decide() {
        use ErrorKind as Kind;
        for (kind, plain, bold) in [
            (Kind::InvalidRequest, Next::Stop, Next::Stop),
            (Kind::ContentRefused, Next::Stop, Next::Stop),
            (Kind::Storage, Next::Stop, Next::Stop),
            (Kind::Cancelled, Next::Stop, Next::Stop),
            (Kind::ModelUnavailable, Next::NextRoute, Next::NextRoute),
            (Kind::Auth, Next::NextRoute, Next::NextRoute),
            (Kind::QuotaExhausted, Next::NextRoute, Next::NextRoute),
            (
                Kind::RateLimited { retry_after: None },
                Next::NextRoute,
                Next::NextRoute,
            ),
            (
                Kind::Overloaded { retry_after: None },
                Next::NextRoute,
                Next::NextRoute,
            ),
            (Kind::Malformed, Next::NextRoute, Next::NextRoute),
            (
                Kind::Timeout { sent: false },
                Next::NextRoute,
                Next::NextRoute,
            ),
            (
                Kind::Transport { sent: false },
                Next::NextRoute,
                Next::NextRoute,
            ),
            (Kind::Timeout { sent: true }, Next::Stop, Next::NextRoute),
            (Kind::Transport { sent: true }, Next::Stop, Next::NextRoute),
        ] {
            assert_eq!(after_failure(kind, false), plain, "{kind:?}");
            assert_eq!(after_failure(kind, true), bold, "{kind:?}");
        }
    }
}
