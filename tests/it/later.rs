//! `Prefer: respond-async`: the answer comes at once, the pictures later and at the generation's own address.

use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    edits::{BOUNDARY, EDITS, form, png, square, text},
    support::{Answer, App, Behaviour, Client, Key, Reply, pictures, raw::Raw},
};

pub(crate) const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a postcard that arrives in winter";

/// Posts it and does not wait, with more headers.
pub(crate) async fn later_with(
    client: &Client,
    key: &Key,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let mut request = client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .header("prefer", "respond-async, wait=10")
        .body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request).await
}

/// Posts it and does not wait; returns the generation's id.
pub(crate) async fn later(client: &Client, key: &Key, body: &Value) -> String {
    let answer = later_with(client, key, &[], body).await.expect(202);
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// What `GET` says of it once it has ended.
pub(crate) async fn ended(client: &Client, key: &Key, id: &str, query: &str) -> Value {
    let path = format!("{GENERATIONS}/{id}{query}");
    for _ in 0..2400 {
        let answer = client.get(&path, Some(&key.secret)).await.expect(200);
        let state = answer.json();
        if state["status"] != "in_progress" {
            assert_eq!(answer.find_header("retry-after"), None);
            return state;
        }
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=10).contains(&seconds));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{id} did not end");
}

fn card() -> Value {
    json!({"model": "dall-e-3", "prompt": PROMPT})
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_answered_at_once_and_finished_later_for_any_replica() {
    let app = App::builder()
        .await
        // Nobody may take it for a copy of something delivered, nor is it one that may be cancelled.
        .set("images.replay_budget", "1 KiB")
        .set("images.relay_copies", false)
        .set("providers.openai.on_disconnect", "cancel")
        .start()
        .await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    app.keep_secret(PROMPT, "a prompt");
    let gate = app.openai.gate();
    for (body, query) in [
        (card(), ""),
        (
            json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024"}),
            "?response_format=b64_json",
        ),
    ] {
        let answer = later_with(&app.client, &key, &[], &body).await.expect(202);
        let begun = answer.json();
        let id = begun["id"].as_str().unwrap();
        assert_eq!(
            answer.header("location"),
            format!("/v1/images/generations/{id}")
        );
        assert_eq!(answer.header("preference-applied"), "respond-async");
        assert_eq!(answer.header("x-generation-id"), id);
        assert_eq!(answer.header("retry-after"), "1");
        assert!(answer.header("x-request-id").starts_with("req_"));
        assert_eq!(begun["object"], "image.generation");
        assert_eq!(begun["status"], "in_progress");
        assert_eq!((&begun["cost"], &begun["data"]), (&json!(0), &json!([])));
        // It is what GET says too, here and elsewhere.
        let path = answer.header("location").to_owned();
        for client in [&app.client, &second.client] {
            let found = client.get(&path, Some(&key.secret)).await.expect(200);
            assert_eq!(found.json(), begun);
            assert_eq!(found.header("retry-after"), "1");
        }
        gate.add_permits(1);
        let state = ended(&second.client, &key, id, query).await;
        assert_eq!(state["status"], "completed", "{state}");
        assert_eq!(state["provider"], "openai");
        assert_eq!(state.get("error"), None);
        let picture = &state["data"][0];
        if query.is_empty() {
            // It begins with the address of who told it.
            let link = picture["url"].as_str().unwrap();
            let link = link.replace(second.client.origin(), &app.easel.origin());
            let opened = app.open_link(&link).await.expect(200);
            assert_eq!(pictures::measure(&opened.bytes).width, 1024);
        } else {
            assert!(picture["b64_json"].is_string(), "{state}");
        }
    }
    assert_eq!(app.openai.calls().len(), 2);
    second.stop().await;
    app.finish().await;
}

/// Where everything is below a path of its host, the proxy that takes the path away does not put it into headers.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_generation_has_the_path_of_public_url() {
    let app = App::builder()
        .await
        .set("public_url", "https://example.com/apps/easel/")
        .start()
        .await;
    let key = app.live_key("1");
    let answer = later_with(&app.client, &key, &[], &card())
        .await
        .expect(202);
    let id = answer.header("x-generation-id").to_owned();
    assert_eq!(
        answer.header("location"),
        format!("/apps/easel/v1/images/generations/{id}")
    );
    let state = ended(&app.client, &key, &id, "").await;
    assert_eq!(state["status"], "completed", "{state}");
    app.finish().await;
}

/// What comes to no hold is refused as ever, and costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_before_the_hold_are_those_of_any_request() {
    let app = App::start().await;
    let key = app.live_key("0.03");
    for (body, status, code, param) in [
        (
            json!({"model": "dall-e-3", "prompt": PROMPT, "stream": true}),
            400,
            "invalid_value",
            "stream",
        ),
        (
            json!({"model": "dall-e-3", "prompt": PROMPT, "size": "1x1"}),
            400,
            "invalid_size",
            "size",
        ),
        (
            json!({"model": "dall-e-3"}),
            400,
            "missing_required_parameter",
            "prompt",
        ),
        (
            json!({"model": "nobody", "prompt": PROMPT}),
            404,
            "model_not_found",
            "model",
        ),
        (card(), 402, "insufficient_balance", ""),
    ] {
        let answer = later_with(&app.client, &key, &[], &body)
            .await
            .expect(status);
        let problem = answer.problem();
        assert_eq!((problem.code(), problem.param()), (code, param), "{body}");
        assert_eq!(answer.find_header("location"), None);
    }
    assert_eq!(
        app.database
            .number("select count(*) from generations")
            .await,
        0
    );
    // Not every preference is this one.
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .header("prefer", "return=minimal, x=\"respond-async\"")
        .body(json!({"model": "dall-e-2", "prompt": PROMPT}).to_string());
    let answer = app.client.send(request).await.expect(200);
    assert_eq!(answer.find_header("preference-applied"), None);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_by_the_generation() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::Reply(Reply::moderation_dalle()));
    let named = [("idempotency-key", "refused")];
    let answer = later_with(&app.client, &key, &named, &card())
        .await
        .expect(202);
    let id = answer.header("x-generation-id").to_owned();
    let state = ended(&app.client, &key, &id, "").await;
    assert_eq!(state["status"], "failed", "{state}");
    assert_eq!(state["error"]["code"], "content_policy_violation");
    assert_eq!((&state["cost"], &state["data"]), (&json!(0), &json!([])));
    // Asked for again under its name, it is what it was.
    let again = later_with(&app.client, &key, &named, &card())
        .await
        .expect(200);
    assert_eq!(again.json(), state);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(app.balance(&key).await, json!(1));
    app.finish().await;
}

/// Whoever asks for the same gets the same generation, waiting or not, on any replica.
#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_the_same_generation() {
    let app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    for (name, value, again) in [
        ("idempotency-key", "card", "card"),
        ("x-stainless-retry-count", "0", "1"),
    ] {
        let before = app.openai.calls().len();
        let first = later_with(&app.client, &key, &[(name, value)], &card()).await;
        let first = first.expect(202);
        let id = first.header("x-generation-id").to_owned();
        assert_eq!(first.find_header("idempotent-replayed"), None);

        // While it runs: here, elsewhere, and by who waits.
        let repeat = later_with(&second.client, &key, &[(name, again)], &card()).await;
        let repeat = repeat.expect(202);
        assert_eq!(repeat.json(), first.json());
        assert_eq!(repeat.header("idempotent-replayed"), "true");
        assert_eq!(repeat.header("location"), first.header("location"));
        assert!(repeat.find_header("retry-after").is_some());
        if name == "idempotency-key" {
            let here = later_with(&app.client, &key, &[(name, again)], &card()).await;
            assert_eq!(here.expect(202).json(), first.json());
        }
        let again = if name == "idempotency-key" {
            again
        } else {
            "2"
        };
        let waiting = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .header(name, again)
            .body(card().to_string());
        let open = async { gate.add_permits(1) };
        let (waited, ()) = tokio::join!(app.client.send(waiting), open);
        let waited = waited.expect(200);
        assert_eq!(waited.header("x-generation-id"), id);
        assert_eq!(waited.json()["usage"]["cost"], json!(0.04));

        // When it is finished.
        let again = if name == "idempotency-key" {
            again
        } else {
            "3"
        };
        let finished = later_with(&second.client, &key, &[(name, again)], &card()).await;
        let finished = finished.expect(200);
        assert_eq!(finished.header("preference-applied"), "respond-async");
        assert_eq!(finished.json()["id"], json!(id));
        assert_eq!(finished.json()["status"], "completed");
        app.open_link(
            &finished
                .link(0)
                .replace(second.client.origin(), &app.easel.origin()),
        )
        .await
        .expect(200);
        assert_eq!(app.openai.calls().len(), before + 1);
    }
    let other = json!({"model": "dall-e-2", "prompt": PROMPT});
    let conflict = later_with(&app.client, &key, &[("idempotency-key", "card")], &other).await;
    assert_eq!(
        conflict.expect(409).problem().code(),
        "idempotency_conflict"
    );
    assert_eq!(app.balance(&key).await, json!(0.92));
    second.stop().await;
    app.finish().await;
}

/// One that waits and one that does not, of one name, at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_and_who_does_not_share_one_generation() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_millis(300)));
    for round in 0..5 {
        let name = format!("round {round}");
        let headers = [("idempotency-key", name.as_str())];
        let waiting = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .header("idempotency-key", &name)
            .body(json!({"model": "dall-e-2", "prompt": PROMPT}).to_string());
        let body = json!({"model": "dall-e-2", "prompt": PROMPT});
        let (waited, began) = tokio::join!(
            app.client.send(waiting),
            later_with(&app.client, &key, &headers, &body)
        );
        let waited = waited.expect(200);
        assert!(matches!(began.status, 200 | 202), "{}", began.status);
        assert_eq!(
            waited.header("x-generation-id"),
            began.header("x-generation-id")
        );
        assert_eq!(app.openai.calls().len(), round + 1);
    }
    assert_eq!(app.balance(&key).await, json!(0.9));
    app.finish().await;
}

/// A request that is stuck before the database was promised nothing. Its client leaves and asks elsewhere: if it were
/// worked for when it gets through, both would be charged.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_the_hold_is_not_worked_for() {
    let app = App::builder().await.with_proxy().start().await;
    let direct = [("EASEL__DATABASE__URL", app.database.url())];
    let second = app.start_replica_with(&direct).await;
    let key = app.live_key("1");
    // From now on, for a moment, the key is known without the database.
    app.get(&key, "/v1/models").await.expect(200);
    app.proxy().stand_still();
    let (body, first) = (card(), [("x-stainless-retry-count", "0")]);
    let stuck = later_with(&app.client, &key, &first, &body);
    let left = timeout(Duration::from_millis(500), stuck).await;
    assert!(left.is_err(), "there was no answer");
    let again = [("x-stainless-retry-count", "1")];
    let again = later_with(&second.client, &key, &again, &body).await;
    let id = again.expect(202).header("x-generation-id").to_owned();
    ended(&second.client, &key, &id, "").await;
    app.proxy().open();
    // What got stuck is over when what comes behind it is.
    let other = later(&app.client, &key, &body).await;
    ended(&app.client, &key, &other, "").await;
    app.wait_until_settled().await;
    assert_eq!(app.openai.calls().len(), 2);
    assert_eq!(app.balance(&key).await, json!(0.92));
    second.stop().await;
    app.finish().await;
}

/// From the hold on it goes on, even if nobody has read the 202 and leaving cancels others: the list has it, and so has
/// the repeat.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_without_reading_the_202_finds_it() {
    let app = App::builder()
        .await
        .set("providers.openai.on_disconnect", "cancel")
        .start()
        .await;
    let key = app.live_key("1");
    app.openai
        .next(Behaviour::AnswerAfter(Duration::from_millis(700)));
    let body = card();
    let mut raw = Raw::connect(app.easel.port()).await;
    let request = Raw::post(GENERATIONS, &key.secret, &body.to_string());
    let request = request.replacen("\r\n", "\r\nprefer: respond-async\r\n", 1);
    raw.send(&request).await;
    app.openai.wait_for_call().await;
    drop(raw);
    let list = app.get(&key, GENERATIONS).await.expect(200).json();
    let id = list["data"][0]["id"].as_str().unwrap();
    let repeat = [("x-stainless-retry-count", "1")];
    let repeat = later_with(&app.client, &key, &repeat, &body).await;
    assert_eq!(repeat.header("x-generation-id"), id);
    assert_eq!(repeat.header("idempotent-replayed"), "true");
    let state = ended(&app.client, &key, id, "").await;
    assert_eq!(state["status"], "completed", "{state}");
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.balance(&key).await, json!(0.96));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_are_answered_at_once_too() {
    let app = App::start().await;
    let key = app.test_key("1");
    let parts = [
        text("model", "easel/sandbox"),
        text("prompt", PROMPT),
        png("image", &square()),
    ];
    let request = app
        .client
        .request(Method::POST, EDITS)
        .bearer_auth(&key.secret)
        .header("prefer", "Respond-Async")
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(form(&parts));
    let answer = app.client.send(request).await.expect(202);
    let id = answer.header("x-generation-id").to_owned();
    let state = ended(&app.client, &key, &id, "").await;
    assert_eq!(state["status"], "completed", "{state}");
    app.open_link(state["data"][0]["url"].as_str().unwrap())
        .await
        .expect(200);
    app.finish().await;
}

/// SIGTERM waits for them as for all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_them() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_millis(800)));
    let id = later(&app.client, &key, &card()).await;
    app.easel.signal(Signal::TERM);
    let status = app.easel.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", app.easel.stderr());
    app.start_again().await;
    let state = ended(&app.client, &key, &id, "").await;
    assert_eq!(state["status"], "completed", "{state}");
    app.open_link(state["data"][0]["url"].as_str().unwrap())
        .await
        .expect(200);
    app.finish().await;
}
