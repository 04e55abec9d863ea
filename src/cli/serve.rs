//! `easel serve`: the order in which everything starts and, backwards, stops.

mod first_key;
mod replica;
mod signals;
mod tasks;

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use secrecy::ExposeSecret;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{replica::Replica, signals::Signals, tasks::Tasks};
use super::{Context, output};
use crate::{
    admin::{self, Admin},
    api::{
        self, App, Limits,
        server::{self, ServerSettings},
    },
    budget::Budget,
    config::{Config, OnDisconnect, local_url},
    gateway::{Gateway, GatewaySettings, ProviderSlot, Rooms},
    images::{Fetcher, ImageStore, Links, Spool},
    keys::Keys,
    ledger::Ledger,
    postgres::{private::ServeLock, secrets},
    providers::registry,
    routing::{BreakerSettings, Health},
};

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let files = raise_file_limit();
    // Replicas share a PostgreSQL, but nobody shares a private one.
    let _claim = match config.database.url {
        None => Some(ServeLock::acquire(&config.data_dir)?),
        Some(_) => None,
    };
    let mut opening = std::pin::pin!(Context::open(config));
    let context = tokio::select! {
        context = &mut opening => context?,
        () = signals.next() => {
            // A database that is half started is stopped best when it is up; who cannot wait, says so.
            let context = tokio::select! {
                context = opening => context?,
                () = signals.next() => return Ok(ExitCode::SUCCESS),
            };
            context.close().await?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let outcome = serve(&context, files, &mut signals).await;
    let closed = context.close().await;
    outcome?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(context: &Context, files: Option<u64>, signals: &mut Signals) -> anyhow::Result<()> {
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
    let store = ImageStore::open(config.images.store.clone(), config.images.max_size_bytes)
        .await
        .with_context(|| format!("[images] store: {}", config.images.store.display()))?;
    let rooms = Rooms {
        catalog: Arc::clone(&context.catalog),
        providers: providers(&config)?,
        health: Health::new(BreakerSettings {
            failures: config.routing.failures,
            rest: config.routing.rest,
        }),
        ledger: ledger.clone(),
        store: store.clone(),
        links: links(&config, context).await?,
        clock: context.clock.clone(),
    };
    let gateway = Gateway::new(
        rooms,
        GatewaySettings {
            default_model: config.default_model.clone(),
            url_ttl: config.images.url_ttl,
            replay_ttl: config.images.replay_ttl,
            max_in_flight: config.limits.max_in_flight,
            stall_timeout: config.limits.body_idle_timeout,
            relay_copies: config.images.relay_copies,
            replay_budget_bytes: config.images.replay_budget_bytes,
        },
    );
    let app = App {
        gateway: Arc::clone(&gateway),
        keys: keys.clone(),
        ledger: ledger.clone(),
        clock: context.clock.clone(),
        spool: Spool::open(
            config.data_dir.join("uploads"),
            config.limits.upload_spool_bytes,
            share_of_one(config.limits.upload_spool_bytes, config.limits.upload_bytes),
        )
        .await
        .with_context(|| format!("data_dir: {}", config.data_dir.display()))?,
        bodies: Budget::new(
            config.limits.request_bodies_bytes,
            share_of_one(
                config.limits.request_bodies_bytes,
                config.limits.json_body_bytes,
            ),
        ),
        fetcher: if config.edits.fetch_urls {
            Some(Fetcher::new().context("[edits] fetch_urls")?)
        } else {
            None
        },
        limits: Limits {
            json_body_bytes: config.limits.json_body_bytes,
            body_idle_timeout: config.limits.body_idle_timeout,
            body_timeout: config.limits.body_timeout,
            upload_bytes: config.limits.upload_bytes,
            upload_picture_bytes: config.limits.upload_picture_bytes,
            upload_pictures: config.limits.upload_pictures,
            upload_timeout: config.limits.upload_timeout,
            keepalive: config.limits.keepalive,
        },
    };
    let operator = operator(&config, &app);
    let tasks = Tasks::start(context, &config, &ledger, &keys, &store);

    first_key::print_if_there_is_none(&keys, &ledger, address).await?;
    output::line(format!("easel listening on {}", local_url(address)));
    info!(%address, public_url = config.public_url, "serving");

    let settings = ServerSettings {
        max_connections: connections_within(config.limits.max_connections, files),
        header_timeout: config.limits.header_timeout,
        stall_timeout: config.limits.body_idle_timeout,
        drain_timeout: config.shutdown.drain_timeout,
    };
    let metrics = match config.metrics.listen {
        Some(address) => Some(bind("metrics.listen", address)?),
        None => None,
    };
    until_drained(
        Listeners {
            main: listener,
            metrics,
        },
        app,
        operator,
        settings,
        &gateway,
        signals,
    )
    .await;
    tasks.stop().await;
    // What is still held, if the drain was cut short, is free for others to release.
    ledger.stop().await?;
    info!("stopped");
    Ok(())
}

/// Of room that all accounts share, what one of them may have, in bytes: a quarter, but always one request.
fn share_of_one(all: u64, request: usize) -> u64 {
    (all / 4).max(u64::try_from(request).unwrap_or(u64::MAX))
}

/// A token that can be guessed at a minute a try is too short.
const SHORT_TOKEN_CHARS: usize = 16;

/// The operator's endpoints, if there is a token that opens them.
fn operator(config: &Config, app: &App) -> Option<axum::Router> {
    let token = config.admin.token.as_ref()?;
    match token.expose_secret().trim().len() {
        0 => return None,
        1..SHORT_TOKEN_CHARS => {
            warn!("[admin] token is short enough to be guessed: make it long and random");
        }
        _ => {}
    }
    let admin = Admin::new(app.clone(), Arc::new(config.clone()), token);
    Some(admin::router(admin))
}

/// Where clients come in.
struct Listeners {
    main: TcpListener,
    /// For `/metrics` alone.
    metrics: Option<TcpListener>,
}

/// Serves until the first signal; then lets what is in flight finish, until it has, or the time is over,
/// or a second signal comes.
async fn until_drained(
    listeners: Listeners,
    app: App,
    operator: Option<axum::Router>,
    settings: ServerSettings,
    gateway: &Gateway,
    signals: &mut Signals,
) {
    let stop = CancellationToken::new();
    // Figures are wanted most while things end; that listener closes with the last generation.
    let measured = CancellationToken::new();
    let _stop_measuring = measured.clone().drop_guard();
    let has_metrics = listeners.metrics.is_none();
    let mut tasks = JoinSet::new();
    if let Some(listener) = listeners.metrics {
        let router = api::metrics_router(app.clone());
        tasks.spawn(server::serve(listener, router, settings, measured));
    }
    let mut serving = std::pin::pin!(server::serve(
        listeners.main,
        api::router(app, has_metrics, operator),
        settings,
        stop.clone()
    ));
    tokio::select! {
        // It serves until it is told to stop.
        _ = &mut serving => {}
        () = signals.next() => {}
    }
    info!(in_flight = gateway.in_flight(), "draining");
    stop.cancel();
    let drained = async {
        let (answered, settled) =
            tokio::join!(serving, timeout(settings.drain_timeout, gateway.drain()));
        answered && settled.is_ok()
    };
    tokio::select! {
        drained = drained => {
            if !drained {
                warn!(in_flight = gateway.in_flight(), "the drain took too long and was cut short");
            }
        }
        () = signals.next() => {
            warn!(in_flight = gateway.in_flight(), "a second signal cut the drain short");
        }
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

fn providers(config: &Config) -> anyhow::Result<BTreeMap<String, ProviderSlot>> {
    let switches = registry::build(&config.providers, config.images.max_size_bytes)
        .map_err(anyhow::Error::msg)?;
    let slots = switches.into_iter().filter_map(|(name, switch)| {
        let section = config.providers.get(&name)?;
        let slot = ProviderSlot {
            switch,
            markup_basis_points: section.markup_basis_points,
            retry_after_send: section.retry_after_send,
            cancel_on_disconnect: section.on_disconnect == OnDisconnect::Cancel,
        };
        Some((name, slot))
    });
    Ok(slots.collect())
}

async fn links(config: &Config, context: &Context) -> anyhow::Result<Links> {
    let secret = secrets::secret(&context.pool, "file-links").await?;
    let secret = secret.expose_secret();
    let secret: [u8; 32] = secret
        .try_into()
        .context("the secret of the links is not 32 bytes long")?;
    Ok(Links::new(&config.public_url, secret))
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

/// Clients may have half of the files that may be open. The rest is for the database, for providers and
/// for the pictures themselves: a picture that cannot be kept has been paid for all the same.
fn connections_within(wanted: usize, files: Option<u64>) -> usize {
    let half = files.map_or(u64::MAX, |files| files / 2);
    let bounded = wanted
        .min(usize::try_from(half).unwrap_or(usize::MAX))
        .max(1);
    if bounded < wanted {
        warn!(
            files,
            max_connections = bounded,
            "the limit of open files is too low for limits.max_connections; fewer are taken"
        );
    }
    bounded
}

/// How long a hosted picture lives: as long as a link or a retry may ask for it after its settlement,
/// which may come a whole attempt after its first byte.
fn picture_lifetime(config: &Config) -> Duration {
    let attempt = config.providers.values().map(|provider| provider.timeout);
    let attempt = attempt.max().unwrap_or_default();
    config.images.url_ttl.max(config.images.replay_ttl) + attempt + Duration::from_mins(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_files_for_the_pictures() {
        for (wanted, files, expected) in [
            (16_384, None, 16_384),
            (16_384, Some(1_048_576), 16_384),
            (16_384, Some(1024), 512),
            (100, Some(1024), 100),
            (100, Some(0), 1),
        ] {
            assert_eq!(connections_within(wanted, files), expected);
        }
    }
}
