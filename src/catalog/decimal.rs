//! Numbers that need not be whole, such as `cfg_scale`: compared, listed and sent without a rounding error.
//! (Money has a type of its own.)

use std::{fmt, str::FromStr};

use super::vocabulary::WordError;

/// Parts of one.
const SCALE: i64 = 1_000_000;
const DIGITS: usize = 6;

/// A number in millionths; written `7`, `0.95`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(i64);

impl Decimal {
    /// The nearest to what a client wrote in JSON; what is beyond all measure becomes the most there is,
    /// for a range to refuse.
    pub fn nearest(number: f64) -> Self {
        let beyond = if number < 0.0 { i64::MIN } else { i64::MAX };
        format!("{number:.DIGITS$}").parse().unwrap_or(Self(beyond))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (
            self.0.unsigned_abs() / SCALE.unsigned_abs(),
            self.0.unsigned_abs() % SCALE.unsigned_abs(),
        );
        if rest == 0 {
            return write!(formatter, "{sign}{whole}");
        }
        let digits = format!("{rest:0DIGITS$}");
        write!(formatter, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl FromStr for Decimal {
    type Err = WordError;

    /// Plain digits, at most twelve before the point and six behind it.
    fn from_str(text: &str) -> Result<Self, WordError> {
        let (sign, plain) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, rest) = plain.split_once('.').unwrap_or((plain, "0"));
        let digits = |part: &str, most: usize| {
            let is_plain =
                (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| part.parse::<i64>().ok()).flatten()
        };
        digits(whole, 12)
            .and_then(|whole| {
                let padded = format!("{rest:0<DIGITS$}");
                let rest = digits(rest, DIGITS).and(digits(&padded, DIGITS))?;
                Some(Self(sign * (whole * SCALE + rest)))
            })
            .ok_or_else(|| WordError::new(text, "numbers such as 0.95"))
    }
}

impl serde::Serialize for Decimal {
    /// As a JSON number.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_string();
        let number = serde_json::from_str::<serde_json::Number>(&text);
        number
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written() {
        for (number, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.95, "0.95"),
            (0.1 + 0.2, "0.3"),
            (-2.5, "-2.5"),
            (0.000_000_4, "0"),
            (10.000_001, "10.000001"),
        ] {
            let read = Decimal::nearest(number);
            assert_eq!(read.to_string(), text);
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(text.parse::<Decimal>().unwrap(), read);
        }
        assert!(Decimal::nearest(1e300) > Decimal::nearest(1e11));
        assert!(Decimal::nearest(-1e300) < Decimal::nearest(-1e11));
        for refused in ["", "-", ".5", "5.", "1e3", "+1", "0.1234567", "--1", "1.-5"] {
            assert!(refused.parse::<Decimal>().is_err(), "{refused}");
        }
    }
}
