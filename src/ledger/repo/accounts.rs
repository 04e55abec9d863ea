//! Accounts, balances, and entries booked by hand.

use sqlx::{PgConnection, PgPool};

use super::{clean, decode};
use crate::{
    ids::AccountId,
    keys::Mode,
    ledger::{
        account::{Account, AccountSummary, AccountUpdate, Balance, Entry, EntryKind},
        error::LedgerError,
        hold::Books,
    },
    money::NanoUsd,
    postgres::{basis_points_from_sql, basis_points_to_sql},
};

pub(in crate::ledger) async fn insert(
    connection: &mut PgConnection,
    account: &Account,
) -> Result<(), LedgerError> {
    sqlx::query!(
        "with account as (insert into accounts (id, name, created_at, markup_basis_points) values ($1, $2, $3, $4))
         insert into balances (account_id, mode) values ($1, 'live'), ($1, 'test')",
        account.id.to_string(),
        clean(&account.name),
        account.created_at,
        account.markup_basis_points.map(basis_points_to_sql),
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("create an account"))?;
    Ok(())
}

/// Changes what the update names, in one statement; `None` when there is no such account.
pub(in crate::ledger) async fn update(
    connection: &mut PgConnection,
    id: AccountId,
    update: &AccountUpdate,
) -> Result<Option<Account>, LedgerError> {
    let row = sqlx::query!(
        "update accounts
         set name = coalesce($2, name), markup_basis_points = case when $3 then $4 else markup_basis_points end
         where id = $1
         returning name, markup_basis_points, created_at",
        id.to_string(),
        update.name.as_deref().map(clean),
        update.markup_basis_points.is_some(),
        update.markup_basis_points.flatten().map(basis_points_to_sql),
    )
    .fetch_optional(connection)
    .await
    .map_err(LedgerError::during("update an account"))?;
    Ok(row.map(|row| Account {
        id,
        name: row.name,
        markup_basis_points: row.markup_basis_points.map(basis_points_from_sql),
        created_at: row.created_at,
    }))
}

/// The accounts with this id or exact name.
pub(in crate::ledger) async fn find(
    pool: &PgPool,
    id_or_name: &str,
) -> Result<Vec<Account>, LedgerError> {
    sqlx::query!(
        "select id, name, markup_basis_points, created_at from accounts where id = $1 or name = $1 order by id",
        clean(id_or_name),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("find an account"))?
    .into_iter()
    .map(|row| {
        Ok(Account {
            id: decode("accounts.id", &row.id)?,
            name: row.name,
            markup_basis_points: row.markup_basis_points.map(basis_points_from_sql),
            created_at: row.created_at,
        })
    })
    .collect()
}

pub(in crate::ledger) async fn list(pool: &PgPool) -> Result<Vec<AccountSummary>, LedgerError> {
    sqlx::query!(
        "select a.id, a.name, a.markup_basis_points, a.created_at,
             live.balance_nano_usd as live_balance, live.held_nano_usd as live_held,
             test.balance_nano_usd as test_balance, test.held_nano_usd as test_held
         from accounts a
         join balances live on live.account_id = a.id and live.mode = 'live'
         join balances test on test.account_id = a.id and test.mode = 'test'
         order by a.id",
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("list the accounts"))?
    .into_iter()
    .map(|row| {
        Ok(AccountSummary {
            account: Account {
                id: decode("accounts.id", &row.id)?,
                name: row.name,
                markup_basis_points: row.markup_basis_points.map(basis_points_from_sql),
                created_at: row.created_at,
            },
            live: balance(row.live_balance, row.live_held),
            test: balance(row.test_balance, row.test_held),
        })
    })
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
