//! Figures for Prometheus, in one place: what there is, what it is called and which labels it has.
//!
//! Any room may count something here with one call; none may read. Labels come from closed sets (routes of
//! the router, models of the catalog, configured providers, kinds of errors), never from what a client
//! wrote (I10), so that the number of series is bounded. What others know already, such as the state of a
//! route, is not counted but asked when somebody scrapes: see [`Sample`].

use std::{sync::LazyLock, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::money::NanoUsd;

/// What goes on in this process since its start.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    exchange_seconds: Family<RouteLabels, Histogram>,
    generations: Family<GenerationLabels, Counter>,
    generation_seconds: Family<ModelLabels, Histogram>,
    images: Family<ServedLabels, Counter>,
    charged_nano_usd: Family<ServedLabels, Counter>,
    upstream_cost_nano_usd: Family<ServedLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_seconds: Family<ProviderLabels, Histogram>,
    hold_seconds: Histogram,
    settlement_seconds: Histogram,
    settlements_repeated: Counter,
    settlements_lost: Counter,
    balance_refusals: Counter,
    rate_limit_refusals: Counter,
    overloads: Family<LimitLabels, Counter>,
    swept_holds: Counter,
    swept_pictures: Counter,
    store_requests: Family<StoreLabels, Counter>,
    store_request_seconds: Family<StoreActionLabels, Histogram>,
    store_bytes: Family<StoreBytesLabels, Counter>,
    webhooks: Family<WebhookLabels, Counter>,
    webhook_seconds: Histogram,
    sweeps: Family<SweepLabels, Counter>,
    broken_answers: Family<BrokenLabels, Counter>,
    image_bytes: Family<ServedLabels, Counter>,
    ledger_queue: Family<QueueLabels, Gauge>,
    provider_in_flight: Family<ProviderLabels, Gauge>,
    store_well: Gauge,
    spool_bytes: Family<PlaceLabels, Gauge>,
    request_body_bytes: Gauge,
    in_flight: Gauge,
    client_connections: Family<ListenerLabels, Gauge>,
    client_connections_max: Family<ListenerLabels, Gauge>,
    open_holds: Gauge,
    oldest_open_hold_seconds: Gauge,
    pending_webhooks: Gauge,
    oldest_pending_webhook_seconds: Gauge,
    overdue_webhook_seconds: Gauge,
    reconcile_disagreements: Gauge,
    reconcile_finished_at: Gauge,
    config_reloads: Family<ReloadLabels, Counter>,
    config_reload_successful: Gauge,
    config_reloaded_at: Gauge,
    config_needs_restart: Gauge,
    pool_connections: Family<PoolLabels, Gauge>,
    routes: Family<RouteStateLabels, Gauge>,
    trace_batches: Family<BatchLabels, Counter>,
}

/// What is asked when somebody scrapes.
#[derive(Debug, Default)]
pub struct Sample {
    /// Generations being worked on in this process.
    pub in_flight: usize,
    /// Holds that nobody has ended yet, all replicas together; `None` when the database does not say.
    pub open_holds: Option<(u64, Duration)>,
    /// Webhooks that nobody has taken yet, the age of the oldest, and for how long one is due that nobody sends.
    pub pending_webhooks: Option<(u64, Duration, Duration)>,
    /// When the books were proved last, in Unix seconds, and in how many places they did not agree.
    pub reconciled: Option<(i64, u64)>,
    /// Connections to the database, and how many of them are idle.
    pub pool: (u32, usize),
    /// Each route that has been called, and whether it rests.
    pub routes: Vec<(String, String, bool)>,
    /// What waits to be written into the books, by kind.
    pub ledger_queue: Vec<(&'static str, usize)>,
    /// Each provider that is on, and the calls that are being made to it.
    pub providers: Vec<(String, usize)>,
    /// Whether the last write of a picture did what it should.
    pub store_is_well: bool,
    /// Bytes of uploads that are being worked on: on the disk, and in memory.
    pub spool_bytes: (u64, u64),
    /// Bytes of JSON bodies that are being read.
    pub request_body_bytes: u64,
}

/// What one settlement charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Pictures that were delivered.
    pub images: u64,
    /// Bytes of them.
    pub image_bytes: u64,
    /// What the account pays.
    pub cost: NanoUsd,
    /// What the provider charges by its published prices.
    pub upstream_cost: NanoUsd,
}

/// A client's connection, which counts while it is open.
#[derive(Debug)]
#[must_use = "dropped, it is closed"]
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is looked for and tidied up from time to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Holds of dead replicas.
    Holds,
    /// Pictures whose time is over.
    Pictures,
}

/// Where pictures lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// In a directory of this machine.
    Disk,
    /// In the bucket.
    Bucket,
}

/// How an answer was being written when it broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// As JSON.
    Json,
    /// As events.
    Stream,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    model: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GenerationLabels {
    model: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BatchLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServedLabels {
    model: String,
    provider: String,
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    provider: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SweepLabels {
    what: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreActionLabels {
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreBytesLabels {
    shelf: &'static str,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BrokenLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    place: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteStateLabels {
    provider: String,
    upstream_model: String,
}

/// The figures of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("easel"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(painting_times),
            exchange_seconds: Family::new_with_constructor(painting_times),
            generations: Family::default(),
            generation_seconds: Family::new_with_constructor(painting_times),
            images: Family::default(),
            charged_nano_usd: Family::default(),
            upstream_cost_nano_usd: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(painting_times),
            hold_seconds: statement_times(),
            settlement_seconds: statement_times(),
            settlements_repeated: Counter::default(),
            settlements_lost: Counter::default(),
            balance_refusals: Counter::default(),
            rate_limit_refusals: Counter::default(),
            overloads: Family::default(),
            swept_holds: Counter::default(),
            swept_pictures: Counter::default(),
            store_requests: Family::default(),
            store_request_seconds: Family::new_with_constructor(statement_times),
            store_bytes: Family::default(),
            webhooks: Family::default(),
            webhook_seconds: painting_times(),
            sweeps: Family::default(),
            broken_answers: Family::default(),
            image_bytes: Family::default(),
            ledger_queue: Family::default(),
            provider_in_flight: Family::default(),
            store_well: Gauge::default(),
            spool_bytes: Family::default(),
            request_body_bytes: Gauge::default(),
            in_flight: Gauge::default(),
            client_connections: Family::default(),
            client_connections_max: Family::default(),
            open_holds: Gauge::default(),
            oldest_open_hold_seconds: Gauge::default(),
            pending_webhooks: Gauge::default(),
            oldest_pending_webhook_seconds: Gauge::default(),
            overdue_webhook_seconds: Gauge::default(),
            reconcile_disagreements: Gauge::default(),
            reconcile_finished_at: Gauge::default(),
            config_reloads: Family::default(),
            config_reload_successful: Gauge::default(),
            config_reloaded_at: Gauge::default(),
            config_needs_restart: Gauge::default(),
            pool_connections: Family::default(),
            routes: Family::default(),
            trace_batches: Family::default(),
        };
        metrics.register();
        metrics.begin_at_zero();
        metrics
    }

    /// What has not happened yet is 0 and not absent, so that its first time is seen as an increase.
    fn begin_at_zero(&self) {
        for kind in [Broken::Json, Broken::Stream] {
            drop(self.broken_answers.get_or_create(&kind.labels()));
        }
        for what in [Sweep::Holds, Sweep::Pictures] {
            for is_ok in [true, false] {
                drop(self.sweeps.get_or_create(&what.labels(is_ok)));
            }
        }
        for shelf in [Shelf::Disk, Shelf::Bucket] {
            for direction in [WRITTEN, READ] {
                drop(self.store_bytes.get_or_create(&shelf.labels(direction)));
            }
        }
        for is_taken in [true, false] {
            drop(self.trace_batches.get_or_create(&batch_labels(is_taken)));
        }
        for limit in ["max_in_flight", "request_bodies", "upload_spool"] {
            drop(self.overloads.get_or_create(&LimitLabels { limit }));
        }
        for outcome in ["delivered", "retried", "gone", "given_up"] {
            drop(self.webhooks.get_or_create(&WebhookLabels { outcome }));
        }
        for outcome in ["applied", "refused"] {
            drop(self.config_reloads.get_or_create(&ReloadLabels { outcome }));
        }
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Answers by route, model and status",
            self.requests.clone(),
        );
        registry.register(
            "request_seconds",
            "From a request's head to its answer's head, by route",
            self.request_seconds.clone(),
        );
        registry.register(
            "exchange_seconds",
            "From a request's head to the last byte of its answer, or to its client's leaving, by route",
            self.exchange_seconds.clone(),
        );
        registry.register(
            "generations",
            "Generations that were held for, by their end",
            self.generations.clone(),
        );
        registry.register(
            "generation_seconds",
            "From the beginning of the hold to the commit of the settlement, by model",
            self.generation_seconds.clone(),
        );
        registry.register(
            "images",
            "Pictures that were delivered and charged",
            self.images.clone(),
        );
        registry.register(
            "charged_nano_usd",
            "What accounts were charged, in billionths of a USD; test keys pay with play money",
            self.charged_nano_usd.clone(),
        );
        registry.register(
            "upstream_cost_nano_usd",
            "What providers charge for it by their published prices, in billionths of a USD",
            self.upstream_cost_nano_usd.clone(),
        );
        registry.register(
            "attempts",
            "Calls to providers, by their end",
            self.attempts.clone(),
        );
        registry.register(
            "attempt_seconds",
            "How long calls to providers took",
            self.attempt_seconds.clone(),
        );
        registry.register(
            "hold_seconds",
            "How long it took to hold a price, the wait for others included",
            self.hold_seconds.clone(),
        );
        registry.register(
            "settlement_seconds",
            "How long it took to settle, repeats included",
            self.settlement_seconds.clone(),
        );
        registry.register(
            "settlements_repeated",
            "Tries of settlements that did not get through and are repeated",
            self.settlements_repeated.clone(),
        );
        registry.register(
            "settlements_lost",
            "Settlements that will not get through: refused by the books, or of a hold that was swept before",
            self.settlements_lost.clone(),
        );
        registry.register(
            "balance_refusals",
            "Requests that the balance did not cover",
            self.balance_refusals.clone(),
        );
        registry.register(
            "rate_limit_refusals",
            "Requests beyond a limit of their key or account",
            self.rate_limit_refusals.clone(),
        );
        registry.register(
            "overloads",
            "Requests refused because a bound of this process was reached, by the bound",
            self.overloads.clone(),
        );
        registry.register(
            "swept_holds",
            "Holds of dead replicas that were released",
            self.swept_holds.clone(),
        );
        registry.register(
            "swept_pictures",
            "Pictures deleted because their time was over",
            self.swept_pictures.clone(),
        );
        registry.register(
            "store_requests",
            "What was asked of the bucket, by its end; a picture that breaks off while it is read counts as cut",
            self.store_requests.clone(),
        );
        registry.register(
            "store_request_seconds",
            "How long the bucket took, repeats included; for pictures that are read, until their first byte",
            self.store_request_seconds.clone(),
        );
        registry.register(
            "store_bytes",
            "Bytes of pictures written and read: on the disk, where all that is kept is made, and in the bucket",
            self.store_bytes.clone(),
        );
        registry.register(
            "webhooks",
            "Attempts to deliver a webhook, by what came of them",
            self.webhooks.clone(),
        );
        registry.register(
            "webhook_seconds",
            "How long attempts to deliver a webhook took",
            self.webhook_seconds.clone(),
        );
        registry.register(
            "sweeps",
            "Times that holds and pictures were looked for that nobody will end",
            self.sweeps.clone(),
        );
        registry.register(
            "broken_answers",
            "Answers that broke off after their head",
            self.broken_answers.clone(),
        );
        registry.register(
            "image_bytes",
            "Bytes of the pictures that were delivered and charged",
            self.image_bytes.clone(),
        );
        registry.register(
            "ledger_queue",
            "What waits to be written into the books",
            self.ledger_queue.clone(),
        );
        registry.register(
            "provider_in_flight",
            "Calls to providers that are being made",
            self.provider_in_flight.clone(),
        );
        registry.register(
            "store_well",
            "1 when the last write of a picture did what it should",
            self.store_well.clone(),
        );
        registry.register(
            "spool_bytes",
            "Uploads that are being worked on",
            self.spool_bytes.clone(),
        );
        registry.register(
            "request_body_bytes",
            "JSON bodies that are being read",
            self.request_body_bytes.clone(),
        );
        registry.register(
            "in_flight",
            "Generations being worked on",
            self.in_flight.clone(),
        );
        registry.register(
            "client_connections",
            "Connections of clients, by who listens",
            self.client_connections.clone(),
        );
        registry.register(
            "client_connections_max",
            "How many there can be; more wait to be accepted",
            self.client_connections_max.clone(),
        );
        registry.register(
            "open_holds",
            "Holds that nobody has ended yet, all replicas together",
            self.open_holds.clone(),
        );
        registry.register(
            "oldest_open_hold_seconds",
            "The age of the oldest of them",
            self.oldest_open_hold_seconds.clone(),
        );
        registry.register(
            "pending_webhooks",
            "Webhooks that nobody has taken yet, all replicas together",
            self.pending_webhooks.clone(),
        );
        registry.register(
            "oldest_pending_webhook_seconds",
            "How long ago the generation of the oldest of them ended",
            self.oldest_pending_webhook_seconds.clone(),
        );
        registry.register(
            "overdue_webhook_seconds",
            "For how long one of them is due that no replica sends",
            self.overdue_webhook_seconds.clone(),
        );
        registry.register(
            "reconcile_disagreements",
            "Places in which the books did not agree when they were proved last",
            self.reconcile_disagreements.clone(),
        );
        registry.register(
            "reconcile_finished_timestamp_seconds",
            "When that was, in Unix seconds; 0 before the first time",
            self.reconcile_finished_at.clone(),
        );
        registry.register(
            "config_reloads",
            "Times that the configuration was read again, by what became of it",
            self.config_reloads.clone(),
        );
        registry.register(
            "config_reload_successful",
            "0 when the configuration on disk was refused and an earlier one is in force",
            self.config_reload_successful.clone(),
        );
        registry.register(
            "config_reload_applied_timestamp_seconds",
            "When the configuration in force came into it, in Unix seconds",
            self.config_reloaded_at.clone(),
        );
        registry.register(
            "config_reload_needs_restart",
            "Settings of the configuration on disk that only a restart can change",
            self.config_needs_restart.clone(),
        );
        registry.register(
            "pool_connections",
            "Connections to the database",
            self.pool_connections.clone(),
        );
        registry.register(
            "route_resting",
            "1 for a route that is tried after all others because it failed",
            self.routes.clone(),
        );
        registry.register(
            "trace_batches",
            "Batches of spans that were posted to the collector, by whether it took them",
            self.trace_batches.clone(),
        );
    }

    /// An answer has begun. `route` is the router's pattern, `model` a model of the catalog.
    pub fn answered(
        &self,
        method: &http::Method,
        route: &str,
        model: Option<&str>,
        status: u16,
        latency: Duration,
    ) {
        let labels = RequestLabels {
            method: known_method(method),
            route: route.to_owned(),
            model: model.unwrap_or_default().to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels {
            route: route.to_owned(),
        };
        self.request_seconds
            .get_or_create(&labels)
            .observe(latency.as_secs_f64());
    }

    /// An answer has ended, so long after its request's head.
    pub fn exchanged(&self, route: &str, duration: Duration) {
        let labels = RouteLabels {
            route: route.to_owned(),
        };
        self.exchange_seconds
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }

    /// Somebody listens, and takes so many connections at most.
    pub fn listens(&self, listener: &'static str, max_connections: usize) {
        let labels = ListenerLabels { listener };
        let max = i64::try_from(max_connections).unwrap_or(i64::MAX);
        self.client_connections_max.get_or_create(&labels).set(max);
    }

    /// A client is connected, until what is returned is dropped.
    pub fn connected(&self, listener: &'static str) -> Connected {
        let labels = ListenerLabels { listener };
        let connections = self.client_connections.get_or_create_owned(&labels);
        connections.inc();
        Connected(connections)
    }

    /// A generation took so long, from its hold to its settlement.
    pub fn generated(&self, model: &str, duration: Duration) {
        let labels = ModelLabels {
            model: model.to_owned(),
        };
        self.generation_seconds
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }

    /// A batch of spans was taken by the collector, or not.
    pub fn traced(&self, is_taken: bool) {
        let labels = batch_labels(is_taken);
        self.trace_batches.get_or_create(&labels).inc();
    }

    /// A generation has been settled: `completed` or `failed`.
    pub fn generation_ended(&self, model: &str, outcome: &'static str) {
        let labels = GenerationLabels {
            model: model.to_owned(),
            outcome,
        };
        self.generations.get_or_create(&labels).inc();
    }

    /// Pictures were charged.
    pub fn charged(&self, model: &str, provider: &str, mode: &'static str, charge: Charge) {
        let labels = ServedLabels {
            model: model.to_owned(),
            provider: provider.to_owned(),
            mode,
        };
        let count = |amount: NanoUsd| u64::try_from(amount.nano()).unwrap_or(0);
        self.images.get_or_create(&labels).inc_by(charge.images);
        self.image_bytes
            .get_or_create(&labels)
            .inc_by(charge.image_bytes);
        self.charged_nano_usd
            .get_or_create(&labels)
            .inc_by(count(charge.cost));
        self.upstream_cost_nano_usd
            .get_or_create(&labels)
            .inc_by(count(charge.upstream_cost));
    }

    /// A call to a provider has ended: `ok`, or the kind of its error.
    pub fn attempt_ended(&self, provider: &str, outcome: &'static str, latency: Duration) {
        let labels = AttemptLabels {
            provider: provider.to_owned(),
            outcome,
        };
        self.attempts.get_or_create(&labels).inc();
        let labels = ProviderLabels {
            provider: provider.to_owned(),
        };
        self.attempt_seconds
            .get_or_create(&labels)
            .observe(latency.as_secs_f64());
    }

    /// A webhook was sent: `delivered`, `retried`, `gone` or `given_up`.
    pub fn webhook_sent(&self, outcome: &'static str, latency: Duration) {
        self.webhooks
            .get_or_create(&WebhookLabels { outcome })
            .inc();
        self.webhook_seconds.observe(latency.as_secs_f64());
    }

    /// A hold was placed or refused.
    pub fn held(&self, latency: Duration) {
        self.hold_seconds.observe(latency.as_secs_f64());
    }

    /// A settlement is committed.
    pub fn settled(&self, latency: Duration) {
        self.settlement_seconds.observe(latency.as_secs_f64());
    }

    /// A settlement did not get through and is repeated.
    pub fn settlement_repeated(&self) {
        self.settlements_repeated.inc();
    }

    /// A settlement is given up.
    pub fn settlement_lost(&self) {
        self.settlements_lost.inc();
    }

    /// A balance was too short.
    pub fn balance_refused(&self) {
        self.balance_refusals.inc();
    }

    /// A limit of a key or an account was reached.
    pub fn rate_limited(&self) {
        self.rate_limit_refusals.inc();
    }

    /// A bound of this process was reached: `max_in_flight`, `request_bodies` or `upload_spool`.
    pub fn overloaded(&self, limit: &'static str) {
        self.overloads.get_or_create(&LimitLabels { limit }).inc();
    }

    /// Things were looked for, and so many tidied up; `None` when that did not work.
    pub fn swept(&self, what: Sweep, swept: Option<u64>) {
        self.sweeps
            .get_or_create(&what.labels(swept.is_some()))
            .inc();
        match what {
            Sweep::Holds => &self.swept_holds,
            Sweep::Pictures => &self.swept_pictures,
        }
        .inc_by(swept.unwrap_or(0));
    }

    /// An answer broke off on its way.
    pub fn answer_broke(&self, kind: Broken) {
        self.broken_answers.get_or_create(&kind.labels()).inc();
    }

    /// A configuration came into force at this Unix second; so many of its settings wait for a restart.
    pub fn configured(&self, is_reload: bool, at: i64, needs_restart: usize) {
        if is_reload {
            self.count_reload("applied");
        }
        self.config_reload_successful.set(1);
        self.config_reloaded_at.set(at);
        let needs_restart = i64::try_from(needs_restart).unwrap_or(i64::MAX);
        self.config_needs_restart.set(needs_restart);
    }

    /// A configuration was refused.
    pub fn configuration_refused(&self) {
        self.count_reload("refused");
        self.config_reload_successful.set(0);
    }

    fn count_reload(&self, outcome: &'static str) {
        let labels = ReloadLabels { outcome };
        self.config_reloads.get_or_create(&labels).inc();
    }

    /// The bucket has done, or not done, what it was asked for.
    pub fn store_answered(
        &self,
        action: &'static str,
        outcome: &'static str,
        latency: Option<Duration>,
    ) {
        let labels = StoreLabels { action, outcome };
        self.store_requests.get_or_create(&labels).inc();
        if let Some(latency) = latency {
            self.store_request_seconds
                .get_or_create(&StoreActionLabels { action })
                .observe(latency.as_secs_f64());
        }
    }

    /// A picture of so many bytes lies there now.
    pub fn store_wrote(&self, shelf: Shelf, bytes: u64) {
        let labels = shelf.labels(WRITTEN);
        self.store_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// So many bytes of a picture came from there.
    pub fn store_read(&self, shelf: Shelf, bytes: usize) {
        let labels = shelf.labels(READ);
        self.store_bytes.get_or_create(&labels).inc_by(bytes as u64);
    }

    /// All of it in the text form of `OpenMetrics`, with what was asked just now.
    pub fn exposition(&self, sample: &Sample) -> String {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.in_flight.set(gauge(sample.in_flight as u64));
        if let Some((holds, oldest)) = sample.open_holds {
            self.open_holds.set(gauge(holds));
            self.oldest_open_hold_seconds.set(gauge(oldest.as_secs()));
        }
        if let Some((webhooks, oldest, overdue)) = sample.pending_webhooks {
            self.pending_webhooks.set(gauge(webhooks));
            self.oldest_pending_webhook_seconds
                .set(gauge(oldest.as_secs()));
            self.overdue_webhook_seconds.set(gauge(overdue.as_secs()));
        }
        if let Some((finished_at, disagreements)) = sample.reconciled {
            self.reconcile_disagreements.set(gauge(disagreements));
            self.reconcile_finished_at.set(finished_at);
        }
        let (connections, idle) = sample.pool;
        let idle = idle as u64;
        for (state, count) in [
            ("idle", idle),
            ("busy", u64::from(connections).saturating_sub(idle)),
        ] {
            self.pool_connections
                .get_or_create(&PoolLabels { state })
                .set(gauge(count));
        }
        for (kind, waiting) in &sample.ledger_queue {
            self.ledger_queue
                .get_or_create(&QueueLabels { kind })
                .set(gauge(*waiting as u64));
        }
        self.provider_in_flight.clear();
        for (provider, calls) in &sample.providers {
            let labels = ProviderLabels {
                provider: provider.clone(),
            };
            self.provider_in_flight
                .get_or_create(&labels)
                .set(gauge(*calls as u64));
        }
        self.store_well.set(i64::from(sample.store_is_well));
        let (on_disk, in_memory) = sample.spool_bytes;
        for (place, bytes) in [("disk", on_disk), ("memory", in_memory)] {
            self.spool_bytes
                .get_or_create(&PlaceLabels { place })
                .set(gauge(bytes));
        }
        self.request_body_bytes
            .set(gauge(sample.request_body_bytes));
        // Routes that are gone with a reload shall not stand here for ever.
        self.routes.clear();
        for (provider, upstream_model, rests) in &sample.routes {
            let labels = RouteStateLabels {
                provider: provider.clone(),
                upstream_model: upstream_model.clone(),
            };
            self.routes.get_or_create(&labels).set(i64::from(*rests));
        }
        let mut exposition = String::new();
        match text::encode(&mut exposition, &self.registry) {
            // A `String` takes everything.
            Ok(()) | Err(_) => exposition,
        }
    }
}

impl Sweep {
    fn labels(self, is_ok: bool) -> SweepLabels {
        SweepLabels {
            what: match self {
                Self::Holds => "holds",
                Self::Pictures => "pictures",
            },
            outcome: if is_ok { "ok" } else { "error" },
        }
    }
}

const WRITTEN: &str = "written";
const READ: &str = "read";

impl Shelf {
    fn labels(self, direction: &'static str) -> StoreBytesLabels {
        StoreBytesLabels {
            shelf: match self {
                Self::Disk => "disk",
                Self::Bucket => "bucket",
            },
            direction,
        }
    }
}

fn batch_labels(is_taken: bool) -> BatchLabels {
    BatchLabels {
        outcome: if is_taken { "taken" } else { "lost" },
    }
}

impl Broken {
    fn labels(self) -> BrokenLabels {
        BrokenLabels {
            kind: match self {
                Self::Json => "json",
                Self::Stream => "stream",
            },
        }
    }
}

/// What [`Metrics::exposition`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds, from a refusal to the slowest provider.
fn painting_times() -> Histogram {
    Histogram::new([
        0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
    ])
}

/// Seconds, from a commit to the patience of a settlement.
fn statement_times() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0,
    ])
}

/// Methods are the client's words too.
fn known_method(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::HEAD => "HEAD",
        http::Method::POST => "POST",
        http::Method::PUT => "PUT",
        http::Method::PATCH => "PATCH",
        http::Method::DELETE => "DELETE",
        http::Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_exposed() {
        let metrics = Metrics::new();
        let second = Duration::from_secs(1);
        metrics.answered(
            &http::Method::POST,
            "/v1/images/generations",
            Some("a/b"),
            200,
            second,
        );
        metrics.answered(
            &http::Method::from_bytes(b"BREW").unwrap(),
            "none",
            None,
            405,
            second,
        );
        metrics.charged(
            "a/b",
            "somebody",
            "live",
            Charge {
                images: 2,
                image_bytes: 4096,
                cost: NanoUsd::parse("0.08").unwrap(),
                upstream_cost: NanoUsd::parse("0.07").unwrap(),
            },
        );
        metrics.attempt_ended("somebody", "ok", second);
        metrics.held(Duration::from_millis(3));
        metrics.swept(Sweep::Holds, Some(7));
        metrics.swept(Sweep::Pictures, None);
        metrics.answer_broke(Broken::Stream);
        metrics.overloaded("upload_spool");
        metrics.listens("main", 6);
        let _open = metrics.connected("main");
        drop(metrics.connected("main"));
        let exposition = metrics.exposition(&Sample {
            in_flight: 3,
            open_holds: Some((4, 9 * second)),
            pending_webhooks: Some((5, 8 * second, 7 * second)),
            reconciled: Some((1_790_000_000, 3)),
            pool: (5, 2),
            routes: vec![("somebody".to_owned(), "b-1".to_owned(), true)],
            ledger_queue: vec![("holds", 5)],
            providers: vec![("somebody".to_owned(), 6)],
            store_is_well: true,
            spool_bytes: (70, 80),
            request_body_bytes: 90,
        });
        for line in [
            "easel_requests_total{method=\"POST\",route=\"/v1/images/generations\",model=\"a/b\",status=\"200\"} 1",
            "easel_requests_total{method=\"other\",route=\"none\",model=\"\",status=\"405\"} 1",
            "easel_request_seconds_bucket{le=\"1.0\",route=\"none\"} 1",
            "easel_images_total{model=\"a/b\",provider=\"somebody\",mode=\"live\"} 2",
            "easel_charged_nano_usd_total{model=\"a/b\",provider=\"somebody\",mode=\"live\"} 80000000",
            "easel_upstream_cost_nano_usd_total{model=\"a/b\",provider=\"somebody\",mode=\"live\"} 70000000",
            "easel_attempts_total{provider=\"somebody\",outcome=\"ok\"} 1",
            "easel_hold_seconds_bucket{le=\"0.005\"} 1",
            "easel_in_flight 3",
            "easel_image_bytes_total{model=\"a/b\",provider=\"somebody\",mode=\"live\"} 4096",
            "easel_swept_holds_total 7",
            "easel_sweeps_total{what=\"holds\",outcome=\"ok\"} 1",
            "easel_sweeps_total{what=\"pictures\",outcome=\"error\"} 1",
            "easel_broken_answers_total{kind=\"stream\"} 1",
            "easel_broken_answers_total{kind=\"json\"} 0",
            "easel_ledger_queue{kind=\"holds\"} 5",
            "easel_provider_in_flight{provider=\"somebody\"} 6",
            "easel_store_well 1",
            "easel_spool_bytes{place=\"disk\"} 70",
            "easel_spool_bytes{place=\"memory\"} 80",
            "easel_request_body_bytes 90",
            "easel_open_holds 4",
            "easel_oldest_open_hold_seconds 9",
            "easel_pending_webhooks 5",
            "easel_oldest_pending_webhook_seconds 8",
            "easel_overdue_webhook_seconds 7",
            "easel_reconcile_disagreements 3",
            "easel_reconcile_finished_timestamp_seconds 1790000000",
            "easel_overloads_total{limit=\"upload_spool\"} 1",
            "easel_client_connections{listener=\"main\"} 1",
            "easel_client_connections_max{listener=\"main\"} 6",
            "easel_pool_connections{state=\"busy\"} 3",
            "easel_route_resting{provider=\"somebody\",upstream_model=\"b-1\"} 1",
        ] {
            assert!(exposition.contains(line), "{line} in\n{exposition}");
        }
        assert!(exposition.ends_with("# EOF\n"));
        // A route that is gone is gone here too.
        let later = metrics.exposition(&Sample::default());
        assert!(!later.contains("b-1"), "{later}");
    }
}
