//! What keys and accounts with limits did lately. All of it is written under the locks of their balances, and read under
//! them too, but where a hold is only foreseen.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::{
    ids::KeyId,
    keys::Mode,
    ledger::{
        Instant,
        error::LedgerError,
        hold::Unknown,
        limits::{Count, Counts, SecondCount, Spent, Subject, WINDOW_SECONDS, Wanted},
    },
    money::NanoUsd,
};

/// Reads, in one statement, what is wanted of each subject: what it did within the last minute, what it has in
/// flight, what it spent; and what time it is, unless that is told.
pub(in crate::ledger) async fn count(
    connection: &mut PgConnection,
    wanted: &BTreeMap<Subject, Wanted>,
    told: Option<Instant>,
    unknown: Unknown,
) -> Result<Counts, LedgerError> {
    let subjects = Subjects::of(wanted.keys());
    let in_flight: Vec<bool> = wanted.values().map(|wanted| wanted.in_flight).collect();
    let rows = sqlx::query!(
        r#"select t.now as "now!", recent.seconds as "seconds: Vec<i64>", recent.requests as "requests: Vec<i32>",
               recent.images as "images: Vec<i32>",
               case
                   when not w.in_flight then 0
                   when w.key_id is null then (
                       select count(*) from holds h
                       where h.account_id = w.account_id and h.mode = w.mode and h.status = 'open'
                   )
                   else (
                       select count(*) from holds h
                       where h.account_id = w.account_id and h.mode = w.mode and h.key_id = w.key_id
                           and h.status = 'open'
                   )
               end as "in_flight!",
               s.day as "day?", s.day_nano_usd as "day_nano_usd?", s.month_nano_usd as "month_nano_usd?"
           from (select coalesce($5::timestamptz, clock_timestamp()) as now) as t
           cross join unnest($1::text[], $2::text[], $3::text[], $4::boolean[]) with ordinality
               as w (account_id, mode, key_id, in_flight, place)
           cross join lateral (
               select array_agg(second order by second) as seconds, array_agg(requests order by second) as requests,
                   array_agg(images order by second) as images
               from (
                   select second, requests, images from key_seconds
                   where key_id = w.key_id and second > floor(extract(epoch from t.now))::bigint - $6
                   union all
                   select second, requests, images from account_seconds
                   where w.key_id is null and account_id = w.account_id and mode = w.mode
                       and second > floor(extract(epoch from t.now))::bigint - $6
               ) as counted
           ) as recent
           left join spending s on s.subject = coalesce(w.key_id, w.account_id || ' ' || w.mode)
           order by w.place"#,
        &subjects.accounts,
        &subjects.modes as &[&str],
        &subjects.keys as &[Option<String>],
        &in_flight,
        told,
        WINDOW_SECONDS,
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(LedgerError::during("count for limits"))?;
    let mut counts = Counts::none(told.unwrap_or_default());
    if let Some(first) = rows.first() {
        counts.now = first.now;
    }
    for ((subject, wanted), row) in wanted.iter().zip(rows) {
        let mut spent = match (row.day, row.day_nano_usd, row.month_nano_usd) {
            (Some(on), Some(day), Some(month)) => Some(Spent {
                on,
                day: NanoUsd::from_nano(day),
                month: NanoUsd::from_nano(month),
            }),
            _ => None,
        };
        if spent.is_none() && wanted.spending && unknown == Unknown::IsMade {
            spent = Some(begin_spending(connection, *subject, counts.now).await?);
        }
        let seconds = row.seconds.unwrap_or_default().into_iter();
        let requests = row.requests.unwrap_or_default();
        let images = row.images.unwrap_or_default();
        let before = seconds
            .zip(requests.into_iter().zip(images))
            .map(|(second, (requests, images))| SecondCount {
                second,
                requests: requests.unsigned_abs(),
                images: images.unsigned_abs(),
            })
            .collect();
        let in_flight = u32::try_from(row.in_flight).unwrap_or(u32::MAX);
        let count = Count::new(counts.now, before, in_flight, spent);
        counts.of.insert(*subject, count);
    }
    Ok(counts)
}

/// Adds what a batch counted per minute, and forgets what is older than that.
pub(in crate::ledger) async fn write(
    connection: &mut PgConnection,
    counts: &Counts,
    wanted: &BTreeMap<Subject, Wanted>,
) -> Result<(), LedgerError> {
    let added: Vec<(&Subject, &SecondCount)> = counts
        .of
        .iter()
        .filter(|(subject, count)| {
            let is_wanted = wanted.get(subject).is_some_and(|wanted| wanted.per_minute);
            is_wanted && count.added.requests > 0
        })
        .map(|(subject, count)| (subject, &count.added))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let subjects = Subjects::of(added.iter().map(|(subject, _)| *subject));
    let column = |of: fn(&SecondCount) -> u32| -> Vec<i32> {
        let counted = added.iter().map(|(_, added)| of(added));
        counted
            .map(|count| i32::try_from(count).unwrap_or(i32::MAX))
            .collect()
    };
    let now = counts.now.timestamp();
    sqlx::query!(
        "with added as (
             select * from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[])
                 as added (account_id, mode, key_id, requests, images)
         ), old_of_keys as (
             delete from key_seconds k using added where k.key_id = added.key_id and k.second <= $7
         ), old_of_accounts as (
             delete from account_seconds a using added
             where added.key_id is null and a.account_id = added.account_id and a.mode = added.mode and a.second <= $7
         ), of_keys as (
             insert into key_seconds as counted (key_id, second, requests, images)
             select key_id, $6, requests, images from added where key_id is not null
             on conflict (key_id, second) do update
             set requests = counted.requests + excluded.requests, images = counted.images + excluded.images
         )
         insert into account_seconds as counted (account_id, mode, second, requests, images)
         select account_id, mode, $6, requests, images from added where key_id is null
         on conflict (account_id, mode, second) do update
         set requests = counted.requests + excluded.requests, images = counted.images + excluded.images",
        &subjects.accounts,
        &subjects.modes as &[&str],
        &subjects.keys as &[Option<String>],
        &column(|added| added.requests),
        &column(|added| added.images),
        now,
        now.saturating_sub(WINDOW_SECONDS),
    )
    .execute(connection)
    .await
    .map_err(LedgerError::during("count the requests of a minute"))?;
    Ok(())
}

/// Begins to keep what a subject spends, with what it has spent this month: once, when its first limit is met. Its
/// balance is locked, so nothing of it is placed or ends meanwhile.
async fn begin_spending(
    connection: &mut PgConnection,
    subject: Subject,
    now: Instant,
) -> Result<Spent, LedgerError> {
    // Days that are summed up are read as their sums, so this is quick also late in a busy month. Of the others: ids are
    // made by the clocks of replicas, so the first of a day may be a little older by its id.
    let row = sqlx::query!(
        r#"with today as (
             select (($5::timestamptz) at time zone 'UTC')::date as day,
                 date_trunc('month', ($5::timestamptz) at time zone 'UTC')::date as month,
                 (select summed_until from usage_horizon) as summed_until
         ), past as (
             select (g.created_at at time zone 'UTC')::date as day, g.cost_nano_usd as amount
             from generations g
             where g.account_id = $2 and g.mode = $3 and ($4::text is null or g.key_id = $4)
                 and g.status <> 'in_progress'
                 and g.created_at >= (select summed_until from today)::timestamp at time zone 'UTC'
                 and g.id >= (
                     select 'gen_' || lpad(to_hex((extract(
                         epoch from greatest(today.month, today.summed_until)::timestamp at time zone 'UTC' - interval '1 day'
                     ) * 1000)::bigint), 12, '0') from today
                 )
             union all
             select u.day, u.cost_nano_usd
             from usage_days u, today
             where u.account_id = $2 and u.mode = $3 and ($4::text is null or u.key_id = $4)
                 and u.day >= today.month and u.day < today.summed_until
             union all
             select (h.created_at at time zone 'UTC')::date, h.amount_nano_usd
             from holds h
             where h.account_id = $2 and h.mode = $3 and ($4::text is null or h.key_id = $4) and h.status = 'open'
         )
         insert into spending (subject, day, day_nano_usd, month, month_nano_usd)
         select $1, today.day, coalesce(sum(past.amount) filter (where past.day = today.day), 0)::bigint, today.month,
             coalesce(sum(past.amount) filter (where past.day >= today.month), 0)::bigint
         from today left join past on true
         group by today.day, today.month
         returning day, day_nano_usd, month_nano_usd"#,
        subject.to_string(),
        subject.account.to_string(),
        subject.mode.as_str(),
        subject.key.map(|key| key.to_string()),
        now,
    )
    .fetch_one(connection)
    .await
    .map_err(LedgerError::during("sum up what was spent"))?;
    Ok(Spent {
        on: row.day,
        day: NanoUsd::from_nano(row.day_nano_usd),
        month: NanoUsd::from_nano(row.month_nano_usd),
    })
}

/// The columns of subjects, one row each.
struct Subjects {
    accounts: Vec<String>,
    modes: Vec<&'static str>,
    keys: Vec<Option<String>>,
}

impl Subjects {
    fn of<'a>(subjects: impl Iterator<Item = &'a Subject>) -> Self {
        let mut columns = Self {
            accounts: Vec::new(),
            modes: Vec::new(),
            keys: Vec::new(),
        };
        for subject in subjects {
            columns.accounts.push(subject.account.to_string());
            columns.modes.push(Mode::as_str(subject.mode));
            columns
                .keys
                .push(subject.key.as_ref().map(KeyId::to_string));
        }
        columns
    }
}
