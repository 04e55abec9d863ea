//! `/admin/v1/providers`: who is on or off and why, how each has been doing, and resting one by hand.
//!
//! What is seen and ordered here is this process's: every replica learns for itself, and obeys for itself.

use std::time::Duration;

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Admin, Desk,
    error::AdminError,
    extract::{Named, Sent, Text},
    page::List,
    words::Span,
};
use crate::{
    gateway::ProviderSlot,
    providers::registry::Switch,
    routing::{RouteReport, Standing},
};

/// For how long.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ProviderRest")]
#[serde(deny_unknown_fields)]
pub(super) struct Rest {
    #[serde(rename = "for")]
    time: Text<Span>,
}

/// A provider as this process sees it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Provider")]
pub(super) struct ProviderJson {
    object: &'static str,
    name: String,
    adapter: String,
    on: bool,
    /// Why it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// `healthy`; `degraded` when a route of it is; `resting` when all of it is tried last.
    standing: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rests_for_seconds: Option<u64>,
    /// Whether an operator ordered the rest.
    rest_ordered: bool,
    /// Calls that are being made now, and how many may be.
    in_flight: usize,
    max_in_flight: usize,
    markup_basis_points: u32,
    /// Those that have been called.
    routes: Vec<RouteJson>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProviderRoute")]
struct RouteJson {
    upstream_model: String,
    standing: &'static str,
    /// The fading share of calls that failed, 0 to 1.
    failure_rate: f64,
    failures_in_a_row: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    images_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rests_for_seconds: Option<u64>,
}

/// `GET /admin/v1/providers`
pub(super) async fn list(State(desk): State<Desk>) -> Json<List<ProviderJson>> {
    let providers = desk.app.gateway.rooms().providers.iter();
    List::whole(
        providers
            .map(|(name, slot)| describe(&desk, name, slot))
            .collect(),
    )
}

/// `GET /admin/v1/providers/{name}`
pub(super) async fn show(
    State(desk): State<Desk>,
    Named(name): Named,
) -> Result<Json<ProviderJson>, AdminError> {
    let slot = find(&desk, &name)?;
    Ok(Json(describe(&desk, &name, slot)))
}

/// `POST /admin/v1/providers/{name}/rest`
pub(super) async fn rest(
    State(desk): State<Desk>,
    Named(name): Named,
    Sent(rest): Sent<Rest>,
) -> Result<Json<ProviderJson>, AdminError> {
    let slot = find(&desk, &name)?;
    let Text(Span(time)) = rest.time;
    let health = &desk.app.gateway.rooms().health;
    health.rest(&name, time, Instant::now());
    tracing::info!(
        provider.name = name,
        rest_seconds = time.as_secs(),
        "an operator rests a provider"
    );
    Ok(Json(describe(&desk, &name, slot)))
}

/// `POST /admin/v1/providers/{name}/resume`
pub(super) async fn resume(
    State(desk): State<Desk>,
    Named(name): Named,
) -> Result<Json<ProviderJson>, AdminError> {
    let slot = find(&desk, &name)?;
    desk.app.gateway.rooms().health.resume(&name);
    tracing::info!(provider.name = name, "an operator has a provider resume");
    Ok(Json(describe(&desk, &name, slot)))
}

fn find<'a>(desk: &'a Admin, name: &str) -> Result<&'a ProviderSlot, AdminError> {
    let slot = desk.app.gateway.rooms().providers.get(name);
    slot.ok_or_else(|| AdminError::not_found("provider", name))
}

fn describe(desk: &Admin, name: &str, slot: &ProviderSlot) -> ProviderJson {
    let health = desk
        .app
        .gateway
        .rooms()
        .health
        .of_provider(name, Instant::now());
    let section = desk.config.providers.get(name);
    let is_well = |route: &RouteReport| route.condition.standing == Standing::Healthy;
    let standing = if health.rests_for.is_some() {
        Standing::Resting
    } else if health.routes.iter().all(is_well) {
        Standing::Healthy
    } else {
        Standing::Degraded
    };
    let (reason, in_flight) = match &slot.switch {
        Switch::On(provider) => (None, provider.in_flight()),
        Switch::Off(reason) => (Some(reason.clone()), 0),
    };
    ProviderJson {
        object: "provider",
        name: name.to_owned(),
        adapter: section.map_or_else(String::new, |section| section.adapter.clone()),
        on: reason.is_none(),
        reason,
        standing: word(standing),
        rests_for_seconds: health.rests_for.map(seconds),
        rest_ordered: health.by_order,
        in_flight,
        max_in_flight: section.map_or(0, |section| section.max_in_flight),
        markup_basis_points: slot.markup_basis_points,
        routes: health.routes.into_iter().map(RouteJson::from).collect(),
    }
}

impl From<RouteReport> for RouteJson {
    fn from(route: RouteReport) -> Self {
        let condition = route.condition;
        Self {
            upstream_model: route.upstream_model,
            standing: word(condition.standing),
            failure_rate: rounded(condition.failure_rate),
            failures_in_a_row: route.failures_in_a_row,
            latency_ms: condition
                .latency
                .map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            images_per_second: condition.images_per_second.map(rounded),
            rests_for_seconds: route.rests_for.map(seconds),
        }
    }
}

pub(super) fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Healthy => "healthy",
        Standing::Degraded => "degraded",
        Standing::Resting => "resting",
    }
}

/// Rounded up: a rest that is nearly over is one.
fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Nobody acts on the fourth digit.
fn rounded(measure: f64) -> f64 {
    (measure * 1000.0).round() / 1000.0
}
