//! `multipart/form-data`, read to the letter (RFC 7578): whatever is not exactly right is none.

use axum::http::HeaderMap;
use bytes::Bytes;

/// One part of a form.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// With it the part is a file, without it text.
    pub(crate) file_name: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) content: Bytes,
}

/// The parts in their order; `None` when the body is no well-formed form.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Option<Vec<Part>> {
    let content_type = headers.get("content-type")?.to_str().ok()?;
    let (_, boundary) = content_type.split_once("boundary=")?;
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..])?;
    let mut parts = Vec::new();
    while rest != b"--\r\n" {
        rest = rest.strip_prefix(b"\r\n")?;
        let end = memchr::memmem::find(rest, delimiter.as_bytes())?;
        parts.push(part(body, &rest[..end])?);
        rest = &rest[end + delimiter.len()..];
    }
    Some(parts)
}

fn part(body: &Bytes, text: &[u8]) -> Option<Part> {
    let split = memchr::memmem::find(text, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&text[..split]).ok()?;
    let mut part = Part {
        name: String::new(),
        file_name: None,
        content_type: None,
        content: body.slice_ref(&text[split + 4..]),
    };
    for line in head.split("\r\n") {
        let (header, value) = line.split_once(": ")?;
        match header.to_lowercase().as_str() {
            "content-disposition" => {
                let rest = value.strip_prefix("form-data; name=\"")?;
                let (name, rest) = rest.split_once('"')?;
                name.clone_into(&mut part.name);
                if !rest.is_empty() {
                    let rest = rest.strip_prefix("; filename=\"")?;
                    part.file_name = Some(rest.strip_suffix('"')?.to_owned());
                }
            }
            "content-type" => part.content_type = Some(value.to_owned()),
            _ => return None,
        }
    }
    (!part.name.is_empty()).then_some(part)
}
