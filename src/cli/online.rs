//! `easel check --online`: whether what the configuration names is there and lets us in: the database, the store,
//! the public address, and every provider's account. Asks only what is free, and changes nothing but for a probe
//! file in the store that is gone again.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use chrono::TimeDelta;
use futures_util::future::join_all;
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    config::{Config, StoreConfig, key_variable},
    images::{Fault, ImageStore},
    postgres,
    providers::{AccountReport, ErrorKind, Provider, ProviderError, registry::Switch},
};

/// How long the database, the store and the public address may take, each.
const PATIENCE: Duration = Duration::from_secs(15);
/// Beyond this, signatures that carry a time are refused (Google allows some minutes).
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(2);

/// What was found of one thing.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// `database`, `store`, `public_url`, or a provider's name behind `provider`.
    pub(super) what: String,
    pub(super) state: State,
    pub(super) found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// It works, and somebody should look at it all the same.
    Warning,
    Failed,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

impl Finding {
    fn new(what: &str, state: State, found: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            what: what.to_owned(),
            state,
            found: found.into(),
            hint,
        }
    }

    fn ok(what: &str, found: impl Into<String>) -> Self {
        Self::new(what, State::Ok, found, None)
    }

    fn failed(what: &str, found: impl Into<String>, hint: &str) -> Self {
        Self::new(what, State::Failed, found, Some(hint.to_owned()))
    }

    fn warning(what: &str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(what, State::Warning, found, Some(hint.into()))
    }
}

/// Asks everybody at once. Providers that are off are not asked.
pub(super) async fn ask<'a>(
    config: &Config,
    providers: impl Iterator<Item = (&'a String, &'a Switch)>,
) -> Vec<Finding> {
    let accounts = providers.filter_map(|(name, switch)| match switch {
        Switch::On(provider) => Some(account(config, name, provider.as_ref())),
        Switch::Off(_) => None,
    });
    let (database, store, public_url, accounts) = tokio::join!(
        database(config),
        store(config),
        public_url(config),
        join_all(accounts)
    );
    let mut findings = vec![database, store];
    findings.extend(public_url);
    findings.extend(accounts);
    findings
}

async fn database(config: &Config) -> Finding {
    const WHAT: &str = "database";
    let Some(url) = &config.database.url else {
        let found = format!(
            "a private PostgreSQL under {}, which serve starts",
            config.data_dir.display()
        );
        return Finding::ok(WHAT, found);
    };
    let options = match postgres::options_from_url(url.expose_secret()) {
        Ok(options) => options,
        Err(error) => {
            return Finding::failed(WHAT, said(&error), "correct [database] url or DATABASE_URL");
        }
    };
    let inspected = match timeout(PATIENCE, postgres::inspect(&options)).await {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(error)) => {
            let hint = "is PostgreSQL running at that address, may this machine reach it, and are user, password and \
                        database of [database] url (or DATABASE_URL) right?";
            return Finding::failed(WHAT, said(&error), hint);
        }
        Err(_) => {
            let hint = "a firewall that drops connections looks like this; is the host of [database] url right?";
            return Finding::failed(WHAT, "PostgreSQL does not answer in time", hint);
        }
    };
    let version = format!("PostgreSQL {}", inspected.server_version);
    match (inspected.pending, inspected.unknown) {
        (0, 0) => Finding::ok(WHAT, format!("{version}, up to date")),
        (0, newer) => Finding::warning(
            WHAT,
            format!("{version}, with {newer} migrations of a newer Easel"),
            "an older Easel works beside a newer one for one release",
        ),
        (pending, _) => Finding::warning(
            WHAT,
            format!("{version}, {pending} migrations behind this Easel"),
            "serve applies them when it starts, or easel migrate now",
        ),
    }
}

async fn store(config: &Config) -> Finding {
    const WHAT: &str = "store";
    let place = &config.images.store;
    let StoreConfig::Directory(directory) = place else {
        return bucket(config).await;
    };
    let probed = async {
        let is_to_be_made = can_be_made(directory.clone()).await;
        if is_to_be_made.map_err(|error| said(&error))? {
            let found = format!("{place} is not there yet");
            return Ok(Finding::warning(WHAT, found, "serve makes it"));
        }
        let opened = ImageStore::open(directory.clone(), config.images.max_size_bytes);
        opened.await.map_err(|error| said(&error))?;
        Ok::<_, String>(Finding::ok(WHAT, format!("{place} can be written")))
    };
    match timeout(PATIENCE, probed).await {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => Finding::failed(
            WHAT,
            format!("{place}: {why}"),
            "[images] store must be a directory that the user of Easel may write to, on a disk with room",
        ),
        Err(_) => Finding::failed(
            WHAT,
            format!("{place} does not answer in time"),
            "a network file system that is gone looks like this",
        ),
    }
}

/// Whether there is no such directory, but one above it that can be written; nothing is left there.
async fn can_be_made(directory: PathBuf) -> io::Result<bool> {
    let look = move || {
        let directory = std::path::absolute(directory)?;
        if directory.try_exists()? {
            return Ok(false);
        }
        let above = directory.ancestors().find(|above| above.exists());
        let above = above.ok_or(io::ErrorKind::NotFound)?;
        tempfile::tempfile_in(above).map(|_| true)
    };
    spawn_blocking(look).await.map_err(io::Error::other)?
}

async fn bucket(config: &Config) -> Finding {
    const WHAT: &str = "store";
    const SETTINGS: &str = "look at endpoint, region and credentials in [images.s3]";
    let place = &config.images.store;
    let bucket = match super::bucket(config) {
        Ok(Some(bucket)) => bucket,
        Ok(None) => return Finding::failed(WHAT, format!("{place} is no bucket"), SETTINGS),
        Err(problem) => return Finding::failed(WHAT, problem.to_string(), SETTINGS),
    };
    match timeout(PATIENCE, bucket.check()).await {
        Ok(Ok(())) => Finding::ok(WHAT, format!("{place} can be written, read and listed")),
        Ok(Err((action, fault))) => {
            let hint = match fault {
                Fault::Refused(_) => {
                    "does the bucket exist in that region, are the credentials right, and may they put, get, list and \
                     delete below the prefix of [images] store?"
                }
                Fault::Failed(_) => {
                    "may this machine connect to the store (DNS, firewall), and is [images.s3] endpoint right?"
                }
            };
            let found = format!("could not {action} {place}: {}", said(&fault));
            Finding::failed(WHAT, found, hint)
        }
        Err(_) => Finding::failed(WHAT, format!("{place} does not answer in time"), SETTINGS),
    }
}

/// Whether clients can find what links begin with; `None` when that is only this machine, as by default.
async fn public_url(config: &Config) -> Option<Finding> {
    const WHAT: &str = "public_url";
    let text = &config.public_url;
    let url = Url::parse(text).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_here {
        return (!config.listen.ip().is_loopback()).then(|| {
            Finding::warning(
                WHAT,
                format!("links begin with {text}, which leads clients to their own machine"),
                "set public_url to the address that clients use",
            )
        });
    }
    // Somebody else may have installed one; any will do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .ok()?;
    let answer = client.get(format!("{text}/v1/models")).send().await;
    Some(match answer {
        // Without a key that is what Easel says.
        Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            let found = format!("an API answers at {text}");
            if url.scheme() == "https" {
                Finding::ok(WHAT, found)
            } else {
                let hint = "keys and pictures travel unencrypted: put TLS in front, or set [tls] cert and key";
                Finding::warning(WHAT, found, hint)
            }
        }
        Ok(answer) => Finding::warning(
            WHAT,
            format!("{text}/v1/models says {}", answer.status()),
            "does the proxy pass /v1/ and /files/ on to Easel, and is Easel running?",
        ),
        Err(error) => Finding::warning(
            WHAT,
            format!("nobody answers at {text}: {}", innermost(&error)),
            "fine before the first start; otherwise look at DNS, certificate and proxy",
        ),
    })
}

async fn account(config: &Config, name: &str, provider: &dyn Provider) -> Finding {
    let what = format!("provider {name}");
    match provider.check_account().await {
        Ok(AccountReport {
            found,
            warning,
            clock_ahead,
        }) => {
            let warning = warning.or_else(|| clocks_differ(clock_ahead?));
            match warning {
                Some(hint) => Finding::warning(&what, found, hint),
                None => Finding::ok(&what, found),
            }
        }
        Err(error) => {
            let cause = error.cause.as_ref();
            let found = match cause {
                Some(cause) => format!("{}: {cause}", error.message),
                None => error.message.clone(),
            };
            Finding::failed(&what, found, &hint(config, name, &error))
        }
    }
}

fn clocks_differ(ahead: TimeDelta) -> Option<String> {
    (ahead.abs() > CLOCKS_DIFFER).then(|| {
        let way = if ahead > TimeDelta::zero() {
            "ahead of"
        } else {
            "behind"
        };
        let seconds = ahead.abs().num_seconds();
        format!("the clock of this machine is {seconds} s {way} the provider's: set it by NTP")
    })
}

/// What to do about it.
fn hint(config: &Config, name: &str, error: &ProviderError) -> String {
    let section = config.providers.get(name);
    let base_url = section
        .and_then(|section| section.base_url.as_deref())
        .unwrap_or("the address of its adapter");
    let has_cloud = section.is_some_and(|section| section.cloud.is_some());
    match error.kind {
        ErrorKind::Auth if has_cloud => format!(
            "is [providers.{name}] credentials_file the key of an account that still exists, and is the clock of \
             this machine right?"
        ),
        ErrorKind::Auth => {
            let place = match key_variable(name) {
                Some(variable) => {
                    format!("[providers.{name}] api_key, or {variable} without such a line")
                }
                None => format!("[providers.{name}] api_key"),
            };
            format!("the key is wrong, revoked or of another account: it comes from {place}")
        }
        ErrorKind::QuotaExhausted => "add credit to the account at the provider".to_owned(),
        ErrorKind::ModelUnavailable | ErrorKind::InvalidRequest | ErrorKind::Malformed => {
            format!("is that the API? [providers.{name}] base_url is {base_url}")
        }
        ErrorKind::RateLimited { .. } => {
            "the key was not refused; others use up its rate, or it is a trial".to_owned()
        }
        ErrorKind::Overloaded { .. } => {
            "the provider has trouble of its own; ask again later".to_owned()
        }
        ErrorKind::Timeout { .. } | ErrorKind::Transport { .. } => {
            let cause = error.cause.as_deref().unwrap_or_default().to_lowercase();
            if cause.contains("certificate") || cause.contains("tls") || cause.contains("handshake")
            {
                "TLS fails: are the system's certificates installed (ca-certificates), is the clock right, and does no \
                 proxy break connections open?"
                    .to_owned()
            } else if cause.contains("refused") {
                format!(
                    "nobody listens there: is [providers.{name}] base_url right ({base_url}), and the server up?"
                )
            } else {
                format!("may this machine connect to {base_url} (DNS, firewall, HTTPS_PROXY)?")
            }
        }
        ErrorKind::ContentRefused | ErrorKind::Cancelled | ErrorKind::Storage => {
            "ask again".to_owned()
        }
    }
}

/// An error with its causes, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.replace('\n', " ")
}

/// What the system or the TLS library says.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
