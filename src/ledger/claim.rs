//! One client request is one charge (I8): which requests are repeats, and of which generation.
//!
//! Decided where the hold is placed, with the balance locked: requests of one API key have one balance, so of
//! two that are the same the second sees what the first has written, on whichever replica. The primary keys of
//! the two tables stand behind that.
//!
//! A request names itself with an idempotency key, and then that name decides; or it is recognised by its
//! [`RequestHash`], when the client says that it repeats.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use chrono::TimeDelta;
use tracing::instrument;

use super::{
    Generation, Instant, Ledger,
    cancel::CANCELED,
    error::LedgerError,
    hold::NewHold,
    repo::{claims, history},
};
use crate::ids::{AccountId, GenerationId, KeyId};

/// How long an idempotency key is kept.
pub const KEY_KEPT_FOR: Duration = Duration::from_hours(24);
/// How old a generation may be that a repeat without a key joins.
pub const JOINED_WITHIN: Duration = Duration::from_mins(15);

/// What a request asks, as far as a repeat asks the same: its method, path and body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHash([u8; 32]);

/// What is needed to give an answer again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// What the answer said besides its pictures and attempts, as JSON. Of a release: the refusal; without
    /// one, the request may be done again.
    pub answer: Option<String>,
    /// What the provider said of pictures that never came, as JSON: kept for a day.
    pub words: Option<String>,
    /// The name that the client gave the request.
    pub claim: Option<(KeyId, String)>,
}

/// How an earlier generation stands, for who repeats its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is being worked on.
    InProgress,
    /// It was charged; with what its answer said.
    Completed(Box<Generation>, Option<String>),
    /// It was refused, with these words.
    Refused(String),
    /// Its account cancelled it. Its request may be done again, but not for who waits for this one.
    Canceled,
    /// Nothing came of it, so its request may be done again.
    Failed,
}

impl RequestHash {
    /// A SHA-256.
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    pub(super) fn from_sql(bytes: &[u8]) -> Result<Self, LedgerError> {
        let bytes = bytes.try_into().map_err(|_| {
            LedgerError::Inconsistent(format!("a request's hash of {} bytes", bytes.len()))
        })?;
        Ok(Self(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The first few digits: enough to tell two apart.
impl fmt::Debug for RequestHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(formatter, "{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

impl Ledger {
    /// How a generation of this account stands. `claim` is the name under which it was asked for.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn standing(
        &self,
        account: AccountId,
        id: GenerationId,
        claim: Option<(KeyId, &str)>,
    ) -> Result<Standing, LedgerError> {
        let Some(found) = claims::standing(&self.pool, id, claim).await? else {
            return Ok(Standing::Failed);
        };
        match (found.status.as_str(), found.refusal) {
            ("in_progress", _) => Ok(Standing::InProgress),
            ("completed", _) => {
                let generation =
                    history::read(&self.pool, Some(account), &[id.to_string()]).await?;
                let generation = generation.into_iter().next().ok_or_else(|| {
                    LedgerError::Inconsistent(format!("{id} is of another account than its key"))
                })?;
                Ok(Standing::Completed(Box::new(generation), found.answer))
            }
            (_, Some(refusal)) => Ok(Standing::Refused(refusal)),
            _ if found.error_code.as_deref() == Some(CANCELED) => Ok(Standing::Canceled),
            (_, None) => Ok(Standing::Failed),
        }
    }

    /// Forgets names, repeats and providers' words whose time is over. Returns how many.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; safe to call again.
    #[instrument(name = "ledger.forget_claims", level = "debug", skip_all)]
    pub async fn forget_claims(&self) -> Result<u64, LedgerError> {
        let now = self.clock.now();
        let mut total: u64 = 0;
        loop {
            let forgotten = claims::forget(
                &self.pool,
                before(now, KEY_KEPT_FOR),
                before(now, JOINED_WITHIN),
            )
            .await?;
            total = total.saturating_add(forgotten);
            if forgotten == 0 {
                return Ok(total);
            }
        }
    }
}

/// The moment so long ago.
pub(super) fn before(now: Instant, age: Duration) -> Instant {
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(age).unwrap_or(Instant::MIN_UTC)
}

/// What earlier requests have to do with those of a batch; and what the batch adds to it.
#[derive(Debug, Default)]
pub(super) struct Claims {
    named: BTreeMap<(KeyId, String), Named>,
    recent: BTreeMap<(KeyId, RequestHash), Vec<Recent>>,
    /// Repeats that have joined: the generation and the count.
    pub(super) joined: Vec<(GenerationId, u16)>,
    /// The ones that failed and whose names others get now.
    pub(super) replaced: Vec<GenerationId>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) hash: RequestHash,
    pub(super) generation: GenerationId,
    /// Nothing came of it.
    pub(super) may_be_done_again: bool,
}

/// A generation that may be joined.
#[derive(Debug)]
struct Recent {
    generation: GenerationId,
    /// By which counts it cannot be joined any more.
    taken: BTreeSet<u16>,
}

impl Claims {
    /// Whether earlier requests matter to this one at all.
    pub(super) fn matter_to(new: &NewHold) -> bool {
        let asks_again = new.retry_count > 0 && new.joins;
        new.request_hash.is_some() && (new.idempotency_key.is_some() || asks_again)
    }

    pub(super) fn remember_name(&mut self, key: KeyId, name: String, named: Named) {
        self.named.insert((key, name), named);
    }

    /// A generation that a repeat with this count may join; the one that is to be joined first comes first.
    pub(super) fn remember_recent(
        &mut self,
        key: KeyId,
        hash: RequestHash,
        generation: GenerationId,
        taken: BTreeSet<u16>,
    ) {
        let recent = self.recent.entry((key, hash)).or_default();
        recent.push(Recent { generation, taken });
    }

    /// Lets a request pass that is none of those before it.
    ///
    /// # Errors
    /// [`LedgerError::Repeated`], [`LedgerError::NameTaken`].
    pub(super) fn admit(&mut self, new: &NewHold) -> Result<(), LedgerError> {
        let Some(hash) = new.request_hash else {
            return Ok(());
        };
        if let Some(name) = &new.idempotency_key {
            return match self.named.get(&(new.caller.key, name.clone())) {
                None => Ok(()),
                Some(named) if named.hash != hash => Err(LedgerError::NameTaken),
                Some(named) if named.may_be_done_again => Ok(()),
                Some(named) => Err(LedgerError::Repeated(named.generation)),
            };
        }
        if new.retry_count == 0 || !new.joins {
            return Ok(());
        }
        let recent = self.recent.get_mut(&(new.caller.key, hash));
        let mut recent = recent.into_iter().flat_map(|recent| recent.iter_mut());
        match recent.find(|recent| !recent.taken.contains(&new.retry_count)) {
            None => Ok(()),
            Some(recent) => {
                recent.taken.insert(new.retry_count);
                self.joined.push((recent.generation, new.retry_count));
                Err(LedgerError::Repeated(recent.generation))
            }
        }
    }

    /// Takes note of a request that is worked on from now on.
    pub(super) fn granted(&mut self, new: &NewHold) {
        let Some(hash) = new.request_hash else {
            return;
        };
        if let Some(name) = &new.idempotency_key {
            let named = Named {
                hash,
                generation: new.generation,
                may_be_done_again: false,
            };
            if let Some(before) = self.named.insert((new.caller.key, name.clone()), named) {
                self.replaced.push(before.generation);
            }
            return;
        }
        let mut taken = BTreeSet::new();
        if new.retry_count > 0 {
            // It is that repeat, so another of the same count is one of another request.
            taken.insert(new.retry_count);
            self.joined.push((new.generation, new.retry_count));
        }
        self.remember_recent(new.caller.key, hash, new.generation, taken);
    }
}
