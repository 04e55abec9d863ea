//! A table keyed by size and quality, of prices or of output tokens.

use crate::catalog::vocabulary::{ImageSize, Quality};

/// One row. The first row that matches holds, so that tiers read as `up to …, up to …, everything else`.
#[derive(Debug, Clone, Default)]
pub(super) struct Row<T> {
    /// The sizes it is for; empty: any.
    pub(super) sizes: Vec<ImageSize>,
    /// It is for sizes of at most this many pixels.
    pub(super) max_pixels: Option<u64>,
    /// The quality it is for; `None`: any.
    pub(super) quality: Option<Quality>,
    /// What it says.
    pub(super) value: T,
}

#[derive(Debug, Clone)]
pub(super) struct Table<T>(pub(super) Vec<Row<T>>);

impl<T: Copy + Ord> Table<T> {
    /// What holds for this size and quality. A size of `None` meets only rows for any size.
    pub(super) fn get(&self, size: Option<ImageSize>, quality: Option<Quality>) -> Option<T> {
        self.0
            .iter()
            .find(|row| row.is_for_size(size) && row.is_for_quality(quality))
            .map(|row| row.value)
    }

    /// The largest value for this size and quality, where `None` means that nobody has chosen yet.
    pub(super) fn largest(&self, size: Option<ImageSize>, quality: Option<Quality>) -> Option<T> {
        match (size, quality) {
            (Some(_), Some(_)) => self.get(size, quality),
            (Some(_), None) => self
                .0
                .iter()
                .filter_map(|row| self.get(size, row.quality))
                .max(),
            (None, Some(_)) => self
                .0
                .iter()
                .filter(|row| row.is_for_quality(quality))
                .map(|row| row.value)
                .max(),
            (None, None) => self.0.iter().map(|row| row.value).max(),
        }
    }

    /// Whether there is a value for every size of at most `max_pixels`, listed or not.
    pub(super) fn covers_any_size(&self, max_pixels: u64, quality: Option<Quality>) -> bool {
        self.0.iter().any(|row| {
            row.sizes.is_empty()
                && row.max_pixels.is_none_or(|limit| limit >= max_pixels)
                && row.is_for_quality(quality)
        })
    }

    /// Each row once per size it names, for listings.
    pub(super) fn expanded(&self) -> impl Iterator<Item = (Option<ImageSize>, &Row<T>)> {
        self.0.iter().flat_map(|row| {
            let any = row.sizes.is_empty().then_some(None);
            row.sizes
                .iter()
                .map(|size| Some(*size))
                .chain(any)
                .map(move |size| (size, row))
        })
    }
}

impl<T> Row<T> {
    fn is_for_size(&self, size: Option<ImageSize>) -> bool {
        match size {
            None => self.sizes.is_empty() && self.max_pixels.is_none(),
            Some(size) => {
                (self.sizes.is_empty() || self.sizes.contains(&size))
                    && self.max_pixels.is_none_or(|limit| size.pixels() <= limit)
            }
        }
    }

    fn is_for_quality(&self, quality: Option<Quality>) -> bool {
        self.quality.is_none() || self.quality == quality
    }
}
