//! A neutral request becomes `OpenAI`'s JSON (`contracts/openai-images.md`, section 1.1).
//!
//! What is said, and how, follows from the route's translation, so that a model family is data in the
//! catalog and not a `match` here. Pure.

use std::num::NonZeroU8;

use serde_json::{Map, Value, json};

use crate::{
    catalog::{
        Background, Complexity, ImageRequest, Moderation, OutputFormat, Parameter, Quality,
        Setting, SizeChoice, Style, Translation,
    },
    providers::{ErrorKind, ProviderError},
};

/// The body of `POST /images/generations` for `n` pictures.
///
/// Parameters go out when the client gave them, so that the provider's own defaults hold otherwise; those
/// that decide the price also when the translation says so. Streaming parameters do not belong here.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for a size that this provider has no way to say.
pub(super) fn body(
    request: &ImageRequest,
    n: NonZeroU8,
    upstream_model: &str,
    translation: &Translation,
) -> Result<Map<String, Value>, ProviderError> {
    let mut body = Body {
        translation,
        members: Map::new(),
    };
    body.members
        .insert("model".to_owned(), upstream_model.into());
    body.set(Parameter::Prompt, request.prompt.as_str());
    body.set(Parameter::N, n.get());
    body.size(request.size)?;
    body.word(Parameter::Quality, request.quality, Quality::as_str);
    body.word(Parameter::Style, request.style, Style::as_str);
    body.word(
        Parameter::Background,
        request.background,
        Background::as_str,
    );
    body.word(
        Parameter::OutputFormat,
        request.output_format,
        OutputFormat::as_str,
    );
    body.word(
        Parameter::Moderation,
        request.moderation,
        Moderation::as_str,
    );
    body.word(
        Parameter::Complexity,
        request.complexity,
        Complexity::as_str,
    );
    body.number(Parameter::OutputCompression, request.output_compression);
    body.number(Parameter::FrameCount, request.frame_count);
    body.number(Parameter::FrameDurationMs, request.frame_duration_ms);
    if let Some(svg) = &request.svg {
        let mut options = json!({ "model": svg.model });
        if let Some(effort) = &svg.effort {
            options["reasoning"] = json!({ "effort": effort });
        }
        body.set(Parameter::Svg, options);
    }
    if let Some(identifier) = &request.safety_identifier {
        body.set(Parameter::SafetyIdentifier, identifier.as_str());
    }
    if let Some(user) = &request.user {
        body.set(Parameter::User, user.as_str());
    }
    if let Some(format) = translation.response_format {
        body.set(Parameter::ResponseFormat, format.as_str());
    }
    body.members.extend(translation.fixed.clone());
    Ok(body.members)
}

struct Body<'a> {
    translation: &'a Translation,
    members: Map<String, Value>,
}

impl Body<'_> {
    fn set(&mut self, parameter: Parameter, value: impl Into<Value>) {
        let name = self.translation.name(parameter).to_owned();
        self.members.insert(name, value.into());
    }

    /// The value that goes out, if it does.
    fn said<T: Copy>(&self, parameter: Parameter, setting: Setting<T>) -> Option<T> {
        (setting.given || self.translation.sends_default(parameter)).then_some(setting.value)
    }

    fn word<T: Copy>(
        &mut self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
        text: impl Fn(T) -> &'static str,
    ) {
        if let Some(value) = setting.and_then(|setting| self.said(parameter, setting)) {
            let word = self.translation.word(parameter, text(value)).to_owned();
            self.set(parameter, word);
        }
    }

    fn number<T: Copy + Into<Value>>(&mut self, parameter: Parameter, setting: Option<Setting<T>>) {
        if let Some(value) = setting.and_then(|setting| self.said(parameter, setting)) {
            self.set(parameter, value);
        }
    }

    fn size(&mut self, setting: Setting<SizeChoice>) -> Result<(), ProviderError> {
        let Some(choice) = self.said(Parameter::Size, setting) else {
            return Ok(());
        };
        let fields = self.translation.size.fields(choice).ok_or_else(|| {
            let message = format!("size {choice} cannot be asked of this provider");
            ProviderError {
                param: Some(Parameter::Size.as_str().to_owned()),
                ..ProviderError::new(ErrorKind::InvalidRequest, message)
            }
        })?;
        self.members.extend(fields.into_owned());
        Ok(())
    }
}
