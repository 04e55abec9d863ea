//! A prediction that runs upstream, and its end when we lose interest.
//!
//! A call's future is dropped when the client has left and the operator wants that (`on_disconnect =
//! "cancel"`), or when its account cancels the generation, and it ends early at our deadline or when nobody says how the prediction is doing. In each
//! case the prediction would go on for nobody, so dropping a [`Job`] that runs asks the provider to cancel
//! it. `Drop` cannot wait, hence a task of its own: tracked, so that shutting down waits for it, and short.
//! It takes a place among the calls in flight; where none is free, or if it fails, `Cancel-After` ends the
//! prediction all the same, only later.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::Instant};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::providers::http::HttpClient;

/// How long cancelling may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// At most one prediction that runs.
pub(super) struct Job {
    http: Arc<HttpClient>,
    tasks: TaskTracker,
    id: Option<String>,
}

impl Job {
    /// None so far.
    pub(super) fn new(http: &Arc<HttpClient>, tasks: &TaskTracker) -> Self {
        Self {
            http: Arc::clone(http),
            tasks: tasks.clone(),
            id: None,
        }
    }

    /// It runs under this name.
    pub(super) fn runs(&mut self, id: String) {
        self.id = Some(id);
    }

    /// It has ended: nothing is left to cancel.
    pub(super) fn ended(&mut self) {
        self.id = None;
    }

    pub(super) fn is_running(&self) -> bool {
        self.id.is_some()
    }

    /// Its name; empty when none runs.
    pub(super) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let (Some(id), Ok(runtime)) = (self.id.take(), Handle::try_current()) {
            let cancel = cancel(Arc::clone(&self.http), id);
            self.tasks.spawn_on(cancel.in_current_span(), &runtime);
        }
    }
}

async fn cancel(http: Arc<HttpClient>, id: String) {
    let outcome = match http.begin(Instant::now() + PATIENCE) {
        Ok(attempt) => attempt.post_nothing(&["predictions", &id, "cancel"]).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(status @ 200..=299) => {
            tracing::debug!(
                prediction.id = id,
                upstream.status = status,
                "cancelled a prediction"
            );
        }
        Ok(status) => {
            tracing::warn!(
                prediction.id = id,
                upstream.status = status,
                "a prediction was not cancelled"
            );
        }
        Err(error) => {
            tracing::warn!(
                prediction.id = id,
                error.message = error.message,
                "a prediction was not cancelled"
            );
        }
    }
}
