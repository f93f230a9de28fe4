-- Events over HTTP: who may send and read, and what was refused at the door.
create table api_keys (
    id bigint generated always as identity primary key,
    source text not null,
    scope text not null check (scope in ('write', 'read')),
    hash bytea not null unique,
    created_at bigint not null,
    created_by text not null,
    revoked_at bigint,
    revoked_by text
);

create table rejects (
    seq bigint generated always as identity primary key,
    source text not null,
    row_hash bigint not null,
    reason text not null,
    row text not null,
    first_at bigint not null,
    last_at bigint not null,
    times bigint not null
);
create unique index rejects_by_hash on rejects (source, row_hash);
