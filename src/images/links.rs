//! Signed links to hosted pictures: `/files/{id}.{ext}?expires=&signature=`.
//!
//! What is signed is the picture, its format and the second at which the link ends; so a link opens
//! nothing but what it was made for, and not for longer. Nothing here is kept anywhere: whoever has
//! the secret can check a link.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{bucket::Presigner, sniff::PictureFormat};
use crate::ids::ImageId;

/// Makes and checks signed links. The secret lives in the database, so that every replica agrees.
#[derive(Clone)]
pub struct Links {
    /// Without a slash at its end.
    public_url: String,
    /// HMAC-SHA256, keyed and fed with nothing yet.
    keyed: Hmac<Sha256>,
    /// Who makes links that open elsewhere.
    presigner: Option<Presigner>,
}

/// Why a link does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The signature is missing or is not ours: 403.
    #[error("the signature does not fit the link")]
    Forged,
    /// Its time is over: 410.
    #[error("the link has expired")]
    Expired,
}

impl Links {
    /// Links below `public_url`, signed with `secret`.
    pub fn new(public_url: &str, secret: [u8; 32]) -> Self {
        // A key as long as the hash's block is taken as it is; a shorter one means the same with zeros.
        let mut key = [0; 64];
        key[..secret.len()].copy_from_slice(&secret);
        Self {
            public_url: public_url.trim_end_matches('/').to_owned(),
            keyed: Hmac::new(&key.into()),
            presigner: None,
        }
    }

    /// Links that begin elsewhere; those that were made before go on opening.
    #[must_use]
    pub fn below(&self, public_url: &str) -> Self {
        Self {
            public_url: public_url.trim_end_matches('/').to_owned(),
            keyed: self.keyed.clone(),
            presigner: self.presigner.clone(),
        }
    }

    /// The path that everything here is below, without a slash at its end; empty at the root of its host.
    pub fn path(&self) -> &str {
        let behind = self.public_url.find("://").map_or(0, |colon| colon + 3);
        let slash = self.public_url[behind..].find('/');
        slash.map_or("", |slash| &self.public_url[behind + slash..])
    }

    /// The same, but new links lead to the bucket. Those that lead here go on opening.
    #[must_use]
    pub fn presigned(self, presigner: Presigner) -> Self {
        Self {
            presigner: Some(presigner),
            ..self
        }
    }

    /// A link to a picture, good until `expires_at` to the second below; to the bucket if that is how links are
    /// made, and if we can.
    pub fn link(
        &self,
        id: ImageId,
        format: PictureFormat,
        expires_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> String {
        let presigned = self.presigner.as_ref().and_then(|presigner| {
            let time = expires_at.signed_duration_since(now).to_std().ok()?;
            presigner.sign(id, format, time.max(Duration::from_secs(1)))
        });
        presigned.unwrap_or_else(|| self.sign(id, format, expires_at))
    }

    /// The link to a picture here, good until `expires_at`, to the second below.
    fn sign(&self, id: ImageId, format: PictureFormat, expires_at: DateTime<Utc>) -> String {
        let expires = expires_at.timestamp().max(0).to_string();
        let signature = self.signature(id, format, &expires).finalize().into_bytes();
        let extension = format.extension();
        let mut link = format!(
            "{}/files/{id}.{extension}?expires={expires}&signature=",
            self.public_url
        );
        for byte in signature {
            // Writing to a string cannot fail.
            let _ = write!(link, "{byte:02x}");
        }
        link
    }

    /// Checks a link's parts; the signature first, in constant time, so that nobody learns from us
    /// which links there were.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn verify(
        &self,
        id: ImageId,
        format: PictureFormat,
        expires: &str,
        signature: &str,
        now: DateTime<Utc>,
    ) -> Result<(), LinkError> {
        let signature = read_hex(signature).ok_or(LinkError::Forged)?;
        self.signature(id, format, expires)
            .verify_slice(&signature)
            .map_err(|_| LinkError::Forged)?;
        // Ours, so it is the one spelling that `sign` writes.
        let expires: i64 = expires.parse().map_err(|_| LinkError::Forged)?;
        if now.timestamp() < expires {
            Ok(())
        } else {
            Err(LinkError::Expired)
        }
    }

    fn signature(&self, id: ImageId, format: PictureFormat, expires: &str) -> Hmac<Sha256> {
        // Neither an id nor an extension contains a line break: no two links are the same message.
        self.keyed
            .clone()
            .chain_update(format!("{id}.{}\n{expires}", format.extension()))
    }
}

/// The secret is not shown.
impl fmt::Debug for Links {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Links")
            .field("public_url", &self.public_url)
            .finish_non_exhaustive()
    }
}

/// 64 lower-case hex digits; one spelling only, so that a link has one form.
fn read_hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const SECRET: [u8; 32] = *b"an example secret of 32 letters.";

    struct Parts {
        id: ImageId,
        format: PictureFormat,
        expires: String,
        signature: String,
    }

    impl Parts {
        fn verify(&self, links: &Links, now: DateTime<Utc>) -> Result<(), LinkError> {
            links.verify(self.id, self.format, &self.expires, &self.signature, now)
        }
    }

    fn take_apart(link: &str) -> Parts {
        let path = link.strip_prefix("https://images.example/files/").unwrap();
        let (name, query) = path.split_once('?').unwrap();
        let (id, extension) = name.split_once('.').unwrap();
        let (expires, signature) = query.split_once('&').unwrap();
        Parts {
            id: id.parse().unwrap(),
            format: PictureFormat::from_extension(extension).unwrap(),
            expires: expires.strip_prefix("expires=").unwrap().to_owned(),
            signature: signature.strip_prefix("signature=").unwrap().to_owned(),
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-11-20T11:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn a_link_opens_until_its_second_and_no_longer() {
        let links = Links::new("https://images.example/", SECRET);
        let id = ImageId::new();
        let link = links.sign(id, PictureFormat::Webp, now() + TimeDelta::hours(1));
        let parts = take_apart(&link);
        assert_eq!((parts.id, parts.format), (id, PictureFormat::Webp));
        assert_eq!(parts.expires, "1795176000");
        for (after, expected) in [
            (0, Ok(())),
            (3_599_499, Ok(())),
            (3_599_500, Err(LinkError::Expired)),
            (3_600_000, Err(LinkError::Expired)),
            (86_400_000, Err(LinkError::Expired)),
        ] {
            let then = now() + TimeDelta::milliseconds(after);
            assert_eq!(parts.verify(&links, then), expected, "{after} ms later");
        }
    }

    /// The known answer was computed with Python's `hmac` module.
    #[test]
    fn the_signature_is_hmac_sha256() {
        let links = Links::new("http://127.0.0.1:8080", SECRET);
        let id = "img_0193d6f0a0007000800000000000abcd".parse().unwrap();
        let expires_at = DateTime::from_timestamp(1_795_176_000, 0).unwrap();
        assert_eq!(
            links.sign(id, PictureFormat::Png, expires_at),
            "http://127.0.0.1:8080/files/img_0193d6f0a0007000800000000000abcd.png\
             ?expires=1795176000&signature=8e57911d58a01cdb03c6239fc47a2fe47fcffdd699bcd12db0007f7f32b6762c"
        );
    }

    #[test]
    fn any_other_part_is_forged_even_when_its_time_is_over() {
        let links = Links::new("https://images.example", SECRET);
        let sign = || take_apart(&links.sign(ImageId::new(), PictureFormat::Png, now()));
        assert_eq!(sign().verify(&links, now()), Err(LinkError::Expired));

        let change = |change: fn(&mut Parts)| {
            let mut parts = sign();
            change(&mut parts);
            parts.verify(&links, now())
        };
        let changes: [fn(&mut Parts); 13] = [
            |parts| parts.id = ImageId::new(),
            |parts| parts.format = PictureFormat::Svg,
            |parts| parts.expires = "1995176000".to_owned(),
            |parts| parts.expires.insert(0, '0'),
            |parts| parts.expires.insert(0, '+'),
            |parts| parts.expires.push(' '),
            |parts| parts.expires.clear(),
            |parts| parts.signature.clear(),
            |parts| parts.signature.make_ascii_uppercase(),
            |parts| parts.signature.truncate(62),
            |parts| parts.signature.push_str("00"),
            |parts| parts.signature = "0".repeat(64),
            |parts| parts.signature = "é".repeat(32),
        ];
        for (number, changed) in changes.into_iter().enumerate() {
            assert_eq!(change(changed), Err(LinkError::Forged), "change {number}");
        }
        let other = Links::new("https://images.example", [7; 32]);
        assert_eq!(sign().verify(&other, now()), Err(LinkError::Forged));
    }

    #[test]
    fn no_end_in_the_past_of_1970() {
        let links = Links::new("https://images.example", SECRET);
        let link = links.sign(ImageId::new(), PictureFormat::Png, DateTime::<Utc>::MIN_UTC);
        assert_eq!(take_apart(&link).expires, "0");
    }

    #[test]
    fn the_path_is_that_of_public_url() {
        for (public_url, expected) in [
            ("https://images.example", ""),
            ("https://images.example/", ""),
            ("http://127.0.0.1:8080", ""),
            ("https://example.com/easel", "/easel"),
            ("https://example.com/apps/easel/", "/apps/easel"),
        ] {
            assert_eq!(Links::new(public_url, SECRET).path(), expected);
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let links = Links::new("https://images.example", SECRET);
        assert_eq!(
            format!("{links:?}"),
            r#"Links { public_url: "https://images.example", .. }"#
        );
    }
}
