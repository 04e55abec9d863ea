//! What providers with jobs need: ask how one is doing, wait, ask again, all under the call's deadline.

use std::{num::NonZeroU8, time::Duration};

use bytes::Bytes;
use http::{Method, header};
use tokio::time::Instant;

use super::{Answer, Attempt, JSON, Payload, Witness, send_error};
use crate::{
    providers::{ErrorKind, ProviderError},
    telemetry::traces,
};

impl Attempt<'_> {
    /// Gets `base_url/path`, waiting at most `patience` for the head of the answer. Redirects are not
    /// followed. Asking is harmless, so it may be done again.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] and [`ErrorKind::Transport`], always `sent: true`: the job is there.
    pub(in crate::providers) async fn get_json(
        &self,
        path: &[&str],
        pictures: NonZeroU8,
        patience: Duration,
    ) -> Result<Answer, ProviderError> {
        let client = self.client;
        let mut headers = client.headers.clone();
        headers.insert(header::ACCEPT, JSON);
        headers.extend(traces::outgoing());
        let (url, nothing) = (
            client.endpoint(path),
            Witness::default().watch(Payload::default()),
        );
        let request = client.connections.send(Method::GET, &url, headers, nothing);
        let until = self.deadline.at().min(Instant::now() + patience);
        let response = tokio::time::timeout_at(until, request)
            .await
            .map_err(|_| {
                let message = "the provider did not say in time how the job is doing";
                ProviderError::new(ErrorKind::Timeout { sent: true }, message)
            })?
            .map_err(|error| send_error(&error, true))?;
        Ok(Answer::new(response, client.answer_cap(pictures)))
    }

    /// Posts nothing to `base_url/path`, for its effect; says the status.
    ///
    /// # Errors
    /// As [`Attempt::post_json`].
    pub(in crate::providers) async fn post_nothing(
        &self,
        path: &[&str],
    ) -> Result<u16, ProviderError> {
        let answer = self
            .post_json(path, Bytes::from_static(b"{}"), NonZeroU8::MIN)
            .await?;
        let status = answer.status;
        answer.body.let_go().await;
        Ok(status)
    }

    /// How long the call may still take.
    pub(in crate::providers) fn time_left(&self) -> Duration {
        self.ends_at().saturating_duration_since(Instant::now())
    }

    /// Waits. False, at the deadline, when it comes first.
    pub(in crate::providers) async fn pause(&self, time: Duration) -> bool {
        let ends_at = self.ends_at();
        let until = Instant::now() + time;
        tokio::time::sleep_until(until.min(ends_at)).await;
        until < ends_at
    }
}
