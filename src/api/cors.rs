//! Which web pages may read answers: none, unless the operator names them. A key in a page is everybody's who opens
//! it, so this is for tools behind a login, or for pages that ask their user for a key.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
};
use tokio::time::Duration;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

/// What a page may read of an answer besides its body.
const EXPOSED: [HeaderName; 16] = [
    header::LOCATION,
    header::RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("preference-applied"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-generation-id"),
    HeaderName::from_static("x-attempts"),
    HeaderName::from_static("x-dropped-parameters"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("idempotent-replayed"),
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-limit-images"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-remaining-images"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-ratelimit-reset-images"),
];

/// How long a browser remembers what it may send.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Lets pages of these origins (`*`: all) read what these routes answer.
pub(super) fn readable_by<S: Clone + Send + Sync + 'static>(
    origins: &[String],
    routes: Router<S>,
) -> Router<S> {
    if origins.is_empty() {
        return routes;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::from(Any)
    } else {
        let origins = origins.iter();
        AllowOrigin::list(origins.filter_map(|origin| HeaderValue::try_from(origin).ok()))
    };
    // No credentials: a key travels in a header, and nothing here has a cookie.
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        // Clients have headers of their own, which mean nothing here; a star would leave Authorization out.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE);
    routes.layer(layer)
}
