//! The cluster's files: where they are, whose they are, and how they come into being.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{
    Durability, PORT, PrivateServerError, Result, USER, io, make_data_dir, programs::Programs,
};

/// The places below a `data_dir`.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Absolute and without links, as the server itself sees it.
    pub(super) data_dir: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) log: PathBuf,
    pub(super) gate: PathBuf,
    pub(super) users: PathBuf,
    password: PathBuf,
}

/// Whom the server runs as when we are root.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What the address of a Unix socket can hold, without the zero at its end: `sun_path` is 108 bytes on
/// Linux and 104 on macOS and the BSDs.
const LONGEST_ADDRESS: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// What the names of socket directories outside `data_dir` begin with.
const DISTANT: &str = "easel-postgres-";

/// Where clusters are kept whose `data_dir` the server's user cannot reach.
const ELSEWHERE: &str = "/var/lib/easel";

impl Cluster {
    /// The cluster of `data_dir`, which is made if missing. It is below it; only when we are root and the
    /// server's user cannot get there (a checkout in `/root`), it is in a directory of its own, to which
    /// the link `data_dir/postgres` leads. Removing `data_dir` begins anew in both cases.
    pub(super) async fn of(data_dir: &Path) -> Result<Self> {
        make_data_dir(data_dir)?;
        let data_dir = data_dir
            .canonicalize()
            .map_err(io("find the directory", data_dir))?;
        let below = Self::below(data_dir.clone());
        let account = below.account().await?;
        let reachable = reachable(&data_dir, account.as_ref(), Path::new(ELSEWHERE))?;
        if reachable == data_dir {
            return Ok(below);
        }
        tracing::info!(
            directory = %reachable.display(),
            "the database is kept outside data_dir, which its user cannot reach"
        );
        Ok(Self::below(reachable))
    }

    fn below(data_dir: PathBuf) -> Self {
        Self {
            directory: data_dir.join("postgres"),
            log: data_dir.join("postgres.log"),
            gate: data_dir.join("postgres.lock"),
            users: data_dir.join("postgres.users"),
            password: data_dir.join("postgres.password"),
            data_dir,
        }
    }

    /// The major version that made the cluster; `None` when there is none yet.
    pub(super) fn major(&self) -> Result<Option<(u32, &Path)>> {
        let path = self.directory.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text
                .trim()
                .parse()
                .ok()
                .map(|major| (major, &*self.directory))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// The password of the cluster.
    pub(super) fn password(&self) -> Result<String> {
        fs::read_to_string(&self.password).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                PrivateServerError::NoPassword {
                    cluster: self.directory.clone(),
                    file: self.password.clone(),
                }
            } else {
                io("read", &self.password)(error)
            }
        })
    }

    /// Whom to run the server as: ourselves (`None`), or when we are root, the cluster's owner, or for a
    /// new one `postgres` or `nobody`.
    pub(super) async fn account(&self) -> Result<Option<Account>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        if let Ok(metadata) = fs::metadata(&self.directory)
            && metadata.uid() != 0
        {
            return Ok(Some(Account {
                name: metadata.uid().to_string(),
                uid: metadata.uid(),
                gid: metadata.gid(),
            }));
        }
        for name in ["postgres", "nobody"] {
            if let (Some(uid), Some(gid)) = (id("-u", name).await, id("-g", name).await) {
                let name = name.to_owned();
                return Ok(Some(Account { name, uid, gid }));
            }
        }
        Err(PrivateServerError::NoAccount)
    }

    /// Makes the cluster. It is built beside its place and moved there when it is whole, so that a crash
    /// in between leaves nothing that looks like one.
    pub(super) async fn init(
        &self,
        programs: &Programs,
        account: Option<&Account>,
        durability: Durability,
    ) -> Result<()> {
        let unfinished = self.data_dir.join("postgres.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(io("remove", &unfinished))?;
        }
        make_private_directory(&unfinished, account)?;
        self.write_password(account)?;
        let mut command = self.command(&programs.initdb(), account);
        command
            .arg("--pgdata")
            .arg(&unfinished)
            .args(["--username", USER, "--encoding", "UTF8", "--locale", "C"])
            .args(["--auth", "scram-sha-256", "--pwfile"])
            .arg(&self.password)
            .args(["--data-checksums", "--no-instructions"])
            .kill_on_drop(true);
        if durability == Durability::None {
            command.arg("--no-sync");
        }
        let output = command
            .output()
            .await
            .map_err(|error| self.spawn_error(&programs.initdb(), account, error))?;
        if !output.status.success() {
            let output = [output.stdout, output.stderr].concat();
            return Err(PrivateServerError::Init {
                output: String::from_utf8_lossy(&output).trim().to_owned(),
            });
        }
        fs::rename(&unfinished, &self.directory).map_err(io("move", &unfinished))?;
        let synced = File::open(&self.data_dir).and_then(|directory| directory.sync_all());
        synced.map_err(io("sync", &self.data_dir))
    }

    /// A command of `PostgreSQL`: as the right user, from a directory that this user may enter, without
    /// our environment (`PG…` variables would change what it does, and our secrets are none of its
    /// business), and in its own process group, so that Ctrl-C in the terminal reaches us only.
    pub(super) fn command(&self, program: &Path, account: Option<&Account>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.data_dir)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .process_group(0)
            .stdin(Stdio::null());
        if let Some(account) = account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Why a program could not be started: most likely the way to `data_dir` is closed for its user.
    pub(super) fn spawn_error(
        &self,
        program: &Path,
        account: Option<&Account>,
        error: std::io::Error,
    ) -> PrivateServerError {
        if error.kind() == std::io::ErrorKind::PermissionDenied
            && let Some(account) = account
            && let Some(directory) = closed_on_the_way(&self.data_dir, account)
        {
            return PrivateServerError::Closed {
                account: account.name.clone(),
                directory,
            };
        }
        io("start", program)(error)
    }

    /// The directory for the socket: the cluster's own, or, when that makes an address too long for the
    /// system, a new private one among the temporary files.
    pub(super) fn socket_dir(&self, account: Option<&Account>) -> Result<PathBuf> {
        if fits_an_address(&self.directory) {
            return Ok(self.directory.clone());
        }
        let name = format!("{DISTANT}{:016x}", rand::random::<u64>());
        let directory = std::env::temp_dir().join(name);
        make_private_directory(&directory, account)?;
        Ok(directory)
    }

    /// Removes a socket directory that is not the cluster's own; what we did not name is left alone.
    pub(super) fn remove_distant_socket(&self, socket_dir: Option<&Path>) {
        if let Some(directory) = socket_dir.filter(|directory| *directory != self.directory)
            && directory.starts_with(std::env::temp_dir())
            && directory
                .file_name()
                .is_some_and(|name| name.as_bytes().starts_with(DISTANT.as_bytes()))
        {
            // A rest in a temporary directory is not worth an error.
            fs::remove_dir_all(directory).ok();
        }
    }

    fn write_password(&self, account: Option<&Account>) -> Result<()> {
        let password = rand::random::<[u128; 2]>().map(|part| format!("{part:032x}"));
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(true).write(true).mode(0o600);
        let written = options.open(&self.password).and_then(|mut file| {
            // The mode above counts for a new file only.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(password.concat().as_bytes())?;
            file.sync_all()
        });
        written.map_err(io("write", &self.password))?;
        give(&self.password, account)
    }
}

/// `data_dir`, or a directory below `elsewhere` when `account` cannot get to `data_dir`: the one that the
/// link `data_dir/postgres` leads into, or a new one.
fn reachable(data_dir: &Path, account: Option<&Account>, elsewhere: &Path) -> Result<PathBuf> {
    let link = data_dir.join("postgres");
    if let Ok(target) = fs::read_link(&link)
        && let Some(directory) = target.parent()
    {
        fs::create_dir_all(directory).map_err(io("make the directory", directory))?;
        return Ok(directory.to_owned());
    }
    let closed = account.is_some_and(|account| closed_on_the_way(data_dir, account).is_some());
    if !closed || link.exists() {
        return Ok(data_dir.to_owned());
    }
    let directory = elsewhere.join(format!("{:016x}", rand::random::<u64>()));
    fs::create_dir_all(&directory).map_err(io("make the directory", &directory))?;
    symlink(directory.join("postgres"), &link).map_err(io("link", &link))?;
    Ok(directory)
}

fn fits_an_address(directory: &Path) -> bool {
    let socket = directory.join(format!(".s.PGSQL.{PORT}"));
    socket.as_os_str().len() <= LONGEST_ADDRESS
}

fn make_private_directory(path: &Path, account: Option<&Account>) -> Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(io("make the directory", path))?;
    give(path, account)
}

fn give(path: &Path, account: Option<&Account>) -> Result<()> {
    match account {
        Some(account) => {
            chown(path, Some(account.uid), Some(account.gid)).map_err(io("give away", path))
        }
        None => Ok(()),
    }
}

/// The first directory on the way to `path`, from the root, that `account` may not enter, as far as the
/// plain permission bits say.
fn closed_on_the_way(path: &Path, account: &Account) -> Option<PathBuf> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    let closed = way.into_iter().find(|directory| {
        fs::metadata(directory).is_ok_and(|metadata| {
            let enter = if metadata.uid() == account.uid {
                0o100
            } else if metadata.gid() == account.gid {
                0o010
            } else {
                0o001
            };
            metadata.mode() & enter == 0
        })
    });
    closed.map(Path::to_owned)
}

/// A number of the user `name`, from whatever directory service this machine uses.
async fn id(which: &str, name: &str) -> Option<u32> {
    let mut command = Command::new("id");
    let command = command.args([which, name]).stdin(Stdio::null());
    let output = command.kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_socket_address_is_the_systems() {
        let base = "/".to_owned() + &"d".repeat(LONGEST_ADDRESS - 1 - "/.s.PGSQL.5432".len());
        assert!(fits_an_address(Path::new(&base)));
        assert!(!fits_an_address(Path::new(&(base + "d"))));
    }

    #[test]
    fn a_closed_data_dir_is_evaded_until_it_is_removed() {
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let elsewhere = top.path().join("elsewhere");
        let data_dir = top.path().join("closed/data");
        fs::create_dir_all(&data_dir).unwrap();
        let stranger = Account {
            name: "stranger".to_owned(),
            uid: u32::MAX - 1,
            gid: u32::MAX - 1,
        };
        let open = reachable(&data_dir, Some(&stranger), &elsewhere).unwrap();
        assert_eq!(open, data_dir);

        fs::set_permissions(
            data_dir.parent().unwrap(),
            fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        assert_eq!(reachable(&data_dir, None, &elsewhere).unwrap(), data_dir);
        let first = reachable(&data_dir, Some(&stranger), &elsewhere).unwrap();
        assert_eq!(first.parent(), Some(elsewhere.as_path()));
        let again = reachable(&data_dir, Some(&stranger), &elsewhere).unwrap();
        assert_eq!(again, first);

        fs::remove_dir_all(&data_dir).unwrap();
        fs::create_dir(&data_dir).unwrap();
        let anew = reachable(&data_dir, Some(&stranger), &elsewhere).unwrap();
        assert_ne!(anew, first);
    }

    #[test]
    fn names_the_closed_directory() {
        let top = tempfile::tempdir().unwrap();
        let closed = top.path().join("closed");
        let data_dir = closed.join("data");
        fs::create_dir_all(&data_dir).unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o755)).unwrap();
        let stranger = Account {
            name: "stranger".to_owned(),
            uid: 4_000_000_001,
            gid: 4_000_000_001,
        };
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(
            closed_on_the_way(&data_dir, &stranger),
            Some(closed.clone())
        );
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(closed_on_the_way(&data_dir, &stranger), None);
    }
}
