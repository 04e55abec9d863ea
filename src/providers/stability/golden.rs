//! Requests, heads of answers and errors as files, and what we make of them as snapshots beside them.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{
    answer::{Head, read_head},
    error::ErrorBody,
    request::{self, FormRequest, Source},
};
use crate::{
    catalog::{Catalog, ImageRequest, Translation, Unsupported},
    images::Upload,
    providers::{
        ErrorKind, ProviderError,
        testing::{
            goldens::{fixtures, params, snapshot},
            png,
        },
    },
};

const PROMPT: &str = "An otter that reads the evening newspaper aloud";

/// What a client wrote, after the model's own rules.
fn checked(catalog: &Catalog, written: &Value) -> ImageRequest {
    let model = catalog.find(written["model"].as_str().unwrap()).unwrap();
    let outcome = model.rules.check(&params(written), Unsupported::Reject);
    let (request, _) = outcome.unwrap_or_else(|violation| panic!("{written}: {violation:?}"));
    request
}

/// Path, fields in their order, headers.
fn shown(request: &FormRequest) -> Value {
    let fields = request.form.fields().iter();
    let headers = request.headers.iter();
    json!({
        "endpoint": format!("{}/{}", request.family, request.endpoint),
        "files": request
            .form
            .files()
            .map(|(name, file_name)| format!("{name} = {file_name}"))
            .collect::<Vec<_>>(),
        "fields": fields.map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>(),
        "headers": headers
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect::<Vec<_>>(),
    })
}

#[test]
fn requests_become_forms() {
    let catalog = Catalog::load(None).unwrap();
    let requests = fixtures("stability", "requests")
        .into_iter()
        .map(|(name, written)| {
            let written = serde_json::from_slice::<Value>(&written).unwrap();
            let model = catalog.find(written["model"].as_str().unwrap()).unwrap();
            let route = &model.routes[0];
            let request = checked(&catalog, &written);
            let request = request::write(
                &request,
                2,
                &Source::Words,
                &route.upstream_model,
                &route.translation,
            );
            (name, shown(&request.unwrap()))
        })
        .collect();
    snapshot("stability", "requests", &Value::Object(requests));
}

/// A fixture's `image` names a format, and `mask` says whether there is one.
#[test]
fn edits_become_forms() {
    let catalog = Catalog::load(None).unwrap();
    let requests = fixtures("stability", "edits")
        .into_iter()
        .map(|(name, written)| {
            let mut written = serde_json::from_slice::<Value>(&written).unwrap();
            let model = catalog.find(written["model"].as_str().unwrap()).unwrap();
            let fields = written.as_object_mut().unwrap();
            let format = fields.remove("image").unwrap();
            let has_mask = fields.remove("mask").is_some();
            let rules = model.rules.edits().unwrap();
            let (request, _) = rules
                .check(&params(&written), Unsupported::Reject)
                .unwrap_or_else(|violation| panic!("{name}: {violation:?}"));
            let image = Upload::from_bytes(painted(format.as_str().unwrap())).unwrap();
            let source = if has_mask {
                let white = Upload::from_bytes(png(64, 64)).unwrap();
                Source::Part { image, white }
            } else {
                Source::Picture(image)
            };
            let edits = model.routes[0].edits.as_ref().unwrap();
            let masked = edits.masked.as_ref().filter(|_| has_mask);
            let route = masked.unwrap_or(&edits.route);
            let request = request::write(
                &request,
                0,
                &source,
                &route.upstream_model,
                &route.translation,
            );
            (name, shown(&request.unwrap()))
        })
        .collect();
    snapshot("stability", "edits", &Value::Object(requests));
}

fn painted(format: &str) -> bytes::Bytes {
    let picture = image::RgbImage::new(64, 64);
    let mut file = std::io::Cursor::new(Vec::new());
    match format {
        "png" => return png(64, 64),
        "jpeg" => picture
            .write_to(&mut file, image::ImageFormat::Jpeg)
            .unwrap(),
        "webp" => {
            let encoded = webp::Encoder::from_rgb(picture.as_raw(), 64, 64).encode(50.0);
            file.get_mut().extend_from_slice(&encoded);
        }
        other => panic!("cannot paint {other}"),
    }
    file.into_inner().into()
}

/// What a `models_dir` may ask for, and no endpoint can.
#[test]
fn what_an_endpoint_cannot_do_is_not_sent() {
    let catalog = Catalog::load(None).unwrap();
    let request = checked(
        &catalog,
        &json!({"model": "stable-image-core", "prompt": "x"}),
    );
    let upload = || Upload::from_bytes(png(64, 64)).unwrap();
    let part = || Source::Part {
        image: upload(),
        white: upload(),
    };
    for (source, model, param) in [
        (Source::Words, "inpaint", "image"),
        (Source::Picture(upload()), "core", "image"),
        (part(), "core", "mask"),
        (part(), "ultra", "mask"),
        (part(), "sd3.5-large", "mask"),
    ] {
        let written = request::write(&request, 0, &source, model, &Translation::default());
        let error = written.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidRequest, "{model}");
        assert_eq!(error.param.as_deref(), Some(param), "{model}");
    }
}

#[test]
fn every_model_has_a_golden() {
    let catalog = Catalog::load(None).unwrap();
    let written = fixtures("stability", "requests");
    for model in catalog.models() {
        let is_ours = model
            .routes
            .iter()
            .any(|route| route.provider == "stability");
        let has_golden = written.iter().any(|(_, text)| {
            let written = serde_json::from_slice::<Value>(text).unwrap();
            catalog.find(written["model"].as_str().unwrap()).unwrap().id == model.id
        });
        assert!(!is_ours || has_golden, "{}", model.id);
    }
}

#[test]
fn a_translation_changes_names_words_and_sizes() {
    let catalog = Catalog::load(None).unwrap();
    let request = checked(
        &catalog,
        &json!({
            "model": "sd3.5-large", "prompt": "An otter", "size": "1536x1024", "quality": "medium",
            "output_format": "jpeg",
        }),
    );
    let translation = |toml: &str| toml::from_str::<Translation>(toml).unwrap();
    let says =
        |toml: &str| request::write(&request, 0, &Source::Words, "sd4-huge", &translation(toml));
    let written = says(
        r#"
        names = { prompt = "text", output_format = "format", quality = "style_preset" }
        words = { quality = { medium = "cinematic" }, output_format = { jpeg = "jpg" } }
        size = { table = [["1536x1024", { aspect_ratio = "3:2", megapixels = 1.5 }]] }
        fixed = { mode = "text-to-image", cfg_scale = 4 }
        "#,
    );
    let shown = shown(&written.unwrap());
    assert_eq!(
        shown["fields"],
        json!([
            "model = sd4-huge",
            "text = An otter",
            "aspect_ratio = 3:2",
            "megapixels = 1.5",
            "format = jpg",
            "style_preset = cinematic",
            "cfg_scale = 4",
            "mode = text-to-image",
        ])
    );
    let error =
        says(r#"size = { table = [["1024x1024", { aspect_ratio = "1:1" }]] }"#).unwrap_err();
    assert_eq!(
        error.message,
        "size 1536x1024 cannot be asked of this provider"
    );
    assert_eq!(error.param.as_deref(), Some("size"));
}

fn headers(pairs: &Value) -> HeaderMap {
    let pairs = pairs.as_object().unwrap().iter();
    pairs
        .map(|(name, value)| {
            let name = name.parse::<HeaderName>().unwrap();
            (
                name,
                value.as_str().unwrap().parse::<HeaderValue>().unwrap(),
            )
        })
        .collect()
}

fn described(error: &ProviderError) -> Value {
    json!({
        "kind": format!("{:?}", error.kind),
        "message": error.message,
        "code": error.code,
        "type": error.error_type,
        "param": error.param,
        "status": error.upstream_status,
        "maybe_charged": error.maybe_charged,
        "whole_account": error.whole_account,
    })
}

#[test]
fn heads_are_judged() {
    let answers = fixtures("stability", "answers")
        .into_iter()
        .map(|(name, head)| {
            let head = serde_json::from_slice::<Value>(&head).unwrap();
            let status = u16::try_from(head["status"].as_u64().unwrap()).unwrap();
            let judged = match read_head(status, &headers(&head["headers"])) {
                Head::Picture => json!("picture"),
                Head::Words => json!("words"),
                Head::Nothing(why) => described(&why),
            };
            (name, judged)
        })
        .collect();
    snapshot("stability", "answers", &Value::Object(answers));
}

#[test]
fn errors_become_kinds() {
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    let errors = fixtures("stability", "errors")
        .into_iter()
        .map(|(name, body)| {
            let status = name.split('_').next().unwrap().parse().unwrap();
            let error =
                ErrorBody::read(&body).into_error(status, &HeaderMap::new(), &[PROMPT], now);
            let shown = format!("{error:?}");
            for secret in [PROMPT, "newspaper", "purchase", "platform", "cloudflare"] {
                assert!(!shown.contains(secret), "{name} shows {secret}: {shown}");
            }
            (name, described(&error))
        })
        .collect();
    snapshot("stability", "errors", &Value::Object(errors));
}

#[test]
fn a_header_says_better_how_long_to_wait() {
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    let headers = headers(&json!({ "retry-after": "7" }));
    let error = ErrorBody::default().into_error(429, &headers, &[PROMPT], now);
    assert_eq!(
        format!("{:?}", error.kind),
        "RateLimited { retry_after: Some(7s) }"
    );
}
