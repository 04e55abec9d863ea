-- Books that stay small: what was used on a day is summed up once the day is over, so that sums over years read
-- days and not requests; and what is old enough can be pruned without changing a balance or a sum.

-- A generation of a day before `usage_horizon.summed_until` is counted in exactly one of these rows. Sums have no
-- bound: what a provider said of one picture must not stop everybody else's day.
create table usage_days (
    -- The UTC day on which the requests were accepted.
    day date not null,
    account_id text collate "C" not null,
    mode text collate "C" not null,
    key_id text collate "C" not null references api_keys,
    model text not null,
    -- Who served; empty for requests that brought nothing.
    provider text not null,
    requests bigint not null check (requests >= 1),
    abandoned bigint not null check (abandoned between 0 and requests),
    images bigint not null check (images >= 0),
    cost_nano_usd numeric not null check (cost_nano_usd >= 0),
    upstream_cost_nano_usd numeric not null check (upstream_cost_nano_usd >= 0),
    primary key (day, account_id, mode, key_id, model, provider),
    foreign key (account_id, mode) references balances
);
create index usage_days_by_account on usage_days (account_id, day);

-- Which days are summed up, and which may have been pruned. One row, locked by whoever moves it.
create table usage_horizon (
    only_row boolean primary key default true check (only_row),
    -- Days before this one are in `usage_days`, all of their requests.
    summed_until date not null,
    -- Requests of days before this one may be gone.
    pruned_until date not null,
    check (pruned_until <= summed_until)
);
insert into usage_horizon (summed_until, pruned_until) values (date '2000-01-01', date '2000-01-01');

-- Pruned charges in a row become one line, whose amount is their sum.
alter table ledger_entries
    -- How many lines this one stands for; `sequence` is the number of the last of them.
    add column lines bigint not null default 1,
    drop constraint ledger_entries_kind_check,
    add constraint ledger_entries_kind_check check (kind in ('credit', 'debit', 'charge', 'charges')),
    add constraint ledger_entries_lines check (lines >= 1 and (lines = 1 or kind = 'charges')),
    drop constraint ledger_entries_reference_is_manual,
    add constraint ledger_entries_reference_is_manual check (reference is null or kind in ('credit', 'debit'));

-- A line is still never changed, and removed only by `easel prune`, which says so in its transaction, and which
-- leaves what operators booked.
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and current_setting('easel.pruning', true) = 'on' and old.kind in ('charge', 'charges') then
        return old;
    end if;
    raise exception '% is append-only: a correction is a new line', tg_table_name using errcode = 'restrict_violation';
end
$$;

-- Names of requests are kept for a day and forgotten before their generations could be pruned. As a foreign key
-- this would read the whole table for each generation that goes.
alter table idempotency_keys drop constraint idempotency_keys_generation_id_fkey;

create or replace view usage_usd as
select day, account_id, mode, model, provider,
    sum(requests)::bigint as requests,
    sum(images)::bigint as images,
    sum(cost_nano_usd) / 1000000000 as cost_usd,
    sum(upstream_cost_nano_usd) / 1000000000 as upstream_cost_usd
from (
    select day, account_id, mode, model, nullif(provider, '') as provider, requests, images, cost_nano_usd,
        upstream_cost_nano_usd
    from usage_days
    union all
    select (created_at at time zone 'UTC')::date, account_id, mode, model, provider, 1, images_delivered,
        cost_nano_usd, upstream_cost_nano_usd
    from generations
    where created_at >= (select summed_until from usage_horizon)::timestamp at time zone 'UTC'
) used
group by 1, 2, 3, 4, 5;

create or replace view ledger_entries_usd as
select account_id, mode, sequence, kind,
    usd(amount_nano_usd) as amount_usd,
    usd(balance_after_nano_usd) as balance_after_usd,
    generation_id, reference, note, created_at, lines
from ledger_entries;
