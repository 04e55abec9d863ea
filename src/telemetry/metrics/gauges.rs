//! What is not counted but asked when somebody scrapes, because others know it already.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{ProviderLabels, told};

#[derive(Debug)]
pub(super) struct Gauges {
    in_flight: Gauge,
    open_holds: Gauge,
    oldest_open_hold_seconds: Gauge,
    pending_webhooks: Gauge,
    oldest_pending_webhook_seconds: Gauge,
    overdue_webhook_seconds: Gauge,
    reconcile_disagreements: Gauge,
    reconcile_finished_at: Gauge,
    pool_connections: Family<PoolLabels, Gauge>,
    routes: Family<RouteStateLabels, Gauge>,
    ledger_queue: Family<QueueLabels, Gauge>,
    provider_in_flight: Family<ProviderLabels, Gauge>,
    store_well: Gauge,
    spool_bytes: Family<PlaceLabels, Gauge>,
    request_body_bytes: Gauge,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteStateLabels {
    provider: String,
    upstream_model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    place: &'static str,
}

impl Gauges {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            in_flight: told(
                registry,
                "in_flight",
                "Generations being worked on",
                Gauge::default(),
            ),
            open_holds: told(
                registry,
                "open_holds",
                "Holds that nobody has ended yet, all replicas together",
                Gauge::default(),
            ),
            oldest_open_hold_seconds: told(
                registry,
                "oldest_open_hold_seconds",
                "The age of the oldest of them",
                Gauge::default(),
            ),
            pending_webhooks: told(
                registry,
                "pending_webhooks",
                "Webhooks that nobody has taken yet, all replicas together",
                Gauge::default(),
            ),
            oldest_pending_webhook_seconds: told(
                registry,
                "oldest_pending_webhook_seconds",
                "How long ago the generation of the oldest of them ended",
                Gauge::default(),
            ),
            overdue_webhook_seconds: told(
                registry,
                "overdue_webhook_seconds",
                "For how long one of them is due that no replica sends",
                Gauge::default(),
            ),
            reconcile_disagreements: told(
                registry,
                "reconcile_disagreements",
                "Places in which the books did not agree when they were proved last",
                Gauge::default(),
            ),
            reconcile_finished_at: told(
                registry,
                "reconcile_finished_timestamp_seconds",
                "When that was, in Unix seconds; 0 before the first time",
                Gauge::default(),
            ),
            pool_connections: told(
                registry,
                "pool_connections",
                "Connections to the database",
                Family::default(),
            ),
            routes: told(
                registry,
                "route_resting",
                "1 for a route that is tried after all others because it failed",
                Family::default(),
            ),
            ledger_queue: told(
                registry,
                "ledger_queue",
                "What waits to be written into the books",
                Family::default(),
            ),
            provider_in_flight: told(
                registry,
                "provider_in_flight",
                "Calls to providers that are being made",
                Family::default(),
            ),
            store_well: told(
                registry,
                "store_well",
                "1 when the last write of a picture did what it should",
                Gauge::default(),
            ),
            spool_bytes: told(
                registry,
                "spool_bytes",
                "Uploads that are being worked on",
                Family::default(),
            ),
            request_body_bytes: told(
                registry,
                "request_body_bytes",
                "JSON bodies that are being read",
                Gauge::default(),
            ),
        }
    }

    /// Takes over what was asked. What the database did not say stays as it was.
    pub(super) fn show(&self, sample: &Sample) {
        self.in_flight.set(whole(sample.in_flight));
        if let Some((holds, oldest)) = sample.open_holds {
            self.open_holds.set(whole(holds));
            self.oldest_open_hold_seconds.set(whole(oldest.as_secs()));
        }
        if let Some((webhooks, oldest, overdue)) = sample.pending_webhooks {
            self.pending_webhooks.set(whole(webhooks));
            let age = &self.oldest_pending_webhook_seconds;
            age.set(whole(oldest.as_secs()));
            self.overdue_webhook_seconds.set(whole(overdue.as_secs()));
        }
        if let Some((finished_at, disagreements)) = sample.reconciled {
            self.reconcile_disagreements.set(whole(disagreements));
            self.reconcile_finished_at.set(finished_at);
        }
        let (connections, idle) = sample.pool;
        let idle = idle as u64;
        let busy = u64::from(connections).saturating_sub(idle);
        for (state, count) in [("idle", idle), ("busy", busy)] {
            let labels = PoolLabels { state };
            self.pool_connections
                .get_or_create(&labels)
                .set(whole(count));
        }
        for (kind, waiting) in &sample.ledger_queue {
            let labels = QueueLabels { kind };
            self.ledger_queue
                .get_or_create(&labels)
                .set(whole(*waiting));
        }
        self.provider_in_flight.clear();
        for (provider, calls) in &sample.providers {
            let labels = ProviderLabels {
                provider: provider.clone(),
            };
            let in_flight = self.provider_in_flight.get_or_create(&labels);
            in_flight.set(whole(*calls));
        }
        self.store_well.set(i64::from(sample.store_is_well));
        let (on_disk, in_memory) = sample.spool_bytes;
        for (place, bytes) in [("disk", on_disk), ("memory", in_memory)] {
            let labels = PlaceLabels { place };
            self.spool_bytes.get_or_create(&labels).set(whole(bytes));
        }
        self.request_body_bytes
            .set(whole(sample.request_body_bytes));
        // Routes that are gone with a reload shall not stand here for ever.
        self.routes.clear();
        for (provider, upstream_model, rests) in &sample.routes {
            let labels = RouteStateLabels {
                provider: provider.clone(),
                upstream_model: upstream_model.clone(),
            };
            self.routes.get_or_create(&labels).set(i64::from(*rests));
        }
    }
}

fn whole(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
