use proptest::prelude::*;

use super::*;

/// The tokens of a document in a plain notation, pieces of one string joined.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<(String, bool), JsonError> {
    let mut tokenizer = Tokenizer::new();
    let mut seen = String::new();
    let mut string = Vec::new();
    for chunk in chunks {
        tokenizer.push(Bytes::copy_from_slice(chunk));
        while let Some(token) = tokenizer.next()? {
            match token {
                Token::Begin(Container::Object) => seen.push('{'),
                Token::Begin(Container::Array) => seen.push('['),
                Token::End => seen.push('^'),
                Token::Name => {
                    seen.push_str(tokenizer.text());
                    seen.push('=');
                }
                Token::StringBegin => seen.push('<'),
                Token::StringPiece(piece) => {
                    assert!(!piece.is_empty());
                    string.extend_from_slice(&piece);
                }
                Token::StringEnd => {
                    seen.push_str(&String::from_utf8_lossy(&string));
                    seen.push('>');
                    string.clear();
                }
                Token::Scalar => {
                    seen.push_str(tokenizer.text());
                    seen.push(';');
                }
            }
        }
    }
    Ok((seen, tokenizer.is_done()))
}

fn check(document: &str, expected: Result<&str, JsonError>) {
    let expected = expected.map(|seen| (seen.to_owned(), true));
    assert_eq!(read([document.as_bytes()]), expected, "{document}");
    assert_eq!(
        read(document.as_bytes().chunks(1)),
        expected,
        "{document}, byte by byte"
    );
}

#[test]
fn documents_are_walked() {
    for (document, expected) in [
        ("{}", "{^"),
        (" [ ] ", "[^"),
        ("\u{FEFF}{\"a\":1}", "{a=1;^"),
        (
            r#"{"a":"x","b":[1,-2.5e3,true,null,""],"c":{}}"#,
            "{a=<x>b=[1;-2.5e3;true;null;<>^c={^^",
        ),
        (r#"["\/\"\\\b\f\n\r\t"]"#, "[</\"\\\u{8}\u{c}\n\r\t>^"),
        (
            r#"["\u002b\u00e9\uD83D\uDE00 \uD83D x \uDE00 \uD83D\n\uD83D"]"#,
            "[<+é😀 \u{FFFD} x \u{FFFD} \u{FFFD}\n\u{FFFD}>^",
        ),
        (r#"["\uD83D\uD83D\uDE00"]"#, "[<\u{FFFD}😀>^"),
        (r#"{"b64\u005fjson":"a"}"#, "{b64_json=<a>^"),
        (
            r#"{"\uD83D":1,"\uD83Dx\uD83D\uDE00":2}"#,
            "{\u{FFFD}=1;\u{FFFD}x😀=2;^",
        ),
        ("[\"raw\nline\"]", "[<raw\nline>^"),
        ("{} trailing garbage", "{^"),
        (r#"{"a":1,"a":2}"#, "{a=1;a=2;^"),
    ] {
        check(document, Ok(expected));
    }
}

#[test]
fn what_follows_is_refused_by_the_strict() {
    for (first, second, expected) in [
        ("{}", " \n", Ok(None)),
        ("{}x", "", Err(JsonError::Syntax)),
        ("{}", "{}", Err(JsonError::Syntax)),
    ] {
        let mut tokenizer = Tokenizer::strict();
        let mut end = Ok(None);
        for chunk in [first, second] {
            tokenizer.push(Bytes::from(chunk));
            while let Ok(Some(_)) = {
                end = tokenizer.next();
                &end
            } {}
            if end.is_err() {
                break;
            }
        }
        assert_eq!(end, expected, "{first}{second}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    for document in [
        "<html>",
        "hello",
        "{a:1}",
        "{\"a\" 1}",
        "{\"a\":1,}",
        "[1,]",
        "[1 2]",
        "[1}",
        "{\"a\"]",
        "{,}",
        "[,]",
        "[tru]",
        "[truee]",
        "[--]",
        "[\"\\x\"]",
        "[\"\\u12g4\"]",
        "{\"\\x\":1}",
        "\u{FEFE}{}",
        "[nul1]",
        "]",
        "}",
    ] {
        check(document, Err(JsonError::Syntax));
    }
    check(&"[".repeat(65), Err(JsonError::TooDeep));
    let deepest = format!("{}{}", "[".repeat(64), "]".repeat(64));
    check(
        &deepest,
        Ok(&format!("{}{}", "[".repeat(64), "^".repeat(64))),
    );
}

#[test]
fn an_unfinished_document_is_not_done() {
    for document in [
        "",
        " ",
        "{",
        "{\"a",
        "{\"a\":",
        "[\"x",
        "[\"\\u12",
        "[12",
        "[1",
        "{\"a\":{}",
    ] {
        let (_, done) = read([document.as_bytes()]).unwrap();
        assert!(!done, "{document}");
    }
}

#[test]
fn names_and_scalars_are_capped() {
    let long = "1".repeat(100_000);
    let mut tokenizer = Tokenizer::new();
    tokenizer.push(Bytes::from(format!("{{\"{long}\":{long}}}")));
    assert_eq!(tokenizer.next(), Ok(Some(Token::Begin(Container::Object))));
    assert_eq!(tokenizer.next(), Ok(Some(Token::Name)));
    assert_eq!(tokenizer.text(), "");
    assert_eq!(tokenizer.next(), Ok(Some(Token::Scalar)));
    assert_eq!(tokenizer.text(), "");
    assert!(tokenizer.text.capacity() <= 2 * MAX_TEXT_BYTES);
}

#[test]
fn a_plain_string_is_a_slice_of_its_chunk() {
    let document = Bytes::from(format!("[\"{}\"]", "A".repeat(100_000)));
    let mut tokenizer = Tokenizer::new();
    tokenizer.push(document.clone());
    let pieces = std::iter::from_fn(|| tokenizer.next().unwrap())
        .filter_map(|token| match token {
            Token::StringPiece(piece) => Some(piece),
            _ => None,
        })
        .collect::<Vec<_>>();
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].as_ptr(), document[2..].as_ptr());
}

#[test]
fn many_escapes_come_out_in_few_pieces() {
    let document = format!("[\"{}\"]", "AAAA\\/".repeat(10_000));
    let mut tokenizer = Tokenizer::new();
    tokenizer.push(Bytes::from(document));
    let pieces = std::iter::from_fn(|| tokenizer.next().unwrap())
        .filter(|token| matches!(token, Token::StringPiece(_)))
        .count();
    assert!(pieces <= 2, "{pieces}");
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The notation of [`read`], from the tree.
fn notation(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Object(members) => {
            out.push('{');
            for (name, member) in members {
                out.push_str(name);
                out.push('=');
                notation(member, out);
            }
            out.push('^');
        }
        serde_json::Value::Array(values) => {
            out.push('[');
            for value in values {
                notation(value, out);
            }
            out.push('^');
        }
        serde_json::Value::String(text) => {
            out.push('<');
            out.push_str(text);
            out.push('>');
        }
        scalar => {
            out.push_str(&scalar.to_string());
            out.push(';');
        }
    }
}

/// What strings are made of, good and bad.
const PARTS: [&str; 12] = [
    "a", "é", "\\n", "\n", "\u{1f}", "\u{7f}", "\\u0000", "\\uD83D", "\\uDE00", "\\u00e9", "\\/",
    "\\x",
];

fn takes_strictly<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut tokenizer = Tokenizer::strict();
    for chunk in chunks {
        tokenizer.push(Bytes::copy_from_slice(chunk));
        loop {
            match tokenizer.next() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    tokenizer.is_done()
}

proptest! {
    #[test]
    fn it_reads_what_serde_writes_in_any_chunks(
        value in json(), pretty: bool, cuts in prop::collection::vec(1_usize..9, 1..40),
    ) {
        let document = serde_json::Value::Array(vec![value]);
        let text = if pretty {
            serde_json::to_string_pretty(&document).unwrap()
        } else {
            document.to_string()
        };
        let mut expected = String::new();
        notation(&document, &mut expected);
        let mut rest = text.as_bytes();
        let mut chunks = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        prop_assert_eq!(read(chunks), Ok((expected, true)));
    }

    #[test]
    fn strictly_it_takes_what_serde_takes(
        in_string in prop::collection::vec(0_usize..PARTS.len(), 0..6),
        in_name in prop::collection::vec(0_usize..PARTS.len(), 0..4),
        cut in 1_usize..7,
    ) {
        let join = |parts: &[usize]| -> String { parts.iter().map(|part| PARTS[*part]).collect() };
        let document = format!("[\"{}\",{{\"{}\":0}}]", join(&in_string), join(&in_name));
        let expected = serde_json::from_str::<serde_json::Value>(&document).is_ok();
        prop_assert_eq!(takes_strictly([document.as_bytes()]), expected, "{}", document);
        prop_assert_eq!(takes_strictly(document.as_bytes().chunks(cut)), expected, "{}", document);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes: Vec<u8>, cut in 1_usize..5) {
        let whole = read([&*bytes]);
        prop_assert_eq!(read(bytes.chunks(cut)).map_err(|_| ()), whole.map_err(|_| ()));
    }
}
