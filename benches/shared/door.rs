//! The door for events as the daemon opens it, and a client that sends batches through it: what `ingest` and `wave` share.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekindle::clock::{Clock as _, SystemClock};
use rekindle::ingest::http::{self, Ingest, Setup, keys};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{KeyScope, NewKey, Store};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Different people that events are about.
pub const PEOPLE: usize = 50_000;
/// Events in a batch.
pub const EVENTS: usize = 100;

/// One batch, as sent and as rows.
pub struct Batch {
    pub request: Vec<u8>,
    pub rows: String,
}

pub async fn new_key(store: &SqliteStore, scope: KeyScope) -> String {
    let key = keys::generate().expect("random numbers");
    let new = NewKey { source: "shop".into(), scope, hash: keys::hash(&key), at: SystemClock.now(), by: "bench".into() };
    store.add_key(new).await.expect("added");
    key
}

/// Opens the door; its address. `wake` is told when events have come in.
pub async fn serve(store: &SqliteStore, rules: Arc<RuleVersions>, wake: Arc<Notify>) -> String {
    let setup = Setup {
        store: Arc::new(store.clone()),
        rules,
        clock: Arc::new(SystemClock),
        telemetry: Arc::new(Telemetry::default()),
        wake,
        future_tolerance: Duration::from_secs(300),
        keys_fresh: keys::FRESH,
    };
    let router = http::router(Arc::new(Ingest::new(setup)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

/// Ids as random as SDKs make them; people of whom some come often.
pub fn batch(number: &mut u64, key: &str) -> Batch {
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

pub async fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    stream
}

/// Sends one request and reads its answer to the end.
pub async fn exchange(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 8192];
        let length = stream.read(&mut piece).await.expect("read");
        assert!(length > 0, "the server hung up");
        answer.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let announced = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
            .and_then(|text| text.parse::<usize>().ok());
        if announced.is_some_and(|announced| body.len() >= announced) {
            return text.into_owned();
        }
    }
}

pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len().max(1) - 1) as f64 * share).round() as usize;
    values.get(place).copied().unwrap_or_default()
}
