//! `GET /v1/credits` and `GET /v1/usage`: what the key's account has, holds and spent.

use axum::{Json, extract::State};
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiError, App, auth::Authenticated, error::excerpt, extract::Queried};
use crate::{
    catalog::Violation,
    ledger::{UsageFilter, UsageGroup},
    money::NanoUsd,
};

/// How far back usage goes when the request does not say.
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(30);

/// What to sum up.
#[derive(Deserialize, JsonSchema)]
pub(super) struct UsageQuery {
    /// By what to sum up; `day` unless said otherwise.
    #[schemars(extend("enum" = ["day", "model", "provider", "key"]))]
    group_by: Option<String>,
    /// Only this model, by any of its names.
    model: Option<String>,
    /// From this date or instant on; 30 days ago unless said otherwise.
    since: Option<String>,
    /// Before this date or instant.
    until: Option<String>,
}

/// What an account used. Upstream costs are the operator's affair and not shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AccountUsage")]
pub(super) struct Usage {
    #[schemars(extend("const" = "usage"))]
    object: &'static str,
    #[schemars(extend("const" = "USD"))]
    currency: &'static str,
    group_by: &'static str,
    since: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
    data: Vec<UsageSum>,
    total: UsageTotal,
}

#[derive(Serialize, JsonSchema)]
struct UsageSum {
    /// The day, model, provider or key; absent for requests that no provider served.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    requests: u64,
    images: u64,
    cost: NanoUsd,
}

#[derive(Serialize, Default, JsonSchema)]
struct UsageTotal {
    requests: u64,
    images: u64,
    cost: NanoUsd,
}

/// What an account has.
#[derive(Serialize, JsonSchema)]
pub(super) struct Credits {
    #[schemars(extend("const" = "credits"))]
    object: &'static str,
    #[schemars(extend("const" = "USD"))]
    currency: &'static str,
    /// What was put in, less what was charged.
    balance: NanoUsd,
    /// Set aside for requests that are being worked on.
    held: NanoUsd,
    /// What can be spent.
    available: NanoUsd,
}

/// `GET /v1/credits`: the live or the test balance, by the key's mode.
pub(super) async fn credits(
    State(app): State<App>,
    Authenticated(key): Authenticated,
) -> Result<Json<Credits>, ApiError> {
    let have = app.ledger.balance(key.account, key.mode).await?;
    let available = have
        .balance
        .checked_sub(have.held)
        .map_err(|error| ApiError::Internal(Box::new(error)))?;
    Ok(Json(Credits {
        object: "credits",
        currency: "USD",
        balance: have.balance,
        held: have.held,
        available,
    }))
}

/// `GET /v1/usage`: by day, model, provider or key; the last 30 days unless `since` says otherwise.
pub(super) async fn usage(
    State(app): State<App>,
    Authenticated(key): Authenticated,
    Queried(query): Queried<UsageQuery>,
) -> Result<Json<Usage>, ApiError> {
    let group = group(query.group_by.as_deref())?;
    let since =
        instant("since", query.since.as_deref())?.unwrap_or_else(|| app.clock.now() - DEFAULT_SPAN);
    let until = instant("until", query.until.as_deref())?;
    let model = query.model.map(|name| {
        let catalog = &app.gateway.rooms().catalog;
        catalog.find(&name).map_or(name, |model| model.id.clone())
    });
    let filter = UsageFilter {
        account: Some(key.account),
        mode: Some(key.mode),
        model,
        since: Some(since),
        until,
        ..UsageFilter::default()
    };
    let mut total = UsageTotal::default();
    let mut data = Vec::new();
    for row in app.ledger.usage(group, &filter).await? {
        total.requests = total.requests.saturating_add(row.requests);
        total.images = total.images.saturating_add(row.images);
        total.cost = total
            .cost
            .checked_add(row.cost)
            .map_err(|error| ApiError::Internal(Box::new(error)))?;
        data.push(UsageSum {
            group: row.group,
            requests: row.requests,
            images: row.images,
            cost: row.cost,
        });
    }
    Ok(Json(Usage {
        object: "usage",
        currency: "USD",
        group_by: group.as_str(),
        since,
        until,
        data,
        total,
    }))
}

/// One account sees its own usage, so there is nothing to group by account.
fn group(word: Option<&str>) -> Result<UsageGroup, ApiError> {
    match word {
        None | Some("day") => Ok(UsageGroup::Day),
        Some("model") => Ok(UsageGroup::Model),
        Some("provider") => Ok(UsageGroup::Provider),
        Some("key") => Ok(UsageGroup::Key),
        Some(other) => Err(invalid(
            "group_by",
            other,
            "Supported values are: 'day', 'model', 'provider', 'key'.",
        )),
    }
}

/// A date (its beginning in UTC) or an RFC 3339 instant.
fn instant(name: &str, text: Option<&str>) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let date = text
        .parse::<NaiveDate>()
        .map(|date| date.and_time(NaiveTime::MIN).and_utc());
    let instant = DateTime::parse_from_rfc3339(text).map(|instant| instant.to_utc());
    // The years of RFC 3339; PostgreSQL does not know all that can be written beyond them.
    let instant = date.or(instant).ok();
    let instant = instant.filter(|instant| (0..=9999).contains(&instant.year()));
    instant.map(Some).ok_or_else(|| {
        invalid(
            name,
            text,
            "Expected a date such as 2026-11-20 or an RFC 3339 instant.",
        )
    })
}

fn invalid(name: &str, value: &str, expected: &str) -> ApiError {
    ApiError::Parameter(Violation {
        parameter: name.to_owned(),
        code: "invalid_value",
        message: format!(
            "Invalid value for '{name}': '{}'. {expected}",
            excerpt(value)
        ),
    })
}
