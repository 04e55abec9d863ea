//! What a key, and all keys of its account and mode together, may spend in a day and a month.
//!
//! Days and months are those of the calendar in UTC, because that is how invoices count.

use std::{fmt, time::Duration};

use chrono::{Datelike as _, Months, NaiveDate, NaiveTime};

use super::{Caller, Counts, Whose};
use crate::{
    ledger::{Instant, error::LedgerError},
    money::{MoneyError, NanoUsd},
};

/// A stretch of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first to the last day.
    Month,
}

impl Period {
    /// When the one that `now` is in ends.
    fn ends_at(self, now: Instant) -> Instant {
        let today = now.date_naive();
        let end = match self {
            Self::Day => today.succ_opt(),
            Self::Month => today
                .with_day(1)
                .and_then(|first| first.checked_add_months(Months::new(1))),
        };
        end.map_or(Instant::MAX_UTC, |end| {
            end.and_time(NaiveTime::MIN).and_utc()
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Day => "day",
            Self::Month => "month",
        })
    }
}

/// Too little is left of what may be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendLimit {
    /// Whose limit.
    pub whose: Whose,
    /// For how long it is.
    pub period: Period,
    /// What may be spent in it.
    pub limit: NanoUsd,
    /// What is spent of it, open holds counted as a whole.
    pub spent: NanoUsd,
    /// The least that the request would have to hold.
    pub needed: NanoUsd,
    /// When the next period begins.
    pub resets_at: Instant,
    /// How long that is from now.
    pub resets_in: Duration,
}

/// What a subject has spent in a day, and in the month that the day is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ledger) struct Spent {
    pub(in crate::ledger) on: NaiveDate,
    pub(in crate::ledger) day: NanoUsd,
    pub(in crate::ledger) month: NanoUsd,
}

impl Spent {
    /// The same seen at `now`. A clock that went back finds the day that it had come to before.
    pub(super) fn at(self, now: Instant) -> Self {
        let today = now.date_naive();
        let same_month = (today.year(), today.month()) <= (self.on.year(), self.on.month());
        Self {
            on: self.on.max(today),
            day: if today <= self.on {
                self.day
            } else {
                NanoUsd::ZERO
            },
            month: if same_month {
                self.month
            } else {
                NanoUsd::ZERO
            },
        }
    }

    pub(super) fn add(&mut self, amount: NanoUsd) -> Result<(), MoneyError> {
        self.day = self.day.checked_add(amount)?;
        self.month = self.month.checked_add(amount)?;
        Ok(())
    }
}

impl Counts {
    /// What every limit leaves; `None` is without end.
    ///
    /// # Errors
    /// [`LedgerError::SpendLimited`] where that is less than `needed`, with the limit that is in the way for longest.
    pub(in crate::ledger) fn may_spend(
        &self,
        caller: &Caller,
        needed: NanoUsd,
    ) -> Result<Option<NanoUsd>, LedgerError> {
        let mut least: Option<NanoUsd> = None;
        let mut in_the_way: Option<SpendLimit> = None;
        for (whose, count, limits) in self.counted(caller) {
            let Some(spent) = count.spent else { continue };
            for (period, limit, spent) in [
                (Period::Day, limits.spend_per_day, spent.day),
                (Period::Month, limits.spend_per_month, spent.month),
            ] {
                let Some(limit) = limit else { continue };
                let left = limit.checked_sub(spent)?.max(NanoUsd::ZERO);
                least = Some(least.map_or(left, |least| least.min(left)));
                let resets_at = period.ends_at(self.now);
                let lasts = |other: &SpendLimit| other.resets_at < resets_at;
                if left < needed && in_the_way.as_ref().is_none_or(lasts) {
                    in_the_way = Some(SpendLimit {
                        whose,
                        period,
                        limit,
                        spent,
                        needed,
                        resets_at,
                        resets_in: resets_at
                            .signed_duration_since(self.now)
                            .to_std()
                            .unwrap_or_default(),
                    });
                }
            }
        }
        match in_the_way {
            Some(limit) => Err(LedgerError::SpendLimited(Box::new(limit))),
            None => Ok(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone as _, Utc};

    use super::{
        super::tests::{caller, counts},
        *,
    };
    use crate::keys::Limits;

    fn spend(day: Option<i64>, month: Option<i64>) -> Limits {
        Limits {
            spend_per_day: day.map(NanoUsd::from_nano),
            spend_per_month: month.map(NanoUsd::from_nano),
            ..Limits::NONE
        }
    }

    /// What is left, or what is in the way and for how long.
    fn check_left(key: Limits, account: Limits, spent: i64, needed: i64, expected: &str) {
        let caller = caller(key, account);
        let now = Utc.with_ymd_and_hms(2026, 12, 30, 18, 0, 0).unwrap();
        let mut counts = counts(&caller, now, &[], 0);
        counts
            .granted(&caller, 1, NanoUsd::from_nano(spent))
            .unwrap();
        let found = match counts.may_spend(&caller, NanoUsd::from_nano(needed)) {
            Ok(None) => "all".to_owned(),
            Ok(Some(left)) => left.nano().to_string(),
            Err(LedgerError::SpendLimited(limit)) => {
                let hours = limit.resets_in.as_secs() / 3600;
                format!(
                    "the {} has spent its {}, {hours} h",
                    limit.whose, limit.period
                )
            }
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_left_to_spend_is_what_every_limit_leaves() {
        let none = Limits::NONE;
        check_left(none, none, 5, 5, "all");
        check_left(spend(Some(9), None), none, 5, 1, "4");
        check_left(spend(Some(9), None), none, 5, 4, "4");
        check_left(spend(Some(9), Some(8)), none, 5, 1, "3");
        check_left(spend(None, Some(9)), spend(Some(7), None), 5, 1, "2");
        let own_day = "the API key has spent its day, 6 h";
        check_left(spend(Some(3), None), none, 5, 1, own_day);
        check_left(spend(Some(9), None), none, 5, 5, own_day);
        check_left(spend(Some(3), Some(9)), none, 5, 1, own_day);
        let day = "the account has spent its day, 6 h";
        check_left(none, spend(Some(9), None), 5, 9, day);
        // Of two, the one that lasts longer.
        let month = "the API key has spent its month, 30 h";
        check_left(spend(Some(3), Some(3)), none, 5, 1, month);
        check_left(spend(None, Some(3)), spend(Some(3), None), 5, 1, month);
    }

    #[test]
    fn periods_are_the_calendars_in_utc() {
        let now = Utc.with_ymd_and_hms(2024, 2, 28, 23, 59, 59).unwrap();
        let ends = |period: Period| period.ends_at(now).to_rfc3339();
        assert_eq!(ends(Period::Day), "2024-02-29T00:00:00+00:00");
        assert_eq!(ends(Period::Month), "2024-03-01T00:00:00+00:00");
        let spent = Spent {
            on: now.date_naive(),
            day: NanoUsd::from_nano(3),
            month: NanoUsd::from_nano(7),
        };
        let seen = |day: u32, month: u32, year: i32| {
            let spent = spent.at(Utc.with_ymd_and_hms(year, month, day, 0, 0, 0).unwrap());
            (spent.day.nano(), spent.month.nano())
        };
        assert_eq!(seen(28, 2, 2024), (3, 7));
        assert_eq!(seen(29, 2, 2024), (0, 7));
        assert_eq!(seen(1, 3, 2024), (0, 0));
        assert_eq!(seen(28, 2, 2025), (0, 0));
        assert_eq!(seen(27, 2, 2024), (3, 7), "a clock that went back");
        assert_eq!(seen(31, 1, 2024), (3, 7), "a clock that went back");
    }
}
