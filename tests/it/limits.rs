//! Limits that reach over people: a rule's entries an hour, a coupon's budget a month. Many workers of several processes decide at the same
//! time, each by what was on record when it looked; what they commit together is never one too many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rekindle::engine::action::What;
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

const PEOPLE: usize = 240;
const WORKERS: usize = 12;
/// Of the rule, within an hour.
const ENTRIES_MAX: u64 = 50;
/// Of the coupon, within the month: so many are worth 5 USD each.
const COUPONS_MAX: u64 = 23;

fn rules() -> Rulebook {
    let text = format!(
        r#"
rekindle: 1
events:
  ordered: {{ name: "Ordered", active: true, properties: {{ order: {{ type: string, required: true }} }} }}
policy:
  time: {{ zone: {{ last: UTC }}, lateness: {{ start: 72h, correct: 7d }}, week_start: mon }}
  consent: {{ marketing: always, service: always, transactional: always }}
  categories: {{ default: marketing }}
  notify: {{ ops: {{ email: ops@shop.example }} }}
  on_block: {{ budget: drop }}
program:
  currency: USD
  coupons:
    FIVE: {{ value: 5 USD, source: generated, valid: 30d, budget: {budget} USD per month }}
rules:
  - id: thanks
    owner: tests
    event: ordered
    key: event.order
    max_entries: {ENTRIES_MAX}
    steps: [{{ id: note, alert: {{ level: notice, text: "ordered", notify: [ops] }} }}]
  - id: gift
    owner: tests
    event: ordered
    key: event.order
    max_entries: 1000000
    steps: [{{ id: offer, send: {{ template: hello, channels: [sms], offer: {{ coupon: FIVE }} }} }}]
"#,
        budget = 5 * COUPONS_MAX
    );
    let texts = [
        ("rules.yaml", text.as_str()),
        ("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: order }"),
        ("templates/hello/en/sms.liquid", "Hello! {{ offer.code }}"),
    ];
    let book = Rulebook::of(texts.iter().map(|(path, text)| SourceFile { path: (*path).into(), text: (*text).into() }).collect());
    assert!(book.set().is_some(), "{}", book.render_errors());
    book
}

fn ordered(number: usize, at: Timestamp) -> Vec<NewEvent> {
    let event = |kind, name: &str, id: String, properties: serde_json::Value| {
        let properties = properties.as_object().cloned().unwrap_or_default();
        let event = Event { id: id.into(), kind, name: name.into(), occurred_at: at, received_at: at, source: "shop".into(), properties };
        NewEvent { identity: Identity::User(format!("u{number}").into()), link: None, event, active: kind == EventKind::Track }
    };
    vec![
        event(EventKind::Identify, "", format!("i{number}"), json!({ "phone": format!("+44163296{number:04}") })),
        event(EventKind::Track, "Ordered", format!("o{number}"), json!({ "order": number.to_string() })),
    ]
}

/// Everybody's order at once, and workers who decide about them together. `stores`: handles of one database; workers share them out.
async fn decided_together(stores: &[Arc<dyn Store>]) {
    let begun = Timestamp::parse("2026-03-02T10:00:00Z").expect("an instant");
    let (book, first) = (rules(), stores.first().expect("a store").clone());
    let set = book.set().expect("sound rules");
    first.publish_rules(book.publication(&set, begun.plus_ms(-DAY_MS), "tests", "first")).await.expect("published");
    first.finish_first_looks().await.expect("first looks");
    for from in (0..PEOPLE).step_by(60) {
        let events = (from..from + 60).flat_map(|number| ordered(number, begun)).collect();
        first.append_events(events).await.expect("appended");
    }
    // each process has the rules in use for itself
    let versions: Vec<Arc<RuleVersions>> =
        stores.iter().map(|_| Arc::new(RuleVersions::new(book.set().expect("sound rules"), book.templates()))).collect();
    let clock = Arc::new(AtomicI64::new(begun.as_ms()));
    let workers = (0..WORKERS).map(|number| {
        let (store, rules) = (stores[number % stores.len()].clone(), versions[number % stores.len()].clone());
        let clock = clock.clone();
        tokio::spawn(async move {
            let evaluator = Evaluator { store: store.clone(), rules, worker: format!("w{number}").as_str().into() };
            let mut calm = 0;
            while calm < 3 {
                let now = Timestamp::from_ms(clock.fetch_add(1, Ordering::Relaxed));
                let pass = evaluate::run_once(&evaluator, Look::Now(now), 20).await.expect("a pass");
                calm = if pass.claimed == 0 { calm + 1 } else { 0 };
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no worker panics");
    }
    let now = Timestamp::from_ms(clock.load(Ordering::Relaxed));
    let waiting = first.claim_due(now, PEOPLE, "last").await.expect("claimed").profiles.len();
    assert_eq!(waiting, 0, "everybody was looked at");

    let counts = first.counts().await.expect("read");
    let entered = |rule: &str| {
        let entries = counts.entries.iter().filter(|((of, step, what, _), _)| &**of == rule && step.is_empty() && *what == What::Entered);
        entries.map(|(_, count)| *count).sum::<u64>()
    };
    assert_eq!(entered("thanks"), ENTRIES_MAX, "of the rule: all there is room for, and not one more");
    assert_eq!(entered("gift"), PEOPLE as u64, "another rule is not held up by it");
    assert!(first.world(begun).await.expect("read").world.rules["thanks"].held.is_some(), "it is held until somebody releases it");
    let offers = counts.messages.iter().filter(|((rule, ..), _)| &**rule == "gift").map(|(_, count)| *count).sum::<u64>();
    assert_eq!(offers, COUPONS_MAX, "of the budget: all there is room for, and not one more");
    let march = Timestamp::parse("2026-03-01T00:00:00Z").expect("an instant");
    assert_eq!(first.world(march).await.expect("read").world.budgets.get("FIVE"), Some(&(500 * COUPONS_MAX as i64)));
    let counted: BTreeMap<_, _> = first.entries_since(begun).await.expect("read");
    assert_eq!(counted.get("thanks"), Some(&ENTRIES_MAX), "what is counted is what happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promise_limits_over_people_hold_under_many_workers_on_one_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory.path().join("shop.db"), "test").await.expect("a database"));
    decided_together(&[store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promise_limits_over_people_hold_under_workers_of_four_processes() {
    let Some(server) = server::shared() else { return };
    for distributed in [false, true] {
        let url = server.database().await;
        let mut stores: Vec<Arc<dyn Store>> = Vec::new();
        for _ in 0..4 {
            let options = Options { connections: 4, distributed, ..Options::new(&url, "test") };
            stores.push(Arc::new(PostgresStore::open_with(options).await.expect("the database opens")));
        }
        decided_together(&stores).await;
    }
}
