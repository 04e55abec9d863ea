//! The private server's life: first start, restart, company, takeover, crash, and the ways it can fail.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sqlx::{ConnectOptions, Row};
use tempfile::TempDir;

use super::{postmaster::is_zombie, *};
use crate::config::{Config, Environment};

/// A directory that the server's user may enter too, when the tests run as root.
fn data_dir() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn config() -> DatabaseConfig {
    Config::from_text(None, "", &Environment::of_process())
        .unwrap()
        .database
}

async fn start(data_dir: &Path) -> PrivateServer {
    PrivateServer::start_with(&config(), data_dir, Durability::None)
        .await
        .unwrap_or_else(|error| panic!("{error:?}: {error}"))
}

async fn query(server: &PrivateServer, sql: &'static str) -> String {
    let mut connection = server.connect_options().connect().await.unwrap();
    let row = sqlx::raw_sql(sql).fetch_one(&mut connection).await.unwrap();
    row.get(0)
}

async fn execute(server: &PrivateServer, sql: &'static str) {
    let mut connection = server.connect_options().connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

/// A server that has ended and whose parent (this process) has not asked after it yet does not run.
fn runs(pid: i32) -> bool {
    let pid = Pid::from_raw(pid).unwrap();
    test_kill_process(pid).is_ok() && !is_zombie(pid)
}

/// What the kernel does with our locks when we are killed; the server goes on without us.
fn die(mut server: PrivateServer) {
    server.part = Part::Done;
    std::mem::forget(server);
}

#[tokio::test]
async fn starts_stops_and_keeps_what_was_written() {
    let data_dir = data_dir();
    let server = start(data_dir.path()).await;
    let pid = server.pid();
    assert_eq!(query(&server, "show listen_addresses").await, "");
    assert_eq!(query(&server, "show server_encoding").await, "UTF8");
    assert_eq!(query(&server, "show data_checksums").await, "on");
    assert_eq!(query(&server, "show lc_collate").await, "C");
    execute(&server, "create table kept as select 'yes' as answer").await;
    server.stop().await.unwrap();
    assert!(!runs(pid), "stopping waits until it is gone");
    assert!(!data_dir.path().join("postgres/postmaster.pid").exists());

    let server = start(data_dir.path()).await;
    assert_eq!(query(&server, "select answer from kept").await, "yes");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn keeps_its_promises_by_default_and_lets_nobody_in() {
    let data_dir = data_dir();
    let server = PrivateServer::start(&config(), data_dir.path())
        .await
        .unwrap();
    for setting in [
        "show fsync",
        "show synchronous_commit",
        "show full_page_writes",
    ] {
        assert_eq!(query(&server, setting).await, "on", "{setting}");
    }
    let intruder = server.connect_options().password("guess");
    let error = intruder.connect().await.unwrap_err();
    assert_eq!(sql_state(&error).as_deref(), Some("28P01"));
    // A lock is everybody's who can open its file.
    for private in ["postgres.password", "postgres.lock", "postgres.users"] {
        let path = data_dir.path().join(private);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_last_one_out_stops_it() {
    let data_dir = data_dir();
    let (first, second) = tokio::join!(start(data_dir.path()), start(data_dir.path()));
    assert_eq!(first.pid(), second.pid());
    first.stop().await.unwrap();
    assert_eq!(query(&second, "select 'still here'").await, "still here");
    let pid = second.pid();
    second.stop().await.unwrap();
    assert!(!runs(pid));
}

#[tokio::test]
async fn a_running_server_without_its_starter_is_taken_over() {
    let data_dir = data_dir();
    let server = start(data_dir.path()).await;
    let pid = server.pid();
    die(server);
    let heir = start(data_dir.path()).await;
    assert_eq!(heir.pid(), pid);
    heir.stop().await.unwrap();
    assert!(!data_dir.path().join("postgres/postmaster.pid").exists());
}

#[tokio::test]
async fn a_crashed_server_is_recovered() {
    let data_dir = data_dir();
    let server = PrivateServer::start(&config(), data_dir.path())
        .await
        .unwrap();
    execute(&server, "create table kept as select 'yes' as answer").await;
    // A connected backend is the orphan that the next server must wait for.
    let connection = server.connect_options().connect().await.unwrap();
    let pid = server.pid();
    die(server);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let heir = start(data_dir.path()).await;
    assert_ne!(heir.pid(), pid);
    assert_eq!(query(&heir, "select answer from kept").await, "yes");
    drop(connection);
    heir.stop().await.unwrap();
}

#[tokio::test]
async fn a_process_number_used_again_does_not_block_the_start() {
    let data_dir = data_dir();
    start(data_dir.path()).await.stop().await.unwrap();
    // What a killed container leaves, when its next life gives the number to somebody else: us.
    let cluster = data_dir.path().join("postgres");
    let (pid, place) = (std::process::id(), cluster.display());
    let stale = format!("{pid}\n{place}\n1\n5432\n{place}\n\n  1 1\nready\n");
    fs::write(cluster.join("postmaster.pid"), &stale).unwrap();
    fs::write(cluster.join(".s.PGSQL.5432.lock"), &stale).unwrap();
    start(data_dir.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_half_made_cluster_is_made_again() {
    let data_dir = data_dir();
    let unfinished = data_dir.path().join("postgres.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    start(data_dir.path()).await.stop().await.unwrap();
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn a_long_path_gets_a_socket_elsewhere() {
    let data_dir = data_dir();
    let long = data_dir
        .path()
        .join("long ".repeat(20))
        .join("data \"quoted\", too");
    let server = start(&long).await;
    let socket_dir = server.options.get_socket().unwrap().clone();
    assert!(socket_dir.starts_with(std::env::temp_dir()));
    let mode = fs::metadata(&socket_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let company = start(&long).await;
    company.stop().await.unwrap();
    assert!(socket_dir.exists());
    server.stop().await.unwrap();
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn only_one_serves() {
    let data_dir = data_dir();
    let lock = ServeLock::acquire(data_dir.path()).unwrap();
    let error = ServeLock::acquire(data_dir.path()).unwrap_err().to_string();
    let expected = format!(
        "another Easel (process {}) already serves",
        std::process::id()
    );
    assert!(error.starts_with(&expected), "{error}");
    drop(lock);
    drop(ServeLock::acquire(data_dir.path()).unwrap());
}

#[tokio::test]
async fn dropped_without_stopping_it_still_goes() {
    let data_dir = data_dir();
    let server = start(data_dir.path()).await;
    drop(server);
    let gone = async {
        while data_dir.path().join("postgres/postmaster.pid").exists() {
            sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn failures_say_what_to_do() {
    let data_dir = data_dir();
    let refused = async |config: &DatabaseConfig| {
        let result = PrivateServer::start(config, data_dir.path()).await;
        result.expect_err("no server").to_string()
    };
    let empty = tempfile::tempdir().unwrap();
    let wrong = DatabaseConfig {
        postgres_bin: Some(empty.path().to_owned()),
        ..config()
    };
    assert_eq!(
        refused(&wrong).await,
        format!(
            "[database] postgres_bin: there are no programs postgres and initdb in {}: name the directory that has \
             them, leave the key out to have them looked for, or use a server that runs already (DATABASE_URL)",
            empty.path().display()
        )
    );

    start(data_dir.path()).await.stop().await.unwrap();
    let config_file = data_dir.path().join("postgres/postgresql.conf");
    let text = fs::read_to_string(&config_file).unwrap();
    fs::write(&config_file, format!("{text}\nno_such_setting = 1\n")).unwrap();
    let error = refused(&config()).await;
    assert!(error.starts_with("PostgreSQL did not start:\n"), "{error}");
    assert!(error.contains("no_such_setting"), "{error}");
    fs::write(&config_file, text).unwrap();

    fs::remove_file(data_dir.path().join("postgres.password")).unwrap();
    let error = refused(&config()).await;
    assert!(
        error.contains("needs its password, which is missing"),
        "{error}"
    );
}

/// As root the server runs as somebody else, who cannot get below `/root`; as anybody else it is ours.
#[tokio::test]
async fn a_closed_directory_on_the_way_is_no_hindrance() {
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let data_dir = closed.path().join("data");
    start(&data_dir).await.stop().await.unwrap();
    start(&data_dir).await.stop().await.unwrap();
    let cluster = data_dir.join("postgres");
    let is_elsewhere = fs::symlink_metadata(&cluster).unwrap().is_symlink();
    assert_eq!(is_elsewhere, rustix::process::geteuid().is_root());
    let target = cluster.canonicalize().unwrap();
    assert!(target.join("PG_VERSION").exists());
    if is_elsewhere {
        fs::remove_dir_all(target.parent().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_was_killed_is_started_again() {
    let data_dir = data_dir();
    let mut server = PrivateServer::start(&config(), data_dir.path())
        .await
        .unwrap();
    execute(&server, "create table kept as select 'yes' as answer").await;
    assert!(server.revive(&config()).await.unwrap().is_none());
    let killed = server.pid();
    kill_process(Pid::from_raw(killed).unwrap(), Signal::KILL).unwrap();
    let revived = loop {
        if let Some(options) = server.revive(&config()).await.unwrap() {
            break options;
        }
        sleep(LOOK).await;
    };
    assert_ne!(server.pid(), killed);
    revived.connect().await.unwrap().close().await.unwrap();
    assert_eq!(query(&server, "select answer from kept").await, "yes");
    assert!(server.revive(&config()).await.unwrap().is_none());
    let last = server.pid();
    server.stop().await.unwrap();
    assert!(!runs(last));
}
