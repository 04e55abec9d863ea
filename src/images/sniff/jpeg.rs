//! JPEG: marker segments with a length, and behind each SOS entropy-coded data in which 0xFF is
//! escaped, from SOI to EOI. (ITU-T T.81, annex B.)
//!
//! Behind EOI there may be zero padding and further JPEGs (multi-picture files: previews, gain maps;
//! CIPA DC-007), which must be as whole as the first.

use super::{NotAPicture, Want, be16, refused, size_of};
use crate::catalog::ImageSize;

/// The first picture begins where a further one begins.
pub(super) const START: Want = Want::take(2);

#[derive(Debug, Default)]
pub(super) struct Jpeg {
    pub(super) size: Option<ImageSize>,
    at: At,
    has_frame: bool,
    has_scan: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before SOI.
    #[default]
    Start,
    /// Before a marker's 0xFF.
    Marker,
    /// Between a marker's 0xFF, or several, and its code.
    Code,
    /// Before the length and the first fields of a segment.
    Segment,
    Frame,
    Scan,
    /// Behind a 0xFF in entropy-coded data.
    Data,
    /// Behind EOI.
    End,
    /// Behind a 0xFF behind EOI.
    Further,
}

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

impl Jpeg {
    pub(super) fn is_whole(&self) -> bool {
        self.at == At::End
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Want, NotAPicture> {
        let first = bytes.first().copied().unwrap_or(0);
        match self.at {
            At::Start => Ok(self.go(At::Marker)),
            At::Marker if first == 0xFF => Ok(self.go(At::Code)),
            At::Marker => Err(refused("a jpeg with a segment that is none")),
            At::Code => self.marker(first),
            At::Segment => self.segment(be16(bytes, 0), 2, At::Marker),
            At::Frame => {
                // Length 2, precision 1, height 2, width 2.
                let size = size_of(be16(bytes, 5), be16(bytes, 3))?;
                self.size = self.size.or(size);
                self.has_frame = true;
                self.segment(be16(bytes, 0), 7, At::Marker)
            }
            At::Scan => {
                if !self.has_frame {
                    return Err(refused("a jpeg with pixels before its size"));
                }
                self.has_scan = true;
                self.segment(be16(bytes, 0), 2, At::Data)
            }
            At::Data => match bytes.first() {
                // The scan's header has gone by; or an escaped 0xFF, or a restart marker.
                None | Some(0x00 | 0xD0..=0xD7) => Ok(Want::AfterFf),
                Some(&code) => self.marker(code),
            },
            At::End => match first {
                0x00 => Ok(Want::take(1)),
                0xFF => Ok(self.go(At::Further)),
                _ => Ok(Want::Behind(1)),
            },
            At::Further if first == SOI => {
                self.has_frame = false;
                self.has_scan = false;
                Ok(self.go(At::Marker))
            }
            At::Further => {
                self.at = At::End;
                Ok(Want::Behind(2))
            }
        }
    }

    fn go(&mut self, at: At) -> Want {
        self.at = at;
        Want::take(match at {
            At::Start | At::Segment | At::Scan => 2,
            At::Frame => 7,
            At::Marker | At::Code | At::Data | At::End | At::Further => 1,
        })
    }

    fn marker(&mut self, code: u8) -> Result<Want, NotAPicture> {
        match code {
            // Fill bytes.
            0xFF => Ok(self.go(At::Code)),
            // SOF0 to SOF15, without DHT, JPG and DAC.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => Ok(self.go(At::Frame)),
            SOS => Ok(self.go(At::Scan)),
            EOI if self.has_scan => Ok(self.go(At::End)),
            EOI => Err(refused("a jpeg without pixels")),
            // TEM and stray restart markers stand alone.
            0x01 | 0xD0..=0xD7 => Ok(self.go(At::Marker)),
            0xC4 | 0xC8 | 0xCC | 0xDB..=0xFE => Ok(self.go(At::Segment)),
            0x00 | 0x02..=0xBF | SOI => Err(refused("a jpeg with a segment that is none")),
        }
    }

    /// Passes over the rest of a segment whose length and first fields, `seen` bytes, have gone by.
    fn segment(&mut self, length: u32, seen: u32, next: At) -> Result<Want, NotAPicture> {
        let Some(rest) = length.checked_sub(seen) else {
            return Err(refused("a jpeg with a segment that is none"));
        };
        self.at = next;
        Ok(Want::Bytes {
            skip: u64::from(rest),
            take: usize::from(next != At::Data),
        })
    }
}
