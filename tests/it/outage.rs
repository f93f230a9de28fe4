//! A network between Rekindle and PostgreSQL that goes wrong: a COMMIT of which nobody knows what became of it, connections that are
//! cut, or over which nothing comes any more. Whatever it was, it is noticed, and the end is the same as without it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rekindle::channel::{Channel, Channels, Outcome, Outgoing};
use rekindle::clock::VirtualClock;
use rekindle::dispatch::{self, Dispatcher};
use rekindle::engine::action::Channel as Kind;
use rekindle::engine::decide::Pause;
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::time::{DAY_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::rulebook::Rulebook;
use rekindle::store::postgres::{Options, PostgresStore};
use rekindle::store::{Identity, Look, NewEvent, PauseScope, Store, StoreError};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::daemon::text;
use super::proxy::{Link, Loss, Proxy};
use super::store::server::{self, Server};

/// One of two thanks a day, and points for each order.
const RULES: &str = r#"
rekindle: 1
events:
  ordered: { name: "Ordered", active: true, properties: { order: { type: string, required: true }, total: { type: money } } }
program:
  currency: EUR
  points:
    classes: { earned: { expiry: { rolling: 24mo } } }
    earn: [{ event: ordered, rate: 10 per 1 EUR, class: earned }]
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  caps: [{ id: day, per: user, max: 1, window: 24h }]
rules:
  - id: thanks
    owner: tests
    event: ordered
    key: event.order
    max_entries: 1000000
    steps: [{ id: thank, send: { template: hello, channels: [sms] } }]
"#;
const ORDERS: usize = 2;
const POINTS: i64 = 120;
/// Those of an order, from the first that takes it in to the last that writes a result down, and some of those that find nothing to do.
const LOST_OF_EACH: usize = 9;

/// How long the database may take, and a process be silent, in these tests.
const ANSWER: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(2);

async fn open(url: &str) -> PostgresStore {
    let options =
        Options { connections: 3, answer: ANSWER, beat: Duration::from_millis(300), dead_after: DEAD_AFTER, ..Options::new(url, "test") };
    PostgresStore::open_with(options).await.expect("the database opens")
}

fn begun() -> Timestamp {
    Timestamp::parse("2026-03-02T10:00:00Z").expect("an instant")
}

/// What reached whom.
#[derive(Default)]
struct Provider(Mutex<BTreeMap<String, usize>>);

#[async_trait]
impl Channel for Provider {
    fn deduplicates(&self) -> bool {
        false
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        *self.0.lock().expect("no panic").entry(outgoing.profile.to_owned()).or_default() += 1;
        Outcome::Accepted { provider_id: "p".into() }
    }
}

/// A shop whose one process reaches its database through a bad network; `sight` looks at it by a way of its own.
struct Shop {
    proxy: Proxy,
    store: Arc<dyn Store>,
    sight: PostgresStore,
    url: String,
    evaluator: Evaluator,
    dispatcher: Dispatcher,
    provider: Arc<Provider>,
}

impl Shop {
    async fn open(server: &Server) -> Shop {
        let url = server.database().await;
        let proxy = Proxy::before(server.port());
        let store: Arc<dyn Store> = Arc::new(open(&proxy.instead_of(&url)).await);
        let texts = [
            ("rules.yaml", RULES),
            ("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: order }"),
            ("templates/hello/en/sms.liquid", "Hello!"),
        ];
        let book = Rulebook::of(texts.iter().map(|(path, text)| SourceFile { path: (*path).into(), text: (*text).into() }).collect());
        let set = book.set().unwrap_or_else(|| panic!("{}", book.render_errors()));
        store.publish_rules(book.publication(&set, begun().plus_ms(-DAY_MS), "tests", "first")).await.expect("published");
        store.finish_first_looks().await.expect("first looks");
        let rules = Arc::new(RuleVersions::new(set, book.templates()));
        let provider = Arc::new(Provider::default());
        let channels = Channels::fixed(BTreeMap::from([(Kind::Sms, provider.clone() as Arc<dyn Channel>)]));
        let evaluator = Evaluator { store: store.clone(), rules: rules.clone(), worker: "w".into() };
        let dispatcher = Dispatcher::new(store.clone(), rules, channels, "w".into());
        let sight = PostgresStore::open_to_read(&url).await.expect("it opens");
        Shop { proxy, store, sight, url, evaluator, dispatcher, provider }
    }

    /// Takes in what one person does, once more for each time that nobody says that it was taken in.
    async fn hear(&self, user: &str) {
        let event = |kind, name: &str, id: String, properties: serde_json::Value| {
            let properties = properties.as_object().cloned().unwrap_or_default();
            let at = begun();
            let event =
                Event { id: id.into(), kind, name: name.into(), occurred_at: at, received_at: at, source: "shop".into(), properties };
            NewEvent { identity: Identity::User(user.into()), link: None, event, active: kind == EventKind::Track }
        };
        let mut events = vec![event(EventKind::Identify, "", format!("i-{user}"), json!({ "phone": "+441632960001" }))];
        for n in 0..ORDERS {
            events.push(event(
                EventKind::Track,
                "Ordered",
                format!("o-{user}-{n}"),
                json!({ "order": format!("{user}-{n}"), "total": 12 }),
            ));
        }
        for _ in 0..5 {
            if self.store.append_events(events.clone()).await.is_ok() {
                return;
            }
        }
        panic!("events are never taken in");
    }

    /// The loops of a process, until `done` is.
    async fn works_until<T>(&self, done: impl Future<Output = T>) -> T {
        let (stopping, shutdown) = watch::channel(false);
        let (clock, telemetry) = (VirtualClock::at(begun()), Telemetry::default());
        let (people, messages) = (Notify::new(), Notify::new());
        let signals = evaluate::Signals { wake: &people, next: &messages, shutdown: shutdown.clone() };
        let evaluating = evaluate::run(&self.evaluator, &clock, 10, &telemetry, signals);
        let signals = dispatch::Signals { wake: &messages, next: &people, shutdown };
        let dispatching = dispatch::run(&self.dispatcher, &clock, 10, &telemetry, signals);
        let until = async {
            let done = done.await;
            stopping.send_replace(true);
            done
        };
        tokio::join!(until, evaluating, dispatching).0
    }

    /// Until nothing is due, claimed or under way.
    async fn settles(&self) {
        let since = Instant::now();
        while !self.is_calm(begun()).await {
            let waits = async || (self.sight.agenda(begun()).await, self.sight.counts().await.map(|counts| counts.messages));
            assert!(since.elapsed() < Duration::from_secs(60), "something is still under way: {:?}", waits().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// In one look: between two somebody is no longer due whose message is not there yet.
    async fn is_calm(&self, now: Timestamp) -> bool {
        // in doubt only for as long as the answer on record is late
        let backlog = self.sight.backlog(now).await.expect("read");
        backlog.people_due + backlog.messages_due + backlog.messages_under_way + backlog.messages_unknown == 0
    }

    /// What one person has after all: messages that went and that wait, points, events.
    async fn end_of(&self, user: &str) -> (usize, Vec<&'static str>, i64, usize) {
        let id = self.sight.find_profile(&Identity::User(user.into())).await.expect("read").expect("a person");
        let history = self.sight.history(id).await.expect("read");
        let mut states: Vec<&str> = history.messages.iter().map(|row| row.state.name()).collect();
        states.sort_unstable();
        let reached = self.provider.0.lock().expect("no panic").get(user).copied().unwrap_or_default();
        let facts = history.events.iter().filter(|(event, _)| event.kind != EventKind::Engine).count();
        (reached, states, history.postings.iter().map(|posting| posting.amount).sum(), facts)
    }
}

/// How many COMMITs were lost.
async fn lose_everything(shop: &Shop) -> usize {
    shop.hear("plain").await;
    shop.settles().await;
    let expected = shop.end_of("plain").await;
    assert_eq!(expected, (1, vec!["accepted"], ORDERS as i64 * POINTS, 1 + ORDERS), "one goes, the other waits for the cap");
    let mut lost = 0;
    for loss in Loss::ALL {
        // a pass over nothing commits too, so that more of them are lost than an order takes
        for nth in 0..LOST_OF_EACH {
            let user = format!("{loss:?}-{nth}");
            shop.proxy.lose(nth, loss);
            shop.hear(&user).await;
            shop.settles().await;
            assert_eq!(shop.end_of(&user).await, expected, "{user}");
            lost += usize::from(shop.proxy.has_lost());
        }
    }
    shop.proxy.lose(usize::MAX, Loss::Unsaid);
    lost
}

/// Every COMMIT on the way of an order, lost in every way that there is: taking in, claiming, deciding, claiming the message, its intent,
/// its result. What was lost is done again if it was not done, and not if it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i5_a_commit_of_which_nobody_knows_loses_and_doubles_nothing() {
    let Some(server) = server::shared() else { return };
    let shop = Shop::open(server).await;
    let lost = shop.works_until(lose_everything(&shop)).await;
    // append, claim, decide, claim messages, intent, result: each in each way, at least
    assert!(lost >= 6 * Loss::ALL.len(), "only {lost} were lost");
    shop.store.close().await;
    let doctor = std::process::Command::new(env!("CARGO_BIN_EXE_rekindle")).args(["doctor", "--db", &shop.url]).output().expect("it runs");
    assert!(doctor.status.success(), "{}", text(&doctor));
}

/// However the way to the database breaks, whoever waits for it hears so within the time that was agreed on, and goes on when it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_says_nothing_is_away_within_seconds() {
    let Some(server) = server::shared() else { return };
    let shop = Shop::open(server).await;
    for link in [Link::Cut, Link::Silent, Link::SilentToServer, Link::SilentToClient] {
        let user = format!("{link:?}");
        assert!(shop.store.may_send());
        shop.proxy.set(link);
        let waited = Instant::now();
        let wrote = shop.store.heartbeat("w", begun(), begun()).await;
        let read = shop.store.counts().await;
        assert!(
            matches!((&wrote, &read), (Err(StoreError::Unavailable(_)), Err(StoreError::Unavailable(_)))),
            "{link:?}: {wrote:?}, {read:?}"
        );
        // each: a test of an idle connection, a new one, or the answer itself
        assert!(waited.elapsed() < Duration::from_secs(30), "{link:?}: {:?}", waited.elapsed());
        while shop.store.may_send() {
            assert!(waited.elapsed() < Duration::from_secs(30), "{link:?}: another process may have taken over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shop.proxy.set(Link::Passes);
        let mended = Instant::now();
        while !shop.store.may_send() {
            assert!(mended.elapsed() < Duration::from_secs(30), "{link:?}: it does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shop.hear(&user).await;
        shop.works_until(shop.settles()).await;
        assert_eq!(shop.end_of(&user).await.0, 1, "{link:?}");
    }
}

/// A process that is gone in the middle of a transaction, without a word: what it had locked is free within seconds, so that an operator's
/// pause goes through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i3_a_process_that_is_stuck_in_a_transaction_does_not_hold_a_pause_up() {
    let Some(server) = server::shared() else { return };
    let shop = Shop::open(server).await;
    let second = PostgresStore::open(&shop.url, "test").await.expect("the database opens");
    shop.hear("u").await;
    evaluate::run_once(&shop.evaluator, Look::Now(begun()), 10).await.expect("a pass");
    // the message's claim goes through; its intent shares the permission that a pause takes alone
    shop.proxy.lose(1, Loss::Stuck);
    let (sent, paused) = tokio::join!(dispatch::run_once(&shop.dispatcher, Look::Now(begun().plus_ms(1)), 10), async {
        while !shop.proxy.has_lost() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pause = Pause { at: begun(), reason: "wrong prices".into() };
        second.set_pause(begun(), PauseScope::All, Some(pause), "ana").await
    });
    assert!(matches!(sent, Err(StoreError::Unavailable(_))), "{sent:?}");
    assert!(paused.is_ok(), "{paused:?}");
    shop.works_until(async {
        let since = Instant::now();
        // not due any more: held by the pause
        while shop.end_of("u").await.1 != ["queued"] || !shop.sight.agenda(begun()).await.expect("read").is_empty() {
            assert!(since.elapsed() < Duration::from_secs(60), "the message never comes to rest: {:?}", shop.end_of("u").await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(shop.end_of("u").await.0, 0, "nothing leaves after the pause");
}
