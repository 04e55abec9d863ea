//! All SQL of the keys.

pub(super) mod listing;
pub(super) mod rotation;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{ApiKey, KeyError, KeyLimits, secret::SecretHash};
use crate::{
    ids::{AccountId, KeyId},
    postgres::{basis_points_from_sql, clean},
};

/// A row of `api_keys` without the hash, and with its account's markup.
struct KeyRow {
    id: String,
    account_id: String,
    name: String,
    mode: String,
    hint: String,
    models: Option<Vec<String>>,
    requests_per_minute: Option<i32>,
    images_per_minute: Option<i32>,
    max_in_flight: Option<i32>,
    unsupported_parameters: String,
    account_markup_basis_points: Option<i32>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// Writes a key; returns its account's markup.
pub(super) async fn insert(
    connection: &mut PgConnection,
    key: &ApiKey,
    hash: &SecretHash,
) -> Result<Option<u32>, KeyError> {
    let markup = sqlx::query_scalar!(
        "insert into api_keys (id, account_id, name, mode, secret_hash, hint, models, requests_per_minute,
             images_per_minute, max_in_flight, unsupported_parameters, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         returning (select a.markup_basis_points from accounts a where a.id = account_id)",
        key.id.to_string(),
        key.account.to_string(),
        clean(&key.name),
        key.mode.as_str(),
        hash.as_slice(),
        key.hint,
        key.models.as_deref(),
        limit_to_sql(key.limits.requests_per_minute),
        limit_to_sql(key.limits.images_per_minute),
        limit_to_sql(key.limits.max_in_flight),
        key.unsupported_parameters.as_str(),
        key.created_at,
        key.expires_at,
    )
    .fetch_one(connection)
    .await
    .map_err(|source| match source.as_database_error().and_then(|error| error.constraint()) {
        Some("api_keys_account_id_fkey") => KeyError::NoAccount(key.account.to_string()),
        _ => database("create a key")(source),
    })?;
    Ok(markup.map(basis_points_from_sql))
}

/// What authentication attempts.
pub(super) const LOOK_UP: &str = "look up a key";

/// The key that this secret opens. By the secret of before its last rotation it ends when that secret does.
pub(super) async fn find_by_hash(
    connection: &mut PgConnection,
    hash: &SecretHash,
) -> Result<Option<(ApiKey, Vec<u8>)>, KeyError> {
    let Some(row) = sqlx::query!(
        r#"select id, account_id, name, mode, hint, models, requests_per_minute, images_per_minute, max_in_flight,
             unsupported_parameters, created_at, revoked_at,
             least(expires_at, case when secret_hash = $1 then null else previous_secret_ends_at end) as expires_at,
             case when secret_hash = $1 then secret_hash else previous_secret_hash end as "secret_hash!",
             (select a.markup_basis_points from accounts a where a.id = account_id) as account_markup_basis_points
         from api_keys where secret_hash = $1 or previous_secret_hash = $1"#,
        hash.as_slice(),
    )
    .fetch_optional(connection)
    .await
    .map_err(database(LOOK_UP))?
    else {
        return Ok(None);
    };
    let key = KeyRow {
        id: row.id,
        account_id: row.account_id,
        name: row.name,
        mode: row.mode,
        hint: row.hint,
        models: row.models,
        requests_per_minute: row.requests_per_minute,
        images_per_minute: row.images_per_minute,
        max_in_flight: row.max_in_flight,
        unsupported_parameters: row.unsupported_parameters,
        account_markup_basis_points: row.account_markup_basis_points,
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    };
    Ok(Some((key.try_into()?, row.secret_hash)))
}

pub(super) async fn find(pool: &PgPool, id: KeyId) -> Result<Option<ApiKey>, KeyError> {
    sqlx::query_as!(
        KeyRow,
        "select id, account_id, name, mode, hint, models, requests_per_minute, images_per_minute, max_in_flight,
             unsupported_parameters, created_at, expires_at, revoked_at,
             (select a.markup_basis_points from accounts a where a.id = account_id) as account_markup_basis_points
         from api_keys where id = $1",
        id.to_string(),
    )
    .fetch_optional(pool)
    .await
    .map_err(database("find a key"))?
    .map(ApiKey::try_from)
    .transpose()
}

pub(super) async fn list(
    pool: &PgPool,
    account: Option<AccountId>,
) -> Result<Vec<ApiKey>, KeyError> {
    sqlx::query_as!(
        KeyRow,
        "select id, account_id, name, mode, hint, models, requests_per_minute, images_per_minute, max_in_flight,
             unsupported_parameters, created_at, expires_at, revoked_at,
             (select a.markup_basis_points from accounts a where a.id = account_id) as account_markup_basis_points
         from api_keys where $1::text is null or account_id = $1 order by id",
        account.map(|account| account.to_string()),
    )
    .fetch_all(pool)
    .await
    .map_err(database("list the keys"))?
    .into_iter()
    .map(ApiKey::try_from)
    .collect()
}

/// Reads a key and keeps others from changing it until the transaction ends.
pub(super) async fn lock(
    connection: &mut PgConnection,
    id: KeyId,
) -> Result<Option<ApiKey>, KeyError> {
    sqlx::query_as!(
        KeyRow,
        "select id, account_id, name, mode, hint, models, requests_per_minute, images_per_minute, max_in_flight,
             unsupported_parameters, created_at, expires_at, revoked_at,
             (select a.markup_basis_points from accounts a where a.id = account_id) as account_markup_basis_points
         from api_keys where id = $1 for no key update",
        id.to_string(),
    )
    .fetch_optional(connection)
    .await
    .map_err(database("update a key"))?
    .map(ApiKey::try_from)
    .transpose()
}

pub(super) async fn update(connection: &mut PgConnection, key: &ApiKey) -> Result<(), KeyError> {
    sqlx::query!(
        "update api_keys set name = $2, models = $3, requests_per_minute = $4, images_per_minute = $5,
             max_in_flight = $6, unsupported_parameters = $7, expires_at = $8
         where id = $1",
        key.id.to_string(),
        clean(&key.name),
        key.models.as_deref(),
        limit_to_sql(key.limits.requests_per_minute),
        limit_to_sql(key.limits.images_per_minute),
        limit_to_sql(key.limits.max_in_flight),
        key.unsupported_parameters.as_str(),
        key.expires_at,
    )
    .execute(connection)
    .await
    .map_err(database("update a key"))?;
    Ok(())
}

pub(super) async fn revoke(
    connection: &mut PgConnection,
    id: KeyId,
    now: DateTime<Utc>,
) -> Result<Option<ApiKey>, KeyError> {
    sqlx::query_as!(
        KeyRow,
        "update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1
         returning id, account_id, name, mode, hint, models, requests_per_minute, images_per_minute, max_in_flight,
             unsupported_parameters, created_at, expires_at, revoked_at,
             (select a.markup_basis_points from accounts a where a.id = account_id) as account_markup_basis_points",
        id.to_string(),
        now,
    )
    .fetch_optional(connection)
    .await
    .map_err(database("revoke a key"))?
    .map(ApiKey::try_from)
    .transpose()
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = KeyError;

    fn try_from(row: KeyRow) -> Result<Self, KeyError> {
        let bad = |what: &dyn std::fmt::Display| {
            KeyError::Inconsistent(format!("api_keys row '{}': {what}", row.id))
        };
        Ok(Self {
            id: row.id.parse().map_err(|error| bad(&error))?,
            account: row.account_id.parse().map_err(|error| bad(&error))?,
            mode: row.mode.parse().map_err(|error| bad(&error))?,
            limits: KeyLimits {
                requests_per_minute: row.requests_per_minute.map(limit_from_sql),
                images_per_minute: row.images_per_minute.map(limit_from_sql),
                max_in_flight: row.max_in_flight.map(limit_from_sql),
            },
            unsupported_parameters: row
                .unsupported_parameters
                .parse()
                .map_err(|error| bad(&error))?,
            account_markup_basis_points: row.account_markup_basis_points.map(basis_points_from_sql),
            name: row.name,
            hint: row.hint,
            models: row.models,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        })
    }
}

/// A limit above two thousand million is as good as that.
fn limit_to_sql(limit: Option<u32>) -> Option<i32> {
    limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX))
}

/// The column's CHECK keeps it from being negative.
fn limit_from_sql(limit: i32) -> u32 {
    limit.unsigned_abs()
}

fn database(action: &'static str) -> impl Fn(sqlx::Error) -> KeyError {
    move |source| KeyError::Database { action, source }
}
