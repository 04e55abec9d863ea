//! Which keys may have webhooks, and what these are signed with.
//!
//! A key has one secret of its own, `whsec_…` where people see it. It is kept as it is, because signing needs it,
//! apart from the keys themselves: only who sends or shows it reads it. After a rotation messages are signed with
//! both for a while, so that receivers can change over.

use chrono::{DateTime, Utc};
use secrecy::SecretSlice;

use super::{KeyError, Keys, repo::webhooks};
use crate::ids::KeyId;

/// How a key's webhooks are signed.
#[derive(Debug)]
pub struct WebhookKey {
    /// Whether requests with this key may name an address.
    pub is_allowed: bool,
    /// What messages are signed with.
    pub secret: SecretSlice<u8>,
    /// The secret of before, with which they are signed too, and until when.
    pub previous: Option<(SecretSlice<u8>, DateTime<Utc>)>,
}

impl Keys {
    /// Whether requests with this key may name an address. Always asked of the database: it is rare.
    ///
    /// # Errors
    /// [`KeyError::Database`].
    pub async fn allows_webhooks(&self, id: KeyId) -> Result<bool, KeyError> {
        webhooks::is_allowed(&self.pool, id).await
    }

    /// Allows a key webhooks, or does not any longer. The first time it gets its secret. What is under way is
    /// delivered either way.
    ///
    /// # Errors
    /// [`KeyError::NotFound`].
    pub async fn allow_webhooks(&self, id: KeyId, is_allowed: bool) -> Result<(), KeyError> {
        let found = webhooks::allow(&self.pool, id, is_allowed, &new_secret()).await?;
        found
            .then_some(())
            .ok_or_else(|| KeyError::NotFound(id.to_string()))
    }

    /// How a key's webhooks are signed; `None` where it never had any.
    ///
    /// # Errors
    /// [`KeyError::Database`].
    pub async fn webhook_key(&self, id: KeyId) -> Result<Option<WebhookKey>, KeyError> {
        let now = self.clock.now();
        let found = webhooks::find(&self.pool, id).await?;
        Ok(found.map(|mut found| {
            found.previous = found.previous.filter(|(_, end)| *end > now);
            found
        }))
    }

    /// What to sign with now: one secret, or two.
    ///
    /// # Errors
    /// [`KeyError::Database`]; [`KeyError::NotFound`] where there is none.
    pub(crate) async fn webhook_secrets(
        &self,
        id: KeyId,
    ) -> Result<Vec<SecretSlice<u8>>, KeyError> {
        let found = self.webhook_key(id).await?;
        let found = found.ok_or_else(|| KeyError::NotFound(id.to_string()))?;
        let previous = found.previous.map(|(secret, _)| secret);
        Ok(std::iter::once(found.secret).chain(previous).collect())
    }

    /// Gives a key's webhooks a new secret. Messages are signed with the old one too until `previous_ends_at`;
    /// one that goes on from a rotation before ends now.
    ///
    /// # Errors
    /// [`KeyError::NotFound`] also for a key that never had webhooks.
    pub async fn rotate_webhook_secret(
        &self,
        id: KeyId,
        previous_ends_at: DateTime<Utc>,
    ) -> Result<WebhookKey, KeyError> {
        webhooks::rotate(&self.pool, id, &new_secret(), previous_ends_at).await?;
        let found = self.webhook_key(id).await?;
        found.ok_or_else(|| KeyError::NotFound(id.to_string()))
    }
}

fn new_secret() -> [u8; 32] {
    rand::random()
}
