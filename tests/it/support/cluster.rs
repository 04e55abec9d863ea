//! A `PostgreSQL` of one test's own, which may crash: the server that all tests share must not.
//!
//! The programs, and the account that runs them, are those of the shared server.

use std::{
    fs::File,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tempfile::TempDir;

use super::database::server_url;

/// How long it may take to start, with what a crash left to it.
const START_WITHIN: Duration = Duration::from_mins(1);

/// The cluster and its server, until it is dropped.
pub(crate) struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    /// Who it runs as, where we are root.
    account: Option<(u32, u32)>,
    server: Option<Child>,
}

impl Cluster {
    /// A new one, and its server running.
    pub(crate) async fn start() -> Self {
        let mut connection = PgConnection::connect(&server_url()).await.unwrap();
        let mut ask = async |sql: &str| -> String {
            let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
                .fetch_one(&mut connection)
                .await
                .unwrap();
            row.get(0)
        };
        let programs = ask("select setting from pg_config where name = 'BINDIR'").await;
        let data = ask("show data_directory").await;
        connection.close().await.unwrap();
        let account = geteuid().is_root().then(|| {
            let data = std::fs::metadata(data).unwrap();
            (data.uid(), data.gid())
        });
        let directory = tempfile::tempdir().unwrap();
        if let Some((user, group)) = account {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let mut cluster = Self {
            directory,
            programs: programs.into(),
            account,
            server: None,
        };
        let made = cluster
            .command("initdb")
            .args([
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .args(["-U", "postgres", "-D"])
            .arg(cluster.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        cluster.restart().await;
        cluster
    }

    /// The URL of its own database.
    pub(crate) fn url(&self) -> String {
        let directory = self.directory.path().display();
        format!("postgres://postgres@localhost/postgres?host={directory}")
    }

    /// Ends the server as a crash would: nothing is written, every connection breaks.
    pub(crate) fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
            // "Immediate shutdown"; one that has ended by itself is found by waiting.
            kill_process(pid.unwrap(), Signal::QUIT).ok();
            server.wait().unwrap();
        }
    }

    /// Starts it again and waits until it has recovered.
    pub(crate) async fn restart(&mut self) {
        self.crash();
        let log = self.directory.path().join("log");
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap()
        };
        let directory = self.directory.path();
        // What is committed is handed to the system, which outlives the server; it need not reach the disk.
        let server = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .args(["-c", "max_connections=200", "-c"])
            .arg(format!("unix_socket_directories={}", directory.display()))
            .stdout(open())
            .stderr(open())
            .spawn();
        self.server = Some(server.unwrap());
        let begun = Instant::now();
        while PgConnection::connect(&self.url()).await.is_err() {
            assert!(
                begun.elapsed() < START_WITHIN,
                "the cluster does not start:\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir(Path::new("/"))
            .stdin(Stdio::null());
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}
