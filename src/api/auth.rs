//! Who asks: the Bearer key of a request, looked up.

use axum::extract::FromRequestParts;
use http::{header, request::Parts};
use secrecy::SecretString;

use super::{ApiError, App};
use crate::{budget::Owner, keys::ApiKey};

/// A request with a key that is known, has not ended, and may be used from where the client is. Whose it is stays with the request: what is read of its
/// body counts against the account.
pub(super) struct Authenticated(pub(super) ApiKey);

impl FromRequestParts<App> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let value = parts
            .headers
            .get(header::AUTHORIZATION)
            .ok_or(ApiError::NoKey)?;
        let secret = value
            .to_str()
            .ok()
            .and_then(bearer)
            .ok_or(ApiError::NoKey)?;
        let found = app
            .keys
            .authenticate(&SecretString::from(secret.to_owned()))
            .await?;
        let Some(key) = found else {
            return Err(ApiError::UnknownKey(shown(secret)));
        };
        tracing::Span::current().record("key.id", tracing::field::display(key.id));
        if key.allowed_ips.is_some() {
            let client = app.proxies.client(&parts.headers, &parts.extensions);
            if !key.is_allowed_from(client) {
                // Not counted as a request: whoever has got hold of a key does not use up what its owner may do.
                return Err(ApiError::ForbiddenAddress(client));
            }
        }
        parts.extensions.insert(Owner::of(&key.account));
        Ok(Self(key))
    }
}

/// The token behind `Bearer`, whose case does not matter (RFC 9110, 11.1).
pub(crate) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What may be repeated of a key: enough to tell which one it was, too little to use.
fn shown(secret: &str) -> String {
    const SHORTEST: usize = 20;
    let mut prefix = 8;
    if secret.len() < SHORTEST || !secret.is_ascii() {
        return "****".to_owned();
    }
    if !secret.starts_with("ek_") {
        prefix = 3;
    }
    format!("{}****{}", &secret[..prefix], &secret[secret.len() - 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_and_nothing_else() {
        for (value, expected) in [
            ("Bearer ek_live_x", Some("ek_live_x")),
            ("bearer  ek_live_x ", Some("ek_live_x")),
            ("Basic dTpw", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("ek_live_x", None),
        ] {
            assert_eq!(bearer(value), expected, "{value}");
        }
    }

    #[test]
    fn a_wrong_key_is_shown_in_part() {
        assert_eq!(shown("ek_live_0123456789abcdefghij"), "ek_live_****ghij");
        assert_eq!(shown("sk-proj-0123456789abcdefghij"), "sk-****ghij");
        assert_eq!(shown("short"), "****");
        assert_eq!(shown("ключ-ключ-ключ-ключ-ключ"), "****");
    }
}
