//! Reading along with NATS JetStream, against the real server (Debian's nats-server) on a loopback port.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use rekindle::ingest::nats::Reader;
use rekindle::settings::{NatsSettings, Settings};
use rekindle::store::Store;
use serde_json::json;
use tokio::sync::Notify;

use super::http::{Door, order};

/// A server with a stream, in a directory of its own.
struct Server {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // ended already, mostly
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// None: there is no server; said so, unless it must be there.
    async fn start() -> Option<Server> {
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let mut command = Command::new("nats-server");
        command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(directory.path());
        let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            assert!(std::env::var_os("REKINDLE_REQUIRE_SERVICES").is_none(), "there is no nats-server (see .ci/run)");
            eprintln!("skipped: there is no nats-server (Debian's package nats-server)");
            return None;
        };
        let server = Server { child, url: format!("nats://127.0.0.1:{port}"), _directory: directory };
        let config = jetstream::stream::Config { name: "EVENTS".into(), subjects: vec!["shop.>".into()], ..Default::default() };
        server.stream().await.create_stream(config).await.expect("a stream");
        Some(server)
    }

    async fn stream(&self) -> jetstream::Context {
        for _ in 0..600 {
            if let Ok(client) = async_nats::connect(&self.url).await {
                return jetstream::new(client);
            }
            tokio::task::yield_now().await;
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("the server does not answer at {}", self.url);
    }

    async fn publish(&self, messages: &[serde_json::Value]) {
        let stream = self.stream().await;
        for message in messages {
            let stored = stream.publish("shop.events", message.to_string().into()).await.expect("published");
            stored.await.expect("stored");
        }
    }

    fn reader(&self, door: &Door, store: Arc<dyn Store>) -> Reader {
        let settings = Settings::load(None).expect("the defaults").nats;
        Reader {
            store,
            rules: door.rules.clone(),
            telemetry: door.telemetry.clone(),
            wake: Arc::new(Notify::new()),
            settings: NatsSettings { url: Some(self.url.clone()), ..settings },
            future_tolerance: Duration::from_secs(300),
            ack_wait: Duration::from_millis(200),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i7_what_a_stream_delivers_again_counts_once() {
    let Some(server) = Server::start().await else { return };
    let door = Door::open().await;
    let orders: Vec<_> = (0..50).map(|n| order(&format!("o{n}"), &format!("u{}", n % 7), 20.0)).collect();
    server.publish(&orders).await;
    server.publish(&[json!({ "type": "track", "event": "Order Completed" })]).await;

    // on disk, and the process dies before a word of it goes back
    let reader = server.reader(&door, Arc::new(door.store.clone()));
    let place = reader.open().await.expect("a place");
    let delivered = reader.fetch(&place).await.expect("fetched");
    assert_eq!(delivered.len(), 51);
    assert_eq!(reader.keep(&delivered).await.expect("kept"), 50);
    drop((delivered, place));

    // the next one hears all of it again
    let again = server.reader(&door, Arc::new(door.store.clone()));
    let place = again.open().await.expect("the same place");
    let mut heard = 0;
    while heard < 51 {
        let delivered = again.fetch(&place).await.expect("fetched");
        assert_eq!(again.keep(&delivered).await.expect("kept"), 0, "nothing of it is new");
        for message in &delivered {
            message.double_ack().await.expect("acknowledged");
        }
        heard += delivered.len();
    }
    assert_eq!(again.run_once(&place).await.expect("a pass"), 0, "and nothing is left");
    let mut events = 0;
    for user in 0..7 {
        events += door.events(&format!("u{user}")).await.len();
    }
    assert_eq!(events, 50);
    let rejects = door.store.rejects(0, 10).await.expect("read");
    assert_eq!(rejects.len(), 1, "{rejects:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_that_is_not_on_disk() {
    let Some(server) = Server::start().await else { return };
    let door = Door::open().await;
    server.publish(&[order("o1", "ana", 20.0)]).await;
    let closed = Door::open().await;
    closed.store.clone().close().await;
    let reader = server.reader(&door, Arc::new(closed.store.clone()));
    let place = reader.open().await.expect("a place");
    assert!(reader.run_once(&place).await.is_err(), "the database is closed");
    let better = server.reader(&door, Arc::new(door.store.clone()));
    let mut new = 0;
    while new == 0 {
        new = better.run_once(&place).await.expect("a pass");
    }
    assert_eq!((new, door.events("ana").await.len()), (1, 1));
}
