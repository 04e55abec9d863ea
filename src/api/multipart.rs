//! `multipart/form-data` in pieces (RFC 7578, RFC 2046 section 5.1): chunks of a body go in, heads of parts
//! and pieces of their contents come out.
//!
//! No crate: `multer`, which axum builds on, gathers the head of a part without a bound. Here every buffer
//! has one: a head of [`MAX_HEAD_BYTES`], and of the contents no more than a delimiter's length beside the
//! chunk at hand. Pure: knows no sockets and no field's meaning.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;

/// The longest head of a part: disposition, type, and whatever a client adds.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// What may stand before the first part. Nobody sends anything there.
const MAX_PREAMBLE_BYTES: usize = 1024;
/// The longest boundary; the standard allows 70.
const MAX_BOUNDARY_BYTES: usize = 200;

/// The head of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartHead {
    /// The field's name as it was sent: `image[]`.
    pub(super) name: String,
    /// Whether it has a file name, which makes it a file; whether that is empty.
    pub(super) file_name: Option<FileName>,
    /// What the client says that it is.
    pub(super) content_type: Option<String>,
}

/// Whether a file has a name; which one does not matter to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileName {
    Given,
    Empty,
}

/// A step through a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A part begins.
    Part(PartHead),
    /// Some of its content, never empty.
    Data(Bytes),
    /// It is complete.
    PartEnd,
}

/// Why a form cannot be read. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    #[error("the content type has no boundary")]
    NoBoundary,
    #[error("its first boundary is missing")]
    NoFirstBoundary,
    #[error("something else than a line end follows a boundary")]
    AfterBoundary,
    #[error("the head of a part is longer than {MAX_HEAD_BYTES} bytes")]
    LongHead,
    #[error("a part has no form-data name")]
    NoName,
    #[error("it ends before its last boundary")]
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    /// Behind a delimiter: the end, or the head of a part.
    Head,
    Content,
    /// Behind the last delimiter; what follows is ignored.
    Done,
}

/// Reads one form. Feed it with [`Multipart::push`], then take events until there are none.
#[derive(Debug)]
pub(super) struct Multipart {
    /// A line end, two hyphens and the boundary.
    delimiter: memmem::Finder<'static>,
    buffer: BytesMut,
    state: State,
}

impl Multipart {
    /// A reader for the body of a request with this content type.
    ///
    /// # Errors
    /// [`MultipartError::NoBoundary`].
    pub(super) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let (_, boundary) = parameters(content_type)
            .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))
            .ok_or(MultipartError::NoBoundary)?;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_BYTES {
            return Err(MultipartError::NoBoundary);
        }
        let delimiter = format!("\r\n--{boundary}");
        Ok(Self {
            delimiter: memmem::Finder::new(&delimiter).into_owned(),
            // The first delimiter has no line end before it.
            buffer: BytesMut::from(&b"\r\n"[..]),
            state: State::Preamble,
        })
    }

    /// Gives it the next chunk. The events of the one before must have been taken.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        if self.state != State::Done {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// The next event, or `None` when more has to come.
    ///
    /// # Errors
    /// [`MultipartError`]; nothing more comes after one.
    pub(super) fn next(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            match self.state {
                State::Done => {
                    self.buffer.clear();
                    return Ok(None);
                }
                State::Preamble => {
                    let Some(place) = self.delimiter.find(&self.buffer) else {
                        // The delimiter may have begun.
                        if self.buffer.len() > MAX_PREAMBLE_BYTES + self.delimiter.needle().len() {
                            return Err(MultipartError::NoFirstBoundary);
                        }
                        return Ok(None);
                    };
                    if place > MAX_PREAMBLE_BYTES {
                        return Err(MultipartError::NoFirstBoundary);
                    }
                    self.pass_delimiter(place);
                }
                State::Head => match self.head()? {
                    Some(head) => return Ok(Some(Event::Part(head))),
                    None if self.state == State::Done => {}
                    None => return Ok(None),
                },
                State::Content => return Ok(self.content()),
            }
        }
    }

    /// The end of the body.
    ///
    /// # Errors
    /// [`MultipartError::Truncated`] when the form is not complete.
    pub(super) fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::Done => Ok(()),
            State::Preamble => Err(MultipartError::NoFirstBoundary),
            State::Head | State::Content => Err(MultipartError::Truncated),
        }
    }

    fn pass_delimiter(&mut self, place: usize) {
        self.buffer.advance(place + self.delimiter.needle().len());
        self.state = State::Head;
    }

    /// What stands behind a delimiter: the head of a part, or the end of the form.
    fn head(&mut self) -> Result<Option<PartHead>, MultipartError> {
        const HEAD_END: &[u8] = b"\r\n\r\n";
        if self.buffer.starts_with(b"--") {
            self.state = State::Done;
            return Ok(None);
        }
        // Spaces may follow a boundary, then the line ends.
        let line = self
            .buffer
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t'));
        let begins = &self.buffer[line.unwrap_or(self.buffer.len())..];
        if !(b"\r\n".starts_with(&begins[..begins.len().min(2)]) || begins == b"-") {
            return Err(MultipartError::AfterBoundary);
        }
        // The line end of the delimiter is also the first half of the end of a head without lines.
        let end = memmem::find(&self.buffer, HEAD_END);
        let length = end.unwrap_or(self.buffer.len().saturating_sub(HEAD_END.len() - 1));
        if length > MAX_HEAD_BYTES {
            return Err(MultipartError::LongHead);
        }
        let Some(end) = end else {
            return Ok(None);
        };
        let lines = self.buffer.split_to(end);
        self.buffer.advance(HEAD_END.len());
        let head = part_head(&lines).ok_or(MultipartError::NoName)?;
        self.state = State::Content;
        Ok(Some(head))
    }

    fn content(&mut self) -> Option<Event> {
        if let Some(place) = self.delimiter.find(&self.buffer) {
            if place > 0 {
                return Some(Event::Data(self.buffer.split_to(place).freeze()));
            }
            self.pass_delimiter(0);
            return Some(Event::PartEnd);
        }
        // The last bytes may be the beginning of the delimiter.
        let sure = (self.buffer.len() + 1).saturating_sub(self.delimiter.needle().len());
        (sure > 0).then(|| Event::Data(self.buffer.split_to(sure).freeze()))
    }
}

/// The head that these lines are; `None` when it names no field.
fn part_head(lines: &[u8]) -> Option<PartHead> {
    let lines = String::from_utf8_lossy(lines);
    let mut disposition = None;
    let mut content_type = None;
    for line in lines.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("content-disposition") {
            disposition = Some(value);
        } else if name.eq_ignore_ascii_case("content-type") {
            content_type = Some(value.to_owned());
        }
    }
    let disposition = disposition?;
    let kind = disposition.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("form-data") {
        return None;
    }
    let mut field = None;
    let mut file_name = None;
    for (name, value) in parameters(disposition) {
        if name.eq_ignore_ascii_case("name") {
            field = Some(value);
        } else if name.eq_ignore_ascii_case("filename") || name.eq_ignore_ascii_case("filename*") {
            file_name = Some(if value.is_empty() {
                FileName::Empty
            } else {
                FileName::Given
            });
        }
    }
    Some(PartHead {
        name: field?,
        file_name,
        content_type: content_type.filter(|text| !text.is_empty()),
    })
}

/// The parameters behind the first semicolon: `; name="a b"; other=c`. What is no parameter is passed over.
fn parameters(header: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches([' ', '\t', ';']);
            if rest.is_empty() {
                return None;
            }
            let end = rest.find([';', '=']).unwrap_or(rest.len());
            let name = rest[..end].trim();
            let Some(value) = rest[end..].strip_prefix('=') else {
                rest = &rest[end..];
                continue;
            };
            let value = value.trim_start();
            let (text, after) = if let Some(quoted) = value.strip_prefix('"') {
                quoted_text(quoted)
            } else {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            };
            rest = after;
            return Some((name, text));
        }
    })
}

/// The text up to the closing quote, and what follows it. A backslash escapes quotes and itself only:
/// browsers send file names with plain ones.
fn quoted_text(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return (text, &quoted[place + 1..]),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => text.push(escaped),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"a b\"";

    /// The parts of a body that comes in chunks of this size: heads and whole contents.
    fn read(body: &[u8], chunk: usize) -> Result<Vec<(PartHead, Vec<u8>)>, MultipartError> {
        let mut form = Multipart::new(TYPE)?;
        let mut parts = Vec::new();
        let mut open = false;
        for chunk in body.chunks(chunk.max(1)) {
            form.push(chunk);
            while let Some(event) = form.next()? {
                match event {
                    Event::Part(head) => {
                        assert!(!open, "a part in a part");
                        open = true;
                        parts.push((head, Vec::new()));
                    }
                    Event::Data(data) => {
                        assert!(!data.is_empty());
                        parts.last_mut().unwrap().1.extend_from_slice(&data);
                    }
                    Event::PartEnd => {
                        assert!(open, "an end without a beginning");
                        open = false;
                    }
                }
            }
            // What is kept is a head at most, or the beginning of a delimiter.
            assert!(form.buffer.len() <= MAX_HEAD_BYTES + chunk.len() + 3);
        }
        form.finish()?;
        assert!(!open);
        Ok(parts)
    }

    fn check(body: &str, expected: Result<&[(&str, &str)], MultipartError>) {
        for chunk in 1..body.len().max(2) {
            let found = read(body.as_bytes(), chunk).map(|parts| {
                let shown = |(head, content): (PartHead, Vec<u8>)| {
                    (head.name, String::from_utf8(content).unwrap())
                };
                parts.into_iter().map(shown).collect::<Vec<_>>()
            });
            let expected = expected.map(|parts| {
                let owned =
                    |(name, content): &(&str, &str)| ((*name).to_owned(), (*content).to_owned());
                parts.iter().map(owned).collect::<Vec<_>>()
            });
            assert_eq!(found, expected, "{body:?} in chunks of {chunk}");
        }
    }

    #[test]
    fn forms_are_read_whatever_their_chunks() {
        let head = "content-disposition: form-data; name=";
        check(
            &format!("--a b\r\n{head}n\r\n\r\n3\r\n--a b\r\n{head}\"b[]\"\r\n\r\n\r\n--a b--\r\n"),
            Ok(&[("n", "3"), ("b[]", "")]),
        );
        check(
            "hello\r\n--a b  \r\nX: y\r\nContent-DISPOSITION:form-data;name=\"a\\\"b\"\r\n\r\n\r\n-\r\n--a\r\n\r\n--a b--bye\r\n--a b\r\n",
            Ok(&[("a\"b", "\r\n-\r\n--a\r\n")]),
        );
        check("--a b--", Ok(&[]));
        check("", Err(MultipartError::NoFirstBoundary));
        check("--b a\r\n", Err(MultipartError::NoFirstBoundary));
        check("--a b", Err(MultipartError::Truncated));
        check("--a b-", Err(MultipartError::Truncated));
        check("--a b-x", Err(MultipartError::AfterBoundary));
        check("--a bc\r\n", Err(MultipartError::AfterBoundary));
        check("--a b\r\n\r\n", Err(MultipartError::NoName));
        check(
            "--a b\r\ncontent-disposition: attachment; name=n\r\n\r\n",
            Err(MultipartError::NoName),
        );
        check(
            &format!("--a b\r\n{head}n\r\n\r\n3\r\n--a "),
            Err(MultipartError::Truncated),
        );
    }

    #[test]
    fn heads_say_whether_they_are_files() {
        for (lines, expected) in [
            ("name=a", (None, None)),
            ("name=a; filename=b.png", (Some(FileName::Given), None)),
            (
                "name=a; filename=\"\"\r\nContent-Type: image/png",
                (Some(FileName::Empty), Some("image/png")),
            ),
            (
                "name=a; filename*=UTF-8''b.png\r\ncontent-type:",
                (Some(FileName::Given), None),
            ),
            (
                "filename=\"; name=x\"; name=a",
                (Some(FileName::Given), None),
            ),
        ] {
            let head = format!("Content-Disposition: form-data; {lines}");
            let head = part_head(head.as_bytes()).unwrap();
            assert_eq!(head.name, "a", "{lines}");
            assert_eq!(
                (head.file_name, head.content_type.as_deref()),
                expected,
                "{lines}"
            );
        }
    }

    #[test]
    fn nothing_grows_without_a_bound() {
        let endless = format!("--a b\r\n{}", "x: y\r\n".repeat(2000));
        assert_eq!(read(endless.as_bytes(), 100), Err(MultipartError::LongHead));
        let endless = "-".repeat(5000);
        assert_eq!(
            read(endless.as_bytes(), 100),
            Err(MultipartError::NoFirstBoundary)
        );
        for content_type in [
            "multipart/form-data".to_owned(),
            "multipart/form-data; boundary=".to_owned(),
            format!("multipart/form-data; boundary={}", "b".repeat(201)),
        ] {
            let refused = Multipart::new(&content_type).map(drop);
            assert_eq!(refused, Err(MultipartError::NoBoundary));
        }
    }

    /// Pieces that forms are made of, so that most bodies come near to one.
    fn fragments() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "--a b",
            "\r\n--a b",
            "--a b--",
            "\r\n",
            "\r\n\r\n",
            "-",
            "--",
            "\r",
            "\n",
            "a b",
            " ",
            ";",
            "content-disposition: form-data; name=n",
            "content-disposition: form-data; name=\"n",
            "content-type: image/png",
            ":",
            "=",
            "\"",
            "\\",
        ]);
        let piece = prop_oneof![
            4 => pieces.prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_the_same_in_any_chunks(body in fragments(), chunk in 1_usize..64) {
            prop_assert_eq!(read(&body, chunk), read(&body, usize::MAX));
        }

        #[test]
        fn what_is_written_is_read(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            chunk in 1_usize..400,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut body = Vec::new();
            for (number, content) in contents.iter().enumerate() {
                body.extend(format!("--a b\r\ncontent-disposition: form-data; name=\"f{number}\"\r\n\r\n").bytes());
                body.extend(content);
                body.extend(b"\r\n");
            }
            body.extend(b"--a b--");
            let parts = read(&body, chunk).unwrap();
            let read_back: Vec<_> = parts.into_iter().map(|(_, content)| content).collect();
            prop_assert_eq!(&read_back, &contents);
            // A torso is never taken for the whole.
            let cut = cut.index(body.len());
            prop_assert!(read(&body[..cut], chunk).is_err());
        }
    }
}
