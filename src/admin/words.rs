//! Words of an operator that need more than a plain type: names, instants, spans, bounds, models. The same on
//! the command line and in the admin API, and refused in the same words.

use std::{convert::Infallible, str::FromStr, time::Duration};

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    addresses::{IpRange, IpRangeError},
    catalog::Catalog,
    ledger::MAX_ACCOUNT_MARKUP_BASIS_POINTS,
    money::NanoUsd,
    postgres::clean,
};

/// A name for people, or a reference: there, and short enough for the index it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

/// `none`, or a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound(pub(crate) Option<u32>);

/// `none`, or an amount in USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpendBound(pub(crate) Option<NanoUsd>);

/// `any`, or the networks that a key may be used from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ips(pub(crate) Option<Vec<IpRange>>);

/// `none`, or basis points that an account can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Markup(pub(crate) Option<u32>);

/// `never`, an instant, or a span from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    Never,
    At(DateTime<Utc>),
    In(Duration),
}

/// An instant, a day (its beginning, UTC), also by how many days ago it was, or a span before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    DaysAgo(u64),
    At(DateTime<Utc>),
    Ago(Duration),
}

/// A span of time such as `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// How long an old secret goes on beside the new one unless said otherwise: long enough for a rollout.
pub(crate) const DEFAULT_OVERLAP: Duration = Duration::from_hours(24);

/// `all`, or names of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Models(pub(crate) Option<Vec<String>>);

/// Text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub(crate) struct ValueError {
    expected: &'static str,
}

/// Networks that a key cannot be bound to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IpsError {
    /// One of them is none.
    #[error(transparent)]
    Range(#[from] IpRangeError),
    /// More than there can be.
    #[error("there can be at most {MOST_RANGES} networks")]
    TooMany,
    /// None, which could be taken for all.
    #[error("there must be at least one network; null is any address")]
    None,
}

/// Words that can be read, and mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MeaningError {
    /// An end that was.
    #[error("{} is past", .0.to_rfc3339_opts(SecondsFormat::AutoSi, true))]
    Past(DateTime<Utc>),
    /// An end beyond the calendar.
    #[error("that is too far away")]
    TooFar,
    /// A model the catalog does not know, and perhaps the nearest that it does.
    #[error("there is no model '{name}' in the catalog{}", .nearest.as_deref().map(|nearest| format!("; did you mean '{nearest}'?")).unwrap_or_default())]
    NoModel {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
}

/// Longest name in characters. Names are in indexes, and an entry of an index that is too large fails the
/// statement.
const LONGEST_NAME_CHARS: usize = 255;

impl FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let kept = clean(text);
        // Names are printed on terminals, where an escape is a command.
        if kept.trim().is_empty()
            || kept.chars().count() > LONGEST_NAME_CHARS
            || kept.chars().any(char::is_control)
        {
            return Err(ValueError {
                expected: "a name of 1 to 255 characters, none of them a control character",
            });
        }
        Ok(Self(kept))
    }
}

impl FromStr for Bound {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|bound| Self(Some(bound)))
            .map_err(|_| ValueError {
                expected: "a whole number, or none",
            })
    }
}

impl FromStr for SpendBound {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "none" {
            return Ok(Self(None));
        }
        NanoUsd::parse(text)
            .map(|amount| Self(Some(amount)))
            .map_err(|_| ValueError {
                expected: "an amount in USD such as 12.50, or none",
            })
    }
}

/// Networks that a key can be bound to: more are a matter for a firewall.
const MOST_RANGES: usize = 100;

impl FromStr for Ips {
    type Err = IpsError;

    fn from_str(text: &str) -> Result<Self, IpsError> {
        if text == "any" {
            return Ok(Self(None));
        }
        Self::listed(text.split(','))
    }
}

impl Ips {
    /// Those of a list.
    pub(crate) fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, IpsError> {
        let mut ranges = Vec::new();
        for text in texts {
            let range = text.parse()?;
            if !ranges.contains(&range) {
                ranges.push(range);
            }
            if ranges.len() > MOST_RANGES {
                return Err(IpsError::TooMany);
            }
        }
        if ranges.is_empty() {
            return Err(IpsError::None);
        }
        Ok(Self(Some(ranges)))
    }
}

impl FromStr for Markup {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let in_range = |markup: u32| markup <= MAX_ACCOUNT_MARKUP_BASIS_POINTS;
        match text.parse() {
            Ok(Bound(markup)) if markup.is_none_or(in_range) => Ok(Self(markup)),
            Ok(Bound(_)) | Err(_) => Err(ValueError {
                expected: "basis points (1/100 %) from 0 to 1000000, or none",
            }),
        }
    }
}

impl FromStr for Expiry {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "never" {
            return Ok(Self::Never);
        }
        instant(text)
            .map(Self::At)
            .or_else(|| humantime::parse_duration(text).ok().map(Self::In))
            .ok_or(ValueError {
                expected: "an instant such as 2027-01-31T00:00:00Z, a span such as 30d, or never",
            })
    }
}

impl Expiry {
    /// When that is; refuses what is past.
    pub(crate) fn at(self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, MeaningError> {
        let end = match self {
            Self::Never => return Ok(None),
            Self::At(instant) => instant,
            Self::In(span) => after(now, span)?,
        };
        if end <= now {
            return Err(MeaningError::Past(end));
        }
        Ok(Some(end))
    }
}

impl FromStr for Moment {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "today" => return Ok(Self::DaysAgo(0)),
            "yesterday" => return Ok(Self::DaysAgo(1)),
            _ => {}
        }
        instant(text)
            .or_else(|| {
                let day: NaiveDate = text.parse().ok()?;
                Some(day.and_time(NaiveTime::MIN).and_utc()).filter(is_of_rfc_3339)
            })
            .map(Self::At)
            .or_else(|| humantime::parse_duration(text).ok().map(Self::Ago))
            .ok_or(ValueError {
                expected: "a day such as 2026-11-20, today or yesterday, an instant such as 2026-11-20T12:00:00Z, or a span back from now such as 7d",
            })
    }
}

impl Moment {
    /// When that is; a span that reaches before all time is the beginning of it.
    pub(crate) fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(instant) => instant,
            Self::DaysAgo(days) => now
                .date_naive()
                .checked_sub_days(Days::new(days))
                .map_or(DateTime::UNIX_EPOCH, |day| {
                    day.and_time(NaiveTime::MIN).and_utc()
                }),
            Self::Ago(span) => TimeDelta::from_std(span)
                .ok()
                .and_then(|span| now.checked_sub_signed(span))
                .unwrap_or(DateTime::UNIX_EPOCH),
        }
    }
}

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| ValueError {
                expected: "a span of time such as 24h or 30min",
            })
    }
}

impl FromStr for Models {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text == "all" {
            return Ok(Self(None));
        }
        let names = text.split(',').map(|name| name.trim().to_owned());
        Ok(Self(Some(names.collect())))
    }
}

impl Models {
    /// Their ids; refuses what the catalog does not know.
    pub(crate) fn resolve(&self, catalog: &Catalog) -> Result<Option<Vec<String>>, MeaningError> {
        let Some(names) = &self.0 else {
            return Ok(None);
        };
        let mut ids = Vec::new();
        for name in names {
            let Some(model) = catalog.find(name) else {
                return Err(MeaningError::NoModel {
                    name: name.clone(),
                    nearest: catalog.nearest(name).map(str::to_owned),
                });
            };
            if !ids.contains(&model.id) {
                ids.push(model.id.clone());
            }
        }
        Ok(Some(ids))
    }
}

/// The id of a model by any of its names. One that left the catalog still has usage, under the id it had.
pub(crate) fn model_id(catalog: &Catalog, name: String) -> String {
    catalog.find(&name).map_or(name, |model| model.id.clone())
}

/// The instant that is this span after now.
pub(crate) fn after(now: DateTime<Utc>, span: Duration) -> Result<DateTime<Utc>, MeaningError> {
    TimeDelta::from_std(span)
        .ok()
        .and_then(|span| now.checked_add_signed(span))
        .filter(is_of_rfc_3339)
        .ok_or(MeaningError::TooFar)
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc3339(text).ok()?;
    Some(instant.with_timezone(&Utc)).filter(is_of_rfc_3339)
}

/// The years that RFC 3339 can write; PostgreSQL does not know all that chrono has beyond them.
fn is_of_rfc_3339(instant: &DateTime<Utc>) -> bool {
    (0..=9999).contains(&instant.year())
}

/// Texts that are more than a plain string, as the document describes them.
macro_rules! texts {
    ($($name:ident: $schema:tt),+ $(,)?) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

texts! {
    Name: {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME_CHARS},
    Expiry: {
        "type": "string",
        "description": "An instant such as 2027-01-31T00:00:00Z, a span such as 30d, or never",
    },
    Moment: {
        "type": "string",
        "description": "A day such as 2026-11-20, today or yesterday, an instant such as 2026-11-20T12:00:00Z, or a span back from now such as 7d",
    },
    Span: {"type": "string", "description": "A span of time", "examples": ["24h", "30min"]},
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap()
    }

    /// The instant in RFC 3339, `never`, or `refused`.
    fn expiry(text: &str) -> String {
        match text.parse::<Expiry>().map(|expiry| expiry.at(now())) {
            Ok(Ok(Some(end))) => end.to_rfc3339(),
            Ok(Ok(None)) => "never".to_owned(),
            Ok(Err(_)) | Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn names() {
        let parse = |text: &str| text.parse::<Name>().ok().map(|name| name.0);
        assert_eq!(parse("a\0b").as_deref(), Some("ab"));
        assert!(parse(&"ä".repeat(255)).is_some());
        for refused in [
            "",
            " ",
            "\0",
            "a\u{1b}[2J",
            "a\x07",
            "a\nb",
            "\u{9b}2J",
            &"a".repeat(256),
        ] {
            assert_eq!(parse(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn markups() {
        for (text, expected) in [
            ("none", Some(None)),
            ("0", Some(Some(0))),
            ("1000000", Some(Some(1_000_000))),
            ("1000001", None),
            ("-1", None),
            ("12.5", None),
            ("", None),
        ] {
            let found = text.parse::<Markup>().ok();
            assert_eq!(found.map(|markup| markup.0), expected, "{text}");
        }
    }

    #[test]
    fn expiries() {
        for (text, expected) in [
            ("30d", "2026-12-20T12:00:00+00:00"),
            ("1s", "2026-11-20T12:00:01+00:00"),
            ("2027-01-01T01:00:00+01:00", "2027-01-01T00:00:00+00:00"),
            ("never", "never"),
            ("2020-01-01T00:00:00Z", "refused"),
            ("2026-11-20T12:00:00Z", "refused"),
            ("0s", "refused"),
            ("999999999999999999y", "refused"),
            ("soon", "refused"),
            ("", "refused"),
        ] {
            assert_eq!(expiry(text), expected, "{text}");
        }
    }

    #[test]
    fn moments() {
        for (text, expected) in [
            ("2026-11-01", Some("2026-11-01T00:00:00+00:00")),
            ("2026-11-01T10:00:00Z", Some("2026-11-01T10:00:00+00:00")),
            ("7d", Some("2026-11-13T12:00:00+00:00")),
            ("today", Some("2026-11-20T00:00:00+00:00")),
            ("yesterday", Some("2026-11-19T00:00:00+00:00")),
            ("yesterday-ish", None),
            ("2026-13-01", None),
        ] {
            let found: Option<Moment> = text.parse().ok();
            let found = found.map(|moment| moment.at(now()).to_rfc3339());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn bounds() {
        for (text, expected) in [
            ("5", Some(Some(5))),
            ("0", Some(Some(0))),
            ("none", Some(None)),
            ("-1", None),
            ("1.5", None),
            ("99999999999", None),
        ] {
            let found: Option<Bound> = text.parse().ok();
            assert_eq!(found.map(|bound| bound.0), expected, "{text}");
        }
    }

    #[test]
    fn bounds_of_spending() {
        for (text, expected) in [
            ("12.5", Some(Some(12_500_000_000))),
            ("0", Some(Some(0))),
            ("none", Some(None)),
            ("-1", None),
            ("1e3", None),
            ("", None),
        ] {
            let found: Option<SpendBound> = text.parse().ok();
            let found = found.map(|bound| bound.0.map(NanoUsd::nano));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn networks_of_a_key() {
        let parse = |text: &str| match text.parse::<Ips>() {
            Ok(Ips(None)) => "any".to_owned(),
            Ok(Ips(Some(ranges))) => {
                let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                texts.join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(parse("any"), "any");
        assert_eq!(
            parse("10.0.0.0/8, 2001:db8::/32,10.0.0.0/8"),
            "10.0.0.0/8 2001:db8::/32"
        );
        assert!(parse("").contains("is not an IP address"));
        assert!(parse("10.0.0.0/8,here").contains("'here' is not an IP address"));
        assert!(parse("10.1.2.3/8").contains("10.0.0.0/8"));
        let many: Vec<String> = (0..101).map(|host| format!("10.0.0.{host}")).collect();
        assert!(parse(&many.join(",")).contains("at most 100"));
    }

    #[test]
    fn models_are_resolved_to_ids_once_each() {
        let catalog = Catalog::load(None).unwrap();
        let resolve = |text: &str| text.parse::<Models>().unwrap().resolve(&catalog);
        assert_eq!(resolve("all").unwrap(), None);
        assert_eq!(
            resolve("dall-e-3, openai/dall-e-2,openai/dall-e-3").unwrap(),
            Some(vec![
                "openai/dall-e-3".to_owned(),
                "openai/dall-e-2".to_owned()
            ])
        );
        let refused = resolve("dall-e-3,dall-e-33").unwrap_err().to_string();
        assert!(
            refused.contains("'dall-e-33'") && refused.contains("did you mean"),
            "{refused}"
        );
        assert!(resolve("").is_err());
    }
}
