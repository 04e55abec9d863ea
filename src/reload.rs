//! What became of the configuration on disk, for who asks; and the bell for who wants it read again.
//!
//! Knows nothing of what a configuration is. Who reads it answers the bell and says what came of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the same reading; more are refused.
const MOST_WAITING: usize = 16;

/// Cheap to clone; clones share what they know.
#[derive(Debug, Clone)]
pub struct Reloads {
    standing: Arc<Mutex<Standing>>,
    bell: mpsc::Sender<Request>,
}

/// Somebody who wants it read again, and waits for what came of it.
pub type Request = oneshot::Sender<Result<Standing, String>>;

/// What is in force.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Since when.
    pub applied_at: DateTime<Utc>,
    /// Settings on disk that only a restart can change, by their keys.
    pub needs_restart: Vec<&'static str>,
    /// The configuration that is on disk now, if it is another one and cannot be used.
    pub refused: Option<Refused>,
}

/// A configuration that changed nothing.
#[derive(Debug, Clone)]
pub struct Refused {
    /// When it was read.
    pub at: DateTime<Utc>,
    /// What is wrong with it: file, key and why. For operators, not for everybody.
    pub why: String,
}

/// Nobody reads it again, or too many want that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be read again at the moment")]
pub struct Unheard;

impl Reloads {
    /// The configuration that a process was started with has been in force since `applied_at`. The receiver is
    /// for who reads it again.
    pub fn new(applied_at: DateTime<Utc>) -> (Self, mpsc::Receiver<Request>) {
        let (bell, rings) = mpsc::channel(MOST_WAITING);
        let standing = Standing {
            applied_at,
            needs_restart: Vec::new(),
            refused: None,
        };
        let reloads = Self {
            standing: Arc::new(Mutex::new(standing)),
            bell,
        };
        (reloads, rings)
    }

    /// What is in force now.
    pub fn standing(&self) -> Standing {
        self.locked().clone()
    }

    /// Has it read again, and says what is in force then, or why what is on disk is not.
    ///
    /// # Errors
    /// [`Unheard`].
    pub async fn ask(&self) -> Result<Result<Standing, String>, Unheard> {
        let (request, answer) = oneshot::channel();
        self.bell.try_send(request).map_err(|_| Unheard)?;
        answer.await.map_err(|_| Unheard)
    }

    /// What is on disk is in force.
    pub fn applied(&self, at: DateTime<Utc>, needs_restart: Vec<&'static str>) {
        *self.locked() = Standing {
            applied_at: at,
            needs_restart,
            refused: None,
        };
    }

    /// What is on disk cannot be used, and what was in force still is.
    pub fn refused(&self, at: DateTime<Utc>, why: String) {
        self.locked().refused = Some(Refused { at, why });
    }

    /// Held for a few instructions, never across an await.
    fn locked(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
