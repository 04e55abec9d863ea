//! A neutral request becomes a form (`contracts/stability.md`, sections 2.1 to 2.4 and 7.2).
//!
//! What the catalog's rules let through and Stability has no word for (`quality`, `style`, …) goes out only
//! under a name that the route's translation gives it. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    catalog::{
        Background, Complexity, ImageRequest, Moderation, OutputFormat, Parameter, Quality,
        Setting, SizeChoice, Style, StylePreset, Translation,
    },
    images::Upload,
    providers::{ErrorKind, ProviderError, http::Form},
};

/// Who the picture is for, for Stability's safety team; at most 256 characters (section 1).
const END_USER: HeaderName = HeaderName::from_static("stability-client-user-id");

/// What goes out for one picture.
#[derive(Debug)]
pub(super) struct FormRequest {
    /// The part of the path before it: `generate` or `edit`.
    pub(super) family: &'static str,
    /// The last part of the path: `ultra`, `core`, `sd3` or `inpaint`.
    pub(super) endpoint: &'static str,
    pub(super) form: Form,
    pub(super) headers: HeaderMap,
}

/// What a picture is painted from.
pub(super) enum Source {
    /// From the prompt alone.
    Words,
    /// From the whole of a picture.
    Picture(Upload),
    /// From a picture, and only where the other is white (section 2.4).
    Part {
        /// What stays elsewhere.
        image: Upload,
        /// In shades of grey.
        white: Upload,
    },
}

/// The request for the picture with this index among those asked for; there is no `n`.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for a size, a picture or a mask that this endpoint has no way to say.
pub(super) fn write(
    request: &ImageRequest,
    index: u8,
    source: &Source,
    upstream_model: &str,
    translation: &Translation,
) -> Result<FormRequest, ProviderError> {
    let mut writer = Writer {
        translation,
        form: Form::default(),
    };
    // Three models have paths of their own; the names of the others are values of a field (section 8, trap 7).
    let (family, endpoint) = match upstream_model {
        "ultra" => ("generate", "ultra"),
        "core" => ("generate", "core"),
        "inpaint" => ("edit", "inpaint"),
        _ => {
            writer.form.text("model", upstream_model);
            ("generate", "sd3")
        }
    };
    writer
        .form
        .text(translation.name(Parameter::Prompt), request.prompt.as_str());
    match (source, endpoint) {
        (Source::Words, "ultra" | "core" | "sd3") => writer.size(request.size)?,
        (Source::Picture(image), "ultra" | "sd3") => {
            if endpoint == "sd3" {
                writer.form.text("mode", "image-to-image");
            }
            writer.form.file("image", "image", image);
            // The default goes out too: upstream there is none.
            writer.text(Parameter::Strength, request.strength.map(|set| set.value));
        }
        // Without a mask the picture's own transparency says where.
        (Source::Picture(image), "inpaint") => writer.form.file("image", "image", image),
        (Source::Part { image, white }, "inpaint") => {
            writer.form.file("image", "image", image);
            writer.form.file("mask", "mask", white);
        }
        (Source::Words, _) => return Err(unsayable("image", "this endpoint only edits")),
        (Source::Picture(_), _) => return Err(unsayable("image", "this endpoint edits nothing")),
        (Source::Part { .. }, _) => return Err(unsayable("mask", "this endpoint takes no mask")),
    }
    writer.word(
        Parameter::OutputFormat,
        request.output_format,
        OutputFormat::as_str,
    );
    writer.named(Parameter::Quality, request.quality, Quality::as_str);
    writer.named(Parameter::Style, request.style, Style::as_str);
    writer.named(
        Parameter::Background,
        request.background,
        Background::as_str,
    );
    writer.named(
        Parameter::Moderation,
        request.moderation,
        Moderation::as_str,
    );
    writer.named(
        Parameter::Complexity,
        request.complexity,
        Complexity::as_str,
    );
    writer.word(
        Parameter::StylePreset,
        request.style_preset,
        StylePreset::as_str,
    );
    writer.text(
        Parameter::NegativePrompt,
        request.negative_prompt.as_deref(),
    );
    let seed = request.seed.and_then(|seed| nth_seed(seed.value, index));
    writer.text(Parameter::Seed, seed);
    writer.text(Parameter::GrowMask, request.grow_mask.map(|set| set.value));
    writer.text(Parameter::CfgScale, request.cfg_scale.map(|set| set.value));
    for (name, value) in &translation.fixed {
        writer.form.text(name, field_text(value));
    }
    Ok(FormRequest {
        family,
        endpoint,
        form: writer.form,
        headers: headers(request),
    })
}

/// What a route of the catalog asks of this provider that it cannot do.
pub(super) fn unsayable(parameter: &str, why: &str) -> ProviderError {
    ProviderError {
        param: Some(parameter.to_owned()),
        ..ProviderError::new(ErrorKind::InvalidRequest, why)
    }
}

struct Writer<'a> {
    translation: &'a Translation,
    form: Form,
}

impl Writer<'_> {
    fn word<T: Copy>(
        &mut self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
        text: impl Fn(T) -> &'static str,
    ) {
        if let Some(value) = setting.and_then(|setting| self.said(parameter, setting)) {
            let word = self.translation.word(parameter, text(value));
            self.form.text(self.translation.name(parameter), word);
        }
    }

    /// A parameter that Stability does not have, unless the translation names a field for it.
    fn named<T: Copy>(
        &mut self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
        text: impl Fn(T) -> &'static str,
    ) {
        if self.translation.names.contains_key(&parameter) {
            self.word(parameter, setting, text);
        }
    }

    fn text(&mut self, parameter: Parameter, value: Option<impl ToString>) {
        if let Some(value) = value {
            let name = self.translation.name(parameter);
            self.form.text(name, value.to_string());
        }
    }

    fn size(&mut self, setting: Setting<SizeChoice>) -> Result<(), ProviderError> {
        let Some(choice) = self.said(Parameter::Size, setting) else {
            return Ok(());
        };
        let fields = self.translation.size.fields(choice).ok_or_else(|| {
            let message = format!("size {choice} cannot be asked of this provider");
            unsayable(Parameter::Size.as_str(), &message)
        })?;
        for (name, value) in fields.as_ref() {
            self.form.text(name, field_text(value));
        }
        Ok(())
    }

    /// The value that goes out, if it does.
    fn said<T: Copy>(&self, parameter: Parameter, setting: Setting<T>) -> Option<T> {
        (setting.given || self.translation.sends_default(parameter)).then_some(setting.value)
    }
}

/// The seed of one of several pictures: equal ones would bring equal pictures. 0 means a random one, so none
/// is ever counted up to it (section 7.2).
fn nth_seed(seed: u32, index: u8) -> Option<u32> {
    const SEEDS: u32 = u32::MAX - 1;
    // 2³² − 2 is the largest; in 64 bits, since the sum may be larger.
    let place = u64::from(seed.checked_sub(1)?) + u64::from(index);
    u32::try_from(place % u64::from(SEEDS) + 1).ok()
}

/// A form knows only texts.
fn field_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Raw bytes are asked for: then the verdict on a picture stands in the head, before its first byte
/// (section 3). The end user's name is hashed, as it may be an address (section 7.2).
fn headers(request: &ImageRequest) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("image/*"))]);
    let end_user = request.safety_identifier.as_ref().or(request.user.as_ref());
    if let Some(name) = end_user {
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(name.as_bytes()));
        if let Ok(value) = HeaderValue::try_from(hash) {
            headers.insert(END_USER, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_count_up_and_never_reach_zero() {
        for (seed, index, expected) in [
            (0, 0, None),
            (0, 3, None),
            (1, 0, Some(1)),
            (7, 2, Some(9)),
            (4_294_967_294, 0, Some(4_294_967_294)),
            (4_294_967_294, 1, Some(1)),
            (4_294_967_293, 3, Some(2)),
        ] {
            assert_eq!(nth_seed(seed, index), expected, "{seed} {index}");
        }
    }
}
