//! Stability, through a real socket against a strict fake: every model, several pictures, refusals in both
//! of its ways, and everything that can go wrong; each charged to the nano-USD, with nothing held after it.
//!
//! Prices and fields are those of `contracts/stability.md`, not of Easel's catalog.

mod edits;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, App, Client, Key, Secrets,
    fake_stability::{API_KEY, BROKE_KEY, Behaviour, Call, FakeStability, Reply},
    pictures::measure,
    usd,
};

const PROMPT: &str = "the organ builder listens to the wind";
const LARGE: &str = "stability/stable-diffusion-3-large";
/// sd3.5-large: 6.5 credits of 0.01 USD.
const LARGE_NANO: i64 = 65_000_000;

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

struct Studio {
    app: App,
    stability: FakeStability,
    key: Key,
    /// Requests that the fake was meant to refuse.
    meant: usize,
}

impl Studio {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        Self::with_models(settings, "").await
    }

    /// With models of its own besides.
    async fn with_models(settings: &[(&str, &str)], models: &str) -> Self {
        let stability = FakeStability::start().await;
        let mut builder = App::builder()
            .await
            .models(models)
            .set("providers.stability.base_url", stability.base_url())
            .set("providers.stability.api_key", API_KEY);
        for (key, value) in settings {
            builder = builder.set(key, *value);
        }
        let app = builder.start().await;
        app.keep_secret(API_KEY, "Stability's key");
        app.keep_secret(BROKE_KEY, "Stability's other key");
        let key = app.live_key("2");
        Self {
            app,
            stability,
            key,
            meant: 0,
        }
    }

    /// Generates; the answer, the balance and the books name the same amount.
    async fn paint(&self, request: &Value, expected_nano: i64) -> Value {
        let before = self.app.balance(&self.key).await;
        let answer = self.app.generate(&self.key, request).await.expect(200);
        self.prove_charge(&before, &answer, expected_nano).await;
        answer.json()
    }

    /// The answer, the balance and the books name the same amount.
    async fn prove_charge(&self, before: &Value, answer: &Answer, expected_nano: i64) {
        let body = answer.json();
        assert_eq!(body["usage"]["cost"], usd(expected_nano), "{body}");
        let id = answer.header("x-generation-id").to_owned();
        for (what, sql) in [
            ("the capture", "select captured_nano_usd from holds where"),
            (
                "the charge",
                "select -sum(amount_nano_usd)::bigint from ledger_entries where",
            ),
            (
                "the pictures",
                "select sum(cost_nano_usd)::bigint from images where",
            ),
        ] {
            let sql = format!("{sql} generation_id = '{id}'");
            let booked = self.app.database.number(&sql).await;
            assert_eq!(booked, expected_nano, "{what}: {body}");
        }
        let after = self.app.balance(&self.key).await;
        let spent = before.as_f64().unwrap() - after.as_f64().unwrap();
        let expected = usd(expected_nano).as_f64().unwrap();
        assert!((spent - expected).abs() < 1e-9, "{before} - {after}");
    }

    /// One call that ends so: what the caller sees is `STATUS CODE TYPE`; nothing is charged or held.
    async fn fails(&self, behaviour: Behaviour) -> String {
        let described = format!("{behaviour:?}");
        let calls = self.stability.calls().len();
        let before = self.app.balance(&self.key).await;
        self.stability.next(behaviour);
        let answer = self.app.generate(&self.key, &one()).await;
        assert_eq!(self.app.balance(&self.key).await, before, "{described}");
        assert_eq!(self.stability.calls().len(), calls + 1, "{described}");
        let problem = answer.problem();
        for leak in ["purchase", "platform.stability.ai", "cloudflare", PROMPT] {
            assert!(!problem.message.contains(leak), "{leak}: {problem:?}");
        }
        let seen = format!("{} {} {}", answer.status, problem.code(), problem.kind);
        match answer.find_header("retry-after") {
            Some(seconds) => format!("{seen} after {seconds}"),
            None => seen,
        }
    }

    /// How the last attempt stands in the books: `ERROR maybe_charged`.
    async fn last_attempt(&self) -> String {
        let sql = "select concat_ws(' ', error, upstream_status, maybe_charged) from attempts \
                   where provider = 'stability' order by started_at desc limit 1";
        self.app.database.texts(sql).await.remove(0)
    }

    async fn finish(self) {
        let calls = self.stability.calls();
        let refused: Vec<&Call> = calls.iter().filter(|call| call.refused.is_some()).collect();
        assert_eq!(refused.len(), self.meant, "refused: {refused:#?}");
        let sql = "select count(*) from attempts where provider = 'stability'";
        let attempts = self.app.database.number(sql).await;
        assert_eq!(usize::try_from(attempts).unwrap(), calls.len());
        self.app.finish().await;
    }
}

fn one() -> Value {
    json!({"model": LARGE, "prompt": PROMPT})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_paints_at_its_price() {
    let studio = Studio::start().await;
    for (model, endpoint, upstream, nano, size) in [
        ("stable-image-ultra", "ultra", None, 80_000_000, 1024),
        ("stable-image-core", "core", None, 30_000_000, 1280),
        (
            "stable-diffusion-3.5-large",
            "sd3",
            Some("sd3.5-large"),
            LARGE_NANO,
            1024,
        ),
        (
            "stable-diffusion-3.5-large-turbo",
            "sd3",
            Some("sd3.5-large-turbo"),
            40_000_000,
            1024,
        ),
        (
            "stable-diffusion-3.5-medium",
            "sd3",
            Some("sd3.5-medium"),
            35_000_000,
            1024,
        ),
        (
            "stable-diffusion-3.5-flash",
            "sd3",
            Some("sd3.5-flash"),
            25_000_000,
            1024,
        ),
        // Retired names; 3.5 serves them, and is what is asked for.
        (
            "stable-diffusion-3-large",
            "sd3",
            Some("sd3.5-large"),
            LARGE_NANO,
            1024,
        ),
        (
            "stable-diffusion-3-large-turbo",
            "sd3",
            Some("sd3.5-large-turbo"),
            40_000_000,
            1024,
        ),
        (
            "stable-diffusion-3-medium",
            "sd3",
            Some("sd3.5-medium"),
            35_000_000,
            1024,
        ),
    ] {
        for name in [format!("stability/{model}"), model.to_owned()] {
            let request = json!({"model": name, "prompt": PROMPT, "size": "1024x1024"});
            let body = studio.paint(&request, nano).await;
            assert_eq!(body["model"], format!("stability/{model}"));
            assert_eq!(body["provider"], "stability");
            let link = body["data"][0]["url"].as_str().unwrap();
            let picture = studio.app.open_link(link).await.expect(200).bytes;
            let measured = measure(&picture);
            assert_eq!((measured.width, measured.height), (size, size), "{model}");
            let call = studio.stability.last_call();
            assert_eq!(call.endpoint, endpoint, "{model}");
            assert_eq!(call.fields.get("model").map(String::as_str), upstream);
        }
    }
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_become_fields() {
    let studio = Studio::start().await;
    for (size, ratio) in [
        ("1536x1024", "3:2"),
        ("1024x1536", "2:3"),
        ("1792x1024", "16:9"),
        ("1024x1792", "9:16"),
        ("1280x1024", "5:4"),
        ("1024x1280", "4:5"),
        ("1680x720", "21:9"),
        ("720x1680", "9:21"),
    ] {
        let request = json!({
            "model": "sd3.5-flash", "prompt": PROMPT, "size": size, "response_format": "b64_json",
            "output_format": "webp", "quality": "standard", "user": "reader@example.com",
        });
        let body = studio.paint(&request, 25_000_000).await;
        assert_eq!(body["output_format"], "webp");
        let call = studio.stability.last_call();
        let fields = serde_json::to_value(&call.fields).unwrap();
        let expected = json!({
            "model": "sd3.5-flash", "prompt": PROMPT, "aspect_ratio": ratio, "output_format": "webp",
        });
        assert_eq!(fields, expected, "{size}");
        let end_user = call.headers["stability-client-user-id"].to_str().unwrap();
        assert!(
            end_user.len() > 20 && !end_user.contains("reader"),
            "{end_user}"
        );
    }
    // "auto" leaves the ratio to Stability.
    let request = json!({"model": "sd3.5-flash", "prompt": PROMPT, "size": "auto"});
    studio.paint(&request, 25_000_000).await;
    assert!(
        !studio
            .stability
            .last_call()
            .fields
            .contains_key("aspect_ratio")
    );
    // A prompt cannot add fields of its own.
    let nasty = "a\r\n--easel-form-boundary-00000000\r\ncontent-disposition: form-data; \
                 name=\"seed\"\r\n\r\n7";
    let request = json!({"model": "sd3.5-flash", "prompt": nasty});
    studio.paint(&request, 25_000_000).await;
    assert_eq!(studio.stability.last_call().fields["prompt"], nasty);
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_stability_knows_goes_through() {
    let studio = Studio::start().await;
    let request = json!({
        "model": "sd3.5-medium", "prompt": PROMPT, "n": 3, "seed": 4_294_967_293_u32,
        "negative_prompt": "fog", "style_preset": "line-art", "cfg_scale": 4.5,
        "aspect_ratio": "21:9",
    });
    studio.paint(&request, 3 * 35_000_000).await;
    let mut calls = studio.stability.calls();
    calls.sort_by(|one, other| one.fields["seed"].cmp(&other.fields["seed"]));
    for (call, seed) in calls.iter().zip(["1", "4294967293", "4294967294"]) {
        let expected = json!({
            "model": "sd3.5-medium", "prompt": PROMPT, "seed": seed, "negative_prompt": "fog",
            "style_preset": "line-art", "cfg_scale": "4.5", "aspect_ratio": "21:9",
        });
        assert_eq!(serde_json::to_value(&call.fields).unwrap(), expected);
    }
    // A shape has no size to say; the answer's is that of the picture.
    let request =
        json!({"model": "stable-image-core", "prompt": PROMPT, "size": "9:21", "seed": 0});
    let body = studio.paint(&request, 30_000_000).await;
    assert_eq!(body["size"], "800x1920");
    let fields = studio.stability.last_call().fields;
    assert_eq!(fields["aspect_ratio"], "9:21");
    assert!(!fields.contains_key("seed"), "0 means a random one");

    let calls = studio.stability.calls().len();
    for (name, value) in [
        ("seed", json!(-1)),
        ("seed", json!(4_294_967_295_u32)),
        ("seed", json!("7")),
        ("cfg_scale", json!(0.5)),
        ("cfg_scale", json!(10.5)),
        ("cfg_scale", json!("4")),
        ("style_preset", json!("vivid")),
        ("aspect_ratio", json!("4:3")),
        ("negative_prompt", json!("x".repeat(10_001))),
    ] {
        let mut request = one();
        request[name] = value;
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), name, "{problem:?}");
    }
    let request = json!({"model": "stable-image-core", "prompt": PROMPT, "cfg_scale": 4});
    let problem = studio.app.refuse(&studio.key, 400, &request).await;
    assert_eq!(problem.param(), "cfg_scale");
    assert_eq!(studio.stability.calls().len(), calls);
    studio.finish().await;
}

/// What Stability has no word for is refused before anybody is called.
#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_do_is_refused_by_name() {
    let studio = Studio::start().await;
    let ratios = [
        "21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21",
    ];
    for size in [
        "256x256",
        "512x512",
        "1024x768",
        "1000x1050",
        "4096x1024",
        "21x10",
    ] {
        let request = json!({"model": LARGE, "prompt": PROMPT, "size": size});
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), "size", "{size}");
        for ratio in ratios {
            assert!(problem.message.contains(ratio), "{ratio}: {problem:?}");
        }
    }
    for (name, value) in [
        ("quality", json!("low")),
        ("quality", json!("high")),
        ("quality", json!("hd")),
        ("style", json!("vivid")),
        ("background", json!("transparent")),
        ("moderation", json!("low")),
        ("output_format", json!("gif")),
        ("output_compression", json!(50)),
        ("partial_images", json!(4)),
        ("n", json!(11)),
        ("prompt", json!("x".repeat(10_001))),
    ] {
        let mut request = one();
        request[name] = value;
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), name, "{problem:?}");
    }
    assert!(studio.stability.calls().is_empty());
    studio.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_are_several_calls() {
    let studio = Studio::start().await;
    for (n, format) in [(10, "url"), (4, "b64_json")] {
        let request = json!({
            "model": LARGE, "prompt": format!("{PROMPT} SLOW"), "n": n, "response_format": format,
        });
        let body = studio.paint(&request, n * LARGE_NANO).await;
        let data = body["data"].as_array().unwrap();
        assert_eq!(i64::try_from(data.len()).unwrap(), n);
        let different: BTreeSet<String> = data.iter().map(Value::to_string).collect();
        assert_eq!(different.len(), data.len(), "each is another picture");
    }
    assert_eq!(studio.stability.calls().len(), 14);
    assert_eq!(
        studio.stability.most_in_flight(),
        4,
        "at the same time, bounded"
    );
    studio.finish().await;
}

/// Asked 4: what arrived is charged and returned, and the answer says what became of the rest.
#[tokio::test(flavor = "multi_thread")]
async fn some_of_several_pictures_arrive() {
    let studio = Studio::start().await;
    let blurred = || Behaviour::FinishReason(Some("CONTENT_FILTERED"));
    let refused = "moderation_blocked";
    for (behaviours, codes) in [
        (vec![blurred()], vec![refused]),
        (
            vec![Behaviour::Reply(Reply::content_moderation()), blurred()],
            vec![refused; 2],
        ),
        (vec![Behaviour::CutAfter(500)], vec!["upstream_error"]),
        (vec![Behaviour::HalfAPicture], vec!["upstream_error"]),
        (
            vec![
                blurred(),
                blurred(),
                Behaviour::Reply(Reply::internal_error()),
            ],
            vec![refused, refused, "upstream_error"],
        ),
    ] {
        let arriving = 4 - behaviours.len();
        for behaviour in behaviours {
            studio.stability.next(behaviour);
        }
        let request = json!({"model": LARGE, "prompt": PROMPT, "n": 4});
        let nano = i64::try_from(arriving).unwrap() * LARGE_NANO;
        let body = studio.paint(&request, nano).await;
        assert_eq!(body["data"].as_array().unwrap().len(), arriving);
        let failed = body["failed"].as_array().unwrap().iter();
        let mut seen: Vec<&str> = failed.map(|each| each["code"].as_str().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, codes);
    }
    studio.finish().await;
}

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

/// The fake refuses what the contract says is refused, or the tests above would prove little.
#[tokio::test(flavor = "multi_thread")]
async fn the_fake_is_strict() {
    let fake = FakeStability::start().await;
    let client = Client::new(fake.base_url(), Arc::new(Secrets::default()));
    let form = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .fold(reqwest::multipart::Form::new(), |form, (name, value)| {
                form.text((*name).to_owned(), (*value).to_owned())
            })
    };
    let post = async |endpoint: &str, pairs: &[(&str, &str)]| {
        let path = format!("/v2beta/stable-image/generate/{endpoint}");
        let request = client.request(Method::POST, &path).bearer_auth(API_KEY);
        let request = request.header("accept", "image/*");
        client.send(request.multipart(form(pairs))).await
    };
    let answer = post("core", &[("prompt", "a hill")]).await.expect(200);
    assert_eq!(answer.header("finish-reason"), "SUCCESS");
    for (endpoint, pairs, status, says) in [
        ("ultra", &[("seed", "7")][..], 400, "prompt: is required"),
        (
            "ultra",
            &[("prompt", "a"), ("n", "2")],
            400,
            "n: is not a field",
        ),
        (
            "core",
            &[("prompt", "a"), ("model", "sd3.5-large")],
            400,
            "model: is not a field",
        ),
        (
            "sd3",
            &[("prompt", "a"), ("model", "sd3")],
            400,
            "model: must be one of",
        ),
        (
            "sd3",
            &[("prompt", "a"), ("aspect_ratio", "4:3")],
            400,
            "aspect_ratio: must be",
        ),
        (
            "sd3",
            &[("prompt", "a"), ("prompt", "b")],
            400,
            "prompt: is given twice",
        ),
        ("sd3", &[("prompt", "ä")], 422, "invalid_language"),
        ("sd3.5-flash", &[("prompt", "a")], 404, "not_found"),
        (
            "ultra",
            &[("prompt", "a MODERATE b")],
            403,
            "content_moderation",
        ),
        ("ultra", &[("prompt", "a BOOM b")], 500, "internal_error"),
        (
            "ultra",
            &[("prompt", "a RATE b")],
            429,
            "rate_limit_exceeded",
        ),
        ("core", &[("prompt", "a hill")], 429, "timed out for 60"),
    ] {
        let answer = post(endpoint, pairs).await.expect(status);
        let text = String::from_utf8_lossy(&answer.bytes);
        assert!(text.contains(says), "{says}: {text}");
    }
    fake.let_a_minute_pass();
    post("core", &[("prompt", "a hill")]).await.expect(200);
    for (field, value) in [
        ("seed", "4294967295"),
        ("style_preset", "vivid"),
        ("cfg_scale", "0.9"),
        ("mode", "image-to-picture"),
        ("strength", "0.5"),
        ("output_format", "gif"),
        ("negative_prompt", &"x".repeat(10_001)),
    ] {
        let answer = post("sd3", &[("prompt", "a"), (field, value)]).await;
        let text = String::from_utf8_lossy(&answer.expect(400).bytes).into_owned();
        assert!(text.contains(&format!("\"{field}: ")), "{text}");
    }
    let path = "/v2beta/stable-image/generate/core";
    let body = json!({"prompt": "a hill"});
    let answer = client
        .post_json(path, Some(API_KEY), &body)
        .await
        .expect(400);
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(text.contains("must be multipart/form-data"), "{text}");
    // The key is looked at before the path.
    client.post_json("/", None, &body).await.expect(401);
}
