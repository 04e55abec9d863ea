//! API keys: secrets, lookup, and what a key may do.
//!
//! Knows nothing of balances or HTTP. A secret is `ek_live_…` or `ek_test_…` with at least 160 random
//! bits; it is shown once and stored as SHA-256 only. A server remembers for a moment the keys it looked up;
//! what is changed or revoked anywhere is so everywhere within a second (`memory.rs`, `changes.rs`).

mod changes;
mod error;
mod limits;
mod listing;
mod memory;
mod repo;
mod rotation;
mod secret;
#[cfg(test)]
mod tests;
mod webhooks;

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Serialize;
use sqlx::PgPool;
use tokio::time::Instant;

pub use self::{
    error::KeyError,
    limits::{Limits, LimitsUpdate},
    listing::KeyFilter,
    rotation::Rotated,
    webhooks::WebhookKey,
};
use self::{
    memory::{Memory, Recall},
    secret::SecretHash,
};
use crate::{
    addresses::IpRange,
    clock::Clock,
    ids::{AccountId, KeyId},
    postgres::{TxError, is_broken, run_tx},
};

/// Real money and real providers, or play money and the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// `ek_live_…`
    Live,
    /// `ek_test_…`
    Test,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Live, Self::Test];

    /// `live` or `test`: in tables, in answers, in the secret's prefix.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Text that is neither of the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is neither {words}")]
pub struct WordError {
    text: String,
    words: &'static str,
}

impl FromStr for Mode {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "live" => Ok(Self::Live),
            "test" => Ok(Self::Test),
            _ => Err(WordError {
                text: text.to_owned(),
                words: "live nor test",
            }),
        }
    }
}

/// What happens to a parameter that the model does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnsupportedParameters {
    /// 400 that names it.
    Reject,
    /// Left out, and listed in a response header.
    Drop,
}

impl UnsupportedParameters {
    /// `reject` or `drop`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
        }
    }
}

impl FromStr for UnsupportedParameters {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "reject" => Ok(Self::Reject),
            "drop" => Ok(Self::Drop),
            _ => Err(WordError {
                text: text.to_owned(),
                words: "reject nor drop",
            }),
        }
    }
}

/// A key as the rest of the house sees it; the secret is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ApiKey {
    /// Its name in tables and logs.
    pub id: KeyId,
    /// Who pays.
    pub account: AccountId,
    /// A name for people.
    pub name: String,
    /// Live or test.
    pub mode: Mode,
    /// The first and last characters of the secret, for recognition: `ek_test_abcd…wxyz`.
    pub hint: String,
    /// Ids of the models it may use; null is all.
    pub models: Option<Vec<String>>,
    /// How much it may do.
    pub limits: Limits,
    /// How much all keys of its account and mode may do together.
    pub account_limits: Limits,
    /// Networks that it may be used from; null is all.
    pub allowed_ips: Option<Vec<IpRange>>,
    /// What happens to parameters that a model does not take.
    pub unsupported_parameters: UnsupportedParameters,
    /// The markup of its account, in basis points, before that of routes and providers; null is theirs.
    pub account_markup_basis_points: Option<u32>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When somebody ended it.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Whether it opens anything at `now`.
    pub fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it may be used from this address; one that is bound to networks not from an unknown one.
    pub fn is_allowed_from(&self, address: Option<IpAddr>) -> bool {
        let Some(allowed) = &self.allowed_ips else {
            return true;
        };
        address.is_some_and(|address| allowed.iter().any(|range| range.contains(address)))
    }
}

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Who pays; must exist.
    pub account: AccountId,
    /// A name for people.
    pub name: String,
    /// Live or test.
    pub mode: Mode,
    /// Ids of the models it may use; `None` is all.
    pub models: Option<Vec<String>>,
    /// How much it may do.
    pub limits: Limits,
    /// Networks that it may be used from; `None` is all.
    pub allowed_ips: Option<Vec<IpRange>>,
    /// What happens to parameters that a model does not take.
    pub unsupported_parameters: UnsupportedParameters,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What shall be different about a key; `None` leaves it, an inner `None` takes the bound away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyUpdate {
    /// A name for people.
    pub name: Option<String>,
    /// Ids of the models it may use.
    pub models: Option<Option<Vec<String>>>,
    /// How much it may do.
    pub limits: LimitsUpdate,
    /// Networks that it may be used from.
    pub allowed_ips: Option<Option<Vec<IpRange>>>,
    /// What happens to parameters that a model does not take.
    pub unsupported_parameters: Option<UnsupportedParameters>,
    /// When it ends by itself.
    pub expires_at: Option<Option<DateTime<Utc>>>,
}

/// Finds and keeps keys.
#[derive(Debug, Clone)]
pub struct Keys {
    pool: PgPool,
    clock: Clock,
    /// Where keys that were looked up are remembered, if they are.
    memory: Option<Arc<Memory>>,
}

impl Keys {
    /// Keys in this database; every look is a look there.
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self {
            pool,
            clock,
            memory: None,
        }
    }

    /// The same, remembering for a moment the keys that it looked up: less than a second, or some seconds
    /// while [`Keys::follow_changes`] runs. What changes elsewhere is true here within a second either way.
    #[must_use]
    pub fn remembered(self) -> Self {
        Self {
            memory: Some(Arc::default()),
            ..self
        }
    }

    /// Makes a key. The secret in the answer is not kept anywhere.
    ///
    /// # Errors
    /// [`KeyError`], for an unknown account too.
    pub async fn create(&self, new: NewKey) -> Result<(ApiKey, SecretString), KeyError> {
        let secret = secret::generate(new.mode);
        let key = ApiKey {
            id: KeyId::new(),
            account: new.account,
            name: new.name,
            mode: new.mode,
            hint: secret::hint(&secret),
            models: new.models,
            limits: new.limits,
            // What the account says is read with the row.
            account_limits: Limits::NONE,
            allowed_ips: new.allowed_ips,
            unsupported_parameters: new.unsupported_parameters,
            account_markup_basis_points: None,
            created_at: self.clock.now(),
            expires_at: new.expires_at,
            revoked_at: None,
        };
        let hash = secret::hash(&secret);
        let new = &key;
        let key = run_tx(&self.pool, "create a key", move |mut tx| {
            Box::pin(async move { repo::insert(&mut tx, new, &hash).await })
        })
        .await?;
        Ok((key, secret))
    }

    /// The key with this secret, if it exists, is not revoked and has not expired.
    ///
    /// # Errors
    /// [`KeyError::Database`]; an unknown or ended key is `Ok(None)`.
    pub async fn authenticate(&self, secret: &SecretString) -> Result<Option<ApiKey>, KeyError> {
        if !secret::looks_like_one(secret) {
            return Ok(None);
        }
        let hash = secret::hash(secret);
        let found = match &self.memory {
            Some(memory) => self.recall(memory, &hash).await?,
            None => self.look_up(&hash).await?,
        };
        let now = self.clock.now();
        Ok(found
            .filter(|key| key.is_active(now))
            .map(Arc::unwrap_or_clone))
    }

    /// Those that ask for the same key at the same time look once.
    async fn recall(
        &self,
        memory: &Memory,
        hash: &SecretHash,
    ) -> Result<Option<Arc<ApiKey>>, KeyError> {
        let look = match memory.recall(hash, Instant::now()) {
            Recall::Known(key) => return Ok(Some(key)),
            Recall::Look(look) => look,
        };
        let found = look.found().get_or_try_init(|| async {
            let began = memory.begin(Instant::now());
            let found = self.look_up(hash).await?;
            if let Some(key) = &found {
                memory.remember(*hash, key, began);
            }
            Ok(found)
        });
        found.await.cloned()
    }

    async fn look_up(&self, hash: &SecretHash) -> Result<Option<Arc<ApiKey>>, KeyError> {
        let found = self.find_by_hash(hash).await?;
        Ok(found
            .filter(|(_, stored)| secret::same_hash(stored, hash))
            .map(|(key, _)| Arc::new(key)))
    }

    /// Asks again on another connection when the one it got had died while it rested, as all have when the
    /// server has been restarted.
    async fn find_by_hash(&self, hash: &SecretHash) -> Result<Option<(ApiKey, Vec<u8>)>, KeyError> {
        let mut spare = self.pool.options().get_max_connections();
        loop {
            let connection = self.pool.acquire().await;
            let mut connection =
                connection.map_err(|source| KeyError::database(repo::LOOK_UP, source))?;
            match repo::find_by_hash(&mut connection, hash).await {
                Err(error) if spare > 0 && error.as_database().is_some_and(is_broken) => spare -= 1,
                outcome => return outcome,
            }
        }
    }

    /// The key of this id, ended or not.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn find(&self, id: KeyId) -> Result<Option<ApiKey>, KeyError> {
        repo::find(&self.pool, id).await
    }

    /// All keys, or those of one account, oldest first; ended ones too.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn list(&self, account: Option<AccountId>) -> Result<Vec<ApiKey>, KeyError> {
        repo::list(&self.pool, account).await
    }

    /// Ends a key. Revoking it again changes nothing.
    ///
    /// # Errors
    /// [`KeyError::NotFound`].
    pub async fn revoke(&self, id: KeyId) -> Result<ApiKey, KeyError> {
        let now = self.clock.now();
        run_tx(&self.pool, "revoke a key", move |mut tx| {
            Box::pin(async move { repo::revoke(&mut tx, id, now).await })
        })
        .await
        .inspect(|_| self.forget(id))?
        .ok_or_else(|| KeyError::NotFound(id.to_string()))
    }

    /// Changes what a key may do. Takes effect with the next request.
    ///
    /// # Errors
    /// [`KeyError::NotFound`].
    pub async fn update(&self, id: KeyId, update: &KeyUpdate) -> Result<ApiKey, KeyError> {
        run_tx(&self.pool, "update a key", move |mut tx| {
            Box::pin(async move {
                let Some(mut key) = repo::lock(&mut tx, id).await? else {
                    return Err(KeyError::NotFound(id.to_string()));
                };
                apply(&mut key, update);
                repo::update(&mut tx, &key).await?;
                Ok(key)
            })
        })
        .await
        .inspect(|_| self.forget(id))
    }

    /// What changes here is true here at once.
    fn forget(&self, id: KeyId) {
        if let Some(memory) = &self.memory {
            memory.forget(&id.to_string());
        }
    }
}

fn apply(key: &mut ApiKey, update: &KeyUpdate) {
    let update = update.clone();
    if let Some(name) = update.name {
        key.name = name;
    }
    if let Some(models) = update.models {
        key.models = models;
    }
    key.limits = key.limits.changed(&update.limits);
    if let Some(ranges) = update.allowed_ips {
        key.allowed_ips = ranges;
    }
    if let Some(choice) = update.unsupported_parameters {
        key.unsupported_parameters = choice;
    }
    if let Some(end) = update.expires_at {
        key.expires_at = end;
    }
}
