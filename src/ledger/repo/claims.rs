//! What tells repeats from new requests.

use std::collections::BTreeSet;

use sqlx::{PgConnection, PgPool};

use super::{decode, name, settlements::json};
use crate::{
    ids::{GenerationId, KeyId},
    ledger::{
        Instant,
        claim::{Claims, JOINED_WITHIN, KEY_KEPT_FOR, Named, RequestHash, before},
        error::LedgerError,
        hold::{Hold, NewHold},
    },
};

/// Seconds of a window in the index of recent requests; no shorter than what is looked for in it.
const WINDOW_SECONDS: i64 = 900;
const _: () = assert!(JOINED_WITHIN.as_secs() <= WINDOW_SECONDS.unsigned_abs());
/// How many rows one statement forgets.
const BATCH: i64 = 1000;

/// What a generation and its name say.
pub(in crate::ledger) struct Found {
    pub(in crate::ledger) status: String,
    pub(in crate::ledger) error_code: Option<String>,
    pub(in crate::ledger) answer: Option<String>,
    pub(in crate::ledger) refusal: Option<String>,
}

/// The window that a moment is in.
pub(super) fn window(now: Instant) -> i32 {
    i32::try_from(now.timestamp().div_euclid(WINDOW_SECONDS)).unwrap_or(i32::MAX)
}

/// Reads what earlier requests have to do with these. Their balances are locked, so it stays true.
pub(in crate::ledger) async fn read(
    connection: &mut PgConnection,
    new: &[NewHold],
    now: Instant,
) -> Result<Claims, LedgerError> {
    let mut claims = Claims::default();
    let (mut keys, mut names) = (Vec::new(), Vec::new());
    let (mut repeaters, mut hashes, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for new in new.iter().filter(|new| Claims::matter_to(new)) {
        match (&new.idempotency_key, new.request_hash) {
            (Some(text), _) => {
                keys.push(new.caller.key.to_string());
                names.push(name(text));
            }
            (None, Some(hash)) => {
                repeaters.push(new.caller.key.to_string());
                hashes.push(hash.as_bytes().to_vec());
                counts.push(count(new.retry_count));
            }
            (None, None) => {}
        }
    }
    if !names.is_empty() {
        let found = sqlx::query!(
            r#"select k.key_id, k.idempotency_key, k.request_hash, k.generation_id,
                   (g.status = 'abandoned' or g.status = 'failed' and k.refusal is null) as "may_be_done_again!"
               from (select distinct * from unnest($1::text[], $2::text[])) as wanted (key_id, idempotency_key)
               join idempotency_keys k using (key_id, idempotency_key)
               join generations g on g.id = k.generation_id
               where k.created_at > $3"#,
            &keys,
            &names,
            before(now, KEY_KEPT_FOR),
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(LedgerError::during("read idempotency keys"))?;
        for row in found {
            let named = Named {
                hash: RequestHash::from_sql(&row.request_hash)?,
                generation: decode("idempotency_keys.generation_id", &row.generation_id)?,
                may_be_done_again: row.may_be_done_again,
            };
            let key = decode("idempotency_keys.key_id", &row.key_id)?;
            claims.remember_name(key, row.idempotency_key, named);
        }
    }
    if !hashes.is_empty() {
        // For each no more than the batch could need. The newest first: that is whose answer most likely
        // broke off just now. None whose pictures are not kept: there would be nothing to tell.
        let found = sqlx::query!(
            r#"select wanted.key_id as "key_id!", wanted.request_hash as "request_hash!", g.id,
                   array(select r.retry_count from generation_repeats r where r.generation_id = g.id)
                       as "taken!: Vec<i16>"
               from (select distinct * from unnest($1::text[], $2::bytea[], $3::smallint[]))
                   as wanted (key_id, request_hash, retry_count)
               cross join lateral (
                   select g.id from generations g
                   where g.request_window = any($4) and g.request_hash = wanted.request_hash
                       and g.key_id = wanted.key_id and g.created_at > $5 and g.status in ('in_progress', 'completed')
                       and not exists (select from images i where i.generation_id = g.id and i.expires_at <= $7)
                       and not exists (
                           select from generation_repeats r
                           where r.generation_id = g.id and r.retry_count = wanted.retry_count
                       )
                   order by g.id desc limit $6
               ) as g
               order by g.id desc"#,
            &repeaters,
            &hashes as &[Vec<u8>],
            &counts,
            &[window(now), window(before(now, JOINED_WITHIN))],
            before(now, JOINED_WITHIN),
            i64::try_from(hashes.len()).unwrap_or(i64::MAX),
            now,
        )
        .fetch_all(connection)
        .await
        .map_err(LedgerError::during("read recent requests"))?;
        let mut seen = BTreeSet::new();
        for row in found {
            let generation = decode("generations.id", &row.id)?;
            // Several counts may have found it.
            if seen.insert(generation) {
                let key = decode("generations.key_id", &row.key_id)?;
                let hash = RequestHash::from_sql(&row.request_hash)?;
                let taken = row.taken.into_iter().map(i16::unsigned_abs);
                claims.remember_recent(key, hash, generation, taken.collect());
            }
        }
    }
    Ok(claims)
}

/// Writes whose the names are from now on, and which repeats have joined.
pub(in crate::ledger) async fn write(
    connection: &mut PgConnection,
    granted: &[(&NewHold, &Hold)],
    claims: &Claims,
    now: Instant,
) -> Result<(), LedgerError> {
    let named: Vec<(&NewHold, &str, RequestHash)> = granted
        .iter()
        .filter_map(|(new, _)| {
            let text = new.idempotency_key.as_deref()?;
            Some((*new, text, new.request_hash?))
        })
        .collect();
    if !named.is_empty() {
        let hashes: Vec<Vec<u8>> = named
            .iter()
            .map(|(_, _, hash)| hash.as_bytes().to_vec())
            .collect();
        let texts = |of: fn(&(&NewHold, &str, RequestHash)) -> String| -> Vec<String> {
            named.iter().map(of).collect()
        };
        let replaced: Vec<String> = claims.replaced.iter().map(ToString::to_string).collect();
        let written = sqlx::query!(
            "insert into idempotency_keys as known (key_id, idempotency_key, generation_id, request_hash, created_at)
             select key_id, idempotency_key, generation_id, request_hash, $5
             from unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
                 as new (key_id, idempotency_key, generation_id, request_hash)
             on conflict (key_id, idempotency_key) do update
             set generation_id = excluded.generation_id, request_hash = excluded.request_hash,
                 created_at = excluded.created_at, refusal = null
             where known.created_at <= $6 or known.generation_id = any($7)",
            &texts(|(new, _, _)| new.caller.key.to_string()),
            &texts(|(_, text, _)| name(text)),
            &texts(|(new, _, _)| new.generation.to_string()),
            &hashes as &[Vec<u8>],
            now,
            before(now, KEY_KEPT_FOR),
            &replaced,
        )
        .execute(&mut *connection)
        .await
        .map_err(LedgerError::during("write idempotency keys"))?;
        // A name that somebody else has written meanwhile, past the lock: nobody may work on it twice.
        if usize::try_from(written.rows_affected()) != Ok(named.len()) {
            return Err(LedgerError::Inconsistent(
                "an idempotency key was taken past its lock".to_owned(),
            ));
        }
    }
    if !claims.joined.is_empty() {
        let (generations, counts): (Vec<String>, Vec<i16>) = claims
            .joined
            .iter()
            .map(|(generation, retry_count)| (generation.to_string(), count(*retry_count)))
            .unzip();
        sqlx::query!(
            "insert into generation_repeats (generation_id, retry_count, created_at)
             select generation_id, retry_count, $3
             from unnest($1::text[], $2::smallint[]) as new (generation_id, retry_count)",
            &generations,
            &counts,
            now,
        )
        .execute(connection)
        .await
        .map_err(LedgerError::during("write repeats"))?;
    }
    Ok(())
}

/// Keeps what providers said of pictures that never came, for those of the holds that were captured.
pub(in crate::ledger) async fn keep_words(
    connection: &mut PgConnection,
    words: &[(&Hold, &str)],
    now: Instant,
) -> Result<(), LedgerError> {
    let texts =
        |of: fn(&(&Hold, &str)) -> String| -> Vec<String> { words.iter().map(of).collect() };
    sqlx::query!(
        "insert into answer_words (generation_id, failed, created_at)
         select h.generation_id, said.words::jsonb, $4
         from unnest($1::text[], $2::text[], $3::text[]) as said (generation_id, hold_id, words)
         join holds h on h.generation_id = said.generation_id and h.id = said.hold_id and h.status = 'captured'
         on conflict do nothing",
        &texts(|(hold, _)| hold.generation.to_string()),
        &texts(|(hold, _)| hold.id.to_string()),
        &texts(|(_, words)| json(words)),
        now,
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("keep what providers said"))?;
    Ok(())
}

/// How a generation stands, and the refusal under this name, if it is that generation's.
pub(in crate::ledger) async fn standing(
    pool: &PgPool,
    id: GenerationId,
    claim: Option<(KeyId, &str)>,
) -> Result<Option<Found>, LedgerError> {
    let (key, text) = claim.unzip();
    let found = sqlx::query_as!(
        Found,
        "select g.status, g.error_code, k.refusal::text as refusal,
             case when w.failed is null then g.answer
                 else coalesce(g.answer, '{}') || jsonb_build_object('failed', w.failed) end::text as answer
         from generations g
         left join idempotency_keys k on k.key_id = $2 and k.idempotency_key = $3 and k.generation_id = g.id
         left join answer_words w on w.generation_id = g.id
         where g.id = $1",
        id.to_string(),
        key.map(|key| key.to_string()),
        text.map(name),
    )
    .fetch_optional(pool)
    .await;
    found.map_err(LedgerError::during("read how a generation stands"))
}

/// Deletes a batch of the oldest rows of a table, found by these columns, and says how many.
macro_rules! forget {
    ($table:literal, $key:literal, $before:expr, $action:literal, $pool:expr) => {
        sqlx::query!(
            "delete from "
                + $table
                + " where ("
                + $key
                + ") in (select "
                + $key
                + " from "
                + $table
                + " where created_at <= $1 order by created_at limit $2 for update skip locked)",
            $before,
            BATCH,
        )
        .execute($pool)
        .await
        .map_err(LedgerError::during($action))?
        .rows_affected()
    };
}

/// Forgets some of the names, repeats and words that are older than this. Returns how many.
pub(in crate::ledger) async fn forget(
    pool: &PgPool,
    keys_before: Instant,
    repeats_before: Instant,
) -> Result<u64, LedgerError> {
    let forgotten = [
        forget!(
            "idempotency_keys",
            "key_id, idempotency_key",
            keys_before,
            "forget idempotency keys",
            pool
        ),
        forget!(
            "generation_repeats",
            "generation_id, retry_count",
            repeats_before,
            "forget repeats",
            pool
        ),
        forget!(
            "answer_words",
            "generation_id",
            keys_before,
            "forget what providers said",
            pool
        ),
    ];
    Ok(forgotten.into_iter().fold(0, u64::saturating_add))
}

fn count(retry_count: u16) -> i16 {
    i16::try_from(retry_count).unwrap_or(i16::MAX)
}
