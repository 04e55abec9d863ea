//! Answers that their clients come back for (`Prefer: respond-async`, RFC 7240, section 4.1): 202 with the
//! generation object as soon as the hold is committed. Whatever is refused before that is refused as ever.

use std::{error::Error, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    ApiError, App, answer, object::GenerationJson, params::WEBHOOK_URL, prefer::RESPOND_ASYNC,
};
use crate::{
    catalog::{Parameter, Value, Violation},
    gateway::{Begun, GatewayError, Order, Reader},
    ids::{AccountId, GenerationId},
    ledger::{self, GenerationStatus},
    webhooks::Teller,
};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The path of a generation, below that of `public_url`; clients resolve it against the host that they asked.
const GENERATIONS: &str = "/v1/images/generations";
/// Of the time that a generation has taken so far, the part after which to look at it again.
const SHARE_OF_AGE: u32 = 4;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Has the order carried out and says where to ask for it. `dropped` are fields that no endpoint knows.
///
/// # Errors
/// [`ApiError`]; when it is returned nothing is held and nothing was charged.
pub(super) async fn answer(
    app: &App,
    order: Order,
    dropped: &[String],
) -> Result<Response, ApiError> {
    if order.params.get(&Parameter::Stream) == Some(&Value::Flag(true)) {
        let message = "Invalid value for 'stream': a request with 'Prefer: respond-async' is answered before \
                       there is anything to stream. Leave one of the two out."
            .to_owned();
        let violation = Violation::named(Parameter::Stream.as_str(), "invalid_value", message);
        return Err(GatewayError::Violation(violation).into());
    }
    let account = order.key.account;
    let name = order.idempotency_key.clone();
    let accepted = app.gateway.accept(order)?;
    let intro = accepted.intro().clone();
    let user = accepted.end_user();
    let mut response = match accepted.begin().await? {
        Begun::New => {
            answer::announce(&intro);
            let begun = GenerationJson::begun(intro.id, intro.model, user, name);
            let mut response = (StatusCode::ACCEPTED, Json(begun)).into_response();
            say_where(app, response.headers_mut(), intro.id);
            say_come_back(app, response.headers_mut(), intro.id.created_at());
            response
        }
        Begun::Repeat(before) => repeated(app, account, before).await?,
    };
    let headers = response.headers_mut();
    headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    answer::say_dropped(headers, &intro.dropped, dropped);
    Ok(response)
}

/// How the generation stands that the request repeats.
pub(super) async fn repeated(
    app: &App,
    account: AccountId,
    before: GenerationId,
) -> Result<Response, ApiError> {
    let found = app.ledger.generation(account, before).await?;
    let found = found.ok_or_else(|| {
        ApiError::Internal(format!("{before} is of another account than its key").into())
    })?;
    let mut response = shown(app, &found).await?;
    let headers = response.headers_mut();
    headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    answer::say_replayed(headers, true);
    Ok(response)
}

/// Whether the end of this order may be told there.
///
/// # Errors
/// [`ApiError::Parameter`]; [`ApiError::WebhooksForbidden`]; [`ApiError::WebhooksPending`].
pub(super) async fn check_webhook(app: &App, order: &Order, url: &str) -> Result<(), ApiError> {
    let invalid = |message| {
        let violation = Violation::named(WEBHOOK_URL, "invalid_value", message);
        Err(ApiError::Parameter(violation))
    };
    if order.reader == Reader::Waits {
        return invalid(format!(
            "Invalid value for '{WEBHOOK_URL}': only a request with 'Prefer: respond-async' has a webhook. Send \
             that header, or leave the parameter out."
        ));
    }
    if let Err(refusal) = app.webhook_targets.check(url) {
        return invalid(format!("Invalid value for '{WEBHOOK_URL}': {refusal}."));
    }
    if !app.keys.allows_webhooks(order.key.id).await? {
        return Err(ApiError::WebhooksForbidden);
    }
    // Those of generations in flight are not counted: they are bounded by themselves.
    let most = app.limits.pending_webhooks;
    if app
        .ledger
        .has_pending_deliveries(order.key.id, most)
        .await?
    {
        return Err(ApiError::WebhooksPending(most));
    }
    Ok(())
}

/// Tells webhooks what a generation looks like.
impl Teller for App {
    fn tell<'a>(
        &'a self,
        generation: &'a ledger::Generation,
    ) -> BoxFuture<'a, Result<String, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            let object = GenerationJson::of(self, generation).await?;
            Ok(serde_json::to_string(&object)?)
        })
    }
}

/// A generation: 202 while it runs, 200 when it has ended.
pub(super) async fn shown(
    app: &App,
    generation: &ledger::Generation,
) -> Result<Response, ApiError> {
    let is_running = generation.status == GenerationStatus::InProgress;
    let status = if is_running {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let object = GenerationJson::of(app, generation).await?;
    let mut response = (status, Json(object)).into_response();
    let headers = response.headers_mut();
    say_where(app, headers, generation.id);
    if is_running {
        say_come_back(app, headers, generation.created_at);
    }
    Ok(response)
}

fn say_where(app: &App, headers: &mut HeaderMap, id: GenerationId) {
    answer::trace(headers, &id.to_string(), "");
    let below = app.gateway.rooms().links.path();
    if let Ok(location) = HeaderValue::from_str(&format!("{below}{GENERATIONS}/{id}")) {
        headers.insert(header::LOCATION, location);
    }
}

/// Says when to look again at a generation that runs: what has taken long takes longer.
pub(super) fn say_come_back(app: &App, headers: &mut HeaderMap, created_at: ledger::Instant) {
    let age = (app.clock.now() - created_at).to_std().unwrap_or_default();
    let pause = (age / SHARE_OF_AGE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()));
}
