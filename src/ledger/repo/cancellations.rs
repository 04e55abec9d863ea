//! Wishes to have generations stopped.

use sqlx::PgPool;

use super::decode;
use crate::{
    ids::{GenerationId, ReplicaId},
    ledger::{Instant, error::LedgerError},
};

pub(in crate::ledger) async fn ask(
    pool: &PgPool,
    generation: GenerationId,
    now: Instant,
) -> Result<(), LedgerError> {
    sqlx::query!(
        "insert into cancellations (generation_id, asked_at)
         select h.generation_id, $2 from holds h where h.generation_id = $1 and h.status = 'open'
         on conflict do nothing",
        generation.to_string(),
        now,
    )
    .execute(pool)
    .await
    .map_err(LedgerError::during("ask for a cancellation"))?;
    Ok(())
}

/// Rows are few: those of ended generations go with the next sweep.
pub(in crate::ledger) async fn asked(
    pool: &PgPool,
    replica: ReplicaId,
) -> Result<Vec<GenerationId>, LedgerError> {
    sqlx::query_scalar!(
        "select c.generation_id from cancellations c join holds h on h.generation_id = c.generation_id
         where h.status = 'open' and h.replica_id = $1",
        replica.to_string(),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("look for cancellations"))?
    .iter()
    .map(|id| decode("cancellations.generation_id", id))
    .collect()
}

/// Forgets the wishes about generations that have ended.
pub(in crate::ledger) async fn forget(pool: &PgPool) -> Result<(), LedgerError> {
    sqlx::query!(
        "delete from cancellations c using holds h where h.generation_id = c.generation_id and h.status <> 'open'",
    )
    .execute(pool)
    .await
    .map_err(LedgerError::during("forget cancellations"))?;
    Ok(())
}
