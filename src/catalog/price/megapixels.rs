//! Prices per megapixel (`contracts/replicate.md`, section 5): a first megapixel, each further one, and
//! those of the input images, each picture rounded up.

use std::num::NonZeroU64;

use serde::Deserialize;

use crate::{
    catalog::{request::ImageRequest, rules::Rules, vocabulary::ImageSize},
    money::{MoneyError, NanoUsd},
};

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::catalog) struct PerMegapixelFile {
    first: NanoUsd,
    next: Option<NanoUsd>,
    input: Option<NanoUsd>,
    megapixel: NonZeroU64,
    auto_pixels: Option<u64>,
}

/// A price per megapixel.
#[derive(Debug, Clone)]
pub(super) struct PerMegapixel {
    /// The first megapixel of a picture, with whatever each picture costs on top.
    pub(super) first: NanoUsd,
    /// Each further megapixel that is begun.
    pub(super) next: NanoUsd,
    /// Each megapixel of each input image that is begun; `None`: they are free.
    pub(super) input: Option<NanoUsd>,
    /// How many pixels the provider calls a megapixel.
    pub(super) megapixel: NonZeroU64,
    /// The most pixels a picture can have when the provider chooses its size.
    auto_pixels: u64,
}

impl PerMegapixel {
    pub(super) fn new(file: &PerMegapixelFile, rules: &Rules) -> Self {
        Self {
            first: file.first,
            next: file.next.unwrap_or(file.first),
            input: file.input,
            megapixel: file.megapixel,
            auto_pixels: file
                .auto_pixels
                .unwrap_or_else(|| rules.size().max_pixels()),
        }
    }

    /// The largest cost of one picture.
    pub(super) fn largest(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
    ) -> Result<NanoUsd, MoneyError> {
        let asked = request.size.value.exact();
        self.of_pixels(
            asked.map_or(self.auto_pixels, ImageSize::pixels),
            input_images,
        )
    }

    /// The cost of one picture of this size.
    pub(super) fn cost(
        &self,
        size: ImageSize,
        input_images: &[ImageSize],
    ) -> Result<NanoUsd, MoneyError> {
        self.of_pixels(size.pixels(), input_images)
    }

    fn of_pixels(&self, pixels: u64, input_images: &[ImageSize]) -> Result<NanoUsd, MoneyError> {
        let megapixels = |pixels: u64| pixels.div_ceil(self.megapixel.get()).max(1);
        let output = self
            .next
            .checked_mul(megapixels(pixels).saturating_sub(1))?
            .checked_add(self.first)?;
        let Some(rate) = self.input else {
            return Ok(output);
        };
        input_images.iter().try_fold(output, |sum, image| {
            sum.checked_add(rate.checked_mul(megapixels(image.pixels()))?)
        })
    }
}
