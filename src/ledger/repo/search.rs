//! Searching generations and pictures over all accounts.
//!
//! One statement for every filter, as for the sums: it is planned anew for the filters that are set. Without
//! one that an index answers it walks back from the newest until the page is full.

use sqlx::PgConnection;

use super::{clean, decode, name};
use crate::{
    ids::GenerationId,
    keys::Mode,
    ledger::{
        error::LedgerError,
        history::{GenerationStatus, ImageRecord},
        search::{GenerationSearch, ImagePlace, ListedImage},
    },
    money::NanoUsd,
};

/// After every id: `~` sorts behind the hex digits.
const NEWEST: &str = "gen_~";

fn before(after: Option<GenerationId>) -> String {
    after.map_or_else(|| NEWEST.to_owned(), |after| after.to_string())
}

/// Ids that match, newest first.
pub(in crate::ledger) async fn generations(
    connection: &mut PgConnection,
    search: &GenerationSearch,
    after: Option<GenerationId>,
    limit: u32,
) -> Result<Vec<String>, LedgerError> {
    sqlx::query_scalar!(
        "select id from generations
         where id < $1
             and ($2::text is null or account_id = $2) and ($3::text is null or key_id = $3)
             and ($4::text is null or mode = $4) and ($5::text is null or model = $5)
             and ($6::text is null or provider = $6) and ($7::text is null or status = $7)
             and ($8::text is null or end_user = $8) and ($9::text is null or idempotency_key = $9)
             and ($10::timestamptz is null or created_at >= $10) and ($11::timestamptz is null or created_at < $11)
         order by id desc limit $12",
        before(after),
        search.account.map(|account| account.to_string()),
        search.key.map(|key| key.to_string()),
        search.mode.map(Mode::as_str),
        search.model.as_deref().map(clean),
        search.provider.as_deref().map(clean),
        search.status.map(GenerationStatus::as_str),
        search.user.as_deref().map(name),
        search.idempotency_key.as_deref().map(name),
        search.since,
        search.until,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("search generations"))
}

/// Delivered pictures, those of the newest generations first; within a generation the last first.
pub(in crate::ledger) async fn images(
    connection: &mut PgConnection,
    search: &GenerationSearch,
    after: Option<ImagePlace>,
    limit: u32,
) -> Result<Vec<ListedImage>, LedgerError> {
    sqlx::query!(
        "select i.generation_id, i.id, i.position, i.format, i.width, i.height, i.size_bytes, i.cost_nano_usd,
             i.upstream_cost_nano_usd, i.revised_prompt, i.expires_at,
             g.account_id, g.key_id, g.mode, g.model, g.provider
         from images i join generations g on g.id = i.generation_id
         where (i.generation_id, i.position) < ($1, $2)
             and ($3::text is null or g.account_id = $3) and ($4::text is null or g.key_id = $4)
             and ($5::text is null or g.mode = $5) and ($6::text is null or g.model = $6)
             and ($7::text is null or g.provider = $7) and ($8::text is null or g.status = $8)
             and ($9::text is null or g.end_user = $9) and ($10::text is null or g.idempotency_key = $10)
             and ($11::timestamptz is null or g.created_at >= $11) and ($12::timestamptz is null or g.created_at < $12)
         order by i.generation_id desc, i.position desc limit $13",
        before(after.map(|place| place.generation)),
        after.map_or(0, |place| i16::from(place.index)),
        search.account.map(|account| account.to_string()),
        search.key.map(|key| key.to_string()),
        search.mode.map(Mode::as_str),
        search.model.as_deref().map(clean),
        search.provider.as_deref().map(clean),
        search.status.map(GenerationStatus::as_str),
        search.user.as_deref().map(name),
        search.idempotency_key.as_deref().map(name),
        search.since,
        search.until,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("search images"))?
    .into_iter()
    .map(|row| {
        Ok(ListedImage {
            generation: decode("images.generation_id", &row.generation_id)?,
            account: decode("generations.account_id", &row.account_id)?,
            key: decode("generations.key_id", &row.key_id)?,
            mode: decode("generations.mode", &row.mode)?,
            model: row.model,
            provider: row.provider,
            image: ImageRecord {
                id: decode("images.id", &row.id)?,
                index: u8::try_from(row.position).unwrap_or(u8::MAX),
                format: row.format,
                width: row.width.unsigned_abs(),
                height: row.height.unsigned_abs(),
                size_bytes: row.size_bytes.unsigned_abs(),
                cost: NanoUsd::from_nano(row.cost_nano_usd),
                upstream_cost: NanoUsd::from_nano(row.upstream_cost_nano_usd),
                revised_prompt: row.revised_prompt,
                expires_at: row.expires_at,
            },
        })
    })
    .collect()
}
