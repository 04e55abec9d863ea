//! A form as `multipart/form-data` (RFC 7578): text first, files behind it, read while they go out.
//!
//! A client that guesses the boundary could add fields of its own, such as a dearer model. In a form of text
//! the boundary is counted up until it occurs in no field, so that the same form always has the same bytes;
//! the files of the other forms are not searched, their boundary is random.

use std::fmt::{self, Write as _};

use memchr::memmem;

use super::payload::Payload;
use crate::images::Upload;

/// Fields of text, and files, each in order.
#[derive(Default, Clone)]
pub(in crate::providers) struct Form {
    fields: Vec<(String, String)>,
    files: Vec<FormFile>,
}

/// A picture in a form. Its content type is what its bytes say.
#[derive(Clone)]
pub(in crate::providers) struct FormFile {
    /// The field's name.
    pub(in crate::providers) name: &'static str,
    /// What the file is called, its extension included. Never a client's word.
    pub(in crate::providers) file_name: String,
    /// What is in it.
    pub(in crate::providers) content: Upload,
}

impl Form {
    /// Adds a field.
    pub(in crate::providers) fn text(&mut self, name: &str, value: impl Into<String>) {
        self.fields.push((name.to_owned(), value.into()));
    }

    /// Adds a file, called `stem` and what its bytes say: `image.png`.
    pub(in crate::providers) fn file(&mut self, name: &'static str, stem: &str, content: &Upload) {
        self.files.push(FormFile {
            name,
            file_name: format!("{stem}.{}", content.info().format.extension()),
            content: content.clone(),
        });
    }

    /// The fields so far.
    #[cfg(test)]
    pub(in crate::providers) fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The files so far: the field of each, and what it is called.
    #[cfg(test)]
    pub(in crate::providers) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter();
        files.map(|file| (file.name, file.file_name.as_str()))
    }

    /// The content type and the body.
    pub(in crate::providers) fn encode(&self) -> (String, Payload) {
        let boundary = if self.files.is_empty() {
            self.unused_boundary()
        } else {
            format!("easel-form-boundary-{:032x}", rand::random::<u128>())
        };
        let mut payload = Payload::default();
        let mut text = String::new();
        for (name, value) in &self.fields {
            // As browsers do it.
            let name = name
                .replace('"', "%22")
                .replace('\r', "%0D")
                .replace('\n', "%0A");
            write!(
                text,
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .expect("writing into a String cannot fail");
        }
        for FormFile {
            name,
            file_name,
            content,
        } in &self.files
        {
            let content_type = content.info().format.content_type();
            write!(
                text,
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
                 Content-Type: {content_type}\r\n\r\n"
            )
            .expect("writing into a String cannot fail");
            payload.bytes(std::mem::take(&mut text));
            payload.upload(content);
            text.push_str("\r\n");
        }
        text.push_str("--");
        text.push_str(&boundary);
        text.push_str("--\r\n");
        payload.bytes(text);
        (format!("multipart/form-data; boundary={boundary}"), payload)
    }

    fn unused_boundary(&self) -> String {
        let mut number = 0_u64;
        loop {
            let boundary = format!("easel-form-boundary-{number:08}");
            let finder = memmem::Finder::new(&boundary);
            let occurs = |(name, value): &(String, String)| {
                finder.find(name.as_bytes()).is_some() || finder.find(value.as_bytes()).is_some()
            };
            if !self.fields.iter().any(occurs) {
                return boundary;
            }
            number += 1;
        }
    }
}

/// Without what is in it: prompts and pictures.
impl fmt::Debug for Form {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.fields.iter().map(|(name, _)| name.as_str());
        let files = self.files.iter().map(|file| file.name);
        formatter.debug_set().entries(fields.chain(files)).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::providers::testing::png;

    #[test]
    fn a_form_is_what_the_standard_says() {
        let mut form = Form::default();
        form.text("prompt", "Zwei Otter\r\nund ein \"Boot\"");
        form.text("odd\"\r\nname", "");
        let (content_type, body) = form.encode();
        assert_eq!(
            content_type,
            "multipart/form-data; boundary=easel-form-boundary-00000000"
        );
        let expected = [
            "--easel-form-boundary-00000000",
            "Content-Disposition: form-data; name=\"prompt\"",
            "",
            "Zwei Otter",
            "und ein \"Boot\"",
            "--easel-form-boundary-00000000",
            "Content-Disposition: form-data; name=\"odd%22%0D%0Aname\"",
            "",
            "",
            "--easel-form-boundary-00000000--",
            "",
        ];
        assert_eq!(body.in_one_piece(), expected.join("\r\n"));
    }

    #[test]
    fn a_value_cannot_add_fields() {
        let mut form = Form::default();
        form.text(
            "prompt",
            "x\r\n--easel-form-boundary-00000000\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nultra",
        );
        form.text("easel-form-boundary-00000001", "x");
        let (content_type, body) = form.encode();
        assert_eq!(
            content_type,
            "multipart/form-data; boundary=easel-form-boundary-00000002"
        );
        let body = body.in_one_piece();
        let boundaries = memmem::find_iter(&body, "--easel-form-boundary-00000002").count();
        assert_eq!(boundaries, 3, "before each field and at the end");
    }

    #[tokio::test]
    async fn files_follow_the_text_and_are_read_as_they_go() {
        let picture = png(3, 2);
        let mut form = Form::default();
        form.file(
            "image[]",
            "image",
            &Upload::from_bytes(picture.clone()).unwrap(),
        );
        form.file(
            "mask",
            "mask",
            &Upload::from_bytes(picture.clone()).unwrap(),
        );
        form.text("prompt", "An otter");
        let (content_type, body) = form.encode();
        let (_, boundary) = content_type.split_once("boundary=").unwrap();
        let file = |name: &str, file_name: &str| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
                 Content-Type: image/png\r\n\r\n"
            )
        };
        let text = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nAn otter\r\n"
        );
        let expected = [
            Bytes::from(text + &file("image[]", "image.png")),
            picture.clone(),
            Bytes::from("\r\n".to_owned() + &file("mask", "mask.png")),
            picture,
            Bytes::from(format!("\r\n--{boundary}--\r\n")),
        ]
        .concat();
        assert_eq!(body.size_bytes(), expected.len() as u64);
        assert_eq!(body.collected().await, expected);
        assert_ne!(
            form.encode().0,
            content_type,
            "nobody can guess the boundary"
        );
    }
}
