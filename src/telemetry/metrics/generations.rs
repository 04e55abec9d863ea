//! Generations, what they brought and cost, and the upstream calls that they took.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{Metrics, ProviderLabels, painting_times, told};
use crate::money::NanoUsd;

#[derive(Debug)]
pub(super) struct Generations {
    ended: Family<GenerationLabels, Counter>,
    seconds: Family<ModelLabels, Histogram>,
    images: Family<ServedLabels, Counter>,
    image_bytes: Family<ServedLabels, Counter>,
    charged_nano_usd: Family<ServedLabels, Counter>,
    upstream_cost_nano_usd: Family<ServedLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_seconds: Family<ProviderLabels, Histogram>,
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

impl Generations {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            ended: told(
                registry,
                "generations",
                "Generations that were held for, by their end",
                Family::default(),
            ),
            seconds: told(
                registry,
                "generation_seconds",
                "From the beginning of the hold to the commit of the settlement, by model",
                Family::new_with_constructor(painting_times),
            ),
            images: told(
                registry,
                "images",
                "Pictures that were delivered and charged",
                Family::default(),
            ),
            image_bytes: told(
                registry,
                "image_bytes",
                "Bytes of the pictures that were delivered and charged",
                Family::default(),
            ),
            charged_nano_usd: told(
                registry,
                "charged_nano_usd",
                "What accounts were charged, in billionths of a USD; test keys pay with play money",
                Family::default(),
            ),
            upstream_cost_nano_usd: told(
                registry,
                "upstream_cost_nano_usd",
                "What providers charge for it by their published prices, in billionths of a USD",
                Family::default(),
            ),
            attempts: told(
                registry,
                "attempts",
                "Calls to providers, by their end",
                Family::default(),
            ),
            attempt_seconds: told(
                registry,
                "attempt_seconds",
                "How long calls to providers took",
                Family::new_with_constructor(painting_times),
            ),
        }
    }
}

impl Metrics {
    /// A generation took so long, from its hold to its settlement.
    pub fn generated(&self, model: &str, duration: Duration) {
        let labels = ModelLabels {
            model: model.to_owned(),
        };
        self.generations
            .seconds
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }

    /// A generation has been settled: `completed` or `failed`.
    pub fn generation_ended(&self, model: &str, outcome: &'static str) {
        let labels = GenerationLabels {
            model: model.to_owned(),
            outcome,
        };
        self.generations.ended.get_or_create(&labels).inc();
    }

    /// Pictures were charged.
    pub fn charged(&self, model: &str, provider: &str, mode: &'static str, charge: Charge) {
        let labels = ServedLabels {
            model: model.to_owned(),
            provider: provider.to_owned(),
            mode,
        };
        let nano = |amount: NanoUsd| u64::try_from(amount.nano()).unwrap_or(0);
        let figures = &self.generations;
        for (family, amount) in [
            (&figures.images, charge.images),
            (&figures.image_bytes, charge.image_bytes),
            (&figures.charged_nano_usd, nano(charge.cost)),
            (&figures.upstream_cost_nano_usd, nano(charge.upstream_cost)),
        ] {
            family.get_or_create(&labels).inc_by(amount);
        }
    }

    /// A call to a provider has ended: `ok`, or the kind of its error.
    pub fn attempt_ended(&self, provider: &str, outcome: &'static str, latency: Duration) {
        let labels = AttemptLabels {
            provider: provider.to_owned(),
            outcome,
        };
        self.generations.attempts.get_or_create(&labels).inc();
        let labels = ProviderLabels {
            provider: provider.to_owned(),
        };
        self.generations
            .attempt_seconds
            .get_or_create(&labels)
            .observe(latency.as_secs_f64());
    }
}
