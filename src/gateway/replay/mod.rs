//! One client request is one charge (I8): repeats get the answer of the generation that they repeat.
//!
//! Who works is decided in the books, where the hold is placed. What is here spares the books: whoever works in
//! this process is known by name, and a thousand repeats of one request wait on one channel, without a
//! connection and without a place among those in flight. Of a generation that another process works on, one
//! waiter looks into the books from time to time, for all.

mod recall;
mod record;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use self::recall::Recall;
pub(super) use self::record::{answer, refusal, words};
use super::{Gateway, GatewayError, Generation, admit::Admission, cancel, settle::Outcome};
use crate::{
    budget::{Budget, Owner},
    catalog::ResponseFormat,
    ids::{GenerationId, KeyId},
    ledger::{Caller, Gauge, LedgerError, RequestHash, Standing},
};

/// Between two looks into the books at a generation that another process works on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the books may be away meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// By what a request that is worked on here is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    /// The client's own name for it, which is good for one API key.
    Given(KeyId, String),
    Ours(GenerationId),
}

/// What came of a request, for those that repeat it.
#[derive(Debug, Clone)]
pub(super) enum Echo {
    /// The same answer.
    Answered(Arc<Generation>),
    /// The same error.
    Failed(Arc<GatewayError>),
    /// It was itself a repeat, of this generation.
    RepeatOf(GenerationId),
    /// Nothing came of it, and it may be done again.
    Nothing,
}

/// Everything that is worked on in this process.
#[derive(Debug)]
pub(super) struct Repeats {
    running: Mutex<HashMap<Name, Running>>,
    /// Places for those that wait for another's answer; one account has a quarter of them.
    waiting: Budget,
}

#[derive(Debug)]
struct Running {
    generation: GenerationId,
    hash: Option<RequestHash>,
    tell: watch::Sender<Option<Echo>>,
    stop: CancellationToken,
}

/// The first of its name. Dropped, it is no more, and whoever waits for it learns that.
#[derive(Debug)]
pub(super) struct Lead {
    repeats: Arc<Repeats>,
    names: Vec<Name>,
    tell: watch::Sender<Option<Echo>>,
    stop: CancellationToken,
}

/// Whether a request is the first of its name.
pub(super) enum Place {
    First(Lead),
    /// Behind the one that is known by this name.
    Behind(GenerationId, watch::Receiver<Option<Echo>>),
}

/// Which generation answers an order, as far as is known by now: its own, or the one whose request it repeats.
#[derive(Debug, Clone)]
pub struct Answering(Arc<Mutex<Answerer>>);

#[derive(Debug)]
struct Answerer {
    generation: GenerationId,
    /// Of whom the client knows.
    told: Option<GenerationId>,
}

impl Answering {
    pub(super) fn new(own: GenerationId) -> Self {
        Self(Arc::new(Mutex::new(Answerer {
            generation: own,
            told: None,
        })))
    }

    /// Its name, for a client that is told it before the answer is there. There is no way back: if it is another
    /// one's, the client is not painted for any more.
    pub fn fix(&self) -> GenerationId {
        let mut answerer = self.lock();
        let generation = answerer.generation;
        answerer.told = Some(generation);
        generation
    }

    pub(super) fn id(&self) -> GenerationId {
        self.lock().generation
    }

    pub(super) fn set(&self, generation: GenerationId) {
        self.lock().generation = generation;
    }

    /// Whether the client has been told of another generation than its own.
    pub(super) fn is_fixed_beside(&self, own: GenerationId) -> bool {
        self.lock().told.is_some_and(|told| told != own)
    }

    fn lock(&self) -> MutexGuard<'_, Answerer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a repeat is told.
#[derive(Debug)]
pub(super) enum Told {
    Answer(Box<Generation>),
    /// Nothing came of what it repeats, and it may be done again.
    Nothing,
    /// It was served and charged, but nobody has its pictures: neither the client, who says so by asking again, nor
    /// the store. Painted again, as a request of its own.
    Gone,
}

impl Repeats {
    /// For so many that wait at the same time.
    pub(super) fn new(most_waiting: usize) -> Arc<Self> {
        let most = most_waiting as u64;
        Arc::new(Self {
            running: Mutex::default(),
            waiting: Budget::new(most, (most / 4).max(1)),
        })
    }

    /// Takes the place of an admitted request.
    ///
    /// # Errors
    /// [`GatewayError::IdempotencyConflict`].
    pub(super) fn enter(self: &Arc<Self>, admission: &Admission) -> Result<Place, GatewayError> {
        self.take(
            names(admission),
            admission.generation,
            admission.order.request_hash,
        )
    }

    /// Takes the place of an admitted request that waits for nobody: beside the one that is worked on here
    /// under its name, if there is one. The books tell which of them works.
    ///
    /// # Errors
    /// [`GatewayError::IdempotencyConflict`].
    pub(super) fn enter_beside(
        self: &Arc<Self>,
        admission: &Admission,
    ) -> Result<Lead, GatewayError> {
        let hash = admission.order.request_hash;
        let mut names = names(admission);
        let mut running = self.lock();
        let mut before = names.iter().filter_map(|name| running.get(name));
        if before.any(|before| hash.is_some() && before.hash != hash) {
            return Err(GatewayError::IdempotencyConflict);
        }
        names.retain(|name| !running.contains_key(name));
        Ok(self.lead(&mut running, names, admission.generation, hash))
    }

    /// Takes a place behind, or else before, all others that wait for this generation.
    fn follow(self: &Arc<Self>, generation: GenerationId) -> Result<Place, GatewayError> {
        self.take(vec![Name::Ours(generation)], generation, None)
    }

    /// Has the work on a generation stopped, if it is in this process.
    pub(super) fn stop(&self, generation: GenerationId) {
        if let Some(running) = self.lock().get(&Name::Ours(generation)) {
            running.stop.cancel();
        }
    }

    fn take(
        self: &Arc<Self>,
        names: Vec<Name>,
        generation: GenerationId,
        hash: Option<RequestHash>,
    ) -> Result<Place, GatewayError> {
        let mut running = self.lock();
        if let Some(before) = names.iter().find_map(|name| running.get(name)) {
            if hash.is_some() && before.hash != hash {
                return Err(GatewayError::IdempotencyConflict);
            }
            let heard = before.tell.subscribe();
            return Ok(Place::Behind(before.generation, heard));
        }
        Ok(Place::First(self.lead(
            &mut running,
            names,
            generation,
            hash,
        )))
    }

    fn lead(
        self: &Arc<Self>,
        running: &mut HashMap<Name, Running>,
        names: Vec<Name>,
        generation: GenerationId,
        hash: Option<RequestHash>,
    ) -> Lead {
        let tell = watch::Sender::new(None);
        let stop = CancellationToken::new();
        for name in &names {
            let running_here = Running {
                generation,
                hash,
                tell: tell.clone(),
                stop: stop.clone(),
            };
            running.insert(name.clone(), running_here);
        }
        Lead {
            repeats: Arc::clone(self),
            names,
            tell,
            stop,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Running>> {
        // Nothing in here panics half-way.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who repeats a request, and how the answer is to look.
#[derive(Debug)]
pub(super) struct Repeater {
    caller: Caller,
    gauge: Gauge,
    /// The client's name for the effect.
    name: Option<String>,
    /// The model that is asked for, where that is known.
    model: String,
    /// `None`: as it was answered before.
    response_format: Option<ResponseFormat>,
    dropped: Vec<&'static str>,
    deadline: Instant,
}

impl Repeater {
    pub(super) fn of(admission: &Admission) -> Self {
        let order = &admission.order;
        Self {
            caller: Caller::from(&order.key),
            gauge: order.gauge.clone(),
            name: order.idempotency_key.clone(),
            model: admission.model.id.clone(),
            response_format: Some(admission.request.response_format),
            dropped: admission.dropped.clone(),
            deadline: admission.deadline,
        }
    }
}

/// By what a request is known that is worked on here.
fn names(admission: &Admission) -> Vec<Name> {
    let order = &admission.order;
    let ours = Name::Ours(admission.generation);
    let given = order.idempotency_key.clone();
    let given = given.map(|name| Name::Given(order.key.id, name));
    given.into_iter().chain([ours]).collect()
}

impl Lead {
    /// What came of it; the first word counts.
    pub(super) fn tell(&self, echo: Echo) {
        self.tell.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                *told = Some(echo);
            }
            is_first
        });
    }

    /// When somebody wants it stopped.
    ///
    /// # Cancel safety
    /// May be dropped.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether somebody wants it stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// When nobody waits for the answer but, perhaps, the one who asked first.
    pub(super) async fn nobody_waits(&self) {
        self.tell.closed().await;
    }

    /// The last word to the one who asked.
    pub(super) fn tell_outcome(&self, outcome: Result<&Generation, &GatewayError>) {
        self.tell(match outcome {
            Ok(generation) => Echo::Answered(Arc::new(generation.clone())),
            Err(error) => Echo::Failed(Arc::new(error.told_again())),
        });
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut running = self.repeats.lock();
        for name in &self.names {
            running.remove(name);
        }
    }
}

impl Gateway {
    /// Waits for the answer of the request that this one repeats.
    ///
    /// # Errors
    /// The same as that one's; [`GatewayError::ReplayExpired`] when the pictures of one that has a name are gone.
    ///
    /// # Cancel safety
    /// May be dropped.
    pub(super) async fn repeat(
        &self,
        repeater: &Repeater,
        before: Before,
        answering: &Answering,
    ) -> Result<Told, GatewayError> {
        if let Before::Here(_) = before {
            // Also one for which there is no place has been made.
            self.count_repeat(repeater).await?;
        }
        let owner = Owner::of(&repeater.caller.account);
        let mut place = self.shared.repeats.waiting.share(Some(owner));
        if !place.grow(1) {
            return Err(GatewayError::Saturated);
        }
        let mut echo = match before {
            Before::Here(heard) => listen(heard).await,
            // The books have counted it.
            Before::Booked(generation) => Echo::RepeatOf(generation),
        };
        if let Echo::RepeatOf(generation) = echo {
            answering.set(generation);
            echo = match self.shared.repeats.follow(generation)? {
                Place::Behind(_, heard) => listen(heard).await,
                Place::First(lead) => {
                    let echo = match self.look_up(repeater, generation).await {
                        Ok(echo) => echo,
                        Err(error) => Echo::Failed(Arc::new(error)),
                    };
                    lead.tell(echo.clone());
                    echo
                }
            };
        }
        let told = match echo {
            Echo::Answered(generation) => self
                .check_kept(&generation)
                .await
                .map(|()| Told::Answer(Box::new(told_again(&generation)))),
            Echo::Failed(error) => Err(error.told_again()),
            Echo::RepeatOf(_) | Echo::Nothing => Ok(Told::Nothing),
        };
        let has_name = repeater.name.is_some();
        match told {
            // Under a name the client may have had the answer before. A count says that it had not.
            Err(GatewayError::ReplayExpired { .. }) if !has_name => Ok(Told::Gone),
            told => told,
        }
    }

    /// What came of looking for a place; a request that got none has been made all the same.
    pub(super) async fn counted<T>(
        &self,
        place: Result<T, GatewayError>,
        admission: &Admission,
    ) -> Result<T, GatewayError> {
        if place.is_err() {
            self.count_repeat(&Repeater::of(admission)).await?;
        }
        place
    }

    /// All that is counted of a repeat is that it was made.
    async fn count_repeat(&self, repeater: &Repeater) -> Result<(), GatewayError> {
        let Repeater { caller, gauge, .. } = repeater;
        match self.rooms.ledger.count_refused(*caller, gauge).await {
            Err(too_many @ LedgerError::RateLimited { .. }) => Err(too_many.into()),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a repeated request was not counted"
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// What the books say of a generation, once it has ended.
    async fn look_up(
        &self,
        repeater: &Repeater,
        generation: GenerationId,
    ) -> Result<Echo, GatewayError> {
        let Caller { key, account, .. } = repeater.caller;
        let claim = repeater.name.as_deref().map(|name| (key, name));
        let mut pause = FIRST_PAUSE;
        let mut heard_at = Instant::now();
        loop {
            let standing = self.rooms.ledger.standing(account, generation, claim);
            match standing.await {
                Ok(Standing::InProgress) => heard_at = Instant::now(),
                Ok(Standing::Completed(found, answer)) => {
                    let answered =
                        record::replay(&self.rooms, &self.settings, repeater, *found, answer)?;
                    return Ok(Echo::Answered(Arc::new(answered)));
                }
                Ok(Standing::Refused(refusal)) => {
                    let error = record::replay_refusal(generation, &refusal)?;
                    return Ok(Echo::Failed(Arc::new(error)));
                }
                Ok(Standing::Failed) => return Ok(Echo::Nothing),
                Ok(Standing::Canceled) => {
                    let error = cancel::told(generation, &repeater.model);
                    return Ok(Echo::Failed(Arc::new(error)));
                }
                Err(error) if error.is_passing() && heard_at.elapsed() < PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
            if self.is_draining() {
                // Another process can wait as well.
                return Err(GatewayError::Draining);
            }
            if Instant::now() >= repeater.deadline {
                return Err(GatewayError::Unsettled);
            }
            sleep(pause).await;
            pause = pause.mul_f32(1.5).min(LONGEST_PAUSE);
        }
    }

    /// Never a second charge: what was charged and is gone is an error.
    async fn check_kept(&self, generation: &Generation) -> Result<(), GatewayError> {
        let unseen = generation
            .pictures
            .iter()
            .filter(|picture| picture.text.is_none());
        let wanted: Vec<_> = unseen
            .map(|picture| (picture.id, picture.info.format))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let found = self.rooms.store.find(wanted).await;
        let found = found.map_err(|error| GatewayError::Internal(Box::new(error)))?;
        if found.contains(&false) {
            return Err(GatewayError::ReplayExpired {
                generation: generation.id,
            });
        }
        Ok(())
    }
}

/// Where the request is that another one repeats.
#[derive(Debug)]
pub(super) enum Before {
    /// It is worked on in this process, under the same name.
    Here(watch::Receiver<Option<Echo>>),
    /// The books know it.
    Booked(GenerationId),
}

async fn listen(mut heard: watch::Receiver<Option<Echo>>) -> Echo {
    let told = heard.wait_for(Option::is_some).await;
    // It is gone without a word: its client has left before there was a hold, or its task has died.
    told.ok()
        .and_then(|told| (*told).clone())
        .unwrap_or(Echo::Nothing)
}

fn told_again(generation: &Generation) -> Generation {
    let mut generation = generation.clone();
    generation.is_replayed = true;
    // Its copies are looked after by the first answer.
    generation.undelivered = None;
    generation.times = None;
    for picture in &mut generation.pictures {
        picture.is_copy = false;
    }
    generation
}

/// What the books keep for a repeat of a generation that ends so.
pub(super) fn of(admission: &Admission, outcome: &Outcome) -> crate::ledger::Replay {
    let order = &admission.order;
    let answer = match outcome {
        Ok(generation) => Some(answer(admission, generation)),
        Err(error) => refusal(error),
    };
    let words = outcome.as_ref().ok().and_then(words);
    let name = order.idempotency_key.clone();
    crate::ledger::Replay {
        answer,
        words,
        claim: name.map(|name| (order.key.id, name)),
    }
}
