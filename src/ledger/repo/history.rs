//! Reading generations.

use std::{collections::HashMap, time::Duration};

use sqlx::PgPool;

use super::{decode, name};
use crate::{
    ids::AccountId,
    keys::Mode,
    ledger::{
        error::LedgerError,
        history::{AttemptRecord, Generation, GenerationError, GenerationFilter, ImageRecord},
    },
    money::NanoUsd,
};

/// After every id: `~` sorts behind the hex digits.
const NEWEST: &str = "gen_~";

/// Ids that match, newest first. One statement for each index that can answer, because a plan that fits
/// all of them would walk the whole history of an account.
pub(in crate::ledger) async fn find(
    pool: &PgPool,
    account: AccountId,
    filter: &GenerationFilter,
    limit: i64,
) -> Result<Vec<String>, LedgerError> {
    let account = account.to_string();
    let before = filter
        .after
        .map_or_else(|| NEWEST.to_owned(), |after| after.to_string());
    let mode = filter.mode.map(Mode::as_str);
    let user = filter.user.as_deref().map(name);
    let found = if let Some(key) = filter.idempotency_key.as_deref().map(name) {
        sqlx::query_scalar!(
            "select id from generations
             where account_id = $1 and idempotency_key = $2 and id < $3
                 and ($4::text is null or mode = $4) and ($5::text is null or end_user = $5)
             order by id desc limit $6",
            account,
            key,
            before,
            mode,
            user,
            limit,
        )
        .fetch_all(pool)
        .await
    } else if let Some(user) = user {
        sqlx::query_scalar!(
            "select id from generations
             where account_id = $1 and end_user = $2 and id < $3 and ($4::text is null or mode = $4)
             order by id desc limit $5",
            account,
            user,
            before,
            mode,
            limit,
        )
        .fetch_all(pool)
        .await
    } else {
        sqlx::query_scalar!(
            "select id from generations
             where account_id = $1 and id < $2 and ($3::text is null or mode = $3)
             order by id desc limit $4",
            account,
            before,
            mode,
            limit,
        )
        .fetch_all(pool)
        .await
    };
    found.map_err(LedgerError::during("list generations"))
}

/// The generations of these ids, of one account or of any, newest first, with all that hangs on them.
pub(in crate::ledger) async fn read(
    pool: &PgPool,
    account: Option<AccountId>,
    ids: &[String],
) -> Result<Vec<Generation>, LedgerError> {
    let rows = sqlx::query!(
        "select id, request_id, account_id, key_id, mode, model, images_asked, status, end_user, idempotency_key, created_at,
             finished_at, provider, upstream_model, cost_nano_usd, upstream_cost_nano_usd, input_tokens, output_tokens,
             error_code, error_message
         from generations where id = any($1) and ($2::text is null or account_id = $2) order by id desc",
        ids,
        account.map(|account| account.to_string()),
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("read generations"))?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut images = images(pool, ids).await?;
    let mut attempts = attempts(pool, ids).await?;
    rows.into_iter()
        .map(|row| {
            Ok(Generation {
                id: decode("generations.id", &row.id)?,
                request: decode("generations.request_id", &row.request_id)?,
                account: decode("generations.account_id", &row.account_id)?,
                key: decode("generations.key_id", &row.key_id)?,
                mode: decode("generations.mode", &row.mode)?,
                model: row.model,
                images_asked: u8::try_from(row.images_asked).unwrap_or(u8::MAX),
                status: decode("generations.status", &row.status)?,
                user: row.end_user,
                idempotency_key: row.idempotency_key,
                created_at: row.created_at,
                finished_at: row.finished_at,
                provider: row.provider,
                upstream_model: row.upstream_model,
                cost: NanoUsd::from_nano(row.cost_nano_usd),
                upstream_cost: NanoUsd::from_nano(row.upstream_cost_nano_usd),
                input_tokens: row.input_tokens.unsigned_abs(),
                output_tokens: row.output_tokens.unsigned_abs(),
                error: row
                    .error_code
                    .zip(row.error_message)
                    .map(|(code, message)| GenerationError { code, message }),
                images: images.remove(&row.id).unwrap_or_default(),
                attempts: attempts.remove(&row.id).unwrap_or_default(),
            })
        })
        .collect()
}

async fn images(
    pool: &PgPool,
    ids: &[String],
) -> Result<HashMap<String, Vec<ImageRecord>>, LedgerError> {
    let mut found: HashMap<String, Vec<ImageRecord>> = HashMap::new();
    let rows = sqlx::query!(
        "select generation_id, id, position, format, width, height, size_bytes, cost_nano_usd, upstream_cost_nano_usd,
             revised_prompt, expires_at
         from images where generation_id = any($1) order by generation_id, position",
        ids,
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("read images"))?;
    for row in rows {
        let image = ImageRecord {
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
        };
        found.entry(row.generation_id).or_default().push(image);
    }
    Ok(found)
}

async fn attempts(
    pool: &PgPool,
    ids: &[String],
) -> Result<HashMap<String, Vec<AttemptRecord>>, LedgerError> {
    let mut found: HashMap<String, Vec<AttemptRecord>> = HashMap::new();
    let rows = sqlx::query!(
        "select generation_id, number, provider, upstream_model, started_at, latency_ms, upstream_status,
             upstream_request_id, error, images, maybe_charged
         from attempts where generation_id = any($1) order by generation_id, number",
        ids,
    )
    .fetch_all(pool)
    .await
    .map_err(LedgerError::during("read attempts"))?;
    for row in rows {
        let attempt = AttemptRecord {
            number: row.number.unsigned_abs(),
            provider: row.provider,
            upstream_model: row.upstream_model,
            started_at: row.started_at,
            latency: Duration::from_millis(row.latency_ms.unsigned_abs()),
            upstream_status: row.upstream_status.map(i16::unsigned_abs),
            upstream_request_id: row.upstream_request_id,
            error: row.error,
            images: u8::try_from(row.images).unwrap_or(u8::MAX),
            maybe_charged: row.maybe_charged,
        };
        found.entry(row.generation_id).or_default().push(attempt);
    }
    Ok(found)
}
