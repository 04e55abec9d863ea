//! The accept loop: connections are bounded in number, a request's head in time, and shutdown lets the
//! exchanges in flight finish.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
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
        let service = TowerToHyperService::new(router.clone());
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(socket), service)
            .into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &*error, "a connection ended early");
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
