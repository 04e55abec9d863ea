//! What `OpenAI` is asked for edits and streams, and what comes of the ways in which its streams end. The
//! fake is as strict as the contract; the SDKs' part is in `sdk`.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, App, Behaviour, Key, Reply,
    fake_openai::{Endpoint, Part},
    pictures,
};

const PROMPT: &str = "the lighthouse keeper's second cat";

fn stream(partial_images: u8) -> Value {
    json!({
        "model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low", "stream": true,
        "partial_images": partial_images,
    })
}

/// Name and data of each event; comments are left out.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(&answer.bytes).unwrap();
    let frames = text
        .strip_suffix("\n\n")
        .expect("the last event has its end");
    frames
        .split("\n\n")
        .filter(|frame| !frame.starts_with(':'))
        .map(|frame| {
            let (name, data) = frame.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap().to_owned();
            let data = data.strip_prefix("data: ").unwrap();
            (name, serde_json::from_str(data).unwrap())
        })
        .collect()
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

const DRAFT: &str = "image_generation.partial_image";
const PICTURE: &str = "image_generation.completed";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_asked_for_and_handed_on() {
    let app = App::start().await;
    let key = app.live_key("1");
    let answer = app.generate(&key, &stream(2)).await.expect(200);
    let events = events(&answer);
    assert_eq!(names(&events), [DRAFT, DRAFT, PICTURE]);
    let (_, last) = &events[2];
    // USD 5 a million tokens in, 40 out: 272 of the picture and 100 of each draft.
    let tokens = &last["usage"];
    assert_eq!(tokens["output_tokens"], 472);
    let in_tokens = tokens["input_tokens"].as_u64().unwrap();
    let cost = in_tokens * 5_000 + 472 * 40_000;
    assert_eq!(
        tokens["cost"],
        json!(f64::from(u32::try_from(cost).unwrap()) / 1e9)
    );
    let body = app.openai.only_call().body;
    assert_eq!(body["stream"], true);
    assert_eq!(body["partial_images"], 2);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_come_one_after_another() {
    let app = App::start().await;
    let key = app.live_key("1");
    let mut request = stream(1);
    request["n"] = json!(3);
    let answer = app.generate(&key, &request).await.expect(200);
    let events = events(&answer);
    let finished = names(&events)
        .iter()
        .filter(|name| **name == PICTURE)
        .count();
    assert_eq!(finished, 3);
    let (name, last) = events.last().unwrap();
    assert_eq!(name, PICTURE);
    assert_eq!(last["usage"]["output_tokens"], 3 * 372);
    let pictures = events
        .iter()
        .map(|(_, event)| event["b64_json"].as_str().unwrap());
    assert_eq!(pictures.collect::<std::collections::BTreeSet<_>>().len(), 6);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_behind_a_draft_is_told_as_what_it_is() {
    let app = App::start().await;
    let key = app.live_key("1");
    for (reply, code) in [
        (Reply::moderation_gpt(), "moderation_blocked"),
        (Reply::rate_limited(), "upstream_rate_limited"),
        (Reply::server_error(), "upstream_error"),
    ] {
        let frame = Behaviour::error_event(&reply);
        app.openai.next(Behaviour::EventsThen(1, frame));
        let answer = app.generate(&key, &stream(2)).await.expect(200);
        let events = events(&answer);
        assert_eq!(names(&events), [DRAFT, "error"], "{code}");
        let (_, error) = &events[1];
        assert_eq!(error["type"], "error");
        assert_eq!(error["error"]["code"], code, "{error}");
        let details = &error["error"]["moderation_details"];
        let expected = match code {
            "moderation_blocked" => {
                json!({"moderation_stage": "input", "categories": ["violence"]})
            }
            _ => Value::Null,
        };
        assert_eq!(details, &expected, "{code}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_instead_of_any_event_is_plain_http() {
    let app = App::start().await;
    let key = app.live_key("1");
    let frame = Behaviour::error_event(&Reply::moderation_gpt());
    app.openai.next(Behaviour::EventsThen(0, frame));
    let answer = app.generate(&key, &stream(2)).await.expect(400);
    assert_eq!(answer.problem().code(), "moderation_blocked");
    // So it is where nobody streams, when the provider does so unasked.
    let frame = Behaviour::error_event(&Reply::moderation_gpt());
    app.openai.next(Behaviour::EventsThen(0, frame));
    let mut plain = stream(0);
    plain["stream"] = json!(false);
    let answer = app.generate(&key, &plain).await.expect(400);
    assert_eq!(answer.problem().code(), "moderation_blocked");
    assert_eq!(app.balance(&key).await, json!(1));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_a_stream_with_json_is_understood() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::PlainJson);
    let answer = app.generate(&key, &stream(2)).await.expect(200);
    assert_eq!(names(&events(&answer)), [PICTURE]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_odd_pieces_arrive() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai
        .next(Behaviour::Drip(100_003, Duration::from_millis(1)));
    let answer = app.generate(&key, &stream(3)).await.expect(200);
    assert_eq!(names(&events(&answer)), [DRAFT, DRAFT, DRAFT, PICTURE]);
    app.finish().await;
}

/// A form, sent with the key.
async fn edit(app: &App, key: &Key, path: &str, form: reqwest::multipart::Form) -> Answer {
    app.keep_secret(PROMPT, "a prompt");
    let request = app.client.request(Method::POST, path);
    let request = request.bearer_auth(&key.secret).multipart(form);
    app.client.send(request).await
}

fn file(bytes: &Bytes) -> reqwest::multipart::Part {
    // As an SDK that was given bytes: no type, and a name that says nothing.
    reqwest::multipart::Part::bytes(bytes.to_vec())
        .file_name("upload")
        .mime_str("application/octet-stream")
        .unwrap()
}

fn described(files: &[Part]) -> Vec<(&str, &str, &str)> {
    let text = |text: &Option<String>| -> &'static str { text.clone().unwrap().leak() };
    let files = files.iter();
    files
        .map(|file| {
            (
                file.name.as_str(),
                text(&file.file_name),
                text(&file.content_type),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_go_up_as_the_contract_has_them() {
    let app = App::start().await;
    let key = app.live_key("1");
    let png = pictures::paint("png", 512, 512, 7, false);
    let jpeg = pictures::paint("jpeg", 640, 480, 7, false);
    let mask = pictures::paint("png", 512, 512, 9, true);
    let form = reqwest::multipart::Form::new()
        .part("image[]", file(&png))
        .part("image[]", file(&jpeg))
        .part("mask", file(&mask))
        .text("model", "gpt-image-1")
        .text("prompt", PROMPT)
        .text("size", "1024x1024")
        .text("quality", "low")
        .text("input_fidelity", "high");
    let answer = edit(&app, &key, "/v1/images/edits", form).await.expect(200);
    assert_eq!(pictures::measure(&answer.picture(0)).width, 1024);
    let call = app.openai.only_call();
    assert_eq!(call.endpoint, Endpoint::Edits);
    assert_eq!(
        described(&call.files),
        [
            ("image[]", "image-1.png", "image/png"),
            ("image[]", "image-2.jpeg", "image/jpeg"),
            ("mask", "mask.png", "image/png"),
        ]
    );
    let contents: Vec<&Bytes> = call.files.iter().map(|file| &file.content).collect();
    assert_eq!(contents, [&png, &jpeg, &mask]);
    assert_eq!(
        call.body,
        json!({
            "model": "gpt-image-1", "prompt": PROMPT, "n": 1, "size": "1024x1024", "quality": "low",
            "input_fidelity": "high",
        })
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variations_go_up_without_a_prompt() {
    let app = App::start().await;
    let key = app.live_key("1");
    let png = pictures::paint("png", 512, 512, 7, false);
    let form = reqwest::multipart::Form::new()
        .part("image", file(&png))
        .text("model", "dall-e-2")
        .text("size", "256x256")
        .text("n", "2");
    let path = "/v1/images/variations";
    let answer = edit(&app, &key, path, form).await.expect(200);
    assert_eq!(answer.json()["usage"]["cost"], json!(0.032));
    let call = app.openai.only_call();
    assert_eq!(call.endpoint, Endpoint::Variations);
    assert_eq!(
        described(&call.files),
        [("image", "image.png", "image/png")]
    );
    assert_eq!(
        call.body,
        json!({ "model": "dall-e-2", "n": 2, "size": "256x256", "response_format": "b64_json" })
    );
    app.finish().await;
}
