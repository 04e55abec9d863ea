//! What the real endpoint refuses, and in which words (`contracts/openai-images.md`, sections 1 and 6).
//!
//! Written from the contract alone, never from Easel's catalog: the two check each other.

use serde_json::{Map, Value, json};

/// A refusal as the provider words it.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error: Value,
}

/// Where a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Generations,
    Edits,
    Variations,
}

/// The generations of models, which share their rules (contract, section 0.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    D2,
    D3,
    G1,
    G2,
    G25,
    G26,
}

impl Family {
    /// The family of an upstream model name.
    pub(super) fn of(model: &str) -> Option<Self> {
        Some(match model {
            "dall-e-2" => Self::D2,
            "dall-e-3" => Self::D3,
            "gpt-image-1"
            | "gpt-image-1-mini"
            | "gpt-image-1.5"
            | "gpt-image-1.5-2025-12-16"
            | "chatgpt-image-latest" => Self::G1,
            "gpt-image-2" | "gpt-image-2-2026-04-21" => Self::G2,
            "gpt-image-2.5-sunburst"
            | "gpt-image-2.5-flare"
            | "gpt-image-2.5-sunburst-2026-09-08"
            | "gpt-image-2.5-flare-2026-09-08" => Self::G25,
            "gpt-image-2.6-sunburst" | "gpt-image-2.6-flare" => Self::G26,
            _ => return None,
        })
    }

    pub(super) fn is_dalle(self) -> bool {
        matches!(self, Self::D2 | Self::D3)
    }

    fn takes(self, endpoint: Endpoint, parameter: &str) -> bool {
        let known = match endpoint {
            Endpoint::Generations => parameter != "input_fidelity",
            // Section 4.1: the form has neither.
            Endpoint::Edits => !matches!(parameter, "moderation" | "style"),
            Endpoint::Variations => {
                matches!(
                    parameter,
                    "model" | "n" | "response_format" | "size" | "user"
                )
            }
        };
        known && self.knows(parameter)
    }

    fn knows(self, parameter: &str) -> bool {
        match parameter {
            "model" | "prompt" | "n" | "size" | "quality" | "user" | "safety_identifier" => true,
            "response_format" => self.is_dalle(),
            "style" => self == Self::D3,
            // Whether this very model has input_fidelity is said in words of its own.
            "background" | "output_format" | "output_compression" | "moderation" | "stream"
            | "partial_images" | "input_fidelity" => !self.is_dalle(),
            "complexity" | "frame_count" | "frame_duration_ms" | "svg" => self == Self::G26,
            _ => false,
        }
    }

    fn qualities(self) -> &'static [&'static str] {
        match self {
            Self::D2 => &["standard"],
            Self::D3 => &["standard", "hd"],
            Self::G1 | Self::G2 => &["low", "medium", "high", "auto"],
            Self::G25 | Self::G26 => &["low", "medium", "high", "xhigh", "max", "auto"],
        }
    }

    fn longest_prompt(self) -> usize {
        match self {
            Self::D2 => 1000,
            Self::D3 => 4000,
            _ => 32_000,
        }
    }
}

/// A request that the real endpoint would have taken.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) endpoint: Endpoint,
    pub(super) family: Family,
    pub(super) prompt: String,
    pub(super) n: usize,
    pub(super) size: String,
    pub(super) quality: String,
    pub(super) format: &'static str,
    pub(super) transparent: bool,
    /// As it was asked for.
    pub(super) background: String,
    pub(super) stream: bool,
    /// How many drafts of each picture.
    pub(super) drafts: usize,
    /// What the pictures of an edit count as.
    pub(super) image_tokens: u64,
    pub(super) as_url: bool,
    pub(super) safety_identifier: Option<String>,
}

/// Checks a body as strictly as the real endpoint does, null included: it is not taken as absent
/// (contract, section 11, trap 13).
pub(super) fn check(endpoint: Endpoint, body: &Map<String, Value>) -> Result<Accepted, Refusal> {
    let model = text(body, "model")?.ok_or_else(|| missing("model"))?;
    let family = Family::of(model).ok_or_else(|| unknown_model(model))?;
    let edits = family != Family::D3;
    let varies = family == Family::D2;
    if (endpoint == Endpoint::Edits && !edits) || (endpoint == Endpoint::Variations && !varies) {
        return Err(invalid(
            "model",
            "invalid_value",
            &format!("The model '{model}' is not supported by this endpoint."),
        ));
    }
    if let Some(parameter) = body.keys().find(|name| !family.takes(endpoint, name)) {
        return Err(unknown_parameter(parameter));
    }
    if let Some((name, _)) = body.iter().find(|(_, value)| value.is_null()) {
        return Err(invalid(
            name,
            "invalid_type",
            &format!("Invalid type for '{name}': got null instead."),
        ));
    }
    let prompt = match text(body, "prompt")? {
        Some(prompt) => {
            check_prompt(family, prompt)?;
            prompt
        }
        None if endpoint == Endpoint::Variations => "",
        None => return Err(missing("prompt")),
    };

    let n = integer(body, "n", 1, if family == Family::D3 { 1 } else { 10 })?.unwrap_or(1);
    let quality = word(body, "quality", family.qualities())?.unwrap_or(if family.is_dalle() {
        "standard"
    } else {
        "auto"
    });
    let response_format = word(body, "response_format", &["url", "b64_json"])?;
    word(body, "style", &["vivid", "natural"])?;
    word(body, "moderation", &["auto", "low"])?;
    word(body, "complexity", &["low", "medium", "high"])?;
    let background =
        word(body, "background", &["transparent", "opaque", "auto"])?.unwrap_or("auto");
    let format = word(body, "output_format", &["png", "jpeg", "webp"])?.unwrap_or("png");
    let compression = integer(body, "output_compression", 0, 100)?;
    text(body, "user")?;
    let safety_identifier = text(body, "safety_identifier")?;

    if background == "transparent" && format == "jpeg" {
        return Err(backend(
            "background",
            "invalid_value",
            "Transparent background is not supported for JPEG output format.",
        ));
    }
    if compression.is_some_and(|percent| percent != 100) && format == "png" {
        return Err(backend(
            "output_compression",
            "invalid_png_output_compression",
            "Compression less than 100 is not supported for PNG output format.",
        ));
    }
    for animated in ["frame_count", "frame_duration_ms", "svg"] {
        if body.contains_key(animated) {
            return Err(invalid(
                animated,
                "unsupported_value",
                "This fake does not animate.",
            ));
        }
    }
    let stream = match body.get("stream") {
        None => false,
        Some(Value::Bool(stream)) => *stream,
        Some(_) => {
            return Err(invalid(
                "stream",
                "invalid_type",
                "Invalid type for 'stream': expected a boolean.",
            ));
        }
    };
    let drafts = integer(body, "partial_images", 0, 3)?.unwrap_or(0);
    Ok(Accepted {
        endpoint,
        background: background.to_owned(),
        stream,
        drafts: if stream {
            usize::try_from(drafts).unwrap()
        } else {
            0
        },
        image_tokens: 0,
        family,
        prompt: prompt.to_owned(),
        n: usize::try_from(n).unwrap_or(1),
        size: check_size(family, text(body, "size")?)?,
        quality: quality.to_owned(),
        format: match format {
            "jpeg" => "jpeg",
            "webp" => "webp",
            _ => "png",
        },
        transparent: background == "transparent",
        as_url: family.is_dalle() && response_format != Some("b64_json"),
        safety_identifier: safety_identifier.map(str::to_owned),
    })
}

fn check_prompt(family: Family, prompt: &str) -> Result<(), Refusal> {
    let (length, longest) = (prompt.chars().count(), family.longest_prompt());
    if length == 0 {
        return Err(invalid(
            "prompt",
            "empty_string",
            "Invalid 'prompt': empty string.",
        ));
    }
    if length <= longest {
        return Ok(());
    }
    if family.is_dalle() {
        return Err(Refusal {
            status: 400,
            error: json!({"code": null, "message": format!("Prompt must be length {longest} or less. Your prompt length is {length}. Please reduce your prompt length."), "param": null, "type": "invalid_request_error"}),
        });
    }
    Err(invalid(
        "prompt",
        "string_above_max_length",
        &format!(
            "Invalid 'prompt': string too long. Expected a string with maximum length {longest}, but got a string with length {length} instead."
        ),
    ))
}

/// The size that will be painted; `auto` becomes the one this fake prefers.
fn check_size(family: Family, size: Option<&str>) -> Result<String, Refusal> {
    let listed: &[&str] = match family {
        Family::D2 => &["256x256", "512x512", "1024x1024"],
        Family::D3 => &["1024x1024", "1792x1024", "1024x1792"],
        _ => &["1024x1024", "1536x1024", "1024x1536", "auto"],
    };
    let Some(size) = size else {
        return Ok(if family.is_dalle() {
            "1024x1024"
        } else {
            "1536x1024"
        }
        .to_owned());
    };
    if size == "auto" && !family.is_dalle() {
        return Ok("1536x1024".to_owned());
    }
    if listed.contains(&size) {
        return Ok(size.to_owned());
    }
    match family {
        Family::D3 => Err(Refusal {
            status: 400,
            error: json!({"code": "invalid_size", "message": "The size is not supported by this model.", "param": null, "type": "invalid_request_error"}),
        }),
        Family::D2 | Family::G1 => Err(bad_word("size", size, listed)),
        Family::G2 | Family::G25 | Family::G26 => check_free_size(size).map(|()| size.to_owned()),
    }
}

/// Contract, section 1.2, "Free-size rules".
fn check_free_size(size: &str) -> Result<(), Refusal> {
    let refuse = |why: &str| {
        Err(invalid(
            "size",
            "invalid_value",
            &format!("Invalid size '{size}'. {why}"),
        ))
    };
    let Some((Ok(width), Ok(height))) = size
        .split_once('x')
        .map(|(w, h)| (w.parse::<u32>(), h.parse::<u32>()))
    else {
        return refuse("Expected WIDTHxHEIGHT.");
    };
    let (long, short) = (width.max(height), width.min(height));
    if width % 16 != 0 || height % 16 != 0 {
        return refuse("Width and height must both be divisible by 16.");
    }
    if short == 0 || long > short * 3 {
        return refuse("The aspect ratio must be between 1:3 and 3:1.");
    }
    if long > 3840 {
        return refuse("The longest edge must not exceed 3840.");
    }
    if !(655_360..=8_294_400).contains(&(width * height)) {
        return refuse("The number of pixels must be between 655360 and 8294400.");
    }
    Ok(())
}

fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match body.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(
            name,
            "invalid_type",
            &format!("Invalid type for '{name}': expected a string."),
        )),
    }
}

fn word<'a>(
    body: &'a Map<String, Value>,
    name: &str,
    allowed: &[&str],
) -> Result<Option<&'a str>, Refusal> {
    match text(body, name)? {
        Some(word) if !allowed.contains(&word) => Err(bad_word(name, word, allowed)),
        word => Ok(word),
    }
}

fn integer(
    body: &Map<String, Value>,
    name: &str,
    least: i64,
    most: i64,
) -> Result<Option<i64>, Refusal> {
    let Some(value) = body.get(name) else {
        return Ok(None);
    };
    let Some(number) = value.as_i64() else {
        return Err(invalid(
            name,
            "invalid_type",
            &format!("Invalid type for '{name}': expected an integer."),
        ));
    };
    if number > most {
        return Err(invalid(
            name,
            "integer_above_max_value",
            &format!(
                "Invalid '{name}': integer above maximum value. Expected a value <= {most}, but got {number} instead."
            ),
        ));
    }
    if number < least {
        return Err(invalid(
            name,
            "integer_below_min_value",
            &format!(
                "Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {number} instead."
            ),
        ));
    }
    Ok(Some(number))
}

pub(super) fn invalid(param: &str, code: &str, message: &str) -> Refusal {
    Refusal {
        status: 400,
        error: json!({"message": message, "type": "invalid_request_error", "param": param, "code": code}),
    }
}

pub(super) fn backend(param: &str, code: &str, message: &str) -> Refusal {
    Refusal {
        status: 400,
        error: json!({"code": code, "message": message, "param": param, "type": "image_generation_user_error"}),
    }
}

pub(super) fn bad_word(name: &str, word: &str, allowed: &[&str]) -> Refusal {
    let quoted: Vec<String> = allowed.iter().map(|word| format!("'{word}'")).collect();
    let list = match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{}, and {last}", rest.join(", ")),
        None => String::new(),
    };
    invalid(
        name,
        "invalid_value",
        &format!("Invalid value: '{word}'. Supported values are: {list}."),
    )
}

pub(super) fn missing(name: &str) -> Refusal {
    invalid(
        name,
        "missing_required_parameter",
        &format!("Missing required parameter: '{name}'."),
    )
}

pub(super) fn unknown_parameter(name: &str) -> Refusal {
    invalid(
        name,
        "unknown_parameter",
        &format!("Unknown parameter: '{name}'."),
    )
}

fn unknown_model(model: &str) -> Refusal {
    backend(
        "model",
        "invalid_value",
        &format!("The model '{model}' does not exist."),
    )
}
