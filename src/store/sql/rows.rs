//! Rows in both directions: batches as JSON text and one blob on the way in, typed fields on the way out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::query::{Cell, Row};
use crate::engine::action::{Channel, Message, MessageId, MessageState};
use crate::engine::event::{Event, EventKind};
use crate::engine::profile::{Category, Name, Profile};
use crate::engine::time::Timestamp;
use crate::store::{EventSeq, ProfileId, StoreError, encoding};

/// Reads a row's columns one after the other. STRICT tables promise the types; what does not keep the promise is corrupt.
pub(in crate::store) struct Fields<'r> {
    table: &'static str,
    row: &'r Row,
    at: usize,
}

impl<'r> Fields<'r> {
    pub fn of(table: &'static str, row: &'r Row) -> Self {
        Fields { table, row, at: 0 }
    }

    /// The next column; `column` names it in errors.
    pub fn next<T: Cell<'r>>(&mut self, column: &'static str) -> Result<T, StoreError> {
        let value = self.row.cell(self.at).map_err(|e| self.corrupt(column, e.to_string()))?;
        self.at += 1;
        Ok(value)
    }

    pub fn name(&mut self, column: &'static str) -> Result<Name, StoreError> {
        self.next::<&str>(column).map(Arc::from)
    }

    pub fn instant(&mut self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.next(column).map(Timestamp::from_ms)
    }

    pub fn optional_instant(&mut self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.next::<Option<i64>>(column)?.map(Timestamp::from_ms))
    }

    /// An instant that is null where nothing but an event can bring it.
    pub fn due(&mut self, column: &'static str) -> Result<Timestamp, StoreError> {
        Ok(self.optional_instant(column)?.unwrap_or(Timestamp::FOREVER))
    }

    /// A count that is never negative.
    pub fn count<T: TryFrom<i64>>(&mut self, column: &'static str) -> Result<T, StoreError> {
        let count: i64 = self.next(column)?;
        T::try_from(count).map_err(|_| self.corrupt(column, format!("{count} is out of range")))
    }

    pub fn optional_count<T: TryFrom<i64>>(&mut self, column: &'static str) -> Result<Option<T>, StoreError> {
        let Some(count) = self.next::<Option<i64>>(column)? else { return Ok(None) };
        T::try_from(count).map(Some).map_err(|_| self.corrupt(column, format!("{count} is out of range")))
    }

    /// A word of a closed list.
    pub fn word<T>(&mut self, column: &'static str, named: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        let word: &str = self.next(column)?;
        named(word).ok_or_else(|| self.corrupt(column, format!("unknown word `{word}`")))
    }

    pub fn message_id(&mut self, column: &'static str) -> Result<MessageId, StoreError> {
        self.key(column).map(MessageId)
    }

    pub fn key(&mut self, column: &'static str) -> Result<u128, StoreError> {
        let bytes: &[u8] = self.next(column)?;
        let bytes = bytes.try_into().map_err(|_| self.corrupt(column, format!("{} bytes instead of 16", bytes.len())))?;
        Ok(u128::from_be_bytes(bytes))
    }

    pub fn optional_message_id(&mut self, column: &'static str) -> Result<Option<MessageId>, StoreError> {
        let bytes: Option<&[u8]> = self.next(column)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| self.corrupt(column, format!("{} bytes instead of 16", bytes.len())))?;
        Ok(Some(MessageId(u128::from_be_bytes(bytes))))
    }

    /// JSON in a text column.
    pub fn json<T: serde::de::DeserializeOwned>(&mut self, column: &'static str) -> Result<T, StoreError> {
        let text: &str = self.next(column)?;
        serde_json::from_str(text).map_err(|e| self.corrupt(column, e.to_string()))
    }

    /// What a statement answered that lays its rows into one JSON text (`json_group_array`): small rows come far cheaper that way than
    /// one by one through the driver's channel, which wakes a thread for each.
    pub fn all<T: serde::de::DeserializeOwned>(table: &'static str, row: &'r Row) -> Result<Vec<T>, StoreError> {
        Fields::of(table, row).json("rows")
    }

    pub fn state(&mut self, column: &'static str) -> Result<Profile, StoreError> {
        let bytes: &[u8] = self.next(column)?;
        encoding::decode(bytes).map_err(|e| self.corrupt(column, e.to_string()))
    }

    /// An error about this row, which is named by its first column.
    pub fn corrupt(&self, column: &'static str, detail: String) -> StoreError {
        let key = self.row.cell::<i64>(0).map_or_else(|_| "a row".to_owned(), |id| format!("row {id}"));
        StoreError::Corrupt { table: self.table, column, key, detail }
    }
}

/// A batch as JSON: an array of rows.
#[derive(Clone)]
pub(in crate::store) struct Rows(String);

impl Rows {
    /// Rows that a database has laid into a JSON text itself.
    pub fn of_text(text: String) -> Self {
        Rows(text)
    }

    pub fn is_empty(&self) -> bool {
        self.0 == "[]"
    }

    pub fn as_text(&self) -> &str {
        &self.0
    }

    pub fn into_text(self) -> String {
        self.0
    }
}

pub(super) fn json<T: Serialize>(rows: &[T]) -> Result<Rows, StoreError> {
    serde_json::to_string(rows).map(Rows).map_err(|e| StoreError::Unavailable(format!("a batch is no JSON: {e}")))
}

/// States laid end to end, to travel as one blob.
#[derive(Default)]
pub(super) struct States {
    bytes: Vec<u8>,
    encoder: encoding::Encoder,
}

/// Place (from 1, as `substr` counts) and length of a state within the blob.
pub(super) type Place = (usize, usize);

impl States {
    pub fn add(&mut self, profile: &Profile) -> Place {
        let before = self.bytes.len();
        self.encoder.append(profile, &mut self.bytes);
        (before + 1, self.bytes.len() - before)
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A due instant as stored: null where only an event can bring it.
pub(super) fn due(at: Timestamp) -> Option<i64> {
    (!at.is_forever()).then(|| at.as_ms())
}

/// 16 bytes as they travel in JSON.
pub(super) fn hex(key: u128) -> String {
    format!("{key:032x}")
}

// -------------------------------------------------------------------------------------------------------------- events

/// (source, id) of an event in 64 bits.
pub(in crate::store) fn id_hash(event: &Event) -> i64 {
    id_hash_of(&event.source, &event.id)
}

pub(in crate::store) fn id_hash_of(source: &str, id: &str) -> i64 {
    let mut text = Vec::with_capacity(source.len() + id.len() + 1);
    text.extend_from_slice(source.as_bytes());
    text.push(0);
    text.extend_from_slice(id.as_bytes());
    twox_hash::XxHash3_64::oneshot(&text) as i64
}

/// How the next look treats an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Absorbed by the decision that made it.
    No,
    /// Until the profile is looked at for another reason.
    Yes,
    /// The profile is due because of it.
    AndWakes,
}

/// The columns of an event, in the order of `INSERT_EVENTS`.
#[derive(Serialize)]
pub(super) struct EventRow<'e>(i64, i64, i64, &'e str, &'e str, &'static str, &'e str, i64, i64, i64, String);

/// Inserts the rows of parameter `$n`, written where `{}` stands: used in several scripts.
macro_rules! insert_events {
    (postgres $rows:literal) => {
        concat!(
            "insert into events (bucket, seq, profile_id, id_hash, source, event_id, kind, name, occurred_at, received_at, waits, properties)
            select bucket((value ->> 1)::bigint), (value ->> 0)::bigint, (value ->> 1)::bigint, (value ->> 2)::bigint, value ->> 3,
                value ->> 4, value ->> 5, value ->> 6, (value ->> 7)::bigint, (value ->> 8)::bigint, (value ->> 9)::bigint, value ->> 10
            from jsonb_array_elements(",
            $rows,
            "::jsonb) as value"
        )
    };
    ($rows:literal) => {
        concat!(
            "insert into events (seq, profile_id, id_hash, source, event_id, kind, name, occurred_at, received_at, waits, properties)
            select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8,
                value ->> 9, value ->> 10
            from json_each(",
            $rows,
            ")"
        )
    };
}
pub(super) use insert_events;

/// Makes the people of parameter `$n` (profile, newest event that wakes, instant) due: used in several scripts.
macro_rules! wake_people {
    (postgres $rows:literal) => {
        concat!(
            "update profiles set woken_seq = j.seq,
                due_at = case when quarantined_at is null then least(coalesce(due_at, j.due), j.due) end
            from (select (value ->> 0)::bigint as id, (value ->> 1)::bigint as seq, (value ->> 2)::bigint as due
                from jsonb_array_elements(",
            $rows,
            "::jsonb) as value) j
            where profiles.bucket = bucket(j.id) and profiles.id = j.id"
        )
    };
    ($rows:literal) => {
        concat!(
            "update profiles set woken_seq = j.seq,
                due_at = case when quarantined_at is null then min(coalesce(due_at, j.due), j.due) end
            from (select value ->> 0 as id, value ->> 1 as seq, value ->> 2 as due from json_each(",
            $rows,
            ")) j
            where profiles.id = j.id"
        )
    };
}
pub(super) use wake_people;

/// Inserts the lines of the decision log in parameter `$n` ([`super::decisions::EntryColumns`]): used in several scripts.
macro_rules! insert_entries {
    (postgres $rows:literal) => {
        concat!(
            "insert into entries (bucket, profile_id, entered_at, rules_version, rule, run, step, what, because, until_at)
            select bucket((value ->> 0)::bigint), (value ->> 0)::bigint, (value ->> 1)::bigint, (value ->> 2)::bigint, value ->> 3,
                (value ->> 4)::bigint, value ->> 5, value ->> 6, value ->> 7, (value ->> 8)::bigint
            from jsonb_array_elements(",
            $rows,
            "::jsonb) as value"
        )
    };
    ($rows:literal) => {
        concat!(
            "insert into entries (profile_id, entered_at, rules_version, rule, run, step, what, because, until_at)
            select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8
            from json_each(",
            $rows,
            ")"
        )
    };
}
pub(super) use insert_entries;

pub(super) fn event_row<'e>(seq: EventSeq, profile: ProfileId, event: &'e Event, waits: Waits) -> Result<EventRow<'e>, StoreError> {
    let waits = match waits {
        Waits::No => 0,
        Waits::Yes => 1,
        Waits::AndWakes => 2,
    };
    let properties =
        serde_json::to_string(&event.properties).map_err(|e| StoreError::Unavailable(format!("properties are no JSON: {e}")))?;
    Ok(EventRow(
        seq.0,
        profile.0,
        id_hash(event),
        &event.source,
        &event.id,
        kind_name(event.kind),
        &event.name,
        event.occurred_at.as_ms(),
        event.received_at.as_ms(),
        waits,
        properties,
    ))
}

fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Track => "track",
        EventKind::Identify => "identify",
        EventKind::Consent => "consent",
        EventKind::Engine => "engine",
    }
}

fn kind_named(name: &str) -> Option<EventKind> {
    [EventKind::Track, EventKind::Identify, EventKind::Consent, EventKind::Engine].into_iter().find(|kind| kind_name(*kind) == name)
}

/// The columns that [`event`] reads, in its order.
macro_rules! event_columns {
    () => {
        "e.event_id, e.kind, e.name, e.occurred_at, e.received_at, e.source, e.properties"
    };
}
pub(super) use event_columns;

pub(super) fn event(fields: &mut Fields<'_>) -> Result<Event, StoreError> {
    Ok(Event {
        id: fields.name("event_id")?,
        kind: fields.word("kind", kind_named)?,
        name: fields.name("name")?,
        occurred_at: fields.instant("occurred_at")?,
        received_at: fields.instant("received_at")?,
        source: fields.name("source")?,
        properties: fields.json("properties")?,
    })
}

/// An event whose columns came in one JSON text: its number, whose it is, and [`event_columns`].
#[derive(Deserialize)]
pub(super) struct StoredEvent(i64, i64, Name, String, Name, i64, i64, Name, String);

impl StoredEvent {
    pub fn read(self) -> Result<(EventSeq, ProfileId, Event), StoreError> {
        let StoredEvent(seq, profile, id, kind, name, occurred_at, received_at, source, properties) = self;
        let corrupt = |column, detail| StoreError::Corrupt { table: "events", column, key: format!("row {seq}"), detail };
        let event = Event {
            id,
            kind: kind_named(&kind).ok_or_else(|| corrupt("kind", format!("unknown word `{kind}`")))?,
            name,
            occurred_at: Timestamp::from_ms(occurred_at),
            received_at: Timestamp::from_ms(received_at),
            source,
            properties: serde_json::from_str(&properties).map_err(|e| corrupt("properties", e.to_string()))?,
        };
        Ok((EventSeq(seq), ProfileId(profile), event))
    }
}

// ------------------------------------------------------------------------------------------------------------ messages

/// The columns of a new message, in the order of `INSERT_MESSAGES`.
#[derive(Serialize)]
pub(super) struct NewMessage<'m> {
    id: String,
    profile: i64,
    dedupe_key: String,
    rule: &'m str,
    version: i64,
    run_key: &'m str,
    run: u32,
    step: &'m str,
    channel: &'static str,
    category: &'static str,
    template: &'m str,
    languages: &'m [Name],
    decided_at: i64,
    due_at: i64,
    expires_at: i64,
    priority: u8,
    wakes_on: u16,
    data: &'m Map<String, Json>,
}

pub(super) fn new_message(profile: ProfileId, message: &Message) -> NewMessage<'_> {
    NewMessage {
        id: hex(message.id.0),
        profile: profile.0,
        dedupe_key: hex(message.dedupe_key),
        rule: &message.rule,
        version: message.version as i64,
        run_key: &message.run_key,
        run: message.run,
        step: &message.step,
        channel: message.channel.name(),
        category: message.category.name(),
        template: &message.template,
        languages: &message.languages,
        decided_at: message.decided_at.as_ms(),
        due_at: message.due_at.min(message.expires_at).as_ms(),
        expires_at: message.expires_at.as_ms(),
        priority: message.priority,
        wakes_on: message.wakes_on,
        data: &message.data,
    }
}

/// The columns that [`message`] reads, in its order.
macro_rules! message_columns {
    () => {
        "m.id, m.dedupe_key, m.rule, m.rules_version, m.run_key, m.run, m.step, m.channel, m.category, m.template, m.languages,
        m.decided_at, m.due_at, m.expires_at, m.priority, m.wakes_on, m.data"
    };
}
pub(super) use message_columns;

pub(super) fn message(fields: &mut Fields<'_>) -> Result<Message, StoreError> {
    Ok(Message {
        id: fields.message_id("id")?,
        dedupe_key: fields.key("dedupe_key")?,
        rule: fields.name("rule")?,
        version: fields.next::<i64>("rules_version")? as u64,
        run_key: fields.name("run_key")?,
        run: fields.count("run")?,
        step: fields.name("step")?,
        channel: fields.word("channel", Channel::named)?,
        category: fields.word("category", Category::named)?,
        template: fields.name("template")?,
        languages: fields.json("languages")?,
        decided_at: fields.instant("decided_at")?,
        due_at: fields.instant("due_at")?,
        expires_at: fields.instant("expires_at")?,
        priority: fields.count("priority")?,
        wakes_on: fields.count("wakes_on")?,
        data: fields.json("data")?,
    })
}

pub(super) fn message_state(fields: &mut Fields<'_>) -> Result<MessageState, StoreError> {
    fields.word("state", MessageState::named)
}
