//! Accounts, their balances, and the lines of the ledger.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Instant, Ledger, error::LedgerError, repo::accounts};
use crate::{
    ids::{AccountId, EntryId, GenerationId},
    keys::{Limits, LimitsUpdate, Mode},
    money::{MoneyError, NanoUsd},
    postgres::run_tx,
};

/// Who pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its name in tables and logs.
    pub id: AccountId,
    /// Its name for people; several accounts may share one.
    pub name: String,
    /// What it pays on top of published prices, in basis points, whatever routes and providers say;
    /// `None` is what they say.
    pub markup_basis_points: Option<u32>,
    /// What all of its keys may do together, live and test keys each on their own.
    pub limits: Limits,
    /// When it was opened.
    pub created_at: Instant,
}

impl Account {
    fn apply(&mut self, update: &AccountUpdate) {
        if let Some(name) = &update.name {
            self.name.clone_from(name);
        }
        if let Some(markup) = update.markup_basis_points {
            self.markup_basis_points = markup;
        }
        self.limits = self.limits.changed(&update.limits);
    }
}

/// The largest markup an account can have, in basis points: 10,000 %. The table refuses more.
pub const MAX_ACCOUNT_MARKUP_BASIS_POINTS: u32 = 1_000_000;

/// What a new account shall be.
#[derive(Debug, Clone, Default)]
pub struct NewAccount {
    /// Its name for people; must not be empty.
    pub name: String,
    /// As [`Account::markup_basis_points`], at most [`MAX_ACCOUNT_MARKUP_BASIS_POINTS`].
    pub markup_basis_points: Option<u32>,
    /// As [`Account::limits`].
    pub limits: Limits,
}

/// What shall be different about an account; `None` leaves it, an inner `None` takes the markup away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountUpdate {
    /// Its name for people; must not be empty.
    pub name: Option<String>,
    /// As [`Account::markup_basis_points`], at most [`MAX_ACCOUNT_MARKUP_BASIS_POINTS`].
    pub markup_basis_points: Option<Option<u32>>,
    /// As [`Account::limits`].
    pub limits: LimitsUpdate,
}

/// An account with what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountSummary {
    /// Who.
    #[serde(flatten)]
    pub account: Account,
    /// Real money.
    pub live: Balance,
    /// Play money.
    pub test: Balance,
}

/// What an account has in one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Balance {
    /// Sum of the entries.
    pub balance: NanoUsd,
    /// Sum of the open holds.
    pub held: NanoUsd,
}

impl Balance {
    /// What can still be held or debited.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn available(self) -> Result<NanoUsd, MoneyError> {
        self.balance.checked_sub(self.held)
    }

    /// Checks that `amount` is available.
    pub(super) fn cover(self, amount: NanoUsd) -> Result<(), LedgerError> {
        let available = self.available()?;
        if amount > available {
            return Err(LedgerError::InsufficientBalance {
                needed: amount,
                available,
            });
        }
        Ok(())
    }
}

/// What a line of the ledger is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// An operator put money in.
    Credit,
    /// An operator took money out.
    Debit,
    /// A generation was captured.
    Charge,
    /// Several charges, pruned: their sum.
    Charges,
}

impl EntryKind {
    /// `credit`, `debit`, `charge`, `charges`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
            Self::Charge => "charge",
            Self::Charges => "charges",
        }
    }

    /// The amount as it adds to the balance.
    pub(super) fn signed(self, amount: NanoUsd) -> Result<NanoUsd, MoneyError> {
        match self {
            Self::Credit => Ok(amount),
            Self::Debit | Self::Charge | Self::Charges => NanoUsd::ZERO.checked_sub(amount),
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One immutable line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "LedgerEntry")]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// Whose.
    pub account: AccountId,
    /// On which balance.
    pub mode: Mode,
    /// Its place among the lines of this balance, from 1 and without gaps; of a line that stands for several,
    /// that of the last.
    pub sequence: i64,
    /// For how many lines it stands: more than one only for charges that were pruned.
    #[serde(skip_serializing_if = "is_one")]
    pub lines: i64,
    /// What it is.
    pub kind: EntryKind,
    /// Signed: credits add, debits and charges take.
    pub amount: NanoUsd,
    /// The balance once it was booked.
    pub balance_after: NanoUsd,
    /// What was charged, for a charge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationId>,
    /// The operator's unique name for a credit or debit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was booked.
    pub created_at: Instant,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls with")]
const fn is_one(lines: &i64) -> bool {
    *lines == 1
}

/// A credit or debit to be booked.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Whose balance.
    pub account: AccountId,
    /// Real or play money.
    pub mode: Mode,
    /// How much; must be above zero.
    pub amount: NanoUsd,
    /// Why, in the operator's words.
    pub note: Option<String>,
    /// A name for this booking: sent again under the same one, it is booked once.
    pub reference: Option<String>,
}

impl Ledger {
    /// Opens an account that has a name and nothing else of its own.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn create_account(&self, name: &str) -> Result<Account, LedgerError> {
        let new = NewAccount {
            name: name.to_owned(),
            ..NewAccount::default()
        };
        self.open_account(new).await
    }

    /// Opens an account; both balances begin at nothing.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn open_account(&self, new: NewAccount) -> Result<Account, LedgerError> {
        let account = Account {
            id: AccountId::new(),
            name: new.name,
            markup_basis_points: new.markup_basis_points,
            limits: new.limits,
            created_at: self.clock.now(),
        };
        let row = &account;
        run_tx(&self.pool, "create an account", move |mut tx| {
            Box::pin(async move { accounts::insert(&mut tx, row).await })
        })
        .await?;
        Ok(account)
    }

    /// Changes what is said of an account. Takes effect with the next request.
    ///
    /// # Errors
    /// [`LedgerError::NoAccount`].
    pub async fn update_account(
        &self,
        id: AccountId,
        update: &AccountUpdate,
    ) -> Result<Account, LedgerError> {
        run_tx(&self.pool, "update an account", move |mut tx| {
            Box::pin(async move {
                let Some(mut account) = accounts::lock(&mut tx, id).await? else {
                    return Err(LedgerError::NoAccount(id.to_string()));
                };
                account.apply(update);
                accounts::update(&mut tx, &account).await?;
                Ok(account)
            })
        })
        .await
    }

    /// The account of this id or exact name. An id wins over another account that is named like it.
    ///
    /// # Errors
    /// [`LedgerError::NoAccount`], [`LedgerError::AmbiguousAccount`].
    pub async fn find_account(&self, id_or_name: &str) -> Result<Account, LedgerError> {
        let mut found = accounts::find(&self.pool, id_or_name).await?;
        if let Some(place) = found
            .iter()
            .position(|account| account.id.to_string() == id_or_name)
        {
            return Ok(found.swap_remove(place));
        }
        let count = found.len();
        match found.pop() {
            None => Err(LedgerError::NoAccount(id_or_name.to_owned())),
            Some(account) if count == 1 => Ok(account),
            Some(_) => Err(LedgerError::AmbiguousAccount {
                name: id_or_name.to_owned(),
                count,
            }),
        }
    }

    /// All accounts with what they have, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn accounts(&self) -> Result<Vec<AccountSummary>, LedgerError> {
        accounts::list(&self.pool).await
    }

    /// What an account has.
    ///
    /// # Errors
    /// [`LedgerError::NoAccount`].
    pub async fn balance(&self, account: AccountId, mode: Mode) -> Result<Balance, LedgerError> {
        accounts::read_balance(&self.pool, account, mode)
            .await?
            .ok_or_else(|| LedgerError::NoAccount(account.to_string()))
    }

    /// The latest lines of a balance, newest first.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn entries(
        &self,
        account: AccountId,
        mode: Mode,
        limit: u32,
    ) -> Result<Vec<Entry>, LedgerError> {
        accounts::entries(&self.pool, account, mode, i64::from(limit)).await
    }

    /// Puts money on a balance. Sent again with the same reference it books nothing and answers the entry
    /// that was booked then.
    ///
    /// # Errors
    /// [`LedgerError::ReferenceTaken`] when the reference stands for something else,
    /// [`LedgerError::NothingToBook`], [`LedgerError::NoAccount`].
    pub async fn credit(&self, new: &NewEntry) -> Result<Entry, LedgerError> {
        self.book(EntryKind::Credit, new).await
    }

    /// Takes money from a balance, though never what is held. References as for [`Ledger::credit`].
    ///
    /// # Errors
    /// Those of [`Ledger::credit`], and [`LedgerError::InsufficientBalance`].
    pub async fn debit(&self, new: &NewEntry) -> Result<Entry, LedgerError> {
        self.book(EntryKind::Debit, new).await
    }

    async fn book(&self, kind: EntryKind, new: &NewEntry) -> Result<Entry, LedgerError> {
        if new.amount <= NanoUsd::ZERO {
            return Err(LedgerError::NothingToBook);
        }
        match self.try_book(kind, new).await {
            // Somebody booked the reference on another account between our look and our insert: now it
            // is there to be seen.
            Err(LedgerError::Database { source, .. }) if accounts::is_reference_taken(&source) => {
                self.try_book(kind, new).await
            }
            outcome => outcome,
        }
    }

    async fn try_book(&self, kind: EntryKind, new: &NewEntry) -> Result<Entry, LedgerError> {
        let action = match kind {
            EntryKind::Credit => "book a credit",
            EntryKind::Debit => "book a debit",
            EntryKind::Charge | EntryKind::Charges => "book a charge",
        };
        let amount = kind.signed(new.amount)?;
        run_tx(&self.pool, action, move |mut tx| {
            Box::pin(async move {
                let wanted = (new.account, new.mode);
                let books = accounts::lock_balances(&mut tx, [wanted]).await?;
                let balance = *books
                    .get(&wanted)
                    .ok_or_else(|| LedgerError::NoAccount(new.account.to_string()))?;
                if let Some(reference) = &new.reference
                    && let Some(booked) = accounts::find_reference(&mut tx, reference).await?
                {
                    return same_booking(booked, kind, new, amount);
                }
                if kind == EntryKind::Debit {
                    balance.cover(new.amount)?;
                }
                let mut entry = Entry {
                    id: EntryId::new(),
                    account: new.account,
                    mode: new.mode,
                    sequence: 0,
                    lines: 1,
                    kind,
                    amount,
                    balance_after: balance.balance.checked_add(amount)?,
                    generation: None,
                    reference: new.reference.clone(),
                    note: new.note.clone(),
                    created_at: self.clock.now(),
                };
                entry.sequence = accounts::book(&mut tx, &entry)
                    .await
                    .map_err(LedgerError::during(action))?;
                Ok(entry)
            })
        })
        .await
    }
}

/// The booked entry, if it is what was asked for again.
fn same_booking(
    booked: Entry,
    kind: EntryKind,
    new: &NewEntry,
    amount: NanoUsd,
) -> Result<Entry, LedgerError> {
    if (booked.account, booked.mode, booked.kind, booked.amount)
        == (new.account, new.mode, kind, amount)
    {
        return Ok(booked);
    }
    Err(LedgerError::ReferenceTaken {
        reference: new.reference.clone().unwrap_or_default(),
        account: booked.account,
        mode: booked.mode,
        kind: booked.kind,
        amount: booked.kind.signed(booked.amount)?,
    })
}
