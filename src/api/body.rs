//! Reading a JSON body: bounded in size, and in how long it may pause.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{ApiError, App, Limits};

/// The JSON object of a request's body.
pub(super) struct JsonObject(pub(super) Map<String, Value>);

impl FromRequest<App> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        let bytes = read(request.into_body(), &app.limits).await?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(ApiError::NotAnObject),
            Err(error) => Err(ApiError::Json(describe(&error))),
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |value| value.to_str().unwrap_or("unreadable"));
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::ContentType(super::error::excerpt(given)))
    }
}

async fn read(mut body: Body, limits: &Limits) -> Result<BytesMut, ApiError> {
    let limit = limits.json_body_bytes;
    let too_large = |size: u64| usize::try_from(size).map_or(true, |size| size > limit);
    // A length that is announced is refused before a byte of it is read.
    if too_large(body.size_hint().lower()) {
        return Err(ApiError::BodyTooLarge(limit));
    }
    let mut bytes = BytesMut::new();
    loop {
        let frame = timeout(limits.body_idle_timeout, body.frame())
            .await
            .map_err(|_| ApiError::BodyTimeout(limits.body_idle_timeout))?;
        let Some(frame) = frame else {
            return Ok(bytes);
        };
        let frame = frame.map_err(|_| ApiError::BodyBroken)?;
        if let Some(data) = frame.data_ref() {
            if bytes.len().saturating_add(data.len()) > limit {
                return Err(ApiError::BodyTooLarge(limit));
            }
            bytes.extend_from_slice(data);
        }
    }
}

/// Where and what, never the content.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}
