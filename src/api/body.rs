//! Reading a JSON body: bounded in size, in how long it may pause and take, and in what all bodies that are
//! being read have in memory.

use std::{collections::BTreeSet, ops::Deref, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::{ApiError, App, Limits};
use crate::{
    budget::{Owner, Share},
    catalog::Violation,
    json::{JsonError, Token, Tokenizer},
};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What every body may have in memory. Only what is beyond takes room from the others, so that a request of the
/// usual size gets in however many large ones are under way.
const FREE_BYTES: usize = 16 * 1024;

/// The JSON object of a request's body, and the bytes that it was.
pub(super) struct JsonObject(pub(super) Map<String, Value>, pub(super) JsonBytes);

/// The bytes of a JSON body, and the room that they take.
pub(crate) struct JsonBytes {
    bytes: BytesMut,
    room: Share,
}

impl Deref for JsonBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl FromRequest<App> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = json_bytes(request, app).await?;
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
/// Another content type, a body that is too large, pauses or takes for too long, or one that breaks off; no room.
pub(crate) async fn json_bytes(request: Request, app: &App) -> Result<JsonBytes, ApiError> {
    check_encoding(request.headers())?;
    check_content_type(request.headers())?;
    let owner = request.extensions().get::<Owner>().copied();
    read(&mut request.into_body(), app, owner).await
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

async fn read(body: &mut Body, app: &App, owner: Option<Owner>) -> Result<JsonBytes, ApiError> {
    let limits = &app.limits;
    let mut reader = BodyReader::new(body, limits.json_body_bytes, limits.body_idle_timeout);
    reader.check_length()?;
    // All that is announced at once: growing on the way would take twice as much.
    let announced = usize::try_from(reader.body.size_hint().lower()).unwrap_or(0);
    let mut read = JsonBytes {
        bytes: BytesMut::with_capacity(announced),
        room: app.bodies.share(owner),
    };
    let pieces = async {
        while let Some(data) = reader.next().await? {
            let before = read.bytes.len().max(FREE_BYTES);
            read.bytes.extend_from_slice(&data);
            let more = read.bytes.len().saturating_sub(before);
            if !read.room.grow(more as u64) {
                return Err(ApiError::BodiesFull);
            }
        }
        Ok(())
    };
    timeout(limits.body_timeout, pieces)
        .await
        .unwrap_or(Err(ApiError::UploadTimeout(limits.body_timeout)))?;
    Ok(read)
}

/// The pieces of a body: bounded in all, and in how long it may pause.
pub(super) struct BodyReader<'a> {
    body: &'a mut Body,
    limit: usize,
    left: usize,
    idle_timeout: Duration,
    /// How long the client was waited for.
    waited: Duration,
    /// Whether it must keep up [`SLOWEST`].
    must_hurry: bool,
}

/// What an upload has to bring for each second that it is waited for, in bytes, once [`GRACE`] is over. Room is
/// kept for it all the while, which others could use.
const SLOWEST: u64 = 16 * 1024;
const GRACE: Duration = Duration::from_secs(10);

impl<'a> BodyReader<'a> {
    fn new(body: &'a mut Body, limit: usize, idle_timeout: Duration) -> Self {
        Self {
            body,
            limit,
            left: limit,
            idle_timeout,
            waited: Duration::ZERO,
            must_hurry: false,
        }
    }

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
    /// [`ApiError::BodyTooLarge`], [`ApiError::BodyTimeout`], [`ApiError::BodyBroken`], and of an upload
    /// [`ApiError::BodyTooSlow`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let asked = Instant::now();
            let frame = timeout(self.idle_timeout, self.body.frame())
                .await
                .map_err(|_| ApiError::BodyTimeout(self.idle_timeout))?;
            self.waited += asked.elapsed();
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
            if self.must_hurry && self.waited > GRACE {
                let owed = SLOWEST.saturating_mul(self.waited.as_secs());
                if ((self.limit - self.left) as u64) < owed {
                    return Err(ApiError::BodyTooSlow(SLOWEST));
                }
            }
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
    let mut reader = BodyReader::new(&mut body, limit, limits.body_idle_timeout);
    reader.must_hurry = true;
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

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use tokio::time::sleep;

    use super::*;

    /// A client that sends this many bytes each second for two minutes.
    async fn upload(bytes_per_second: usize) -> Result<usize, ApiError> {
        let pieces = stream::iter(0..120).then(move |_| async move {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, axum::Error>(Bytes::from(vec![7; bytes_per_second]))
        });
        let mut body = Body::from_stream(pieces);
        let mut reader = BodyReader::new(&mut body, 64 << 20, Duration::from_secs(30));
        reader.must_hurry = true;
        let mut read = 0;
        while let Some(data) = reader.next().await? {
            read += data.len();
            // The server's own work is not the client's fault.
            sleep(Duration::from_secs(2)).await;
        }
        Ok(read)
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_has_to_come_at_a_pace() {
        let started = Instant::now();
        let slow = upload(1000).await;
        assert!(matches!(slow, Err(ApiError::BodyTooSlow(SLOWEST))));
        assert!(started.elapsed() < Duration::from_secs(40));
        assert!(matches!(upload(17 * 1024).await, Ok(2_088_960)));
    }
}
