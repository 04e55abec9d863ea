//! The accept loop: connections are bounded in number, a request's head in time, and shutdown lets the
//! exchanges in flight finish.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::Router;
use http::{HeaderValue, Version, header};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{idle::Activity, unreadable::Enveloped};
use crate::telemetry::metrics::metrics;

/// What is served, to whoever asks now. It is exchanged as a whole: a request has it looked up once, when its
/// head has come, and sees nothing of what comes into force later.
#[derive(Debug)]
pub struct Serving {
    /// Which listener it is, as its figures have it.
    pub listener: &'static str,
    /// The endpoints, over everything that they work with.
    pub router: Router,
    /// How new connections are treated.
    pub settings: ServerSettings,
    /// What new connections are encrypted with; whether they are is decided when a process starts.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// What is served now.
pub type Current = Arc<ArcSwap<Serving>>;

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// Client connections at the same time; more wait in the listener's queue. What a server begins with counts.
    pub max_connections: usize,
    /// How long the head of a request may take, from the connection's or the last answer's end.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what it is sent.
    pub stall_timeout: Duration,
}

/// How a server is told to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Clients are asked to come no more over the connections that they have: each is closed behind its next
    /// answer.
    pub leaving: CancellationToken,
    /// The listener is closed, and each connection once nothing is under way on it.
    pub closing: CancellationToken,
}

/// Connections that were waiting when the listener was to close, and are taken all the same: who has got through
/// to the system takes itself for let in. More than come in a moment; they end.
const MOST_LATE: usize = 4096;

/// How long such connections may take to ask for something.
const LATE_PATIENCE: Duration = Duration::from_millis(250);

/// Who is at the other end of the connection; among the extensions of every request. A proxy's address where
/// there is one.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// After a failed accept (no file descriptors left) the next one fails as well; do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much of an answer may wait for a slow client in the HTTP library, and how long a request's head may
/// be. (Its own default is 400 KiB for each connection; `OpenAI` asks for heads below 64 KiB.)
const CONNECTION_BUFFER: usize = 128 * 1024;

/// Exchanges at the same time on one HTTP/2 connection; more are refused in a way that clients may repeat.
const MOST_STREAMS: u32 = 32;

/// How much of one HTTP/2 answer may wait for a slow client in the HTTP library, which by default lets 400 KiB.
const STREAM_BUFFER: usize = 64 * 1024;

/// Serves until `stop` says so, and then until the exchanges in flight have finished, however long they take.
pub async fn serve(listener: TcpListener, current: Current, stop: Stop) {
    let (name, most) = {
        let serving = current.load();
        (serving.listener, serving.settings.max_connections)
    };
    metrics().listens(name, most);
    let slots = Arc::new(Semaphore::new(most));
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    // Those on which nothing was asked yet.
    let unasked = TaskTracker::new();
    let mut late = 0;

    loop {
        let accepted = tokio::select! {
            biased;
            accepted = accept(&listener, &slots), if late < MOST_LATE => accepted,
            () = stop.closing.cancelled() => break,
        };
        late += usize::from(stop.closing.is_cancelled());
        let (socket, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not accept a connection"
                );
                if stop.closing.is_cancelled() {
                    break;
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it a peer's delayed acknowledgement stalls the tail of large answers for 40 ms.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "could not set TCP_NODELAY"
            );
        }
        let (settings, tls) = {
            let serving = current.load();
            (serving.settings, serving.tls.clone())
        };
        bound_stalls(&socket, settings.stall_timeout);
        let line = Line {
            current: Arc::clone(&current),
            settings,
            peer,
            leaving: stop.leaving.clone(),
            graceful: graceful.watcher(),
            unasked: Mutex::new(Some(unasked.token())),
        };
        let closing = stop.closing.clone();
        let connected = metrics().connected(name);
        connections.spawn(async move {
            match tls {
                None => line.serve(socket).await,
                // Boxed, so that a plain connection has no room for the state of an encrypted one.
                Some(tls) => Box::pin(async move {
                    let too_late = async {
                        closing.cancelled().await;
                        sleep(LATE_PATIENCE).await;
                    };
                    tokio::select! {
                        socket = shake_hands(tls, socket, settings.header_timeout) => if let Some(socket) = socket {
                            line.serve(socket).await;
                        },
                        () = too_late => {}
                    }
                })
                .await,
            }
            drop((connected, slot));
        });
    }

    drop(listener);
    connections.close();
    unasked.close();
    // A request that is on its way through the system's buffers would find its connection closed.
    drop(timeout(LATE_PATIENCE, unasked.wait()).await);
    graceful.shutdown().await;
    connections.wait().await;
}

/// The connection as its client has it, once both agree on how they speak. Until then it counts among the
/// connections and nothing else; its patience is that for a head, which comes next.
async fn shake_hands(
    tls: Arc<rustls::ServerConfig>,
    socket: TcpStream,
    patience: Duration,
) -> Option<TlsStream<TcpStream>> {
    match timeout(patience, TlsAcceptor::from(tls).accept(socket)).await {
        Ok(Ok(socket)) => return Some(socket),
        Ok(Err(error)) => tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a connection came to no TLS"
        ),
        Err(_) => tracing::debug!("a connection was closed that took too long to come to TLS"),
    }
    None
}

/// One connection.
struct Line {
    current: Current,
    settings: ServerSettings,
    peer: Peer,
    leaving: CancellationToken,
    graceful: Watcher,
    /// Held until something is asked.
    unasked: Mutex<Option<TaskTrackerToken>>,
}

impl Line {
    /// Serves it to its end.
    async fn serve<S>(self, socket: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            current,
            settings,
            peer,
            leaving,
            graceful,
            unasked,
        } = self;
        let activity = Arc::new(Activity::default());
        let socket = Enveloped::new(socket, Arc::clone(&activity));
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |mut request: http::Request<Incoming>| {
                drop(
                    unasked
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take(),
                );
                let router = TowerToHyperService::new(current.load().router.clone());
                request.extensions_mut().insert(peer);
                let exchange = activity.begin();
                let version = request.version();
                let answer = router.call(request);
                let leaving = leaving.clone();
                async move {
                    let mut answer = exchange.ends_with(answer.await?, version);
                    // Over HTTP/2 the connection itself is told, when the listener closes.
                    if leaving.is_cancelled() && version < Version::HTTP_2 {
                        let headers = answer.headers_mut();
                        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        let connection = builder(settings)
            .serve_connection_with_upgrades(TokioIo::new(socket), service)
            .into_owned();
        tokio::select! {
            ended = graceful.watch(connection) => if let Err(error) = ended {
                tracing::debug!(error = &*error, "a connection ended early");
            },
            () = activity.silence(settings.header_timeout) => {
                tracing::debug!("a connection was closed on which nothing happened");
            }
            () = activity.stall(settings.stall_timeout) => {
                tracing::debug!("a connection was closed whose answers nobody took");
            }
        }
    }
}

fn builder(settings: ServerSettings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(CONNECTION_BUFFER)
        .header_read_timeout(settings.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_send_buf_size(STREAM_BUFFER);
    builder
}

/// Has the system give a connection up whose peer takes nothing of what it was sent for this long. Nothing
/// above the socket sees that: who asks and does not read the answers would keep a slot for ever.
#[cfg(target_os = "linux")]
fn bound_stalls(socket: &TcpStream, timeout: Duration) {
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(socket, millis) {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "could not set TCP_USER_TIMEOUT"
        );
    }
}

/// Other systems have no such option, or none of that name.
#[cfg(not(target_os = "linux"))]
fn bound_stalls(_: &TcpStream, _: Duration) {}

/// The next connection once there is a slot for it.
///
/// # Cancel safety
/// Dropped before a connection is accepted, nothing is lost: it stays in the listener's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (socket, address) = listener.accept().await?;
    Ok((socket, Peer(address.ip()), slot))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    /// What the server says until it closes, to a client that sends this and then nothing more.
    async fn converse(sends: &[u8]) -> String {
        let talk = async |mut socket: TcpStream| {
            socket.write_all(sends).await.unwrap();
            let mut heard = Vec::new();
            timeout(Duration::from_secs(10), socket.read_to_end(&mut heard))
                .await
                .expect("the connection should have been closed")
                .unwrap();
            String::from_utf8_lossy(&heard).into_owned()
        };
        with_hasty_server(talk).await
    }

    /// With one connection to a server that waits for nobody.
    async fn with_hasty_server<T>(talk: impl AsyncFnOnce(TcpStream) -> T) -> T {
        let settings = ServerSettings {
            max_connections: 8,
            header_timeout: Duration::from_millis(100),
            stall_timeout: Duration::from_millis(200),
        };
        let answer = || async {
            // Longer than a silent connection lives: asking is what counts, not being answered.
            sleep(Duration::from_millis(400)).await;
            "painted"
        };
        let router = Router::new().route("/", get(answer));
        let talk =
            async |address: SocketAddr| talk(TcpStream::connect(address).await.unwrap()).await;
        with_server(settings, router, talk).await
    }

    /// With the address of a server, which ends with the talk.
    async fn with_server<T>(
        settings: ServerSettings,
        router: Router,
        talk: impl AsyncFnOnce(SocketAddr) -> T,
    ) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::default();
        let serving = Arc::new(ArcSwap::from_pointee(Serving {
            listener: "test",
            router,
            settings,
            tls: None,
        }));
        let serving = serve(listener, serving, stop.clone());
        let talking = async {
            let said = talk(address).await;
            stop.closing.cancel();
            said
        };
        tokio::join!(serving, talking).1
    }

    #[tokio::test]
    async fn who_never_asks_is_hung_up_on() {
        assert_eq!(converse(b"").await, "");
        // The beginning of HTTP/2's preface, which may be that of a method as well.
        assert_eq!(converse(b"P").await, "");
        assert_eq!(converse(b"PRI * HTTP/2.0\r\n").await, "");
    }

    #[tokio::test]
    async fn who_has_asked_may_wait_for_the_answer() {
        let heard = converse(b"GET / HTTP/1.1\r\nhost: easel\r\n\r\n").await;
        assert!(heard.ends_with("painted"), "{heard}");
    }

    /// HTTP/2's preface, empty settings, and `GET /` on stream 1 (RFC 9113 and 7541).
    #[tokio::test]
    async fn who_asked_over_http2_and_rests_is_hung_up_on() {
        let mut sends = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        sends.extend(b"\0\0\x0A\x01\x05\0\0\0\x01\x82\x86\x84\x41\x05easel");
        let heard = converse(&sends).await;
        assert!(heard.contains("painted"), "{heard}");
    }

    /// At the bound a connection waits to be accepted, and is served when another has gone.
    #[tokio::test]
    async fn connections_are_bounded() {
        const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: easel\r\nconnection: close\r\n\r\n";
        let settings = ServerSettings {
            max_connections: 2,
            header_timeout: Duration::from_mins(1),
            stall_timeout: Duration::from_mins(1),
        };
        let router = Router::new().route("/", get(async || "painted"));
        let talk = async |address: SocketAddr| {
            let connect = async || TcpStream::connect(address).await.unwrap();
            let (_idle, busy) = (connect().await, connect().await);
            let mut third = connect().await;
            third.write_all(ASK).await.unwrap();
            let mut heard = Vec::new();
            let early = timeout(Duration::from_millis(300), third.read_to_end(&mut heard)).await;
            assert!(early.is_err() && heard.is_empty(), "{heard:?}");
            drop(busy);
            let late = timeout(Duration::from_secs(20), third.read_to_end(&mut heard)).await;
            late.expect("there is a place again").unwrap();
            String::from_utf8_lossy(&heard).into_owned()
        };
        let heard = with_server(settings, router, talk).await;
        assert!(heard.ends_with("painted"), "{heard}");
    }

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A frame of HTTP/2 (RFC 9113, 4.1).
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// `GET /` (RFC 7541).
    fn get_over_http2(stream: u8) -> Vec<u8> {
        frame(1, 5, stream, b"\x82\x86\x84\x41\x05easel")
    }

    #[tokio::test]
    async fn who_opens_no_window_over_http2_is_hung_up_on() {
        // Settings: an initial window of nothing.
        let mut sends = PREFACE.to_vec();
        sends.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
        sends.extend((0..8).flat_map(|place| get_over_http2(2 * place + 1)));
        let heard = converse(&sends).await;
        assert!(!heard.contains("painted"), "{heard}");
    }

    #[tokio::test]
    async fn exchanges_on_one_connection_are_bounded() {
        let talk = async |mut socket: TcpStream| {
            let mut sends = PREFACE.to_vec();
            sends.extend(frame(4, 0, 0, &[]));
            sends.extend((0..40).flat_map(|place| get_over_http2(2 * place + 1)));
            socket.write_all(&sends).await.unwrap();
            let (mut painted, mut refused) = (0, 0);
            while painted + refused < 40 {
                let mut head = [0; 9];
                socket.read_exact(&mut head).await.unwrap();
                let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut payload = vec![0; length];
                socket.read_exact(&mut payload).await.unwrap();
                match head[3] {
                    0 if payload == b"painted" => painted += 1,
                    // A reset, REFUSED_STREAM.
                    3 => {
                        assert_eq!(payload, [0, 0, 0, 7]);
                        refused += 1;
                    }
                    _ => {}
                }
            }
            (painted, refused)
        };
        let counted = timeout(Duration::from_secs(10), with_hasty_server(talk)).await;
        assert_eq!(counted.unwrap(), (32, 8));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_takes_no_answer_is_hung_up_on() {
        let talk = async |socket: TcpStream| {
            let asks = b"GET /nothing HTTP/1.1\r\nhost: easel\r\n\r\n".repeat(1000);
            // Until the system's buffers are full in both directions, and then until the other side goes.
            loop {
                socket.writable().await.unwrap();
                match socket.try_write(&asks) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return error.kind(),
                }
            }
        };
        let gone = timeout(Duration::from_secs(20), with_hasty_server(talk)).await;
        assert_eq!(
            gone.expect("the connection should have been given up"),
            io::ErrorKind::ConnectionReset
        );
    }
}
