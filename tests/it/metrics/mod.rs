//! `/metrics`: what was served is counted, on the listener that the operator chose, and nobody's words are
//! labels.

mod dashboard;
mod exposition;

use std::sync::Arc;

use serde_json::json;

use self::exposition::Exposition;
use crate::support::{App, Behaviour, Client, Reply, Secrets};

async fn scrape(app: &App) -> Exposition {
    let metrics = app.client.get("/metrics", None).await.expect(200);
    assert_eq!(
        metrics.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    Exposition::read(std::str::from_utf8(&metrics.bytes).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_counted() {
    let app = App::builder()
        .await
        .set("providers.openai.markup_basis_points", 2500)
        .start()
        .await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-3", "prompt": "a lighthouse keeper's secret", "response_format": "url"});
    let hosted = app.generate(&key, &request).await.expect(200);
    let picture = app.open_link(&hosted.link(0)).await.expect(200);
    let relayed = json!({"model": "gpt-image-1", "prompt": "a lighthouse keeper's secret", "quality": "low",
        "size": "1024x1024", "stream": true});
    app.generate(&key, &relayed).await.expect(200);
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    app.generate(&key, &request).await.expect(502);
    let poor = app.live_key("0.01");
    app.generate(&poor, &request).await.expect(402);
    let unknown = json!({"model": "xylophone-1", "prompt": "a lighthouse keeper's secret"});
    app.generate(&key, &unknown).await.expect(404);
    app.client.get("/xylophone/knows", None).await.expect(404);
    let request = app.client.request(
        reqwest::Method::from_bytes(b"XYLOPHONE").unwrap(),
        "/v1/models",
    );
    app.client.send(request).await.expect(405);

    let told = scrape(&app).await;
    let posts = |model: &str, status: &str| {
        let labels = [
            ("method", "POST"),
            ("route", "/v1/images/generations"),
            ("model", model),
            ("status", status),
        ];
        told.value("easel_requests_total", &labels)
    };
    assert_eq!(posts("openai/dall-e-3", "200"), 1);
    assert_eq!(posts("openai/gpt-image-1", "200"), 1);
    assert_eq!(posts("openai/dall-e-3", "502"), 1);
    assert_eq!(posts("openai/dall-e-3", "402"), 1);
    assert_eq!(posts("unknown", "404"), 1);
    let route = [("route", "/v1/images/generations")];
    let dalle = [
        ("model", "openai/dall-e-3"),
        ("provider", "openai"),
        ("mode", "live"),
    ];
    let gpt = [("model", "openai/gpt-image-1"), dalle[1], dalle[2]];
    let openai = [("provider", "openai")];
    let model = [dalle[0]];
    let bytes = i64::try_from(picture.bytes.len()).unwrap();
    for (name, labels, expected) in [
        (
            "easel_requests_total",
            &[("route", "none"), ("model", ""), ("status", "404")][..],
            1,
        ),
        (
            "easel_requests_total",
            &[("method", "other"), ("status", "405")],
            1,
        ),
        ("easel_request_seconds_count", &route, 5),
        ("easel_exchange_seconds_count", &route, 5),
        ("easel_images_total", &dalle, 1),
        ("easel_images_total", &gpt, 1),
        ("easel_image_bytes_total", &dalle, bytes),
        // What it costs, and a quarter more.
        ("easel_upstream_cost_nano_usd_total", &dalle, 40_000_000),
        ("easel_charged_nano_usd_total", &dalle, 50_000_000),
        (
            "easel_generations_total",
            &[model[0], ("outcome", "completed")],
            1,
        ),
        (
            "easel_generations_total",
            &[model[0], ("outcome", "failed")],
            1,
        ),
        ("easel_generation_seconds_count", &model, 2),
        ("easel_attempts_total", &[openai[0], ("outcome", "ok")], 2),
        ("easel_attempt_seconds_count", &openai, 3),
        ("easel_hold_seconds_count", &[], 4),
        ("easel_settlement_seconds_count", &[], 3),
        ("easel_settlements_repeated_total", &[], 0),
        ("easel_settlements_lost_total", &[], 0),
        ("easel_balance_refusals_total", &[], 1),
        (
            "easel_store_bytes_total",
            &[("shelf", "disk"), ("direction", "read")],
            bytes,
        ),
        (
            "easel_store_bytes_total",
            &[("shelf", "bucket"), ("direction", "written")],
            0,
        ),
        ("easel_open_holds", &[], 0),
        ("easel_oldest_open_hold_seconds", &[], 0),
        ("easel_in_flight", &[], 0),
        ("easel_provider_in_flight", &openai, 0),
        ("easel_ledger_queue", &[("kind", "holds")], 0),
        ("easel_store_well", &[], 1),
        ("easel_config_reload_successful", &[], 1),
        (
            "easel_route_resting",
            &[openai[0], ("upstream_model", "dall-e-3")],
            0,
        ),
    ] {
        assert_eq!(told.value(name, labels), expected, "{name}{labels:?}");
    }
    let written = [("shelf", "disk"), ("direction", "written")];
    assert!(told.value("easel_store_bytes_total", &written) >= bytes);
    let swept = [("what", "holds"), ("outcome", "ok")];
    assert!(told.value("easel_sweeps_total", &swept) >= 1);
    assert!(told.value("easel_pool_connections", &[]) >= 1);
    for word in ["lighthouse", "xylophone", "XYLOPHONE", &key.secret, &key.id] {
        assert!(!told.text.contains(word), "{word} in\n{}", told.text);
    }
    app.finish().await;
}

/// Names, units and kinds are those that Prometheus asks for, of everything that is told.
#[tokio::test(flavor = "multi_thread")]
async fn figures_are_named_by_the_rules() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-3", "prompt": "a name for a boat"});
    app.generate(&key, &request).await.expect(200);
    let told = scrape(&app).await;
    assert!(told.families.len() > 30, "{:?}", told.families.keys());
    let faults = told.faults();
    assert!(faults.is_empty(), "{faults:#?}\n{}", told.text);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_can_have_an_address_of_their_own() {
    let token = "operator-of-the-figures-3c9e";
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let app = App::builder()
        .await
        .set("metrics.listen", address.as_str())
        .set("admin.token", token)
        .start()
        .await;
    app.client.get("/metrics", None).await.expect(404);
    let secrets = Arc::new(Secrets::default());
    let there = Client::new(format!("http://{address}"), secrets);
    let metrics = there.get("/metrics", None).await.expect(200);
    assert!(String::from_utf8_lossy(&metrics.bytes).contains("easel_in_flight"));
    there.get("/v1/models", None).await.expect(404);
    there.get("/files/x.png", None).await.expect(404);
    app.keep_secret(token, "the admin token");
    let config = "/admin/v1/config";
    app.client.get(config, Some(token)).await.expect(200);
    there.get(config, Some(token)).await.expect(404);
    app.finish().await;
}
