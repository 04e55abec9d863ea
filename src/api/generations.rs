//! `POST /v1/images/generations`, and what became of earlier ones.

use std::convert::Infallible;

use axum::{
    Extension,
    extract::{FromRequestParts, State},
    response::Response,
};
use http::request::Parts;

use super::{
    ApiError, App, answer,
    auth::Authenticated,
    body::JsonObject,
    params::{self, GenerationBody},
};
use crate::{
    catalog::{Parameter, Value, Violation},
    gateway::Order,
    ids::{KeyId, RequestId},
    keys::{ApiKey, KeyLimits},
    ledger::LedgerError,
};

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
    let (id, limits) = (key.id, key.limits);
    let body = match read(body, &key) {
        Ok(body) => body,
        Err(refused) => return Err(counted(&app, id, limits, refused).await),
    };
    let safety_identifier = match body.params.get(&Parameter::SafetyIdentifier) {
        Some(Value::Text(identifier)) if !identifier.is_empty() => Some(identifier.clone()),
        _ => None,
    };
    let order = Order {
        request,
        key,
        model: body.model,
        params: body.params,
        preferences: body.preferences,
        idempotency_key,
    };
    match app.gateway.generate(order).await {
        Ok(generation) => Ok(answer::generation(
            &app,
            &generation,
            safety_identifier.as_deref(),
            &body.dropped,
        )),
        Err(refused) if refused.is_refused_request() => {
            Err(counted(&app, id, limits, refused.into()).await)
        }
        Err(error) => Err(error.into()),
    }
}

fn read(body: Result<JsonObject, ApiError>, key: &ApiKey) -> Result<GenerationBody, ApiError> {
    let JsonObject(object) = body?;
    let body = params::parse(object, key.unsupported_parameters).map_err(ApiError::Parameter)?;
    refuse_streaming(body.params.get(&Parameter::Stream))?;
    Ok(body)
}

/// Counts a request that came to no hold, and says what its caller is told: that it was refused, or that
/// there were too many of them.
async fn counted(app: &App, key: KeyId, limits: KeyLimits, refused: ApiError) -> ApiError {
    match app.ledger.count_refused(key, limits).await {
        Ok(()) => refused,
        Err(too_many @ LedgerError::RateLimited { .. }) => too_many.into(),
        Err(error) => {
            // What is wrong with the request stays wrong whether or not it was counted.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a refused request was not counted"
            );
            refused
        }
    }
}

fn refuse_streaming(stream: Option<&Value>) -> Result<(), ApiError> {
    if stream == Some(&Value::Flag(true)) {
        return Err(ApiError::Parameter(Violation {
            parameter: Parameter::Stream.as_str().to_owned(),
            code: "unsupported_value",
            message:
                "Unsupported value for 'stream': true. This server does not stream yet; supported \
                      values are: false."
                    .to_owned(),
        }));
    }
    Ok(())
}

/// The client's name for the effect, if it gives one that can be kept. Taken out here so that a request
/// that waits for its picture does not keep all of its headers.
pub(super) struct IdempotencyKey(Option<String>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        let key = parts.headers.get("idempotency-key");
        let key = key.and_then(|key| key.to_str().ok());
        let key = key.filter(|key| (1..=LONGEST_IDEMPOTENCY_KEY).contains(&key.len()));
        Ok(Self(key.map(str::to_owned)))
    }
}
