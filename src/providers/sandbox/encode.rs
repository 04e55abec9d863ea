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
    let painted = |alpha: bool| {
        let mut canvas = paint(&scene, spec.size, alpha);
        if let Some(block) = spec.coarseness {
            canvas.coarsen(block);
        }
        canvas
    };
    let encoded = match spec.format {
        OutputFormat::Png => png(&painted(spec.transparent)),
        // JPEG knows no transparency; the rules refuse the combination before it comes here.
        OutputFormat::Jpeg => jpeg(&painted(false), spec.compression),
        OutputFormat::Webp => webp(&painted(spec.transparent), spec.compression),
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
    // Long runs of one colour need no filter, and real deflate at its lightest beats `Fast` on them:
    // a third of the bytes in a sixth of the time.
    PngEncoder::new_with_quality(&mut file, CompressionType::Level(1), FilterType::NoFilter)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::{ImageSize, Quality, Style};

    fn spec(width: u32, height: u32, format: OutputFormat) -> Spec {
        Spec {
            prompt: "a fox reading a newspaper".to_owned(),
            origin: None,
            model: "openai/gpt-image-1".to_owned(),
            index: 0,
            of: 4,
            size: ImageSize::new(width, height).unwrap(),
            quality: Some(Quality::High),
            style: None,
            transparent: false,
            format,
            compression: None,
            frame_count: 9,
            frame_duration_ms: 200,
            coarseness: None,
        }
    }

    /// A decoded picture: its sides and its pixels with alpha.
    struct Decoded {
        width: usize,
        height: usize,
        rgba: Vec<u8>,
    }

    impl Decoded {
        fn alpha(&self, column: usize, row: usize) -> u8 {
            self.rgba[(row * self.width + column) * 4 + 3]
        }
    }

    fn decode(bytes: &[u8], format: OutputFormat) -> Decoded {
        let (width, height, rgba) = match format {
            OutputFormat::Png | OutputFormat::Jpeg => {
                let picture = image::load_from_memory(bytes).unwrap().into_rgba8();
                (picture.width(), picture.height(), picture.into_raw())
            }
            OutputFormat::Webp => {
                let picture = webp::Decoder::new(bytes).decode().unwrap();
                let rgba = if picture.is_alpha() {
                    picture.to_vec()
                } else {
                    let opaque = |pixel: &[u8]| [pixel[0], pixel[1], pixel[2], 255];
                    picture.chunks_exact(3).flat_map(opaque).collect()
                };
                (picture.width(), picture.height(), rgba)
            }
            OutputFormat::Gif => {
                let mut options = gif::DecodeOptions::new();
                options.set_color_output(gif::ColorOutput::RGBA);
                let mut decoder = options.read_info(bytes).unwrap();
                let (width, height) = (decoder.width(), decoder.height());
                let frame = decoder.read_next_frame().unwrap().unwrap();
                assert_eq!((frame.width, frame.height), (width, height));
                (width.into(), height.into(), frame.buffer.to_vec())
            }
            OutputFormat::Svg => unreachable!("an SVG has no pixels"),
        };
        Decoded {
            width: width as usize,
            height: height as usize,
            rgba,
        }
    }

    const RASTER: [OutputFormat; 4] = [
        OutputFormat::Png,
        OutputFormat::Jpeg,
        OutputFormat::Webp,
        OutputFormat::Gif,
    ];

    #[test]
    fn every_format_has_the_size_asked_for_and_is_opaque() {
        for (width, height) in [(1, 1), (16, 9), (256, 256), (512, 171), (300, 900)] {
            for format in RASTER {
                let picture = decode(&picture(&spec(width, height, format)).unwrap(), format);
                assert_eq!(
                    (picture.width, picture.height),
                    (width as usize, height as usize),
                    "{format}"
                );
                let opaque = picture.rgba.chunks_exact(4).all(|pixel| pixel[3] == 255);
                assert!(opaque, "{format} {width}x{height}");
            }
        }
    }

    #[test]
    fn a_transparent_background_shows_through_around_the_picture() {
        for format in [OutputFormat::Png, OutputFormat::Webp, OutputFormat::Gif] {
            let mut spec = spec(320, 256, format);
            spec.transparent = true;
            let picture = decode(&picture(&spec).unwrap(), format);
            for (column, row) in [(0, 0), (319, 0), (0, 255), (319, 255), (14, 14), (160, 0)] {
                assert_eq!(picture.alpha(column, row), 0, "{format} at {column},{row}");
            }
            for (column, row) in [(160, 128), (160, 20), (20, 128), (160, 235)] {
                assert_eq!(
                    picture.alpha(column, row),
                    255,
                    "{format} at {column},{row}"
                );
            }
        }
    }

    #[test]
    fn compression_decides_how_large_jpeg_and_webp_are() {
        for format in [OutputFormat::Jpeg, OutputFormat::Webp] {
            let sizes = [0, 30, 100].map(|compression| {
                let mut spec = spec(512, 512, format);
                spec.compression = Some(compression);
                picture(&spec).unwrap().len()
            });
            assert!(
                sizes.is_sorted() && sizes[0] * 2 < sizes[2],
                "{format}: {sizes:?}"
            );
        }
    }

    #[test]
    fn the_same_request_gives_the_same_bytes_and_another_one_others() {
        for format in OutputFormat::ALL.iter().copied() {
            let first = spec(128, 128, format);
            let again = picture(&first).unwrap();
            assert_eq!(picture(&first).unwrap(), again, "{format}");
            let others = [
                Spec {
                    index: 1,
                    ..first.clone()
                },
                Spec {
                    prompt: "a fox".to_owned(),
                    ..first.clone()
                },
                Spec {
                    model: "openai/dall-e-3".to_owned(),
                    ..first.clone()
                },
                Spec {
                    style: Some(Style::Natural),
                    ..first.clone()
                },
                Spec {
                    quality: Some(Quality::Low),
                    ..first.clone()
                },
            ];
            for other in others {
                assert_ne!(picture(&other).unwrap(), again, "{format}");
            }
        }
    }

    #[test]
    fn a_gif_has_the_frames_asked_for() {
        for (count, duration_ms, delay) in [(2, 20, 2), (9, 200, 20), (16, 655_350, 65_535)] {
            let mut spec = spec(256, 192, OutputFormat::Gif);
            spec.frame_count = count;
            spec.frame_duration_ms = duration_ms;
            let file = picture(&spec).unwrap();
            let mut decoder = gif::DecodeOptions::new().read_info(&file[..]).unwrap();
            let mut delays = vec![];
            while let Some(frame) = decoder.read_next_frame().unwrap() {
                delays.push(frame.delay);
            }
            assert_eq!(delays, vec![delay; count.into()]);
            assert_eq!(decoder.repeat(), gif::Repeat::Infinite);
        }
    }

    #[test]
    fn an_svg_says_its_size_and_what_was_asked() {
        let mut spec = spec(640, 480, OutputFormat::Svg);
        spec.prompt = "<b> & \u{1}\"fox\"]]>".to_owned();
        let file = String::from_utf8(picture(&spec).unwrap()).unwrap();
        for expected in [
            r#" width="640" height="480" "#,
            r#"&lt;b&gt; &amp; "fox"]]&gt;"#,
            "openai/gpt-image-1",
            "640x480 · high · 1 of 4",
        ] {
            assert!(file.contains(expected), "{expected} is missing in {file}");
        }
        assert!(file.starts_with("<svg ") && file.ends_with("</svg>\n"));
        assert!(!file.contains("clip-path"));
        spec.transparent = true;
        assert!(
            String::from_utf8(picture(&spec).unwrap())
                .unwrap()
                .contains("clip-path")
        );
    }

    #[test]
    fn no_prompt_is_too_odd() {
        let long = "🦊 fox\u{301}\u{202e}שָׁלוֹם 狐\u{0}\n".repeat(2_000);
        for prompt in [
            "",
            " ",
            "\u{0}",
            "\u{200d}\u{fe0f}",
            "\u{10ffff}\u{fffe}",
            &long,
        ] {
            let mut spec = spec(200, 100, OutputFormat::Png);
            spec.prompt = prompt.to_owned();
            decode(&picture(&spec).unwrap(), OutputFormat::Png);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn any_request_is_painted(
            prompt in any::<String>(),
            (width, height) in (1_u32..300, 1_u32..300),
            format in 0_usize..5,
            (index, of) in any::<(u8, u8)>(),
            compression in proptest::option::of(any::<u8>()),
            (frame_count, frame_duration_ms) in (0_u8..20, any::<u32>()),
            transparent: bool,
        ) {
            let format = OutputFormat::ALL[format];
            let spec = Spec {
                prompt, index, of, transparent, compression, frame_count, frame_duration_ms,
                ..spec(width, height, format)
            };
            let file = picture(&spec).unwrap();
            if format == OutputFormat::Svg {
                let text = String::from_utf8(file).unwrap();
                prop_assert!(!text.trim_end().contains(char::is_control));
            } else {
                let decoded = decode(&file, format);
                prop_assert_eq!((decoded.width, decoded.height), (width as usize, height as usize));
            }
        }
    }
}
