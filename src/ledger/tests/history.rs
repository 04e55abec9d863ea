//! Reading what became of generations, and the sums.

use chrono::TimeDelta;

use super::*;

#[tokio::test]
async fn a_generation_tells_everything_but_only_to_its_account() {
    let books = Books::with("1").await;
    let mut new = books.new_hold("0.2");
    new.images = 3;
    new.user = Some("ada".to_owned());
    new.idempotency_key = Some("once".to_owned());
    let held = hold(&books.ledger, new.clone()).await.unwrap();
    let read = async |account| {
        let found = books.ledger.generation(account, new.generation).await;
        found.unwrap()
    };
    let running = read(books.account).await.unwrap();
    assert_eq!(running.status, GenerationStatus::InProgress);
    assert_eq!(
        (running.request, running.key),
        (new.request, new.caller.key)
    );
    assert_eq!((running.images_asked, running.cost), (3, NanoUsd::ZERO));
    assert_eq!((running.finished_at, &running.error), (None, &None));
    assert_eq!(read(AccountId::new()).await, None);

    books.clock.advance(TimeDelta::seconds(12));
    let mut settlement = capture(held, &["0.04", "0.05"]);
    if let Ending::Captured {
        shortfall,
        pictures,
        input_tokens,
        output_tokens,
        ..
    } = &mut settlement.ending
    {
        *shortfall = Some((
            "content_policy_violation".to_owned(),
            "one was held back".to_owned(),
        ));
        pictures[1].index = 2;
        pictures[1].revised_prompt = Some("a b\0c".to_owned());
        (*input_tokens, *output_tokens) = (50, 4160);
    }
    settlement.attempts.insert(0, attempt(Some("rate_limited")));
    settle(&books.ledger, &settlement).await.unwrap();

    let done = read(books.account).await.unwrap();
    assert_eq!(done.status, GenerationStatus::Completed);
    assert_eq!((done.cost, done.upstream_cost), (usd("0.09"), usd("0.09")));
    assert_eq!(
        done.finished_at,
        Some(done.created_at + TimeDelta::seconds(12))
    );
    assert_eq!((done.input_tokens, done.output_tokens), (50, 4160));
    assert_eq!(done.error.unwrap().code, "content_policy_violation");
    assert_eq!(done.provider.as_deref(), Some("openai"));
    let images: Vec<_> = done
        .images
        .iter()
        .map(|image| {
            (
                image.index,
                image.cost,
                image.width,
                image.revised_prompt.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        images,
        [
            (0, usd("0.04"), 1024, None),
            (2, usd("0.05"), 1024, Some("a bc"))
        ]
    );
    assert_eq!(
        done.images[0].expires_at,
        done.finished_at.unwrap() + TimeDelta::hours(1)
    );
    let attempts: Vec<_> = done
        .attempts
        .iter()
        .map(|attempt| {
            (
                attempt.number,
                attempt.error.as_deref(),
                attempt.upstream_status,
                attempt.images,
            )
        })
        .collect();
    assert_eq!(
        attempts,
        [
            (1, Some("rate_limited"), Some(503), 0),
            (2, None, Some(200), 1)
        ]
    );
}

#[tokio::test]
async fn generations_are_listed_newest_first_in_pages() {
    let books = Books::with("1").await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let mut new = books.new_hold("0.01");
        new.user = (number % 2 == 0).then(|| "ada".to_owned());
        new.idempotency_key = (number == 3).then(|| "once".to_owned());
        ids.insert(0, new.generation);
        let _open = hold(&books.ledger, new).await.unwrap();
    }
    let list = async |filter: GenerationFilter, limit| {
        let found = books
            .ledger
            .generations(books.account, &filter, limit)
            .await;
        found
            .unwrap()
            .iter()
            .map(|found| found.id)
            .collect::<Vec<_>>()
    };
    let all = GenerationFilter::default();
    assert_eq!(list(all.clone(), 100).await, ids);
    assert_eq!(list(all.clone(), 2).await, ids[..2]);
    let mut next = all.clone();
    next.after = Some(ids[1]);
    assert_eq!(list(next, 2).await, ids[2..4]);
    let mut ada = all.clone();
    ada.user = Some("ada".to_owned());
    assert_eq!(list(ada.clone(), 9).await, [ids[0], ids[2], ids[4]]);
    ada.idempotency_key = Some("once".to_owned());
    assert_eq!(list(ada, 9).await, []);
    let mut once = all.clone();
    once.idempotency_key = Some("once".to_owned());
    assert_eq!(list(once.clone(), 9).await, [ids[1]]);
    once.mode = Some(Mode::Test);
    assert_eq!(list(once, 9).await, []);
}

#[tokio::test]
async fn usage_adds_up_by_every_group_and_filter() {
    let books = Books::with("10").await;
    let other = new_key(&books.database, &books.clock, books.account, Limits::NONE).await;
    for (day, key, model, costs) in [
        (0, books.key.id, "openai/dall-e-3", &["0.04", "0.04"][..]),
        (0, other.id, "openai/dall-e-2", &["0.02"]),
        (1, books.key.id, "openai/dall-e-3", &[]),
    ] {
        books.clock.advance(TimeDelta::days(day));
        let mut new = books.new_hold("1");
        (new.caller.key, new.model) = (key, model.to_owned());
        let held = hold(&books.ledger, new).await.unwrap();
        let settlement = if costs.is_empty() {
            release(held)
        } else {
            capture(held, costs)
        };
        settle(&books.ledger, &settlement).await.unwrap();
    }
    let check = async |group, filter: UsageFilter, expected: &[(Option<&str>, u64, u64, &str)]| {
        let rows = books.ledger.usage(group, &filter).await.unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.group.as_deref(), row.requests, row.images, row.cost))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(group, requests, images, cost)| (group, requests, images, usd(cost)))
            .collect();
        assert_eq!(found, expected, "{group} {filter:?}");
    };
    let all = UsageFilter::default();
    let (first, second) = (books.key.id.to_string(), other.id.to_string());
    let account = books.account.to_string();
    let day = Utc.with_ymd_and_hms(2026, 11, 21, 0, 0, 0).unwrap();
    check(
        UsageGroup::Day,
        all.clone(),
        &[
            (Some("2026-11-20"), 2, 3, "0.1"),
            (Some("2026-11-21"), 1, 0, "0"),
        ],
    )
    .await;
    check(
        UsageGroup::Model,
        all.clone(),
        &[
            (Some("openai/dall-e-2"), 1, 1, "0.02"),
            (Some("openai/dall-e-3"), 2, 2, "0.08"),
        ],
    )
    .await;
    check(
        UsageGroup::Provider,
        all.clone(),
        &[(Some("openai"), 2, 3, "0.1"), (None, 1, 0, "0")],
    )
    .await;
    check(
        UsageGroup::Key,
        all.clone(),
        &[(Some(&first), 2, 2, "0.08"), (Some(&second), 1, 1, "0.02")],
    )
    .await;
    check(
        UsageGroup::Account,
        UsageFilter {
            account: Some(books.account),
            mode: Some(Mode::Live),
            until: Some(day),
            ..all.clone()
        },
        &[(Some(&account), 2, 3, "0.1")],
    )
    .await;
    check(
        UsageGroup::Account,
        UsageFilter {
            since: Some(day),
            ..all.clone()
        },
        &[(Some(&account), 1, 0, "0")],
    )
    .await;
    check(
        UsageGroup::Day,
        UsageFilter {
            key: Some(other.id),
            model: Some("openai/dall-e-2".to_owned()),
            ..all.clone()
        },
        &[(Some("2026-11-20"), 1, 1, "0.02")],
    )
    .await;
    check(
        UsageGroup::Day,
        UsageFilter {
            mode: Some(Mode::Test),
            ..all
        },
        &[],
    )
    .await;
}

/// One picture that a provider told fairy tales of must not hide what all the others cost.
#[tokio::test]
async fn usage_beyond_what_can_be_counted_is_shown_all_the_same() {
    let books = Books::with("1").await;
    for _ in 0..2 {
        let mut settlement = capture(books.hold("0.1").await, &["0.04"]);
        if let Ending::Captured { pictures, .. } = &mut settlement.ending {
            pictures[0].upstream_cost = NanoUsd::from_nano(i64::MAX);
        }
        settle(&books.ledger, &settlement).await.unwrap();
    }
    let rows = books
        .ledger
        .usage(UsageGroup::Model, &UsageFilter::default())
        .await
        .unwrap();
    let sums: Vec<_> = rows
        .iter()
        .map(|row| (row.cost, row.upstream_cost))
        .collect();
    assert_eq!(sums, [(usd("0.08"), NanoUsd::from_nano(i64::MAX))]);
    books.check("0.92", "0").await;
}

#[tokio::test]
async fn the_views_for_people_can_be_read() {
    let books = Books::with("1").await;
    settle(&books.ledger, &capture(books.hold("0.1").await, &["0.04"]))
        .await
        .unwrap();
    for (sql, expected) in [
        (
            "select balance_usd::text from accounts_usd where mode = 'live'",
            "0.960000000",
        ),
        (
            "select amount_usd::text from ledger_entries_usd where kind = 'charge'",
            "-0.040000000",
        ),
        ("select hold_usd::text from generations_usd", "0.100000000"),
        ("select trim_scale(cost_usd)::text from usage_usd", "0.04"),
    ] {
        let found: String = sqlx::query_scalar(sql)
            .fetch_one(&books.database.pool)
            .await
            .unwrap();
        assert_eq!(found, expected, "{sql}");
    }
}
