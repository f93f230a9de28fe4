//! Durable decisions: people who ordered, from the claim to the result. Each is claimed, decided about (a cap, a message), committed; the
//! message is claimed, asked at the gates, its intent committed, accepted by a provider that answers at once, its result committed, and what
//! that makes due is decided as well. Beside it, in the same run, the bare write of the rows that came of it: copied into tables without
//! indexes, as many in a transaction as the way through has.
//!
//! `cargo bench --bench durable`; `REKINDLE_BENCH_PEOPLE=100000` for more than 20,000; on PostgreSQL too where
//! `REKINDLE_BENCH_POSTGRES=postgres://...` names an empty database.

#[path = "shared/shop.rs"]
mod shop;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use rekindle::channel::{Channel, Channels, Outcome, Outgoing};
use rekindle::clock::{Clock as _, Stopwatch, SystemClock};
use rekindle::dispatch::{self, Dispatcher};
use rekindle::engine::action::Channel as Kind;
use rekindle::evaluate::{self, Evaluator};
use rekindle::store::Look;
use rekindle::store::place::Place;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

/// What comes of an order.
const TABLES: [&str; 5] = ["profiles", "messages", "attempts", "entries", "events"];
const ROWS_AT_ONCE: u64 = 500;

/// Takes everything.
struct Provider;

#[async_trait]
impl Channel for Provider {
    fn deduplicates(&self) -> bool {
        false
    }

    async fn send(&self, _: &Outgoing<'_>) -> Outcome {
        Outcome::Accepted { provider_id: "p".into() }
    }
}

/// Seconds for the bare write of the rows that are there.
macro_rules! bare {
    ($connection:ident) => {{
        let mut seconds = 0.0;
        for table in TABLES {
            let make = format!("create table bare_{table} as select * from {table} where 1 = 0");
            $connection.execute(AssertSqlSafe(make)).await.expect("a table");
            let mut from = 0;
            loop {
                // the rows are read before, so that they are at hand
                let copy = format!("insert into bare_{table} select * from {table} limit {ROWS_AT_ONCE} offset {from}");
                let watch = Stopwatch::start();
                let written = $connection.execute(AssertSqlSafe(copy)).await.expect("rows").rows_affected();
                seconds += watch.elapsed().as_secs_f64();
                from += written;
                if written < ROWS_AT_ONCE {
                    break;
                }
            }
        }
        seconds
    }};
}

#[tokio::main]
async fn main() {
    let people = std::env::var("REKINDLE_BENCH_PEOPLE").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    println!("{people} people with an order each, every commit flushed; people a second");
    println!("{:>12} {:>12} {:>16} {:>7}", "", "the whole", "bare rows", "ratio");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("durable.db");
    let whole = through(&Place::File(file.clone()), people).await;
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.expect("it opens");
    sqlx::query("pragma synchronous = full").execute(&mut connection).await.expect("set");
    tell("SQLite", people, whole, bare!(connection));
    let Ok(url) = std::env::var("REKINDLE_BENCH_POSTGRES") else {
        println!("{:>12} REKINDLE_BENCH_POSTGRES names no database", "PostgreSQL");
        return;
    };
    let whole = through(&Place::Server(url.clone()), people).await;
    let mut connection = PgConnection::connect(&url).await.expect("it opens");
    tell("PostgreSQL", people, whole, bare!(connection));
}

fn tell(name: &str, people: usize, whole: f64, bare: f64) {
    let rate = |seconds: f64| people as f64 / seconds;
    println!("{name:>12} {:>12.0} {:>16.0} {:>6.2}x", rate(whole), rate(bare), whole / bare);
}

/// Seconds from the first claim until nobody is due and nothing waits.
async fn through(place: &Place, people: usize) -> f64 {
    let store = place.open("bench", None).await.expect("the database opens");
    let now = SystemClock.now();
    let rules = shop::publish(store.as_ref(), now.plus_ms(-60_000)).await;
    shop::order(store.as_ref(), people, now).await;
    let evaluator = Evaluator { store: store.clone(), rules: rules.clone(), worker: "bench".into() };
    let channels = Channels::fixed(BTreeMap::from([(Kind::Sms, Arc::new(Provider) as Arc<dyn Channel>)]));
    let dispatcher = Dispatcher::new(store.clone(), rules, channels, "bench".into());
    let watch = Stopwatch::start();
    let mut sent = 0;
    loop {
        let look = Look::Now(SystemClock.now());
        let (looked, passed) =
            tokio::join!(evaluate::run_once(&evaluator, look, evaluate::BATCH), dispatch::run_once(&dispatcher, look, dispatch::BATCH));
        let (looked, passed) = (looked.expect("a pass"), passed.expect("a pass"));
        sent += passed.accepted;
        if looked.claimed + passed.claimed == 0 {
            break;
        }
    }
    let seconds = watch.elapsed().as_secs_f64();
    assert_eq!(sent, people as u64, "each has a message");
    store.close().await;
    seconds
}
