//! `POST /v1/images/edits` and `/v1/images/variations`: forms and JSON, in every spelling that clients use.

mod painting;
mod refusals;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, App, Key, pictures};

pub(crate) const EDITS: &str = "/v1/images/edits";
pub(crate) const VARIATIONS: &str = "/v1/images/variations";
const PROMPT: &str = "the same otter with a lantern";
pub(crate) const BOUNDARY: &str = "otter-boundary-7f3a";

/// A part of a form: its head as it is on the wire, and its content.
#[derive(Clone)]
pub(crate) struct Part(String, Vec<u8>);

pub(crate) fn text(name: &str, value: &str) -> Part {
    let head = format!("Content-Disposition: form-data; name=\"{name}\"");
    Part(head, value.as_bytes().to_vec())
}

fn file(name: &str, file_name: &str, content_type: &str, content: &[u8]) -> Part {
    let head = format!(
        "Content-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: {content_type}"
    );
    Part(head, content.to_vec())
}

pub(crate) fn png(name: &str, content: &[u8]) -> Part {
    file(name, "otter.png", "image/png", content)
}

pub(crate) fn form(parts: &[Part]) -> Vec<u8> {
    let mut body = Vec::new();
    for Part(head, content) in parts {
        body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

pub(crate) async fn post(app: &App, key: &Key, path: &str, body: Vec<u8>) -> Answer {
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

pub(crate) fn square() -> Vec<u8> {
    pictures::paint("png", 512, 512, 7, false).to_vec()
}

fn mask() -> Vec<u8> {
    pictures::paint("png", 512, 512, 9, true).to_vec()
}

fn data_url(media_type: &str, content: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(content))
}

fn reference(content: &[u8]) -> Value {
    json!({"image_url": data_url("image/png", content)})
}

async fn edit_json(app: &App, key: &Key, body: &Value) -> Answer {
    app.keep_secret(PROMPT, "a prompt");
    let request = app
        .client
        .request(Method::POST, EDITS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(body.to_string());
    app.client.send(request).await
}

/// The refusal, which cost nothing and repeats no prompt.
async fn told(
    app: &App,
    key: &Key,
    before: &Value,
    answer: &Answer,
    expected: (u16, &str, &str),
) -> String {
    let problem = answer.problem();
    let (status, param, code) = expected;
    assert_eq!(
        (answer.status, problem.param(), problem.code()),
        (status, param, code),
        "{}",
        problem.message
    );
    assert_eq!(&app.credits(key).await, before, "{}", problem.message);
    assert!(!problem.message.contains("lantern"), "{}", problem.message);
    problem.message
}
