//! The file and the environment, as one typed [`Config`]. Nobody else reads the environment.
//!
//! Three layers: built-in defaults, one TOML file, `EASEL__SECTION__KEY` variables. The reading code in
//! [`read`] is the only list of keys there is: asking for a key makes it known, what nobody asked for is
//! refused with its place and the nearest known key. Each problem is collected, so that one run shows
//! all of them. `config/easel.toml` documents every key; a test holds it to this code.

mod carry;
mod environment;
mod error;
mod expand;
mod layers;
mod providers;
mod reader;
mod s3;
mod setting;
mod source;
#[cfg(test)]
mod tests;
mod traces;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};

pub use self::{
    environment::Environment,
    error::{ConfigError, Problem},
    s3::{S3Config, S3Credentials},
    source::{Seen, Source},
    traces::{CollectorConfig, Sampler, TracesConfig},
};
use self::{
    layers::{Origin, read_file},
    reader::{Reader, Section},
    setting::{AtLeastOne, DatabaseUrl, Host, HttpUrl, NonZeroDuration, PageOrigin, Size},
};
use crate::addresses::IpRange;

/// Everything an operator can set. Units and defaults: `config/easel.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from, if there was one.
    pub file: Option<PathBuf>,
    /// Where the server listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What hosted links begin with; no slash at the end.
    pub public_url: String,
    /// Networks of proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<IpRange>,
    /// Where the private database and, by default, the pictures live.
    pub data_dir: PathBuf,
    /// `None`: built in (`dall-e-2`, or `gpt-image-1` for a request only that family takes);
    /// empty: a request must name its model.
    pub default_model: Option<String>,
    /// Catalog files that add to the compiled-in ones.
    pub models_dir: Option<PathBuf>,
    /// `[tls]`; `None`: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// `[cors]`
    pub cors: CorsConfig,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[images]`
    pub images: ImagesConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[edits]`
    pub edits: EditsConfig,
    /// `[webhooks]`
    pub webhooks: WebhooksConfig,
    /// `[routing]`
    pub routing: RoutingConfig,
    /// `[shutdown]`
    pub shutdown: ShutdownConfig,
    /// `[reload]`
    pub reload: ReloadConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[traces]` and `OTEL_…`
    pub traces: TracesConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[metrics]`
    pub metrics: MetricsConfig,
    /// `[providers.NAME]`, by name.
    pub providers: BTreeMap<String, ProviderConfig>,
}

/// `[tls]`: files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, and those that lead from it to one that clients know.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[cors]`
#[derive(Debug, Clone)]
pub struct CorsConfig {
    /// Pages of which origins may read answers; `*` is all, none is no CORS.
    pub origins: Vec<String>,
}

/// `[database]`: somebody's `PostgreSQL`, or our private one.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `None`: the private server under `data_dir`.
    pub url: Option<SecretString>,
    /// Connections in the pool.
    pub max_connections: u32,
    /// Private server: where `postgres` and `initdb` are; `None` looks around.
    pub postgres_bin: Option<PathBuf>,
    /// Private server: the directories of `PATH`, the first places to look around in.
    pub search_path: Vec<PathBuf>,
}

/// `[images]`: hosted pictures.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Where they are kept.
    pub store: StoreConfig,
    /// Where links lead.
    pub links: LinkStyle,
    /// `[images.s3]`: how the bucket is reached, if it is one.
    pub s3: S3Config,
    /// How long a link opens.
    pub url_ttl: Duration,
    /// How long a finished generation's pictures can be fetched again.
    pub replay_ttl: Duration,
    /// The largest picture taken from a provider, in bytes.
    pub max_size_bytes: u64,
    /// Whether pictures that go through while they arrive are also kept.
    pub relay_copies: bool,
    /// How many bytes of such copies stay once their answers were delivered.
    pub replay_budget_bytes: u64,
}

/// Where pictures are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// `file:PATH`
    Directory(PathBuf),
    /// `s3://name/prefix`
    Bucket {
        /// The bucket.
        name: String,
        /// What its keys begin with, without a slash at either end; may be empty.
        prefix: String,
    },
}

impl fmt::Display for StoreConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(formatter, "file:{}", path.display()),
            Self::Bucket { name, prefix } if prefix.is_empty() => write!(formatter, "s3://{name}"),
            Self::Bucket { name, prefix } => write!(formatter, "s3://{name}/{prefix}"),
        }
    }
}

/// Where links to pictures lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkStyle {
    /// To Easel, signed with a secret that all replicas share.
    Easel,
    /// To the bucket, signed with its credentials.
    Presigned,
}

/// `[limits]`: what one client, and all of them together, can make us hold.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// The largest JSON body, in bytes.
    pub json_body_bytes: usize,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a request body may pause.
    pub body_idle_timeout: Duration,
    /// How long a JSON body may take to arrive.
    pub body_timeout: Duration,
    /// What all of them together may have in memory while they are read, in bytes.
    pub request_bodies_bytes: u64,
    /// The largest form of an edit, in bytes.
    pub upload_bytes: usize,
    /// The largest picture in it, in bytes.
    pub upload_picture_bytes: u64,
    /// How many pictures there may be in it.
    pub upload_pictures: usize,
    /// How long it may take to arrive.
    pub upload_timeout: Duration,
    /// What all uploads together may take on the disk, in bytes.
    pub upload_spool_bytes: u64,
    /// Client connections at the same time.
    pub max_connections: usize,
    /// Generations at the same time.
    pub max_in_flight: usize,
    /// How long a stream may be silent before a comment says that it lives.
    pub keepalive: Duration,
}

/// `[edits]`
#[derive(Debug, Clone)]
pub struct EditsConfig {
    /// Whether links to pictures in the JSON of an edit are opened.
    pub fetch_urls: bool,
    /// The hosts that they may lead to; none: every public one.
    pub fetch_hosts: Vec<String>,
}

/// `[webhooks]`
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// `host` or `host:port` that may be called although they are private, by `http` too.
    pub hosts: Vec<String>,
    /// How long one message may take.
    pub timeout: Duration,
    /// Messages at the same time.
    pub max_in_flight: usize,
    /// How many of one key nobody may have taken yet.
    pub max_pending: usize,
    /// The pause after the first attempt that failed.
    pub first_retry: Duration,
    /// How long to try.
    pub retry_for: Duration,
}

/// `[routing]`
#[derive(Debug, Clone)]
pub struct RoutingConfig {
    /// Failures in a row that make a route rest.
    pub failures: u32,
    /// Its first rest; every failed probe doubles it.
    pub rest: Duration,
}

/// `[shutdown]`
#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// How long requests are still taken after SIGTERM, so that balancers learn of it.
    pub drain_delay: Duration,
    /// How long generations in flight may take to finish after it.
    pub drain_timeout: Duration,
}

impl ShutdownConfig {
    /// How long it takes at most, beyond both, to settle what was cut short and to let go of store and database.
    pub const ENDING: Duration = Duration::from_secs(30);

    /// How long stopping takes at most. Who kills earlier leaves holds for others to release.
    pub fn longest(&self) -> Duration {
        let serving = self.drain_delay.saturating_add(self.drain_timeout);
        serving.saturating_add(Self::ENDING)
    }
}

/// `[reload]`
#[derive(Debug, Clone)]
pub struct ReloadConfig {
    /// How often the files of the configuration are looked at; zero: never.
    pub watch_interval: Duration,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// A `tracing` filter; `RUST_LOG` wins.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// `[metrics]`
#[derive(Debug, Clone)]
pub struct MetricsConfig {
    /// Where `/metrics` listens apart from everything else; `None`: it is on the main listener.
    pub listen: Option<SocketAddr>,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// `None`: the admin API is off.
    pub token: Option<SecretString>,
    /// Why `token` is absent (`EASEL_ADMIN_TOKEN is not set`).
    pub token_missing: Option<String>,
}

impl ProviderConfig {
    /// Whether the adapter that this section makes is the one that `other` makes, the content of files apart:
    /// whether it may go on with its connections under the other section.
    pub fn makes_the_same_as(&self, other: &Self) -> bool {
        let Self {
            adapter,
            enabled,
            base_url,
            api_key,
            api_key_missing,
            timeout,
            idle_timeout,
            connect_timeout,
            max_in_flight,
            result_hosts,
            delay,
            cloud,
            on_disconnect,
            // The gateway's affair.
            retry_after_send: _,
            markup_basis_points: _,
        } = self;
        let exposed = |key: &Option<SecretString>| {
            let key = key.as_ref();
            key.map(|key| key.expose_secret().to_owned())
        };
        *adapter == other.adapter
            && *enabled == other.enabled
            && *base_url == other.base_url
            && exposed(api_key) == exposed(&other.api_key)
            && *api_key_missing == other.api_key_missing
            && *timeout == other.timeout
            && *idle_timeout == other.idle_timeout
            && *connect_timeout == other.connect_timeout
            && *max_in_flight == other.max_in_flight
            && *result_hosts == other.result_hosts
            && *on_disconnect == other.on_disconnect
            && *delay == other.delay
            && *cloud == other.cloud
    }
}

/// A `[providers.NAME]` section. Which of the optional keys an adapter takes is the adapter's business.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Which of our adapters speaks to it.
    pub adapter: String,
    /// `false` switches it off whatever else is set.
    pub enabled: bool,
    /// Where it is; no slash at the end.
    pub base_url: Option<String>,
    /// Its key; `None` with no `api_key_missing` means that it wants none.
    pub api_key: Option<SecretString>,
    /// Why `api_key` is absent (`OPENAI_API_KEY is not set`): the provider is off.
    pub api_key_missing: Option<String>,
    /// The whole attempt, to the last byte.
    pub timeout: Duration,
    /// Silence inside a body.
    pub idle_timeout: Duration,
    /// Until a connection, TLS included, is up.
    pub connect_timeout: Duration,
    /// Calls at the same time.
    pub max_in_flight: usize,
    /// `host` or `host:port`, subdomains included.
    pub result_hosts: Vec<String>,
    /// Whether the next route may be tried after the request was sent and no answer came.
    pub retry_after_send: bool,
    /// What happens to a paid generation when its client leaves.
    pub on_disconnect: OnDisconnect,
    /// Our margin in basis points.
    pub markup_basis_points: u32,
    /// Sandbox: how long a picture takes.
    pub delay: Duration,
    /// Vertex: whose account, and where.
    pub cloud: Option<CloudConfig>,
}

/// A project in Google's cloud, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudConfig {
    /// The service account's key file, as Google's console gives it out.
    pub credentials_file: PathBuf,
    /// `None`: the project of the key file.
    pub project: Option<String>,
    /// A region (`us-central1`), `us`, `eu` or `global`.
    pub location: String,
}

/// The variable that the key of the provider `name` comes from when its section has no `api_key`.
pub fn key_variable(name: &str) -> Option<&'static str> {
    providers::key_variable(name)
}

/// What happens to a paid generation when its client leaves (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is finished, charged, and kept.
    Finish,
    /// The upstream connection is closed.
    Cancel,
}

const DEFAULT_FILE: &str = "easel.toml";
/// How long pictures can be kept: ten years, beyond which the calendar might end.
const LONGEST_KEPT: Duration = Duration::from_hours(87_660);
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl Config {
    /// Reads the configuration from the `text` of `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem, each with its file and line or its variable.
    pub fn from_text(
        file: Option<&Path>,
        text: &str,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Self::parse(file, text, environment).0
    }

    /// The same, and the files that were named as `${file:PATH}`, good or bad.
    fn parse(
        file: Option<&Path>,
        text: &str,
        environment: &Environment,
    ) -> (Result<Self, ConfigError>, Vec<PathBuf>) {
        let reader = Reader::new(file, environment);
        let mut layers = match read_file(text) {
            Ok(layers) => layers,
            Err(problem) => return (Err(reader.error(problem)), Vec::new()),
        };
        for problem in layers::override_with(&mut layers, environment) {
            reader.report(problem);
        }
        let config = reader.root(layers, |root| read(root, environment));
        let files = reader.take_files();
        let problems = reader.into_problems();
        let config = if problems.is_empty() {
            Ok(Self {
                file: file.map(Path::to_owned),
                ..config
            })
        } else {
            Err(ConfigError::Invalid(problems))
        };
        (config, files)
    }

    /// The files and directories that are read besides the configuration file and what its values name.
    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let clouds = self.providers.values().filter_map(|provider| {
            let cloud = provider.cloud.as_ref()?;
            Some(cloud.credentials_file.clone())
        });
        let tls = self.tls.iter();
        let tls = tls.flat_map(|tls| [tls.cert.clone(), tls.key.clone()]);
        self.models_dir.clone().into_iter().chain(clouds).chain(tls)
    }

    /// This configuration once the listener is bound: a `public_url` that follows from `listen` gets the
    /// port that the system chose.
    #[must_use]
    pub fn bound_to(mut self, address: SocketAddr) -> Self {
        if self.public_url == self.local_url(self.listen) {
            self.public_url = self.local_url(address);
        }
        self.listen = address;
        self
    }

    /// Where a client on this machine finds the server of this configuration if it listens on `address`.
    pub fn local_url(&self, address: SocketAddr) -> String {
        local_url(address, self.tls.is_some())
    }
}

fn local_url(address: SocketAddr, is_tls: bool) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

/// Every key there is, with its type and default.
fn read(root: &mut Section<'_>, environment: &Environment) -> Config {
    let listen = root.value("listen", DEFAULT_LISTEN);
    let public_url = root.optional("public_url").map(|HttpUrl(url)| url);
    let tls = root.section("tls", tls);
    let data_dir = root.value("data_dir", PathBuf::from("data"));
    Config {
        file: None,
        listen,
        public_url: public_url.unwrap_or_else(|| local_url(listen, tls.is_some())),
        tls,
        cors: root.section("cors", |section| {
            let origins = section.list("origins").unwrap_or_default();
            CorsConfig {
                origins: origins
                    .into_iter()
                    .map(|PageOrigin(origin)| origin)
                    .collect(),
            }
        }),
        trusted_proxies: root.list("trusted_proxies").unwrap_or_default(),
        default_model: root.optional("default_model"),
        models_dir: root.optional("models_dir"),
        database: root.section("database", |section| database(section, environment)),
        images: root.section("images", |section| images(section, &data_dir, environment)),
        limits: root.section("limits", limits),
        edits: root.section("edits", |section| EditsConfig {
            fetch_urls: section.value("fetch_urls", false),
            fetch_hosts: hosts(section, "fetch_hosts"),
        }),
        webhooks: root.section("webhooks", |section| WebhooksConfig {
            hosts: hosts(section, "hosts"),
            // A lease lasts as long, and a replica that dies leaves its messages to their leases.
            timeout: section.duration_up_to(
                "timeout",
                Duration::from_secs(15),
                Duration::from_mins(5),
            ),
            max_in_flight: section.count("max_in_flight", 32),
            max_pending: section.count("max_pending", 10_000),
            first_retry: section.duration_up_to(
                "first_retry",
                Duration::from_secs(5),
                Duration::from_hours(6),
            ),
            retry_for: section.duration_up_to(
                "retry_for",
                Duration::from_hours(24),
                Duration::from_hours(7 * 24),
            ),
        }),
        routing: root.section("routing", |section| RoutingConfig {
            failures: section.value("failures", AtLeastOne(3)).0,
            rest: section.value("rest", Duration::from_secs(10)),
        }),
        shutdown: root.section("shutdown", |section| ShutdownConfig {
            drain_delay: section.value("drain_delay", Duration::ZERO),
            drain_timeout: section.value("drain_timeout", Duration::from_mins(2)),
        }),
        reload: root.section("reload", |section| ReloadConfig {
            watch_interval: section.value("watch_interval", Duration::from_secs(2)),
        }),
        log: root.section("log", |section| log(section, environment)),
        traces: root.section("traces", |section| traces::read(section, environment)),
        admin: root.section("admin", |section| {
            let (token, token_missing) = section.secret("token", Some("${EASEL_ADMIN_TOKEN}"));
            AdminConfig {
                token,
                token_missing,
            }
        }),
        metrics: root.section("metrics", |section| MetricsConfig {
            listen: section.optional("listen"),
        }),
        providers: root.section("providers", providers::read),
        data_dir,
    }
}

fn tls(section: &mut Section<'_>) -> Option<TlsConfig> {
    let places = section.names();
    let cert: Option<PathBuf> = section.optional("cert");
    let key: Option<PathBuf> = section.optional("key");
    let missing = match (cert, key) {
        (Some(cert), Some(key)) => return Some(TlsConfig { cert, key }),
        (None, None) => return None,
        (Some(_), None) => "key",
        (None, Some(_)) => "cert",
    };
    let place = places.into_iter().next();
    let origin = place.map_or(Origin::BuiltIn, |(_, origin)| origin);
    let message = "is missing: cert and key are set together or not at all";
    section.report(origin, missing, message.to_owned());
    None
}

fn database(section: &mut Section<'_>, environment: &Environment) -> DatabaseConfig {
    let url = section.optional("url").or_else(|| {
        let text = environment.get("DATABASE_URL")?;
        section.parse(&Origin::Variable("DATABASE_URL".to_owned()), "url", text)
    });
    DatabaseConfig {
        url: url.map(|DatabaseUrl(url)| url),
        max_connections: section.value("max_connections", AtLeastOne(16)).0,
        postgres_bin: section.optional("postgres_bin"),
        search_path: environment.search_path(),
    }
}

fn images(section: &mut Section<'_>, data_dir: &Path, environment: &Environment) -> ImagesConfig {
    let origins = section.names();
    let store = section.optional("store");
    let images = ImagesConfig {
        store: store.unwrap_or_else(|| StoreConfig::Directory(data_dir.join("images"))),
        links: section.value("links", LinkStyle::Easel),
        s3: section.section("s3", |section| s3::read(section, environment)),
        url_ttl: section.duration_up_to("url_ttl", Duration::from_hours(1), LONGEST_KEPT),
        replay_ttl: section.duration_up_to("replay_ttl", Duration::from_hours(1), LONGEST_KEPT),
        max_size_bytes: section.value("max_size", Size::mebibytes(64)).0,
        relay_copies: section.value("relay_copies", true),
        replay_budget_bytes: section.value("replay_budget", Size::mebibytes(1024)).0,
    };
    for (key, problem) in s3::misfits(&images) {
        let origin = origins.iter().find(|(name, _)| name == key);
        let origin = origin.map_or(Origin::BuiltIn, |(_, origin)| origin.clone());
        section.report(origin, key, problem);
    }
    images
}

fn limits(section: &mut Section<'_>) -> LimitsConfig {
    LimitsConfig {
        json_body_bytes: section.value("json_body", Size::mebibytes(1)).in_memory(),
        header_timeout: section.duration("header_timeout", Duration::from_secs(15)),
        body_idle_timeout: section.duration("body_idle_timeout", Duration::from_secs(30)),
        body_timeout: section.duration("body_timeout", Duration::from_mins(1)),
        request_bodies_bytes: section.value("request_bodies", Size::mebibytes(256)).0,
        upload_bytes: section.value("upload", Size::mebibytes(64)).in_memory(),
        upload_picture_bytes: section.value("upload_picture", Size::mebibytes(50)).0,
        upload_pictures: section.count("upload_pictures", 16),
        upload_timeout: section.duration("upload_timeout", Duration::from_mins(10)),
        upload_spool_bytes: section.value("upload_spool", Size::mebibytes(2048)).0,
        max_connections: section.count("max_connections", 16_384),
        max_in_flight: section.count("max_in_flight", 8_192),
        keepalive: section.duration("keepalive", Duration::from_secs(15)),
    }
}

fn hosts(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let hosts = section.list(key).unwrap_or_default().into_iter();
    hosts.map(|Host(host)| host).collect()
}

fn log(section: &mut Section<'_>, environment: &Environment) -> LogConfig {
    let format = section.value("format", LogFormat::Pretty);
    let filter = section.value("filter", "info".to_owned());
    LogConfig {
        format,
        filter: environment
            .get("RUST_LOG")
            .filter(|filter| !filter.is_empty())
            .map_or(filter, str::to_owned),
    }
}

impl Section<'_> {
    /// A duration that must not be zero.
    fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        self.value(key, NonZeroDuration(default)).0
    }

    /// A duration that must neither be zero nor longer than this.
    fn duration_up_to(
        &mut self,
        key: &'static str,
        default: Duration,
        longest: Duration,
    ) -> Duration {
        let mut names = self.names().into_iter();
        let origin = names.find(|(name, _)| name == key);
        let duration = self.duration(key, default);
        if duration <= longest {
            return duration;
        }
        let origin = origin.map_or(Origin::BuiltIn, |(_, origin)| origin);
        let longest = humantime::format_duration(longest);
        self.report(
            origin,
            key,
            format!("{longest} is the longest there can be"),
        );
        default
    }

    /// A number of things, at least one.
    fn count(&mut self, key: &'static str, default: u32) -> usize {
        let AtLeastOne(count) = self.value(key, AtLeastOne(default));
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}
