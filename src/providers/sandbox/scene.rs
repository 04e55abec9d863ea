//! What a sandbox picture shows: a landscape drawn from a hash, and the words that say what was asked.
//!
//! Pure: [`Spec`] in, [`Scene`] out, the same for the same. Knows nothing of pixels or file formats;
//! `paint` makes rows of it and `svg` text.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "picture coordinates: sides stay below MAX_SIDE, shares below 1"
)]

use std::f32::consts::TAU;

use sha2::{Digest, Sha256};

use super::{
    canvas::{Rgb, mix},
    text::{self, ASCENT, LEADING, TextBlock, Weight},
};
use crate::catalog::{ImageSize, OutputFormat, Quality, Style};

/// Everything a picture depends on.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) prompt: String,
    /// What it is made from besides, in words.
    pub(super) origin: Option<String>,
    /// The model's public id.
    pub(super) model: String,
    /// Which picture of the request, from 0.
    pub(super) index: u8,
    /// How many pictures the request asks for.
    pub(super) of: u8,
    pub(super) size: ImageSize,
    pub(super) quality: Option<Quality>,
    pub(super) style: Option<Style>,
    pub(super) transparent: bool,
    pub(super) format: OutputFormat,
    /// 0 to 100, for JPEG and WebP.
    pub(super) compression: Option<u8>,
    /// Frames of a GIF; 1 stands still.
    pub(super) frame_count: u8,
    /// How long each of them stands.
    pub(super) frame_duration_ms: u32,
    /// A draft: the side of the squares it is made of, in pixels.
    pub(super) coarseness: Option<usize>,
}

/// A picture in shapes and words, in pixels.
pub(super) struct Scene {
    pub(super) width: f32,
    pub(super) height: f32,
    /// Colour at the top and at the bottom of the sky; it grows lighter with the square of the way.
    pub(super) sky: (Rgb, Rgb),
    pub(super) stars: Vec<Star>,
    pub(super) sun: Sun,
    /// From the farthest to the nearest.
    pub(super) hills: Vec<Hill>,
    pub(super) title: TextBlock,
    pub(super) footer: Vec<TextBlock>,
    /// With a transparent background: how far from the sides the picture is cut, and its corners' radius.
    pub(super) cut: Option<(u16, f32)>,
    /// The bar that grows from frame to frame: left, top, width, height.
    pub(super) bar: [f32; 4],
}

/// A dot in the sky.
pub(super) struct Star {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) radius: f32,
    /// 0 to 1.
    pub(super) light: f32,
}

/// The one bright thing.
pub(super) struct Sun {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) radius: f32,
    pub(super) colour: Rgb,
}

/// A skyline and the colours below it.
pub(super) struct Hill {
    base: f32,
    height: f32,
    /// Waves per pixel (times τ) and phase of its two waves.
    waves: [(f32, f32); 2],
    /// Colour at its top and at the picture's bottom.
    pub(super) colours: (Rgb, Rgb),
}

impl Hill {
    /// The skyline's row at a column.
    pub(super) fn top_at(&self, column: f32) -> f32 {
        let [long, short] = self
            .waves
            .map(|(frequency, phase)| frequency.mul_add(column, phase).sin());
        self.height
            .mul_add(long.mul_add(-0.65, short * -0.35), self.base)
    }

    /// The colour of a row.
    pub(super) fn colour_at(&self, row: f32, picture_height: f32) -> Rgb {
        let top = self.base - self.height;
        mix(
            self.colours.0,
            self.colours.1,
            (row - top) / (picture_height - top).max(1.0),
        )
    }
}

/// The words' colours.
pub(super) const INK: Rgb = [255, 255, 255];
/// The colour of their shadow.
pub(super) const SHADOW: Rgb = [8, 8, 20];

/// Where the land begins, as a share of the height.
pub(super) const HORIZON: f32 = 0.68;
/// Where the prompt ends, as a share of the height; the sun stays below.
const TITLE_END: f32 = 0.46;
/// Characters of the prompt that can be legible at all.
const LONGEST_TITLE: usize = 1_500;

/// Sky above, sky at the horizon, sun, far hills, near hills.
const PALETTES: [[Rgb; 5]; 8] = [
    [
        [0x2b, 0x21, 0x57],
        [0xe8, 0x71, 0x8d],
        [0xff, 0xe0, 0xa3],
        [0x8a, 0x43, 0x75],
        [0x1d, 0x12, 0x36],
    ],
    [
        [0x0b, 0x2a, 0x4a],
        [0x5f, 0xb3, 0xc9],
        [0xff, 0xf3, 0xc4],
        [0x2f, 0x6f, 0x8f],
        [0x07, 0x1a, 0x2e],
    ],
    [
        [0x12, 0x34, 0x3b],
        [0xd2, 0xcf, 0x8f],
        [0xff, 0xf6, 0xcf],
        [0x4c, 0x8a, 0x68],
        [0x0c, 0x24, 0x20],
    ],
    [
        [0x4a, 0x19, 0x42],
        [0xf2, 0xa6, 0x5a],
        [0xff, 0xf0, 0xc9],
        [0xb5, 0x52, 0x4a],
        [0x2b, 0x10, 0x24],
    ],
    [
        [0x0d, 0x1b, 0x2a],
        [0x3f, 0xbf, 0x9b],
        [0xd9, 0xff, 0xf0],
        [0x1f, 0x6f, 0x6b],
        [0x06, 0x14, 0x1b],
    ],
    [
        [0x2d, 0x2a, 0x5e],
        [0xc9, 0xa7, 0xeb],
        [0xff, 0xf7, 0xff],
        [0x6f, 0x62, 0xb5],
        [0x17, 0x14, 0x3a],
    ],
    [
        [0x24, 0x1b, 0x2f],
        [0xd9, 0x77, 0x57],
        [0xff, 0xd7, 0xa8],
        [0x8c, 0x4a, 0x4a],
        [0x16, 0x0f, 0x1e],
    ],
    [
        [0x1f, 0x2d, 0x3d],
        [0xa9, 0xbc, 0xcf],
        [0xff, 0xff, 0xff],
        [0x5c, 0x72, 0x88],
        [0x10, 0x1a, 0x26],
    ],
];

impl Scene {
    /// Draws up the picture of a request.
    pub(super) fn compose(spec: &Spec) -> Self {
        let width = spec.size.width.get() as f32;
        let height = spec.size.height.get() as f32;
        let unit = width.min(height);
        let mut dice = Dice::of(spec);
        let [zenith, dusk, light, far, near] =
            dice.palette().map(|colour| temper(colour, spec.style));

        let cut = spec
            .transparent
            .then_some(((unit * 0.035).ceil() as u16, unit * 0.13));
        let margin = unit * if cut.is_some() { 0.115 } else { 0.07 };
        let footer = footer(spec, width, height, unit, margin);
        let words_begin = footer
            .first()
            .map_or(height, |block| block.size.mul_add(-ASCENT, block.baseline));
        let stars = (0..36)
            .map(|_| Star {
                x: dice.between(0.0, width),
                y: dice.between(0.0, height * 0.5),
                radius: unit * dice.between(0.0007, 0.0019),
                light: dice.between(0.15, 0.6),
            })
            .collect();
        let sun = Sun {
            x: dice.between(0.2, 0.8) * width,
            y: dice.between(0.6, 0.66) * height,
            radius: dice.between(0.09, 0.135) * unit.min(height * 0.9),
            colour: light,
        };
        let layers = 4_u8;
        let hills = (0..layers)
            .map(|layer| {
                let depth = f32::from(layer) / f32::from(layers - 1);
                let rise = height * 0.035;
                let last =
                    (words_begin - height * 0.03 - rise).clamp(height * HORIZON, height * 0.86);
                let (shade, deep) = (mix(far, near, depth), mix(far, near, depth + 0.45));
                Hill {
                    base: depth.mul_add(last - height * HORIZON, height * HORIZON),
                    height: rise * dice.between(0.7, 1.0),
                    waves: [
                        (
                            TAU / (unit * dice.between(0.75, 1.3)),
                            dice.between(0.0, TAU),
                        ),
                        (
                            TAU / (unit * dice.between(0.25, 0.45)),
                            dice.between(0.0, TAU),
                        ),
                    ],
                    colours: (mix(shade, dusk, 0.25 * (1.0 - depth)), deep),
                }
            })
            .collect();
        Self {
            width,
            height,
            sky: (zenith, dusk),
            stars,
            sun,
            hills,
            title: title(&spec.prompt, width, height, unit, margin),
            footer,
            cut,
            bar: [
                margin,
                height - margin * 0.55,
                margin.mul_add(-2.0, width).max(1.0),
                (unit / 90.0).max(2.0),
            ],
        }
    }

    /// The colour of the sky in a row.
    pub(super) fn sky_at(&self, row: f32) -> Rgb {
        let way = row / (self.height * HORIZON);
        mix(self.sky.0, self.sky.1, way * way)
    }
}

/// The prompt, as large as it fits above the sun.
fn title(prompt: &str, width: f32, height: f32, unit: f32, margin: f32) -> TextBlock {
    let text = text::clean(prompt, LONGEST_TITLE);
    let smallest = (unit * 0.026).max(9.0);
    let (size, lines) = text::fit(
        &text,
        Weight::Bold,
        (
            margin.mul_add(-2.0, width),
            height.mul_add(TITLE_END, -margin),
        ),
        ((unit * 0.1).max(smallest), smallest),
    );
    TextBlock {
        weight: Weight::Bold,
        size,
        x: margin,
        baseline: size.mul_add(ASCENT, margin),
        leading: size * LEADING,
        lines,
    }
}

/// The model, and under it what was asked of it, at the bottom of the picture.
fn footer(spec: &Spec, width: f32, height: f32, unit: f32, margin: f32) -> Vec<TextBlock> {
    let mut facts: Vec<String> = spec.origin.iter().cloned().collect();
    facts.push(spec.size.to_string());
    facts.extend(spec.quality.map(|quality| quality.to_string()));
    facts.extend(spec.style.map(|style| style.to_string()));
    facts.push(format!("{} of {}", u16::from(spec.index) + 1, spec.of));
    facts.push("painted by Easel’s sandbox".to_owned());

    let room = margin.mul_add(-2.0, width);
    let lines_of = |text: &str, weight, size: f32, lines: f32| {
        text::fit(
            text,
            weight,
            (room, size * LEADING * lines),
            (size, (size * 0.8).max(8.0)),
        )
    };
    let (size, lines) = lines_of(
        &facts.join(" · "),
        Weight::Regular,
        (unit * 0.027).max(9.5),
        2.0,
    );
    let leading = size * LEADING;
    let details = TextBlock {
        weight: Weight::Regular,
        size,
        x: margin,
        baseline: leading.mul_add(-(lines.len() as f32 - 1.0), margin.mul_add(-0.9, height)),
        leading,
        lines,
    };
    let (size, lines) = lines_of(&spec.model, Weight::Bold, (unit * 0.04).max(11.0), 1.0);
    let model = TextBlock {
        weight: Weight::Bold,
        size,
        x: margin,
        baseline: details.size.mul_add(-1.45, details.baseline),
        leading: size * LEADING,
        lines,
    };
    vec![model, details]
}

/// DALL·E's `natural` is paler.
fn temper(colour: Rgb, style: Option<Style>) -> Rgb {
    match style {
        Some(Style::Natural) => {
            let grey = colour.iter().map(|&part| u16::from(part)).sum::<u16>() / 3;
            mix(colour, [grey as u8; 3], 0.45)
        }
        Some(Style::Vivid) | None => colour,
    }
}

/// Chance that is none: numbers that follow from prompt, model and index (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn of(spec: &Spec) -> Self {
        let mut hash = Sha256::new();
        hash.update((spec.prompt.len() as u64).to_le_bytes());
        hash.update(&spec.prompt);
        hash.update((spec.model.len() as u64).to_le_bytes());
        hash.update(&spec.model);
        hash.update([spec.index]);
        // Nothing where there is nothing: pictures from prompts alone stay as they were.
        hash.update(spec.origin.as_deref().unwrap_or_default());
        let digest = hash.finalize();
        Self(
            digest
                .iter()
                .take(8)
                .fold(0, |seed, &byte| seed << 8 | u64::from(byte)),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        let share = (self.next() >> 40) as f32 / (1_u32 << 24) as f32;
        (high - low).mul_add(share, low)
    }

    fn palette(&mut self) -> [Rgb; 5] {
        PALETTES[(self.next() % PALETTES.len() as u64) as usize]
    }
}
