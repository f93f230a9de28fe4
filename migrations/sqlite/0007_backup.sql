-- A backup knows that it is one: the copy is marked as it is made, never the original. Whoever starts on it does not know what the
-- original has done since: it begins paused, and what was still to go out then is in doubt.
create table backup (
    id integer primary key check (id = 1),
    taken_at integer not null
) strict;
