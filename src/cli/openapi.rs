//! `easel openapi`: what the API is, for programs that make clients.

use std::process::ExitCode;

use serde_json::Value;

use super::output;
use crate::{admin, config::Config};

pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let document = admin::document(&config.public_url);
    let document: Value = serde_json::from_slice(document.text())?;
    output::json(&document)?;
    Ok(ExitCode::SUCCESS)
}
