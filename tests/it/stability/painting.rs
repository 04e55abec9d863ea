//! Every model at its price, what parameters become, and several pictures.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{LARGE, LARGE_NANO, PROMPT, Studio, one};
use crate::support::{
    fake_stability::{Behaviour, Reply},
    pictures::measure,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_model_paints_at_its_price() {
    let studio = Studio::start().await;
    for (model, endpoint, upstream, nano, size) in [
        ("stable-image-ultra", "ultra", None, 80_000_000, 1024),
        ("stable-image-core", "core", None, 30_000_000, 1280),
        (
            "stable-diffusion-3.5-large",
            "sd3",
            Some("sd3.5-large"),
            LARGE_NANO,
            1024,
        ),
        (
            "stable-diffusion-3.5-large-turbo",
            "sd3",
            Some("sd3.5-large-turbo"),
            40_000_000,
            1024,
        ),
        (
            "stable-diffusion-3.5-medium",
            "sd3",
            Some("sd3.5-medium"),
            35_000_000,
            1024,
        ),
        (
            "stable-diffusion-3.5-flash",
            "sd3",
            Some("sd3.5-flash"),
            25_000_000,
            1024,
        ),
        // Retired names; 3.5 serves them, and is what is asked for.
        (
            "stable-diffusion-3-large",
            "sd3",
            Some("sd3.5-large"),
            LARGE_NANO,
            1024,
        ),
        (
            "stable-diffusion-3-large-turbo",
            "sd3",
            Some("sd3.5-large-turbo"),
            40_000_000,
            1024,
        ),
        (
            "stable-diffusion-3-medium",
            "sd3",
            Some("sd3.5-medium"),
            35_000_000,
            1024,
        ),
    ] {
        for name in [format!("stability/{model}"), model.to_owned()] {
            let request = json!({"model": name, "prompt": PROMPT, "size": "1024x1024"});
            let body = studio.paint(&request, nano).await;
            assert_eq!(body["model"], format!("stability/{model}"));
            assert_eq!(body["provider"], "stability");
            let link = body["data"][0]["url"].as_str().unwrap();
            let picture = studio.app.open_link(link).await.expect(200).bytes;
            let measured = measure(&picture);
            assert_eq!((measured.width, measured.height), (size, size), "{model}");
            let call = studio.stability.last_call();
            assert_eq!(call.endpoint, endpoint, "{model}");
            assert_eq!(call.fields.get("model").map(String::as_str), upstream);
        }
    }
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_become_fields() {
    let studio = Studio::start().await;
    for (size, ratio) in [
        ("1536x1024", "3:2"),
        ("1024x1536", "2:3"),
        ("1792x1024", "16:9"),
        ("1024x1792", "9:16"),
        ("1280x1024", "5:4"),
        ("1024x1280", "4:5"),
        ("1680x720", "21:9"),
        ("720x1680", "9:21"),
    ] {
        let request = json!({
            "model": "sd3.5-flash", "prompt": PROMPT, "size": size, "response_format": "b64_json",
            "output_format": "webp", "quality": "standard", "user": "reader@example.com",
        });
        let body = studio.paint(&request, 25_000_000).await;
        assert_eq!(body["output_format"], "webp");
        let call = studio.stability.last_call();
        let fields = serde_json::to_value(&call.fields).unwrap();
        let expected = json!({
            "model": "sd3.5-flash", "prompt": PROMPT, "aspect_ratio": ratio, "output_format": "webp",
        });
        assert_eq!(fields, expected, "{size}");
        let end_user = call.headers["stability-client-user-id"].to_str().unwrap();
        assert!(
            end_user.len() > 20 && !end_user.contains("reader"),
            "{end_user}"
        );
    }
    // "auto" leaves the ratio to Stability.
    let request = json!({"model": "sd3.5-flash", "prompt": PROMPT, "size": "auto"});
    studio.paint(&request, 25_000_000).await;
    assert!(
        !studio
            .stability
            .last_call()
            .fields
            .contains_key("aspect_ratio")
    );
    // A prompt cannot add fields of its own.
    let nasty = "a\r\n--easel-form-boundary-00000000\r\ncontent-disposition: form-data; \
                 name=\"seed\"\r\n\r\n7";
    let request = json!({"model": "sd3.5-flash", "prompt": nasty});
    studio.paint(&request, 25_000_000).await;
    assert_eq!(studio.stability.last_call().fields["prompt"], nasty);
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_stability_knows_goes_through() {
    let studio = Studio::start().await;
    let request = json!({
        "model": "sd3.5-medium", "prompt": PROMPT, "n": 3, "seed": 4_294_967_293_u32,
        "negative_prompt": "fog", "style_preset": "line-art", "cfg_scale": 4.5,
        "aspect_ratio": "21:9",
    });
    studio.paint(&request, 3 * 35_000_000).await;
    let mut calls = studio.stability.calls();
    calls.sort_by(|one, other| one.fields["seed"].cmp(&other.fields["seed"]));
    for (call, seed) in calls.iter().zip(["1", "4294967293", "4294967294"]) {
        let expected = json!({
            "model": "sd3.5-medium", "prompt": PROMPT, "seed": seed, "negative_prompt": "fog",
            "style_preset": "line-art", "cfg_scale": "4.5", "aspect_ratio": "21:9",
        });
        assert_eq!(serde_json::to_value(&call.fields).unwrap(), expected);
    }
    // A shape has no size to say; the answer's is that of the picture.
    let request =
        json!({"model": "stable-image-core", "prompt": PROMPT, "size": "9:21", "seed": 0});
    let body = studio.paint(&request, 30_000_000).await;
    assert_eq!(body["size"], "800x1920");
    let fields = studio.stability.last_call().fields;
    assert_eq!(fields["aspect_ratio"], "9:21");
    assert!(!fields.contains_key("seed"), "0 means a random one");

    let calls = studio.stability.calls().len();
    for (name, value) in [
        ("seed", json!(-1)),
        ("seed", json!(4_294_967_295_u32)),
        ("seed", json!("7")),
        ("cfg_scale", json!(0.5)),
        ("cfg_scale", json!(10.5)),
        ("cfg_scale", json!("4")),
        ("style_preset", json!("vivid")),
        ("aspect_ratio", json!("4:3")),
        ("negative_prompt", json!("x".repeat(10_001))),
    ] {
        let mut request = one();
        request[name] = value;
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), name, "{problem:?}");
    }
    let request = json!({"model": "stable-image-core", "prompt": PROMPT, "cfg_scale": 4});
    let problem = studio.app.refuse(&studio.key, 400, &request).await;
    assert_eq!(problem.param(), "cfg_scale");
    assert_eq!(studio.stability.calls().len(), calls);
    studio.finish().await;
}

/// What Stability has no word for is refused before anybody is called.
#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_do_is_refused_by_name() {
    let studio = Studio::start().await;
    let ratios = [
        "21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21",
    ];
    for size in [
        "256x256",
        "512x512",
        "1024x768",
        "1000x1050",
        "4096x1024",
        "21x10",
    ] {
        let request = json!({"model": LARGE, "prompt": PROMPT, "size": size});
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), "size", "{size}");
        for ratio in ratios {
            assert!(problem.message.contains(ratio), "{ratio}: {problem:?}");
        }
    }
    for (name, value) in [
        ("quality", json!("low")),
        ("quality", json!("high")),
        ("quality", json!("hd")),
        ("style", json!("vivid")),
        ("background", json!("transparent")),
        ("moderation", json!("low")),
        ("output_format", json!("gif")),
        ("output_compression", json!(50)),
        ("partial_images", json!(4)),
        ("n", json!(11)),
        ("prompt", json!("x".repeat(10_001))),
    ] {
        let mut request = one();
        request[name] = value;
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), name, "{problem:?}");
    }
    assert!(studio.stability.calls().is_empty());
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_are_several_calls() {
    let studio = Studio::start().await;
    for (n, format) in [(10, "url"), (4, "b64_json")] {
        let request = json!({
            "model": LARGE, "prompt": format!("{PROMPT} SLOW"), "n": n, "response_format": format,
        });
        let body = studio.paint(&request, n * LARGE_NANO).await;
        let data = body["data"].as_array().unwrap();
        assert_eq!(i64::try_from(data.len()).unwrap(), n);
        let different: BTreeSet<String> = data.iter().map(Value::to_string).collect();
        assert_eq!(different.len(), data.len(), "each is another picture");
    }
    assert_eq!(studio.stability.calls().len(), 14);
    assert_eq!(
        studio.stability.most_in_flight(),
        4,
        "at the same time, bounded"
    );
    studio.finish().await;
}

/// Asked 4: what arrived is charged and returned, and the answer says what became of the rest.
#[tokio::test(flavor = "multi_thread")]
async fn some_of_several_pictures_arrive() {
    let studio = Studio::start().await;
    let blurred = || Behaviour::FinishReason(Some("CONTENT_FILTERED"));
    let refused = "moderation_blocked";
    for (behaviours, codes) in [
        (vec![blurred()], vec![refused]),
        (
            vec![Behaviour::Reply(Reply::content_moderation()), blurred()],
            vec![refused; 2],
        ),
        (vec![Behaviour::CutAfter(500)], vec!["upstream_error"]),
        (vec![Behaviour::HalfAPicture], vec!["upstream_error"]),
        (
            vec![
                blurred(),
                blurred(),
                Behaviour::Reply(Reply::internal_error()),
            ],
            vec![refused, refused, "upstream_error"],
        ),
    ] {
        let arriving = 4 - behaviours.len();
        for behaviour in behaviours {
            studio.stability.next(behaviour);
        }
        let request = json!({"model": LARGE, "prompt": PROMPT, "n": 4});
        let nano = i64::try_from(arriving).unwrap() * LARGE_NANO;
        let body = studio.paint(&request, nano).await;
        assert_eq!(body["data"].as_array().unwrap().len(), arriving);
        let failed = body["failed"].as_array().unwrap().iter();
        let mut seen: Vec<&str> = failed.map(|each| each["code"].as_str().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, codes);
    }
    studio.finish().await;
}
