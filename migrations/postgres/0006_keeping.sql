-- What is removed when its time is over (see `retention` in the settings), and what must be known of it afterwards.
create table removed_events (
    bucket smallint not null,
    profile_id bigint not null,
    id_hash bigint not null,
    primary key (bucket, profile_id, id_hash)
);

create table removed_rows (
    bucket smallint not null,
    profile_id bigint not null,
    kind text not null check (kind in ('events', 'messages', 'decisions')),
    older_than bigint not null,
    removed bigint not null,
    primary key (bucket, profile_id, kind)
);

create table removed_attempts (
    channel text not null,
    day bigint not null,
    attempts bigint not null,
    primary key (channel, day)
);

create unique index removals_by_pass on removals (kind, removed_at);

create index profiles_merged on profiles (merged_into) where merged_into is not null;
