//! What a value can be: one type per kind of setting, each with the words for what a good one looks like.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{LinkStyle, LogFormat, OnDisconnect, StoreConfig};
use crate::addresses::{IpRange, ListedHost};

/// A type that a setting can have.
pub(super) trait Setting: Sized {
    /// What a good value is, with its article: `a duration such as "300s"`.
    const EXPECTED: &'static str;
    /// Whether a bad value may stand in a message.
    const SHOWN: bool = true;

    /// From text: a string of the file or a variable.
    fn from_text(text: &str) -> Option<Self>;

    /// From a TOML integer.
    fn from_integer(_: i64) -> Option<Self> {
        None
    }

    /// From a TOML boolean.
    fn from_boolean(_: bool) -> Option<Self> {
        None
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "text";

    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a whole number from 0 on";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_integer(value: i64) -> Option<Self> {
        Self::try_from(value).ok()
    }
}

impl Setting for IpRange {
    const EXPECTED: &'static str =
        "an IP address or network such as 203.0.113.7, 10.0.0.0/8 or 2001:db8::/32";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an IP address and a port such as 127.0.0.1:8080";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = r#"a duration with its unit such as "300s" or "15 min""#;

    fn from_text(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "'pretty' or 'json'";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "pretty" => Some(Self::Pretty),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Setting for OnDisconnect {
    const EXPECTED: &'static str = "'finish' or 'cancel'";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "finish" => Some(Self::Finish),
            "cancel" => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// A number of things, at least one.
pub(super) struct AtLeastOne(pub(super) u32);

impl Setting for AtLeastOne {
    const EXPECTED: &'static str = "a whole number from 1 on";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::from_integer)
    }

    fn from_integer(value: i64) -> Option<Self> {
        let value = u32::try_from(value).ok()?;
        (value > 0).then_some(Self(value))
    }
}

/// A duration above zero.
pub(super) struct NonZeroDuration(pub(super) Duration);

impl Setting for NonZeroDuration {
    const EXPECTED: &'static str =
        r#"a duration above zero with its unit such as "300s" or "15 min""#;

    fn from_text(text: &str) -> Option<Self> {
        let duration = Duration::from_text(text)?;
        (!duration.is_zero()).then_some(Self(duration))
    }
}

/// A number of bytes, at least one.
pub(super) struct Size(pub(super) u64);

impl Size {
    pub(super) const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// As a number of bytes that memory can hold.
    pub(super) fn in_memory(&self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for Size {
    const EXPECTED: &'static str = r#"a size in bytes or with its unit such as "64 MiB""#;

    fn from_text(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        number
            .checked_mul(unit)
            .filter(|bytes| *bytes > 0)
            .map(Self)
    }

    fn from_integer(value: i64) -> Option<Self> {
        u64::try_from(value)
            .ok()
            .filter(|bytes| *bytes > 0)
            .map(Self)
    }
}

/// `http://…` or `https://…` without query, fragment and credentials; slashes at the end are dropped.
pub(super) struct HttpUrl(pub(super) String);

impl Setting for HttpUrl {
    const EXPECTED: &'static str =
        "an http:// or https:// address without user name, query or fragment";

    fn from_text(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let scheme_is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?;
        let plain = scheme_is_http
            && !authority.host().is_empty()
            && !authority.as_str().contains('@')
            && uri.query().is_none()
            && !text.contains('#');
        plain.then(|| Self(text.trim_end_matches('/').to_owned()))
    }
}

/// The origin of web pages as browsers write it (`https://app.example.com`), or `*`.
pub(super) struct PageOrigin(pub(super) String);

impl Setting for PageOrigin {
    const EXPECTED: &'static str =
        r#"an origin such as "https://app.example.com" without path, or "*" for all"#;

    fn from_text(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self(text.to_owned()));
        }
        let HttpUrl(url) = HttpUrl::from_text(text)?;
        let uri: http::Uri = url.parse().ok()?;
        // A star in a name would match nothing: browsers' origins are compared whole.
        let is_bare = uri.path() == "/"
            && url
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'*');
        is_bare.then(|| Self(url.to_ascii_lowercase()))
    }
}

/// The address of a database, with its password.
pub(super) struct DatabaseUrl(pub(super) SecretString);

impl Setting for DatabaseUrl {
    const EXPECTED: &'static str = "an address such as postgres://user:password@host:5432/database";
    const SHOWN: bool = false;

    fn from_text(text: &str) -> Option<Self> {
        let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
        is_postgres.then(|| Self(text.into()))
    }
}

/// `file:PATH` or `s3://bucket/prefix`.
impl Setting for StoreConfig {
    const EXPECTED: &'static str = "file:PATH or s3://bucket/prefix";

    fn from_text(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file:") {
            return PathBuf::from_text(path).map(Self::Directory);
        }
        let rest = text.strip_prefix("s3://")?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_good =
            is_bucket_name(name) && (prefix.is_empty() || prefix.split('/').all(is_plain_segment));
        is_good.then(|| Self::Bucket {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// What any S3-compatible store takes as a name, and no more: it becomes a part of a host name.
fn is_bucket_name(name: &str) -> bool {
    let is_inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
    let is_outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(is_inner)
        && is_outer(bytes.first())
        && is_outer(bytes.last())
        && !name.contains("..")
}

/// A part of a key that is the same in a path, a URL and a signature.
fn is_plain_segment(segment: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain)
}

impl Setting for LinkStyle {
    const EXPECTED: &'static str = "'easel' or 'presigned'";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "easel" => Some(Self::Easel),
            "presigned" => Some(Self::Presigned),
            _ => None,
        }
    }
}

/// Where a link that others chose may lead: `host` or `host:port`, in lower case.
pub(super) struct Host(pub(super) String);

impl Setting for Host {
    const EXPECTED: &'static str = "a host or host:port without scheme or path";

    fn from_text(text: &str) -> Option<Self> {
        let authority: http::uri::Authority = text.parse().ok()?;
        let plain = !authority.host().is_empty() && !text.contains('@');
        let plain = plain && ListedHost::parse(text).is_some();
        plain.then(|| Self(text.to_ascii_lowercase()))
    }
}
