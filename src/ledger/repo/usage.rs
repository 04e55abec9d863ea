//! Summing up usage.

use chrono::NaiveDate;
use sqlx::PgConnection;

use super::{clean, days, decode};
use crate::{
    keys::Mode,
    ledger::{
        days::{Spans, midnight},
        error::LedgerError,
        usage::{UsageFilter, UsageGroup, UsageSum},
    },
    money::NanoUsd,
};

/// One statement for every grouping and filter: it is not a hot one, and `PostgreSQL` plans it anew for the
/// filters that are set. Days that are summed up are read as such. Of a day that was pruned only the whole is
/// known: a stretch that begins or ends within it does not count what is gone. Costs are added without a bound and shown up to what can be counted: what a provider
/// said of one picture must not hide everybody else's.
pub(in crate::ledger) async fn sum(
    connection: &mut PgConnection,
    groups: &[UsageGroup],
    filter: &UsageFilter,
    limit: Option<u32>,
) -> Result<Vec<UsageSum>, LedgerError> {
    let by = |group| groups.contains(&group);
    let summed_until = days::summed_until(connection).await?;
    let spans = Spans::of(filter.since, filter.until, summed_until);
    // The calendar of the database is shorter than ours.
    let beginning = midnight(NaiveDate::default());
    let end = midnight(NaiveDate::from_ymd_opt(9999, 1, 1).unwrap_or_default());
    let (days_since, days_until) = spans.days.unzip();
    let (before_since, before_until) = spans.before.unzip();
    let (after_since, after_until) = spans.after.unzip();
    sqlx::query!(
        r#"with used as (
               select day, account_id, mode, key_id, model, nullif(provider, '') as provider, requests, abandoned,
                   images, cost_nano_usd, upstream_cost_nano_usd
               from usage_days where day >= $10 and day < $11
               union all
               select (created_at at time zone 'UTC')::date, account_id, mode, key_id, model, provider, 1,
                   (status = 'abandoned')::int, images_delivered, cost_nano_usd, upstream_cost_nano_usd
               from generations where created_at >= $12 and created_at < $13
               union all
               select (created_at at time zone 'UTC')::date, account_id, mode, key_id, model, provider, 1,
                   (status = 'abandoned')::int, images_delivered, cost_nano_usd, upstream_cost_nano_usd
               from generations where created_at >= $14 and created_at < $15
           ), summed as (
               select case when $1 then to_char(day, 'YYYY-MM-DD') end as day,
                   case when $2 then model end as model,
                   case when $3 then provider end as provider,
                   case when $4 then key_id end as key,
                   case when $5 then account_id end as account,
                   mode, sum(requests)::bigint as requests, sum(abandoned)::bigint as abandoned,
                   sum(images)::bigint as images,
                   least(sum(cost_nano_usd), 9223372036854775807)::bigint as cost,
                   least(sum(upstream_cost_nano_usd), 9223372036854775807)::bigint as upstream_cost
               from used
               where ($6::text is null or account_id = $6) and ($7::text is null or key_id = $7)
                   and ($8::text is null or model = $8) and ($9::text is null or mode = $9)
                   and ($16::text is null or provider = $16)
               group by 1, 2, 3, 4, 5, 6
               limit $17
           )
           select s.day, s.model, s.provider, s.key, s.account, s.mode as "mode!", s.requests as "requests!",
               s.abandoned as "abandoned!", s.images as "images!", s.cost as "cost!", s.upstream_cost as "upstream_cost!",
               (select k.name from api_keys k where k.id = s.key) as key_name,
               (select a.name from accounts a where a.id = s.account) as account_name
           from summed s"#,
        by(UsageGroup::Day),
        by(UsageGroup::Model),
        by(UsageGroup::Provider),
        by(UsageGroup::Key),
        by(UsageGroup::Account),
        filter.account.map(|account| account.to_string()),
        filter.key.map(|key| key.to_string()),
        filter.model.as_deref().map(clean),
        filter.mode.map(Mode::as_str),
        days_since.map(|day| day.max(beginning.date_naive())),
        days_until,
        before_since.map(|since| since.max(beginning)),
        before_until,
        after_since.map(|since| since.max(beginning)),
        after_until.map(|until| until.min(end)),
        filter.provider.as_deref().map(clean),
        limit.map(i64::from),
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("sum up usage"))?
    .into_iter()
    .map(|row| {
        Ok(UsageSum {
            day: row.day,
            model: row.model,
            provider: row.provider,
            key: row.key,
            key_name: row.key_name,
            account: row.account,
            account_name: row.account_name,
            mode: decode("generations.mode", &row.mode)?,
            requests: row.requests.unsigned_abs(),
            abandoned: row.abandoned.unsigned_abs(),
            images: row.images.unsigned_abs(),
            cost: NanoUsd::from_nano(row.cost),
            upstream_cost: NanoUsd::from_nano(row.upstream_cost),
        })
    })
    .collect()
}
