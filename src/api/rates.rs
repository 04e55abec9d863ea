//! `x-ratelimit-…`: how the caller stands against its limits per minute, on every answer to a POST for pictures, in
//! `OpenAI`'s form (`contracts/openai-images.md`, section 7).
//!
//! The ledger leaves the figures at a [`Gauge`] where it counts the request, so they are those of the moment in which
//! it was counted. An answer has none where nothing is limited, and where nothing could be counted: without a good
//! key, from an address that the key may not be used from, and from a process that is overloaded or stops.

use std::time::Duration;

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::ledger::{Gauge, Level};

/// The headers of one limit.
struct Names {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

const REQUESTS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-requests"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
    reset: HeaderName::from_static("x-ratelimit-reset-requests"),
};
const IMAGES: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-images"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-images"),
    reset: HeaderName::from_static("x-ratelimit-reset-images"),
};

/// Gives the exchange a gauge, and its answer what that says.
pub(super) async fn tell(mut request: Request, next: Next) -> Response {
    let gauge = Gauge::default();
    request.extensions_mut().insert(gauge.clone());
    let mut response = next.run(request).await;
    let reading = gauge.read();
    let headers = response.headers_mut();
    insert(headers, &REQUESTS, reading.requests);
    insert(headers, &IMAGES, reading.images);
    response
}

fn insert(headers: &mut HeaderMap, names: &Names, level: Option<Level>) {
    let Some(level) = level else {
        return;
    };
    headers.insert(&names.limit, HeaderValue::from(level.limit));
    headers.insert(&names.remaining, HeaderValue::from(level.remaining));
    if let Ok(reset) = HeaderValue::from_str(&in_words(level.reset)) {
        headers.insert(&names.reset, reset);
    }
}

/// `120ms`, `59.25s`, `6m0s`, to the millisecond, rounded up.
fn in_words(duration: Duration) -> String {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (minutes, ms) = (ms / 60_000, ms % 60_000);
    let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    if minutes == 0 {
        format!("{seconds}s")
    } else {
        format!("{minutes}m{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_does() {
        for (micros, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (120_000, "120ms"),
            (999_999, "1s"),
            (1_000_000, "1s"),
            (10_000_000, "10s"),
            (59_250_000, "59.25s"),
            (60_000_000, "1m0s"),
            (360_000_000, "6m0s"),
            (61_001_000, "1m1.001s"),
        ] {
            assert_eq!(
                in_words(Duration::from_micros(micros)),
                expected,
                "{micros}"
            );
        }
    }
}
