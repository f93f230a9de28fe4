//! The experiment with caps: many workers at once, one person, a cap of three, and a provider that takes, refuses and leaves in doubt. A
//! cap that is counted and then written is exceeded here within a second; slots in the person's own row are not (fault 57 of
//! docs/faults.md). Whatever store there is can be given to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekindle::channel::{Channel, Channels, Outcome, Outgoing, RetryClass};
use rekindle::dispatch::{self, Dispatcher};
use rekindle::engine::action::Channel as Kind;
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::time::{DAY_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::rulebook::Rulebook;
use rekindle::store::postgres::{Options, PostgresStore};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Identity, Look, NewEvent, Store};
use rekindle::versions::RuleVersions;
use serde_json::json;

use super::store::server;

const WORKERS: usize = 64;
const CAP: usize = 3;
/// Each with another person.
const ROUNDS: usize = 8;

fn rules(cap: usize) -> Rulebook {
    let text = format!(
        r#"
rekindle: 1
events:
  ordered: {{ name: "Ordered", active: true, properties: {{ order: {{ type: string, required: true }} }} }}
policy:
  time: {{ zone: {{ last: UTC }}, lateness: {{ start: 72h, correct: 7d }}, week_start: mon }}
  consent: {{ marketing: always, service: always, transactional: always }}
  categories: {{ default: service }}
  caps: [{{ id: three, per: user, max: {cap}, window: 7d }}]
rules:
  - id: thanks
    owner: tests
    event: ordered
    key: event.order
    max_entries: 1000000
    steps: [{{ id: thank, send: {{ template: hello, channels: [sms] }} }}]
  - id: more
    owner: tests
    event: ordered
    key: event.order
    max_entries: 1000000
    steps: [{{ id: offer, send: {{ template: hello, channels: [sms] }} }}]
"#
    );
    let texts = [
        ("rules.yaml", text.as_str()),
        ("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: order }"),
        ("templates/hello/en/sms.liquid", "Hello!"),
    ];
    let book = Rulebook::of(texts.iter().map(|(path, text)| SourceFile { path: (*path).into(), text: (*text).into() }).collect());
    assert!(book.set().is_some(), "{}", book.render_errors());
    book
}

/// Takes most, refuses some for good and some for now, and of some nobody knows: by the message's id, so that a run can be repeated.
#[derive(Default)]
struct Provider {
    /// What may have reached each person.
    reached: Mutex<BTreeMap<String, usize>>,
}

#[async_trait]
impl Channel for Provider {
    fn deduplicates(&self) -> bool {
        false
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        tokio::task::yield_now().await;
        let fate = twox_hash::XxHash3_64::oneshot(&outgoing.message.0.to_be_bytes()) % 8;
        match fate {
            0 | 1 => return Outcome::Rejected { suppress: false, detail: "550".into() },
            2 if outgoing.attempt == 1 => {
                return Outcome::Retry { class: RetryClass::Transient, after_ms: Some(1), detail: "451".into() };
            }
            _ => {}
        }
        *self.reached.lock().expect("no panic").entry(outgoing.profile.to_owned()).or_default() += 1;
        match fate {
            3 => Outcome::Ambiguous { ask_again: false, detail: "cut off".into() },
            _ => Outcome::Accepted { provider_id: "p".into() },
        }
    }
}

/// How many messages may have reached each person, when everybody works at once on whatever there is. `stores`: handles of one
/// database; workers share them out.
pub async fn reached_under_many_workers(stores: &[Arc<dyn Store>], cap: usize) -> Vec<usize> {
    let begun = Timestamp::parse("2026-03-02T10:00:00Z").expect("an instant");
    let (book, first) = (rules(cap), stores.first().expect("a store").clone());
    let set = book.set().expect("sound rules");
    first.publish_rules(book.publication(&set, begun.plus_ms(-DAY_MS), "tests", "first")).await.expect("published");
    first.finish_first_looks().await.expect("first looks");
    let versions = Arc::new(RuleVersions::new(set, book.templates()));
    let (provider, clock) = (Arc::new(Provider::default()), Arc::new(AtomicI64::new(begun.as_ms())));
    for round in 0..ROUNDS {
        let orders = Arc::new(AtomicUsize::new(0));
        let workers = (0..WORKERS).map(|number| {
            let store = stores[number % stores.len()].clone();
            let (versions, provider, clock, orders) = (versions.clone(), provider.clone(), clock.clone(), orders.clone());
            tokio::spawn(async move {
                let channels = Channels::fixed(BTreeMap::from([(Kind::Sms, provider as Arc<dyn Channel>)]));
                let name = format!("w{number}");
                let evaluator = Evaluator { store: store.clone(), rules: versions.clone(), worker: name.as_str().into() };
                let dispatcher = Dispatcher::new(store.clone(), versions, channels, name.as_str().into());
                for _ in 0..3 {
                    let now = Timestamp::from_ms(clock.fetch_add(1, Ordering::Relaxed));
                    if number % 4 == 0 {
                        let order = orders.fetch_add(1, Ordering::Relaxed);
                        store.append_events(ordered(round, order, now)).await.expect("appended");
                    }
                    evaluate::run_once(&evaluator, Look::Now(now), 4).await.expect("a pass");
                    dispatch::run_once(&dispatcher, Look::Now(now), 4).await.expect("a pass");
                }
            })
        });
        let workers: Vec<_> = workers.collect();
        for worker in workers {
            worker.await.expect("no worker panics");
        }
    }
    let channels = Channels::fixed(BTreeMap::from([(Kind::Sms, provider.clone() as Arc<dyn Channel>)]));
    let evaluator = Evaluator { store: first.clone(), rules: versions.clone(), worker: "last".into() };
    let dispatcher = Dispatcher::new(first.clone(), versions, channels, "last".into());
    // what was refused for now is tried again within seconds
    let mut calm = 0;
    while calm < 3 {
        let now = Timestamp::from_ms(clock.fetch_add(2_000, Ordering::Relaxed));
        let looked = evaluate::run_once(&evaluator, Look::Now(now), 1_000).await.expect("a pass");
        let sent = dispatch::run_once(&dispatcher, Look::Now(now), 1_000).await.expect("a pass");
        calm = if looked.claimed + sent.claimed == 0 { calm + 1 } else { 0 };
    }
    let reached = provider.reached.lock().expect("no panic");
    (0..ROUNDS).map(|round| reached.get(&format!("u{round}")).copied().unwrap_or_default()).collect()
}

/// The person's number, then their orders.
fn ordered(round: usize, order: usize, at: Timestamp) -> Vec<NewEvent> {
    let event = |kind, name: &str, id: String, properties: serde_json::Value| {
        let properties = properties.as_object().cloned().unwrap_or_default();
        let event = Event { id: id.into(), kind, name: name.into(), occurred_at: at, received_at: at, source: "shop".into(), properties };
        NewEvent { identity: Identity::User(format!("u{round}").into()), link: None, event, active: kind == EventKind::Track }
    };
    vec![
        event(EventKind::Identify, "", format!("i{round}"), json!({ "phone": "+441632960001" })),
        event(EventKind::Track, "Ordered", format!("{round}-{order}"), json!({ "order": order.to_string() })),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promise_i2_sixty_four_workers_and_one_person_never_exceed_a_cap_of_three() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = async |name: &str| SqliteStore::open(&directory.path().join(name), "test").await.expect("a database");
    let capped: Arc<dyn Store> = Arc::new(open("capped.db").await);
    assert_eq!(reached_under_many_workers(&[capped], CAP).await, [CAP; ROUNDS], "each person's cap is used, and no more");
    // without the cap the same workers send far more: there was something to hold
    let free: Arc<dyn Store> = Arc::new(open("free.db").await);
    let reached = reached_under_many_workers(&[free], 1_000).await;
    assert!(reached.iter().all(|count| *count > 2 * CAP), "{reached:?}");
}

/// Four processes' worth of stores on one database, workers shared out among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promise_i2_workers_of_four_processes_on_postgresql_never_exceed_a_cap_of_three() {
    let Some(server) = server::shared() else { return };
    for distributed in [false, true] {
        let url = server.database().await;
        let mut stores: Vec<Arc<dyn Store>> = Vec::new();
        for _ in 0..4 {
            let options = Options { connections: 3, distributed, ..Options::new(&url, "test") };
            stores.push(Arc::new(PostgresStore::open_with(options).await.expect("the database opens")));
        }
        assert_eq!(reached_under_many_workers(&stores, CAP).await, [CAP; ROUNDS], "each person's cap is used, and no more ({distributed})");
    }
}
