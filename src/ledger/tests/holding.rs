//! Holds: the balance, the batch, the key's limits, and the race for the last dollar.

use chrono::TimeDelta;

use super::*;

#[tokio::test]
async fn a_hold_sets_money_aside() {
    let books = Books::with("1").await;
    let hold = books.hold("0.4").await;
    assert_eq!((hold.amount, hold.account), (usd("0.4"), books.account));
    books.check("1", "0.4").await;
}

#[tokio::test]
async fn a_short_balance_says_what_is_there() {
    let books = Books::with("1").await;
    let _open = books.hold("0.7").await;
    let refused = hold(&books.ledger, books.new_hold("0.31")).await;
    let Err(LedgerError::InsufficientBalance { needed, available }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((needed, available), (usd("0.31"), usd("0.3")));
    books.check("1", "0.7").await;
}

#[tokio::test]
async fn a_short_balance_takes_the_dearest_that_it_covers() {
    let books = Books::with("1").await;
    let new = |amounts: &[&str]| {
        let mut new = books.new_hold(amounts[0]);
        new.cheaper = amounts[1..].iter().map(|amount| usd(amount)).collect();
        new
    };
    let granted = hold(&books.ledger, new(&["1.01", "0.6", "0.3"])).await;
    assert_eq!(granted.unwrap().amount, usd("0.6"));
    books.check("1", "0.6").await;
    let refused = hold(&books.ledger, new(&["0.8", "0.6", "0.5"])).await;
    let Err(LedgerError::InsufficientBalance { needed, available }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((needed, available), (usd("0.8"), usd("0.4")));
    // In a batch each sees what the ones before it took.
    let batch = [new(&["0.5", "0.3"]), new(&["0.2", "0.1"]), new(&["0", "0"])];
    let outcomes = books.ledger.hold(&batch).await.unwrap();
    let amounts: Vec<NanoUsd> = outcomes
        .into_iter()
        .map(|hold| hold.unwrap().amount)
        .collect();
    assert_eq!(amounts, [usd("0.3"), usd("0.1"), usd("0")]);
    books.check("1", "1").await;
}

#[tokio::test]
async fn in_a_batch_each_is_decided_on_its_own_and_in_order() {
    let books = Books::with("1").await;
    let stranger = AccountId::new();
    let mut lost = books.new_hold("0.1");
    lost.caller.account = stranger;
    let batch = [
        books.new_hold("0.6"),
        books.new_hold("5"),
        lost,
        books.new_hold("0.3"),
        books.new_hold("0.2"),
        books.new_hold("0.1"),
    ];
    let outcomes = books.ledger.hold(&batch).await.unwrap();
    let granted: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(granted, [true, false, false, true, false, true]);
    assert!(
        matches!(&outcomes[2], Err(LedgerError::NoAccount(id)) if *id == stranger.to_string()),
        "{:?}",
        outcomes[2]
    );
    books.check("1", "1").await;
}

#[tokio::test]
async fn live_and_test_money_are_apart() {
    let books = Books::with("1").await;
    let mut play = books.new_hold("0.1");
    play.caller.mode = Mode::Test;
    let refused = hold(&books.ledger, play.clone()).await;
    assert!(matches!(
        refused,
        Err(LedgerError::InsufficientBalance { .. })
    ));
    let mut credit = books.entry("5", None);
    credit.mode = Mode::Test;
    books.ledger.credit(&credit).await.unwrap();
    let _open = hold(&books.ledger, play).await.unwrap();
    books.check("1", "0").await;
}

#[tokio::test]
async fn what_cannot_be_held_is_refused_before_the_database_sees_it() {
    let books = Books::with("1").await;
    let mut below = books.new_hold("0");
    below.amount = NanoUsd::from_nano(-1);
    let mut none = books.new_hold("0.1");
    none.images = 0;
    let mut far_below = books.new_hold("0.1");
    far_below.cheaper = vec![NanoUsd::from_nano(-1)];
    for new in [below, none, far_below] {
        let refused = hold(&books.ledger, new).await;
        assert!(
            matches!(refused, Err(LedgerError::Inconsistent(_))),
            "{refused:?}"
        );
    }
    books.check("1", "0").await;
}

#[tokio::test]
async fn a_nul_from_a_client_harms_nobody() {
    let books = Books::with("1").await;
    let mut odd = books.new_hold("0.1");
    odd.user = Some("a\0b".to_owned());
    odd.idempotency_key = Some("\0".to_owned());
    let outcomes = books
        .ledger
        .hold(&[odd, books.new_hold("0.1")])
        .await
        .unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test]
async fn a_name_that_no_index_takes_harms_nobody() {
    let books = Books::with("1").await;
    // Hardly compressible, as an index entry would be.
    let long: String = (0..400).map(|_| GenerationId::new().to_string()).collect();
    let mut odd = books.new_hold("0.1");
    odd.user = Some(long.clone());
    odd.idempotency_key = Some(long.clone());
    let generation = odd.generation;
    let outcomes = books
        .ledger
        .hold(&[odd, books.new_hold("0.1")])
        .await
        .unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    for filter in [
        GenerationFilter {
            user: Some(long.clone()),
            ..GenerationFilter::default()
        },
        GenerationFilter {
            idempotency_key: Some(long),
            ..GenerationFilter::default()
        },
    ] {
        let found = books.ledger.generations(books.account, &filter, 9).await;
        let found: Vec<_> = found.unwrap().into_iter().map(|found| found.id).collect();
        assert_eq!(found, [generation]);
    }
}

#[tokio::test]
async fn of_two_hundred_at_once_exactly_those_that_are_paid_for_get_in() {
    let books = Books::with("0.28").await;
    let other = books.replica();
    let calls = (0..200).map(|number| {
        let ledger = if number % 2 == 0 {
            &books.ledger
        } else {
            &other
        };
        hold(ledger, books.new_hold("0.04"))
    });
    let outcomes = futures_util::future::join_all(calls).await;
    let (granted, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(granted.len(), 7);
    for refusal in refused {
        assert!(
            matches!(refusal, Err(LedgerError::InsufficientBalance { available, .. }) if available < usd("0.04")),
            "{refusal:?}"
        );
    }
    books.check("0.28", "0.28").await;
}

#[tokio::test]
async fn refused_requests_count_where_requests_are_limited() {
    let books = Books::with("10").await;
    let limits = Limits {
        requests_per_minute: Some(3),
        images_per_minute: Some(1),
        max_in_flight: Some(0),
        ..Limits::NONE
    };
    let new = limited(&books, limits).await;
    let (caller, gauge) = (new(1).caller, Gauge::default());
    let calls = (0..20).map(|_| books.ledger.count_refused(caller, &gauge));
    let outcomes = futures_util::future::join_all(calls).await;
    let refusals: Vec<_> = outcomes
        .into_iter()
        .filter_map(|outcome| limit_of(&outcome))
        .collect();
    assert_eq!(refusals, [("requests per minute", 60); 17]);
    let next = hold(&books.ledger, new(1)).await;
    assert_eq!(limit_of(&next), Some(("requests per minute", 60)));
}

#[tokio::test]
async fn refused_requests_of_other_keys_do_not_touch_the_database() {
    let books = Books::with("10").await;
    books.database.pool.close().await;
    let mut new = books.new_hold("1");
    new.caller.limits = Limits {
        max_in_flight: Some(1),
        spend_per_day: Some(usd("1")),
        ..Limits::NONE
    };
    let gauge = Gauge::default();
    let count = books.ledger.count_refused(new.caller, &gauge);
    count.await.unwrap();
    assert_eq!(gauge.read(), Reading::default());
}

/// Whatever of it is held, it is one request for so many pictures.
#[tokio::test]
async fn a_request_that_takes_less_counts_once() {
    let books = Books::with("0.05").await;
    let limits = Limits {
        requests_per_minute: Some(2),
        images_per_minute: Some(4),
        max_in_flight: Some(2),
        ..Limits::NONE
    };
    let new = limited(&books, limits).await;
    for _ in 0..2 {
        let mut new = new(2);
        new.amount = usd("1");
        new.cheaper = vec![usd("0.5"), usd("0.02")];
        let _open = hold(&books.ledger, new).await.unwrap();
    }
    let counted = books
        .count("select sum(requests) * 1000 + sum(images) from key_seconds")
        .await;
    assert_eq!(counted, 2004);
}

async fn limited(books: &Books, limits: Limits) -> impl Fn(u8) -> NewHold {
    let key = new_key(&books.database, &books.clock, books.account, limits).await;
    let template = books.new_hold("0.01");
    move |images| {
        let mut new = template.clone();
        new.gauge = Gauge::default();
        new.id = HoldId::new();
        new.generation = GenerationId::new();
        new.caller.key = key.id;
        new.caller.limits = limits;
        new.images = images;
        new
    }
}

fn limit_of<T>(outcome: &Result<T, LedgerError>) -> Option<(&'static str, u64)> {
    match outcome {
        Ok(_) => None,
        Err(LedgerError::RateLimited {
            what, retry_after, ..
        }) => Some((what, retry_after.as_secs())),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn requests_per_minute_are_exact_under_concurrency_and_free_up() {
    let books = Books::with("10").await;
    let new = limited(
        &books,
        Limits {
            requests_per_minute: Some(5),
            ..Limits::NONE
        },
    )
    .await;
    let outcomes =
        futures_util::future::join_all((0..40).map(|_| hold(&books.ledger, new(1)))).await;
    let refusals: Vec<_> = outcomes.iter().filter_map(limit_of).collect();
    assert_eq!(refusals, [("requests per minute", 60); 35]);

    books.clock.advance(TimeDelta::seconds(59));
    assert_eq!(
        limit_of(&hold(&books.ledger, new(1)).await),
        Some(("requests per minute", 1))
    );
    books.clock.advance(TimeDelta::seconds(1));
    assert_eq!(limit_of(&hold(&books.ledger, new(1)).await), None);
    let rows = books.count("select count(*) from key_seconds").await;
    assert_eq!(rows, 1, "what is older than a minute is forgotten");
}

#[tokio::test]
async fn a_batch_counts_towards_the_limits_of_its_key() {
    let books = Books::with("10").await;
    let new = limited(
        &books,
        Limits {
            images_per_minute: Some(6),
            ..Limits::NONE
        },
    )
    .await;
    let outcomes = books
        .ledger
        .hold(&[new(4), books.new_hold("0.01"), new(3), new(2), new(1)])
        .await
        .unwrap();
    let limits: Vec<_> = outcomes.iter().map(limit_of).collect();
    let refused = Some(("images per minute", 60));
    assert_eq!(limits, [None, None, refused, None, refused]);
}

#[tokio::test]
async fn in_flight_is_exact_and_ends_with_the_hold() {
    let books = Books::with("10").await;
    let new = limited(
        &books,
        Limits {
            max_in_flight: Some(3),
            ..Limits::NONE
        },
    )
    .await;
    let outcomes =
        futures_util::future::join_all((0..20).map(|_| hold(&books.ledger, new(1)))).await;
    let mut granted: Vec<Hold> = outcomes.into_iter().filter_map(Result::ok).collect();
    assert_eq!(granted.len(), 3);
    settle(&books.ledger, &release(granted.remove(0)))
        .await
        .unwrap();
    assert_eq!(limit_of(&hold(&books.ledger, new(1)).await), None);
    assert_eq!(
        limit_of(&hold(&books.ledger, new(1)).await),
        Some(("requests in flight", 1))
    );
}

#[tokio::test]
async fn one_refused_for_its_balance_still_counts_as_a_request() {
    let books = Books::with("0").await;
    let new = limited(
        &books,
        Limits {
            requests_per_minute: Some(2),
            images_per_minute: Some(100),
            max_in_flight: Some(1),
            ..Limits::NONE
        },
    )
    .await;
    for _ in 0..2 {
        let refused = hold(&books.ledger, new(50)).await;
        assert!(matches!(
            refused,
            Err(LedgerError::InsufficientBalance { .. })
        ));
    }
    let refused = hold(&books.ledger, new(1)).await;
    assert_eq!(
        limit_of(&refused).map(|(what, _)| what),
        Some("requests per minute")
    );
}

#[tokio::test]
async fn an_unconfirmed_hold_is_taken_back_if_it_was_placed() {
    let books = Books::with("1").await;
    let never_placed = books.new_hold("0.3");
    assert!(!books.ledger.take_back(&never_placed).await.unwrap());
    books.check("1", "0").await;

    let new = books.new_hold("0.3");
    let placed = hold(&books.ledger, new.clone()).await.unwrap();
    books.check("1", "0.3").await;
    assert!(books.ledger.take_back(&new).await.unwrap());
    assert!(
        books.ledger.take_back(&new).await.unwrap(),
        "safe to repeat"
    );
    books.check("1", "0").await;
    let late = settle(&books.ledger, &capture(placed, &["0.3"])).await;
    assert!(matches!(late, Err(LedgerError::HoldEnded(_))), "{late:?}");
    books.check("1", "0").await;
}

#[tokio::test]
async fn what_is_taken_back_may_have_been_held_for_less() {
    let books = Books::with("1").await;
    let mut new = books.new_hold("3");
    new.cheaper = vec![usd("2"), usd("0.3"), usd("0.2")];
    let _lost = hold(&books.ledger, new.clone()).await.unwrap();
    books.check("1", "0.3").await;
    assert!(books.ledger.take_back(&new).await.unwrap());
    assert!(
        books.ledger.take_back(&new).await.unwrap(),
        "safe to repeat"
    );
    books.check("1", "0").await;
}

/// A commit that the server has not finished is waited for, so what is taken back cannot appear later.
#[tokio::test]
async fn what_is_being_placed_is_waited_for() {
    let books = Books::with("1").await;
    let new = books.new_hold("0.3");
    let mut under_way = books.database.pool.begin().await.unwrap();
    sqlx::query("select from balances where account_id = $1 for no key update")
        .bind(books.account.to_string())
        .execute(&mut *under_way)
        .await
        .unwrap();
    let taking_back = books.ledger.take_back(&new);
    let waited = tokio::time::timeout(Duration::from_millis(300), taking_back).await;
    assert!(waited.is_err(), "it did not wait for the balance");
    under_way.rollback().await.unwrap();
    assert!(!books.ledger.take_back(&new).await.unwrap());
}

/// A replica that stands still with the balance locked loses its transaction, while the others wait for it.
#[tokio::test]
async fn who_stands_still_with_the_lock_holds_nobody_up() {
    let books = Books::with("1").await;
    let mut frozen = books.database.pool.begin().await.unwrap();
    sqlx::query("select from balances for no key update")
        .execute(&mut *frozen)
        .await
        .unwrap();
    let hold = books.hold("0.4").await;
    settle(&books.ledger, &capture(hold, &["0.1"]))
        .await
        .unwrap();
    assert!(frozen.commit().await.is_err());
    books.check("0.9", "0").await;
}
