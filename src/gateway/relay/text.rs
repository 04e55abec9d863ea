//! What a provider sends of a picture, as base64 that can stand in JSON: symbols and padding, nothing else.
//!
//! Pure. The text of the whole picture is the one that encoding its bytes gives, so that a place in the one
//! is a place in the other: the first `n` characters are those of the first `n / 4 * 3` bytes and a few. What
//! stands behind the end of a picture is left out, in a provider's own text to the group of four.

use bytes::Bytes;

use crate::{
    images::{Base64Encoder, encoded_len},
    providers::Encoding,
};

/// The text of one picture, as it goes along. What it is given has been checked before.
#[derive(Debug)]
pub(super) enum Text {
    /// The provider's own text, so many characters of it so far.
    Base64(u64),
    /// So many bytes so far.
    Raw(Base64Encoder, u64),
}

impl Text {
    pub(super) fn of(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Raw => Self::Raw(Base64Encoder::default(), 0),
            Encoding::Base64 => Self::Base64(0),
        }
    }

    /// The text of the next bytes, as far as it is certain. Almost always that of a provider as it is. `size`:
    /// how many bytes the picture has, once that is known.
    pub(super) fn take(&mut self, bytes: &Bytes, size: Option<u64>) -> Bytes {
        match self {
            Self::Raw(encoder, taken) => {
                let bytes = within(bytes.clone(), *taken, size);
                *taken = taken.saturating_add(bytes.len() as u64);
                encoder.encode(&bytes)
            }
            Self::Base64(length) => {
                let text = within(without_line_ends(bytes), *length, size.map(encoded_len));
                *length = length.saturating_add(text.len() as u64);
                text
            }
        }
    }

    /// The end of a picture that was found whole: its padding, where the provider left it out.
    pub(super) fn finish(self) -> Bytes {
        match self {
            Self::Raw(mut encoder, _) => encoder.finish(),
            Self::Base64(length) => Bytes::from_static(match length % 4 {
                2 => b"==",
                3 => b"=",
                _ => b"",
            }),
        }
    }
}

/// What of the next bytes, behind so many, is before the end.
fn within(mut bytes: Bytes, before: u64, end: Option<u64>) -> Bytes {
    if let Some(end) = end {
        bytes.truncate(usize::try_from(end.saturating_sub(before)).unwrap_or(usize::MAX));
    }
    bytes
}

fn without_line_ends(text: &Bytes) -> Bytes {
    if memchr::memchr2(b'\r', b'\n', text).is_none() {
        return text.clone();
    }
    let is_symbol = |byte: &u8| !matches!(byte, b'\r' | b'\n');
    text.iter().copied().filter(is_symbol).collect()
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, Engine as _};
    use proptest::prelude::*;

    use super::*;

    fn run(encoding: Encoding, whole: &[u8], chunk: usize) -> Vec<u8> {
        let mut text = Text::of(encoding);
        let mut written = Vec::new();
        for chunk in whole.chunks(chunk) {
            written.extend_from_slice(&text.take(&Bytes::copy_from_slice(chunk), None));
        }
        written.extend_from_slice(&text.finish());
        written
    }

    proptest! {
        #[test]
        fn every_way_to_send_a_picture_gives_the_same_text(
            bytes in proptest::collection::vec(any::<u8>(), 0..500),
            line in 1_usize..100,
            chunk in 1_usize..200,
        ) {
            let expected = BASE64_STANDARD.encode(&bytes).into_bytes();
            let lines: Vec<_> = expected.chunks(line).collect();
            let wrapped = lines.join(&b"\r\n"[..]);
            let unpadded = BASE64_STANDARD_NO_PAD.encode(&bytes).into_bytes();
            prop_assert_eq!(&run(Encoding::Raw, &bytes, chunk), &expected);
            for text in [&expected, &wrapped, &unpadded] {
                prop_assert_eq!(&run(Encoding::Base64, text, chunk), &expected);
            }
        }
    }

    #[test]
    fn a_providers_own_text_is_not_copied() {
        let whole = Bytes::from_static(b"Zm9vYmFy");
        let taken = Text::of(Encoding::Base64).take(&whole, None);
        assert_eq!(taken.as_ptr(), whole.as_ptr());
    }
}
