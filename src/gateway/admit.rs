//! Admission: everything that can be decided before money moves. Pure but for the clock and a new id.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::time::{Duration, Instant};

use super::{
    Gateway, GatewayError, GatewaySettings, Order, ProviderSlot, Reader, Rooms, inputs,
    relay::Shows,
};
use crate::{
    catalog::{
        Catalog, ImageRequest, ImageSize, Model, Parameter, Params, ResponseFormat, Route, Rules,
        Unsupported, Value, Violation,
    },
    ids::GenerationId,
    keys::{ApiKey, Mode, UnsupportedParameters},
    money::NanoUsd,
    providers::{Provider, Task, registry::Switch},
    routing::{self, Candidate, Condition},
};

/// The provider that paints for test keys.
pub(super) const SANDBOX: &str = "sandbox";

/// The whole way of one request may take this long; providers have shorter timeouts of their own.
pub const LONGEST_GENERATION: Duration = Duration::from_hours(1);

/// An admitted request: checked, priced, with the routes it may take.
pub(super) struct Admission {
    pub(super) generation: GenerationId,
    pub(super) order: Order,
    pub(super) model: Arc<Model>,
    pub(super) request: Arc<ImageRequest>,
    /// What it is painted from.
    pub(super) task: Task,
    /// The sizes of the pictures in it that are charged for, the mask not among them.
    pub(super) input_images: Vec<ImageSize>,
    /// Parameters left out because the model does not take them.
    pub(super) dropped: Vec<&'static str>,
    /// What the caller wants to see before the end.
    pub(super) shows: Shows,
    /// In the order in which they are tried; never empty.
    pub(super) routes: Vec<Candidacy>,
    pub(super) deadline: Instant,
    /// Whether it may turn out to repeat another one's request.
    pub(super) joins: bool,
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
    pub(super) is_replaced: Arc<AtomicBool>,
    /// The most that the whole request can cost here.
    pub(super) largest_price: NanoUsd,
}

impl Admission {
    /// What the routes can cost at most, each amount once, dearest first: what may be held.
    pub(super) fn largest_prices(&self) -> Vec<NanoUsd> {
        let mut prices: Vec<NanoUsd> = self
            .routes
            .iter()
            .map(|candidacy| candidacy.largest_price)
            .collect();
        prices.sort_unstable_by(|one, other| other.cmp(one));
        prices.dedup();
        prices
    }

    /// Whether the pictures of some route have to be in the store.
    pub(super) fn needs_store(&self) -> bool {
        self.always_needs_store() || self.routes.iter().any(|route| self.is_stored(route))
    }

    /// Leaves only the routes that need no store. Returns whether there are any.
    pub(super) fn do_without_store(&mut self) -> bool {
        if self.always_needs_store() {
            return false;
        }
        let mut routes = std::mem::take(&mut self.routes);
        routes.retain(|route| !self.is_stored(route));
        self.routes = routes;
        !self.routes.is_empty()
    }

    /// For links, or because the client means to ask for them again, or later.
    fn always_needs_store(&self) -> bool {
        self.request.response_format == ResponseFormat::Url
            || self.order.idempotency_key.is_some()
            || self.order.reader == Reader::ComesBack
    }

    /// Because the pictures come from several calls, or may turn out to be none at their end.
    fn is_stored(&self, candidacy: &Candidacy) -> bool {
        candidacy.route.images_per_call < self.request.n || candidacy.provider.doubts_pictures()
    }

    /// Leaves only the routes that a hold of this much pays for.
    pub(super) fn keep_within(&mut self, hold: NanoUsd) {
        self.routes
            .retain(|candidacy| candidacy.largest_price <= hold);
    }

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
    mut order: Order,
) -> Result<Admission, GatewayError> {
    let model = find_model(&rooms.catalog, settings, &order)?;
    check_allowed(&order.key, &model)?;
    let unsupported = match order.key.unsupported_parameters {
        UnsupportedParameters::Reject => Unsupported::Reject,
        UnsupportedParameters::Drop => Unsupported::Drop,
    };
    let rules = inputs::rules_for(&order.task, &model).ok_or_else(|| {
        let others = inputs::others(rooms, &order);
        GatewayError::Violation(inputs::not_this_model(&order.task, &model, &others))
    })?;
    let (request, dropped) = rules
        .check(&order.params, unsupported)
        .map_err(GatewayError::Violation)?;
    inputs::check(&order.task, rules, &order.params, &request).map_err(GatewayError::Violation)?;
    check_priced(order.key.mode, &model, &request)?;
    let routes = find_routes(rooms, &order, &model, &request)?;
    // The client says how it reads the answer; what a model makes of the word does not change that.
    let streams = order.params.get(&Parameter::Stream) == Some(&Value::Flag(true));
    let shows = match (order.reader, streams, request.response_format) {
        (Reader::ComesBack, _, _) | (Reader::Waits, false, ResponseFormat::Url) => Shows::Nothing,
        (Reader::Waits, true, _) => Shows::Stream,
        (Reader::Waits, false, ResponseFormat::B64Json) => Shows::Answer,
    };
    // All that is needed of them is in the request: no prompt is kept twice while a provider paints.
    order.params = Params::new();
    let task = std::mem::replace(&mut order.task, Task::Generate);
    Ok(Admission {
        generation: Gateway::new_generation(),
        order,
        model,
        request: Arc::new(request),
        input_images: inputs::image_sizes(&task),
        task,
        dropped: dropped
            .into_iter()
            .filter(|parameter| *parameter != Parameter::Stream || !streams)
            .map(Parameter::as_str)
            .collect(),
        shows,
        routes,
        deadline: Instant::now() + LONGEST_GENERATION,
        joins: true,
    })
}

/// The model that an order names, or that it means by naming none.
pub(super) fn find_model(
    catalog: &Catalog,
    settings: &GatewaySettings,
    order: &Order,
) -> Result<Arc<Model>, GatewayError> {
    let name = match (&order.model, &settings.default_model) {
        (Some(named), _) => named.as_str(),
        (None, None) => match &order.task {
            Task::Generate => Catalog::default_model(&order.params),
            Task::Edit(_) => Catalog::default_editor(),
            Task::Vary(_) => Catalog::default_varier(),
        },
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

/// The model's rules as they are for such keys: without what [`check_priced`] refuses.
pub(super) fn priced_rules(mode: Mode, model: &Model) -> Cow<'_, Rules> {
    if mode == Mode::Test || (model.routes.iter()).all(|route| route.price.covers_vectors()) {
        Cow::Borrowed(&model.rules)
    } else {
        model.rules.without_vectors()
    }
}

/// No price, no service: real money never buys what nobody has priced.
fn check_priced(mode: Mode, model: &Model, request: &ImageRequest) -> Result<(), GatewayError> {
    if mode == Mode::Test || model.routes.iter().all(|route| route.price.covers(request)) {
        return Ok(());
    }
    Err(GatewayError::Violation(Violation {
        parameter: Parameter::OutputFormat.as_str().to_owned(),
        code: "invalid_value",
        message: "Invalid value for 'output_format': 'svg'. The provider bills its writing apart, and it has \
                  no price here yet, so live keys cannot use it."
            .to_owned(),
    }))
}

/// The routes this request may take, in the order in which they are tried.
fn find_routes(
    rooms: &Rooms,
    order: &Order,
    model: &Model,
    request: &ImageRequest,
) -> Result<Vec<Candidacy>, GatewayError> {
    let providers = &rooms.providers;
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

    let able: Vec<Result<Arc<Route>, String>> = model
        .routes
        .iter()
        .map(|route| inputs::route_for(&order.task, route))
        .collect();
    if able.iter().all(Result::is_err) {
        return Err(GatewayError::Violation(inputs::no_able_route(
            &order.task,
            model,
            &able,
        )));
    }

    let now = Instant::now();
    let sizes = inputs::all_sizes(&order.task);
    let mut open = Vec::with_capacity(model.routes.len());
    for route in able {
        let mut open_route = route.and_then(|route| candidacy(providers, &order.key, &route));
        if let Ok(candidacy) = &mut open_route {
            candidacy.largest_price = candidacy
                .route
                .price
                .largest_from(request, &sizes, candidacy.markup_basis_points)
                .map_err(|error| GatewayError::Internal(Box::new(error)))?;
        }
        open.push(open_route);
    }
    let mut candidates = Vec::with_capacity(open.len());
    for (route, open_route) in model.routes.iter().zip(&open) {
        let largest_price = open_route
            .as_ref()
            .map_or(NanoUsd::ZERO, |candidacy| candidacy.largest_price);
        candidates.push(Candidate {
            provider: &route.provider,
            unavailable: open_route.as_ref().err().map(String::as_str),
            price_per_image: largest_price
                .fraction_half_up(1, u64::from(request.n.get()))
                .map_err(|error| GatewayError::Internal(Box::new(error)))?,
            condition: match order.key.mode {
                Mode::Live => {
                    let upstream_model = open_route
                        .as_ref()
                        .map_or(&route.upstream_model, |open| &open.route.upstream_model);
                    rooms.health.condition(&route.provider, upstream_model, now)
                }
                // The sandbox is always well.
                Mode::Test => Condition::UNKNOWN,
            },
        });
    }
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
    key: &ApiKey,
    route: &Arc<Route>,
) -> Result<Candidacy, String> {
    let served_by = match key.mode {
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
    // The markup is part of the price, so it is the priced route's also where the sandbox paints. What was
    // agreed with the account goes before it.
    let priced = providers.get(&route.provider).unwrap_or(slot);
    Ok(Candidacy {
        route: Arc::clone(route),
        provider_name: served_by.to_owned(),
        provider,
        markup_basis_points: key
            .account_markup_basis_points
            .or(route.markup_basis_points)
            .unwrap_or(priced.markup_basis_points),
        retry_after_send: slot.retry_after_send,
        cancel_on_disconnect: slot.cancel_on_disconnect,
        is_replaced: Arc::clone(&slot.is_replaced),
        largest_price: NanoUsd::ZERO,
    })
}
