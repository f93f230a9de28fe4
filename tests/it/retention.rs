//! What is removed when its time is over, and that nobody would decide otherwise because of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use rekindle::channel::{Channel, Channels, Outcome, Outgoing};
use rekindle::dispatch::{self, Dispatcher};
use rekindle::engine::action::{Channel as Kind, MessageId, MessageState};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::time::{DAY_MS, HOUR_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::retention::{Cutoffs, Report, Walk};
use rekindle::rulebook::Rulebook;
use rekindle::store::retention::Kept;
use rekindle::store::sqlite::{Durability, Options, SqliteStore};
use rekindle::store::{Identity, Link, Look, NewEvent, Reject, Store};
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};

use super::demo::{part_of_the_year, rekindle, summary_of, write};

const RULES: &str = r#"
rekindle: 1
events:
  order_completed: { name: "Order Completed", active: true, properties: { order_id: { type: string, required: true }, total: { type: money } } }
  session_started: { name: "Session Started", active: true }
features:
  sessions_ever: { count: session_started, window: lifetime, doc: visits }
  sessions_9d: { count: session_started, window: 9d, doc: visits lately }
program:
  currency: EUR
  jurisdiction: { by: country, else: as-programmed }
  points:
    classes: { bonus: { expiry: { rolling: 24mo } } }
    earn: [{ event: order_completed, rate: 10 per 1 EUR, class: bonus }]
    penalty: { classes: [bonus], keep: 10, cap: 50% per 365d, grace: 2d }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: { basis: opt_in }, service: always, transactional: always }
  categories: { default: marketing, marketing: { max_late: 24h }, service: { max_late: 72h } }
  caps:
    - { id: week, per: user, max: 2, window: 7d, categories: [marketing] }
rules:
  - id: thanks
    name: Thank for an order
    owner: tests
    event: order_completed
    reentry: { after: 1m }
    max_entries: 1000
    steps:
      - id: thank
        send: { template: note, channels: [email] }
  - id: often
    name: Who comes often
    owner: tests
    existing: skip
    when: sessions_9d >= 3 && sessions_ever >= 4
    reentry: { after: 5d }
    max_entries: 1000
    steps:
      - id: praise
        send: { template: note, channels: [email] }
  - id: silence
    name: Warn, then take
    owner: tests
    existing: skip
    when: days_silent >= 4
    reentry: { after: 1d }
    max_entries: 1000
    steps:
      - id: warn
        send: { template: warning, channels: [email], category: service }
      - id: take
        after: 3d
        take: { notice: warn, percent: 10%, of: bonus, max: 300, keep: 10, reason: silence, restore: { within: 20d } }
"#;

const TEMPLATES: [(&str, &str); 6] = [
    ("note/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing }"),
    ("note/en/subject.liquid", "Hello"),
    ("note/en/text.liquid", "Hello!"),
    ("warning/template.yaml", "rekindle: 1\ntemplate: { purpose: account }"),
    ("warning/en/subject.liquid", "{{ notice.amount }} points"),
    ("warning/en/text.liquid", "From {{ notice.from }} on {{ notice.amount }} points lapse."),
];

pub fn start() -> Timestamp {
    Timestamp::parse("2026-03-02T08:00:00Z").expect("an instant")
}

pub fn book() -> Rulebook {
    let templates = TEMPLATES.iter().map(|(path, text)| (format!("templates/{path}"), text.to_string()));
    let book = Rulebook::of_texts(std::iter::once(("rules.yaml".to_owned(), RULES.to_owned())).chain(templates).collect());
    assert!(book.set().is_some(), "{}", book.render_errors());
    book
}

/// A provider that takes everything and remembers it.
#[derive(Default)]
struct Takes(Mutex<Vec<MessageId>>);

#[async_trait]
impl Channel for Takes {
    fn deduplicates(&self) -> bool {
        false
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        self.0.lock().expect("no panic").push(outgoing.message);
        Outcome::Accepted { provider_id: "p".into() }
    }
}

pub struct Shop {
    _directory: Option<tempfile::TempDir>,
    path: PathBuf,
    pub store: Arc<SqliteStore>,
    rules: Arc<RuleVersions>,
    sent: Arc<Takes>,
}

impl Shop {
    pub async fn open(book: &Rulebook) -> Shop {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("shop.db");
        let store = Shop::store(&path).await;
        let set = book.set().expect("sound rules");
        store.publish_rules(book.publication(&set, start().plus_ms(-30 * DAY_MS), "tests", "first")).await.expect("published");
        store.finish_first_looks().await.expect("first looks");
        store.close().await;
        Shop { _directory: Some(directory), ..Shop::at(book, &path).await }
    }

    /// On a database that has these rules.
    pub async fn at(book: &Rulebook, path: &Path) -> Shop {
        let (path, store) = (path.to_owned(), Arc::new(Shop::store(path).await));
        let rules = Arc::new(RuleVersions::new(book.set().expect("sound rules"), book.templates()));
        Shop { _directory: None, path, store, rules, sent: Arc::default() }
    }

    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub fn sent(&self) -> usize {
        self.sent.0.lock().expect("no panic").len()
    }

    pub async fn states(&self, user: &str) -> Vec<MessageState> {
        let id = self.store.find_profile(&Identity::User(user.into())).await.expect("read").expect("known");
        self.store.history(id).await.expect("read").messages.iter().map(|row| row.state).collect()
    }

    async fn store(path: &Path) -> SqliteStore {
        // so few ids in memory that the tables are asked
        let options = Options { durability: Durability::Process, readers: 1, recent_ids_max: 2, ..Options::new(path, "test") };
        SqliteStore::open_with(options).await.expect("a database")
    }

    async fn restart(self) -> Shop {
        let Shop { _directory, path, store, rules, sent } = self;
        Arc::into_inner(store).expect("nobody else holds the store").close().await;
        let store = Arc::new(Shop::store(&path).await);
        Shop { _directory, path, store, rules, sent }
    }

    /// Decides about whoever is due; how many that were.
    pub async fn evaluate(&self, now: Timestamp) -> u64 {
        let evaluator = Evaluator { store: self.store.clone(), rules: self.rules.clone(), worker: "w".into() };
        evaluate::run_once(&evaluator, Look::Now(now), 100).await.expect("a pass").claimed
    }

    /// Decides and sends until nothing is due.
    pub async fn work(&self, now: Timestamp) {
        let sent: Arc<dyn Channel> = self.sent.clone();
        let channels = Channels::fixed([(Kind::Email, sent)].into());
        let dispatcher = Dispatcher::new(self.store.clone(), self.rules.clone(), channels, "w".into());
        loop {
            let looked = self.evaluate(now).await;
            let sent = dispatch::run_once(&dispatcher, Look::Now(now), 100).await.expect("a pass").claimed;
            if looked + sent == 0 {
                return;
            }
        }
    }

    pub async fn append(&self, event: Event, user: &str) -> (u64, u64) {
        let new = NewEvent { identity: Identity::User(user.into()), link: None, event, active: true };
        let appended = self.store.append_events(vec![new]).await.expect("appended");
        (appended.new, appended.duplicates)
    }

    async fn walk(&self, now: Timestamp, cutoffs: Cutoffs, is_dry: bool) -> Report {
        let walk = Walk { store: &*self.store, cutoffs, at: now, is_dry, breath: Duration::ZERO };
        walk.pass(&mut None, usize::MAX).await.expect("a pass")
    }

    /// Everything that is decided on, of everybody, and when they are due next.
    async fn state(&self) -> String {
        let page = self.store.profiles(None, 100).await.expect("read");
        let mut text = String::new();
        for stored in page.profiles {
            let history = self.store.history(stored.id).await.expect("read");
            let (postings, exposures) = (history.postings, history.exposures);
            text += &format!("{:?}\n{}\n{postings:?}\n{exposures:?}\n", stored.profile, stored.due_at);
        }
        format!("{text}{:?}", self.sent.0.lock().expect("no panic"))
    }

    pub fn doctor(&self) -> String {
        let out = rekindle().args(["doctor", "--db"]).arg(&self.path).output().expect("it runs");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
        said
    }
}

pub fn event(id: &str, kind: EventKind, name: &str, properties: Json, occurred_at: Timestamp, received_at: Timestamp) -> Event {
    let Json::Object(properties) = properties else { panic!("properties are an object") };
    Event { id: id.into(), kind, name: name.into(), occurred_at, received_at, source: "shop".into(), properties }
}

/// Who, what, at which hour of the day, how many days late.
type Deed = (usize, u8, i64, i64);

fn deed(number: usize, day: i64, (_, what, hour, late): Deed) -> Event {
    let received = start().plus_ms(day * DAY_MS + hour * HOUR_MS);
    let occurred = received.plus_ms(-late * DAY_MS);
    let consent = |granted: bool| json!({ "purpose": "marketing", "channel": "email", "granted": granted, "basis": "opt_in" });
    let (kind, name, properties) = match what {
        0 | 1 => {
            let order = json!({ "order_id": number.to_string(), "total": 5 + number, "currency": "EUR" });
            (EventKind::Track, "Order Completed", order)
        }
        2 => (EventKind::Consent, "", consent(true)),
        3 => (EventKind::Consent, "", consent(false)),
        4 => (EventKind::Engine, "unsubscribed", json!({ "channel": "email" })),
        5 => (EventKind::Identify, "", json!({ "country": if number.is_multiple_of(2) { "DE" } else { "FR" } })),
        _ => (EventKind::Track, "Session Started", json!({})),
    };
    event(&format!("e{number}"), kind, name, properties, occurred, received)
}

const USERS: [&str; 2] = ["ana", "ben"];

/// A month in two shops with the same customers; in one of them nothing is kept for longer than a few days.
async fn a_month(book: &Rulebook, days: &[Vec<Deed>], kept_days: i64) -> (Shop, Shop) {
    let (keeping, mut removing) = (Shop::open(book).await, Shop::open(book).await);
    for user in USERS {
        let traits = json!({ "email": format!("{user}@post.example") });
        let (first, consent) = (start().plus_ms(-2), json!({ "purpose": "marketing", "channel": "email", "granted": true }));
        for shop in [&keeping, &removing] {
            shop.append(event(&format!("i-{user}"), EventKind::Identify, "", traits.clone(), first, first), user).await;
            shop.append(event(&format!("c-{user}"), EventKind::Consent, "", consent.clone(), first, first), user).await;
        }
    }
    let mut told: Vec<(Event, &str)> = Vec::new();
    for (day, deeds) in days.iter().enumerate() {
        let day = day as i64;
        for what in deeds {
            let event = deed(told.len(), day, *what);
            let (now, user) = (event.received_at, USERS[what.0]);
            // what was told long ago is told again
            let again = told.get(told.len() / 3).cloned().unwrap_or_else(|| (event.clone(), user));
            told.push((event.clone(), user));
            for shop in [&keeping, &removing] {
                shop.append(event.clone(), user).await;
                shop.work(now).await;
            }
            let again = (Event { received_at: now, ..again.0 }, again.1);
            assert_eq!(keeping.append(again.0.clone(), again.1).await, (0, 1));
            assert_eq!(removing.append(again.0, again.1).await, (0, 1), "a removed fact is known all the same");
        }
        let night = start().plus_ms(day * DAY_MS + 23 * HOUR_MS);
        for shop in [&keeping, &removing] {
            shop.work(night).await;
        }
        let before = Some(night.plus_ms(-kept_days * DAY_MS));
        let cutoffs = Cutoffs { events: before, messages: before, decisions: before, ..Cutoffs::default() };
        let planned = removing.walk(night, cutoffs, true).await;
        assert_eq!(planned, removing.walk(night, cutoffs, false).await, "what is announced is what goes");
        assert_eq!(removing.walk(night, cutoffs, false).await, Report::default(), "a second pass finds nothing more");
        if day % 9 == 8 {
            removing = removing.restart().await;
        }
    }
    (keeping, removing)
}

#[test]
fn promise_i14_what_is_removed_changes_no_decision_to_come() {
    let (book, runtime) = (book(), tokio::runtime::Runtime::new().expect("a runtime"));
    let config = ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() };
    let deeds = prop::collection::vec((0..2usize, 0u8..12, 0i64..22, prop_oneof![3 => Just(0i64), 1 => 1i64..6]), 0..3);
    proptest!(config, |(days in prop::collection::vec(deeds, 20..36), kept_days in 1i64..6)| {
        let days: Vec<Vec<Deed>> = days.into_iter().map(|mut day| { day.sort_by_key(|deed| deed.2); day }).collect();
        runtime.block_on(async {
            let (keeping, removing) = a_month(&book, &days, kept_days).await;
            prop_assert_eq!(keeping.state().await, removing.state().await);
            removing.doctor();
            Ok(())
        })?;
    });
}

/// A busy month, so that the test above cannot pass because nothing ever happens.
#[tokio::test]
async fn a_month_leaves_only_what_is_young_or_needed() {
    let busy: Vec<Vec<Deed>> =
        (0..30).map(|day| if day % 15 < 5 { vec![(0, 0, 1, 0), (1, 9, 2, 0), (0, 9, 3, 0)] } else { vec![] }).collect();
    let (keeping, removing) = a_month(&book(), &busy, 3).await;
    assert_eq!(keeping.state().await, removing.state().await);
    let (all, left) = (keeping.store.counts().await.expect("counts"), removing.store.counts().await.expect("counts"));
    assert!(all.events > 40 && left.events < all.events / 3, "{} of {}", left.events, all.events);
    assert!(all.attempts > 4 && left.attempts < all.attempts, "{} of {}", left.attempts, all.attempts);
    assert_eq!((&all.postings, &all.exposures), (&left.postings, &left.exposures));
    let kinds: Vec<Kept> = removing.store.removals(100).await.expect("read").iter().map(|row| row.kind).collect();
    for kind in [Kept::Events, Kept::Messages, Kept::Decisions] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    let days =
        |days: Vec<(Kind, Timestamp, u64)>| days.into_iter().map(|(channel, day, sent)| (channel.name(), day, sent)).collect::<Vec<_>>();
    let (sent, still) = (keeping.store.days_sent().await.expect("read"), removing.store.days_sent().await.expect("read"));
    assert_eq!(days(sent), days(still), "warm-ups count on");
    let takes: Vec<MessageId> = {
        let ana = removing.store.find_profile(&Identity::User("ana".into())).await.expect("read").expect("known");
        removing.store.history(ana).await.expect("read").postings.iter().filter_map(|posting| posting.notice).collect()
    };
    assert!(!takes.is_empty(), "points were taken");
    assert_eq!(removing.store.messages(&takes).await.expect("read").len(), takes.len(), "their notices stay");
    assert!(removing.doctor().contains("note: the retention schedule removed"));
}

/// A refusal is kept whatever its age; a visitor's deeds wait for their name.
#[tokio::test]
async fn what_a_merge_must_hear_stays() {
    let shop = Shop::open(&book()).await;
    let at = start();
    let seen = |id: &str, name: &str| NewEvent {
        identity: Identity::Anonymous("phone".into()),
        link: None,
        event: event(id, EventKind::Track, name, json!({}), at, at),
        active: true,
    };
    shop.store.append_events(vec![seen("a", "Session Started"), seen("b", "Session Started")]).await.expect("appended");
    shop.append(event("c", EventKind::Engine, "unsubscribed", json!({ "channel": "email" }), at, at), "ana").await;
    shop.append(event("d", EventKind::Track, "Session Started", json!({}), at, at), "ana").await;
    shop.work(at).await;
    let later = at.plus_ms(50 * DAY_MS);
    let cutoffs = Cutoffs { events: Some(later.plus_ms(-DAY_MS)), ..Cutoffs::default() };
    assert_eq!(shop.walk(later, cutoffs, false).await.events, 1, "the one session of somebody known");
    let both = event("e", EventKind::Identify, "", json!({}), later, later);
    let (identity, link) = (Identity::User("ana".into()), Some(Link::Anonymous("phone".into())));
    shop.store.append_events(vec![NewEvent { identity, link, event: both, active: false }]).await.expect("appended");
    shop.work(later).await;
    let ana = shop.store.find_profile(&Identity::User("ana".into())).await.expect("read").expect("known");
    let profile = shop.store.profile(ana).await.expect("read").expect("there").profile;
    assert_eq!(profile.features.get("sessions_ever").map(|series| series.count_ever()), Some(3));
    assert!(profile.consents.values().any(|consent| !consent.granted));
}

#[tokio::test]
async fn rejects_and_people_who_are_long_gone_go_and_may_come_back() {
    let shop = Shop::open(&book()).await;
    let at = start();
    let reject = |row: &str, at| Reject { source: "shop".into(), reason: "no `type`".into(), row: row.into(), at };
    let later = at.plus_ms(400 * DAY_MS);
    shop.store.keep_rejects(vec![reject("{}", at), reject("[]", later)]).await.expect("kept");
    for (user, when) in [("ana", at), ("ben", later)] {
        shop.append(event(&format!("i-{user}"), EventKind::Identify, "", json!({ "email": "a@post.example" }), when, when), user).await;
        shop.append(event(&format!("s-{user}"), EventKind::Track, "Session Started", json!({}), when, when), user).await;
    }
    // somebody who has points is not gone
    let order = json!({ "order_id": "1", "total": 20, "currency": "EUR" });
    shop.append(event("o", EventKind::Track, "Order Completed", order, at, at), "cleo").await;
    for day in 0..400 {
        shop.work(at.plus_ms(day * DAY_MS)).await;
    }
    shop.work(later).await;
    let before = Some(later.plus_ms(-200 * DAY_MS));
    let report = shop.walk(later, Cutoffs { people: before, rejects: before, ..Cutoffs::default() }, false).await;
    assert_eq!((report.people, report.rejects), (1, 1));
    let find = async |user: &str| shop.store.find_profile(&Identity::User(user.into())).await;
    assert_eq!(find("ana").await.expect("read"), None);
    assert!(find("ben").await.expect("read").is_some() && find("cleo").await.expect("read").is_some());
    assert!(shop.store.suppressions(Kind::Email, "a@post.example").await.expect("read").is_empty(), "no address is closed");
    shop.append(event("back", EventKind::Track, "Session Started", json!({}), later, later), "ana").await;
    assert_eq!(find("ana").await.expect("read"), None, "known at the instant of the erasure");
    let tomorrow = later.plus_ms(DAY_MS);
    shop.append(event("again", EventKind::Track, "Session Started", json!({}), tomorrow, tomorrow), "ana").await;
    assert!(find("ana").await.expect("read").is_some());
}

/// The real binary over a part of the real year: everything in it is old.
#[tokio::test]
async fn the_command_removes_lists_and_leaves_a_sound_database() {
    let scratch = tempfile::tempdir().expect("a directory");
    let part = part_of_the_year(60, "2011-07");
    let events = write(scratch.path(), "part.ndjson", &part);
    let dir = scratch.path().join("demo");
    summary_of(&dir, &events, &[]);
    let database = dir.join("rekindle.db");
    let settings =
        format!("database: {{ path: {} }}\nretention: {{ events_days: 30, messages_days: 90, decisions_days: 30 }}\n", database.display());
    let config = write(scratch.path(), "rekindle.yaml", &settings);
    let retain = |more: &[&str]| {
        let out = rekindle().args(["retain", "--format", "json", "--config"]).arg(&config).args(more).output().expect("it runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice::<Json>(&out.stdout).expect("JSON")
    };
    let (planned, done) = (retain(&["--dry-run"]), retain(&[]));
    assert_eq!(planned["removed"], done["removed"]);
    assert!(done["removed"]["events"].as_u64().is_some_and(|events| events > 100), "{done}");
    assert!(retain(&["--list"]).as_array().is_some_and(|rows| rows.len() >= 3));
    let out = rekindle().args(["doctor", "--dir"]).arg(&dir).output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let again =
        rekindle().args(["import", "--format", "json", "--source", "shop", "--db"]).args([&database, &events]).output().expect("it runs");
    let again: Json = serde_json::from_slice(&again.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&again.stderr)));
    assert_eq!((again["new"].as_u64(), again["people_created"].as_u64()), (Some(0), Some(0)), "{again}");
}
