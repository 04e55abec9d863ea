//! The pictures of an edit on their way in, whichever form they come in.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::{ApiError, App, Limits, error::excerpt};
use crate::{
    catalog::{OutputFormat, Violation},
    images::{
        Base64Decoder, FetchError, NotAPicture, PictureFormat, Spool, Upload, UploadError,
        UploadWriter,
    },
};

/// What a server of uploads says it takes where no model has been asked yet.
const FORMATS: &[OutputFormat] = &[OutputFormat::Jpeg, OutputFormat::Png, OutputFormat::Webp];

/// Characters decoded at once.
const DECODED_AT_ONCE: usize = 64 * 1024;
/// The longest link, or beginning of a data URL.
const MAX_LINK_BYTES: usize = 8 * 1024;

/// What has come so far.
pub(super) struct Uploads {
    images: Vec<(usize, Upload)>,
    mask: Option<Upload>,
    expected: usize,
    mask_expected: bool,
    most: usize,
}

/// Which of the pictures one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// One to edit, with its place among them.
    Image(usize),
    /// Where to edit the first.
    Mask,
}

impl Uploads {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            images: Vec::new(),
            mask: None,
            expected: 0,
            mask_expected: false,
            most: limits.upload_pictures,
        }
    }

    /// Which picture a form's field of this name is; `None` when it is a field of another kind. A repeated
    /// `image`, `image[]` and `image[0]` are all the same here.
    ///
    /// # Errors
    /// [`ApiError::Parameter`] for one picture too many.
    pub(super) fn slot(&mut self, name: &str) -> Result<Option<Slot>, ApiError> {
        match name {
            "mask" => self.mask().map(Some),
            "markup" => Err(no_markup()),
            "image" | "image[]" => self.image(self.expected).map(Some),
            _ => {
                let place = name
                    .strip_prefix("image[")
                    .and_then(|rest| rest.strip_suffix(']'))
                    .and_then(|digits| digits.parse::<u16>().ok());
                match (place, name.split('[').next()) {
                    (Some(place), _) => self.image(usize::from(place)).map(Some),
                    (None, Some("images")) => Err(misnamed(name, "image[]")),
                    (None, Some("mask")) => Err(misnamed(name, "mask")),
                    (None, _) => Ok(None),
                }
            }
        }
    }

    /// A place for one more picture.
    pub(super) fn image(&mut self, place: usize) -> Result<Slot, ApiError> {
        self.expected += 1;
        if self.expected > self.most {
            return Err(ApiError::Parameter(Violation::too_many_images(
                self.most,
                self.expected,
            )));
        }
        Ok(Slot::Image(place))
    }

    /// A place for the mask.
    pub(super) fn mask(&mut self) -> Result<Slot, ApiError> {
        if std::mem::replace(&mut self.mask_expected, true) {
            let message = "Duplicate parameter: 'mask'. There can be one mask.".to_owned();
            return Err(ApiError::Parameter(Violation::named(
                "mask",
                "duplicate_parameter",
                message,
            )));
        }
        Ok(Slot::Mask)
    }

    pub(super) fn add(&mut self, slot: Slot, upload: Upload) {
        match slot {
            Slot::Image(place) => self.images.push((place, upload)),
            Slot::Mask => self.mask = Some(upload),
        }
    }

    /// The pictures in the client's order, and the mask.
    pub(super) fn into_parts(mut self) -> (Vec<Upload>, Option<Upload>) {
        // Stable, so that what has the same place stays as it came.
        self.images.sort_by_key(|(place, _)| *place);
        let images = self.images.into_iter().map(|(_, upload)| upload);
        (images.collect(), self.mask)
    }
}

/// A form's field for pictures by a name that is nearly right.
fn misnamed(name: &str, right: &str) -> ApiError {
    let name = excerpt(name);
    let message = format!("Unknown parameter: '{name}'. Did you mean '{right}'?");
    ApiError::Parameter(Violation::named(&name, "unknown_parameter", message))
}

/// `markup` is refused by name: it lays strokes over a picture that only `OpenAI`'s own models read.
pub(super) fn no_markup() -> ApiError {
    let message =
        "Unsupported parameter: 'markup'. This server edits with 'image' and 'mask'.".to_owned();
    ApiError::Parameter(Violation::named("markup", "unsupported_parameter", message))
}

pub(super) fn invalid_type(name: &str, message: String) -> ApiError {
    ApiError::Parameter(Violation::named(name, "invalid_type", message))
}

/// One picture on its way in.
pub(super) struct Incoming {
    /// The field, as the client wrote it.
    name: String,
    slot: Slot,
    /// What the client says that it is; `None`: it looks like a text.
    claims: Option<String>,
    may_be_absent: bool,
    writer: Option<UploadWriter>,
    max_bytes: u64,
}

impl Incoming {
    pub(super) fn new(
        name: &str,
        slot: Slot,
        claims: Option<String>,
        may_be_absent: bool,
        limits: &Limits,
    ) -> Self {
        Self {
            name: excerpt(name),
            slot,
            claims,
            may_be_absent,
            writer: None,
            max_bytes: limits.upload_picture_bytes,
        }
    }

    /// Takes the next bytes of the file.
    pub(super) async fn write(&mut self, spool: &Spool, data: &[u8]) -> Result<(), ApiError> {
        let writer = self
            .writer
            .get_or_insert_with(|| spool.begin(self.max_bytes));
        let written = writer.write(data).await;
        written.map_err(|error| self.refusal(error))
    }

    /// The whole picture; `None` when there was none.
    pub(super) async fn finish(mut self) -> Result<Option<(Slot, Upload)>, ApiError> {
        let Some(writer) = self.writer.take() else {
            if self.may_be_absent {
                return Ok(None);
            }
            let message = format!("Invalid file '{}': it is empty.", self.name);
            return Err(self.invalid(message));
        };
        let known = writer.format().is_some();
        match writer.finish().await {
            Ok(upload) => Ok(Some((self.slot, upload))),
            Err(UploadError::NotAPicture(torso)) if known => {
                let message = format!("Invalid file '{}': {torso}.", self.name);
                Err(self.invalid(message))
            }
            Err(error) => Err(self.refusal(error)),
        }
    }

    fn invalid(&self, message: String) -> ApiError {
        ApiError::Parameter(Violation::named(&self.name, "invalid_image_file", message))
    }

    fn refusal(&self, error: UploadError) -> ApiError {
        match error {
            UploadError::NotAPicture(why) => {
                let known = self
                    .writer
                    .as_ref()
                    .is_some_and(|writer| writer.format().is_some());
                if known {
                    let message = format!("Invalid file '{}': {why}.", self.name);
                    return self.invalid(message);
                }
                let Some(claims) = self.claims.as_deref().filter(|claims| !is_text(claims)) else {
                    let name = &self.name;
                    let message = format!(
                        "Invalid type for '{name}': expected a file, but got a string instead."
                    );
                    return invalid_type(name, message);
                };
                if FORMATS.iter().any(|format| is_type_of(claims, *format)) {
                    let message = format!("Invalid file '{}': {why}.", self.name);
                    return self.invalid(message);
                }
                let claims = excerpt(claims);
                ApiError::Parameter(Violation::unsupported_file(&self.name, &claims, FORMATS))
            }
            UploadError::TooLarge(limit) => ApiError::PictureTooLarge(self.name.clone(), limit),
            UploadError::Full => ApiError::UploadsFull,
            UploadError::Storage(error) => ApiError::Internal(Box::new(error)),
        }
    }
}

fn is_type_of(content_type: &str, format: OutputFormat) -> bool {
    let media_type = PictureFormat::from(format).content_type();
    content_type.eq_ignore_ascii_case(media_type)
}

fn is_text(content_type: &str) -> bool {
    content_type
        .get(..5)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("text/"))
}

/// One picture on its way in as a URL: its own data in base64, or a link.
pub(super) struct DataUrl {
    field: String,
    /// The URL up to its comma, or all of it when it is a link.
    head: Vec<u8>,
    content: Option<Base64Decoder>,
    /// The beginning of an escape whose rest has not come yet.
    escape: Vec<u8>,
    bytes: Vec<u8>,
    incoming: Incoming,
}

impl DataUrl {
    pub(super) fn new(field: String, slot: Slot, limits: &Limits) -> Self {
        Self {
            incoming: Incoming::new(
                &field,
                slot,
                Some("application/octet-stream".to_owned()),
                false,
                limits,
            ),
            field,
            head: Vec::new(),
            content: None,
            escape: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Takes the next characters of the URL.
    pub(super) async fn write(&mut self, app: &App, text: &[u8]) -> Result<(), ApiError> {
        let data = if self.content.is_some() {
            text
        } else if let Some(data) = self.read_head(text)? {
            data
        } else {
            return Ok(());
        };
        for text in data.chunks(DECODED_AT_ONCE) {
            let mut escape = std::mem::take(&mut self.escape);
            self.decode(|decoder, bytes| decoder.decode(&unescaped(&mut escape, text), bytes))?;
            self.escape = escape;
            self.incoming.write(&app.spool, &self.bytes).await?;
        }
        Ok(())
    }

    /// Reads up to the comma of a data URL and returns what follows it.
    fn read_head<'a>(&mut self, text: &'a [u8]) -> Result<Option<&'a [u8]>, ApiError> {
        for (place, &byte) in text.iter().enumerate() {
            if byte == b',' && self.is_data() {
                let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
                let Some(head) = head.strip_suffix(";base64") else {
                    return Err(self.invalid("it is a data URL, but not in base64"));
                };
                let media_type = head.trim_start_matches("data:");
                if !media_type.is_empty() {
                    self.incoming.claims = Some(media_type.to_owned());
                }
                self.content = Some(Base64Decoder::default());
                return Ok(Some(&text[place + 1..]));
            }
            self.head.push(byte);
            if self.head.len() > MAX_LINK_BYTES {
                return Err(self.invalid("it is neither a data URL in base64 nor a link"));
            }
        }
        Ok(None)
    }

    fn is_data(&self) -> bool {
        let scheme = self.head.get(..5);
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"data:"))
    }

    /// The whole picture.
    ///
    /// `fetch_left` is how many bytes links may still bring.
    pub(super) async fn finish(
        mut self: Box<Self>,
        app: &App,
        fetch_left: &mut u64,
    ) -> Result<(Slot, Upload), ApiError> {
        if self.content.is_none() {
            if self.is_data() {
                return Err(self.invalid("it is a data URL, but not in base64"));
            }
            self.fetch(app, fetch_left).await?;
        }
        if !self.escape.is_empty() {
            return Err(self.not_base64());
        }
        // What a link brought is not encoded, and leaves nothing to finish.
        self.decode(Base64Decoder::finish)?;
        if !self.bytes.is_empty() {
            self.incoming.write(&app.spool, &self.bytes).await?;
        }
        let Self {
            incoming, field, ..
        } = *self;
        let empty = || {
            let message = format!("Invalid file '{field}': it is empty.");
            ApiError::Parameter(Violation::named(&field, "invalid_image_file", message))
        };
        incoming.finish().await?.ok_or_else(empty)
    }

    /// Opens the link that it is, where that is allowed.
    async fn fetch(&mut self, app: &App, left: &mut u64) -> Result<(), ApiError> {
        let Some(fetcher) = &app.fetcher else {
            return Err(self.invalid(
                "this server takes pictures as base64 data URLs (data:image/png;base64,…) only",
            ));
        };
        let refusal =
            |error: FetchError| self.invalid(&format!("the link was not opened: {error}"));
        let link = String::from_utf8_lossy(&self.head).into_owned();
        let mut file = fetcher.open(&link).await.map_err(refusal)?;
        loop {
            let chunk = file.next().await;
            match chunk.map_err(|error| self.invalid(&format!("the link broke off: {error}")))? {
                Some(chunk) => {
                    *left = left
                        .checked_sub(chunk.len() as u64)
                        .ok_or(ApiError::BodyTooLarge(app.limits.upload_bytes))?;
                    self.incoming.write(&app.spool, &chunk).await?;
                }
                None => return Ok(()),
            }
        }
    }

    fn decode(
        &mut self,
        work: impl FnOnce(&mut Base64Decoder, &mut Vec<u8>) -> Result<(), NotAPicture>,
    ) -> Result<(), ApiError> {
        self.bytes.clear();
        let decoded = match &mut self.content {
            Some(decoder) => work(decoder, &mut self.bytes),
            None => Ok(()),
        };
        decoded.map_err(|_| self.not_base64())
    }

    fn not_base64(&self) -> ApiError {
        self.invalid("it is not base64")
    }

    /// Never shows the URL: it is a picture, or a link that may be signed.
    fn invalid(&self, why: &str) -> ApiError {
        let field = &self.field;
        let message = format!("Invalid value for '{field}': {why}.");
        ApiError::Parameter(Violation::named(field, "invalid_value", message))
    }
}

/// What these characters of a data URL stand for: `%2B` is a `+` (RFC 2397 leaves it to URLs, RFC 3986, section 2.1).
/// `escape` has the beginning of an escape from one call to the next; what is none stays as it is.
fn unescaped<'a>(escape: &mut Vec<u8>, text: &'a [u8]) -> Cow<'a, [u8]> {
    if escape.is_empty() && memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut text = [escape.as_slice(), text].concat();
    let cut = text.iter().rev().take(2).position(|&byte| byte == b'%');
    *escape = text.split_off(text.len() - cut.map_or(0, |place| place + 1));
    Cow::Owned(percent_decode(&text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it says, cut in two at this place; `None`: it is not base64.
    fn decoded(text: &str, cut: usize) -> Option<Vec<u8>> {
        let (mut escape, mut decoder) = (Vec::new(), Base64Decoder::default());
        let mut bytes = Vec::new();
        let (before, behind) = text.as_bytes().split_at(cut);
        for text in [before, behind] {
            let text = unescaped(&mut escape, text);
            decoder.decode(&text, &mut bytes).ok()?;
        }
        decoder.finish(&mut bytes).ok()?;
        escape.is_empty().then_some(bytes)
    }

    #[test]
    fn escapes_are_what_they_stand_for_wherever_they_are_cut() {
        let bytes = &b"\xfb\xff\xbf\xfb"[..];
        for (text, expected) in [
            ("+/+/+w==", Some(bytes)),
            ("%2B%2F%2B%2F%2Bw%3D%3D", Some(bytes)),
            ("%2b/%2b/+w%3d=", Some(bytes)),
            ("+/+/+w%3D%3D", Some(bytes)),
            ("%2B/+/+w", Some(bytes)),
            ("%0A+/+/%0D%0A+w==", Some(bytes)),
            ("%41%41%41%41", Some(&[0; 3][..])),
            ("", Some(&[][..])),
            ("+/+/+w%3D%3", None),
            ("+/+/+w%3D%", None),
            ("%", None),
            ("%zz+/+/+w==", None),
            ("%2%2B+/+/", None),
            ("%%2B+/+/", None),
            ("%252B+/", None),
            ("%20+/+/", None),
        ] {
            for cut in 0..=text.len() {
                assert_eq!(decoded(text, cut).as_deref(), expected, "{text} at {cut}");
            }
        }
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let mut escape = Vec::new();
        assert!(matches!(
            unescaped(&mut escape, b"+/+/"),
            Cow::Borrowed(b"+/+/")
        ));
        assert!(escape.is_empty());
    }
}
