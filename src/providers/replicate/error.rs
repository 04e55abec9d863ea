//! What its errors mean: those of HTTP, and those within a prediction (`contracts/replicate.md`, section 4).
//!
//! Reading is lenient: `title` is missing from some, `status` from others. The vendor's own words go only to
//! callers who asked for something wrong or forbidden; those about our account ("buy credit at …") go
//! nowhere.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{prediction::Status, request::parameter_of};
use crate::{
    catalog::{ImageRequest, Route},
    providers::{
        ErrorKind, ProviderError,
        http::retry_after,
        wording::{in_our_words, in_our_words_with, presentable},
    },
};

/// Longer than this nobody is left alone unasked.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);
/// The code that clients of image APIs branch on; the vendor has none.
const REFUSED_CODE: &str = "moderation_blocked";
/// A prediction that ends within this of our deadline ended because of it.
const NEAR: Duration = Duration::from_secs(2);

/// What an error said of itself.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Problem {
    title: String,
    detail: String,
    /// In seconds.
    retry_after: Option<f64>,
    /// Of the input: field, type, description.
    invalid_fields: Vec<[String; 3]>,
}

impl Problem {
    /// Reads a body; what cannot be read says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let text = |value: &Value, name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let detail = text(&document, "detail");
        let fields = document.get("invalid_fields").and_then(Value::as_array);
        Self {
            title: text(&document, "title"),
            retry_after: document.get("retry_after").and_then(Value::as_f64),
            invalid_fields: match fields {
                Some(fields) => fields
                    .iter()
                    .map(|field| ["field", "type", "description"].map(|name| text(field, name)))
                    .collect(),
                None => fields_in_words(&detail),
            },
            detail,
        }
    }

    /// What it means as the answer to a creation.
    pub(super) fn into_error(
        self,
        status: u16,
        headers: &HeaderMap,
        request: &ImageRequest,
        route: &Route,
        now: DateTime<Utc>,
    ) -> ProviderError {
        let (kind, maybe_charged) = match status {
            400 | 413 | 422 => return self.refusal(status, request, route),
            401 | 403 => (ErrorKind::Auth, false),
            402 => (ErrorKind::QuotaExhausted, false),
            404 | 405 | 410 => (ErrorKind::ModelUnavailable, false),
            429 => {
                let retry_after = self.rest(headers, now);
                (ErrorKind::RateLimited { retry_after }, false)
            }
            // A server in between gave up waiting: the prediction may run.
            408 | 504 | 524 => (ErrorKind::Timeout { sent: true }, true),
            // A prediction may have been created, and nobody will fetch it.
            _ => {
                let retry_after = self.rest(headers, now);
                (ErrorKind::Overloaded { retry_after }, true)
            }
        };
        ProviderError {
            upstream_status: Some(status),
            maybe_charged,
            // Creations are counted per account, not per model (section 6).
            whole_account: matches!(kind, ErrorKind::RateLimited { .. }),
            ..ProviderError::new(kind, in_our_words_with(kind, status))
        }
    }

    /// What it means as the answer to a question about a prediction, which was created whatever became of it.
    /// Nothing in it is the caller's fault.
    pub(super) fn of_question(
        self,
        status: u16,
        headers: &HeaderMap,
        now: DateTime<Utc>,
    ) -> ProviderError {
        let kind = match status {
            401 | 403 => ErrorKind::Auth,
            402 => ErrorKind::QuotaExhausted,
            429 => ErrorKind::RateLimited {
                retry_after: self.rest(headers, now),
            },
            408 | 504 | 524 => ErrorKind::Timeout { sent: true },
            // Also 404: a server that has not heard of it yet.
            _ => ErrorKind::Overloaded {
                retry_after: self.rest(headers, now),
            },
        };
        ProviderError {
            upstream_status: Some(status),
            maybe_charged: true,
            ..ProviderError::new(kind, in_our_words_with(kind, status))
        }
    }

    /// How long it asks to be left alone.
    fn rest(&self, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
        let own = self.retry_after.and_then(|seconds| {
            let most = MAX_RETRY_AFTER.as_secs_f64();
            Duration::try_from_secs_f64(seconds.min(most)).ok()
        });
        own.or_else(|| retry_after(headers, &self.detail, now))
            .or_else(|| in_words(&self.detail))
    }

    /// The input is wrong. If the caller chose what is wrong, it is his affair and said in his words; a
    /// model that refuses what we added, or does not exist, is the operator's.
    fn refusal(self, status: u16, request: &ImageRequest, route: &Route) -> ProviderError {
        let blamed = self
            .invalid_fields
            .iter()
            .find_map(|[field, problem, description]| {
                let field = field.strip_prefix("input.").unwrap_or(field);
                // A field that the model does not know at all is our mistake.
                let is_known = problem != "additional_property_not_allowed";
                let parameter = is_known.then(|| parameter_of(field, request, route));
                Some((parameter.flatten()?, description))
            });
        let blames_us =
            blamed.is_none() && (!self.invalid_fields.is_empty() || self.title.contains("version"));
        let kind = if blames_us {
            ErrorKind::ModelUnavailable
        } else {
            ErrorKind::InvalidRequest
        };
        let text = blamed.map_or(&self.detail, |(_, description)| description);
        let words = if blames_us {
            None
        } else {
            presentable(text, &request.prompt)
        };
        let words = words.unwrap_or_else(|| in_our_words_with(kind, status));
        let param = blamed.map(|(parameter, _)| parameter);
        ProviderError {
            message: match param {
                Some(param) => format!("{param}: {words}"),
                None => words,
            },
            param: param.map(str::to_owned),
            upstream_status: Some(status),
            ..ProviderError::new(kind, "")
        }
    }
}

/// `… resets in ~30s.`, `Expected available in 1 second.`
fn in_words(message: &str) -> Option<Duration> {
    message.split(" in ").skip(1).find_map(|rest| {
        let rest = rest.trim_start_matches('~');
        let digits = rest.find(|character: char| !character.is_ascii_digit());
        let (number, unit) = rest.split_at(digits?);
        let unit = unit.trim_start();
        unit.starts_with('s').then_some(())?;
        let seconds = Duration::from_secs(number.parse().ok()?);
        Some(seconds.min(MAX_RETRY_AFTER))
    })
}

/// Why a prediction that ended brought nothing. `time_left` is what our deadline still allows.
pub(super) fn of_prediction(
    status: Status,
    text: Option<&str>,
    prompt: &str,
    time_left: Duration,
) -> ProviderError {
    let text = text.unwrap_or_default();
    let error = |kind, message: &str| ProviderError {
        upstream_status: Some(200),
        // No output, no charge: official models are priced per output (section 5).
        maybe_charged: false,
        ..ProviderError::new(kind, message)
    };
    match status {
        Status::Failed if is_refusal(text) => refused(
            presentable(text, prompt)
                .as_deref()
                .unwrap_or_else(|| in_our_words(ErrorKind::ContentRefused)),
        ),
        Status::Failed => error(
            ErrorKind::Overloaded { retry_after: None },
            &match code(text) {
                Some(code) => format!("the prediction failed ({code})"),
                None => "the prediction failed".to_owned(),
            },
        ),
        // `Cancel-After` ended it, which says our deadline.
        Status::Canceled if time_left <= NEAR => ProviderError {
            maybe_charged: true,
            ..error(
                ErrorKind::Timeout { sent: true },
                "the prediction did not end in time",
            )
        },
        Status::Aborted if time_left <= NEAR => error(
            ErrorKind::Timeout { sent: false },
            "the prediction did not begin in time",
        ),
        // Somebody at the provider, or the operator there.
        Status::Canceled => ProviderError {
            maybe_charged: true,
            ..error(
                ErrorKind::Overloaded { retry_after: None },
                "the prediction was cancelled at the provider",
            )
        },
        Status::Aborted => error(
            ErrorKind::Overloaded { retry_after: None },
            "the prediction was aborted before it began",
        ),
        Status::Succeeded | Status::Starting | Status::Processing | Status::Other => {
            ProviderError {
                maybe_charged: true,
                ..error(
                    ErrorKind::Malformed,
                    "the prediction succeeded without output",
                )
            }
        }
    }
}

/// A picture, or all of them, that the safety filter kept.
pub(super) fn refused(message: &str) -> ProviderError {
    ProviderError {
        code: Some(REFUSED_CODE.to_owned()),
        upstream_status: Some(200),
        ..ProviderError::new(ErrorKind::ContentRefused, message)
    }
}

/// The vendor's texts about content (section 4).
fn is_refusal(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let mut before = "";
    text.contains("nsfw")
        || words(&text).any(|word| {
            // A name may be case-sensitive; content is sensitive.
            let is_about_case = std::mem::replace(&mut before, word) == "case";
            word == "e005" || (word == "sensitive" && !is_about_case)
        })
}

/// Whether the vendor's text says that another try may go well (section 4): an unknown error, or no
/// place to run in time.
pub(super) fn may_repeat(text: Option<&str>) -> bool {
    let text = text.unwrap_or_default();
    matches!(code(text), Some("E1000" | "E6716")) && !is_refusal(text)
}

/// `- input.num_outputs: Must be less than or equal to 4`, a line each: what `invalid_fields` says, in words.
fn fields_in_words(detail: &str) -> Vec<[String; 3]> {
    let lines = detail.lines().filter_map(|line| {
        let (field, words) = line.trim().strip_prefix("- ")?.split_once(": ")?;
        field.starts_with("input.").then_some(())?;
        Some([field, "", words].map(str::to_owned))
    });
    lines.collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_ascii_alphanumeric())
}

/// The vendor's code within a text: `E` and three or four digits.
fn code(text: &str) -> Option<&str> {
    words(text).find(|word| {
        word.strip_prefix('E').is_some_and(|digits| {
            (3..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    })
}
