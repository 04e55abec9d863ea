//! Summing up days and pruning them: no balance and no sum may change, whatever goes on beside it.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "the model counts a few thousand nano-USD"
)]

use chrono::TimeDelta;
use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::ledger::prune::{Line, fold};

const DAY: TimeDelta = TimeDelta::days(1);
const WEEK: Duration = SHORTEST_RETENTION;

/// A day of three requests: two pictures, none, and one more.
async fn day_of_work(books: &Books) {
    for costs in [&["0.04", "0.03"][..], &[], &["0.02"]] {
        let hold = books.hold("0.1").await;
        let settlement = if costs.is_empty() {
            release(hold)
        } else {
            capture(hold, costs)
        };
        settle(&books.ledger, &settlement).await.unwrap();
    }
}

/// All that can be asked of usage, over all time.
async fn sums(ledger: &Ledger) -> Vec<UsageSum> {
    let all = UsageFilter::default();
    let groups = UsageGroup::ALL;
    ledger.usage_by(&groups, &all, None).await.unwrap()
}

async fn kinds(books: &Books) -> Vec<(i64, EntryKind, i64, String)> {
    let entries = books.ledger.entries(books.account, Mode::Live, 100).await;
    let entries = entries.unwrap().into_iter().rev();
    entries
        .map(|entry| {
            (
                entry.sequence,
                entry.kind,
                entry.lines,
                entry.amount.to_string(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_day_is_summed_up_when_it_is_over_and_nothing_of_it_runs() {
    let books = Books::with("1").await;
    day_of_work(&books).await;
    let late = books.hold("0.1").await;
    let before = sums(&books.ledger).await;
    let days = async || {
        books
            .count("select count(distinct day) from usage_days")
            .await
    };

    // It is noon; the day ends in 12 h, and a day later clocks cannot matter any more.
    books.clock.advance(TimeDelta::hours(35));
    books.ledger.sum_up_days().await.unwrap();
    assert_eq!(days().await, 0);
    books.clock.advance(TimeDelta::hours(1));
    books.ledger.sum_up_days().await.unwrap();
    assert_eq!(days().await, 0, "a request is in flight");
    settle(&books.ledger, &release(late)).await.unwrap();
    books.ledger.sum_up_days().await.unwrap();
    assert_eq!(days().await, 1);
    assert_eq!(sums(&books.ledger).await, before);
    assert_eq!(books.ledger.sum_up_days().await.unwrap(), 0);
    books.check("0.91", "0").await;

    // Part of a summed-up day is still counted request by request.
    let noon = Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap();
    let requests = async |since, until| {
        let filter = UsageFilter {
            since,
            until,
            ..UsageFilter::default()
        };
        let sums = books.ledger.usage_by(&[], &filter, None).await.unwrap();
        sums.first().map_or(0, |sum| sum.requests)
    };
    assert_eq!(requests(Some(noon), None).await, 4);
    assert_eq!(requests(Some(noon + TimeDelta::seconds(1)), None).await, 0);
    assert_eq!(requests(None, Some(noon)).await, 0);
    assert_eq!(requests(None, Some(noon + TimeDelta::seconds(1))).await, 4);
}

#[tokio::test]
async fn replicas_sum_up_each_day_once() {
    let books = Books::with("5").await;
    for _ in 0..5 {
        day_of_work(&books).await;
        books.clock.advance(DAY);
    }
    let before = sums(&books.ledger).await;
    books.clock.advance(DAY);
    let mut replicas = JoinSet::new();
    for _ in 0..6 {
        let ledger = books.replica();
        replicas.spawn(async move { ledger.sum_up_days().await.unwrap() });
    }
    let summed: u32 = replicas.join_all().await.into_iter().sum();
    books.ledger.sum_up_days().await.unwrap();
    assert!(summed >= 1);
    assert_eq!(
        books
            .count("select count(distinct day) from usage_days")
            .await,
        5
    );
    assert_eq!(sums(&books.ledger).await, before);
    books.check("4.55", "0").await;
}

#[tokio::test]
async fn pruning_changes_no_balance_and_no_sum() {
    let books = Books::with("1").await;
    day_of_work(&books).await;
    let booked = books
        .ledger
        .credit(&books.entry("2", Some("inv-1")))
        .await
        .unwrap();
    day_of_work(&books).await;
    books.clock.advance(DAY * 10);
    day_of_work(&books).await;
    let (before, pages) = (sums(&books.ledger).await, kinds(&books).await);
    assert_eq!(pages.len(), 8);

    let too_soon = books.ledger.prune(Duration::from_hours(7 * 24 - 1)).await;
    assert!(
        matches!(too_soon, Err(LedgerError::RetentionTooShort(_))),
        "{too_soon:?}"
    );
    let pruned = books.ledger.prune(WEEK).await.unwrap();
    assert_eq!((pruned.generations, pruned.charges), (6, 4));
    assert_eq!(pruned.before.to_string(), "2026-11-23");
    assert_eq!(sums(&books.ledger).await, before);
    books.check("2.73", "0").await;
    let line = |sequence, kind, lines, amount: &str| (sequence, kind, lines, amount.to_owned());
    let expected = [
        line(1, EntryKind::Credit, 1, "1"),
        line(3, EntryKind::Charges, 2, "-0.09"),
        line(4, EntryKind::Credit, 1, "2"),
        line(6, EntryKind::Charges, 2, "-0.09"),
        line(7, EntryKind::Charge, 1, "-0.07"),
        line(8, EntryKind::Charge, 1, "-0.02"),
    ];
    assert_eq!(kinds(&books).await, expected);
    for table in ["generations", "holds", "attempts"] {
        let count: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
                .fetch_one(&books.database.pool)
                .await
                .unwrap();
        assert_eq!(count, 3, "{table}");
    }
    assert_eq!(books.count("select count(*) from images").await, 3);

    // The reference is still known, the next booking still follows, and there is nothing left to prune.
    let again = books.ledger.credit(&books.entry("2", Some("inv-1"))).await;
    assert_eq!(again.unwrap(), booked);
    books.credit("1").await;
    let again = books.ledger.prune(WEEK).await.unwrap();
    assert_eq!((again.generations, again.charges), (0, 0));
    books.check("3.73", "0").await;

    // Later the old line and the newer charges are one run, the credit behind them another.
    books.clock.advance(DAY * 10);
    let last = books.ledger.prune(WEEK).await.unwrap();
    assert_eq!((last.generations, last.charges), (3, 2));
    assert_eq!(sums(&books.ledger).await, before);
    assert_eq!(
        kinds(&books).await[3..],
        [
            line(8, EntryKind::Charges, 4, "-0.18"),
            line(9, EntryKind::Credit, 1, "1")
        ]
    );
    books.check("3.73", "0").await;
}

#[tokio::test]
async fn what_runs_or_was_charged_later_stays() {
    let books = Books::with("1").await;
    let (running, late) = (books.hold("0.1").await, books.hold("0.1").await);
    books.clock.advance(DAY * 8);
    settle(&books.ledger, &capture(late, &["0.04"]))
        .await
        .unwrap();
    books.clock.advance(DAY);
    let pruned = books.ledger.prune(WEEK).await.unwrap();
    // Its day cannot be summed up while a request of it runs.
    assert_eq!((pruned.generations, pruned.charges), (0, 0));
    books.check("0.96", "0.1").await;
    settle(&books.ledger, &release(running)).await.unwrap();
    let pruned = books.ledger.prune(WEEK).await.unwrap();
    assert_eq!((pruned.generations, pruned.charges), (0, 0));
    books.clock.advance(DAY * 8);
    let pruned = books.ledger.prune(WEEK).await.unwrap();
    assert_eq!((pruned.generations, pruned.charges), (2, 1));
    books.check("0.96", "0").await;
}

#[tokio::test]
async fn more_lines_than_one_transaction_takes_become_one() {
    let books = Books::with("10").await;
    let mut work = JoinSet::new();
    for _ in 0..1234 {
        let (ledger, new) = (books.ledger.clone(), books.new_hold("0.001"));
        work.spawn(async move {
            let hold = ledger.hold_one(&new).await.unwrap();
            let settlement = capture(hold, &["0.001"]);
            ledger.settle_one(&Arc::new(settlement)).await.unwrap();
        });
    }
    work.join_all().await;
    books.clock.advance(DAY * 9);
    let pruned = books.ledger.prune(WEEK).await.unwrap();
    assert_eq!((pruned.generations, pruned.charges), (1234, 1234));
    assert_eq!(
        kinds(&books).await[1..],
        [(1235, EntryKind::Charges, 1234, "-1.234".to_owned())]
    );
    books.check("8.766", "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_while_it_is_pruned() {
    let books = Books::with("10").await;
    for _ in 0..4 {
        day_of_work(&books).await;
        books.clock.advance(DAY);
    }
    books.clock.advance(DAY * 8);
    let before = sums(&books.ledger).await;
    let mut work = JoinSet::new();
    for _ in 0..40 {
        let (ledger, new) = (books.replica(), books.new_hold("0.1"));
        work.spawn(async move {
            let hold = ledger.hold_one(&new).await.unwrap();
            ledger
                .settle_one(&Arc::new(capture(hold, &["0.04"])))
                .await
                .unwrap();
        });
    }
    let mut pruners = JoinSet::new();
    for _ in 0..3 {
        let ledger = books.replica();
        pruners.spawn(async move { ledger.prune(WEEK).await.unwrap() });
    }
    let pruned = pruners.join_all().await;
    work.join_all().await;
    assert_eq!(pruned.iter().map(|one| one.charges).sum::<u64>(), 8);
    assert_eq!(pruned.iter().map(|one| one.generations).sum::<u64>(), 12);
    let old = UsageFilter {
        until: Some(Utc.with_ymd_and_hms(2026, 11, 24, 0, 0, 0).unwrap()),
        ..UsageFilter::default()
    };
    let after = books.ledger.usage_by(&UsageGroup::ALL, &old, None).await;
    assert_eq!(after.unwrap(), before);
    books.check("8.04", "0").await;
}

#[tokio::test]
async fn entries_go_only_where_pruning_says_so() {
    let books = Books::with("1").await;
    day_of_work(&books).await;
    for sql in [
        "delete from ledger_entries where kind = 'charge'",
        "set easel.pruning = 'on'; delete from ledger_entries where kind = 'credit'",
        "set easel.pruning = 'on'; update ledger_entries set lines = 1",
        "truncate ledger_entries",
    ] {
        let refused = sqlx::raw_sql(sql).execute(&books.database.pool).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
}

proptest! {
    #[test]
    fn folding_keeps_sum_and_chain(kinds in proptest::collection::vec((0_u8..3, 1_i64..5, 1_i64..1000), 0..30)) {
        let (mut sequence, mut balance) = (0, 1_000_000);
        let lines: Vec<Line> = kinds.into_iter().map(|(kind, lines, amount)| {
            let (kind, lines, amount) = match kind {
                0 => (EntryKind::Credit, 1, amount),
                1 => (EntryKind::Charge, 1, -amount),
                _ => (EntryKind::Charges, lines, -amount),
            };
            sequence += lines;
            balance += amount;
            Line {
                sequence,
                kind,
                amount: NanoUsd::from_nano(amount),
                balance_after: NanoUsd::from_nano(balance),
                lines,
                generation: (kind == EntryKind::Charge).then(GenerationId::new),
                created_at: Utc.timestamp_opt(sequence, 0).unwrap(),
            }
        }).collect();
        let charges = lines.iter().filter(|line| line.kind == EntryKind::Charge).count();
        let folds = fold(lines.clone()).unwrap();
        prop_assert_eq!(folds.iter().map(|fold| fold.generations.len()).sum::<usize>(), charges);
        let gone = |sequence: i64| folds.iter().any(|fold| fold.replaced.contains(&sequence));
        let mut after: Vec<Line> = lines.into_iter().filter(|line| !gone(line.sequence)).collect();
        prop_assert!(after.iter().all(|line| line.kind != EntryKind::Charge));
        after.extend(folds.into_iter().map(|fold| fold.line));
        after.sort_by_key(|line| line.sequence);
        let (mut number, mut total) = (0, 1_000_000);
        for line in after {
            number += line.lines;
            total += line.amount.nano();
            prop_assert_eq!((line.sequence, line.balance_after.nano()), (number, total));
        }
    }
}
