//! The models of Black Forest Labs through Replicate: what is asked for, what comes, what it costs, and
//! everything that can go wrong on the way. After every test the books are proved, and that no token went
//! where it should not.

mod edits;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    App, Key,
    fake_replicate::{
        self, Behaviour, COMMUNITY_MODEL, E005, End, FakeReplicate, Files, NOT_STARTED, NSFW,
        OUT_OF_MEMORY, Script, Shape, UNKNOWN, insufficient_credit,
    },
    pictures::measure,
    raw::Raw,
    usd,
};

const PROMPT: &str = "the glassblower's quiet apprentice";
const SCHNELL: &str = "black-forest-labs/flux-1-schnell";

/// An Easel whose Replicate is the fake, and a key with ten dollars.
struct Studio {
    app: App,
    replicate: FakeReplicate,
    key: Key,
}

impl Studio {
    async fn open() -> Self {
        Self::with(&[]).await
    }

    /// With these keys of `[providers.replicate]` besides.
    async fn with(settings: &[(&str, Value)]) -> Self {
        Self::with_models(settings, "").await
    }

    /// And with these models besides the built-in ones.
    async fn with_models(settings: &[(&str, Value)], models: &str) -> Self {
        let replicate = FakeReplicate::start().await;
        let mut builder = App::builder().await.models(models);
        let usual = [
            ("base_url", json!(replicate.base_url())),
            ("api_key", json!(fake_replicate::TOKEN)),
            ("result_hosts", json!([replicate.file_host()])),
        ];
        for (name, value) in usual.iter().chain(settings) {
            builder = builder.set(&format!("providers.replicate.{name}"), value.clone());
        }
        let app = builder.start().await;
        app.keep_secret(fake_replicate::TOKEN, "Replicate's token");
        let key = app.live_key("10");
        Self {
            app,
            replicate,
            key,
        }
    }

    /// A request that succeeds: the answer, after the balance has been compared with `usage.cost`.
    async fn paint(&self, request: &Value) -> Value {
        let before = self.balance().await;
        let answer = self.app.generate(&self.key, request).await.expect(200);
        let answer = answer.json();
        assert_eq!(answer["provider"], "replicate");
        let cost = nano(&answer["usage"]["cost"]);
        assert_eq!(self.balance().await, before - cost, "charged as said");
        answer
    }

    /// A request that fails: status and code, after nothing was charged and nothing is held.
    async fn fail(&self, request: &Value) -> (u16, String) {
        let before = self.balance().await;
        let answer = self.app.generate(&self.key, request).await;
        let problem = answer.problem();
        for leak in [
            "replicate.com",
            "r8_",
            "billing",
            "localhost",
            "CUDA",
            PROMPT,
        ] {
            assert!(!problem.message.contains(leak), "{leak}: {problem:?}");
        }
        assert_eq!(self.balance().await, before, "a failure costs nothing");
        (answer.status, problem.code().to_owned())
    }

    async fn balance(&self) -> i64 {
        nano(&self.app.balance(&self.key).await)
    }

    /// How many attempts in the books are as this condition says.
    async fn attempts(&self, condition: &str) -> i64 {
        let query =
            format!("select count(*) from attempts where provider = 'replicate' and {condition}");
        self.app.database.number(&query).await
    }

    async fn close(self) {
        self.replicate.prove();
        let attempts = self.attempts("true").await;
        let creates = self.replicate.creates().len();
        assert_eq!(usize::try_from(attempts).unwrap(), creates, "attempts");
        self.app.finish().await;
    }
}

/// An amount as answers write it, in nano-USD.
fn nano(usd: &Value) -> i64 {
    let text = usd.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{fraction:0<9}").parse().unwrap()
}

fn request(model: &str) -> Value {
    json!({"model": model, "prompt": PROMPT})
}

fn several(n: u8) -> Value {
    json!({"model": SCHNELL, "prompt": PROMPT, "n": n, "response_format": "b64_json"})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_paints_at_its_price() {
    let studio = Studio::open().await;
    for (model, size, painted, cost) in [
        ("flux-1-schnell", "1792x1024", (1344, 768), 3_000_000),
        ("flux-1-schnell", "512x512", (512, 512), 3_000_000),
        ("flux-1-dev", "auto", (1024, 1024), 25_000_000),
        ("flux-1-pro", "1536x1024", (1248, 832), 55_000_000),
        ("flux-1-pro", "256x1440", (256, 1440), 55_000_000),
        ("flux-1.1-pro", "1024x1024", (1024, 1024), 40_000_000),
        ("flux-1.1-pro-ultra", "2048x2048", (2048, 2048), 60_000_000),
        ("flux-2-pro", "1024x1024", (1024, 1024), 30_000_000),
        ("flux-2-pro", "1056x1024", (1056, 1024), 50_000_000),
        ("flux-2-pro", "2048x2048", (2048, 2048), 90_000_000),
        ("flux-2-flex", "1024x512", (1024, 512), 60_000_000),
        ("flux-2-flex", "1040x1024", (1040, 1024), 120_000_000),
        ("flux-2-dev", "1024x1024", (1024, 1024), 12_000_000),
        // A ratio: what came is charged, not what was asked for.
        ("flux-2-dev", "1536x1024", (1248, 832), 12_000_000),
        ("flux-kontext-pro", "1024x1536", (832, 1248), 40_000_000),
        ("flux-kontext-max", "auto", (1024, 1024), 80_000_000),
    ] {
        let answer = studio
            .paint(&json!({"model": model, "prompt": PROMPT, "size": size}))
            .await;
        assert_eq!(answer["usage"]["cost"], usd(cost), "{model} {size}");
        assert_eq!(answer["model"], format!("black-forest-labs/{model}"));
        let link = answer["data"][0]["url"].as_str().unwrap();
        let picture = measure(&studio.app.open_link(link).await.expect(200).bytes);
        assert_eq!((picture.width, picture.height), painted, "{model} {size}");
        assert_eq!(picture.format, "png", "clients expect png: {model}");
    }
    let creates = studio.replicate.creates();
    for create in &creates {
        assert_eq!(create.headers["prefer"], "wait=60", "{}", create.model);
        assert_eq!(create.headers["cancel-after"], "300s", "{}", create.model);
    }
    assert_eq!(studio.replicate.questions(), 0, "waiting was enough");
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_are_asked_for_by_the_provider_s_words() {
    let studio = Studio::open().await;
    for (format, painted) in [("jpeg", "jpeg"), ("webp", "webp"), ("png", "png")] {
        let answer = studio
            .paint(&json!({"model": "flux-1-pro", "prompt": PROMPT, "output_format": format, "response_format": "b64_json"}))
            .await;
        let file = base64(&answer["data"][0]["b64_json"]);
        assert_eq!(measure(&file).format, painted);
    }
    let compressed = json!({"model": SCHNELL, "prompt": PROMPT, "output_format": "jpeg", "output_compression": 60});
    studio.paint(&compressed).await;
    let last = studio.replicate.creates().pop().unwrap();
    assert_eq!(last.input["output_quality"], 60);
    studio.close().await;
}

/// Of several pictures by a call each, each has the seed after the one before it.
#[tokio::test(flavor = "multi_thread")]
async fn seeds_go_along_and_are_counted_on() {
    let studio = Studio::open().await;
    for (model, n, seeds) in [("flux-1-pro", 3, vec![7, 8, 9]), (SCHNELL, 6, vec![7, 11])] {
        let before = studio.replicate.creates().len();
        let mut request = request(model);
        request["n"] = json!(n);
        request["seed"] = json!(7);
        studio.paint(&request).await;
        let creates = studio.replicate.creates().split_off(before);
        let mut said: Vec<_> = creates
            .iter()
            .map(|create| create.input["seed"].as_u64().unwrap())
            .collect();
        said.sort_unstable();
        assert_eq!(said, seeds, "{model}");
    }
    studio.close().await;
}

/// Rules refuse by name what the models do not take, before anything is asked upstream.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_does_not_take_is_refused_by_name() {
    let studio = Studio::open().await;
    for (parameter, value) in [
        ("size", json!("2048x2048")),
        ("quality", json!("hd")),
        ("background", json!("transparent")),
        ("moderation", json!("low")),
        ("style", json!("vivid")),
        ("output_compression", json!(50)),
    ] {
        let mut request = request("flux-1-pro");
        request[parameter] = value;
        let problem = studio.app.refuse(&studio.key, 400, &request).await;
        assert_eq!(problem.param(), parameter, "{problem:?}");
    }
    assert!(studio.replicate.creates().is_empty());
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_take_as_few_predictions_as_the_model_allows() {
    let studio = Studio::open().await;
    for (model, n, predictions, cost) in [
        ("flux-1-schnell", 4, 1, 12_000_000),
        ("flux-1-schnell", 6, 2, 18_000_000),
        ("flux-1-pro", 3, 3, 165_000_000),
    ] {
        let before = studio.replicate.creates().len();
        let mut request = request(model);
        request["n"] = json!(n);
        let answer = studio.paint(&request).await;
        assert_eq!(answer["data"].as_array().unwrap().len(), n);
        assert_eq!(answer["usage"]["cost"], usd(cost));
        assert_eq!(studio.replicate.creates().len() - before, predictions);
    }
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_of_output_is_read() {
    let studio = Studio::open().await;
    for (shape, fetched) in [(Shape::Links, 3), (Shape::DataUrls, 0), (Shape::Mixed, 1)] {
        let before = studio.replicate.files_fetched();
        studio.replicate.next(Script::shaped(shape));
        let answer = studio.paint(&several(3)).await;
        assert_eq!(answer["usage"]["cost"], usd(9_000_000), "{shape:?}");
        for picture in answer["data"].as_array().unwrap() {
            assert_eq!(measure(&base64(&picture["b64_json"])).width, 1024);
        }
        let fetched_now = studio.replicate.files_fetched() - before;
        assert_eq!(fetched_now, fetched, "{shape:?}");
    }
    // A string instead of a list.
    studio.replicate.next(Script::shaped(Shape::DataUrls));
    let answer = studio.paint(&request("flux-1.1-pro")).await;
    assert!(answer["data"][0]["url"].is_string());
    // What holds no pictures in any shape we know is no success, and not made again: it may be charged.
    studio.replicate.next(Script::ends(End::SucceededOddly));
    assert_eq!(studio.fail(&several(2)).await.0, 502);
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_output_is_enough_although_the_status_lags() {
    let studio = Studio::open().await;
    for (lagging, created) in [("processing", 201), ("processing", 200), ("starting", 201)] {
        studio.replicate.next(Behaviour::Run(Script {
            lagging: Some(lagging),
            created,
            ..Script::default()
        }));
        studio.paint(&several(2)).await;
        assert_eq!(studio.replicate.questions(), 0, "{lagging} {created}");
    }
    // In any other answer it may be a part.
    studio.replicate.next(Behaviour::Run(Script {
        lagging: Some("processing"),
        created: 202,
        ..Script::default()
    }));
    studio.paint(&several(2)).await;
    assert_eq!(studio.replicate.questions(), 1);
    studio.close().await;
}

/// Not every answer has the status of a creation.
#[tokio::test(flavor = "multi_thread")]
async fn every_documented_status_of_success_is_one() {
    let studio = Studio::open().await;
    for created in [200, 201, 202] {
        studio.replicate.next(Behaviour::Run(Script {
            created,
            ..Script::default()
        }));
        studio.paint(&several(1)).await;
    }
    assert_eq!(studio.replicate.questions(), 0);
    studio.close().await;
}

/// Models that are not official are reached by a version, and billed by the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_community_model_is_reached_by_its_version() {
    let version = format!("{COMMUNITY_MODEL}:{}", "5c7d".repeat(16));
    let models = format!(
        r#"
        [[model]]
        id = "somebody/otters"
        name = "Otters"
        created = 1722470400
        owned_by = "somebody"
        status = "active"
        [model.rules]
        prompt = {{ max_chars = 1000 }}
        n = {{ min = 1, max = 1, default = 1 }}
        size = {{ values = ["auto"], default = "auto" }}
        response_format = {{ values = ["url", "b64_json"], default = "url" }}
        [[model.routes]]
        provider = "replicate"
        upstream_model = "{version}"
        translation.size.table = []
        price = {{ per_image = [{{ price = "0.01" }}] }}
        "#
    );
    let studio = Studio::with_models(&[], &models).await;
    studio.paint(&request("somebody/otters")).await;
    assert!(studio.replicate.creates()[0].by_version);
    // So a failure may have cost something, and is not repeated.
    studio.replicate.next(Script::ends(End::Failed(UNKNOWN)));
    assert_eq!(studio.fail(&request("somebody/otters")).await.0, 502);
    assert_eq!(studio.replicate.creates().len(), 2);
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}

/// `Prefer: wait` may end before the prediction does; a partial output until then is no result.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_prediction_is_asked_about_until_it_ends() {
    let studio = Studio::open().await;
    for shape in [Shape::Links, Shape::DataUrls, Shape::Mixed] {
        let before = studio.replicate.questions();
        studio.replicate.next(Behaviour::Run(Script {
            starting: Duration::from_millis(100),
            processing: Duration::from_millis(1_200),
            patience: Duration::from_millis(200),
            partial: 2,
            shape,
            ..Script::default()
        }));
        let answer = studio.paint(&several(3)).await;
        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), 3, "{shape:?}");
        let mut files: Vec<_> = data.iter().map(|one| one["b64_json"].as_str()).collect();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), 3, "each came once: {shape:?}");
        assert!(studio.replicate.questions() > before, "{shape:?}");
    }
    assert!(studio.replicate.cancelled().is_empty());
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_fail_are_asked_again() {
    let studio = Studio::open().await;
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_millis(300),
        patience: Duration::from_millis(50),
        failing_questions: 2,
        ..Script::default()
    }));
    studio.paint(&several(1)).await;
    assert_eq!(studio.replicate.questions(), 3);
    assert_eq!(studio.replicate.creates().len(), 1, "created once");
    // Whatever they answer: a server that has not heard of it yet, one that is busy, one that is confused.
    for status in [404, 410, 422, 429, 500] {
        let before = studio.replicate.questions();
        let body = json!({"detail": "Expected available in 1 second.", "status": status});
        studio.replicate.next(Behaviour::Run(Script {
            processing: Duration::from_millis(100),
            patience: Duration::from_millis(50),
            failing_questions: 1,
            question_failure: (status, body),
            ..Script::default()
        }));
        let began_at = Instant::now();
        studio.paint(&several(1)).await;
        assert_eq!(studio.replicate.questions() - before, 2, "{status}");
        let rested = began_at.elapsed() >= Duration::from_millis(1_300);
        assert!(rested || status != 429, "it asked to be left alone");
    }
    assert_eq!(studio.replicate.creates().len(), 6, "each created once");
    studio.close().await;
}

/// A token that stops working while a prediction runs.
#[tokio::test(flavor = "multi_thread")]
async fn questions_refused_for_our_account_are_not_repeated() {
    for (status, kind) in [(401, "auth"), (403, "auth"), (402, "quota_exhausted")] {
        let studio = Studio::open().await;
        studio.replicate.next(Behaviour::Run(Script {
            processing: Duration::from_mins(1),
            patience: Duration::from_millis(50),
            failing_questions: 100,
            question_failure: (status, json!({"title": "Unauthenticated"})),
            ..Script::default()
        }));
        let failure = studio.fail(&several(1)).await;
        assert_eq!(failure, (502, "upstream_error".to_owned()));
        assert_eq!(studio.replicate.questions(), 1);
        let condition = format!("maybe_charged and error = '{kind}'");
        assert_eq!(studio.attempts(&condition).await, 1, "{status}");
        // What we can still do, we do.
        wait_for(|| studio.replicate.cancelled().len() == 1).await;
        studio.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_that_nobody_can_tell_about_is_given_up() {
    let studio = Studio::open().await;

    // It is cancelled; it may have been painted.
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_mins(1),
        patience: Duration::from_millis(50),
        failing_questions: 100,
        ..Script::default()
    }));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (502, "upstream_error".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 1, "and not again");
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    wait_for(|| studio.replicate.cancelled().len() == 1).await;
    studio.close().await;
}

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

/// A creation whose answer is lost is not repeated: it may be running, and paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_without_an_answer_is_not_repeated() {
    let studio = Studio::with(&[("timeout", json!("1s"))]).await;
    studio.replicate.next(Behaviour::Never);
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (504, "upstream_timeout".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 1);
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    assert_eq!(
        studio.replicate.creates()[0].headers["cancel-after"],
        "5s",
        "the least it may say"
    );
    studio.close().await;
}

/// One that broke off after its name was there is asked about instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_asked_for_again_if_it_had_a_name() {
    let studio = Studio::with(&[("idle_timeout", json!("500ms"))]).await;
    // Before the output, and in the middle of a picture.
    for (bytes, shape) in [(250, Shape::Links), (2_000, Shape::DataUrls)] {
        let before = studio.replicate.questions();
        studio.replicate.next(Behaviour::CutAfter(bytes, shape));
        let answer = studio.paint(&several(2)).await;
        for picture in answer["data"].as_array().unwrap() {
            assert_eq!(measure(&base64(&picture["b64_json"])).width, 1024);
        }
        assert_eq!(studio.replicate.questions() - before, 1);
    }
    // Or one that stops in the middle, when it has been silent for too long.
    let before = studio.replicate.questions();
    studio.replicate.next(Behaviour::StallAfter(250));
    studio.paint(&several(2)).await;
    assert_eq!(studio.replicate.questions() - before, 1);
    assert_eq!(studio.replicate.creates().len(), 3);

    studio.replicate.next(Behaviour::CutAfter(20, Shape::Links));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (502, "upstream_error".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 4);
    assert_eq!(
        studio
            .attempts("maybe_charged and error = 'transport_after_sending'")
            .await,
        1
    );
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_and_files_arrive() {
    let studio = Studio::with(&[("idle_timeout", json!("500ms"))]).await;
    let pause = Duration::from_millis(40);
    studio.replicate.next(Behaviour::Drip(40, pause));
    studio.paint(&several(1)).await;
    studio.replicate.next(Script::with_files(Files::Drip));
    studio.paint(&several(2)).await;
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

/// What takes too long is given up and cancelled at the provider.
#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_beyond_the_deadline_is_cancelled() {
    let studio = Studio::with(&[("timeout", json!("1500ms"))]).await;
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_mins(1),
        patience: Duration::from_millis(50),
        ..Script::default()
    }));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (504, "upstream_timeout".to_owned()));
    wait_for(|| studio.replicate.cancelled().len() == 1).await;
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}

/// Posts a request whose prediction takes so long, and hangs up once the fake has seen this.
async fn post_and_leave(
    studio: &Studio,
    processing: Duration,
    seen: impl Fn(&FakeReplicate) -> bool,
) {
    studio.replicate.next(Behaviour::Run(Script {
        processing,
        ..Script::default()
    }));
    let mut raw = Raw::connect(studio.app.easel.port()).await;
    let request = several(1).to_string();
    raw.send(&Raw::post(
        "/v1/images/generations",
        &studio.key.secret,
        &request,
    ))
    .await;
    wait_for(|| seen(&studio.replicate)).await;
    drop(raw);
}

/// Whoever asks about a prediction knows its name.
fn a_question(replicate: &FakeReplicate) -> bool {
    replicate.questions() > 0
}

fn a_creation(replicate: &FakeReplicate) -> bool {
    !replicate.creates().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_where_the_operator_wants_it() {
    let studio = Studio::with(&[("on_disconnect", json!("cancel"))]).await;
    post_and_leave(&studio, Duration::from_mins(1), a_question).await;
    wait_for(|| studio.replicate.cancelled().len() == 1).await;
    let create = studio.replicate.creates().remove(0);
    assert!(
        !create.headers.contains_key("prefer"),
        "its name must be known while it runs"
    );
    studio.app.wait_until_settled().await;
    assert_eq!(studio.attempts("error = 'cancelled'").await, 1);
    assert_eq!(studio.balance().await, 10_000_000_000);

    // Without haste it paints as ever.
    studio.paint(&several(2)).await;
    studio.close().await;
}

/// Even if everything ends right then.
#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_waits_for_the_cancellation() {
    let studio = Studio::with(&[("on_disconnect", json!("cancel"))]).await;
    post_and_leave(&studio, Duration::from_mins(1), a_question).await;
    let Studio { app, replicate, .. } = studio;
    app.finish().await;
    assert_eq!(replicate.cancelled().len(), 1);
    replicate.prove();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_pays_where_the_operator_does_not() {
    let studio = Studio::open().await;
    post_and_leave(&studio, Duration::from_millis(900), a_creation).await;
    studio.app.wait_until_settled().await;
    assert!(studio.replicate.cancelled().is_empty());
    assert_eq!(studio.balance().await, 9_997_000_000);
    studio.close().await;
}

async fn wait_for(condition: impl Fn() -> bool) {
    let began_at = Instant::now();
    while !condition() {
        assert!(
            began_at.elapsed() < Duration::from_secs(20),
            "it never came"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn base64(value: &Value) -> Vec<u8> {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Whoever does not wait can have it stopped, whatever becomes of clients that leave: its name is known while
/// it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_generation_is_cancelled_at_the_provider() {
    let studio = Studio::open().await;
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_mins(1),
        ..Script::default()
    }));
    let id = crate::later::later(&studio.app.client, &studio.key, &several(1)).await;
    wait_for(|| a_question(&studio.replicate)).await;
    let delete = studio
        .app
        .client
        .request(
            reqwest::Method::DELETE,
            &format!("/v1/images/generations/{id}"),
        )
        .bearer_auth(&studio.key.secret);
    let state = studio.app.client.send(delete).await.expect(200).json();
    assert_eq!(state["error"]["code"], "canceled", "{state}");
    wait_for(|| studio.replicate.cancelled().len() == 1).await;
    assert_eq!(studio.attempts("error = 'cancelled'").await, 1);
    assert_eq!(studio.balance().await, 10_000_000_000);
    studio.close().await;
}
