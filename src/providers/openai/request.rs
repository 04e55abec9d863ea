//! A neutral request becomes `OpenAI`'s JSON (`contracts/openai-images.md`, section 1.1).
//!
//! What is said, and how, follows from the route's translation, so that a model family is data in the
//! catalog and not a `match` here. Pure.

use std::num::NonZeroU8;

use serde_json::{Map, Value};

use crate::catalog::{ImageRequest, Parameter, Setting, SizeChoice, SizeTranslation, Translation};

/// The body of `POST /images/generations` for `n` pictures.
///
/// Parameters go out when the client gave them, so that the provider's own defaults hold otherwise; those
/// that decide the price also when the translation says so. Streaming parameters do not belong here.
pub(super) fn body(
    request: &ImageRequest,
    n: NonZeroU8,
    upstream_model: &str,
    translation: &Translation,
) -> Map<String, Value> {
    let mut body = Body {
        translation,
        members: Map::new(),
    };
    body.set("model", upstream_model);
    body.set("prompt", request.prompt.as_str());
    body.set("n", n.get());
    body.size(request.size);
    body.word(Parameter::Quality, request.quality, |word| word.as_str());
    body.word(Parameter::Style, request.style, |word| word.as_str());
    body.word(Parameter::Background, request.background, |word| {
        word.as_str()
    });
    body.word(Parameter::OutputFormat, request.output_format, |word| {
        word.as_str()
    });
    body.word(Parameter::Moderation, request.moderation, |word| {
        word.as_str()
    });
    body.word(Parameter::Complexity, request.complexity, |word| {
        word.as_str()
    });
    body.number(Parameter::OutputCompression, request.output_compression);
    body.number(Parameter::FrameCount, request.frame_count);
    body.number(Parameter::FrameDurationMs, request.frame_duration_ms);
    if let Some(svg) = &request.svg {
        let mut options = Map::from_iter([("model".to_owned(), svg.model.as_str().into())]);
        if let Some(effort) = &svg.effort {
            options.insert(
                "reasoning".to_owned(),
                serde_json::json!({ "effort": effort }),
            );
        }
        body.set(Parameter::Svg.as_str(), options);
    }
    if let Some(identifier) = &request.safety_identifier {
        body.set(Parameter::SafetyIdentifier.as_str(), identifier.as_str());
    }
    if let Some(user) = &request.user {
        body.set(Parameter::User.as_str(), user.as_str());
    }
    if let Some(format) = translation.response_format {
        body.set(Parameter::ResponseFormat.as_str(), format.as_str());
    }
    let mut members = body.members;
    members.extend(translation.fixed.clone());
    members
}

struct Body<'a> {
    translation: &'a Translation,
    members: Map<String, Value>,
}

impl Body<'_> {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.members.insert(name.to_owned(), value.into());
    }

    /// The value that goes out, if it does.
    fn said<T: Copy>(&self, parameter: Parameter, setting: Setting<T>) -> Option<T> {
        let decides_price = matches!(parameter, Parameter::Size | Parameter::Quality);
        (setting.given || (self.translation.send_defaults && decides_price))
            .then_some(setting.value)
    }

    fn word<T: Copy>(
        &mut self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
        text: impl Fn(&T) -> &'static str,
    ) {
        if let Some(value) = setting.and_then(|setting| self.said(parameter, setting)) {
            let word = self.theirs(parameter, text(&value)).to_owned();
            self.set(parameter.as_str(), word);
        }
    }

    fn number<T: Copy + Into<Value>>(&mut self, parameter: Parameter, setting: Option<Setting<T>>) {
        if let Some(value) = setting.and_then(|setting| self.said(parameter, setting)) {
            self.set(parameter.as_str(), value);
        }
    }

    fn size(&mut self, setting: Setting<SizeChoice>) {
        let Some(choice) = self.said(Parameter::Size, setting) else {
            return;
        };
        if let (SizeTranslation::Table(table), SizeChoice::Exact(size)) =
            (&self.translation.size, choice)
            && let Some((_, fields)) = table.iter().find(|(ours, _)| *ours == size)
        {
            self.members.extend(fields.clone());
            return;
        }
        let ours = choice.to_string();
        let theirs = self.theirs(Parameter::Size, &ours).to_owned();
        self.set(Parameter::Size.as_str(), theirs);
    }

    /// What the provider calls this word.
    fn theirs<'s>(&'s self, parameter: Parameter, ours: &'s str) -> &'s str {
        self.translation
            .words
            .get(parameter.as_str())
            .and_then(|words| words.get(ours))
            .map_or(ours, String::as_str)
    }
}
