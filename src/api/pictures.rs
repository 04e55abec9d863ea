//! JSON bodies with pictures in them, read from the store chunk by chunk as the client takes them.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderValue, header};

use super::App;
use crate::{
    ids::ImageId,
    images::{self, ImageStore, PictureFormat, PictureStream},
};

/// A piece of a body: text that is ready, or a picture that is read, as base64, when its turn comes.
pub(super) enum Piece {
    /// Goes out as it is.
    Text(Bytes),
    /// Goes out as base64.
    Picture {
        /// Its name in the store.
        id: ImageId,
        /// What its bytes are.
        format: PictureFormat,
        /// How many they are.
        size_bytes: u64,
    },
}

/// The body made of `pieces`, with its length.
pub(super) fn body(app: &App, pieces: Vec<Piece>) -> Response {
    let length: u64 = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
            Piece::Picture { size_bytes, .. } => images::encoded_len(*size_bytes),
        })
        .sum();
    let store = app.gateway.rooms().store.clone();
    let chunks = stream::iter(pieces)
        .then(move |piece| open(store.clone(), piece))
        .try_flatten();
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

async fn open(store: ImageStore, piece: Piece) -> std::io::Result<PictureStream> {
    let (id, format) = match piece {
        Piece::Text(text) => return Ok(stream::once(async { Ok(text) }).boxed()),
        Piece::Picture { id, format, .. } => (id, format),
    };
    // A picture that cannot be read breaks the connection: no client takes a torso for an answer, and
    // the generation can be fetched again.
    let (_, chunks) = store
        .read(id, format)
        .await
        .map_err(std::io::Error::other)?
        .ok_or_else(|| std::io::Error::other("a picture is gone from the store"))?;
    Ok(images::encode_base64(chunks).boxed())
}
