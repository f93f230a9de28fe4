//! The built binary: how long it takes to start on many idle people and how much memory it then has, and how long after `kill -9` it is
//! ready again and has done what was under way.
//!
//! `cargo bench --bench recovery`; `REKINDLE_BENCH_PROFILES` (1,000,000) idle people, `REKINDLE_BENCH_PEOPLE` (2,000) with an order when it is
//! killed; on PostgreSQL too where `REKINDLE_BENCH_POSTGRES=postgres://...` names an empty database.

#[path = "shared/shop.rs"]
mod shop;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rekindle::clock::{Clock as _, Stopwatch, SystemClock};
use rekindle::engine::action::MessageState;
use rekindle::engine::profile::Profile;
use rekindle::store::place::Place;
use rekindle::store::{Store, encoding};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

const SEED_SQLITE: &str = "with recursive n(id) as (select 1 union all select id + 1 from n where id < $1)
    insert into profiles (id, key, version, due_at, absorbed_seq, woken_seq, state)
    select id, 'idle-' || id, 1, null, 0, 0, $2 from n";
const SEED_POSTGRES: &str = "insert into profiles (bucket, id, key, version, due_at, absorbed_seq, woken_seq, state)
    select bucket(id), id, 'idle-' || id, 1, null, 0, 0, $2 from generate_series(1, $1) as id";
const NUMBERED: &str = "select setval('profiles_id_seq', $1)";

#[tokio::main]
async fn main() {
    let number = |name: &str, default: i64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (idle, people) = (number("REKINDLE_BENCH_PROFILES", 1_000_000), number("REKINDLE_BENCH_PEOPLE", 2_000));
    println!("{idle} idle people; killed with {people} orders under way");
    let directory = tempfile::tempdir().expect("a directory");
    measure("SQLite", directory.path(), Place::File(directory.path().join("shop.db")), idle, people as usize).await;
    match std::env::var("REKINDLE_BENCH_POSTGRES") {
        Ok(url) => measure("PostgreSQL", directory.path(), Place::Server(url), idle, people as usize).await,
        Err(_) => println!("{:>12} REKINDLE_BENCH_POSTGRES names no database", "PostgreSQL"),
    }
}

async fn measure(name: &str, directory: &Path, place: Place, idle: i64, people: usize) {
    let store = place.open("bench", None).await.expect("the database opens");
    shop::publish(store.as_ref(), SystemClock.now().plus_ms(-60_000)).await;
    store.close().await;
    seed(&place, idle).await;
    let shop = Shop::at(directory, &place);

    let watch = Stopwatch::start();
    let daemon = shop.serve();
    let started = watch.elapsed();
    let resident_kb = daemon.resident_kb();
    daemon.end("TERM");
    println!("{name:>12} start {:.2} s, resident {:.0} MB", started.as_secs_f64(), resident_kb as f64 / 1024.0);

    let store = place.open("bench", None).await.expect("the database opens");
    shop::order(store.as_ref(), people, SystemClock.now()).await;
    store.close().await;
    let daemon = shop.serve();
    let sight = place.open_to_read().await.expect("it opens");
    until("some are sent", async || sent(sight.as_ref()).await > people as u64 / 20).await;
    daemon.end("KILL");
    let watch = Stopwatch::start();
    let daemon = shop.serve();
    let ready = watch.elapsed();
    until("everybody is done", async || is_done(sight.as_ref()).await).await;
    let done = watch.elapsed();
    println!("{name:>12} after kill -9: ready in {:.2} s, all done in {:.2} s", ready.as_secs_f64(), done.as_secs_f64());
    daemon.end("TERM");
    sight.close().await;
}

async fn seed(place: &Place, idle: i64) {
    let state = encoding::encode(&Profile::new("idle"));
    match place {
        Place::File(path) => {
            let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("it opens");
            sqlx::query(SEED_SQLITE).bind(idle).bind(state).execute(&mut connection).await.expect("people");
        }
        Place::Server(url) => {
            let mut connection = PgConnection::connect(url).await.expect("it opens");
            sqlx::query(SEED_POSTGRES).bind(idle).bind(state).execute(&mut connection).await.expect("people");
            sqlx::query(NUMBERED).bind(idle).execute(&mut connection).await.expect("numbered");
        }
    }
}

async fn sent(store: &dyn Store) -> u64 {
    let counts = store.counts().await.expect("read");
    counts.messages.iter().filter(|((.., state), _)| *state == MessageState::Accepted).map(|(_, count)| count).sum()
}

async fn is_done(store: &dyn Store) -> bool {
    let open = [MessageState::Queued, MessageState::Leased, MessageState::Sending];
    let is_due = !store.agenda(SystemClock.now()).await.expect("read").is_empty();
    !is_due && !store.counts().await.expect("read").messages.iter().any(|((.., state), count)| open.contains(state) && *count > 0)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..12_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never seen: {what}");
}

/// Where a daemon runs.
struct Shop {
    settings: PathBuf,
    log: PathBuf,
}

impl Shop {
    fn at(directory: &Path, place: &Place) -> Arc<Shop> {
        let path = |name: &str| directory.join(name);
        for (name, text) in shop::TEMPLATES.into_iter().chain([("rules.yaml", shop::RULES)]) {
            let file = path("rules").join(name);
            std::fs::create_dir_all(file.parent().expect("a directory")).expect("directories");
            std::fs::write(file, text).expect("written");
        }
        let database = match place {
            Place::File(file) => format!("path: {}", file.display()),
            Place::Server(url) => {
                std::fs::write(path("url"), url).expect("written");
                format!("url: \"file:{}\"", path("url").display())
            }
        };
        let settings = format!(
            "environment: bench\ndatabase: {{ {database} }}\nrules: {{ directory: {} }}\nrecording: {{ directory: {} }}\n\
             http: {{ listen: \"127.0.0.1:0\" }}\nlogs: {{ format: json, level: info }}\naudit: {{ people_per_second: 0 }}\n",
            path("rules").display(),
            path("out").display()
        );
        std::fs::write(path("rekindle.yaml"), settings).expect("written");
        Arc::new(Shop { settings: path("rekindle.yaml"), log: path("log") })
    }

    /// Starts it, and waits until it is ready.
    fn serve(&self) -> Daemon {
        let log = std::fs::File::create(&self.log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.arg("serve").arg("--config").arg(&self.settings).stdout(Stdio::null()).stderr(log);
        let daemon = Daemon(command.spawn().expect("it starts"));
        for _ in 0..60_000 {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let address = log.split("\"http.address\":\"").nth(1).and_then(|rest| rest.split('"').next());
            if address.is_some_and(is_ready) {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("it is never ready: {}", std::fs::read_to_string(&self.log).unwrap_or_default());
    }
}

fn is_ready(address: &str) -> bool {
    let mut answer = String::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    asked.is_ok() && answer.starts_with("HTTP/1.1 200")
}

struct Daemon(Child);

impl Daemon {
    fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()).and_then(|kb| kb.parse().ok()).expect("the kernel tells")
    }

    fn end(mut self, signal: &str) {
        let told = Command::new("kill").arg(format!("-{signal}")).arg(self.0.id().to_string()).status().expect("it runs");
        assert!(told.success());
        self.0.wait().expect("it ends");
    }
}
