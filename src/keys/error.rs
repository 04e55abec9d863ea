//! What can go wrong with keys.

use crate::postgres::{TxError, is_passing};

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such key.
    #[error("there is no key '{0}'")]
    NotFound(String),
    /// A key that is revoked or expired has no use for it.
    #[error("the key '{0}' has ended")]
    Ended(String),
    /// No such account.
    #[error("there is no account '{0}'")]
    NoAccount(String),
    /// The database holds something that cannot be.
    #[error("inconsistent database: {0}")]
    Inconsistent(String),
    /// The database did not do it.
    #[error("could not {action}")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
}

impl KeyError {
    /// Whether it is the database's state of the moment, and the same call may well succeed soon.
    pub fn is_passing(&self) -> bool {
        self.as_database().is_some_and(is_passing)
    }
}

impl TxError for KeyError {
    fn database(action: &'static str, source: sqlx::Error) -> Self {
        Self::Database { action, source }
    }

    fn as_database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database { source, .. } => Some(source),
            Self::NotFound(_) | Self::Ended(_) | Self::NoAccount(_) | Self::Inconsistent(_) => None,
        }
    }
}
