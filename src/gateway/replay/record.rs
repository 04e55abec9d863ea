//! What the books keep of an answer, as JSON, and the answer made of it again.
//!
//! Only what they do not know otherwise: pictures and attempts have rows of their own, and what the request
//! itself says is in the repeat.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Repeater;
use crate::{
    catalog::{ImageSize, ResponseFormat},
    gateway::{
        GatewayError, GatewaySettings, Generation, Rooms, UpstreamFailure,
        admit::Admission,
        order::{DeliveredPicture, FailedPicture, Usage},
    },
    ids::GenerationId,
    images::{PictureFormat, PictureInfo},
    ledger,
    money::NanoUsd,
    providers::{ErrorKind, ModerationDetails, ProviderError},
};

/// An answer. Fields may be added; what is absent was not said.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    /// Where it is not the model that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    background: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_format: Option<String>,
    /// Otherwise as links.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    as_base64: bool,
    /// Text in, pictures in, text out, pictures out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<[u64; 4]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedPicture>,
}

/// A provider's refusal, or another end of a request that was charged for its drafts.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    provider: String,
    attempts: String,
    /// Of the content; otherwise of the request's form.
    is_of_content: bool,
    /// Where it is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<OtherEnd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drafts: Option<ChargedDrafts>,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moderation: Option<ModerationDetails>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
}

/// How a stream can break off behind its drafts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OtherEnd {
    /// Also [`ErrorKind::QuotaExhausted`], which is told as the same.
    Auth,
    RateLimited,
    Timeout,
    Storage,
    /// Why is its code.
    Cancelled,
    /// Every other kind, which are all told as the same.
    Broken,
}

/// What was charged for drafts whose picture never came.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct ChargedDrafts {
    output_tokens: u64,
    cost_nano_usd: i64,
}

impl OtherEnd {
    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Auth | ErrorKind::QuotaExhausted => Self::Auth,
            ErrorKind::RateLimited { .. } => Self::RateLimited,
            ErrorKind::Timeout { .. } => Self::Timeout,
            ErrorKind::Storage => Self::Storage,
            ErrorKind::Cancelled => Self::Cancelled,
            ErrorKind::InvalidRequest
            | ErrorKind::ContentRefused
            | ErrorKind::ModelUnavailable
            | ErrorKind::Overloaded { .. }
            | ErrorKind::Transport { .. }
            | ErrorKind::Malformed => Self::Broken,
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            Self::Auth => ErrorKind::Auth,
            Self::RateLimited => ErrorKind::RateLimited { retry_after: None },
            Self::Timeout => ErrorKind::Timeout { sent: true },
            Self::Storage => ErrorKind::Storage,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Broken => ErrorKind::Malformed,
        }
    }
}

/// What is kept of an answer.
pub(in crate::gateway) fn answer(admission: &Admission, generation: &Generation) -> String {
    let usage = &generation.usage;
    let tokens = [
        usage.input_text_tokens,
        usage.input_image_tokens,
        usage.output_text_tokens,
        usage.output_image_tokens,
    ];
    let other_model = (generation.model != admission.model.id).then(|| generation.model.clone());
    let answer = Answer {
        model: other_model,
        size: generation.size.map(|size| size.to_string()),
        quality: generation.quality.map(|word| word.to_string()),
        background: generation.background.map(|word| word.to_string()),
        output_format: generation.output_format.map(|word| word.to_string()),
        as_base64: generation.response_format == ResponseFormat::B64Json,
        tokens: (tokens != [0; 4]).then_some(tokens),
        // Kept apart, and not for good.
        failed: Vec::new(),
    };
    serde_json::to_string(&answer).expect("plain fields always serialise")
}

/// What is kept for a day: the provider's words about pictures that never came. They come back as part of the answer.
pub(in crate::gateway) fn words(generation: &Generation) -> Option<String> {
    if generation.failed.is_empty() {
        return None;
    }
    Some(serde_json::to_string(&generation.failed).expect("plain fields always serialise"))
}

/// What is kept of an error; `None` where the request may be done again, because nothing was charged of it.
pub(in crate::gateway) fn refusal(error: &GatewayError) -> Option<String> {
    let GatewayError::Upstream(failure) = error else {
        return None;
    };
    let other = match failure.error.kind {
        ErrorKind::ContentRefused | ErrorKind::InvalidRequest => None,
        // A second try would be a second charge (I8).
        kind if failure.drafts.is_some() => Some(OtherEnd::of(kind)),
        _ => return None,
    };
    let refusal = Refusal {
        provider: failure.provider.clone(),
        attempts: failure.attempts.clone(),
        is_of_content: failure.error.kind == ErrorKind::ContentRefused,
        other,
        drafts: failure.drafts.map(|drafts| ChargedDrafts {
            output_tokens: drafts.output_image_tokens,
            cost_nano_usd: drafts.cost.nano(),
        }),
        message: failure.error.message.clone(),
        code: failure.error.code.clone(),
        error_type: failure.error.error_type.clone(),
        param: failure.error.param.clone(),
        moderation: failure.error.moderation.clone(),
        upstream_status: failure.error.upstream_status,
    };
    Some(serde_json::to_string(&refusal).expect("plain fields always serialise"))
}

/// The answer of a finished generation, for a repeat of its request.
///
/// # Errors
/// [`GatewayError::ReplayExpired`] when the time of its pictures is over.
pub(super) fn replay(
    rooms: &Rooms,
    settings: &GatewaySettings,
    repeat: &Repeater,
    found: ledger::Generation,
    answer: Option<String>,
) -> Result<Generation, GatewayError> {
    let answer: Answer = match answer {
        Some(answer) => read(&answer)?,
        None => Answer::default(),
    };
    let now = rooms.clock.now();
    let before = if answer.as_base64 {
        ResponseFormat::B64Json
    } else {
        ResponseFormat::Url
    };
    let response_format = repeat.response_format.unwrap_or(before);
    let with_links = response_format == ResponseFormat::Url;
    let attempts: Vec<String> = found
        .attempts
        .iter()
        .map(|attempt| {
            let outcome = attempt.error.as_deref().unwrap_or("ok");
            format!("{}={outcome}", attempt.provider)
        })
        .collect();
    let mut pictures = Vec::with_capacity(found.images.len());
    for image in found.images {
        let expired = GatewayError::ReplayExpired {
            generation: found.id,
        };
        let Some(format) = PictureFormat::from_extension(&image.format) else {
            return Err(expired);
        };
        if image.expires_at <= now {
            return Err(expired);
        }
        let expires_at = image.expires_at.min(now + settings.url_ttl);
        pictures.push(DeliveredPicture {
            id: image.id,
            info: PictureInfo {
                format,
                size: ImageSize::new(image.width, image.height),
            },
            size_bytes: image.size_bytes,
            text: None,
            is_copy: false,
            url: with_links.then(|| rooms.links.link(image.id, format, expires_at, now)),
            revised_prompt: image.revised_prompt,
        });
    }
    let [input_text, input_image, output_text, output_image] = answer.tokens.unwrap_or_default();
    Ok(Generation {
        id: found.id,
        created: found.id.created_at().timestamp(),
        model: answer.model.unwrap_or(found.model),
        provider: found.provider.unwrap_or_default(),
        pictures,
        failed: answer.failed,
        usage: Usage {
            input_text_tokens: input_text,
            input_image_tokens: input_image,
            output_text_tokens: output_text,
            output_image_tokens: output_image,
            cost: found.cost,
        },
        response_format,
        size: word(answer.size)?,
        quality: word(answer.quality)?,
        background: word(answer.background)?,
        output_format: word(answer.output_format)?,
        dropped: repeat.dropped.clone(),
        attempts: attempts.join(", "),
        is_replayed: true,
        undelivered: None,
        times: None,
    })
}

/// The error of a refused generation, or of one that was charged and failed, for a repeat of its request.
pub(super) fn replay_refusal(
    generation: GenerationId,
    refusal: &str,
) -> Result<GatewayError, GatewayError> {
    let refusal: Refusal = read(refusal)?;
    let kind = match refusal.other {
        Some(other) => other.kind(),
        None if refusal.is_of_content => ErrorKind::ContentRefused,
        None => ErrorKind::InvalidRequest,
    };
    let error = ProviderError {
        code: refusal.code,
        error_type: refusal.error_type,
        param: refusal.param,
        moderation: refusal.moderation,
        upstream_status: refusal.upstream_status,
        ..ProviderError::new(kind, refusal.message)
    };
    Ok(GatewayError::Upstream(Box::new(UpstreamFailure {
        generation,
        attempts: refusal.attempts,
        provider: refusal.provider,
        // Only told where providers do not know it, which is never replayed.
        model: String::new(),
        retired_on: None,
        error,
        drafts: refusal.drafts.map(|drafts| Usage {
            output_image_tokens: drafts.output_tokens,
            cost: NanoUsd::from_nano(drafts.cost_nano_usd),
            ..Usage::default()
        }),
        is_replayed: true,
        times: None,
    })))
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, GatewayError> {
    serde_json::from_str(json).map_err(|error| GatewayError::Internal(Box::new(error)))
}

fn word<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    text: Option<String>,
) -> Result<Option<T>, GatewayError> {
    let parsed = text.map(|text| text.parse()).transpose();
    parsed.map_err(|error: T::Err| GatewayError::Internal(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::DRAINING, ledger::CANCELED};

    /// Whatever ends a stream behind its drafts is told by the same code all day.
    #[test]
    fn an_end_that_was_charged_comes_back_as_it_was() {
        for (kind, code, expected) in [
            (ErrorKind::Auth, None, "upstream_error"),
            (ErrorKind::QuotaExhausted, None, "upstream_error"),
            (
                ErrorKind::RateLimited { retry_after: None },
                None,
                "upstream_rate_limited",
            ),
            (ErrorKind::Timeout { sent: true }, None, "upstream_timeout"),
            (ErrorKind::Storage, None, "storage_error"),
            (ErrorKind::Malformed, None, "upstream_error"),
            (ErrorKind::Cancelled, None, CANCELED),
            (ErrorKind::Cancelled, Some(DRAINING), DRAINING),
            (
                ErrorKind::ContentRefused,
                Some("moderation_blocked"),
                "moderation_blocked",
            ),
        ] {
            let told = UpstreamFailure {
                generation: GenerationId::new(),
                attempts: "openai=cut".to_owned(),
                provider: "openai".to_owned(),
                model: "openai/gpt-image-1".to_owned(),
                retired_on: None,
                error: ProviderError {
                    code: code.map(str::to_owned),
                    ..ProviderError::new(kind, "it ended")
                },
                drafts: Some(Usage {
                    output_image_tokens: 100,
                    cost: NanoUsd::from_nano(4_000_000),
                    ..Usage::default()
                }),
                is_replayed: false,
                times: None,
            };
            assert_eq!(told.code(), expected);
            let generation = told.generation;
            let kept = refusal(&GatewayError::Upstream(Box::new(told)));
            let kept = kept.expect("it was charged");
            let again = replay_refusal(generation, &kept).unwrap();
            let GatewayError::Upstream(again) = again else {
                panic!("{again}");
            };
            assert_eq!(again.code(), expected);
            assert!(again.is_replayed);
            let drafts = again.drafts.expect("they are told again");
            assert_eq!(drafts.cost, NanoUsd::from_nano(4_000_000));
        }
    }
}
