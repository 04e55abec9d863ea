//! Edits: inpaint beside a mask, image-to-image without one (`contracts/stability.md`, 2.2 and 2.4).

use std::io::Cursor;

use bytes::Bytes;
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use super::{LARGE, LARGE_NANO, PROMPT, Studio};
use crate::support::{
    Answer,
    fake_stability::{API_KEY, Behaviour, FakeStability, Reply},
    pictures::{self, measure},
    usd,
};

/// 5 credits of 0.01 USD.
const INPAINT_NANO: i64 = 50_000_000;

/// A picture that no compression makes small: beyond what a spool keeps in memory.
fn noise(width: u32, height: u32) -> Bytes {
    let mut state = 0x2545_f491_u32;
    let picture = image::RgbImage::from_fn(width, height, |_, _| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let [one, two, three, _] = state.to_le_bytes();
        image::Rgb([one, two, three])
    });
    png(&picture.into())
}

fn png(picture: &image::DynamicImage) -> Bytes {
    let mut file = Cursor::new(Vec::new());
    picture
        .write_to(&mut file, image::ImageFormat::Png)
        .unwrap();
    file.into_inner().into()
}

/// Its left half is transparent, which is where to edit.
fn mask(width: u32, height: u32) -> Bytes {
    let picture = image::RgbaImage::from_fn(width, height, |x, _| {
        image::Rgba([200, 10, 10, if x < width / 2 { 0 } else { 255 }])
    });
    png(&picture.into())
}

fn painted(format: &'static str, width: u32, height: u32) -> Bytes {
    pictures::paint(format, width, height, 77, false)
}

impl Studio {
    async fn edit(&self, fields: &Value, image: &Bytes, mask: Option<&Bytes>) -> Answer {
        let file = |bytes: &Bytes| Part::stream(bytes.clone()).file_name("upload");
        let mut form = Form::new().part("image", file(image));
        if let Some(mask) = mask {
            form = form.part("mask", file(mask));
        }
        for (name, value) in fields.as_object().unwrap() {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            form = form.text(name.clone(), value);
        }
        let request = self.app.client.request(Method::POST, "/v1/images/edits");
        let request = request.bearer_auth(&self.key.secret).multipart(form);
        self.app.keep_secret(PROMPT, "a prompt");
        self.app.client.send(request).await
    }

    /// Edits; what is held is what it can cost, and what is charged what it cost.
    async fn paint_edit(
        &self,
        fields: &Value,
        image: &Bytes,
        mask: Option<&Bytes>,
        expected_nano: i64,
    ) -> Value {
        let before = self.app.balance(&self.key).await;
        let answer = self.edit(fields, image, mask).await.expect(200);
        self.prove_charge(&before, &answer, expected_nano).await;
        answer.json()
    }
}

fn one() -> Value {
    json!({"model": LARGE, "prompt": PROMPT})
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_mask_every_model_inpaints() {
    let studio = Studio::start().await;
    let mask = mask(640, 448);
    for (model, format) in [
        ("stability/stable-image-core", "png"),
        ("stability/stable-image-ultra", "jpeg"),
        ("stability/stable-diffusion-3.5-large-turbo", "webp"),
        ("stability/stable-diffusion-3-medium", "png"),
    ] {
        let image = painted(format, 640, 448);
        let request = json!({
            "model": model, "prompt": PROMPT, "output_format": "webp", "grow_mask": 7,
            "seed": 42, "negative_prompt": "fog", "style_preset": "anime", "size": "640x448",
            "user": "reader@example.com", "response_format": "b64_json",
        });
        let body = studio
            .paint_edit(&request, &image, Some(&mask), INPAINT_NANO)
            .await;
        assert_eq!(body["provider"], "stability");
        assert_eq!(body["model"], model);
        assert_eq!(body["size"], "640x448");
        let held = "select amount_nano_usd from holds order by created_at desc limit 1";
        assert_eq!(studio.app.database.number(held).await, INPAINT_NANO);

        let call = studio.stability.last_call();
        assert_eq!((&*call.family, &*call.endpoint), ("edit", "inpaint"));
        let expected = json!({
            "prompt": PROMPT, "output_format": "webp", "grow_mask": "7", "seed": "42",
            "negative_prompt": "fog", "style_preset": "anime",
        });
        assert_eq!(serde_json::to_value(&call.fields).unwrap(), expected);
        assert_eq!(call.headers["accept"], "image/*");
        assert!(call.headers.contains_key("content-length"), "no chunks");
        assert!(call.headers.contains_key("stability-client-user-id"));
        assert_eq!(call.files.len(), 2);
        assert!(call.files["image"] == image, "{format}: as it came");
        // White where to paint.
        let white = image::load_from_memory(&call.files["mask"]).unwrap();
        assert_eq!(white.color(), image::ColorType::L8);
        let white = white.into_luma8();
        assert_eq!(white.dimensions(), (640, 448));
        for (x, _, shade) in white.enumerate_pixels() {
            assert_eq!(shade.0[0], if x < 320 { 255 } else { 0 }, "{x}");
        }
    }
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mask_the_whole_picture_is_painted_over() {
    let studio = Studio::start().await;
    for (model, format, asked, strength, nano) in [
        (LARGE, "png", None, "0.7", LARGE_NANO),
        ("sd3.5-flash", "jpeg", None, "0.95", 25_000_000),
        (
            "sd3.5-medium",
            "webp",
            Some(json!(0.25)),
            "0.25",
            35_000_000,
        ),
        ("stable-image-ultra", "png", Some(json!(1)), "1", 80_000_000),
    ] {
        let image = painted(format, 640, 448);
        let mut request = json!({"model": model, "prompt": PROMPT});
        if let Some(asked) = asked {
            request["strength"] = asked;
        }
        let body = studio.paint_edit(&request, &image, None, nano).await;
        let link = body["data"][0]["url"].as_str().unwrap();
        let picture = studio.app.open_link(link).await.expect(200).bytes;
        assert_eq!(measure(&picture).format, "png");

        let call = studio.stability.last_call();
        let mut expected = json!({"prompt": PROMPT, "strength": strength});
        if model == "stable-image-ultra" {
            assert_eq!((&*call.family, &*call.endpoint), ("generate", "ultra"));
        } else {
            assert_eq!((&*call.family, &*call.endpoint), ("generate", "sd3"));
            expected["mode"] = json!("image-to-image");
            let upstream = if model == LARGE { "sd3.5-large" } else { model };
            expected["model"] = json!(upstream);
        }
        assert_eq!(serde_json::to_value(&call.fields).unwrap(), expected);
        assert_eq!(call.files.keys().collect::<Vec<_>>(), ["image"]);
        assert!(call.files["image"] == image, "{format}");
    }
    // Where a PNG is transparent itself, core needs no mask.
    let image = mask(128, 128);
    let request = json!({"model": "stable-image-core", "prompt": PROMPT});
    studio
        .paint_edit(&request, &image, None, INPAINT_NANO)
        .await;
    let call = studio.stability.last_call();
    assert_eq!((&*call.endpoint, call.files.len()), ("inpaint", 1));
    studio.finish().await;
}

/// Each is a call of its own with the same pictures, and what arrives is charged.
#[tokio::test(flavor = "multi_thread")]
async fn several_edits_fan_out_and_some_arrive() {
    let studio = Studio::start().await;
    let (image, mask) = (noise(512, 384), mask(512, 384));
    assert!(image.len() > 512 * 1024, "spooled");
    studio
        .stability
        .next(Behaviour::FinishReason(Some("CONTENT_FILTERED")));
    studio
        .stability
        .next(Behaviour::Reply(Reply::public_figure()));
    let request = json!({"model": "sd3.5-large", "prompt": PROMPT, "n": 5, "seed": 10});
    let body = studio
        .paint_edit(&request, &image, Some(&mask), 3 * INPAINT_NANO)
        .await;
    assert_eq!(body["data"].as_array().unwrap().len(), 3);
    let failed = body["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 2);
    for each in failed {
        assert_eq!(each["code"], "moderation_blocked");
    }
    let calls = studio.stability.calls();
    let mut seeds: Vec<&str> = calls.iter().map(|call| &*call.fields["seed"]).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, ["10", "11", "12", "13", "14"]);
    for call in &calls {
        assert!(call.files["image"] == image);
        assert_eq!(call.files["mask"], calls[0].files["mask"]);
    }
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_edit_is_refused_before_money_moves() {
    let studio = Studio::start().await;
    let square = painted("png", 256, 256);
    let fitting = mask(256, 256);
    let mut torn = fitting.to_vec();
    let middle = torn.len() / 2;
    torn[middle] ^= 0x55;
    let torn = Bytes::from(torn);
    let core = json!({"model": "stable-image-core"});
    let small = painted("jpeg", 63, 256);
    let opaque = painted("png", 256, 256);
    let (wide, wide_mask) = (painted("jpeg", 4096, 2312), mask(4096, 2312));
    for (more, image, mask, param) in [
        (json!({"size": "512x512"}), &square, None, "size"),
        (json!({"size": "16:9"}), &square, None, "size"),
        (
            json!({"aspect_ratio": "1:1"}),
            &square,
            None,
            "aspect_ratio",
        ),
        (json!({"strength": 1.01}), &square, None, "strength"),
        (json!({"strength": -1}), &square, None, "strength"),
        (
            json!({"strength": 0.5}),
            &square,
            Some(&fitting),
            "strength",
        ),
        (
            json!({"cfg_scale": 5}),
            &square,
            Some(&fitting),
            "cfg_scale",
        ),
        (json!({"grow_mask": 5}), &square, None, "grow_mask"),
        (
            json!({"grow_mask": 101}),
            &square,
            Some(&fitting),
            "grow_mask",
        ),
        (json!({"quality": "high"}), &square, None, "quality"),
        (
            json!({"input_fidelity": "high"}),
            &square,
            None,
            "input_fidelity",
        ),
        (json!({}), &small, None, "image"),
        (json!({}), &wide, Some(&wide_mask), "mask"),
        (json!({}), &square, Some(&wide_mask), "mask"),
        (json!({}), &square, Some(&opaque), "mask"),
        (core.clone(), &square, None, "mask"),
        (
            json!({"model": "stable-image-core", "strength": 0.5}),
            &square,
            Some(&fitting),
            "strength",
        ),
    ] {
        let mut request = one();
        for (name, value) in more.as_object().unwrap() {
            request[name] = value.clone();
        }
        let answer = studio.edit(&request, image, mask).await;
        assert_eq!(answer.status, 400, "{more} {param}: {:?}", answer.bytes);
        assert_eq!(
            answer.problem().param(),
            param,
            "{more}: {:?}",
            answer.problem()
        );
    }
    // Found out only when its pixels are looked at, and nobody was called by then.
    let answer = studio.edit(&one(), &square, Some(&torn)).await;
    assert_eq!(answer.status, 400, "{:?}", answer.bytes);
    assert_eq!(answer.problem().param(), "mask");
    // What edits knows, generations do not.
    for (name, value) in [("strength", json!(0.5)), ("grow_mask", json!(5))] {
        let mut request = one();
        request[name] = value;
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), name);
    }
    assert!(studio.stability.calls().is_empty());
    assert_eq!(studio.app.balance(&studio.key).await, json!(2));
    studio.app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_edits() {
    let (image, mask) = (painted("png", 256, 256), mask(256, 256));
    for (behaviour, seen) in [
        (
            Behaviour::Reply(Reply::content_moderation()),
            "400 moderation_blocked image_generation_user_error",
        ),
        (
            Behaviour::Reply(Reply::public_figure()),
            "400 moderation_blocked image_generation_user_error",
        ),
        (
            Behaviour::FinishReason(Some("CONTENT_FILTERED")),
            "400 moderation_blocked image_generation_user_error",
        ),
        (
            Behaviour::Reply(Reply::bad_request(&["image: is too odd".to_owned()])),
            "400 invalid_value invalid_request_error",
        ),
        (
            Behaviour::Reply(Reply::payload_too_large()),
            "400 image_too_large invalid_request_error",
        ),
        (
            Behaviour::Reply(Reply::payment_required()),
            "502 upstream_error upstream_error",
        ),
        (
            Behaviour::Reply(Reply::rate_limited()),
            "429 upstream_rate_limited rate_limit_error",
        ),
        (
            Behaviour::Reply(Reply::internal_error()),
            "502 upstream_error upstream_error",
        ),
        (
            Behaviour::CutAfter(400),
            "502 upstream_error upstream_error",
        ),
        (Behaviour::Never, "504 upstream_timeout upstream_error"),
    ] {
        let studio = Studio::with(&[("providers.stability.timeout", "1500ms")]).await;
        let described = format!("{behaviour:?}");
        studio.stability.next(behaviour);
        let answer = studio.edit(&one(), &image, Some(&mask)).await;
        let problem = answer.problem();
        let shown = format!("{} {} {}", answer.status, problem.code(), problem.kind);
        assert_eq!(shown, seen, "{described}");
        for leak in ["purchase", "platform.stability.ai", PROMPT] {
            assert!(!problem.message.contains(leak), "{leak}: {problem:?}");
        }
        assert_eq!(studio.app.balance(&studio.key).await, json!(2));
        assert_eq!(studio.stability.calls().len(), 1);
        studio.finish().await;
    }
}

/// A model that edits only, with the same pictures on both of its routes.
const TWO_EDITORS: &str = r#"
[[model]]
id = "test/editor"
name = "Editor"
created = 1795132800
owned_by = "test"
status = "active"

[model.rules]
prompt = { max_chars = 1000 }
n = { min = 1, max = 4, default = 1 }
size = { values = ["auto"], default = "auto" }
response_format = { values = ["url", "b64_json"], default = "url" }
edits = { images = { max = 1 }, mask = {} }

[[model.routes]]
provider = "stability"
upstream_model = "core"
translation = { size = { table = [] } }
price = { per_image = [{ price = "0.03" }] }
edits = { upstream_model = "inpaint", price.per_image = [{ price = "0.09" }] }

[[model.routes]]
provider = "second"
upstream_model = "core"
translation = { size = { table = [] } }
price = { per_image = [{ price = "0.03" }] }
edits = { upstream_model = "inpaint", price.per_image = [{ price = "0.05" }] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_next_route_gets_the_same_pictures() {
    let second = FakeStability::start().await;
    let studio = Studio::with_models(
        &[
            ("providers.second.adapter", "stability"),
            ("providers.second.base_url", &second.base_url()),
            ("providers.second.api_key", API_KEY),
        ],
        TWO_EDITORS,
    )
    .await;
    let (image, mask) = (noise(512, 384), mask(512, 384));
    studio
        .stability
        .next(Behaviour::Reply(Reply::rate_limited()));
    let request = json!({"model": "test/editor", "prompt": PROMPT});
    let body = studio
        .paint_edit(&request, &image, Some(&mask), INPAINT_NANO)
        .await;
    assert_eq!(body["provider"], "second");
    assert_eq!(body["usage"]["cost"], usd(INPAINT_NANO));
    let held = studio
        .app
        .database
        .number("select amount_nano_usd from holds");
    assert_eq!(held.await, 90_000_000, "the dearer route");
    let (one, other) = (studio.stability.last_call(), second.last_call());
    assert_eq!(one.files, other.files);
    assert!(other.files["image"] == image);
    studio.finish().await;
}
