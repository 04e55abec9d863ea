//! Who is alive, and the holds of those who are not.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, postgres::types::PgInterval};

use super::decode;
use crate::{
    ids::{AccountId, GenerationId, ReplicaId},
    keys::Mode,
    ledger::{Instant, error::LedgerError},
};

/// What a beat attempts.
pub(in crate::ledger) const BEAT: &str = "renew the heartbeat";
/// What the caller of an abandoned generation finds when it asks for it.
const ABANDONED_MESSAGE: &str =
    "the gateway that worked on it did not finish it; nothing was charged";

/// An open hold that nobody will end.
#[derive(Debug)]
pub(in crate::ledger) struct Orphan {
    pub(in crate::ledger) generation: GenerationId,
    pub(in crate::ledger) account: AccountId,
    pub(in crate::ledger) mode: Mode,
}

/// Says that a replica lives. After a gap longer than this it counts as heard only from now on.
pub(in crate::ledger) async fn beat(
    connection: &mut PgConnection,
    replica: ReplicaId,
    longest_gap: Duration,
) -> Result<(), LedgerError> {
    sqlx::query!(
        "insert into replicas (id) values ($1)
         on conflict (id) do update set last_beat_at = clock_timestamp(), heard_since = case
             when replicas.last_beat_at < clock_timestamp() - $2::interval then clock_timestamp()
             else replicas.heard_since
         end",
        replica.to_string(),
        interval(longest_gap),
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during(BEAT))?;
    Ok(())
}

/// Declares a replica dead.
pub(in crate::ledger) async fn forget(
    pool: &PgPool,
    replica: ReplicaId,
) -> Result<(), LedgerError> {
    sqlx::query!("delete from replicas where id = $1", replica.to_string())
        .execute(pool)
        .await
        .map_err(LedgerError::during("end a replica"))?;
    Ok(())
}

/// Declares dead whoever has not beaten for `age`, unless `own` has not itself been heard for all of that time:
/// then its judgement is worth nothing, and the answer is false.
pub(in crate::ledger) async fn forget_silent(
    pool: &PgPool,
    own: ReplicaId,
    age: Duration,
    longest_gap: Duration,
) -> Result<bool, LedgerError> {
    // One statement, and one moment for all of it, so that a server which stands still in the middle does not
    // compare beats from before with a time from after. Rows that somebody else is renewing or removing this
    // moment are left alone.
    sqlx::query_scalar!(
        r#"with judge as (
               select from replicas where id = $1 and last_beat_at > statement_timestamp() - $3::interval
                   and heard_since <= statement_timestamp() - $2::interval
           ), dead as (
               delete from replicas where exists (select from judge) and id in (
                   select id from replicas where last_beat_at < statement_timestamp() - $2::interval and id <> $1
                   for update skip locked
               )
           )
           select exists (select from judge) as "judged!""#,
        own.to_string(),
        interval(age),
        interval(longest_gap),
    )
    .fetch_one(pool)
    .await
    .map_err(LedgerError::during("end silent replicas"))
}

/// Some of the open holds whose replica is gone, or that were placed before `overdue`, by whomever. Nothing is
/// locked: [`expire`] asks again.
pub(in crate::ledger) async fn orphans(
    connection: &mut PgConnection,
    own: ReplicaId,
    overdue: Option<Instant>,
    at_most: i64,
) -> Result<Vec<Orphan>, LedgerError> {
    sqlx::query!(
        "select h.generation_id, h.account_id, h.mode from holds h
         where h.status = 'open' and (
             h.created_at < $2
             or h.replica_id <> $1 and not exists (select from replicas r where r.id = h.replica_id)
         )
         limit $3",
        own.to_string(),
        overdue,
        at_most,
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("look for orphaned holds"))?
    .into_iter()
    .map(|row| {
        Ok(Orphan {
            generation: decode("holds.generation_id", &row.generation_id)?,
            account: decode("holds.account_id", &row.account_id)?,
            mode: decode("holds.mode", &row.mode)?,
        })
    })
    .collect()
}

/// Expires those of the holds that are still open and still orphaned or overdue, gives the money back to the locked
/// balances and to what may be spent, and marks the generations abandoned. Returns how many.
pub(in crate::ledger) async fn expire(
    connection: &mut PgConnection,
    orphans: &[Orphan],
    overdue: Option<Instant>,
    now: Instant,
) -> Result<u64, LedgerError> {
    let generations: Vec<String> = orphans.iter().map(|o| o.generation.to_string()).collect();
    let expired = sqlx::query!(
        "with expired as (
             update holds h set status = 'expired', ended_at = $2
             where h.generation_id = any($1) and h.status = 'open'
                 and (h.created_at < $4 or not exists (select from replicas r where r.id = h.replica_id))
             returning h.generation_id, h.account_id, h.mode, h.key_id, h.amount_nano_usd, h.created_at
         ), unspent as (
             update spending s
             set day_nano_usd = greatest(s.day_nano_usd - back.of_day, 0),
                 month_nano_usd = greatest(s.month_nano_usd - back.of_month, 0)
             from (
                 select kept.subject,
                     sum(case when (expired.created_at at time zone 'UTC')::date = kept.day
                         then expired.amount_nano_usd else 0 end)::bigint as of_day,
                     sum(case when date_trunc('month', expired.created_at at time zone 'UTC')::date = kept.month
                         then expired.amount_nano_usd else 0 end)::bigint as of_month
                 from expired
                     cross join lateral (values (expired.key_id), (expired.account_id || ' ' || expired.mode))
                         as who (subject)
                     join spending kept on kept.subject = who.subject
                 group by kept.subject
             ) as back
             where s.subject = back.subject
         ), returned as (
             update balances b set held_nano_usd = b.held_nano_usd - back.amount
             from (
                 select account_id, mode, sum(amount_nano_usd)::bigint as amount from expired group by account_id, mode
             ) as back
             where b.account_id = back.account_id and b.mode = back.mode
         )
         update generations g set status = 'abandoned', finished_at = $2, error_code = 'abandoned', error_message = $3
         from expired where g.id = expired.generation_id",
        &generations,
        now,
        ABANDONED_MESSAGE,
        overdue,
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("expire orphaned holds"))?;
    Ok(expired.rows_affected())
}

pub(super) fn interval(age: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(age.as_micros()).unwrap_or(i64::MAX),
    }
}
