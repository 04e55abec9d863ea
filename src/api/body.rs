//! Reading a JSON body: bounded in size, and in how long it may pause.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{ApiError, App, Limits};
use crate::{
    catalog::Violation,
    json::{JsonError, Token, Tokenizer},
};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The JSON object of a request's body, and the bytes that it was.
pub(super) struct JsonObject(pub(super) Map<String, Value>, pub(super) BytesMut);

impl FromRequest<App> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = json_bytes(request, &app.limits).await?;
        let document = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        match serde_json::from_slice(document) {
            Ok(Value::Object(object)) => {
                check_names(document)?;
                Ok(Self(object, bytes))
            }
            Ok(_) => Err(ApiError::NotAnObject),
            Err(error) => Err(ApiError::Json(describe(&error))),
        }
    }
}

/// Refuses a document in which a name is there twice: which of the two was meant, nobody knows.
fn check_names(document: &[u8]) -> Result<(), ApiError> {
    let malformed = |error: JsonError| ApiError::Json(error.to_string());
    let mut tokenizer = Tokenizer::strict();
    tokenizer.push(Bytes::copy_from_slice(document));
    let mut names = Vec::new();
    while let Some(token) = tokenizer.next().map_err(malformed)? {
        match token {
            Token::Begin(_) => names.push(BTreeSet::new()),
            Token::End => drop(names.pop()),
            Token::Name => {
                let name = tokenizer.text();
                let known = names.last_mut();
                if known.is_some_and(|known| !known.insert(name.to_owned())) {
                    return Err(duplicate(name));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The refusal of a member that is there twice.
pub(super) fn duplicate(name: &str) -> ApiError {
    let shown = super::error::excerpt(name);
    let message = format!("Duplicate parameter: '{shown}'. It is there twice.");
    ApiError::Parameter(Violation::named(&shown, "duplicate_parameter", message))
}

/// The bytes of a request's JSON body, read within the limits.
///
/// # Errors
/// Another content type, a body that is too large or pauses for too long, or one that breaks off.
pub(crate) async fn json_bytes(request: Request, limits: &Limits) -> Result<BytesMut, ApiError> {
    check_encoding(request.headers())?;
    check_content_type(request.headers())?;
    read(&mut request.into_body(), limits).await
}

/// Bodies are taken as they are.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(given) if !given.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let given = given.to_str().unwrap_or("unreadable");
            Err(ApiError::ContentEncoding(super::error::excerpt(given)))
        }
        _ => Ok(()),
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

/// Has `work` read a body of at most `limit` bytes.
///
/// # Errors
/// Those of the body, [`ApiError::UploadTimeout`], and those of `work`.
pub(super) async fn read_upload<T>(
    request: Request,
    limit: usize,
    limits: &Limits,
    work: impl AsyncFnOnce(&mut BodyReader<'_>) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    check_encoding(request.headers())?;
    let mut body = request.into_body();
    let mut reader = BodyReader {
        body: &mut body,
        limit,
        left: limit,
        idle_timeout: limits.body_idle_timeout,
    };
    reader.check_length()?;
    timeout(limits.upload_timeout, work(&mut reader))
        .await
        .unwrap_or(Err(ApiError::UploadTimeout(limits.upload_timeout)))
}

/// Where and what, never the content.
pub(crate) fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}
