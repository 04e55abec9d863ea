//! Pictures that clients send: told by their bytes, and readable as often as routes are tried.
//!
//! A small one stays in memory, a larger one goes into a temporary file that has no name, so a crash leaves
//! nothing behind. What all of them take together is bounded, in memory and on the disk, by the [`Spool`].
//! Knows nothing of forms, models or providers.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::OnceCell;

use super::{
    sniff::{NotAPicture, PictureFormat, PictureInfo, Sniffer},
    store::{PictureStream, StoreError, blocking},
};
use crate::budget::{Budget, Owner, Share};

/// Uploads up to this many bytes stay in memory; of larger ones this much is written at once.
const BUFFER: usize = 64 * 1024;
/// What all uploads together may have in memory; beyond it, small ones go to the disk too.
const ALL_IN_MEMORY: u64 = 64 * 1024 * 1024;
/// How much is read at once. A multiple of three, so that base64 of it needs no copying together.
const CHUNK: u64 = 192 * 1024;

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The bytes are no picture.
    #[error(transparent)]
    NotAPicture(#[from] NotAPicture),
    /// Larger than this many bytes.
    #[error("an upload is larger than {0} bytes")]
    TooLarge(u64),
    /// There is no room for more uploads at the moment.
    #[error("there is no room for more uploads at the moment")]
    Full,
    /// The disk says no.
    #[error(transparent)]
    Storage(StoreError),
}

/// Where uploads are while their requests are worked on. Cheap to clone; clones share the bounds.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: Arc<Path>,
    on_disk: Budget,
    in_memory: Budget,
    /// Whose uploads begin here.
    owner: Option<Owner>,
}

/// A whole picture from a client. Cheap to clone; its bytes go when the last clone does.
#[derive(Clone)]
pub struct Upload(Arc<Content>);

struct Content {
    info: PictureInfo,
    has_alpha: Option<bool>,
    size_bytes: u64,
    bytes: Kept,
    _share: Option<Share>,
    /// Where it is kept, and what is made of it.
    spool: Spool,
    other_form: OnceCell<Option<Upload>>,
    /// By place.
    known_as: Mutex<HashMap<String, Arc<OnceCell<Option<String>>>>>,
}

enum Kept {
    Memory(Bytes),
    File(Arc<fs::File>),
}

/// A picture on its way in.
pub struct UploadWriter {
    sniffer: Sniffer,
    /// Looked at, but not on the disk.
    buffer: Vec<u8>,
    in_memory: Share,
    spool: Spool,
    file: Option<fs::File>,
    on_disk: Share,
    size_bytes: u64,
    max_bytes: u64,
}

impl Spool {
    /// A spool in this directory, which is made if missing, for at most `max_bytes` on the disk,
    /// of which one owner may have `max_bytes_each`.
    ///
    /// # Errors
    /// [`StoreError::Io`] when no file can be made there.
    pub async fn open(
        directory: PathBuf,
        max_bytes: u64,
        max_bytes_each: u64,
    ) -> Result<Self, StoreError> {
        let probed = directory.clone();
        blocking("make room for an upload of", move || {
            fs::create_dir_all(&probed)?;
            tempfile::tempfile_in(&probed).map(drop)
        })
        .await?;
        let spool = Self {
            directory: directory.into(),
            on_disk: Budget::new(0, 0),
            in_memory: Budget::new(0, 0),
            owner: None,
        };
        spool.resize(max_bytes, max_bytes_each);
        Ok(spool)
    }

    /// From now on with so much room.
    pub fn resize(&self, max_bytes: u64, max_bytes_each: u64) {
        let in_memory = ALL_IN_MEMORY.min(max_bytes);
        self.on_disk.resize(max_bytes, max_bytes_each);
        self.in_memory
            .resize(in_memory, in_memory.min(max_bytes_each));
    }

    /// The same spool for the uploads of this owner.
    #[must_use]
    pub fn of(&self, owner: Owner) -> Self {
        Self {
            owner: Some(owner),
            ..self.clone()
        }
    }

    /// Begins an upload of at most `max_bytes`.
    pub fn begin(&self, max_bytes: u64) -> UploadWriter {
        UploadWriter {
            sniffer: Sniffer::default(),
            buffer: Vec::new(),
            in_memory: self.in_memory.share(self.owner),
            spool: self.clone(),
            file: None,
            on_disk: self.on_disk.share(self.owner),
            size_bytes: 0,
            max_bytes,
        }
    }

    /// Bytes of uploads on the disk and in memory.
    pub fn used_bytes(&self) -> (u64, u64) {
        (self.on_disk.used_bytes(), self.in_memory.used_bytes())
    }
}

impl UploadWriter {
    /// What its first bytes have told.
    pub fn format(&self) -> Option<PictureFormat> {
        self.sniffer.info().map(|info| info.format)
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// [`UploadError`]; the upload cannot be finished after one.
    ///
    /// # Cancel safety
    /// Not cancel safe: an upload whose write was dropped must be dropped too.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.max_bytes {
            return Err(UploadError::TooLarge(self.max_bytes));
        }
        self.sniffer.feed(bytes)?;
        for bytes in bytes.chunks(BUFFER) {
            let fits = self.buffer.len() + bytes.len() <= BUFFER
                && self.in_memory.grow(bytes.len() as u64);
            self.buffer.extend_from_slice(bytes);
            if !fits {
                self.spill().await?;
            }
        }
        Ok(())
    }

    /// Ends the picture: it ends like one, or is refused.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn finish(mut self) -> Result<Upload, UploadError> {
        let info = self.sniffer.finish()?;
        if self.file.is_some() && !self.buffer.is_empty() {
            self.spill().await?;
        }
        let (bytes, share) = match self.file {
            None => (Kept::Memory(self.buffer.into()), self.in_memory),
            Some(file) => (Kept::File(Arc::new(file)), self.on_disk),
        };
        Ok(Upload(Arc::new(Content {
            info,
            has_alpha: self.sniffer.has_alpha(),
            size_bytes: self.size_bytes,
            bytes,
            _share: Some(share),
            spool: self.spool,
            other_form: OnceCell::new(),
            known_as: Mutex::default(),
        })))
    }

    /// Writes the buffer to the file, which is made first where there is none.
    async fn spill(&mut self) -> Result<(), UploadError> {
        if !self.on_disk.grow(self.buffer.len() as u64) {
            return Err(UploadError::Full);
        }
        let buffer = std::mem::take(&mut self.buffer);
        let file = self.file.take();
        let directory = Arc::clone(&self.spool.directory);
        let written = blocking("keep an upload of", move || {
            let mut file = match file {
                Some(file) => file,
                None => tempfile::tempfile_in(&directory)?,
            };
            file.write_all(&buffer)?;
            Ok((file, buffer))
        })
        .await;
        let (file, mut buffer) = written.map_err(UploadError::Storage)?;
        buffer.clear();
        self.buffer = buffer;
        self.in_memory.clear();
        self.file = Some(file);
        Ok(())
    }
}

impl Upload {
    /// A picture in memory, which counts against no spool; what is made of it has to be small.
    ///
    /// # Errors
    /// [`NotAPicture`].
    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, NotAPicture> {
        let mut sniffer = Sniffer::default();
        sniffer.feed(&bytes)?;
        Ok(Self(Arc::new(Content {
            info: sniffer.finish()?,
            has_alpha: sniffer.has_alpha(),
            size_bytes: bytes.len() as u64,
            bytes: Kept::Memory(bytes),
            _share: None,
            spool: Spool {
                directory: PathBuf::new().into(),
                on_disk: Budget::new(0, 0),
                in_memory: Budget::new(u64::MAX, u64::MAX),
                owner: None,
            },
            other_form: OnceCell::new(),
            known_as: Mutex::default(),
        })))
    }

    /// What its bytes say.
    pub fn info(&self) -> PictureInfo {
        self.0.info
    }

    /// Whether a PNG can have transparent pixels; `None` for other formats.
    pub fn has_alpha(&self) -> Option<bool> {
        self.0.has_alpha
    }

    /// How many bytes it has.
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    /// The spool that it is in, for what is made of it.
    pub fn spool(&self) -> &Spool {
        &self.0.spool
    }

    /// Another form of this picture: made by whoever asks first, and there for all that ask as long as the
    /// picture is. `None`: it has no other. An error is not kept, and the next who asks tries again.
    ///
    /// # Errors
    /// Those of `make`.
    ///
    /// # Cancel safety
    /// May be dropped: the next who asks begins anew.
    pub async fn other_form<E>(
        &self,
        make: impl Future<Output = Result<Option<Self>, E>>,
    ) -> Result<Option<Self>, E> {
        self.0.other_form.get_or_try_init(|| make).await.cloned()
    }

    /// What it is known as at another place, such as a link: found out by whoever asks first. `None`: it is not
    /// known there, and will not be. An error is not kept.
    ///
    /// # Errors
    /// Those of `hand_over`.
    ///
    /// # Cancel safety
    /// May be dropped: the next who asks begins anew.
    pub async fn known_as<E>(
        &self,
        place: &str,
        hand_over: impl Future<Output = Result<Option<String>, E>>,
    ) -> Result<Option<String>, E> {
        let cell = {
            let mut known = self
                .0
                .known_as
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(place.to_owned()).or_default())
        };
        cell.get_or_try_init(|| hand_over).await.cloned()
    }

    /// Its bytes for who may block.
    pub fn reader(&self) -> impl io::BufRead + io::Seek + Send + use<> {
        let blocking = BlockingReader {
            upload: self.clone(),
            at: 0,
        };
        io::BufReader::with_capacity(BUFFER, blocking)
    }

    /// Its bytes, from the first; may be asked for again, also while they are being read.
    pub fn read(&self) -> PictureStream {
        match &self.0.bytes {
            Kept::Memory(bytes) => {
                let bytes = bytes.clone();
                stream::once(async move { Ok(bytes) }).boxed()
            }
            Kept::File(_) => stream::try_unfold((self.clone(), 0), |(upload, at)| async move {
                let Some(chunk) = upload.chunk(at).await? else {
                    return Ok(None);
                };
                let next = at + chunk.len() as u64;
                Ok(Some((chunk, (upload, next))))
            })
            .boxed(),
        }
    }

    /// The next bytes of the file; `None` at its end.
    async fn chunk(&self, at: u64) -> io::Result<Option<Bytes>> {
        let left = self.0.size_bytes.saturating_sub(at);
        let Kept::File(file) = &self.0.bytes else {
            return Ok(None);
        };
        if left == 0 {
            return Ok(None);
        }
        let file = Arc::clone(file);
        let read = move || {
            let mut chunk = vec![0; usize::try_from(left.min(CHUNK)).unwrap_or(0)];
            file.read_exact_at(&mut chunk, at)?;
            Ok(Some(chunk.into()))
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }
}

struct BlockingReader {
    upload: Upload,
    at: u64,
}

impl io::Read for BlockingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.upload.0.bytes {
            Kept::Memory(bytes) => {
                let at = usize::try_from(self.at).unwrap_or(usize::MAX);
                io::Read::read(&mut bytes.get(at..).unwrap_or_default(), buffer)?
            }
            Kept::File(file) => file.read_at(buffer, self.at)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl io::Seek for BlockingReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
            io::SeekFrom::End(by) => self.upload.0.size_bytes.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use tempfile::TempDir;

    use super::*;
    use crate::images::sniff::samples;

    async fn spool(max_bytes: u64) -> (Spool, TempDir) {
        let directory = TempDir::new().unwrap();
        let spool = Spool::open(directory.path().join("uploads"), max_bytes, max_bytes / 2)
            .await
            .unwrap();
        (spool, directory)
    }

    async fn put(spool: &Spool, bytes: &[u8], chunk: usize) -> Result<Upload, UploadError> {
        let mut writer = spool.begin(1 << 20);
        for bytes in bytes.chunks(chunk) {
            writer.write(bytes).await?;
        }
        writer.finish().await
    }

    async fn read(upload: &Upload) -> Vec<u8> {
        let chunks: Vec<Bytes> = upload.read().try_collect().await.unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() as u64 <= CHUNK));
        chunks.concat()
    }

    #[tokio::test]
    async fn an_upload_is_read_as_often_as_it_is_asked_for() {
        let (spool, directory) = spool(4 << 20).await;
        for size in [1_000, BUFFER, BUFFER + 1, 3 * BUFFER + 7, 600_000] {
            let bytes = samples::png_of(size);
            for chunk in [17_000, size] {
                let upload = put(&spool, &bytes, chunk).await.unwrap();
                assert_eq!(upload.size_bytes(), bytes.len() as u64);
                assert_eq!(read(&upload).await, bytes, "{size} in pieces of {chunk}");
                assert_eq!(read(&upload).await, bytes, "again");
                let used = spool.used_bytes();
                let (on_disk, in_memory) = if bytes.len() > BUFFER {
                    (bytes.len() as u64, 0)
                } else {
                    (0, bytes.len() as u64)
                };
                assert_eq!(used, (on_disk, in_memory));
                let (one, other) = (upload.clone(), upload);
                drop(one);
                assert_eq!(read(&other).await, bytes);
            }
        }
        assert_eq!(spool.used_bytes(), (0, 0));
        let left = fs::read_dir(directory.path().join("uploads")).unwrap();
        assert_eq!(left.count(), 0, "no file has a name");
    }

    #[tokio::test]
    async fn who_may_block_reads_the_same() {
        use std::io::{Read as _, Seek as _, SeekFrom};

        let (spool, _directory) = spool(4 << 20).await;
        for size in [1_000, 200_000] {
            let bytes = samples::png_of(size);
            let upload = put(&spool, &bytes, 17_000).await.unwrap();
            let mut reader = upload.reader();
            drop(upload);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
            let tail = i64::try_from(size / 3).unwrap();
            reader.seek(SeekFrom::End(-tail)).unwrap();
            read.clear();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes[bytes.len() - size / 3..]);
            assert!(reader.seek(SeekFrom::Current(i64::MIN)).is_err());
        }
        assert_eq!(spool.used_bytes(), (0, 0));
    }

    #[tokio::test]
    async fn what_is_made_of_an_upload_is_made_once() {
        use std::sync::atomic::{AtomicU32, Ordering};

        let (spool, _directory) = spool(4 << 20).await;
        let upload = put(&spool, &samples::png_of(1_000), 1_000).await.unwrap();
        let made = AtomicU32::new(0);
        let make = async || {
            upload
                .other_form(async {
                    let before = made.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    if before == 0 {
                        return Err("the first one fails");
                    }
                    let other = put(upload.spool(), &samples::png_of(90_000), 9_000).await;
                    Ok(Some(other.unwrap()))
                })
                .await
        };
        assert!(make().await.is_err());
        let all = futures_util::future::join_all((0..20).map(|_| make())).await;
        for other in all {
            assert_eq!(other.unwrap().unwrap().size_bytes(), 90_000);
        }
        assert_eq!(made.load(Ordering::SeqCst), 2);
        assert!(spool.used_bytes().0 >= 90_000);
        let known = async |place: &'static str| {
            let asked = async {
                Ok::<_, ()>(Some(format!(
                    "{place}{}",
                    made.fetch_add(1, Ordering::SeqCst)
                )))
            };
            upload.known_as(place, asked).await.unwrap()
        };
        assert_eq!(known("here").await.as_deref(), Some("here2"));
        assert_eq!(known("there").await.as_deref(), Some("there3"));
        assert_eq!(known("here").await.as_deref(), Some("here2"));
        drop(upload);
        assert_eq!(
            spool.used_bytes(),
            (0, 0),
            "what was made of it goes with it"
        );
    }

    #[tokio::test]
    async fn the_spool_is_bounded() {
        let (spool, _directory) = spool(1_000_000).await;
        let bytes = samples::png_of(400_000);
        let one = put(&spool, &bytes, 9_999).await.unwrap();
        let other = put(&spool, &bytes, 9_999).await.unwrap();
        assert!(matches!(
            put(&spool, &bytes, 9_999).await,
            Err(UploadError::Full)
        ));
        drop(one);
        assert!(put(&spool, &bytes, 9_999).await.is_ok());
        drop(other);
        assert_eq!(spool.used_bytes(), (0, 0));
    }

    #[tokio::test]
    async fn one_owner_leaves_room_for_others() {
        let (spool, _directory) = spool(1_000_000).await;
        let [one, other] = ["one", "other"].map(|name| spool.of(Owner::of(&name)));
        let bytes = samples::png_of(400_000);
        let first = put(&one, &bytes, 9_999).await.unwrap();
        let second = put(&one, &bytes, 9_999).await;
        assert!(matches!(second, Err(UploadError::Full)));
        assert!(put(&other, &bytes, 9_999).await.is_ok());
        drop(first);
        assert!(put(&one, &bytes, 9_999).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_no_picture_is_refused_as_soon_as_it_is_certain() {
        let (spool, _directory) = spool(4 << 20).await;
        let mut writer = spool.begin(1 << 20);
        assert!(matches!(
            writer.write(&[b'x'; 40]).await,
            Err(UploadError::NotAPicture(_))
        ));
        let bytes = samples::png_of(100_000);
        let torso = put(&spool, &bytes[..90_000], 1_000).await;
        assert!(matches!(torso, Err(UploadError::NotAPicture(_))));
        let mut writer = spool.begin(50_000);
        assert!(matches!(
            writer.write(&bytes).await,
            Err(UploadError::TooLarge(50_000))
        ));
        drop(writer);
        assert_eq!(spool.used_bytes(), (0, 0));
    }
}
