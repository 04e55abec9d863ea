//! Holds: money reserved before a provider is called (I1).
//!
//! Whether a hold is granted is decided by [`decide`], which sees locked numbers and touches nothing.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;
use tracing::instrument;

use super::{
    Instant, Ledger,
    account::Balance,
    batch::{self, Batches, Outcome, Queue, Work},
    claim::{Claims, Replay, RequestHash},
    error::LedgerError,
    limits::{self, Caller, Counts, Gauge, Reading},
    repo::{accounts, claims, holds, limits as counting},
    settle::{Ending, Settlement},
};
use crate::{
    ids::{AccountId, GenerationId, HoldId, RequestId},
    keys::Mode,
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
    /// Who asks, pays, and is limited; what is limited is counted in the same transaction.
    pub caller: Caller,
    /// The catalog's id of the model.
    pub model: String,
    /// How many pictures were asked for.
    pub images: u8,
    /// The largest possible price.
    pub amount: NanoUsd,
    /// What will do instead where the balance does not cover it, dearest first: the first that it covers is held.
    pub cheaper: Vec<NanoUsd>,
    /// Where to leave how the limits per minute stand.
    pub gauge: Gauge,
    /// The end user, as the request named them.
    pub user: Option<String>,
    /// The client's name for the effect, if it gave one.
    pub idempotency_key: Option<String>,
    /// What it asks. Without one it is never taken for a repeat, and no repeat for one of it.
    pub request_hash: Option<RequestHash>,
    /// How often the client says that it has asked before, where it gives the effect no name.
    pub retry_count: u16,
    /// Where the end of the generation is to be told.
    pub webhook_url: Option<String>,
    /// Whether a repeat without a name joins an equal request; not so when the one that it joined has nothing to
    /// tell any more.
    pub joins: bool,
    /// Never granted: to know whether it is a repeat is all that is wanted.
    pub only_repeats: bool,
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
    /// [`LedgerError::RateLimited`], [`LedgerError::SpendLimited`], [`LedgerError::NameTaken`]; [`LedgerError::Repeated`] when another
    /// generation is the same request, and [`LedgerError::NotRepeated`] when none is and nothing else was wanted.
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
        let wanted = &limits::wanted(new.iter().map(|new| &new.caller));
        let decided = run_tx(&self.pool, "place holds", move |mut tx| {
            Box::pin(async move {
                let mut books =
                    accounts::lock_balances(&mut tx, new.iter().map(Work::lane)).await?;
                // Read after the locks were waited for, the clock too.
                let now = self.clock.now();
                let (mut counts, placed_at) = if wanted.is_empty() {
                    (Counts::none(now), self.clock.told())
                } else {
                    let told = self.clock.told();
                    let counts = counting::count(&mut tx, wanted, told, Unknown::IsMade).await?;
                    // In the day that was looked at, not in one that has begun since.
                    let placed_at = Some(counts.now);
                    (counts, placed_at)
                };
                let mut claimed = if new.iter().any(Claims::matter_to) {
                    claims::read(&mut tx, new, now).await?
                } else {
                    Claims::default()
                };
                let decided = decide(new, &mut books, &mut counts, &mut claimed);
                let granted: Vec<(&NewHold, &Hold)> = new
                    .iter()
                    .zip(&decided)
                    .filter_map(|(new, (outcome, _))| Some((new, outcome.as_ref().ok()?)))
                    .collect();
                if !granted.is_empty() {
                    let moment = Moment { now, placed_at };
                    holds::insert(&mut tx, &granted, self.replica, moment).await?;
                }
                claims::write(&mut tx, &granted, &claimed, now).await?;
                counting::write(&mut tx, &counts, wanted).await?;
                Ok::<_, LedgerError>(decided)
            })
        })
        .await?;
        Ok(tell(new.iter().map(|new| &new.gauge), decided))
    }
}

/// Leaves the readings at their gauges.
fn tell<'a, T>(gauges: impl Iterator<Item = &'a Gauge>, decided: Vec<(T, Reading)>) -> Vec<T> {
    let told = gauges.zip(decided).map(|(gauge, (outcome, reading))| {
        gauge.set(reading);
        outcome
    });
    told.collect()
}

impl Ledger {
    /// Counts a request that was refused before it came to a hold, where requests per minute are limited, and leaves
    /// at the gauge how that stands; any other caller costs nothing here.
    ///
    /// # Errors
    /// [`LedgerError::RateLimited`] when the limit is used up: then that is what the caller is to be told.
    /// [`LedgerError::Database`].
    ///
    /// # Cancel safety
    /// Dropped before it returns, the request may have been counted or not.
    pub async fn count_refused(&self, caller: Caller, gauge: &Gauge) -> Result<(), LedgerError> {
        if !caller.is_counted_per_minute() {
            return Ok(());
        }
        let refused = Refused {
            caller: caller.only_per_minute(),
            gauge: gauge.clone(),
        };
        batch::submit(self, &refused).await
    }

    /// Says no where a hold of `least` would surely be refused now: a plain look at the balance and at what the
    /// caller did lately, which locks, counts and promises nothing. [`Ledger::hold`] decides.
    ///
    /// # Errors
    /// [`LedgerError::InsufficientBalance`], [`LedgerError::RateLimited`], [`LedgerError::SpendLimited`],
    /// [`LedgerError::Database`].
    pub async fn foresee(&self, caller: &Caller, least: NanoUsd) -> Result<(), LedgerError> {
        let balance = self.balance(caller.account, caller.mode).await?;
        balance.cover(least)?;
        let Some(mut counts) = self.counts_of(caller).await? else {
            return Ok(());
        };
        counts.admit(caller, Some(1))?;
        counts.may_spend(caller, least).map(drop)
    }

    /// The same for a request that may repeat another one: who was served before needs neither money nor a place to be
    /// told again.
    ///
    /// # Errors
    /// [`LedgerError::RateLimited`], [`LedgerError::Database`].
    pub async fn foresee_repeat(&self, caller: Caller) -> Result<(), LedgerError> {
        let caller = &caller.only_per_minute();
        match self.counts_of(caller).await? {
            Some(mut counts) => counts.admit(caller, None),
            None => Ok(()),
        }
    }

    /// What the caller did lately, if anything limits it.
    async fn counts_of(&self, caller: &Caller) -> Result<Option<Counts>, LedgerError> {
        let wanted = limits::wanted(std::iter::once(caller));
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut connection = (self.pool.acquire().await)
            .map_err(LedgerError::during("look at what a key did lately"))?;
        let told = self.clock.told();
        let counts = counting::count(&mut connection, &wanted, told, Unknown::IsLeftOut).await?;
        Ok(Some(counts))
    }

    /// Counts refused requests, all committed together; each is admitted or not on its own, in order.
    #[instrument(name = "ledger.count_refused", level = "debug", skip_all, fields(requests = refused.len()))]
    async fn count_all_refused(
        &self,
        refused: &[Refused],
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let wanted = &limits::wanted(refused.iter().map(|refused| &refused.caller));
        let decided = run_tx(&self.pool, Refused::ACTION, move |mut tx| {
            Box::pin(async move {
                let balances = refused.iter().map(Work::lane);
                accounts::lock_balances(&mut tx, balances).await?;
                let told = self.clock.told();
                let mut counts = counting::count(&mut tx, wanted, told, Unknown::IsLeftOut).await?;
                let decided = refused
                    .iter()
                    .map(|Refused { caller, .. }| {
                        let outcome = counts.admit(caller, None);
                        (outcome, counts.reading(caller))
                    })
                    .collect();
                counting::write(&mut tx, &counts, wanted).await?;
                Ok::<Vec<_>, LedgerError>(decided)
            })
        })
        .await?;
        Ok(tell(refused.iter().map(|refused| &refused.gauge), decided))
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
                    account: new.caller.account,
                    mode: new.caller.mode,
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
        (self.caller.account, self.caller.mode)
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

/// A request that came to no hold, of a caller who is limited per minute.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    caller: Caller,
    gauge: Gauge,
}

impl Work for Refused {
    type Done = ();
    type Lane = (AccountId, Mode);
    const ACTION: &'static str = "count refused requests";
    const MOST_WAITING: usize = 4096;

    fn lane(&self) -> Self::Lane {
        (self.caller.account, self.caller.mode)
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

/// When holds are placed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By the clock of this replica.
    pub(super) now: Instant,
    /// By the one of the database, where it was asked; otherwise the statement that writes them asks it.
    pub(super) placed_at: Option<Instant>,
}

/// What becomes of a sum of spending that nobody has kept so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It is made from the past, and kept from now on. The balance has to be locked.
    IsMade,
    IsLeftOut,
}

/// Grants or refuses each hold of a batch, in order, each seeing what the ones before it took; and says how the
/// limits per minute stood then. `books` and `counts` are left as they shall be written, and so are `claims`.
pub(super) fn decide(
    holds: &[NewHold],
    books: &mut Books,
    counts: &mut Counts,
    claims: &mut Claims,
) -> Vec<(Result<Hold, LedgerError>, Reading)> {
    holds
        .iter()
        .map(|new| {
            let outcome = decide_one(new, books, counts, claims);
            (outcome, counts.reading(&new.caller))
        })
        .collect()
}

fn decide_one(
    new: &NewHold,
    books: &mut Books,
    counts: &mut Counts,
    claims: &mut Claims,
) -> Result<Hold, LedgerError> {
    let caller = &new.caller;
    let lowest = new.amounts().min().unwrap_or(NanoUsd::ZERO);
    if new.images == 0 || lowest < NanoUsd::ZERO {
        return Err(LedgerError::Inconsistent(format!(
            "a hold of {lowest} USD for {} images",
            new.images
        )));
    }
    let images = u32::from(new.images);
    if let Err(repeated) = claims.admit(new) {
        // Paints nothing, so all that is counted of it is that it was made.
        counts.admit(caller, None)?;
        return Err(repeated);
    }
    if new.only_repeats {
        // Who wanted to know counts it as the refused request that it is.
        return Err(LedgerError::NotRepeated);
    }
    counts.admit(caller, Some(images))?;
    let balance = books
        .get_mut(&(caller.account, caller.mode))
        .ok_or_else(|| LedgerError::NoAccount(caller.account.to_string()))?;
    let available = balance.available()?;
    if lowest > available {
        return Err(LedgerError::InsufficientBalance {
            needed: new.amount,
            available,
        });
    }
    let left = counts.may_spend(caller, lowest)?;
    let most = left.map_or(available, |left| left.min(available));
    // The lowest is covered by both.
    let amount = new.amounts().find(|amount| *amount <= most);
    let amount = amount.unwrap_or(lowest);
    balance.held = balance.held.checked_add(amount)?;
    claims.granted(new);
    counts.granted(caller, images, amount)?;
    Ok(Hold {
        id: new.id,
        generation: new.generation,
        account: caller.account,
        mode: caller.mode,
        amount,
    })
}
