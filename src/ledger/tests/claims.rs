//! One client request is one charge (I8): who works under a name, and which repeat joins which generation.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "the model counts a few days of minutes"
)]

use futures_util::future::join_all;

use super::*;

impl Books {
    /// A hold that is asked for under this name.
    fn named(&self, name: &str, asks: u8) -> NewHold {
        let mut new = self.new_hold("0.1");
        new.idempotency_key = Some(name.to_owned());
        new.request_hash = Some(RequestHash::new([asks; 32]));
        new
    }

    /// A hold without a name, asked for so often before.
    fn repeat(&self, retry_count: u16, asks: u8) -> NewHold {
        let mut new = self.new_hold("0.1");
        new.request_hash = Some(RequestHash::new([asks; 32]));
        new.retry_count = retry_count;
        new
    }

    /// The generation that was begun, or else that is repeated.
    async fn ask(&self, new: NewHold) -> (bool, GenerationId) {
        match hold(&self.ledger, new).await {
            Ok(hold) => (true, hold.generation),
            Err(LedgerError::Repeated(generation)) => (false, generation),
            Err(other) => panic!("{other}"),
        }
    }

    fn wait(&self, duration: Duration) {
        let duration = chrono::TimeDelta::from_std(duration).unwrap();
        self.clock.advance(duration);
    }

    async fn standing(&self, new: &NewHold, generation: GenerationId) -> Standing {
        let claim = new
            .idempotency_key
            .as_deref()
            .map(|name| (new.caller.key, name));
        let standing = self.ledger.standing(self.account, generation, claim);
        standing.await.unwrap()
    }
}

#[tokio::test]
async fn of_all_that_come_at_once_one_works() {
    let books = Books::with("100").await;
    let replicas = [books.replica(), books.replica(), books.replica()];
    let all: Vec<NewHold> = (0..300).map(|_| books.named("once", 1)).collect();
    let calls = all
        .iter()
        .enumerate()
        .map(|(number, new)| replicas[number % 3].hold_one(new));
    let answers = join_all(calls).await;
    let worker = answers
        .iter()
        .find_map(|answer| Some(answer.as_ref().ok()?.generation))
        .unwrap();
    let others = answers.iter().filter(
        |answer| matches!(answer, Err(LedgerError::Repeated(generation)) if *generation == worker),
    );
    assert_eq!(others.count(), 299);
    books.check("100", "0.1").await;
}

/// In one batch: nobody spoils it for the others.
#[tokio::test]
async fn a_conflict_is_its_own_only() {
    let books = Books::with("100").await;
    let taken = hold(&books.ledger, books.named("taken", 1)).await.unwrap();
    let calls = [
        books.named("taken", 2),
        books.new_hold("0.1"),
        books.named("taken", 1),
        books.named("free", 2),
        books.named("free", 3),
    ];
    let answers = books.ledger.hold(&calls).await.unwrap();
    let [
        Err(LedgerError::NameTaken),
        Ok(_),
        Err(LedgerError::Repeated(repeated)),
        Ok(_),
        Err(LedgerError::NameTaken),
    ] = answers.as_slice()
    else {
        panic!("{answers:?}");
    };
    assert_eq!(*repeated, taken.generation);
    books.check("100", "0.3").await;
}

#[tokio::test]
async fn a_name_is_kept_for_a_day_and_then_forgotten() {
    let books = Books::with("100").await;
    let first = hold(&books.ledger, books.named("once", 1)).await.unwrap();
    let generation = first.generation;
    settle(&books.ledger, &capture(first, &["0.1"]))
        .await
        .unwrap();
    books.wait(KEY_KEPT_FOR.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(books.ask(books.named("once", 1)).await, (false, generation));
    assert_eq!(books.ledger.forget_claims().await.unwrap(), 0);
    books.wait(Duration::from_secs(1));
    // Also one that nobody has cleaned up yet.
    assert!(books.ask(books.named("once", 2)).await.0);
    books.wait(KEY_KEPT_FOR);
    assert_eq!(books.ledger.forget_claims().await.unwrap(), 1);
    assert_eq!(
        books.count("select count(*) from idempotency_keys").await,
        0
    );
}

/// What a provider said of pictures that never came is part of the answer for a day, and nowhere after it.
#[tokio::test]
async fn words_are_kept_for_a_day() {
    let books = Books::with("100").await;
    let new = books.named("once", 1);
    let hold = hold(&books.ledger, new.clone()).await.unwrap();
    let generation = hold.generation;
    let mut partial = capture(hold, &["0.1"]);
    partial.replay = Replay {
        answer: Some(r#"{"size":"1x1"}"#.to_owned()),
        words: Some(r#"[{"message":"no \u0000 \\u0000"}]"#.to_owned()),
        claim: Some((new.caller.key, "once".to_owned())),
    };
    settle(&books.ledger, &partial).await.unwrap();
    // Told again as settled before, it says nothing twice.
    settle(&books.ledger, &partial).await.unwrap();
    let said = async || match books.standing(&new, generation).await {
        Standing::Completed(_, answer) => answer.unwrap(),
        other => panic!("{other:?}"),
    };
    let answer: serde_json::Value = serde_json::from_str(&said().await).unwrap();
    let whole = serde_json::json!({"size": "1x1", "failed": [{"message": "no  \\u0000"}]});
    assert_eq!(answer, whole);
    books.wait(KEY_KEPT_FOR.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(books.ledger.forget_claims().await.unwrap(), 0);
    books.wait(Duration::from_secs(1));
    assert_eq!(books.ledger.forget_claims().await.unwrap(), 2);
    assert_eq!(said().await, r#"{"size": "1x1"}"#);
    assert_eq!(books.count("select count(*) from answer_words").await, 0);
}

/// Nor does a settlement that was too late leave any.
#[tokio::test]
async fn words_of_a_hold_that_was_swept_are_not_kept() {
    let books = Books::with("100").await;
    let dead = books.replica();
    let hold = hold(&dead, books.named("once", 1)).await.unwrap();
    books.ledger.sweep_replica(dead.replica).await.unwrap();
    let mut late = capture(hold, &["0.1"]);
    late.replay.words = Some("[]".to_owned());
    let settled = settle(&dead, &late).await;
    assert!(
        matches!(settled, Err(LedgerError::HoldEnded(_))),
        "{settled:?}"
    );
    assert_eq!(books.count("select count(*) from answer_words").await, 0);
}

/// A repeat without a name joins nothing that could not be told.
#[tokio::test]
async fn what_is_not_kept_is_not_joined() {
    let books = Books::with("100").await;
    let unkept = hold(&books.ledger, books.repeat(0, 1)).await.unwrap();
    let mut settlement = capture(unkept, &["0.1"]);
    if let Ending::Captured { pictures, .. } = &mut settlement.ending {
        pictures[0].kept_for = Duration::ZERO;
    }
    settle(&books.ledger, &settlement).await.unwrap();
    assert!(books.ask(books.repeat(1, 1)).await.0, "it was not kept");

    let kept = hold(&books.ledger, books.repeat(0, 2)).await.unwrap();
    let generation = kept.generation;
    settle(&books.ledger, &capture(kept, &["0.1"]))
        .await
        .unwrap();
    assert_eq!(books.ask(books.repeat(1, 2)).await, (false, generation));
    // Its pictures turn out to be gone all the same.
    let mut again = books.repeat(1, 2);
    again.joins = false;
    let (is_new, painted) = books.ask(again).await;
    assert!(is_new);
    // It is the first repeat; the second one finds what was painted for it.
    assert!(books.ask(books.repeat(1, 2)).await.0, "another's");
    assert!(!books.ask(books.repeat(2, 2)).await.0);
    assert_ne!(painted, generation);
}

/// What came to nothing may be done again; a refusal that is kept may not.
#[tokio::test]
async fn how_a_generation_ended_decides() {
    let books = Books::with("100").await;
    let new = books.named("once", 1);
    let first = hold(&books.ledger, new.clone()).await.unwrap();
    let generation = first.generation;
    assert_eq!(books.standing(&new, generation).await, Standing::InProgress);
    settle(&books.ledger, &release(first)).await.unwrap();
    assert_eq!(books.standing(&new, generation).await, Standing::Failed);
    // Under its name still only the same.
    let other = hold(&books.ledger, books.named("once", 2)).await;
    assert!(matches!(other, Err(LedgerError::NameTaken)), "{other:?}");

    let second = hold(&books.ledger, books.named("once", 1)).await.unwrap();
    let generation = second.generation;
    let mut refused = release(second);
    refused.replay = Replay {
        answer: Some(r#"{"message":"no \u0000 \\u0000"}"#.to_owned()),
        claim: Some((new.caller.key, "once".to_owned())),
        ..Replay::default()
    };
    settle(&books.ledger, &refused).await.unwrap();
    assert_eq!(books.ask(books.named("once", 1)).await, (false, generation));
    assert_eq!(
        books.standing(&new, generation).await,
        Standing::Refused(r#"{"message": "no  \\u0000"}"#.to_owned())
    );
    books.check("100", "0").await;
}

#[tokio::test]
async fn what_an_answer_said_is_kept_with_it() {
    let books = Books::with("1").await;
    let new = books.repeat(0, 1);
    let mut settlement = capture(hold(&books.ledger, new.clone()).await.unwrap(), &["0.1"]);
    settlement.replay.answer = Some(r#"{"size":"1024x1024"}"#.to_owned());
    settle(&books.ledger, &settlement).await.unwrap();
    let standing = books.standing(&new, settlement.hold.generation).await;
    let Standing::Completed(found, Some(answer)) = standing else {
        panic!("{standing:?}");
    };
    assert_eq!(answer, r#"{"size": "1024x1024"}"#);
    assert_eq!((found.cost, found.images.len()), (usd("0.1"), 1));
}

/// The newest that this count has not joined; one that failed or is too old is none.
#[tokio::test]
async fn a_repeat_joins_each_generation_once_a_count() {
    let books = Books::with("100").await;
    let (_, one) = books.ask(books.repeat(0, 1)).await;
    let (_, two) = books.ask(books.repeat(0, 1)).await;
    assert_eq!(books.ask(books.repeat(1, 1)).await, (false, two));
    assert_eq!(books.ask(books.repeat(1, 1)).await, (false, one));
    let (is_new, third) = books.ask(books.repeat(1, 1)).await;
    assert!(is_new, "a third request, whose first call never arrived");
    for known in [third, two, one] {
        assert_eq!(books.ask(books.repeat(2, 1)).await, (false, known));
    }
    assert!(books.ask(books.repeat(1, 2)).await.0, "another body");
    let (_, late) = books.ask(books.repeat(0, 3)).await;
    books.wait(JOINED_WITHIN.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(books.ask(books.repeat(1, 3)).await, (false, late));
    books.wait(Duration::from_secs(1));
    assert!(books.ask(books.repeat(2, 3)).await.0, "too old");
    books.wait(JOINED_WITHIN);
    books.ledger.forget_claims().await.unwrap();
    assert_eq!(
        books.count("select count(*) from generation_repeats").await,
        0
    );
}

/// The same within one batch, and for several counts in it.
#[tokio::test]
async fn repeats_of_one_batch_join_each_their_own() {
    let books = Books::with("100").await;
    let (_, one) = books.ask(books.repeat(0, 1)).await;
    let (_, two) = books.ask(books.repeat(0, 1)).await;
    let calls = [
        books.repeat(1, 1),
        books.repeat(2, 1),
        books.repeat(1, 1),
        books.repeat(2, 1),
        books.repeat(1, 1),
        books.repeat(1, 1),
    ];
    let answers = books.ledger.hold(&calls).await.unwrap();
    let joined: Vec<GenerationId> = answers
        .iter()
        .filter_map(|answer| match answer {
            Err(LedgerError::Repeated(generation)) => Some(*generation),
            _ => None,
        })
        .collect();
    assert_eq!(joined, [two, two, one, one]);
    assert!(answers[4].is_ok() && answers[5].is_ok(), "{answers:?}");
    books.check("100", "0.4").await;
}

#[tokio::test]
async fn a_repeat_of_what_failed_or_died_is_done_again() {
    let books = Books::with("100").await;
    let failed = hold(&books.ledger, books.repeat(0, 1)).await.unwrap();
    settle(&books.ledger, &release(failed)).await.unwrap();
    assert!(books.ask(books.repeat(1, 1)).await.0);

    let dead = books.replica();
    let _lost = hold(&dead, books.repeat(0, 2)).await.unwrap();
    let _named = hold(&dead, books.named("once", 3)).await.unwrap();
    books.ledger.sweep_replica(dead.replica).await.unwrap();
    assert!(books.ask(books.repeat(1, 2)).await.0);
    assert!(books.ask(books.named("once", 3)).await.0);
    // A named one is found by its name only.
    assert!(books.ask(books.repeat(1, 3)).await.0);
}

/// Any interleaving of requests, ends, crashes and time charges a request once (I8).
mod any_interleaving {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const REPLICAS: usize = 2;

    #[derive(Debug, Clone)]
    enum Step {
        /// Asks under one of a few names, at one of the replicas, for one of two things.
        Named(usize, u8, u8),
        /// Asks without a name, so often before.
        Repeat(usize, u16, u8),
        /// Ends an open one: charged, refused, or failed.
        Capture(usize),
        Refuse(usize),
        Fail(usize),
        Crash(usize),
        /// Minutes pass.
        Wait(u64),
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        let open = || any::<prop::sample::Index>().prop_map(|place| place.index(1000));
        prop_oneof![
            6 => (0..REPLICAS, 0..3_u8, 0..2_u8).prop_map(|(at, name, asks)| Step::Named(at, name, asks)),
            6 => (0..REPLICAS, 0..3_u16, 0..2_u8).prop_map(|(at, count, asks)| Step::Repeat(at, count, asks)),
            4 => open().prop_map(Step::Capture),
            1 => open().prop_map(Step::Refuse),
            2 => open().prop_map(Step::Fail),
            1 => (0..REPLICAS).prop_map(Step::Crash),
            1 => (1..20_u64).prop_map(Step::Wait),
            1 => Just(Step::Wait(24 * 60)),
            1 => Just(Step::Forget),
        ]
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum State {
        Open(usize),
        Charged,
        Refused,
        Failed,
    }

    #[derive(Debug)]
    struct Known {
        state: State,
        asks: u8,
        /// Only one that has no name can be joined.
        name: Option<u8>,
        begun: u64,
        counts: Vec<u16>,
    }

    struct World {
        books: Books,
        replicas: Vec<Ledger>,
        minute: u64,
        known: BTreeMap<GenerationId, Known>,
        names: BTreeMap<u8, GenerationId>,
        open: BTreeMap<GenerationId, Hold>,
    }

    impl World {
        async fn run(&mut self, step: Step) {
            match step {
                Step::Named(at, name, asks) => self.named(at, name, asks).await,
                Step::Repeat(at, count, asks) => self.repeat(at, count, asks).await,
                Step::Capture(place) => self.end(place, State::Charged).await,
                Step::Refuse(place) => self.end(place, State::Refused).await,
                Step::Fail(place) => self.end(place, State::Failed).await,
                Step::Crash(dead) => {
                    let id = self.replicas[dead].replica;
                    self.books.ledger.sweep_replica(id).await.unwrap();
                    self.replicas[dead] = self.books.replica();
                    for (generation, known) in &mut self.known {
                        if known.state == State::Open(dead) {
                            known.state = State::Failed;
                            self.open.remove(generation);
                        }
                    }
                }
                Step::Wait(minutes) => {
                    self.books.wait(Duration::from_mins(minutes));
                    self.minute += minutes;
                }
                Step::Forget => {
                    self.books.ledger.forget_claims().await.unwrap();
                }
            }
        }

        async fn named(&mut self, at: usize, name: u8, asks: u8) {
            let new = self.books.named(&format!("name {name}"), asks);
            let generation = new.generation;
            let outcome = hold(&self.replicas[at], new).await;
            let before = self.names.get(&name).copied();
            let before = before.filter(|before| self.minute - self.known[before].begun < 24 * 60);
            match before.map(|before| (before, &self.known[&before])) {
                Some((_, known)) if known.asks != asks => {
                    assert!(
                        matches!(outcome, Err(LedgerError::NameTaken)),
                        "{outcome:?}"
                    );
                }
                Some((before, known)) if known.state != State::Failed => {
                    assert!(
                        matches!(outcome, Err(LedgerError::Repeated(same)) if same == before),
                        "{outcome:?}"
                    );
                }
                _ => {
                    self.begin(at, outcome.unwrap(), asks, Some(name), 0);
                    self.names.insert(name, generation);
                }
            }
        }

        async fn repeat(&mut self, at: usize, count: u16, asks: u8) {
            let outcome = hold(&self.replicas[at], self.books.repeat(count, asks)).await;
            let minute = self.minute;
            let joined = self.known.iter_mut().rev().find(|(_, known)| {
                count > 0
                    && known.name.is_none()
                    && known.asks == asks
                    && minute - known.begun < 15
                    && !matches!(known.state, State::Failed | State::Refused)
                    && !known.counts.contains(&count)
            });
            match joined {
                Some((before, known)) => {
                    known.counts.push(count);
                    assert!(
                        matches!(outcome, Err(LedgerError::Repeated(same)) if same == *before),
                        "{outcome:?}"
                    );
                }
                None => self.begin(at, outcome.unwrap(), asks, None, count),
            }
        }

        fn begin(&mut self, at: usize, hold: Hold, asks: u8, name: Option<u8>, count: u16) {
            let known = Known {
                state: State::Open(at),
                asks,
                name,
                begun: self.minute,
                counts: (count > 0).then_some(count).into_iter().collect(),
            };
            self.known.insert(hold.generation, known);
            self.open.insert(hold.generation, hold);
        }

        async fn end(&mut self, place: usize, state: State) {
            let count = self.open.len();
            let Some(generation) = self.open.keys().nth(place % count.max(1)).copied() else {
                return;
            };
            let hold = self.open.remove(&generation).unwrap();
            let known = self.known.get_mut(&generation).unwrap();
            known.state = state;
            let mut settlement = match state {
                State::Charged => capture(hold, &["0.1"]),
                _ => release(hold),
            };
            let name = known.name.map(|name| format!("name {name}"));
            settlement.replay = Replay {
                answer: (state != State::Failed).then(|| "{}".to_owned()),
                claim: name.map(|name| (self.books.key.id, name)),
                ..Replay::default()
            };
            settle(&self.books.ledger, &settlement).await.unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5, max_shrink_iters: 100, ..ProptestConfig::default() })]

        #[test]
        fn charges_a_request_once(steps in prop::collection::vec(step(), 80..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let books = Books::with("1000").await;
                let replicas = (0..REPLICAS).map(|_| books.replica()).collect();
                let (known, names, open) = Default::default();
                let mut world = World { books, replicas, minute: 0, known, names, open };
                for step in steps {
                    world.run(step).await;
                }
                let charged = world.known.values().filter(|known| known.state == State::Charged);
                let charged = i64::try_from(charged.count()).unwrap();
                let charges = "select count(*) from ledger_entries where kind = 'charge'";
                assert_eq!(world.books.count(charges).await, charged);
                assert_eq!(world.books.ledger.reconcile().await.unwrap(), []);
            });
        }
    }
}
