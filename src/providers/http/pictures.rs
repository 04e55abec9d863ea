//! Pictures of clients inside a JSON document, as base64 that is never whole in memory.
//!
//! The document is built with a marker where each picture will stand; when it is sent, it is cut there and
//! the picture is read and encoded between the cuts. A client that guesses a marker could repeat one of its
//! own pictures, no more; they are random all the same, so that no prompt contains one.

use memchr::memmem;
use serde_json::Value;

use super::payload::Payload;
use crate::images::Upload;

/// The pictures of one document.
pub(in crate::providers) struct Pictures {
    marker: String,
    uploads: Vec<Upload>,
}

/// Digits of a picture's number behind the marker.
const DIGITS: usize = 3;

impl Default for Pictures {
    fn default() -> Self {
        Self {
            marker: format!("easel-picture-{:032x}-", rand::random::<u128>()),
            uploads: Vec::new(),
        }
    }
}

impl Pictures {
    /// What stands for the base64 of this picture, in a string of the document: the whole string, or
    /// behind something such as the head of a data URL.
    pub(in crate::providers) fn stand_in(&mut self, upload: &Upload) -> String {
        let number = self.uploads.len();
        self.uploads.push(upload.clone());
        format!("{}{number:0DIGITS$}", self.marker)
    }

    /// The document with the pictures in their places.
    pub(in crate::providers) fn payload(&self, document: &Value) -> Payload {
        let text = document.to_string();
        let mut payload = Payload::default();
        let mut written = 0;
        for place in memmem::find_iter(text.as_bytes(), &self.marker) {
            let number = place + self.marker.len();
            let upload = text
                .get(number..number + DIGITS)
                .and_then(|digits| self.uploads.get(digits.parse::<usize>().ok()?));
            if let Some(upload) = upload {
                payload.bytes(text[written..place].to_owned());
                payload.base64(upload);
                written = number + DIGITS;
            }
        }
        payload.bytes(text[written..].to_owned());
        payload
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde_json::json;

    use super::*;
    use crate::providers::testing::png;

    #[tokio::test]
    async fn pictures_take_their_places() {
        for sides in [1, 2, 3, 40] {
            let (first, second) = (png(sides, 1), png(1, sides));
            let mut pictures = Pictures::default();
            let one = pictures.stand_in(&Upload::from_bytes(first.clone()).unwrap());
            let two = pictures.stand_in(&Upload::from_bytes(second.clone()).unwrap());
            let build = |one: &str, two: &str| {
                json!({
                    "prompt": "\"easel-picture-\" ünd \\ more",
                    "images": [{"data": one}, format!("data:image/png;base64,{two}"), one],
                })
            };
            let payload = pictures.payload(&build(&one, &two));
            let expected = build(&STANDARD.encode(first), &STANDARD.encode(second)).to_string();
            assert_eq!(payload.size_bytes(), expected.len() as u64);
            assert_eq!(payload.clone().collected().await, expected);
            assert_eq!(payload.collected().await, expected, "and again");
        }
    }

    #[tokio::test]
    async fn a_marker_that_stands_for_nothing_is_text() {
        let pictures = Pictures::default();
        let document = json!([pictures.marker, format!("{}007", pictures.marker)]);
        let payload = pictures.payload(&document);
        assert_eq!(payload.collected().await, document.to_string());
    }
}
