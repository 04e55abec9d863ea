//! Settlements: what each ending writes, that it happens once, and what a dead replica leaves.

use super::*;

#[tokio::test]
async fn a_capture_charges_what_came_and_returns_the_rest() {
    let books = Books::with("1").await;
    let settlement = capture(books.hold("0.16").await, &["0.04", "0.04", "0.04"]);
    settle(&books.ledger, &settlement).await.unwrap();
    books.check("0.88", "0").await;
    let entries = books
        .ledger
        .entries(books.account, Mode::Live, 10)
        .await
        .unwrap();
    let lines: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry.sequence,
                entry.kind,
                entry.amount.to_string(),
                entry.balance_after,
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            (2, EntryKind::Charge, "-0.12".to_owned(), usd("0.88")),
            (1, EntryKind::Credit, "1".to_owned(), usd("1")),
        ]
    );
}

#[tokio::test]
async fn a_release_returns_everything() {
    let books = Books::with("1").await;
    settle(&books.ledger, &release(books.hold("0.5").await))
        .await
        .unwrap();
    books.check("1", "0").await;
}

#[tokio::test]
async fn a_capture_above_its_hold_is_refused_and_leaves_it_open() {
    let books = Books::with("1").await;
    let held = books.hold("0.04").await;
    let twin = twin(&held);
    let refused = settle(&books.ledger, &capture(held, &["0.03", "0.02"])).await;
    assert!(
        matches!(refused, Err(LedgerError::CaptureAboveHold { .. })),
        "{refused:?}"
    );
    books.check("1", "0.04").await;
    settle(&books.ledger, &capture(twin, &["0.04"]))
        .await
        .unwrap();
    books.check("0.96", "0").await;
}

#[tokio::test]
async fn a_settlement_may_be_repeated() {
    let books = Books::with("1").await;
    let captured = capture(books.hold("0.1").await, &["0.04", "0.03"]);
    let released = release(books.hold("0.2").await);
    for _ in 0..3 {
        settle(&books.ledger, &captured).await.unwrap();
        settle(&books.ledger, &released).await.unwrap();
    }
    books.check("0.93", "0").await;
    assert_eq!(books.count("select count(*) from images").await, 2);
    assert_eq!(books.count("select count(*) from attempts").await, 2);
}

#[tokio::test]
async fn another_settlement_of_an_ended_hold_writes_nothing() {
    let books = Books::with("1").await;
    let held = books.hold("0.1").await;
    let (second, third) = (twin(&held), twin(&held));
    settle(&books.ledger, &capture(held, &["0.04"]))
        .await
        .unwrap();
    for other in [capture(second, &["0.04"]), release(third)] {
        let refused = settle(&books.ledger, &other).await;
        assert!(
            matches!(refused, Err(LedgerError::HoldEnded(_))),
            "{refused:?}"
        );
    }
    books.check("0.96", "0").await;
    assert_eq!(books.count("select count(*) from images").await, 1);
}

#[tokio::test]
async fn of_captures_at_once_one_wins() {
    let books = Books::with("1").await;
    let held = books.hold("0.1").await;
    let captures: Vec<_> = (0..20).map(|_| capture(twin(&held), &["0.04"])).collect();
    let outcomes =
        futures_util::future::join_all(captures.iter().map(|one| settle(&books.ledger, one))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    books.check("0.96", "0").await;
    drop(held);
}

#[tokio::test]
async fn in_a_batch_each_is_settled_on_its_own() {
    let books = Books::with("1").await;
    let held = books.hold("0.1").await;
    let twin = twin(&held);
    let batch = [
        capture(held, &["0.04"]),
        capture(twin, &["0.05"]),
        capture(books.hold("0.01").await, &["0.02"]),
        release(books.hold("0.3").await),
        capture(books.hold("0.2").await, &["0.1", "0.1"]),
    ];
    let outcomes = books.ledger.settle(&batch).await.unwrap();
    assert!(matches!(
        outcomes.as_slice(),
        [
            Ok(()),
            Err(LedgerError::HoldEnded(_)),
            Err(LedgerError::CaptureAboveHold { .. }),
            Ok(()),
            Ok(())
        ]
    ));
    books.check("0.76", "0.01").await;
}

/// Drafts of a stream were delivered, whatever became of their picture.
#[tokio::test]
async fn drafts_without_a_picture_are_charged_once() {
    let books = Books::with("1").await;
    let held = books.hold("0.2").await;
    let (generation, other) = (held.generation, twin(&held));
    let drafts = capture_drafts(held, 3, "0.012");
    for _ in 0..3 {
        settle(&books.ledger, &drafts).await.unwrap();
    }
    for late in [capture(twin(&other), &["0.04"]), release(other)] {
        let refused = settle(&books.ledger, &late).await;
        assert!(matches!(refused, Err(LedgerError::HoldEnded(_))));
    }
    books.check("0.988", "0").await;
    let found = books.ledger.generation(books.account, generation).await;
    let found = found.unwrap().unwrap();
    assert_eq!(found.status, GenerationStatus::Failed);
    assert_eq!(
        (found.cost, found.upstream_cost),
        (usd("0.012"), usd("0.012"))
    );
    assert_eq!((found.input_tokens, found.output_tokens), (0, 300));
    assert_eq!(found.provider.as_deref(), Some("openai"));
    assert_eq!(found.error.unwrap().code, "moderation_blocked");
    assert!(found.images.is_empty());
    assert_eq!(books.ledger.reconcile().await.unwrap(), []);
}

#[tokio::test]
async fn drafts_cost_no_more_than_was_held_and_never_nothing_at_all() {
    let books = Books::with("1").await;
    let held = books.hold("0.01").await;
    let (second, third) = (twin(&held), twin(&held));
    let refused = settle(&books.ledger, &capture_drafts(held, 3, "0.012")).await;
    assert!(matches!(refused, Err(LedgerError::CaptureAboveHold { .. })));
    let refused = settle(&books.ledger, &capture_drafts(second, 0, "0.01")).await;
    assert!(matches!(refused, Err(LedgerError::Inconsistent(_))));
    books.check("1", "0.01").await;
    settle(&books.ledger, &capture_drafts(third, 2, "0.008"))
        .await
        .unwrap();
    books.check("0.992", "0").await;
}
