//! The bodies of success, in the exact shape of each family (`contracts/openai-images.md`, sections 2 and 10).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::rules::{Accepted, Family};
use crate::support::pictures;

/// The `created` of every answer.
pub(crate) const CREATED: i64 = 1_795_000_000;

/// What each draft adds to the output.
const TOKENS_OF_A_DRAFT: u64 = 100;

/// What DALL·E 3 makes of every prompt.
pub(crate) const REVISED_PROMPT: &str =
    "A detailed painting of what was asked, in oil, with a frame";

/// The pictures of a request, in order.
pub(super) fn pictures(accepted: &Accepted) -> Vec<Bytes> {
    let (width, height) = edges(&accepted.size);
    (0..accepted.n)
        .map(|index| {
            let seed = u8::try_from(index * 20 + 10).unwrap_or(u8::MAX);
            pictures::paint(accepted.format, width, height, seed, accepted.transparent)
        })
        .collect()
}

/// The answer with these items as `data`.
pub(super) fn body(accepted: &Accepted, data: &[Value]) -> Value {
    if accepted.family.is_dalle() {
        return json!({"created": CREATED, "data": data});
    }
    let mut answer = json!({
        "created": CREATED,
        "background": if accepted.transparent { "transparent" } else { "opaque" },
        "data": data,
        "output_format": accepted.format,
        "quality": resolved_quality(accepted),
        "size": accepted.size,
        "usage": usage(accepted),
    });
    if let Some(identifier) = &accepted.safety_identifier {
        answer["safety_identifier"] = json!(identifier);
    }
    answer
}

/// One element of `data`.
pub(super) fn item(accepted: &Accepted, picture: &Bytes, url: Option<String>) -> Value {
    let mut item = match url {
        Some(url) => json!({"url": url}),
        None => json!({"b64_json": STANDARD.encode(picture)}),
    };
    if accepted.family == Family::D3 {
        item["revised_prompt"] = json!(REVISED_PROMPT);
    }
    item
}

/// `auto` is `high` here, as the dearest resolution is the one that a hold must have foreseen.
fn resolved_quality(accepted: &Accepted) -> &str {
    match accepted.quality.as_str() {
        "auto" => "high",
        quality => quality,
    }
}

/// Several pictures are counted like as many calls (contract, section 2, "Billing observations").
fn usage(accepted: &Accepted) -> Value {
    let n = u64::try_from(accepted.n).unwrap_or(1);
    let text = input_tokens(&accepted.prompt) * n;
    let from = accepted.image_tokens * n;
    let image = output_tokens(accepted.family, resolved_quality(accepted), &accepted.size) * n;
    json!({
        "input_tokens": text + from,
        "input_tokens_details": {"image_tokens": from, "text_tokens": text},
        "output_tokens": image,
        "output_tokens_details": {"image_tokens": image, "text_tokens": 0},
        "total_tokens": text + from + image,
    })
}

/// What the event of one finished picture says; it has no details of the output (contract, section 3.1), and
/// each draft adds its tokens (section 1.1).
pub(super) fn usage_of_event(accepted: &Accepted) -> Value {
    let one = Accepted {
        n: 1,
        ..accepted.clone()
    };
    let mut usage = usage(&one);
    let drafts = u64::try_from(accepted.drafts).unwrap() * TOKENS_OF_A_DRAFT;
    for total in ["output_tokens", "total_tokens"] {
        usage[total] = json!(usage[total].as_u64().unwrap() + drafts);
    }
    usage
        .as_object_mut()
        .unwrap()
        .remove("output_tokens_details");
    usage
}

/// About what a tokenizer counts, plus the six that every generation adds (contract, section 2).
pub(crate) fn input_tokens(prompt: &str) -> u64 {
    u64::try_from(prompt.chars().count().div_ceil(4)).unwrap_or_default() + 6
}

/// Contract, section 10.
pub(super) fn output_tokens(family: Family, quality: &str, size: &str) -> u64 {
    let (width, height) = edges(size);
    if family == Family::G1 {
        return match (quality, width.cmp(&height)) {
            ("low", std::cmp::Ordering::Equal) => 272,
            ("low", std::cmp::Ordering::Less) => 408,
            ("low", std::cmp::Ordering::Greater) => 400,
            ("medium", std::cmp::Ordering::Equal) => 1056,
            ("medium", std::cmp::Ordering::Less) => 1584,
            ("medium", std::cmp::Ordering::Greater) => 1568,
            (_, std::cmp::Ordering::Equal) => 4160,
            (_, std::cmp::Ordering::Less) => 6240,
            (_, std::cmp::Ordering::Greater) => 6208,
        };
    }
    // The table of 2.5 and 2.6 is not published; `high` there lies near `medium` of gpt-image-2.
    let grid = match (family, quality) {
        (_, "low") => 16,
        (Family::G2, "medium") | (Family::G25 | Family::G26, "high") => 48,
        (_, "medium") => 32,
        (_, "xhigh") => 72,
        _ => 96,
    };
    let (long, short) = (u64::from(width.max(height)), u64::from(width.min(height)));
    let rows = (2 * grid * short + long) / (2 * long);
    (grid * rows * (2_000_000 + long * short)).div_ceil(4_000_000)
}

pub(super) fn edges(size: &str) -> (u32, u32) {
    let (width, height) = size.split_once('x').expect("a checked size");
    (width.parse().unwrap(), height.parse().unwrap())
}
