//! The file and the environment, as one typed [`Config`]. Nobody else reads the environment.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;

/// Everything an operator can set. Field docs and defaults: `config/easel.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from, if there was one.
    pub file: Option<PathBuf>,
    pub listen: SocketAddr,
    pub public_url: String,
    pub data_dir: PathBuf,
    /// `None`: built in (`dall-e-2`, or `gpt-image-1` for a request only that family takes);
    /// empty: a request must name its model.
    pub default_model: Option<String>,
    pub models_dir: Option<PathBuf>,
    pub database: DatabaseConfig,
    pub images: ImagesConfig,
    pub limits: LimitsConfig,
    pub shutdown: ShutdownConfig,
    pub log: LogConfig,
    pub admin: AdminConfig,
    pub providers: BTreeMap<String, ProviderConfig>,
}

#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `None`: the private server under `data_dir`.
    pub url: Option<SecretString>,
    pub max_connections: u32,
}

#[derive(Debug, Clone)]
pub struct ImagesConfig {
    pub store: PathBuf,
    /// How long a link opens.
    pub url_ttl: Duration,
    /// How long a finished generation's pictures can be fetched again.
    pub replay_ttl: Duration,
    /// The largest picture taken from a provider, in bytes.
    pub max_size_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// The largest JSON body, in bytes.
    pub json_body_bytes: usize,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a request body may pause.
    pub body_idle_timeout: Duration,
    /// Client connections at the same time.
    pub max_connections: usize,
    /// Generations at the same time.
    pub max_in_flight: usize,
}

#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// How long generations in flight may take to finish after SIGTERM.
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    pub format: LogFormat,
    /// A `tracing` filter; `RUST_LOG` wins.
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// `None`: the admin API is off.
    pub token: Option<SecretString>,
}

/// A `[providers.NAME]` section. Which of the optional keys an adapter takes is the adapter's business.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    pub adapter: String,
    pub enabled: bool,
    pub base_url: Option<String>,
    pub api_key: Option<SecretString>,
    /// Why `api_key` is absent (`OPENAI_API_KEY is not set`).
    pub api_key_missing: Option<String>,
    /// The whole attempt, to the last byte.
    pub timeout: Duration,
    /// Silence inside a body.
    pub idle_timeout: Duration,
    pub connect_timeout: Duration,
    pub max_in_flight: usize,
    /// `host` or `host:port`, subdomains included.
    pub result_hosts: Vec<String>,
    /// Whether the next route may be tried after the request was sent and no answer came.
    pub retry_after_send: bool,
    pub on_disconnect: OnDisconnect,
    /// Our margin in basis points.
    pub markup_basis_points: u32,
    /// Sandbox: how long a picture takes.
    pub delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    Finish,
    Cancel,
}
