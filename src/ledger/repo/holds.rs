//! Writing holds.

use sqlx::PgConnection;

use super::{claims::window, clean, name};
use crate::{
    ids::ReplicaId,
    ledger::{
        error::LedgerError,
        hold::{Hold, Moment, NewHold},
    },
};

/// Writes granted holds with their generations, moves the held sums of the locked balances, and adds to what keys and
/// accounts spend, where that is kept.
pub(in crate::ledger) async fn insert(
    connection: &mut PgConnection,
    granted: &[(&NewHold, &Hold)],
    replica: ReplicaId,
    moment: Moment,
) -> Result<(), LedgerError> {
    let column =
        |of: fn(&(&NewHold, &Hold)) -> String| -> Vec<String> { granted.iter().map(of).collect() };
    let optional = |of: fn(&NewHold) -> &Option<String>| -> Vec<Option<String>> {
        granted
            .iter()
            .map(|(new, _)| of(new).as_deref().map(name))
            .collect()
    };
    let modes: Vec<&str> = granted
        .iter()
        .map(|(new, _)| new.caller.mode.as_str())
        .collect();
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
    let webhooks: Vec<Option<String>> = granted
        .iter()
        .map(|(new, _)| new.webhook_url.as_deref().map(clean))
        .collect();
    // The replica is registered here if it has not said so itself: an open hold without a living replica
    // is swept.
    sqlx::query!(
        "with replica as (
             insert into replicas (id) values ($12) on conflict (id) do nothing
         ), moment as materialized (
             select coalesce($13, clock_timestamp()) as now
         ), new as (
             select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                 $8::smallint[], $9::bigint[], $10::text[], $11::text[], $14::bytea[], $16::text[])
             as new (generation_id, hold_id, request_id, account_id, mode, key_id, model, images, amount, end_user,
                 idempotency_key, request_hash, webhook_url)
         ), generation as (
             insert into generations (id, request_id, account_id, mode, key_id, model, images_asked, end_user,
                 idempotency_key, created_at, request_hash, request_window, webhook_url)
             select generation_id, request_id, account_id, mode, key_id, model, images, end_user, idempotency_key,
                 moment.now, request_hash, case when request_hash is not null then $15::integer end, webhook_url
             from new cross join moment
         ), hold as (
             insert into holds (generation_id, id, account_id, mode, key_id, replica_id, amount_nano_usd, created_at)
             select generation_id, hold_id, account_id, mode, key_id, $12, amount, moment.now from new cross join moment
         ), spent as (
             update spending s
             set day = greatest(s.day, added.day), month = greatest(s.month, added.month),
                 day_nano_usd = case when added.day > s.day then 0 else s.day_nano_usd end
                     + case when added.day >= s.day then added.amount else 0 end,
                 month_nano_usd = case when added.month > s.month then 0 else s.month_nano_usd end
                     + case when added.month >= s.month then added.amount else 0 end
             from (
                 select who.subject, sum(new.amount)::bigint as amount, (moment.now at time zone 'UTC')::date as day,
                     date_trunc('month', moment.now at time zone 'UTC')::date as month
                 from new cross join moment
                     cross join lateral (values (new.key_id), (new.account_id || ' ' || new.mode)) as who (subject)
                 group by who.subject, moment.now
             ) as added
             where s.subject = added.subject
         )
         update balances b set held_nano_usd = b.held_nano_usd + taken.amount
         from (select account_id, mode, sum(amount)::bigint as amount from new group by account_id, mode) as taken
         where b.account_id = taken.account_id and b.mode = taken.mode",
        &column(|(new, _)| new.generation.to_string()),
        &column(|(_, hold)| hold.id.to_string()),
        &column(|(new, _)| new.request.to_string()),
        &column(|(new, _)| new.caller.account.to_string()),
        &modes as &[&str],
        &column(|(new, _)| new.caller.key.to_string()),
        &models as &[&str],
        &images,
        &amounts,
        &users as &[Option<String>],
        &idempotency_keys as &[Option<String>],
        replica.to_string(),
        moment.placed_at,
        &hashes as &[Option<Vec<u8>>],
        window(moment.now),
        &webhooks as &[Option<String>],
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("place holds"))?;
    Ok(())
}
