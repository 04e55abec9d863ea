//! What is to be told of ended generations: booked with every end, and claimed by one replica at a time.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::*;
use crate::ids::KeyId;

const URL: &str = "https://app.example/hook";
const LEASE: Duration = Duration::from_mins(1);

/// A hold whose end is to be told.
async fn hold_to_tell(books: &Books) -> Hold {
    let mut new = books.new_hold("0.1");
    new.webhook_url = Some(URL.to_owned());
    hold(&books.ledger, new).await.unwrap()
}

async fn ended(books: &Books) -> GenerationId {
    let hold = hold_to_tell(books).await;
    let id = hold.generation;
    let settled = settle(&books.ledger, &release(hold)).await;
    settled.unwrap();
    id
}

async fn claim(ledger: &Ledger, at_most: usize, lease: Duration) -> Vec<Delivery> {
    ledger.claim_deliveries(&[], at_most, lease).await.unwrap()
}

/// Writes down what came of an attempt.
async fn end(books: &Books, delivery: &Delivery, error: Option<&str>, end: DeliveryEnd) {
    let attempt = tried(error);
    let written = books.ledger.end_delivery(delivery, &attempt, end);
    written.await.unwrap();
}

fn tried(error: Option<&str>) -> DeliveryAttempt {
    DeliveryAttempt {
        started_at: Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap(),
        latency: Duration::from_millis(7),
        status: error.is_none().then_some(204),
        error: error.map(str::to_owned),
    }
}

#[tokio::test]
async fn every_end_is_to_be_told_once_and_others_are_not() {
    let books = Books::with("1").await;
    let captured = hold_to_tell(&books).await;
    let failed = hold_to_tell(&books).await;
    let swept = hold_to_tell(&books).await;
    let untold = books.hold("0.1").await;
    let expected = [
        (captured.generation, "image.generation.completed"),
        (failed.generation, "image.generation.failed"),
        (swept.generation, "image.generation.abandoned"),
    ];
    assert_eq!(claim(&books.ledger, 10, LEASE).await, []);
    let captured = capture(captured, &["0.04"]);
    // Whoever did not hear that it was settled says it again.
    for _ in 0..2 {
        settle(&books.ledger, &captured).await.unwrap();
    }
    settle(&books.ledger, &release(failed)).await.unwrap();
    settle(&books.ledger, &capture(untold, &["0.04"]))
        .await
        .unwrap();
    books
        .tamper("update replicas set last_beat_at = last_beat_at - interval '1 minute'")
        .await;
    let survivor = books.replica();
    survivor.beat().await.unwrap();
    books
        .tamper("update replicas set heard_since = heard_since - interval '1 hour'")
        .await;
    let silence = Duration::from_secs(30);
    assert_eq!(survivor.sweep(silence, Duration::MAX).await.unwrap(), 1);

    let due = claim(&books.ledger, 10, LEASE).await;
    let found: BTreeSet<_> = due
        .iter()
        .map(|due| (due.generation, due.event.as_str(), due.url.as_str()))
        .collect();
    let expected = expected.map(|(generation, event)| (generation, event, URL));
    assert_eq!(found, BTreeSet::from(expected));
    assert!(
        due.iter()
            .all(|due| due.attempt == 1 && due.key == books.key.id)
    );
    books.check("0.92", "0").await;
}

/// However many look at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn each_is_claimed_by_one() {
    let books = Books::with("10").await;
    let mut expected = BTreeSet::new();
    for _ in 0..30 {
        expected.insert(ended(&books).await);
    }
    let replicas: Vec<Ledger> = (0..8).map(|_| books.replica()).collect();
    let claims = replicas.iter().map(|replica| claim(replica, 5, LEASE));
    let mut found: Vec<GenerationId> = join_all(claims)
        .await
        .into_iter()
        .flat_map(|due| {
            assert!(due.len() <= 5);
            due.into_iter().map(|due| due.generation)
        })
        .collect();
    // Those that looked while others held the rows came away with fewer.
    let rest = claim(&books.ledger, 30, LEASE).await;
    found.extend(rest.into_iter().map(|due| due.generation));
    assert_eq!(found.len(), 30);
    let found: BTreeSet<_> = found.into_iter().collect();
    assert_eq!(found, expected);
    assert_eq!(claim(&books.ledger, 30, LEASE).await, []);
}

/// A lease that has run out is somebody else's, and what its former holder says then counts only if it was taken.
#[tokio::test]
async fn a_lease_that_ran_out_ends_nothing() {
    let books = Books::with("1").await;
    let id = ended(&books).await;
    let [first] = &claim(&books.ledger, 1, Duration::ZERO).await[..] else {
        panic!("nothing was due");
    };
    let [second] = &claim(&books.ledger, 1, LEASE).await[..] else {
        panic!("the lease went on");
    };
    assert_eq!((first.attempt, second.attempt), (1, 2));
    for late in [
        DeliveryEnd::GivenUp,
        DeliveryEnd::Gone,
        DeliveryEnd::Again(Duration::ZERO),
    ] {
        end(&books, first, Some("timeout"), late).await;
        assert_eq!(claim(&books.ledger, 1, LEASE).await, []);
        let record = books.ledger.delivery(id).await.unwrap().unwrap();
        assert_eq!(record.status, "pending");
    }
    end(&books, first, None, DeliveryEnd::Delivered).await;
    let late = DeliveryEnd::Again(Duration::ZERO);
    end(&books, second, Some("status"), late).await;
    let record = books.ledger.delivery(id).await.unwrap().unwrap();
    assert_eq!((record.status.as_str(), record.due_at), ("delivered", None));
    let attempts = record.attempts.iter().map(|attempt| attempt.number);
    assert_eq!(attempts.collect::<Vec<_>>(), [1, 2]);
    assert_eq!(claim(&books.ledger, 1, LEASE).await, []);
}

#[tokio::test]
async fn keys_with_enough_under_way_wait() {
    let books = Books::with("1").await;
    let id = ended(&books).await;
    let busy = [books.key.id];
    let passed_over = books.ledger.claim_deliveries(&busy, 10, LEASE).await;
    assert_eq!(passed_over.unwrap(), []);
    assert_eq!(claim(&books.ledger, 10, LEASE).await[0].generation, id);
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten() {
    let books = Books::with("1").await;
    let (old, young, pending) = (
        ended(&books).await,
        ended(&books).await,
        ended(&books).await,
    );
    for due in claim(&books.ledger, 10, LEASE).await {
        if due.generation != pending {
            end(&books, &due, None, DeliveryEnd::Delivered).await;
        }
    }
    sqlx::query("update webhook_deliveries set ended_at = ended_at - interval '8 days' where generation_id = $1")
        .bind(old.to_string())
        .execute(&books.database.pool)
        .await
        .unwrap();
    books
        .tamper("update webhook_deliveries set created_at = created_at - interval '8 days'")
        .await;
    let week = Duration::from_hours(7 * 24);
    assert_eq!(books.ledger.forget_deliveries(week).await.unwrap(), 1);
    for (id, is_there) in [(old, false), (young, true), (pending, true)] {
        let found = books.ledger.delivery(id).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{id}");
    }
    assert_eq!(
        books.count("select count(*) from webhook_attempts").await,
        1
    );
    books.check("1", "0").await;
}

#[tokio::test]
async fn what_nobody_has_taken_is_counted() {
    let books = Books::with("1").await;
    let count = async || books.ledger.count_pending_deliveries().await.unwrap();
    let none = PendingDeliveries {
        count: 0,
        oldest: Duration::ZERO,
        overdue: Duration::ZERO,
    };
    assert_eq!(count().await, none);
    for _ in 0..2 {
        ended(&books).await;
    }
    books
        .tamper(
            "update webhook_deliveries set created_at = created_at - interval '1 hour',
             due_at = due_at - interval '5 minutes'",
        )
        .await;
    let pending = count().await;
    let (hour, minute) = (Duration::from_hours(1), Duration::from_mins(1));
    assert_eq!(pending.count, 2);
    assert!(pending.oldest >= hour, "{pending:?}");
    assert!(pending.overdue >= 5 * minute && pending.overdue < hour);
    for (key, at_least, expected) in [
        (books.key.id, 1, true),
        (books.key.id, 2, true),
        (books.key.id, 3, false),
        (KeyId::new(), 1, false),
    ] {
        let found = books.ledger.has_pending_deliveries(key, at_least).await;
        assert_eq!(found.unwrap(), expected, "{at_least}");
    }
    // What somebody sends is not due.
    let due = claim(&books.ledger, 2, hour).await;
    let sending = count().await;
    assert_eq!((sending.count, sending.overdue), (2, Duration::ZERO));
    end(&books, &due[0], None, DeliveryEnd::Delivered).await;
    assert_eq!(count().await.count, 1);
}
