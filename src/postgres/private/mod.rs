//! The private server: a `PostgreSQL` of our own under `data_dir`, for those who have none.
//!
//! It listens on a Unix socket only, asks for a password that lies beside it, and keeps `fsync` on. It
//! knows nothing of what is stored in it. The one idea: **the last one out turns off the light.** Every
//! user of the cluster, `serve` and each command, holds a shared lock while it works; starting and
//! stopping happen behind an exclusive one. Who comes first starts the cluster, who comes while it runs
//! (also when its starter was killed) joins it, and who leaves last stops it. The locks are the kernel's
//! (`flock`), so no crash leaves one behind.
//!
//! In `data_dir`: `postgres/` the cluster, `postgres.password`, `postgres.log`, `postgres.lock` (start
//! and stop), `postgres.users` (who works), `serve.lock` (at most one `serve`).

mod cluster;
mod error;
mod locks;
mod postmaster;
mod programs;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::{Instant, sleep};

use self::{
    cluster::Cluster,
    postmaster::{PidFile, Postmaster},
    programs::Programs,
};
pub use self::{error::PrivateServerError, locks::ServeLock};
use crate::config::DatabaseConfig;

type Result<T> = std::result::Result<T, PrivateServerError>;

/// A running private server, and our use of it.
#[must_use = "dropped without `stop`, the server is told to go but nobody waits for it"]
pub struct PrivateServer {
    cluster: Cluster,
    postmaster: Postmaster,
    options: PgConnectOptions,
    part: Part,
}

/// Our part in the server's life: who has to see to its end.
#[derive(Debug)]
enum Part {
    /// We have just started it, behind the gate: it is ours alone.
    Starting,
    /// We work with it, as others may; the lock says so.
    Using(File),
    /// We are done with it.
    Done,
}

/// Whether a commit must survive the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Yes.
    Full,
    /// No: for tests, whose databases nobody needs tomorrow.
    None,
}

/// How long a starting server may say nothing at all.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may say that it is still starting, as it does while it recovers from a crash.
const RECOVERY: Duration = Duration::from_mins(10);
/// How long to wait for another process that starts or stops the cluster.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at something that changes within milliseconds.
const LOOK: Duration = Duration::from_millis(10);

impl PrivateServer {
    /// Joins the cluster under `data_dir`, starting it, and making it before that, as needed.
    ///
    /// # Errors
    /// [`PrivateServerError`]; what a person has to do about it is in the message.
    ///
    /// # Cancel safety
    /// Dropped before it returns, a server that was just started is told to stop.
    pub async fn start(config: &DatabaseConfig, data_dir: &Path) -> Result<Self> {
        Self::start_with(config, data_dir, Durability::Full).await
    }

    /// As [`PrivateServer::start`], with a durability to choose.
    ///
    /// # Errors
    /// As [`PrivateServer::start`].
    pub async fn start_with(
        config: &DatabaseConfig,
        data_dir: &Path,
        durability: Durability,
    ) -> Result<Self> {
        let cluster = Cluster::of(data_dir).await?;
        let gate = locks::exclusive(&cluster.gate, PATIENCE).await?;
        let mut server = match join(&cluster).await? {
            Some(server) => server,
            None => launch(config, cluster, durability).await?,
        };
        server.part = Part::Using(locks::shared(&server.cluster.users)?);
        drop(gate);
        Ok(server)
    }

    /// How to connect to it.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// The process id of the server.
    pub fn pid(&self) -> i32 {
        self.postmaster.pid()
    }

    /// Looks whether the server still runs, and when it has ended (killed by the system for its memory, or
    /// by a person) starts it again. Returns how to connect then, which may have changed; `None` when there
    /// was nothing to do.
    ///
    /// # Errors
    /// As [`PrivateServer::start`]; safe to call again.
    ///
    /// # Cancel safety
    /// Dropped before it returns, a server that was just started is told to stop.
    pub async fn revive(&mut self, config: &DatabaseConfig) -> Result<Option<PgConnectOptions>> {
        if self.postmaster.is_running() {
            return Ok(None);
        }
        let gate = locks::exclusive(&self.cluster.gate, PATIENCE).await?;
        let mut successor = match join(&self.cluster).await? {
            Some(server) => server,
            None => launch(config, self.cluster.clone(), Durability::Full).await?,
        };
        // Our use goes on; only the process is another one.
        std::mem::swap(&mut self.postmaster, &mut successor.postmaster);
        successor.part = Part::Done;
        self.options = successor.options.clone();
        drop(gate);
        Ok(Some(self.connect_options()))
    }

    /// Ends our use; when nobody else uses the cluster, stops it and waits until it is down.
    ///
    /// # Errors
    /// [`PrivateServerError::Stop`] when it does not go.
    pub async fn stop(mut self) -> Result<()> {
        let gate = locks::exclusive(&self.cluster.gate, PATIENCE).await?;
        self.part = Part::Done;
        if let Some(alone) = locks::try_exclusive(&self.cluster.users)? {
            self.postmaster.stop().await?;
            self.cluster
                .remove_distant_socket(self.options.get_socket().map(PathBuf::as_path));
            drop(alone);
        }
        drop(gate);
        Ok(())
    }
}

/// The way out of a panic or a cancelled start: the server is told to stop if nobody else uses it.
impl Drop for PrivateServer {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.part, Part::Done) {
            Part::Starting => self.postmaster.tell_to_stop(),
            Part::Using(lock) => {
                drop(lock);
                let gate = locks::try_exclusive(&self.cluster.gate).ok().flatten();
                let alone = locks::try_exclusive(&self.cluster.users).ok().flatten();
                if gate.is_some() && alone.is_some() {
                    self.postmaster.tell_to_stop();
                }
            }
            Part::Done => {}
        }
    }
}

/// Without the options: they print the password.
impl fmt::Debug for PrivateServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PrivateServer")
            .field("directory", &self.cluster.directory)
            .field("postmaster", &self.postmaster)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

/// Takes over a server that runs already: another process of ours works with it, or its starter died.
async fn join(cluster: &Cluster) -> Result<Option<PrivateServer>> {
    let deadline = Instant::now() + SILENCE;
    loop {
        let Some(file) = PidFile::read(cluster)? else {
            return Ok(None);
        };
        if !file.is_alive(cluster) {
            if file.make_way(cluster)? {
                cluster.remove_distant_socket(file.socket_dir.as_deref());
                return Ok(None);
            }
        } else if let Some(socket_dir) = &file.socket_dir {
            let options = connect_options(cluster, socket_dir)?;
            match knock(&options).await? {
                Knock::Open => {
                    return Ok(Some(PrivateServer {
                        cluster: cluster.clone(),
                        postmaster: Postmaster::adopted(file.pid),
                        options,
                        part: Part::Starting,
                    }));
                }
                // It is coming up or going down; both end.
                Knock::Wait | Knock::Silence => {}
            }
        }
        if Instant::now() > deadline {
            return Err(PrivateServerError::Silent {
                pid: file.pid.as_raw_nonzero().get(),
            });
        }
        sleep(LOOK).await;
    }
}

/// Starts the server, making the cluster first if there is none.
async fn launch(
    config: &DatabaseConfig,
    cluster: Cluster,
    durability: Durability,
) -> Result<PrivateServer> {
    let programs = Programs::find(config, cluster.major()?).await?;
    let account = cluster.account().await?;
    if cluster.major()?.is_none() {
        cluster
            .init(&programs, account.as_ref(), durability)
            .await?;
    }
    let socket_dir = cluster.socket_dir(account.as_ref())?;
    let options = connect_options(&cluster, &socket_dir)?;
    let give_up = Instant::now() + SILENCE;
    loop {
        let start = postmaster::Start {
            programs: &programs,
            account: account.as_ref(),
            socket_dir: &socket_dir,
            max_connections: config.max_connections,
            durability,
        };
        let mut server = PrivateServer {
            postmaster: Postmaster::spawn(&cluster, &start)?,
            cluster: cluster.clone(),
            options: options.clone(),
            part: Part::Starting,
        };
        match server.until_ready().await {
            Ok(()) => return Ok(server),
            // The backends of a server that was killed need a moment to notice.
            Err(PrivateServerError::Start { log })
                if log.contains("shared memory block") && Instant::now() < give_up =>
            {
                sleep(LOOK * 10).await;
            }
            Err(error) => return Err(error),
        }
    }
}

impl PrivateServer {
    async fn until_ready(&mut self) -> Result<()> {
        let silence_ends = Instant::now() + SILENCE;
        let recovery_ends = Instant::now() + RECOVERY;
        loop {
            if let Some(error) = self.postmaster.has_ended(&self.cluster)? {
                return Err(error);
            }
            let deadline = match knock(&self.options).await? {
                Knock::Open => return Ok(()),
                Knock::Wait => recovery_ends,
                Knock::Silence => silence_ends,
            };
            if Instant::now() > deadline {
                return Err(PrivateServerError::Silent {
                    pid: self.postmaster.pid(),
                });
            }
            sleep(LOOK).await;
        }
    }
}

const USER: &str = "easel";
const DATABASE: &str = "easel";
/// Part of the socket's name only; nothing listens on a port.
const PORT: u16 = 5432;

fn connect_options(cluster: &Cluster, socket_dir: &Path) -> Result<PgConnectOptions> {
    Ok(PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(PORT)
        .username(USER)
        .password(&cluster.password()?)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
        .application_name("easel"))
}

/// What a server answers to a connection.
enum Knock {
    /// Ready, and our database exists.
    Open,
    /// It is starting or stopping.
    Wait,
    /// Nobody is there.
    Silence,
}

async fn knock(options: &PgConnectOptions) -> Result<Knock> {
    match options.connect().await {
        Ok(connection) => {
            connection.close().await.ok();
            Ok(Knock::Open)
        }
        Err(sqlx::Error::Io(_)) => Ok(Knock::Silence),
        Err(error) => match sql_state(&error).as_deref() {
            // cannot_connect_now, admin_shutdown
            Some("57P03" | "57P01") => Ok(Knock::Wait),
            // invalid_catalog_name
            Some("3D000") => {
                make_database(options)
                    .await
                    .map_err(PrivateServerError::Refused)?;
                Ok(Knock::Open)
            }
            Some(_) => Err(PrivateServerError::Refused(error)),
            // Cut off in the middle: it went down while we knocked.
            None => Ok(Knock::Silence),
        },
    }
}

async fn make_database(options: &PgConnectOptions) -> sqlx::Result<()> {
    let mut connection = options.clone().database("postgres").connect().await?;
    let made = sqlx::raw_sql("create database easel")
        .execute(&mut connection)
        .await;
    connection.close().await.ok();
    made.map(drop)
}

fn sql_state(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Makes `data_dir` if it is missing; absolute in the error, because it may begin at the current directory.
fn make_data_dir(data_dir: &Path) -> Result<()> {
    std::fs::create_dir_all(data_dir).map_err(|source| PrivateServerError::DataDir {
        path: std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()),
        source,
    })
}

/// The error of a file operation.
fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PrivateServerError {
    let path: PathBuf = path.to_owned();
    move |source| PrivateServerError::Io {
        action,
        path,
        source,
    }
}
