//! A fresh, migrated database for each test, cloned from a template.
//!
//! Knows which server tests may use, and nothing of what they do there. The template is made once per
//! set of migrations, under an advisory lock, because every test may be a process of its own (nextest);
//! a clone takes some ten milliseconds and is dropped with its [`TestDatabase`], after a panic too.

use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgConnectOptions};

use super::{connect, migrate, migrate::MIGRATOR, options_from_url};

/// Names the server: a `postgres://` URL of a superuser.
const SERVER_VARIABLE: &str = "EASEL_TEST_DATABASE_URL";
/// "easel" in ASCII: the advisory lock under which the template is made.
const TEMPLATE_LOCK: i64 = 0x65_61_73_65_6c;
const MAX_CONNECTIONS: u32 = 8;

/// A database of one test.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    /// Connections to it.
    pub(crate) pool: PgPool,
    name: String,
    server: PgConnectOptions,
}

impl TestDatabase {
    /// A new, empty, migrated database.
    ///
    /// # Panics
    /// With a message when there is no server or it does not do it: a test cannot go on without.
    pub(crate) async fn new() -> Self {
        let server = server();
        let mut connection = PgConnection::connect_with(&server)
            .await
            .expect("connect to the test server");
        let template = template(&server, &mut connection).await;
        let name = format!("easel_test_{}", uuid::Uuid::now_v7().simple());
        execute(
            &mut connection,
            format!(r#"create database "{name}" template "{template}""#),
        )
        .await;
        let pool = connect(server.clone().database(&name), MAX_CONNECTIONS)
            .await
            .expect("connect to the test's database");
        Self { pool, name, server }
    }
}

impl TestDatabase {
    /// Leaves the pool full of connections that the server has ended and that look as good as new.
    pub(crate) async fn kill_connections(&self) {
        let mut all = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            all.push(self.pool.acquire().await.expect("a connection"));
        }
        drop(all);
        while self.pool.num_idle() < MAX_CONNECTIONS.try_into().expect("a small number") {
            tokio::task::yield_now().await;
        }
        let mut other = PgConnection::connect_with(&self.server)
            .await
            .expect("connect to the test server");
        // Not with a timeout, which looks every 100 ms for each: they shall not have rested for long.
        let end =
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
        let mut alive = 1_i64;
        while alive > 0 {
            alive = sqlx::query_scalar(end)
                .bind(&self.name)
                .fetch_one(&mut other)
                .await
                .expect("end the connections");
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (name, server) = (std::mem::take(&mut self.name), self.server.clone());
        // A thread with a runtime of its own: the test's may be the one that is unwinding.
        let dropping = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            else {
                return;
            };
            runtime.block_on(async {
                if let Ok(mut connection) = PgConnection::connect_with(&server).await {
                    execute(
                        &mut connection,
                        format!(r#"drop database if exists "{name}" with (force)"#),
                    )
                    .await;
                }
            });
        });
        dropping.join().ok();
    }
}

/// The template of these migrations, made if it is missing.
async fn template(server: &PgConnectOptions, connection: &mut PgConnection) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in MIGRATOR.iter() {
        migration.checksum.hash(&mut hasher);
    }
    let name = format!("easel_template_{:016x}", hasher.finish());
    execute(
        connection,
        format!("select pg_advisory_lock({TEMPLATE_LOCK})"),
    )
    .await;
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut *connection)
            .await
            .expect("look for the template");
    if !exists {
        // Made under another name, so that one that was cut off is never taken for whole.
        let unfinished = format!("{name}_unfinished");
        execute(
            connection,
            format!(r#"drop database if exists "{unfinished}" with (force)"#),
        )
        .await;
        execute(connection, format!(r#"create database "{unfinished}""#)).await;
        let pool = connect(server.clone().database(&unfinished), 1)
            .await
            .expect("connect to the unfinished template");
        migrate(&pool).await.expect("migrate the template");
        pool.close().await;
        execute(
            connection,
            format!(r#"alter database "{unfinished}" rename to "{name}""#),
        )
        .await;
    }
    execute(
        connection,
        format!("select pg_advisory_unlock({TEMPLATE_LOCK})"),
    )
    .await;
    name
}

/// Database names cannot be parameters; ours are made of letters, digits and underscores.
async fn execute(connection: &mut PgConnection, sql: String) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(connection)
        .await;
    assert!(done.is_ok(), "{sql}: {done:?}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness of the tests has no configuration file"
)]
fn server() -> PgConnectOptions {
    let url = std::env::var(SERVER_VARIABLE).expect(
        "EASEL_TEST_DATABASE_URL is not set: start the tests with `tests/run`, or `tests/with-postgres cargo test`",
    );
    options_from_url(&url).expect("EASEL_TEST_DATABASE_URL is a postgres:// URL")
}
