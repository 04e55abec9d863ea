//! A neutral request becomes Google's JSON (`contracts/google-imagen.md`, 2.2 and 3.2). Pure.
//!
//! How a size is said, and what else goes with every request, is the route's translation: its fields land
//! in `imageConfig` or in `parameters`, and `fixed` is laid over the whole body.

use std::num::NonZeroU8;

use serde_json::{Map, Value, json};

use super::Protocol;
use crate::{
    catalog::{ImageRequest, Parameter, Setting, Translation},
    providers::{ErrorKind, ProviderError},
};

/// The body for `n` pictures.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for a size that this provider has no way to say.
pub(super) fn body(
    protocol: Protocol,
    request: &ImageRequest,
    n: NonZeroU8,
    translation: &Translation,
) -> Result<Value, ProviderError> {
    let size = size(request, translation)?;
    let mut body = match protocol {
        Protocol::GenerateContent => generate_content(request, size),
        Protocol::Predict => predict(request, n, size),
    };
    lay_over(&mut body, &translation.fixed);
    Ok(body)
}

/// Never with `candidateCount`: more than one is refused, so each picture is a call of its own.
fn generate_content(request: &ImageRequest, size: Map<String, Value>) -> Value {
    let mut config = json!({ "responseModalities": ["IMAGE"] });
    if !size.is_empty() {
        config["imageConfig"] = Value::Object(size);
    }
    json!({
        "contents": [{ "role": "user", "parts": [{ "text": request.prompt }] }],
        "generationConfig": config,
    })
}

/// Always with `sampleCount`, whose default is 4 pictures, and with `includeRaiReason`, without which a
/// filtered answer is an empty one.
fn predict(request: &ImageRequest, n: NonZeroU8, size: Map<String, Value>) -> Value {
    let mut parameters = size;
    parameters.insert("sampleCount".to_owned(), n.get().into());
    parameters.insert("includeRaiReason".to_owned(), true.into());
    let mut output = Map::new();
    if let Some(format) = request.output_format.and_then(Setting::if_given) {
        output.insert("mimeType".to_owned(), format!("image/{format}").into());
    }
    if let Some(quality) = request.output_compression.and_then(Setting::if_given) {
        output.insert("compressionQuality".to_owned(), quality.into());
    }
    if !output.is_empty() {
        parameters.insert("outputOptions".to_owned(), Value::Object(output));
    }
    json!({
        "instances": [{ "prompt": request.prompt }],
        "parameters": parameters,
    })
}

fn size(
    request: &ImageRequest,
    translation: &Translation,
) -> Result<Map<String, Value>, ProviderError> {
    let Setting { value, given } = request.size;
    if !given && !translation.sends_default(Parameter::Size) {
        return Ok(Map::new());
    }
    let fields = translation.size.fields(value).ok_or_else(|| {
        let message = format!("size {value} cannot be asked of this provider");
        ProviderError {
            param: Some(Parameter::Size.as_str().to_owned()),
            ..ProviderError::new(ErrorKind::InvalidRequest, message)
        }
    })?;
    Ok(fields.into_owned())
}

/// Members of objects one by one, everything else whole.
fn lay_over(body: &mut Value, fixed: &Map<String, Value>) {
    for (name, over) in fixed {
        match (&mut body[name.as_str()], over) {
            (under @ Value::Object(_), Value::Object(over)) => lay_over(under, over),
            (under, over) => *under = over.clone(),
        }
    }
}
