//! All SQL of the ledger.
//!
//! **Locks, and their order.** (1) rows of `balances`, by (account, mode); (2) rows of `holds`, only ever by the
//! conditional update that ends them. Every transaction takes them in this order and none skips (1) before (2), so
//! they cannot deadlock, and an account's money is changed by one transaction at a time. What else belongs to a
//! balance is under the same lock: repeated requests (`claims`) and what is counted for limits (`limits`), because
//! the keys of an account have one balance, live or test. Functions here take the caller's connection; the service
//! opens the transaction.
//!
//! Statements take arrays, one is a batch of one. Text that came from outside passes [`clean`]: one client's
//! NUL must not fail the whole batch it is committed with.

#![expect(
    clippy::as_conversions,
    reason = "in the arguments of `query!`, `as` names the type of an array and converts nothing"
)]

pub(super) mod accounts;
pub(super) mod attempts;
pub(super) mod cancellations;
pub(super) mod claims;
pub(super) mod days;
pub(super) mod deliveries;
pub(super) mod history;
pub(super) mod holds;
pub(super) mod limits;
pub(super) mod open;
pub(super) mod pages;
pub(super) mod prune;
pub(super) mod reconcile;
pub(super) mod replicas;
pub(super) mod search;
pub(super) mod settlements;
pub(super) mod usage;

use std::{fmt::Display, str::FromStr};

use super::error::LedgerError;
use crate::postgres::clean;

/// Clients' names (of an end user, of an effect) are kept up to this length. They are in indexes, and an
/// entry of an index that is too large fails the statement, and the whole batch with it.
const LONGEST_NAME_CHARS: usize = 255;

/// A client's name for something, as it is kept and looked for.
fn name(text: &str) -> String {
    clean(text).chars().take(LONGEST_NAME_CHARS).collect()
}

/// Reads an id or word that we wrote ourselves.
fn decode<T: FromStr<Err: Display>>(column: &'static str, text: &str) -> Result<T, LedgerError> {
    text.parse()
        .map_err(|error| LedgerError::Inconsistent(format!("{column}: {error}")))
}
