//! The one way a request goes: admit → hold → attempt → deliver → settle.
//!
//! This file is that way, top to bottom; each step has a file of its own. The gateway knows the order of
//! events and nothing of axum, SQL or any provider's JSON.
//!
//! From the hold on, the work runs in a task that the [`Gateway`] owns: a caller that hangs up drops the
//! future of [`Gateway::generate`], and the generation is finished, charged and kept all the same (I7).

mod admit;
mod attempt;
mod cancel;
mod collect;
mod error;
mod figures;
mod inputs;
mod offers;
mod order;
mod relay;
mod replay;
mod settle;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot},
    time::Instant,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::{Instrument, info_span};

use self::{
    admit::Admission,
    attempt::Work,
    relay::{Outlet, Pipe, Word},
    replay::{Before, Lead, Place, Repeater, Repeats, Told},
};
pub use self::{
    admit::LONGEST_GENERATION,
    cancel::Cancellations,
    error::{DRAINING, GatewayError, UpstreamFailure, upstream_code},
    offers::Offer,
    order::{DeliveredPicture, FailedPicture, Generation, Order, Reader, Times, Usage},
    relay::{Delivery, Intro, Piece, Progress},
    replay::{Answering, Recall},
};
use crate::{
    catalog::{Catalog, ResponseFormat},
    clock::Clock,
    faults::{self, Point},
    ids::{GenerationId, HoldId},
    images::{Copies, ImageStore, Keep, Links},
    ledger::{Caller, Hold, Ledger, LedgerError, NewHold, Settlement},
    money::NanoUsd,
    providers::{Provider, registry::Switch},
    routing::Health,
    telemetry::{metrics::metrics, traces},
};

/// What the gateway needs to know about a configured provider besides how to call it.
#[derive(Debug, Clone)]
pub struct ProviderSlot {
    /// The adapter, or why it is off.
    pub switch: Switch,
    /// Our margin in basis points.
    pub markup_basis_points: u32,
    /// Whether a request that was sent and never answered may be made again on the next route.
    pub retry_after_send: bool,
    /// Whether to hang up on the provider when the client leaves, or wants it stopped and the provider cannot be told
    /// so; otherwise the generation is finished.
    pub cancel_on_disconnect: bool,
    /// Whether another one has taken its name: how its last calls end says nothing about that one.
    pub is_replaced: Arc<AtomicBool>,
}

/// What an operator decides about the way of a request.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The model of a request that names none. `None`: the built-in choice; empty: refuse.
    pub default_model: Option<String>,
    /// How long a link opens.
    pub url_ttl: Duration,
    /// How long a finished generation's pictures can be fetched again.
    pub replay_ttl: Duration,
    /// Generations at the same time; beyond it requests are refused at once.
    pub max_in_flight: usize,
    /// How long a provider waits in all for a client that does not take an answer of which there is no copy.
    pub stall_timeout: Duration,
    /// Whether answers that go through while they arrive are also kept.
    pub relay_copies: bool,
    /// How many bytes of such copies stay once their answers were delivered.
    pub replay_budget_bytes: u64,
}

/// The rooms the gateway works with.
#[derive(Debug, Clone)]
pub struct Rooms {
    /// Which models there are.
    pub catalog: Arc<Catalog>,
    /// Who is configured to serve them, by name.
    pub providers: BTreeMap<String, ProviderSlot>,
    /// How their routes have been doing.
    pub health: Arc<Health>,
    /// The books.
    pub ledger: Ledger,
    /// Where pictures live.
    pub store: ImageStore,
    /// How links to them are signed.
    pub links: Links,
    /// What time it is.
    pub clock: Clock,
}

/// The way of a request, ready to be gone by many at once.
///
/// One for each configuration that was in force: what has begun goes on by the models, prices and providers
/// that it began with, and what all of them share is counted once.
#[derive(Debug)]
pub struct Gateway {
    rooms: Rooms,
    settings: GatewaySettings,
    shared: Arc<Shared>,
}

/// What outlives a configuration.
#[derive(Debug)]
struct Shared {
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    copies: Copies,
    repeats: Arc<Repeats>,
    /// Whether others should be asked, though nobody is refused yet.
    is_leaving: AtomicBool,
    /// Whether nobody comes in any more, and nobody should wait for what happens elsewhere.
    is_draining: AtomicBool,
    /// There is no time left: providers are hung up on.
    cut: CancellationToken,
    /// Providers of earlier configurations that may still have something to do.
    replaced: Mutex<Vec<Arc<dyn Provider>>>,
}

/// An order that was admitted: it has a name and a slot, and nothing has moved yet.
#[must_use]
pub struct Accepted {
    gateway: Arc<Gateway>,
    admission: Admission,
    intro: Arc<Intro>,
    answering: Answering,
    slot: OwnedSemaphorePermit,
    /// Counts it among the tasks until it is one.
    counted: TaskTrackerToken,
}

/// What became of an order whose reader comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Its hold is committed, and it is worked on.
    New,
    /// Nothing was begun: it repeats this generation's.
    Repeat(GenerationId),
}

/// An order that was taken up, as whoever listens has it.
struct Taken {
    word: Word,
    pipe: Arc<Pipe>,
    /// Dropped, nobody listens any more.
    listening: DropGuard,
}

/// How often an order is taken up whose forerunners come to nothing, each after it had waited for the one before.
const MOST_TURNS: usize = 8;

/// Why there is no hold to work on.
struct NotHeld {
    error: GatewayError,
    /// The hold that may have been placed all the same.
    unconfirmed: Option<Box<NewHold>>,
    /// The generation whose request this one repeats.
    repeats: Option<GenerationId>,
}

impl From<GatewayError> for NotHeld {
    fn from(error: GatewayError) -> Self {
        Self {
            error,
            unconfirmed: None,
            repeats: None,
        }
    }
}

impl Gateway {
    /// A gateway over these rooms.
    pub fn new(rooms: Rooms, settings: GatewaySettings) -> Arc<Self> {
        let shared = Shared {
            slots: Arc::new(Semaphore::new(settings.max_in_flight)),
            repeats: Repeats::new(settings.max_in_flight),
            copies: Copies::new(rooms.store.clone(), settings.replay_budget_bytes),
            tasks: TaskTracker::new(),
            is_leaving: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            cut: CancellationToken::new(),
            replaced: Mutex::default(),
        };
        Arc::new(Self {
            rooms,
            settings,
            shared: Arc::new(shared),
        })
    }

    /// A gateway that goes on where this one is left, with other models, providers and settings.
    /// (`max_in_flight` and `replay_budget_bytes` stay.) Nobody's generation is touched.
    #[must_use]
    pub fn succeeded_by(&self, rooms: Rooms, settings: GatewaySettings) -> Arc<Self> {
        Arc::new(Self {
            rooms,
            settings,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Takes note that the providers of these slots serve no new requests: their last calls say nothing about
    /// who has taken their place, and [`Gateway::drain`] waits for what they leave behind.
    pub fn retire(&self, slots: impl IntoIterator<Item = ProviderSlot>) {
        let mut replaced = self.shared.replaced();
        // Those of which nobody knows any more and that have nothing left to do.
        replaced.retain(|provider| {
            Arc::strong_count(provider) > 1 || provider.drain().now_or_never().is_none()
        });
        for slot in slots {
            slot.is_replaced.store(true, Ordering::Relaxed);
            if let Switch::On(provider) = slot.switch {
                replaced.push(provider);
            }
        }
    }

    /// Serves one request, from the typed body to its delivery: the settled generation, or one whose first
    /// picture is on its way.
    ///
    /// # Errors
    /// [`GatewayError`]; when it is returned nothing is held and nothing was charged but drafts that were shown
    /// ([`UpstreamFailure::drafts`]).
    ///
    /// # Cancel safety
    /// As [`Accepted::deliver`].
    pub async fn generate(self: &Arc<Self>, order: Order) -> Result<Delivery, GatewayError> {
        self.accept(order)?.deliver().await
    }

    /// The first half of [`Gateway::generate`]: everything that can be decided before money moves.
    ///
    /// # Errors
    /// [`GatewayError`]; nothing has happened.
    pub fn accept(self: &Arc<Self>, order: Order) -> Result<Accepted, GatewayError> {
        // Before the slot: a drain that still gave us one must find us among the tasks.
        let counted = self.shared.tasks.token();
        let slot = self.slot()?;
        let admission = traces::step(|| info_span!("admission"))
            .in_scope(|| admit::admit(&self.rooms, &self.settings, order))?;
        let intro = Intro::new(
            admission.generation,
            &admission.model.id,
            &admission.request,
            &admission.dropped,
        );
        Ok(Accepted {
            gateway: Arc::clone(self),
            answering: Answering::new(admission.generation),
            admission,
            intro: Arc::new(intro),
            slot,
            counted,
        })
    }

    /// A place among those in flight.
    fn slot(&self) -> Result<OwnedSemaphorePermit, GatewayError> {
        let slot = Arc::clone(&self.shared.slots).try_acquire_owned();
        slot.map_err(|refused| match refused {
            TryAcquireError::Closed => GatewayError::Draining,
            TryAcquireError::NoPermits => GatewayError::Saturated,
        })
    }

    async fn run(&self, mut admission: Admission, outlet: &Outlet) {
        faults::reach(Point::BeforeHold);
        let began_at = Instant::now();
        let step = traces::step(|| info_span!("hold"));
        let hold = self.hold(&mut admission).instrument(step);
        let held = tokio::select! {
            biased;
            held = hold => held,
            // A database that is slow lets a client's repeat overtake the request: whoever has given up is not
            // worked for, or both would be (I8). A hold that is under way is released again.
            () = outlet.everybody_left() => {
                tracing::info!("the client left before there was a hold");
                return;
            }
        };
        let hold = match held {
            Ok(hold) => hold,
            Err(NotHeld {
                repeats: Some(before),
                ..
            }) => return outlet.hand_back(admission, before),
            Err(NotHeld {
                error, unconfirmed, ..
            }) => {
                outlet.conclude(Err(error));
                if let Some(new) = unconfirmed {
                    settle::take_back(&self.rooms.ledger, &new).await;
                }
                return;
            }
        };
        let hold_time = began_at.elapsed();
        faults::reach(Point::AfterHold);
        outlet.held();
        let called_at = Instant::now();
        // A panic in an adapter must not leave the caller's money held.
        let work = AssertUnwindSafe(attempt::attempt(&self.rooms, &admission, outlet))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Work::panicked());
        faults::reach(Point::AfterPictures);
        settle::secure(&self.rooms, &work, outlet).await;
        let times = Times {
            hold: hold_time,
            upstream: called_at.elapsed(),
            settlement: Duration::ZERO,
        };
        let (settlement, outcome) =
            settle::close(&self.rooms, &self.settings, &admission, hold, work);
        let key = &admission.order.key;
        let count = |settlement: &Settlement, latency| {
            figures::settled(&admission.model.id, key.mode, settlement, latency);
            metrics().generated(&admission.model.id, began_at.elapsed());
        };
        settle::settle(
            &self.rooms.ledger,
            settlement,
            outcome,
            times,
            outlet,
            count,
        )
        .instrument(traces::step(|| info_span!("settlement")))
        .await;
    }

    /// Whether answers that are shown while they arrive are kept as well.
    fn keep(&self, admission: &Admission) -> Keep {
        if admission.order.reader == Reader::ComesBack {
            return Keep::Always;
        }
        match admission.request.response_format {
            ResponseFormat::Url => Keep::Always,
            // The client means to ask for it again.
            ResponseFormat::B64Json if admission.order.idempotency_key.is_some() => Keep::Always,
            ResponseFormat::B64Json
                if self.settings.relay_copies && self.rooms.store.takes_copies() =>
            {
                Keep::IfPossible
            }
            ResponseFormat::B64Json => Keep::Never,
        }
    }

    /// Takes note that an answer was delivered, as far as anybody can know: its copies make room for newer
    /// ones from now on.
    pub fn delivered(&self, generation: &Generation) {
        if let Some(copies) = &generation.undelivered {
            copies.delivered();
        }
        for picture in generation.pictures.iter().filter(|picture| picture.is_copy) {
            self.shared
                .copies
                .delivered(picture.id, picture.info.format, picture.size_bytes);
        }
    }

    /// Reserves the largest possible price; committed before any provider is called (I1). A balance that
    /// does not cover the dearest route leaves the cheaper ones.
    async fn hold(&self, admission: &mut Admission) -> Result<Hold, NotHeld> {
        let mut prices = admission.largest_prices().into_iter();
        let new = NewHold {
            id: HoldId::new(),
            generation: admission.generation,
            request: admission.order.request,
            caller: Caller::from(&admission.order.key),
            model: admission.model.id.clone(),
            images: admission.request.n.get(),
            amount: prices.next().unwrap_or(NanoUsd::ZERO),
            cheaper: prices.collect(),
            gauge: admission.order.gauge.clone(),
            user: admission.end_user(),
            idempotency_key: admission.order.idempotency_key.clone(),
            request_hash: admission.order.request_hash,
            retry_count: admission.order.retry_count,
            webhook_url: admission.order.webhook_url.clone(),
            joins: admission.joins,
            only_repeats: false,
        };
        let began_at = Instant::now();
        let placed = self.rooms.ledger.hold_one(&new).await;
        metrics().held(began_at.elapsed());
        match placed {
            Ok(hold) => {
                admission.keep_within(hold.amount);
                Ok(hold)
            }
            Err(error @ LedgerError::Unconfirmed { .. }) => Err(NotHeld {
                error: error.into(),
                unconfirmed: Some(Box::new(new)),
                repeats: None,
            }),
            Err(error @ LedgerError::Repeated(before)) => Err(NotHeld {
                error: error.into(),
                unconfirmed: None,
                repeats: Some(before),
            }),
            Err(refused) => {
                if let LedgerError::RateLimited { .. } | LedgerError::SpendLimited(_) = &refused {
                    metrics().rate_limited();
                }
                if let LedgerError::InsufficientBalance { needed, available } = &refused {
                    metrics().balance_refused();
                    tracing::info!(
                        account.id = %new.caller.account,
                        needed_usd = %needed,
                        available_usd = %available,
                        "the balance is too short"
                    );
                }
                Err(GatewayError::from(refused).into())
            }
        }
    }

    /// The catalog's id of the model that an order is for, whether or not it may have it; `None` when there is no such
    /// model.
    pub fn model_of(&self, order: &Order) -> Option<String> {
        let model = admit::find_model(&self.rooms.catalog, &self.settings, order).ok()?;
        Some(model.id.clone())
    }

    /// How many generations are being worked on.
    pub fn in_flight(&self) -> usize {
        self.shared.tasks.len()
    }

    /// Says that this process will stop, to who asks whether it is ready. Everything goes on as before.
    pub fn announce_leaving(&self) {
        self.shared.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether [`Gateway::announce_leaving`] has been called.
    pub fn is_leaving(&self) -> bool {
        self.shared.is_leaving.load(Ordering::Relaxed)
    }

    /// Says that no new requests come. What has come is served.
    pub fn begin_draining(&self) {
        self.announce_leaving();
        self.shared.is_draining.store(true, Ordering::Relaxed);
    }

    /// Hangs up on every provider and takes no new generations: pictures that have arrived whole by now are
    /// charged and delivered, the rest is released.
    pub fn cut_short(&self) {
        self.begin_draining();
        self.shared.slots.close();
        self.shared.cut.cancel();
    }

    /// Takes no new generations and waits until those in flight have settled, and until the providers
    /// have tidied up behind them.
    ///
    /// # Cancel safety
    /// May be dropped: the generations go on.
    pub async fn drain(&self) {
        self.begin_draining();
        self.shared.slots.close();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let mut providers = self.shared.replaced().clone();
        let current = self.rooms.providers.values();
        providers.extend(current.filter_map(|slot| match &slot.switch {
            Switch::On(provider) => Some(Arc::clone(provider)),
            Switch::Off(_) => None,
        }));
        join_all(providers.iter().map(|provider| provider.drain())).await;
    }

    /// Whether no new requests come any more.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining.load(Ordering::Relaxed)
    }

    /// The rooms, for the readers of the surface (models, files, credits).
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// What the operator has decided.
    pub fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    /// A name for a generation that begins now.
    fn new_generation() -> GenerationId {
        GenerationId::new()
    }
}

impl Shared {
    /// Held for a few instructions, never across an await.
    fn replaced(&self) -> MutexGuard<'_, Vec<Arc<dyn Provider>>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accepted {
    /// What was known before anything began.
    pub fn intro(&self) -> &Intro {
        &self.intro
    }

    /// Which generation answers; to be asked while [`Accepted::deliver`] is at work.
    pub fn answering(&self) -> Answering {
        self.answering.clone()
    }

    /// The second half of [`Gateway::generate`].
    ///
    /// # Errors
    /// [`GatewayError`]; when it is returned nothing is held and nothing was charged but drafts that were shown
    /// ([`UpstreamFailure::drafts`]).
    ///
    /// # Cancel safety
    /// Dropped before the hold, nothing has happened; after it, the generation goes on without a
    /// listener.
    pub async fn deliver(mut self) -> Result<Delivery, GatewayError> {
        let gateway = Arc::clone(&self.gateway);
        let intro = Arc::clone(&self.intro);
        let answering = self.answering.clone();
        for _ in 0..MOST_TURNS {
            let place = gateway.shared.repeats.enter(&self.admission);
            let (mut admission, before) = match gateway.counted(place, &self.admission).await? {
                Place::Behind(other, heard) => {
                    answering.set(other);
                    // Who waits for another is not in flight.
                    drop(self.slot);
                    (Box::new(self.admission), Before::Here(heard))
                }
                Place::First(lead) => {
                    let Taken {
                        word,
                        pipe,
                        listening,
                    } = self.work(lead).await?;
                    match word {
                        Word::Last(outcome) => return outcome.map(Delivery::Whole),
                        Word::Begun(attempts) => {
                            let progress = Progress::new(intro, pipe, attempts, listening);
                            return Ok(Delivery::Begun(progress));
                        }
                        Word::Repeat(admission, before) => (admission, Before::Booked(before)),
                        // Said to nobody who waits.
                        Word::Held => return Err(GatewayError::Panicked),
                    }
                }
            };
            // Rare, so that the others need not have room for it.
            let repeater = Repeater::of(&admission);
            let told = Box::pin(gateway.repeat(&repeater, before, &answering)).await?;
            // What began as another one's answer cannot go on as one that is painted, and charged, by itself.
            let is_fixed = answering.is_fixed_beside(admission.generation);
            match told {
                Told::Answer(generation) => return Ok(Delivery::Whole(generation)),
                Told::Nothing if is_fixed => return Err(GatewayError::Abandoned),
                Told::Gone if is_fixed => {
                    let generation = answering.id();
                    return Err(GatewayError::ReplayExpired { generation });
                }
                Told::Nothing => {}
                Told::Gone => admission.joins = false,
            }
            answering.set(admission.generation);
            self = Self {
                counted: gateway.shared.tasks.token(),
                slot: gateway.slot()?,
                gateway: Arc::clone(&gateway),
                admission: *admission,
                intro: Arc::clone(&intro),
                answering: answering.clone(),
            };
        }
        Err(GatewayError::Saturated)
    }

    /// The same for an order whose reader comes back: returns as soon as its hold is committed, and the work
    /// goes on.
    ///
    /// # Errors
    /// [`GatewayError`]; when it is returned nothing is held and nothing was charged.
    ///
    /// # Cancel safety
    /// As [`Accepted::deliver`].
    pub async fn begin(self) -> Result<Begun, GatewayError> {
        let lead = self.gateway.shared.repeats.enter_beside(&self.admission);
        let lead = self.gateway.counted(lead, &self.admission).await?;
        match self.work(lead).await?.word {
            Word::Repeat(_, before) => Ok(Begun::Repeat(before)),
            Word::Last(Err(refused)) => Err(refused),
            // What came of it is told to those who ask for it.
            Word::Held | Word::Last(Ok(_)) | Word::Begun(_) => Ok(Begun::New),
        }
    }

    /// The end user as the request named them.
    pub fn end_user(&self) -> Option<String> {
        self.admission.end_user()
    }

    /// Does the work, unless the books say that it is a repeat; returns with the first word of it.
    async fn work(self, lead: Lead) -> Result<Taken, GatewayError> {
        let Self {
            gateway,
            mut admission,
            intro: _,
            answering: _,
            slot,
            counted,
        } = self;
        let store = &gateway.rooms.store;
        if admission.needs_store()
            && !store.is_well()
            && store.probe().await.is_err()
            && !admission.do_without_store()
        {
            // Found out before a provider is paid for what cannot be kept.
            return Err(GatewayError::StoreUnavailable);
        }

        let (first_word, heard) = oneshot::channel();
        // Dropped with this future, or with the progress that comes of it: that is how the task learns that
        // the client has left.
        let client_left = CancellationToken::new();
        let listening = client_left.clone().drop_guard();
        let pipe = Arc::new(Pipe::default());
        let outlet = Outlet::new(
            admission.order.reader,
            admission.shows,
            gateway.keep(&admission),
            Arc::clone(&pipe),
            first_word,
            client_left,
            lead,
            gateway.settings.stall_timeout,
            gateway.shared.cut.clone(),
        );
        let span = info_span!(
            "generation",
            generation.id = %admission.generation,
            model.id = admission.model.id,
        );
        let tasks = gateway.shared.tasks.clone();
        let work = async move {
            gateway.run(admission, &outlet).await;
            drop(slot);
        };
        tasks.spawn(work.instrument(span));
        drop(counted);
        // The sender is dropped unsent only by a panic in the task.
        let word = heard.await.map_err(|_| GatewayError::Panicked)?;
        Ok(Taken {
            word,
            pipe,
            listening,
        })
    }
}
