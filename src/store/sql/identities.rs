//! Who somebody is: the identity table, people not seen before, and merges when two turn out to be one.
//!
//! A merge is two steps, each idempotent, and neither needs the other in one transaction: the facts of the profile that goes are copied to
//! the one that stays (those that it has already are left out), then the one that goes is closed. What is still heard of the one
//! that goes comes to the one that stays, because the identities point there first.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;

use super::append::RECORD_CONSENTS;
use super::rows::{Fields, States, StoredEvent, Waits, event_columns, event_row, id_hash, insert_events, json, wake_people};
use super::{Needs, Sql, Tx, Work, query};
use crate::engine::action::MessageId;
use crate::engine::event::{Event, EventKind};
use crate::engine::merge;
use crate::engine::profile::Profile;
use crate::engine::time::Timestamp;
use crate::store::{EventSeq, Identity, Link, NewEvent, ProfileId, StoreError};

/// $1: (kind, value). The known ones by their place there.
pub(super) const FIND_IDENTITIES: Sql = Sql {
    sqlite: "select json_group_array(json_array(j.key, i.profile_id)) from json_each($1) j
    join identities i on i.kind = j.value ->> 0 and i.value = j.value ->> 1",
    postgres: "select coalesce(json_agg(json_build_array(j.key - 1, i.profile_id)), '[]')::text
        from jsonb_array_elements($1::jsonb) with ordinality as j(value, key)
        join identities i on i.kind = j.value ->> 0 and i.value = j.value ->> 1",
};

/// Which of the profiles $1 are known by a user id.
pub(super) const FIND_USERS: Sql = Sql {
    sqlite: "select distinct i.profile_id from json_each($1) j
    join identities i on i.profile_id = j.value where i.kind = 'user'",
    postgres: "select distinct i.profile_id from jsonb_array_elements_text($1::jsonb) as j(value)
        join identities i on i.profile_id = j.value::bigint where i.kind = 'user'",
};

/// $1: rows of id, key, place and length of the state in $2; $3: rows of kind, value, profile.
pub(super) const CREATE_PROFILES: Sql = Sql {
    sqlite: "
    insert into profiles (id, key, version, due_at, absorbed_seq, woken_seq, state)
    select value ->> 0, value ->> 1, 0, null, 0, 0, substr($2, value ->> 2, value ->> 3) from json_each($1);
    insert into identities (kind, value, profile_id)
    select value ->> 0, value ->> 1, value ->> 2 from json_each($3)",
    postgres: "
        insert into profiles (bucket, id, key, version, due_at, absorbed_seq, woken_seq, state)
        select bucket((value ->> 0)::bigint), (value ->> 0)::bigint, value ->> 1, 0, null, 0, 0,
            substr($2::bytea, (value ->> 2)::integer, (value ->> 3)::integer)
        from jsonb_array_elements($1::jsonb) as value;
        insert into identities (kind, value, profile_id)
        select value ->> 0, value ->> 1, (value ->> 2)::bigint from jsonb_array_elements($3::jsonb) as value order by 1, 2",
};

/// What becomes of the people that a batch speaks of.
#[derive(Default)]
pub(super) struct People {
    of: HashMap<Identity, ProfileId>,
    /// With the key of each.
    created: Vec<(ProfileId, String)>,
    attached: Vec<(Identity, ProfileId)>,
    /// (gone, stays), in order.
    merged: Vec<(ProfileId, ProfileId)>,
}

impl People {
    /// Looks everybody up, follows the links, and creates whoever is new.
    pub async fn resolve(events: &[NewEvent], tx: &mut Tx<'_>) -> Result<People, StoreError> {
        let mut people = People::default();
        people.find(events, tx).await?;
        let mut users = people.users_among_the_linked(events, tx).await?;
        tx.take(Needs { profiles: people.unknown(events), ..Needs::default() }).await?;
        for new in events {
            if let (Identity::User(_), Some(link)) = (&new.identity, &new.link) {
                people.follow(&new.identity, link, &mut users, tx)?;
            }
        }
        for new in events {
            if !people.of.contains_key(&new.identity) {
                people.create(&new.identity, tx)?;
            }
        }
        people.write(tx).await?;
        Ok(people)
    }

    /// Whose each event is.
    pub fn owners(&self, events: &[NewEvent]) -> Result<Vec<ProfileId>, StoreError> {
        let owner = |new: &NewEvent| self.of.get(&new.identity).copied();
        let lost = || StoreError::Unavailable("an identity was neither found nor created".into());
        events.iter().map(|new| owner(new).ok_or_else(lost)).collect()
    }

    pub fn created_count(&self) -> u64 {
        self.created.len() as u64
    }

    /// Everybody whom the batch speaks of, those who go in a merge too.
    pub fn all(&self) -> Vec<ProfileId> {
        self.of.values().copied().chain(self.merged.iter().map(|(gone, _)| *gone)).collect()
    }

    /// How many of the senders' names are known of nobody.
    fn unknown(&self, events: &[NewEvent]) -> usize {
        events.iter().map(|new| &new.identity).filter(|identity| !self.of.contains_key(identity)).collect::<BTreeSet<_>>().len()
    }

    async fn find(&mut self, events: &[NewEvent], tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let mut distinct: BTreeSet<Identity> = events.iter().map(|new| new.identity.clone()).collect();
        distinct.extend(events.iter().filter_map(|new| new.link.as_ref()).flat_map(linked));
        let distinct: Vec<Identity> = distinct.into_iter().collect();
        let asked: Vec<_> = distinct.iter().map(parts).collect();
        let answer = query(&FIND_IDENTITIES).bind(json(&asked)?).fetch_one(&mut tx.session).await?;
        for (place, id) in Fields::all::<(usize, i64)>("identities", &answer)? {
            if let Some(identity) = distinct.get(place) {
                self.of.insert(identity.clone(), ProfileId(id));
            }
        }
        Ok(())
    }

    /// Asked only for people whose two ids are two profiles so far; mostly nobody.
    async fn users_among_the_linked(&self, events: &[NewEvent], tx: &mut Tx<'_>) -> Result<HashSet<ProfileId>, StoreError> {
        let links = events.iter().filter_map(|new| Some((&new.identity, new.link.as_ref()?)));
        let apart = links.flat_map(|(user, link)| {
            let user = self.of.get(user);
            linked(link).filter_map(|other| self.of.get(&other)).filter(move |other| user != Some(*other)).map(|other| other.0)
        });
        let apart: BTreeSet<i64> = apart.collect();
        if apart.is_empty() {
            return Ok(HashSet::new());
        }
        let asked: Vec<i64> = apart.into_iter().collect();
        let rows = query(&FIND_USERS).bind(json(&asked)?).fetch_all(&mut tx.session).await?;
        rows.iter().map(|row| Ok(ProfileId(Fields::of("identities", row).next("profile_id")?))).collect()
    }

    /// Makes one person of two ids. Who is known by one of them only gets the other; who is known by both as two is merged.
    fn follow(&mut self, user: &Identity, link: &Link, users: &mut HashSet<ProfileId>, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let other = linked(link).find_map(|other| self.of.get(&other).copied());
        let may_join = |other: &ProfileId| matches!(link, Link::Previous(_)) || !users.contains(other);
        let one = match (self.of.get(user).copied(), other) {
            (None, Some(other)) if may_join(&other) => {
                self.attach(user.clone(), other);
                other
            }
            (None, _) => self.create(user, tx)?,
            (Some(known), Some(other)) if known != other && may_join(&other) => {
                self.merged.push((other, known));
                self.of.values_mut().filter(|owner| **owner == other).for_each(|owner| *owner = known);
                known
            }
            (Some(known), _) => known,
        };
        users.insert(one);
        for id in linked(link) {
            if !self.of.contains_key(&id) {
                self.attach(id, one);
            }
        }
        Ok(())
    }

    fn attach(&mut self, identity: Identity, owner: ProfileId) {
        self.of.insert(identity.clone(), owner);
        self.attached.push((identity, owner));
    }

    fn create(&mut self, identity: &Identity, tx: &mut Tx<'_>) -> Result<ProfileId, StoreError> {
        let id = tx.memory.profile_id()?;
        self.created.push((id, parts(identity).1.to_owned()));
        self.attach(identity.clone(), id);
        Ok(id)
    }

    async fn write(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if self.created.is_empty() && self.attached.is_empty() {
            return Ok(());
        }
        let mut states = States::default();
        let profiles: Vec<_> = self
            .created
            .iter()
            .map(|(id, key)| {
                let (place, length) = states.add(&Profile::new(key));
                (id.0, key, place, length)
            })
            .collect();
        let identities: Vec<_> = self.attached.iter().map(|(identity, owner)| (parts(identity), owner.0)).collect();
        let identities: Vec<_> = identities.iter().map(|((kind, value), owner)| (kind, value, owner)).collect();
        query(&CREATE_PROFILES).bind(json(&profiles)?).bind(states.into_bytes()).bind(json(&identities)?).execute(&mut tx.session).await?;
        Ok(())
    }

    /// To be carried out after the events of the batch are written, so that whoever stays hears them first.
    pub fn merges(&self, at: Timestamp) -> Vec<Merge> {
        self.merged.iter().map(|(gone, stays)| Merge { gone: *gone, stays: *stays, at }).collect()
    }
}

pub(super) fn parts(identity: &Identity) -> (&'static str, &str) {
    match identity {
        Identity::User(id) => ("user", id),
        Identity::Anonymous(id) => ("anonymous", id),
    }
}

/// The identities that a link may mean. A previous id may have been either: that of a user is looked at first.
fn linked(link: &Link) -> impl Iterator<Item = Identity> {
    let (user, anonymous) = match link {
        Link::Anonymous(id) => (None, id),
        Link::Previous(id) => (Some(Identity::User(id.clone())), id),
    };
    user.into_iter().chain([Identity::Anonymous(anonymous.clone())])
}

// -------------------------------------------------------------------------------------------------------------- merges

/// Two profiles that are one person.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    gone: ProfileId,
    stays: ProfileId,
    at: Timestamp,
}

impl Merge {
    pub async fn carry_out(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Merge { gone, stays, at } = *self;
        let heard = copy_facts(gone, stays, at, tx).await?;
        close(gone, stays, at, &heard, tx).await?;
        tracing::info!(profile.id = stays.0, gone.id = gone.0, "two profiles turned out to be one person and were merged");
        Ok(())
    }
}

#[async_trait]
impl Work for Merge {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.take(Needs { people: &[self.gone, self.stays], ..Needs::default() }).await?;
        self.carry_out(tx).await
    }
}

/// Facts about the person $1: what came from outside, and what ends consent.
pub(super) const FACTS: Sql = Sql {
    sqlite: concat!(
        "select json_group_array(json_array(e.seq, e.profile_id, ",
        event_columns!(),
        ") order by e.seq)
    from events e where e.profile_id = $1
        and (e.kind <> 'engine' or e.name in ('unsubscribed', 'complained', 'suppressed', 'suppression_lifted'))"
    ),
    postgres: concat!(
        "select coalesce(json_agg(json_build_array(e.seq, e.profile_id, ",
        event_columns!(),
        ") order by e.seq), '[]')::text
        from events e where e.bucket = bucket($1) and e.profile_id = $1
            and (e.kind <> 'engine' or e.name in ('unsubscribed', 'complained', 'suppressed', 'suppression_lifted'))"
    ),
};

/// Which facts of $1 (number, hash, source, id) the person $2 has, by which number of its own; none: it was removed there.
pub(super) const FACTS_KNOWN: Sql = Sql {
    sqlite: "select json_group_array(json_array(number, seq)) from (
        select j.value ->> 0 as number, e.seq as seq from json_each($1) j join events e
            on e.profile_id = $2 and e.id_hash = j.value ->> 1 and e.source = j.value ->> 2 and e.event_id = j.value ->> 3
        union all
        select j.value ->> 0, null from json_each($1) j join removed_events r on r.profile_id = $2 and r.id_hash = j.value ->> 1)",
    postgres: "select coalesce(json_agg(json_build_array(number, seq)), '[]')::text from (
            select (j.value ->> 0)::bigint as number, e.seq as seq from jsonb_array_elements($1::jsonb) as j(value) join events e
                on e.bucket = bucket($2) and e.profile_id = $2 and e.id_hash = (j.value ->> 1)::bigint and e.source = j.value ->> 2
                    and e.event_id = j.value ->> 3
            union all
            select (j.value ->> 0)::bigint, null from jsonb_array_elements($1::jsonb) as j(value) join removed_events r
                on r.bucket = bucket($2) and r.profile_id = $2 and r.id_hash = (j.value ->> 1)::bigint) known",
};

/// When the consents of $1 end, by event.
pub(super) const CONSENT_ENDS: Sql = Sql {
    sqlite: "select json_group_array(json_array(c.event_seq, c.expires_at)) from consents c where c.profile_id = $1",
    postgres: "select coalesce(json_agg(json_build_array(c.event_seq, c.expires_at)), '[]')::text from consents c
        where c.bucket = bucket($1) and c.profile_id = $1",
};

/// $1: facts; $2: (profile, newest event, due), of one profile.
pub(super) const HEAR: Sql = Sql {
    sqlite: concat!(insert_events!("$1"), "; ", wake_people!("$2")),
    postgres: concat!(insert_events!(postgres "$1"), "; ", wake_people!(postgres "$2")),
};

/// What of the gone profile $1 is still to go out and was never tried, and its state. What was tried may have reached the person.
pub(super) const STILL_OPEN: Sql = Sql {
    sqlite: "select m.id from messages m where m.profile_id = $1 and m.state in ('queued', 'leased') and m.attempts = 0",
    postgres: "select m.id from messages m where m.bucket = bucket($1) and m.profile_id = $1 and m.state in ('queued', 'leased')
        and m.attempts = 0",
};
pub(super) const GONE_STATE: Sql = Sql {
    sqlite: "select id, state from profiles where id = $1",
    postgres: "select id, state from profiles where bucket = bucket($1) and id = $1",
};

/// Whether $1 has heard of the merge with $2 already.
pub(super) const HEARD_OF: Sql = Sql {
    sqlite: "select count(*) from events where profile_id = $1 and id_hash = $2 and kind = 'engine'",
    postgres: "select count(*) from events where bucket = bucket($1) and profile_id = $1 and id_hash = $2 and kind = 'engine'",
};

/// What the one that stays has heard.
struct Heard {
    /// Of each consent of the one that goes: its number there, and here; none: it is not on record here.
    consents: Vec<(i64, Option<i64>)>,
}

async fn copy_facts(gone: ProfileId, stays: ProfileId, at: Timestamp, tx: &mut Tx<'_>) -> Result<Heard, StoreError> {
    let answer = query(&FACTS).bind(gone.0).fetch_one(&mut tx.session).await?;
    let facts: Vec<(EventSeq, Event)> = Fields::all::<StoredEvent>("events", &answer)?
        .into_iter()
        .map(|fact| fact.read().map(|(seq, _, event)| (seq, event)))
        .collect::<Result<_, _>>()?;
    let known = facts_known(&facts, stays, tx).await?;
    let merged = merged_event(gone, stays, at, tx).await?;
    tx.take(Needs { events: facts.len() - known.len() + usize::from(merged.is_some()), ..Needs::default() }).await?;
    let (mut rows, mut consents, mut new_consents) = (Vec::new(), Vec::new(), Vec::new());
    let mut newest = None;
    for (number, (old, fact)) in facts.iter().enumerate() {
        let here = match known.get(&number) {
            Some(here) => *here,
            None => {
                let seq = tx.memory.event_seq()?;
                rows.push(event_row(seq, stays, fact, Waits::AndWakes)?);
                newest = Some(seq);
                new_consents.extend((fact.kind == EventKind::Consent).then_some((old.0, seq.0)));
                Some(seq.0)
            }
        };
        consents.extend((fact.kind == EventKind::Consent).then_some((old.0, here)));
    }
    if let Some(event) = &merged {
        let seq = tx.memory.event_seq()?;
        rows.push(event_row(seq, stays, event, Waits::AndWakes)?);
        newest = Some(seq);
    }
    let Some(newest) = newest else { return Ok(Heard { consents }) };
    let due = [(stays.0, newest.0, at.as_ms())];
    query(&HEAR).bind(json(&rows)?).bind(json(&due)?).execute(&mut tx.session).await?;
    if !new_consents.is_empty() {
        let answer = query(&CONSENT_ENDS).bind(gone.0).fetch_one(&mut tx.session).await?;
        let ends: HashMap<i64, Option<i64>> = Fields::all::<(i64, Option<i64>)>("consents", &answer)?.into_iter().collect();
        let proofs: Vec<(i64, Option<i64>)> = new_consents.into_iter().map(|(old, new)| (new, ends.get(&old).copied().flatten())).collect();
        query(&RECORD_CONSENTS).bind(json(&proofs)?).execute(&mut tx.session).await?;
    }
    Ok(Heard { consents })
}

/// Which of these facts the one that stays has already, by their place.
async fn facts_known(facts: &[(EventSeq, Event)], stays: ProfileId, tx: &mut Tx<'_>) -> Result<HashMap<usize, Option<i64>>, StoreError> {
    if facts.is_empty() {
        return Ok(HashMap::new());
    }
    let asked: Vec<_> = facts.iter().enumerate().map(|(number, (_, fact))| (number, id_hash(fact), &*fact.source, &*fact.id)).collect();
    let answer = query(&FACTS_KNOWN).bind(json(&asked)?).bind(stays.0).fetch_one(&mut tx.session).await?;
    let mut known: HashMap<usize, Option<i64>> = HashMap::new();
    for (number, here) in Fields::all::<(usize, Option<i64>)>("events", &answer)? {
        let seq = known.entry(number).or_default();
        *seq = seq.or(here);
    }
    Ok(known)
}

/// What tells the profile that stays what the shop did for the one that goes; none: it has heard.
async fn merged_event(gone: ProfileId, stays: ProfileId, at: Timestamp, tx: &mut Tx<'_>) -> Result<Option<Event>, StoreError> {
    let rows = query(&STILL_OPEN).bind(gone.0).fetch_all(&mut tx.session).await?;
    let open: Vec<MessageId> = rows.iter().map(|row| Fields::of("messages", row).message_id("id")).collect::<Result<_, _>>()?;
    let row = query(&GONE_STATE).bind(gone.0).fetch_one(&mut tx.session).await?;
    let mut fields = Fields::of("profiles", &row);
    let _id: i64 = fields.next("id")?;
    let state = match fields.state("state") {
        Ok(state) => state,
        Err(error) => {
            // its facts are on record all the same; what is lost is which messages it had
            tracing::error!(profile.id = gone.0, "merged without its messages and coupons: {error}");
            return Ok(None);
        }
    };
    let event = merge::event(&state, gone.0, &open, at);
    let row = query(&HEARD_OF).bind(stays.0).bind(id_hash(&event)).fetch_one(&mut tx.session).await?;
    let has_heard = Fields::of("events", &row).next::<i64>("count")? > 0;
    Ok((!has_heard).then_some(event))
}

/// $1 gone, $2 stays, $3 now, $4 consents (number there, number here or null). Set aside as well as merged, so that whatever leaves people alone who are set aside leaves this one. Its
/// consents stay beside their copies: they are the proof for messages that went out. What was removed of it is known again here.
pub(super) const CLOSE: Sql = Sql {
    sqlite: "
    insert into removed_events (profile_id, id_hash) select $2, id_hash from removed_events where profile_id = $1 on conflict do nothing;
    update messages set consent_seq = j.here from (select value ->> 0 as there, value ->> 1 as here from json_each($4)) j
    where messages.profile_id = $1 and messages.consent_seq = j.there;
    update identities set profile_id = $2 where profile_id = $1;
    update profiles set merged_into = $2, quarantined_at = $3, quarantined_because = 'merged into profile ' || $2, due_at = null,
        version = version + 1
    where id = $1;
    delete from claims where profile_id = $1;
    update messages set state = 'cancelled', because = 'the person has another profile now', changed_at = $3, worker = null
    where profile_id = $1 and state in ('queued', 'leased');
    delete from events where profile_id = $1 and (kind <> 'engine' or name in ('unsubscribed', 'complained', 'suppressed', 'suppression_lifted'))",
    postgres: "
        insert into removed_events (bucket, profile_id, id_hash)
        select bucket($2), $2, id_hash from removed_events where bucket = bucket($1) and profile_id = $1 on conflict do nothing;
        update messages set consent_seq = j.here
        from (select (value ->> 0)::bigint as there, (value ->> 1)::bigint as here from jsonb_array_elements($4::jsonb) as value) j
        where messages.bucket = bucket($1) and messages.profile_id = $1 and messages.consent_seq = j.there;
        update identities set profile_id = $2 where profile_id = $1;
        update profiles set merged_into = $2::bigint, quarantined_at = $3, quarantined_because = 'merged into profile ' || ($2::bigint)::text,
            due_at = null, version = version + 1
        where bucket = bucket($1) and id = $1;
        delete from claims where bucket = bucket($1) and profile_id = $1;
        update messages set state = 'cancelled', because = 'the person has another profile now', changed_at = $3, worker = null
        where bucket = bucket($1) and profile_id = $1 and state in ('queued', 'leased');
        delete from events where bucket = bucket($1) and profile_id = $1
            and (kind <> 'engine' or name in ('unsubscribed', 'complained', 'suppressed', 'suppression_lifted'))",
};

async fn close(gone: ProfileId, stays: ProfileId, at: Timestamp, heard: &Heard, tx: &mut Tx<'_>) -> Result<(), StoreError> {
    query(&CLOSE).bind(gone.0).bind(stays.0).bind(at.as_ms()).bind(json(&heard.consents)?).execute(&mut tx.session).await?;
    Ok(())
}
