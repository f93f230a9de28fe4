//! The suite over PostgreSQL, and what only many processes have: leases, races, a server that goes away.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rekindle::engine::action::{MessageState, Outcome};
use rekindle::engine::decide::Decision;
use rekindle::engine::time::Timestamp;
use rekindle::store::postgres::{Options, PostgresStore};
use rekindle::store::{Call, Committed, Look, Store, StoreError};
use sqlx::{Connection as _, PgConnection};

use super::exercise::{self, Harness};
use super::given::*;
use super::server::{self, Server};

struct Postgres {
    url: String,
    /// Whether it is worked on as one that spreads people over machines.
    distributed: bool,
    /// What [`Harness::close`] closes: a handle of the store that was opened last.
    opened: Mutex<Option<PostgresStore>>,
}

impl Postgres {
    async fn new(server: &Server, distributed: bool) -> Self {
        Postgres { url: server.database().await, distributed, opened: Mutex::new(None) }
    }

    fn options(&self, environment: &str) -> Options {
        Options { connections: 4, distributed: self.distributed, ..Options::new(&self.url, environment) }
    }
}

#[async_trait]
impl Harness for Postgres {
    async fn open_as(&self, environment: &str) -> Box<dyn Store> {
        let store = PostgresStore::open_with(self.options(environment)).await.expect("the database opens");
        *self.opened.lock().expect("no test panics here") = Some(store.clone());
        Box::new(store)
    }

    async fn close(&self, store: Box<dyn Store>) {
        drop(store);
        let opened = self.opened.lock().expect("no test panics here").take();
        opened.expect("it was opened").close().await;
    }
}

macro_rules! tests {
    ($($name:ident,)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(server) = server::shared() else { return };
            exercise::$name(&Postgres::new(server, DISTRIBUTED).await).await;
        }
    )* };
}

/// What only many processes have, in both ways.
macro_rules! each_of_many_processes {
    () => {
        many_processes! {
            promise_i5_a_dead_process_loses_its_claims_and_what_it_was_sending_is_in_doubt,
            what_a_restored_dump_was_about_to_send_is_in_doubt,
            processes_share_the_work_and_nobody_is_looked_at_twice,
            promise_i3_a_pause_by_one_process_stops_the_intent_of_another,
            a_process_hears_what_another_has_made_ready,
        }
    };
}

macro_rules! many_processes {
    ($($name:ident,)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            let Some(server) = server::shared() else { return };
            super::$name(Postgres::new(server, DISTRIBUTED).await).await;
        }
    )* };
}

/// One machine has everybody.
mod undivided {
    use super::*;

    const DISTRIBUTED: bool = false;

    exercise::each_exercise!(tests);
    each_of_many_processes!();
}

/// People are spread over machines: the same operations, bucket by bucket.
mod spread {
    use super::*;

    const DISTRIBUTED: bool = true;

    exercise::each_exercise!(tests);
    each_of_many_processes!();
}

// ------------------------------------------------------------------------------------------------------ many processes

impl Postgres {
    /// A process of its own on this database.
    async fn process(&self) -> PostgresStore {
        PostgresStore::open_with(self.options("test")).await.expect("the database opens")
    }

    /// Lets as much time pass for the processes that have joined as makes them dead.
    async fn silence_everybody(&self) {
        let mut connection = PgConnection::connect(&self.url).await.expect("the server answers");
        let age = "update workers set beaten_at = beaten_at - interval '1 minute'";
        sqlx::query(age).execute(&mut connection).await.expect("aged");
    }
}

async fn promise_i5_a_dead_process_loses_its_claims_and_what_it_was_sending_is_in_doubt(database: Postgres) {
    let first = database.process().await;
    queued(&first, "sent", &[message("sent", "warn", hour(2))], hour(60)).await;
    let under_way = sending(&first, hour(2)).await;
    queued(&first, "leased", &[message("leased", "warn", hour(3))], hour(60)).await;
    claim_messages(&first, hour(3)).await;
    settled(&first, "looked-at", hour(4)).await;
    let look = claim_one(&first, "looked-at", hour(4)).await;
    database.silence_everybody().await;

    let second = database.process().await;
    let taken_over = claim_one(&second, "looked-at", hour(4)).await;
    assert_eq!(taken_over.claims, 2, "what kills its process is counted");
    let answers = first.commit_decisions(vec![commit(&look, decision(look.profile.clone(), hour(70)))]).await.expect("answered");
    assert_eq!(answers, [Committed::Conflict], "who was taken for dead writes nothing");
    let again = claim_messages(&second, hour(4)).await;
    assert_eq!(again.iter().map(|group| &*group.profile.key).collect::<Vec<_>>(), ["leased"], "what was sending is not claimed again");

    let interrupted = second.interrupted().await.expect("read");
    let lost = interrupted.first().and_then(|group| group.messages.first()).expect("in doubt");
    assert_eq!(interrupted.len(), 1);
    second.record_results(vec![result(lost.message.id, Some(lost.epoch), Outcome::Unknown, hour(5))]).await.expect("recorded");
    assert!(second.interrupted().await.expect("read").is_empty());
    let sent = under_way.first().and_then(|group| group.messages.first()).expect("it was sent");
    let late = first.record_results(vec![result(sent.message.id, Some(sent.epoch), Outcome::Accepted, hour(6))]).await.expect("recorded");
    assert_eq!(late.first().and_then(|recorded| recorded.state), Some(MessageState::Accepted), "a late answer is not lost");
}

/// Whoever restores a dump says so by a row; then what was still to go out then is in doubt, each with the attempt that nobody knows of.
async fn what_a_restored_dump_was_about_to_send_is_in_doubt(database: Postgres) {
    let store = database.process().await;
    let (sent, waits) = (message("sent", "warn", hour(1)), message("waits", "warn", hour(20)));
    queued(&store, "sent", std::slice::from_ref(&sent), hour(60)).await;
    sending(&store, hour(1)).await;
    queued(&store, "waits", std::slice::from_ref(&waits), hour(60)).await;
    let mut connection = PgConnection::connect(&database.url).await.expect("the server answers");
    let mark = "insert into backup (id, taken_at) values (1, $1)";
    sqlx::query(mark).bind(hour(2).as_ms()).execute(&mut connection).await.expect("marked");
    let restored = store.after_restore(hour(5)).await.expect("asked").expect("it is a backup");
    assert_eq!((restored.taken_at, restored.messages), (hour(2), 2));
    assert_eq!(store.after_restore(hour(6)).await.expect("asked"), None, "once");
    assert!(store.world(hour(0)).await.expect("the world").world.paused.is_some());
    let rows = store.messages(&[sent.id, waits.id]).await.expect("read");
    let told: Vec<_> = rows.iter().map(|row| (row.state, row.tries, row.attempts.len())).collect();
    assert_eq!(told, [(MessageState::Unknown, 1, 1); 2]);
    assert!(rows.iter().flat_map(|row| &row.attempts).all(|attempt| attempt.outcome.as_deref() == Some("unknown")));
    let person = claim_one(&store, "waits", hour(5)).await;
    assert!(person.events.iter().any(|event| &*event.name == "message_unknown"), "runs and caps hear of it");
}

async fn processes_share_the_work_and_nobody_is_looked_at_twice(database: Postgres) {
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(Arc::new(database.process().await));
    }
    // the same thousand people, and half of the same events, from every process at once
    let mut tasks = tokio::task::JoinSet::new();
    for (number, process) in processes.iter().cloned().enumerate() {
        tasks.spawn(async move {
            let mut new = 0;
            for batch in 0..20 {
                let event = |n: usize| {
                    let (id, who) =
                        if n.is_multiple_of(2) { (format!("shared-{batch}-{n}"), n) } else { (format!("{number}-{batch}-{n}"), n) };
                    from_user(&format!("u{who}"), event(&id, hour(1)))
                };
                new += process.append_events((0..50).map(event).collect()).await.expect("appended").new;
            }
            new
        });
    }
    let new: u64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(new, 4 * 20 * 25 + 20 * 25, "each once, whoever brought it first");
    let counts = processes[0].counts().await.expect("read");
    assert_eq!((counts.events, counts.profiles), (new, 50));

    let mut tasks = tokio::task::JoinSet::new();
    for process in processes {
        tasks.spawn(async move {
            let (mut mine, mut heard) = (Vec::new(), 0);
            loop {
                let due = process.claim_due(hour(2), 3, WORKER).await.expect("claimed").profiles;
                if due.is_empty() {
                    return (mine, heard);
                }
                heard += due.iter().map(|p| p.events.len() as u64).sum::<u64>();
                let commits: Vec<_> = due.iter().map(|p| commit(p, decision(p.profile.clone(), Timestamp::FOREVER))).collect();
                mine.extend(due.iter().map(|p| p.claim.profile));
                let answers = process.commit_decisions(commits).await.expect("answered");
                assert!(answers.iter().all(|answer| answer.is_committed()), "{answers:?}");
            }
        });
    }
    let (people, heard): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
    let people = people.concat();
    assert_eq!(people.len(), 50, "each looked at once");
    assert_eq!(people.iter().collect::<BTreeSet<_>>().len(), 50);
    assert_eq!(heard.into_iter().sum::<u64>(), new, "every event was handed out once");
}

async fn promise_i3_a_pause_by_one_process_stops_the_intent_of_another(database: Postgres) {
    let (first, second) = (database.process().await, database.process().await);
    queued(&first, "u", &[message("u", "warn", hour(2))], hour(60)).await;
    let groups = claim_messages(&first, hour(2)).await;
    let before = generation(&first).await;
    let pause = rekindle::engine::decide::Pause { at: hour(2), reason: Arc::from("stop") };
    second.set_pause(hour(2), rekindle::store::PauseScope::All, Some(pause), "ana").await.expect("paused");
    let send = groups.iter().map(|group| intent(group, hour(2), || rekindle::store::IntentStep::Send { at: hour(2) })).collect();
    assert_eq!(first.commit_intents(before, send).await.expect("answered"), [Committed::Conflict]);
    assert!(first.world(hour(0)).await.expect("read").world.paused.is_some(), "and the other knows of it");
}

/// No turn is waited for: whoever has made somebody due, or queued a message, calls, and the others hear it. Own calls are not heard.
async fn a_process_hears_what_another_has_made_ready(database: Postgres) {
    let (first, second) = (database.process().await, database.process().await);
    first.listen().await.expect("it listens");
    second.listen().await.expect("it listens");
    let heard = |store: PostgresStore| async move {
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, store.called()).await.expect("it was called")
    };
    first.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    assert_eq!(heard(second.clone()).await, Call::People);
    let due = claim_one(&second, "u", hour(1)).await;
    let queues = Decision { messages: vec![message("u", "warn", hour(1))], ..decision(due.profile.clone(), hour(9)) };
    second.commit_decisions(vec![commit(&due, queues)]).await.expect("committed");
    assert_eq!(heard(first.clone()).await, Call::Messages, "what it called itself, it did not hear");
    // many at once are few calls, and none is needed where nothing is new
    first.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    sending(&second, hour(2)).await;
    second.append_events(vec![from_user("v", event("b", hour(1)))]).await.expect("appended");
    assert_eq!(heard(first.clone()).await, Call::People);
}

/// The server is killed and comes back: what was acknowledged is there, what was not may be repeated, and the process goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_costs_an_error_and_nothing_else() {
    let Some(server) = Server::start() else { return };
    let database = Postgres::new(&server, false).await;
    let store = database.process().await;
    let (mut acknowledged, mut refused) = (0, 0);
    for round in 0..3 {
        for n in 0..5 {
            acknowledged += store.append_events(vec![from_user("u", event(&format!("{round}-{n}"), hour(1)))]).await.expect("appended").new;
        }
        server.stop_immediately();
        let away = store.append_events(vec![from_user("u", event(&format!("{round}-away"), hour(1)))]).await;
        assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
        refused += 1;
        server.run();
        let again = store.append_events(vec![from_user("u", event(&format!("{round}-away"), hour(1)))]).await.expect("it is back");
        acknowledged += again.new;
    }
    assert_eq!((acknowledged, refused), (18, 3));
    assert_eq!(store.counts().await.expect("read").events, acknowledged);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    if server::shared().is_none() {
        return;
    }
    let error = PostgresStore::open("postgres://rekindle:secret@127.0.0.1:1/nowhere", "test").await.err().expect("refused").to_string();
    assert!(error.contains("127.0.0.1:1/nowhere") && !error.contains("secret"), "{error}");
}

/// A newer program has opened the database: this one claims and sends nothing any more, says so, still takes in what senders bring, and
/// takes no row for broken that it only does not understand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_program_beside_it_stops_the_older_one_and_nothing_is_set_aside() {
    let Some(server) = server::shared() else { return };
    let database = Postgres::new(server, false).await;
    let mut connection = PgConnection::connect(&database.url).await.expect("the server answers");
    let quick = Options { beat: Duration::from_millis(100), connections: 4, ..Options::new(&database.url, "test") };
    let (quick, slow) = (PostgresStore::open_with(quick).await.expect("it opens"), database.process().await);
    settled(&slow, "u", hour(2)).await;

    // the newer program has written somebody's row before the older one hears of it
    let newer = "with noted as (update counters set value = 99 where name = 'states')
        update profiles set state = decode('63', 'hex') || substr(state, 2) where key = 'u'";
    sqlx::query(newer).execute(&mut connection).await.expect("written");
    let claimed = slow.claim_due(hour(3), 10, WORKER).await;
    assert!(matches!(claimed, Err(StoreError::NewerStates { found: 99, .. })), "{claimed:?}");
    assert!(slow.set_aside(None, 10).await.expect("read").is_empty());
    while quick.may_send() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = quick.claim_due(hour(3), 10, WORKER).await.expect_err("refused").to_string();
    assert!(said.contains("states of version 99") && said.contains("use the newer program"), "{said}");
    assert!(quick.claim_messages(Look::Now(hour(3)), 10, WORKER).await.is_err());
    assert_eq!(quick.append_events(vec![from_user("u", event("late", hour(3)))]).await.expect("taken in").new, 1);
    let again = PostgresStore::open(&database.url, "test").await.err().expect("refused").to_string();
    assert!(again.contains("states of version 99"), "{again}");
    let looked = PostgresStore::open_to_read(&database.url).await.err().expect("refused").to_string();
    assert!(looked.contains("states of version 99"), "{looked}");

    // and a newer schema likewise
    let back = "update counters set value = 2 where name = 'states'";
    sqlx::query(back).execute(&mut connection).await.expect("written");
    let third = Options { beat: Duration::from_millis(100), ..Options::new(&database.url, "test") };
    let third = PostgresStore::open_with(third).await.expect("it opens");
    let ahead =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'ahead', true, '', 0)";
    sqlx::query(ahead).execute(&mut connection).await.expect("written");
    while third.may_send() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = third.claim_due(hour(3), 10, WORKER).await.expect_err("refused").to_string();
    assert!(said.contains("schema 9999"), "{said}");
}

/// Somebody's long transaction keeps the server from tidying up: the figure tells of it, and claims go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_of_somebody_else_is_told_of_and_claims_go_on() {
    let Some(server) = server::shared() else { return };
    let database = Postgres::new(server, false).await;
    let store = database.process().await;
    assert_eq!(store.backlog(hour(1)).await.expect("read").transaction_seconds, 0);
    let mut analyst = PgConnection::connect(&database.url).await.expect("the server answers");
    for statement in ["begin isolation level repeatable read", "select count(*) from profiles"] {
        sqlx::query(statement).execute(&mut analyst).await.expect("read");
    }
    let mut rounds = 0;
    while store.backlog(hour(1)).await.expect("read").transaction_seconds == 0 {
        rounds += 1;
        store.append_events(vec![from_user("u", event(&format!("e{rounds}"), hour(1)))]).await.expect("appended");
        let claimed = claim_one(&store, "u", hour(2)).await;
        let answers = store.commit_decisions(vec![commit(&claimed, decision(claimed.profile.clone(), hour(90)))]).await;
        assert_eq!(answers.expect("answered"), [Committed::Committed]);
    }
    sqlx::query("rollback").execute(&mut analyst).await.expect("over");
    assert_eq!(store.backlog(hour(1)).await.expect("read").transaction_seconds, 0);
}
