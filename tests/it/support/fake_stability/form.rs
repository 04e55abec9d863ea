//! `multipart/form-data`, read to the letter: whatever is not exactly right is none.

use axum::http::HeaderMap;

/// The text fields in their order; `None` when the body is no well-formed form.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Option<Vec<(String, String)>> {
    let content_type = headers.get("content-type")?.to_str().ok()?;
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.trim().strip_prefix("boundary=")?;
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let text = text.strip_prefix(&format!("--{boundary}"))?;
    let text = text.strip_suffix("--\r\n")?;
    let delimiter = format!("\r\n--{boundary}");
    let mut fields = Vec::new();
    let mut parts: Vec<&str> = text.split(delimiter.as_str()).collect();
    // What is left after the last delimiter, whose two dashes are gone already.
    if !parts.pop()?.is_empty() {
        return None;
    }
    for part in parts {
        let (head, value) = part.strip_prefix("\r\n")?.split_once("\r\n\r\n")?;
        let (name, rest) = head
            .strip_prefix("content-disposition: form-data; name=\"")
            .or_else(|| head.strip_prefix("Content-Disposition: form-data; name=\""))?
            .split_once('"')?;
        // A file: this fake paints from text.
        if !rest.is_empty() {
            return None;
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    Some(fields)
}
