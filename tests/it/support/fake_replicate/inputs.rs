//! Pictures that the fake is given: as files, and within inputs (contract, sections 2, 2.4 and 2.5).

use std::collections::HashMap;

use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

/// The longest data URL that is advised.
const MAX_DATA_URL_BYTES: usize = 256 * 1024;

/// The files that were uploaded, by their links. `None`: this server has none, and takes pictures of any size
/// in the input.
pub(super) type Files = Option<HashMap<String, Bytes>>;

/// The pictures that this field holds, if it holds any.
pub(super) fn pictures_of(holds: bool, value: &Value) -> Vec<&str> {
    match value {
        Value::String(one) if holds => vec![one],
        Value::Array(several) if holds => several
            .iter()
            .map(|one| one.as_str().unwrap_or_default())
            .collect(),
        _ => Vec::new(),
    }
}

/// The picture's bytes, or what is wrong with it.
pub(super) fn open(said: &str, files: &Files) -> Result<Bytes, String> {
    let bytes = if let Some(rest) = said.strip_prefix("data:") {
        if files.is_some() && said.len() > MAX_DATA_URL_BYTES {
            return Err("too long for a data URL".to_owned());
        }
        let (media_type, base64) = rest.split_once(";base64,").ok_or("not base64")?;
        let bytes = STANDARD.decode(base64).map_err(|_| "bad base64")?;
        check(&bytes, media_type)?;
        bytes.into()
    } else {
        let file = files.as_ref().and_then(|files| files.get(said));
        file.ok_or("no such file")?.clone()
    };
    Ok(bytes)
}

/// Whether the bytes are a whole picture of this type.
fn check(bytes: &[u8], media_type: &str) -> Result<(), String> {
    let format = image::guess_format(bytes).map_err(|_| "no picture")?;
    if format.to_mime_type() != media_type {
        return Err(format!("{media_type} is {}", format.to_mime_type()));
    }
    imagesize::blob_size(bytes).map_err(|_| "a picture without a size")?;
    if matches!(format, image::ImageFormat::Png | image::ImageFormat::Jpeg) {
        image::load_from_memory(bytes).map_err(|_| "not a whole picture")?;
    }
    Ok(())
}

/// About one megapixel of the picture's shape, both divisible by 32.
pub(super) fn edges_like(picture: &Bytes) -> (u32, u32) {
    let size = imagesize::blob_size(picture).unwrap();
    let (width, height) = (size.width as u64, size.height as u64);
    let edge = |one: u64, other: u64| {
        let edge = (1024 * 1024 * one / other).isqrt() / 32 * 32;
        u32::try_from(edge.max(32)).unwrap()
    };
    (edge(width, height), edge(height, width))
}

/// The picture of an upload: a form with the one file `content`, and nothing else.
pub(super) fn uploaded(headers: &HeaderMap, body: &[u8]) -> Option<Bytes> {
    let content_type = headers.get("content-type")?.to_str().ok()?;
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=")?;
    let rest = body.strip_prefix(format!("--{boundary}\r\n").as_bytes())?;
    let content = rest.strip_suffix(format!("\r\n--{boundary}--\r\n").as_bytes())?;
    let head_ends = content.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&content[..head_ends]).ok()?;
    let mut media_type = None;
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" => {
                let name = value.strip_prefix("form-data; name=\"content\"; filename=\"")?;
                let name = name.strip_suffix('"')?;
                (!name.is_empty() && name.len() <= 255).then_some(())?;
            }
            "content-type" => media_type = Some(value),
            _ => return None,
        }
    }
    let bytes = &content[head_ends + 4..];
    check(bytes, media_type?).ok()?;
    Some(Bytes::copy_from_slice(bytes))
}
