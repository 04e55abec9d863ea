//! The answer of a finished generation: `OpenAI`'s JSON.
//!
//! Everything around the pictures is known and settled before the first byte goes out (I6), so the answer
//! has a length. Small pictures are at hand, others are read from the store as it is sent (see
//! [`super::pictures`]). What answers say is the same for those that go through while they arrive
//! (see [`super::relayed`]).

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    App,
    deliver::Kind,
    pictures::{self, Piece},
};
use crate::{
    catalog::{Background, ImageSize, OutputFormat, Parameter, Quality, ResponseFormat},
    gateway::{FailedPicture, Generation, Intro, Times, Usage},
    money::NanoUsd,
};

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
const X_ATTEMPTS: HeaderName = HeaderName::from_static("x-attempts");
const X_DROPPED_PARAMETERS: HeaderName = HeaderName::from_static("x-dropped-parameters");

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Says that an answer is told again and was not charged again.
pub(super) fn say_replayed(headers: &mut http::HeaderMap, is_replayed: bool) {
    if is_replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Says which generation an answer belongs to and which upstream calls it took.
pub(super) fn trace(headers: &mut http::HeaderMap, generation: &str, attempts: &str) {
    insert_text(headers, X_GENERATION_ID, generation);
    if !attempts.is_empty() {
        insert_text(headers, X_ATTEMPTS, attempts);
    }
}

/// What an answer says besides what the gateway knows.
#[derive(Clone)]
pub(super) struct Frame {
    /// Which endpoint was asked.
    pub(super) kind: Kind,
    /// The one that was asked with.
    pub(super) safety_identifier: Option<String>,
    /// Fields that no endpoint knows and that were left out.
    pub(super) dropped: Vec<String>,
}

/// Says which parameters were left out, if some were.
pub(super) fn say_dropped(headers: &mut http::HeaderMap, known: &[&str], unknown: &[String]) {
    let dropped: Vec<&str> = known
        .iter()
        .copied()
        .chain(unknown.iter().map(String::as_str))
        .collect();
    if !dropped.is_empty() {
        insert_text(headers, X_DROPPED_PARAMETERS, &dropped.join(", "));
    }
}

/// The answer of a finished generation.
pub(super) fn generation(app: &App, generation: &Generation, frame: &Frame) -> Response {
    record(generation);
    let tail = tail(generation, frame.safety_identifier.as_deref());
    let mut response = match generation.response_format {
        ResponseFormat::Url => with_links(generation, &tail),
        ResponseFormat::B64Json => with_pictures(app, generation, tail),
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    trace(headers, &generation.id.to_string(), &generation.attempts);
    say_dropped(headers, &generation.dropped, &frame.dropped);
    say_replayed(headers, generation.is_replayed);
    if generation
        .pictures
        .iter()
        .all(|picture| picture.text.is_some())
    {
        // All of it is in the body already.
        app.gateway.delivered(generation);
    }
    response
}

/// `usage`: always there, tokens 0 for models priced per image.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Usage")]
pub(super) struct UsageJson {
    total_tokens: u64,
    input_tokens: u64,
    output_tokens: u64,
    input_tokens_details: TokenDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<TokenDetails>,
    /// In USD, exact to the nano-USD.
    cost: NanoUsd,
}

#[derive(Serialize, JsonSchema)]
struct TokenDetails {
    text_tokens: u64,
    image_tokens: u64,
}

impl From<&Usage> for UsageJson {
    fn from(usage: &Usage) -> Self {
        let input = usage.input_tokens();
        let output = usage.output_tokens();
        Self {
            total_tokens: input.saturating_add(output),
            input_tokens: input,
            output_tokens: output,
            input_tokens_details: TokenDetails {
                text_tokens: usage.input_text_tokens,
                image_tokens: usage.input_image_tokens,
            },
            output_tokens_details: (output > 0).then_some(TokenDetails {
                text_tokens: usage.output_text_tokens,
                image_tokens: usage.output_image_tokens,
            }),
            cost: usage.cost,
        }
    }
}

/// What stands behind the pictures.
#[derive(Serialize, JsonSchema)]
struct Tail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    background: Option<Background>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_format: Option<OutputFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<ImageSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_identifier: Option<&'a str>,
    model: &'a str,
    /// Who served it.
    provider: &'a str,
    /// Pictures that were asked for and did not come; they cost nothing.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    failed: &'a [FailedPicture],
    usage: UsageJson,
}

// Written in pieces; this type is for the document.
/// Pictures, and what they cost.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ImagesAnswer")]
pub(super) struct Whole<'a> {
    /// Unix seconds.
    created: i64,
    /// The pictures that came.
    data: Vec<Shown>,
    #[serde(flatten)]
    tail: Tail<'a>,
}

/// A picture, as a link or as text.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Picture")]
struct Shown {
    /// Opens it for `url_ttl`, an hour unless the operator said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64_json: Option<String>,
    /// What the provider made of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_prompt: Option<String>,
}

fn with_links(generation: &Generation, tail: &str) -> Response {
    let pictures = generation.pictures.iter().map(|picture| {
        let mut entry = Map::new();
        if let Some(url) = &picture.url {
            entry.insert("url".to_owned(), url.clone().into());
        }
        if let Some(revised) = &picture.revised_prompt {
            entry.insert("revised_prompt".to_owned(), revised.clone().into());
        }
        Value::Object(entry).to_string()
    });
    let pictures: Vec<String> = pictures.collect();
    let body = format!("{}{}{}", head(generation.created), pictures.join(","), tail);
    Body::from(body).into_response()
}

fn with_pictures(app: &App, generation: &Generation, tail: String) -> Response {
    let mut pieces = vec![Piece::Text(head(generation.created).into())];
    for (index, picture) in generation.pictures.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        pieces.push(Piece::Text(format!("{comma}{{\"b64_json\":\"").into()));
        pieces.push(match &picture.text {
            Some(text) => Piece::Text(text.clone()),
            None => Piece::Picture {
                id: picture.id,
                format: picture.info.format,
                size_bytes: picture.size_bytes,
            },
        });
        let end = end_of_picture(picture.revised_prompt.as_deref());
        pieces.push(Piece::Text(end.into()));
    }
    pieces.push(Piece::Text(tail.into()));
    pictures::body(app, pieces)
}

/// What stands behind the text of a picture.
pub(super) fn end_of_picture(revised_prompt: Option<&str>) -> String {
    let revised = revised_prompt.map_or_else(String::new, |revised| {
        format!(",\"revised_prompt\":{}", Value::from(revised))
    });
    format!("\"{revised}}}")
}

/// The answer up to the first picture.
pub(super) fn head(created: i64) -> String {
    format!("{{\"created\":{created},\"data\":[")
}

/// The answer behind the last picture.
pub(super) fn tail(generation: &Generation, safety_identifier: Option<&str>) -> String {
    // These come together or not at all: DALL·E's answers have none of them.
    let told = generation.output_format.is_some();
    let tail = Tail {
        background: generation.background.filter(|_| told),
        output_format: generation.output_format,
        quality: generation.quality.filter(|word| told && is_tier(*word)),
        size: generation.size.filter(|_| told),
        safety_identifier: told_identifier(generation, safety_identifier),
        model: &generation.model,
        provider: &generation.provider,
        failed: &generation.failed,
        usage: UsageJson::from(&generation.usage),
    };
    let json = serde_json::to_string(&tail).expect("plain fields always serialise");
    // The fields go on the object that `head` has opened.
    format!("],{}", json.trim_start_matches('{'))
}

/// The identifier, where an answer repeats it.
pub(super) fn told_identifier<'a>(
    generation: &Generation,
    safety_identifier: Option<&'a str>,
) -> Option<&'a str> {
    let told = generation.output_format.is_some();
    let name = Parameter::SafetyIdentifier.as_str();
    safety_identifier.filter(|_| told && !generation.dropped.contains(&name))
}

/// Whether an answer may say this quality. Clients that validate refuse other words
/// (`contracts/openai-images.md`, section 2).
pub(super) fn is_tier(quality: Quality) -> bool {
    matches!(
        quality,
        Quality::Low | Quality::Medium | Quality::High | Quality::Xhigh | Quality::Max
    )
}

/// Names a generation that has begun in the exchange's log lines.
pub(super) fn announce(intro: &Intro) {
    let span = tracing::Span::current();
    span.record("generation.id", tracing::field::display(intro.id));
    span.record("model.id", intro.model.as_str());
}

pub(super) fn record(generation: &Generation) {
    let span = tracing::Span::current();
    span.record("generation.id", tracing::field::display(generation.id));
    span.record("model.id", generation.model.as_str());
    span.record("provider.name", generation.provider.as_str());
    span.record("cost_usd", tracing::field::display(generation.usage.cost));
    record_times(generation.times);
}

/// How long the steps of a generation took, for the exchange's line in the log.
pub(super) fn record_times(times: Option<Times>) {
    let Some(Times {
        hold,
        upstream,
        settlement,
    }) = times
    else {
        return;
    };
    let span = tracing::Span::current();
    for (name, time) in [
        ("hold_ms", hold),
        ("upstream_ms", upstream),
        ("settlement_ms", settlement),
    ] {
        span.record(name, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
}

fn insert_text(headers: &mut http::HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
