//! Signed links to hosted pictures: `/files/{id}.{ext}?expires=&signature=`.

use chrono::{DateTime, Utc};

use super::sniff::PictureFormat;
use crate::ids::ImageId;

/// Makes and checks signed links. The secret lives in the database, so that every replica agrees.
pub struct Links {}

/// Why a link does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The signature is missing or is not ours: 403.
    #[error("the signature does not fit the link")]
    Forged,
    /// Its time is over: 410.
    #[error("the link has expired")]
    Expired,
}

impl Links {
    /// Links below `public_url`, signed with `secret`.
    pub fn new(public_url: &str, secret: [u8; 32]) -> Self {
        let _ = (public_url, secret);
        todo!()
    }

    /// The link to a picture, good until `expires_at`.
    pub fn sign(&self, id: ImageId, format: PictureFormat, expires_at: DateTime<Utc>) -> String {
        let _ = (id, format, expires_at);
        todo!()
    }

    /// Checks a link's parts; the signature first, in constant time.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn verify(
        &self,
        id: ImageId,
        format: PictureFormat,
        expires: &str,
        signature: &str,
        now: DateTime<Utc>,
    ) -> Result<(), LinkError> {
        let _ = (id, format, expires, signature, now);
        todo!()
    }
}
