//! The answer of a generation: `OpenAI`'s JSON with the pictures read from the store as it is sent.
//!
//! Everything around the pictures is known and settled before the first byte goes out (I6), so the answer
//! has a length, and memory holds one chunk of one picture (see [`super::pictures`]).

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    App,
    pictures::{self, Piece},
};
use crate::{
    catalog::{Background, ImageSize, OutputFormat, Parameter, Quality, ResponseFormat},
    gateway::{FailedPicture, Generation, Usage},
    money::NanoUsd,
};

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
const X_ATTEMPTS: HeaderName = HeaderName::from_static("x-attempts");
const X_DROPPED_PARAMETERS: HeaderName = HeaderName::from_static("x-dropped-parameters");

/// Says which generation an answer belongs to and which upstream calls it took.
pub(super) fn trace(headers: &mut http::HeaderMap, generation: &str, attempts: &str) {
    insert_text(headers, X_GENERATION_ID, generation);
    if !attempts.is_empty() {
        insert_text(headers, X_ATTEMPTS, attempts);
    }
}

/// The answer of a finished generation. `safety_identifier` is the one that was asked with.
pub(super) fn generation(
    app: &App,
    generation: &Generation,
    safety_identifier: Option<&str>,
    dropped: &[String],
) -> Response {
    record(generation);
    let tail = tail(generation, safety_identifier);
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
    let dropped: Vec<&str> = generation
        .dropped
        .iter()
        .copied()
        .chain(dropped.iter().map(String::as_str))
        .collect();
    if !dropped.is_empty() {
        insert_text(headers, X_DROPPED_PARAMETERS, &dropped.join(", "));
    }
    response
}

/// `usage`: always there, tokens 0 for models priced per image.
#[derive(Serialize)]
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

#[derive(Serialize)]
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
#[derive(Serialize)]
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
    provider: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    failed: &'a [FailedPicture],
    usage: UsageJson,
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
    let body = format!("{}{}{}", head(generation), pictures.join(","), tail);
    Body::from(body).into_response()
}

fn with_pictures(app: &App, generation: &Generation, tail: String) -> Response {
    let mut pieces = vec![Piece::Text(head(generation))];
    for (index, picture) in generation.pictures.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        pieces.push(Piece::Text(format!("{comma}{{\"b64_json\":\"")));
        pieces.push(Piece::Picture {
            id: picture.id,
            format: picture.format,
            size_bytes: picture.size_bytes,
        });
        let revised = picture.revised_prompt.as_ref();
        let revised = revised.map_or_else(String::new, |revised| {
            format!(",\"revised_prompt\":{}", Value::from(revised.as_str()))
        });
        pieces.push(Piece::Text(format!("\"{revised}}}")));
    }
    pieces.push(Piece::Text(tail));
    pictures::body(app, pieces)
}

/// The answer up to the first picture.
fn head(generation: &Generation) -> String {
    format!("{{\"created\":{},\"data\":[", generation.created)
}

/// The answer behind the last picture.
fn tail(generation: &Generation, safety_identifier: Option<&str>) -> String {
    // These come together or not at all: DALL·E's answers have none of them.
    let told = generation.output_format.is_some();
    let name = Parameter::SafetyIdentifier.as_str();
    let tail = Tail {
        background: generation.background.filter(|_| told),
        output_format: generation.output_format,
        quality: generation.quality.filter(|word| told && is_tier(*word)),
        size: generation.size.filter(|_| told),
        safety_identifier: safety_identifier
            .filter(|_| told && !generation.dropped.contains(&name)),
        model: &generation.model,
        provider: &generation.provider,
        failed: &generation.failed,
        usage: UsageJson::from(&generation.usage),
    };
    let json = serde_json::to_string(&tail).expect("plain fields always serialise");
    // The fields go on the object that `head` has opened.
    format!("],{}", json.trim_start_matches('{'))
}

/// Whether an answer may say this quality. Clients that validate refuse other words
/// (`contracts/openai-images.md`, section 2).
fn is_tier(quality: Quality) -> bool {
    matches!(
        quality,
        Quality::Low | Quality::Medium | Quality::High | Quality::Xhigh | Quality::Max
    )
}

fn record(generation: &Generation) {
    let span = tracing::Span::current();
    span.record("generation.id", tracing::field::display(generation.id));
    span.record("model.id", generation.model.as_str());
    span.record("provider.name", generation.provider.as_str());
    span.record("cost_usd", tracing::field::display(generation.usage.cost));
}

fn insert_text(headers: &mut http::HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
