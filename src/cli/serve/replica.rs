//! Which replica this process is, and which one it was before it was killed.
//!
//! The name is kept in `data_dir`, so that a restart releases at once what its predecessor held. The file
//! stays locked while the process lives: a second replica with the same `data_dir` does not take the
//! first one for dead, and goes without.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;

use crate::ids::ReplicaId;

/// Who we are.
#[derive(Debug)]
pub(super) struct Replica {
    id: ReplicaId,
    predecessor: Option<ReplicaId>,
    /// Held for its lock.
    _file: Option<File>,
}

impl Replica {
    /// A new name, written over that of the predecessor.
    pub(super) fn claim(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("replica");
        let claimed = || {
            std::fs::create_dir_all(data_dir)?;
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(false).read(true).write(true);
            // Who may open it may lock it.
            let mut file = options.mode(0o600).open(&path)?;
            let id = ReplicaId::new();
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Ok(Self {
                        id,
                        predecessor: None,
                        _file: None,
                    });
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            file.seek(SeekFrom::Start(0))?;
            file.set_len(0)?;
            writeln!(file, "{id}")?;
            Ok(Self {
                id,
                predecessor: text.trim().parse().ok(),
                _file: Some(file),
            })
        };
        claimed()
            .with_context(|| {
                let path = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
                format!(
                    "could not keep this replica's name in {} (data_dir or EASEL__DATA_DIR must be a directory \
                     that Easel may write to)",
                    path.display()
                )
            })
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.id
    }

    /// Whose holds nobody will settle any more.
    pub(super) fn predecessor(&self) -> Option<ReplicaId> {
        self.predecessor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_knows_its_predecessor_and_a_neighbour_does_not() {
        let data_dir = tempfile::tempdir().unwrap();
        let first = Replica::claim(data_dir.path()).unwrap();
        assert_eq!(first.predecessor(), None);
        let neighbour = Replica::claim(data_dir.path()).unwrap();
        assert_eq!(neighbour.predecessor(), None);
        let first_id = first.id();
        drop(first);
        let second = Replica::claim(data_dir.path()).unwrap();
        assert_eq!(second.predecessor(), Some(first_id));
    }
}
