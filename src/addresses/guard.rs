//! An HTTP client for addresses that strangers chose: it connects to the open internet, and inside of a network to
//! what the operator lists only.
//!
//! Names are resolved here, once, and the connection goes to an address that passed, so a name that changes its
//! answer (DNS rebinding) gains nothing. A proxy would resolve names itself, so none is used; redirects are left to
//! the caller, who has to judge where they lead. Addresses that stand in a URL are not resolved, so they are the
//! caller's as well.

use std::{error::Error, sync::Arc, time::Duration};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{ListedHost, Lookup, is_public, system_lookup};

/// Until a connection is up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may be connected to. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) listed: Arc<[ListedHost]>,
    /// Tests look names up in their own way.
    pub(crate) lookup: Lookup,
}

/// A name that leads to no address that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to a private address")]
pub(crate) struct NoAddress;

impl NoAddress {
    /// Whether this is why a request failed.
    pub(crate) fn caused(error: &reqwest::Error) -> bool {
        let mut source = error.source();
        while let Some(inner) = source {
            if inner.is::<Self>() {
                return true;
            }
            source = inner.source();
        }
        false
    }
}

impl Guard {
    /// Trusts these entries of `host` or `host:port`.
    ///
    /// # Errors
    /// A sentence that names the entry that is neither.
    pub(crate) fn new(entries: &[String]) -> Result<Self, String> {
        let listed = entries.iter().map(|entry| {
            let listed = ListedHost::parse(entry);
            listed.ok_or_else(|| format!("'{entry}' is no host or host:port"))
        });
        Ok(Self {
            listed: listed.collect::<Result<_, _>>()?,
            lookup: system_lookup,
        })
    }

    /// Whether the operator lists this very host: it may be inside of a network.
    pub(crate) fn trusts(&self, host: &str) -> bool {
        self.listed.iter().any(|listed| listed.is(host))
    }

    /// What a client is made with.
    pub(crate) fn client(&self) -> reqwest::ClientBuilder {
        // Somebody else may have installed one; any will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        reqwest::Client::builder()
            .user_agent(concat!("easel/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .dns_resolver(Arc::new(self.clone()))
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_ascii_lowercase();
        let is_trusted = self.trusts(host.strip_suffix('.').unwrap_or(&host));
        let lookup = self.lookup;
        Box::pin(async move {
            let mut found = lookup(host).await?;
            found.retain(|address| is_trusted || is_public(address.ip()));
            if found.is_empty() {
                return Err(NoAddress.into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name may change its answer after it was judged.
    #[tokio::test]
    async fn names_that_lead_into_networks_are_not_called() {
        let inside: Lookup =
            |_| Box::pin(async { Ok(vec![([10, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into()]) });
        let mut guard = Guard::new(&["own.internal".to_owned()]).unwrap();
        guard.lookup = inside;
        for (name, is_called) in [
            ("example.com", false),
            ("below.own.internal", false),
            ("own.internal", true),
            ("Own.Internal.", true),
        ] {
            let resolved = guard.resolve(name.parse().unwrap()).await;
            assert_eq!(resolved.is_ok(), is_called, "{name}");
        }
    }

    /// One public address among private ones is called there alone.
    #[tokio::test]
    async fn of_several_addresses_only_public_ones_are_left() {
        let both: Lookup =
            |_| Box::pin(async { Ok(vec![([10, 0, 0, 1], 0).into(), ([1, 1, 1, 1], 0).into()]) });
        let mut guard = Guard::new(&[]).unwrap();
        guard.lookup = both;
        let found = guard.resolve("example.com".parse().unwrap()).await.unwrap();
        assert_eq!(found.collect::<Vec<_>>(), [([1, 1, 1, 1], 0).into()]);
    }
}
