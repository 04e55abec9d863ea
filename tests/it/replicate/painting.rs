//! What is asked for and what comes: every model at its price, formats, seeds, and outputs of every shape.

use serde_json::json;

use super::{PROMPT, SCHNELL, Studio, base64, request, several};
use crate::support::{
    fake_replicate::{Behaviour, COMMUNITY_MODEL, End, Script, Shape, UNKNOWN},
    pictures::measure,
    usd,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_model_paints_at_its_price() {
    let studio = Studio::open().await;
    for (model, size, painted, cost) in [
        ("flux-1-schnell", "1792x1024", (1344, 768), 3_000_000),
        ("flux-1-schnell", "512x512", (512, 512), 3_000_000),
        ("flux-1-dev", "auto", (1024, 1024), 25_000_000),
        ("flux-1-pro", "1536x1024", (1248, 832), 55_000_000),
        ("flux-1-pro", "256x1440", (256, 1440), 55_000_000),
        ("flux-1.1-pro", "1024x1024", (1024, 1024), 40_000_000),
        ("flux-1.1-pro-ultra", "2048x2048", (2048, 2048), 60_000_000),
        ("flux-2-pro", "1024x1024", (1024, 1024), 30_000_000),
        ("flux-2-pro", "1056x1024", (1056, 1024), 50_000_000),
        ("flux-2-pro", "2048x2048", (2048, 2048), 90_000_000),
        ("flux-2-flex", "1024x512", (1024, 512), 60_000_000),
        ("flux-2-flex", "1040x1024", (1040, 1024), 120_000_000),
        ("flux-2-dev", "1024x1024", (1024, 1024), 12_000_000),
        // A ratio: what came is charged, not what was asked for.
        ("flux-2-dev", "1536x1024", (1248, 832), 12_000_000),
        ("flux-kontext-pro", "1024x1536", (832, 1248), 40_000_000),
        ("flux-kontext-max", "auto", (1024, 1024), 80_000_000),
    ] {
        let answer = studio
            .paint(&json!({"model": model, "prompt": PROMPT, "size": size}))
            .await;
        assert_eq!(answer["usage"]["cost"], usd(cost), "{model} {size}");
        assert_eq!(answer["model"], format!("black-forest-labs/{model}"));
        let link = answer["data"][0]["url"].as_str().unwrap();
        let picture = measure(&studio.app.open_link(link).await.expect(200).bytes);
        assert_eq!((picture.width, picture.height), painted, "{model} {size}");
        assert_eq!(picture.format, "png", "clients expect png: {model}");
    }
    let creates = studio.replicate.creates();
    for create in &creates {
        assert_eq!(create.headers["prefer"], "wait=60", "{}", create.model);
        assert_eq!(create.headers["cancel-after"], "300s", "{}", create.model);
    }
    assert_eq!(studio.replicate.questions(), 0, "waiting was enough");
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_are_asked_for_by_the_provider_s_words() {
    let studio = Studio::open().await;
    for (format, painted) in [("jpeg", "jpeg"), ("webp", "webp"), ("png", "png")] {
        let answer = studio
            .paint(&json!({"model": "flux-1-pro", "prompt": PROMPT, "output_format": format, "response_format": "b64_json"}))
            .await;
        let file = base64(&answer["data"][0]["b64_json"]);
        assert_eq!(measure(&file).format, painted);
    }
    let compressed = json!({"model": SCHNELL, "prompt": PROMPT, "output_format": "jpeg", "output_compression": 60});
    studio.paint(&compressed).await;
    let last = studio.replicate.creates().pop().unwrap();
    assert_eq!(last.input["output_quality"], 60);
    studio.close().await;
}

/// Of several pictures by a call each, each has the seed after the one before it.
#[tokio::test(flavor = "multi_thread")]
async fn seeds_go_along_and_are_counted_on() {
    let studio = Studio::open().await;
    for (model, n, seeds) in [("flux-1-pro", 3, vec![7, 8, 9]), (SCHNELL, 6, vec![7, 11])] {
        let before = studio.replicate.creates().len();
        let mut request = request(model);
        request["n"] = json!(n);
        request["seed"] = json!(7);
        studio.paint(&request).await;
        let creates = studio.replicate.creates().split_off(before);
        let mut said: Vec<_> = creates
            .iter()
            .map(|create| create.input["seed"].as_u64().unwrap())
            .collect();
        said.sort_unstable();
        assert_eq!(said, seeds, "{model}");
    }
    studio.close().await;
}

/// Rules refuse by name what the models do not take, before anything is asked upstream.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_does_not_take_is_refused_by_name() {
    let studio = Studio::open().await;
    for (parameter, value) in [
        ("size", json!("2048x2048")),
        ("quality", json!("hd")),
        ("background", json!("transparent")),
        ("moderation", json!("low")),
        ("style", json!("vivid")),
        ("output_compression", json!(50)),
    ] {
        let mut request = request("flux-1-pro");
        request[parameter] = value;
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), parameter, "{problem:?}");
    }
    assert!(studio.replicate.creates().is_empty());
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_take_as_few_predictions_as_the_model_allows() {
    let studio = Studio::open().await;
    for (model, n, predictions, cost) in [
        ("flux-1-schnell", 4, 1, 12_000_000),
        ("flux-1-schnell", 6, 2, 18_000_000),
        ("flux-1-pro", 3, 3, 165_000_000),
    ] {
        let before = studio.replicate.creates().len();
        let mut request = request(model);
        request["n"] = json!(n);
        let answer = studio.paint(&request).await;
        assert_eq!(answer["data"].as_array().unwrap().len(), n);
        assert_eq!(answer["usage"]["cost"], usd(cost));
        assert_eq!(studio.replicate.creates().len() - before, predictions);
    }
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_of_output_is_read() {
    let studio = Studio::open().await;
    for (shape, fetched) in [(Shape::Links, 3), (Shape::DataUrls, 0), (Shape::Mixed, 1)] {
        let before = studio.replicate.files_fetched();
        studio.replicate.next(Script::shaped(shape));
        let answer = studio.paint(&several(3)).await;
        assert_eq!(answer["usage"]["cost"], usd(9_000_000), "{shape:?}");
        for picture in answer["data"].as_array().unwrap() {
            assert_eq!(measure(&base64(&picture["b64_json"])).width, 1024);
        }
        let fetched_now = studio.replicate.files_fetched() - before;
        assert_eq!(fetched_now, fetched, "{shape:?}");
    }
    // A string instead of a list.
    studio.replicate.next(Script::shaped(Shape::DataUrls));
    let answer = studio.paint(&request("flux-1.1-pro")).await;
    assert!(answer["data"][0]["url"].is_string());
    // What holds no pictures in any shape we know is no success, and not made again: it may be charged.
    studio.replicate.next(Script::ends(End::SucceededOddly));
    assert_eq!(studio.fail(&several(2)).await.0, 502);
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_output_is_enough_although_the_status_lags() {
    let studio = Studio::open().await;
    for (lagging, created) in [("processing", 201), ("processing", 200), ("starting", 201)] {
        studio.replicate.next(Behaviour::Run(Script {
            lagging: Some(lagging),
            created,
            ..Script::default()
        }));
        studio.paint(&several(2)).await;
        assert_eq!(studio.replicate.questions(), 0, "{lagging} {created}");
    }
    // In any other answer it may be a part.
    studio.replicate.next(Behaviour::Run(Script {
        lagging: Some("processing"),
        created: 202,
        ..Script::default()
    }));
    studio.paint(&several(2)).await;
    assert_eq!(studio.replicate.questions(), 1);
    studio.close().await;
}

/// Not every answer has the status of a creation.
#[tokio::test(flavor = "multi_thread")]
async fn every_documented_status_of_success_is_one() {
    let studio = Studio::open().await;
    for created in [200, 201, 202] {
        studio.replicate.next(Behaviour::Run(Script {
            created,
            ..Script::default()
        }));
        studio.paint(&several(1)).await;
    }
    assert_eq!(studio.replicate.questions(), 0);
    studio.close().await;
}

/// Models that are not official are reached by a version, and billed by the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_community_model_is_reached_by_its_version() {
    let version = format!("{COMMUNITY_MODEL}:{}", "5c7d".repeat(16));
    let models = format!(
        r#"
        [[model]]
        id = "somebody/otters"
        name = "Otters"
        created = 1722470400
        owned_by = "somebody"
        status = "active"
        [model.rules]
        prompt = {{ max_chars = 1000 }}
        n = {{ min = 1, max = 1, default = 1 }}
        size = {{ values = ["auto"], default = "auto" }}
        response_format = {{ values = ["url", "b64_json"], default = "url" }}
        [[model.routes]]
        provider = "replicate"
        upstream_model = "{version}"
        translation.size.table = []
        price = {{ per_image = [{{ price = "0.01" }}] }}
        "#
    );
    let studio = Studio::with_models(&[], &models).await;
    studio.paint(&request("somebody/otters")).await;
    assert!(studio.replicate.creates()[0].by_version);
    // So a failure may have cost something, and is not repeated.
    studio.replicate.next(Script::ends(End::Failed(UNKNOWN)));
    assert_eq!(studio.fail(&request("somebody/otters")).await.0, 502);
    assert_eq!(studio.replicate.creates().len(), 2);
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}
