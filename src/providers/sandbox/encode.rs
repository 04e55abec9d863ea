//! Pixels become a file: PNG, JPEG, WebP or GIF.

use std::borrow::Cow;

use image::{
    ExtendedColorType, ImageEncoder,
    codecs::{
        jpeg::JpegEncoder,
        png::{CompressionType, FilterType, PngEncoder},
    },
};

use super::{
    canvas::Canvas,
    paint::{draw_bar, paint},
    scene::{Scene, Spec},
    svg,
};
use crate::catalog::OutputFormat;

/// What JPEG and WebP get when the request does not say.
const QUALITY: u8 = 90;

/// An encoder refused. Its own words are kept out: they say nothing a person could act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not encode a picture as {0}")]
pub(super) struct EncodeError(pub(super) OutputFormat);

/// Paints and encodes one picture. Same spec, same bytes.
///
/// Takes tens of milliseconds of one core: call it where that disturbs nobody.
pub(super) fn picture(spec: &Spec) -> Result<Vec<u8>, EncodeError> {
    let scene = Scene::compose(spec);
    let encoded = match spec.format {
        OutputFormat::Png => png(&paint(&scene, spec.size, spec.transparent)),
        // JPEG knows no transparency; the rules refuse the combination before it comes here.
        OutputFormat::Jpeg => jpeg(&paint(&scene, spec.size, false), spec.compression),
        OutputFormat::Webp => webp(
            &paint(&scene, spec.size, spec.transparent),
            spec.compression,
        ),
        OutputFormat::Gif => gif(&scene, spec),
        OutputFormat::Svg => Some(svg::write(&scene, spec).into_bytes()),
    };
    encoded.ok_or(EncodeError(spec.format))
}

fn sides(canvas: &Canvas) -> Option<(u32, u32)> {
    Some((
        canvas.width().try_into().ok()?,
        canvas.height().try_into().ok()?,
    ))
}

fn png(canvas: &Canvas) -> Option<Vec<u8>> {
    let (width, height) = sides(canvas)?;
    let colour = if canvas.has_alpha() {
        ExtendedColorType::Rgba8
    } else {
        ExtendedColorType::Rgb8
    };
    let mut file = vec![];
    // Most rows equal the one above, nearly: `Up` turns them into zeros.
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Up)
        .write_image(canvas.pixels(), width, height, colour)
        .ok()?;
    Some(file)
}

fn jpeg(canvas: &Canvas, compression: Option<u8>) -> Option<Vec<u8>> {
    let (width, height) = sides(canvas)?;
    let mut file = vec![];
    JpegEncoder::new_with_quality(&mut file, compression.unwrap_or(QUALITY).clamp(1, 100))
        .encode(canvas.pixels(), width, height, ExtendedColorType::Rgb8)
        .ok()?;
    Some(file)
}

fn webp(canvas: &Canvas, compression: Option<u8>) -> Option<Vec<u8>> {
    let (width, height) = sides(canvas)?;
    let layout = if canvas.has_alpha() {
        webp::PixelLayout::Rgba
    } else {
        webp::PixelLayout::Rgb
    };
    let mut config = webp::WebPConfig::new().ok()?;
    config.quality = f32::from(compression.unwrap_or(QUALITY).min(100));
    // 0 is the fastest, 6 the smallest; from 1 to the usual 4 the time triples for a few per cent.
    config.method = 1;
    let file = webp::Encoder::new(canvas.pixels(), layout, width, height)
        .encode_advanced(&config)
        .ok()?;
    Some(file.to_vec())
}

/// The whole picture first; after it only the bar that grows, frame by frame.
fn gif(scene: &Scene, spec: &Spec) -> Option<Vec<u8>> {
    let mut canvas = paint(scene, spec.size, true);
    let width = u16::try_from(canvas.width()).ok()?;
    let height = u16::try_from(canvas.height()).ok()?;
    // GIF counts in hundredths of a second; browsers read less than 2 as "whatever".
    let delay = u16::try_from(spec.frame_duration_ms / 10)
        .unwrap_or(u16::MAX)
        .max(2);
    let mut file = vec![];
    let mut encoder = gif::Encoder::new(&mut file, width, height, &[]).ok()?;
    encoder.set_repeat(gif::Repeat::Infinite).ok()?;
    let animated = spec.frame_count > 1;
    if animated {
        draw_bar(&mut canvas, scene, 0, spec.frame_count);
    }
    let mut pixels = Cow::Borrowed(canvas.pixels());
    // 30 is the coarsest and fastest palette; the picture has few colours.
    let mut frame = gif::Frame::from_rgba_speed(width, height, pixels.to_mut(), 30);
    frame.delay = delay;
    encoder.write_frame(&frame).ok()?;
    for number in 1..spec.frame_count {
        let (columns, rows) = draw_bar(&mut canvas, scene, number, spec.frame_count);
        let mut patch = canvas.crop(columns.clone(), rows.clone());
        let mut frame = gif::Frame::from_rgba_speed(
            u16::try_from(columns.len()).ok()?,
            u16::try_from(rows.len()).ok()?,
            &mut patch,
            30,
        );
        frame.left = u16::try_from(columns.start).ok()?;
        frame.top = u16::try_from(rows.start).ok()?;
        frame.delay = delay;
        frame.dispose = gif::DisposalMethod::Keep;
        encoder.write_frame(&frame).ok()?;
    }
    drop(encoder);
    Some(file)
}
