//! What every exchange goes through: a request id, one log line, an envelope even for a panic, and a body that
//! is read on when it is refused.

use std::{cell::OnceCell, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::{MatchedPath, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{ApiError, followed::Followed, unread};
use crate::{
    ids::RequestId,
    telemetry::{metrics::metrics, traces},
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What machines ask every few seconds: worth a line only when it fails.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// In the figures, the model of requests that name one which is not in the catalog.
const UNKNOWN_MODEL: &str = "unknown";

tokio::task_local! {
    /// The model that this exchange is about.
    static MODEL: OnceCell<Arc<str>>;
}

/// Says which model of the catalog this exchange is about, for its log line and the figures; `None` when it names one
/// that is not there. What the client wrote goes nowhere.
pub(super) fn note_model(model: Option<&str>) {
    if let Some(model) = model {
        Span::current().record("model.id", model);
    }
    let label = model.unwrap_or(UNKNOWN_MODEL);
    // Whoever calls this outside of an exchange has nobody to tell; whoever calls it twice was heard.
    MODEL
        .try_with(|cell| drop(cell.set(label.into())))
        .unwrap_or_default();
}

/// Names the exchange, runs it, and logs one line about it. The line says which route it took, not which
/// path: paths and queries carry signed links.
pub(super) async fn exchange(request: Request, next: Next) -> Response {
    let mut request = unread::read_on(request);
    let id = RequestId::new();
    request.extensions_mut().insert(id);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", |path| path.as_str())
        .to_owned();
    let method = request.method().clone();
    let is_probe = PROBES.contains(&&*route);
    macro_rules! span {
        ($target:expr) => {
            info_span!(
                target: $target,
                "request",
                request.id = %id,
                http.method = %request.method(),
                http.route = route.as_str(),
                key.id = Empty,
                generation.id = Empty,
                model.id = Empty,
                provider.name = Empty,
                cost_usd = Empty,
                hold_ms = Empty,
                upstream_ms = Empty,
                settlement_ms = Empty,
                error.code = Empty,
                otel.name = Empty,
                otel.kind = Empty,
            )
        };
    }
    let span = if is_probe {
        span!(traces::PROBE)
    } else {
        span!(module_path!())
    };
    traces::received(&span, &method, &route, request.headers());
    let line = Line {
        span: span.clone(),
        began_at: Instant::now(),
        method,
        route,
        is_probe,
    };
    let handle = async move {
        let response = AssertUnwindSafe(next.run(request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| ApiError::Internal("a handler panicked".into()).into_response());
        let model = MODEL.with(|cell| cell.get().cloned());
        (response, model)
    };
    let (mut response, model) = MODEL.scope(OnceCell::new(), handle).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    line.begin(response, model.as_deref())
}

/// The one line of an exchange, and its figures.
#[derive(Debug)]
pub(super) struct Line {
    span: Span,
    began_at: Instant,
    method: Method,
    route: String,
    is_probe: bool,
}

/// How the body of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All of it was handed on.
    Whole,
    /// It broke off on our side.
    Broken,
    /// The client left.
    Left,
}

impl Line {
    /// The head of the answer is there. What has its whole body at hand is told of at once, what is still being made
    /// when it has ended.
    fn begin(self, response: Response, model: Option<&str>) -> Response {
        let status = response.status().as_u16();
        let latency = self.began_at.elapsed();
        metrics().answered(&self.method, &self.route, model, status, latency);
        traces::answered(&self.span, status);
        if response.body().size_hint().exact().is_some() {
            self.end(status, latency, Ending::Whole);
            return response;
        }
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        response.map(|body| {
            let end = move |ending| self.end(status, latency, ending);
            Body::new(Followed::new(body, length, end))
        })
    }

    /// The answer has ended; its head took `latency`.
    fn end(&self, status: u16, latency: Duration, ending: Ending) {
        let duration = self.began_at.elapsed();
        metrics().exchanged(&self.route, duration);
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let ending = ending.word();
        self.span.in_scope(|| {
            if self.is_probe && (200..300).contains(&status) {
                tracing::debug!(
                    http.status = status,
                    latency_ms,
                    duration_ms,
                    ending,
                    "answered"
                );
            } else {
                tracing::info!(
                    http.status = status,
                    latency_ms,
                    duration_ms,
                    ending,
                    "answered"
                );
            }
        });
    }
}

impl Ending {
    fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Broken => "broken",
            Self::Left => "left",
        }
    }
}
