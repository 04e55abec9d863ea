//! Streams: the events of `contracts/openai-images.md`, section 3, as the official types expect them.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, App, Key, pictures};

const PROMPT: &str = "a river seen from a train";

/// Sends a request with `stream: true` and reads the answer to its end.
async fn stream(app: &App, key: &Key, more: &Value) -> Answer {
    let mut body = json!({"prompt": PROMPT, "stream": true});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let path = "/v1/images/generations";
    app.client.post_json(path, Some(&key.secret), &body).await
}

/// The events and comments of a stream. Every frame is ended by an empty line.
fn frames(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    assert!(answer.header("x-request-id").starts_with("req_"));
    assert!(answer.header("x-generation-id").starts_with("gen_"));
    let text = std::str::from_utf8(&answer.bytes).unwrap();
    let frames = text.strip_suffix("\n\n").expect("the last frame is ended");
    frames.split("\n\n").map(str::to_owned).collect()
}

/// An event: its name, which its `type` repeats, and its one line of data.
fn event(frame: &str) -> (String, Value) {
    let (name, data) = frame.split_once('\n').expect("two lines");
    let name = name.strip_prefix("event: ").expect("an event's name");
    let data = data.strip_prefix("data: ").expect("an event's data");
    assert!(!data.contains('\n'), "the data is one line");
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["type"], name);
    (name.to_owned(), data)
}

fn events(answer: &Answer) -> Vec<(String, Value)> {
    let frames = frames(answer);
    let events = frames.iter().filter(|frame| !frame.starts_with(':'));
    events.map(|frame| event(frame)).collect()
}

/// The fields that every event of a picture has.
fn check_picture(data: &Value, size: (usize, usize)) {
    let picture = STANDARD.decode(data["b64_json"].as_str().unwrap()).unwrap();
    let measured = pictures::measure(&picture);
    assert_eq!((measured.width, measured.height), size);
    assert_eq!(data["size"], format!("{}x{}", size.0, size.1));
    assert_eq!(data["output_format"], measured.format);
    assert!(data["created_at"].as_i64().unwrap() > 1_700_000_000);
    for name in ["quality", "background"] {
        assert!(data[name].is_string(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_come_first_and_the_last_event_has_the_bill() {
    let app = App::start().await;
    let key = app.test_key("1");
    let mut left = 1.0;
    for partials in 0..=3 {
        let order = json!({"model": "gpt-image-1", "quality": "low", "size": "1024x1024",
            "partial_images": partials});
        let answer = stream(&app, &key, &order).await.expect(200);
        let events = events(&answer);
        assert_eq!(events.len(), partials + 1);
        for (index, (name, data)) in events[..partials].iter().enumerate() {
            assert_eq!(name, "image_generation.partial_image");
            assert_eq!(data["partial_image_index"], index);
            assert!(data.get("usage").is_none());
            check_picture(data, (1024, 1024));
            assert_eq!(data["quality"], "low");
        }
        let (name, data) = events.last().unwrap();
        assert_eq!(name, "image_generation.completed");
        check_picture(data, (1024, 1024));
        assert_eq!(
            data["usage"]["output_tokens"],
            272 + 100 * partials,
            "each draft costs 100 tokens"
        );
        let total = data["usage"]["total_tokens"].as_u64().unwrap();
        let input = data["usage"]["input_tokens"].as_u64().unwrap();
        assert_eq!(total, input + 272 + 100 * partials as u64);
        left -= data["usage"]["cost"].as_f64().unwrap();
        let balance = app.balance(&key).await.as_f64().unwrap();
        assert!((balance - left).abs() < 1e-9, "{balance} and not {left}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_are_an_event_each_and_one_bill() {
    let app = App::start().await;
    let key = app.test_key("1");
    for (model, size) in [
        ("gpt-image-1", json!("1024x1024")),
        // One upstream call for each picture.
        ("stability/stable-image-core", json!("1024x1024")),
    ] {
        let order = json!({"model": model, "size": size, "n": 3, "response_format": "b64_json"});
        let answer = stream(&app, &key, &order).await.expect(200);
        let events = events(&answer);
        assert_eq!(events.len(), 3, "{model}");
        let mut seen = Vec::new();
        for (place, (name, data)) in events.iter().enumerate() {
            assert_eq!(name, "image_generation.completed");
            check_picture(data, (1024, 1024));
            seen.push(data["b64_json"].as_str().unwrap());
            let cost = data["usage"]["cost"].as_f64().unwrap();
            assert_eq!(cost > 0.0, place == 2, "the last one has the bill");
            assert!(data["usage"]["input_tokens_details"].is_object());
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3, "three pictures");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_stands_in_the_last_event() {
    let app = App::start().await;
    let key = app.test_key("1");
    let order = json!({"model": "sandbox", "n": 2, "size": "256x256", "response_format": "b64_json",
        "prompt": "[sandbox:partial] two boats"});
    let answer = stream(&app, &key, &order).await.expect(200);
    assert_eq!(answer.header("x-attempts"), "sandbox=ok");
    let events = events(&answer);
    assert_eq!(events.len(), 1);
    assert!(events[0].1.get("attempts").is_none());
    assert_eq!(events[0].1["failed"][0]["index"], 1);
    assert_eq!(events[0].1["usage"]["cost"], json!(0.001));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_stands_beside_the_picture_where_links_were_asked_for() {
    let app = App::start().await;
    let key = app.test_key("1");
    let order = json!({"model": "sandbox", "size": "512x512", "response_format": "url"});
    let answer = stream(&app, &key, &order).await.expect(200);
    let events = events(&answer);
    let (_, data) = &events[0];
    check_picture(data, (512, 512));
    let linked = app
        .open_link(data["url"].as_str().unwrap())
        .await
        .expect(200);
    let shown = STANDARD.decode(data["b64_json"].as_str().unwrap()).unwrap();
    assert_eq!(linked.bytes, shown);
    app.finish().await;
}

/// A model that cannot stream says its final event alone (design, 1); its provider hears nothing of either
/// parameter, and drafts that nobody paints cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn models_that_cannot_stream_say_their_final_event_alone() {
    let app = App::start().await;
    let key = app.live_key("1");
    let answer = stream(
        &app,
        &key,
        &json!({"model": "dall-e-3", "partial_images": 2}),
    )
    .await;
    let answer = answer.expect(200);
    let events = events(&answer);
    assert_eq!(events.len(), 1);
    check_picture(&events[0].1, (1024, 1024));
    assert!(events[0].1["revised_prompt"].is_string());
    assert_eq!(events[0].1["usage"]["cost"], json!(0.04));
    let body = app.openai.only_call().body;
    assert!(body.get("stream").is_none());
    assert!(body.get("partial_images").is_none());

    // `stream: false` and drafts without a stream are no mistakes either.
    let request =
        json!({"model": "dall-e-3", "prompt": PROMPT, "stream": false, "partial_images": 1});
    let answer = app.generate(&key, &request).await.expect(200).json();
    assert_eq!(answer["usage"]["cost"], json!(0.04));
    app.finish().await;
}

/// The same of every model there is, painted by the sandbox.
#[tokio::test(flavor = "multi_thread")]
async fn every_model_takes_a_stream() {
    let app = App::start().await;
    let key = app.test_key("100");
    for model in [
        "flux-schnell",
        "flux-2-pro",
        "stable-image-core",
        "imagen-4",
        "gemini-nano-banana-2.1",
        "dall-e-2",
    ] {
        let plain = json!({"model": model, "prompt": PROMPT, "stream": false});
        let plain = app.generate(&key, &plain).await.expect(200).json();
        let order = json!({"model": model, "partial_images": 3});
        let answer = stream(&app, &key, &order).await.expect(200);
        let events = events(&answer);
        assert_eq!(events.len(), 1, "{model}");
        assert_eq!(events[0].0, "image_generation.completed", "{model}");
        assert_eq!(
            events[0].1["usage"]["cost"], plain["usage"]["cost"],
            "{model}"
        );
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_keep_a_silent_stream_alive_and_errors_after_them_are_events() {
    let app = App::builder()
        .await
        .set("limits.keepalive", "100ms")
        .set("providers.sandbox.delay", "700ms")
        .start()
        .await;
    let key = app.test_key("1");
    let order = json!({"model": "gpt-image-1", "quality": "low", "partial_images": 1});
    let answer = stream(&app, &key, &order).await.expect(200);
    let seen = frames(&answer);
    let comments = seen.iter().filter(|frame| *frame == ": keepalive").count();
    assert!(comments >= 3, "{comments} comments");
    assert_eq!(seen[0], ": keepalive");
    let told = events(&answer);
    assert_eq!(told.len(), 2);
    assert!(answer.headers.get("x-attempts").is_none(), "not known yet");
    assert!(told[0].1.get("attempts").is_none());
    assert_eq!(told[1].1["attempts"], "sandbox=ok");

    let before = app.balance(&key).await;
    let order = json!({"model": "gpt-image-1", "prompt": "[sandbox:refuse] a battle"});
    let answer = stream(&app, &key, &order).await.expect(200);
    let seen = frames(&answer);
    assert_eq!(seen[0], ": keepalive");
    let (name, data) = event(seen.last().unwrap());
    assert_eq!(name, "error");
    assert_eq!(data["error"]["code"], "moderation_blocked");
    assert_eq!(data["attempts"], "sandbox=content_refused");
    for field in ["message", "type", "param"] {
        assert!(data["error"].get(field).is_some(), "{field}");
    }
    assert_eq!(app.balance(&key).await, before, "nothing was charged");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_before_the_first_byte_are_plain_http() {
    let app = App::start().await;
    let key = app.test_key("0.001");
    for (status, code, more) in [
        (402, "insufficient_balance", json!({"model": "gpt-image-1"})),
        (
            400,
            "integer_above_max_value",
            json!({"model": "gpt-image-1", "partial_images": 4}),
        ),
        (404, "model_not_found", json!({"model": "gpt-image-0"})),
    ] {
        let problem = stream(&app, &key, &more).await.expect(status).problem();
        assert_eq!(problem.code(), code, "{problem:?}");
    }
    let rich = app.test_key("1");
    let refused = json!({"model": "gpt-image-1", "prompt": "[sandbox:refuse] a battle"});
    let problem = stream(&app, &rich, &refused).await.expect(400).problem();
    assert_eq!(problem.code(), "moderation_blocked");
    app.finish().await;
}

/// I7: who leaves a stream has its picture kept.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_stream_is_charged_and_finds_the_picture() {
    let app = App::builder()
        .await
        .set("providers.sandbox.delay", "600ms")
        .start()
        .await;
    let key = app.test_key("1");
    let body = json!({"model": "gpt-image-1", "prompt": PROMPT, "stream": true, "partial_images": 2,
        "quality": "low"});
    let request = app.client.request(Method::POST, "/v1/images/generations");
    let request = request.bearer_auth(&key.secret);
    let request = request.header("content-type", "application/json");
    let mut response = request.body(body.to_string()).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: image_generation.partial_image\n"));
    let id = response.headers()["x-generation-id"]
        .to_str()
        .unwrap()
        .to_owned();
    drop(response);
    let path = format!("/v1/images/generations/{id}?response_format=b64_json");
    for _ in 0..400 {
        let state = app.get(&key, &path).await.expect(200).json();
        if state["status"] == "completed" {
            assert_eq!(state["data"].as_array().unwrap().len(), 1);
            assert!(state["cost"].as_f64().unwrap() > 0.0);
            return app.finish().await;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the generation did not end");
}
