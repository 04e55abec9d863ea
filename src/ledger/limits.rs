//! What a key, and all keys of its account and mode together, may do per minute, at the same time, and for how much
//! money in a day and a month. Pure: the counts are read under the lock of the balance (without it, where a hold is
//! only foreseen), decided here, and written in the same transaction.
//!
//! A minute is the current second and the fifty-nine before it, so there is no moment at which a fresh
//! window opens for everybody at once. The time is the database's, which all replicas share.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{Instant, error::LedgerError};
use crate::{
    ids::{AccountId, KeyId},
    keys::{ApiKey, Limits, Mode},
    money::{MoneyError, NanoUsd},
};

mod spending;

pub(super) use self::spending::Spent;
pub use self::spending::{Period, SpendLimit};

/// The length of a minute in the seconds that are counted.
pub(super) const WINDOW_SECONDS: i64 = 60;
/// How long a key with too many requests in flight is asked to wait: when one ends is not known.
const IN_FLIGHT_RETRY: Duration = Duration::from_secs(1);

/// Who asks, and how much they may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Who pays.
    pub account: AccountId,
    /// From which balance.
    pub mode: Mode,
    /// With which key.
    pub key: KeyId,
    /// What the key may do.
    pub limits: Limits,
    /// What all keys of the account and mode may do together.
    pub account_limits: Limits,
}

impl From<&ApiKey> for Caller {
    fn from(key: &ApiKey) -> Self {
        Self {
            account: key.account,
            mode: key.mode,
            key: key.id,
            limits: key.limits,
            account_limits: key.account_limits,
        }
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The key's own.
    Key,
    /// That of all keys of the account and mode.
    Account,
}

impl fmt::Display for Whose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Key => "API key",
            Self::Account => "account",
        })
    }
}

/// How a caller stands against its limits per minute once its request has been counted: of the key's and the
/// account's, whatever is nearer to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Requests, where they are limited.
    pub requests: Option<Level>,
    /// Pictures, where they are limited.
    pub images: Option<Level>,
}

/// One limit per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// How many there may be in a minute.
    pub limit: u32,
    /// How many there may be yet.
    pub remaining: u32,
    /// After how long, with no more of them, all of it would be free.
    pub reset: Duration,
}

/// Where the ledger leaves the [`Reading`] of a request, for whoever answers it.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<Mutex<Reading>>);

impl Gauge {
    /// The last reading; empty as long as nothing was counted.
    pub fn read(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, reading: Reading) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }
}

/// What is counted for on its own: a key, or all keys of an account and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) account: AccountId,
    pub(super) mode: Mode,
    /// `None` is the account.
    pub(super) key: Option<KeyId>,
}

/// By which name it is found in `spending`.
impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => fmt::Display::fmt(&key, formatter),
            None => write!(formatter, "{} {}", self.account, self.mode),
        }
    }
}

impl Caller {
    /// The key and the account, each with its limits. What one caller does counts for others who have heard of limits
    /// that this one has not heard of yet.
    fn subjects(&self) -> [(Whose, Subject, Limits); 2] {
        let Self {
            account,
            mode,
            key,
            limits,
            account_limits,
        } = *self;
        let subject = |key| Subject { account, mode, key };
        [
            (Whose::Key, subject(Some(key)), limits),
            (Whose::Account, subject(None), account_limits),
        ]
    }

    /// Whether anything is counted for it per minute.
    pub(super) fn is_counted_per_minute(&self) -> bool {
        self.limits.per_minute() || self.account_limits.per_minute()
    }

    /// The same with only those limits that hold for a request which comes to no picture of its own.
    pub(super) fn only_per_minute(self) -> Self {
        let only = |limits: Limits| Limits {
            requests_per_minute: limits.requests_per_minute,
            images_per_minute: limits.images_per_minute,
            ..Limits::NONE
        };
        Self {
            limits: only(self.limits),
            account_limits: only(self.account_limits),
            ..self
        }
    }
}

/// What has to be counted for these callers, and what for.
pub(super) fn wanted<'a>(callers: impl Iterator<Item = &'a Caller>) -> BTreeMap<Subject, Wanted> {
    let mut all: BTreeMap<Subject, Wanted> = BTreeMap::new();
    let subjects = callers.flat_map(Caller::subjects);
    for (_, subject, limits) in subjects.filter(|(_, _, limits)| limits.any()) {
        let wanted = all.entry(subject).or_default();
        wanted.per_minute |= limits.per_minute();
        wanted.in_flight |= limits.max_in_flight.is_some();
        wanted.spending |= limits.on_spending();
    }
    all
}

/// What is to be known of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) per_minute: bool,
    pub(super) in_flight: bool,
    pub(super) spending: bool,
}

/// What a subject did in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SecondCount {
    /// Unix time.
    pub(super) second: i64,
    pub(super) requests: u32,
    pub(super) images: u32,
}

/// One of the figures of a second.
type Figure = fn(&SecondCount) -> u32;

/// What one subject did lately, and what this batch adds.
#[derive(Debug)]
pub(super) struct Count {
    /// Oldest first, none older than the window.
    before: Vec<SecondCount>,
    in_flight: u32,
    /// `None` where nothing is limited, or nothing is known.
    spent: Option<Spent>,
    /// What the batch adds to the current second.
    pub(super) added: SecondCount,
}

/// All that the callers of a batch did lately.
#[derive(Debug)]
pub(super) struct Counts {
    /// By the clock of the database, once the locks were had.
    pub(super) now: Instant,
    pub(super) of: BTreeMap<Subject, Count>,
}

impl Count {
    pub(super) fn new(
        now: Instant,
        before: Vec<SecondCount>,
        in_flight: u32,
        spent: Option<Spent>,
    ) -> Self {
        Self {
            before,
            in_flight,
            spent: spent.map(|spent| spent.at(now)),
            added: SecondCount {
                second: now.timestamp(),
                requests: 0,
                images: 0,
            },
        }
    }

    fn seconds(&self) -> impl Iterator<Item = &SecondCount> + Clone {
        self.before.iter().chain([&self.added])
    }

    fn level(&self, limit: u32, now: Instant, of: Figure) -> Level {
        let used = self.seconds().map(of).fold(0, u32::saturating_add);
        let last = self.seconds().filter(|count| of(count) > 0).last();
        Level {
            limit,
            remaining: limit.saturating_sub(used),
            reset: last.map_or(Duration::ZERO, |last| until_free(last.second, now)),
        }
    }

    /// `None` when that many more are within the limit; else how long until they are.
    fn wait(&self, limit: u32, wanted: u32, now: Instant, of: Figure) -> Option<Duration> {
        let used = self.seconds().map(of).fold(0, u32::saturating_add);
        let mut excess = used.saturating_add(wanted).saturating_sub(limit);
        if excess == 0 {
            return None;
        }
        // The first second whose end makes enough room; a whole window when none does.
        for count in self.seconds() {
            excess = excess.saturating_sub(of(count));
            if excess == 0 {
                return Some(until_free(count.second, now));
            }
        }
        Some(until_free(now.timestamp(), now))
    }
}

/// How long what was counted in this second stays in the window.
fn until_free(second: i64, now: Instant) -> Duration {
    let end = second
        .saturating_add(WINDOW_SECONDS)
        .saturating_mul(1_000_000);
    let left = end.saturating_sub(now.timestamp_micros());
    Duration::from_micros(u64::try_from(left).unwrap_or_default().max(1))
}

impl Counts {
    /// Nothing is limited.
    pub(super) fn none(now: Instant) -> Self {
        Self {
            now,
            of: BTreeMap::new(),
        }
    }

    /// Counts a request and says whether it may go on. One that is refused for its pictures, or later
    /// for its balance, stays counted; one that is refused for its number is not, or a client that
    /// keeps asking would never get in again. Without `images` it is one that will paint nothing.
    ///
    /// # Errors
    /// [`LedgerError::RateLimited`].
    pub(super) fn admit(
        &mut self,
        caller: &Caller,
        images: Option<u32>,
    ) -> Result<(), LedgerError> {
        let refuse = |whose, what, limit, retry_after| {
            Err(LedgerError::RateLimited {
                whose,
                what,
                limit,
                retry_after,
            })
        };
        for (whose, count, limits) in self.counted(caller) {
            if let Some(limit) = limits.requests_per_minute
                && let Some(wait) = count.wait(limit, 1, self.now, requests)
            {
                return refuse(whose, "requests per minute", limit, wait);
            }
        }
        for (_, subject, _) in caller.subjects() {
            if let Some(count) = self.of.get_mut(&subject) {
                count.added.requests = count.added.requests.saturating_add(1);
            }
        }
        let Some(wanted) = images else {
            return Ok(());
        };
        for (whose, count, limits) in self.counted(caller) {
            if let Some(limit) = limits.images_per_minute
                && let Some(wait) = count.wait(limit, wanted, self.now, self::images)
            {
                return refuse(whose, "images per minute", limit, wait);
            }
        }
        for (whose, count, limits) in self.counted(caller) {
            if let Some(limit) = limits.max_in_flight
                && count.in_flight >= limit
            {
                return refuse(whose, "requests in flight", limit, IN_FLIGHT_RETRY);
            }
        }
        Ok(())
    }

    /// Counts what an admitted request will paint, and what is held for it.
    pub(super) fn granted(
        &mut self,
        caller: &Caller,
        images: u32,
        amount: NanoUsd,
    ) -> Result<(), MoneyError> {
        for (_, subject, _) in caller.subjects() {
            if let Some(count) = self.of.get_mut(&subject) {
                count.added.images = count.added.images.saturating_add(images);
                count.in_flight = count.in_flight.saturating_add(1);
                if let Some(spent) = &mut count.spent {
                    spent.add(amount)?;
                }
            }
        }
        Ok(())
    }

    /// How the caller stands now.
    pub(super) fn reading(&self, caller: &Caller) -> Reading {
        let (of_requests, of_images): (Figure, Figure) = (requests, images);
        let mut reading = Reading::default();
        for (_, count, limits) in self.counted(caller) {
            for (limit, of, nearest) in [
                (
                    limits.requests_per_minute,
                    of_requests,
                    &mut reading.requests,
                ),
                (limits.images_per_minute, of_images, &mut reading.images),
            ] {
                let Some(limit) = limit else { continue };
                let level = count.level(limit, self.now, of);
                let is_nearer = nearest.is_none_or(|nearest| {
                    (level.remaining, std::cmp::Reverse(level.reset))
                        < (nearest.remaining, std::cmp::Reverse(nearest.reset))
                });
                if is_nearer {
                    *nearest = Some(level);
                }
            }
        }
        reading
    }

    fn counted(&self, caller: &Caller) -> impl Iterator<Item = (Whose, &Count, Limits)> {
        caller
            .subjects()
            .into_iter()
            .filter_map(|(whose, subject, limits)| Some((whose, self.of.get(&subject)?, limits)))
    }
}

fn requests(count: &SecondCount) -> u32 {
    count.requests
}

fn images(count: &SecondCount) -> u32 {
    count.images
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    const NOW: i64 = 1_000;

    pub(super) fn caller(limits: Limits, account_limits: Limits) -> Caller {
        Caller {
            account: AccountId::new(),
            mode: Mode::Live,
            key: KeyId::new(),
            limits,
            account_limits,
        }
    }

    /// The same history of both, as far as they are counted for.
    pub(super) fn counts(
        caller: &Caller,
        now: DateTime<Utc>,
        seconds: &[(i64, u32, u32)],
        in_flight: u32,
    ) -> Counts {
        let seconds = seconds
            .iter()
            .filter(|(second, _, _)| *second > now.timestamp().saturating_sub(WINDOW_SECONDS));
        let before: Vec<SecondCount> = seconds
            .map(|&(second, requests, images)| SecondCount {
                second,
                requests,
                images,
            })
            .collect();
        let spent = Spent {
            on: now.date_naive(),
            day: NanoUsd::ZERO,
            month: NanoUsd::ZERO,
        };
        let count = |(_, subject, _)| {
            let count = Count::new(now, before.clone(), in_flight, Some(spent));
            (subject, count)
        };
        Counts {
            now,
            of: caller.subjects().map(count).into(),
        }
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn limits(requests: u32, images: u32, in_flight: u32) -> Limits {
        Limits {
            requests_per_minute: Some(requests),
            images_per_minute: Some(images),
            max_in_flight: Some(in_flight),
            ..Limits::NONE
        }
    }

    fn refusal(outcome: Result<(), LedgerError>) -> Option<(&'static str, u64)> {
        match outcome {
            Ok(()) => None,
            Err(LedgerError::RateLimited {
                what, retry_after, ..
            }) => Some((what, retry_after.as_secs())),
            Err(other) => panic!("{other}"),
        }
    }

    /// What was refused and after how many seconds to come back; `None` is admitted.
    fn check(
        seconds: &[(i64, u32, u32)],
        in_flight: u32,
        limits: Limits,
        images: u32,
        expected: Option<(&str, u64)>,
    ) {
        for caller in [caller(limits, Limits::NONE), caller(Limits::NONE, limits)] {
            let mut counts = counts(&caller, at(NOW), seconds, in_flight);
            let got = refusal(counts.admit(&caller, Some(images)));
            assert_eq!(got, expected, "{seconds:?} {limits:?} {images}");
        }
    }

    #[test]
    fn a_minute_is_sixty_seconds() {
        let rpm = "requests per minute";
        check(&[], 0, limits(1, 1, 1), 1, None);
        check(&[(1_000, 1, 0)], 0, limits(1, 9, 9), 1, Some((rpm, 60)));
        check(&[(941, 1, 0)], 0, limits(1, 9, 9), 1, Some((rpm, 1)));
        check(&[(940, 1, 0)], 0, limits(1, 9, 9), 1, None);
        check(&[], 0, limits(0, 9, 9), 1, Some((rpm, 60)));
    }

    #[test]
    fn retry_after_is_when_enough_is_free() {
        let seconds = [(950, 2, 2), (960, 3, 3), (999, 1, 1)];
        let ipm = "images per minute";
        check(&seconds, 0, limits(7, 7, 9), 1, None);
        check(&seconds, 0, limits(7, 6, 9), 1, Some((ipm, 10)));
        check(&seconds, 0, limits(7, 6, 9), 3, Some((ipm, 20)));
        check(&seconds, 0, limits(7, 6, 9), 6, Some((ipm, 59)));
        check(&seconds, 0, limits(7, 6, 9), 7, Some((ipm, 60)));
    }

    #[test]
    fn in_flight_is_counted_last() {
        check(&[], 3, limits(9, 9, 3), 1, Some(("requests in flight", 1)));
        check(&[], 2, limits(9, 9, 3), 1, None);
    }

    #[test]
    fn a_batch_adds_up() {
        let caller = caller(limits(4, 3, 9), Limits::NONE);
        let mut counts = counts(&caller, at(NOW), &[(999, 1, 1)], 0);
        assert!(counts.admit(&caller, Some(2)).is_ok());
        counts.granted(&caller, 2, NanoUsd::ZERO).unwrap();
        assert!(counts.admit(&caller, Some(1)).is_err(), "a fourth picture");
        assert!(counts.admit(&caller, None).is_ok());
        assert!(counts.admit(&caller, None).is_err(), "a fifth request");
        let added: Vec<_> = counts
            .of
            .values()
            .map(|count| (count.added.requests, count.added.images))
            .collect();
        assert_eq!(added, [(3, 2), (3, 2)]);
    }

    /// What the one refuses is not counted for the other either.
    #[test]
    fn of_two_limits_both_must_hold() {
        let caller = caller(limits(9, 9, 9), limits(2, 9, 9));
        let mut counts = counts(&caller, at(NOW), &[], 0);
        for _ in 0..2 {
            assert!(counts.admit(&caller, Some(1)).is_ok());
        }
        let refused = counts.admit(&caller, Some(1));
        assert!(
            matches!(
                refused,
                Err(LedgerError::RateLimited {
                    whose: Whose::Account,
                    limit: 2,
                    ..
                })
            ),
            "{refused:?}"
        );
        let added: Vec<_> = counts
            .of
            .values()
            .map(|count| count.added.requests)
            .collect();
        assert_eq!(added, [2, 2]);
    }

    #[test]
    fn a_reading_is_of_the_limit_that_ends_first() {
        let own = limits(10, 20, 9);
        let account = Limits {
            images_per_minute: None,
            ..limits(6, 0, 9)
        };
        let caller = caller(own, account);
        let now = at(NOW) + chrono::TimeDelta::milliseconds(250);
        let mut counts = counts(&caller, now, &[(960, 2, 4), (990, 1, 0)], 0);
        let level = |limit, remaining, reset_ms| {
            Some(Level {
                limit,
                remaining,
                reset: Duration::from_millis(reset_ms),
            })
        };
        let expected = Reading {
            requests: level(6, 3, 49_750),
            images: level(20, 16, 19_750),
        };
        assert_eq!(counts.reading(&caller), expected);
        counts.admit(&caller, Some(3)).unwrap();
        counts.granted(&caller, 3, NanoUsd::ZERO).unwrap();
        let expected = Reading {
            requests: level(6, 2, 59_750),
            images: level(20, 13, 59_750),
        };
        assert_eq!(counts.reading(&caller), expected);
        let unlimited = self::caller(Limits::NONE, Limits::NONE);
        assert_eq!(counts.reading(&unlimited), Reading::default());
    }
}
