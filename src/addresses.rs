//! Which addresses belong to the open internet, which hosts an operator has listed, how names become addresses, and
//! networks that somebody lists.
//!
//! For whoever opens a link that somebody else chose, from inside the operator's network; and for whoever asks
//! where a client is.

mod guard;

use std::{
    borrow::Cow,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

use futures_util::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net};
use reqwest::Url;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use tokio::{sync::Semaphore, task::spawn_blocking};

pub(crate) use self::guard::{Guard, NoAddress};

/// A network, or a single address. IPv4 in IPv6 (`::ffff:10.0.0.0/104`) is the IPv4 that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange(IpNet);

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpRangeError {
    /// Neither an address nor a network.
    #[error(
        "'{0}' is not an IP address or network such as 203.0.113.7, 10.0.0.0/8 or 2001:db8::/32"
    )]
    Unreadable(String),
    /// An address within a network where the network's own should be.
    #[error("'{given}' is an address within the network {network}: write one or the other")]
    Within {
        /// What was written.
        given: String,
        /// The network that it is in.
        network: IpRange,
    },
}

/// Bits before the IPv4 address of an IPv6 one.
const MAPPED_PREFIX: u8 = 96;

impl IpRange {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let text = text.trim();
        let unreadable = || IpRangeError::Unreadable(text.chars().take(64).collect());
        let given: IpNet = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse().map_err(|_| unreadable())?,
        };
        if given.addr() != given.network() {
            return Err(IpRangeError::Within {
                given: text.to_owned(),
                network: Self(given.trunc()),
            });
        }
        let mapped = match given.addr() {
            IpAddr::V6(address) => address.to_ipv4_mapped(),
            IpAddr::V4(_) => None,
        };
        let Some(address) = mapped.filter(|_| given.prefix_len() >= MAPPED_PREFIX) else {
            return Ok(Self(given));
        };
        Ipv4Net::new(address, given.prefix_len() - MAPPED_PREFIX)
            .map(|network| Self(network.into()))
            .map_err(|_| unreadable())
    }
}

/// A single address without its prefix.
impl fmt::Display for IpRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            fmt::Display::fmt(&self.0.addr(), formatter)
        } else {
            fmt::Display::fmt(&self.0, formatter)
        }
    }
}

impl Serialize for IpRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What [`Serialize`] writes.
impl JsonSchema for IpRange {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IpRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address, or a network",
            "examples": ["203.0.113.7", "10.0.0.0/8", "2001:db8::/32"],
        })
    }
}

/// How a name is looked up; tests bring their own.
pub(crate) type Lookup = fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;

/// Lookups at the same time. One whose name server never answers goes on for long after nobody waits for it, on one of
/// the threads that pictures are read and written by.
static LOOKUPS: Semaphore = Semaphore::const_new(32);

/// The machine's own resolver.
pub(crate) fn system_lookup(host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
    Box::pin(async move {
        let place = LOOKUPS.acquire().await.map_err(io::Error::other)?;
        let look = move || {
            let _place = place;
            Ok((host.as_str(), 0).to_socket_addrs()?.collect())
        };
        spawn_blocking(look).await.map_err(io::Error::other)?
    })
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

    /// The canonical text, or what is wrong.
    fn range(text: &str) -> String {
        match text.parse::<IpRange>() {
            Ok(range) => range.to_string(),
            Err(IpRangeError::Unreadable(_)) => "unreadable".to_owned(),
            Err(IpRangeError::Within { network, .. }) => format!("within {network}"),
        }
    }

    #[test]
    fn ranges_are_networks_or_addresses() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            (" 10.1.2.3 ", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::/0", "::/0"),
            ("10.1.2.3/8", "within 10.0.0.0/8"),
            ("2001:db8::1/64", "within 2001:db8::/64"),
            ("10.0.0.0/33", "unreadable"),
            ("10.0.0/8", "unreadable"),
            ("10.0.0.0/", "unreadable"),
            ("example.com", "unreadable"),
            ("", "unreadable"),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_in_ranges_in_whichever_form() {
        for (range, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:11.0.0.1", false),
            ("::ffff:10.0.0.0/104", "10.255.0.1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "::1", false),
            // All of IPv6 is not IPv4 too: a client's own form of its address must not matter.
            ("::/0", "10.1.2.3", false),
            ("::/0", "::ffff:10.1.2.3", false),
            ("::/0", "2001:db8::1", true),
        ] {
            let range: IpRange = range.parse().unwrap();
            assert_eq!(
                range.contains(address.parse().unwrap()),
                expected,
                "{range} {address}"
            );
        }
    }

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
