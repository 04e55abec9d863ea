//! Real pictures: painted for the fake upstream, measured in answers.
//!
//! Knows nothing of Easel. Painting is cheap (flat colours, fast compression), and the seed goes into
//! the colours, so that two pictures of one answer differ.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::{LazyLock, Mutex},
};

use bytes::Bytes;
use image::{ExtendedColorType, ImageEncoder};

/// What a picture's bytes say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    /// `png`, `jpeg`, `webp`.
    pub(crate) format: &'static str,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

type Wanted = (&'static str, u32, u32, u8, bool);

/// A picture of this size; a transparent one has an alpha channel.
pub(crate) fn paint(
    format: &'static str,
    width: u32,
    height: u32,
    seed: u8,
    transparent: bool,
) -> Bytes {
    static PAINTED: LazyLock<Mutex<HashMap<Wanted, Bytes>>> = LazyLock::new(Mutex::default);
    let wanted = (format, width, height, seed, transparent);
    if let Some(bytes) = PAINTED.lock().unwrap().get(&wanted) {
        return bytes.clone();
    }
    let bytes = encode(wanted);
    PAINTED.lock().unwrap().insert(wanted, bytes.clone());
    bytes
}

/// A PNG that does not compress: about three bytes a pixel.
pub(crate) fn noise(side: u32, seed: u32) -> Bytes {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let pixels: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift32
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    })
    .take(usize::try_from(side * side * 3).unwrap())
    .collect();
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new_with_quality(
        Cursor::new(&mut bytes),
        image::codecs::png::CompressionType::Fast,
        image::codecs::png::FilterType::NoFilter,
    )
    .write_image(&pixels, side, side, ExtendedColorType::Rgb8)
    .unwrap();
    bytes.into()
}

/// Reads the header of a picture, and for PNG and JPEG every pixel, so that a cut one is noticed.
pub(crate) fn measure(bytes: &[u8]) -> Measured {
    let format = match imagesize::image_type(bytes).expect("these bytes are a picture") {
        imagesize::ImageType::Png => "png",
        imagesize::ImageType::Jpeg => "jpeg",
        imagesize::ImageType::Webp => "webp",
        other => panic!("a picture of an unexpected format: {other:?}"),
    };
    let size = imagesize::blob_size(bytes).expect("the picture's header is whole");
    if format == "webp" {
        webp::Decoder::new(bytes)
            .decode()
            .expect("the WebP is whole");
    } else {
        image::load_from_memory(bytes).expect("the picture is whole");
    }
    Measured {
        format,
        width: size.width,
        height: size.height,
    }
}

/// Whether any pixel of a PNG or WebP lets the background through.
pub(crate) fn is_transparent(bytes: &[u8]) -> bool {
    if let Some(picture) = webp::Decoder::new(bytes).decode() {
        return picture.is_alpha() && picture.iter().skip(3).step_by(4).any(|alpha| *alpha < 255);
    }
    let picture = image::load_from_memory(bytes).expect("the picture is whole");
    picture.to_rgba8().pixels().any(|pixel| pixel.0[3] < 255)
}

fn encode((format, width, height, seed, transparent): Wanted) -> Bytes {
    let channels = if transparent { 4 } else { 3 };
    let row: Vec<u8> = (0..width)
        .flat_map(|x| {
            let stripe = u8::try_from(x / 64 % 4).unwrap_or_default();
            [seed, seed.wrapping_mul(37), 60 * stripe, 128]
                .into_iter()
                .take(channels)
        })
        .collect();
    let pixels = row.repeat(usize::try_from(height).unwrap());
    let color = if transparent {
        ExtendedColorType::Rgba8
    } else {
        ExtendedColorType::Rgb8
    };
    let mut bytes = Vec::new();
    match format {
        "png" => image::codecs::png::PngEncoder::new_with_quality(
            Cursor::new(&mut bytes),
            image::codecs::png::CompressionType::Fast,
            image::codecs::png::FilterType::NoFilter,
        )
        .write_image(&pixels, width, height, color)
        .unwrap(),
        "jpeg" => image::codecs::jpeg::JpegEncoder::new_with_quality(Cursor::new(&mut bytes), 60)
            .write_image(&pixels, width, height, color)
            .unwrap(),
        "webp" => {
            let encoder = if transparent {
                webp::Encoder::from_rgba(&pixels, width, height)
            } else {
                webp::Encoder::from_rgb(&pixels, width, height)
            };
            bytes.extend_from_slice(&encoder.encode(50.0));
        }
        other => panic!("cannot paint {other}"),
    }
    bytes.into()
}
