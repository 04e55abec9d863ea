//! Drafts whose picture never comes were delivered all the same: they are charged, and nothing else is.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, FakeOpenAi, Key, Reply, pictures, usd};

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a bridge of which only the sketch remains";
/// 100 tokens at USD 40 a million (`contracts/openai-images.md`, 1.1 and 9).
const EACH: i64 = 4_000_000;
const DOLLAR: i64 = 1_000_000_000;

fn order(partial_images: u8) -> Value {
    json!({
        "model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low", "stream": true,
        "partial_images": partial_images,
    })
}

/// So many of the right events, then an error in place of the next.
fn then(drafts: usize, reply: &Reply) -> Behaviour {
    Behaviour::EventsThen(drafts, Behaviour::error_event(reply))
}

/// Name and data of each event.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(&answer.bytes).unwrap();
    let frames = text.split_terminator("\n\n");
    let frames = frames.filter(|frame| !frame.starts_with(':'));
    frames
        .map(|frame| {
            let (name, data) = frame.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap().to_owned();
            let data = data.strip_prefix("data: ").unwrap();
            (name, serde_json::from_str(data).unwrap())
        })
        .collect()
}

/// The error that a stream ends with, behind so many drafts.
fn error_behind(answer: &Answer, drafts: usize) -> Value {
    let events = events(answer);
    assert_eq!(events.len(), drafts + 1);
    let (last, before) = events.split_last().unwrap();
    for (name, data) in before {
        assert_eq!(name, "image_generation.partial_image");
        assert!(data.get("usage").is_none());
    }
    assert_eq!(last.0, "error");
    last.1.clone()
}

/// Begins to read the answer.
async fn post(app: &App, key: &Key, order: &Value) -> reqwest::Response {
    app.keep_secret(PROMPT, "a prompt");
    let request = app.client.request(Method::POST, GENERATIONS);
    let request = request.bearer_auth(&key.secret);
    let request = request.header("content-type", "application/json");
    request.body(order.to_string()).send().await.unwrap()
}

async fn generation(app: &App, key: &Key, answer: &Answer) -> Value {
    let id = answer.header("x-generation-id");
    let path = format!("{GENERATIONS}/{id}");
    app.get(key, &path).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_are_charged_whatever_becomes_of_their_picture() {
    let app = App::start().await;
    let key = app.live_key("1");
    let mut left = DOLLAR;
    for (drafts, reply, code) in [
        (1, Reply::moderation_gpt(), "moderation_blocked"),
        (2, Reply::rate_limited(), "upstream_rate_limited"),
        (3, Reply::server_error(), "upstream_error"),
    ] {
        app.openai.next(then(drafts, &reply));
        let answer = app.generate(&key, &order(3)).await.expect(200);
        let error = error_behind(&answer, drafts);
        let charged = EACH * i64::try_from(drafts).unwrap();
        left -= charged;
        assert_eq!(error["error"]["code"], code);
        assert_eq!(
            error["usage"],
            json!({
                "total_tokens": 100 * drafts, "input_tokens": 0, "output_tokens": 100 * drafts,
                "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
                "output_tokens_details": {"text_tokens": 0, "image_tokens": 100 * drafts},
                "cost": usd(charged),
            }),
            "{error}"
        );
        assert_eq!(app.balance(&key).await, usd(left), "{code}");
        let state = generation(&app, &key, &answer).await;
        assert_eq!(state["status"], "failed");
        assert_eq!(state["cost"], usd(charged));
        assert_eq!(state["provider"], "openai");
        assert_eq!(state["error"]["code"], code);
        assert_eq!(state["data"], json!([]));
    }
    let usage = app.get(&key, "/v1/usage?group_by=provider").await;
    let usage = usage.expect(200).json();
    let row = &usage["data"][0];
    assert_eq!((&row["requests"], &row["images"]), (&json!(3), &json!(0)));
    assert_eq!(row["cost"], usd(DOLLAR - left), "{usage}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_drafts_that_came_whole_are_charged() {
    let app = App::start().await;
    let key = app.live_key("1");
    // The second one breaks off after much of it was shown: so does the answer.
    let draft = |index: u8, text: &str| {
        let name = "image_generation.partial_image";
        format!(
            "event: {name}\ndata: {{\"type\":\"{name}\",\"partial_image_index\":{index},\"b64_json\":\"{text}"
        )
    };
    let first = STANDARD.encode(pictures::noise(200, 1));
    let second = STANDARD.encode(pictures::noise(400, 2));
    let torso = &second[..second.len() / 8 * 4];
    let body = draft(0, &first) + "\"}\n\n" + &draft(1, torso);
    let pieces = vec![(Duration::ZERO, Bytes::from(body))];
    app.openai.next(Behaviour::Pieces(pieces, false));
    let mut response = post(&app, &key, &order(2)).await;
    let mut text = Vec::new();
    let broke_off = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broke_off, "{} bytes", text.len());
    app.wait_until_settled().await;
    assert_eq!(app.balance(&key).await, usd(DOLLAR - EACH));

    // A draft that is no picture is none, and an error instead of any event costs nothing.
    let body = draft(0, &STANDARD.encode("a sentence")) + "\"}\n\n";
    let body = body + &Behaviour::error_event(&Reply::moderation_gpt());
    let reply = Reply::raw(200, "text/event-stream", body);
    app.openai.next(Behaviour::Reply(reply));
    let answer = app.generate(&key, &order(2)).await.expect(400);
    assert_eq!(answer.problem().code(), "moderation_blocked");
    app.openai.next(then(0, &Reply::moderation_gpt()));
    app.generate(&key, &order(2)).await.expect(400).problem();
    // Who did not ask for a stream has seen none.
    let mut plain = order(2);
    plain["stream"] = json!(false);
    app.openai.next(then(0, &Reply::moderation_gpt()));
    app.generate(&key, &plain).await.expect(400).problem();
    assert_eq!(app.balance(&key).await, usd(DOLLAR - EACH));
    app.finish().await;
}

/// A picture that came is charged with its drafts, as the provider counts them.
#[tokio::test(flavor = "multi_thread")]
async fn drafts_of_a_picture_that_came_are_in_its_own_charge() {
    let app = App::start().await;
    let key = app.live_key("1");
    let answer = app.generate(&key, &order(2)).await.expect(200);
    let (_, last) = events(&answer).pop().unwrap();
    assert_eq!(last["usage"]["output_tokens"], 472);
    let cost = last["usage"]["cost"].clone();
    assert_eq!(generation(&app, &key, &answer).await["cost"], cost);
    let drafts = "select sum(drafts_charged)::bigint from generations";
    assert_eq!(app.database.number(drafts).await, 0);
    app.finish().await;
}

const TWO_HOMES: &str = r#"
[[model]]
id = "test/two-homes"
name = "Two homes"
aliases = ["two-homes"]
created = 1795132800
owned_by = "test"
status = "active"

[model.rules]
prompt = { max_chars = 1000 }
n = { min = 1, max = 4, default = 1 }
size = { values = ["1024x1024"], default = "1024x1024" }
quality = { values = ["low"], default = "low" }
stream = {}
partial_images = { min = 0, max = 3, default = 0 }
response_format = { values = ["url", "b64_json"], default = "b64_json" }

[[model.routes]]
provider = "openai"
upstream_model = "gpt-image-1"
images_per_call = 10
streams = true
price = { per_token = { rates = { text_in = "5", image_in = "10", image_out = "40" }, partial_image_tokens = 100, output_tokens = [{ tokens = 272 }] } }

[[model.routes]]
provider = "backup"
upstream_model = "gpt-image-1"
images_per_call = 10
streams = true
price = { per_image = [{ price = "0.010" }] }
"#;

/// Once a draft was shown no other route is tried, whatever the error: it would begin another picture.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_draft_no_other_route_is_tried() {
    let backup = FakeOpenAi::start().await;
    let api_key = crate::support::fake_openai::API_KEY;
    let app = App::builder()
        .await
        .models(TWO_HOMES)
        .set("providers.backup.adapter", "openai")
        .set("providers.backup.base_url", backup.base_url())
        .set("providers.backup.api_key", api_key)
        .start()
        .await;
    let key = app.live_key("1");
    let mut request = order(2);
    request["model"] = json!("two-homes");
    app.openai.next(then(1, &Reply::overloaded()));
    let answer = app.generate(&key, &request).await.expect(200);
    let error = error_behind(&answer, 1);
    assert_eq!(error["usage"]["cost"], usd(EACH));
    assert_eq!(app.balance(&key).await, usd(DOLLAR - EACH));
    assert_eq!(backup.calls().len(), 0);

    // The first route fails before anything is shown; the second one's drafts have no price, and what is told
    // is why they have no picture.
    app.openai.next(Behaviour::Reply(Reply::rate_limited()));
    backup.next(then(2, &Reply::server_error()));
    let answer = app.generate(&key, &request).await.expect(200);
    let error = error_behind(&answer, 2);
    assert_eq!(error["error"]["code"], "upstream_error");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("Nothing was charged."), "{message}");
    assert!(error.get("usage").is_none());
    assert_eq!(app.balance(&key).await, usd(DOLLAR - EACH));
    app.finish().await;
}

/// Leaving is no way to have drafts for nothing, whatever `on_disconnect` says.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_behind_a_draft_pays_for_what_comes() {
    for on_disconnect in ["finish", "cancel"] {
        let app = App::builder()
            .await
            .set("providers.openai.on_disconnect", on_disconnect)
            .start()
            .await;
        let key = app.live_key("1");
        // One draft at once; after a while another one, and then the refusal.
        let sketch = STANDARD.encode(pictures::paint("png", 64, 64, 1, false));
        let draft = |index: u8| {
            let name = "image_generation.partial_image";
            Bytes::from(format!(
                "event: {name}\ndata: {{\"type\":\"{name}\",\"partial_image_index\":{index},\"b64_json\":\"{sketch}\"}}\n\n"
            ))
        };
        let refusal = Behaviour::error_event(&Reply::moderation_gpt());
        let pieces = vec![
            (Duration::ZERO, draft(0)),
            (Duration::from_millis(1500), draft(1)),
            (Duration::ZERO, refusal.into()),
        ];
        app.openai.next(Behaviour::Pieces(pieces, true));
        let mut response = post(&app, &key, &order(2)).await;
        let first = response.chunk().await.unwrap().unwrap();
        assert!(first.starts_with(b"event: image_generation.partial_image\n"));
        drop(response);
        app.wait_until_settled().await;
        assert_eq!(
            app.balance(&key).await,
            usd(DOLLAR - 2 * EACH),
            "{on_disconnect}"
        );
        app.finish().await;
    }
}

/// One request is one charge, also where all that came of it are drafts: the repeat is told the same, in the
/// process that worked on it and at any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_told_the_same_and_not_charged_again() {
    let app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let post = async |client: &crate::support::Client, name: &str| {
        app.keep_secret(PROMPT, "a prompt");
        let request = client.request(Method::POST, GENERATIONS);
        let request = request
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .header("idempotency-key", name)
            .body(order(3).to_string());
        client.send(request).await
    };
    for (round, (reply, status, code)) in [
        (Reply::moderation_gpt(), 400, "moderation_blocked"),
        (Reply::rate_limited(), 429, "upstream_rate_limited"),
        (Reply::server_error(), 502, "upstream_error"),
    ]
    .into_iter()
    .enumerate()
    {
        app.openai.next(then(2, &reply));
        let first = post(&app.client, code).await.expect(200);
        let told = error_behind(&first, 2);
        assert_eq!(told["usage"]["cost"], usd(2 * EACH));
        for client in [&app.client, &second.client] {
            let repeat = post(client, code).await.expect(status);
            assert_eq!(repeat.header("idempotent-replayed"), "true");
            assert_eq!(
                repeat.header("x-generation-id"),
                first.header("x-generation-id")
            );
            assert_eq!(repeat.problem().code(), code);
            assert_eq!(repeat.json()["usage"], told["usage"], "{code}");
            // It will be the same all day.
            assert_ne!(repeat.find_header("x-should-retry"), Some("true"));
            assert_eq!(repeat.find_header("retry-after"), None);
        }
        let rounds = i64::try_from(round).unwrap() + 1;
        assert_eq!(app.charges().await, rounds);
        assert_eq!(
            app.balance(&key).await,
            usd(DOLLAR - 2 * rounds * EACH),
            "{code}"
        );
    }
    assert_eq!(app.openai.calls().len(), 3);
    second.stop().await;
    app.finish().await;
}

/// Many at once on one balance, of which some have their picture and some only drafts: the sum is exact.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_each_charged_for_what_came() {
    const EACH_KIND: usize = 12;
    let app = App::start().await;
    let key = app.live_key("5");
    for _ in 0..EACH_KIND {
        app.openai.next(Behaviour::Answer);
        app.openai.next(then(2, &Reply::moderation_gpt()));
        app.openai.next(then(1, &Reply::server_error()));
    }
    let one = order(2);
    let answers = join_all((0..3 * EACH_KIND).map(|_| app.generate(&key, &one))).await;
    let mut told = 0.0;
    let mut errors = 0;
    for answer in &answers {
        let (name, last) = events(&answer.clone().expect(200)).pop().unwrap();
        told += last["usage"]["cost"].as_f64().unwrap();
        errors += usize::from(name == "error");
    }
    assert_eq!(errors, 2 * EACH_KIND);
    let charged = "select sum(-amount_nano_usd)::bigint from ledger_entries where kind = 'charge'";
    let charged = app.database.number(charged).await;
    #[expect(clippy::cast_precision_loss, reason = "a few dollars")]
    let difference = told - charged as f64 / 1e9;
    assert!(difference.abs() < 1e-9, "{told} told, {charged} charged");
    assert_eq!(app.balance(&key).await, usd(5 * DOLLAR - charged));
    app.finish().await;
}
