//! Reconcile must find what was tampered with, each check its own.

use super::*;

/// Books with one capture of two pictures, one release, one open hold; then tampered with.
async fn check(tampering: &'static str, expected: &[&str]) {
    let books = Books::with("1").await;
    let placed = async |amount| {
        let mut new = books.new_hold(amount);
        new.caller.account_limits.spend_per_month = Some(usd("1"));
        hold(&books.ledger, new).await.unwrap()
    };
    settle(
        &books.ledger,
        &capture(placed("0.1").await, &["0.04", "0.03"]),
    )
    .await
    .unwrap();
    settle(&books.ledger, &release(placed("0.2").await))
        .await
        .unwrap();
    let _open = placed("0.3").await;
    books.check("0.93", "0.3").await;
    books.tamper(tampering).await;
    let found = books.ledger.reconcile().await.unwrap();
    let checks: Vec<_> = found.iter().map(|found| found.check).collect();
    assert_eq!(checks, expected, "{tampering}: {found:#?}");
    let last = books.ledger.last_reconciliation().await.unwrap();
    let disagreements = usize::try_from(last.unwrap().disagreements);
    assert_eq!(disagreements.unwrap(), expected.len());
}

/// Whoever asks later is told what was found, and when.
#[tokio::test]
async fn what_was_found_is_remembered() {
    let books = Books::with("1").await;
    let last = async || books.replica().last_reconciliation().await.unwrap();
    assert_eq!(last().await, None);
    books.check("1", "0").await;
    let first = last().await.unwrap();
    assert_eq!(first.disagreements, 0);
    books.check("1", "0").await;
    assert!(last().await.unwrap().finished_at > first.finished_at);
    assert_eq!(books.count("select count(*) from reconciliations").await, 1);
}

const BALANCE: &str = "a balance is the sum of its entries";
const HELD: &str = "held is the sum of the open holds";
const CHAIN: &str = "each entry follows from the one before";
const CAPTURE: &str = "a captured hold has one charge, the sum of its images or that of its drafts";
const CHARGE: &str = "a charge has a captured hold";
const IMAGE: &str = "an image belongs to a capture";
const STATE: &str = "a generation and its hold are in the same state";
const DAY: &str = "a day is the sum of its generations";
const USED: &str = "what was used is what was charged";
const SPENDING: &str = "spending is what holds of its day and month took";

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
        &[BALANCE, CHAIN, CAPTURE, USED],
    )
    .await;
    check(
        "alter table ledger_entries disable trigger user;
         delete from ledger_entries where kind = 'charge'",
        &[BALANCE, CAPTURE, USED],
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
        &[CAPTURE, SPENDING],
    )
    .await;
    check(
        "update holds set amount_nano_usd = amount_nano_usd + 1 where status = 'open'",
        &[HELD, SPENDING],
    )
    .await;
    check(
        "update holds set status = 'released', captured_nano_usd = 0 where status = 'captured'",
        &[CHARGE, IMAGE, IMAGE, STATE, SPENDING],
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
async fn changed_spending_is_found() {
    for tampering in [
        "update spending set day_nano_usd = day_nano_usd + 1",
        "update spending set month_nano_usd = month_nano_usd - 1",
        "update spending set day = day + 1",
        "update spending set month = month - 31, day = day - 31",
        "update holds set created_at = created_at - interval '31 days' where status = 'captured'",
    ] {
        check(tampering, &[SPENDING]).await;
    }
    check("delete from spending", &[]).await;
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
        &[CAPTURE, USED],
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
            &[CAPTURE, USED],
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

#[tokio::test]
async fn a_changed_day_is_found() {
    let day = "insert into usage_days (day, account_id, mode, key_id, model, provider, requests, abandoned, images,
                   cost_nano_usd, upstream_cost_nano_usd)
               select date '2026-11-20', account_id, mode, key_id, model, coalesce(provider, ''), count(*), 0,
                   sum(images_delivered), sum(cost_nano_usd), sum(upstream_cost_nano_usd)
               from generations where status <> 'in_progress' group by 2, 3, 4, 5, 6;
               update usage_horizon set summed_until = date '2026-11-21';";
    // The generation in flight was not waited for.
    check(day.to_owned().leak(), &[DAY]).await;
    let rest = "delete from holds where status = 'open'; delete from generations where status = 'in_progress';
                update balances set held_nano_usd = 0; delete from spending;";
    check(format!("{rest}{day}").leak(), &[]).await;
    let more = "update usage_days set cost_nano_usd = cost_nano_usd + 1 where provider = 'openai'";
    check(format!("{rest}{day}{more}").leak(), &[DAY, USED]).await;
    let fewer = "delete from usage_days where provider = ''";
    check(format!("{rest}{day}{fewer}").leak(), &[DAY]).await;
}
