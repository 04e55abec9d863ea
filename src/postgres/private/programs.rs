//! Where `PostgreSQL`'s programs are on this machine.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{PrivateServerError, Result};
use crate::config::DatabaseConfig;

/// The oldest major version whose features the statements use.
pub(super) const OLDEST: u32 = 14;

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) directory: PathBuf,
    pub(super) major: u32,
}

/// Places that carry the version in a name: `PARENT/PREFIX17/SUFFIX`.
const USUAL: [(&str, &str, &str); 8] = [
    ("/usr/lib/postgresql", "", "bin"), // Debian, Ubuntu, PGDG's deb
    ("/usr", "pgsql-", "bin"),          // PGDG's rpm
    ("/usr/lib", "postgresql", "bin"),  // openSUSE
    ("/usr/libexec", "postgresql", ""), // Alpine
    ("/opt/homebrew/opt", "postgresql@", "bin"), // Homebrew, Apple silicon
    ("/usr/local/opt", "postgresql@", "bin"), // Homebrew, Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

impl Programs {
    /// The programs for a cluster of version `wanted`, or the first new enough for a new one: from the
    /// configured directory alone, or from `PATH` and then the usual places, newest first.
    pub(super) async fn find(
        config: &DatabaseConfig,
        wanted: Option<(u32, &Path)>,
    ) -> Result<Self> {
        if let Some(directory) = &config.postgres_bin {
            let found = version(directory).await;
            let major =
                found.ok_or_else(|| PrivateServerError::WrongDirectory(directory.clone()))?;
            return choose(vec![(directory.clone(), major)], wanted);
        }
        let mut directories: Vec<PathBuf> = config
            .search_path
            .iter()
            .filter_map(|directory| in_path(directory))
            .collect();
        let mut usual: Vec<(u32, PathBuf)> = USUAL
            .iter()
            .flat_map(|(parent, prefix, suffix)| versions_below(parent, prefix, suffix))
            .collect();
        usual.sort_by(|(a, _), (b, _)| b.cmp(a));
        directories.extend(usual.into_iter().map(|(_, directory)| directory));
        let mut found = Vec::new();
        for directory in directories {
            if let Some(major) = version(&directory).await {
                found.push((directory, major));
            }
        }
        choose(found, wanted)
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.directory.join("initdb")
    }
}

fn choose(found: Vec<(PathBuf, u32)>, wanted: Option<(u32, &Path)>) -> Result<Programs> {
    let fits = |major: u32| match wanted {
        Some((wanted, _)) => major == wanted,
        None => major >= OLDEST,
    };
    let majors: Vec<String> = found.iter().map(|(_, major)| major.to_string()).collect();
    let newest = found.iter().max_by_key(|(_, major)| *major).cloned();
    let fitting = found.into_iter().find(|(_, major)| fits(*major));
    match (fitting, newest, wanted) {
        (Some((directory, major)), ..) => Ok(Programs { directory, major }),
        (None, None, _) => Err(PrivateServerError::NoPrograms),
        (None, Some(_), Some((made_by, cluster))) => Err(PrivateServerError::OtherVersion {
            cluster: cluster.to_owned(),
            made_by,
            found: majors.join(", "),
        }),
        (None, Some((directory, found)), None) => {
            Err(PrivateServerError::TooOld { directory, found })
        }
    }
}

/// The real home of a `postgres` in a directory of `PATH`, where its `initdb` is too: some systems put
/// only links, or only one of them, into `PATH`.
fn in_path(directory: &Path) -> Option<PathBuf> {
    let postgres = directory.join("postgres").canonicalize().ok()?;
    let home = postgres.parent()?;
    let home = [home, directory]
        .into_iter()
        .find(|home| home.join("initdb").is_file())?;
    Some(home.to_owned())
}

fn versions_below(parent: &str, prefix: &str, suffix: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let major = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((major, entry.path().join(suffix)))
        })
        .collect()
}

/// The major version of the programs in `directory`, if both are there.
async fn version(directory: &Path) -> Option<u32> {
    if !directory.join("initdb").is_file() {
        return None;
    }
    let mut command = Command::new(directory.join("postgres"));
    let command = command.arg("--version").stdin(Stdio::null());
    let output = command.kill_on_drop(true).output().await.ok()?;
    major_in(&String::from_utf8_lossy(&output.stdout))
}

/// `17` from `postgres (PostgreSQL) 17.6 (Debian 17.6-1)` and from `postgres (PostgreSQL) 17beta1`.
fn major_in(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    version.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        for (text, expected) in [
            (
                "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (EnterpriseDB) 1", None),
            ("", None),
        ] {
            assert_eq!(major_in(text), expected, "{text}");
        }
    }

    #[test]
    fn takes_the_first_that_fits() {
        let at = |major: u32| (PathBuf::from(format!("/{major}")), major);
        let cluster = Path::new("data/postgres");
        let check =
            |found: &[u32], wanted: Option<u32>, expected: std::result::Result<u32, &str>| {
                let found = found.iter().copied().map(at).collect();
                let chosen = choose(found, wanted.map(|major| (major, cluster)));
                let chosen = chosen.map(|programs| programs.major);
                assert_eq!(
                    chosen.map_err(|error| error.to_string()),
                    expected.map_err(str::to_owned)
                );
            };
        check(&[15, 17], None, Ok(15));
        check(&[13, 17, 16], None, Ok(17));
        check(&[15, 17], Some(17), Ok(17));
        check(
            &[15, 17],
            Some(16),
            Err(
                "the database in data/postgres was made by PostgreSQL 16, which is not here \
                 (found: 15, 17): install PostgreSQL 16, or move the data with pg_upgrade",
            ),
        );
        check(
            &[9, 13],
            None,
            Err("PostgreSQL 13 in /13 is too old: Easel needs 14 or newer"),
        );
        let missing = choose(Vec::new(), None).unwrap_err().to_string();
        for word in [
            "apt-get install postgresql",
            "dnf install postgresql-server",
            "brew install postgresql@17",
            "EASEL__DATABASE__POSTGRES_BIN",
            "DATABASE_URL",
        ] {
            assert!(missing.contains(word), "{word} in {missing}");
        }
    }
}
