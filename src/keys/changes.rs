//! Hearing of changed keys: triggers announce them, and a connection of its own listens.
//!
//! The connection is asked again and again whether it still lives. While it does not, keys are remembered for
//! less than a second ([`super::memory`]), so nothing depends on it but speed.

use std::{convert::Infallible, io, time::Duration};

use sqlx::{
    Acquire, Connection, PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Keys, memory::Memory};

/// As in the migration that announces.
const CHANNEL: &str = "easel_keys";
/// What the connection is called in `pg_stat_activity`.
const NAME: &str = "easel keys";
/// Several times within the age at which the last proof of life is too old.
const PROVE_EVERY: Duration = Duration::from_millis(250);
/// How long the server may take to answer, and to take a connection.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Keys {
    /// Listens for changed keys for as long as it is polled, so that they can be remembered for longer. Does
    /// nothing for keys that are not remembered.
    ///
    /// # Cancel safety
    /// Dropped, changes are not heard of any more, and keys are remembered for less than a second.
    pub async fn follow_changes(self) {
        let Some(memory) = &self.memory else {
            return;
        };
        let mut failed = false;
        loop {
            let pool = self.own_pool();
            let Err(error) = listen(&pool, memory, &mut failed).await;
            memory.stop_listening();
            // Whether the database is away is for the beats to say; what is said here is what it means.
            if !failed {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "changes of keys are not heard of; keys are looked up every second instead"
                );
            }
            failed = true;
            sleep(AGAIN_AFTER).await;
        }
    }

    /// A pool for the one connection, which never comes back to it.
    fn own_pool(&self) -> PgPool {
        let options = self.pool.connect_options().as_ref().clone();
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options.application_name(NAME))
    }
}

/// Listens until the connection breaks.
async fn listen(
    pool: &PgPool,
    memory: &Memory,
    failed: &mut bool,
) -> Result<Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    // What was missed has to be forgotten first.
    listener.eager_reconnect(false);
    let began = Instant::now();
    in_time(listener.listen(CHANNEL)).await?;
    memory.listen(began);
    if std::mem::take(failed) {
        tracing::info!("changes of keys are heard of again");
    }
    loop {
        let next_proof = Instant::now() + PROVE_EVERY;
        while let Ok(news) = timeout_at(next_proof, listener.try_recv()).await {
            let lost = || sqlx::Error::Io(io::ErrorKind::ConnectionAborted.into());
            memory.forget(news?.ok_or_else(lost)?.payload());
        }
        let asked = Instant::now();
        let connection = listener.acquire().await?;
        in_time(connection.ping()).await?;
        while let Some(news) = listener.next_buffered() {
            memory.forget(news.payload());
        }
        memory.heard(asked);
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}
