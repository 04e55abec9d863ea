//! The fake refuses what the contract says is refused, or the other tests would prove little.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, Secrets,
    fake_google::{API_KEY, FakeGoogle},
    pictures::paint,
};

/// A request that Google takes.
fn gemini() -> Value {
    json!({
        "contents": [{"role": "user", "parts": [{"text": "a hill"}]}],
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "3:2", "imageSize": "2K"},
            "thinkingConfig": {"thinkingLevel": "MINIMAL"},
        },
    })
}

fn imagen() -> Value {
    json!({
        "instances": [{"prompt": "a hill"}],
        "parameters": {"sampleCount": 2, "aspectRatio": "3:4", "imageSize": "2K", "includeRaiReason": true},
    })
}

/// The document with the value at this pointer set, or gone.
fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    match value {
        Value::Null => drop(parent.as_object_mut().unwrap().remove(name)),
        value => parent[name] = value,
    }
    document
}

fn request(client: &Client, path: &str, body: &Value) -> reqwest::RequestBuilder {
    client
        .request(Method::POST, path)
        .header("content-type", "application/json")
        .body(body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_is_strict() {
    let fake = FakeGoogle::legacy().await;
    let client = Client::new(fake.base_url(), Arc::new(Secrets::default()));
    let post = async |call: &str, body: &Value| {
        let request = request(&client, &format!("/models/{call}"), body);
        client.send(request.header("x-goog-api-key", API_KEY)).await
    };
    let banana = "gemini-nano-banana-2.1:generateContent";
    let imagen_4 = "imagen-4.0-generate-001:predict";
    post(banana, &gemini()).await.expect(200);
    post(imagen_4, &imagen()).await.expect(200);

    let config = "/generationConfig";
    let png = STANDARD.encode(paint("png", 64, 64, 1, false));
    let blob = |kind: &str, data: &str| json!([{"text": "a hill"}, {"inlineData": {"mimeType": kind, "data": data}}]);
    let parts = "/contents/0/parts";
    post(banana, &with(gemini(), parts, blob("image/png", &png)))
        .await
        .expect(200);
    for (call, body) in [
        (banana, with(gemini(), "/contents/0/role", Value::Null)),
        (banana, with(gemini(), parts, json!([{"text": ""}]))),
        (banana, with(gemini(), parts, json!([]))),
        (banana, with(gemini(), parts, blob("image/jpeg", &png))),
        (
            banana,
            with(gemini(), parts, blob("image/png", &png[..400])),
        ),
        (banana, with(gemini(), parts, blob("image/png", "%%%%"))),
        (banana, with(gemini(), "/surprise", json!(1))),
        (
            banana,
            with(gemini(), &format!("{config}/candidateCount"), json!(2)),
        ),
        (
            banana,
            with(
                gemini(),
                &format!("{config}/responseModalities"),
                json!(["TEXT"]),
            ),
        ),
        (
            banana,
            with(
                gemini(),
                &format!("{config}/imageConfig/imageSize"),
                json!("2k"),
            ),
        ),
        (
            banana,
            with(
                gemini(),
                &format!("{config}/imageConfig/imageSize"),
                json!("512"),
            ),
        ),
        (
            banana,
            with(
                gemini(),
                &format!("{config}/imageConfig/aspectRatio"),
                json!("3:1"),
            ),
        ),
        (
            banana,
            with(
                gemini(),
                &format!("{config}/thinkingConfig/thinkingLevel"),
                json!("LOW"),
            ),
        ),
        (banana, with(gemini(), "/safetySettings", json!({}))),
        ("gemini-2.5-flash-image:generateContent", gemini()),
        (
            imagen_4,
            with(imagen(), "/parameters/sampleCount", json!(5)),
        ),
        (
            imagen_4,
            with(imagen(), "/parameters/sampleCount", Value::Null),
        ),
        (
            imagen_4,
            with(imagen(), "/parameters/aspectRatio", json!("3:2")),
        ),
        (
            imagen_4,
            with(imagen(), "/parameters/imageSize", json!("4K")),
        ),
        (
            imagen_4,
            with(imagen(), "/parameters/sampleImageSize", json!("2K")),
        ),
        (imagen_4, with(imagen(), "/parameters/seed", json!(7))),
        (
            imagen_4,
            with(
                imagen(),
                "/parameters/outputOptions",
                json!({"mimeType": "image/webp"}),
            ),
        ),
        (
            imagen_4,
            with(imagen(), "/instances/0/prompt", json!("hill ".repeat(500))),
        ),
        ("imagen-4.0-fast-generate-001:predict", imagen()),
    ] {
        let answer = post(call, &body).await;
        assert_eq!(answer.status, 400, "{call} {body}");
        assert_eq!(answer.json()["error"]["status"], "INVALID_ARGUMENT");
    }
    for call in [
        "gemini-nano-banana-2.1:predict",
        "gemini-nano-banana-2.1",
        "imagen-4.0-generate-001:generateContent",
        "gemini-3-pro-image-preview:generateContent",
    ] {
        post(call, &gemini()).await.expect(404);
    }
    // The key is looked at first, and in its header only.
    let path = format!("/models/{banana}");
    for (path, key, status) in [
        (path.clone(), None, 403),
        (path.clone(), Some("AIzaWrong"), 400),
        (format!("{path}?key={API_KEY}"), None, 400),
        (format!("{path}?key={API_KEY}"), Some(API_KEY), 400),
    ] {
        let mut request = request(&client, &path, &gemini());
        if let Some(key) = key {
            request = request.header("x-goog-api-key", key);
        }
        client.send(request).await.expect(status);
    }
    // Imagen is dead but for those who know an old copy.
    let fake = FakeGoogle::start().await;
    let client = Client::new(fake.base_url(), Arc::new(Secrets::default()));
    let request = request(&client, &format!("/models/{imagen_4}"), &imagen());
    let request = request.header("x-goog-api-key", API_KEY);
    let answer = client.send(request).await.expect(404).json();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("no longer available"), "{message}");
}
