//! The integration tests: one binary, one file per behaviour.
//!
//! Every test starts the real `easel` with a database and a fake upstream of its own and speaks to it
//! as a user does; see [`support`]. Start them with `tests/run`, which brings up what they need.
#![cfg(test)]

mod admin;
mod balance;
mod billing;
mod cancel;
mod chaos;
mod check_online;
mod commands;
mod configuration;
mod connections;
mod crash;
mod disconnect;
mod drafts;
mod edits;
mod failover;
mod generations;
mod google;
mod history;
mod hostile;
mod idempotency;
mod keys;
mod later;
mod limits;
mod links;
mod logs;
mod metrics;
mod models;
mod networks;
mod newcomer;
mod openai;
mod openapi;
mod outage;
mod prune;
mod readme;
mod refusals;
mod relay;
mod reload;
mod replicas;
mod replicate;
mod rolling;
mod s3;
mod sdk;
mod shutdown;
mod stability;
mod streaming;
mod support;
mod test_keys;
mod the_fake;
mod tls;
mod traces;
mod unpaid;
mod uploads;
mod upstream_failures;
mod usage;
mod web_pages;
mod webhooks;
