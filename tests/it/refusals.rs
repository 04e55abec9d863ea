//! What a client can get wrong in a request: refused by name, before anybody is called or charged.

use serde_json::{Value, json};

use crate::support::{App, Key};

const PROMPT: &str = "the harbour master and her cat";

/// Refused with this code and parameter; the message names the parameter, and the value where one is given.
async fn check(app: &App, key: &Key, request: Value, code: &str, param: &str, mentions: &[&str]) {
    let problem = app.refuse(key, 400, &request).await;
    assert_eq!(
        (problem.code(), problem.param()),
        (code, param),
        "{request}: {problem:?}"
    );
    assert_eq!(problem.kind, "invalid_request_error", "{problem:?}");
    for word in mentions {
        assert!(problem.message.contains(word), "{word} in {problem:?}");
    }
    assert!(
        !problem.message.contains(PROMPT),
        "the prompt is repeated: {problem:?}"
    );
}

fn with(model: &str, extra: Value) -> Value {
    let mut request = json!({"model": model, "prompt": PROMPT});
    let Value::Object(extra) = extra else {
        panic!("parameters are an object: {extra}")
    };
    request.as_object_mut().unwrap().extend(extra);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn values_a_model_does_not_take_are_refused_by_name() {
    let app = App::start().await;
    let key = app.live_key("5");
    for (model, extra, code, param, mentions) in [
        (
            "dall-e-2",
            json!({"size": "1792x1024"}),
            "invalid_value",
            "size",
            &["1792x1024", "512x512"][..],
        ),
        (
            "dall-e-2",
            json!({"quality": "hd"}),
            "invalid_value",
            "quality",
            &["hd", "standard"],
        ),
        (
            "dall-e-2",
            json!({"style": "vivid"}),
            "unknown_parameter",
            "style",
            &["style"],
        ),
        (
            "dall-e-2",
            json!({"background": "opaque"}),
            "unknown_parameter",
            "background",
            &["background"],
        ),
        (
            "dall-e-3",
            json!({"size": "512x512"}),
            "invalid_size",
            "size",
            &["512x512", "1024x1792"],
        ),
        (
            "dall-e-3",
            json!({"style": "gaudy"}),
            "invalid_value",
            "style",
            &["gaudy", "vivid", "natural"],
        ),
        (
            "dall-e-3",
            json!({"response_format": "png"}),
            "invalid_value",
            "response_format",
            &["b64_json"],
        ),
        (
            "dall-e-3",
            json!({"output_format": "webp"}),
            "unknown_parameter",
            "output_format",
            &["output_format"],
        ),
        (
            "gpt-image-1",
            json!({"quality": "standard"}),
            "invalid_value",
            "quality",
            &["standard", "medium"],
        ),
        (
            "gpt-image-1",
            json!({"quality": "max"}),
            "invalid_value",
            "quality",
            &["max"],
        ),
        (
            "gpt-image-1",
            json!({"size": "2048x2048"}),
            "invalid_value",
            "size",
            &["2048x2048"],
        ),
        (
            "gpt-image-1",
            json!({"style": "vivid"}),
            "unknown_parameter",
            "style",
            &["style"],
        ),
        (
            "gpt-image-1",
            json!({"moderation": "high"}),
            "invalid_value",
            "moderation",
            &["high", "low"],
        ),
        (
            "gpt-image-1",
            json!({"background": "blue"}),
            "invalid_value",
            "background",
            &["blue", "transparent"],
        ),
        (
            "gpt-image-2",
            json!({"quality": "xhigh"}),
            "invalid_value",
            "quality",
            &["xhigh"],
        ),
        (
            "gpt-image-2",
            json!({"size": "1792x936"}),
            "invalid_value",
            "size",
            &["1792x936", "16"],
        ),
        (
            "gpt-image-2",
            json!({"size": "512x512"}),
            "invalid_value",
            "size",
            &["512x512", "655360"],
        ),
        (
            "gpt-image-2",
            json!({"size": "3856x1024"}),
            "invalid_value",
            "size",
            &["3856x1024"],
        ),
        (
            "gpt-image-2",
            json!({"size": "3840x1024"}),
            "invalid_value",
            "size",
            &["3840x1024"],
        ),
        (
            "gpt-image-2",
            json!({"size": "3840x2176"}),
            "invalid_value",
            "size",
            &["3840x2176"],
        ),
        (
            "gpt-image-2",
            json!({"size": "large"}),
            "invalid_value",
            "size",
            &["large"],
        ),
        (
            "gpt-image-2",
            json!({"size": "0x1024"}),
            "invalid_value",
            "size",
            &["0x1024"],
        ),
        (
            "gpt-image-2",
            json!({"input_fidelity": "high"}),
            "unknown_parameter",
            "input_fidelity",
            &["input_fidelity"],
        ),
    ] {
        check(&app, &key, with(model, extra), code, param, mentions).await;
    }
    assert!(app.openai.calls().is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_have_a_range_and_a_type() {
    let app = App::start().await;
    let key = app.live_key("5");
    for (model, extra, code, param) in [
        ("dall-e-2", json!({"n": 11}), "integer_above_max_value", "n"),
        (
            "dall-e-2",
            json!({"n": u64::MAX}),
            "integer_above_max_value",
            "n",
        ),
        ("dall-e-2", json!({"n": 0}), "integer_below_min_value", "n"),
        ("dall-e-2", json!({"n": -1}), "integer_below_min_value", "n"),
        ("dall-e-3", json!({"n": 2}), "integer_above_max_value", "n"),
        ("dall-e-2", json!({"n": "2"}), "invalid_type", "n"),
        ("dall-e-2", json!({"n": 1.5}), "invalid_type", "n"),
        ("dall-e-2", json!({"n": true}), "invalid_type", "n"),
        (
            "gpt-image-1",
            json!({"output_format": "webp", "output_compression": 101}),
            "integer_above_max_value",
            "output_compression",
        ),
        (
            "gpt-image-1",
            json!({"output_format": "webp", "output_compression": -1}),
            "integer_below_min_value",
            "output_compression",
        ),
        ("dall-e-2", json!({"size": 1024}), "invalid_type", "size"),
        ("dall-e-2", json!({"user": 7}), "invalid_type", "user"),
        ("dall-e-2", json!({"prompt": 7}), "invalid_type", "prompt"),
        (
            "dall-e-2",
            json!({"prompt": ["a", "b"]}),
            "invalid_type",
            "prompt",
        ),
    ] {
        check(&app, &key, with(model, extra), code, param, &[param]).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_exclude_each_other_are_refused() {
    let app = App::start().await;
    let key = app.live_key("5");
    for (extra, param) in [
        (
            json!({"background": "transparent", "output_format": "jpeg"}),
            "background",
        ),
        (json!({"output_compression": 50}), "output_compression"),
        (
            json!({"output_compression": 50, "output_format": "png"}),
            "output_compression",
        ),
    ] {
        let problem = app.refuse(&key, 400, &with("gpt-image-1", extra)).await;
        assert_eq!(problem.param(), param, "{problem:?}");
        assert!(
            problem.message.contains("output_format") || problem.message.contains("png"),
            "{problem:?}"
        );
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_refused_by_name() {
    let app = App::start().await;
    let key = app.live_key("5");
    check(
        &app,
        &key,
        json!({"model": "dall-e-2", "promt": PROMPT}),
        "unknown_parameter",
        "promt",
        &["promt", "prompt"],
    )
    .await;
    check(
        &app,
        &key,
        with("dall-e-2", json!({"seed": 7})),
        "unknown_parameter",
        "seed",
        &["seed"],
    )
    .await;
    check(
        &app,
        &key,
        with("gpt-image-1", json!({"steps": 30})),
        "unknown_parameter",
        "steps",
        &["steps"],
    )
    .await;
    app.finish().await;
}

/// Prompts are limited in characters, not in bytes.
#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_measured_in_characters() {
    let app = App::start().await;
    let key = app.live_key("20");
    for (model, longest) in [
        ("dall-e-2", 1000),
        ("dall-e-3", 4000),
        ("gpt-image-2", 32_000),
    ] {
        // Four bytes each in UTF-8, two units in UTF-16.
        let fits: String = "🦊".repeat(longest);
        let mut request = json!({"model": model, "prompt": fits});
        if model == "gpt-image-2" {
            request["quality"] = json!("low");
        }
        app.generate(&key, &request).await.expect(200);
        let problem = app
            .refuse(
                &key,
                400,
                &json!({"model": model, "prompt": format!("{fits}x")}),
            )
            .await;
        assert_eq!(
            (problem.code(), problem.param()),
            ("string_above_max_length", "prompt"),
            "{model}"
        );
        assert!(
            problem.message.contains(&longest.to_string())
                && problem.message.contains(&(longest + 1).to_string()),
            "{problem:?}"
        );
        assert!(!problem.message.contains('🦊'), "the prompt is repeated");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_required() {
    let app = App::start().await;
    let key = app.live_key("5");
    check(
        &app,
        &key,
        json!({"model": "dall-e-2"}),
        "missing_required_parameter",
        "prompt",
        &["prompt"],
    )
    .await;
    check(
        &app,
        &key,
        json!({"model": "dall-e-2", "prompt": null}),
        "missing_required_parameter",
        "prompt",
        &["prompt"],
    )
    .await;
    check(
        &app,
        &key,
        json!({}),
        "missing_required_parameter",
        "prompt",
        &["prompt"],
    )
    .await;
    let problem = app
        .refuse(&key, 400, &json!({"model": "dall-e-2", "prompt": ""}))
        .await;
    assert_eq!(problem.param(), "prompt", "{problem:?}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_are_not_there_are_404() {
    let app = App::start().await;
    let key = app.live_key("5");
    for model in [
        "dall-e-9",
        "openai/dall-e-9",
        "",
        "gpt-4o",
        "../etc/passwd",
        &"x".repeat(5000),
    ] {
        let problem = app
            .refuse(&key, 404, &json!({"model": model, "prompt": PROMPT}))
            .await;
        assert_eq!(problem.code(), "model_not_found", "{model}: {problem:?}");
        assert_eq!(problem.kind, "invalid_request_error");
        assert!(
            problem.message.len() < 600,
            "the name is not repeated at any length: {}",
            problem.message.len()
        );
    }
    let problem = app
        .refuse(&key, 404, &json!({"model": "dall-e-3x", "prompt": PROMPT}))
        .await;
    assert!(
        problem.message.contains("dall-e-3"),
        "the nearest name helps: {problem:?}"
    );
    app.finish().await;
}

/// A model whose only provider is not configured here.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_serves_here_says_who_would() {
    let app = App::builder()
        .await
        .remove("providers.openai.")
        .set("providers.openai.enabled", false)
        .start()
        .await;
    let key = app.live_key("5");
    let problem = app
        .refuse(&key, 404, &json!({"model": "dall-e-3", "prompt": PROMPT}))
        .await;
    assert_eq!(problem.code(), "model_unavailable");
    assert!(problem.message.contains("openai"), "{problem:?}");
    app.finish().await;
}

/// A key may ask that parameters a model does not take are left out instead; the answer lists them.
#[tokio::test(flavor = "multi_thread")]
async fn a_lenient_key_has_unsupported_parameters_dropped() {
    let app = App::start().await;
    let key = app.create_key(&["--credit", "5", "--unsupported-parameters", "drop"]);
    let request = with(
        "dall-e-2",
        json!({"style": "vivid", "background": "opaque", "seed": 7, "size": "256x256"}),
    );
    let answer = app.generate(&key, &request).await.expect(200);
    let dropped: Vec<(&str, &str)> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().contains("dropped"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    let [(_, dropped)] = dropped[..] else {
        panic!("one header lists them: {:?}", answer.headers)
    };
    for name in ["style", "background", "seed"] {
        assert!(dropped.contains(name), "{name} in {dropped}");
    }
    // Values are not parameters: a wrong one is still refused.
    assert_eq!(
        app.refuse(&key, 400, &with("dall-e-2", json!({"size": "1x1"})))
            .await
            .param(),
        "size"
    );
    app.finish().await;
}

/// A vector picture is written by a model of its own, which nobody has priced: no price, no service.
#[tokio::test(flavor = "multi_thread")]
async fn real_money_does_not_buy_what_has_no_price() {
    let app = App::start().await;
    let request =
        json!({"model": "gpt-image-2.6-flare", "prompt": "a kite", "output_format": "svg"});
    let live = app.live_key("5");
    let problem = app.refuse(&live, 400, &request).await;
    assert_eq!(problem.param(), "output_format");
    assert!(app.openai.calls().is_empty());

    let test = app.test_key("5");
    let answer = app.generate(&test, &request).await.expect(200).json();
    assert_eq!(answer["output_format"], "svg");
    app.finish().await;
}
