//! `GET /healthz`: the process lives. `GET /readyz`: it can serve.

use std::time::Duration;

use axum::{Json, extract::State};
use chrono::{DateTime, SecondsFormat, Utc};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

use super::App;

/// How long the database, the directory and the bucket may take to answer, all at the same time. Whoever probes is
/// impatient too, and a pool without a connection would keep it waiting for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// That the process lives.
#[derive(Serialize, JsonSchema)]
pub(super) struct Liveness {
    #[schemars(extend("const" = "ok"))]
    status: &'static str,
}

/// Whether it can serve.
#[derive(Serialize, JsonSchema)]
pub(super) struct Readiness {
    #[schemars(extend("enum" = ["ready", "unavailable"]))]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whether pictures can be kept in the bucket. Told when ready, and no reason not to be: answers in base64 go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["ready", "unavailable"]))]
    store: Option<&'static str>,
    config: Configuration,
}

/// How the configuration on disk stands.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConfigurationState")]
struct Configuration {
    #[schemars(extend("enum" = ["applied", "refused"]))]
    state: &'static str,
    applied_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// Keys that have changed and need a restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needs_restart: Vec<&'static str>,
}

/// `GET /healthz`
pub(super) async fn alive() -> Json<Liveness> {
    Json(Liveness { status: "ok" })
}

/// How the configuration stands. Anybody may ask, so that what is wrong, and where, is left to the log and to
/// `GET /admin/v1/config`.
fn config(app: &App) -> Configuration {
    let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let standing = app.reloads.standing();
    Configuration {
        state: if standing.refused.is_some() {
            "refused"
        } else {
            "applied"
        },
        applied_at: instant(standing.applied_at),
        message: standing.refused.as_ref().map(|_| {
            "The configuration on disk is refused and changes nothing: the one before is in force. The log says why."
        }),
        refused_at: standing.refused.map(|refused| instant(refused.at)),
        needs_restart: standing.needs_restart,
    }
}

/// `GET /readyz`: 503 while draining, without the database, or without room for pictures, with the reason.
/// The last because a provider is paid for a picture that cannot be kept. A bucket is another matter: all
/// replicas have the same, so none of them would be ready, and answers in base64 need none; so it is only named. A
/// configuration that was refused is told and is no reason: the one before works.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let (problem, store) = if app.gateway.is_leaving() {
        (Some("draining"), None)
    } else {
        let store = &app.gateway.rooms().store;
        let (database, directory, bucket) = tokio::join!(
            timeout(PATIENCE, app.ledger.ping()),
            timeout(PATIENCE, store.probe_directory()),
            bucket(&app)
        );
        match (database, directory) {
            (Ok(Ok(())), Ok(Ok(()))) => (None, Some(bucket)),
            (Ok(Ok(())), _) => (Some("the image store cannot be written"), None),
            _ => (Some("the database does not answer"), None),
        }
    };
    let (code, status) = match problem {
        None => (StatusCode::OK, "ready"),
        Some(reason) => {
            tracing::warn!(reason, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
    };
    let readiness = Readiness {
        status,
        reason: problem,
        store,
        config: config(&app),
    };
    (code, Json(readiness))
}

/// Whether pictures can be kept in the bucket, if there is one.
async fn bucket(app: &App) -> &'static str {
    let bucket = timeout(PATIENCE, app.gateway.rooms().store.probe_bucket()).await;
    if matches!(bucket, Ok(Ok(()))) {
        "ready"
    } else {
        tracing::warn!("the bucket of the pictures cannot be written");
        "unavailable"
    }
}
