//! When a call ends: one instant passed down, instead of timeouts that add up.

use std::time::Duration;

use tokio::time::Instant;

/// The earlier of the provider's time limit and the caller's patience.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    provider: Instant,
    caller: Instant,
}

impl Deadline {
    /// `timeout` counts from now.
    pub(super) fn new(timeout: Duration, caller: Instant) -> Self {
        Self {
            provider: Instant::now().checked_add(timeout).unwrap_or(caller),
            caller,
        }
    }

    /// The instant.
    pub(super) fn at(&self) -> Instant {
        self.provider.min(self.caller)
    }

    /// Gives the provider back time that it did not use. The caller's patience is not ours to give.
    pub(super) fn extend(&mut self, by: Duration) {
        self.provider = self.provider.checked_add(by).unwrap_or(self.caller);
    }
}
