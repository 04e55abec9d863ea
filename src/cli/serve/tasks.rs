//! What a serving process does every few seconds besides serving: it says that it lives, releases what
//! dead replicas held, and deletes pictures whose time is over.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::picture_lifetime;
use crate::{clock::Clock, config::Config, images::ImageStore, ledger::Ledger};

const BEAT_EVERY: Duration = Duration::from_secs(4);
/// Five beats missed, so that one slow database answer declares nobody dead.
const DEAD_AFTER: Duration = Duration::from_secs(20);
/// Together with [`DEAD_AFTER`] below the 30 s within which a dead replica's holds must be gone.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SWEEP_PICTURES_EVERY: Duration = Duration::from_mins(1);

/// The running tasks; dropped, they end.
#[derive(Debug)]
pub(super) struct Tasks(JoinSet<()>);

impl Tasks {
    pub(super) fn start(
        config: &Config,
        ledger: &Ledger,
        store: &ImageStore,
        clock: &Clock,
    ) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(beat(ledger.clone()));
        tasks.spawn(sweep_holds(ledger.clone()));
        let lifetime = picture_lifetime(config);
        tasks.spawn(sweep_pictures(store.clone(), clock.clone(), lifetime));
        Self(tasks)
    }

    /// Ends the tasks; each between two statements or in the middle of one, all of which are safe to do
    /// again.
    pub(super) async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

async fn beat(ledger: Ledger) {
    let mut ticks = every(BEAT_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = ledger.beat().await {
            warn!(
                error = &error as &dyn std::error::Error,
                "could not say that this replica lives"
            );
        }
    }
}

/// Judges the others by their silence only after it has seen the database answer for as long as they
/// may be silent: when a database comes back, the beats of the living are as old as those of the dead, and
/// the first to sweep would release what all the others are working on.
async fn sweep_holds(ledger: Ledger) {
    let mut ticks = every(SWEEP_EVERY);
    ticks.reset_after(DEAD_AFTER);
    loop {
        ticks.tick().await;
        match ledger.sweep(DEAD_AFTER).await {
            Ok(0) => {}
            Ok(holds) => info!(holds, "released what dead replicas held"),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "could not look for the holds of dead replicas"
                );
                ticks.reset_after(DEAD_AFTER);
            }
        }
    }
}

async fn sweep_pictures(store: ImageStore, clock: Clock, lifetime: Duration) {
    let mut ticks = every(SWEEP_PICTURES_EVERY);
    loop {
        ticks.tick().await;
        match store.sweep(lifetime, clock.now()).await {
            Ok(0) => {}
            Ok(pictures) => info!(pictures, "deleted pictures whose time is over"),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "could not delete old pictures"
            ),
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
