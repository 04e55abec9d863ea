//! File locks between processes (`flock`). They go with the process, so no crash leaves one behind.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{LOOK, PrivateServerError, Result, io, make_data_dir};

/// At most one `serve` works on a `data_dir`; this is its claim.
#[derive(Debug)]
pub struct ServeLock {
    _file: File,
}

impl ServeLock {
    /// Claims `data_dir`, which is made if missing.
    ///
    /// # Errors
    /// [`PrivateServerError::Serving`] when another process has it.
    pub fn acquire(data_dir: &Path) -> Result<Self> {
        make_data_dir(data_dir)?;
        let path = data_dir.join("serve.lock");
        let mut file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {
                let write = file
                    .set_len(0)
                    .and_then(|()| write!(file, "{}", std::process::id()));
                write.map_err(io("write", &path))?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message.
                file.read_to_string(&mut pid).ok();
                let pid = pid.trim();
                Err(PrivateServerError::Serving {
                    pid: (!pid.is_empty()).then(|| pid.to_owned()),
                    data_dir: data_dir.to_owned(),
                })
            }
            Err(TryLockError::Error(source)) => Err(io("lock", &path)(source)),
        }
    }
}

/// The lock on `path` for us alone, waiting up to `patience`.
pub(super) async fn exclusive(path: &Path, patience: Duration) -> Result<File> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(file) = try_exclusive(path)? {
            return Ok(file);
        }
        if Instant::now() > deadline {
            return Err(PrivateServerError::Busy(path.to_owned()));
        }
        sleep(LOOK).await;
    }
}

/// The lock on `path` for us alone, if nobody has it.
pub(super) fn try_exclusive(path: &Path) -> Result<Option<File>> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(io("lock", path)(source)),
    }
}

/// The lock on `path` together with others; those who want it alone are behind the gate.
pub(super) fn shared(path: &Path) -> Result<File> {
    let file = open(path)?;
    file.lock_shared().map_err(io("lock", path))?;
    Ok(file)
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true);
    // Who may open it may lock it, and then nothing starts here.
    options.mode(0o600).open(path).map_err(io("open", path))
}
