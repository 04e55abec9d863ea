//! What a serving process does every few seconds besides serving: it says that it lives, releases what
//! nobody will settle, sums up days that are over, deletes pictures whose time is over, and starts a private database that ended again.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

use super::world::{Ground, PictureLifetime};
use crate::{
    cli::Context,
    clock::Clock,
    config::DatabaseConfig,
    gateway::{Cancellations, LONGEST_GENERATION},
    images::ImageStore,
    ledger::{Heartbeat, Ledger},
    postgres::private::PrivateServer,
    telemetry::metrics::{Sweep, metrics},
};

const BEAT_EVERY: Duration = Duration::from_secs(4);
/// After a beat that failed, which may have taken seconds to do so.
const BEAT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Five beats missed, so that one slow database answer declares nobody dead.
const DEAD_AFTER: Duration = Duration::from_secs(20);
/// Together with [`DEAD_AFTER`] below the 30 s within which a dead replica's holds must be gone.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// No generation is in flight so long, nor its settlement while the database answers: what was to settle such a
/// hold has died without its process, or was refused.
const OVERDUE_AFTER: Duration = LONGEST_GENERATION.saturating_mul(2);
/// A cancellation that another replica was asked for is to be heeded within a second.
const HEED_EVERY: Duration = Duration::from_millis(500);
const SWEEP_PICTURES_EVERY: Duration = Duration::from_mins(1);
/// A day is summed up a day after its end, so nobody waits for the minute.
const SUM_UP_DAYS_EVERY: Duration = Duration::from_mins(10);

const LOOK_AFTER_DATABASE_EVERY: Duration = Duration::from_secs(1);
/// A disk that is full, for example, needs a person.
const REVIVE_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// The running tasks; dropped, they end.
#[derive(Debug)]
pub(super) struct Tasks(JoinSet<()>);

impl Tasks {
    pub(super) fn start(context: &Context, ground: &Ground, cancellations: Cancellations) -> Self {
        let config = &context.config;
        let ledger = &ground.ledger;
        let mut tasks = JoinSet::new();
        if config.database.url.is_none() {
            tasks.spawn(keep_database(
                Arc::clone(&context.server),
                config.database.clone(),
                context.pool.clone(),
            ));
        }
        tasks.spawn(beat(ledger.heartbeat()));
        tasks.spawn(sweep_holds(ledger.clone()));
        tasks.spawn(sum_up_days(ledger.clone()));
        tasks.spawn(heed(cancellations));
        tasks.spawn(ground.keys.clone().follow_changes());
        tasks.spawn(sweep_pictures(
            ground.store.clone(),
            context.clock.clone(),
            ground.lifetime.clone(),
        ));
        Self(tasks)
    }

    /// One more, which ends with the others.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    /// Ends the tasks; each between two statements or in the middle of one, all of which are safe to do
    /// again.
    pub(super) async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

/// Starts a private server again that ended under us. The pool makes its connections anew by itself.
async fn keep_database(
    server: Arc<Mutex<Option<PrivateServer>>>,
    config: DatabaseConfig,
    pool: PgPool,
) {
    let mut ticks = every(LOOK_AFTER_DATABASE_EVERY);
    loop {
        ticks.tick().await;
        let mut server = server.lock().await;
        let Some(server) = server.as_mut() else {
            return;
        };
        match server.revive(&config).await {
            Ok(None) => {}
            Ok(Some(options)) => {
                // As `postgres::connect` names it.
                pool.set_connect_options(options.application_name("easel"));
                error!("the private PostgreSQL had ended and was started again");
            }
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the private PostgreSQL has ended and does not start again"
                );
                ticks.reset_after(REVIVE_AGAIN_AFTER);
            }
        }
    }
}

/// What touches the database in any case also says, once each, when it goes away and when it is back.
async fn beat(mut heart: Heartbeat) {
    let mut ticks = every(BEAT_EVERY);
    let mut away_since: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let beat = heart.beat().await;
        if beat.is_err() {
            ticks.reset_after(BEAT_AGAIN_AFTER);
        }
        match (beat, away_since) {
            (Ok(()), None) => {}
            (Ok(()), Some(since)) => {
                let seconds = since.elapsed().as_secs();
                info!(seconds, "the database answers again");
                away_since = None;
            }
            (Err(error), None) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the database does not answer; this replica cannot serve until it does"
                );
                away_since = Some(Instant::now());
            }
            (Err(error), Some(_)) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "the database still does not answer"
                );
            }
        }
    }
}

async fn heed(cancellations: Cancellations) {
    let mut ticks = every(HEED_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = cancellations.heed().await {
            // Whoever beats says that the database is away.
            debug!(
                error = &error as &dyn std::error::Error,
                "could not look for cancellations"
            );
        }
    }
}

async fn sweep_holds(ledger: Ledger) {
    let mut ticks = every(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        match ledger.sweep(DEAD_AFTER, OVERDUE_AFTER).await {
            Ok(holds) => {
                metrics().swept(Sweep::Holds, Some(holds));
                if holds == 0 {
                    continue;
                }
                info!(holds, "released what nobody would have settled");
            }
            Err(error) => {
                metrics().swept(Sweep::Holds, None);
                warn!(
                    error = &error as &dyn std::error::Error,
                    "could not look for holds that nobody will settle"
                );
                // The beats say that the database is away; not this too, every few seconds.
                ticks.reset_after(DEAD_AFTER);
            }
        }
    }
}

async fn sum_up_days(ledger: Ledger) {
    let mut ticks = every(SUM_UP_DAYS_EVERY);
    loop {
        ticks.tick().await;
        match ledger.sum_up_days().await {
            Ok(0) => {}
            Ok(days) => info!(days, "summed up what was used on days that are over"),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "could not sum up what was used on days that are over"
            ),
        }
    }
}

async fn sweep_pictures(store: ImageStore, clock: Clock, lifetime: PictureLifetime) {
    let mut ticks = every(SWEEP_PICTURES_EVERY);
    loop {
        ticks.tick().await;
        match store.sweep(lifetime.now(), clock.now()).await {
            Ok(pictures) => {
                metrics().swept(Sweep::Pictures, Some(pictures));
                if pictures == 0 {
                    continue;
                }
                info!(pictures, "deleted pictures whose time is over");
            }
            Err(error) => {
                metrics().swept(Sweep::Pictures, None);
                warn!(
                    error = &error as &dyn std::error::Error,
                    "could not delete old pictures"
                );
            }
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
