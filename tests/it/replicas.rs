//! Several Easels on one database.

use std::time::Duration;

use serde_json::json;

use crate::support::{App, Behaviour};

const PROMPT: &str = "twins who never meet";

/// A link made by one replica opens at another that has the same pictures; a key made at one is good at
/// the other; the balance is one.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_on_keys_balances_and_links() {
    let app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("0.04");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT});
    let answer = app.generate(&key, &request).await.expect(200);
    let other = second
        .client
        .post_json("/v1/images/generations", Some(&key.secret), &request)
        .await
        .expect(200);
    assert_eq!(other.json()["usage"]["cost"], json!(0.02));
    assert_eq!(
        second
            .client
            .post_json("/v1/images/generations", Some(&key.secret), &request)
            .await
            .status,
        402
    );
    let path = answer
        .link(0)
        .split_once("/files/")
        .map(|(_, rest)| format!("/files/{rest}"))
        .unwrap();
    second.client.get(&path, None).await.expect(200);
    second.stop().await;
    app.finish().await;
}

/// What a dead replica held is released by any other within 30 seconds (design, section 9).
#[tokio::test(flavor = "multi_thread")]
async fn the_holds_of_a_dead_replica_are_released_by_another() {
    let mut app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    app.openai.always(Behaviour::Never);
    let request = app
        .client
        .request(reqwest::Method::POST, "/v1/images/generations")
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(json!({"model": "dall-e-3", "prompt": PROMPT}).to_string());
    let crash = async {
        app.openai.wait_for_call().await;
        app.easel.signal(rustix::process::Signal::KILL);
    };
    let (lost, ()) = tokio::join!(app.client.try_send(request), crash);
    assert!(lost.is_err());
    app.lost_a_call();
    let begun = std::time::Instant::now();
    loop {
        let credits = second
            .client
            .get("/v1/credits", Some(&key.secret))
            .await
            .expect(200)
            .json();
        if credits["held"] == json!(0) {
            assert_eq!(credits["balance"], json!(1));
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "still held after 30 s: {credits}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        app.database.texts("select status from generations").await,
        ["abandoned"]
    );
    second.stop().await;
    app.easel.ended(Duration::from_secs(5)).await;
    app.start_again().await;
    app.finish().await;
}
