//! Where a client is: the other end of its connection, or, where that is a proxy that the operator trusts, whoever the
//! proxy says it speaks for.
//!
//! `x-forwarded-for` is a list to which each proxy adds, at the right, the address that it was called from. What a
//! client itself writes into it stands further to the left. So it is read from the right, and only for as long as it
//! was written by a trusted proxy: the first address that is none is the client's. From a connection that comes from
//! elsewhere nothing of it is believed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{Extensions, HeaderMap};

use super::server::Peer;
use crate::addresses::IpRange;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The networks of the operator's own proxies.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[IpRange]>);

impl Proxies {
    /// Those whose `x-forwarded-for` is believed.
    pub fn trusted(ranges: &[IpRange]) -> Self {
        Self(ranges.into())
    }

    /// Where the client of this request is. `None`: a trusted proxy says something that is no address, or nobody
    /// knows the connection.
    pub(crate) fn client(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
        let Peer(peer) = extensions.get()?;
        self.behind(peer.to_canonical(), headers)
    }

    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer;
        // The last line first, and in each the last address.
        let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        let lines = lines.iter().rev().map(|line| line.to_str().ok());
        let mut hops = lines.flat_map(|line| {
            let unreadable = line.is_none().then_some("");
            unreadable
                .into_iter()
                .chain(line.unwrap_or_default().rsplit(','))
        });
        while self.trust(client) {
            let Some(hop) = hops.next() else {
                return Some(client);
            };
            client = address(hop.trim())?;
        }
        Some(client)
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }
}

/// An address as proxies write it: with a port or without, IPv6 in brackets or not.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr = bare
        .unwrap_or(hop)
        .parse()
        .or_else(|_| hop.parse().map(|socket: SocketAddr| socket.ip()))
        .ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(peer: &str, lines: &[&str], expected: Option<&str>) {
        let ranges: Vec<IpRange> = ["10.0.0.0/8", "2001:db8::/32"]
            .iter()
            .map(|range| range.parse().unwrap())
            .collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                X_FORWARDED_FOR,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        let found = Proxies::trusted(&ranges).client(&headers, &extensions);
        let expected = expected.map(|address| address.parse().unwrap());
        assert_eq!(found, expected, "{peer} {lines:?}");
    }

    #[test]
    fn who_is_no_trusted_proxy_is_the_client() {
        check("192.0.2.1", &[], Some("192.0.2.1"));
        check("192.0.2.1", &["198.51.100.7"], Some("192.0.2.1"));
        check("::ffff:192.0.2.1", &["10.0.0.1"], Some("192.0.2.1"));
    }

    #[test]
    fn behind_trusted_proxies_it_is_the_last_address_that_is_none_of_theirs() {
        check("10.0.0.1", &[], Some("10.0.0.1"));
        check("10.0.0.1", &["198.51.100.7"], Some("198.51.100.7"));
        check(
            "::ffff:10.0.0.1",
            &["::ffff:198.51.100.7"],
            Some("198.51.100.7"),
        );
        // What a client writes itself is not believed.
        check(
            "10.0.0.1",
            &["203.0.113.9, 198.51.100.7"],
            Some("198.51.100.7"),
        );
        check(
            "10.0.0.1",
            &["nonsense, 198.51.100.7"],
            Some("198.51.100.7"),
        );
        // Several proxies, in one line or in several.
        check(
            "10.0.0.1",
            &["203.0.113.9,198.51.100.7 , 10.9.9.9"],
            Some("198.51.100.7"),
        );
        check(
            "2001:db8::1",
            &["203.0.113.9, 198.51.100.7", "10.9.9.9"],
            Some("198.51.100.7"),
        );
        check(
            "10.0.0.1",
            &["198.51.100.7", "203.0.113.9"],
            Some("203.0.113.9"),
        );
        // All of it is inside.
        check("10.0.0.1", &["10.2.2.2, 10.1.1.1"], Some("10.2.2.2"));
        for (hop, client) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("2001:db9::7", "2001:db9::7"),
            ("[2001:db9::7]", "2001:db9::7"),
            ("[2001:db9::7]:443", "2001:db9::7"),
        ] {
            check("10.0.0.1", &[hop], Some(client));
        }
    }

    #[test]
    fn what_is_no_address_is_nobody() {
        for line in ["unknown", "", "198.51.100.7, _hidden", "198.51.100.7,", "ü"] {
            check("10.0.0.1", &[line], None);
        }
        check("10.0.0.1", &["198.51.100.7", "ü, 10.1.1.1"], None);
        let found = Proxies::default().client(&HeaderMap::new(), &Extensions::new());
        assert_eq!(found, None);
    }
}
