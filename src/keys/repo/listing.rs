//! Listing keys page by page.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{KeyRow, database};
use crate::keys::{ApiKey, KeyError, KeyFilter, Mode};

/// After every id: `~` sorts behind the hex digits.
const NEWEST: &str = "key_~";

pub(in crate::keys) async fn page(
    pool: &PgPool,
    filter: &KeyFilter,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<ApiKey>, KeyError> {
    let before = filter
        .after
        .map_or_else(|| NEWEST.to_owned(), |after| after.to_string());
    sqlx::query_as!(
        KeyRow,
        "select id, account_id, name, mode, hint, models, requests_per_minute, images_per_minute, max_in_flight,
             unsupported_parameters, created_at, expires_at, revoked_at,
             (select a.markup_basis_points from accounts a where a.id = account_id) as account_markup_basis_points
         from api_keys
         where id < $1 and ($2::text is null or account_id = $2) and ($3::text is null or mode = $3)
             and ($4::boolean is null or $4 = (revoked_at is null and (expires_at is null or expires_at > $5)))
         order by id desc limit $6",
        before,
        filter.account.map(|account| account.to_string()),
        filter.mode.map(Mode::as_str),
        filter.active,
        now,
        i64::from(limit),
    )
    .fetch_all(pool)
    .await
    .map_err(database("list the keys"))?
    .into_iter()
    .map(ApiKey::try_from)
    .collect()
}
