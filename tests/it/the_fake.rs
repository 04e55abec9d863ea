//! The fake upstream refuses what the contract says that `OpenAI` refuses, and answers in its shapes.
//! Without this, a green suite would prove little.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use crate::support::{Answer, Client, FakeOpenAi, Secrets, fake_openai::API_KEY, pictures};

struct Fake {
    fake: FakeOpenAi,
    client: Client,
}

impl Fake {
    async fn start() -> Self {
        let fake = FakeOpenAi::start().await;
        let origin = format!("http://{}", fake.authority());
        Self {
            fake,
            client: Client::new(origin, Arc::new(Secrets::default())),
        }
    }

    async fn ask(&self, body: &Value) -> Answer {
        self.client
            .post_json("/v1/images/generations", Some(API_KEY), body)
            .await
    }

    /// Refused with this status, code and parameter.
    async fn refuses(&self, body: Value, status: u16, code: Option<&str>, param: Option<&str>) {
        let answer = self.ask(&body).await;
        assert_eq!(answer.status, status, "{body}");
        let problem = answer.problem();
        assert_eq!(
            (problem.code.as_deref(), problem.param.as_deref()),
            (code, param),
            "{body}: {problem:?}"
        );
    }
}

#[tokio::test]
async fn refuses_what_the_real_one_refuses() {
    let fake = Fake::start().await;
    let prompt = "a boat";
    let g1 = |extra: Value| {
        let mut body = json!({"model": "gpt-image-1", "prompt": "a boat"});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        body
    };
    for (body, code, param) in [
        (
            json!({"prompt": prompt}),
            Some("missing_required_parameter"),
            Some("model"),
        ),
        (
            json!({"model": "dall-e-2"}),
            Some("missing_required_parameter"),
            Some("prompt"),
        ),
        (
            json!({"model": "dall-e-9", "prompt": prompt}),
            Some("invalid_value"),
            Some("model"),
        ),
        (
            g1(json!({"response_format": "b64_json"})),
            Some("unknown_parameter"),
            Some("response_format"),
        ),
        (
            g1(json!({"style": "vivid"})),
            Some("unknown_parameter"),
            Some("style"),
        ),
        (
            g1(json!({"provider": {"only": ["openai"]}})),
            Some("unknown_parameter"),
            Some("provider"),
        ),
        (
            g1(json!({"quality": "standard"})),
            Some("invalid_value"),
            Some("quality"),
        ),
        (
            g1(json!({"quality": null})),
            Some("invalid_type"),
            Some("quality"),
        ),
        (
            g1(json!({"size": "1792x1024"})),
            Some("invalid_value"),
            Some("size"),
        ),
        (
            g1(json!({"n": 11})),
            Some("integer_above_max_value"),
            Some("n"),
        ),
        (g1(json!({"n": "2"})), Some("invalid_type"), Some("n")),
        (
            g1(json!({"background": "transparent", "output_format": "jpeg"})),
            Some("invalid_value"),
            Some("background"),
        ),
        (
            g1(json!({"output_compression": 50})),
            Some("invalid_png_output_compression"),
            Some("output_compression"),
        ),
        (
            g1(json!({"prompt": "x".repeat(32_001)})),
            Some("string_above_max_length"),
            Some("prompt"),
        ),
        (
            json!({"model": "dall-e-2", "prompt": "x".repeat(1001)}),
            None,
            None,
        ),
        (
            json!({"model": "dall-e-2", "prompt": prompt, "quality": "hd"}),
            Some("invalid_value"),
            Some("quality"),
        ),
        (
            json!({"model": "dall-e-3", "prompt": prompt, "n": 2}),
            Some("integer_above_max_value"),
            Some("n"),
        ),
        (
            json!({"model": "dall-e-3", "prompt": prompt, "size": "512x512"}),
            Some("invalid_size"),
            None,
        ),
        (
            json!({"model": "gpt-image-2", "prompt": prompt, "size": "1792x936"}),
            Some("invalid_value"),
            Some("size"),
        ),
        (
            json!({"model": "gpt-image-2", "prompt": prompt, "size": "512x512"}),
            Some("invalid_value"),
            Some("size"),
        ),
        (
            json!({"model": "gpt-image-2", "prompt": prompt, "quality": "max"}),
            Some("invalid_value"),
            Some("quality"),
        ),
    ] {
        fake.refuses(body, 400, code, param).await;
    }
}

#[tokio::test]
async fn refuses_wrong_keys_types_and_paths() {
    let fake = Fake::start().await;
    let body = json!({"model": "dall-e-2", "prompt": "a boat"});
    let path = "/v1/images/generations";
    assert_eq!(fake.client.post_json(path, None, &body).await.status, 401);
    assert_eq!(
        fake.client
            .post_json(path, Some("sk-other"), &body)
            .await
            .expect(401)
            .problem()
            .code(),
        "invalid_api_key"
    );
    assert_eq!(
        fake.client
            .post_json("/v1/images/generation", Some(API_KEY), &body)
            .await
            .status,
        404
    );
    let request = fake
        .client
        .request(reqwest::Method::POST, path)
        .bearer_auth(API_KEY)
        .body("{}");
    assert_eq!(
        fake.client.send(request).await.expect(400).problem().code(),
        "unsupported_content_type"
    );
    let calls = fake.fake.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.refused.is_some()));
}

#[tokio::test]
async fn answers_in_the_shape_of_each_family() {
    let fake = Fake::start().await;
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<String>>()
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<String>>()
    };

    let links = fake
        .ask(&json!({"model": "dall-e-2", "prompt": "a boat", "n": 2, "size": "256x256"}))
        .await
        .expect(200);
    assert_eq!(keys(&links.json()), set(&["created", "data"]));
    let path = links
        .link(1)
        .split_once("/img/")
        .map(|(_, rest)| format!("/img/{rest}"))
        .unwrap();
    let picture = fake.client.get(&path, None).await.expect(200);
    assert_eq!(
        pictures::measure(&picture.bytes),
        pictures::Measured {
            format: "png",
            width: 256,
            height: 256
        }
    );

    let revised = fake
        .ask(&json!({"model": "dall-e-3", "prompt": "a boat", "response_format": "b64_json"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        keys(&revised["data"][0]),
        set(&["b64_json", "revised_prompt"])
    );

    let tokens = fake.ask(&json!({"model": "gpt-image-1", "prompt": "a boat", "n": 2, "quality": "high", "size": "1024x1024", "output_format": "webp", "background": "transparent"})).await.expect(200);
    let body = tokens.json();
    assert_eq!(
        keys(&body),
        set(&[
            "created",
            "background",
            "data",
            "output_format",
            "quality",
            "size",
            "usage"
        ])
    );
    assert_eq!(body["usage"]["output_tokens"], 2 * 4160);
    assert!(pictures::is_transparent(&tokens.picture(1)));
}

/// The published figures of gpt-image-2 (contract, section 10).
#[tokio::test]
async fn counts_tokens_as_the_tables_do() {
    let fake = Fake::start().await;
    for (size, quality, tokens) in [
        ("1024x1024", "low", 196),
        ("1024x1024", "medium", 1756),
        ("1024x1536", "high", 5488),
        ("1792x1024", "high", 5063),
        ("2048x2048", "low", 397),
    ] {
        let body =
            json!({"model": "gpt-image-2", "prompt": "a boat", "size": size, "quality": quality});
        let answer = fake.ask(&body).await.expect(200).json();
        assert_eq!(answer["usage"]["output_tokens"], tokens, "{size} {quality}");
    }
}

/// A form with a picture as `image` of this type, a mask if there is one, and these fields.
fn form(
    content_type: &str,
    mask: Option<(u32, bool)>,
    fields: &[(&str, &str)],
) -> reqwest::multipart::Form {
    use reqwest::multipart::{Form, Part};

    let part = |bytes: bytes::Bytes, content_type: &str| {
        Part::bytes(bytes.to_vec())
            .file_name("a.png")
            .mime_str(content_type)
            .unwrap()
    };
    let picture = pictures::paint("png", 64, 64, 1, false);
    let mut form = Form::new().part("image", part(picture, content_type));
    if let Some((edge, transparent)) = mask {
        let mask = pictures::paint("png", edge, edge, 2, transparent);
        form = form.part("mask", part(mask, "application/octet-stream"));
    }
    for (name, value) in fields {
        form = form.text((*name).to_owned(), (*value).to_owned());
    }
    form
}

#[tokio::test]
async fn refuses_forms_that_the_real_one_refuses() {
    let fake = Fake::start().await;
    let png = "image/png";
    let (model, prompt) = (("model", "gpt-image-1"), ("prompt", "a boat"));
    let g2 = ("model", "gpt-image-2");
    let good = [model, prompt];
    let send = async |path: &str, form: reqwest::multipart::Form| {
        let request = fake.client.request(reqwest::Method::POST, path);
        let request = request.bearer_auth(API_KEY).multipart(form);
        fake.client.send(request).await
    };
    let edits = "/v1/images/edits";
    for (form, code, param) in [
        (
            form("application/octet-stream", None, &good),
            Some("unsupported_file_mimetype"),
            Some("image"),
        ),
        (
            form("image/jpeg", None, &good),
            Some("invalid_image_file"),
            Some("image"),
        ),
        (
            form(png, Some((32, true)), &good),
            Some("invalid_mask_image_format"),
            Some("mask"),
        ),
        (
            form(png, Some((64, false)), &good),
            Some("invalid_mask_image_format"),
            Some("mask"),
        ),
        (
            form(png, None, &[model]),
            Some("missing_required_parameter"),
            Some("prompt"),
        ),
        (
            form(png, None, &[model, prompt, ("image", "text")]),
            Some("invalid_type"),
            Some("image"),
        ),
        (form(png, None, &[model, prompt, prompt]), None, None),
        (
            form(png, None, &[model, prompt, ("moderation", "low")]),
            Some("unknown_parameter"),
            Some("moderation"),
        ),
        (
            form(png, None, &[model, prompt, ("response_format", "url")]),
            Some("unknown_parameter"),
            Some("response_format"),
        ),
        (
            form(png, None, &[model, prompt, ("stream", "yes")]),
            Some("invalid_type"),
            Some("stream"),
        ),
        (
            form(png, None, &[model, prompt, ("partial_images", "4")]),
            Some("integer_above_max_value"),
            Some("partial_images"),
        ),
        (
            form(png, None, &[g2, prompt, ("input_fidelity", "high")]),
            Some("invalid_input_fidelity_model"),
            Some("input_fidelity"),
        ),
        (
            form(png, None, &[("model", "dall-e-3"), prompt]),
            Some("invalid_value"),
            Some("model"),
        ),
    ] {
        let shown = format!("{form:?}");
        let problem = send(edits, form).await.expect(400).problem();
        assert_eq!(
            (problem.code.as_deref(), problem.param.as_deref()),
            (code, param),
            "{shown}: {problem:?}"
        );
    }
    let twice = form(png, None, &good).part(
        "image",
        reqwest::multipart::Part::bytes(pictures::paint("png", 64, 64, 1, false).to_vec())
            .file_name("b.png")
            .mime_str(png)
            .unwrap(),
    );
    let problem = send(edits, twice).await.expect(400).problem();
    assert!(problem.message.starts_with("Duplicate parameter: 'image'."));
    send("/v1/images/variations", form(png, None, &good))
        .await
        .expect(400);

    send(edits, form(png, Some((64, true)), &good))
        .await
        .expect(200);
    let dall_e_2 = [("model", "dall-e-2"), ("n", "2")];
    send("/v1/images/variations", form(png, None, &dall_e_2))
        .await
        .expect(200);
}

/// The lines of the contract's example, in its order.
#[tokio::test]
async fn streams_as_the_contract_shows() {
    let fake = Fake::start().await;
    let body = json!({
        "model": "gpt-image-1", "prompt": "a boat", "size": "1024x1024", "quality": "low",
        "stream": true, "partial_images": 2,
    });
    let answer = fake.ask(&body).await.expect(200);
    assert!(
        answer
            .header("content-type")
            .starts_with("text/event-stream")
    );
    let text = std::str::from_utf8(&answer.bytes).unwrap();
    let frames: Vec<&str> = text.strip_suffix("\n\n").unwrap().split("\n\n").collect();
    let events = frames
        .iter()
        .map(|frame| {
            let (name, data) = frame.split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
            data
        })
        .collect::<Vec<_>>();
    assert_eq!(events.len(), 3);
    for (event, index) in events[..2].iter().zip(0..) {
        assert_eq!(event["type"], "image_generation.partial_image");
        assert_eq!(event["partial_image_index"], index);
        assert_eq!(event.as_object().unwrap().len(), 8);
    }
    let usage = &events[2]["usage"];
    assert_eq!(usage["output_tokens"], 272 + 2 * 100);
    assert!(usage.get("output_tokens_details").is_none());
}
