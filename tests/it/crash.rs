//! A process that dies at any one point of the way, and one that stands still there: what is in the books, who
//! gets the money back and when, and what the client's repeat gets.
//!
//! The points are those of `src/faults.rs`; the process is killed as `kill -9` would, exactly there.

use std::{
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Answer, App, Client, Key, Replica, usd};

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a candle that somebody blows out";
const FAULT: &str = "EASEL_FAULT";
/// By when nothing of a dead replica is left (design, section 9).
const BOUND: Duration = Duration::from_secs(30);
/// What one picture costs: 0.016 USD.
const PRICE: i64 = 16_000_000;

const ABANDONED: &str = "abandoned expired 0 0 0";
const CHARGED: &str = "completed captured 1 1 1";

/// Where a process dies, and what it leaves.
#[derive(Debug, Clone, Copy)]
struct Crash {
    at: &'static str,
    /// Whether the provider was called.
    called: bool,
    /// What is in the books once the dead one's holds are swept: generation, hold, and how many attempts, pictures
    /// and charges.
    leaves: Option<&'static str>,
}

const BEFORE_HOLD: Crash = crash("before_hold", false, None);
const AFTER_HOLD: Crash = crash("after_hold", false, Some(ABANDONED));
const DURING_CALL: Crash = crash("during_call", true, Some(ABANDONED));
const AFTER_PICTURES: Crash = crash("after_pictures", true, Some(ABANDONED));
const BEFORE_SETTLEMENT: Crash = crash("before_settlement", true, Some(ABANDONED));
const AFTER_SETTLEMENT: Crash = crash("after_settlement", true, Some(CHARGED));
const CRASHES: [Crash; 6] = [
    BEFORE_HOLD,
    AFTER_HOLD,
    DURING_CALL,
    AFTER_PICTURES,
    BEFORE_SETTLEMENT,
    AFTER_SETTLEMENT,
];

const fn crash(at: &'static str, called: bool, leaves: Option<&'static str>) -> Crash {
    Crash { at, called, leaves }
}

/// How a client asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Under an `Idempotency-Key`, for links.
    ByName,
    /// As an SDK does that was given none, for base64.
    AsSdk,
}

/// One client's request, each time that it is made.
#[derive(Debug)]
struct Request {
    asks: Asks,
    /// Names it, and stands in the books as its end user.
    name: String,
}

impl Request {
    fn new(asks: Asks, crash: Crash) -> Self {
        let name = format!("{} {asks:?}", crash.at);
        Self { asks, name }
    }

    fn at(&self, client: &Client, key: &Key, retry_count: u16) -> RequestBuilder {
        let response_format = match self.asks {
            Asks::ByName => "url",
            Asks::AsSdk => "b64_json",
        };
        let body = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "user": self.name,
            "response_format": response_format});
        let request = client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .header("x-stainless-retry-count", retry_count.to_string())
            .body(body.to_string());
        match self.asks {
            Asks::ByName => request.header("idempotency-key", &self.name),
            Asks::AsSdk => request,
        }
    }

    /// Its generations in the books, the oldest first.
    async fn books(&self, app: &App) -> Vec<String> {
        app.database
            .texts(&format!(
                "select concat_ws(' ', g.status, h.status,
                     (select count(*) from attempts a where a.generation_id = g.id),
                     (select count(*) from images i where i.generation_id = g.id),
                     (select count(*) from ledger_entries e where e.generation_id = g.id and e.kind = 'charge'))
                 from generations g join holds h on h.generation_id = g.id
                 where g.end_user = '{}' order by g.id",
                self.name
            ))
            .await
    }

    /// The generation that it was charged for, which is one.
    async fn charged_for(&self, app: &App) -> String {
        let charged = format!(
            "select generation_id from ledger_entries join generations g on g.id = generation_id
             where g.end_user = '{}'",
            self.name
        );
        let mut charged = app.database.texts(&charged).await;
        assert_eq!(charged.len(), 1, "{self:?}: charges");
        charged.remove(0)
    }

    /// The repeat got its picture, which was charged once: that of before, where there was one.
    async fn check(&self, app: &App, key: &Key, crash: Crash, answer: Answer) {
        let answer = answer.expect(200);
        let is_replayed = answer.find_header("idempotent-replayed") == Some("true");
        let expected: Vec<&str> = match crash.leaves {
            Some(CHARGED) | None => vec![CHARGED],
            Some(left) => vec![left, CHARGED],
        };
        assert_eq!(self.books(app).await, expected, "{self:?}");
        assert_eq!(is_replayed, crash.leaves == Some(CHARGED), "{self:?}");
        let charged = self.charged_for(app).await;
        assert_eq!(answer.header("x-generation-id"), charged, "{self:?}");
        assert_eq!(answer.json()["usage"]["cost"], usd(PRICE), "{self:?}");
        match self.asks {
            Asks::ByName => {
                let link = answer.link(0);
                let path = link.split_once("/files/").unwrap().1;
                let picture = app.client.get(&format!("/files/{path}"), None).await;
                assert!(!picture.expect(200).bytes.is_empty());
            }
            Asks::AsSdk => assert!(!answer.picture(0).is_empty()),
        }
        // What came to nothing says so, to who asks for it by its id.
        let first = format!(
            "select id from generations where end_user = '{}' order by id limit 1",
            self.name
        );
        let first = app.database.texts(&first).await.remove(0);
        let seen = app.get(key, &format!("{GENERATIONS}/{first}")).await;
        let status = seen.expect(200).json()["status"].clone();
        let left = crash.leaves.unwrap_or(CHARGED).split(' ').next().unwrap();
        assert_eq!(status, left, "{self:?}");
    }
}

/// What the books say of all requests and what the fake has seen agree; the calls that nobody wrote down are those
/// of dead processes.
fn lose_calls(app: &mut App, crashes: &[Crash]) {
    for crash in crashes {
        if crash.called && crash.leaves != Some(CHARGED) {
            app.lost_a_call();
        }
    }
}

/// The same replica, restarted, cleans up before it serves.
async fn dies_and_is_restarted(crash: Crash) {
    let fault = format!("{}:kill", crash.at);
    let mut app = App::builder()
        .await
        .environment(FAULT, &fault)
        .start()
        .await;
    let key = app.live_key("1");
    for (round, asks) in (1..).zip([Asks::ByName, Asks::AsSdk]) {
        if round > 1 {
            app.easel.stop().await;
            app.start_again_with(FAULT, &fault).await;
        }
        let request = Request::new(asks, crash);
        let calls = app.openai.calls().len();
        let lost = app
            .client
            .try_send(request.at(&app.client, &key, 0))
            .await
            .map(|answer| answer.status);
        assert!(lost.is_err(), "nobody answers: {lost:?}");
        let status = app.easel.ended(Duration::from_secs(20)).await;
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        let called = app.openai.calls().len() - calls;
        assert_eq!(called, usize::from(crash.called), "{}", crash.at);
        let left = match crash.leaves {
            Some(ABANDONED) => Some("in_progress open 0 0 0"),
            left => left,
        };
        let books = request.books(&app).await;
        assert_eq!(books, Vec::from_iter(left), "as the crash left them");

        app.start_again_without(FAULT).await;
        let books = request.books(&app).await;
        assert_eq!(books, Vec::from_iter(crash.leaves), "as it serves again");
        let charged = (round - 1) + i64::from(crash.leaves == Some(CHARGED));
        assert_eq!(
            app.balance(&key).await,
            usd(1_000_000_000 - charged * PRICE)
        );
        app.run(&["reconcile"]).expect_success();

        let answer = app.client.send(request.at(&app.client, &key, 1)).await;
        request.check(&app, &key, crash, answer).await;
        assert_eq!(app.balance(&key).await, usd(1_000_000_000 - round * PRICE));
        lose_calls(&mut app, &[crash]);
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_before_the_hold() {
    dies_and_is_restarted(BEFORE_HOLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_after_the_hold() {
    dies_and_is_restarted(AFTER_HOLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_during_the_call() {
    dies_and_is_restarted(DURING_CALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_after_the_pictures() {
    dies_and_is_restarted(AFTER_PICTURES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_before_the_settlement() {
    dies_and_is_restarted(BEFORE_SETTLEMENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_between_the_settlement_and_the_answer() {
    dies_and_is_restarted(AFTER_SETTLEMENT).await;
}

/// A replica that is about to die.
async fn victim(app: &App, crash: Crash, deed: &str) -> Replica {
    let fault = format!("{}:{deed}", crash.at);
    app.start_replica_with(&[(FAULT, &fault)]).await
}

/// Another replica cleans up behind the dead, within the bound, and does what they left undone. And behind one
/// that only stood still: it comes back, and cannot charge any more.
#[tokio::test(flavor = "multi_thread")]
async fn another_replica_cleans_up_behind_the_dead_and_the_slow() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    let requests: Vec<(Crash, Request)> = CRASHES
        .iter()
        .flat_map(|crash| {
            [Asks::ByName, Asks::AsSdk].map(|asks| (*crash, Request::new(asks, *crash)))
        })
        .collect();
    let (mut victims, slow) = tokio::join!(
        join_all((requests.iter()).map(|(crash, _)| victim(&app, *crash, "kill"))),
        victim(&app, BEFORE_SETTLEMENT, "stop")
    );
    let lost = join_all(
        victims
            .iter()
            .zip(&requests)
            .map(async |(victim, (_, request))| {
                let request = request.at(&victim.client, &key, 0);
                let lost = victim.client.try_send(request).await;
                assert!(lost.is_err(), "{}", lost.unwrap().status);
            }),
    );
    lost.await;
    let died_at = Instant::now();
    for victim in &mut victims {
        let status = victim.easel.ended(Duration::from_secs(20)).await;
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    }

    // The clients ask again at once, where somebody answers; and one is at the replica that stands still.
    let late = Request {
        asks: Asks::ByName,
        name: "of the slow one".to_owned(),
    };
    let survivor = &app;
    let repeats = join_all(requests.iter().map(async |(_, request)| {
        let repeat = request.at(&survivor.client, &key, 1);
        survivor.client.send(repeat).await
    }));
    let cleaned = async {
        let open = "select count(*) from generations g join holds h on h.generation_id = g.id
                    where h.status = 'open' and g.created_at < $1";
        let open = open.replace("$1", &format!("'{}'", now(survivor).await));
        while survivor.database.number(&open).await > 0 {
            assert!(died_at.elapsed() < BOUND, "still open after {BOUND:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let stands_still = async {
        let answer = slow.client.send(late.at(&slow.client, &key, 0)).await;
        let problem = answer.clone().expect(503).problem();
        assert_eq!(problem.code(), "generation_abandoned");
        assert_eq!(answer.header("x-should-retry"), "true");
        assert_eq!(late.books(survivor).await, [ABANDONED]);
    };
    let wake = async {
        while late.books(survivor).await != [ABANDONED] {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        slow.easel.signal(Signal::CONT);
    };
    let (repeats, (), (), ()) = tokio::join!(repeats, cleaned, stands_still, wake);
    for ((crash, request), answer) in requests.iter().zip(repeats) {
        request.check(&app, &key, *crash, answer).await;
    }
    // It lives, serves, and is charged like any other.
    let again = slow.client.send(late.at(&slow.client, &key, 1)).await;
    again.expect(200);
    assert_eq!(late.books(&app).await, [ABANDONED, CHARGED]);

    let charged = i64::try_from(requests.len()).unwrap() + 1;
    assert_eq!(
        app.balance(&key).await,
        usd(1_000_000_000 - charged * PRICE)
    );
    let abandoned = "select count(*) from generations where status = 'abandoned'";
    let abandoned = app.database.number(abandoned).await;
    assert_eq!(
        abandoned, 9,
        "four points, asked for in two ways, and the slow one's"
    );
    let metrics = app.figures().await;
    assert!(metrics.contains("easel_swept_holds_total 9"), "{metrics}");
    let usage = app.run(&["usage", "--json"]).expect_success().json();
    let row: &Value = &usage[0];
    assert_eq!(row["abandoned"], json!(9), "{usage}");

    for victim in victims {
        victim.bury();
    }
    slow.stop().await;
    let crashes: Vec<Crash> = requests.iter().map(|(crash, _)| *crash).collect();
    lose_calls(&mut app, &crashes);
    lose_calls(&mut app, &[BEFORE_SETTLEMENT]);
    app.finish().await;
}

/// The database's time.
async fn now(app: &App) -> String {
    let now = app.database.texts("select clock_timestamp()::text");
    now.await.remove(0)
}
