//! What is posted: bytes, and pictures of clients that are read only while they go out.
//!
//! Its length is known before, so that it is no chunked body: some servers take none. Sending one uses it up;
//! a call that may be made again keeps a clone, which is cheap.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::images::{PictureStream, Upload, encode_base64, encoded_len};

/// The pieces of a body, in order.
#[derive(Default, Clone)]
pub(in crate::providers) struct Payload {
    pub(super) pieces: VecDeque<Piece>,
    size_bytes: u64,
}

/// One of them.
#[derive(Clone)]
pub(super) enum Piece {
    Bytes(Bytes),
    Upload(Upload),
    /// The same as base64, encoded as it goes.
    Base64(Upload),
}

impl Payload {
    /// Adds bytes.
    pub(super) fn bytes(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.size_bytes += bytes.len() as u64;
        self.pieces.push_back(Piece::Bytes(bytes));
    }

    /// Adds a picture.
    pub(super) fn upload(&mut self, upload: &Upload) {
        self.size_bytes += upload.size_bytes();
        self.pieces.push_back(Piece::Upload(upload.clone()));
    }

    /// Adds a picture as standard base64 with padding.
    pub(super) fn base64(&mut self, upload: &Upload) {
        self.size_bytes += encoded_len(upload.size_bytes());
        self.pieces.push_back(Piece::Base64(upload.clone()));
    }

    /// How many bytes it has in all.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// A payload without pictures.
    #[cfg(test)]
    pub(super) fn in_one_piece(mut self) -> Bytes {
        match (self.pieces.pop_front(), self.pieces.pop_front()) {
            (Some(Piece::Bytes(bytes)), None) => bytes,
            _ => panic!("it has several pieces"),
        }
    }

    /// All of it, as it goes out.
    #[cfg(test)]
    pub(in crate::providers) async fn collected(self) -> Bytes {
        use http_body_util::BodyExt as _;

        let body = super::witness::Witness::default().watch(self);
        body.collect().await.unwrap().to_bytes()
    }
}

/// A picture as base64, in chunks.
pub(super) fn read_base64(upload: &Upload) -> PictureStream {
    encode_base64(upload.read()).boxed()
}

impl<B: Into<Bytes>> From<B> for Payload {
    fn from(bytes: B) -> Self {
        let mut payload = Self::default();
        payload.bytes(bytes);
        payload
    }
}
