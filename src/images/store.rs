//! The object store: a directory, or a directory with a bucket behind it.
//!
//! Paths are made of ids and formats only, never of text from outside. Everything that touches the
//! disk runs on the blocking pool, in steps of at most [`CHUNK`] bytes.
//!
//! A picture that is synced is `img_….png`. One that is not is `img_….BOOT.png`, by the name of the machine's
//! present run: after a crash of the machine nobody knows what is in it, and nobody finds it. Only therefore
//! may the files of such copies be written over again, which costs half of making new ones: what the disk has
//! of one may be what was there before, somebody else's picture. Who reads one has it locked, and who is to write
//! it over takes another then.
//!
//! With a bucket, the directory is where this process works: every picture is written and checked there first,
//! and what is relayed to a client who listens goes no further. What must be kept goes into the bucket from
//! there, and what is not in the directory is looked for in the bucket.

use std::{
    fs,
    io::{self, Read as _, Seek as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{
    future,
    stream::{self, BoxStream, StreamExt as _, TryStreamExt as _},
};

use super::{
    bucket::{Bucket, Fault},
    copies::Undelivered,
    sniff::{NotAPicture, PictureFormat, PictureInfo},
    writer::{ImageWriter, Keep},
};
use crate::{
    ids::ImageId,
    telemetry::metrics::{Shelf, metrics},
};

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
    /// The bucket says no, or nothing.
    #[error("could not {action} a picture")]
    Bucket {
        /// What was attempted.
        action: &'static str,
        /// What became of it.
        #[source]
        source: Fault,
    },
}

impl StoreError {
    /// Whether all that is wrong is that there is no such file.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
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
    /// The machine's present run.
    boot: String,
    /// Files of copies that are no longer needed, to be written over.
    spares: Mutex<Vec<PathBuf>>,
    /// What outlives this machine.
    bucket: Option<Bucket>,
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

/// How many files wait to be written over; about as many as copies that end at the same time.
const MOST_SPARES: usize = 16;

/// Pictures that are looked for in the bucket at the same time.
const AT_A_TIME: usize = 8;

/// What the name of a picture being written ends with, instead of an extension.
pub(super) const PART: &str = "part";

impl ImageStore {
    /// The store below `directory`, made if missing. Pictures above `max_size_bytes` are refused.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory cannot be made or written.
    pub async fn open(directory: PathBuf, max_size_bytes: u64) -> Result<Self, StoreError> {
        Self::open_both(directory, max_size_bytes, None).await
    }

    /// The store that works in `directory` and keeps in `bucket`, which need not answer now.
    ///
    /// # Errors
    /// As [`ImageStore::open`].
    pub async fn open_bucket(
        directory: PathBuf,
        max_size_bytes: u64,
        bucket: Bucket,
    ) -> Result<Self, StoreError> {
        Self::open_both(directory, max_size_bytes, Some(bucket)).await
    }

    async fn open_both(
        directory: PathBuf,
        max_size_bytes: u64,
        bucket: Option<Bucket>,
    ) -> Result<Self, StoreError> {
        let prepared = directory.clone();
        let prepare = move || make_private(&prepared).map(|()| boot());
        let boot = blocking("prepare the directory of", prepare).await?;
        let place = Place {
            directory,
            max_size_bytes,
            is_well: AtomicBool::new(true),
            boot,
            spares: Mutex::default(),
            bucket,
        };
        let store = Self(Arc::new(place));
        // A store that cannot be written shall be found out before a picture is paid for.
        store.probe_directory().await?;
        Ok(store)
    }

    /// Whether pictures can be kept.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.probe_directory().await?;
        self.probe_bucket().await
    }

    /// Whether the bucket can be written; a store without one needs none.
    ///
    /// # Errors
    /// [`StoreError::Bucket`] when it cannot.
    pub async fn probe_bucket(&self) -> Result<(), StoreError> {
        match &self.0.bucket {
            Some(bucket) => bucket.probe().await,
            None => Ok(()),
        }
    }

    /// Whether a small picture's worth of bytes can be written here, which is not so on a full disk.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot.
    pub async fn probe_directory(&self) -> Result<(), StoreError> {
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
        self.takes_copies() && self.0.bucket.as_ref().is_none_or(Bucket::is_well)
    }

    /// The same for copies that go no further than the directory.
    pub fn takes_copies(&self) -> bool {
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
    /// [`StoreError`], also when the picture is shorter than that.
    pub async fn read_from(
        &self,
        id: ImageId,
        format: PictureFormat,
        offset: u64,
    ) -> Result<Option<(u64, PictureStream)>, StoreError> {
        let [path, unsynced] = self.paths(id, format);
        // The first chunk comes with the opening: most small pictures are one trip to the disk.
        let opened = blocking("read", move || {
            let Some(mut file) = open_either(&path, &unsynced)? else {
                return Ok(None);
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
        match (opened, &self.0.bucket) {
            (Some((size_bytes, file, first)), _) => {
                Ok(Some((size_bytes, chunks(file, size_bytes, first))))
            }
            (None, Some(bucket)) => bucket.get(id, format, offset).await,
            (None, None) => Ok(None),
        }
    }

    /// Deletes a picture; fine when it is already gone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn delete(&self, id: ImageId, format: PictureFormat) -> Result<(), StoreError> {
        self.delete_here(id, format).await?;
        match &self.0.bucket {
            Some(bucket) => bucket.delete(id, format).await,
            None => Ok(()),
        }
    }

    async fn delete_here(&self, id: ImageId, format: PictureFormat) -> Result<(), StoreError> {
        let paths = self.paths(id, format);
        blocking("delete", move || {
            let removed = paths.map(|path| gone(fs::remove_file(path)));
            removed
                .into_iter()
                .try_for_each(|removed| removed.map(drop))
        })
        .await
    }

    /// Keeps a picture only for as long as what this returns.
    pub fn temporary(&self, stored: &StoredImage) -> Temporary {
        Temporary(self.unsynced_path(stored.id, stored.info.format))
    }

    /// Makes a picture outlive a crash of the machine, which [`ImageWriter::finish_unsynced`] did not.
    ///
    /// # Errors
    /// [`StoreError`], also when it is gone.
    pub async fn make_durable(&self, id: ImageId, format: PictureFormat) -> Result<(), StoreError> {
        let ([path, unsynced], directory) = (self.paths(id, format), self.hour_directory(id));
        if let Some(bucket) = &self.0.bucket {
            let opened = blocking("keep", move || open_either(&path, &unsynced)).await?;
            return match opened {
                Some(file) => {
                    bucket.put(id, format, file).await?;
                    // All replicas find it there now. What cannot be removed is left to the sweeper.
                    drop(self.delete_here(id, format).await);
                    Ok(())
                }
                // It is there already, unless it is nowhere.
                None if bucket.has(id, format).await? => Ok(()),
                None => Err(StoreError::Io {
                    action: "keep",
                    source: io::ErrorKind::NotFound.into(),
                }),
            };
        }
        blocking("keep", move || {
            match fs::File::open(&unsynced) {
                Ok(file) => {
                    file.sync_data()?;
                    fs::rename(unsynced, path)?;
                }
                // It was synced before.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::File::open(path)?.sync_data()?;
                }
                Err(error) => return Err(error),
            }
            fs::File::open(directory)?.sync_all()
        })
        .await
    }

    /// Gives up a copy that was never synced. Its file may be written over from now on. Blocks.
    pub(super) fn retire(&self, id: ImageId, format: PictureFormat) {
        let spare = self.hour_directory(id).join(part_name(id));
        if fs::rename(self.unsynced_path(id, format), &spare).is_err() {
            // It is gone, or was synced. What cannot be deleted now is left to the sweeper.
            drop(gone(fs::remove_file(self.path(id, format))));
            return;
        }
        let mut spares = self.spares();
        if spares.len() < MOST_SPARES {
            spares.push(spare);
        } else {
            drop(spares);
            drop(fs::remove_file(spare));
        }
    }

    /// A file of a former copy to write over, and its name, which is none that anybody reads. Blocks.
    pub(super) fn take_spare(&self) -> Option<(fs::File, PathBuf)> {
        let spare = self.spares().pop()?;
        let locked = fs::File::options().write(true).open(&spare);
        if let Ok(file) = locked.and_then(|file| Ok(file.try_lock().map(|()| file)?)) {
            return Some((file, spare));
        }
        // Somebody still reads it, or there are no locks here.
        drop(fs::remove_file(spare));
        None
    }

    /// Deletes what waits to be written over. Blocks.
    pub(super) fn remove_spares(&self) {
        let spares = std::mem::take(&mut *self.spares());
        for spare in spares {
            drop(fs::remove_file(spare));
        }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is durable is elsewhere: then a picture is not synced here.
    pub(super) fn has_bucket(&self) -> bool {
        self.0.bucket.is_some()
    }

    /// Which of these pictures are here, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(
        &self,
        pictures: impl IntoIterator<Item = (ImageId, PictureFormat)>,
    ) -> Result<Vec<bool>, StoreError> {
        let pictures: Vec<_> = pictures.into_iter().collect();
        let paths = pictures.iter().map(|&(id, format)| self.paths(id, format));
        let paths: Vec<[PathBuf; 2]> = paths.collect();
        let found = blocking("look for", move || {
            let is_here =
                |[path, unsynced]: &[PathBuf; 2]| Ok(path.try_exists()? || unsynced.try_exists()?);
            paths.iter().map(is_here).collect::<io::Result<Vec<bool>>>()
        });
        let found = found.await?;
        let Some(bucket) = &self.0.bucket else {
            return Ok(found);
        };
        let looked = pictures
            .into_iter()
            .zip(found)
            .map(|((id, format), is_here)| async move {
                if is_here {
                    return Ok(true);
                }
                bucket.has(id, format).await
            });
        stream::iter(looked).buffered(AT_A_TIME).try_collect().await
    }

    /// Makes those of these pictures that are here alone findable for every replica, because links to them are
    /// about to be given out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn share(
        &self,
        pictures: impl IntoIterator<Item = (ImageId, PictureFormat)>,
    ) -> Result<(), StoreError> {
        if !self.has_bucket() {
            return Ok(());
        }
        let pictures: Vec<_> = pictures.into_iter().collect();
        let shared = pictures.into_iter().map(|(id, format)| async move {
            let [path, unsynced] = self.paths(id, format);
            let is_here = move || Ok(path.try_exists()? || unsynced.try_exists()?);
            if blocking("look for", is_here).await? {
                self.make_durable(id, format).await?;
            }
            Ok(())
        });
        stream::iter(shared)
            .buffered(AT_A_TIME)
            .try_for_each(|()| future::ready(Ok(())))
            .await
    }

    /// Copies that go no further than this process's directory, until their answer was delivered: one that
    /// was not goes into the bucket, where every replica finds it for the client's repeat. `None` where the
    /// directory is all there is.
    pub fn until_delivered(&self, copies: Vec<(ImageId, PictureFormat)>) -> Option<Undelivered> {
        let is_needed = self.has_bucket() && !copies.is_empty();
        is_needed.then(|| Undelivered::new(self.clone(), copies))
    }

    /// The same for copies whose client has left, while nobody waits; as long as they are there.
    pub(super) fn make_durable_behind(&self, copies: Vec<(ImageId, PictureFormat)>) {
        let Some(bucket) = self.0.bucket.clone() else {
            return;
        };
        let store = self.clone();
        bucket.behind(async move {
            for (id, format) in copies {
                match store.make_durable(id, format).await {
                    Ok(()) => {}
                    // It was one too many.
                    Err(error) if error.is_absence() => {}
                    Err(error) => tracing::error!(
                        error = &error as &dyn std::error::Error,
                        image.id = %id,
                        "a picture whose client had left could not be made durable"
                    ),
                }
            }
        });
    }

    /// Waits until nothing is on its way into the bucket any more. Then nothing may be kept.
    pub async fn drain(&self) {
        if let Some(bucket) = &self.0.bucket {
            bucket.drain().await;
        }
    }

    pub(super) fn bucket(&self) -> Option<&Bucket> {
        self.0.bucket.as_ref()
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

    /// Where it is for as long as it is not synced.
    pub(super) fn unsynced_path(&self, id: ImageId, format: PictureFormat) -> PathBuf {
        let name = format!("{id}.{}.{}", self.0.boot, format.extension());
        self.hour_directory(id).join(name)
    }

    fn paths(&self, id: ImageId, format: PictureFormat) -> [PathBuf; 2] {
        [self.path(id, format), self.unsynced_path(id, format)]
    }
}

/// A name for the run of the machine, or, where it says none, of this process.
fn boot() -> String {
    let said = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let read = said.and_then(|said| said.trim().parse::<uuid::Uuid>().ok());
    read.unwrap_or_else(uuid::Uuid::now_v7).simple().to_string()
}

/// Whether it could be one of those.
pub(super) fn is_boot(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn open(path: &Path) -> io::Result<Option<fs::File>> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_either(path: &Path, unsynced: &Path) -> io::Result<Option<fs::File>> {
    if let Some(file) = open(path)? {
        return Ok(Some(file));
    }
    if let Some(file) = open_unsynced(unsynced)? {
        return Ok(Some(file));
    }
    // It may have been synced at this very moment.
    open(path)
}

/// Opens a file that nobody writes over as long as it is open.
fn open_unsynced(path: &Path) -> io::Result<Option<fs::File>> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    match file.try_lock_shared() {
        // Without locks nothing is written over either.
        Ok(()) | Err(fs::TryLockError::Error(_)) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
    }
    // Between the opening and the lock it may have become another's.
    let is_still = match fs::metadata(path) {
        Ok(now) => now.ino() == file.metadata()?.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok(is_still.then_some(file))
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
    stream::once(async { Ok(first) })
        .chain(rest)
        .inspect_ok(|chunk| metrics().store_read(Shelf::Disk, chunk.len()))
        .boxed()
}

#[cfg(test)]
mod tests;
