//! What pictures a model takes in: how many, which formats, how large; and what a mask must be.
//!
//! Judges descriptions of pictures, never their bytes.

use std::{collections::BTreeMap, num::NonZeroU8};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    cross::{Scalar, alternatives, resolved},
    violation::{Violation, quoted_list},
};
use crate::catalog::{
    request::{ImageRequest, Parameter},
    vocabulary::{ImageSize, OutputFormat},
};

/// The name of the pictures in a request.
const IMAGE: &str = "image";
/// The name of the mask.
const MASK: &str = "mask";

/// A picture that a client sends, as far as rules and prices look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputPicture {
    /// What its bytes are.
    pub format: OutputFormat,
    /// Width and height; `None` for a vector picture without them.
    pub size: Option<ImageSize>,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Whether it can be transparent; `None` when its format was not looked into.
    pub has_alpha: Option<bool>,
}

/// The pictures of an edit or a variation.
#[derive(Debug, Clone, Copy)]
pub struct InputPictures<'a> {
    /// What to edit, in the client's order.
    pub images: &'a [InputPicture],
    /// Where to edit the first of them.
    pub mask: Option<&'a InputPicture>,
}

/// What pictures a model takes in, for edits and references.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputImages {
    /// How many at most.
    pub max: NonZeroU8,
    /// The formats it takes.
    #[serde(default = "common_formats")]
    pub formats: Vec<OutputFormat>,
    /// The most bytes one may have; absent: only the server's own limit holds.
    pub max_bytes: Option<u64>,
    /// Whether they must be square.
    #[serde(default)]
    pub square: bool,
}

/// What a mask must be, beside a PNG with an alpha channel of the first picture's size.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskRule {
    /// The most bytes it may have.
    max_bytes: Option<u64>,
    /// Parameters that must have one of these values beside a mask.
    #[serde(default)]
    needs: BTreeMap<Parameter, Vec<MaskScalar>>,
}

/// A value beside a mask.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "toml::Value")]
struct MaskScalar(Scalar);

impl TryFrom<toml::Value> for MaskScalar {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        Scalar::try_from(value).map(Self)
    }
}

fn common_formats() -> Vec<OutputFormat> {
    vec![OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Webp]
}

impl InputImages {
    /// Checks the pictures to edit.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub(super) fn check(&self, images: &[InputPicture]) -> Result<(), Violation> {
        if images.is_empty() {
            return Err(Violation::missing_named(IMAGE));
        }
        if images.len() > usize::from(self.max.get()) {
            return Err(Violation::too_many_images(
                usize::from(self.max.get()),
                images.len(),
            ));
        }
        for (place, image) in images.iter().enumerate() {
            let name = if images.len() == 1 {
                IMAGE.to_owned()
            } else {
                format!("{IMAGE}[{place}]")
            };
            check_format(&name, image, &self.formats)?;
            check_bytes(&name, image, self.max_bytes)?;
            if self.square
                && let Some(size) = image.size
                && size.width != size.height
            {
                let message = format!(
                    "Invalid file '{name}': it is {size}. This model takes square images only."
                );
                return Err(Violation::named(&name, "invalid_image_size", message));
            }
        }
        Ok(())
    }

    /// As it stands in `/v1/models`.
    pub(super) fn describe(&self) -> Json {
        let mut described = json!({
            "type": "file",
            "required": true,
            "max_items": self.max,
            "formats": self.formats,
        });
        if let Some(max_bytes) = self.max_bytes {
            described["max_bytes"] = json!(max_bytes);
        }
        if self.square {
            described["square"] = json!(true);
        }
        described
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        super::parameter::validate_list(&self.formats)
            .map_err(|problem| format!("images: {problem}"))
    }
}

impl MaskRule {
    /// Checks a mask for the first picture.
    pub(super) fn check(
        &self,
        mask: &InputPicture,
        image: Option<&InputPicture>,
        request: &ImageRequest,
    ) -> Result<(), Violation> {
        check_format(MASK, mask, &[OutputFormat::Png])?;
        check_bytes(MASK, mask, self.max_bytes)?;
        let bad = |message: String| Violation::named(MASK, "invalid_mask_image_format", message);
        let image_size = image.and_then(|image| image.size);
        if let (Some(mask_size), Some(image_size)) = (mask.size, image_size)
            && mask_size != image_size
        {
            return Err(bad(format!(
                "Invalid file 'mask': mask size does not match image size: the mask is {mask_size}, the first \
                 image is {image_size}."
            )));
        }
        if mask.has_alpha == Some(false) {
            return Err(bad(
                "Invalid file 'mask': it has no alpha channel. Fully transparent pixels say where to edit."
                    .to_owned(),
            ));
        }
        for (&parameter, allowed) in &self.needs {
            let allowed = scalars(allowed);
            let found = resolved(request, parameter);
            if found.as_ref().is_some_and(|value| !allowed.contains(value)) {
                return Err(Violation::named(
                    MASK,
                    "invalid_value",
                    format!(
                        "A 'mask' needs '{}' to be {}.",
                        parameter.as_str(),
                        alternatives(&allowed)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// As it stands in `/v1/models`.
    pub(super) fn describe(&self) -> Json {
        let mut described = json!({
            "type": "file",
            "formats": [OutputFormat::Png],
            "alpha": true,
            "size": "of the first image",
        });
        if let Some(max_bytes) = self.max_bytes {
            described["max_bytes"] = json!(max_bytes);
        }
        let conditions: Vec<String> = self
            .needs
            .iter()
            .map(|(parameter, allowed)| {
                let allowed = alternatives(&scalars(allowed));
                format!(
                    "when it is given, '{}' must be {allowed}",
                    parameter.as_str()
                )
            })
            .collect();
        if !conditions.is_empty() {
            described["conditions"] = json!(conditions);
        }
        described
    }

    /// The parameters it speaks of.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.needs.keys().copied()
    }
}

fn scalars(values: &[MaskScalar]) -> Vec<Scalar> {
    values.iter().map(|value| value.0.clone()).collect()
}

fn check_format(
    name: &str,
    picture: &InputPicture,
    formats: &[OutputFormat],
) -> Result<(), Violation> {
    if formats.contains(&picture.format) {
        Ok(())
    } else {
        let given = media_type(picture.format);
        Err(Violation::unsupported_file(name, given, formats))
    }
}

fn check_bytes(name: &str, picture: &InputPicture, max: Option<u64>) -> Result<(), Violation> {
    match max {
        Some(max) if picture.size_bytes > max => Err(Violation::named(
            name,
            "file_above_max_size",
            format!(
                "Invalid file '{name}': it has {} bytes. This model takes at most {max}.",
                picture.size_bytes
            ),
        )),
        _ => Ok(()),
    }
}

const fn media_type(format: OutputFormat) -> &'static str {
    match format {
        OutputFormat::Png => "image/png",
        OutputFormat::Jpeg => "image/jpeg",
        OutputFormat::Webp => "image/webp",
        OutputFormat::Gif => "image/gif",
        OutputFormat::Svg => "image/svg+xml",
    }
}

impl Violation {
    /// More pictures than are taken (the wording is that of `OpenAI`'s arrays).
    pub fn too_many_images(max: usize, given: usize) -> Self {
        let message = format!(
            "Invalid '{IMAGE}': array too long. Expected an array with maximum length {max}, but got an array \
             with length {given} instead."
        );
        Self::named(IMAGE, "array_above_max_length", message)
    }

    /// A file of a type that is not taken (`contracts/openai-images.md`, section 6).
    pub fn unsupported_file(name: &str, given: &str, formats: &[OutputFormat]) -> Self {
        let mut types: Vec<&str> = formats.iter().map(|format| media_type(*format)).collect();
        types.sort_unstable();
        Self::named(
            name,
            "unsupported_file_mimetype",
            format!(
                "Invalid file '{name}': unsupported mimetype ('{given}'). Supported file formats are {}.",
                quoted_list(&types, "and")
            ),
        )
    }
}
