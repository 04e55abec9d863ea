//! Answers and errors as files, what we make of them as snapshots beside them, and the promise that it does
//! not matter how the network cuts them.

use std::{fmt::Write as _, num::NonZeroU8};

use bytes::Bytes;
use proptest::prelude::*;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    answer::{AnswerError, AnswerReader, Event, Outcome},
    error::ErrorBody,
    request::{Endpoint, Saying},
    stream::StreamReader,
};
use crate::{
    catalog::{Catalog, ImageRequest, Translation, Unsupported},
    providers::{
        PictureEvent, ProviderError,
        json::MAX_DEPTH,
        testing::goldens::{fixtures, params, snapshot},
    },
};

/// Small, so that the test of the cap is quick.
const MAX_EVENT_BYTES: u64 = 256 * 1024;
const PROMPT: &str = "An otter that reads the evening newspaper aloud";

/// What came out of an answer, whatever the pieces it came in.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, n: u8) -> Value {
    let mut reader = AnswerReader::new(NonZeroU8::new(n).unwrap());
    let mut seen = Seen::default();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        if !seen.take(|| reader.next()) {
            break;
        }
    }
    let done = reader.is_done();
    seen.shown(done, &reader.finish())
}

/// The same of a stream.
fn read_stream<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, n: u8, drafts: u8) -> Value {
    let mut reader = StreamReader::new(NonZeroU8::new(n).unwrap(), drafts, MAX_EVENT_BYTES);
    let mut seen = Seen::default();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        if !seen.take(|| reader.next()) || reader.is_done() {
            break;
        }
    }
    if seen.failure.is_none() {
        seen.failure = reader.end().err().map(|error| error.to_string());
        seen.take(|| reader.next());
    }
    let done = reader.is_done();
    seen.shown(done, &reader.finish())
}

/// Events in a notation for people.
#[derive(Default)]
struct Seen {
    pictures: Vec<Value>,
    open: Option<(String, Vec<u8>)>,
    failure: Option<String>,
}

impl Seen {
    /// Takes what there is; false at an error.
    fn take(&mut self, mut next: impl FnMut() -> Result<Option<Event>, AnswerError>) -> bool {
        loop {
            match next() {
                Ok(Some(Event::Picture(event))) => self.event(event),
                Ok(Some(Event::Link(link))) => self.pictures.push(json!({ "Link": link })),
                Ok(None) => return true,
                Err(error) => {
                    self.failure = Some(error.to_string());
                    return false;
                }
            }
        }
    }

    fn event(&mut self, event: PictureEvent) {
        let name = match event {
            PictureEvent::Data(data) => {
                assert!(!data.is_empty());
                self.open.as_mut().unwrap().1.extend_from_slice(&data);
                return;
            }
            PictureEvent::End => {
                let (name, content) = self.open.take().unwrap();
                self.pictures
                    .push(json!({ name: String::from_utf8_lossy(&content) }));
                return;
            }
            PictureEvent::Abandon => {
                let (name, _) = self.open.take().unwrap();
                assert!(name.starts_with("Perhaps"), "nothing else is abandoned");
                self.pictures.push(json!({ "Abandoned": name }));
                return;
            }
            PictureEvent::About(about) => {
                self.pictures.push(json!({ "About": format!("{about:?}") }));
                return;
            }
            PictureEvent::Begin(encoding) => format!("{encoding:?}"),
            PictureEvent::Perhaps(encoding) => format!("Perhaps {encoding:?}"),
            PictureEvent::Draft { index, encoding } => format!("Draft {index} {encoding:?}"),
        };
        assert!(self.open.is_none(), "pictures are not interleaved");
        self.open = Some((name, Vec::new()));
    }

    fn shown(self, done: bool, outcome: &Outcome) -> Value {
        json!({
            "pictures": self.pictures,
            "torso": self.open.map(|(name, _)| name),
            "failure": self.failure,
            "done": done,
            "report": format!("{:?}", outcome.report),
            "errors": outcome.errors.iter().map(|error| format!("{error:?}")).collect::<Vec<_>>(),
        })
    }
}

/// Cuts a text into pieces of these sizes, over and over.
fn cut<'a>(mut rest: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

/// The request that goes out for what a client wrote, with the model's own rules and route.
fn translate(catalog: &Catalog, written: &Value) -> Value {
    let model = catalog.find(written["model"].as_str().unwrap()).unwrap();
    let (request, _) = model
        .rules
        .check(&params(written), Unsupported::Reject)
        .unwrap_or_else(|violation| panic!("{written}: {violation:?}"));
    let route = &model.routes[0];
    let saying = saying(&request, &route.upstream_model, &route.translation);
    saying.members().unwrap().into()
}

fn saying<'a>(
    request: &'a ImageRequest,
    upstream_model: &'a str,
    translation: &'a Translation,
) -> Saying<'a> {
    Saying {
        endpoint: Endpoint::Generations,
        request,
        n: request.n,
        upstream_model,
        translation,
        stream: request.stream,
    }
}

#[test]
fn requests_become_openai_s() {
    let catalog = Catalog::load(None).unwrap();
    let requests = fixtures("openai", "requests")
        .into_iter()
        .map(|(name, written)| {
            let written = serde_json::from_slice::<Value>(&written).unwrap();
            (name, translate(&catalog, &written))
        })
        .collect();
    snapshot("openai", "requests", &Value::Object(requests));
}

#[test]
fn a_translation_changes_names_words_and_sizes() {
    let catalog = Catalog::load(None).unwrap();
    let written = json!({
        "model": "gpt-image-2", "prompt": "An otter", "size": "1536x1024", "quality": "high",
        "output_format": "jpeg", "output_compression": 80, "user": "u-1",
    });
    let rules = &catalog.find("gpt-image-2").unwrap().rules;
    let (request, _) = rules.check(&params(&written), Unsupported::Reject).unwrap();
    let translation = |toml: &str| toml::from_str::<Translation>(toml).unwrap();
    let says = |toml: &str| {
        let translation = translation(toml);
        let saying = saying(&request, "painter-1", &translation);
        Value::Object(saying.members().unwrap())
    };
    assert_eq!(
        says(
            r#"
            response_format = "url"
            names = { output_format = "format", user = "end_user" }
            words = { quality = { high = "hq" }, output_format = { jpeg = "jpg" } }
            size = { table = [["1536x1024", { aspect_ratio = "3:2", megapixels = 1.5 }]] }
            fixed = { safe = true, quality_preset = "none" }
            "#
        ),
        json!({
            "model": "painter-1", "prompt": "An otter", "n": 1, "response_format": "url",
            "format": "jpg", "end_user": "u-1", "quality": "hq", "output_compression": 80,
            "aspect_ratio": "3:2", "megapixels": 1.5, "safe": true, "quality_preset": "none",
        })
    );
    let unsayable = translation(r#"size = { table = [["1024x1024", { aspect_ratio = "1:1" }]] }"#);
    let saying = saying(&request, "painter-1", &unsayable);
    let error = saying.members().unwrap_err();
    assert_eq!(
        error.message,
        "size 1536x1024 cannot be asked of this provider"
    );
    assert_eq!(error.param.as_deref(), Some("size"));
}

#[test]
fn answers_become_pictures_and_reports() {
    let answers = fixtures("openai", "answers")
        .into_iter()
        .map(|(name, answer)| {
            let outcome = read([&*answer], 6);
            assert_eq!(read(answer.chunks(1), 6), outcome, "{name}, byte by byte");
            (name, outcome)
        })
        .collect();
    snapshot("openai", "answers", &Value::Object(answers));
}

#[test]
fn streams_become_pictures_and_reports() {
    let streams = fixtures("openai", "streams")
        .into_iter()
        .map(|(name, stream)| {
            // The name begins with how many pictures were asked for.
            let n = name.split('_').next().unwrap().parse().unwrap();
            let outcome = read_stream([&*stream], n, 3 * n);
            let bytes = read_stream(stream.chunks(1), n, 3 * n);
            assert_eq!(bytes, outcome, "{name}, byte by byte");
            for line_end in ["\r\n", "\r"] {
                let text = String::from_utf8(stream.clone()).unwrap();
                let text = text.replace('\n', line_end);
                let other = read_stream(text.as_bytes().chunks(7), n, 3 * n);
                assert_eq!(other, outcome, "{name} with {line_end:?}");
            }
            (name, outcome)
        })
        .collect();
    snapshot("openai", "streams", &Value::Object(streams));
}

#[test]
fn drafts_that_nobody_asked_for_are_left_out() {
    let draft =
        r#"{"type":"image_generation.partial_image","b64_json":"AAAA","partial_image_index":0}"#;
    let last = r#"{"type":"image_generation.completed","b64_json":"BBBB"}"#;
    let stream = format!(
        "{}data: {last}\n\n",
        format!("data: {draft}\n\n").repeat(300)
    );
    for drafts in [0, 1, 255] {
        let outcome = read_stream([stream.as_bytes()], 1, drafts);
        let pictures = outcome["pictures"].as_array().unwrap();
        let is_draft = |picture: &&Value| {
            picture
                .as_object()
                .unwrap()
                .keys()
                .any(|key| key.starts_with("Draft"))
        };
        assert_eq!(
            pictures.iter().filter(is_draft).count(),
            usize::from(drafts)
        );
        assert_eq!(pictures.last(), Some(&json!({ "Base64": "BBBB" })));
        assert_eq!(outcome["done"], true);
    }
}

#[test]
fn hostile_streams_stay_small() {
    let megabyte = "x".repeat(1 << 20);
    for beginning in [
        "data: {\"type\":\"image_generation.completed\",\"b64_json\":\"",
        "data: {\"b64_json\":\"",
        "data: {\"x\":\"",
        "data: ",
        "event: error\ndata: ",
    ] {
        let stream = format!("{beginning}{megabyte}");
        let outcome = read_stream(stream.as_bytes().chunks(4096), 1, 3);
        assert_eq!(
            outcome["failure"], "it has an event that is larger than a picture may be",
            "{beginning}"
        );
        assert_eq!(outcome["done"], false);
    }
    // What is no data counts against the whole body only, and leaves nothing behind.
    let stream = format!(": {megabyte}\nevent: {megabyte}\nid: {megabyte}\n\ndata: [DONE]\n\n");
    let outcome = read_stream(stream.as_bytes().chunks(4096), 1, 3);
    assert_eq!(outcome["done"], true);
    // Errors are kept up to the number of pictures.
    let error = "data: {\"error\":{\"code\":\"x\"}}\n\n".repeat(1000);
    let outcome = read_stream([error.as_bytes()], 3, 0);
    assert_eq!(outcome["errors"].as_array().unwrap().len(), 3);
    assert_eq!(outcome["done"], true);
}

/// The error of a file whose name begins with its status.
fn error_of(name: &str, body: &[u8]) -> ProviderError {
    let status = name.split('_').next().unwrap().parse().unwrap();
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    ErrorBody::read(body).into_error(status, &HeaderMap::new(), PROMPT, now)
}

#[test]
fn errors_become_kinds() {
    let errors = fixtures("openai", "errors")
        .into_iter()
        .map(|(name, body)| {
            let error = error_of(&name, &body);
            let shown = format!("{error:?}");
            for secret in [PROMPT, "newspaper", "org-abc", "SJh4", "cloudflare"] {
                assert!(!shown.contains(secret), "{name} shows {secret}: {shown}");
            }
            let value = json!({
                "kind": format!("{:?}", error.kind),
                "message": error.message,
                "code": error.code,
                "type": error.error_type,
                "param": error.param,
                "status": error.upstream_status,
                "maybe_charged": error.maybe_charged,
            });
            (name, value)
        })
        .collect();
    snapshot("openai", "errors", &Value::Object(errors));
}

#[test]
fn a_message_that_quotes_the_prompt_is_replaced() {
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    for (message, prompt, passes) in [
        ("Invalid size.", "a", true),
        ("'a' is too short - 'prompt'", "a", false),
        ("the word \"cat\" is not allowed", "cat", false),
        ("the category is not allowed", "cat", true),
        ("a purple cat is not allowed", "a purple cat", false),
        ("too long: An otter that reads the evening…", PROMPT, false),
        ("the evening is too long", PROMPT, true),
        (
            "Größe: ein großer, sehr müder Bär ist zu groß",
            "Ein großer, sehr müder Bär ist traurig",
            false,
        ),
    ] {
        let body = json!({ "error": { "message": message } }).to_string();
        let error =
            ErrorBody::read(body.as_bytes()).into_error(400, &HeaderMap::new(), prompt, now);
        assert_eq!(error.message == message, passes, "{message}");
    }
    let long = json!({ "error": { "message": "x".repeat(100_000) } }).to_string();
    let error = ErrorBody::read(long.as_bytes()).into_error(400, &HeaderMap::new(), PROMPT, now);
    assert_eq!(error.message.len(), 1000);
}

#[test]
fn what_is_no_answer_is_said() {
    for (answer, failure) in [
        ("<html>", Some("it is not JSON")),
        ("[]", Some("it is not an object")),
        ("\"text\"", Some("it is not an object")),
        (
            r#"{"data":[{"b64_json":"data:image/svg+xml,<svg"}]}"#,
            Some("it has a data URL that is not base64"),
        ),
        (
            r#"{"data":[{"url":"data:image/png;base64"}]}"#,
            Some("it has a data URL that is not base64"),
        ),
        (r#"{"data":[{"b64_json":"AAAA"#, None),
    ] {
        for outcome in [
            read([answer.as_bytes()], 1),
            read(answer.as_bytes().chunks(1), 1),
        ] {
            assert_eq!(outcome["failure"].as_str(), failure, "{answer}");
            assert_eq!(outcome["done"], false, "{answer}");
        }
    }
}

#[test]
fn hostile_answers_stay_small() {
    let megabytes = "x".repeat(1 << 20);
    let deep = |depth: u32| {
        let brackets = usize::try_from(depth).unwrap();
        format!("{{\"a\":{}{}}}", "[".repeat(brackets), "]".repeat(brackets))
    };
    assert_eq!(read([deep(MAX_DEPTH - 1).as_bytes()], 1)["done"], true);
    assert_eq!(
        read([deep(MAX_DEPTH).as_bytes()], 1)["failure"],
        "it is nested deeper than 64 levels"
    );
    // Nothing but pictures may be long: what is kept of the rest is bounded.
    let answer = format!(
        r#"{{"{megabytes}":1,"size":"{megabytes}","created":{},"error":{{"message":"{megabytes}","code":"{megabytes}"}},
            "data":[{{"revised_prompt":"{megabytes}","url":"https://a/{megabytes}"}}]}}"#,
        "1".repeat(1 << 20),
    );
    let outcome = read(answer.as_bytes().chunks(4096), 1);
    assert_eq!(outcome["done"], true);
    assert_eq!(outcome["pictures"], json!([{ "Link": "" }]));
    assert!(outcome.to_string().len() < 20_000);
    // Elements beyond the number asked for are counted, no more.
    let many = format!(
        "{{\"data\":[{}{{}}]}}",
        r#"{"b64_json":"AAAA","revised_prompt":"p"},"#.repeat(10_000)
    );
    let outcome = read([many.as_bytes()], 2);
    // Each with what is said of it.
    assert_eq!(outcome["pictures"].as_array().unwrap().len(), 2 * 2);
    let report = outcome["report"].as_str().unwrap();
    assert!(report.contains("announced: 10000"), "{report}");
    assert!(report.len() < 1000, "{report}");
}

/// A string's JSON with some of its characters escaped that need not be.
fn escaped(text: &str, escapes: &[u8]) -> String {
    let mut out = String::from("\"");
    for (character, choice) in text.chars().zip(escapes.iter().cycle()) {
        match (choice % 7, character) {
            (0, '/') => out.push_str("\\/"),
            (1, character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04X}").unwrap();
                }
            }
            (_, '"' | '\\') => {
                out.push('\\');
                out.push(character);
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

prop_compose! {
    fn item()(
        picture in "[A-Za-z0-9+/]{1,60}={0,2}",
        prompt in prop::option::of("\\PC{0,20}"),
        shape in 0_u8..5,
        escapes in prop::collection::vec(any::<u8>(), 1..20),
    ) -> (String, Option<String>) {
        let content = match shape {
            0 => format!("data:image/png;base64,{picture}"),
            _ => picture.clone(),
        };
        let prompt = prompt
            .map_or("null".to_owned(), |prompt| escaped(&prompt, &escapes));
        let value = escaped(&content, &escapes);
        let json = match shape {
            1 => format!(r#"{{"url":{value},"b64_json":null,"revised_prompt":{prompt}}}"#),
            2 => format!(r#"{{"revised_prompt":{prompt},"x":[1,{{}}],"b64_json":{value}}}"#),
            _ => format!(r#"{{ "b64_json" : {value} , "url" : "" }}"#),
        };
        let expected = if shape == 1 { format!("Link {picture}") } else { format!("Base64 {picture}") };
        (json, Some(expected))
    }
}

prop_compose! {
    /// An event of a stream, and what should come of it.
    fn event()(
        picture in "[A-Za-z0-9+/]{1,60}={0,2}",
        escapes in prop::collection::vec(any::<u8>(), 1..20),
        shape in 0_u8..7,
        line_end in "(\n|\r|\r\n)",
        pretty: bool,
    ) -> (String, Option<String>) {
        let value = escaped(&picture, &escapes);
        let finished = "image_generation.completed";
        let (name, json, expected) = match shape {
            0 => (finished, format!(r#"{{"b64_json":{value}}}"#), Some(format!("Base64 {picture}"))),
            1 => ("", format!(r#"{{"type":"{finished}","b64_json":{value}}}"#), Some(format!("Base64 {picture}"))),
            2 => ("", format!(r#"{{"b64_json":{value},"type":"{finished}"}}"#), Some(format!("Perhaps Base64 {picture}"))),
            3 => ("image_edit.partial_image", format!(r#"{{"b64_json":{value},"partial_image_index":2}}"#), Some("Draft".to_owned())),
            4 => ("ping", format!(r#"{{"b64_json":{value}}}"#), None),
            5 => ("ping", format!("{{{value}"), None),
            _ => ("", "keep alive".to_owned(), None),
        };
        let json = if pretty { json.replace("\":", "\":\n ") } else { json };
        let mut frame = format!(": comment\nevent: {name}\nid: 1\n");
        for line in json.lines() {
            writeln!(frame, "data: {line}").unwrap();
        }
        frame.push('\n');
        (frame.replace('\n', &line_end), expected)
    }
}

proptest! {
    #[test]
    fn any_cutting_of_a_stream_gives_the_same(
        events in prop::collection::vec(event(), 1..8),
        cuts in prop::collection::vec(1_usize..50, 1..30),
    ) {
        let stream: String = events.iter().map(|(frame, _)| frame.as_str()).collect();
        let whole = read_stream([stream.as_bytes()], 10, 100);
        let seen = whole["pictures"].as_array().unwrap().iter()
            .filter_map(|picture| {
                let (kind, content) = picture.as_object().unwrap().iter().next().unwrap();
                match kind.as_str() {
                    "About" => None,
                    draft if draft.starts_with("Draft") => Some("Draft".to_owned()),
                    kind => Some(format!("{kind} {}", content.as_str().unwrap())),
                }
            })
            .collect::<Vec<_>>();
        let expected = events.into_iter().filter_map(|(_, expected)| expected).collect::<Vec<_>>();
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(&whole["failure"], &Value::Null);
        prop_assert_eq!(read_stream(cut(stream.as_bytes(), &cuts), 10, 100), whole);
    }

    #[test]
    fn any_cutting_gives_the_same(
        items in prop::collection::vec(item(), 1..5),
        usage_first: bool,
        cuts in prop::collection::vec(1_usize..50, 1..30),
    ) {
        let data = items.iter().map(|(json, _)| json.as_str()).collect::<Vec<_>>().join(",");
        let usage = r#""usage":{"input_tokens":9,"output_tokens":272}"#;
        let answer = if usage_first {
            format!("{{{usage},\"data\":[{data}]}}")
        } else {
            format!("{{\"data\":[{data}],{usage}}}")
        };
        let whole = read([answer.as_bytes()], 10);
        let seen = whole["pictures"].as_array().unwrap().iter()
            .filter(|picture| picture.get("About").is_none())
            .map(|picture| {
                let (kind, content) = picture.as_object().unwrap().iter().next().unwrap();
                Some(format!("{kind} {}", content.as_str().unwrap()))
            })
            .collect::<Vec<_>>();
        let expected = items.into_iter().map(|(_, expected)| expected).collect::<Vec<_>>();
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(read(cut(answer.as_bytes(), &cuts), 10), whole);
    }
}
