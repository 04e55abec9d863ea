//! What a `[providers.NAME]` section with `adapter = "openai"` means.
//!
//! A provider whose section names no `api_key` at all gets none: `LocalAI`, vLLM and the like run without.
//! One whose key cannot be found (`api_key = "${OPENAI_API_KEY}"`, and the variable is not set) is off.
//! `OpenAI` itself never runs without.

use reqwest::header::HeaderMap;

use crate::{config::ProviderConfig, providers::http};

/// Where `OpenAI` is.
const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// Where to call, and with what.
pub(super) struct Settings<'a> {
    pub(super) base_url: &'a str,
    /// The key, or nothing.
    pub(super) headers: HeaderMap,
}

impl<'a> Settings<'a> {
    /// # Errors
    /// A sentence naming the key that is wrong or missing.
    pub(super) fn read(config: &'a ProviderConfig) -> Result<Self, String> {
        let base_url = config.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let headers = match &config.api_key {
            Some(secret) => http::bearer(secret)?,
            None if base_url.trim_end_matches('/') == DEFAULT_BASE_URL => {
                return Err("api_key is not set".to_owned());
            }
            None => HeaderMap::new(),
        };
        Ok(Self { base_url, headers })
    }
}
