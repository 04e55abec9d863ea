//! What is still to be told of generations that have ended (webhooks).
//!
//! The rows are made by a trigger of the database, in the transaction that ends the generation. Here they are
//! claimed: for a while, by one replica at a time, and without a lock that outlives the statement.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Instant, Ledger, error::LedgerError, repo::deliveries};
use crate::ids::{GenerationId, KeyId};

/// A message that is due, claimed for one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it is about.
    pub generation: GenerationId,
    /// The key that asked for it.
    pub key: KeyId,
    /// `image.generation.completed`, `…failed` or `…abandoned`.
    pub event: String,
    /// Where it goes.
    pub url: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How long ago the generation ended.
    pub age: Duration,
}

/// One attempt to deliver a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// When it began.
    pub started_at: Instant,
    /// How long it took.
    pub latency: Duration,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Why it counts for nothing; `None` is success.
    pub error: Option<String>,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// It was taken.
    Delivered,
    /// The receiver wants no more of it.
    Gone,
    /// It was tried for long enough.
    GivenUp,
    /// To be tried again after a while.
    Again(Duration),
}

/// The message of a generation, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "WebhookDelivery")]
pub struct DeliveryRecord {
    /// What it says.
    pub event: String,
    /// Where it goes.
    pub url: String,
    /// `pending`, `delivered`, `gone` or `failed`.
    pub status: String,
    /// When the generation ended.
    pub created_at: Instant,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Instant>,
    /// When nobody had to try any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Instant>,
    /// Every attempt, in order.
    pub attempts: Vec<DeliveryAttemptRecord>,
}

/// One attempt, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "WebhookAttempt")]
pub struct DeliveryAttemptRecord {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub started_at: Instant,
    /// How long it took.
    pub latency_ms: u64,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Why it counts for nothing.
    pub error: Option<String>,
}

/// What nobody has taken yet, all replicas together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingDeliveries {
    /// How many there are.
    pub count: u64,
    /// How long ago the generation of the oldest ended.
    pub oldest: Duration,
    /// For how long the one is due that waits longest for somebody to send it; zero when none is due.
    pub overdue: Duration,
}

impl Ledger {
    /// Claims messages that are due, of other keys than these. Whoever has claimed one has it for as long as the
    /// lease lasts.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    ///
    /// # Cancel safety
    /// Dropped, messages may have been claimed; they are due again when the lease is over.
    pub async fn claim_deliveries(
        &self,
        busy: &[KeyId],
        at_most: usize,
        lease: Duration,
    ) -> Result<Vec<Delivery>, LedgerError> {
        deliveries::claim(&self.pool, busy, at_most, lease).await
    }

    /// Writes down what came of an attempt, unless somebody else has claimed the message since.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    pub async fn end_delivery(
        &self,
        delivery: &Delivery,
        attempt: &DeliveryAttempt,
        end: DeliveryEnd,
    ) -> Result<(), LedgerError> {
        deliveries::end(&self.pool, delivery, attempt, end).await
    }

    /// What is still to be told.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn count_pending_deliveries(&self) -> Result<PendingDeliveries, LedgerError> {
        deliveries::count(&self.pool).await
    }

    /// Whether a key has so many messages that are still to be told, or more.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn has_pending_deliveries(
        &self,
        key: KeyId,
        at_least: usize,
    ) -> Result<bool, LedgerError> {
        deliveries::are_pending(&self.pool, key, at_least).await
    }

    /// Deletes messages that ended so long ago, with their attempts. Returns how many.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    pub async fn forget_deliveries(&self, ended_for: Duration) -> Result<u64, LedgerError> {
        let mut total: u64 = 0;
        loop {
            let forgotten = deliveries::forget(&self.pool, ended_for).await?;
            total = total.saturating_add(forgotten);
            if forgotten == 0 {
                return Ok(total);
            }
        }
    }

    /// The message of a generation, if it has one.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn delivery(
        &self,
        generation: GenerationId,
    ) -> Result<Option<DeliveryRecord>, LedgerError> {
        deliveries::find(&self.pool, generation).await
    }
}
