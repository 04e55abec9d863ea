//! Migrations that many start at once, transactions that lose a race, secrets that all agree on.

use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::ExposeSecret;

use super::{testing::TestDatabase, *};

#[tokio::test]
async fn every_replica_may_migrate_and_a_newer_database_is_fine() {
    let database = TestDatabase::new().await;
    // The template is migrated; take it back to nothing, so that there is something to race for.
    sqlx::raw_sql("drop schema public cascade; create schema public")
        .execute(&database.pool)
        .await
        .unwrap();
    let migrations = (0..6).map(|_| migrate(&database.pool));
    for outcome in futures_util::future::join_all(migrations).await {
        outcome.unwrap();
    }
    sqlx::raw_sql(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of a later Easel', true, '', 0)",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    migrate(&database.pool).await.unwrap();
    sqlx::raw_sql("update _sqlx_migrations set checksum = '\\x00' where version = 1")
        .execute(&database.pool)
        .await
        .unwrap();
    let changed = migrate(&database.pool).await;
    assert!(
        matches!(changed, Err(PostgresError::Migrate(_))),
        "{changed:?}"
    );
}

#[tokio::test]
async fn a_deadlock_runs_the_body_again() {
    let database = TestDatabase::new().await;
    sqlx::raw_sql("create table counters (id integer primary key, value integer); insert into counters values (1, 0), (2, 0)")
        .execute(&database.pool)
        .await
        .unwrap();
    let runs = AtomicU32::new(0);
    let meeting = tokio::sync::Barrier::new(2);
    let crossing = async |first: i32, second: i32| {
        let (runs, meeting) = (&runs, &meeting);
        run_tx::<_, PostgresError, _>(&database.pool, "cross", move |mut tx| {
            Box::pin(async move {
                let during = |source| PostgresError::database("cross", source);
                let run = runs.fetch_add(1, Ordering::SeqCst);
                let add = "update counters set value = value + 1 where id = $1";
                sqlx::query(add)
                    .bind(first)
                    .execute(&mut *tx)
                    .await
                    .map_err(during)?;
                if run < 2 {
                    // Both hold their first row now: a deadlock that PostgreSQL ends for one of them.
                    meeting.wait().await;
                }
                sqlx::query(add)
                    .bind(second)
                    .execute(&mut *tx)
                    .await
                    .map_err(during)?;
                Ok(())
            })
        })
        .await
    };
    let (one, other) = futures_util::future::join(crossing(1, 2), crossing(2, 1)).await;
    one.unwrap();
    other.unwrap();
    assert!(runs.load(Ordering::SeqCst) > 2, "one of them ran again");
    let values: Vec<i32> = sqlx::query_scalar("select value from counters order by id")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!(values, [2, 2], "each was done once");
}

#[tokio::test]
async fn a_body_that_fails_leaves_nothing() {
    let database = TestDatabase::new().await;
    let outcome = run_tx::<(), PostgresError, _>(&database.pool, "fail", move |mut tx| {
        Box::pin(async move {
            sqlx::raw_sql("create table traces ()")
                .execute(&mut *tx)
                .await
                .unwrap();
            Err(PostgresError::TooOld {
                found: "none".to_owned(),
            })
        })
    })
    .await;
    assert!(matches!(outcome, Err(PostgresError::TooOld { .. })));
    let left: bool = sqlx::query_scalar("select to_regclass('traces') is not null")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(!left);
}

#[tokio::test]
async fn replicas_agree_on_a_secret() {
    let database = TestDatabase::new().await;
    let asking = (0..8).map(|_| secrets::secret(&database.pool, "links"));
    let answers = futures_util::future::join_all(asking).await;
    let first = answers[0].as_ref().unwrap().expose_secret();
    assert_eq!(first.len(), 32);
    for answer in &answers {
        assert_eq!(answer.as_ref().unwrap().expose_secret(), first);
    }
    let other = secrets::secret(&database.pool, "other").await.unwrap();
    assert_ne!(other.expose_secret(), first);
}

/// As after a restart of the server: every pooled connection is dead, and none has rested long enough to be
/// asked first.
#[tokio::test]
async fn connections_that_died_while_they_rested_fail_no_transaction() {
    let database = TestDatabase::new().await;
    database.kill_connections().await;
    let one = run_tx::<i32, PostgresError, _>(&database.pool, "count", move |mut tx| {
        Box::pin(async move {
            sqlx::query_scalar("select 1")
                .fetch_one(&mut *tx)
                .await
                .map_err(|source| PostgresError::database("count", source))
        })
    })
    .await;
    assert_eq!(one.unwrap(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_commit_runs_the_body_again() {
    let database = TestDatabase::new().await;
    sqlx::raw_sql("create table traces (run integer)")
        .execute(&database.pool)
        .await
        .unwrap();
    let runs = AtomicU32::new(0);
    let runs = &runs;
    run_tx::<_, PostgresError, _>(&database.pool, "leave a trace", move |mut tx| {
        Box::pin(async move {
            let during = |source| PostgresError::database("leave a trace", source);
            let run = runs.fetch_add(1, Ordering::SeqCst);
            sqlx::query("insert into traces values ($1)")
                .bind(i32::try_from(run).unwrap())
                .execute(&mut *tx)
                .await
                .map_err(during)?;
            if run == 0 {
                sqlx::query("select pg_terminate_backend(pg_backend_pid())")
                    .execute(&mut *tx)
                    .await
                    .map_err(during)?;
            }
            Ok(())
        })
    })
    .await
    .unwrap();
    let traces: Vec<i32> = sqlx::query_scalar("select run from traces")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!(traces, [1]);
}

#[tokio::test]
async fn a_forgotten_lock_is_not_waited_for_for_ever() {
    let database = TestDatabase::new().await;
    for (setting, expected) in [("lock_timeout", "5s"), ("statement_timeout", "1min")] {
        let found: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(found, expected, "{setting}");
    }
    let mut forgotten = database.pool.begin().await.unwrap();
    sqlx::query("lock table secrets")
        .execute(&mut *forgotten)
        .await
        .unwrap();
    let mut waiting = database.pool.begin().await.unwrap();
    sqlx::query("set local lock_timeout = '20ms'")
        .execute(&mut *waiting)
        .await
        .unwrap();
    let refused = sqlx::query("select from secrets")
        .execute(&mut *waiting)
        .await
        .unwrap_err();
    assert!(is_passing(&refused) && !is_broken(&refused), "{refused}");
}

#[tokio::test]
async fn what_would_fail_again_is_no_passing_trouble() {
    let database = TestDatabase::new().await;
    for mistake in [
        "select 1/0",
        "select from nowhere",
        "insert into secrets (name, value) values ('x', '')",
    ] {
        let refused = sqlx::query(mistake)
            .execute(&database.pool)
            .await
            .unwrap_err();
        assert!(!is_passing(&refused), "{mistake}: {refused}");
    }
}

#[test]
fn a_wrong_url_is_not_repeated() {
    let refused = options_from_url("mysql://user:hunter2@host/db").unwrap_err();
    let whole = format!("{refused} {refused:?}");
    assert!(!whole.contains("hunter2"), "{whole}");
}

/// Were one misspelt or lost, holds and settlements would slow down with the size of the tables.
#[tokio::test]
async fn sessions_look_rows_up_and_only_wide_transactions_read_tables() {
    let database = TestDatabase::new().await;
    let plan = "explain select * from holds where amount_nano_usd > 5";
    let narrow: String = sqlx::query_scalar(plan)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    let by_key = "explain select h.id from holds h join unnest($1::text[]) as wanted (id) on h.generation_id = wanted.id";
    let joined: Vec<String> = sqlx::query_scalar(by_key)
        .bind(["gen_1", "gen_2"])
        .fetch_all(&database.pool)
        .await
        .unwrap();
    let joined = joined.join("\n");
    assert!(
        joined.contains("Nested Loop") && joined.contains("holds_pkey"),
        "{joined}"
    );
    let mut wide = begin_wide(&database.pool).await.unwrap();
    let found: String = sqlx::query_scalar(plan)
        .fetch_one(&mut *wide)
        .await
        .unwrap();
    assert!(found.starts_with("Seq Scan"), "{found}");
    assert_ne!(narrow, found, "at its usual price");
    let refused = sqlx::query("insert into secrets (name, value) values ('x', '')")
        .execute(&mut *wide)
        .await;
    assert!(refused.unwrap_err().to_string().contains("read-only"));
}
