//! The object store: local disk now, S3 later.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;

use super::sniff::{NotAPicture, PictureFormat, PictureInfo};
use crate::ids::ImageId;

/// Why a picture could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bytes are no picture.
    #[error(transparent)]
    NotAPicture(#[from] NotAPicture),
    /// Larger than `[images] max_size`.
    #[error("a picture is larger than {0} bytes")]
    TooLarge(u64),
    /// The disk says no.
    #[error("could not {action} a picture")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A picture that is whole and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredImage {
    /// Its name.
    pub id: ImageId,
    /// What its bytes are.
    pub info: PictureInfo,
    /// How many they are.
    pub size_bytes: u64,
}

/// Where pictures live.
#[derive(Debug, Clone)]
pub struct ImageStore {}

/// A picture being written; nothing of it is visible until [`ImageWriter::finish`]. Dropping it leaves
/// at most a temporary file, which is removed.
#[derive(Debug)]
pub struct ImageWriter {}

impl ImageStore {
    /// The store below `directory`, made if missing.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory cannot be made or written.
    pub async fn open(directory: PathBuf, max_size_bytes: u64) -> Result<Self, StoreError> {
        let _ = (directory, max_size_bytes);
        todo!()
    }

    /// Begins a picture.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn create(&self) -> Result<ImageWriter, StoreError> {
        todo!()
    }

    /// The bytes of a picture in chunks of up to 256 KiB, with their total; `None` when it is gone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn read(
        &self,
        id: ImageId,
        format: PictureFormat,
    ) -> Result<Option<(u64, BoxStream<'static, std::io::Result<Bytes>>)>, StoreError> {
        let _ = (id, format);
        todo!()
    }

    /// Deletes a picture; fine when it is already gone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn delete(&self, id: ImageId, format: PictureFormat) -> Result<(), StoreError> {
        let _ = (id, format);
        todo!()
    }

    /// Deletes every picture older than `lifetime`, and temporary files nobody writes any more.
    /// Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn sweep(&self, lifetime: Duration, now: DateTime<Utc>) -> Result<u64, StoreError> {
        let _ = (lifetime, now);
        todo!()
    }
}

impl ImageWriter {
    /// The next bytes of the file. The first ones must be those of a known format.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let _ = bytes;
        todo!()
    }

    /// Ends the picture: checks that it ends like one, and makes it visible.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish(self) -> Result<StoredImage, StoreError> {
        todo!()
    }
}
