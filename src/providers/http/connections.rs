//! The connections of a provider: hyper's pool of them, over TCP, TLS and the proxy that the environment names.
//!
//! Not `reqwest`, which offers no bound for what hyper reads ahead: 400 KiB of an answer, and again as much while
//! a slow reader still has the first. With [`READ_AHEAD`] sixty-four relays at once need 40 MiB less, and what is
//! read is still in the processor's cache when it is written. The rest is as there: the system's roots, its
//! proxies, HTTP/1.1, a pool without a bound of its own (callers have one), no redirects.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioTimer},
};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tower_service::Service;

use super::{hosts::Resolver, witness::Watched};

/// How much of an answer is read ahead of who reads it, and how long its head may be.
const READ_AHEAD: usize = 64 * 1024;
/// How long a connection rests before it is closed.
const REST: Duration = Duration::from_secs(90);
/// After so long without a byte the system asks whether the other side is still there,
const KEEPALIVE: Duration = Duration::from_secs(30);
/// again after so long,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// and gives up after so many questions.
const KEEPALIVE_RETRIES: u32 = 3;
/// What was sent and is not acknowledged for so long is lost, and the connection with it.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How we introduce ourselves.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("easel/", env!("CARGO_PKG_VERSION")));

type BoxError = Box<dyn Error + Send + Sync>;

/// Connections to wherever requests go.
pub(super) struct Connections {
    pool: Client<Connector, Watched>,
    proxies: Arc<Matcher>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The address is none that HTTP has a word for.
    #[error("the address cannot be asked")]
    Address(#[from] http::uri::InvalidUri),
    /// Nobody could be reached, or the connection broke.
    #[error("the exchange failed")]
    Exchange(#[from] hyper_util::client::legacy::Error),
}

impl SendError {
    /// Whether there never was a connection.
    pub(super) fn is_connect(&self) -> bool {
        match self {
            Self::Address(_) => false,
            Self::Exchange(error) => error.is_connect(),
        }
    }

    /// Whether it took too long, rather than being refused.
    pub(super) fn is_timeout(&self) -> bool {
        let mut source = self.source();
        while let Some(error) = source {
            let is_slow = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
            if error.is::<NotConnectedInTime>()
                || error.downcast_ref().is_some_and(is_slow)
                || error.downcast_ref().is_some_and(hyper::Error::is_timeout)
            {
                return true;
            }
            source = error.source();
        }
        false
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no connection was made in time")]
struct NotConnectedInTime;

/// Makes one connection: straight, through a proxy's tunnel, or to a proxy that asks in our place.
#[derive(Clone)]
struct Connector {
    direct: HttpsConnector<HttpConnector<Resolver>>,
    tls: Arc<ClientConfig>,
    proxies: Arc<Matcher>,
    timeout: Duration,
}

/// One of them.
struct Stream {
    io: Box<dyn Io>,
    /// Whether the other side is a proxy that wants to be told whole addresses.
    is_proxy: bool,
}

trait Io: Read + Write + Connection + Send + Unpin {}

impl<T: Read + Write + Connection + Send + Unpin> Io for T {}

impl Connections {
    /// None yet. Names become addresses by `resolver`; a connection that is not up within `timeout`, its TLS
    /// included, is none.
    ///
    /// # Errors
    /// What the system's certificates have against it, if `with_tls`.
    pub(super) fn new(
        resolver: Resolver,
        timeout: Duration,
        with_tls: bool,
    ) -> Result<Self, rustls::Error> {
        Self::through(Matcher::from_system(), resolver, timeout, with_tls)
    }

    fn through(
        proxies: Matcher,
        resolver: Resolver,
        timeout: Duration,
        with_tls: bool,
    ) -> Result<Self, rustls::Error> {
        let tls = Arc::new(tls(with_tls)?);
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let proxies = Arc::new(proxies);
        let connector = Connector {
            direct: (tcp, Arc::clone(&tls)).into(),
            tls,
            proxies: Arc::clone(&proxies),
            timeout,
        };
        let pool = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(REST)
            .http1_max_buf_size(READ_AHEAD)
            .build(connector);
        Ok(Self { pool, proxies })
    }

    /// Sends a request, and returns once the head of its answer is there.
    ///
    /// # Errors
    /// [`SendError`].
    ///
    /// # Cancel safety
    /// Dropped, the request may have been sent or not; its [`Watched`] body knows.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Watched,
    ) -> Result<Response<Incoming>, SendError> {
        let uri: Uri = url.as_str().parse()?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, USER_AGENT);
        if uri.scheme() == Some(&http::uri::Scheme::HTTP)
            && let Some(proxy) = self.proxies.intercept(&uri)
            && let Some(secret) = proxy.basic_auth()
        {
            // In a tunnel nobody but the tunnel's maker sees it.
            headers.insert(header::PROXY_AUTHORIZATION, secret.clone());
        }
        *request.uri_mut() = uri;
        Ok(self.pool.request(request).await?)
    }
}

/// What is trusted: what the system trusts, or, where certificates are not needed, nobody.
fn tls(is_needed: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = if is_needed {
        builder.with_platform_verifier()?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    let mut tls = builder.with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

impl Connector {
    async fn connect(mut self, to: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxies.intercept(&to) else {
            let io = self.direct.call(to).await?;
            return Ok(Stream::new(io, false));
        };
        if to.scheme() != Some(&http::uri::Scheme::HTTPS) {
            let io = self.direct.call(proxy.uri().clone()).await?;
            return Ok(Stream::new(io, true));
        }
        let introduction = HeaderMap::from_iter([(header::USER_AGENT, USER_AGENT)]);
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct).with_headers(introduction);
        if let Some(secret) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(secret.clone());
        }
        let io = HttpsConnector::from((tunnel, self.tls)).call(to).await?;
        Ok(Stream::new(io, false))
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            tokio::time::timeout(connector.timeout, connector.connect(to))
                .await
                .unwrap_or_else(|_| Err(NotConnectedInTime.into()))
        })
    }
}

impl Stream {
    fn new(io: impl Io + 'static, is_proxy: bool) -> Self {
        Self {
            io: Box::new(io),
            is_proxy,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_proxy)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        addresses::system_lookup,
        providers::http::{payload::Payload, witness::Witness},
    };

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\notter";

    /// A proxy that gives every request this answer; and what the first one was.
    async fn ask_through_a_proxy(
        link: &str,
        answer: &'static [u8],
    ) -> (Result<Response<Incoming>, SendError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://me:secret@{}", listener.local_addr().unwrap());
        let proxies = Matcher::builder().all(proxy).build();
        let resolver = Resolver {
            hosts: None,
            lookup: system_lookup,
        };
        let patience = Duration::from_secs(20);
        let connections = Connections::through(proxies, resolver, patience, false).unwrap();
        let serving = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                assert!(socket.read_buf(&mut heard).await.unwrap() > 0);
            }
            socket.write_all(answer).await.unwrap();
            String::from_utf8(heard).unwrap().to_ascii_lowercase()
        };
        let url = Url::parse(link).unwrap();
        let nothing = Witness::default().watch(Payload::default());
        let sending = connections.send(Method::GET, &url, HeaderMap::new(), nothing);
        tokio::join!(sending, serving)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_in_our_place() {
        let (answer, heard) = ask_through_a_proxy("http://painter.test/a?b=c", ANSWER).await;
        assert!(
            heard.starts_with("get http://painter.test/a?b=c http/1.1\r\n"),
            "{heard}"
        );
        assert!(heard.contains("proxy-authorization: basic"), "{heard}");
        assert!(heard.contains("user-agent: easel/"), "{heard}");
        let body = answer.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "otter");
    }

    #[tokio::test]
    async fn what_is_secret_goes_through_a_tunnel() {
        const DOOR: &[u8] = b"HTTP/1.1 403 Forbidden\r\n\r\n";
        let (answer, heard) = ask_through_a_proxy("https://painter.test/a?b=c", DOOR).await;
        assert!(
            heard.starts_with("connect painter.test:443 http/1.1\r\n"),
            "{heard}"
        );
        assert!(heard.contains("proxy-authorization: basic"), "{heard}");
        assert!(!heard.contains("b=c"), "{heard}");
        assert!(answer.unwrap_err().is_connect());
    }

    #[tokio::test]
    async fn a_connection_that_is_not_made_in_time_is_none() {
        // Accepts nothing: the tunnel is never opened.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let resolver = Resolver {
            hosts: None,
            lookup: system_lookup,
        };
        let connections = Connections::through(
            Matcher::builder().all(proxy).build(),
            resolver,
            Duration::from_millis(50),
            false,
        );
        let url = Url::parse("https://painter.test/").unwrap();
        let nothing = Witness::default().watch(Payload::default());
        let connections = connections.unwrap();
        let sent = connections.send(Method::GET, &url, HeaderMap::new(), nothing);
        let error = sent.await.unwrap_err();
        assert!(error.is_connect() && error.is_timeout(), "{error:?}");
    }
}
