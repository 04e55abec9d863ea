//! Waiting for what has to come, for as long as a loaded machine may take: nothing is slept for and then asserted.

use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until the answer is yes; fails in the end, and says what did not happen.
pub(crate) async fn until(what: &str, ask: impl AsyncFn() -> bool) {
    until_some(what, async || ask().await.then_some(())).await;
}

/// The same until there is something, which it returns.
pub(crate) async fn until_some<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(
            begun.elapsed() < WITHIN,
            "it did not happen within {WITHIN:?}: {what}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
