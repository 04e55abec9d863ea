//! Secrets: made, shown once, hashed, compared.
//!
//! `ek_live_` or `ek_test_` and 40 random characters of 62, about 238 bits; the eight that the hint
//! repeats leave more than 190. That much randomness is why one SHA-256 is a good enough hash.

use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Mode;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARACTERS: usize = 40;
const HINT_CHARACTERS: usize = 4;

/// SHA-256 of a secret, as it is stored.
pub(super) type SecretHash = [u8; 32];

/// A new secret.
pub(super) fn generate(mode: Mode) -> SecretString {
    let mut random = rand::rng();
    let mut text = String::from(prefix(mode));
    text.reserve_exact(RANDOM_CHARACTERS);
    text.extend(
        (0..RANDOM_CHARACTERS)
            .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])),
    );
    SecretString::from(text)
}

/// What a person recognises it by: `ek_test_abcd…wxyz`.
pub(super) fn hint(secret: &SecretString) -> String {
    let text = secret.expose_secret();
    let body_at = Mode::ALL
        .into_iter()
        .map(prefix)
        .find(|prefix| text.starts_with(prefix))
        .map_or(0, str::len);
    let (prefix, body) = text.split_at(body_at);
    let head: String = body.chars().take(HINT_CHARACTERS).collect();
    let tail: String = body
        .chars()
        .skip(body.chars().count().saturating_sub(HINT_CHARACTERS))
        .collect();
    format!("{prefix}{head}…{tail}")
}

/// Whether it is worth asking the database.
pub(super) fn looks_like_one(secret: &SecretString) -> bool {
    Mode::ALL.into_iter().any(|mode| {
        secret
            .expose_secret()
            .strip_prefix(prefix(mode))
            .is_some_and(|body| {
                body.len() == RANDOM_CHARACTERS && body.bytes().all(|b| b.is_ascii_alphanumeric())
            })
    })
}

pub(super) fn hash(secret: &SecretString) -> SecretHash {
    Sha256::digest(secret.expose_secret()).into()
}

/// Compares in constant time. The index found the row by bytes of a hash, which says nothing of the
/// secret; this is the comparison that decides.
pub(super) fn same_hash(stored: &[u8], computed: &SecretHash) -> bool {
    stored.ct_eq(computed).into()
}

const fn prefix(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => "ek_live_",
        Mode::Test => "ek_test_",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn secrets_have_their_form_and_never_repeat() {
        let mut seen = HashSet::new();
        for mode in Mode::ALL {
            for _ in 0..500 {
                let secret = generate(mode);
                let text = secret.expose_secret();
                assert!(text.starts_with(&format!("ek_{mode}_")), "{text}");
                assert_eq!(text.len(), 48);
                assert!(looks_like_one(&secret));
                assert!(seen.insert(text.to_owned()));
            }
        }
    }

    #[test]
    fn a_hint_shows_four_characters_at_each_end() {
        let secret = SecretString::from("ek_test_abcd012345678901234567890123456789wxyz");
        assert_eq!(hint(&secret), "ek_test_abcd…wxyz");
    }

    #[test]
    fn what_is_no_secret_is_not_looked_up() {
        for text in [
            "",
            "ek_live_",
            "sk-abcdefghijklmnopqrstuvwxyz012345678901234",
            "ek_live_abc",
            "ek_test_abcd01234567890123456789012345678901-xyz",
            "ek_test_ääääääääääääääääääää",
            "ek_prod_abcd012345678901234567890123456789012xyz",
        ] {
            assert!(!looks_like_one(&SecretString::from(text)), "{text}");
        }
    }

    #[test]
    fn only_the_same_hash_is_the_same() {
        let one = hash(&generate(Mode::Live));
        assert!(same_hash(&one, &one));
        let mut other = one;
        other[31] ^= 1;
        assert!(!same_hash(&other, &one));
        assert!(!same_hash(&one[..31], &one));
    }
}
