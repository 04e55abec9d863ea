-- Webhooks: which keys may have them and how they are signed, and what is still to be delivered.

-- A key's row stays when it may not have any any longer: what is under way is still signed. The secrets are kept
-- as they are, because signing needs them.
create table webhook_keys (
    key_id text collate "C" primary key references api_keys,
    is_allowed boolean not null,
    secret bytea not null check (length(secret) = 32),
    -- The one before the last rotation, and until when messages are signed with it too.
    previous_secret bytea check (length(previous_secret) = 32),
    previous_secret_ends_at timestamptz,
    constraint webhook_keys_previous_secret_ends check ((previous_secret is null) = (previous_secret_ends_at is null))
);

-- Where the end of a generation is to be told.
alter table generations add column webhook_url text;

-- One row for each generation that has ended and is to be told: until somebody has taken it, or for a week. Times
-- are the database's own, because the clocks of replicas differ.
create table webhook_deliveries (
    generation_id text collate "C" primary key references generations on delete cascade,
    key_id text collate "C" not null references api_keys,
    event text collate "C" not null,
    url text not null,
    status text collate "C" not null default 'pending' check (status in ('pending', 'delivered', 'gone', 'failed')),
    attempts integer not null default 0 check (attempts >= 0),
    created_at timestamptz not null default clock_timestamp(),
    -- When to try next; while somebody tries, when that is taken for lost.
    due_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    constraint webhook_deliveries_end_once check ((status = 'pending') = (ended_at is null))
);
create index webhook_deliveries_due on webhook_deliveries (due_at) where status = 'pending';
create index webhook_deliveries_ended on webhook_deliveries (ended_at) where ended_at is not null;

create table webhook_attempts (
    generation_id text collate "C" not null references webhook_deliveries on delete cascade,
    number integer not null check (number >= 1),
    started_at timestamptz not null,
    latency_ms bigint not null check (latency_ms >= 0),
    -- The HTTP status, if there was an answer.
    status smallint,
    -- Why there was none, or none that counts; null is success.
    error text collate "C",
    primary key (generation_id, number)
);

-- Whoever ends a generation, and however: its delivery is in the same transaction, so that no crash loses one.
-- Generations without a webhook pay for a comparison.
create function book_webhook() returns trigger language plpgsql as $$
begin
    insert into webhook_deliveries (generation_id, key_id, event, url)
    values (new.id, new.key_id, 'image.generation.' || new.status, new.webhook_url);
    return null;
end
$$;

create trigger generations_book_webhook after update on generations
    for each row when (new.webhook_url is not null and old.status = 'in_progress' and new.status <> 'in_progress')
    execute function book_webhook();
