//! What a provider can do to us: the caller gets the right error, pays nothing, and nothing stays held.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, Key, Reply, pictures};

const PROMPT: &str = "the cartographer of an unknown coast";

fn dall_e_3() -> Value {
    json!({"model": "dall-e-3", "prompt": PROMPT, "size": "1024x1024"})
}

/// What the caller sees of a failure.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    code: String,
    should_retry: Option<String>,
    retry_after: Option<String>,
}

/// One call that fails in this way: nothing is charged or held, the provider is called once.
async fn fails(app: &App, key: &Key, behaviour: Behaviour, request: &Value) -> Seen {
    let described = format!("{behaviour:?}");
    let calls = app.openai.calls().len();
    let before = app.balance(key).await;
    app.openai.next(behaviour);
    let answer = app.generate(key, request).await;
    let problem = answer.problem();
    assert_eq!(
        app.balance(key).await,
        before,
        "nothing is charged: {described}"
    );
    assert_eq!(
        app.openai.calls().len(),
        calls + 1,
        "the provider is called once: {described}"
    );
    for leak in ["org-easelfake", "platform.openai.com", "cloudflare", PROMPT] {
        assert!(
            !problem.message.contains(leak),
            "{leak} reaches the caller: {problem:?}"
        );
    }
    Seen {
        status: answer.status,
        code: problem.code().to_owned(),
        should_retry: answer.find_header("x-should-retry").map(str::to_owned),
        retry_after: answer.find_header("retry-after").map(str::to_owned),
    }
}

fn seen(status: u16, code: &str, should_retry: Option<&str>) -> Seen {
    Seen {
        status,
        code: code.to_owned(),
        should_retry: should_retry.map(str::to_owned),
        retry_after: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_provider() {
    for (reply, expected) in [
        (
            Reply::server_error(),
            seen(502, "upstream_error", Some("false")),
        ),
        (
            Reply::overloaded(),
            seen(502, "upstream_error", Some("false")),
        ),
        (Reply::html(502), seen(502, "upstream_error", Some("false"))),
        (Reply::html(503), seen(502, "upstream_error", Some("false"))),
        (
            Reply::raw(500, "text/plain", ""),
            seen(502, "upstream_error", Some("false")),
        ),
        // Ours to mend, not the caller's: the account at the provider.
        (
            Reply::wrong_key(),
            seen(502, "upstream_error", Some("false")),
        ),
        (
            Reply::not_verified(),
            seen(502, "upstream_error", Some("false")),
        ),
        // Retired, and gone at its maker's too.
        (Reply::model_not_found(), seen(404, "model_not_found", None)),
        (
            Reply::insufficient_quota(),
            seen(502, "upstream_error", Some("false")),
        ),
        (
            Reply::billing_hard_limit(),
            seen(502, "upstream_error", Some("false")),
        ),
    ] {
        // One Easel each: a failing account rests.
        let app = App::start().await;
        let key = app.live_key("1");
        let described = format!("{reply:?}");
        assert_eq!(
            fails(&app, &key, Behaviour::Reply(reply), &dall_e_3()).await,
            expected,
            "{described}"
        );
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_cannot_be_used() {
    for (behaviour, name) in [
        (
            Behaviour::Reply(Reply::html(200)),
            "a page instead of an answer",
        ),
        (
            Behaviour::Reply(Reply::raw(200, "application/json", "")),
            "an empty body",
        ),
        (
            Behaviour::Reply(Reply::raw(200, "application/json", "{}")),
            "an empty object",
        ),
        (
            Behaviour::Reply(Reply::raw(200, "application/json", "[1,2")),
            "half a list",
        ),
        (
            Behaviour::Reply(Reply::raw(
                200,
                "application/json",
                "{\"created\":1,\"data\":[]}",
            )),
            "no pictures",
        ),
        (
            Behaviour::Reply(Reply::raw(
                200,
                "application/json",
                "{\"created\":1,\"data\":[{}]}",
            )),
            "a picture without data",
        ),
        (
            Behaviour::Reply(Reply::raw(
                200,
                "application/json",
                "{\"created\":1,\"data\":[{\"b64_json\":null}]}",
            )),
            "null for a picture",
        ),
        (
            Behaviour::Reply(Reply::raw(200, "application/json", vec![0xff_u8; 5000])),
            "noise",
        ),
        (Behaviour::NotAPicture, "base64 that is no picture"),
        (Behaviour::NotBase64, "no base64"),
        (Behaviour::BrokenPicture(0), "half a picture"),
        (Behaviour::CutAfter(700), "cut in the middle of the picture"),
        (Behaviour::CutAfter(10), "cut at the beginning"),
        (Behaviour::DeadLinks, "links that lead nowhere"),
    ] {
        let app = App::start().await;
        let key = app.live_key("1");
        assert_eq!(
            fails(&app, &key, behaviour, &dall_e_3()).await,
            seen(502, "upstream_error", Some("false")),
            "{name}"
        );
        let marked = app
            .database
            .number("select count(*) from attempts where maybe_charged and error is not null")
            .await;
        assert_eq!(marked, 1, "the provider may charge us for it: {name}");
        app.finish().await;
    }
}

/// Servers that speak the dialect are careless about content types; a page is never a picture.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_for_what_it_is() {
    let app = App::start().await;
    let key = app.live_key("1");
    for content_type in ["text/plain", "application/octet-stream"] {
        app.openai.next(Behaviour::ContentType(content_type));
        app.generate(&key, &dall_e_3()).await.expect(200);
    }
    let seen_error = fails(
        &app,
        &key,
        Behaviour::ContentType("text/html; charset=utf-8"),
        &dall_e_3(),
    )
    .await;
    assert_eq!(seen_error, seen(502, "upstream_error", Some("false")));
    app.finish().await;
}

/// A status that nobody documented is undecided: no success.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_success_is_none() {
    let app = App::start().await;
    let key = app.live_key("1");
    for status in [202, 299] {
        let seen = fails(&app, &key, Behaviour::Status(status), &dall_e_3()).await;
        assert_eq!(
            (seen.status, seen.code.as_str()),
            (502, "upstream_error"),
            "{status}"
        );
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_passed_on_with_its_time() {
    for (reply, retry_after) in [
        (Reply::rate_limited().with_header("retry-after", "7"), "7"),
        (
            Reply::rate_limited().with_header("retry-after-ms", "2300"),
            "3",
        ),
    ] {
        let app = App::start().await;
        let key = app.live_key("1");
        let seen = fails(&app, &key, Behaviour::Reply(reply), &dall_e_3()).await;
        assert_eq!(
            (seen.status, seen.code.as_str(), seen.retry_after.as_deref()),
            (429, "upstream_rate_limited", Some(retry_after))
        );
        assert_ne!(
            seen.should_retry.as_deref(),
            Some("false"),
            "the caller may come back"
        );
        app.finish().await;
    }
    // Without a time the caller still learns one.
    let app = App::start().await;
    let key = app.live_key("1");
    let seen = fails(
        &app,
        &key,
        Behaviour::Reply(Reply::rate_limited()),
        &dall_e_3(),
    )
    .await;
    assert_eq!(seen.status, 429);
    assert!(
        seen.retry_after
            .is_some_and(|seconds| seconds.parse::<u64>().is_ok())
    );
    app.finish().await;
}

/// A refused prompt is the caller's: 400 with the provider's own code, never retried.
#[tokio::test(flavor = "multi_thread")]
async fn refused_content_keeps_its_code() {
    let app = App::start().await;
    let key = app.live_key("1");
    let gpt_image =
        json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024"});
    for (reply, request, kind, code) in [
        (
            Reply::moderation_dalle(),
            dall_e_3(),
            "invalid_request_error",
            "content_policy_violation",
        ),
        (
            Reply::moderation_gpt(),
            gpt_image,
            "image_generation_user_error",
            "moderation_blocked",
        ),
    ] {
        app.openai.next(Behaviour::Reply(reply));
        let calls = app.openai.calls().len();
        let answer = app.generate(&key, &request).await.expect(400);
        let problem = answer.problem();
        assert_eq!((problem.kind.as_str(), problem.code()), (kind, code));
        let details = &answer.json()["error"]["moderation_details"];
        let expected = json!({"moderation_stage": "input", "categories": ["violence"]});
        match code {
            "moderation_blocked" => assert_eq!(details, &expected),
            _ => assert!(details.is_null(), "{details}"),
        }
        assert_ne!(answer.find_header("x-should-retry"), Some("true"));
        assert_eq!(app.openai.calls().len(), calls + 1);
    }
    assert_eq!(app.balance(&key).await, json!(1));
    app.finish().await;
}

/// A provider may paint some and refuse the rest, in words about the prompt: those are for the caller, not
/// for the books.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_beside_pictures_leaves_no_words_in_the_books() {
    let app = App::start().await;
    let key = app.live_key("1");
    let words = "No cartographers on a Friday.";
    let body = json!({
        "created": 1_795_000_000,
        "data": [{"b64_json": STANDARD.encode(pictures::paint("png", 256, 256, 7, false))}],
        "error": {
            "message": words,
            "type": "image_generation_user_error",
            "code": "content_policy_violation",
        },
    });
    let reply = Reply::raw(200, "application/json", body.to_string());
    app.openai.next(Behaviour::Reply(reply));
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "n": 2});
    let answer = app.generate(&key, &request).await.expect(200).json();
    assert_eq!(answer["failed"][0]["message"], words);
    let kept = app
        .database
        .texts("select error_code || ': ' || error_message from generations")
        .await;
    assert_eq!(
        kept,
        ["content_policy_violation: the provider refused the request"]
    );
    app.finish().await;
}

/// A picture that arrived is charged, whatever the provider says that it took: at most what was held.
#[tokio::test(flavor = "multi_thread")]
async fn usage_beyond_the_hold_is_charged_as_what_was_held() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({
        "model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024",
        "response_format": "url",
    });
    for tokens in [2_000, 300_000, 900_000] {
        let body = json!({
            "created": 1_795_000_000,
            "data": [{"b64_json": STANDARD.encode(pictures::paint("png", 64, 64, 7, false))}],
            "usage": {"input_tokens": 3, "output_tokens": tokens},
        });
        let reply = Reply::raw(200, "application/json", body.to_string());
        app.openai.next(Behaviour::Reply(reply));
        app.generate(&key, &request).await.expect(200);
    }
    let uncharged = app
        .database
        .number("select count(*) from holds where captured_nano_usd < amount_nano_usd")
        .await;
    assert_eq!(uncharged, 0, "each was charged all that was held");
    app.get(&key, "/v1/usage").await.expect(200);
    app.run(&["usage"]).expect_success();
    app.finish().await;
}

/// A mistake that only the provider's validator finds comes through as it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_keeps_code_and_parameter() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::Reply(Reply::error(
        400,
        &json!({"message": "Transparent background is not supported for this model.", "type": "image_generation_user_error", "param": "background", "code": "invalid_value"}),
    )));
    let request = json!({"model": "gpt-image-2", "prompt": PROMPT, "quality": "low", "background": "transparent"});
    let problem = app.refuse(&key, 400, &request).await;
    assert_eq!(
        (problem.kind.as_str(), problem.code(), problem.param()),
        ("image_generation_user_error", "invalid_value", "background")
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_never_answers_is_given_up() {
    let app = App::builder()
        .await
        .set("providers.openai.timeout", "700ms")
        .start()
        .await;
    let key = app.live_key("1");
    for behaviour in [Behaviour::Never, Behaviour::StallAfter(600)] {
        let seen_error = fails(&app, &key, behaviour, &dall_e_3()).await;
        assert_eq!(seen_error, seen(504, "upstream_timeout", Some("false")));
    }
    let marked = app
        .database
        .number("select count(*) from attempts where maybe_charged")
        .await;
    assert_eq!(
        marked, 2,
        "the provider may charge us for what it did not answer"
    );
    app.finish().await;
}

/// Silence inside a body ends the attempt, long before the attempt's own time is over.
#[tokio::test(flavor = "multi_thread")]
async fn silence_inside_an_answer_is_given_up() {
    let app = App::builder()
        .await
        .set("providers.openai.idle_timeout", "500ms")
        .start()
        .await;
    let key = app.live_key("1");
    let seen = fails(&app, &key, Behaviour::StallAfter(600), &dall_e_3()).await;
    assert_eq!(seen.status, 504, "{seen:?}");
    app.finish().await;
}

/// A slow answer is not a silent one.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_arrives() {
    let app = App::builder()
        .await
        .set("providers.openai.idle_timeout", "500ms")
        .start()
        .await;
    let key = app.live_key("1");
    let picture = crate::support::pictures::paint("png", 256, 256, 10, false).len();
    // About twenty pieces, 50 ms apart: longer than the idle timeout in all.
    app.openai.next(Behaviour::Drip(
        picture * 4 / 3 / 20 + 1,
        Duration::from_millis(50),
    ));
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "response_format": "b64_json"});
    let answer = app.generate(&key, &request).await.expect(200);
    assert_eq!(
        crate::support::pictures::measure(&answer.picture(0)).width,
        256
    );
    app.finish().await;
}

/// Nothing a provider sends makes the gateway take more than it is allowed to (I9).
#[tokio::test(flavor = "multi_thread")]
async fn a_picture_beyond_all_measure_is_not_taken() {
    let app = App::builder()
        .await
        .set("images.max_size", "1 MiB")
        .start()
        .await;
    let key = app.live_key("1");
    let seen_error = fails(&app, &key, Behaviour::Huge(8 * 1024 * 1024), &dall_e_3()).await;
    assert_eq!(seen_error, seen(502, "upstream_error", Some("false")));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_there() {
    // A port on which nobody listens: it was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let app = App::builder()
        .await
        .set("providers.openai.base_url", format!("http://{free}/v1"))
        .with_other_upstreams()
        .start()
        .await;
    let key = app.live_key("1");
    let answer = app.generate(&key, &dall_e_3()).await.expect(502);
    assert_eq!(answer.problem().code(), "upstream_error");
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(app.balance(&key).await, json!(1));
    let unmarked = app
        .database
        .number("select count(*) from attempts where not maybe_charged")
        .await;
    assert_eq!(unmarked, 1, "nothing was sent, so nothing can be charged");
    app.finish().await;
}

/// Whatever happened, the generation can be looked up and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_generation_says_why() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    let answer = app.generate(&key, &dall_e_3()).await.expect(502);
    let id = match answer.find_header("x-generation-id") {
        Some(id) => id.to_owned(),
        None => app
            .database
            .texts("select id from generations")
            .await
            .remove(0),
    };
    let state = app
        .get(&key, &format!("/v1/images/generations/{id}"))
        .await
        .expect(200)
        .json();
    assert_eq!(state["id"], id);
    assert_eq!(state["status"], "failed");
    assert_eq!(state["cost"], json!(0));
    assert_eq!(state["error"]["code"], "upstream_error");
    app.finish().await;
}
