//! A model with two routes: who is tried next, who is not, and what is held and charged for it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, FakeOpenAi, Key, Reply, pictures, usd};

const PROMPT: &str = "two ferries and one harbour";

/// The first route is the dearer one, so that hold and charge can be told apart.
pub(crate) const MODEL: &str = r#"
[[model]]
id = "test/two-homes"
name = "Two homes"
aliases = ["two-homes"]
created = 1795132800
owned_by = "test"
status = "active"

[model.rules]
prompt = { max_chars = 1000 }
n = { min = 1, max = 4, default = 1 }
size = { values = ["256x256", "512x512"], default = "256x256" }
response_format = { values = ["url", "b64_json"], default = "b64_json" }

[[model.routes]]
provider = "openai"
upstream_model = "dall-e-2"
images_per_call = 10
translation = { response_format = "b64_json", send_defaults = ["size"] }
price = { per_image = [{ price = "0.030" }] }

[[model.routes]]
provider = "backup"
upstream_model = "dall-e-2"
images_per_call = 2
translation = { response_format = "b64_json", send_defaults = ["size"] }
price = { per_image = [{ price = "0.010" }] }
"#;

struct House {
    app: App,
    backup: FakeOpenAi,
    key: Key,
}

impl House {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, Value)]) -> Self {
        let backup = FakeOpenAi::start().await;
        let mut builder = App::builder()
            .await
            .models(MODEL)
            .set("providers.backup.adapter", "openai")
            .set("providers.backup.base_url", backup.base_url())
            .set(
                "providers.backup.api_key",
                crate::support::fake_openai::API_KEY,
            );
        for (key, value) in settings {
            builder = builder.set(key, value.clone());
        }
        let app = builder.start().await;
        let key = app.live_key("1");
        Self { app, backup, key }
    }

    fn request(provider: &Value) -> Value {
        json!({"model": "two-homes", "prompt": PROMPT, "provider": provider})
    }

    async fn finish(self) {
        let calls = self.backup.calls();
        assert!(calls.iter().all(|call| call.refused.is_none()), "{calls:?}");
        let attempts = self
            .app
            .database
            .number("select count(*) from attempts where provider = 'backup'")
            .await;
        assert_eq!(usize::try_from(attempts).unwrap(), calls.len());
        self.app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_route_is_tried_where_that_is_safe() {
    for (behaviour, name) in [
        (Behaviour::Reply(Reply::rate_limited()), "rate limited"),
        (Behaviour::Reply(Reply::server_error()), "broken"),
        (Behaviour::Reply(Reply::overloaded()), "overloaded"),
        (Behaviour::Reply(Reply::html(502)), "a proxy's page"),
        (Behaviour::Reply(Reply::wrong_key()), "our key"),
        (Behaviour::Reply(Reply::insufficient_quota()), "our quota"),
        (
            Behaviour::Reply(Reply::raw(200, "application/json", "{")),
            "garbage",
        ),
        (Behaviour::NotAPicture, "no picture"),
    ] {
        let house = House::start().await;
        house.app.openai.next(behaviour);
        let answer = house
            .app
            .generate(&house.key, &House::request(&json!({})))
            .await
            .expect(200);
        let body = answer.json();
        assert_eq!(body["provider"], "backup", "{name}");
        assert_eq!(
            body["usage"]["cost"],
            usd(10_000_000),
            "the route that served is charged: {name}"
        );
        let held = house
            .app
            .database
            .number("select amount_nano_usd from holds")
            .await;
        assert_eq!(held, 30_000_000, "the dearest candidate is held: {name}");
        assert_eq!(
            (house.app.openai.calls().len(), house.backup.calls().len()),
            (1, 1),
            "{name}"
        );
        house.finish().await;
    }
}

/// A picture that goes through while it arrives: the headers say all that was known by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_answer_says_which_calls_it_took() {
    let house = House::start().await;
    let picture = STANDARD.encode(pictures::noise(256, 1));
    assert!(picture.len() > 128 * 1024, "it is relayed");
    let body = json!({"created": 1, "data": [{"b64_json": picture}]}).to_string();
    house
        .app
        .openai
        .next(Behaviour::Reply(Reply::rate_limited()));
    let large = Reply::raw(200, "application/json", body);
    house.backup.next(Behaviour::Reply(large));
    let answer = house
        .app
        .generate(&house.key, &House::request(&json!({})))
        .await
        .expect(200);
    assert!(answer.headers.get("content-length").is_none());
    assert_eq!(
        answer.header("x-attempts"),
        "openai=rate_limited, backup=ok"
    );
    assert_eq!(answer.json()["data"][0]["b64_json"], json!(picture));
    house.finish().await;
}

/// A provider that brings some of the pictures works.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_success_is_no_failure_of_its_route() {
    let house = House::with(&[("routing.failures", json!(2))]).await;
    let mut order = House::request(&json!({}));
    order["n"] = json!(3);
    // Known in full before the answer begins.
    order["response_format"] = json!("url");
    for _ in 0..4 {
        house.app.openai.next(Behaviour::Fewer(2));
        let answer = house.app.generate(&house.key, &order).await.expect(200);
        assert_eq!(answer.header("x-attempts"), "openai=partial");
        assert_eq!(answer.json()["failed"].as_array().unwrap().len(), 1);
    }
    let kinds = "select distinct error from attempts";
    assert_eq!(house.app.database.texts(kinds).await, ["malformed"]);
    assert!(house.backup.calls().is_empty());
    house.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_callers_stays_with_the_first_route() {
    let house = House::start().await;
    for reply in [
        Reply::moderation_dalle(),
        Reply::error(
            400,
            &json!({"message": "Invalid value: 'x'.", "type": "invalid_request_error", "param": "size", "code": "invalid_value"}),
        ),
    ] {
        house.app.openai.next(Behaviour::Reply(reply));
        house
            .app
            .refuse(&house.key, 400, &House::request(&json!({})))
            .await;
    }
    assert!(
        house.backup.calls().is_empty(),
        "a refusal is not asked for elsewhere"
    );
    house.finish().await;
}

/// A request that was sent and not answered may be painted and charged: nobody else is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_sent_request_is_not_repeated_elsewhere() {
    let house = House::with(&[("providers.openai.timeout", json!("500ms"))]).await;
    house.app.openai.next(Behaviour::Never);
    let answer = house
        .app
        .generate(&house.key, &House::request(&json!({})))
        .await
        .expect(504);
    assert_eq!(answer.problem().code(), "upstream_timeout");
    assert!(house.backup.calls().is_empty());
    house.finish().await;
}

/// Unless the operator prefers that.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_prefer_to_ask_again() {
    let house = House::with(&[
        ("providers.openai.timeout", json!("500ms")),
        ("providers.openai.retry_after_send", json!(true)),
    ])
    .await;
    house.app.openai.next(Behaviour::Never);
    let answer = house
        .app
        .generate(&house.key, &House::request(&json!({})))
        .await
        .expect(200);
    assert_eq!(answer.json()["provider"], "backup");
    assert_eq!(
        house
            .app
            .database
            .number("select count(*) from attempts where maybe_charged")
            .await,
        1
    );
    house.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_cannot_be_reached_is_passed_over() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let house = House::with(&[(
        "providers.openai.base_url",
        json!(format!("http://{free}/v1")),
    )])
    .await;
    let answer = house
        .app
        .generate(&house.key, &House::request(&json!({})))
        .await
        .expect(200);
    assert_eq!(answer.json()["provider"], "backup");
    let attempts = house
        .app
        .database
        .texts(
            "select concat_ws(' ', provider, coalesce(error, 'ok')) from attempts order by number",
        )
        .await;
    assert_eq!(attempts, ["openai transport", "backup ok"]);
    let House { app, .. } = house;
    app.finish_with_other_upstreams().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_telling_failure_is_told() {
    let house = House::start().await;
    house.app.openai.next(Behaviour::Reply(
        Reply::rate_limited().with_header("retry-after", "9"),
    ));
    house.backup.next(Behaviour::Reply(Reply::wrong_key()));
    let answer = house
        .app
        .generate(&house.key, &House::request(&json!({})))
        .await
        .expect(429);
    assert_eq!(answer.problem().code(), "upstream_rate_limited");
    assert_eq!(answer.header("retry-after"), "9");
    house.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_chooses_among_the_routes() {
    let house = House::start().await;
    for (provider, served, held) in [
        (json!({"order": ["backup", "openai"]}), "backup", 30_000_000),
        (json!({"order": ["backup"]}), "backup", 30_000_000),
        (json!({"only": ["backup"]}), "backup", 10_000_000),
        (json!({"ignore": ["openai"]}), "backup", 10_000_000),
        (json!({"max_price": {"image": 0.02}}), "backup", 10_000_000),
        (
            json!({"max_price": {"image": "0.030"}}),
            "openai",
            30_000_000,
        ),
        (json!({"only": ["openai"]}), "openai", 30_000_000),
    ] {
        let answer = house
            .app
            .generate(&house.key, &House::request(&provider))
            .await
            .expect(200);
        assert_eq!(answer.json()["provider"], served, "{provider}");
        let id = answer.header("x-generation-id");
        let amount = house
            .app
            .database
            .number(&format!(
                "select amount_nano_usd from holds where generation_id = '{id}'"
            ))
            .await;
        assert_eq!(amount, held, "{provider}");
    }
    for provider in [
        json!({"max_price": {"image": 0.001}}),
        json!({"only": ["backup"], "ignore": ["backup"]}),
    ] {
        let problem = house
            .app
            .refuse(&house.key, 400, &House::request(&provider))
            .await;
        assert_eq!(
            (problem.code(), problem.param()),
            ("no_route", "provider"),
            "{provider}"
        );
        assert!(
            problem.message.contains("openai") && problem.message.contains("backup"),
            "for each route why: {problem:?}"
        );
    }
    // No fallback wanted: the first failure is the last.
    house
        .app
        .openai
        .next(Behaviour::Reply(Reply::server_error()));
    let request = House::request(&json!({"allow_fallbacks": false}));
    house.app.generate(&house.key, &request).await.expect(502);
    house.finish().await;
}

/// A route that brings two pictures a call is called twice for four; each call is an attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_route_is_fanned_out() {
    let house = House::start().await;
    let mut request = House::request(&json!({"only": ["backup"]}));
    request["n"] = json!(4);
    let answer = house.app.generate(&house.key, &request).await.expect(200);
    let body = answer.json();
    assert_eq!(body["data"].as_array().unwrap().len(), 4);
    assert_eq!(body["usage"]["cost"], usd(40_000_000));
    assert_eq!(
        house
            .backup
            .calls()
            .iter()
            .map(|call| call.body["n"].clone())
            .collect::<Vec<_>>(),
        [json!(2), json!(2)]
    );
    // Of a fan-out where one call fails, the other's pictures are returned.
    house
        .backup
        .next(Behaviour::Reply(Reply::moderation_dalle()));
    let body = house
        .app
        .generate(&house.key, &request)
        .await
        .expect(200)
        .json();
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    assert_eq!(body["failed"].as_array().unwrap().len(), 2);
    assert_eq!(body["failed"][0]["code"], "content_policy_violation");
    assert_eq!(body["usage"]["cost"], usd(20_000_000));
    // All refused: 400.
    house
        .backup
        .next(Behaviour::Reply(Reply::moderation_dalle()));
    house
        .backup
        .next(Behaviour::Reply(Reply::moderation_dalle()));
    assert_eq!(
        house.app.refuse(&house.key, 400, &request).await.code(),
        "content_policy_violation"
    );
    house.finish().await;
}

/// A balance that does not cover the dearer route pays for the cheaper one, and it is one request.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_balance_takes_the_cheaper_route() {
    let house = House::start().await;
    let key = house
        .app
        .create_key(&["--credit", "0.05", "--rpm", "2", "--ipm", "4"]);
    let mut request = House::request(&json!({}));
    request["n"] = json!(2);
    let first = house.app.generate(&key, &request).await.expect(200).json();
    assert_eq!(
        (&first["provider"], &first["usage"]["cost"]),
        (&json!("backup"), &json!(0.02)),
        "two at 0.03 are more than 0.05"
    );
    let second = house.app.generate(&key, &request).await.expect(200).json();
    assert_eq!(second["provider"], "backup");
    assert_eq!(house.app.balance(&key).await, json!(0.01));
    let problem = house.app.generate(&key, &request).await.expect(429);
    assert!(problem.problem().message.contains("2 requests per minute"));
    assert!(house.app.openai.calls().is_empty());
    house.finish().await;
}

/// Sick, rested, probed, and used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_recovers_is_used_again() {
    let rest = Duration::from_millis(700);
    let house = House::with(&[
        ("routing.failures", json!(2)),
        ("routing.rest", json!("700ms")),
    ])
    .await;
    let served_by = async || {
        let request = House::request(&json!({}));
        let answer = house.app.generate(&house.key, &request).await.expect(200);
        answer.json()["provider"].as_str().unwrap().to_owned()
    };

    assert_eq!(served_by().await, "openai");
    house
        .app
        .openai
        .next(Behaviour::Reply(Reply::server_error()));
    house
        .app
        .openai
        .next(Behaviour::Reply(Reply::server_error()));
    assert_eq!(served_by().await, "backup");
    assert_eq!(served_by().await, "backup");
    let calls = house.app.openai.calls().len();
    assert_eq!(served_by().await, "backup", "at rest");
    assert_eq!(house.app.openai.calls().len(), calls, "and left alone");

    tokio::time::sleep(rest + Duration::from_millis(100)).await;
    // The probe succeeds. Having failed often lately the route comes second until that has faded, so it
    // is asked for by name.
    let request = House::request(&json!({"order": ["openai"]}));
    let answer = house.app.generate(&house.key, &request).await.expect(200);
    assert_eq!(answer.json()["provider"], "openai");
    for _ in 0..3 {
        house.app.generate(&house.key, &request).await.expect(200);
    }
    assert_eq!(served_by().await, "openai", "healthy again");
    house.finish().await;
}

/// A retired name on a living model: the answer says what painted.
#[tokio::test(flavor = "multi_thread")]
async fn a_rerouted_name_says_what_it_led_to() {
    let stanza = MODEL.split("[[model.routes]]").next().unwrap().to_owned()
        + "[[model.routes]]\nprovider = \"openai\"\nupstream_model = \"dall-e-2\"\nserves = \"openai/dall-e-2\"\n"
        + "translation = { response_format = \"b64_json\", send_defaults = [\"size\"] }\n"
        + "price = { per_image = [{ price = \"0.020\" }] }\n";
    let app = App::builder().await.models(&stanza).start().await;
    let key = app.live_key("1");
    let answer = app
        .generate(&key, &House::request(&json!({})))
        .await
        .expect(200);
    assert_eq!(answer.json()["model"], "openai/dall-e-2");
    assert_eq!(answer.json()["provider"], "openai");
    app.finish().await;
}
