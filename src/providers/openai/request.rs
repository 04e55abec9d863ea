//! A neutral request becomes `OpenAI`'s JSON or its form (`contracts/openai-images.md`, sections 1.1, 4.1 and
//! 4.3).
//!
//! What is said, and how, follows from the route's translation, so that a model family is data in the
//! catalog and not a `match` here. What an endpoint has no field for is the endpoint's affair, and here. Pure.

use std::num::NonZeroU8;

use serde_json::{Map, Value, json};

use crate::{
    catalog::{
        Background, Complexity, ImageRequest, InputFidelity, Moderation, OutputFormat, Parameter,
        Quality, Setting, SizeChoice, Style, Translation,
    },
    images::Upload,
    providers::{ErrorKind, Inputs, ProviderError, http::Form},
};

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Generations,
    Edits,
    Variations,
}

/// What there is to say, besides the pictures.
pub(super) struct Saying<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) request: &'a ImageRequest,
    /// How many pictures this call shall bring.
    pub(super) n: NonZeroU8,
    pub(super) upstream_model: &'a str,
    pub(super) translation: &'a Translation,
    /// Whether the pictures shall come as events.
    pub(super) stream: bool,
}

impl Endpoint {
    /// The path below `base_url`.
    pub(super) fn path(self) -> [&'static str; 2] {
        let action = match self {
            Self::Generations => "generations",
            Self::Edits => "edits",
            Self::Variations => "variations",
        };
        ["images", action]
    }

    /// Whether its form has a field for it.
    fn takes(self, parameter: Parameter) -> bool {
        match self {
            Self::Generations => parameter != Parameter::InputFidelity,
            Self::Edits => !matches!(parameter, Parameter::Moderation | Parameter::Style),
            Self::Variations => matches!(
                parameter,
                Parameter::N | Parameter::Size | Parameter::ResponseFormat | Parameter::User
            ),
        }
    }
}

impl Saying<'_> {
    /// The members of a JSON body, or the fields of a form.
    ///
    /// Parameters go out when the client gave them, so that the provider's own defaults hold otherwise;
    /// those that decide the price also when the translation says so.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for a size that this provider has no way to say, and for a parameter
    /// that the endpoint does not have.
    pub(super) fn members(&self) -> Result<Map<String, Value>, ProviderError> {
        let request = self.request;
        let mut body = Body {
            endpoint: self.endpoint,
            translation: self.translation,
            members: Map::new(),
        };
        body.members
            .insert("model".to_owned(), self.upstream_model.into());
        if self.endpoint != Endpoint::Variations {
            body.set(Parameter::Prompt, request.prompt.as_str());
        }
        body.set(Parameter::N, self.n.get());
        body.size(request.size)?;
        body.word(Parameter::Quality, request.quality, Quality::as_str)?;
        body.word(Parameter::Style, request.style, Style::as_str)?;
        body.word(
            Parameter::Background,
            request.background,
            Background::as_str,
        )?;
        body.word(
            Parameter::OutputFormat,
            request.output_format,
            OutputFormat::as_str,
        )?;
        // `auto` is what holds where there is no field for it.
        let moderation = request.moderation.filter(|asked| {
            asked.value != Moderation::Auto || self.endpoint.takes(Parameter::Moderation)
        });
        body.word(Parameter::Moderation, moderation, Moderation::as_str)?;
        body.word(
            Parameter::InputFidelity,
            request.input_fidelity,
            InputFidelity::as_str,
        )?;
        body.word(
            Parameter::Complexity,
            request.complexity,
            Complexity::as_str,
        )?;
        body.number(Parameter::OutputCompression, request.output_compression)?;
        body.number(Parameter::FrameCount, request.frame_count)?;
        body.number(Parameter::FrameDurationMs, request.frame_duration_ms)?;
        if let Some(svg) = &request.svg {
            let mut options = json!({ "model": svg.model });
            if let Some(effort) = &svg.effort {
                options["reasoning"] = json!({ "effort": effort });
            }
            body.set(Parameter::Svg, options);
        }
        // Names of the end user are for the provider's safety team: no loss where there is no field.
        if self.endpoint.takes(Parameter::SafetyIdentifier)
            && let Some(identifier) = &request.safety_identifier
        {
            body.set(Parameter::SafetyIdentifier, identifier.as_str());
        }
        // A form that has only the older field gets the newer one's name in it, which wins where both are given.
        let newer = request.safety_identifier.as_ref();
        let newer = newer.filter(|_| !self.endpoint.takes(Parameter::SafetyIdentifier));
        if let Some(user) = newer.or(request.user.as_ref()) {
            body.set(Parameter::User, user.as_str());
        }
        if let Some(format) = self.translation.response_format {
            body.set(Parameter::ResponseFormat, format.as_str());
        }
        if self.stream {
            body.set(Parameter::Stream, true);
            body.number(Parameter::PartialImages, request.partial_images)?;
        }
        body.members.extend(self.translation.fixed.clone());
        Ok(body.members)
    }

    /// The form of an edit (section 4.1): one picture as `image`, several as `image[]`.
    ///
    /// # Errors
    /// As [`Saying::members`].
    pub(super) fn edit(&self, inputs: &Inputs) -> Result<Form, ProviderError> {
        let mut form = self.form()?;
        if let [image] = &*inputs.images {
            form.file("image", "image", image);
        } else {
            for (image, number) in inputs.images.iter().zip(1_u32..) {
                form.file("image[]", &format!("image-{number}"), image);
            }
        }
        if let Some(mask) = &inputs.mask {
            form.file("mask", "mask", mask);
        }
        Ok(form)
    }

    /// The form of a variation (section 4.3).
    ///
    /// # Errors
    /// As [`Saying::members`].
    pub(super) fn variation(&self, image: &Upload) -> Result<Form, ProviderError> {
        let mut form = self.form()?;
        form.file("image", "image", image);
        Ok(form)
    }

    /// The members as fields: what is nested is said with brackets, as the SDKs do.
    fn form(&self) -> Result<Form, ProviderError> {
        let mut form = Form::default();
        for (name, value) in self.members()? {
            add_field(&mut form, &name, &value);
        }
        Ok(form)
    }
}

fn add_field(form: &mut Form, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => form.text(name, flag.to_string()),
        Value::Number(number) => form.text(name, number.to_string()),
        Value::String(text) => form.text(name, text.as_str()),
        Value::Array(elements) => {
            for element in elements {
                add_field(form, &format!("{name}[]"), element);
            }
        }
        Value::Object(members) => {
            for (member, value) in members {
                add_field(form, &format!("{name}[{member}]"), value);
            }
        }
    }
}

struct Body<'a> {
    endpoint: Endpoint,
    translation: &'a Translation,
    members: Map<String, Value>,
}

impl Body<'_> {
    fn set(&mut self, parameter: Parameter, value: impl Into<Value>) {
        let name = self.translation.name(parameter).to_owned();
        self.members.insert(name, value.into());
    }

    /// The value that goes out, if it does. What the client gave is never left out unsaid.
    fn said<T: Copy>(
        &self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
    ) -> Result<Option<T>, ProviderError> {
        let Some(setting) = setting else {
            return Ok(None);
        };
        let takes = self.endpoint.takes(parameter);
        if setting.given && !takes {
            let message = format!(
                "{} cannot be asked of this provider here",
                parameter.as_str()
            );
            return Err(unsayable(parameter, message));
        }
        let is_said = takes && (setting.given || self.translation.sends_default(parameter));
        Ok(is_said.then_some(setting.value))
    }

    fn word<T: Copy>(
        &mut self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
        text: impl Fn(T) -> &'static str,
    ) -> Result<(), ProviderError> {
        if let Some(value) = self.said(parameter, setting)? {
            let word = self.translation.word(parameter, text(value)).to_owned();
            self.set(parameter, word);
        }
        Ok(())
    }

    fn number<T: Copy + Into<Value>>(
        &mut self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
    ) -> Result<(), ProviderError> {
        if let Some(value) = self.said(parameter, setting)? {
            self.set(parameter, value);
        }
        Ok(())
    }

    fn size(&mut self, setting: Setting<SizeChoice>) -> Result<(), ProviderError> {
        let Some(choice) = self.said(Parameter::Size, Some(setting))? else {
            return Ok(());
        };
        let fields = self.translation.size.fields(choice).ok_or_else(|| {
            let message = format!("size {choice} cannot be asked of this provider");
            unsayable(Parameter::Size, message)
        })?;
        self.members.extend(fields.into_owned());
        Ok(())
    }
}

fn unsayable(parameter: Parameter, message: String) -> ProviderError {
    ProviderError {
        param: Some(parameter.as_str().to_owned()),
        ..ProviderError::new(ErrorKind::InvalidRequest, message)
    }
}
