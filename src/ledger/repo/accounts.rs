//! Accounts, balances, and entries booked by hand.

use sqlx::{PgConnection, PgPool};

use super::{clean, decode};
use crate::{
    ids::AccountId,
    keys::{Limits, Mode},
    ledger::{
        Instant,
        account::{Account, AccountSummary, Balance, Entry, EntryKind},
        error::LedgerError,
        hold::Books,
    },
    money::NanoUsd,
    postgres::{basis_points_from_sql, basis_points_to_sql, limit_from_sql, limit_to_sql},
};

/// A row of `accounts` with its two balances.
pub(super) struct AccountRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) markup_basis_points: Option<i32>,
    pub(super) requests_per_minute: Option<i32>,
    pub(super) images_per_minute: Option<i32>,
    pub(super) max_in_flight: Option<i32>,
    pub(super) spend_per_day_nano_usd: Option<i64>,
    pub(super) spend_per_month_nano_usd: Option<i64>,
    pub(super) created_at: Instant,
    pub(super) live_balance: i64,
    pub(super) live_held: i64,
    pub(super) test_balance: i64,
    pub(super) test_held: i64,
}

/// `AccountRow`s: of `a`, which is `accounts`, with its balances. Takes what stands behind the `from`.
macro_rules! select_accounts {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            AccountRow,
            "select a.id, a.name, a.markup_basis_points, a.requests_per_minute, a.images_per_minute, a.max_in_flight,
                 a.spend_per_day_nano_usd, a.spend_per_month_nano_usd, a.created_at,
                 live.balance_nano_usd as live_balance, live.held_nano_usd as live_held,
                 test.balance_nano_usd as test_balance, test.held_nano_usd as test_held
             from accounts a
             join balances live on live.account_id = a.id and live.mode = 'live'
             join balances test on test.account_id = a.id and test.mode = 'test' " + $rest
            $(, $argument)*
        )
    };
}
pub(super) use select_accounts;

impl TryFrom<AccountRow> for AccountSummary {
    type Error = LedgerError;

    fn try_from(row: AccountRow) -> Result<Self, LedgerError> {
        Ok(Self {
            account: Account {
                id: decode("accounts.id", &row.id)?,
                name: row.name,
                markup_basis_points: row.markup_basis_points.map(basis_points_from_sql),
                limits: Limits {
                    requests_per_minute: row.requests_per_minute.map(limit_from_sql),
                    images_per_minute: row.images_per_minute.map(limit_from_sql),
                    max_in_flight: row.max_in_flight.map(limit_from_sql),
                    spend_per_day: row.spend_per_day_nano_usd.map(NanoUsd::from_nano),
                    spend_per_month: row.spend_per_month_nano_usd.map(NanoUsd::from_nano),
                },
                created_at: row.created_at,
            },
            live: balance(row.live_balance, row.live_held),
            test: balance(row.test_balance, row.test_held),
        })
    }
}

pub(in crate::ledger) async fn insert(
    connection: &mut PgConnection,
    account: &Account,
) -> Result<(), LedgerError> {
    sqlx::query!(
        "with account as (
             insert into accounts (id, name, created_at, markup_basis_points, requests_per_minute, images_per_minute,
                 max_in_flight, spend_per_day_nano_usd, spend_per_month_nano_usd)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         )
         insert into balances (account_id, mode) values ($1, 'live'), ($1, 'test')",
        account.id.to_string(),
        clean(&account.name),
        account.created_at,
        account.markup_basis_points.map(basis_points_to_sql),
        limit_to_sql(account.limits.requests_per_minute),
        limit_to_sql(account.limits.images_per_minute),
        limit_to_sql(account.limits.max_in_flight),
        account.limits.spend_per_day.map(NanoUsd::nano),
        account.limits.spend_per_month.map(NanoUsd::nano),
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("create an account"))?;
    Ok(())
}

/// Reads an account and keeps others from changing it until the transaction ends.
pub(in crate::ledger) async fn lock(
    connection: &mut PgConnection,
    id: AccountId,
) -> Result<Option<Account>, LedgerError> {
    select_accounts!("where a.id = $1 for no key update of a", id.to_string())
        .fetch_optional(connection)
        .await
        .map_err(LedgerError::during("update an account"))?
        .map(|row| Ok(AccountSummary::try_from(row)?.account))
        .transpose()
}

/// Writes what may be different about an account.
pub(in crate::ledger) async fn update(
    connection: &mut PgConnection,
    account: &Account,
) -> Result<(), LedgerError> {
    sqlx::query!(
        "update accounts set name = $2, markup_basis_points = $3, requests_per_minute = $4, images_per_minute = $5,
             max_in_flight = $6, spend_per_day_nano_usd = $7, spend_per_month_nano_usd = $8
         where id = $1",
        account.id.to_string(),
        clean(&account.name),
        account.markup_basis_points.map(basis_points_to_sql),
        limit_to_sql(account.limits.requests_per_minute),
        limit_to_sql(account.limits.images_per_minute),
        limit_to_sql(account.limits.max_in_flight),
        account.limits.spend_per_day.map(NanoUsd::nano),
        account.limits.spend_per_month.map(NanoUsd::nano),
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("update an account"))?;
    Ok(())
}

/// The accounts with this id or exact name.
pub(in crate::ledger) async fn find(
    pool: &PgPool,
    id_or_name: &str,
) -> Result<Vec<Account>, LedgerError> {
    select_accounts!(
        "where a.id = $1 or a.name = $1 order by a.id",
        clean(id_or_name)
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("find an account"))?
    .into_iter()
    .map(|row| Ok(AccountSummary::try_from(row)?.account))
    .collect()
}

pub(in crate::ledger) async fn list(pool: &PgPool) -> Result<Vec<AccountSummary>, LedgerError> {
    select_accounts!("order by a.id")
        .fetch_all(pool)
        .await
        .map_err(LedgerError::during("list the accounts"))?
        .into_iter()
        .map(AccountSummary::try_from)
        .collect()
}

pub(in crate::ledger) async fn read_balance(
    pool: &PgPool,
    account: AccountId,
    mode: Mode,
) -> Result<Option<Balance>, LedgerError> {
    let row = sqlx::query!(
        "select balance_nano_usd, held_nano_usd from balances where account_id = $1 and mode = $2",
        account.to_string(),
        mode.as_str(),
    )
    .fetch_optional(pool)
    .await
    .map_err(LedgerError::during("read a balance"))?;
    Ok(row.map(|row| balance(row.balance_nano_usd, row.held_nano_usd)))
}

/// Locks balances and reads them. The rows come in the canonical order, which is also the order in which
/// `PostgreSQL` locks them, and each is read as it is *after* its lock was waited for (READ COMMITTED
/// returns the locked version of the row), so for these columns lock and read are one statement.
/// Accounts that do not exist are absent.
pub(in crate::ledger) async fn lock_balances(
    connection: &mut PgConnection,
    wanted: impl IntoIterator<Item = (AccountId, Mode)>,
) -> Result<Books, LedgerError> {
    let mut wanted: Vec<_> = wanted.into_iter().collect();
    wanted.sort_unstable();
    wanted.dedup();
    // One balance has a statement of its own: `PostgreSQL` keeps its plan, where it plans anew for every array.
    if let [(account, mode)] = wanted[..] {
        return lock_balance(connection, account, mode).await;
    }
    let accounts: Vec<String> = wanted
        .iter()
        .map(|(account, _)| account.to_string())
        .collect();
    let modes: Vec<&str> = wanted.iter().map(|(_, mode)| mode.as_str()).collect();
    sqlx::query!(
        r#"select account_id, mode, balance_nano_usd, held_nano_usd
           from balances
           where (account_id, mode) in (select * from unnest($1::text[], $2::text[]))
           order by account_id, mode
           for no key update"#,
        &accounts,
        &modes as &[&str],
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("lock balances"))?
    .into_iter()
    .map(|row| {
        let key = (
            decode("balances.account_id", &row.account_id)?,
            decode("balances.mode", &row.mode)?,
        );
        Ok((key, balance(row.balance_nano_usd, row.held_nano_usd)))
    })
    .collect()
}

async fn lock_balance(
    connection: &mut PgConnection,
    account: AccountId,
    mode: Mode,
) -> Result<Books, LedgerError> {
    let row = sqlx::query!(
        "select balance_nano_usd, held_nano_usd from balances where account_id = $1 and mode = $2
         for no key update",
        account.to_string(),
        mode.as_str(),
    )
    .fetch_optional(connection)
    .await
    .map_err(LedgerError::during("lock a balance"))?;
    let balance = row.map(|row| balance(row.balance_nano_usd, row.held_nano_usd));
    Ok(balance
        .into_iter()
        .map(|balance| ((account, mode), balance))
        .collect())
}

/// The entry booked under this reference.
pub(in crate::ledger) async fn find_reference(
    connection: &mut PgConnection,
    reference: &str,
) -> Result<Option<Entry>, LedgerError> {
    sqlx::query!(
        "select id, account_id, mode, sequence, lines, kind, amount_nano_usd, balance_after_nano_usd, note, created_at
         from ledger_entries where reference = $1",
        clean(reference),
    )
    .fetch_optional(connection)
    .await
    .map_err(LedgerError::during("look for a reference"))?
    .map(|row| {
        Ok(Entry {
            id: decode("ledger_entries.id", &row.id)?,
            account: decode("ledger_entries.account_id", &row.account_id)?,
            mode: decode("ledger_entries.mode", &row.mode)?,
            sequence: row.sequence,
            lines: row.lines,
            kind: decode("ledger_entries.kind", &row.kind)?,
            amount: NanoUsd::from_nano(row.amount_nano_usd),
            balance_after: NanoUsd::from_nano(row.balance_after_nano_usd),
            generation: None,
            reference: Some(reference.to_owned()),
            note: row.note,
            created_at: row.created_at,
        })
    })
    .transpose()
}

/// Appends a credit or debit and moves the balance, whose row is locked. Returns the entry's sequence
/// number.
pub(in crate::ledger) async fn book(
    connection: &mut PgConnection,
    entry: &Entry,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "with moved as (
             update balances set balance_nano_usd = balance_nano_usd + $5, entries = entries + 1
             where account_id = $1 and mode = $2
             returning account_id, mode, entries
         )
         insert into ledger_entries (account_id, mode, sequence, id, kind, amount_nano_usd, balance_after_nano_usd,
             reference, note, created_at)
         select account_id, mode, entries, $3, $4, $5, $6, $7, $8, $9 from moved
         returning sequence",
        entry.account.to_string(),
        entry.mode.as_str(),
        entry.id.to_string(),
        entry.kind.as_str(),
        entry.amount.nano(),
        entry.balance_after.nano(),
        entry.reference.as_deref().map(clean),
        entry.note.as_deref().map(clean),
        entry.created_at,
    )
    .fetch_one(connection)
    .await
}

/// Whether a statement failed because its reference is taken.
pub(in crate::ledger) fn is_reference_taken(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.constraint())
        == Some("ledger_entries_one_reference")
}

/// An account's latest entries in one mode, newest first.
pub(in crate::ledger) async fn entries(
    pool: &PgPool,
    account: AccountId,
    mode: Mode,
    limit: i64,
) -> Result<Vec<Entry>, LedgerError> {
    sqlx::query!(
        "select id, account_id, mode, sequence, lines, kind, amount_nano_usd, balance_after_nano_usd, generation_id,
             reference, note, created_at
         from ledger_entries where account_id = $1 and mode = $2 order by sequence desc limit $3",
        account.to_string(),
        mode.as_str(),
        limit,
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("list the entries"))?
    .into_iter()
    .map(|row| {
        Ok(Entry {
            id: decode("ledger_entries.id", &row.id)?,
            account,
            mode,
            sequence: row.sequence,
            lines: row.lines,
            kind: decode("ledger_entries.kind", &row.kind)?,
            amount: NanoUsd::from_nano(row.amount_nano_usd),
            balance_after: NanoUsd::from_nano(row.balance_after_nano_usd),
            generation: row
                .generation_id
                .map(|id: String| decode("ledger_entries.generation_id", &id))
                .transpose()?,
            reference: row.reference,
            note: row.note,
            created_at: row.created_at,
        })
    })
    .collect()
}

fn balance(balance: i64, held: i64) -> Balance {
    Balance {
        balance: NanoUsd::from_nano(balance),
        held: NanoUsd::from_nano(held),
    }
}

impl std::str::FromStr for EntryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "credit" => Ok(Self::Credit),
            "debit" => Ok(Self::Debit),
            "charge" => Ok(Self::Charge),
            "charges" => Ok(Self::Charges),
            _ => Err(format!("'{text}' is no kind of entry")),
        }
    }
}
