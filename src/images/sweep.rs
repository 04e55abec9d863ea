//! Removing what is over: pictures past their lifetime, temporary files nobody writes any more.
//!
//! Any replica may sweep, several at once too: what another has removed is as good as removed. Names
//! that are not ours are left alone, whatever they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use super::{
    sniff::PictureFormat,
    store::{ImageStore, PART, StoreError, blocking, gone, hour_name, is_boot},
};
use crate::ids::ImageId;

/// Entries looked at in one trip to the disk.
const BATCH: usize = 512;
/// The least age at which a temporary file is an orphan: far beyond any provider's `timeout`.
const ORPHANED_AFTER: TimeDelta = TimeDelta::hours(24);
const HOUR: TimeDelta = TimeDelta::hours(1);

impl ImageStore {
    /// Deletes every picture older than `lifetime`, and temporary files nobody writes any more.
    /// Returns how many. One file that cannot be removed does not keep the others.
    ///
    /// # Errors
    /// [`StoreError::Io`], the first one, after everything else was done.
    ///
    /// # Cancel safety
    /// Safe to drop, and to do again.
    pub async fn sweep(&self, lifetime: Duration, now: DateTime<Utc>) -> Result<u64, StoreError> {
        // A lifetime beyond the calendar never ends.
        let Some(limit) = TimeDelta::from_std(lifetime)
            .ok()
            .and_then(|lifetime| now.checked_sub_signed(lifetime))
        else {
            return Ok(0);
        };
        let limits = Limits {
            pictures: limit,
            parts: limit.min(now - ORPHANED_AFTER),
        };
        let (here, there) = match self.bucket() {
            Some(bucket) => {
                let (here, there) = tokio::join!(self.sweep_here(limits), bucket.sweep(limits));
                (here, there.map(Some))
            }
            None => (self.sweep_here(limits).await, Ok(None)),
        };
        // What is in a directory besides a bucket are copies.
        Ok(match (here?, there?) {
            (here, None) => here,
            (_, Some(there)) => there,
        })
    }

    async fn sweep_here(&self, limits: Limits) -> Result<u64, StoreError> {
        let limit = limits.pictures;
        let store = self.clone();
        let hours = blocking("list", move || {
            // Under load there are new ones at once; without, they are not needed.
            store.remove_spares();
            hours(store.directory(), limit)
        })
        .await?;
        let mut removed = 0;
        let mut failure = None;
        for (hour, directory) in hours {
            match sweep_directory(directory.clone(), limits).await {
                Ok(count) => removed += count,
                Err(error) => failure = failure.or(Some(error)),
            }
            if hour + HOUR <= limit {
                // Refused, rightly, when something is left in it.
                blocking("list", move || fs::remove_dir(directory).or(Ok(()))).await?;
            }
        }
        failure.map_or(Ok(removed), Err)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Pictures made at this moment or before are over.
    pub(super) pictures: DateTime<Utc>,
    /// Temporary files made at this moment or before are.
    parts: DateTime<Utc>,
}

impl Limits {
    pub(super) fn are_passed_by(self, name: &str, hour: &str) -> bool {
        let Some((id, extension)) = name.split_once('.') else {
            return false;
        };
        let Ok(id) = id.parse::<ImageId>() else {
            return false;
        };
        let created_at = id.created_at();
        // Of a copy that was not synced, whichever run of the machine it is from.
        let extension = match extension.split_once('.') {
            Some((boot, extension)) if is_boot(boot) => extension,
            Some(_) | None => extension,
        };
        let limit = if extension == PART {
            self.parts
        } else if PictureFormat::from_extension(extension).is_some() {
            self.pictures
        } else {
            return false;
        };
        // A name in another hour's directory is none that we gave.
        created_at <= limit && hour_name(created_at) == hour
    }
}

/// The directories of hours that began at `limit` or before, oldest first.
fn hours(root: &Path, limit: DateTime<Utc>) -> io::Result<Vec<(DateTime<Utc>, PathBuf)>> {
    let mut hours = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let hour = entry.file_name().to_str().and_then(read_hour);
        if let Some(hour) = hour.filter(|hour| *hour <= limit)
            && entry.file_type()?.is_dir()
        {
            hours.push((hour, entry.path()));
        }
    }
    hours.sort_unstable();
    Ok(hours)
}

pub(super) fn read_hour(name: &str) -> Option<DateTime<Utc>> {
    let hour = NaiveDateTime::parse_from_str(&format!("{name}00"), "%Y%m%d%H%M").ok()?;
    let hour = hour.and_utc();
    (hour_name(hour) == name).then_some(hour)
}

async fn sweep_directory(directory: PathBuf, limits: Limits) -> Result<u64, StoreError> {
    let hour = directory
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_owned();
    let mut removed = 0;
    let mut failure = None;
    let listed = blocking("list", move || match fs::read_dir(directory) {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    });
    let mut listing = listed.await?;
    while let Some(mut entries) = listing {
        let hour = hour.clone();
        let (batch, rest) = blocking("delete", move || {
            let batch = sweep_batch(&mut entries, &hour, limits)?;
            let is_last = batch.seen < BATCH;
            Ok((batch, (!is_last).then_some(entries)))
        })
        .await?;
        removed += batch.removed;
        failure = failure.or(batch.failure);
        listing = rest;
    }
    match failure {
        Some(source) => Err(StoreError::Io {
            action: "delete",
            source,
        }),
        None => Ok(removed),
    }
}

#[derive(Debug, Default)]
struct Batch {
    seen: usize,
    removed: u64,
    failure: Option<io::Error>,
}

fn sweep_batch(entries: &mut fs::ReadDir, hour: &str, limits: Limits) -> io::Result<Batch> {
    let mut batch = Batch::default();
    for entry in entries.take(BATCH) {
        let entry = entry?;
        batch.seen += 1;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| limits.are_passed_by(name, hour))
        {
            match gone(fs::remove_file(entry.path())) {
                Ok(removed) => batch.removed += u64::from(removed),
                Err(error) => batch.failure = batch.failure.or(Some(error)),
            }
        }
    }
    Ok(batch)
}
