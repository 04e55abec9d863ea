//! What goes on beside requests: sweeps, webhooks, the configuration on disk, spans on their way to a collector.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Metrics, painting_times, told};

#[derive(Debug)]
pub(super) struct Upkeep {
    sweeps: Family<SweepLabels, Counter>,
    swept_holds: Counter,
    swept_pictures: Counter,
    webhooks: Family<OutcomeLabels, Counter>,
    webhook_seconds: Histogram,
    config_reloads: Family<OutcomeLabels, Counter>,
    config_reload_successful: Gauge,
    config_reloaded_at: Gauge,
    config_needs_restart: Gauge,
    trace_batches: Family<OutcomeLabels, Counter>,
}

/// What is looked for and tidied up from time to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Holds of dead replicas.
    Holds,
    /// Pictures whose time is over.
    Pictures,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SweepLabels {
    what: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl Upkeep {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let upkeep = Self {
            sweeps: told(
                registry,
                "sweeps",
                "Times that holds and pictures were looked for that nobody will end",
                Family::default(),
            ),
            swept_holds: told(
                registry,
                "swept_holds",
                "Holds of dead replicas that were released",
                Counter::default(),
            ),
            swept_pictures: told(
                registry,
                "swept_pictures",
                "Pictures deleted because their time was over",
                Counter::default(),
            ),
            webhooks: told(
                registry,
                "webhooks",
                "Attempts to deliver a webhook, by what came of them",
                Family::default(),
            ),
            webhook_seconds: told(
                registry,
                "webhook_seconds",
                "How long attempts to deliver a webhook took",
                painting_times(),
            ),
            config_reloads: told(
                registry,
                "config_reloads",
                "Times that the configuration was read again, by what became of it",
                Family::default(),
            ),
            config_reload_successful: told(
                registry,
                "config_reload_successful",
                "0 when the configuration on disk was refused and an earlier one is in force",
                Gauge::default(),
            ),
            config_reloaded_at: told(
                registry,
                "config_reload_applied_timestamp_seconds",
                "When the configuration in force came into it, in Unix seconds",
                Gauge::default(),
            ),
            config_needs_restart: told(
                registry,
                "config_reload_needs_restart",
                "Settings of the configuration on disk that only a restart can change",
                Gauge::default(),
            ),
            trace_batches: told(
                registry,
                "trace_batches",
                "Batches of spans that were posted to the collector, by whether it took them",
                Family::default(),
            ),
        };
        for what in [Sweep::Holds, Sweep::Pictures] {
            for is_ok in [true, false] {
                drop(upkeep.sweeps.get_or_create(&what.labels(is_ok)));
            }
        }
        for (family, outcomes) in [
            (
                &upkeep.webhooks,
                &["delivered", "retried", "gone", "given_up"][..],
            ),
            (&upkeep.config_reloads, &["applied", "refused"]),
            (&upkeep.trace_batches, &["taken", "lost"]),
        ] {
            for outcome in outcomes {
                drop(family.get_or_create(&OutcomeLabels { outcome }));
            }
        }
        upkeep
    }
}

impl Metrics {
    /// Things were looked for, and so many tidied up; `None` when that did not work.
    pub fn swept(&self, what: Sweep, swept: Option<u64>) {
        let upkeep = &self.upkeep;
        let labels = what.labels(swept.is_some());
        upkeep.sweeps.get_or_create(&labels).inc();
        match what {
            Sweep::Holds => &upkeep.swept_holds,
            Sweep::Pictures => &upkeep.swept_pictures,
        }
        .inc_by(swept.unwrap_or(0));
    }

    /// A webhook was sent: `delivered`, `retried`, `gone` or `given_up`.
    pub fn webhook_sent(&self, outcome: &'static str, latency: Duration) {
        let upkeep = &self.upkeep;
        let labels = OutcomeLabels { outcome };
        upkeep.webhooks.get_or_create(&labels).inc();
        upkeep.webhook_seconds.observe(latency.as_secs_f64());
    }

    /// A configuration came into force at this Unix second; so many of its settings wait for a restart.
    pub fn configured(&self, is_reload: bool, at: i64, needs_restart: usize) {
        if is_reload {
            self.count_reload("applied");
        }
        let upkeep = &self.upkeep;
        upkeep.config_reload_successful.set(1);
        upkeep.config_reloaded_at.set(at);
        let needs_restart = i64::try_from(needs_restart).unwrap_or(i64::MAX);
        upkeep.config_needs_restart.set(needs_restart);
    }

    /// A configuration was refused.
    pub fn configuration_refused(&self) {
        self.count_reload("refused");
        self.upkeep.config_reload_successful.set(0);
    }

    fn count_reload(&self, outcome: &'static str) {
        let labels = OutcomeLabels { outcome };
        self.upkeep.config_reloads.get_or_create(&labels).inc();
    }

    /// A batch of spans was taken by the collector, or not.
    pub fn traced(&self, is_taken: bool) {
        let outcome = if is_taken { "taken" } else { "lost" };
        let labels = OutcomeLabels { outcome };
        self.upkeep.trace_batches.get_or_create(&labels).inc();
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
