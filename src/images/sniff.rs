//! What a file is, told from its bytes and never from what somebody calls it.
//!
//! A [`Sniffer`] walks along the structure of a picture (chunks, segments, blocks) while its bytes go
//! by, in any chunking, and keeps a few dozen of them at most. So it knows the dimensions however much
//! metadata stands before them, and at the end it knows whether the end was really there: a torso is
//! no picture, and neither is a picture with something else behind it. It decodes no pixels.
//!
//! Each format is a walker in a file of its own: given the bytes it asked for, it says which it wants next.

mod gif;
mod jpeg;
mod png;
#[cfg(test)]
pub(super) mod samples;
mod svg;
mod webp;

use crate::catalog::{ImageSize, OutputFormat};

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

/// What the bytes of a picture say.
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

impl PictureFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Png, Self::Jpeg, Self::Webp, Self::Gif, Self::Svg];

    /// The end of the file's name; also its word in tables: `png`, `jpeg`, `webp`, `gif`, `svg`.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Svg => "svg",
        }
    }

    /// The format with this [`extension`](Self::extension); one spelling only, so that a picture has
    /// one link.
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.extension() == extension)
    }

    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
            Self::Svg => "image/svg+xml",
        }
    }
}

impl From<OutputFormat> for PictureFormat {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Png => Self::Png,
            OutputFormat::Jpeg => Self::Jpeg,
            OutputFormat::Webp => Self::Webp,
            OutputFormat::Gif => Self::Gif,
            OutputFormat::Svg => Self::Svg,
        }
    }
}

impl From<PictureFormat> for OutputFormat {
    fn from(format: PictureFormat) -> Self {
        match format {
            PictureFormat::Png => Self::Png,
            PictureFormat::Jpeg => Self::Jpeg,
            PictureFormat::Webp => Self::Webp,
            PictureFormat::Gif => Self::Gif,
            PictureFormat::Svg => Self::Svg,
        }
    }
}

/// Tells what a stream of bytes is, and at its end whether it is whole.
#[derive(Debug)]
pub struct Sniffer {
    /// `None` until the first bytes have told the format.
    walker: Option<Walker>,
    want: Want,
    gathered: [u8; GATHER],
    filled: usize,
    /// Kept, so that a picture refused once is refused at its end too.
    failure: Option<NotAPicture>,
}

/// Bytes that tell every format apart.
const MAGIC: usize = 12;
/// The most that a walker asks to see at once.
const GATHER: usize = 16;

/// What a walker wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// To pass over `skip` bytes and to see the `take` bytes (at most [`GATHER`]) behind them.
    Bytes { skip: u64, take: usize },
    /// To see the one byte behind the next 0xFF. (JPEG's entropy-coded data.)
    AfterFf,
    /// To see everything. (SVG.)
    Everything,
    /// Nothing more: the picture ended before the last so many bytes.
    Behind(usize),
    /// That nothing comes any more.
    Nothing,
}

impl Want {
    const fn take(take: usize) -> Self {
        Self::Bytes { skip: 0, take }
    }
}

#[derive(Debug)]
enum Walker {
    Png(png::Png),
    Jpeg(jpeg::Jpeg),
    Webp(webp::Webp),
    Gif(gif::Gif),
    Svg(svg::Svg),
}

impl Default for Sniffer {
    fn default() -> Self {
        Self {
            walker: None,
            want: Want::take(MAGIC),
            gathered: [0; GATHER],
            filled: 0,
            failure: None,
        }
    }
}

impl Sniffer {
    /// Looks at the next bytes of the file.
    ///
    /// # Errors
    /// [`NotAPicture`] as soon as it is certain, and from then on always.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), NotAPicture> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let walked = match self.walk(bytes) {
            Ok(0) => Ok(()),
            Ok(_) => Err(refused("something follows the end of the picture")),
            Err(failure) => Err(failure),
        };
        walked.inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    /// The same, but what follows the end of the picture does not spoil it, where its format says where that is.
    /// Returns how many of the last bytes do; a few of them may have been in an earlier chunk.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn feed_to_end(&mut self, bytes: &[u8]) -> Result<usize, NotAPicture> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.walk(bytes)
            .inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    /// Whether the picture is whole: then whatever comes from now on is none of it.
    pub fn end_here(&mut self) -> bool {
        let is_whole = self.finish().is_ok();
        if is_whole {
            self.want = Want::Nothing;
        }
        is_whole
    }

    /// Whether the end of the picture has been seen: whatever comes is none of it.
    pub fn has_ended(&self) -> bool {
        self.failure.is_none() && self.want == Want::Nothing
    }

    /// What is known so far: the format after the first bytes, the size when they have gone by.
    pub fn info(&self) -> Option<PictureInfo> {
        self.walker.as_ref().map(Walker::info)
    }

    /// Whether a PNG can have transparent pixels, as far as it has been seen; `None` for other formats,
    /// which are not looked into.
    pub fn has_alpha(&self) -> Option<bool> {
        match &self.walker {
            Some(Walker::Png(png)) => Some(png.has_alpha),
            _ => None,
        }
    }

    /// The end of the file.
    ///
    /// # Errors
    /// [`NotAPicture`] when it ends where a picture of its format cannot end.
    pub fn finish(&self) -> Result<PictureInfo, NotAPicture> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let Some(walker) = &self.walker else {
            return Err(if self.filled == 0 {
                refused("it is empty")
            } else {
                refused("it has the first bytes of no format that is known")
            });
        };
        if walker.is_whole() && self.filled == 0 {
            Ok(walker.info())
        } else {
            let name = walker.info().format.extension();
            Err(NotAPicture(format!(
                "the bytes end before the {name} picture does"
            )))
        }
    }

    /// Returns how many bytes are behind the end.
    fn walk(&mut self, mut bytes: &[u8]) -> Result<usize, NotAPicture> {
        loop {
            match &mut self.want {
                Want::Bytes { skip, take } => {
                    let take = *take;
                    let passed = usize::try_from(*skip).unwrap_or(usize::MAX);
                    let passed = passed.min(bytes.len());
                    bytes = &bytes[passed..];
                    *skip -= passed as u64;
                    if *skip > 0 {
                        return Ok(0);
                    }
                    let seen = (take - self.filled).min(bytes.len());
                    self.gathered[self.filled..self.filled + seen].copy_from_slice(&bytes[..seen]);
                    bytes = &bytes[seen..];
                    self.filled += seen;
                    if self.filled < take {
                        return Ok(0);
                    }
                    self.filled = 0;
                    self.step(take)?;
                }
                Want::AfterFf => {
                    let Some(place) = memchr::memchr(0xFF, bytes) else {
                        return Ok(0);
                    };
                    bytes = &bytes[place + 1..];
                    self.want = Want::take(1);
                }
                Want::Everything => {
                    return match &mut self.walker {
                        Some(Walker::Svg(svg)) => svg.read(bytes).map(|()| 0),
                        _ => Ok(0),
                    };
                }
                Want::Behind(seen) => {
                    let surplus = bytes.len().saturating_add(*seen);
                    self.want = Want::Nothing;
                    return Ok(surplus);
                }
                Want::Nothing => return Ok(bytes.len()),
            }
        }
    }

    /// Shows the walker the `take` bytes that it asked for.
    fn step(&mut self, take: usize) -> Result<(), NotAPicture> {
        let gathered = self.gathered;
        let bytes = &gathered[..take];
        if let Some(walker) = &mut self.walker {
            self.want = walker.step(bytes)?;
            return Ok(());
        }
        let (walker, want) = Walker::begin(bytes)
            .ok_or_else(|| refused("it has the first bytes of no format that is known"))?;
        self.walker = Some(walker);
        self.want = want;
        // No format's end is among its first bytes.
        self.walk(bytes).map(drop)
    }
}

impl Walker {
    /// The walker for a file that begins with `magic`, and what it wants to see, from the first byte on.
    fn begin(magic: &[u8]) -> Option<(Self, Want)> {
        if magic.starts_with(png::SIGNATURE) {
            Some((Self::Png(png::Png::default()), png::START))
        } else if magic.starts_with(&[0xFF, 0xD8, 0xFF]) {
            Some((Self::Jpeg(jpeg::Jpeg::default()), jpeg::START))
        } else if magic.starts_with(b"RIFF") && magic.ends_with(b"WEBP") {
            Some((Self::Webp(webp::Webp::default()), webp::START))
        } else if magic.starts_with(b"GIF87a") || magic.starts_with(b"GIF89a") {
            Some((Self::Gif(gif::Gif::default()), gif::START))
        } else if svg::may_begin(magic) {
            Some((Self::Svg(svg::Svg::default()), Want::Everything))
        } else {
            None
        }
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Want, NotAPicture> {
        match self {
            Self::Png(walker) => walker.step(bytes),
            Self::Jpeg(walker) => walker.step(bytes),
            Self::Webp(walker) => walker.step(bytes),
            Self::Gif(walker) => walker.step(bytes),
            Self::Svg(_) => Ok(Want::Everything),
        }
    }

    fn info(&self) -> PictureInfo {
        let (format, size) = match self {
            Self::Png(walker) => (PictureFormat::Png, walker.size),
            Self::Jpeg(walker) => (PictureFormat::Jpeg, walker.size),
            Self::Webp(walker) => (PictureFormat::Webp, walker.size),
            Self::Gif(walker) => (PictureFormat::Gif, walker.size),
            Self::Svg(walker) => (PictureFormat::Svg, walker.size()),
        };
        PictureInfo { format, size }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Png(walker) => walker.is_whole(),
            Self::Jpeg(walker) => walker.is_whole(),
            Self::Webp(walker) => walker.is_whole(),
            Self::Gif(walker) => walker.is_whole(),
            Self::Svg(walker) => walker.is_whole(),
        }
    }
}

/// Why bytes are refused. Static, so that nothing of the bytes gets into a log.
fn refused(why: &'static str) -> NotAPicture {
    NotAPicture(why.to_owned())
}

/// The longest side that is believed; other formats than PNG cannot say more. No model paints a tenth of
/// it, and a provider that lies here would lie about megapixels, which are charged.
const LONGEST_SIDE: u32 = 65_535;

/// A size with both sides above zero and within reason.
fn size_of(width: u32, height: u32) -> Result<Option<ImageSize>, NotAPicture> {
    if width.max(height) > LONGEST_SIDE {
        return Err(refused("a side is longer than 65535 pixels"));
    }
    match ImageSize::new(width, height) {
        Some(size) => Ok(Some(size)),
        None => Err(refused("a side is 0 pixels long")),
    }
}

fn be16(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 2)
        .map_or(0, |two| u32::from(u16::from_be_bytes([two[0], two[1]])))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    be16(bytes, at) << 16 | be16(bytes, at + 2)
}

fn le16(bytes: &[u8], at: usize) -> u32 {
    be16(bytes, at).swap_bytes() >> 16
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    be32(bytes, at).swap_bytes()
}

#[cfg(test)]
mod tests;
