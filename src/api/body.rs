//! Reading a JSON body: bounded in size, and in how long it may pause.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{ApiError, App, Limits};

/// The JSON object of a request's body.
pub(super) struct JsonObject(pub(super) Map<String, Value>);

impl FromRequest<App> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        // A client that waits to be told to go on sends nothing after a refusal.
        let waits = request.headers().contains_key(header::EXPECT);
        let mut body = request.into_body();
        let bytes = match read(&mut body, &app.limits).await {
            Err(error @ ApiError::BodyTooLarge(_)) if !waits => {
                discard(body).await;
                return Err(error);
            }
            read => read?,
        };
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(ApiError::NotAnObject),
            Err(error) => Err(ApiError::Json(describe(&error))),
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Err(ApiError::ContentType(None));
    };
    let given = given.to_str().unwrap_or("unreadable");
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::ContentType(Some(super::error::excerpt(given))))
    }
}

async fn read(body: &mut Body, limits: &Limits) -> Result<BytesMut, ApiError> {
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

/// Reads on and forgets, within bounds: a client that is still writing when the connection closes sees a
/// broken pipe instead of the refusal, and SDKs repeat the request.
async fn discard(body: Body) {
    const MOST_BYTES: usize = 64 * 1024 * 1024;
    const LONGEST: Duration = Duration::from_secs(10);
    let mut rest = Limited::new(body, MOST_BYTES);
    // Whichever bound is met first, there is nothing left to do for this client.
    let _ = timeout(LONGEST, async {
        while let Some(Ok(_)) = rest.frame().await {}
    })
    .await;
}

/// Where and what, never the content.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}
