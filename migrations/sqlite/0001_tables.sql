-- The tables of the first day. What is dear to add later is here from the start: an own number for each person beside the
-- identities that senders use, the instant when somebody is due, a version against lost updates, a ledger of postings with
-- their allocations to lots, consent as records, one row for every try at a provider, treated and held-out people alike,
-- rule texts by hash, the history of every rule, and when we were blind or away.
--
-- All instants are milliseconds since 1970 in UTC, given by the program (never by the database's clock). A 64-bit hash is kept
-- as the signed integer of the same bits. Names and words are those of the program; tables are STRICT, so that a column holds
-- what it says.

-- A database knows which environment it belongs to: a copy opened under another name must not write to people.
create table environment (
    id integer primary key check (id = 1),
    name text not null
) strict;

-- Single numbers that outlive a process: how often it was opened, the newest instant at which an event was received.
create table counters (
    name text primary key,
    value integer not null
) strict, without rowid;
insert into counters (name, value) values ('boots', 0), ('events_received_until', 0);

-- One row of state per person. `state` stands last, so that the columns before it are read without it.
create table profiles (
    id integer primary key,
    -- the identity it was created under; stable hashes are taken of it, so it never changes
    key text not null,
    -- counts every write of the state: who read an older one loses
    version integer not null,
    -- null: only an event makes it due; then it costs nothing, not even a place in the index
    due_at integer,
    -- everything up to this event is in the state
    absorbed_seq integer not null,
    -- the newest event that makes the person due; beyond absorbed_seq a fact waits
    woken_seq integer not null,
    quarantined_at integer,
    quarantined_because text,
    -- set when a merge has moved this person into another
    merged_into integer,
    state blob not null
) strict;
create index profiles_due on profiles (due_at) where due_at is not null;

-- Who looks at whom just now. Beside the profile and not in its row, because a claim then touches one small page instead of
-- rewriting two kilobytes of state for each person. `claims` counts from the claim on, so that what kills the process counts.
create table claims (
    profile_id integer primary key,
    -- null: nobody, but the count of claims without a result lives on
    worker text,
    epoch integer not null,
    claims integer not null
) strict;

-- By what senders know people. A merge points the identities of one person to the other.
create table identities (
    kind text not null check (kind in ('user', 'anonymous')),
    value text not null,
    profile_id integer not null,
    primary key (kind, value)
) strict, without rowid;
create index identities_by_profile on identities (profile_id);

-- Facts, append-only. No unique index on (source, event_id): clients choose those at random, and every random key would dirty a
-- page of its own. Duplicates are found by the ids in memory and by (profile_id, id_hash) here; see the store's documentation.
create table events (
    seq integer primary key,
    profile_id integer not null,
    id_hash integer not null,
    source text not null,
    event_id text not null,
    kind text not null check (kind in ('track', 'identify', 'consent', 'engine')),
    name text not null,
    occurred_at integer not null,
    received_at integer not null,
    -- 0: was absorbed by the decision that made it; 1: waits for the next look; 2: waits and makes the person due
    waits integer not null check (waits in (0, 1, 2)),
    properties text not null
) strict;
create index events_by_profile on events (profile_id, seq, id_hash);

-- Consent is a record with its proof, not an attribute: it outlives the event it came by.
create table consents (
    profile_id integer not null,
    event_seq integer not null,
    purpose text not null,
    channel text not null,
    granted integer not null,
    basis text not null,
    -- where it was given, in the sender's words (a form, a shop's till)
    given_at text not null,
    source text not null,
    event_id text not null,
    occurred_at integer not null,
    received_at integer not null,
    primary key (profile_id, event_seq)
) strict, without rowid;

-- The outbox. Twelve states; the open ones have their own small indexes.
create table messages (
    seq integer primary key,
    id blob not null,
    profile_id integer not null,
    -- hash of (rule, key, run number, profile, step, channel): one message for each, whatever happens
    dedupe_key blob not null,
    rule text not null,
    rules_version integer not null,
    run_key text not null,
    run integer not null,
    step text not null,
    channel text not null,
    category text not null,
    template text not null,
    languages text not null,
    decided_at integer not null,
    due_at integer not null,
    expires_at integer not null,
    priority integer not null,
    -- bits of the outcomes that its run waits for: only those make the person due
    wakes_on integer not null,
    state text not null check (state in ('queued', 'leased', 'sending', 'accepted', 'delivered', 'unknown', 'bounced', 'failed',
        'blocked', 'expired', 'cancelled', 'dead')),
    because text,
    changed_at integer not null,
    worker text,
    epoch integer not null,
    claims integer not null,
    attempts integer not null,
    first_attempt_at integer,
    -- bits of the outcomes known
    outcomes integer not null,
    data text not null
) strict;
create unique index messages_by_id on messages (id);
create unique index messages_by_dedupe_key on messages (profile_id, dedupe_key);
create index messages_queued on messages (due_at, seq) where state = 'queued';
create index messages_under_way on messages (epoch) where state in ('leased', 'sending');

-- Every try at a provider, begun before a byte leaves: evidence, never deleted by a retry.
create table attempts (
    profile_id integer not null,
    message_id blob not null,
    number integer not null,
    epoch integer not null,
    worker text not null,
    started_at integer not null,
    -- null: its result was never recorded
    ended_at integer,
    outcome text,
    provider_id text,
    detail text,
    primary key (profile_id, message_id, number)
) strict, without rowid;

-- The ledger: what was given, taken, lapsed, restored, and to which lots. Append-only; a balance is its sum.
create table postings (
    profile_id integer not null,
    number integer not null,
    kind text not null,
    class text not null,
    amount integer not null,
    posted_at integer not null,
    reason text not null,
    rule text,
    run integer,
    step text,
    notice blob,
    primary key (profile_id, number)
) strict, without rowid;
create table allocations (
    profile_id integer not null,
    posting integer not null,
    lot integer not null,
    amount integer not null,
    primary key (profile_id, posting, lot)
) strict, without rowid;

-- Who was treated and who was held out, once per run, for both alike: without it lift can never be measured.
create table exposures (
    profile_id integer not null,
    rule text not null,
    run_key text not null,
    run integer not null,
    exposed_at integer not null,
    held_out integer not null check (held_out in (0, 1)),
    decided_by text not null,
    primary key (profile_id, rule, run_key, run)
) strict, without rowid;

-- The decision log: what was done and not done, because of what, by which version of the rules.
create table entries (
    seq integer primary key,
    profile_id integer not null,
    entered_at integer not null,
    rules_version integer not null,
    rule text not null,
    run integer not null,
    step text not null,
    what text not null,
    because text not null,
    until_at integer
) strict;
create index entries_by_profile on entries (profile_id, seq);

-- Rule texts by hash, so that a run finishes on the version it began with whatever happened since.
create table rule_texts (
    hash integer primary key,
    text text not null
) strict;
create table rule_set_texts (
    rules_version integer not null,
    path text not null,
    hash integer not null,
    primary key (rules_version, path)
) strict, without rowid;
-- Every time a rule set went live; the last one is live now. `next_profile` walks through the first looks it asked for
-- (null: done), so that a crash in the middle of them is taken up again.
create table publications (
    seq integer primary key,
    rules_version integer not null,
    published_at integer not null,
    published_by text not null,
    why text not null,
    spread_ms integer not null,
    next_profile integer
) strict;

-- What is true of a rule as such.
create table rule_states (
    rule text primary key,
    first_live_at integer not null,
    when_live_at integer not null,
    when_hash integer not null,
    hash integer not null,
    is_live integer not null check (is_live in (0, 1)),
    held_at integer,
    held_because text,
    held_by text
) strict, without rowid;
-- ... and how it came to be: by whom, why, when. Append-only.
create table rule_history (
    seq integer primary key,
    rule text not null,
    happened_at integer not null,
    what text not null,
    done_by text not null,
    why text not null,
    rules_version integer
) strict;

create table pauses (
    scope text not null check (scope in ('all', 'rule', 'channel', 'tag')),
    name text not null,
    paused_at integer not null,
    because text not null,
    paused_by text not null,
    primary key (scope, name)
) strict, without rowid;

-- What the brake counts, and what coupon budgets have left; in minutes and quarters of an hour, because the shop's zone decides
-- where a month begins.
create table rule_entries (
    rule text not null,
    minute integer not null,
    entries integer not null,
    primary key (rule, minute)
) strict, without rowid;
create table budget_uses (
    coupon text not null,
    quarter integer not null,
    used_minor integer not null,
    primary key (coupon, quarter)
) strict, without rowid;

-- When we were there to see anything at all.
create table heartbeats (
    worker text primary key,
    beaten_at integer not null
) strict, without rowid;
create table downtimes (
    from_at integer primary key,
    until_at integer not null
) strict;
-- When the shop's events were there to be seen: hourly counts of each source, and the spans in which they were too few.
create table source_hours (
    source text not null,
    hour integer not null,
    events integer not null,
    primary key (source, hour)
) strict, without rowid;
create table quiet_spans (
    from_at integer primary key,
    -- null: still quiet
    until_at integer
) strict;
