//! Holds: money reserved before a provider is called (I1).
//!
//! Whether a hold is granted is decided by [`decide`], which sees locked numbers and touches nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::sleep;
use tracing::instrument;

use super::{
    Ledger,
    account::Balance,
    batch::{self, Batches, Outcome, Queue, Work},
    claim::{Claims, Replay, RequestHash},
    error::LedgerError,
    limits::KeyCount,
    repo::{accounts, claims, holds},
    settle::{Ending, Settlement},
};
use crate::{
    ids::{AccountId, GenerationId, HoldId, KeyId, RequestId},
    keys::{KeyLimits, Mode},
    money::NanoUsd,
    postgres::run_tx,
};

/// Between two tries to release a hold that nobody waits for.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A generation that wants its money reserved. Also opens the row in `generations`.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Its own name, chosen by the caller, who can so end a hold that it does not know to be placed
    /// ([`Ledger::take_back`]).
    pub id: HoldId,
    /// The generation it is for.
    pub generation: GenerationId,
    /// The exchange that asked for it.
    pub request: RequestId,
    /// Who pays.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// From which balance.
    pub mode: Mode,
    /// The catalog's id of the model.
    pub model: String,
    /// How many pictures were asked for.
    pub images: u8,
    /// The largest possible price.
    pub amount: NanoUsd,
    /// What will do instead where the balance does not cover it, dearest first: the first that it covers is held.
    pub cheaper: Vec<NanoUsd>,
    /// The key's limits, counted in the same transaction.
    pub limits: KeyLimits,
    /// The end user, as the request named them.
    pub user: Option<String>,
    /// The client's name for the effect, if it gave one.
    pub idempotency_key: Option<String>,
    /// What it asks. Without one it is never taken for a repeat, and no repeat for one of it.
    pub request_hash: Option<RequestHash>,
    /// How often the client says that it has asked before, where it gives the effect no name.
    pub retry_count: u16,
}

/// Money that is reserved. Must be settled; a crash leaves it to the sweeper.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an open hold blocks the caller's money until it is settled"]
pub struct Hold {
    /// The row in `holds`.
    pub id: HoldId,
    /// What it is for.
    pub generation: GenerationId,
    /// Who pays.
    pub account: AccountId,
    /// From which balance.
    pub mode: Mode,
    /// How much: of what was asked for, the dearest that was covered.
    pub amount: NanoUsd,
}

impl NewHold {
    /// What may be held, in order of preference.
    fn amounts(&self) -> impl Iterator<Item = NanoUsd> {
        std::iter::once(self.amount).chain(self.cheaper.iter().copied())
    }
}

impl Ledger {
    /// Places a hold, together with those that others want at the same time.
    ///
    /// # Errors
    /// As [`Ledger::hold`], inner and outer alike, and [`LedgerError::Saturated`].
    ///
    /// # Cancel safety
    /// Dropped before it returns, the hold is not placed, or is released again as soon as may be.
    pub async fn hold_one(&self, new: &NewHold) -> Result<Hold, LedgerError> {
        batch::submit(self, new).await
    }

    /// Places holds, all committed together; each is granted or refused on its own, in order.
    ///
    /// # Errors
    /// The outer error when nothing was committed (the database), or, if it is
    /// [`LedgerError::Unconfirmed`], when nobody knows: then [`Ledger::take_back`] ends what may be there.
    /// The inner one when a hold was refused: [`LedgerError::InsufficientBalance`],
    /// [`LedgerError::RateLimited`], [`LedgerError::NameTaken`]; [`LedgerError::Repeated`] when another
    /// generation is the same request.
    ///
    /// # Cancel safety
    /// Dropped before it returns, holds may have been committed, and nobody ends them before they are overdue.
    /// Call it from a task that is not dropped.
    #[instrument(name = "ledger.hold", level = "debug", skip_all, fields(holds = new.len()))]
    pub async fn hold(
        &self,
        new: &[NewHold],
    ) -> Result<Vec<Result<Hold, LedgerError>>, LedgerError> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let limited: BTreeSet<KeyId> = new
            .iter()
            .filter(|new| new.limits.per_minute() || new.limits.max_in_flight.is_some())
            .map(|new| new.key)
            .collect();
        let limited: Vec<KeyId> = limited.into_iter().collect();
        let limited = limited.as_slice();
        run_tx(&self.pool, "place holds", move |mut tx| {
            Box::pin(async move {
                if !limited.is_empty() {
                    holds::lock_keys(&mut tx, limited).await?;
                }
                let mut books =
                    accounts::lock_balances(&mut tx, new.iter().map(|new| (new.account, new.mode)))
                        .await?;
                // Read after the locks were waited for, the clock too.
                let now = self.clock.now();
                let mut counts = if limited.is_empty() {
                    KeyCounts::new()
                } else {
                    holds::count_keys(&mut tx, limited, now.timestamp()).await?
                };
                let mut claimed = if new.iter().any(Claims::matter_to) {
                    claims::read(&mut tx, new, now).await?
                } else {
                    Claims::default()
                };
                let outcomes = decide(new, &mut books, &mut counts, &mut claimed);
                let granted: Vec<(&NewHold, &Hold)> = new
                    .iter()
                    .zip(&outcomes)
                    .filter_map(|(new, outcome)| Some((new, outcome.as_ref().ok()?)))
                    .collect();
                if !granted.is_empty() {
                    holds::insert(&mut tx, &granted, self.replica, now).await?;
                }
                claims::write(&mut tx, &granted, &claimed, now).await?;
                counts.retain(|key, _| {
                    new.iter()
                        .any(|new| new.key == *key && new.limits.per_minute())
                });
                if !counts.is_empty() {
                    holds::write_counts(&mut tx, &counts, now.timestamp()).await?;
                }
                Ok(outcomes)
            })
        })
        .await
    }
}

impl Ledger {
    /// Counts a request that was refused before it came to a hold, where the key has a limit of requests per
    /// minute; any other key costs nothing here.
    ///
    /// # Errors
    /// [`LedgerError::RateLimited`] when the limit is used up: then that is what the caller is to be told.
    /// [`LedgerError::Database`].
    ///
    /// # Cancel safety
    /// Dropped before it returns, the request may have been counted or not.
    pub async fn count_refused(&self, key: KeyId, limits: KeyLimits) -> Result<(), LedgerError> {
        let limits = limits.only_requests();
        if !limits.per_minute() {
            return Ok(());
        }
        batch::submit(self, &Refused { key, limits }).await
    }

    /// Says no where a hold of `least` would surely be refused now: a plain look at the balance and at what the
    /// key did lately, which locks, counts and promises nothing. [`Ledger::hold`] decides.
    ///
    /// # Errors
    /// [`LedgerError::InsufficientBalance`], [`LedgerError::RateLimited`], [`LedgerError::Database`].
    pub async fn foresee(
        &self,
        (account, mode): (AccountId, Mode),
        key: KeyId,
        limits: KeyLimits,
        least: NanoUsd,
    ) -> Result<(), LedgerError> {
        self.balance(account, mode).await?.cover(least)?;
        if !limits.per_minute() && limits.max_in_flight.is_none() {
            return Ok(());
        }
        let mut connection = (self.pool.acquire().await)
            .map_err(LedgerError::during("look at what a key did lately"))?;
        let now = self.clock.now().timestamp();
        let mut counts = holds::count_keys(&mut connection, &[key], now).await?;
        match counts.get_mut(&key) {
            Some(count) => count.admit(limits, 1),
            None => Ok(()),
        }
    }

    /// Counts refused requests, all committed together; each is admitted or not on its own, in order.
    #[instrument(name = "ledger.count_refused", level = "debug", skip_all, fields(requests = refused.len()))]
    async fn count_all_refused(
        &self,
        refused: &[Refused],
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let keys: BTreeSet<KeyId> = refused.iter().map(|refused| refused.key).collect();
        let keys: Vec<KeyId> = keys.into_iter().collect();
        let keys = keys.as_slice();
        run_tx(&self.pool, Refused::ACTION, move |mut tx| {
            Box::pin(async move {
                holds::lock_keys(&mut tx, keys).await?;
                let now = self.clock.now().timestamp();
                let mut counts = holds::count_keys(&mut tx, keys, now).await?;
                let outcomes = refused
                    .iter()
                    .map(|refused| match counts.get_mut(&refused.key) {
                        Some(count) => count.admit(refused.limits, 0),
                        None => Ok(()),
                    })
                    .collect();
                holds::write_counts(&mut tx, &counts, now).await?;
                Ok(outcomes)
            })
        })
        .await
    }

    /// Releases a hold whose placing was [`LedgerError::Unconfirmed`]; says whether it had been placed. A
    /// commit that is still under way on the server holds the lock on the balance, and is waited for.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Unconfirmed`]; safe to call again.
    ///
    /// # Cancel safety
    /// As [`Ledger::settle`].
    pub async fn take_back(&self, new: &NewHold) -> Result<bool, LedgerError> {
        // A settlement names the amount that it gives back, and nobody knows which one was held.
        for amount in new.amounts() {
            let settlement = Settlement {
                hold: Hold {
                    id: new.id,
                    generation: new.generation,
                    account: new.account,
                    mode: new.mode,
                    amount,
                },
                ending: Ending::Released {
                    error_code: "internal_error".to_owned(),
                    error_message: "the database did not say whether the hold was placed"
                        .to_owned(),
                },
                attempts: Vec::new(),
                replay: Replay::default(),
            };
            match self.settle(&[settlement]).await?.pop() {
                Some(Ok(())) => return Ok(true),
                Some(Err(LedgerError::HoldEnded(_))) | None => {}
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(false)
    }
}

impl Ledger {
    /// [`Ledger::take_back`] for a hold that nobody waits for any more, however long it takes.
    fn take_back_later(&self, new: NewHold) {
        let ledger = self.clone();
        self.batches.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                match ledger.take_back(&new).await {
                    Ok(_) => return,
                    Err(error) if error.is_passing() => {
                        sleep(pause).await;
                        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    }
                    Err(error) => {
                        tracing::error!(
                            %error,
                            hold.id = %new.id,
                            "a hold whose caller has left could not be released; it is swept when it is overdue"
                        );
                        return;
                    }
                }
            }
        });
    }
}

impl Work for NewHold {
    type Done = Hold;
    type Lane = (AccountId, Mode);
    const ACTION: &'static str = "place holds";
    /// Several times what a busy replica has in flight.
    const MOST_WAITING: usize = 32_768;

    fn lane(&self) -> Self::Lane {
        (self.account, self.mode)
    }

    fn queue(batches: &Batches) -> &Queue<Self> {
        &batches.holds
    }

    async fn run(ledger: &Ledger, batch: &[Self]) -> Result<Vec<Outcome<Self>>, LedgerError> {
        ledger.hold(batch).await
    }

    fn unclaimed(self, ledger: &Ledger, outcome: Outcome<Self>) {
        match outcome {
            Ok(_) | Err(LedgerError::Unconfirmed { .. }) => ledger.take_back_later(self),
            Err(_) => {}
        }
    }
}

/// A request that came to no hold, of a key with a limit of requests per minute.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    key: KeyId,
    limits: KeyLimits,
}

impl Work for Refused {
    type Done = ();
    type Lane = KeyId;
    const ACTION: &'static str = "count refused requests";
    const MOST_WAITING: usize = 4096;

    fn lane(&self) -> KeyId {
        self.key
    }

    fn queue(batches: &Batches) -> &Queue<Self> {
        &batches.refused
    }

    async fn run(ledger: &Ledger, batch: &[Self]) -> Result<Vec<Outcome<Self>>, LedgerError> {
        ledger.count_all_refused(batch).await
    }

    fn unclaimed(self, _: &Ledger, _: Outcome<Self>) {}
}

/// The locked balances of a batch.
pub(super) type Books = BTreeMap<(AccountId, Mode), Balance>;
/// The counts of those keys of a batch that have limits.
pub(super) type KeyCounts = BTreeMap<KeyId, KeyCount>;

/// Grants or refuses each hold of a batch, in order, each seeing what the ones before it took. `books`
/// and `counts` are left as they shall be written, and so are `claims`.
pub(super) fn decide(
    holds: &[NewHold],
    books: &mut Books,
    counts: &mut KeyCounts,
    claims: &mut Claims,
) -> Vec<Result<Hold, LedgerError>> {
    holds
        .iter()
        .map(|new| {
            let lowest = new.amounts().min().unwrap_or(NanoUsd::ZERO);
            if new.images == 0 || lowest < NanoUsd::ZERO {
                return Err(LedgerError::Inconsistent(format!(
                    "a hold of {lowest} USD for {} images",
                    new.images
                )));
            }
            let images = u32::from(new.images);
            let mut count = counts.get_mut(&new.key);
            if let Err(repeated) = claims.admit(new) {
                // Paints nothing, so all that is counted of it is that it was made.
                if let Some(count) = &mut count {
                    count.admit(new.limits.only_requests(), 0)?;
                }
                return Err(repeated);
            }
            if let Some(count) = &mut count {
                count.admit(new.limits, images)?;
            }
            let balance = books
                .get_mut(&(new.account, new.mode))
                .ok_or_else(|| LedgerError::NoAccount(new.account.to_string()))?;
            let available = balance.available()?;
            let amount = new.amounts().find(|amount| *amount <= available).ok_or(
                LedgerError::InsufficientBalance {
                    needed: new.amount,
                    available,
                },
            )?;
            balance.held = balance.held.checked_add(amount)?;
            claims.granted(new);
            if let Some(count) = count {
                count.granted(images);
            }
            Ok(Hold {
                id: new.id,
                generation: new.generation,
                account: new.account,
                mode: new.mode,
                amount,
            })
        })
        .collect()
}
