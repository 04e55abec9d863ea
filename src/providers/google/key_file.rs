//! A service account's key file, and the assertion that it signs (`contracts/google-imagen.md`, 1.3).
//!
//! Signed with `ring`, which TLS brings along. The crates for this want an HTTP client, a clock or a second
//! cryptography library of their own, and what is needed is three fields and one signature.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ring::{rand::SystemRandom, rsa, signature::RSA_PKCS1_SHA256};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::json;

/// What the token opens.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long an assertion holds; Google takes no more.
const LIFETIME_SECONDS: i64 = 3600;

/// Who we are, and the key that proves it.
pub(super) struct KeyFile {
    client_email: String,
    key_id: Option<String>,
    key: rsa::KeyPair,
    /// Where access tokens come from.
    pub(super) token_uri: String,
    /// The project that the account belongs to.
    pub(super) project: Option<String>,
}

/// As Google's console gives it out; other members are not needed. Lives for one function, and no `Debug`:
/// it holds the key.
#[derive(Deserialize)]
struct Document {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    #[serde(default = "default_token_uri")]
    token_uri: String,
    project_id: Option<String>,
}

fn default_token_uri() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

impl KeyFile {
    /// # Errors
    /// A sentence naming the file and what is wrong with it; never with any of its content.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path)
            .map_err(|error| format!("credentials_file {}: {error}", path.display()))?;
        Self::parse(&text)
            .map_err(|problem| format!("credentials_file {}: {problem}", path.display()))
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        // A parser's own message may quote the key.
        let document: Document = serde_json::from_slice(text).map_err(|_| {
            "is no service account's key: it needs client_email and private_key".to_owned()
        })?;
        Ok(Self {
            key: key_pair(&document.private_key)?,
            client_email: document.client_email,
            key_id: document.private_key_id,
            token_uri: document.token_uri,
            project: document.project_id,
        })
    }

    /// A JWT that says who we are, good for an hour from `now`.
    ///
    /// # Errors
    /// When the system has no randomness, which signing needs against timing attacks.
    pub(super) fn assertion(&self, now: DateTime<Utc>) -> Result<String, String> {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = json!(id);
        }
        let issued_at = now.timestamp();
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": issued_at,
            "exp": issued_at + LIFETIME_SECONDS,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| "the assertion could not be signed".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// PKCS#8 as Google writes it, or PKCS#1 as other tools do.
fn key_pair(pem: &str) -> Result<rsa::KeyPair, String> {
    let no_key = |_| "its private_key is no PEM key".to_owned();
    let pair = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(no_key)? {
        PrivateKeyDer::Pkcs8(der) => rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err("its private_key is no RSA key".to_owned()),
    };
    pair.map_err(|error| format!("its private_key is no RSA key that can be used: {error}"))
}
