-- Drafts of a stream whose picture never came were delivered all the same, and are charged: such a generation
-- has failed, and its hold is captured.

alter table generations
    -- How many drafts the cost is for, where it is for no picture.
    add column drafts_charged smallint not null default 0 check (drafts_charged >= 0),
    drop constraint generations_charge_when_completed,
    -- Not looked for in the rows that are there: they have kept to the one above, which allows less.
    add constraint generations_charge_what_came check (
        case when drafts_charged > 0 then status = 'failed' and images_delivered = 0
            else status = 'completed' or (cost_nano_usd = 0 and images_delivered = 0) end
    ) not valid;
