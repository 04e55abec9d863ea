//! What is served under one configuration, and the ground that all of them stand on.
//!
//! The [`Ground`] is made once: the books, the store, the room that requests share, how routes have been doing.
//! A [`World`] is made of a configuration: models, prices, providers, limits, and the endpoints over them. A
//! reload makes a new one beside the old, and only when all of it is there they are exchanged; requests in
//! flight keep theirs. A provider whose section says what it said before goes on with its connections and its
//! place in the new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use axum::Router;
use secrecy::ExposeSecret;
use tracing::{error, info, warn};

use crate::{
    admin::{self, Admin, Guesses},
    api::{
        self, App, Limits, Proxies,
        server::{ServerSettings, Serving},
    },
    budget::Budget,
    catalog::Catalog,
    cli::{self, Context},
    clock::Clock,
    config::{Config, OnDisconnect, ProviderConfig, StoreConfig},
    gateway::{Gateway, GatewaySettings, ProviderSlot, Rooms},
    images::{Fault, Fetcher, ImageStore, Links, Presigner, Spool},
    keys::Keys,
    ledger::Ledger,
    postgres::secrets,
    providers::registry,
    reload::Reloads,
    routing::{BreakerSettings, Health},
    telemetry,
    webhooks::{Targets, WebhookSettings, Webhooks},
};

/// What outlives a configuration.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) keys: Keys,
    pub(super) ledger: Ledger,
    pub(super) clock: Clock,
    pub(super) store: ImageStore,
    /// Where the main listener is bound.
    pub(super) address: SocketAddr,
    /// How long hosted pictures live.
    pub(super) lifetime: PictureLifetime,
    pub(super) reloads: Reloads,
    spool: Spool,
    bodies: Budget,
    links: Links,
    health: Arc<Health>,
    guesses: Guesses,
    /// Client connections at the same time.
    max_connections: usize,
}

/// One configuration at work.
#[derive(Debug)]
pub(super) struct World {
    /// What is in force.
    pub(super) config: Arc<Config>,
    pub(super) gateway: Arc<Gateway>,
    /// What ended generations are told by.
    pub(super) webhooks: Arc<Webhooks>,
    /// The endpoints on the main listener.
    router: Router,
    /// `/metrics` alone, for a listener of its own.
    metrics: Router,
    settings: ServerSettings,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Earlier providers that have no place in it: their names and slots.
    replaced: Vec<(String, ProviderSlot)>,
}

/// How long hosted pictures live, in seconds. It only grows while the process runs: a link that was given out
/// goes on opening, whatever a reload says of new ones.
#[derive(Debug, Clone, Default)]
pub(super) struct PictureLifetime(Arc<AtomicU64>);

impl PictureLifetime {
    pub(super) fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    /// As long as a link or a retry may ask for a picture after its settlement, which may come a whole attempt
    /// after its first byte.
    fn reach(&self, config: &Config) {
        let attempt = config.providers.values().map(|provider| provider.timeout);
        let attempt = attempt.max().unwrap_or_default();
        let lifetime =
            config.images.url_ttl.max(config.images.replay_ttl) + attempt + Duration::from_mins(1);
        self.0.fetch_max(lifetime.as_secs(), Ordering::Relaxed);
    }
}

impl Ground {
    /// Lays it. `files` are those that may be open; `None` is no limit.
    pub(super) async fn lay(
        context: &Context,
        config: &Config,
        ledger: Ledger,
        keys: Keys,
        address: SocketAddr,
        reloads: Reloads,
        files: Option<u64>,
    ) -> anyhow::Result<Self> {
        let (store, presigner) = open_store(config)
            .await
            .with_context(|| format!("[images] store: {}", config.images.store))?;
        // Nothing yet: the first world says how much.
        let spool = Spool::open(config.data_dir.join("uploads"), 0, 0)
            .await
            .with_context(|| format!("data_dir: {}", config.data_dir.display()))?;
        Ok(Self {
            keys,
            ledger,
            clock: context.clock.clone(),
            store,
            address,
            lifetime: PictureLifetime::default(),
            reloads,
            spool,
            bodies: Budget::new(0, 0),
            links: links(config, context, presigner).await?,
            health: Arc::new(Health::new(breaker(config))),
            guesses: Guesses::default(),
            max_connections: connections_within(config.limits.max_connections, files),
        })
    }
}

impl World {
    /// Makes all of it, and changes nothing that is in force. Of what was `before` it keeps what is the same;
    /// `changed` are the files that are not as they were then.
    ///
    /// Reads files and certificates: not for a thread that others wait for.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration beyond its form.
    pub(super) fn build(
        ground: &Ground,
        config: Config,
        catalog: Arc<Catalog>,
        before: Option<(&Self, &BTreeSet<&Path>)>,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        telemetry::filter(&config.log)?;
        let (providers, replaced) = providers(&config, before)?;
        let rooms = Rooms {
            catalog,
            providers,
            health: Arc::clone(&ground.health),
            ledger: ground.ledger.clone(),
            store: ground.store.clone(),
            links: ground.links.below(&config.public_url),
            clock: ground.clock.clone(),
        };
        let settings = gateway_settings(&config);
        let gateway = match before {
            Some((before, _)) => before.gateway.succeeded_by(rooms, settings),
            None => Gateway::new(rooms, settings),
        };
        let app = App {
            gateway: Arc::clone(&gateway),
            keys: ground.keys.clone(),
            ledger: ground.ledger.clone(),
            clock: ground.clock.clone(),
            spool: ground.spool.clone(),
            bodies: ground.bodies.clone(),
            proxies: Proxies::trusted(&config.trusted_proxies),
            fetcher: if config.edits.fetch_urls {
                let opened = Fetcher::new(&config.edits.fetch_hosts);
                Some(opened.map_err(|error| anyhow!("[edits] fetch_hosts: {error}"))?)
            } else {
                None
            },
            webhook_targets: Targets::new(&config.webhooks.hosts)
                .map_err(anyhow::Error::msg)
                .context("[webhooks] hosts")?,
            limits: limits(&config),
            reloads: ground.reloads.clone(),
            document: admin::document(&config.public_url),
        };
        let tls = match &config.tls {
            Some(files) => Some(api::tls::load(&files.cert, &files.key)?),
            None => None,
        };
        let operator = operator(&config, &app, &ground.guesses);
        let has_metrics = config.metrics.listen.is_none();
        Ok(Self {
            settings: ServerSettings {
                max_connections: ground.max_connections,
                header_timeout: config.limits.header_timeout,
                stall_timeout: config.limits.body_idle_timeout,
            },
            webhooks: Arc::new(webhooks(&config, &app)),
            tls,
            metrics: api::metrics_router(app.clone()),
            router: api::router(app, has_metrics, operator, &config.cors.origins),
            config,
            gateway,
            replaced,
        })
    }

    /// Has the ground know of it: from now on all that is shared goes by this one.
    pub(super) fn settle_on(&mut self, ground: &Ground) {
        let limits = &self.config.limits;
        ground.bodies.resize(
            limits.request_bodies_bytes,
            share_of_one(limits.request_bodies_bytes, limits.json_body_bytes),
        );
        ground.spool.resize(
            limits.upload_spool_bytes,
            share_of_one(limits.upload_spool_bytes, limits.upload_bytes),
        );
        ground.lifetime.reach(&self.config);
        ground.health.go_by(breaker(&self.config));
        let replaced = std::mem::take(&mut self.replaced);
        for (name, _) in &replaced {
            ground.health.forget(name);
        }
        self.gateway
            .retire(replaced.into_iter().map(|(_, slot)| slot));
    }

    /// The endpoints on the main listener.
    pub(super) fn serving(&self) -> Serving {
        Serving {
            listener: "main",
            router: self.router.clone(),
            settings: self.settings,
            tls: self.tls.clone(),
        }
    }

    /// Those on the listener for `/metrics`.
    pub(super) fn serving_metrics(&self) -> Serving {
        Serving {
            listener: "metrics",
            router: self.metrics.clone(),
            settings: self.settings,
            // For a scraper nearby.
            tls: None,
        }
    }
}

type Slots = BTreeMap<String, ProviderSlot>;

/// The providers of this configuration, and those before that are none of them.
fn providers(
    config: &Config,
    before: Option<(&World, &BTreeSet<&Path>)>,
) -> anyhow::Result<(Slots, Vec<(String, ProviderSlot)>)> {
    let mut slots = Slots::new();
    let mut old = match before {
        Some((before, _)) => before.gateway.rooms().providers.clone(),
        None => Slots::new(),
    };
    for (name, section) in &config.providers {
        let is_the_same = before.is_some_and(|(before, changed)| {
            let then = before.config.providers.get(name);
            then.is_some_and(|then| then.makes_the_same_as(section))
                && !has_changed_file(section, changed)
        });
        let kept = if is_the_same { old.remove(name) } else { None };
        let (switch, is_replaced) = if let Some(kept) = kept {
            (kept.switch, kept.is_replaced)
        } else {
            let built = registry::build_one(name, section, config.images.max_size_bytes);
            let switch = built.map_err(anyhow::Error::msg)?;
            (switch, Arc::new(AtomicBool::new(false)))
        };
        let slot = ProviderSlot {
            switch,
            markup_basis_points: section.markup_basis_points,
            retry_after_send: section.retry_after_send,
            cancel_on_disconnect: section.on_disconnect == OnDisconnect::Cancel,
            is_replaced,
        };
        slots.insert(name.clone(), slot);
    }
    Ok((slots, old.into_iter().collect()))
}

fn has_changed_file(section: &ProviderConfig, changed: &BTreeSet<&Path>) -> bool {
    let cloud = section.cloud.as_ref();
    cloud.is_some_and(|cloud| changed.contains(cloud.credentials_file.as_path()))
}

fn breaker(config: &Config) -> BreakerSettings {
    BreakerSettings {
        failures: config.routing.failures,
        rest: config.routing.rest,
    }
}

fn gateway_settings(config: &Config) -> GatewaySettings {
    GatewaySettings {
        default_model: config.default_model.clone(),
        url_ttl: config.images.url_ttl,
        replay_ttl: config.images.replay_ttl,
        max_in_flight: config.limits.max_in_flight,
        stall_timeout: config.limits.body_idle_timeout,
        relay_copies: config.images.relay_copies,
        replay_budget_bytes: config.images.replay_budget_bytes,
    }
}

fn webhooks(config: &Config, app: &App) -> Webhooks {
    let settings = WebhookSettings {
        timeout: config.webhooks.timeout,
        max_in_flight: config.webhooks.max_in_flight,
        first_retry: config.webhooks.first_retry,
        retry_for: config.webhooks.retry_for,
    };
    Webhooks::new(
        app.ledger.clone(),
        app.keys.clone(),
        app.clock.clone(),
        app.webhook_targets.clone(),
        Box::new(app.clone()),
        settings,
    )
}

fn limits(config: &Config) -> Limits {
    Limits {
        json_body_bytes: config.limits.json_body_bytes,
        body_idle_timeout: config.limits.body_idle_timeout,
        body_timeout: config.limits.body_timeout,
        upload_bytes: config.limits.upload_bytes,
        upload_picture_bytes: config.limits.upload_picture_bytes,
        upload_pictures: config.limits.upload_pictures,
        upload_timeout: config.limits.upload_timeout,
        keepalive: config.limits.keepalive,
        pending_webhooks: config.webhooks.max_pending,
    }
}

/// Of room that all accounts share, what one of them may have, in bytes: a quarter, but always one request.
fn share_of_one(all: u64, request: usize) -> u64 {
    (all / 4).max(u64::try_from(request).unwrap_or(u64::MAX))
}

/// A token that can be guessed at a minute a try is too short.
const SHORT_TOKEN_CHARS: usize = 16;

/// The operator's endpoints, if there is a token that opens them.
fn operator(config: &Arc<Config>, app: &App, guesses: &Guesses) -> Option<Router> {
    let token = config.admin.token.as_ref()?;
    match token.expose_secret().trim().len() {
        0 => return None,
        1..SHORT_TOKEN_CHARS => {
            warn!("[admin] token is short enough to be guessed: make it long and random");
        }
        _ => {}
    }
    let admin = Admin::new(app.clone(), Arc::clone(config), token, guesses.clone());
    Some(admin::router(admin))
}

/// Where pictures are kept, and who makes links to a bucket. A directory must be good now. A bucket must not
/// refuse us now; one that is away is waited for, because answers in base64 need none.
async fn open_store(config: &Config) -> anyhow::Result<(ImageStore, Option<Presigner>)> {
    let max = config.images.max_size_bytes;
    let Some(bucket) = cli::bucket(config)? else {
        let StoreConfig::Directory(directory) = &config.images.store else {
            anyhow::bail!("a bucket was expected");
        };
        return Ok((ImageStore::open(directory.clone(), max).await?, None));
    };
    match bucket.check().await {
        Ok(()) => info!(store = %bucket, "the bucket can be written"),
        Err((action, fault @ Fault::Refused(_))) => {
            let action = format!("could not {action} the bucket");
            return Err(anyhow::Error::new(fault).context(action));
        }
        Err((action, fault @ Fault::Failed(_))) => error!(
            error = &fault as &dyn std::error::Error,
            store = %bucket,
            "could not {action} the bucket; until it is well, requests that need it are refused"
        ),
    }
    let presigner = bucket.presigner();
    // Where the pictures are without a bucket, so that those from before it go on opening.
    let directory = config.data_dir.join("images");
    let store = ImageStore::open_bucket(directory, max, bucket).await?;
    Ok((store, presigner))
}

async fn links(
    config: &Config,
    context: &Context,
    presigner: Option<Presigner>,
) -> anyhow::Result<Links> {
    let secret = secrets::secret(&context.pool, "file-links").await?;
    let secret = secret.expose_secret();
    let secret: [u8; 32] = secret
        .try_into()
        .context("the secret of the links is not 32 bytes long")?;
    let links = Links::new(&config.public_url, secret);
    Ok(match presigner {
        Some(presigner) => links.presigned(presigner),
        None => links,
    })
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
