//! Which adapters there are, and how a `[providers.NAME]` section becomes a provider.
//!
//! Adding an adapter is a line in [`ADAPTERS`]. Which keys a section may have is checked where it is read,
//! with file and line; what they mean is each adapter's business.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Provider, google::Google, openai::OpenAi, replicate::Replicate, sandbox::Sandbox,
    stability::Stability,
};
use crate::config::ProviderConfig;

/// A configured provider: ready, or off for a reason a person can act on.
#[derive(Debug, Clone)]
pub enum Switch {
    /// Ready to be called.
    On(Arc<dyn Provider>),
    /// Off, and why (`OPENAI_API_KEY is not set`).
    Off(String),
}

/// How an adapter makes a provider: name, section, and what a single picture may weigh, in bytes.
type Constructor = fn(&str, &ProviderConfig, u64) -> Result<Arc<dyn Provider>, String>;

/// The value of `adapter`, and what it makes.
const ADAPTERS: &[(&str, Constructor)] = &[
    ("openai", |name, config, max_picture_bytes| {
        Ok(Arc::new(OpenAi::new(name, config, max_picture_bytes)?))
    }),
    ("stability", |name, config, max_picture_bytes| {
        Ok(Arc::new(Stability::new(name, config, max_picture_bytes)?))
    }),
    ("replicate", |name, config, max_picture_bytes| {
        Ok(Arc::new(Replicate::new(name, config, max_picture_bytes)?))
    }),
    ("google", |name, config, max_picture_bytes| {
        Ok(Arc::new(Google::with_key(name, config, max_picture_bytes)?))
    }),
    ("vertex", |name, config, max_picture_bytes| {
        Ok(Arc::new(Google::with_account(
            name,
            config,
            max_picture_bytes,
        )?))
    }),
    ("sandbox", |_, config, _| {
        Ok(Arc::new(Sandbox::new(config.delay, config.timeout)))
    }),
];

/// Builds every configured provider. `max_picture_bytes` (`[images] max_size`) is what a single picture
/// may weigh; the caps on answers follow from it.
///
/// A provider is off when its section says `enabled = false` or its secret cannot be found. A section
/// without any `api_key` is on: its server wants none.
///
/// # Errors
/// A sentence naming the section, the key and what is wrong with it.
pub fn build(
    sections: &BTreeMap<String, ProviderConfig>,
    max_picture_bytes: u64,
) -> Result<BTreeMap<String, Switch>, String> {
    sections
        .iter()
        .map(|(name, config)| {
            let switch = build_one(name, config, max_picture_bytes)?;
            Ok((name.clone(), switch))
        })
        .collect()
}

/// Builds one of them.
///
/// # Errors
/// As [`build`].
pub fn build_one(
    name: &str,
    config: &ProviderConfig,
    max_picture_bytes: u64,
) -> Result<Switch, String> {
    switch(name, config, max_picture_bytes)
        .map_err(|problem| format!("[providers.{name}] {problem}"))
}

fn switch(name: &str, config: &ProviderConfig, max_picture_bytes: u64) -> Result<Switch, String> {
    let Some((_, construct)) = ADAPTERS.iter().find(|(word, _)| *word == config.adapter) else {
        let words = ADAPTERS.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        return Err(format!(
            "adapter '{}' is not one of {}",
            config.adapter,
            words.join(", ")
        ));
    };
    if !config.enabled {
        return Ok(Switch::Off("enabled = false".to_owned()));
    }
    if let (None, Some(reason)) = (&config.api_key, &config.api_key_missing) {
        return Ok(Switch::Off(reason.clone()));
    }
    construct(name, config, max_picture_bytes).map(Switch::On)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::OnDisconnect;

    fn section(adapter: &str) -> ProviderConfig {
        ProviderConfig {
            adapter: adapter.to_owned(),
            enabled: true,
            base_url: (adapter == "openai").then(|| "http://127.0.0.1:9/v1".to_owned()),
            api_key: None,
            api_key_missing: None,
            timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            max_in_flight: 1,
            result_hosts: Vec::new(),
            retry_after_send: false,
            on_disconnect: OnDisconnect::Finish,
            markup_basis_points: 0,
            delay: Duration::ZERO,
            cloud: None,
        }
    }

    /// `on`, the reason for being off, or the error.
    fn check(section: ProviderConfig, expected: &str) {
        let sections = BTreeMap::from([("painter".to_owned(), section)]);
        let outcome = match build(&sections, 1000) {
            Ok(mut built) => match built.remove("painter").unwrap() {
                Switch::On(_) => "on".to_owned(),
                Switch::Off(reason) => reason,
            },
            Err(problem) => problem,
        };
        assert_eq!(outcome, expected);
    }

    #[test]
    fn sections_become_providers() {
        check(section("sandbox"), "on");
        check(section("openai"), "on");
        check(
            ProviderConfig {
                api_key: Some("sk-1".into()),
                ..section("openai")
            },
            "on",
        );
        check(
            ProviderConfig {
                api_key_missing: Some("OPENAI_API_KEY is not set".to_owned()),
                ..section("openai")
            },
            "OPENAI_API_KEY is not set",
        );
        check(
            ProviderConfig {
                enabled: false,
                ..section("openai")
            },
            "enabled = false",
        );
        check(
            section("dalle"),
            "[providers.painter] adapter 'dalle' is not one of openai, stability, replicate, google, vertex, sandbox",
        );
        check(
            ProviderConfig {
                base_url: None,
                ..section("openai")
            },
            "[providers.painter] api_key is not set",
        );
        check(
            ProviderConfig {
                api_key: Some("sk-\n1".into()),
                ..section("openai")
            },
            "[providers.painter] api_key has characters that a header cannot carry",
        );
        for (base_url, problem) in [
            (
                "nowhere",
                "base_url 'nowhere' is no URL: relative URL without a base",
            ),
            (
                "ftp://a/v1",
                "base_url 'ftp://a/v1' must begin with https:// or http://",
            ),
            (
                "https://me:secret@a/v1",
                "base_url must not hold a user name or password",
            ),
            (
                "https://a/v1?key=1",
                "base_url 'https://a/v1?key=1' must end with its path",
            ),
        ] {
            check(
                ProviderConfig {
                    base_url: Some(base_url.to_owned()),
                    ..section("openai")
                },
                &format!("[providers.painter] {problem}"),
            );
        }
        check(
            ProviderConfig {
                result_hosts: vec!["https://cdn".to_owned()],
                ..section("openai")
            },
            "[providers.painter] result_hosts: 'https://cdn' is no host or host:port",
        );
    }

    #[test]
    fn a_provider_shows_no_key() {
        for (word, construct) in ADAPTERS {
            let config = ProviderConfig {
                api_key: Some("sk-secret".into()),
                ..section("openai")
            };
            // Vertex has no key but a file, and says so.
            let Ok(provider) = construct("painter", &config, 1000) else {
                assert_eq!(*word, "vertex");
                continue;
            };
            let shown = format!("{provider:?}");
            assert!(!shown.contains("secret"), "{word}: {shown}");
        }
    }
}
