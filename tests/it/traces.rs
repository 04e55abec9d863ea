//! Traces: a client's trace goes on through us to the provider; a collector gets our spans and nothing private, and
//! one that is in trouble is nobody's trouble.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value as Attribute,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use reqwest::Method;
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

use crate::support::App;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Takes what is posted to it, as a collector does.
struct Collector {
    endpoint: String,
    posted: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    async fn start() -> Self {
        let posted: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let take = async |State(posted): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| {
            posted.lock().unwrap().push(body);
        };
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&posted));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with its test")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, posted }
    }

    fn spans(&self) -> Vec<Span> {
        let posted = self.posted.lock().unwrap();
        let requests = posted
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap());
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    /// The spans of a trace by name, once all of these are there.
    async fn trace(&self, trace: &str, names: &[&str]) -> BTreeMap<String, Span> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let of_it = self.spans().into_iter();
            let of_it = of_it.filter(|span| hex(&span.trace_id) == trace);
            let found: BTreeMap<String, Span> =
                of_it.map(|span| (span.name.clone(), span)).collect();
            if names.iter().all(|name| found.contains_key(*name)) {
                return found;
            }
            assert!(Instant::now() < deadline, "{names:?} in {:?}", found.keys());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All that came, as text as far as it is text.
    fn text(&self) -> String {
        let posted = self.posted.lock().unwrap();
        let all = posted
            .iter()
            .map(|body| String::from_utf8_lossy(body).into_owned());
        all.collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == name);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        Some(Attribute::StringValue(text)) => text.clone(),
        Some(Attribute::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_us_to_the_provider() {
    let collector = Collector::start().await;
    let app = App::builder()
        .await
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .environment("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await;
    let key = app.live_key("1");
    let body = json!({"model": "dall-e-3", "prompt": "a clockmaker who must not be named", "response_format": "url"});
    app.keep_secret("a clockmaker who must not be named", "the prompt");
    let request = app
        .client
        .request(Method::POST, "/v1/images/generations")
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", "vendor=private")
        .header("baggage", "user=private")
        .body(body.to_string());
    let answer = app.client.send(request).await.expect(200);
    app.open_link(&answer.link(0)).await.expect(200);

    let request = "POST /v1/images/generations";
    let names = [
        request,
        "admission",
        "generation",
        "hold",
        "attempt",
        "settlement",
    ];
    let spans = collector.trace(TRACE, &names).await;
    let parent = |name: &str| hex(&spans[name].parent_span_id);
    let id = |name: &str| hex(&spans[name].span_id);
    assert_eq!(parent(request), PARENT);
    assert_eq!(parent("admission"), id(request));
    assert_eq!(parent("generation"), id(request));
    for name in ["hold", "attempt", "settlement"] {
        assert_eq!(parent(name), id("generation"), "{name}");
    }
    assert_eq!(spans[request].kind(), SpanKind::Server);
    assert_eq!(spans["attempt"].kind(), SpanKind::Client);
    for (name, expected) in [
        ("request.id", answer.header("x-request-id")),
        ("generation.id", answer.header("x-generation-id")),
        ("model.id", "openai/dall-e-3"),
        ("cost_usd", "0.04"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(&spans[request], name), expected, "{name}");
    }
    assert_eq!(attribute(&spans["attempt"], "provider.name"), "openai");

    let calls = app.openai.calls();
    let header = |name: &str| {
        calls[0]
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    assert_eq!(
        header("traceparent"),
        Some(format!("00-{TRACE}-{}-01", id("attempt")).as_str())
    );
    assert_eq!((header("tracestate"), header("baggage")), (None, None));

    // What machines ask is no span.
    app.client.get("/healthz", None).await.expect(200);
    app.client
        .get("/v1/models", Some(&key.secret))
        .await
        .expect(200);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !collector.text().contains("GET /v1/models") {
        assert!(Instant::now() < deadline, "the listing is no span");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let text = collector.text();
    assert!(!text.contains("healthz"), "probes are spans");
    assert!(text.contains("easel"), "a service has a name");
    app.assert_nothing_private_in(&text);
    app.finish().await;
}

/// Posts an order with a client's trace, of which the client says whether it is `sampled`.
async fn generate_within(app: &App, sampled: bool) {
    let key = app.live_key("1");
    let flag = if sampled { "01" } else { "00" };
    let request = app
        .client
        .request(Method::POST, "/v1/images/generations")
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-{flag}"))
        .body(json!({"model": "dall-e-3", "prompt": "a quiet room"}).to_string());
    app.client.send(request).await.expect(200);
}

/// What is waiting when the process ends is sent; which traces those are, the sampler says.
#[tokio::test(flavor = "multi_thread")]
async fn the_sampler_decides_and_the_end_waits_for_what_is_left() {
    for (sampler, share, sampled, is_sent) in [
        ("", "", true, true),
        ("", "", false, false),
        ("traceidratio", "1", false, true),
        ("traceidratio", "0", true, false),
        ("parentbased_traceidratio", "0", true, true),
    ] {
        let collector = Collector::start().await;
        let app = App::builder()
            .await
            .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
            .environment("OTEL_TRACES_SAMPLER", sampler)
            .environment("OTEL_TRACES_SAMPLER_ARG", share)
            // Only the end sends anything.
            .environment("OTEL_BSP_SCHEDULE_DELAY", "3600000")
            .start()
            .await;
        generate_within(&app, sampled).await;
        let headers = app.openai.calls()[0].headers.clone();
        let handed_on = headers["traceparent"].to_str().unwrap().to_owned();
        let flag = if is_sent { "01" } else { "00" };
        assert!(
            handed_on.starts_with(&format!("00-{TRACE}-")),
            "{handed_on}"
        );
        assert!(handed_on.ends_with(flag), "{handed_on}: {sampler} {share}");
        app.finish().await;
        let names: Vec<String> = collector
            .spans()
            .into_iter()
            .map(|span| span.name)
            .collect();
        let expected = if is_sent { 6 } else { 0 };
        assert_eq!(names.len(), expected, "{sampler} {share}: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_keep_traces_to_themselves() {
    let collector = Collector::start().await;
    let app = App::builder()
        .await
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .set("traces.from_clients", false)
        .set("traces.to_providers", false)
        .start()
        .await;
    generate_within(&app, false).await;
    assert!(!app.openai.calls()[0].headers.contains_key("traceparent"));
    app.finish().await;
    let spans = collector.spans();
    let request = spans
        .iter()
        .find(|span| span.name == "POST /v1/images/generations");
    let request = request.expect("a trace of its own, although the client's is not sampled");
    assert_ne!(hex(&request.trace_id), TRACE);
    assert!(request.parent_span_id.is_empty());
    let is_within = |span: &&Span| span.trace_id == request.trace_id;
    assert_eq!(spans.iter().filter(is_within).count(), 6, "{spans:#?}");
}

/// Spans that a collector does not take are lost; requests, and the end of the process, do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_in_trouble_holds_nobody_up() {
    // One listens and never answers, at the other nobody listens.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [&silent, &gone].map(|listener| listener.local_addr().unwrap());
    drop(gone);
    for address in addresses {
        let app = App::builder()
            .await
            .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"))
            .environment("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
            .environment("OTEL_BSP_SCHEDULE_DELAY", "10")
            .environment("OTEL_BSP_MAX_QUEUE_SIZE", "4")
            .start()
            .await;
        let key = app.live_key("1");
        for _ in 0..5 {
            let request = json!({"model": "dall-e-3", "prompt": "a letter without an answer"});
            app.generate(&key, &request).await.expect(200);
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let figures = app.figures().await;
            let lost = "easel_trace_batches_total{outcome=\"lost\"} ";
            let lost = figures.lines().find_map(|line| line.strip_prefix(lost));
            if lost.unwrap().parse::<u64>().unwrap() >= 2 {
                break;
            }
            assert!(Instant::now() < deadline, "{figures}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Said once, not with every batch.
        let log = app.easel.stderr();
        assert_eq!(log.matches("the collector cannot be reached").count(), 1);
        assert!(
            !log.contains(&address.to_string()),
            "its address is the operator's"
        );
        // Ends within the time that every other does.
        app.finish().await;
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_is_handed_on() {
    let app = App::start().await;
    generate_within(&app, true).await;
    assert!(!app.openai.calls()[0].headers.contains_key("traceparent"));
    app.finish().await;
}
