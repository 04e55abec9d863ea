//! How a neutral request is said to one provider, as data of the route.

use std::{borrow::Cow, collections::BTreeMap, num::NonZeroU32};

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{
    ratio::Ratio,
    request::Parameter,
    rules::SizeRule,
    vocabulary::{ImageSize, ResponseFormat, SizeChoice},
};

/// How a neutral request becomes this provider's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "TranslationFile")]
pub struct Translation {
    /// What to ask for upstream as `response_format`; `None` sends no such field (gpt-image refuses it).
    pub response_format: Option<ResponseFormat>,
    /// Whether [`Translation::sends_default`] holds for any parameter. TODO: goes once the `OpenAI`
    /// adapter asks that instead.
    pub send_defaults: bool,
    /// Parameters whose default is sent although the client did not give them, because the price
    /// depends on them.
    sent_defaults: Vec<Parameter>,
    /// How a size is said.
    pub size: SizeTranslation,
    /// How the pictures of an edit are said; `None` where all models of the provider do it alike.
    pub pictures: Option<PictureTranslation>,
    /// Names that differ upstream: parameter → theirs.
    pub names: BTreeMap<Parameter, String>,
    /// Words that differ upstream: parameter → (our word → theirs).
    pub words: BTreeMap<String, BTreeMap<String, String>>,
    /// Fields sent with every request, as they are.
    pub fixed: Map<String, Json>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TranslationFile {
    response_format: Option<ResponseFormat>,
    send_defaults: Vec<Parameter>,
    size: SizeTranslation,
    pictures: Option<PictureTranslation>,
    names: BTreeMap<Parameter, String>,
    words: BTreeMap<Parameter, BTreeMap<String, String>>,
    fixed: Map<String, Json>,
}

impl From<TranslationFile> for Translation {
    fn from(file: TranslationFile) -> Self {
        let by_name = |(parameter, words): (Parameter, _)| (parameter.as_str().to_owned(), words);
        Self {
            response_format: file.response_format,
            send_defaults: !file.send_defaults.is_empty(),
            sent_defaults: file.send_defaults,
            size: file.size,
            pictures: file.pictures,
            names: file.names,
            words: file.words.into_iter().map(by_name).collect(),
            fixed: file.fixed,
        }
    }
}

/// How the pictures of an edit are said upstream (`contracts/replicate.md`, 2.5: every model has a field of
/// its own for them).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureTranslation {
    /// The field that takes them.
    pub field: String,
    /// Whether it takes a list of them rather than a single one.
    #[serde(default)]
    pub list: bool,
    /// The field that takes the mask, if one does.
    pub mask: Option<String>,
    /// What says that the picture's own size holds, where the client leaves it open.
    #[serde(default)]
    pub auto: Map<String, Json>,
}

/// How a size is said upstream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeTranslation {
    /// As `WIDTHxHEIGHT`, or `auto`.
    #[default]
    AsIs,
    /// As fields of the provider's own, one set a size.
    Table(Vec<(ImageSize, Map<String, Json>)>),
    /// As the nearest aspect ratio, and if there are tiers, as the smallest that is large enough.
    Ratio(RatioTranslation),
    /// As two numbers, where the provider takes the size in pixels; else, if it may, as a ratio.
    Pixels(PixelTranslation),
}

/// Sizes as numbers (`contracts/replicate.md`, 2.5 and 7.2).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelTranslation {
    /// The field that takes the width.
    width: String,
    /// The field that takes the height.
    height: String,
    /// What else says that numbers follow.
    #[serde(default)]
    fields: Map<String, Json>,
    /// The provider rounds numbers that are no multiples of this.
    multiple_of: NonZeroU32,
    /// The shortest side it takes.
    min_edge: NonZeroU32,
    /// The longest side it takes.
    max_edge: NonZeroU32,
    /// How sizes are said that it does not take in pixels, and those that `exact` there names.
    otherwise: Option<RatioTranslation>,
}

/// Sizes as aspect ratios.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatioTranslation {
    /// The field that takes the ratio.
    field: String,
    /// The ratios that the provider knows.
    values: Vec<Ratio>,
    /// How far off a size may be, in percent of the ratio.
    tolerance_percent: u32,
    /// Resolutions, smallest first; empty when the provider has only one.
    #[serde(default)]
    tiers: Vec<Tier>,
    /// Sizes said in fields of their own, whatever their ratio: those that the provider really paints are
    /// not always near the ratio that it calls them by.
    #[serde(default)]
    exact: Vec<(ImageSize, Map<String, Json>)>,
}

/// A resolution that the provider knows by name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    /// For sizes of at most this many pixels.
    max_pixels: u64,
    /// What says it upstream.
    fields: Map<String, Json>,
}

impl Translation {
    /// What the provider calls a parameter.
    pub fn name(&self, parameter: Parameter) -> &str {
        self.names
            .get(&parameter)
            .map_or(parameter.as_str(), String::as_str)
    }

    /// What the provider calls our `word` for a parameter.
    pub fn word<'a>(&'a self, parameter: Parameter, word: &'a str) -> &'a str {
        self.words
            .get(parameter.as_str())
            .and_then(|words| words.get(word))
            .map_or(word, String::as_str)
    }

    /// Whether the default of this parameter is sent although the client did not give it.
    pub fn sends_default(&self, parameter: Parameter) -> bool {
        self.sent_defaults.contains(&parameter)
    }
}

impl SizeTranslation {
    /// The fields that say `choice` upstream, empty where saying nothing means `auto`. `None` when the
    /// provider has no way to say it, which the loader rules out for every listed size.
    pub fn fields(&self, choice: SizeChoice) -> Option<Cow<'_, Map<String, Json>>> {
        let size = match (self, choice) {
            (Self::AsIs, choice) => {
                let size = Json::String(choice.to_string());
                return Some(Cow::Owned(Map::from_iter([("size".to_owned(), size)])));
            }
            (_, SizeChoice::Auto) => return Some(Cow::Owned(Map::new())),
            (Self::Ratio(ratios), SizeChoice::Ratio(ratio)) => {
                return ratios.named(ratio).map(Cow::Owned);
            }
            (_, SizeChoice::Ratio(_)) => return None,
            (_, SizeChoice::Exact(size)) => size,
        };
        match self {
            Self::AsIs => None,
            Self::Table(rows) => rows
                .iter()
                .find(|(ours, _)| *ours == size)
                .map(|(_, fields)| Cow::Borrowed(fields)),
            Self::Ratio(ratios) => ratios.fields(size).map(Cow::Owned),
            Self::Pixels(pixels) => pixels.fields(size).map(Cow::Owned),
        }
    }

    /// Refuses a translation that cannot say what the rules let through.
    pub(super) fn validate(&self, sizes: &SizeRule) -> Result<(), String> {
        if matches!(self, Self::Table(_)) && sizes.is_open() {
            return Err("a table of sizes cannot say free sizes".to_owned());
        }
        match sizes.choices().find(|size| self.fields(*size).is_none()) {
            Some(size) => Err(format!("the translation has no way to say size {size}")),
            None => Ok(()),
        }
    }
}

impl PixelTranslation {
    fn fields(&self, size: ImageSize) -> Option<Map<String, Json>> {
        let ratios = self.otherwise.as_ref();
        if let Some(fields) = ratios.and_then(|ratios| ratios.exactly(size)) {
            return Some(fields);
        }
        let edges = self.min_edge..=self.max_edge;
        let is_exact = [size.width, size.height]
            .iter()
            .all(|edge| edges.contains(edge) && edge.get() % self.multiple_of == 0);
        if !is_exact {
            return self.otherwise.as_ref()?.fields(size);
        }
        let mut fields = self.fields.clone();
        fields.insert(self.width.clone(), size.width.get().into());
        fields.insert(self.height.clone(), size.height.get().into());
        Some(fields)
    }
}

impl RatioTranslation {
    /// A ratio asked for by name. Which of several resolutions is meant, it does not say.
    fn named(&self, ratio: Ratio) -> Option<Map<String, Json>> {
        let is_known = self.tiers.is_empty() && self.values.contains(&ratio);
        is_known.then(|| Map::from_iter([(self.field.clone(), Json::String(ratio.to_string()))]))
    }

    fn fields(&self, size: ImageSize) -> Option<Map<String, Json>> {
        if let Some(fields) = self.exactly(size) {
            return Some(fields);
        }
        let ratio = Ratio::nearest(&self.values, size, self.tolerance_percent)?;
        let mut fields = Map::new();
        if !self.tiers.is_empty() {
            let tier = self
                .tiers
                .iter()
                .find(|tier| size.pixels() <= tier.max_pixels)?;
            fields.clone_from(&tier.fields);
        }
        fields.insert(self.field.clone(), Json::String(ratio.to_string()));
        Some(fields)
    }

    /// The fields of a size that has some of its own.
    fn exactly(&self, size: ImageSize) -> Option<Map<String, Json>> {
        let (_, fields) = self.exact.iter().find(|(ours, _)| *ours == size)?;
        Some(fields.clone())
    }
}
