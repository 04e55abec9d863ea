//! What a replica leaves that died, what one finds that was only slow, and who may judge.

use super::*;

const SILENCE: Duration = Duration::from_secs(30);
const OVERDUE: Duration = Duration::from_hours(2);

/// Makes it look as if the replicas had last beaten a minute ago.
const SILENCE_ALL: &str = "update replicas set last_beat_at = last_beat_at - interval '1 minute'";

/// Makes it look as if the replicas had beaten for an hour, those too that beat for the first time just now.
const HEARD_ALL: &str = "update replicas set heard_since = heard_since - interval '1 hour'";

/// Sweeps as one that has been beating for long.
async fn sweep(books: &Books, sweeper: &Ledger) -> u64 {
    sweeper.beat().await.unwrap();
    books.tamper(HEARD_ALL).await;
    sweeper.sweep(SILENCE, OVERDUE).await.unwrap()
}

#[tokio::test]
async fn the_holds_of_a_dead_replica_expire_and_those_of_the_living_stay() {
    let books = Books::with("1").await;
    let survivor = books.replica();
    let dead = books.hold("0.3").await;
    books.tamper(SILENCE_ALL).await;
    let alive = hold(&survivor, books.new_hold("0.2")).await.unwrap();
    assert_eq!(sweep(&books, &survivor).await, 1);
    books.check("1", "0.2").await;
    let abandoned = books
        .ledger
        .generation(books.account, dead.generation)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(abandoned.status, GenerationStatus::Abandoned);
    assert_eq!(abandoned.error.unwrap().code, "abandoned");

    // The dead one was only slow: it comes back and cannot settle, but can go on.
    let late = settle(&books.ledger, &capture(dead, &["0.3"])).await;
    assert!(matches!(late, Err(LedgerError::HoldEnded(_))), "{late:?}");
    books.check("1", "0.2").await;
    books.ledger.beat().await.unwrap();
    let again = books.hold("0.1").await;
    assert_eq!(sweep(&books, &survivor).await, 0);
    settle(&books.ledger, &capture(again, &["0.1"]))
        .await
        .unwrap();
    settle(&survivor, &capture(alive, &["0.2"])).await.unwrap();
    books.check("0.7", "0").await;
}

#[tokio::test]
async fn one_that_beats_is_not_swept_nor_is_the_sweeper_itself() {
    let books = Books::with("1").await;
    let other = books.replica();
    let _own = books.hold("0.1").await;
    let _others = hold(&other, books.new_hold("0.1")).await.unwrap();
    books.tamper(SILENCE_ALL).await;
    other.beat().await.unwrap();
    assert_eq!(sweep(&books, &books.ledger).await, 0);
    books.check("1", "0.2").await;
}

#[tokio::test]
async fn the_earlier_incarnation_is_swept_at_once() {
    let books = Books::with("1").await;
    let earlier = ReplicaId::new();
    let before = Ledger::new(books.database.pool.clone(), books.clock.clone(), earlier);
    before.beat().await.unwrap();
    let _left = hold(&before, books.new_hold("0.1")).await.unwrap();
    let _own = books.hold("0.2").await;
    assert_eq!(books.ledger.sweep_replica(earlier).await.unwrap(), 1);
    books.check("1", "0.2").await;
    let own = books.ledger.replica;
    assert_eq!(
        books.ledger.sweep_replica(own).await.unwrap(),
        0,
        "not itself"
    );
    books.check("1", "0.2").await;
}

#[tokio::test]
async fn one_that_stops_leaves_nothing_that_waits() {
    let books = Books::with("1").await;
    let other = books.replica();
    let _left = hold(&other, books.new_hold("0.1")).await.unwrap();
    other.stop().await.unwrap();
    assert_eq!(sweep(&books, &books.ledger).await, 1);
    assert_eq!(books.count("select count(*) from replicas").await, 1);
    books.check("1", "0").await;
}

#[tokio::test]
async fn sweepers_and_settlements_at_once_end_each_hold_once() {
    let books = Books::with("100").await;
    let dead = books.replica();
    let mut holds = Vec::new();
    for _ in 0..3 {
        let batch: Vec<_> = (0..100).map(|_| books.new_hold("0.01")).collect();
        holds.extend(dead.hold(&batch).await.unwrap().into_iter().flatten());
    }
    books.tamper(SILENCE_ALL).await;
    let sweepers: Vec<_> = (0..4).map(|_| books.replica()).collect();
    for sweeper in &sweepers {
        sweeper.beat().await.unwrap();
    }
    books.tamper(HEARD_ALL).await;
    let sweeps = sweepers
        .iter()
        .map(|sweeper| sweeper.sweep(SILENCE, OVERDUE));
    let sweeps = futures_util::future::join_all(sweeps);
    let settlements: Vec<_> = holds
        .into_iter()
        .map(|hold| capture(hold, &["0.01"]))
        .collect();
    let chunks: Vec<_> = settlements.chunks(7).collect();
    let settled = futures_util::future::join_all(chunks.iter().map(|chunk| dead.settle(chunk)));
    let (swept, settled) = futures_util::future::join(sweeps, settled).await;
    let swept: u64 = swept.into_iter().map(Result::unwrap).sum();
    let captured = settled
        .into_iter()
        .flat_map(Result::unwrap)
        .flatten()
        .count();
    assert_eq!(swept + u64::try_from(captured).unwrap(), 300);
    assert_eq!(
        books
            .count("select count(*) from holds where status = 'open'")
            .await,
        0
    );
    assert_eq!(books.ledger.reconcile().await.unwrap(), []);
}

/// After a database has been away or stood still, whoever beats first finds all the others silent.
#[tokio::test]
async fn one_that_was_not_heard_itself_judges_nobody() {
    let books = Books::with("1").await;
    let first = books.replica();
    let _painting = books.hold("0.1").await;
    first.beat().await.unwrap();
    books.tamper(HEARD_ALL).await;
    books.tamper(SILENCE_ALL).await;
    let sweep = async || first.sweep(SILENCE, OVERDUE).await.unwrap();
    assert_eq!(sweep().await, 0, "its own last beat is old");
    first.beat().await.unwrap();
    assert_eq!(sweep().await, 0, "its own beats had a gap");
    books.clock.advance(chrono::TimeDelta::hours(3));
    assert_eq!(sweep().await, 0, "nor does it say who is late");
    books.check("1", "0.1").await;
    first.beat().await.unwrap();
    books.tamper(HEARD_ALL).await;
    assert_eq!(sweep().await, 1, "it has been heard for long enough");
    books.check("1", "0").await;
}

/// A settlement that was refused, or a task that died, leaves a hold whose replica lives.
#[tokio::test]
async fn a_hold_older_than_any_generation_expires_whoever_made_it() {
    let books = Books::with("1").await;
    let other = books.replica();
    let own = books.hold("0.1").await;
    let _others = hold(&other, books.new_hold("0.2")).await.unwrap();
    books.clock.advance(chrono::TimeDelta::hours(2));
    other.beat().await.unwrap();
    assert_eq!(sweep(&books, &books.ledger).await, 0);
    let _young = books.hold("0.3").await;
    books.clock.advance(chrono::TimeDelta::seconds(1));
    assert_eq!(sweep(&books, &books.ledger).await, 2);
    books.check("1", "0.3").await;
    let late = settle(&books.ledger, &capture(own, &["0.1"])).await;
    assert!(matches!(late, Err(LedgerError::HoldEnded(_))), "{late:?}");
    books.check("1", "0.3").await;
}

#[tokio::test]
async fn a_beat_waits_for_no_request_and_finds_another_connection() {
    let books = Books::with("1").await;
    let mut heart = books.ledger.heartbeat();
    heart.beat().await.unwrap();
    let pool = &books.database.pool;
    let mut busy = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        busy.push(pool.acquire().await.unwrap());
    }
    heart.beat().await.unwrap();
    drop(busy);
    books.database.kill_connections().await;
    heart.beat().await.unwrap();
}

#[tokio::test]
async fn a_beat_that_is_not_answered_is_given_up_and_done_again() {
    let books = Books::with("1").await;
    let mut heart = books.ledger.heartbeat();
    heart.beat().await.unwrap();
    let mut standstill = books.database.pool.begin().await.unwrap();
    sqlx::query("select from replicas for update")
        .fetch_all(&mut *standstill)
        .await
        .unwrap();
    let given_up = heart.beat().await;
    assert!(
        matches!(given_up, Err(LedgerError::Database { .. })),
        "{given_up:?}"
    );
    standstill.rollback().await.unwrap();
    heart.beat().await.unwrap();
}
