//! The bodies of success, in the exact shape of each protocol (contract, 2.3 and 3.3).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::rules::Accepted;
use crate::support::pictures;

/// What Imagen makes of every prompt.
pub(crate) const REVISED_PROMPT: &str = "What was asked, under a wide evening sky";

/// What every picture of Gemini is thought about.
pub(crate) const THOUGHT_TOKENS: u64 = 311;

/// What every picture in a request takes (contract, section 5).
pub(crate) const INPUT_PICTURE_TOKENS: u64 = 1120;

/// About what a tokenizer counts.
pub(crate) fn input_tokens(prompt: &str) -> u64 {
    u64::try_from(prompt.chars().count().div_ceil(4)).unwrap_or_default()
}

/// The picture of this index.
pub(super) fn picture(accepted: &Accepted, index: usize) -> Bytes {
    let seed = u8::try_from(index * 20 + 10).unwrap_or(u8::MAX);
    pictures::paint(
        accepted.format,
        accepted.width,
        accepted.height,
        seed,
        false,
    )
}

/// The right answer.
pub(super) fn right(accepted: &Accepted) -> Value {
    if accepted.is_imagen {
        predictions(accepted, accepted.n)
    } else {
        candidates(
            accepted,
            &json!([
                {"text": "Here is what you asked for."},
                part(&picture(accepted, 0)),
            ]),
        )
    }
}

/// So many predictions.
pub(super) fn predictions(accepted: &Accepted, n: usize) -> Value {
    let predictions: Vec<Value> = (0..n)
        .map(|index| {
            json!({
                "mimeType": format!("image/{}", accepted.format),
                "bytesBase64Encoded": STANDARD.encode(picture(accepted, index)),
                "prompt": REVISED_PROMPT,
            })
        })
        .collect();
    json!({ "predictions": predictions })
}

/// One candidate of these parts.
pub(super) fn candidates(accepted: &Accepted, parts: &Value) -> Value {
    json!({
        "candidates": [{
            "content": {"role": "model", "parts": parts},
            "finishReason": "STOP",
            "index": 0,
        }],
        "usageMetadata": usage(accepted),
        "modelVersion": accepted.model,
        "responseId": "fakeResponseId01",
    })
}

pub(super) fn usage(accepted: &Accepted) -> Value {
    let text = input_tokens(&accepted.prompt);
    let pictures = accepted.inputs * INPUT_PICTURE_TOKENS;
    let mut details = vec![json!({"modality": "TEXT", "tokenCount": text})];
    if pictures > 0 {
        details.push(json!({"modality": "IMAGE", "tokenCount": pictures}));
    }
    json!({
        "promptTokenCount": text + pictures,
        "candidatesTokenCount": accepted.image_tokens,
        "thoughtsTokenCount": THOUGHT_TOKENS,
        "totalTokenCount": text + pictures + accepted.image_tokens + THOUGHT_TOKENS,
        "promptTokensDetails": details,
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": accepted.image_tokens}],
    })
}

/// A part with a picture, whose signature is longer than what is kept of anything.
pub(super) fn part(picture: &Bytes) -> Value {
    json!({
        "inlineData": {"mimeType": "image/jpeg", "data": STANDARD.encode(picture)},
        "thoughtSignature": "c2lnbmF0dXJl".repeat(20_000),
    })
}
