-- Since when a replica has been beating without a gap. Only one that was heard itself for as long as the others
-- may be silent judges them: when a database has been away or has stood still, the beats of the living are as old
-- as those of the dead.
alter table replicas add column heard_since timestamptz not null default clock_timestamp();
