//! The object store: local disk now, S3 later.
//!
//! Paths are made of ids and formats only, never of text from outside. Everything that touches the
//! disk runs on the blocking pool, in steps of at most [`CHUNK`] bytes.

use std::{
    fs,
    io::{self, Read as _, Seek as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::{
    sniff::{NotAPicture, PictureFormat, PictureInfo},
    writer::{ImageWriter, Keep},
};
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
        source: io::Error,
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
    /// Whether they can be read again.
    pub is_kept: bool,
}

/// The bytes of a picture, in chunks.
pub type PictureStream = BoxStream<'static, io::Result<Bytes>>;

/// Where pictures live. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore(Arc<Place>);

#[derive(Debug)]
struct Place {
    directory: PathBuf,
    max_size_bytes: u64,
    /// Whether the last write did what it should.
    is_well: AtomicBool,
}

/// A picture that is needed until this is dropped, and then removed: who reads it at that time reads it to its
/// end.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now is left to the sweeper.
        drop(fs::remove_file(&self.0));
    }
}

/// How much is read at once. A multiple of three, so that base64 of it needs no copying together.
const CHUNK: u64 = 192 * 1024;

/// How many bytes are written to see whether there is room.
const PROBE: usize = 64 * 1024;

/// What the name of a picture being written ends with, instead of an extension.
pub(super) const PART: &str = "part";

impl ImageStore {
    /// The store below `directory`, made if missing. Pictures above `max_size_bytes` are refused.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory cannot be made or written.
    pub async fn open(directory: PathBuf, max_size_bytes: u64) -> Result<Self, StoreError> {
        let place = Place {
            directory,
            max_size_bytes,
            is_well: AtomicBool::new(true),
        };
        let store = Self(Arc::new(place));
        let directory = store.directory().to_owned();
        blocking("prepare the directory of", move || make_private(&directory)).await?;
        // A store that cannot be written shall be found out before a picture is paid for.
        store.probe().await?;
        Ok(store)
    }

    /// Whether a small picture's worth of bytes can be written, which is not so on a full disk.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let probe = self.directory().join(part_name(ImageId::new()));
        let probed = blocking("make room for", move || {
            let written = fs::write(&probe, vec![0; PROBE]);
            let removed = fs::remove_file(&probe);
            written.and(removed)
        })
        .await;
        self.note(probed.is_ok());
        probed
    }

    /// Whether the last write or probe did what it should. When not, a [`Self::probe`] tells whether that is
    /// still so.
    pub fn is_well(&self) -> bool {
        self.0.is_well.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, is_well: bool) {
        self.0.is_well.store(is_well, Ordering::Relaxed);
    }

    /// Begins a picture. Touches the disk only when [`ImageWriter`] has something to write.
    ///
    /// # Errors
    /// None today; an object store elsewhere may have some.
    #[expect(
        clippy::unused_async,
        reason = "beginning an upload is a call in other stores"
    )]
    pub async fn create(&self) -> Result<ImageWriter, StoreError> {
        Ok(ImageWriter::new(self.clone(), ImageId::new(), Keep::Always))
    }

    /// Begins a picture that goes elsewhere as well, and need not be kept.
    pub fn tee(&self, keep: Keep) -> ImageWriter {
        ImageWriter::new(self.clone(), ImageId::new(), keep)
    }

    /// The bytes of a picture in chunks of at most 192 KiB, with their total; `None` when it is gone.
    /// A picture that is deleted meanwhile is still read to its end.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn read(
        &self,
        id: ImageId,
        format: PictureFormat,
    ) -> Result<Option<(u64, PictureStream)>, StoreError> {
        self.read_from(id, format, 0).await
    }

    /// The same from the byte `offset` on; the total is what is left from there.
    ///
    /// # Errors
    /// [`StoreError::Io`], also when the picture is shorter than that.
    pub async fn read_from(
        &self,
        id: ImageId,
        format: PictureFormat,
        offset: u64,
    ) -> Result<Option<(u64, PictureStream)>, StoreError> {
        let path = self.path(id, format);
        // The first chunk comes with the opening: most small pictures are one trip to the disk.
        let opened = blocking("read", move || {
            let mut file = match fs::File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let size_bytes = file.metadata()?.len();
            let size_bytes = size_bytes
                .checked_sub(offset)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            if offset > 0 {
                file.seek(io::SeekFrom::Start(offset))?;
            }
            let first = read_chunk(&mut file, size_bytes)?;
            Ok(Some((size_bytes, file, first)))
        })
        .await?;
        Ok(opened.map(|(size_bytes, file, first)| (size_bytes, chunks(file, size_bytes, first))))
    }

    /// Deletes a picture; fine when it is already gone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn delete(&self, id: ImageId, format: PictureFormat) -> Result<(), StoreError> {
        let path = self.path(id, format);
        blocking("delete", move || gone(fs::remove_file(path)).map(drop)).await
    }

    /// Keeps a picture only for as long as what this returns.
    pub fn temporary(&self, stored: &StoredImage) -> Temporary {
        Temporary(self.path(stored.id, stored.info.format))
    }

    /// Makes a picture outlive a crash of the machine, which [`ImageWriter::finish_unsynced`] did not.
    ///
    /// # Errors
    /// [`StoreError::Io`], also when it is gone.
    pub async fn make_durable(&self, id: ImageId, format: PictureFormat) -> Result<(), StoreError> {
        let (path, directory) = (self.path(id, format), self.hour_directory(id));
        blocking("keep", move || {
            fs::File::open(path)?.sync_data()?;
            fs::File::open(directory)?.sync_all()
        })
        .await
    }

    /// Which of these pictures are here, in their order.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn find(
        &self,
        pictures: impl IntoIterator<Item = (ImageId, PictureFormat)>,
    ) -> Result<Vec<bool>, StoreError> {
        let paths = pictures
            .into_iter()
            .map(|(id, format)| self.path(id, format));
        let paths: Vec<PathBuf> = paths.collect();
        blocking("look for", move || {
            paths.iter().map(|path| path.try_exists()).collect()
        })
        .await
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0.directory
    }

    pub(super) fn max_size_bytes(&self) -> u64 {
        self.0.max_size_bytes
    }

    /// Where the pictures of the hour of `id` are.
    pub(super) fn hour_directory(&self, id: ImageId) -> PathBuf {
        self.directory().join(hour_name(id.created_at()))
    }

    pub(super) fn path(&self, id: ImageId, format: PictureFormat) -> PathBuf {
        self.hour_directory(id).join(picture_name(id, format))
    }
}

/// Makes the directory if it is missing, for nobody else to read: a link's signature is worth nothing to
/// those who can open the file. One that is there stays as the operator made it.
fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(_) if directory.is_dir() => Ok(()),
        made => made,
    }
}

/// `2026112011`
pub(super) fn hour_name(instant: DateTime<Utc>) -> String {
    instant.format("%Y%m%d%H").to_string()
}

/// `img_….png`
pub(super) fn picture_name(id: ImageId, format: PictureFormat) -> String {
    format!("{id}.{}", format.extension())
}

/// `img_….part`
pub(super) fn part_name(id: ImageId) -> String {
    format!("{id}.{PART}")
}

/// Whether a removal removed something: another replica may have been there first.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs work on the disk where it blocks no worker.
///
/// # Cancel safety
/// Dropped, the work goes on to its end and its result is dropped.
pub(super) async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(|source| StoreError::Io { action, source })
}

/// The next chunk of a file of which `remaining` bytes are left.
fn read_chunk(file: &mut fs::File, remaining: u64) -> io::Result<Bytes> {
    let length = remaining.min(CHUNK);
    let mut chunk = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut chunk)?;
    if (chunk.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(chunk.into())
}

fn chunks(file: fs::File, size_bytes: u64, first: Bytes) -> PictureStream {
    let remaining = size_bytes - first.len() as u64;
    let rest = stream::try_unfold((file, remaining), |(mut file, remaining)| async move {
        if remaining == 0 {
            return Ok(None);
        }
        let read = move || {
            let chunk = read_chunk(&mut file, remaining)?;
            Ok((chunk, file))
        };
        let (chunk, file) = tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))?;
        let remaining = remaining - chunk.len() as u64;
        Ok(Some((chunk, (file, remaining))))
    });
    stream::once(async { Ok(first) }).chain(rest).boxed()
}

#[cfg(test)]
mod tests;
