//! Cancelling: a generation is stopped because its account wants it so.
//!
//! Whoever works on it may be another replica. So the wish is written into the books, where each replica looks
//! from time to time for wishes about what it works on. What has arrived whole by then is charged, as ever; and
//! what somebody was shown anything of is finished, because else all but its last byte would be free. So is a call to
//! a provider that cannot be told to stop: it would charge for the whole picture, and nobody would pay it.

use std::sync::Arc;

use super::{Gateway, GatewayError, Shared, UpstreamFailure};
use crate::{
    ids::GenerationId,
    ledger::{Ledger, LedgerError},
    providers::{ErrorKind, ProviderError},
};

impl Gateway {
    /// Has a generation stopped, wherever it is worked on: here at once, elsewhere when that replica looks
    /// next. Says nothing of what becomes of it; the books do.
    ///
    /// # Errors
    /// [`GatewayError`] when the wish could not be written down.
    pub async fn cancel(&self, generation: GenerationId) -> Result<(), GatewayError> {
        self.rooms.ledger.ask_to_cancel(generation).await?;
        self.shared.repeats.stop(generation);
        Ok(())
    }

    /// The wishes about what is worked on here, under whichever configuration.
    pub fn cancellations(&self) -> Cancellations {
        Cancellations {
            shared: Arc::clone(&self.shared),
            ledger: self.rooms.ledger.clone(),
        }
    }
}

/// The wishes of others about what this process works on.
#[derive(Debug)]
pub struct Cancellations {
    shared: Arc<Shared>,
    ledger: Ledger,
}

impl Cancellations {
    /// Looks for them, and has stopped what shall be. To be called several times a second.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn heed(&self) -> Result<(), LedgerError> {
        if self.shared.tasks.is_empty() {
            return Ok(());
        }
        for generation in self.ledger.asked_to_cancel().await? {
            self.shared.repeats.stop(generation);
        }
        Ok(())
    }
}

/// What stopped a call.
pub(super) fn error() -> ProviderError {
    ProviderError::new(ErrorKind::Cancelled, "the generation was canceled")
}

/// The same for somebody who waits for what another replica worked on.
pub(super) fn told(generation: GenerationId, model: &str) -> GatewayError {
    GatewayError::Upstream(Box::new(UpstreamFailure {
        generation,
        attempts: String::new(),
        provider: String::new(),
        model: model.to_owned(),
        retired_on: None,
        error: error(),
        drafts: None,
        is_replayed: true,
        times: None,
    }))
}
