//! What edits and variations take: the rules of generations, with what differs said in
//! `[model.rules.edits]` and `[model.rules.variations]`.

use std::num::NonZeroU8;

use serde::Deserialize;

use super::{
    Rules,
    cross::CrossRule,
    parameter::{DecimalRule, FlagRule, IntegerRule, PromptRule, SvgRule, TextRule, WordRule},
    pictures::{InputImages, MaskRule},
    size::SizeRule,
};
use crate::catalog::{
    ratio::Ratio,
    request::Parameter,
    vocabulary::{
        Background, Complexity, InputFidelity, Moderation, OutputFormat, Quality, ResponseFormat,
        Style, StylePreset,
    },
};

/// `[model.rules.edits]` or `[model.rules.variations]`. A rule here replaces that of generations, `without`
/// takes rules away, and what is not mentioned holds as it stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskRules {
    images: InputImages,
    /// Absent: no mask.
    mask: Option<MaskRule>,
    /// Parameters of generations that this does not take.
    #[serde(default)]
    without: Vec<Parameter>,
    prompt: Option<PromptRule>,
    n: Option<IntegerRule<NonZeroU8>>,
    size: Option<SizeRule>,
    aspect_ratio: Option<WordRule<Ratio>>,
    quality: Option<WordRule<Quality>>,
    response_format: Option<WordRule<ResponseFormat>>,
    style: Option<WordRule<Style>>,
    background: Option<WordRule<Background>>,
    output_format: Option<WordRule<OutputFormat>>,
    output_compression: Option<IntegerRule<u8>>,
    moderation: Option<WordRule<Moderation>>,
    input_fidelity: Option<WordRule<InputFidelity>>,
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
    strength: Option<DecimalRule>,
    grow_mask: Option<IntegerRule<u8>>,
    safety_identifier: Option<TextRule>,
    user: Option<TextRule>,
    /// Rules across parameters, beside those of generations.
    #[serde(default)]
    cross: Vec<CrossRule>,
}

impl TaskRules {
    /// The complete rules of this task for a model whose generations have `base`.
    pub(super) fn over(self, base: &Rules) -> Result<Rules, String> {
        let mut rules = base.clone();
        rules.edits = None;
        rules.variations = None;
        rules.edits_file = None;
        rules.variations_file = None;
        for parameter in &self.without {
            rules.take_away(*parameter)?;
        }
        let gone = |parameter: Parameter| self.without.contains(&parameter);
        rules.cross.retain(|cross| !cross.parameters().any(gone));
        rules.cross.extend(self.cross);

        rules.n = self.n.unwrap_or(rules.n);
        rules.size = self.size.unwrap_or(rules.size);
        rules.response_format = self.response_format.unwrap_or(rules.response_format);
        or_before(self.prompt, &mut rules.prompt);
        or_before(self.aspect_ratio, &mut rules.aspect_ratio);
        or_before(self.quality, &mut rules.quality);
        or_before(self.style, &mut rules.style);
        or_before(self.background, &mut rules.background);
        or_before(self.output_format, &mut rules.output_format);
        or_before(self.output_compression, &mut rules.output_compression);
        or_before(self.moderation, &mut rules.moderation);
        or_before(self.input_fidelity, &mut rules.input_fidelity);
        or_before(self.stream, &mut rules.stream);
        or_before(self.partial_images, &mut rules.partial_images);
        or_before(self.complexity, &mut rules.complexity);
        or_before(self.frame_count, &mut rules.frame_count);
        or_before(self.frame_duration_ms, &mut rules.frame_duration_ms);
        or_before(self.svg, &mut rules.svg);
        or_before(self.negative_prompt, &mut rules.negative_prompt);
        or_before(self.seed, &mut rules.seed);
        or_before(self.style_preset, &mut rules.style_preset);
        or_before(self.cfg_scale, &mut rules.cfg_scale);
        or_before(self.strength, &mut rules.strength);
        or_before(self.grow_mask, &mut rules.grow_mask);
        or_before(self.safety_identifier, &mut rules.safety_identifier);
        or_before(self.user, &mut rules.user);
        rules.images = Some(self.images);
        rules.mask = self.mask;
        rules.validate()?;
        Ok(rules)
    }
}

/// What is said here, or what was there.
fn or_before<R>(own: Option<R>, before: &mut Option<R>) {
    if own.is_some() {
        *before = own;
    }
}

impl Rules {
    fn take_away(&mut self, parameter: Parameter) -> Result<(), String> {
        if !self.takes(parameter) {
            return Err(format!(
                "'without' names '{}', for which there is no rule",
                parameter.as_str()
            ));
        }
        match parameter {
            Parameter::N | Parameter::Size | Parameter::ResponseFormat => {
                return Err(format!("'without' cannot name '{}'", parameter.as_str()));
            }
            Parameter::Prompt => self.prompt = None,
            Parameter::AspectRatio => self.aspect_ratio = None,
            Parameter::Quality => self.quality = None,
            Parameter::Style => self.style = None,
            Parameter::Background => self.background = None,
            Parameter::OutputFormat => self.output_format = None,
            Parameter::OutputCompression => self.output_compression = None,
            Parameter::Moderation => self.moderation = None,
            Parameter::InputFidelity => self.input_fidelity = None,
            Parameter::Stream => self.stream = None,
            Parameter::PartialImages => self.partial_images = None,
            Parameter::Complexity => self.complexity = None,
            Parameter::FrameCount => self.frame_count = None,
            Parameter::FrameDurationMs => self.frame_duration_ms = None,
            Parameter::Svg => self.svg = None,
            Parameter::NegativePrompt => self.negative_prompt = None,
            Parameter::Seed => self.seed = None,
            Parameter::StylePreset => self.style_preset = None,
            Parameter::CfgScale => self.cfg_scale = None,
            Parameter::Strength => self.strength = None,
            Parameter::GrowMask => self.grow_mask = None,
            Parameter::SafetyIdentifier => self.safety_identifier = None,
            Parameter::User => self.user = None,
        }
        Ok(())
    }
}
