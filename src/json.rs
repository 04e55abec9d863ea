//! An incremental JSON tokenizer: chunks go in, tokens come out, strings as they arrive.
//!
//! A picture is a JSON string of many megabytes, and no whole picture may be in memory, so string contents
//! have to come out in pieces, as slices of the network's own chunks. No crate does that: `serde_json`
//! wants the document, `actson` and `json-event-parser` are fed in chunks but collect each string,
//! `picojson` wants it to fit a scratch buffer, `struson` streams strings but pulls from a blocking reader.
//! (All looked at in November 2026.)
//!
//! Memory is bounded whatever arrives: names and scalars have caps, nesting is a bit a level. It knows
//! nothing of pictures. Stricter than needed it is not: raw control characters and halves of surrogate pairs in
//! strings pass, and what follows the document too, unless that was asked for ([`Tokenizer::strict`]).

use bytes::{Buf, Bytes, BytesMut};

/// Nesting beyond this is refused; no provider comes near it.
pub(crate) const MAX_DEPTH: u32 = 64;
/// Names and scalars beyond this are none that anybody here knows; they come out empty.
const MAX_TEXT_BYTES: usize = 256;
/// A run without escapes of at least this length is worth a slice of its own; shorter ones between escapes
/// are copied together, because a PHP server escapes every slash of base64.
const WORTH_SLICING_BYTES: usize = 1024;
/// Pieces that are copied together end here.
const MAX_PIECE_BYTES: usize = 64 * 1024;

/// One step through a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// `{` or `[`.
    Begin(Container),
    /// `}` or `]`.
    End,
    /// The name of a member; its text is [`Tokenizer::text`].
    Name,
    /// A string value begins.
    StringBegin,
    /// A piece of it, never empty, escapes undone. Pieces may cut through characters.
    StringPiece(Bytes),
    /// The string value is complete.
    StringEnd,
    /// A number, `true`, `false` or `null`; [`Tokenizer::text`] says which.
    Scalar,
}

/// What holds other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
}

/// Why a document cannot be read. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    /// A byte that cannot stand where it stands.
    #[error("it is not JSON")]
    Syntax,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A byte order mark, of which so many bytes are here, or the value.
    Start(usize),
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After `{`.
    NameOrEnd,
    /// After a comma in an object.
    Name,
    Colon,
    /// After a value.
    CommaOrEnd,
    InName,
    InString,
    InScalar,
    /// The document is complete; whatever follows is ignored, or refused by who reads strictly.
    Done,
}

/// Where in an escape the string stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    Outside,
    /// After the backslash.
    Backslash,
    /// In `\uXXXX`, after so many digits that make this value.
    Unicode(u8, u16),
}

/// Reads one document. Feed it with [`Tokenizer::push`], then take tokens until there are none.
pub(crate) struct Tokenizer {
    input: Bytes,
    state: State,
    escape: Escape,
    /// The first half of a surrogate pair, waiting for the second.
    high_surrogate: Option<u16>,
    /// One bit a level, the innermost lowest: 1 is an object.
    nesting: u64,
    depth: u32,
    text: Vec<u8>,
    text_overflowed: bool,
    /// Whether it is read as `serde_json` would: nothing follows the document, and strings hold neither raw
    /// control characters nor half a surrogate pair.
    is_strict: bool,
    /// A string did.
    is_broken: bool,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl Tokenizer {
    pub(crate) fn new() -> Self {
        Self {
            input: Bytes::new(),
            state: State::Start(0),
            escape: Escape::Outside,
            high_surrogate: None,
            nesting: 0,
            depth: 0,
            text: Vec::new(),
            text_overflowed: false,
            is_strict: false,
            is_broken: false,
        }
    }

    /// One that refuses what follows the document, raw control characters and halves of surrogate pairs.
    pub(crate) fn strict() -> Self {
        Self {
            is_strict: true,
            ..Self::new()
        }
    }

    /// Gives it the next chunk. The tokens of the one before must have been taken.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.input.is_empty(), "tokens were left behind");
        self.input = chunk;
    }

    /// Whether the document is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The text of the [`Token::Name`] or [`Token::Scalar`] that was just taken; empty when it was longer
    /// than anything known here, or no text.
    pub(crate) fn text(&self) -> &str {
        if self.text_overflowed {
            return "";
        }
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The next token, or `None` when the chunk is used up.
    ///
    /// # Errors
    /// [`JsonError`]; nothing more comes after one.
    pub(crate) fn next(&mut self) -> Result<Option<Token>, JsonError> {
        loop {
            match self.state {
                State::InString => {
                    let token = self.string()?;
                    return self.sound(token);
                }
                State::InName => {
                    if self.name() {
                        self.state = State::Colon;
                        return self.sound(Some(Token::Name));
                    }
                    self.checked_escape()?;
                    return self.sound(None);
                }
                State::InScalar => {
                    if self.scalar() {
                        self.check_scalar()?;
                        self.end_value();
                        return Ok(Some(Token::Scalar));
                    }
                    return Ok(None);
                }
                State::Done => {
                    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
                    if self.is_strict && !self.input.iter().all(is_blank) {
                        return Err(JsonError::Syntax);
                    }
                    self.input.clear();
                    return Ok(None);
                }
                State::Start(seen) => {
                    let Some(&byte) = self.input.first() else {
                        return Ok(None);
                    };
                    if BYTE_ORDER_MARK.get(seen) == Some(&byte) {
                        self.input.advance(1);
                        self.state = State::Start(seen + 1);
                    } else if seen == 0 || seen == BYTE_ORDER_MARK.len() {
                        self.state = State::Value;
                    } else {
                        return Err(JsonError::Syntax);
                    }
                }
                State::Value
                | State::ValueOrEnd
                | State::NameOrEnd
                | State::Name
                | State::Colon
                | State::CommaOrEnd => {
                    let Some(&byte) = self.input.first() else {
                        return Ok(None);
                    };
                    if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                        self.input.advance(1);
                    } else if let Some(token) = self.structure(byte)? {
                        return Ok(Some(token));
                    }
                }
            }
        }
    }

    /// Takes one byte between values.
    fn structure(&mut self, byte: u8) -> Result<Option<Token>, JsonError> {
        let token = match (self.state, byte) {
            (State::Value | State::ValueOrEnd, b'{') => {
                self.begin(Container::Object)?;
                Some(Token::Begin(Container::Object))
            }
            (State::Value | State::ValueOrEnd, b'[') => {
                self.begin(Container::Array)?;
                Some(Token::Begin(Container::Array))
            }
            (State::Value | State::ValueOrEnd, b'"') => {
                self.state = State::InString;
                Some(Token::StringBegin)
            }
            (State::Value | State::ValueOrEnd, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.clear_text();
                self.state = State::InScalar;
                return Ok(None);
            }
            (State::NameOrEnd | State::Name, b'"') => {
                self.clear_text();
                self.state = State::InName;
                None
            }
            (State::Colon, b':') => {
                self.state = State::Value;
                None
            }
            (State::CommaOrEnd, b',') => {
                self.state = if self.in_object() {
                    State::Name
                } else {
                    State::Value
                };
                None
            }
            (State::NameOrEnd, b'}') | (State::ValueOrEnd, b']') => Some(self.end()),
            (State::CommaOrEnd, b'}') if self.in_object() => Some(self.end()),
            (State::CommaOrEnd, b']') if !self.in_object() => Some(self.end()),
            _ => return Err(JsonError::Syntax),
        };
        self.input.advance(1);
        Ok(token)
    }

    fn begin(&mut self, container: Container) -> Result<(), JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        self.nesting = (self.nesting << 1) | u64::from(container == Container::Object);
        self.state = match container {
            Container::Object => State::NameOrEnd,
            Container::Array => State::ValueOrEnd,
        };
        Ok(())
    }

    fn end(&mut self) -> Token {
        self.depth -= 1;
        self.nesting >>= 1;
        self.end_value();
        Token::End
    }

    fn end_value(&mut self) {
        self.state = if self.depth == 0 {
            State::Done
        } else {
            State::CommaOrEnd
        };
    }

    fn in_object(&self) -> bool {
        self.nesting & 1 == 1
    }

    /// The next piece of a string value, or its end.
    fn string(&mut self) -> Result<Option<Token>, JsonError> {
        // Stays empty, and so unallocated, where there are no escapes.
        let mut copied = BytesMut::new();
        while !self.input.is_empty() && copied.len() < MAX_PIECE_BYTES {
            if self.escape != Escape::Outside {
                self.escaped(&mut copied)?;
                continue;
            }
            let run = self.run();
            if run == 0 {
                let ends = self.input.first() == Some(&b'"');
                if self.high_surrogate.is_some() && ends {
                    self.give_up_surrogate(&mut copied);
                }
                if !ends {
                    self.input.advance(1);
                    self.escape = Escape::Backslash;
                } else if copied.is_empty() {
                    self.input.advance(1);
                    self.end_value();
                    return Ok(Some(Token::StringEnd));
                } else {
                    break;
                }
                continue;
            }
            self.give_up_surrogate(&mut copied);
            let whole = run >= WORTH_SLICING_BYTES || self.input.get(run) != Some(&b'\\');
            if copied.is_empty() && whole {
                return Ok(Some(Token::StringPiece(self.input.split_to(run))));
            }
            if run >= WORTH_SLICING_BYTES {
                break;
            }
            copied.extend_from_slice(&self.input.split_to(run));
        }
        Ok((!copied.is_empty()).then(|| Token::StringPiece(copied.freeze())))
    }

    /// Reads on in a name; true when it is complete. A broken escape shows in [`Self::checked_escape`].
    fn name(&mut self) -> bool {
        let mut piece = BytesMut::new();
        while !self.input.is_empty() {
            if self.escape != Escape::Outside {
                if self.escaped(&mut piece).is_err() {
                    return false;
                }
                continue;
            }
            let run = self.run();
            if run > 0 || self.input.first() == Some(&b'"') {
                self.give_up_surrogate(&mut piece);
            }
            self.keep_text(&piece);
            piece.clear();
            let text = self.input.split_to(run);
            self.keep_text(&text);
            match self.input.first() {
                Some(b'"') => {
                    self.input.advance(1);
                    return true;
                }
                Some(_) => {
                    self.input.advance(1);
                    self.escape = Escape::Backslash;
                }
                None => {}
            }
        }
        self.keep_text(&piece);
        false
    }

    fn checked_escape(&self) -> Result<(), JsonError> {
        // `escaped` leaves the byte it stumbled over.
        if self.input.is_empty() {
            Ok(())
        } else {
            Err(JsonError::Syntax)
        }
    }

    /// What was read of a string, unless it holds what it must not.
    fn sound(&self, token: Option<Token>) -> Result<Option<Token>, JsonError> {
        if self.is_broken && self.is_strict {
            return Err(JsonError::Syntax);
        }
        Ok(token)
    }

    /// How many bytes from here on are plain string content.
    fn run(&mut self) -> usize {
        let run = memchr::memchr2(b'"', b'\\', &self.input).unwrap_or(self.input.len());
        if self.is_strict {
            self.is_broken |= self.input[..run].iter().any(|byte| *byte < 0x20);
        }
        run
    }

    /// Takes one byte inside an escape, which must be there.
    fn escaped(&mut self, out: &mut BytesMut) -> Result<(), JsonError> {
        let Some(&byte) = self.input.first() else {
            return Ok(());
        };
        match self.escape {
            Escape::Outside => return Ok(()),
            Escape::Backslash => {
                let plain = match byte {
                    b'"' | b'\\' | b'/' => byte,
                    b'b' => 0x08,
                    b'f' => 0x0C,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'u' => {
                        self.input.advance(1);
                        self.escape = Escape::Unicode(0, 0);
                        return Ok(());
                    }
                    _ => return Err(JsonError::Syntax),
                };
                self.give_up_surrogate(out);
                out.extend_from_slice(&[plain]);
                self.escape = Escape::Outside;
            }
            Escape::Unicode(digits, value) => {
                let digit = char::from(byte).to_digit(16).ok_or(JsonError::Syntax)?;
                let value = (value << 4) | u16::try_from(digit).unwrap_or_default();
                if digits < 3 {
                    self.escape = Escape::Unicode(digits + 1, value);
                } else {
                    self.escape = Escape::Outside;
                    self.code_unit(value, out);
                }
            }
        }
        self.input.advance(1);
        Ok(())
    }

    /// Takes one UTF-16 unit of a `\u` escape.
    fn code_unit(&mut self, unit: u16, out: &mut BytesMut) {
        if let Some(high) = self.high_surrogate.take() {
            if let Some(Ok(character)) = char::decode_utf16([high, unit]).next() {
                put_char(character, out);
                return;
            }
            self.replace(out);
        }
        match char::from_u32(u32::from(unit)) {
            Some(character) => put_char(character, out),
            None if unit < 0xDC00 => self.high_surrogate = Some(unit),
            None => self.replace(out),
        }
    }

    /// What was half a surrogate pair becomes what stands for no character.
    fn replace(&mut self, out: &mut BytesMut) {
        self.is_broken = true;
        put_char(char::REPLACEMENT_CHARACTER, out);
    }

    /// The second half of a surrogate pair did not come.
    fn give_up_surrogate(&mut self, out: &mut BytesMut) {
        if self.high_surrogate.take().is_some() {
            self.replace(out);
        }
    }

    /// Reads on in a scalar; true when it is complete.
    fn scalar(&mut self) -> bool {
        let length = self
            .input
            .iter()
            .position(|byte| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'+' | b'.' | b'E'))
            .unwrap_or(self.input.len());
        let text = self.input.split_to(length);
        self.keep_text(&text);
        !self.input.is_empty()
    }

    fn check_scalar(&self) -> Result<(), JsonError> {
        let is_number = |text: &[u8]| {
            text.iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                && text.iter().any(u8::is_ascii_digit)
        };
        if matches!(&*self.text, b"true" | b"false" | b"null") || is_number(&self.text) {
            Ok(())
        } else {
            Err(JsonError::Syntax)
        }
    }

    fn clear_text(&mut self) {
        self.text.clear();
        self.text_overflowed = false;
    }

    fn keep_text(&mut self, more: &[u8]) {
        let room = MAX_TEXT_BYTES - self.text.len();
        self.text_overflowed |= more.len() > room;
        self.text.extend_from_slice(&more[..more.len().min(room)]);
    }
}

fn put_char(character: char, out: &mut BytesMut) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests;
