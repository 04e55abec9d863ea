//! The JSON of an edit: pictures in base64 go to the spool while they arrive, and everything else becomes
//! the object that they stood in (`contracts/openai-images.md`, 4.2).
//!
//! A body is many megabytes, of which all but a few hundred bytes are pictures, so the document is never in
//! memory: the tokenizer hands strings on in pieces, and what is kept beside the pictures has a bound.

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::{
    ApiError, App,
    asked::Asked,
    body::{self, BodyReader},
    error::excerpt,
    uploads::{DataUrl, Slot, Uploads, invalid_type},
};
use crate::{
    catalog::Violation,
    json::{Container, JsonError, Token, Tokenizer},
};

/// What a value takes in memory beside its text, roughly.
const VALUE_BYTES: usize = 64;

const IMAGES: &str = "images";
const MASK: &str = "mask";
const IMAGE_URL: &str = "image_url";
const FILE_ID: &str = "file_id";

/// Reads a document.
///
/// # Errors
/// [`ApiError`], in the words of the field at fault.
pub(super) async fn read(
    app: &App,
    body: &mut BodyReader<'_>,
    asked: &mut Asked,
) -> Result<(Map<String, Json>, Uploads), ApiError> {
    let mut tokenizer = Tokenizer::strict();
    let mut reading = Reading {
        app,
        stack: Vec::new(),
        string: None,
        done: None,
        uploads: Uploads::new(&app.limits),
        left: app.limits.json_body_bytes,
        fetch_left: app.limits.upload_bytes as u64,
    };
    while let Some(data) = body.next().await? {
        asked.bytes(&data);
        tokenizer.push(data);
        while let Some(token) = tokenizer.next().map_err(malformed)? {
            reading.token(token, &tokenizer).await?;
        }
    }
    // A scalar at the top has no end of its own, and is no object.
    match reading.done {
        Some(Json::Object(mut object)) => {
            check_references(&mut object)?;
            Ok((object, reading.uploads))
        }
        Some(_) => Err(ApiError::NotAnObject),
        None => Err(ApiError::Json("it ends too early".to_owned())),
    }
}

fn malformed(error: JsonError) -> ApiError {
    ApiError::Json(error.to_string())
}

struct Reading<'a> {
    app: &'a App,
    /// The containers around the next value.
    stack: Vec<Open>,
    string: Option<Text>,
    /// The whole document.
    done: Option<Json>,
    uploads: Uploads,
    /// How many bytes may still be kept beside the pictures.
    left: usize,
    /// How many bytes links may still bring. They are opened one after the other.
    fetch_left: u64,
}

/// A container that is not complete.
enum Open {
    Object {
        members: Map<String, Json>,
        /// The name of the member that comes.
        name: String,
    },
    Array(Vec<Json>),
}

/// The string that is being read.
enum Text {
    Plain(Vec<u8>),
    Picture(Box<DataUrl>),
}

impl Reading<'_> {
    async fn token(&mut self, token: Token, tokenizer: &Tokenizer) -> Result<(), ApiError> {
        match token {
            Token::Begin(container) => {
                self.keep(VALUE_BYTES)?;
                self.stack.push(match container {
                    Container::Object => Open::Object {
                        members: Map::new(),
                        name: String::new(),
                    },
                    Container::Array => Open::Array(Vec::new()),
                });
                Ok(())
            }
            Token::End => match self.stack.pop() {
                Some(Open::Object { members, .. }) => {
                    self.value(Json::Object(members));
                    Ok(())
                }
                Some(Open::Array(items)) => {
                    self.value(Json::Array(items));
                    Ok(())
                }
                None => Err(malformed(JsonError::Syntax)),
            },
            Token::Name => {
                let given = tokenizer.text();
                self.keep(given.len())?;
                self.name(given)
            }
            Token::StringBegin => {
                self.string = Some(self.begin_string()?);
                Ok(())
            }
            Token::StringPiece(piece) => self.piece(piece).await,
            Token::StringEnd => match self.string.take() {
                Some(Text::Plain(text)) => {
                    let text = String::from_utf8(text)
                        .map_err(|_| ApiError::Json("a string is no UTF-8 text".to_owned()))?;
                    self.value(Json::String(text));
                    Ok(())
                }
                Some(Text::Picture(url)) => {
                    let (slot, upload) = url.finish(self.app, &mut self.fetch_left).await?;
                    self.uploads.add(slot, upload);
                    // What is kept of a picture, and nothing else keeps: any other string here is a picture.
                    self.value(Json::String(String::new()));
                    Ok(())
                }
                None => Ok(()),
            },
            Token::Scalar => {
                self.keep(VALUE_BYTES)?;
                let value = serde_json::from_str(tokenizer.text())
                    .map_err(|_| malformed(JsonError::Syntax))?;
                self.value(value);
                Ok(())
            }
        }
    }

    async fn piece(&mut self, piece: Bytes) -> Result<(), ApiError> {
        match &mut self.string {
            Some(Text::Picture(url)) => url.write(self.app, &piece).await,
            Some(Text::Plain(_)) => {
                self.keep(piece.len())?;
                if let Some(Text::Plain(text)) = &mut self.string {
                    text.extend_from_slice(&piece);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes the name of the next member.
    fn name(&mut self, given: &str) -> Result<(), ApiError> {
        let at_the_top = self.stack.len() == 1;
        let Some(Open::Object { members, name }) = self.stack.last_mut() else {
            return Err(malformed(JsonError::Syntax));
        };
        if members.contains_key(given) {
            return Err(body::duplicate(given));
        }
        if at_the_top && given == "image" {
            let message = "Unknown parameter: 'image'. In JSON it is 'images': [{\"image_url\": \
                           \"data:image/png;base64,…\"}].";
            return Err(ApiError::Parameter(Violation::named(
                "image",
                "unknown_parameter",
                message.to_owned(),
            )));
        }
        if at_the_top && given == "markup" {
            return Err(super::uploads::no_markup());
        }
        given.clone_into(name);
        Ok(())
    }

    /// A string begins: a picture's, or one that is kept.
    fn begin_string(&mut self) -> Result<Text, ApiError> {
        if let Some((slot, field)) = self.picture()? {
            let url = DataUrl::new(field, slot, &self.app.limits);
            return Ok(Text::Picture(Box::new(url)));
        }
        self.keep(VALUE_BYTES)?;
        // These would be long, and are refused before they are read.
        let misplaced = match self.stack.as_slice() {
            [Open::Object { name, .. }] if name == MASK => Some((MASK.to_owned(), "an object")),
            [Open::Object { name, .. }] if name == IMAGES => Some((IMAGES.to_owned(), "an array")),
            [Open::Object { name, .. }, Open::Array(items)] if name == IMAGES => {
                Some((format!("{IMAGES}[{}]", items.len()), "an object"))
            }
            _ => None,
        };
        match misplaced {
            Some((name, expected)) => Err(invalid_type(
                &name,
                format!(
                    "Invalid type for '{name}': expected {expected}, but got a string instead."
                ),
            )),
            None => Ok(Text::Plain(Vec::new())),
        }
    }

    /// Which picture the string here is, and what its field is called.
    fn picture(&mut self) -> Result<Option<(Slot, String)>, ApiError> {
        match self.stack.as_slice() {
            [
                Open::Object { name: root, .. },
                Open::Array(items),
                Open::Object { name, .. },
            ] if root == IMAGES && name == IMAGE_URL => {
                let place = items.len();
                let field = format!("{IMAGES}[{place}].{IMAGE_URL}");
                Ok(Some((self.uploads.image(place)?, field)))
            }
            [Open::Object { name: root, .. }, Open::Object { name, .. }]
                if root == MASK && name == IMAGE_URL =>
            {
                Ok(Some((self.uploads.mask()?, format!("{MASK}.{IMAGE_URL}"))))
            }
            _ => Ok(None),
        }
    }

    /// A value is complete.
    fn value(&mut self, value: Json) {
        match self.stack.last_mut() {
            Some(Open::Object { members, name }) => {
                members.insert(std::mem::take(name), value);
            }
            Some(Open::Array(items)) => items.push(value),
            None => self.done = Some(value),
        }
    }

    fn keep(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or(ApiError::BodyTooLarge(self.app.limits.json_body_bytes))?;
        Ok(())
    }
}

/// Takes the references to pictures out of the object: each is one `image_url`, which has been read.
fn check_references(object: &mut Map<String, Json>) -> Result<(), ApiError> {
    match object.remove(IMAGES) {
        None | Some(Json::Null) => {}
        Some(Json::Array(items)) => {
            for (place, item) in items.iter().enumerate() {
                check_reference(&format!("{IMAGES}[{place}]"), item)?;
            }
        }
        Some(other) => return Err(wrong_type(IMAGES, "an array", &other)),
    }
    match object.remove(MASK) {
        None | Some(Json::Null) => Ok(()),
        Some(mask) => check_reference(MASK, &mask),
    }
}

fn check_reference(name: &str, reference: &Json) -> Result<(), ApiError> {
    let Json::Object(members) = reference else {
        return Err(wrong_type(name, "an object", reference));
    };
    for (member, value) in members {
        let field = format!("{name}.{}", excerpt(member));
        match (member.as_str(), value) {
            // A string that has been taken for a picture.
            (IMAGE_URL, Json::String(_)) | (IMAGE_URL | FILE_ID, Json::Null) => {}
            (IMAGE_URL, other) => return Err(wrong_type(&field, "a string", other)),
            (FILE_ID, _) => {
                return Err(ApiError::Parameter(Violation::named(
                    &field,
                    "unsupported_parameter",
                    format!(
                        "Unsupported parameter: '{field}'. This server keeps no files; send the picture as \
                         'image_url'."
                    ),
                )));
            }
            _ => {
                return Err(ApiError::Parameter(Violation::named(
                    &field,
                    "unknown_parameter",
                    format!("Unknown parameter: '{field}'. It takes: {IMAGE_URL}."),
                )));
            }
        }
    }
    if members.get(IMAGE_URL).is_some_and(Json::is_string) {
        Ok(())
    } else {
        let field = format!("{name}.{IMAGE_URL}");
        Err(ApiError::Parameter(Violation::missing_named(&field)))
    }
}

fn wrong_type(name: &str, expected: &str, value: &Json) -> ApiError {
    ApiError::Parameter(super::params::wrong_type(name, expected, value))
}
