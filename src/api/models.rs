//! `GET /v1/models` and `GET /v1/models/{id}`: the catalog as the caller's key can use it.

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ApiError, App,
    auth::Authenticated,
    extract::{PathText, Queried},
};
use crate::{
    catalog::{Price, Rules, Status},
    gateway::Offer,
};

/// The filter of the listing.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ModelFilter")]
pub(super) struct Filter {
    /// Only models that make these, with commas between them. Every model here makes `image`.
    output_modalities: Option<String>,
}

/// `OpenAI`'s list object.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelList")]
pub(super) struct List {
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    data: Vec<ModelJson>,
}

/// `OpenAI`'s model object with what a caller needs to know before asking for a picture.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
pub(super) struct ModelJson {
    id: String,
    #[schemars(extend("const" = "model"))]
    object: &'static str,
    /// Unix seconds.
    created: i64,
    owned_by: String,
    /// For people.
    name: String,
    /// Other names that it can be asked for by.
    aliases: Vec<String>,
    #[schemars(extend("enum" = ["active", "deprecated", "retired"]))]
    status: &'static str,
    /// The day after which its maker does not serve it.
    shutdown_date: Option<String>,
    architecture: Architecture,
    #[schemars(with = "Rules")]
    supported_parameters: Value,
    /// Of the route that is tried first.
    #[schemars(with = "Option<Price>")]
    pricing: Value,
    /// Who serves it, in the order in which they are tried.
    providers: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Architecture {
    input_modalities: &'static [&'static str],
    output_modalities: &'static [&'static str],
}

/// `GET /v1/models`
pub(super) async fn list(
    State(app): State<App>,
    Authenticated(key): Authenticated,
    Queried(filter): Queried<Filter>,
) -> Json<List> {
    // Every model here makes images and nothing else.
    let wanted = filter
        .output_modalities
        .is_none_or(|wanted| wanted.split(',').any(|modality| modality.trim() == "image"));
    let data = if wanted {
        app.gateway.offers(&key).iter().map(model).collect()
    } else {
        Vec::new()
    };
    Json(List {
        object: "list",
        data,
    })
}

/// `GET /v1/models/{id}`; ids contain slashes, and aliases and snapshots are found too.
pub(super) async fn show(
    State(app): State<App>,
    Authenticated(key): Authenticated,
    PathText(id): PathText,
) -> Result<Json<ModelJson>, ApiError> {
    let offer = app.gateway.find_offer(&key, id.trim_end_matches('/'))?;
    Ok(Json(model(&offer)))
}

fn model(offer: &Offer<'_>) -> ModelJson {
    let model = offer.model;
    let (status, shutdown) = match model.status {
        Status::Active => ("active", None),
        Status::Deprecated { shutdown } => ("deprecated", shutdown),
        Status::Retired { shutdown } => ("retired", Some(shutdown)),
    };
    ModelJson {
        id: model.id.clone(),
        object: "model",
        created: model.created,
        owned_by: model.owned_by.clone(),
        name: model.name.clone(),
        aliases: model.names().skip(1).map(str::to_owned).collect(),
        status,
        shutdown_date: shutdown.map(|date| date.to_string()),
        architecture: Architecture {
            input_modalities: match model.rules.input_images() {
                Some(_) => &["text", "image"],
                None => &["text"],
            },
            output_modalities: &["image"],
        },
        supported_parameters: offer.rules.to_json(),
        pricing: offer
            .routes
            .first()
            .map_or(Value::Null, |(route, markup)| route.price.to_json(*markup)),
        providers: offer
            .routes
            .iter()
            .map(|(route, _)| route.provider.clone())
            .collect(),
    }
}
