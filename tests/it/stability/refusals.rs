//! Content and requests that Stability refuses.

use serde_json::json;

use super::{LARGE, PROMPT, Studio};
use crate::support::fake_stability::{Behaviour, Reply};

/// Whichever way it refuses, the caller reads the same, and pays nothing.
#[tokio::test(flavor = "multi_thread")]
async fn content_is_refused_in_two_ways() {
    let studio = Studio::start().await;
    for (behaviour, status, maybe_charged) in [
        (Behaviour::Reply(Reply::content_moderation()), 403, "f"),
        (Behaviour::Reply(Reply::public_figure()), 422, "f"),
        (
            Behaviour::Reply(Reply::raw(
                403,
                "application/json",
                "{\"name\":\"content_moderation\",\"errors\":[\"flagged\"]}",
            )),
            403,
            "f",
        ),
        // The blurred picture is called a success, so it may be charged to us.
        (Behaviour::FinishReason(Some("CONTENT_FILTERED")), 200, "t"),
    ] {
        let described = format!("{behaviour:?}");
        let seen = studio.fails(behaviour).await;
        assert_eq!(
            seen, "400 moderation_blocked image_generation_user_error",
            "{described}"
        );
        let attempt = studio.last_attempt().await;
        assert_eq!(
            attempt,
            format!("content_refused {status} {maybe_charged}"),
            "{described}"
        );
    }
    // All four, and none arrives.
    let request = json!({"model": LARGE, "prompt": format!("{PROMPT} BLUR"), "n": 4});
    let problem = studio.app.refuse(&studio.key, 400, &request).await;
    assert_eq!(problem.code(), "moderation_blocked");
    assert_eq!(studio.app.balance(&studio.key).await, json!(2));
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_only_stability_finds_wrong_is_the_callers() {
    let mut studio = Studio::start().await;
    for (reply, code) in [
        (
            Reply::bad_request(&["prompt: is too odd".to_owned()]),
            "invalid_value",
        ),
        (Reply::payload_too_large(), "image_too_large"),
    ] {
        let seen = studio.fails(Behaviour::Reply(reply)).await;
        assert_eq!(seen, format!("400 {code} invalid_request_error"));
    }
    let request = json!({"model": LARGE, "prompt": "ein grüner Hügel hinter dem Haus"});
    let problem = studio.app.refuse(&studio.key, 400, &request).await;
    assert_eq!(
        (problem.code(), problem.param()),
        ("invalid_value", "prompt")
    );
    assert!(problem.message.contains("English"), "{problem:?}");
    studio.meant = 1;
    studio.finish().await;
}
