//! What pictures a model takes in: how many, which formats, how large; and what a mask must be.
//!
//! Judges descriptions of pictures, never their bytes.

use std::{
    collections::BTreeMap,
    num::{NonZeroU8, NonZeroU32},
};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    cross::{Scalar, alternatives, resolved},
    violation::{Violation, quoted_list},
};
use crate::catalog::{
    request::{ImageRequest, Parameter, Params},
    vocabulary::{ImageSize, OutputFormat, SizeChoice},
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
    /// The most bytes all of them may have together with the mask, for the body of one upstream request is limited.
    pub max_total_bytes: Option<u64>,
    /// Whether they must be square.
    #[serde(default)]
    pub square: bool,
    /// The shortest side one may have; absent: any.
    pub min_edge: Option<NonZeroU32>,
    /// The longest side one may have; absent: any.
    pub max_edge: Option<NonZeroU32>,
    /// Whether what comes out cannot be asked to have another size than what goes in.
    #[serde(default)]
    pub own_size: bool,
}

/// What a mask must be, beside a PNG with an alpha channel of the first picture's size.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskRule {
    /// The most bytes it may have.
    max_bytes: Option<u64>,
    /// The most pixels it, and so the picture below it, may have.
    max_pixels: Option<u64>,
    /// Whether there must be one, unless the picture's own transparency says where to edit.
    #[serde(default)]
    required: bool,
    /// Parameters that must have one of these values beside a mask.
    #[serde(default)]
    needs: BTreeMap<Parameter, Vec<MaskScalar>>,
    /// Parameters that cannot be given beside a mask.
    #[serde(default)]
    without: Vec<Parameter>,
    /// Parameters that can be given beside a mask only.
    #[serde(default)]
    enables: Vec<Parameter>,
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
            self.check_edges(&name, image)?;
        }
        Ok(())
    }

    fn check_edges(&self, name: &str, image: &InputPicture) -> Result<(), Violation> {
        let Some(size) = image.size else {
            return Ok(());
        };
        let (short, long) = (size.width.min(size.height), size.width.max(size.height));
        let limit = match (self.min_edge, self.max_edge) {
            (Some(least), _) if short < least => format!("no side below {least}"),
            (_, Some(most)) if long > most => format!("no side above {most}"),
            _ => return Ok(()),
        };
        let message = format!(
            "Invalid file '{name}': it is {size}. This model takes images with {limit} pixels."
        );
        Err(Violation::named(name, "invalid_image_size", message))
    }

    /// Checks what all pictures weigh together.
    pub(super) fn check_total(&self, pictures: &InputPictures<'_>) -> Result<(), Violation> {
        let all = pictures.images.iter().chain(pictures.mask);
        let total = all.fold(0_u64, |sum, picture| sum.saturating_add(picture.size_bytes));
        match self.max_total_bytes {
            Some(most) if total > most => {
                let message = format!(
                    "The images and the mask have {total} bytes together. This model takes at most {most} in one request."
                );
                Err(Violation::named(IMAGE, "file_above_max_size", message))
            }
            _ => Ok(()),
        }
    }

    /// Checks the size that was asked for against that of the picture.
    pub(super) fn check_asked(
        &self,
        images: &[InputPicture],
        asked: SizeChoice,
    ) -> Result<(), Violation> {
        let own = images.first().and_then(|image| image.size);
        match (asked, own) {
            (SizeChoice::Exact(asked), Some(own)) if self.own_size && asked != own => {
                Err(Violation::combination(
                    Parameter::Size,
                    &format!("'{asked}'"),
                    &format!(
                        "This model edits a picture of {own} in its own size: leave 'size' out."
                    ),
                ))
            }
            _ => Ok(()),
        }
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
        if let Some(max_total_bytes) = self.max_total_bytes {
            described["max_total_bytes"] = json!(max_total_bytes);
        }
        if self.square {
            described["square"] = json!(true);
        }
        for (name, edge) in [("min_edge", self.min_edge), ("max_edge", self.max_edge)] {
            if let Some(edge) = edge {
                described[name] = json!(edge);
            }
        }
        if self.own_size {
            described["own_size"] = json!(true);
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
        params: &Params,
        request: &ImageRequest,
    ) -> Result<(), Violation> {
        if let Some(refused) = self.without.iter().find(|each| params.contains_key(each)) {
            let name = refused.as_str();
            return Err(Violation::named(
                name,
                "unsupported_parameter",
                format!(
                    "Unsupported parameter: '{name}'. This model does not take it beside a 'mask'."
                ),
            ));
        }
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
        if let (Some(most), Some(size)) = (self.max_pixels, mask.size)
            && size.pixels() > most
        {
            let message = format!(
                "Invalid file 'mask': it is {size}. This model takes at most {most} pixels beside a mask."
            );
            return Err(Violation::named(MASK, "invalid_image_size", message));
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

    /// Checks a request without a mask, of which this is the first picture.
    pub(super) fn check_absence(
        &self,
        image: Option<&InputPicture>,
        params: &Params,
    ) -> Result<(), Violation> {
        if let Some(alone) = self.enables.iter().find(|each| params.contains_key(each)) {
            let name = alone.as_str();
            return Err(Violation::named(
                name,
                "unsupported_parameter",
                format!(
                    "Unsupported parameter: '{name}'. This model takes it beside a 'mask' only."
                ),
            ));
        }
        let says_where = image.is_some_and(|image| image.has_alpha == Some(true));
        if self.required && !says_where {
            return Err(Violation::named(
                MASK,
                "missing_required_parameter",
                "Missing required parameter: 'mask'. This model edits where a mask says, or where the \
                 image itself, a PNG, is transparent."
                    .to_owned(),
            ));
        }
        if self.required
            && let (Some(most), Some(size)) = (self.max_pixels, image.and_then(|image| image.size))
            && size.pixels() > most
        {
            let message = format!(
                "Invalid file '{IMAGE}': it is {size}. This model takes at most {most} pixels where the image itself \
                 says where to edit."
            );
            return Err(Violation::named(IMAGE, "invalid_image_size", message));
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
        if self.required {
            described["required"] = json!("unless the image is transparent where to edit");
        }
        if let Some(max_pixels) = self.max_pixels {
            described["max_pixels"] = json!(max_pixels);
        }
        if let Some(max_bytes) = self.max_bytes {
            described["max_bytes"] = json!(max_bytes);
        }
        let mut conditions: Vec<String> = self
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
        for (parameters, how) in [
            (&self.without, "when it is given"),
            (&self.enables, "when it is left out"),
        ] {
            conditions.extend(
                parameters
                    .iter()
                    .map(|parameter| format!("{how}, '{}' must be left out", parameter.as_str())),
            );
        }
        if !conditions.is_empty() {
            described["conditions"] = json!(conditions);
        }
        described
    }

    /// The parameters it speaks of.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        let lists = self.without.iter().chain(&self.enables);
        self.needs.keys().chain(lists).copied()
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

    /// The same in the names of the JSON form, where it is about the pictures: the form's `image` is `images`
    /// there, and a picture of it `images[0].image_url` (`contracts/openai-images.md`, 4.2).
    #[must_use]
    pub fn of_json(mut self) -> Self {
        let name = match (self.code, self.parameter.as_str()) {
            // There, 'image' is what nobody knows.
            ("unknown_parameter", _) => return self,
            ("missing_required_parameter" | "array_above_max_length", IMAGE) => "images".to_owned(),
            (_, IMAGE) => "images[0].image_url".to_owned(),
            (_, name) => match name.strip_prefix(IMAGE) {
                Some(place) if place.starts_with('[') => format!("images{place}.image_url"),
                _ => return self,
            },
        };
        let (before, now) = (format!("'{}'", self.parameter), format!("'{name}'"));
        self.message = self.message.replace(&before, &now);
        self.parameter = name;
        self
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
