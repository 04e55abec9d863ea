-- Wishes to have a generation stopped. The replica that works on it looks here; the row goes when the generation
-- has ended. Apart from `holds`, whose rows every request writes.
create table cancellations (
    generation_id text collate "C" primary key references generations on delete cascade,
    asked_at timestamptz not null
);
