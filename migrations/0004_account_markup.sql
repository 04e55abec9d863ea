-- What an account pays on top of the published prices, in basis points (1/100 %). Null is what the
-- catalog's route says, or else the provider's section of the configuration.
alter table accounts add column markup_basis_points integer
    constraint accounts_markup_in_range check (markup_basis_points between 0 and 1000000);

-- The same columns and one more at the end, which is all that `or replace` may add.
create or replace view accounts_usd as
select a.id, a.name, b.mode,
    usd(b.balance_nano_usd) as balance_usd,
    usd(b.held_nano_usd) as held_usd,
    usd(b.balance_nano_usd - b.held_nano_usd) as available_usd,
    a.created_at,
    a.markup_basis_points
from accounts a join balances b on b.account_id = a.id;
