//! What the head of an answer says of the picture behind it (`contracts/stability.md`, section 3).
//!
//! A picture that broke Stability's policy comes with status 200, blurred; only the header `finish-reason`
//! tells it from a good one. So no picture is passed on without that header. Pure.

use reqwest::header::{self, HeaderMap};

use crate::providers::{ErrorKind, ProviderError};

const FINISH_REASON: &str = "finish-reason";

/// What follows.
#[derive(Debug)]
pub(super) enum Head {
    /// The picture.
    Picture,
    /// Words: an error, whatever the status.
    Words,
    /// Nothing that anybody wants.
    Nothing(ProviderError),
}

/// Reads the head of an answer.
pub(super) fn read_head(status: u16, headers: &HeaderMap) -> Head {
    if status != 200 || !is_picture(headers) {
        return Head::Words;
    }
    let reason = headers
        .get(FINISH_REASON)
        .map(|value| value.to_str().unwrap_or_default().trim());
    match reason {
        Some(reason) if reason.eq_ignore_ascii_case("SUCCESS") => Head::Picture,
        Some(reason) if reason.eq_ignore_ascii_case("CONTENT_FILTERED") => {
            Head::Nothing(content_filtered(status))
        }
        Some(_) => Head::Nothing(unjudged(status, "with an unknown finish-reason")),
        None => Head::Nothing(unjudged(status, "without a finish-reason")),
    }
}

/// The second way of refusing. Stability calls it a success, so it may be charged (section 5).
pub(super) fn content_filtered(status: u16) -> ProviderError {
    ProviderError {
        code: Some(super::error::MODERATION_BLOCKED.to_owned()),
        error_type: Some(super::error::USER_ERROR.to_owned()),
        upstream_status: Some(status),
        maybe_charged: true,
        ..ProviderError::new(
            ErrorKind::ContentRefused,
            "the provider's safety system held the picture back",
        )
    }
}

fn unjudged(status: u16, what: &str) -> ProviderError {
    ProviderError {
        upstream_status: Some(status),
        ..ProviderError::new(
            ErrorKind::Malformed,
            format!("the provider sent a picture {what}, so it may be a blurred one"),
        )
    }
}

fn is_picture(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    content_type
        .trim_start()
        .get(.."image/".len())
        .is_some_and(|start| start.eq_ignore_ascii_case("image/"))
}
