//! Everything a test needs: the real binary on its own database and directory, a fake upstream, and a
//! client that says what it expected.
//!
//! Knows Easel only from outside: its command line, its configuration, its HTTP and its tables. No code
//! of the library is called, so that a test proves what a user gets.

mod app;
mod client;
mod cluster;
mod contract;
mod database;
pub(crate) mod fake_google;
pub(crate) mod fake_openai;
pub(crate) mod fake_replicate;
pub(crate) mod fake_stability;
mod models;
pub(crate) mod pictures;
mod process;
mod proxy;
pub(crate) mod raw;
pub(crate) mod receiver;
pub(crate) mod s3;
mod secrets;
mod settings;
mod waiting;

pub(crate) use self::{
    app::{App, Builder, Key, Replica, usd},
    client::{Answer, Client},
    cluster::Cluster,
    contract::{Contract, Seen},
    database::Database,
    fake_openai::{Behaviour, FakeOpenAi, Reply},
    models::model,
    process::{Easel, Output, run_easel},
    proxy::Proxy,
    secrets::Secrets,
    waiting::{until, until_some},
};
