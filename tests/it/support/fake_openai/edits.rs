//! What the real endpoint refuses of forms, and in which words (`contracts/openai-images.md`, sections 4 and 6).
//!
//! Written from the contract alone, as its neighbour [`super::rules`] is.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    form::Part,
    rules::{self, Accepted, Endpoint, Family, Refusal, backend, invalid, missing},
};
use crate::support::pictures::{self, Measured};

const MAX_IMAGES: usize = 16;
const MAX_IMAGE_BYTES: usize = 50 * 1024 * 1024;
/// Of dall-e-2's pictures, and of every mask.
const MAX_SMALL_BYTES: usize = 4 * 1024 * 1024;

/// Checks a form as strictly as the real endpoint does; the fields come back as JSON.
pub(super) fn check(
    endpoint: Endpoint,
    parts: &[Part],
) -> Result<(Map<String, Value>, Accepted), Refusal> {
    let mut fields = Map::new();
    let mut images = Vec::new();
    let mut mask = None;
    for part in parts {
        match (part.name.as_str(), &part.file_name) {
            ("image" | "image[]" | "mask", None) => {
                return Err(string_for_a_file(&part.name));
            }
            ("image", Some(_)) if !images.is_empty() => return Err(duplicate("image")),
            ("image[]", Some(_)) => images.push((format!("image[{}]", images.len()), part)),
            ("image", Some(_)) => images.push(("image".to_owned(), part)),
            ("mask", Some(_)) if mask.is_some() => return Err(duplicate("mask")),
            ("mask", Some(_)) if endpoint == Endpoint::Edits => mask = Some(part),
            (name, Some(_)) => return Err(rules::unknown_parameter(name)),
            (name, None) => {
                let text = std::str::from_utf8(&part.content).map_err(|_| not_text(name))?;
                if fields.insert(name.to_owned(), typed(name, text)).is_some() {
                    return Err(duplicate(name));
                }
            }
        }
    }
    let mut accepted = rules::check(endpoint, &fields)?;
    check_fidelity(&accepted, &fields)?;
    if images.is_empty() {
        return Err(missing("image"));
    }
    if images.len() > MAX_IMAGES {
        return Err(invalid(
            "image",
            "array_above_max_length",
            "Invalid 'image': array too long. Expected an array with maximum length 16.",
        ));
    }
    let mut first = None;
    for (name, part) in &images {
        let measured = check_image(&accepted, name, part)?;
        accepted.image_tokens += tokens(&accepted, &measured);
        first.get_or_insert(measured);
    }
    if accepted.family == Family::D2 && images.len() > 1 {
        return Err(invalid(
            "image",
            "invalid_value",
            "Only one image is allowed.",
        ));
    }
    if let (Some(mask), Some(first)) = (mask, first) {
        check_mask(&mask.content, &first)?;
    }
    Ok((fields, accepted))
}

/// Form fields are text; numbers and flags are told by the field.
fn typed(name: &str, text: &str) -> Value {
    match name {
        "n" | "output_compression" | "partial_images" | "frame_count" | "frame_duration_ms" => text
            .parse::<i64>()
            .map_or_else(|_| json!(text), |number| json!(number)),
        "stream" => match text {
            "true" => json!(true),
            "false" => json!(false),
            other => json!(other),
        },
        _ => json!(text),
    }
}

fn check_fidelity(accepted: &Accepted, fields: &Map<String, Value>) -> Result<(), Refusal> {
    let Some(given) = fields.get("input_fidelity").and_then(Value::as_str) else {
        return Ok(());
    };
    let model = fields["model"].as_str().unwrap_or_default();
    if accepted.family != Family::G1 {
        return Err(backend(
            "input_fidelity",
            "invalid_input_fidelity_model",
            &format!("The model '{model}' does not support the 'input_fidelity' parameter."),
        ));
    }
    let allowed: &[&str] = match model {
        "gpt-image-1-mini" => &["low"],
        _ => &["high", "low"],
    };
    if allowed.contains(&given) {
        return Ok(());
    }
    Err(rules::bad_word("input_fidelity", given, allowed))
}

fn check_image(accepted: &Accepted, name: &str, part: &Part) -> Result<Measured, Refusal> {
    let content_type = part
        .content_type
        .as_deref()
        .unwrap_or("application/octet-stream");
    let format = match content_type {
        "image/png" => "png",
        "image/jpeg" => "jpeg",
        "image/webp" => "webp",
        other => return Err(unsupported_file(name, other)),
    };
    if imagesize::image_type(&part.content).is_err() {
        return Err(broken_file(name));
    }
    let measured = pictures::measure(&part.content);
    if measured.format != format {
        return Err(broken_file(name));
    }
    let is_small = part.content.len() < MAX_SMALL_BYTES;
    let is_square = measured.width == measured.height;
    if accepted.family == Family::D2 && !(format == "png" && is_small && is_square) {
        return Err(invalid(
            name,
            "invalid_image",
            "Uploaded image must be a square PNG and less than 4 MB.",
        ));
    }
    if part.content.len() >= MAX_IMAGE_BYTES {
        return Err(invalid(name, "image_too_large", "The image is too large."));
    }
    Ok(measured)
}

fn check_mask(mask: &Bytes, first: &Measured) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(invalid("mask", "invalid_mask_image_format", message));
    if mask.len() >= MAX_SMALL_BYTES || !mask.starts_with(b"\x89PNG") {
        return refuse("Invalid mask: it must be a PNG of less than 4 MB.");
    }
    let measured = pictures::measure(mask);
    if (measured.width, measured.height) != (first.width, first.height) {
        return refuse("Invalid mask: it must have the dimensions of the image.");
    }
    if !pictures::is_transparent(mask) {
        return refuse("Invalid mask: it must have an alpha channel.");
    }
    Ok(())
}

/// What an input picture counts as (section 10).
fn tokens(accepted: &Accepted, picture: &Measured) -> u64 {
    let (long, short) = (
        picture.width.max(picture.height),
        picture.width.min(picture.height),
    );
    let tokens = match accepted.family {
        Family::D2 | Family::D3 => 0,
        // Tiles of 512 pixels along the longer side, once the shorter one is that long.
        Family::G1 => 65 + 129 * (long * 512 / short).div_ceil(512),
        Family::G2 | Family::G25 | Family::G26 => {
            let scaled = |edge: usize| edge * 1024.clamp(long, long * 2) / long;
            (scaled(long).div_ceil(32) * scaled(short).div_ceil(32)).min(1536)
        }
    };
    u64::try_from(tokens).unwrap()
}

fn unsupported_file(name: &str, content_type: &str) -> Refusal {
    invalid(
        name,
        "unsupported_file_mimetype",
        &format!(
            "Invalid file '{name}': unsupported mimetype ('{content_type}'). Supported file formats are 'image/jpeg', 'image/png', and 'image/webp'."
        ),
    )
}

fn broken_file(name: &str) -> Refusal {
    invalid(
        name,
        "invalid_image_file",
        "Invalid image file or mode for image, please check your image file.",
    )
}

fn string_for_a_file(name: &str) -> Refusal {
    invalid(
        name,
        "invalid_type",
        &format!("Invalid type for '{name}': expected a file, but got a string instead."),
    )
}

fn not_text(name: &str) -> Refusal {
    invalid(
        name,
        "invalid_type",
        &format!("Invalid type for '{name}': expected text."),
    )
}

fn duplicate(name: &str) -> Refusal {
    Refusal {
        status: 400,
        error: json!({"message": format!("Duplicate parameter: '{name}'. You provided multiple values for this parameter, whereas only one is allowed. If you are trying to provide a list of values, use the array syntax instead e.g. '{name}[]=<value>'."), "type": "invalid_request_error", "param": null, "code": null}),
    }
}
