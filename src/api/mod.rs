//! The OpenAI-compatible surface: HTTP in, typed orders to the gateway, OpenAI's JSON out.
//!
//! Knows axum and status codes; knows no SQL, no provider's name and no price. [`router`](mod@router) is the table of
//! contents; each endpoint has a file of its own.

mod answer;
mod asked;
mod auth;
mod body;
mod cancel;
mod client;
mod cors;
mod credits;
mod deliver;
mod docs;
mod edit_json;
mod edits;
mod error;
mod extract;
mod files;
mod followed;
mod form;
mod generations;
mod health;
mod history;
mod idle;
mod later;
mod metrics;
mod middleware;
mod models;
mod multipart;
mod object;
pub(crate) mod openapi;
mod params;
mod pictures;
mod prefer;
mod rates;
mod relayed;
mod router;
pub(crate) mod routes;
pub mod server;
mod source;
mod stream;
pub mod tls;
mod unread;
mod unreadable;
mod uploads;

use std::{sync::Arc, time::Duration};

#[cfg(test)]
pub(crate) use self::router::served;
pub(crate) use self::{
    auth::bearer,
    body::{describe, json_bytes},
    error::{INVALID, Parts, excerpt},
};
pub use self::{
    client::Proxies,
    error::ApiError,
    openapi::Document,
    router::{metrics_router, router},
};
use crate::{
    budget::Budget,
    clock::Clock,
    gateway::Gateway,
    images::{Fetcher, Spool},
    keys::Keys,
    ledger::Ledger,
    reload::Reloads,
    webhooks::Targets,
};

/// Everything the endpoints work with under one configuration.
#[derive(Debug, Clone)]
pub struct App {
    /// The way of a request.
    pub gateway: Arc<Gateway>,
    /// Who may come in.
    pub keys: Keys,
    /// The books, for reading.
    pub ledger: Ledger,
    /// What time it is.
    pub clock: Clock,
    /// Whom to believe where a client is.
    pub proxies: Proxies,
    /// Where uploads are while they are worked on.
    pub spool: Spool,
    /// The room that JSON bodies have while they are read.
    pub bodies: Budget,
    /// Opens links to pictures, where the operator allows it.
    pub fetcher: Option<Fetcher>,
    /// Where webhooks may go.
    pub webhook_targets: Targets,
    /// How much a client may send, and how slowly.
    pub limits: Limits,
    /// What became of the configuration on disk.
    pub reloads: Reloads,
    /// What all this is, for programs.
    pub document: Document,
}

/// How much a client may send, and how slowly; and how long it is left without a word.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest JSON body, in bytes.
    pub json_body_bytes: usize,
    /// How long a body may pause.
    pub body_idle_timeout: Duration,
    /// How long a JSON body may take to arrive.
    pub body_timeout: Duration,
    /// The largest form of an edit, in bytes; its JSON may be as much larger as base64 is.
    pub upload_bytes: usize,
    /// The largest picture in it, in bytes.
    pub upload_picture_bytes: u64,
    /// How many pictures there may be in it.
    pub upload_pictures: usize,
    /// How long it may take to arrive.
    pub upload_timeout: Duration,
    /// How long a stream may be silent before a comment says that it lives.
    pub keepalive: Duration,
    /// How many webhooks of one key may be pending when it asks for another.
    pub pending_webhooks: usize,
}
