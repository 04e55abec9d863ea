//! A client that leaves does not cancel a paid generation (I7).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{App, Key, pictures, raw::Raw};

const PROMPT: &str = "a letter that was never collected";

/// Posts and hangs up while the provider works.
async fn post_and_leave(app: &App, key: &Key, request: &Value) {
    let gate = app.openai.gate();
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&Raw::post(
        "/v1/images/generations",
        &key.secret,
        &request.to_string(),
    ))
    .await;
    app.openai.wait_for_call().await;
    drop(raw);
    gate.add_permits(1);
}

async fn state_when_ended(app: &App, key: &Key, query: &str) -> Value {
    let id = app
        .database
        .texts("select id from generations")
        .await
        .remove(0);
    for _ in 0..400 {
        let state = app
            .get(key, &format!("/v1/images/generations/{id}{query}"))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&state["id"], &state["object"]),
            (&json!(id), &json!("image.generation"))
        );
        if state["status"] != "in_progress" {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the generation did not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generation_is_finished_charged_and_kept() {
    let app = App::start().await;
    let key = app.live_key("1");
    post_and_leave(&app, &key, &json!({"model": "dall-e-3", "prompt": PROMPT})).await;
    let state = state_when_ended(&app, &key, "").await;
    assert_eq!(state["status"], "completed", "{state}");
    assert_eq!(state["model"], "openai/dall-e-3");
    assert_eq!(state["provider"], "openai");
    assert_eq!(state["cost"], json!(0.04));
    let link = state["data"][0]["url"].as_str().unwrap();
    assert_eq!(
        pictures::measure(&app.open_link(link).await.expect(200).bytes).width,
        1024
    );
    assert_eq!(app.balance(&key).await, json!(0.96));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generation_can_be_fetched_as_base64() {
    let app = App::start().await;
    let key = app.live_key("1");
    post_and_leave(
        &app,
        &key,
        &json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024"}),
    )
    .await;
    let state = state_when_ended(&app, &key, "?response_format=b64_json").await;
    assert!(
        state["data"][0]["b64_json"].is_string(),
        "{}",
        state["data"][0]
    );
    assert!(state["data"][0].get("url").is_none());
    app.finish().await;
}

/// It belongs to the account: another's key does not find it.
#[tokio::test(flavor = "multi_thread")]
async fn another_account_does_not_see_it() {
    let app = App::start().await;
    let key = app.live_key("1");
    let stranger = app.live_key("1");
    let answer = app
        .generate(&key, &json!({"model": "dall-e-2", "prompt": PROMPT}))
        .await
        .expect(200);
    let path = format!(
        "/v1/images/generations/{}",
        answer.header("x-generation-id")
    );
    app.get(&key, &path).await.expect(200);
    app.get(&stranger, &path).await.expect(404).problem();
    app.get(
        &key,
        "/v1/images/generations/gen_00000000000000000000000000000000",
    )
    .await
    .expect(404)
    .problem();
    app.get(&key, "/v1/images/generations/nonsense")
        .await
        .expect(404)
        .problem();
    app.client.get(&path, None).await.expect(401).problem();
    app.finish().await;
}
