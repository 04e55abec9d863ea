//! Figures for Prometheus, in one place: what there is, what it is called and which labels it has.
//!
//! Any room may count something here with one call; none may read. Labels come from closed sets (routes of
//! the router, models of the catalog, configured providers, kinds of errors), never from what a client
//! wrote (I10), so that the number of series is bounded. What others know already, such as the state of a
//! route, is not counted but asked when somebody scrapes: see [`Sample`]. Each subject has a file, with its figures'
//! names and the calls that count them.

mod books;
mod exchanges;
mod gauges;
mod generations;
mod pictures;
mod upkeep;

use std::sync::LazyLock;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::histogram::Histogram,
    registry::{Metric, Registry},
};

use self::{
    books::Books, exchanges::Exchanges, gauges::Gauges, generations::Generations,
    pictures::Pictures, upkeep::Upkeep,
};
pub use self::{
    exchanges::{Broken, Connected},
    gauges::Sample,
    generations::Charge,
    pictures::Shelf,
    upkeep::Sweep,
};

/// What goes on in this process since its start.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    exchanges: Exchanges,
    generations: Generations,
    books: Books,
    pictures: Pictures,
    upkeep: Upkeep,
    gauges: Gauges,
}

/// What [`Metrics::exposition`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    /// What has not happened yet is 0 and not absent where its labels are known, so that its first time is seen as an
    /// increase.
    fn new() -> Self {
        let mut registry = Registry::with_prefix("easel");
        Self {
            exchanges: Exchanges::new(&mut registry),
            generations: Generations::new(&mut registry),
            books: Books::new(&mut registry),
            pictures: Pictures::new(&mut registry),
            upkeep: Upkeep::new(&mut registry),
            gauges: Gauges::new(&mut registry),
            registry,
        }
    }

    /// All of it in the text form of `OpenMetrics`, with what was asked just now.
    pub fn exposition(&self, sample: &Sample) -> String {
        self.gauges.show(sample);
        let mut exposition = String::new();
        match text::encode(&mut exposition, &self.registry) {
            // A `String` takes everything.
            Ok(()) | Err(_) => exposition,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
}

/// This figure, which is told from now on under this name.
fn told<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::money::NanoUsd;

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
