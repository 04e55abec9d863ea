//! `GET /metrics`: figures for Prometheus.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use tokio::time::{Duration, Instant, timeout};

use super::App;
use crate::{
    providers::registry::Switch,
    routing::Standing,
    telemetry::metrics::{self, Sample, metrics},
};

/// How long the database may take to say what is in it, each. Without it the other figures are told all the same: an
/// outage is when they are looked at.
const PATIENCE: Duration = Duration::from_secs(1);

/// The providers that are on, and the calls that are being made to each.
fn calls(app: &App) -> Vec<(String, usize)> {
    let slots = app.gateway.rooms().providers.iter();
    slots
        .filter_map(|(name, slot)| match &slot.switch {
            Switch::On(provider) => Some((name.clone(), provider.in_flight())),
            Switch::Off(_) => None,
        })
        .collect()
}

/// `GET /metrics`
pub(super) async fn get(State(app): State<App>) -> Response {
    let (open_holds, pending_webhooks, reconciled) = tokio::join!(
        timeout(PATIENCE, app.ledger.count_open_holds()),
        timeout(PATIENCE, app.ledger.count_pending_deliveries()),
        timeout(PATIENCE, app.ledger.last_reconciliation()),
    );
    let pending_webhooks = pending_webhooks.ok().and_then(Result::ok);
    let reconciled = reconciled.ok().and_then(Result::ok).flatten();
    let routes = app.gateway.rooms().health.standings(Instant::now());
    let sample = Sample {
        in_flight: app.gateway.in_flight(),
        open_holds: open_holds.ok().and_then(Result::ok),
        pending_webhooks: pending_webhooks
            .map(|pending| (pending.count, pending.oldest, pending.overdue)),
        reconciled: reconciled.map(|last| (last.finished_at.timestamp(), last.disagreements)),
        pool: app.ledger.pool_size(),
        routes: routes
            .into_iter()
            .map(|(provider, model, standing)| (provider, model, standing == Standing::Resting))
            .collect(),
        ledger_queue: app.ledger.queue().to_vec(),
        providers: calls(&app),
        store_is_well: app.gateway.rooms().store.is_well(),
        spool_bytes: app.spool.used_bytes(),
        request_body_bytes: app.bodies.used_bytes(),
    };
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        metrics().exposition(&sample),
    )
        .into_response()
}
