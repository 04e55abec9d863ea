//! Reading a JSON body: bounded in size, and in how long it may pause.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{ApiError, App, Limits};

/// The JSON object of a request's body, and the bytes that it was.
pub(super) struct JsonObject(pub(super) Map<String, Value>, pub(super) BytesMut);

impl FromRequest<App> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = json_bytes(request, &app.limits).await?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Self(object, bytes)),
            Ok(_) => Err(ApiError::NotAnObject),
            Err(error) => Err(ApiError::Json(describe(&error))),
        }
    }
}

/// The bytes of a request's JSON body, read within the limits.
///
/// # Errors
/// Another content type, a body that is too large or pauses for too long, or one that breaks off.
pub(crate) async fn json_bytes(request: Request, limits: &Limits) -> Result<BytesMut, ApiError> {
    check_content_type(request.headers())?;
    // A client that waits to be told to go on sends nothing after a refusal.
    let waits = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    match read(&mut body, limits).await {
        Err(error @ ApiError::BodyTooLarge(_)) if !waits => {
            discard(body).await;
            Err(error)
        }
        read => read,
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
    let mut reader = BodyReader {
        body,
        left: limits.json_body_bytes,
        limit: limits.json_body_bytes,
        idle_timeout: limits.body_idle_timeout,
    };
    reader.check_length()?;
    let mut bytes = BytesMut::new();
    while let Some(data) = reader.next().await? {
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The pieces of a body: bounded in all, and in how long it may pause.
pub(super) struct BodyReader<'a> {
    body: &'a mut Body,
    limit: usize,
    left: usize,
    idle_timeout: Duration,
}

impl BodyReader<'_> {
    /// A length that is announced is refused before a byte of it is read.
    fn check_length(&self) -> Result<(), ApiError> {
        match usize::try_from(self.body.size_hint().lower()) {
            Ok(length) if length <= self.limit => Ok(()),
            _ => Err(ApiError::BodyTooLarge(self.limit)),
        }
    }

    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// [`ApiError::BodyTooLarge`], [`ApiError::BodyTimeout`], [`ApiError::BodyBroken`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = timeout(self.idle_timeout, self.body.frame())
                .await
                .map_err(|_| ApiError::BodyTimeout(self.idle_timeout))?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| ApiError::BodyBroken)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.left = self
                .left
                .checked_sub(data.len())
                .ok_or(ApiError::BodyTooLarge(self.limit))?;
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

/// Has `work` read a body of at most `limit` bytes. When it refuses what it reads, the rest is read too,
/// within bounds, so that the client gets to see the refusal.
///
/// # Errors
/// Those of the body, [`ApiError::UploadTimeout`], and those of `work`.
pub(super) async fn read_upload<T>(
    request: Request,
    limit: usize,
    limits: &Limits,
    work: impl AsyncFnOnce(&mut BodyReader<'_>) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let waits = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    let mut reader = BodyReader {
        body: &mut body,
        limit,
        left: limit,
        idle_timeout: limits.body_idle_timeout,
    };
    let read = match reader.check_length() {
        Err(refusal) => Err(refusal),
        Ok(()) => timeout(limits.upload_timeout, work(&mut reader))
            .await
            .unwrap_or(Err(ApiError::UploadTimeout(limits.upload_timeout))),
    };
    let is_over = matches!(
        read,
        Ok(_) | Err(ApiError::BodyTimeout(_) | ApiError::BodyBroken | ApiError::UploadTimeout(_))
    );
    // A client that waits to be told to go on sends nothing after a refusal.
    if !is_over && !waits {
        discard(body).await;
    }
    read
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
pub(crate) fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}
