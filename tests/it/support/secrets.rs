//! What must never be found in a log (I10): every prompt, key, signed link and picture that passed
//! through the client of a test, gathered on the way.

use std::sync::Mutex;

use serde_json::Value;

/// The words that were used, and what each is.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Mutex<Vec<(String, &'static str)>>);

/// Shorter words would be found by accident.
const SHORTEST: usize = 8;

/// Enough of a picture's base64 to be recognised; its very beginning is the same for every PNG.
const PICTURE_EXCERPT: std::ops::Range<usize> = 60..100;

impl Secrets {
    pub(crate) fn add(&self, word: &str, what: &'static str) {
        if word.len() >= SHORTEST {
            self.0.lock().unwrap().push((word.to_owned(), what));
        }
    }

    /// Prompts and end users of a request.
    pub(crate) fn add_request(&self, body: &Value) {
        if let Some(prompt) = body["prompt"].as_str() {
            // Of a long prompt a piece from the middle, so that an excerpt in a log is found too.
            let characters: Vec<char> = prompt.chars().collect();
            let middle = characters.len().saturating_sub(24) / 2;
            self.add(
                &characters.iter().skip(middle).take(24).collect::<String>(),
                "a prompt",
            );
        }
    }

    /// Links, pictures and revised prompts of an answer.
    pub(crate) fn add_answer(&self, body: &Value) {
        for item in body["data"].as_array().into_iter().flatten() {
            if let Some(signature) = item["url"].as_str().and_then(signature) {
                self.add(signature, "the signature of a link");
            }
            if let Some(excerpt) = item["b64_json"]
                .as_str()
                .and_then(|text| text.get(PICTURE_EXCERPT))
            {
                self.add(excerpt, "a picture");
            }
            if let Some(revised) = item["revised_prompt"].as_str() {
                self.add(revised, "a revised prompt");
            }
        }
    }

    /// Fails when any of the words stands in this text.
    pub(crate) fn assert_absent_from(&self, log: &str) {
        for (word, what) in self.0.lock().unwrap().iter() {
            if let Some(place) = log.find(word.as_str()) {
                let line = log[..place].rfind('\n').map_or(0, |end| end + 1);
                let end = log[place..]
                    .find('\n')
                    .map_or(log.len(), |length| place + length);
                panic!("{what} is in the log (I10): {}", &log[line..end]);
            }
        }
    }
}

fn signature(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("signature=")?;
    rest.split('&').next()
}
