//! An answer as events, exactly as the contract shows them (`contracts/openai-images.md`, section 3.1).

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    answer::{self, CREATED},
    rules::{Accepted, Endpoint},
};
use crate::support::pictures;

/// One event a string: of each picture its drafts, then the picture. Members stand in the order of the
/// contract's example, in which the number of a draft comes behind its data.
pub(super) fn events(accepted: &Accepted, answer: &Value) -> Vec<String> {
    let mut events = Vec::new();
    for (index, item) in answer["data"].as_array().unwrap().iter().enumerate() {
        for draft in 0..accepted.drafts {
            let picture = STANDARD.encode(self::draft(accepted, index, draft));
            let rest = format!(r#""partial_image_index":{draft}"#);
            events.push(event(accepted, "partial_image", &picture, &rest));
        }
        let picture = item["b64_json"].as_str().unwrap();
        let mut rest = format!(r#""usage":{}"#, answer::usage_of_event(accepted));
        if let Some(identifier) = &accepted.safety_identifier {
            write!(rest, r#","safety_identifier":"{identifier}""#).unwrap();
        }
        events.push(event(accepted, "completed", picture, &rest));
    }
    events
}

/// A draft is a whole picture, and no two are alike.
fn draft(accepted: &Accepted, index: usize, draft: usize) -> bytes::Bytes {
    let (width, height) = answer::edges(&accepted.size);
    let seed = u8::try_from(index * 20 + 11 + draft).unwrap_or(u8::MAX);
    pictures::paint(accepted.format, width, height, seed, accepted.transparent)
}

fn event(accepted: &Accepted, what: &str, picture: &str, rest: &str) -> String {
    let name = match accepted.endpoint {
        Endpoint::Generations => format!("image_generation.{what}"),
        Endpoint::Edits | Endpoint::Variations => format!("image_edit.{what}"),
    };
    let Accepted {
        size,
        quality,
        background,
        format,
        ..
    } = accepted;
    format!(
        "event: {name}\ndata: {{\"type\":\"{name}\",\"b64_json\":\"{picture}\",\"created_at\":{CREATED},\"size\":\"{size}\",\"quality\":\"{quality}\",\"background\":\"{background}\",\"output_format\":\"{format}\",{rest}}}\n\n"
    )
}
