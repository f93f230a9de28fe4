//! Sending: mails and signed webhooks through the durable outbox into a server of this process. Claim, gates, send-intent (flushed),
//! render, write, hand over, result: what `serve` does. Beside it, in the same run, the same messages by the channel alone, without an
//! outbox. The count is taken at the server.
//!
//! `cargo bench --bench dispatch`; `-- 4000` for another number of messages, a small one to see that it works.

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use rekindle::channel::email::Email;
use rekindle::channel::webhook::Webhook;
use rekindle::channel::{Channel, Channels, Outcome, Outgoing};
use rekindle::clock::{Clock as _, Stopwatch, SystemClock};
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
use rekindle::settings::providers::{Dkim, Smtp, Tls, Webhook as Hook};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Identity, Look, NewEvent, Store};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

const MESSAGES: usize = 3_000;
const ROUNDS: usize = 3;

/// Messages handed to a channel alone at once: as many as the relay has connections at most.
const AT_ONCE: usize = 10;

const RULES: &str = "
rekindle: 1
events: { signed_up: { name: Signed Up, active: true } }
policy:
  time: { zone: { last: UTC } }
  consent: { marketing: always }
  channels:
    inapp: { provider: bench }
    email:
      provider: bench
      sender: { from: The shop <news@shop.example>, postal_address: \"1 High Street, London\", list_id: news.shop.example }
rules:
  - id: hello
    name: Greet who signs up
    owner: bench
    event: signed_up
    reentry: { after: 1m }
    max_entries: 1000000
    steps:
      - { id: greet, send: { template: hello, channels: [CHANNEL] } }
";

#[tokio::main]
async fn main() {
    let messages = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(MESSAGES);
    println!("{messages} messages; a second, best of {ROUNDS} (all), counted at the server");
    println!("mails of 2 kB HTML and text with both unsubscribe headers; webhooks by Standard Webhooks");
    println!("{:>34} {:>30} {:>30}", "", "through the outbox", "the channel alone");
    for (connections, signed) in [(1, false), (10, false), (1, true), (10, true)] {
        let way = Way::Mail { connections, signed };
        let signature = if signed { "RSA-2048" } else { "unsigned" };
        measure(&format!("mails, {connections} connections, {signature}"), way, messages).await;
    }
    measure("webhooks", Way::Hook, messages).await;
}

/// How messages leave.
#[derive(Clone, Copy)]
enum Way {
    Mail { connections: usize, signed: bool },
    Hook,
}

impl Way {
    fn kind(self) -> Kind {
        match self {
            Way::Mail { .. } => Kind::Email,
            Way::Hook => Kind::Inapp,
        }
    }

    /// A server, and the channel to it.
    async fn open(self) -> (Sink, Arc<dyn Channel>) {
        match self {
            Way::Mail { connections, signed } => {
                let sink = Sink::of_mails().await;
                let channel = Arc::new(email(sink.port, connections, signed));
                (sink, channel)
            }
            Way::Hook => {
                let sink = Sink::of_hooks().await;
                let channel = Arc::new(webhook(sink.port));
                (sink, channel)
            }
        }
    }
}

async fn measure(name: &str, way: Way, messages: usize) {
    let (mut outbox, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        outbox.push(through_the_outbox(way, messages).await);
        alone.push(by_the_channel_alone(way, messages).await);
    }
    println!("{name:>34} {:>30} {:>30}", shown(&mut outbox), shown(&mut alone));
}

fn shown(rates: &mut [f64]) -> String {
    rates.sort_by(f64::total_cmp);
    let all: Vec<String> = rates.iter().rev().skip(1).map(|rate| format!("{rate:.0}")).collect();
    format!("{:.0} ({})", rates.last().copied().unwrap_or(f64::NAN), all.join(", "))
}

async fn through_the_outbox(way: Way, messages: usize) -> f64 {
    let (sink, channel) = way.open().await;
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory.path().join("bench.db"), "bench").await.expect("a database"));
    let rules = queue(&store, way.kind(), messages).await;
    let channels = Channels::named(BTreeMap::from([("bench".into(), channel)]), BTreeMap::new());
    let dispatcher = Dispatcher::new(store, rules, channels, "bench".into());

    let (stop, shutdown) = watch::channel(false);
    let (wake, next, telemetry) = (Notify::new(), Notify::new(), Telemetry::default());
    let watch = Stopwatch::start();
    let signals = Signals { wake: &wake, next: &next, shutdown };
    let running = dispatch::run(&dispatcher, &SystemClock, dispatch::BATCH, &telemetry, signals);
    let counting = async {
        sink.until(messages).await;
        let taken = watch.elapsed();
        stop.send_replace(true);
        taken
    };
    let ((), taken) = tokio::join!(running, counting);
    messages as f64 / taken.as_secs_f64()
}

/// So many people sign up and are decided about: their messages wait in the outbox.
async fn queue(store: &Arc<dyn Store>, kind: Kind, messages: usize) -> Arc<RuleVersions> {
    let book = Rulebook::of(sources(kind));
    let set = book.set().unwrap_or_else(|| panic!("{}", book.render_errors()));
    let now = SystemClock.now();
    store.publish_rules(book.publication(&set, now.plus_ms(-60_000), "bench", "bench")).await.expect("published");
    let rules = Arc::new(RuleVersions::new(set, book.templates()));
    for people in (0..messages).collect::<Vec<_>>().chunks(500) {
        let events = people.iter().flat_map(|n| {
            let identify = event(*n, EventKind::Identify, "", now, json!({ "email": format!("customer{n}@post.example") }));
            [identify, event(*n, EventKind::Track, "Signed Up", now.plus_ms(1), json!({}))]
        });
        store.append_events(events.collect()).await.expect("events");
    }
    let evaluator = Evaluator { store: store.clone(), rules: rules.clone(), worker: "bench".into() };
    let mut queued = 0;
    while queued < messages as u64 {
        queued += evaluate::run_once(&evaluator, Look::Now(now.plus_ms(2)), 1_000).await.expect("a pass").messages;
    }
    rules
}

async fn by_the_channel_alone(way: Way, messages: usize) -> f64 {
    let (sink, channel) = way.open().await;
    let kind = way.kind();
    let book = Rulebook::of(sources(kind));
    let set = book.set().expect("sound rules");
    let policy = set.policy.channels.get(&kind);
    let content = Content {
        locale: "en".into(),
        subject: Some("Hello".into()),
        text: Some(TEXT.into()),
        html: Some(html()),
        push_title: Some("Hello".into()),
        push_body: Some(TEXT.into()),
        ..Content::default()
    };
    let at = SystemClock.now();
    let addresses: Vec<String> = (0..messages).map(|n| format!("customer{n}@post.example")).collect();
    let outgoing = |n: usize| Outgoing {
        message: MessageId::derive(at, n as u128),
        attempt: 1,
        kind,
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
    let sends = futures_util::stream::iter(0..messages).map(|n| {
        let (channel, message) = (channel.clone(), outgoing(n));
        async move { channel.send(&message).await }
    });
    let refused: Vec<Outcome> =
        sends.buffer_unordered(AT_ONCE).filter(|sent| ready(!matches!(sent, Outcome::Accepted { .. }))).collect().await;
    assert!(refused.is_empty(), "{:?}", refused.first());
    sink.until(messages).await;
    messages as f64 / watch.elapsed().as_secs_f64()
}

const TEXT: &str = "Hello, and welcome to our shop. You will hear from us when there is something worth hearing.\n";

fn html() -> String {
    format!("<html><body>{}</body></html>", "<p>Hello, and welcome to our shop. We are glad that you are here.</p>\n".repeat(29))
}

fn sources(kind: Kind) -> Vec<SourceFile> {
    let files = [
        ("rules.yaml", RULES.replace("CHANNEL", kind.name())),
        ("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing }".to_owned()),
        ("templates/hello/en/subject.liquid", "Hello".to_owned()),
        ("templates/hello/en/text.liquid", TEXT.to_owned()),
        ("templates/hello/en/html.liquid", html()),
        ("templates/hello/en/push_title.liquid", "Hello".to_owned()),
        ("templates/hello/en/push_body.liquid", TEXT.to_owned()),
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

fn webhook(port: u16) -> Webhook {
    let settings = Hook {
        url: format!("http://127.0.0.1:{port}/hook").parse().expect("an address"),
        secrets: vec![Secret::given("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")],
        allow_networks: vec!["127.0.0.0/8".parse().expect("a network")],
        ca: None,
    };
    Webhook::new(&settings).expect("a channel")
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

/// Takes everything, and counts it.
struct Sink {
    port: u16,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    messages: AtomicUsize,
    arrived: Notify,
}

impl Count {
    fn one(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.arrived.notify_one();
    }
}

impl Sink {
    /// An SMTP server that offers PIPELINING.
    async fn of_mails() -> Sink {
        Sink::start(|stream, count| async move { take_mails(stream, &count).await }).await
    }

    /// A web server that answers 204.
    async fn of_hooks() -> Sink {
        Sink::start(|stream, count| async move { take_hooks(stream, &count).await }).await
    }

    async fn start<T, F>(talk: T) -> Sink
    where
        T: Fn(BufReader<TcpStream>, Arc<Count>) -> F + Send + 'static,
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let count = Arc::new(Count::default());
        let counting = count.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an option");
                tokio::spawn(talk(BufReader::new(stream), counting.clone()));
            }
        });
        Sink { port, count }
    }

    async fn until(&self, messages: usize) {
        while self.count.messages.load(Ordering::Relaxed) < messages {
            self.count.arrived.notified().await;
        }
    }
}

async fn take_hooks(mut stream: BufReader<TcpStream>, count: &Count) -> std::io::Result<()> {
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            let announced = line.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|length| length.trim().parse().ok());
            length = announced.unwrap_or(length);
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        count.one();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
}

async fn take_mails(mut stream: BufReader<TcpStream>, count: &Count) -> std::io::Result<()> {
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
                count.one();
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
