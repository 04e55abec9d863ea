//! A database that goes away: it costs errors and time, and no money. What was painted meanwhile is charged once
//! when it is back.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::support::{App, Behaviour, Key, until, usd};

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "the ledger that fell into the sea";
/// What one picture costs: 0.016 USD.
const PRICE: i64 = 16_000_000;
const NONE_REPEATED: &str = "easel_settlements_repeated_total 0";
const REPEATED: &str = "a settlement did not get through and is repeated";

fn order(response_format: &str) -> Value {
    json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "response_format": response_format})
}

/// Asked for under a name, for links.
fn named(app: &App, key: &Key) -> RequestBuilder {
    let request = app.client.request(Method::POST, GENERATIONS);
    with_body(request, key, &order("url")).header("idempotency-key", "once")
}

/// Asked for as an SDK does, for base64, which is on its way before it is settled.
fn relayed(app: &App, key: &Key, retry_count: u16) -> RequestBuilder {
    asked_as_sdk(
        app.client.request(Method::POST, GENERATIONS),
        key,
        retry_count,
    )
}

fn asked_as_sdk(request: RequestBuilder, key: &Key, retry_count: u16) -> RequestBuilder {
    with_body(request, key, &order("b64_json"))
        .header("x-stainless-retry-count", retry_count.to_string())
}

fn with_body(request: RequestBuilder, key: &Key, body: &Value) -> RequestBuilder {
    request
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(body.to_string())
}

/// The database goes away when the provider has been called so often, so that the holds are committed and the
/// settlements cannot be.
async fn away_before_settling(app: &App, gate: &Semaphore, calls: usize) {
    app.openai.wait_for_calls(calls).await;
    app.proxy().close();
    gate.add_permits(calls);
}

async fn wait_until_repeated(app: &App) {
    until("a settlement is repeated", async || {
        app.easel.stderr().contains(REPEATED)
    })
    .await;
}

/// It is back in time: the client notices nothing but the time it took.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_waits_for_its_settlement() {
    let app = App::builder().await.with_proxy().start().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let outage = async {
        away_before_settling(&app, &gate, 1).await;
        wait_until_repeated(&app).await;
        assert_eq!(app.charges().await, 0);
        // While it lasts, or an alert would come when it is over.
        assert!(!app.figures().await.contains(NONE_REPEATED));
        sleep(Duration::from_secs(1)).await;
        app.proxy().open();
    };
    let (answer, ()) = tokio::join!(app.client.send(named(&app, &key)), outage);
    assert_eq!(answer.expect(200).json()["usage"]["cost"], usd(PRICE));
    assert_eq!(app.charges().await, 1);
    let log = app.easel.stderr();
    assert!(log.contains("a repeated settlement got through"), "{log}");
    let metrics = app.figures().await;
    assert!(!metrics.contains(NONE_REPEATED), "{metrics}");
    assert_eq!(app.balance(&key).await, usd(1_000_000_000 - PRICE));
    app.finish().await;
}

/// It is not: the client is told not to ask again, or sees its answer break off, and what was painted is charged
/// once, and there for it, when the database is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_is_kept_longer_than_its_answer() {
    let app = App::builder().await.with_proxy().start().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let (answer, broken, ()) = tokio::join!(
        app.client.send(named(&app, &key)),
        app.client.try_send(relayed(&app, &key, 0)),
        away_before_settling(&app, &gate, 2)
    );
    let problem = answer.clone().expect(503).problem();
    assert_eq!(problem.code(), "settlement_pending");
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(answer.find_header("retry-after").is_none());
    assert!(broken.is_err(), "no price, no end of the answer");
    let open = "select count(*) from holds where status = 'open'";
    assert_eq!(app.database.number(open).await, 2, "they are kept");
    assert_eq!(app.charges().await, 0);

    app.proxy().open();
    until("both are charged", async || app.charges().await == 2).await;
    let again = app.client.send(named(&app, &key)).await.expect(200);
    let other = app.client.send(relayed(&app, &key, 1)).await.expect(200);
    assert!(
        !app.open_link(&again.link(0))
            .await
            .expect(200)
            .bytes
            .is_empty()
    );
    assert!(!other.picture(0).is_empty());
    for replayed in [&again, &other] {
        assert_eq!(replayed.header("idempotent-replayed"), "true");
        let id = replayed.header("x-generation-id");
        let seen = app.get(&key, &format!("{GENERATIONS}/{id}")).await;
        assert_eq!(seen.expect(200).json()["status"], "completed");
    }
    assert_eq!(app.charges().await, 2);
    assert_eq!(app.openai.calls().len(), 2);
    assert_eq!(app.balance(&key).await, usd(1_000_000_000 - 2 * PRICE));
    app.finish().await;
}

/// A request that is stuck before the database is overtaken by its repeat. When it gets through, its client has left
/// it long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_its_repeat_has_overtaken_is_not_charged() {
    let app = App::builder().await.with_proxy().start().await;
    let direct = [("EASEL__DATABASE__URL", app.database.url())];
    let second = app.start_replica_with(&direct).await;
    let key = app.live_key("1");
    // From now on, for a moment, the key is known without the database.
    app.get(&key, "/v1/models").await.expect(200);
    app.proxy().stand_still();
    let stuck = relayed(&app, &key, 0);
    let left = timeout(Duration::from_millis(500), app.client.try_send(stuck)).await;
    assert!(left.is_err(), "there was no answer");
    let elsewhere = second.client.request(Method::POST, GENERATIONS);
    let elsewhere = asked_as_sdk(elsewhere, &key, 1);
    second.client.send(elsewhere).await.expect(200);
    app.proxy().open();
    // What got stuck is over when what comes behind it is.
    app.generate(&key, &order("url")).await.expect(200);
    app.wait_until_settled().await;
    assert_eq!(app.charges().await, 2);
    assert_eq!(app.openai.calls().len(), 2);
    second.stop().await;
    app.finish().await;
}

/// Nobody paints without a hold, and nobody pays for one that could not be had.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_nothing_is_begun() {
    let app = App::builder().await.with_proxy().start().await;
    let key = app.live_key("1");
    app.generate(&key, &order("url")).await.expect(200);
    app.proxy().close();
    let answer = app.generate(&key, &order("url")).await;
    let problem = answer.clone().expect(503).problem();
    assert_eq!(problem.code(), "database_unavailable");
    assert_eq!(answer.header("x-should-retry"), "true");
    app.proxy().open();
    assert_eq!(app.openai.calls().len(), 1);
    until("it is ready again", async || {
        app.client.get("/readyz", None).await.status == 200
    })
    .await;
    // Others of its connections may find out only now that they are broken.
    until("it serves again", async || {
        app.get(&key, "/v1/credits").await.status == 200
    })
    .await;
    assert_eq!(app.balance(&key).await, usd(1_000_000_000 - PRICE));
    app.finish().await;
}

/// `PostgreSQL` crashes and comes back under forty generations in flight: each of them is answered and charged.
/// What comes while it is away gets an error, or an answer that was charged.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_under_load_costs_no_money() {
    let mut app = App::builder().await.with_cluster().start().await;
    let key = app.live_key("10");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_secs(2)));
    let mut cluster = app.take_cluster();
    let (before, during) = (40, 20);
    let (relayed, hosted) = (order("b64_json"), order("url"));
    let in_flight = join_all((0..before).map(|_| app.generate(&key, &relayed)));
    let crash = async {
        app.openai.wait_for_calls(before).await;
        cluster.crash();
        let late = join_all((0..during).map(|_| app.generate(&key, &hosted)));
        let back = async {
            sleep(Duration::from_secs(1)).await;
            cluster.restart().await;
        };
        tokio::join!(late, back).0
    };
    let (answers, late) = tokio::join!(in_flight, crash);
    for answer in &answers {
        answer.clone().expect(200);
    }
    let mut charged = i64::try_from(answers.len()).unwrap();
    for answer in late {
        match answer.status {
            200 => charged += 1,
            _ => assert_eq!(answer.expect(503).header("x-should-retry"), "true"),
        }
    }
    assert_eq!(app.charges().await, charged);
    assert_eq!(
        app.balance(&key).await,
        usd(10_000_000_000 - charged * PRICE)
    );
    app.give_cluster(cluster);
    app.finish().await;
}
