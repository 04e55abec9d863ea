//! WebP: a RIFF container that says its own length, with chunks of name, length, data and padding.
//! (RFC 9649, sections 2.3–2.7; the frame headers: RFC 6386, section 9.1, and RFC 9649, section 3.4.)

use super::{NotAPicture, Want, le16, le32, refused, size_of};
use crate::catalog::ImageSize;

pub(super) const START: Want = Want::take(12);

const CHUNK_HEADER: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Webp {
    pub(super) size: Option<ImageSize>,
    at: At,
    /// Bytes that the container still announces.
    remaining: u64,
    has_pixels: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Container,
    Chunk,
    /// In the first `seen` bytes of a chunk's data, of which `rest` bytes follow.
    Header {
        kind: Kind,
        rest: u64,
    },
    Last,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Canvas,
    Lossy,
    Lossless,
}

impl Kind {
    /// How many bytes of the chunk tell the size.
    const fn seen(self) -> usize {
        match self {
            Self::Canvas | Self::Lossy => 10,
            Self::Lossless => 5,
        }
    }
}

impl Webp {
    pub(super) fn is_whole(&self) -> bool {
        self.at == At::End
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Want, NotAPicture> {
        match self.at {
            At::Container => {
                // The announced length counts from behind itself, "WEBP" included.
                self.remaining = u64::from(le32(bytes, 4)).saturating_sub(4);
                self.chunk_behind(0)
            }
            At::Chunk => self.chunk(&bytes[..4], le32(bytes, 4)),
            At::Header { kind, rest } => {
                let size = read_size(kind, bytes)?;
                // The canvas comes first and is what the file shows.
                self.size = self.size.or(size);
                self.chunk_behind(rest)
            }
            At::Last | At::End => {
                self.at = At::End;
                Ok(Want::Nothing)
            }
        }
    }

    fn chunk(&mut self, name: &[u8], length: u32) -> Result<Want, NotAPicture> {
        let length = u64::from(length);
        // Some writers do not announce the padding of the last chunk, and do not write it.
        let padded = if length == self.remaining {
            length
        } else {
            length + length % 2
        };
        self.remaining = self
            .remaining
            .checked_sub(padded)
            .ok_or_else(|| refused("a webp with a chunk that is none"))?;
        let kind = match name {
            b"VP8X" => Kind::Canvas,
            b"VP8 " => Kind::Lossy,
            b"VP8L" => Kind::Lossless,
            _ => {
                self.has_pixels |= name == b"ANMF";
                return self.chunk_behind(padded);
            }
        };
        self.has_pixels |= kind != Kind::Canvas;
        let take = kind.seen();
        let rest = padded
            .checked_sub(take as u64)
            .ok_or_else(|| refused("a webp with a chunk that is none"))?;
        self.at = At::Header { kind, rest };
        Ok(Want::take(take))
    }

    /// The next chunk, or the end, `skip` bytes from here.
    fn chunk_behind(&mut self, skip: u64) -> Result<Want, NotAPicture> {
        if self.remaining == 0 {
            if !self.has_pixels {
                return Err(refused("a webp without pixels"));
            }
            self.at = At::Last;
            return Ok(Want::Bytes { skip, take: 0 });
        }
        self.remaining = self
            .remaining
            .checked_sub(CHUNK_HEADER as u64)
            .ok_or_else(|| refused("a webp with a chunk that is none"))?;
        self.at = At::Chunk;
        let take = CHUNK_HEADER;
        Ok(Want::Bytes { skip, take })
    }
}

fn read_size(kind: Kind, bytes: &[u8]) -> Result<Option<ImageSize>, NotAPicture> {
    match kind {
        // Flags 4, then width and height less one in 3 bytes each.
        Kind::Canvas => {
            let width = le16(bytes, 4) | u32::from(bytes[6]) << 16;
            let height = le16(bytes, 7) | u32::from(bytes[9]) << 16;
            size_of(width + 1, height + 1)
        }
        // Frame tag 3, start code 3, then two bytes each: 14 bits of size, 2 of scale.
        Kind::Lossy if bytes[3..6] == [0x9D, 0x01, 0x2A] => {
            size_of(le16(bytes, 6) & 0x3FFF, le16(bytes, 8) & 0x3FFF)
        }
        // Signature 1, then 14 bits each of width and height less one.
        Kind::Lossless if bytes[0] == 0x2F => {
            let bits = le32(bytes, 1);
            size_of((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        }
        Kind::Lossy | Kind::Lossless => Err(refused("a webp without a key frame")),
    }
}
