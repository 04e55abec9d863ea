//! What each model takes, as its published schema says (`contracts/replicate.md`, section 2.5), and what it
//! paints for it. Stricter than the real one where that rounds or ignores silently.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::inputs::{self, Files};

const OPEN_RATIOS: &[&str] = &[
    "1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21",
];
const PRO_RATIOS: &[&str] = &[
    "custom", "1:1", "16:9", "3:2", "2:3", "4:5", "5:4", "9:16", "3:4", "4:3",
];
const ULTRA_RATIOS: &[&str] = &["1:1", "16:9", "3:2", "2:3", "9:16"];
const SECOND_RATIOS: &[&str] = &[
    "match_input_image",
    "custom",
    "1:1",
    "16:9",
    "3:2",
    "2:3",
    "4:5",
    "5:4",
    "9:16",
    "3:4",
    "4:3",
];
const KONTEXT_RATIOS: &[&str] = &["match_input_image", "1:1", "16:9", "3:2", "2:3", "9:16"];
const SEED: Kind = Kind::Whole(0, (1 << 31) - 1, 1);
const ALL_FORMATS: &[&str] = &["webp", "jpg", "png"];

enum Kind {
    Text,
    OneOf(&'static [&'static str]),
    /// From, to, and what it must be divisible by.
    Whole(u64, u64, u64),
    /// A picture: a link to a file that is there, or a data URL.
    Picture,
    /// Up to so many pictures, in a list.
    Pictures(usize),
}

struct Schema {
    fields: &'static [(&'static str, Kind)],
    /// A list of links, not a single one.
    is_list: bool,
    default_format: &'static str,
    /// What a ratio's edges of one megapixel are multiplied by.
    scale: u32,
    needs_image: bool,
}

const OPEN: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("aspect_ratio", Kind::OneOf(OPEN_RATIOS)),
        ("num_outputs", Kind::Whole(1, 4, 1)),
        ("megapixels", Kind::OneOf(&["1", "0.25"])),
        ("output_format", Kind::OneOf(ALL_FORMATS)),
        ("output_quality", Kind::Whole(0, 100, 1)),
    ],
    is_list: true,
    default_format: "webp",
    scale: 1,
    needs_image: false,
};

const DEV: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("aspect_ratio", Kind::OneOf(OPEN_RATIOS)),
        ("num_outputs", Kind::Whole(1, 4, 1)),
        ("megapixels", Kind::OneOf(&["1", "0.25"])),
        ("output_format", Kind::OneOf(ALL_FORMATS)),
        ("output_quality", Kind::Whole(0, 100, 1)),
        ("image", Kind::Picture),
    ],
    is_list: true,
    default_format: "webp",
    scale: 1,
    needs_image: false,
};

const PRO: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("aspect_ratio", Kind::OneOf(PRO_RATIOS)),
        ("width", Kind::Whole(256, 1440, 32)),
        ("height", Kind::Whole(256, 1440, 32)),
        ("output_format", Kind::OneOf(ALL_FORMATS)),
        ("output_quality", Kind::Whole(0, 100, 1)),
        ("image_prompt", Kind::Picture),
    ],
    is_list: false,
    default_format: "webp",
    scale: 1,
    needs_image: false,
};

const SECOND_DEV: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("aspect_ratio", Kind::OneOf(SECOND_RATIOS)),
        ("width", Kind::Whole(256, 1440, 32)),
        ("height", Kind::Whole(256, 1440, 32)),
        ("output_format", Kind::OneOf(ALL_FORMATS)),
        ("output_quality", Kind::Whole(0, 100, 1)),
        ("input_images", Kind::Pictures(4)),
    ],
    is_list: false,
    default_format: "webp",
    scale: 1,
    needs_image: false,
};

const KONTEXT: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("input_image", Kind::Picture),
        ("aspect_ratio", Kind::OneOf(KONTEXT_RATIOS)),
        ("output_format", Kind::OneOf(&["jpg", "png"])),
    ],
    is_list: false,
    default_format: "png",
    scale: 1,
    needs_image: false,
};

const FILL: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("image", Kind::Picture),
        ("mask", Kind::Picture),
        ("output_format", Kind::OneOf(&["jpg", "png"])),
    ],
    is_list: false,
    default_format: "jpg",
    scale: 1,
    needs_image: true,
};

const ULTRA: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("aspect_ratio", Kind::OneOf(ULTRA_RATIOS)),
        ("output_format", Kind::OneOf(&["jpg", "png"])),
        ("image_prompt", Kind::Picture),
    ],
    is_list: false,
    default_format: "jpg",
    scale: 2,
    needs_image: false,
};

const SECOND_PRO: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("aspect_ratio", Kind::OneOf(SECOND_RATIOS)),
        ("width", Kind::Whole(256, 2048, 32)),
        ("height", Kind::Whole(256, 2048, 32)),
        ("output_format", Kind::OneOf(ALL_FORMATS)),
        ("output_quality", Kind::Whole(0, 100, 1)),
        ("input_images", Kind::Pictures(8)),
    ],
    is_list: false,
    default_format: "webp",
    scale: 1,
    needs_image: false,
};

const SECOND_FLEX: Schema = Schema {
    fields: &[
        ("prompt", Kind::Text),
        ("seed", SEED),
        ("aspect_ratio", Kind::OneOf(SECOND_RATIOS)),
        ("width", Kind::Whole(256, 2048, 16)),
        ("height", Kind::Whole(256, 2048, 16)),
        ("output_format", Kind::OneOf(ALL_FORMATS)),
        ("output_quality", Kind::Whole(0, 100, 1)),
        ("input_images", Kind::Pictures(10)),
    ],
    is_list: false,
    default_format: "webp",
    scale: 1,
    needs_image: false,
};

/// A model that is not official: billed by the second, and reached by its version.
pub(crate) const COMMUNITY_MODEL: &str = "somebody/flux-otters";

/// The official models; others are not found on their route.
fn schema(model: &str) -> Option<&'static Schema> {
    Some(match model {
        "black-forest-labs/flux-schnell" => &OPEN,
        "black-forest-labs/flux-dev" => &DEV,
        "black-forest-labs/flux-pro" | "black-forest-labs/flux-1.1-pro" => &PRO,
        "black-forest-labs/flux-2-dev" => &SECOND_DEV,
        "black-forest-labs/flux-kontext-pro" | "black-forest-labs/flux-kontext-max" => &KONTEXT,
        "black-forest-labs/flux-fill-pro" => &FILL,
        "black-forest-labs/flux-1.1-pro-ultra" => &ULTRA,
        "black-forest-labs/flux-2-pro" => &SECOND_PRO,
        "black-forest-labs/flux-2-flex" => &SECOND_FLEX,
        _ => return None,
    })
}

/// A creation that passed.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) prompt: String,
    pub(super) n: usize,
    pub(super) width: u32,
    pub(super) height: u32,
    /// As the picture's file name ends.
    pub(super) extension: &'static str,
    pub(super) is_list: bool,
}

/// A status and a body.
pub(super) type Refusal = (u16, Value);

/// Checks a creation on a model's own route, or on the one of versions.
pub(super) fn check(
    model: &str,
    by_version: bool,
    body: &Value,
    files: &Files,
) -> Result<Accepted, Refusal> {
    let schema = match schema(model) {
        Some(schema) if !by_version => schema,
        Some(_) => return Err(invalid_version()),
        None if by_version && model == COMMUNITY_MODEL => &OPEN,
        None if by_version => return Err(invalid_version()),
        None => return Err(not_found()),
    };
    let body = body.as_object().ok_or_else(|| invalid(&[]))?;
    let is_known = |key: &str| key == "input" || (by_version && key == "version");
    let unknown = body.keys().find(|key| !is_known(key));
    if let Some(unknown) = unknown {
        let words = format!("Additional property {unknown} is not allowed");
        return Err(invalid(&[(
            unknown,
            "additional_property_not_allowed",
            &words,
        )]));
    }
    let input = body.get("input").and_then(Value::as_object);
    let input = input.ok_or_else(|| invalid(&[("input", "required", "input is required")]))?;
    let mut first = None;
    for (name, value) in input {
        let field = format!("input.{name}");
        let Some((_, kind)) = schema.fields.iter().find(|(known, _)| known == name) else {
            let words = format!("Additional property {name} is not allowed");
            return Err(invalid(&[(
                &field,
                "additional_property_not_allowed",
                &words,
            )]));
        };
        check_field(&field, name, kind, value)?;
        for said in inputs::pictures_of(kind_holds_pictures(kind), value) {
            let bytes = inputs::open(said, files)
                .map_err(|words| invalid(&[(&field, "picture", &words)]))?;
            first.get_or_insert(bytes);
        }
    }
    accept(schema, input, first.as_ref())
}

fn kind_holds_pictures(kind: &Kind) -> bool {
    matches!(kind, Kind::Picture | Kind::Pictures(_))
}

fn check_field(field: &str, name: &str, kind: &Kind, value: &Value) -> Result<(), Refusal> {
    match kind {
        Kind::Text | Kind::Picture if value.is_string() => Ok(()),
        Kind::OneOf(words) if value.as_str().is_some_and(|word| words.contains(&word)) => Ok(()),
        Kind::Whole(from, to, of)
            if value
                .as_u64()
                .is_some_and(|number| (*from..=*to).contains(&number) && number % of == 0) =>
        {
            Ok(())
        }
        Kind::Pictures(most) if value.as_array().is_some_and(|list| list.len() <= *most) => Ok(()),
        Kind::Pictures(_) => Err(invalid(&[(field, "array", "not such a list")])),
        Kind::Text | Kind::Picture => Err(invalid(&[(
            field,
            "invalid_type",
            "Invalid type. Expected: string",
        )])),
        Kind::OneOf(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            let words = format!("{name} must be one of the following: {}", words.join(", "));
            Err(invalid(&[(field, "enum", &words)]))
        }
        Kind::Whole(_, to, _) => {
            let words = format!("Must be less than or equal to {to}");
            Err(invalid(&[(field, "number_lte", &words)]))
        }
    }
}

fn accept(
    schema: &Schema,
    input: &Map<String, Value>,
    picture: Option<&Bytes>,
) -> Result<Accepted, Refusal> {
    let text = |name: &str| input.get(name).and_then(Value::as_str);
    let number = |name: &str| input.get(name).and_then(Value::as_u64);
    let prompt = text("prompt");
    let prompt = prompt.ok_or_else(|| invalid(&[("input", "required", "prompt is required")]))?;
    let edge = |name: &str| number(name).and_then(|edge| u32::try_from(edge).ok());
    let custom = text("aspect_ratio") == Some("custom");
    // The real one ignores them.
    if !custom && (edge("width").is_some() || edge("height").is_some()) {
        return Err(invalid(&[("input.width", "custom", "width needs custom")]));
    }
    let matches = text("aspect_ratio") == Some("match_input_image");
    if matches && picture.is_none() {
        let words = "there is no image to match";
        return Err(invalid(&[("input.aspect_ratio", "match", words)]));
    }
    // Those with a picture of their own to keep to.
    let keeps = input.contains_key("image");
    if keeps && text("aspect_ratio").is_some() {
        return Err(invalid(&[(
            "input.aspect_ratio",
            "ignored",
            "beside image",
        )]));
    }
    if schema.needs_image && !keeps {
        return Err(invalid(&[("input", "required", "image is required")]));
    }
    let (width, height) = if let (true, Some(picture)) = (matches || keeps, picture) {
        inputs::edges_like(picture)
    } else if custom {
        let needs = || invalid(&[("input", "required", "custom needs width and height")]);
        (
            edge("width").ok_or_else(needs)?,
            edge("height").ok_or_else(needs)?,
        )
    } else {
        let (width, height) = edges(text("aspect_ratio").unwrap_or("1:1"));
        match text("megapixels") {
            Some("0.25") => (width / 2, height / 2),
            _ => (width * schema.scale, height * schema.scale),
        }
    };
    let extension = match text("output_format").unwrap_or(schema.default_format) {
        "png" => "png",
        "jpg" => "jpg",
        _ => "webp",
    };
    if extension == "png" && input.contains_key("output_quality") {
        return Err(invalid(&[("input.output_quality", "png", "not for png")]));
    }
    Ok(Accepted {
        prompt: prompt.to_owned(),
        n: number("num_outputs").map_or(1, |n| usize::try_from(n).unwrap()),
        width,
        height,
        extension,
        is_list: schema.is_list,
    })
}

/// About one megapixel, both divisible by 32.
fn edges(ratio: &str) -> (u32, u32) {
    match ratio {
        "16:9" => (1344, 768),
        "9:16" => (768, 1344),
        "21:9" => (1536, 640),
        "9:21" => (640, 1536),
        "3:2" => (1248, 832),
        "2:3" => (832, 1248),
        "4:3" => (1152, 896),
        "3:4" => (896, 1152),
        "5:4" => (1120, 896),
        "4:5" => (896, 1120),
        _ => (1024, 1024),
    }
}

fn invalid(fields: &[(&str, &str, &str)]) -> Refusal {
    let lines = fields.iter().map(|(field, _, words)| {
        format!(
            "- {field}: {words}
"
        )
    });
    let detail = lines.collect::<Vec<_>>().concat();
    let fields: Vec<Value> = fields
        .iter()
        .map(|(field, kind, words)| json!({"type": kind, "field": field, "description": words}))
        .collect();
    let body = json!({
        "title": "Input validation failed",
        "detail": detail,
        "status": 422,
        "invalid_fields": fields,
    });
    (422, body)
}

fn invalid_version() -> Refusal {
    let detail =
        "The specified version does not exist (or perhaps you don't have permission to use it?)";
    let title = "Invalid version or not permitted";
    (
        422,
        json!({"title": title, "detail": detail, "status": 422}),
    )
}

pub(super) fn not_found() -> Refusal {
    let detail = "The requested resource could not be found.";
    (
        404,
        json!({"title": "Not found", "detail": detail, "status": 404}),
    )
}
