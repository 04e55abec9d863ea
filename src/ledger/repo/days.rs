//! Summing up days.

use chrono::{Days, NaiveDate};
use sqlx::PgConnection;

use crate::ledger::{Instant, days::midnight, error::LedgerError};

/// Days before this one are in `usage_days`.
pub(in crate::ledger) async fn summed_until(
    connection: &mut PgConnection,
) -> Result<NaiveDate, LedgerError> {
    sqlx::query_scalar!("select summed_until from usage_horizon")
        .fetch_one(connection)
        .await
        .map_err(LedgerError::during("read which days are summed up"))
}

/// Sums up the first day that is not yet, if it is over before `settled` begins and nothing of it is in flight.
/// Says whether there may be another.
pub(in crate::ledger) async fn sum_up_next(
    connection: &mut PgConnection,
    settled: NaiveDate,
) -> Result<bool, LedgerError> {
    let failed = LedgerError::during("sum up a day");
    // Whoever is at it does it for all.
    let Some(day) =
        sqlx::query_scalar!("select summed_until from usage_horizon for update skip locked")
            .fetch_optional(&mut *connection)
            .await
            .map_err(&failed)?
    else {
        return Ok(false);
    };
    let oldest: Option<Instant> =
        sqlx::query_scalar!("select created_at from generations order by id limit 1")
            .fetch_optional(&mut *connection)
            .await
            .map_err(&failed)?;
    // Before the first request there is nothing to sum up. Ids sort by age to within the clocks' differences; the
    // day before costs nothing.
    let first = oldest.and_then(|oldest| oldest.date_naive().pred_opt());
    let day = first.map_or(settled, |first| first.max(day));
    let next = day.checked_add_days(Days::new(1)).unwrap_or(day);
    if next > settled {
        return Ok(false);
    }
    let in_flight = sqlx::query_scalar!(
        r#"select exists (select from holds where status = 'open' and created_at < $1) as "in_flight!""#,
        midnight(next),
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(&failed)?;
    if in_flight {
        return Ok(false);
    }
    // A busy day takes its time, and nobody waits for it.
    sqlx::query!("set local statement_timeout = '30min'")
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    sqlx::query!(
        "insert into usage_days (day, account_id, mode, key_id, model, provider, requests, abandoned, images,
             cost_nano_usd, upstream_cost_nano_usd)
         select $1, account_id, mode, key_id, model, coalesce(provider, ''), count(*),
             count(*) filter (where status = 'abandoned'), sum(images_delivered),
             sum(cost_nano_usd), sum(upstream_cost_nano_usd)
         from generations where created_at >= $2 and created_at < $3
         group by account_id, mode, key_id, model, coalesce(provider, '')",
        day,
        midnight(day),
        midnight(next),
    )
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    sqlx::query!("update usage_horizon set summed_until = $1", next)
        .execute(connection)
        .await
        .map_err(&failed)?;
    Ok(true)
}

/// Notes that requests of days before `wanted` may be gone from now on, as far as they are summed up. Returns up to
/// which day.
pub(in crate::ledger) async fn prune_until(
    connection: &mut PgConnection,
    wanted: NaiveDate,
) -> Result<NaiveDate, LedgerError> {
    sqlx::query_scalar!(
        "update usage_horizon set pruned_until = greatest(pruned_until, least($1, summed_until))
         returning pruned_until",
        wanted,
    )
    .fetch_one(connection)
    .await
    .map_err(LedgerError::during("note what is pruned"))
}
