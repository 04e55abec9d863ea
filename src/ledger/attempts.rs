//! Every call to a provider, the failed ones too: what to look at when a provider's invoice differs, or
//! when it fails at night.

use super::{AttemptRecord, Instant, Ledger, UsageFilter, error::LedgerError, repo::attempts};
use crate::{
    ids::{AccountId, GenerationId, KeyId, RequestId},
    keys::Mode,
    postgres::begin_wide,
};

/// Which calls to list; every `None` is no restriction.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// Of generations that these sums would count.
    pub usage: UsageFilter,
    /// Only those of this generation.
    pub generation: Option<GenerationId>,
    /// Only calls to this provider.
    pub provider: Option<String>,
}

/// One call, and for whom it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAttempt {
    /// The client's request it served.
    pub generation: GenerationId,
    /// The exchange that asked for it, as logs name it.
    pub request: RequestId,
    /// When the generation was accepted.
    pub accepted_at: Instant,
    /// Who pays.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// Real or play money.
    pub mode: Mode,
    /// The catalog's id of the model.
    pub model: String,
    /// The call itself.
    pub attempt: AttemptRecord,
}

impl Ledger {
    /// Calls to providers, the newest generations first, at most `limit`. A call is listed once its
    /// generation has ended.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn attempts(
        &self,
        filter: &AttemptFilter,
        limit: u32,
    ) -> Result<Vec<ListedAttempt>, LedgerError> {
        let action = LedgerError::during("list attempts");
        let mut snapshot = begin_wide(&self.pool).await.map_err(&action)?;
        let rows = attempts::list(&mut snapshot, filter, limit).await?;
        snapshot.rollback().await.map_err(&action)?;
        Ok(rows)
    }
}
