//! The main job: a request in, pictures out, in the form each model family has.

use serde_json::{Value, json};

use crate::support::{App, Behaviour, fake_openai, pictures, pictures::Measured};

fn measured(format: &'static str, width: usize, height: usize) -> Measured {
    Measured {
        format,
        width,
        height,
    }
}

/// What every answer has, whatever the model.
fn check_answer(answer: &crate::support::Answer, model: &str, pictures: usize) -> Value {
    assert!(answer.header("x-request-id").starts_with("req_"));
    assert!(answer.header("x-generation-id").starts_with("gen_"));
    let body = answer.json();
    assert_eq!(body["model"], model, "{body}");
    assert_eq!(body["provider"], "openai");
    assert!(
        body["created"]
            .as_i64()
            .is_some_and(|created| created > 1_700_000_000)
    );
    assert_eq!(body["data"].as_array().unwrap().len(), pictures);
    assert!(body.get("failed").is_none());
    for name in ["total_tokens", "input_tokens", "output_tokens"] {
        assert!(body["usage"][name].is_u64(), "{name} in {}", body["usage"]);
    }
    assert!(body["usage"]["input_tokens_details"]["text_tokens"].is_u64());
    assert!(body["usage"]["input_tokens_details"]["image_tokens"].is_u64());
    assert!(body["usage"]["cost"].is_number());
    // Absent fields are left out, never null.
    assert!(
        !answer_text(answer).contains("null"),
        "{}",
        answer_text(answer)
    );
    body
}

/// `size`, `quality`, `background` and `output_format` are for models that let one choose the format.
const DALL_E_ANSWER: &[&str] = &["created", "data", "model", "provider", "usage"];

fn names(body: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

fn answer_text(answer: &crate::support::Answer) -> String {
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    // Base64 may spell anything.
    let mut body: Value = serde_json::from_str(&text).unwrap();
    for item in body["data"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("b64_json");
    }
    body.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn dall_e_2_brings_four_links_by_default() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening", "n": 4, "size": "512x512"});
    let answer = app.generate(&key, &request).await.expect(200);
    let body = check_answer(&answer, "openai/dall-e-2", 4);
    assert_eq!(names(&body), DALL_E_ANSWER);
    assert_eq!(body["usage"]["total_tokens"], 0);
    assert_eq!(body["usage"]["cost"], json!(0.072));
    let mut seen = Vec::new();
    for index in 0..4 {
        let item = body["data"][index].as_object().unwrap();
        assert_eq!(item.keys().collect::<Vec<_>>(), ["url"]);
        let file = app.open_link(&answer.link(index)).await.expect(200);
        assert_eq!(pictures::measure(&file.bytes), measured("png", 512, 512));
        assert!(!seen.contains(&file.bytes), "four different pictures");
        seen.push(file.bytes);
    }
    assert_eq!(app.openai.only_call().body["n"], 4);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dall_e_3_brings_base64_and_the_revised_prompt() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({
        "model": "openai/dall-e-3", "prompt": "a lighthouse in the evening", "quality": "hd", "style": "natural",
        "size": "1792x1024", "response_format": "b64_json", "user": "end-user-17",
    });
    let answer = app.generate(&key, &request).await.expect(200);
    let body = check_answer(&answer, "openai/dall-e-3", 1);
    assert_eq!(names(&body), DALL_E_ANSWER);
    assert_eq!(
        body["data"][0]["revised_prompt"],
        fake_openai::REVISED_PROMPT
    );
    assert!(body["data"][0].get("url").is_none());
    assert_eq!(
        pictures::measure(&answer.picture(0)),
        measured("png", 1792, 1024)
    );
    assert_eq!(body["usage"]["cost"], json!(0.12));
    let sent = app.openai.only_call().body;
    for (name, value) in [
        ("model", "dall-e-3"),
        ("quality", "hd"),
        ("style", "natural"),
        ("size", "1792x1024"),
        ("user", "end-user-17"),
    ] {
        assert_eq!(sent[name], value, "{sent}");
    }
    assert!(sent.get("provider").is_none());
    app.finish().await;
}

/// Who pins a model gets that one and not what it has become since; rules and price are the model's.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_upstream_by_its_own_name() {
    let app = App::start().await;
    let live = app.live_key("5");
    let test = app.test_key("5");
    for (model, snapshot) in [
        ("gpt-image-1.5", "gpt-image-1.5-2025-12-16"),
        ("gpt-image-2", "gpt-image-2-2026-04-21"),
        ("gpt-image-2.5-flare", "gpt-image-2.5-flare-2026-09-08"),
        (
            "gpt-image-2.5-sunburst",
            "gpt-image-2.5-sunburst-2026-09-08",
        ),
    ] {
        let id = format!("openai/{model}");
        let mut costs = Vec::new();
        for (asked, upstream) in [
            (id.as_str(), model),
            (model, model),
            (snapshot, snapshot),
            (&snapshot.to_uppercase(), snapshot),
        ] {
            let request = json!({
                "model": asked, "prompt": "a lighthouse in the evening", "size": "1024x1024", "quality": "low",
            });
            let answer = app.generate(&live, &request).await.expect(200);
            costs.push(check_answer(&answer, &id, 1)["usage"]["cost"].clone());
            let calls = app.openai.calls();
            assert_eq!(calls.last().unwrap().body["model"], upstream, "{asked}");
            let generation = answer.header("x-generation-id");
            let recorded = format!(
                "select count(*) from attempts a join generations g on g.id = a.generation_id \
                 where g.id = '{generation}' and g.model = '{id}' \
                     and a.upstream_model = '{upstream}' and g.upstream_model = '{upstream}'"
            );
            assert_eq!(app.database.number(&recorded).await, 1, "{asked}");
            app.generate(&test, &request).await.expect(200);
        }
        assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
        let shown = app
            .get(&live, &format!("/v1/models/{snapshot}"))
            .await
            .expect(200)
            .json();
        assert_eq!(shown["id"], id);
        assert_eq!(shown["aliases"], json!([model, snapshot]));
        let listed = app.get(&live, &format!("/v1/models/{id}")).await;
        assert_eq!(listed.expect(200).json(), shown);
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gpt_image_brings_base64_by_default_in_every_format() {
    let app = App::start().await;
    let key = app.live_key("5");
    for (format, size, (width, height)) in [
        ("png", "1024x1024", (1024, 1024)),
        ("jpeg", "1536x1024", (1536, 1024)),
        ("webp", "1024x1536", (1024, 1536)),
    ] {
        let mut request = json!({
            "model": "gpt-image-1", "prompt": "a lighthouse in the evening", "size": size, "output_format": format,
            "quality": "low", "moderation": "low",
        });
        if format != "png" {
            request["output_compression"] = json!(80);
        }
        let answer = app.generate(&key, &request).await.expect(200);
        let body = check_answer(&answer, "openai/gpt-image-1", 1);
        for (name, value) in [
            ("output_format", format),
            ("size", size),
            ("quality", "low"),
            ("background", "opaque"),
        ] {
            assert_eq!(body[name], value, "{format}");
        }
        let decoded = pictures::measure(&answer.picture(0));
        assert_eq!(
            (decoded.format, decoded.width, decoded.height),
            (format, width, height)
        );
    }
    for call in app.openai.calls() {
        assert!(
            call.body.get("response_format").is_none(),
            "gpt-image refuses response_format"
        );
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gpt_image_brings_links_when_asked() {
    let app = App::start().await;
    let key = app.live_key("5");
    let request = json!({
        "model": "gpt-image-2", "prompt": "a lighthouse in the evening", "size": "1280x720", "quality": "medium",
        "output_format": "webp", "background": "opaque", "response_format": "url", "n": 2,
    });
    let answer = app.generate(&key, &request).await.expect(200);
    let body = check_answer(&answer, "openai/gpt-image-2", 2);
    for index in 0..2 {
        assert!(body["data"][index].get("b64_json").is_none());
        let file = app.open_link(&answer.link(index)).await.expect(200);
        assert_eq!(file.header("content-type"), "image/webp");
        assert_eq!(pictures::measure(&file.bytes), measured("webp", 1280, 720));
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_resolves_is_in_the_answer() {
    let app = App::start().await;
    let key = app.live_key("5");
    let request = json!({"model": "gpt-image-1.5", "prompt": "a lighthouse in the evening"});
    let answer = app.generate(&key, &request).await.expect(200);
    let body = check_answer(&answer, "openai/gpt-image-1.5", 1);
    assert_eq!(
        (&body["size"], &body["quality"]),
        (&json!("1536x1024"), &json!("high"))
    );
    assert_eq!(body["usage"]["output_tokens"], 6208);
    assert_eq!(
        body["usage"]["input_tokens"],
        fake_openai::input_tokens("a lighthouse in the evening")
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transparency_survives() {
    let app = App::start().await;
    let key = app.live_key("5");
    for format in ["png", "webp"] {
        let request = json!({
            "model": "gpt-image-1", "prompt": "a lighthouse in the evening", "quality": "low", "size": "1024x1024",
            "background": "transparent", "output_format": format,
        });
        let answer = app.generate(&key, &request).await.expect(200);
        assert_eq!(answer.json()["background"], "transparent");
        assert!(pictures::is_transparent(&answer.picture(0)), "{format}");
    }
    app.finish().await;
}

/// The picture that the client gets is the provider's, byte for byte, either way.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_pass_through_unchanged() {
    let app = App::start().await;
    let key = app.live_key("5");
    let original = pictures::paint("png", 1024, 1024, 10, false);
    for format in ["url", "b64_json"] {
        let request = json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening", "response_format": format});
        let answer = app.generate(&key, &request).await.expect(200);
        let bytes = match format {
            "url" => app
                .open_link(&answer.link(0))
                .await
                .expect(200)
                .bytes
                .to_vec(),
            _ => answer.picture(0),
        };
        assert!(
            bytes == original,
            "{format}: {} bytes, {} bytes at the provider",
            bytes.len(),
            original.len()
        );
    }
    app.finish().await;
}

/// `null` means that a field was not given; nothing null goes upstream (the fake refuses it).
#[tokio::test(flavor = "multi_thread")]
async fn null_means_absent() {
    let app = App::start().await;
    let key = app.live_key("5");
    let request = json!({
        "model": "gpt-image-2", "prompt": "a lighthouse in the evening", "n": null, "size": null, "quality": "low",
        "response_format": null, "style": null, "background": null, "output_format": null,
        "output_compression": null, "moderation": null, "stream": null, "partial_images": null,
        "complexity": null, "frame_count": null, "frame_duration_ms": null, "svg": null,
        "safety_identifier": null, "user": null, "provider": null,
    });
    app.generate(&key, &request).await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_model_gets_the_default_of_its_parameters() {
    let app = App::start().await;
    let key = app.live_key("5");
    let prompt = "a lighthouse in the evening";
    for (request, model) in [
        (json!({"prompt": prompt}), "openai/dall-e-2"),
        (
            json!({"prompt": prompt, "model": null, "n": 2}),
            "openai/dall-e-2",
        ),
        (
            json!({"prompt": prompt, "background": "opaque", "quality": "low"}),
            "openai/gpt-image-1",
        ),
        (
            json!({"prompt": prompt, "output_format": "webp", "quality": "low"}),
            "openai/gpt-image-1",
        ),
    ] {
        let answer = app.generate(&key, &request).await.expect(200);
        assert_eq!(answer.json()["model"], model, "{request}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sets_another_default_model() {
    let app = App::builder()
        .await
        .set("default_model", "dall-e-3")
        .start()
        .await;
    let key = app.live_key("5");
    let answer = app
        .generate(&key, &json!({"prompt": "a lighthouse in the evening"}))
        .await
        .expect(200);
    assert_eq!(answer.json()["model"], "openai/dall-e-3");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_ask_for_a_model_in_every_request() {
    let app = App::builder().await.set("default_model", "").start().await;
    let key = app.live_key("5");
    let problem = app
        .refuse(&key, 400, &json!({"prompt": "a lighthouse in the evening"}))
        .await;
    assert_eq!(
        (problem.code(), problem.param()),
        ("missing_required_parameter", "model")
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailing_slash_is_the_same_place() {
    let app = App::start().await;
    let key = app.live_key("5");
    let request =
        json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening", "size": "256x256"});
    app.client
        .post_json("/v1/images/generations/", Some(&key.secret), &request)
        .await
        .expect(200);
    app.finish().await;
}

/// Nothing of the client's own request goes upstream but what the request means.
#[tokio::test(flavor = "multi_thread")]
async fn the_clients_headers_stay_here() {
    let app = App::start().await;
    let key = app.live_key("5");
    let request = app
        .client
        .request(reqwest::Method::POST, "/v1/images/generations")
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .header("cookie", "session=very-private-cookie")
        .header("x-stainless-lang", "python")
        .header("openai-organization", "org-of-the-client")
        .header("x-forwarded-for", "203.0.113.7")
        .body(json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening"}).to_string());
    let answer = app.client.send(request).await.expect(200);
    let call = app.openai.only_call();
    for name in [
        "cookie",
        "x-stainless-lang",
        "openai-organization",
        "x-forwarded-for",
    ] {
        assert!(call.headers.get(name).is_none(), "{name} went upstream");
    }
    assert_eq!(
        call.headers["authorization"],
        format!("Bearer {}", fake_openai::API_KEY)
    );
    for name in [
        "openai-organization",
        "openai-processing-ms",
        "openai-version",
    ] {
        assert_eq!(
            answer.find_header(name),
            None,
            "the upstream's header {name} came through"
        );
    }
    app.finish().await;
}

/// A provider that answers with links although base64 was asked: fetched and hosted, never handed out.
#[tokio::test(flavor = "multi_thread")]
async fn a_providers_link_is_mirrored() {
    let builder = App::builder().await;
    let authority = builder.openai().authority();
    let app = builder
        .set("providers.openai.result_hosts", json!([authority]))
        .start()
        .await;
    let key = app.live_key("5");
    app.openai.always(Behaviour::Links(None));
    for format in ["url", "b64_json"] {
        let request = json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening", "n": 2, "size": "256x256", "response_format": format});
        let answer = app.generate(&key, &request).await.expect(200);
        assert!(
            !String::from_utf8_lossy(&answer.bytes).contains(&authority),
            "the provider's link was handed out"
        );
        for index in 0..2 {
            let bytes = match format {
                "url" => app
                    .open_link(&answer.link(index))
                    .await
                    .expect(200)
                    .bytes
                    .to_vec(),
                _ => answer.picture(index),
            };
            assert_eq!(pictures::measure(&bytes), measured("png", 256, 256));
        }
    }
    assert_eq!(app.openai.pictures_fetched(), 4);
    app.finish().await;
}

/// A link to a host that is not on the list is not followed, least of all to a private address.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_strange_host_is_not_followed() {
    let app = App::start().await;
    let other = crate::support::FakeOpenAi::start().await;
    let key = app.live_key("5");
    app.openai.always(Behaviour::Links(Some(format!(
        "http://{}",
        other.authority()
    ))));
    let request = json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening"});
    let problem = app.refuse(&key, 502, &request).await;
    assert_eq!(problem.code(), "upstream_error");
    assert_eq!(other.pictures_fetched(), 0);
    app.finish().await;
}

/// `order` and `only` choose among the routes; a name that leaves nobody is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_provider_object_chooses_the_route() {
    let app = App::start().await;
    let key = app.live_key("5");
    let request = |provider: Value| json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening", "size": "256x256", "provider": provider});
    for provider in [
        json!({"only": ["openai"]}),
        json!({"order": ["openai"]}),
        json!({}),
    ] {
        let answer = app.generate(&key, &request(provider)).await.expect(200);
        assert_eq!(answer.json()["provider"], "openai");
    }
    let problem = app
        .refuse(&key, 400, &request(json!({"only": ["sandbox"]})))
        .await;
    assert_eq!((problem.code(), problem.param()), ("no_route", "provider"));
    assert!(problem.message.contains("openai"), "{problem:?}");
    let problem = app
        .refuse(&key, 400, &request(json!({"onyl": ["openai"]})))
        .await;
    assert_eq!(
        (problem.code(), problem.param()),
        ("unknown_parameter", "provider.onyl")
    );
    let problem = app
        .refuse(&key, 400, &request(json!({"only": "openai"})))
        .await;
    assert_eq!(
        (problem.code(), problem.param()),
        ("invalid_type", "provider.only")
    );
    app.finish().await;
}
