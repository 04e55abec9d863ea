-- Who pays, and with which keys. Ids are kept in the text form that people see in answers and logs
-- (`acc_` and 32 hex digits); collation "C" compares them as bytes, which is both faster and the order
-- in which they were made.

create table accounts (
    id text collate "C" primary key check (id like 'acc\_%'),
    -- Not unique: it is for people, and two teams may both be called "ci".
    name text not null check (name <> ''),
    created_at timestamptz not null
);

-- Commands take an account's exact name where they take its id.
create index accounts_by_name on accounts (name);

create table api_keys (
    id text collate "C" primary key check (id like 'key\_%'),
    account_id text collate "C" not null references accounts,
    name text not null,
    mode text collate "C" not null check (mode in ('live', 'test')),
    -- SHA-256 of the secret. The secret itself has more than 160 random bits, so no salt and no slow
    -- hash is needed, and a lookup is one probe of this index.
    secret_hash bytea not null unique check (length(secret_hash) = 32),
    hint text not null,
    -- Null is every model.
    models text[],
    requests_per_minute integer check (requests_per_minute >= 0),
    images_per_minute integer check (images_per_minute >= 0),
    max_in_flight integer check (max_in_flight >= 0),
    unsupported_parameters text not null check (unsupported_parameters in ('reject', 'drop')),
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz
);

-- Listing the keys of an account.
create index api_keys_by_account on api_keys (account_id, id);

-- Secrets that every replica must agree on, such as the one that signs links: made by the first that asks.
create table secrets (
    name text primary key,
    value bytea not null check (length(value) >= 32),
    created_at timestamptz not null default now()
);
