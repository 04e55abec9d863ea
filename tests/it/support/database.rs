//! A fresh, migrated database for each test, cloned from a template that is made once per run.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Row as _,
    postgres::PgPoolOptions,
};

use super::process::run_easel;

/// One test's database, and a connection to look into it.
pub(crate) struct Database {
    server: String,
    name: String,
    url: String,
    pool: PgPool,
}

/// Any number: the lock under which one test process makes the template.
const TEMPLATE_LOCK: i64 = 7_215_003;

impl Database {
    /// A copy of the template.
    pub(crate) async fn fresh() -> Self {
        let server = server_url();
        let template = template(&server).await;
        Self::create(server, &format!("template {template}")).await
    }

    /// One that has nothing in it yet.
    pub(crate) async fn empty() -> Self {
        Self::create(server_url(), "").await
    }

    /// The same on a server of the test's own.
    pub(crate) async fn empty_on(server: String) -> Self {
        Self::create(server, "").await
    }

    async fn create(server: String, how: &str) -> Self {
        let name = unused_name();
        let mut connection = connect(&server).await;
        connection
            .execute(AssertSqlSafe(format!("create database {name} {how}")))
            .await
            .unwrap();
        connection.close().await.unwrap();
        let url = with_database(&server, &name);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(20))
            .connect_lazy(&url)
            .unwrap();
        Self {
            server,
            name,
            url,
            pool,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The connection, for queries of a test's own.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The number in the first column of the only row.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .get::<i64, _>(0)
    }

    /// So many days go by, for all that was asked for so far.
    pub(crate) async fn age(&self, days: u32) {
        let move_back = format!(
            "update generations set created_at = created_at - interval '{days} days',
                 finished_at = finished_at - interval '{days} days';
             update holds set created_at = created_at - interval '{days} days',
                 ended_at = ended_at - interval '{days} days';
             alter table ledger_entries disable trigger ledger_entries_are_final;
             update ledger_entries set created_at = created_at - interval '{days} days';
             alter table ledger_entries enable trigger ledger_entries_are_final;"
        );
        let moved = sqlx::raw_sql(AssertSqlSafe(move_back)).execute(&self.pool);
        moved.await.unwrap();
    }

    /// The first column of every row, as text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .iter()
            .map(|row| row.get::<String, _>(0))
            .collect()
    }

    /// Removes it.
    pub(crate) async fn drop(self) {
        self.pool.close().await;
        let mut connection = connect(&self.server).await;
        connection
            .execute(AssertSqlSafe(format!(
                "drop database {} with (force)",
                self.name
            )))
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

/// The superuser's URL that `tests/with-postgres` sets.
pub(super) fn server_url() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the tests' own setting, not Easel's configuration"
    )]
    let url = std::env::var("EASEL_TEST_DATABASE_URL");
    url.expect("EASEL_TEST_DATABASE_URL is not set: start the tests with `tests/run`, which brings PostgreSQL up")
}

/// The template's name. It is named after the binary that migrated it, so that a new build makes a new one.
async fn template(server: &str) -> String {
    let built = std::fs::metadata(super::process::easel_binary())
        .unwrap()
        .modified()
        .unwrap();
    let stamp = built
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let name = format!("easel_template_{stamp}");
    let mut connection = connect(server).await;
    connection
        .execute(AssertSqlSafe(format!(
            "select pg_advisory_lock({TEMPLATE_LOCK})"
        )))
        .await
        .unwrap();
    let exists = connection
        .fetch_optional(AssertSqlSafe(format!(
            "select 1 from pg_database where datname = '{name}'"
        )))
        .await
        .unwrap()
        .is_some();
    if !exists {
        // Under another name until it is whole, should this process be ended half way.
        let draft = format!("{name}_draft");
        for statement in [
            format!("drop database if exists {draft}"),
            format!("create database {draft}"),
        ] {
            connection.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let url = with_database(server, &draft);
        run_easel(directory.path(), &["migrate"], &[("DATABASE_URL", &url)]).expect_success();
        connection
            .execute(AssertSqlSafe(format!(
                "alter database {draft} rename to {name}"
            )))
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
    name
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap_or_else(|error| {
        panic!("no connection to the tests' PostgreSQL (start them with `tests/run`): {error}")
    })
}

fn with_database(server: &str, name: &str) -> String {
    let (base, query) = server.split_once('?').unwrap_or((server, ""));
    let (base, _) = base.rsplit_once('/').expect("a database URL with a path");
    format!("{base}/{name}?{query}")
}

fn unused_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("easel_{}_{number}", std::process::id())
}
