//! The accept loop: connections are bounded in number, a request's head in time, and shutdown lets the
//! exchanges in flight finish.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// Client connections at the same time; more wait in the listener's queue.
    pub max_connections: usize,
    /// How long the head of a request may take, from the connection's or the last answer's end.
    pub header_timeout: Duration,
    /// How long exchanges in flight may take to finish once `stop` is cancelled.
    pub drain_timeout: Duration,
}

/// After a failed accept (no file descriptors left) the next one fails as well; do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled, then stops accepting and waits for the exchanges in flight.
/// Returns whether all of them finished in time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ServerSettings,
    stop: CancellationToken,
) -> bool {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout);
    builder.http2().timer(TokioTimer::new());
    let builder = Arc::new(builder);
    let slots = Arc::new(Semaphore::new(settings.max_connections));
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();

    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (socket, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not accept a connection"
                );
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
        let asked = Arc::new(AtomicBool::new(false));
        let service = {
            let asked = Arc::clone(&asked);
            let router = TowerToHyperService::new(router.clone());
            service_fn(move |request| {
                asked.store(true, Ordering::Relaxed);
                router.call(request)
            })
        };
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(socket), service)
            .into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(error = &*error, "a connection ended early");
                },
                () = silence(&asked, settings.header_timeout) => {
                    tracing::debug!("a connection was closed that never sent a request");
                }
            }
            drop(slot);
        });
    }

    drop(listener);
    connections.close();
    timeout(settings.drain_timeout, async {
        graceful.shutdown().await;
        connections.wait().await;
    })
    .await
    .is_ok()
}

/// Ends after `patience` if nothing was asked by then. The server's own timeout begins only when it knows
/// which version of HTTP is spoken; without this one, who connects and says nothing keeps a slot for ever.
async fn silence(asked: &AtomicBool, patience: Duration) {
    sleep(patience).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// The next connection once there is a slot for it.
///
/// # Cancel safety
/// Dropped before a connection is accepted, nothing is lost: it stays in the listener's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (socket, _) = listener.accept().await?;
    Ok((socket, slot))
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    /// What the server says until it closes, to a client that sends this and then nothing more.
    async fn converse(sends: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = || async {
            // Longer than a silent connection lives: asking is what counts, not being answered.
            sleep(Duration::from_millis(400)).await;
            "painted"
        };
        let router = Router::new().route("/", get(answer));
        let settings = ServerSettings {
            max_connections: 8,
            header_timeout: Duration::from_millis(100),
            drain_timeout: Duration::from_secs(1),
        };
        let stop = CancellationToken::new();
        let serving = serve(listener, router, settings, stop.clone());
        let talking = async {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(sends).await.unwrap();
            let mut heard = Vec::new();
            timeout(Duration::from_secs(10), socket.read_to_end(&mut heard))
                .await
                .expect("the connection should have been closed")
                .unwrap();
            stop.cancel();
            String::from_utf8_lossy(&heard).into_owned()
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
}
