//! Test keys: every model, painted by the sandbox, with the model's own rules and prices on play money.

use serde_json::json;

use crate::support::{App, pictures};

const PROMPT: &str = "a paper theatre with a painted moon";

#[tokio::test(flavor = "multi_thread")]
async fn every_model_is_painted_here_at_its_own_price() {
    let app = App::start().await;
    let key = app.test_key("50");
    for (request, format, (width, height), cost) in [
        (
            json!({"model": "dall-e-2", "size": "256x256", "n": 2, "response_format": "b64_json"}),
            "png",
            (256, 256),
            Some(json!(0.032)),
        ),
        (
            json!({"model": "dall-e-3", "size": "1792x1024", "quality": "hd", "response_format": "b64_json"}),
            "png",
            (1792, 1024),
            Some(json!(0.12)),
        ),
        (
            json!({"model": "gpt-image-1", "size": "1024x1536", "quality": "low", "output_format": "jpeg"}),
            "jpeg",
            (1024, 1536),
            None,
        ),
        (
            json!({"model": "gpt-image-2", "size": "1280x720", "quality": "low", "output_format": "webp"}),
            "webp",
            (1280, 720),
            None,
        ),
        (
            json!({"model": "easel/sandbox", "size": "512x256", "response_format": "b64_json"}),
            "png",
            (512, 256),
            None,
        ),
    ] {
        let mut request = request;
        request["prompt"] = json!(PROMPT);
        let answer = app.generate(&key, &request).await.expect(200);
        let body = answer.json();
        assert_eq!(body["provider"], "sandbox", "{request}");
        let measured = pictures::measure(&answer.picture(0));
        assert_eq!(
            (measured.format, measured.width, measured.height),
            (format, width, height),
            "{request}"
        );
        assert!(body["usage"]["cost"].as_f64().unwrap() > 0.0, "{request}");
        if let Some(cost) = cost {
            assert_eq!(body["usage"]["cost"], cost, "{request}");
        }
    }
    assert!(
        app.openai.calls().is_empty(),
        "no provider is called for a test key"
    );
    app.finish().await;
}

/// gpt-image-1 low 1024x1024 is 272 tokens at 40 USD a million, plus some text.
#[tokio::test(flavor = "multi_thread")]
async fn token_prices_hold_for_the_sandbox_too() {
    let app = App::start().await;
    let key = app.test_key("1");
    let request =
        json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024"});
    let body = app.generate(&key, &request).await.expect(200).json();
    assert_eq!(body["usage"]["output_tokens"], 272, "{}", body["usage"]);
    let cost = body["usage"]["cost"].as_f64().unwrap();
    assert!((0.01088..0.0115).contains(&cost), "{cost}");
    app.finish().await;
}

/// The same request gives the same picture: an app's snapshot tests hold.
#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_is_deterministic() {
    let app = App::start().await;
    let key = app.test_key("1");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "n": 2, "response_format": "b64_json"});
    let first = app.generate(&key, &request).await.expect(200);
    let second = app.generate(&key, &request).await.expect(200);
    assert_eq!(first.picture(0), second.picture(0));
    assert_ne!(
        first.picture(0),
        first.picture(1),
        "the pictures of one answer differ"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transparency_is_painted() {
    let app = App::start().await;
    let key = app.test_key("5");
    let request = json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024", "background": "transparent"});
    let answer = app.generate(&key, &request).await.expect(200);
    assert!(pictures::is_transparent(&answer.picture(0)));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_rules_hold() {
    let app = App::start().await;
    let key = app.test_key("1");
    let problem = app
        .refuse(
            &key,
            400,
            &json!({"model": "dall-e-3", "prompt": PROMPT, "n": 2}),
        )
        .await;
    assert_eq!(
        (problem.code(), problem.param()),
        ("integer_above_max_value", "n")
    );
    let problem = app
        .refuse(
            &key,
            400,
            &json!({"model": "gpt-image-1", "prompt": PROMPT, "style": "vivid"}),
        )
        .await;
    assert_eq!(problem.param(), "style");
    let poor = app.test_key("0.01");
    assert_eq!(
        app.refuse(&poor, 402, &json!({"model": "dall-e-2", "prompt": PROMPT}))
            .await
            .code(),
        "insufficient_balance"
    );
    app.finish().await;
}

/// An app's tests can make the sandbox fail: the errors are the real ones.
#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_plays_every_failure() {
    let app = App::start().await;
    let key = app.test_key("1");
    for (word, model, status, code) in [
        ("refuse", "dall-e-3", 400, "content_policy_violation"),
        ("refuse", "gpt-image-1", 400, "moderation_blocked"),
        ("rate_limit", "dall-e-3", 429, "upstream_rate_limited"),
        ("error", "dall-e-3", 502, "upstream_error"),
        ("timeout", "dall-e-3", 504, "upstream_timeout"),
    ] {
        let request = json!({"model": model, "prompt": format!("{PROMPT} [sandbox:{word}]")});
        let problem = app.refuse(&key, status, &request).await;
        assert_eq!(problem.code(), code, "{word}");
    }
    let request = json!({"model": "dall-e-2", "prompt": format!("{PROMPT} [sandbox:partial]"), "n": 3, "size": "256x256"});
    let body = app.generate(&key, &request).await.expect(200).json();
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    assert_eq!(body["failed"][0]["index"], 2);
    assert_eq!(body["usage"]["cost"], json!(0.032));
    app.finish().await;
}

/// Play money and real money are apart, even in one account.
#[tokio::test(flavor = "multi_thread")]
async fn test_money_is_not_live_money() {
    let app = App::start().await;
    let live = app.live_key("1");
    let test = app.create_key(&["--test", "--account", &live.account]);
    assert_eq!(app.balance(&test).await, json!(0));
    assert_eq!(
        app.refuse(&test, 402, &json!({"model": "dall-e-2", "prompt": PROMPT}))
            .await
            .code(),
        "insufficient_balance"
    );
    assert_eq!(app.balance(&live).await, json!(1));
    app.finish().await;
}

/// Without any provider but the sandbox, a test key sees and uses every model.
#[tokio::test(flavor = "multi_thread")]
async fn a_test_key_needs_no_provider() {
    let app = App::builder()
        .await
        .remove("providers.openai.")
        .set("providers.openai.enabled", false)
        .start()
        .await;
    let key = app.test_key("1");
    app.generate(&key, &json!({"model": "dall-e-3", "prompt": PROMPT}))
        .await
        .expect(200);
    let models = app.get(&key, "/v1/models").await.expect(200).json();
    assert!(
        models["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["id"] == "openai/dall-e-3")
    );
    app.finish().await;
}
