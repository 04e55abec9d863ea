//! What pictures cost: the largest possible price before the call, the exact price after it.
//!
//! Integer nano-USD throughout. A price is built only together with the rules whose requests it must
//! be able to price, so a request that has passed them has a price. The largest price covers `n`
//! pictures, each at its own largest cost with the markup on top; as markups round once per picture
//! and rounding is monotone, the charges of `n` pictures cannot add up to more.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::as_conversions
)]

mod input;
mod megapixels;
mod render;
mod table;
mod tokens;

use std::fmt;

use serde::Deserialize;

use self::{
    megapixels::{PerMegapixel, PerMegapixelFile},
    table::{Row, Table},
    tokens::{PerToken, PerTokenFile},
};
use super::{
    request::{Delivered, ImageRequest, TokenUsage},
    rules::Rules,
    vocabulary::{ImageSize, OutputFormat, Quality},
};
use crate::money::{MoneyError, NanoUsd};

/// No call costs more than this: a million USD. What a provider reports beyond (tokens without end, a
/// picture of a million megapixels) is a lie or a mistake and counts as this much, which the hold caps.
/// Sums of such costs stay countable, so neither the settlement nor the books break on one.
const LARGEST_COST: NanoUsd = NanoUsd::from_nano(1_000_000_000_000_000);

/// Why no price could be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The table has no row for what was asked.
    #[error("no price for size {size} and quality {quality}")]
    NoPrice {
        /// The size asked for.
        size: String,
        /// The quality asked for.
        quality: String,
    },
    /// The amount is beyond what can be counted.
    #[error("the price could not be computed")]
    Money(#[from] MoneyError),
}

impl PriceError {
    fn no_price(request: &ImageRequest) -> Self {
        let quality = request.quality.map(|set| set.value.to_string());
        Self::NoPrice {
            size: request.size.value.to_string(),
            quality: quality.unwrap_or_else(|| "none".to_owned()),
        }
    }
}

/// What one delivered picture costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// What we owe the provider.
    pub upstream_cost: NanoUsd,
    /// What the caller is charged: the upstream cost with the markup on top.
    pub cost: NanoUsd,
}

impl Charge {
    fn with_markup(upstream_cost: NanoUsd, markup_basis_points: u32) -> Self {
        Self {
            upstream_cost,
            cost: countable(upstream_cost.with_markup(markup_basis_points)),
        }
    }

    /// Lowers the costs of `charges`, the last ones first, until they add up to at most `limit` (the
    /// hold). What we owe the provider stays as it is.
    pub fn cap(charges: &mut [Self], limit: NanoUsd) {
        let mut left = limit;
        for charge in charges {
            charge.cost = charge.cost.min(left);
            left = left.checked_sub(charge.cost).unwrap_or(NanoUsd::ZERO);
        }
    }
}

/// A cost that depends on what a provider said.
fn countable(cost: Result<NanoUsd, MoneyError>) -> NanoUsd {
    cost.map_or(LARGEST_COST, |cost| cost.min(LARGEST_COST))
}

/// The published price of a route.
#[derive(Debug, Clone)]
pub struct Price {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Image(PerImage),
    Megapixel(PerMegapixel),
    Token(PerToken),
}

/// A price per picture, keyed by size and quality.
#[derive(Debug, Clone)]
struct PerImage {
    table: Table<NanoUsd>,
    /// What `auto` costs: the size that holds by default.
    default_size: Option<ImageSize>,
}

/// `[model.routes.price]`: one of three kinds.
#[derive(Clone, Deserialize)]
pub(super) enum PriceFile {
    #[serde(rename = "per_image")]
    Image(Vec<PriceRow>),
    #[serde(rename = "per_megapixel")]
    Megapixel(PerMegapixelFile),
    #[serde(rename = "per_token")]
    Token(PerTokenFile),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceRow {
    #[serde(default)]
    sizes: Vec<ImageSize>,
    max_pixels: Option<u64>,
    quality: Option<Quality>,
    price: NanoUsd,
}

impl PriceFile {
    /// The same where the provider paints no partial pictures: none can be used up.
    #[must_use]
    pub(super) fn without_partial_images(mut self) -> Self {
        match &mut self {
            Self::Token(file) => file.forget_partial_images(),
            Self::Image(_) | Self::Megapixel(_) => {}
        }
        self
    }
}

impl Price {
    /// A price that covers every request that passes `rules`.
    pub(super) fn new(file: PriceFile, rules: &Rules) -> Result<Self, String> {
        let kind = match file {
            PriceFile::Image(rows) => Kind::Image(PerImage::new(rows, rules)?),
            PriceFile::Megapixel(file) => Kind::Megapixel(PerMegapixel::new(&file, rules)),
            PriceFile::Token(file) => Kind::Token(PerToken::new(file, rules)?),
        };
        Ok(Self { kind })
    }

    /// Whether some picture may cost nothing at all. Tokens always cost.
    pub fn can_be_free(&self) -> bool {
        match &self.kind {
            Kind::Image(price) => {
                let mut rows = price.table.expanded();
                rows.any(|(_, row)| row.value == NanoUsd::ZERO)
            }
            Kind::Megapixel(price) => price.first == NanoUsd::ZERO,
            Kind::Token(_) => false,
        }
    }

    /// The largest amount that `n` pictures of this request can cost, markup included. A sure upper
    /// bound of [`Price::charges`]: the hold.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn largest(
        &self,
        request: &ImageRequest,
        markup_basis_points: u32,
    ) -> Result<NanoUsd, PriceError> {
        self.largest_from(request, &[], markup_basis_points)
    }

    /// [`Price::largest`] of pictures made from `input_images`.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn largest_from(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
        markup_basis_points: u32,
    ) -> Result<NanoUsd, PriceError> {
        let each = self.largest_image(request, input_images, markup_basis_points)?;
        Ok(each.checked_mul(u64::from(request.n.get()))?)
    }

    /// The largest amount that one picture of this request can cost, made from `input_images`, markup
    /// included.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn largest_image(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
        markup_basis_points: u32,
    ) -> Result<NanoUsd, PriceError> {
        let upstream_cost = match &self.kind {
            Kind::Image(price) => price.cost(request)?,
            Kind::Megapixel(price) => price.largest(request, input_images)?,
            Kind::Token(price) => price.largest(request, input_images)?,
        };
        Ok(upstream_cost.with_markup(markup_basis_points)?)
    }

    /// The largest usage of **one** picture that [`Price::largest`] pays for; `None` when tokens do not
    /// matter. A provider that reports more has broken the bound, and the hold caps the charge.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn usage_bound(&self, request: &ImageRequest) -> Result<Option<TokenUsage>, PriceError> {
        self.usage_bound_from(request, &[])
    }

    /// [`Price::usage_bound`] of a picture made from `input_images`.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn usage_bound_from(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
    ) -> Result<Option<TokenUsage>, PriceError> {
        match &self.kind {
            Kind::Image(_) | Kind::Megapixel(_) => Ok(None),
            Kind::Token(price) => price.bound(request, input_images).map(Some),
        }
    }

    /// Whether this price is all that the request costs upstream. A vector picture is written by a model of
    /// its own, whose tokens are billed apart at rates that no source gives
    /// (`contracts/openai-images.md`, section 9); a price per token cannot cover it.
    pub fn covers(&self, request: &ImageRequest) -> bool {
        let is_vector = request
            .output_format
            .is_some_and(|format| format.value == OutputFormat::Svg);
        !is_vector || self.covers_vectors()
    }

    /// [`Price::covers`] of vector pictures.
    pub fn covers_vectors(&self) -> bool {
        match self.kind {
            Kind::Token(_) => false,
            Kind::Image(_) | Kind::Megapixel(_) => true,
        }
    }

    /// What each delivered picture costs, in order; as many as `delivered.sizes`.
    ///
    /// Reported usage is priced exactly and divided evenly among the pictures it covers. Without a
    /// report a price per token falls back on a token for four bytes of the prompt and on the output tokens known
    /// beforehand, by the size of what came and the quality that was reported or asked for: the largest number
    /// where neither was.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn charges(
        &self,
        request: &ImageRequest,
        delivered: &Delivered<'_>,
        markup_basis_points: u32,
    ) -> Result<Vec<Charge>, PriceError> {
        self.charges_from(request, &[], delivered, markup_basis_points)
    }

    /// [`Price::charges`] of pictures made from `input_images`.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn charges_from(
        &self,
        request: &ImageRequest,
        input_images: &[ImageSize],
        delivered: &Delivered<'_>,
        markup_basis_points: u32,
    ) -> Result<Vec<Charge>, PriceError> {
        let count = delivered.sizes.len();
        let upstream_costs = match &self.kind {
            Kind::Image(price) => vec![price.cost(request)?; count],
            Kind::Megapixel(price) => delivered
                .sizes
                .iter()
                .map(|size| countable(price.cost(*size, input_images)))
                .collect(),
            Kind::Token(price) => {
                let reported = delivered.usage.and_then(|usage| price.reported(usage));
                match reported.map(countable) {
                    Some(whole) => whole
                        .split(delivered.announced.max(count))
                        .take(count)
                        .collect(),
                    None => delivered
                        .sizes
                        .iter()
                        .map(|size| price.unreported(request, input_images, *size, delivered))
                        .collect::<Result<_, _>>()?,
                }
            }
        };
        Ok(upstream_costs
            .into_iter()
            .map(|cost| Charge::with_markup(cost, markup_basis_points))
            .collect())
    }

    /// What `count` partial pictures cost that came without the pictures they were drafts of, and how many
    /// tokens they are; never more of them than the request asked for. `None` where they have no price of their
    /// own: a price per picture or megapixel is for finished ones.
    pub fn drafts(
        &self,
        request: &ImageRequest,
        count: usize,
        markup_basis_points: u32,
    ) -> Option<(u64, Charge)> {
        let price = match &self.kind {
            Kind::Image(_) | Kind::Megapixel(_) => return None,
            Kind::Token(price) => price,
        };
        let tokens = price.draft_tokens(request, count);
        let cost = countable(price.rates.image_out.of(tokens));
        (tokens > 0).then(|| (tokens, Charge::with_markup(cost, markup_basis_points)))
    }

    /// `pricing` of `/v1/models`, in USD as JSON numbers: what the caller pays, markup included.
    pub fn to_json(&self, markup_basis_points: u32) -> serde_json::Value {
        render::json(&self.kind, markup_basis_points)
    }
}

/// The published price in a few words, for tables that people read.
impl fmt::Display for Price {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&render::words(&self.kind))
    }
}

impl PerImage {
    fn new(rows: Vec<PriceRow>, rules: &Rules) -> Result<Self, String> {
        let rows = rows
            .into_iter()
            .map(|row| Row {
                sizes: row.sizes,
                max_pixels: row.max_pixels,
                quality: row.quality,
                value: row.price,
            })
            .collect();
        let price = Self {
            table: Table(rows),
            default_size: rules.size().default().exact(),
        };
        price.check_coverage(rules)?;
        Ok(price)
    }

    fn cost(&self, request: &ImageRequest) -> Result<NanoUsd, PriceError> {
        let size = request.size.value.exact().or(self.default_size);
        self.table
            .get(size, request.quality.map(|set| set.value))
            .ok_or_else(|| PriceError::no_price(request))
    }

    fn check_coverage(&self, rules: &Rules) -> Result<(), String> {
        let unasked = rules.default_quality().is_none().then_some(None);
        let qualities = rules.qualities().iter().copied().map(Some).chain(unasked);
        for quality in qualities {
            let no_price = |size: &str| {
                let quality = quality.map_or("none", Quality::as_str);
                Err(format!("no price for size {size} and quality {quality}"))
            };
            for size in rules.size().listed() {
                if self.table.get(Some(size), quality).is_none() {
                    return no_price(&size.to_string());
                }
            }
            if rules.size().takes_auto() && self.table.get(self.default_size, quality).is_none() {
                return no_price("auto");
            }
            if rules.size().is_open()
                && !self
                    .table
                    .covers_any_size(rules.size().max_pixels(), quality)
            {
                return no_price("of any pixels");
            }
        }
        Ok(())
    }
}
