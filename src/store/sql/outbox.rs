//! The outbox: claiming due messages, the send-intent, results.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use serde::Serialize;

use super::decisions::{EntryColumns, Whom, entry_columns, set_corrupt_aside};
use super::rows::{
    EventRow, Fields, Place, States, Waits, event_row, hex, insert_entries, insert_events, json, message, message_columns, wake_people,
};
use super::spread::Bucket;
use super::suppressions::{Addressed, found_on_list};
use super::{Needs, Row, Session, Sql, Tx, Work, query};
use crate::engine::action::{Channel, MessageId, MessageState, Outcome};
use crate::engine::event::{Event, Value};
use crate::engine::gate;
use crate::engine::profile::{Category, Profile};
use crate::engine::run;
use crate::engine::time::Timestamp;
use crate::store::{
    ClaimedMessage, ClaimedMessages, Committed, EventSeq, IntentCommit, IntentStep, Look, MessageResult, ProfileId, Recorded, ResultKind,
    SUSPECT_AFTER, StoreError, merge,
};

// --------------------------------------------------------------------------------------------------------------- claim

pub(super) struct ClaimMessages {
    pub look: Look,
    pub limit: usize,
    pub worker: String,
    pub whom: Whom,
}

/// The messages that were just claimed under epoch $4.
macro_rules! claimed_messages {
    () => {
        concat!(
            "select ",
            message_columns!(),
            ", m.profile_id, m.epoch, m.claims, m.attempts, m.first_attempt_at
            from messages m where m.state in ('leased', 'sending') and m.epoch = $4 /* in one bucket: and m.bucket = $bucket */"
        )
    };
}

/// $1 now, $2 limit, $3 worker, $4 epoch, $5 claimed so often in vain makes suspect. Then the claimed ones. A person who is due, or set aside, is not written to: facts first.
pub(super) const CLAIM_MESSAGES: Sql = Sql {
    sqlite: concat!(
        "update messages set state = 'leased', worker = $3, epoch = $4, claims = claims + 1, changed_at = $1
    where seq in (
        select m.seq from messages m join profiles p on p.id = m.profile_id
        where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null and (p.due_at is null or p.due_at > $1)
            and m.claims < $5
        order by m.due_at, m.seq limit $2);
    ",
        claimed_messages!()
    ),
    postgres: concat!(
        "with due as (
            select m.bucket, m.profile_id, m.id from messages m join profiles p on p.bucket = m.bucket and p.id = m.profile_id
            where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null and (p.due_at is null or p.due_at > $1)
            and m.claims < $5 /* in one bucket: and m.bucket = $bucket */
            order by m.due_at, m.seq limit $2 for update of m skip locked)
        update messages set state = 'leased', worker = $3, epoch = $4, claims = claims + 1, changed_at = $1 from due
        where messages.bucket = due.bucket and messages.profile_id = due.profile_id and messages.id = due.id
            /* in one bucket: and messages.bucket = $bucket */;
        ",
        claimed_messages!()
    ),
};

/// One suspect, where nobody else waits.
pub(super) const CLAIM_SUSPECT_MESSAGE: Sql = Sql {
    sqlite: concat!(
        "update messages set state = 'leased', worker = $3, epoch = $4, claims = claims + 1, changed_at = $1
    where seq in (
        select m.seq from messages m join profiles p on p.id = m.profile_id
        where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null and (p.due_at is null or p.due_at > $1)
            and m.claims >= $5
        order by m.due_at, m.seq limit 1);
    ",
        claimed_messages!()
    ),
    postgres: concat!(
        "with due as (
            select m.bucket, m.profile_id, m.id from messages m join profiles p on p.bucket = m.bucket and p.id = m.profile_id
            where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null and (p.due_at is null or p.due_at > $1)
            and m.claims >= $5 /* in one bucket: and m.bucket = $bucket */
            order by m.due_at, m.seq limit 1 for update of m skip locked)
        update messages set state = 'leased', worker = $3, epoch = $4, claims = claims + 1, changed_at = $1 from due
        where messages.bucket = due.bucket and messages.profile_id = due.profile_id and messages.id = due.id
            /* in one bucket: and messages.bucket = $bucket */;
        ",
        claimed_messages!()
    ),
};

/// The same for a replay: of each person the messages of the earliest instant, unless the person is due no later than they are.
pub(super) const CLAIM_MESSAGES_AS_DUE: Sql = Sql {
    sqlite: concat!(
        "update messages set state = 'leased', worker = $3, epoch = $4, claims = claims + 1, changed_at = due_at
    where seq in (
        select m.seq from (
            select seq, due_at, profile_id, min(due_at) over (partition by profile_id) as first_due_at
            from messages indexed by messages_queued where state = 'queued' and due_at <= $1) m
        join profiles p on p.id = m.profile_id
        where m.due_at = m.first_due_at and p.quarantined_at is null and (p.due_at is null or p.due_at > m.due_at)
        order by m.due_at, m.seq limit $2);
    ",
        claimed_messages!()
    ),
    postgres: concat!(
        "update messages set state = 'leased', worker = $3, epoch = $4, claims = claims + 1, changed_at = messages.due_at
        from (
            select m.bucket, m.profile_id, m.id from (
                select bucket, profile_id, id, seq, due_at, min(due_at) over (partition by profile_id) as first_due_at
                from messages where state = 'queued' and due_at <= $1 /* in one bucket: and bucket = $bucket */) m
            join profiles p on p.bucket = m.bucket and p.id = m.profile_id
            where m.due_at = m.first_due_at and p.quarantined_at is null and (p.due_at is null or p.due_at > m.due_at)
                /* in one bucket: and p.bucket = $bucket */
            order by m.due_at, m.seq limit $2) due
        where messages.bucket = due.bucket and messages.profile_id = due.profile_id and messages.id = due.id
            and messages.state = 'queued' /* in one bucket: and messages.bucket = $bucket */;
        ",
        claimed_messages!()
    ),
};

pub(super) const INTERRUPTED: Sql = Sql {
    sqlite: concat!(
        "select ",
        message_columns!(),
        ", m.profile_id, m.epoch, m.claims, m.attempts, m.first_attempt_at
    from messages m where m.state in ('leased', 'sending') and m.state = 'sending' and m.epoch < $1"
    ),
    postgres: concat!(
        "select ",
        message_columns!(),
        ", m.profile_id, m.epoch, m.claims, m.attempts, m.first_attempt_at
        from messages m where m.state in ('leased', 'sending') and m.state = 'sending'
            and not exists (select 1 from workers w where w.boot = m.epoch >> 32)"
    ),
};

pub(super) const STATES: Sql = Sql {
    sqlite: "select p.id, p.version, p.state from json_each($1) j join profiles p on p.id = j.value",
    postgres: "select p.id, p.version, p.state from jsonb_array_elements_text($1::jsonb) as j(value)
        join profiles p on p.bucket = bucket(j.value::bigint) and p.id = j.value::bigint",
};

/// $1: message ids. Back as they were; the claim did not count.
pub(super) const LET_GO: Sql = Sql {
    sqlite: "update messages set state = 'queued', worker = null, claims = claims - 1
    where id in (select unhex(value) from json_each($1)) and state = 'leased'",
    postgres: "update messages set state = 'queued', worker = null, claims = claims - 1
        from jsonb_array_elements_text($1::jsonb) as j(value) where messages.id = decode(j.value, 'hex') and messages.state = 'leased'
            /* in one bucket: and messages.bucket = $bucket */",
};

/// In which buckets a message is due at $1.
pub(super) const BUCKETS_QUEUED: Sql = Sql {
    sqlite: "",
    postgres: "select coalesce(json_agg(bucket), '[]')::text from (
        select bucket from messages where state = 'queued' and due_at <= $1 group by bucket) due",
};
/// Whose the messages of $1 are, by their place there.
pub(super) const WHOSE: Sql = Sql {
    sqlite: "",
    postgres: "select coalesce(json_agg(json_build_array(j.key - 1, m.bucket)), '[]')::text
        from jsonb_array_elements_text($1::jsonb) with ordinality as j(value, key) join messages m on m.id = decode(j.value, 'hex')",
};

/// In which bucket each of these messages is; one that nobody knows is left out.
pub(super) async fn buckets_of(
    session: &mut Session<'_>,
    messages: impl Iterator<Item = MessageId>,
) -> Result<BTreeMap<MessageId, Bucket>, StoreError> {
    let asked: Vec<MessageId> = messages.collect();
    let asked_as_hex: Vec<String> = asked.iter().map(|id| hex(id.0)).collect();
    let answer = query(&WHOSE).bind(json(&asked_as_hex)?).fetch_one(session).await?;
    let found = Fields::all::<(usize, i16)>("messages", &answer)?;
    Ok(found.into_iter().filter_map(|(place, bucket)| Some((*asked.get(place)?, Bucket(bucket)))).collect())
}

#[async_trait]
impl Work for ClaimMessages {
    type Done = Vec<ClaimedMessages>;
    const CLAIMS: bool = true;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<ClaimedMessages>, StoreError> {
        let epoch = tx.memory.epoch();
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let claim = |statement| query(statement).bind(self.look.upto().as_ms()).bind(limit).bind(&*self.worker).bind(epoch);
        let mut by_profile = match self.look {
            Look::Now(_) if self.whom == Whom::Suspects => BTreeMap::new(),
            Look::Now(_) => claimed(claim(&CLAIM_MESSAGES).bind(SUSPECT_AFTER).fetch(&mut tx.session).await?).await?,
            Look::AsDue { .. } => claimed(claim(&CLAIM_MESSAGES_AS_DUE).fetch(&mut tx.session).await?).await?,
        };
        if by_profile.is_empty() && self.whom != Whom::Unsuspected && matches!(self.look, Look::Now(_)) {
            by_profile = claimed(claim(&CLAIM_SUSPECT_MESSAGE).bind(SUSPECT_AFTER).fetch(&mut tx.session).await?).await?;
        }
        if by_profile.is_empty() {
            return Ok(Vec::new());
        }
        let (groups, corrupt) = with_states(by_profile, &mut tx.session).await?;
        if !corrupt.is_empty() {
            let messages: Vec<String> = corrupt.iter().flat_map(|(_, _, messages)| messages).map(|m| hex(m.message.id.0)).collect();
            query(&LET_GO).bind(json(&messages)?).execute(&mut tx.session).await?;
            let aside: Vec<_> = corrupt.into_iter().map(|(id, error, _)| (id, error)).collect();
            set_corrupt_aside(self.look.upto(), &aside, tx).await?;
        }
        Ok(groups)
    }
}

pub(super) struct WakeMessages {
    pub at: Timestamp,
    pub messages: Vec<MessageId>,
}

/// $1: message ids; $2: the instant.
pub(super) const WAKE: Sql = Sql {
    sqlite: "update messages set due_at = min(due_at, $2)
    where id in (select unhex(value) from json_each($1)) and state = 'queued'",
    postgres: "update messages set due_at = least(due_at, $2)
        from jsonb_array_elements_text($1::jsonb) as j(value) where messages.id = decode(j.value, 'hex') and messages.state = 'queued'
            /* in one bucket: and messages.bucket = $bucket */",
};

#[async_trait]
impl Work for WakeMessages {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let ids: Vec<String> = self.messages.iter().map(|id| hex(id.0)).collect();
        query(&WAKE).bind(json(&ids)?).bind(self.at.as_ms()).execute(&mut tx.session).await?;
        Ok(())
    }
}

/// Messages still `sending` from before this process began: every epoch of an earlier one is smaller.
pub(super) async fn interrupted(session: &mut Session<'_>, first_epoch: i64) -> Result<Vec<ClaimedMessages>, StoreError> {
    let by_profile = claimed(query(&INTERRUPTED).bind(first_epoch).fetch(session).await?).await?;
    let (groups, corrupt) = with_states(by_profile, session).await?;
    match corrupt.into_iter().next() {
        Some((_, error, _)) => Err(error),
        None => Ok(groups),
    }
}

/// Rows as they come: the database walks on while one is read.
type Stream<'r> = BoxStream<'r, Result<Row, sqlx::Error>>;

async fn claimed(mut rows: Stream<'_>) -> Result<BTreeMap<ProfileId, Vec<ClaimedMessage>>, StoreError> {
    let mut by_profile: BTreeMap<ProfileId, Vec<ClaimedMessage>> = BTreeMap::new();
    while let Some(row) = rows.try_next().await? {
        let mut fields = Fields::of("messages", &row);
        let message = message(&mut fields)?;
        let id = ProfileId(fields.next("profile_id")?);
        let claimed = ClaimedMessage {
            message,
            epoch: fields.next("epoch")?,
            claims: fields.count("claims")?,
            attempts: fields.count("attempts")?,
            first_attempt_at: fields.optional_instant("first_attempt_at")?,
        };
        by_profile.entry(id).or_default().push(claimed);
    }
    for messages in by_profile.values_mut() {
        messages.sort_by_key(|claimed| (claimed.message.due_at, claimed.message.id));
    }
    Ok(by_profile)
}

type Unreadable = (ProfileId, StoreError, Vec<ClaimedMessage>);

async fn with_states(
    mut by_profile: BTreeMap<ProfileId, Vec<ClaimedMessage>>,
    session: &mut Session<'_>,
) -> Result<(Vec<ClaimedMessages>, Vec<Unreadable>), StoreError> {
    let ids: Vec<i64> = by_profile.keys().map(|id| id.0).collect();
    let mut states = query(&STATES).bind(json(&ids)?).fetch(session).await?;
    let (mut groups, mut corrupt) = (Vec::with_capacity(by_profile.len()), Vec::new());
    while let Some(row) = states.try_next().await? {
        let mut fields = Fields::of("profiles", &row);
        let profile_id = ProfileId(fields.next("id")?);
        let version = fields.next("version")?;
        let messages = by_profile.remove(&profile_id).unwrap_or_default();
        match fields.state("state") {
            Ok(profile) => groups.push(ClaimedMessages { profile_id, version, profile, messages }),
            Err(error) => corrupt.push((profile_id, error, messages)),
        }
    }
    Ok((groups, corrupt))
}

// -------------------------------------------------------------------------------------------------------------- intent

pub(super) struct Intents {
    generation: i64,
    batch: Vec<IntentCommit>,
    /// The new states, made by who commits and not by the writer, for whom others wait.
    states: Vec<u8>,
    /// Where in `states` each share's profile is, if it is new.
    places: Vec<Option<Place>>,
}

impl Intents {
    pub fn new(generation: i64, batch: Vec<IntentCommit>) -> Self {
        let mut states = States::default();
        let places = batch.iter().map(|share| share.profile.as_ref().map(|profile| states.add(profile))).collect();
        Intents { generation, batch, states: states.into_bytes(), places }
    }
}

/// The guards of the messages in $1 by their place there, with those of their profiles. `no_fact_waits`: nothing that makes the person
/// due is unabsorbed.
pub(super) const INTENT_GUARDS: Sql = Sql {
    sqlite: "
    select json_group_array(json_array(j.key, m.state, m.epoch, m.wakes_on, m.attempts, coalesce(m.worker, ''), p.id, p.version, p.due_at,
        p.woken_seq <= p.absorbed_seq and p.quarantined_at is null, m.channel, m.category))
    from json_each($1) j join messages m on m.id = unhex(j.value) join profiles p on p.id = m.profile_id",
    postgres: "
        select coalesce(json_agg(json_build_array(j.key - 1, m.state, m.epoch, m.wakes_on, m.attempts, coalesce(m.worker, ''), p.id,
            p.version, p.due_at, (p.woken_seq <= p.absorbed_seq and p.quarantined_at is null)::integer, m.channel, m.category)), '[]')::text
        from jsonb_array_elements_text($1::jsonb) with ordinality as j(value, key)
        join messages m on m.id = decode(j.value, 'hex') /* in one bucket: and m.bucket = $bucket */
        join profiles p on p.bucket = m.bucket and p.id = m.profile_id",
};

/// Profiles are inserted so that they are updated: see [`super::decisions::COMMIT`].
///
/// $1 profiles (id, due, place, length), $2 their states, $3 sends (id, at, profile, number, epoch, worker), $4 holds (id, until,
/// because, at), $5 ends (id, state, because, outcome bit, at), $6 conflicting (id, epoch), $7 events, $8 who has news (profile,
/// newest event, due), $9 entries.
pub(super) const INTENT: Sql = Sql {
    sqlite: concat!(
        "insert into profiles (id, key, version, due_at, absorbed_seq, woken_seq, state)
    select value ->> 0, '', 0, value ->> 1, 0, 0, coalesce(substr($2, value ->> 2, value ->> 3), x'') from json_each($1) where true
    on conflict (id) do update set version = version + 1,
        due_at = case when excluded.due_at is null then due_at else min(coalesce(due_at, excluded.due_at), excluded.due_at) end,
        state = case when excluded.state = x'' then state else excluded.state end;
    update messages set state = 'sending', changed_at = j.at, attempts = j.number, because = null,
        first_attempt_at = coalesce(first_attempt_at, j.at),
        -- the record of consent that lets it go: the latest one, which the gates found to be a yes
        consent_seq = (select c.event_seq from consents c where c.profile_id = messages.profile_id and c.granted = 1
            and c.purpose = messages.category and c.channel in (messages.channel, 'all', '')
            order by c.occurred_at desc, c.event_seq desc limit 1)
    from (select unhex(value ->> 0) as id, value ->> 1 as at, value ->> 3 as number from json_each($3)) j
    where messages.id = j.id;
    insert into attempts (profile_id, message_id, number, epoch, worker, started_at)
    select value ->> 2, unhex(value ->> 0), value ->> 3, value ->> 4, value ->> 5, value ->> 1 from json_each($3);
    update messages set state = 'queued', worker = null, claims = 0, changed_at = j.at, because = j.because,
        due_at = min(j.until, expires_at)
    from (select unhex(value ->> 0) as id, value ->> 1 as until, value ->> 2 as because, value ->> 3 as at from json_each($4)) j
    where messages.id = j.id;
    update messages set state = j.state, worker = null, changed_at = j.at, because = j.because, outcomes = outcomes | j.bit
    from (select unhex(value ->> 0) as id, value ->> 1 as state, value ->> 2 as because, value ->> 3 as bit, value ->> 4 as at
        from json_each($5)) j
    where messages.id = j.id;
    update messages set state = 'queued', worker = null, claims = 0
    from (select unhex(value ->> 0) as id, value ->> 1 as epoch from json_each($6)) j
    where messages.id = j.id and messages.state = 'leased' and messages.epoch = j.epoch;
    ",
        insert_events!("$7"),
        "; ",
        wake_people!("$8"),
        "; ",
        insert_entries!("$9")
    ),
    postgres: concat!(
        "update profiles set version = version + 1,
            due_at = case when j.due is null then due_at else least(coalesce(due_at, j.due), j.due) end,
            state = case when j.place is null then state else substr($2::bytea, j.place, j.length) end
        from (select (value ->> 0)::bigint as id, (value ->> 1)::bigint as due, (value ->> 2)::integer as place,
                (value ->> 3)::integer as length
            from jsonb_array_elements($1::jsonb) as value) j
        where profiles.bucket = bucket(j.id) and profiles.id = j.id;
        update messages set state = 'sending', changed_at = j.at, attempts = j.number, because = null,
            first_attempt_at = coalesce(first_attempt_at, j.at),
            consent_seq = (select c.event_seq from consents c where c.bucket = messages.bucket and c.profile_id = messages.profile_id
                /* in one bucket: and c.bucket = $bucket */
                and c.granted and c.purpose = messages.category and c.channel in (messages.channel, 'all', '')
                order by c.occurred_at desc, c.event_seq desc limit 1)
        from (select decode(value ->> 0, 'hex') as id, (value ->> 1)::bigint as at, (value ->> 2)::bigint as profile,
                (value ->> 3)::bigint as number
            from jsonb_array_elements($3::jsonb) as value) j
        where messages.bucket = bucket(j.profile) and messages.profile_id = j.profile and messages.id = j.id;
        insert into attempts (bucket, profile_id, message_id, number, epoch, worker, started_at)
        select bucket((value ->> 2)::bigint), (value ->> 2)::bigint, decode(value ->> 0, 'hex'), (value ->> 3)::bigint,
            (value ->> 4)::bigint, value ->> 5, (value ->> 1)::bigint
        from jsonb_array_elements($3::jsonb) as value;
        update messages set state = 'queued', worker = null, claims = 0, changed_at = j.at, because = j.because,
            due_at = least(j.until, expires_at)
        from (select decode(value ->> 0, 'hex') as id, (value ->> 1)::bigint as until, value ->> 2 as because, (value ->> 3)::bigint as at
            from jsonb_array_elements($4::jsonb) as value) j
        where messages.id = j.id /* in one bucket: and messages.bucket = $bucket */;
        update messages set state = j.state, worker = null, changed_at = j.at, because = j.because, outcomes = outcomes | j.bit
        from (select decode(value ->> 0, 'hex') as id, value ->> 1 as state, value ->> 2 as because, (value ->> 3)::bigint as bit,
                (value ->> 4)::bigint as at
            from jsonb_array_elements($5::jsonb) as value) j
        where messages.id = j.id /* in one bucket: and messages.bucket = $bucket */;
        update messages set state = 'queued', worker = null, claims = 0
        from (select decode(value ->> 0, 'hex') as id, (value ->> 1)::bigint as epoch from jsonb_array_elements($6::jsonb) as value) j
        where messages.id = j.id and messages.state = 'leased' and messages.epoch = j.epoch /* in one bucket: and messages.bucket = $bucket */;
        ",
        insert_events!(postgres "$7"),
        "; ",
        wake_people!(postgres "$8"),
        "; ",
        insert_entries!(postgres "$9")
    ),
};

/// What the tables say about a message and its person as the intent comes.
struct IntentGuard {
    state: MessageState,
    epoch: i64,
    wakes_on: u16,
    attempts: u32,
    worker: String,
    profile: ProfileId,
    version: i64,
    due_at: Timestamp,
    no_fact_waits: bool,
    channel: Channel,
    category: Category,
}

#[async_trait]
impl Work for Intents {
    type Done = Vec<Committed>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<Committed>, StoreError> {
        let people: Vec<ProfileId> = self.batch.iter().map(|share| share.profile_id).collect();
        let messages: Vec<MessageId> = self.batch.iter().flat_map(|share| &share.messages).map(|intent| intent.message).collect();
        tx.take(Needs { people: &people, messages: &messages, permission: true, ..Needs::default() }).await?;
        let guards = intent_guards(&self.batch, tx).await?;
        let nothing_forbidden_since = tx.memory.generation() == self.generation;
        let listed = found_on_list(&self.addressed(&guards), tx).await?;
        let events = self.events_at_most() + listed.values().map(Vec::len).sum::<usize>();
        tx.take(Needs { events, ..Needs::default() }).await?;
        let mut sheet = IntentSheet::default();
        let mut answers = Vec::with_capacity(self.batch.len());
        let mut seen = BTreeSet::new();
        for (share, place) in self.batch.iter().zip(&self.places) {
            // a second share of the same person in one batch is a conflict: it was made from the row before the first
            let may_commit = nothing_forbidden_since && seen.insert(share.profile_id) && self.may_commit(share, &guards);
            if let Some(facts) = listed.get(&share.profile_id).filter(|_| may_commit) {
                sheet.hear(share, facts, tx)?;
                answers.push(Committed::Conflict);
            } else if may_commit {
                sheet.add(share, *place, &guards, tx)?;
                answers.push(Committed::Committed);
            } else {
                sheet.give_back(share);
                answers.push(Committed::Conflict);
            }
        }
        sheet.write(&self.states, tx).await?;
        Ok(answers)
    }
}

impl Intents {
    /// The shares' own events, and one for each message that ends.
    fn events_at_most(&self) -> usize {
        self.batch.iter().map(|share| share.own_events.len() + share.messages.len()).sum()
    }

    /// Where the messages that are to be sent would go.
    fn addressed<'a>(&'a self, guards: &HashMap<MessageId, IntentGuard>) -> Vec<Addressed<'a>> {
        let mut addressed = Vec::new();
        for share in &self.batch {
            let sends = share.messages.iter().filter(|intent| matches!(intent.step, IntentStep::Send { .. }));
            for (intent, guard) in sends.filter_map(|intent| Some((intent, guards.get(&intent.message)?))) {
                let address = share.profile.as_ref().and_then(|profile| profile.addresses.get(&guard.channel));
                if let Some(Value::Text(address)) = address.map(|address| &address.value) {
                    let message = intent.message.to_string();
                    let (channel, category) = (guard.channel, guard.category);
                    addressed.push(Addressed { profile: share.profile_id, message, channel, category, address, at: share.at });
                }
            }
        }
        addressed
    }

    fn may_commit(&self, share: &IntentCommit, guards: &HashMap<MessageId, IntentGuard>) -> bool {
        !share.messages.is_empty()
            && share.messages.iter().all(|intent| {
                guards.get(&intent.message).is_some_and(|guard| {
                    guard.profile == share.profile_id
                        && guard.version == share.version
                        && guard.no_fact_waits
                        && guard.due_at > share.at
                        && guard.state == MessageState::Leased
                        && guard.epoch == intent.epoch
                })
            })
    }
}

async fn intent_guards(batch: &[IntentCommit], tx: &mut Tx<'_>) -> Result<HashMap<MessageId, IntentGuard>, StoreError> {
    type Row = (usize, String, i64, u16, u32, String, i64, i64, Option<i64>, u8, String, String);
    let asked: Vec<MessageId> = batch.iter().flat_map(|share| &share.messages).map(|intent| intent.message).collect();
    let asked_as_hex: Vec<String> = asked.iter().map(|id| hex(id.0)).collect();
    let answer = query(&INTENT_GUARDS).bind(json(&asked_as_hex)?).fetch_one(&mut tx.session).await?;
    let mut guards = HashMap::with_capacity(asked.len());
    for row in Fields::all::<Row>("messages", &answer)? {
        let (place, state, epoch, wakes_on, attempts, worker, profile, version, due_at, no_fact_waits, channel, category) = row;
        let Some(id) = asked.get(place) else { continue };
        let guard = IntentGuard {
            state: word(*id, "state", &state, MessageState::named)?,
            epoch,
            wakes_on,
            attempts,
            worker,
            profile: ProfileId(profile),
            version,
            due_at: due_at.map_or(Timestamp::FOREVER, Timestamp::from_ms),
            no_fact_waits: no_fact_waits != 0,
            channel: word(*id, "channel", &channel, Channel::named)?,
            category: word(*id, "category", &category, Category::named)?,
        };
        guards.insert(*id, guard);
    }
    Ok(guards)
}

/// A word of a closed list, as a message's column has it.
fn word<T>(id: MessageId, column: &'static str, word: &str, named: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    let unknown = || StoreError::Corrupt { table: "messages", column, key: id.to_string(), detail: format!("unknown word `{word}`") };
    named(word).ok_or_else(unknown)
}

/// (profile, due, place and length of its state)
type IntentProfile = (i64, Option<i64>, Option<usize>, Option<usize>);

/// Everything that intents write, table by table.
#[derive(Default)]
struct IntentSheet<'c> {
    profiles: Vec<IntentProfile>,
    sends: Vec<(String, i64, i64, u32, i64, &'c str)>,
    holds: Vec<(String, i64, &'c str, i64)>,
    ends: Vec<(String, &'static str, &'c str, u16, i64)>,
    conflicting: Vec<(String, i64)>,
    events: Vec<EventRow<'c>>,
    news: News,
    entries: Vec<EntryColumns<'c>>,
}

impl<'c> IntentSheet<'c> {
    fn add(
        &mut self,
        share: &'c IntentCommit,
        place: Option<Place>,
        guards: &'c HashMap<MessageId, IntentGuard>,
        tx: &mut Tx<'_>,
    ) -> Result<(), StoreError> {
        let id = share.profile_id;
        if place.is_some() || share.due_at.is_some() {
            let (place, length) = place.unzip();
            self.profiles.push((id.0, share.due_at.and_then(super::rows::due), place, length));
        }
        for event in &share.own_events {
            self.events.push(event_row(tx.memory.event_seq()?, id, event, Waits::No)?);
        }
        let rules_version = share.rules_version;
        self.entries.extend(share.entries.iter().map(|entry| entry_columns(id, rules_version, entry)));
        for intent in &share.messages {
            let Some(guard) = guards.get(&intent.message) else { continue };
            let message = hex(intent.message.0);
            match &intent.step {
                IntentStep::Send { at } => {
                    self.sends.push((message, at.as_ms(), id.0, guard.attempts + 1, intent.epoch, &guard.worker));
                }
                IntentStep::Hold { until, because } => self.holds.push((message, until.as_ms(), because, share.at.as_ms())),
                IntentStep::End { state, because, event } => {
                    let bit = event.as_ref().map_or(0, |(outcome, _)| outcome.bit());
                    self.ends.push((message, state.name(), because, bit, share.at.as_ms()));
                    if let Some((_, event)) = event {
                        // what did not go makes room for what waits for it
                        let makes_room = share.profile.as_deref().is_some_and(gate::waits_for_room);
                        let wakes = guard.wakes_on & bit != 0 || makes_room;
                        let seq = tx.memory.event_seq()?;
                        self.events.push(event_row(seq, id, event, if wakes { Waits::AndWakes } else { Waits::Yes })?);
                        self.news.note(id, seq, event.received_at, wakes);
                    }
                }
            }
        }
        Ok(())
    }

    /// The messages go back to the queue, untouched.
    fn give_back(&mut self, share: &IntentCommit) {
        self.conflicting.extend(share.messages.iter().map(|intent| (hex(intent.message.0), intent.epoch)));
    }

    /// Something stands against sending that the person's row does not know: it becomes a fact, and is looked at before anything goes.
    fn hear(&mut self, share: &IntentCommit, facts: &'c [Event], tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.give_back(share);
        for fact in facts {
            let seq = tx.memory.event_seq()?;
            self.events.push(event_row(seq, share.profile_id, fact, Waits::AndWakes)?);
            self.news.note(share.profile_id, seq, fact.received_at, true);
        }
        Ok(())
    }

    async fn write(self, states: &[u8], tx: &mut Tx<'_>) -> Result<(), StoreError> {
        query(&INTENT)
            .bind(json(&self.profiles)?)
            .bind(states)
            .bind(json(&self.sends)?)
            .bind(json(&self.holds)?)
            .bind(json(&self.ends)?)
            .bind(json(&self.conflicting)?)
            .bind(json(&self.events)?)
            .bind(json(&self.news.rows())?)
            .bind(json(&self.entries)?)
            .execute(&mut tx.session)
            .await?;
        Ok(())
    }
}

/// Whom new events make due: the newest waking event and the earliest instant of each person.
#[derive(Default)]
struct News(BTreeMap<ProfileId, (EventSeq, Timestamp)>);

impl News {
    fn note(&mut self, id: ProfileId, seq: EventSeq, at: Timestamp, wakes: bool) {
        if wakes {
            let (newest, due) = self.0.entry(id).or_insert((seq, at));
            (*newest, *due) = (seq.max(*newest), at.min(*due));
        }
    }

    fn rows(&self) -> Vec<(i64, i64, i64)> {
        self.0.iter().map(|(id, (seq, due))| (id.0, seq.0, due.as_ms())).collect()
    }
}

// -------------------------------------------------------------------------------------------------------------- result

pub(super) struct Results(pub Vec<MessageResult>);

/// The messages of $1 (id, whether a result may close its address) by their place there, as results come; and, if it may, whether
/// their person has others that have not gone out.
pub(super) const RESULT_GUARDS: Sql = Sql {
    sqlite: "
    select json_group_array(json_array(j.key, m.profile_id, m.state, m.epoch, m.wakes_on, m.outcomes, m.expires_at,
        case when j.value ->> 1 then exists (
            select 1 from messages o where o.profile_id = m.profile_id and o.state in ('queued', 'leased') and o.id <> m.id) else 0 end))
    from json_each($1) j join messages m on m.id = unhex(j.value ->> 0)",
    postgres: "
        select coalesce(json_agg(json_build_array(j.key - 1, m.profile_id, m.state, m.epoch, m.wakes_on, m.outcomes, m.expires_at,
            ((j.value ->> 1)::boolean and exists (
                select 1 from messages o where o.bucket = m.bucket and o.profile_id = m.profile_id and o.state in ('queued', 'leased')
                    and o.id <> m.id /* in one bucket: and o.bucket = $bucket */))::integer)), '[]')::text
        from jsonb_array_elements($1::jsonb) with ordinality as j(value, key)
        join messages m on m.id = decode(j.value ->> 0, 'hex') /* in one bucket: and m.bucket = $bucket */",
};

/// $1 messages (id, state, changed_at, outcomes, due or null, claims are over), $2 attempts (id, epoch, ended_at, outcome, provider's id,
/// detail, profile), $3 events, $4 who has news (profile, newest event, due), $5 changed profiles (id, place, length), $6 their states.
pub(super) const RESULT: Sql = Sql {
    sqlite: concat!(
        "update messages set state = j.state, changed_at = j.at, outcomes = j.outcomes, due_at = coalesce(j.due, due_at),
        worker = case when j.state in ('queued', 'leased') then null else worker end,
        claims = case when j.state = 'queued' then 0 else claims end
    from (select unhex(value ->> 0) as id, value ->> 1 as state, value ->> 2 as at, value ->> 3 as outcomes, value ->> 4 as due
        from json_each($1)) j
    where messages.id = j.id;
    update attempts set ended_at = j.at, outcome = j.outcome, provider_id = j.provider_id, detail = j.detail
    from (select unhex(value ->> 0) as id, value ->> 1 as epoch, value ->> 2 as at, value ->> 3 as outcome,
            value ->> 4 as provider_id, value ->> 5 as detail, value ->> 6 as profile
        from json_each($2)) j
    where attempts.profile_id = j.profile and attempts.message_id = j.id and attempts.epoch = j.epoch and attempts.ended_at is null;
    ",
        insert_events!("$3"),
        "; ",
        wake_people!("$4"),
        ";
    update profiles set version = version + 1, state = substr($6, j.place, j.length)
    from (select value ->> 0 as id, value ->> 1 as place, value ->> 2 as length from json_each($5)) j
    where profiles.id = j.id"
    ),
    postgres: concat!(
        "update messages set state = j.state, changed_at = j.at, outcomes = j.outcomes, due_at = coalesce(j.due, due_at),
            worker = case when j.state in ('queued', 'leased') then null else worker end,
            claims = case when j.state = 'queued' then 0 else claims end
        from (select decode(value ->> 0, 'hex') as id, value ->> 1 as state, (value ->> 2)::bigint as at, (value ->> 3)::bigint as outcomes,
                (value ->> 4)::bigint as due
            from jsonb_array_elements($1::jsonb) as value) j
        where messages.id = j.id /* in one bucket: and messages.bucket = $bucket */;
        update attempts set ended_at = j.at, outcome = j.outcome, provider_id = j.provider_id, detail = j.detail
        from (select decode(value ->> 0, 'hex') as id, (value ->> 1)::bigint as epoch, (value ->> 2)::bigint as at, value ->> 3 as outcome,
                value ->> 4 as provider_id, value ->> 5 as detail, (value ->> 6)::bigint as profile
            from json_array_elements($2::json) as value) j
        where attempts.bucket = bucket(j.profile) and attempts.profile_id = j.profile and attempts.message_id = j.id
            and attempts.epoch = j.epoch and attempts.ended_at is null;
        ",
        insert_events!(postgres "$3"),
        "; ",
        wake_people!(postgres "$4"),
        ";
        update profiles set version = version + 1, state = substr($6::bytea, j.place, j.length)
        from (select (value ->> 0)::bigint as id, (value ->> 1)::integer as place, (value ->> 2)::integer as length
            from jsonb_array_elements($5::jsonb) as value) j
        where profiles.bucket = bucket(j.id) and profiles.id = j.id"
    ),
};

/// A message as the results of a batch change it, one after the other.
struct Standing {
    profile: ProfileId,
    state: MessageState,
    epoch: i64,
    wakes_on: u16,
    outcomes: u16,
    expires_at: Timestamp,
    has_open_siblings: bool,
    /// Set by the last change.
    changed_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct AttemptRow<'r>(String, i64, i64, &'static str, &'r Option<String>, &'r Option<String>, i64);

#[async_trait]
impl Work for Results {
    type Done = Vec<Recorded>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<Recorded>, StoreError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let messages: Vec<MessageId> = self.0.iter().map(|result| result.message).collect();
        tx.take(Needs { messages: &messages, events: self.0.len(), ..Needs::default() }).await?;
        let mut standings = standings(&self.0, tx).await?;
        let mut people = People::concerned(&self.0, &standings, tx).await?;
        let (mut recorded, mut attempts, mut events, mut news) =
            (Vec::with_capacity(self.0.len()), Vec::new(), Vec::new(), News::default());
        for result in &self.0 {
            let Some(standing) = standings.get_mut(&result.message) else {
                recorded.push(Recorded { state: None, new: false, woke: false });
                continue;
            };
            if let Some(epoch) = result.epoch
                && let Some(outcome) = attempt_outcome(&result.kind)
            {
                let (at, profile) = (result.at.as_ms(), standing.profile.0);
                attempts.push(AttemptRow(hex(result.message.0), epoch, at, outcome, &result.provider_id, &result.detail, profile));
            }
            let (new, woke) = standing.take_in(result, &mut people);
            if new && let ResultKind::Outcome(_, event) = &result.kind {
                let seq = tx.memory.event_seq()?;
                events.push(event_row(seq, standing.profile, event, if woke { Waits::AndWakes } else { Waits::Yes })?);
                news.note(standing.profile, seq, event.received_at, woke);
            }
            recorded.push(Recorded { state: Some(standing.state), new, woke });
        }
        let changed: Vec<_> = standings.iter().filter_map(|(id, standing)| standing.row(*id)).collect();
        let (rows, states) = people.rows();
        let script = query(&RESULT).bind(json(&changed)?).bind(json(&attempts)?).bind(json(&events)?).bind(json(&news.rows())?);
        script.bind(json(&rows)?).bind(states.into_bytes()).execute(&mut tx.session).await?;
        Ok(recorded)
    }
}

async fn standings(results: &[MessageResult], tx: &mut Tx<'_>) -> Result<BTreeMap<MessageId, Standing>, StoreError> {
    type Row = (usize, i64, String, i64, u16, u16, i64, u8);
    let mut asked: BTreeMap<MessageId, bool> = BTreeMap::new();
    for result in results {
        *asked.entry(result.message).or_default() |= closes_address(result);
    }
    let asked: Vec<(MessageId, bool)> = asked.into_iter().collect();
    let asked_as_hex: Vec<(String, bool)> = asked.iter().map(|(id, closes)| (hex(id.0), *closes)).collect();
    let answer = query(&RESULT_GUARDS).bind(json(&asked_as_hex)?).fetch_one(&mut tx.session).await?;
    let mut standings = BTreeMap::new();
    for (place, profile, state, epoch, wakes_on, outcomes, expires_at, has_open_siblings) in Fields::all::<Row>("messages", &answer)? {
        let Some((id, _)) = asked.get(place) else { continue };
        let standing = Standing {
            profile: ProfileId(profile),
            state: word(*id, "state", &state, MessageState::named)?,
            epoch,
            wakes_on,
            outcomes,
            expires_at: Timestamp::from_ms(expires_at),
            has_open_siblings: has_open_siblings != 0,
            changed_at: None,
            due_at: None,
        };
        standings.insert(*id, standing);
    }
    Ok(standings)
}

/// A closed address: messages of the same person that have not gone out must hear of it before they do.
fn closes_address(result: &MessageResult) -> bool {
    matches!(&result.kind, ResultKind::Outcome(outcome, event) if run::closes_address(*outcome, event))
}

/// The people whose row a result reads or writes: of a message that did not go, since that may make room for what waits, or that goes
/// back to wait. Seldom anybody: what was accepted concerns no row.
#[derive(Default)]
struct People {
    profiles: BTreeMap<ProfileId, Profile>,
    changed: BTreeSet<ProfileId>,
}

impl People {
    async fn concerned(
        results: &[MessageResult],
        standings: &BTreeMap<MessageId, Standing>,
        tx: &mut Tx<'_>,
    ) -> Result<People, StoreError> {
        let concerns = |result: &&MessageResult| match &result.kind {
            ResultKind::Outcome(outcome, _) => run::never_went(*outcome),
            ResultKind::Retry { refused, .. } => *refused,
            ResultKind::Release => false,
        };
        let whose = results.iter().filter(concerns).filter_map(|result| standings.get(&result.message));
        let ids: Vec<i64> = whose.map(|standing| standing.profile.0).collect::<BTreeSet<i64>>().into_iter().collect();
        let mut people = People::default();
        if ids.is_empty() {
            return Ok(people);
        }
        for row in query(&STATES).bind(json(&ids)?).fetch_all(&mut tx.session).await? {
            let mut fields = Fields::of("profiles", &row);
            let (id, _version): (i64, i64) = (fields.next("id")?, fields.next("version")?);
            // a row that cannot be read is set aside by whoever claims it
            if let Ok(profile) = fields.state("state") {
                people.profiles.insert(ProfileId(id), profile);
            }
        }
        Ok(people)
    }

    fn wait_for_room(&self, id: ProfileId) -> bool {
        self.profiles.get(&id).is_some_and(gate::waits_for_room)
    }

    fn wait_again(&mut self, id: ProfileId, message: MessageId) {
        if let Some(profile) = self.profiles.get_mut(&id) {
            run::wait_again(profile, message);
            self.changed.insert(id);
        }
    }

    /// (profile, place and length of its state)
    fn rows(&self) -> (Vec<(i64, usize, usize)>, States) {
        let mut states = States::default();
        let changed = self.profiles.iter().filter(|(id, _)| self.changed.contains(id));
        let rows = changed.map(|(id, profile)| {
            let (place, length) = states.add(profile);
            (id.0, place, length)
        });
        (rows.collect(), states)
    }
}

fn attempt_outcome(kind: &ResultKind) -> Option<&'static str> {
    match kind {
        ResultKind::Outcome(outcome, _) => Some(outcome.name()),
        ResultKind::Retry { .. } => Some("retry"),
        ResultKind::Release => None,
    }
}

impl Standing {
    /// Takes a result in: whether the fact is new, and whether it makes the person due.
    fn take_in(&mut self, result: &MessageResult, people: &mut People) -> (bool, bool) {
        let is_ours = result.epoch == Some(self.epoch);
        match &result.kind {
            ResultKind::Outcome(outcome, _) => self.learn(*outcome, result, is_ours, people),
            ResultKind::Retry { until, refused } => {
                if is_ours && matches!(self.state, MessageState::Sending | MessageState::Unknown) {
                    self.turn(MessageState::Queued, result.at);
                    self.due_at = Some((*until).min(self.expires_at));
                    if *refused {
                        people.wait_again(self.profile, result.message);
                    }
                }
                (false, false)
            }
            ResultKind::Release => {
                if is_ours && self.state == MessageState::Leased {
                    self.turn(MessageState::Queued, result.at);
                }
                (false, false)
            }
        }
    }

    fn learn(&mut self, outcome: Outcome, result: &MessageResult, is_ours: bool, people: &People) -> (bool, bool) {
        // what only a worker can know needs its claim; what proves that the message went out needs none
        let proves = matches!(outcome, Outcome::Accepted | Outcome::Delivered | Outcome::Opened | Outcome::Clicked);
        let may_turn = proves || outcome == Outcome::Bounced || is_ours;
        let turned = if may_turn { merge(self.state, outcome) } else { None };
        let is_new = turned.is_some() || (proves && self.outcomes & outcome.bit() == 0);
        if is_new {
            self.outcomes |= outcome.bit();
            self.turn(turned.unwrap_or(self.state), result.at);
        }
        let silences_others = closes_address(result) && self.has_open_siblings;
        let makes_room = run::never_went(outcome) && people.wait_for_room(self.profile);
        (is_new, is_new && (self.wakes_on & outcome.bit() != 0 || silences_others || makes_room))
    }

    fn turn(&mut self, state: MessageState, at: Timestamp) {
        self.state = state;
        self.changed_at = Some(at);
    }

    fn row(&self, id: MessageId) -> Option<(String, &'static str, i64, u16, Option<i64>)> {
        let at = self.changed_at?.as_ms();
        Some((hex(id.0), self.state.name(), at, self.outcomes, self.due_at.map(Timestamp::as_ms)))
    }
}
