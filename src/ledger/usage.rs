//! What was used, summed up.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::{Instant, Ledger, error::LedgerError, repo::usage};
use crate::{
    ids::{AccountId, KeyId},
    keys::Mode,
    money::NanoUsd,
    postgres::begin_wide,
};

/// By what usage is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageGroup {
    /// UTC days on which requests were accepted.
    Day,
    /// The catalog's ids.
    Model,
    /// Who served; requests that brought nothing have none.
    Provider,
    /// API keys.
    Key,
    /// Accounts.
    Account,
}

/// What to sum; every `None` is no restriction.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// Only this account.
    pub account: Option<AccountId>,
    /// Only this key.
    pub key: Option<KeyId>,
    /// Only this model, by the catalog's id.
    pub model: Option<String>,
    /// Only real or only play money.
    pub mode: Option<Mode>,
    /// Accepted at this instant or later.
    pub since: Option<Instant>,
    /// Accepted before this instant.
    pub until: Option<Instant>,
}

/// The sums of one group. Real and play money are never added up: a group may have a row for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageRow {
    /// The day (`2026-11-20`), model, provider, key or account.
    pub group: Option<String>,
    /// The name of the key or account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Real or play money.
    pub mode: Mode,
    /// Accepted requests, whatever became of them.
    pub requests: u64,
    /// Delivered pictures.
    pub images: u64,
    /// What was charged.
    pub cost: NanoUsd,
    /// What we owe upstream.
    pub upstream_cost: NanoUsd,
}

impl UsageGroup {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Day,
        Self::Model,
        Self::Provider,
        Self::Key,
        Self::Account,
    ];

    /// `day`, `model`, `provider`, `key`, `account`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key",
            Self::Account => "account",
        }
    }
}

impl fmt::Display for UsageGroup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for UsageGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|group| group.as_str() == text)
            .ok_or_else(|| format!("'{text}' is none of: day, model, provider, key, account"))
    }
}

impl Ledger {
    /// Sums up usage, in the order of the groups.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn usage(
        &self,
        group: UsageGroup,
        filter: &UsageFilter,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        let action = LedgerError::during("sum up usage");
        let mut snapshot = begin_wide(&self.pool).await.map_err(&action)?;
        let rows = usage::sum(&mut snapshot, group, filter).await?;
        snapshot.rollback().await.map_err(&action)?;
        Ok(rows)
    }
}
