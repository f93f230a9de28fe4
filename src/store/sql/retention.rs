//! Removing what has been kept for long enough, and telling later that it was.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::Deserialize;

use super::rows::{Fields, hex, json};
use super::{Needs, Row, Session, Sql, Tx, Work, query};
use crate::engine::time::Timestamp;
use crate::store::retention::{Kept, Mark, Marks, Oldest, Removal, RemovalOf, RemovalRow, Removed};
use crate::store::{ProfileId, StoreError};

// ------------------------------------------------------------------------------------------------------ the oldest rows

/// $1 before, $2 after, $3 limit: how many rows were looked at, the last of them, whether any is old, and whose the old ones are. Rows
/// are numbered in the order in which they came, so nothing is read that is much younger than what is looked for.
pub(super) const OLDEST_EVENTS: Sql = Sql {
    sqlite: "
    select max(seq), count(*) filter (where at < $1), json_group_array(distinct profile_id) filter (where at < $1)
    from (select seq, profile_id, received_at as at from events where seq > $2 order by seq limit $3)",
    postgres: "
        select max(seq), count(*) filter (where at < $1), coalesce(json_agg(distinct profile_id) filter (where at < $1), '[]')::text
        from (select seq, profile_id, received_at as at from events where seq > $2 order by seq limit $3) oldest",
};
pub(super) const OLDEST_MESSAGES: Sql = Sql {
    sqlite: "
    select max(seq), count(*) filter (where decided_at < $1), json_group_array(distinct profile_id) filter (where at < $1 and is_over)
    from (select seq, profile_id, decided_at, changed_at as at, state not in ('queued', 'leased', 'sending', 'unknown') as is_over
        from messages where seq > $2 order by seq limit $3)",
    postgres: "
        select max(seq), count(*) filter (where decided_at < $1),
            coalesce(json_agg(distinct profile_id) filter (where at < $1 and is_over), '[]')::text
        from (select seq, profile_id, decided_at, changed_at as at, state not in ('queued', 'leased', 'sending', 'unknown') as is_over
            from messages where seq > $2 order by seq limit $3) oldest",
};
pub(super) const OLDEST_DECISIONS: Sql = Sql {
    sqlite: "
    select max(seq), count(*) filter (where at < $1), json_group_array(distinct profile_id) filter (where at < $1)
    from (select seq, profile_id, entered_at as at from entries where seq > $2 order by seq limit $3)",
    postgres: "
        select max(seq), count(*) filter (where at < $1), coalesce(json_agg(distinct profile_id) filter (where at < $1), '[]')::text
        from (select seq, profile_id, entered_at as at from entries where seq > $2 order by seq limit $3) oldest",
};

pub(super) async fn oldest(
    session: &mut Session<'_>,
    kind: Kept,
    before: Timestamp,
    after: i64,
    limit: usize,
) -> Result<Oldest, StoreError> {
    let (table, statement) = match kind {
        Kept::Events => ("events", &OLDEST_EVENTS),
        Kept::Messages => ("messages", &OLDEST_MESSAGES),
        Kept::Decisions => ("entries", &OLDEST_DECISIONS),
        Kept::Rejects | Kept::People => return Ok(Oldest::default()),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let row = query(statement).bind(before.as_ms()).bind(after).bind(limit).fetch_one(session).await?;
    let mut fields = Fields::of(table, &row);
    let last: Option<i64> = fields.next("seq")?;
    let old: i64 = fields.next("count")?;
    let people: Vec<i64> = fields.json("profile_id")?;
    Ok(Oldest { people: people.into_iter().map(ProfileId).collect(), last: last.filter(|_| old > 0) })
}

// -------------------------------------------------------------------------------------------------------------- removing

/// The people of $1 (profile, version) whose row is still the one that was read.
pub(super) const UNCHANGED: Sql = Sql {
    sqlite: "select json_group_array(p.id) from json_each($1) j
    join profiles p on p.id = j.value ->> 0 and p.version = j.value ->> 1",
    postgres: "select coalesce(json_agg(p.id), '[]')::text from jsonb_array_elements($1::jsonb) as j(value)
        join profiles p on p.bucket = bucket((j.value ->> 0)::bigint) and p.id = (j.value ->> 0)::bigint
            and p.version = (j.value ->> 1)::bigint",
};

/// Of the people $1: absorbed facts received before $2 that may go (see `Removal`).
pub(super) const OLD_EVENTS: Sql = Sql {
    sqlite: "
    select json_group_array(json_array(e.seq, e.profile_id, e.id_hash, e.source = 'rekindle'))
    from json_each($1) j join profiles p on p.id = j.value join events e on e.profile_id = p.id
    where e.received_at < $2 and (e.waits = 0 or e.seq <= p.absorbed_seq)
        and (e.kind = 'track'
            or (e.kind = 'engine' and e.name not in ('unsubscribed', 'complained', 'suppressed', 'suppression_lifted', 'profile_merged')))",
    postgres: "
        select coalesce(json_agg(json_build_array(e.seq, e.profile_id, e.id_hash, (e.source = 'rekindle')::integer)), '[]')::text
        from jsonb_array_elements_text($1::jsonb) as j(value)
        join profiles p on p.bucket = bucket(j.value::bigint) and p.id = j.value::bigint
        join events e on e.bucket = p.bucket and e.profile_id = p.id
        where e.received_at < $2 and (e.waits = 0 or e.seq <= p.absorbed_seq)
            and (e.kind = 'track' or (e.kind = 'engine'
                and e.name not in ('unsubscribed', 'complained', 'suppressed', 'suppression_lifted', 'profile_merged')))",
};

/// $1 numbers of events, $2 (profile, hash) of those that somebody may send again, $3 the next number to be given. What the engine says
/// of its own work is said once.
pub(super) const REMOVE_EVENTS: Sql = Sql {
    sqlite: "
    insert into removed_events (profile_id, id_hash) select value ->> 0, value ->> 1 from json_each($2) where true on conflict do nothing;
    update counters set value = max(value, $3) where name = 'events_numbered_until';
    delete from events where seq in (select value from json_each($1))",
    postgres: "
        insert into removed_events (bucket, profile_id, id_hash)
        select bucket((value ->> 0)::bigint), (value ->> 0)::bigint, (value ->> 1)::bigint from jsonb_array_elements($2::jsonb) as value
        on conflict do nothing;
        delete from events where seq in (select value::bigint from jsonb_array_elements_text($1::jsonb) as value)
            /* in one bucket: and events.bucket = $bucket */",
};

/// $1: messages (profile, id). Their attempts are counted by channel and day before they go.
pub(super) const REMOVE_ATTEMPTS: Sql = Sql {
    sqlite: "
    insert into removed_attempts (channel, day, attempts)
    select m.channel, a.started_at - a.started_at % 86400000, count(*)
    from json_each($1) j join messages m on m.id = unhex(j.value ->> 1)
    join attempts a on a.profile_id = m.profile_id and a.message_id = m.id
    where coalesce(a.provider_id, '') not like 'simulated-%' group by 1, 2
    on conflict (channel, day) do update set attempts = attempts + excluded.attempts;
    delete from attempts where (profile_id, message_id) in (select value ->> 0, unhex(value ->> 1) from json_each($1))",
    postgres: "
        insert into removed_attempts (channel, day, attempts)
        select m.channel, a.started_at - a.started_at % 86400000, count(*)
        from jsonb_array_elements($1::jsonb) as j(value)
        join messages m on m.id = decode(j.value ->> 1, 'hex') /* in one bucket: and m.bucket = $bucket */
        join attempts a on a.bucket = m.bucket and a.profile_id = m.profile_id and a.message_id = m.id
        where coalesce(a.provider_id, '') not like 'simulated-%' group by 1, 2 order by 1, 2
        on conflict (channel, day) do update set attempts = removed_attempts.attempts + excluded.attempts;
        delete from attempts where (bucket, profile_id, message_id) in (
            select bucket((value ->> 0)::bigint), (value ->> 0)::bigint, decode(value ->> 1, 'hex')
            from jsonb_array_elements($1::jsonb) as value) /* in one bucket: and attempts.bucket = $bucket */",
};
pub(super) const REMOVE_MESSAGES: Sql = Sql {
    sqlite: "delete from messages where id in (select unhex(value ->> 1) from json_each($1))
    and state not in ('queued', 'leased', 'sending', 'unknown')",
    postgres: "delete from messages where id in (
            select decode(value ->> 1, 'hex') from jsonb_array_elements($1::jsonb) as value) /* in one bucket: and messages.bucket = $bucket */
        and state not in ('queued', 'leased', 'sending', 'unknown')",
};
/// $1: numbers of lines of the log.
pub(super) const REMOVE_DECISIONS: Sql = Sql {
    sqlite: "delete from entries where seq in (select value from json_each($1))",
    postgres: "delete from entries where seq in (select value::bigint from jsonb_array_elements_text($1::jsonb) as value)
        /* in one bucket: and entries.bucket = $bucket */",
};

/// $1: rows of profile, kind, older than, removed.
pub(super) const MARK: Sql = Sql {
    sqlite: "insert into removed_rows (profile_id, kind, older_than, removed)
    select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each($1) where true
    on conflict (profile_id, kind) do update set older_than = max(older_than, excluded.older_than), removed = removed + excluded.removed",
    postgres: "insert into removed_rows (bucket, profile_id, kind, older_than, removed)
        select bucket((value ->> 0)::bigint), (value ->> 0)::bigint, value ->> 1, (value ->> 2)::bigint, (value ->> 3)::bigint
        from jsonb_array_elements($1::jsonb) as value
        on conflict (bucket, profile_id, kind) do update set older_than = greatest(removed_rows.older_than, excluded.older_than),
            removed = removed_rows.removed + excluded.removed",
};
/// $1 kind, $2 when the pass began, $3 older than, $4 removed.
pub(super) const NOTE_REMOVAL: Sql = Sql {
    sqlite: "insert into removals (kind, removed_at, older_than, removed) values ($1, $2, $3, $4)
    on conflict (kind, removed_at) do update set removed = removed + excluded.removed",
    postgres: "insert into removals (kind, removed_at, older_than, removed) values ($1, $2, $3, $4)
        on conflict (kind, removed_at) do update set removed = removals.removed + excluded.removed",
};

pub(super) struct Remove(pub Removal);

#[async_trait]
impl Work for Remove {
    type Done = Removed;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Removed, StoreError> {
        let Removal { at, events_before, messages_before, decisions_before, people } = &self.0;
        let whose: Vec<ProfileId> = people.iter().map(|of| of.profile).collect();
        tx.take(Needs { people: &whose, ..Needs::default() }).await?;
        let asked: Vec<(i64, i64)> = people.iter().map(|of| (of.profile.0, of.version)).collect();
        let answer = query(&UNCHANGED).bind(json(&asked)?).fetch_one(&mut tx.session).await?;
        let unchanged: BTreeSet<i64> = Fields::all("profiles", &answer)?.into_iter().collect();
        let people: Vec<&RemovalOf> = people.iter().filter(|of| unchanged.contains(&of.profile.0)).collect();
        let mut removed = Removed::default();
        if let Some(before) = events_before {
            let of: Vec<i64> = people.iter().filter(|of| of.events).map(|of| of.profile.0).collect();
            removed.events = note(Kept::Events, *at, *before, &remove_events(&of, *before, tx).await?, tx).await?;
        }
        if let Some(before) = messages_before {
            let gone = rows(&people, |of| of.messages.iter().map(|id| hex(id.0)).collect());
            query(&REMOVE_ATTEMPTS).bind(json(&gone)?).execute(&mut tx.session).await?;
            query(&REMOVE_MESSAGES).bind(json(&gone)?).execute(&mut tx.session).await?;
            removed.messages = note(Kept::Messages, *at, *before, &counts(gone.iter().map(|(profile, _)| *profile)), tx).await?;
        }
        if let Some(before) = decisions_before {
            let gone = rows(&people, |of| of.decisions.clone());
            let numbers: Vec<i64> = gone.iter().map(|(_, seq)| *seq).collect();
            query(&REMOVE_DECISIONS).bind(json(&numbers)?).execute(&mut tx.session).await?;
            removed.decisions = note(Kept::Decisions, *at, *before, &counts(gone.iter().map(|(profile, _)| *profile)), tx).await?;
        }
        Ok(removed)
    }
}

/// What goes of each, beside whose it is.
fn rows<T>(people: &[&RemovalOf], of: impl Fn(&RemovalOf) -> Vec<T>) -> Vec<(i64, T)> {
    people.iter().flat_map(|person| of(person).into_iter().map(|row| (person.profile.0, row))).collect()
}

fn counts(profiles: impl Iterator<Item = i64>) -> BTreeMap<i64, u64> {
    profiles.fold(BTreeMap::new(), |mut counts, profile| {
        *counts.entry(profile).or_default() += 1;
        counts
    })
}

/// An event that goes: its number, whose it is, its hash, and whether the engine said it.
#[derive(Deserialize)]
struct OldEvent(i64, i64, i64, u8);

async fn remove_events(people: &[i64], before: Timestamp, tx: &mut Tx<'_>) -> Result<BTreeMap<i64, u64>, StoreError> {
    if people.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answer = query(&OLD_EVENTS).bind(json(people)?).bind(before.as_ms()).fetch_one(&mut tx.session).await?;
    let gone: Vec<OldEvent> = Fields::all("events", &answer)?;
    let numbers: Vec<i64> = gone.iter().map(|event| event.0).collect();
    let known: Vec<(i64, i64)> = gone.iter().filter(|event| event.3 == 0).map(|event| (event.1, event.2)).collect();
    let remove = query(&REMOVE_EVENTS).bind(json(&numbers)?).bind(json(&known)?).bind(tx.memory.next_event());
    remove.execute(&mut tx.session).await?;
    Ok(counts(gone.iter().map(|event| event.1)))
}

/// Puts on record of whom and how much; how much in all.
async fn note(kind: Kept, at: Timestamp, older_than: Timestamp, counts: &BTreeMap<i64, u64>, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    let marks: Vec<_> = counts.iter().map(|(profile, removed)| (profile, kind.name(), older_than.as_ms(), removed)).collect();
    let removed = counts.values().sum();
    if removed > 0 {
        query(&MARK).bind(json(&marks)?).execute(&mut tx.session).await?;
        note_removal(kind, at, older_than, removed, tx).await?;
    }
    Ok(removed)
}

/// Counts rows in the record of a pass.
pub(super) async fn note_removal(
    kind: Kept,
    at: Timestamp,
    older_than: Timestamp,
    removed: u64,
    tx: &mut Tx<'_>,
) -> Result<(), StoreError> {
    let removed = i64::try_from(removed).unwrap_or(i64::MAX);
    let note = query(&NOTE_REMOVAL).bind(kind.name()).bind(at.as_ms()).bind(older_than.as_ms()).bind(removed);
    note.execute(&mut tx.session).await?;
    Ok(())
}

// --------------------------------------------------------------------------------------------------------------- rejects

pub(super) const REMOVE_REJECTS: Sql =
    Sql::same("delete from rejects where seq in (select seq from rejects where last_at < $1 order by seq limit $2)");

pub(super) struct RemoveRejects {
    pub at: Timestamp,
    pub before: Timestamp,
    pub limit: usize,
}

#[async_trait]
impl Work for RemoveRejects {
    type Done = u64;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let remove = query(&REMOVE_REJECTS).bind(self.before.as_ms()).bind(limit);
        let removed = remove.execute(&mut tx.session).await?;
        if removed > 0 {
            note_removal(Kept::Rejects, self.at, self.before, removed, tx).await?;
        }
        Ok(removed)
    }
}

// -------------------------------------------------------------------------------------------------------------- the record

pub(super) const REMOVALS: Sql =
    Sql::same("select kind, removed_at, older_than, removed from removals order by removed_at desc, kind limit $1");

pub(super) async fn removals(session: &mut Session<'_>, limit: usize) -> Result<Vec<RemovalRow>, StoreError> {
    let rows = query(&REMOVALS).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(session).await?;
    let removal = |row| {
        let mut fields = Fields::of("removals", row);
        Ok(RemovalRow {
            kind: fields.word("kind", Kept::named)?,
            at: fields.instant("removed_at")?,
            older_than: fields.instant("older_than")?,
            removed: fields.count("removed")?,
        })
    };
    rows.iter().map(removal).collect()
}

pub(super) const MARKS_OF: Sql = Sql {
    sqlite: "select kind, older_than, removed from removed_rows where profile_id = $1",
    postgres: "select kind, older_than, removed from removed_rows where bucket = bucket($1) and profile_id = $1",
};

/// What of a person was removed.
pub(super) fn marks(rows: &[Row]) -> Result<Marks, StoreError> {
    let mut marks = Marks::default();
    for row in rows {
        let mut fields = Fields::of("removed_rows", row);
        let kind = fields.word("kind", Kept::named)?;
        let mark = Some(Mark { older_than: fields.instant("older_than")?, removed: fields.count("removed")? });
        match kind {
            Kept::Events => marks.events = mark,
            Kept::Messages => marks.messages = mark,
            Kept::Decisions => marks.decisions = mark,
            Kept::Rejects | Kept::People => {}
        }
    }
    Ok(marks)
}
