//! Where a configuration comes from: which file, which environment; and which files it was made of, so that
//! somebody can look whether one of them has changed.
//!
//! A file has changed when its content has. Times and inodes would be cheaper to compare, but a mounted secret
//! that is exchanged by a symbolic link, an editor that renames, and a copy that keeps its times all look
//! different there, and the same here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Config, ConfigError, DEFAULT_FILE, Environment};

/// How often a configuration is read until it names no file that was not looked at before.
const MOST_READINGS: usize = 4;

/// Where to read a configuration, as often as wanted.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file that was asked for.
    file: Option<PathBuf>,
    environment: Environment,
}

/// Files as they were when somebody looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, Content>);

/// What was in a file or, by their names, in the catalog files of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// Its hash.
    Hash([u8; 32]),
    /// It is not there or cannot be read.
    Unreadable(std::io::ErrorKind),
}

impl Source {
    /// `file`, or what `EASEL_CONFIG` names, or `easel.toml` in the current directory if there is one, or no
    /// file; the environment's overrides on top.
    pub fn new(file: Option<&Path>, environment: Environment) -> Self {
        let named = file
            .map(Path::to_owned)
            .or_else(|| environment.get("EASEL_CONFIG").map(PathBuf::from));
        Self {
            file: named,
            environment,
        }
    }

    /// Reads it. Also returns the files that it is made of, as they were before they were read: who finds
    /// them so has missed nothing. They are known also when it is bad, and a missing one may be why.
    pub fn read(&self) -> (Result<Config, ConfigError>, Seen) {
        let mut seen = Seen::look([self.path()]);
        for _ in 1..MOST_READINGS {
            let (config, files) = self.read_once();
            let unseen: Vec<PathBuf> = files
                .into_iter()
                .filter(|file| !seen.0.contains_key(file))
                .collect();
            if unseen.is_empty() {
                return (config, seen);
            }
            seen.0.extend(Seen::look(unseen).0);
        }
        (self.read_once().0, seen)
    }

    fn path(&self) -> PathBuf {
        self.file
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_FILE))
    }

    /// Reads it, and tells which files it names.
    fn read_once(&self) -> (Result<Config, ConfigError>, Vec<PathBuf>) {
        let path = self.path();
        let file = (self.file.is_some() || path.exists()).then_some(path);
        let text = match &file {
            Some(path) => match fs::read_to_string(path) {
                Ok(text) => text,
                Err(source) => {
                    let file = path.clone();
                    return (Err(ConfigError::Unreadable { file, source }), Vec::new());
                }
            },
            None => String::new(),
        };
        let (config, mut files) = Config::parse(file.as_deref(), &text, &self.environment);
        if let Ok(config) = &config {
            files.extend(config.files());
        }
        (config, files)
    }
}

impl Seen {
    fn look(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files = files.into_iter();
        Self(
            files
                .map(|file| {
                    let content = content(&file);
                    (file, content)
                })
                .collect(),
        )
    }

    /// The same files as they are now.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::look(self.0.keys().cloned())
    }

    /// Those that are not as they were then, or were not looked at then.
    pub fn changed_since(&self, then: &Self) -> BTreeSet<&Path> {
        self.0
            .iter()
            .filter(|(file, content)| then.0.get(*file) != Some(content))
            .map(|(file, _)| file.as_path())
            .collect()
    }
}

fn content(path: &Path) -> Content {
    let hash = || -> std::io::Result<[u8; 32]> {
        if !path.is_dir() {
            return Ok(Sha256::digest(fs::read(path)?).into());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let file = entry?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                files.push(file);
            }
        }
        files.sort_unstable();
        let mut hash = Sha256::new();
        for file in files {
            hash.update(file.as_os_str().as_encoded_bytes());
            // One hash after the other: no file can look like the end of its neighbour.
            hash.update(Sha256::digest(fs::read(&file)?));
        }
        Ok(hash.finalize().into())
    };
    hash().map_or_else(|error| Content::Unreadable(error.kind()), Content::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_a_configuration_is_made_of_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (file, token, models) = (path("easel.toml"), path("token"), path("models"));
        let credentials = path("vertex.json");
        fs::create_dir(&models).unwrap();
        fs::write(&token, "old").unwrap();
        fs::write(
            &file,
            format!(
                "models_dir = '{}'\nadmin.token = '${{file:{}}}'\n\
                 providers.vertex.credentials_file = '{}'",
                models.display(),
                token.display(),
                credentials.display(),
            ),
        )
        .unwrap();
        let source = Source::new(Some(&file), Environment::default());
        let (config, seen) = source.read();
        config.unwrap();
        assert_eq!(seen.again(), seen);

        let check = |changed: &Path, change: &dyn Fn()| {
            let before = seen.again();
            change();
            let now = before.again();
            assert_eq!(
                now.changed_since(&before).into_iter().collect::<Vec<_>>(),
                [changed]
            );
        };
        check(&token, &|| fs::write(&token, "new").unwrap());
        check(&credentials, &|| fs::write(&credentials, "{}").unwrap());
        check(&models, &|| fs::write(models.join("a.toml"), "").unwrap());
        check(&models, &|| {
            fs::rename(models.join("a.toml"), models.join("b.toml")).unwrap();
        });
        // As Kubernetes exchanges a mounted file: the path stays, what it leads to is another file.
        check(&file, &|| {
            let other = path("..data");
            fs::write(&other, "# nothing").unwrap();
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink(&other, &file).unwrap();
        });
        check(&file, &|| fs::remove_file(&file).unwrap());
    }

    #[test]
    fn what_a_bad_configuration_lacks_is_looked_at_too() {
        let directory = tempfile::tempdir().unwrap();
        let (file, token) = (directory.path().join("a"), directory.path().join("token"));
        fs::write(
            &file,
            format!("admin.token = '${{file:{}}}'", token.display()),
        )
        .unwrap();
        let source = Source::new(Some(&file), Environment::default());
        let (config, seen) = source.read();
        config.unwrap_err();
        fs::write(&token, "there it is").unwrap();
        assert_ne!(seen.again(), seen);
        source.read().0.unwrap();
    }
}
