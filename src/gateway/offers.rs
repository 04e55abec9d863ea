//! What a key can use: the models with a provider that is switched on, and what they cost it.

use std::{borrow::Cow, sync::Arc};

use super::{Gateway, GatewayError, admit};
use crate::{
    catalog::{Model, Route, Rules},
    keys::ApiKey,
};

/// A model as one key sees it.
#[derive(Debug)]
pub struct Offer<'a> {
    /// The model.
    pub model: &'a Arc<Model>,
    /// Its rules, as far as this key may use them.
    pub rules: Cow<'a, Rules>,
    /// The routes that would be tried, with the markup that goes on each; never empty.
    pub routes: Vec<(&'a Arc<Route>, u32)>,
}

impl Gateway {
    /// Every model this key can use, in the catalog's order.
    pub fn offers(&self, key: &ApiKey) -> Vec<Offer<'_>> {
        self.rooms
            .catalog
            .models()
            .iter()
            .filter_map(|model| self.offer(key, model).ok())
            .collect()
    }

    /// One model by id or alias.
    ///
    /// # Errors
    /// [`GatewayError::ModelNotFound`], [`GatewayError::ModelForbidden`] or
    /// [`GatewayError::ModelUnavailable`].
    pub fn find_offer(&self, key: &ApiKey, name: &str) -> Result<Offer<'_>, GatewayError> {
        let catalog = &self.rooms.catalog;
        let model = catalog
            .find(name)
            .ok_or_else(|| GatewayError::ModelNotFound {
                name: name.to_owned(),
                nearest: catalog.nearest(name).map(str::to_owned),
            })?;
        self.offer(key, model)
    }

    fn offer<'a>(&'a self, key: &ApiKey, model: &'a Arc<Model>) -> Result<Offer<'a>, GatewayError> {
        admit::check_allowed(key, model)?;
        let mut routes = Vec::new();
        let mut reasons = Vec::new();
        for route in &model.routes {
            match admit::candidacy(&self.rooms.providers, key, route) {
                Ok(candidacy) => routes.push((route, candidacy.markup_basis_points)),
                Err(why) => reasons.push((route.provider.clone(), why)),
            }
        }
        if routes.is_empty() {
            return Err(GatewayError::ModelUnavailable {
                model: model.id.clone(),
                reasons,
            });
        }
        Ok(Offer {
            model,
            rules: admit::priced_rules(key.mode, model),
            routes,
        })
    }
}
