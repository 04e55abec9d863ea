//! Requests, answers and errors as files, what we make of them as snapshots beside them, and the promise that
//! it does not matter how the network cuts an answer.

use std::{num::NonZeroU8, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

use super::{Protocol, answer::AnswerReader, error::ErrorBody, request, verdict};
use crate::{
    catalog::{Catalog, Translation, Unsupported},
    images::Upload,
    providers::{
        ErrorKind, Inputs, PictureEvent, ProviderError, Task,
        json::MAX_DEPTH,
        testing::{
            goldens::{fixtures, params, snapshot},
            png,
        },
    },
};

const PROMPT: &str = "An otter that reads the evening newspaper aloud";

/// What came out of an answer, whatever the pieces it came in.
fn read<'a>(
    protocol: Protocol,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    n: u8,
) -> Map<String, Value> {
    let mut reader = AnswerReader::new(NonZeroU8::new(n).unwrap());
    let mut pictures = Vec::new();
    let mut picture: Option<Vec<u8>> = None;
    let mut abandoned = 0;
    let mut is_sure = false;
    let mut sure = Vec::new();
    let mut told = Vec::new();
    let mut failure = None;
    'chunks: for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next() {
                Ok(Some(event @ (PictureEvent::Begin(_) | PictureEvent::Perhaps(_)))) => {
                    assert!(picture.is_none(), "pictures are not interleaved");
                    picture = Some(Vec::new());
                    is_sure = matches!(event, PictureEvent::Begin(_));
                }
                Ok(Some(PictureEvent::Data(data))) => {
                    assert!(!data.is_empty());
                    picture.as_mut().unwrap().extend_from_slice(&data);
                }
                Ok(Some(PictureEvent::End)) => {
                    let content = picture.take().unwrap();
                    pictures.push(String::from_utf8_lossy(&content).into_owned());
                    sure.push(is_sure);
                    told.push(None);
                }
                Ok(Some(PictureEvent::About(about))) => {
                    assert!(picture.is_none(), "told of what has ended");
                    *told.last_mut().unwrap() = about.revised_prompt;
                }
                Ok(Some(PictureEvent::Draft { .. })) => {
                    panic!("Google's drafts are not for clients")
                }
                Ok(Some(PictureEvent::Abandon)) => {
                    assert!(!is_sure, "what was sure is taken back");
                    picture.take().unwrap();
                    abandoned += 1;
                }
                Ok(None) => break,
                Err(error) => {
                    failure = Some(error.to_string());
                    break 'chunks;
                }
            }
        }
    }
    let done = reader.is_done();
    let (report, said) = reader.finish();
    let mut seen = Map::new();
    seen.insert("done".to_owned(), json!(done));
    if let Some(failure) = failure {
        seen.insert("failure".to_owned(), json!(failure));
    }
    if abandoned > 0 {
        seen.insert("abandoned".to_owned(), json!(abandoned));
    }
    if pictures.is_empty() {
        let error = verdict::of_nothing(protocol, &said, PROMPT);
        seen.insert("error".to_owned(), shown(&error));
        return seen;
    }
    seen.insert("pictures".to_owned(), json!(pictures));
    seen.insert("sure".to_owned(), json!(sure));
    if report.announced == pictures.len() {
        while told.last() == Some(&None) {
            told.pop();
        }
        assert_eq!(
            told, report.revised_prompts,
            "told in time and in the report"
        );
    }
    seen.insert("torso".to_owned(), json!(picture.is_some()));
    seen.insert("announced".to_owned(), json!(report.announced));
    seen.insert("usage".to_owned(), json!(format!("{:?}", report.usage)));
    seen.insert("revised_prompts".to_owned(), json!(report.revised_prompts));
    seen.insert("id".to_owned(), json!(report.upstream_request_id));
    if let Some(error) = verdict::of_less(&said, PROMPT) {
        seen.insert("refused".to_owned(), shown(&error));
    }
    seen
}

fn shown(error: &ProviderError) -> Value {
    let debug = format!("{error:?}");
    for secret in [PROMPT, "newspaper", "secret-project-7"] {
        assert!(!debug.contains(secret), "shows {secret}: {debug}");
    }
    json!({
        "kind": format!("{:?}", error.kind),
        "message": error.message,
        "code": error.code,
        "type": error.error_type,
        "status": error.upstream_status,
        "maybe_charged": error.maybe_charged,
    })
}

#[tokio::test]
async fn requests_become_google_s() {
    let catalog = Catalog::load(None).unwrap();
    let mut requests = Map::new();
    for (name, written) in fixtures("google", "requests") {
        let mut written = serde_json::from_slice::<Value>(&written).unwrap();
        let model = catalog.find(written["model"].as_str().unwrap()).unwrap();
        // So many pictures to edit, each of its own size.
        let images = written.as_object_mut().unwrap().remove("images");
        let images = images.map(|count| u32::try_from(count.as_u64().unwrap()).unwrap());
        let (rules, task) = match images {
            None => (&model.rules, Task::Generate),
            Some(count) => (model.rules.edits().unwrap(), edit(1..=count)),
        };
        let (request, _) = rules
            .check(&params(&written), Unsupported::Reject)
            .unwrap_or_else(|violation| panic!("{written}: {violation:?}"));
        let mut routes = Map::new();
        for route in &model.routes {
            let (upstream, protocol) = Protocol::of(&route.upstream_model).unwrap();
            let n = request.n.min(route.images_per_call);
            let payload =
                request::payload(protocol, &request, &task, n, &route.translation).unwrap();
            let body = serde_json::from_slice(&payload.collected().await).unwrap();
            let asked = format!("{}: {upstream}:{}", route.provider, protocol.method());
            routes.insert(asked, body);
        }
        requests.insert(name, Value::Object(routes));
    }
    snapshot("google", "requests", &Value::Object(requests));
}

/// An edit of pictures of these widths.
fn edit(widths: impl IntoIterator<Item = u32>) -> Task {
    let picture = |width| Upload::from_bytes(png(width, 1)).unwrap();
    Task::Edit(Arc::new(Inputs {
        images: widths.into_iter().map(picture).collect(),
        mask: None,
    }))
}

/// Contract, 7.2: up to 14 pictures, three for 2.5; no masks, and nothing but prompts for Imagen.
#[test]
fn what_google_cannot_edit_is_refused() {
    let catalog = Catalog::load(None).unwrap();
    for (model, most) in [
        ("gemini-nano-banana-2.1", Some(14)),
        ("gemini-3-pro-image", Some(14)),
        ("gemini-3.1-flash-image", Some(14)),
        ("gemini-3.1-flash-lite-image", Some(14)),
        ("gemini-2.5-flash-image", Some(3)),
        ("imagen-4", None),
        ("imagen-4-ultra", None),
        ("imagen-4-fast", None),
        ("imagen-3", None),
    ] {
        let rules = &catalog.find(model).unwrap().rules;
        let found = rules.input_images().map(|images| images.max.get());
        assert_eq!(found, most, "{model}");
        assert!(!rules.takes_mask(), "{model}");
        assert!(rules.variations().is_none(), "{model}");
    }
    // And where a catalog says otherwise, the adapter does not.
    let rules = &catalog.find("nano-banana-2.1").unwrap().rules;
    let written = json!({ "prompt": PROMPT });
    let (request, _) = rules.check(&params(&written), Unsupported::Reject).unwrap();
    let refused = |protocol, task: &Task| {
        let translation = Translation::default();
        let error = request::payload(protocol, &request, task, request.n, &translation)
            .err()
            .unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidRequest);
        error.param.unwrap()
    };
    let picture = Upload::from_bytes(png(1, 1)).unwrap();
    let masked = Task::Edit(Arc::new(Inputs {
        images: vec![picture.clone()],
        mask: Some(picture.clone()),
    }));
    assert_eq!(refused(Protocol::GenerateContent, &masked), "mask");
    let varied = Task::Vary(Arc::new(picture));
    assert_eq!(refused(Protocol::GenerateContent, &varied), "image");
    assert_eq!(refused(Protocol::Predict, &edit([1])), "image");
}

/// Contract, 7.2: what Google cannot paint is refused by name before anything is called.
#[test]
fn what_google_cannot_paint_is_refused() {
    let catalog = Catalog::load(None).unwrap();
    for (model, parameter, value) in [
        ("gemini-nano-banana-2.1", "size", "512x512"),
        ("gemini-nano-banana-2.1", "size", "256x256"),
        ("gemini-nano-banana-2.1", "size", "1000x1300"),
        ("gemini-nano-banana-2.1", "quality", "hd"),
        ("gemini-nano-banana-2.1", "quality", "high"),
        ("gemini-nano-banana-2.1", "quality", "low"),
        ("gemini-nano-banana-2.1", "style", "vivid"),
        ("gemini-nano-banana-2.1", "background", "transparent"),
        ("gemini-nano-banana-2.1", "moderation", "low"),
        ("gemini-nano-banana-2.1", "output_format", "webp"),
        ("gemini-3-pro-image", "size", "512x2048"),
        ("gemini-3.1-flash-lite-image", "size", "2048x2048"),
        ("gemini-3.1-flash-image", "size", "256x256"),
        ("gemini-2.5-flash-image", "size", "2048x2048"),
        ("imagen-3", "quality", "hd"),
        ("imagen-3", "style", "natural"),
        ("imagen-3", "size", "1536x1024"),
        ("imagen-3", "size", "512x512"),
        ("imagen-3", "size", "2048x2048"),
        ("imagen-3", "output_format", "webp"),
        ("imagen-4", "size", "1024x1536"),
        ("imagen-4", "size", "4096x4096"),
        ("imagen-4-fast", "size", "2048x2048"),
        ("imagen-4", "output_compression", "80"),
    ] {
        let mut written = json!({ "model": model, "prompt": PROMPT });
        written[parameter] = match value.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => value.into(),
        };
        let rules = &catalog.find(model).unwrap().rules;
        let violation = rules
            .check(&params(&written), Unsupported::Reject)
            .map(|_| ())
            .unwrap_err();
        assert!(
            violation.message.contains(parameter),
            "{model} {parameter} {value}: {violation:?}"
        );
    }
}

/// Contract, 2.1, 3.1 and 7.2: whoever asks for a size that Google paints gets exactly that one, and the hold
/// is for the tokens that it takes.
#[test]
fn sizes_that_google_paints_are_asked_for_exactly() {
    let catalog = Catalog::load(None).unwrap();
    let ratios = |last: usize| {
        let all = [
            ("1:1", 1024, 1024),
            ("2:3", 848, 1264),
            ("3:2", 1264, 848),
            ("3:4", 896, 1200),
            ("4:3", 1200, 896),
            ("4:5", 928, 1152),
            ("5:4", 1152, 928),
            ("9:16", 768, 1376),
            ("16:9", 1376, 768),
            ("21:9", 1584, 672),
            ("1:4", 512, 2048),
            ("4:1", 2048, 512),
            ("1:8", 384, 3072),
            ("8:1", 3072, 384),
        ];
        all.into_iter().take(last)
    };
    // Twice the edge in 1K: the tier and the tokens of a picture.
    for (model, last, tiers) in [
        (
            "gemini-nano-banana-2.1",
            14,
            &[(2, "1K", 1120), (4, "2K", 1680), (8, "4K", 3767)][..],
        ),
        (
            "gemini-3.1-flash-image",
            14,
            &[
                (1, "512", 747),
                (2, "1K", 1120),
                (4, "2K", 1680),
                (8, "4K", 2520),
            ],
        ),
        (
            "gemini-3-pro-image",
            10,
            &[(2, "1K", 1120), (4, "2K", 1120), (8, "4K", 2000)],
        ),
        ("gemini-3.1-flash-lite-image", 10, &[(2, "", 1120)]),
        ("gemini-2.5-flash-image", 10, &[(2, "", 1290)]),
    ] {
        let model = catalog.find(model).unwrap();
        for (ratio, width, height) in ratios(last) {
            for (scale, tier, tokens) in tiers {
                let size = format!("{}x{}", width * scale / 2, height * scale / 2);
                let written = json!({ "prompt": PROMPT, "size": size });
                let (request, _) = model
                    .rules
                    .check(&params(&written), Unsupported::Reject)
                    .unwrap_or_else(|violation| panic!("{} {size}: {violation:?}", model.id));
                for route in &model.routes {
                    let fields = route.translation.size.fields(request.size.value).unwrap();
                    assert_eq!(fields["aspectRatio"], ratio, "{} {size}", model.id);
                    let said = fields.get("imageSize").and_then(Value::as_str);
                    assert_eq!(said.unwrap_or_default(), *tier, "{} {size}", model.id);
                    let bound = route.price.usage_bound(&request).unwrap().unwrap();
                    assert_eq!(bound.output_image, *tokens, "{} {size}", model.id);
                }
            }
        }
        // Nothing said is 1K, and so is the hold.
        let written = json!({ "prompt": PROMPT });
        let (request, _) = model
            .rules
            .check(&params(&written), Unsupported::Reject)
            .unwrap();
        let bound = model.routes[0]
            .price
            .usage_bound(&request)
            .unwrap()
            .unwrap();
        let (_, _, tokens) = tiers.iter().find(|(scale, _, _)| *scale == 2).unwrap();
        assert_eq!(bound.output_image, *tokens, "{}", model.id);
    }
    for (model, sizes) in [
        ("imagen-3", 1),
        ("imagen-4-fast", 1),
        ("imagen-4", 2),
        ("imagen-4-ultra", 2),
    ] {
        let model = catalog.find(model).unwrap();
        for scale in 1..=sizes {
            for (ratio, width, height) in [
                ("1:1", 1024, 1024),
                ("3:4", 896, 1280),
                ("4:3", 1280, 896),
                ("9:16", 768, 1408),
                ("16:9", 1408, 768),
            ] {
                let size = format!("{}x{}", width * scale, height * scale);
                let written = json!({ "prompt": PROMPT, "size": size });
                let (request, _) = model
                    .rules
                    .check(&params(&written), Unsupported::Reject)
                    .unwrap_or_else(|violation| panic!("{} {size}: {violation:?}", model.id));
                for (route, name) in model.routes.iter().zip(["imageSize", "sampleImageSize"]) {
                    let mut expected = json!({ "aspectRatio": ratio });
                    if sizes == 2 {
                        expected[name] = json!(format!("{scale}K"));
                    }
                    let fields = route.translation.size.fields(request.size.value).unwrap();
                    assert_eq!(Value::Object(fields.into_owned()), expected, "{size}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_fixed_is_laid_over_the_body() {
    let catalog = Catalog::load(None).unwrap();
    let written = json!({ "model": "nano-banana-2.1", "prompt": PROMPT, "size": "1024x1024" });
    let rules = &catalog.find("nano-banana-2.1").unwrap().rules;
    let (request, _) = rules.check(&params(&written), Unsupported::Reject).unwrap();
    let translation = toml::from_str::<Translation>(
        r#"
        size = { table = [["1024x1024", { aspectRatio = "1:1" }]] }
        fixed = { generationConfig = { thinkingConfig = { thinkingLevel = "MINIMAL" }, responseModalities = ["TEXT", "IMAGE"] } }
        "#,
    )
    .unwrap();
    let task = Task::Generate;
    let ask =
        |protocol, translation| request::payload(protocol, &request, &task, request.n, translation);
    let payload = ask(Protocol::GenerateContent, &translation).unwrap();
    let body = serde_json::from_slice::<Value>(&payload.collected().await).unwrap();
    assert_eq!(
        body["generationConfig"],
        json!({
            "imageConfig": { "aspectRatio": "1:1" },
            "responseModalities": ["TEXT", "IMAGE"],
            "thinkingConfig": { "thinkingLevel": "MINIMAL" },
        })
    );
    let unsayable =
        toml::from_str::<Translation>("size = { table = [[\"512x512\", { a = 1 }]] }").unwrap();
    let error = ask(Protocol::Predict, &unsayable).err().unwrap();
    assert_eq!(
        error.message,
        "size 1024x1024 cannot be asked of this provider"
    );
}

#[test]
fn the_upstream_name_ends_in_the_protocol() {
    use Protocol::{GenerateContent, Predict};
    for (name, expected) in [
        (
            "gemini-3-pro-image",
            Some(("gemini-3-pro-image", GenerateContent)),
        ),
        ("a:generateContent", Some(("a", GenerateContent))),
        ("imagen-3.0:predict", Some(("imagen-3.0", Predict))),
        ("imagen-3.0:paint", None),
    ] {
        assert_eq!(Protocol::of(name).ok(), expected, "{name}");
    }
}

fn protocol_of(name: &str) -> Protocol {
    if name.starts_with("predict_") {
        Protocol::Predict
    } else {
        Protocol::GenerateContent
    }
}

#[test]
fn answers_become_pictures_and_reports() {
    let answers = fixtures("google", "answers")
        .into_iter()
        .map(|(name, answer)| {
            let protocol = protocol_of(&name);
            let n = if protocol == Protocol::Predict { 4 } else { 1 };
            let outcome = read(protocol, [&*answer], n);
            let by_byte = read(protocol, answer.chunks(1), n);
            assert_eq!(by_byte, outcome, "{name}, byte by byte");
            (name, Value::Object(outcome))
        })
        .collect();
    snapshot("google", "answers", &Value::Object(answers));
}

#[test]
fn errors_become_kinds() {
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    let errors = fixtures("google", "errors")
        .into_iter()
        .map(|(name, body)| {
            let status = name.split('_').next().unwrap().parse().unwrap();
            let error = ErrorBody::read(&body).into_error(status, &HeaderMap::new(), PROMPT, now);
            (name, shown(&error))
        })
        .collect();
    snapshot("google", "errors", &Value::Object(errors));
}

#[test]
fn hostile_answers_stay_small() {
    let megabytes = "x".repeat(1 << 20);
    let deep = |depth: u32| {
        let brackets = usize::try_from(depth).unwrap();
        format!("{{\"a\":{}{}}}", "[".repeat(brackets), "]".repeat(brackets))
    };
    let read = |answer: &str, n| read(Protocol::Predict, answer.as_bytes().chunks(4096), n);
    assert_eq!(
        read(&deep(MAX_DEPTH), 1)["failure"],
        "it is nested deeper than 64 levels"
    );
    assert_eq!(read("[]", 1)["failure"], "it is not an object");
    assert_eq!(read("\"a\"", 1)["failure"], "it is not an object");
    assert_eq!(read("<html>", 1)["failure"], "it is not JSON");
    // Nothing but pictures may be long: what is kept of the rest is bounded.
    let answer = format!(
        r#"{{"{megabytes}":1,"responseId":"{megabytes}","candidates":[{{"finishReason":"{megabytes}","finishMessage":"{megabytes}",
            "content":{{"parts":[{{"text":"{megabytes}","thoughtSignature":"{megabytes}"}}]}}}}],
            "predictions":[{{"prompt":"{megabytes}","bytesBase64Encoded":"AAAA","raiFilteredReason":"{megabytes}"}}]}}"#
    );
    let outcome = read(&answer, 1);
    assert_eq!(outcome["pictures"], json!(["AAAA"]));
    assert!(Value::Object(outcome).to_string().len() < 5_000);
    // Pictures beyond the number asked for are counted, no more.
    let many = format!(
        "{{\"predictions\":[{}{{}}]}}",
        r#"{"bytesBase64Encoded":"AAAA","prompt":"p"},"#.repeat(10_000)
    );
    let outcome = read(&many, 2);
    assert_eq!(outcome["pictures"], json!(["AAAA", "AAAA"]));
    assert_eq!(outcome["announced"], 10_000);
    assert_eq!(outcome["revised_prompts"], json!(["p", "p"]));
}

prop_compose! {
    /// A part with its members in any order, and the picture that must come of it, if one.
    fn part()(
        picture in "[A-Za-z0-9+/]{1,60}={0,2}",
        has_picture: bool,
        thought in prop::option::of(any::<bool>()),
        order in Just(vec![0_u8, 1, 2]).prop_shuffle(),
    ) -> (String, Option<String>) {
        let members = order.iter().filter_map(|member| match member {
            0 => has_picture.then(|| format!(r#""inlineData":{{"data":"{picture}","mimeType":"image/png"}}"#)),
            1 => thought.map(|thought| format!(r#""thought":{thought}"#)),
            _ => Some(r#""thoughtSignature":"c2ln""#.to_owned()),
        });
        let json = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        let counts = has_picture && thought != Some(true);
        (json, counts.then_some(picture))
    }
}

proptest! {
    #[test]
    fn drafts_never_count_and_any_cutting_gives_the_same(
        parts in prop::collection::vec(part(), 1..6),
        cuts in prop::collection::vec(1_usize..50, 1..30),
    ) {
        let (written, expected): (Vec<String>, Vec<Option<String>>) = parts.into_iter().unzip();
        let expected = expected.into_iter().flatten().collect::<Vec<_>>();
        let answer = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{}]}},"finishReason":"STOP"}}]}}"#,
            written.join(",")
        );
        let whole = read(Protocol::GenerateContent, [answer.as_bytes()], 10);
        let seen = whole.get("pictures").cloned().unwrap_or_else(|| json!([]));
        prop_assert_eq!(seen, json!(expected));
        let mut rest = answer.as_bytes();
        let mut chunks = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        prop_assert_eq!(read(Protocol::GenerateContent, chunks, 10), whole);
    }
}
