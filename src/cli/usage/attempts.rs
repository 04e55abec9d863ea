//! `easel usage --attempts`: the calls to providers, one by one.

use chrono::SecondsFormat;
use serde_json::{Value, json};

use crate::{
    admin::usage_csv,
    cli::output,
    ledger::{AttemptFilter, Ledger, ListedAttempt},
};

/// How to print a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Json,
    Csv,
}

const COLUMNS: [&str; 16] = [
    "time",
    "generation",
    "number",
    "request",
    "account",
    "key",
    "mode",
    "model",
    "provider",
    "upstream_model",
    "status",
    "latency_ms",
    "error",
    "images",
    "maybe_charged",
    "upstream_request_id",
];

/// Prints at most `limit` calls, and says so when there are more.
pub(super) async fn print(
    ledger: &Ledger,
    filter: &AttemptFilter,
    limit: u32,
    format: Format,
) -> anyhow::Result<()> {
    let mut found = ledger.attempts(filter, limit.saturating_add(1)).await?;
    let wanted = usize::try_from(limit)?;
    let is_cut = found.len() > wanted;
    found.truncate(wanted);
    match format {
        Format::Json => output::json(&found.iter().map(document).collect::<Vec<_>>())?,
        Format::Csv => output::text(&csv(&found)?),
        Format::Table => table(&found),
    }
    if is_cut {
        output::warning(format!(
            "these are the newest {limit}; --limit shows more, --since and --until another span"
        ));
    }
    Ok(())
}

fn document(listed: &ListedAttempt) -> Value {
    let attempt = &listed.attempt;
    json!({
        "time": time(listed),
        "generation": listed.generation,
        "number": attempt.number,
        "request": listed.request,
        "account": listed.account,
        "key": listed.key,
        "mode": listed.mode,
        "model": listed.model,
        "provider": attempt.provider,
        "upstream_model": attempt.upstream_model,
        "status": attempt.upstream_status,
        "latency_ms": latency_ms(listed),
        "error": attempt.error,
        "images": attempt.images,
        "maybe_charged": attempt.maybe_charged,
        "upstream_request_id": attempt.upstream_request_id,
    })
}

/// The values of [`document`] in the order of [`COLUMNS`].
fn csv(found: &[ListedAttempt]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for listed in found {
        let document = document(listed);
        writer.write_record(COLUMNS.map(|column| match &document[column] {
            Value::Null => String::new(),
            Value::String(text) => usage_csv::cell(text),
            other => other.to_string(),
        }))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn table(found: &[ListedAttempt]) {
    output::table(
        &[
            "TIME",
            "GENERATION",
            "MODE",
            "PROVIDER",
            "UPSTREAM MODEL",
            "STATUS",
            "LATENCY",
            "RESULT",
            "IMAGES",
            "CHARGED",
        ],
        found.iter().map(|listed| {
            let attempt = &listed.attempt;
            let status = attempt.upstream_status.map(|status| status.to_string());
            [
                attempt.started_at.format("%F %T").to_string(),
                listed.generation.to_string(),
                listed.mode.to_string(),
                attempt.provider.clone(),
                attempt.upstream_model.clone(),
                status.unwrap_or_else(|| "-".to_owned()),
                format!("{} ms", latency_ms(listed)),
                attempt.error.clone().unwrap_or_else(|| "ok".to_owned()),
                attempt.images.to_string(),
                charged(listed).to_owned(),
            ]
        }),
    );
}

/// What the provider's invoice will say about it.
fn charged(listed: &ListedAttempt) -> &'static str {
    match (listed.attempt.images, listed.attempt.maybe_charged) {
        (_, true) => "maybe",
        (0, false) => "no",
        (_, false) => "yes",
    }
}

fn time(listed: &ListedAttempt) -> String {
    let started_at = listed.attempt.started_at;
    started_at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn latency_ms(listed: &ListedAttempt) -> u64 {
    u64::try_from(listed.attempt.latency.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{TimeZone, Utc};

    use super::*;
    use crate::{
        ids::{AccountId, GenerationId, KeyId, RequestId},
        keys::Mode,
        ledger::AttemptRecord,
    };

    fn listed() -> ListedAttempt {
        let at = Utc.with_ymd_and_hms(2026, 11, 20, 3, 0, 0).unwrap();
        ListedAttempt {
            generation: GenerationId::new(),
            request: RequestId::new(),
            accepted_at: at,
            account: AccountId::new(),
            key: KeyId::new(),
            mode: Mode::Live,
            model: "openai/gpt-image-2".to_owned(),
            attempt: AttemptRecord {
                number: 1,
                provider: "openai".to_owned(),
                upstream_model: "gpt-image-2".to_owned(),
                started_at: at,
                latency: Duration::from_millis(1250),
                upstream_status: None,
                upstream_request_id: None,
                error: Some("timeout_after_sending".to_owned()),
                images: 0,
                maybe_charged: true,
            },
        }
    }

    #[test]
    fn csv_has_every_field_of_json_in_a_fixed_order() {
        let one = listed();
        let document = document(&one);
        let mut names: Vec<&str> = document
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut columns = COLUMNS.to_vec();
        names.sort_unstable();
        columns.sort_unstable();
        assert_eq!(names, columns);
        let text = csv(std::slice::from_ref(&one)).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap(), COLUMNS.join(","));
        let line = lines.next().unwrap();
        assert!(line.starts_with("2026-11-20T03:00:00.000Z,gen_"), "{line}");
        assert!(
            line.ends_with("openai,gpt-image-2,,1250,timeout_after_sending,0,true,"),
            "{line}"
        );
    }

    #[test]
    fn what_the_invoice_will_say() {
        let mut one = listed();
        assert_eq!(charged(&one), "maybe");
        one.attempt.maybe_charged = false;
        assert_eq!(charged(&one), "no");
        one.attempt.images = 1;
        assert_eq!(charged(&one), "yes");
    }
}
