-- What accounts may do, all of their keys together, live and test money each on its own; and what keys and
-- accounts may spend in a UTC day and month. Null is no limit.
alter table api_keys
    add column spend_per_day_nano_usd bigint check (spend_per_day_nano_usd >= 0),
    add column spend_per_month_nano_usd bigint check (spend_per_month_nano_usd >= 0),
    -- Networks that the key may be used from; null is all.
    add column allowed_ips text[];
alter table accounts
    add column requests_per_minute integer check (requests_per_minute >= 0),
    add column images_per_minute integer check (images_per_minute >= 0),
    add column max_in_flight integer check (max_in_flight >= 0),
    add column spend_per_day_nano_usd bigint check (spend_per_day_nano_usd >= 0),
    add column spend_per_month_nano_usd bigint check (spend_per_month_nano_usd >= 0);

-- Replicas remember with a key what its account may do.
drop trigger accounts_announce on accounts;
create trigger accounts_announce after update on accounts
    for each row when (
        (old.markup_basis_points, old.requests_per_minute, old.images_per_minute, old.max_in_flight,
            old.spend_per_day_nano_usd, old.spend_per_month_nano_usd)
        is distinct from
        (new.markup_basis_points, new.requests_per_minute, new.images_per_minute, new.max_in_flight,
            new.spend_per_day_nano_usd, new.spend_per_month_nano_usd)
    )
    execute function announce_change_of_keys();

-- As `key_seconds`, for accounts with limits per minute.
create table account_seconds (
    account_id text collate "C" not null,
    mode text collate "C" not null,
    -- Unix time.
    second bigint not null,
    requests integer not null,
    images integer not null,
    primary key (account_id, mode, second),
    foreign key (account_id, mode) references balances
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- What a key or an account in one mode has spent in the UTC day and month of its last hold: open holds with all
-- of their amount, ended ones with what was captured, each in the day in which it was placed. There is a row from
-- the first hold on that finds a limit, made from the past then; it is kept by every hold and settlement after it.
-- Without the row the next such hold makes it anew.
create table spending (
    -- A key's id, or an account's and the mode: 'acc_… live'.
    subject text collate "C" primary key,
    day date not null,
    day_nano_usd bigint not null check (day_nano_usd >= 0),
    month date not null,
    month_nano_usd bigint not null check (month_nano_usd >= 0),
    constraint spending_day_in_month check (day >= month and day < month + interval '1 month')
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- The requests in flight of a key, and now of an account too.
create index holds_open_of_account on holds (account_id, mode, key_id) where status = 'open';
drop index holds_open;
