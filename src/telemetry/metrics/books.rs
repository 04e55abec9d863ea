//! Holds and settlements.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::{Metrics, statement_times, told};

#[derive(Debug)]
pub(super) struct Books {
    hold_seconds: Histogram,
    settlement_seconds: Histogram,
    settlements_repeated: Counter,
    settlements_lost: Counter,
    balance_refusals: Counter,
    rate_limit_refusals: Counter,
}

impl Books {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            hold_seconds: told(
                registry,
                "hold_seconds",
                "How long it took to hold a price, the wait for others included",
                statement_times(),
            ),
            settlement_seconds: told(
                registry,
                "settlement_seconds",
                "How long it took to settle, repeats included",
                statement_times(),
            ),
            settlements_repeated: told(
                registry,
                "settlements_repeated",
                "Tries of settlements that did not get through and are repeated",
                Counter::default(),
            ),
            settlements_lost: told(
                registry,
                "settlements_lost",
                "Settlements that will not get through: refused by the books, or of a hold that was swept before",
                Counter::default(),
            ),
            balance_refusals: told(
                registry,
                "balance_refusals",
                "Requests that the balance did not cover",
                Counter::default(),
            ),
            rate_limit_refusals: told(
                registry,
                "rate_limit_refusals",
                "Requests beyond a limit of their key or account",
                Counter::default(),
            ),
        }
    }
}

impl Metrics {
    /// A hold was placed or refused.
    pub fn held(&self, latency: Duration) {
        self.books.hold_seconds.observe(latency.as_secs_f64());
    }

    /// A settlement is committed.
    pub fn settled(&self, latency: Duration) {
        self.books.settlement_seconds.observe(latency.as_secs_f64());
    }

    /// A settlement did not get through and is repeated.
    pub fn settlement_repeated(&self) {
        self.books.settlements_repeated.inc();
    }

    /// A settlement is given up.
    pub fn settlement_lost(&self) {
        self.books.settlements_lost.inc();
    }

    /// A balance was too short.
    pub fn balance_refused(&self) {
        self.books.balance_refusals.inc();
    }

    /// A limit of a key or an account was reached.
    pub fn rate_limited(&self) {
        self.books.rate_limit_refusals.inc();
    }
}
