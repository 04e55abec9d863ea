//! `DELETE /v1/images/generations/{id}`: stops a generation of the same account that runs.
//!
//! The answer is what became of it, if that is known soon: 200 when it was cancelled, now or by an earlier
//! request; 409 when it has ended in another way, which it may well do meanwhile; 202 when it still runs.

use std::time::Duration;

use axum::{extract::State, response::Response};
use tokio::time::{Instant, sleep};

use super::{ApiError, App, auth::Authenticated, extract::PathText, history, later};
use crate::ledger::{CANCELED, GenerationStatus};

/// How long the answer waits for the end of the generation: its replica looks twice a second, and may have to
/// finish what somebody sees already.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// `DELETE /v1/images/generations/{id}`
pub(super) async fn cancel(
    State(app): State<App>,
    Authenticated(key): Authenticated,
    PathText(id): PathText,
) -> Result<Response, ApiError> {
    let mut found = history::find(&app, &key, &id).await?;
    if found.status == GenerationStatus::InProgress {
        app.gateway.cancel(found.id).await?;
    }
    let until = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    while found.status == GenerationStatus::InProgress && Instant::now() < until {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        found = history::find(&app, &key, &id).await?;
    }
    let was_cancelled = (found.error.as_ref()).is_some_and(|error| error.code == CANCELED);
    if found.status != GenerationStatus::InProgress && !was_cancelled {
        return Err(ApiError::GenerationFinished(found.id, found.status));
    }
    later::shown(&app, &found).await
}
