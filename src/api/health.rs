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

/// `GET /readyz`: 503 while draining, without the database, or without room for pictures, with the reason.
/// The last because a provider is paid for a picture that cannot be kept.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let problem = if app.gateway.is_draining() {
        Some("draining")
    } else {
        let store = &app.gateway.rooms().store;
        let (database, store) = tokio::join!(
            timeout(PATIENCE, app.ledger.ping()),
            timeout(PATIENCE, store.probe())
        );
        match (database, store) {
            (Ok(Ok(())), Ok(Ok(()))) => None,
            (Ok(Ok(())), _) => Some("the image store cannot be written"),
            _ => Some("the database does not answer"),
        }
    };
    if let Some(reason) = problem {
        tracing::warn!(reason, "not ready");
    }
    match problem {
        None => (StatusCode::OK, Json(json!({"status": "ready"}))),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "unavailable", "reason": reason})),
        ),
    }
}
