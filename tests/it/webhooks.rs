//! Webhooks: the end of a generation, told to an address of the app's, signed, until somebody takes it.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, FixedOffset, TimeDelta};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::{
    cancel::cancel,
    edits::{BOUNDARY, EDITS, form, png, square, text},
    later::{ended, later, later_with},
    support::{
        App, Behaviour, Builder, Contract, Key, Reply,
        receiver::{Answer, Receiver},
    },
};

const PROMPT: &str = "a pigeon with a capsule";

/// An app whose key may have webhooks, and who takes them.
struct Loft {
    app: App,
    key: Key,
    receiver: Receiver,
}

impl Loft {
    async fn open() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(set: impl FnOnce(Builder) -> Builder) -> Self {
        let receiver = Receiver::start().await;
        let builder = App::builder()
            .await
            .set("webhooks.hosts", vec![receiver.authority()])
            .set("webhooks.first_retry", "100ms")
            .set("webhooks.timeout", "2s")
            .set("providers.openai.on_disconnect", "cancel")
            .set("admin.token", TOKEN);
        let app = set(builder).start().await;
        app.keep_secret(PROMPT, "a prompt");
        app.keep_secret("token=otter", "a webhook's address");
        app.keep_secret(TOKEN, "the admin token");
        let key = app.live_key("2");
        let loft = Self { app, key, receiver };
        loft.run(&["keys", "update", &loft.key.id, "--webhooks"]);
        let secret = loft.run(&["keys", "webhook-secret", &loft.key.id, "--json"]);
        assert_eq!(secret["allowed"], true);
        loft.trust(&secret["secret"]);
        loft
    }

    fn trust(&self, secret: &Value) {
        let secret = secret.as_str().unwrap();
        self.app.keep_secret(secret, "a webhook's secret");
        self.receiver.trust(secret);
    }

    fn run(&self, arguments: &[&str]) -> Value {
        let output = self.app.run(arguments).expect_success();
        serde_json::from_str(&output.stdout).unwrap_or_default()
    }

    fn order(&self) -> Value {
        json!({"model": "dall-e-2", "prompt": PROMPT, "webhook_url": self.receiver.url()})
    }

    async fn admin(&self, method: Method, path: &str, body: &Value) -> Value {
        let path = format!("/admin/v1{path}");
        let mut request = self.app.client.request(method, &path).bearer_auth(TOKEN);
        if !body.is_null() {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        self.app.client.send(request).await.expect(200).json()
    }

    /// What the operator sees of it, once it is not to be tried any more.
    async fn record(&self, id: &str) -> Value {
        for _ in 0..2400 {
            let path = format!("/admin/v1/generations/{id}");
            let found = self
                .app
                .client
                .get(&path, Some(TOKEN))
                .await
                .expect(200)
                .json();
            if found["webhook"]["status"] != "pending" && found["webhook"] != Value::Null {
                return found["webhook"].clone();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the webhook of {id} did not end");
    }

    /// Every generation that has ended and has a webhook has one row.
    async fn close(self) {
        let missing = "select count(*) from generations g where webhook_url is not null and status <> 'in_progress'
             and (select count(*) from webhook_deliveries d where d.generation_id = g.id
                  and d.event = 'image.generation.' || g.status) <> 1";
        assert_eq!(self.app.database.number(missing).await, 0);
        for message in self.receiver.messages() {
            let faults = Contract::of_easel().body_faults("WebhookMessage", &message.body);
            assert!(faults.is_empty(), "{message:?}: {faults:#?}");
        }
        let surplus =
            "select count(*) from webhook_deliveries d join generations g on g.id = d.generation_id
             where g.webhook_url is null or g.status = 'in_progress'";
        assert_eq!(self.app.database.number(surplus).await, 0);
        self.app.finish().await;
    }
}

const TOKEN: &str = "the-keeper-of-the-pigeons-0123456789";

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_and_signed() {
    let loft = Loft::open().await;
    let (app, key) = (&loft.app, &loft.key);
    app.openai.next(Behaviour::Answer);
    let painted = later(&app.client, key, &loft.order()).await;
    let state = ended(&app.client, key, &painted, "").await;
    loft.receiver.wait_for(1).await;
    app.openai.next(Behaviour::Reply(Reply::moderation_dalle()));
    let refused = later(&app.client, key, &loft.order()).await;
    loft.receiver.wait_for(2).await;
    app.openai.next(Behaviour::Never);
    let canceled = later(&app.client, key, &loft.order()).await;
    cancel(&app.client, key, &canceled).await.expect(200);
    let messages = loft.receiver.wait_for(3).await;

    for (message, (id, event, code)) in messages.iter().zip([
        (&painted, "image.generation.completed", Value::Null),
        (
            &refused,
            "image.generation.failed",
            json!("content_policy_violation"),
        ),
        (&canceled, "image.generation.failed", json!("canceled")),
    ]) {
        assert_eq!(message.status, 204, "{message:?}");
        assert_eq!(message.signatures, 1);
        assert_eq!(message.id, id.replace("gen_", "msg_"));
        let body = &message.body;
        assert_eq!(body["type"], event);
        let timestamp = body["timestamp"].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(timestamp).is_ok());
        assert_eq!(body["data"]["id"], json!(id));
        assert_eq!(body["data"]["object"], "image.generation");
        assert_eq!(body["data"]["error"]["code"], code);
        let record = loft.record(id).await;
        assert_eq!(record["status"], "delivered", "{record}");
        assert_eq!(record["event"], event);
        assert_eq!(record["attempts"][0]["status"], 204);
    }
    // The same object that GET shows, with links that open.
    let data = &messages[0].body["data"];
    assert_eq!(data["cost"], state["cost"]);
    app.keep_secret(data["data"][0]["url"].as_str().unwrap(), "a link");
    app.open_link(data["data"][0]["url"].as_str().unwrap())
        .await
        .expect(200);
    let metrics = app.figures().await;
    assert!(
        metrics.contains("easel_webhooks_total{outcome=\"delivered\"} 3"),
        "{metrics}"
    );
    loft.close().await;
}

/// 2xx is the end of it, and so is 410; everything else comes again, under the same id.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_comes_again() {
    let loft = Loft::with(|builder| builder.set("webhooks.retry_for", "20s")).await;
    let (app, key) = (&loft.app, &loft.key);
    loft.receiver.next(Answer::status(500));
    loft.receiver.next(Answer {
        headers: vec![("location", "/elsewhere".to_owned())],
        ..Answer::status(302)
    });
    loft.receiver.next(Answer {
        headers: vec![("retry-after", "2".to_owned())],
        ..Answer::status(429)
    });
    let id = later(&app.client, key, &loft.order()).await;
    let messages = loft.receiver.wait_for(4).await;
    let statuses: Vec<u16> = messages.iter().map(|message| message.status).collect();
    assert_eq!(statuses, [500, 302, 429, 204]);
    assert!(messages.iter().all(|message| message.id == messages[0].id));
    let record = loft.record(&id).await;
    let attempts = record["attempts"].as_array().unwrap();
    let seen: Vec<&Value> = attempts.iter().map(|attempt| &attempt["status"]).collect();
    assert_eq!(seen, [500, 302, 429, 204]);
    let at = |index: usize| {
        let started = attempts[index]["started_at"].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(started).unwrap()
    };
    assert!(at(3) - at(2) >= chrono::TimeDelta::seconds(2), "{record}");

    loft.receiver.next(Answer::status(410));
    let id = later(&app.client, key, &loft.order()).await;
    let record = loft.record(&id).await;
    assert_eq!(record["status"], "gone", "{record}");
    assert_eq!(loft.receiver.messages().len(), 5);

    // Who takes too long has not taken it.
    loft.receiver.next(Answer {
        after: Duration::from_secs(4),
        ..Answer::status(204)
    });
    let id = later(&app.client, key, &loft.order()).await;
    let record = loft.record(&id).await;
    assert_eq!(record["attempts"][0]["error"], "timeout", "{record}");
    loft.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_given_up_when_its_time_is_over() {
    let loft = Loft::with(|builder| builder.set("webhooks.retry_for", "1s")).await;
    for _ in 0..20 {
        loft.receiver.next(Answer::status(503));
    }
    let id = later(&loft.app.client, &loft.key, &loft.order()).await;
    let record = loft.record(&id).await;
    assert_eq!(record["status"], "failed", "{record}");
    assert_eq!(record.get("due_at"), None);
    assert!(record["ended_at"].is_string());
    loft.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_have_them_is_told_by_name() {
    let loft = Loft::open().await;
    let (app, key) = (&loft.app, &loft.key);
    let other = app.live_key("1");
    let order = |url: &str| json!({"model": "dall-e-2", "prompt": PROMPT, "webhook_url": url});
    let good = loft.receiver.url();
    for (asked_by, url, status, code) in [
        (&other, good.as_str(), 403, "webhooks_not_allowed"),
        (key, "http://example.com/hook", 400, "invalid_value"),
        (key, "https://127.0.0.1/hook", 400, "invalid_value"),
        (key, "https://169.254.169.254/latest", 400, "invalid_value"),
        (key, "https://me:pass@example.com/", 400, "invalid_value"),
        (key, "hook", 400, "invalid_value"),
    ] {
        let answer = later_with(&app.client, asked_by, &[], &order(url)).await;
        let problem = answer.expect(status).problem();
        assert_eq!(
            (problem.code(), problem.param()),
            (code, "webhook_url"),
            "{url}"
        );
    }
    // Who waits needs none.
    let problem = app.refuse(key, 400, &order(&good)).await;
    assert_eq!(
        (problem.code(), problem.param()),
        ("invalid_value", "webhook_url")
    );
    assert!(problem.message.contains("respond-async"), "{problem:?}");
    let wrong = json!({"model": "dall-e-2", "prompt": PROMPT, "webhook_url": 7});
    assert_eq!(app.refuse(key, 400, &wrong).await.code(), "invalid_type");
    loft.run(&["keys", "update", &key.id, "--webhooks=false"]);
    let answer = later_with(&app.client, key, &[], &order(&good)).await;
    assert_eq!(answer.expect(403).problem().code(), "webhooks_not_allowed");
    assert_eq!(
        app.database
            .number("select count(*) from generations")
            .await,
        0
    );
    loft.close().await;
}

/// Nobody is called for ever and more and more often: who has too much to be taken may ask for no more of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_many_that_nobody_takes_is_refused_one_more() {
    let loft = Loft::with(|builder| {
        builder
            .set("webhooks.max_pending", 2)
            .set("webhooks.first_retry", "1h")
    })
    .await;
    let (app, key) = (&loft.app, &loft.key);
    for count in 1..=2 {
        loft.receiver.next(Answer::status(503));
        later(&app.client, key, &loft.order()).await;
        loft.receiver.wait_for(count).await;
    }
    let answer = later_with(&app.client, key, &[], &loft.order()).await;
    let answer = answer.expect(429);
    assert_eq!(answer.header("x-should-retry"), "false");
    let problem = answer.problem();
    let told = (problem.code(), problem.param());
    assert_eq!(told, ("webhook_queue_full", "webhook_url"));
    // Without one it may, and so may who has none pending.
    let order = json!({"model": "dall-e-2", "prompt": PROMPT});
    let id = later(&app.client, key, &order).await;
    ended(&app.client, key, &id, "").await;
    let taken = "update webhook_deliveries set status = 'delivered', ended_at = clock_timestamp()";
    let done = sqlx::raw_sql(taken).execute(app.database.pool()).await;
    done.unwrap();
    later(&app.client, key, &loft.order()).await;
    loft.receiver.wait_for(3).await;
    loft.close().await;
}

/// A name is judged by where it leads when it is called: nobody is connected to who is not public.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_name_of_a_private_address_is_never_called() {
    let loft = Loft::with(|builder| builder.set("webhooks.retry_for", "1s")).await;
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inside.local_addr().unwrap().port();
    let url = format!("https://localhost:{port}/hook?token=otter");
    let order = json!({"model": "dall-e-2", "prompt": PROMPT, "webhook_url": url});
    let id = later(&loft.app.client, &loft.key, &order).await;
    let record = loft.record(&id).await;
    assert_eq!(record["status"], "failed", "{record}");
    let attempts = record["attempts"].as_array().unwrap();
    assert!(!attempts.is_empty(), "{record}");
    for attempt in attempts {
        assert_eq!(attempt["error"], "refused", "{record}");
    }
    let knocked = timeout(Duration::ZERO, inside.accept()).await;
    assert!(knocked.is_err(), "{knocked:?}");
    loft.close().await;
}

/// A form names it as JSON does.
#[tokio::test(flavor = "multi_thread")]
async fn edits_have_them_too() {
    let loft = Loft::open().await;
    let parts = [
        text("model", "easel/sandbox"),
        text("prompt", PROMPT),
        text("webhook_url", &loft.receiver.url()),
        png("image", &square()),
    ];
    let request = loft
        .app
        .client
        .request(Method::POST, EDITS)
        .bearer_auth(&loft.key.secret)
        .header("prefer", "respond-async")
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(form(&parts));
    let answer = loft.app.client.send(request).await.expect(202);
    let messages = loft.receiver.wait_for(1).await;
    assert_eq!(messages[0].body["data"]["id"], answer.json()["id"]);
    assert_eq!(messages[0].body["type"], "image.generation.completed");
    loft.record(answer.header("x-generation-id")).await;
    loft.close().await;
}

/// Receivers change over while messages are signed with both secrets.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_rotated_with_an_overlap() {
    let loft = Loft::open().await;
    let (app, key) = (&loft.app, &loft.key);
    let path = format!("/admin/v1/keys/{}/webhooks", key.id);
    let before = app.client.get(&path, Some(TOKEN)).await.expect(200).json();
    let rotate = app
        .client
        .request(Method::POST, &format!("{path}/rotate"))
        .bearer_auth(TOKEN);
    let rotated = app.client.send(rotate).await.expect(200).json();
    assert_eq!(
        (&rotated["key"], &rotated["allowed"]),
        (&json!(key.id), &json!(true))
    );
    assert!(rotated["previous_secret_ends_at"].is_string());
    assert_ne!(rotated["secret"], before["secret"]);
    loft.trust(&rotated["secret"]);
    let first = later(&app.client, key, &loft.order()).await;
    let messages = loft.receiver.wait_for(1).await;
    assert_eq!(
        (messages[0].signatures, messages[0].signed_by.len()),
        (2, 2)
    );
    loft.record(&first).await;

    let now = loft.run(&[
        "keys",
        "webhook-secret",
        &key.id,
        "--rotate",
        "--overlap",
        "0s",
        "--json",
    ]);
    loft.trust(&now["secret"]);
    let second = later(&app.client, key, &loft.order()).await;
    let messages = loft.receiver.wait_for(2).await;
    assert_eq!(messages[1].signatures, 1);
    assert_eq!(json!(messages[1].signed_by), json!([now["secret"]]));
    loft.record(&second).await;
    loft.close().await;
}

/// Settled, and killed before anybody was told: another replica tells it. Killed before it was settled: the sweep
/// ends it, and that is told too.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_none() {
    let mut loft = Loft::open().await;
    let id = {
        let (app, key) = (&loft.app, &loft.key);
        // Taken on by a replica that dies while it waits for the answer.
        loft.receiver.next(Answer {
            after: Duration::from_mins(1),
            ..Answer::status(204)
        });
        let id = later(&app.client, key, &loft.order()).await;
        loft.receiver.wait_for(1).await;
        app.openai.always(Behaviour::Never);
        id
    };
    let lost = later(&loft.app.client, &loft.key, &loft.order()).await;
    loft.app.openai.wait_for_calls(2).await;
    loft.app.lost_a_call();
    loft.app.easel.kill();
    let second = loft.app.start_replica().await;
    let messages = loft.receiver.wait_for(3).await;
    let told = |id: &str, event: &str| {
        let same = messages.iter().filter(|message| {
            message.body["data"]["id"] == json!(id) && message.body["type"] == json!(event)
        });
        same.count()
    };
    assert!(
        told(&id, "image.generation.completed") >= 2,
        "{messages:#?}"
    );
    assert_eq!(
        told(&lost, "image.generation.abandoned"),
        1,
        "{messages:#?}"
    );
    second.stop().await;
    loft.app.start_again().await;
    for id in [&id, &lost] {
        assert_eq!(loft.record(id).await["status"], "delivered");
    }
    loft.close().await;
}

/// Three replicas, many ends, and a receiver that is slow, refuses some and is too slow for others: all is told, at
/// least once, and nobody tries while somebody else does. How often one comes depends on how fast the machine is.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_never_tell_the_same_at_the_same_time() {
    let loft = Loft::open().await;
    let (app, key) = (&loft.app, &loft.key);
    for number in 0..60 {
        let (status, after) = match number % 10 {
            0 => (500, 50),
            // Given up by the sender before.
            1 if number < 30 => (204, 2500),
            _ => (204, 200),
        };
        loft.receiver.next(Answer {
            after: Duration::from_millis(after),
            ..Answer::status(status)
        });
    }
    let (second, third) = tokio::join!(app.start_replica(), app.start_replica());
    let clients = [&app.client, &second.client, &third.client];
    let order = loft.order();
    let asked = (0..45).map(|number| later(clients[number % 3], key, &order));
    let ids = join_all(asked).await;
    for id in &ids {
        let record = loft.record(id).await;
        assert_eq!(record["status"], "delivered", "{record}");
        let attempts = record["attempts"].as_array().unwrap();
        let spans: Vec<_> = attempts.iter().map(span).collect();
        for pair in spans.windows(2) {
            // Lengths are rounded down.
            let ended_at = pair[0].1 - TimeDelta::milliseconds(2);
            assert!(pair[1].0 >= ended_at, "two at the same time: {record}");
        }
        let taken = attempts.iter().filter(|a| a["error"].is_null()).count();
        assert!(taken >= 1, "{record}");
        let message = id.replace("gen_", "msg_");
        let messages = loft.receiver.messages().into_iter();
        let came = messages.filter(|came| came.id == message).count();
        // One of them may never have come through.
        assert!((1..=attempts.len()).contains(&came), "{came}: {record}");
    }
    let came = loft.receiver.messages().into_iter().map(|came| came.id);
    let came: BTreeSet<String> = came.collect();
    assert_eq!(came.len(), ids.len());
    second.stop().await;
    third.stop().await;
    loft.close().await;
}

/// From when to when an attempt went on.
fn span(attempt: &Value) -> (DateTime<FixedOffset>, DateTime<FixedOffset>) {
    let started_at = attempt["started_at"].as_str().unwrap();
    let started_at = DateTime::parse_from_rfc3339(started_at).unwrap();
    let latency = TimeDelta::milliseconds(attempt["latency_ms"].as_i64().unwrap());
    (started_at, started_at + latency)
}

/// Each key has a secret of its own, and who has none of the two does not know the other's.
#[tokio::test(flavor = "multi_thread")]
async fn keys_do_not_share_a_secret() {
    let loft = Loft::open().await;
    let app = &loft.app;
    let other = app.live_key("1");
    let path = format!("/keys/{}/webhooks", other.id);
    let before = loft.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(
        (&before["allowed"], before.get("secret")),
        (&json!(false), None)
    );
    let allowed = loft
        .admin(Method::PUT, &path, &json!({"allowed": true}))
        .await;
    assert_eq!(allowed["allowed"], true);
    loft.trust(&allowed["secret"]);
    let id = later(&app.client, &other, &loft.order()).await;
    let messages = loft.receiver.wait_for(1).await;
    assert_eq!(json!(messages[0].signed_by), json!([allowed["secret"]]));
    loft.record(&id).await;
    // Allowed again, it has the same.
    let again = loft
        .admin(Method::PUT, &path, &json!({"allowed": true}))
        .await;
    assert_eq!(again, allowed);
    let none = loft
        .app
        .client
        .get("/admin/v1/keys/key_0/webhooks", Some(TOKEN))
        .await;
    assert_eq!(none.expect(404).problem().code(), "key_not_found");
    loft.close().await;
}

/// Who was let in was promised to be told: what happens to the key afterwards changes nothing about that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_revoked_key_asked_for_is_told() {
    let loft = Loft::open().await;
    let (app, key) = (&loft.app, &loft.key);
    let gate = app.openai.gate();
    // The first time, nobody takes it.
    loft.receiver.next(Answer::status(503));
    let id = later(&app.client, key, &loft.order()).await;
    loft.run(&["keys", "update", &key.id, "--webhooks=false"]);
    app.run(&["keys", "revoke", &key.id]).expect_success();
    gate.add_permits(1);
    let messages = loft.receiver.wait_for(2).await;
    assert_eq!(messages[1].body["type"], "image.generation.completed");
    assert_eq!(loft.record(&id).await["status"], "delivered");
    loft.close().await;
}

/// Judged again when it is called: what the operator allowed once may not be allowed any longer.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_taken_off_the_list_are_not_called() {
    let mut loft = Loft::with(|builder| builder.set("webhooks.retry_for", "1s")).await;
    let gate = loft.app.openai.gate();
    let id = later(&loft.app.client, &loft.key, &loft.order()).await;
    loft.app.configure(|settings| {
        settings.set("webhooks.hosts", json!([]));
    });
    loft.app.reload().await;
    gate.add_permits(1);
    let record = loft.record(&id).await;
    assert_eq!(record["status"], "failed", "{record}");
    assert_eq!(record["attempts"][0]["error"], "refused", "{record}");
    assert_eq!(record["attempts"][0]["status"], Value::Null);
    assert_eq!(loft.receiver.messages().len(), 0);
    loft.close().await;
}

/// The head of an answer says it all. What comes behind it is not read, however much there is.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_are_not_read() {
    let mut loft = Loft::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    loft.app.configure(|settings| {
        settings.set("webhooks.hosts", json!([authority]));
    });
    loft.app.reload().await;
    let mut order = loft.order();
    order["webhook_url"] = json!(format!("http://{authority}/hook?token=otter"));
    let id = later(&loft.app.client, &loft.key, &order).await;
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        let length = socket.read_buf(&mut request).await.unwrap();
        assert!(length > 0, "the message breaks off");
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut sent: u64 = 0;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // Until nobody takes more of it.
    while sent < 256 * 1024 * 1024 && socket.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 0x10000;
    }
    assert!(sent < 256 * 1024 * 1024, "all of it was read");
    let record = loft.record(&id).await;
    assert_eq!(record["status"], "delivered", "{record}");
    loft.close().await;
}

/// What ended long ago is deleted: with its generation, or when its own time is over.
#[tokio::test(flavor = "multi_thread")]
async fn old_ones_are_pruned() {
    let mut loft = Loft::open().await;
    let (app, key) = (&loft.app, &loft.key);
    let id = later(&app.client, key, &loft.order()).await;
    loft.record(&id).await;
    app.database.age(401).await;
    let pruned = app.run(&["prune", "--older-than", "400d", "--json"]);
    assert_eq!(pruned.expect_success().json()["generations"], 1);
    for table in ["webhook_deliveries", "webhook_attempts"] {
        let count = format!("select count(*) from {table}");
        assert_eq!(app.database.number(&count).await, 0, "{table}");
    }
    // The call that its attempt told of.
    loft.app.lost_a_call();
    loft.close().await;
}
