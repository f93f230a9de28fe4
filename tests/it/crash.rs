//! The built binary, killed wherever it can be killed, and an offline checker that says whether a promise was broken.
//!
//! **How it dies.** [`Point::reach`] ends the process at a named place: before and after everything that is durable, in taking events
//! in, deciding, sending, and putting rules live; [`Point::StoreWriting`] and [`Point::StoreWritten`] around every commit there is. The
//! soak kills with SIGKILL from outside, at moments that are seeded and reached by what has been seen, not by a clock. Afterwards the
//! process is started again and the shop sends everything once more, as a sender does that had no answer, duplicates included.
//!
//! **What the checker is.** `rekindle doctor`, which reads the database after the last process has ended, with evidence that the dead
//! processes cannot have touched: the ids of events that were answered with 200, and the mails that the relay took, in its own memory.
//! What it proves, by promise:
//!
//! | promise | how |
//! |---|---|
//! | I1 | no two messages have one dedupe key; each key and id is the one that rule, run, step, person and channel give |
//! | I2 | per person and cap, every attempt that was not definitely refused is counted, `unknown` as sent |
//! | I3 | what the relay took has an attempt, and is not on record as held, blocked, expired or cancelled |
//! | I4 | whatever waits is due before its deadline, and every profile is due when something of it is |
//! | I5 | the relay took no message twice; what is accepted it took once |
//! | I6 | each state is one that the results on record lead to; tries are numbered without a gap |
//! | I7 | every answered event is there once; folding all of them anew gives each row, and the ledger each balance; the points of the year are those of a plain sum |
//! | I10 | no points were taken without a notice that was delivered before (the year of the demo has them: `kill.rs`) |
//! | I11 | no run began twice for one key; log and row agree on their number |
//! | I12 | the live rule set is a whole one whose texts are on record, and every run's version can be read |

use std::fs;
use std::sync::Arc;

use rekindle::engine::action::PostingKind;
use rekindle::engine::time::Timestamp;
use rekindle::faults::{CLOCK_OFFSET, CRASH_AT, CRASH_OVER, Point};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{CLAIMS_MAX, Identity, Store as _};
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use super::daemon::{Daemon, Place, eventually, text};
use super::mail::sink::{Act, Options, Script, Sink};

/// Points and a mail for each order, and a cap of two mails a day.
pub const RULES: &str = r#"
rekindle: 1
events:
  order_completed: { name: "Order Completed", active: true, properties: { order_id: { type: string, required: true }, total: { type: money } } }
program:
  currency: EUR
  points:
    classes: { earned: { expiry: { rolling: 24mo } } }
    earn: [{ event: order_completed, rate: 10 per 1 EUR, class: earned }]
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  caps: [{ id: day, per: user, max: 2, window: 24h, channels: [email] }]
  channels:
    email: { provider: relay, sender: { from: "The shop <news@shop.example>", postal_address: "1 High Street, London" } }
rules:
  - id: thanks
    name: Thank for each order
    owner: tests
    event: order_completed
    key: event.order_id
    max_entries: 1000000
    steps: [{ id: thank, send: { template: thanks, channels: [email] } }]
"#;

pub const TEMPLATES: [(&str, &str); 3] = [
    ("thanks/template.yaml", "rekindle: 1\ntemplate: { purpose: order }"),
    ("thanks/en/subject.liquid", "Thank you"),
    ("thanks/en/text.liquid", "Thank you for your order."),
];

/// Orders of each person: one more than the cap lets thank for.
pub const ORDERS: usize = 3;
pub const CAP: usize = 2;
/// Points for each order of 12 euros.
pub const POINTS: i64 = 120;

/// A shop, its relay, and what happened outside of the process under test.
struct Trial {
    place: Place,
    sink: Sink,
    key: String,
    at: String,
    answered: Vec<String>,
    lives: usize,
}

impl Trial {
    async fn begin() -> Trial {
        Trial::with(Options { offers: vec!["PIPELINING"], ..Options::default() }).await
    }

    async fn with(relay: Options) -> Trial {
        let sink = Sink::start(relay).await;
        let relay = format!("providers:\n  relay: {{ kind: smtp, host: localhost, port: {}, connections: 4, tls: none }}\n", sink.port);
        let place = Place::new(RULES, &TEMPLATES).with(&relay);
        let key = place.write_key();
        let at = jiff::Timestamp::now().to_string();
        Trial { place, sink, key, at, answered: Vec::new(), lives: 0 }
    }

    /// One more process.
    fn life(&mut self, environment: &[(&str, &str)]) -> Daemon<'_> {
        self.lives += 1;
        self.place.begin(&format!("life-{}.log", self.lives), environment)
    }

    fn messages(&self, user: &str) -> Vec<Json> {
        messages_of(user, &self.at)
    }

    /// A life that is to end at a point; true: it died there.
    fn dies_at(&mut self, point: &str, users: &[String]) -> bool {
        let (messages, key) = (users.iter().flat_map(|user| self.messages(user)).collect::<Vec<_>>(), self.key.clone());
        let mut answered = Vec::new();
        let mut daemon = self.life(&[(CRASH_AT, point)]);
        let died = if daemon.is_up() {
            answered = messages.iter().filter(|message| daemon.try_send(&key, std::slice::from_ref(message))).map(id_of).collect();
            daemon.dies_or_settles()
        } else {
            true
        };
        drop(daemon);
        self.answered.extend(answered);
        died
    }

    /// A life in which everything is sent (again) and done, and a check of the whole.
    fn goes_on(&mut self, users: &[String]) -> Json {
        let (messages, key) = (users.iter().flat_map(|user| self.messages(user)).collect::<Vec<_>>(), self.key.clone());
        let mut daemon = self.life(&[]);
        assert!(daemon.is_up(), "{}", daemon.log());
        messages.chunks(200).for_each(|batch| daemon.send(&key, batch));
        daemon.settles();
        assert_eq!(daemon.terminate().0, Some(0));
        self.answered.extend(messages.iter().map(id_of));
        self.check(users)
    }

    /// What the offline checker says, given what happened outside.
    fn examine(&self, answered: &[String], taken: &[String]) -> Json {
        let write = |name: &str, lines: &[String]| {
            let path = self.place.path(name);
            fs::write(&path, lines.join("\n")).expect("written");
            path.display().to_string()
        };
        let (answered, taken) = (write("answered.txt", answered), write("taken.txt", taken));
        let output = self.place.look(&["doctor", "--format", "json", "--acknowledged", &answered, "--taken", &taken]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    /// It finds nothing; answers its balance.
    fn check(&self, users: &[String]) -> Json {
        let report = self.examine(&self.answered, &self.sink.message_ids());
        assert_eq!(report["findings"], json!([]), "{report:#}");
        for what in ["lost", "doubled", "caps_exceeded"] {
            assert_eq!(report["evidence"][what], 0, "{report:#}");
        }
        self.expect(users, ORDERS as i64 * POINTS);
        report["evidence"].clone()
    }

    /// Each person has so many points, by a plain sum, and of three thanks the cap's two went out or may have.
    fn expect(&self, users: &[String], points: i64) {
        let found: Vec<(i64, usize)> = self.place.read(async |store: &SqliteStore| {
            let mut found = Vec::new();
            for user in users {
                let id = store.find_profile(&Identity::User(user.as_str().into())).await.expect("read").expect("a person");
                let history = store.history(id).await.expect("a history");
                let granted = history.postings.iter().filter(|posting| posting.kind == PostingKind::Grant).map(|posting| posting.amount);
                let went = history.messages.iter().filter(|row| matches!(row.state.name(), "accepted" | "unknown"));
                found.push((granted.sum(), went.count()));
            }
            found
        });
        for (user, found) in users.iter().zip(found) {
            assert_eq!(found, (points, CAP), "{user}: points, and thanks that went out");
        }
    }
}

impl Daemon<'_> {
    /// True: it died. False: it has nothing more to do, and lives.
    fn dies_or_settles(&mut self) -> bool {
        // what is on disk may be done a moment before the process dies of it
        let mut calm = 0;
        eventually("its death, or the end of its work", || {
            if self.has_ended() {
                return Some(true);
            }
            calm = if self.is_settled() && self.get("/healthz").0 == "200" { calm + 1 } else { 0 };
            (calm == 2).then_some(false)
        })
    }
}

/// What the shop sends of one person: each message by itself, since each may be the last one.
pub fn messages_of(user: &str, at: &str) -> Vec<Json> {
    let traits = json!({ "email": format!("{user}@post.example") });
    let known = json!({ "type": "identify", "messageId": format!("i-{user}"), "userId": user, "traits": traits, "timestamp": at });
    let ordered = (0..ORDERS).map(|n| {
        let properties = json!({ "order_id": format!("{user}-{n}"), "total": 12 });
        json!({ "type": "track", "messageId": format!("o-{user}-{n}"), "userId": user, "event": "Order Completed",
            "properties": properties, "timestamp": at })
    });
    std::iter::once(known).chain(ordered).collect()
}

pub fn id_of(message: &Json) -> String {
    message["messageId"].as_str().expect("an id").to_owned()
}

fn people(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("u{n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_finds_what_is_planted() {
    let users = people(2);
    // the first mail is refused, and what waited for its place goes instead
    let refusal = Script::from([("rcpt", vec![Act::Say("550 5.7.1 relaying denied")])]);
    let mut trial = Trial::with(Options { script: refusal, ..Options::default() }).await;
    trial.goes_on(&users);
    let (answered, taken) = (trial.answered.clone(), trial.sink.message_ids());
    let refused = users.iter().flat_map(|user| trial.place.messages(user)).find(|row| row.state.name() == "failed");
    let refused = refused.map(|row| row.message.id.to_string());
    assert!(refused.is_some());
    let with = |more: Option<String>| taken.iter().cloned().chain(more).collect::<Vec<_>>();
    let event = answered.iter().cloned().chain(["o-never".to_owned()]).collect::<Vec<_>>();
    for (what, answered, taken, (lost, doubled), finding) in [
        ("an event is not there", &event, with(None), (1, 0), "`o-never` was answered for"),
        ("a mail came twice", &answered, with(taken.first().cloned()), (0, 1), "was taken 2 times"),
        ("a mail never came", &answered, taken[1..].to_vec(), (1, 0), "nobody took it"),
        ("a mail that was refused", &answered, with(refused), (0, 0), "on record as failed"),
        ("a mail of nobody", &answered, with(Some("0190a5e0-0000-7000-8000-000000000001".to_owned())), (0, 0), "is not on record"),
    ] {
        let report = trial.examine(answered, &taken);
        let findings = report["findings"].as_array().expect("findings");
        let balance = &report["evidence"];
        assert_eq!((balance["lost"].as_u64(), balance["doubled"].as_u64()), (Some(lost), Some(doubled)), "{what}: {report:#}");
        assert!(findings.len() == 1 && findings[0]["detail"].as_str().is_some_and(|said| said.contains(finding)), "{what}: {report:#}");
    }
}

/// Dies at each of these points once, and once more while it is at it (the third time that the point is reached).
async fn dies_and_goes_on(points: &[Point], may_leave_doubt: bool) {
    let users = people(3);
    for point in points {
        for nth in [1, 3] {
            let mut trial = Trial::begin().await;
            let at = format!("{}:{nth}", point.name());
            let died = trial.dies_at(&at, &users);
            assert!(died || nth > 1, "{at} is never reached");
            let balance = trial.goes_on(&users);
            let unknown = balance["unknown"].as_u64().expect("a count");
            // the third time others may be under way
            assert!(may_leave_doubt || nth > 1 || unknown == 0, "{at}: no byte had left, and {unknown} are unknown");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i7_killed_around_every_step_of_taking_in_and_deciding_it_loses_and_doubles_nothing() {
    let points = [Point::IngestReceived, Point::IngestAppended, Point::EvaluateClaimed, Point::EvaluateDecided, Point::EvaluateCommitted];
    dies_and_goes_on(&points, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i5_killed_around_every_step_of_sending_it_sends_nothing_twice() {
    dies_and_goes_on(&[Point::DispatchClaimed, Point::DispatchIntending], false).await;
    let after_the_intent =
        [Point::DispatchIntended, Point::DispatchLeaving, Point::SmtpDot, Point::DispatchAnswered, Point::DispatchRecorded];
    dies_and_goes_on(&after_the_intent, true).await;
}

/// Every commit is a place to die at, before and after it. Some of them here; all of them by `cargo test --test it every_commit -- --ignored`.
async fn dies_around_commits(numbers: impl Iterator<Item = usize>) -> usize {
    let users = people(2);
    let mut deaths = 0;
    for nth in numbers {
        for point in [Point::StoreWriting, Point::StoreWritten] {
            let mut trial = Trial::begin().await;
            let died = trial.dies_at(&format!("{}:{nth}", point.name()), &users);
            trial.goes_on(&users);
            if !died {
                return deaths;
            }
            deaths += 1;
        }
    }
    deaths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_some_commits_it_goes_on_as_if_nothing_had_happened() {
    assert_eq!(dies_around_commits([2, 5, 8, 11].into_iter()).await, 8, "there are more commits than that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: every commit of a day, before and after"]
async fn killed_around_every_commit_it_goes_on_as_if_nothing_had_happened() {
    let deaths = dies_around_commits(1..).await;
    println!("{deaths} deaths");
    assert!(deaths >= 20, "only {deaths}");
}

/// A rule that everybody satisfies when it goes live, and that gives each of them points once.
const AND_A_BONUS: &str = r#"
  - id: bonus
    name: A bonus for whoever has ordered
    owner: tests
    when: orders_lifetime >= 1
    existing: enter
    max_entries: 1000000
    reentry: never
    steps: [{ id: give, points: { add: 5, class: earned, reason: bonus } }]
"#;

/// First looks are spread over ten minutes.
const ELEVEN_MINUTES_MS: i64 = 11 * 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i12_killed_while_rules_go_live_a_whole_set_is_live_and_everybody_has_the_first_look() {
    let users = people(3);
    for point in [Point::RulesPublishing, Point::RulesPublished, Point::RulesInUse] {
        let mut trial = Trial::begin().await;
        assert!(trial.dies_at(point.name(), &users), "{}: the first set", point.name());
        trial.goes_on(&users);
        trial.place.write_rules(&format!("{RULES}{AND_A_BONUS}"));
        assert!(trial.dies_at(point.name(), &users), "{}: the second set", point.name());

        let offset = trial.place.offset();
        let mut daemon = trial.life(&[(CLOCK_OFFSET, offset.to_str().expect("a path"))]);
        assert!(daemon.is_up(), "{}", daemon.log());
        fs::write(&offset, ELEVEN_MINUTES_MS.to_string()).expect("written");
        eventually("everybody had the first look", || {
            daemon.get("/metrics").1.lines().any(|line| line == "rekindle_entries_total 3").then_some(())
        });
        assert_eq!(daemon.terminate().0, Some(0));
        let published = trial.place.read(async |store: &SqliteStore| store.publications(10).await.expect("read"));
        assert_eq!(published.len(), 2, "{}: each set went live once", point.name());
        trial.expect(&users, ORDERS as i64 * POINTS + 5);
    }
}

/// A seed's numbers, one after the other.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = twox_hash::XxHash3_64::oneshot(&self.0.to_le_bytes());
        self.0 % most
    }
}

/// Lives that end by SIGKILL, at moments reached by what the relay took and the shop was answered for, until `goes_on` says no.
async fn soak(seed: u64, mut goes_on: impl FnMut(usize) -> bool) -> (usize, u64) {
    let (mut trial, mut seeded, mut users, mut kills) = (Trial::begin().await, Seeded(seed), Vec::new(), 0);
    let key = trial.key.clone();
    while goes_on(kills) {
        let fresh: Vec<String> = (0..4).map(|n| format!("u{kills}-{n}")).collect();
        let messages: Vec<Json> = fresh.iter().flat_map(|user| trial.messages(user)).collect();
        users.extend(fresh);
        let (sends, mails) = (1 + seeded.below(messages.len() as u64) as usize, trial.sink.begun() + seeded.below(8) as usize);
        let seen = trial.sink.seen.clone();
        let mut daemon = trial.life(&[]);
        assert!(daemon.is_up(), "{}", daemon.log());
        let answered: Vec<String> =
            messages.iter().take(sends).filter(|message| daemon.try_send(&key, std::slice::from_ref(message))).map(id_of).collect();
        // in the middle of what came of it, or when nothing more comes of it
        while !daemon.is_settled() {
            let begun = seen.lock().expect("no panic").commands.iter().filter(|line| line.starts_with("MAIL")).count();
            if begun >= mails {
                break;
            }
        }
        daemon.kill();
        trial.answered.extend(answered);
        kills += 1;
    }
    let balance = trial.goes_on(&users);
    (kills, balance["unknown"].as_u64().expect("a count"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i5_killed_again_and_again_it_loses_and_doubles_nothing() {
    soak(7, |kills| kills < 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "by hand: REKINDLE_SOAK_MINUTES=10 cargo test --test it long_soak -- --ignored --nocapture"]
async fn long_soak() {
    let minutes: u64 = std::env::var("REKINDLE_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let begun = std::time::Instant::now();
    let seed = begun.elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    let (kills, unknown) = soak(seed, |_| begun.elapsed().as_secs() < minutes * 60).await;
    println!("seed {seed}: {kills} kills, {unknown} unknown");
}

/// The machine sleeps, or somebody stops the process: it wakes up long after its last heartbeat, with a mail under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_past_many_beats_and_woken_it_takes_the_late_answer_and_counts_the_gap_as_downtime() {
    let gate = Arc::new(Semaphore::new(0));
    let mut trial = Trial::with(Options { gate: Some(gate.clone()), offers: vec!["PIPELINING"], ..Options::default() }).await;
    let (key, users) = (trial.key.clone(), people(2));
    let (first, second) = (trial.messages("u0"), trial.messages("u1"));
    let (offset, seen) = (trial.place.offset(), trial.sink.seen.clone());
    let mut daemon = trial.life(&[(CLOCK_OFFSET, offset.to_str().expect("a path"))]);
    assert!(daemon.is_up(), "{}", daemon.log());
    daemon.send(&key, &first);
    eventually("two mails wait for their answer", || (seen.lock().expect("no panic").mails.len() == CAP).then_some(()));
    daemon.signal("STOP");
    gate.add_permits(100);
    fs::write(&offset, (20 * 60_000).to_string()).expect("written");
    daemon.signal("CONT");
    daemon.says(&["clock of this machine was set forward"]);
    daemon.send(&key, &second);
    daemon.settles();
    daemon.figure("rekindle_clock_steps_total{direction=\"forward\"} 1");
    assert_eq!(daemon.terminate().0, Some(0));
    trial.answered.extend(first.iter().chain(&second).map(id_of));
    assert_eq!(trial.check(&users)["unknown"], 0, "an answer that comes late is an answer");
    let downtime =
        trial.place.read(async |store: &SqliteStore| store.world(Timestamp::DISTANT_PAST).await.expect("read").world.downtime.clone());
    let long = downtime.iter().filter(|(from, until)| until.ms_since(*from) > 19 * 60_000).count();
    assert_eq!(long, 1, "{downtime:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_drains_it_leaves_doubt_and_no_second_mail() {
    let gate = Arc::new(Semaphore::new(0));
    let mut trial = Trial::with(Options { gate: Some(gate.clone()), offers: vec!["PIPELINING"], ..Options::default() }).await;
    let (key, users) = (trial.key.clone(), people(3));
    let messages: Vec<Json> = users.iter().flat_map(|user| trial.messages(user)).collect();
    let seen = trial.sink.seen.clone();
    let mut daemon = trial.life(&[]);
    assert!(daemon.is_up(), "{}", daemon.log());
    daemon.send(&key, &messages);
    eventually("every connection waits for its answer", || (seen.lock().expect("no panic").mails.len() == 4).then_some(()));
    daemon.signal("TERM");
    daemon.says(&["shutting down"]);
    eventually("no request is answered any more, or only by no", || (daemon.get("/readyz").0 != "200").then_some(()));
    assert!(!daemon.has_ended(), "it waits for what is under way");
    // told once more: at once
    daemon.signal("TERM");
    daemon.ended();
    drop(daemon);
    gate.add_permits(100);
    trial.answered.extend(messages.iter().map(id_of));
    let unknown = trial.goes_on(&users)["unknown"].as_u64().expect("a count");
    // those that had their intent and waited for a connection cannot be told from those that had one
    assert!((4..=6).contains(&unknown), "{unknown} are in doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kills_the_process_each_time_is_set_aside_in_the_end() {
    let mut trial = Trial::begin().await;
    let (key, messages) = (trial.key.clone(), trial.messages("u0"));
    let mut daemon = trial.life(&[(CRASH_AT, Point::EvaluateClaimed.name())]);
    assert!(daemon.is_up(), "{}", daemon.log());
    daemon.send(&key, &messages);
    daemon.ended();
    drop(daemon);
    for _ in 1..CLAIMS_MAX {
        trial.life(&[(CRASH_AT, Point::EvaluateClaimed.name())]).ended();
    }
    let others = trial.messages("u1");
    let mut daemon = trial.life(&[]);
    assert!(daemon.is_up(), "{}", daemon.log());
    daemon.says(&["set aside", "claimed 3 times"]);
    daemon.send(&key, &others);
    daemon.settles();
    assert_eq!(daemon.terminate().0, Some(0));
    assert_eq!(trial.place.messages("u1").len(), CAP, "the others go on");
    let doctor = text(&trial.place.look(&["doctor"]));
    assert!(doctor.contains("u0: due: set aside"), "{doctor}");
}

/// Six people are claimed together, and one of them kills the process: that one is set aside after three claims, the five go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_claimed_beside_what_kills_the_process_goes_on() {
    let mut trial = Trial::begin().await;
    let (key, users) = (trial.key.clone(), people(6));
    let messages: Vec<Json> = users.iter().flat_map(|user| trial.messages(user)).collect();
    let deadly = [(CRASH_OVER, "u3")];
    let mut daemon = trial.life(&deadly);
    assert!(daemon.is_up(), "{}", daemon.log());
    daemon.send(&key, &messages);
    daemon.ended();
    drop(daemon);
    let mut deaths = 1;
    loop {
        let mut daemon = trial.life(&deadly);
        if daemon.is_up() && !daemon.dies_or_settles() {
            assert_eq!(daemon.terminate().0, Some(0));
            break;
        }
        deaths += 1;
    }
    assert_eq!(deaths, CLAIMS_MAX, "the last one alone");
    let others: Vec<String> = users.into_iter().filter(|user| user != "u3").collect();
    trial.expect(&others, ORDERS as i64 * POINTS);
    let doctor = text(&trial.place.look(&["doctor"]));
    assert!(doctor.contains("u3: due: set aside") && doctor.matches("set aside").count() == 1, "{doctor}");
}
