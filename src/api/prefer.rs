//! The `Prefer` header (RFC 7240), of which one preference is honoured: `respond-async`.
//!
//! A preference is no demand: whatever is unknown, or cannot be read, is passed over.

use http::{HeaderMap, HeaderName};

/// The request's header.
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Not to wait for what comes of the request (section 4.1 there).
pub(super) const RESPOND_ASYNC: &str = "respond-async";

/// Whether the client wants to come back for the answer. The header may be there several times, each with
/// several preferences, each with a value and parameters; names have no case.
pub(super) fn responds_async(headers: &HeaderMap) -> bool {
    headers.get_all(PREFER).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| Preferences { rest: text }.any(|name| is(name, RESPOND_ASYNC)))
    })
}

fn is(name: &str, expected: &str) -> bool {
    name.eq_ignore_ascii_case(expected)
}

/// The names of the preferences in one line, without their values and parameters.
struct Preferences<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Preferences<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (preference, rest) = match outside_quotes(self.rest, |byte| byte == b',') {
            Some(comma) => (&self.rest[..comma], &self.rest[comma + 1..]),
            None => (self.rest, ""),
        };
        self.rest = rest;
        let end = outside_quotes(preference, |byte| matches!(byte, b'=' | b';'));
        Some(preference[..end.unwrap_or(preference.len())].trim_matches([' ', '\t']))
    }
}

/// Where the first such byte is that stands in no quoted string.
fn outside_quotes(text: &str, is_wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => is_escaped = true,
            _ => return !is_quoted && is_wanted(byte),
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_preference_is_found_among_others() {
        for (lines, expected) in [
            (&["respond-async"][..], true),
            (&["Respond-Async"], true),
            (&["respond-async, wait=10"], true),
            (&["wait=10,respond-async"], true),
            (
                &["return=minimal; foo=\"a, b\" , \trespond-async ;x=1"],
                true,
            ),
            (&["wait=10", "respond-async"], true),
            (&["respond-async=\"\""], true),
            (&["a=\"say \\\"respond-async\\\", yes\""], false),
            (&["a=\"x\\\", respond-async"], false),
            (&["respond-asynchronously"], false),
            (&["wait=10; respond-async"], false),
            (&["handling=respond-async"], false),
            (&[",,"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER, HeaderValue::from_static(line));
            }
            assert_eq!(responds_async(&headers), expected, "{lines:?}");
        }
    }
}
