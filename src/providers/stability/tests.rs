//! The adapter over real sockets, byte by byte: what goes out, and what becomes of the bytes that come.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use super::Stability;
use crate::{
    catalog::{Catalog, Parameter, Params, Unsupported, Value},
    config::ProviderConfig,
    providers::{
        Call, Encoding, ErrorKind, Provider as _, ProviderError, Report,
        testing::{
            Pictures, config,
            fake::{Fake, Script, Step, answer, head},
        },
    },
};

const PNG: &str = "content-type: image/png";
const SUCCESS: &str = "finish-reason: SUCCESS";
/// Small, so that tests of the caps are quick.
const MAX_PICTURE_BYTES: u64 = 64 * 1024;

fn call() -> Call {
    let catalog = Catalog::load(None).unwrap();
    let model = Arc::clone(catalog.find("sd3.5-flash").unwrap());
    let params = Params::from([
        (Parameter::Prompt, Value::Text("An otter".to_owned())),
        (Parameter::Size, Value::Text("1792x1024".to_owned())),
        (Parameter::User, Value::Text("reader-7".to_owned())),
    ]);
    let (request, _) = model.rules.check(&params, Unsupported::Reject).unwrap();
    Call {
        task: crate::providers::Task::Generate,
        request: Arc::new(request),
        n: NonZeroU8::MIN,
        first: 0,
        route: Arc::clone(&model.routes[0]),
        model,
        deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        may_be_stopped: false,
    }
}

async fn generate(config: &ProviderConfig) -> (Result<Report, ProviderError>, Pictures) {
    let mut pictures = Pictures::default();
    let provider = Stability::new("painter", config, MAX_PICTURE_BYTES).unwrap();
    let outcome = provider.generate(&call(), &mut pictures).await;
    if let Err(error) = &outcome {
        let shown = format!("{provider:?} {error:?}");
        for secret in ["secret", "otter"] {
            assert!(!shown.contains(secret), "{secret} is shown: {shown}");
        }
    }
    (outcome, pictures)
}

/// The error after this script, and what the sink was given.
async fn fails(script: Script) -> (ProviderError, Pictures) {
    let fake = Fake::always(script).await;
    let (outcome, pictures) = generate(&config(fake.origin())).await;
    (outcome.unwrap_err(), pictures)
}

#[tokio::test]
async fn a_form_goes_out_and_bytes_come_back() {
    let headers = [PNG, SUCCESS, "seed: 7", "x-request-id: 7f0c"];
    let fake = Fake::always(answer(200, &headers, "the bytes of a picture")).await;
    let (outcome, pictures) = generate(&config(format!("{}/", fake.origin()))).await;
    let report = outcome.unwrap();
    assert_eq!(report.announced, 1);
    assert_eq!(report.upstream_request_id.as_deref(), Some("7f0c"));
    let expected = (Encoding::Raw, "the bytes of a picture".to_owned(), true);
    assert_eq!(pictures.taken, [expected]);

    let requests = fake.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    let lines = head.lines().collect::<Vec<_>>();
    for line in [
        "post /v2beta/stable-image/generate/sd3 http/1.1",
        "authorization: bearer sk-test-secret",
        "content-type: multipart/form-data; boundary=easel-form-boundary-00000000",
        "accept: image/*",
        &format!("user-agent: easel/{}", env!("CARGO_PKG_VERSION")),
        &format!("content-length: {}", body.len()),
    ] {
        assert!(lines.contains(&line), "{line} is missing: {head}");
    }
    assert_eq!(
        lines.len(),
        8,
        "two more: the host and the end user: {head}"
    );
    let names = body.matches("name=").count();
    assert_eq!(names, 3, "model, prompt, ratio: {body}");
    assert!(
        body.contains("name=\"aspect_ratio\"\r\n\r\n16:9\r\n"),
        "{body}"
    );
}

/// The verdict is read first: the sink never hears of a blurred picture.
#[tokio::test]
async fn a_blurred_picture_does_not_reach_the_sink() {
    let headers = [PNG, "finish-reason: CONTENT_FILTERED"];
    let script = vec![head(200, &headers), Step::Repeat("blur ")];
    let (error, pictures) = fails(script).await;
    assert_eq!(error.kind, ErrorKind::ContentRefused);
    assert!(error.maybe_charged);
    assert!(pictures.taken.is_empty());
}

#[tokio::test]
async fn a_cut_picture_is_none() {
    for headers in [
        &[PNG, SUCCESS, "content-length: 1000"][..],
        &[PNG, SUCCESS, "transfer-encoding: chunked"],
    ] {
        let (error, pictures) = fails(vec![
            head(200, headers),
            Step::Send("5\r\nabcde\r\n".to_owned()),
        ])
        .await;
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.maybe_charged);
        assert!(pictures.whole().is_empty(), "{headers:?}");
        assert_eq!(pictures.taken.len(), 1, "it began");
    }
}

#[tokio::test]
async fn bodies_are_bounded_in_bytes_and_in_silence() {
    let endless = vec![head(200, &[PNG, SUCCESS]), Step::Repeat("endless ")];
    let (error, pictures) = fails(endless).await;
    assert_eq!(error.kind, ErrorKind::Malformed);
    assert!(pictures.whole().is_empty());

    let endless = vec![head(403, &[]), Step::Repeat("{\"errors\":[")];
    assert_eq!(fails(endless).await.0.kind, ErrorKind::Auth);

    let silent = vec![
        head(200, &[PNG, SUCCESS]),
        Step::Send("a".to_owned()),
        Step::Hang,
    ];
    let fake = Fake::always(silent).await;
    let impatient = ProviderConfig {
        idle_timeout: Duration::from_millis(300),
        ..config(fake.origin())
    };
    let error = generate(&impatient).await.0.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout { sent: true });
}

#[tokio::test]
async fn who_read_the_request_may_have_painted() {
    let (error, _) = fails(Vec::new()).await;
    assert_eq!(error.kind, ErrorKind::Transport { sent: true });
    let fake = Fake::always(vec![Step::Hang]).await;
    let impatient = ProviderConfig {
        timeout: Duration::from_millis(300),
        ..config(fake.origin())
    };
    let error = generate(&impatient).await.0.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout { sent: true });
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn a_key_is_needed() {
    let keyless = ProviderConfig {
        api_key: None,
        ..config("http://127.0.0.1:9".to_owned())
    };
    let error = Stability::new("painter", &keyless, 1).unwrap_err();
    assert_eq!(error, "api_key is not set");
}
