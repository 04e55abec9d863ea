//! A scene becomes pixels.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "pixel coordinates stay below MAX_SIDE and are not negative"
)]

use std::ops::Range;

use super::{
    canvas::{Canvas, mix},
    scene::{INK, SHADOW, Scene},
    text::{self, TextBlock},
};
use crate::catalog::ImageSize;

/// Paints the scene; with an alpha channel when asked.
pub(super) fn paint(scene: &Scene, size: ImageSize, alpha: bool) -> Canvas {
    let mut canvas = Canvas::new(size, alpha);
    let (width, height) = (canvas.width(), canvas.height());
    for row in 0..height {
        canvas.fill(row, 0..width, scene.sky_at(row as f32));
    }
    for star in &scene.stars {
        let (x, y) = (star.x as usize, star.y);
        let light = mix(scene.sky_at(y), INK, star.light);
        // Smaller than a pixel: a dot. Otherwise a disc.
        if star.radius < 0.8 {
            canvas.fill(y as usize, x..x + 1, light);
        } else {
            canvas.disc((star.x, y), star.radius, |_| light);
        }
    }
    let sun = &scene.sun;
    for (wider, glow) in [(1.75, 0.10), (1.35, 0.24), (1.0, 1.0)] {
        canvas.disc((sun.x, sun.y), sun.radius * wider, |row| {
            mix(scene.sky_at(row as f32), sun.colour, glow)
        });
    }
    for hill in &scene.hills {
        let skyline: Vec<f32> = (0..width)
            .map(|column| hill.top_at(column as f32))
            .collect();
        canvas.land(&skyline, |row| hill.colour_at(row as f32, scene.height));
    }
    write(&mut canvas, &scene.title, 1.0);
    for block in &scene.footer {
        write(&mut canvas, block, 0.92);
    }
    if let Some((inset, corner)) = scene.cut {
        canvas.cut_out(usize::from(inset), corner);
    }
    canvas
}

/// Words over a shadow, so that they stand out from any sky.
fn write(canvas: &mut Canvas, block: &TextBlock, opacity: f32) {
    let offset = (block.size * 0.05).max(1.0);
    let shadow = TextBlock {
        x: block.x + offset,
        baseline: block.baseline + offset,
        ..block.clone()
    };
    text::draw(canvas, &shadow, SHADOW, 0.45);
    text::draw(canvas, block, INK, opacity);
}

/// Draws the bar of an animation as it stands in frame `number` of `count`, and says where.
pub(super) fn draw_bar(
    canvas: &mut Canvas,
    scene: &Scene,
    number: u8,
    count: u8,
) -> (Range<usize>, Range<usize>) {
    let [left, top, full, thickness] = scene.bar;
    let clamp = |value: f32, limit: usize| (value.max(0.0) as usize).min(limit);
    let rows = clamp(top, canvas.height() - 1);
    let rows = rows..clamp(top + thickness, canvas.height()).max(rows + 1);
    let left = clamp(left, canvas.width() - 1);
    let right = clamp(left as f32 + full, canvas.width()).max(left + 1);
    let share = (f32::from(number) + 1.0) / f32::from(count.max(1));
    let reached = (left + (full * share) as usize).clamp(left, right);
    for row in rows.clone() {
        canvas.fill(row, left..reached, INK);
    }
    (left..right, rows)
}
