//! `GET /healthz`: the process lives. `GET /readyz`: it can serve.

use axum::{Json, extract::State};
use http::StatusCode;
use serde_json::{Value, json};

use super::App;

/// `GET /healthz`
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: 503 while draining or without the database, with the reason.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let problem = if app.gateway.is_draining() {
        Some("draining")
    } else if app.ledger.ping().await.is_err() {
        Some("the database does not answer")
    } else {
        None
    };
    match problem {
        None => (StatusCode::OK, Json(json!({"status": "ready"}))),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "unavailable", "reason": reason})),
        ),
    }
}
