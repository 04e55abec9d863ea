//! What can go wrong with keys.

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such key.
    #[error("there is no key '{0}'")]
    NotFound(String),
    /// No such account.
    #[error("there is no account '{0}'")]
    NoAccount(String),
    /// The database did not do it.
    #[error("could not {action} a key")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
}
