//! Base64 in chunks, both ways: what providers send becomes bytes, what we keep becomes `b64_json`.
//!
//! Pure. Any chunking gives the same result, and nothing is kept between two chunks but the few bytes
//! that do not fill a group of three. (RFC 4648, section 4.)

use std::sync::LazyLock;

use base64::{Engine as _, engine::GeneralPurposeConfig};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future, stream};

use super::sniff::NotAPicture;

/// Turns standard base64 text into bytes.
///
/// The alphabet is checked, the URL-safe one refused. CR and LF between symbols are tolerated (MIME
/// servers wrap their lines), so is missing padding; anything behind padding is not.
#[derive(Debug, Default)]
pub struct Base64Decoder {
    /// Symbols that do not fill a group of four yet.
    symbols: [u8; 4],
    filled: usize,
    /// `=` seen so far.
    padding: usize,
}

/// Turns bytes into standard base64 text with padding.
#[derive(Debug, Default)]
pub struct Base64Encoder {
    /// Bytes that do not fill a group of three yet.
    bytes: [u8; 3],
    filled: usize,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Fastest = base64::engine::Simd;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Fastest = base64::engine::GeneralPurpose;

/// Groups without padding, which is ours to handle: it belongs to the end of the text, not of a chunk.
static GROUPS: LazyLock<Fastest> = LazyLock::new(|| {
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone);
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Fastest::standard(config);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Fastest::new(&base64::alphabet::STANDARD, config);
});

/// How many characters `bytes` bytes are in base64; what `content-length` is computed from.
pub const fn encoded_len(bytes: u64) -> u64 {
    bytes.div_ceil(3).saturating_mul(4)
}

/// The text of a stream of bytes, a chunk for a chunk. Chunks whose length is a multiple of three (the
/// store's are) are encoded without being copied together.
pub fn encode_base64<E>(
    bytes: impl Stream<Item = Result<Bytes, E>>,
) -> impl Stream<Item = Result<Bytes, E>> {
    bytes
        .map(Some)
        .chain(stream::once(future::ready(None)))
        .scan(Base64Encoder::default(), |encoder, chunk| {
            let text = match chunk {
                Some(Ok(bytes)) => Ok(encoder.encode(&bytes)),
                Some(Err(error)) => Err(error),
                None => Ok(encoder.finish()),
            };
            future::ready(Some(text))
        })
        .filter(|text| future::ready(!matches!(text, Ok(text) if text.is_empty())))
}

impl Base64Decoder {
    /// Decodes the next characters and appends what they say to `bytes`.
    ///
    /// # Errors
    /// [`NotAPicture`] for anything that is not base64.
    pub fn decode(&mut self, mut text: &[u8], bytes: &mut Vec<u8>) -> Result<(), NotAPicture> {
        while let Some(&first) = text.first() {
            match first {
                b'\r' | b'\n' => text = &text[1..],
                b'=' => {
                    self.pad()?;
                    text = &text[1..];
                }
                _ => {
                    let end = memchr::memchr3(b'\r', b'\n', b'=', text).unwrap_or(text.len());
                    let (run, rest) = text.split_at(end);
                    self.run(run, bytes)?;
                    text = rest;
                }
            }
        }
        Ok(())
    }

    /// The end of the text.
    ///
    /// # Errors
    /// [`NotAPicture`] when it ends within a group.
    pub fn finish(&mut self, bytes: &mut Vec<u8>) -> Result<(), NotAPicture> {
        if self.padding > 0 && self.filled + self.padding != 4 {
            return Err(not_base64());
        }
        let filled = std::mem::take(&mut self.filled);
        groups(&self.symbols[..filled], bytes)
    }

    /// Decodes symbols without line breaks and padding.
    fn run(&mut self, mut run: &[u8], bytes: &mut Vec<u8>) -> Result<(), NotAPicture> {
        if self.padding > 0 {
            return Err(not_base64());
        }
        if self.filled > 0 {
            let taken = run.len().min(4 - self.filled);
            are_symbols(&run[..taken])?;
            self.symbols[self.filled..self.filled + taken].copy_from_slice(&run[..taken]);
            self.filled += taken;
            run = &run[taken..];
            if self.filled < 4 {
                return Ok(());
            }
            groups(&self.symbols, bytes)?;
            self.filled = 0;
        }
        let (whole, rest) = run.split_at(run.len() / 4 * 4);
        groups(whole, bytes)?;
        are_symbols(rest)?;
        self.symbols[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
        Ok(())
    }

    fn pad(&mut self) -> Result<(), NotAPicture> {
        self.padding += 1;
        if self.filled < 2 || self.filled + self.padding > 4 {
            return Err(not_base64());
        }
        Ok(())
    }
}

impl Base64Encoder {
    /// The text of the next bytes, as far as it is certain.
    pub fn encode(&mut self, mut bytes: &[u8]) -> Bytes {
        let mut text = vec![0; (self.filled + bytes.len()) / 3 * 4];
        let mut written = 0;
        if self.filled > 0 {
            let taken = bytes.len().min(3 - self.filled);
            self.bytes[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < 3 {
                return Bytes::new();
            }
            self.filled = 0;
            written = encode_groups(&self.bytes, &mut text);
        }
        let (whole, rest) = bytes.split_at(bytes.len() / 3 * 3);
        encode_groups(whole, &mut text[written..]);
        self.bytes[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
        text.into()
    }

    /// The last group with its padding; empty when there is none.
    pub fn finish(&mut self) -> Bytes {
        let mut text = *b"====";
        let filled = std::mem::take(&mut self.filled);
        match encode_groups(&self.bytes[..filled], &mut text) {
            0 => Bytes::new(),
            _ => Bytes::copy_from_slice(&text),
        }
    }
}

/// Looks at symbols that wait for the rest of their group: text is relayed as soon as it was decoded, so
/// nothing may pass that is none.
fn are_symbols(few: &[u8]) -> Result<(), NotAPicture> {
    few.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        .then_some(())
        .ok_or_else(not_base64)
}

fn groups(symbols: &[u8], bytes: &mut Vec<u8>) -> Result<(), NotAPicture> {
    let before = bytes.len();
    bytes.resize(before + symbols.len().div_ceil(4) * 3, 0);
    let decoded = GROUPS
        .decode_slice(symbols, &mut bytes[before..])
        // The engine's own message shows the symbol at fault, a piece of the picture.
        .map_err(|_| not_base64());
    bytes.truncate(before + *decoded.as_ref().unwrap_or(&0));
    decoded.map(drop)
}

/// Fills `text` from the front. It has room: every caller sized it by the same arithmetic.
fn encode_groups(bytes: &[u8], text: &mut [u8]) -> usize {
    GROUPS.encode_slice(bytes, text).unwrap_or(0)
}

fn not_base64() -> NotAPicture {
    NotAPicture("it is not base64".to_owned())
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
    use futures_util::TryStreamExt as _;
    use proptest::prelude::*;

    use super::*;

    /// Cuts `whole` at places derived from `cuts`.
    fn chunks<'a>(whole: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (whole.len() + 1)).collect();
        places.extend([0, whole.len()]);
        places.sort_unstable();
        places
            .windows(2)
            .map(|pair| &whole[pair[0]..pair[1]])
            .collect()
    }

    fn wrap(text: &str, length: usize) -> String {
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(length)
            .map(String::from_utf8_lossy)
            .collect();
        lines.join("\r\n")
    }

    /// What was taken may be on its way to a client already.
    #[test]
    fn nothing_passes_that_is_no_symbol_even_in_a_group_that_never_ends() {
        for text in ["Zm9v\"", "Zm9vZ\"", "Zm9vZm\"", "\"", "Zm9v\n\""] {
            for chunk in 1..text.len() {
                let mut decoder = Base64Decoder::default();
                let mut bytes = Vec::new();
                let refused = text
                    .as_bytes()
                    .chunks(chunk)
                    .any(|chunk| decoder.decode(chunk, &mut bytes).is_err());
                assert!(refused, "{text} in chunks of {chunk}");
            }
        }
        assert!(decode([&b"Zm8"[..]]).is_ok());
    }

    fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, NotAPicture> {
        let mut decoder = Base64Decoder::default();
        let mut bytes = Vec::new();
        for chunk in chunks {
            decoder.decode(chunk, &mut bytes)?;
        }
        decoder.finish(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn takes_standard_base64_and_nothing_else() {
        for (text, expected) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            // Missing padding, and lines.
            ("Zg", Some("f")),
            ("Zm8", Some("fo")),
            ("Zm\r\n9v\nZg=\n=\n", Some("foof")),
            // Padding that is wrong, or not at the end.
            ("Z", None),
            ("Zm9vZ", None),
            ("Zg=", None),
            ("Z===", None),
            ("Zg===", None),
            ("Zm8==", None),
            ("Zm9v=", None),
            ("=", None),
            ("====", None),
            ("Zg==Zg==", None),
            ("Zg==\nZ", None),
            // Bits that are thrown away.
            ("Zh==", None),
            ("Zm9=", None),
            // Other alphabets and other text.
            ("_-_-", None),
            ("Zm 9v", None),
            ("Zm\t9v", None),
            ("Zm9v\0", None),
            ("data:image/png;base64,Zm9v", None),
            ("Zm\\/v", None),
            ("Zmév", None),
        ] {
            let decoded = decode([text.as_bytes()]);
            assert_eq!(
                decoded.ok().as_deref(),
                expected.map(str::as_bytes),
                "{text}"
            );
            let one_by_one = decode(text.as_bytes().chunks(1));
            assert_eq!(
                one_by_one.ok().as_deref(),
                expected.map(str::as_bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn the_errors_do_not_repeat_the_bytes() {
        let error = decode([&b"Zm9v~secret"[..]]).unwrap_err();
        assert_eq!(error.to_string(), "not a whole picture: it is not base64");
    }

    proptest! {
        #[test]
        fn any_chunking_decodes_to_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
            line in 1_usize..200,
        ) {
            for text in [
                BASE64_STANDARD.encode(&bytes),
                BASE64_STANDARD_NO_PAD.encode(&bytes),
                wrap(&BASE64_STANDARD.encode(&bytes), line),
            ] {
                let decoded = decode(chunks(text.as_bytes(), &cuts));
                prop_assert_eq!(decoded.as_ref(), Ok(&bytes));
            }
        }

        #[test]
        fn one_wrong_symbol_anywhere_is_refused(
            bytes in proptest::collection::vec(any::<u8>(), 1..500),
            place in any::<prop::sample::Index>(),
            wrong in prop::sample::select(&b"-_ .~\0\xFF\\\""[..]),
            cuts in proptest::collection::vec(any::<usize>(), 0..5),
        ) {
            let mut text = BASE64_STANDARD.encode(&bytes).into_bytes();
            let place = place.index(text.len());
            text[place] = wrong;
            prop_assert!(decode(chunks(&text, &cuts)).is_err());
        }

        #[test]
        fn the_url_safe_alphabet_is_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let text = BASE64_URL_SAFE.encode(&bytes);
            let is_the_same = text == BASE64_STANDARD.encode(&bytes);
            prop_assert_eq!(decode([text.as_bytes()]).is_ok(), is_the_same);
        }

        #[test]
        fn any_chunking_encodes_to_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let chunks = chunks(&bytes, &cuts)
                .into_iter()
                .map(|chunk| Ok::<_, ()>(Bytes::copy_from_slice(chunk)));
            let text: Vec<Bytes> = futures_util::FutureExt::now_or_never(
                encode_base64(stream::iter(chunks)).try_collect(),
            )
            .unwrap()
            .unwrap();
            prop_assert!(text.iter().all(|chunk| !chunk.is_empty()));
            let text = text.concat();
            prop_assert_eq!(encoded_len(bytes.len() as u64), text.len() as u64);
            prop_assert_eq!(String::from_utf8(text), Ok(BASE64_STANDARD.encode(&bytes)));
        }
    }
}
