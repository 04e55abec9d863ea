//! What is wrong with an edit, said by name, for nothing.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    EDITS, PROMPT, Part, VARIATIONS, data_url, edit_json, file, form, mask, png, post, reference,
    square, text, told,
};
use crate::support::{App, Key, pictures};

/// Sends it, and proves that it cost nothing.
async fn refused(
    app: &App,
    key: &Key,
    path: &str,
    parts: &[Part],
    expected: (u16, &str, &str),
) -> String {
    let before = app.credits(key).await;
    let answer = post(app, key, path, form(parts)).await;
    told(app, key, &before, &answer, expected).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_form_is_said_by_name() {
    let app = App::start().await;
    let key = app.live_key("5");
    let image = || png("image", &square());
    let base = |more: Vec<Part>| {
        [
            vec![text("prompt", PROMPT), text("model", "gpt-image-2")],
            more,
        ]
        .concat()
    };
    let wide = pictures::paint("png", 1024, 512, 3, true);
    let jpeg = pictures::paint("jpeg", 512, 512, 3, false);
    let torso = &square()[..900];
    for (parts, expected) in [
        (base(vec![]), (400, "image", "missing_required_parameter")),
        (
            vec![image(), text("model", "gpt-image-2")],
            (400, "prompt", "missing_required_parameter"),
        ),
        (
            base(vec![file(
                "image",
                "a.pdf",
                "application/pdf",
                b"%PDF-1.7 not a picture at all",
            )]),
            (400, "image", "unsupported_file_mimetype"),
        ),
        (
            base(vec![text("image", "https://example.com/otter.png")]),
            (400, "image", "invalid_type"),
        ),
        (
            base(vec![png("image", torso)]),
            (400, "image", "invalid_image_file"),
        ),
        (
            base(vec![png("image", b"")]),
            (400, "image", "invalid_image_file"),
        ),
        (
            base(vec![image(), png("mask", &wide)]),
            (400, "mask", "invalid_mask_image_format"),
        ),
        (
            base(vec![image(), png("mask", &square())]),
            (400, "mask", "invalid_mask_image_format"),
        ),
        (
            base(vec![image(), png("mask", &jpeg)]),
            (400, "mask", "unsupported_file_mimetype"),
        ),
        (
            base(vec![image(), png("mask", &mask()), png("mask", &mask())]),
            (400, "mask", "duplicate_parameter"),
        ),
        (
            base(vec![image(), png("markup", &mask())]),
            (400, "markup", "unsupported_parameter"),
        ),
        (
            base(vec![image(), text("n", "3"), text("n", "3")]),
            (400, "n", "duplicate_parameter"),
        ),
        (
            base(vec![image(), text("n", "three")]),
            (400, "n", "invalid_type"),
        ),
        (
            base(vec![image(), text("n", "11")]),
            (400, "n", "integer_above_max_value"),
        ),
        (
            base(vec![image(), text("stream", "yes")]),
            (400, "stream", "invalid_type"),
        ),
        (
            base(vec![image(), text("sizes", "1024x1024")]),
            (400, "sizes", "unknown_parameter"),
        ),
        (
            base(vec![image(), text("moderation", "low")]),
            (400, "moderation", "invalid_value"),
        ),
        (
            base(vec![image(), text("input_fidelity", "high")]),
            (400, "input_fidelity", "invalid_input_fidelity_model"),
        ),
        (
            base(vec![png("images", &square())]),
            (400, "images", "unknown_parameter"),
        ),
        (
            base(vec![png("images[]", &square())]),
            (400, "images[]", "unknown_parameter"),
        ),
        (
            base(vec![image(), png("mask[]", &mask())]),
            (400, "mask[]", "unknown_parameter"),
        ),
        (
            base(vec![image(), png("prompt2", b"x")]),
            (400, "prompt2", "invalid_type"),
        ),
        (
            base(vec![
                image(),
                text("svg[model]", "x"),
                text("svg[reasoning][depth]", "1"),
            ]),
            (400, "svg.reasoning.depth", "unknown_parameter"),
        ),
        (
            base(vec![image(), text("svg[model", "x")]),
            (400, "svg[model", "unknown_parameter"),
        ),
        (
            base(vec![image(), text("provider[order][]", "nobody")]),
            (400, "provider.order", "invalid_value"),
        ),
        (
            base((0..17).map(|_| image()).collect()),
            (400, "image", "array_above_max_length"),
        ),
        (
            vec![image(), text("prompt", PROMPT), text("model", "dall-e-3")],
            (400, "model", "invalid_value"),
        ),
        (
            vec![
                png("image", &jpeg),
                text("prompt", PROMPT),
                text("model", "dall-e-2"),
            ],
            (400, "image", "unsupported_file_mimetype"),
        ),
        (
            vec![
                png("image", &wide),
                text("prompt", PROMPT),
                text("model", "dall-e-2"),
            ],
            (400, "image", "invalid_image_size"),
        ),
        (
            vec![
                image(),
                image(),
                text("prompt", PROMPT),
                text("model", "dall-e-2"),
            ],
            (400, "image", "array_above_max_length"),
        ),
    ] {
        let shown: Vec<&str> = parts.iter().map(|Part(head, _)| head.as_str()).collect();
        let message = refused(&app, &key, EDITS, &parts, expected).await;
        assert!(message.len() < 600, "{shown:?}: {message}");
    }
    // The models that can are named.
    let parts = [image(), text("prompt", PROMPT), text("model", "dall-e-3")];
    let message = refused(&app, &key, EDITS, &parts, (400, "model", "invalid_value")).await;
    assert!(message.contains("openai/gpt-image-2"), "{message}");
    let parts = [image(), text("model", "gpt-image-2")];
    let message = refused(
        &app,
        &key,
        VARIATIONS,
        &parts,
        (400, "model", "invalid_value"),
    )
    .await;
    assert!(message.contains("openai/dall-e-2"), "{message}");
    let parts = [image(), text("prompt", PROMPT)];
    refused(
        &app,
        &key,
        VARIATIONS,
        &parts,
        (400, "prompt", "unknown_parameter"),
    )
    .await;
    // Generations know no such thing.
    let body = json!({"prompt": PROMPT, "model": "gpt-image-1", "input_fidelity": "high"});
    let problem = app.refuse(&key, 400, &body).await;
    assert_eq!(
        (problem.param(), problem.code()),
        ("input_fidelity", "unknown_parameter")
    );
    assert!(app.openai.calls().is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_json_is_said_by_name() {
    let app = App::start().await;
    let key = app.live_key("5");
    let good = reference(&square());
    let base = |images: Value| json!({"prompt": PROMPT, "model": "gpt-image-2", "images": images});
    let with = |name: &str, value: Value| {
        let mut body = base(json!([reference(&square())]));
        body[name] = value;
        body
    };
    for (body, expected) in [
        (
            base(json!([])),
            (400, "images", "missing_required_parameter"),
        ),
        (
            json!({"prompt": PROMPT, "model": "gpt-image-2"}),
            (400, "images", "missing_required_parameter"),
        ),
        (
            base(json!([{"image_url": null}])),
            (400, "images[0].image_url", "missing_required_parameter"),
        ),
        (
            base(json!([{"image_url": true}])),
            (400, "images[0].image_url", "invalid_type"),
        ),
        (
            base(json!(vec![good.clone(); 17])),
            (400, "images", "array_above_max_length"),
        ),
        (
            json!({"prompt": PROMPT, "model": "dall-e-2", "images": [good, good]}),
            (400, "images", "array_above_max_length"),
        ),
        (
            json!({"prompt": PROMPT, "model": "dall-e-2", "images": [
                {"image_url": data_url("image/jpeg", &pictures::paint("jpeg", 64, 64, 3, false))}
            ]}),
            (400, "images[0].image_url", "unsupported_file_mimetype"),
        ),
        (
            with("moderation", json!("low")),
            (400, "moderation", "invalid_value"),
        ),
        (base(json!("x")), (400, "images", "invalid_type")),
        (
            base(json!(["data:image/png;base64,AAAA"])),
            (400, "images[0]", "invalid_type"),
        ),
        (
            base(json!([{}])),
            (400, "images[0].image_url", "missing_required_parameter"),
        ),
        (
            base(json!([{"image_url": 7}])),
            (400, "images[0].image_url", "invalid_type"),
        ),
        (
            base(json!([good, {"image_url": true}])),
            (400, "images[1].image_url", "invalid_type"),
        ),
        (
            with("mask", json!({"image_url": true})),
            (400, "mask.image_url", "invalid_type"),
        ),
        (
            base(json!([{"file_id": "file-1"}])),
            (400, "images[0].file_id", "unsupported_parameter"),
        ),
        (
            base(json!([good, {"image_url": "data:image/png;base64,AAAA", "detail": "high"}])),
            (400, "images[1].image_url", "invalid_image_file"),
        ),
        (
            base(json!([{"image_url": "data:image/png;base64,!!!!"}])),
            (400, "images[0].image_url", "invalid_value"),
        ),
        (
            base(json!([{"image_url": data_url("image/png", &square()) + "%zz"}])),
            (400, "images[0].image_url", "invalid_value"),
        ),
        (
            base(json!([{"image_url": data_url("image/png", &square()) + "%3"}])),
            (400, "images[0].image_url", "invalid_value"),
        ),
        (
            base(json!([{"image_url": "data:image/png,AAAA"}])),
            (400, "images[0].image_url", "invalid_value"),
        ),
        (
            base(json!([{"image_url": "https://example.com/otter.png?sig=1"}])),
            (400, "images[0].image_url", "invalid_value"),
        ),
        (
            base(json!([{"image_url": data_url("application/pdf", &[b'x'; 64])}])),
            (400, "images[0].image_url", "unsupported_file_mimetype"),
        ),
        (
            base(json!([{"image_url": data_url("", &square()), "detail": "high"}])),
            (400, "images[0].detail", "unknown_parameter"),
        ),
        (
            with("mask", json!("data:image/png;base64,AAAA")),
            (400, "mask", "invalid_type"),
        ),
        (
            with("mask", json!({"image_url": "x".repeat(20_000)})),
            (400, "mask.image_url", "invalid_value"),
        ),
        (
            with("image", json!("x")),
            (400, "image", "unknown_parameter"),
        ),
        (
            with("markup", json!(good)),
            (400, "markup", "unsupported_parameter"),
        ),
        (
            with("user", json!("u".repeat(2 << 20))),
            (413, "", "request_too_large"),
        ),
        (json!([good]), (400, "", "")),
        (json!("images"), (400, "", "")),
    ] {
        let before = app.credits(&key).await;
        let answer = edit_json(&app, &key, &body).await;
        told(&app, &key, &before, &answer, expected).await;
    }
    for (body, expected) in [
        (
            r#"{"images":[{"image_url":"data:image/png;base64,iVBORw0KGgo"#.to_owned(),
            (400, "", ""),
        ),
        ("[".repeat(100_000), (400, "", "")),
        (format!("{{\"a\":{}", "[".repeat(60)), (400, "", "")),
        (r#"{"prompt":"x"}x"#.to_owned(), (400, "", "")),
        (r#"{"prompt":"x"} {"n":1}"#.to_owned(), (400, "", "")),
        (
            "\u{FEFF}{\"model\":\"gpt-image-2\",\"prompt\":\"x\"}".to_owned(),
            (400, "images", "missing_required_parameter"),
        ),
        (
            r#"{"n":1,"n":2}"#.to_owned(),
            (400, "n", "duplicate_parameter"),
        ),
        (String::new(), (400, "", "")),
        ("7".to_owned(), (400, "", "")),
        (
            format!("{{\"a\":[{}1]}}", "1,".repeat(400_000)),
            (413, "", "request_too_large"),
        ),
    ] {
        let before = app.credits(&key).await;
        let request = app
            .client
            .request(Method::POST, EDITS)
            .bearer_auth(&key.secret);
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let answer = app.client.send(request).await;
        told(&app, &key, &before, &answer, expected).await;
    }
    assert!(app.openai.calls().is_empty());
    app.finish().await;
}

/// Strings of an edit's JSON are read as those of every other body.
#[tokio::test(flavor = "multi_thread")]
async fn strings_that_are_no_json_are_refused() {
    let app = App::start().await;
    let key = app.test_key("5");
    app.keep_secret(PROMPT, "a prompt");
    let post = async |body: String| {
        let request = app.client.request(Method::POST, EDITS);
        let request = request
            .bearer_auth(&key.secret)
            .header("content-type", "application/json");
        app.client.send(request.body(body)).await
    };
    let good = json!({"model": "easel/sandbox", "prompt": PROMPT, "user": "me",
        "images": [reference(&square())]})
    .to_string();
    post(good.clone()).await.expect(200);
    for bad in [
        good.replace(PROMPT, "a \n b"),
        good.replace(PROMPT, "a \u{1} b"),
        good.replace(PROMPT, "half \\ud83d of it"),
        good.replace("\"me\"", "\"\\ude00\""),
        good.replace("\"user\"", "\"us\ter\""),
        good.replace("\"user\"", "\"\\ud83d\""),
        good.replace("base64,", "base64,\n"),
    ] {
        assert_ne!(bad, good);
        let problem = post(bad).await.expect(400).problem();
        assert!(problem.message.contains("JSON"), "{}", problem.message);
    }
    let pair = good.replace(PROMPT, "all \\ud83d\\ude00 of it \\n");
    post(pair).await.expect(200);
    app.finish().await;
}
