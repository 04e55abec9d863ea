//! Keys page by page, newest first, for whoever has many.

use super::{ApiKey, KeyError, Keys, Mode, repo::listing};
use crate::ids::{AccountId, KeyId};

/// Which keys to list; every `None` is no restriction.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only live or only test keys.
    pub mode: Option<Mode>,
    /// Only those that open something now, or only those that do not.
    pub active: Option<bool>,
    /// Only those older than this one: the last of the page before.
    pub after: Option<KeyId>,
}

impl Keys {
    /// Keys, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn page(&self, filter: &KeyFilter, limit: u32) -> Result<Vec<ApiKey>, KeyError> {
        listing::page(&self.pool, filter, self.clock.now(), limit).await
    }
}
