//! What `easel reconcile` checks, one statement a check. Each finds the rows that do not agree.

use sqlx::{PgConnection, PgPool};

use crate::ledger::{
    error::LedgerError,
    reconcile::{Discrepancy, Reconciliation},
};

/// A finding, as every check returns it.
struct Finding {
    subject: String,
    found: String,
}

/// Runs every check on this connection, whose transaction is one snapshot.
pub(in crate::ledger) async fn check(
    connection: &mut PgConnection,
) -> Result<Vec<Discrepancy>, LedgerError> {
    let mut all = Vec::new();
    let mut report = |check: &'static str, findings: Result<Vec<Finding>, sqlx::Error>| {
        let findings = findings.map_err(LedgerError::during("reconcile the books"))?;
        all.extend(findings.into_iter().map(|finding| Discrepancy {
            check,
            subject: finding.subject,
            found: finding.found,
        }));
        Ok::<(), LedgerError>(())
    };
    report(
        "a balance is the sum of its entries",
        balances(connection).await,
    )?;
    report("held is the sum of the open holds", held(connection).await)?;
    report(
        "each entry follows from the one before",
        chain(connection).await,
    )?;
    report(
        "a captured hold has one charge, the sum of its images or that of its drafts",
        captures(connection).await,
    )?;
    report("a charge has a captured hold", charges(connection).await)?;
    report("an image belongs to a capture", images(connection).await)?;
    report(
        "a generation and its hold are in the same state",
        states(connection).await,
    )?;
    report(
        "a day is the sum of its generations",
        days(connection).await,
    )?;
    report("what was used is what was charged", usage(connection).await)?;
    report(
        "spending is what holds of its day and month took",
        spending(connection).await,
    )?;
    Ok(all)
}

/// Writes down that the books disagree in so many places now.
pub(in crate::ledger) async fn remember(
    pool: &PgPool,
    disagreements: usize,
) -> Result<(), LedgerError> {
    sqlx::query!(
        "insert into reconciliations (finished_at, disagreements) values (clock_timestamp(), $1)
         on conflict (only_row) do update
             set finished_at = excluded.finished_at, disagreements = excluded.disagreements",
        i64::try_from(disagreements).unwrap_or(i64::MAX),
    )
    .execute(pool)
    .await
    .map_err(LedgerError::during("remember what reconciling found"))?;
    Ok(())
}

pub(in crate::ledger) async fn last(pool: &PgPool) -> Result<Option<Reconciliation>, LedgerError> {
    let row = sqlx::query!("select finished_at, disagreements from reconciliations")
        .fetch_optional(pool)
        .await
        .map_err(LedgerError::during("read what reconciling found"))?;
    Ok(row.map(|row| Reconciliation {
        finished_at: row.finished_at,
        disagreements: row.disagreements.unsigned_abs(),
    }))
}

async fn balances(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select b.account_id || ' ' || b.mode as "subject!",
               format('balance %s USD, entries add up to %s USD; %s entries counted, %s there, the last is number %s',
                   trim_scale(usd(b.balance_nano_usd)), trim_scale(coalesce(e.total, 0) / 1000000000), b.entries,
                   coalesce(e.lines, 0), coalesce(e.last, 0)) as "found!"
           from balances b
           left join (
               select account_id, mode, sum(amount_nano_usd) as total, sum(lines) as lines, max(sequence) as last
               from ledger_entries group by account_id, mode
           ) e on e.account_id = b.account_id and e.mode = b.mode
           where b.balance_nano_usd <> coalesce(e.total, 0) or b.entries <> coalesce(e.lines, 0)
               or b.entries <> coalesce(e.last, 0)
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

async fn held(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select b.account_id || ' ' || b.mode as "subject!",
               format('%s USD held, open holds add up to %s USD, balance %s USD', trim_scale(usd(b.held_nano_usd)),
                   trim_scale(coalesce(h.total, 0) / 1000000000), trim_scale(usd(b.balance_nano_usd))) as "found!"
           from balances b
           left join (
               select account_id, mode, sum(amount_nano_usd) as total from holds where status = 'open'
               group by account_id, mode
           ) h on h.account_id = b.account_id and h.mode = b.mode
           where b.held_nano_usd <> coalesce(h.total, 0) or b.held_nano_usd < 0
               or b.balance_nano_usd < b.held_nano_usd
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

async fn chain(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select account_id || ' ' || mode || ' number ' || sequence as "subject!",
               format('%s USD after an entry of %s USD on %s USD; the number before is %s',
                   trim_scale(usd(balance_after_nano_usd)), trim_scale(usd(amount_nano_usd)),
                   trim_scale(usd(balance_before)), number_before) as "found!"
           from (
               select account_id, mode, sequence, lines, amount_nano_usd, balance_after_nano_usd,
                   lag(balance_after_nano_usd, 1, 0::bigint) over entries as balance_before,
                   lag(sequence, 1, 0::bigint) over entries as number_before
               from ledger_entries window entries as (partition by account_id, mode order by sequence)
           ) line
           where balance_after_nano_usd <> balance_before + amount_nano_usd or sequence <> number_before + lines
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

async fn captures(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select h.generation_id as "subject!",
               format('captured %s USD, charged %s USD, the generation says %s USD for %s images and %s drafts, its %s images %s USD',
                   trim_scale(usd(h.captured_nano_usd)),
                   coalesce(trim_scale(usd(-e.amount_nano_usd))::text, 'no'),
                   trim_scale(usd(g.cost_nano_usd)), g.images_delivered, g.drafts_charged,
                   coalesce(i.images, 0), trim_scale(coalesce(i.cost, 0) / 1000000000)) as "found!"
           from holds h
           join generations g on g.id = h.generation_id
           left join ledger_entries e on e.generation_id = h.generation_id
               and e.account_id = h.account_id and e.mode = h.mode and e.kind = 'charge'
           left join (
               select generation_id, count(*) as images, sum(cost_nano_usd) as cost,
                   sum(upstream_cost_nano_usd) as upstream_cost
               from images group by generation_id
           ) i on i.generation_id = h.generation_id
           where h.status = 'captured' and (
               e.generation_id is null or -e.amount_nano_usd <> h.captured_nano_usd
               or h.captured_nano_usd > h.amount_nano_usd
               or g.cost_nano_usd <> h.captured_nano_usd
               or case when g.drafts_charged > 0 then i.generation_id is not null or g.images_delivered <> 0
                   else i.generation_id is null or i.cost <> h.captured_nano_usd
                       or g.images_delivered <> i.images or g.upstream_cost_nano_usd <> i.upstream_cost end
           )
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

async fn charges(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select e.account_id || ' ' || e.mode || ' number ' || e.sequence as "subject!",
               format('charges %s, whose hold is %s', e.generation_id, coalesce(h.status, 'missing')) as "found!"
           from ledger_entries e left join holds h on h.generation_id = e.generation_id
           where e.kind = 'charge' and h.status is distinct from 'captured'
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

async fn images(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select i.id as "subject!",
               format('of %s, whose hold is %s', i.generation_id, coalesce(h.status, 'missing')) as "found!"
           from images i left join holds h on h.generation_id = i.generation_id
           where h.status is distinct from 'captured'
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

async fn states(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select g.id as "subject!",
               format('the generation is %s, the hold %s', g.status, coalesce(h.status, 'missing'))
                   || case when (h.account_id, h.mode, h.key_id) = (g.account_id, g.mode, g.key_id) then ''
                       else ', of another account, mode or key' end as "found!"
           from generations g left join holds h on h.generation_id = g.id
           where h.generation_id is null
               or (h.account_id, h.mode, h.key_id) <> (g.account_id, g.mode, g.key_id)
               or g.status <> case h.status
                   when 'open' then 'in_progress'
                   when 'captured' then case when g.drafts_charged > 0 then 'failed' else 'completed' end
                   when 'released' then 'failed' else 'abandoned' end
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

/// Days that were summed up and of which nothing was pruned.
async fn days(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"with horizon as (
               select summed_until, pruned_until,
                   pruned_until::timestamp at time zone 'UTC' as since,
                   summed_until::timestamp at time zone 'UTC' as until
               from usage_horizon
           ), summed as (
               select day, account_id, mode, key_id, model, provider, requests, abandoned, images, cost_nano_usd as cost,
                   upstream_cost_nano_usd as upstream_cost
               from usage_days, horizon where day >= pruned_until
           ), counted as (
               select (created_at at time zone 'UTC')::date as day, account_id, mode, key_id, model,
                   coalesce(provider, '') as provider, count(*) as requests,
                   count(*) filter (where status = 'abandoned') as abandoned, sum(images_delivered) as images,
                   sum(cost_nano_usd) as cost, sum(upstream_cost_nano_usd) as upstream_cost
               from generations, horizon where created_at >= since and created_at < until
               group by 1, 2, 3, 4, 5, 6
           )
           select concat_ws(' ', day, account_id, mode, key_id, model, provider) as "subject!",
               format('%s requests, %s images, %s USD, %s USD upstream; the generations: %s, %s, %s USD, %s USD',
                   coalesce(s.requests, 0), coalesce(s.images, 0), trim_scale(coalesce(s.cost, 0) / 1000000000),
                   trim_scale(coalesce(s.upstream_cost, 0) / 1000000000),
                   coalesce(c.requests, 0), coalesce(c.images, 0), trim_scale(coalesce(c.cost, 0) / 1000000000),
                   trim_scale(coalesce(c.upstream_cost, 0) / 1000000000)) as "found!"
           from summed s full join counted c using (day, account_id, mode, key_id, model, provider)
           where (s.requests, s.abandoned, s.images, s.cost, s.upstream_cost)
               is distinct from (c.requests, c.abandoned, c.images, c.cost, c.upstream_cost)
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

/// Days and the generations since, against the charges, those that were pruned included.
async fn usage(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"select b.account_id || ' ' || b.mode as "subject!",
               format('%s USD used, %s USD charged', trim_scale(coalesce(u.cost, 0) / 1000000000),
                   trim_scale(coalesce(e.charged, 0) / 1000000000)) as "found!"
           from balances b
           left join (
               select account_id, mode, sum(cost) as cost
               from (
                   select account_id, mode, cost_nano_usd as cost from usage_days
                   union all
                   select account_id, mode, cost_nano_usd from generations
                   where created_at >= (select summed_until from usage_horizon)::timestamp at time zone 'UTC'
               ) used
               group by account_id, mode
           ) u on u.account_id = b.account_id and u.mode = b.mode
           left join (
               select account_id, mode, -sum(amount_nano_usd) as charged
               from ledger_entries where kind in ('charge', 'charges') group by account_id, mode
           ) e on e.account_id = b.account_id and e.mode = b.mode
           where coalesce(u.cost, 0) <> coalesce(e.charged, 0)
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}

async fn spending(connection: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"with bounds as (
               select (select min(month) from spending) as since, (select pruned_until from usage_horizon) as pruned
           ), taken as (
               select key_id, account_id || ' ' || mode as account, (created_at at time zone 'UTC')::date as day,
                   sum(case status when 'open' then amount_nano_usd else captured_nano_usd end) as amount
               from holds, bounds
               where created_at >= greatest(since, pruned)::timestamp at time zone 'UTC'
               group by 1, 2, 3
               union all
               select key_id, account_id || ' ' || mode, day, cost_nano_usd
               from usage_days, bounds where day >= since and day < pruned
           ), counted as (
               select s.subject, s.day, s.day_nano_usd, s.month, s.month_nano_usd,
                   coalesce(sum(t.amount) filter (where t.day = s.day), 0) as of_day, coalesce(sum(t.amount), 0) as of_month
               from spending s
               left join (
                   select who.subject, taken.day, taken.amount
                   from taken cross join lateral (values (taken.key_id), (taken.account)) as who (subject)
               ) t on t.subject = s.subject and t.day >= s.month and t.day < s.month + interval '1 month'
               group by s.subject
           )
           select subject as "subject!",
               format('%s USD counted on %s and %s USD in its month, holds took %s USD and %s USD',
                   trim_scale(usd(day_nano_usd)), day, trim_scale(usd(month_nano_usd)),
                   trim_scale(of_day / 1000000000), trim_scale(of_month / 1000000000)) as "found!"
           from counted
           where day_nano_usd <> of_day or month_nano_usd <> of_month
           order by 1 limit 1000"#,
    )
    .fetch_all(connection)
    .await
}
