//! What a `[providers.NAME]` section with `adapter = "google"` or `"vertex"` means
//! (`contracts/google-imagen.md`, section 1).

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;

use super::account::Account;
use crate::config::{CloudConfig, ProviderConfig};

/// Where the Gemini API is.
const DEFAULT_BASE_URL: &str = "https://generativelanguage.googleapis.com/v1beta";
/// Where the key goes: never into the address, where proxies would log it.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Where to call, and with what.
pub(super) struct Settings {
    pub(super) base_url: String,
    /// What stands between that and the model's name.
    pub(super) path: Vec<String>,
    /// The key, or nothing.
    pub(super) headers: HeaderMap,
    /// The account, or nothing.
    pub(super) account: Option<Account>,
}

impl Settings {
    /// # Errors
    /// A sentence naming the key that is wrong or missing.
    pub(super) fn with_key(config: &ProviderConfig) -> Result<Self, String> {
        let base_url = config.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let base_url = with_version(base_url, "v1beta");
        let mut headers = HeaderMap::new();
        match &config.api_key {
            Some(secret) => {
                let mut value = HeaderValue::try_from(secret.expose_secret().trim())
                    .map_err(|_| "api_key has characters that a header cannot carry".to_owned())?;
                value.set_sensitive(true);
                headers.insert(KEY_HEADER, value);
            }
            // A proxy of the operator's own may add the key; Google itself wants one.
            None if base_url.trim_end_matches('/') == DEFAULT_BASE_URL => {
                return Err("api_key is not set".to_owned());
            }
            None => {}
        }
        Ok(Self {
            base_url,
            path: vec!["models".to_owned()],
            headers,
            account: None,
        })
    }

    /// # Errors
    /// A sentence naming the key that is wrong or missing.
    pub(super) fn with_account(name: &str, config: &ProviderConfig) -> Result<Self, String> {
        let cloud = config
            .cloud
            .as_ref()
            .ok_or_else(|| "credentials_file is not set".to_owned())?;
        let CloudConfig {
            credentials_file,
            project,
            location,
        } = cloud;
        let is_name = !location.is_empty()
            && location
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !is_name {
            return Err(format!(
                "location '{location}' is no region such as us-central1, nor us, eu or global"
            ));
        }
        let (account, own_project) = Account::open(name, credentials_file, config)?;
        let project = project
            .clone()
            .or(own_project)
            .ok_or_else(|| "project is not set, and the credentials_file names none".to_owned())?;
        // Old ones have the domain in front: example.com:painter.
        let is_project = !project.is_empty()
            && project
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte));
        if !is_project {
            return Err(format!("project '{project}' is no project's id"));
        }
        let base_url = config
            .base_url
            .clone()
            .unwrap_or_else(|| format!("https://{}", host(location)));
        let path = [
            "projects",
            &project,
            "locations",
            location,
            "publishers",
            "google",
            "models",
        ];
        Ok(Self {
            base_url: with_version(&base_url, "v1"),
            path: path.map(str::to_owned).into(),
            headers: HeaderMap::new(),
            account: Some(account),
        })
    }
}

/// An address that ends with its host gets the version of the API, as Google's own documents give it; one
/// with a path is taken at its word, for there may be a proxy.
fn with_version(base_url: &str, version: &str) -> String {
    let host = base_url.trim_end_matches('/');
    let after_scheme = host.split_once("://").map_or(host, |(_, rest)| rest);
    if after_scheme.contains(['/', '?', '#']) {
        base_url.to_owned()
    } else {
        format!("{host}/{version}")
    }
}

/// Contract, 1.2.
fn host(location: &str) -> String {
    match location {
        "global" => "aiplatform.googleapis.com".to_owned(),
        "us" | "eu" => format!("aiplatform.{location}.rep.googleapis.com"),
        region => format!("{region}-aiplatform.googleapis.com"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_follows_from_the_location() {
        for (location, expected) in [
            ("global", "aiplatform.googleapis.com"),
            ("us", "aiplatform.us.rep.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
            ("us-central1", "us-central1-aiplatform.googleapis.com"),
            ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ] {
            assert_eq!(host(location), expected);
        }
    }

    #[test]
    fn a_host_alone_gets_the_version() {
        for (base_url, expected) in [
            ("https://a.example", "https://a.example/v1"),
            ("https://a.example/", "https://a.example/v1"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/v1"),
            ("https://a.example/v1", "https://a.example/v1"),
            ("https://a.example/v1beta1/", "https://a.example/v1beta1/"),
            ("https://a.example/google", "https://a.example/google"),
        ] {
            assert_eq!(with_version(base_url, "v1"), expected);
        }
    }
}
