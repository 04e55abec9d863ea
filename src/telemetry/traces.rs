//! Traces, for who has a collector: our spans, sent over OTLP, within the trace that a client began and handed on
//! to providers (W3C `traceparent`).
//!
//! A span says what its line in the log says and no more (I10): only spans of ours of level `info` are sent, no
//! events. Without an endpoint there is no layer, and each function here is one look at an empty cell. Spans wait in
//! a queue of bounded length that a thread of its own empties; what does not fit, and what the collector does not
//! take in time, is lost, and nobody waits for it.
//!
//! What is handed on, and to whom: a `traceparent`, which is random ids and a flag, goes with calls to the `base_url` of
//! a provider that the operator has configured. Nothing goes with what is fetched by a link, from whoever made the
//! link, nor to a bucket; and of the client's headers neither `tracestate` nor `baggage` goes anywhere.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use opentelemetry::{
    KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{Status, TracerProvider as _},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler as SdkSampler, SdkTracerProvider},
};
use tokio::runtime::Handle;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, dynamic_filter_fn},
    registry::LookupSpan,
};

use super::{TelemetryError, is_ours, metrics::metrics};
use crate::config::{CollectorConfig, Sampler, TracesConfig};

/// Spans of this target are not sent: machines that ask every few seconds whether we live.
pub const PROBE: &str = "easel::probe";

/// How long a collector may take to be reached at all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the last batch may take when the process ends.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Set once spans are sent.
static HANDING_ON: OnceLock<HandingOn> = OnceLock::new();

/// How traces come and go.
struct HandingOn {
    propagator: TraceContextPropagator,
    from_clients: bool,
    to_providers: bool,
}

/// Sends spans until it is stopped.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to send spans there. The sending itself is done on `runtime`.
    pub(super) fn start(
        config: &TracesConfig,
        collector: &CollectorConfig,
        runtime: Handle,
    ) -> Result<Self, TelemetryError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender::new(collector.timeout, runtime)?)
            .with_endpoint(&collector.endpoint)
            .with_timeout(collector.timeout)
            .build()
            .map_err(|error| TelemetryError::Traces(Box::new(error)))?;
        let mut resource = Resource::builder()
            .with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))]);
        if !collector.is_named {
            resource = resource.with_service_name("easel");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler(collector.sampler))
            .with_resource(resource.build())
            .build();
        let handing_on = HandingOn {
            propagator: TraceContextPropagator::new(),
            from_clients: config.from_clients,
            to_providers: config.to_providers,
        };
        drop(HANDING_ON.set(handing_on));
        Ok(Self(provider))
    }

    /// What gathers the spans.
    pub(super) fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        // One that is asked each time: a filter that decides once for each span lets `tracing` skip the question, and
        // then an answer left behind by somebody else's `enabled!` on the same thread (sqlx has one) holds for ours, and
        // the span is lost.
        let filter = dynamic_filter_fn(|metadata, _| {
            metadata.is_span()
                && is_ours(metadata.target())
                && metadata.target() != PROBE
                && *metadata.level() <= Level::INFO
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("easel"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter.with_max_level_hint(LevelFilter::INFO))
            .boxed()
    }

    /// Sends what is left, though not for ever. Blocks.
    pub(super) fn stop(self) {
        // What could not be sent is lost; there is nobody left to tell.
        drop(self.0.shutdown_with_timeout(STOP_PATIENCE));
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Traces")
    }
}

fn sampler(config: Sampler) -> SdkSampler {
    let own = SdkSampler::TraceIdRatioBased(config.ratio);
    if config.follows_parent {
        SdkSampler::ParentBased(Box::new(own))
    } else {
        own
    }
}

/// A step of a request that is worth a span of its own where there are traces; in the log it would only make the
/// lines longer.
pub fn step(span: impl FnOnce() -> Span) -> Span {
    match HANDING_ON.get() {
        Some(_) => span(),
        None => Span::none(),
    }
}

/// An exchange begins: its span goes on with the trace of the client, if it says that there is one.
pub fn received(span: &Span, method: &Method, route: &str, headers: &HeaderMap) {
    let Some(handing_on) = HANDING_ON.get() else {
        return;
    };
    if handing_on.from_clients {
        // Before the first use of the span, which is when it is begun.
        drop(span.set_parent(handing_on.propagator.extract(&Incoming(headers))));
    }
    span.record("otel.name", format!("{method} {route}"));
    span.record("otel.kind", "server");
}

/// It is answered.
pub fn answered(span: &Span, status: u16) {
    if HANDING_ON.get().is_none() {
        return;
    }
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// A call to a provider begins.
pub fn calling(span: &Span) {
    if HANDING_ON.get().is_some() {
        span.record("otel.kind", "client");
    }
}

/// What goes with a call to a provider's own address, so that it can go on with our trace.
pub fn outgoing() -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(handing_on) = HANDING_ON.get().filter(|it| it.to_providers) {
        let context = Span::current().context();
        (handing_on.propagator).inject_context(&context, &mut Outgoing(&mut headers));
    }
    headers
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
        if key == TRACEPARENT.as_str()
            && let Ok(value) = HeaderValue::try_from(value)
        {
            self.0.insert(TRACEPARENT, value);
        }
    }
}

/// Posts batches with the HTTP library that everything else here is called with. The SDK asks from a thread that
/// belongs to no runtime.
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the last batch was not taken. Said once, not with each.
    is_in_trouble: Arc<AtomicBool>,
}

impl Sender {
    fn new(timeout: Duration, runtime: Handle) -> Result<Self, TelemetryError> {
        // Somebody else may have installed one; any will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_PATIENCE.min(timeout))
            // A collector that says nothing must not be waited for until it does.
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| TelemetryError::Traces(Box::new(error)))?;
        Ok(Self {
            client,
            runtime,
            is_in_trouble: Arc::default(),
        })
    }
}

/// Posts a batch.
async fn post(
    client: &reqwest::Client,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    // Its address may be a secret of the operator's.
    let plain = |error: reqwest::Error| error.without_url();
    let request = request.try_into().map_err(plain)?;
    let answer = client.execute(request).await.map_err(plain)?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        headers.clone_from(answer.headers());
    }
    let body = answer.bytes().await.map_err(plain)?;
    Ok(response.body(body)?)
}

/// Counts a batch, and says when the collector stops taking them and when it takes them again.
fn note(outcome: &Result<Response<Bytes>, HttpError>, is_in_trouble: &AtomicBool) {
    let is_taken = matches!(outcome, Ok(answer) if answer.status().is_success());
    metrics().traced(is_taken);
    let was_in_trouble = is_in_trouble.swap(!is_taken, Ordering::Relaxed);
    match outcome {
        Ok(_) if is_taken && was_in_trouble => {
            tracing::info!("the collector takes traces again");
        }
        Ok(answer) if !is_taken && !was_in_trouble => tracing::warn!(
            http.status = answer.status().as_u16(),
            "the collector does not take traces; they are lost until it does"
        ),
        Err(error) if !was_in_trouble => tracing::warn!(
            error = &**error as &dyn std::error::Error,
            "the collector cannot be reached; traces are lost until it can"
        ),
        Ok(_) | Err(_) => {}
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sender")
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let client = self.client.clone();
        let is_in_trouble = Arc::clone(&self.is_in_trouble);
        let sent = self.runtime.spawn(async move {
            let outcome = post(&client, request).await;
            note(&outcome, &is_in_trouble);
            outcome
        });
        Box::pin(async move { sent.await? })
    }
}
