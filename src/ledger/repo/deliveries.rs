//! Messages about generations that have ended. Times are the database's.

use std::time::Duration;

use sqlx::PgPool;

use super::{decode, replicas::interval};
use crate::{
    ids::{GenerationId, KeyId},
    ledger::{
        deliveries::{
            Delivery, DeliveryAttempt, DeliveryAttemptRecord, DeliveryEnd, DeliveryRecord,
            PendingDeliveries,
        },
        error::LedgerError,
    },
};

/// How many rows one statement forgets.
const BATCH: i64 = 500;

pub(in crate::ledger) async fn claim(
    pool: &PgPool,
    busy: &[KeyId],
    at_most: usize,
    lease: Duration,
) -> Result<Vec<Delivery>, LedgerError> {
    let busy: Vec<String> = busy.iter().map(ToString::to_string).collect();
    sqlx::query!(
        r#"with due as (
             select generation_id from webhook_deliveries
             where status = 'pending' and due_at <= clock_timestamp() and key_id <> all($1)
             order by due_at limit $2 for update skip locked
         )
         update webhook_deliveries d set due_at = clock_timestamp() + $3::interval, attempts = d.attempts + 1
         from due where d.generation_id = due.generation_id
         returning d.generation_id, d.key_id, d.event, d.url, d.attempts,
             (extract(epoch from clock_timestamp() - d.created_at) * 1000)::bigint as "age_ms!""#,
        &busy,
        i64::try_from(at_most).unwrap_or(i64::MAX),
        interval(lease),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("claim webhooks"))?
    .into_iter()
    .map(|row| {
        Ok(Delivery {
            generation: decode("webhook_deliveries.generation_id", &row.generation_id)?,
            key: decode("webhook_deliveries.key_id", &row.key_id)?,
            event: row.event,
            url: row.url,
            attempt: row.attempts.unsigned_abs(),
            age: Duration::from_millis(u64::try_from(row.age_ms).unwrap_or(0)),
        })
    })
    .collect()
}

/// How many nobody has taken yet, how old the oldest is, and for how long the one is due that waits longest.
pub(in crate::ledger) async fn count(pool: &PgPool) -> Result<PendingDeliveries, LedgerError> {
    let row = sqlx::query!(
        r#"select count(*) as "pending!",
               coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8 as "oldest!",
               coalesce(extract(epoch from clock_timestamp() - min(due_at)), 0)::float8 as "overdue!"
           from webhook_deliveries where status = 'pending'"#
    )
    .fetch_one(pool)
    .await
    .map_err(LedgerError::during("count webhooks"))?;
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Ok(PendingDeliveries {
        count: u64::try_from(row.pending).unwrap_or(0),
        oldest: duration(row.oldest),
        overdue: duration(row.overdue),
    })
}

/// Whether so many of this key are pending, or more.
pub(in crate::ledger) async fn are_pending(
    pool: &PgPool,
    key: KeyId,
    at_least: usize,
) -> Result<bool, LedgerError> {
    let at_least = i64::try_from(at_least).unwrap_or(i64::MAX);
    let found = sqlx::query_scalar!(
        r#"select count(*) as "pending!" from (
               select from webhook_deliveries where key_id = $1 and status = 'pending' limit $2
           ) of_key"#,
        key.to_string(),
        at_least,
    )
    .fetch_one(pool)
    .await
    .map_err(LedgerError::during("count a key's webhooks"))?;
    Ok(found >= at_least)
}

pub(in crate::ledger) async fn end(
    pool: &PgPool,
    delivery: &Delivery,
    attempt: &DeliveryAttempt,
    end: DeliveryEnd,
) -> Result<(), LedgerError> {
    let (status, pause) = match end {
        DeliveryEnd::Delivered => ("delivered", Duration::ZERO),
        DeliveryEnd::Gone => ("gone", Duration::ZERO),
        DeliveryEnd::GivenUp => ("failed", Duration::ZERO),
        DeliveryEnd::Again(pause) => ("pending", pause),
    };
    // What was taken was taken, even if somebody else has claimed it since.
    sqlx::query!(
        "with attempt as (
             insert into webhook_attempts (generation_id, number, started_at, latency_ms, status, error)
             select generation_id, $2, $3, $4, $5, $6 from webhook_deliveries where generation_id = $1
             on conflict do nothing
         )
         update webhook_deliveries set status = $7, due_at = clock_timestamp() + $8::interval,
             ended_at = case when $7 <> 'pending' then clock_timestamp() end
         where generation_id = $1 and status = 'pending' and (attempts = $2 or $7 = 'delivered')",
        delivery.generation.to_string(),
        i32::try_from(delivery.attempt).unwrap_or(i32::MAX),
        attempt.started_at,
        i64::try_from(attempt.latency.as_millis()).unwrap_or(i64::MAX),
        attempt.status.and_then(|status| i16::try_from(status).ok()),
        attempt.error,
        status,
        interval(pause),
    )
    .execute(pool)
    .await
    .map_err(LedgerError::during("end a webhook's attempt"))?;
    Ok(())
}

pub(in crate::ledger) async fn forget(
    pool: &PgPool,
    ended_for: Duration,
) -> Result<u64, LedgerError> {
    let forgotten = sqlx::query!(
        "delete from webhook_deliveries where generation_id in (
             select generation_id from webhook_deliveries where ended_at < clock_timestamp() - $1::interval
             order by ended_at limit $2 for update skip locked
         )",
        interval(ended_for),
        BATCH,
    )
    .execute(pool)
    .await
    .map_err(LedgerError::during("forget webhooks"))?;
    Ok(forgotten.rows_affected())
}

pub(in crate::ledger) async fn find(
    pool: &PgPool,
    generation: GenerationId,
) -> Result<Option<DeliveryRecord>, LedgerError> {
    let id = generation.to_string();
    let found = sqlx::query!(
        "select event, url, status, created_at, due_at, ended_at from webhook_deliveries where generation_id = $1",
        id,
    )
    .fetch_optional(pool)
    .await
    .map_err(LedgerError::during("read a webhook"))?;
    let Some(row) = found else {
        return Ok(None);
    };
    let attempts = sqlx::query!(
        "select number, started_at, latency_ms, status, error from webhook_attempts
         where generation_id = $1 order by number",
        id,
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("read a webhook's attempts"))?;
    let attempts = attempts.into_iter().map(|row| DeliveryAttemptRecord {
        number: row.number.unsigned_abs(),
        started_at: row.started_at,
        latency_ms: row.latency_ms.unsigned_abs(),
        status: row.status.map(i16::unsigned_abs),
        error: row.error,
    });
    Ok(Some(DeliveryRecord {
        event: row.event,
        url: row.url,
        status: row.status,
        created_at: row.created_at,
        due_at: row.ended_at.is_none().then_some(row.due_at),
        ended_at: row.ended_at,
        attempts: attempts.collect(),
    }))
}
