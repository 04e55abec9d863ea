//! What can be asked of the fake: to answer well, or to misbehave in one of the ways upstreams do.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::rules::Accepted;
use crate::support::pictures;

/// How one call ends. Only calls whose request was right get here; a wrong one is always refused.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// As the real one.
    Answer,
    /// As the real one, after a while.
    AnswerAfter(Duration),
    /// A picture under this `finish-reason`; `None`: without one.
    FinishReason(Option<&'static str>),
    /// A fixed answer of any kind.
    Reply(Reply),
    /// Takes the request and never says a word.
    Never,
    /// The head and this many bytes of the picture, then the connection breaks.
    CutAfter(usize),
    /// The head and this many bytes of the picture, then silence on an open connection.
    StallAfter(usize),
    /// The picture in so many pieces with a pause between them.
    Drip(usize, Duration),
    /// The first half of a picture, as if it were whole.
    HalfAPicture,
    /// So many bytes that begin like a PNG.
    Huge(usize),
    /// The right answer with headers that nobody knows.
    UnknownHeaders,
    /// JSON, whatever was asked for.
    Json,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The envelope of v2beta.
    pub(crate) fn error(status: u16, name: &str, errors: &[String]) -> Self {
        let body = json!({
            "id": "ed14ffe3b1f4a2d1c0b9a8f7e6d5c4b3", "name": name, "errors": errors,
        });
        Self::raw(status, "application/json", body.to_string())
    }

    /// A body of any kind.
    pub(crate) fn raw(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            body: body.into(),
        }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn bad_request(problems: &[String]) -> Self {
        Self::error(400, "bad_request", problems)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::one(
            401,
            "unauthorized",
            "authorization: invalid or missing header value",
        )
    }

    pub(crate) fn payment_required() -> Self {
        Self::one(
            402,
            "payment_required",
            "You lack sufficient credits to make this request. Please purchase more credits at https://platform.stability.ai/account/credits and try again.",
        )
    }

    pub(crate) fn content_moderation() -> Self {
        Self::one(
            403,
            "content_moderation",
            "Your request was flagged by our content moderation system, as a result your request was denied and you were not charged.",
        )
    }

    pub(crate) fn not_found() -> Self {
        Self::one(
            404,
            "not_found",
            "The requested resource could not be found.",
        )
    }

    pub(crate) fn payload_too_large() -> Self {
        Self::one(
            413,
            "payload_too_large",
            "body: payloads cannot be larger than 10MiB in size",
        )
    }

    pub(crate) fn invalid_language() -> Self {
        Self::one(
            422,
            "invalid_language",
            "English is the only supported language for this service.",
        )
    }

    pub(crate) fn public_figure() -> Self {
        Self::one(
            422,
            "public_figure",
            "Our system detected the likeness of a well-known public figure in your image, as a result your request was denied and you were not charged.",
        )
    }

    /// Its `id` is its name.
    pub(crate) fn rate_limited() -> Self {
        let body = json!({
            "id": "rate_limit_exceeded", "name": "rate_limit_exceeded",
            "errors": ["You have exceeded the rate limit of 150 requests within a 10 second period, and have been timed out for 60 seconds."],
        });
        Self::raw(429, "application/json", body.to_string())
    }

    pub(crate) fn internal_error() -> Self {
        Self::one(
            500,
            "internal_error",
            "An unexpected server error has occurred, please try again later.",
        )
    }

    fn one(status: u16, name: &str, text: &str) -> Self {
        Self::error(status, name, &[text.to_owned()])
    }

    pub(super) fn into_parts(self) -> (u16, HeaderMap, Body) {
        let pairs = self.headers.into_iter();
        let headers = pairs
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_str(&value).unwrap())
            })
            .collect();
        (self.status, headers, Body::from(self.body))
    }
}

impl Behaviour {
    /// The behaviour that a prompt asks for (contract, section 9), for clients that cannot reach into the
    /// fake.
    pub(super) fn named_in(prompt: &str) -> Option<Self> {
        let says = |word: &str| prompt.split_whitespace().any(|each| each == word);
        [
            ("MODERATE", Self::Reply(Reply::content_moderation())),
            ("BLUR", Self::FinishReason(Some("CONTENT_FILTERED"))),
            ("RATE", Self::Reply(Reply::rate_limited())),
            ("BOOM", Self::Reply(Reply::internal_error())),
            ("SLOW", Self::AnswerAfter(Duration::from_millis(300))),
            ("DROP", Self::CutAfter(100)),
        ]
        .into_iter()
        .find_map(|(word, behaviour)| says(word).then_some(behaviour))
    }

    /// Carries it out: status, headers and body. `Never` does not return.
    pub(super) async fn perform(self, accepted: &Accepted, number: u64) -> (u16, HeaderMap, Body) {
        let picture = painted(accepted, number);
        let success = |body: Body| (200, head(accepted, Some("SUCCESS"), number), body);
        match self {
            Self::Answer if accepted.as_json => json_answer(&picture, accepted, number),
            Self::Json => json_answer(&picture, accepted, number),
            Self::Answer => success(Body::from(picture)),
            Self::AnswerAfter(delay) => {
                tokio::time::sleep(delay).await;
                success(Body::from(picture))
            }
            Self::FinishReason(reason) => {
                (200, head(accepted, reason, number), Body::from(picture))
            }
            Self::Reply(reply) => reply.into_parts(),
            Self::Never => std::future::pending().await,
            Self::CutAfter(bytes) => {
                let broken = stream::once(async {
                    // The beginning is on its way before the break.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(std::io::Error::other("the fake breaks the connection"))
                });
                let beginning = stream::iter([Ok(picture.slice(..bytes))]);
                success(Body::from_stream(beginning.chain(broken)))
            }
            Self::StallAfter(bytes) => {
                let beginning = stream::iter([Ok::<_, std::io::Error>(picture.slice(..bytes))]);
                success(Body::from_stream(beginning.chain(stream::pending())))
            }
            Self::Drip(pieces, pause) => {
                let length = picture.len() / pieces + 1;
                let pieces: Vec<Bytes> = picture
                    .chunks(length)
                    .map(|chunk| picture.slice_ref(chunk))
                    .collect();
                success(Body::from_stream(stream::iter(pieces).then(
                    move |piece| async move {
                        tokio::time::sleep(pause).await;
                        Ok::<_, std::io::Error>(piece)
                    },
                )))
            }
            Self::HalfAPicture => success(Body::from(picture.slice(..picture.len() / 2))),
            Self::Huge(bytes) => {
                let mut huge = picture.to_vec();
                huge.truncate(1000);
                huge.resize(bytes, 0);
                success(Body::from(huge))
            }
            Self::UnknownHeaders => {
                let (status, mut headers, body) = success(Body::from(picture));
                headers.insert("x-brand-new", HeaderValue::from_static("{\"a\":[1]}"));
                headers.insert("finish-reason-2", HeaderValue::from_static("ERROR"));
                (status, headers, body)
            }
        }
    }
}

/// Every picture differs from the one before.
fn painted(accepted: &Accepted, number: u64) -> Bytes {
    let seed = u8::try_from(number * 20 % 250 + 3).unwrap();
    let (width, height) = accepted.size;
    pictures::paint(accepted.format, width, height, seed, false)
}

/// Raw answers say in the head how it went (section 3).
fn head(accepted: &Accepted, finish_reason: Option<&'static str>, number: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let media_type = format!("image/{}", accepted.format);
    headers.insert("content-type", HeaderValue::from_str(&media_type).unwrap());
    headers.insert("seed", HeaderValue::from(343_940_597 + number));
    if let Some(reason) = finish_reason {
        headers.insert("finish-reason", HeaderValue::from_static(reason));
    }
    headers
}

/// In the body it stands otherwise, and only there.
fn json_answer(picture: &Bytes, accepted: &Accepted, number: u64) -> (u16, HeaderMap, Body) {
    let body = json!({
        "image": STANDARD.encode(picture), "finish_reason": "SUCCESS", "seed": 343_940_597 + number,
    });
    let media_type = format!("application/json; type=image/{}", accepted.format);
    Reply::raw(200, &media_type, body.to_string()).into_parts()
}
