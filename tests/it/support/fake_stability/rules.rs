//! What the real endpoints refuse, and in which words (`contracts/stability.md`, sections 2 and 4).

use axum::http::HeaderMap;

use super::{API_KEY, BROKE_KEY, Reply, form::Part};

const RATIOS: [&str; 9] = [
    "21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21",
];
const FORMATS: [&str; 3] = ["png", "jpeg", "webp"];
const STYLES: [&str; 17] = [
    "enhance",
    "anime",
    "photographic",
    "digital-art",
    "comic-book",
    "fantasy-art",
    "line-art",
    "analog-film",
    "neon-punk",
    "isometric",
    "low-poly",
    "origami",
    "modeling-compound",
    "cinematic",
    "3d-model",
    "pixel-art",
    "tile-texture",
];
const MODELS: [&str; 7] = [
    "sd3.5-large",
    "sd3.5-large-turbo",
    "sd3.5-medium",
    "sd3.5-flash",
    "sd3-large",
    "sd3-large-turbo",
    "sd3-medium",
];
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
const MAX_PROMPT_CHARS: usize = 10_000;
const MAX_CLIENT_HEADER_CHARS: usize = 256;

/// A request that the real endpoint would have taken.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) prompt: String,
    pub(super) format: &'static str,
    pub(super) size: (u32, u32),
    pub(super) as_json: bool,
}

/// 401 and 402.
pub(super) fn authorize(headers: &HeaderMap) -> Result<(), Reply> {
    let given = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(API_KEY) => Ok(()),
        Some(BROKE_KEY) => Err(Reply::payment_required()),
        _ => Err(Reply::unauthorized()),
    }
}

/// Checks a request as strictly as the real endpoint does, and fields that no document names as well.
pub(super) fn check(
    (family, endpoint): (&str, &str),
    headers: &HeaderMap,
    body: &[u8],
    parts: Option<&[Part]>,
) -> Result<Accepted, Reply> {
    authorize(headers)?;
    if ![
        ("generate", "ultra"),
        ("generate", "core"),
        ("generate", "sd3"),
        ("edit", "inpaint"),
    ]
    .contains(&(family, endpoint))
    {
        return Err(Reply::not_found());
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(Reply::payload_too_large());
    }
    let parts = parts
        .ok_or_else(|| Reply::bad_request(&["content-type: must be multipart/form-data".into()]))?;
    let mut problems = Vec::new();
    for (name, value) in headers {
        let is_ours = name.as_str().starts_with("stability-client-");
        if is_ours && value.len() > MAX_CLIENT_HEADER_CHARS {
            problems.push(format!("{name}: is too long"));
        }
    }
    let accept = headers
        .get("accept")
        .map_or("image/*", |value| value.to_str().unwrap_or_default());
    if !["image/*", "application/json"].contains(&accept) {
        problems.push("accept: must be image/* or application/json".to_owned());
    }
    for (index, part) in parts.iter().enumerate() {
        let name = &part.name;
        if parts[..index].iter().any(|earlier| earlier.name == *name) {
            problems.push(format!("{name}: is given twice"));
        }
        let problem = match (part.text(), &part.content_type) {
            (Some(text), _) => problem(endpoint, name, text),
            (None, Some(content_type)) => file_problem(endpoint, name, content_type, &part.content),
            (None, None) => Some("must be a string".to_owned()),
        };
        problems.extend(problem.map(|what| format!("{name}: {what}")));
    }
    let find = |name: &str| {
        let found = parts.iter().find(|part| part.name == name);
        found.and_then(Part::text)
    };
    let image = parts.iter().find(|part| part.name == "image");
    problems.extend(image_problems(endpoint, image.is_some(), &find));
    let Some(prompt) = find("prompt") else {
        problems.push("prompt: is required".to_owned());
        return Err(Reply::bad_request(&problems));
    };
    if !problems.is_empty() {
        return Err(Reply::bad_request(&problems));
    }
    // Crude: only that some letter is not one of English.
    if prompt
        .chars()
        .any(|character| character.is_alphabetic() && !character.is_ascii())
    {
        return Err(Reply::invalid_language());
    }
    let format = find("output_format").unwrap_or("png");
    Ok(Accepted {
        prompt: prompt.to_owned(),
        format: FORMATS
            .into_iter()
            .find(|known| *known == format)
            .expect("checked"),
        size: match image.and_then(|image| sides(&image.content)) {
            Some(size) if endpoint == "inpaint" => size,
            _ => size(endpoint, find("aspect_ratio").unwrap_or("1:1")),
        },
        as_json: accept == "application/json",
    })
}

/// What is wrong with a field (section 2.2).
fn problem(endpoint: &str, name: &str, value: &str) -> Option<String> {
    let one_of = |words: &[&str]| {
        (!words.contains(&value)).then(|| format!("must be one of {}", words.join(", ")))
    };
    let number = |least: f64, most: f64| {
        let fits = value
            .parse::<f64>()
            .is_ok_and(|number| (least..=most).contains(&number));
        (!fits).then(|| format!("must be between {least} and {most}"))
    };
    let text = |least: usize| {
        let length = value.chars().count();
        (!(least..=MAX_PROMPT_CHARS).contains(&length))
            .then(|| format!("must have {least} to {MAX_PROMPT_CHARS} characters"))
    };
    match (name, endpoint) {
        ("prompt", _) => text(1),
        ("negative_prompt", _) => text(0),
        ("aspect_ratio", "ultra" | "core" | "sd3") => one_of(&RATIOS),
        ("seed", _) => number(0.0, 4_294_967_294.0),
        ("output_format", _) => one_of(&FORMATS),
        ("style_preset", _) => one_of(&STYLES),
        ("cfg_scale", "sd3") => number(1.0, 10.0),
        ("model", "sd3") => one_of(&MODELS),
        ("mode", "sd3") => one_of(&["text-to-image", "image-to-image"]),
        ("strength", "sd3" | "ultra") => number(0.0, 1.0),
        ("grow_mask", "inpaint") => number(0.0, 100.0),
        ("image" | "mask", _) => Some("must be a file".to_owned()),
        _ => Some("is not a field of this endpoint".to_owned()),
    }
}

/// What is wrong with a file (sections 2.2 and 2.4).
fn file_problem(endpoint: &str, name: &str, content_type: &str, bytes: &[u8]) -> Option<String> {
    match (name, endpoint) {
        ("image", "sd3" | "ultra" | "inpaint") | ("mask", "inpaint") => {}
        _ => return Some("is not a field of this endpoint".to_owned()),
    }
    let format = match imagesize::image_type(bytes) {
        Ok(imagesize::ImageType::Png) => "image/png",
        Ok(imagesize::ImageType::Jpeg) => "image/jpeg",
        Ok(imagesize::ImageType::Webp) => "image/webp",
        _ => return Some("must be a valid image of type jpeg, png or webp".to_owned()),
    };
    if content_type != format {
        return Some(format!("is {format}, not {content_type}"));
    }
    let Some((width, height)) = sides(bytes) else {
        return Some("has no size".to_owned());
    };
    let pixels = u64::from(width) * u64::from(height);
    if width.min(height) < 64 || endpoint == "ultra" && width.max(height) > 16_384 {
        return Some("every side must be between 64 and 16384 pixels".to_owned());
    }
    (endpoint == "inpaint" && !(4096..=9_437_184).contains(&pixels))
        .then(|| "must have 4096 to 9437184 pixels".to_owned())
}

fn sides(bytes: &[u8]) -> Option<(u32, u32)> {
    let size = imagesize::blob_size(bytes).ok()?;
    Some((size.width.try_into().ok()?, size.height.try_into().ok()?))
}

/// What goes only together with a picture, or not at all (sections 2.2 and 2.4).
fn image_problems<'a>(
    endpoint: &str,
    has_image: bool,
    find: &impl Fn(&str) -> Option<&'a str>,
) -> Vec<String> {
    let from_image = find("mode") == Some("image-to-image");
    let is = |name: &str| find(name).is_some();
    [
        (endpoint == "inpaint" && !has_image, "image: is required"),
        (
            endpoint == "sd3" && from_image && !has_image,
            "image: is required when mode is image-to-image",
        ),
        (
            endpoint == "sd3" && !from_image && has_image,
            "image: is only for image-to-image",
        ),
        (
            has_image && endpoint != "inpaint" && !is("strength"),
            "strength: is required with an image",
        ),
        (
            !has_image && is("strength"),
            "strength: is only for an image",
        ),
        (
            from_image && is("aspect_ratio"),
            "aspect_ratio: is only for text-to-image",
        ),
    ]
    .into_iter()
    .filter(|(wrong, _)| *wrong)
    .map(|(_, what)| what.to_owned())
    .collect()
}

/// Which sizes come is not published; these have the ratio, and 1 MP, or 1.5 MP for core.
fn size(endpoint: &str, ratio: &str) -> (u32, u32) {
    let (width, height) = match ratio {
        "21:9" => (1536, 640),
        "16:9" => (1344, 768),
        "3:2" => (1216, 832),
        "5:4" => (1152, 896),
        "4:5" => (896, 1152),
        "2:3" => (832, 1216),
        "9:16" => (768, 1344),
        "9:21" => (640, 1536),
        _ => (1024, 1024),
    };
    if endpoint == "core" {
        return (width * 5 / 4, height * 5 / 4);
    }
    (width, height)
}
