//! Prices per token: rates, and the output tokens by which the largest price is known beforehand.

use serde::Deserialize;

use super::{
    PriceError,
    input::{InputPatches, InputTiles, InputTokens},
    table::{Row, Table},
};
use crate::{
    catalog::{
        request::{Delivered, ImageRequest, TokenUsage},
        rules::{FreeSizes, Rules},
        vocabulary::{ImageSize, OutputFormat, Quality, SizeChoice},
    },
    money::{MoneyError, NanoUsd},
};

/// Tokens of text input beyond those of the prompt itself. `OpenAI` adds 6 a picture
/// (`contracts/openai-images.md`, section 2); the rest is margin for the templates of others.
const INPUT_OVERHEAD_TOKENS: u64 = 64;

/// What is charged where nobody counts: bytes of UTF-8 for a token, about what tokenizers of the BPE family make of
/// English; and the tokens that `OpenAI` itself adds for a picture and for an input image (as above and below).
const CHARGED_BYTES_PER_TOKEN: u64 = 4;
const CHARGED_OVERHEAD_TOKENS: u64 = 6;
const CHARGED_PICTURE_OVERHEAD_TOKENS: u64 = 32;

/// Tokens of text that `OpenAI` adds for each input image, which are 32 (measured on gpt-image-1's edits by
/// users of its community, thread 1281361, July 2025), with as much margin.
const PICTURE_OVERHEAD_TOKENS: u64 = 64;

/// Published rates are per this many tokens.
const RATE_TOKENS: i64 = 1_000_000;

/// A rate: a decimal string in USD per million tokens in the file, whole nano-USD per token here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "NanoUsd")]
pub(super) struct Rate {
    per_token: NanoUsd,
}

impl TryFrom<NanoUsd> for Rate {
    type Error = String;

    fn try_from(per_million: NanoUsd) -> Result<Self, String> {
        let whole = per_million.nano().checked_rem(RATE_TOKENS) == Some(0);
        per_million
            .nano()
            .checked_div(RATE_TOKENS)
            .filter(|_| whole)
            .map(|nano| Self {
                per_token: NanoUsd::from_nano(nano),
            })
            .ok_or_else(|| {
                format!("'{per_million}' USD per million tokens is not a whole number of nano-USD per token")
            })
    }
}

impl Rate {
    pub(super) fn of(self, tokens: u64) -> Result<NanoUsd, MoneyError> {
        self.per_token.checked_mul(tokens)
    }

    pub(super) fn per_million(self) -> Result<NanoUsd, MoneyError> {
        self.of(RATE_TOKENS.unsigned_abs())
    }
}

/// The rates of a model, in USD per million tokens in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rates {
    pub(super) text_in: Rate,
    /// Absent: cached tokens cost what others do.
    pub(super) text_in_cached: Option<Rate>,
    /// Absent: there is no image input.
    pub(super) image_in: Option<Rate>,
    pub(super) image_in_cached: Option<Rate>,
    pub(super) image_out: Rate,
    /// Absent: text that comes with the picture is not charged by the provider.
    pub(super) text_out: Option<Rate>,
}

impl Rates {
    /// What this usage costs, cached tokens at their own rate.
    fn cost(&self, usage: &TokenUsage) -> Result<NanoUsd, MoneyError> {
        let image_in = self.image_in.unwrap_or(self.text_in);
        let cached_text = usage.cached_text.min(usage.input_text);
        let cached_image = usage.cached_image.min(usage.input_image);
        let zero = Rate {
            per_token: NanoUsd::ZERO,
        };
        let parts = [
            (self.text_in, usage.input_text.saturating_sub(cached_text)),
            (self.text_in_cached.unwrap_or(self.text_in), cached_text),
            (image_in, usage.input_image.saturating_sub(cached_image)),
            (self.image_in_cached.unwrap_or(image_in), cached_image),
            (self.image_out, usage.output_image),
            (self.text_out.unwrap_or(zero), usage.output_text),
        ];
        parts
            .into_iter()
            .try_fold(NanoUsd::ZERO, |sum, (rate, tokens)| {
                sum.checked_add(rate.of(tokens)?)
            })
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::catalog) struct PerTokenFile {
    rates: Rates,
    /// Output tokens by size and quality; either this or `patches`.
    output_tokens: Option<Vec<TokenRow>>,
    /// Output tokens by formula.
    patches: Option<Vec<PatchLevel>>,
    /// Output tokens where the provider chooses the size, if it is known to choose among such as take no
    /// more; absent: the most of any row.
    auto_tokens: Option<u64>,
    /// Whether those are bounds of our own rather than what a picture takes.
    #[serde(default)]
    estimated: bool,
    /// What a partial picture takes.
    #[serde(default)]
    partial_image_tokens: u64,
    /// The most text that comes with a picture, thinking included.
    #[serde(default)]
    max_text_out_tokens: u64,
    /// The most tokens an input image counts as, whatever its size; this or one of the two below.
    input_image_tokens: Option<u64>,
    /// The tokens of an input image by tiles.
    input_tiles: Option<InputTiles>,
    /// The tokens of an input image by patches.
    input_patches: Option<InputPatches>,
}

impl PerTokenFile {
    pub(super) fn forget_partial_images(&mut self) {
        self.partial_image_tokens = 0;
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRow {
    #[serde(default)]
    sizes: Vec<ImageSize>,
    max_pixels: Option<u64>,
    quality: Option<Quality>,
    tokens: u64,
}

/// The grid of patches of a quality: `patches` is Q of the formula in [`PatchLevel::tokens`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchLevel {
    quality: Quality,
    patches: u64,
    /// The most tokens that any size allowed takes; searched at load.
    #[serde(skip)]
    largest: u64,
}

impl PatchLevel {
    /// Output tokens of one picture (`contracts/openai-images.md`, section 10, G2):
    /// with L and S the longer and the shorter edge, `R = round_half_up(Q·S/L)` and
    /// `tokens = ceil(Q·R·(2,000,000 + W·H) / 4,000,000)`. Wide pictures take fewer than squares.
    fn tokens(&self, size: ImageSize) -> Option<u64> {
        let (width, height) = (u64::from(size.width.get()), u64::from(size.height.get()));
        let (long, short) = (width.max(height), width.min(height));
        let rows = self
            .patches
            .checked_mul(short)?
            .checked_mul(2)?
            .checked_add(long)?
            .checked_div(long.checked_mul(2)?)?;
        let area = size.pixels().checked_add(2_000_000)?;
        self.patches
            .checked_mul(rows)?
            .checked_mul(area)
            .map(|product| product.div_ceil(4_000_000))
    }
}

/// Where the number of output tokens is known from before the call.
#[derive(Debug, Clone)]
enum OutputTokens {
    Table(Table<u64>),
    Patches {
        levels: Vec<PatchLevel>,
        /// The sizes named in the rules, for listings.
        listed: Vec<ImageSize>,
    },
}

/// A price per token.
#[derive(Debug, Clone)]
pub(super) struct PerToken {
    pub(super) rates: Rates,
    output: OutputTokens,
    auto_tokens: Option<u64>,
    /// Whether the output tokens are bounds of our own rather than what a picture takes.
    pub(super) estimated: bool,
    partial_image_tokens: u64,
    max_text_out_tokens: u64,
    input: InputTokens,
}

/// A row of the listing of output tokens.
pub(super) struct ListedTokens {
    pub(super) size: Option<ImageSize>,
    pub(super) max_pixels: Option<u64>,
    pub(super) quality: Option<Quality>,
    pub(super) tokens: u64,
    /// At the rate of image output.
    pub(super) price: NanoUsd,
}

impl PerToken {
    pub(super) fn new(file: PerTokenFile, rules: &Rules) -> Result<Self, String> {
        let output = match (file.output_tokens, file.patches) {
            (Some(rows), None) => OutputTokens::Table(Table(
                rows.into_iter()
                    .map(|row| Row {
                        sizes: row.sizes,
                        max_pixels: row.max_pixels,
                        quality: row.quality,
                        value: row.tokens,
                    })
                    .collect(),
            )),
            (None, Some(levels)) => patches(levels, rules)?,
            _ => return Err("a price per token has either 'output_tokens' or 'patches'".to_owned()),
        };
        let input = match (
            file.input_image_tokens,
            file.input_tiles,
            file.input_patches,
        ) {
            (None, None, None) => InputTokens::Flat(0),
            (Some(tokens), None, None) => InputTokens::Flat(tokens),
            (None, Some(tiles), None) => InputTokens::Tiles(tiles),
            (None, None, Some(patches)) => InputTokens::Patches(patches),
            _ => {
                return Err(
                    "a price per token has one of 'input_image_tokens', 'input_tiles' and 'input_patches'"
                        .to_owned(),
                );
            }
        };
        let takes_pictures = rules.edits().or(rules.variations()).is_some();
        if takes_pictures && matches!(input, InputTokens::Flat(0)) {
            return Err(
                "the model takes pictures, so its price needs their tokens: one of \
                 'input_image_tokens', 'input_tiles' and 'input_patches'"
                    .to_owned(),
            );
        }
        let price = Self {
            rates: file.rates,
            output,
            auto_tokens: file.auto_tokens,
            estimated: file.estimated,
            partial_image_tokens: file.partial_image_tokens,
            max_text_out_tokens: file.max_text_out_tokens,
            input,
        };
        price.check_rates()?;
        price.check_coverage(rules)?;
        Ok(price)
    }

    /// The largest usage of **one** picture that the hold pays for.
    ///
    /// Sure for the input: tokenizers of the BPE family cut text into pieces of at least one byte of
    /// its UTF-8, so there are at most as many tokens as bytes. Each of `n` pictures is billed like a
    /// call of its own (`contracts/openai-images.md`, section 2), so each has the whole input.
    pub(super) fn bound(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
    ) -> Result<TokenUsage, PriceError> {
        let overflow = || PriceError::Money(MoneyError::Overflow);
        let count = |length: usize| u64::try_from(length).map_err(|_| overflow());
        let partials = asked_partial_images(request)
            .checked_mul(self.partial_image_tokens)
            .ok_or_else(overflow)?;
        let around = count(input_images.len())?
            .checked_mul(PICTURE_OVERHEAD_TOKENS)
            .and_then(|around| around.checked_add(INPUT_OVERHEAD_TOKENS))
            .ok_or_else(overflow)?;
        Ok(TokenUsage {
            input_text: count(request.prompt.len())?
                .checked_add(around)
                .ok_or_else(overflow)?,
            input_image: self.input_tokens(request, input_images)?,
            cached_text: 0,
            cached_image: 0,
            output_text: self.max_text_out_tokens,
            output_image: self
                .picture_tokens(request)?
                .checked_add(partials)
                .ok_or_else(overflow)?,
        })
    }

    /// The largest cost of one picture.
    pub(super) fn largest(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
    ) -> Result<NanoUsd, PriceError> {
        Ok(self.rates.cost(&self.bound(request, input_images)?)?)
    }

    /// The cost of a whole call by the usage that its provider reported. `None` when the report names
    /// no image output: a picture came, so the report is a placeholder, and would be a free picture.
    pub(super) fn reported(&self, usage: &TokenUsage) -> Option<Result<NanoUsd, MoneyError>> {
        (usage.output_image > 0).then(|| self.rates.cost(usage))
    }

    /// The cost of one picture of this size whose usage nobody reported: an estimate of the prompt, for the hold
    /// is a bound that no prompt reaches; the input pictures as they were held for; and what is known to be painted.
    /// Never more than was held for. Text beside the picture is not guessed.
    pub(super) fn unreported(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
        size: ImageSize,
        delivered: &Delivered<'_>,
    ) -> Result<NanoUsd, PriceError> {
        let bound = self.bound(request, input_images)?;
        let pictures = delivered.sizes.len().max(1);
        let partial_images = u64::try_from(delivered.partial_images.div_ceil(pictures))
            .map_or(u64::MAX, |each| each.min(asked_partial_images(request)));
        let output_image = partial_images
            .saturating_mul(self.partial_image_tokens)
            .saturating_add(self.delivered_tokens(request, size, delivered.quality)?)
            .min(bound.output_image);
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let input_text = count(input_images.len())
            .saturating_mul(CHARGED_PICTURE_OVERHEAD_TOKENS)
            .saturating_add(CHARGED_OVERHEAD_TOKENS)
            .saturating_add(count(request.prompt.len()).div_ceil(CHARGED_BYTES_PER_TOKEN))
            .min(bound.input_text);
        Ok(self.rates.cost(&TokenUsage {
            input_text,
            output_image,
            output_text: 0,
            ..bound
        })?)
    }

    /// Output tokens of this many partial pictures, at most those of all that were asked for.
    pub(super) fn draft_tokens(&self, request: &ImageRequest, count: usize) -> u64 {
        let asked = asked_partial_images(request).saturating_mul(u64::from(request.n.get()));
        u64::try_from(count)
            .map_or(asked, |count| count.min(asked))
            .saturating_mul(self.partial_image_tokens)
    }

    /// Output tokens of one picture that came in this size, and in this quality if the provider says so;
    /// at most as many as the request can take.
    fn delivered_tokens(
        &self,
        request: &ImageRequest,
        size: ImageSize,
        reported: Option<Quality>,
    ) -> Result<u64, PriceError> {
        let most = self.picture_tokens(request)?;
        if !says_its_tokens(request.output_format.map(|set| set.value)) {
            return Ok(most);
        }
        let asked = request.quality.map(|set| set.value);
        // A word that no row knows says nothing, nor does a size that none knows.
        let known = [reported, asked]
            .into_iter()
            .filter(|quality| quality.is_some_and(|quality| quality != Quality::Auto))
            .chain([None])
            .find_map(|quality| self.output.largest(Some(size), quality));
        Ok(known.map_or(most, |tokens| tokens.min(most)))
    }

    /// The most tokens that these pictures count as.
    fn input_tokens(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
    ) -> Result<u64, PriceError> {
        let fidelity = request.input_fidelity.map(|set| set.value);
        input_images
            .iter()
            .try_fold(0_u64, |sum, size| {
                sum.checked_add(self.input.of(*size, fidelity)?)
            })
            .ok_or(PriceError::Money(MoneyError::Overflow))
    }

    /// What listings say about output tokens.
    pub(super) fn listing(&self) -> Vec<ListedTokens> {
        let listed = |size, max_pixels, quality, tokens| {
            Some(ListedTokens {
                size,
                max_pixels,
                quality,
                tokens,
                price: self.rates.image_out.of(tokens).ok()?,
            })
        };
        match &self.output {
            OutputTokens::Table(table) => table
                .expanded()
                .filter_map(|(size, row)| listed(size, row.max_pixels, row.quality, row.value))
                .collect(),
            OutputTokens::Patches {
                levels,
                listed: sizes,
            } => levels
                .iter()
                .flat_map(|level| sizes.iter().map(move |size| (level, *size)))
                .filter_map(|(level, size)| {
                    listed(Some(size), None, Some(level.quality), level.tokens(size)?)
                })
                .collect(),
        }
    }

    /// Output tokens of one picture, the most there can be where the provider chooses.
    fn picture_tokens(&self, request: &ImageRequest) -> Result<u64, PriceError> {
        let size = (request.size.value.exact())
            .filter(|_| says_its_tokens(request.output_format.map(|set| set.value)));
        if let (SizeChoice::Auto, Some(tokens)) = (request.size.value, self.auto_tokens) {
            return Ok(tokens);
        }
        let quality = request
            .quality
            .map(|set| set.value)
            .filter(|quality| *quality != Quality::Auto);
        self.output
            .largest(size, quality)
            .ok_or_else(|| PriceError::no_price(request))
    }

    fn check_rates(&self) -> Result<(), String> {
        let rates = &self.rates;
        let dearer = [
            (rates.text_in_cached, Some(rates.text_in), "text_in_cached"),
            (rates.image_in_cached, rates.image_in, "image_in_cached"),
        ];
        match dearer
            .iter()
            .find(|(cached, full, _)| cached.is_some() && cached > full)
        {
            // The bound counts every token at the full rate.
            Some((_, _, name)) => Err(format!("'{name}' is above the rate of tokens not cached")),
            None => Ok(()),
        }
    }

    fn check_coverage(&self, rules: &Rules) -> Result<(), String> {
        let no_tokens = |size: &str, quality: Option<Quality>| {
            let quality = quality.map_or("none", Quality::as_str);
            format!("no output tokens for size {size} and quality {quality}")
        };
        let asked: Vec<Option<Quality>> = rules
            .qualities()
            .iter()
            .map(|&quality| Some(quality).filter(|quality| *quality != Quality::Auto))
            .chain([None])
            .collect();
        for quality in asked {
            for size in rules.size().listed() {
                if self.output.largest(Some(size), quality).is_none() {
                    return Err(no_tokens(&size.to_string(), quality));
                }
            }
            if self.output.largest(None, quality).is_none() {
                return Err(no_tokens("auto", quality));
            }
            if let OutputTokens::Table(table) = &self.output
                && rules.size().is_open()
                && !table.covers_any_size(rules.size().max_pixels(), quality)
            {
                return Err(no_tokens("of any pixels", quality));
            }
        }
        Ok(())
    }
}

/// How many partial pictures may come before each picture. Who does not stream is shown none.
fn asked_partial_images(request: &ImageRequest) -> u64 {
    match request.partial_images {
        Some(set) if request.stream => u64::from(set.value),
        Some(_) | None => 0,
    }
}

/// Whether the size of such a picture says how many tokens it takes. The frames of an animation share a
/// sheet of any legal size, and a vector picture has none (`contracts/openai-images.md`, 1.2).
fn says_its_tokens(format: Option<OutputFormat>) -> bool {
    match format {
        Some(OutputFormat::Gif | OutputFormat::Svg) => false,
        None | Some(OutputFormat::Png | OutputFormat::Jpeg | OutputFormat::Webp) => true,
    }
}

impl OutputTokens {
    fn largest(&self, size: Option<ImageSize>, quality: Option<Quality>) -> Option<u64> {
        match self {
            Self::Table(table) => table.largest(size, quality),
            Self::Patches { levels, .. } => levels
                .iter()
                .filter(|level| quality.is_none_or(|quality| quality == level.quality))
                .map(|level| match size {
                    Some(size) => level.tokens(size),
                    None => Some(level.largest),
                })
                .max()
                .flatten(),
        }
    }
}

/// Finds the largest number of tokens of each level over every size allowed. The formula does not tell
/// the sides apart and grows with the shorter one, so only the fullest free sizes need be looked at.
fn patches(mut levels: Vec<PatchLevel>, rules: &Rules) -> Result<OutputTokens, String> {
    let listed: Vec<ImageSize> = rules.size().listed().collect();
    for level in &mut levels {
        let free = rules.size().free().into_iter();
        level.largest = free
            .flat_map(FreeSizes::fullest)
            .chain(listed.iter().copied())
            .map(|size| level.tokens(size))
            .try_fold(0, |largest, tokens| Some(tokens?.max(largest)))
            .ok_or_else(|| format!("'patches' of {} is too large", level.quality))?;
    }
    Ok(OutputTokens::Patches { levels, listed })
}
