//! The access token of a service account: fetched when first needed, kept, renewed early, by one call at a
//! time (`contracts/google-imagen.md`, 1.3).
//!
//! Nobody waits long for a renewal while the old token is good. Where there is none, one call fetches it and
//! the others wait for that one, and share its failure: a token server that is down is asked by one call at a
//! time, not by every request. Asking is harmless, so what may pass is asked again, a few times.

use std::{
    num::NonZeroU8,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout_at},
};

use super::key_file::KeyFile;
use crate::{
    clock::Clock,
    config::ProviderConfig,
    providers::{ErrorKind, ProviderError, http::HttpClient, wording::is_word},
};

/// So long before its end a token is renewed.
const EARLY: Duration = Duration::from_mins(5);
/// A token that is this close to its end may be over when it arrives.
const TOO_LATE: Duration = Duration::from_secs(10);
/// What a token holds for when the server does not say.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(1);
/// How long fetching one may take. It takes a fraction of a second.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a call is kept by renewing a token that is still good.
const EARLY_PATIENCE: Duration = Duration::from_secs(2);
/// How long the next early renewal waits after one that failed: no call after the other shall try it.
const EARLY_PAUSE: Duration = Duration::from_secs(15);
/// The pauses before a token server that failed is asked again.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// A service account, signed in.
pub(super) struct Account {
    key_file: KeyFile,
    http: HttpClient,
    state: Mutex<State>,
    /// Whoever holds it fetches.
    fetching: AsyncMutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// The last failure, for those who waited for it.
    failure: Option<(Instant, ProviderError)>,
}

/// An access token.
pub(super) struct Token {
    authorization: HeaderValue,
    expires_at: Instant,
}

impl Token {
    /// The header of a call.
    pub(super) fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, self.authorization.clone())])
    }

    fn is_good_for(&self, time: Duration) -> bool {
        self.expires_at.saturating_duration_since(Instant::now()) > time
    }
}

/// What the token server answers.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    /// A number, or its digits as a string.
    expires_in: Option<Value>,
    error: Option<String>,
}

impl Account {
    /// The account of a key file, and the project that the file names.
    ///
    /// # Errors
    /// A sentence naming the key that is wrong.
    pub(super) fn open(
        name: &str,
        path: &Path,
        config: &ProviderConfig,
    ) -> Result<(Self, Option<String>), String> {
        let mut key_file = KeyFile::read(path)?;
        let project = key_file.project.take();
        let config = ProviderConfig {
            timeout: config.timeout.min(FETCH_TIMEOUT),
            ..config.clone()
        };
        let http = HttpClient::new(name, &key_file.token_uri, HeaderMap::new(), &config, 0)
            .map_err(|problem| {
                let problem = problem.replace("base_url", "token_uri");
                format!("credentials_file {}: {problem}", path.display())
            })?;
        let account = Self {
            key_file,
            http,
            state: Mutex::default(),
            fetching: AsyncMutex::new(()),
        };
        Ok((account, project))
    }

    /// A token that is good now.
    ///
    /// # Errors
    /// [`ErrorKind::Auth`] when the account is refused; otherwise as a call would fail that was never sent.
    pub(super) async fn token(&self, deadline: Instant) -> Result<Arc<Token>, ProviderError> {
        let kept = self.kept();
        if let Some(token) = kept.as_ref().filter(|token| token.is_good_for(EARLY)) {
            return Ok(Arc::clone(token));
        }
        if let Some(token) = kept {
            // Still good: whoever comes first renews it, and a failure can wait.
            let Ok(_turn) = self.fetching.try_lock() else {
                return Ok(token);
            };
            let now = Instant::now();
            let paused_since = now.checked_sub(EARLY_PAUSE).unwrap_or(now);
            if self.failure_since(paused_since).is_some() {
                return Ok(token);
            }
            return match self.fetch(deadline.min(now + EARLY_PATIENCE)).await {
                Ok(renewed) => Ok(renewed),
                Err(error) => {
                    tracing::warn!(
                        provider.name = self.http.name(),
                        error.message = error.message,
                        "an access token could not be renewed early"
                    );
                    Ok(token)
                }
            };
        }
        let began_at = Instant::now();
        let _turn = timeout_at(deadline, self.fetching.lock())
            .await
            .map_err(|_| unsent(ErrorKind::Timeout { sent: false }, "did not answer in time"))?;
        if let Some(token) = self.kept() {
            return Ok(token);
        }
        if let Some(error) = self.failure_since(began_at) {
            return Err(error);
        }
        self.fetch(deadline).await
    }

    /// Drops a token that was refused; one that has taken its place stays.
    pub(super) fn forget(&self, refused: &Arc<Token>) {
        let mut state = self.state();
        if state
            .token
            .as_ref()
            .is_some_and(|token| Arc::ptr_eq(token, refused))
        {
            state.token = None;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> Option<Arc<Token>> {
        let state = self.state();
        state
            .token
            .clone()
            .filter(|token| token.is_good_for(TOO_LATE))
    }

    fn failure_since(&self, began_at: Instant) -> Option<ProviderError> {
        let state = self.state();
        let (failed_at, error) = state.failure.as_ref()?;
        (*failed_at >= began_at).then(|| error.clone())
    }

    async fn fetch(&self, deadline: Instant) -> Result<Arc<Token>, ProviderError> {
        let deadline = deadline.min(Instant::now() + FETCH_TIMEOUT);
        let mut outcome = self.ask(deadline).await;
        for pause in PAUSES {
            let may_pass = outcome
                .as_ref()
                .is_err_and(|error| may_pass(error.kind) && Instant::now() + pause < deadline);
            if !may_pass {
                break;
            }
            tokio::time::sleep(pause).await;
            outcome = self.ask(deadline).await;
        }
        let mut state = self.state();
        match outcome {
            Ok(token) => {
                let token = Arc::new(token);
                state.token = Some(Arc::clone(&token));
                state.failure = None;
                Ok(token)
            }
            Err(error) => {
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn ask(&self, deadline: Instant) -> Result<Token, ProviderError> {
        let asked_at = Instant::now();
        let assertion = self
            .key_file
            .assertion(Clock::system().now())
            .map_err(|problem| ProviderError::new(ErrorKind::Auth, problem))?;
        // Its characters need no escape.
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        );
        let attempt = self.http.begin(deadline)?;
        let answer = attempt
            .post(
                &[],
                "application/x-www-form-urlencoded",
                HeaderMap::new(),
                Bytes::from(form),
                NonZeroU8::MIN,
            )
            .await
            .map_err(|error| match error.kind {
                ErrorKind::Timeout { .. } => {
                    unsent(ErrorKind::Timeout { sent: false }, "did not answer in time")
                }
                _ => unsent(ErrorKind::Transport { sent: false }, "cannot be reached"),
            })?;
        let status = answer.status;
        let text = answer.body.error_text(&attempt).await;
        let answer = serde_json::from_slice::<TokenAnswer>(&text).ok();
        match (status, answer) {
            (
                200,
                Some(TokenAnswer {
                    access_token: Some(token),
                    expires_in,
                    ..
                }),
            ) => {
                let mut authorization =
                    HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                        unsent(ErrorKind::Auth, "sent a token that no header can carry")
                    })?;
                authorization.set_sensitive(true);
                let seconds = expires_in.and_then(|value| {
                    let written = || value.as_str()?.parse().ok();
                    value.as_u64().or_else(written)
                });
                let lifetime = seconds.map_or(DEFAULT_LIFETIME, Duration::from_secs);
                Ok(Token {
                    authorization,
                    expires_at: asked_at + lifetime.min(DEFAULT_LIFETIME),
                })
            }
            (408, _) => Err(unsent(
                ErrorKind::Overloaded { retry_after: None },
                "did not wait for our request",
            )),
            (429, _) => Err(unsent(
                ErrorKind::RateLimited { retry_after: None },
                "has had too many requests",
            )),
            (500.., _) => Err(unsent(
                ErrorKind::Overloaded { retry_after: None },
                &format!("failed (HTTP {status})"),
            )),
            (_, answer) => {
                let code = answer
                    .and_then(|answer| answer.error)
                    .filter(|code| is_word(code));
                let why = code.as_deref().unwrap_or("no token");
                Err(ProviderError {
                    code: code.clone(),
                    ..unsent(
                        ErrorKind::Auth,
                        &format!("refused our service account: {why} (HTTP {status})"),
                    )
                })
            }
        }
    }
}

/// Whether the next moment may be better.
fn may_pass(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::RateLimited { .. } | ErrorKind::Overloaded { .. } | ErrorKind::Transport { .. }
    )
}

/// An error of the token server: the call itself never went out, so it cannot be charged.
fn unsent(kind: ErrorKind, what: &str) -> ProviderError {
    ProviderError {
        maybe_charged: false,
        ..ProviderError::new(kind, format!("the provider's token server {what}"))
    }
}
