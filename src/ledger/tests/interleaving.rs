//! Any interleaving of what can happen to money keeps I2, I3 and I4.
//!
//! Random scripts run against the real ledger and against a model of a few integers; after each step
//! both must agree on the balance, on what is held and on who was refused, and at the end the books must
//! reconcile.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "the model counts a few thousand nano-USD"
)]

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::FileFailurePersistence};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Credit(i64),
    Debit(i64),
    /// A batch of holds by one of the replicas.
    Hold(usize, Vec<i64>),
    /// Settles an open or ended hold: takes this many percent of it in two pictures, possibly too much.
    Capture(usize, i64),
    Release(usize),
    /// Repeats an earlier settlement.
    Repeat(usize),
    /// A replica dies, and another sweeps; a new one takes its place.
    Crash(usize),
}

const REPLICAS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let amount = 1..400_i64;
    prop_oneof![
        2 => amount.clone().prop_map(Step::Credit),
        2 => amount.clone().prop_map(Step::Debit),
        6 => (0..REPLICAS, prop::collection::vec(amount, 1..5)).prop_map(|(replica, amounts)| Step::Hold(replica, amounts)),
        6 => (any::<prop::sample::Index>(), 0..120_i64).prop_map(|(hold, percent)| Step::Capture(hold.index(1000), percent)),
        3 => any::<prop::sample::Index>().prop_map(|hold| Step::Release(hold.index(1000))),
        2 => any::<prop::sample::Index>().prop_map(|settlement| Step::Repeat(settlement.index(1000))),
        1 => (0..REPLICAS).prop_map(Step::Crash),
    ]
}

/// What should be.
#[derive(Debug, Default)]
struct Model {
    balance: i64,
    /// Open holds: amount and replica.
    open: BTreeMap<GenerationId, (i64, usize)>,
}

impl Model {
    fn held(&self) -> i64 {
        self.open.values().map(|(amount, _)| amount).sum()
    }

    fn available(&self) -> i64 {
        self.balance - self.held()
    }
}

struct World {
    books: Books,
    replicas: Vec<Ledger>,
    model: Model,
    /// Every hold that ever was granted.
    holds: Vec<Hold>,
    settlements: Vec<Settlement>,
}

impl World {
    async fn new() -> Self {
        let books = Books::with("0").await;
        let replicas = (0..REPLICAS).map(|_| books.replica()).collect();
        Self {
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
            Step::Hold(replica, amounts) => self.hold(replica, &amounts).await,
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
                    self.settle(release(hold), 0).await;
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
                let before = self.model.open.len();
                self.model.open.retain(|_, (_, replica)| *replica != dead);
                assert_eq!(
                    usize::try_from(swept).unwrap(),
                    before - self.model.open.len()
                );
                self.replicas[dead] = self.books.replica();
            }
        }
    }

    async fn hold(&mut self, replica: usize, amounts: &[i64]) {
        let batch: Vec<_> = amounts
            .iter()
            .map(|amount| {
                let mut new = self.books.new_hold("0");
                new.amount = NanoUsd::from_nano(*amount);
                new
            })
            .collect();
        // They go as one batch, in this order.
        let calls = batch.iter().map(|new| self.replicas[replica].hold_one(new));
        let outcomes = futures_util::future::join_all(calls).await;
        for (amount, outcome) in amounts.iter().zip(outcomes) {
            assert_eq!(
                outcome.is_ok(),
                *amount <= self.model.available(),
                "{outcome:?}"
            );
            if let Ok(hold) = outcome {
                self.model.open.insert(hold.generation, (*amount, replica));
                self.holds.push(hold);
            }
        }
    }

    async fn settle(&mut self, settlement: Settlement, taken: i64) {
        let (generation, amount) = (settlement.hold.generation, settlement.hold.amount.nano());
        let outcome = settle(&self.books.ledger, &settlement).await;
        let open = self.model.open.contains_key(&generation);
        match outcome {
            Ok(()) => {
                // A second release of a released hold is the same settlement.
                if open {
                    self.model.open.remove(&generation);
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
