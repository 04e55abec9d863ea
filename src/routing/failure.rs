//! After a failed attempt: on to the next route, or back to the caller? Decided by kind alone
//! (design, sections 5 and 9).

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

#[cfg(test)]
mod tests {
    use super::*;

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
