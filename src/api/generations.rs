//! `POST /v1/images/generations`.

use std::convert::Infallible;

use axum::{
    Extension,
    extract::{FromRequestParts, State},
    response::Response,
};
use http::request::Parts;

use super::{
    ApiError, App,
    auth::Authenticated,
    body::JsonObject,
    deliver::{self, Kind},
    params::{self, GenerationBody},
};
use crate::{gateway::Order, ids::RequestId, keys::ApiKey, providers::Task};

/// The longest `Idempotency-Key` that is kept with a generation.
const LONGEST_IDEMPOTENCY_KEY: usize = 255;

/// `POST /v1/images/generations`
pub(super) async fn create(
    State(app): State<App>,
    Extension(request): Extension<RequestId>,
    Authenticated(key): Authenticated,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    body: Result<JsonObject, ApiError>,
) -> Result<Response, ApiError> {
    let body = match read(body, &key) {
        Ok(body) => body,
        Err(refusal) => return Err(deliver::refused(&app, key.id, key.limits, refusal).await),
    };
    let order = Order {
        request,
        key,
        model: body.model,
        params: body.params,
        task: Task::Generate,
        preferences: body.preferences,
        idempotency_key,
    };
    deliver::deliver(&app, order, Kind::Generation, body.dropped).await
}

fn read(body: Result<JsonObject, ApiError>, key: &ApiKey) -> Result<GenerationBody, ApiError> {
    let JsonObject(object) = body?;
    params::parse(object, key.unsupported_parameters).map_err(ApiError::Parameter)
}

/// The client's name for the effect, if it gives one that can be kept. Taken out here so that a request
/// that waits for its picture does not keep all of its headers.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        let key = parts.headers.get("idempotency-key");
        let key = key.and_then(|key| key.to_str().ok());
        let key = key.filter(|key| (1..=LONGEST_IDEMPOTENCY_KEY).contains(&key.len()));
        Ok(Self(key.map(str::to_owned)))
    }
}
