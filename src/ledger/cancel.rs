//! Wishes to have a generation stopped, for the replica that works on it.
//!
//! A wish moves no money. How the generation ends is the settlement's affair, and nobody else's: a wish that
//! comes too late has no effect.

use super::{Ledger, error::LedgerError, repo::cancellations};
use crate::ids::GenerationId;

/// The code of what its account cancelled, as its error has it.
pub const CANCELED: &str = "canceled";

impl Ledger {
    /// Writes down that a generation that runs shall be stopped. Again, or too late, it changes nothing.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    pub async fn ask_to_cancel(&self, generation: GenerationId) -> Result<(), LedgerError> {
        cancellations::ask(&self.pool, generation, self.clock.now()).await
    }

    /// Which generations that this replica works on shall be stopped.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn asked_to_cancel(&self) -> Result<Vec<GenerationId>, LedgerError> {
        cancellations::asked(&self.pool, self.replica).await
    }
}
