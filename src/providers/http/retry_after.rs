//! How long a provider asks to be left alone (`contracts/openai-images.md`, sections 6 and 7).

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{self, HeaderMap};

/// Longer than this nobody is left alone unasked; a provider that means it says it again.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);

/// What the headers say, else what the message says: `retry-after-ms`, then `retry-after` in seconds
/// (fractions allowed) or as an HTTP date, then `Please try again in 1m2.5s` or `Please retry in 37.36s`.
pub(in crate::providers) fn retry_after(
    headers: &HeaderMap,
    message: &str,
    now: DateTime<Utc>,
) -> Option<Duration> {
    let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    header("retry-after-ms")
        .and_then(|text| plain_seconds(text, 1e-3))
        .or_else(|| {
            let text = header(header::RETRY_AFTER.as_str())?;
            plain_seconds(text, 1.0).or_else(|| until_date(text, now))
        })
        .or_else(|| in_words(message))
        .map(|delay| delay.min(MAX_RETRY_AFTER))
}

fn plain_seconds(number: &str, unit_seconds: f64) -> Option<Duration> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if number.is_empty() || !number.bytes().all(plain) {
        return None;
    }
    let seconds = number.parse::<f64>().ok()? * unit_seconds;
    Duration::try_from_secs_f64(seconds.min(MAX_RETRY_AFTER.as_secs_f64())).ok()
}

fn until_date(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let at = DateTime::parse_from_rfc2822(text).ok()?;
    Some((at.to_utc() - now).to_std().unwrap_or(Duration::ZERO))
}

/// `… try again in 15ms`, `… in 6m0s`, `… retry in 1.5s`.
fn in_words(message: &str) -> Option<Duration> {
    let (_, mut rest) = message
        .split_once("try again in ")
        .or_else(|| message.split_once("retry in "))?;
    let mut total = None;
    loop {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|character: char| !character.is_ascii_lowercase())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit_seconds = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return total,
        };
        let Some(part) = plain_seconds(number, unit_seconds) else {
            return total;
        };
        total = Some(total.unwrap_or(Duration::ZERO) + part);
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_saying_it_is_understood() {
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        for (pairs, message, expected_ms) in [
            (&[][..], "", None),
            (&[("retry-after", "2")], "", Some(2_000)),
            (&[("retry-after", "0")], "", Some(0)),
            (&[("retry-after", "0.25")], "", Some(250)),
            (
                &[("retry-after", "99999999999999999999")],
                "",
                Some(600_000),
            ),
            (&[("retry-after", "-1")], "", None),
            (&[("retry-after", "inf")], "", None),
            (&[("retry-after", "soon")], "", None),
            (
                &[("retry-after", "Fri, 20 Nov 2026 10:00:30 GMT")],
                "",
                Some(30_000),
            ),
            (
                &[("retry-after", "Fri, 20 Nov 2026 09:00:00 GMT")],
                "",
                Some(0),
            ),
            (
                &[("retry-after", "2"), ("retry-after-ms", "1500")],
                "",
                Some(1_500),
            ),
            (
                &[("retry-after", "2"), ("retry-after-ms", "x")],
                "",
                Some(2_000),
            ),
            (&[], "Please try again in 15ms. Visit …", Some(15)),
            (&[], "Please try again in 1.5s.", Some(1_500)),
            (&[], "Please try again in 6m0s.", Some(360_000)),
            (&[], "Please try again in 2h", Some(600_000)),
            (&[], "Please retry in 37.36s.", Some(37_360)),
            (&[], "Please try again in a while", None),
            (&[], "Please try again in ", None),
            (&[("retry-after", "7")], "try again in 1s", Some(7_000)),
        ] {
            let headers = pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>();
            let expected = expected_ms.map(Duration::from_millis);
            assert_eq!(
                retry_after(&headers, message, now),
                expected,
                "{pairs:?} {message}"
            );
        }
    }
}
