//! Limits of keys and accounts in bodies: `{"requests_per_minute": 60, "spend_per_day": 5, …}`, where `null` takes one
//! away.

use schemars::JsonSchema;
use serde::Deserialize;

use super::extract::{OrNull, Usd, given};
use crate::keys::LimitsUpdate;

/// What of them is named; null takes one away.
#[derive(Deserialize, Default, JsonSchema)]
#[schemars(rename = "LimitsUpdate")]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsJson {
    #[serde(default, deserialize_with = "given")]
    requests_per_minute: Option<OrNull<u32>>,
    #[serde(default, deserialize_with = "given")]
    images_per_minute: Option<OrNull<u32>>,
    #[serde(default, deserialize_with = "given")]
    max_in_flight: Option<OrNull<u32>>,
    #[serde(default, deserialize_with = "given")]
    spend_per_day: Option<OrNull<Usd>>,
    #[serde(default, deserialize_with = "given")]
    spend_per_month: Option<OrNull<Usd>>,
}

impl From<LimitsJson> for LimitsUpdate {
    fn from(json: LimitsJson) -> Self {
        let count = |named: Option<OrNull<u32>>| named.map(|OrNull(limit)| limit);
        let amount =
            |named: Option<OrNull<Usd>>| named.map(|OrNull(limit)| limit.map(|Usd(amount)| amount));
        Self {
            requests_per_minute: count(json.requests_per_minute),
            images_per_minute: count(json.images_per_minute),
            max_in_flight: count(json.max_in_flight),
            spend_per_day: amount(json.spend_per_day),
            spend_per_month: amount(json.spend_per_month),
        }
    }
}
