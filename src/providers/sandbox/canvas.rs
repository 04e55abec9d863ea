//! Pixels: a canvas that is filled by rows and touched pixel by pixel only along edges.
//!
//! Knows nothing of pictures' contents or file formats. A span is filled by doubling `memcpy`s, so
//! that large areas cost the same in an unoptimised build as in an optimised one.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "pixel coordinates stay below MAX_SIDE and colours below 256; floats are clamped before they become either"
)]

use std::ops::Range;

use crate::catalog::ImageSize;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// `from` at 0, `to` at 1, and what lies between.
pub(super) fn mix(from: Rgb, to: Rgb, share: f32) -> Rgb {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|channel| {
        let (from, to) = (f32::from(from[channel]), f32::from(to[channel]));
        ((to - from).mul_add(share, from) + 0.5) as u8
    })
}

/// Pixels in rows from top to bottom, three bytes each, or four with an alpha channel.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    /// A black canvas; opaque also with `alpha` once every pixel has been filled.
    pub(super) fn new(size: ImageSize, alpha: bool) -> Self {
        let (width, height) = (size.width.get() as usize, size.height.get() as usize);
        let channels = if alpha { 4 } else { 3 };
        Self {
            width,
            height,
            channels,
            pixels: vec![0; width * height * channels],
        }
    }

    pub(super) const fn width(&self) -> usize {
        self.width
    }

    pub(super) const fn height(&self) -> usize {
        self.height
    }

    /// Whether there is an alpha channel.
    pub(super) const fn has_alpha(&self) -> bool {
        self.channels == 4
    }

    /// Every pixel's bytes.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes of the rectangle `columns` × `rows`, which must lie on the canvas.
    pub(super) fn crop(&self, columns: Range<usize>, rows: Range<usize>) -> Vec<u8> {
        rows.flat_map(|row| {
            let start = row * self.width;
            &self.pixels
                [(start + columns.start) * self.channels..(start + columns.end) * self.channels]
        })
        .copied()
        .collect()
    }

    /// Fills part of a row, opaque. What lies outside the canvas is left out.
    pub(super) fn fill(&mut self, row: usize, columns: Range<usize>, colour: Rgb) {
        let columns = columns.start..columns.end.min(self.width);
        if row >= self.height || columns.is_empty() {
            return;
        }
        let start = row * self.width;
        let span = &mut self.pixels
            [(start + columns.start) * self.channels..(start + columns.end) * self.channels];
        let pixel = [colour[0], colour[1], colour[2], 255];
        span[..self.channels].copy_from_slice(&pixel[..self.channels]);
        let mut done = self.channels;
        while done < span.len() {
            let (filled, rest) = span.split_at_mut(done);
            let step = filled.len().min(rest.len());
            rest[..step].copy_from_slice(&filled[..step]);
            done += step;
        }
    }

    /// Lays `colour` over a pixel, `coverage` (0 to 1) thick. Outside the canvas nothing happens.
    pub(super) fn blend(&mut self, column: i64, row: i64, colour: Rgb, coverage: f32) {
        let inside = (0..self.width as i64).contains(&column)
            && (0..self.height as i64).contains(&row)
            && coverage > 0.0;
        if !inside {
            return;
        }
        let start = (row as usize * self.width + column as usize) * self.channels;
        let pixel = &mut self.pixels[start..start + 3];
        let mixed = mix([pixel[0], pixel[1], pixel[2]], colour, coverage);
        pixel.copy_from_slice(&mixed);
    }

    /// A disc with a soft rim, in the colour that `colour_of` gives for each row.
    pub(super) fn disc(
        &mut self,
        (x, y): (f32, f32),
        radius: f32,
        colour_of: impl Fn(usize) -> Rgb,
    ) {
        let half_width = |radius: f32, distance: f32| {
            let square = radius.mul_add(radius, -(distance * distance));
            (square > 0.0).then(|| square.sqrt())
        };
        let top = (y - radius - 1.0).floor().max(0.0) as usize;
        let bottom = ((y + radius + 1.0).ceil().max(0.0) as usize).min(self.height);
        for row in top..bottom {
            let distance = row as f32 + 0.5 - y;
            let Some(outer) = half_width(radius + 0.5, distance) else {
                continue;
            };
            let colour = colour_of(row);
            let left = (x - outer).floor().max(0.0) as usize;
            let right = ((x + outer).ceil().max(0.0) as usize).min(self.width);
            let inner = half_width(radius - 0.5, distance).map_or(left..left, |inner| {
                let start = ((x - inner).ceil().max(0.0) as usize).clamp(left, right.max(left));
                let end = (x + inner).floor().max(0.0) as usize;
                start..end.clamp(start, right.max(start))
            });
            for column in (left..inner.start).chain(inner.end..right) {
                let rim = (column as f32 + 0.5 - x).hypot(distance);
                self.blend(
                    column as i64,
                    row as i64,
                    colour,
                    (radius + 0.5 - rim).clamp(0.0, 1.0),
                );
            }
            self.fill(row, inner, colour);
        }
    }

    /// Everything below a skyline, whose height (a row, fractions soften the edge) is given for each
    /// column, in the colour that `colour_of` gives for each row.
    pub(super) fn land(&mut self, skyline: &[f32], colour_of: impl Fn(usize) -> Rgb) {
        let highest = skyline.iter().copied().fold(f32::INFINITY, f32::min);
        let lowest = skyline.iter().copied().fold(0.0, f32::max);
        let band =
            highest.floor().max(0.0) as usize..(lowest.ceil().max(0.0) as usize).min(self.height);
        for row in band.clone() {
            let colour = colour_of(row);
            let (mut start, mut column) = (0, 0);
            for &top in skyline {
                let covered = row as f32 + 1.0 - top;
                if covered < 1.0 {
                    self.fill(row, start..column, colour);
                    self.blend(column as i64, row as i64, colour, covered);
                    start = column + 1;
                }
                column += 1;
            }
            self.fill(row, start..column, colour);
        }
        for row in band.end..self.height {
            self.fill(row, 0..self.width, colour_of(row));
        }
    }

    /// Makes every square of `block` pixels one colour: what is seen before the details come.
    pub(super) fn coarsen(&mut self, block: usize) {
        let block = block.max(1);
        let (width, height, channels) = (self.width, self.height, self.channels);
        let mut row = Vec::with_capacity(width * channels);
        for top in (0..height).step_by(block) {
            let middle = (top + block / 2).min(height - 1);
            row.clear();
            for left in (0..width).step_by(block) {
                let start = (middle * width + (left + block / 2).min(width - 1)) * channels;
                let pixel = &self.pixels[start..start + channels];
                row.extend_from_slice(&pixel.repeat(block.min(width - left)));
            }
            for line in self.pixels[top * width * channels..]
                .chunks_exact_mut(width * channels)
                .take(block)
            {
                line.copy_from_slice(&row);
            }
        }
    }

    /// Cuts a rounded rectangle out, `inset` pixels from every side: everything outside it becomes
    /// transparent black, the rims of its corners half transparent.
    pub(super) fn cut_out(&mut self, inset: usize, corner: f32) {
        if !self.has_alpha() {
            return;
        }
        let (width, height) = (self.width, self.height);
        // The distance of a row or column from the zone between the corners.
        let depth = |place: usize, side: usize| {
            let (place, inner) = (place as f32 + 0.5, inset as f32 + corner);
            (inner - place).max(place - (side as f32 - inner)).max(0.0)
        };
        let stride = width * 4;
        for (row, pixels) in self.pixels.chunks_exact_mut(stride).enumerate() {
            if row < inset || row + inset >= height || inset * 2 >= width {
                pixels.fill(0);
                continue;
            }
            pixels[..inset * 4].fill(0);
            pixels[(width - inset) * 4..].fill(0);
            let down = depth(row, height);
            for column in inset..width.div_ceil(2) {
                let coverage = corner + 0.5 - depth(column, width).hypot(down);
                if coverage >= 1.0 {
                    break;
                }
                let alpha = (coverage.max(0.0) * 255.0) as u8;
                for column in [column, width - 1 - column] {
                    let pixel = &mut pixels[column * 4..column * 4 + 4];
                    if alpha == 0 {
                        pixel.fill(0);
                    }
                    pixel[3] = alpha;
                }
            }
        }
    }
}
