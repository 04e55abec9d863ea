//! What time it is, as a thing that is passed in, so that tests can move time instead of sleeping.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};

/// A clock: the machine's, or one that only moves when told to.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    /// The machine's, and by how much a test says that it is wrong.
    System(TimeDelta),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System(TimeDelta::zero()))
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: DateTime<Utc>) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(
            start.timestamp_micros(),
        ))))
    }

    /// The clock of a machine that is wrong by so much.
    #[cfg(test)]
    pub const fn wrong(by: TimeDelta) -> Self {
        Self(Source::System(by))
    }

    /// Now, to the microsecond: what PostgreSQL keeps.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock the others ask"
    )]
    pub fn now(&self) -> DateTime<Utc> {
        let micros = match &self.0 {
            Source::System(wrong_by) => (Utc::now() + *wrong_by).timestamp_micros(),
            Source::Manual(micros) => micros.load(Ordering::SeqCst),
        };
        DateTime::from_timestamp_micros(micros).unwrap_or_default()
    }

    /// What tests say that the time is. `None` is the machine's clock: who counts together with others then asks
    /// the clock that they share, the database's.
    pub fn told(&self) -> Option<DateTime<Utc>> {
        match &self.0 {
            Source::Manual(_) => Some(self.now()),
            Source::System(_) => None,
        }
    }

    /// Moves a manual clock on; the machine's clock does not move for us.
    pub fn advance(&self, by: TimeDelta) {
        if let Source::Manual(micros) = &self.0 {
            micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            Source::Manual(_) => "Clock(manual)",
            Source::System(_) => "Clock(system)",
        })
    }
}
