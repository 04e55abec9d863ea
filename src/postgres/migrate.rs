//! Migrations: forward only, compiled in, applied under an advisory lock.
//!
//! Any number of replicas may start at once; one migrates and the others wait for it. An older Easel
//! starts on a newer database (migrations only add, then remove a release later), so that a rolling
//! upgrade can be rolled back.
//!
//! A migration is a transaction, so an index that it creates keeps writers of its table waiting while it is built.
//! That was no matter for the first ones: no release had filled a table yet. From the first release on an index on a
//! table that grows with traffic is built beforehand by the operator (`create index concurrently if not exists`, in
//! the changelog), and the migration only makes sure of it. It cannot be built concurrently here: replicas that wait
//! for the migrations' lock are in the middle of a statement, and a concurrent build waits for those.

use sqlx::{
    ConnectOptions as _, Connection, PgConnection, PgPool, migrate::Migrator,
    postgres::PgConnectOptions,
};

use super::PostgresError;

/// The migrations of this build.
pub(super) static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// `server_version_num` of `PostgreSQL` 14, the oldest still maintained in 2026-11 that Easel promises.
const OLDEST: i32 = 140_000;

/// What a database is like, to somebody who changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What the server calls itself (`17.2`).
    pub server_version: String,
    /// Migrations of this build that are not applied.
    pub pending: usize,
    /// Applied ones that this build does not know: a newer Easel was here.
    pub unknown: usize,
}

/// Connects and looks, without applying anything.
///
/// # Errors
/// [`PostgresError::Connect`], [`PostgresError::TooOld`] or [`PostgresError::Statement`].
pub async fn inspect(options: &PgConnectOptions) -> Result<Inspection, PostgresError> {
    let mut connection = options.connect().await.map_err(PostgresError::Connect)?;
    let failed = |source| PostgresError::Statement {
        action: "look at the database",
        source,
    };
    let server_version = server_version(&mut connection).await?;
    let is_begun: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    let applied: Vec<i64> = if is_begun {
        sqlx::query_scalar("select version from _sqlx_migrations where success")
            .fetch_all(&mut connection)
            .await
            .map_err(failed)?
    } else {
        Vec::new()
    };
    connection.close().await.map_err(PostgresError::Connect)?;
    let known: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    let among = |some: &[i64], others: &[i64]| {
        let missing = some.iter().filter(|version| !others.contains(version));
        missing.count()
    };
    Ok(Inspection {
        server_version,
        pending: among(&known, &applied),
        unknown: among(&applied, &known),
    })
}

/// What the server calls its version, if that is not too old.
async fn server_version(connection: &mut PgConnection) -> Result<String, PostgresError> {
    let (number, found): (i32, String) = sqlx::query_as(
        "select current_setting('server_version_num')::integer, current_setting('server_version')",
    )
    .fetch_one(connection)
    .await
    .map_err(|source| PostgresError::Statement {
        action: "ask the server for its version",
        source,
    })?;
    if number < OLDEST {
        return Err(PostgresError::TooOld { found });
    }
    Ok(found)
}

/// Brings the database up to this build. Safe to call from every replica at once.
///
/// # Errors
/// [`PostgresError::TooOld`]; [`PostgresError::Migrate`] when a migration fails (it is rolled back) or
/// an applied one differs from the compiled-in one.
pub async fn migrate(pool: &PgPool) -> Result<(), PostgresError> {
    // A connection of its own, closed afterwards: were it to fail in between, the lock goes with it.
    let mut connection = pool
        .acquire()
        .await
        .map_err(PostgresError::Connect)?
        .detach();
    server_version(&mut connection).await?;
    // The lock is waited for as long as another replica migrates, and a large table takes what it takes.
    sqlx::raw_sql("set lock_timeout = 0; set statement_timeout = 0")
        .execute(&mut connection)
        .await
        .map_err(PostgresError::Connect)?;
    let migrator = Migrator {
        migrations: MIGRATOR.migrations.clone(),
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    migrator
        .run(&mut connection)
        .await
        .map_err(PostgresError::Migrate)?;
    connection.close().await.map_err(PostgresError::Connect)
}
