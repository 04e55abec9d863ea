//! GIF: a screen, then frames and extensions in sub-blocks of up to 255 bytes, to the trailer.
//! (The 89a specification, sections 15–27.)

use super::{NotAPicture, Want, le16, refused, size_of};
use crate::catalog::ImageSize;

pub(super) const START: Want = Want::take(13);

const FRAME: u8 = 0x2C;
const EXTENSION: u8 = 0x21;
const TRAILER: u8 = 0x3B;

#[derive(Debug, Default)]
pub(super) struct Gif {
    /// The screen, and what frames have beyond it: some decoders enlarge it for them, and pixels are paid for.
    pub(super) size: Option<ImageSize>,
    at: At,
    has_frame: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Screen,
    Block,
    Frame,
    /// Before one byte that does not matter here and the length of the first sub-block.
    FirstSubBlock,
    SubBlock,
    End,
}

impl Gif {
    pub(super) fn is_whole(&self) -> bool {
        self.at == At::End
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Want, NotAPicture> {
        let last = bytes.last().copied().unwrap_or(0);
        match self.at {
            At::Screen => {
                self.size = size_of(le16(bytes, 6), le16(bytes, 8))?;
                self.at = At::Block;
                Ok(Want::Bytes {
                    skip: colour_table(bytes[10]),
                    take: 1,
                })
            }
            At::Block => match last {
                FRAME => {
                    self.at = At::Frame;
                    Ok(Want::take(9))
                }
                EXTENSION => {
                    self.at = At::FirstSubBlock;
                    Ok(Want::take(2))
                }
                TRAILER if self.has_frame => {
                    self.at = At::End;
                    Ok(Want::Nothing)
                }
                TRAILER => Err(refused("a gif without pixels")),
                _ => Err(refused("a gif with a block that is none")),
            },
            At::Frame => {
                self.has_frame = true;
                let [right, bottom] = [0, 2].map(|at| le16(bytes, at) + le16(bytes, at + 4));
                let (width, height) = self
                    .size
                    .map_or((0, 0), |screen| (screen.width.get(), screen.height.get()));
                self.size = size_of(width.max(right), height.max(bottom))?;
                self.at = At::FirstSubBlock;
                Ok(Want::Bytes {
                    skip: colour_table(last),
                    take: 2,
                })
            }
            At::FirstSubBlock | At::SubBlock => {
                self.at = if last == 0 { At::Block } else { At::SubBlock };
                Ok(Want::Bytes {
                    skip: u64::from(last),
                    take: 1,
                })
            }
            At::End => Ok(Want::Nothing),
        }
    }
}

/// The bytes of the colour table that these flags announce.
fn colour_table(flags: u8) -> u64 {
    if flags & 0x80 == 0 {
        0
    } else {
        3 << ((flags & 0x07) + 1)
    }
}
