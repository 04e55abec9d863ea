//! `easel serve`: the order in which everything starts and, backwards, stops.

mod first_key;
mod reload;
mod replica;
mod signals;
mod tasks;
mod world;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::Signal,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    reload::Reloader,
    replica::Replica,
    signals::{Ending, Signals},
    tasks::Tasks,
    world::{Ground, World},
};
use super::{CLOSE_PATIENCE, Context, output};
use crate::{
    api::server::{self, Current, Stop},
    config::{Config, Seen, ShutdownConfig, Source},
    keys::Keys,
    ledger::Ledger,
    postgres::private::ServeLock,
    reload::Reloads,
    telemetry::metrics::metrics,
    webhooks::Webhooks,
};

/// Serves `config`, which was read from `source` when its files were as `seen`.
pub(super) async fn run(config: Config, source: Source, seen: Seen) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    // From now on it ends nothing; one that comes while things start has the configuration read again then.
    let hangups = Signals::hangups()?;
    let files = raise_file_limit();
    // Replicas share a PostgreSQL, but nobody shares a private one.
    let _claim = match config.database.url {
        None => Some(ServeLock::acquire(&config.data_dir)?),
        Some(_) => None,
    };
    let mut opening = std::pin::pin!(Context::open(config));
    let context = tokio::select! {
        context = &mut opening => context?,
        _ = signals.next() => {
            // A database that is half started is stopped best when it is up; who cannot wait, says so.
            let context = tokio::select! {
                context = opening => context?,
                _ = signals.next() => return Ok(ExitCode::SUCCESS),
            };
            context.close().await?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let origin = Origin {
        source,
        seen,
        hangups,
    };
    let outcome = serve(&context, origin, files, &mut signals).await;
    let closed = context.close().await;
    outcome?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

/// Where the configuration is from, and when to read it again.
struct Origin {
    source: Source,
    seen: Seen,
    hangups: Signal,
}

async fn serve(
    context: &Context,
    origin: Origin,
    files: Option<u64>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let replica = Replica::claim(&context.config.data_dir)?;
    let ledger = Ledger::new(context.pool.clone(), context.clock.clone(), replica.id());
    ledger.beat().await?;
    if let Some(predecessor) = replica.predecessor() {
        ledger.sweep_replica(predecessor).await?;
    }
    let listener = bind("listen", context.config.listen)?;
    let address = listener.local_addr().context("no address to listen on")?;
    let config = context.config.clone().bound_to(address);
    let keys = Keys::new(context.pool.clone(), context.clock.clone()).remembered();
    let now = context.clock.now();
    let (reloads, requests) = Reloads::new(now);
    let ground = Ground::lay(
        context,
        &config,
        ledger.clone(),
        keys.clone(),
        address,
        reloads,
        files,
    );
    let ground = Arc::new(ground.await?);
    let mut world = World::build(&ground, config, Arc::clone(&context.catalog), None)?;
    world.settle_on(&ground);
    metrics().configured(false, now.timestamp(), 0);
    let mut tasks = Tasks::start(context, &ground, world.gateway.cancellations());

    let url = world.config.local_url(address);
    first_key::print_if_there_is_none(&keys, &ledger, &url).await?;
    output::line(format!("easel listening on {url}"));
    info!(%address, public_url = world.config.public_url, "serving");

    let metrics = match world.config.metrics.listen {
        Some(address) => Some(bind("metrics.listen", address)?),
        None => None,
    };
    let current = Arc::new(ArcSwap::from_pointee(world.serving()));
    let listeners = Listeners {
        main: (listener, Arc::clone(&current)),
        metrics: metrics.map(|listener| {
            let serving = Arc::new(ArcSwap::from_pointee(world.serving_metrics()));
            (listener, serving)
        }),
    };
    let worlds = Arc::new(ArcSwap::from_pointee(world));
    let stop_webhooks = CancellationToken::new();
    let telling = Arc::clone(&worlds);
    let mut sending = JoinSet::new();
    sending.spawn(Webhooks::run(
        move || Arc::clone(&telling.load().webhooks),
        stop_webhooks.clone(),
    ));
    let reloader = Reloader {
        source: origin.source,
        applied: origin.seen.clone(),
        seen: origin.seen,
        started: Arc::new(context.config.clone()),
        ground: Arc::clone(&ground),
        worlds: Arc::clone(&worlds),
        current,
        requests,
        hangups: origin.hangups,
    };
    tasks.spawn(reloader.run());
    until_drained(listeners, &worlds, signals).await;
    stop_webhooks.cancel();
    tasks.stop().await;
    let uploading = timeout(LAST_UPLOADS_WITHIN, ground.store.drain());
    // They have a time of their own, which begins when the database has answered what they ask it; what is not sent
    // another replica sends.
    let telling = timeout(LAST_UPLOADS_WITHIN, sending.join_next());
    let last = async { tokio::join!(uploading, telling).0 };
    let uploaded = tokio::select! {
        uploaded = last => uploaded.is_ok(),
        _ = signals.next() => false,
    };
    sending.abort_all();
    if !uploaded {
        warn!("some pictures were still on their way into the bucket");
    }
    // What is still held, if its settlement did not get through, is free for others to release.
    let stopped = timeout(LAST_BATCH_WITHIN, ledger.stop()).await;
    stopped.context("the database did not take the last settlements in time")??;
    info!("stopped");
    Ok(())
}

/// Copies whose clients left while the process stopped.
const LAST_UPLOADS_WITHIN: Duration = Duration::from_secs(10);
/// What is being written into the books.
const LAST_BATCH_WITHIN: Duration = Duration::from_secs(5);

// What supervisors are told to wait for.
const _: () = assert!(
    SETTLE_PATIENCE.as_secs()
        + LAST_UPLOADS_WITHIN.as_secs()
        + LAST_BATCH_WITHIN.as_secs()
        + CLOSE_PATIENCE.as_secs()
        <= ShutdownConfig::ENDING.as_secs()
);

/// Where clients come in, and what they find there.
struct Listeners {
    main: (TcpListener, Current),
    /// For `/metrics` alone.
    metrics: Option<(TcpListener, Current)>,
}

/// How long what was hung up on may take to be settled and answered.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// Serves until the first signal. Then, in parts of which every further signal ends one:
///
/// 1. Whoever asks learns that others should be asked, and everything goes on, for `drain_delay`.
/// 2. Nobody is let in any more; what is in flight finishes, for `drain_timeout`.
/// 3. What is left is hung up on, and settled by what has come of it.
async fn until_drained(listeners: Listeners, worlds: &ArcSwap<World>, signals: &mut Signals) {
    let stop = Stop::default();
    // Figures are wanted most while things end; that listener closes with the last generation.
    let measured = Stop::default();
    let _stop_measuring = measured.closing.clone().drop_guard();
    let mut tasks = JoinSet::new();
    if let Some((listener, serving)) = listeners.metrics {
        tasks.spawn(server::serve(listener, serving, measured));
    }
    let (listener, current) = listeners.main;
    let mut serving = JoinSet::new();
    serving.spawn(server::serve(listener, current, stop.clone()));
    let ending = tokio::select! {
        // It serves until it is told to stop.
        _ = serving.join_next() => Ending::Interrupt,
        ending = signals.next() => ending,
    };
    worlds.load().gateway.announce_leaving();
    stop.leaving.cancel();
    let delay = match ending {
        Ending::Terminate => worlds.load().config.shutdown.drain_delay,
        Ending::Interrupt => Duration::ZERO,
    };
    if !delay.is_zero() {
        let delay_seconds = delay.as_secs_f64();
        info!(
            delay_seconds,
            "leaving: not ready any more, and still serving"
        );
        tokio::select! {
            () = sleep(delay) => {}
            _ = signals.next() => {}
        }
    }
    // What a reload brings from now on is nobody's any more.
    let world = worlds.load_full();
    let gateway = &world.gateway;
    info!(in_flight = gateway.in_flight(), "draining");
    gateway.begin_draining();
    stop.closing.cancel();
    let mut drained = std::pin::pin!(async {
        // Whoever was let in is served; what goes on behind them needs no listener.
        while serving.join_next().await.is_some() {}
        gateway.drain().await;
    });
    let why = tokio::select! {
        () = &mut drained => return,
        () = sleep(world.config.shutdown.drain_timeout) => "the drain took too long and is cut short",
        _ = signals.next() => "a second signal cuts the drain short",
    };
    warn!(in_flight = gateway.in_flight(), "{why}");
    gateway.cut_short();
    tokio::select! {
        () = &mut drained => {}
        () = sleep(SETTLE_PATIENCE) => {
            warn!(in_flight = gateway.in_flight(), "something was neither settled nor answered in time");
        }
        _ = signals.next() => {}
    }
}

/// Connections that may wait to be accepted: all of a burst, as far as the system allows.
const BACKLOG: u32 = 4096;

fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // Connections of a predecessor that has just ended do not block the address.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().with_context(|| format!("{key}: could not listen on {address}"))
}

/// Each connection is a file; the usual soft limit of 1024 is there for programs that use `select`.
/// Returns how many files may be open; `None` is no limit.
fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => maximum,
        Err(error) => {
            info!(?current, %error, "the limit of open files stays");
            current
        }
    }
}
