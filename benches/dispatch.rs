//! Sending: mails through the durable outbox into an SMTP server of this process. Claim, gates, send-intent (flushed), render, write,
//! hand over, result: what `serve` does. Beside it, in the same run, the same mails by the relay alone, without an outbox. The count is
//! taken at the server.
//!
//! `cargo bench --bench dispatch`; `-- 4000` for another number of mails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rekindle::channel::email::Email;
use rekindle::channel::{Channel, Channels, Outcome, Outgoing};
use rekindle::clock::{Stopwatch, SystemClock};
use rekindle::dispatch::{self, Dispatcher, Signals};
use rekindle::engine::action::{Channel as Kind, MessageId};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::profile::Category;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::time::Timestamp;
use rekindle::evaluate::{self, Evaluator};
use rekindle::links::Links;
use rekindle::message::Content;
use rekindle::rulebook::Rulebook;
use rekindle::settings::Secret;
use rekindle::settings::providers::{Dkim, Smtp, Tls};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Identity, Look, NewEvent, Store};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

const MAILS: usize = 3_000;
const ROUNDS: usize = 3;

const RULES: &str = "
rekindle: 1
events: { signed_up: { name: Signed Up, active: true } }
policy:
  time: { zone: { last: UTC } }
  consent: { marketing: always }
  channels:
    email:
      provider: relay
      sender: { from: The shop <news@shop.example>, postal_address: \"1 High Street, London\", list_id: news.shop.example }
rules:
  - id: hello
    name: Greet who signs up
    owner: bench
    event: signed_up
    reentry: { after: 1m }
    max_entries: 1000000
    steps:
      - { id: greet, send: { template: hello, channels: [email] } }
";

#[tokio::main]
async fn main() {
    let mails = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(MAILS);
    println!("{mails} mails of 2 kB HTML and text, both unsubscribe headers; mails/s, best of {ROUNDS} (all), counted at the server");
    println!("{:>12} {:>8} {:>30} {:>30}", "connections", "signed", "through the outbox", "the relay alone");
    for (connections, signed) in [(1, false), (10, false), (1, true), (10, true)] {
        let (mut outbox, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            outbox.push(through_the_outbox(mails, connections, signed).await);
            alone.push(by_the_relay_alone(mails, connections, signed).await);
        }
        println!("{connections:>12} {:>8} {:>30} {:>30}", if signed { "RSA-2048" } else { "no" }, shown(&mut outbox), shown(&mut alone));
    }
}

fn shown(rates: &mut [f64]) -> String {
    rates.sort_by(f64::total_cmp);
    let all: Vec<String> = rates.iter().rev().skip(1).map(|rate| format!("{rate:.0}")).collect();
    format!("{:.0} ({})", rates.last().copied().unwrap_or(f64::NAN), all.join(", "))
}

async fn through_the_outbox(mails: usize, connections: usize, signed: bool) -> f64 {
    let sink = Sink::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory.path().join("bench.db"), "bench").await.expect("a database"));
    let book = Rulebook::of(sources());
    let set = book.set().unwrap_or_else(|| panic!("{}", book.render_errors()));
    let now = rekindle::clock::Clock::now(&SystemClock);
    store.publish_rules(book.publication(&set, now.plus_ms(-60_000), "bench", "bench")).await.expect("published");
    let rules = Arc::new(RuleVersions::new(set, book.templates()));
    for people in (0..mails).collect::<Vec<_>>().chunks(500) {
        let events = people.iter().flat_map(|n| {
            let identify = event(*n, EventKind::Identify, "", now, json!({ "email": format!("customer{n}@post.example") }));
            [identify, event(*n, EventKind::Track, "Signed Up", now.plus_ms(1), json!({}))]
        });
        store.append_events(events.collect()).await.expect("events");
    }
    let evaluator = Evaluator { store: store.clone(), rules: rules.clone(), worker: "bench".into() };
    let mut queued = 0;
    while queued < mails as u64 {
        queued += evaluate::run_once(&evaluator, Look::Now(now.plus_ms(2)), 1_000).await.expect("a pass").messages;
    }
    let relay: Arc<dyn Channel> = Arc::new(email(sink.port, connections, signed));
    let channels = Channels::named(BTreeMap::from([("relay".into(), relay)]), BTreeMap::new());
    let dispatcher = Dispatcher::new(store, rules, channels, "bench".into());

    let (stop, shutdown) = watch::channel(false);
    let (wake, next, telemetry) = (Notify::new(), Notify::new(), Telemetry::default());
    let watch = Stopwatch::start();
    let signals = Signals { wake: &wake, next: &next, shutdown };
    let running = dispatch::run(&dispatcher, &SystemClock, dispatch::BATCH, &telemetry, signals);
    let counting = async {
        sink.until(mails).await;
        let taken = watch.elapsed();
        stop.send_replace(true);
        taken
    };
    let ((), taken) = tokio::join!(running, counting);
    mails as f64 / taken.as_secs_f64()
}

async fn by_the_relay_alone(mails: usize, connections: usize, signed: bool) -> f64 {
    let sink = Sink::start().await;
    let email = email(sink.port, connections, signed);
    let book = Rulebook::of(sources());
    let set = book.set().expect("sound rules");
    let policy = set.policy.channels.get(&Kind::Email);
    let content =
        Content { locale: "en".into(), subject: Some("Hello".into()), text: Some(TEXT.into()), html: Some(html()), ..Content::default() };
    let at = rekindle::clock::Clock::now(&SystemClock);
    let addresses: Vec<String> = (0..mails).map(|n| format!("customer{n}@post.example")).collect();
    let outgoing = |n: usize| Outgoing {
        message: MessageId::derive(at, n as u128),
        attempt: 1,
        kind: Kind::Email,
        category: Category::Marketing,
        policy,
        at,
        profile: "customer",
        address: addresses.get(n).map_or("", String::as_str),
        rule: "hello",
        template: "hello",
        content: &content,
    };
    let watch = Stopwatch::start();
    for chunk in (0..mails).collect::<Vec<_>>().chunks(32) {
        let messages: Vec<Outgoing<'_>> = chunk.iter().map(|n| outgoing(*n)).collect();
        let sent = futures_util::future::join_all(messages.iter().map(|message| email.send(message))).await;
        assert!(sent.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })), "{:?}", sent.first());
    }
    sink.until(mails).await;
    mails as f64 / watch.elapsed().as_secs_f64()
}

const TEXT: &str = "Hello, and welcome to our shop. You will hear from us when there is something worth hearing.\n";

fn html() -> String {
    format!("<html><body>{}</body></html>", "<p>Hello, and welcome to our shop. We are glad that you are here.</p>\n".repeat(29))
}

fn sources() -> Vec<SourceFile> {
    let files = [
        ("rules.yaml", RULES.to_owned()),
        ("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing }".to_owned()),
        ("templates/hello/en/subject.liquid", "Hello".to_owned()),
        ("templates/hello/en/text.liquid", TEXT.to_owned()),
        ("templates/hello/en/html.liquid", html()),
    ];
    files.into_iter().map(|(path, text)| SourceFile { path: path.into(), text: text.into() }).collect()
}

fn email(port: u16, connections: usize, signed: bool) -> Email {
    let key = || Secret::given(&std::fs::read_to_string(Path::new("tests/data/mail/rsa.pem")).expect("a key"));
    let dkim = if signed { vec![Dkim { domain: "shop.example".into(), selector: "s1".into(), key: key() }] } else { Vec::new() };
    let settings = Smtp {
        host: "127.0.0.1".into(),
        port,
        tls: Tls::None,
        login: None,
        connections,
        bounce_domain: Some("bounces.shop.example".into()),
        dkim,
        ca: None,
        hello: Some("bench.shop.example".into()),
    };
    let links = Links::new("https://rekindle.shop.example".parse().expect("an address"), &[Secret::given("0123456789abcdef")]);
    Email::new(&settings, Some(links.expect("links"))).expect("a channel")
}

fn event(n: usize, kind: EventKind, name: &str, at: Timestamp, properties: Json) -> NewEvent {
    let Json::Object(properties) = properties else { unreachable!("an object is passed") };
    let event = Event {
        id: format!("{name}{n}").into(),
        kind,
        name: name.into(),
        occurred_at: at,
        received_at: at,
        source: "bench".into(),
        properties,
    };
    NewEvent { identity: Identity::User(format!("customer-{n}").as_str().into()), event, active: kind == EventKind::Track, link: None }
}

/// Takes everything, offers PIPELINING, counts mails.
struct Sink {
    port: u16,
    mails: Arc<AtomicUsize>,
    arrived: Arc<Notify>,
}

impl Sink {
    async fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (mails, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (count, tell) = (mails.clone(), arrived.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an option");
                let (count, tell) = (count.clone(), tell.clone());
                tokio::spawn(async move { talk(BufReader::new(stream), &count, &tell).await.ok() });
            }
        });
        Sink { port, mails, arrived }
    }

    async fn until(&self, mails: usize) {
        while self.mails.load(Ordering::Relaxed) < mails {
            self.arrived.notified().await;
        }
    }
}

async fn talk(mut stream: BufReader<tokio::net::TcpStream>, count: &AtomicUsize, tell: &Notify) -> std::io::Result<()> {
    stream.write_all(b"220 sink\r\n").await?;
    let mut line = Vec::new();
    let mut in_mail = false;
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answer: &[u8] = match line.first() {
            _ if in_mail && line == b".\r\n" => {
                in_mail = false;
                count.fetch_add(1, Ordering::Relaxed);
                tell.notify_one();
                b"250 2.0.0 Ok: queued as 1\r\n"
            }
            _ if in_mail => continue,
            Some(b'E') => b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            Some(b'D') => {
                in_mail = true;
                b"354 go ahead\r\n"
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        stream.write_all(answer).await?;
    }
}
