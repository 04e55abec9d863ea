//! The options that limit keys and accounts, and how limits are shown.

use crate::{
    admin::words::{Bound, SpendBound},
    keys::{Limits, LimitsUpdate},
    money::NanoUsd,
};

/// Limits of something new.
#[derive(Debug, clap::Args)]
pub(super) struct NewLimits {
    /// Requests per minute
    #[arg(long, value_name = "N")]
    rpm: Option<u32>,
    /// Images per minute
    #[arg(long, value_name = "N")]
    ipm: Option<u32>,
    /// Requests at the same time
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    /// What may be spent in a UTC day
    #[arg(long, value_name = "USD", value_parser = NanoUsd::parse)]
    spend_per_day: Option<NanoUsd>,
    /// What may be spent in a UTC month
    #[arg(long, value_name = "USD", value_parser = NanoUsd::parse)]
    spend_per_month: Option<NanoUsd>,
}

/// Other limits of something that there is.
#[derive(Debug, clap::Args)]
pub(super) struct OtherLimits {
    /// Requests per minute, or none for no limit
    #[arg(long, value_name = "N")]
    rpm: Option<Bound>,
    /// Images per minute, or none for no limit
    #[arg(long, value_name = "N")]
    ipm: Option<Bound>,
    /// Requests at the same time, or none for no limit
    #[arg(long, value_name = "N")]
    max_in_flight: Option<Bound>,
    /// What may be spent in a UTC day, or none for no limit
    #[arg(long, value_name = "USD")]
    spend_per_day: Option<SpendBound>,
    /// What may be spent in a UTC month, or none for no limit
    #[arg(long, value_name = "USD")]
    spend_per_month: Option<SpendBound>,
}

impl From<NewLimits> for Limits {
    fn from(new: NewLimits) -> Self {
        Self {
            requests_per_minute: new.rpm,
            images_per_minute: new.ipm,
            max_in_flight: new.max_in_flight,
            spend_per_day: new.spend_per_day,
            spend_per_month: new.spend_per_month,
        }
    }
}

impl From<OtherLimits> for LimitsUpdate {
    fn from(other: OtherLimits) -> Self {
        Self {
            requests_per_minute: other.rpm.map(|Bound(limit)| limit),
            images_per_minute: other.ipm.map(|Bound(limit)| limit),
            max_in_flight: other.max_in_flight.map(|Bound(limit)| limit),
            spend_per_day: other.spend_per_day.map(|SpendBound(limit)| limit),
            spend_per_month: other.spend_per_month.map(|SpendBound(limit)| limit),
        }
    }
}

/// A line for each limit; nothing where there is none.
pub(super) fn lines(limits: &Limits) -> Vec<String> {
    let counts = [
        (limits.requests_per_minute, "requests/min"),
        (limits.images_per_minute, "images/min"),
        (limits.max_in_flight, "in flight"),
    ];
    let amounts = [
        (limits.spend_per_day, "USD/day"),
        (limits.spend_per_month, "USD/month"),
    ];
    let counts = counts
        .into_iter()
        .filter_map(|(limit, unit)| limit.map(|limit| format!("{limit} {unit}")));
    let amounts = amounts
        .into_iter()
        .filter_map(|(limit, unit)| limit.map(|limit| format!("{limit} {unit}")));
    counts.chain(amounts).collect()
}
