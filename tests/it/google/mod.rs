//! Google's models, through the Gemini API and through Vertex, against the strict fake: what is painted,
//! refused and charged, and what goes wrong on the way.
//!
//! The expected amounts are computed here from `contracts/google-imagen.md`, section 5, in whole nano-USD,
//! not taken from Easel's catalog.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    App, Key,
    fake_google::{
        API_KEY, Behaviour, FakeGoogle, PROJECT, REVISED_PROMPT, Reply, Shape, THOUGHT_TOKENS,
        input_tokens,
    },
    pictures::measure,
    usd,
};

const PROMPT: &str = "the lighthouse keeper's evening round";

/// Which ways in are configured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doors {
    Gemini,
    Vertex,
    Both,
}

/// An Easel in front of the fake.
struct Google {
    app: App,
    fake: FakeGoogle,
    key: Key,
    /// Calls that were answered 401 and made again within their attempt.
    repeated: usize,
}

impl Google {
    async fn start(doors: Doors) -> Self {
        Self::start_with(doors, &[]).await
    }

    /// With further settings of the provider.
    async fn start_with(doors: Doors, settings: &[(&str, &str)]) -> Self {
        let fake = FakeGoogle::legacy().await;
        let mut builder = App::builder().await;
        let key_file = fake.key_file(builder.directory());
        if doors != Doors::Vertex {
            builder = builder
                .set("providers.google.base_url", fake.base_url())
                .set("providers.google.api_key", API_KEY);
        }
        if doors != Doors::Gemini {
            builder = builder
                .set("providers.vertex.base_url", fake.vertex_base_url())
                .set("providers.vertex.location", "us-central1")
                .set(
                    "providers.vertex.credentials_file",
                    key_file.to_str().unwrap(),
                );
        }
        for (name, value) in settings {
            let provider = if doors == Doors::Vertex {
                "vertex"
            } else {
                "google"
            };
            builder = builder.set(&format!("providers.{provider}.{name}"), *value);
        }
        let app = builder.start().await;
        app.keep_secret(API_KEY, "Google's key");
        app.keep_secret("ya29.fake-access-token", "an access token");
        app.keep_secret(
            FakeGoogle::private_key().lines().nth(3).unwrap(),
            "the service account's key",
        );
        let key = app.live_key("20");
        Self {
            app,
            fake,
            key,
            repeated: 0,
        }
    }

    /// Generates, and proves that the answer, the balance and the books name the same amount.
    async fn paints(&self, request: &Value, expected_nano: i64) -> Value {
        let before = self.app.balance(&self.key).await;
        let answer = self.app.generate(&self.key, request).await.expect(200);
        let body = answer.json();
        assert_eq!(body["usage"]["cost"], usd(expected_nano), "{request}");
        let id = answer.header("x-generation-id").to_owned();
        for (what, query) in [
            ("captured", "select captured_nano_usd from holds"),
            (
                "charged",
                "select -sum(amount_nano_usd)::bigint from ledger_entries",
            ),
            (
                "of the pictures",
                "select sum(cost_nano_usd)::bigint from images",
            ),
        ] {
            let query = format!("{query} where generation_id = '{id}'");
            let amount = self.app.database.number(&query).await;
            assert_eq!(amount, expected_nano, "{what}: {request}");
        }
        let held = self
            .app
            .database
            .number(&format!(
                "select amount_nano_usd from holds where generation_id = '{id}'"
            ))
            .await;
        assert!(expected_nano <= held, "{expected_nano} of {held}");
        let after = self.app.balance(&self.key).await;
        let difference = before.as_f64().unwrap() - after.as_f64().unwrap();
        let expected = usd(expected_nano).as_f64().unwrap();
        assert!((difference - expected).abs() < 1e-9, "{before} - {after}");
        body
    }

    /// Fails with this status and code after one call; nothing is charged, nothing held, nothing told.
    async fn fails(&self, behaviour: Behaviour, request: &Value, status: u16, code: &str) -> Value {
        let described = format!("{behaviour:?}");
        let calls = self.fake.calls().len();
        let before = self.app.balance(&self.key).await;
        self.fake.next(behaviour);
        let answer = self.app.generate(&self.key, request).await;
        let problem = answer.problem();
        assert_eq!(
            (answer.status, problem.code()),
            (status, code),
            "{described}: {problem:?}"
        );
        assert_eq!(self.app.balance(&self.key).await, before, "{described}");
        assert_eq!(self.fake.calls().len(), calls + 1, "{described}");
        for leak in [PROJECT, API_KEY, "googleapis.com", PROMPT] {
            assert!(!problem.message.contains(leak), "{leak}: {problem:?}");
        }
        json!({
            "message": problem.message,
            "type": problem.kind,
            "retry_after": answer.find_header("retry-after"),
        })
    }

    /// How many attempts are marked as perhaps charged.
    async fn marked(&self) -> i64 {
        self.app
            .database
            .number("select count(*) from attempts where maybe_charged")
            .await
    }

    /// What must hold after every test: the fake refused nothing, and the books know every call.
    async fn finish(self) {
        let calls = self.fake.calls();
        let refused: Vec<_> = calls
            .iter()
            .filter(|call| call.refused.is_some())
            .skip(self.repeated)
            .collect();
        assert!(
            refused.is_empty(),
            "requests that Google refuses: {refused:#?}"
        );
        let attempts = self
            .app
            .database
            .number("select count(*) from attempts where provider in ('google', 'vertex')")
            .await;
        assert_eq!(
            usize::try_from(attempts).unwrap(),
            calls.len() - self.repeated,
            "attempts in the books, calls at the fake"
        );
        self.app.finish().await;
    }
}

fn banana() -> Value {
    json!({"model": "gemini-nano-banana-2.1", "prompt": PROMPT, "size": "1024x1024", "response_format": "b64_json"})
}

fn imagen(n: usize) -> Value {
    json!({"model": "imagen-3", "prompt": PROMPT, "n": n, "response_format": "b64_json"})
}

/// What a picture of Gemini costs; rates in nano-USD per token.
fn gemini_cost(text_in: i64, text_out: i64, image_out: i64, image_tokens: i64) -> i64 {
    let prompt = i64::try_from(input_tokens(PROMPT)).unwrap();
    let thoughts = i64::try_from(THOUGHT_TOKENS).unwrap();
    prompt * text_in + thoughts * text_out + image_tokens * image_out
}

fn banana_cost() -> i64 {
    gemini_cost(1_500, 7_500, 30_000, 1120)
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_paints_every_size_at_the_price_of_its_tokens() {
    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start(doors).await;
        for (model, size, (width, height), cost) in [
            (
                "gemini-nano-banana-2.1",
                "1024x1024",
                (1024, 1024),
                banana_cost(),
            ),
            ("nano-banana-2.1", "auto", (1024, 1024), banana_cost()),
            (
                "google/gemini-nano-banana-2.1",
                "1536x1024",
                (1264, 848),
                banana_cost(),
            ),
            (
                "gemini-nano-banana-2.1",
                "384x3072",
                (384, 3072),
                banana_cost(),
            ),
            (
                "gemini-nano-banana-2.1",
                "2752x1536",
                (2752, 1536),
                gemini_cost(1_500, 7_500, 30_000, 1680),
            ),
            (
                "gemini-3-pro-image",
                "1024x1792",
                (768, 1376),
                gemini_cost(2_000, 12_000, 120_000, 1120),
            ),
            (
                "gemini-3.1-flash-image",
                "512x512",
                (512, 512),
                gemini_cost(500, 3_000, 60_000, 747),
            ),
            (
                "gemini-3.1-flash-lite-image",
                "896x1200",
                (896, 1200),
                gemini_cost(250, 1_500, 30_000, 1120),
            ),
            (
                "gemini-2.5-flash-image",
                "1024x1024",
                (1024, 1024),
                gemini_cost(300, 2_500, 30_000, 1290),
            ),
        ] {
            let request = json!({"model": model, "prompt": PROMPT, "size": size, "quality": "standard", "user": "u-1"});
            let body = google.paints(&request, cost).await;
            let link = body["data"][0]["url"].as_str().unwrap();
            let picture = google.app.open_link(link).await.expect(200);
            let found = measure(&picture.bytes);
            assert_eq!(
                (found.format, found.width, found.height),
                ("jpeg", width, height),
                "{model} {size}"
            );
            let provider = if doors == Doors::Gemini {
                "google"
            } else {
                "vertex"
            };
            assert_eq!(body["provider"], provider);
            assert!(body["data"][0]["revised_prompt"].is_null());
            let thoughts = i64::try_from(THOUGHT_TOKENS).unwrap();
            assert!(body["usage"]["output_tokens"].as_i64().unwrap() > thoughts);
        }
        google.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imagen_paints_at_the_price_of_a_picture() {
    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start(doors).await;
        for (model, size, n, (width, height), each) in [
            ("imagen-3", None, 1, (1024, 1024), 40_000_000),
            ("imagen-3", Some("896x1280"), 2, (896, 1280), 40_000_000),
            ("imagen-4", Some("1408x768"), 4, (1408, 768), 40_000_000),
            ("imagen-4", Some("2048x2048"), 1, (2048, 2048), 40_000_000),
            (
                "imagen-4-ultra",
                Some("1792x1024"),
                1,
                (1408, 768),
                60_000_000,
            ),
            (
                "imagen-4-fast",
                Some("1024x1792"),
                1,
                (768, 1408),
                20_000_000,
            ),
        ] {
            let mut request = json!({"model": model, "prompt": PROMPT, "n": n, "quality": "standard", "response_format": "b64_json", "output_format": "jpeg", "output_compression": 70});
            if let Some(size) = size {
                request["size"] = json!(size);
            }
            let body = google.paints(&request, i64::from(n) * each).await;
            let data = body["data"].as_array().unwrap();
            assert_eq!(data.len(), usize::try_from(n).unwrap());
            for item in data {
                assert_eq!(item["revised_prompt"], REVISED_PROMPT);
                let found = measure(&decoded(item));
                assert_eq!(
                    (found.format, found.width, found.height),
                    ("jpeg", width, height),
                    "{model} {size:?}"
                );
            }
        }
        google.finish().await;
    }
}

fn decoded(item: &Value) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(item["b64_json"].as_str().unwrap()).unwrap()
}

/// Gemini paints one a call, Imagen up to four; what does not fit is several calls.
#[tokio::test(flavor = "multi_thread")]
async fn many_pictures_are_several_calls() {
    let google = Google::start(Doors::Gemini).await;
    let mut request = banana();
    request["n"] = json!(3);
    let body = google.paints(&request, 3 * banana_cost()).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 3);
    assert_eq!(google.fake.calls().len(), 3);

    let body = google.paints(&imagen(6), 6 * 40_000_000).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 6);
    let mut counts: Vec<_> = google.fake.calls()[3..]
        .iter()
        .map(|call| call.body["parameters"]["sampleCount"].as_u64().unwrap())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 4]);
    google.finish().await;
}

/// The key travels in its header and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_in_no_address() {
    let google = Google::start(Doors::Both).await;
    google.paints(&banana(), banana_cost()).await;
    let call = google.fake.calls().remove(0);
    assert_eq!(
        call.path,
        "/v1beta/models/gemini-nano-banana-2.1:generateContent"
    );
    assert_eq!(call.headers["x-goog-api-key"], API_KEY);
    assert!(call.headers.get("authorization").is_none());
    google.finish().await;
}

/// Drafts are not delivered, wherever their flag stands; odd spellings and unknown members do not matter.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_in_many_shapes() {
    let google = Google::start(Doors::Gemini).await;
    for shape in [
        Shape::DraftFirst,
        Shape::DraftFlaggedLate,
        Shape::SnakeCase,
        Shape::UnknownFields,
    ] {
        google.fake.next(Behaviour::Shape(shape));
        let body = google.paints(&banana(), banana_cost()).await;
        let data = body["data"].as_array().unwrap();
        assert_eq!(data.len(), 1, "{shape:?}");
        assert_eq!(measure(&decoded(&data[0])).width, 1024, "{shape:?}");
    }
    // Without a report the picture's own tokens are charged, which are known.
    google.fake.next(Behaviour::Shape(Shape::NoUsage));
    google.paints(&banana(), 1120 * 30_000).await;
    google.fake.next(Behaviour::Shape(Shape::UnknownFields));
    google.paints(&imagen(2), 80_000_000).await;
    google.finish().await;
}

/// Refusals inside of successes, in every shape: the caller's, 400, and never charged.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_the_callers() {
    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start(doors).await;
        let mut gemini = vec![
            Shape::BlockedPromptWithMessage,
            Shape::EmptyContent,
            Shape::PartsNull,
        ];
        for reason in [
            "SAFETY",
            "PROHIBITED_CONTENT",
            "BLOCKLIST",
            "OTHER",
            "IMAGE_SAFETY",
            "MODEL_ARMOR",
            "JAILBREAK",
        ] {
            gemini.push(Shape::BlockedPrompt(reason));
        }
        for reason in [
            "SAFETY",
            "IMAGE_SAFETY",
            "PROHIBITED_CONTENT",
            "IMAGE_PROHIBITED_CONTENT",
            "RECITATION",
            "IMAGE_RECITATION",
            "BLOCKLIST",
            "SPII",
            "MODEL_ARMOR",
        ] {
            gemini.push(Shape::Finished(reason));
        }
        let imagen_shapes = [Shape::RaiAll, Shape::RaiEmpty, Shape::RaiEmptyList];
        let cases = gemini
            .into_iter()
            .map(|shape| (shape, banana()))
            .chain(imagen_shapes.map(|shape| (shape, imagen(2))));
        for (shape, request) in cases {
            let problem = google
                .fails(Behaviour::Shape(shape), &request, 400, "moderation_blocked")
                .await;
            assert_eq!(problem["type"], "image_generation_user_error", "{shape:?}");
            let message = problem["message"].as_str().unwrap();
            match shape {
                Shape::BlockedPrompt(reason) | Shape::Finished(reason) => {
                    assert!(message.contains(reason), "{message}");
                }
                Shape::RaiAll => assert!(message.contains("39322892"), "{message}"),
                _ => {}
            }
        }
        let refused = Behaviour::Reply(Reply::prompt_refused());
        let problem = google
            .fails(refused, &imagen(1), 400, "moderation_blocked")
            .await;
        assert!(problem["message"].as_str().unwrap().contains("42876398"));
        google.finish().await;
    }
}

/// No picture, and no judgement of the content either.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_picture_is_a_failure() {
    for shape in [
        Shape::Finished("NO_IMAGE"),
        Shape::Finished("IMAGE_OTHER"),
        Shape::Finished("OTHER"),
        Shape::Finished("MALFORMED_RESPONSE"),
        Shape::Finished("MAX_TOKENS"),
        Shape::Finished("NOBODY_KNOWS"),
        Shape::TextOnly,
        Shape::OnlyDraft,
        Shape::NotAPicture,
    ] {
        let google = Google::start(Doors::Gemini).await;
        google
            .fails(Behaviour::Shape(shape), &banana(), 502, "upstream_error")
            .await;
        assert_eq!(google.marked().await, 1, "{shape:?}");
        google.finish().await;
    }
}

/// Some of the pictures: those are returned and charged, and the answer says what became of the others.
#[tokio::test(flavor = "multi_thread")]
async fn some_of_the_pictures_arrive() {
    let google = Google::start(Doors::Gemini).await;
    google.fake.next(Behaviour::Shape(Shape::RaiSome(2)));
    let body = google.paints(&imagen(4), 80_000_000).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let failed = body["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(failed[0]["code"], "moderation_blocked");
    assert!(
        failed[0]["message"]
            .as_str()
            .unwrap()
            .contains("filtered out 2"),
        "{failed:?}"
    );

    // Of a fan-out one is refused and one breaks.
    google
        .fake
        .next(Behaviour::Shape(Shape::Finished("IMAGE_SAFETY")));
    google.fake.next(Behaviour::Reply(Reply::internal()));
    let mut request = banana();
    request["n"] = json!(4);
    let body = google.paints(&request, 2 * banana_cost()).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let mut codes: Vec<_> = body["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| failed["code"].as_str().unwrap().to_owned())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, ["moderation_blocked", "upstream_error"]);
    google.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_google() {
    for (reply, status, code, retry_after) in [
        (Reply::wrong_key(), 502, "upstream_error", None),
        (Reply::location(), 502, "upstream_error", None),
        (Reply::payment_required(), 502, "upstream_error", None),
        (Reply::permission_denied(), 502, "upstream_error", None),
        (Reply::service_disabled(), 502, "upstream_error", None),
        (Reply::retired(), 502, "upstream_error", None),
        (Reply::html_404(), 502, "upstream_error", None),
        (Reply::no_quota(), 502, "upstream_error", None),
        (
            Reply::rate_limited("37s"),
            429,
            "upstream_rate_limited",
            Some("37"),
        ),
        (
            Reply::rate_limited("57.238747106s").in_a_list(),
            429,
            "upstream_rate_limited",
            Some("58"),
        ),
        (Reply::no_capacity(), 502, "upstream_error", None),
        (Reply::internal(), 502, "upstream_error", None),
        (Reply::overloaded().in_a_list(), 502, "upstream_error", None),
        (
            Reply::raw(200, "text/html", "<html>"),
            502,
            "upstream_error",
            None,
        ),
        (
            Reply::raw(200, "application/json", ""),
            502,
            "upstream_error",
            None,
        ),
    ] {
        // One Easel each: what fails rests.
        let google = Google::start(Doors::Gemini).await;
        let described = format!("{reply:?}");
        let problem = google
            .fails(Behaviour::Reply(reply), &banana(), status, code)
            .await;
        if let Some(seconds) = retry_after {
            assert_eq!(problem["retry_after"], seconds, "{described}");
        }
        google.finish().await;
    }
}

/// What only Google's validator finds is the caller's, and goes to no other route.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_stays_with_the_caller() {
    let google = Google::start(Doors::Both).await;
    let reply = Reply::raw(
        400,
        "application/json",
        r#"{"error":{"code":400,"message":"The prompt has too many tokens.","status":"INVALID_ARGUMENT"}}"#,
    );
    let problem = google
        .fails(Behaviour::Reply(reply), &banana(), 400, "invalid_value")
        .await;
    assert_eq!(problem["message"], "The prompt has too many tokens.");
    google.finish().await;
}

/// What Google cannot paint is refused by name, and nobody is called.
#[tokio::test(flavor = "multi_thread")]
async fn what_google_cannot_paint_is_refused_by_name() {
    let google = Google::start(Doors::Gemini).await;
    for (model, parameter, value) in [
        ("imagen-3", "quality", json!("hd")),
        ("imagen-3", "style", json!("vivid")),
        ("imagen-3", "size", json!("1536x1024")),
        ("gemini-nano-banana-2.1", "quality", json!("high")),
        ("gemini-nano-banana-2.1", "size", json!("512x512")),
        ("gemini-nano-banana-2.1", "background", json!("transparent")),
        ("gemini-nano-banana-2.1", "n", json!(11)),
    ] {
        let mut request = json!({"model": model, "prompt": PROMPT});
        request[parameter] = value;
        let problem = google.app.refuse(&google.key, 400, &request).await;
        assert_eq!(problem.param(), parameter, "{problem:?}");
    }
    assert!(google.fake.calls().is_empty());
    google.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_google_that_falls_silent_is_given_up() {
    for (settings, behaviour) in [
        ([("timeout", "700ms")], Behaviour::Never),
        ([("timeout", "700ms")], Behaviour::StallAfter(600)),
        ([("idle_timeout", "500ms")], Behaviour::StallAfter(600)),
    ] {
        let google = Google::start_with(Doors::Gemini, &settings).await;
        let begun = Instant::now();
        google
            .fails(behaviour, &banana(), 504, "upstream_timeout")
            .await;
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(google.marked().await, 1, "Google may charge us for it");
        google.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_none_and_a_slow_one_arrives() {
    for bytes in [10, 3000] {
        let google = Google::start(Doors::Gemini).await;
        google
            .fails(Behaviour::CutAfter(bytes), &banana(), 502, "upstream_error")
            .await;
        assert_eq!(google.marked().await, 1);
        google.finish().await;
    }
    let google = Google::start_with(Doors::Gemini, &[("idle_timeout", "500ms")]).await;
    google
        .fake
        .next(Behaviour::Drip(20, Duration::from_millis(50)));
    let body = google.paints(&banana(), banana_cost()).await;
    assert_eq!(measure(&decoded(&body["data"][0])).width, 1024);
    google.finish().await;
}

/// Nothing was sent, so nothing can be charged: neither where nobody listens nor where no token is given.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_went_out_is_not_marked() {
    // A port on which nobody listens: it was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let app = App::builder()
        .await
        .set("providers.google.base_url", format!("http://{free}/v1beta"))
        .set("providers.google.api_key", API_KEY)
        .start()
        .await;
    let key = app.live_key("1");
    let answer = app.generate(&key, &banana()).await.expect(502);
    assert_eq!(answer.problem().code(), "upstream_error");
    assert_eq!(app.balance(&key).await, json!(1));
    let marked = app
        .database
        .number("select count(*) from attempts where maybe_charged")
        .await;
    assert_eq!(marked, 0);
    app.finish().await;

    let google = Google::start(Doors::Vertex).await;
    google.fake.refuse_account();
    let answer = google
        .app
        .generate(&google.key, &banana())
        .await
        .expect(502);
    assert_eq!(answer.problem().code(), "upstream_error");
    assert_eq!(google.app.balance(&google.key).await, json!(20));
    assert_eq!(google.marked().await, 0);
    assert!(google.fake.calls().is_empty());
    google.app.finish().await;
}

/// One token for many calls; one that is refused is replaced within the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn vertex_signs_in_once_and_again_when_refused() {
    let mut google = Google::start(Doors::Vertex).await;
    let mut request = banana();
    request["n"] = json!(4);
    google.paints(&request, 4 * banana_cost()).await;
    google.paints(&banana(), banana_cost()).await;
    assert_eq!(google.fake.tokens_given(), 1);
    let call = google.fake.calls().remove(0);
    assert_eq!(
        call.path,
        format!(
            "/v1/projects/{PROJECT}/locations/us-central1/publishers/google/models/gemini-nano-banana-2.1:generateContent"
        )
    );
    assert!(call.headers.get("x-goog-api-key").is_none());

    google.fake.revoke_tokens();
    google.repeated = 1;
    google.paints(&banana(), banana_cost()).await;
    assert_eq!(google.fake.tokens_given(), 2);
    google.finish().await;
}

/// The Gemini API first, and Vertex when it fails; a refusal of the content goes nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn vertex_steps_in_for_the_gemini_api() {
    for reply in [
        Reply::overloaded(),
        Reply::no_quota(),
        Reply::wrong_key(),
        Reply::html_404(),
    ] {
        let google = Google::start(Doors::Both).await;
        let described = format!("{reply:?}");
        google.fake.next(Behaviour::Reply(reply));
        let body = google.paints(&banana(), banana_cost()).await;
        assert_eq!(body["provider"], "vertex", "{described}");
        google.finish().await;
    }
    let google = Google::start(Doors::Both).await;
    let refused = Behaviour::Shape(Shape::Finished("IMAGE_SAFETY"));
    google
        .fails(refused, &banana(), 400, "moderation_blocked")
        .await;
    google.finish().await;
}

/// Imagen as it is since August 2026.
#[tokio::test(flavor = "multi_thread")]
async fn a_retired_model_is_said_to_be_one() {
    let fake = FakeGoogle::start().await;
    let app = App::builder()
        .await
        .set("providers.google.base_url", fake.base_url())
        .set("providers.google.api_key", API_KEY)
        .start()
        .await;
    let key = app.live_key("1");
    let model = app
        .get(&key, "/v1/models/imagen-4")
        .await
        .expect(200)
        .json();
    assert_eq!(model["status"], "retired");
    assert_eq!(model["shutdown_date"], "2026-08-17");
    let request = json!({"model": "imagen-4", "prompt": PROMPT});
    let answer = app.generate(&key, &request).await.expect(502);
    assert_eq!(answer.problem().code(), "upstream_error");
    assert_eq!(app.balance(&key).await, json!(1));
    app.finish().await;
}
