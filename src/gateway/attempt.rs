//! Attempts: the admitted routes, one after another, until one delivers.
//!
//! A route that brings fewer pictures per call than were asked for is called several times at once,
//! bounded. As soon as one picture has arrived the route has served: what is missing then is a failed
//! picture of the answer, not a reason to go elsewhere. The same holds as soon as the caller has seen
//! anything of one.

use std::{
    num::NonZeroU8,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, field::Empty, info_span};

use super::{
    DRAINING, Reader, Rooms,
    admit::{Admission, Candidacy},
    cancel,
    collect::{Collected, Collector, Exposure},
    relay::{Outlet, Shows},
};
use crate::{
    images::{Keep, StoredImage},
    keys::Mode,
    ledger,
    providers::{Call, ErrorKind, ProviderError, Report},
    routing::{self, Health, Next, Outcome, Standing, Ticket},
    telemetry::traces,
};

/// Upstream calls of one request at the same time.
const MAX_PARALLEL_CALLS: usize = 4;

/// What the attempts brought.
pub(super) struct Work<'a> {
    /// Every upstream call, in order, for the books.
    pub(super) attempts: Vec<ledger::Attempt>,
    pub(super) end: WorkEnd<'a>,
}

impl Work<'_> {
    /// What is left of attempts that died of a bug: nothing to charge.
    pub(super) fn panicked() -> Self {
        Self {
            attempts: Vec::new(),
            end: WorkEnd::Failed {
                provider: "",
                error: Box::new(ProviderError::new(
                    ErrorKind::Malformed,
                    "the attempt died of an internal error",
                )),
                is_unknown: false,
                drafts: None,
            },
        }
    }
}

/// How the attempts ended.
pub(super) enum WorkEnd<'a> {
    /// At least one picture arrived.
    Served {
        by: &'a Candidacy,
        calls: Vec<ServedCall>,
    },
    /// None did; the most telling failure.
    Failed {
        provider: &'a str,
        error: Box<ProviderError>,
        /// Whether nobody who was asked knows the model.
        is_unknown: bool,
        /// What had been shown by then.
        drafts: Option<ShownDrafts<'a>>,
    },
}

/// Drafts that came whole and were shown, and no picture after them.
#[derive(Clone, Copy)]
pub(super) struct ShownDrafts<'a> {
    /// Who painted them.
    pub(super) by: &'a Candidacy,
    /// How many.
    pub(super) count: usize,
}

/// One upstream call of the route that served.
pub(super) struct ServedCall {
    /// How many pictures it was asked for.
    pub(super) asked: NonZeroU8,
    /// The whole ones, with what the provider made of the prompt.
    pub(super) pictures: Vec<(StoredImage, Option<String>)>,
    /// How many drafts came, seen by somebody or not.
    pub(super) drafts: usize,
    /// How many of them came whole and were shown.
    pub(super) drafts_shown: usize,
    /// Whether they are kept only as copies of what was shown.
    pub(super) are_copies: bool,
    /// What the answer said besides.
    pub(super) report: Report,
    /// Why pictures are missing, if some are.
    pub(super) failure: Option<ProviderError>,
}

impl ServedCall {
    /// One that was never made, since the one before it said that it would be in vain.
    fn not_made(asked: NonZeroU8, why: ProviderError) -> Self {
        Self {
            asked,
            pictures: Vec::new(),
            drafts: 0,
            drafts_shown: 0,
            are_copies: false,
            report: Report::default(),
            failure: Some(why),
        }
    }

    /// Whether the provider said that it has no such model.
    fn met_no_such_model(&self) -> bool {
        let kind = self.failure.as_ref().map(|error| error.kind);
        kind == Some(ErrorKind::ModelUnavailable)
    }

    /// Whether it failed in a way that is worth a second try, and safe.
    fn may_repeat(&self) -> bool {
        let failure = self.failure.as_ref();
        self.pictures.is_empty() && failure.is_some_and(|error| error.may_repeat)
    }
}

/// Tries the routes in order.
pub(super) async fn attempt<'a>(
    rooms: &Rooms,
    admission: &'a Admission,
    outlet: &Outlet,
) -> Work<'a> {
    let mut attempts = Vec::new();
    let mut worst: Option<(&'a str, ProviderError)> = None;
    let mut drafts = None;
    let mut is_unknown = !admission.routes.is_empty();
    for candidacy in &admission.routes {
        outlet.turn_to(&candidacy.provider_name);
        let calls = call_route(rooms, admission, candidacy, outlet).await;
        let (records, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        attempts.extend(records.into_iter().flatten());
        if calls.iter().any(|call| !call.pictures.is_empty()) {
            let end = WorkEnd::Served {
                by: candidacy,
                calls,
            };
            return Work { attempts, end };
        }
        is_unknown &= calls.iter().all(ServedCall::met_no_such_model);
        let count = calls.iter().map(|call| call.drafts_shown).sum();
        let failures = calls.into_iter().filter_map(|call| call.failure);
        let Some(error) = failures.max_by_key(|error| weight(error.kind)) else {
            continue;
        };
        let next = if outlet.has_begun() {
            drafts = Some(ShownDrafts {
                by: candidacy,
                count,
            })
            .filter(|drafts| drafts.count > 0);
            Next::Stop
        } else {
            outlet.forget();
            routing::after_failure(error.kind, candidacy.retry_after_send)
        };
        log_failure(candidacy, &error, next);
        worst = Some(match worst {
            // Who has seen something of this one is told why there is no more of it.
            _ if outlet.has_begun() => (&candidacy.provider_name, error),
            Some(before) if weight(before.1.kind) > weight(error.kind) => before,
            _ => (&candidacy.provider_name, error),
        });
        if next == Next::Stop {
            break;
        }
    }
    let (provider, error) = worst.unwrap_or_else(|| {
        let error = ProviderError::new(ErrorKind::Malformed, "no route was tried");
        ("", error)
    });
    Work {
        attempts,
        end: WorkEnd::Failed {
            provider,
            error: Box::new(error),
            is_unknown,
            drafts,
        },
    }
}

/// Calls one route as often as it takes, and waits for all calls. Each comes with the attempts that it
/// took: two, when the first failed in a way that the provider itself calls passing; none, when another one
/// met a closed door before it began.
async fn call_route(
    rooms: &Rooms,
    admission: &Admission,
    candidacy: &Candidacy,
    outlet: &Outlet,
) -> Vec<(Vec<ledger::Attempt>, ServedCall)> {
    let calls = split(admission.request.n, candidacy.route.images_per_call);
    let exposure = exposure(outlet, calls.len());
    let calls = calls.into_iter().map(|(first, n)| Call {
        request: admission.request.clone(),
        task: admission.task.clone(),
        n,
        first,
        model: admission.model.clone(),
        route: candidacy.route.clone(),
        deadline: admission.deadline,
        may_be_stopped: admission.order.reader == Reader::ComesBack,
    });
    let closed = OnceLock::new();
    stream::iter(calls)
        .map(|call| {
            let closed = &closed;
            let span = info_span!(
                "attempt",
                provider.name = candidacy.provider_name,
                otel.kind = Empty,
            );
            traces::calling(&span);
            let mode = admission.order.key.mode;
            async move {
                if outlet.is_cut_short() {
                    return (Vec::new(), ServedCall::not_made(call.n, no_time()));
                }
                if let Some(why) = closed.get() {
                    return (
                        Vec::new(),
                        ServedCall::not_made(call.n, ProviderError::clone(why)),
                    );
                }
                if outlet.is_stopped() {
                    return (Vec::new(), ServedCall::not_made(call.n, cancel::error()));
                }
                let once = async || {
                    let (attempt, served) =
                        call_once(rooms, mode, candidacy, call.clone(), exposure, outlet).await;
                    if attempt.error.is_some() {
                        outlet.note_failure(outcome(&attempt));
                    }
                    (attempt, served)
                };
                let (attempt, mut served) = once().await;
                let mut attempts = vec![attempt];
                let has_shown = outlet.has_begun() && matches!(exposure, Exposure::Flowing(_));
                let has_time = Instant::now() < call.deadline && !outlet.is_cut_short();
                if !has_shown && served.may_repeat() && has_time {
                    let (second, again) = once().await;
                    attempts.push(second);
                    served = again;
                }
                if let Some(why) = served.failure.as_ref().filter(|why| closes(why.kind)) {
                    // Of several at once, the first to say so.
                    closed.get_or_init(|| why.clone());
                }
                (attempts, served)
            }
            .instrument(span)
        })
        .buffered(MAX_PARALLEL_CALLS)
        .collect()
        .await
}

/// Who sees what so many calls bring.
fn exposure(outlet: &Outlet, calls: usize) -> Exposure<'_> {
    match (outlet.shows, calls) {
        (Shows::Answer | Shows::Stream, 0 | 1) => Exposure::Flowing(outlet),
        (Shows::Stream, _) => Exposure::Whole(outlet),
        // The pictures of one answer stand in their order.
        (Shows::Answer | Shows::Nothing, _) => Exposure::Stored,
    }
}

/// Whether the next call of the same route would meet the same, and only make matters worse.
fn closes(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Auth
        | ErrorKind::QuotaExhausted
        | ErrorKind::ModelUnavailable
        | ErrorKind::RateLimited { .. } => true,
        ErrorKind::InvalidRequest
        // Another seed, another picture.
        | ErrorKind::ContentRefused
        | ErrorKind::Overloaded { .. }
        | ErrorKind::Timeout { .. }
        | ErrorKind::Transport { .. }
        | ErrorKind::Cancelled
        | ErrorKind::Malformed
        | ErrorKind::Storage => false,
    }
}

/// The process ends, and cannot wait for the provider.
fn no_time() -> ProviderError {
    ProviderError {
        code: Some(DRAINING.to_owned()),
        ..ProviderError::new(ErrorKind::Cancelled, "the server stops")
    }
}

async fn call_once(
    rooms: &Rooms,
    mode: Mode,
    candidacy: &Candidacy,
    call: Call,
    exposure: Exposure<'_>,
    outlet: &Outlet,
) -> (ledger::Attempt, ServedCall) {
    let started_at = rooms.clock.now();
    let clock = Instant::now();
    let health = Patient {
        health: &rooms.health,
        // What a tester does to the sandbox says nothing about anybody else.
        watched: mode == Mode::Live,
        is_replaced: &candidacy.is_replaced,
        call: &call,
    };
    let ticket = health.call_begins(clock);
    // Else the provider would charge for what its account has not to pay.
    let is_stoppable = candidacy.cancel_on_disconnect || candidacy.provider.can_stop(&call);
    let mut collector = Collector::new(&rooms.store, usize::from(call.n.get()), exposure);
    let result = {
        let work = candidacy.provider.generate(&call, &mut collector);
        tokio::select! {
            // What has come by now counts before a leaving does.
            biased;
            // Adapters keep their own, shorter deadlines; this one makes sure.
            result = timeout_at(call.deadline, work) => result.unwrap_or_else(|_| {
                let kind = ErrorKind::Timeout { sent: true };
                Err(ProviderError::new(kind, "the provider did not answer in time"))
            }),
            // What was shown is finished and charged, whoever leaves: else all but its last byte would be free.
            () = outlet.everybody_left(), if candidacy.cancel_on_disconnect => {
                Err(ProviderError::new(ErrorKind::Cancelled, "the client left"))
            }
            () = outlet.stopped(), if is_stoppable => Err(cancel::error()),
            // Who has seen a part of it sees the connection break, and is not charged for it.
            () = outlet.cut_short() => Err(no_time()),
        }
    };
    let latency = clock.elapsed();
    let (drafts, drafts_shown) = (collector.drafts(), collector.drafts_shown());
    let collected = collector.into_collected(outlet.out_of_time()).await;

    let arrived = collected.len();
    let (mut report, mut failure) = match result {
        Ok(report) => (report, None),
        Err(error) => (Report::default(), Some(error)),
    };
    // What came beyond what was asked for is the provider's affair: the usage is for what was asked.
    report.announced = report.announced.max(arrived).min(usize::from(call.n.get()));
    let mut broken = None;
    let mut pictures = Vec::new();
    for (place, collected) in collected.into_iter().enumerate() {
        match collected {
            Collected::Whole(stored) => {
                let revised = report.revised_prompts.get_mut(place).and_then(Option::take);
                pictures.push((stored, revised));
            }
            Collected::Broken(why) => broken = Some(why),
        }
    }
    if failure.is_none() && pictures.len() < usize::from(call.n.get()) {
        failure = Some(shortfall(&mut report, broken, pictures.len(), call.n));
    }

    health.call_ended(ticket, clock, latency, pictures.len(), failure.as_ref());
    let attempt = ledger::Attempt {
        provider: candidacy.provider_name.clone(),
        upstream_model: call.route.upstream_model.clone(),
        started_at,
        latency,
        upstream_status: (failure.as_ref().and_then(|error| error.upstream_status))
            .or(report.upstream_status),
        upstream_request_id: (failure.as_ref())
            .and_then(|error| error.upstream_request_id.clone())
            .or_else(|| report.upstream_request_id.clone()),
        error: failure.as_ref().map(|error| kind_name(error.kind)),
        images: u8::try_from(pictures.len()).unwrap_or(u8::MAX),
        maybe_charged: failure.as_ref().is_some_and(|error| error.maybe_charged),
    };
    let served = ServedCall {
        asked: call.n,
        pictures,
        drafts,
        drafts_shown,
        are_copies: matches!(exposure, Exposure::Flowing(outlet) if outlet.keep != Keep::Always),
        report,
        failure,
    };
    (attempt, served)
}

/// One call, as its route's health sees it.
struct Patient<'a> {
    health: &'a Health,
    watched: bool,
    is_replaced: &'a AtomicBool,
    call: &'a Call,
}

impl Patient<'_> {
    fn call_begins(&self, now: Instant) -> Ticket {
        if !self.watched {
            return Ticket::default();
        }
        let route = &self.call.route;
        self.health
            .call_begins(&route.provider, &route.upstream_model, now)
    }

    fn call_ended(
        &self,
        ticket: Ticket,
        began: Instant,
        latency: Duration,
        pictures: usize,
        failure: Option<&ProviderError>,
    ) {
        if !self.watched || self.is_replaced.load(Ordering::Relaxed) {
            return;
        }
        let images = u32::try_from(pictures).unwrap_or(u32::MAX);
        let outcome = match failure {
            None => Outcome::Success { images, latency },
            Some(error) if images == 0 => routing::outcome(error),
            Some(error) => routing::partial_outcome(error, images, latency),
        };
        let (provider, model) = (&self.call.route.provider, &self.call.route.upstream_model);
        let now = began + latency;
        let rests = || self.health.condition(provider, model, now).standing == Standing::Resting;
        let rested = rests();
        self.health
            .call_ended(provider, model, ticket, outcome, now);
        // Once each, however long the provider is sick; what every single call said is a line of its own.
        match (rested, rests()) {
            (false, true) => tracing::warn!(
                upstream.model = model,
                "the route rests: others go before it"
            ),
            (true, false) => tracing::info!(upstream.model = model, "the route is back"),
            (true, true) | (false, false) => {}
        }
    }
}

/// A success that brought too few pictures: why.
fn shortfall(
    report: &mut Report,
    broken: Option<String>,
    arrived: usize,
    asked: NonZeroU8,
) -> ProviderError {
    if let Some(refused) = report.refused.pop() {
        return refused;
    }
    let message = match broken {
        Some(why) => format!("the provider sent a picture that cannot be used: {why}"),
        None if arrived == 0 => "the provider answered without a picture".to_owned(),
        None => format!("the provider sent {arrived} of {asked} pictures"),
    };
    ProviderError {
        upstream_status: report.upstream_status,
        ..ProviderError::new(ErrorKind::Malformed, message)
    }
}

/// `n` pictures in calls of at most `per_call`: (number of the first, how many).
fn split(n: NonZeroU8, per_call: NonZeroU8) -> Vec<(u8, NonZeroU8)> {
    let mut calls = Vec::new();
    let mut first = 0;
    while let Some(rest) = NonZeroU8::new(n.get() - first) {
        let count = rest.min(per_call);
        calls.push((first, count));
        first += count.get();
    }
    calls
}

/// How much a failure tells the caller: the heavier wins when several routes failed.
fn weight(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Auth | ErrorKind::QuotaExhausted | ErrorKind::ModelUnavailable => 0,
        ErrorKind::Transport { sent: false } | ErrorKind::Timeout { sent: false } => 1,
        ErrorKind::Malformed => 2,
        ErrorKind::Overloaded { .. } => 3,
        ErrorKind::RateLimited { .. } => 4,
        ErrorKind::Transport { sent: true } | ErrorKind::Timeout { sent: true } => 5,
        ErrorKind::Storage => 6,
        ErrorKind::InvalidRequest => 7,
        ErrorKind::ContentRefused => 8,
        ErrorKind::Cancelled => 9,
    }
}

/// `openai=rate_limited`: what the caller may know of an upstream call. One that brought some of its pictures
/// has served.
pub(super) fn outcome(attempt: &ledger::Attempt) -> String {
    let outcome = match attempt.error {
        None => "ok",
        Some(_) if attempt.images > 0 => "partial",
        Some(kind) => kind,
    };
    format!("{}={outcome}", attempt.provider)
}

/// The kind's name in tables, logs and metrics.
pub(super) fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest => "invalid_request",
        ErrorKind::ContentRefused => "content_refused",
        ErrorKind::Auth => "auth",
        ErrorKind::QuotaExhausted => "quota_exhausted",
        ErrorKind::ModelUnavailable => "model_unavailable",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::RateLimited { .. } => "rate_limited",
        ErrorKind::Overloaded { .. } => "overloaded",
        ErrorKind::Timeout { sent: true } => "timeout_after_sending",
        ErrorKind::Timeout { sent: false } => "timeout",
        ErrorKind::Transport { sent: true } => "transport_after_sending",
        ErrorKind::Transport { sent: false } => "transport",
        ErrorKind::Malformed => "malformed",
        ErrorKind::Storage => "storage",
    }
}

fn log_failure(candidacy: &Candidacy, error: &ProviderError, next: Next) {
    let kind = kind_name(error.kind);
    // Left out of the line when there was no answer.
    let status = error.upstream_status;
    let provider = &candidacy.provider_name;
    match error.kind {
        // The client's mistake; and its message may be the provider's words about the prompt.
        ErrorKind::InvalidRequest | ErrorKind::ContentRefused => {
            tracing::info!(
                error.kind = kind,
                provider.name = provider,
                upstream.status = status,
                "the provider refused the request"
            );
        }
        // Somebody must look: our account at the provider does not work.
        ErrorKind::ModelUnavailable => {
            tracing::error!(
                error.kind = kind,
                provider.name = provider,
                upstream.status = status,
                upstream.model = candidacy.route.upstream_model,
                error.message = error.message,
                error.cause = error.cause,
                "the provider does not serve a model that the catalog sends there"
            );
        }
        ErrorKind::Auth | ErrorKind::QuotaExhausted => {
            tracing::error!(
                error.kind = kind,
                provider.name = provider,
                upstream.status = status,
                error.message = error.message,
                error.cause = error.cause,
                "the provider does not accept our account"
            );
        }
        ErrorKind::RateLimited { .. }
        | ErrorKind::Overloaded { .. }
        | ErrorKind::Timeout { .. }
        | ErrorKind::Transport { .. }
        | ErrorKind::Cancelled
        | ErrorKind::Malformed
        | ErrorKind::Storage => {
            tracing::warn!(error.kind = kind, provider.name = provider, upstream.status = status, error.message = error.message, error.cause = error.cause, next = ?next, "an attempt failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_cover_all_pictures_once() {
        for n in 1..=10 {
            for per_call in 1..=10 {
                let calls = split(
                    NonZeroU8::new(n).unwrap(),
                    NonZeroU8::new(per_call).unwrap(),
                );
                let covered: Vec<u8> = calls
                    .iter()
                    .flat_map(|&(first, count)| first..first + count.get())
                    .collect();
                assert_eq!(covered, (0..n).collect::<Vec<u8>>());
                assert!(calls.iter().all(|(_, count)| count.get() <= per_call));
            }
        }
    }
}
