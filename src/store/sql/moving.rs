//! Moving house: everything that one database holds is carried into another, of the same kind or the other. People go in portions, each
//! with all that is theirs in one transaction that also notes how far it has come, so that a move that was interrupted goes on; what is
//! nobody's goes last. Until the end the new house is marked, and nobody else opens it.
//!
//! What a process had claimed is not carried over: leased messages are queued again, and what was being sent is in doubt there as it is
//! here.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::rows::{Fields, Rows};
use super::{Backend, Needs, Session, Sql, Tx, Work, query};
use crate::store::StoreError;

/// People carried over in one transaction.
const PORTION: i64 = 500;

pub(super) const MOVED_UNTIL: Sql = Sql::same("select value from counters where name = 'moved_until'");
pub(super) const NOTE_MOVED: Sql = Sql {
    sqlite: "insert into counters (name, value) values ('moved_until', $1) on conflict (name) do update set value = excluded.value",
    postgres: "insert into counters (name, value) values ('moved_until', $1::bigint) on conflict (name) do update set value = excluded.value",
};
pub(super) const MOVED_IN: Sql = Sql::same("delete from counters where name = 'moved_until'");
pub(super) const IS_INHABITED: Sql = Sql::same("select count(*) from (select 1 from profiles limit 1) one");
pub(super) const LAST_PERSON: Sql = Sql::same("select coalesce(max(id), 0) from profiles");
/// Processes at work on it, beside whoever asks to read.
pub(super) const LIVING: Sql =
    Sql { sqlite: "select 0", postgres: "select count(*) from workers where beaten_at > clock_timestamp() - interval '30 seconds'" };
/// The house's own numbers and keys give way to those that come.
pub(super) const EMPTY_KEYS: Sql = Sql::same("delete from keys; delete from environment");
/// Epochs of before are everybody's past; numbers go on after the greatest.
pub(super) const SETTLE: Sql = Sql {
    sqlite: "update counters set value = max(value, $1) where name = 'boots';
    update counters set value = max(value, $2 + 1) where name = 'events_numbered_until';
    update counters set value = max(value, coalesce((select max(received_at) from events), 0)) where name = 'events_received_until'",
    postgres: "update counters set value = greatest(value, $1) where name = 'boots';
        update counters set value = value + 1 where name in ('generation', 'world');
        select setval('events_seq', greatest($2, 1));
        select setval('profiles_id_seq', greatest((select max(id) from profiles), 1));
        select setval(pg_get_serial_sequence('messages', 'seq'), greatest((select max(seq) from messages), 1));
        select setval(pg_get_serial_sequence('entries', 'seq'), greatest((select max(seq) from entries), 1));
        select setval(pg_get_serial_sequence('publications', 'seq'), greatest((select max(seq) from publications), 1));
        select setval(pg_get_serial_sequence('rule_history', 'seq'), greatest((select max(seq) from rule_history), 1));
        select setval(pg_get_serial_sequence('rejects', 'seq'), greatest((select max(seq) from rejects), 1));
        select setval(pg_get_serial_sequence('removals', 'seq'), greatest((select max(seq) from removals), 1));
        select setval(pg_get_serial_sequence('api_keys', 'id'), greatest((select max(id) from api_keys), 1))",
};
/// The greatest number of a process, and of an event.
pub(super) const NUMBERS_GIVEN: Sql = Sql {
    sqlite: "select (select value from counters where name = 'boots'),
        max(coalesce((select max(seq) from events), 0), (select value from counters where name = 'events_numbered_until'))",
    postgres: "select (select value from counters where name = 'boots'), (select last_value from events_seq)",
};

/// How a column travels.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Int,
    Text,
    Bytes,
    /// 0 or 1; a boolean in PostgreSQL.
    Flag,
}
use Kind::{Bytes, Flag, Int, Text};

type Columns = &'static [(&'static str, Kind)];

/// A table of people's: its column that says whose a row is, and the columns.
const OF_PEOPLE: &[(&str, &str, Columns)] = &[
    (
        "profiles",
        "id",
        &[
            ("id", Int),
            ("key", Text),
            ("version", Int),
            ("due_at", Int),
            ("absorbed_seq", Int),
            ("woken_seq", Int),
            ("quarantined_at", Int),
            ("quarantined_because", Text),
            ("merged_into", Int),
            ("state", Bytes),
        ],
    ),
    ("identities", "profile_id", &[("kind", Text), ("value", Text), ("profile_id", Int)]),
    (
        "events",
        "profile_id",
        &[
            ("seq", Int),
            ("profile_id", Int),
            ("id_hash", Int),
            ("source", Text),
            ("event_id", Text),
            ("kind", Text),
            ("name", Text),
            ("occurred_at", Int),
            ("received_at", Int),
            ("waits", Int),
            ("properties", Text),
        ],
    ),
    (
        "consents",
        "profile_id",
        &[
            ("profile_id", Int),
            ("event_seq", Int),
            ("purpose", Text),
            ("channel", Text),
            ("granted", Flag),
            ("basis", Text),
            ("given_at", Text),
            ("source", Text),
            ("event_id", Text),
            ("occurred_at", Int),
            ("received_at", Int),
            ("text_version", Text),
            ("expires_at", Int),
        ],
    ),
    (
        "messages",
        "profile_id",
        &[
            ("seq", Int),
            ("id", Bytes),
            ("profile_id", Int),
            ("dedupe_key", Bytes),
            ("rule", Text),
            ("rules_version", Int),
            ("run_key", Text),
            ("run", Int),
            ("step", Text),
            ("channel", Text),
            ("category", Text),
            ("template", Text),
            ("languages", Text),
            ("decided_at", Int),
            ("due_at", Int),
            ("expires_at", Int),
            ("priority", Int),
            ("wakes_on", Int),
            ("state", Text),
            ("because", Text),
            ("changed_at", Int),
            ("worker", Text),
            ("epoch", Int),
            ("claims", Int),
            ("attempts", Int),
            ("first_attempt_at", Int),
            ("outcomes", Int),
            ("data", Text),
            ("consent_seq", Int),
        ],
    ),
    (
        "attempts",
        "profile_id",
        &[
            ("profile_id", Int),
            ("message_id", Bytes),
            ("number", Int),
            ("epoch", Int),
            ("worker", Text),
            ("started_at", Int),
            ("ended_at", Int),
            ("outcome", Text),
            ("provider_id", Text),
            ("detail", Text),
        ],
    ),
    (
        "postings",
        "profile_id",
        &[
            ("profile_id", Int),
            ("number", Int),
            ("kind", Text),
            ("class", Text),
            ("amount", Int),
            ("posted_at", Int),
            ("reason", Text),
            ("rule", Text),
            ("run", Int),
            ("step", Text),
            ("notice", Bytes),
        ],
    ),
    ("allocations", "profile_id", &[("profile_id", Int), ("posting", Int), ("lot", Int), ("amount", Int)]),
    (
        "exposures",
        "profile_id",
        &[
            ("profile_id", Int),
            ("rule", Text),
            ("run_key", Text),
            ("run", Int),
            ("exposed_at", Int),
            ("held_out", Flag),
            ("decided_by", Text),
        ],
    ),
    (
        "entries",
        "profile_id",
        &[
            ("seq", Int),
            ("profile_id", Int),
            ("entered_at", Int),
            ("rules_version", Int),
            ("rule", Text),
            ("run", Int),
            ("step", Text),
            ("what", Text),
            ("because", Text),
            ("until_at", Int),
        ],
    ),
    ("removed_events", "profile_id", &[("profile_id", Int), ("id_hash", Int)]),
    ("removed_rows", "profile_id", &[("profile_id", Int), ("kind", Text), ("older_than", Int), ("removed", Int)]),
];

/// Tables that are nobody's. The last columns of the counted ones are sums over the slots that PostgreSQL counts in.
const OF_NOBODY: &[(&str, Columns)] = &[
    ("environment", &[("id", Int), ("name", Text)]),
    // a copy stays one, wherever it goes
    ("backup", &[("id", Int), ("taken_at", Int)]),
    ("keys", &[("name", Text), ("key", Bytes)]),
    (
        "api_keys",
        &[
            ("id", Int),
            ("source", Text),
            ("scope", Text),
            ("hash", Bytes),
            ("created_at", Int),
            ("created_by", Text),
            ("revoked_at", Int),
            ("revoked_by", Text),
        ],
    ),
    (
        "rejects",
        &[
            ("seq", Int),
            ("source", Text),
            ("row_hash", Int),
            ("reason", Text),
            ("row", Text),
            ("first_at", Int),
            ("last_at", Int),
            ("times", Int),
        ],
    ),
    ("rule_texts", &[("hash", Int), ("text", Text)]),
    ("rule_set_texts", &[("rules_version", Int), ("path", Text), ("hash", Int)]),
    (
        "publications",
        &[
            ("seq", Int),
            ("rules_version", Int),
            ("published_at", Int),
            ("published_by", Text),
            ("why", Text),
            ("spread_ms", Int),
            ("next_profile", Int),
            ("files", Int),
            ("is_rollback", Flag),
        ],
    ),
    ("refused_rules", &[("id", Int), ("files", Int), ("refused_at", Int), ("because", Text)]),
    (
        "rule_states",
        &[
            ("rule", Text),
            ("first_live_at", Int),
            ("when_live_at", Int),
            ("when_hash", Int),
            ("hash", Int),
            ("is_live", Flag),
            ("held_at", Int),
            ("held_because", Text),
            ("held_by", Text),
        ],
    ),
    (
        "rule_history",
        &[("seq", Int), ("rule", Text), ("happened_at", Int), ("what", Text), ("done_by", Text), ("why", Text), ("rules_version", Int)],
    ),
    ("pauses", &[("scope", Text), ("name", Text), ("paused_at", Int), ("because", Text), ("paused_by", Text)]),
    ("rule_entries", &[("rule", Text), ("minute", Int), ("entries", Int)]),
    ("budget_uses", &[("coupon", Text), ("quarter", Int), ("used_minor", Int)]),
    ("heartbeats", &[("worker", Text), ("beaten_at", Int)]),
    ("downtimes", &[("from_at", Int), ("until_at", Int)]),
    ("source_hours", &[("source", Text), ("hour", Int), ("events", Int)]),
    ("quiet_spans", &[("from_at", Int), ("until_at", Int)]),
    (
        "suppressions",
        &[("channel", Text), ("address_hash", Bytes), ("scope", Text), ("reason", Text), ("since", Int), ("until", Int), ("source", Text)],
    ),
    ("soft_bounces", &[("channel", Text), ("address_hash", Bytes), ("bounced_at", Int), ("id_hash", Int)]),
    (
        "erasures",
        &[("identity_hash", Bytes), ("erased_at", Int), ("profile_id", Int), ("requested_by", Text), ("why", Text), ("removed", Text)],
    ),
    ("removals", &[("seq", Int), ("kind", Text), ("removed_at", Int), ("older_than", Int), ("removed", Int)]),
    ("removed_attempts", &[("channel", Text), ("day", Int), ("attempts", Int)]),
];

/// Tables whose counts PostgreSQL keeps in slots.
const SLOTTED: [&str; 3] = ["rule_entries", "budget_uses", "source_hours"];
/// Tables whose first column PostgreSQL numbers by itself.
const NUMBERED: [&str; 7] = ["messages", "entries", "api_keys", "rejects", "publications", "rule_history", "removals"];

/// What reads a table and what writes it.
struct Carrier {
    read: Sql,
    write: Sql,
}

static PEOPLE: LazyLock<Vec<Carrier>> =
    LazyLock::new(|| OF_PEOPLE.iter().map(|(table, person, columns)| carrier(table, Some(person), columns)).collect());
static NOBODY: LazyLock<Vec<Carrier>> = LazyLock::new(|| OF_NOBODY.iter().map(|(table, columns)| carrier(table, None, columns)).collect());

fn listed(columns: Columns, column: impl Fn(usize, &str, Kind) -> String) -> String {
    columns.iter().enumerate().map(|(place, (name, kind))| column(place, name, *kind)).collect::<Vec<_>>().join(", ")
}

/// Made once, and kept as long as the program runs, as statements written by hand are.
fn carrier(table: &str, person: Option<&str>, columns: Columns) -> Carrier {
    let names = listed(columns, |_, name, _| name.to_owned());
    let range = person.map_or(String::new(), |person| format!(" where {person} > $1 and {person} <= $2"));
    let counted = columns.last().map_or("", |(name, _)| *name);
    let is_slotted = SLOTTED.contains(&table);
    // what a process had leased is queued again
    let state = |name: &str| (table, name) == ("messages", "state");
    let lite = listed(columns, |_, name, kind| match kind {
        Bytes => format!("hex({name})"),
        _ if state(name) => "case state when 'leased' then 'queued' else state end".to_owned(),
        _ => name.to_owned(),
    });
    let postgres = listed(columns, |_, name, kind| match kind {
        Bytes => format!("encode({name}, 'hex')"),
        Flag => format!("{name}::integer"),
        _ if state(name) => "case state when 'leased' then 'queued' else state end".to_owned(),
        _ if is_slotted && name == counted => format!("sum({name})::bigint"),
        _ => name.to_owned(),
    });
    let grouped = if is_slotted {
        let keys: Vec<&str> = columns.iter().map(|(name, _)| *name).filter(|name| *name != counted).collect();
        format!(" group by {}", keys.join(", "))
    } else {
        String::new()
    };
    let read = Sql {
        sqlite: format!("select json_group_array(json_array({lite})) from {table}{range}").leak(),
        postgres: format!(
            "select coalesce(json_agg(moved), '[]')::text from (select json_build_array({postgres}) as moved from {table}{range}{grouped}) of_table"
        )
        .leak(),
    };
    let to_lite = listed(columns, |place, _, kind| match kind {
        Bytes => format!("unhex(value ->> {place})"),
        _ => format!("value ->> {place}"),
    });
    let to_postgres = listed(columns, |place, _, kind| match kind {
        Bytes => format!("decode(value ->> {place}, 'hex')"),
        Int => format!("(value ->> {place})::bigint"),
        Flag => format!("(value ->> {place})::integer = 1"),
        Text => format!("value ->> {place}"),
    });
    // identities begin with what a sender says, not with a person
    let owner = person.filter(|_| table != "identities").and_then(|person| columns.iter().position(|(name, _)| *name == person));
    let (bucket, of_bucket) = match owner {
        Some(place) => ("bucket, ", format!("bucket((value ->> {place})::bigint), ")),
        None => ("", String::new()),
    };
    let (slot, of_slot) = if is_slotted { (", slot", ", 0") } else { ("", "") };
    let overriding = if NUMBERED.contains(&table) { " overriding system value" } else { "" };
    let write = Sql {
        sqlite: format!("insert into {table} ({names}) select {to_lite} from json_each($1) where true on conflict do nothing").leak(),
        postgres: format!(
            "insert into {table} ({bucket}{names}{slot}){overriding} select {of_bucket}{to_postgres}{of_slot} \
             from json_array_elements($1::json) as value on conflict do nothing"
        )
        .leak(),
    };
    Carrier { read, write }
}

// -------------------------------------------------------------------------------------------------------------- the move

/// Whether a move into this database was begun and not ended.
pub(in crate::store) async fn is_under_way<B: Backend>(store: &B) -> Result<bool, StoreError> {
    let mut reader = store.reader().await?;
    let until = query(&MOVED_UNTIL).fetch_optional(&mut B::session(&mut reader)).await?;
    store.end(reader).await;
    Ok(until.is_some())
}

async fn number(sql: &'static Sql, session: &mut Session<'_>) -> Result<Option<i64>, StoreError> {
    query(sql).fetch_optional(session).await?.map(|row| Fields::of("counters", &row).next("value")).transpose()
}

/// Carries everything over. `told` hears how many people of how many have come.
///
/// # Errors
/// Somebody lives in the new house already, or one of the databases does not answer: another call goes on from there.
pub(in crate::store) async fn carry<F: Backend, T: Backend>(from: &F, to: &T, told: &(dyn Fn(i64, i64) + Sync)) -> Result<(), StoreError> {
    let (until, is_inhabited) = {
        let mut reader = to.reader().await?;
        let mut session = T::session(&mut reader);
        (number(&MOVED_UNTIL, &mut session).await?, number(&IS_INHABITED, &mut session).await? != Some(0))
    };
    if until.is_none() && is_inhabited {
        return Err(StoreError::Conflict("the database to move into is not empty: it".into()));
    }
    let mut reader = from.reader().await?;
    let mut session = F::session(&mut reader);
    if number(&LIVING, &mut session).await? != Some(0) {
        return Err(StoreError::Conflict("other processes work on the database to move out of, stop them first: it".into()));
    }
    let last = number(&LAST_PERSON, &mut session).await?.unwrap_or(0);
    let mut after = until.unwrap_or(0);
    to.write(Portion { upto: after, tables: Vec::new() }).await?;
    told(after, last);
    while after < last {
        let upto = (after + PORTION).min(last);
        let mut tables = Vec::with_capacity(PEOPLE.len());
        for carrier in PEOPLE.iter() {
            let row = query(&carrier.read).bind(after).bind(upto).fetch_one(&mut session).await?;
            tables.push((&carrier.write, Rows::of_text(Fields::of("rows", &row).next("rows")?)));
        }
        to.write(Portion { upto, tables }).await?;
        after = upto;
        told(after, last);
    }
    let mut tables = Vec::with_capacity(NOBODY.len());
    for carrier in NOBODY.iter() {
        let row = query(&carrier.read).fetch_one(&mut session).await?;
        tables.push((&carrier.write, Rows::of_text(Fields::of("rows", &row).next("rows")?)));
    }
    let row = query(&NUMBERS_GIVEN).fetch_one(&mut session).await?;
    let mut fields = Fields::of("counters", &row);
    to.write(Household { tables, boots: fields.next("boots")?, events: fields.next("events")? }).await
}

type Carried = Vec<(&'static Sql, Rows)>;

/// Some people with all that is theirs.
struct Portion {
    upto: i64,
    tables: Carried,
}

#[async_trait]
impl Work for Portion {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for (write, rows) in &self.tables {
            query(write).bind(rows).execute(&mut tx.session).await?;
        }
        query(&NOTE_MOVED).bind(self.upto).execute(&mut tx.session).await?;
        Ok(())
    }
}

/// What is nobody's, and the end of the move.
struct Household {
    tables: Carried,
    boots: i64,
    events: i64,
}

#[async_trait]
impl Work for Household {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.take(Needs { authority: true, ..Needs::default() }).await?;
        query(&EMPTY_KEYS).execute(&mut tx.session).await?;
        for (write, rows) in &self.tables {
            query(write).bind(rows).execute(&mut tx.session).await?;
        }
        query(&SETTLE).bind(self.boots).bind(self.events).execute(&mut tx.session).await?;
        query(&MOVED_IN).execute(&mut tx.session).await?;
        Ok(())
    }
}
