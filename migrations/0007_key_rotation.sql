-- The secret that a key had before its last rotation, and until when it still opens the key: clients change
-- over one by one. One at a time; the next rotation ends it.
alter table api_keys
    add column previous_secret_hash bytea unique check (length(previous_secret_hash) = 32),
    add column previous_secret_ends_at timestamptz,
    add constraint api_keys_previous_secret_ends
        check ((previous_secret_hash is null) = (previous_secret_ends_at is null));
