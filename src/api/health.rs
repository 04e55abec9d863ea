//! `GET /healthz`: the process lives. `GET /readyz`: it can serve.

use std::time::Duration;

use axum::{Json, extract::State};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::App;

/// How long the database may take to answer. Whoever probes is impatient too, and a pool without a
/// connection would keep it waiting for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /healthz`
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: 503 while draining or without the database, with the reason.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let problem = if app.gateway.is_draining() {
        Some("draining")
    } else if let Ok(Ok(())) = timeout(PATIENCE, app.ledger.ping()).await {
        None
    } else {
        Some("the database does not answer")
    };
    match problem {
        None => (StatusCode::OK, Json(json!({"status": "ready"}))),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "unavailable", "reason": reason})),
        ),
    }
}
