-- What the world says back, and what we owe to people. Nothing here begins with a bucket: addresses and names are found by their keyed
-- hashes.
create table keys (
    name text primary key,
    key bytea not null
);

create table suppressions (
    channel text not null,
    address_hash bytea not null,
    scope text not null check (scope in ('all', 'marketing', 'service', 'transactional')),
    reason text not null check (reason in ('hard_bounce', 'soft_bounce', 'complaint', 'unsubscribe', 'manual', 'erased')),
    since bigint not null,
    until bigint,
    source text not null,
    primary key (channel, address_hash, scope, reason)
);

create table soft_bounces (
    channel text not null,
    address_hash bytea not null,
    bounced_at bigint not null,
    id_hash bigint not null,
    primary key (channel, address_hash, bounced_at, id_hash)
);

alter table consents add column text_version text;
alter table consents add column expires_at bigint;

alter table messages add column consent_seq bigint;

create table erasures (
    identity_hash bytea primary key,
    erased_at bigint not null,
    profile_id bigint not null,
    requested_by text not null,
    why text not null,
    removed text not null
);
create index erasures_by_profile on erasures (profile_id);

create table removals (
    seq bigint generated always as identity primary key,
    kind text not null,
    removed_at bigint not null,
    older_than bigint not null,
    removed bigint not null
);
