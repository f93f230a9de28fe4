-- What the world says back, and what we owe to people: addresses that must not be written to, proofs of consent, erasures, and what
-- was removed because its time was over.
--
-- Addresses stand here only as keyed hashes: the list must outlive the people on it (an erased person must not be written to again
-- by a later import), and must not be a list of addresses. The key stands in the same database on purpose: a backup is complete, and
-- a key kept elsewhere and lost would mean writing to everybody who complained.
create table keys (
    name text primary key,
    key blob not null
) strict, without rowid;

-- The suppression list. `scope`: `all`, or the one category that must not be sent any more.
create table suppressions (
    channel text not null,
    address_hash blob not null,
    scope text not null check (scope in ('all', 'marketing', 'service', 'transactional')),
    reason text not null check (reason in ('hard_bounce', 'soft_bounce', 'complaint', 'unsubscribe', 'manual', 'erased')),
    since integer not null,
    -- null: never by itself
    until integer,
    -- a provider, `import`, an operator
    source text not null,
    primary key (channel, address_hash, scope, reason)
) strict, without rowid;

-- Mail that did not arrive, for a reason that may pass: three on three days within ten close an address for a while.
create table soft_bounces (
    channel text not null,
    address_hash blob not null,
    bounced_at integer not null,
    -- the provider's id of it: a call that is repeated counts once
    id_hash integer not null,
    primary key (channel, address_hash, bounced_at, id_hash)
) strict, without rowid;

-- Which text the person agreed to, and until when it holds.
alter table consents add column text_version text;
alter table consents add column expires_at integer;

-- The proof: the record of consent that let the message go (`consents.event_seq` of the same person).
alter table messages add column consent_seq integer;

-- Who was erased, by a keyed hash of what the sender called them: old events that are imported once more do not bring them back.
create table erasures (
    identity_hash blob primary key,
    erased_at integer not null,
    -- the person's own number, which says nothing about them and keeps the sums of the ledger right
    profile_id integer not null,
    requested_by text not null,
    why text not null,
    -- how many rows of what were removed, as JSON: the record that it was done
    removed text not null
) strict, without rowid;
create index erasures_by_profile on erasures (profile_id);

-- What the retention schedule removed, pass by pass.
create table removals (
    seq integer primary key,
    kind text not null,
    removed_at integer not null,
    -- what happened before this instant was removed
    older_than integer not null,
    removed integer not null
) strict;
