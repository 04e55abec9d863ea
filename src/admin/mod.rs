//! The operator's API under `/admin/v1`: accounts, keys, generations, usage, providers, models, configuration.
//!
//! Knows axum and status codes; knows no SQL and no provider's name. One file an endpoint or small noun, with its
//! wire types and handlers; [`router`](mod@router) is the table of contents. What the commands do too is done by
//! the same services, and the words that both take are in [`words`].
//!
//! One form everywhere: lists are `{"object":"list","data":[…],"has_more":…,"next":…}`, newest first, and `next`
//! is what `after` takes; money is a JSON number in USD, exact to the nano-USD; instants are RFC 3339; whatever
//! is not known is refused by name, in `OpenAI`'s envelope.

mod accounts;
mod bookings;
mod config;
mod error;
mod extract;
mod generations;
mod guard;
mod images;
mod keys;
mod limits;
mod models;
pub(crate) mod new_key;
mod openapi;
mod page;
mod providers;
mod router;
mod usage;
pub(crate) mod usage_csv;
mod webhooks;
pub(crate) mod words;

use std::sync::Arc;

use secrecy::SecretString;

use self::{error::AdminError, guard::Guard};
pub use self::{guard::Guesses, openapi::document, router::router};
use crate::{api::App, config::Config, ledger::Account};

/// Everything the operator's endpoints work with.
#[derive(Debug)]
pub struct Admin {
    app: App,
    config: Arc<Config>,
    guard: Guard,
}

/// The state of the handlers.
type Desk = Arc<Admin>;

impl Admin {
    /// The operator's endpoints beside those of `app`, opened by `token`.
    pub fn new(app: App, config: Arc<Config>, token: &SecretString, guesses: Guesses) -> Self {
        Self {
            app,
            config,
            guard: Guard::new(token, guesses),
        }
    }

    /// The account of this id or exact name.
    async fn account(&self, id_or_name: &str) -> Result<Account, AdminError> {
        Ok(self.app.ledger.find_account(id_or_name).await?)
    }

    /// The id of a model by any of its names.
    fn model_id(&self, name: String) -> String {
        words::model_id(&self.app.gateway.rooms().catalog, name)
    }
}
