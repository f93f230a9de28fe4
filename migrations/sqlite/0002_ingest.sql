-- Events over HTTP: who may send and read, and what was refused at the door.

-- A key is 256 random bits and is shown once; here stands its SHA-256, so that a copy of the database opens no door. A source has
-- as many as it likes: the new one goes in before the old one goes out.
create table api_keys (
    id integer primary key,
    -- stands on every event that comes by the key
    source text not null,
    scope text not null check (scope in ('write', 'read')),
    hash blob not null unique,
    created_at integer not null,
    created_by text not null,
    revoked_at integer,
    revoked_by text
) strict;

-- Events that were no facts, each with the sentence that says why. Senders throw a whole batch away when they are told that something
-- in it is wrong; so they are told that it was taken, and this is where somebody finds what was not. The same text again is
-- counted, not kept. Only the newest stay (see the store).
create table rejects (
    seq integer primary key,
    source text not null,
    row_hash integer not null,
    reason text not null,
    row text not null,
    first_at integer not null,
    last_at integer not null,
    times integer not null
) strict;
create unique index rejects_by_hash on rejects (source, row_hash);
