//! Listing calls to providers.

use chrono::TimeDelta;

use super::*;

#[tokio::test]
async fn calls_are_listed_newest_first_under_every_filter() {
    let books = Books::with("1").await;
    let since = books.clock.now();
    let first = books.hold("0.1").await;
    let first_id = first.generation;
    let mut settlement = capture(first, &["0.04"]);
    settlement.attempts.insert(0, attempt(Some("overloaded")));
    settlement.attempts[0].provider = "reseller".to_owned();
    settlement.attempts[0].maybe_charged = true;
    settle(&books.ledger, &settlement).await.unwrap();
    books.clock.advance(TimeDelta::hours(1));
    let later = books.clock.now();
    let second = books.hold("0.1").await;
    let second_id = second.generation;
    settle(&books.ledger, &capture(second, &["0.04"]))
        .await
        .unwrap();

    let list = async |filter: &AttemptFilter, limit| {
        let found = books.ledger.attempts(filter, limit).await.unwrap();
        found
            .iter()
            .map(|listed| (listed.generation, listed.attempt.number))
            .collect::<Vec<_>>()
    };
    let of_usage = |usage| AttemptFilter {
        usage,
        ..AttemptFilter::default()
    };
    let all = [(second_id, 1), (first_id, 2), (first_id, 1)];
    assert_eq!(list(&AttemptFilter::default(), 10).await, all);
    assert_eq!(list(&AttemptFilter::default(), 2).await, all[..2]);
    for (filter, expected) in [
        (
            AttemptFilter {
                generation: Some(first_id),
                ..AttemptFilter::default()
            },
            &all[1..],
        ),
        (
            AttemptFilter {
                provider: Some("reseller".to_owned()),
                ..AttemptFilter::default()
            },
            &all[2..],
        ),
        (
            of_usage(UsageFilter {
                since: Some(later),
                ..UsageFilter::default()
            }),
            &all[..1],
        ),
        (
            of_usage(UsageFilter {
                since: Some(since),
                until: Some(later),
                ..UsageFilter::default()
            }),
            &all[1..],
        ),
        (
            of_usage(UsageFilter {
                account: Some(books.account),
                key: Some(books.key.id),
                model: Some("openai/dall-e-3".to_owned()),
                mode: Some(Mode::Live),
                ..UsageFilter::default()
            }),
            &all[..],
        ),
        (
            of_usage(UsageFilter {
                account: Some(AccountId::new()),
                ..UsageFilter::default()
            }),
            &[],
        ),
        (
            of_usage(UsageFilter {
                key: Some(crate::ids::KeyId::new()),
                ..UsageFilter::default()
            }),
            &[],
        ),
        (
            of_usage(UsageFilter {
                model: Some("openai/dall-e-2".to_owned()),
                ..UsageFilter::default()
            }),
            &[],
        ),
        (
            of_usage(UsageFilter {
                mode: Some(Mode::Test),
                ..UsageFilter::default()
            }),
            &[],
        ),
    ] {
        assert_eq!(list(&filter, 10).await, expected, "{filter:?}");
    }

    let found = books.ledger.attempts(&AttemptFilter::default(), 10).await;
    let failed = found.unwrap().pop().unwrap();
    assert_eq!(
        (failed.account, failed.key, failed.mode),
        (books.account, books.key.id, Mode::Live)
    );
    assert_eq!(
        (&*failed.model, failed.accepted_at),
        ("openai/dall-e-3", since)
    );
    assert_eq!(failed.attempt.error.as_deref(), Some("overloaded"));
    assert_eq!(failed.attempt.upstream_status, Some(503));
    assert_eq!(failed.attempt.latency, Duration::from_millis(1234));
    assert!(failed.attempt.maybe_charged);
}
