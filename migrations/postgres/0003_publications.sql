-- Rules are changed while processes run: what the database last made of the files.
alter table publications add column files bigint;
alter table publications add column is_rollback boolean not null default false;

create table refused_rules (
    id bigint primary key check (id = 1),
    files bigint not null,
    refused_at bigint not null,
    because text not null
);
