//! The table of contents of the operator's API.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use tokio::time::Instant;

use super::{
    Admin, Desk, accounts, bookings, config, generations, images, keys, models, providers, usage,
    webhooks,
};
use crate::api::{
    bearer,
    routes::{Routes, get, post},
};

/// Every endpoint, behind the token.
pub fn router(admin: Admin) -> Router {
    let desk = Arc::new(admin);
    let endpoints = endpoints()
        .into_router()
        // Only around what exists: an unknown path is 404 whoever asks.
        .route_layer(from_fn_with_state(Arc::clone(&desk), authenticate))
        .with_state(desk);
    Router::new().nest(PREFIX, endpoints)
}

/// Where they are.
pub(super) const PREFIX: &str = "/admin/v1";

/// All that is served here must be in [`openapi`](super::openapi), where a test looks for it.
pub(super) fn endpoints() -> Routes<Desk> {
    Routes::new()
        .route("/accounts", get(accounts::list).post(accounts::create))
        .route(
            "/accounts/{id}",
            get(accounts::show).patch(accounts::update),
        )
        .route("/accounts/{id}/credit", post(bookings::credit))
        .route("/accounts/{id}/debit", post(bookings::debit))
        .route("/accounts/{id}/entries", get(bookings::list))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}", get(keys::show).patch(keys::update))
        .route("/keys/{id}/rotate", post(keys::rotate))
        .route("/keys/{id}/revoke", post(keys::revoke))
        .route(
            "/keys/{id}/webhooks",
            get(webhooks::show).put(webhooks::update),
        )
        .route("/keys/{id}/webhooks/rotate", post(webhooks::rotate))
        .route("/generations", get(generations::list))
        .route("/generations/{id}", get(generations::show))
        .route("/images", get(images::list))
        .route("/usage", get(usage::usage))
        .route("/providers", get(providers::list))
        .route("/providers/{name}", get(providers::show))
        .route("/providers/{name}/rest", post(providers::rest))
        .route("/providers/{name}/resume", post(providers::resume))
        .route("/models", get(models::list))
        // Ids contain slashes.
        .route("/models/{*id}", get(models::show))
        .route("/config", get(config::show))
        .route("/reload", post(config::reload))
}

async fn authenticate(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let client = (desk.app.proxies).client(request.headers(), request.extensions());
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| bearer(value.to_str().ok()?));
    let admitted = desk.guard.admit(client, token, Instant::now());
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    // Balances and new secrets are for nobody's cache.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
