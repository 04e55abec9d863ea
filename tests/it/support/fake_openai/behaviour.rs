//! What can be asked of the fake: to answer well, or to misbehave in one of the ways upstreams do.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    answer,
    rules::{Accepted, Refusal},
    stream as events,
};

/// How one call ends. Only calls whose request was right get here; a wrong one is always refused.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// As the real one.
    Answer,
    /// As the real one, after a while.
    AnswerAfter(Duration),
    /// A fixed answer of any kind.
    Reply(Reply),
    /// Takes the request and never says a word.
    Never,
    /// The head and this many bytes of the right answer, then the connection breaks.
    CutAfter(usize),
    /// The head and this many bytes of the right answer, then silence on an open connection.
    StallAfter(usize),
    /// The right answer in pieces of so many bytes with a pause between them.
    Drip(usize, Duration),
    /// A body of any kind in pieces, each after a pause; with `false` the connection breaks behind them.
    Pieces(Vec<(Duration, Bytes)>, bool),
    /// The first part of a body, and the rest when the test adds a permit.
    Gated(Bytes, Arc<Semaphore>, Bytes),
    /// Takes the request, and the connection breaks without an answer.
    Reset,
    /// The right answer under another content type.
    ContentType(&'static str),
    /// Only so many of the pictures that were asked for.
    Fewer(usize),
    /// The picture of this index has valid base64 and a PNG's beginning, but stops in the middle.
    BrokenPicture(usize),
    /// Base64 of a text instead of every picture.
    NotAPicture,
    /// `b64_json` that is no base64.
    NotBase64,
    /// `b64_json` of so many bytes in all, beginning like a PNG.
    Huge(usize),
    /// Links instead of base64, below this origin (`None`: this fake's own).
    Links(Option<String>),
    /// An answer whose links lead to a picture that is not there.
    DeadLinks,
    /// The right answer with a status that no document names.
    Status(u16),
    /// JSON, whether or not events were asked for.
    PlainJson,
    /// The right events with a pause before each.
    EventsEvery(Duration),
    /// This many of the right events, then these bytes, then the end of the body.
    EventsThen(usize, String),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The provider's error envelope.
    pub(crate) fn error(status: u16, error: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: json!({ "error": error }).to_string().into(),
        }
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

    /// 401, "wrong key".
    pub(crate) fn wrong_key() -> Self {
        Self::error(
            401,
            &json!({"message": "Incorrect API key provided: sk-fake-****wxyz. You can find your API key at https://platform.openai.com/account/api-keys.", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}),
        )
    }

    /// 403, "org not verified".
    pub(crate) fn not_verified() -> Self {
        Self::error(
            403,
            &json!({"message": "Your organization must be verified to use the model `gpt-image-1`. Please go to: https://platform.openai.com/settings/organization/general and click on Verify Organization.", "type": "invalid_request_error", "param": null, "code": null}),
        )
    }

    /// 404, "unknown model, general router".
    pub(crate) fn model_not_found() -> Self {
        Self::error(
            404,
            &json!({"message": "The model `dall-e-3` does not exist or you do not have access to it.", "type": "invalid_request_error", "param": null, "code": "model_not_found"}),
        )
    }

    /// 400, "moderation, D2/D3".
    pub(crate) fn moderation_dalle() -> Self {
        Self::error(
            400,
            &json!({"code": "content_policy_violation", "message": "Your request was rejected as a result of our safety system. Your prompt may contain text that is not allowed by our safety system.", "param": null, "type": "invalid_request_error"}),
        )
    }

    /// 400, "moderation, G".
    pub(crate) fn moderation_gpt() -> Self {
        Self::error(
            400,
            &json!({"message": "Your request was rejected by the safety system. If you believe this is an error, contact us at help.openai.com and include the request ID 5f1c3a. safety_violations=[violence].", "type": "image_generation_user_error", "param": null, "code": "moderation_blocked", "moderation_details": {"moderation_stage": "input", "categories": ["violence"]}}),
        )
    }

    /// 429, "rate limit, D3".
    pub(crate) fn rate_limited() -> Self {
        Self::error(
            429,
            &json!({"code": "rate_limit_exceeded", "message": "Rate limit exceeded for images per minute in organization org-easelfake. Limit: 5/1min. Current: 6/1min.", "param": null, "type": "requests"}),
        )
    }

    /// 429, "no credit".
    pub(crate) fn insufficient_quota() -> Self {
        Self::error(
            429,
            &json!({"message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.", "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}),
        )
    }

    /// 400, "hard billing limit": ours, although the status blames the caller.
    pub(crate) fn billing_hard_limit() -> Self {
        Self::error(
            400,
            &json!({"code": "billing_hard_limit_reached", "message": "Billing hard limit has been reached", "param": null, "type": "invalid_request_error"}),
        )
    }

    /// 500, "server error".
    pub(crate) fn server_error() -> Self {
        Self::error(
            500,
            &json!({"message": "The server had an error while processing your request. Sorry about that!", "type": "server_error", "param": null, "code": null}),
        )
    }

    /// 503, "overloaded".
    pub(crate) fn overloaded() -> Self {
        Self::error(
            503,
            &json!({"message": "The server is overloaded.", "type": "service_unavailable_error", "param": null, "code": "server_is_overloaded"}),
        )
    }

    /// A proxy's page.
    pub(crate) fn html(status: u16) -> Self {
        Self::raw(
            status,
            "text/html",
            "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center><hr><center>cloudflare</center></body></html>",
        )
    }

    pub(super) fn refusal(refusal: &Refusal) -> Self {
        Self::error(refusal.status, &refusal.error)
    }

    fn into_response(self) -> (u16, HeaderMap, Body) {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(&value).unwrap(),
            );
        }
        (self.status, headers, Body::from(self.body))
    }
}

impl Behaviour {
    /// The behaviour that a prompt asks for with a word such as `[fake:server_error]`, for clients that
    /// cannot reach into the fake.
    pub(super) fn named_in(prompt: &str) -> Option<Self> {
        let (_, rest) = prompt.split_once("[fake:")?;
        let (name, _) = rest.split_once(']')?;
        Some(match name {
            "rate_limited" => Self::Reply(Reply::rate_limited().with_header("retry-after", "1")),
            "insufficient_quota" => Self::Reply(Reply::insufficient_quota()),
            "server_error" => Self::Reply(Reply::server_error()),
            "html" => Self::Reply(Reply::html(502)),
            "wrong_key" => Self::Reply(Reply::wrong_key()),
            "moderation_dalle" => Self::Reply(Reply::moderation_dalle()),
            "moderation_gpt" => Self::Reply(Reply::moderation_gpt()),
            "never" => Self::Never,
            "not_a_picture" => Self::NotAPicture,
            "cut" => Self::CutAfter(500),
            "plain_json" => Self::PlainJson,
            "slow_events" => Self::EventsEvery(Duration::from_millis(150)),
            "refused_after_a_draft" => {
                Self::EventsThen(1, Self::error_event(&Reply::moderation_gpt()))
            }
            other => panic!("no behaviour is called {other}"),
        })
    }

    /// An error as an event (contract, section 3.3).
    pub(crate) fn error_event(reply: &Reply) -> String {
        let mut error: Value = serde_json::from_slice(&reply.body).unwrap();
        error["type"] = json!("error");
        format!("event: error\ndata: {error}\n\n")
    }

    /// Carries it out: status, headers and body. `Never` does not return.
    pub(super) async fn perform(
        self,
        accepted: &Accepted,
        own_origin: &str,
    ) -> (u16, HeaderMap, Body) {
        match self {
            Self::Answer => whole(accepted, &right(accepted, own_origin, accepted.as_url)),
            Self::AnswerAfter(delay) => {
                tokio::time::sleep(delay).await;
                whole(accepted, &right(accepted, own_origin, accepted.as_url))
            }
            Self::Reply(reply) => reply.into_response(),
            Self::Never => std::future::pending().await,
            Self::CutAfter(bytes) => {
                let (headers, text) = written(accepted, &right(accepted, own_origin, false));
                let beginning = beginning(&text, bytes);
                let broken = stream::once(async {
                    // The beginning is on its way before the break.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(std::io::Error::other("the fake breaks the connection"))
                });
                let body = stream::iter([Ok(beginning)]).chain(broken);
                (200, headers, Body::from_stream(body))
            }
            Self::StallAfter(bytes) => {
                let (headers, text) = written(accepted, &right(accepted, own_origin, false));
                let beginning = beginning(&text, bytes);
                let body =
                    stream::iter([Ok::<_, std::io::Error>(beginning)]).chain(stream::pending());
                (200, headers, Body::from_stream(body))
            }
            Self::Drip(piece, pause) => {
                let (headers, text) = written(accepted, &right(accepted, own_origin, false));
                let pieces: Vec<Bytes> = text
                    .chunks(piece)
                    .map(|chunk| text.slice_ref(chunk))
                    .collect();
                let body = stream::iter(pieces).then(move |piece| async move {
                    tokio::time::sleep(pause).await;
                    Ok::<_, std::io::Error>(piece)
                });
                (200, headers, Body::from_stream(body))
            }
            Self::Pieces(pieces, ends) => {
                let pieces = stream::iter(pieces).then(async |(pause, piece)| {
                    // Even a sleep of no length takes a millisecond.
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    Ok(piece)
                });
                let broken = stream::once(async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(std::io::Error::other("the fake breaks the connection"))
                });
                let body = pieces.chain(broken.take(usize::from(!ends)));
                let headers = if accepted.stream {
                    event_type()
                } else {
                    json_type()
                };
                (200, headers, Body::from_stream(body))
            }
            Self::Gated(first, gate, rest) => {
                let rest = stream::once(async move {
                    gate.acquire().await.expect("an open gate").forget();
                    Ok::<_, std::io::Error>(rest)
                });
                let body = stream::iter([Ok(first)]).chain(rest);
                (200, json_type(), Body::from_stream(body))
            }
            Self::Reset => {
                // Before the head has been written.
                let broken = stream::once(async {
                    Err::<Bytes, _>(std::io::Error::other("the fake breaks the connection"))
                });
                (200, json_type(), Body::from_stream(broken))
            }
            Self::ContentType(content_type) => Reply::raw(
                200,
                content_type,
                right(accepted, own_origin, false).to_string(),
            )
            .into_response(),
            Self::Fewer(n) => {
                // What it did not paint it does not count either.
                let fewer = Accepted {
                    n,
                    ..accepted.clone()
                };
                whole(&fewer, &right(&fewer, own_origin, accepted.as_url))
            }
            Self::BrokenPicture(index) => {
                let mut answer = right(accepted, own_origin, false);
                let picture = answer["data"][index]["b64_json"].as_str().unwrap();
                let half = picture.len() / 8 * 4;
                answer["data"][index]["b64_json"] = json!(picture[..half]);
                whole(accepted, &answer)
            }
            Self::NotAPicture => whole(
                accepted,
                &every_picture(
                    accepted,
                    own_origin,
                    &STANDARD.encode("this is no picture, only a sentence"),
                ),
            ),
            Self::NotBase64 => whole(
                accepted,
                &every_picture(accepted, own_origin, "%%% not base64 at all %%%"),
            ),
            Self::Huge(bytes) => {
                whole(accepted, &every_picture(accepted, own_origin, &huge(bytes)))
            }
            Self::Links(origin) => {
                let origin = origin.unwrap_or_else(|| own_origin.to_owned());
                whole(accepted, &right(accepted, &origin, true))
            }
            Self::DeadLinks => whole(
                accepted,
                &right(accepted, &format!("{own_origin}/gone"), true),
            ),
            Self::PlainJson => {
                let body = right(accepted, own_origin, false).to_string();
                (200, json_type(), Body::from(body))
            }
            Self::EventsEvery(pause) => {
                let events = events::events(accepted, &right(accepted, own_origin, false));
                let body = stream::iter(events).then(move |event| async move {
                    tokio::time::sleep(pause).await;
                    Ok::<_, std::io::Error>(event)
                });
                (200, event_type(), Body::from_stream(body))
            }
            Self::EventsThen(count, rest) => {
                let mut events = events::events(accepted, &right(accepted, own_origin, false));
                events.truncate(count);
                (200, event_type(), Body::from(events.concat() + &rest))
            }
            Self::Status(status) => Reply::raw(
                status,
                "application/json",
                right(accepted, own_origin, false).to_string(),
            )
            .into_response(),
        }
    }
}

fn right(accepted: &Accepted, origin: &str, links: bool) -> Value {
    let (width, height) = answer::edges(&accepted.size);
    let data: Vec<Value> = answer::pictures(accepted)
        .iter()
        .enumerate()
        .map(|(index, picture)| {
            let link = links.then(|| {
                format!(
                    "{origin}/img/{width}x{height}/{index}.{}?sig=fake-upstream-signature",
                    accepted.format
                )
            });
            answer::item(accepted, picture, link)
        })
        .collect();
    answer::body(accepted, &data)
}

fn every_picture(accepted: &Accepted, origin: &str, text: &str) -> Value {
    let mut answer = right(accepted, origin, false);
    for item in answer["data"].as_array_mut().unwrap() {
        item["b64_json"] = json!(text);
    }
    answer
}

fn huge(bytes: usize) -> String {
    // Three bytes a pixel, and a real picture to its end: bytes behind one are left out, however many.
    let side = u32::try_from((bytes / 3).isqrt() + 1).unwrap();
    STANDARD.encode(crate::support::pictures::noise(side, 1))
}

fn beginning(text: &Bytes, bytes: usize) -> Bytes {
    assert!(
        bytes < text.len(),
        "the whole answer has only {} bytes",
        text.len()
    );
    text.slice(..bytes)
}

/// An answer as it was asked for: as events or as JSON.
fn written(accepted: &Accepted, answer: &Value) -> (HeaderMap, Bytes) {
    if accepted.stream {
        let events = events::events(accepted, answer).concat();
        (event_type(), events.into())
    } else {
        (json_type(), answer.to_string().into())
    }
}

fn whole(accepted: &Accepted, answer: &Value) -> (u16, HeaderMap, Body) {
    let (headers, body) = written(accepted, answer);
    (200, headers, Body::from(body))
}

fn json_type() -> HeaderMap {
    content_type("application/json")
}

fn event_type() -> HeaderMap {
    content_type("text/event-stream; charset=utf-8")
}

fn content_type(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        axum::http::header::CONTENT_TYPE,
        HeaderValue::from_static(content_type),
    )])
}
