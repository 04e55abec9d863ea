//! API keys: secrets, lookup, and what a key may do.
//!
//! Knows nothing of balances or HTTP. A secret is `ek_live_…` or `ek_test_…` with at least 160 random
//! bits; it is shown once and stored as SHA-256 only.

mod error;
mod repo;
mod secret;

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::PgPool;

pub use self::error::KeyError;
use crate::{
    clock::Clock,
    ids::{AccountId, KeyId},
};

/// Real money and real providers, or play money and the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// `ek_live_…`
    Live,
    /// `ek_test_…`
    Test,
}

/// What happens to a parameter that the model does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsupportedParameters {
    /// 400 that names it.
    Reject,
    /// Left out, and listed in a response header.
    Drop,
}

/// How fast a key may go; `None` is no limit of its own. Counted where the hold is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyLimits {
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Pictures in a minute.
    pub images_per_minute: Option<u32>,
    /// Requests at the same time.
    pub max_in_flight: Option<u32>,
}

/// A key as the rest of the house sees it; the secret is not in it.
#[derive(Debug, Clone)]
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
    /// Ids of the models it may use; `None` is all.
    pub models: Option<Vec<String>>,
    /// How fast it may go.
    pub limits: KeyLimits,
    /// What happens to parameters that a model does not take.
    pub unsupported_parameters: UnsupportedParameters,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When somebody ended it.
    pub revoked_at: Option<DateTime<Utc>>,
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
    /// How fast it may go.
    pub limits: KeyLimits,
    /// What happens to parameters that a model does not take.
    pub unsupported_parameters: UnsupportedParameters,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Finds and keeps keys.
#[derive(Debug, Clone)]
pub struct Keys {
    pool: PgPool,
    clock: Clock,
}

impl Keys {
    /// Keys in this database.
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self { pool, clock }
    }

    /// Makes a key. The secret in the answer is not kept anywhere.
    ///
    /// # Errors
    /// [`KeyError`], for an unknown account too.
    pub async fn create(&self, new: NewKey) -> Result<(ApiKey, SecretString), KeyError> {
        let _ = (&self.pool, &self.clock, new, Duration::ZERO);
        todo!()
    }

    /// The key with this secret, if it exists, is not revoked and has not expired.
    ///
    /// # Errors
    /// [`KeyError::Database`]; an unknown or ended key is `Ok(None)`.
    pub async fn authenticate(&self, secret: &SecretString) -> Result<Option<ApiKey>, KeyError> {
        let _ = secret;
        todo!()
    }
}
