//! The fake refuses what the real one refuses.

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use crate::support::{
    Client, Secrets,
    fake_stability::{API_KEY, FakeStability},
};

/// The fake refuses what the contract says is refused, or the tests above would prove little.
#[tokio::test(flavor = "multi_thread")]
async fn the_fake_is_strict() {
    let fake = FakeStability::start().await;
    let client = Client::new(fake.base_url(), Arc::new(Secrets::default()));
    let form = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .fold(reqwest::multipart::Form::new(), |form, (name, value)| {
                form.text((*name).to_owned(), (*value).to_owned())
            })
    };
    let post = async |endpoint: &str, pairs: &[(&str, &str)]| {
        let path = format!("/v2beta/stable-image/generate/{endpoint}");
        let request = client.request(Method::POST, &path).bearer_auth(API_KEY);
        let request = request.header("accept", "image/*");
        client.send(request.multipart(form(pairs))).await
    };
    let answer = post("core", &[("prompt", "a hill")]).await.expect(200);
    assert_eq!(answer.header("finish-reason"), "SUCCESS");
    for (endpoint, pairs, status, says) in [
        ("ultra", &[("seed", "7")][..], 400, "prompt: is required"),
        (
            "ultra",
            &[("prompt", "a"), ("n", "2")],
            400,
            "n: is not a field",
        ),
        (
            "core",
            &[("prompt", "a"), ("model", "sd3.5-large")],
            400,
            "model: is not a field",
        ),
        (
            "sd3",
            &[("prompt", "a"), ("model", "sd3")],
            400,
            "model: must be one of",
        ),
        (
            "sd3",
            &[("prompt", "a"), ("aspect_ratio", "4:3")],
            400,
            "aspect_ratio: must be",
        ),
        (
            "sd3",
            &[("prompt", "a"), ("prompt", "b")],
            400,
            "prompt: is given twice",
        ),
        ("sd3", &[("prompt", "ä")], 422, "invalid_language"),
        ("sd3.5-flash", &[("prompt", "a")], 404, "not_found"),
        (
            "ultra",
            &[("prompt", "a MODERATE b")],
            403,
            "content_moderation",
        ),
        ("ultra", &[("prompt", "a BOOM b")], 500, "internal_error"),
        (
            "ultra",
            &[("prompt", "a RATE b")],
            429,
            "rate_limit_exceeded",
        ),
        ("core", &[("prompt", "a hill")], 429, "timed out for 60"),
    ] {
        let answer = post(endpoint, pairs).await.expect(status);
        let text = String::from_utf8_lossy(&answer.bytes);
        assert!(text.contains(says), "{says}: {text}");
    }
    fake.let_a_minute_pass();
    post("core", &[("prompt", "a hill")]).await.expect(200);
    for (field, value) in [
        ("seed", "4294967295"),
        ("style_preset", "vivid"),
        ("cfg_scale", "0.9"),
        ("mode", "image-to-picture"),
        ("strength", "0.5"),
        ("output_format", "gif"),
        ("negative_prompt", &"x".repeat(10_001)),
    ] {
        let answer = post("sd3", &[("prompt", "a"), (field, value)]).await;
        let text = String::from_utf8_lossy(&answer.expect(400).bytes).into_owned();
        assert!(text.contains(&format!("\"{field}: ")), "{text}");
    }
    let path = "/v2beta/stable-image/generate/core";
    let body = json!({"prompt": "a hill"});
    let answer = client
        .post_json(path, Some(API_KEY), &body)
        .await
        .expect(400);
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(text.contains("must be multipart/form-data"), "{text}");
    // The key is looked at before the path.
    client.post_json("/", None, &body).await.expect(401);
}
