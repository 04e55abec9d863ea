//! Why a request got no picture, in the gateway's words. The surface turns it into a status and an
//! envelope; nothing here knows HTTP.

use std::{error::Error, time::Duration};

use chrono::NaiveDate;

use super::{Times, Usage};
use crate::{
    catalog::Violation,
    ids::GenerationId,
    keys::KeyError,
    ledger::{CANCELED, LedgerError, SpendLimit, Whose},
    money::NanoUsd,
    providers::{ErrorKind, ProviderError},
    routing::NoRoute,
};

/// The cause of an error that is told again.
const OF_ANOTHER: &str = "the request that this one repeats failed so";

/// Why a request got no picture.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The request breaks one of the model's rules.
    #[error("{}", .0.message)]
    Violation(Violation),
    /// It names no model, and the operator wants it to.
    #[error("the request names no model")]
    MissingModel,
    /// The catalog has no such model.
    #[error("there is no model '{name}'")]
    ModelNotFound {
        /// The name asked for.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// The model is known, and nobody here serves it.
    #[error("the model '{model}' is not served here")]
    ModelUnavailable {
        /// The model.
        model: String,
        /// For each provider that could: why it does not.
        reasons: Vec<(String, String)>,
    },
    /// This key may not use the model.
    #[error("the key may not use the model '{model}'")]
    ModelForbidden {
        /// The model.
        model: String,
        /// What it may use.
        allowed: Vec<String>,
    },
    /// `provider` names somebody unknown.
    #[error("{field} names '{name}'")]
    UnknownProvider {
        /// `provider.order`, `provider.only` or `provider.ignore`.
        field: &'static str,
        /// The name.
        name: String,
        /// Who there is.
        known: Vec<String>,
    },
    /// The request's wishes leave no route.
    #[error("no route is left")]
    NoRoute(NoRoute),
    /// The balance does not cover the largest possible price.
    #[error("the balance is too short")]
    InsufficientBalance {
        /// The largest possible price.
        needed: NanoUsd,
        /// What there is.
        available: NanoUsd,
    },
    /// One of the limits of the key or its account is used up.
    #[error("{what} of the {whose}: at most {limit}")]
    RateLimited {
        /// Whose limit.
        whose: Whose,
        /// The limit's name.
        what: &'static str,
        /// How much of it there is.
        limit: u32,
        /// When to come back.
        retry_after: Duration,
    },
    /// Too little is left of what the key or its account may spend.
    #[error("the limit of spending is reached")]
    SpendLimited(Box<SpendLimit>),
    /// No route delivered a picture.
    #[error("no provider delivered a picture")]
    Upstream(#[source] Box<UpstreamFailure>),
    /// More generations are in flight than this process takes.
    #[error("too many generations are in flight")]
    Saturated,
    /// The process is shutting down.
    #[error("shutting down")]
    Draining,
    /// The books or the keys cannot be reached, and nothing has happened yet.
    #[error("the database cannot be used at the moment")]
    DatabaseUnavailable(#[source] Box<dyn Error + Send + Sync>),
    /// Pictures cannot be kept at the moment, and nothing has happened yet.
    #[error("the image store cannot be written at the moment")]
    StoreUnavailable,
    /// The books cannot be reached, so the answer cannot be given yet; the generation settles later.
    #[error("the settlement is not committed yet")]
    Unsettled,
    /// The hold was swept while the provider worked: this process had been taken for dead.
    #[error("the hold ended before the settlement")]
    HoldLost,
    /// The answer had begun as that of the generation whose request is repeated, and nothing came of that one.
    #[error("nothing came of the generation that was joined")]
    Abandoned,
    /// A bug: the task died.
    #[error("the generation's task panicked")]
    Panicked,
    /// The idempotency key names another request.
    #[error("the idempotency key names another request")]
    IdempotencyConflict,
    /// The request was served and charged before, and its pictures are not kept any more.
    #[error("the pictures of {generation} are not kept any more")]
    ReplayExpired {
        /// The generation that it repeats.
        generation: GenerationId,
    },
    /// Our own fault, not for the caller's eyes.
    #[error("internal error")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
}

impl GatewayError {
    /// Whether the request itself was refused, before it came to a hold: all that is counted of it is that it
    /// was made.
    pub fn is_refused_request(&self) -> bool {
        match self {
            Self::Violation(_)
            | Self::MissingModel
            | Self::ModelNotFound { .. }
            | Self::ModelUnavailable { .. }
            | Self::ModelForbidden { .. }
            | Self::UnknownProvider { .. }
            | Self::NoRoute(_) => true,
            // The hold has counted it, or it is none of the request's fault.
            Self::InsufficientBalance { .. }
            | Self::RateLimited { .. }
            | Self::SpendLimited(_)
            | Self::Upstream(_)
            | Self::Saturated
            | Self::Draining
            | Self::DatabaseUnavailable(_)
            | Self::StoreUnavailable
            | Self::Unsettled
            | Self::HoldLost
            | Self::Abandoned
            | Self::Panicked
            | Self::IdempotencyConflict
            | Self::ReplayExpired { .. }
            | Self::Internal(_) => false,
        }
    }

    /// The same for somebody else who asked for the same. The causes of our own faults are logged once.
    pub(super) fn told_again(&self) -> Self {
        match self {
            Self::Violation(violation) => Self::Violation(violation.clone()),
            Self::MissingModel => Self::MissingModel,
            Self::ModelNotFound { name, nearest } => Self::ModelNotFound {
                name: name.clone(),
                nearest: nearest.clone(),
            },
            Self::ModelUnavailable { model, reasons } => Self::ModelUnavailable {
                model: model.clone(),
                reasons: reasons.clone(),
            },
            Self::ModelForbidden { model, allowed } => Self::ModelForbidden {
                model: model.clone(),
                allowed: allowed.clone(),
            },
            Self::UnknownProvider { field, name, known } => Self::UnknownProvider {
                field,
                name: name.clone(),
                known: known.clone(),
            },
            Self::NoRoute(refused) => Self::NoRoute(refused.clone()),
            Self::InsufficientBalance { needed, available } => Self::InsufficientBalance {
                needed: *needed,
                available: *available,
            },
            Self::RateLimited {
                whose,
                what,
                limit,
                retry_after,
            } => Self::RateLimited {
                whose: *whose,
                what,
                limit: *limit,
                retry_after: *retry_after,
            },
            Self::SpendLimited(limit) => Self::SpendLimited(limit.clone()),
            Self::Upstream(failure) => Self::Upstream(Box::new(UpstreamFailure {
                is_replayed: true,
                times: None,
                ..(**failure).clone()
            })),
            Self::Saturated => Self::Saturated,
            Self::Draining => Self::Draining,
            Self::DatabaseUnavailable(_) => Self::DatabaseUnavailable(OF_ANOTHER.into()),
            Self::StoreUnavailable => Self::StoreUnavailable,
            Self::Unsettled => Self::Unsettled,
            Self::HoldLost => Self::HoldLost,
            Self::Abandoned => Self::Abandoned,
            Self::Panicked => Self::Panicked,
            Self::IdempotencyConflict => Self::IdempotencyConflict,
            Self::ReplayExpired { generation } => Self::ReplayExpired {
                generation: *generation,
            },
            Self::Internal(_) => Self::Internal(OF_ANOTHER.into()),
        }
    }
}

/// The most telling failure of a generation that brought no picture.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{provider} failed")]
pub struct UpstreamFailure {
    /// The generation that failed.
    pub generation: GenerationId,
    /// The upstream calls that were made, in order, as `provider=outcome`.
    pub attempts: String,
    /// Whose failure it is.
    pub provider: String,
    /// The model that was asked for.
    pub model: String,
    /// The day on which its maker retired it, where no provider knows the model any more.
    pub retired_on: Option<NaiveDate>,
    /// What it is.
    #[source]
    pub error: ProviderError,
    /// What the drafts used and cost that had been shown by then (I6); nothing else is ever charged of a
    /// generation that failed.
    pub drafts: Option<Usage>,
    /// Whether it is told again, to a repeat of its request.
    pub is_replayed: bool,
    /// How long the steps took; `None` where it is told again.
    pub times: Option<Times>,
}

impl UpstreamFailure {
    /// The code by which callers, books and lists know it.
    pub fn code(&self) -> &str {
        match self.retired_on {
            Some(_) => "model_not_found",
            None => upstream_code(&self.error),
        }
    }
}

/// The code of requests that a process which stops did not take, or could not finish.
pub const DRAINING: &str = "server_is_draining";

/// The code by which callers, books and lists know a failure of a provider. Refusals keep the provider's
/// own, because clients branch on it.
pub fn upstream_code(error: &ProviderError) -> &str {
    match error.kind {
        ErrorKind::InvalidRequest => error.code.as_deref().unwrap_or("invalid_value"),
        ErrorKind::ContentRefused => error.code.as_deref().unwrap_or("content_policy_violation"),
        ErrorKind::RateLimited { .. } => "upstream_rate_limited",
        ErrorKind::Timeout { .. } => "upstream_timeout",
        ErrorKind::Storage => "storage_error",
        // Why, where it is not that somebody wanted it.
        ErrorKind::Cancelled => error.code.as_deref().unwrap_or(CANCELED),
        ErrorKind::Auth
        | ErrorKind::QuotaExhausted
        | ErrorKind::ModelUnavailable
        | ErrorKind::Overloaded { .. }
        | ErrorKind::Transport { .. }
        | ErrorKind::Malformed => "upstream_error",
    }
}

impl From<LedgerError> for GatewayError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::InsufficientBalance { needed, available } => {
                Self::InsufficientBalance { needed, available }
            }
            LedgerError::RateLimited {
                whose,
                what,
                limit,
                retry_after,
            } => Self::RateLimited {
                whose,
                what,
                limit,
                retry_after,
            },
            LedgerError::SpendLimited(limit) => Self::SpendLimited(limit),
            LedgerError::NameTaken => Self::IdempotencyConflict,
            LedgerError::HoldEnded(_) => Self::HoldLost,
            // A settlement does not come here with these: it is repeated until it gets through.
            passing if passing.is_passing() => Self::DatabaseUnavailable(Box::new(passing)),
            other => Self::Internal(Box::new(other)),
        }
    }
}

impl From<KeyError> for GatewayError {
    fn from(error: KeyError) -> Self {
        if error.is_passing() {
            Self::DatabaseUnavailable(Box::new(error))
        } else {
            Self::Internal(Box::new(error))
        }
    }
}
