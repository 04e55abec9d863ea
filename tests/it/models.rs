//! `GET /v1/models`: `OpenAI`'s shape, with rules, prices and providers beside it.

use serde_json::{Value, json};

use crate::support::App;

fn find<'a>(list: &'a Value, id: &str) -> &'a Value {
    list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|model| model["id"] == id)
        .unwrap_or_else(|| panic!("{id} is not listed"))
}

/// What nobody has priced is not offered to who would have to pay for it; a test key may try everything.
#[tokio::test(flavor = "multi_thread")]
async fn live_keys_see_only_the_formats_that_they_may_use() {
    let app = App::start().await;
    let formats = async |key| {
        let path = "/v1/models/gpt-image-2.6-flare";
        let shown = app.get(&key, path).await.expect(200).json();
        shown["supported_parameters"].clone()
    };
    let live = formats(app.live_key("1")).await;
    let values = json!(["png", "jpeg", "webp", "gif"]);
    assert_eq!(live["output_format"]["values"], values);
    assert!(live.get("svg").is_none(), "{live}");
    assert!(!live["output_format"].to_string().contains("svg"), "{live}");
    let test = formats(app.test_key("1")).await;
    let values = json!(["png", "jpeg", "webp", "gif", "svg"]);
    assert_eq!(test["output_format"]["values"], values);
    assert!(test["svg"].is_object());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_every_openai_model() {
    let app = App::start().await;
    let key = app.live_key("1");
    let list = app.get(&key, "/v1/models").await.expect(200).json();
    assert_eq!(list["object"], "list");
    for name in [
        "dall-e-2",
        "dall-e-3",
        "gpt-image-1",
        "gpt-image-1-mini",
        "gpt-image-1.5",
        "gpt-image-2",
        "gpt-image-2.5-flare",
        "gpt-image-2.5-sunburst",
        "gpt-image-2.6-flare",
        "gpt-image-2.6-sunburst",
    ] {
        let model = find(&list, &format!("openai/{name}"));
        assert_eq!(model["object"], "model");
        assert!(
            model["created"].is_i64() && model["owned_by"].is_string(),
            "{model}"
        );
        assert!(
            model["aliases"].as_array().unwrap().contains(&json!(name)),
            "{model}"
        );
        assert!(
            matches!(
                model["status"].as_str(),
                Some("active" | "deprecated" | "retired")
            ),
            "{model}"
        );
        assert!(
            model["architecture"]["output_modalities"]
                .as_array()
                .unwrap()
                .contains(&json!("image"))
        );
        assert!(
            model["supported_parameters"]["prompt"].is_object(),
            "{model}"
        );
        assert!(
            !model["pricing"].is_null() && !model["providers"].as_array().unwrap().is_empty(),
            "{model}"
        );
    }
    assert_eq!(
        find(&list, "openai/dall-e-3")["shutdown_date"],
        "2026-05-12"
    );
    assert_eq!(
        find(&list, "openai/gpt-image-1")["shutdown_date"],
        "2026-10-23"
    );
    assert_eq!(
        find(&list, "openai/gpt-image-1.5")["shutdown_date"],
        "2026-12-01"
    );
    app.finish().await;
}

/// An app can build its form from this: values, ranges and defaults.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_shows_its_rules_and_prices() {
    let app = App::start().await;
    let key = app.live_key("1");
    let model = app
        .get(&key, "/v1/models/openai/dall-e-3")
        .await
        .expect(200)
        .json();
    let parameters = &model["supported_parameters"];
    assert_eq!(
        parameters["size"]["values"],
        json!(["1024x1024", "1792x1024", "1024x1792"])
    );
    assert_eq!(parameters["quality"]["default"], "standard");
    assert!(parameters.get("background").is_none());
    assert_eq!(model["pricing"]["currency"], "USD");
    assert_eq!(model["pricing"]["unit"], "image");
    let price = |size: &str, quality: &str| {
        let row = model["pricing"]["table"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["size"] == size && row["quality"] == quality);
        row.unwrap_or_else(|| panic!("no price of {size} {quality} in {}", model["pricing"]))["price"].clone()
    };
    assert_eq!(price("1024x1024", "standard"), json!(0.04));
    assert_eq!(price("1792x1024", "hd"), json!(0.12));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_found_by_id_alias_and_encoded_id() {
    let app = App::start().await;
    let key = app.live_key("1");
    for name in [
        "openai/dall-e-3",
        "openai%2Fdall-e-3",
        "dall-e-3",
        "dall%2De-3",
    ] {
        let model = app
            .get(&key, &format!("/v1/models/{name}"))
            .await
            .expect(200)
            .json();
        assert_eq!(model["id"], "openai/dall-e-3", "{name}");
    }
    for name in ["nobody/nothing", "openai%2Fnothing", "openai/", "%FF"] {
        let answer = app.get(&key, &format!("/v1/models/{name}")).await;
        assert!(
            matches!(answer.status, 400 | 404),
            "{name}: {}",
            answer.status
        );
        answer.problem();
    }
    let problem = app
        .get(&key, "/v1/models/nobody/nothing")
        .await
        .expect(404)
        .problem();
    assert_eq!(
        (problem.kind.as_str(), problem.code()),
        ("invalid_request_error", "model_not_found")
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_by_modality() {
    let app = App::start().await;
    let key = app.live_key("1");
    let all = app.get(&key, "/v1/models").await.expect(200).json();
    let images = app
        .get(&key, "/v1/models?output_modalities=image")
        .await
        .expect(200)
        .json();
    assert_eq!(all, images, "every model paints");
    let audio = app
        .get(&key, "/v1/models?output_modalities=audio")
        .await
        .expect(200)
        .json();
    assert_eq!(audio["data"], json!([]));
    app.finish().await;
}

/// A live key sees what it can use.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_key_sees_models_with_a_provider() {
    let app = App::builder()
        .await
        .remove("providers.openai.")
        .set("providers.openai.enabled", false)
        .start()
        .await;
    let live = app.live_key("1");
    let test = app.test_key("1");
    let live_list = app.get(&live, "/v1/models").await.expect(200).json();
    let test_list = app.get(&test, "/v1/models").await.expect(200).json();
    assert!(
        live_list["data"]
            .as_array()
            .unwrap()
            .iter()
            .all(|model| !model["id"].as_str().unwrap().starts_with("openai/"))
    );
    find(&test_list, "openai/dall-e-2");
    let problem = app
        .get(&live, "/v1/models/dall-e-2")
        .await
        .expect(404)
        .problem();
    assert!(
        matches!(problem.code(), "model_unavailable" | "model_not_found"),
        "{problem:?}"
    );
    app.finish().await;
}
