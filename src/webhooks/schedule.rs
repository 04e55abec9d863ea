//! When to try again. Pure: time and chance come in.

use std::time::Duration;

/// From one pause to the next.
const GROWTH: u32 = 4;
/// No pause is longer, whoever asks for it.
const LONGEST_PAUSE: Duration = Duration::from_hours(6);

/// How persistent to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// The pause after the first attempt.
    pub(super) first_retry: Duration,
    /// How long to go on after the event.
    pub(super) retry_for: Duration,
}

impl Schedule {
    /// The pause after attempt `attempt` (from 1), `age` after the event; `None` when it was the last. `asked` is
    /// what the receiver asked for, `chance` from 0 to 1: a fifth more or less, so that what failed together does
    /// not come back together.
    pub(super) fn pause(
        &self,
        attempt: u32,
        age: Duration,
        asked: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        let growth = GROWTH.saturating_pow(attempt.saturating_sub(1));
        let pause = self.first_retry.saturating_mul(growth).min(LONGEST_PAUSE);
        let pause = pause.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0));
        let pause = pause.max(asked.unwrap_or_default().min(LONGEST_PAUSE));
        (age.saturating_add(pause) <= self.retry_for).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        first_retry: Duration::from_secs(5),
        retry_for: Duration::from_hours(24),
    };

    #[test]
    fn it_takes_about_a_day_to_give_up() {
        for chance in [0.0, 0.5, 1.0] {
            let mut age = Duration::ZERO;
            let mut attempt = 1;
            while let Some(pause) = SCHEDULE.pause(attempt, age, None, chance) {
                age += pause + Duration::from_secs(15);
                attempt += 1;
            }
            assert!((9..=12).contains(&attempt), "{attempt} attempts");
            assert!(age > Duration::from_hours(17), "{age:?}");
            assert!(
                age <= Duration::from_hours(24) + Duration::from_mins(5),
                "{age:?}"
            );
        }
    }

    #[test]
    fn pauses_grow_vary_and_heed_the_receiver() {
        let seconds = |attempt, asked: Option<u64>, chance| {
            let asked = asked.map(Duration::from_secs);
            let pause = SCHEDULE.pause(attempt, Duration::ZERO, asked, chance);
            pause.map(|pause| pause.as_secs_f64().round())
        };
        for (attempt, asked, chance, expected) in [
            (1, None, 0.5, Some(5.0)),
            (1, None, 0.0, Some(4.0)),
            (1, None, 1.0, Some(6.0)),
            (2, None, 0.5, Some(20.0)),
            (4, None, 0.5, Some(320.0)),
            (9, None, 0.5, Some(21_600.0)),
            (u32::MAX, None, 0.5, Some(21_600.0)),
            (1, Some(90), 0.5, Some(90.0)),
            (4, Some(90), 0.5, Some(320.0)),
            // Not for ever.
            (1, Some(1_000_000), 0.5, Some(21_600.0)),
        ] {
            assert_eq!(
                seconds(attempt, asked, chance),
                expected,
                "{attempt} {asked:?}"
            );
        }
        let late = Duration::from_hours(24) - Duration::from_secs(4);
        assert_eq!(SCHEDULE.pause(1, late, None, 0.5), None);
    }
}
