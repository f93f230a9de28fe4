//! Several daemons on one PostgreSQL, as they are shipped: they share the work, one is killed in the middle of it, and an operator stops
//! all of them with one command.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rekindle::store::postgres::PostgresStore;
use rekindle::store::{Identity, Store as _};
use serde_json::{Value as Json, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::crash::{self, Seeded, TEMPLATES};
use super::daemon::{Daemon, Place, eventually, text};
use super::journey;
use super::mail::sink::{Options, Sink};
use super::proxy::{Link, Proxy};
use super::store::server::{self, Server};

/// A message about the order itself, which needs no way to unsubscribe.
fn rules() -> String {
    journey::RULES.replace("default: marketing", "default: service")
}

/// A shop on PostgreSQL.
struct Fleet {
    place: Place,
    url: String,
}

impl Fleet {
    fn new(url: String, port: u16) -> Fleet {
        Fleet::with(&rules(), url, port)
    }

    fn with(rules: &str, url: String, port: u16) -> Fleet {
        let place = Place::new(rules, &TEMPLATES);
        let at = |name: &str| place.path(name).display().to_string();
        std::fs::write(place.path("database.url"), &url).expect("written");
        let settings = format!(
            "environment: shop\ndatabase: {{ url: \"file:{}\", beat_seconds: 1, answer_seconds: 2 }}\nrules: {{ directory: {} }}\nrecording: {{ directory: {} }}\n\
             http: {{ listen: \"127.0.0.1:0\" }}\nserve: {{ drain_seconds: 10 }}\nlogs: {{ format: json, level: \"rekindle=trace,info\" }}\n\
             providers:\n  relay: {{ kind: smtp, host: localhost, port: {port}, connections: 4, tls: none }}\n",
            at("database.url"),
            at("rules"),
            at("out")
        );
        std::fs::write(place.path("rekindle.yaml"), settings).expect("written");
        Fleet { place, url }
    }

    /// As docs/scale/distribute.sql leaves the database.
    async fn mark_as_spread(&self) {
        let mut connection = PgConnection::connect(&self.url).await.expect("the server answers");
        let mark = include_str!("../../docs/scale/distribute.sql").lines().find(|line| line.starts_with("insert into counters"));
        sqlx::query(AssertSqlSafe(mark.expect("it leaves a mark"))).execute(&mut connection).await.expect("marked");
    }

    fn look(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_rekindle")).args(args).args(["--db", &self.url]).output().expect("it runs")
    }

    /// What the offline checker finds, given what happened outside: nothing; its balance.
    fn checked(&self, answered: &[String], taken: &[String]) -> Json {
        let write = |name: &str, lines: &[String]| {
            let path = self.place.path(name);
            std::fs::write(&path, lines.join("\n")).expect("written");
            path.display().to_string()
        };
        let (answered, taken) = (write("answered.txt", answered), write("taken.txt", taken));
        let output = self.look(&["doctor", "--format", "json", "--acknowledged", &answered, "--taken", &taken]);
        let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        assert_eq!(report["findings"], json!([]), "{report:#}");
        for what in ["lost", "doubled", "caps_exceeded"] {
            assert_eq!(report["evidence"][what], 0, "{report:#}");
        }
        report["evidence"].clone()
    }

    /// Each person has the points of a plain sum, and of the thanks for all orders the cap's went out or may have.
    async fn expect(&self, users: &[String]) {
        let store = PostgresStore::open_to_read(&self.url).await.expect("it opens");
        for user in users {
            let id = store.find_profile(&Identity::User(user.as_str().into())).await.expect("read").expect("a person");
            let history = store.history(id).await.expect("a history");
            let points: i64 = history.postings.iter().map(|posting| posting.amount).sum();
            let went = history.messages.iter().filter(|row| matches!(row.state.name(), "accepted" | "unknown")).count();
            assert_eq!((points, went), (crash::ORDERS as i64 * crash::POINTS, crash::CAP), "{user}");
        }
        store.close().await;
    }

    /// How many messages are in which state.
    async fn states(&self) -> BTreeMap<&'static str, u64> {
        let store = PostgresStore::open_to_read(&self.url).await.expect("it opens");
        let mut states = BTreeMap::new();
        for ((.., state), count) in store.counts().await.expect("read").messages {
            *states.entry(state.name()).or_default() += count;
        }
        store.close().await;
        states
    }

    /// Waits until there are so many people and nobody is due.
    async fn looked_at_everybody(&self, people: u64) {
        let store = PostgresStore::open_to_read(&self.url).await.expect("it opens");
        for _ in 0..1_200 {
            let now = rekindle::clock::Clock::now(&rekindle::clock::SystemClock);
            let is_due = !store.agenda(now).await.expect("read").is_empty();
            if !is_due && store.counts().await.expect("read").profiles == people {
                store.close().await;
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("somebody is still due");
    }

    /// What [`Fleet::states`] says as soon as it is as wanted.
    async fn until(&self, what: &str, is_so: impl Fn(&BTreeMap<&'static str, u64>) -> bool) -> BTreeMap<&'static str, u64> {
        for _ in 0..1_200 {
            let states = self.states().await;
            if is_so(&states) {
                return states;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("never seen: {what}: {:?}", self.states().await);
    }
}

fn orders(daemon: &Daemon<'_>, users: std::ops::Range<usize>) -> Vec<Json> {
    let at = daemon.begun_at();
    let of = |n: usize| {
        let traits = json!({ "email": format!("u{n}@post.example") });
        [
            json!({ "type": "identify", "messageId": format!("i{n}"), "userId": format!("u{n}"), "traits": traits, "timestamp": at }),
            json!({ "type": "track", "messageId": format!("o{n}"), "userId": format!("u{n}"), "event": "Order Placed",
                "properties": { "order": n.to_string() }, "timestamp": at }),
        ]
    };
    users.flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_share_the_work_and_outlive_each_other() {
    two_daemons(false).await;
}

/// The same where the database says of itself that it spreads people over machines: daemons and commands work bucket by bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_share_the_work_where_people_are_spread() {
    two_daemons(true).await;
}

async fn two_daemons(is_spread: bool) {
    const EACH: usize = 150;
    let Some(server) = server::shared() else { return };
    let sink = Sink::start(Options { offers: vec!["PIPELINING"], ..Options::default() }).await;
    let fleet = Fleet::new(server.database().await, sink.port);
    let key = fleet.place.write_key();
    if is_spread {
        fleet.mark_as_spread().await;
    }
    let (first, second) = (fleet.place.serve("first.log"), fleet.place.serve("second.log"));
    // both hear of everybody; half of it twice
    for from in (0..2 * EACH).step_by(50) {
        first.send(&key, &orders(&first, from..from + 50));
        second.send(&key, &orders(&second, from..from + 25));
    }
    eventually("a good part of the mails", || (sink.mails().len() > EACH / 3).then_some(()));
    first.kill();
    let over = |states: &BTreeMap<&'static str, u64>| {
        states.values().sum::<u64>() == 2 * EACH as u64 && states.keys().all(|state| ["accepted", "unknown"].contains(state))
    };
    let states = fleet.until("every message has ended", over).await;
    let (mut ids, in_doubt) = (sink.message_ids(), states.get("unknown").copied().unwrap_or(0));
    let arrived = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), arrived, "no message arrived twice");
    let lost = 2 * EACH - arrived;
    assert!(lost as u64 <= in_doubt, "{lost} mails did not arrive, and only {in_doubt} messages are in doubt");

    // the second is alone now, and is stopped by a command that needs no daemon
    let paused = fleet.place.run(&["pause", "--all", "--reason", "wrong prices", "--by", "anna"]);
    assert!(paused.status.success(), "{}", text(&paused));
    second.send(&key, &orders(&second, 1_000..1_020));
    fleet.looked_at_everybody(2 * EACH as u64 + 20).await;
    assert_eq!(sink.mails().len(), arrived, "nothing goes out while it is paused");
    let resumed = fleet.place.run(&["resume", "--all", "--yes", "--by", "anna"]);
    assert!(resumed.status.success(), "{}", text(&resumed));
    eventually("they go out", || (sink.mails().len() == arrived + 20).then_some(()));
    assert_eq!(second.terminate().0, Some(0));

    let doctor = fleet.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
    let timeline = text(&fleet.look(&["timeline", "--user", "u1000"]));
    assert!(timeline.contains("thanks"), "{timeline}");
    let store = PostgresStore::open_to_read(&fleet.url).await.expect("it opens");
    assert!(store.find_profile(&Identity::User("u1019".into())).await.expect("read").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_one_daemon_puts_live_are_followed_by_the_other() {
    let Some(server) = server::shared() else { return };
    let sink = Sink::start(Options { offers: vec!["PIPELINING"], ..Options::default() }).await;
    let fleet = Fleet::new(server.database().await, sink.port);
    let first = fleet.place.serve("first.log");
    let second = fleet.place.serve("second.log");
    fleet.place.write_rules(&rules().replace("Thank for each order", "Thank you for each order"));
    let who_published = |log: &str| log.lines().filter(|line| line.contains("rules went live")).count();
    eventually("one of them publishes and both have it", || {
        let logs = (first.log(), second.log());
        let published = who_published(&logs.0) + who_published(&logs.1);
        // the first rules went live once, by the first
        (published >= 2).then_some(())
    });
    let live = fleet.look(&["explain", "--user", "nobody", "--rule", "thanks"]);
    assert!(text(&live).contains("nobody"), "{}", text(&live));
    let publications = fleet.place.run(&["rollback", "--list"]);
    assert!(publications.status.success(), "{}", text(&publications));
    for daemon in [first, second] {
        assert_eq!(daemon.terminate().0, Some(0));
    }
}

/// The way of one daemon to the database goes silent, or is cut, while it takes in, decides, sends and records: it stops sending, says that
/// it is not ready, and another takes over; when the way is mended it goes on by itself. Nothing is lost, nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i5_a_daemon_without_its_database_stands_back_and_another_takes_over() {
    const PEOPLE: usize = 60;
    let Some(server) = server::shared() else { return };
    let sink = Sink::start(Options { offers: vec!["PIPELINING"], ..Options::default() }).await;
    let url = server.database().await;
    let proxy = Proxy::before(server.port());
    let (near, far) = (Fleet::new(url.clone(), sink.port), Fleet::new(proxy.instead_of(&url), sink.port));
    let key = near.place.write_key();
    let (first, second) = (near.place.serve("first.log"), far.place.serve("second.log"));
    let mut answered = Vec::new();
    for (round, link) in [Link::Silent, Link::Cut, Link::SilentToClient, Link::SilentToServer].into_iter().enumerate() {
        let people = round * PEOPLE..(round + 1) * PEOPLE;
        let middle = people.start + PEOPLE / 2;
        // at first whoever gets to it works on what both heard
        let (mails, mut events) = (sink.mails().len(), orders(&second, people.start..middle));
        second.send(&key, &events);
        eventually("the first mails", || (sink.mails().len() > mails + 3).then_some(()));
        proxy.set(link);
        let refused = orders(&second, middle..people.end);
        assert!(!second.try_send(&key, &refused), "{link:?}: what is not on disk is not answered for");
        eventually("it is not ready", || (second.get("/readyz").0 != "200").then_some(()));
        first.send(&key, &refused);
        events.extend(refused);
        near.until("the other does all of it", |states| states.keys().all(|state| ["accepted", "unknown"].contains(state))).await;
        proxy.set(Link::Passes);
        eventually("it is ready again", || (second.get("/readyz").0 == "200").then_some(()));
        answered.extend(events.iter().filter_map(|event| event["messageId"].as_str().map(str::to_owned)));
    }
    near.looked_at_everybody(4 * PEOPLE as u64).await;
    near.until("every message has ended", |states| states.keys().all(|state| ["accepted", "unknown"].contains(state))).await;
    for daemon in [first, second] {
        assert_eq!(daemon.terminate().0, Some(0));
    }
    let balance = near.checked(&answered, &sink.message_ids());
    println!("{} unknown", balance["unknown"]);
}

const WORKERS: usize = 4;

/// Four daemons on one database. While the shop sends, now to one of them and now to another, one is killed by SIGKILL in the middle of what
/// it does, and another begins in its place; until `goes_on` says no. How many were killed, and the offline checker's balance.
async fn soak(server: &Server, seed: u64, mut goes_on: impl FnMut(usize) -> bool) -> (usize, Json) {
    let sink = Sink::start(Options { offers: vec!["PIPELINING"], ..Options::default() }).await;
    let fleet = Fleet::with(crash::RULES, server.database().await, sink.port);
    let (key, at, mut seeded) = (fleet.place.write_key(), jiff::Timestamp::now().to_string(), Seeded(seed));
    let mut workers: Vec<Daemon<'_>> = (0..WORKERS).map(|number| fleet.place.serve(&format!("worker-{number}.log"))).collect();
    let (mut users, mut answered, mut kills) = (Vec::new(), Vec::new(), 0);
    while goes_on(kills) {
        let fresh: Vec<String> = (0..6).map(|n| format!("u{kills}-{n}")).collect();
        let messages: Vec<Json> = fresh.iter().flat_map(|user| crash::messages_of(user, &at)).collect();
        let (victim, mails) = (seeded.below(WORKERS as u64) as usize, sink.begun() + 1 + seeded.below(10) as usize);
        let hearers: Vec<usize> = messages.iter().map(|_| seeded.below(WORKERS as u64) as usize).collect();
        let is_over = AtomicBool::new(false);
        let heard: Vec<String> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while sink.begun() < mails && !is_over.load(Ordering::SeqCst) {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                workers[victim].signal("KILL");
            });
            // twice each: what one has heard, another hears again
            let sent = messages.iter().zip(&hearers).flat_map(|(message, hearer)| {
                [*hearer, (hearer + 1) % WORKERS].map(|hearer| (message, workers[hearer].try_send(&key, std::slice::from_ref(message))))
            });
            let heard = sent.filter(|(_, answered)| *answered).map(|(message, _)| crash::id_of(message)).collect();
            is_over.store(true, Ordering::SeqCst);
            heard
        });
        answered.extend(heard);
        users.extend(fresh);
        kills += 1;
        workers[victim].ended();
        workers[victim] = fleet.place.serve(&format!("worker-{}.log", WORKERS + kills));
    }
    // the shop sends everything once more, as a sender does that had no answer
    let messages: Vec<Json> = users.iter().flat_map(|user| crash::messages_of(user, &at)).collect();
    messages.chunks(200).zip((0..WORKERS).cycle()).for_each(|(batch, hearer)| workers[hearer].send(&key, batch));
    answered.extend(messages.iter().map(crash::id_of));
    fleet.looked_at_everybody(users.len() as u64).await;
    fleet
        .until("nothing waits or is under way", |states| !["queued", "leased", "sending"].iter().any(|open| states.contains_key(open)))
        .await;
    workers.into_iter().for_each(|worker| assert_eq!(worker.terminate().0, Some(0)));
    fleet.expect(&users).await;
    (kills, fleet.checked(&answered, &sink.message_ids()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_i5_four_daemons_killed_again_and_again_lose_and_double_nothing() {
    let Some(server) = server::shared() else { return };
    let (kills, balance) = soak(server, 11, |kills| kills < 6).await;
    println!("{kills} kills, {} unknown", balance["unknown"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "by hand: REKINDLE_SOAK_MINUTES=10 cargo test --test it long_soak_of_four -- --ignored --nocapture"]
async fn long_soak_of_four() {
    let server = server::shared().expect("PostgreSQL is installed");
    let minutes: u64 = std::env::var("REKINDLE_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let begun = std::time::Instant::now();
    let seed = u64::from(std::process::id()) << 32 | begun.elapsed().as_nanos() as u64;
    let (kills, balance) = soak(server, seed, |_| begun.elapsed().as_secs() < minutes * 60).await;
    println!("seed {seed}: {kills} kills, {balance}");
}

/// Two daemons with different files: the newer ones are live for both, and a restart of the one that is late does not bring the older ones
/// back. Only somebody does who says so, or changes the files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_does_not_flap_between_two_sets_of_rules() {
    let Some(server) = server::shared() else { return };
    let url = server.database().await;
    let named = |name: &str| rules().replace("Thank for each order", name);
    let (old, new) = (Fleet::with(&named("The old thanks"), url.clone(), 1), Fleet::with(&named("The new thanks"), url.clone(), 1));
    let published = async || {
        let store = PostgresStore::open_to_read(&url).await.expect("it opens");
        let rows = store.publications(10).await.expect("read");
        store.close().await;
        (rows.len(), rows.first().map(|row| row.version))
    };
    let late = old.place.serve("old.log");
    let (_, of_old) = published().await;
    let ahead = new.place.serve("new.log");
    let (count, of_new) = published().await;
    assert!(count == 2 && of_old != of_new, "{count}");
    late.says(&["took the rules into use that another process put live"]);
    late.kill();

    let late = old.place.serve("late.log");
    let said = late.says(&["the files on disk were live before and were replaced by"]);
    assert!(said.contains("rekindle reload"), "{said}");
    assert_eq!(published().await, (2, of_new), "it follows");
    assert!(late.get("/readyz").1.contains("were replaced by"), "{}", late.get("/readyz").1);

    // somebody wants them back
    let reloaded = old.place.run(&["reload", "--by", "anna"]);
    assert!(reloaded.status.success(), "{}", text(&reloaded));
    assert_eq!(published().await, (3, of_old));
    // or changes the files of one that runs
    new.place.write_rules(&named("The newest thanks"));
    let mut newest = None;
    for _ in 0..1_200 {
        newest = Some(published().await).filter(|(count, _)| *count == 4).and_then(|(_, version)| version);
        if newest.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let newest = format!("{:016x}", newest.expect("a version"));
    late.says(&["took the rules into use that another process put live", &newest]);
    for daemon in [late, ahead] {
        assert_eq!(daemon.terminate().0, Some(0));
    }
}

/// A newer program has migrated the database under a daemon: it stands back with a clear word, and what it takes in waits for the newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_whose_database_a_newer_program_has_migrated_stands_back() {
    let Some(server) = server::shared() else { return };
    let sink = Sink::start(Options { offers: vec!["PIPELINING"], ..Options::default() }).await;
    let fleet = Fleet::new(server.database().await, sink.port);
    let key = fleet.place.write_key();
    let daemon = fleet.place.serve("first.log");
    let mut connection = PgConnection::connect(&fleet.url).await.expect("the server answers");
    let ahead =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'ahead', true, '', 0)";
    sqlx::query(ahead).execute(&mut connection).await.expect("written");
    daemon.says(&["claims and sends nothing any more", "schema 9999"]);
    eventually("it is not ready", || {
        let (status, body) = daemon.get("/readyz");
        (status == "503" && body.contains("use the newer program")).then_some(())
    });
    daemon.send(&key, &orders(&daemon, 0..5));
    let (code, log) = daemon.terminate();
    assert!(code == Some(0) && !log.contains("set aside"), "{log}");
    let refused = fleet.place.run(&["serve"]);
    assert!(!refused.status.success() && text(&refused).contains("schema 9999"), "{}", text(&refused));
    assert!(sink.mails().is_empty());
    // the newer program goes on with all of it
    sqlx::query("delete from _sqlx_migrations where version = 9999").execute(&mut connection).await.expect("written");
    let daemon = fleet.place.serve("second.log");
    eventually("every mail", || (sink.mails().len() == 5).then_some(()));
    assert_eq!(daemon.terminate().0, Some(0));
}
