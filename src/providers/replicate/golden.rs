//! Requests, answers and errors as files, what we make of them as snapshots beside them, and the promise that
//! it does not matter how the network cuts an answer.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    error::{self, Problem},
    inputs::{Handed, Picture},
    prediction::{PredictionReader, Status},
    request,
};
use crate::{
    catalog::{Catalog, ImageRequest, Route, Unsupported},
    images::Upload,
    providers::{
        ErrorKind, PictureEvent, ProviderError,
        json::MAX_DEPTH,
        testing::{
            goldens::{fixtures, params, snapshot},
            png,
        },
    },
};

const PROMPT: &str = "An otter that reads the evening newspaper aloud";

/// What a client wrote, checked by the model's own rules, and the route it takes. With `images` it is an edit
/// of so many pictures, with `mask` one that says where.
fn checked(catalog: &Catalog, written: &Value) -> (ImageRequest, Arc<Route>, Handed) {
    let mut written = written.as_object().unwrap().clone();
    let model = catalog.find(written["model"].as_str().unwrap()).unwrap();
    let images = written.remove("images");
    let mask = written.remove("mask").is_some();
    let (rules, route) = match images {
        None => (&model.rules, &model.routes[0]),
        Some(_) => (
            model.rules.edits().unwrap(),
            &model.routes[0].edits.as_ref().unwrap().route,
        ),
    };
    let (request, _) = rules
        .check(&params(&Value::Object(written)), Unsupported::Reject)
        .unwrap_or_else(|violation| panic!("{violation:?}"));
    let upload = |width| Upload::from_bytes(png(u32::try_from(width).unwrap(), 1)).unwrap();
    let count = images.map_or(0, |count| count.as_u64().unwrap());
    let handed = Handed {
        images: (1..=count)
            .map(|width| Picture::Inline(upload(width)))
            .collect(),
        mask: mask.then(|| Picture::Inline(upload(1))),
    };
    (request, Arc::clone(route), handed)
}

/// Where it goes and what is posted there.
async fn said(create: request::Create<'_>) -> (String, Value) {
    let path = create.path.join("/");
    let body = create.body.collected().await;
    (path, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn requests_become_predictions() {
    let catalog = Catalog::load(None).unwrap();
    let mut requests = serde_json::Map::new();
    for (name, written) in fixtures("replicate", "requests") {
        let written = serde_json::from_slice::<Value>(&written).unwrap();
        let (request, route, handed) = checked(&catalog, &written);
        let n = request.n.min(route.images_per_call);
        let create = request::create(&request, &handed, (0, n), &route).unwrap();
        let (path, body) = said(create).await;
        requests.insert(name, json!({ "path": path, "body": body }));
    }
    snapshot("replicate", "requests", &Value::Object(requests));
}

#[test]
fn pictures_that_a_model_has_no_field_for_are_refused() {
    let catalog = Catalog::load(None).unwrap();
    let link = || Picture::Link("https://api.replicate.com/v1/files/x".to_owned());
    for (model, images, mask, blamed) in [
        ("flux-2-pro", 8, false, None),
        ("flux-1.1-pro", 1, false, None),
        ("flux-1.1-pro", 2, false, Some("image")),
        ("flux-1.1-pro", 1, true, Some("mask")),
        ("flux-fill-pro", 1, true, None),
    ] {
        let written = json!({ "model": model, "prompt": "x", "images": 1 });
        let (request, route, _) = checked(&catalog, &written);
        let handed = Handed {
            images: (0..images).map(|_| link()).collect(),
            mask: mask.then(link),
        };
        let outcome = request::create(&request, &handed, (0, request.n), &route);
        let param = outcome.err().map(|error| error.param.unwrap());
        assert_eq!(param.as_deref(), blamed, "{model}");
    }
    // A route that an operator made for generations alone.
    let (request, route, _) = checked(
        &catalog,
        &json!({ "model": "flux-1-schnell", "prompt": "x" }),
    );
    let handed = Handed {
        images: vec![link()],
        mask: None,
    };
    let error = request::create(&request, &handed, (0, request.n), &route).err();
    assert_eq!(error.unwrap().kind, ErrorKind::ModelUnavailable);
}

/// A picture each where a call brings one, so that the seeds are counted on.
#[tokio::test]
async fn seeds_are_counted_on() {
    let catalog = Catalog::load(None).unwrap();
    for (seed, first, expected) in [
        (7, 0, 7),
        (7, 3, 10),
        (0, 0, 0),
        (2_147_483_647, 0, 2_147_483_647),
        (2_147_483_647, 2, 1),
    ] {
        let written = json!({ "model": "flux-2-pro", "prompt": "x", "n": 4, "seed": seed });
        let (request, route, handed) = checked(&catalog, &written);
        let one = NonZeroU8::MIN;
        let create = request::create(&request, &handed, (first, one), &route).unwrap();
        assert_eq!(said(create).await.1["input"]["seed"], expected);
    }
}

#[test]
fn sizes_that_a_model_cannot_paint_are_refused_by_its_rules() {
    let catalog = Catalog::load(None).unwrap();
    for (model, size, is_taken) in [
        ("flux-1-schnell", "256x256", false),
        ("flux-1-schnell", "2048x2048", false),
        ("flux-1-schnell", "512x512", true),
        ("flux-1-schnell", "1344x576", true),
        ("flux-1-pro", "2048x2048", false),
        ("flux-1-pro", "256x256", true),
        ("flux-1-pro", "1000x1000", true),
        ("flux-1-pro", "1000x700", false),
        ("flux-1-pro", "1344x576", true),
        ("flux-1-pro", "1680x720", false),
        ("flux-1.1-pro-ultra", "512x512", false),
        ("flux-1.1-pro-ultra", "1280x1024", false),
        ("flux-2-pro", "1040x1024", false),
        ("flux-2-pro", "2048x2048", true),
        ("flux-2-flex", "1040x1024", true),
        ("flux-2-flex", "4096x1024", false),
        ("flux-2-dev", "2048x2048", false),
        ("flux-kontext-max", "1024x1792", true),
        ("flux-kontext-pro", "512x512", false),
    ] {
        let params = params(&json!({ "prompt": "x", "size": size }));
        let model = catalog.find(model).unwrap();
        let checked = model.rules.check(&params, Unsupported::Reject);
        assert_eq!(checked.is_ok(), is_taken, "{} {size}", model.id);
        if let Ok((request, _)) = checked {
            // What the rules let through, the translation can say.
            let n = (0, request.n);
            request::create(&request, &Handed::default(), n, &model.routes[0]).unwrap();
        }
    }
}

#[tokio::test]
async fn upstream_models_become_paths() {
    let catalog = Catalog::load(None).unwrap();
    let written = json!({ "model": "flux-1-pro", "prompt": "An otter" });
    let (request, route, handed) = checked(&catalog, &written);
    let create = async |upstream_model: &str| {
        let mut route = (*route).clone();
        route.upstream_model = upstream_model.to_owned();
        let n = (0, request.n);
        match request::create(&request, &handed, n, &route) {
            Ok(create) => {
                let (path, body) = said(create).await;
                Ok((path, body["version"].clone()))
            }
            Err(error) => Err(error.message),
        }
    };
    assert_eq!(
        create("owner/name").await,
        Ok(("models/owner/name/predictions".to_owned(), Value::Null))
    );
    assert_eq!(
        create("owner/name:5c7d").await,
        Ok(("predictions".to_owned(), json!("owner/name:5c7d")))
    );
    let hash = "0123456789abcdef".repeat(4);
    assert_eq!(
        create(&hash).await,
        Ok(("predictions".to_owned(), json!(hash.clone())))
    );
    assert_eq!(
        create("deployments/owner/name").await,
        Ok(("deployments/owner/name/predictions".to_owned(), Value::Null))
    );
    for wrong in [
        "name",
        "/name",
        "owner/",
        "owner/name/x",
        "../name",
        "owner/..",
        "deployments/../name",
        "deployments/owner/name/x",
        &hash[1..],
    ] {
        let message = format!(
            "upstream_model '{wrong}' is none of OWNER/NAME, OWNER/NAME:VERSION, VERSION and deployments/OWNER/NAME"
        );
        assert_eq!(create(wrong).await, Err(message));
    }
}

#[test]
fn deadlines_become_headers() {
    for (left_ms, wait, prefer, cancel_after) in [
        (300_000, true, Some("wait=60"), "300s"),
        (300_001, false, None, "301s"),
        (30_500, true, Some("wait=28"), "31s"),
        (1_500, true, Some("wait=1"), "5s"),
        (0, true, Some("wait=1"), "5s"),
    ] {
        let headers = request::headers(Duration::from_millis(left_ms), wait);
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("prefer"), prefer, "{left_ms}");
        assert_eq!(header("cancel-after"), Some(cancel_after), "{left_ms}");
    }
}

/// What came out of an answer, whatever the pieces it came in.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, had: &[usize]) -> Value {
    let mut reader = PredictionReader::new(NonZeroU8::new(3).unwrap(), had.to_vec());
    let mut pictures = Vec::new();
    let mut picture = None;
    let mut failure = None;
    'chunks: for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next() {
                Ok(Some(PictureEvent::Perhaps(encoding))) => {
                    assert!(picture.is_none(), "pictures are not interleaved");
                    picture = Some((format!("{encoding:?}"), Vec::new()));
                }
                Ok(Some(PictureEvent::Data(data))) => {
                    assert!(!data.is_empty());
                    picture.as_mut().unwrap().1.extend_from_slice(&data);
                }
                Ok(Some(PictureEvent::End)) => {
                    let (encoding, content) = picture.take().unwrap();
                    pictures.push(json!({ encoding: String::from_utf8_lossy(&content) }));
                }
                Ok(Some(PictureEvent::Abandon)) => panic!("the reader abandons nothing"),
                Ok(Some(
                    PictureEvent::Begin(_) | PictureEvent::Draft { .. } | PictureEvent::About(_),
                )) => panic!("the reader knows no such thing"),
                Ok(None) => break,
                Err(error) => {
                    failure = Some(error.to_string());
                    break 'chunks;
                }
            }
        }
    }
    assert_eq!(reader.is_inside_picture(), picture.is_some());
    json!({
        "done": reader.is_done(),
        "failure": failure,
        "pictures": pictures,
        "prediction": format!("{:?}", reader.finish()),
    })
}

#[test]
fn answers_become_pictures_and_links() {
    let answers = fixtures("replicate", "answers")
        .into_iter()
        .map(|(name, answer)| {
            let outcome = read([&*answer], &[]);
            assert_eq!(read(answer.chunks(1), &[]), outcome, "{name}, byte by byte");
            (name, outcome)
        })
        .collect();
    snapshot("replicate", "answers", &Value::Object(answers));
}

#[test]
fn what_was_had_does_not_come_again() {
    let answer = br#"{"status":"succeeded","output":["data:image/png;base64,AAAA","https://replicate.delivery/x","data:image/png;base64,CCCC"]}"#;
    let outcome = read([&answer[..]], &[0]);
    assert_eq!(outcome["pictures"], json!([{ "Base64": "CCCC" }]));
    let prediction = outcome["prediction"].as_str().unwrap();
    assert!(
        prediction.contains(r#"links: [(1, "https://replicate.delivery/x")]"#),
        "{prediction}"
    );
    assert!(prediction.contains("had: [0, 2]"), "{prediction}");
}

#[test]
fn nothing_grows_without_bound() {
    // A link, an error, an id, a `data:` head and a name of a megabyte each.
    let long = "x".repeat(1024 * 1024);
    let answer = format!(
        r#"{{"{long}":1,"id":"{long}","status":"failed","error":"{long}","output":["https://a/{long}"]}}"#
    );
    let prediction = read([answer.as_bytes()], &[])["prediction"].to_string();
    assert!(prediction.len() < 20 * 1024, "{}", prediction.len());
    assert!(prediction.contains("id: None"), "half a name names another");
    assert!(
        prediction.contains("(0, \\\"\\\")"),
        "half a link is another link"
    );
    let head = format!(r#"{{"output":"data:{long},AAAA"}}"#);
    assert_eq!(
        read([head.as_bytes()], &[])["failure"],
        "it has a data URL that is not base64"
    );
    let depth = usize::try_from(MAX_DEPTH).unwrap();
    let deep = format!("{{\"output\":{}", "[".repeat(depth));
    assert!(read([deep.as_bytes()], &[])["failure"].is_string());
}

proptest! {
    #[test]
    fn the_network_s_cuts_do_not_matter(which in 0_usize..64, cuts in prop::collection::vec(1_usize..40, 1..40)) {
        let answers = fixtures("replicate", "answers");
        let (name, answer) = &answers[which % answers.len()];
        let mut rest = &**answer;
        let mut chunks = Vec::new();
        for cut in cuts.iter().cycle() {
            let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
            chunks.push(chunk);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(read(chunks, &[]), read([&**answer], &[]), "{}", name);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read([&*bytes], &[]);
        Problem::read(&bytes);
    }
}

fn shown(error: &ProviderError) -> Value {
    json!({
        "kind": format!("{:?}", error.kind),
        "message": error.message,
        "code": error.code,
        "param": error.param,
        "maybe_charged": error.maybe_charged,
    })
}

#[test]
fn errors_become_kinds() {
    let catalog = Catalog::load(None).unwrap();
    let written = json!({
        "model": "flux-1-schnell", "prompt": PROMPT, "size": "1536x1024", "n": 2,
        "output_format": "webp", "output_compression": 90,
    });
    let (request, route, _) = checked(&catalog, &written);
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    let errors = fixtures("replicate", "errors")
        .into_iter()
        .map(|(name, body)| {
            let status = name[..3].parse().unwrap();
            let error =
                Problem::read(&body).into_error(status, &HeaderMap::new(), &request, &route, now);
            assert_eq!(error.upstream_status, Some(status));
            for leak in ["billing", "purchase", PROMPT, "newspaper", "<html>"] {
                assert!(!format!("{error:?}").contains(leak), "{name}: {error:?}");
            }
            (name, shown(&error))
        })
        .collect();
    snapshot("replicate", "errors", &Value::Object(errors));
}

#[test]
fn only_what_passes_is_worth_another_try() {
    for (text, expected) in [
        ("Prediction failed: E1000 unknown", true),
        ("Error starting prediction (E6716)", true),
        ("CUDA out of memory (E1001)", false),
        ("E1000: flagged as sensitive (E005)", false),
        ("E10000", false),
        ("", false),
    ] {
        assert_eq!(error::may_repeat(Some(text)), expected, "{text}");
    }
}

#[test]
fn questions_that_fail_are_nobody_s_mistake() {
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    for (name, body) in fixtures("replicate", "errors") {
        let status = name[..3].parse().unwrap();
        let error = Problem::read(&body).of_question(status, &HeaderMap::new(), now);
        assert!(error.maybe_charged, "it was created: {name}");
        let is_account = matches!(status, 401..=403);
        let expected = match error.kind {
            ErrorKind::Auth | ErrorKind::QuotaExhausted => is_account,
            ErrorKind::RateLimited { retry_after } => {
                assert_eq!(retry_after.is_none(), name == "429_odd", "{name}");
                status == 429
            }
            ErrorKind::Timeout { sent: true } | ErrorKind::Overloaded { .. } => {
                !is_account && status != 429
            }
            _ => false,
        };
        assert!(expected, "{name}: {error:?}");
    }
}

#[test]
fn ends_become_kinds() {
    let minute = Duration::from_mins(1);
    let ends = [
        (Status::Failed, "NSFW content detected. Try running it again, or try a different prompt.", minute),
        (Status::Failed, "The input or output was flagged as sensitive. Please try again with different inputs. (E005) (abc)", minute),
        (Status::Failed, "Prediction flagged as sensitive: An otter that reads the evening newspaper aloud", minute),
        (Status::Failed, "Your prompt was found to be sensitive", minute),
        (Status::Failed, "E005: an input is not allowed", minute),
        (Status::Failed, "Names of files are case-sensitive", minute),
        (Status::Failed, "Prediction failed: E1000 unknown", minute),
        (Status::Failed, "Out of memory (E1001)", minute),
        (Status::Failed, "Error starting prediction (E6716)", minute),
        (Status::Failed, "An otter that reads the evening newspaper aloud made me sad", minute),
        (Status::Failed, "", minute),
        (Status::Canceled, "", minute),
        (Status::Canceled, "", Duration::from_secs(1)),
        (Status::Aborted, "", minute),
        (Status::Aborted, "", Duration::ZERO),
        (Status::Succeeded, "", minute),
    ]
    .map(|(status, text, left)| {
        let error = error::of_prediction(status, Some(text), PROMPT, left);
        assert!(!error.message.contains("newspaper"), "{error}");
        json!([format!("{status:?} {left:?} {text}"), shown(&error)])
    });
    snapshot("replicate", "ends", &json!(ends));
}
