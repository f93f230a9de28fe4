//! The tick: 1,000 people due among 100,000 and among 1,000,000. Claim, load, rewrite through the store; beside it, in the same run and
//! interleaved with it, the bare write of the same rows. Read the ratios: they travel to other machines, milliseconds do not.
//!
//! `cargo bench --bench tick` (some minutes: a million rows are written first); `-- 100000` for one size only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rekindle::clock::Stopwatch;
use rekindle::engine::decide::Decision;
use rekindle::engine::event::Value;
use rekindle::engine::profile::{Attribute, Passage, Point, Profile, RuleMemory};
use rekindle::engine::time::{DAY_MS, Timestamp};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{ClaimedProfile, DecisionCommit, Store, encoding};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqliteConnection};

const DUE: usize = 1_000;
const ROUNDS: i64 = 21;
const NOW_MS: i64 = 1_790_000_000_000;

const SEED: &str = "with recursive n(id) as (select 1 union all select id + 1 from n where id < $1)
    insert into profiles (id, key, version, due_at, absorbed_seq, woken_seq, state)
    select id, 'customer-' || id, 1, $2 + id * 1000, 0, 0, $3 from n";
/// Every (population / 1,000)th person, another set in each round: spread over the whole table, as real ones are.
const MAKE_DUE: &str = "update profiles set due_at = $1 - id % 977 where id % $2 = $3";
const BARE_WRITE: &str = "update profiles set version = version + 1, due_at = j.due, state = substr($2, j.place, j.length)
    from (select value ->> 0 as id, value ->> 1 as due, value ->> 2 as place, value ->> 3 as length from json_each($1)) j
    where profiles.id = j.id";

#[tokio::main]
async fn main() {
    let asked: Vec<i64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![100_000, 1_000_000] } else { asked };
    let state = encoding::encode(&profile()).len();
    println!("{DUE} due, states of {state} bytes, every commit flushed; median (fastest - slowest) of {ROUNDS} rounds");
    println!("{:>12} {:>24} {:>24} {:>7}", "profiles", "claim + load + rewrite", "bare write", "ratio");
    let mut medians = Vec::new();
    for size in sizes {
        let (tick, bare) = measure(size).await;
        println!("{size:>12} {:>24} {:>24} {:>6.2}x", shown(&tick), shown(&bare), median(&tick) / median(&bare));
        medians.push(median(&tick));
    }
    if let [small, .., large] = medians.as_slice() {
        println!("growth {:.2}x (the aim is below 1.33x)", large / small);
    }
}

/// Milliseconds of each round: through the store, and bare.
async fn measure(size: i64) -> (Vec<f64>, Vec<f64>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tick.db");
    SqliteStore::open(&path, "bench").await.expect("a database").close().await;
    let mut connection = connect(&path).await;
    let seed = sqlx::query(SEED).bind(size).bind(NOW_MS + DAY_MS).bind(encoding::encode(&profile()));
    seed.execute(&mut connection).await.expect("profiles");
    let store = SqliteStore::open(&path, "bench").await.expect("the database");
    let (mut tick, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        make_due(&mut connection, size, 2 * round).await;
        tick.push(ms(through_the_store(&store).await));
        make_due(&mut connection, size, 2 * round + 1).await;
        bare.push(ms(bare_write(&mut connection, size, 2 * round + 1).await));
    }
    store.close().await;
    (tick, bare)
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
    let every = size / DUE as i64;
    let update = sqlx::query(MAKE_DUE).bind(NOW_MS - 1).bind(every).bind(round % every);
    update.execute(connection).await.expect("due");
}

async fn through_the_store(store: &SqliteStore) -> Duration {
    let watch = Stopwatch::start();
    let due = store.claim_due(Timestamp::from_ms(NOW_MS), DUE, "bench").await.expect("claimed").profiles;
    assert_eq!(due.len(), DUE);
    let commits = due.into_iter().map(decided).collect();
    let answers = store.commit_decisions(commits).await.expect("committed");
    assert!(answers.iter().all(|answer| answer.is_committed()));
    watch.elapsed()
}

/// The smallest decision there is: looked at, nothing to do, due again in a while.
fn decided(claimed: ClaimedProfile) -> DecisionCommit {
    let decision = Decision {
        profile: claimed.profile,
        due_at: Timestamp::from_ms(NOW_MS + 30 * DAY_MS + claimed.claim.profile.0),
        messages: Vec::new(),
        cancelled: Vec::new(),
        postings: Vec::new(),
        exposures: Vec::new(),
        own_events: Vec::new(),
        entries: Vec::new(),
        entered: Vec::new(),
        budget_used: Vec::new(),
        taking: Vec::new(),
    };
    DecisionCommit { claim: claimed.claim, decision, rules_version: 1 }
}

async fn bare_write(connection: &mut SqliteConnection, size: i64, round: i64) -> Duration {
    let every = size / DUE as i64;
    let state = encoding::encode(&profile());
    let watch = Stopwatch::start();
    let (mut rows, mut states) = (Vec::with_capacity(DUE), Vec::new());
    for id in (1..=size).filter(|id| id % every == round % every) {
        rows.push((id, NOW_MS + 30 * DAY_MS + id, states.len() + 1, state.len()));
        states.extend_from_slice(&state);
    }
    let rows = serde_json::to_string(&rows).expect("numbers");
    let update = sqlx::query(BARE_WRITE).bind(rows).bind(states);
    let written = update.execute(connection).await.expect("written").rows_affected();
    assert_eq!(written, DUE as u64);
    watch.elapsed()
}

/// Somebody with a year of ordinary buying behind them.
fn profile() -> Profile {
    let at = |day: i64| Timestamp::from_ms(NOW_MS - (365 - day) * DAY_MS);
    let mut profile = Profile::new("customer-12345");
    profile.first_seen_at = Some(at(0));
    profile.country = Some(Attribute { value: Value::text("GB"), at: at(0) });
    for day in (0..365).step_by(30) {
        profile.orders.insert(Point { at: at(day), value: 2_000 + day });
        profile.activity.recent.push(at(day));
    }
    for rule in ["welcome", "silence-30d", "ladder", "winback", "tier-welcome", "tier-at-risk"] {
        let memory = RuleMemory { when_hash: 7, passage: Passage::Tried(at(300)), runs: 2, ..RuleMemory::default() };
        profile.rules.insert(Arc::from(rule), memory);
    }
    profile
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
