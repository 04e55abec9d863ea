//! What happens to the holds of a process that died.
//!
//! A living replica renews its row in `replicas`; an open hold whose replica has no row is an orphan, and
//! any replica expires it: the money returns, the generation is `abandoned`. A replica that was only slow
//! comes back to find its holds ended and cannot settle them ([`LedgerError::HoldEnded`]); that single
//! conditional update is the fence, so nothing here has to be sure that the other one is really dead.

use std::time::Duration;

use tracing::instrument;

use super::{
    Ledger,
    error::LedgerError,
    repo::{accounts, replicas},
};
use crate::{ids::ReplicaId, postgres::run_tx};

/// How many orphans one transaction ends: their accounts are locked meanwhile.
const BATCH: i64 = 200;

impl Ledger {
    /// Says that this replica lives. To be called before the first hold and then several times within the
    /// age that the others' sweeps use. The time is the database's, so clocks need not agree.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn beat(&self) -> Result<(), LedgerError> {
        replicas::beat(&self.pool, self.replica).await
    }

    /// Says that this replica stops: what it still holds may be swept at once.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn stop(&self) -> Result<(), LedgerError> {
        replicas::forget(&self.pool, self.replica).await
    }

    /// Expires the open holds of every replica that has not beaten for `silent_for`; never this one's own.
    /// Where this is known to be the only process on the database, zero clears what earlier ones left.
    /// Returns how many.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    #[instrument(name = "ledger.sweep", level = "debug", skip_all)]
    pub async fn sweep(&self, silent_for: Duration) -> Result<u64, LedgerError> {
        replicas::forget_silent(&self.pool, self.replica, silent_for).await?;
        self.expire_orphans().await
    }

    /// Expires the open holds of one replica that is known to be dead, such as this one's own earlier
    /// incarnation, without waiting for its silence. Returns how many holds ended.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    #[instrument(name = "ledger.sweep_replica", level = "debug", skip_all, fields(replica.id = %dead))]
    pub async fn sweep_replica(&self, dead: ReplicaId) -> Result<u64, LedgerError> {
        if dead == self.replica {
            return Ok(0);
        }
        replicas::forget(&self.pool, dead).await?;
        self.expire_orphans().await
    }

    async fn expire_orphans(&self) -> Result<u64, LedgerError> {
        let mut total: u64 = 0;
        loop {
            let (found, expired) = run_tx(&self.pool, "sweep holds", move |mut tx| {
                Box::pin(async move {
                    let orphans = replicas::orphans(&mut tx, self.replica, BATCH).await?;
                    if orphans.is_empty() {
                        return Ok::<_, LedgerError>((0, 0));
                    }
                    // Balances before holds, as everywhere. Holds are not locked while waiting, so a settlement or
                    // another sweep may be first; `expire` takes what is still open.
                    accounts::lock_balances(&mut tx, orphans.iter().map(|o| (o.account, o.mode)))
                        .await?;
                    let expired = replicas::expire(&mut tx, &orphans, self.clock.now()).await?;
                    Ok((orphans.len(), expired))
                })
            })
            .await?;
            total = total.saturating_add(expired);
            if found == 0 || expired == 0 {
                return Ok(total);
            }
        }
    }
}
