//! The ledger: accounts, holds, captures, releases, entries. The only code that moves money.
//!
//! Knows nothing of HTTP, providers or the catalog: models and providers are names here.
//! Statements take arrays, and one is a batch of one, so that group commit is the same code path.

mod error;
mod hold;
mod settle;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

pub use self::{
    error::LedgerError,
    hold::{Hold, NewHold},
    settle::{Attempt, Ending, Picture, Settlement},
};
use crate::{
    clock::Clock,
    ids::{AccountId, ReplicaId},
    keys::Mode,
    money::NanoUsd,
};

/// The books.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: PgPool,
    clock: Clock,
    replica: ReplicaId,
}

/// What an account has in one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Sum of the entries.
    pub balance: NanoUsd,
    /// Sum of the open holds.
    pub held: NanoUsd,
}

impl Ledger {
    /// The books in this database, written by this replica.
    pub fn new(pool: PgPool, clock: Clock, replica: ReplicaId) -> Self {
        Self {
            pool,
            clock,
            replica,
        }
    }

    /// Places holds, all committed together; each is granted or refused on its own, in order.
    ///
    /// # Errors
    /// The outer error when nothing was committed (the database). The inner one when a hold was refused:
    /// [`LedgerError::InsufficientBalance`], [`LedgerError::RateLimited`].
    ///
    /// # Cancel safety
    /// Dropped before it returns, a hold may have been committed; the sweeper then ends it only when the
    /// replica dies. Call it from a task that is not dropped.
    pub async fn hold(
        &self,
        holds: &[NewHold],
    ) -> Result<Vec<Result<Hold, LedgerError>>, LedgerError> {
        let _ = (&self.pool, &self.clock, self.replica, holds);
        todo!()
    }

    /// Ends holds, all committed together: captures what was delivered, releases the rest, writes the
    /// pictures, attempts and the generation's final state. A hold that has ended already (swept) is
    /// [`LedgerError::HoldEnded`], and nothing of that settlement is written.
    ///
    /// # Errors
    /// The outer error when nothing was committed; it is safe to call again with the same arguments.
    pub async fn settle(
        &self,
        settlements: &[Settlement],
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let _ = settlements;
        todo!()
    }

    /// What an account has.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn balance(&self, account: AccountId, mode: Mode) -> Result<Balance, LedgerError> {
        let _ = (account, mode);
        todo!()
    }
}

/// The moment of a database write, for readers of the signature.
pub type Instant = DateTime<Utc>;
