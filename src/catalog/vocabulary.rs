//! The closed sets of words that requests, rules, prices and providers share.
//!
//! One enum a parameter; the text form is `OpenAI`'s (`contracts/openai-images.md`, section 1).

use std::{fmt, num::NonZeroU32, str::FromStr};

use super::ratio::Ratio;

/// Text that is not in a closed set, or not of a form such as `1024x1024`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not one of {allowed}")]
pub struct WordError {
    text: String,
    allowed: String,
}

impl WordError {
    pub(super) fn new(text: &str, allowed: &str) -> Self {
        Self {
            text: text.to_owned(),
            allowed: allowed.to_owned(),
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// Every word of the set, in its natural order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as it stands in requests, configuration and tables.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(WordError {
                        text: text.to_owned(),
                        allowed: [$($text),+].join(", "),
                    }),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": Self::ALL})
            }
        }
    };
}

words!(
    /// How much work goes into a picture.
    Quality {
        Auto = "auto", Standard = "standard", Hd = "hd", Low = "low", Medium = "medium",
        High = "high", Xhigh = "xhigh", Max = "max",
    }
);
words!(
    /// DALL·E 3's two moods.
    Style { Vivid = "vivid", Natural = "natural" }
);
words!(
    /// Whether the background shows through.
    Background { Auto = "auto", Transparent = "transparent", Opaque = "opaque" }
);
words!(
    /// How strictly the provider moderates.
    Moderation { Auto = "auto", Low = "low" }
);
words!(
    /// How closely an edit keeps to the pictures it is made from.
    InputFidelity { Low = "low", High = "high" }
);
words!(
    /// The file format of a picture.
    OutputFormat { Png = "png", Jpeg = "jpeg", Webp = "webp", Gif = "gif", Svg = "svg" }
);
words!(
    /// How the answer carries a picture.
    ResponseFormat { Url = "url", B64Json = "b64_json" }
);
words!(
    /// How much planning goes before painting.
    Complexity { Low = "low", Medium = "medium", High = "high" }
);

words!(
    /// Looks by name (`contracts/stability.md`, 2.2).
    StylePreset {
        Enhance = "enhance", Anime = "anime", Photographic = "photographic",
        DigitalArt = "digital-art", ComicBook = "comic-book", FantasyArt = "fantasy-art",
        LineArt = "line-art", AnalogFilm = "analog-film", NeonPunk = "neon-punk",
        Isometric = "isometric", LowPoly = "low-poly", Origami = "origami",
        ModelingCompound = "modeling-compound", Cinematic = "cinematic", ThreeDModel = "3d-model",
        PixelArt = "pixel-art", TileTexture = "tile-texture",
    }
);

/// Width and height in pixels; written `1024x1536`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageSize {
    /// Pixels from left to right.
    pub width: NonZeroU32,
    /// Pixels from top to bottom.
    pub height: NonZeroU32,
}

impl ImageSize {
    /// `None` when a side is zero.
    pub fn new(width: u32, height: u32) -> Option<Self> {
        Some(Self {
            width: NonZeroU32::new(width)?,
            height: NonZeroU32::new(height)?,
        })
    }

    /// Width times height; cannot overflow.
    pub fn pixels(self) -> u64 {
        u64::from(self.width.get()) * u64::from(self.height.get())
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.width, self.height)
    }
}

impl FromStr for ImageSize {
    type Err = WordError;

    /// Two plain decimals of at most five digits around an `x`.
    fn from_str(text: &str) -> Result<Self, WordError> {
        let side = |digits: &str| {
            let plain = (1..=5).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && !digits.starts_with('0');
            plain.then(|| digits.parse().ok()).flatten()
        };
        text.split_once('x')
            .and_then(|(width, height)| {
                Some(Self {
                    width: side(width)?,
                    height: side(height)?,
                })
            })
            .ok_or_else(|| WordError {
                text: text.to_owned(),
                allowed: "WIDTHxHEIGHT in pixels".to_owned(),
            })
    }
}

impl schemars::JsonSchema for ImageSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ImageSize".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[1-9][0-9]*x[1-9][0-9]*$"})
    }
}

impl serde::Serialize for ImageSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ImageSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The size asked for: one size, a shape of whatever size, or the provider's choice (`auto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SizeChoice {
    /// The provider decides.
    Auto,
    /// Exactly this.
    Exact(ImageSize),
    /// This shape; written `16:9`.
    Ratio(Ratio),
}

impl fmt::Display for SizeChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Exact(size) => size.fmt(formatter),
            Self::Ratio(ratio) => ratio.fmt(formatter),
        }
    }
}

impl SizeChoice {
    /// The size, if one was named.
    pub fn exact(self) -> Option<ImageSize> {
        match self {
            Self::Auto | Self::Ratio(_) => None,
            Self::Exact(size) => Some(size),
        }
    }
}

impl FromStr for SizeChoice {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Ok(ratio) = text.parse() {
            return Ok(Self::Ratio(ratio));
        }
        text.parse()
            .map(Self::Exact)
            .map_err(|_| WordError::new(text, "auto, WIDTHxHEIGHT in pixels, ratios such as 16:9"))
    }
}

impl<'de> serde::Deserialize<'de> for SizeChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_spelling() {
        for (text, expected) in [
            ("1024x1024", ImageSize::new(1024, 1024)),
            ("1x99999", ImageSize::new(1, 99_999)),
            ("0x1", None),
            ("01x1", None),
            ("1024X1024", None),
            ("1024", None),
            ("x", None),
            ("+1x1", None),
            ("100000x1", None),
            (" 1x1", None),
        ] {
            assert_eq!(text.parse::<ImageSize>().ok(), expected, "{text}");
        }
    }
}
