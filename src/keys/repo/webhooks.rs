//! Which keys may have webhooks, and their secrets.

use chrono::{DateTime, Utc};
use secrecy::SecretSlice;
use sqlx::PgPool;

use super::database;
use crate::{
    ids::KeyId,
    keys::{KeyError, webhooks::WebhookKey},
};

pub(in crate::keys) async fn is_allowed(pool: &PgPool, id: KeyId) -> Result<bool, KeyError> {
    let found = sqlx::query_scalar!(
        "select is_allowed from webhook_keys where key_id = $1",
        id.to_string(),
    )
    .fetch_optional(pool)
    .await
    .map_err(database("look whether a key may have webhooks"))?;
    Ok(found.unwrap_or(false))
}

/// Says whether there is such a key.
pub(in crate::keys) async fn allow(
    pool: &PgPool,
    id: KeyId,
    is_allowed: bool,
    secret: &[u8; 32],
) -> Result<bool, KeyError> {
    let done = sqlx::query!(
        "insert into webhook_keys (key_id, is_allowed, secret) select id, $2, $3 from api_keys where id = $1
         on conflict (key_id) do update set is_allowed = excluded.is_allowed",
        id.to_string(),
        is_allowed,
        secret.as_slice(),
    )
    .execute(pool)
    .await
    .map_err(database("allow a key webhooks"))?;
    Ok(done.rows_affected() > 0)
}

pub(in crate::keys) async fn find(
    pool: &PgPool,
    id: KeyId,
) -> Result<Option<WebhookKey>, KeyError> {
    let found = sqlx::query!(
        "select is_allowed, secret, previous_secret, previous_secret_ends_at from webhook_keys where key_id = $1",
        id.to_string(),
    )
    .fetch_optional(pool)
    .await
    .map_err(database("read a webhook's secret"))?;
    Ok(found.map(|row| WebhookKey {
        is_allowed: row.is_allowed,
        secret: SecretSlice::from(row.secret),
        previous: row
            .previous_secret
            .map(SecretSlice::from)
            .zip(row.previous_secret_ends_at),
    }))
}

pub(in crate::keys) async fn rotate(
    pool: &PgPool,
    id: KeyId,
    secret: &[u8; 32],
    previous_ends_at: DateTime<Utc>,
) -> Result<(), KeyError> {
    sqlx::query!(
        "update webhook_keys set previous_secret = secret, previous_secret_ends_at = $3, secret = $2 where key_id = $1",
        id.to_string(),
        secret.as_slice(),
        previous_ends_at,
    )
    .execute(pool)
    .await
    .map_err(database("rotate a webhook's secret"))?;
    Ok(())
}
