//! What a `[providers.NAME]` section with `adapter = "stability"` means.

use reqwest::header::HeaderMap;

use crate::{config::ProviderConfig, providers::http};

/// Where Stability is (`contracts/stability.md`, section 1).
const DEFAULT_BASE_URL: &str = "https://api.stability.ai";

/// Where to call, and with what.
pub(super) struct Settings<'a> {
    pub(super) base_url: &'a str,
    pub(super) headers: HeaderMap,
}

impl<'a> Settings<'a> {
    /// # Errors
    /// A sentence naming the key that is wrong or missing.
    pub(super) fn read(config: &'a ProviderConfig) -> Result<Self, String> {
        let api_key = config.api_key.as_ref().ok_or("api_key is not set")?;
        Ok(Self {
            base_url: config.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL),
            headers: http::bearer(api_key)?,
        })
    }
}
