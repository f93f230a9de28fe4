//! Reading without a claim: one person, everybody in pages, the decision log, sums.

use std::collections::{BTreeMap, BTreeSet};

use super::identities::{FIND_IDENTITIES, parts as identity_parts};
use super::retention;
use super::rows::{Fields, event, event_columns, hex, json, message, message_columns, message_state};
use super::{Row, Session, Sql, query};
use crate::engine::action::{Channel, Entry, ExposureRecord, MessageId, MessageState, Posting, PostingKind, What};
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::store::erasure::ERASED;
use crate::store::{
    Attempt, ConsentRecord, Counts, EntryRow, EventRow, EventSeq, Glance, History, Identity, MessageRow, ProfileId, ProfilePage, SetAside,
    StoreError, StoredProfile, dump as text,
};

pub(super) const NEXT_DUE: Sql = Sql {
    sqlite: "select min(due_at) from (
    select min(due_at) as due_at from profiles where due_at is not null
    union all
    select due_at from (
        select m.due_at from messages m join profiles p on p.id = m.profile_id
        where m.state = 'queued' and p.quarantined_at is null order by m.due_at limit 1))",
    postgres: "select min(due_at) from (
        select min(due_at) as due_at from profiles where due_at is not null
        union all
        select due_at from (
            select m.due_at from messages m join profiles p on p.bucket = m.bucket and p.id = m.profile_id
            where m.state = 'queued' and p.quarantined_at is null order by m.due_at limit 1) first) both_of",
};

pub(super) async fn next_due(session: &mut Session<'_>) -> Result<Option<Timestamp>, StoreError> {
    let row = query(&NEXT_DUE).fetch_one(session).await?;
    Fields::of("profiles", &row).optional_instant("due_at")
}

/// $1 upto. A message and its person may both be due: the earlier one counts.
pub(super) const AGENDA: Sql = Sql {
    sqlite: "select json_group_array(json_array(id, due_at)) from (select id, min(due_at) as due_at from (
    select p.id, p.due_at from profiles p where p.due_at is not null and p.due_at <= $1
    union all
    select m.profile_id, m.due_at from messages m join profiles p on p.id = m.profile_id
    where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null)
    group by id)",
    postgres:
        "select coalesce(json_agg(json_build_array(id, due_at) order by id), '[]')::text from (select id, min(due_at) as due_at from (
        select p.id, p.due_at from profiles p where p.due_at is not null and p.due_at <= $1
        union all
        select m.profile_id, m.due_at from messages m join profiles p on p.bucket = m.bucket and p.id = m.profile_id
        where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null) due
        group by id) firsts",
};

pub(super) async fn agenda(session: &mut Session<'_>, upto: Timestamp) -> Result<Vec<(ProfileId, Timestamp)>, StoreError> {
    let answer = query(&AGENDA).bind(upto.as_ms()).fetch_one(session).await?;
    let due = Fields::all::<(i64, i64)>("profiles", &answer)?;
    Ok(due.into_iter().map(|(id, at)| (ProfileId(id), Timestamp::from_ms(at))).collect())
}

// ------------------------------------------------------------------------------------------------------------ profiles

pub(super) async fn find_profiles(session: &mut Session<'_>, identities: &[Identity]) -> Result<Vec<Option<ProfileId>>, StoreError> {
    let asked: Vec<_> = identities.iter().map(identity_parts).collect();
    let answer = query(&FIND_IDENTITIES).bind(json(&asked)?).fetch_one(session).await?;
    let mut found = vec![None; identities.len()];
    for (place, id) in Fields::all::<(usize, i64)>("identities", &answer)? {
        if let Some(slot) = found.get_mut(place) {
            *slot = Some(ProfileId(id));
        }
    }
    Ok(found)
}

pub(super) const PROFILES: Sql = Sql::same(
    "select p.id, p.key, p.version, p.due_at, p.absorbed_seq, p.quarantined_at, p.quarantined_because,
        p.merged_into, p.state
    from profiles p where p.id > $1 order by p.id limit $2",
);
pub(super) const WAITING: Sql = Sql {
    sqlite: concat!(
        "select e.profile_id, ",
        event_columns!(),
        " from json_each($1) j join events e on e.profile_id = j.value ->> 0 and e.seq > j.value ->> 1
    where e.waits > 0 order by e.profile_id, e.seq"
    ),
    postgres: concat!(
        "select e.profile_id, ",
        event_columns!(),
        " from jsonb_array_elements($1::jsonb) as j(value)
        join events e on e.bucket = bucket((j.value ->> 0)::bigint) and e.profile_id = (j.value ->> 0)::bigint
            and e.seq > (j.value ->> 1)::bigint
        where e.waits > 0 order by e.profile_id, e.seq"
    ),
};

pub(super) const GLANCE: Sql = Sql {
    sqlite: "select p.id,
        (select count(*) from events e where e.profile_id = p.id and e.seq > p.absorbed_seq and e.waits > 0), p.state
    from identities i join profiles p on p.id = i.profile_id where i.kind = $1 and i.value = $2",
    postgres: "select p.id, (select count(*) from events e
            where e.bucket = p.bucket and e.profile_id = p.id and e.seq > p.absorbed_seq and e.waits > 0), p.state
        from identities i join profiles p on p.bucket = bucket(i.profile_id) and p.id = i.profile_id where i.kind = $1 and i.value = $2",
};

pub(super) async fn glance(session: &mut Session<'_>, identity: &Identity) -> Result<Option<Glance>, StoreError> {
    let (kind, value) = identity_parts(identity);
    let Some(row) = query(&GLANCE).bind(kind).bind(value).fetch_optional(session).await? else { return Ok(None) };
    let mut fields = Fields::of("profiles", &row);
    let (id, waiting) = (ProfileId(fields.next("id")?), fields.count("waiting")?);
    Ok(Some(Glance { id, profile: fields.state("state")?, waiting }))
}

pub(super) async fn profile(session: &mut Session<'_>, id: ProfileId) -> Result<Option<StoredProfile>, StoreError> {
    let page = profiles(session, Some(ProfileId(id.0.saturating_sub(1))), 1).await?;
    if let Some((_, _, error)) = page.unreadable.into_iter().find(|(unreadable, _, _)| *unreadable == id) {
        return Err(error);
    }
    Ok(page.profiles.into_iter().next().filter(|profile| profile.id == id))
}

pub(super) async fn profiles(session: &mut Session<'_>, after: Option<ProfileId>, limit: usize) -> Result<ProfilePage, StoreError> {
    // one snapshot: what waits must be what the state has not absorbed
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(&PROFILES).bind(after.map_or(0, |id| id.0)).bind(limit).fetch_all(session).await?;
    let (mut page, mut absorbed) = (ProfilePage::default(), Vec::with_capacity(rows.len()));
    for row in &rows {
        let mut fields = Fields::of("profiles", row);
        let (id, key) = (ProfileId(fields.next("id")?), fields.name("key")?);
        page.last = Some(id);
        match stored_profile(id, &mut fields) {
            Ok((profile, seq)) => {
                absorbed.push((id.0, seq));
                page.profiles.push(profile);
            }
            Err(error) => page.unreadable.push((id, key, error)),
        }
    }
    let mut waiting = BTreeMap::<ProfileId, Vec<_>>::new();
    for row in query(&WAITING).bind(json(&absorbed)?).fetch_all(session).await? {
        let mut fields = Fields::of("events", &row);
        let id = ProfileId(fields.next("profile_id")?);
        waiting.entry(id).or_default().push(event(&mut fields)?);
    }
    for profile in &mut page.profiles {
        profile.waiting = waiting.remove(&profile.id).unwrap_or_default();
    }
    Ok(page)
}

/// A row of `PROFILES` from its version on, and up to which event it has absorbed.
fn stored_profile(id: ProfileId, fields: &mut Fields<'_>) -> Result<(StoredProfile, i64), StoreError> {
    let (version, due_at) = (fields.next("version")?, fields.due("due_at")?);
    let absorbed = fields.next("absorbed_seq")?;
    let (at, because) = (fields.optional_instant("quarantined_at")?, fields.next::<Option<String>>("quarantined_because")?);
    let quarantined = at.map(|at| (at, because.unwrap_or_default()));
    let merged_into = fields.next::<Option<i64>>("merged_into")?.map(ProfileId);
    let profile = fields.state("state")?;
    Ok((StoredProfile { id, version, profile, due_at, waiting: Vec::new(), quarantined, merged_into }, absorbed))
}

pub(super) const SET_ASIDE_NOW: Sql = Sql::same(
    "select id, key, quarantined_at, quarantined_because from profiles
    where quarantined_at is not null and merged_into is null and quarantined_because <> $1 and id > $2 order by id limit $3",
);

pub(super) async fn set_aside(session: &mut Session<'_>, after: Option<ProfileId>, limit: usize) -> Result<Vec<SetAside>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ask = query(&SET_ASIDE_NOW).bind(ERASED).bind(after.map_or(0, |id| id.0)).bind(limit);
    let aside = |row: &Row| {
        let mut fields = Fields::of("profiles", row);
        let (profile, key) = (ProfileId(fields.next("id")?), fields.name("key")?);
        Ok(SetAside { profile, key, at: fields.instant("quarantined_at")?, because: fields.next("quarantined_because")? })
    };
    ask.fetch_all(session).await?.iter().map(aside).collect()
}

// ------------------------------------------------------------------------------------------------------------- history

pub(super) const EVENTS_OF: Sql = Sql {
    sqlite: concat!(
        "select e.seq, e.waits, p.absorbed_seq, ",
        event_columns!(),
        " from events e join profiles p on p.id = e.profile_id where e.profile_id = $1 order by e.occurred_at, e.event_id"
    ),
    postgres: concat!(
        "select e.seq, e.waits, p.absorbed_seq, ",
        event_columns!(),
        " from events e join profiles p on p.bucket = e.bucket and p.id = e.profile_id
        where e.bucket = bucket($1) and e.profile_id = $1 order by e.occurred_at, e.event_id collate \"C\""
    ),
};
pub(super) const POSTINGS_OF: Sql = Sql {
    sqlite: "select number, kind, class, amount, posted_at, reason, rule, run, step, notice,
        (select json_group_array(json_array(a.lot, a.amount) order by a.lot) from allocations a
            where a.profile_id = p.profile_id and a.posting = p.number)
    from postings p where profile_id = $1 order by number",
    postgres: "select number, kind, class, amount, posted_at, reason, rule, run, step, notice,
            (select coalesce(json_agg(json_build_array(a.lot, a.amount) order by a.lot), '[]')::text from allocations a
                where a.bucket = bucket($1) and a.profile_id = $1 and a.posting = p.number)
        from postings p where bucket = bucket($1) and profile_id = $1 order by number",
};
pub(super) const ENTRIES_OF: Sql = Sql {
    sqlite: "select seq, profile_id, rules_version, entered_at, rule, run, step, what, because, until_at
    from entries where profile_id = $1 order by seq",
    postgres: "select seq, profile_id, rules_version, entered_at, rule, run, step, what, because, until_at
        from entries where bucket = bucket($1) and profile_id = $1 order by seq",
};
pub(super) const EXPOSURES_OF: Sql = Sql {
    sqlite: "select rule, run_key, run, exposed_at, held_out, decided_by
    from exposures where profile_id = $1 order by exposed_at, rule, run_key, run",
    postgres: "select rule, run_key, run, exposed_at, held_out, decided_by
        from exposures where bucket = bucket($1) and profile_id = $1 order by exposed_at, rule collate \"C\", run_key collate \"C\", run",
};
pub(super) const MESSAGES_OF: Sql = Sql {
    sqlite: concat!(
        "select ",
        message_columns!(),
        ", m.profile_id, m.state, m.because, m.changed_at, m.outcomes, m.attempts, m.consent_seq from messages m where m.profile_id = $1 order by m.decided_at, m.id"
    ),
    postgres: concat!(
        "select ",
        message_columns!(),
        ", m.profile_id, m.state, m.because, m.changed_at, m.outcomes, m.attempts, m.consent_seq from messages m
        where m.bucket = bucket($1) and m.profile_id = $1 order by m.decided_at, m.id"
    ),
};
pub(super) const ATTEMPTS_OF: Sql = Sql {
    sqlite: "select message_id, number, worker, started_at, ended_at, outcome, provider_id, detail
    from attempts where profile_id = $1 order by message_id, number",
    postgres: "select message_id, number, worker, started_at, ended_at, outcome, provider_id, detail
        from attempts where bucket = bucket($1) and profile_id = $1 order by message_id, number",
};

pub(super) const IDENTITIES_OF: Sql = Sql {
    sqlite: "select kind, value from identities where profile_id = $1 order by kind, value",
    postgres: "select kind, value from identities where profile_id = $1 order by kind collate \"C\", value collate \"C\"",
};
/// Profiles that turned out to be one of the people $1.
pub(super) const MERGED_INTO: Sql = Sql {
    sqlite: "select json_group_array(p.id) from json_each($1) j join profiles p on p.merged_into = j.value",
    postgres: "select coalesce(json_agg(p.id), '[]')::text from jsonb_array_elements_text($1::jsonb) as j(value)
        join profiles p on p.merged_into = j.value::bigint",
};
pub(super) const CONSENTS_OF: Sql = Sql {
    sqlite: "select event_id, source, purpose, channel, granted, occurred_at
    from consents where profile_id = $1 order by event_seq",
    postgres: "select event_id, source, purpose, channel, granted, occurred_at
        from consents where bucket = bucket($1) and profile_id = $1 order by event_seq",
};

pub(super) async fn history(session: &mut Session<'_>, id: ProfileId) -> Result<History, StoreError> {
    let mut history = History::default();
    for row in query(&EVENTS_OF).bind(id.0).fetch_all(session).await? {
        let mut fields = Fields::of("events", &row);
        let seq = EventSeq(fields.next("seq")?);
        let (waits, absorbed): (i64, i64) = (fields.next("waits")?, fields.next("absorbed_seq")?);
        history.events.push((event(&mut fields)?, waits == 0 || seq.0 <= absorbed));
    }
    for row in query(&POSTINGS_OF).bind(id.0).fetch_all(session).await? {
        history.postings.push(posting(&row)?);
    }
    for row in query(&ENTRIES_OF).bind(id.0).fetch_all(session).await? {
        history.entries.push(entry(&row)?);
    }
    for row in query(&EXPOSURES_OF).bind(id.0).fetch_all(session).await? {
        history.exposures.push(exposure(&row)?);
    }
    let rows = query(&MESSAGES_OF).bind(id.0).fetch_all(session).await?;
    history.messages = rows.iter().map(message_row).collect::<Result<_, _>>()?;
    let attempts = query(&ATTEMPTS_OF).bind(id.0).fetch_all(session).await?;
    add_attempts(&mut history.messages, &attempts)?;
    for row in query(&IDENTITIES_OF).bind(id.0).fetch_all(session).await? {
        let mut fields = Fields::of("identities", &row);
        history.identities.push(fields.word("kind", identity_kind)?(fields.name("value")?));
    }
    for row in query(&CONSENTS_OF).bind(id.0).fetch_all(session).await? {
        history.consents.push(consent(&row)?);
    }
    history.removed = retention::marks(&query(&retention::MARKS_OF).bind(id.0).fetch_all(session).await?)?;
    history.merged = merged(session, id).await?;
    Ok(history)
}

/// Profiles that turned out to be this person, and those that had turned out to be one of them.
pub(super) async fn merged(session: &mut Session<'_>, id: ProfileId) -> Result<Vec<ProfileId>, StoreError> {
    let (mut merged, mut latest) = (BTreeSet::new(), vec![id.0]);
    while !latest.is_empty() {
        let answer = query(&MERGED_INTO).bind(json(&latest)?).fetch_one(session).await?;
        latest = Fields::all::<i64>("profiles", &answer)?.into_iter().filter(|found| merged.insert(*found)).collect();
    }
    Ok(merged.into_iter().map(ProfileId).collect())
}

fn identity_kind(kind: &str) -> Option<fn(Name) -> Identity> {
    match kind {
        "user" => Some(Identity::User),
        "anonymous" => Some(Identity::Anonymous),
        _ => None,
    }
}

fn consent(row: &Row) -> Result<ConsentRecord, StoreError> {
    let mut fields = Fields::of("consents", row);
    Ok(ConsentRecord {
        event: fields.name("event_id")?,
        source: fields.name("source")?,
        purpose: fields.name("purpose")?,
        channel: fields.name("channel")?,
        granted: fields.next("granted")?,
        occurred_at: fields.instant("occurred_at")?,
    })
}

fn posting(row: &Row) -> Result<Posting, StoreError> {
    let mut fields = Fields::of("postings", row);
    Ok(Posting {
        number: fields.count("number")?,
        kind: fields.word("kind", PostingKind::named)?,
        class: fields.name("class")?,
        amount: fields.next("amount")?,
        at: fields.instant("posted_at")?,
        reason: fields.name("reason")?,
        rule: fields.next::<Option<&str>>("rule")?.map(Name::from),
        run: fields.optional_count("run")?,
        step: fields.next::<Option<&str>>("step")?.map(Name::from),
        notice: fields.optional_message_id("notice")?,
        allocations: fields.json("allocations")?,
    })
}

fn entry(row: &Row) -> Result<EntryRow, StoreError> {
    let mut fields = Fields::of("entries", row);
    let (seq, profile) = (fields.next("seq")?, ProfileId(fields.next("profile_id")?));
    let rules_version = fields.next::<i64>("rules_version")? as u64;
    let entry = Entry {
        at: fields.instant("entered_at")?,
        rule: fields.name("rule")?,
        run: fields.count("run")?,
        step: fields.name("step")?,
        what: fields.word("what", What::named)?,
        because: fields.name("because")?,
        until: fields.optional_instant("until_at")?,
    };
    Ok(EntryRow { seq, profile, rules_version, entry })
}

fn exposure(row: &Row) -> Result<ExposureRecord, StoreError> {
    let mut fields = Fields::of("exposures", row);
    Ok(ExposureRecord {
        rule: fields.name("rule")?,
        run_key: fields.name("run_key")?,
        run: fields.count("run")?,
        at: fields.instant("exposed_at")?,
        held_out: fields.next("held_out")?,
        by: fields.name("decided_by")?,
    })
}

fn message_row(row: &Row) -> Result<MessageRow, StoreError> {
    message_fields(&mut Fields::of("messages", row))
}

fn message_fields(fields: &mut Fields<'_>) -> Result<MessageRow, StoreError> {
    let message = message(fields)?;
    Ok(MessageRow {
        message,
        profile: ProfileId(fields.next("profile_id")?),
        state: message_state(fields)?,
        because: fields.next::<Option<&str>>("because")?.map(Name::from),
        changed_at: fields.instant("changed_at")?,
        outcomes: fields.count("outcomes")?,
        tries: fields.count("attempts")?,
        consent: fields.next::<Option<i64>>("consent_seq")?.map(EventSeq),
        attempts: Vec::new(),
    })
}

fn add_attempts(messages: &mut [MessageRow], rows: &[Row]) -> Result<(), StoreError> {
    let mut by_message: BTreeMap<MessageId, Vec<Attempt>> = BTreeMap::new();
    for row in rows {
        let mut fields = Fields::of("attempts", row);
        let message = fields.message_id("message_id")?;
        let attempt = Attempt {
            number: fields.count("number")?,
            worker: fields.name("worker")?,
            started_at: fields.instant("started_at")?,
            ended_at: fields.optional_instant("ended_at")?,
            outcome: fields.next::<Option<&str>>("outcome")?.map(Name::from),
            provider_id: fields.next("provider_id")?,
            detail: fields.next("detail")?,
        };
        by_message.entry(message).or_default().push(attempt);
    }
    for message in messages {
        message.attempts = by_message.remove(&message.message.id).unwrap_or_default();
    }
    Ok(())
}

pub(super) const MESSAGES: Sql = Sql {
    sqlite: concat!(
        "select ",
        message_columns!(),
        ", m.profile_id, m.state, m.because, m.changed_at, m.outcomes, m.attempts, m.consent_seq from json_each($1) j join messages m on m.id = unhex(j.value)"
    ),
    postgres: concat!(
        "select ",
        message_columns!(),
        ", m.profile_id, m.state, m.because, m.changed_at, m.outcomes, m.attempts, m.consent_seq
        from jsonb_array_elements_text($1::jsonb) as j(value) join messages m on m.id = decode(j.value, 'hex')"
    ),
};

pub(super) const ATTEMPTS: Sql = Sql {
    sqlite: "select a.message_id, a.number, a.worker, a.started_at, a.ended_at, a.outcome, a.provider_id, a.detail
    from json_each($1) j join messages m on m.id = unhex(j.value)
    join attempts a on a.profile_id = m.profile_id and a.message_id = m.id order by a.message_id, a.number",
    postgres: "select a.message_id, a.number, a.worker, a.started_at, a.ended_at, a.outcome, a.provider_id, a.detail
        from jsonb_array_elements_text($1::jsonb) as j(value) join messages m on m.id = decode(j.value, 'hex')
        join attempts a on a.bucket = m.bucket and a.profile_id = m.profile_id and a.message_id = m.id
        order by a.message_id, a.number",
};

pub(super) async fn messages(session: &mut Session<'_>, ids: &[MessageId]) -> Result<Vec<MessageRow>, StoreError> {
    let asked: Vec<String> = ids.iter().map(|id| hex(id.0)).collect();
    let rows = query(&MESSAGES).bind(json(&asked)?).fetch_all(session).await?;
    let mut messages: Vec<MessageRow> = rows.iter().map(message_row).collect::<Result<_, _>>()?;
    let attempts = query(&ATTEMPTS).bind(json(&asked)?).fetch_all(session).await?;
    add_attempts(&mut messages, &attempts)?;
    Ok(messages)
}

pub(super) const OPEN_MESSAGES: Sql = Sql::same(concat!(
    "select m.seq, ",
    message_columns!(),
    ", m.profile_id, m.state, m.because, m.changed_at, m.outcomes, m.attempts, m.consent_seq from messages m
    where m.state in ('queued', 'leased') and m.seq > $1 order by m.seq limit $2"
));

pub(super) async fn open_messages(session: &mut Session<'_>, after: i64, limit: usize) -> Result<Vec<(i64, MessageRow)>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(&OPEN_MESSAGES).bind(after).bind(limit).fetch_all(session).await?;
    let numbered = |row: &Row| {
        let mut fields = Fields::of("messages", row);
        Ok((fields.next("seq")?, message_fields(&mut fields)?))
    };
    rows.iter().map(numbered).collect()
}

pub(super) const ENTRIES: Sql = Sql::same(
    "select seq, profile_id, rules_version, entered_at, rule, run, step, what, because, until_at
    from entries where seq > $1 order by seq limit $2",
);

pub(super) async fn entries(session: &mut Session<'_>, after: i64, limit: usize) -> Result<Vec<EntryRow>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(&ENTRIES).bind(after).bind(limit).fetch_all(session).await?;
    rows.iter().map(entry).collect()
}

pub(super) const EVENTS: Sql =
    Sql::same(concat!("select e.seq, e.profile_id, ", event_columns!(), " from events e where e.seq > $1 order by e.seq limit $2"));

pub(super) async fn events(session: &mut Session<'_>, after: EventSeq, limit: usize) -> Result<Vec<EventRow>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(&EVENTS).bind(after.0).bind(limit).fetch_all(session).await?;
    let row = |row: &Row| {
        let mut fields = Fields::of("events", row);
        let (seq, profile) = (EventSeq(fields.next("seq")?), ProfileId(fields.next("profile_id")?));
        Ok(EventRow { seq, profile, event: event(&mut fields)? })
    };
    rows.iter().map(row).collect()
}

// ---------------------------------------------------------------------------------------------------------------- sums

pub(super) const COUNT_ALL: Sql = Sql::same(
    "select (select count(*) from profiles), (select count(*) from profiles where quarantined_at is not null and merged_into is null),
    (select count(*) from events), (select count(*) from attempts)",
);
pub(super) const COUNT_ENTRIES: Sql = Sql::same(
    "select rule, step, what, case when what in ('ended', 'result') then because else '' end as outcome, count(*)
    from entries group by rule, step, what, outcome",
);
pub(super) const COUNT_MESSAGES: Sql =
    Sql::same("select rule, step, channel, state, count(*) from messages group by rule, step, channel, state");
pub(super) const COUNT_POSTINGS: Sql = Sql {
    sqlite: "select kind, class, count(*), sum(amount) from postings group by kind, class",
    postgres: "select kind, class, count(*), sum(amount)::bigint from postings group by kind, class",
};
pub(super) const COUNT_EXPOSURES: Sql = Sql::same("select rule, held_out, count(*) from exposures group by rule, held_out");

pub(super) async fn counts(session: &mut Session<'_>) -> Result<Counts, StoreError> {
    let row = query(&COUNT_ALL).fetch_one(session).await?;
    let mut fields = Fields::of("profiles", &row);
    let (profiles, quarantined) = (fields.count("profiles")?, fields.count("quarantined")?);
    let (events, attempts) = (fields.count("events")?, fields.count("attempts")?);
    let mut counts = Counts { profiles, quarantined, events, attempts, ..Counts::default() };
    for row in query(&COUNT_ENTRIES).fetch_all(session).await? {
        let mut fields = Fields::of("entries", &row);
        let key = (fields.name("rule")?, fields.name("step")?, fields.word("what", What::named)?, fields.name("because")?);
        counts.entries.insert(key, fields.count("count")?);
    }
    for row in query(&COUNT_MESSAGES).fetch_all(session).await? {
        let mut fields = Fields::of("messages", &row);
        let (rule, step) = (fields.name("rule")?, fields.name("step")?);
        let key = (rule, step, fields.word("channel", Channel::named)?, fields.word("state", MessageState::named)?);
        counts.messages.insert(key, fields.count("count")?);
    }
    for row in query(&COUNT_POSTINGS).fetch_all(session).await? {
        let mut fields = Fields::of("postings", &row);
        let key = (fields.word("kind", PostingKind::named)?, fields.name("class")?);
        counts.postings.insert(key, (fields.count("count")?, fields.next("amount")?));
    }
    for row in query(&COUNT_EXPOSURES).fetch_all(session).await? {
        let mut fields = Fields::of("exposures", &row);
        counts.exposures.insert((fields.name("rule")?, fields.next("held_out")?), fields.count("count")?);
    }
    Ok(counts)
}

pub(super) const COUNT_DAYS_SENT: Sql = Sql {
    sqlite: "select channel, day, sum(attempts) from (
        select m.channel, a.started_at - a.started_at % 86400000 as day, count(*) as attempts
        from attempts a join messages m on m.profile_id = a.profile_id and m.id = a.message_id
        where coalesce(a.provider_id, '') not like 'simulated-%' group by m.channel, day
        union all select channel, day, attempts from removed_attempts)
    group by channel, day order by channel, day",
    postgres: "select channel, day, sum(attempts)::bigint from (
            select m.channel, a.started_at - a.started_at % 86400000 as day, count(*) as attempts
            from attempts a join messages m on m.bucket = a.bucket and m.profile_id = a.profile_id and m.id = a.message_id
            where coalesce(a.provider_id, '') not like 'simulated-%' group by m.channel, day
            union all select channel, day, attempts from removed_attempts) counted
        group by channel, day order by channel, day",
};

/// Walks over all attempts: for the start of a process.
pub(super) async fn days_sent(session: &mut Session<'_>) -> Result<Vec<(Channel, Timestamp, u64)>, StoreError> {
    let mut days = Vec::new();
    for row in query(&COUNT_DAYS_SENT).fetch_all(session).await? {
        let mut fields = Fields::of("attempts", &row);
        days.push((fields.word("channel", Channel::named)?, fields.instant("started_at")?, fields.count("count")?));
    }
    Ok(days)
}

pub(super) async fn dump(session: &mut Session<'_>, id: ProfileId) -> Result<String, StoreError> {
    match profile(session, id).await? {
        Some(profile) => Ok(text::text(&profile, &history(session, id).await?)),
        None => Ok(format!("no profile {}\n", id.0)),
    }
}
