//! A neutral request becomes Google's JSON (`contracts/google-imagen.md`, 2.2 and 3.2). Pure.
//!
//! How a size is said, and what else goes with every request, is the route's translation: its fields land
//! in `imageConfig` or in `parameters`, and `fixed` is laid over the whole body.

use std::num::NonZeroU8;

use serde_json::{Map, Value, json};

use super::Protocol;
use crate::{
    catalog::{ImageRequest, Parameter, Setting, Translation},
    images::Upload,
    providers::{
        ErrorKind, ProviderError, Task,
        http::{Payload, Pictures},
    },
};

/// What is posted for `n` pictures.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for what this provider has no way to say: some sizes, masks, and pictures
/// where the protocol takes none.
pub(super) fn payload(
    protocol: Protocol,
    request: &ImageRequest,
    task: &Task,
    n: NonZeroU8,
    translation: &Translation,
) -> Result<Payload, ProviderError> {
    let size = size(request, translation)?;
    let mut pictures = Pictures::default();
    let mut body = match (protocol, inputs(task)?) {
        (Protocol::GenerateContent, uploads) => {
            generate_content(request, uploads, size, &mut pictures)
        }
        (Protocol::Predict, []) => predict(request, n, size),
        (Protocol::Predict, _) => {
            return Err(unsayable("image", "pictures cannot be sent to this model"));
        }
    };
    lay_over(&mut body, &translation.fixed);
    Ok(pictures.payload(&body))
}

/// The pictures of the client's that go along.
fn inputs(task: &Task) -> Result<&[Upload], ProviderError> {
    match task {
        Task::Generate => Ok(&[]),
        Task::Edit(inputs) if inputs.mask.is_some() => Err(unsayable(
            "mask",
            "a mask cannot be sent to this provider, whose models choose for themselves where to edit",
        )),
        Task::Edit(inputs) => Ok(&inputs.images),
        Task::Vary(_) => Err(unsayable(
            "image",
            "this provider varies no picture without being told how",
        )),
    }
}

/// Never with `candidateCount`: more than one is refused, so each picture is a call of its own. The prompt
/// first, then the pictures in the client's order.
fn generate_content(
    request: &ImageRequest,
    uploads: &[Upload],
    size: Map<String, Value>,
    pictures: &mut Pictures,
) -> Value {
    let mut config = json!({ "responseModalities": ["IMAGE"] });
    if !size.is_empty() {
        config["imageConfig"] = Value::Object(size);
    }
    let mut parts = vec![json!({ "text": request.prompt })];
    parts.extend(uploads.iter().map(|upload| {
        json!({ "inlineData": {
            "mimeType": upload.info().format.content_type(),
            "data": pictures.stand_in(upload),
        } })
    }));
    json!({
        "contents": [{ "role": "user", "parts": parts }],
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
        unsayable(Parameter::Size.as_str(), message)
    })?;
    Ok(fields.into_owned())
}

fn unsayable(param: &str, message: impl Into<String>) -> ProviderError {
    ProviderError {
        param: Some(param.to_owned()),
        ..ProviderError::new(ErrorKind::InvalidRequest, message)
    }
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
