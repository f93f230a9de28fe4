//! However a person's visits are told (anonymously, by name, by both, on several devices, in any order, looked at in between or not): in
//! the end it is the person that would be there had everything been told by name from the start.

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::points;
use rekindle::engine::profile::Profile;
use rekindle::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::rulebook::Rulebook;
use rekindle::store::sqlite::{Durability, Options, SqliteStore};
use rekindle::store::{Identity, Link, Look, NewEvent, Store};
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};

const SHOP: &str = r#"
rekindle: 1
events:
  order_completed: { name: "Order Completed", active: true, properties: { order_id: { type: string, required: true }, total: { type: money } } }
  order_refunded: { name: "Order Refunded", properties: { order_id: { type: string, required: true }, total: { type: money } } }
  session_started: { name: "Session Started", active: true }
attributes:
  size: { type: int, optional: true, update: max }
features:
  sessions_ever: { count: session_started, window: lifetime, doc: visits }
program:
  currency: EUR
  jurisdiction: { by: country, else: as-programmed }
  points:
    classes: { bonus: { expiry: { rolling: 24mo } } }
    earn: [{ event: order_completed, rate: 10 per 1 EUR, class: bonus }]
    penalty: { classes: [bonus], keep: 100, cap: 50% per 365d, grace: 7d }
policy:
  time: { zone: { last: UTC } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
"#;

fn start() -> Timestamp {
    Timestamp::parse("2026-03-01T00:00:00Z").expect("an instant")
}

/// By what the person is known in one message.
#[derive(Clone, Copy, Debug)]
enum Told {
    Anonymously(u8),
    ByName,
    ByBoth(u8),
}

#[derive(Clone, Debug)]
struct Step {
    told: Told,
    what: u8,
    value: i64,
    /// Hours after the start.
    hour: i64,
    /// Somebody looks at whoever is due after it.
    is_looked_at: bool,
    /// It is sent a second time.
    is_repeated: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let told = prop_oneof![(0u8..2).prop_map(Told::Anonymously), Just(Told::ByName), (0u8..2).prop_map(Told::ByBoth)];
    (told, 0u8..5, 1i64..5, 0i64..24, any::<bool>(), any::<bool>()).prop_map(|(told, what, value, hour, is_looked_at, is_repeated)| {
        // nothing is refunded before it is ordered
        let hour = if what == 3 { hour + 24 } else { hour };
        Step { told, what, value, hour, is_looked_at, is_repeated }
    })
}

fn event(number: usize, step: &Step, received_at: Timestamp) -> Event {
    let (kind, name, properties) = match step.what {
        0 => (EventKind::Identify, "", json!({ "country": if step.value % 2 == 0 { "DE" } else { "FR" }, "size": step.value })),
        1 => (EventKind::Consent, "", json!({ "purpose": "marketing", "channel": "email", "granted": step.value > 2 })),
        2 => (EventKind::Track, "Order Completed", json!({ "order_id": number.to_string(), "total": step.value, "currency": "EUR" })),
        3 => (EventKind::Track, "Order Refunded", json!({ "order_id": format!("r{number}"), "total": step.value, "currency": "EUR" })),
        _ => (EventKind::Track, "Session Started", json!({})),
    };
    let Json::Object(properties) = properties else { unreachable!("they are objects") };
    Event {
        id: Arc::from(format!("e{number}")),
        kind,
        name: Arc::from(name),
        occurred_at: start().plus_ms(step.hour * HOUR_MS),
        received_at,
        source: Arc::from("shop"),
        properties,
    }
}

fn told(step: &Step, event: Event) -> NewEvent {
    let device = |n: u8| Arc::from(format!("device-{n}"));
    let (identity, link) = match step.told {
        Told::Anonymously(n) => (Identity::Anonymous(device(n)), None),
        Told::ByName => (Identity::User("ana".into()), None),
        Told::ByBoth(n) => (Identity::User("ana".into()), Some(Link::Anonymous(device(n)))),
    };
    NewEvent { identity, link, event, active: false }
}

struct Shop {
    _directory: tempfile::TempDir,
    store: Arc<SqliteStore>,
    rules: Arc<RuleVersions>,
}

impl Shop {
    async fn open(book: &Rulebook) -> Shop {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options { durability: Durability::Process, readers: 1, ..Options::new(&directory.path().join("shop.db"), "test") };
        let store = SqliteStore::open_with(options).await.expect("a database");
        let set = book.set().expect("sound rules");
        let published_at = start().plus_ms(-30 * DAY_MS);
        store.publish_rules(book.publication(&set, published_at, "tests", "first")).await.expect("published");
        Shop { _directory: directory, store: Arc::new(store), rules: Arc::new(RuleVersions::new(set, book.templates())) }
    }

    async fn look(&self, now: Timestamp) {
        let evaluator = Evaluator { store: self.store.clone(), rules: self.rules.clone(), worker: "w".into() };
        while evaluate::run_once(&evaluator, Look::Now(now), 100).await.expect("a pass").claimed > 0 {}
    }

    /// Tells everything, then makes sure that both devices are known to be the person's.
    async fn tell(&self, steps: &[Step], as_told: bool) -> Profile {
        // everything comes in on the third day, a minute apart
        let arrives = |number: usize| start().plus_ms(2 * DAY_MS + number as i64 * MINUTE_MS);
        for (number, step) in steps.iter().enumerate() {
            let event = event(number, step, arrives(number));
            let by_name = Step { told: Told::ByName, ..step.clone() };
            let new = told(if as_told { step } else { &by_name }, event);
            for _ in 0..if step.is_repeated { 2 } else { 1 } {
                self.store.append_events(vec![new.clone()]).await.expect("appended");
            }
            if as_told && step.is_looked_at {
                self.look(arrives(number)).await;
            }
        }
        for n in 0..2u8 {
            let last = Step { told: Told::ByBoth(n), what: 0, value: 9, hour: 47, is_looked_at: false, is_repeated: false };
            let event = event(steps.len() + usize::from(n), &last, arrives(steps.len()));
            let new = told(&if as_told { last } else { Step { told: Told::ByName, ..last } }, event);
            self.store.append_events(vec![new]).await.expect("appended");
        }
        self.look(arrives(steps.len() + 1)).await;
        let id = self.store.find_profile(&Identity::User("ana".into())).await.expect("read").expect("the person");
        self.store.profile(id).await.expect("read").expect("a row").profile
    }

    async fn facts_on_record(&self) -> Vec<String> {
        let events = self.store.events(Default::default(), 1000).await.expect("read");
        let mut ids: Vec<String> =
            events.iter().filter(|row| row.event.kind != EventKind::Engine).map(|row| row.event.id.to_string()).collect();
        ids.sort();
        ids
    }
}

/// What facts say of a person.
fn facts(profile: &Profile) -> String {
    let Profile { first_seen_at, country, attributes, consents, activity, orders, refunds, features, wallet, .. } = profile;
    let balance = points::balance(wallet, None, start().plus_ms(60 * DAY_MS)).0;
    format!("{first_seen_at:?}\n{country:?}\n{attributes:?}\n{consents:?}\n{activity:?}\n{orders:?}\n{refunds:?}\n{features:?}\n{balance}")
}

#[test]
fn promise_i7_nothing_counts_twice_when_two_turn_out_to_be_one() {
    let book = Rulebook::of_texts(vec![("shop.yaml".into(), SHOP.into())]);
    assert!(book.set().is_some(), "{}", book.render_errors());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..14))| {
        runtime.block_on(async {
            let (as_told, by_name) = (Shop::open(&book).await, Shop::open(&book).await);
            let (one, other) = (as_told.tell(&steps, true).await, by_name.tell(&steps, false).await);
            prop_assert_eq!(facts(&one), facts(&other));
            prop_assert_eq!(as_told.facts_on_record().await, by_name.facts_on_record().await);
            Ok(())
        })?;
    });
}
