//! Which addresses belong to the open internet, which hosts an operator has listed, and how names become addresses.
//!
//! For whoever opens a link that somebody else chose, from inside the operator's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures_util::future::BoxFuture;
use reqwest::Url;

/// How a name is looked up; tests bring their own.
pub(crate) type Lookup = fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;

/// The machine's own resolver.
pub(crate) fn system_lookup(host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
}

/// Whether an address belongs to the open internet (the IANA special-purpose registries, 2026-11).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// A host that an operator lists, with the names below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedHost {
    host: String,
    /// `None`: any.
    port: Option<u16>,
    with_subdomains: bool,
}

impl ListedHost {
    /// A `host` or `host:port`; an address has no names below it.
    pub(crate) fn parse(entry: &str) -> Option<Self> {
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(digits.parse::<u16>().ok()?))
            }
            _ => (entry, None),
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', '*', ' ']) || host.starts_with('.')
        {
            return None;
        }
        // The URL parser knows every spelling of an address, so both sides are compared in the same one.
        let bracketed = if host.contains(':') && !host.starts_with('[') {
            format!("http://[{host}]/")
        } else {
            format!("http://{host}/")
        };
        let host = host_of(&Url::parse(&bracketed).ok()?)?;
        Some(Self {
            with_subdomains: host.parse::<IpAddr>().is_err(),
            host,
            port,
        })
    }

    /// That of a URL, with its port and without the names below it.
    pub(crate) fn of(url: &Url) -> Self {
        Self {
            host: host_of(url).unwrap_or_default(),
            port: url.port_or_known_default(),
            with_subdomains: false,
        }
    }

    /// Whether a link to this host and port is meant.
    pub(crate) fn covers(&self, host: &str, port: Option<u16>) -> bool {
        (self.port.is_none() || self.port == port) && self.covers_name(host)
    }

    /// The same of any port.
    pub(crate) fn covers_name(&self, host: &str) -> bool {
        let below = || {
            self.with_subdomains
                && host
                    .strip_suffix(&self.host)
                    .is_some_and(|label| label.len() > 1 && label.ends_with('.'))
        };
        self.host == host || below()
    }

    /// Whether it is this very host, not only one below it.
    pub(crate) fn is(&self, host: &str) -> bool {
        self.host == host
    }
}

/// The host in its one spelling: lower case, no brackets, no dot at the end.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        // Written for an IPv4 address: mapped, and NAT64.
        [0, 0, 0, 0, 0, 0xFFFF, high, low] | [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => {
            is_public_v4(embedded(high, low))
        }
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Teredo and the other protocol assignments, documentation.
        [0x2001, 0..=0x1FF | 0xDB8, ..] | [0x3FFF, 0..=0xFFF, ..] => false,
        [first, ..] => first & 0xE000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_hosts_with_or_without_a_port() {
        for (entry, expected) in [
            ("Replicate.Delivery", Some(("replicate.delivery", None))),
            ("localhost:9000", Some(("localhost", Some(9000)))),
            ("::1", Some(("::1", None))),
            ("[::1]:80", Some(("::1", Some(80)))),
            ("", None),
            (":80", None),
            ("*.example.com", None),
            (".example.com", None),
            ("https://example.com", None),
            ("example.com/files", None),
            ("example.com:port", None),
            ("example.com:70000", None),
            ("a b", None),
        ] {
            let expected = expected.map(|(host, port)| ListedHost {
                host: host.to_owned(),
                port,
                with_subdomains: host != "::1",
            });
            assert_eq!(ListedHost::parse(entry), expected, "{entry}");
        }
    }

    #[test]
    fn addresses_inside_networks_are_not_public() {
        for (address, expected) in [
            ("1.1.1.1", true),
            ("172.15.255.255", true),
            ("172.32.0.1", true),
            ("100.63.255.255", true),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1111", true),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:1.1.1.1", true),
            ("::127.0.0.1", false),
            ("64:ff9b::a00:1", false),
            ("64:ff9b::101:101", true),
            ("64:ff9b:1::101:101", false),
            ("2002:7f00:1::", false),
            ("2001:0:1::", false),
            ("2001:db8::1", false),
            ("fc00::1", false),
            ("fd12:3456::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }
}
