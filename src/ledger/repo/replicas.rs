//! Who is alive, and the holds of those who are not.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, postgres::types::PgInterval};

use super::decode;
use crate::{
    ids::{AccountId, GenerationId, ReplicaId},
    keys::Mode,
    ledger::{Instant, error::LedgerError},
};

/// What the caller of an abandoned generation finds when it asks for it.
const ABANDONED_MESSAGE: &str =
    "the gateway that worked on it stopped before it was finished; nothing was charged";

/// An open hold whose replica is gone.
#[derive(Debug)]
pub(in crate::ledger) struct Orphan {
    pub(in crate::ledger) generation: GenerationId,
    pub(in crate::ledger) account: AccountId,
    pub(in crate::ledger) mode: Mode,
}

pub(in crate::ledger) async fn beat(pool: &PgPool, replica: ReplicaId) -> Result<(), LedgerError> {
    sqlx::query!(
        "insert into replicas (id) values ($1)
         on conflict (id) do update set last_beat_at = clock_timestamp()",
        replica.to_string(),
    )
    .execute(pool)
    .await
    .map_err(LedgerError::during("renew the heartbeat"))?;
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

/// Declares dead whoever has not beaten for `age`, but never `own`: it is alive, it asks.
pub(in crate::ledger) async fn forget_silent(
    pool: &PgPool,
    own: ReplicaId,
    age: Duration,
) -> Result<(), LedgerError> {
    // Rows that somebody else is renewing or removing this moment are left alone.
    sqlx::query!(
        "delete from replicas where id in (
             select id from replicas where last_beat_at < clock_timestamp() - $2::interval and id <> $1
             for update skip locked
         )",
        own.to_string(),
        interval(age),
    )
    .execute(pool)
    .await
    .map_err(LedgerError::during("end silent replicas"))?;
    Ok(())
}

/// Some of the open holds whose replica is gone. Nothing is locked: [`expire`] asks again.
pub(in crate::ledger) async fn orphans(
    connection: &mut PgConnection,
    own: ReplicaId,
    at_most: i64,
) -> Result<Vec<Orphan>, LedgerError> {
    sqlx::query!(
        "select h.generation_id, h.account_id, h.mode from holds h
         where h.status = 'open' and h.replica_id <> $1
             and not exists (select from replicas r where r.id = h.replica_id)
         limit $2",
        own.to_string(),
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

/// Expires those of the holds that are still open and still orphaned, gives the money back to the locked
/// balances, and marks the generations abandoned. Returns how many.
pub(in crate::ledger) async fn expire(
    connection: &mut PgConnection,
    orphans: &[Orphan],
    now: Instant,
) -> Result<u64, LedgerError> {
    let generations: Vec<String> = orphans.iter().map(|o| o.generation.to_string()).collect();
    let expired = sqlx::query!(
        "with expired as (
             update holds h set status = 'expired', ended_at = $2
             where h.generation_id = any($1) and h.status = 'open'
                 and not exists (select from replicas r where r.id = h.replica_id)
             returning h.generation_id, h.account_id, h.mode, h.amount_nano_usd
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
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("expire orphaned holds"))?;
    Ok(expired.rows_affected())
}

fn interval(age: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(age.as_micros()).unwrap_or(i64::MAX),
    }
}
