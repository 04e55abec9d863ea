//! `easel usage`: what was used, for people, programs and spreadsheets.

mod attempts;

use std::process::ExitCode;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Context, output};
use crate::{
    admin::{
        usage_csv,
        words::{self, Moment},
    },
    ids::{GenerationId, KeyId},
    keys::Mode,
    ledger::{AttemptFilter, UsageFilter, UsageGroup, UsageRow},
    money::NanoUsd,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this account, by id or exact name
    #[arg(long)]
    account: Option<String>,
    /// Only this key
    #[arg(long, value_name = "ID")]
    key: Option<KeyId>,
    /// Only this model, by id or alias
    #[arg(long)]
    model: Option<String>,
    /// Only live (real) or test (play) money [default: both, in rows of their own]
    #[arg(long)]
    mode: Option<Mode>,
    /// From this day (2026-11-20, today, yesterday; UTC), instant, or span before now (7d) on
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,
    /// Until before this day, instant, or span before now
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,
    /// day, model, provider, key or account
    #[arg(long, value_name = "WHAT", default_value = "day")]
    group_by: UsageGroup,
    /// List the calls to providers instead, newest first: status, latency, error, and whether we may owe
    /// the provider for one that failed
    #[arg(long, conflicts_with = "group_by")]
    attempts: bool,
    /// Only calls for this generation
    #[arg(long, value_name = "ID", requires = "attempts")]
    generation: Option<GenerationId>,
    /// Only calls to this provider
    #[arg(long, value_name = "NAME", requires = "attempts")]
    provider: Option<String>,
    /// At most this many calls
    #[arg(
        long,
        value_name = "N",
        requires = "attempts",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print CSV with a header
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// A row as JSON, its group under the group's own name.
struct Line<'a>(UsageGroup, &'a UsageRow);

pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let ledger = context.ledger();
    let now = context.clock.now();
    let account = match &arguments.account {
        Some(name) => Some(ledger.find_account(name).await?.id),
        None => None,
    };
    let model = arguments
        .model
        .map(|name| words::model_id(&context.catalog, name));
    let filter = UsageFilter {
        account,
        key: arguments.key,
        model,
        provider: None,
        mode: arguments.mode,
        since: arguments.since.map(|moment| moment.at(now)),
        until: arguments.until.map(|moment| moment.at(now)),
    };
    if arguments.attempts {
        let filter = AttemptFilter {
            usage: filter,
            generation: arguments.generation,
            provider: arguments.provider,
        };
        let format = match (arguments.json, arguments.csv) {
            (true, _) => attempts::Format::Json,
            (false, true) => attempts::Format::Csv,
            (false, false) => attempts::Format::Table,
        };
        attempts::print(&ledger, &filter, arguments.limit, format).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let group = arguments.group_by;
    if arguments.csv {
        let sums = ledger.usage_by(&[group], &filter, None).await?;
        let sheet = usage_csv::write(&[group], &sums)?;
        output::text(&String::from_utf8(sheet)?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = ledger.usage(group, &filter).await?;
    if arguments.json {
        let lines: Vec<_> = rows.iter().map(|row| Line(group, row)).collect();
        output::json(&lines)?;
    } else {
        table(group, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn has_names(group: UsageGroup) -> bool {
    match group {
        UsageGroup::Key | UsageGroup::Account => true,
        UsageGroup::Day | UsageGroup::Model | UsageGroup::Provider => false,
    }
}

fn table(group: UsageGroup, rows: &[UsageRow]) -> anyhow::Result<()> {
    let first = group.as_str().to_uppercase();
    let mut titles = vec![first.as_str()];
    titles.extend(has_names(group).then_some("NAME"));
    titles.extend([
        "MODE",
        "REQUESTS",
        "ABANDONED",
        "IMAGES",
        "COST USD",
        "UPSTREAM USD",
    ]);
    let mut lines: Vec<Vec<String>> = rows.iter().map(|row| cells(group, row, "(none)")).collect();
    for mode in Mode::ALL {
        let of_mode: Vec<&UsageRow> = rows.iter().filter(|row| row.mode == mode).collect();
        if of_mode.len() > 1 {
            let total = UsageRow {
                group: Some("total".to_owned()),
                name: None,
                mode,
                requests: of_mode.iter().map(|row| row.requests).sum(),
                abandoned: of_mode.iter().map(|row| row.abandoned).sum(),
                images: of_mode.iter().map(|row| row.images).sum(),
                cost: NanoUsd::sum(of_mode.iter().map(|row| row.cost))?,
                upstream_cost: NanoUsd::sum(of_mode.iter().map(|row| row.upstream_cost))?,
            };
            lines.push(cells(group, &total, ""));
        }
    }
    output::table(&titles, lines);
    Ok(())
}

fn cells(group: UsageGroup, row: &UsageRow, none: &str) -> Vec<String> {
    let mut cells = vec![row.group.clone().unwrap_or_else(|| none.to_owned())];
    if has_names(group) {
        cells.push(row.name.clone().unwrap_or_default());
    }
    cells.extend([
        row.mode.to_string(),
        row.requests.to_string(),
        row.abandoned.to_string(),
        row.images.to_string(),
        row.cost.to_string(),
        row.upstream_cost.to_string(),
    ]);
    cells
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(group, row) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(group.as_str(), &row.group)?;
        if let Some(name) = &row.name {
            map.serialize_entry("name", name)?;
        }
        map.serialize_entry("mode", &row.mode)?;
        map.serialize_entry("requests", &row.requests)?;
        map.serialize_entry("abandoned", &row.abandoned)?;
        map.serialize_entry("images", &row.images)?;
        map.serialize_entry("cost", &row.cost)?;
        map.serialize_entry("upstream_cost", &row.upstream_cost)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: Option<&str>, name: Option<&str>) -> UsageRow {
        UsageRow {
            group: group.map(str::to_owned),
            name: name.map(str::to_owned),
            mode: Mode::Live,
            requests: 3,
            abandoned: 1,
            images: 2,
            cost: NanoUsd::parse("0.066").unwrap(),
            upstream_cost: NanoUsd::parse("0.06").unwrap(),
        }
    }

    #[test]
    fn json_names_the_group_and_keeps_amounts_exact() {
        let json = |group, row: &UsageRow| serde_json::to_string(&Line(group, row)).unwrap();
        assert_eq!(
            json(UsageGroup::Provider, &row(None, None)),
            r#"{"provider":null,"mode":"live","requests":3,"abandoned":1,"images":2,"cost":0.066,"upstream_cost":0.06}"#
        );
        assert!(
            json(UsageGroup::Key, &row(Some("key_1"), Some("ci")))
                .starts_with(r#"{"key":"key_1","name":"ci","#)
        );
    }
}
