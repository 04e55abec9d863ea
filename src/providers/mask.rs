//! `OpenAI`'s masks become those of everybody else: what is transparent there is white here.
//!
//! A client's mask says by full transparency where to edit (`contracts/openai-images.md`, section 4.1);
//! Stability and Flux Fill take a picture without transparency, white where they shall paint and black where
//! they shall not (`contracts/stability.md`, 2.4; `contracts/replicate.md`, 2.5). A mask is turned over once, into the
//! spool that it is in, however many calls and tries need it. Row by row: of its pixels only two rows are in memory;
//! but a byte for each where they are interlaced, 16 MiB at most, of two masks at a time.

use std::io::{self, BufRead, Seek, Write};

use bytes::Bytes;
use png::{
    BitDepth, ColorType, Compression, Decoder, Encoder, InterlaceInfo, Limits, Transformations,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task,
};

use super::{ErrorKind, ProviderError};
use crate::{catalog::ImageSize, images::Upload};

/// Larger masks are refused, as small as their files may be: all of their pixels are looked at.
const MAX_PIXELS: u64 = 4096 * 4096;
/// A byte a pixel and what is around them, should they not compress at all.
const MAX_BYTES: u64 = MAX_PIXELS + MAX_PIXELS / 8;
/// What decoding may allocate, beside the rows.
const MAX_DECODER_BYTES: usize = 8 * 1024 * 1024;
/// How much is handed on at once.
const PIECE: usize = 64 * 1024;

/// Each takes a core for up to some hundred milliseconds.
static CONVERSIONS: Semaphore = Semaphore::const_new(2);

/// A PNG in shades of grey of the mask's size: 255 minus the transparency of each pixel's colour.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`], blaming `mask`, when its pixels cannot be read;
/// [`ErrorKind::Storage`] when our copy of it cannot, or there is no room for another.
///
/// # Cancel safety
/// May be dropped: the next who needs it begins anew.
pub(super) async fn white_where_transparent(mask: &Upload) -> Result<Upload, ProviderError> {
    let pixels = mask.info().size.map_or(u64::MAX, ImageSize::pixels);
    if pixels > MAX_PIXELS {
        return Err(invalid(&format!("it has more than {MAX_PIXELS} pixels")));
    }
    let white = mask.other_form(turn_over(mask)).await?;
    white.ok_or_else(|| invalid("its pixels cannot be read"))
}

/// `None` when its pixels cannot be read.
async fn turn_over(mask: &Upload) -> Result<Option<Upload>, ProviderError> {
    let place = CONVERSIONS.acquire().await;
    let place = place.map_err(|_| cannot_be_kept(&"nobody converts masks any more"))?;
    let (pieces, mut written) = mpsc::channel(2);
    let file = mask.reader();
    let conversion = task::spawn_blocking(move || {
        let is_readable = convert(file, Pieces::new(pieces)).is_some();
        // Not before: it may go on for a while after nobody listens any more.
        drop(place);
        is_readable
    });
    let mut writer = mask.spool().begin(MAX_BYTES);
    while let Some(piece) = written.recv().await {
        let piece: Bytes = piece;
        let kept = writer.write(&piece).await;
        kept.map_err(|error| cannot_be_kept(&error))?;
    }
    match conversion.await {
        Ok(true) => match writer.finish().await {
            Ok(white) => Ok(Some(white)),
            Err(error) => Err(cannot_be_kept(&error)),
        },
        Ok(false) | Err(_) => Ok(None),
    }
}

fn cannot_be_kept(why: &dyn std::fmt::Display) -> ProviderError {
    let message = format!("the mask cannot be converted: {why}");
    ProviderError::new(ErrorKind::Storage, message)
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

/// What is written, in pieces, for a task.
struct Pieces {
    buffer: Vec<u8>,
    to: mpsc::Sender<Bytes>,
}

impl Pieces {
    fn new(to: mpsc::Sender<Bytes>) -> Self {
        let buffer = Vec::new();
        Self { buffer, to }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.buffer);
        if piece.is_empty() {
            return Ok(());
        }
        let sent = self.to.blocking_send(piece.into());
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Writes the other form; `None` when the file is no readable PNG, or nobody reads what is written.
fn convert(file: impl BufRead + Seek, mut to: Pieces) -> Option<()> {
    let limits = Limits {
        bytes: MAX_DECODER_BYTES,
    };
    let mut decoder = Decoder::new_with_limits(file, limits);
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
    let turn_over = |row: &[u8], shades: &mut Vec<u8>| {
        shades.clear();
        let opacities = row.iter().skip(channels - 1).step_by(channels);
        shades.extend(opacities.map(|opacity| u8::MAX - opacity));
    };

    let mut encoder = Encoder::new(&mut to, width, height);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header().ok()?;
    let mut rows = writer.stream_writer().ok()?;
    let mut shades = Vec::new();
    if reader.info().interlaced {
        // Its rows come in another order, so all of them are needed; one byte a pixel is enough.
        let stride = usize::try_from(width).ok()?;
        let mut whole = vec![0; usize::try_from(height).ok()?.checked_mul(stride)?];
        while let Some(row) = reader.next_interlaced_row().ok()? {
            let InterlaceInfo::Adam7(pass) = row.interlace() else {
                return None;
            };
            turn_over(row.data(), &mut shades);
            png::expand_interlaced_row(&mut whole, stride, &shades, pass, 8);
        }
        rows.write_all(&whole).ok()?;
    } else {
        while let Some(row) = reader.next_row().ok()? {
            turn_over(row.data(), &mut shades);
            rows.write_all(&shades).ok()?;
        }
    }
    rows.finish().ok()?;
    writer.finish().ok()?;
    to.flush().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use bytes::BytesMut;
    use futures_util::TryStreamExt as _;
    use image::{DynamicImage, GenericImageView as _, ImageFormat, Luma};

    use super::*;
    use crate::images::Spool;

    fn png(picture: impl Into<DynamicImage>) -> Bytes {
        let mut file = Cursor::new(Vec::new());
        let picture: DynamicImage = picture.into();
        picture.write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner().into()
    }

    async fn upload(spool: &Spool, file: &[u8]) -> Upload {
        let mut writer = spool.begin(1 << 30);
        writer.write(file).await.unwrap();
        writer.finish().await.unwrap()
    }

    async fn converted(file: Bytes) -> Result<DynamicImage, ProviderError> {
        let directory = tempfile::TempDir::new().unwrap();
        let spool = Spool::open(directory.path().into(), 1 << 30, 1 << 30);
        let mask = upload(&spool.await.unwrap(), &file).await;
        let white = white_where_transparent(&mask).await?;
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

    /// A file in the order of the seven passes (PNG specification, section 8).
    fn interlaced(width: u32, height: u32, opacity: impl Fn(u32, u32) -> u8) -> Bytes {
        let (across, down) = (|by: u32| (0..width).step_by(by as usize), height);
        let mut raw = Vec::new();
        for (x0, y0, dx, dy) in [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ] {
            for y in (y0..down).step_by(dy) {
                let xs: Vec<u32> = across(dx).map(|x| x + x0).filter(|x| *x < width).collect();
                if xs.is_empty() {
                    continue;
                }
                raw.push(0);
                raw.extend(xs.into_iter().flat_map(|x| [1, 2, 3, opacity(x, y)]));
            }
        }
        // Stored, not compressed.
        let mut zlib = vec![0x78, 0x01];
        let mut blocks = raw.chunks(0xffff).peekable();
        while let Some(block) = blocks.next() {
            let length = u16::try_from(block.len()).unwrap();
            zlib.push(u8::from(blocks.peek().is_none()));
            zlib.extend_from_slice(&length.to_le_bytes());
            zlib.extend_from_slice(&(!length).to_le_bytes());
            zlib.extend_from_slice(block);
        }
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &raw {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        zlib.extend_from_slice(&(b << 16 | a).to_be_bytes());
        let mut file = Vec::new();
        let mut info = png::Info::with_size(width, height);
        info.color_type = ColorType::Rgba;
        info.bit_depth = BitDepth::Eight;
        info.interlaced = true;
        let encoder = Encoder::with_info(&mut file, info).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &zlib).unwrap();
        writer.finish().unwrap();
        file.into()
    }

    #[tokio::test]
    async fn interlaced_rows_find_their_places() {
        for (width, height) in [(1, 1), (3, 2), (9, 17), (130, 70)] {
            let opacity = |x: u32, y: u32| u8::try_from((x * 7 + y * 13) % 256).unwrap();
            let file = interlaced(width, height, opacity);
            let white = converted(file).await.unwrap().into_luma8();
            assert_eq!(white.dimensions(), (width, height));
            for (x, y, Luma([shade])) in white.enumerate_pixels() {
                assert_eq!(*shade, 255 - opacity(x, y), "{x} {y} of {width}x{height}");
            }
        }
    }

    /// Calls of one generation share one conversion, which counts as what its account has in the spool.
    #[tokio::test]
    async fn a_mask_is_turned_over_once_into_its_spool() {
        let directory = tempfile::TempDir::new().unwrap();
        let spool = Spool::open(directory.path().into(), 1 << 30, 1 << 20);
        let spool = spool.await.unwrap().of(crate::budget::Owner::of(&"me"));
        // What does not compress: every shade is a surprise.
        let noise = |side: u32| {
            let mut state = 1_u32;
            png(image::RgbaImage::from_fn(side, side, |_, _| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                image::Rgba([0, 0, 0, state.to_be_bytes()[0]])
            }))
        };
        let mask = upload(&spool, &noise(400)).await;
        let before = spool.used_bytes().0;
        let all = futures_util::future::join_all((0..8).map(|_| white_where_transparent(&mask)));
        let sizes: Vec<u64> = (all.await.into_iter())
            .map(|white| white.unwrap().size_bytes())
            .collect();
        assert!(sizes.iter().all(|size| *size == sizes[0]));
        assert_eq!(spool.used_bytes().0, before + sizes[0]);
        drop(mask);
        assert_eq!(spool.used_bytes(), (0, 0));
        // There is room for the mask, and none for its other form.
        let file = noise(400);
        let most = file.len() as u64 + 1000;
        let narrow = Spool::open(directory.path().into(), 1 << 30, most);
        let narrow = narrow.await.unwrap().of(crate::budget::Owner::of(&"me"));
        let mask = upload(&narrow, &file).await;
        let refused = white_where_transparent(&mask).await.err();
        assert_eq!(refused.unwrap().kind, ErrorKind::Storage);
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
