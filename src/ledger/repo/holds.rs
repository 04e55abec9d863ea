//! Writing holds, and counting what keys with limits did.

use sqlx::PgConnection;

use super::{claims::window, decode, name};
use crate::{
    ids::{KeyId, ReplicaId},
    ledger::{
        Instant,
        error::LedgerError,
        hold::{Hold, KeyCounts, NewHold},
        limits::{KeyCount, SecondCount, WINDOW_SECONDS},
    },
};

/// Locks keys, so that what they did is counted by one transaction at a time. Not stronger than needed:
/// new generations may still refer to them.
pub(in crate::ledger) async fn lock_keys(
    connection: &mut PgConnection,
    keys: &[KeyId],
) -> Result<(), LedgerError> {
    sqlx::query!(
        "select 1 as locked from api_keys where id = any($1) order by id for no key update",
        &texts(keys),
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("lock keys with limits"))?;
    Ok(())
}

/// Reads what locked keys did within the last minute and have in flight.
pub(in crate::ledger) async fn count_keys(
    connection: &mut PgConnection,
    keys: &[KeyId],
    now: i64,
) -> Result<KeyCounts, LedgerError> {
    let mut counts: KeyCounts = keys.iter().map(|key| (*key, KeyCount::new(now))).collect();
    let ids = texts(keys);
    let seconds = sqlx::query!(
        "select key_id, second, requests, images from key_seconds
         where key_id = any($1) and second > $2 order by key_id, second",
        &ids,
        now.saturating_sub(WINDOW_SECONDS),
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(LedgerError::during("count the last minute of keys"))?;
    for row in seconds {
        if let Some(count) = counts.get_mut(&decode("key_seconds.key_id", &row.key_id)?) {
            count.remember(SecondCount {
                second: row.second,
                requests: row.requests.unsigned_abs(),
                images: row.images.unsigned_abs(),
            });
        }
    }
    let in_flight = sqlx::query!(
        r#"select key_id, count(*) as "open!" from holds where key_id = any($1) and status = 'open' group by key_id"#,
        &ids,
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("count the requests in flight of keys"))?;
    for row in in_flight {
        if let Some(count) = counts.get_mut(&decode("holds.key_id", &row.key_id)?) {
            count.set_in_flight(u32::try_from(row.open).unwrap_or(u32::MAX));
        }
    }
    Ok(counts)
}

/// Adds what a batch counted, and forgets what is older than a minute.
pub(in crate::ledger) async fn write_counts(
    connection: &mut PgConnection,
    counts: &KeyCounts,
    now: i64,
) -> Result<(), LedgerError> {
    let (mut keys, mut requests, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for (key, count) in counts.iter().filter(|(_, count)| count.added.requests > 0) {
        keys.push(key.to_string());
        requests.push(i32::try_from(count.added.requests).unwrap_or(i32::MAX));
        images.push(i32::try_from(count.added.images).unwrap_or(i32::MAX));
    }
    sqlx::query!(
        "with old as (delete from key_seconds where key_id = any($1) and second <= $5)
         insert into key_seconds as counted (key_id, second, requests, images)
         select key_id, $4, requests, images from unnest($1::text[], $2::integer[], $3::integer[])
             as added (key_id, requests, images)
         on conflict (key_id, second) do update
         set requests = counted.requests + excluded.requests, images = counted.images + excluded.images",
        &keys,
        &requests,
        &images,
        now,
        now.saturating_sub(WINDOW_SECONDS),
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("count the requests of keys"))?;
    Ok(())
}

/// Writes granted holds with their generations, and moves the held sums of the locked balances.
pub(in crate::ledger) async fn insert(
    connection: &mut PgConnection,
    granted: &[(&NewHold, &Hold)],
    replica: ReplicaId,
    now: Instant,
) -> Result<(), LedgerError> {
    let column =
        |of: fn(&(&NewHold, &Hold)) -> String| -> Vec<String> { granted.iter().map(of).collect() };
    let optional = |of: fn(&NewHold) -> &Option<String>| -> Vec<Option<String>> {
        granted
            .iter()
            .map(|(new, _)| of(new).as_deref().map(name))
            .collect()
    };
    let modes: Vec<&str> = granted.iter().map(|(new, _)| new.mode.as_str()).collect();
    let models: Vec<&str> = granted.iter().map(|(new, _)| new.model.as_str()).collect();
    let images: Vec<i16> = granted
        .iter()
        .map(|(new, _)| i16::from(new.images))
        .collect();
    let amounts: Vec<i64> = granted.iter().map(|(_, hold)| hold.amount.nano()).collect();
    let users = optional(|new| &new.user);
    let idempotency_keys = optional(|new| &new.idempotency_key);
    // A named request is found by its name.
    let hashes: Vec<Option<Vec<u8>>> = granted
        .iter()
        .map(|(new, _)| {
            let hash = new.request_hash.as_ref();
            let hash = hash.filter(|_| new.idempotency_key.is_none());
            hash.map(|hash| hash.as_bytes().to_vec())
        })
        .collect();
    // The replica is registered here if it has not said so itself: an open hold without a living replica
    // is swept.
    sqlx::query!(
        "with replica as (
             insert into replicas (id) values ($12) on conflict (id) do nothing
         ), new as (
             select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                 $8::smallint[], $9::bigint[], $10::text[], $11::text[], $14::bytea[])
             as new (generation_id, hold_id, request_id, account_id, mode, key_id, model, images, amount, end_user,
                 idempotency_key, request_hash)
         ), generation as (
             insert into generations (id, request_id, account_id, mode, key_id, model, images_asked, end_user,
                 idempotency_key, created_at, request_hash, request_window)
             select generation_id, request_id, account_id, mode, key_id, model, images, end_user, idempotency_key, $13,
                 request_hash, case when request_hash is not null then $15::integer end
             from new
         ), hold as (
             insert into holds (generation_id, id, account_id, mode, key_id, replica_id, amount_nano_usd, created_at)
             select generation_id, hold_id, account_id, mode, key_id, $12, amount, $13 from new
         )
         update balances b set held_nano_usd = b.held_nano_usd + taken.amount
         from (select account_id, mode, sum(amount)::bigint as amount from new group by account_id, mode) as taken
         where b.account_id = taken.account_id and b.mode = taken.mode",
        &column(|(new, _)| new.generation.to_string()),
        &column(|(_, hold)| hold.id.to_string()),
        &column(|(new, _)| new.request.to_string()),
        &column(|(new, _)| new.account.to_string()),
        &modes as &[&str],
        &column(|(new, _)| new.key.to_string()),
        &models as &[&str],
        &images,
        &amounts,
        &users as &[Option<String>],
        &idempotency_keys as &[Option<String>],
        replica.to_string(),
        now,
        &hashes as &[Option<Vec<u8>>],
        window(now),
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("place holds"))?;
    Ok(())
}

fn texts(keys: &[KeyId]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}
