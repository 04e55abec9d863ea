//! Summing up usage.

use sqlx::PgConnection;

use super::{clean, decode};
use crate::{
    keys::Mode,
    ledger::{
        error::LedgerError,
        usage::{UsageFilter, UsageGroup, UsageRow},
    },
    money::NanoUsd,
};

/// One statement for every grouping and filter: it is not a hot one, and `PostgreSQL` plans it anew for the
/// filters that are set. Costs are added without a bound and shown up to what can be counted: what a provider
/// said of one picture must not hide everybody else's.
pub(in crate::ledger) async fn sum(
    connection: &mut PgConnection,
    group: UsageGroup,
    filter: &UsageFilter,
) -> Result<Vec<UsageRow>, LedgerError> {
    sqlx::query!(
        r#"with summed as (
               select case $1::text
                       when 'day' then to_char(created_at at time zone 'UTC', 'YYYY-MM-DD')
                       when 'model' then model
                       when 'provider' then provider
                       when 'key' then key_id
                       when 'account' then account_id
                   end as name,
                   mode, count(*) as requests, sum(images_delivered) as images,
                   least(sum(cost_nano_usd), 9223372036854775807)::bigint as cost,
                   least(sum(upstream_cost_nano_usd), 9223372036854775807)::bigint as upstream_cost
               from generations
               where ($2::text is null or account_id = $2) and ($3::text is null or key_id = $3)
                   and ($4::text is null or model = $4) and ($5::text is null or mode = $5)
                   and ($6::timestamptz is null or created_at >= $6) and ($7::timestamptz is null or created_at < $7)
               group by 1, 2
           )
           select s.name as "group", s.mode as "mode!", s.requests as "requests!", s.images as "images!",
               s.cost as "cost!", s.upstream_cost as "upstream_cost!",
               case $1::text
                   when 'key' then (select k.name from api_keys k where k.id = s.name)
                   when 'account' then (select a.name from accounts a where a.id = s.name)
               end as name
           from summed s order by s.name, s.mode"#,
        group.as_str(),
        filter.account.map(|account| account.to_string()),
        filter.key.map(|key| key.to_string()),
        filter.model.as_deref().map(clean),
        filter.mode.map(Mode::as_str),
        filter.since,
        filter.until,
    )
    .fetch_all(connection)
    .await
    .map_err(LedgerError::during("sum up usage"))?
    .into_iter()
    .map(|row| {
        Ok(UsageRow {
            group: row.group,
            name: row.name,
            mode: decode("generations.mode", &row.mode)?,
            requests: row.requests.unsigned_abs(),
            images: row.images.unsigned_abs(),
            cost: NanoUsd::from_nano(row.cost),
            upstream_cost: NanoUsd::from_nano(row.upstream_cost),
        })
    })
    .collect()
}
