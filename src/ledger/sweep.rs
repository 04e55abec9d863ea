//! What happens to the holds that nobody will settle.
//!
//! A living replica renews its row in `replicas`; an open hold whose replica has no row is an orphan, and
//! any replica expires it: the money returns, the generation is `abandoned`. The same happens to a hold that
//! is older than any generation can be, though its replica lives. A replica that was only slow comes back to
//! find its holds ended and cannot settle them ([`LedgerError::HoldEnded`]); that single conditional update is
//! the fence, so nothing here has to be sure that the other one is really dead.
//!
//! It should be, all the same, because what the other one was painting is lost. So a replica judges only from
//! a time in which it was heard itself.

use std::{io, time::Duration};

use chrono::TimeDelta;
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;
use tracing::instrument;

use super::{
    Instant, Ledger,
    error::LedgerError,
    repo::{accounts, cancellations, replicas},
};
use crate::{
    ids::ReplicaId,
    postgres::{connect_beside, run_tx},
};

/// A replica whose beats were further apart than this was cut off, or the database was.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// How long a beat may take. Several fit into the time after which a replica is taken for dead.
const BEAT_PATIENCE: Duration = Duration::from_secs(3);
/// How many orphans one transaction ends: their accounts are locked meanwhile.
const BATCH: i64 = 200;

impl Ledger {
    /// Says that this replica lives: before its first hold, and from then on by a [`Heartbeat`]. The time is
    /// the database's, so clocks need not agree.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn beat(&self) -> Result<(), LedgerError> {
        let connection = self.pool.acquire().await;
        let mut connection = connection.map_err(LedgerError::during(replicas::BEAT))?;
        replicas::beat(&mut connection, self.replica, LONGEST_GAP).await
    }

    /// Says from time to time that this replica lives.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            pool: self.pool.clone(),
            replica: self.replica,
            connection: None,
        }
    }

    /// Says that this replica stops, once what is being written has been: what it still holds may be swept at
    /// once.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn stop(&self) -> Result<(), LedgerError> {
        self.batches.stop().await;
        replicas::forget(&self.pool, self.replica).await
    }

    /// Expires the open holds of every replica that has not beaten for `silent_for`, never this one's own, and
    /// those that are `overdue_after` their placing, whoever's they are. Returns how many.
    ///
    /// Who is silent or late is judged only when this replica has been heard without a gap for `silent_for`:
    /// after a database has been away, or this process, everybody looks dead.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    #[instrument(name = "ledger.sweep", level = "debug", skip_all)]
    pub async fn sweep(
        &self,
        silent_for: Duration,
        overdue_after: Duration,
    ) -> Result<u64, LedgerError> {
        let judged =
            replicas::forget_silent(&self.pool, self.replica, silent_for, LONGEST_GAP).await?;
        let age = TimeDelta::from_std(overdue_after).unwrap_or(TimeDelta::MAX);
        let overdue = self.clock.now().checked_sub_signed(age);
        let expired = self.expire_orphans(overdue.filter(|_| judged)).await?;
        self.forget_claims().await?;
        cancellations::forget(&self.pool).await?;
        Ok(expired)
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
        self.expire_orphans(None).await
    }

    async fn expire_orphans(&self, overdue: Option<Instant>) -> Result<u64, LedgerError> {
        let mut total: u64 = 0;
        loop {
            let (found, expired) = run_tx(&self.pool, "sweep holds", move |mut tx| {
                Box::pin(async move {
                    let orphans = replicas::orphans(&mut tx, self.replica, overdue, BATCH).await?;
                    if orphans.is_empty() {
                        return Ok::<_, LedgerError>((0, 0));
                    }
                    // Balances before holds, as everywhere. Holds are not locked while waiting, so a settlement or
                    // another sweep may be first; `expire` takes what is still open.
                    accounts::lock_balances(&mut tx, orphans.iter().map(|o| (o.account, o.mode)))
                        .await?;
                    let now = self.clock.now();
                    let expired = replicas::expire(&mut tx, &orphans, overdue, now).await?;
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

/// The beats of a replica, on a connection of their own: requests that queue for those of the pool must not make
/// their replica look dead.
#[derive(Debug)]
pub struct Heartbeat {
    /// Only for how to connect.
    pool: PgPool,
    replica: ReplicaId,
    connection: Option<PgConnection>,
}

impl Heartbeat {
    /// One beat; to be called several times within the age that sweeps use. Takes a few seconds at most, and
    /// a new connection where the last one broke.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    ///
    /// # Cancel safety
    /// Dropped, it may have beaten; the next one connects again.
    pub async fn beat(&mut self) -> Result<(), LedgerError> {
        timeout(BEAT_PATIENCE, self.try_beat())
            .await
            .unwrap_or_else(|_| {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                Err(LedgerError::during(replicas::BEAT)(late.into()))
            })
    }

    async fn try_beat(&mut self) -> Result<(), LedgerError> {
        // Taken out while it is used: one that was left in the middle of a statement is no good any more.
        if let Some(connection) = self.connection.take()
            && self.beat_on(connection).await.is_ok()
        {
            return Ok(());
        }
        let connection = connect_beside(&self.pool).await;
        self.beat_on(connection.map_err(LedgerError::during(replicas::BEAT))?)
            .await
    }

    async fn beat_on(&mut self, mut connection: PgConnection) -> Result<(), LedgerError> {
        replicas::beat(&mut connection, self.replica, LONGEST_GAP).await?;
        self.connection = Some(connection);
        Ok(())
    }
}
