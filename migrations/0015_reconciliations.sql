-- When the books were proved last, and in how many places they did not agree: what `easel reconcile` found, so that the
-- figures of every replica can tell it. One row; none before the first time.
create table reconciliations (
    only_row boolean primary key default true check (only_row),
    -- By the database's own clock.
    finished_at timestamptz not null,
    disagreements bigint not null check (disagreements >= 0)
);
