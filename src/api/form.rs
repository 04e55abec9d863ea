//! The form of an edit: its text fields become the JSON that the other form of the endpoint would have sent,
//! its pictures become uploads (`contracts/openai-images.md`, 4.1).
//!
//! Parts may come in any order, files with or without a name and a type: what a picture is, its bytes say.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::{
    ApiError, App,
    asked::Asked,
    body::BodyReader,
    error::excerpt,
    multipart::{Event, FileName, Multipart, PartHead},
    uploads::{Incoming, Uploads, invalid_type},
};
use crate::catalog::{Parameter, ParameterKind, Violation};

/// More parts than this no edit has.
const MAX_PARTS: usize = 128;
/// Names nested deeper than this are no field's: `svg[reasoning][effort]` has two brackets.
const MAX_NESTING: usize = 3;

/// Reads a form.
///
/// # Errors
/// [`ApiError`], in the words of the field at fault.
pub(super) async fn read(
    app: &App,
    content_type: &str,
    body: &mut BodyReader<'_>,
    asked: &mut Asked,
) -> Result<(Map<String, Json>, Uploads), ApiError> {
    let mut form = Multipart::new(content_type).map_err(malformed)?;
    let mut reading = Reading {
        app,
        fields: Fields::default(),
        uploads: Uploads::new(&app.limits),
        part: None,
        parts: 0,
        text_left: app.limits.json_body_bytes,
    };
    while let Some(data) = body.next().await? {
        form.push(&data);
        while let Some(event) = form.next().map_err(malformed)? {
            digest(asked, &event);
            reading.event(event).await?;
        }
    }
    form.finish().map_err(malformed)?;
    Ok((reading.fields.object, reading.uploads))
}

fn digest(asked: &mut Asked, event: &Event) {
    match event {
        Event::Part(head) => asked.part(&head.name, head.file_name.is_some()),
        Event::Data(data) => asked.part_bytes(data),
        Event::PartEnd => asked.part_end(),
    }
}

fn malformed(error: super::multipart::MultipartError) -> ApiError {
    ApiError::Form(error.to_string())
}

struct Reading<'a> {
    app: &'a App,
    fields: Fields,
    uploads: Uploads,
    part: Option<Part>,
    parts: usize,
    /// How many bytes of text may still come.
    text_left: usize,
}

/// The part that is being read.
enum Part {
    Text { name: String, text: Vec<u8> },
    Picture(Box<Incoming>),
}

impl Reading<'_> {
    async fn event(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Part(head) => {
                self.parts += 1;
                if self.parts > MAX_PARTS {
                    return Err(ApiError::Form(format!(
                        "it has more than {MAX_PARTS} parts"
                    )));
                }
                self.part = Some(self.begin(head)?);
            }
            Event::Data(data) => match &mut self.part {
                Some(Part::Text { text, .. }) => {
                    self.text_left = self
                        .text_left
                        .checked_sub(data.len())
                        .ok_or(ApiError::BodyTooLarge(self.app.limits.json_body_bytes))?;
                    text.extend_from_slice(&data);
                }
                Some(Part::Picture(incoming)) => incoming.write(&self.app.spool, &data).await?,
                None => {}
            },
            Event::PartEnd => match self.part.take() {
                Some(Part::Text { name, text }) => {
                    let text = String::from_utf8(text).map_err(|_| {
                        let message = format!("Invalid value for '{name}': it is no UTF-8 text.");
                        ApiError::Parameter(Violation::named(&name, "invalid_value", message))
                    })?;
                    self.fields.add(&name, text)?;
                }
                Some(Part::Picture(incoming)) => {
                    if let Some((slot, upload)) = incoming.finish().await? {
                        self.uploads.add(slot, upload);
                    }
                }
                None => {}
            },
        }
        Ok(())
    }

    fn begin(&mut self, head: PartHead) -> Result<Part, ApiError> {
        let PartHead {
            name,
            file_name,
            content_type,
        } = head;
        if let Some(slot) = self.uploads.slot(&name)? {
            // A browser sends a form's empty file field so.
            let may_be_absent = file_name != Some(FileName::Given);
            let claims =
                content_type.or_else(|| file_name.map(|_| "application/octet-stream".to_owned()));
            let incoming = Incoming::new(&name, slot, claims, may_be_absent, &self.app.limits);
            return Ok(Part::Picture(Box::new(incoming)));
        }
        if file_name.is_some() {
            let name = excerpt(&name);
            let message =
                format!("Invalid type for '{name}': expected a string, but got a file instead.");
            return Err(invalid_type(&name, message));
        }
        Ok(Part::Text {
            name,
            text: Vec::new(),
        })
    }
}

/// The text fields, as the JSON object that they stand for.
#[derive(Default)]
struct Fields {
    object: Map<String, Json>,
    names: BTreeSet<String>,
}

impl Fields {
    fn add(&mut self, name: &str, text: String) -> Result<(), ApiError> {
        let path = Path::parse(name)
            .ok_or_else(|| ApiError::Parameter(super::params::unknown_field(name)))?;
        if !path.is_list() && !self.names.insert(name.to_owned()) {
            let shown = excerpt(name);
            let message = format!(
                "Duplicate parameter: '{shown}'. You provided multiple values for it, and it takes one."
            );
            return Err(ApiError::Parameter(Violation::named(
                &shown,
                "duplicate_parameter",
                message,
            )));
        }
        // Clients that leave a field empty, or write out a null, mean that it is not given. A prompt may
        // well be the word.
        if text.is_empty() || (text == "null" && name != Parameter::Prompt.as_str()) {
            return Ok(());
        }
        let value = typed(&path, text);
        insert(&mut self.object, &path.root, &path.rest, value)
            .ok_or_else(|| ApiError::Parameter(super::params::unknown_field(name)))
    }
}

/// A field's name taken apart: `svg[reasoning][effort]`.
struct Path {
    root: String,
    rest: Vec<Step>,
}

#[derive(PartialEq, Eq)]
enum Step {
    Member(String),
    /// `[]` or `[0]`
    Item,
}

impl Path {
    fn parse(name: &str) -> Option<Self> {
        let (root, mut brackets) = match name.find('[') {
            Some(place) => name.split_at(place),
            None => (name, ""),
        };
        let mut rest = Vec::new();
        while !brackets.is_empty() {
            let (inside, after) = brackets.strip_prefix('[')?.split_once(']')?;
            rest.push(if inside.bytes().all(|byte| byte.is_ascii_digit()) {
                Step::Item
            } else {
                Step::Member(inside.to_owned())
            });
            brackets = after;
        }
        (!root.is_empty() && rest.len() <= MAX_NESTING).then(|| Self {
            root: root.to_owned(),
            rest,
        })
    }

    fn is_list(&self) -> bool {
        self.rest.contains(&Step::Item)
    }
}

/// What a text stands for: numbers and flags are written out in a form, objects as JSON.
fn typed(path: &Path, text: String) -> Json {
    let kind = Parameter::from_name(&path.root).map(Parameter::kind);
    let is_object = kind == Some(ParameterKind::Svg) || path.root == "provider";
    let as_json = |text: String| serde_json::from_str(&text).unwrap_or(Json::String(text));
    match (kind, path.rest.last()) {
        (Some(ParameterKind::Integer | ParameterKind::Decimal), None) => {
            match as_json(text.clone()) {
                Json::Number(number) => Json::Number(number),
                _ => Json::String(text),
            }
        }
        (_, None) if is_object && text.starts_with('{') => as_json(text),
        (Some(ParameterKind::Flag), None) | (_, Some(Step::Member(_))) => flag(text),
        _ => Json::String(text),
    }
}

fn flag(text: String) -> Json {
    match text.as_str() {
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        _ => Json::String(text),
    }
}

/// Puts a value where its name says. `None` where another value is in the way.
fn insert(object: &mut Map<String, Json>, name: &str, rest: &[Step], value: Json) -> Option<()> {
    let Some((step, further)) = rest.split_first() else {
        return match object.insert(name.to_owned(), value) {
            None => Some(()),
            Some(_) => None,
        };
    };
    match step {
        Step::Member(member) => {
            let inner = object
                .entry(name)
                .or_insert_with(|| Json::Object(Map::new()));
            insert(inner.as_object_mut()?, member, further, value)
        }
        Step::Item if further.is_empty() => {
            let list = object
                .entry(name)
                .or_insert_with(|| Json::Array(Vec::new()));
            list.as_array_mut()?.push(value);
            Some(())
        }
        Step::Item => None,
    }
}
