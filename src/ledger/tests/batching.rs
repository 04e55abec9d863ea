//! Group commit: who comes together is committed together, and nobody spoils it for the others.

use futures_util::{FutureExt, future::join_all};
use sqlx::{Postgres, Transaction};
use tokio::{task::yield_now, time::sleep};

use super::*;

impl Books {
    /// Keeps the balance locked, for longer than a replica may that stands still: the first that wants it goes and
    /// waits, those after it gather.
    async fn block(&self) -> Transaction<'static, Postgres> {
        let patiently = "begin; set local idle_in_transaction_session_timeout = 0";
        let mut blocker = self.database.pool.begin_with(patiently).await.unwrap();
        sqlx::query("select from balances where account_id = $1 for no key update")
            .bind(self.account.to_string())
            .execute(&mut *blocker)
            .await
            .unwrap();
        blocker
    }

    /// Until so many statements wait for a lock.
    async fn until_blocked(&self, statements: i64) {
        let waiting = "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'";
        while self.count(waiting).await < statements {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Another account with a key of its own.
    async fn neighbour(&self, credit: &str) -> NewHold {
        let account = self.ledger.create_account("neighbour").await.unwrap().id;
        let limits = Limits::NONE;
        let key = new_key(&self.database, &self.clock, account, limits).await;
        let mut entry = self.entry(credit, None);
        entry.account = account;
        self.ledger.credit(&entry).await.unwrap();
        let mut new = self.new_hold("0.1");
        (new.caller.account, new.caller.key) = (account, key.id);
        new
    }

    /// In how many transactions the holds were placed.
    async fn transactions(&self) -> i64 {
        self.count("select count(distinct xmin::text) from generations")
            .await
    }
}

/// A hold like this one, for another generation.
fn another(new: &NewHold) -> NewHold {
    let mut new = new.clone();
    (new.id, new.generation) = (HoldId::new(), GenerationId::new());
    new
}

#[tokio::test]
async fn who_comes_together_is_committed_together() {
    let books = Books::with("100").await;
    let calls = (0..500).map(|_| hold(&books.ledger, books.new_hold("0.1")));
    let holds: Vec<Hold> = join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(books.transactions().await, 2, "of at most 256");
    books.check("100", "50").await;
    let settlements: Vec<_> = holds
        .into_iter()
        .map(|hold| capture(hold, &["0.04", "0.04"]))
        .collect();
    let calls = settlements.iter().map(|one| settle(&books.ledger, one));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(books.transactions().await, 2, "that wrote the final states");
    books.check("60", "0").await;
}

#[tokio::test]
async fn in_a_batch_each_caller_gets_its_own_answer() {
    let books = Books::with("1").await;
    let limits = Limits {
        requests_per_minute: Some(1),
        ..Limits::NONE
    };
    let key = new_key(&books.database, &books.clock, books.account, limits).await;
    let limited = || {
        let mut new = books.new_hold("0.1");
        (new.caller.key, new.caller.limits) = (key.id, limits);
        new
    };
    let calls = [
        books.new_hold("0.1"),
        books.new_hold("0.5"),
        books.new_hold("5"),
        limited(),
        limited(),
        books.new_hold("0.3"),
        books.new_hold("0.01"),
    ]
    .map(|new| hold(&books.ledger, new));
    let answers = join_all(calls).await;
    assert_eq!(books.transactions().await, 1);
    let [
        Ok(a),
        Ok(b),
        Err(dear),
        Ok(c),
        Err(often),
        Ok(d),
        Err(nothing_left),
    ] = answers.as_slice()
    else {
        panic!("{answers:?}");
    };
    let amounts = [a, b, c, d].map(|hold| hold.amount);
    assert_eq!(amounts, [usd("0.1"), usd("0.5"), usd("0.1"), usd("0.3")]);
    let LedgerError::InsufficientBalance { needed, available } = dear else {
        panic!("{dear}");
    };
    assert_eq!((*needed, *available), (usd("5"), usd("0.4")));
    assert!(matches!(often, LedgerError::RateLimited { .. }), "{often}");
    assert!(
        matches!(nothing_left, LedgerError::InsufficientBalance { available, .. } if *available == usd("0")),
        "{nothing_left}"
    );
    books.check("1", "1").await;
}

#[tokio::test]
async fn a_hold_whose_statement_fails_fails_alone() {
    let books = Books::with("10").await;
    let mut all: Vec<NewHold> = (0..40).map(|_| books.new_hold("0.1")).collect();
    // A generation that is there already, and a key that is not there.
    all[7].generation = books.hold("0.1").await.generation;
    all[23].caller.key = crate::ids::KeyId::new();
    let calls = all.iter().map(|new| books.ledger.hold_one(new));
    let failed: Vec<usize> = join_all(calls)
        .await
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.is_err())
        .map(|(place, answer)| {
            assert!(
                matches!(answer, Err(LedgerError::Database { .. })),
                "{answer:?}"
            );
            place
        })
        .collect();
    assert_eq!(failed, [7, 23]);
    books.check("10", "3.9").await;
}

#[tokio::test]
async fn a_settlement_that_the_database_refuses_fails_alone() {
    let books = Books::with("10").await;
    let mut settlements = Vec::new();
    for _ in 0..9 {
        settlements.push(capture(books.hold("0.1").await, &["0.1"]));
    }
    // Two pictures in one place: only the database sees it.
    if let Ending::Captured { pictures, .. } = &mut settlements[3].ending {
        pictures.push(picture(0, "0"));
    }
    let calls = settlements.iter().map(|one| settle(&books.ledger, one));
    let answers = join_all(calls).await;
    let settled: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    let mut expected = [true; 9];
    expected[3] = false;
    assert_eq!(settled, expected, "{answers:?}");
    books.check("9.2", "0.1").await;
}

#[tokio::test]
async fn a_locked_account_keeps_only_its_own_waiting_for_long() {
    let books = Books::with("1").await;
    let neighbour = books.neighbour("1").await;
    let blocker = books.block().await;
    // All are waiting before the first batch is taken, so it has both accounts.
    let others = [another(&neighbour), another(&neighbour), neighbour];
    let others = others.map(|new| hold(&books.ledger, new));
    let stuck = hold(&books.ledger, books.new_hold("0.1"));
    let (others, stuck) = tokio::join!(join_all(others), stuck);
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    let Err(refused) = stuck else {
        panic!("{stuck:?}");
    };
    assert!(refused.is_passing(), "{refused}");
    blocker.rollback().await.unwrap();
    books.check("1", "0").await;
}

#[tokio::test]
async fn who_leaves_while_it_waits_holds_nothing() {
    let books = Books::with("1").await;
    let blocker = books.block().await;
    let first = books.new_hold("0.1");
    let mut first = Box::pin(books.ledger.hold_one(&first));
    let second = books.new_hold("0.2");
    let mut second = Box::pin(books.ledger.hold_one(&second));
    assert!((&mut first).now_or_never().is_none());
    books.until_blocked(1).await;
    assert!((&mut second).now_or_never().is_none());
    drop(second);
    blocker.rollback().await.unwrap();
    let _open = first.await.unwrap();
    let third = books.hold("0.3").await;
    assert_eq!(books.count("select count(*) from generations").await, 2);
    books.check("1", "0.4").await;
    drop(third);
}

#[tokio::test]
async fn who_leaves_while_its_hold_is_placed_holds_nothing_for_long() {
    let books = Books::with("1").await;
    let blocker = books.block().await;
    let new = books.new_hold("0.1");
    let mut call = Box::pin(books.ledger.hold_one(&new));
    assert!((&mut call).now_or_never().is_none());
    books.until_blocked(1).await;
    drop(call);
    blocker.rollback().await.unwrap();
    until_released(&books, 1).await;
    books.check("1", "0").await;
}

#[tokio::test]
async fn who_leaves_while_the_answer_is_on_its_way_holds_nothing_for_long() {
    let books = Books::with("1").await;
    let new = books.new_hold("0.1");
    let mut call = Box::pin(books.ledger.hold_one(&new));
    assert!((&mut call).now_or_never().is_none());
    while books.count("select count(*) from holds").await == 0 {
        yield_now().await;
    }
    for _ in 0..100 {
        yield_now().await;
    }
    drop(call);
    until_released(&books, 1).await;
    books.check("1", "0").await;
}

async fn until_released(books: &Books, holds: i64) {
    let released = "select count(*) from holds where status = 'released'";
    while books.count(released).await < holds {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_replica_that_stops_writes_what_waits_first() {
    let books = Books::with("10").await;
    let calls = (0..300).map(|_| hold(&books.ledger, books.new_hold("0.01")));
    let mut calls = Box::pin(join_all(calls));
    assert!((&mut calls).now_or_never().is_none());
    let (answers, stopped) = tokio::join!(calls, books.ledger.stop());
    stopped.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    books.check("10", "3").await;
}

/// What waits for the database is bounded: beyond that the next caller is told to come back, at once.
#[tokio::test]
async fn who_comes_to_a_full_queue_is_refused_at_once() {
    let books = Books::with("1").await;
    let blocker = books.block().await;
    let mut new = books.new_hold("0.1");
    new.caller.limits.requests_per_minute = Some(1);
    let (caller, gauge) = (new.caller, Gauge::default());
    let mut first = Box::pin(books.ledger.count_refused(caller, &gauge));
    assert!((&mut first).now_or_never().is_none());
    books.until_blocked(1).await;
    let mut waiting: Vec<_> = (0..4096)
        .map(|_| Box::pin(books.ledger.count_refused(caller, &gauge)))
        .collect();
    for call in &mut waiting {
        assert!(call.now_or_never().is_none());
    }
    let next = books.ledger.count_refused(caller, &gauge).await;
    assert!(
        matches!(&next, Err(error @ LedgerError::Saturated { waiting: 4096, .. }) if error.is_passing()),
        "{next:?}"
    );
    drop(waiting);
    blocker.rollback().await.unwrap();
    assert!(first.await.is_ok());
}
