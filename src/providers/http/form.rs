//! A form as `multipart/form-data` (RFC 7578), whole in one piece.
//!
//! In one piece, because that is what tells whether it went out (see [`super::witness`]). The boundary is
//! counted up until it occurs in no field: a prompt that contains one cannot add fields of its own, and the
//! same form always has the same bytes.

use std::fmt::Write as _;

use bytes::Bytes;
use memchr::memmem;

/// Fields of text, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::providers) struct Form {
    fields: Vec<(String, String)>,
}

impl Form {
    /// Adds a field.
    pub(in crate::providers) fn text(&mut self, name: &str, value: impl Into<String>) {
        self.fields.push((name.to_owned(), value.into()));
    }

    /// The fields so far.
    #[cfg(test)]
    pub(in crate::providers) fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The content type and the body.
    pub(in crate::providers) fn encode(&self) -> (String, Bytes) {
        let boundary = self.boundary();
        let mut body = String::new();
        for (name, value) in &self.fields {
            // As browsers do it.
            let name = name
                .replace('"', "%22")
                .replace('\r', "%0D")
                .replace('\n', "%0A");
            write!(
                body,
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .expect("writing into a String cannot fail");
        }
        body.push_str("--");
        body.push_str(&boundary);
        body.push_str("--\r\n");
        (
            format!("multipart/form-data; boundary={boundary}"),
            Bytes::from(body),
        )
    }

    fn boundary(&self) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            "content-disposition: form-data; name=\"prompt\"",
            "",
            "Zwei Otter",
            "und ein \"Boot\"",
            "--easel-form-boundary-00000000",
            "content-disposition: form-data; name=\"odd%22%0D%0Aname\"",
            "",
            "",
            "--easel-form-boundary-00000000--",
            "",
        ];
        assert_eq!(body, expected.join("\r\n"));
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
        let boundaries = memmem::find_iter(&body, "--easel-form-boundary-00000002").count();
        assert_eq!(boundaries, 3, "before each field and at the end");
    }
}
