//! The suppression list in its tables, and the question that the send-intent asks of it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde_json::Map;

use super::append;
use super::rows::{Fields, hex, json};
use super::{Needs, Row, Session, Sql, Tx, Work, query};
use crate::engine::action::Channel;
use crate::engine::event::{Event, EventKind};
use crate::engine::profile::Category;
use crate::engine::time::Timestamp;
use crate::store::suppression::{
    Lift, Reason, SOFT_BOUNCE_UNTIL_MS, SOFT_BOUNCE_WITHIN_MS, Scope, Suppress, Suppression, soft_bounces_close,
};
use crate::store::{Identity, NewEvent, ProfileId, StoreError};

/// $1: rows of channel, hash, scope, reason, since, until, source. What is known already stays as it was, unless the new word holds
/// for longer.
pub(super) const SUPPRESS: Sql = Sql {
    sqlite: "
    insert into suppressions (channel, address_hash, scope, reason, since, until, source)
    select value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 from json_each($1) where true
    on conflict (channel, address_hash, scope, reason) do update set until = excluded.until
        where suppressions.until is not null and (excluded.until is null or excluded.until > suppressions.until)
    returning channel, hex(address_hash), scope, reason",
    postgres: "
        insert into suppressions (channel, address_hash, scope, reason, since, until, source)
        select distinct on (1, 2, 3, 4) value ->> 0, decode(value ->> 1, 'hex'), value ->> 2, value ->> 3, (value ->> 4)::bigint,
            (value ->> 5)::bigint, value ->> 6
        from jsonb_array_elements($1::jsonb) as value order by 1, 2, 3, 4, (value ->> 5)::bigint desc nulls first
        on conflict (channel, address_hash, scope, reason) do update set until = excluded.until
            where suppressions.until is not null and (excluded.until is null or excluded.until > suppressions.until)
        returning channel, encode(address_hash, 'hex'), scope, reason",
};
/// $1: rows of channel, hash, instant, hash of the id.
pub(super) const NOTE_SOFT_BOUNCES: Sql = Sql {
    sqlite: "
    insert into soft_bounces (channel, address_hash, bounced_at, id_hash)
    select value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3 from json_each($1) where true
    on conflict do nothing",
    postgres: "
        insert into soft_bounces (channel, address_hash, bounced_at, id_hash)
        select value ->> 0, decode(value ->> 1, 'hex'), (value ->> 2)::bigint, (value ->> 3)::bigint
        from jsonb_array_elements($1::jsonb) as value order by 1, 2, 3, 4
        on conflict do nothing",
};
/// $1: rows of number, channel, hash, instant from which on they count.
pub(super) const SOFT_BOUNCES: Sql = Sql {
    sqlite: "select j.value ->> 0, s.bounced_at from json_each($1) j
    join soft_bounces s on s.channel = j.value ->> 1 and s.address_hash = unhex(j.value ->> 2) and s.bounced_at > j.value ->> 3",
    postgres: "select (j.value ->> 0)::bigint, s.bounced_at from jsonb_array_elements($1::jsonb) as j(value)
        join soft_bounces s on s.channel = j.value ->> 1 and s.address_hash = decode(j.value ->> 2, 'hex')
            and s.bounced_at > (j.value ->> 3)::bigint",
};
/// $1: rows of number, channel, hash, category, instant.
pub(super) const LISTED: Sql = Sql {
    sqlite: "select j.value ->> 0, s.reason, s.scope, s.since, s.until from json_each($1) j
    join suppressions s on s.channel = j.value ->> 1 and s.address_hash = unhex(j.value ->> 2)
    where s.scope in ('all', j.value ->> 3) and (s.until is null or s.until > j.value ->> 4)
    order by 1, s.scope, s.since",
    postgres: "select (j.value ->> 0)::bigint, s.reason, s.scope, s.since, s.until from jsonb_array_elements($1::jsonb) as j(value)
        join suppressions s on s.channel = j.value ->> 1 and s.address_hash = decode(j.value ->> 2, 'hex')
        where s.scope in ('all', j.value ->> 3) and (s.until is null or s.until > (j.value ->> 4)::bigint)
        order by 1, s.scope, s.since",
};
pub(super) const SUPPRESSIONS_OF: Sql = Sql {
    sqlite: "select channel, reason, scope, since, until, source from suppressions
    where channel = $1 and address_hash = unhex($2) order by since, scope, reason",
    postgres: "select channel, reason, scope, since, until, source from suppressions
        where channel = $1 and address_hash = decode($2, 'hex') order by since, scope, reason",
};
pub(super) const LIFT: Sql = Sql {
    sqlite: "delete from suppressions where channel = $1 and address_hash = unhex($2)
    and ($3 is null or reason = $3) and ($4 is null or scope = $4)",
    postgres: "delete from suppressions where channel = $1 and address_hash = decode($2, 'hex')
        and ($3::text is null or reason = $3) and ($4::text is null or scope = $4)",
};

pub(super) struct SuppressAll(pub Vec<Suppress>);

#[async_trait]
impl Work for SuppressAll {
    type Done = Vec<bool>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<bool>, StoreError> {
        let is_new_fact = self.new_facts(tx).await?;
        let mut is_new = is_new_fact.clone();
        let (mut rows, mut without_fact) = (Vec::new(), Vec::new());
        let (mut noted, mut asked) = (Vec::new(), Vec::new());
        for (number, word) in self.0.iter().enumerate().filter(|(number, _)| is_new_fact.get(*number) == Some(&true)) {
            if word.address.trim().is_empty() {
                continue; // only the fact
            }
            let hash = hex(tx.memory.hasher().address(word.channel, &word.address));
            if word.event.is_none() {
                without_fact.push((number, (word.channel, hash.clone(), word.scope, word.reason)));
            }
            if word.reason == Reason::SoftBounce {
                let id = super::rows::id_hash_of(&word.source, &word.id);
                noted.push((word.channel.name(), hash.clone(), word.since.as_ms(), id));
                asked.push((number, word.channel.name(), hash, word.since.plus_ms(-SOFT_BOUNCE_WITHIN_MS).as_ms()));
            } else {
                rows.push(row(word, hash, word.until));
            }
        }
        if !noted.is_empty() {
            query(&NOTE_SOFT_BOUNCES).bind(json(&noted)?).execute(&mut tx.session).await?;
            let bounced = soft_bounces(&asked, tx).await?;
            for (number, _, hash, _) in asked {
                let closes = bounced.get(&number).is_some_and(|bounced| soft_bounces_close(bounced));
                if let Some(word) = self.0.get(number).filter(|_| closes) {
                    rows.push(row(word, hash, Some(word.since.plus_ms(SOFT_BOUNCE_UNTIL_MS))));
                }
            }
        }
        let mut written = BTreeSet::new();
        if !rows.is_empty() {
            tx.memory.note_suppressed();
            for row in query(&SUPPRESS).bind(json(&rows)?).fetch_all(&mut tx.session).await? {
                let mut fields = Fields::of("suppressions", &row);
                let (channel, hash) = (fields.word("channel", Channel::named)?, fields.next::<String>("address_hash")?.to_lowercase());
                written.insert((channel, hash, fields.word("scope", Scope::named)?, fields.word("reason", Reason::named)?));
            }
        }
        // a word without a fact of its own is new if the list has changed by it
        for (number, entry) in without_fact {
            if let Some(flag) = is_new.get_mut(number) {
                *flag = written.contains(&entry);
            }
        }
        Ok(is_new)
    }
}

type NewRow<'w> = (&'static str, String, &'static str, &'static str, i64, Option<i64>, &'w str);

fn row(word: &Suppress, hash: String, until: Option<Timestamp>) -> NewRow<'_> {
    let until = until.map(Timestamp::as_ms);
    (word.channel.name(), hash, word.scope.name(), word.reason.name(), word.since.as_ms(), until, &word.source)
}

impl SuppressAll {
    /// Appends the facts that go with the words; a word whose fact is on record already has been heard before.
    async fn new_facts(&self, tx: &mut Tx<'_>) -> Result<Vec<bool>, StoreError> {
        let nobody = Identity::User("".into()); // the person is known by number
        let with_facts = self.0.iter().enumerate().filter_map(|(number, word)| word.event.as_ref().map(|event| (number, event)));
        let (mut numbers, mut events, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (owner, event)) in with_facts {
            numbers.push(number);
            owners.push(*owner);
            events.push(NewEvent { identity: nobody.clone(), event: event.clone(), link: None, active: false });
        }
        let mut is_new = vec![true; self.0.len()];
        if events.is_empty() {
            return Ok(is_new);
        }
        tx.take(Needs { people: &owners, events: events.len(), ..Needs::default() }).await?;
        let is_duplicate = append::duplicates(&events, &owners, tx).await?;
        let mut fresh = Vec::new();
        for (((number, owner), event), is_duplicate) in numbers.iter().zip(&owners).zip(&events).zip(is_duplicate) {
            if is_duplicate {
                if let Some(flag) = is_new.get_mut(*number) {
                    *flag = false;
                }
            } else {
                fresh.push((*owner, event));
            }
        }
        append::write(&fresh, tx).await?;
        Ok(is_new)
    }
}

async fn soft_bounces(
    asked: &[(usize, &'static str, String, i64)],
    tx: &mut Tx<'_>,
) -> Result<BTreeMap<usize, Vec<Timestamp>>, StoreError> {
    let mut found: BTreeMap<usize, Vec<Timestamp>> = BTreeMap::new();
    for row in query(&SOFT_BOUNCES).bind(json(asked)?).fetch_all(&mut tx.session).await? {
        let mut fields = Fields::of("soft_bounces", &row);
        found.entry(fields.count("number")?).or_default().push(fields.instant("bounced_at")?);
    }
    Ok(found)
}

pub(super) struct LiftOne(pub Lift);

#[async_trait]
impl Work for LiftOne {
    type Done = u64;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let what = &self.0;
        let hash = hex(tx.memory.hasher().address(what.channel, &what.address));
        let lift = query(&LIFT).bind(what.channel.name()).bind(hash);
        let lift = lift.bind(what.reason.map(Reason::name)).bind(what.scope.map(Scope::name));
        let lifted = lift.execute(&mut tx.session).await?;
        if let Some((owner, event)) = &what.event {
            let new = NewEvent { identity: Identity::User("".into()), event: event.clone(), link: None, active: false };
            let events = [new];
            tx.take(Needs { people: &[*owner], events: 1, ..Needs::default() }).await?;
            let is_duplicate = append::duplicates(&events, &[*owner], tx).await?;
            if is_duplicate == [false]
                && let [event] = &events
            {
                append::write(&[(*owner, event)], tx).await?;
            }
        }
        Ok(lifted)
    }
}

pub(super) async fn suppressions(session: &mut Session<'_>, channel: Channel, hash: u128) -> Result<Vec<Suppression>, StoreError> {
    let rows = query(&SUPPRESSIONS_OF).bind(channel.name()).bind(hex(hash)).fetch_all(session).await?;
    let entry = |row: &Row| {
        let mut fields = Fields::of("suppressions", row);
        Ok(Suppression {
            channel: fields.word("channel", Channel::named)?,
            reason: fields.word("reason", Reason::named)?,
            scope: fields.word("scope", Scope::named)?,
            since: fields.instant("since")?,
            until: fields.optional_instant("until")?,
            source: fields.next("source")?,
        })
    };
    rows.iter().map(entry).collect()
}

// ------------------------------------------------------------------------------------------------------------- the intent

/// An address about to be written to.
pub(super) struct Addressed<'a> {
    pub profile: ProfileId,
    /// Of the message: makes the fact's id.
    pub message: String,
    pub channel: Channel,
    pub category: Category,
    pub address: &'a str,
    /// When the gates were asked.
    pub at: Timestamp,
}

/// What the list says about messages that are about to go out: for each person found on it, the fact that makes it their own.
pub(super) async fn found_on_list(addressed: &[Addressed<'_>], tx: &mut Tx<'_>) -> Result<BTreeMap<ProfileId, Vec<Event>>, StoreError> {
    let mut facts: BTreeMap<ProfileId, Vec<Event>> = BTreeMap::new();
    if addressed.is_empty() || !tx.memory.may_have_suppressed() {
        return Ok(facts);
    }
    let hasher = tx.memory.hasher();
    let asked: Vec<_> = addressed
        .iter()
        .enumerate()
        .map(|(number, a)| (number, a.channel.name(), hex(hasher.address(a.channel, a.address)), a.category.name(), a.at.as_ms()))
        .collect();
    let mut said = BTreeSet::new();
    for row in query(&LISTED).bind(json(&asked)?).fetch_all(&mut tx.session).await? {
        let mut fields = Fields::of("suppressions", &row);
        let number: usize = fields.count("number")?;
        let (reason, scope) = (fields.word("reason", Reason::named)?, fields.word("scope", Scope::named)?);
        let (since, until) = (fields.instant("since")?, fields.optional_instant("until")?);
        let Some(found) = addressed.get(number) else { continue };
        // one word for everything says more than one for a category
        if said.insert((found.profile, found.channel, scope)) {
            facts.entry(found.profile).or_default().push(fact(found, reason, scope, since, until));
        }
    }
    Ok(facts)
}

/// The engine's event of it: of the instant at which it was found, so that no consent record from before goes over it.
fn fact(found: &Addressed<'_>, reason: Reason, scope: Scope, since: Timestamp, until: Option<Timestamp>) -> Event {
    let now = found.at;
    let mut properties = Map::new();
    properties.insert("channel".into(), found.channel.name().into());
    properties.insert("address".into(), found.address.into());
    properties.insert("reason".into(), reason.name().into());
    properties.insert("since".into(), since.to_string().into());
    if let Some(until) = until {
        properties.insert("until".into(), until.to_string().into());
    }
    let name = match scope {
        Scope::All => "suppressed",
        Scope::Only(category) => {
            properties.insert("purpose".into(), category.name().into());
            "unsubscribed"
        }
    };
    Event {
        id: format!("{}:{}:{}:{}", found.message, name, scope.name(), now.as_ms()).into(),
        kind: EventKind::Engine,
        name: name.into(),
        occurred_at: now,
        received_at: now,
        source: "rekindle".into(),
        properties,
    }
}
