//! Rules across parameters, as data: when one parameter has a value, others must have one of theirs
//! (`contracts/openai-images.md`, 1.3).

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::violation::{Violation, joined_list};
use crate::catalog::request::{ImageRequest, Parameter, Params};

/// The value of a parameter, without its type's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    Text(String),
    Integer(i64),
    Flag(bool),
}

impl TryFrom<toml::Value> for Scalar {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Ok(Self::Text(text)),
            toml::Value::Integer(number) => Ok(Self::Integer(number)),
            toml::Value::Boolean(flag) => Ok(Self::Flag(flag)),
            other => Err(format!(
                "a value here is a string, a whole number or a flag, not {}",
                other.type_str()
            )),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "'{text}'"),
            Self::Integer(number) => number.fmt(formatter),
            Self::Flag(flag) => flag.fmt(formatter),
        }
    }
}

/// When `parameter` is one of `is` (or, without `is`, when it is given at all), each parameter in
/// `needs` must have one of its values. Defaults count as values.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "CrossRuleFile")]
pub(super) struct CrossRule {
    parameter: Parameter,
    is: Option<Vec<Scalar>>,
    needs: BTreeMap<Parameter, Vec<Scalar>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CrossRuleFile {
    parameter: Parameter,
    is: Option<Vec<toml::Value>>,
    needs: BTreeMap<Parameter, Vec<toml::Value>>,
}

impl TryFrom<CrossRuleFile> for CrossRule {
    type Error = String;

    fn try_from(file: CrossRuleFile) -> Result<Self, String> {
        let scalars = |values: Vec<toml::Value>| -> Result<Vec<Scalar>, String> {
            values.into_iter().map(Scalar::try_from).collect()
        };
        Ok(Self {
            parameter: file.parameter,
            is: file.is.map(scalars).transpose()?,
            needs: file
                .needs
                .into_iter()
                .map(|(parameter, values)| Ok((parameter, scalars(values)?)))
                .collect::<Result<_, String>>()?,
        })
    }
}

impl CrossRule {
    /// Checks a request that has passed the rules of its single parameters.
    pub(super) fn check(&self, params: &Params, request: &ImageRequest) -> Result<(), Violation> {
        if !self.applies(params, request) {
            return Ok(());
        }
        for (&needed, allowed) in &self.needs {
            let found = resolved(request, needed);
            if found.as_ref().is_some_and(|value| allowed.contains(value)) {
                continue;
            }
            let by_default = if params.contains_key(&needed) {
                ""
            } else {
                " by default"
            };
            let found = found.map_or_else(|| "not set".to_owned(), |value| value.to_string());
            let reason = format!(
                "It needs '{}' to be {}, but that is {found}{by_default}.",
                needed.as_str(),
                alternatives(allowed),
            );
            let value = resolved(request, self.parameter)
                .map_or_else(|| "an object".to_owned(), |value| value.to_string());
            return Err(Violation::combination(self.parameter, &value, &reason));
        }
        Ok(())
    }

    /// Whose rule it is.
    pub(super) fn parameter(&self) -> Parameter {
        self.parameter
    }

    /// Whether it has nothing to say where there are no vector pictures.
    pub(super) fn is_about_vectors(&self) -> bool {
        let when_vector = || self.is == Some(vec![Scalar::Text("svg".to_owned())]);
        self.parameter == Parameter::Svg
            || (self.parameter == Parameter::OutputFormat && when_vector())
    }

    /// Every parameter it speaks of.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        std::iter::once(self.parameter).chain(self.needs.keys().copied())
    }

    /// The rule in words, for listings: `when 'transparent': 'output_format' is 'png' or 'webp'`.
    pub(super) fn sentence(&self) -> String {
        let needs: Vec<String> = self
            .needs
            .iter()
            .map(|(parameter, allowed)| {
                format!("'{}' must be {}", parameter.as_str(), alternatives(allowed))
            })
            .collect();
        let when = match &self.is {
            Some(values) => format!("when it is {}", alternatives(values)),
            None => "when it is given".to_owned(),
        };
        format!("{when}, {}", joined_list(&needs, "and"))
    }

    fn applies(&self, params: &Params, request: &ImageRequest) -> bool {
        match &self.is {
            None => params.contains_key(&self.parameter),
            Some(values) => {
                resolved(request, self.parameter).is_some_and(|value| values.contains(&value))
            }
        }
    }
}

pub(super) fn alternatives(values: &[Scalar]) -> String {
    let words: Vec<String> = values.iter().map(ToString::to_string).collect();
    joined_list(&words, "or")
}

/// The value that holds for a parameter. `None` when nothing does, and for those that no rule can
/// sensibly speak of: free text (which must not get into a message) and the `svg` object.
pub(super) fn resolved(request: &ImageRequest, parameter: Parameter) -> Option<Scalar> {
    let word = |text: &'static str| Scalar::Text(text.to_owned());
    match parameter {
        Parameter::N => Some(Scalar::Integer(request.n.get().into())),
        // The ratio is the size by another name.
        Parameter::Size | Parameter::AspectRatio => {
            Some(Scalar::Text(request.size.value.to_string()))
        }
        Parameter::Quality => request.quality.map(|set| word(set.value.as_str())),
        Parameter::ResponseFormat => Some(word(request.response_format.as_str())),
        Parameter::Style => request.style.map(|set| word(set.value.as_str())),
        Parameter::Background => request.background.map(|set| word(set.value.as_str())),
        Parameter::OutputFormat => request.output_format.map(|set| word(set.value.as_str())),
        Parameter::OutputCompression => request
            .output_compression
            .map(|set| Scalar::Integer(set.value.into())),
        Parameter::Moderation => request.moderation.map(|set| word(set.value.as_str())),
        Parameter::InputFidelity => request.input_fidelity.map(|set| word(set.value.as_str())),
        Parameter::Stream => Some(Scalar::Flag(request.stream)),
        Parameter::PartialImages => request
            .partial_images
            .map(|set| Scalar::Integer(set.value.into())),
        Parameter::Complexity => request.complexity.map(|set| word(set.value.as_str())),
        Parameter::FrameCount => request
            .frame_count
            .map(|set| Scalar::Integer(set.value.into())),
        Parameter::FrameDurationMs => request
            .frame_duration_ms
            .map(|set| Scalar::Integer(set.value.into())),
        Parameter::Seed => request.seed.map(|set| Scalar::Integer(set.value.into())),
        Parameter::StylePreset => request.style_preset.map(|set| word(set.value.as_str())),
        Parameter::CfgScale => request
            .cfg_scale
            .map(|set| Scalar::Text(set.value.to_string())),
        Parameter::Strength => request
            .strength
            .map(|set| Scalar::Text(set.value.to_string())),
        Parameter::GrowMask => request
            .grow_mask
            .map(|set| Scalar::Integer(set.value.into())),
        Parameter::Prompt
        | Parameter::NegativePrompt
        | Parameter::Svg
        | Parameter::SafetyIdentifier
        | Parameter::User => None,
    }
}
