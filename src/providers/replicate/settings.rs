//! What a `[providers.NAME]` section with `adapter = "replicate"` means.

use reqwest::header::HeaderMap;

use crate::{config::ProviderConfig, providers::http};

/// Where Replicate is (`contracts/replicate.md`, section 1).
const DEFAULT_BASE_URL: &str = "https://api.replicate.com/v1";

/// Where to call, and with what.
pub(super) struct Settings<'a> {
    pub(super) base_url: &'a str,
    /// The token, or nothing.
    pub(super) headers: HeaderMap,
}

impl<'a> Settings<'a> {
    /// # Errors
    /// A sentence naming the key that is wrong or missing.
    pub(super) fn read(config: &'a ProviderConfig) -> Result<Self, String> {
        let base_url = config.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let headers = match &config.api_key {
            Some(secret) => http::bearer(secret)?,
            // Something in between may know the token.
            None if base_url.trim_end_matches('/') != DEFAULT_BASE_URL => HeaderMap::new(),
            None => return Err("api_key is not set".to_owned()),
        };
        Ok(Self { base_url, headers })
    }
}
