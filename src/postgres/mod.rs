//! Pool, migrations, transactions, and the private server.
//!
//! Knows how to reach `PostgreSQL` and nothing of what the tables mean. The one idea: a transaction is
//! run by [`run_tx`], whose body may run twice, so retrying a serialization failure, a deadlock or a broken
//! connection is decided here and nowhere else.

mod migrate;
pub mod private;
pub mod secrets;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{
    Connection, PgConnection, PgPool, Postgres, Transaction,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions, PgSeverity},
};

pub use self::migrate::{Inspection, inspect, migrate};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL is none. It may contain a password, so it is not repeated.
    #[error(
        "the database URL cannot be read; it has the form postgres://user:password@host:port/name"
    )]
    Url(#[source] sqlx::Error),
    /// Nobody answers, or it says no.
    #[error("could not connect to PostgreSQL")]
    Connect(#[source] sqlx::Error),
    /// Older than what the statements need.
    #[error("PostgreSQL {found} is too old: Easel needs 14 or later")]
    TooOld {
        /// What the server calls itself.
        found: String,
    },
    /// A migration failed, or one was changed after it was applied.
    #[error("could not migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("could not {action}")]
    Statement {
        /// What was attempted.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
}

/// How long a request waits for a free connection before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that rested longer is asked whether it still lives before it is used. Under load none rests
/// so long; of those that did not, [`run_tx`] takes another when it finds one dead.
const PING_AFTER: Duration = Duration::from_millis(500);

/// What every session is told.
///
/// A replica that stalls inside a transaction must not hold an account's row: it loses the transaction before those
/// that wait for the row give up, and long before its own holds are swept, for which the row is needed. Nor may a lock
/// that somebody forgot in a SQL prompt, or a statement gone astray, keep the whole pool waiting: the requests it
/// concerns are told to come back.
///
/// Nearly every statement finds its rows by key, and its plan is kept for the life of the connection. One that
/// was made while a table had ten rows would read the whole table until the next analysis, a minute and
/// possibly a million rows later; so plans that read whole tables are off the menu, and the few statements
/// that want them ask with [`begin_wide`]. Without JIT: it would take the price put on such plans for real.
const SESSION: &str = "
    set idle_in_transaction_session_timeout = '4s';
    set lock_timeout = '5s';
    set statement_timeout = '60s';
    set enable_seqscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set jit = off";

/// One snapshot for statements that read a good part of the database, and may take their time.
const WIDE: &str = "
    begin isolation level repeatable read, read only;
    set local statement_timeout = '1h';
    set local enable_seqscan = on;
    set local enable_hashjoin = on;
    set local enable_mergejoin = on";

/// Begins a read-only transaction that sees one moment and may read whole tables.
///
/// # Errors
/// What the driver said.
pub async fn begin_wide(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with(WIDE).await
}

/// Reads a `postgres://` URL.
///
/// # Errors
/// [`PostgresError::Url`], which does not repeat the URL.
pub fn options_from_url(url: &str) -> Result<PgConnectOptions, PostgresError> {
    // The driver would take any scheme, and find nobody on the port of another kind of database.
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        let reason = "it does not begin with postgres://";
        return Err(PostgresError::Url(sqlx::Error::Configuration(
            reason.into(),
        )));
    }
    url.parse().map_err(PostgresError::Url)
}

/// A pool, with one connection already made so that a wrong address is seen at the start.
///
/// # Errors
/// [`PostgresError::Connect`].
pub async fn connect(
    options: PgConnectOptions,
    max_connections: u32,
) -> Result<PgPool, PostgresError> {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A ping at every acquisition would be a fifth of a hold's round trips.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > PING_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        // By statement, because poolers refuse unknown start-up parameters.
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
        })
        .connect_with(options.application_name("easel"))
        .await
        .map_err(PostgresError::Connect)
}

/// A connection beside those of the pool, with the same settings, for work that must not queue with the rest.
///
/// # Errors
/// What the driver said.
pub async fn connect_beside(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
    sqlx::raw_sql(SESSION).execute(&mut connection).await?;
    Ok(connection)
}

/// The text without U+0000, which `PostgreSQL` cannot keep. For text that came from outside: a NUL must
/// not fail the statement it is written with, least of all one that writes a batch.
pub fn clean(text: &str) -> String {
    text.replace('\0', "")
}

/// A markup as its column keeps it. Far too large a one stays so, and the column's CHECK refuses it.
pub fn basis_points_to_sql(basis_points: u32) -> i32 {
    i32::try_from(basis_points).unwrap_or(i32::MAX)
}

/// A markup as its column had it, whose CHECK keeps it from being negative.
pub fn basis_points_from_sql(basis_points: i32) -> u32 {
    basis_points.unsigned_abs()
}

/// A limit as its column keeps it: above two thousand million it is as good as that.
pub fn limit_to_sql(limit: Option<u32>) -> Option<i32> {
    limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX))
}

/// A limit as its column had it, whose CHECK keeps it from being negative.
pub fn limit_from_sql(limit: i32) -> u32 {
    limit.unsigned_abs()
}

/// An error type of a room whose work runs in transactions.
pub trait TxError: std::error::Error + Sized + 'static {
    /// The room's word for a failed statement.
    fn database(action: &'static str, source: sqlx::Error) -> Self;

    /// The room's word for a commit that broke off: it may have happened. Rooms whose work is safe to do
    /// again need no word of their own.
    fn unconfirmed(action: &'static str, source: sqlx::Error) -> Self {
        Self::database(action, source)
    }

    /// The driver's error inside, if that is what it is.
    fn as_database(&self) -> Option<&sqlx::Error>;
}

/// The connection inside a transaction of [`run_tx`]. `'env` is what the body may borrow from around it,
/// as in [`std::thread::scope`]; an `AsyncFnMut` would say it more simply, but one that borrows is not
/// `Send` in the compiler's eyes yet.
#[derive(Debug)]
pub struct Tx<'tx, 'env> {
    connection: &'tx mut PgConnection,
    environment: PhantomData<&'tx &'env ()>,
}

/// How often a transaction that lost a race is done again.
const MAX_TRIES: u32 = 5;

/// Runs `body` in a transaction and commits it; rolls back when it fails. `action` completes "could not
/// …" and names the transaction in logs. The isolation is READ COMMITTED: bodies lock, then read.
///
/// A serialization failure or deadlock runs `body` again, and so does a connection that breaks before the commit
/// is sent, as all that rested do when the server has been restarted. So `body` must have no effect but on the
/// database.
///
/// ```ignore
/// run_tx(&pool, "place holds", move |mut tx| Box::pin(async move { repo::insert(&mut tx, hold).await })).await
/// ```
///
/// # Errors
/// What `body` said, [`TxError::database`] when the transaction could not begin or commit, or
/// [`TxError::unconfirmed`] when the connection broke while it committed.
///
/// # Cancel safety
/// Dropped before the commit is sent, nothing was done; dropped after, it may have been.
pub async fn run_tx<'env, T, E, F>(pool: &PgPool, action: &'static str, mut body: F) -> Result<T, E>
where
    E: TxError,
    F: for<'tx> FnMut(Tx<'tx, 'env>) -> BoxFuture<'tx, Result<T, E>>,
{
    let mut tries = 1;
    let mut spare = pool.options().get_max_connections();
    loop {
        let failed = |source| E::database(action, source);
        let mut connection = pool.acquire().await.map_err(failed)?;
        let error = match connection.begin().await {
            Ok(mut tx) => {
                let inside = Tx {
                    connection: &mut tx,
                    environment: PhantomData,
                };
                match body(inside).await {
                    Ok(value) => match tx.commit().await {
                        Ok(()) => return Ok(value),
                        // The server goes on and says no: it was rolled back.
                        Err(source @ sqlx::Error::Database(_)) if !is_broken(&source) => {
                            failed(source)
                        }
                        Err(source) => return Err(E::unconfirmed(action, source)),
                    },
                    Err(error) => {
                        // A failed rollback closes the connection, which rolls back too.
                        tx.rollback().await.ok();
                        error
                    }
                }
            }
            Err(source) => failed(source),
        };
        match error.as_database() {
            Some(source) if tries < MAX_TRIES && is_lost_race(source) => tries += 1,
            // At worst every connection there was is dead; then a new one is made, or cannot be.
            Some(source) if spare > 0 && is_broken(source) => spare -= 1,
            _ => return Err(error),
        }
        tracing::debug!(
            transaction.name = action,
            error = &error as &dyn std::error::Error,
            "transaction runs again"
        );
    }
}

impl Deref for Tx<'_, '_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection
    }
}

impl DerefMut for Tx<'_, '_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection
    }
}

/// Whether the same statement may well succeed a moment later: the database cannot be reached, is starting or
/// stopping, is out of something, or made us wait too long. Anything else is a mistake of ours or in the data.
pub fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(said) => {
            let code = said.code();
            // Connections, roles that may not log in, lost races, resources, locks, the operator and the
            // machine; and writing to a server that has become a standby (PostgreSQL, appendix A).
            let class = code.as_deref().and_then(|code| code.get(..2));
            matches!(class, Some("08" | "28" | "40" | "53" | "55" | "57" | "58"))
                || matches!(code.as_deref(), Some("25006" | "25P03"))
        }
        _ => false,
    }
}

/// Whether the connection is at its end: cut, or ended by the server, which says so as its last word.
pub fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(said) => said
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|said| matches!(said.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        _ => false,
    }
}

/// `serialization_failure`, `deadlock_detected`: nothing was done, and the next try may succeed.
fn is_lost_race(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

impl TxError for PostgresError {
    fn database(action: &'static str, source: sqlx::Error) -> Self {
        Self::Statement { action, source }
    }

    fn as_database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Statement { source, .. } => Some(source),
            Self::Url(_) | Self::Connect(_) | Self::TooOld { .. } | Self::Migrate(_) => None,
        }
    }
}
