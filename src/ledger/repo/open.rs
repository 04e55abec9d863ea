//! Listing and counting open holds.

use std::time::Duration;

use sqlx::PgPool;

use super::decode;
use crate::{
    ids::AccountId,
    ledger::{error::LedgerError, open::OpenHold},
    money::NanoUsd,
};

pub(in crate::ledger) async fn list(
    pool: &PgPool,
    account: AccountId,
    limit: u32,
) -> Result<Vec<OpenHold>, LedgerError> {
    sqlx::query!(
        r#"select h.id, h.generation_id, h.key_id, h.mode, h.amount_nano_usd, h.created_at, g.model,
               exists (
                   select 1 from replicas r
                   where r.id = h.replica_id and r.last_beat_at > clock_timestamp() - interval '20 s'
               ) as "owner_lives!"
           from holds h join generations g on g.id = h.generation_id
           where h.status = 'open' and h.account_id = $1
           order by h.generation_id limit $2"#,
        account.to_string(),
        i64::from(limit),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("list open holds"))?
    .into_iter()
    .map(|row| {
        Ok(OpenHold {
            id: decode("holds.id", &row.id)?,
            generation: decode("holds.generation_id", &row.generation_id)?,
            key: decode("holds.key_id", &row.key_id)?,
            mode: decode("holds.mode", &row.mode)?,
            model: row.model,
            amount: NanoUsd::from_nano(row.amount_nano_usd),
            created_at: row.created_at,
            owner_lives: row.owner_lives,
        })
    })
    .collect()
}

/// How many there are, and how old the oldest is, by the database's clock.
pub(in crate::ledger) async fn count(pool: &PgPool) -> Result<(u64, Duration), LedgerError> {
    let row = sqlx::query!(
        r#"select count(*) as "holds!",
               coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8 as "seconds!"
           from holds where status = 'open'"#
    )
    .fetch_one(pool)
    .await
    .map_err(LedgerError::during("count open holds"))?;
    Ok((
        u64::try_from(row.holds).unwrap_or(0),
        Duration::try_from_secs_f64(row.seconds).unwrap_or_default(),
    ))
}
