//! Where webhooks may go. Their addresses are chosen by strangers and called from inside the operator's network:
//! `https`, no credentials, public addresses only. What the operator lists literally may be anything. The same holds
//! for the addresses of a name when it is called ([`Guard`]); redirects are not followed.

use std::{net::IpAddr, time::Duration};

use reqwest::Url;

use crate::addresses::{self, Guard};

/// The longest address, in bytes.
pub(crate) const LONGEST_URL: usize = 2048;

/// Which addresses are good. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Targets(Guard);

/// Why an address is not called. Never says the address, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than any should be.
    #[error("expected a URL of at most {LONGEST_URL} characters")]
    TooLong,
    /// Not an absolute URL.
    #[error("expected a URL such as 'https://example.com/hook'")]
    NoUrl,
    /// Neither `https` nor a host that is listed.
    #[error("expected a URL that begins with 'https://'")]
    Scheme,
    /// With a user name or password.
    #[error("it holds a user name or password, which are not sent")]
    Credentials,
    /// An address inside somebody's network.
    #[error("it leads to a private address")]
    Private,
}

impl Targets {
    /// Public addresses, and these entries of `host` or `host:port`.
    ///
    /// # Errors
    /// A sentence naming the entry that is neither.
    pub fn new(entries: &[String]) -> Result<Self, String> {
        Guard::new(entries).map(Self)
    }

    /// Judges an address by its text.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, text: &str) -> Result<Url, Refusal> {
        if text.len() > LONGEST_URL {
            return Err(Refusal::TooLong);
        }
        let url = Url::parse(text).map_err(|_| Refusal::NoUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Credentials);
        }
        let host = addresses::host_of(&url).ok_or(Refusal::NoUrl)?;
        let port = url.port_or_known_default();
        let is_own = self.0.trusts(&host);
        match url.scheme() {
            "https" => {}
            "http" if is_own => {}
            _ => return Err(Refusal::Scheme),
        }
        let is_good = if is_own {
            // Another port of an internal host is none of the client's business.
            let mut own = self.0.listed.iter().filter(|listed| listed.is(&host));
            own.any(|listed| listed.covers(&host, port))
        } else {
            // Addresses are not looked up, so the guard does not see them.
            host.parse::<IpAddr>().map_or(true, addresses::is_public)
        };
        is_good.then_some(url).ok_or(Refusal::Private)
    }

    /// A client that connects to nothing else.
    pub(super) fn client(&self, timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
        self.0
            .client()
            .retry(reqwest::retry::never())
            .timeout(timeout)
            .pool_max_idle_per_host(1)
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(entries: &[&str]) -> Targets {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        Targets::new(&entries).unwrap()
    }

    #[test]
    fn only_public_https_and_what_is_listed() {
        let targets = targets(&[
            "hooks.internal:8080",
            "127.0.0.1",
            "[::1]:443",
            "two:1",
            "two:2",
        ]);
        let long = format!("https://example.com/{}", "x".repeat(LONGEST_URL));
        for (url, expected) in [
            ("https://example.com/hook?token=1", None),
            ("https://example.com:8443/", None),
            ("https://1.1.1.1/", None),
            ("http://hooks.internal:8080/a", None),
            ("https://hooks.internal:8080/a", None),
            ("http://127.0.0.1:99/", None),
            ("https://[::1]/", None),
            ("https://[::1]:8443/", Some(Refusal::Private)),
            ("http://hooks.internal/", Some(Refusal::Private)),
            ("https://Hooks.Internal.:8080/a", None),
            // What is below it is somebody else's.
            ("http://a.hooks.internal:8080/", Some(Refusal::Scheme)),
            ("http://two:1/", None),
            ("http://two:2/", None),
            ("http://two:3/", Some(Refusal::Private)),
            ("ftp://127.0.0.1/", Some(Refusal::Scheme)),
            ("http://example.com/", Some(Refusal::Scheme)),
            ("https://me:pass@example.com/", Some(Refusal::Credentials)),
            ("https://10.0.0.1/", Some(Refusal::Private)),
            ("https://127.0.0.2/", Some(Refusal::Private)),
            ("https://[::ffff:169.254.169.254]/", Some(Refusal::Private)),
            ("https://2130706434/", Some(Refusal::Private)),
            ("example.com", Some(Refusal::NoUrl)),
            ("/hook", Some(Refusal::NoUrl)),
            ("data:text/plain,x", Some(Refusal::NoUrl)),
            ("", Some(Refusal::NoUrl)),
            (&long, Some(Refusal::TooLong)),
        ] {
            assert_eq!(targets.check(url).err(), expected, "{url}");
        }
        for entry in ["", "a/b", "me@host", "host:port", "https://host"] {
            assert!(Targets::new(&[entry.to_owned()]).is_err(), "{entry}");
        }
    }
}
