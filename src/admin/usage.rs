//! `/admin/v1/usage`: what was used, charged, owed and earned, by day, model, provider, key and account in any
//! combination; as JSON, or as CSV with `?format=csv` or `Accept: text/csv`.

use std::str::FromStr;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use super::{
    Desk,
    error::AdminError,
    extract::{Asked, Text},
    usage_csv,
    words::Moment,
};
use crate::{
    api::ApiError,
    ids::KeyId,
    keys::Mode,
    ledger::{UsageFilter, UsageGroup, UsageSum},
    money::NanoUsd,
};

/// How far back usage goes when the request does not say.
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(30);
/// Rows of an answer. More would be a table for a database's own tools.
const MOST_ROWS: u32 = 100_000;

/// What to sum up, and by what.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "AdminUsageQuery")]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// With commas between them; `day` unless said otherwise.
    group_by: Option<Text<Groups>>,
    account: Option<String>,
    key: Option<Text<KeyId>>,
    mode: Option<Text<Mode>>,
    model: Option<String>,
    provider: Option<String>,
    since: Option<Text<Moment>>,
    until: Option<Text<Moment>>,
    format: Option<Text<Format>>,
}

/// Groups, each once.
#[derive(JsonSchema)]
#[schemars(inline)]
struct Groups(#[schemars(with = "String")] Vec<UsageGroup>);

#[derive(Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum Format {
    Json,
    Csv,
}

/// The list of sums. It comes whole.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AdminUsage")]
pub(super) struct Usage<'a> {
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    #[schemars(extend("const" = "USD"))]
    currency: &'static str,
    group_by: Vec<&'static str>,
    since: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
    data: Vec<Row<'a>>,
    /// Real and play money are never added up.
    total: Totals,
    has_more: bool,
}

/// A row with the groups that were asked for.
pub(super) struct Row<'a> {
    groups: &'a [UsageGroup],
    sum: &'a UsageSum,
    margin: NanoUsd,
}

#[derive(Serialize, Default, JsonSchema)]
#[schemars(rename = "UsageTotals")]
struct Totals {
    live: Total,
    test: Total,
}

#[derive(Serialize, Default, JsonSchema)]
#[schemars(rename = "AdminUsageTotal")]
struct Total {
    requests: u64,
    abandoned: u64,
    images: u64,
    cost: NanoUsd,
    upstream_cost: NanoUsd,
    margin: NanoUsd,
}

/// `GET /admin/v1/usage`
pub(super) async fn usage(
    State(desk): State<Desk>,
    Asked(query): Asked<Query>,
    headers: HeaderMap,
) -> Result<Response, AdminError> {
    let now = desk.app.clock.now();
    let since = query
        .since
        .map_or_else(|| now - DEFAULT_SPAN, |Text(since)| since.at(now));
    let filter = UsageFilter {
        account: match query.account {
            Some(account) => Some(desk.account(&account).await?.id),
            None => None,
        },
        key: query.key.map(|Text(key)| key),
        mode: query.mode.map(|Text(mode)| mode),
        model: query.model.map(|name| desk.model_id(name)),
        provider: query.provider,
        since: Some(since),
        until: query.until.map(|Text(until)| until.at(now)),
    };
    let groups = query
        .group_by
        .map_or_else(|| vec![UsageGroup::Day], |Text(Groups(groups))| groups);
    let ledger = &desk.app.ledger;
    let most = MOST_ROWS.saturating_add(1);
    let sums = ledger.usage_by(&groups, &filter, Some(most)).await?;
    if u32::try_from(sums.len()).unwrap_or(u32::MAX) > MOST_ROWS {
        return Err(AdminError::TooManyRows(MOST_ROWS));
    }
    let format = query
        .format
        .map_or_else(|| wanted(&headers), |Text(format)| format);
    if format == Format::Csv {
        let sheet = usage_csv::write(&groups, &sums)
            .map_err(|error| ApiError::Internal(Box::new(error)))?;
        let kind = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/csv; charset=utf-8"),
        )];
        return Ok((kind, sheet).into_response());
    }
    let mut total = Totals::default();
    let mut data = Vec::with_capacity(sums.len());
    for sum in &sums {
        let margin = sum.margin()?;
        let of_mode = match sum.mode {
            Mode::Live => &mut total.live,
            Mode::Test => &mut total.test,
        };
        of_mode.requests = of_mode.requests.saturating_add(sum.requests);
        of_mode.abandoned = of_mode.abandoned.saturating_add(sum.abandoned);
        of_mode.images = of_mode.images.saturating_add(sum.images);
        of_mode.cost = of_mode.cost.checked_add(sum.cost)?;
        of_mode.upstream_cost = of_mode.upstream_cost.checked_add(sum.upstream_cost)?;
        of_mode.margin = of_mode.margin.checked_add(margin)?;
        data.push(Row {
            groups: &groups,
            sum,
            margin,
        });
    }
    let usage = Usage {
        object: "list",
        currency: "USD",
        group_by: groups.iter().map(|group| group.as_str()).collect(),
        since,
        until: filter.until,
        data,
        total,
        has_more: false,
    };
    Ok(Json(usage).into_response())
}

/// CSV for whoever names it, without weighing wishes against each other: browsers take anything.
fn wanted(headers: &HeaderMap) -> Format {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let mut kinds = accept.unwrap_or_default().split(',');
    let names_csv = kinds.any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("text/csv")
    });
    if names_csv { Format::Csv } else { Format::Json }
}

impl FromStr for Groups {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut groups: Vec<UsageGroup> = Vec::new();
        for word in text.split(',') {
            let group = word.trim().parse()?;
            if groups.contains(&group) {
                return Err(format!("'{group}' is there twice"));
            }
            groups.push(group);
        }
        Ok(Self(groups))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err(format!("'{text}' is neither json nor csv")),
        }
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for group in self.groups {
            let (of, name) = self.sum.group(*group);
            map.serialize_entry(group.as_str(), &of)?;
            if let Some(name) = name {
                map.serialize_entry(&format!("{group}_name"), name)?;
            }
        }
        map.serialize_entry("mode", &self.sum.mode)?;
        map.serialize_entry("requests", &self.sum.requests)?;
        map.serialize_entry("abandoned", &self.sum.abandoned)?;
        map.serialize_entry("images", &self.sum.images)?;
        map.serialize_entry("cost", &self.sum.cost)?;
        map.serialize_entry("upstream_cost", &self.sum.upstream_cost)?;
        map.serialize_entry("margin", &self.margin)?;
        map.end()
    }
}
