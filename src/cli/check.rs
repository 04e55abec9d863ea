//! `easel check`: what would be served, by whom, for how much; and what is wrong with it.
//!
//! Reads the configuration and the catalog, and touches neither the database nor a provider unless it is asked to.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use serde_json::{Value, json};

use super::{
    bucket, load_catalog,
    online::{self, State},
    output,
};
use crate::{
    api,
    catalog::{Catalog, Model, Route, Status},
    config::{Config, LinkStyle, StoreConfig},
    providers::registry::{self, Switch},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Also ask the database, the store and every provider whether they let us in, by questions that are free
    #[arg(long)]
    online: bool,
}

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let catalog = load_catalog(config)?;
    let providers = Providers::build(config)?;
    bucket(config)?;
    if let Some(files) = &config.tls {
        api::tls::load(&files.cert, &files.key)?;
    }
    let findings = if arguments.online {
        let switches = providers.0.iter();
        Some(online::ask(config, switches.map(|(name, (_, switch))| (name, switch))).await)
    } else {
        None
    };
    let has_failed = findings
        .iter()
        .flatten()
        .any(|finding| finding.state == State::Failed);
    let code = if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    if arguments.json {
        let mut document = document(config, &catalog, &providers);
        if let Some(findings) = &findings {
            document["online"] = json!(findings);
        }
        output::json(&document)?;
        return Ok(code);
    }
    output::line(format!("Configuration: {}", file(config)));
    output::line(format!("Database: {}", database(config)));
    output::line(format!("Pictures: {}", pictures(config)));
    let admin = match &config.admin.token_missing {
        Some(reason) => format!("off ({reason})"),
        None if config.admin.token.is_none() => "off".to_owned(),
        None => "on".to_owned(),
    };
    output::line(format!("Admin API: {admin}"));
    let longest = humantime::format_duration(config.shutdown.longest());
    output::line(format!(
        "Stopping: within {longest}; who supervises should wait longer before it kills\n"
    ));
    output::table(&["PROVIDER", "ADAPTER", "STATE"], providers.rows());
    output::line("");
    let routes = || {
        let models = catalog.models().iter();
        models.flat_map(|model| model.routes.iter().map(move |route| (model, route)))
    };
    output::table(
        &["MODEL", "STATUS", "SERVED BY", "AS", "EDITS", "MARKUP"],
        routes().map(|(model, route)| row(model, route, config, &providers)),
    );
    output::line("");
    output::table(
        &["MODEL", "SERVED BY", "PRICE IN USD, BEFORE MARKUP"],
        routes().map(|(model, route)| {
            // One clause a quality, one line a clause.
            let price = route.price.to_string().replace("; ", "\n");
            [model.id.clone(), route.provider.clone(), price]
        }),
    );
    for warning in warnings(&catalog, &providers) {
        output::warning(warning);
    }
    if let Some(findings) = findings {
        output::line("");
        output::table(
            &["ASKED", "STATE", "FOUND"],
            findings.into_iter().map(|finding| {
                let found = match finding.hint {
                    Some(hint) => format!("{}\n→ {hint}", finding.found),
                    None => finding.found,
                };
                [finding.what, finding.state.word().to_owned(), found]
            }),
        );
    }
    Ok(code)
}

/// The configured providers, by name: which adapter, and on or off.
struct Providers(BTreeMap<String, (String, Switch)>);

impl Providers {
    fn build(config: &Config) -> anyhow::Result<Self> {
        let switches = registry::build(&config.providers, config.images.max_size_bytes)
            .map_err(|problem| anyhow::anyhow!("{}: {problem}", file(config)))?;
        let switches = switches.into_iter().filter_map(|(name, switch)| {
            let adapter = config.providers.get(&name)?.adapter.clone();
            Some((name, (adapter, switch)))
        });
        Ok(Self(switches.collect()))
    }

    /// `on`, or why not.
    fn state(&self, name: &str) -> Result<(), &str> {
        match self.0.get(name) {
            Some((_, Switch::On(_))) => Ok(()),
            Some((_, Switch::Off(reason))) => Err(reason),
            None => Err("not configured"),
        }
    }

    fn rows(&self) -> impl Iterator<Item = [String; 3]> {
        self.0
            .iter()
            .map(|(name, (adapter, _))| [name.clone(), adapter.clone(), self.words(name)])
    }

    fn words(&self, name: &str) -> String {
        match self.state(name) {
            Ok(()) => "on".to_owned(),
            Err(reason) => format!("off ({reason})"),
        }
    }
}

fn file(config: &Config) -> String {
    let file = config.file.as_deref().map(Path::display);
    file.map_or_else(|| "built-in defaults".to_owned(), |file| file.to_string())
}

fn database(config: &Config) -> String {
    if config.database.url.is_some() {
        "the one of [database] url or DATABASE_URL".to_owned()
    } else {
        format!("a private PostgreSQL under {}", config.data_dir.display())
    }
}

fn pictures(config: &Config) -> String {
    let images = &config.images;
    let StoreConfig::Bucket { .. } = images.store else {
        return images.store.to_string();
    };
    let place = match &images.s3.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => format!("AWS {}", images.s3.region),
    };
    let links = match images.links {
        LinkStyle::Easel => "links through Easel",
        LinkStyle::Presigned => "presigned links",
    };
    format!("{} at {place}, {links}", images.store)
}

fn row(model: &Model, route: &Route, config: &Config, providers: &Providers) -> [String; 6] {
    let on = providers.state(&route.provider).is_ok();
    [
        model.id.clone(),
        status(model),
        format!("{} ({})", route.provider, if on { "on" } else { "off" }),
        route.upstream_model.clone(),
        edits(route),
        output::percent(markup(route, config)),
    ]
}

/// `16 images, mask`; nothing for a route that does not edit.
fn edits(route: &Route) -> String {
    let Some(edits) = &route.edits else {
        return String::new();
    };
    let images = match edits.max_images.get() {
        1 => "1 image".to_owned(),
        more => format!("{more} images"),
    };
    let mask = if edits.mask { ", mask" } else { "" };
    format!("{images}{mask}")
}

/// The margin on this route, in basis points.
fn markup(route: &Route, config: &Config) -> u32 {
    let provider = config.providers.get(&route.provider);
    route
        .markup_basis_points
        .or(provider.map(|provider| provider.markup_basis_points))
        .unwrap_or_default()
}

fn status(model: &Model) -> String {
    match model.status {
        Status::Active => "active".to_owned(),
        Status::Deprecated { shutdown: None } => "deprecated".to_owned(),
        Status::Deprecated {
            shutdown: Some(date),
        } => format!("deprecated, ends {date}"),
        Status::Retired { shutdown } => format!("retired {shutdown}"),
    }
}

/// Retired models that a provider which is on would be asked for: its maker refuses them, a compatible
/// server may not.
fn warnings(catalog: &Catalog, providers: &Providers) -> Vec<String> {
    let retired = catalog.models().iter().filter_map(|model| {
        let Status::Retired { shutdown } = model.status else {
            return None;
        };
        let mut routes = model.routes.iter();
        let route = routes.find(|route| {
            providers.state(&route.provider).is_ok() && !catalog.leads_to_the_living(route)
        })?;
        Some(format!(
            "{} was retired on {shutdown}: '{}' serves it only if it is not the maker's own server",
            model.id, route.provider
        ))
    });
    retired.collect()
}

fn document(config: &Config, catalog: &Catalog, providers: &Providers) -> Value {
    let routes = |model: &Model| -> Vec<Value> {
        let routes = model.routes.iter();
        routes
            .map(|route| {
                json!({
                    "provider": route.provider,
                    "upstream_model": route.upstream_model,
                    "on": providers.state(&route.provider).is_ok(),
                    "edits": route.edits.as_ref().map(|edits| json!({
                        "max_images": edits.max_images,
                        "mask": edits.mask,
                        "upstream_model": edits.route.upstream_model,
                        "pricing": edits.route.price.to_json(markup(&edits.route, config)),
                    })),
                    "varies": route.varies,
                    "pricing": route.price.to_json(markup(route, config)),
                })
            })
            .collect()
    };
    let (models, listed) = (catalog.models().iter(), providers.0.iter());
    json!({
        "file": config.file,
        "store": config.images.store.to_string(),
        "admin": config.admin.token.is_some(),
        "providers": listed.map(|(name, (adapter, _))| json!({
            "name": name,
            "adapter": adapter,
            "on": providers.state(name).is_ok(),
            "reason": providers.state(name).err(),
        })).collect::<Vec<_>>(),
        "models": models.map(|model| json!({
            "id": model.id,
            "aliases": model.aliases,
            "snapshots": model.snapshots,
            "status": status_word(model.status),
            "shutdown_date": shutdown(model.status),
            "routes": routes(model),
        })).collect::<Vec<_>>(),
        "warnings": warnings(catalog, providers),
    })
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Deprecated { .. } => "deprecated",
        Status::Retired { .. } => "retired",
    }
}

fn shutdown(status: Status) -> Option<String> {
    match status {
        Status::Active => None,
        Status::Deprecated { shutdown } => shutdown.map(|date| date.to_string()),
        Status::Retired { shutdown } => Some(shutdown.to_string()),
    }
}
