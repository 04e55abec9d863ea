//! Streams over real sockets: what is asked for, when pictures and drafts arrive, and how streams end.

use super::*;
use crate::{catalog::TokenUsage, providers::ModerationStage};

const EVENTS: &str = "content-type: text/event-stream; charset=utf-8";
const DRAFT: &str = "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"AAAA\",\"size\":\"1024x1024\",\"partial_image_index\":0}\n\n";
const PICTURE: &str = "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"CCCC\",\"created_at\":7,\"size\":\"1024x1024\",\"quality\":\"low\",\"usage\":{\"input_tokens\":20,\"output_tokens\":272}}\n\n";
const REFUSAL: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"rejected by the safety system\",\"type\":\"image_generation_user_error\",\"param\":null,\"code\":\"moderation_blocked\",\"moderation_details\":{\"moderation_stage\":\"output\",\"categories\":[\"sexual\",\"An otter\",\"self-harm\"]}}}\n\n";

fn streaming(n: u8) -> Call {
    let written = json!({
        "model": "gpt-image-2", "prompt": "An otter", "n": n, "stream": true, "partial_images": 2,
    });
    call_for(&written, Task::Generate)
}

/// A head without a length, then these.
fn stream(parts: &[&str]) -> fake::Script {
    let parts = parts.iter().map(|part| Step::Send((*part).to_owned()));
    [head(200, &[EVENTS, "x-request-id: req_1"])]
        .into_iter()
        .chain(parts)
        .collect()
}

/// The outcome of a streaming call with this script.
async fn outcome(n: u8, script: fake::Script) -> (Result<Report, ProviderError>, Pictures) {
    let fake = Fake::always(script).await;
    let config = ProviderConfig {
        idle_timeout: Duration::from_millis(400),
        ..config(fake.base_url())
    };
    make(&streaming(n), &config).await
}

#[tokio::test]
async fn drafts_and_pictures_arrive() {
    let fake = Fake::always(stream(&[DRAFT, ": keepalive\n\n", PICTURE])).await;
    let (outcome, pictures) = make(&streaming(1), &config(fake.base_url())).await;
    let report = outcome.unwrap();
    assert_eq!(pictures.drafts, [(0, "AAAA".to_owned(), true)]);
    assert_eq!(pictures.whole(), ["CCCC"]);
    assert_eq!(pictures.abouts.len(), 2);
    assert_eq!(pictures.abouts[1].created_at, Some(7));
    assert_eq!(report.announced, 1);
    assert_eq!(report.created, Some(7));
    assert_eq!(report.size, "1024x1024".parse().ok());
    assert_eq!(report.upstream_request_id.as_deref(), Some("req_1"));
    let usage = report.usage.unwrap();
    assert_eq!((usage.input_text, usage.output_image), (20, 272));

    let requests = fake.requests();
    let (_, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(body).unwrap(),
        json!({
            "model": "gpt-image-2", "prompt": "An otter", "n": 1, "stream": true, "partial_images": 2,
        })
    );
}

#[tokio::test]
async fn a_draft_is_there_before_the_picture() {
    let mut script = stream(&[DRAFT]);
    script.push(Step::Hang);
    let (outcome, pictures) = outcome(1, script).await;
    assert_eq!(outcome.unwrap_err().kind, ErrorKind::Timeout { sent: true });
    assert_eq!(pictures.drafts, [(0, "AAAA".to_owned(), true)]);
    assert!(pictures.taken.is_empty());
}

#[tokio::test]
async fn a_stream_is_over_when_all_has_come() {
    // Without the empty line, and the connection stays open.
    let mut script = stream(&[DRAFT, PICTURE.trim_end()]);
    script.push(Step::Hang);
    let fake = Fake::always(script).await;
    let began_at = Instant::now();
    let (outcome, pictures) = make(&streaming(1), &patient(fake.base_url())).await;
    outcome.unwrap();
    assert_eq!(pictures.whole(), ["CCCC"]);
    assert!(began_at.elapsed() < PATIENCE);
}

#[tokio::test]
async fn who_does_not_stream_answers_as_ever() {
    let body = r#"{"created":7,"data":[{"b64_json":"AAAA"}],"usage":{"output_tokens":272}}"#;
    for headers in [JSON, EVENTS] {
        let script = vec![
            head(200, &[headers]),
            Step::Send(" \n".to_owned()),
            Step::Pause(Duration::from_millis(20)),
            Step::Send(body.to_owned()),
        ];
        let (outcome, pictures) = outcome(1, script).await;
        assert_eq!(outcome.unwrap().created, Some(7));
        assert_eq!(pictures.whole(), ["AAAA"]);
    }
    // And who streams unasked is understood, drafts left out.
    let fake = Fake::always(answer(200, &[JSON], &format!("{DRAFT}{PICTURE}{PICTURE}"))).await;
    let (outcome, pictures) = super::outcome(&config(fake.base_url())).await;
    assert_eq!(outcome.unwrap().announced, 2);
    assert_eq!(pictures.whole(), ["CCCC", "CCCC"]);
    assert!(pictures.drafts.is_empty());
    let requests = fake.requests();
    assert!(!requests[0].contains("stream"), "{}", requests[0]);
}

#[tokio::test]
async fn errors_within_a_stream_are_told_by_their_codes() {
    let rate_limited = ErrorKind::RateLimited {
        retry_after: Some(Duration::from_millis(15)),
    };
    let overloaded = ErrorKind::Overloaded { retry_after: None };
    for (frame, expected) in [
        (REFUSAL, ErrorKind::ContentRefused),
        (
            "data: {\"error\":{\"code\":\"content_policy_violation\"}}\n\n",
            ErrorKind::ContentRefused,
        ),
        (
            "event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"Rate limit reached in organization org-abc. Please try again in 15ms.\"}\n\n",
            rate_limited,
        ),
        (
            "data: {\"type\":\"error\",\"message\":\"no\",\"code\":\"server_error\"}\n\n",
            overloaded,
        ),
        ("data: {\"error\":{\"code\":503}}\n\n", overloaded),
        (
            "data: {\"error\":{\"type\":\"insufficient_quota\"}}\n\n",
            ErrorKind::QuotaExhausted,
        ),
        (
            "data: {\"error\":{\"type\":\"invalid_request_error\"}}\n\n",
            ErrorKind::InvalidRequest,
        ),
        (
            "event: error\ndata: out of memory\n\n",
            ErrorKind::Malformed,
        ),
        (
            "data: {\"error\":\"out of memory\"}\n\n",
            ErrorKind::Malformed,
        ),
    ] {
        for parts in [&[frame][..], &[DRAFT, frame]] {
            let (outcome, pictures) = outcome(1, stream(parts)).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, expected, "{parts:?}");
            assert!(!format!("{error:?}").contains("org-abc"), "{error:?}");
            assert!(pictures.taken.is_empty());
        }
    }
    let (outcome, _) = outcome(1, stream(&[REFUSAL])).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("moderation_blocked"));
    assert_eq!(error.message, "rejected by the safety system");
    assert_eq!(error.upstream_request_id.as_deref(), Some("req_1"));
    let details = error.moderation.unwrap();
    assert_eq!(details.moderation_stage, ModerationStage::Output);
    assert_eq!(details.categories, ["sexual", "self-harm"]);
}

#[tokio::test]
async fn several_pictures_are_counted_each() {
    let (two, pictures) = outcome(2, stream(&[PICTURE, DRAFT, PICTURE])).await;
    let report = two.unwrap();
    assert_eq!(pictures.whole(), ["CCCC", "CCCC"]);
    assert_eq!(report.announced, 2);
    let expected = TokenUsage {
        input_text: 40,
        output_image: 544,
        ..TokenUsage::default()
    };
    assert_eq!(report.usage, Some(expected));

    let (one, pictures) = outcome(2, stream(&[PICTURE, REFUSAL])).await;
    let report = one.unwrap();
    assert_eq!(pictures.whole(), ["CCCC"]);
    assert_eq!(report.announced, 1);
    assert_eq!(report.refused[0].kind, ErrorKind::ContentRefused);
}

#[tokio::test]
async fn a_broken_stream_keeps_what_is_whole() {
    let half = &PICTURE[..PICTURE.len() - 80];
    let in_the_picture = &PICTURE[..PICTURE.find("CCCC").unwrap() + 2];
    let endings: [fn(fake::Script) -> fake::Script; 2] = [
        |script| script,
        // A length that is never reached: a broken connection rather than an end.
        |mut script| {
            script[0] = head(
                200,
                &[EVENTS, "x-request-id: req_1", "content-length: 100000"],
            );
            script
        },
    ];
    for ending in endings {
        for torn in [half, in_the_picture] {
            for (parts, whole) in [(&[torn][..], 0), (&[PICTURE, torn], 1)] {
                let (outcome, pictures) = outcome(2, ending(stream(parts))).await;
                let taken = whole + usize::from(torn == half);
                assert_eq!(pictures.whole().len(), taken);
                let error = if taken == 1 {
                    let report = outcome.unwrap();
                    // What the whole event said of its picture is kept; of the torn one nothing is known.
                    let used = report.usage.map(|usage| usage.output_image);
                    assert_eq!(used, (whole == 1).then_some(272));
                    report.refused[0].clone()
                } else {
                    outcome.unwrap_err()
                };
                assert_eq!(error.kind, ErrorKind::Malformed);
                assert!(error.maybe_charged);
                assert_eq!(
                    error.upstream_request_id.as_deref(),
                    (taken != 1).then_some("req_1")
                );
            }
        }
        let (none, pictures) = outcome(1, ending(stream(&[DRAFT]))).await;
        assert_eq!(none.unwrap_err().kind, ErrorKind::Malformed);
        assert_eq!(pictures.drafts.len(), 1);
        // Between two pictures nothing is torn, and what was counted stays counted.
        let (one, pictures) = outcome(2, ending(stream(&[PICTURE, DRAFT]))).await;
        let report = one.unwrap();
        assert_eq!(pictures.whole(), ["CCCC"]);
        assert_eq!(report.usage.unwrap().output_image, 272);
        assert_eq!(report.announced, 1);
    }
}

#[tokio::test]
async fn endless_streams_end() {
    for (beginning, endless) in [
        (
            "data: {\"type\":\"image_generation.completed\",\"b64_json\":\"",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ),
        (
            "data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ),
        ("", ": keepalive, or rather keep busy\n\n"),
        ("", "event: ping\ndata: {\"type\":\"ping\"}\n\n"),
        ("", DRAFT),
    ] {
        let mut script = stream(&[beginning]);
        script.push(Step::Repeat(endless));
        let (outcome, _) = outcome(1, script).await;
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Malformed, "{endless}");
    }
}
