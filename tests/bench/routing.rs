//! What choosing a route costs: `cargo bench --bench routing`.
//!
//! One decision looks up the health of 50 routes and ranks them, as admission does for a model that 50
//! providers serve. It is measured with 5,000 calls begun and not ended, first alone, then while every
//! core decides and reports outcomes at the same time. Prints medians; asserts nothing about speed.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use easel::{
    money::NanoUsd,
    routing::{BreakerSettings, Candidate, Health, Outcome, Preferences, Sort, rank},
};
use tokio::time::Instant;

const ROUTES: usize = 50;
const IN_FLIGHT: usize = 5_000;
const DECISIONS: usize = 20_000;

fn main() {
    let providers: Vec<String> = (0..ROUTES)
        .map(|index| format!("provider-{index}"))
        .collect();
    let health = Health::new(BreakerSettings {
        failures: 3,
        rest: Duration::from_secs(10),
    });
    let now = Instant::now();
    let mut tickets = Vec::with_capacity(IN_FLIGHT);
    for call in 0..IN_FLIGHT {
        let provider = &providers[call % ROUTES];
        let ticket = health.call_begins(provider, "model", now);
        health.call_ended(provider, "model", ticket, outcome(call), now);
        tickets.push(health.call_begins(provider, "model", now));
    }

    let catalog_order = Preferences::default();
    let quickest = Preferences {
        sort: Some(Sort::Latency),
        ..Preferences::default()
    };
    println!("{ROUTES} routes, {IN_FLIGHT} calls in flight, median of {DECISIONS} decisions");
    for (name, preferences) in [
        ("catalog order", &catalog_order),
        ("sort = latency", &quickest),
    ] {
        let alone = median(&health, &providers, preferences);
        println!("{name:15}  alone            {alone:>8.2?}");

        let cores = thread::available_parallelism().map_or(1, usize::from);
        let done = AtomicBool::new(false);
        let busy = thread::scope(|scope| {
            for _ in 1..cores {
                scope.spawn(|| {
                    for call in 0.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        let now = Instant::now();
                        let provider = &providers[call % ROUTES];
                        let ticket = health.call_begins(provider, "model", now);
                        health.call_ended(provider, "model", ticket, outcome(call), now);
                        black_box(decide(&health, &providers, preferences));
                    }
                });
            }
            let busy = median(&health, &providers, preferences);
            done.store(true, Ordering::Relaxed);
            busy
        });
        println!("{name:15}  {cores} cores at once  {busy:>8.2?}");
    }
}

fn outcome(call: usize) -> Outcome {
    if call.is_multiple_of(7) {
        Outcome::Failure
    } else {
        Outcome::Success {
            images: 1,
            latency: Duration::from_millis(500 + u64::try_from(call % 977).unwrap_or(0)),
        }
    }
}

fn decide(health: &Health, providers: &[String], preferences: &Preferences) -> Vec<usize> {
    let now = Instant::now();
    let candidates: Vec<Candidate<'_>> = providers
        .iter()
        .map(|provider| Candidate {
            provider,
            unavailable: None,
            price_per_image: NanoUsd::from_nano(40_000_000),
            condition: health.condition(provider, "model", now),
        })
        .collect();
    rank(&candidates, preferences).unwrap_or_default()
}

fn median(health: &Health, providers: &[String], preferences: &Preferences) -> Duration {
    let mut times: Vec<Duration> = (0..DECISIONS)
        .map(|_| {
            let began = Instant::now();
            black_box(decide(health, providers, preferences));
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[DECISIONS / 2]
}
