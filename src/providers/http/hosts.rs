//! Which hosts result links may point to, and which addresses those may have.
//!
//! A result link is chosen by the provider, and we open it from inside the operator's network: without
//! rules a provider could read the operator's metadata service through us. So: `https` unless the
//! provider's own `base_url` is `http`; only hosts in `result_hosts`, their subdomains, and the base host
//! itself; and a name that is not listed literally never leads to an address inside anybody's network.
//! Names are resolved once, by [`Resolver`], and the connection goes to an address that passed, so a
//! name that changes its answer (DNS rebinding) gains nothing.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use reqwest::Url;
use tower_service::Service;

pub(in crate::providers) use crate::addresses::Lookup;
use crate::addresses::{ListedHost, host_of, is_public};

/// The hosts of one provider's result links.
#[derive(Debug, Clone)]
pub(super) struct ResultHosts {
    http_allowed: bool,
    base: ListedHost,
    listed: Vec<ListedHost>,
}

/// Why a link is not opened. Names the host, never the link: links carry signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not `https`.
    Scheme(String),
    /// A host that is not among them.
    Host(String),
    /// An address inside somebody's network.
    PrivateAddress(String),
    /// With a user name or password.
    Credentials,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(scheme) => write!(formatter, "its scheme is {scheme}"),
            Self::Host(host) => {
                write!(formatter, "{host} is not among the provider's result_hosts")
            }
            Self::PrivateAddress(host) => write!(
                formatter,
                "{host} leads to a private address and is not listed literally in result_hosts"
            ),
            Self::Credentials => formatter.write_str("it holds a user name or password"),
        }
    }
}

impl std::error::Error for Refusal {}

impl ResultHosts {
    /// # Errors
    /// A sentence naming the entry that is no `host` or `host:port`.
    pub(super) fn new(base_url: &Url, entries: &[String]) -> Result<Self, String> {
        Ok(Self {
            http_allowed: base_url.scheme() == "http",
            base: ListedHost::of(base_url),
            listed: entries
                .iter()
                .map(|entry| {
                    ListedHost::parse(entry)
                        .ok_or_else(|| format!("result_hosts: '{entry}' is no host or host:port"))
                })
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether a link may be opened, as far as its text tells.
    pub(super) fn check(&self, url: &Url) -> Result<(), Refusal> {
        match url.scheme() {
            "https" => {}
            "http" if self.http_allowed => {}
            other => return Err(Refusal::Scheme(other.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Credentials);
        }
        let Some(host) = host_of(url) else {
            return Err(Refusal::Host("a link without a host".to_owned()));
        };
        let port = url.port_or_known_default();
        if !self.all().any(|listed| listed.covers(&host, port)) {
            return Err(Refusal::Host(host));
        }
        match host.parse::<IpAddr>() {
            Ok(address) if !is_public(address) && !self.is_literal(&host) => {
                Err(Refusal::PrivateAddress(host))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The listed ones; the base host counts as listed with its port and without subdomains.
    fn all(&self) -> impl Iterator<Item = &ListedHost> {
        self.listed.iter().chain([&self.base])
    }

    /// Whether it stands there itself, not only a domain above it.
    fn is_literal(&self, host: &str) -> bool {
        self.all().any(|listed| listed.is(host))
    }

    /// Whether it, or a domain above it, stands there.
    fn is_listed(&self, host: &str) -> bool {
        self.all().any(|listed| listed.covers_name(host))
    }
}

/// Resolves names to addresses; where there are `hosts`, to those that a result link may be connected to.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    pub(super) hosts: Option<Arc<ResultHosts>>,
    pub(super) lookup: Lookup,
}

impl Resolver {
    async fn resolve(self, name: Name) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let Some(hosts) = self.hosts else {
            return Ok((self.lookup)(name.as_str().to_owned()).await?);
        };
        let host = name.as_str().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        // Links were checked before, so a name that is not listed can only be the operator's own proxy.
        let any_address = hosts.is_literal(&host) || !hosts.is_listed(&host);
        let mut found = (self.lookup)(host.clone()).await?;
        if !any_address {
            found.retain(|address| is_public(address.ip()));
            if found.is_empty() {
                return Err(Refusal::PrivateAddress(host).into());
            }
        }
        Ok(found)
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { Ok(resolver.resolve(name).await?.into_iter()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(base: &str, entries: &[&str]) -> ResultHosts {
        let entries = entries
            .iter()
            .map(|&entry| entry.to_owned())
            .collect::<Vec<_>>();
        ResultHosts::new(&Url::parse(base).unwrap(), &entries).unwrap()
    }

    #[test]
    fn links_are_judged_by_their_text() {
        let https = hosts(
            "https://api.example.com/v1",
            &[
                "replicate.delivery",
                "cdn.example.net:8443",
                "10.0.0.7",
                "[::1]:9000",
            ],
        );
        let http = hosts("http://127.0.0.1:8000/v1", &["files.local"]);
        for (hosts, link, allowed) in [
            (&https, "https://replicate.delivery/a.png", true),
            (&https, "https://pbxt.replicate.delivery/a.png?sig=1", true),
            (&https, "https://REPLICATE.delivery./a.png", true),
            (&https, "https://replicate.delivery:444/a.png", true),
            (&https, "http://replicate.delivery/a.png", false),
            (&https, "https://evilreplicate.delivery/a.png", false),
            (&https, "https://replicate.delivery.evil.com/a.png", false),
            (&https, "https://replicate.delivery@evil.com/a.png", false),
            (
                &https,
                "https://user:secret@replicate.delivery/a.png",
                false,
            ),
            (&https, "https://cdn.example.net:8443/a.png", true),
            (&https, "https://x.cdn.example.net:8443/a.png", true),
            (&https, "https://cdn.example.net/a.png", false),
            (&https, "https://api.example.com/a.png", true),
            (&https, "https://api.example.com:8443/a.png", false),
            (&https, "https://x.api.example.com/a.png", false),
            (&https, "https://10.0.0.7/a.png", true),
            (&https, "https://0x0a000007/a.png", true),
            (&https, "https://x.10.0.0.7.nip.io/a.png", false),
            (&https, "https://10.0.0.8/a.png", false),
            (&https, "https://169.254.169.254/latest/meta-data", false),
            (&https, "https://2130706433/", false),
            (&https, "https://[::1]:9000/a.png", true),
            (&https, "https://[::1]/a.png", false),
            (&https, "https://[::ffff:10.0.0.7]/a.png", false),
            (&https, "ftp://replicate.delivery/a.png", false),
            (&https, "file:///etc/passwd", false),
            (&http, "http://127.0.0.1:8000/a.png", true),
            (&http, "http://127.0.0.1:8001/a.png", false),
            (&http, "http://localhost:8000/a.png", false),
            (&http, "http://files.local/a.png", true),
            (&http, "https://files.local/a.png", true),
        ] {
            let url = Url::parse(link).unwrap();
            assert_eq!(hosts.check(&url).is_ok(), allowed, "{link}");
        }
    }

    #[tokio::test]
    async fn names_lead_to_private_addresses_only_when_listed_literally() {
        let hosts = Arc::new(hosts("https://api.example.com/v1", &["cdn.test"]));
        let resolve = async |name: &str, lookup: Lookup| {
            let resolver = Resolver {
                hosts: Some(hosts.clone()),
                lookup,
            };
            let found = resolver.resolve(name.parse().unwrap()).await;
            found
                .map(|found| {
                    let addresses = found.iter().map(|address| address.ip().to_string());
                    addresses.collect::<Vec<_>>()
                })
                .map_err(|error| error.to_string())
        };
        let mixed: Lookup = |_| {
            Box::pin(async {
                Ok(vec![
                    "127.0.0.1:0".parse().unwrap(),
                    "1.1.1.1:0".parse().unwrap(),
                    "[fd00::1]:0".parse().unwrap(),
                ])
            })
        };
        let private: Lookup = |_| Box::pin(async { Ok(vec!["10.0.0.1:0".parse().unwrap()]) });
        assert_eq!(resolve("a.cdn.test", mixed).await.unwrap(), ["1.1.1.1"]);
        assert_eq!(resolve("A.CDN.test", mixed).await.unwrap(), ["1.1.1.1"]);
        assert_eq!(resolve("cdn.test", mixed).await.unwrap().len(), 3);
        assert_eq!(resolve("cdn.test", private).await.unwrap(), ["10.0.0.1"]);
        assert_eq!(resolve("proxy.corp", private).await.unwrap(), ["10.0.0.1"]);
        let refused = resolve("a.cdn.test", private).await.unwrap_err();
        assert!(
            refused.contains("a.cdn.test leads to a private address"),
            "{refused}"
        );
    }
}
