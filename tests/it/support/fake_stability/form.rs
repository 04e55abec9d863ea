//! `multipart/form-data`, read to the letter: whatever is not exactly right is none.

use axum::http::HeaderMap;
use bytes::Bytes;
use memchr::memmem;

/// A part of a form.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) name: String,
    /// The type of a file; `None` for a text.
    pub(super) content_type: Option<String>,
    pub(super) content: Bytes,
}

impl Part {
    /// The text; `None` for a file, and for what is none.
    pub(super) fn text(&self) -> Option<&str> {
        match self.content_type {
            Some(_) => None,
            None => std::str::from_utf8(&self.content).ok(),
        }
    }
}

/// The parts in their order; `None` when the body is no well-formed form.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Option<Vec<Part>> {
    let content_type = headers.get("content-type")?.to_str().ok()?;
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.trim().strip_prefix("boundary=")?;
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let first = format!("--{boundary}");
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.slice(body.starts_with(first.as_bytes()).then_some(first.len())?..);
    let mut parts = Vec::new();
    while rest != "--\r\n" {
        let end = memmem::find(&rest, delimiter.as_bytes())?;
        parts.push(part(&rest.split_to(end))?);
        rest = rest.split_off(delimiter.len());
    }
    Some(parts)
}

fn part(bytes: &Bytes) -> Option<Part> {
    let end = memmem::find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.strip_prefix("\r\n")?.split("\r\n");
    let (name, rest) = lines
        .next()?
        .strip_prefix("Content-Disposition: form-data; name=\"")?
        .split_once('"')?;
    let content_type = if rest.is_empty() {
        None
    } else {
        let file_name = rest.strip_prefix("; filename=\"")?.strip_suffix('"')?;
        if file_name.is_empty() || file_name.contains('"') {
            return None;
        }
        Some(lines.next()?.strip_prefix("Content-Type: ")?.to_owned())
    };
    if lines.next().is_some() {
        return None;
    }
    Some(Part {
        name: name.to_owned(),
        content_type,
        content: bytes.slice(end + 4..),
    })
}
