//! What was used, summed up.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::{Instant, Ledger, error::LedgerError, repo::usage};
use crate::{
    ids::{AccountId, KeyId},
    keys::Mode,
    money::{MoneyError, NanoUsd},
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
    /// Only what this provider served.
    pub provider: Option<String>,
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
    /// Those of them whose replica died with them; nothing was charged.
    pub abandoned: u64,
    /// Delivered pictures.
    pub images: u64,
    /// What was charged.
    pub cost: NanoUsd,
    /// What we owe upstream.
    pub upstream_cost: NanoUsd,
}

/// The sums of one combination of groups; the fields of groups that were not asked for are empty. Real and play
/// money are never added up: a combination may have a row for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    /// The UTC day (`2026-11-20`).
    pub day: Option<String>,
    /// The catalog's id.
    pub model: Option<String>,
    /// Who served; requests that brought nothing have none.
    pub provider: Option<String>,
    /// The key.
    pub key: Option<String>,
    /// Its name.
    pub key_name: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// Its name.
    pub account_name: Option<String>,
    /// Real or play money.
    pub mode: Mode,
    /// Accepted requests, whatever became of them.
    pub requests: u64,
    /// Those of them whose replica died with them; nothing was charged.
    pub abandoned: u64,
    /// Delivered pictures.
    pub images: u64,
    /// What was charged.
    pub cost: NanoUsd,
    /// What we owe upstream.
    pub upstream_cost: NanoUsd,
}

impl UsageSum {
    /// What it is the sum of, as far as this group goes, with its name for people.
    pub fn group(&self, group: UsageGroup) -> (Option<&str>, Option<&str>) {
        match group {
            UsageGroup::Day => (self.day.as_deref(), None),
            UsageGroup::Model => (self.model.as_deref(), None),
            UsageGroup::Provider => (self.provider.as_deref(), None),
            UsageGroup::Key => (self.key.as_deref(), self.key_name.as_deref()),
            UsageGroup::Account => (self.account.as_deref(), self.account_name.as_deref()),
        }
    }

    /// What was earned; below zero where we owe more than was charged.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn margin(&self) -> Result<NanoUsd, MoneyError> {
        self.cost.checked_sub(self.upstream_cost)
    }
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
        let sums = self.usage_by(&[group], filter, None).await?;
        let rows = sums.into_iter().map(|sum| {
            let (of, name) = sum.group(group);
            UsageRow {
                group: of.map(str::to_owned),
                name: name.map(str::to_owned),
                mode: sum.mode,
                requests: sum.requests,
                abandoned: sum.abandoned,
                images: sum.images,
                cost: sum.cost,
                upstream_cost: sum.upstream_cost,
            }
        });
        Ok(rows.collect())
    }

    /// Sums up usage for every combination of these groups that there is, in their order; at most `limit`
    /// rows. No groups give one row for each kind of money.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn usage_by(
        &self,
        groups: &[UsageGroup],
        filter: &UsageFilter,
        limit: Option<u32>,
    ) -> Result<Vec<UsageSum>, LedgerError> {
        let action = LedgerError::during("sum up usage");
        let mut snapshot = begin_wide(&self.pool).await.map_err(&action)?;
        let mut sums = usage::sum(&mut snapshot, groups, filter, limit).await?;
        snapshot.rollback().await.map_err(&action)?;
        sums.sort_by(|one, other| {
            let by_group = |group: &UsageGroup| {
                let (one, other) = (one.group(*group).0, other.group(*group).0);
                // What has no group comes last.
                (one.is_none(), one).cmp(&(other.is_none(), other))
            };
            let mut orders = groups.iter().map(by_group);
            let first = orders.find(|order| order.is_ne());
            first.unwrap_or_else(|| one.mode.cmp(&other.mode))
        });
        Ok(sums)
    }
}
