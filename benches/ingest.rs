//! The door: batches of 100 events over HTTP on loopback, each answered when it is on disk and its people's due times are updated. Beside
//! it, in the same run and interleaved with it, the bare insert of the same rows, as many to a commit as meet in one at the door. Then
//! people read back, alone and beside the load. Generator and server share the machine, so read the ratios.
//!
//! `cargo bench --bench ingest`; `-- 4` for four connections instead of sixteen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekindle::clock::{Clock as _, Stopwatch, SystemClock};
use rekindle::ingest::http::{self, Ingest, Setup, keys};
use rekindle::rulebook::Rulebook;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{KeyScope, NewKey, Store};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const PEOPLE: usize = 50_000;
const EVENTS: usize = 100;
/// Batches of a round.
const BATCHES: usize = 600;
const ROUNDS: usize = 7;

const BARE_TABLE: &str =
    "create table bare (seq integer primary key, person text, id text, name text, occurred_at text, properties text) strict";
const BARE_INSERT: &str = "insert into bare (person, id, name, occurred_at, properties)
    select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each($1)";

/// One batch, as sent and as rows.
struct Batch {
    request: Vec<u8>,
    rows: String,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let connections = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(16);
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("ingest.db"), "bench").await.expect("a database");
    let (write_key, read_key) = (new_key(&store, KeyScope::Write).await, new_key(&store, KeyScope::Read).await);
    let address = serve(&store).await;
    let mut bare = bare_database(directory.path()).await;
    println!("batches of {EVENTS} events of {PEOPLE} people, {connections} connections, every commit flushed; median (slowest - fastest)");

    let mut number = 0;
    let (mut door, mut insert, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    // the first rounds make the people
    for round in 0..ROUNDS + 2 {
        let batches: Arc<Vec<Batch>> = Arc::new((0..BATCHES).map(|_| batch(&mut number, &write_key)).collect());
        let events = (BATCHES * EVENTS) as f64;
        let watch = Stopwatch::start();
        let latencies = send(&address, &batches, connections).await;
        let at_the_door = events / watch.elapsed().as_secs_f64();
        let watch = Stopwatch::start();
        for group in batches.chunks(connections) {
            insert_bare(&mut bare, group).await;
        }
        let bare_rate = events / watch.elapsed().as_secs_f64();
        if round >= 2 {
            door.push(at_the_door);
            insert.push(bare_rate);
            answers.extend(latencies);
        }
    }
    println!(
        "at the door   {} events/s, answers p50 {:.1} ms, p99 {:.1} ms",
        shown(&mut door),
        quantile(&mut answers, 0.5),
        quantile(&mut answers, 0.99)
    );
    println!("bare insert   {} rows/s", shown(&mut insert));
    println!("ratio         {:.2}", quantile(&mut door, 0.5) / quantile(&mut insert, 0.5));

    let mut alone = read(&address, &read_key, 2_000, &AtomicBool::new(false)).await;
    println!("read alone    p50 {:.2} ms, p99 {:.2} ms", quantile(&mut alone, 0.5), quantile(&mut alone, 0.99));
    let batches: Arc<Vec<Batch>> = Arc::new((0..4 * BATCHES).map(|_| batch(&mut number, &write_key)).collect());
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

async fn new_key(store: &SqliteStore, scope: KeyScope) -> String {
    let key = keys::generate().expect("random numbers");
    let new = NewKey { source: "shop".into(), scope, hash: keys::hash(&key), at: SystemClock.now(), by: "bench".into() };
    store.add_key(new).await.expect("added");
    key
}

/// The door, as the daemon opens it; its address.
async fn serve(store: &SqliteStore) -> String {
    let book = Rulebook::open(Path::new("rules")).expect("the shipped rules");
    let set = book.set().expect("sound rules");
    store.publish_rules(book.publication(&set, SystemClock.now(), "bench", "first")).await.expect("published");
    let setup = Setup {
        store: Arc::new(store.clone()),
        rules: Arc::new(RuleVersions::new(set, book.templates())),
        clock: Arc::new(SystemClock),
        telemetry: Arc::new(Telemetry::default()),
        wake: Arc::new(Notify::new()),
        future_tolerance: Duration::from_secs(300),
        keys_fresh: keys::FRESH,
    };
    let router = http::router(Arc::new(Ingest::new(setup)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
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

/// Ids as random as SDKs make them; people of whom some come often.
fn batch(number: &mut u64, key: &str) -> Batch {
    let (mut messages, mut rows) = (Vec::with_capacity(EVENTS), Vec::with_capacity(EVENTS));
    let now = SystemClock.now().to_string();
    for _ in 0..EVENTS {
        *number += 1;
        let chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let share = (chance >> 11) as f64 / (1u64 << 53) as f64;
        let person = format!("customer-{}", (share * share * PEOPLE as f64) as usize);
        let id = format!("{chance:016x}-{:016x}", chance.rotate_left(17).wrapping_mul(31));
        let properties = json!({ "order_id": id, "total": 19.9, "currency": "GBP", "units": 3, "lines": 2, "shop": "web", "coupon": null });
        rows.push(json!([person, id, "Order Completed", now, properties.to_string()]));
        messages.push(json!({ "type": "track", "messageId": id, "userId": person, "event": "Order Completed", "timestamp": now,
            "properties": properties, "context": { "library": { "name": "bench", "version": "1.0.0" } } }));
    }
    let body = json!({ "batch": messages, "sentAt": now }).to_string();
    let authorization = STANDARD.encode(format!("{key}:"));
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {authorization}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Batch { request: [head.into_bytes(), body.into_bytes()].concat(), rows: json!(rows).to_string() }
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

async fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    stream
}

/// Sends one request and reads its answer to the end.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 8192];
        let length = stream.read(&mut piece).await.expect("read");
        assert!(length > 0, "the server hung up");
        answer.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let announced = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|text| text.parse::<usize>().ok());
        if announced.is_some_and(|announced| body.len() >= announced) {
            return text.into_owned();
        }
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len().max(1) - 1) as f64 * share).round() as usize;
    values.get(place).copied().unwrap_or_default()
}

fn shown(values: &mut [f64]) -> String {
    let median = quantile(values, 0.5);
    format!("{median:.0} ({:.0} - {:.0})", quantile(values, 0.0), quantile(values, 1.0))
}
