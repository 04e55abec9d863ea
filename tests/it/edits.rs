//! `POST /v1/images/edits` and `/v1/images/variations`: forms and JSON, in every spelling that clients use.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, App, Key, pictures};

pub(crate) const EDITS: &str = "/v1/images/edits";
pub(crate) const VARIATIONS: &str = "/v1/images/variations";
const PROMPT: &str = "the same otter with a lantern";
pub(crate) const BOUNDARY: &str = "otter-boundary-7f3a";

/// A part of a form: its head as it is on the wire, and its content.
#[derive(Clone)]
pub(crate) struct Part(String, Vec<u8>);

pub(crate) fn text(name: &str, value: &str) -> Part {
    let head = format!("Content-Disposition: form-data; name=\"{name}\"");
    Part(head, value.as_bytes().to_vec())
}

fn file(name: &str, file_name: &str, content_type: &str, content: &[u8]) -> Part {
    let head = format!(
        "Content-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: {content_type}"
    );
    Part(head, content.to_vec())
}

pub(crate) fn png(name: &str, content: &[u8]) -> Part {
    file(name, "otter.png", "image/png", content)
}

pub(crate) fn form(parts: &[Part]) -> Vec<u8> {
    let mut body = Vec::new();
    for Part(head, content) in parts {
        body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

pub(crate) async fn post(app: &App, key: &Key, path: &str, body: Vec<u8>) -> Answer {
    let request = app
        .client
        .request(Method::POST, path)
        .bearer_auth(&key.secret)
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(body);
    app.client.send(request).await
}

async fn edit(app: &App, key: &Key, parts: &[Part]) -> Answer {
    app.keep_secret(PROMPT, "a prompt");
    post(app, key, EDITS, form(parts)).await
}

pub(crate) fn square() -> Vec<u8> {
    pictures::paint("png", 512, 512, 7, false).to_vec()
}

fn mask() -> Vec<u8> {
    pictures::paint("png", 512, 512, 9, true).to_vec()
}

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

fn data_url(media_type: &str, content: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(content))
}

fn reference(content: &[u8]) -> Value {
    json!({"image_url": data_url("image/png", content)})
}

async fn edit_json(app: &App, key: &Key, body: &Value) -> Answer {
    app.keep_secret(PROMPT, "a prompt");
    let request = app
        .client
        .request(Method::POST, EDITS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(body.to_string());
    app.client.send(request).await
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

async fn told(
    app: &App,
    key: &Key,
    before: &Value,
    answer: &Answer,
    expected: (u16, &str, &str),
) -> String {
    let problem = answer.problem();
    let (status, param, code) = expected;
    assert_eq!(
        (answer.status, problem.param(), problem.code()),
        (status, param, code),
        "{}",
        problem.message
    );
    assert_eq!(&app.credits(key).await, before, "{}", problem.message);
    assert!(!problem.message.contains("lantern"), "{}", problem.message);
    problem.message
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
