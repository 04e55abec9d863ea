//! One client request is one charge (I8), however often it comes and wherever.

mod names;
mod sdk;
mod told_again;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, App, Client, Key};

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a heron that is painted once";
const REPLAYED: &str = "idempotent-replayed";

/// Posts it under a name.
async fn named(client: &Client, key: &Key, name: &str, body: &Value) -> Answer {
    post(client, key, &[("idempotency-key", name)], body).await
}

/// Posts it as an SDK does that has asked so often before.
async fn again(client: &Client, key: &Key, retry_count: u16, body: &Value) -> Answer {
    let retry_count = retry_count.to_string();
    post(
        client,
        key,
        &[("x-stainless-retry-count", &retry_count)],
        body,
    )
    .await
}

async fn post(client: &Client, key: &Key, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut request = client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.find_header(REPLAYED) == Some("true")
}

fn small(response_format: &str) -> Value {
    json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "response_format": response_format})
}

/// Returns how many.
fn remove_pictures(app: &App) -> usize {
    let pictures = app.kept_files();
    for picture in &pictures {
        std::fs::remove_file(picture).unwrap();
    }
    pictures.len()
}
