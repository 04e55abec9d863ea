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
    ids::RequestId,
};

/// The longest `Idempotency-Key` that is kept with a generation.
const LONGEST_IDEMPOTENCY_KEY: usize = 255;

/// `POST /v1/images/generations`
pub(super) async fn create(
    State(app): State<App>,
    Extension(request): Extension<RequestId>,
    Authenticated(key): Authenticated,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    let GenerationBody {
        model,
        params,
        preferences,
        dropped,
    } = params::parse(object, key.unsupported_parameters).map_err(ApiError::Parameter)?;
    refuse_streaming(params.get(&Parameter::Stream))?;
    let safety_identifier = match params.get(&Parameter::SafetyIdentifier) {
        Some(Value::Text(identifier)) if !identifier.is_empty() => Some(identifier.clone()),
        _ => None,
    };
    let order = Order {
        request,
        key,
        model,
        params,
        preferences,
        idempotency_key,
    };
    let generation = app.gateway.generate(order).await?;
    Ok(answer::generation(
        &app,
        &generation,
        safety_identifier.as_deref(),
        &dropped,
    ))
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
