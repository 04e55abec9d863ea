//! `[images.s3]`: how a bucket is reached, and as whom.
//!
//! Names and order are those of the AWS SDKs: keys first, then a web identity, then a container's role. The
//! machine's own role comes only where the operator says so, because asking for it is a call to an address
//! that nobody configured.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Environment, ImagesConfig, LinkStyle, StoreConfig,
    layers::Origin,
    reader::Section,
    setting::{HttpUrl, Setting},
};

/// `[images.s3]`
#[derive(Debug, Clone)]
pub struct S3Config {
    /// Where the store is, without the bucket; no slash at the end. `None`: AWS in this region.
    pub endpoint: Option<String>,
    /// Where those who open presigned links find it; `None`: at `endpoint`.
    pub public_endpoint: Option<String>,
    /// What signatures are made for.
    pub region: String,
    /// Whether the bucket is the first part of the path, not of the host name.
    pub path_style: bool,
    /// `None`: there are none.
    pub credentials: Option<S3Credentials>,
    /// Certificates that are trusted besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// How long the store may be silent, and how long one request to it may be on its way.
    pub timeout: Duration,
}

/// As whom a bucket is used.
#[derive(Debug, Clone)]
pub enum S3Credentials {
    /// Somebody's keys.
    Keys {
        /// Their name.
        access_key_id: SecretString,
        /// Their secret.
        secret_access_key: SecretString,
        /// What makes temporary ones good.
        session_token: Option<SecretString>,
    },
    /// A token in a file, exchanged for temporary keys at AWS STS.
    WebIdentity {
        /// `AWS_WEB_IDENTITY_TOKEN_FILE`
        token_file: String,
        /// `AWS_ROLE_ARN`
        role_arn: String,
        /// `AWS_ROLE_SESSION_NAME`
        session_name: Option<String>,
    },
    /// ECS: temporary keys from the container's agent.
    Task {
        /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`
        relative_uri: String,
    },
    /// EKS Pod Identity: the same from another agent, which wants a token.
    Pod {
        /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`
        full_uri: String,
        /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`
        token_file: String,
    },
    /// EC2: temporary keys of the machine's role.
    Instance,
}

impl S3Config {
    /// All of it, secrets too, to be compared and not to be shown.
    pub(super) fn comparable(&self) -> (String, Vec<String>) {
        let secrets = match &self.credentials {
            Some(S3Credentials::Keys {
                access_key_id,
                secret_access_key,
                session_token,
            }) => {
                let secrets = [
                    Some(access_key_id),
                    Some(secret_access_key),
                    session_token.as_ref(),
                ];
                let secrets = secrets.into_iter().flatten();
                secrets
                    .map(|secret| secret.expose_secret().to_owned())
                    .collect()
            }
            _ => Vec::new(),
        };
        (format!("{self:?}"), secrets)
    }
}

/// No signature in a link may be good for longer (`X-Amz-Expires`; documentation of AWS, read 2026-11).
const LONGEST_PRESIGNED: Duration = Duration::from_hours(7 * 24);

pub(super) fn read(section: &mut Section<'_>, environment: &Environment) -> S3Config {
    let endpoint = from_either(
        section,
        environment,
        "endpoint",
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
    )
    .map(|HttpUrl(url)| url);
    let public_endpoint = section.optional("public_endpoint");
    let region = from_either(
        section,
        environment,
        "region",
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
    );
    S3Config {
        path_style: section.value("path_style", endpoint.is_some()),
        endpoint,
        public_endpoint: public_endpoint.map(|HttpUrl(url)| url),
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        credentials: credentials(section, environment),
        ca_file: from_either(section, environment, "ca_file", &["AWS_CA_BUNDLE"]),
        timeout: section.duration("timeout", Duration::from_secs(30)),
    }
}

/// The setting `key`, or the first of these variables that is set.
fn from_either<T: Setting>(
    section: &mut Section<'_>,
    environment: &Environment,
    key: &str,
    variables: &[&str],
) -> Option<T> {
    let set = section.optional(key);
    let mut variables = variables.iter();
    set.or_else(|| {
        variables.find_map(|name| {
            let text = environment.get(name).filter(|text| !text.is_empty())?;
            section.parse(&Origin::Variable((*name).to_owned()), key, text)
        })
    })
}

fn credentials(section: &mut Section<'_>, environment: &Environment) -> Option<S3Credentials> {
    // The environment's token is for the environment's keys.
    let has_own_keys = section
        .names()
        .iter()
        .any(|(key, _)| key == "access_key_id");
    let default_token = (!has_own_keys).then_some("${AWS_SESSION_TOKEN}");
    let (id, _) = section.secret("access_key_id", Some("${AWS_ACCESS_KEY_ID}"));
    let (secret, _) = section.secret("secret_access_key", Some("${AWS_SECRET_ACCESS_KEY}"));
    let (session_token, _) = section.secret("session_token", default_token);
    let may_ask_the_machine = section.value("instance_credentials", false);
    if let (Some(access_key_id), Some(secret_access_key)) = (id, secret) {
        return Some(S3Credentials::Keys {
            access_key_id,
            secret_access_key,
            session_token,
        });
    }
    let variable = |name: &str| {
        let value = environment.get(name).filter(|value| !value.is_empty());
        value.map(str::to_owned)
    };
    if let (Some(token_file), Some(role_arn)) = (
        variable("AWS_WEB_IDENTITY_TOKEN_FILE"),
        variable("AWS_ROLE_ARN"),
    ) {
        return Some(S3Credentials::WebIdentity {
            token_file,
            role_arn,
            session_name: variable("AWS_ROLE_SESSION_NAME"),
        });
    }
    if let Some(relative_uri) = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Some(S3Credentials::Task { relative_uri });
    }
    if let (Some(full_uri), Some(token_file)) = (
        variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    ) {
        return Some(S3Credentials::Pod {
            full_uri,
            token_file,
        });
    }
    may_ask_the_machine.then_some(S3Credentials::Instance)
}

/// Settings of `[images]` that are good, but not together: the key and what is wrong with it.
pub(super) fn misfits(images: &ImagesConfig) -> Vec<(&'static str, String)> {
    let mut misfits = Vec::new();
    let is_bucket = matches!(images.store, StoreConfig::Bucket { .. });
    if is_bucket && images.s3.credentials.is_none() {
        let message = "a bucket needs credentials: access_key_id and secret_access_key in [images.s3], \
                       AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity, a container's role, or \
                       instance_credentials = true";
        misfits.push(("store", message.to_owned()));
    }
    if images.links == LinkStyle::Presigned {
        if !is_bucket {
            let message = "'presigned' is for a bucket: store = \"s3://bucket/prefix\"";
            misfits.push(("links", message.to_owned()));
        }
        if images.url_ttl > LONGEST_PRESIGNED {
            let message = "a presigned link opens for 7 days at most";
            misfits.push(("url_ttl", message.to_owned()));
        }
    }
    misfits
}
