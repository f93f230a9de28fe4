-- The same tables as SQLite's, under the same names and numbers; there stands what each is for. Here stands what differs.
--
-- `bucket` comes first in every key of what belongs to a person: a stable function of the person's number, so that all rows of one
-- person have the same one, and the tables can be spread over machines by it as they stand (docs/scale.md). Columns are `bigint`
-- wherever SQLite has an integer and `boolean` where it has 0 or 1. Instants are given by the program, but for one thing: whether a
-- process still lives is judged by the database's clock, which is one for all of them.

create function bucket(id bigint) returns smallint language sql immutable parallel safe as 'select (id & 255)::smallint';

create table environment (
    id bigint primary key check (id = 1),
    name text not null
);

-- What every process must know the present value of: changes of the world, changes of what is forbidden, and how many processes
-- there have been.
create table counters (
    name text primary key,
    value bigint not null
);
insert into counters (name, value) values ('boots', 0), ('generation', 1), ('world', 1);

-- The processes at work. A claim holds as long as its process beats; its epoch's upper half is the process's number.
create table workers (
    boot bigint primary key,
    beaten_at timestamptz not null
);

create sequence profiles_id_seq cache 1;
create table profiles (
    bucket smallint not null,
    id bigint not null,
    key text not null,
    version bigint not null,
    due_at bigint,
    absorbed_seq bigint not null,
    woken_seq bigint not null,
    quarantined_at bigint,
    quarantined_because text,
    merged_into bigint,
    state bytea not null,
    primary key (bucket, id)
) with (fillfactor = 80);
create index profiles_by_id on profiles (id);
create index profiles_due on profiles (due_at) where due_at is not null;
create index profiles_due_by_bucket on profiles (bucket, due_at) where due_at is not null;

create table claims (
    bucket smallint not null,
    profile_id bigint not null,
    worker text,
    epoch bigint not null,
    claims bigint not null,
    primary key (bucket, profile_id)
) with (fillfactor = 80);
create index claims_held on claims (epoch) where worker is not null;

-- Not a person's: found by what a sender says.
create table identities (
    kind text not null check (kind in ('user', 'anonymous')),
    value text not null,
    profile_id bigint not null,
    primary key (kind, value)
);
create index identities_by_profile on identities (profile_id);

create sequence events_seq cache 1;
create table events (
    bucket smallint not null,
    seq bigint not null,
    profile_id bigint not null,
    id_hash bigint not null,
    source text not null,
    event_id text not null,
    kind text not null check (kind in ('track', 'identify', 'consent', 'engine')),
    name text not null,
    occurred_at bigint not null,
    received_at bigint not null,
    waits bigint not null check (waits in (0, 1, 2)),
    -- JSON as text: it is given back as it came
    properties text not null,
    primary key (bucket, profile_id, seq)
);
create index events_by_seq on events (seq);
-- a second event with the same id is found here, under the lock on the person's row
create index events_by_id on events (id_hash);

create table consents (
    bucket smallint not null,
    profile_id bigint not null,
    event_seq bigint not null,
    purpose text not null,
    channel text not null,
    granted boolean not null,
    basis text not null,
    given_at text not null,
    source text not null,
    event_id text not null,
    occurred_at bigint not null,
    received_at bigint not null,
    primary key (bucket, profile_id, event_seq)
);

create table messages (
    bucket smallint not null,
    seq bigint generated always as identity,
    id bytea not null,
    profile_id bigint not null,
    dedupe_key bytea not null,
    rule text not null,
    rules_version bigint not null,
    run_key text not null,
    run bigint not null,
    step text not null,
    channel text not null,
    category text not null,
    template text not null,
    languages text not null,
    decided_at bigint not null,
    due_at bigint not null,
    expires_at bigint not null,
    priority bigint not null,
    wakes_on bigint not null,
    state text not null check (state in ('queued', 'leased', 'sending', 'accepted', 'delivered', 'unknown', 'bounced', 'failed',
        'blocked', 'expired', 'cancelled', 'dead')),
    because text,
    changed_at bigint not null,
    worker text,
    epoch bigint not null,
    claims bigint not null,
    attempts bigint not null,
    first_attempt_at bigint,
    outcomes bigint not null,
    data text not null,
    primary key (bucket, profile_id, id)
) with (fillfactor = 80);
create unique index messages_by_dedupe_key on messages (bucket, profile_id, dedupe_key);
create index messages_by_id on messages (id);
create index messages_queued on messages (due_at, seq) where state = 'queued';
create index messages_queued_by_bucket on messages (bucket, due_at, seq) where state = 'queued';
create index messages_under_way on messages (epoch) where state in ('leased', 'sending');
create index messages_by_seq on messages (seq);

create table attempts (
    bucket smallint not null,
    profile_id bigint not null,
    message_id bytea not null,
    number bigint not null,
    epoch bigint not null,
    worker text not null,
    started_at bigint not null,
    ended_at bigint,
    outcome text,
    provider_id text,
    detail text,
    primary key (bucket, profile_id, message_id, number)
);

create table postings (
    bucket smallint not null,
    profile_id bigint not null,
    number bigint not null,
    kind text not null,
    class text not null,
    amount bigint not null,
    posted_at bigint not null,
    reason text not null,
    rule text,
    run bigint,
    step text,
    notice bytea,
    primary key (bucket, profile_id, number)
);
create table allocations (
    bucket smallint not null,
    profile_id bigint not null,
    posting bigint not null,
    lot bigint not null,
    amount bigint not null,
    primary key (bucket, profile_id, posting, lot)
);

create table exposures (
    bucket smallint not null,
    profile_id bigint not null,
    rule text not null,
    run_key text not null,
    run bigint not null,
    exposed_at bigint not null,
    held_out boolean not null,
    decided_by text not null,
    primary key (bucket, profile_id, rule, run_key, run)
);

create table entries (
    bucket smallint not null,
    seq bigint generated always as identity,
    profile_id bigint not null,
    entered_at bigint not null,
    rules_version bigint not null,
    rule text not null,
    run bigint not null,
    step text not null,
    what text not null,
    because text not null,
    until_at bigint,
    primary key (bucket, profile_id, seq)
);
create index entries_by_seq on entries (seq);

create table rule_texts (
    hash bigint primary key,
    text text not null
);
create table rule_set_texts (
    rules_version bigint not null,
    path text not null,
    hash bigint not null,
    primary key (rules_version, path)
);
create table publications (
    seq bigint generated always as identity primary key,
    rules_version bigint not null,
    published_at bigint not null,
    published_by text not null,
    why text not null,
    spread_ms bigint not null,
    next_profile bigint
);

create table rule_states (
    rule text primary key,
    first_live_at bigint not null,
    when_live_at bigint not null,
    when_hash bigint not null,
    hash bigint not null,
    is_live boolean not null,
    held_at bigint,
    held_because text,
    held_by text
);
create table rule_history (
    seq bigint generated always as identity primary key,
    rule text not null,
    happened_at bigint not null,
    what text not null,
    done_by text not null,
    why text not null,
    rules_version bigint
);

create table pauses (
    scope text not null check (scope in ('all', 'rule', 'channel', 'tag')),
    name text not null,
    paused_at bigint not null,
    because text not null,
    paused_by text not null,
    primary key (scope, name)
);

-- Counted by many processes at once: each adds to rows of its own `slot`, so that none waits for another, and sums are taken when read.
create table rule_entries (
    rule text not null,
    minute bigint not null,
    slot bigint not null,
    entries bigint not null,
    primary key (rule, minute, slot)
) with (fillfactor = 50);
create table budget_uses (
    coupon text not null,
    quarter bigint not null,
    slot bigint not null,
    used_minor bigint not null,
    primary key (coupon, quarter, slot)
) with (fillfactor = 50);

create table heartbeats (
    worker text primary key,
    beaten_at bigint not null
);
create table downtimes (
    from_at bigint primary key,
    until_at bigint not null
);
create table source_hours (
    source text not null,
    hour bigint not null,
    slot bigint not null,
    events bigint not null,
    primary key (source, hour, slot)
) with (fillfactor = 50);
create table quiet_spans (
    from_at bigint primary key,
    until_at bigint
);
