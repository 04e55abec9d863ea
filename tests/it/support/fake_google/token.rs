//! The token server: verifies what the service account signed, and gives out tokens (contract, 1.3).

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderMap;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use serde_json::{Value, json};

use super::PROJECT;

/// Made for this fake; it opens nothing else.
pub(super) const PRIVATE_KEY: &str = include_str!("key.pem");
const EMAIL: &str = "painter@easel-fake-project.iam.gserviceaccount.com";
const KEY_ID: &str = "fake-key-id-1";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

pub(super) struct Tokens {
    uri: String,
    given: AtomicUsize,
    current: Mutex<Option<String>>,
    refusing: AtomicBool,
    hanging: AtomicBool,
    /// So many requests fail before one succeeds.
    failing: AtomicUsize,
}

impl Tokens {
    pub(super) fn new(uri: String) -> Self {
        Self {
            uri,
            given: AtomicUsize::new(0),
            current: Mutex::new(None),
            refusing: AtomicBool::new(false),
            hanging: AtomicBool::new(false),
            failing: AtomicUsize::new(0),
        }
    }

    pub(super) fn key_file(&self) -> Value {
        json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": KEY_ID,
            "private_key": PRIVATE_KEY,
            "client_email": EMAIL,
            "client_id": "1",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": self.uri,
            "universe_domain": "googleapis.com",
        })
    }

    pub(super) fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }

    pub(super) fn revoke(&self) {
        *self.current.lock().unwrap() = None;
    }

    pub(super) fn refuse(&self) {
        self.revoke();
        self.refusing.store(true, Ordering::SeqCst);
    }

    pub(super) fn hang(&self) {
        self.hanging.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_hanging(&self) -> bool {
        self.hanging.load(Ordering::SeqCst)
    }

    pub(super) fn fail(&self, times: usize) {
        self.failing.store(times, Ordering::SeqCst);
    }

    /// Whether this request fails.
    pub(super) fn fails(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }

    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let current = self.current.lock().unwrap();
        let given = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        given.is_some() && given == current.as_deref()
    }

    /// A token for an assertion that holds in every point.
    pub(super) fn give(&self, headers: &HeaderMap, form: &[u8]) -> Result<Value, String> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(format!("Invalid grant: account {EMAIL} not found"));
        }
        let content_type = headers.get("content-type").unwrap().to_str().unwrap();
        if content_type != "application/x-www-form-urlencoded" {
            return Err(format!("unexpected content type {content_type}"));
        }
        let form = std::str::from_utf8(form).unwrap();
        let assertion = form
            .strip_prefix(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=",
            )
            .ok_or("no assertion")?;
        self.verify(assertion)?;
        let number = self.given.fetch_add(1, Ordering::SeqCst);
        let token = format!("ya29.fake-access-token-{number:06}");
        *self.current.lock().unwrap() = Some(token.clone());
        Ok(json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))
    }

    fn verify(&self, assertion: &str) -> Result<(), String> {
        let (signed, signature) = assertion.rsplit_once('.').ok_or("no signature")?;
        let decode = |part: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| "not base64url without padding")
        };
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| "Invalid JWT Signature.")?;
        let (header, claims) = signed.split_once('.').ok_or("no claims")?;
        let json = |part: &str| -> Result<Value, String> {
            serde_json::from_slice(&decode(part)?).map_err(|error| error.to_string())
        };
        let header = json(header)?;
        if header != json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID}) {
            return Err(format!("unexpected header {header}"));
        }
        let claims = json(claims)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (issued, expires) = (
            claims["iat"].as_u64().ok_or("no iat")?,
            claims["exp"].as_u64().ok_or("no exp")?,
        );
        let expected =
            json!({"iss": EMAIL, "scope": SCOPE, "aud": self.uri, "iat": issued, "exp": expires});
        if claims != expected {
            return Err(format!("unexpected claims {claims}"));
        }
        // Milliseconds lie in a far future.
        if issued > now || now - issued > 60 || expires <= now || expires - issued > 3600 {
            return Err(format!(
                "the assertion holds from {issued} to {expires}, and it is {now}"
            ));
        }
        Ok(())
    }
}

fn public_key() -> Vec<u8> {
    let base64: String = PRIVATE_KEY
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let pair = KeyPair::from_pkcs8(&STANDARD.decode(base64).unwrap()).unwrap();
    pair.public_key().as_ref().to_vec()
}
