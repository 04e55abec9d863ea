//! What the real endpoints refuse (contract, sections 2 to 4). Written from the contract alone, never from
//! Easel's catalog: the two check each other.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::answer::input_tokens;

/// Which of the two ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Gemini,
    Vertex,
}

/// A refusal as Google words it.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) body: Value,
}

/// A request that the real endpoint would have taken.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) model: String,
    pub(super) is_imagen: bool,
    pub(super) prompt: String,
    /// How many pictures came with it.
    pub(super) inputs: u64,
    pub(super) n: usize,
    pub(super) width: u32,
    pub(super) height: u32,
    /// What a picture takes, on Gemini.
    pub(super) image_tokens: u64,
    pub(super) format: &'static str,
}

/// 1K of every ratio (2.1); the other resolutions double or halve it.
const GEMINI_1K: &[(&str, u32, u32)] = &[
    ("1:1", 1024, 1024),
    ("2:3", 848, 1264),
    ("3:2", 1264, 848),
    ("3:4", 896, 1200),
    ("4:3", 1200, 896),
    ("4:5", 928, 1152),
    ("5:4", 1152, 928),
    ("9:16", 768, 1376),
    ("16:9", 1376, 768),
    ("21:9", 1584, 672),
    ("1:4", 512, 2048),
    ("4:1", 2048, 512),
    ("1:8", 384, 3072),
    ("8:1", 3072, 384),
];

const IMAGEN_1K: &[(&str, u32, u32)] = &[
    ("1:1", 1024, 1024),
    ("3:4", 896, 1280),
    ("4:3", 1280, 896),
    ("9:16", 768, 1408),
    ("16:9", 1408, 768),
];

/// Resolutions with the tokens of a picture (2.1, 5), and how many ratios.
fn gemini(model: &str) -> Option<(&'static [(&'static str, u64)], usize)> {
    Some(match model {
        "gemini-nano-banana-2.1" => (&[("1K", 1120), ("2K", 1680), ("4K", 3767)], 14),
        "gemini-3.1-flash-image" => (
            &[("1K", 1120), ("512", 747), ("2K", 1680), ("4K", 2520)],
            14,
        ),
        "gemini-3.1-flash-lite-image" => (&[("1K", 1120)], 10),
        "gemini-3-pro-image" => (&[("1K", 1120), ("2K", 1120), ("4K", 2000)], 10),
        "gemini-2.5-flash-image" => (&[("1K", 1290)], 10),
        _ => return None,
    })
}

/// Checks what stands behind `models/`.
pub(super) fn check(
    door: Door,
    call: &str,
    body: &Value,
    legacy: bool,
) -> Result<Accepted, Refusal> {
    let (model, method) = call
        .split_once(':')
        .ok_or_else(|| not_found("Requested entity was not found."))?;
    let body = body
        .as_object()
        .ok_or_else(|| invalid("Invalid JSON payload received."))?;
    match method {
        "generateContent" if gemini(model).is_some() => check_gemini(model, body),
        "predict" if model.starts_with("imagen-") && legacy => check_imagen(door, model, body),
        "predict" if model.starts_with("imagen-") => Err(not_found(&format!(
            "This model models/{model} is no longer available to new users. Please update your code to use a newer model for the latest features and improvements."
        ))),
        _ => Err(not_found(&format!(
            "models/{model} is not found for API version v1beta, or is not supported for {method}. Call ModelService.ListModels to see the list of available models and their supported methods."
        ))),
    }
}

fn check_gemini(model: &str, body: &Map<String, Value>) -> Result<Accepted, Refusal> {
    known(
        body,
        "",
        &["contents", "generationConfig", "safetySettings"],
    )?;
    let contents = body.get("contents").and_then(Value::as_array);
    let [content] = contents.map(Vec::as_slice).unwrap_or_default() else {
        return Err(invalid("contents must hold one turn"));
    };
    let (prompt, inputs) = check_turn(model, content)?;
    check_safety(body.get("safetySettings"))?;
    let empty = Map::new();
    let config = body
        .get("generationConfig")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    known(
        config,
        "generation_config.",
        &[
            "responseModalities",
            "imageConfig",
            "thinkingConfig",
            "seed",
            "candidateCount",
        ],
    )?;
    if config.get("candidateCount").is_some_and(|count| count != 1) {
        return Err(invalid("Multiple candidates is not enabled for this model"));
    }
    let modalities = config.get("responseModalities");
    if modalities != Some(&json!(["IMAGE"])) && modalities != Some(&json!(["TEXT", "IMAGE"])) {
        return Err(invalid("responseModalities must name IMAGE"));
    }
    check_thinking(model, config.get("thinkingConfig"))?;
    let image = config
        .get("imageConfig")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    known(
        image,
        "generation_config.image_config.",
        &["aspectRatio", "imageSize"],
    )?;
    let (tiers, ratios) = gemini(model).unwrap();
    let ratio = word(image, "aspectRatio")?.unwrap_or("1:1");
    let &(_, width, height) = GEMINI_1K
        .iter()
        .take(ratios)
        .find(|(known, _, _)| *known == ratio)
        .ok_or_else(|| invalid(&format!("aspect_ratio {ratio} is not supported")))?;
    let tier = word(image, "imageSize")?;
    if tier.is_some() && tiers.len() == 1 {
        return Err(invalid("image_size is not supported by this model"));
    }
    let tier = tier.unwrap_or("1K");
    let &(_, image_tokens) = tiers
        .iter()
        .find(|(known, _)| *known == tier)
        .ok_or_else(|| invalid(&format!("image_size {tier} is not supported")))?;
    let scaled = |edge: u32| match tier {
        "512" => edge / 2,
        "2K" => edge * 2,
        "4K" => edge * 4,
        _ => edge,
    };
    Ok(Accepted {
        model: model.to_owned(),
        is_imagen: false,
        prompt,
        inputs,
        n: 1,
        width: scaled(width),
        height: scaled(height),
        image_tokens,
        format: "jpeg",
    })
}

/// The prompt of a turn, and how many pictures come with it.
fn check_turn(model: &str, content: &Value) -> Result<(String, u64), Refusal> {
    let content = content
        .as_object()
        .ok_or_else(|| invalid("contents must hold objects"))?;
    known(content, "contents[0].", &["role", "parts"])?;
    if content.get("role") != Some(&json!("user")) {
        return Err(invalid("Please use a valid role: user, model."));
    }
    let parts = content.get("parts").and_then(Value::as_array);
    let parts = parts.ok_or_else(|| invalid("contents.parts must not be empty."))?;
    let mut prompt = None;
    let mut inputs = 0;
    for part in parts {
        let part = part
            .as_object()
            .ok_or_else(|| invalid("parts must hold objects"))?;
        known(part, "contents[0].parts[0].", &["text", "inlineData"])?;
        match (word(part, "text")?, part.get("inlineData")) {
            (Some(text), None) if !text.is_empty() && prompt.is_none() => {
                prompt = Some(text.to_owned());
            }
            (None, Some(blob)) => {
                check_blob(blob)?;
                inputs += 1;
            }
            _ => {
                return Err(invalid(
                    "Unable to submit request because it must have a text parameter.",
                ));
            }
        }
    }
    // Three are advised for this model, and no more were seen.
    let most = if model == "gemini-2.5-flash-image" {
        3
    } else {
        14
    };
    if inputs > most {
        return Err(invalid(&format!("at most {most} images are supported")));
    }
    let prompt = prompt.ok_or_else(|| invalid("contents is not specified"))?;
    Ok((prompt, inputs))
}

/// A whole picture, of the type that it is said to be.
fn check_blob(blob: &Value) -> Result<(), Refusal> {
    let blob = blob
        .as_object()
        .ok_or_else(|| invalid("inlineData must be an object"))?;
    known(
        blob,
        "contents[0].parts[0].inline_data.",
        &["mimeType", "data"],
    )?;
    let kind = word(blob, "mimeType")?.ok_or_else(|| invalid("mimeType is required"))?;
    let bytes = word(blob, "data")?
        .and_then(|data| STANDARD.decode(data).ok())
        .ok_or_else(|| invalid("Invalid value at 'data' (TYPE_BYTES), Base64 decoding failed"))?;
    let found = match imagesize::image_type(&bytes) {
        Ok(imagesize::ImageType::Png) => "image/png",
        Ok(imagesize::ImageType::Jpeg) => "image/jpeg",
        Ok(imagesize::ImageType::Webp) => "image/webp",
        _ => return Err(invalid("Unable to process input image.")),
    };
    if kind != found {
        return Err(invalid(&format!("Unsupported MIME type: {kind}")));
    }
    let is_whole = match found {
        "image/webp" => webp::Decoder::new(&bytes).decode().is_some(),
        _ => image::load_from_memory(&bytes).is_ok(),
    };
    if !is_whole {
        return Err(invalid("Unable to process input image."));
    }
    Ok(())
}

fn check_safety(settings: Option<&Value>) -> Result<(), Refusal> {
    let Some(settings) = settings else {
        return Ok(());
    };
    let settings = settings
        .as_array()
        .ok_or_else(|| invalid("safetySettings must be a list"))?;
    for setting in settings {
        let setting = setting
            .as_object()
            .ok_or_else(|| invalid("safetySettings must hold objects"))?;
        known(setting, "safety_settings[0].", &["category", "threshold"])?;
    }
    Ok(())
}

fn check_thinking(model: &str, config: Option<&Value>) -> Result<(), Refusal> {
    let Some(config) = config else {
        return Ok(());
    };
    let config = config
        .as_object()
        .ok_or_else(|| invalid("thinkingConfig must be an object"))?;
    known(
        config,
        "generation_config.thinking_config.",
        &["thinkingLevel"],
    )?;
    let levels: &[&str] = match model {
        "gemini-nano-banana-2.1" => &["MINIMAL", "MEDIUM", "HIGH"],
        "gemini-3.1-flash-image" => &["MINIMAL", "HIGH"],
        _ => &[],
    };
    match word(config, "thinkingLevel")? {
        Some(level) if !levels.contains(&level) => Err(invalid(&format!(
            "Thinking level {level} is not supported for this model."
        ))),
        _ => Ok(()),
    }
}

fn check_imagen(door: Door, model: &str, body: &Map<String, Value>) -> Result<Accepted, Refusal> {
    known(body, "", &["instances", "parameters", "labels"])?;
    let instances = body.get("instances").and_then(Value::as_array);
    let [instance] = instances.map(Vec::as_slice).unwrap_or_default() else {
        return Err(invalid("exactly one instance is supported"));
    };
    let instance = instance
        .as_object()
        .ok_or_else(|| invalid("instances must hold objects"))?;
    known(instance, "instances[0].", &["prompt"])?;
    let prompt = word(instance, "prompt")?
        .filter(|text| !text.is_empty())
        .ok_or_else(|| invalid("Text prompt is required"))?;
    if input_tokens(prompt) > 480 {
        return Err(invalid("The prompt must have at most 480 tokens"));
    }
    let parameters = body
        .get("parameters")
        .and_then(Value::as_object)
        .ok_or_else(|| invalid("parameters are required"))?;
    let size_name = match door {
        Door::Gemini => "imageSize",
        Door::Vertex => "sampleImageSize",
    };
    known(
        parameters,
        "parameters.",
        &[
            "sampleCount",
            "aspectRatio",
            "includeRaiReason",
            "personGeneration",
            "outputOptions",
            "addWatermark",
            "seed",
            size_name,
        ],
    )?;
    // The real one would paint four, unasked.
    let n = parameters
        .get("sampleCount")
        .and_then(Value::as_u64)
        .filter(|n| (1..=4).contains(n))
        .ok_or_else(|| invalid("Image generation sampleCount must be between 1 and 4"))?;
    if parameters.contains_key("seed") && parameters.get("addWatermark") != Some(&json!(false)) {
        return Err(invalid("Seed is not supported when watermark is enabled"));
    }
    if parameters.get("includeRaiReason") != Some(&json!(true)) {
        return Err(invalid("this fake wants includeRaiReason"));
    }
    let ratio = word(parameters, "aspectRatio")?.unwrap_or("1:1");
    let &(_, width, height) = IMAGEN_1K
        .iter()
        .find(|(known, _, _)| *known == ratio)
        .ok_or_else(|| invalid(&format!("{ratio} is not supported for aspectRatio")))?;
    let is_1k_only = model.starts_with("imagen-3") || model.contains("fast");
    let scale = match word(parameters, size_name)? {
        Some(_) if is_1k_only => return Err(invalid("sampleImageSize is not supported")),
        None | Some("1K") => 1,
        Some("2K") => 2,
        Some(other) => return Err(invalid(&format!("{other} is not supported"))),
    };
    let empty = Map::new();
    let output = parameters
        .get("outputOptions")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    known(
        output,
        "parameters.outputOptions.",
        &["mimeType", "compressionQuality"],
    )?;
    let format = match word(output, "mimeType")? {
        None | Some("image/png") => "png",
        Some("image/jpeg") => "jpeg",
        Some(other) => return Err(invalid(&format!("{other} is not supported"))),
    };
    if output.contains_key("compressionQuality") && format != "jpeg" {
        return Err(invalid("compressionQuality needs image/jpeg"));
    }
    Ok(Accepted {
        model: model.to_owned(),
        is_imagen: true,
        prompt: prompt.to_owned(),
        inputs: 0,
        n: usize::try_from(n).unwrap(),
        width: width * scale,
        height: height * scale,
        image_tokens: 0,
        format,
    })
}

fn known(object: &Map<String, Value>, place: &str, names: &[&str]) -> Result<(), Refusal> {
    match object.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(invalid(&format!(
            "Invalid JSON payload received. Unknown name \"{place}{name}\": Cannot find field."
        ))),
        None => Ok(()),
    }
}

fn word<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(word)) => Ok(Some(word)),
        Some(_) => Err(invalid(&format!("{name} is no string"))),
    }
}

/// The envelope of an error.
pub(super) fn error(status: u16, name: &str, message: &str, details: &[Value]) -> Refusal {
    let mut error = json!({"code": status, "message": message, "status": name});
    if !details.is_empty() {
        error["details"] = json!(details);
    }
    Refusal {
        status,
        body: json!({ "error": error }),
    }
}

pub(super) fn error_info(reason: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com", "consumer": "projects/easel-fake-project"},
    })
}

pub(super) fn invalid(message: &str) -> Refusal {
    error(400, "INVALID_ARGUMENT", message, &[])
}

fn not_found(message: &str) -> Refusal {
    error(404, "NOT_FOUND", message, &[])
}

pub(super) fn wrong_key() -> Refusal {
    error(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        &[error_info("API_KEY_INVALID")],
    )
}

pub(super) fn no_key() -> Refusal {
    error(
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers (callers without established identity).",
        &[],
    )
}

pub(super) fn key_in_address() -> Refusal {
    invalid("this fake takes no key in an address")
}

pub(super) fn unauthenticated() -> Refusal {
    error(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token.",
        &[error_info("ACCESS_TOKEN_EXPIRED")],
    )
}

pub(super) fn permission_denied() -> Refusal {
    error(
        403,
        "PERMISSION_DENIED",
        "Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/projects/easel-fake-project' (or it may not exist).",
        &[error_info("IAM_PERMISSION_DENIED")],
    )
}
