//! Keys that were looked up a moment ago, so that not every request asks the database.
//!
//! A key that was changed or revoked must be so everywhere within a second. One that was looked up within the
//! last [`ALONE`] is as good as that by itself. An older one is believed up to [`LISTENING`], but only while
//! changes are heard of ([`super::changes`]), which must have been proved within [`HEARD_WITHIN`]. What was
//! not found is not remembered. Whether a key has expired is nothing to remember: its instant is part of it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::OnceCell, time::Instant};

use super::{ApiKey, secret::SecretHash};
use crate::ids::{AccountId, KeyId};

/// How long a key is believed by itself.
const ALONE: Duration = Duration::from_millis(800);
/// How long it is believed while changes are heard of.
const LISTENING: Duration = Duration::from_secs(10);
/// How old the last proof that changes are heard of may be.
const HEARD_WITHIN: Duration = Duration::from_millis(800);
/// More keys than a replica serves within some seconds; a few hundred bytes each.
const MOST_KEYS: usize = 20_000;

/// What one look in the database found, for all that wait for it.
pub(super) type Found = OnceCell<Option<Arc<ApiKey>>>;

/// The memory of one replica.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    keys: HashMap<SecretHash, Remembered>,
    /// Whose they are: changes are announced by these.
    by_key: HashMap<KeyId, HashSet<SecretHash>>,
    by_account: HashMap<AccountId, HashSet<SecretHash>>,
    /// Looks in the database that are under way.
    looks: HashMap<SecretHash, Arc<Found>>,
    /// Counts what was forgotten: a look that began before a change may have seen the key as it was.
    changes: u64,
    heard_at: Option<Instant>,
}

#[derive(Debug)]
struct Remembered {
    key: Arc<ApiKey>,
    looked_at: Instant,
}

/// A key, or the look in the database to take part in.
#[derive(Debug)]
pub(super) enum Recall<'a> {
    Known(Arc<ApiKey>),
    Look(Look<'a>),
}

/// A part in a look in the database; the last one that leaves takes it off the list.
#[derive(Debug)]
pub(super) struct Look<'a> {
    memory: &'a Memory,
    hash: SecretHash,
    found: Arc<Found>,
}

/// When a look in the database began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    changes: u64,
    at: Instant,
}

impl Memory {
    /// The key, if it was looked up recently enough.
    pub(super) fn recall(&self, hash: &SecretHash, now: Instant) -> Recall<'_> {
        let mut state = self.lock();
        let believed = state.believed(now);
        if let Some(known) = state.keys.get(hash)
            && now.saturating_duration_since(known.looked_at) < believed
        {
            return Recall::Known(Arc::clone(&known.key));
        }
        let found = Arc::clone(state.looks.entry(*hash).or_default());
        Recall::Look(Look {
            memory: self,
            hash: *hash,
            found,
        })
    }

    /// To be asked before a look in the database.
    pub(super) fn begin(&self, now: Instant) -> Began {
        let changes = self.lock().changes;
        Began { changes, at: now }
    }

    /// Remembers what was found, unless something has changed since the look began.
    pub(super) fn remember(&self, hash: SecretHash, key: &Arc<ApiKey>, began: Began) {
        let mut state = self.lock();
        if state.changes != began.changes {
            return;
        }
        if state.keys.len() >= MOST_KEYS {
            let believed = state.believed(began.at);
            let age = |known: &Remembered| began.at.saturating_duration_since(known.looked_at);
            let old: Vec<SecretHash> = (state.keys.iter())
                .filter(|(_, known)| age(known) >= believed)
                .map(|(hash, _)| *hash)
                .collect();
            for hash in old {
                state.remove(&hash);
            }
            if state.keys.len() >= MOST_KEYS {
                state.clear();
            }
        }
        let remembered = Remembered {
            key: Arc::clone(key),
            looked_at: began.at,
        };
        state.insert(hash, remembered);
    }

    /// Forgets the key of this id, or the keys of the account of this id.
    pub(super) fn forget(&self, id: &str) {
        let mut state = self.lock();
        state.changes = state.changes.wrapping_add(1);
        let of_key = id.parse().ok().and_then(|id| state.by_key.get(&id));
        let of_account = || id.parse().ok().and_then(|id| state.by_account.get(&id));
        let hashes = of_key.or_else(of_account).cloned();
        for hash in hashes.into_iter().flatten() {
            state.remove(&hash);
        }
    }

    /// Changes are heard of from now on; what was missed before is not known.
    pub(super) fn listen(&self, now: Instant) {
        let mut state = self.lock();
        state.changes = state.changes.wrapping_add(1);
        state.clear();
        state.heard_at = Some(now);
    }

    /// Everything that had changed by then has been heard of.
    pub(super) fn heard(&self, at: Instant) {
        self.lock().heard_at = Some(at);
    }

    /// Changes are not heard of any more.
    pub(super) fn stop_listening(&self) {
        self.lock().heard_at = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, hash: SecretHash, remembered: Remembered) {
        self.remove(&hash);
        let key = &remembered.key;
        self.by_key.entry(key.id).or_default().insert(hash);
        self.by_account.entry(key.account).or_default().insert(hash);
        self.keys.insert(hash, remembered);
    }

    fn remove(&mut self, hash: &SecretHash) {
        let Some(known) = self.keys.remove(hash) else {
            return;
        };
        leave(&mut self.by_key, known.key.id, hash);
        leave(&mut self.by_account, known.key.account, hash);
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.by_key.clear();
        self.by_account.clear();
    }

    /// How old a look may be.
    fn believed(&self, now: Instant) -> Duration {
        let heard = self
            .heard_at
            .is_some_and(|at| now.saturating_duration_since(at) < HEARD_WITHIN);
        if heard { LISTENING } else { ALONE }
    }
}

/// Who has no more is no more in the index.
fn leave<Id: Eq + Hash>(index: &mut HashMap<Id, HashSet<SecretHash>>, id: Id, hash: &SecretHash) {
    if let Entry::Occupied(mut hashes) = index.entry(id) {
        hashes.get_mut().remove(hash);
        if hashes.get().is_empty() {
            hashes.remove();
        }
    }
}

impl Look<'_> {
    pub(super) fn found(&self) -> &Found {
        &self.found
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        if let Some(listed) = state.looks.get(&self.hash)
            && Arc::ptr_eq(listed, &self.found)
            // The list's and ours; or it has ended, and nobody shall join what is old by now.
            && (Arc::strong_count(listed) <= 2 || self.found.initialized())
        {
            state.looks.remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};

    use super::*;
    use crate::{
        ids::{AccountId, KeyId},
        keys::{Limits, Mode, UnsupportedParameters},
    };

    const HASH: SecretHash = [7; 32];

    fn key() -> Arc<ApiKey> {
        Arc::new(ApiKey {
            id: KeyId::new(),
            account: AccountId::new(),
            name: "ci".to_owned(),
            mode: Mode::Live,
            hint: "ek_live_abcd…wxyz".to_owned(),
            models: None,
            limits: Limits::NONE,
            account_limits: Limits::NONE,
            allowed_ips: None,
            unsupported_parameters: UnsupportedParameters::Reject,
            account_markup_basis_points: None,
            created_at: Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap(),
            expires_at: None,
            revoked_at: None,
        })
    }

    fn knows(memory: &Memory, now: Instant) -> bool {
        matches!(memory.recall(&HASH, now), Recall::Known(_))
    }

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn alone_a_key_is_believed_for_less_than_a_second() {
        let (memory, start) = (Memory::default(), Instant::now());
        memory.remember(HASH, &key(), memory.begin(start));
        assert!(knows(&memory, after(start, 799)));
        assert!(!knows(&memory, after(start, 800)));
    }

    #[test]
    fn while_changes_are_heard_of_it_is_believed_for_longer() {
        let (memory, start) = (Memory::default(), Instant::now());
        memory.listen(start);
        memory.remember(HASH, &key(), memory.begin(start));
        memory.heard(after(start, 9_500));
        assert!(knows(&memory, after(start, 9_999)));
        assert!(!knows(&memory, after(start, 10_000)));
    }

    #[test]
    fn a_listener_that_went_silent_is_not_counted_on() {
        let (memory, start) = (Memory::default(), Instant::now());
        memory.listen(start);
        memory.remember(HASH, &key(), memory.begin(start));
        memory.heard(after(start, 500));
        assert!(knows(&memory, after(start, 1_299)));
        assert!(!knows(&memory, after(start, 1_300)));
        memory.heard(after(start, 1_400));
        assert!(knows(&memory, after(start, 1_400)));
        memory.stop_listening();
        assert!(!knows(&memory, after(start, 1_400)));
    }

    #[test]
    fn a_change_of_the_key_or_its_account_is_forgotten_at_once() {
        let (memory, start, key) = (Memory::default(), Instant::now(), key());
        let remember = || memory.remember(HASH, &key, memory.begin(start));
        for (id, known) in [
            (KeyId::new().to_string(), true),
            (key.id.to_string(), false),
            (key.account.to_string(), false),
        ] {
            remember();
            memory.forget(&id);
            assert_eq!(knows(&memory, start), known, "{id}");
        }
        remember();
        memory.listen(start);
        assert!(!knows(&memory, start), "something may have been missed");
    }

    #[test]
    fn what_changes_during_a_look_is_not_remembered_as_it_was() {
        let (memory, start, key) = (Memory::default(), Instant::now(), key());
        let began = memory.begin(start);
        memory.forget(&key.id.to_string());
        memory.remember(HASH, &key, began);
        assert!(!knows(&memory, start));
    }

    #[test]
    fn who_comes_during_a_look_takes_part_in_it() {
        let (memory, start) = (Memory::default(), Instant::now());
        let look = || match memory.recall(&HASH, start) {
            Recall::Look(look) => look,
            Recall::Known(key) => panic!("{key:?}"),
        };
        let (first, second) = (look(), look());
        assert!(Arc::ptr_eq(&first.found, &second.found));
        drop(first);
        assert!(Arc::ptr_eq(&second.found, &look().found));
        second.found().set(None).unwrap();
        drop(second);
        assert!(!look().found().initialized(), "nothing found is not kept");
        assert!(memory.lock().looks.is_empty());
    }

    /// An account has many keys, and a key two secrets while they change over.
    #[test]
    fn only_what_changed_is_forgotten() {
        let (memory, start) = (Memory::default(), Instant::now());
        let account = AccountId::new();
        let keys: Vec<_> = (0..4)
            .map(|number| {
                let mut key = ApiKey::clone(&key());
                if number < 3 {
                    key.account = account;
                }
                Arc::new(key)
            })
            .collect();
        let remember = |secret: u8, key: usize| {
            memory.remember([secret; 32], &keys[key], memory.begin(start));
        };
        let known = || -> Vec<u8> {
            (0..5)
                .filter(|secret| matches!(memory.recall(&[*secret; 32], start), Recall::Known(_)))
                .collect()
        };
        for (secret, key) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (2, 1)] {
            remember(secret, key);
        }
        assert_eq!(known(), [0, 1, 2, 3, 4]);
        memory.forget("nonsense");
        memory.forget(&keys[0].id.to_string());
        assert_eq!(known(), [2, 3, 4]);
        // A secret that has another key now is only that one's.
        remember(2, 3);
        memory.forget(&keys[1].id.to_string());
        memory.forget(&account.to_string());
        assert_eq!(known(), [2, 4]);
        memory.forget(&keys[3].account.to_string());
        assert_eq!(known(), [0; 0]);
        let state = memory.lock();
        assert!(state.by_key.is_empty() && state.by_account.is_empty());
    }

    #[test]
    fn the_memory_is_bounded() {
        let (memory, start, key) = (Memory::default(), Instant::now(), key());
        for number in 0..=MOST_KEYS {
            let mut hash = HASH;
            hash[..8].copy_from_slice(&number.to_be_bytes());
            memory.remember(hash, &key, memory.begin(start));
        }
        assert!(memory.lock().keys.len() <= MOST_KEYS);
    }
}
