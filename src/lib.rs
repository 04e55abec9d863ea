//! Easel: one OpenAI-compatible endpoint for every image model.
//!
//! The rooms, from the street to the cellar. Arrows run one way:
//! `cli → api/admin → gateway → {routing, providers, ledger, images} → {catalog, keys, money}`.
//! What each room must *not* know is what makes a change checkable by eye.
//!
//! | room | is for | must not know |
//! |---|---|---|
//! | [`cli`] | commands, wiring, start order, exit codes | how anything works inside |
//! | [`config`] | the file and the environment, as one typed value | everything else |
//! | [`api`] | the OpenAI surface: parse, answer, errors | SQL, provider names |
//! | [`admin`] | the operator's API, and what it shares with the commands | SQL, provider names |
//! | [`webhooks`] | sending and signing what is told of ended generations | our JSON, SQL, money |
//! | [`gateway`] | the one way a request goes: admit → hold → attempt → deliver → settle | axum, SQL, provider JSON |
//! | [`routing`] | which route next | bodies, money tables, sockets |
//! | [`providers`] | one folder per adapter, the shared HTTP client | accounts, holds, prices, SQL |
//! | [`ledger`] | accounts, holds, entries; all that moves money | HTTP, providers, the catalog |
//! | [`keys`] | API keys: secrets, lookup, what a key may do | balances, HTTP |
//! | [`images`] | the picture store, signed links, sniffing | who asked and what it cost |
//! | [`catalog`], [`money`], [`ids`] | models, rules, prices, arithmetic, names | I/O, async, anybody |
//! | [`postgres`] | pool, migrations, the private server | what the tables mean |
//! | [`addresses`] | which of them are public, and networks that somebody lists | for whom and why |
//! | [`budget`] | room in bytes that many share | what is put there |
//! | `json` | JSON documents in pieces, for strings that are pictures | what they mean |
//! | `faults` | where a test lets the process die; nothing in a release build | what happens there |
//! | [`reload`] | what became of the configuration on disk | what it is |
//! | [`telemetry`], [`clock`] | logs, figures and time, usable by all | anybody |

pub mod addresses;
pub mod admin;
pub mod api;
pub mod budget;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
mod faults;
pub mod gateway;
pub mod ids;
pub mod images;
mod json;
pub mod keys;
pub mod ledger;
pub mod money;
pub mod postgres;
pub mod providers;
pub mod reload;
pub mod routing;
pub mod telemetry;
pub mod webhooks;
