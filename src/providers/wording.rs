//! What an error may say: the provider's words where they are for the caller, ours everywhere else (I10).

use std::collections::HashSet;

use super::ErrorKind;

/// A longer message is cut: it is for a person to read.
const MAX_MESSAGE_CHARS: usize = 1000;
/// A run of the prompt this long in a message is a quotation. Shorter ones happen by chance.
const QUOTATION_CHARS: usize = 24;

/// What we say instead of an upstream message, which is not the caller's to read.
pub(super) fn in_our_words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest => "the provider refused the request as invalid",
        ErrorKind::ContentRefused => "the provider's safety system refused the request",
        ErrorKind::Auth => "the provider refused our key",
        ErrorKind::QuotaExhausted => "our account at the provider is exhausted",
        ErrorKind::ModelUnavailable => "the provider does not serve this model",
        ErrorKind::RateLimited { .. } => "the provider has had too many requests",
        ErrorKind::Overloaded { .. } => "the provider failed",
        ErrorKind::Timeout { .. } | ErrorKind::Transport { .. } => "the provider did not answer",
        ErrorKind::Cancelled => "we hung up",
        ErrorKind::Malformed | ErrorKind::Storage => "the provider's answer holds an error",
    }
}

/// The same with the status it came with. An error within a success has none to show: it would say the
/// contrary.
pub(super) fn in_our_words_with(kind: ErrorKind, status: u16) -> String {
    let words = in_our_words(kind);
    match status {
        200..=299 => words.to_owned(),
        _ => format!("{words} (HTTP {status})"),
    }
}

/// Codes and parameter names are words; what is not may be anything, the prompt included.
pub(super) fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte))
}

/// The provider's message for the caller: cut, and only if it does not quote the prompt. (The caller knows
/// the prompt; logs and error trackers must not: Azure answers `'<whole prompt>' is too long - 'prompt'`.)
pub(super) fn presentable(message: &str, prompt: &str) -> Option<String> {
    let message = message.trim();
    if message.is_empty() || quotes(message, prompt.trim()) {
        return None;
    }
    Some(message.chars().take(MAX_MESSAGE_CHARS).collect())
}

fn quotes(message: &str, prompt: &str) -> bool {
    let length = prompt.chars().count();
    if length < QUOTATION_CHARS {
        // A prompt like `a` stands in every message; it is a quotation when it is more, or in quotes.
        let in_quotes = || {
            ["'", "\"", "`", "“", "‘", "«"].iter().any(|quote| {
                message
                    .split(quote)
                    .skip(1)
                    .any(|rest| rest.starts_with(prompt))
            })
        };
        return length > 0 && message.contains(prompt) && (length >= 8 || in_quotes());
    }
    let said = windows(message).collect::<HashSet<_>>();
    windows(prompt).any(|window| said.contains(window))
}

/// Every run of [`QUOTATION_CHARS`] characters.
fn windows(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.char_indices().map(|(start, _)| start);
    let ends = text
        .char_indices()
        .map(|(start, _)| start)
        .skip(QUOTATION_CHARS)
        .chain([text.len()]);
    starts.zip(ends).map(|(start, end)| &text[start..end])
}
