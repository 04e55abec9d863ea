//! What keys and accounts may do and spend: exact over replicas, right after every ending, and told as it was counted.

use chrono::TimeDelta;
use futures_util::future::join_all;

use super::*;

const NOON: fn() -> Instant = || Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap();

fn per_day(amount: &str) -> Limits {
    Limits {
        spend_per_day: Some(usd(amount)),
        ..Limits::NONE
    }
}

fn per_month(amount: &str) -> Limits {
    Limits {
        spend_per_month: Some(usd(amount)),
        ..Limits::NONE
    }
}

impl Books {
    /// A hold with these limits of the key and the account.
    fn bound(&self, amount: &str, limits: Limits, account_limits: Limits) -> NewHold {
        let mut new = self.new_hold(amount);
        (new.caller.limits, new.caller.account_limits) = (limits, account_limits);
        new
    }

    async fn place(&self, amount: &str, limits: Limits) -> Result<Hold, LedgerError> {
        hold(&self.ledger, self.bound(amount, limits, Limits::NONE)).await
    }

    async fn second_key(&self) -> ApiKey {
        new_key(&self.database, &self.clock, self.account, Limits::NONE).await
    }
}

fn reached<T: std::fmt::Debug>(outcome: Result<T, LedgerError>) -> SpendLimit {
    match outcome {
        Err(LedgerError::SpendLimited(limit)) => *limit,
        other => panic!("{other:?}"),
    }
}

/// Three replicas, many at once, none more and none fewer than the limit says: for each kind of limit, of a key and
/// of an account whose keys share it.
#[tokio::test]
async fn limits_are_exact_over_replicas() {
    let kinds = [
        Limits {
            requests_per_minute: Some(7),
            ..Limits::NONE
        },
        Limits {
            images_per_minute: Some(7),
            ..Limits::NONE
        },
        Limits {
            max_in_flight: Some(7),
            ..Limits::NONE
        },
        per_day("0.28"),
        per_month("0.3"),
    ];
    for limits in kinds {
        for of_account in [false, true] {
            let books = Books::with("100").await;
            let replicas = [books.replica(), books.replica(), books.replica()];
            let second = books.second_key().await;
            let calls = (0..60).map(|number| {
                let mut new = books.new_hold("0.04");
                if of_account {
                    new.caller.account_limits = limits;
                    if number % 2 == 0 {
                        new.caller.key = second.id;
                    }
                } else {
                    new.caller.limits = limits;
                }
                hold(&replicas[number % 3], new)
            });
            let outcomes = join_all(calls).await;
            let granted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            assert_eq!(granted, 7, "{limits:?} of the account: {of_account}");
            for outcome in outcomes {
                let whose = match outcome {
                    Ok(_) => continue,
                    Err(LedgerError::RateLimited { whose, .. }) => whose,
                    Err(LedgerError::SpendLimited(limit)) => limit.whose,
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(whose == Whose::Account, of_account);
            }
            books.check("100", "0.28").await;
        }
    }
}

#[tokio::test]
async fn who_is_refused_hears_what_is_spent_and_until_when() {
    let books = Books::with("10").await;
    books.clock.advance(TimeDelta::minutes(30));
    let _open = books.place("0.3", per_day("0.5")).await.unwrap();
    let refused = reached(books.place("0.21", per_day("0.5")).await);
    let expected = SpendLimit {
        whose: Whose::Key,
        period: Period::Day,
        limit: usd("0.5"),
        spent: usd("0.3"),
        needed: usd("0.21"),
        resets_at: Utc.with_ymd_and_hms(2026, 11, 21, 0, 0, 0).unwrap(),
        resets_in: Duration::from_mins(11 * 60 + 30),
    };
    assert_eq!(refused, expected);
    let refused = hold(
        &books.ledger,
        books.bound("0.21", per_day("0.5"), per_month("0.4")),
    );
    let refused = reached(refused.await);
    assert_eq!(
        (refused.whose, refused.period, refused.resets_at),
        (
            Whose::Account,
            Period::Month,
            Utc.with_ymd_and_hms(2026, 12, 1, 0, 0, 0).unwrap()
        ),
        "of both that are reached the one that lasts longest"
    );
    books.check("10", "0.3").await;
}

/// Open holds count as a whole, captures with what they took, releases and what is swept not at all.
#[tokio::test]
async fn spending_follows_how_holds_end() {
    let books = Books::with("10").await;
    let limits = per_day("1");
    let captured = books.place("0.6", limits).await.unwrap();
    reached(books.place("0.41", limits).await);
    settle(&books.ledger, &capture(captured, &["0.1", "0.15"]))
        .await
        .unwrap();
    let released = books.place("0.75", limits).await.unwrap();
    assert_eq!(reached(books.place("0.01", limits).await).spent, usd("1"));
    settle(&books.ledger, &release(released)).await.unwrap();
    let dead = books.replica();
    let lost = hold(&dead, books.bound("0.75", limits, per_month("1")));
    let _lost = lost.await.unwrap();
    reached(books.place("0.01", limits).await);
    assert_eq!(books.ledger.sweep_replica(dead.replica).await.unwrap(), 1);
    let again = books.place("0.75", limits).await.unwrap();
    books.check("9.75", "0.75").await;
    settle(&books.ledger, &capture(again, &["0.75"]))
        .await
        .unwrap();
    assert_eq!(reached(books.place("0.01", limits).await).spent, usd("1"));
    books.check("9", "0").await;
}

#[tokio::test]
async fn a_hold_counts_in_the_day_and_month_in_which_it_was_placed() {
    let start = Utc.with_ymd_and_hms(2026, 10, 31, 12, 0, 0).unwrap();
    let books = Books::since(start, "10").await;
    let both = Limits {
        spend_per_day: Some(usd("0.5")),
        spend_per_month: Some(usd("0.8")),
        ..Limits::NONE
    };
    let eve = books.place("0.5", both).await.unwrap();
    reached(books.place("0.1", both).await);
    books.clock.advance(TimeDelta::hours(12));
    let first = books.place("0.5", both).await.unwrap();
    // It ends today and was of yesterday, and of last month.
    settle(&books.ledger, &release(eve)).await.unwrap();
    reached(books.place("0.1", both).await);
    books.check("10", "0.5").await;
    books.clock.advance(TimeDelta::days(1));
    let second = books.place("0.3", both).await.unwrap();
    let refused = reached(books.place("0.1", both).await);
    assert_eq!((refused.period, refused.spent), (Period::Month, usd("0.8")));
    // Yesterday's gives back to the month, and nothing to today.
    settle(&books.ledger, &capture(first, &["0.1"]))
        .await
        .unwrap();
    let third = books.place("0.2", both).await.unwrap();
    let refused = reached(books.place("0.1", both).await);
    assert_eq!((refused.period, refused.spent), (Period::Day, usd("0.5")));
    for open in [second, third] {
        settle(&books.ledger, &release(open)).await.unwrap();
    }
    books.check("9.9", "0").await;
    // The clock goes back over midnight: what was counted since then counts on.
    books.clock.advance(TimeDelta::hours(-1));
    let _open = books.place("0.5", both).await.unwrap();
    books.check("9.9", "0.5").await;
}

/// A limit counts what was spent before there was one, and what others spend who have not heard of it.
#[tokio::test]
async fn a_new_limit_knows_the_past() {
    let books = Books::since(NOON() - TimeDelta::days(1), "10").await;
    let second = books.second_key().await;
    settle(&books.ledger, &capture(books.hold("1").await, &["0.1"]))
        .await
        .unwrap();
    books.clock.advance(TimeDelta::days(1));
    settle(&books.ledger, &capture(books.hold("1").await, &["0.2"]))
        .await
        .unwrap();
    settle(&books.ledger, &release(books.hold("1").await))
        .await
        .unwrap();
    let open = books.hold("0.3").await;
    let mut others = books.new_hold("1");
    others.caller.key = second.id;
    let _others = hold(&books.ledger, others).await.unwrap();
    let mut test = books.new_hold("1");
    test.caller.mode = Mode::Test;
    let _refused = hold(&books.ledger, test).await;

    assert_eq!(
        reached(books.place("0.1", per_day("0.5")).await).spent,
        usd("0.5")
    );
    assert_eq!(
        reached(books.place("0.1", per_month("0.6")).await).spent,
        usd("0.6")
    );
    let refused = hold(
        &books.ledger,
        books.bound("0.1", Limits::NONE, per_month("1.6")),
    );
    assert_eq!(reached(refused.await).spent, usd("1.6"));
    let unaware = hold(&books.replica(), books.new_hold("0.4")).await.unwrap();
    assert_eq!(
        reached(books.place("0.1", per_day("0.5")).await).spent,
        usd("0.9")
    );
    settle(&books.ledger, &release(unaware)).await.unwrap();
    settle(&books.ledger, &release(open)).await.unwrap();
    let _open = books.place("0.3", per_day("0.5")).await.unwrap();
    books.check("9.7", "1.3").await;
}

/// Days that are summed up are read as their sums, each of them once.
#[tokio::test]
async fn a_new_limit_knows_days_that_are_summed_up() {
    let books = Books::since(NOON() - TimeDelta::days(5), "10").await;
    for cost in ["0.1", "0.2", "0.4"] {
        settle(&books.ledger, &capture(books.hold("1").await, &[cost]))
            .await
            .unwrap();
        books.clock.advance(TimeDelta::days(1));
    }
    books.clock.advance(TimeDelta::days(1));
    books.ledger.sum_up_days().await.unwrap();
    settle(&books.ledger, &capture(books.hold("1").await, &["0.8"]))
        .await
        .unwrap();
    let days = books.count("select count(distinct day) from usage_days");
    assert!((1..=3).contains(&days.await));
    assert_eq!(
        reached(books.place("0.1", per_month("1.5")).await).spent,
        usd("1.5")
    );
    books.check("8.5", "0").await;
}

/// Replicas hear of a limit within a second; until then what was asked without it counts, also in the same batch.
#[tokio::test]
async fn who_has_not_heard_of_a_limit_counts_for_who_has() {
    let books = Books::with("10").await;
    let limits = Limits {
        requests_per_minute: Some(2),
        max_in_flight: Some(2),
        ..per_day("1")
    };
    let unaware = books.new_hold("0.6");
    let aware = |amount| books.bound(amount, limits, limits);
    let batch = [unaware, aware("0.41"), aware("0.4"), aware("0.1")];
    let outcomes = books.ledger.hold(&batch).await.unwrap();
    let told: Vec<String> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(hold) => hold.amount.to_string(),
            Err(LedgerError::SpendLimited(limit)) => format!("spent {}", limit.spent),
            Err(LedgerError::RateLimited { what, .. }) => (*what).to_owned(),
            Err(other) => panic!("{other}"),
        })
        .collect();
    let often = "requests per minute";
    assert_eq!(told, ["0.6", "spent 0.6", often, often]);
    books.check("10", "0.6").await;
}

#[tokio::test]
async fn live_and_test_keys_of_an_account_are_limited_apart() {
    let books = Books::with("1").await;
    let mut credit = books.entry("1", None);
    credit.mode = Mode::Test;
    books.ledger.credit(&credit).await.unwrap();
    let limits = Limits {
        requests_per_minute: Some(1),
        images_per_minute: Some(1),
        max_in_flight: Some(1),
        ..per_day("0.1")
    };
    for mode in Mode::ALL {
        let new = || {
            let mut new = books.bound("0.1", Limits::NONE, limits);
            new.caller.mode = mode;
            new
        };
        let _open = hold(&books.ledger, new()).await.unwrap();
        assert!(hold(&books.ledger, new()).await.is_err());
    }
    books.check("1", "0.1").await;
}

#[tokio::test]
async fn what_may_be_spent_leaves_the_cheaper_amounts() {
    let books = Books::with("1").await;
    let mut new = books.bound("0.5", per_day("0.4"), Limits::NONE);
    new.cheaper = vec![usd("0.3"), usd("0.2")];
    let granted = hold(&books.ledger, new.clone()).await.unwrap();
    assert_eq!(granted.amount, usd("0.3"));
    (new.id, new.generation) = (HoldId::new(), GenerationId::new());
    let refused = reached(hold(&books.ledger, new.clone()).await);
    assert_eq!((refused.needed, refused.spent), (usd("0.2"), usd("0.3")));
    // What the balance does not cover is for the balance to say.
    new.cheaper = vec![usd("0.8")];
    new.amount = usd("0.9");
    let refused = hold(&books.ledger, new).await;
    assert!(
        matches!(refused, Err(LedgerError::InsufficientBalance { .. })),
        "{refused:?}"
    );
    books.check("1", "0.3").await;
}

/// A refused request counts against requests per minute and nothing else (design, section 9).
#[tokio::test]
async fn what_is_refused_for_its_price_takes_no_pictures_and_no_place() {
    let books = Books::with("1").await;
    let limits = Limits {
        requests_per_minute: Some(4),
        images_per_minute: Some(1),
        max_in_flight: Some(1),
        ..per_day("0.1")
    };
    for _ in 0..3 {
        reached(books.place("0.2", limits).await);
    }
    let new = books.bound("0.1", limits, Limits::NONE);
    let _open = hold(&books.ledger, new.clone()).await.unwrap();
    let reading = new.gauge.read();
    let level = |limit, remaining, seconds| {
        Some(Level {
            limit,
            remaining,
            reset: Duration::from_secs(seconds),
        })
    };
    assert_eq!(reading.requests, level(4, 0, 60));
    assert_eq!(reading.images, level(1, 0, 60));
    books.check("1", "0.1").await;
}

#[tokio::test]
async fn every_outcome_comes_with_a_reading() {
    let books = Books::with("1").await;
    let limits = Limits {
        requests_per_minute: Some(3),
        images_per_minute: Some(9),
        ..Limits::NONE
    };
    let read = |gauge: &Gauge| {
        let reading = gauge.read();
        let figures = |level: Option<Level>| {
            level.map(|level| (level.limit, level.remaining, level.reset.as_secs()))
        };
        (figures(reading.requests), figures(reading.images))
    };
    let mut dear = books.bound("5", limits, Limits::NONE);
    dear.images = 4;
    let fine = books.bound("0.1", limits, Limits::NONE);
    let mut unlimited = books.new_hold("0.1");
    unlimited.caller.key = books.second_key().await.id;
    let batch = [dear, fine, unlimited];
    drop(books.ledger.hold(&batch).await.unwrap());
    let [dear, fine, unlimited] = batch.map(|new| read(&new.gauge));
    assert_eq!(dear, (Some((3, 2, 60)), Some((9, 9, 0))));
    assert_eq!(fine, (Some((3, 1, 60)), Some((9, 8, 60))));
    assert_eq!(unlimited, (None, None));

    books.clock.advance(TimeDelta::seconds(10));
    let caller = books.bound("1", limits, Limits::NONE).caller;
    let gauge = Gauge::default();
    books.ledger.count_refused(caller, &gauge).await.unwrap();
    assert_eq!(read(&gauge), (Some((3, 0, 60)), Some((9, 8, 50))));
    assert!(books.ledger.count_refused(caller, &gauge).await.is_err());
    assert_eq!(read(&gauge), (Some((3, 0, 60)), Some((9, 8, 50))));

    // Where only pictures are limited, a refused request is not counted, and told how they stand.
    let caller = Caller {
        limits: Limits {
            requests_per_minute: None,
            ..limits
        },
        ..caller
    };
    books.ledger.count_refused(caller, &gauge).await.unwrap();
    assert_eq!(read(&gauge), (None, Some((9, 8, 50))));
}

/// The time is the database's, which replicas share, whatever their own clocks say.
#[tokio::test]
async fn replicas_with_wrong_clocks_count_alike() {
    let books = Books::with("1").await;
    let limits = Limits {
        requests_per_minute: Some(3),
        ..per_day("0.2")
    };
    let ledgers = [-3, 3].map(|hours| {
        let clock = Clock::wrong(TimeDelta::hours(hours));
        Ledger::new(books.database.pool.clone(), clock, ReplicaId::new())
    });
    let outcomes = join_all(ledgers.iter().cycle().take(6).map(|ledger| {
        let new = books.bound("0.1", limits, Limits::NONE);
        hold(ledger, new)
    }));
    let granted = outcomes.await.iter().filter(|one| one.is_ok()).count();
    assert_eq!(granted, 2);
    let apart = books
        .count(
            "select count(*) from holds where created_at not between clock_timestamp() - interval '1 minute'
                 and clock_timestamp()",
        )
        .await;
    assert_eq!(apart, 0);
    assert_eq!(books.ledger.reconcile().await.unwrap(), []);
}
