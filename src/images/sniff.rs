//! What a file is, told from its bytes and never from what somebody calls it.

use crate::catalog::ImageSize;

/// The formats we keep and serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PictureFormat {
    /// `image/png`
    Png,
    /// `image/jpeg`
    Jpeg,
    /// `image/webp`
    Webp,
    /// `image/gif`
    Gif,
    /// `image/svg+xml`
    Svg,
}

/// What the first bytes of a picture say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureInfo {
    /// The format.
    pub format: PictureFormat,
    /// Width and height; `None` for a vector picture without them.
    pub size: Option<ImageSize>,
}

/// Bytes that are no picture of a known format, or a torso of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a whole picture: {0}")]
pub struct NotAPicture(pub String);
