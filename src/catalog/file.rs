//! One catalog file: TOML text to models, with errors that say the line, the key and what was meant.

use std::{num::NonZeroU8, sync::Arc};

use chrono::NaiveDate;
use serde::Deserialize;
use toml::Spanned;

use super::{
    model::{Model, Route, RouteEdits, Status},
    price::{Price, PriceFile},
    rules::{Rules, nearest},
    translation::Translation,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogFile {
    #[serde(default)]
    model: Vec<Spanned<ModelFile>>,
}

/// `[[model]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    /// `maker/model`; unique, and what `/v1/models` lists.
    id: String,
    /// For people.
    name: String,
    /// Other names it is found by; unique over all ids and aliases.
    #[serde(default)]
    aliases: Vec<String>,
    /// When it came out, in Unix seconds.
    created: i64,
    /// Who made it.
    owned_by: String,
    status: StatusFile,
    /// The day its maker switches it off, `"2026-12-01"`; required when it has.
    shutdown_date: Option<NaiveDate>,
    /// `false` for a model that does nothing but edit: it paints from no prompt alone.
    #[serde(default = "yes")]
    generates: bool,
    /// What it takes.
    rules: Rules,
    /// Who serves it, best first.
    #[serde(default)]
    routes: Vec<RouteFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StatusFile {
    Active,
    Deprecated,
    Retired,
}

/// `[[model.routes]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    /// A `[providers.NAME]` of the configuration.
    provider: String,
    /// What that provider calls the model.
    upstream_model: String,
    /// Dated names that it takes as they are. The model is found by them as by its aliases; a request that
    /// names one goes by that name, and only to the routes that have it.
    #[serde(default)]
    snapshots: Vec<String>,
    /// The id of the model that this route really leads to, where that is another one (a retired name on
    /// its living successor): the answer says so.
    serves: Option<String>,
    /// How many pictures one call can bring; 1 unless said.
    #[serde(default = "one")]
    images_per_call: NonZeroU8,
    /// Whether the provider streams partial pictures itself.
    #[serde(default)]
    streams: bool,
    /// How parameters change on the way.
    #[serde(default)]
    translation: Translation,
    /// Our margin on this route, instead of the provider's.
    markup_basis_points: Option<u32>,
    /// What it costs. Optional only so that its absence can be told with the model's name.
    price: Option<PriceFile>,
    /// How it edits, where that is not as the model's rules have it.
    edits: Option<RouteEditsFile>,
    /// `false` where it makes no variations although the model does.
    #[serde(default = "yes")]
    variations: bool,
}

/// `[model.routes.edits]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteEditsFile {
    /// How many pictures this route takes, at most as many as the model; 0: it does not edit.
    max_images: Option<u8>,
    /// Whether it takes a mask; absent: as the model.
    mask: Option<bool>,
    /// What the provider calls what edits, if not as above.
    upstream_model: Option<String>,
    /// How many edited pictures one call can bring, if not as above.
    images_per_call: Option<NonZeroU8>,
    /// How parameters change on the way, if not as above.
    translation: Option<Translation>,
    /// What an edited picture costs, if not as above.
    price: Option<PriceFile>,
    /// How it edits with a mask, where that is another thing to this provider.
    masked: Option<MaskedEditsFile>,
}

/// `[model.routes.edits.masked]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaskedEditsFile {
    /// What the provider calls what edits with a mask.
    upstream_model: String,
    /// How parameters change on the way, if not as without a mask.
    translation: Option<Translation>,
    /// What a picture costs that is edited so.
    price: PriceFile,
}

const fn yes() -> bool {
    true
}

const fn one() -> NonZeroU8 {
    NonZeroU8::MIN
}

/// A model and the line on which it begins.
pub(super) struct Stanza {
    pub(super) line: usize,
    pub(super) model: Model,
}

/// What is wrong with a file, and on which line.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) problem: String,
}

/// Reads the models of a file.
pub(super) fn parse(text: &str) -> Result<Vec<Stanza>, Fault> {
    let file: CatalogFile = toml::from_str(text).map_err(|error| Fault {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        problem: explain(&error),
    })?;
    file.model
        .into_iter()
        .map(|stanza| {
            let line = line_of(text, stanza.span().start);
            let file = stanza.into_inner();
            let id = file.id.clone();
            file.build()
                .map(|model| Stanza { line, model })
                .map_err(|problem| Fault {
                    line,
                    problem: format!("model '{id}': {problem}"),
                })
        })
        .collect()
}

impl ModelFile {
    fn build(self) -> Result<Model, String> {
        if let Some(blank) = [&self.id, &self.name]
            .into_iter()
            .chain(&self.aliases)
            .chain(self.routes.iter().flat_map(|route| &route.snapshots))
            .find(|name| name.trim() != name.as_str() || name.is_empty())
        {
            return Err(format!("'{blank}' is not a name"));
        }
        let rules = self.rules.complete()?;
        let status = match (self.status, self.shutdown_date) {
            (StatusFile::Active, None) => Status::Active,
            (StatusFile::Active, Some(_)) => {
                return Err("an active model has no 'shutdown_date'".to_owned());
            }
            (StatusFile::Deprecated, shutdown) => Status::Deprecated { shutdown },
            (StatusFile::Retired, Some(shutdown)) => Status::Retired { shutdown },
            (StatusFile::Retired, None) => {
                return Err("a retired model needs its 'shutdown_date'".to_owned());
            }
        };
        if !self.generates && rules.edits().is_none() {
            return Err("generates nothing and has no [model.rules.edits]".to_owned());
        }
        if self.routes.is_empty() {
            return Err("no [[model.routes]], so nobody serves it".to_owned());
        }
        let mut snapshots: Vec<String> = Vec::new();
        for snapshot in self.routes.iter().flat_map(|route| &route.snapshots) {
            if !snapshots.contains(snapshot) {
                snapshots.push(snapshot.clone());
            }
        }
        let routes = self
            .routes
            .into_iter()
            .map(|route| {
                let provider = route.provider.clone();
                route
                    .build(&rules)
                    .map(Arc::new)
                    .map_err(|problem| format!("route of provider '{provider}': {problem}"))
            })
            .collect::<Result<_, String>>()?;
        Ok(Model {
            id: self.id,
            name: self.name,
            aliases: self.aliases,
            snapshots,
            created: self.created,
            owned_by: self.owned_by,
            status,
            generates: self.generates,
            rules,
            routes,
        })
    }
}

impl RouteFile {
    fn build(self, rules: &Rules) -> Result<Route, String> {
        let price = self
            .price
            .ok_or_else(|| "no 'price': a model without a price is not served".to_owned())?;
        self.translation.size.validate(rules.size())?;
        let generation = Route {
            // Edits ask for more than generations, and have the same price unless they say so.
            price: price_of(price.clone(), self.streams, rules)?,
            provider: self.provider,
            upstream_model: self.upstream_model,
            snapshots: self.snapshots,
            serves: self.serves,
            images_per_call: self.images_per_call,
            streams: self.streams,
            translation: self.translation,
            markup_basis_points: self.markup_basis_points,
            edits: None,
            varies: self.variations && rules.variations().is_some(),
        };
        let edits = match (rules.edits(), rules.input_images()) {
            (Some(edits), Some(images)) => {
                let own = self.edits.unwrap_or_default();
                own.build(&generation, price, edits, images.max, rules.takes_mask())
                    .map_err(|problem| format!("edits: {problem}"))?
            }
            _ if self.edits.is_some() => {
                return Err("has 'edits', but there is no [model.rules.edits]".to_owned());
            }
            _ => None,
        };
        Ok(Route {
            edits: edits.map(Arc::new),
            ..generation
        })
    }
}

impl RouteEditsFile {
    fn build(
        self,
        generation: &Route,
        price: PriceFile,
        rules: &Rules,
        max_images: NonZeroU8,
        mask: bool,
    ) -> Result<Option<RouteEdits>, String> {
        let Some(own_max) = NonZeroU8::new(self.max_images.unwrap_or(max_images.get())) else {
            return Ok(None);
        };
        if own_max > max_images {
            return Err(format!(
                "'max_images' {own_max} is above the model's {max_images}"
            ));
        }
        if self.mask == Some(true) && !mask {
            return Err("takes a mask, but the model's rules have none".to_owned());
        }
        let translation = self
            .translation
            .unwrap_or_else(|| generation.translation.clone());
        translation.size.validate(rules.size())?;
        let route = Route {
            price: price_of(self.price.unwrap_or(price), generation.streams, rules)?,
            upstream_model: self
                .upstream_model
                .unwrap_or_else(|| generation.upstream_model.clone()),
            images_per_call: self.images_per_call.unwrap_or(generation.images_per_call),
            translation,
            ..generation.clone()
        };
        let takes_mask = self.mask.unwrap_or(mask);
        let masked = match self.masked {
            Some(_) if !takes_mask => return Err("'masked', but it takes no mask".to_owned()),
            Some(own) => {
                let translation = own.translation.unwrap_or_else(|| route.translation.clone());
                translation.size.validate(rules.size())?;
                Some(Arc::new(Route {
                    price: price_of(own.price, route.streams, rules)?,
                    upstream_model: own.upstream_model,
                    translation,
                    ..route.clone()
                }))
            }
            None => None,
        };
        Ok(Some(RouteEdits {
            max_images: own_max,
            mask: takes_mask,
            route: Arc::new(route),
            masked,
        }))
    }
}

/// Where the provider does not stream, partial pictures cost nothing: none are painted.
fn price_of(file: PriceFile, streams: bool, rules: &Rules) -> Result<Price, String> {
    let file = if streams {
        file
    } else {
        file.without_partial_images()
    };
    Price::new(file, rules)
}

/// The parser's words in ours. Serde says unknown keys and words as ``unknown field `x`, expected one
/// of `y`, `z` ``, which is the only place that knows what would have been known.
fn explain(error: &toml::de::Error) -> String {
    let message = error.message();
    let kind = if message.starts_with("unknown field ") {
        "key"
    } else if message.starts_with("unknown variant ") {
        "word"
    } else {
        return message
            .replace('`', "'")
            .replace("missing field", "missing key");
    };
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let meant = nearest(unknown, known.iter().copied())
        .map(|nearest| format!(", did you mean '{nearest}'?"))
        .unwrap_or_default();
    let known = known.join(", ");
    format!("unknown {kind} '{unknown}'{meant} (known: {known})")
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}
