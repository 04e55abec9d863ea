//! What goes wrong at Replicate, and who hears what of it.

use std::time::Duration;

use serde_json::json;

use super::{PROMPT, SCHNELL, Studio, base64, request, several};
use crate::support::{
    fake_replicate::{
        self, Behaviour, E005, End, Files, NOT_STARTED, NSFW, OUT_OF_MEMORY, Script, UNKNOWN,
        insufficient_credit,
    },
    pictures::measure,
    usd,
};

/// The open models drop unsafe pictures without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_success_is_kept_and_charged_as_such() {
    let studio = Studio::open().await;
    studio.replicate.next(Script::ends(End::Succeeded(Some(3))));
    let answer = studio.paint(&several(4)).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 3);
    assert_eq!(answer["usage"]["cost"], usd(9_000_000));
    assert_eq!(studio.attempts("error = 'content_refused'").await, 1);

    // Of three predictions one is refused.
    for end in [
        End::Succeeded(None),
        End::Failed(E005),
        End::Succeeded(None),
    ] {
        studio.replicate.next(Script::ends(end));
    }
    let mut request = request("flux-1-pro");
    request["n"] = json!(3);
    let answer = studio.paint(&request).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["cost"], usd(110_000_000));
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_in_every_shape_are_the_caller_s() {
    let studio = Studio::open().await;
    for (end, n) in [
        (End::Failed(NSFW), 1),
        (End::Failed(NSFW), 4),
        (End::Failed(E005), 1),
        (End::FailedObject(NSFW), 1),
        (End::FailedObject(E005), 1),
        (End::Failed("The prompt was found to be sensitive."), 1),
        (End::Succeeded(Some(0)), 1),
        (End::Succeeded(Some(0)), 2),
    ] {
        let described = format!("{end:?} {n}");
        studio.replicate.next(Script::ends(end));
        let failure = studio.fail(&several(n)).await;
        assert_eq!(
            failure,
            (400, "moderation_blocked".to_owned()),
            "{described}"
        );
    }
    // Also when it came out later.
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_millis(300),
        patience: Duration::from_millis(50),
        end: End::Failed(NSFW),
        ..Script::default()
    }));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (400, "moderation_blocked".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 9, "none was repeated");
    studio.close().await;
}

/// What the vendor itself calls passing is tried once more: it ended without output, so it cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_passing_failure_is_tried_once_more() {
    let studio = Studio::open().await;
    for text in [UNKNOWN, NOT_STARTED] {
        let before = studio.replicate.creates().len();
        studio.replicate.next(Script::ends(End::Failed(text)));
        let answer = studio.paint(&several(2)).await;
        assert_eq!(answer["usage"]["cost"], usd(6_000_000));
        assert_eq!(studio.replicate.creates().len() - before, 2);
    }
    assert_eq!(studio.attempts("maybe_charged").await, 0);
    assert_eq!(studio.attempts("error = 'overloaded'").await, 2);
    // Of several predictions only the one that failed.
    studio.replicate.next(Script::ends(End::Failed(UNKNOWN)));
    let mut request = request("flux-1-pro");
    request["n"] = json!(3);
    let answer = studio.paint(&request).await;
    assert_eq!(answer["usage"]["cost"], usd(165_000_000));
    assert_eq!(studio.replicate.creates().len(), 8);
    // Once, and no more often.
    studio.replicate.next(Script::ends(End::Failed(UNKNOWN)));
    studio.replicate.next(Script::ends(End::Failed(UNKNOWN)));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (502, "upstream_error".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 10);
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_become_ours() {
    let upstream = |status: u16| (status, "upstream_error");
    for (behaviour, expected, charged) in [
        (refusal(401, "Unauthenticated"), upstream(502), false),
        (refusal(403, "Forbidden"), upstream(502), false),
        (refusal(404, "Not found"), upstream(502), false),
        (refusal(500, "Internal server error"), upstream(502), true),
        (refusal(504, "Timeout"), (504, "upstream_timeout"), true),
        (Behaviour::Page, upstream(502), true),
        (
            Script::ends(End::Failed(OUT_OF_MEMORY)),
            upstream(502),
            false,
        ),
        (Script::ends(End::Canceled), upstream(502), true),
        (Script::ends(End::Aborted), upstream(502), false),
        (Script::ends(End::Removed), upstream(502), true),
        (Script::with_files(Files::Expired), upstream(502), true),
        (Script::with_files(Files::Elsewhere), upstream(502), true),
        (
            Script::with_files(Files::MovedElsewhere),
            upstream(502),
            true,
        ),
        (Script::with_files(Files::NoPicture), upstream(502), true),
        (Script::with_files(Files::Cut), upstream(502), true),
    ] {
        // One Easel each: a failing route rests.
        let studio = Studio::open().await;
        let described = format!("{behaviour:?}");
        studio.replicate.next(behaviour);
        // As a link: an answer that shows the picture while it comes can only break off with it.
        let (status, code) = studio.fail(&request(SCHNELL)).await;
        assert_eq!((status, code.as_str()), expected, "{described}");
        assert_eq!(studio.replicate.creates().len(), 1, "{described}");
        let marked = studio.attempts("maybe_charged").await;
        assert_eq!(marked, i64::from(charged), "{described}");
        studio.close().await;
    }
}

fn refusal(status: u16, title: &str) -> Behaviour {
    let body =
        json!({"title": title, "detail": "see https://replicate.com/account", "status": status});
    Behaviour::Refuse(status, body)
}

/// The vendor's advice to buy credit is for the operator only.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_account_is_the_operator_s_affair() {
    let studio = Studio::with(&[("api_key", json!(fake_replicate::BROKE_TOKEN))]).await;
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (502, "upstream_error".to_owned()));
    assert_eq!(studio.attempts("error = 'quota_exhausted'").await, 1);
    studio.close().await;

    let studio = Studio::open().await;
    let (status, body) = insufficient_credit();
    studio.replicate.next(Behaviour::Refuse(status, body));
    assert_eq!(studio.fail(&several(1)).await.0, 502);
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_says_when_to_come_back() {
    let words = json!({"detail": "Request was throttled. Your rate limit resets in ~30s."});
    for (token, behaviour, seconds) in [
        (fake_replicate::LOW_TOKEN, None, "5"),
        (
            fake_replicate::TOKEN,
            Some(Behaviour::Refuse(429, words)),
            "30",
        ),
    ] {
        let studio = Studio::with(&[("api_key", json!(token))]).await;
        if let Some(behaviour) = behaviour {
            studio.replicate.next(behaviour);
        }
        let answer = studio.app.generate(&studio.key, &several(1)).await;
        let answer = answer.expect(429);
        assert_eq!(answer.header("retry-after"), seconds);
        assert_eq!(answer.problem().code(), "upstream_rate_limited");
        assert_eq!(studio.balance().await, 10_000_000_000);
        studio.close().await;
    }
}

/// The provider's names of fields are not the caller's.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_input_is_blamed_on_the_caller_s_parameter() {
    let invalid = |field: &str, kind: &str| {
        let description = "Must be something else";
        let body = json!({
            "title": "Input validation failed", "status": 422,
            "detail": format!("- {field}: {description}\n"),
            "invalid_fields": [{"type": kind, "field": field, "description": description}],
        });
        Behaviour::Refuse(422, body)
    };
    for (field, parameter) in [
        ("input.aspect_ratio", "size"),
        ("input.num_outputs", "n"),
        ("input.output_quality", "output_compression"),
        ("input.prompt", "prompt"),
    ] {
        let studio = Studio::open().await;
        studio.replicate.next(invalid(field, "enum"));
        let request = json!({"model": SCHNELL, "prompt": PROMPT, "n": 2, "size": "1024x1024", "output_format": "webp", "output_compression": 50});
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), parameter, "{problem:?}");
        assert!(problem.message.contains("Must be something else"));
        studio.close().await;
    }
    // What the caller did not write is not his fault.
    let studio = Studio::open().await;
    let ours = invalid("input.num_outputs", "additional_property_not_allowed");
    studio.replicate.next(ours);
    assert_eq!(studio.fail(&several(1)).await.0, 502);
    studio.close().await;
}

/// One file that is gone loses one picture.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_file_loses_its_picture_only() {
    let studio = Studio::open().await;
    studio
        .replicate
        .next(Script::with_files(Files::SecondExpired));
    let answer = studio.paint(&several(3)).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["cost"], usd(6_000_000));
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}

/// What is painted is paid for, so the files are fetched as often as it takes, within reason.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_fetched_again_where_that_may_help() {
    let studio = Studio::open().await;
    for (files, fetches) in [
        (Files::CutOnce, 4),
        (Files::BusyOnce, 4),
        // Two for the place it moved to.
        (Files::Moved, 4),
    ] {
        let before = studio.replicate.files_fetched();
        studio.replicate.next(Script::with_files(files));
        let answer = studio.paint(&several(2)).await;
        for picture in answer["data"].as_array().unwrap() {
            assert_eq!(measure(&base64(&picture["b64_json"])).width, 1024);
        }
        let fetched = studio.replicate.files_fetched() - before;
        assert_eq!(fetched, fetches, "{files:?}");
    }
    // One that breaks off again and again ends the call. What came before it stays.
    studio.replicate.next(Script::with_files(Files::SecondCut));
    let before = studio.replicate.files_fetched();
    let mut links = several(3);
    links["response_format"] = json!("url");
    let answer = studio.paint(&links).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 1);
    assert_eq!(answer["usage"]["cost"], usd(3_000_000));
    assert_eq!(studio.replicate.files_fetched() - before, 4);
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}

/// A server that takes the connection and never says hello, as TLS wants it: a timeout before anything
/// was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_before_sending_is_known_as_such() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let studio = Studio::with(&[
        ("base_url", json!(format!("https://{address}/v1"))),
        ("connect_timeout", json!("300ms")),
    ])
    .await;
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (504, "upstream_timeout".to_owned()));
    let condition = "error = 'timeout' and not maybe_charged";
    assert_eq!(studio.attempts(condition).await, 1);
    studio.app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_there_got_nothing() {
    // A port on which nobody listens: it was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let studio = Studio::with(&[("base_url", json!(format!("http://{address}/v1")))]).await;
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (502, "upstream_error".to_owned()));
    assert_eq!(studio.attempts("not maybe_charged").await, 1);
    studio.app.finish().await;
}
