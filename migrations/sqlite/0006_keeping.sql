-- What is removed when its time is over (see `retention` in the settings), and what must be known of it afterwards.

-- A fact that was removed and comes in once more is known by the hash of its source and id, and left out: importing an old file again
-- stays safe. About twenty bytes each, where the fact had some hundred.
create table removed_events (
    profile_id integer not null,
    id_hash integer not null,
    primary key (profile_id, id_hash)
) strict, without rowid;

-- Of whom something was removed: what is recomputed from the rows that are left is held against the state only from here on.
create table removed_rows (
    profile_id integer not null,
    kind text not null check (kind in ('events', 'messages', 'decisions')),
    -- nothing that is younger was removed
    older_than integer not null,
    removed integer not null,
    primary key (profile_id, kind)
) strict, without rowid;

-- How many attempts of removed messages were begun on each channel on each day (UTC): warm-ups and daily limits count on.
create table removed_attempts (
    channel text not null,
    day integer not null,
    attempts integer not null,
    primary key (channel, day)
) strict, without rowid;

-- A pass is one row for each kind, counted on batch by batch.
create unique index removals_by_pass on removals (kind, removed_at);

-- Numbers of events are never given a second time, also when the newest ones are gone: what somebody has absorbed is told by number.
insert into counters (name, value) values ('events_numbered_until', 0);

-- Profiles that turned out to be one person go out with that person, and go with them.
create index profiles_merged on profiles (merged_into) where merged_into is not null;
