//! What every exchange goes through: a request id, one log line, an envelope even for a panic, and a body that
//! is read on when it is refused.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;
use tracing::{Instrument, field::Empty, info_span};

use super::{ApiError, unread};
use crate::{ids::RequestId, telemetry::metrics::metrics};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What machines ask every few seconds: worth a line only when it fails.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Goes with an answer, for the figures: the catalog's id of the model that it is about.
#[derive(Debug, Clone)]
pub(super) struct ServedModel(pub(super) Arc<str>);

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
    let span = info_span!(
        "request",
        request.id = %id,
        http.method = %request.method(),
        http.route = route.as_str(),
        key.id = Empty,
        generation.id = Empty,
        model.id = Empty,
        provider.name = Empty,
        cost_usd = Empty,
        error.code = Empty,
    );
    async move {
        let started = Instant::now();
        let mut response = AssertUnwindSafe(next.run(request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| ApiError::Internal("a handler panicked".into()).into_response());
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        let status = response.status().as_u16();
        let latency = started.elapsed();
        let model = response.extensions().get::<ServedModel>();
        let model = model.map(|ServedModel(model)| &**model);
        metrics().answered(&method, &route, model, status, latency);
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        if is_probe && response.status().is_success() {
            tracing::debug!(http.status = status, latency_ms, "answered");
        } else {
            tracing::info!(http.status = status, latency_ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}
