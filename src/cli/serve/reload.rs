//! Reading the configuration again, on SIGHUP, when one of its files changed, or when an operator asks.
//!
//! All of it is read and built beside what is in force; only what is whole takes its place, in one exchange.
//! What cannot be used changes nothing, and says so: in the log, in the figures, in `/readyz`.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::anyhow;
use arc_swap::ArcSwap;
use tokio::{
    signal::unix::Signal,
    sync::mpsc,
    task::{JoinError, spawn_blocking},
    time::sleep,
};
use tracing::{error, info, warn};

use super::world::{Ground, World};
use crate::{
    api::server::Current,
    cli::load_catalog,
    config::{Config, Seen, Source},
    reload::{Request, Standing},
    telemetry::{self, metrics::metrics},
};

/// How long files must stay as they are before they are read: an editor or a copy may be in the middle of them.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// How long nothing is looked at where nothing is to be watched.
const NEVER: Duration = Duration::from_hours(24);

/// Who exchanges the configuration of this process.
pub(super) struct Reloader {
    pub(super) source: Source,
    /// The files of the configuration as they were when it was last read, used or not.
    pub(super) seen: Seen,
    /// The files as they were when what is in force was read.
    pub(super) applied: Seen,
    /// What the process was started with, as it was read.
    pub(super) started: Arc<Config>,
    pub(super) ground: Arc<Ground>,
    /// What is in force.
    pub(super) worlds: Arc<ArcSwap<World>>,
    /// What is served.
    pub(super) current: Current,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) hangups: Signal,
}

/// A configuration that is whole.
struct Prepared {
    world: World,
    needs_restart: Vec<&'static str>,
}

impl Reloader {
    /// Reloads whenever there is a reason, until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let mut request = None;
            let interval = self.worlds.load().config.reload.watch_interval;
            tokio::select! {
                _ = self.hangups.recv() => info!("reading the configuration again, on SIGHUP"),
                Some(asked) = self.requests.recv() => {
                    info!("reading the configuration again, on an operator's request");
                    request = Some(asked);
                }
                () = changed(&self.seen, interval) => {
                    info!("reading the configuration again, for a file of it has changed");
                }
            }
            let outcome = self.reload().await;
            if let Some(request) = request {
                // Whoever asked may have left.
                drop(request.send(outcome));
            }
        }
    }

    async fn reload(&mut self) -> Result<Standing, String> {
        let prepared = spawn_blocking({
            let (source, applied) = (self.source.clone(), self.applied.clone());
            let (started, ground) = (Arc::clone(&self.started), Arc::clone(&self.ground));
            let before = self.worlds.load_full();
            move || {
                let (config, seen) = source.read();
                let prepared = config.map_err(anyhow::Error::from).and_then(|config| {
                    prepare(config, &seen, &applied, &started, &ground, &before)
                });
                (prepared, seen)
            }
        });
        let (prepared, seen) = prepared.await.unwrap_or_else(|died: JoinError| {
            let why = anyhow!("reading it died of an internal error").context(died);
            (Err(why), self.seen.again())
        });
        self.seen = seen;
        let now = self.ground.clock.now();
        let reloads = &self.ground.reloads;
        match prepared {
            Ok(prepared) => {
                let needs_restart = prepared.needs_restart.clone();
                self.applied = self.seen.clone();
                self.apply(prepared);
                metrics().configured(true, now.timestamp(), needs_restart.len());
                self.ground.reloads.applied(now, needs_restart);
                Ok(self.ground.reloads.standing())
            }
            Err(error) => {
                let why = format!("{error:#}");
                error!(
                    reason = why,
                    "the configuration on disk is refused and changes nothing"
                );
                metrics().configuration_refused();
                reloads.refused(now, why.clone());
                Err(why)
            }
        }
    }

    /// Exchanges what is in force. Nothing in here can fail.
    fn apply(&mut self, prepared: Prepared) {
        let Prepared {
            mut world,
            needs_restart,
        } = prepared;
        // Parsed before, so it is one.
        if let Ok(filter) = telemetry::filter(&world.config.log) {
            telemetry::exchange_filter(filter);
        }
        let (old, new) = (self.worlds.load_full(), &world.config);
        let names = |config: &Config| {
            config
                .providers
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        };
        info!(
            providers = names(new),
            providers_before = names(&old.config),
            models = world.gateway.rooms().catalog.models().len(),
            "the configuration was reloaded"
        );
        if !needs_restart.is_empty() {
            warn!(
                settings = needs_restart.join(", "),
                "the configuration has settings that only a restart can change; they stay as they were"
            );
        }
        self.current.store(Arc::new(world.serving()));
        world.settle_on(&self.ground);
        self.worlds.store(Arc::new(world));
    }
}

fn prepare(
    config: Config,
    seen: &Seen,
    applied: &Seen,
    started: &Config,
    ground: &Ground,
    before: &World,
) -> anyhow::Result<Prepared> {
    let (config, needs_restart) = config.carried_into(started);
    let config = config.bound_to(ground.address);
    let catalog = Arc::new(load_catalog(&config)?);
    let changed = seen.changed_since(applied);
    let world = World::build(ground, config, catalog, Some((before, &changed)))?;
    Ok(Prepared {
        world,
        needs_restart,
    })
}

/// Ends when the files are not as they were seen, and stay so for a moment.
///
/// # Cancel safety
/// May be dropped; looks anew when it is called again.
async fn changed(seen: &Seen, interval: Duration) {
    let look = async |files: &Seen| {
        let files = files.clone();
        spawn_blocking(move || files.again()).await.ok()
    };
    loop {
        if interval.is_zero() {
            sleep(NEVER).await;
            continue;
        }
        sleep(interval).await;
        let Some(mut now) = look(seen).await else {
            continue;
        };
        if now == *seen {
            continue;
        }
        loop {
            sleep(SETTLED_AFTER.min(interval)).await;
            match look(&now).await {
                Some(later) if later != now => now = later,
                Some(_) | None => break,
            }
        }
        // Whoever put back what was there has changed nothing.
        if now != *seen {
            let files: Vec<_> = now
                .changed_since(seen)
                .into_iter()
                .map(Path::display)
                .collect();
            info!(?files, "files of the configuration have changed");
            return;
        }
    }
}
