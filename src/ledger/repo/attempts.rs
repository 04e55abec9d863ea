//! Listing calls to providers.

use std::time::Duration;

use sqlx::PgConnection;

use super::{clean, decode};
use crate::{
    keys::Mode,
    ledger::{
        attempts::{AttemptFilter, ListedAttempt},
        error::LedgerError,
        history::AttemptRecord,
    },
};

/// One statement for every filter, as for the sums: it is planned anew for the filters that are set.
pub(in crate::ledger) async fn list(
    connection: &mut PgConnection,
    filter: &AttemptFilter,
    limit: u32,
) -> Result<Vec<ListedAttempt>, LedgerError> {
    let usage = &filter.usage;
    sqlx::query!(
        "select a.generation_id, g.request_id, g.created_at, g.account_id, g.key_id, g.mode, g.model, a.number,
             a.provider, a.upstream_model, a.started_at, a.latency_ms, a.upstream_status, a.upstream_request_id,
             a.error, a.images, a.maybe_charged
         from attempts a join generations g on g.id = a.generation_id
         where ($1::text is null or g.account_id = $1) and ($2::text is null or g.key_id = $2)
             and ($3::text is null or g.model = $3) and ($4::text is null or g.mode = $4)
             and ($5::timestamptz is null or g.created_at >= $5) and ($6::timestamptz is null or g.created_at < $6)
             and ($7::text is null or a.generation_id = $7) and ($8::text is null or a.provider = $8)
             and ($10::text is null or g.provider = $10)
         order by a.generation_id desc, a.number desc limit $9",
        usage.account.map(|account| account.to_string()),
        usage.key.map(|key| key.to_string()),
        usage.model.as_deref().map(clean),
        usage.mode.map(Mode::as_str),
        usage.since,
        usage.until,
        filter.generation.map(|generation| generation.to_string()),
        filter.provider.as_deref().map(clean),
        i64::from(limit),
        usage.provider.as_deref().map(clean),
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("list attempts"))?
    .into_iter()
    .map(|row| {
        Ok(ListedAttempt {
            generation: decode("attempts.generation_id", &row.generation_id)?,
            request: decode("generations.request_id", &row.request_id)?,
            accepted_at: row.created_at,
            account: decode("generations.account_id", &row.account_id)?,
            key: decode("generations.key_id", &row.key_id)?,
            mode: decode("generations.mode", &row.mode)?,
            model: row.model,
            attempt: AttemptRecord {
                number: row.number.unsigned_abs(),
                provider: row.provider,
                upstream_model: row.upstream_model,
                started_at: row.started_at,
                latency: Duration::from_millis(row.latency_ms.unsigned_abs()),
                upstream_status: row.upstream_status.map(i16::unsigned_abs),
                upstream_request_id: row.upstream_request_id,
                error: row.error,
                images: u8::try_from(row.images).unwrap_or(u8::MAX),
                maybe_charged: row.maybe_charged,
            },
        })
    })
    .collect()
}
