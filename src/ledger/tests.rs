//! The ledger against a real `PostgreSQL`: every state a hold can reach, and every race for it.

use std::time::Duration;

use chrono::{TimeZone, Utc};

use super::*;
use crate::{
    ids::{AccountId, GenerationId, HoldId, ImageId, RequestId},
    keys::{ApiKey, Keys, Limits, Mode, NewKey, UnsupportedParameters},
    money::NanoUsd,
    postgres::testing::TestDatabase,
};

mod accounts;
mod attempts;
mod batching;
mod claims;
mod delivering;
mod history;
mod holding;
mod interleaving;
mod limiting;
mod open;
mod pruning;
mod reconciling;
mod settling;
mod sweeping;

/// A database with one account that has one live key.
struct Books {
    database: TestDatabase,
    clock: Clock,
    ledger: Ledger,
    account: AccountId,
    key: ApiKey,
}

fn usd(text: &str) -> NanoUsd {
    NanoUsd::parse(text).unwrap()
}

impl Books {
    async fn with(credit: &str) -> Self {
        let start = Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap();
        Self::since(start, credit).await
    }

    async fn since(start: Instant, credit: &str) -> Self {
        let database = TestDatabase::new().await;
        let clock = Clock::manual(start);
        let ledger = Ledger::new(database.pool.clone(), clock.clone(), ReplicaId::new());
        let account = ledger.create_account("acme").await.unwrap().id;
        let key = new_key(&database, &clock, account, Limits::NONE).await;
        let books = Self {
            database,
            clock,
            ledger,
            account,
            key,
        };
        if credit != "0" {
            books.credit(credit).await;
        }
        books
    }

    /// The same database seen by another process.
    fn replica(&self) -> Ledger {
        Ledger::new(
            self.database.pool.clone(),
            self.clock.clone(),
            ReplicaId::new(),
        )
    }

    async fn credit(&self, amount: &str) -> Entry {
        let new = self.entry(amount, None);
        self.ledger.credit(&new).await.unwrap()
    }

    fn entry(&self, amount: &str, reference: Option<&str>) -> NewEntry {
        NewEntry {
            account: self.account,
            mode: Mode::Live,
            amount: usd(amount),
            note: None,
            reference: reference.map(str::to_owned),
        }
    }

    fn new_hold(&self, amount: &str) -> NewHold {
        NewHold {
            id: HoldId::new(),
            generation: GenerationId::new(),
            request: RequestId::new(),
            caller: Caller::from(&self.key),
            model: "openai/dall-e-3".to_owned(),
            images: 1,
            amount: usd(amount),
            cheaper: Vec::new(),
            gauge: Gauge::default(),
            user: None,
            idempotency_key: None,
            request_hash: None,
            retry_count: 0,
            webhook_url: None,
            joins: true,
            only_repeats: false,
        }
    }

    async fn hold(&self, amount: &str) -> Hold {
        hold(&self.ledger, self.new_hold(amount)).await.unwrap()
    }

    /// Asserts what the account has and holds, and that all books add up.
    async fn check(&self, balance: &str, held: &str) {
        let found = self.ledger.balance(self.account, Mode::Live).await.unwrap();
        let expected = Balance {
            balance: usd(balance),
            held: usd(held),
        };
        assert_eq!(found, expected);
        assert_eq!(self.ledger.reconcile().await.unwrap(), []);
    }

    /// Runs statements that the ledger would not.
    async fn tamper(&self, sql: &'static str) {
        sqlx::raw_sql(sql)
            .execute(&self.database.pool)
            .await
            .unwrap();
    }

    /// The only number of a query.
    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }
}

async fn new_key(
    database: &TestDatabase,
    clock: &Clock,
    account: AccountId,
    limits: Limits,
) -> ApiKey {
    let new = NewKey {
        account,
        name: "ci".to_owned(),
        mode: Mode::Live,
        models: None,
        limits,
        allowed_ips: None,
        unsupported_parameters: UnsupportedParameters::Reject,
        expires_at: None,
    };
    Keys::new(database.pool.clone(), clock.clone())
        .create(new)
        .await
        .unwrap()
        .0
}

/// Places one hold, together with those that others want at the same time.
async fn hold(ledger: &Ledger, new: NewHold) -> Result<Hold, LedgerError> {
    ledger.hold_one(&new).await
}

/// Ends one hold, together with those that others end at the same time.
async fn settle(ledger: &Ledger, settlement: &Settlement) -> Result<(), LedgerError> {
    let same = Settlement {
        hold: twin(&settlement.hold),
        ending: settlement.ending.clone(),
        attempts: settlement.attempts.clone(),
        replay: settlement.replay.clone(),
    };
    ledger.settle_one(&Arc::new(same)).await
}

fn picture(index: u8, cost: &str) -> Picture {
    Picture {
        id: ImageId::new(),
        index,
        format: "png".to_owned(),
        width: 1024,
        height: 1024,
        size_bytes: 12_345,
        upstream_cost: usd(cost),
        cost: usd(cost),
        revised_prompt: None,
        kept_for: Duration::from_hours(1),
    }
}

fn capture(hold: Hold, costs: &[&str]) -> Settlement {
    let pictures = (0..).zip(costs).map(|(index, cost)| picture(index, cost));
    Settlement {
        hold,
        ending: Ending::Captured {
            provider: "openai".to_owned(),
            upstream_model: "dall-e-3".to_owned(),
            pictures: pictures.collect(),
            shortfall: None,
            input_tokens: 0,
            output_tokens: 0,
        },
        attempts: vec![attempt(None)],
        replay: Replay::default(),
    }
}

fn capture_drafts(hold: Hold, count: u8, cost: &str) -> Settlement {
    Settlement {
        hold,
        ending: Ending::OnlyDrafts {
            drafts: CapturedDrafts {
                provider: "openai".to_owned(),
                upstream_model: "gpt-image-1".to_owned(),
                count,
                upstream_cost: usd(cost),
                cost: usd(cost),
                output_tokens: u64::from(count) * 100,
            },
            error_code: "moderation_blocked".to_owned(),
            error_message: "the provider refused the content".to_owned(),
        },
        attempts: vec![attempt(Some("content_refused"))],
        replay: Replay::default(),
    }
}

fn release(hold: Hold) -> Settlement {
    Settlement {
        hold,
        ending: Ending::Released {
            error_code: "upstream_error".to_owned(),
            error_message: "the provider failed".to_owned(),
        },
        attempts: vec![attempt(Some("overloaded"))],
        replay: Replay::default(),
    }
}

fn attempt(error: Option<&'static str>) -> Attempt {
    Attempt {
        provider: "openai".to_owned(),
        upstream_model: "dall-e-3".to_owned(),
        started_at: Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap(),
        latency: Duration::from_millis(1234),
        upstream_status: Some(if error.is_some() { 503 } else { 200 }),
        upstream_request_id: Some("req-1".to_owned()),
        error,
        images: u8::from(error.is_none()),
        maybe_charged: false,
    }
}

/// A twin of a hold, as a second process or a repeated call would have it.
fn twin(hold: &Hold) -> Hold {
    Hold {
        id: hold.id,
        generation: hold.generation,
        account: hold.account,
        mode: hold.mode,
        amount: hold.amount,
    }
}

/// Callers run these in tasks of a multi-threaded runtime.
#[tokio::test]
async fn futures_of_the_ledger_can_move_between_threads() {
    fn movable<T: Send>(future: T) -> T {
        future
    }
    let books = Books::with("1").await;
    let new = books.new_hold("0.1");
    let hold = movable(books.ledger.hold_one(&new)).await.unwrap();
    let released = Arc::new(release(hold));
    movable(books.ledger.settle_one(&released)).await.unwrap();
    movable(books.ledger.hold(&[])).await.unwrap();
    movable(books.ledger.settle(&[])).await.unwrap();
    movable(books.ledger.sweep(Duration::ZERO, Duration::MAX))
        .await
        .unwrap();
    movable(books.ledger.heartbeat().beat()).await.unwrap();
    movable(books.ledger.credit(&books.entry("1", None)))
        .await
        .unwrap();
}
