//! What became of a generation, for whoever asks later.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Instant, Ledger, error::LedgerError, repo::history};
use crate::{
    ids::{AccountId, GenerationId, ImageId, KeyId, RequestId},
    keys::Mode,
    money::NanoUsd,
};

/// Where a generation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GenerationStatus {
    /// Its hold is open.
    InProgress,
    /// Pictures were delivered and charged.
    Completed,
    /// No picture came; nothing was charged but drafts that had been shown.
    Failed,
    /// The process that worked on it died; nothing was charged.
    Abandoned,
}

/// A generation with its pictures and attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    /// The exchange that asked for it.
    pub request: RequestId,
    /// Who pays.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// From which balance.
    pub mode: Mode,
    /// The catalog's id of the model, as it was then.
    pub model: String,
    /// How many pictures were asked for.
    pub images_asked: u8,
    /// Where it stands.
    pub status: GenerationStatus,
    /// The end user, as the request named them.
    pub user: Option<String>,
    /// The client's name for the effect.
    pub idempotency_key: Option<String>,
    /// When it was held.
    pub created_at: Instant,
    /// When it was settled or swept.
    pub finished_at: Option<Instant>,
    /// Who served it.
    pub provider: Option<String>,
    /// The provider's name of the model.
    pub upstream_model: Option<String>,
    /// What was charged.
    pub cost: NanoUsd,
    /// What we owe upstream for it.
    pub upstream_cost: NanoUsd,
    /// Tokens in; 0 for models priced per picture.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// Why it failed; for a completed one, why fewer pictures came than asked.
    pub error: Option<GenerationError>,
    /// What was delivered, in the order of the answer.
    pub images: Vec<ImageRecord>,
    /// Every upstream call, in order.
    pub attempts: Vec<AttemptRecord>,
}

/// A code and a message without upstream text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GenerationError {
    /// Such as `upstream_error`, `abandoned`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// One delivered picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its name in the store.
    pub id: ImageId,
    /// Its place in the answer, from 0.
    pub index: u8,
    /// `png`, `jpeg`, `webp`, `gif`, `svg`.
    pub format: String,
    /// Pixels; 0 when unknown.
    pub width: u32,
    /// Pixels; 0 when unknown.
    pub height: u32,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// What the caller paid for it.
    pub cost: NanoUsd,
    /// What we owe upstream for it.
    pub upstream_cost: NanoUsd,
    /// What the provider made of the prompt.
    pub revised_prompt: Option<String>,
    /// Until when the file is kept.
    pub expires_at: Instant,
}

/// One upstream call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// From 1.
    pub number: u16,
    /// Who was called.
    pub provider: String,
    /// The provider's name of the model.
    pub upstream_model: String,
    /// When it began.
    pub started_at: Instant,
    /// How long it took.
    pub latency: Duration,
    /// The HTTP status, if there was one.
    pub upstream_status: Option<u16>,
    /// The provider's name for the exchange.
    pub upstream_request_id: Option<String>,
    /// The error's kind; `None` for success.
    pub error: Option<String>,
    /// Pictures that arrived whole.
    pub images: u8,
    /// Whether we may owe the provider for it although it failed.
    pub maybe_charged: bool,
}

/// Which generations of an account to list.
#[derive(Debug, Clone, Default)]
pub struct GenerationFilter {
    /// Only those of live or of test keys.
    pub mode: Option<Mode>,
    /// Only those older than this one: the last of the page before.
    pub after: Option<GenerationId>,
    /// Only those of this end user.
    pub user: Option<String>,
    /// Only those that carried this idempotency key.
    pub idempotency_key: Option<String>,
}

impl GenerationStatus {
    /// `in_progress`, `completed`, `failed`, `abandoned`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for GenerationStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for GenerationStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [
            Self::InProgress,
            Self::Completed,
            Self::Failed,
            Self::Abandoned,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| format!("'{text}' is no status of a generation"))
    }
}

impl Ledger {
    /// A generation of this account; another account's is as unknown as none.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn generation(
        &self,
        account: AccountId,
        id: GenerationId,
    ) -> Result<Option<Generation>, LedgerError> {
        let found = history::read(&self.pool, Some(account), &[id.to_string()]).await?;
        Ok(found.into_iter().next())
    }

    /// An account's generations, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn generations(
        &self,
        account: AccountId,
        filter: &GenerationFilter,
        limit: u32,
    ) -> Result<Vec<Generation>, LedgerError> {
        let ids = history::find(&self.pool, account, filter, i64::from(limit)).await?;
        history::read(&self.pool, Some(account), &ids).await
    }
}
