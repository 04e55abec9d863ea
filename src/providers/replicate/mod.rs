//! Replicate: create a prediction, wait for it, fetch its files (`contracts/replicate.md`).
//!
//! Three pure parts around one conversation: [`request`] writes the creation, [`prediction`] reads answers
//! as they arrive, [`error`] says what failures mean. What an edit is made from goes ahead: [`inputs`]. A creation is sent once: there is no idempotency key, so one
//! whose answer was lost may be running and paid for. Everything after it is asked again as often as needed.
//!
//! A prediction that nobody will fetch is cancelled upstream: [`job::Job`].

mod error;
#[cfg(test)]
mod golden;
mod inputs;
mod job;
mod prediction;
mod request;
mod settings;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;

use self::{
    error::Problem,
    job::Job,
    prediction::{Output, Prediction, PredictionError, PredictionReader, Status},
    settings::Settings,
};
use super::{
    AccountReport, Call, ErrorKind, PictureEvent, PictureSink, Provider, ProviderError, Report,
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
    /// Whether every prediction's id must be known while it runs.
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

    /// `GET /account` is free (contract, section 1).
    async fn ask_for_account(&self) -> Result<AccountReport, ProviderError> {
        let answer = self.http.inspect(&["account"], None).await?;
        match answer.status {
            200 => Ok(answer.report("the token works")),
            _ => Err(answer.refusal()),
        }
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
        let needs_id = self.needs_id(call);
        let outcome = predicting.go(!needs_id).await;
        let outcome = outcome.map_err(|error| named(error, Some(job.id())));
        attempt.sign(outcome)
    }

    /// Whether the prediction's id must be known while it runs: what is waited for in one exchange has none until its
    /// end, and cannot be cancelled.
    fn needs_id(&self, call: &Call) -> bool {
        self.cancels || call.may_be_stopped
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
    async fn go(&mut self, wait: bool) -> Result<Report, ProviderError> {
        let prediction = match self.create(wait).await? {
            Progress::Ended(prediction) => prediction,
            Progress::Running(had) => self.follow(had).await?,
        };
        self.collect(prediction).await
    }

    /// Creates it. When `wait`, the answer comes with the pictures, or after a minute.
    async fn create(&mut self, wait: bool) -> Result<Progress, ProviderError> {
        let Call {
            request,
            first,
            n,
            route,
            ..
        } = self.call;
        let handed = inputs::hand_over(self.attempt, self.call).await?;
        let create = request::create(request, &handed, (*first, *n), route)?;
        let headers = request::headers(self.attempt.time_left(), wait);
        let answer = self
            .attempt
            .post(&create.path, "application/json", headers, create.body, *n)
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
            Err(Unread {
                id,
                gap,
                had,
                error,
            }) => {
                let is_named = id.is_some();
                if let Some(id) = id {
                    // It runs under this name: it can be asked for, or else be cancelled.
                    self.job.runs(id);
                }
                return match gap {
                    Gap::Torn if is_named => Ok(Progress::Running(had)),
                    // It may run, and nobody knows its name: not to be made again.
                    Gap::Torn => Err(lost(&error)),
                    Gap::Unreadable | Gap::Refused | Gap::Sink => Err(error),
                };
            }
        };
        // A complete output may come while the status lags behind, in this answer only (section 2.2).
        let is_complete =
            wait && status != 202 && prediction.output.count() >= usize::from(n.get());
        self.progress(prediction, is_complete)
    }

    /// Asks how it is doing until it has ended; says what came of it.
    async fn follow(&mut self, mut had: Vec<usize>) -> Result<Prediction, ProviderError> {
        let mut pause = FIRST_PAUSE;
        let mut unanswered = 0;
        let mut unread = None;
        // What the provider asked for, if it asked to be left alone.
        let mut rest = Duration::ZERO;
        while self.attempt.pause(jittered(pause).max(rest)).await {
            pause = (pause * 2).min(LONGEST_PAUSE);
            rest = Duration::ZERO;
            match self.ask(had.clone()).await {
                Ok(prediction) => match self.progress(prediction, false)? {
                    Progress::Ended(prediction) => return Ok(prediction),
                    Progress::Running(now_had) => {
                        had = now_had;
                        unanswered = 0;
                    }
                },
                Err(missing) if missing.may_come() => {
                    had = missing.had;
                    unanswered += 1;
                    if unanswered == MAX_UNANSWERED {
                        return Err(lost(&missing.error));
                    }
                    unread = missing.error.upstream_status;
                    rest = asked_rest(missing.error.kind);
                }
                Err(missing) => return Err(missing.error),
            }
        }
        let message = "the prediction did not end in time";
        Err(ProviderError {
            upstream_status: unread,
            ..ProviderError::new(ErrorKind::Timeout { sent: true }, message)
        })
    }

    /// Asks once.
    async fn ask(&mut self, had: Vec<usize>) -> Result<Prediction, Unread> {
        let id = self.job.id().to_owned();
        // Never the answer's own `urls.get`: the token goes to the configured host only (section 8).
        let answer = self
            .attempt
            .get_json(&["predictions", &id], self.call.n, QUESTION_PATIENCE)
            .await;
        let unread = |had, gap, error| Unread {
            id: None,
            had,
            gap,
            error,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(unread(had, Gap::Torn, error)),
        };
        match answer.status {
            200 if answer.is_html() => Err(unread(had, Gap::Unreadable, malformed("is HTML"))),
            200 => self.read(answer, had).await,
            status => {
                let headers = answer.headers;
                let text = answer.body.error_text(self.attempt).await;
                let error = Problem::read(&text).of_question(status, &headers, now());
                Err(unread(had, Gap::Refused, error))
            }
        }
    }

    /// Reads an answer; pictures in it go into the sink.
    async fn read(&mut self, answer: Answer, had: Vec<usize>) -> Result<Prediction, Unread> {
        let mut reader = PredictionReader::new(self.call.n, had);
        let outcome = self.read_into(answer, &mut reader).await;
        let inside_picture = reader.is_inside_picture();
        let prediction = reader.finish();
        let (mut gap, mut error) = match outcome {
            Ok(()) if prediction.status.is_some() => return Ok(prediction),
            Ok(()) => (Gap::Unreadable, malformed("has no status")),
            Err(failed) => failed,
        };
        if inside_picture
            && gap != Gap::Sink
            && let Err(refusal) = self.deliver(PictureEvent::Abandon).await
        {
            (gap, error) = (Gap::Sink, refusal);
        }
        Err(Unread {
            id: prediction.id,
            had: prediction.had,
            gap,
            error,
        })
    }

    async fn read_into(
        &mut self,
        answer: Answer,
        reader: &mut PredictionReader,
    ) -> Result<(), (Gap, ProviderError)> {
        let unreadable = |error: PredictionError| {
            let error = malformed(&format!("cannot be read: {error}"));
            (Gap::Unreadable, error)
        };
        let mut body = answer.body;
        loop {
            let chunk = body.next(self.attempt).await;
            let Some(chunk) = chunk.map_err(|error| (Gap::Torn, error))? else {
                return Err((Gap::Torn, malformed("broke off")));
            };
            reader.push(chunk);
            while let Some(event) = reader.next().map_err(unreadable)? {
                let delivered = self.deliver(event).await;
                delivered.map_err(|error| (Gap::Sink, error))?;
            }
            if reader.is_done() {
                body.let_go().await;
                return Ok(());
            }
        }
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
        if is_complete || prediction.status.is_some_and(Status::is_final) {
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
    async fn collect(&mut self, prediction: Prediction) -> Result<Report, ProviderError> {
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
                (status, output) => {
                    let text = prediction.error.as_deref();
                    let prompt = &self.call.request.prompt;
                    let left = self.attempt.time_left();
                    let error = error::of_prediction(status, text, prompt, left);
                    let failed = status == Status::Failed;
                    let is_official = request::is_official(&self.call.route);
                    ProviderError {
                        // The others are billed by the second, whatever comes of it (section 5).
                        maybe_charged: error.maybe_charged || (failed && !is_official),
                        may_repeat: failed
                            && is_official
                            && output.count() == 0
                            && error::may_repeat(text),
                        ..error
                    }
                }
            };
            refused.extend(std::iter::repeat_n(why, missing));
        }
        if self.taken == 0
            && let Some(error) = refused.pop()
        {
            return Err(named(error, prediction.id.as_deref()));
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
struct Unread {
    /// The prediction's name, if it came.
    id: Option<String>,
    /// The places of the pictures that came all the same.
    had: Vec<usize>,
    gap: Gap,
    error: ProviderError,
}

/// Why an answer was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// The rest of it did not come.
    Torn,
    /// It is no prediction.
    Unreadable,
    /// An error came instead.
    Refused,
    /// What came cannot be kept.
    Sink,
}

impl Unread {
    /// Whether asking again may help, when this was the answer to a question. The prediction is there, so
    /// only what concerns our account or our own disk is sure to stay as it is.
    fn may_come(&self) -> bool {
        match self.gap {
            Gap::Torn | Gap::Unreadable => true,
            Gap::Refused => !matches!(self.error.kind, ErrorKind::Auth | ErrorKind::QuotaExhausted),
            Gap::Sink => false,
        }
    }
}

/// How long the provider wants to be left alone.
fn asked_rest(kind: ErrorKind) -> Duration {
    if let ErrorKind::RateLimited { retry_after } | ErrorKind::Overloaded { retry_after } = kind {
        retry_after.unwrap_or_default()
    } else {
        Duration::ZERO
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

/// The error with the prediction's name, by which the provider's support finds it.
fn named(error: ProviderError, id: Option<&str>) -> ProviderError {
    let name = id.filter(|id| !id.is_empty()).map(str::to_owned);
    ProviderError {
        upstream_request_id: error.upstream_request_id.or(name),
        ..error
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

    fn can_stop(&self, call: &Call) -> bool {
        self.needs_id(call)
    }

    fn check_account(&self) -> BoxFuture<'_, Result<AccountReport, ProviderError>> {
        Box::pin(self.ask_for_account())
    }

    fn in_flight(&self) -> usize {
        self.http.calls_in_flight()
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
