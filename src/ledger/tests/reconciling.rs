//! Reconcile must find what was tampered with, each check its own.

use super::*;

/// Books with one capture of two pictures, one release, one open hold; then tampered with.
async fn check(tampering: &'static str, expected: &[&str]) {
    let books = Books::with("1").await;
    settle(
        &books.ledger,
        &capture(books.hold("0.1").await, &["0.04", "0.03"]),
    )
    .await
    .unwrap();
    settle(&books.ledger, &release(books.hold("0.2").await))
        .await
        .unwrap();
    let _open = books.hold("0.3").await;
    books.check("0.93", "0.3").await;
    books.tamper(tampering).await;
    let found = books.ledger.reconcile().await.unwrap();
    let checks: Vec<_> = found.iter().map(|found| found.check).collect();
    assert_eq!(checks, expected, "{tampering}: {found:#?}");
}

const BALANCE: &str = "a balance is the sum of its entries";
const HELD: &str = "held is the sum of the open holds";
const CHAIN: &str = "each entry follows from the one before";
const CAPTURE: &str = "a captured hold has one charge, the sum of its images or that of its drafts";
const CHARGE: &str = "a charge has a captured hold";
const IMAGE: &str = "an image belongs to a capture";
const STATE: &str = "a generation and its hold are in the same state";

#[tokio::test]
async fn a_changed_balance_is_found() {
    check(
        "update balances set balance_nano_usd = balance_nano_usd + 1",
        &[BALANCE, BALANCE],
    )
    .await;
    check(
        "update balances set held_nano_usd = held_nano_usd - 1 where held_nano_usd > 0",
        &[HELD],
    )
    .await;
    check(
        "update balances set entries = entries + 1 where mode = 'live'",
        &[BALANCE],
    )
    .await;
}

#[tokio::test]
async fn a_changed_entry_is_found() {
    check(
        "alter table ledger_entries disable trigger user;
         update ledger_entries set balance_after_nano_usd = balance_after_nano_usd + 1 where kind = 'charge'",
        &[CHAIN],
    )
    .await;
    check(
        "alter table ledger_entries disable trigger user;
         update ledger_entries set amount_nano_usd = amount_nano_usd - 1 where kind = 'charge'",
        &[BALANCE, CHAIN, CAPTURE],
    )
    .await;
    check(
        "alter table ledger_entries disable trigger user;
         delete from ledger_entries where kind = 'charge'",
        &[BALANCE, CAPTURE],
    )
    .await;
    check(
        "alter table ledger_entries disable trigger user;
         update ledger_entries set sequence = 7 where kind = 'charge'",
        &[BALANCE, CHAIN],
    )
    .await;
}

#[tokio::test]
async fn a_changed_hold_is_found() {
    check(
        "update holds set captured_nano_usd = captured_nano_usd + 1 where status = 'captured'",
        &[CAPTURE],
    )
    .await;
    check(
        "update holds set amount_nano_usd = amount_nano_usd + 1 where status = 'open'",
        &[HELD],
    )
    .await;
    check(
        "update holds set status = 'released', captured_nano_usd = 0 where status = 'captured'",
        &[CHARGE, IMAGE, IMAGE, STATE],
    )
    .await;
    check("delete from holds where status = 'released'", &[STATE]).await;
    check(
        "update holds set mode = 'test' where status = 'released'",
        &[STATE],
    )
    .await;
}

#[tokio::test]
async fn a_changed_billing_record_is_found() {
    check(
        "update images set cost_nano_usd = cost_nano_usd + 1 where position = 0",
        &[CAPTURE],
    )
    .await;
    check("delete from images where position = 0", &[CAPTURE]).await;
    check("delete from images", &[CAPTURE]).await;
    check(
        "update generations set cost_nano_usd = cost_nano_usd + 1 where status = 'completed'",
        &[CAPTURE],
    )
    .await;
    check(
        "update generations set images_delivered = 3 where status = 'completed'",
        &[CAPTURE],
    )
    .await;
    check(
        "update generations set status = 'abandoned' where status = 'failed'",
        &[STATE],
    )
    .await;
}

/// A charge without pictures is for drafts, or it is wrong.
#[tokio::test]
async fn changed_drafts_are_found() {
    for (tampering, expected) in [
        (
            "update generations set status = 'completed', drafts_charged = 0",
            [CAPTURE].as_slice(),
        ),
        (
            "update generations set cost_nano_usd = cost_nano_usd - 1",
            &[CAPTURE],
        ),
        (
            "update holds set captured_nano_usd = captured_nano_usd + 1",
            &[CAPTURE],
        ),
        (
            "update holds set status = 'released', captured_nano_usd = 0",
            &[CHARGE],
        ),
    ] {
        let books = Books::with("1").await;
        let drafts = capture_drafts(books.hold("0.1").await, 2, "0.008");
        settle(&books.ledger, &drafts).await.unwrap();
        books.check("0.992", "0").await;
        books.tamper(tampering).await;
        let found = books.ledger.reconcile().await.unwrap();
        let checks: Vec<_> = found.iter().map(|found| found.check).collect();
        assert_eq!(checks, expected, "{tampering}: {found:#?}");
    }
}
