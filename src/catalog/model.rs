//! Models, their routes, and the catalog that finds them by name.

use std::{collections::BTreeMap, num::NonZeroU8, path::Path, sync::Arc};

use chrono::NaiveDate;

use super::{
    price::Price,
    rules::Rules,
    vocabulary::{ImageSize, ResponseFormat},
};

/// Why a catalog did not load. Names the file, the model or line, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CatalogError {
    /// The file at fault.
    pub file: String,
    /// Where in it, and what is wrong.
    pub problem: String,
}

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
#[derive(Debug)]
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

/// How a neutral request becomes this provider's.
#[derive(Debug, Clone, Default)]
pub struct Translation {
    /// What to ask for upstream as `response_format`; `None` sends no such field (gpt-image refuses it).
    pub response_format: Option<ResponseFormat>,
    /// Defaults that are sent although the client did not give them, because the price depends on them.
    pub send_defaults: bool,
    /// How a size is said.
    pub size: SizeTranslation,
    /// Names and words that differ upstream: parameter → (our word → theirs).
    pub words: BTreeMap<String, BTreeMap<String, String>>,
    /// Fields sent with every request, as they are.
    pub fixed: serde_json::Map<String, serde_json::Value>,
}

/// How a size is said upstream.
#[derive(Debug, Clone, Default)]
pub enum SizeTranslation {
    /// As `WIDTHxHEIGHT`.
    #[default]
    AsIs,
    /// As fields of the provider's own (an aspect ratio, megapixels, width and height), one set a size.
    Table(Vec<(ImageSize, serde_json::Map<String, serde_json::Value>)>),
}

/// All models.
#[derive(Debug)]
pub struct Catalog {}

impl Catalog {
    /// The compiled-in models, replaced and added to by the files of `models_dir`.
    ///
    /// # Errors
    /// The first file that is wrong.
    pub fn load(models_dir: Option<&Path>) -> Result<Self, CatalogError> {
        let _ = models_dir;
        todo!()
    }

    /// The model with this id or alias; exact first, then ignoring case.
    pub fn find(&self, name: &str) -> Option<&Arc<Model>> {
        let _ = name;
        todo!()
    }

    /// Every model, in the order of the files.
    pub fn models(&self) -> &[Arc<Model>] {
        todo!()
    }
}
