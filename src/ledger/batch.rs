//! Group commit: what concurrent callers want is done together, in few statements and one commit.
//!
//! A caller that comes alone goes at once. Those that come while a batch is under way gather, and go together
//! as the next. Nothing waits for company, so batches grow exactly as far as the database is slow.
//!
//! **Lanes.** Work that needs the same locks has the same lane (a balance), and of one lane only one batch is
//! under way, because a second could but wait inside the database, with a connection in its hand. Lanes take
//! turns, so a caller with a thousand requests at once is not in the way of one with a single request.
//!
//! **Nobody spoils it for others.** Refusals are answers for one caller each. When a statement fails for what
//! may be the fault of one, nothing was committed, and the batch is done again in halves until the one is alone
//! with its error; when a lock was not to be had in time, it is done again lane by lane.
//!
//! **Callers that leave** while they wait take their work with them: it is never begun. For those that leave
//! while their batch is under way, or with the answer on its way, [`Work::unclaimed`] tidies up.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use tokio_util::task::TaskTracker;

use super::{
    Ledger,
    error::LedgerError,
    hold::{NewHold, Refused},
    settle::SharedSettlement,
};
use crate::postgres::TxError as _;

/// The most that one transaction does; it keeps every balance of its batch locked.
const LARGEST_BATCH: usize = 256;
/// Batches of a kind that are under way at the same time, each with a connection of the pool.
const BATCHES_AT_ONCE: usize = 3;
/// How many lanes of a batch that met a lock are then tried at the same time.
const LANES_AT_ONCE: usize = 4;
/// What is still under way when the replica stops gets so long to end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What came of one caller's work.
pub(super) type Outcome<W> = Result<<W as Work>::Done, LedgerError>;

/// Work of one caller that can be done together with that of others.
pub(super) trait Work: Clone + Send + Sync + 'static {
    /// What the caller gets.
    type Done: Send + 'static;
    /// What it has to be locked for.
    type Lane: Copy + Eq + Hash + Send + 'static;
    /// Completes "could not …".
    const ACTION: &'static str;
    /// How much of it may wait; the next caller is refused at once.
    const MOST_WAITING: usize;

    fn lane(&self) -> Self::Lane;

    /// Where work of this kind waits.
    fn queue(batches: &Batches) -> &Queue<Self>;

    /// Does a batch in one transaction, with an outcome for each, in order. An error means that nothing of it
    /// was committed, or, if it is [`LedgerError::Unconfirmed`], that nobody knows.
    fn run(
        ledger: &Ledger,
        batch: &[Self],
    ) -> impl Future<Output = Result<Vec<Outcome<Self>>, LedgerError>> + Send;

    /// The caller left before it learned the outcome.
    fn unclaimed(self, ledger: &Ledger, outcome: Outcome<Self>);
}

/// All that waits or is under way; shared by the clones of a [`Ledger`].
#[derive(Debug, Default)]
pub(super) struct Batches {
    pub(super) holds: Queue<NewHold>,
    pub(super) settlements: Queue<SharedSettlement>,
    pub(super) refused: Queue<Refused>,
    tasks: TaskTracker,
}

impl Batches {
    /// Does it in a task that [`Batches::stop`] waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Callers are dropped outside of a runtime only when it has ended, and everything with it.
        if let Ok(runtime) = Handle::try_current() {
            self.tasks.spawn_on(task, &runtime);
        }
    }

    /// How much of each kind waits for its batch.
    pub(super) fn waiting(&self) -> [(&'static str, usize); 3] {
        [
            ("holds", self.holds.lock().waiting),
            ("settlements", self.settlements.lock().waiting),
            ("refused", self.refused.lock().waiting),
        ]
    }

    /// Waits, though not for ever, until nothing waits or is under way any more.
    pub(super) async fn stop(&self) {
        self.tasks.close();
        if timeout(STOP_PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!("the books were closed while something was still to be written");
        }
    }
}

/// Has work done together with that of others.
///
/// # Cancel safety
/// Dropped, the work is not done, or is in the hands of [`Work::unclaimed`].
pub(super) async fn submit<W: Work>(ledger: &Ledger, work: &W) -> Outcome<W> {
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting {
        work: work.clone(),
        reply,
    };
    if W::queue(&ledger.batches).push(waiting)? {
        ledger.batches.spawn(work_off::<W>(ledger.clone()));
    }
    let ticket = Ticket {
        ledger,
        work,
        answer: Some(answer),
    };
    ticket.redeem().await
}

/// A caller's place in the queue.
struct Ticket<'a, W: Work> {
    ledger: &'a Ledger,
    work: &'a W,
    /// Taken when it has been heard.
    answer: Option<oneshot::Receiver<Outcome<W>>>,
}

impl<W: Work> Ticket<'_, W> {
    async fn redeem(mut self) -> Outcome<W> {
        let heard = match &mut self.answer {
            Some(answer) => answer.await.ok(),
            None => None,
        };
        self.answer = None;
        // Unanswered by a panic only, and nobody knows how far the batch had come.
        heard.unwrap_or_else(|| {
            let source = sqlx::Error::WorkerCrashed;
            Err(LedgerError::unconfirmed(W::ACTION, source))
        })
    }
}

impl<W: Work> Drop for Ticket<'_, W> {
    fn drop(&mut self) {
        if let Some(mut answer) = self.answer.take() {
            // From now on an answer fails to be sent; one that was sent before is here.
            answer.close();
            if let Ok(outcome) = answer.try_recv() {
                self.work.clone().unclaimed(self.ledger, outcome);
            }
        }
    }
}

struct Waiting<W: Work> {
    work: W,
    reply: oneshot::Sender<Outcome<W>>,
}

impl<W: Work> Waiting<W> {
    fn answer(self, ledger: &Ledger, outcome: Outcome<W>) {
        if let Err(outcome) = self.reply.send(outcome) {
            self.work.unclaimed(ledger, outcome);
        }
    }
}

/// Works the queue off, batch by batch, and ends when nothing is ready.
async fn work_off<W: Work>(ledger: Ledger) {
    let queue = W::queue(&ledger.batches);
    while let Some(batch) = queue.take() {
        let lanes = batch.lanes;
        let done = AssertUnwindSafe(run(&ledger, batch.waiting))
            .catch_unwind()
            .await;
        queue.finish(lanes);
        if done.is_err() {
            tracing::error!("a batch that should {} panicked", W::ACTION);
        }
    }
}

/// Does what is waited for and answers everybody.
fn run<W: Work>(ledger: &Ledger, batch: Vec<Waiting<W>>) -> BoxFuture<'_, ()> {
    Box::pin(async move {
        let work: Vec<W> = batch.iter().map(|waiting| waiting.work.clone()).collect();
        let error = match W::run(ledger, &work).await {
            Ok(outcomes) => {
                for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                    waiting.answer(ledger, outcome);
                }
                return;
            }
            Err(error) => error,
        };
        match split(&error, batch) {
            Split::No(batch) => {
                for waiting in batch {
                    waiting.answer(ledger, Err(error.clone()));
                }
            }
            Split::Halves(first, second) => {
                run(ledger, first).await;
                run(ledger, second).await;
            }
            Split::Lanes(parts) => {
                stream::iter(parts)
                    .for_each_concurrent(LANES_AT_ONCE, |part| run(ledger, part))
                    .await;
            }
        }
    })
}

/// How a batch that failed is done again.
enum Split<W: Work> {
    No(Vec<Waiting<W>>),
    Halves(Vec<Waiting<W>>, Vec<Waiting<W>>),
    Lanes(Vec<Vec<Waiting<W>>>),
}

fn split<W: Work>(error: &LedgerError, mut batch: Vec<Waiting<W>>) -> Split<W> {
    if batch.len() <= 1 || matches!(error, LedgerError::Unconfirmed { .. }) {
        return Split::No(batch);
    }
    if error.is_lock_timeout() {
        let mut lanes: HashMap<W::Lane, Vec<Waiting<W>>> = HashMap::new();
        for waiting in batch {
            lanes.entry(waiting.work.lane()).or_default().push(waiting);
        }
        if lanes.len() > 1 {
            return Split::Lanes(lanes.into_values().collect());
        }
        return Split::No(lanes.into_values().flatten().collect());
    }
    if error.is_passing() {
        return Split::No(batch);
    }
    let second = batch.split_off(batch.len().div_ceil(2));
    Split::Halves(batch, second)
}

/// Work of one kind that waits, by lane.
pub(super) struct Queue<W: Work>(Mutex<State<W>>);

struct State<W: Work> {
    /// Those that have work waiting or under way.
    lanes: HashMap<W::Lane, VecDeque<Waiting<W>>>,
    /// Those of them that have work waiting and none under way, in turn.
    ready: VecDeque<W::Lane>,
    waiting: usize,
    /// Tasks that work the queue off.
    workers: usize,
}

struct Batch<W: Work> {
    waiting: Vec<Waiting<W>>,
    lanes: Vec<W::Lane>,
}

impl<W: Work> Queue<W> {
    /// Whether one more task is to work it off.
    fn push(&self, waiting: Waiting<W>) -> Result<bool, LedgerError> {
        let mut state = self.lock();
        if state.waiting >= W::MOST_WAITING {
            return Err(LedgerError::Saturated {
                action: W::ACTION,
                waiting: state.waiting,
            });
        }
        state.waiting = state.waiting.saturating_add(1);
        let lane = waiting.work.lane();
        if let Some(queue) = state.lanes.get_mut(&lane) {
            queue.push_back(waiting);
            return Ok(false);
        }
        state.lanes.insert(lane, VecDeque::from([waiting]));
        state.ready.push_back(lane);
        if state.workers >= BATCHES_AT_ONCE {
            return Ok(false);
        }
        state.workers = state.workers.saturating_add(1);
        Ok(true)
    }

    /// The next batch; `None` tells the task that asks to end. Its lanes rest until [`Queue::finish`].
    fn take(&self) -> Option<Batch<W>> {
        let mut state = self.lock();
        let state = &mut *state;
        let (mut batch, mut taken) = (Vec::new(), Vec::new());
        while batch.len() < LARGEST_BATCH
            && let Some(lane) = state.ready.pop_front()
        {
            let before = batch.len();
            let queue = state.lanes.entry(lane).or_default();
            while batch.len() < LARGEST_BATCH
                && let Some(waiting) = queue.pop_front()
            {
                state.waiting = state.waiting.saturating_sub(1);
                if !waiting.reply.is_closed() {
                    batch.push(waiting);
                }
            }
            if batch.len() > before {
                taken.push(lane);
            } else {
                // All of its callers have left.
                state.lanes.remove(&lane);
            }
        }
        if batch.is_empty() {
            state.workers = state.workers.saturating_sub(1);
            return None;
        }
        Some(Batch {
            waiting: batch,
            lanes: taken,
        })
    }

    fn finish(&self, lanes: Vec<W::Lane>) {
        let mut state = self.lock();
        let state = &mut *state;
        for lane in lanes {
            if state.lanes.get(&lane).is_some_and(VecDeque::is_empty) {
                state.lanes.remove(&lane);
            } else {
                state.ready.push_back(lane);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> Default for Queue<W> {
    fn default() -> Self {
        Self(Mutex::new(State {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            workers: 0,
        }))
    }
}

impl<W: Work> fmt::Debug for Queue<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let mut shown = formatter.debug_struct("Queue");
        shown.field("waiting", &state.waiting);
        shown.field("workers", &state.workers).finish()
    }
}
