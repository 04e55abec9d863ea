//! Real pictures of the sizes that providers send.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

/// The smallest PNG there is, more or less.
pub(crate) fn tiny() -> Vec<u8> {
    noise(1)
}

/// A PNG of about so many MiB: noise, which no encoder can make smaller.
pub(crate) fn mebibytes(count: u32) -> Vec<u8> {
    let pixels = f64::from(count) * 1024.0 * 1024.0 / 3.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an edge of some thousand pixels"
    )]
    noise(pixels.sqrt() as u32)
}

fn noise(edge: u32) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut picture = RgbImage::new(edge, edge);
    random.fill(&mut picture);
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(picture)
        .write_to(&mut file, ImageFormat::Png)
        .expect("noise is a picture");
    file.into_inner()
}
