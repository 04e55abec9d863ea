//! How many tokens an input image counts as, at most: by tiles, by patches, or one number for any.
//!
//! The providers' own countings are not published whole, so these are bounds for the hold; what is charged
//! is the usage that is reported.

use serde::Deserialize;

use crate::catalog::vocabulary::{ImageSize, InputFidelity};

/// Where the number of tokens is known from.
#[derive(Debug, Clone)]
pub(super) enum InputTokens {
    /// The same for every picture.
    Flat(u64),
    Tiles(InputTiles),
    Patches(InputPatches),
}

/// Pictures are shrunk until the shorter side is one tile long, and take `base` tokens and `tile` for each
/// tile (`contracts/openai-images.md`, section 10: G1, 512 pixels a tile).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputTiles {
    base: u64,
    tile: u64,
    /// The most tiles there can be, however long a picture is.
    most: u64,
    /// What high fidelity adds for a square picture; absent: nothing.
    high_square: Option<u64>,
    /// What it adds for any other.
    high: Option<u64>,
}

/// Pictures take a token for each patch of `side` pixels, and are shrunk to `most` patches
/// (`contracts/openai-images.md`, section 10: G2). Those whose longer side is below `enlarged_to` are
/// enlarged to it, up to twice their size; those narrower than 1:3 count as 1:3.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputPatches {
    side: u64,
    most: u64,
    enlarged_to: u64,
}

impl InputTokens {
    /// The most tokens of one picture; `None` beyond the countable.
    pub(super) fn of(&self, size: ImageSize, fidelity: Option<InputFidelity>) -> Option<u64> {
        match self {
            Self::Flat(tokens) => Some(*tokens),
            Self::Tiles(tiles) => tiles.tokens(size, fidelity),
            Self::Patches(patches) => patches.tokens(size),
        }
    }
}

/// The longer side and the shorter one.
fn sides(size: ImageSize) -> (u64, u64) {
    let (width, height) = (u64::from(size.width.get()), u64::from(size.height.get()));
    (width.max(height), width.min(height))
}

impl InputTiles {
    fn tokens(&self, size: ImageSize, fidelity: Option<InputFidelity>) -> Option<u64> {
        let (long, short) = sides(size);
        let tiles = long.div_ceil(short).min(self.most);
        let plain = self.tile.checked_mul(tiles)?.checked_add(self.base)?;
        let more = match fidelity {
            Some(InputFidelity::High) if long == short => self.high_square,
            Some(InputFidelity::High) => self.high,
            Some(InputFidelity::Low) | None => None,
        };
        plain.checked_add(more.unwrap_or(0))
    }
}

impl InputPatches {
    fn tokens(&self, size: ImageSize) -> Option<u64> {
        let (long, short) = sides(size);
        let short = short.max(long.div_ceil(3));
        let patches = |long: u64, short: u64| {
            let along = long.div_ceil(self.side.max(1));
            along.checked_mul(short.div_ceil(self.side.max(1)))
        };
        // Twice the size, unless that is beyond what is enlarged to.
        let enlarged_long = long.checked_mul(2)?.min(self.enlarged_to).max(long);
        let enlarged_short = short.checked_mul(enlarged_long)?.div_ceil(long);
        Some(patches(enlarged_long, enlarged_short)?.min(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &InputTokens, size: &str, fidelity: Option<InputFidelity>, expected: u64) {
        let size = size.parse().unwrap();
        assert_eq!(tokens.of(size, fidelity), Some(expected), "{size}");
    }

    // Billed by OpenAI, as users of its community measured: 194 tokens for one tile, 323 for two, 6240 more
    // with high fidelity for a picture that is no square (threads 1281361 and 1275254, 2025).
    #[test]
    fn tiles_are_counted_along_the_longer_side() {
        let tiles = InputTokens::Tiles(InputTiles {
            base: 65,
            tile: 129,
            most: 8,
            high_square: Some(4160),
            high: Some(6240),
        });
        check(&tiles, "1024x1024", None, 194);
        check(&tiles, "64x64", Some(InputFidelity::Low), 194);
        check(&tiles, "512x513", None, 323);
        check(&tiles, "1920x1080", None, 323);
        check(&tiles, "1x65535", None, 65 + 8 * 129);
        check(&tiles, "1024x1024", Some(InputFidelity::High), 4354);
        check(&tiles, "1536x1024", Some(InputFidelity::High), 6563);
    }

    #[test]
    fn patches_are_counted_over_the_enlarged_and_shrunk_picture() {
        let patches = InputTokens::Patches(InputPatches {
            side: 32,
            most: 1536,
            enlarged_to: 1024,
        });
        check(&patches, "1024x1024", None, 1024);
        check(&patches, "512x512", None, 1024);
        check(&patches, "256x256", None, 256);
        check(&patches, "768x512", None, 32 * 22);
        check(&patches, "4096x4096", None, 1536);
        check(&patches, "3000x10", None, 1536);
        check(&patches, "960x10", None, 32 * 11);
    }
}
