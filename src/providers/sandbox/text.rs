//! Words: measuring, wrapping and drawing them in `DejaVu` Sans, which is embedded in the binary.
//!
//! Knows nothing of pictures. A character that the font lacks becomes the font's empty box;
//! right-to-left and complex scripts are not shaped.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "glyph positions lie on the canvas, whose sides stay below MAX_SIDE"
)]

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, GlyphId, PxScale};

use super::canvas::{Canvas, Rgb};

/// The two cuts we set type in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    Bold,
}

/// Lines of text with a place on the canvas.
#[derive(Debug, Clone)]
pub(super) struct TextBlock {
    pub(super) weight: Weight,
    /// The size of the type (an em) in pixels.
    pub(super) size: f32,
    /// Left edge, in pixels.
    pub(super) x: f32,
    /// The first line's baseline, in pixels.
    pub(super) baseline: f32,
    /// From baseline to baseline, in pixels.
    pub(super) leading: f32,
    pub(super) lines: Vec<String>,
}

/// From baseline to baseline, in ems.
pub(super) const LEADING: f32 = 1.22;
/// How far letters reach above the baseline, in ems.
pub(super) const ASCENT: f32 = 0.78;

static REGULAR: LazyLock<Option<Type>> = LazyLock::new(|| Type::read(dejavu::sans::regular()));
static BOLD: LazyLock<Option<Type>> = LazyLock::new(|| Type::read(dejavu::sans::bold()));

/// A font with its measure.
struct Type {
    font: FontRef<'static>,
    units_per_em: f32,
}

impl Type {
    fn read(bytes: &'static [u8]) -> Option<Self> {
        let font = FontRef::try_from_slice(bytes).ok()?;
        let units_per_em = font.units_per_em()?;
        Some(Self { font, units_per_em })
    }

    /// The embedded font; `None` cannot happen and would leave the picture without words.
    fn of(weight: Weight) -> Option<&'static Self> {
        match weight {
            Weight::Regular => REGULAR.as_ref(),
            Weight::Bold => BOLD.as_ref(),
        }
    }

    /// The width of a glyph in ems.
    fn advance(&self, glyph: GlyphId) -> f32 {
        self.font.h_advance_unscaled(glyph) / self.units_per_em
    }

    /// `ab_glyph` counts a size from the highest to the deepest stroke, not in ems.
    fn scale(&self, size: f32) -> PxScale {
        PxScale::from(size * self.font.height_unscaled() / self.units_per_em)
    }
}

/// What is drawn of a text: white space as single blanks, no control or format characters.
pub(super) fn clean(text: &str, longest: usize) -> String {
    let mut cleaned = String::new();
    let (mut count, mut gap) = (0, false);
    for character in text.chars() {
        if character.is_whitespace() {
            gap = !cleaned.is_empty();
            continue;
        }
        if is_invisible(character) {
            continue;
        }
        if count >= longest {
            cleaned.push('…');
            break;
        }
        if gap {
            cleaned.push(' ');
            gap = false;
            count += 1;
        }
        cleaned.push(character);
        count += 1;
    }
    cleaned
}

/// Control characters, joiners, direction marks, variation selectors, tags and other characters that
/// only steer their neighbours.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Breaks `text` into lines of at most `width` pixels, between words where that is possible.
pub(super) fn wrap(text: &str, weight: Weight, size: f32, width: f32) -> Vec<String> {
    let mut lines = vec![];
    let (mut line, mut line_width) = (String::new(), 0.0);
    let blank = measure(" ", weight, size);
    for word in text.split(' ') {
        let word_width = measure(word, weight, size);
        if !line.is_empty() && line_width + blank + word_width <= width {
            line.push(' ');
            line.push_str(word);
            line_width += blank + word_width;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
            line_width = 0.0;
        }
        if word_width <= width {
            line.push_str(word);
            line_width = word_width;
            continue;
        }
        for character in word.chars() {
            let step = measure(character.encode_utf8(&mut [0; 4]), weight, size);
            if !line.is_empty() && line_width + step > width {
                lines.push(std::mem::take(&mut line));
                line_width = 0.0;
            }
            line.push(character);
            line_width += step;
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// The largest type from `largest` down to `smallest` in which `text` fits into a box; in the smallest
/// it is cut with an ellipsis.
pub(super) fn fit(
    text: &str,
    weight: Weight,
    (width, height): (f32, f32),
    (largest, smallest): (f32, f32),
) -> (f32, Vec<String>) {
    let mut size = largest;
    loop {
        let mut lines = wrap(text, weight, size, width);
        // The hundredth forgives rounding where the box was made for exactly this many lines.
        let room = (height / (size * LEADING) + 0.01).floor().max(1.0) as usize;
        if lines.len() <= room {
            return (size, lines);
        }
        if size <= smallest {
            lines.truncate(room);
            if let Some(last) = lines.last_mut() {
                shorten(last, weight, size, width);
            }
            return (size, lines);
        }
        size = (size * 0.88).max(smallest);
    }
}

/// Ends a line with an ellipsis, taking characters away until that fits.
fn shorten(line: &mut String, weight: Weight, size: f32, width: f32) {
    let ellipsis = measure("…", weight, size);
    while !line.is_empty() && measure(line, weight, size) + ellipsis > width {
        line.pop();
    }
    line.truncate(line.trim_end_matches([' ', '…']).len());
    line.push('…');
}

/// How wide a text is, in pixels.
pub(super) fn measure(text: &str, weight: Weight, size: f32) -> f32 {
    Type::of(weight).map_or(0.0, |r#type| {
        let ems: f32 = text
            .chars()
            .map(|character| r#type.advance(r#type.font.glyph_id(character)))
            .sum();
        ems * size
    })
}

/// Draws a block.
pub(super) fn draw(canvas: &mut Canvas, block: &TextBlock, colour: Rgb, opacity: f32) {
    let Some(r#type) = Type::of(block.weight) else {
        return;
    };
    let scale = r#type.scale(block.size);
    for (number, line) in block.lines.iter().enumerate() {
        let baseline = (number as f32).mul_add(block.leading, block.baseline);
        let mut x = block.x;
        for character in line.chars() {
            let id = r#type.font.glyph_id(character);
            let glyph = id.with_scale_and_position(scale, ab_glyph::point(x, baseline));
            x += r#type.advance(id) * block.size;
            let Some(outline) = r#type.font.outline_glyph(glyph) else {
                continue;
            };
            let corner = outline.px_bounds().min;
            let (left, top) = (corner.x as i64, corner.y as i64);
            outline.draw(|column, row, coverage| {
                canvas.blend(
                    left + i64::from(column),
                    top + i64::from(row),
                    colour,
                    coverage.min(1.0) * opacity,
                );
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fonts_are_embedded() {
        for weight in [Weight::Regular, Weight::Bold] {
            assert!(measure("Easel", weight, 10.0) > 20.0, "{weight:?}");
        }
    }

    #[test]
    fn text_is_cleaned_before_it_is_drawn() {
        for (text, longest, expected) in [
            ("  a \r\n\t b  ", 9, "a b"),
            ("a\u{0}\u{7}\u{200d}\u{fe0f}b", 9, "ab"),
            ("abcdef", 3, "abc…"),
            ("abc", 3, "abc"),
            ("\u{202e}\n", 9, ""),
        ] {
            assert_eq!(clean(text, longest), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_stay_within_the_width() {
        for text in [
            "a cat and a dog on a very small boat",
            "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
            "猫と犬 — קוֹל 🐈",
        ] {
            let lines = wrap(text, Weight::Bold, 12.0, 60.0);
            assert!(lines.len() > 1, "{text}");
            for line in &lines {
                assert!(measure(line, Weight::Bold, 12.0) <= 60.0, "{line}");
            }
            let letters = |text: &str| text.replace(' ', "");
            assert_eq!(letters(&lines.concat()), letters(text));
        }
    }

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis() {
        let text = "word ".repeat(400);
        let (size, lines) = fit(text.trim(), Weight::Bold, (200.0, 60.0), (20.0, 10.0));
        assert!((size - 10.0).abs() < f32::EPSILON);
        assert_eq!(lines.len(), 4);
        assert!(
            lines[3].ends_with("word…") || lines[3].ends_with("wor…"),
            "{}",
            lines[3]
        );
        assert!(measure(&lines[3], Weight::Bold, size) <= 200.0);
    }
}
