//! Pictures that clients send: told by their bytes, and readable as often as routes are tried.
//!
//! Knows nothing of forms, models or providers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::{
    sniff::{NotAPicture, PictureInfo, Sniffer},
    store::PictureStream,
};

/// A whole picture from a client. Cheap to clone; its bytes go when the last clone does.
#[derive(Clone)]
pub struct Upload(Arc<Content>);

struct Content {
    info: PictureInfo,
    bytes: Bytes,
}

impl Upload {
    /// A picture in memory.
    ///
    /// # Errors
    /// [`NotAPicture`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, NotAPicture> {
        let mut sniffer = Sniffer::default();
        sniffer.feed(&bytes)?;
        let info = sniffer.finish()?;
        Ok(Self(Arc::new(Content { info, bytes })))
    }

    /// What its bytes say.
    pub fn info(&self) -> PictureInfo {
        self.0.info
    }

    /// How many bytes it has.
    pub fn size_bytes(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    /// Its bytes, from the first; may be asked for again.
    pub fn read(&self) -> PictureStream {
        let bytes = self.0.bytes.clone();
        stream::once(async move { Ok(bytes) }).boxed()
    }
}
