//! The adapter and the shared client over real sockets: what arrives, and what becomes of everything that
//! can go wrong.

mod edits;
mod links;
mod streams;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::net::TcpListener;

use super::{OpenAi, Settings};
use crate::{
    catalog::{Catalog, Unsupported},
    config::ProviderConfig,
    providers::{
        Call, Encoding, ErrorKind, Provider as _, ProviderError, Report, Task,
        http::HttpClient,
        testing::{
            Pictures, config,
            fake::{self, Fake, Step, answer, head},
            goldens,
        },
    },
};

const JSON: &str = "content-type: application/json";
/// Small, so that tests of the caps are quick.
const MAX_PICTURE_BYTES: u64 = 64 * 1024;

fn call(n: u8) -> Call {
    call_for(
        &json!({ "model": "dall-e-2", "prompt": "An otter", "n": n }),
        Task::Generate,
    )
}

/// A call for what a client wrote.
fn call_for(written: &serde_json::Value, task: Task) -> Call {
    let catalog = Catalog::load(None).unwrap();
    let model = Arc::clone(catalog.find(written["model"].as_str().unwrap()).unwrap());
    let params = goldens::params(written);
    let (request, _) = model.rules.check(&params, Unsupported::Reject).unwrap();
    Call {
        n: request.n,
        request: Arc::new(request),
        task,
        first: 0,
        route: Arc::clone(&model.routes[0]),
        model,
        deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        may_be_stopped: false,
    }
}

/// Makes a call at a fake.
async fn make(call: &Call, config: &ProviderConfig) -> (Result<Report, ProviderError>, Pictures) {
    let mut pictures = Pictures::default();
    let provider = OpenAi::new("painter", config, MAX_PICTURE_BYTES).unwrap();
    let outcome = provider.generate(call, &mut pictures).await;
    (outcome, pictures)
}

async fn generate(config: &ProviderConfig, n: u8) -> (Result<Report, ProviderError>, Pictures) {
    make(&call(n), config).await
}

/// The outcome of a call for two pictures.
async fn outcome(config: &ProviderConfig) -> (Result<Report, ProviderError>, Pictures) {
    let (outcome, pictures) = generate(config, 2).await;
    if let Err(error) = &outcome {
        let shown = format!("{error:?}");
        for secret in ["secret", "127.0.0.1", "otter"] {
            assert!(!shown.contains(secret), "the error shows {secret}: {shown}");
        }
    }
    (outcome, pictures)
}

async fn error(config: &ProviderConfig) -> ProviderError {
    outcome(config).await.0.unwrap_err()
}

/// Waits for longer than this for what does not come.
fn patient(base_url: String) -> ProviderConfig {
    ProviderConfig {
        timeout: 2 * PATIENCE,
        idle_timeout: 2 * PATIENCE,
        ..config(base_url)
    }
}

/// More than a loaded machine takes for what has come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The kind of the error after this script.
async fn kind(script: fake::Script) -> ErrorKind {
    let fake = Fake::always(script).await;
    error(&config(fake.base_url())).await.kind
}

#[tokio::test]
async fn pictures_arrive() {
    for n in 1..=4_u8 {
        let pictures = (0..n)
            .map(|index| format!(r#"{{"b64_json":"AAA{index}"}}"#))
            .collect::<Vec<_>>();
        let body = format!(r#"{{"created":7,"data":[{}]}}"#, pictures.join(","));
        let fake = Fake::always(answer(200, &[JSON, "x-request-id: req_1"], &body)).await;
        let (outcome, pictures) = generate(&config(fake.base_url()), n).await;
        let report = outcome.unwrap();
        let expected = (0..n)
            .map(|index| format!("AAA{index}"))
            .collect::<Vec<_>>();
        assert_eq!(pictures.whole(), expected);
        assert_eq!(report.announced, usize::from(n));
        assert_eq!(report.created, Some(7));
        assert_eq!(report.upstream_request_id.as_deref(), Some("req_1"));
        assert!(report.refused.is_empty());
    }
}

#[tokio::test]
async fn a_request_is_plain_json_with_a_key() {
    let fake = Fake::always(answer(200, &[JSON], r#"{"data":[{"b64_json":"AAAA"}]}"#)).await;
    outcome(&config(fake.base_url())).await.0.unwrap();
    let keyless = ProviderConfig {
        api_key: None,
        base_url: Some(format!("{}/", fake.base_url())),
        ..config(String::new())
    };
    outcome(&keyless).await.0.unwrap();

    let requests = fake.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    let lines = head.lines().collect::<Vec<_>>();
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        "post /v1/images/generations http/1.1",
        "authorization: bearer sk-test-secret",
        "content-type: application/json",
        "accept: application/json",
        &format!("user-agent: easel/{version}"),
        &format!("content-length: {}", body.len()),
    ] {
        assert!(lines.contains(&line), "{line} is missing: {head}");
    }
    assert_eq!(lines.len(), 7, "one more than those is the host: {head}");
    let body = serde_json::from_str::<serde_json::Value>(body).unwrap();
    assert_eq!(body["model"], "dall-e-2");
    assert_eq!(body["prompt"], "An otter");
    assert_eq!(body["n"], 2);

    assert!(requests[1].starts_with("post /v1/images/generations "));
    assert!(!requests[1].contains("authorization"));
}

#[tokio::test]
async fn a_cut_answer_keeps_the_pictures_that_are_whole() {
    let beginning = r#"{"data":[{"b64_json":"AAAA"},{"b64_json":"BBBBBBBB"#;
    for headers in [&[JSON, "content-length: 1000"][..], &[JSON]] {
        let fake = Fake::always(vec![head(200, headers), Step::Send(beginning.to_owned())]).await;
        let (outcome, pictures) = outcome(&config(fake.base_url())).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed, "{headers:?}");
        assert!(error.maybe_charged);
        assert_eq!(pictures.whole(), ["AAAA"]);
        assert_eq!(pictures.taken.len(), 2, "the second began");
    }
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_and_a_silent_one_is_not() {
    let config = |fake: &Fake| ProviderConfig {
        idle_timeout: Duration::from_millis(400),
        ..config(fake.base_url())
    };
    let body = r#"{"data":[{"b64_json":"AAAAAAAA"}]}"#;
    let drip = body.chars().flat_map(|character| {
        [
            Step::Send(character.to_string()),
            Step::Pause(Duration::from_millis(20)),
        ]
    });
    let fake = Fake::always([head(200, &[JSON])].into_iter().chain(drip).collect()).await;
    let (slow, pictures) = outcome(&config(&fake)).await;
    slow.unwrap();
    assert_eq!(pictures.whole(), ["AAAAAAAA"]);

    let silent = vec![
        head(200, &[JSON]),
        Step::Send("{\"data\":[".to_owned()),
        Step::Hang,
    ];
    let fake = Fake::always(silent).await;
    let began_at = Instant::now();
    let error = error(&config(&fake)).await;
    assert_eq!(error.kind, ErrorKind::Timeout { sent: true });
    assert!(error.message.contains("fell silent for 400ms"), "{error}");
    assert!(began_at.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_deadline_knows_whether_the_request_went_out() {
    let deaf = |base_url: String| ProviderConfig {
        timeout: Duration::from_millis(300),
        ..config(base_url)
    };
    // Read, never answered.
    let fake = Fake::always(vec![Step::Hang]).await;
    let sent = error(&deaf(fake.base_url())).await;
    assert_eq!(sent.kind, ErrorKind::Timeout { sent: true });
    assert!(sent.maybe_charged);
    assert_eq!(fake.requests().len(), 1);

    // Answered and dripping past the end.
    let drip = std::iter::repeat_n(
        [
            Step::Send(" ".to_owned()),
            Step::Pause(Duration::from_millis(20)),
        ],
        100,
    );
    let script = [head(200, &[JSON])]
        .into_iter()
        .chain(drip.flatten())
        .collect();
    let fake = Fake::always(script).await;
    let late = error(&deaf(fake.base_url())).await;
    assert_eq!(late.kind, ErrorKind::Timeout { sent: true });

    // Connected, but the TLS handshake never ends: by the deadline, then by the connect timeout.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}/v1", mute.local_addr().unwrap());
    let unsent = error(&deaf(base_url.clone())).await;
    assert_eq!(unsent.kind, ErrorKind::Timeout { sent: false });
    assert!(!unsent.maybe_charged);
    let unconnected = ProviderConfig {
        connect_timeout: Duration::from_millis(300),
        ..config(base_url)
    };
    assert_eq!(
        error(&unconnected).await.kind,
        ErrorKind::Timeout { sent: false }
    );
}

#[tokio::test]
async fn who_cannot_be_reached_got_nothing() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", closed.local_addr().unwrap());
    drop(closed);
    assert_eq!(
        error(&config(base_url)).await.kind,
        ErrorKind::Transport { sent: false }
    );
    let nowhere = "http://no-such-host.invalid/v1".to_owned();
    assert_eq!(
        error(&config(nowhere)).await.kind,
        ErrorKind::Transport { sent: false }
    );
    // Read and hung up on: it may have been accepted.
    assert_eq!(kind(Vec::new()).await, ErrorKind::Transport { sent: true });
}

#[tokio::test]
async fn statuses_become_kinds() {
    let error = r#"{"error":{"message":"no","type":null,"param":null,"code":null}}"#;
    let retry_after = |seconds| Some(Duration::from_secs(seconds));
    for (status, headers, expected) in [
        (401, &[JSON][..], ErrorKind::Auth),
        (
            429,
            &[JSON, "retry-after: 7"],
            ErrorKind::RateLimited {
                retry_after: retry_after(7),
            },
        ),
        (500, &[JSON], ErrorKind::Overloaded { retry_after: None }),
        (
            503,
            &[JSON, "retry-after: 2"],
            ErrorKind::Overloaded {
                retry_after: retry_after(2),
            },
        ),
        (
            307,
            &["location: http://127.0.0.1:1/"],
            ErrorKind::Overloaded { retry_after: None },
        ),
        (204, &[], ErrorKind::Malformed),
    ] {
        assert_eq!(
            kind(answer(status, headers, error)).await,
            expected,
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_is_no_answer_is_malformed() {
    for (headers, body) in [
        (&[JSON][..], "garbage"),
        (&[JSON], ""),
        (&[JSON], "{}"),
        (&[JSON], r#"{"data":[]}"#),
        (&[JSON], r#"{"data":[{"b64_json":null}]}"#),
        (
            &["content-type: text/html; charset=utf-8"],
            r#"{"data":[{"b64_json":"AAAA"}]}"#,
        ),
        (&["content-type: text/event-stream"], "data: {}\n\n"),
        (&[JSON, "content-encoding: gzip"], "\u{1f}\u{8b}"),
    ] {
        let kind = kind(answer(200, headers, body)).await;
        assert_eq!(kind, ErrorKind::Malformed, "{headers:?} {body}");
    }
}

#[tokio::test]
async fn an_error_within_a_success_counts() {
    let refused = r#"{"error":{"message":"rejected by the safety system","type":"image_generation_user_error","param":null,"code":"moderation_blocked"}}"#;
    let fake = Fake::always(answer(200, &[JSON], refused)).await;
    let error = error(&config(fake.base_url())).await;
    assert_eq!(error.kind, ErrorKind::ContentRefused);
    assert_eq!(error.code.as_deref(), Some("moderation_blocked"));

    let beside = r#"{"data":[{"b64_json":"AAAA"}],"error":{"code":"moderation_blocked"}}"#;
    let fake = Fake::always(answer(200, &[JSON], beside)).await;
    let (outcome, pictures) = outcome(&config(fake.base_url())).await;
    assert_eq!(pictures.whole(), ["AAAA"]);
    assert_eq!(outcome.unwrap().refused[0].kind, ErrorKind::ContentRefused);
}

#[tokio::test]
async fn bodies_are_bounded() {
    // An error that never ends is an error by its status.
    let endless = vec![head(500, &[JSON]), Step::Repeat("{\"error\":")];
    assert_eq!(
        kind(endless).await,
        ErrorKind::Overloaded { retry_after: None }
    );
    // Success in excess is none, whether as picture, as prompt or as nothing at all.
    for beginning in [
        r#"{"data":[{"b64_json":""#,
        r#"{"data":[{"revised_prompt":""#,
        "",
        "{\"data\":[{},{}]}",
    ] {
        let endless = vec![
            head(200, &[JSON]),
            Step::Send(beginning.to_owned()),
            Step::Repeat("                                                                "),
        ];
        assert_eq!(kind(endless).await, ErrorKind::Malformed, "{beginning}");
    }
}

#[tokio::test]
async fn what_follows_the_answer_does_not_delay_it() {
    let fake = Fake::always(vec![
        head(200, &[JSON]),
        Step::Send(r#"{"data":[{"b64_json":"AAAA"}]}"#.to_owned()),
        Step::Hang,
    ])
    .await;
    let began_at = Instant::now();
    outcome(&patient(fake.base_url())).await.0.unwrap();
    assert!(began_at.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_slow_reader_is_no_slow_provider() {
    let body = r#"{"data":[{"b64_json":"AAAA"}],"usage":{}"#;
    let fake = Fake::always(vec![
        head(200, &[JSON]),
        Step::Send(body.to_owned()),
        Step::Pause(Duration::from_secs(1)),
        Step::Send("}".to_owned()),
    ])
    .await;
    let config = ProviderConfig {
        timeout: Duration::from_millis(700),
        ..config(fake.base_url())
    };
    let provider = OpenAi::new("painter", &config, MAX_PICTURE_BYTES).unwrap();
    let mut pictures = Pictures {
        slowness: Duration::from_millis(300),
        ..Pictures::default()
    };
    provider.generate(&call(1), &mut pictures).await.unwrap();
    assert_eq!(pictures.whole(), ["AAAA"]);
}

#[tokio::test]
async fn one_call_too_many_fails_at_once() {
    let fake = Fake::always(vec![Step::Hang]).await;
    let config = ProviderConfig {
        max_in_flight: 1,
        ..config(fake.base_url())
    };
    let provider = OpenAi::new("painter", &config, MAX_PICTURE_BYTES).unwrap();
    let (first_call, second_call) = (call(1), call(1));
    let (mut one, mut two) = (Pictures::default(), Pictures::default());
    let mut first = provider.generate(&first_call, &mut one);
    let waited = tokio::time::timeout(Duration::from_millis(100), &mut first).await;
    assert!(waited.is_err(), "the first is in flight");
    let refused = provider.generate(&second_call, &mut two).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Overloaded { retry_after: None });
    assert_eq!(
        refused.message,
        "1 calls to painter are in flight, which is its max_in_flight"
    );
    drop(first);
    let again = provider.generate(&second_call, &mut two);
    let waited = tokio::time::timeout(Duration::from_millis(100), again).await;
    assert!(waited.is_err(), "dropping the first made room");
}

#[tokio::test]
async fn connections_serve_again() {
    // Keeps the connection open, unlike the other fakes' answers.
    let body = r#"{"data":[{"b64_json":"AAAA"}]}"#;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let provider = OpenAi::new("painter", &config(base_url), MAX_PICTURE_BYTES).unwrap();
    for _ in 0..3 {
        // Only one connection is accepted: a second one would wait for ever.
        let mut pictures = Pictures::default();
        provider.generate(&call(1), &mut pictures).await.unwrap();
    }
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let body = r#"{"data":[{"b64_json":"AAAA"}]}"#;
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // Says nothing of closing, and closes.
    let fake = Fake::always(vec![Step::Send(text)]).await;
    let provider = OpenAi::new("painter", &config(fake.base_url()), MAX_PICTURE_BYTES).unwrap();
    for _ in 0..5 {
        let mut pictures = Pictures::default();
        provider.generate(&call(1), &mut pictures).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fake.requests().len(), 5);
}
