//! What can go wrong with money.

use std::time::Duration;

use crate::{
    ids::{AccountId, HoldId},
    money::NanoUsd,
};

/// What can go wrong with money.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The balance does not cover the hold.
    #[error("the balance is too short: {needed} USD needed, {available} USD available")]
    InsufficientBalance {
        /// The hold.
        needed: NanoUsd,
        /// Balance less what is held.
        available: NanoUsd,
    },
    /// One of the key's limits is used up.
    #[error("{what}: at most {limit}")]
    RateLimited {
        /// The limit: `requests per minute`, `images per minute`, `requests in flight`.
        what: &'static str,
        /// How much of it the key has.
        limit: u32,
        /// When to come back.
        retry_after: Duration,
    },
    /// No such account.
    #[error("there is no account '{0}'")]
    NoAccount(String),
    /// The same `--reference` was booked before with another account or amount.
    #[error(
        "the reference '{reference}' was already booked on account {account} with {amount} USD"
    )]
    ReferenceTaken {
        /// The reference.
        reference: String,
        /// Where it was booked.
        account: AccountId,
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
    /// The database holds something that cannot be.
    #[error("inconsistent database: {0}")]
    Inconsistent(String),
    /// An amount left the countable range.
    #[error(transparent)]
    Money(#[from] crate::money::MoneyError),
    /// The database did not do it.
    #[error("could not {action}")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
}
