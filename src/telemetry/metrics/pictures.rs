//! The store of pictures, on the disk and in the bucket.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{Metrics, statement_times, told};

#[derive(Debug)]
pub(super) struct Pictures {
    requests: Family<StoreLabels, Counter>,
    request_seconds: Family<StoreActionLabels, Histogram>,
    bytes: Family<StoreBytesLabels, Counter>,
}

/// Where pictures lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// In a directory of this machine.
    Disk,
    /// In the bucket.
    Bucket,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreActionLabels {
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreBytesLabels {
    shelf: &'static str,
    direction: &'static str,
}

impl Pictures {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let pictures = Self {
            requests: told(
                registry,
                "store_requests",
                "What was asked of the bucket, by its end; a picture that breaks off while it is read counts as cut",
                Family::default(),
            ),
            request_seconds: told(
                registry,
                "store_request_seconds",
                "How long the bucket took, repeats included; for pictures that are read, until their first byte",
                Family::new_with_constructor(statement_times),
            ),
            bytes: told(
                registry,
                "store_bytes",
                "Bytes of pictures written and read: on the disk, where all that is kept is made, and in the bucket",
                Family::default(),
            ),
        };
        for shelf in [Shelf::Disk, Shelf::Bucket] {
            for direction in [WRITTEN, READ] {
                drop(pictures.bytes.get_or_create(&shelf.labels(direction)));
            }
        }
        pictures
    }
}

impl Metrics {
    /// The bucket has done, or not done, what it was asked for.
    pub fn store_answered(
        &self,
        action: &'static str,
        outcome: &'static str,
        latency: Option<Duration>,
    ) {
        let labels = StoreLabels { action, outcome };
        self.pictures.requests.get_or_create(&labels).inc();
        if let Some(latency) = latency {
            self.pictures
                .request_seconds
                .get_or_create(&StoreActionLabels { action })
                .observe(latency.as_secs_f64());
        }
    }

    /// A picture of so many bytes lies there now.
    pub fn store_wrote(&self, shelf: Shelf, bytes: u64) {
        let written = &self.pictures.bytes;
        written.get_or_create(&shelf.labels(WRITTEN)).inc_by(bytes);
    }

    /// So many bytes of a picture came from there.
    pub fn store_read(&self, shelf: Shelf, bytes: usize) {
        let read = &self.pictures.bytes;
        read.get_or_create(&shelf.labels(READ)).inc_by(bytes as u64);
    }
}

const WRITTEN: &str = "written";
const READ: &str = "read";

impl Shelf {
    fn labels(self, direction: &'static str) -> StoreBytesLabels {
        StoreBytesLabels {
            shelf: match self {
                Self::Disk => "disk",
                Self::Bucket => "bucket",
            },
            direction,
        }
    }
}
