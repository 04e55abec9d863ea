//! Days that are over: what was used on them is summed up once, so that sums over years read days, not requests.
//!
//! A generation never changes once it has ended, so a day can be summed up when none of its generations is in
//! flight any more. [`Spans`] says what of a stretch of time is read from days and what from generations.

use chrono::{Days, NaiveDate, NaiveTime, TimeDelta};
use tracing::instrument;

use super::{Instant, Ledger, error::LedgerError, repo::days};
use crate::postgres::run_tx;

/// How long after its end a day is left alone: clocks of replicas differ, and holds are written a little after the
/// instant they carry.
const GRACE: TimeDelta = TimeDelta::hours(24);

/// The beginning of a UTC day.
pub(super) fn midnight(day: NaiveDate) -> Instant {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// A stretch of time, without its end.
pub(super) type Stretch<T> = Option<(T, T)>;

/// A stretch of time cut into whole days that are summed up, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spans {
    /// Days to read as such.
    pub(super) days: Stretch<NaiveDate>,
    /// What is before them.
    pub(super) before: Stretch<Instant>,
    /// What is behind them.
    pub(super) after: Stretch<Instant>,
}

impl Spans {
    /// Cuts `since..until`, where every day before `summed_until` is summed up.
    pub(super) fn of(
        since: Option<Instant>,
        until: Option<Instant>,
        summed_until: NaiveDate,
    ) -> Self {
        let since = since.unwrap_or(Instant::MIN_UTC);
        let until = until.unwrap_or(Instant::MAX_UTC);
        // The first midnight that is not before `since`.
        let first = Some(since.date_naive())
            .filter(|day| midnight(*day) >= since)
            .or_else(|| since.date_naive().checked_add_days(Days::new(1)))
            .unwrap_or(NaiveDate::MAX);
        let end = until.date_naive().min(summed_until);
        if first >= end {
            return Self {
                days: None,
                before: None,
                after: (since < until).then_some((since, until)),
            };
        }
        let stretch = |from: Instant, to: Instant| (from < to).then_some((from, to));
        Self {
            days: Some((first, end)),
            before: stretch(since, midnight(first)),
            after: stretch(midnight(end), until),
        }
    }
}

impl Ledger {
    /// Sums up the days that have been over for a day. Returns how many. Any replica may do it, one at a time does;
    /// a day waits for its last generation to end.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    #[instrument(name = "ledger.sum_up_days", level = "debug", skip_all)]
    pub async fn sum_up_days(&self) -> Result<u32, LedgerError> {
        let settled = self.clock.now().checked_sub_signed(GRACE);
        let Some(settled) = settled.map(|instant| instant.date_naive()) else {
            return Ok(0);
        };
        let mut summed = 0_u32;
        while run_tx(&self.pool, "sum up a day", move |mut tx| {
            Box::pin(async move { days::sum_up_next(&mut tx, settled).await })
        })
        .await?
        {
            summed = summed.saturating_add(1);
        }
        Ok(summed)
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a few hours of a calendar are counted"
)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn at(hours: i64) -> Instant {
        let start = chrono::Utc.with_ymd_and_hms(2026, 11, 1, 0, 0, 0).unwrap();
        start + TimeDelta::hours(hours)
    }

    fn day(number: u64) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, 1).unwrap() + Days::new(number)
    }

    #[test]
    fn a_stretch_is_cut_at_midnights() {
        let spans = Spans::of(Some(at(30)), Some(at(100)), day(3));
        assert_eq!(spans.before, Some((at(30), at(48))));
        assert_eq!(spans.days, Some((day(2), day(3))));
        assert_eq!(spans.after, Some((at(72), at(100))));
        let open = Spans::of(None, None, day(3));
        assert_eq!(open.before, None);
        assert_eq!(open.days, Some((NaiveDate::MIN, day(3))));
        assert_eq!(open.after, Some((at(72), Instant::MAX_UTC)));
        let recent = Spans::of(Some(at(72)), None, day(3));
        assert_eq!(
            (recent.days, recent.after),
            (None, Some((at(72), Instant::MAX_UTC)))
        );
        let nothing = Spans::of(Some(at(9)), Some(at(9)), day(3));
        assert_eq!((nothing.days, nothing.after), (None, None));
    }

    proptest! {
        #[test]
        fn every_instant_is_counted_once(
            since in proptest::option::of(-50_i64..200),
            until in proptest::option::of(-50_i64..200),
            summed in 0_u64..7,
            instant in -60_i64..210,
        ) {
            let spans = Spans::of(since.map(at), until.map(at), day(summed));
            let moment = at(instant);
            let within = |stretch: Stretch<Instant>| {
                usize::from(stretch.is_some_and(|(from, to)| from <= moment && moment < to))
            };
            let on_days = spans.days.map(|(from, to)| (midnight(from), midnight(to)));
            let counted = within(on_days) + within(spans.before) + within(spans.after);
            let wanted = since.is_none_or(|since| since <= instant) && until.is_none_or(|until| instant < until);
            prop_assert_eq!(counted, usize::from(wanted));
            prop_assert!(spans.days.is_none_or(|(_, to)| to <= day(summed)));
        }
    }
}
