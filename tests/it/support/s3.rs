//! A real S3 server on a real socket, below a directory: it checks signatures, parts and digests as S3 does.
//! In front of it is what goes wrong with such servers.
//!
//! Knows nothing of Easel.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use s3s::{
    S3Result,
    auth::{S3Auth, SecretKey},
    service::{S3Service, S3ServiceBuilder},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// The bucket that is there.
pub(crate) const BUCKET: &str = "pictures";
pub(crate) const KEY_ID: &str = "AKIAEXAMPLEEXAMPLE";
pub(crate) const SECRET: &str = "an-example-secret-of-s3-0123456789abcdef";

/// How requests end that are not simply answered.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// The right answer, after a while.
    Slow(Duration),
    /// This status with this code, as S3 words it; nothing is done.
    Refuse(u16, &'static str),
    /// The connection breaks without an answer.
    Break,
    /// The head and this many bytes of the right answer, then the connection breaks.
    CutAfter(usize),
    /// Never an answer.
    Silence,
}

/// The running server.
pub(crate) struct S3Server {
    directory: TempDir,
    shared: Arc<Shared>,
    address: SocketAddr,
    keys: Keys,
    tls: Option<TlsAcceptor>,
    server: Option<JoinSet<()>>,
}

struct Shared {
    service: S3Service,
    troubles: Mutex<Vec<(Method, Trouble, usize)>>,
    requests: Mutex<Vec<(Method, String)>>,
    under_way: Mutex<HashMap<Method, UnderWay>>,
}

/// Requests of a method.
#[derive(Default)]
struct UnderWay {
    now: usize,
    most: usize,
}

/// Counts a request until it is answered.
struct Counted(Arc<Shared>, Method);

/// Who may come in: key ids and their secrets.
#[derive(Clone, Default)]
struct Keys(Arc<Mutex<HashMap<String, String>>>);

type Broken = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Broken>>;

impl S3Server {
    /// With an empty [`BUCKET`], for [`KEY_ID`] and [`SECRET`].
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same behind TLS, with a certificate and its key, both in PEM.
    pub(crate) async fn start_with_tls(cert: &str, key: &str) -> Self {
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let files = s3s_fs::FileSystem::new(directory.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        let keys = Keys::default();
        builder.set_auth(keys.clone());
        let shared = Arc::new(Shared {
            service: builder.build(),
            troubles: Mutex::default(),
            requests: Mutex::default(),
            under_way: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut server = Self {
            directory,
            address: listener.local_addr().unwrap(),
            shared,
            keys,
            tls,
            server: None,
        };
        server.replace_keys(KEY_ID, SECRET);
        server.serve(listener);
        server
    }

    /// From now on these are good, and no others.
    pub(crate) fn replace_keys(&self, key_id: &str, secret: &str) {
        let mut keys = self.keys.0.lock().unwrap();
        keys.clear();
        keys.insert(key_id.to_owned(), secret.to_owned());
    }

    fn serve(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let tls = self.tls.clone();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let http = hyper::server::conn::http1::Builder::new();
                let Some(tls) = tls.clone() else {
                    let connection = http.serve_connection(TokioIo::new(socket), service);
                    connections.spawn(async move { connection.await.unwrap_or_default() });
                    continue;
                };
                connections.spawn(async move {
                    // Who does not trust us leaves.
                    if let Ok(socket) = tls.accept(socket).await {
                        let connection = http.serve_connection(TokioIo::new(socket), service);
                        connection.await.unwrap_or_default();
                    }
                });
            }
        });
        self.server = Some(server);
    }

    /// Nobody listens any more, and who was connected is not.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.shutdown().await;
        }
    }

    /// Listens again, where it did.
    pub(crate) async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// This happens to the next so many requests of this method.
    pub(crate) fn trouble(&self, method: Method, trouble: Trouble, times: usize) {
        let mut troubles = self.shared.troubles.lock().unwrap();
        troubles.push((method, trouble, times));
    }

    /// From now on everything is in order.
    pub(crate) fn calm(&self) {
        self.shared.troubles.lock().unwrap().clear();
    }

    /// What was asked so far: methods, and paths with their queries.
    pub(crate) fn requests(&self) -> Vec<(Method, String)> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many requests of this method were waiting for an answer at the same time, at most.
    pub(crate) fn most_at_once(&self, method: &Method) -> usize {
        let under_way = self.shared.under_way.lock().unwrap();
        under_way.get(method).map_or(0, |under_way| under_way.most)
    }

    /// Where the bucket's objects are as files.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.directory.path().join(BUCKET)
    }

    /// The keys of the bucket.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        gather(&self.bucket(), "", &mut keys);
        keys
    }

    /// What is there of uploads that were begun and not ended.
    pub(crate) fn unfinished(&self) -> usize {
        let names = std::fs::read_dir(self.directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload")).count()
    }
}

fn gather(directory: &Path, prefix: &str, keys: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            gather(&entry.path(), &format!("{name}/"), keys);
        } else {
            keys.insert(name);
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Broken> {
    let asked = request.uri().path_and_query().unwrap().to_string();
    let method = request.method().clone();
    let requests = &shared.requests;
    requests.lock().unwrap().push((method.clone(), asked));
    let _counted = Counted::new(&shared, &method);
    // The server would make it.
    let bucket = request.uri().path().split('/').nth(1);
    if bucket != Some(BUCKET) {
        request.into_body().collect().await?;
        return Ok(refusal(404, "NoSuchBucket"));
    }
    let cut = match shared.next_trouble(&method) {
        None => None,
        Some(Trouble::Slow(time)) => {
            tokio::time::sleep(time).await;
            None
        }
        Some(Trouble::Silence) => std::future::pending().await,
        Some(Trouble::Break) => return Err("the connection breaks".into()),
        Some(Trouble::Refuse(status, code)) => {
            // As S3 does it: what was sent is read first.
            request.into_body().collect().await?;
            return Ok(refusal(status, code));
        }
        Some(Trouble::CutAfter(bytes)) => Some(bytes),
    };
    let response = shared.service.call(request.map(s3s::Body::from)).await;
    let response = response.map_err(|error| format!("{error:?}"))?;
    let (head, body) = response.into_parts();
    let body = match cut {
        None => body.boxed_unsync(),
        Some(bytes) => cut_after(body, bytes).await,
    };
    Ok(Response::from_parts(head, body))
}

impl Counted {
    fn new(shared: &Arc<Shared>, method: &Method) -> Self {
        let mut under_way = shared.under_way.lock().unwrap();
        let under_way = under_way.entry(method.clone()).or_default();
        under_way.now += 1;
        under_way.most = under_way.most.max(under_way.now);
        Self(Arc::clone(shared), method.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut under_way = self.0.under_way.lock().unwrap();
        under_way.get_mut(&self.1).unwrap().now -= 1;
    }
}

impl Shared {
    fn next_trouble(&self, method: &Method) -> Option<Trouble> {
        let mut troubles = self.troubles.lock().unwrap();
        let (_, trouble, times) = troubles
            .iter_mut()
            .find(|(of, _, times)| of == method && *times > 0)?;
        *times -= 1;
        Some(trouble.clone())
    }
}

fn refusal(status: u16, code: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>No</Message>\
         <AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId><RequestId>1</RequestId></Error>"
    );
    let body = Full::new(Bytes::from(text));
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(
            body.map_err(|never: Infallible| match never {})
                .boxed_unsync(),
        )
        .unwrap()
}

async fn cut_after(body: s3s::Body, bytes: usize) -> UnsyncBoxBody<Bytes, Broken> {
    let whole = BodyExt::collect(body).await.unwrap().to_bytes();
    let head = whole.slice(..bytes.min(whole.len()));
    let frames = futures_util::stream::iter([
        Ok(hyper::body::Frame::data(head)),
        Err::<_, Broken>("the connection breaks".into()),
    ]);
    // A moment between, so that what was sent is not lost with the connection.
    let frames = frames.then(|frame| async {
        if frame.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        frame
    });
    BodyExt::boxed_unsync(StreamBody::new(Box::pin(frames)))
}

#[async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, key_id: &str) -> S3Result<SecretKey> {
        let secret = self.0.lock().unwrap().get(key_id).cloned();
        secret
            .map(SecretKey::from)
            .ok_or_else(|| s3s::s3_error!(InvalidAccessKeyId))
    }
}
