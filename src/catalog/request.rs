//! A request on its way through the rules: [`Params`] is what the client wrote, typed;
//! [`ImageRequest`] is what is left once a model's rules have passed it.

use std::{collections::BTreeMap, num::NonZeroU8};

use super::{
    decimal::Decimal,
    vocabulary::{
        Background, Complexity, ImageSize, InputFidelity, Moderation, OutputFormat, Quality,
        ResponseFormat, SizeChoice, Style, StylePreset,
    },
};

/// Every parameter of the image endpoints that a model can have a rule for.
/// (`model` and `provider` choose the model and its routes, so they are not among them.)
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// What to paint.
    Prompt,
    /// How many pictures.
    N,
    /// Width and height.
    Size,
    /// Their ratio alone, where the provider knows no pixels.
    AspectRatio,
    /// How much work goes into a picture.
    Quality,
    /// `url` or `b64_json`.
    ResponseFormat,
    /// DALL·E 3's mood.
    Style,
    /// Opaque or transparent.
    Background,
    /// The file format.
    OutputFormat,
    /// 0 to 100, for lossy formats.
    OutputCompression,
    /// How strictly the provider moderates.
    Moderation,
    /// How closely an edit keeps to the pictures it is made from.
    InputFidelity,
    /// Answer as server-sent events.
    Stream,
    /// How many unfinished pictures a stream shows.
    PartialImages,
    /// How much planning goes before painting.
    Complexity,
    /// Frames of an animated picture.
    FrameCount,
    /// How long each frame stands.
    FrameDurationMs,
    /// Options of a vector picture.
    Svg,
    /// What the picture must not show.
    NegativePrompt,
    /// Where the randomness begins.
    Seed,
    /// A look by name.
    StylePreset,
    /// How closely the picture follows the prompt.
    CfgScale,
    /// How far an edit may go from the picture it is made from, 0 to 1.
    Strength,
    /// By how many pixels the edges of a mask are moved outwards.
    GrowMask,
    /// A stable name of the end user, for the provider's safety team.
    SafetyIdentifier,
    /// The older form of `safety_identifier`.
    User,
}

/// The JSON type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A string.
    Text,
    /// A whole number.
    Integer,
    /// A number, whole or not.
    Decimal,
    /// `true` or `false`.
    Flag,
    /// The `svg` object.
    Svg,
}

impl Parameter {
    /// All of them, in the order in which listings show them.
    pub const ALL: &'static [Self] = &[
        Self::Prompt,
        Self::N,
        Self::Size,
        Self::AspectRatio,
        Self::Quality,
        Self::ResponseFormat,
        Self::Style,
        Self::Background,
        Self::OutputFormat,
        Self::OutputCompression,
        Self::Moderation,
        Self::InputFidelity,
        Self::Stream,
        Self::PartialImages,
        Self::Complexity,
        Self::FrameCount,
        Self::FrameDurationMs,
        Self::Svg,
        Self::NegativePrompt,
        Self::Seed,
        Self::StylePreset,
        Self::CfgScale,
        Self::Strength,
        Self::GrowMask,
        Self::SafetyIdentifier,
        Self::User,
    ];

    /// The name in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::N => "n",
            Self::Size => "size",
            Self::AspectRatio => "aspect_ratio",
            Self::Quality => "quality",
            Self::ResponseFormat => "response_format",
            Self::Style => "style",
            Self::Background => "background",
            Self::OutputFormat => "output_format",
            Self::OutputCompression => "output_compression",
            Self::Moderation => "moderation",
            Self::InputFidelity => "input_fidelity",
            Self::Stream => "stream",
            Self::PartialImages => "partial_images",
            Self::Complexity => "complexity",
            Self::FrameCount => "frame_count",
            Self::FrameDurationMs => "frame_duration_ms",
            Self::Svg => "svg",
            Self::NegativePrompt => "negative_prompt",
            Self::Seed => "seed",
            Self::StylePreset => "style_preset",
            Self::CfgScale => "cfg_scale",
            Self::Strength => "strength",
            Self::GrowMask => "grow_mask",
            Self::SafetyIdentifier => "safety_identifier",
            Self::User => "user",
        }
    }

    /// The parameter of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|parameter| parameter.as_str() == name)
    }

    /// What JSON type its value has.
    pub const fn kind(self) -> ParameterKind {
        match self {
            Self::Prompt
            | Self::Size
            | Self::AspectRatio
            | Self::Quality
            | Self::ResponseFormat
            | Self::Style
            | Self::Background
            | Self::OutputFormat
            | Self::Moderation
            | Self::InputFidelity
            | Self::Complexity
            | Self::NegativePrompt
            | Self::StylePreset
            | Self::SafetyIdentifier
            | Self::User => ParameterKind::Text,
            Self::N
            | Self::OutputCompression
            | Self::PartialImages
            | Self::FrameCount
            | Self::FrameDurationMs
            | Self::Seed
            | Self::GrowMask => ParameterKind::Integer,
            Self::CfgScale | Self::Strength => ParameterKind::Decimal,
            Self::Stream => ParameterKind::Flag,
            Self::Svg => ParameterKind::Svg,
        }
    }
}

/// A value of the right JSON type, not yet checked against any model.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number, whole or not.
    Decimal(Decimal),
    /// `true` or `false`.
    Flag(bool),
    /// The `svg` object.
    Svg(SvgOptions),
}

/// Options of a vector picture (`contracts/openai-images.md`, 1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvgOptions {
    /// The model that writes the SVG.
    pub model: String,
    /// `reasoning.effort`, one of `none minimal low medium high xhigh max`; already checked.
    pub effort: Option<String>,
}

/// What the client gave: only what was there and not null.
pub type Params = BTreeMap<Parameter, Value>;

/// A value together with whether the client asked for it or the model's default filled it in.
/// Adapters send what was given; prices and answers look at the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<T> {
    /// What holds.
    pub value: T,
    /// Whether the client wrote it.
    pub given: bool,
}

impl<T: Copy> Setting<T> {
    /// The value if the client wrote it.
    pub fn if_given(self) -> Option<T> {
        self.given.then_some(self.value)
    }
}

/// One neutral request that has passed a model's rules. `None` means that the model has no such
/// parameter, or that it has no default and the client gave none.
///
/// No `Debug`: it holds the prompt (I10).
#[derive(Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// What to paint; within the model's limit of characters. Empty only where nothing but pictures is
    /// asked with (a variation).
    pub prompt: String,
    /// How many pictures.
    pub n: NonZeroU8,
    /// The size asked for, by its sides or by their ratio.
    pub size: Setting<SizeChoice>,
    /// The quality asked for.
    pub quality: Option<Setting<Quality>>,
    /// How the answer carries the pictures.
    pub response_format: ResponseFormat,
    /// DALL·E 3's mood.
    pub style: Option<Setting<Style>>,
    /// The background asked for.
    pub background: Option<Setting<Background>>,
    /// The file format asked for.
    pub output_format: Option<Setting<OutputFormat>>,
    /// 0 to 100.
    pub output_compression: Option<Setting<u8>>,
    /// How strictly the provider moderates.
    pub moderation: Option<Setting<Moderation>>,
    /// How closely an edit keeps to the pictures it is made from.
    pub input_fidelity: Option<Setting<InputFidelity>>,
    /// Answer as server-sent events.
    pub stream: bool,
    /// How many unfinished pictures a stream shows.
    pub partial_images: Option<Setting<u8>>,
    /// How much planning goes before painting.
    pub complexity: Option<Setting<Complexity>>,
    /// Frames of an animated picture.
    pub frame_count: Option<Setting<u8>>,
    /// How long each frame stands.
    pub frame_duration_ms: Option<Setting<u32>>,
    /// Options of a vector picture.
    pub svg: Option<SvgOptions>,
    /// What the picture must not show.
    pub negative_prompt: Option<String>,
    /// Where the randomness begins; 0 leaves it to the provider.
    pub seed: Option<Setting<u32>>,
    /// A look by name.
    pub style_preset: Option<Setting<StylePreset>>,
    /// How closely the picture follows the prompt.
    pub cfg_scale: Option<Setting<Decimal>>,
    /// How far an edit may go from the picture it is made from, 0 to 1.
    pub strength: Option<Setting<Decimal>>,
    /// By how many pixels the edges of a mask are moved outwards.
    pub grow_mask: Option<Setting<u8>>,
    /// The end user's stable name.
    pub safety_identifier: Option<String>,
    /// The older form of it.
    pub user: Option<String>,
}

/// Tokens as the provider reported them. Cached tokens are part of the inputs, not added to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Text tokens in, cached ones included.
    pub input_text: u64,
    /// Image tokens in, cached ones included.
    pub input_image: u64,
    /// Of `input_text`, how many were cached.
    pub cached_text: u64,
    /// Of `input_image`, how many were cached.
    pub cached_image: u64,
    /// Text tokens out (thinking included).
    pub output_text: u64,
    /// Image tokens out.
    pub output_image: u64,
}

/// What arrived, as far as the price depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// The real size of each picture that arrived whole.
    pub sizes: &'a [ImageSize],
    /// How many pictures the reported usage covers, broken ones included; at least `sizes.len()`.
    pub announced: usize,
    /// The usage the provider reported, if it did.
    pub usage: Option<&'a TokenUsage>,
    /// The quality the provider says it painted in, if it does.
    pub quality: Option<Quality>,
    /// How many partial pictures came, of all of them together.
    pub partial_images: usize,
}
