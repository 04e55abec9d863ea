-- The books. Money is in nano-USD (1e-9 USD) as bigint. What the code promises, the constraints below
-- refuse to break, and `easel reconcile` proves across tables.

-- What an account has, once for real money and once for play money. One narrow row that every hold and
-- settlement of the account locks first; changed in place (fillfactor leaves room for HOT updates).
create table balances (
    account_id text collate "C" not null references accounts,
    mode text collate "C" not null check (mode in ('live', 'test')),
    -- The sum of the entries.
    balance_nano_usd bigint not null default 0,
    -- The sum of the open holds.
    held_nano_usd bigint not null default 0 check (held_nano_usd >= 0),
    -- How many entries there are, which is also the sequence number of the last one.
    entries bigint not null default 0 check (entries >= 0),
    primary key (account_id, mode),
    constraint balances_cover_holds check (balance_nano_usd - held_nano_usd >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- One row per accepted client request. Written at the hold, finished at the settlement; the pages keep
-- room for the second so that it stays on its page and touches no index.
create table generations (
    id text collate "C" primary key check (id like 'gen\_%'),
    request_id text collate "C" not null,
    account_id text collate "C" not null,
    mode text collate "C" not null,
    key_id text collate "C" not null references api_keys,
    model text not null,
    images_asked smallint not null check (images_asked >= 1),
    status text collate "C" not null default 'in_progress'
        check (status in ('in_progress', 'completed', 'failed', 'abandoned')),
    -- The end user and the idempotency key as the client named them.
    end_user text,
    idempotency_key text,
    created_at timestamptz not null,
    finished_at timestamptz,
    -- The route that served it.
    provider text,
    upstream_model text,
    images_delivered smallint not null default 0 check (images_delivered >= 0),
    -- What the caller paid and what we owe upstream: the sums over `images`, kept here so that usage
    -- over long spans reads one table.
    cost_nano_usd bigint not null default 0 check (cost_nano_usd >= 0),
    upstream_cost_nano_usd bigint not null default 0 check (upstream_cost_nano_usd >= 0),
    input_tokens bigint not null default 0 check (input_tokens >= 0),
    output_tokens bigint not null default 0 check (output_tokens >= 0),
    error_code text,
    error_message text,
    foreign key (account_id, mode) references balances,
    constraint generations_end_once check ((status = 'in_progress') = (finished_at is null)),
    constraint generations_charge_when_completed check (status = 'completed' or (cost_nano_usd = 0 and images_delivered = 0))
) with (fillfactor = 70);

-- An account's recent generations, newest first (ids sort by age), and its usage.
create index generations_by_account on generations (account_id, id);
-- A client asking for what became of its request; only requests that carry the header pay for it.
create index generations_by_idempotency_key on generations (account_id, idempotency_key, id)
    where idempotency_key is not null;
-- The same for those that name their end user.
create index generations_by_end_user on generations (account_id, end_user, id) where end_user is not null;
-- Usage between two dates over all accounts. Rows arrive in time order, so this costs next to nothing.
create index generations_by_time on generations using brin (created_at) with (pages_per_range = 32);

-- Money set aside for a generation before a provider is called. A generation has one hold, so its id is
-- the key; an open hold ends exactly once, by an update that asks for `status = 'open'`.
create table holds (
    generation_id text collate "C" primary key references generations,
    id text collate "C" not null check (id like 'hold\_%'),
    account_id text collate "C" not null,
    mode text collate "C" not null,
    key_id text collate "C" not null,
    -- Who made it. No foreign key: a hold outlives the row of its replica, and that is how a dead one is
    -- recognised.
    replica_id text collate "C" not null,
    amount_nano_usd bigint not null check (amount_nano_usd >= 0),
    status text collate "C" not null default 'open' check (status in ('open', 'captured', 'released', 'expired')),
    captured_nano_usd bigint not null default 0,
    created_at timestamptz not null,
    ended_at timestamptz,
    constraint holds_capture_within_hold check (captured_nano_usd between 0 and amount_nano_usd),
    constraint holds_only_captures_take check (captured_nano_usd = 0 or status = 'captured'),
    constraint holds_end_once check ((status = 'open') = (ended_at is null))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);

-- Open holds are few whatever the history: a key's requests in flight, and the sweep of dead replicas.
create index holds_open on holds (key_id) where status = 'open';

-- Lines of the ledger, never changed. `sequence` counts an account's lines in one mode without gaps,
-- so that each line's balance can be proved from the one before.
create table ledger_entries (
    account_id text collate "C" not null,
    mode text collate "C" not null,
    sequence bigint not null check (sequence >= 1),
    id text collate "C" not null check (id like 'ent\_%'),
    kind text collate "C" not null check (kind in ('credit', 'debit', 'charge')),
    -- Signed: credits add, debits and charges take.
    amount_nano_usd bigint not null,
    balance_after_nano_usd bigint not null check (balance_after_nano_usd >= 0),
    generation_id text collate "C" references generations,
    reference text,
    note text,
    created_at timestamptz not null,
    primary key (account_id, mode, sequence),
    foreign key (account_id, mode) references balances,
    constraint ledger_entries_sign check (
        case kind when 'credit' then amount_nano_usd > 0 when 'debit' then amount_nano_usd < 0 else amount_nano_usd <= 0 end
    ),
    constraint ledger_entries_source check ((kind = 'charge') = (generation_id is not null)),
    constraint ledger_entries_reference_is_manual check (reference is null or kind <> 'charge')
);

-- A generation is charged at most once, whatever the code does.
create unique index ledger_entries_one_charge on ledger_entries (generation_id) where generation_id is not null;
-- A credit or debit that is sent twice under one reference is booked once.
create unique index ledger_entries_one_reference on ledger_entries (reference) where reference is not null;

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: a correction is a new line', tg_table_name using errcode = 'restrict_violation';
end
$$;

create trigger ledger_entries_are_final before update or delete on ledger_entries
    for each row execute function refuse_change();
create trigger ledger_entries_stay before truncate on ledger_entries
    for each statement execute function refuse_change();

-- One row per delivered picture with its cost: the billing record. Pictures themselves live in the
-- image store until `expires_at`; the row stays.
create table images (
    generation_id text collate "C" not null references generations,
    -- Its place in the answer, from 0.
    position smallint not null check (position >= 0),
    id text collate "C" not null check (id like 'img\_%'),
    format text collate "C" not null,
    -- Pixels; 0 where a vector picture has none.
    width integer not null check (width >= 0),
    height integer not null check (height >= 0),
    size_bytes bigint not null check (size_bytes >= 0),
    cost_nano_usd bigint not null check (cost_nano_usd >= 0),
    upstream_cost_nano_usd bigint not null check (upstream_cost_nano_usd >= 0),
    revised_prompt text,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    primary key (generation_id, position)
);

-- Every call to a provider, the failed ones too: what to look at when a provider's invoice differs.
create table attempts (
    generation_id text collate "C" not null references generations,
    number smallint not null check (number >= 1),
    provider text not null,
    upstream_model text not null,
    started_at timestamptz not null,
    latency_ms bigint not null check (latency_ms >= 0),
    upstream_status smallint,
    upstream_request_id text,
    -- The kind of the error; null is success.
    error text collate "C",
    images smallint not null check (images >= 0),
    -- We may owe the provider for it although it failed.
    maybe_charged boolean not null,
    primary key (generation_id, number)
);

-- Processes that are alive: each renews its row, the others release the holds of one that stopped.
-- Times are the database's own, because the clocks of replicas differ.
create table replicas (
    id text collate "C" primary key check (id like 'rep\_%'),
    started_at timestamptz not null default clock_timestamp(),
    last_beat_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- What a key with limits per minute did in each of the last sixty seconds. Keys without such limits have
-- no rows; old rows go when the key is used again.
create table key_seconds (
    key_id text collate "C" not null references api_keys,
    -- Unix time.
    second bigint not null,
    requests integer not null,
    images integer not null,
    primary key (key_id, second)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
