//! The tick: 1,000 people due among 100,000 and among many more, each of them 30 days silent at that instant. One pass of `evaluate` under
//! the shipped rules: claim, decide (the bonus and the ladder begin, points are granted), commit. Beside it, in the same run and interleaved with it, the
//! bare write of the same rows. Read the ratios: they travel to other machines, milliseconds do not. Last, passes that find nobody due.
//!
//! `cargo bench --bench tick` (some minutes: a million rows are written first); `REKINDLE_BENCH_PROFILES=10000000` for another size beside
//! 100,000 (about a kilobyte of disk for each), `-- 100000` for one size only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rekindle::clock::Stopwatch;
use rekindle::engine::decide::{Context, World, decide};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::profile::Profile;
use rekindle::engine::rule::RuleSet;
use rekindle::engine::time::{DAY_MS, HOUR_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::rulebook::Rulebook;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Look, Publication, Store, encoding};
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqliteConnection};

const DUE: usize = 1_000;
const ROUNDS: i64 = 21;
const NOW_MS: i64 = 1_790_000_000_000;

const SEED: &str = "with recursive n(id) as (select 1 union all select id + 1 from n where id < $1)
    insert into profiles (id, key, version, due_at, absorbed_seq, woken_seq, state)
    select id, 'customer-' || id, 1, $2 + id * 1000, 0, 0, $3 from n";
/// Every (population / 1,000)th person from $3 to $4, another set in each round: spread over the whole table, as real ones are.
const MAKE_DUE: &str = "update profiles set due_at = $1 - id % 977 where id in (
    with recursive n(id) as (select $3 union all select id + $2 from n where id + $2 <= $4) select id from n)";
const BARE_WRITE: &str = "update profiles set version = version + 1, due_at = j.due, state = substr($2, j.place, j.length)
    from (select value ->> 0 as id, value ->> 1 as due, value ->> 2 as place, value ->> 3 as length from json_each($1)) j
    where profiles.id = j.id";

#[tokio::main]
async fn main() {
    let asked: Vec<i64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let large = std::env::var("REKINDLE_BENCH_PROFILES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let sizes = if asked.is_empty() { vec![100_000, large] } else { asked };
    let book = Rulebook::open(Path::new("rules")).expect("the shipped rules");
    let (set, templates) = (book.set().expect("the shipped rules are sound"), book.templates());
    let state = encoding::encode(&profile(&set));
    println!("{DUE} due, states of {} bytes, every commit flushed; median (fastest - slowest) of {ROUNDS} rounds", state.len());
    println!("{:>12} {:>24} {:>24} {:>7} {:>24}", "profiles", "claim + decide + commit", "bare write", "ratio", "nobody due");
    let mut medians = Vec::new();
    for size in sizes {
        let rules = Arc::new(RuleVersions::new(set.clone(), templates.clone()));
        let [tick, bare, idle] = measure(size, rules, &state).await;
        let ratio = median(&tick) / median(&bare);
        println!("{size:>12} {:>24} {:>24} {ratio:>6.2}x {:>24}", shown(&tick), shown(&bare), shown(&idle));
        medians.push(median(&tick));
    }
    if let [small, .., large] = medians.as_slice() {
        println!("growth {:.2}x (the aim is 1.3x at most; of a pass with nobody due, 1 ms)", large / small);
    }
}

/// Milliseconds of each round: a pass of `evaluate`, bare, and a pass with nobody due.
async fn measure(size: i64, rules: Arc<RuleVersions>, state: &[u8]) -> [Vec<f64>; 3] {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tick.db");
    let store = SqliteStore::open(&path, "bench").await.expect("a database");
    store.publish_rules(publication(&rules.snapshot().rules)).await.expect("published");
    store.finish_first_looks().await.expect("nobody there yet");
    store.close().await;
    let mut connection = connect(&path).await;
    sqlx::query(SEED).bind(size).bind(NOW_MS + 30 * DAY_MS).bind(state).execute(&mut connection).await.expect("profiles");
    let store = Arc::new(SqliteStore::open(&path, "bench").await.expect("the database"));
    let evaluator = Evaluator { store, rules, worker: "bench".into() };
    let (mut tick, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        make_due(&mut connection, size, 2 * round).await;
        tick.push(ms(one_pass(&evaluator, round).await));
        make_due(&mut connection, size, 2 * round + 1).await;
        bare.push(ms(bare_write(&mut connection, size, 2 * round + 1, state).await));
    }
    let mut idle = Vec::new();
    for round in 0..ROUNDS {
        let now = Timestamp::from_ms(NOW_MS - HOUR_MS + round);
        let watch = Stopwatch::start();
        let pass = evaluate::run_once(&evaluator, Look::Now(now), DUE).await.expect("a pass");
        idle.push(ms(watch.elapsed()));
        assert_eq!(pass.claimed, 0);
    }
    [tick, bare, idle]
}

/// Who is due in a round: the first, and the distance to the next.
fn due_in(size: i64, round: i64) -> (i64, i64) {
    let every = (size / DUE as i64).max(1);
    let first = round % every;
    (if first == 0 { every } else { first }, every)
}

/// The rules as if they had been live for years: nobody is new to them.
fn publication(set: &RuleSet) -> Publication {
    Publication {
        version: set.version,
        at: Timestamp::from_ms(NOW_MS - 1_000 * DAY_MS),
        by: "bench".into(),
        why: "bench".into(),
        texts: Vec::new(),
        rules: set.rules.iter().map(Into::into).collect(),
        spread_ms: 0,
        files: None,
        is_rollback: false,
    }
}

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30))
        .pragma("cache_size", "-65536")
        .pragma("mmap_size", "1073741824");
    options.disable_statement_logging().connect().await.expect("a connection")
}

async fn make_due(connection: &mut SqliteConnection, size: i64, round: i64) {
    let (first, every) = due_in(size, round);
    let update = sqlx::query(MAKE_DUE).bind(NOW_MS - 1).bind(every).bind(first).bind(size);
    update.execute(connection).await.expect("due");
}

async fn one_pass(evaluator: &Evaluator, round: i64) -> Duration {
    // the brake counts entries of an hour: each round has hours of its own
    let now = Timestamp::from_ms(NOW_MS + round * 2 * HOUR_MS);
    let watch = Stopwatch::start();
    let pass = evaluate::run_once(evaluator, Look::Now(now), DUE).await.expect("a pass");
    let taken = watch.elapsed();
    assert_eq!((pass.claimed, pass.entered, pass.postings), (DUE as u64, 2 * DUE as u64, DUE as u64), "two runs and a grant each");
    taken
}

async fn bare_write(connection: &mut SqliteConnection, size: i64, round: i64, state: &[u8]) -> Duration {
    let (first, every) = due_in(size, round);
    let watch = Stopwatch::start();
    let (mut rows, mut states) = (Vec::with_capacity(DUE), Vec::new());
    for id in (first..=size).step_by(every as usize) {
        rows.push((id, NOW_MS + 30 * DAY_MS + id, states.len() + 1, state.len()));
        states.extend_from_slice(state);
    }
    let rows = serde_json::to_string(&rows).expect("numbers");
    let update = sqlx::query(BARE_WRITE).bind(rows).bind(states);
    let written = update.execute(connection).await.expect("written").rows_affected();
    assert_eq!(written, DUE as u64);
    watch.elapsed()
}

/// Somebody with a year of ordinary buying behind them, 30 days silent at `NOW_MS`: what the engine itself made of their facts.
fn profile(set: &RuleSet) -> Profile {
    let (older, world) = (std::collections::HashMap::new(), World::default());
    let ctx = Context { rules: set, older: &older, world: &world };
    let begun = NOW_MS - 360 * DAY_MS;
    let person = json!({ "country": "GB", "email": "customer@example.com" });
    let consent = json!({ "purpose": "marketing", "channel": "email", "granted": true, "basis": "opt_in" });
    let known = vec![event(EventKind::Identify, "", begun, person), event(EventKind::Consent, "", begun, consent)];
    let mut profile = decide(&ctx, Profile::new("customer-12345"), known, Timestamp::from_ms(begun)).profile;
    for day in (0..=330).step_by(30) {
        let at = begun + day * DAY_MS;
        let properties = json!({ "order_id": day.to_string(), "total": 20 + day, "currency": "GBP" });
        let order = event(EventKind::Track, "Order Completed", at, properties);
        profile = decide(&ctx, profile, vec![order], Timestamp::from_ms(at)).profile;
    }
    profile
}

fn event(kind: EventKind, name: &str, at: i64, properties: Json) -> Event {
    let Json::Object(properties) = properties else { unreachable!("an object is passed") };
    let at = Timestamp::from_ms(at);
    Event {
        id: format!("{name}{at}").into(),
        kind,
        name: name.into(),
        occurred_at: at,
        received_at: at,
        source: "bench".into(),
        properties,
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn sorted(times: &[f64]) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(times: &[f64]) -> f64 {
    sorted(times).get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(times: &[f64]) -> String {
    let sorted = sorted(times);
    let (first, last) = (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN));
    format!("{:.1} ms ({first:.1} - {last:.1})", median(times))
}
