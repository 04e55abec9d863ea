//! Deleting what is old. Deletes only what has ended, so holds are never waited for; entries go under the lock of
//! their balance.

use sqlx::{PgConnection, PgPool};

use super::decode;
use crate::{
    ids::{AccountId, GenerationId},
    keys::Mode,
    ledger::{
        Instant,
        error::LedgerError,
        prune::{Fold, Line},
    },
    money::NanoUsd,
};

/// All balances that have entries.
pub(in crate::ledger) async fn balances(
    pool: &PgPool,
) -> Result<Vec<(AccountId, Mode)>, LedgerError> {
    sqlx::query!(
        "select account_id, mode from balances where entries > 0 order by account_id, mode"
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("list balances"))?
    .into_iter()
    .map(|row| {
        Ok((
            decode("balances.account_id", &row.account_id)?,
            decode("balances.mode", &row.mode)?,
        ))
    })
    .collect()
}

/// The lines behind this number, up to the first that was not booked before `before`.
pub(in crate::ledger) async fn lines(
    connection: &mut PgConnection,
    account: AccountId,
    mode: Mode,
    after: i64,
    before: Instant,
    limit: i64,
) -> Result<Vec<Line>, LedgerError> {
    sqlx::query!(
        "select sequence, kind, amount_nano_usd, balance_after_nano_usd, lines, generation_id, created_at
         from ledger_entries where account_id = $1 and mode = $2 and sequence > $3 order by sequence limit $4",
        account.to_string(),
        mode.as_str(),
        after,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("read old entries"))?
    .into_iter()
    .take_while(|row| row.created_at < before)
    .map(|row| {
        Ok(Line {
            sequence: row.sequence,
            kind: decode("ledger_entries.kind", &row.kind)?,
            amount: NanoUsd::from_nano(row.amount_nano_usd),
            balance_after: NanoUsd::from_nano(row.balance_after_nano_usd),
            lines: row.lines,
            generation: row
                .generation_id
                .map(|id| decode("ledger_entries.generation_id", &id))
                .transpose()?,
            created_at: row.created_at,
        })
    })
    .collect()
}

/// Puts the folded lines in the place of those for which they stand, whose generations go.
pub(in crate::ledger) async fn write(
    connection: &mut PgConnection,
    account: AccountId,
    mode: Mode,
    folds: &[Fold],
) -> Result<(), LedgerError> {
    let failed = LedgerError::during("fold charges");
    if folds.is_empty() {
        return Ok(());
    }
    sqlx::query!("set local easel.pruning = 'on'")
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    let replaced: Vec<i64> = folds
        .iter()
        .flat_map(|fold| fold.replaced.iter().copied())
        .collect();
    sqlx::query!(
        "delete from ledger_entries where account_id = $1 and mode = $2 and sequence = any($3)",
        account.to_string(),
        mode.as_str(),
        &replaced,
    )
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    let numbers =
        |of: fn(&Line) -> i64| -> Vec<i64> { folds.iter().map(|fold| of(&fold.line)).collect() };
    let ids: Vec<String> = folds.iter().map(|fold| fold.id.to_string()).collect();
    let times: Vec<Instant> = folds.iter().map(|fold| fold.line.created_at).collect();
    sqlx::query!(
        "insert into ledger_entries (account_id, mode, sequence, id, kind, amount_nano_usd, balance_after_nano_usd,
             lines, created_at)
         select $1, $2, sequence, id, 'charges', amount, balance_after, lines, created_at
         from unnest($3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[])
             as new (sequence, id, amount, balance_after, lines, created_at)",
        account.to_string(),
        mode.as_str(),
        &numbers(|line| line.sequence),
        &ids,
        &numbers(|line| line.amount.nano()),
        &numbers(|line| line.balance_after.nano()),
        &numbers(|line| line.lines),
        &times,
    )
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    let generations: Vec<String> = folds
        .iter()
        .flat_map(|fold| fold.generations.iter().map(GenerationId::to_string))
        .collect();
    delete(connection, &generations).await.map(drop)
}

/// Of the next generations behind this id, deletes those that ended without a charge before `before`. Returns how
/// many, and where to go on: nowhere once all of them are younger than `slack`.
pub(in crate::ledger) async fn delete_uncharged(
    connection: &mut PgConnection,
    after: &str,
    before: Instant,
    slack: Instant,
    limit: i64,
) -> Result<(u64, Option<String>), LedgerError> {
    let rows = sqlx::query!(
        r#"select id, created_at < $3 as "may_be_old!",
               coalesce(created_at < $2 and finished_at < $2, false) and not exists (
                   select from ledger_entries e where e.generation_id = generations.id
               ) as "goes!"
           from generations where id > $1 order by id limit $4"#,
        after,
        before,
        slack,
        limit,
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(LedgerError::during("read old generations"))?;
    let ids: Vec<String> = rows
        .iter()
        .filter(|row| row.goes)
        .map(|row| row.id.clone())
        .collect();
    let deleted = delete(connection, &ids).await?;
    let next = rows
        .last()
        .filter(|_| rows.iter().any(|row| row.may_be_old));
    Ok((deleted, next.map(|row| row.id.clone())))
}

/// Deletes generations that have ended and have no entry, with all that hangs on them. Returns how many there were:
/// another may have deleted them meanwhile.
async fn delete(connection: &mut PgConnection, ids: &[String]) -> Result<u64, LedgerError> {
    let failed = LedgerError::during("prune generations");
    if ids.is_empty() {
        return Ok(0);
    }
    sqlx::query!("delete from images where generation_id = any($1)", ids)
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    sqlx::query!("delete from attempts where generation_id = any($1)", ids)
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    sqlx::query!(
        "delete from generation_repeats where generation_id = any($1)",
        ids
    )
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    // An open one would be a bug that the foreign key shows.
    sqlx::query!(
        "delete from holds where generation_id = any($1) and status <> 'open'",
        ids
    )
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    let deleted = sqlx::query!("delete from generations where id = any($1)", ids)
        .execute(connection)
        .await
        .map_err(&failed)?;
    Ok(deleted.rows_affected())
}
