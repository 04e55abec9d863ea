-- The books in USD, for people with a SQL prompt. The program itself never reads them.

create function usd(nano bigint) returns numeric language sql immutable strict parallel safe
    return (nano::numeric / 1000000000)::numeric(19, 9);

create view accounts_usd as
select a.id, a.name, b.mode,
    usd(b.balance_nano_usd) as balance_usd,
    usd(b.held_nano_usd) as held_usd,
    usd(b.balance_nano_usd - b.held_nano_usd) as available_usd,
    a.created_at
from accounts a join balances b on b.account_id = a.id;

create view ledger_entries_usd as
select account_id, mode, sequence, kind,
    usd(amount_nano_usd) as amount_usd,
    usd(balance_after_nano_usd) as balance_after_usd,
    generation_id, reference, note, created_at
from ledger_entries;

create view generations_usd as
select g.id, g.account_id, g.mode, g.key_id, g.model, g.provider, g.status, g.images_asked, g.images_delivered,
    usd(h.amount_nano_usd) as hold_usd,
    usd(g.cost_nano_usd) as cost_usd,
    usd(g.upstream_cost_nano_usd) as upstream_cost_usd,
    g.error_code, g.created_at, g.finished_at
from generations g join holds h on h.generation_id = g.id;

-- Per UTC day, account, model and provider; requests that brought nothing have no provider.
create view usage_usd as
select (created_at at time zone 'UTC')::date as day, account_id, mode, model, provider,
    count(*) as requests,
    sum(images_delivered) as images,
    sum(cost_nano_usd) / 1000000000 as cost_usd,
    sum(upstream_cost_nano_usd) / 1000000000 as upstream_cost_usd
from generations
group by 1, 2, 3, 4, 5;
