//! Rotating a secret.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::database;
use crate::{
    ids::KeyId,
    keys::{ApiKey, KeyError, secret::SecretHash},
};

/// Writes the new hash and moves the one before aside. The row is locked.
pub(in crate::keys) async fn rotate(
    connection: &mut PgConnection,
    key: &ApiKey,
    hash: &SecretHash,
    previous_ends_at: DateTime<Utc>,
) -> Result<(), KeyError> {
    sqlx::query!(
        "update api_keys set previous_secret_hash = secret_hash, previous_secret_ends_at = $2, secret_hash = $3, hint = $4
         where id = $1",
        key.id.to_string(),
        previous_ends_at,
        hash.as_slice(),
        key.hint,
    )
    .execute(connection)
    .await
    .map_err(database("rotate a key"))?;
    Ok(())
}

pub(in crate::keys) async fn previous_ends_at(
    pool: &PgPool,
    id: KeyId,
) -> Result<Option<DateTime<Utc>>, KeyError> {
    let end = sqlx::query_scalar!(
        "select previous_secret_ends_at from api_keys where id = $1",
        id.to_string(),
    )
    .fetch_optional(pool)
    .await
    .map_err(database("find a key"))?;
    Ok(end.flatten())
}
