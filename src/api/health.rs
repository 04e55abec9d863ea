//! `GET /healthz`: the process lives. `GET /readyz`: it can serve.

use std::time::Duration;

use axum::{Json, extract::State};
use chrono::SecondsFormat;
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

/// How the configuration stands. Anybody may ask, so that what is wrong, and where, is left to the log and to
/// `GET /admin/v1/config`.
fn config(app: &App) -> Value {
    let standing = app.reloads.standing();
    let mut config = json!({
        "state": if standing.refused.is_some() { "refused" } else { "applied" },
        "applied_at": standing.applied_at.to_rfc3339_opts(SecondsFormat::Secs, true),
    });
    if let Some(refused) = standing.refused {
        config["refused_at"] = json!(refused.at.to_rfc3339_opts(SecondsFormat::Secs, true));
        config["message"] = json!(
            "The configuration on disk is refused and changes nothing: the one before is in force. The log says why."
        );
    }
    if !standing.needs_restart.is_empty() {
        config["needs_restart"] = json!(standing.needs_restart);
    }
    config
}

/// `GET /readyz`: 503 while draining, without the database, or without room for pictures, with the reason.
/// The last because a provider is paid for a picture that cannot be kept. A bucket is another matter: all
/// replicas have the same, so none of them would be ready, and answers in base64 need none; so it is only named. A
/// configuration that was refused is told and is no reason: the one before works.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let problem = if app.gateway.is_draining() {
        Some("draining")
    } else {
        let store = &app.gateway.rooms().store;
        let (database, store) = tokio::join!(
            timeout(PATIENCE, app.ledger.ping()),
            timeout(PATIENCE, store.probe_directory())
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
        None => (StatusCode::OK, Json(ready_with(&app).await)),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "unavailable", "reason": reason, "config": config(&app)})),
        ),
    }
}

/// What is in order, and what is not but can be done without.
async fn ready_with(app: &App) -> Value {
    let bucket = timeout(PATIENCE, app.gateway.rooms().store.probe_bucket()).await;
    let store = if matches!(bucket, Ok(Ok(()))) {
        "ready"
    } else {
        tracing::warn!("the bucket of the pictures cannot be written");
        "unavailable"
    };
    json!({"status": "ready", "store": store, "config": config(app)})
}
