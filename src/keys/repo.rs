//! All SQL of the keys.

pub(super) mod listing;
pub(super) mod rotation;
pub(super) mod webhooks;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{ApiKey, KeyError, Limits, secret::SecretHash};
use crate::{
    addresses::IpRange,
    ids::{AccountId, KeyId},
    money::NanoUsd,
    postgres::{basis_points_from_sql, clean, limit_from_sql, limit_to_sql},
};

/// A row of `api_keys` with what its account says.
struct KeyRow {
    id: String,
    secret_hash: Vec<u8>,
    previous_secret_hash: Option<Vec<u8>>,
    previous_secret_ends_at: Option<DateTime<Utc>>,
    account_id: String,
    name: String,
    mode: String,
    hint: String,
    models: Option<Vec<String>>,
    requests_per_minute: Option<i32>,
    images_per_minute: Option<i32>,
    max_in_flight: Option<i32>,
    spend_per_day_nano_usd: Option<i64>,
    spend_per_month_nano_usd: Option<i64>,
    allowed_ips: Option<Vec<String>>,
    unsupported_parameters: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    account_markup_basis_points: Option<i32>,
    account_requests_per_minute: Option<i32>,
    account_images_per_minute: Option<i32>,
    account_max_in_flight: Option<i32>,
    account_spend_per_day_nano_usd: Option<i64>,
    account_spend_per_month_nano_usd: Option<i64>,
}

/// `KeyRow`s: of `k`, which is `api_keys`, with its account `a`. Takes what stands behind the `from`.
macro_rules! select_keys {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            KeyRow,
            "select k.id, k.secret_hash, k.previous_secret_hash, k.previous_secret_ends_at, k.account_id, k.name, k.mode,
                 k.hint, k.models, k.requests_per_minute, k.images_per_minute, k.max_in_flight,
                 k.spend_per_day_nano_usd, k.spend_per_month_nano_usd, k.allowed_ips, k.unsupported_parameters, k.created_at, k.expires_at, k.revoked_at,
                 a.markup_basis_points as account_markup_basis_points,
                 a.requests_per_minute as account_requests_per_minute,
                 a.images_per_minute as account_images_per_minute, a.max_in_flight as account_max_in_flight,
                 a.spend_per_day_nano_usd as account_spend_per_day_nano_usd,
                 a.spend_per_month_nano_usd as account_spend_per_month_nano_usd
             from api_keys k join accounts a on a.id = k.account_id " + $rest
            $(, $argument)*
        )
    };
}
use select_keys;

/// Writes a key; returns it with what its account says.
pub(super) async fn insert(
    connection: &mut PgConnection,
    key: &ApiKey,
    hash: &SecretHash,
) -> Result<ApiKey, KeyError> {
    let ranges = ranges_to_sql(key);
    let no_account = || KeyError::NoAccount(key.account.to_string());
    sqlx::query!(
        "insert into api_keys (id, account_id, name, mode, secret_hash, hint, models, requests_per_minute,
             images_per_minute, max_in_flight, unsupported_parameters, created_at, expires_at,
             spend_per_day_nano_usd, spend_per_month_nano_usd, allowed_ips)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
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
        key.limits.spend_per_day.map(NanoUsd::nano),
        key.limits.spend_per_month.map(NanoUsd::nano),
        ranges.as_deref(),
    )
    .execute(&mut *connection)
    .await
    .map_err(|source| {
        match source
            .as_database_error()
            .and_then(|error| error.constraint())
        {
            Some("api_keys_account_id_fkey") => no_account(),
            _ => database("create a key")(source),
        }
    })?;
    find(connection, key.id).await?.ok_or_else(no_account)
}

/// What authentication attempts.
pub(super) const LOOK_UP: &str = "look up a key";

/// The key that this secret opens, and the hash that it was found by. By the secret of before its last rotation it
/// ends when that secret does.
pub(super) async fn find_by_hash(
    connection: &mut PgConnection,
    hash: &SecretHash,
) -> Result<Option<(ApiKey, Vec<u8>)>, KeyError> {
    let found = select_keys!(
        "where k.secret_hash = $1 or k.previous_secret_hash = $1",
        hash.as_slice(),
    )
    .fetch_optional(connection)
    .await
    .map_err(database(LOOK_UP))?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    let mut stored = std::mem::take(&mut row.secret_hash);
    if stored != hash.as_slice()
        && let Some(previous) = row.previous_secret_hash.take()
    {
        stored = previous;
        let ends = [row.expires_at, row.previous_secret_ends_at];
        row.expires_at = ends.into_iter().flatten().min();
    }
    Ok(Some((row.try_into()?, stored)))
}

pub(super) async fn find(
    executor: impl PgExecutor<'_>,
    id: KeyId,
) -> Result<Option<ApiKey>, KeyError> {
    select_keys!("where k.id = $1", id.to_string())
        .fetch_optional(executor)
        .await
        .map_err(database("find a key"))?
        .map(ApiKey::try_from)
        .transpose()
}

pub(super) async fn list(
    pool: &PgPool,
    account: Option<AccountId>,
) -> Result<Vec<ApiKey>, KeyError> {
    select_keys!(
        "where $1::text is null or k.account_id = $1 order by k.id",
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
    select_keys!("where k.id = $1 for no key update of k", id.to_string())
        .fetch_optional(connection)
        .await
        .map_err(database("update a key"))?
        .map(ApiKey::try_from)
        .transpose()
}

pub(super) async fn update(connection: &mut PgConnection, key: &ApiKey) -> Result<(), KeyError> {
    let ranges = ranges_to_sql(key);
    sqlx::query!(
        "update api_keys set name = $2, models = $3, requests_per_minute = $4, images_per_minute = $5,
             max_in_flight = $6, unsupported_parameters = $7, expires_at = $8, spend_per_day_nano_usd = $9,
             spend_per_month_nano_usd = $10, allowed_ips = $11
         where id = $1",
        key.id.to_string(),
        clean(&key.name),
        key.models.as_deref(),
        limit_to_sql(key.limits.requests_per_minute),
        limit_to_sql(key.limits.images_per_minute),
        limit_to_sql(key.limits.max_in_flight),
        key.unsupported_parameters.as_str(),
        key.expires_at,
        key.limits.spend_per_day.map(NanoUsd::nano),
        key.limits.spend_per_month.map(NanoUsd::nano),
        ranges.as_deref(),
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
    sqlx::query!(
        "update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1",
        id.to_string(),
        now,
    )
    .execute(&mut *connection)
    .await
    .map_err(database("revoke a key"))?;
    find(connection, id).await
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
            limits: Limits {
                requests_per_minute: row.requests_per_minute.map(limit_from_sql),
                images_per_minute: row.images_per_minute.map(limit_from_sql),
                max_in_flight: row.max_in_flight.map(limit_from_sql),
                spend_per_day: row.spend_per_day_nano_usd.map(NanoUsd::from_nano),
                spend_per_month: row.spend_per_month_nano_usd.map(NanoUsd::from_nano),
            },
            account_limits: Limits {
                requests_per_minute: row.account_requests_per_minute.map(limit_from_sql),
                images_per_minute: row.account_images_per_minute.map(limit_from_sql),
                max_in_flight: row.account_max_in_flight.map(limit_from_sql),
                spend_per_day: row.account_spend_per_day_nano_usd.map(NanoUsd::from_nano),
                spend_per_month: row.account_spend_per_month_nano_usd.map(NanoUsd::from_nano),
            },
            allowed_ips: row
                .allowed_ips
                .map(|ranges| {
                    let ranges = ranges.iter().map(|range| range.parse::<IpRange>());
                    ranges.collect::<Result<_, _>>()
                })
                .transpose()
                .map_err(|error| bad(&error))?,
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

fn ranges_to_sql(key: &ApiKey) -> Option<Vec<String>> {
    let ranges = key.allowed_ips.as_ref()?;
    Some(ranges.iter().map(ToString::to_string).collect())
}

fn database(action: &'static str) -> impl Fn(sqlx::Error) -> KeyError {
    move |source| KeyError::Database { action, source }
}
