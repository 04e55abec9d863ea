//! `POST /v1/images/generations`, and what became of earlier ones.

use axum::{Extension, extract::State, response::Response};
use http::HeaderMap;

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
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    let GenerationBody {
        model,
        params,
        preferences,
        dropped,
    } = params::parse(object, key.unsupported_parameters).map_err(ApiError::Parameter)?;
    refuse_streaming(params.get(&Parameter::Stream))?;
    let order = Order {
        request,
        key,
        model,
        params,
        preferences,
        idempotency_key: idempotency_key(&headers),
    };
    let generation = app.gateway.generate(order).await?;
    Ok(answer::generation(&app, &generation, &dropped))
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

fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    let key = headers.get("idempotency-key")?.to_str().ok()?;
    (1..=LONGEST_IDEMPOTENCY_KEY)
        .contains(&key.len())
        .then(|| key.to_owned())
}
