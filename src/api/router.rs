//! The table of contents of the HTTP surface.

use axum::{
    Router,
    handler::Handler,
    middleware::{from_fn, map_response},
};
use http::{Method, Uri};

use super::{
    ApiError, App, cancel, cors, credits, docs, edits, files, generations, health, history,
    metrics, middleware, models, openapi, rates,
    routes::{Endpoint, Routes, get, post},
};

/// Every endpoint, and those of `operator` if there are any, with what every exchange goes through around them.
/// `/metrics` is among them unless it has an address of its own.
/// Pages of `origins` may read all but those two.
pub fn router(app: App, has_metrics: bool, operator: Option<Router>, origins: &[String]) -> Router {
    let metrics = if has_metrics {
        metrics_routes().into_router()
    } else {
        Router::new()
    };
    let all = metrics
        // The 405 first: put in later, it would stand outside of the layer, and preflights are OPTIONS.
        .merge(cors::readable_by(
            origins,
            routes()
                .into_router()
                .method_not_allowed_fallback(method_not_allowed),
        ))
        .with_state(app);
    around(all.merge(operator.unwrap_or_default()))
}

/// What an address of its own for `/metrics` serves: that and nothing else.
pub fn metrics_router(app: App) -> Router {
    around(metrics_routes().into_router().with_state(app))
}

/// All that is served here must be in [`openapi`], where a test looks for it.
fn metrics_routes() -> Routes<App> {
    Routes::new().route("/metrics", get(metrics::get))
}

/// The same.
fn routes() -> Routes<App> {
    Routes::new()
        .route(
            "/v1/images/generations",
            paint(generations::create).get(history::list),
        )
        // Some clients write it so, and a redirect would lose their POST.
        .route(
            "/v1/images/generations/",
            paint(generations::create).get(history::list),
        )
        .route(
            "/v1/images/generations/{id}",
            get(history::show).delete(cancel::cancel),
        )
        .route(
            "/v1/images/generations/{id}/",
            get(history::show).delete(cancel::cancel),
        )
        .route("/v1/images/edits", paint(edits::edit))
        .route("/v1/images/edits/", paint(edits::edit))
        .route("/v1/images/variations", paint(edits::vary))
        .route("/v1/images/variations/", paint(edits::vary))
        .route("/v1/models", get(models::list))
        .route("/v1/models/", get(models::list))
        // Ids contain slashes.
        .route("/v1/models/{*id}", get(models::show))
        .route("/v1/credits", get(credits::credits))
        .route("/v1/credits/", get(credits::credits))
        .route("/v1/usage", get(credits::usage))
        .route("/v1/usage/", get(credits::usage))
        .route(
            "/files/{name}",
            get(files::get).map(|methods| methods.layer(map_response(files::harmless))),
        )
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::get))
        .route("/docs", get(docs::page))
        .route("/docs/{file}", get(docs::file))
}

/// Every method of every path.
#[cfg(test)]
pub(crate) fn served() -> Vec<super::routes::Served> {
    [metrics_routes().served(), routes().served()].concat()
}

/// A POST for pictures, whose every answer says how the caller's limits per minute stand.
fn paint<H: Handler<T, App>, T: 'static>(handler: H) -> Endpoint<App> {
    post(handler).map(|methods| methods.route_layer(from_fn(rates::tell)))
}

fn around(routes: Router) -> Router {
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        // Outermost, so that the two fallbacks are named and logged like everything else.
        .layer(from_fn(middleware::exchange))
}

async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    ApiError::UnknownPath(method, super::error::excerpt(uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(method, super::error::excerpt(uri.path()))
}
