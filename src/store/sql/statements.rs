//! Every statement of this store, prepared against the schema, and the hot ones held to their indexes. A statement that is in no list
//! fails the test too.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};

use super::query::{single_postgres_statements, single_statements_in_bucket};
use super::{
    Sql, append as a, backlog as g, counting as c, decisions as d, erasures as e, identities as i, keys as k, moving as m, origin as o,
    outbox as b, publications as p, reads as r, rejects as j, restored as y, retention as t, rules as u, suppressions as s, world as w,
};
use crate::store::Store as _;
use crate::store::postgres::{LOCK_MESSAGES_IN_BUCKET, LOCK_PEOPLE_IN_BUCKET, LOCK_PEOPLE_OF_MESSAGES_IN_BUCKET, PostgresStore};
use crate::store::sqlite::SqliteStore;

/// Statements that may not walk through a whole table of people, events or messages.
const HOT: &[(&str, &Sql)] = &[
    ("FIND_IDENTITIES", &i::FIND_IDENTITIES),
    ("FIND_USERS", &i::FIND_USERS),
    ("CREATE_PROFILES", &i::CREATE_PROFILES),
    ("FACTS", &i::FACTS),
    ("FACTS_KNOWN", &i::FACTS_KNOWN),
    ("CONSENT_ENDS", &i::CONSENT_ENDS),
    ("HEAR", &i::HEAR),
    ("STILL_OPEN", &i::STILL_OPEN),
    ("GONE_STATE", &i::GONE_STATE),
    ("HEARD_OF", &i::HEARD_OF),
    ("CLOSE", &i::CLOSE),
    ("FIND_DUPLICATES", &a::FIND_DUPLICATES),
    ("APPEND", &a::APPEND),
    ("RECORD_CONSENTS", &a::RECORD_CONSENTS),
    ("KEEP_REJECTS", &j::KEEP_REJECTS),
    ("FORGET_REJECTS", &j::FORGET_REJECTS),
    ("REJECTS", &j::REJECTS),
    ("CLAIM", &d::CLAIM),
    ("CLAIM_SUSPECT", &d::CLAIM_SUSPECT),
    ("WAITING_EVENTS", &d::WAITING_EVENTS),
    ("GUARDS", &d::GUARDS),
    ("COMMIT", &d::COMMIT),
    ("ENTRIES_BY_MINUTE", &c::ENTRIES_BY_MINUTE),
    ("BUDGETS_SINCE", &c::BUDGETS_SINCE),
    ("COUNT", &c::COUNT),
    ("RELEASE", &d::RELEASE),
    ("RELEASE_COUNTED", &d::RELEASE_COUNTED),
    ("SET_ASIDE", &d::SET_ASIDE),
    ("REINSTATE", &d::REINSTATE),
    ("CLAIM_MESSAGES", &b::CLAIM_MESSAGES),
    ("CLAIM_SUSPECT_MESSAGE", &b::CLAIM_SUSPECT_MESSAGE),
    ("CLAIM_MESSAGES_AS_DUE", &b::CLAIM_MESSAGES_AS_DUE),
    ("INTERRUPTED", &b::INTERRUPTED),
    ("STATES", &b::STATES),
    ("LET_GO", &b::LET_GO),
    ("INTENT_GUARDS", &b::INTENT_GUARDS),
    ("INTENT", &b::INTENT),
    ("RESULT_GUARDS", &b::RESULT_GUARDS),
    ("RESULT", &b::RESULT),
    ("SUPPRESS", &s::SUPPRESS),
    ("NOTE_SOFT_BOUNCES", &s::NOTE_SOFT_BOUNCES),
    ("SOFT_BOUNCES", &s::SOFT_BOUNCES),
    ("LISTED", &s::LISTED),
    ("SUPPRESSIONS_OF", &s::SUPPRESSIONS_OF),
    ("LIFT", &s::LIFT),
    ("STATES_OF", &e::STATES_OF),
    ("NAMES_OF", &e::NAMES_OF),
    ("ADDRESSES_SAID", &e::ADDRESSES_SAID),
    ("UNDER_WAY", &e::UNDER_WAY),
    ("CANCEL", &e::CANCEL),
    ("STRIP_MESSAGES", &e::STRIP_MESSAGES),
    ("STRIP_ATTEMPTS", &e::STRIP_ATTEMPTS),
    ("STRIP_EXPOSURES", &e::STRIP_EXPOSURES),
    ("STRIP_ENTRIES", &e::STRIP_ENTRIES),
    ("DELETE_EVENTS", &e::DELETE_EVENTS),
    ("DELETE_CONSENTS", &e::DELETE_CONSENTS),
    ("DELETE_IDENTITIES", &e::DELETE_IDENTITIES),
    ("DELETE_CLAIM", &e::DELETE_CLAIM),
    ("DELETE_REMOVED", &e::DELETE_REMOVED),
    ("EMPTY_PROFILES", &e::EMPTY_PROFILES),
    ("OF_ERASED", &e::OF_ERASED),
    ("OLDEST_EVENTS", &t::OLDEST_EVENTS),
    ("OLDEST_MESSAGES", &t::OLDEST_MESSAGES),
    ("OLDEST_DECISIONS", &t::OLDEST_DECISIONS),
    ("UNCHANGED", &t::UNCHANGED),
    ("OLD_EVENTS", &t::OLD_EVENTS),
    ("REMOVE_EVENTS", &t::REMOVE_EVENTS),
    ("REMOVE_ATTEMPTS", &t::REMOVE_ATTEMPTS),
    ("REMOVE_MESSAGES", &t::REMOVE_MESSAGES),
    ("REMOVE_DECISIONS", &t::REMOVE_DECISIONS),
    ("MARK", &t::MARK),
    ("MARKS_OF", &t::MARKS_OF),
    ("MERGED_INTO", &r::MERGED_INTO),
    ("GLANCE", &r::GLANCE),
    ("MAKE_DUE", &u::MAKE_DUE),
    ("LAST_PROFILE", &u::LAST_PROFILE),
    ("NEXT_DUE", &r::NEXT_DUE),
    ("AGENDA", &r::AGENDA),
    ("EVENTS", &r::EVENTS),
    ("PROFILES", &r::PROFILES),
    ("SET_ASIDE_NOW", &r::SET_ASIDE_NOW),
    ("WAITING", &r::WAITING),
    ("EVENTS_OF", &r::EVENTS_OF),
    ("POSTINGS_OF", &r::POSTINGS_OF),
    ("ENTRIES_OF", &r::ENTRIES_OF),
    ("EXPOSURES_OF", &r::EXPOSURES_OF),
    ("MESSAGES_OF", &r::MESSAGES_OF),
    ("ATTEMPTS_OF", &r::ATTEMPTS_OF),
    ("ATTEMPTS", &r::ATTEMPTS),
    ("IDENTITIES_OF", &r::IDENTITIES_OF),
    ("CONSENTS_OF", &r::CONSENTS_OF),
    ("MESSAGES", &r::MESSAGES),
    ("OPEN_MESSAGES", &r::OPEN_MESSAGES),
    ("WAKE", &b::WAKE),
    ("BUCKETS_DUE", &d::BUCKETS_DUE),
    ("BUCKET_OF_SUSPECT", &d::BUCKET_OF_SUSPECT),
    ("LOCK_DUE", &d::LOCK_DUE),
    ("CLAIM_LOCKED", &d::CLAIM_LOCKED),
    ("BUCKETS_QUEUED", &b::BUCKETS_QUEUED),
    ("WHOSE", &b::WHOSE),
    ("FIND_COPIES", &a::FIND_COPIES),
    ("ENTRIES", &r::ENTRIES),
    ("BACKLOG", &g::BACKLOG),
];

/// Those of them that are about nobody's bucket in particular: where people are spread over machines they go to all of them.
const EVERYWHERE: &[&str] = &[
    // who is new, and whose an event's id is: steps of their own before anything is written to a bucket
    "CREATE_PROFILES",
    "FIND_COPIES",
    // of two people who turn out to be one: each statement but this one, which closes the one that goes, is about one of them
    "CLOSE",
    "MERGED_INTO",
    // where there is something to claim; the claim of a database that has everybody
    "BUCKETS_DUE",
    "BUCKET_OF_SUSPECT",
    "BUCKETS_QUEUED",
    "CLAIM",
    // whose messages results are about, and what processes left behind
    "WHOSE",
    "INTERRUPTED",
    // walks over everybody, and what somebody looks up by a number
    "GLANCE",
    "PROFILES",
    "EVENTS",
    "ENTRIES",
    "MESSAGES",
    "ATTEMPTS",
    "OPEN_MESSAGES",
    "OLDEST_EVENTS",
    "OLDEST_MESSAGES",
    "OLDEST_DECISIONS",
    "SET_ASIDE_NOW",
    "LAST_PROFILE",
    "NEXT_DUE",
    "AGENDA",
    "BACKLOG",
];

/// Locks that [`super::Tx::take`] takes of one bucket's people.
const LOCKS: [(&str, &str); 3] = [
    ("LOCK_PEOPLE_IN_BUCKET", LOCK_PEOPLE_IN_BUCKET),
    ("LOCK_MESSAGES_IN_BUCKET", LOCK_MESSAGES_IN_BUCKET),
    ("LOCK_PEOPLE_OF_MESSAGES_IN_BUCKET", LOCK_PEOPLE_OF_MESSAGES_IN_BUCKET),
];

/// Statements for people, for the start, or over tables that stay small.
const OTHER: &[(&str, &Sql)] = &[
    ("OPERATIONS", &w::OPERATIONS),
    ("NAME_ENVIRONMENT", &o::NAME_ENVIRONMENT),
    ("ENVIRONMENT", &o::ENVIRONMENT),
    ("NEWEST_STATES", &o::NEWEST_STATES),
    ("WRITE_STATES", &o::WRITE_STATES),
    ("ADD_KEY", &k::ADD_KEY),
    ("REVOKE_KEY", &k::REVOKE_KEY),
    ("KEYS", &k::KEYS),
    ("IS_DISTRIBUTED", &o::IS_DISTRIBUTED),
    ("GIVE_KEY", &o::GIVE_KEY),
    ("KEY", &o::KEY),
    ("SECURE_DELETE", &e::SECURE_DELETE),
    ("PLAIN_DELETE", &e::PLAIN_DELETE),
    ("DELETE_REJECTS", &e::DELETE_REJECTS),
    ("RECORD_ERASURE", &e::RECORD_ERASURE),
    ("ERASURES_OF", &e::ERASURES_OF),
    ("MARKED", &y::MARKED),
    ("UNMARK", &y::UNMARK),
    ("STILL_TO_GO", &y::STILL_TO_GO),
    ("DOUBT", &y::DOUBT),
    ("MOVED_UNTIL", &m::MOVED_UNTIL),
    ("NOTE_MOVED", &m::NOTE_MOVED),
    ("MOVED_IN", &m::MOVED_IN),
    ("IS_INHABITED", &m::IS_INHABITED),
    ("LAST_PERSON", &m::LAST_PERSON),
    ("LIVING", &m::LIVING),
    ("EMPTY_KEYS", &m::EMPTY_KEYS),
    ("SETTLE", &m::SETTLE),
    ("NUMBERS_GIVEN", &m::NUMBERS_GIVEN),
    ("NOTE_REMOVAL", &t::NOTE_REMOVAL),
    ("REMOVE_REJECTS", &t::REMOVE_REJECTS),
    ("REMOVALS", &t::REMOVALS),
    ("RULE_STATES", &u::RULE_STATES),
    ("PUBLISH", &u::PUBLISH),
    ("CURRENT_VERSION", &u::CURRENT_VERSION),
    ("TEXTS_OF", &u::TEXTS_OF),
    ("PUBLICATIONS", &p::PUBLICATIONS),
    ("CHANGES", &p::CHANGES),
    ("EXPLAIN", &p::EXPLAIN),
    ("AGREE", &p::AGREE),
    ("REFUSE", &p::REFUSE),
    ("REFUSED", &p::REFUSED),
    ("OPEN_FIRST_LOOKS", &u::OPEN_FIRST_LOOKS),
    ("ADVANCE_FIRST_LOOKS", &u::ADVANCE_FIRST_LOOKS),
    ("WORLD_RULES", &w::WORLD_RULES),
    ("WORLD_PAUSES", &w::WORLD_PAUSES),
    ("WORLD_DOWNTIMES", &w::WORLD_DOWNTIMES),
    ("WORLD_QUIET", &w::WORLD_QUIET),
    ("WORLD_BUDGETS", &w::WORLD_BUDGETS),
    ("PAUSE", &w::PAUSE),
    ("RESUME", &w::RESUME),
    ("NOTE", &w::NOTE),
    ("HOLD", &w::HOLD),
    ("ENTRIES_SINCE", &w::ENTRIES_SINCE),
    ("LATEST_HEARTBEAT", &w::LATEST_HEARTBEAT),
    ("DOWNTIME", &w::DOWNTIME),
    ("BEAT", &w::BEAT),
    ("QUIET", &w::QUIET),
    ("SOURCE_HOURS", &w::SOURCE_HOURS),
    ("COUNT_ALL", &r::COUNT_ALL),
    ("COUNT_ENTRIES", &r::COUNT_ENTRIES),
    ("COUNT_MESSAGES", &r::COUNT_MESSAGES),
    ("COUNT_POSTINGS", &r::COUNT_POSTINGS),
    ("COUNT_EXPOSURES", &r::COUNT_EXPOSURES),
    ("COUNT_DAYS_SENT", &r::COUNT_DAYS_SENT),
];

const SOURCES: [&str; 18] = [
    include_str!("append.rs"),
    include_str!("backlog.rs"),
    include_str!("counting.rs"),
    include_str!("decisions.rs"),
    include_str!("erasures.rs"),
    include_str!("identities.rs"),
    include_str!("keys.rs"),
    include_str!("moving.rs"),
    include_str!("origin.rs"),
    include_str!("outbox.rs"),
    include_str!("publications.rs"),
    include_str!("reads.rs"),
    include_str!("rejects.rs"),
    include_str!("restored.rs"),
    include_str!("retention.rs"),
    include_str!("rules.rs"),
    include_str!("suppressions.rs"),
    include_str!("world.rs"),
];

/// Tables that grow with people and their lives.
const LARGE: [&str; 13] = [
    "entries",
    "removed_events",
    "removed_rows",
    "suppressions",
    "soft_bounces",
    "profiles",
    "identities",
    "events",
    "messages",
    "attempts",
    "postings",
    "allocations",
    "exposures",
];

/// Indexes of the few rows of such a table that somebody waits for.
const PARTIAL: [&str; 5] = ["messages_queued", "profiles_due", "messages_under_way", "messages_unknown", "profiles_set_aside"];

async fn empty_database(directory: &Path) -> SqliteConnection {
    let path = directory.join("rekindle.db");
    let store = SqliteStore::open(&path, "test").await.expect("a fresh database opens");
    store.close().await;
    SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("it opens again")
}

fn single_statements(script: &str) -> impl Iterator<Item = &str> {
    script.split(';').map(str::trim).filter(|statement| !statement.is_empty())
}

#[tokio::test]
async fn every_statement_prepares_and_hot_ones_use_their_indexes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut connection = empty_database(directory.path()).await;
    for (name, script) in HOT.iter().chain(OTHER) {
        for statement in single_statements(script.sqlite) {
            let plan = AssertSqlSafe(format!("explain query plan {statement}"));
            let rows = sqlx::query(plan).fetch_all(&mut connection).await.unwrap_or_else(|e| panic!("{name}: {e}\n{statement}"));
            let plan: Vec<String> = rows.iter().map(|row| row.get(3)).collect();
            let walks = |line: &String| LARGE.iter().any(|table| walks_through(line, table, statement));
            if HOT.iter().any(|(hot, _)| hot == name) && plan.iter().any(walks) {
                panic!("{name} walks through a large table:\n{statement}\n{}", plan.join("\n"));
            }
        }
    }
}

#[path = "../../../tests/it/store/server.rs"]
#[allow(dead_code)] // integration tests stop it, too
mod server;

/// PostgreSQL chooses plans by what the tables hold; so it is asked for a plan of an empty database that walks through a table only where
/// it has no other way.
#[tokio::test]
async fn every_statement_prepares_on_postgresql_and_hot_ones_have_an_index_to_use() {
    let Some(server) = server::shared() else { return };
    let url = server.database().await;
    PostgresStore::open(&url, "test").await.expect("a fresh database opens").close().await;
    let mut connection = PgConnection::connect(&url).await.expect("it opens again");
    for setting in ["set enable_seqscan = off", "set plan_cache_mode = force_generic_plan"] {
        sqlx::query(setting).execute(&mut connection).await.expect("set");
    }
    let mut wrong = Vec::new();
    for (name, script) in HOT.iter().chain(OTHER) {
        let is_hot = HOT.iter().any(|(hot, _)| hot == name);
        for (statement, parameters) in single_postgres_statements(script) {
            let prepare = AssertSqlSafe(format!("prepare statement as {statement}"));
            if let Err(error) = sqlx::query(prepare).execute(&mut connection).await {
                wrong.push(format!("{name}: {error}\n{statement}"));
                continue;
            }
            let nulls = vec!["null"; parameters].join(", ");
            let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
            let explain = AssertSqlSafe(format!("explain execute statement{nulls}"));
            let rows = sqlx::query(explain).fetch_all(&mut connection).await.unwrap_or_else(|e| panic!("{name}: {e}\n{statement}"));
            let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let walks = |line: &String| LARGE.iter().any(|table| line.contains(&format!("Seq Scan on {table}")));
            if is_hot && plan.iter().any(walks) {
                wrong.push(format!("{name} walks through a large table:\n{statement}\n{}", plan.join("\n")));
            }
            sqlx::query("deallocate statement").execute(&mut connection).await.expect("let go");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

// ------------------------------------------------------------------------------------------ people spread over machines

const DISTRIBUTE: &str = include_str!("../../../docs/scale/distribute.sql");

/// Where docs/scale/distribute.sql puts each table: by the column that spreads it, or whole (none).
fn places() -> BTreeMap<&'static str, Option<&'static str>> {
    let mut places = BTreeMap::new();
    for line in DISTRIBUTE.lines() {
        let quoted: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
        let place = if line.starts_with("select create_distributed_table(") {
            quoted.first().map(|table| (*table, quoted.get(1).copied()))
        } else if line.starts_with("select create_reference_table(") {
            quoted.first().map(|table| (*table, None))
        } else {
            line.strip_prefix("-- stays here: ").map(|table| (table, None))
        };
        if let Some((table, column)) = place {
            assert_eq!(places.insert(table, column), None, "{table} has two places");
        }
    }
    places
}

/// Every table has its place; a key that must be unique can be kept so on one machine alone; and docs/scale.md says the same.
#[tokio::test]
async fn every_table_has_its_place_among_machines_and_its_keys_can_be_kept_there() {
    let Some(server) = server::shared() else { return };
    let url = server.database().await;
    PostgresStore::open(&url, "test").await.expect("a fresh database opens").close().await;
    let mut connection = PgConnection::connect(&url).await.expect("it opens again");
    let places = places();
    let there = "select tablename::text from pg_tables where schemaname = 'public' and tablename <> '_sqlx_migrations' order by 1";
    let there: Vec<String> = sqlx::query_scalar(there).fetch_all(&mut connection).await.expect("read");
    assert_eq!(there, places.keys().copied().collect::<Vec<_>>(), "the schema, and what docs/scale/distribute.sql names");
    let unique = "select i.indrelid::regclass::text, i.indexrelid::regclass::text, array_agg(a.attname::text)
        from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
        where i.indisunique and i.indrelid::regclass::text = any($1) group by 1, 2";
    let keys = sqlx::query(unique).bind(&there).fetch_all(&mut connection).await.expect("read");
    assert!(keys.len() >= there.len() - 1, "every table has a key, but for the one row of `backup`");
    for key in keys {
        let (table, index, columns): (String, String, Vec<String>) = (key.get(0), key.get(1), key.get(2));
        let spread_by = places.get(table.as_str()).copied().flatten();
        let can_be_kept = spread_by.is_none_or(|column| columns.iter().any(|known| known == column));
        assert!(can_be_kept, "{index} of {table} is unique without {spread_by:?}");
    }
    let told = include_str!("../../../docs/scale.md");
    for table in there {
        assert!(told.contains(&format!("`{table}`")), "docs/scale.md does not say where {table} lies");
    }
}

/// A database in which people are spread by bucket: on one server, but over partitions, so that its planner says which of them a
/// statement would touch. Everybody's tables are hidden behind those.
async fn spread_database(connection: &mut PgConnection) {
    sqlx::query("create schema spread").execute(&mut *connection).await.expect("made");
    for (table, _) in places().into_iter().filter(|(_, column)| *column == Some("bucket")) {
        for create in [
            format!("create table spread.{table} (like public.{table} including all excluding identity) partition by range (bucket)"),
            format!("create table spread.{table}_here partition of spread.{table} for values from (0) to (128)"),
            format!("create table spread.{table}_elsewhere partition of spread.{table} for values from (128) to (256)"),
        ] {
            sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await.expect("made");
        }
    }
    for setting in ["set search_path = spread, public", "set plan_cache_mode = force_custom_plan"] {
        sqlx::query(setting).execute(&mut *connection).await.expect("set");
    }
}

/// What is wrong with a statement that ought to be about one bucket, the parameter `bucket`: it would touch another as well.
async fn reaches_elsewhere(connection: &mut PgConnection, statement: &str, bucket: Option<usize>) -> Option<String> {
    let prepare = AssertSqlSafe(format!("prepare statement as {statement}"));
    if let Err(error) = sqlx::query(prepare).execute(&mut *connection).await {
        return Some(error.to_string());
    }
    let types = "select unnest(parameter_types)::text from pg_prepared_statements where name = 'statement'";
    let types: Vec<String> = sqlx::query_scalar(types).fetch_all(&mut *connection).await.expect("read");
    let value = |kind: &String| match kind.as_str() {
        "smallint" => "5",
        "bigint" | "integer" => "1",
        "boolean" => "true",
        "bytea" => "'\\x00'",
        "bigint[]" => "'{1}'",
        "bytea[]" => "array['\\x00'::bytea]",
        // JSON, and the digits of bytes
        _ => "'11'",
    };
    let values = types.iter().map(value).collect::<Vec<_>>().join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    let explain = AssertSqlSafe(format!("explain execute statement{values}"));
    let plan = sqlx::query_scalar::<_, String>(explain).fetch_all(&mut *connection).await;
    sqlx::query("deallocate statement").execute(&mut *connection).await.expect("let go");
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return Some(error.to_string()),
    };
    if plan.iter().any(|line| line.contains("_elsewhere")) {
        return Some(plan.join("\n"));
    }
    // a plan does not say where new rows go
    let table = statement.strip_prefix("insert into ").and_then(|rest| rest.split([' ', '(']).next());
    let is_spread = table.is_some_and(|table| places().get(table) == Some(&Some("bucket")));
    let named = [format!("select ${}::smallint", bucket.unwrap_or_default()), "select e.bucket".to_owned()];
    let is_named = statement.contains("(bucket, ") && named.iter().any(|named| statement.contains(named));
    (is_spread && !is_named).then(|| "new rows go to whichever bucket".to_owned())
}

/// A hash-distributed PostgreSQL sends a statement to one machine if it names the bucket of every table of people's in it, and refuses
/// most of what is here otherwise.
#[tokio::test]
async fn every_hot_statement_is_about_one_bucket_where_people_are_spread() {
    let Some(server) = server::shared() else { return };
    let url = server.database().await;
    PostgresStore::open(&url, "test").await.expect("a fresh database opens").close().await;
    let mut connection = PgConnection::connect(&url).await.expect("it opens again");
    spread_database(&mut connection).await;
    let mut wrong = Vec::new();
    for name in EVERYWHERE {
        assert!(HOT.iter().any(|(hot, _)| hot == name), "{name} is no hot statement");
    }
    for (name, script) in HOT.iter().filter(|(name, _)| !EVERYWHERE.contains(name)) {
        for (statement, _, bucket) in single_statements_in_bucket(script.postgres) {
            if let Some(why) = reaches_elsewhere(&mut connection, &statement, bucket).await {
                wrong.push(format!("{name}: {statement}\n{why}"));
            }
        }
    }
    for (name, statement) in LOCKS {
        if let Some(why) = reaches_elsewhere(&mut connection, statement.trim(), Some(2)).await {
            wrong.push(format!("{name}: {statement}\n{why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    for (bad, bucket) in [
        ("update messages set state = 'queued' where messages.id = decode($1, 'hex')", None),
        ("select m.id from messages m join profiles p on p.id = m.profile_id where m.bucket = $1::smallint", Some(1)),
        ("update messages set worker = null from profiles p where p.bucket = $1::smallint and p.id = messages.profile_id", Some(1)),
        ("insert into claims (bucket, profile_id, epoch, claims) select bucket(1), 1, 1, 1", None),
    ] {
        assert!(reaches_elsewhere(&mut connection, bad, bucket).await.is_some(), "not found: {bad}");
    }
}

/// Whether a line of a plan says that the whole table is read. Aliases are looked up in the statement; reading along a partial index
/// in order is no walk.
fn walks_through(line: &str, table: &str, statement: &str) -> bool {
    let Some(scanned) = line.strip_prefix("SCAN ") else { return false };
    if PARTIAL.iter().any(|index| scanned.contains(&format!(" INDEX {index}"))) {
        return false;
    }
    let name = scanned.split_whitespace().next().unwrap_or_default();
    name == table || statement.contains(&format!(" {table} {name} ")) || statement.contains(&format!(" {table} {name}\n"))
}

#[test]
fn a_walk_through_a_large_table_is_seen() {
    let statement = "select count(*) from profiles p where p.key = $1";
    assert!(LARGE.iter().any(|table| walks_through("SCAN p", table, statement)));
    assert!(LARGE.iter().any(|table| walks_through("SCAN events USING COVERING INDEX events_by_profile", table, "select 1 from events")));
    assert!(!LARGE.iter().any(|table| walks_through("SEARCH p USING INTEGER PRIMARY KEY (rowid=?)", table, statement)));
    assert!(!LARGE.iter().any(|table| walks_through("SCAN j VIRTUAL TABLE INDEX 1:", table, statement)));
}

/// Much of one dialect is read by the other as something else: SQLite takes `$6::bytea` for a name of a parameter.
#[test]
fn each_script_is_in_its_own_dialect() {
    for (name, script) in HOT.iter().chain(OTHER) {
        for (text, foreign) in
            [(script.sqlite, ["::", "jsonb_", "bucket("]), (script.postgres, ["json_each(", "json_group_array(", "unhex("])]
        {
            let found: Vec<&str> = foreign.into_iter().filter(|word| text.contains(word)).collect();
            assert!(found.is_empty(), "{name} says {found:?}:\n{text}");
        }
    }
}

#[test]
fn every_statement_is_in_a_list() {
    let listed: Vec<&str> = HOT.iter().chain(OTHER).map(|(name, _)| *name).collect();
    for source in SOURCES {
        let names = source.lines().filter_map(|line| line.trim().strip_prefix("pub(super) const "));
        for name in names.filter_map(|rest| rest.split_once(": Sql").map(|(name, _)| name)) {
            assert!(listed.contains(&name), "{name} is in no list: it would never be prepared by a test");
        }
        let hidden = source.lines().any(|line| line.starts_with("const ") && line.contains(": Sql") && line.contains("select"));
        assert!(!hidden, "a statement that is not pub(super) cannot be listed");
    }
}
