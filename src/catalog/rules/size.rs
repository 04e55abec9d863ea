//! The size: listed sizes, free sizes within limits, and sizes near a listed aspect ratio.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    parameter::{Describe, Rule, validate_list},
    violation::{Violation, joined_list, quoted_list},
};
use crate::catalog::{
    ratio::Ratio,
    request::{Parameter, Setting, Value},
    vocabulary::{ImageSize, SizeChoice},
};

/// Sizes are written with at most five digits a side.
const MAX_EDGE: NonZeroU32 = NonZeroU32::new(99_999).unwrap();

/// What sizes a model takes: those listed, and whatever else `free` or `ratios` let through.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::catalog) struct SizeRule {
    values: Vec<SizeChoice>,
    default: SizeChoice,
    free: Option<FreeSizes>,
    ratios: Option<RatioSizes>,
    /// The code of a refusal, where it is not that of all parameters.
    code: Option<SizeCode>,
}

/// A code that clients of some models branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SizeCode {
    /// DALL·E 3's (`contracts/openai-images.md`, section 6).
    InvalidSize,
}

impl SizeCode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSize => "invalid_size",
        }
    }
}

/// Any size within limits (`contracts/openai-images.md`, 1.2; `contracts/replicate.md`, 2.5).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::catalog) struct FreeSizes {
    /// Both sides are multiples of this many pixels.
    multiple_of: NonZeroU32,
    /// The shortest side allowed.
    min_edge: Option<NonZeroU32>,
    /// The longest side allowed.
    max_edge: NonZeroU32,
    /// The fewest pixels in all.
    min_pixels: u64,
    /// The most pixels in all.
    max_pixels: u64,
    /// The longer side is at most this many times the shorter.
    max_ratio: Ratio,
}

/// Any size whose shape is near a listed ratio, for providers that know no pixels
/// (`contracts/stability.md`, 7.2; `contracts/google-imagen.md`, 7.2).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::catalog) struct RatioSizes {
    values: Vec<Ratio>,
    /// How far off the listed ratio a size may be, in percent of it.
    tolerance_percent: u32,
    /// Sizes of such a shape that are refused all the same: clients that ask for one of these mean so many pixels.
    #[serde(default)]
    except: Vec<ImageSize>,
    /// A size of fewer pixels is refused: the provider would paint a larger one. Absent: none is.
    min_pixels: Option<u64>,
    /// A size of more pixels is refused: the provider would paint a smaller one. Absent: none is.
    max_pixels: Option<u64>,
}

impl SizeRule {
    /// The sizes listed by name, without `auto`.
    pub(in crate::catalog) fn listed(&self) -> impl Iterator<Item = ImageSize> {
        self.values.iter().filter_map(|choice| choice.exact())
    }

    /// Everything listed by name.
    pub(in crate::catalog) fn choices(&self) -> impl Iterator<Item = SizeChoice> {
        self.values.iter().copied()
    }

    /// Whether `auto` may be asked for, or holds when nothing is.
    pub(in crate::catalog) fn takes_auto(&self) -> bool {
        self.values.contains(&SizeChoice::Auto)
    }

    /// What holds when nothing is asked for.
    pub(in crate::catalog) fn default(&self) -> SizeChoice {
        self.default
    }

    /// The limits of sizes that are not listed.
    pub(in crate::catalog) fn free(&self) -> Option<&FreeSizes> {
        self.free.as_ref()
    }

    /// The most pixels of any size that passes.
    pub(in crate::catalog) fn max_pixels(&self) -> u64 {
        self.listed()
            .map(ImageSize::pixels)
            .chain(self.free.as_ref().map(|free| free.max_pixels))
            .chain(self.ratios.as_ref().map(RatioSizes::max_pixels))
            .max()
            .unwrap_or_default()
    }

    /// Whether sizes pass that are not listed.
    pub(in crate::catalog) fn is_open(&self) -> bool {
        self.free.is_some() || self.ratios.is_some()
    }

    fn allows(&self, size: ImageSize) -> bool {
        self.values.contains(&SizeChoice::Exact(size))
            || self.free.as_ref().is_some_and(|free| free.allows(size))
            || self.ratios.as_ref().is_some_and(|near| near.allows(size))
    }

    fn supported(&self) -> String {
        let mut parts: Vec<String> = self
            .values
            .iter()
            .map(|choice| format!("'{choice}'"))
            .collect();
        parts.extend(self.free.as_ref().map(FreeSizes::sentence));
        parts.extend(self.ratios.as_ref().map(RatioSizes::sentence));
        joined_list(&parts, "and")
    }
}

impl Rule for SizeRule {
    type Checked = Setting<SizeChoice>;

    fn check(
        &self,
        parameter: Parameter,
        given: Option<&Value>,
    ) -> Result<Self::Checked, Violation> {
        match given {
            None => Ok(Setting {
                value: self.default,
                given: false,
            }),
            Some(Value::Text(text)) => text
                .parse()
                .ok()
                .filter(|choice| match choice {
                    SizeChoice::Auto | SizeChoice::Ratio(_) => self.values.contains(choice),
                    SizeChoice::Exact(size) => self.allows(*size),
                })
                .map(|value| Setting { value, given: true })
                .ok_or_else(|| {
                    let refused = Violation::unsupported_value(parameter, text, &self.supported());
                    let code = self.code.map_or(refused.code, SizeCode::as_str);
                    Violation { code, ..refused }
                }),
            Some(other) => Err(Violation::wrong_type(parameter, "a string", other)),
        }
    }
}

impl Describe for SizeRule {
    fn describe(&self) -> Json {
        let words = |choices: &[SizeChoice]| -> Vec<String> {
            choices.iter().map(ToString::to_string).collect()
        };
        let mut described = json!({
            "type": "string",
            "values": words(&self.values),
            "default": self.default.to_string(),
        });
        if let Some(free) = &self.free {
            described["free"] = json!({
                "multiple_of": free.multiple_of,
                "min_edge": free.min_edge(),
                "max_edge": free.max_edge,
                "min_pixels": free.min_pixels,
                "max_pixels": free.max_pixels,
                "max_ratio": free.max_ratio.to_string(),
            });
        }
        if let Some(near) = &self.ratios {
            described["ratios"] = json!({
                "values": near.values.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tolerance_percent": near.tolerance_percent,
            });
            let described = &mut described["ratios"];
            if !near.except.is_empty() {
                let except = near.except.iter().map(ToString::to_string);
                described["except"] = except.collect();
            }
            for (name, pixels) in [
                ("min_pixels", near.min_pixels),
                ("max_pixels", near.max_pixels),
            ] {
                if let Some(pixels) = pixels {
                    described[name] = pixels.into();
                }
            }
        }
        described
    }

    fn validate(&self) -> Result<(), String> {
        validate_list(&self.values)?;
        let legal = match self.default {
            SizeChoice::Auto | SizeChoice::Ratio(_) => self.values.contains(&self.default),
            SizeChoice::Exact(size) => self.allows(size),
        };
        if !legal {
            return Err(format!(
                "the default '{}' is not among {}",
                self.default,
                self.supported()
            ));
        }
        if let Some(free) = &self.free
            && free.max_edge > MAX_EDGE
        {
            return Err(format!(
                "max_edge is above {MAX_EDGE}, the longest side that can be written"
            ));
        }
        if let Some(free) = &self.free
            && (free.min_pixels > free.max_pixels || free.min_edge() > free.max_edge)
        {
            return Err("the limits of the free sizes let nothing through".to_owned());
        }
        match &self.ratios {
            Some(near) => validate_list(&near.values),
            None => Ok(()),
        }
    }
}

impl FreeSizes {
    fn min_edge(&self) -> NonZeroU32 {
        self.min_edge.unwrap_or(self.multiple_of)
    }

    /// Whether `size` is within all limits.
    pub(in crate::catalog) fn allows(&self, size: ImageSize) -> bool {
        let edges = self.min_edge()..=self.max_edge;
        [size.width, size.height]
            .iter()
            .all(|edge| edge.get() % self.multiple_of == 0 && edges.contains(edge))
            && (self.min_pixels..=self.max_pixels).contains(&size.pixels())
            && self.max_ratio.contains(size)
    }

    /// For every edge that the longer side can have, the size with the longest shorter side.
    pub(in crate::catalog) fn fullest(&self) -> impl Iterator<Item = ImageSize> {
        let step = self.multiple_of.get();
        (1..=self.max_edge.get() / step).filter_map(move |steps| {
            let long = steps * step;
            let room = self.max_pixels / u64::from(long);
            let short = u32::try_from(room).map_or(long, |room| room.min(long)) / step * step;
            // The other limits are lower ones for the shorter side: where this one fails, so do all below.
            ImageSize::new(long, short).filter(|size| self.allows(*size))
        })
    }

    fn sentence(&self) -> String {
        let mut limits = Vec::new();
        if self.multiple_of.get() > 1 {
            limits.push(format!("both sides divisible by {}", self.multiple_of));
        }
        if let Some(min_edge) = self.min_edge {
            limits.push(format!("no side below {min_edge}"));
        }
        limits.push(format!("no side above {}", self.max_edge));
        limits.push(format!(
            "{} to {} pixels in all",
            self.min_pixels, self.max_pixels
        ));
        limits.push(format!("no slimmer than {}", self.max_ratio));
        format!("any WIDTHxHEIGHT with {}", joined_list(&limits, "and"))
    }
}

impl RatioSizes {
    fn max_pixels(&self) -> u64 {
        self.max_pixels.unwrap_or(u64::MAX)
    }

    fn allows(&self, size: ImageSize) -> bool {
        (self.min_pixels.unwrap_or_default()..=self.max_pixels()).contains(&size.pixels())
            && !self.except.contains(&size)
            && Ratio::nearest(&self.values, size, self.tolerance_percent).is_some()
    }

    fn sentence(&self) -> String {
        let pixels = match (self.min_pixels, self.max_pixels) {
            (None, None) => String::new(),
            (Some(min), None) => format!(" of at least {min} pixels"),
            (None, Some(max)) => format!(" of at most {max} pixels"),
            (Some(min), Some(max)) => format!(" of {min} to {max} pixels"),
        };
        let except = match self.except.as_slice() {
            [] => String::new(),
            sizes => format!(" but {}", quoted_list(sizes, "and")),
        };
        format!(
            "any WIDTHxHEIGHT{pixels} within {} % of {}{except}",
            self.tolerance_percent,
            quoted_list(&self.values, "or")
        )
    }
}
