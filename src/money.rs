//! Money: whole nano-USD in an `i64`, decimals only at the edges.
//!
//! Pure. Knows nobody. There is no `f64` here and no conversion from a bare integer that is not
//! named: a price that cannot be read exactly is refused, and arithmetic that overflows is an error,
//! because the alternative to an error is a free picture.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::as_conversions
)]

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::Error as _};
use serde_json::value::RawValue;

/// An amount of money in nano-USD (10⁻⁹ USD). Published rates per million tokens are whole nano-USD
/// per token, which is why this unit and not micro-USD.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NanoUsd(i64);

/// Why an amount was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Text that is not a plain non-negative decimal with at most nine digits behind the point.
    #[error(
        "'{0}' is not an amount in USD: use plain decimals such as 12.50, at most nine digits after the point"
    )]
    Unreadable(String),
    /// Arithmetic left the range of `i64` nano-USD (about ±9.2 billion USD).
    #[error("an amount of money left the range that can be counted")]
    Overflow,
}

const NANO_PER_USD: i64 = 1_000_000_000;
const DIGITS_AFTER_POINT: usize = 9;

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount of `nano` nano-USD. Named, so that a bare number never turns into money by accident.
    pub const fn from_nano(nano: i64) -> Self {
        Self(nano)
    }

    /// This amount in nano-USD, for the database.
    pub const fn nano(self) -> i64 {
        self.0
    }

    /// Reads a plain decimal such as `12.5` or `0.000000001`.
    ///
    /// # Errors
    /// [`MoneyError::Unreadable`] on signs, exponents, blanks, more than nine digits after the point;
    /// [`MoneyError::Overflow`] beyond the countable range.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let unreadable = || MoneyError::Unreadable(text.to_owned());
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(unreadable()),
            Some(parts) => parts,
            None => (text, ""),
        };
        let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || !plain(whole)
            || !plain(fraction)
            || fraction.len() > DIGITS_AFTER_POINT
        {
            return Err(unreadable());
        }
        let whole: i64 = whole.parse().map_err(|_| MoneyError::Overflow)?;
        let fraction: i64 = format!("{fraction:0<DIGITS_AFTER_POINT$}")
            .parse()
            .map_err(|_| unreadable())?;
        whole
            .checked_mul(NANO_PER_USD)
            .and_then(|nano| nano.checked_add(fraction))
            .map(Self)
            .ok_or(MoneyError::Overflow)
    }

    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.0
            .checked_add(other.0)
            .map(Self)
            .ok_or(MoneyError::Overflow)
    }

    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.0
            .checked_sub(other.0)
            .map(Self)
            .ok_or(MoneyError::Overflow)
    }

    /// This amount `times` over.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn checked_mul(self, times: u64) -> Result<Self, MoneyError> {
        let times = i64::try_from(times).map_err(|_| MoneyError::Overflow)?;
        self.0
            .checked_mul(times)
            .map(Self)
            .ok_or(MoneyError::Overflow)
    }

    /// `numerator / denominator` of this amount, rounded half up (away from zero never matters:
    /// prices are not negative).
    ///
    /// # Errors
    /// [`MoneyError::Overflow`], also for a zero denominator.
    pub fn fraction_half_up(self, numerator: u64, denominator: u64) -> Result<Self, MoneyError> {
        let denominator = i128::from(denominator);
        let half = denominator.checked_div(2).ok_or(MoneyError::Overflow)?;
        i128::from(self.0)
            .checked_mul(i128::from(numerator))
            .and_then(|product| product.checked_add(half))
            .and_then(|sum| sum.checked_div_euclid(denominator))
            .and_then(|nano| i64::try_from(nano).ok())
            .map(Self)
            .ok_or(MoneyError::Overflow)
    }

    /// This price with a markup of `basis_points` (1/100 %) on top, rounded half up.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn with_markup(self, basis_points: u32) -> Result<Self, MoneyError> {
        let factor = u64::from(basis_points)
            .checked_add(10_000)
            .ok_or(MoneyError::Overflow)?;
        self.fraction_half_up(factor, 10_000)
    }

    /// Splits this amount into `parts` that differ by at most one nano-USD and add up to it exactly; one
    /// by one, because how many there are may be a provider's word.
    pub fn split(self, parts: usize) -> impl Iterator<Item = Self> {
        let count = i64::try_from(parts).unwrap_or(i64::MAX);
        let each = self.0.checked_div_euclid(count).unwrap_or(0);
        let rest = self.0.checked_rem_euclid(count).unwrap_or(0);
        (0..count).map(move |index| Self(each.saturating_add(i64::from(index < rest))))
    }

    /// The sum of `amounts`.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

/// Plain decimal USD without trailing zeros: `0.04`, `12`, `-0.000000001`.
impl fmt::Display for NanoUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let unit = NANO_PER_USD.unsigned_abs();
        let whole = magnitude.checked_div(unit).unwrap_or_default();
        let fraction = magnitude.checked_rem(unit).unwrap_or_default();
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction == 0 {
            return write!(formatter, "{sign}{whole}");
        }
        let digits = format!("{fraction:0DIGITS_AFTER_POINT$}");
        write!(formatter, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for NanoUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NanoUsd({self})")
    }
}

/// A JSON number in USD, exact to the last digit: the digits are written as they are and never pass
/// through a float. Works with `serde_json` only, which is the only format money leaves in.
impl Serialize for NanoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string())
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

/// What [`Serialize`] writes.
impl schemars::JsonSchema for NanoUsd {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NanoUsd".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "description": "USD, exact to the nano-USD"})
    }
}

/// A decimal **string** (`"0.040"`); a bare number would have passed through a float.
impl<'de> Deserialize<'de> for NanoUsd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &Result<i64, MoneyError>) {
        assert_eq!(&NanoUsd::parse(text).map(NanoUsd::nano), expected, "{text}");
    }

    #[test]
    fn reads_plain_decimals_and_nothing_else() {
        check("0", &Ok(0));
        check("0.04", &Ok(40_000_000));
        check("12.50", &Ok(12_500_000_000));
        check("0.000000001", &Ok(1));
        check("9223372036.854775807", &Ok(i64::MAX));
        check("9223372036.854775808", &Err(MoneyError::Overflow));
        check("99999999999", &Err(MoneyError::Overflow));
        for refused in [
            "",
            ".",
            ".5",
            "5.",
            "-1",
            "+1",
            "1e3",
            "1,5",
            " 1",
            "1 ",
            "0.0000000001",
            "NaN",
            "٣",
        ] {
            check(refused, &Err(MoneyError::Unreadable(refused.to_owned())));
        }
    }

    #[test]
    fn writes_the_shortest_exact_decimal() {
        for (nano, expected) in [
            (0, "0"),
            (40_000_000, "0.04"),
            (12_500_000_000, "12.5"),
            (1, "0.000000001"),
            (-1_000_000_001, "-1.000000001"),
            (i64::MIN, "-9223372036.854775808"),
        ] {
            assert_eq!(NanoUsd(nano).to_string(), expected);
            assert_eq!(serde_json::to_string(&NanoUsd(nano)).unwrap(), expected);
        }
    }

    #[test]
    fn markup_rounds_half_up() {
        for (nano, basis_points, expected) in [
            (40_000_000, 0, 40_000_000),
            (40_000_000, 2_500, 50_000_000),
            (1, 5_000, 2),
            (1, 4_999, 1),
            (3, 1_000, 3),
        ] {
            assert_eq!(
                NanoUsd(nano).with_markup(basis_points),
                Ok(NanoUsd(expected))
            );
        }
        assert_eq!(NanoUsd(i64::MAX).with_markup(1), Err(MoneyError::Overflow));
    }

    proptest! {
        #[test]
        fn text_round_trip(nano in 0..=i64::MAX) {
            prop_assert_eq!(NanoUsd::parse(&NanoUsd(nano).to_string()), Ok(NanoUsd(nano)));
        }

        #[test]
        fn a_split_adds_up_and_is_even(nano in 0..=i64::MAX, parts in 1_usize..20) {
            let shares: Vec<NanoUsd> = NanoUsd(nano).split(parts).collect();
            prop_assert_eq!(shares.len(), parts);
            prop_assert_eq!(NanoUsd::sum(shares.iter().copied()), Ok(NanoUsd(nano)));
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most.checked_sub(*least).unwrap() <= NanoUsd(1));
        }
    }
}
