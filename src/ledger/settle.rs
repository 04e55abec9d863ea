//! Settlements: the one end of every hold (I2).
//!
//! What a settlement takes is computed by [`Settlement::totals`] before anything is locked; I4 is
//! checked there, again by the caller's cap before it, and last by a CHECK in the table.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sqlx::PgConnection;
use tracing::instrument;

use super::{
    Ledger,
    batch::{self, Batches, Outcome, Queue, Work},
    claim::Replay,
    error::LedgerError,
    hold::Hold,
    repo::{
        accounts, claims,
        settlements::{self, EndedHold},
    },
};
use crate::{
    ids::{AccountId, ImageId},
    keys::Mode,
    money::NanoUsd,
    postgres::run_tx,
};

/// The end of a generation, as it will stand in the books.
#[derive(Debug)]
pub struct Settlement {
    /// The hold to end. It is borrowed by nobody else: whoever has it settles it.
    pub hold: Hold,
    /// How it ends.
    pub ending: Ending,
    /// Every upstream call that was made, in order.
    pub attempts: Vec<Attempt>,
    /// What a repeat of the request is told.
    pub replay: Replay,
}

/// How a generation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Pictures came: charge them, release the rest.
    Captured {
        /// Who served them.
        provider: String,
        /// The provider's name of the model.
        upstream_model: String,
        /// The pictures, in the order of the answer; at least one.
        pictures: Vec<Picture>,
        /// Why fewer came than asked, if fewer came: a code and a message without upstream text.
        shortfall: Option<(String, String)>,
        /// Tokens in, as reported; 0 for models priced per picture.
        input_tokens: u64,
        /// Tokens out, as reported.
        output_tokens: u64,
    },
    /// No picture came, but drafts of one did, and were shown: charge them, release the rest.
    OnlyDrafts {
        /// The drafts.
        drafts: CapturedDrafts,
        /// The code of the error the caller got.
        error_code: String,
        /// Its message. Never contains the prompt.
        error_message: String,
    },
    /// Nothing came: release everything.
    Released {
        /// The code of the error the caller got.
        error_code: String,
        /// Its message. Never contains the prompt.
        error_message: String,
    },
}

/// Drafts of pictures that never came. They are not kept, so there are no rows for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedDrafts {
    /// Who painted them.
    pub provider: String,
    /// The provider's name of the model.
    pub upstream_model: String,
    /// How many; at least one.
    pub count: u8,
    /// What we owe the provider for all of them.
    pub upstream_cost: NanoUsd,
    /// What the caller pays for all of them.
    pub cost: NanoUsd,
    /// Tokens out.
    pub output_tokens: u64,
}

/// One delivered picture: the billing record, a row in `images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its name in the store.
    pub id: ImageId,
    /// Its place in the answer, from 0.
    pub index: u8,
    /// `png`, `jpeg`, `webp`, `gif`, `svg`.
    pub format: String,
    /// Pixels; 0 when unknown (vector pictures).
    pub width: u32,
    /// Pixels; 0 when unknown.
    pub height: u32,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// What we owe the provider for it.
    pub upstream_cost: NanoUsd,
    /// What the caller pays for it.
    pub cost: NanoUsd,
    /// What the provider made of the prompt, if it says.
    pub revised_prompt: Option<String>,
    /// How long it is kept after the settlement.
    pub kept_for: Duration,
}

/// One upstream call: a row in `attempts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Who was called.
    pub provider: String,
    /// The provider's name of the model.
    pub upstream_model: String,
    /// When it began.
    pub started_at: super::Instant,
    /// How long it took.
    pub latency: Duration,
    /// The HTTP status, if there was one.
    pub upstream_status: Option<u16>,
    /// The provider's name for the exchange.
    pub upstream_request_id: Option<String>,
    /// The error's kind (`rate_limited`, `timeout`); `None` for success.
    pub error: Option<&'static str>,
    /// Pictures that arrived whole.
    pub images: u8,
    /// Whether we may owe the provider for it although it failed.
    pub maybe_charged: bool,
}

impl Ledger {
    /// Ends a hold, together with those that others end at the same time. As [`Ledger::settle`].
    ///
    /// # Errors
    /// [`LedgerError::CaptureAboveHold`] (I4), [`LedgerError::HoldEnded`] or [`LedgerError::Inconsistent`] when
    /// it is refused, which is final. [`LedgerError::Database`] when it was not committed, and
    /// [`LedgerError::Unconfirmed`] when nobody knows; after both it is safe to call again with the same
    /// arguments.
    ///
    /// # Cancel safety
    /// Dropped, it has ended the hold or not, or does so yet. Call it again.
    pub async fn settle_one(&self, settlement: &Arc<Settlement>) -> Result<(), LedgerError> {
        batch::submit(self, &SharedSettlement(Arc::clone(settlement))).await
    }

    /// Ends holds, all committed together: captures what was delivered, releases the rest, writes the
    /// pictures, attempts and the generation's final state. A hold that has ended already (swept) is
    /// [`LedgerError::HoldEnded`], and nothing of that settlement is written; one that this very
    /// settlement ended before is `Ok`, so it may be repeated when the outcome of a call is unknown.
    ///
    /// # Errors
    /// The outer error when nothing was committed or it is not known; it is safe to call again with the
    /// same arguments. The inner one is [`LedgerError::CaptureAboveHold`] (I4) or
    /// [`LedgerError::HoldEnded`].
    ///
    /// # Cancel safety
    /// Dropped, it has ended all of the holds or none. Call it again.
    pub async fn settle(
        &self,
        all: &[Settlement],
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let all: Vec<&Settlement> = all.iter().collect();
        self.settle_all(&all).await
    }

    #[instrument(name = "ledger.settle", level = "debug", skip_all, fields(settlements = all.len()))]
    async fn settle_all(
        &self,
        all: &[&Settlement],
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let totals: Vec<Result<Totals, LedgerError>> =
            all.iter().map(|settlement| settlement.totals()).collect();
        let sound: Vec<(&Settlement, Totals)> = all
            .iter()
            .zip(&totals)
            .filter_map(|(settlement, totals)| Some((*settlement, *totals.as_ref().ok()?)))
            .collect();
        let outcomes = if sound.is_empty() {
            Vec::new()
        } else {
            let sound = sound.as_slice();
            run_tx(&self.pool, SharedSettlement::ACTION, move |mut tx| {
                Box::pin(async move { self.settle_sound(&mut tx, sound).await })
            })
            .await?
        };
        let mut outcomes = outcomes.into_iter();
        Ok(totals
            .into_iter()
            .map(|totals| {
                totals?;
                outcomes.next().unwrap_or_else(|| {
                    Err(LedgerError::Inconsistent(
                        "a settlement without an outcome".to_owned(),
                    ))
                })
            })
            .collect())
    }

    /// The body of the transaction; an outcome for each settlement, in order.
    async fn settle_sound(
        &self,
        connection: &mut PgConnection,
        sound: &[(&Settlement, Totals)],
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let balances = sound.iter().map(|(s, _)| (s.hold.account, s.hold.mode));
        accounts::lock_balances(connection, balances).await?;
        let now = self.clock.now();
        // Two settlements of one hold in one batch: the first counts, the second finds it ended.
        let mut seen = BTreeSet::new();
        let first: Vec<_> = sound
            .iter()
            .filter(|(settlement, _)| seen.insert(settlement.hold.generation))
            .copied()
            .collect();
        let ended = settlements::end(connection, &first, now).await?;
        let words: Vec<_> = first
            .iter()
            .filter_map(|(s, _)| Some((&s.hold, s.replay.words.as_deref()?)))
            .collect();
        if !words.is_empty() {
            claims::keep_words(connection, &words, now).await?;
        }
        if ended == sound.len() {
            return Ok(sound.iter().map(|_| Ok(())).collect());
        }
        let generations: Vec<_> = sound.iter().map(|(s, _)| s.hold.generation).collect();
        let stored = settlements::read_holds(connection, &generations).await?;
        Ok(sound
            .iter()
            .map(|(settlement, _)| {
                stored
                    .get(&settlement.hold.generation)
                    .filter(|ended| settlement.is_what_ended(ended))
                    .map(|_| ())
                    .ok_or(LedgerError::HoldEnded(settlement.hold.id))
            })
            .collect())
    }
}

/// A settlement in the queue; its caller keeps it too, to repeat it.
#[derive(Debug, Clone)]
pub(super) struct SharedSettlement(Arc<Settlement>);

impl Work for SharedSettlement {
    type Done = ();
    type Lane = (AccountId, Mode);
    const ACTION: &'static str = "settle holds";
    /// There are no more than holds.
    const MOST_WAITING: usize = usize::MAX;

    fn lane(&self) -> Self::Lane {
        (self.0.hold.account, self.0.hold.mode)
    }

    fn queue(batches: &Batches) -> &Queue<Self> {
        &batches.settlements
    }

    async fn run(ledger: &Ledger, batch: &[Self]) -> Result<Vec<Outcome<Self>>, LedgerError> {
        let all: Vec<&Settlement> = batch.iter().map(|shared| shared.0.as_ref()).collect();
        ledger.settle_all(&all).await
    }

    fn unclaimed(self, _: &Ledger, _: Outcome<Self>) {}
}

/// The sums of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// What the caller pays; never above the hold.
    pub(super) captured: NanoUsd,
    /// What we owe upstream for it.
    pub(super) upstream_cost: NanoUsd,
}

impl Settlement {
    /// Adds up what was delivered.
    ///
    /// # Errors
    /// [`LedgerError::CaptureAboveHold`]; [`LedgerError::Inconsistent`] for a capture of nothing or a negative
    /// price.
    pub(super) fn totals(&self) -> Result<Totals, LedgerError> {
        // (what the caller pays, what we owe) of each.
        let amounts: Vec<(NanoUsd, NanoUsd)> = match &self.ending {
            Ending::Captured { pictures, .. } => pictures
                .iter()
                .map(|picture| (picture.cost, picture.upstream_cost))
                .collect(),
            Ending::OnlyDrafts { drafts, .. } => (drafts.count > 0)
                .then_some((drafts.cost, drafts.upstream_cost))
                .into_iter()
                .collect(),
            Ending::Released { .. } => Vec::new(),
        };
        if !matches!(self.ending, Ending::Released { .. }) && amounts.is_empty() {
            return Err(LedgerError::Inconsistent(format!(
                "a capture of {} without pictures or drafts",
                self.hold.id
            )));
        }
        let is_negative = |(cost, upstream_cost): &(NanoUsd, NanoUsd)| {
            *cost < NanoUsd::ZERO || *upstream_cost < NanoUsd::ZERO
        };
        if amounts.iter().any(is_negative) {
            return Err(LedgerError::Inconsistent(format!(
                "a negative price in the capture of {}",
                self.hold.id
            )));
        }
        let captured = NanoUsd::sum(amounts.iter().map(|(cost, _)| *cost))?;
        if captured > self.hold.amount {
            return Err(LedgerError::CaptureAboveHold {
                capture: captured,
                held: self.hold.amount,
            });
        }
        Ok(Totals {
            captured,
            upstream_cost: NanoUsd::sum(amounts.iter().map(|(_, upstream_cost)| *upstream_cost))?,
        })
    }

    /// The pictures that were delivered.
    pub(super) fn pictures(&self) -> &[Picture] {
        match &self.ending {
            Ending::Captured { pictures, .. } => pictures,
            Ending::OnlyDrafts { .. } | Ending::Released { .. } => &[],
        }
    }

    /// Whether an ended hold was ended by this settlement: the same hold and the same pictures. What a
    /// caller finds that repeats one whose outcome it did not learn.
    fn is_what_ended(&self, ended: &EndedHold) -> bool {
        let status = match self.ending {
            Ending::Captured { .. } | Ending::OnlyDrafts { .. } => "captured",
            Ending::Released { .. } => "released",
        };
        let mut pictures: Vec<&Picture> = self.pictures().iter().collect();
        pictures.sort_by_key(|picture| picture.index);
        ended.id == self.hold.id.to_string()
            && ended.status == status
            && pictures
                .iter()
                .map(|picture| picture.id.to_string())
                .eq(ended.images.iter().cloned())
    }
}
