//! What can be asked of the fake: to answer well, or to misbehave in one of the ways Google does.

use std::time::Duration;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    answer,
    rules::{self, Accepted},
};
use crate::support::pictures;

/// How one call ends. Only calls whose request was right get here; a wrong one is always refused.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// As the real one.
    Answer,
    /// A success of another shape, most of them refusals.
    Shape(Shape),
    /// A fixed answer of any kind.
    Reply(Reply),
    /// Takes the request and never says a word.
    Never,
    /// The head and this many bytes of the right answer, then the connection breaks.
    CutAfter(usize),
    /// All but this many bytes of the right answer, then the connection breaks.
    CutBeforeEnd(usize),
    /// The head and this many bytes of the right answer, then silence on an open connection.
    StallAfter(usize),
    /// The right answer in this many pieces with a pause between them.
    Drip(usize, Duration),
}

/// Successes that are none, or look strange (contract, 2.3, 2.4 and 3.3).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// `promptFeedback` with this reason, without candidates.
    BlockedPrompt(&'static str),
    /// The same with an empty list of candidates and a message.
    BlockedPromptWithMessage,
    /// A candidate without content that ended for this reason.
    Finished(&'static str),
    /// `"content": {}`
    EmptyContent,
    /// `"parts": null`
    PartsNull,
    /// Words instead of a picture.
    TextOnly,
    /// A draft, its flag first, and the picture.
    DraftFirst,
    /// A draft, its flag after its data, and the picture.
    DraftFlaggedLate,
    /// Nothing but a draft.
    OnlyDraft,
    /// Names in snake case.
    SnakeCase,
    /// Members that nobody knows, pictures among them.
    UnknownFields,
    /// Without `usageMetadata`.
    NoUsage,
    /// Base64 of a text instead of every picture.
    NotAPicture,
    /// So many pictures were filtered out of those asked for.
    RaiSome(usize),
    /// All were, and it says why.
    RaiAll,
    /// All were: `{}`
    RaiEmpty,
    /// All were: `{"predictions": []}`
    RaiEmptyList,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Reply {
    fn error(status: u16, name: &str, message: &str, details: &[Value]) -> Self {
        Self::raw(
            status,
            "application/json; charset=UTF-8",
            &rules::error(status, name, message, details)
                .body
                .to_string(),
        )
    }

    pub(crate) fn raw(status: u16, content_type: &'static str, body: &str) -> Self {
        Self {
            status,
            content_type,
            body: body.to_owned(),
        }
    }

    pub(crate) fn wrong_key() -> Self {
        let refusal = rules::wrong_key();
        Self::raw(
            refusal.status,
            "application/json",
            &refusal.body.to_string(),
        )
    }

    /// No key at all, or one for another API (contract, section 4).
    pub(crate) fn no_key() -> Self {
        let refusal = rules::no_key();
        Self::raw(
            refusal.status,
            "application/json",
            &refusal.body.to_string(),
        )
    }

    pub(crate) fn unauthenticated() -> Self {
        let refusal = rules::unauthenticated();
        Self::raw(
            refusal.status,
            "application/json",
            &refusal.body.to_string(),
        )
    }

    pub(crate) fn permission_denied() -> Self {
        let refusal = rules::permission_denied();
        Self::raw(
            refusal.status,
            "application/json",
            &refusal.body.to_string(),
        )
    }

    pub(crate) fn service_disabled() -> Self {
        Self::error(
            403,
            "PERMISSION_DENIED",
            "Generative Language API has not been used in project easel-fake-project before or it is disabled.",
            &[rules::error_info("SERVICE_DISABLED")],
        )
    }

    pub(crate) fn location() -> Self {
        Self::error(
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
            &[],
        )
    }

    pub(crate) fn payment_required() -> Self {
        Self::error(
            402,
            "PAYMENT_REQUIRED",
            "Please pay easel-fake-project.",
            &[],
        )
    }

    pub(crate) fn retired() -> Self {
        Self::error(
            404,
            "NOT_FOUND",
            "This model models/imagen-4.0-generate-001 is no longer available to new users.",
            &[],
        )
    }

    /// A wrong host's page.
    pub(crate) fn html_404() -> Self {
        Self::raw(
            404,
            "text/html; charset=UTF-8",
            "<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title></html>",
        )
    }

    /// The prompt is refused before anything is painted (3.3).
    pub(crate) fn prompt_refused() -> Self {
        Self::error(
            400,
            "INVALID_ARGUMENT",
            "Image generation failed with the following error: The prompt could not be submitted. This prompt contains sensitive words. Support codes: 42876398",
            &[],
        )
    }

    pub(crate) fn no_quota() -> Self {
        Self::error(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: gemini-2.5-flash-preview-image",
            &[retry_info("37s")],
        )
    }

    pub(crate) fn rate_limited(delay: &str) -> Self {
        Self::error(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.",
            &[
                json!({
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{"quotaMetric": "m", "quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": "10"}],
                }),
                retry_info(delay),
            ],
        )
    }

    pub(crate) fn no_capacity() -> Self {
        Self::error(
            429,
            "RESOURCE_EXHAUSTED",
            "No capacity available for this model.",
            &[rules::error_info("MODEL_CAPACITY_EXHAUSTED")],
        )
    }

    pub(crate) fn internal() -> Self {
        Self::error(500, "INTERNAL", "An internal error has occurred.", &[])
    }

    pub(crate) fn overloaded() -> Self {
        Self::error(
            503,
            "UNAVAILABLE",
            "The model is overloaded. Please try again later.",
            &[],
        )
    }

    pub(crate) fn entity_not_found() -> Self {
        Self::error(404, "NOT_FOUND", "Requested entity was not found.", &[])
    }

    /// Vertex words it in another way, and gives no delay.
    pub(crate) fn vertex_quota() -> Self {
        Self::error(
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'Generate content requests' of easel-fake-project.",
            &[rules::error_info("RATE_LIMIT_EXCEEDED")],
        )
    }

    pub(crate) fn out_of_time() -> Self {
        Self::error(
            504,
            "DEADLINE_EXCEEDED",
            "Deadline expired before operation could complete.",
            &[],
        )
    }

    /// An error in a list, as on some paths of Vertex.
    pub(crate) fn in_a_list(self) -> Self {
        Self {
            body: format!("[{}]", self.body),
            ..self
        }
    }
}

fn retry_info(delay: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
}

impl Behaviour {
    /// The behaviour that a prompt asks for with a word such as `[fake:THOUGHT]`, for clients that cannot
    /// reach into the fake.
    pub(super) fn named_in(prompt: &str) -> Option<Self> {
        let (_, rest) = prompt.split_once("[fake:")?;
        let (name, _) = rest.split_once(']')?;
        Some(match name {
            "BLOCKED_PROMPT" => Self::Shape(Shape::BlockedPrompt("SAFETY")),
            "IMAGE_SAFETY" => Self::Shape(Shape::Finished("IMAGE_SAFETY")),
            "NO_IMAGE" => Self::Shape(Shape::Finished("NO_IMAGE")),
            "THOUGHT" => Self::Shape(Shape::DraftFlaggedLate),
            "RAI_SOME" => Self::Shape(Shape::RaiSome(1)),
            "RAI_ALL" => Self::Shape(Shape::RaiAll),
            "RETRY37" => Self::Reply(Reply::rate_limited("37s")),
            other => panic!("no behaviour is called {other}"),
        })
    }

    /// Carries it out: status, content type and body. `Never` does not return.
    pub(super) async fn perform(self, accepted: &Accepted) -> (u16, String, Body) {
        let json_type = "application/json; charset=UTF-8".to_owned();
        let right = || answer::right(accepted).to_string();
        let body = match self {
            Self::Answer => Body::from(right()),
            Self::Shape(shape) => Body::from(shape.answer(accepted)),
            Self::Reply(reply) => {
                return (
                    reply.status,
                    reply.content_type.to_owned(),
                    Body::from(reply.body),
                );
            }
            Self::Never => std::future::pending().await,
            Self::CutAfter(bytes) => cut(beginning(right(), bytes)),
            Self::CutBeforeEnd(bytes) => {
                let answer = right();
                let length = answer.len() - bytes;
                cut(beginning(answer, length))
            }
            Self::StallAfter(bytes) => {
                let beginning = beginning(right(), bytes);
                Body::from_stream(
                    stream::iter([Ok::<_, std::io::Error>(beginning)]).chain(stream::pending()),
                )
            }
            Self::Drip(pieces, pause) => {
                let text = Bytes::from(right());
                let pieces: Vec<Bytes> = text
                    .chunks(text.len() / pieces + 1)
                    .map(|chunk| text.slice_ref(chunk))
                    .collect();
                Body::from_stream(stream::iter(pieces).then(move |piece| async move {
                    tokio::time::sleep(pause).await;
                    Ok::<_, std::io::Error>(piece)
                }))
            }
        };
        (200, json_type, body)
    }
}

impl Shape {
    fn answer(self, accepted: &Accepted) -> String {
        let finished = |reason: &str| json!({"candidates": [{"finishReason": reason, "index": 0}]});
        // A draft is smaller than the picture, so that the two cannot be mistaken for each other.
        let draft = || STANDARD.encode(pictures::paint("jpeg", 64, 64, 99, false));
        let body = match self {
            Self::BlockedPrompt(reason) => {
                json!({"promptFeedback": {"blockReason": reason, "safetyRatings": []}, "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}})
            }
            Self::BlockedPromptWithMessage => {
                json!({"candidates": [], "promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "The prompt was blocked by the fake."}})
            }
            Self::Finished(reason) => finished(reason),
            Self::EmptyContent => {
                let mut answer = finished("IMAGE_SAFETY");
                answer["candidates"][0]["content"] = json!({});
                answer["candidates"][0]["finishMessage"] =
                    json!("Unable to show the generated image.");
                answer
            }
            Self::PartsNull => {
                let mut answer = finished("IMAGE_SAFETY");
                answer["candidates"][0]["content"] = json!({"role": "model", "parts": null});
                answer
            }
            Self::TextOnly => answer::candidates(
                accepted,
                &json!([{"text": "I would rather describe it to you."}]),
            ),
            // The order of members matters here, which a map does not keep.
            Self::DraftFirst => {
                return with_draft(
                    accepted,
                    &format!(
                        r#"{{"thought":true,"inlineData":{{"mimeType":"image/jpeg","data":"{}"}}}}"#,
                        draft()
                    ),
                );
            }
            Self::DraftFlaggedLate => {
                return with_draft(
                    accepted,
                    &format!(
                        r#"{{"inlineData":{{"mimeType":"image/jpeg","data":"{}"}},"thought":true}}"#,
                        draft()
                    ),
                );
            }
            Self::OnlyDraft => answer::candidates(
                accepted,
                &json!([{"inlineData": {"mimeType": "image/jpeg", "data": draft()}, "thought": true}]),
            ),
            Self::SnakeCase => {
                let data = STANDARD.encode(answer::picture(accepted, 0));
                let part = json!({"inline_data": {"mime_type": "image/jpeg", "data": data}});
                answer::candidates(accepted, &json!([part]))
            }
            Self::UnknownFields => {
                let mut answer = answer::right(accepted);
                answer["surprise"] = json!({"candidates": [{"content": {"parts": [{"inlineData": {"data": draft()}}]}}]});
                let list = if accepted.is_imagen {
                    "predictions"
                } else {
                    "candidates"
                };
                answer[list][0]["more"] =
                    json!({"inlineData": {"data": draft()}, "n": [1, null, {}]});
                answer
            }
            Self::NoUsage => {
                let mut answer = answer::right(accepted);
                answer.as_object_mut().unwrap().remove("usageMetadata");
                answer
            }
            Self::NotAPicture => {
                let text = Bytes::from_static(b"this is no picture, only a sentence");
                answer::candidates(accepted, &json!([answer::part(&text)]))
            }
            Self::RaiSome(filtered) => {
                let mut answer = answer::predictions(accepted, accepted.n - filtered);
                let reason = format!(
                    "Your current safety filter threshold filtered out {filtered} generated images. You will not be charged for blocked images."
                );
                let list = answer["predictions"].as_array_mut().unwrap();
                list.push(json!({"raiFilteredReason": reason}));
                answer
            }
            Self::RaiAll => {
                json!({"predictions": [{"raiFilteredReason": "Unable to show generated images. All images were filtered out because they violated usage guidelines. Support codes: 39322892, 29310472"}]})
            }
            Self::RaiEmpty => json!({}),
            Self::RaiEmptyList => json!({"predictions": []}),
        };
        body.to_string()
    }
}

/// The right answer with a part before all others.
fn with_draft(accepted: &Accepted, draft: &str) -> String {
    let right = answer::right(accepted).to_string();
    right.replacen(r#""parts":["#, &format!(r#""parts":[{draft},"#), 1)
}

/// This, and then the connection breaks.
fn cut(beginning: Bytes) -> Body {
    let broken = stream::once(async {
        // The beginning is on its way before the break.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("the fake breaks the connection"))
    });
    Body::from_stream(stream::iter([Ok(beginning)]).chain(broken))
}

fn beginning(answer: String, bytes: usize) -> Bytes {
    assert!(
        bytes < answer.len(),
        "the whole answer has only {} bytes",
        answer.len()
    );
    Bytes::from(answer).slice(..bytes)
}
