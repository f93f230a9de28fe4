//! The wave: so many people due within one second, each of whom is written to, by a provider that takes only so many a second, while a shop's
//! events go on coming in. Three loops over one database, as `serve` runs them: the door, `evaluate`, `dispatch`. Asked: all are written
//! to within the provider's rate and none too late; and the door's slow answers are at most twice as slow as before the wave.
//!
//! The provider is a counter in this process that answers at once: what is measured is what stands before it.
//!
//! `cargo bench --bench wave`; `-- 2000 200` for another number of people and a rate (messages a second): a small one to see that it works.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rekindle::channel::{Channel, Channels, Outcome, Outgoing};
use rekindle::clock::{Clock as _, Stopwatch, SystemClock};
use rekindle::dispatch::{self, Dispatcher};
use rekindle::engine::decide::{Context, World, decide};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::profile::{Name, Profile};
use rekindle::engine::rule::RuleSet;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::time::{DAY_MS, HOUR_MS, SECOND_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::rulebook::Rulebook;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{KeyScope, Publication, Store, encoding};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};
use tokio::sync::{Notify, watch};

// shared with `ingest`, which uses the rest of it
#[allow(dead_code)]
#[path = "shared/door.rs"]
mod door;

use door::{batch, connect, exchange, new_key, quantile};

const PEOPLE: usize = 100_000;
/// The provider's rate, unless told: all of them in fifty seconds.
const SECONDS: usize = 50;
/// Batches a second that come in all the time: 2,000 events.
const BATCHES_PER_SECOND: u64 = 20;
/// How long the door is watched before the wave.
const IDLE: Duration = Duration::from_secs(15);
/// From the seeding of the people to the instant at which they are due.
const AHEAD_MS: i64 = 5 * SECOND_MS;

const SEED: &str = "insert into profiles (id, key, version, due_at, absorbed_seq, woken_seq, state)
    select value ->> 0, value ->> 1, 1, value ->> 2, 0, 0, substr($2, value ->> 3, value ->> 4) from json_each($1)";
/// Rows of one such statement.
const CHUNK: usize = 2_000;
/// Their numbers begin here, far from those of whoever comes in.
const FIRST_ID: usize = 10_000_000;
const STATES: &str = "select state, count(*) as count from messages where rule = 'quiet' group by state";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let asked: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let people = asked.first().copied().unwrap_or(PEOPLE);
    let rate = asked.get(1).copied().unwrap_or(people / SECONDS).max(1);
    println!("{people} people due within one second, a provider that takes {rate} messages a second, {} events/s coming in", {
        BATCHES_PER_SECOND * door::EVENTS as u64
    });
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("wave.db");
    let book = Rulebook::of(sources(rate));
    let set = book.set().unwrap_or_else(|| panic!("{}", book.render_errors()));
    let store = SqliteStore::open(&path, "bench").await.expect("a database");
    store.publish_rules(publication(&set)).await.expect("published");
    store.finish_first_looks().await.expect("nobody there yet");
    let rules = Arc::new(RuleVersions::new(set.clone(), book.templates()));
    let shop = Shop::start(&store, rules).await;

    let idle = shop.send_until(&AtomicBool::new(false), Some(IDLE)).await;
    let due_at = SystemClock.now().plus_ms(AHEAD_MS);
    seed(&path, people, due_at, &set).await;
    while SystemClock.now() < due_at {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (is_over, watch) = (AtomicBool::new(false), Stopwatch::start());
    let draining = async {
        shop.provider.until(people as u64).await;
        is_over.store(true, Ordering::Relaxed);
        watch.elapsed()
    };
    let (taken, during) = tokio::join!(draining, shop.send_until(&is_over, None));
    shop.stop().await;
    report(&path, people, rate, taken, idle, during, &shop.provider).await;
}

/// Milliseconds of each answer, sorted out later.
type Answers = Vec<f64>;

async fn report(path: &Path, people: usize, rate: usize, taken: Duration, mut idle: Answers, mut during: Answers, provider: &Counter) {
    let mut most = 0;
    for count in provider.by_second.lock().expect("no panic").values() {
        most = most.max(*count);
    }
    println!(
        "sent          {:.1} s; the rate alone takes {:.1} s; at most {most} in one second",
        taken.as_secs_f64(),
        people as f64 / rate as f64
    );
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.expect("a connection");
    let states = sqlx::query(STATES).fetch_all(&mut connection).await.expect("states");
    let states: Vec<String> =
        states.iter().map(|row| format!("{} {}", row.get::<i64, _>("count"), row.get::<String, _>("state"))).collect();
    println!("messages      {} (asked: all of them accepted, none expired)", states.join(", "));
    let (before, after) = (quantile(&mut idle, 0.99), quantile(&mut during, 0.99));
    println!("door before   p50 {:.1} ms, p99 {before:.1} ms ({} batches)", quantile(&mut idle, 0.5), idle.len());
    println!("door during   p50 {:.1} ms, p99 {after:.1} ms ({} batches)", quantile(&mut during, 0.5), during.len());
    println!("ratio of p99  {:.2} (asked: at most 2)", after / before);
}

/// The loops of a daemon, over one database.
struct Shop {
    address: String,
    write_key: String,
    provider: Arc<Counter>,
    stop: watch::Sender<bool>,
    loops: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    batches: AtomicU64,
}

impl Shop {
    async fn start(store: &SqliteStore, rules: Arc<RuleVersions>) -> Shop {
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let provider = Arc::new(Counter::default());
        let (due, queued, telemetry) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Telemetry::default()));
        let (stop, shutdown) = watch::channel(false);
        let evaluator = Evaluator { store: shared.clone(), rules: rules.clone(), worker: "bench".into() };
        let evaluating = tokio::spawn({
            let (due, queued, telemetry, shutdown) = (due.clone(), queued.clone(), telemetry.clone(), shutdown.clone());
            async move {
                let signals = evaluate::Signals { wake: &due, next: &queued, shutdown };
                evaluate::run(&evaluator, &SystemClock, evaluate::BATCH, &telemetry, signals).await;
            }
        });
        let named: BTreeMap<Name, Arc<dyn Channel>> = BTreeMap::from([("texts".into(), provider.clone() as Arc<dyn Channel>)]);
        let dispatcher = Dispatcher::new(shared, rules.clone(), Channels::named(named, BTreeMap::new()), "bench".into());
        let dispatching = tokio::spawn({
            let due = due.clone();
            async move {
                let signals = dispatch::Signals { wake: &queued, next: &due, shutdown };
                dispatch::run(&dispatcher, &SystemClock, dispatch::BATCH, &telemetry, signals).await;
            }
        });
        let write_key = new_key(store, KeyScope::Write).await;
        let address = door::serve(store, rules, due).await;
        Shop { address, write_key, provider, stop, loops: Mutex::new(vec![evaluating, dispatching]), batches: AtomicU64::new(0) }
    }

    /// Sends batches at their instants, however long the ones before take, and measures from those instants.
    async fn send_until(&self, is_over: &AtomicBool, at_most: Option<Duration>) -> Answers {
        let watch = Stopwatch::start();
        let mut ticks = tokio::time::interval(Duration::from_millis(1_000 / BATCHES_PER_SECOND));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut under_way = tokio::task::JoinSet::new();
        while !is_over.load(Ordering::Relaxed) && at_most.is_none_or(|at_most| watch.elapsed() < at_most) {
            ticks.tick().await;
            // numbers apart from each other, so that no two batches have an id in common
            let mut number = (1 + self.batches.fetch_add(1, Ordering::Relaxed)) * door::EVENTS as u64;
            let (address, batch) = (self.address.clone(), batch(&mut number, &self.write_key));
            let watch = Stopwatch::start();
            under_way.spawn(async move {
                let mut stream = connect(&address).await;
                let answer = exchange(&mut stream, &batch.request).await;
                assert!(answer.contains("\"accepted\":100"), "{answer}");
                watch.elapsed().as_secs_f64() * 1_000.0
            });
        }
        under_way.join_all().await
    }

    async fn stop(&self) {
        self.stop.send_replace(true);
        let loops = std::mem::take(&mut *self.loops.lock().expect("no panic"));
        for ended in loops {
            ended.await.expect("it ends");
        }
    }
}

/// The provider: takes everything at once, and knows how much came in each second.
#[derive(Default)]
struct Counter {
    sent: AtomicU64,
    by_second: Mutex<HashMap<i64, u64>>,
    arrived: Notify,
}

#[async_trait]
impl Channel for Counter {
    fn deduplicates(&self) -> bool {
        false
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        let second = outgoing.at.as_ms().div_euclid(SECOND_MS);
        *self.by_second.lock().expect("no panic").entry(second).or_default() += 1;
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.arrived.notify_one();
        Outcome::Accepted { provider_id: "1".into() }
    }
}

impl Counter {
    async fn until(&self, messages: u64) {
        while self.sent.load(Ordering::Relaxed) < messages {
            self.arrived.notified().await;
        }
    }
}

fn sources(rate: usize) -> Vec<SourceFile> {
    let rules = format!(
        "rekindle: 1
events:
  order_completed: {{ name: Order Completed, active: true }}
policy:
  time: {{ zone: {{ last: UTC }} }}
  consent: {{ marketing: always }}
  channels: {{ sms: {{ provider: texts, rate: {rate}/s }} }}
rules:
  - id: quiet
    name: Write to whoever has been silent for a month
    owner: bench
    when: days_silent >= 30
    existing: skip
    max_entries: 10000000
    steps:
      - {{ id: tell, send: {{ template: hello, channels: [sms], max_late: 2h }} }}
"
    );
    let files = [
        ("rules.yaml", rules),
        ("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing }".to_owned()),
        ("templates/hello/en/sms.liquid", "Hello, it has been a while.".to_owned()),
    ];
    files.into_iter().map(|(path, text)| SourceFile { path: path.into(), text: text.into() }).collect()
}

/// The rules as if they had been live for years: nobody is new to them.
fn publication(set: &RuleSet) -> Publication {
    Publication {
        version: set.version,
        at: SystemClock.now().plus_ms(-1_000 * DAY_MS),
        by: "bench".into(),
        why: "bench".into(),
        texts: Vec::new(),
        rules: set.rules.iter().map(Into::into).collect(),
        spread_ms: 0,
        files: None,
        is_rollback: false,
    }
}

/// So many people who have been silent for a month at that instant.
async fn seed(path: &Path, people: usize, due_at: Timestamp, set: &RuleSet) {
    let mut connection: SqliteConnection =
        SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(60)).connect().await.expect("a connection");
    let somebody = profile(set, due_at);
    for chunk in (0..people).collect::<Vec<_>>().chunks(CHUNK) {
        let (mut rows, mut states) = (Vec::with_capacity(CHUNK), Vec::new());
        for number in chunk {
            let key: Name = format!("quiet-{number}").as_str().into();
            let state = encoding::encode(&Profile { key: key.clone(), ..somebody.clone() });
            rows.push((FIRST_ID + number, key, due_at.as_ms() + (*number as i64 % SECOND_MS), states.len() + 1, state.len()));
            states.extend_from_slice(&state);
        }
        let rows = serde_json::to_string(&rows).expect("plain values");
        sqlx::query(SEED).bind(rows).bind(states).execute(&mut connection).await.expect("people");
    }
}

/// Somebody whose month of silence ends at that instant: what the engine itself made of their facts.
fn profile(set: &RuleSet, due_at: Timestamp) -> Profile {
    let (older, world) = (HashMap::new(), World::default());
    let ctx = Context { rules: set, older: &older, world: &world };
    let ordered_at = due_at.plus_ms(-30 * DAY_MS);
    let known = event(EventKind::Identify, "", ordered_at.plus_ms(-HOUR_MS), json!({ "phone": "+441632960001" }));
    let profile = decide(&ctx, Profile::new("quiet-1"), vec![known], ordered_at.plus_ms(-HOUR_MS)).profile;
    let order = event(EventKind::Track, "Order Completed", ordered_at, json!({ "order_id": "1", "total": 20, "currency": "GBP" }));
    decide(&ctx, profile, vec![order], ordered_at).profile
}

fn event(kind: EventKind, name: &str, at: Timestamp, properties: Json) -> Event {
    let Json::Object(properties) = properties else { unreachable!("an object is passed") };
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
