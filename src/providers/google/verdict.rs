//! What an answer with status 200 means that has no picture, or fewer than were asked for
//! (`contracts/google-imagen.md`, 2.4 and 3.3). Google refuses inside of successes.

use super::{Protocol, answer::Said};
use crate::providers::{
    ErrorKind, ProviderError,
    wording::{is_word, presentable},
};

/// The code and type of a refused prompt or picture, as `OpenAI`'s clients know them.
const CODE: &str = "moderation_blocked";
const ERROR_TYPE: &str = "image_generation_user_error";

/// Reasons to stop that are judgements of the content. All others are technical or unknown.
const REFUSALS: &[&str] = &[
    "SAFETY",
    "IMAGE_SAFETY",
    "PROHIBITED_CONTENT",
    "IMAGE_PROHIBITED_CONTENT",
    "RECITATION",
    "IMAGE_RECITATION",
    "BLOCKLIST",
    "SPII",
    "MODEL_ARMOR",
];

/// Reasons to stop that are no judgement and may be gone the next time.
const WHIMS: &[&str] = &[
    "NO_IMAGE",
    "IMAGE_OTHER",
    "OTHER",
    "MALFORMED_RESPONSE",
    "MAX_TOKENS",
];

/// Whether the same request may bring a picture when it is made once more.
pub(super) fn is_worth_another(protocol: Protocol, said: &Said) -> bool {
    let reason = said.finish_reason.as_deref().unwrap_or_default();
    protocol == Protocol::GenerateContent
        && !said.has_error
        && said.block_reason.is_none()
        && WHIMS.contains(&reason)
}

/// Why there is no picture.
pub(super) fn of_nothing(protocol: Protocol, said: &Said, prompt: &str) -> ProviderError {
    if said.has_error {
        return nothing("holds an error");
    }
    match protocol {
        Protocol::GenerateContent => of_candidates(said, prompt),
        // Without a reason, or without anything at all, it is a filtered answer too: pictures that were
        // not filtered are there, and failures have another status.
        Protocol::Predict if said.has_bucket_link => {
            nothing("leads to a bucket instead of having pictures")
        }
        Protocol::Predict => of_less(said, prompt).unwrap_or_else(|| refused(None, None, prompt)),
    }
}

/// Why there are fewer pictures than were asked for, if the answer says so.
pub(super) fn of_less(said: &Said, prompt: &str) -> Option<ProviderError> {
    let reason = said.filtered_reason.as_deref()?;
    Some(refused(Some(reason), None, prompt))
}

/// A prompt that Imagen refuses outright, with an error's status.
pub(super) fn of_prompt(message: &str, prompt: &str, status: u16) -> ProviderError {
    ProviderError {
        upstream_status: Some(status),
        ..refused(Some(message), None, prompt)
    }
}

fn of_candidates(said: &Said, prompt: &str) -> ProviderError {
    let finish = said.finish_reason.as_deref();
    let blocked = said.block_reason.as_deref();
    // Whoever reads the prompt and thinks about it may charge for that much (contract, section 5).
    let error = if let Some(reason) = blocked {
        refused(said.block_message.as_deref(), Some(reason), prompt)
    } else if let Some(reason) = finish.filter(|reason| REFUSALS.contains(reason)) {
        refused(said.finish_message.as_deref(), Some(reason), prompt)
    } else {
        match finish {
            Some("STOP") if said.has_text => nothing("has words instead of a picture"),
            Some(reason) if is_word(reason) => {
                nothing(&format!("has no picture, for the reason {reason}"))
            }
            _ => nothing("has no picture"),
        }
    };
    ProviderError {
        maybe_charged: true,
        ..error
    }
}

/// In the provider's words where they can be shown, with its reason, which support asks for.
fn refused(message: Option<&str>, reason: Option<&str>, prompt: &str) -> ProviderError {
    let message = message
        .and_then(|message| presentable(message, prompt))
        .unwrap_or_else(|| "the provider's safety system refused the request".to_owned());
    let message = match reason.filter(|reason| is_word(reason)) {
        Some(reason) => format!("{message} ({reason})"),
        None => message,
    };
    ProviderError {
        code: Some(CODE.to_owned()),
        error_type: Some(ERROR_TYPE.to_owned()),
        upstream_status: Some(200),
        ..ProviderError::new(ErrorKind::ContentRefused, message)
    }
}

fn nothing(what: &str) -> ProviderError {
    ProviderError {
        upstream_status: Some(200),
        ..ProviderError::new(
            ErrorKind::Malformed,
            format!("the provider's answer {what}"),
        )
    }
}
