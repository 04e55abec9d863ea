//! PNG: a signature and chunks of length, name, data and checksum, from IHDR to IEND.
//! (W3C PNG specification, third edition, sections 5.2–5.6.)

use super::{NotAPicture, Want, be32, refused, size_of};
use crate::catalog::ImageSize;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
pub(super) const START: Want = Want::Bytes {
    skip: SIGNATURE.len() as u64,
    take: CHUNK_HEADER,
};

const CHUNK_HEADER: usize = 8;
const CHECKSUM: u64 = 4;
const IHDR_DATA: u32 = 13;
/// Of the header's data: width, height, depth, colour type.
const HEADER: usize = 10;
const MAX_CHUNK: u32 = i32::MAX.unsigned_abs();

#[derive(Debug, Default)]
pub(super) struct Png {
    pub(super) size: Option<ImageSize>,
    at: At,
    has_data: bool,
    pub(super) has_alpha: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    First,
    Header,
    Chunk,
    Last,
    End,
}

impl Png {
    pub(super) fn is_whole(&self) -> bool {
        self.at == At::End
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Want, NotAPicture> {
        match self.at {
            At::First => {
                if be32(bytes, 0) != IHDR_DATA || !bytes.ends_with(b"IHDR") {
                    return Err(refused("a png without its header"));
                }
                self.at = At::Header;
                Ok(Want::take(HEADER))
            }
            At::Header => {
                self.size = size_of(be32(bytes, 0), be32(bytes, 4))?;
                // Greyscale and colour, each with alpha.
                self.has_alpha = matches!(bytes.last(), Some(4 | 6));
                self.at = At::Chunk;
                Ok(Want::Bytes {
                    skip: u64::from(IHDR_DATA) - HEADER as u64 + CHECKSUM,
                    take: CHUNK_HEADER,
                })
            }
            At::Chunk => self.chunk(be32(bytes, 0), &bytes[4..]),
            At::Last | At::End => {
                self.at = At::End;
                Ok(Want::Nothing)
            }
        }
    }

    fn chunk(&mut self, length: u32, name: &[u8]) -> Result<Want, NotAPicture> {
        if length > MAX_CHUNK || !name.iter().all(u8::is_ascii_alphabetic) {
            return Err(refused("a png with a chunk that is none"));
        }
        let skip = u64::from(length) + CHECKSUM;
        match name {
            b"IEND" if !self.has_data => Err(refused("a png without pixels")),
            b"IEND" => {
                self.at = At::Last;
                Ok(Want::Bytes { skip, take: 0 })
            }
            _ => {
                self.has_data |= name == b"IDAT";
                // One colour, or entries of the palette, are transparent.
                self.has_alpha |= name == b"tRNS";
                let take = CHUNK_HEADER;
                Ok(Want::Bytes { skip, take })
            }
        }
    }
}
