//! What a client asks, as far as a repeat of it asks the same: the name that it gives the effect, how often it
//! says that it has asked, and a digest of method, path and body. And whether it waits for the answer, which a
//! repeat need not do likewise.

use axum::extract::FromRequestParts;
use http::{HeaderMap, request::Parts};
use sha2::{Digest as _, Sha256};

use super::{ApiError, App, prefer};
use crate::{catalog::Violation, gateway::Reader, ledger::RequestHash};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const LONGEST_KEY: usize = 255;
/// `OpenAI`'s SDKs count their repeats in it, from 0, and send no key.
const RETRY_COUNT: &str = "x-stainless-retry-count";
/// Where the count stops. No SDK counts so far, and the books, which count up to 32,767, must not take two counts that
/// they tell apart for one.
const HIGHEST_COUNT: u16 = 1000;

/// What a client asks. Taken out of the headers here, so that a request that waits for its picture does not
/// keep all of them.
pub(super) struct Asked {
    /// The client's name for the effect.
    pub(super) idempotency_key: Option<String>,
    /// How often it says that it has asked before.
    pub(super) retry_count: u16,
    /// Whether it waits for the answer.
    pub(super) reader: Reader,
    digest: Sha256,
    part: Option<Sha256>,
}

impl Asked {
    /// Takes in the next bytes of a JSON body.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// A part of a form begins. Its boundary says nothing, and neither does what a file is called.
    pub(super) fn part(&mut self, name: &str, is_file: bool) {
        let mut part = Sha256::new();
        part.update([u8::from(is_file)]);
        part.update((name.len() as u64).to_be_bytes());
        part.update(name);
        self.part = Some(part);
    }

    /// Takes in the next bytes of a part.
    pub(super) fn part_bytes(&mut self, bytes: &[u8]) {
        if let Some(part) = &mut self.part {
            part.update(bytes);
        }
    }

    /// The part is over.
    pub(super) fn part_end(&mut self) {
        if let Some(part) = self.part.take() {
            // No JSON begins so.
            self.digest.update(b"part\0");
            self.digest.update(part.finalize());
        }
    }

    /// What it comes to.
    pub(super) fn hash(&self) -> RequestHash {
        RequestHash::new(self.digest.clone().finalize().into())
    }
}

impl FromRequestParts<App> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let mut given = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let idempotency_key = match (given.next(), given.next()) {
            (None, _) => None,
            (Some(key), None) => Some(
                key.to_str()
                    .ok()
                    .filter(|key| is_key(key))
                    .ok_or_else(refused)?,
            ),
            (Some(_), Some(_)) => return Err(refused()),
        };
        let mut digest = Sha256::new();
        // A path has no space.
        digest.update(parts.method.as_str());
        digest.update(b" ");
        digest.update(parts.uri.path().trim_end_matches('/'));
        digest.update(b" ");
        Ok(Self {
            idempotency_key: idempotency_key.map(str::to_owned),
            retry_count: retry_count(&parts.headers),
            reader: if prefer::responds_async(&parts.headers) {
                Reader::ComesBack
            } else {
                Reader::Waits
            },
            digest,
            part: None,
        })
    }
}

fn retry_count(headers: &HeaderMap) -> u16 {
    let count = headers.get(RETRY_COUNT);
    count
        .and_then(|count| count.to_str().ok()?.parse().ok())
        .map_or(0, |count: u16| count.min(HIGHEST_COUNT))
}

fn is_key(key: &str) -> bool {
    (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn refused() -> ApiError {
    let message = format!(
        "Invalid value for the header '{IDEMPOTENCY_KEY}': expected one of 1 to {LONGEST_KEY} printable ASCII \
         characters."
    );
    ApiError::Parameter(Violation::named(IDEMPOTENCY_KEY, "invalid_value", message))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn keys_are_printable_ascii_within_bounds() {
        for (key, expected) in [
            ("a", true),
            ("order 17/ü", false),
            ("4b0c0a7c-0c5f-4f8b-9c0e-2f6f7a3c0001", true),
            ("", false),
            ("tab\there", false),
        ] {
            assert_eq!(is_key(key), expected, "{key:?}");
        }
        assert!(is_key(&"k".repeat(255)));
        assert!(!is_key(&"k".repeat(256)));
    }

    #[test]
    fn the_count_of_repeats_ends_where_nobody_counts() {
        for (given, expected) in [
            ("0", 0),
            ("2", 2),
            ("1000", 1000),
            ("1001", 1000),
            ("32768", 1000),
            ("65535", 1000),
            ("65536", 0),
            ("-1", 0),
            ("two", 0),
            ("", 0),
        ] {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(RETRY_COUNT),
                HeaderValue::from_static(given),
            )]);
            assert_eq!(retry_count(&headers), expected, "{given}");
        }
        assert_eq!(retry_count(&HeaderMap::new()), 0);
    }

    fn asked() -> Asked {
        Asked {
            idempotency_key: None,
            retry_count: 0,
            reader: Reader::Waits,
            digest: Sha256::new(),
            part: None,
        }
    }

    fn form(parts: &[(&str, bool, &str)], cut: usize) -> RequestHash {
        let mut asked = asked();
        for (name, is_file, bytes) in parts {
            asked.part(name, *is_file);
            for chunk in bytes.as_bytes().chunks(cut) {
                asked.part_bytes(chunk);
            }
            asked.part_end();
        }
        asked.hash()
    }

    #[test]
    fn forms_are_the_same_when_their_parts_are() {
        let same = form(&[("prompt", false, "a fox"), ("image", true, "bytes")], 100);
        for (parts, is_same) in [
            (
                &[("prompt", false, "a fox"), ("image", true, "bytes")][..],
                true,
            ),
            (
                &[("prompt", false, "a foxbytes"), ("image", true, "")],
                false,
            ),
            (
                &[("prompt", false, "a fox"), ("image", false, "bytes")],
                false,
            ),
            (
                &[("prompta", false, " fox"), ("image", true, "bytes")],
                false,
            ),
            (&[("prompt", false, "a fox")], false),
        ] {
            assert_eq!(form(parts, 2) == same, is_same, "{parts:?}");
        }
    }
}
