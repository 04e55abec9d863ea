//! Listing keys page by page.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{KeyRow, database, select_keys};
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
    select_keys!(
        "where k.id < $1 and ($2::text is null or k.account_id = $2) and ($3::text is null or k.mode = $3)
             and ($4::boolean is null or $4 = (k.revoked_at is null and (k.expires_at is null or k.expires_at > $5)))
         order by k.id desc limit $6",
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
