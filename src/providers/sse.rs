//! An incremental reader of server-sent events: chunks go in, the data of events comes out as slices.
//!
//! An event's data is a picture of many megabytes on one line, so nothing but its name is kept. Line ends of
//! all three kinds, comments, events without a name, data of several lines and fields nobody asked for are
//! read as the standard has it (WHATWG HTML, section 9.2.6, "Interpreting an event stream"), cut anywhere. It
//! knows nothing of JSON.

use bytes::{Buf, Bytes};

/// Longer names belong to events that nobody here knows; they are cut.
const MAX_NAME_BYTES: usize = 64;
/// `event` and `data` are shorter.
const MAX_FIELD_BYTES: usize = 8;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A piece of a stream of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Some of the data of an event, never empty; its lines are joined by line feeds.
    Data(Bytes),
    /// The event is complete. An event without data never comes out.
    End,
}

/// Which field a line has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Event,
    Data,
    /// `id`, `retry`, a comment, or something that is none.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a byte order mark, of which so many bytes are here, or before the first line.
    Start(usize),
    LineStart,
    FieldName,
    /// Behind the colon, where a space is no part of the value.
    ValueStart(Field),
    Value(Field),
}

/// Reads one stream. Feed it with [`SseReader::push`], then take pieces until there are none.
pub(super) struct SseReader {
    input: Bytes,
    place: Place,
    /// The beginning of the field's name.
    field: Vec<u8>,
    name: Vec<u8>,
    has_data: bool,
    has_ended: bool,
    /// A line feed that comes now belongs to the carriage return before it.
    after_carriage_return: bool,
}

impl SseReader {
    pub(super) fn new() -> Self {
        Self {
            input: Bytes::new(),
            place: Place::Start(0),
            field: Vec::new(),
            name: Vec::new(),
            has_data: false,
            has_ended: false,
            after_carriage_return: false,
        }
    }

    /// Gives it the next chunk. The pieces of the one before must have been taken.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.input.is_empty(), "pieces were left behind");
        self.input = chunk;
    }

    /// The name of the event whose data comes, as far as it has been said; of the one that has just ended
    /// after [`Piece::End`]. Empty when it has none.
    pub(super) fn event(&self) -> &str {
        std::str::from_utf8(&self.name).unwrap_or("?")
    }

    /// The next piece, or `None` when the chunk is used up.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if self.has_ended {
            self.has_ended = false;
            self.forget_event();
        }
        loop {
            let byte = *self.input.first()?;
            let ends_line = matches!(byte, b'\r' | b'\n');
            match self.place {
                Place::Start(seen) => {
                    if BYTE_ORDER_MARK.get(seen) == Some(&byte) {
                        self.input.advance(1);
                        self.place = match seen {
                            0 | 1 => Place::Start(seen + 1),
                            _ => Place::LineStart,
                        };
                    } else if seen == 0 {
                        self.place = Place::LineStart;
                    } else {
                        // Half a mark: the beginning of some name.
                        self.field = b"?".to_vec();
                        self.place = Place::FieldName;
                    }
                }
                Place::LineStart => {
                    if std::mem::take(&mut self.after_carriage_return) && byte == b'\n' {
                        self.input.advance(1);
                    } else if !ends_line {
                        self.field.clear();
                        self.place = Place::FieldName;
                    } else {
                        self.end_line(byte);
                        if self.has_data {
                            self.has_ended = true;
                            return Some(Piece::End);
                        }
                        self.forget_event();
                    }
                }
                Place::FieldName => {
                    let run = memchr::memchr3(b':', b'\r', b'\n', &self.input);
                    let text = self.input.split_to(run.unwrap_or(self.input.len()));
                    let room = MAX_FIELD_BYTES - self.field.len();
                    self.field.extend_from_slice(&text[..text.len().min(room)]);
                    let &end = self.input.first()?;
                    let field = self.known_field();
                    if end == b':' {
                        self.input.advance(1);
                        self.place = Place::ValueStart(field);
                    } else {
                        self.place = Place::Value(field);
                    }
                    if let Some(piece) = self.begin_value(field) {
                        return Some(piece);
                    }
                }
                Place::ValueStart(field) => {
                    if byte == b' ' {
                        self.input.advance(1);
                    }
                    self.place = Place::Value(field);
                }
                Place::Value(_) if ends_line => self.end_line(byte),
                Place::Value(field) => {
                    let run = memchr::memchr2(b'\r', b'\n', &self.input);
                    let text = self.input.split_to(run.unwrap_or(self.input.len()));
                    match field {
                        Field::Data => return Some(Piece::Data(text)),
                        Field::Event => {
                            let room = MAX_NAME_BYTES - self.name.len();
                            self.name.extend_from_slice(&text[..text.len().min(room)]);
                        }
                        Field::Other => {}
                    }
                }
            }
        }
    }

    /// At the end of the stream: the last event ends although no empty line followed it.
    pub(super) fn finish(&mut self) -> Option<Piece> {
        let is_open = self.has_data && !self.has_ended;
        self.has_ended = is_open;
        is_open.then_some(Piece::End)
    }

    fn known_field(&self) -> Field {
        match &*self.field {
            b"data" => Field::Data,
            b"event" => Field::Event,
            _ => Field::Other,
        }
    }

    fn begin_value(&mut self, field: Field) -> Option<Piece> {
        match field {
            Field::Data => std::mem::replace(&mut self.has_data, true)
                .then(|| Piece::Data(Bytes::from_static(b"\n"))),
            Field::Event => {
                self.name.clear();
                None
            }
            Field::Other => None,
        }
    }

    fn end_line(&mut self, end: u8) {
        self.input.advance(1);
        self.after_carriage_return = end == b'\r';
        self.place = Place::LineStart;
    }

    fn forget_event(&mut self) {
        self.name.clear();
        self.has_data = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Name and data of each event, pieces joined; the last one with the end of the stream.
    fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String)> {
        let mut reader = SseReader::new();
        let mut events = Vec::new();
        let mut data = Vec::new();
        let mut take = |reader: &SseReader, piece: Piece| match piece {
            Piece::Data(piece) => {
                assert!(!piece.is_empty());
                data.extend_from_slice(&piece);
            }
            Piece::End => {
                let data = String::from_utf8_lossy(&std::mem::take(&mut data)).into_owned();
                events.push((reader.event().to_owned(), data));
            }
        };
        for chunk in chunks {
            reader.push(Bytes::copy_from_slice(chunk));
            while let Some(piece) = reader.next() {
                take(&reader, piece);
            }
        }
        if let Some(piece) = reader.finish() {
            take(&reader, piece);
        }
        assert_eq!(reader.finish(), None);
        events
    }

    #[test]
    fn streams_are_read_as_the_standard_has_it() {
        for (stream, expected) in [
            ("data: x\n\n", &[("", "x")][..]),
            (
                "event: a\ndata: x\n\nevent: b\ndata: y\n\n",
                &[("a", "x"), ("b", "y")],
            ),
            ("event: a\ndata: x\n\ndata: y\n\n", &[("a", "x"), ("", "y")]),
            ("data: x\nevent: late\n\n", &[("late", "x")]),
            ("event: a\nevent: b\ndata: x\n\n", &[("b", "x")]),
            ("data:x\n\n", &[("", "x")]),
            ("data:  x \n\n", &[("", " x ")]),
            (
                "data: one\ndata: two\ndata\ndata:\n\n",
                &[("", "one\ntwo\n\n")],
            ),
            ("data\n\n", &[("", "")]),
            (": comment\n\n:\n\ndata: x\n: another\n\n", &[("", "x")]),
            ("event: ping\n\ndata: x\n\n", &[("", "x")]),
            (
                "id: 7\nretry: 10\nDATA: no\ndatas: no\n\ndata: x\n\n",
                &[("", "x")],
            ),
            ("\u{FEFF}data: x\n\n", &[("", "x")]),
            ("\u{FEFE}data: no\n\ndata: x\n\n", &[("", "x")]),
            ("\n\n\ndata: x\n\n\n\n", &[("", "x")]),
            ("data: x:y\n\n", &[("", "x:y")]),
            ("data: the last", &[("", "the last")]),
            ("event: a\ndata: the last\n", &[("a", "the last")]),
            ("event: nothing", &[]),
            ("", &[]),
        ] {
            let expected = expected
                .iter()
                .map(|(name, data)| ((*name).to_owned(), (*data).to_owned()))
                .collect::<Vec<_>>();
            for line_end in ["\n", "\r\n", "\r"] {
                let stream = stream.replace('\n', line_end);
                assert_eq!(read([stream.as_bytes()]), expected, "{stream:?}");
                assert_eq!(
                    read(stream.as_bytes().chunks(1)),
                    expected,
                    "{stream:?}, byte by byte"
                );
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "x".repeat(1 << 20);
        let mut reader = SseReader::new();
        for text in [&*long, "\nevent: ", &long, "\ndata: ", &long] {
            reader.push(Bytes::from(text.to_owned()));
            while reader.next().is_some() {}
        }
        assert_eq!(reader.event().len(), MAX_NAME_BYTES);
        assert!(reader.field.capacity() + reader.name.capacity() < 1024);
    }

    #[test]
    fn data_is_a_slice_of_its_chunk() {
        let stream = Bytes::from(format!("data: {}\n\n", "A".repeat(100_000)));
        let mut reader = SseReader::new();
        reader.push(stream.clone());
        let Some(Piece::Data(data)) = reader.next() else {
            panic!("data comes first");
        };
        assert_eq!((data.len(), data.as_ptr()), (100_000, stream[6..].as_ptr()));
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same(
            lines in prop::collection::vec(
                ("(data|event|id||x)", "(: ?|)", "[ -~é]{0,8}", "(\n|\r|\r\n)(\n|)"), 0..20,
            ),
            cuts in prop::collection::vec(1_usize..7, 1..20),
        ) {
            let parts = lines.iter().flat_map(|(field, colon, value, end)| [field, colon, value, end]);
            let stream = parts.map(String::as_str).collect::<String>();
            let mut rest = stream.as_bytes();
            let mut chunks = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            prop_assert_eq!(read(chunks), read([stream.as_bytes()]));
        }
    }
}
