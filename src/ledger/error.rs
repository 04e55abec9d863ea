//! What can go wrong with money.

use std::{sync::Arc, time::Duration};

use sqlx::error::DatabaseError;

use super::{
    account::EntryKind,
    limits::{SpendLimit, Whose},
};
use crate::{
    ids::{AccountId, GenerationId, HoldId},
    keys::Mode,
    money::NanoUsd,
    postgres::{TxError, is_passing},
};

/// What can go wrong with money. What befalls a batch befalls every caller in it, so it can be cloned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The balance does not cover the hold.
    #[error("the balance is too short: {needed} USD needed, {available} USD available")]
    InsufficientBalance {
        /// The hold.
        needed: NanoUsd,
        /// Balance less what is held.
        available: NanoUsd,
    },
    /// One of the limits of the key or its account is used up.
    #[error("{what} of the {whose}: at most {limit}")]
    RateLimited {
        /// Whose limit.
        whose: Whose,
        /// The limit: `requests per minute`, `images per minute`, `requests in flight`.
        what: &'static str,
        /// How much of it there is.
        limit: u32,
        /// When to come back.
        retry_after: Duration,
    },
    /// Too little is left of what the key or its account may spend.
    #[error("the {} may spend {} USD a {}, {} USD of it are spent, and {} USD needed", .0.whose, .0.limit, .0.period, .0.spent, .0.needed)]
    SpendLimited(Box<SpendLimit>),
    /// It repeats the request of this generation, which runs or is finished.
    #[error("{0} is the same request")]
    Repeated(GenerationId),
    /// No generation is the same request.
    #[error("the request repeats no other")]
    NotRepeated,
    /// The idempotency key names another request of the same API key.
    #[error("the idempotency key names another request")]
    NameTaken,
    /// No such account.
    #[error("there is no account '{0}'")]
    NoAccount(String),
    /// Several accounts have this name.
    #[error("{count} accounts are called '{name}': name one by its id")]
    AmbiguousAccount {
        /// The name.
        name: String,
        /// How many have it.
        count: usize,
    },
    /// A credit or debit of nothing.
    #[error("a credit or debit must be more than 0 USD")]
    NothingToBook,
    /// Something younger than may be pruned.
    #[error("only what is older than {} can be pruned", humantime::format_duration(*.0))]
    RetentionTooShort(Duration),
    /// The same `--reference` was booked before with another account or amount.
    #[error(
        "the reference '{reference}' was already booked as a {kind} of {amount} USD on the {mode} balance of account {account}"
    )]
    ReferenceTaken {
        /// The reference.
        reference: String,
        /// Where it was booked.
        account: AccountId,
        /// On which balance.
        mode: Mode,
        /// Credit or debit.
        kind: EntryKind,
        /// What was booked.
        amount: NanoUsd,
    },
    /// The hold was captured, released or swept before.
    #[error("hold {0} has ended already")]
    HoldEnded(HoldId),
    /// A capture above its hold: refused, because I4 holds whatever happens.
    #[error("a capture of {capture} USD is above its hold of {held} USD")]
    CaptureAboveHold {
        /// What should have been captured.
        capture: NanoUsd,
        /// What was held.
        held: NanoUsd,
    },
    /// So much waits for the database already that this would wait too long.
    #[error("could not {action}: {waiting} others are waiting to do so")]
    Saturated {
        /// What was attempted.
        action: &'static str,
        /// How many wait.
        waiting: usize,
    },
    /// The database holds something that cannot be.
    #[error("inconsistent database: {0}")]
    Inconsistent(String),
    /// An amount left the countable range.
    #[error(transparent)]
    Money(#[from] crate::money::MoneyError),
    /// The connection broke while the database committed: it may have done it or not.
    #[error("could not tell whether it did {action}")]
    Unconfirmed {
        /// What was attempted.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// The database did not do it.
    #[error("could not {action}")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: Arc<sqlx::Error>,
    },
}

impl LedgerError {
    /// Whether it is the database's state of the moment, and the same call may well succeed soon. What is
    /// [`LedgerError::Unconfirmed`] may have happened, so its caller must take it back or be able to do it twice.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. } | Self::Saturated { .. })
            || self.as_database().is_some_and(is_passing)
    }

    /// Whether somebody else kept a lock for too long (`lock_not_available`).
    pub(super) fn is_lock_timeout(&self) -> bool {
        let said = self.as_database().and_then(sqlx::Error::as_database_error);
        said.and_then(DatabaseError::code).as_deref() == Some("55P03")
    }

    /// For `map_err`: the driver's error with what was attempted.
    pub(super) fn during(action: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::database(action, source)
    }
}

impl TxError for LedgerError {
    fn database(action: &'static str, source: sqlx::Error) -> Self {
        Self::Database {
            action,
            source: Arc::new(source),
        }
    }

    fn unconfirmed(action: &'static str, source: sqlx::Error) -> Self {
        Self::Unconfirmed {
            action,
            source: Arc::new(source),
        }
    }

    fn as_database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database { source, .. } | Self::Unconfirmed { source, .. } => Some(source),
            Self::InsufficientBalance { .. }
            | Self::RateLimited { .. }
            | Self::SpendLimited(_)
            | Self::Repeated(_)
            | Self::NotRepeated
            | Self::NameTaken
            | Self::NoAccount(_)
            | Self::AmbiguousAccount { .. }
            | Self::NothingToBook
            | Self::ReferenceTaken { .. }
            | Self::HoldEnded(_)
            | Self::CaptureAboveHold { .. }
            | Self::Saturated { .. }
            | Self::Inconsistent(_)
            | Self::RetentionTooShort(_)
            | Self::Money(_) => None,
        }
    }
}
