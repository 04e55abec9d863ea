//! `/admin/v1/models`: the catalog with all routes, those that are off too, and what each costs here.

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{Admin, Desk, error::AdminError, extract::Named, page::List, providers::word};
use crate::{
    catalog::{Model, Price, Route, Rules},
    providers::registry::Switch,
};

/// A model with its routes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AdminModel")]
pub(super) struct ModelJson {
    object: &'static str,
    id: String,
    name: String,
    aliases: Vec<String>,
    snapshots: Vec<String>,
    created: i64,
    owned_by: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shutdown_date: Option<String>,
    #[schemars(with = "Rules")]
    supported_parameters: Value,
    /// In the catalog's order.
    routes: Vec<RouteJson>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelRoute")]
struct RouteJson {
    provider: String,
    upstream_model: String,
    /// The model that it really leads to, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    serves: Option<String>,
    on: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    standing: &'static str,
    images_per_call: u8,
    /// On top of the published price, for accounts without a markup of their own.
    markup_basis_points: u32,
    /// With that markup.
    #[schemars(with = "Option<Price>")]
    pricing: Value,
}

/// `GET /admin/v1/models`
pub(super) async fn list(State(desk): State<Desk>) -> Json<List<ModelJson>> {
    let models = desk.app.gateway.rooms().catalog.models().iter();
    List::whole(models.map(|model| describe(&desk, model)).collect())
}

/// `GET /admin/v1/models/{id}`, by id or alias.
pub(super) async fn show(
    State(desk): State<Desk>,
    Named(id): Named,
) -> Result<Json<ModelJson>, AdminError> {
    let found = desk.app.gateway.rooms().catalog.find(&id);
    let model = found.ok_or_else(|| AdminError::not_found("model", &id))?;
    Ok(Json(describe(&desk, model)))
}

fn describe(desk: &Admin, model: &Model) -> ModelJson {
    ModelJson {
        object: "model",
        id: model.id.clone(),
        name: model.name.clone(),
        aliases: model.aliases.clone(),
        snapshots: model.snapshots.clone(),
        created: model.created,
        owned_by: model.owned_by.clone(),
        status: model.status.as_str(),
        shutdown_date: model.status.shutdown_date().map(|date| date.to_string()),
        supported_parameters: model.rules.to_json(),
        routes: model
            .routes
            .iter()
            .map(|route| describe_route(desk, route))
            .collect(),
    }
}

fn describe_route(desk: &Admin, route: &Route) -> RouteJson {
    let rooms = desk.app.gateway.rooms();
    let slot = rooms.providers.get(&route.provider);
    let reason = match slot.map(|slot| &slot.switch) {
        Some(Switch::On(_)) => None,
        Some(Switch::Off(reason)) => Some(reason.clone()),
        None => Some("not configured".to_owned()),
    };
    let condition = rooms
        .health
        .condition(&route.provider, &route.upstream_model, Instant::now());
    let markup = route
        .markup_basis_points
        .or(slot.map(|slot| slot.markup_basis_points))
        .unwrap_or_default();
    RouteJson {
        provider: route.provider.clone(),
        upstream_model: route.upstream_model.clone(),
        serves: route.serves.clone(),
        on: reason.is_none(),
        reason,
        standing: word(condition.standing),
        images_per_call: route.images_per_call.get(),
        markup_basis_points: markup,
        pricing: route.price.to_json(markup),
    }
}
