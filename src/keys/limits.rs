//! How much a key, or all keys of an account together, may do. Said here, counted by the ledger.

use schemars::JsonSchema;
use serde::Serialize;

use crate::money::NanoUsd;

/// How much a key or an account may do; null is no limit. Counted where the hold is made, and an account's for
/// live and test keys each on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Limits {
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Pictures in a minute.
    pub images_per_minute: Option<u32>,
    /// Requests at the same time.
    pub max_in_flight: Option<u32>,
    /// What may be spent in a UTC day.
    pub spend_per_day: Option<NanoUsd>,
    /// What may be spent in a UTC month.
    pub spend_per_month: Option<NanoUsd>,
}

/// What shall be different about limits; `None` leaves one, an inner `None` takes it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitsUpdate {
    /// Requests in a minute.
    pub requests_per_minute: Option<Option<u32>>,
    /// Pictures in a minute.
    pub images_per_minute: Option<Option<u32>>,
    /// Requests at the same time.
    pub max_in_flight: Option<Option<u32>>,
    /// What may be spent in a UTC day.
    pub spend_per_day: Option<Option<NanoUsd>>,
    /// What may be spent in a UTC month.
    pub spend_per_month: Option<Option<NanoUsd>>,
}

impl Limits {
    /// None at all.
    pub const NONE: Self = Self {
        requests_per_minute: None,
        images_per_minute: None,
        max_in_flight: None,
        spend_per_day: None,
        spend_per_month: None,
    };

    /// Whether there is anything to count per minute.
    pub const fn per_minute(&self) -> bool {
        self.requests_per_minute.is_some() || self.images_per_minute.is_some()
    }

    /// Whether there is a limit of spending.
    pub const fn on_spending(&self) -> bool {
        self.spend_per_day.is_some() || self.spend_per_month.is_some()
    }

    /// Whether there is any.
    pub const fn any(&self) -> bool {
        self.per_minute() || self.max_in_flight.is_some() || self.on_spending()
    }

    /// These with the changes.
    #[must_use]
    pub fn changed(self, update: &LimitsUpdate) -> Self {
        Self {
            requests_per_minute: update
                .requests_per_minute
                .unwrap_or(self.requests_per_minute),
            images_per_minute: update.images_per_minute.unwrap_or(self.images_per_minute),
            max_in_flight: update.max_in_flight.unwrap_or(self.max_in_flight),
            spend_per_day: update.spend_per_day.unwrap_or(self.spend_per_day),
            spend_per_month: update.spend_per_month.unwrap_or(self.spend_per_month),
        }
    }
}
