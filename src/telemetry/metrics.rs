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
    generations: Family<GenerationLabels, Counter>,
    images: Family<ServedLabels, Counter>,
    charged_nano_usd: Family<ServedLabels, Counter>,
    upstream_cost_nano_usd: Family<ServedLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_seconds: Family<ProviderLabels, Histogram>,
    hold_seconds: Histogram,
    settlement_seconds: Histogram,
    settlements_repeated: Counter,
    balance_refusals: Counter,
    rate_limit_refusals: Counter,
    swept_holds: Counter,
    swept_pictures: Counter,
    store_requests: Family<StoreLabels, Counter>,
    store_request_seconds: Family<StoreActionLabels, Histogram>,
    store_bytes: Family<StoreBytesLabels, Counter>,
    webhooks: Family<WebhookLabels, Counter>,
    webhook_seconds: Histogram,
    in_flight: Gauge,
    open_holds: Gauge,
    oldest_open_hold_seconds: Gauge,
    config_reloads: Family<ReloadLabels, Counter>,
    config_reload_successful: Gauge,
    config_reloaded_at: Gauge,
    config_needs_restart: Gauge,
    pool_connections: Family<PoolLabels, Gauge>,
    routes: Family<RouteStateLabels, Gauge>,
}

/// What is asked when somebody scrapes.
#[derive(Debug, Default)]
pub struct Sample {
    /// Generations being worked on in this process.
    pub in_flight: usize,
    /// Holds that nobody has ended yet, all replicas together; `None` when the database does not say.
    pub open_holds: Option<(u64, Duration)>,
    /// Connections to the database, and how many of them are idle.
    pub pool: (u32, usize),
    /// Each route that has been called, and whether it rests.
    pub routes: Vec<(String, String, bool)>,
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
struct WebhookLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreActionLabels {
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreBytesLabels {
    direction: &'static str,
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
            generations: Family::default(),
            images: Family::default(),
            charged_nano_usd: Family::default(),
            upstream_cost_nano_usd: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(painting_times),
            hold_seconds: statement_times(),
            settlement_seconds: statement_times(),
            settlements_repeated: Counter::default(),
            balance_refusals: Counter::default(),
            rate_limit_refusals: Counter::default(),
            swept_holds: Counter::default(),
            swept_pictures: Counter::default(),
            store_requests: Family::default(),
            store_request_seconds: Family::new_with_constructor(statement_times),
            store_bytes: Family::default(),
            webhooks: Family::default(),
            webhook_seconds: painting_times(),
            in_flight: Gauge::default(),
            open_holds: Gauge::default(),
            oldest_open_hold_seconds: Gauge::default(),
            config_reloads: Family::default(),
            config_reload_successful: Gauge::default(),
            config_reloaded_at: Gauge::default(),
            config_needs_restart: Gauge::default(),
            pool_connections: Family::default(),
            routes: Family::default(),
        };
        metrics.register();
        metrics
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
            "generations",
            "Generations that were held for, by their end",
            self.generations.clone(),
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
            "Settlements that did not get through at once",
            self.settlements_repeated.clone(),
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
            "Bytes of pictures written to the bucket and read from it",
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
            "in_flight",
            "Generations being worked on",
            self.in_flight.clone(),
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

    /// A generation has been settled: `completed` or `failed`.
    pub fn generation_ended(&self, model: &str, outcome: &'static str) {
        let labels = GenerationLabels {
            model: model.to_owned(),
            outcome,
        };
        self.generations.get_or_create(&labels).inc();
    }

    /// Pictures were charged.
    pub fn charged(
        &self,
        model: &str,
        provider: &str,
        mode: &'static str,
        images: u64,
        cost: NanoUsd,
        upstream_cost: NanoUsd,
    ) {
        let labels = ServedLabels {
            model: model.to_owned(),
            provider: provider.to_owned(),
            mode,
        };
        let count = |amount: NanoUsd| u64::try_from(amount.nano()).unwrap_or(0);
        self.images.get_or_create(&labels).inc_by(images);
        self.charged_nano_usd
            .get_or_create(&labels)
            .inc_by(count(cost));
        self.upstream_cost_nano_usd
            .get_or_create(&labels)
            .inc_by(count(upstream_cost));
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
    pub fn settled(&self, latency: Duration, repeats: u32) {
        self.settlement_seconds.observe(latency.as_secs_f64());
        self.settlements_repeated.inc_by(u64::from(repeats));
    }

    /// A balance was too short.
    pub fn balance_refused(&self) {
        self.balance_refusals.inc();
    }

    /// A limit of a key or an account was reached.
    pub fn rate_limited(&self) {
        self.rate_limit_refusals.inc();
    }

    /// Holds were released that nobody would have settled.
    pub fn holds_swept(&self, holds: u64) {
        self.swept_holds.inc_by(holds);
    }

    /// Pictures were deleted because their time was over.
    pub fn pictures_swept(&self, pictures: u64) {
        self.swept_pictures.inc_by(pictures);
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

    /// A picture of so many bytes is in the bucket.
    pub fn store_wrote(&self, bytes: u64) {
        let labels = StoreBytesLabels {
            direction: "written",
        };
        self.store_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// So many bytes of a picture came from the bucket.
    pub fn store_read(&self, bytes: usize) {
        let labels = StoreBytesLabels { direction: "read" };
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
            2,
            NanoUsd::parse("0.08").unwrap(),
            NanoUsd::parse("0.07").unwrap(),
        );
        metrics.attempt_ended("somebody", "ok", second);
        metrics.held(Duration::from_millis(3));
        let exposition = metrics.exposition(&Sample {
            in_flight: 3,
            open_holds: Some((4, 9 * second)),
            pool: (5, 2),
            routes: vec![("somebody".to_owned(), "b-1".to_owned(), true)],
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
            "easel_open_holds 4",
            "easel_oldest_open_hold_seconds 9",
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
