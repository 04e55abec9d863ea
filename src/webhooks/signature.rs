//! How messages are signed: Standard Webhooks 1.0.0 (<https://www.standardwebhooks.com>, read 2026-11), symmetric.
//!
//! Signed is `id.timestamp.body` with HMAC-SHA256; while a secret is being changed there are two signatures, with
//! a space between them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

/// What a secret begins with where people see it.
const PREFIX: &str = "whsec_";

/// A secret as receivers configure it.
pub(crate) fn shown(secret: &SecretSlice<u8>) -> SecretString {
    format!("{PREFIX}{}", STANDARD.encode(secret.expose_secret())).into()
}

/// The value of `webhook-signature`.
pub(super) fn sign(
    secrets: &[SecretSlice<u8>],
    id: &str,
    sent_at: DateTime<Utc>,
    body: &[u8],
) -> String {
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret())
                .expect("HMAC takes keys of any length");
            mac.update(id.as_bytes());
            mac.update(b".");
            mac.update(sent_at.timestamp().to_string().as_bytes());
            mac.update(b".");
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the specification's own libraries are tested with.
    #[test]
    fn messages_are_signed_as_the_standard_says() {
        const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let secret = SecretSlice::from(STANDARD.decode(SECRET).unwrap());
        assert_eq!(shown(&secret).expose_secret(), format!("whsec_{SECRET}"));
        let other = SecretSlice::from(vec![7; 32]);
        let sent_at = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(
            sign(std::slice::from_ref(&secret), id, sent_at, body),
            expected
        );
        let both = sign(&[other, secret], id, sent_at, body);
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(second, expected);
        assert!(first.starts_with("v1,") && first != second);
    }
}
