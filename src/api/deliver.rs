//! From an order to its answer: what every endpoint that makes pictures ends with.

use axum::response::Response;

use super::{
    ApiError, App,
    answer::{self, Frame},
    later, middleware, relayed, stream,
};
use crate::{
    catalog::{Parameter, Value},
    gateway::{Delivery, Order, Reader, Recall},
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
/// out of it. What would be refused and was answered before is told again.
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
    let (caller, gauge, reader) = (Caller::from(&order.key), order.gauge.clone(), order.reader);
    let streams = order.params.get(&Parameter::Stream) == Some(&Value::Flag(true));
    let safety_identifier = match order.params.get(&Parameter::SafetyIdentifier) {
        Some(Value::Text(identifier)) if !identifier.is_empty() => Some(identifier.clone()),
        _ => None,
    };
    let frame = Frame {
        kind,
        safety_identifier,
        dropped,
    };
    let recall = Recall::of(&order);
    let refusal = match carry_out(app, order, frame.clone(), streams).await {
        Err(refusal) if is_refused_request(&refusal) => refusal,
        answered => return answered,
    };
    if let Some(recall) = recall
        && let Some(before) = app.gateway.find_repeated(&recall).await?
    {
        if reader == Reader::ComesBack {
            return later::repeated(app, caller.account, before).await;
        }
        match app.gateway.recall(recall, before).await? {
            Some(generation) if streams => return Ok(stream::generation(app, generation, frame)),
            Some(generation) => return Ok(answer::generation(app, &generation, &frame)),
            // It has been counted.
            None => return Err(refusal),
        }
    }
    Err(refused(app, caller, &gauge, refusal).await)
}

async fn carry_out(
    app: &App,
    order: Order,
    frame: Frame,
    streams: bool,
) -> Result<Response, ApiError> {
    if let Some(url) = &order.webhook_url {
        later::check_webhook(app, &order, url).await?;
    }
    if order.reader == Reader::ComesBack {
        return later::answer(app, order, &frame.dropped).await;
    }
    // By the body and not by what it accepts: both SDKs say that they accept JSON.
    if streams {
        return Ok(stream::answer(app, order, frame).await?);
    }
    Ok(match app.gateway.generate(order).await? {
        Delivery::Whole(generation) => answer::generation(app, &generation, &frame),
        Delivery::Begun(progress) => relayed::answer(app, progress, frame),
    })
}

/// Whether the request itself was refused, before it came to a hold.
fn is_refused_request(refusal: &ApiError) -> bool {
    match refusal {
        ApiError::Gateway(error) => error.is_refused_request(),
        ApiError::Parameter(_) | ApiError::WebhooksForbidden | ApiError::WebhooksPending(_) => true,
        _ => false,
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
