//! Clients and what they are answered.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Metrics, painting_times, told};

#[derive(Debug)]
pub(super) struct Exchanges {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    exchange_seconds: Family<RouteLabels, Histogram>,
    broken_answers: Family<BrokenLabels, Counter>,
    overloads: Family<LimitLabels, Counter>,
    client_connections: Family<ListenerLabels, Gauge>,
    client_connections_max: Family<ListenerLabels, Gauge>,
}

/// How an answer was being written when it broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// As JSON.
    Json,
    /// As events.
    Stream,
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
struct BrokenLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

impl Exchanges {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let exchanges = Self {
            requests: told(
                registry,
                "requests",
                "Answers by route, model and status",
                Family::default(),
            ),
            request_seconds: told(
                registry,
                "request_seconds",
                "From a request's head to its answer's head, by route",
                Family::new_with_constructor(painting_times),
            ),
            exchange_seconds: told(
                registry,
                "exchange_seconds",
                "From a request's head to the last byte of its answer, or to its client's leaving, by route",
                Family::new_with_constructor(painting_times),
            ),
            broken_answers: told(
                registry,
                "broken_answers",
                "Answers that broke off after their head",
                Family::default(),
            ),
            overloads: told(
                registry,
                "overloads",
                "Requests refused because a bound of this process was reached, by the bound",
                Family::default(),
            ),
            client_connections: told(
                registry,
                "client_connections",
                "Connections of clients, by who listens",
                Family::default(),
            ),
            client_connections_max: told(
                registry,
                "client_connections_max",
                "How many there can be; more wait to be accepted",
                Family::default(),
            ),
        };
        for kind in [Broken::Json, Broken::Stream] {
            drop(exchanges.broken_answers.get_or_create(&kind.labels()));
        }
        for limit in ["max_in_flight", "request_bodies", "upload_spool"] {
            drop(exchanges.overloads.get_or_create(&LimitLabels { limit }));
        }
        exchanges
    }
}

impl Metrics {
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
        self.exchanges.requests.get_or_create(&labels).inc();
        let labels = RouteLabels {
            route: route.to_owned(),
        };
        self.exchanges
            .request_seconds
            .get_or_create(&labels)
            .observe(latency.as_secs_f64());
    }

    /// An answer has ended, so long after its request's head.
    pub fn exchanged(&self, route: &str, duration: Duration) {
        let labels = RouteLabels {
            route: route.to_owned(),
        };
        self.exchanges
            .exchange_seconds
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }

    /// An answer broke off on its way.
    pub fn answer_broke(&self, kind: Broken) {
        let broken = &self.exchanges.broken_answers;
        broken.get_or_create(&kind.labels()).inc();
    }

    /// A bound of this process was reached: `max_in_flight`, `request_bodies` or `upload_spool`.
    pub fn overloaded(&self, limit: &'static str) {
        let overloads = &self.exchanges.overloads;
        overloads.get_or_create(&LimitLabels { limit }).inc();
    }

    /// Somebody listens, and takes so many connections at most.
    pub fn listens(&self, listener: &'static str, max_connections: usize) {
        let max = i64::try_from(max_connections).unwrap_or(i64::MAX);
        self.exchanges
            .client_connections_max
            .get_or_create(&ListenerLabels { listener })
            .set(max);
    }

    /// A client is connected, until what is returned is dropped.
    pub fn connected(&self, listener: &'static str) -> Connected {
        let labels = ListenerLabels { listener };
        let connections = self
            .exchanges
            .client_connections
            .get_or_create_owned(&labels);
        connections.inc();
        Connected(connections)
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
