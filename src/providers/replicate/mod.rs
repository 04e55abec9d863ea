//! Replicate: create a prediction, wait for it, fetch its files (`contracts/replicate.md`).
//!
//! Three pure parts around one conversation: [`request`] writes the creation, [`prediction`] reads answers
//! as they arrive, [`error`] says what failures mean. A creation is sent once: there is no idempotency key, so one
//! whose answer was lost may be running and paid for. Everything after it is asked again as often as needed.
//!
//! A prediction that nobody will fetch is cancelled upstream: [`job::Job`].

mod error;
#[cfg(test)]
mod golden;
mod job;
mod prediction;
mod request;
mod settings;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;

use self::{
    error::Problem,
    job::Job,
    prediction::{Output, Prediction, PredictionError, PredictionReader, Status},
    settings::Settings,
};
use super::{
    Call, ErrorKind, PictureEvent, PictureSink, Provider, ProviderError, Report,
    http::{Answer, Attempt, HttpClient, Mirrored},
};
use crate::{
    clock::Clock,
    config::{OnDisconnect, ProviderConfig},
};

/// The pauses between questions: the official clients' first, doubled up to the longest (section 2.2).
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one question may take.
const QUESTION_PATIENCE: Duration = Duration::from_secs(30);
/// Questions in a row that get no answer, after which the prediction is given up (section 6).
const MAX_UNANSWERED: u32 = 5;

/// Replicate, or a server that speaks its API.
pub struct Replicate {
    http: Arc<HttpClient>,
    /// Whether the prediction's id must be known while it runs.
    cancels: bool,
    cancellations: TaskTracker,
}

impl Replicate {
    /// The provider of a `[providers.NAME]` section.
    ///
    /// # Errors
    /// A sentence naming the key that is wrong.
    pub fn new(
        name: &str,
        config: &ProviderConfig,
        max_picture_bytes: u64,
    ) -> Result<Self, String> {
        let Settings { base_url, headers } = Settings::read(config)?;
        let http = HttpClient::new(name, base_url, headers, config, max_picture_bytes)?;
        Ok(Self {
            http: Arc::new(http),
            cancels: config.on_disconnect == OnDisconnect::Cancel,
            cancellations: TaskTracker::new(),
        })
    }

    async fn paint(
        &self,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let mut job = Job::new(&self.http, &self.cancellations);
        let mut attempt = self.http.begin(call.deadline)?;
        let mut predicting = Predicting {
            attempt: &mut attempt,
            sink,
            call,
            job: &mut job,
            taken: 0,
        };
        let prediction = predicting.create(!self.cancels).await?;
        let prediction = match prediction {
            Progress::Ended(prediction) => prediction,
            Progress::Running(had) => predicting.follow(had).await?,
        };
        predicting.collect(prediction).await
    }
}

/// One prediction on its way.
struct Predicting<'a, 'client> {
    attempt: &'a mut Attempt<'client>,
    sink: &'a mut dyn PictureSink,
    call: &'a Call,
    job: &'a mut Job,
    /// How many pictures the sink has whole.
    taken: usize,
}

/// How far a prediction is.
enum Progress {
    Ended(Prediction),
    /// And the places of the pictures that came already.
    Running(Vec<usize>),
}

impl Predicting<'_, '_> {
    /// Creates it. When `wait`, the answer comes with the pictures, or after a minute.
    async fn create(&mut self, wait: bool) -> Result<Progress, ProviderError> {
        let Call {
            request, n, route, ..
        } = self.call;
        let create = request::create(request, *n, route)?;
        let body = serde_json::to_vec(&create.body).map_err(|_| {
            // Maps of strings and numbers always serialise.
            let message = "the request could not be written";
            ProviderError::new(ErrorKind::InvalidRequest, message)
        })?;
        let headers = request::headers(self.attempt.time_left(), wait);
        let answer = self
            .attempt
            .post(
                &create.path,
                "application/json",
                headers,
                Bytes::from(body),
                *n,
            )
            .await?;
        let status = answer.status;
        if !matches!(status, 200..=202) {
            let headers = answer.headers;
            let text = answer.body.error_text(self.attempt).await;
            let problem = Problem::read(&text);
            return Err(problem.into_error(status, &headers, request, route, now()));
        }
        if answer.is_html() {
            return Err(malformed("is HTML"));
        }
        let prediction = match self.read(answer, Vec::new()).await {
            Ok(prediction) => prediction,
            Err(interrupted) if interrupted.is_torn => match interrupted.id {
                // It runs under this name, and can be asked for.
                Some(id) => {
                    self.job.runs(id);
                    return Ok(Progress::Running(interrupted.had));
                }
                // It may run, and nobody knows its name: not to be made again.
                None => return Err(lost(&interrupted.error)),
            },
            Err(interrupted) => return Err(interrupted.error),
        };
        // A complete output may come while the status lags behind, in this answer only (section 2.2).
        let is_complete = wait
            && status != 202
            && prediction.status == Some(Status::Processing)
            && prediction.output.count() >= usize::from(n.get());
        self.progress(prediction, is_complete)
    }

    /// Asks how it is doing until it has ended; says what came of it.
    async fn follow(&mut self, mut had: Vec<usize>) -> Result<Prediction, ProviderError> {
        let mut pause = FIRST_PAUSE;
        let mut unanswered = 0;
        let mut unread = None;
        while self.attempt.pause(jittered(pause)).await {
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.ask(had.clone()).await {
                Ok(prediction) => match self.progress(prediction, false)? {
                    Progress::Ended(prediction) => return Ok(prediction),
                    Progress::Running(now_had) => {
                        had = now_had;
                        unanswered = 0;
                    }
                },
                Err(interrupted) if interrupted.is_torn || is_passing(interrupted.error.kind) => {
                    had = interrupted.had;
                    unanswered += 1;
                    if unanswered == MAX_UNANSWERED {
                        return Err(lost(&interrupted.error));
                    }
                    unread = interrupted.error.upstream_status;
                }
                Err(interrupted) => return Err(interrupted.error),
            }
        }
        let message = "the prediction did not end in time";
        Err(ProviderError {
            upstream_status: unread,
            ..ProviderError::new(ErrorKind::Timeout { sent: true }, message)
        })
    }

    /// Asks once.
    async fn ask(&mut self, had: Vec<usize>) -> Result<Prediction, Interrupted> {
        let id = self.job.id().to_owned();
        // Never the answer's own `urls.get`: the token goes to the configured host only (section 8).
        let answer = self
            .attempt
            .get_json(&["predictions", &id], self.call.n, QUESTION_PATIENCE)
            .await;
        let failed = |had, error| Interrupted {
            id: None,
            had,
            is_torn: false,
            error,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(failed(had, error)),
        };
        let status = answer.status;
        if status != 200 {
            let headers = answer.headers;
            let text = answer.body.error_text(self.attempt).await;
            let (request, route) = (&self.call.request, &self.call.route);
            let error = Problem::read(&text).into_error(status, &headers, request, route, now());
            let error = ProviderError {
                // It was created, whatever became of it.
                maybe_charged: true,
                ..error
            };
            return Err(failed(had, error));
        }
        self.read(answer, had).await
    }

    /// Reads an answer; pictures in it go into the sink.
    async fn read(&mut self, answer: Answer, had: Vec<usize>) -> Result<Prediction, Interrupted> {
        let mut reader = PredictionReader::new(self.call.n, had);
        let outcome = self.read_into(answer, &mut reader).await;
        let inside_picture = reader.is_inside_picture();
        let prediction = reader.finish();
        let (is_torn, error) = match outcome {
            Ok(()) => return Ok(prediction),
            Err(Unread::Torn(error)) if inside_picture => {
                match self.deliver(PictureEvent::Abandon).await {
                    Ok(()) => (true, error),
                    Err(error) => (false, error),
                }
            }
            Err(Unread::Torn(error)) => (true, error),
            Err(Unread::Useless(error)) => (false, error),
        };
        Err(Interrupted {
            id: prediction.id,
            had: prediction.had,
            is_torn,
            error,
        })
    }

    async fn read_into(
        &mut self,
        answer: Answer,
        reader: &mut PredictionReader,
    ) -> Result<(), Unread> {
        let mut body = answer.body;
        while let Some(chunk) = body.next(self.attempt).await.map_err(Unread::Torn)? {
            reader.push(chunk);
            while let Some(event) = reader.next().map_err(Unread::unreadable)? {
                self.deliver(event).await.map_err(Unread::Useless)?;
            }
            if reader.is_done() {
                body.let_go().await;
                return Ok(());
            }
        }
        Err(Unread::Torn(malformed("broke off")))
    }

    async fn deliver(&mut self, event: PictureEvent) -> Result<(), ProviderError> {
        let ends = matches!(event, PictureEvent::End);
        self.attempt.deliver(self.sink, event).await?;
        self.taken += usize::from(ends);
        Ok(())
    }

    fn progress(
        &mut self,
        prediction: Prediction,
        is_complete: bool,
    ) -> Result<Progress, ProviderError> {
        let status = prediction
            .status
            .ok_or_else(|| malformed("has no status"))?;
        if is_complete || status.is_final() {
            self.job.ended();
            return Ok(Progress::Ended(prediction));
        }
        match (&prediction.id, self.job.is_running()) {
            (_, true) => {}
            (Some(id), false) => self.job.runs(id.clone()),
            (None, false) => return Err(malformed("has no id")),
        }
        Ok(Progress::Running(prediction.had))
    }

    /// Fetches what it made, and says what is missing.
    async fn collect(mut self, prediction: Prediction) -> Result<Report, ProviderError> {
        let n = usize::from(self.call.n.get());
        let status = prediction.status.unwrap_or(Status::Other);
        let mut refused = Vec::new();
        for (_, link) in &prediction.links {
            match self.attempt.mirror(self.sink, link).await? {
                Mirrored::Whole => self.taken += 1,
                Mirrored::Lost(error) => refused.push(error),
            }
        }
        let missing = n.saturating_sub(self.taken + refused.len());
        if missing > 0 {
            let why = match (status, prediction.output) {
                // The open models drop unsafe pictures without a word, in the end all of them (section 4).
                (Status::Succeeded, Output::Strings(_)) => {
                    error::refused("the provider's safety filter kept the picture")
                }
                _ => error::of_prediction(
                    status,
                    prediction.error.as_deref(),
                    &self.call.request.prompt,
                    self.attempt.time_left(),
                ),
            };
            refused.extend(std::iter::repeat_n(why, missing));
        }
        if self.taken == 0
            && let Some(error) = refused.pop()
        {
            return Err(error);
        }
        Ok(Report {
            announced: prediction.output.count(),
            created: prediction.created,
            refused,
            upstream_request_id: prediction.id,
            ..Report::default()
        })
    }
}

/// An answer that could not be had or read to its end.
struct Interrupted {
    /// The prediction's name, if it came.
    id: Option<String>,
    had: Vec<usize>,
    /// The rest of it did not come: asking again may bring it.
    is_torn: bool,
    error: ProviderError,
}

/// Why an answer was not read to its end.
enum Unread {
    /// The rest of it did not come.
    Torn(ProviderError),
    /// What came is of no use, or cannot be kept.
    Useless(ProviderError),
}

impl Unread {
    fn unreadable(error: PredictionError) -> Self {
        Self::Useless(malformed(&format!("cannot be read: {error}")))
    }
}

/// Whether asking again may help.
fn is_passing(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::RateLimited { .. }
        | ErrorKind::Overloaded { .. }
        | ErrorKind::Timeout { .. }
        | ErrorKind::Transport { .. } => true,
        ErrorKind::InvalidRequest
        | ErrorKind::ContentRefused
        | ErrorKind::Auth
        | ErrorKind::QuotaExhausted
        | ErrorKind::ModelUnavailable
        | ErrorKind::Cancelled
        | ErrorKind::Malformed
        | ErrorKind::Storage => false,
    }
}

/// The prediction was created, and nobody says what became of it: it may be painting.
fn lost(error: &ProviderError) -> ProviderError {
    let kind = match error.kind {
        ErrorKind::Timeout { .. } => ErrorKind::Timeout { sent: true },
        _ => ErrorKind::Transport { sent: true },
    };
    ProviderError {
        upstream_status: error.upstream_status,
        ..ProviderError::new(
            kind,
            "the provider does not say what became of the prediction",
        )
    }
}

/// Between three quarters and five quarters of it, so that many do not ask in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)
}

fn malformed(what: &str) -> ProviderError {
    let message = format!("the provider's answer {what}");
    ProviderError::new(ErrorKind::Malformed, message)
}

/// For dates in `retry-after`, which are about the real world.
fn now() -> chrono::DateTime<chrono::Utc> {
    Clock::system().now()
}

impl Provider for Replicate {
    fn generate<'a>(
        &'a self,
        call: &'a Call,
        sink: &'a mut dyn PictureSink,
    ) -> BoxFuture<'a, Result<Report, ProviderError>> {
        Box::pin(self.paint(call, sink))
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.cancellations.close();
        Box::pin(self.cancellations.wait())
    }
}

impl fmt::Debug for Replicate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Replicate")
            .field("name", &self.http.name())
            .field("base_url", &self.http.base_url().as_str())
            .finish_non_exhaustive()
    }
}
