//! Events come in: each exactly once, creating the people it is about, who are then due.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use super::erasures::of_erased;
use super::identities::{Merge, People};
use super::rows::{Fields, Waits, event_row, id_hash, insert_events, json, wake_people};
use super::{Needs, Sql, Tx, Work, query};
use crate::engine::event::EventKind;
use crate::engine::time::{HOUR_MS, Timestamp};
use crate::store::{Appended, EventSeq, NewEvent, ProfileId, StoreError};

pub(super) struct Append(pub Vec<NewEvent>);

/// The candidates of $1 (number, profile, hash, source, id) that are on record already, or were until their time was over.
pub(super) const FIND_DUPLICATES: Sql = Sql {
    sqlite: "select json_group_array(distinct j.value ->> 0) from json_each($1) j
    where exists (select 1 from events e where e.profile_id = j.value ->> 1 and e.id_hash = j.value ->> 2
            and e.source = j.value ->> 3 and e.event_id = j.value ->> 4)
        or exists (select 1 from removed_events r where r.profile_id = j.value ->> 1 and r.id_hash = j.value ->> 2)",
    postgres: "select coalesce(json_agg(distinct (j.value ->> 0)::bigint), '[]')::text from jsonb_array_elements($1::jsonb) as j(value)
        where exists (select 1 from events e where e.id_hash = (j.value ->> 2)::bigint and e.source = j.value ->> 3
                and e.event_id = j.value ->> 4 /* in one bucket: and e.bucket = $bucket */)
            or exists (select 1 from removed_events r where r.bucket = bucket((j.value ->> 1)::bigint)
                and r.profile_id = (j.value ->> 1)::bigint and r.id_hash = (j.value ->> 2)::bigint)",
};

/// $1: events; $2: (profile, newest event, due); $3: (source, hour, events); $4: newest received_at.
pub(super) const APPEND: Sql = Sql {
    sqlite: concat!(
        insert_events!("$1"),
        "; ",
        wake_people!("$2"),
        ";
    insert into source_hours (source, hour, events)
    select value ->> 0, value ->> 1, value ->> 2 from json_each($3) where true
    on conflict (source, hour) do update set events = events + excluded.events;
    update counters set value = max(value, $4) where name = 'events_received_until'"
    ),
    postgres: concat!(
        insert_events!(postgres "$1"),
        "; ",
        wake_people!(postgres "$2"),
        ";
        insert into source_hours (source, hour, slot, events)
        select value ->> 0, (value ->> 1)::bigint, pg_backend_pid() & 15, (value ->> 2)::bigint
        from jsonb_array_elements($3::jsonb) as value order by 1, 2
        on conflict (source, hour, slot) do update set events = source_hours.events + excluded.events"
    ),
};

/// Inserts proofs of consent from events `e`, up to the instant at which the consent ends, which is for the caller to say.
macro_rules! insert_consents {
    (postgres) => {
        "insert into consents (bucket, profile_id, event_seq, purpose, channel, granted, basis, given_at, source, event_id, occurred_at,
            received_at, text_version, expires_at)
        select e.bucket, e.profile_id, e.seq, coalesce(e.properties::json ->> 'purpose', ''), coalesce(e.properties::json ->> 'channel', ''),
            coalesce(e.properties::json ->> 'granted', '') in ('1', 'true'), coalesce(e.properties::json ->> 'basis', ''),
            coalesce(e.properties::json ->> 'source', ''), e.source, e.event_id, e.occurred_at, e.received_at,
            e.properties::json ->> 'text_version', "
    };
    () => {
        "insert into consents (profile_id, event_seq, purpose, channel, granted, basis, given_at, source, event_id, occurred_at, received_at,
            text_version, expires_at)
        select e.profile_id, e.seq, coalesce(e.properties ->> 'purpose', ''), coalesce(e.properties ->> 'channel', ''),
            coalesce(e.properties ->> 'granted', 0) in (1, 'true'), coalesce(e.properties ->> 'basis', ''),
            coalesce(e.properties ->> 'source', ''), e.source, e.event_id, e.occurred_at, e.received_at,
            e.properties ->> 'text_version', "
    };
}

/// $1: numbers of consent events just inserted, each with the instant at which the consent ends, or null.
pub(super) const RECORD_CONSENTS: Sql = Sql {
    sqlite: concat!(insert_consents!(), "j.value ->> 1 from json_each($1) j join events e on e.seq = j.value ->> 0"),
    postgres: concat!(
        insert_consents!(postgres),
        "(j.value ->> 1)::bigint from jsonb_array_elements($1::jsonb) as j(value) join events e on e.seq = (j.value ->> 0)::bigint
            /* in one bucket: and e.bucket = $bucket */"
    ),
};

#[async_trait]
impl Work for Append {
    type Done = Appended;
    const IS_URGENT: bool = true;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Appended, StoreError> {
        let events = without_the_erased(&self.0, tx).await?;
        if events.is_empty() {
            return Ok(Appended { duplicates: self.0.len() as u64, ..Appended::default() });
        }
        let people = People::resolve(&events, tx).await?;
        tx.take(Needs { people: &people.all(), events: events.len(), still_there: true, ..Needs::default() }).await?;
        let new = write_new(&events, &people.owners(&events)?, tx).await?;
        let merges = people.merges(latest(&events));
        for merge in &merges {
            merge.carry_out(tx).await?;
        }
        let duplicates = self.0.len() as u64 - new;
        Ok(Appended { new, duplicates, profiles_created: people.created_count(), profiles_merged: merges.len() as u64 })
    }
}

/// All but the old facts of people who were erased: those are taken as known, and stay out.
async fn without_the_erased<'e>(events: &'e [NewEvent], tx: &mut Tx<'_>) -> Result<Cow<'e, [NewEvent]>, StoreError> {
    let erased = of_erased(events, tx).await?;
    if erased.is_empty() {
        return Ok(Cow::Borrowed(events));
    }
    let others = events.iter().enumerate().filter(|(number, _)| !erased.contains(number));
    Ok(Cow::Owned(others.map(|(_, new)| new.clone()).collect()))
}

fn latest(events: &[NewEvent]) -> Timestamp {
    events.iter().map(|new| new.event.received_at).max().unwrap_or(Timestamp::DISTANT_PAST)
}

/// Writes those that are not on record; how many.
async fn write_new(events: &[NewEvent], owners: &[ProfileId], tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    let is_duplicate = duplicates(events, owners, tx).await?;
    let new = events.iter().zip(owners).zip(&is_duplicate).filter(|(_, known)| !**known);
    let fresh: Vec<(ProfileId, &NewEvent)> = new.map(|((new, owner), _)| (*owner, new)).collect();
    write(&fresh, tx).await?;
    Ok(fresh.len() as u64)
}

// -------------------------------------------------------------------------------------------------- the same, step by step

/// The candidates of $1 (number, hash, source, id) that are on record of anybody.
pub(super) const FIND_COPIES: Sql = Sql {
    sqlite: "",
    postgres: "select coalesce(json_agg(distinct (j.value ->> 0)::bigint), '[]')::text from jsonb_array_elements($1::jsonb) as j(value)
        join events e on e.id_hash = (j.value ->> 1)::bigint and e.source = j.value ->> 2 and e.event_id = j.value ->> 3",
};

/// First step where people are spread over machines: whose the events are, creating whoever is new. May be done again.
pub(super) struct Greet(pub Vec<NewEvent>);

pub(super) struct Greeted {
    /// Each with its owner; copies of what anybody had sent before are left out.
    pub events: Vec<(ProfileId, NewEvent)>,
    pub known: u64,
    pub created: u64,
    /// To be carried out when the events are written.
    pub merges: Vec<Merge>,
}

#[async_trait]
impl Work for Greet {
    type Done = Greeted;
    const IS_URGENT: bool = true;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Greeted, StoreError> {
        let events = without_the_erased(&self.0, tx).await?;
        if events.is_empty() {
            return Ok(Greeted { events: Vec::new(), known: self.0.len() as u64, created: 0, merges: Vec::new() });
        }
        let people = People::resolve(&events, tx).await?;
        let owners = people.owners(&events)?;
        let copies = copies(&events, tx).await?;
        let mut seen = BTreeSet::new();
        let mut new = Vec::with_capacity(events.len());
        for (number, (event, owner)) in events.iter().zip(owners).enumerate() {
            if !copies.contains(&number) && seen.insert((&event.event.source, &event.event.id)) {
                new.push((owner, event.clone()));
            }
        }
        let known = (self.0.len() - new.len()) as u64;
        Ok(Greeted { events: new, known, created: people.created_count(), merges: people.merges(latest(&events)) })
    }
}

async fn copies(events: &[NewEvent], tx: &mut Tx<'_>) -> Result<BTreeSet<usize>, StoreError> {
    let asked: Vec<_> =
        events.iter().enumerate().map(|(number, new)| (number, id_hash(&new.event), &*new.event.source, &*new.event.id)).collect();
    let answer = query(&FIND_COPIES).bind(json(&asked)?).fetch_one(&mut tx.session).await?;
    Ok(Fields::all::<usize>("events", &answer)?.into_iter().collect())
}

/// Second step, for the people of one bucket: their events are written; how many were new.
pub(super) struct TakeIn(pub Arc<Vec<(ProfileId, NewEvent)>>);

#[async_trait]
impl Work for TakeIn {
    type Done = u64;
    const IS_URGENT: bool = true;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let (owners, events): (Vec<ProfileId>, Vec<NewEvent>) = self.0.iter().cloned().unzip();
        tx.take(Needs { people: &owners, events: events.len(), still_there: true, ..Needs::default() }).await?;
        write_new(&events, &owners, tx).await
    }
}

// ------------------------------------------------------------------------------------------------------------ what is new

/// For each event: whether it is a copy of one on record, or of one before it in the batch.
pub(super) async fn duplicates(events: &[NewEvent], owners: &[ProfileId], tx: &mut Tx<'_>) -> Result<Vec<bool>, StoreError> {
    let mut first_of_batch: HashMap<(&str, &str), ()> = HashMap::with_capacity(events.len());
    let mut is_duplicate = Vec::with_capacity(events.len());
    let mut candidates = Vec::new();
    for (number, (new, owner)) in events.iter().zip(owners).enumerate() {
        let event = &new.event;
        is_duplicate.push(first_of_batch.insert((&event.source, &event.id), ()).is_some());
        let hash = id_hash(event);
        let remembered = tx.memory.recent_owner(hash);
        // what does not say when it happened has happened as it came
        let is_undated = event.occurred_at >= event.received_at;
        if remembered.is_some() || is_undated || tx.memory.may_be_forgotten(event.occurred_at) {
            candidates.push((number, owner.0, hash, &*event.source, &*event.id));
        }
        // the id came in under another identity of the same person, or of another
        if let Some(other) = remembered.filter(|other| other != owner) {
            candidates.push((number, other.0, hash, &*event.source, &*event.id));
        }
    }
    if !candidates.is_empty() {
        let answer = query(&FIND_DUPLICATES).bind(json(&candidates)?).fetch_one(&mut tx.session).await?;
        for number in Fields::all::<usize>("events", &answer)? {
            if let Some(flag) = is_duplicate.get_mut(number) {
                *flag = true;
            }
        }
    }
    Ok(is_duplicate)
}

pub(super) async fn write(fresh: &[(ProfileId, &NewEvent)], tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if fresh.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(fresh.len());
    let mut due: BTreeMap<ProfileId, (Timestamp, EventSeq)> = BTreeMap::new();
    let mut hours: BTreeMap<(&str, i64), u64> = BTreeMap::new();
    let mut consents = Vec::new();
    let mut received_until = i64::MIN;
    for (owner, new) in fresh {
        let event = &new.event;
        let seq = tx.memory.event_seq()?;
        rows.push(event_row(seq, *owner, event, Waits::AndWakes)?);
        let (at, newest) = due.entry(*owner).or_insert((event.received_at, seq));
        (*at, *newest) = ((*at).min(event.received_at), seq);
        if new.active {
            *hours.entry((&event.source, event.occurred_at.as_ms().div_euclid(HOUR_MS) * HOUR_MS)).or_default() += 1;
        }
        if event.kind == EventKind::Consent {
            let expires_at = event.text_property("expires_at").and_then(Timestamp::parse);
            consents.push((seq.0, expires_at.map(Timestamp::as_ms)));
        }
        received_until = received_until.max(event.received_at.as_ms());
        tx.memory.remember(id_hash(event), *owner, event.received_at);
    }
    let due: Vec<_> = due.into_iter().map(|(id, (at, seq))| (id.0, seq.0, at.as_ms())).collect();
    let hours: Vec<_> = hours.into_iter().map(|((source, hour), events)| (source, hour, events)).collect();
    query(&APPEND).bind(json(&rows)?).bind(json(&due)?).bind(json(&hours)?).bind(received_until).execute(&mut tx.session).await?;
    if !consents.is_empty() {
        query(&RECORD_CONSENTS).bind(json(&consents)?).execute(&mut tx.session).await?;
    }
    Ok(())
}
