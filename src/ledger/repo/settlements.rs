//! Ending holds and writing what became of them.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::{clean, decode};
use crate::{
    ids::{AccountId, EntryId, GenerationId},
    keys::Mode,
    ledger::{
        Instant,
        error::LedgerError,
        settle::{Attempt, Ending, Picture, Settlement, Totals},
    },
    money::NanoUsd,
};

/// What the table says about a hold.
#[derive(Debug)]
pub(in crate::ledger) struct EndedHold {
    pub(in crate::ledger) id: String,
    pub(in crate::ledger) status: String,
    /// The pictures it was captured for, in the order of the answer.
    pub(in crate::ledger) images: Vec<String>,
}

/// A charge, as a line of the ledger.
#[derive(Debug)]
pub(in crate::ledger) struct Charge {
    pub(in crate::ledger) account: AccountId,
    pub(in crate::ledger) mode: Mode,
    pub(in crate::ledger) generation: GenerationId,
    pub(in crate::ledger) amount: NanoUsd,
    pub(in crate::ledger) balance_after: NanoUsd,
}

/// Ends those of the holds that are open, and says which (I2). The one place where a hold ends in a
/// capture or a release, and the only fence that is needed: a replica that was declared dead, and whose
/// holds were swept, finds no open hold here, whatever it still believes.
pub(in crate::ledger) async fn end_holds(
    connection: &mut PgConnection,
    settlements: &[(&Settlement, Totals)],
    now: Instant,
) -> Result<BTreeSet<GenerationId>, LedgerError> {
    let column = |of: fn(&Settlement) -> String| -> Vec<String> {
        settlements.iter().map(|(s, _)| of(s)).collect()
    };
    let modes: Vec<&str> = settlements
        .iter()
        .map(|(s, _)| s.hold.mode.as_str())
        .collect();
    let statuses: Vec<&str> = settlements
        .iter()
        .map(|(settlement, _)| match settlement.ending {
            Ending::Captured { .. } => "captured",
            Ending::Released { .. } => "released",
        })
        .collect();
    let captured: Vec<i64> = settlements.iter().map(|(_, t)| t.captured.nano()).collect();
    let amounts: Vec<i64> = settlements
        .iter()
        .map(|(s, _)| s.hold.amount.nano())
        .collect();
    // Account, mode and amount are part of the condition because the balance that was locked, and that
    // the amount is given back to, is the one the caller named.
    sqlx::query_scalar!(
        "update holds h set status = ending.status, captured_nano_usd = ending.captured, ended_at = $8
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[])
             as ending (generation_id, id, account_id, mode, amount, status, captured)
         where h.generation_id = ending.generation_id and h.id = ending.id and h.status = 'open'
             and h.account_id = ending.account_id and h.mode = ending.mode and h.amount_nano_usd = ending.amount
         returning h.generation_id",
        &column(|settlement| settlement.hold.generation.to_string()),
        &column(|settlement| settlement.hold.id.to_string()),
        &column(|settlement| settlement.hold.account.to_string()),
        &modes as &[&str],
        &amounts,
        &statuses as &[&str],
        &captured,
        now,
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("end holds"))?
    .iter()
    .map(|id| decode("holds.generation_id", id))
    .collect()
}

/// How these holds stand.
pub(in crate::ledger) async fn read_holds(
    connection: &mut PgConnection,
    generations: &[GenerationId],
) -> Result<BTreeMap<GenerationId, EndedHold>, LedgerError> {
    let ids: Vec<String> = generations.iter().map(ToString::to_string).collect();
    sqlx::query!(
        r#"select h.generation_id, h.id, h.status,
               array(select i.id from images i where i.generation_id = h.generation_id order by i.position)
                   as "images!: Vec<String>"
           from holds h where h.generation_id = any($1)"#,
        &ids,
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("read ended holds"))?
    .into_iter()
    .map(|row| {
        let ended = EndedHold {
            id: row.id,
            status: row.status,
            images: row.images,
        };
        Ok((decode("holds.generation_id", &row.generation_id)?, ended))
    })
    .collect()
}

/// Gives back what was held, takes what was charged, and appends the charges, numbered in order.
pub(in crate::ledger) async fn write_books(
    connection: &mut PgConnection,
    settlements: &[(&Settlement, Totals)],
    charges: &[Charge],
    now: Instant,
) -> Result<(), LedgerError> {
    let accounts: Vec<String> = settlements
        .iter()
        .map(|(s, _)| s.hold.account.to_string())
        .collect();
    let modes: Vec<&str> = settlements
        .iter()
        .map(|(s, _)| s.hold.mode.as_str())
        .collect();
    let held: Vec<i64> = settlements
        .iter()
        .map(|(s, _)| s.hold.amount.nano())
        .collect();
    let captured: Vec<i64> = settlements.iter().map(|(_, t)| t.captured.nano()).collect();
    let lines: Vec<i64> = settlements
        .iter()
        .map(|(settlement, _)| i64::from(matches!(settlement.ending, Ending::Captured { .. })))
        .collect();
    let ids: Vec<String> = charges.iter().map(|_| EntryId::new().to_string()).collect();
    let charge_accounts: Vec<String> = charges.iter().map(|c| c.account.to_string()).collect();
    let charge_modes: Vec<&str> = charges.iter().map(|c| c.mode.as_str()).collect();
    let generations: Vec<String> = charges.iter().map(|c| c.generation.to_string()).collect();
    let amounts: Vec<i64> = charges.iter().map(|c| c.amount.nano()).collect();
    let after: Vec<i64> = charges.iter().map(|c| c.balance_after.nano()).collect();
    // `entries` comes back as it is after the batch, so a batch's first line has the number `entries` less
    // the batch's lines plus one.
    sqlx::query!(
        "with moved as (
             update balances b
             set balance_nano_usd = b.balance_nano_usd - ended.captured, held_nano_usd = b.held_nano_usd - ended.held,
                 entries = b.entries + ended.lines
             from (
                 select account_id, mode, sum(held)::bigint as held, sum(captured)::bigint as captured,
                     sum(lines)::bigint as lines
                 from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
                     as ended (account_id, mode, held, captured, lines)
                 group by account_id, mode
             ) as ended
             where b.account_id = ended.account_id and b.mode = ended.mode
             returning b.account_id, b.mode, b.entries - ended.lines as entries_before
         )
         insert into ledger_entries (account_id, mode, sequence, id, kind, amount_nano_usd, balance_after_nano_usd,
             generation_id, created_at)
         select moved.account_id, moved.mode,
             moved.entries_before + row_number() over (partition by moved.account_id, moved.mode order by line.place),
             line.id, 'charge', line.amount, line.after, line.generation_id, $12
         from unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[]) with ordinality
             as line (id, account_id, mode, generation_id, amount, after, place)
         join moved on moved.account_id = line.account_id and moved.mode = line.mode",
        &accounts,
        &modes as &[&str],
        &held,
        &captured,
        &lines,
        &ids,
        &charge_accounts,
        &charge_modes as &[&str],
        &generations,
        &amounts,
        &after,
        now,
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("book charges"))?;
    Ok(())
}

/// Brings the generations to their final state.
pub(in crate::ledger) async fn finish_generations(
    connection: &mut PgConnection,
    settlements: &[(&Settlement, Totals)],
    now: Instant,
) -> Result<(), LedgerError> {
    let mut rows = Finals::default();
    for (settlement, totals) in settlements {
        rows.push(settlement, *totals);
    }
    let changed = sqlx::query!(
        "update generations g
         set status = final.status, finished_at = $12, provider = final.provider, upstream_model = final.upstream_model,
             images_delivered = final.images, cost_nano_usd = final.cost, upstream_cost_nano_usd = final.upstream_cost,
             input_tokens = final.input_tokens, output_tokens = final.output_tokens,
             error_code = final.error_code, error_message = final.error_message
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::bigint[], $7::bigint[],
             $8::bigint[], $9::bigint[], $10::text[], $11::text[])
             as final (id, status, provider, upstream_model, images, cost, upstream_cost, input_tokens, output_tokens,
                 error_code, error_message)
         where g.id = final.id and g.status = 'in_progress'",
        &rows.ids,
        &rows.statuses as &[&str],
        &rows.providers as &[Option<String>],
        &rows.upstream_models as &[Option<String>],
        &rows.images,
        &rows.costs,
        &rows.upstream_costs,
        &rows.input_tokens,
        &rows.output_tokens,
        &rows.error_codes as &[Option<String>],
        &rows.error_messages as &[Option<String>],
        now,
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("finish generations"))?
    .rows_affected();
    if usize::try_from(changed) != Ok(settlements.len()) {
        return Err(LedgerError::Inconsistent(format!(
            "{} holds were open, but only {changed} of their generations in progress",
            settlements.len()
        )));
    }
    Ok(())
}

/// Writes the pictures: one billing record each.
pub(in crate::ledger) async fn insert_images(
    connection: &mut PgConnection,
    settlements: &[(&Settlement, Totals)],
    now: Instant,
) -> Result<(), LedgerError> {
    let pictures: Vec<(GenerationId, &Picture)> = settlements
        .iter()
        .flat_map(|(s, _)| {
            s.pictures()
                .iter()
                .map(|picture| (s.hold.generation, picture))
        })
        .collect();
    if pictures.is_empty() {
        return Ok(());
    }
    let integers = |of: fn(&Picture) -> u32| -> Vec<i32> {
        pictures
            .iter()
            .map(|(_, p)| i32::try_from(of(p)).unwrap_or(i32::MAX))
            .collect()
    };
    let bigints =
        |of: fn(&Picture) -> i64| -> Vec<i64> { pictures.iter().map(|(_, p)| of(p)).collect() };
    let generations: Vec<String> = pictures.iter().map(|(id, _)| id.to_string()).collect();
    let positions: Vec<i16> = pictures.iter().map(|(_, p)| i16::from(p.index)).collect();
    let ids: Vec<String> = pictures.iter().map(|(_, p)| p.id.to_string()).collect();
    let formats: Vec<&str> = pictures.iter().map(|(_, p)| p.format.as_str()).collect();
    let prompts: Vec<Option<String>> = pictures
        .iter()
        .map(|(_, p)| p.revised_prompt.as_deref().map(clean))
        .collect();
    let expires: Vec<Instant> = pictures
        .iter()
        .map(|(_, p)| {
            chrono::TimeDelta::from_std(p.kept_for)
                .ok()
                .and_then(|kept| now.checked_add_signed(kept))
                .unwrap_or(now)
        })
        .collect();
    sqlx::query!(
        "insert into images (generation_id, position, id, format, width, height, size_bytes, cost_nano_usd,
             upstream_cost_nano_usd, revised_prompt, expires_at, created_at)
         select *, $12 from unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::integer[], $6::integer[],
             $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::timestamptz[])",
        &generations,
        &positions,
        &ids,
        &formats as &[&str],
        &integers(|picture| picture.width),
        &integers(|picture| picture.height),
        &bigints(|picture| saturate(picture.size_bytes)),
        &bigints(|picture| picture.cost.nano()),
        &bigints(|picture| picture.upstream_cost.nano()),
        &prompts as &[Option<String>],
        &expires,
        now,
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("record images"))?;
    Ok(())
}

/// Writes the calls that were made, numbered from 1.
pub(in crate::ledger) async fn insert_attempts(
    connection: &mut PgConnection,
    settlements: &[(&Settlement, Totals)],
) -> Result<(), LedgerError> {
    let attempts: Vec<(GenerationId, i16, &Attempt)> = settlements
        .iter()
        .flat_map(|(s, _)| {
            (1_i16..)
                .zip(&s.attempts)
                .map(|(number, attempt)| (s.hold.generation, number, attempt))
        })
        .collect();
    if attempts.is_empty() {
        return Ok(());
    }
    let generations: Vec<String> = attempts.iter().map(|(id, _, _)| id.to_string()).collect();
    let numbers: Vec<i16> = attempts.iter().map(|(_, number, _)| *number).collect();
    let providers: Vec<&str> = attempts
        .iter()
        .map(|(_, _, a)| a.provider.as_str())
        .collect();
    let models: Vec<&str> = attempts
        .iter()
        .map(|(_, _, a)| a.upstream_model.as_str())
        .collect();
    let started: Vec<Instant> = attempts.iter().map(|(_, _, a)| a.started_at).collect();
    let latencies: Vec<i64> = attempts
        .iter()
        .map(|(_, _, a)| i64::try_from(a.latency.as_millis()).unwrap_or(i64::MAX))
        .collect();
    let upstream_statuses: Vec<Option<i16>> = attempts
        .iter()
        .map(|(_, _, a)| {
            a.upstream_status
                .and_then(|status| i16::try_from(status).ok())
        })
        .collect();
    let request_ids: Vec<Option<String>> = attempts
        .iter()
        .map(|(_, _, a)| a.upstream_request_id.as_deref().map(clean))
        .collect();
    let errors: Vec<Option<&str>> = attempts.iter().map(|(_, _, a)| a.error).collect();
    let images: Vec<i16> = attempts
        .iter()
        .map(|(_, _, a)| i16::from(a.images))
        .collect();
    let maybe_charged: Vec<bool> = attempts.iter().map(|(_, _, a)| a.maybe_charged).collect();
    sqlx::query!(
        "insert into attempts (generation_id, number, provider, upstream_model, started_at, latency_ms, upstream_status,
             upstream_request_id, error, images, maybe_charged)
         select * from unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[],
             $7::smallint[], $8::text[], $9::text[], $10::smallint[], $11::boolean[])",
        &generations,
        &numbers,
        &providers as &[&str],
        &models as &[&str],
        &started,
        &latencies,
        &upstream_statuses as &[Option<i16>],
        &request_ids as &[Option<String>],
        &errors as &[Option<&str>],
        &images,
        &maybe_charged,
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("record attempts"))?;
    Ok(())
}

/// The columns of the final states of generations.
#[derive(Default)]
struct Finals {
    ids: Vec<String>,
    statuses: Vec<&'static str>,
    providers: Vec<Option<String>>,
    upstream_models: Vec<Option<String>>,
    images: Vec<i16>,
    costs: Vec<i64>,
    upstream_costs: Vec<i64>,
    input_tokens: Vec<i64>,
    output_tokens: Vec<i64>,
    error_codes: Vec<Option<String>>,
    error_messages: Vec<Option<String>>,
}

impl Finals {
    fn push(&mut self, settlement: &Settlement, totals: Totals) {
        self.ids.push(settlement.hold.generation.to_string());
        self.images
            .push(i16::try_from(settlement.pictures().len()).unwrap_or(i16::MAX));
        self.costs.push(totals.captured.nano());
        self.upstream_costs.push(totals.upstream_cost.nano());
        let error = match &settlement.ending {
            Ending::Captured {
                provider,
                upstream_model,
                pictures: _,
                shortfall,
                input_tokens,
                output_tokens,
            } => {
                self.statuses.push("completed");
                self.providers.push(Some(provider.clone()));
                self.upstream_models.push(Some(upstream_model.clone()));
                self.input_tokens.push(saturate(*input_tokens));
                self.output_tokens.push(saturate(*output_tokens));
                shortfall.as_ref().map(|(code, message)| (code, message))
            }
            Ending::Released {
                error_code,
                error_message,
            } => {
                self.statuses.push("failed");
                self.providers.push(None);
                self.upstream_models.push(None);
                self.input_tokens.push(0);
                self.output_tokens.push(0);
                Some((error_code, error_message))
            }
        };
        let (code, message) = error.unzip();
        self.error_codes.push(code.map(|text| clean(text)));
        self.error_messages.push(message.map(|text| clean(text)));
    }
}

fn saturate(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
