//! `[providers.NAME]` sections, and those that are there without a file.
//!
//! A section of a built-in name keeps what it does not set. One of another name must say its adapter, and
//! inherits neither address nor key: `OPENAI_API_KEY` is not for a neighbour's server.

use std::{collections::BTreeMap, time::Duration};

use super::{
    CloudConfig, OnDisconnect, ProviderConfig,
    reader::Section,
    setting::{Host, HttpUrl},
};

/// A provider that is there without a file; its adapter has the same name.
struct BuiltIn {
    name: &'static str,
    /// Whether it is somewhere else, with an address and a key.
    remote: Option<Remote>,
}

/// Its address follows from a location, and its key is a file.
const CLOUD: &str = "vertex";

struct Remote {
    base_url: &'static str,
    api_key: &'static str,
    /// Where its result links lead.
    result_hosts: &'static [&'static str],
}

const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "openai",
        remote: Some(Remote {
            base_url: "https://api.openai.com/v1",
            api_key: "${OPENAI_API_KEY}",
            result_hosts: &[],
        }),
    },
    BuiltIn {
        name: "stability",
        remote: Some(Remote {
            base_url: "https://api.stability.ai",
            api_key: "${STABILITY_API_KEY}",
            result_hosts: &[],
        }),
    },
    BuiltIn {
        name: "replicate",
        remote: Some(Remote {
            base_url: "https://api.replicate.com/v1",
            api_key: "${REPLICATE_API_TOKEN}",
            result_hosts: &["replicate.delivery"],
        }),
    },
    BuiltIn {
        name: "google",
        remote: Some(Remote {
            base_url: "https://generativelanguage.googleapis.com/v1beta",
            api_key: "${GEMINI_API_KEY}",
            result_hosts: &[],
        }),
    },
    BuiltIn {
        name: CLOUD,
        remote: None,
    },
    BuiltIn {
        name: "sandbox",
        remote: None,
    },
];

/// The variable that a provider's key comes from when its section has none.
pub(super) fn key_variable(name: &str) -> Option<&'static str> {
    let built_in = BUILT_IN.iter().find(|built_in| built_in.name == name)?;
    let variable = built_in.remote.as_ref()?.api_key.strip_prefix("${")?;
    variable.strip_suffix('}')
}

/// Reads `[providers]`.
pub(super) fn read(section: &mut Section<'_>) -> BTreeMap<String, ProviderConfig> {
    let built_in = BUILT_IN.iter().map(|built_in| built_in.name.to_owned());
    let mut names: Vec<String> = built_in.collect();
    for (name, origin) in section.names() {
        if names.contains(&name) {
            continue;
        }
        if is_name(&name) {
            names.push(name);
        } else {
            let message = "a provider's name is made of lower-case letters, digits, '-' and '_'";
            section.report(origin, &name, message.to_owned());
            section.discard(&name);
        }
    }
    names
        .into_iter()
        .filter_map(|name| {
            let provider = provider(section, &name)?;
            Some((name, provider))
        })
        .collect()
}

fn provider(section: &mut Section<'_>, name: &str) -> Option<ProviderConfig> {
    let mut names = section.names().into_iter();
    let origin = names.find(|(key, _)| key == name).map(|(_, origin)| origin);
    let (provider, problem) = section.section(name, |section| {
        let adapter = section.value("adapter", name.to_owned());
        let Some(built_in) = BUILT_IN.iter().find(|built_in| built_in.name == adapter) else {
            for (key, _) in section.names() {
                section.discard(&key);
            }
            return (None, Some(unknown_adapter(name, &adapter)));
        };
        // An address and a key belong to the built-in provider, not to everybody who speaks its dialect.
        let remote = built_in.remote.as_ref();
        let own = remote.filter(|_| built_in.name == name);
        let provider = settings(section, adapter, remote.is_some(), own);
        let problem = (remote.is_some() && provider.base_url.is_none())
            .then(|| "needs a base_url".to_owned());
        (Some(provider), problem)
    });
    if let (Some(problem), Some(origin)) = (problem, origin) {
        section.report(origin, name, problem);
    }
    provider
}

fn settings(
    section: &mut Section<'_>,
    adapter: String,
    is_remote: bool,
    own: Option<&Remote>,
) -> ProviderConfig {
    let mut provider = ProviderConfig {
        adapter,
        enabled: section.value("enabled", true),
        base_url: None,
        api_key: None,
        api_key_missing: None,
        timeout: section.duration("timeout", Duration::from_mins(5)),
        idle_timeout: Duration::from_mins(1),
        connect_timeout: Duration::from_secs(10),
        max_in_flight: section.count("max_in_flight", 256),
        result_hosts: Vec::new(),
        retry_after_send: false,
        on_disconnect: section.value("on_disconnect", OnDisconnect::Finish),
        markup_basis_points: section.value("markup_basis_points", 0),
        delay: Duration::ZERO,
        cloud: None,
    };
    let is_cloud = provider.adapter == CLOUD;
    if is_cloud {
        (provider.cloud, provider.api_key_missing) = cloud(section);
        provider.base_url = section.optional("base_url").map(|HttpUrl(url)| url);
    } else if is_remote {
        provider.base_url = section
            .optional("base_url")
            .map(|HttpUrl(url)| url)
            .or_else(|| own.map(|own| own.base_url.to_owned()));
        (provider.api_key, provider.api_key_missing) =
            section.secret("api_key", own.map(|own| own.api_key));
    }
    if is_cloud || is_remote {
        provider.idle_timeout = section.duration("idle_timeout", provider.idle_timeout);
        provider.connect_timeout = section.duration("connect_timeout", provider.connect_timeout);
        let hosts = section.list("result_hosts");
        provider.result_hosts = match hosts {
            Some(hosts) => hosts.into_iter().map(|Host(host)| host).collect(),
            None => own
                .map_or(&[][..], |own| own.result_hosts)
                .iter()
                .map(ToString::to_string)
                .collect(),
        };
        provider.retry_after_send = section.value("retry_after_send", false);
    } else {
        provider.delay = section.value("delay", provider.delay);
    }
    provider
}

/// The account, or why there is none.
fn cloud(section: &mut Section<'_>) -> (Option<CloudConfig>, Option<String>) {
    let project = section.optional("project");
    let location = section.value("location", "global".to_owned());
    match section.optional("credentials_file") {
        Some(credentials_file) => {
            let cloud = CloudConfig {
                credentials_file,
                project,
                location,
            };
            (Some(cloud), None)
        }
        None => (None, Some("credentials_file is not set".to_owned())),
    }
}

fn unknown_adapter(name: &str, adapter: &str) -> String {
    let names: Vec<String> = BUILT_IN
        .iter()
        .map(|built_in| format!("'{}'", built_in.name))
        .collect();
    let names = names.join(", ");
    if adapter == name {
        format!("this is no built-in provider, so it needs adapter = one of {names}")
    } else {
        format!("there is no adapter '{adapter}'; there are {names}")
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    // Two underscores divide the parts of a variable's name.
    !name.is_empty() && !name.contains("__") && name.bytes().all(plain)
}
