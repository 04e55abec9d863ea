-- One client request is one charge: what tells a repeat from a new request, and what its answer was.

-- Requests without an idempotency key are recognised by what they ask. The window (Unix time in quarters of an
-- hour) comes first in the index, so that entries are added in one place of it, whatever the history.
alter table generations
    add column request_window integer,
    add column request_hash bytea,
    -- What the answer said besides what `images` and `attempts` know of it.
    add column answer jsonb;
create index generations_by_request on generations (request_window, request_hash) where request_hash is not null;

-- Who works on what an API key has named. The primary key decides; rows are kept for a day.
create table idempotency_keys (
    key_id text collate "C" not null references api_keys,
    idempotency_key text collate "C" not null,
    request_hash bytea not null,
    generation_id text collate "C" not null references generations,
    -- The answer of a request that was refused. It is in the provider's words, which may be about the prompt:
    -- it goes with this row.
    refusal jsonb,
    created_at timestamptz not null,
    primary key (key_id, idempotency_key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Which repeats of an SDK have joined a generation: one for each of its counts, so that two requests that are
-- equal on purpose stay two when both are repeated. Rows are kept for as long as a generation can be joined.
create table generation_repeats (
    generation_id text collate "C" not null references generations,
    retry_count smallint not null check (retry_count >= 1),
    created_at timestamptz not null,
    primary key (generation_id, retry_count)
);
create index generation_repeats_by_age on generation_repeats (created_at);
