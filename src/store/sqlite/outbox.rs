//! The outbox: claiming due messages, the send-intent, results.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use serde::Serialize;

use super::SqliteStore;
use super::decisions::{EntryColumns, entry_columns, set_corrupt_aside};
use super::rows::{EventRow, Fields, States, Waits, event_row, hex, insert_events, json, message, message_columns, message_state};
use super::suppressions::{Addressed, found_on_list};
use super::writer::{Tx, Work};
use crate::engine::action::{Channel, MessageId, MessageState, Outcome};
use crate::engine::event::{Event, Value};
use crate::engine::gate;
use crate::engine::profile::{Category, Profile};
use crate::engine::run;
use crate::engine::time::Timestamp;
use crate::store::{
    ClaimedMessage, ClaimedMessages, Committed, EventSeq, IntentCommit, IntentStep, Look, MessageResult, ProfileId, Recorded, ResultKind,
    StoreError, merge,
};

// --------------------------------------------------------------------------------------------------------------- claim

pub(super) struct ClaimMessages {
    pub look: Look,
    pub limit: usize,
    pub worker: String,
}

/// $1 upto, $2 limit, $3 worker, $4 epoch, $5 whether as due. Then the claimed ones. A person who is due, or set aside, is not written
/// to: facts first. As due: so is a person who is due no later than the message, and one whose other message comes before.
pub(super) const CLAIM_MESSAGES: &str = concat!(
    "update messages set state = 'leased', worker = $3, epoch = $4, claims = claims + 1, changed_at = case when $5 then due_at else $1 end
    where seq in (
        select m.seq from messages m join profiles p on p.id = m.profile_id
        where m.state = 'queued' and m.due_at <= $1 and p.quarantined_at is null
            and (p.due_at is null or p.due_at > case when $5 then m.due_at else $1 end)
            and not ($5 and exists (
                select 1 from messages o where o.profile_id = m.profile_id and o.state = 'queued' and o.due_at < m.due_at))
        order by m.due_at, m.seq limit $2);
    select ",
    message_columns!(),
    ", m.profile_id, m.epoch, m.claims, m.attempts, m.first_attempt_at
    from messages m where m.state in ('leased', 'sending') and m.epoch = $4
    order by m.profile_id, m.due_at, m.id"
);

pub(super) const INTERRUPTED: &str = concat!(
    "select ",
    message_columns!(),
    ", m.profile_id, m.epoch, m.claims, m.attempts, m.first_attempt_at
    from messages m where m.state in ('leased', 'sending') and m.state = 'sending' and m.epoch < $1
    order by m.profile_id, m.due_at, m.id"
);

pub(super) const STATES: &str = "select p.id, p.version, p.state from json_each($1) j join profiles p on p.id = j.value";

/// $1: message ids. Back as they were; the claim did not count.
pub(super) const LET_GO: &str = "update messages set state = 'queued', worker = null, claims = claims - 1
    where id in (select unhex(value) from json_each($1)) and state = 'leased'";

#[async_trait]
impl Work for ClaimMessages {
    type Done = Vec<ClaimedMessages>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<ClaimedMessages>, StoreError> {
        let epoch = tx.memory.epoch();
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let as_due = matches!(self.look, Look::AsDue { .. });
        let claim = sqlx::query(CLAIM_MESSAGES).bind(self.look.upto().as_ms()).bind(limit).bind(&*self.worker).bind(epoch).bind(as_due);
        let rows = claim.fetch_all(&mut *tx.connection).await?;
        let by_profile = claimed(&rows)?;
        if by_profile.is_empty() {
            return Ok(Vec::new());
        }
        let states = sqlx::query(STATES).bind(ids(&by_profile)?).fetch_all(&mut *tx.connection).await?;
        let (groups, corrupt) = with_states(by_profile, &states)?;
        if !corrupt.is_empty() {
            let messages: Vec<String> = corrupt.iter().flat_map(|(_, _, messages)| messages).map(|m| hex(m.message.id.0)).collect();
            sqlx::query(LET_GO).bind(json(&messages)?).execute(&mut *tx.connection).await?;
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
pub(super) const WAKE: &str = "update messages set due_at = min(due_at, $2)
    where id in (select unhex(value) from json_each($1)) and state = 'queued'";

#[async_trait]
impl Work for WakeMessages {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let ids: Vec<String> = self.messages.iter().map(|id| hex(id.0)).collect();
        sqlx::query(WAKE).bind(json(&ids)?).bind(self.at.as_ms()).execute(&mut *tx.connection).await?;
        Ok(())
    }
}

/// Messages still `sending` from before this process began: every epoch of an earlier one is smaller.
pub(super) async fn interrupted(store: &SqliteStore) -> Result<Vec<ClaimedMessages>, StoreError> {
    let read = async || -> Result<Vec<ClaimedMessages>, StoreError> {
        let rows = sqlx::query(INTERRUPTED).bind(store.shared.first_epoch).fetch_all(&store.readers).await?;
        let by_profile = claimed(&rows)?;
        let states = sqlx::query(STATES).bind(ids(&by_profile)?).fetch_all(&store.readers).await?;
        let (groups, corrupt) = with_states(by_profile, &states)?;
        match corrupt.into_iter().next() {
            Some((_, error, _)) => Err(error),
            None => Ok(groups),
        }
    };
    read().await.map_err(|e| store.failed(e))
}

fn ids(by_profile: &BTreeMap<ProfileId, Vec<ClaimedMessage>>) -> Result<String, StoreError> {
    json(&by_profile.keys().map(|id| id.0).collect::<Vec<_>>())
}

fn claimed(rows: &[sqlx::sqlite::SqliteRow]) -> Result<BTreeMap<ProfileId, Vec<ClaimedMessage>>, StoreError> {
    let mut by_profile: BTreeMap<ProfileId, Vec<ClaimedMessage>> = BTreeMap::new();
    for row in rows {
        let mut fields = Fields::of("messages", row);
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
    Ok(by_profile)
}

type Unreadable = (ProfileId, StoreError, Vec<ClaimedMessage>);

fn with_states(
    mut by_profile: BTreeMap<ProfileId, Vec<ClaimedMessage>>,
    states: &[sqlx::sqlite::SqliteRow],
) -> Result<(Vec<ClaimedMessages>, Vec<Unreadable>), StoreError> {
    let (mut groups, mut corrupt) = (Vec::with_capacity(states.len()), Vec::new());
    for row in states {
        let mut fields = Fields::of("profiles", row);
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
    pub generation: i64,
    pub batch: Vec<IntentCommit>,
}

/// The guards of the messages in $1, with those of their profiles. `no_fact_waits`: nothing that makes the person due is unabsorbed.
pub(super) const INTENT_GUARDS: &str = "
    select m.id, m.state, m.epoch, m.wakes_on, m.attempts, m.worker, p.id, p.version, p.due_at,
        p.woken_seq <= p.absorbed_seq and p.quarantined_at is null, m.channel, m.category
    from json_each($1) j join messages m on m.id = unhex(j.value) join profiles p on p.id = m.profile_id";

/// $1 profiles (id, due, place, length), $2 their states, $3 sends (id, at, profile, number, epoch, worker), $4 holds (id, until,
/// because, at), $5 ends (id, state, because, outcome bit, at), $6 conflicting (id, epoch), $7 events, $8 who has news (profile,
/// newest event, due), $9 entries.
pub(super) const INTENT: &str = concat!(
    "update profiles set version = version + 1,
        due_at = case when j.due is null then due_at else min(coalesce(due_at, j.due), j.due) end,
        state = case when j.place is null then state else substr($2, j.place, j.length) end
    from (select value ->> 0 as id, value ->> 1 as due, value ->> 2 as place, value ->> 3 as length from json_each($1)) j
    where profiles.id = j.id;
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
    ";
    update profiles set woken_seq = j.seq,
        due_at = case when quarantined_at is null then min(coalesce(due_at, j.due), j.due) end
    from (select value ->> 0 as id, value ->> 1 as seq, value ->> 2 as due from json_each($8)) j
    where profiles.id = j.id;
    insert into entries (profile_id, entered_at, rules_version, rule, run, step, what, because, until_at)
    select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8
    from json_each($9)"
);

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
        let guards = intent_guards(&self.batch, tx).await?;
        let nothing_forbidden_since = tx.memory.numbers.generation == self.generation;
        let listed = found_on_list(&self.addressed(&guards), tx).await?;
        let mut sheet = IntentSheet::default();
        let mut answers = Vec::with_capacity(self.batch.len());
        let mut seen = BTreeSet::new();
        for share in &self.batch {
            // a second share of the same person in one batch is a conflict: it was made from the row before the first
            let may_commit = nothing_forbidden_since && seen.insert(share.profile_id) && self.may_commit(share, &guards);
            if let Some(facts) = listed.get(&share.profile_id).filter(|_| may_commit) {
                sheet.hear(share, facts, tx)?;
                answers.push(Committed::Conflict);
            } else if may_commit {
                sheet.add(share, &guards, tx)?;
                answers.push(Committed::Committed);
            } else {
                sheet.give_back(share);
                answers.push(Committed::Conflict);
            }
        }
        sheet.write(tx).await?;
        Ok(answers)
    }
}

impl Intents {
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
    let asked: Vec<String> = batch.iter().flat_map(|share| &share.messages).map(|intent| hex(intent.message.0)).collect();
    let mut guards = HashMap::with_capacity(asked.len());
    for row in sqlx::query(INTENT_GUARDS).bind(json(&asked)?).fetch_all(&mut *tx.connection).await? {
        let mut fields = Fields::of("messages", &row);
        let id = fields.message_id("id")?;
        let guard = IntentGuard {
            state: message_state(&mut fields)?,
            epoch: fields.next("epoch")?,
            wakes_on: fields.count("wakes_on")?,
            attempts: fields.count("attempts")?,
            worker: fields.next::<Option<String>>("worker")?.unwrap_or_default(),
            profile: ProfileId(fields.next("profile_id")?),
            version: fields.next("version")?,
            due_at: fields.due("due_at")?,
            no_fact_waits: fields.next("woken_seq")?,
            channel: fields.word("channel", Channel::named)?,
            category: fields.word("category", Category::named)?,
        };
        guards.insert(id, guard);
    }
    Ok(guards)
}

/// (profile, due, place and length of its state)
type IntentProfile = (i64, Option<i64>, Option<usize>, Option<usize>);

/// Everything that intents write, table by table.
#[derive(Default)]
struct IntentSheet<'c> {
    profiles: Vec<IntentProfile>,
    states: States,
    sends: Vec<(String, i64, i64, u32, i64, &'c str)>,
    holds: Vec<(String, i64, &'c str, i64)>,
    ends: Vec<(String, &'static str, &'c str, u16, i64)>,
    conflicting: Vec<(String, i64)>,
    events: Vec<EventRow<'c>>,
    news: News,
    entries: Vec<EntryColumns<'c>>,
}

impl<'c> IntentSheet<'c> {
    fn add(&mut self, share: &'c IntentCommit, guards: &'c HashMap<MessageId, IntentGuard>, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let id = share.profile_id;
        self.profile(id, share.profile.as_ref(), share.due_at);
        for event in &share.own_events {
            self.events.push(event_row(tx.memory.event_seq(), id, event, Waits::No)?);
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
                        let makes_room = share.profile.as_ref().is_some_and(gate::waits_for_room);
                        let wakes = guard.wakes_on & bit != 0 || makes_room;
                        let seq = tx.memory.event_seq();
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
            let seq = tx.memory.event_seq();
            self.events.push(event_row(seq, share.profile_id, fact, Waits::AndWakes)?);
            self.news.note(share.profile_id, seq, fact.received_at, true);
        }
        Ok(())
    }

    fn profile(&mut self, id: ProfileId, profile: Option<&Profile>, due_at: Option<Timestamp>) {
        if profile.is_none() && due_at.is_none() {
            return;
        }
        let (place, length) = profile.map(|profile| self.states.add(profile)).unzip();
        self.profiles.push((id.0, due_at.and_then(super::rows::due), place, length));
    }

    async fn write(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query(INTENT)
            .bind(json(&self.profiles)?)
            .bind(self.states.into_bytes())
            .bind(json(&self.sends)?)
            .bind(json(&self.holds)?)
            .bind(json(&self.ends)?)
            .bind(json(&self.conflicting)?)
            .bind(json(&self.events)?)
            .bind(json(&self.news.rows())?)
            .bind(json(&self.entries)?)
            .execute(&mut *tx.connection)
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

/// The messages of $1 as results come, and whether their person has others that have not gone out.
pub(super) const RESULT_GUARDS: &str = "
    select m.id, m.profile_id, m.state, m.epoch, m.wakes_on, m.outcomes, m.expires_at,
        exists (select 1 from messages o where o.profile_id = m.profile_id and o.state in ('queued', 'leased') and o.id <> m.id)
    from json_each($1) j join messages m on m.id = unhex(j.value)";

/// $1 messages (id, state, changed_at, outcomes, due or null, claims are over), $2 attempts (id, epoch, ended_at, outcome, provider's id,
/// detail, profile), $3 events, $4 who has news (profile, newest event, due), $5 changed profiles (id, place, length), $6 their states.
pub(super) const RESULT: &str = concat!(
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
    ";
    update profiles set woken_seq = j.seq,
        due_at = case when quarantined_at is null then min(coalesce(due_at, j.due), j.due) end
    from (select value ->> 0 as id, value ->> 1 as seq, value ->> 2 as due from json_each($4)) j
    where profiles.id = j.id;
    update profiles set version = version + 1, state = substr($6, j.place, j.length)
    from (select value ->> 0 as id, value ->> 1 as place, value ->> 2 as length from json_each($5)) j
    where profiles.id = j.id"
);

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
                let seq = tx.memory.event_seq();
                events.push(event_row(seq, standing.profile, event, if woke { Waits::AndWakes } else { Waits::Yes })?);
                news.note(standing.profile, seq, event.received_at, woke);
            }
            recorded.push(Recorded { state: Some(standing.state), new, woke });
        }
        let changed: Vec<_> = standings.iter().filter_map(|(id, standing)| standing.row(*id)).collect();
        let (rows, states) = people.rows();
        let script = sqlx::query(RESULT).bind(json(&changed)?).bind(json(&attempts)?).bind(json(&events)?).bind(json(&news.rows())?);
        script.bind(json(&rows)?).bind(states.into_bytes()).execute(&mut *tx.connection).await?;
        Ok(recorded)
    }
}

async fn standings(results: &[MessageResult], tx: &mut Tx<'_>) -> Result<BTreeMap<MessageId, Standing>, StoreError> {
    let asked: BTreeSet<MessageId> = results.iter().map(|result| result.message).collect();
    let asked: Vec<String> = asked.into_iter().map(|id| hex(id.0)).collect();
    let mut standings = BTreeMap::new();
    for row in sqlx::query(RESULT_GUARDS).bind(json(&asked)?).fetch_all(&mut *tx.connection).await? {
        let mut fields = Fields::of("messages", &row);
        let id = fields.message_id("id")?;
        let standing = Standing {
            profile: ProfileId(fields.next("profile_id")?),
            state: message_state(&mut fields)?,
            epoch: fields.next("epoch")?,
            wakes_on: fields.count("wakes_on")?,
            outcomes: fields.count("outcomes")?,
            expires_at: fields.instant("expires_at")?,
            has_open_siblings: fields.next("has_open_siblings")?,
            changed_at: None,
            due_at: None,
        };
        standings.insert(id, standing);
    }
    Ok(standings)
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
        for row in sqlx::query(STATES).bind(json(&ids)?).fetch_all(&mut *tx.connection).await? {
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
        // a closed address: messages of the same person that have not gone out must hear of it before they do
        let closes = matches!(&result.kind, ResultKind::Outcome(outcome, event) if run::closes_address(*outcome, event));
        let closes_address = closes && self.has_open_siblings;
        let makes_room = run::never_went(outcome) && people.wait_for_room(self.profile);
        (is_new, is_new && (self.wakes_on & outcome.bit() != 0 || closes_address || makes_room))
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
