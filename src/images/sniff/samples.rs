//! Real pictures of every format, for tests of this room.

use std::sync::LazyLock;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use super::PictureFormat;

pub(in crate::images) const WIDTH: u32 = 67;
pub(in crate::images) const HEIGHT: u32 = 43;

/// A picture whose pixels do not compress well.
pub(in crate::images) fn pixels(width: u32, height: u32) -> DynamicImage {
    let mut state = 1_u32;
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [red, green, blue, _] = state.to_be_bytes();
        Rgb([red, green, blue])
    }))
}

pub(in crate::images) fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture
        .write_to(&mut std::io::Cursor::new(&mut bytes), format)
        .unwrap();
    bytes
}

pub(in crate::images) fn png() -> Vec<u8> {
    encode(&pixels(WIDTH, HEIGHT), ImageFormat::Png)
}

/// A PNG of exactly so many bytes (at least 1,000), most of them in a chunk that nobody reads.
pub(in crate::images) fn png_of(size: usize) -> Vec<u8> {
    const AROUND: usize = 12;
    let mut bytes = encode(&pixels(8, 8), ImageFormat::Png);
    let end = bytes.split_off(bytes.len() - AROUND);
    let padding = size - bytes.len() - 2 * AROUND;
    bytes.extend(u32::try_from(padding).unwrap().to_be_bytes());
    bytes.extend(b"paDd");
    let content = (0..padding).map(|place| u8::try_from(place % 251).unwrap());
    bytes.extend(content);
    bytes.extend([0; 4]);
    bytes.extend(end);
    bytes
}

pub(in crate::images) fn jpeg() -> Vec<u8> {
    encode(&pixels(WIDTH, HEIGHT), ImageFormat::Jpeg)
}

pub(in crate::images) fn webp_lossy() -> Vec<u8> {
    let picture = pixels(WIDTH, HEIGHT).to_rgb8();
    let encoder = webp::Encoder::from_rgb(&picture, WIDTH, HEIGHT);
    encoder.encode(80.0).to_vec()
}

pub(in crate::images) fn webp_lossless() -> Vec<u8> {
    let picture = pixels(WIDTH, HEIGHT).to_rgb8();
    let encoder = webp::Encoder::from_rgb(&picture, WIDTH, HEIGHT);
    encoder.encode_lossless().to_vec()
}

/// Lossy with an alpha plane: the extended form, whose size stands in its canvas.
pub(in crate::images) fn webp_extended() -> Vec<u8> {
    let mut picture = pixels(WIDTH, HEIGHT).to_rgba8();
    for (x, _, pixel) in picture.enumerate_pixels_mut() {
        pixel[3] = u8::try_from(x % 256).unwrap();
    }
    let encoder = webp::Encoder::from_rgba(&picture, WIDTH, HEIGHT);
    encoder.encode(80.0).to_vec()
}

/// By hand: a global colour table, a comment, two frames of which one has a table of its own.
pub(in crate::images) fn gif() -> Vec<u8> {
    let mut bytes = b"GIF89a".to_vec();
    bytes.extend([67, 0, 43, 0, 0x80, 0, 0]);
    bytes.extend([0, 0, 0, 255, 255, 255]);
    bytes.extend([0x21, 0xFE, 5]);
    bytes.extend(b";;;;;\0");
    bytes.extend([0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x4C, 0x01, 0]);
    bytes.extend([0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0x80]);
    bytes.extend([1, 1, 1, 2, 2, 2]);
    bytes.extend([2, 2, 0x4C, 0x01, 0]);
    bytes.push(0x3B);
    bytes
}

pub(in crate::images) fn svg() -> Vec<u8> {
    "\u{FEFF}<?xml version=\"1.0\"?>\n<!-- <svg> -->\n\
     <!DOCTYPE svg [<!ENTITY a \"]>\">]>\n\
     <svg xmlns=\"http://www.w3.org/2000/svg\" data-width=\"9\" width='67px' height = \"43\" \
     aria-label=\"a > b\">\n<title>é</title><path d=\"M0 0h9\"/>\n</svg >\n"
        .as_bytes()
        .to_vec()
}

/// A name, the format, and the bytes.
pub(in crate::images) fn all() -> &'static [(&'static str, PictureFormat, Vec<u8>)] {
    static ALL: LazyLock<Vec<(&str, PictureFormat, Vec<u8>)>> = LazyLock::new(|| {
        vec![
            ("png", PictureFormat::Png, png()),
            ("jpeg", PictureFormat::Jpeg, jpeg()),
            ("lossy webp", PictureFormat::Webp, webp_lossy()),
            ("lossless webp", PictureFormat::Webp, webp_lossless()),
            ("extended webp", PictureFormat::Webp, webp_extended()),
            ("gif", PictureFormat::Gif, gif()),
            ("svg", PictureFormat::Svg, svg()),
        ]
    });
    &ALL
}
