//! What can go wrong with keys.

use crate::postgres::TxError;

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such key.
    #[error("there is no key '{0}'")]
    NotFound(String),
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

impl TxError for KeyError {
    fn database(action: &'static str, source: sqlx::Error) -> Self {
        Self::Database { action, source }
    }

    fn as_database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database { source, .. } => Some(source),
            Self::NotFound(_) | Self::NoAccount(_) | Self::Inconsistent(_) => None,
        }
    }
}
