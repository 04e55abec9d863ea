//! Words on the command line that need more than a plain type: instants, spans, bounds.

use std::{convert::Infallible, str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::{catalog::Catalog, ledger::MAX_ACCOUNT_MARKUP_BASIS_POINTS};

/// `none`, or a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound(pub(super) Option<u32>);

/// `none`, or basis points that an account can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Markup(pub(super) Option<u32>);

/// `never`, an instant, or a span from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Never,
    At(DateTime<Utc>),
    In(Duration),
}

/// An instant, a day (its beginning, UTC), also by how many days ago it was, or a span before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    DaysAgo(u64),
    At(DateTime<Utc>),
    Ago(Duration),
}

/// `all`, or names of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Models(Option<Vec<String>>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub(super) struct ValueError {
    expected: &'static str,
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
    pub(super) fn at(self, now: DateTime<Utc>) -> anyhow::Result<Option<DateTime<Utc>>> {
        let end = match self {
            Self::Never => return Ok(None),
            Self::At(instant) => instant,
            Self::In(span) => TimeDelta::from_std(span)
                .ok()
                .and_then(|span| now.checked_add_signed(span))
                .context("--expires is too far away")?,
        };
        if end <= now {
            bail!("--expires: {} is past", end.to_rfc3339());
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
                Some(day.and_time(NaiveTime::MIN).and_utc())
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
    pub(super) fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
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
    pub(super) fn resolve(&self, catalog: &Catalog) -> anyhow::Result<Option<Vec<String>>> {
        let Some(names) = &self.0 else {
            return Ok(None);
        };
        let mut ids = Vec::new();
        for name in names {
            let Some(model) = catalog.find(name) else {
                let hint = catalog
                    .nearest(name)
                    .map(|nearest| format!("; did you mean '{nearest}'?"))
                    .unwrap_or_default();
                bail!("--models: there is no model '{name}' in the catalog{hint}");
            };
            if !ids.contains(&model.id) {
                ids.push(model.id.clone());
            }
        }
        Ok(Some(ids))
    }
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc3339(text).ok()?;
    Some(instant.with_timezone(&Utc))
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
