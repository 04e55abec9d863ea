//! Generations and pictures of all accounts, for the operator.

use super::{Generation, GenerationStatus, ImageRecord, Instant, Ledger, error::LedgerError, repo};
use crate::{
    ids::{AccountId, GenerationId, KeyId},
    keys::Mode,
    postgres::begin_wide,
};

/// Which generations to list; every `None` is no restriction.
#[derive(Debug, Clone, Default)]
pub struct GenerationSearch {
    /// Only this account's.
    pub account: Option<AccountId>,
    /// Only this key's.
    pub key: Option<KeyId>,
    /// Only real or only play money.
    pub mode: Option<Mode>,
    /// Only of this model, by the catalog's id.
    pub model: Option<String>,
    /// Only those that this provider served.
    pub provider: Option<String>,
    /// Only those that stand so.
    pub status: Option<GenerationStatus>,
    /// Only those of this end user.
    pub user: Option<String>,
    /// Only those that carried this idempotency key.
    pub idempotency_key: Option<String>,
    /// Accepted at this instant or later.
    pub since: Option<Instant>,
    /// Accepted before this instant.
    pub until: Option<Instant>,
}

/// A picture's place among all pictures: the end of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePlace {
    /// Whose picture.
    pub generation: GenerationId,
    /// Its place in the answer, from 0.
    pub index: u8,
}

/// A delivered picture, and for whom it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// The request it answered.
    pub generation: GenerationId,
    /// Who paid.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// Real or play money.
    pub mode: Mode,
    /// The catalog's id of the model.
    pub model: String,
    /// Who served it.
    pub provider: Option<String>,
    /// The picture's billing record.
    pub image: ImageRecord,
}

impl Ledger {
    /// A generation of any account.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn find_generation(
        &self,
        id: GenerationId,
    ) -> Result<Option<Generation>, LedgerError> {
        let found = repo::history::read(&self.pool, None, &[id.to_string()]).await?;
        Ok(found.into_iter().next())
    }

    /// Generations, newest first, those older than `after`, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn search_generations(
        &self,
        search: &GenerationSearch,
        after: Option<GenerationId>,
        limit: u32,
    ) -> Result<Vec<Generation>, LedgerError> {
        let action = LedgerError::during("search generations");
        let mut snapshot = begin_wide(&self.pool).await.map_err(&action)?;
        let ids = repo::search::generations(&mut snapshot, search, after, limit).await?;
        snapshot.rollback().await.map_err(&action)?;
        repo::history::read(&self.pool, None, &ids).await
    }

    /// Delivered pictures of the generations that match, newest first, those behind `after`, at most
    /// `limit`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn search_images(
        &self,
        search: &GenerationSearch,
        after: Option<ImagePlace>,
        limit: u32,
    ) -> Result<Vec<ListedImage>, LedgerError> {
        let action = LedgerError::during("search images");
        let mut snapshot = begin_wide(&self.pool).await.map_err(&action)?;
        let found = repo::search::images(&mut snapshot, search, after, limit).await?;
        snapshot.rollback().await.map_err(&action)?;
        Ok(found)
    }
}
