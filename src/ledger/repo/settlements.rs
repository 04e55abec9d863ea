//! Ending holds and writing what became of them.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::{clean, decode, name};
use crate::{
    ids::{EntryId, GenerationId},
    ledger::{
        Instant,
        error::LedgerError,
        settle::{Attempt, Ending, Picture, Settlement, Totals},
    },
};

/// What the table says about a hold.
#[derive(Debug)]
pub(in crate::ledger) struct EndedHold {
    pub(in crate::ledger) id: String,
    pub(in crate::ledger) status: String,
    /// The pictures it was captured for, in the order of the answer.
    pub(in crate::ledger) images: Vec<String>,
}

/// Ends those of the holds that are open (I2) and says how many; for these, and only these, in the same
/// statement: gives back what was held, takes what was charged, also of what keys and accounts may spend, appends the
/// charges in order, brings the generations to their final state, and writes pictures and attempts. The balances are
/// locked.
///
/// This is the one place where a hold ends in a capture or a release, and the only fence that is needed: a
/// replica that was declared dead, and whose holds were swept, finds no open hold here, whatever it still
/// believes.
pub(in crate::ledger) async fn end(
    connection: &mut PgConnection,
    settlements: &[(&Settlement, Totals)],
    now: Instant,
) -> Result<usize, LedgerError> {
    let (mut endings, mut pictures, mut attempts) =
        (Endings::default(), Pictures::default(), Attempts::default());
    for (place, (settlement, totals)) in (1_i64..).zip(settlements) {
        endings.push(settlement, *totals);
        for picture in settlement.pictures() {
            pictures.push(place, settlement.hold.generation, picture, now);
        }
        for (number, attempt) in (1_i16..).zip(&settlement.attempts) {
            attempts.push(place, settlement.hold.generation, number, attempt);
        }
    }
    // Account, mode and amount are part of the condition because the balance that was locked, and that
    // the amount is given back to, is the one the caller named. A generation of an open hold is in progress; if
    // not, the count that comes back says so, and the caller undoes it all.
    // `hold_was` is 'open', which the planner must not know: it expects few open holds, and would look through all
    // those of the account, by the index that is for them, once for each hold that ends, instead of by primary key.
    let counts = sqlx::query!(
        r#"with ending as materialized (
             select *, 'open' as hold_was from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                 $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::smallint[], $14::bigint[],
                 $15::bigint[], $16::bigint[], $17::text[], $18::text[], $43::text[], $44::text[],
                 $45::text[], $46::text[], $47::smallint[])
             with ordinality as ending (generation_id, hold_id, account_id, mode, amount, hold_status, captured,
                 entry_id, generation_status, provider, upstream_model, images, upstream_cost, input_tokens,
                 output_tokens, error_code, error_message, answer, refusal, claim_key_id, claim, drafts, place)
         ), ended as (
             update holds h
             set status = ending.hold_status, captured_nano_usd = ending.captured, ended_at = $1
             from ending
             where h.generation_id = ending.generation_id and h.id = ending.hold_id and h.status = ending.hold_was
                 and h.account_id = ending.account_id and h.mode = ending.mode and h.amount_nano_usd = ending.amount
             returning ending.*, h.key_id, h.created_at as held_at
         ), moved as (
             update balances b
             set balance_nano_usd = b.balance_nano_usd - total.captured, held_nano_usd = b.held_nano_usd - total.held,
                 entries = b.entries + total.lines
             from (
                 select account_id, mode, sum(amount)::bigint as held, sum(captured)::bigint as captured,
                     count(entry_id) as lines
                 from ended group by account_id, mode
             ) as total
             where b.account_id = total.account_id and b.mode = total.mode
             returning b.account_id, b.mode, b.balance_nano_usd + total.captured as balance_before,
                 b.entries - total.lines as entries_before
         ), returned as (
             update spending s
             set day_nano_usd = greatest(s.day_nano_usd - back.of_day, 0),
                 month_nano_usd = greatest(s.month_nano_usd - back.of_month, 0)
             from (
                 select kept.subject,
                     sum(case when (ended.held_at at time zone 'UTC')::date = kept.day
                         then ended.amount - ended.captured else 0 end)::bigint as of_day,
                     sum(case when date_trunc('month', ended.held_at at time zone 'UTC')::date = kept.month
                         then ended.amount - ended.captured else 0 end)::bigint as of_month
                 from ended
                     cross join lateral (values (ended.key_id), (ended.account_id || ' ' || ended.mode)) as who (subject)
                     join spending kept on kept.subject = who.subject
                 group by kept.subject
             ) as back
             where s.subject = back.subject
         ), charged as (
             insert into ledger_entries (account_id, mode, sequence, id, kind, amount_nano_usd,
                 balance_after_nano_usd, generation_id, created_at)
             select account_id, mode, moved.entries_before + row_number() over line, ended.entry_id, 'charge',
                 -ended.captured, (moved.balance_before - sum(ended.captured) over line)::bigint,
                 ended.generation_id, $1
             from ended join moved using (account_id, mode)
             where ended.entry_id is not null
             window line as (partition by account_id, mode order by ended.place)
         ), finished as (
             update generations g
             set status = ended.generation_status, finished_at = $1, provider = ended.provider,
                 upstream_model = ended.upstream_model, images_delivered = ended.images,
                 drafts_charged = ended.drafts,
                 cost_nano_usd = ended.captured, upstream_cost_nano_usd = ended.upstream_cost,
                 input_tokens = ended.input_tokens, output_tokens = ended.output_tokens,
                 error_code = ended.error_code, error_message = ended.error_message,
                 answer = ended.answer::jsonb
             from ended where g.id = ended.generation_id and g.status = 'in_progress'
             returning 1
         ), refused as (
             update idempotency_keys k set refusal = ended.refusal::jsonb
             from ended
             where k.key_id = ended.claim_key_id and k.idempotency_key = ended.claim
                 and k.generation_id = ended.generation_id
         ), picture as (
             insert into images (generation_id, position, id, format, width, height, size_bytes, cost_nano_usd,
                 upstream_cost_nano_usd, revised_prompt, expires_at, created_at)
             select generation_id, position, id, format, width, height, size_bytes, cost, upstream_cost,
                 revised_prompt, expires_at, $1
             from unnest($19::bigint[], $20::text[], $21::smallint[], $22::text[], $23::text[], $24::integer[],
                 $25::integer[], $26::bigint[], $27::bigint[], $28::bigint[], $29::text[], $30::timestamptz[])
             as picture (place, generation_id, position, id, format, width, height, size_bytes, cost, upstream_cost,
                 revised_prompt, expires_at)
             where place = any (array (select place from ended))
         ), attempt as (
             insert into attempts (generation_id, number, provider, upstream_model, started_at, latency_ms,
                 upstream_status, upstream_request_id, error, images, maybe_charged)
             select generation_id, number, provider, upstream_model, started_at, latency_ms, upstream_status,
                 upstream_request_id, error, images, maybe_charged
             from unnest($31::bigint[], $32::text[], $33::smallint[], $34::text[], $35::text[], $36::timestamptz[],
                 $37::bigint[], $38::smallint[], $39::text[], $40::text[], $41::smallint[], $42::boolean[])
             as attempt (place, generation_id, number, provider, upstream_model, started_at, latency_ms,
                 upstream_status, upstream_request_id, error, images, maybe_charged)
             where place = any (array (select place from ended))
         )
         select (select count(*) from ended) as "ended!", (select count(*) from finished) as "finished!""#,
        now,
        &endings.generations,
        &endings.holds,
        &endings.accounts,
        &endings.modes as &[&str],
        &endings.amounts,
        &endings.hold_statuses as &[&str],
        &endings.captured,
        &endings.entries as &[Option<String>],
        &endings.generation_statuses as &[&str],
        &endings.providers as &[Option<&str>],
        &endings.upstream_models as &[Option<&str>],
        &endings.images,
        &endings.upstream_costs,
        &endings.input_tokens,
        &endings.output_tokens,
        &endings.error_codes as &[Option<String>],
        &endings.error_messages as &[Option<String>],
        &pictures.places,
        &pictures.generations,
        &pictures.positions,
        &pictures.ids,
        &pictures.formats as &[&str],
        &pictures.widths,
        &pictures.heights,
        &pictures.sizes,
        &pictures.costs,
        &pictures.upstream_costs,
        &pictures.prompts as &[Option<String>],
        &pictures.expiries,
        &attempts.places,
        &attempts.generations,
        &attempts.numbers,
        &attempts.providers as &[&str],
        &attempts.upstream_models as &[&str],
        &attempts.started,
        &attempts.latencies_ms,
        &attempts.upstream_statuses as &[Option<i16>],
        &attempts.request_ids as &[Option<String>],
        &attempts.errors as &[Option<&str>],
        &attempts.images,
        &attempts.maybe_charged,
        &endings.answers as &[Option<String>],
        &endings.refusals as &[Option<String>],
        &endings.claim_keys as &[Option<String>],
        &endings.claims as &[Option<String>],
        &endings.drafts,
    )
    .fetch_one(connection)
    .await
    .map_err(LedgerError::during("end holds"))?;
    if counts.ended != counts.finished {
        return Err(LedgerError::Inconsistent(format!(
            "{} holds were open, but only {} of their generations in progress",
            counts.ended, counts.finished
        )));
    }
    usize::try_from(counts.ended)
        .map_err(|_| LedgerError::Inconsistent(format!("{} holds ended", counts.ended)))
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

/// The columns of settlements, one row each.
#[derive(Default)]
struct Endings<'a> {
    generations: Vec<String>,
    holds: Vec<String>,
    accounts: Vec<String>,
    modes: Vec<&'static str>,
    amounts: Vec<i64>,
    hold_statuses: Vec<&'static str>,
    captured: Vec<i64>,
    /// Only captures are lines of the ledger.
    entries: Vec<Option<String>>,
    generation_statuses: Vec<&'static str>,
    providers: Vec<Option<&'a str>>,
    upstream_models: Vec<Option<&'a str>>,
    images: Vec<i16>,
    upstream_costs: Vec<i64>,
    input_tokens: Vec<i64>,
    output_tokens: Vec<i64>,
    error_codes: Vec<Option<String>>,
    error_messages: Vec<Option<String>>,
    answers: Vec<Option<String>>,
    refusals: Vec<Option<String>>,
    /// Whose name the refusal is kept under.
    claim_keys: Vec<Option<String>>,
    claims: Vec<Option<String>>,
    /// Drafts that were charged without a picture.
    drafts: Vec<i16>,
}

impl<'a> Endings<'a> {
    fn push(&mut self, settlement: &'a Settlement, totals: Totals) {
        let hold = &settlement.hold;
        self.generations.push(hold.generation.to_string());
        self.holds.push(hold.id.to_string());
        self.accounts.push(hold.account.to_string());
        self.modes.push(hold.mode.as_str());
        self.amounts.push(hold.amount.nano());
        self.captured.push(totals.captured.nano());
        self.upstream_costs.push(totals.upstream_cost.nano());
        self.images
            .push(i16::try_from(settlement.pictures().len()).unwrap_or(i16::MAX));
        let error = match &settlement.ending {
            Ending::Captured {
                provider,
                upstream_model,
                pictures: _,
                shortfall,
                input_tokens,
                output_tokens,
            } => {
                self.hold_statuses.push("captured");
                self.generation_statuses.push("completed");
                self.entries.push(Some(EntryId::new().to_string()));
                self.providers.push(Some(provider));
                self.upstream_models.push(Some(upstream_model));
                self.input_tokens.push(saturate(*input_tokens));
                self.output_tokens.push(saturate(*output_tokens));
                self.drafts.push(0);
                shortfall.as_ref().map(|(code, message)| (code, message))
            }
            Ending::OnlyDrafts {
                drafts,
                error_code,
                error_message,
            } => {
                self.hold_statuses.push("captured");
                self.generation_statuses.push("failed");
                self.entries.push(Some(EntryId::new().to_string()));
                self.providers.push(Some(&drafts.provider));
                self.upstream_models.push(Some(&drafts.upstream_model));
                self.input_tokens.push(0);
                self.output_tokens.push(saturate(drafts.output_tokens));
                self.drafts.push(i16::from(drafts.count));
                Some((error_code, error_message))
            }
            Ending::Released {
                error_code,
                error_message,
            } => {
                self.hold_statuses.push("released");
                self.generation_statuses.push("failed");
                self.entries.push(None);
                self.providers.push(None);
                self.upstream_models.push(None);
                self.input_tokens.push(0);
                self.output_tokens.push(0);
                self.drafts.push(0);
                Some((error_code, error_message))
            }
        };
        let answer = settlement.replay.answer.as_deref().map(json);
        let claim = settlement.replay.claim.as_ref();
        let (answer, refusal, claim) = match &settlement.ending {
            Ending::Captured { .. } => (answer, None, None),
            Ending::OnlyDrafts { .. } | Ending::Released { .. } => {
                let claim = claim.filter(|_| answer.is_some());
                (None, answer, claim)
            }
        };
        self.answers.push(answer);
        self.refusals.push(refusal);
        let (key, text) = claim
            .map(|(key, text)| (key.to_string(), name(text)))
            .unzip();
        self.claim_keys.push(key);
        self.claims.push(text);
        let (code, message) = error.unzip();
        self.error_codes.push(code.map(|text| clean(text)));
        self.error_messages.push(message.map(|text| clean(text)));
    }
}

/// The columns of pictures, each with the place of its settlement.
#[derive(Default)]
struct Pictures<'a> {
    places: Vec<i64>,
    generations: Vec<String>,
    positions: Vec<i16>,
    ids: Vec<String>,
    formats: Vec<&'a str>,
    widths: Vec<i32>,
    heights: Vec<i32>,
    sizes: Vec<i64>,
    costs: Vec<i64>,
    upstream_costs: Vec<i64>,
    prompts: Vec<Option<String>>,
    expiries: Vec<Instant>,
}

impl<'a> Pictures<'a> {
    fn push(&mut self, place: i64, generation: GenerationId, picture: &'a Picture, now: Instant) {
        let pixels = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        self.places.push(place);
        self.generations.push(generation.to_string());
        self.positions.push(i16::from(picture.index));
        self.ids.push(picture.id.to_string());
        self.formats.push(&picture.format);
        self.widths.push(pixels(picture.width));
        self.heights.push(pixels(picture.height));
        self.sizes.push(saturate(picture.size_bytes));
        self.costs.push(picture.cost.nano());
        self.upstream_costs.push(picture.upstream_cost.nano());
        self.prompts
            .push(picture.revised_prompt.as_deref().map(clean));
        let kept = chrono::TimeDelta::from_std(picture.kept_for).ok();
        self.expiries.push(
            kept.and_then(|kept| now.checked_add_signed(kept))
                .unwrap_or(now),
        );
    }
}

/// The columns of upstream calls, each with the place of its settlement.
#[derive(Default)]
struct Attempts<'a> {
    places: Vec<i64>,
    generations: Vec<String>,
    numbers: Vec<i16>,
    providers: Vec<&'a str>,
    upstream_models: Vec<&'a str>,
    started: Vec<Instant>,
    latencies_ms: Vec<i64>,
    upstream_statuses: Vec<Option<i16>>,
    request_ids: Vec<Option<String>>,
    errors: Vec<Option<&'static str>>,
    images: Vec<i16>,
    maybe_charged: Vec<bool>,
}

impl<'a> Attempts<'a> {
    fn push(&mut self, place: i64, generation: GenerationId, number: i16, attempt: &'a Attempt) {
        let status = attempt.upstream_status;
        self.places.push(place);
        self.generations.push(generation.to_string());
        self.numbers.push(number);
        self.providers.push(&attempt.provider);
        self.upstream_models.push(&attempt.upstream_model);
        self.started.push(attempt.started_at);
        self.latencies_ms
            .push(i64::try_from(attempt.latency.as_millis()).unwrap_or(i64::MAX));
        self.upstream_statuses
            .push(status.and_then(|status| i16::try_from(status).ok()));
        self.request_ids
            .push(attempt.upstream_request_id.as_deref().map(clean));
        self.errors.push(attempt.error);
        self.images.push(i16::from(attempt.images));
        self.maybe_charged.push(attempt.maybe_charged);
    }
}

/// JSON whose texts have no NUL, which `jsonb` cannot keep even when it is escaped.
pub(super) fn json(text: &str) -> String {
    if text.contains("\\u0000") || text.contains('\0') {
        // Told by the parser, because the backslash may be an escaped one.
        let parsed = serde_json::from_str::<serde_json::Value>(text).map(without_nul);
        return parsed.map_or_else(|_| "null".to_owned(), |value| value.to_string());
    }
    text.to_owned()
}

fn without_nul(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (clean(&name), without_nul(value)))
            .collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

fn saturate(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
