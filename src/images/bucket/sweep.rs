//! Removing from a bucket what is over: the same rule as on a disk, in requests of a thousand.
//!
//! Any replica may sweep, several at once too: deleting what is gone is no error. Uploads that a crash left
//! unfinished are not listed here; a rule of the bucket removes them (`config/README.md`).

use futures_util::StreamExt as _;
use object_store::{ObjectStore as _, path::Path};

use super::{Action, Bucket, Fault};
use crate::images::{
    store::StoreError,
    sweep::{Limits, read_hour},
};

/// Keys deleted in one request, which is what S3 takes at most.
const BATCH: usize = 1000;

impl Bucket {
    /// Deletes what is past its limits. Returns how many. One batch that fails does not keep the others.
    ///
    /// # Errors
    /// The first one, after everything else was done.
    ///
    /// # Cancel safety
    /// Safe to drop, and to do again.
    pub(in crate::images) async fn sweep(&self, limits: Limits) -> Result<u64, StoreError> {
        if let Some(presigner) = &self.0.presigner {
            presigner.refresh().await;
        }
        let mut removed: u64 = 0;
        let mut failure = None;
        for hour in self.hours(limits).await? {
            let (count, failed) = self.sweep_hour(&hour, limits).await;
            removed = removed.saturating_add(count);
            failure = failure.or(failed);
        }
        failure.map_or(Ok(removed), Err)
    }

    /// The hours that began early enough for something in them to be over, oldest first: a few hundred at
    /// most, while somebody sweeps.
    async fn hours(&self, limits: Limits) -> Result<Vec<String>, StoreError> {
        let listed = async {
            let listed = self
                .0
                .store
                .list_with_delimiter(Some(&self.0.prefix))
                .await?;
            Ok(listed.common_prefixes)
        };
        let prefixes = self.measure(Action::List, listed).await?;
        let names = prefixes.iter().filter_map(Path::filename);
        let over = names.filter(|name| read_hour(name).is_some_and(|hour| hour <= limits.pictures));
        let mut hours: Vec<String> = over.map(str::to_owned).collect();
        hours.sort_unstable();
        Ok(hours)
    }

    async fn sweep_hour(&self, hour: &str, limits: Limits) -> (u64, Option<StoreError>) {
        let prefix = self.0.prefix.clone().join(hour);
        let mut names = self.0.store.list(Some(&prefix)).fuse();
        let mut removed: u64 = 0;
        let mut failure = None;
        loop {
            let listed = async {
                let mut batch = Vec::new();
                while batch.len() < BATCH
                    && let Some(found) = names.next().await
                {
                    let found = found.map_err(Fault::from)?;
                    let name = found.location.filename().unwrap_or_default();
                    // As deep as our names are, and no deeper.
                    let is_ours = found.location == prefix.clone().join(name);
                    if is_ours && limits.are_passed_by(name, hour) {
                        batch.push(found.location);
                    }
                }
                Ok(batch)
            };
            let batch = match self.measure(Action::List, listed).await {
                Ok(batch) => batch,
                Err(error) => return (removed, failure.or(Some(error))),
            };
            if batch.is_empty() {
                return (removed, failure);
            }
            let count = u64::try_from(batch.len()).unwrap_or(0);
            let deleted = async { Ok(self.delete_keys(batch).await?) };
            match self.measure(Action::Delete, deleted).await {
                Ok(()) => removed = removed.saturating_add(count),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
}
