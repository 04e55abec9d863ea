//! What a settled generation adds to the figures of this process (`/metrics`).
//!
//! Counted once the settlement is committed, and from the settlement itself: the figures say what the books
//! say.

use std::time::Duration;

use crate::{
    keys::Mode,
    ledger::{Ending, Settlement},
    money::NanoUsd,
    telemetry::metrics::{Charge, metrics},
};

/// Counts a settlement that took this long. `model` is the catalog's id.
pub(super) fn settled(model: &str, mode: Mode, settlement: &Settlement, latency: Duration) {
    let metrics = metrics();
    metrics.settled(latency);
    for attempt in &settlement.attempts {
        let outcome = attempt.error.unwrap_or("ok");
        metrics.attempt_ended(&attempt.provider, outcome, attempt.latency);
    }
    match &settlement.ending {
        Ending::Captured {
            provider, pictures, ..
        } => {
            metrics.generation_ended(model, "completed");
            let sum = |amounts: &mut dyn Iterator<Item = NanoUsd>| {
                // What is charged fits, or it would not have been.
                NanoUsd::sum(amounts).unwrap_or(NanoUsd::ZERO)
            };
            metrics.charged(
                model,
                provider,
                mode.as_str(),
                Charge {
                    images: pictures.len() as u64,
                    image_bytes: pictures
                        .iter()
                        .map(|picture| picture.size_bytes)
                        .fold(0, u64::saturating_add),
                    cost: sum(&mut pictures.iter().map(|picture| picture.cost)),
                    upstream_cost: sum(&mut pictures.iter().map(|picture| picture.upstream_cost)),
                },
            );
        }
        Ending::OnlyDrafts { drafts, .. } => {
            metrics.generation_ended(model, "failed");
            metrics.charged(
                model,
                &drafts.provider,
                mode.as_str(),
                Charge {
                    images: 0,
                    // Drafts are not kept.
                    image_bytes: 0,
                    cost: drafts.cost,
                    upstream_cost: drafts.upstream_cost,
                },
            );
        }
        Ending::Released { .. } => metrics.generation_ended(model, "failed"),
    }
}
