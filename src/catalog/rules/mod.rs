//! What a model takes: one rule a parameter, and rules across parameters.
//!
//! Data from the catalog file, checked by kind of parameter. No model's name occurs here: what differs
//! between models differs in `config/models/*.toml`. A parameter without a rule is one the model does
//! not take.

mod cross;
mod parameter;
mod pictures;
mod schema;
mod size;
mod tasks;
mod violation;

use std::{borrow::Cow, num::NonZeroU8};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

pub(super) use self::size::{FreeSizes, SizeRule};
use self::{
    cross::CrossRule,
    parameter::{
        DecimalRule, Describe, FlagRule, IntegerRule, PromptRule, Rule, SvgRule, TextRule, WordRule,
    },
    pictures::MaskRule,
    tasks::TaskRules,
};
pub use self::{
    pictures::{InputImages, InputPicture, InputPictures},
    violation::{Violation, nearest},
};
use super::{
    ratio::Ratio,
    request::{ImageRequest, Parameter, Params, Setting},
    vocabulary::{
        Background, Complexity, InputFidelity, Moderation, OutputFormat, Quality, ResponseFormat,
        SizeChoice, Style, StylePreset,
    },
};

/// What to do with a parameter that exists but that the model does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unsupported {
    /// Refuse the request, by the parameter's name.
    #[default]
    Reject,
    /// Leave the parameter out and say so.
    Drop,
}

/// The rules of one model, as they stand in its `[model.rules]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Absent only where nothing but pictures is asked with.
    prompt: Option<PromptRule>,
    n: IntegerRule<NonZeroU8>,
    size: SizeRule,
    aspect_ratio: Option<WordRule<Ratio>>,
    quality: Option<WordRule<Quality>>,
    response_format: WordRule<ResponseFormat>,
    style: Option<WordRule<Style>>,
    background: Option<WordRule<Background>>,
    output_format: Option<WordRule<OutputFormat>>,
    output_compression: Option<IntegerRule<u8>>,
    moderation: Option<WordRule<Moderation>>,
    #[serde(skip)]
    input_fidelity: Option<WordRule<InputFidelity>>,
    #[serde(skip)]
    strength: Option<DecimalRule>,
    #[serde(skip)]
    grow_mask: Option<IntegerRule<u8>>,
    stream: Option<FlagRule>,
    partial_images: Option<IntegerRule<u8>>,
    complexity: Option<WordRule<Complexity>>,
    frame_count: Option<IntegerRule<u8>>,
    frame_duration_ms: Option<IntegerRule<u32>>,
    svg: Option<SvgRule>,
    negative_prompt: Option<TextRule>,
    seed: Option<IntegerRule<u32>>,
    style_preset: Option<WordRule<StylePreset>>,
    cfg_scale: Option<DecimalRule>,
    safety_identifier: Option<TextRule>,
    user: Option<TextRule>,
    #[serde(default)]
    cross: Vec<CrossRule>,
    #[serde(rename = "edits")]
    edits_file: Option<Box<TaskRules>>,
    #[serde(rename = "variations")]
    variations_file: Option<Box<TaskRules>>,
    /// The pictures that a request by these rules brings; only in the rules of edits and variations.
    #[serde(skip)]
    images: Option<InputImages>,
    #[serde(skip)]
    mask: Option<MaskRule>,
    /// The complete rules of edits, where the model edits.
    #[serde(skip)]
    edits: Option<Box<Rules>>,
    /// The complete rules of variations, where the model makes them.
    #[serde(skip)]
    variations: Option<Box<Rules>>,
}

impl Rules {
    /// Checks `params` against these rules and fills in the defaults. Also returns the parameters that
    /// were left out under [`Unsupported::Drop`].
    ///
    /// # Errors
    /// The first [`Violation`], in the order of [`Parameter::ALL`], cross-field rules last.
    pub fn check(
        &self,
        params: &Params,
        unsupported: Unsupported,
    ) -> Result<(ImageRequest, Vec<Parameter>), Violation> {
        let mut check = Check {
            rules: self,
            params,
            unsupported,
            dropped: Vec::new(),
        };
        // In the order of `Parameter::ALL`.
        let request = ImageRequest {
            prompt: check
                .optional(Parameter::Prompt, self.prompt.as_ref())?
                .unwrap_or_default(),
            n: check
                .required(Parameter::N, &self.n)?
                .map_or(NonZeroU8::MIN, |set| set.value),
            size: check.size()?,
            quality: check
                .optional(Parameter::Quality, self.quality.as_ref())?
                .flatten(),
            response_format: check
                .required(Parameter::ResponseFormat, &self.response_format)?
                .map_or(ResponseFormat::Url, |set| set.value),
            style: check
                .optional(Parameter::Style, self.style.as_ref())?
                .flatten(),
            background: check
                .optional(Parameter::Background, self.background.as_ref())?
                .flatten(),
            output_format: check
                .optional(Parameter::OutputFormat, self.output_format.as_ref())?
                .flatten(),
            output_compression: check
                .optional(
                    Parameter::OutputCompression,
                    self.output_compression.as_ref(),
                )?
                .flatten(),
            moderation: check
                .optional(Parameter::Moderation, self.moderation.as_ref())?
                .flatten(),
            input_fidelity: check
                .optional(Parameter::InputFidelity, self.input_fidelity.as_ref())?
                .flatten(),
            stream: check
                .optional(Parameter::Stream, self.stream.as_ref())?
                .unwrap_or_default(),
            partial_images: check
                .optional(Parameter::PartialImages, self.partial_images.as_ref())?
                .flatten(),
            complexity: check
                .optional(Parameter::Complexity, self.complexity.as_ref())?
                .flatten(),
            frame_count: check
                .optional(Parameter::FrameCount, self.frame_count.as_ref())?
                .flatten(),
            frame_duration_ms: check
                .optional(Parameter::FrameDurationMs, self.frame_duration_ms.as_ref())?
                .flatten(),
            svg: check.optional(Parameter::Svg, self.svg.as_ref())?.flatten(),
            negative_prompt: check
                .optional(Parameter::NegativePrompt, self.negative_prompt.as_ref())?
                .flatten()
                .filter(|text| !text.is_empty()),
            seed: check
                .optional(Parameter::Seed, self.seed.as_ref())?
                .flatten(),
            style_preset: check
                .optional(Parameter::StylePreset, self.style_preset.as_ref())?
                .flatten(),
            cfg_scale: check
                .optional(Parameter::CfgScale, self.cfg_scale.as_ref())?
                .flatten(),
            strength: check
                .optional(Parameter::Strength, self.strength.as_ref())?
                .flatten(),
            grow_mask: check
                .optional(Parameter::GrowMask, self.grow_mask.as_ref())?
                .flatten(),
            safety_identifier: check
                .optional(Parameter::SafetyIdentifier, self.safety_identifier.as_ref())?
                .flatten(),
            user: check
                .optional(Parameter::User, self.user.as_ref())?
                .flatten(),
        };
        for rule in &self.cross {
            rule.check(params, &request)?;
        }
        Ok((request, check.dropped))
    }

    /// Checks the pictures of a request that has passed [`Rules::check`].
    ///
    /// # Errors
    /// The first [`Violation`]. Nothing of a picture can be left out: an edit without its mask would be
    /// another one.
    pub fn check_pictures(
        &self,
        pictures: &InputPictures<'_>,
        params: &Params,
        request: &ImageRequest,
    ) -> Result<(), Violation> {
        if let Some(images) = &self.images {
            images.check(pictures.images)?;
            images.check_asked(pictures.images, request.size.value)?;
        }
        match (&self.mask, pictures.mask) {
            (None, None) => Ok(()),
            (Some(rule), None) => rule.check_absence(pictures.images.first(), params),
            (Some(rule), Some(mask)) => rule.check(mask, pictures.images.first(), params, request),
            (None, Some(_)) => Err(Violation::named(
                "mask",
                "unsupported_parameter",
                "Unsupported parameter: 'mask'. This model edits without a mask.".to_owned(),
            )),
        }?;
        match &self.images {
            Some(images) => images.check_total(pictures),
            None => Ok(()),
        }
    }

    /// `supported_parameters` of `/v1/models`: values, range and default of each parameter, and under
    /// `conditions` what holds only together with other parameters. What only edits or variations take says
    /// so under `endpoints`; where they have another rule than generations, it stands under their name, and is
    /// `null` for what they do not take.
    pub fn to_json(&self) -> Json {
        let mut parameters = self.own_json();
        let tasks = [("edits", &self.edits), ("variations", &self.variations)];
        for (task, rules) in tasks {
            let Some(rules) = rules.as_deref() else {
                continue;
            };
            for (name, rule) in self.difference(rules) {
                match parameters.get_mut(&name) {
                    None => {
                        let mut rule = rule;
                        rule["endpoints"] = json!([task]);
                        parameters.insert(name, rule);
                    }
                    Some(known) => match known.get_mut("endpoints") {
                        Some(Json::Array(endpoints)) => endpoints.push(json!(task)),
                        _ => known[task] = rule,
                    },
                }
            }
        }
        Json::Object(parameters)
    }

    /// These rules as they are for who cannot have vector pictures.
    pub fn without_vectors(&self) -> Cow<'_, Self> {
        let has_vectors = self
            .output_format
            .as_ref()
            .is_some_and(|formats| formats.values.contains(&OutputFormat::Svg));
        if !has_vectors {
            return Cow::Borrowed(self);
        }
        let without = |task: &Option<Box<Self>>| {
            let rules = task.as_deref()?.without_vectors().into_owned();
            Some(Box::new(rules))
        };
        let mut rules = Self {
            svg: None,
            edits: without(&self.edits),
            variations: without(&self.variations),
            ..self.clone()
        };
        if let Some(formats) = &mut rules.output_format {
            formats.values.retain(|format| *format != OutputFormat::Svg);
        }
        rules.cross.retain(|cross| !cross.is_about_vectors());
        Cow::Owned(rules)
    }

    fn own_json(&self) -> Map<String, Json> {
        let described = |parameter: Parameter, rule: &dyn Describe| {
            let mut described = rule.describe();
            let conditions: Vec<String> = self
                .cross
                .iter()
                .filter(|cross| cross.parameter() == parameter)
                .map(CrossRule::sentence)
                .collect();
            if !conditions.is_empty() {
                described["conditions"] = json!(conditions);
            }
            described
        };
        let mut parameters: Map<String, Json> = self
            .taken()
            .map(|(parameter, rule)| (parameter.as_str().to_owned(), described(parameter, rule)))
            .collect();
        if let Some(images) = &self.images {
            parameters.insert("image".to_owned(), images.describe());
        }
        if let Some(mask) = &self.mask {
            parameters.insert("mask".to_owned(), mask.describe());
        }
        parameters
    }

    /// What another endpoint of the same model has another rule for, or (`null`) does not take.
    fn difference(&self, other: &Self) -> Map<String, Json> {
        let (ours, mut theirs) = (self.own_json(), other.own_json());
        theirs.retain(|name, rule| ours.get(name) != Some(rule));
        let is_gone = |name: &&String| {
            Parameter::from_name(name).is_some_and(|parameter| !other.takes(parameter))
        };
        let gone = ours.keys().filter(is_gone);
        theirs.extend(gone.map(|name| (name.clone(), Json::Null)));
        theirs
    }

    /// The rules of edits; `None` when the model paints from text alone.
    pub fn edits(&self) -> Option<&Self> {
        self.edits.as_deref()
    }

    /// The rules of variations; `None` when the model makes none.
    pub fn variations(&self) -> Option<&Self> {
        self.variations.as_deref()
    }

    /// Whether edits can have a mask.
    pub fn takes_mask(&self) -> bool {
        self.edits().is_some_and(|edits| edits.mask.is_some())
    }

    /// What pictures the model takes in; `None` when it paints from text alone.
    pub fn input_images(&self) -> Option<&InputImages> {
        self.edits()?.images.as_ref()
    }

    /// Whether the model takes this parameter at all.
    pub fn takes(&self, parameter: Parameter) -> bool {
        self.rule(parameter).is_some()
    }

    /// The refusal of a name that is no parameter of this model, in the words of [`Rules::check`]; for
    /// callers that meet names which are no [`Parameter`] at all.
    pub fn unknown_parameter(&self, name: &str) -> Violation {
        let taken: Vec<&str> = self
            .taken()
            .map(|(parameter, _)| parameter.as_str())
            .collect();
        Violation::unknown_parameter(name, &taken)
    }

    pub(super) fn size(&self) -> &SizeRule {
        &self.size
    }

    /// The qualities that can be asked for; none when the model knows no quality.
    pub(super) fn qualities(&self) -> &[Quality] {
        self.quality.as_ref().map_or(&[], |rule| &rule.values)
    }

    /// The quality that holds when none is asked for.
    pub(super) fn default_quality(&self) -> Option<Quality> {
        self.quality.as_ref().and_then(|rule| rule.default)
    }

    /// The rules as they are worked with: checked, and with those of edits and variations worked out.
    pub(super) fn complete(self) -> Result<Self, String> {
        if self.prompt.is_none() {
            return Err("missing key 'prompt' in [model.rules]".to_owned());
        }
        self.validate()?;
        let task = |name: &str, file: Option<Box<TaskRules>>| {
            let rules = file.map(|file| file.over(&self)).transpose();
            rules
                .map(|rules| rules.map(Box::new))
                .map_err(|problem| format!("[model.rules.{name}]: {problem}"))
        };
        let edits = task("edits", self.edits_file.clone())?;
        let variations = task("variations", self.variations_file.clone())?;
        Ok(Self {
            edits,
            variations,
            edits_file: None,
            variations_file: None,
            ..self
        })
    }

    /// Refuses rules that contradict themselves.
    fn validate(&self) -> Result<(), String> {
        for (parameter, rule) in self.taken() {
            rule.validate()
                .map_err(|problem| format!("rule '{}': {problem}", parameter.as_str()))?;
        }
        if let Some(images) = &self.images {
            images.validate()?;
        }
        let beside_a_mask = self.mask.iter().flat_map(MaskRule::parameters);
        if let Some(stranger) = beside_a_mask.into_iter().find(|other| !self.takes(*other)) {
            return Err(format!(
                "the mask's rule speaks of '{}', for which there is no rule",
                stranger.as_str()
            ));
        }
        let ratios = self.aspect_ratio.iter().flat_map(|rule| &rule.values);
        let sizes: Vec<SizeChoice> = self.size.choices().collect();
        if let Some(ratio) = ratios
            .into_iter()
            .find(|ratio| !sizes.contains(&SizeChoice::Ratio(**ratio)))
        {
            return Err(format!(
                "rule 'aspect_ratio': '{ratio}' is not among the sizes"
            ));
        }
        if let Some(mask) = &self.mask
            && let Some(stranger) = mask.parameters().find(|other| !self.takes(*other))
        {
            return Err(format!(
                "the mask's rule speaks of '{}', for which there is no rule",
                stranger.as_str()
            ));
        }
        for cross in &self.cross {
            if let Some(stranger) = cross.parameters().find(|other| !self.takes(*other)) {
                return Err(format!(
                    "a cross-field rule of '{}' speaks of '{}', for which there is no rule",
                    cross.parameter().as_str(),
                    stranger.as_str()
                ));
            }
        }
        Ok(())
    }

    fn taken(&self) -> impl Iterator<Item = (Parameter, &dyn Describe)> {
        Parameter::ALL
            .iter()
            .filter_map(|&parameter| Some((parameter, self.rule(parameter)?)))
    }

    fn rule(&self, parameter: Parameter) -> Option<&dyn Describe> {
        fn describe<R: Describe>(rule: Option<&R>) -> Option<&dyn Describe> {
            rule.map(|rule| rule as &dyn Describe)
        }
        match parameter {
            Parameter::Prompt => describe(self.prompt.as_ref()),
            Parameter::N => Some(&self.n),
            Parameter::Size => Some(&self.size),
            Parameter::AspectRatio => describe(self.aspect_ratio.as_ref()),
            Parameter::Quality => describe(self.quality.as_ref()),
            Parameter::ResponseFormat => Some(&self.response_format),
            Parameter::Style => describe(self.style.as_ref()),
            Parameter::Background => describe(self.background.as_ref()),
            Parameter::OutputFormat => describe(self.output_format.as_ref()),
            Parameter::OutputCompression => describe(self.output_compression.as_ref()),
            Parameter::Moderation => describe(self.moderation.as_ref()),
            Parameter::InputFidelity => describe(self.input_fidelity.as_ref()),
            Parameter::Stream => describe(self.stream.as_ref()),
            Parameter::PartialImages => describe(self.partial_images.as_ref()),
            Parameter::Complexity => describe(self.complexity.as_ref()),
            Parameter::FrameCount => describe(self.frame_count.as_ref()),
            Parameter::FrameDurationMs => describe(self.frame_duration_ms.as_ref()),
            Parameter::Svg => describe(self.svg.as_ref()),
            Parameter::NegativePrompt => describe(self.negative_prompt.as_ref()),
            Parameter::Seed => describe(self.seed.as_ref()),
            Parameter::StylePreset => describe(self.style_preset.as_ref()),
            Parameter::CfgScale => describe(self.cfg_scale.as_ref()),
            Parameter::Strength => describe(self.strength.as_ref()),
            Parameter::GrowMask => describe(self.grow_mask.as_ref()),
            Parameter::SafetyIdentifier => describe(self.safety_identifier.as_ref()),
            Parameter::User => describe(self.user.as_ref()),
        }
    }
}

/// One run of [`Rules::check`].
struct Check<'a> {
    rules: &'a Rules,
    params: &'a Params,
    unsupported: Unsupported,
    dropped: Vec<Parameter>,
}

impl Check<'_> {
    fn required<R: Rule>(&self, parameter: Parameter, rule: &R) -> Result<R::Checked, Violation> {
        rule.check(parameter, self.params.get(&parameter))
    }

    /// The size, or the ratio that was given in its place.
    fn size(&mut self) -> Result<Setting<SizeChoice>, Violation> {
        let size = self.required(Parameter::Size, &self.rules.size)?;
        let ratio = self
            .optional(Parameter::AspectRatio, self.rules.aspect_ratio.as_ref())?
            .flatten();
        match ratio {
            Some(ratio) if size.given => Err(Violation::combination(
                Parameter::AspectRatio,
                &format!("'{}'", ratio.value),
                "It says the same as 'size', which is given too: leave one of them out.",
            )),
            Some(ratio) => Ok(Setting {
                value: SizeChoice::Ratio(ratio.value),
                given: ratio.given,
            }),
            None => Ok(size),
        }
    }

    fn optional<R: Rule>(
        &mut self,
        parameter: Parameter,
        rule: Option<&R>,
    ) -> Result<Option<R::Checked>, Violation> {
        if let Some(rule) = rule {
            return self.required(parameter, rule).map(Some);
        }
        if self.params.contains_key(&parameter) {
            match self.unsupported {
                Unsupported::Reject
                    if parameter == Parameter::InputFidelity && self.rules.images.is_some() =>
                {
                    return Err(Violation::no_input_fidelity());
                }
                Unsupported::Reject => {
                    return Err(self.rules.unknown_parameter(parameter.as_str()));
                }
                Unsupported::Drop => self.dropped.push(parameter),
            }
        }
        Ok(None)
    }
}
