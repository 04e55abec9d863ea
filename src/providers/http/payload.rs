//! What is posted: bytes, and pictures of clients that are read only while they go out.
//!
//! Its length is known before, so that it is no chunked body: some servers take none. A payload can be sent
//! once; a call that is made again builds it again.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::images::Upload;

/// The pieces of a body, in order.
#[derive(Default)]
pub(in crate::providers) struct Payload {
    pub(super) pieces: VecDeque<Piece>,
    size_bytes: u64,
}

/// One of them.
pub(super) enum Piece {
    Bytes(Bytes),
    Upload(Upload),
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
    pub(super) async fn collected(self) -> Bytes {
        use http_body_util::BodyExt as _;

        let body = super::witness::Witness::default().watch(self);
        body.collect().await.unwrap().to_bytes()
    }
}

impl<B: Into<Bytes>> From<B> for Payload {
    fn from(bytes: B) -> Self {
        let mut payload = Self::default();
        payload.bytes(bytes);
        payload
    }
}
