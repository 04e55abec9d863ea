//! Which adapters there are, and how a `[providers.NAME]` section becomes a provider.

use std::{collections::BTreeMap, sync::Arc};

use super::Provider;
use crate::config::ProviderConfig;

/// A configured provider: ready, or off for a reason a person can act on.
#[derive(Debug, Clone)]
pub enum Switch {
    /// Ready to be called.
    On(Arc<dyn Provider>),
    /// Off, and why (`OPENAI_API_KEY is not set`).
    Off(String),
}

/// Builds every configured provider. `max_picture_bytes` (`[images] max_size`) is what a single picture
/// may weigh; the caps on answers follow from it.
///
/// # Errors
/// A sentence naming the section, the key and what is wrong with it.
pub fn build(
    sections: &BTreeMap<String, ProviderConfig>,
    max_picture_bytes: u64,
) -> Result<BTreeMap<String, Switch>, String> {
    let _ = (sections, max_picture_bytes);
    todo!()
}
