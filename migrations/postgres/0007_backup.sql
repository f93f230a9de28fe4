-- A database that was restored from a dump cannot tell; whoever restores one says so before the first start, by a row with the instant at
-- which the dump was taken (milliseconds since 1970).
create table backup (
    id integer primary key check (id = 1),
    taken_at bigint not null
);
