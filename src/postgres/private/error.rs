//! Why the private server does not run, in words that say what to do.

use std::path::PathBuf;

/// Why the private server does not run.
#[derive(Debug, thiserror::Error)]
pub enum PrivateServerError {
    /// No `PostgreSQL` on this machine.
    #[error(
        "PostgreSQL {oldest} or newer is needed and was not found, neither in PATH nor in the usual places.\n\
         Install it:\n\
         \x20 Debian, Ubuntu   apt-get install postgresql\n\
         \x20 Fedora, RHEL     dnf install postgresql-server\n\
         \x20 Alpine           apk add postgresql\n\
         \x20 macOS            brew install postgresql@17\n\
         or say where its programs are: EASEL__DATABASE__POSTGRES_BIN or [database] postgres_bin,\n\
         or use a server that runs already: DATABASE_URL or [database] url",
        oldest = super::programs::OLDEST
    )]
    NoPrograms,
    /// `[database] postgres_bin` names a wrong place.
    #[error(
        "[database] postgres_bin: there are no programs postgres and initdb in {}: name the directory that \
         has them, leave the key out to have them looked for, or use a server that runs already (DATABASE_URL)",
        .0.display()
    )]
    WrongDirectory(PathBuf),
    /// Only old ones were found.
    #[error("PostgreSQL {found} in {} is too old: Easel needs {} or newer", directory.display(), super::programs::OLDEST)]
    TooOld {
        /// Where it is.
        directory: PathBuf,
        /// Its major version.
        found: u32,
    },
    /// The cluster was made by another major version than those that are here.
    #[error(
        "the database in {} was made by PostgreSQL {made_by}, which is not here (found: {found}): \
         install PostgreSQL {made_by}, or move the data with pg_upgrade",
        cluster.display()
    )]
    OtherVersion {
        /// The cluster.
        cluster: PathBuf,
        /// Its major version.
        made_by: u32,
        /// The major versions that were found.
        found: String,
    },
    /// We are root, and there is nobody to run it as.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody' to run it as: \
         start Easel as an ordinary user, or set DATABASE_URL"
    )]
    NoAccount,
    /// The unprivileged user cannot get to `data_dir`.
    #[error(
        "PostgreSQL does not run as root, and the user '{account}', whom it runs as, may not enter {}: \
         choose another place with EASEL__DATA_DIR or data_dir, such as /var/lib/easel, \
         or start Easel as an ordinary user",
        directory.display()
    )]
    Closed {
        /// The user.
        account: String,
        /// The first directory on the way that is closed.
        directory: PathBuf,
    },
    /// The cluster is there, its password is not.
    #[error("the database in {} needs its password, which is missing: {}", cluster.display(), file.display())]
    NoPassword {
        /// The cluster.
        cluster: PathBuf,
        /// Where the password should be.
        file: PathBuf,
    },
    /// Another process starts or stops the cluster and does not get done.
    #[error("another Easel process has been starting or stopping the database for too long ({} is locked)", .0.display())]
    Busy(PathBuf),
    /// Another `serve` runs here.
    #[error(
        "another Easel{} already serves from {}: stop it first, or give this one its own data_dir \
         (several replicas share a PostgreSQL through DATABASE_URL)",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        data_dir.display()
    )]
    Serving {
        /// Its process id, if it could be read.
        pid: Option<String>,
        /// The directory.
        data_dir: PathBuf,
    },
    /// `initdb` failed.
    #[error("could not make a database with initdb:\n{output}")]
    Init {
        /// What it said.
        output: String,
    },
    /// `postgres` ended at once.
    #[error("PostgreSQL did not start:\n{log}")]
    Start {
        /// What it logged.
        log: String,
    },
    /// It runs and does not answer.
    #[error("PostgreSQL runs (process {pid}) but does not answer")]
    Silent {
        /// The process.
        pid: i32,
    },
    /// It answers, and does not let us in.
    #[error("the private PostgreSQL refused us")]
    Refused(#[source] sqlx::Error),
    /// It does not stop.
    #[error("PostgreSQL (process {pid}) does not stop")]
    Stop {
        /// The process.
        pid: i32,
    },
    /// Nothing can be kept where everything is kept.
    #[error(
        "could not make the directory {}: set data_dir or EASEL__DATA_DIR to one that this user may write to",
        path.display()
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file system or the system says no.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
