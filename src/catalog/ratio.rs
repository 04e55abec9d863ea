//! Aspect ratios: how providers without pixel sizes say a size, and how slim a free size may be.

use std::{fmt, num::NonZeroU32, str::FromStr};

use super::vocabulary::{ImageSize, WordError};

/// Width to height, written `16:9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ratio {
    width: NonZeroU32,
    height: NonZeroU32,
}

impl Ratio {
    /// The listed ratio closest to that of `size`, if it is within `tolerance_percent` of it.
    pub fn nearest(ratios: &[Self], size: ImageSize, tolerance_percent: u32) -> Option<Self> {
        ratios
            .iter()
            .copied()
            .map(|ratio| (ratio.deviation(size), ratio))
            .filter(|((off, whole), _)| off * 100 <= u128::from(tolerance_percent) * whole)
            .min_by(|((off, whole), _), ((other_off, other_whole), _)| {
                (off * other_whole).cmp(&(other_off * whole))
            })
            .map(|(_, ratio)| ratio)
    }

    /// A size of this shape with about so many pixels.
    pub fn of_pixels(self, pixels: u32) -> ImageSize {
        let (width, height) = (u64::from(self.width.get()), u64::from(self.height.get()));
        // Its sides are `scale` times those of the ratio: scale² × width × height is the area.
        let scaled = |side: u64, other: u64| {
            let length = (u64::from(pixels) * side / other).isqrt();
            u32::try_from(length).ok().and_then(NonZeroU32::new)
        };
        ImageSize {
            width: scaled(width, height).unwrap_or(NonZeroU32::MIN),
            height: scaled(height, width).unwrap_or(NonZeroU32::MIN),
        }
    }

    /// Whether the longer side of `size` is at most this many times the shorter.
    pub fn contains(self, size: ImageSize) -> bool {
        let [short, long] = sorted(size.width.get(), size.height.get());
        let [low, high] = sorted(self.width.get(), self.height.get());
        long * low <= short * high
    }

    /// How far `size` is off this ratio, as a fraction of it.
    /// Sizes and ratios have sides below 2³², so the products of the fractions stay below 2¹²⁸.
    fn deviation(self, size: ImageSize) -> (u128, u128) {
        let ours = u128::from(size.width.get()) * u128::from(self.height.get());
        let listed = u128::from(size.height.get()) * u128::from(self.width.get());
        (ours.abs_diff(listed), listed)
    }
}

fn sorted(one: u32, other: u32) -> [u64; 2] {
    [u64::from(one.min(other)), u64::from(one.max(other))]
}

impl fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.width, self.height)
    }
}

impl FromStr for Ratio {
    type Err = WordError;

    /// Two plain decimals of at most three digits around a `:`.
    fn from_str(text: &str) -> Result<Self, WordError> {
        let side = |digits: &str| {
            let plain = (1..=3).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && !digits.starts_with('0');
            plain.then(|| digits.parse().ok()).flatten()
        };
        text.split_once(':')
            .and_then(|(width, height)| {
                Some(Self {
                    width: side(width)?,
                    height: side(height)?,
                })
            })
            .ok_or_else(|| WordError::new(text, "ratios such as 16:9"))
    }
}

impl<'de> serde::Deserialize<'de> for Ratio {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &str, size: &str, expected: Option<&str>) {
        let ratios: Vec<Ratio> = listed
            .split(' ')
            .map(|text| text.parse().unwrap())
            .collect();
        let nearest = Ratio::nearest(&ratios, size.parse().unwrap(), 2);
        assert_eq!(
            nearest.map(|ratio| ratio.to_string()).as_deref(),
            expected,
            "{size}"
        );
    }

    // `contracts/stability.md`, 7.2, and `contracts/replicate.md`, 7.2.
    #[test]
    fn the_nearest_ratio_is_taken_when_it_is_near_enough() {
        let stability = "21:9 16:9 3:2 5:4 1:1 4:5 2:3 9:16 9:21";
        check(stability, "1024x1024", Some("1:1"));
        check(stability, "1536x1024", Some("3:2"));
        check(stability, "1024x1536", Some("2:3"));
        check(stability, "1792x1024", Some("16:9"));
        check(stability, "1024x1792", Some("9:16"));
        check(stability, "1024x768", None);
        check(stability, "1000x1050", None);
        check("1:1", "1536x1024", None);
        check("50:49 1:1", "1020x1000", Some("50:49"));
    }

    #[test]
    fn a_shape_has_a_size() {
        for (ratio, expected) in [
            ("1:1", "1024x1024"),
            ("21:9", "1564x670"),
            ("2:3", "836x1254"),
            ("999:1", "32365x32"),
        ] {
            let size = ratio.parse::<Ratio>().unwrap().of_pixels(1024 * 1024);
            assert_eq!(size.to_string(), expected, "{ratio}");
        }
    }

    #[test]
    fn ratios_have_one_spelling() {
        for refused in [
            "", "1", "1:", ":1", "0:1", "1:0", "1x1", "-1:1", "01:1", "1000:1",
        ] {
            assert!(refused.parse::<Ratio>().is_err(), "{refused}");
        }
        assert_eq!("21:9".parse::<Ratio>().unwrap().to_string(), "21:9");
    }
}
