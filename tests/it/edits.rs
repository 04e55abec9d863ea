//! `POST /v1/images/edits` and `/v1/images/variations`: forms and JSON, in every spelling that clients use.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, App, Key, pictures};

const EDITS: &str = "/v1/images/edits";
const PROMPT: &str = "the same otter with a lantern";
const BOUNDARY: &str = "otter-boundary-7f3a";

/// A part of a form: its head as it is on the wire, and its content.
#[derive(Clone)]
struct Part(String, Vec<u8>);

fn text(name: &str, value: &str) -> Part {
    let head = format!("Content-Disposition: form-data; name=\"{name}\"");
    Part(head, value.as_bytes().to_vec())
}

fn file(name: &str, file_name: &str, content_type: &str, content: &[u8]) -> Part {
    let head = format!(
        "Content-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: {content_type}"
    );
    Part(head, content.to_vec())
}

fn png(name: &str, content: &[u8]) -> Part {
    file(name, "otter.png", "image/png", content)
}

fn form(parts: &[Part]) -> Vec<u8> {
    let mut body = Vec::new();
    for Part(head, content) in parts {
        body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

async fn post(app: &App, key: &Key, path: &str, body: Vec<u8>) -> Answer {
    let request = app
        .client
        .request(Method::POST, path)
        .bearer_auth(&key.secret)
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(body);
    app.client.send(request).await
}

async fn edit(app: &App, key: &Key, parts: &[Part]) -> Answer {
    app.keep_secret(PROMPT, "a prompt");
    post(app, key, EDITS, form(parts)).await
}

fn square() -> Vec<u8> {
    pictures::paint("png", 512, 512, 7, false).to_vec()
}

fn mask() -> Vec<u8> {
    pictures::paint("png", 512, 512, 9, true).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_in_every_spelling() {
    let app = App::start().await;
    let key = app.test_key("5");
    let model = || text("model", "easel/sandbox");
    let prompt = || text("prompt", PROMPT);
    let jpeg = pictures::paint("jpeg", 640, 480, 3, false).to_vec();
    let webp = pictures::paint("webp", 320, 320, 3, false).to_vec();
    for (name, parts) in [
        ("one", vec![model(), prompt(), png("image", &square())]),
        (
            "files first",
            vec![png("image", &square()), prompt(), model()],
        ),
        (
            "a list of one",
            vec![prompt(), model(), png("image[]", &square())],
        ),
        (
            "a list",
            vec![
                prompt(),
                model(),
                png("image[]", &square()),
                png("image[]", &jpeg),
                png("image[]", &webp),
            ],
        ),
        (
            "numbered",
            vec![
                prompt(),
                model(),
                png("image[1]", &jpeg),
                png("image[0]", &square()),
            ],
        ),
        (
            "repeated",
            vec![
                prompt(),
                model(),
                png("image", &square()),
                png("image", &jpeg),
            ],
        ),
        (
            "raw bytes",
            vec![
                prompt(),
                model(),
                file("image", "upload", "application/octet-stream", &square()),
            ],
        ),
        (
            "no name and no type",
            vec![
                prompt(),
                model(),
                Part(
                    "content-disposition: form-data; name=image".to_owned(),
                    square(),
                ),
            ],
        ),
        (
            "a wrong type",
            vec![
                prompt(),
                model(),
                file("image", "a.jpg", "image/jpeg", &square()),
            ],
        ),
        (
            "a mask, and fields left empty",
            vec![
                text("quality", ""),
                text("size", "null"),
                png("mask", &mask()),
                text("n", "1"),
                prompt(),
                model(),
                png("image", &square()),
                file("image", "", "application/octet-stream", b""),
            ],
        ),
    ] {
        let mut parts = parts;
        parts.push(text("response_format", "b64_json"));
        let answer = edit(&app, &key, &parts).await;
        assert_eq!(answer.status, 200, "{name}: {:?}", answer.bytes);
        let measured = pictures::measure(&answer.picture(0));
        assert_eq!(measured.width, 1024, "{name}");
        assert_eq!(answer.json()["usage"]["cost"], json!(0.001), "{name}");
    }
    app.finish().await;
}
