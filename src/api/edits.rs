//! `POST /v1/images/edits` and `POST /v1/images/variations`.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, header};
use serde_json::{Map, Value as Json};

use super::{
    ApiError, App,
    asked::Asked,
    auth::Authenticated,
    body::{self, BodyReader},
    deliver::{self, Kind},
    edit_json, form, params,
    uploads::Uploads,
};
use crate::{
    budget::Owner,
    catalog::Violation,
    gateway::{GatewayError, Order},
    ids::RequestId,
    keys::ApiKey,
    ledger::{Caller, Gauge},
    money::NanoUsd,
    providers::{Inputs, Task},
};

const JSON: &str = "application/json";

/// `POST /v1/images/edits`
pub(super) async fn edit(
    State(app): State<App>,
    Extension(request): Extension<RequestId>,
    Extension(gauge): Extension<Gauge>,
    Authenticated(key): Authenticated,
    asked: Result<Asked, ApiError>,
    body: Request,
) -> Result<Response, ApiError> {
    let is_json = media_type(body.headers()).eq_ignore_ascii_case(JSON);
    let read = read(&app, &key, asked, body)
        .await
        .and_then(|(asked, (object, uploads))| {
            let (images, mask) = uploads.into_parts();
            if images.is_empty() {
                return Err(ApiError::Parameter(Violation::missing_named("image")));
            }
            let task = Task::Edit(Arc::new(Inputs { images, mask }));
            Ok((asked, object, task))
        });
    let answered = perform(&app, request, gauge, key, read).await;
    answered.map_err(|refusal| if is_json { in_json(refusal) } else { refusal })
}

/// `POST /v1/images/variations`
pub(super) async fn vary(
    State(app): State<App>,
    Extension(request): Extension<RequestId>,
    Extension(gauge): Extension<Gauge>,
    Authenticated(key): Authenticated,
    asked: Result<Asked, ApiError>,
    body: Request,
) -> Result<Response, ApiError> {
    let is_json = media_type(body.headers()).eq_ignore_ascii_case(JSON);
    let read = read(&app, &key, asked, body)
        .await
        .and_then(|(asked, (object, uploads))| {
            let (images, mask) = uploads.into_parts();
            if mask.is_some() {
                let message = "Unknown parameter: 'mask'. A variation has none.".to_owned();
                return Err(ApiError::Parameter(Violation::named(
                    "mask",
                    "unknown_parameter",
                    message,
                )));
            }
            let count = images.len();
            let mut images = images.into_iter();
            match (images.next(), images.next()) {
                (Some(image), None) => Ok((asked, object, Task::Vary(Arc::new(image)))),
                (Some(_), Some(_)) => {
                    Err(ApiError::Parameter(Violation::too_many_images(1, count)))
                }
                (None, _) => Err(ApiError::Parameter(Violation::missing_named("image"))),
            }
        });
    let answered = perform(&app, request, gauge, key, read).await;
    answered.map_err(|refusal| if is_json { in_json(refusal) } else { refusal })
}

/// The content type without its parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|given| given.to_str().ok());
    let media_type = given.unwrap_or_default().split(';').next();
    media_type.unwrap_or_default().trim()
}

/// The refusal in the names that the pictures have in JSON.
fn in_json(refusal: ApiError) -> ApiError {
    match refusal {
        ApiError::Parameter(violation) | ApiError::Gateway(GatewayError::Violation(violation)) => {
            ApiError::Parameter(violation.of_json())
        }
        other => other,
    }
}

/// What both come to.
async fn perform(
    app: &App,
    request: RequestId,
    gauge: Gauge,
    key: ApiKey,
    read: Result<(Asked, Map<String, Json>, Task), ApiError>,
) -> Result<Response, ApiError> {
    let parsed = read.and_then(|(asked, object, task)| {
        let body =
            params::parse(object, key.unsupported_parameters).map_err(ApiError::Parameter)?;
        Ok((asked, body, task))
    });
    let (asked, body, task) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) => {
            return Err(deliver::refused(app, Caller::from(&key), &gauge, refusal).await);
        }
    };
    let order = Order {
        request,
        key,
        model: body.model,
        params: body.params,
        task,
        preferences: body.preferences,
        request_hash: Some(asked.hash()),
        retry_count: asked.retry_count,
        idempotency_key: asked.idempotency_key,
        reader: asked.reader,
        gauge,
        webhook_url: body.webhook_url,
    };
    deliver::deliver(app, order, Kind::Edit, body.dropped).await
}

/// Refuses who could not be served whatever the body says, before many megabytes of it are kept. A repeat needs
/// no money for it: it may have been paid for long ago.
async fn foresee(
    app: &App,
    key: &ApiKey,
    asked: Result<Asked, ApiError>,
) -> Result<Asked, ApiError> {
    let asked = asked?;
    if asked.idempotency_key.is_some() || asked.retry_count > 0 {
        app.ledger.foresee_repeat(Caller::from(key)).await?;
        return Ok(asked);
    }
    let models = app.gateway.rooms().catalog.models();
    let mut routes = models.iter().flat_map(|model| &model.routes);
    let least = if routes.any(|route| route.price.can_be_free()) {
        NanoUsd::ZERO
    } else {
        NanoUsd::from_nano(1)
    };
    app.ledger.foresee(&Caller::from(key), least).await?;
    Ok(asked)
}

/// The fields and the pictures of a request, from a form or from JSON.
async fn read(
    app: &App,
    key: &ApiKey,
    asked: Result<Asked, ApiError>,
    request: Request,
) -> Result<(Asked, (Map<String, Json>, Uploads)), ApiError> {
    let given = request.headers().get(header::CONTENT_TYPE);
    let given = given.map(|given| given.to_str().unwrap_or("unreadable").to_owned());
    let media_type = media_type(request.headers()).to_owned();
    let mut app = app.clone();
    app.spool = app.spool.of(Owner::of(&key.account));
    let app = &app;
    let limits = &app.limits;
    let mut asked = foresee(app, key, asked).await?;
    if media_type.eq_ignore_ascii_case("multipart/form-data") {
        let content_type = given.as_deref().unwrap_or_default();
        let work =
            async |body: &mut BodyReader<'_>| form::read(app, content_type, body, &mut asked).await;
        let read = body::read_upload(request, limits.upload_bytes, limits, work).await?;
        return Ok((asked, read));
    }
    if media_type.eq_ignore_ascii_case(JSON) {
        // As much as the form with its pictures in base64, and the fields around them.
        let limit = limits.upload_bytes.div_ceil(3).saturating_mul(4);
        let limit = limit.saturating_add(limits.json_body_bytes);
        let work = async |body: &mut BodyReader<'_>| edit_json::read(app, body, &mut asked).await;
        let read = body::read_upload(request, limit, limits, work).await?;
        return Ok((asked, read));
    }
    let given = given.map(|given| super::error::excerpt(&given));
    Err(ApiError::UploadContentType(given))
}
