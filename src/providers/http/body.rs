//! A body that is bounded in bytes, in silence and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use super::{Attempt, cause};
use crate::providers::{ErrorKind, ProviderError};

/// More of an error's body than this is nobody's message.
const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;
/// An error's status is known; its body is not waited for longer than this.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(5);
/// What may still come after the end of a document, for the sake of reusing the connection.
const MAX_REST_BYTES: usize = 16 * 1024;
/// And how long that may take.
const REST_PATIENCE: Duration = Duration::from_millis(20);

/// The body of an answer, as it comes.
pub(in crate::providers) struct AnswerBody {
    body: Incoming,
    cap: u64,
    left: u64,
    /// Whether the connection broke within it.
    is_broken: bool,
}

impl AnswerBody {
    pub(super) fn new(body: Incoming, cap: u64) -> Self {
        Self {
            body,
            cap,
            left: cap,
            is_broken: false,
        }
    }

    /// The next chunk, or `None` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the deadline passes or nothing comes for the provider's
    /// `idle_timeout`, [`ErrorKind::Malformed`] when the connection breaks or the body is larger
    /// than it may be.
    pub(in crate::providers) async fn next(
        &mut self,
        attempt: &Attempt<'_>,
    ) -> Result<Option<Bytes>, ProviderError> {
        let deadline = attempt.deadline.at();
        let idle_timeout = attempt.client.idle_timeout;
        let silence = Instant::now().checked_add(idle_timeout).unwrap_or(deadline);
        let chunk = tokio::time::timeout_at(deadline.min(silence), self.chunk())
            .await
            .map_err(|_| {
                let message = if silence < deadline {
                    format!("the provider fell silent for {idle_timeout:?} within its answer")
                } else {
                    "the provider did not finish its answer in time".to_owned()
                };
                ProviderError::new(ErrorKind::Timeout { sent: true }, message)
            })?
            .map_err(|error| {
                self.is_broken = true;
                // An answer has begun, so this is one that cannot be read, not one that never came.
                ProviderError {
                    cause: Some(cause(&error)),
                    ..ProviderError::new(ErrorKind::Malformed, "the provider's answer broke off")
                }
            })?;
        if let Some(chunk) = &chunk {
            self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| {
                ProviderError::new(
                    ErrorKind::Malformed,
                    format!("the provider's answer is larger than {} bytes", self.cap),
                )
            })?;
        }
        Ok(chunk)
    }

    /// What the connection has next.
    ///
    /// # Cancel safety
    /// May be dropped: nothing is lost.
    async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.body.frame().await {
            // Trailers say nothing that anybody asks for.
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// How many bytes it says it has in all.
    pub(in crate::providers) fn announced_bytes(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Whether the connection broke before its end.
    pub(in crate::providers) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The beginning of an error's body; what does not come in time is left out.
    pub(in crate::providers) async fn error_text(mut self, attempt: &Attempt<'_>) -> Bytes {
        let mut text = BytesMut::new();
        let patience = attempt
            .deadline
            .at()
            .min(Instant::now() + ERROR_BODY_PATIENCE);
        while text.len() < MAX_ERROR_BODY_BYTES {
            match tokio::time::timeout_at(patience, self.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let room = MAX_ERROR_BODY_BYTES - text.len();
                    text.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
                Ok(Ok(None) | Err(_)) | Err(_) => break,
            }
        }
        text.freeze()
    }

    /// Reads what little should be left, so that the connection can serve again; whether anything comes,
    /// and what, no longer matters.
    pub(in crate::providers) async fn let_go(mut self) {
        let patience = Instant::now() + REST_PATIENCE;
        let mut room = MAX_REST_BYTES;
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(patience, self.chunk()).await {
            match room.checked_sub(chunk.len()) {
                Some(less) => room = less,
                None => break,
            }
        }
    }
}
