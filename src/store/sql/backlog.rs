//! What waits, is under way, or is in doubt: asked by whoever scrapes figures, so every part of it is answered from a small index.

use super::rows::Fields;
use super::{Session, Sql, query};
use crate::engine::time::Timestamp;
use crate::store::erasure::ERASED;
use crate::store::{BACKLOG_MAX, Backlog, PAST_DEADLINE_MAX, StoreError};

/// $1 now, $2 how many are counted, $3 how many are looked at for their deadline, $4 the reason of those who were erased.
pub(super) const BACKLOG: Sql = Sql {
    sqlite: "select
    (select count(*) from (select 1 from profiles where due_at is not null and due_at <= $1 limit $2)),
    (select min(due_at) from profiles where due_at is not null and due_at <= $1),
    (select count(*) from profiles where quarantined_at is not null and quarantined_because <> $4),
    (select count(*) from (select 1 from messages where state = 'queued' and due_at <= $1 limit $2)),
    (select m.due_at from messages m join profiles p on p.id = m.profile_id
        where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null order by m.due_at, m.seq limit 1),
    (select count(*) from (select m.expires_at from messages m
        where m.state = 'queued' and m.due_at <= $1 order by m.due_at, m.seq limit $3) where expires_at < $1),
    (select count(*) from messages where state in ('leased', 'sending')),
    (select min(changed_at) from messages where state in ('leased', 'sending')),
    (select count(*) from messages where state = 'unknown'),
    0",
    postgres: "select
        (select count(*) from (select 1 from profiles where due_at is not null and due_at <= $1 limit $2) due),
        (select min(due_at) from profiles where due_at is not null and due_at <= $1),
        (select count(*) from profiles where quarantined_at is not null and quarantined_because <> $4),
        (select count(*) from (select 1 from messages where state = 'queued' and due_at <= $1 limit $2) due),
        (select m.due_at from messages m join profiles p on p.bucket = m.bucket and p.id = m.profile_id
            where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null order by m.due_at, m.seq limit 1),
        (select count(*) from (select m.expires_at from messages m
            where m.state = 'queued' and m.due_at <= $1 order by m.due_at, m.seq limit $3) due where expires_at < $1),
        (select count(*) from messages where state in ('leased', 'sending')),
        (select min(changed_at) from messages where state in ('leased', 'sending')),
        (select count(*) from messages where state = 'unknown'),
        -- a role that is no member of pg_monitor sees its own only, and what was prepared
        (select coalesce(max(floor(extract(epoch from clock_timestamp() - begun)))::bigint, 0) from (
            select xact_start as begun from pg_stat_activity
                where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
            union all select prepared from pg_prepared_xacts where database = current_database()) open)",
};

pub(super) async fn backlog(session: &mut Session<'_>, now: Timestamp) -> Result<Backlog, StoreError> {
    let asked = query(&BACKLOG).bind(now.as_ms()).bind(BACKLOG_MAX).bind(PAST_DEADLINE_MAX).bind(ERASED);
    let row = asked.fetch_one(session).await?;
    let mut fields = Fields::of("messages", &row);
    Ok(Backlog {
        people_due: fields.count("people_due")?,
        people_due_since: fields.optional_instant("people_due_since")?,
        people_set_aside: fields.count("people_set_aside")?,
        messages_due: fields.count("messages_due")?,
        messages_due_since: fields.optional_instant("messages_due_since")?,
        messages_past_deadline: fields.count("messages_past_deadline")?,
        messages_under_way: fields.count("messages_under_way")?,
        messages_under_way_since: fields.optional_instant("messages_under_way_since")?,
        messages_unknown: fields.count("messages_unknown")?,
        transaction_seconds: fields.count("transaction_seconds")?,
    })
}
