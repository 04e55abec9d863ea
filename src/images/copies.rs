//! Copies of answers that were relayed: kept for a client's repeat, within a budget of bytes.
//!
//! Without a budget, heavy traffic would have the system write every relayed picture to the disk, only to
//! delete it an hour later. The newest stay; the oldest that were delivered go first, most of them before
//! the system has written them at all, and newer ones are written over them. What was not delivered is not here, and
//! stays for its whole time: it is there to be fetched. Nor is what an earlier process delivered, of which nobody knows
//! any more why it was kept. Pictures that had to be kept until their end, because the provider could still take them
//! back, are copies like any other.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{sniff::PictureFormat, store::ImageStore};
use crate::ids::ImageId;

/// What a file counts at least: small ones take a block, a name, and a place in the list.
const LEAST_BYTES: u64 = 16 * 1024;

/// The delivered copies of this process, oldest first.
#[derive(Debug)]
pub struct Copies {
    store: ImageStore,
    budget_bytes: u64,
    delivered: Mutex<Delivered>,
}

#[derive(Debug, Default)]
struct Delivered {
    copies: VecDeque<(ImageId, PictureFormat, u64)>,
    bytes: u64,
}

impl Copies {
    /// None yet.
    pub fn new(store: ImageStore, budget_bytes: u64) -> Self {
        Self {
            store,
            budget_bytes,
            delivered: Mutex::default(),
        }
    }

    /// Takes note of a copy whose original has been delivered. What has no room any more is deleted behind
    /// the caller's back.
    pub fn delivered(&self, id: ImageId, format: PictureFormat, size_bytes: u64) {
        let surplus = self.add(id, format, size_bytes.max(LEAST_BYTES));
        if !surplus.is_empty() {
            let store = self.store.clone();
            drop(tokio::task::spawn_blocking(move || {
                for (id, format) in surplus {
                    store.retire(id, format);
                }
            }));
        }
    }

    /// Returns those that are one too many.
    fn add(&self, id: ImageId, format: PictureFormat, bytes: u64) -> Vec<(ImageId, PictureFormat)> {
        let mut delivered = self
            .delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        delivered.copies.push_back((id, format, bytes));
        delivered.bytes = delivered.bytes.saturating_add(bytes);
        let mut surplus = Vec::new();
        while delivered.bytes > self.budget_bytes
            && let Some((id, format, bytes)) = delivered.copies.pop_front()
        {
            delivered.bytes = delivered.bytes.saturating_sub(bytes);
            surplus.push((id, format));
        }
        surplus
    }
}

/// The copies of one answer that is on its way to its client. Dropped before it was delivered, they are made
/// durable, behind whoever drops it. Clones are of the same answer: the last one counts.
#[derive(Debug, Clone)]
pub struct Undelivered(Arc<OnTheirWay>);

#[derive(Debug)]
struct OnTheirWay {
    store: ImageStore,
    copies: Vec<(ImageId, PictureFormat)>,
    are_delivered: AtomicBool,
}

impl Undelivered {
    pub(super) fn new(store: ImageStore, copies: Vec<(ImageId, PictureFormat)>) -> Self {
        Self(Arc::new(OnTheirWay {
            store,
            copies,
            are_delivered: AtomicBool::new(false),
        }))
    }

    /// The client has them, as far as anybody can know.
    pub fn delivered(&self) {
        self.0.are_delivered.store(true, Ordering::Relaxed);
    }
}

impl Drop for OnTheirWay {
    fn drop(&mut self) {
        if !self.are_delivered.load(Ordering::Relaxed) {
            self.store
                .make_durable_behind(std::mem::take(&mut self.copies));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_stay_within_the_budget() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path().to_owned(), 1 << 20)
            .await
            .unwrap();
        let copies = Copies::new(store, 100_000);
        let ids: Vec<ImageId> = (0..4).map(|_| ImageId::new()).collect();
        let png = PictureFormat::Png;
        assert!(copies.add(ids[0], png, 40_000).is_empty());
        assert!(copies.add(ids[1], png, 60_000).is_empty());
        assert_eq!(copies.add(ids[2], png, 1), [(ids[0], png)]);
        // One that is larger than the budget does not stay either.
        assert_eq!(copies.add(ids[3], png, 100_001).len(), 3);
        assert!(copies.add(ids[0], png, 100_000).is_empty());
    }
}
