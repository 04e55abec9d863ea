//! Accounts and entries page by page, newest first, and what a single generation did to the books.

use schemars::JsonSchema;
use serde::Serialize;

use super::{AccountSummary, Entry, Instant, Ledger, error::LedgerError, repo::pages};
use crate::{
    ids::{AccountId, GenerationId, HoldId},
    keys::Mode,
    money::NanoUsd,
};

/// The hold of a generation, ended or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HoldRecord {
    /// Its name.
    pub id: HoldId,
    /// What was set aside.
    pub amount: NanoUsd,
    /// `open`, `captured`, `released` or `expired`.
    pub status: String,
    /// What was taken of it.
    pub captured: NanoUsd,
    /// Since when.
    pub created_at: Instant,
    /// Until when.
    pub ended_at: Option<Instant>,
}

/// What a generation did to the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationBooks {
    /// The money set aside for it.
    pub hold: Option<HoldRecord>,
    /// What was booked for it.
    pub entries: Vec<Entry>,
}

impl Ledger {
    /// An account with what it has.
    ///
    /// # Errors
    /// [`LedgerError::NoAccount`].
    pub async fn account_summary(&self, id: AccountId) -> Result<AccountSummary, LedgerError> {
        pages::account(&self.pool, id)
            .await?
            .ok_or_else(|| LedgerError::NoAccount(id.to_string()))
    }

    /// Accounts, newest first, those older than `after`, at most `limit`; with `name` only those of exactly
    /// this name.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn account_page(
        &self,
        name: Option<&str>,
        after: Option<AccountId>,
        limit: u32,
    ) -> Result<Vec<AccountSummary>, LedgerError> {
        pages::accounts(&self.pool, name, after, limit).await
    }

    /// The lines of a balance, newest first, those before the line `after`, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn entry_page(
        &self,
        account: AccountId,
        mode: Mode,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, LedgerError> {
        pages::entries(&self.pool, account, mode, after, limit).await
    }

    /// What a generation did to the books.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn generation_books(&self, id: GenerationId) -> Result<GenerationBooks, LedgerError> {
        Ok(GenerationBooks {
            hold: pages::hold_of(&self.pool, id).await?,
            entries: pages::entries_of(&self.pool, id).await?,
        })
    }
}
