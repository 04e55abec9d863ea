//! What a replica leaves that died, and what one finds that was only slow.

use super::*;

const SILENCE: Duration = Duration::from_secs(30);

/// Makes it look as if the replicas had last beaten a minute ago.
const SILENCE_ALL: &str = "update replicas set last_beat_at = last_beat_at - interval '1 minute'";

#[tokio::test]
async fn the_holds_of_a_dead_replica_expire_and_those_of_the_living_stay() {
    let books = Books::with("1").await;
    let survivor = books.replica();
    let dead = books.hold("0.3").await;
    books.tamper(SILENCE_ALL).await;
    let alive = hold(&survivor, books.new_hold("0.2")).await.unwrap();
    assert_eq!(survivor.sweep(SILENCE).await.unwrap(), 1);
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
    assert_eq!(survivor.sweep(SILENCE).await.unwrap(), 0);
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
    assert_eq!(books.ledger.sweep(SILENCE).await.unwrap(), 0);
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
    assert_eq!(books.ledger.sweep(SILENCE).await.unwrap(), 1);
    assert_eq!(books.count("select count(*) from replicas").await, 0);
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
    let sweeps =
        futures_util::future::join_all(sweepers.iter().map(|sweeper| sweeper.sweep(SILENCE)));
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
