//! The server process: started by us or found running, told to stop, waited for.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::{
    process::Child,
    time::{Instant, sleep},
};

use super::{
    Durability, LOOK, PORT, PrivateServerError, Result,
    cluster::{Account, Cluster},
    io,
    programs::Programs,
};

/// What `postmaster.pid` says; the server writes it line by line while it starts.
/// Format: `PostgreSQL` `src/include/utils/pidfile.h`.
#[derive(Debug)]
pub(super) struct PidFile {
    pub(super) pid: Pid,
    pub(super) socket_dir: Option<PathBuf>,
}

/// A server process.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: Pid,
    /// When we started it ourselves.
    child: Option<Child>,
    /// How long the log was when it started.
    log_start: u64,
}

/// How to start one.
pub(super) struct Start<'a> {
    pub(super) programs: &'a Programs,
    pub(super) account: Option<&'a Account>,
    pub(super) socket_dir: &'a Path,
    pub(super) max_connections: u32,
    pub(super) durability: Durability,
}

/// How long a shutdown may take, with its last checkpoint.
const FAST_SHUTDOWN: Duration = Duration::from_mins(1);
/// How long one without checkpoint may take.
const IMMEDIATE_SHUTDOWN: Duration = Duration::from_secs(5);
/// A log that is longer begins anew.
const LONGEST_LOG: u64 = 1 << 20;
/// How much of the log goes into an error.
const LOG_LINES: usize = 8;

impl PidFile {
    pub(super) fn read(cluster: &Cluster) -> Result<Option<Self>> {
        let path = path(cluster);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let lines: Vec<&str> = text.lines().collect();
        let pid = lines.first().and_then(|pid| pid.trim().parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let socket_dir = lines.get(4).filter(|line| !line.is_empty());
        Ok(Some(Self {
            pid,
            socket_dir: socket_dir.map(PathBuf::from),
        }))
    }

    /// Whether this server runs.
    pub(super) fn is_alive(&self, cluster: &Cluster) -> bool {
        exists(self.pid) && works_in(self.pid, &cluster.directory)
    }

    /// Sees to it that a new server can start after this dead one; `false` when that needs a moment.
    ///
    /// The file of a dead server normally stays: the new one reads from it where its predecessor's shared
    /// memory is, and waits for orphans there. But when the number belongs to another process now (as it
    /// happens in containers, or because nobody collects the dead), the server would take that process
    /// for its predecessor and refuse to start. Then the file goes, once no orphan works in the cluster.
    pub(super) fn make_way(&self, cluster: &Cluster) -> Result<bool> {
        if !exists(self.pid) {
            return Ok(true);
        }
        if anybody_works_in(&cluster.directory) {
            return Ok(false);
        }
        // The socket's own lock names the same process.
        let socket_lock = self.socket_dir.as_ref().unwrap_or(&cluster.directory);
        let socket_lock = socket_lock.join(format!(".s.PGSQL.{PORT}.lock"));
        for path in [socket_lock, path(cluster)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(true)
    }
}

impl Postmaster {
    /// A server that somebody else started.
    pub(super) const fn adopted(pid: Pid) -> Self {
        Self {
            pid,
            child: None,
            log_start: 0,
        }
    }

    /// Starts the server in the foreground, as our child in its own process group.
    pub(super) fn spawn(cluster: &Cluster, start: &Start<'_>) -> Result<Self> {
        let log_start = fs::metadata(&cluster.log).map_or(0, |metadata| metadata.len());
        let begin_anew = log_start > LONGEST_LOG;
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true).mode(0o600);
        let log = options
            .open(&cluster.log)
            .and_then(|log| {
                if begin_anew {
                    log.set_len(0)?;
                }
                Ok((log.try_clone()?, log))
            })
            .map_err(io("open", &cluster.log))?;
        let program = start.programs.postgres();
        let mut command = cluster.command(&program, start.account);
        command.arg("-D").arg(&cluster.directory);
        for (name, value) in settings(start) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let child = command
            .stdout(Stdio::from(log.0))
            .stderr(Stdio::from(log.1))
            .spawn()
            .map_err(|error| cluster.spawn_error(&program, start.account, error))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.ok_or_else(|| PrivateServerError::Start {
                log: "it ended before it began".to_owned(),
            })?,
            child: Some(child),
            log_start: if begin_anew { 0 } else { log_start },
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether a server that we started has ended, and what it said.
    pub(super) fn has_ended(&mut self, cluster: &Cluster) -> Result<Option<PrivateServerError>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait().map_err(io("watch", &cluster.directory))?;
        Ok(status.map(|status| PrivateServerError::Start {
            log: self
                .log_tail(cluster)
                .unwrap_or_else(|| format!("it ended with {status} and logged nothing")),
        }))
    }

    /// Whether it still runs.
    pub(super) fn is_running(&mut self) -> bool {
        match &mut self.child {
            // An error says nothing about the server.
            Some(child) => !matches!(child.try_wait(), Ok(Some(_))),
            None => exists(self.pid) && !is_zombie(self.pid),
        }
    }

    /// Asks for a fast shutdown: clients are cut off, everything is written. No waiting.
    pub(super) fn tell_to_stop(&self) {
        // It may have gone by itself.
        kill_process(self.pid, Signal::INT).ok();
    }

    /// Stops the server and waits until it is gone.
    pub(super) async fn stop(&mut self) -> Result<()> {
        // Its number may be another process's by now.
        if !self.is_running() {
            return Ok(());
        }
        for (signal, patience) in [
            (Signal::INT, FAST_SHUTDOWN),
            (Signal::QUIT, IMMEDIATE_SHUTDOWN),
        ] {
            if kill_process(self.pid, signal).is_err() || self.is_gone_within(patience).await {
                return Ok(());
            }
        }
        Err(PrivateServerError::Stop { pid: self.pid() })
    }

    async fn is_gone_within(&mut self, patience: Duration) -> bool {
        if let Some(child) = &mut self.child {
            return tokio::time::timeout(patience, child.wait()).await.is_ok();
        }
        let deadline = Instant::now() + patience;
        while exists(self.pid) && !is_zombie(self.pid) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    fn log_tail(&self, cluster: &Cluster) -> Option<String> {
        let log = fs::read(&cluster.log).ok()?;
        let start = usize::try_from(self.log_start).ok()?;
        let log = String::from_utf8_lossy(log.get(start..)?);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..)?;
        (!tail.is_empty()).then(|| tail.join("\n"))
    }
}

/// The server's settings; given at every start, so that the cluster's own files stay as `initdb` wrote
/// them.
fn settings(start: &Start<'_>) -> Vec<(&'static str, String)> {
    let durable = match start.durability {
        Durability::Full => "on",
        Durability::None => "off",
    };
    // A list of quoted paths, to the server.
    let socket_dir = start.socket_dir.display().to_string().replace('"', "\"\"");
    // The pool, the commands beside it, and some for a person with psql.
    let connections = start.max_connections.saturating_add(32).max(200);
    let mut settings = vec![
        ("listen_addresses", String::new()),
        ("port", PORT.to_string()),
        ("unix_socket_directories", format!("\"{socket_dir}\"")),
        ("unix_socket_permissions", "0700".to_owned()),
        ("max_connections", connections.to_string()),
        ("cluster_name", "easel".to_owned()),
    ];
    let fixed = [
        ("fsync", durable),
        ("synchronous_commit", durable),
        ("full_page_writes", durable),
        // Short statements: compiling them costs more than running them.
        ("jit", "off"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
        ("log_checkpoints", "off"),
        // I10: statements and the values in a constraint's detail stay out of the log.
        ("log_statement", "none"),
        ("log_min_error_statement", "panic"),
        ("log_error_verbosity", "terse"),
        ("log_parameter_max_length_on_error", "0"),
    ];
    settings.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    settings
}

fn path(cluster: &Cluster) -> PathBuf {
    cluster.directory.join("postmaster.pid")
}

/// Whether a process has this number, be it ours to signal or not.
fn exists(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Whether the process works in `directory`, as a server does in its cluster. Without `/proc` its name
/// must do.
fn works_in(pid: Pid, directory: &Path) -> bool {
    let pid = pid.as_raw_nonzero().to_string();
    if !Path::new("/proc/self/cwd").exists() {
        let listed = std::process::Command::new("ps")
            .args(["-o", "command=", "-p", &pid])
            .output();
        return listed
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"));
    }
    let of_process = fs::metadata(Path::new("/proc").join(pid).join("cwd"));
    match (of_process, fs::metadata(directory)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        // Somebody else's process; the cluster's are ours, or we are root.
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn anybody_works_in(directory: &Path) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .any(|pid| works_in(pid, directory))
}

/// Whether the process has ended and only waits for its parent to notice, who may never do so.
pub(super) fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The state follows the name, which is in parentheses and may contain anything.
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}
