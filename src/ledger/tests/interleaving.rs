//! Any interleaving of what can happen to money keeps I2, I3, I4 and I8, and what may be spent.
//!
//! Random scripts run against the real ledger and against a model of a few integers; after each step
//! both must agree on the balance, on what is held, on what was spent in the day and the month, on who was
//! refused, and on whose request is a repeat of which, and at the end the books must reconcile.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "the model counts a few thousand nano-USD"
)]

use std::collections::BTreeMap;

use chrono::{Datelike as _, NaiveDate, TimeDelta};
use proptest::{prelude::*, test_runner::FileFailurePersistence};

use super::*;
use crate::ids::KeyId;

#[derive(Debug, Clone)]
enum Step {
    Credit(i64),
    Debit(i64),
    /// A batch of holds by one of the replicas.
    Hold(usize, Vec<Ask>),
    /// Settles an open or ended hold: takes this many percent of it in two pictures, possibly too much.
    Capture(usize, i64),
    Release(usize),
    /// Repeats an earlier settlement.
    Repeat(usize),
    /// A replica dies, and another sweeps; a new one takes its place.
    Crash(usize),
    /// So many hours pass.
    Wait(i64),
}

#[derive(Debug, Clone)]
struct Ask {
    amount: i64,
    /// With which of the keys.
    key: usize,
    /// Whether the replica has heard of the limits yet.
    is_limited: bool,
    /// Under which name of the key's, and what it asks under that.
    name: Option<(usize, u8)>,
}

/// How many names a key uses.
const NAMES: usize = 3;
/// What is released under this one was refused by its provider, which is told again.
const REFUSED: usize = 0;

/// What may be spent in a day and a month: by the first key, by the second, by the account.
const SPEND: [Option<(i64, i64)>; 3] = [Some((500, 1200)), None, Some((900, 2000))];
const ACCOUNT: usize = 2;

const REPLICAS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let amount = 1..400_i64;
    let asks = prop_oneof![6 => Just(0_u8), 1 => Just(1)];
    let name = prop::option::weighted(0.4, (0..NAMES, asks));
    let ask = (amount.clone(), 0..2_usize, prop::bool::weighted(0.9), name).prop_map(
        |(amount, key, is_limited, name)| Ask {
            amount,
            key,
            is_limited,
            name,
        },
    );
    prop_oneof![
        2 => amount.clone().prop_map(Step::Credit),
        2 => amount.clone().prop_map(Step::Debit),
        6 => (0..REPLICAS, prop::collection::vec(ask, 1..5)).prop_map(|(replica, asks)| Step::Hold(replica, asks)),
        6 => (any::<prop::sample::Index>(), 0..120_i64).prop_map(|(hold, percent)| Step::Capture(hold.index(1000), percent)),
        3 => any::<prop::sample::Index>().prop_map(|hold| Step::Release(hold.index(1000))),
        2 => any::<prop::sample::Index>().prop_map(|settlement| Step::Repeat(settlement.index(1000))),
        1 => (0..REPLICAS).prop_map(Step::Crash),
        1 => (1..20_i64).prop_map(Step::Wait),
    ]
}

/// What should be.
#[derive(Debug, Default)]
struct Model {
    balance: i64,
    /// Every hold that was granted.
    placed: BTreeMap<GenerationId, Placed>,
    /// What the names of the keys stand for.
    names: BTreeMap<(usize, usize), Named>,
}

#[derive(Debug)]
struct Named {
    asks: u8,
    generation: GenerationId,
    since: Instant,
}

/// What is to come of a hold that is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Granted,
    /// By balance or limits.
    Refused,
    Repeated(GenerationId),
    NameTaken,
}

#[derive(Debug)]
struct Placed {
    amount: i64,
    replica: usize,
    key: usize,
    on: NaiveDate,
    name: Option<usize>,
    is_open: bool,
    /// It has ended, and its request is not done again.
    is_told_again: bool,
    /// Of an ended one.
    taken: i64,
}

impl Model {
    fn open(&self) -> impl Iterator<Item = &Placed> {
        self.placed.values().filter(|placed| placed.is_open)
    }

    fn held(&self) -> i64 {
        self.open().map(|placed| placed.amount).sum()
    }

    fn available(&self) -> i64 {
        self.balance - self.held()
    }

    /// What a key or the account spent on a day, and in its month.
    fn spent(&self, who: usize, day: NaiveDate) -> (i64, i64) {
        let own = self
            .placed
            .values()
            .filter(|placed| who == ACCOUNT || placed.key == who)
            .map(|placed| {
                let amount = if placed.is_open {
                    placed.amount
                } else {
                    placed.taken
                };
                (placed.on, amount)
            });
        let month = |day: NaiveDate| (day.year(), day.month());
        own.fold((0, 0), |(of_day, of_month), (on, amount)| {
            (
                of_day + if on == day { amount } else { 0 },
                of_month + if month(on) == month(day) { amount } else { 0 },
            )
        })
    }

    fn answer(&self, ask: &Ask, now: Instant) -> Answer {
        if let Some((name, asks)) = ask.name
            && let Some(named) = self.names.get(&(ask.key, name))
            && now - named.since < TimeDelta::from_std(KEY_KEPT_FOR).unwrap()
        {
            let before = &self.placed[&named.generation];
            if named.asks != asks {
                return Answer::NameTaken;
            } else if before.is_open || before.is_told_again {
                return Answer::Repeated(named.generation);
            }
        }
        let today = now.date_naive();
        let within = |who: usize| {
            let (day, month) = self.spent(who, today);
            SPEND[who].is_none_or(|(of_day, of_month)| {
                day + ask.amount <= of_day && month + ask.amount <= of_month
            })
        };
        let is_allowed = ask.amount <= self.available()
            && (!ask.is_limited || [ask.key, ACCOUNT].into_iter().all(within));
        if is_allowed {
            Answer::Granted
        } else {
            Answer::Refused
        }
    }
}

fn name_of(name: usize) -> String {
    format!("order {name}")
}

struct World {
    books: Books,
    keys: [KeyId; 2],
    replicas: Vec<Ledger>,
    model: Model,
    /// Every hold that ever was granted.
    holds: Vec<Hold>,
    settlements: Vec<Settlement>,
}

impl World {
    async fn new() -> Self {
        // Towards the end of a month; and before the real time, because ids are made in that.
        let start = Utc.with_ymd_and_hms(2026, 10, 30, 12, 0, 0).unwrap();
        let books = Books::since(start, "0").await;
        let second = new_key(&books.database, &books.clock, books.account, Limits::NONE).await;
        let replicas = (0..REPLICAS).map(|_| books.replica()).collect();
        Self {
            keys: [books.key.id, second.id],
            books,
            replicas,
            model: Model::default(),
            holds: Vec::new(),
            settlements: Vec::new(),
        }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Credit(amount) => {
                self.books.ledger.credit(&self.entry(amount)).await.unwrap();
                self.model.balance += amount;
            }
            Step::Debit(amount) => {
                let outcome = self.books.ledger.debit(&self.entry(amount)).await;
                assert_eq!(
                    outcome.is_ok(),
                    amount <= self.model.available(),
                    "{outcome:?}"
                );
                if outcome.is_ok() {
                    self.model.balance -= amount;
                }
            }
            Step::Hold(replica, asks) => self.hold(replica, &asks).await,
            Step::Wait(hours) => {
                self.books.clock.advance(TimeDelta::hours(hours));
                // Forgetting what is over, or not yet, is the same to everybody.
                if hours % 2 == 0 {
                    self.books.ledger.forget_claims().await.unwrap();
                }
            }
            Step::Capture(hold, percent) => {
                if let Some(hold) = self.pick(hold) {
                    let taken = hold.amount.nano() * percent / 100;
                    let mut settlement = capture(hold, &["0", "0"]);
                    if let Ending::Captured { pictures, .. } = &mut settlement.ending {
                        pictures[0].cost = NanoUsd::from_nano(taken / 3);
                        pictures[1].cost = NanoUsd::from_nano(taken - taken / 3);
                    }
                    self.settle(settlement, taken).await;
                }
            }
            Step::Release(hold) => {
                if let Some(hold) = self.pick(hold) {
                    let placed = &self.model.placed[&hold.generation];
                    let mut settlement = release(hold);
                    if placed.name == Some(REFUSED) {
                        settlement.replay = Replay {
                            answer: Some("{}".to_owned()),
                            claim: Some((self.keys[placed.key], name_of(REFUSED))),
                            ..Replay::default()
                        };
                    }
                    self.settle(settlement, 0).await;
                }
            }
            Step::Repeat(settlement) => {
                if !self.settlements.is_empty() {
                    let place = settlement % self.settlements.len();
                    let again = settle(&self.books.ledger, &self.settlements[place]).await;
                    assert!(again.is_ok(), "{again:?}");
                }
            }
            Step::Crash(dead) => {
                let id = self.replicas[dead].replica;
                let swept = self.books.ledger.sweep_replica(id).await.unwrap();
                let mut left = 0;
                for placed in self.model.placed.values_mut() {
                    if placed.is_open && placed.replica == dead {
                        placed.is_open = false;
                        left += 1;
                    }
                }
                assert_eq!(swept, left);
                self.replicas[dead] = self.books.replica();
            }
        }
    }

    async fn hold(&mut self, replica: usize, asks: &[Ask]) {
        let limits = |who: usize| {
            SPEND[who].map_or(Limits::NONE, |(day, month)| Limits {
                spend_per_day: Some(NanoUsd::from_nano(day)),
                spend_per_month: Some(NanoUsd::from_nano(month)),
                ..Limits::NONE
            })
        };
        let batch: Vec<_> = asks
            .iter()
            .map(|ask| {
                let mut new = self.books.new_hold("0");
                new.amount = NanoUsd::from_nano(ask.amount);
                new.caller.key = self.keys[ask.key];
                if let Some((name, asks)) = ask.name {
                    new.idempotency_key = Some(name_of(name));
                    new.request_hash = Some(RequestHash::new([asks; 32]));
                }
                if ask.is_limited {
                    (new.caller.limits, new.caller.account_limits) =
                        (limits(ask.key), limits(ACCOUNT));
                }
                new
            })
            .collect();
        // They go as one batch, in this order.
        let calls = batch.iter().map(|new| self.replicas[replica].hold_one(new));
        let outcomes = futures_util::future::join_all(calls).await;
        let now = self.books.clock.now();
        for (ask, outcome) in asks.iter().zip(outcomes) {
            let answer = match &outcome {
                Ok(_) => Answer::Granted,
                Err(LedgerError::Repeated(generation)) => Answer::Repeated(*generation),
                Err(LedgerError::NameTaken) => Answer::NameTaken,
                Err(_) => Answer::Refused,
            };
            let expected = self.model.answer(ask, now);
            assert_eq!(answer, expected, "{ask:?}: {outcome:?}");
            if let Ok(hold) = outcome {
                if let Some((name, asks)) = ask.name {
                    let named = Named {
                        asks,
                        generation: hold.generation,
                        since: now,
                    };
                    self.model.names.insert((ask.key, name), named);
                }
                let placed = Placed {
                    amount: ask.amount,
                    replica,
                    key: ask.key,
                    on: now.date_naive(),
                    name: ask.name.map(|(name, _)| name),
                    is_open: true,
                    is_told_again: false,
                    taken: 0,
                };
                self.model.placed.insert(hold.generation, placed);
                self.holds.push(hold);
            }
        }
    }

    async fn settle(&mut self, settlement: Settlement, taken: i64) {
        let (generation, amount) = (settlement.hold.generation, settlement.hold.amount.nano());
        let outcome = settle(&self.books.ledger, &settlement).await;
        let placed = self.model.placed.get_mut(&generation).unwrap();
        let open = placed.is_open;
        match outcome {
            Ok(()) => {
                // A second release of a released hold is the same settlement.
                if open {
                    placed.is_open = false;
                    placed.is_told_again = placed.name == Some(REFUSED)
                        || matches!(settlement.ending, Ending::Captured { .. });
                    placed.taken = taken;
                    self.model.balance -= taken;
                    self.settlements.push(settlement);
                } else {
                    assert!(matches!(settlement.ending, Ending::Released { .. }));
                }
                assert!(taken <= amount, "I4");
            }
            Err(LedgerError::CaptureAboveHold { .. }) => assert!(taken > amount),
            Err(LedgerError::HoldEnded(_)) => assert!(!open, "I2"),
            Err(other) => panic!("{other}"),
        }
    }

    fn pick(&self, place: usize) -> Option<Hold> {
        let count = self.holds.len();
        (count > 0).then(|| twin(&self.holds[place % count]))
    }

    fn entry(&self, amount: i64) -> NewEntry {
        let mut entry = self.books.entry("1", None);
        entry.amount = NanoUsd::from_nano(amount);
        entry
    }

    /// What is kept is what was spent, whenever it was begun to be kept.
    async fn check_spending(&self) {
        let kept: Vec<(String, NaiveDate, i64, i64)> =
            sqlx::query_as("select subject, day, day_nano_usd, month_nano_usd from spending")
                .fetch_all(&self.books.database.pool)
                .await
                .unwrap();
        for (subject, day, of_day, of_month) in kept {
            let key = self.keys.iter().position(|key| key.to_string() == subject);
            let spent = self.model.spent(key.unwrap_or(ACCOUNT), day);
            assert_eq!((of_day, of_month), spent, "{subject} on {day}");
        }
    }

    async fn check(&self) {
        let found = self
            .books
            .ledger
            .balance(self.books.account, Mode::Live)
            .await
            .unwrap();
        let found = (found.balance.nano(), found.held.nano());
        assert_eq!(found, (self.model.balance, self.model.held()), "I3");
        assert!(self.model.available() >= 0, "I3");
        self.check_spending().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6,
        max_shrink_iters: 200,
        // Sequences that once failed; they run first.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            ".config/ledger-interleaving.txt",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_interleaving_keeps_the_books(steps in prop::collection::vec(step(), 60..160)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.run(step).await;
                world.check().await;
            }
            assert_eq!(world.books.ledger.reconcile().await.unwrap(), []);
        });
    }
}
