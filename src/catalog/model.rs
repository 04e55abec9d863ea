//! Models and their routes: plain data, complete and checked once the catalog has loaded.

use std::{num::NonZeroU8, sync::Arc};

use chrono::NaiveDate;

use super::{price::Price, rules::Rules, translation::Translation};

/// Whether the makers still serve a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Alive.
    Active,
    /// Alive, with an end in sight.
    Deprecated {
        /// The day it ends, if one is known.
        shutdown: Option<NaiveDate>,
    },
    /// Switched off by its maker; compatible servers may still serve it.
    Retired {
        /// The day it ended.
        shutdown: NaiveDate,
    },
}

impl Status {
    /// `active`, `deprecated` or `retired`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deprecated { .. } => "deprecated",
            Self::Retired { .. } => "retired",
        }
    }

    /// The day its maker switches it off, or did.
    pub const fn shutdown_date(self) -> Option<NaiveDate> {
        match self {
            Self::Active => None,
            Self::Deprecated { shutdown } => shutdown,
            Self::Retired { shutdown } => Some(shutdown),
        }
    }
}

/// A public name and everything that hangs on it.
#[derive(Debug)]
pub struct Model {
    /// `openai/dall-e-3`.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// Other names it is found by, such as `dall-e-3`.
    pub aliases: Vec<String>,
    /// When it came out, in Unix seconds.
    pub created: i64,
    /// Who made it.
    pub owned_by: String,
    /// Whether its maker still serves it.
    pub status: Status,
    /// What it takes.
    pub rules: Rules,
    /// Who serves it, best first; never empty.
    pub routes: Vec<Arc<Route>>,
}

/// One way to serve a model.
#[derive(Debug, Clone)]
pub struct Route {
    /// The key of a `[providers.NAME]` section.
    pub provider: String,
    /// What the provider calls the model.
    pub upstream_model: String,
    /// How many pictures one call can bring; more are fanned out.
    pub images_per_call: NonZeroU8,
    /// Whether the provider streams partial pictures itself.
    pub streams: bool,
    /// How parameters change on the way.
    pub translation: Translation,
    /// What it costs.
    pub price: Price,
    /// Our margin on this route in basis points; overrides the provider's.
    pub markup_basis_points: Option<u32>,
}
