//! `POST /v1/images/generations`.

use axum::{Extension, extract::State, response::Response};

use super::{
    ApiError, App,
    asked::Asked,
    auth::Authenticated,
    body::JsonObject,
    deliver::{self, Kind},
    params::{self, GenerationBody},
};
use crate::{
    gateway::Order,
    ids::RequestId,
    keys::ApiKey,
    ledger::{Caller, Gauge},
    providers::Task,
};

/// `POST /v1/images/generations`
pub(super) async fn create(
    State(app): State<App>,
    Extension(request): Extension<RequestId>,
    Extension(gauge): Extension<Gauge>,
    Authenticated(key): Authenticated,
    asked: Result<Asked, ApiError>,
    body: Result<JsonObject, ApiError>,
) -> Result<Response, ApiError> {
    let (body, asked) = match read(body, asked, &key) {
        Ok(read) => read,
        Err(refusal) => {
            return Err(deliver::refused(&app, Caller::from(&key), &gauge, refusal).await);
        }
    };
    let order = Order {
        request,
        key,
        model: body.model,
        params: body.params,
        task: Task::Generate,
        preferences: body.preferences,
        request_hash: Some(asked.hash()),
        retry_count: asked.retry_count,
        idempotency_key: asked.idempotency_key,
        reader: asked.reader,
        gauge,
        webhook_url: body.webhook_url,
    };
    deliver::deliver(&app, order, Kind::Generation, body.dropped).await
}

fn read(
    body: Result<JsonObject, ApiError>,
    asked: Result<Asked, ApiError>,
    key: &ApiKey,
) -> Result<(GenerationBody, Asked), ApiError> {
    let mut asked = asked?;
    let JsonObject(object, bytes) = body?;
    asked.bytes(&bytes);
    let body = params::parse(object, key.unsupported_parameters).map_err(ApiError::Parameter)?;
    Ok((body, asked))
}
