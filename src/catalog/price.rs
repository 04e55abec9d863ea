//! What pictures cost: largest possible price before the call, exact price after it.

use super::request::{Delivered, ImageRequest};
use crate::money::{MoneyError, NanoUsd};

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

/// What one delivered picture costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// What we owe the provider.
    pub upstream_cost: NanoUsd,
    /// What the caller is charged: the upstream cost with the markup on top.
    pub cost: NanoUsd,
}

/// The published price of a route.
#[derive(Debug, Clone)]
pub struct Price {}

impl Price {
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
        let _ = (request, markup_basis_points);
        todo!()
    }

    /// What each delivered picture costs, in order; as many as `delivered.sizes`.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn charges(
        &self,
        request: &ImageRequest,
        delivered: &Delivered<'_>,
        markup_basis_points: u32,
    ) -> Result<Vec<Charge>, PriceError> {
        let _ = (request, delivered, markup_basis_points);
        todo!()
    }

    /// `pricing` of `/v1/models`, in USD as JSON numbers.
    pub fn to_json(&self) -> serde_json::Value {
        todo!()
    }
}
