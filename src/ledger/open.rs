//! What an account has held right now, and for what: why its balance is short, and whether a hold is stuck.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Instant, Ledger, error::LedgerError, repo::open};
use crate::{
    ids::{AccountId, GenerationId, HoldId, KeyId},
    keys::Mode,
    money::NanoUsd,
};

/// A hold that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OpenHold {
    /// Its name.
    pub id: HoldId,
    /// What it was placed for.
    pub generation: GenerationId,
    /// With which key.
    pub key: KeyId,
    /// On which balance.
    pub mode: Mode,
    /// The catalog's id of the model.
    pub model: String,
    /// What is set aside.
    pub amount: NanoUsd,
    /// Since when.
    pub created_at: Instant,
    /// Whether the process that placed it has said within the last 20 s that it lives; otherwise the others
    /// are about to release it.
    pub owner_lives: bool,
}

impl Ledger {
    /// An account's open holds, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn open_holds(
        &self,
        account: AccountId,
        limit: u32,
    ) -> Result<Vec<OpenHold>, LedgerError> {
        open::list(&self.pool, account, limit).await
    }

    /// How many holds are open, all accounts and replicas together, and how old the oldest is.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn count_open_holds(&self) -> Result<(u64, Duration), LedgerError> {
        open::count(&self.pool).await
    }

    /// How much of each kind of work waits to be written.
    pub fn queue(&self) -> [(&'static str, usize); 3] {
        self.batches.waiting()
    }

    /// How many connections to the database there are, and how many of them are idle.
    pub fn pool_size(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }
}
