//! SVG: text whose first element is `<svg`, behind a byte order mark, an XML declaration, comments and
//! a document type at most, and whose last is `</svg>`. (SVG 2, section 5.1; XML 1.0, section 2.8.)
//!
//! This is no XML parser: it tells an SVG from other text and from a torso cut anywhere but right
//! behind an inner `</svg>`.

use std::mem;

use super::{NotAPicture, refused};
use crate::catalog::ImageSize;

/// The most that one construct before the root's end may take, the root's own start tag included.
const MAX_CONSTRUCT: usize = 64 * 1024;
const TOO_LONG: &str = "an svg with a prolog too long to look through";
const END: &[u8] = b"</svg";

#[derive(Debug, Default)]
pub(super) struct Svg {
    root: Root,
    has_begun: bool,
    /// How much of [`END`] the last bytes are.
    matched: usize,
    is_closed: bool,
}

#[derive(Debug)]
enum Root {
    /// Not seen yet; the bytes of a construct that has not ended.
    Expected(Vec<u8>),
    Seen(Option<ImageSize>),
}

impl Default for Root {
    fn default() -> Self {
        Self::Expected(Vec::new())
    }
}

/// Whether a file that begins so may be an SVG.
pub(super) fn may_begin(head: &[u8]) -> bool {
    let text = without_byte_order_mark(head).trim_ascii_start();
    [&b"<svg"[..], b"<?xml", b"<!--", b"<!DOCTYPE"]
        .iter()
        .any(|begin| text.starts_with(&begin[..begin.len().min(text.len())]))
}

impl Svg {
    pub(super) fn size(&self) -> Option<ImageSize> {
        match self.root {
            Root::Expected(_) => None,
            Root::Seen(size) => size,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_closed
    }

    /// The next bytes; the first time [`MAGIC`](super::MAGIC) of them at least.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), NotAPicture> {
        if memchr::memchr(0, bytes).is_some() {
            return Err(refused("an svg with binary data"));
        }
        let Root::Expected(text) = &mut self.root else {
            self.look_for_end(bytes);
            return Ok(());
        };
        let bytes = if self.has_begun {
            bytes
        } else {
            without_byte_order_mark(bytes)
        };
        self.has_begun = true;
        text.extend_from_slice(if text.is_empty() {
            bytes.trim_ascii_start()
        } else {
            bytes
        });
        // Constructs end in '>': without one there is nothing new to find.
        if memchr::memchr(b'>', bytes).is_some() {
            self.look_for_root()?;
        }
        match &self.root {
            Root::Expected(text) if text.len() > MAX_CONSTRUCT => Err(refused(TOO_LONG)),
            Root::Expected(_) | Root::Seen(_) => Ok(()),
        }
    }

    /// Passes over the constructs before the root that are complete.
    fn look_for_root(&mut self) -> Result<(), NotAPicture> {
        let Root::Expected(text) = mem::take(&mut self.root) else {
            return Ok(());
        };
        let mut rest = &text[..];
        while let Some(length) = construct(rest)? {
            if length > MAX_CONSTRUCT {
                return Err(refused(TOO_LONG));
            }
            let (tag, behind) = rest.split_at(length);
            if tag.starts_with(b"<svg") {
                self.root = Root::Seen(read_size(tag));
                self.look_for_end(behind);
                return Ok(());
            }
            rest = behind.trim_ascii_start();
        }
        self.root = Root::Expected(rest.to_vec());
        Ok(())
    }

    fn look_for_end(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.matched < END.len() {
                self.is_closed &= byte.is_ascii_whitespace();
                self.matched = match byte {
                    byte if byte == END[self.matched] => self.matched + 1,
                    b'<' => 1,
                    _ => 0,
                };
            } else if !byte.is_ascii_whitespace() {
                self.is_closed = byte == b'>';
                self.matched = usize::from(byte == b'<');
            }
        }
    }
}

fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// The length of the construct at the beginning of `text`; `None` when its end has not come yet.
fn construct(text: &[u8]) -> Result<Option<usize>, NotAPicture> {
    let end = |mark: &[u8]| memchr::memmem::find(text, mark).map(|place| place + mark.len());
    if text.starts_with(b"<?xml") {
        Ok(end(b"?>"))
    } else if text.starts_with(b"<!--") {
        Ok(end(b"-->"))
    } else if text.starts_with(b"<!DOCTYPE") {
        Ok(tag_end(text, true))
    } else if let Some(behind) = text.strip_prefix(b"<svg") {
        match behind.first() {
            None => Ok(None),
            Some(byte) if byte.is_ascii_whitespace() || *byte == b'>' => Ok(tag_end(text, false)),
            Some(_) => Err(refused("text that is no svg")),
        }
    } else if may_begin(text) {
        Ok(None)
    } else {
        Err(refused("text that is no svg"))
    }
}

/// Where a tag ends: at the first `>` outside quotes and, in a document type, outside `[…]`.
fn tag_end(text: &[u8], has_subset: bool) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_u32;
    for (place, &byte) in text.iter().enumerate() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'[') if has_subset => depth = depth.saturating_add(1),
            (None, b']') if has_subset => depth = depth.saturating_sub(1),
            (None, b'>') if depth == 0 => return Some(place + 1),
            (Some(_) | None, _) => {}
        }
    }
    None
}

/// `width` and `height` of the root, when both are whole pixels.
fn read_size(tag: &[u8]) -> Option<ImageSize> {
    let pixels = |name| {
        let value = std::str::from_utf8(attribute(tag, name)?).ok()?.trim();
        value.strip_suffix("px").unwrap_or(value).parse().ok()
    };
    ImageSize::new(pixels(b"width")?, pixels(b"height")?)
}

/// The value of an attribute of a tag.
fn attribute<'a>(tag: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut rest = tag.strip_prefix(b"<svg")?;
    loop {
        let equals = memchr::memchr(b'=', rest)?;
        let (name, value) = rest.split_at(equals);
        let value = value[1..].trim_ascii_start();
        let quote = *value.first().filter(|byte| matches!(byte, b'"' | b'\''))?;
        let end = memchr::memchr(quote, &value[1..])?;
        if name.trim_ascii() == wanted {
            return Some(&value[1..=end]);
        }
        rest = &value[end + 2..];
    }
}
