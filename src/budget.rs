//! Room that many take from at the same time: bounded in all, and in what any one of them may have.
//!
//! Knows nothing of what is put there. Who takes is an opaque [`Owner`], so that one account cannot keep all
//! others out. At the bound the answer is no, at once: nobody waits for room.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Room in bytes, or in places of one each. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Room>);

/// Somebody who takes room: the same for equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(u64);

#[derive(Debug)]
struct Room {
    most: AtomicU64,
    most_each: AtomicU64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: u64,
    /// Only those who have something.
    by: HashMap<Owner, u64>,
}

/// Bytes, or places, that are taken from a budget and given back on drop.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    owner: Option<Owner>,
    bytes: u64,
}

impl Owner {
    /// The owner that this value names.
    pub fn of(value: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Budget {
    /// Room for `most` bytes, or places, of which one owner may have `most_each`.
    pub fn new(most: u64, most_each: u64) -> Self {
        Self(Arc::new(Room {
            most: AtomicU64::new(most),
            most_each: AtomicU64::new(most_each),
            taken: Mutex::default(),
        }))
    }

    /// From now on with so much room. Who has more than that by now keeps it.
    pub fn resize(&self, most: u64, most_each: u64) {
        self.0.most.store(most, Ordering::Relaxed);
        self.0.most_each.store(most_each, Ordering::Relaxed);
    }

    /// Nothing yet, for this owner. Without one only the whole is bounded.
    pub fn share(&self, owner: Option<Owner>) -> Share {
        Share {
            budget: self.clone(),
            owner,
            bytes: 0,
        }
    }

    /// How much is taken.
    pub fn used_bytes(&self) -> u64 {
        self.taken().bytes
    }

    /// Nothing panics while it has the lock.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes more, if there is as much.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let room = &self.budget.0;
        let mut taken = self.budget.taken();
        let all = taken.bytes.checked_add(bytes);
        let Some(all) = all.filter(|all| *all <= room.most.load(Ordering::Relaxed)) else {
            return false;
        };
        if let Some(owner) = self.owner {
            let own = taken.by.get(&owner).copied().unwrap_or(0);
            let most_each = room.most_each.load(Ordering::Relaxed);
            let Some(own) = own.checked_add(bytes).filter(|own| *own <= most_each) else {
                return false;
            };
            taken.by.insert(owner, own);
        }
        taken.bytes = all;
        self.bytes += bytes;
        true
    }

    /// Gives everything back.
    pub fn clear(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.budget.taken();
        taken.bytes -= self.bytes;
        if let Some(owner) = self.owner
            && let Some(own) = taken.by.get_mut(&owner)
        {
            *own -= self.bytes;
            if *own == 0 {
                taken.by.remove(&owner);
            }
        }
        drop(taken);
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_each_are_bounded() {
        let budget = Budget::new(100, 40);
        let share = |name: &str| budget.share(Some(Owner::of(&name)));
        let (mut one, mut again, mut other) = (share("one"), share("one"), share("other"));
        assert!(one.grow(30));
        assert!(!again.grow(11), "one has 30 of 40");
        assert!(again.grow(10));
        assert!(other.grow(40), "which is not the others' affair");
        let mut nobody = budget.share(None);
        assert!(!nobody.grow(21), "80 of 100 are taken");
        assert!(nobody.grow(20));
        assert!(!share("third").grow(1));
        assert_eq!(budget.used_bytes(), 100);
        drop(one);
        assert!(again.grow(30));
        again.clear();
        assert_eq!(budget.used_bytes(), 60);
        drop((again, other, nobody));
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.taken().by.is_empty(), "who has nothing is forgotten");
    }
}
