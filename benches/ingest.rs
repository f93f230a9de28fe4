//! The door: batches of 100 events over HTTP on loopback, each answered when it is on disk and its people's due times are updated. Beside
//! it, in the same run and interleaved with it, the bare insert of the same rows, as many to a commit as meet in one at the door, and, where
//! one is named, another service that takes the same batches (`bench-peers/ingest` starts one). Then people read back, alone and
//! beside the load. Generator and server share the machine, so read the ratios.
//!
//! `cargo bench --bench ingest`; `-- 4` for four connections instead of sixteen, `-- --peer 127.0.0.1:3000` for the other service,
//! `-- --small` to see that it works.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rekindle::clock::{Clock as _, Stopwatch, SystemClock};
use rekindle::rulebook::Rulebook;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{KeyScope, Store};
use rekindle::versions::RuleVersions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::Notify;

#[path = "shared/door.rs"]
mod door;

use door::{Batch, EVENTS, PEOPLE, batch, connect, exchange, new_key, quantile};

/// Batches of a round.
const BATCHES: usize = 600;
const ROUNDS: usize = 7;

const BARE_TABLE: &str =
    "create table bare (seq integer primary key, person text, id text, name text, occurred_at text, properties text) strict";
const BARE_INSERT: &str = "insert into bare (person, id, name, occurred_at, properties)
    select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each($1)";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let connections = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(16);
    let peer = arguments.iter().position(|argument| argument == "--peer").and_then(|place| arguments.get(place + 1));
    let is_small = arguments.iter().any(|argument| argument == "--small");
    let (size, rounds) = if is_small { (BATCHES / 20, 1) } else { (BATCHES, ROUNDS) };
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("ingest.db"), "bench").await.expect("a database");
    let (write_key, read_key) = (new_key(&store, KeyScope::Write).await, new_key(&store, KeyScope::Read).await);
    let book = Rulebook::open(Path::new("rules")).expect("the shipped rules");
    let set = book.set().expect("sound rules");
    store.publish_rules(book.publication(&set, SystemClock.now(), "bench", "first")).await.expect("published");
    let address = door::serve(&store, Arc::new(RuleVersions::new(set, book.templates())), Arc::new(Notify::new())).await;
    let mut bare = bare_database(directory.path()).await;
    println!("batches of {EVENTS} events of {PEOPLE} people, {connections} connections, every commit flushed; median (slowest - fastest)");

    let mut number = 0;
    let (mut ours, mut theirs, mut insert) = (Rates::default(), Rates::default(), Vec::new());
    // the first rounds make the people
    for round in 0..rounds + 2 {
        let batches: Arc<Vec<Batch>> = Arc::new((0..size).map(|_| batch(&mut number, &write_key)).collect());
        let events = (size * EVENTS) as f64;
        let at_the_door = send_timed(&address, &batches, connections).await;
        let at_the_peers = match peer {
            Some(peer) => Some(send_timed(peer, &batches, connections).await),
            None => None,
        };
        let watch = Stopwatch::start();
        for group in batches.chunks(connections) {
            insert_bare(&mut bare, group).await;
        }
        let bare_rate = events / watch.elapsed().as_secs_f64();
        if round >= 2 {
            ours.add(at_the_door);
            at_the_peers.into_iter().for_each(|rate| theirs.add(rate));
            insert.push(bare_rate);
        }
    }
    println!("at the door   {}", ours.shown());
    println!("bare insert   {} rows/s", shown(&mut insert));
    println!("ratio         {:.2}", quantile(&mut ours.events, 0.5) / quantile(&mut insert, 0.5));
    if peer.is_some() {
        println!("the peer      {}", theirs.shown());
        println!("ratio         {:.2}", quantile(&mut ours.events, 0.5) / quantile(&mut theirs.events, 0.5));
    }

    let reads = if is_small { 200 } else { 2_000 };
    let mut alone = read(&address, &read_key, reads, &AtomicBool::new(false)).await;
    println!("read alone    p50 {:.2} ms, p99 {:.2} ms", quantile(&mut alone, 0.5), quantile(&mut alone, 0.99));
    let batches: Arc<Vec<Batch>> = Arc::new((0..4 * size).map(|_| batch(&mut number, &write_key)).collect());
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let (address, key, is_over) = (address.clone(), read_key.clone(), is_over.clone());
        async move { read(&address, &key, usize::MAX, &is_over).await }
    });
    send(&address, &batches, connections).await;
    is_over.store(true, Ordering::Relaxed);
    let mut beside = reading.await.expect("it reads");
    println!(
        "read beside   p50 {:.2} ms, p99 {:.2} ms ({} reads under load)",
        quantile(&mut beside, 0.5),
        quantile(&mut beside, 0.99),
        beside.len()
    );
}

/// What a service did, round by round.
#[derive(Default)]
struct Rates {
    events: Vec<f64>,
    answers: Vec<f64>,
}

impl Rates {
    fn add(&mut self, (rate, answers): (f64, Vec<f64>)) {
        self.events.push(rate);
        self.answers.extend(answers);
    }

    fn shown(&mut self) -> String {
        let (p50, p99) = (quantile(&mut self.answers, 0.5), quantile(&mut self.answers, 0.99));
        format!("{} events/s, answers p50 {p50:.1} ms, p99 {p99:.1} ms", shown(&mut self.events))
    }
}

async fn bare_database(directory: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(directory.join("bare.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = options.connect().await.expect("a database");
    sqlx::query(BARE_TABLE).execute(&mut connection).await.expect("a table");
    connection
}

async fn insert_bare(connection: &mut SqliteConnection, group: &[Batch]) {
    let mut transaction = connection.begin().await.expect("begun");
    for batch in group {
        sqlx::query(BARE_INSERT).bind(&batch.rows).execute(&mut *transaction).await.expect("inserted");
    }
    transaction.commit().await.expect("committed");
}

/// Events a second, and the milliseconds that each batch waited for its answer.
async fn send_timed(address: &str, batches: &Arc<Vec<Batch>>, connections: usize) -> (f64, Vec<f64>) {
    let watch = Stopwatch::start();
    let answers = send(address, batches, connections).await;
    ((batches.len() * EVENTS) as f64 / watch.elapsed().as_secs_f64(), answers)
}

/// Sends all of them, and gives the milliseconds that each waited for its answer.
async fn send(address: &str, batches: &Arc<Vec<Batch>>, connections: usize) -> Vec<f64> {
    let senders = (0..connections).map(|first| {
        let (address, batches) = (address.to_owned(), batches.clone());
        tokio::spawn(async move {
            let mut stream = connect(&address).await;
            let mut latencies = Vec::new();
            for batch in batches.iter().skip(first).step_by(connections) {
                let watch = Stopwatch::start();
                let answer = exchange(&mut stream, &batch.request).await;
                latencies.push(watch.elapsed().as_secs_f64() * 1000.0);
                assert!(answer.contains("\"accepted\":100"), "{answer}");
            }
            latencies
        })
    });
    let mut latencies = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        latencies.extend(sender.await.expect("it sends"));
    }
    latencies
}

async fn read(address: &str, key: &str, count: usize, is_over: &AtomicBool) -> Vec<f64> {
    let mut stream = connect(address).await;
    let mut latencies = Vec::new();
    for number in 0..count {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let person = number * 37 % 5_000;
        let request = format!("GET /v1/profiles/customer-{person} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
        let watch = Stopwatch::start();
        let answer = exchange(&mut stream, request.as_bytes()).await;
        latencies.push(watch.elapsed().as_secs_f64() * 1000.0);
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    latencies
}

fn shown(values: &mut [f64]) -> String {
    let median = quantile(values, 0.5);
    format!("{median:.0} ({:.0} - {:.0})", quantile(values, 0.0), quantile(values, 1.0))
}
