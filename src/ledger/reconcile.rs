//! The proof that entries, holds, balances and billing records agree.

use serde::Serialize;

use super::{Instant, Ledger, error::LedgerError, repo::reconcile};
use crate::postgres::begin_wide;

/// Something in the books that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// What was checked, in a few words.
    pub check: &'static str,
    /// The account and mode, the generation or the entry.
    pub subject: String,
    /// What is there, and what should be.
    pub found: String,
}

/// What came of the last proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciliation {
    /// When it was done.
    pub finished_at: Instant,
    /// In how many places the books did not agree.
    pub disagreements: u64,
}

impl Ledger {
    /// Proves for every balance that it is the sum of its entries, that `held` is the sum of its open holds and
    /// that each entry follows from the one before; and for every generation that its state, its hold, its charge
    /// and its pictures say the same; that what was used, as days and as generations, is what was charged; and that
    /// what is kept of spending for limits follows from the holds. All of it as of one moment, while the gateway goes
    /// on; reads every row, so it takes a while on a large database. Empty is proven; at most a thousand findings per
    /// check are listed. How many there are is remembered, where the database can be written.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn reconcile(&self) -> Result<Vec<Discrepancy>, LedgerError> {
        let action = LedgerError::during("reconcile the books");
        let mut snapshot = begin_wide(&self.pool).await.map_err(&action)?;
        let found = reconcile::check(&mut snapshot).await?;
        snapshot.rollback().await.map_err(&action)?;
        if let Err(error) = reconcile::remember(&self.pool, found.len()).await {
            // What was found is no less true, and a standby is a good place to look.
            tracing::warn!(
                %error,
                "when the books were proved could not be written down"
            );
        }
        Ok(found)
    }

    /// What [`Ledger::reconcile`] found the last time, whoever called it.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn last_reconciliation(&self) -> Result<Option<Reconciliation>, LedgerError> {
        reconcile::last(&self.pool).await
    }
}
