//! Admission: everything that can be decided before money moves. Pure but for the clock and a new id.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::{Duration, Instant};

use super::{Gateway, GatewayError, GatewaySettings, Order, ProviderSlot, Rooms};
use crate::{
    catalog::{Catalog, ImageRequest, Model, PriceError, Route, Unsupported},
    ids::GenerationId,
    keys::{ApiKey, Mode, UnsupportedParameters},
    money::NanoUsd,
    providers::{Provider, registry::Switch},
    routing::{self, Candidate},
};

/// The provider that paints for test keys.
pub(super) const SANDBOX: &str = "sandbox";

/// The whole way of one request may take this long; providers have shorter timeouts of their own.
const LONGEST_GENERATION: Duration = Duration::from_secs(60 * 60);

/// An admitted request: checked, priced, with the routes it may take.
pub(super) struct Admission {
    pub(super) generation: GenerationId,
    pub(super) order: Order,
    pub(super) model: Arc<Model>,
    pub(super) request: Arc<ImageRequest>,
    /// Parameters left out because the model does not take them.
    pub(super) dropped: Vec<&'static str>,
    /// In the order in which they are tried; never empty.
    pub(super) routes: Vec<Candidacy>,
    /// The dearest route's largest price: the hold.
    pub(super) largest_price: NanoUsd,
    pub(super) deadline: Instant,
}

/// One way to serve the request, ready to be tried.
pub(super) struct Candidacy {
    pub(super) route: Arc<Route>,
    /// Who really serves it: the route's provider, or the sandbox for a test key.
    pub(super) provider_name: String,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) markup_basis_points: u32,
    pub(super) retry_after_send: bool,
    pub(super) cancel_on_disconnect: bool,
}

impl Admission {
    /// The end user as the request named them; `safety_identifier` wins (contracts/openai-images.md, 1.1).
    pub(super) fn end_user(&self) -> Option<String> {
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        named(&self.request.safety_identifier).or_else(|| named(&self.request.user))
    }
}

/// Admits a request, or says why not.
pub(super) fn admit(
    rooms: &Rooms,
    settings: &GatewaySettings,
    order: Order,
) -> Result<Admission, GatewayError> {
    let model = find_model(&rooms.catalog, settings, &order)?;
    check_allowed(&order.key, &model)?;
    let unsupported = match order.key.unsupported_parameters {
        UnsupportedParameters::Reject => Unsupported::Reject,
        UnsupportedParameters::Drop => Unsupported::Drop,
    };
    let (request, dropped) = model
        .rules
        .check(&order.params, unsupported)
        .map_err(GatewayError::Violation)?;
    let routes = find_routes(&rooms.providers, &order, &model, &request)?;
    let mut largest_price = NanoUsd::ZERO;
    for candidacy in &routes {
        largest_price = largest_price.max(largest(candidacy, &request)?);
    }
    Ok(Admission {
        generation: Gateway::new_generation(),
        order,
        model,
        request: Arc::new(request),
        dropped: dropped
            .into_iter()
            .map(|parameter| parameter.as_str())
            .collect(),
        routes,
        largest_price,
        deadline: Instant::now() + LONGEST_GENERATION,
    })
}

fn find_model(
    catalog: &Catalog,
    settings: &GatewaySettings,
    order: &Order,
) -> Result<Arc<Model>, GatewayError> {
    let name = match (&order.model, &settings.default_model) {
        (Some(named), _) => named.as_str(),
        (None, None) => Catalog::default_model(&order.params),
        (None, Some(default)) if default.is_empty() => return Err(GatewayError::MissingModel),
        (None, Some(default)) => default,
    };
    catalog
        .find(name)
        .cloned()
        .ok_or_else(|| GatewayError::ModelNotFound {
            name: name.to_owned(),
            nearest: catalog.nearest(name).map(str::to_owned),
        })
}

pub(super) fn check_allowed(key: &ApiKey, model: &Model) -> Result<(), GatewayError> {
    match &key.models {
        Some(allowed) if !allowed.contains(&model.id) => Err(GatewayError::ModelForbidden {
            model: model.id.clone(),
            allowed: allowed.clone(),
        }),
        _ => Ok(()),
    }
}

/// The routes this request may take, in the order in which they are tried.
fn find_routes(
    providers: &BTreeMap<String, ProviderSlot>,
    order: &Order,
    model: &Model,
    request: &ImageRequest,
) -> Result<Vec<Candidacy>, GatewayError> {
    for (field, name) in order.preferences.named_providers() {
        let known = |slot: &&String| slot.eq_ignore_ascii_case(name);
        let on_a_route = |route: &Arc<Route>| route.provider.eq_ignore_ascii_case(name);
        if !providers.keys().any(|slot| known(&slot)) && !model.routes.iter().any(on_a_route) {
            return Err(GatewayError::UnknownProvider {
                field,
                name: name.to_owned(),
                known: providers.keys().cloned().collect(),
            });
        }
    }

    let mut open = Vec::with_capacity(model.routes.len());
    let mut candidates = Vec::with_capacity(model.routes.len());
    for route in &model.routes {
        let candidacy = candidacy(providers, order.key.mode, route);
        let price_per_image = match &candidacy {
            Ok(candidacy) => largest(candidacy, request)?
                .fraction_half_up(1, u64::from(request.n.get()))
                .map_err(internal)?,
            Err(_) => NanoUsd::ZERO,
        };
        candidates.push((route.provider.as_str(), price_per_image));
        open.push(candidacy);
    }
    let candidates: Vec<Candidate<'_>> = candidates
        .into_iter()
        .zip(&open)
        .map(|((provider, price_per_image), candidacy)| Candidate {
            provider,
            unavailable: candidacy.as_ref().err().map(String::as_str),
            price_per_image,
        })
        .collect();
    let ranked = routing::rank(&candidates, &order.preferences).map_err(|refused| {
        if refused.by_preference {
            GatewayError::NoRoute(refused)
        } else {
            GatewayError::ModelUnavailable {
                model: model.id.clone(),
                reasons: refused.reasons,
            }
        }
    })?;
    let mut open: Vec<Option<Candidacy>> = open.into_iter().map(Result::ok).collect();
    Ok(ranked
        .into_iter()
        .filter_map(|index| open.get_mut(index).and_then(Option::take))
        .collect())
}

/// A route together with who serves it, or why nobody does. Test keys go by the route's rules and price,
/// and the sandbox paints.
pub(super) fn candidacy(
    providers: &BTreeMap<String, ProviderSlot>,
    mode: Mode,
    route: &Arc<Route>,
) -> Result<Candidacy, String> {
    let served_by = match mode {
        Mode::Live => route.provider.as_str(),
        Mode::Test => SANDBOX,
    };
    let slot = providers
        .get(served_by)
        .ok_or_else(|| format!("there is no [providers.{served_by}] section"))?;
    let provider = match &slot.switch {
        Switch::On(provider) => Arc::clone(provider),
        Switch::Off(why) => return Err(why.clone()),
    };
    // The markup is part of the price, so it is the priced route's also where the sandbox paints.
    let priced = providers.get(&route.provider).unwrap_or(slot);
    Ok(Candidacy {
        route: Arc::clone(route),
        provider_name: served_by.to_owned(),
        provider,
        markup_basis_points: route
            .markup_basis_points
            .unwrap_or(priced.markup_basis_points),
        retry_after_send: slot.retry_after_send,
        cancel_on_disconnect: slot.cancel_on_disconnect,
    })
}

fn largest(candidacy: &Candidacy, request: &ImageRequest) -> Result<NanoUsd, GatewayError> {
    candidacy
        .route
        .price
        .largest(request, candidacy.markup_basis_points)
        .map_err(|error: PriceError| internal(error))
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> GatewayError {
    GatewayError::Internal(Box::new(error))
}
