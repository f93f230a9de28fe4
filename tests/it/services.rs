//! Evaluate and dispatch against a real database and a scripted provider: what becomes of a message, whatever the provider answers and
//! whenever the process dies.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekindle::audit::{self, Auditor};
use rekindle::channel::{Channel, Channels, Outcome, Outgoing, Receipt, RetryClass};
use rekindle::clock::VirtualClock;
use rekindle::console::Console;
use rekindle::console::control::{self, Reply, Request, Scope};
use rekindle::dispatch::{self, Dispatcher};
use rekindle::engine::action::{Channel as Kind, MessageId, MessageState, Outcome as Fact, What};
use rekindle::engine::decide::Pause;
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::profile::{Name, Profile, Run, RunOutcome};
use rekindle::engine::rule::RuleSet;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::rulebook::Rulebook;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{
    Identity, IntentCommit, IntentStep, Look, MessageIntent, MessageResult, MessageRow, NewEvent, PauseScope, ProfileId, Publication,
    PublishedRule, ResultKind, Store,
};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use rekindle::versions::publisher::Publisher;
use serde_json::json;
use tokio::sync::{Notify, watch};

const RULES: &str = r#"
rekindle: 1
events:
  signed_up:  { name: "Signed Up", active: true }
  was_thanked: { name: "Was Thanked" }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: { basis: opt_in }, service: always, transactional: always }
  categories: { default: marketing, marketing: { max_late: 24h }, service: { max_late: 72h }, transactional: { max_late: 4d } }
  caps:
    - { id: week, per: user, max: 1, window: 7d, categories: [marketing] }
rules:
  - id: hello
    name: Greet who signs up
    owner: tests
    event: signed_up
    reentry: { after: 1m }
    max_entries: 3
    steps:
      - id: greet
        send: { template: hello, channels: [sms, email] }
  - id: thanks
    name: Thank by name
    owner: tests
    event: was_thanked
    reentry: { after: 1m }
    stop_on: { event: signed_up }
    steps:
      - id: thank
        send: { template: by-name, channels: [sms], category: transactional }
"#;

const TEMPLATES: [(&str, &str); 6] = [
    ("hello/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing }"),
    ("hello/en/sms.liquid", "Hello!"),
    ("hello/en/subject.liquid", "Hello"),
    ("hello/en/text.liquid", "Hello!"),
    ("by-name/template.yaml", "rekindle: 1\ntemplate: { purpose: transactional }"),
    ("by-name/en/sms.liquid", "Thank you, {{ event.name }}."),
];

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an instant")
}

pub fn start() -> Timestamp {
    at("2026-03-02T10:00:00Z")
}

/// A provider that answers what it is told to, `accepted` beyond that, and remembers what it was given.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Outcome>>,
    sent: Mutex<Vec<(MessageId, u32)>>,
    deduplicates: bool,
    called: Notify,
}

impl Scripted {
    fn sent(&self) -> Vec<(MessageId, u32)> {
        self.sent.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl Channel for Scripted {
    fn deduplicates(&self) -> bool {
        self.deduplicates
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        self.sent.lock().expect("no panic").push((outgoing.message, outgoing.attempt));
        self.called.notify_one();
        let next = self.answers.lock().expect("no panic").pop_front();
        next.unwrap_or(Outcome::Accepted { provider_id: "p1".into() })
    }
}

/// A shop with one rule that greets by text message, else by e-mail.
pub struct Shop {
    directory: tempfile::TempDir,
    pub store: Arc<SqliteStore>,
    rules: Arc<RuleVersions>,
    sms: Arc<Scripted>,
    email: Arc<Scripted>,
}

/// The rules and templates of this file as a rules directory would hold them.
fn rulebook() -> Rulebook {
    rulebook_of(RULES)
}

fn rulebook_of(rules: &str) -> Rulebook {
    let templates = TEMPLATES.iter().map(|(path, text)| (format!("templates/{path}"), text.to_string()));
    let texts = std::iter::once(("rules.yaml".to_owned(), rules.to_owned())).chain(templates);
    let book = Rulebook::of(texts.map(|(path, text)| SourceFile { path: path.into(), text: text.into() }).collect());
    assert!(book.set().is_some(), "{}", book.render_errors());
    book
}

impl Shop {
    pub async fn open() -> Shop {
        Shop::open_with(Scripted::default()).await
    }

    async fn open_with(sms: Scripted) -> Shop {
        Shop::open_by(sms, rulebook()).await
    }

    async fn open_by(sms: Scripted, book: Rulebook) -> Shop {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("shop.db"), "test").await.expect("a database");
        let set = book.set().expect("sound rules");
        let texts = book.sources().iter().map(|source| (source.path.to_string(), source.text.to_string())).collect();
        let rules = set.rules.iter().map(|rule| PublishedRule { id: rule.id.clone(), when_hash: rule.when_hash, hash: rule.hash });
        let publication = Publication {
            version: set.version,
            at: start().plus_ms(-30 * DAY_MS),
            by: "tests".into(),
            why: "first".into(),
            rules: rules.collect(),
            texts,
            spread_ms: 0,
            files: None,
            is_rollback: false,
        };
        store.publish_rules(publication).await.expect("a first publication");
        store.finish_first_looks().await.expect("first looks");
        let rules = Arc::new(RuleVersions::new(set, book.templates()));
        Shop { directory, store: Arc::new(store), rules, sms: Arc::new(sms), email: Arc::default() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("shop.db")
    }

    /// The process dies and another begins: leases are void, what was `sending` is in doubt.
    pub async fn restart(self) -> Shop {
        let path = self.path();
        let Shop { directory, store, rules, sms, email } = self;
        Arc::into_inner(store).expect("nobody else holds the store").close().await;
        let store = Arc::new(SqliteStore::open(&path, "test").await.expect("the same database"));
        Shop { directory, store, rules, sms, email }
    }

    pub fn evaluator(&self) -> Evaluator {
        Evaluator { store: self.store.clone(), rules: self.rules.clone(), worker: "w1".into() }
    }

    pub fn dispatcher(&self) -> Dispatcher {
        let sms: Arc<dyn Channel> = self.sms.clone();
        let email: Arc<dyn Channel> = self.email.clone();
        let channels = BTreeMap::from([(Kind::Sms, sms), (Kind::Email, email)]);
        Dispatcher::new(self.store.clone(), self.rules.clone(), Channels::fixed(channels), "w1".into())
    }

    pub async fn evaluate(&self, now: Timestamp) -> evaluate::Pass {
        evaluate::run_once(&self.evaluator(), Look::Now(now), 100).await.expect("a pass")
    }

    pub async fn dispatch(&self, now: Timestamp) -> dispatch::Pass {
        dispatch::run_once(&self.dispatcher(), Look::Now(now), 100).await.expect("a pass")
    }

    pub async fn append(&self, user: &str, kind: EventKind, name: &str, properties: serde_json::Value, at: Timestamp) {
        let serde_json::Value::Object(properties) = properties else { panic!("properties are an object") };
        let event = Event {
            id: Arc::from(format!("{user}-{name}-{}", at.as_ms())),
            kind,
            name: Arc::from(name),
            occurred_at: at,
            received_at: at,
            source: "shop".into(),
            properties,
        };
        let new = NewEvent { identity: Identity::User(user.into()), link: None, event, active: name == "Signed Up" };
        self.store.append_events(vec![new]).await.expect("an acknowledged event");
    }

    /// A sign-up with an id of its own.
    async fn append_as(&self, id: &str, user: &str, at: Timestamp) {
        let (id, name, properties) = (Arc::from(id), "Signed Up".into(), serde_json::Map::new());
        let event = Event { id, kind: EventKind::Track, name, occurred_at: at, received_at: at, source: "shop".into(), properties };
        let new = NewEvent { identity: Identity::User(user.into()), link: None, event, active: true };
        self.store.append_events(vec![new]).await.expect("an acknowledged event");
    }

    /// A person who may be reached by text message and e-mail.
    pub async fn meet(&self, user: &str) {
        let before = start().plus_ms(-DAY_MS);
        let traits = json!({ "phone": "+441632960001", "email": format!("{user}@post.example") });
        self.append(user, EventKind::Identify, "", traits, before).await;
        for channel in ["sms", "email"] {
            let consent = json!({ "purpose": "marketing", "channel": channel, "granted": true, "basis": "opt_in" });
            let at = before.plus_ms(if channel == "sms" { 1 } else { 2 });
            self.append(user, EventKind::Consent, "", consent, at).await;
        }
        self.evaluate(before.plus_ms(10)).await;
    }

    pub async fn sign_up(&self, user: &str, at: Timestamp) {
        self.append(user, EventKind::Track, "Signed Up", json!({}), at).await;
    }

    pub async fn id(&self, user: &str) -> ProfileId {
        self.store.find_profile(&Identity::User(user.into())).await.expect("a read").expect("a person")
    }

    pub async fn messages(&self, user: &str) -> Vec<MessageRow> {
        let id = self.id(user).await;
        self.store.history(id).await.expect("a history").messages
    }

    /// Channel and state of each message of the person, in order of time.
    pub async fn states(&self, user: &str) -> Vec<(Kind, MessageState)> {
        self.messages(user).await.into_iter().map(|row| (row.message.channel, row.state)).collect()
    }

    pub async fn profile(&self, user: &str) -> Profile {
        let id = self.id(user).await;
        self.store.profile(id).await.expect("a read").expect("a profile").profile
    }

    pub async fn slots(&self, user: &str) -> usize {
        self.profile(user).await.slots.len()
    }
}

fn rejected(suppress: bool) -> Outcome {
    Outcome::Rejected { suppress, detail: "550".into() }
}

fn ambiguous(ask_again: bool) -> Outcome {
    Outcome::Ambiguous { ask_again, detail: "cut off".into() }
}

fn busy(class: RetryClass) -> Outcome {
    Outcome::Retry { class, after_ms: None, detail: "451".into() }
}

/// One sign-up, evaluated and dispatched with that answer.
async fn greeted(answer: Outcome) -> Shop {
    let shop = Shop::open_with(Scripted { answers: Mutex::new([answer].into()), ..Scripted::default() }).await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    let pass = shop.evaluate(start()).await;
    assert_eq!((pass.entered, pass.messages), (1, 1), "{pass}");
    shop.dispatch(start()).await;
    shop
}

/// The shop with two text message providers in a pool, and a policy that says so.
struct Pool {
    shop: Shop,
    second: Arc<Scripted>,
    dispatcher: Dispatcher,
}

impl Pool {
    /// `channel`: what the policy says of text messages beside the provider.
    async fn open(first: Scripted, channel: &str) -> Pool {
        let policy = format!("  channels: {{ sms: {{ provider: texts{channel} }} }}\nrules:\n");
        let text = RULES.replacen("rules:\n", &policy, 1).replace("max_entries: 3", "max_entries: 1000");
        let shop = Shop::open_by(first, rulebook_of(&text)).await;
        let second = Arc::new(Scripted::default());
        let (one, two): (Arc<dyn Channel>, Arc<dyn Channel>) = (shop.sms.clone(), second.clone());
        let names: Vec<Name> = vec!["one".into(), "two".into()];
        let providers = names.iter().cloned().zip([one, two]).collect();
        let channels = Channels::named(providers, BTreeMap::from([("texts".into(), names)]));
        let dispatcher = Dispatcher::new(shop.store.clone(), shop.rules.clone(), channels, "w1".into());
        Pool { shop, second, dispatcher }
    }

    /// So many people sign up and are decided about.
    async fn sign_up(&self, people: std::ops::Range<usize>, at: Timestamp) {
        for n in people {
            self.shop.meet(&format!("u{n}")).await;
            self.shop.sign_up(&format!("u{n}"), at).await;
        }
        self.shop.evaluate(at).await;
    }

    async fn dispatch(&self, now: Timestamp) -> dispatch::Pass {
        dispatch::run_once(&self.dispatcher, Look::Now(now), 100).await.expect("a pass")
    }

    fn sent(&self) -> (usize, usize) {
        (self.shop.sms.sent().len(), self.second.sent().len())
    }
}

fn answers(answers: impl IntoIterator<Item = Outcome>) -> Scripted {
    Scripted { answers: Mutex::new(answers.into_iter().collect()), ..Scripted::default() }
}

#[tokio::test]
async fn the_next_of_a_pool_is_tried_only_after_a_definite_failure() {
    for (answer, second, state) in [
        (busy(RetryClass::Transient), 1, MessageState::Accepted),
        (busy(RetryClass::Config), 1, MessageState::Accepted),
        // somebody else would refuse it, too
        (rejected(false), 0, MessageState::Failed),
        // it may have gone out already
        (ambiguous(true), 0, MessageState::Unknown),
    ] {
        let pool = Pool::open(answers([answer.clone()]), "").await;
        pool.sign_up(0..1, start()).await;
        pool.dispatch(start()).await;
        assert_eq!(pool.sent(), (1, second), "{answer:?}");
        assert_eq!(pool.shop.states("u0").await, [(Kind::Sms, state)], "{answer:?}");
    }
}

#[tokio::test]
async fn a_provider_out_of_order_holds_its_messages_and_fails_none() {
    let down = || (0..20).map(|_| busy(RetryClass::Transient)).chain([busy(RetryClass::Config)]);
    // with a second one, everything goes by that, and the first is hardly asked any more
    let pool = Pool::open(answers(down()), "").await;
    for n in 0..12 {
        pool.sign_up(n..n + 1, start().plus_ms(n as i64)).await;
        pool.dispatch(start().plus_ms(n as i64)).await;
    }
    assert_eq!(pool.sent(), (6, 12), "six failures in a row, then it is left alone");

    // both refuse our account: nothing fails, nothing is spent, all wait with the reason
    let pool = Pool::open(answers([busy(RetryClass::Config)]), "").await;
    pool.second.answers.lock().expect("no panic").push_back(busy(RetryClass::Config));
    pool.sign_up(0..3, start()).await;
    pool.dispatch(start()).await;
    let sent = pool.sent();
    let later = start().plus_ms(5_000);
    pool.sign_up(3..5, later).await;
    let pass = pool.dispatch(later).await;
    assert_eq!((pass.held, pass.attempts, pool.sent()), (2, 0, sent), "{pass}");
    let row = pool.shop.messages("u4").await.remove(0);
    assert_eq!((row.state, row.attempts.len()), (MessageState::Queued, 0));
    assert!(row.because.as_deref().is_some_and(|because| because.contains("out of order")), "{:?}", row.because);
    assert_eq!(pool.shop.slots("u4").await, 1, "it keeps its slot");
    // a minute later one probe goes; it works, and the others follow
    let mut now = later;
    for _ in 0..8 {
        now = now.plus_ms(MINUTE_MS + 1_000);
        pool.dispatch(now).await;
    }
    for n in 0..5 {
        assert_eq!(pool.shop.states(&format!("u{n}")).await, [(Kind::Sms, MessageState::Accepted)], "u{n}");
    }
}

#[tokio::test]
async fn the_policys_rate_is_kept_and_a_providers_word_for_how_long() {
    let pool = Pool::open(Scripted::default(), ", rate: 3/s").await;
    pool.sign_up(0..10, start()).await;
    let mut per_second = Vec::new();
    for second in 0..5 {
        per_second.push(pool.dispatch(start().plus_ms(second * 1_000)).await.accepted);
    }
    assert_eq!(per_second, [3, 3, 3, 1, 0]);
    let entries = pool.shop.store.entries(0, 1_000).await.expect("a read");
    assert!(entries.iter().all(|row| row.entry.what != What::Held), "a provider's rate is no decision about a person");

    let wait = Outcome::Retry { class: RetryClass::Throttle, after_ms: Some(30_000), detail: "429".into() };
    let pool = Pool::open(answers([wait.clone()]), "").await;
    pool.second.answers.lock().expect("no panic").push_back(wait);
    pool.sign_up(0..1, start()).await;
    pool.dispatch(start()).await;
    pool.sign_up(1..2, start().plus_ms(10)).await;
    let pass = pool.dispatch(start().plus_ms(10)).await;
    assert_eq!((pass.held, pass.attempts), (1, 0), "nobody is sent to a provider that asked us to wait: {pass}");
    let pass = pool.dispatch(start().plus_ms(30_010)).await;
    assert_eq!(pass.accepted, 2, "{pass}");
}

#[tokio::test]
async fn a_warm_up_goes_on_after_a_restart() {
    let mut pool = Pool::open(Scripted::default(), ", warm_up: { start: 4/d, grow: 50% }").await;
    pool.sign_up(0..12, start()).await;
    assert_eq!(pool.dispatch(start()).await.accepted, 4);
    let days = pool.shop.store.days_sent().await.expect("a read");
    assert_eq!(days, [(Kind::Sms, at("2026-03-02T00:00:00Z"), 4)]);

    // the process dies and another begins: it knows what went out today, and since when the provider is in use
    let channels = pool.dispatcher.channels.clone();
    pool.dispatcher = Dispatcher::new(pool.shop.store.clone(), pool.shop.rules.clone(), channels, "w2".into());
    pool.dispatcher.traffic.remember(&pool.shop.rules.snapshot().rules.policy, &days);
    pool.sign_up(12..13, start().plus_ms(1)).await;
    assert_eq!(pool.dispatch(start().plus_ms(1)).await.accepted, 0);
    let tomorrow = at("2026-03-03T00:00:00Z");
    assert_eq!(pool.dispatch(tomorrow).await.accepted, 6, "half as much again");
}

#[tokio::test]
async fn the_policys_retries_end_a_message_that_a_broken_connection_keeps_back() {
    let pool = Pool::open(answers((0..4).map(|_| busy(RetryClass::Transient))), ", retries: 1").await;
    pool.second.answers.lock().expect("no panic").extend((0..4).map(|_| busy(RetryClass::Transient)));
    pool.sign_up(0..1, start()).await;
    pool.dispatch(start()).await;
    pool.dispatch(start().plus_ms(HOUR_MS)).await;
    assert_eq!(pool.shop.messages("u0").await.remove(0).state, MessageState::Dead, "two attempts");
}

/// Every person's stored state against the facts on record: what is wrong.
async fn audited(shop: &Shop, now: Timestamp) -> Vec<(ProfileId, audit::Finding)> {
    let auditor = Auditor { store: shop.store.clone(), rules: shop.rules.clone(), clock: Arc::new(VirtualClock::at(now)) };
    audit::run_once(&auditor, None, 10).await.expect("a pass").findings
}

#[tokio::test]
async fn a_run_that_gives_up_its_place_calls_its_queued_message_back_and_a_rule_in_shadow_only_says_so() {
    let more = r#"
  - id: again
    owner: tests
    event: signed_up
    while_running: restart
    steps:
      - { id: greet, send: { template: hello, channels: [sms] } }
      - { id: later, after: 5d, send: { template: hello, channels: [email] } }
  - id: again-in-shadow
    owner: tests
    mode: shadow
    event: signed_up
    while_running: restart
    steps:
      - { id: greet, send: { template: hello, channels: [sms] } }
      - { id: later, after: 5d, send: { template: hello, channels: [email] } }
"#;
    let caps = RULES.find("  caps:").expect("caps");
    let shop = Shop::open_by(Scripted::default(), rulebook_of(&format!("{}rules:{more}", &RULES[..caps]))).await;
    shop.meet("anna").await;
    for minute in [0, 1] {
        let now = start().plus_ms(minute * MINUTE_MS);
        shop.sign_up("anna", now).await;
        shop.evaluate(now).await;
        assert_eq!(audited(&shop, now).await, []);
    }
    // nothing had left yet: the first run's message is called back, the second one's goes
    let states = |messages: Vec<MessageRow>| messages.into_iter().map(|row| (row.message.run, row.state)).collect::<Vec<_>>();
    assert_eq!(states(shop.messages("anna").await), [(1, MessageState::Cancelled), (2, MessageState::Queued)]);
    shop.dispatch(start().plus_ms(MINUTE_MS)).await;
    // it has gone: the third run does not send it again, and its own clock begins now
    let third = start().plus_ms(HOUR_MS);
    shop.sign_up("anna", third).await;
    shop.evaluate(third).await;
    let shop = shop.restart().await;
    for hour in [5 * 24, 5 * 24 + 1] {
        let now = start().plus_ms(hour * HOUR_MS);
        shop.evaluate(now).await;
        shop.dispatch(now).await;
        assert_eq!(audited(&shop, now).await, []);
    }
    let accepted = [(1, MessageState::Cancelled), (2, MessageState::Accepted), (3, MessageState::Accepted)];
    assert_eq!(states(shop.messages("anna").await), accepted);
    assert_eq!((shop.sms.sent().len(), shop.email.sent().len()), (1, 1));

    let history = shop.store.history(shop.id("anna").await).await.expect("a history");
    let shadowed = history.entries.iter().filter(|row| row.entry.what == What::Shadowed);
    let said: Vec<String> = shadowed.map(|row| format!("{} {}: {}", row.entry.rule, row.entry.step, row.entry.because)).collect();
    assert_eq!(said, ["again-in-shadow@shadow greet: would send hello by sms", "again-in-shadow@shadow later: would send hello by email"]);
    let sides: Vec<(&str, u32, bool)> = history.exposures.iter().map(|side| (&*side.rule, side.run, side.held_out)).collect();
    assert_eq!(sides, [("again", 1, false), ("again", 2, false), ("again", 3, false)], "nobody is measured in shadow");
}

#[tokio::test]
async fn a_rung_that_goes_calls_back_what_the_one_before_has_waiting() {
    let ladder = r#"
  - id: ladder
    owner: tests
    event: was_thanked
    max_late: 5d
    steps:
      - { id: tell, send: { template: hello, ladder: [{ channel: sms }, { channel: email, after: 1d, unless: delivered }] } }
"#;
    let caps = RULES.find("  caps:").expect("caps");
    let shop = Shop::open_by(Scripted::default(), rulebook_of(&format!("{}rules:{ladder}", &RULES[..caps]))).await;
    shop.meet("anna").await;
    shop.append("anna", EventKind::Track, "Was Thanked", json!({}), start()).await;
    shop.evaluate(start()).await;
    assert_eq!(audited(&shop, start()).await, []);
    // nobody dispatches for a day: the text message still waits as the e-mail has its turn
    let next_day = start().plus_ms(DAY_MS);
    shop.evaluate(next_day).await;
    assert_eq!(shop.states("anna").await, [(Kind::Sms, MessageState::Cancelled), (Kind::Email, MessageState::Queued)]);
    shop.dispatch(next_day).await;
    assert_eq!((shop.sms.sent().len(), shop.email.sent().len()), (0, 1));
    assert_eq!(audited(&shop, next_day.plus_ms(1)).await, []);
}

/// Two rules that greet with one template, as a copied rule does.
fn greeted_twice(duplicates: &str) -> Rulebook {
    let again = r#"
  - id: hello-again
    owner: tests
    event: signed_up
    reentry: { after: 1m }
    steps:
      - id: greet
        send: { template: hello, channels: [sms, email], data: { } }
"#;
    let caps = RULES.find("  caps:").expect("caps");
    let rules = RULES.find("rules:\n").expect("rules");
    rulebook_of(&format!("{}{duplicates}{}{again}", &RULES[..caps], &RULES[rules..]))
}

#[tokio::test]
async fn the_same_text_goes_once_to_a_person_within_the_span() {
    for (duplicates, answers, expected) in [
        ("", vec![], [MessageState::Accepted, MessageState::Accepted]),
        ("  duplicates: { within: 24h }\n", vec![], [MessageState::Accepted, MessageState::Cancelled]),
        // nobody knows whether it went: it may have
        ("  duplicates: { within: 24h }\n", vec![ambiguous(false)], [MessageState::Unknown, MessageState::Cancelled]),
        ("  duplicates: { within: 24h, categories: [service] }\n", vec![], [MessageState::Accepted, MessageState::Accepted]),
    ] {
        let shop = Shop::open_by(self::answers(answers), greeted_twice(duplicates)).await;
        shop.meet("anna").await;
        shop.sign_up("anna", start()).await;
        shop.evaluate(start()).await;
        shop.dispatch(start()).await;
        let states: Vec<MessageState> = shop.messages("anna").await.iter().map(|row| row.state).collect();
        assert_eq!(states, expected, "{duplicates}");
    }
}

#[tokio::test]
async fn a_text_that_was_had_is_told_of_and_tries_no_other_channel_and_may_come_again_after_the_span() {
    let shop = Shop::open_by(Scripted::default(), greeted_twice("  duplicates: { within: 24h }\n")).await;
    shop.meet("anna").await;
    let sign_up = async |now: Timestamp| {
        shop.sign_up("anna", now).await;
        shop.evaluate(now).await;
        shop.dispatch(now).await;
        shop.evaluate(now.plus_ms(1)).await;
        shop.dispatch(now.plus_ms(1)).await;
    };
    sign_up(start()).await;
    let messages = shop.messages("anna").await;
    let because = messages[1].because.as_deref().expect("a reason");
    assert!(because.starts_with("duplicates: the same text went on 2026-03-02T10:00:00Z, by rule hello"), "{because}");
    assert_eq!(messages.len(), 2, "no e-mail follows");
    assert_eq!(shop.slots("anna").await, 1, "what did not go counts for no cap");
    assert_eq!(audited(&shop, start().plus_ms(MINUTE_MS)).await, []);

    // another process, the same row
    let shop = shop.restart().await;
    shop.sign_up("anna", start().plus_ms(DAY_MS - 1)).await;
    shop.evaluate(start().plus_ms(DAY_MS - 1)).await;
    shop.dispatch(start().plus_ms(DAY_MS - 1)).await;
    assert_eq!(shop.sms.sent().len(), 1, "23:59:59 later it is still the same");
    shop.sign_up("anna", start().plus_ms(DAY_MS + MINUTE_MS)).await;
    shop.evaluate(start().plus_ms(DAY_MS + MINUTE_MS)).await;
    shop.dispatch(start().plus_ms(DAY_MS + MINUTE_MS)).await;
    assert_eq!(shop.sms.sent().len(), 2);
}

#[tokio::test]
async fn what_a_provider_answers_is_what_the_message_becomes() {
    use MessageState::{Accepted, Failed, Queued, Unknown};
    let cases = [
        (Outcome::Accepted { provider_id: "x".into() }, Accepted, vec![]),
        // the next channel follows a definite failure, within the same cap
        (rejected(false), Failed, vec![(Kind::Email, Queued)]),
        // refused because of the address: as definite, and the address is closed
        (rejected(true), Failed, vec![(Kind::Email, Queued)]),
        // an unknown fate is no failure
        (ambiguous(false), Unknown, vec![]),
        (busy(RetryClass::Transient), Queued, vec![]),
    ];
    for (answer, state, next) in cases {
        let shop = greeted(answer.clone()).await;
        let now = start().plus_ms(1);
        shop.evaluate(now).await;
        let mut expected = vec![(Kind::Sms, state)];
        expected.extend(next);
        assert_eq!(shop.states("ana").await, expected, "{answer:?}");
        assert_eq!(shop.slots("ana").await, 1, "{answer:?}: one slot, of the message that may have gone or will go");
        if matches!(answer, Outcome::Rejected { .. }) {
            let closed = shop.profile("ana").await.suppressed.contains_key(&Kind::Sms);
            assert_eq!(closed, answer == rejected(true), "{answer:?}");
            shop.dispatch(now).await;
            assert_eq!(shop.states("ana").await.get(1), Some(&(Kind::Email, Accepted)));
            assert_eq!((shop.sms.sent().len(), shop.email.sent().len()), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_busy_provider_is_asked_again_with_the_same_id() {
    let shop = greeted(busy(RetryClass::Transient)).await;
    let due = shop.messages("ana").await.remove(0).message.due_at;
    assert!(due > start() && due <= start().plus_ms(5 * MINUTE_MS), "{due}");
    assert_eq!(shop.dispatch(due.plus_ms(-1)).await.claimed, 0);
    assert_eq!(shop.dispatch(due).await.accepted, 1);
    let sent = shop.sms.sent();
    assert_eq!(sent.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(sent.first().map(|(id, _)| *id), sent.get(1).map(|(id, _)| *id));
    assert_eq!(shop.messages("ana").await.remove(0).attempts.len(), 2);
}

#[tokio::test]
async fn what_waits_for_a_slot_goes_as_soon_as_a_failure_frees_it() {
    let shop = greeted(busy(RetryClass::Transient)).await;
    let sent_at = shop.profile("ana").await.slots.first().expect("a slot").sent_at;
    assert_eq!(sent_at, None, "refused for now: its slot is pending again");
    shop.sms.answers.lock().expect("no panic").push_back(rejected(false));
    shop.email.answers.lock().expect("no panic").push_back(rejected(false));
    // the second greeting finds the week's one slot taken
    let again = start().plus_ms(2 * MINUTE_MS);
    shop.sign_up("ana", again).await;
    shop.evaluate(again).await;
    assert_eq!(shop.profile("ana").await.holds.iter().map(|hold| &*hold.gate).collect::<Vec<_>>(), ["caps"]);
    // text message and mail of the first one are refused for good: at that very instant the second one goes
    let due = shop.messages("ana").await.remove(0).message.due_at.max(again.plus_ms(1));
    for _ in 0..3 {
        shop.dispatch(due).await;
        shop.evaluate(due).await;
    }
    shop.dispatch(due).await;
    let mut states = shop.states("ana").await;
    states.sort();
    let failed = MessageState::Failed;
    assert_eq!(states, [(Kind::Email, failed), (Kind::Sms, MessageState::Accepted), (Kind::Sms, failed)]);
    assert_eq!(shop.slots("ana").await, 1);
}

#[tokio::test]
async fn what_stops_a_rule_calls_its_message_back_also_when_the_run_was_done() {
    // before anybody claimed it; while it waits for another try; while it is on its way and then refused for now
    for moment in ["queued", "retried", "sending"] {
        let shop = Shop::open().await;
        shop.meet("ana").await;
        shop.append("ana", EventKind::Track, "Was Thanked", json!({ "name": "Ana" }), start()).await;
        shop.evaluate(start()).await;
        assert!(shop.profile("ana").await.memory("thanks").is_some_and(|memory| memory.outcome == Some(RunOutcome::Done)));
        let now = start().plus_ms(MINUTE_MS);
        let busy = || shop.sms.answers.lock().expect("no panic").push_back(busy(RetryClass::Transient));
        let mut sending = None;
        match moment {
            "retried" => {
                busy();
                shop.dispatch(start()).await;
            }
            "sending" => sending = Some(intent_of(&shop, "ana").await),
            _ => {}
        }
        shop.sign_up("ana", now).await;
        shop.evaluate(now).await;
        if let Some((message, epoch)) = sending {
            let kind = ResultKind::Retry { until: now.plus_ms(1), refused: true };
            let result = MessageResult { message, epoch: Some(epoch), at: now, kind, provider_id: None, detail: None };
            shop.store.record_results(vec![result]).await.expect("recorded");
        }
        let sent_before = shop.sms.sent().len();
        for hours in 0..3 {
            shop.evaluate(now.plus_ms(hours * HOUR_MS)).await;
            shop.dispatch(now.plus_ms(hours * HOUR_MS)).await;
        }
        let thanked = shop.messages("ana").await.into_iter().find(|row| &*row.message.rule == "thanks").expect("a message");
        assert_eq!(thanked.state, MessageState::Cancelled, "{moment}");
        let greeted = 1;
        assert_eq!(shop.sms.sent().len() - sent_before, greeted, "{moment}: only the greeting went out");
        let profile = shop.profile("ana").await;
        assert!(profile.slots.iter().all(|slot| &*slot.rule == "hello"), "{moment}: its slot is free");
    }
}

/// The send-intent of somebody's only message, committed, and then nothing.
async fn intent_of(shop: &Shop, user: &str) -> (MessageId, i64) {
    let generation = shop.store.world(start()).await.expect("a world").generation;
    let claimed = shop.store.claim_messages(Look::Now(start()), 10, "w1").await.expect("a claim").remove(0);
    assert_eq!(&*claimed.profile.key, user);
    let message = claimed.messages.first().expect("a message").clone();
    let mut profile = claimed.profile.clone();
    profile.slots.iter_mut().for_each(|slot| slot.sent_at = Some(start()));
    let intent = IntentCommit {
        profile_id: claimed.profile_id,
        at: start(),
        version: claimed.version,
        profile: Some(Arc::new(profile)),
        due_at: None,
        messages: vec![MessageIntent { message: message.message.id, epoch: message.epoch, step: IntentStep::Send { at: start() } }],
        own_events: vec![],
        entries: vec![],
        rules_version: 1,
    };
    let answers = shop.store.commit_intents(generation, vec![intent]).await.expect("an intent");
    assert!(answers.iter().all(|answer| answer.is_committed()));
    (message.message.id, message.epoch)
}

#[tokio::test]
async fn a_provider_that_stays_busy_ends_the_message_at_its_deadline() {
    let shop = greeted(busy(RetryClass::Throttle)).await;
    let deadline = shop.messages("ana").await.remove(0).message.expires_at;
    for _ in 0..200 {
        let row = shop.messages("ana").await.remove(0);
        if !row.state.is_open() {
            break;
        }
        assert!(row.message.due_at <= deadline, "promise I4: due at or before its deadline");
        shop.sms.answers.lock().expect("no panic").push_back(busy(RetryClass::Throttle));
        shop.dispatch(row.message.due_at).await;
        shop.evaluate(row.message.due_at).await;
    }
    let row = shop.messages("ana").await.remove(0);
    assert!(matches!(row.state, MessageState::Dead | MessageState::Expired), "{:?}", row.state);
    assert!(row.attempts.len() > 10, "{}", row.attempts.len());
}

#[tokio::test]
async fn promise_i4_what_a_pause_holds_is_due_before_its_deadline_and_ends_there() {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    let pause = Pause { at: start(), reason: "the gateway is being mended".into() };
    shop.store.set_pause(start(), PauseScope::Channel(Kind::Sms), Some(pause), "ops").await.expect("a pause");
    let mut looks = 0;
    let ended = loop {
        let row = shop.messages("ana").await.remove(0);
        if !row.state.is_open() {
            break row;
        }
        assert!(row.message.due_at <= row.message.expires_at, "due at {}, {looks} looks", row.message.due_at);
        shop.dispatch(row.message.due_at).await;
        looks += 1;
        assert!(looks < 100, "it never ends");
    };
    assert_eq!((ended.state, ended.changed_at), (MessageState::Expired, ended.message.expires_at));
    assert_eq!((shop.slots("ana").await, shop.sms.sent().len()), (0, 0));
}

#[tokio::test]
async fn promise_i2_a_clock_that_steps_back_makes_caps_stricter_and_one_that_steps_forth_no_looser_than_its_steps() {
    const WEEK_MS: i64 = 7 * DAY_MS;
    // true hours at which the clock is set wrong, and by how much; at the end it is right again
    let steps: [(&str, &[(i64, i64)]); 4] = [
        ("back, and never right again", &[(20, -6 * HOUR_MS), (100, -3 * DAY_MS), (260, -4 * DAY_MS)]),
        ("back", &[(20, -6 * HOUR_MS), (100, -3 * DAY_MS), (260, 0)]),
        ("back and forth", &[(5, -DAY_MS), (40, 0), (44, -5 * DAY_MS), (300, -HOUR_MS), (310, 0)]),
        ("forth and back", &[(60, 2 * DAY_MS), (110, 0), (400, 9 * DAY_MS), (401, 0)]),
    ];
    for (case, steps) in steps {
        let shop = Shop::open().await;
        shop.meet("ana").await;
        let mut sent_at: Vec<i64> = vec![];
        for hour in 0..24 * 30 {
            let skew = steps.iter().rev().find(|(from, _)| *from <= hour).map_or(0, |(_, skew)| *skew);
            let clock = start().plus_ms(hour * HOUR_MS + skew);
            if hour % 5 == 0 {
                // the id tells the visit, not the clock
                shop.append_as(&format!("visit-{hour}"), "ana", clock).await;
            }
            shop.evaluate(clock).await;
            shop.dispatch(clock).await;
            let before = sent_at.len();
            sent_at.extend((before..shop.sms.sent().len()).map(|_| hour * HOUR_MS));
        }
        let profile = shop.profile("ana").await;
        let stamps: Vec<i64> = profile.slots.iter().filter_map(|slot| slot.sent_at).map(|at| at.as_ms()).collect();
        assert!(stamps.is_sorted() && stamps.windows(2).all(|pair| pair[1] - pair[0] >= WEEK_MS), "{case}: {stamps:?}");
        let closest = sent_at.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(i64::MAX);
        // steps forth let go of a slot so much earlier by the true time, and no more than that
        let skews: Vec<i64> = std::iter::once(0).chain(steps.iter().map(|(_, skew)| *skew)).collect();
        let forth = skews.windows(2).map(|pair| (pair[1] - pair[0]).max(0)).sum::<i64>();
        assert!(closest >= WEEK_MS - forth, "{case}: two greetings within {} hours", closest / HOUR_MS);
        assert!(sent_at.len() >= 2, "{case}: {} greetings prove nothing", sent_at.len());
    }
}

#[tokio::test]
async fn promise_i12_a_good_set_stays_in_use_when_a_bad_one_comes() {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    let version = shop.rules.snapshot().rules.version;
    for (path, text) in [
        ("rules.yaml", RULES.replace("event: signed_up", "event: signed_upp")),
        ("rules.yaml", RULES.replace("cap: wait", "").replace("max: 1", "max: one")),
        ("templates/hello/en/sms.liquid", "Hello {{ user.name".to_owned()),
        ("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: marketin }".to_owned()),
        ("more.yaml", "rekindle: 1\nrules: [{ id: half, owner: x".to_owned()),
    ] {
        let good = rulebook();
        let others = good.sources().iter().filter(|source| &*source.path != path).cloned();
        let bad = Rulebook::of(others.chain([SourceFile { path: path.into(), text: text.as_str().into() }]).collect());
        // there is nothing to put in place: half a set is no set
        assert!(bad.set().is_none() && !bad.errors().is_empty(), "{path}: {text}");
        assert_eq!(shop.rules.snapshot().rules.version, version);
    }
    let changed: Vec<SourceFile> = rulebook()
        .sources()
        .iter()
        .map(|source| SourceFile {
            path: source.path.clone(),
            text: source.text.replace("channels: [sms, email]", "channels: [email]").into(),
        })
        .collect();
    // with a run under way on the first set, a good one comes: it is in force for whoever enters, the run goes on by its own
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    let good = Rulebook::of(changed);
    shop.rules.swap(good.set().expect("sound rules"), good.templates());
    shop.dispatch(start()).await;
    assert_eq!(shop.states("ana").await, [(Kind::Sms, MessageState::Accepted)]);
    let later = start().plus_ms(8 * DAY_MS);
    shop.sign_up("ana", later).await;
    shop.evaluate(later).await;
    shop.dispatch(later).await;
    assert_eq!(shop.states("ana").await.get(1), Some(&(Kind::Email, MessageState::Accepted)));
    let versions: Vec<u64> = shop.messages("ana").await.iter().map(|row| row.message.version).collect();
    assert!(versions[0] == version && versions[1] != version, "each message says by which set it was decided");
}

#[tokio::test]
async fn promise_i5_an_ambiguous_send_is_never_repeated_and_a_late_receipt_settles_it() {
    let shop = greeted(ambiguous(true)).await;
    for hours in 0..48 {
        let now = start().plus_ms(hours * HOUR_MS);
        shop.evaluate(now).await;
        shop.dispatch(now).await;
    }
    let row = shop.messages("ana").await.remove(0);
    assert_eq!((row.state, shop.sms.sent().len()), (MessageState::Unknown, 1));
    let receipt = Receipt { at: start().plus_ms(49 * HOUR_MS), message: row.message.id, outcome: Fact::Delivered };
    let recorded = dispatch::record_receipts(shop.store.as_ref(), &[receipt]).await.expect("a receipt");
    assert_eq!(recorded, 1);
    assert_eq!(shop.states("ana").await, [(Kind::Sms, MessageState::Delivered)]);
    let again = dispatch::record_receipts(shop.store.as_ref(), &[receipt]).await.expect("a repeated receipt");
    assert_eq!(again, 0, "a repeated receipt is no news");
}

#[tokio::test]
async fn promise_i5_what_a_crash_left_in_doubt_is_sent_again_only_where_the_channel_deduplicates() {
    for deduplicates in [false, true] {
        let shop = Shop::open_with(Scripted { deduplicates, ..Scripted::default() }).await;
        shop.meet("ana").await;
        shop.sign_up("ana", start()).await;
        shop.evaluate(start()).await;
        // the process dies between the send-intent and the answer
        let (message, _) = intent_of(&shop, "ana").await;
        let shop = shop.restart().await;

        let later = start().plus_ms(MINUTE_MS);
        assert_eq!(dispatch::recover(&shop.dispatcher(), later).await.expect("a recovery"), 1);
        shop.evaluate(later).await;
        shop.dispatch(later).await;
        let expected = if deduplicates { (MessageState::Accepted, 1) } else { (MessageState::Unknown, 0) };
        let row = shop.messages("ana").await.remove(0);
        assert_eq!((row.state, shop.sms.sent().len()), expected);
        assert!(shop.sms.sent().iter().all(|(id, _)| *id == message), "under the same id");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_written_fails_visibly_and_the_others_go_on() {
    let shop = Shop::open().await;
    for (user, properties) in [("ana", json!({})), ("ben", json!({ "name": "Ben" }))] {
        shop.meet(user).await;
        shop.append(user, EventKind::Track, "Was Thanked", properties, start()).await;
    }
    shop.evaluate(start()).await;
    let pass = shop.dispatch(start()).await;
    assert_eq!((pass.failed, pass.accepted), (1, 1), "{pass}");
    let row = shop.messages("ana").await.remove(0);
    let detail = row.attempts.first().and_then(|attempt| attempt.detail.clone()).unwrap_or_default();
    assert_eq!(row.state, MessageState::Failed);
    assert!(detail.starts_with("render: ") && detail.contains("event.name"), "{detail}");
    assert_eq!(shop.states("ben").await, [(Kind::Sms, MessageState::Accepted)]);
}

#[tokio::test]
async fn what_is_claimed_again_and_again_without_a_result_is_poison() {
    let mut shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    for _ in 0..3 {
        assert_eq!(shop.store.claim_messages(Look::Now(start()), 10, "w1").await.expect("a claim").len(), 1);
        shop = shop.restart().await;
    }
    let pass = shop.dispatch(start()).await;
    assert_eq!((pass.dead, pass.attempts), (1, 0), "{pass}");
    shop.evaluate(start().plus_ms(1)).await;
    assert_eq!(shop.sms.sent(), []);
    assert_eq!(shop.states("ana").await.first(), Some(&(Kind::Sms, MessageState::Dead)));
}

#[tokio::test]
async fn promise_i9_a_profile_that_is_poison_is_set_aside_and_the_others_go_on() {
    let mut shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    for _ in 0..3 {
        assert_eq!(shop.store.claim_due(start(), 10, "w1").await.expect("a claim").profiles.len(), 1);
        shop = shop.restart().await;
    }
    shop.meet_without_looking("ben").await;
    shop.sign_up("ben", start()).await;
    let pass = shop.evaluate(start()).await;
    assert_eq!((pass.set_aside, pass.claimed), (1, 1), "alone: {pass}");
    assert_eq!(shop.evaluate(start()).await.entered, 1);
    let id = shop.store.find_profile(&Identity::User("ana".into())).await.expect("a read").expect("a person");
    let (_, reason) = shop.store.profile(id).await.expect("a read").expect("a profile").quarantined.expect("set aside");
    assert!(reason.contains("without a result"), "{reason}");
    shop.store.reinstate(start(), vec![id]).await.expect("an operator's word");
    assert_eq!(shop.evaluate(start()).await.entered, 1, "its events waited");
}

impl Shop {
    async fn meet_without_looking(&self, user: &str) {
        let before = start().plus_ms(-DAY_MS);
        self.append(user, EventKind::Identify, "", json!({ "phone": "+441632960001" }), before).await;
        let consent = json!({ "purpose": "marketing", "channel": "sms", "granted": true, "basis": "opt_in" });
        self.append(user, EventKind::Consent, "", consent, before.plus_ms(1)).await;
    }
}

#[tokio::test]
async fn a_pause_holds_a_queued_message_with_its_slot_and_lets_it_go_after() {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    let pause = Pause { at: start(), reason: "the gateway is being mended".into() };
    shop.store.set_pause(start(), PauseScope::Channel(Kind::Sms), Some(pause), "ops").await.expect("a pause");
    let pass = shop.dispatch(start()).await;
    assert_eq!((pass.held, pass.attempts), (1, 0), "{pass}");
    let row = shop.messages("ana").await.remove(0);
    assert_eq!((row.state, shop.slots("ana").await), (MessageState::Queued, 1));
    assert!(row.because.is_some_and(|because| because.starts_with("paused: ")));

    shop.store.set_pause(start(), PauseScope::Channel(Kind::Sms), None, "ops").await.expect("a resume");
    let later = start().plus_ms(HOUR_MS);
    let pass = shop.dispatch(later.max(row.message.due_at.min(row.message.expires_at))).await;
    assert_eq!(pass.accepted, 1, "{pass}");
}

impl Shop {
    fn console(&self, now: Timestamp) -> Console {
        let (clock, telemetry) = (Arc::new(VirtualClock::at(now)), Arc::<Telemetry>::default());
        let publisher = Publisher::new(self.store.clone(), self.directory.path().to_owned(), clock.clone(), telemetry.clone(), None);
        Console {
            store: self.store.clone(),
            clock,
            rules: self.rules.clone(),
            publisher: Arc::new(publisher.with_rules(self.rules.clone())),
            channels: self.dispatcher().channels,
            telemetry,
            wake: Arc::default(),
        }
    }

    /// An operator's command, as it comes through the daemon's socket.
    async fn command(&self, now: Timestamp, request: Request) -> Reply {
        let text = serde_json::to_string(&request).expect("a request");
        let request = serde_json::from_str(&text).expect("the same request");
        control::handle(&self.console(now), request).await.expect("a reply")
    }
}

#[tokio::test]
async fn the_red_button_stops_at_the_intent_and_shows_before_it_goes_on() {
    let shop = Shop::open().await;
    for user in ["ana", "ben", "cleo"] {
        shop.meet(user).await;
    }
    // one message is queued when the button is pressed, one step comes due after it, one message's deadline passes meanwhile
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    let scope = Scope::All;
    let no_reason = Request::Pause { scope: scope.clone(), reason: " ".into(), by: "anna".into() };
    assert!(shop.command(start(), no_reason).await.refused);
    let pause = Request::Pause { scope: scope.clone(), reason: "wrong prices".into(), by: "anna".into() };
    assert!(!shop.command(start(), pause).await.refused);
    let soon = start().plus_ms(MINUTE_MS);
    shop.sign_up("ben", soon).await;
    shop.evaluate(soon).await;
    let pass = shop.dispatch(soon).await;
    assert_eq!((pass.held, pass.attempts), (1, 0), "{pass}");
    let status = shop.command(soon, Request::Status).await.lines.join("\n");
    assert!(status.contains("everything since 2026") && status.contains("wrong prices") && status.contains("by anna"), "{status}");

    let other = shop.command(soon, Request::Survey { scope: Scope::Channel("sms".into()) }).await;
    assert!(other.refused && other.lines.concat().contains("paused: everything"), "{other:?}");
    let typo = Request::Pause { scope: Scope::Rule("helo".into()), reason: "x".into(), by: "anna".into() };
    assert!(shop.command(soon, typo).await.lines.concat().contains("did you mean `hello`?"));

    let survey = shop.command(soon, Request::Survey { scope: scope.clone() }).await.survey.expect("a survey");
    assert_eq!((survey.queued, survey.overdue, survey.late, survey.expired), (1, 1, 1, 0), "{survey:?}");
    assert_eq!((survey.people, survey.would_enter, survey.would_queue), (1, 1, 1), "{survey:?}");
    let deadline = shop.messages("ana").await.remove(0).message.expires_at;
    let survey = shop.command(deadline.plus_ms(1), Request::Survey { scope: scope.clone() }).await.survey.expect("a survey");
    assert_eq!((survey.late, survey.expired), (0, 1), "{survey:?}");
    assert_eq!(shop.sms.sent().len(), 0, "looking changes nothing");

    assert!(!shop.command(soon, Request::Resume { scope: scope.clone(), by: "anna".into() }).await.refused);
    shop.evaluate(soon).await;
    let pass = shop.dispatch(soon).await;
    assert_eq!(pass.accepted, 2, "what was shown is what happens: {pass}");
    assert!(shop.command(soon, Request::Resume { scope, by: "anna".into() }).await.refused, "nothing is paused any more");
}

#[tokio::test]
async fn a_test_message_is_marked_and_leaves_nothing_behind() {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    let before = shop.store.dump(shop.id("ana").await).await.expect("a dump");
    let send = |rule: &str, channel: &str| Request::SendTest {
        rule: rule.into(),
        step: None,
        channel: Some(channel.into()),
        user: "ana".into(),
        to: "+441632960999".into(),
    };
    let reply = shop.command(start(), send("hello", "sms")).await;
    assert!(!reply.refused, "{reply:?}");
    assert_eq!(shop.sms.sent().len(), 1);
    assert_eq!(shop.store.dump(shop.id("ana").await).await.expect("a dump"), before);
    for (rule, channel, why) in [("helo", "sms", "no rule"), ("hello", "push", "it sends in"), ("hello", "pigeon", "no channel")] {
        let reply = shop.command(start(), send(rule, channel)).await;
        assert!(reply.refused && reply.lines.concat().contains(why), "{reply:?}");
    }
}

#[tokio::test]
async fn promise_i3_nothing_goes_out_after_consent_was_withdrawn() {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    assert_eq!(shop.slots("ana").await, 1);
    for channel in ["sms", "email"] {
        let withdrawn = json!({ "purpose": "marketing", "channel": channel, "granted": false, "basis": "withdrawn" });
        let at = start().plus_ms(if channel == "sms" { 1 } else { 2 });
        shop.append("ana", EventKind::Consent, "", withdrawn, at).await;
    }
    let now = start().plus_ms(5);
    let pass = shop.dispatch(now).await;
    assert_eq!((pass.attempts, pass.accepted), (0, 0), "a fact waits: it comes before the message; {pass}");
    shop.evaluate(now).await;
    shop.dispatch(now).await;
    shop.evaluate(now).await;
    shop.dispatch(now).await;
    assert_eq!((shop.sms.sent().len(), shop.email.sent().len()), (0, 0));
    assert!(shop.states("ana").await.iter().all(|(_, state)| *state == MessageState::Blocked), "{:?}", shop.states("ana").await);
    assert_eq!(shop.slots("ana").await, 0, "blocked: the slot is free again");
}

#[tokio::test]
async fn the_brake_holds_a_rule_that_admits_too_many_and_says_so() {
    let shop = Shop::open().await;
    for user in ["a", "b", "c", "d", "e"] {
        shop.meet(user).await;
        shop.sign_up(user, start()).await;
    }
    let pass = shop.evaluate(start()).await;
    assert_eq!((pass.entered, pass.braked.as_slice()), (3, ["hello".into()].as_slice()), "{pass}");
    let hello: Name = "hello".into();
    let world = shop.store.world(start()).await.expect("a world").world;
    let held = world.rules.get(&hello).and_then(|state| state.held.clone()).expect("held");
    assert!(held.reason.contains("more than 3 entries"), "{}", held.reason);

    // still held an hour later, whatever the count says by then; released by an operator
    let later = start().plus_ms(2 * HOUR_MS);
    shop.sign_up("f", later).await;
    assert_eq!(shop.evaluate(later).await.entered, 0);
    shop.store.set_hold(later, &hello, None, "ops").await.expect("a release");
    shop.store.make_all_due(later, 0).await.expect("everybody looked at");
    let pass = shop.evaluate(later).await;
    assert_eq!(pass.entered, 3, "who waited starts now: {pass}");
}

#[tokio::test]
async fn in_a_replay_the_brake_counts_each_entry_in_its_own_hour() {
    let shop = Shop::open().await;
    // three in any hour, all looked at in one pass: no more than the rule may admit
    let calm = (0..8).map(|n| start().plus_ms(n * 25 * MINUTE_MS));
    // five within five minutes: the fourth is one too many
    let burst = (0..5).map(|n| start().plus_ms((300 + n) * MINUTE_MS));
    for (number, at) in calm.chain(burst).enumerate() {
        let user = format!("u{number}");
        shop.meet(&user).await;
        shop.sign_up(&user, at).await;
    }
    let upto = start().plus_ms(10 * HOUR_MS);
    let pass = evaluate::run_once(&shop.evaluator(), Look::AsDue { upto }, 100).await.expect("a pass");
    assert_eq!((pass.entered, pass.braked.as_slice()), (8 + 3, ["hello".into()].as_slice()), "{pass}");
    let hello: Name = "hello".into();
    let held = shop.store.world(start()).await.expect("a world").world.rules.get(&hello).and_then(|state| state.held.clone());
    assert_eq!(held.map(|pause| pause.at), Some(start().plus_ms(303 * MINUTE_MS)));
}

#[tokio::test]
async fn a_source_that_falls_silent_is_noticed_and_heard_again() {
    let shop = Shop::open().await;
    let policy = &shop.rules.snapshot().rules.policy;
    let visit = |hour: i64| {
        (0..5).map(move |visit| {
            let at = start().plus_ms(hour * HOUR_MS + visit * MINUTE_MS);
            let (id, name) = (Arc::from(format!("{hour}-{visit}")), "Signed Up".into());
            let properties = serde_json::Map::new();
            let event = Event { id, kind: EventKind::Track, name, occurred_at: at, received_at: at, source: "pixel".into(), properties };
            NewEvent { identity: Identity::User("crowd".into()), link: None, event, active: true }
        })
    };
    // 30 days of five visits an hour, then a night and a morning without any
    shop.store.append_events((-30 * 24..0).flat_map(visit).collect()).await.expect("a month of events");
    let watch = async |hours: i64| {
        let now = start().plus_ms(hours * HOUR_MS);
        evaluate::sources::watch_sources(shop.store.as_ref(), policy, now).await.expect("a look")
    };
    let quiet = async || shop.store.world(start()).await.expect("a world").world.quiet.clone();
    assert_eq!((watch(0).await, quiet().await), (None, vec![]));
    let since = watch(7).await.expect("quiet");
    assert_eq!(quiet().await, [(since, Timestamp::FOREVER)]);
    assert_eq!(watch(8).await, Some(since), "still the same span");
    shop.store.append_events((9..16).flat_map(visit).collect()).await.expect("the pixel is mended");
    assert_eq!(watch(16).await, None);
    assert_eq!(quiet().await, [(since, start().plus_ms(16 * HOUR_MS))]);
}

#[tokio::test]
async fn runs_finish_on_their_version_which_is_read_from_the_store() {
    let shop = Shop::open().await;
    let version = shop.rules.snapshot().rules.version;
    let run = |version: u64| Run {
        rule: "hello".into(),
        key: "".into(),
        number: 1,
        version,
        started_at: start(),
        event: "".into(),
        exposure: None,
        silence_since: None,
        steps: vec![],
        ended: None,
        ended_at: None,
    };
    let person = |versions: &[u64]| Profile { runs: versions.iter().map(|version| run(*version)).collect(), ..Profile::new("ana") };
    let book = rulebook();
    let newer = RuleSet { version: version + 1, ..book.compile().expect("sound rules") };
    let after_restart = RuleVersions::new(Arc::new(newer), book.templates());
    let unread = after_restart.snapshot_for(shop.store.as_ref(), [person(&[version + 1])].iter()).await.expect("a snapshot");
    assert_eq!(unread.older.len(), 0, "nothing is read that nobody needs");
    let people = [person(&[version]), person(&[version + 1, 77])];
    let snapshot = after_restart.snapshot_for(shop.store.as_ref(), people.iter()).await.expect("a snapshot");
    assert_eq!(snapshot.rules.version, version + 1);
    assert!(snapshot.older.get(&version).is_some_and(|rules| rules.rule("hello").is_some()));
    assert!(!snapshot.older.contains_key(&77), "never published: its runs go by the present rules");
}

#[tokio::test]
async fn the_loops_are_woken_and_stop_when_told() {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    let clock = Arc::new(VirtualClock::at(start()));
    let (due, queued, (stop, stopped)) = (Arc::new(Notify::new()), Arc::new(Notify::new()), watch::channel(false));
    let telemetry = Arc::new(Telemetry::default());
    let evaluating = tokio::spawn({
        let (evaluator, clock, telemetry) = (shop.evaluator(), clock.clone(), telemetry.clone());
        let (due, queued, shutdown) = (due.clone(), queued.clone(), stopped.clone());
        async move {
            let signals = evaluate::Signals { wake: &due, next: &queued, shutdown };
            evaluate::run(&evaluator, clock.as_ref(), evaluate::BATCH, &telemetry, signals).await;
        }
    });
    let dispatching = tokio::spawn({
        let (dispatcher, clock, telemetry, due) = (shop.dispatcher(), clock.clone(), telemetry.clone(), due.clone());
        async move {
            let signals = dispatch::Signals { wake: &queued, next: &due, shutdown: stopped };
            dispatch::run(&dispatcher, clock.as_ref(), dispatch::BATCH, &telemetry, signals).await;
        }
    });
    shop.sign_up("ana", start()).await;
    due.notify_one();
    let heard = tokio::time::timeout(std::time::Duration::from_secs(20), shop.sms.called.notified()).await;
    assert!(heard.is_ok(), "the greeting goes out");
    stop.send(true).expect("the loops listen");
    evaluating.await.expect("evaluate ends");
    dispatching.await.expect("dispatch ends");
    assert_eq!(shop.sms.sent().len(), 1);
    let figures = telemetry.metrics.render();
    assert!(figures.contains("rekindle_messages_total{outcome=\"accepted\"} 1"), "{figures}");
    assert!(telemetry.vitals.report().iter().all(|(_, state)| state.is_ok()), "{:?}", telemetry.vitals.report());
}

#[tokio::test]
async fn an_open_breaker_is_a_figure() {
    let pool = Pool::open(answers([busy(RetryClass::Config)]), "").await;
    pool.sign_up(0..1, start()).await;
    let (wake, next, (stop, shutdown)) = (Notify::new(), Notify::new(), watch::channel(false));
    let (clock, telemetry) = (VirtualClock::at(start()), Telemetry::default());
    let signals = dispatch::Signals { wake: &wake, next: &next, shutdown };
    let running = dispatch::run(&pool.dispatcher, &clock, dispatch::BATCH, &telemetry, signals);
    let stopping = async {
        pool.second.called.notified().await;
        stop.send(true).expect("the loop listens");
    };
    tokio::join!(running, stopping);
    let figures = telemetry.metrics.render();
    for line in ["rekindle_breaker_open{provider=\"one\"} 1", "rekindle_breaker_open{provider=\"two\"} 0"] {
        assert!(figures.contains(line), "{figures}");
    }
}

#[tokio::test]
async fn what_no_provider_is_set_up_for_waits_and_says_so() {
    // the policy names a provider that the administrator's file does not have yet
    let mut pool = Pool::open(Scripted::default(), "").await;
    let set_up = std::mem::take(&mut pool.dispatcher.channels);
    pool.sign_up(0..1, start()).await;
    let pass = pool.dispatch(start()).await;
    assert_eq!((pass.held, pass.failed, pass.attempts), (1, 0, 0), "{pass}");
    let row = pool.shop.messages("u0").await.remove(0);
    assert!(row.because.as_deref().is_some_and(|because| because.contains("none is called `texts`")), "{:?}", row.because);
    pool.dispatcher.channels = set_up;
    assert_eq!(pool.dispatch(start().plus_ms(15 * MINUTE_MS)).await.accepted, 1);

    // nothing is configured at all
    let shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    let bare = Dispatcher::new(shop.store.clone(), shop.rules.clone(), Channels::default(), "w1".into());
    let pass = dispatch::run_once(&bare, Look::Now(start()), 100).await.expect("a pass");
    assert_eq!((pass.held, pass.failed), (1, 0), "{pass}");
    let row = shop.messages("ana").await.remove(0);
    assert!(row.because.as_deref().is_some_and(|because| because.contains("names no provider for any channel")), "{:?}", row.because);

    // others are: this one is not wanted, and the message goes by the next channel of its step
    let elsewhere = rulebook_of(&RULES.replacen("rules:\n", "  channels: { push: { provider: texts } }\nrules:\n", 1));
    let shop = Shop::open_by(Scripted::default(), elsewhere).await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    let bare = Dispatcher::new(shop.store.clone(), shop.rules.clone(), Channels::default(), "w1".into());
    let pass = dispatch::run_once(&bare, Look::Now(start()), 100).await.expect("a pass");
    assert_eq!((pass.held, pass.failed), (0, 1), "{pass}");
}

#[tokio::test]
async fn a_rule_that_is_deleted_calls_its_queued_messages_back() {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    assert_eq!((shop.states("ana").await, shop.slots("ana").await), (vec![(Kind::Sms, MessageState::Queued)], 1));
    let (before, rest) = RULES.split_once("  - id: hello").expect("the rule");
    let (_, after) = rest.split_once("  - id: thanks").expect("the next rule");
    let without = rulebook_of(&format!("{before}  - id: thanks{after}"));
    shop.rules.swap(without.set().expect("sound rules"), without.templates());
    let pass = shop.dispatch(start()).await;
    assert_eq!((pass.cancelled, pass.attempts), (1, 0), "{pass}");
    assert_eq!(shop.states("ana").await, [(Kind::Sms, MessageState::Cancelled)]);
    shop.evaluate(start().plus_ms(1)).await;
    assert_eq!(shop.slots("ana").await, 0, "its place under the cap is free");
}

#[tokio::test]
async fn a_flood_of_one_person_costs_few_looks_and_holds_nobody_up() {
    const FLOOD: usize = 2_000;
    let shop = Shop::open().await;
    shop.meet("ana").await;
    shop.meet("ben").await;
    let flood = (0..FLOOD).map(|n| {
        let (id, at) = (format!("f{n}").into(), start().plus_ms(n as i64));
        let properties = serde_json::Map::new();
        let event = Event {
            id,
            kind: EventKind::Track,
            name: "Page Viewed".into(),
            occurred_at: at,
            received_at: at,
            source: "shop".into(),
            properties,
        };
        NewEvent { identity: Identity::User("ana".into()), link: None, event, active: false }
    });
    shop.store.append_events(flood.collect()).await.expect("acknowledged events");
    shop.sign_up("ben", start()).await;
    let mut looks = 0;
    while let pass = shop.evaluate(start().plus_ms(FLOOD as i64)).await
        && pass.claimed > 0
    {
        looks += pass.evaluations;
    }
    assert!(looks <= 4, "{looks} looks at two people");
    shop.dispatch(start().plus_ms(FLOOD as i64)).await;
    assert_eq!(shop.states("ben").await, [(Kind::Sms, MessageState::Accepted)]);
}
