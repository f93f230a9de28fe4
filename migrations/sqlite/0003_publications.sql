-- Rules are changed while the daemon runs, taken back, and sometimes refused. What stands on disk may then differ from what is live,
-- also over a restart, so the database knows what it last made of the files.

-- Fingerprint of the files on disk at that time: those that went live, or those that a rollback set aside until they change. Null:
-- nobody knows (a replay, an older program).
alter table publications add column files integer;
alter table publications add column is_rollback integer not null default 0 check (is_rollback in (0, 1));

-- The files on disk as last looked at, if they were refused.
create table refused_rules (
    id integer primary key check (id = 1),
    files integer not null,
    refused_at integer not null,
    because text not null
) strict;
