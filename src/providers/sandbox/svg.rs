//! A scene becomes an SVG document, without scripts, links or foreign fonts.

use std::fmt::Write as _;

use super::{
    canvas::Rgb,
    scene::{HORIZON, INK, SHADOW, Scene, Spec},
    text::{TextBlock, Weight},
};

/// Points along a skyline.
const STEPS: u16 = 96;

/// Writes the document.
pub(super) fn write(scene: &Scene, spec: &Spec) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail; the results are passed on only to say so once.
    let _infallible = document(&mut out, scene, spec);
    out
}

fn document(out: &mut String, scene: &Scene, spec: &Spec) -> std::fmt::Result {
    let (width, height) = (spec.size.width, spec.size.height);
    write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">"#
    )?;
    out.push_str("<defs>");
    // The sky brightens with the square of the way down to the horizon: a few stops are as good.
    let stops = [0.0_f32, 0.25, 0.5, 0.75, 1.0].map(|way| {
        let place = way * HORIZON;
        (place, scene.sky_at(place * scene.height))
    });
    gradient(out, "sky", &stops)?;
    for (number, hill) in scene.hills.iter().enumerate() {
        let (top, bottom) = hill.colours;
        gradient(out, &format!("hill{number}"), &[(0.0, top), (1.0, bottom)])?;
    }
    if let Some((inset, corner)) = scene.cut {
        write!(
            out,
            r#"<clipPath id="cut"><rect x="{inset}" y="{inset}" width="{:.1}" height="{:.1}" rx="{corner:.1}"/></clipPath>"#,
            f32::from(inset).mul_add(-2.0, scene.width),
            f32::from(inset).mul_add(-2.0, scene.height),
        )?;
    }
    out.push_str("</defs>");
    out.push_str(if scene.cut.is_some() {
        r#"<g clip-path="url(#cut)">"#
    } else {
        "<g>"
    });
    write!(
        out,
        r#"<rect width="{width}" height="{height}" fill="url(#sky)"/>"#
    )?;
    for star in &scene.stars {
        disc(out, (star.x, star.y), star.radius.max(0.4), INK, star.light)?;
    }
    let sun = &scene.sun;
    for (wider, glow) in [(1.75, 0.10), (1.35, 0.16), (1.0, 1.0)] {
        disc(out, (sun.x, sun.y), sun.radius * wider, sun.colour, glow)?;
    }
    for (number, hill) in scene.hills.iter().enumerate() {
        write!(out, r#"<path fill="url(#hill{number})" d="M0 {height}"#)?;
        for step in 0..=STEPS {
            let x = scene.width * f32::from(step) / f32::from(STEPS);
            write!(out, "L{x:.1} {:.1}", hill.top_at(x))?;
        }
        write!(out, r#"L{width} {height}Z"/>"#)?;
    }
    words(out, &scene.title)?;
    for block in &scene.footer {
        words(out, block)?;
    }
    out.push_str("</g></svg>\n");
    Ok(())
}

fn gradient(out: &mut String, id: &str, stops: &[(f32, Rgb)]) -> std::fmt::Result {
    write!(
        out,
        r#"<linearGradient id="{id}" x1="0" y1="0" x2="0" y2="1">"#
    )?;
    for (offset, colour) in stops {
        write!(
            out,
            r#"<stop offset="{offset:.2}" stop-color="{}"/>"#,
            hex(*colour)
        )?;
    }
    out.push_str("</linearGradient>");
    Ok(())
}

fn disc(
    out: &mut String,
    (x, y): (f32, f32),
    radius: f32,
    colour: Rgb,
    opacity: f32,
) -> std::fmt::Result {
    write!(
        out,
        r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.2}" fill="{}" fill-opacity="{opacity:.2}"/>"#,
        hex(colour)
    )
}

fn words(out: &mut String, block: &TextBlock) -> std::fmt::Result {
    let weight = match block.weight {
        Weight::Regular => 400,
        Weight::Bold => 700,
    };
    write!(
        out,
        r#"<text font-family="DejaVu Sans,Verdana,sans-serif" font-size="{:.1}" font-weight="{weight}" fill="{}" stroke="{}" stroke-opacity=".35" stroke-width="{:.1}" paint-order="stroke">"#,
        block.size,
        hex(INK),
        hex(SHADOW),
        block.size * 0.08,
    )?;
    let mut baseline = block.baseline;
    for line in &block.lines {
        write!(out, r#"<tspan x="{:.1}" y="{baseline:.1}">"#, block.x)?;
        escape(out, line);
        out.push_str("</tspan>");
        baseline += block.leading;
    }
    out.push_str("</text>");
    Ok(())
}

/// The lines hold no control characters any more (`text::clean`), which XML could not carry at all.
fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
    }
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}
