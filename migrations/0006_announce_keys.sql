-- Replicas remember keys for some seconds. Whatever changes what a key may do is announced when it commits, so
-- that they look again: the payload is the id of the key, or of the account whose keys it concerns.
create function announce_change_of_keys() returns trigger language plpgsql as $$
begin
    perform pg_notify('easel_keys', old.id);
    return null;
end
$$;

create trigger api_keys_announce after update or delete on api_keys
    for each row execute function announce_change_of_keys();
create trigger accounts_announce after update on accounts
    for each row when (old.markup_basis_points is distinct from new.markup_basis_points)
    execute function announce_change_of_keys();
