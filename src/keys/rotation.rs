//! Rotation: a new secret for the same key, while the old one goes on for some time.
//!
//! The key keeps its id, and with it its limits, its usage and its generations. Only one old secret goes on:
//! rotating again ends the one before at once.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::{ApiKey, KeyError, Keys, repo::rotation, secret};
use crate::{ids::KeyId, postgres::run_tx};

/// A key with its new secret, which is kept nowhere.
#[derive(Debug)]
pub struct Rotated {
    /// The key, which the new secret opens.
    pub key: ApiKey,
    /// The new secret.
    pub secret: SecretString,
    /// Until when the old one opens the key too.
    pub previous_ends_at: DateTime<Utc>,
}

impl Keys {
    /// Gives a key a new secret. The old one opens it until `previous_ends_at`; an instant that is not
    /// after now ends it at once.
    ///
    /// # Errors
    /// [`KeyError::NotFound`]; [`KeyError::Ended`] for one that is revoked or expired.
    pub async fn rotate(
        &self,
        id: KeyId,
        previous_ends_at: DateTime<Utc>,
    ) -> Result<Rotated, KeyError> {
        let now = self.clock.now();
        run_tx(&self.pool, "rotate a key", move |mut tx| {
            Box::pin(async move {
                let Some(mut key) = super::repo::lock(&mut tx, id).await? else {
                    return Err(KeyError::NotFound(id.to_string()));
                };
                if !key.is_active(now) {
                    return Err(KeyError::Ended(id.to_string()));
                }
                let secret = secret::generate(key.mode);
                key.hint = secret::hint(&secret);
                let hash = secret::hash(&secret);
                rotation::rotate(&mut tx, &key, &hash, previous_ends_at).await?;
                Ok(Rotated {
                    key,
                    secret,
                    previous_ends_at,
                })
            })
        })
        .await
    }

    /// Until when the secret before the last rotation opens this key; `None` when there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn previous_secret_ends_at(
        &self,
        id: KeyId,
    ) -> Result<Option<DateTime<Utc>>, KeyError> {
        let end = rotation::previous_ends_at(&self.pool, id).await?;
        Ok(end.filter(|end| *end > self.clock.now()))
    }
}
