//! What goes wrong at Stability: its own failures, locked accounts, answers of no use, silence.

use std::time::Duration;

use serde_json::json;

use super::{LARGE, LARGE_NANO, PROMPT, Studio, one};
use crate::support::fake_stability::{API_KEY, BROKE_KEY, Behaviour, FakeStability, Reply};

/// A model that two accounts serve.
const TWO_ACCOUNTS: &str = r#"
[[model]]
id = "test/KIND"
name = "KIND"
created = 1795132800
owned_by = "test"
status = "active"

[model.rules]
prompt = { max_chars = 1000 }
n = { min = 1, max = 4, default = 1 }
size = { values = ["auto"], default = "auto" }
response_format = { values = ["url", "b64_json"], default = "url" }

[[model.routes]]
provider = "stability"
upstream_model = "KIND"
translation = { size = { table = [] } }
price = { per_image = [{ price = "0.05" }] }

[[model.routes]]
provider = "second"
upstream_model = "KIND"
translation = { size = { table = [] } }
price = { per_image = [{ price = "0.05" }] }
"#;

/// Each in an Easel of its own: a provider that fails so may be left alone for a while.
#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_provider() {
    let html = "<html><center>502 Bad Gateway</center><center>cloudflare</center></html>";
    for (behaviour, seen, attempt) in [
        (
            Reply::unauthorized(),
            "502 upstream_error upstream_error",
            "auth 401 f",
        ),
        (
            Reply::payment_required(),
            "502 upstream_error upstream_error",
            "quota_exhausted 402 f",
        ),
        (
            Reply::not_found(),
            "502 upstream_error upstream_error",
            "model_unavailable 404 f",
        ),
        (
            Reply::rate_limited(),
            "429 upstream_rate_limited rate_limit_error after 60",
            "rate_limited 429 f",
        ),
        (
            Reply::rate_limited().with_header("retry-after", "7"),
            "429 upstream_rate_limited rate_limit_error after 7",
            "rate_limited 429 f",
        ),
        (
            Reply::internal_error(),
            "502 upstream_error upstream_error",
            "overloaded 500 f",
        ),
        (
            Reply::raw(502, "text/html", html),
            "502 upstream_error upstream_error",
            "overloaded 502 t",
        ),
        (
            Reply::raw(503, "text/plain", ""),
            "502 upstream_error upstream_error",
            "overloaded 503 f",
        ),
        (
            Reply::raw(200, "text/html", html),
            "502 upstream_error upstream_error",
            "malformed 200 t",
        ),
        (
            Reply::raw(200, "image/png", ""),
            "502 upstream_error upstream_error",
            "malformed 200 t",
        ),
    ] {
        let studio = Studio::start().await;
        let described = format!("{behaviour:?}");
        assert_eq!(
            studio.fails(Behaviour::Reply(behaviour)).await,
            seen,
            "{described}"
        );
        assert_eq!(studio.last_attempt().await, attempt, "{described}");
        studio.finish().await;
    }
}

/// Two accounts; the first is locked out, and that holds for all of its models, for as long as it says.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_out_account_rests_and_another_serves() {
    let second = FakeStability::start().await;
    let models = ["ultra", "core"].map(|kind| TWO_ACCOUNTS.replace("KIND", kind));
    let second_url = second.base_url();
    let settings = [
        ("providers.second.adapter", "stability"),
        ("providers.second.base_url", second_url.as_str()),
        ("providers.second.api_key", API_KEY),
    ];
    let served_by = async |studio: &Studio, kind: &str| {
        let request = json!({"model": format!("test/{kind}"), "prompt": PROMPT});
        let body = studio.paint(&request, 50_000_000).await;
        body["provider"].as_str().unwrap().to_owned()
    };
    // Without a header it is a minute.
    let studio = Studio::with_models(&settings, &models.concat()).await;
    assert_eq!(served_by(&studio, "ultra").await, "stability");
    studio.stability.lock_out();
    for kind in ["ultra", "core", "ultra", "core"] {
        assert_eq!(served_by(&studio, kind).await, "second", "{kind}");
    }
    assert_eq!(studio.stability.calls().len(), 2, "left alone");
    studio.finish().await;

    let studio = Studio::with_models(&settings, &models.concat()).await;
    studio.stability.next(Behaviour::Reply(
        Reply::rate_limited().with_header("retry-after", "1"),
    ));
    assert_eq!(served_by(&studio, "ultra").await, "second");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(served_by(&studio, "core").await, "stability", "it is over");
    assert_eq!(served_by(&studio, "ultra").await, "stability");
    studio.finish().await;
}

/// Ten are asked for, four calls run at once: the other six would meet the same closed door.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_door_is_not_knocked_at_ten_times() {
    for (status, replies) in [
        (429, Reply::rate_limited()),
        (502, Reply::payment_required()),
        (502, Reply::unauthorized()),
    ] {
        let studio = Studio::start().await;
        for _ in 0..10 {
            studio.stability.next(Behaviour::Reply(replies.clone()));
        }
        let request = json!({"model": LARGE, "prompt": PROMPT, "n": 10});
        studio.app.refuse(&studio.key, status, &request).await;
        let calls = studio.stability.calls().len();
        assert!((1..=4).contains(&calls), "{calls} calls: {replies:?}");
        studio.finish().await;
    }
    // What arrived by then is charged and returned.
    let studio = Studio::start().await;
    for _ in 0..4 {
        studio.stability.next(Behaviour::Answer);
    }
    studio
        .stability
        .next(Behaviour::Reply(Reply::rate_limited()));
    let request = json!({"model": LARGE, "prompt": PROMPT, "n": 10});
    let before = studio.app.balance(&studio.key).await;
    let answer = studio.app.generate(&studio.key, &request).await.expect(200);
    let body = answer.json();
    let arrived = body["data"].as_array().unwrap().len();
    let failed = body["failed"].as_array().unwrap();
    assert_eq!(arrived + failed.len(), 10, "{body}");
    assert!((4..=8).contains(&arrived), "{arrived} arrived");
    for each in failed {
        assert_eq!(each["code"], "upstream_rate_limited");
    }
    let nano = i64::try_from(arrived).unwrap() * LARGE_NANO;
    studio.prove_charge(&before, &answer, nano).await;
    studio.finish().await;
}

/// A key that Stability does not take, and one whose account is empty, judged by the fake itself.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_pay() {
    for (key, attempt) in [
        ("sk-nobody-knows-this-one-0123456789", "auth 401 f"),
        (BROKE_KEY, "quota_exhausted 402 f"),
    ] {
        let mut studio = Studio::with(&[("providers.stability.api_key", key)]).await;
        let problem = studio.app.refuse(&studio.key, 502, &one()).await;
        assert_eq!(problem.code(), "upstream_error");
        assert_eq!(studio.last_attempt().await, attempt);
        studio.meant = 1;
        studio.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_cannot_be_used() {
    for behaviour in [
        Behaviour::FinishReason(None),
        Behaviour::FinishReason(Some("ERROR")),
        Behaviour::HalfAPicture,
        Behaviour::CutAfter(500),
        Behaviour::CutAfter(0),
        Behaviour::Json,
        Behaviour::Reply(
            Reply::raw(200, "image/png", "this is no picture, only a sentence")
                .with_header("finish-reason", "SUCCESS"),
        ),
    ] {
        let studio = Studio::start().await;
        let described = format!("{behaviour:?}");
        let seen = studio.fails(behaviour).await;
        assert_eq!(seen, "502 upstream_error upstream_error", "{described}");
        let attempt = studio.last_attempt().await;
        assert!(
            attempt.ends_with(" t"),
            "it may be charged: {attempt} {described}"
        );
        studio.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_beyond_all_measure_is_not_taken() {
    let studio = Studio::with(&[("images.max_size", "1 MiB")]).await;
    let seen = studio.fails(Behaviour::Huge(8 * 1024 * 1024)).await;
    assert_eq!(seen, "502 upstream_error upstream_error");
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_given_up_after_sending() {
    // Where a head came, the books have its status.
    for (behaviour, setting, attempt) in [
        (
            Behaviour::Never,
            ("providers.stability.timeout", "700ms"),
            "timeout_after_sending t",
        ),
        (
            Behaviour::StallAfter(300),
            ("providers.stability.timeout", "700ms"),
            "timeout_after_sending 200 t",
        ),
        (
            Behaviour::StallAfter(300),
            ("providers.stability.idle_timeout", "500ms"),
            "timeout_after_sending 200 t",
        ),
    ] {
        let studio = Studio::with(&[setting]).await;
        let seen = studio.fails(behaviour).await;
        assert_eq!(seen, "504 upstream_timeout upstream_error");
        assert_eq!(studio.last_attempt().await, attempt);
        studio.finish().await;
    }
}

/// Nothing went out, so nothing can be charged.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_cannot_be_charged() {
    // Accepts connections and never says a word of TLS; then a port on which nobody listens.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute_url = format!("https://{}", mute.local_addr().unwrap());
    let free_url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    for (base_url, status, attempt) in
        [(mute_url, 504, "timeout f"), (free_url, 502, "transport f")]
    {
        let studio = Studio::with(&[
            ("providers.stability.base_url", &base_url),
            ("providers.stability.connect_timeout", "300ms"),
        ])
        .await;
        studio.app.refuse(&studio.key, status, &one()).await;
        assert_eq!(studio.last_attempt().await, attempt, "{base_url}");
        studio.app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_arrives_and_unknown_headers_do_no_harm() {
    let studio = Studio::with(&[("providers.stability.idle_timeout", "500ms")]).await;
    // Longer than the idle timeout in all.
    for behaviour in [
        Behaviour::Drip(20, Duration::from_millis(50)),
        Behaviour::UnknownHeaders,
    ] {
        studio.stability.next(behaviour);
        let request = json!({"model": LARGE, "prompt": PROMPT, "response_format": "b64_json"});
        studio.paint(&request, LARGE_NANO).await;
    }
    studio.finish().await;
}
