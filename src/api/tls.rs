//! TLS of the main listener: a certificate and its key, from files in PEM.
//!
//! TLS 1.2 and 1.3 by `rustls`; HTTP/2 where the client offers it (ALPN), else HTTP/1.1. Who a client is, its API
//! key says: no certificates of clients are asked for.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject as _},
    },
};

/// Why a listener has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read as PEM.
    #[error("[tls] {key}: {} cannot be read: {source}", path.display())]
    Unreadable {
        /// `cert` or `key`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never has any of its content.
        source: PemError,
    },
    /// A file in which there is none.
    #[error("[tls] {key}: there is no {what} in {}", path.display())]
    Missing {
        /// `cert` or `key`.
        key: &'static str,
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// They do not go together, or are of no kind that can be used.
    #[error("[tls] {} and {} cannot be used together: {source}", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the library says.
        source: rustls::Error,
    },
}

/// What a listener needs for TLS.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |key, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unreadable { key, path, source }
    };
    let certificates = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable("cert", cert))?;
    if certificates.is_empty() {
        return Err(TlsError::Missing {
            key: "cert",
            what: "certificate",
            path: cert.to_owned(),
        });
    }
    let private_key = match PrivateKeyDer::from_pem_file(key) {
        Ok(private_key) => private_key,
        Err(PemError::NoItemsFound) => {
            return Err(TlsError::Missing {
                key: "key",
                what: "private key",
                path: key.to_owned(),
            });
        }
        Err(error) => return Err(unreadable("key", key)(error)),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(certificates, private_key)
        })
        .map_err(|source| TlsError::Unusable {
            cert: cert.to_owned(),
            key: key.to_owned(),
            source,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
