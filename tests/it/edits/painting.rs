//! What is painted from which pictures, in every spelling that clients use.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::json;

use super::{
    EDITS, PROMPT, Part, VARIATIONS, edit, edit_json, file, form, mask, png, post, reference,
    square, text, told,
};
use crate::support::{App, Key, pictures};

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_in_every_spelling() {
    let app = App::start().await;
    let key = app.test_key("5");
    let model = || text("model", "easel/sandbox");
    let prompt = || text("prompt", PROMPT);
    let jpeg = pictures::paint("jpeg", 640, 480, 3, false).to_vec();
    let webp = pictures::paint("webp", 320, 320, 3, false).to_vec();
    for (name, parts) in [
        ("one", vec![model(), prompt(), png("image", &square())]),
        (
            "files first",
            vec![png("image", &square()), prompt(), model()],
        ),
        (
            "a list of one",
            vec![prompt(), model(), png("image[]", &square())],
        ),
        (
            "a list",
            vec![
                prompt(),
                model(),
                png("image[]", &square()),
                png("image[]", &jpeg),
                png("image[]", &webp),
            ],
        ),
        (
            "numbered",
            vec![
                prompt(),
                model(),
                png("image[1]", &jpeg),
                png("image[0]", &square()),
            ],
        ),
        (
            "repeated",
            vec![
                prompt(),
                model(),
                png("image", &square()),
                png("image", &jpeg),
            ],
        ),
        (
            "raw bytes",
            vec![
                prompt(),
                model(),
                file("image", "upload", "application/octet-stream", &square()),
            ],
        ),
        (
            "no name and no type",
            vec![
                prompt(),
                model(),
                Part(
                    "content-disposition: form-data; name=image".to_owned(),
                    square(),
                ),
            ],
        ),
        (
            "a wrong type",
            vec![
                prompt(),
                model(),
                file("image", "a.jpg", "image/jpeg", &square()),
            ],
        ),
        (
            "a mask, and fields left empty",
            vec![
                text("quality", ""),
                text("size", "null"),
                png("mask", &mask()),
                text("n", "1"),
                prompt(),
                model(),
                png("image", &square()),
                file("image", "", "application/octet-stream", b""),
            ],
        ),
    ] {
        let mut parts = parts;
        parts.push(text("response_format", "b64_json"));
        let answer = edit(&app, &key, &parts).await;
        assert_eq!(answer.status, 200, "{name}: {:?}", answer.bytes);
        let measured = pictures::measure(&answer.picture(0));
        assert_eq!(measured.width, 1024, "{name}");
        assert_eq!(answer.json()["usage"]["cost"], json!(0.001), "{name}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_in_json() {
    let app = App::start().await;
    let key = app.test_key("5");
    let large = pictures::paint("png", 2000, 1500, 5, false);
    assert!(large.len() > 10_000);
    let body = json!({
        "images": [reference(&square()), reference(&large)],
        "model": "gpt-image-2.6-flare",
        "prompt": PROMPT,
        "mask": reference(&mask()),
        "n": 2,
        "quality": "low",
        "stream": false,
        "size": null,
        "provider": {"allow_fallbacks": false},
    });
    let answer = edit_json(&app, &key, &body).await.expect(200);
    assert_eq!(answer.json()["data"].as_array().unwrap().len(), 2);
    // Two of 3072 tokens, for each of two pictures.
    let usage = &answer.json()["usage"];
    assert_eq!(
        usage["input_tokens_details"]["image_tokens"], 12_288,
        "{usage}"
    );

    // As a link says it that was put together from parts.
    let content = STANDARD.encode(pictures::noise(256, 3));
    assert!(content.contains('+') && content.contains('/'));
    let content = content.replace('+', "%2B").replace('/', "%2f");
    let escaped = format!("data:image/png;base64,{}", content.replace('=', "%3D"));
    let body =
        json!({"images": [{"image_url": escaped}], "model": "easel/sandbox", "prompt": PROMPT});
    edit_json(&app, &key, &body).await.expect(200);

    // By tiles of 512 pixels, and more where it shall be close to the original.
    for (fidelity, tokens) in [(None, 194), (Some("low"), 194), (Some("high"), 4354)] {
        let body = json!({
            "images": [reference(&square())], "model": "gpt-image-1", "prompt": PROMPT, "quality": "low",
            "size": "1024x1024", "input_fidelity": fidelity,
        });
        let usage = edit_json(&app, &key, &body).await.expect(200).json()["usage"].clone();
        assert_eq!(
            usage["input_tokens_details"]["image_tokens"], tokens,
            "{usage}"
        );
        // 8 tokens of text for the prompt and 6 around it, 272 for the picture.
        let nano = 14 * 5_000 + tokens * 10_000 + 272 * 40_000;
        assert_eq!(usage["cost"], crate::support::usd(nano), "{usage}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variations_are_made_by_those_who_can() {
    let app = App::start().await;
    let key = app.test_key("5");
    let parts = [
        png("image", &square()),
        text("n", "2"),
        text("size", "256x256"),
    ];
    let answer = post(&app, &key, VARIATIONS, form(&parts)).await.expect(200);
    let body = answer.json();
    assert_eq!(body["model"], "openai/dall-e-2");
    assert_eq!(body["usage"]["cost"], json!(0.032));
    assert!(body["data"][1]["url"].is_string());
    app.finish().await;
}

/// The default can be said in both forms.
#[tokio::test(flavor = "multi_thread")]
async fn moderation_as_usual_can_be_asked_of_edits() {
    let app = App::start().await;
    let key = app.test_key("5");
    let parts = [
        png("image", &square()),
        text("model", "gpt-image-2"),
        text("prompt", PROMPT),
        text("moderation", "auto"),
    ];
    edit(&app, &key, &parts).await.expect(200);
    let body = json!({
        "model": "gpt-image-2", "prompt": PROMPT, "moderation": "auto", "images": [reference(&square())],
    });
    edit_json(&app, &key, &body).await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_without_a_model_is_for_openais_editor() {
    let app = App::start().await;
    let key = app.test_key("5");
    let answer = edit(
        &app,
        &key,
        &[png("image", &square()), text("prompt", PROMPT)],
    )
    .await;
    assert_eq!(answer.expect(200).json()["model"], "openai/gpt-image-1.5");
    app.finish().await;
}

/// Links are opened where the operator allows it, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn links_are_opened_where_they_may_be() {
    let link = |app: &App, name: &str| {
        let authority = app.openai.authority();
        format!("http://{authority}/img/512x512/{name}?sig=fake-upstream-signature")
    };
    let body = |link: &str| {
        json!({"model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low",
            "images": [{"image_url": link}]})
    };
    let refused = async |app: &App, key: &Key, link: &str, why: &str| {
        let before = app.credits(key).await;
        let answer = edit_json(app, key, &body(link)).await;
        let param = "images[0].image_url";
        let message = told(app, key, &before, &answer, (400, param, "invalid_value")).await;
        assert!(message.contains(why), "{message}");
        assert!(!message.contains("signature"), "{message}");
    };

    let builder = App::builder().await;
    let authority = builder.openai().authority();
    let app = builder
        .set("edits.fetch_urls", true)
        .set("edits.fetch_hosts", json!([authority]))
        .start()
        .await;
    let key = app.live_key("1");
    let answer = edit_json(&app, &key, &body(&link(&app, "0.png"))).await;
    let answer = answer.expect(200).json();
    // 194 tokens of the picture, as one that comes with the request.
    let sent = app.openai.only_call().files.remove(0).content;
    assert_eq!(pictures::measure(&sent).width, 512);
    let inline = json!([reference(&sent)]);
    let mut again = body("");
    again["images"] = inline;
    let inline = edit_json(&app, &key, &again).await.expect(200).json();
    assert_eq!(answer["usage"], inline["usage"]);
    assert_eq!(app.openai.pictures_fetched(), 1);
    let port = authority.rsplit_once(':').unwrap().1;
    let other = format!("https://127.0.0.2:{port}/a.png");
    refused(&app, &key, &other, "other hosts only").await;
    let other = "https://example.com/a.png";
    refused(&app, &key, other, "other hosts only").await;
    assert_eq!(app.openai.pictures_fetched(), 1);
    // Nor is anything fetched for who asks too often, whatever it is said to repeat.
    let hasty = app.create_key(&["--credit", "1", "--rpm", "1"]);
    let open = body(&link(&app, "0.png"));
    edit_json(&app, &hasty, &open).await.expect(200);
    for (name, value) in [
        ("idempotency-key", "once"),
        ("x-stainless-retry-count", "1"),
    ] {
        let request = app.client.request(Method::POST, EDITS);
        let request = request.bearer_auth(&hasty.secret).header(name, value);
        let request = request.header("content-type", "application/json");
        let answer = app.client.send(request.body(open.to_string())).await;
        assert_eq!(answer.expect(429).problem().code(), "rate_limit_exceeded");
    }
    assert_eq!(app.openai.pictures_fetched(), 2);
    app.finish().await;

    let public = App::builder().await.set("edits.fetch_urls", true);
    let public = public.start().await;
    let key = public.live_key("1");
    refused(&public, &key, &link(&public, "0.png"), "no https link").await;
    let private = link(&public, "0.png").replace("http:", "https:");
    refused(&public, &key, &private, "private address").await;
    assert_eq!(public.openai.pictures_fetched(), 0);
    public.finish().await;

    let closed = App::start().await;
    let key = closed.live_key("1");
    refused(&closed, &key, &link(&closed, "0.png"), "base64 data URLs").await;
    assert_eq!(closed.openai.pictures_fetched(), 0);
    closed.finish().await;
}
