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
#[derive(Debug, Clone)]
pub struct Model {
    /// `openai/dall-e-3`.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// Other names it is found by, such as `dall-e-3`.
    pub aliases: Vec<String>,
    /// Dated names such as `gpt-image-2-2026-04-21`, under which it is found too, but as
    /// [`Model::pinned`] has it. Those of all its routes, each once.
    pub snapshots: Vec<String>,
    /// When it came out, in Unix seconds.
    pub created: i64,
    /// Who made it.
    pub owned_by: String,
    /// Whether its maker still serves it.
    pub status: Status,
    /// Whether it paints from a prompt alone; one that does not edits.
    pub generates: bool,
    /// What it takes.
    pub rules: Rules,
    /// Who serves it, best first; never empty.
    pub routes: Vec<Arc<Route>>,
}

impl Model {
    /// The names of this very model: its id and its aliases.
    pub fn own_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.id)
            .chain(&self.aliases)
            .map(String::as_str)
    }

    /// All names a request can find it by: its id, its aliases and its snapshots.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.own_names()
            .chain(self.snapshots.iter().map(String::as_str))
    }

    /// The model as a request gets it that names a snapshot: the same rules and prices, but only the routes
    /// that know the snapshot, which ask for it by its name. Whoever pins a model shall not get what it has
    /// become since, not even from the next route.
    #[must_use]
    pub fn pinned(&self, snapshot: &str) -> Self {
        let knows = |route: &&Arc<Route>| route.snapshots.iter().any(|known| known == snapshot);
        let pin = |route: &Arc<Route>| {
            let edits = route.edits.as_ref().map(|edits| {
                let mut pinned = RouteEdits::clone(edits);
                let own = Arc::make_mut(&mut pinned.route);
                // A route that edits by another name upstream has no snapshot of that one.
                if own.upstream_model == route.upstream_model {
                    snapshot.clone_into(&mut own.upstream_model);
                }
                pinned
            });
            Arc::new(Route {
                upstream_model: snapshot.to_owned(),
                edits: edits.map(Arc::new),
                ..Route::clone(route)
            })
        };
        Self {
            routes: self.routes.iter().filter(knows).map(pin).collect(),
            ..self.clone()
        }
    }
}

/// One way to serve a model.
#[derive(Debug, Clone)]
pub struct Route {
    /// The key of a `[providers.NAME]` section.
    pub provider: String,
    /// What the provider calls the model.
    pub upstream_model: String,
    /// The model's dated names that the provider takes as they are.
    pub snapshots: Vec<String>,
    /// The id of the model that this route really leads to, where it is another one.
    pub serves: Option<String>,
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
    /// How it edits; `None` when it does not.
    pub edits: Option<Arc<RouteEdits>>,
    /// Whether it makes variations.
    pub varies: bool,
}

/// How a route edits.
#[derive(Debug, Clone)]
pub struct RouteEdits {
    /// How many pictures it takes at most.
    pub max_images: NonZeroU8,
    /// Whether it takes a mask.
    pub mask: bool,
    /// The route as an edit goes it: with the upstream name, translation and price of edits, where they
    /// differ. Edits nothing itself.
    pub route: Arc<Route>,
    /// The route as an edit with a mask goes it, where that is another.
    pub masked: Option<Arc<Route>>,
}
