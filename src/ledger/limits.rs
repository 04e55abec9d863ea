//! What a key may do per minute and at the same time. Pure: the counts are read under the key's lock,
//! decided here, and written in the same transaction.
//!
//! A minute is the current second and the fifty-nine before it, so there is no moment at which a fresh
//! window opens for everybody at once.

use std::time::Duration;

use super::error::LedgerError;
use crate::keys::KeyLimits;

/// The length of a minute in the seconds that are counted.
pub(super) const WINDOW_SECONDS: i64 = 60;
/// How long a key with too many requests in flight is asked to wait: when one ends is not known.
const IN_FLIGHT_RETRY: Duration = Duration::from_secs(1);

/// What a key did in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SecondCount {
    /// Unix time.
    pub(super) second: i64,
    pub(super) requests: u32,
    pub(super) images: u32,
}

/// What one key did lately, and what this batch adds.
#[derive(Debug)]
pub(super) struct KeyCount {
    /// Unix time.
    now: i64,
    /// Oldest first, none older than the window.
    before: Vec<SecondCount>,
    in_flight: u32,
    /// What the batch adds to the current second.
    pub(super) added: SecondCount,
}

impl KeyCount {
    pub(super) fn new(now: i64) -> Self {
        Self {
            now,
            before: Vec::new(),
            in_flight: 0,
            added: SecondCount {
                second: now,
                requests: 0,
                images: 0,
            },
        }
    }

    /// Takes in a row; rows come oldest first.
    pub(super) fn remember(&mut self, count: SecondCount) {
        if count.second > self.now.saturating_sub(WINDOW_SECONDS) {
            self.before.push(count);
        }
    }

    pub(super) fn set_in_flight(&mut self, in_flight: u32) {
        self.in_flight = in_flight;
    }

    /// Counts a request and says whether it may go on. One that is refused for its pictures, or later
    /// for its balance, stays counted; one that is refused for its number is not, or a client that
    /// keeps asking would never get in again.
    pub(super) fn admit(&mut self, limits: KeyLimits, images: u32) -> Result<(), LedgerError> {
        if let Some(limit) = limits.requests_per_minute {
            self.check("requests per minute", limit, 1, |count| count.requests)?;
        }
        self.added.requests = self.added.requests.saturating_add(1);
        if let Some(limit) = limits.images_per_minute {
            self.check("images per minute", limit, images, |count| count.images)?;
        }
        match limits.max_in_flight {
            Some(limit) if self.in_flight >= limit => Err(LedgerError::RateLimited {
                what: "requests in flight",
                limit,
                retry_after: IN_FLIGHT_RETRY,
            }),
            _ => Ok(()),
        }
    }

    /// Counts what an admitted request will paint.
    pub(super) fn granted(&mut self, images: u32) {
        self.added.images = self.added.images.saturating_add(images);
        self.in_flight = self.in_flight.saturating_add(1);
    }

    fn check(
        &self,
        what: &'static str,
        limit: u32,
        wanted: u32,
        of: impl Fn(&SecondCount) -> u32,
    ) -> Result<(), LedgerError> {
        let seconds = self.before.iter().chain([&self.added]);
        let used = seconds.clone().map(&of).fold(0, u32::saturating_add);
        let mut excess = used.saturating_add(wanted).saturating_sub(limit);
        if excess == 0 {
            return Ok(());
        }
        // The first second whose end makes enough room; a whole window when none does.
        let mut frees_at = self.now.saturating_add(WINDOW_SECONDS);
        for count in seconds {
            excess = excess.saturating_sub(of(count));
            if excess == 0 {
                frees_at = count.second.saturating_add(WINDOW_SECONDS);
                break;
            }
        }
        let wait = u64::try_from(frees_at.saturating_sub(self.now)).unwrap_or_default();
        Err(LedgerError::RateLimited {
            what,
            limit,
            retry_after: Duration::from_secs(wait.max(1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000;

    fn count(seconds: &[(i64, u32, u32)], in_flight: u32) -> KeyCount {
        let mut count = KeyCount::new(NOW);
        for &(second, requests, images) in seconds {
            count.remember(SecondCount {
                second,
                requests,
                images,
            });
        }
        count.set_in_flight(in_flight);
        count
    }

    fn limits(requests: u32, images: u32, in_flight: u32) -> KeyLimits {
        KeyLimits {
            requests_per_minute: Some(requests),
            images_per_minute: Some(images),
            max_in_flight: Some(in_flight),
        }
    }

    /// What was refused and after how many seconds to come back; `None` is admitted.
    fn check(
        seconds: &[(i64, u32, u32)],
        in_flight: u32,
        limits: KeyLimits,
        images: u32,
        expected: Option<(&str, u64)>,
    ) {
        let got = match count(seconds, in_flight).admit(limits, images) {
            Ok(()) => None,
            Err(LedgerError::RateLimited {
                what, retry_after, ..
            }) => Some((what, retry_after.as_secs())),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(got, expected, "{seconds:?} {limits:?} {images}");
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
        let mut count = count(&[(999, 1, 1)], 0);
        let limits = limits(4, 3, 9);
        assert!(count.admit(limits, 2).is_ok());
        count.granted(2);
        assert!(count.admit(limits, 1).is_err(), "a fourth picture");
        assert!(count.admit(limits, 0).is_ok());
        assert!(count.admit(limits, 0).is_err(), "a fifth request");
        assert_eq!((count.added.requests, count.added.images), (3, 2));
    }
}
