//! `GET /files/{id}.{ext}?expires=&signature=`: a hosted picture behind a signed link.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, Uri, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    ApiError, App,
    extract::{PathText, Queried},
};
use crate::{
    ids::ImageId,
    images::{LinkError, PictureFormat},
};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// The signed part of a link.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Signed {
    /// Unix seconds.
    #[serde(default)]
    expires: String,
    #[serde(default)]
    signature: String,
}

/// `GET /files/{name}`
pub(super) async fn get(
    State(app): State<App>,
    PathText(name): PathText,
    Queried(signed): Queried<Signed>,
    method: Method,
    uri: Uri,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::UnknownPath(method.clone(), super::error::excerpt(uri.path()));
    let (id, format) = parse(&name).ok_or_else(unknown)?;
    let rooms = app.gateway.rooms();
    let now = app.clock.now();
    rooms
        .links
        .verify(id, format, &signed.expires, &signed.signature, now)?;
    let (length, chunks) = rooms
        .store
        .read(id, format)
        .await
        .map_err(|error| ApiError::Internal(Box::new(error)))?
        .ok_or(ApiError::PictureGone)?;

    let left = signed
        .expires
        .parse::<i64>()
        .map_err(|_| LinkError::Forged)?
        .saturating_sub(now.timestamp())
        .max(0);
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    // The link is the secret, so shared caches must not keep what it opens; the picture never changes.
    if let Ok(cache) = HeaderValue::from_str(&format!("private, max-age={left}, immutable")) {
        headers.insert(header::CACHE_CONTROL, cache);
    }
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("inline"),
    );
    Ok(response)
}

/// What a browser may do with an answer, be it a picture or an error: nothing but show it, on whichever page.
pub(super) async fn harmless(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A vector picture is a document: it must not run anything in our name.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        ),
        // The link is a secret, also from where the picture leads.
        (header::REFERRER_POLICY, "no-referrer"),
        // Apps show it on pages of their own.
        (CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn parse(name: &str) -> Option<(ImageId, PictureFormat)> {
    let (id, extension) = name.split_once('.')?;
    Some((id.parse().ok()?, PictureFormat::from_extension(extension)?))
}
