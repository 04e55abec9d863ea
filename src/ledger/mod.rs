//! The ledger: accounts, holds, captures, releases, entries. The only code that moves money.
//!
//! Knows nothing of HTTP, providers or the catalog: models and providers are names here.
//!
//! An account has two balances, live and test. A *hold* reserves money before a provider is called; it
//! ends exactly once: *captured* (the delivered pictures are charged, the rest returns), *released* or,
//! when the process that made it died, *expired* by a sweep. Every change of a balance is an *entry* that
//! is never changed and carries the balance after it. `balance = Σ entries`, `held = Σ open holds`,
//! `balance − held ≥ 0` hold in every committed state; [`Ledger::reconcile`] proves it.
//!
//! How, in one breath: lock the balances in order, read, decide in a pure function, write, commit. The
//! locks and their order are in `repo/mod.rs`. Statements take arrays, and one is a batch of one:
//! concurrent holds and settlements are committed together, by `batch.rs`.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::as_conversions
)]

mod account;
mod attempts;
mod batch;
mod cancel;
mod claim;
mod days;
mod deliveries;
mod error;
mod history;
mod hold;
mod limits;
mod open;
mod pages;
mod prune;
mod reconcile;
mod repo;
mod search;
mod settle;
mod sweep;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use self::batch::Batches;
pub use self::{
    account::{
        Account, AccountSummary, AccountUpdate, Balance, Entry, EntryKind,
        MAX_ACCOUNT_MARKUP_BASIS_POINTS, NewAccount, NewEntry,
    },
    attempts::{AttemptFilter, ListedAttempt},
    cancel::CANCELED,
    claim::{JOINED_WITHIN, KEY_KEPT_FOR, Replay, RequestHash, Standing},
    deliveries::{
        Delivery, DeliveryAttempt, DeliveryAttemptRecord, DeliveryEnd, DeliveryRecord,
        PendingDeliveries,
    },
    error::LedgerError,
    history::{
        AttemptRecord, Generation, GenerationError, GenerationFilter, GenerationStatus, ImageRecord,
    },
    hold::{Hold, NewHold},
    limits::{Caller, Gauge, Level, Period, Reading, SpendLimit, Whose},
    open::OpenHold,
    pages::{GenerationBooks, HoldRecord},
    prune::{Pruned, SHORTEST_RETENTION},
    reconcile::{Discrepancy, Reconciliation},
    search::{GenerationSearch, ImagePlace, ListedImage},
    settle::{Attempt, CapturedDrafts, Ending, Picture, Settlement},
    sweep::Heartbeat,
    usage::{UsageFilter, UsageGroup, UsageRow, UsageSum},
};
use crate::{clock::Clock, ids::ReplicaId};

/// The moment of a database write, for readers of the signature.
pub type Instant = DateTime<Utc>;

/// The books.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: PgPool,
    clock: Clock,
    replica: ReplicaId,
    batches: Arc<Batches>,
}

impl Ledger {
    /// The books in this database, written by this replica.
    pub fn new(pool: PgPool, clock: Clock, replica: ReplicaId) -> Self {
        Self {
            pool,
            clock,
            replica,
            batches: Arc::default(),
        }
    }

    /// Whether the books can be reached.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn ping(&self) -> Result<(), LedgerError> {
        use sqlx::Connection as _;

        let failed = LedgerError::during("reach the database");
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        connection.ping().await.map_err(failed)
    }
}
