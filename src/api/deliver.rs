//! From an order to its answer: what every endpoint that makes pictures ends with.

use axum::response::Response;

use super::{
    ApiError, App,
    answer::{self, Frame},
    later, middleware, relayed, stream,
};
use crate::{
    catalog::{Parameter, Value},
    gateway::{Delivery, Order, Reader},
    ledger::{Caller, Gauge, LedgerError},
};

/// Which endpoint an order came through, as far as its answer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pictures from a prompt.
    Generation,
    /// Pictures from pictures.
    Edit,
}

/// Has the order carried out and answers it. `dropped` are fields that no endpoint knows and that were left
/// out of it.
///
/// # Errors
/// [`ApiError`]; a request that came to no hold has been counted.
pub(super) async fn deliver(
    app: &App,
    order: Order,
    kind: Kind,
    dropped: Vec<String>,
) -> Result<Response, ApiError> {
    middleware::note_model(app.gateway.model_of(&order).as_deref());
    let (caller, gauge) = (Caller::from(&order.key), order.gauge.clone());
    if let Some(url) = &order.webhook_url
        && let Err(refusal) = later::check_webhook(app, &order, url).await
    {
        return Err(refused(app, caller, &gauge, refusal).await);
    }
    if order.reader == Reader::ComesBack {
        let answered = later::answer(app, order, &dropped).await;
        return match answered {
            Err(ApiError::Gateway(error)) if error.is_refused_request() => {
                Err(refused(app, caller, &gauge, error.into()).await)
            }
            answered => answered,
        };
    }
    let safety_identifier = match order.params.get(&Parameter::SafetyIdentifier) {
        Some(Value::Text(identifier)) if !identifier.is_empty() => Some(identifier.clone()),
        _ => None,
    };
    let frame = Frame {
        kind,
        safety_identifier,
        dropped,
    };
    // By the body and not by what it accepts: both SDKs say that they accept JSON.
    let answered = if order.params.get(&Parameter::Stream) == Some(&Value::Flag(true)) {
        stream::answer(app, order, frame).await
    } else {
        app.gateway
            .generate(order)
            .await
            .map(|delivery| match delivery {
                Delivery::Whole(generation) => answer::generation(app, &generation, &frame),
                Delivery::Begun(progress) => relayed::answer(app, progress, frame),
            })
    };
    match answered {
        Ok(response) => Ok(response),
        Err(error) if error.is_refused_request() => {
            Err(refused(app, caller, &gauge, error.into()).await)
        }
        Err(error) => Err(error.into()),
    }
}

/// Counts a request that came to no hold, and says what its caller is told: that it was refused, or that
/// there were too many of them.
pub(super) async fn refused(
    app: &App,
    caller: Caller,
    gauge: &Gauge,
    refusal: ApiError,
) -> ApiError {
    match app.ledger.count_refused(caller, gauge).await {
        Ok(()) => refusal,
        Err(too_many @ LedgerError::RateLimited { .. }) => too_many.into(),
        Err(error) => {
            // What is wrong with the request stays wrong whether or not it was counted.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a refused request was not counted"
            );
            refusal
        }
    }
}
