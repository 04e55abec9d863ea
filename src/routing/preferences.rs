//! The request's `provider` object: what the caller wishes of the route. Its meaning is that of
//! `OpenRouter`'s object, which its users know.

use super::Candidate;
use crate::money::NanoUsd;

/// What the caller wishes. Names are compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preferences {
    /// Try these first, in this order.
    pub order: Vec<String>,
    /// Try no others than these.
    pub only: Option<Vec<String>>,
    /// Never try these.
    pub ignore: Vec<String>,
    /// Whether others than the ones in `order` (or than the first) may be tried.
    pub allow_fallbacks: bool,
    /// What the rest is sorted by; absent: the catalog's order, healthy routes first.
    pub sort: Option<Sort>,
    /// The most that one picture may cost.
    pub max_price: Option<NanoUsd>,
}

/// What routes can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Cheapest first.
    Price,
    /// The shortest time to the answer first.
    Latency,
    /// The most pictures a second first.
    Throughput,
}

impl Sort {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Price, Self::Latency, Self::Throughput];

    /// The word in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
        }
    }
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            only: None,
            ignore: Vec::new(),
            allow_fallbacks: true,
            sort: None,
            max_price: None,
        }
    }
}

impl Preferences {
    /// Every provider the caller named, so that unknown names can be refused.
    pub fn named_providers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let only = self
            .only
            .iter()
            .flatten()
            .map(|name| ("provider.only", name));
        self.order
            .iter()
            .map(|name| ("provider.order", name))
            .chain(only)
            .chain(self.ignore.iter().map(|name| ("provider.ignore", name)))
            .map(|(field, name)| (field, name.as_str()))
    }

    /// Why these wishes exclude a candidate, if they do.
    pub(super) fn excludes(&self, candidate: &Candidate<'_>) -> Option<String> {
        if self
            .only
            .as_ref()
            .is_some_and(|only| !contains(only, candidate.provider))
        {
            return Some("not in provider.only".to_owned());
        }
        if contains(&self.ignore, candidate.provider) {
            return Some("in provider.ignore".to_owned());
        }
        if !self.allow_fallbacks
            && !self.order.is_empty()
            && !contains(&self.order, candidate.provider)
        {
            return Some("not in provider.order, and allow_fallbacks is false".to_owned());
        }
        let limit = self.max_price?;
        (candidate.price_per_image > limit).then(|| {
            format!(
                "costs up to {} USD an image, max_price is {limit}",
                candidate.price_per_image
            )
        })
    }

    /// The place of a provider in `order`; those it does not name come after all others.
    pub(super) fn place(&self, provider: &str) -> usize {
        self.order
            .iter()
            .position(|name| name.eq_ignore_ascii_case(provider))
            .unwrap_or(usize::MAX)
    }
}

fn contains(names: &[String], provider: &str) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(provider))
}
