//! `/metrics`: what was served is counted, on the listener that the operator chose, and nobody's words are
//! labels.

use std::sync::Arc;

use serde_json::json;

use crate::support::{App, Client, Secrets};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_counted() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-3", "prompt": "a lighthouse keeper's secret"});
    app.generate(&key, &request).await.expect(200);
    let poor = app.live_key("0.01");
    app.generate(&poor, &request).await.expect(402);
    app.client.get("/xylophone/knows", None).await.expect(404);
    let metrics = app.client.get("/metrics", None).await.expect(200);
    assert_eq!(
        metrics.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    let count = |line: &str| assert!(text.contains(line), "{line} in\n{text}");
    count("easel_requests_total{method=\"GET\",route=\"none\",model=\"\",status=\"404\"} 1");
    count("easel_images_total{model=\"openai/dall-e-3\",provider=\"openai\",mode=\"live\"} 1");
    count(
        "easel_charged_nano_usd_total{model=\"openai/dall-e-3\",provider=\"openai\",mode=\"live\"} 40000000",
    );
    count("easel_attempts_total{provider=\"openai\",outcome=\"ok\"} 1");
    count("easel_generations_total{model=\"openai/dall-e-3\",outcome=\"completed\"} 1");
    count("easel_hold_seconds_count 2");
    count("easel_settlement_seconds_count 1");
    count("easel_balance_refusals_total 1");
    count("easel_open_holds 0");
    count("easel_in_flight 0");
    count("easel_route_resting{provider=\"openai\",upstream_model=\"dall-e-3\"} 0");
    for word in ["lighthouse", "xylophone", &key.secret] {
        assert!(!text.contains(word), "{word} in\n{text}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_can_have_an_address_of_their_own() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let app = App::builder()
        .await
        .set("metrics.listen", address.as_str())
        .start()
        .await;
    app.client.get("/metrics", None).await.expect(404);
    let secrets = Arc::new(Secrets::default());
    let there = Client::new(format!("http://{address}"), secrets);
    let metrics = there.get("/metrics", None).await.expect(200);
    assert!(String::from_utf8_lossy(&metrics.bytes).contains("easel_in_flight"));
    there.get("/v1/models", None).await.expect(404);
    there.get("/files/x.png", None).await.expect(404);
    app.finish().await;
}
