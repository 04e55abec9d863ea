//! Accounts and entries page by page, and the books of one generation.

use sqlx::PgPool;

use super::{
    accounts::{AccountRow, select_accounts},
    clean, decode,
};
use crate::{
    ids::{AccountId, GenerationId},
    keys::Mode,
    ledger::{
        Instant,
        account::{AccountSummary, Entry},
        error::LedgerError,
        pages::HoldRecord,
    },
    money::NanoUsd,
};

/// After every id: `~` sorts behind the hex digits.
const NEWEST: &str = "acc_~";

/// A row of `ledger_entries`.
struct EntryRow {
    id: String,
    account_id: String,
    mode: String,
    sequence: i64,
    lines: i64,
    kind: String,
    amount_nano_usd: i64,
    balance_after_nano_usd: i64,
    generation_id: Option<String>,
    reference: Option<String>,
    note: Option<String>,
    created_at: Instant,
}

pub(in crate::ledger) async fn account(
    pool: &PgPool,
    id: AccountId,
) -> Result<Option<AccountSummary>, LedgerError> {
    select_accounts!("where a.id = $1", id.to_string())
        .fetch_optional(pool)
        .await
        .map_err(LedgerError::during("read an account"))?
        .map(AccountSummary::try_from)
        .transpose()
}

pub(in crate::ledger) async fn accounts(
    pool: &PgPool,
    name: Option<&str>,
    after: Option<AccountId>,
    limit: u32,
) -> Result<Vec<AccountSummary>, LedgerError> {
    select_accounts!(
        "where a.id < $1 and ($2::text is null or a.name = $2) order by a.id desc limit $3",
        after.map_or_else(|| NEWEST.to_owned(), |after| after.to_string()),
        name.map(clean),
        i64::from(limit),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("list the accounts"))?
    .into_iter()
    .map(AccountSummary::try_from)
    .collect()
}

pub(in crate::ledger) async fn entries(
    pool: &PgPool,
    account: AccountId,
    mode: Mode,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<Entry>, LedgerError> {
    sqlx::query_as!(
        EntryRow,
        "select id, account_id, mode, sequence, lines, kind, amount_nano_usd, balance_after_nano_usd, generation_id,
             reference, note, created_at
         from ledger_entries where account_id = $1 and mode = $2 and sequence < $3 order by sequence desc limit $4",
        account.to_string(),
        mode.as_str(),
        after.unwrap_or(i64::MAX),
        i64::from(limit),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("list the entries"))?
    .into_iter()
    .map(Entry::try_from)
    .collect()
}

pub(in crate::ledger) async fn entries_of(
    pool: &PgPool,
    generation: GenerationId,
) -> Result<Vec<Entry>, LedgerError> {
    sqlx::query_as!(
        EntryRow,
        "select id, account_id, mode, sequence, lines, kind, amount_nano_usd, balance_after_nano_usd, generation_id,
             reference, note, created_at
         from ledger_entries where generation_id = $1 order by sequence",
        generation.to_string(),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("read a generation's entries"))?
    .into_iter()
    .map(Entry::try_from)
    .collect()
}

pub(in crate::ledger) async fn hold_of(
    pool: &PgPool,
    generation: GenerationId,
) -> Result<Option<HoldRecord>, LedgerError> {
    sqlx::query!(
        "select id, amount_nano_usd, status, captured_nano_usd, created_at, ended_at
         from holds where generation_id = $1",
        generation.to_string(),
    )
    .fetch_optional(pool)
    .await
    .map_err(LedgerError::during("read a generation's hold"))?
    .map(|row| {
        Ok(HoldRecord {
            id: decode("holds.id", &row.id)?,
            amount: NanoUsd::from_nano(row.amount_nano_usd),
            status: row.status,
            captured: NanoUsd::from_nano(row.captured_nano_usd),
            created_at: row.created_at,
            ended_at: row.ended_at,
        })
    })
    .transpose()
}

impl TryFrom<EntryRow> for Entry {
    type Error = LedgerError;

    fn try_from(row: EntryRow) -> Result<Self, LedgerError> {
        Ok(Self {
            id: decode("ledger_entries.id", &row.id)?,
            account: decode("ledger_entries.account_id", &row.account_id)?,
            mode: decode("ledger_entries.mode", &row.mode)?,
            sequence: row.sequence,
            lines: row.lines,
            kind: decode("ledger_entries.kind", &row.kind)?,
            amount: NanoUsd::from_nano(row.amount_nano_usd),
            balance_after: NanoUsd::from_nano(row.balance_after_nano_usd),
            generation: row
                .generation_id
                .map(|id| decode("ledger_entries.generation_id", &id))
                .transpose()?,
            reference: row.reference,
            note: row.note,
            created_at: row.created_at,
        })
    }
}
