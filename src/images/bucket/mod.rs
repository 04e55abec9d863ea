//! Pictures in an S3-compatible bucket, under the names they have on a disk: `prefix/2026112011/img_….png`.
//!
//! A picture comes here whole, from a file that the writer has checked: nothing that is no picture is ever
//! sent, nothing has to be taken back, and a picture that waits for its turn takes no memory. Small ones are
//! one request, larger ones are sent in parts. What the store has answered with 200 it keeps; only that counts
//! as kept.
//!
//! Every request is bounded in time and tried again a few times; what is in memory is bounded for each picture
//! and for all together. Knows of the store what its settings say, and nothing of any provider of buckets.

mod connection;
mod presigner;
mod sweep;

use std::{
    fmt, fs, io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::{
    Attribute, Attributes, BackoffConfig, GetOptions, GetRange, MultipartUpload, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
};
use secrecy::ExposeSecret as _;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::connection::{Connector, Refusal};
pub use self::presigner::Presigner;
use super::{
    sniff::PictureFormat,
    store::{PictureStream, StoreError, blocking, hour_name, picture_name},
};
use crate::{
    config::{S3Config, S3Credentials},
    ids::ImageId,
    telemetry::metrics::{Shelf, metrics},
};

/// What is sent at once: a picture up to this size is one request, a larger one is sent in parts of it. S3 takes
/// parts from 5 MiB on, and ten thousand of them.
const PART: u64 = 8 * 1024 * 1024;
/// What all pictures together have in memory on their way into the bucket.
const ALL_IN_MEMORY: u64 = 64 * 1024 * 1024;
/// Memory is shared out in pieces of this.
const UNIT: u64 = 64 * 1024;
/// How many pictures are looked for at once, for all that ask. A page of the history names a hundred and more.
const MOST_LOOKS: usize = 64;
/// How often a request is repeated; the pauses between are 0.1 s at first and double.
const MOST_RETRIES: usize = 3;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A probe that is so young tells the next one as well.
const FRESH: Duration = Duration::from_secs(1);
/// A probe is asked for while a client waits.
const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// The start does not wait longer for a bucket that is silent.
const CHECK_WITHIN: Duration = Duration::from_secs(10);
/// What is written to see whether that can be done.
const PROBE: &str = "easel-probe";

/// A bucket, or the part of it below a prefix. Cheap to clone.
#[derive(Clone)]
pub struct Bucket(Arc<Place>);

struct Place {
    store: AmazonS3,
    /// `s3://bucket/prefix`
    name: String,
    prefix: Path,
    timeout: Duration,
    memory: Semaphore,
    looks: Semaphore,
    /// An upload goes on when who waited for it is gone.
    uploads: TaskTracker,
    is_well: AtomicBool,
    probed: Mutex<Option<(Instant, bool)>>,
    presigner: Option<Presigner>,
}

/// What went wrong between us and the bucket.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store refuses: our credentials, our bucket, our region. It will go on doing so.
    #[error("the bucket refuses{}{}", if .0.is_empty() { "" } else { ": " }, .0)]
    Refused(String),
    /// The store is away, too slow, full, or broken.
    #[error("the bucket does not do what it should")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Fault {
    fn failed(text: &'static str) -> Self {
        Self::Failed(text.into())
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                return Self::Refused(refusal.to_string());
            }
            cause = error.source();
        }
        Self::Failed(Box::new(error))
    }
}

/// What is done with a bucket; the label of a figure.
#[derive(Debug, Clone, Copy)]
enum Action {
    Put,
    Get,
    Head,
    List,
    Delete,
    Probe,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Probe => "probe",
        }
    }

    /// For [`StoreError`]: "could not … a picture".
    fn verb(self) -> &'static str {
        match self {
            Self::Put => "keep",
            Self::Get => "read",
            Self::Head => "look for",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Probe => "make room for",
        }
    }
}

impl Bucket {
    /// The bucket `name` below `prefix`. Nothing is sent yet.
    ///
    /// # Errors
    /// A sentence about what is wrong with the settings.
    pub fn new(
        name: &str,
        prefix: &str,
        config: &S3Config,
        with_presigned_links: bool,
    ) -> Result<Self, String> {
        let connector = Connector::new(config)?;
        let store = builder(name, config, config.endpoint.as_deref(), &connector);
        let store = with_credentials(store, config)?;
        let store = store.build().map_err(|error| error.to_string())?;
        let prefix = Path::parse(prefix).map_err(|error| error.to_string())?;
        let presigner = if with_presigned_links {
            let endpoint = config
                .public_endpoint
                .as_deref()
                .or(config.endpoint.as_deref());
            let signed = builder(name, config, endpoint, &connector);
            Some(Presigner::new(signed, prefix.clone(), &store)?)
        } else {
            None
        };
        let in_all = usize::try_from(ALL_IN_MEMORY / UNIT).unwrap_or(usize::MAX);
        let place = Place {
            store,
            name: format!("s3://{name}/{prefix}")
                .trim_end_matches('/')
                .to_owned(),
            prefix,
            timeout: config.timeout,
            memory: Semaphore::new(in_all.min(Semaphore::MAX_PERMITS)),
            looks: Semaphore::new(MOST_LOOKS),
            uploads: TaskTracker::new(),
            is_well: AtomicBool::new(true),
            probed: Mutex::default(),
            presigner,
        };
        Ok(Self(Arc::new(place)))
    }

    /// Who makes links to it, if it was opened for that.
    pub fn presigner(&self) -> Option<Presigner> {
        self.0.presigner.clone()
    }

    /// Does once what will be done later: writes, reads, lists, deletes.
    ///
    /// # Errors
    /// [`Fault`], with what could not be done.
    pub async fn check(&self) -> Result<(), (&'static str, Fault)> {
        let key = self.0.prefix.clone().join(PROBE);
        let store = &self.0.store;
        let checked = async {
            let written = store.put(&key, Bytes::from_static(b"easel").into()).await;
            written.map_err(|error| ("write", error))?;
            let read = async { store.get(&key).await?.bytes().await };
            read.await.map_err(|error| ("read", error))?;
            let listed = store.list_with_delimiter(Some(&self.0.prefix)).await;
            listed.map_err(|error| ("list", error))?;
            self.delete_keys(vec![key.clone()])
                .await
                .map_err(|error| ("delete in", error))
        };
        let checked = match timeout(CHECK_WITHIN, checked).await {
            Ok(Ok(())) => Ok(()),
            // A key that is to be written is found in any bucket that is there.
            Ok(Err((action @ "write", object_store::Error::NotFound { .. }))) => {
                Err((action, Fault::Refused("there is no such bucket".to_owned())))
            }
            Ok(Err((action, error))) => Err((action, Fault::from(error))),
            Err(_elapsed) => Err(("use", Fault::failed("it does not answer in time"))),
        };
        self.note(checked.is_ok());
        if let Some(presigner) = &self.0.presigner {
            presigner.refresh().await;
        }
        checked
    }

    /// Whether a picture can be written. Of those who ask at the same time one looks.
    ///
    /// # Errors
    /// [`StoreError::Bucket`] when it cannot.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let mut probed = self.0.probed.lock().await;
        let is_well = match *probed {
            // That it went well is worth nothing when something has failed since.
            Some((at, is_well)) if at.elapsed() < FRESH && (self.is_well() || !is_well) => is_well,
            _ => {
                let key = self.0.prefix.clone().join(PROBE);
                let payload = Bytes::from_static(b"easel").into();
                let put = async { Ok(self.0.store.put(&key, payload).await.map(drop)?) };
                let put = async {
                    timeout(PROBE_WITHIN, put)
                        .await
                        .unwrap_or_else(|_| too_late())
                };
                let probe = self.measure(Action::Probe, put).await;
                if let Err(error) = &probe {
                    tracing::warn!(
                        error = error as &dyn std::error::Error,
                        "the bucket cannot be written"
                    );
                }
                let is_well = probe.is_ok();
                *probed = Some((Instant::now(), is_well));
                self.note(is_well);
                is_well
            }
        };
        if is_well {
            Ok(())
        } else {
            let fault = Fault::failed("it could not be written a moment ago");
            Err(error(Action::Probe, fault))
        }
    }

    /// Whether the last picture or probe was written.
    pub(super) fn is_well(&self) -> bool {
        self.0.is_well.load(Ordering::Relaxed)
    }

    fn note(&self, is_well: bool) {
        self.0.is_well.store(is_well, Ordering::Relaxed);
    }

    /// Puts the picture in this file into the bucket. When this returns, it is kept.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is visible, and parts that were sent are taken back if the store still answers.
    ///
    /// # Cancel safety
    /// Dropped, the upload goes on.
    pub(super) async fn put(
        &self,
        id: ImageId,
        format: PictureFormat,
        file: fs::File,
    ) -> Result<(), StoreError> {
        let (bucket, key) = (self.clone(), self.key(id, format));
        let upload = async move {
            // Whoever opened it may have locked it: it stays open as long as it is read.
            let opened = blocking("keep", move || {
                let size = file.metadata()?.len();
                Ok((Arc::new(file), size))
            });
            let (file, size) = opened.await?;
            let sent = async {
                if size <= PART {
                    bucket.put_whole(&key, format, file, size).await
                } else {
                    bucket.put_parts(&key, format, file, size).await
                }
            };
            let sent = bucket.measure(Action::Put, sent).await;
            bucket.note(sent.is_ok());
            sent?;
            metrics().store_wrote(Shelf::Bucket, size);
            if let Some(presigner) = &bucket.0.presigner {
                presigner.refresh().await;
            }
            Ok(())
        };
        let upload = self.0.uploads.spawn(upload.in_current_span());
        upload
            .await
            .unwrap_or_else(|panic| Err(error(Action::Put, Fault::Failed(Box::new(panic)))))
    }

    async fn put_whole(
        &self,
        key: &Path,
        format: PictureFormat,
        file: Arc<fs::File>,
        size: u64,
    ) -> Result<(), Fault> {
        let (bytes, _share) = self.read_part(&file, 0, size).await?;
        let options = PutOptions {
            attributes: attributes(format),
            ..PutOptions::default()
        };
        self.0.store.put_opts(key, bytes.into(), options).await?;
        Ok(())
    }

    async fn put_parts(
        &self,
        key: &Path,
        format: PictureFormat,
        file: Arc<fs::File>,
        size: u64,
    ) -> Result<(), Fault> {
        let options = PutMultipartOptions {
            attributes: attributes(format),
            ..PutMultipartOptions::default()
        };
        let mut upload = self.0.store.put_multipart_opts(key, options).await?;
        let sent = self.send_parts(upload.as_mut(), &file, size).await;
        if sent.is_err() {
            // What cannot be taken back now is left to the bucket's own rule for unfinished uploads.
            drop(timeout(self.0.timeout, upload.abort()).await);
        }
        sent
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        file: &Arc<fs::File>,
        size: u64,
    ) -> Result<(), Fault> {
        let mut offset = 0;
        while offset < size {
            let length = PART.min(size - offset);
            let (bytes, _share) = self.read_part(file, offset, length).await?;
            upload.put_part(bytes.into()).await?;
            offset += length;
        }
        upload.complete().await?;
        Ok(())
    }

    /// A part of a file, and its share of the memory that all parts have.
    async fn read_part(
        &self,
        file: &Arc<fs::File>,
        offset: u64,
        length: u64,
    ) -> Result<(Bytes, SemaphorePermit<'_>), Fault> {
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let share = timeout(self.0.timeout, self.0.memory.acquire_many(units)).await;
        let Ok(Ok(share)) = share else {
            return Err(Fault::failed("too many pictures are on their way into it"));
        };
        let file = Arc::clone(file);
        let read = blocking("read", move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        });
        let bytes = read.await.map_err(|error| Fault::Failed(Box::new(error)))?;
        Ok((bytes.into(), share))
    }

    /// The bytes of a picture from `offset` on and how many they are; `None` when it is not there. A
    /// connection that breaks is made again, and goes on where it broke.
    pub(super) async fn get(
        &self,
        id: ImageId,
        format: PictureFormat,
        offset: u64,
    ) -> Result<Option<(u64, PictureStream)>, StoreError> {
        let key = self.key(id, format);
        let options = GetOptions {
            range: (offset > 0).then_some(GetRange::Offset(offset)),
            ..GetOptions::default()
        };
        let got = async { found(self.0.store.get_opts(&key, options).await) };
        let Some(got) = self.measure(Action::Get, got).await? else {
            return Ok(None);
        };
        let left = got.range.end.saturating_sub(got.range.start);
        let chunks = got
            .into_stream()
            .inspect_ok(|chunk| metrics().store_read(Shelf::Bucket, chunk.len()));
        let chunks = chunks.map_err(|error| {
            metrics().store_answered(Action::Get.word(), "cut", None);
            io::Error::other(Fault::from(error))
        });
        Ok(Some((left, chunks.boxed())))
    }

    /// Whether a picture is there.
    pub(super) async fn has(&self, id: ImageId, format: PictureFormat) -> Result<bool, StoreError> {
        let look = timeout(self.0.timeout, self.0.looks.acquire()).await;
        let Ok(Ok(_look)) = look else {
            let fault = Fault::failed("too many pictures are looked for in it");
            return Err(error(Action::Head, fault));
        };
        let key = self.key(id, format);
        let head = async { found(self.0.store.head(&key).await) };
        Ok(self.measure(Action::Head, head).await?.is_some())
    }

    /// Deletes a picture; fine when it is already gone.
    pub(super) async fn delete(
        &self,
        id: ImageId,
        format: PictureFormat,
    ) -> Result<(), StoreError> {
        let key = self.key(id, format);
        let deleted = async { Ok(self.delete_keys(vec![key]).await?) };
        self.measure(Action::Delete, deleted).await
    }

    /// In one request, for up to a thousand keys.
    async fn delete_keys(&self, keys: Vec<Path>) -> Result<(), object_store::Error> {
        let keys = futures_util::stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut deleted = self.0.store.delete_stream(keys);
        let mut failure = None;
        while let Some(deleted) = deleted.next().await {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Has this done while nobody waits for it.
    pub(super) fn behind(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            self.0.uploads.spawn_on(work, &runtime);
        }
    }

    /// Waits until nothing is on its way into the bucket any more. From now on nothing may be sent.
    pub(super) async fn drain(&self) {
        self.0.uploads.close();
        self.0.uploads.wait().await;
    }

    fn key(&self, id: ImageId, format: PictureFormat) -> Path {
        key(&self.0.prefix, id, format)
    }

    /// Counts what was done, and how long it took.
    async fn measure<T>(
        &self,
        action: Action,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, StoreError> {
        let began_at = Instant::now();
        let done = work.await;
        let outcome = match &done {
            Ok(_) => "ok",
            Err(Fault::Refused(_)) => "refused",
            Err(Fault::Failed(_)) => "failed",
        };
        metrics().store_answered(action.word(), outcome, Some(began_at.elapsed()));
        done.map_err(|fault| error(action, fault))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Bucket").field(&self.0.name).finish()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.name)
    }
}

/// The way to a bucket at this endpoint, without credentials.
fn builder(
    name: &str,
    config: &S3Config,
    endpoint: Option<&str>,
    connector: &Connector,
) -> AmazonS3Builder {
    let builder = AmazonS3Builder::new()
        .with_bucket_name(name)
        .with_region(&config.region)
        .with_http_connector(connector.clone())
        .with_virtual_hosted_style_request(!config.path_style)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                max_backoff: LONGEST_PAUSE,
                ..BackoffConfig::default()
            },
            max_retries: MOST_RETRIES,
            retry_timeout: config.timeout,
        });
    let Some(endpoint) = endpoint else {
        return builder;
    };
    builder
        .with_allow_http(endpoint.starts_with("http://"))
        .with_endpoint(match endpoint.split_once("://") {
            Some((scheme, rest)) if !config.path_style => format!("{scheme}://{name}.{rest}"),
            _ => endpoint.to_owned(),
        })
}

fn with_credentials(
    builder: AmazonS3Builder,
    config: &S3Config,
) -> Result<AmazonS3Builder, String> {
    use AmazonS3ConfigKey as Key;
    let Some(credentials) = &config.credentials else {
        return Err("there are no credentials".to_owned());
    };
    Ok(match credentials {
        S3Credentials::Keys {
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            let builder = builder
                .with_access_key_id(access_key_id.expose_secret())
                .with_secret_access_key(secret_access_key.expose_secret());
            match session_token {
                Some(token) => builder.with_token(token.expose_secret()),
                None => builder,
            }
        }
        S3Credentials::WebIdentity {
            token_file,
            role_arn,
            session_name,
        } => {
            let builder = builder
                .with_config(Key::WebIdentityTokenFile, token_file)
                .with_config(Key::RoleArn, role_arn);
            match session_name {
                Some(name) => builder.with_config(Key::RoleSessionName, name),
                None => builder,
            }
        }
        S3Credentials::Task { relative_uri } => {
            builder.with_config(Key::ContainerCredentialsRelativeUri, relative_uri)
        }
        S3Credentials::Pod {
            full_uri,
            token_file,
        } => builder
            .with_config(Key::ContainerCredentialsFullUri, full_uri)
            .with_config(Key::ContainerAuthorizationTokenFile, token_file),
        // What is left when nothing else is there.
        S3Credentials::Instance => builder,
    })
}

/// `prefix/2026112011/img_….png`
fn key(prefix: &Path, id: ImageId, format: PictureFormat) -> Path {
    let hour = hour_name(id.created_at());
    prefix.clone().join(hour).join(picture_name(id, format))
}

/// Who opens a presigned link sees a picture, and not a download of bytes.
fn attributes(format: PictureFormat) -> Attributes {
    Attributes::from_iter([
        (Attribute::ContentType, format.content_type()),
        (Attribute::ContentDisposition, "inline"),
    ])
}

/// What is not there is no fault.
fn found<T>(result: object_store::Result<T>) -> Result<Option<T>, Fault> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn too_late<T>() -> Result<T, Fault> {
    Err(Fault::failed("it does not answer in time"))
}

fn error(action: Action, source: Fault) -> StoreError {
    StoreError::Bucket {
        action: action.verb(),
        source,
    }
}
