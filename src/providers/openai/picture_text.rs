//! Where the base64 of a picture begins in a JSON string: at once, or behind the head of a `data:` URL, which
//! some servers send.

use bytes::Bytes;

/// What may stand before the comma of a `data:` URL.
const MAX_DATA_URL_HEAD_BYTES: usize = 256;

const DATA_URL: &[u8] = b"data:";

/// A `data:` URL that is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotBase64;

/// Whether a text begins like a `data:` URL, as far as it is there.
pub(super) fn is_data_url<'a>(text: impl Iterator<Item = &'a u8>) -> bool {
    text.take(DATA_URL.len()).eq(DATA_URL)
}

/// Reads the text of one picture.
#[derive(Debug)]
pub(super) enum PictureText {
    /// So far it could still begin with `data:`.
    Head(Vec<u8>),
    /// Inside the head of a `data:` URL.
    DataUrlHead(Vec<u8>),
    /// Base64 from here on.
    Base64,
}

impl Default for PictureText {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl PictureText {
    /// The base64 in a piece of the string; `None` while it has not begun.
    pub(super) fn feed(&mut self, piece: Bytes) -> Result<Option<Bytes>, NotBase64> {
        match self {
            Self::Base64 => Ok(Some(piece)),
            Self::Head(head) => {
                let whole = if head.is_empty() {
                    piece
                } else {
                    head.extend_from_slice(&piece);
                    Bytes::from(std::mem::take(head))
                };
                if whole.len() < DATA_URL.len() {
                    *self = Self::Head(whole.into());
                    Ok(None)
                } else if is_data_url(whole.iter()) {
                    *self = Self::DataUrlHead(Vec::new());
                    self.feed(whole)
                } else {
                    *self = Self::Base64;
                    Ok(Some(whole))
                }
            }
            Self::DataUrlHead(head) => {
                let mut piece = piece;
                let comma = memchr::memchr(b',', &piece);
                let part = piece.split_to(comma.unwrap_or(piece.len()));
                head.extend_from_slice(&part);
                if head.len() > MAX_DATA_URL_HEAD_BYTES {
                    return Err(NotBase64);
                }
                if comma.is_none() {
                    return Ok(None);
                }
                if !head.to_ascii_lowercase().ends_with(b";base64") {
                    return Err(NotBase64);
                }
                *self = Self::Base64;
                Ok(Some(piece.slice(1..)))
            }
        }
    }

    /// What is left at the end of the string: all of a text too short to tell, if it is not empty.
    pub(super) fn finish(self) -> Result<Option<Bytes>, NotBase64> {
        match self {
            Self::Base64 => Ok(None),
            Self::Head(head) => Ok((!head.is_empty()).then(|| head.into())),
            Self::DataUrlHead(_) => Err(NotBase64),
        }
    }
}
