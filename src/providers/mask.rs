//! `OpenAI`'s masks become those of everybody else: what is transparent there is white here.
//!
//! A client's mask says by full transparency where to edit (`contracts/openai-images.md`, section 4.1);
//! Stability and Flux Fill take a picture without transparency, white where they shall paint and black where
//! they shall not (`contracts/stability.md`, 2.4; `contracts/replicate.md`, 2.5). Row by row: besides the file
//! itself only two rows of its pixels are in memory.

use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Limits, Transformations};
use tokio::task;

use super::{ErrorKind, ProviderError};
use crate::{catalog::ImageSize, images::Upload};

/// Larger masks are refused, as small as their files may be: all of their pixels are looked at.
const MAX_PIXELS: u64 = 4096 * 4096;
/// What decoding may allocate. An interlaced mask has no rows to go by and needs it whole.
const MAX_DECODER_BYTES: usize = 96 * 1024 * 1024;

/// A PNG in shades of grey of the mask's size: 255 minus the transparency of each pixel's colour.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`], blaming `mask`, when its pixels cannot be read;
/// [`ErrorKind::Storage`] when our copy of it cannot.
pub(super) async fn white_where_transparent(mask: &Upload) -> Result<Upload, ProviderError> {
    let pixels = mask.info().size.map_or(u64::MAX, ImageSize::pixels);
    if pixels > MAX_PIXELS {
        return Err(invalid(&format!("it has more than {MAX_PIXELS} pixels")));
    }
    let gathered = mask
        .read()
        .try_fold(BytesMut::new(), async |mut file, chunk| {
            file.extend_from_slice(&chunk);
            Ok(file)
        })
        .await;
    let file = gathered.map_err(|error| {
        let message = format!("the mask cannot be read again: {error}");
        ProviderError::new(ErrorKind::Storage, message)
    })?;
    let converted = task::spawn_blocking(move || convert(file.freeze()))
        .await
        .map_err(|_| invalid("its pixels cannot be read"))?;
    let white = converted.ok_or_else(|| invalid("its pixels cannot be read"))?;
    Upload::from_bytes(white).map_err(|error| {
        let message = format!("the mask was written wrongly: {error}");
        ProviderError::new(ErrorKind::Storage, message)
    })
}

fn invalid(why: &str) -> ProviderError {
    ProviderError {
        code: Some("invalid_value".to_owned()),
        param: Some("mask".to_owned()),
        ..ProviderError::new(
            ErrorKind::InvalidRequest,
            format!("Invalid file 'mask': {why}."),
        )
    }
}

/// `None` when the file is no readable PNG. Holds a core for up to some hundred milliseconds.
fn convert(file: Bytes) -> Option<Bytes> {
    let limits = Limits {
        bytes: MAX_DECODER_BYTES,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), limits);
    // Whatever it is made of: eight bits a channel, the last of them for transparency.
    decoder.set_transformations(
        Transformations::EXPAND | Transformations::ALPHA | Transformations::STRIP_16,
    );
    let mut reader = decoder.read_info().ok()?;
    let (width, height) = (reader.info().width, reader.info().height);
    let channels = match reader.output_color_type() {
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => 2,
        (ColorType::Rgba, BitDepth::Eight) => 4,
        _ => return None,
    };

    let mut white = Vec::new();
    let mut encoder = Encoder::new(&mut white, width, height);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header().ok()?;
    let mut rows = writer.stream_writer().ok()?;
    let mut shades = Vec::new();
    let mut write = |pixels: &[u8]| {
        shades.clear();
        let transparencies = pixels.iter().skip(channels - 1).step_by(channels);
        shades.extend(transparencies.map(|opacity| u8::MAX - opacity));
        std::io::Write::write_all(&mut rows, &shades).ok()
    };
    if reader.info().interlaced {
        let size = reader.output_buffer_size()?;
        let mut whole = vec![0; (size <= MAX_DECODER_BYTES).then_some(size)?];
        reader.next_frame(&mut whole).ok()?;
        write(&whole)?;
    } else {
        while let Some(row) = reader.next_row().ok()? {
            write(row.data())?;
        }
    }
    rows.finish().ok()?;
    writer.finish().ok()?;
    Some(white.into())
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GenericImageView as _, ImageFormat, Luma};

    use super::*;

    fn png(picture: impl Into<DynamicImage>) -> Bytes {
        let mut file = Cursor::new(Vec::new());
        let picture: DynamicImage = picture.into();
        picture.write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner().into()
    }

    async fn converted(file: Bytes) -> Result<DynamicImage, ProviderError> {
        let white = white_where_transparent(&Upload::from_bytes(file).unwrap()).await?;
        let mut bytes = BytesMut::new();
        let mut chunks = white.read();
        while let Some(chunk) = chunks.try_next().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        Ok(image::load_from_memory(&bytes).unwrap())
    }

    /// Opaque but for a transparent half, with a seam that is half so.
    fn opacity(x: u32) -> u8 {
        match x {
            0..=19 => 255,
            20 => 100,
            _ => 0,
        }
    }

    #[tokio::test]
    async fn transparent_becomes_white() {
        let rgba = image::RgbaImage::from_fn(40, 30, |x, _| image::Rgba([9, 8, 7, opacity(x)]));
        let grey = image::GrayAlphaImage::from_fn(40, 30, |x, _| image::LumaA([9, opacity(x)]));
        let deep = DynamicImage::from(rgba.clone()).into_rgba16();
        for file in [png(rgba), png(grey), png(deep)] {
            let white = converted(file).await.unwrap();
            assert_eq!(white.color(), image::ColorType::L8);
            assert_eq!(white.dimensions(), (40, 30));
            let white = white.into_luma8();
            for (x, y, Luma([shade])) in white.enumerate_pixels() {
                assert_eq!(*shade, 255 - opacity(x), "{x} {y}");
            }
        }
    }

    /// A palette and an interlaced file, which the `image` crate cannot write.
    #[tokio::test]
    async fn rare_kinds_are_read_too() {
        let mut palette = Vec::new();
        let mut encoder = Encoder::new(&mut palette, 2, 1);
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
        encoder.set_trns(vec![0, 255]);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0, 1]).unwrap();
        writer.finish().unwrap();
        let white = converted(palette.into()).await.unwrap().into_luma8();
        assert_eq!(white.as_raw(), &[255, 0]);

        // One pixel: in its only pass, so that it looks like any other but for the mark.
        let mut interlaced = Vec::new();
        let mut info = png::Info::with_size(1, 1);
        info.color_type = ColorType::Rgba;
        info.bit_depth = BitDepth::Eight;
        info.interlaced = true;
        let mut writer = Encoder::with_info(&mut interlaced, info)
            .unwrap()
            .write_header()
            .unwrap();
        writer.write_image_data(&[9, 9, 9, 55]).unwrap();
        writer.finish().unwrap();
        let white = converted(interlaced.into()).await.unwrap().into_luma8();
        assert_eq!(white.as_raw(), &[200]);
    }

    #[tokio::test]
    async fn what_has_no_transparency_marks_nothing() {
        let white = converted(png(image::RgbImage::new(4, 4))).await.unwrap();
        assert!(white.into_luma8().iter().all(|shade| *shade == 0));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_the_callers_fault() {
        let mut torn = png(image::RgbaImage::new(64, 64)).to_vec();
        // Inside the compressed pixels; the structure around them stays whole.
        let middle = torn.len() - 24;
        torn[middle] ^= 0x55;
        let large = png(image::GrayImage::new(4097, 4096));
        for file in [torn.into(), large] {
            let error = converted(file).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidRequest);
            assert_eq!(error.param.as_deref(), Some("mask"));
        }
    }
}
