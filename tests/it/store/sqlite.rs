//! The suite over SQLite, and what only SQLite has: the lock against a second process, a full disk, damaged rows, group commit.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekindle::engine::time::Timestamp;
use rekindle::store::sqlite::{Options, SqliteStore};
use rekindle::store::{Committed, Store, StoreError};
use sqlx::Connection as _;
use tempfile::TempDir;

use super::exercise::{self, Harness};
use super::given::*;

struct Sqlite {
    directory: TempDir,
    /// What [`Harness::close`] closes: a handle of the store that was opened last.
    opened: Mutex<Option<SqliteStore>>,
}

impl Sqlite {
    fn new() -> Self {
        Sqlite { directory: tempfile::tempdir().expect("a directory"), opened: Mutex::new(None) }
    }

    fn options(&self) -> Options {
        Options::new(&self.directory.path().join("rekindle.db"), "test")
    }

    async fn open_with(&self, options: Options) -> SqliteStore {
        SqliteStore::open_with(options).await.expect("the database opens")
    }
}

#[async_trait]
impl Harness for Sqlite {
    async fn open_as(&self, environment: &str) -> Box<dyn Store> {
        let store = self.open_with(Options { environment: environment.into(), ..self.options() }).await;
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
            exercise::$name(&Sqlite::new()).await;
        }
    )* };
}

exercise::each_exercise!(tests);

#[tokio::test]
async fn a_second_process_is_refused_and_told_whom_to_stop() {
    let database = Sqlite::new();
    let store = database.open().await;
    let second = SqliteStore::open_with(database.options()).await.err().expect("refused");
    let text = second.to_string();
    assert!(matches!(second, StoreError::Locked { holder: Some(pid), .. } if pid == std::process::id()), "{text}");
    assert!(text.contains("in use by another process") && text.contains("rekindle.db"), "{text}");
    database.close(store).await;
    database.open().await;
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_says_so() {
    let database = Sqlite::new();
    let store = database.open_with(Options { pages_max: Some(120), ..database.options() }).await;
    let mut acknowledged = 0;
    let full = loop {
        let batch = (0..50).map(|n| from_user("u", event(&format!("e{}", acknowledged + n), hour(1)))).collect();
        match store.append_events(batch).await {
            Ok(appended) => acknowledged += appended.new,
            Err(error) => break error,
        }
        assert!(acknowledged < 100_000, "the limit is never reached");
    };
    assert!(matches!(&full, StoreError::Full { path } if path.ends_with("rekindle.db")), "{full}");
    assert!(full.to_string().contains("full"), "{full}");
    assert_eq!(store.counts().await.expect("read").events, acknowledged, "what was acknowledged is there, and nothing else");
    store.close().await;

    let store = database.open().await;
    let again = (0..50).map(|n| from_user("u", event(&format!("e{}", acknowledged - 25 + n), hour(1)))).collect();
    let appended = store.append_events(again).await.expect("there is room again");
    assert_eq!((appended.new, appended.duplicates), (25, 25), "what was refused was not remembered either");
}

#[tokio::test]
async fn no_directory_and_no_database_are_told_apart() {
    let database = Sqlite::new();
    let nowhere = database.directory.path().join("nowhere").join("rekindle.db");
    let error = SqliteStore::open(&nowhere, "test").await.err().expect("refused").to_string();
    assert!(error.contains("nowhere"), "{error}");
    let path = database.directory.path().join("letter.db");
    std::fs::write(&path, "Dear Sir or Madam, this is no database. ".repeat(100)).expect("written");
    let error = SqliteStore::open(&path, "test").await.err().expect("refused").to_string();
    assert!(error.contains("letter.db"), "{error}");
}

#[tokio::test]
async fn a_damaged_row_is_set_aside_and_the_others_go_on() {
    let database = Sqlite::new();
    let store = database.open().await;
    let broken = settled(&*store, "broken", hour(5)).await;
    settled(&*store, "sound", hour(5)).await;
    let path = database.options().path;
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("opens");
    sqlx::query("update profiles set state = x'01ff' where id = $1").bind(broken.0).execute(&mut connection).await.expect("damaged");
    let due = store.claim_due(hour(5), 10, WORKER).await.expect("claimed");
    assert_eq!(due.profiles.iter().map(|p| &*p.profile.key).collect::<Vec<_>>(), ["sound"]);
    let (id, error) = due.corrupt.first().expect("reported");
    assert_eq!(*id, broken);
    let text = error.to_string();
    assert!(text.contains("profiles.state") && text.contains(&format!("row {}", broken.0)), "{text}");
    assert!(store.claim_due(hour(6), 10, WORKER).await.expect("claimed").corrupt.is_empty(), "it is nobody's turn any more");
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let database = Sqlite::new();
    let store = database.open_with(database.options()).await;
    store.close().await;
    let path = database.options().path;
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("opens");
    let insert = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (99, 'x', 1, x'00', 0)";
    sqlx::query(insert).execute(&mut connection).await.expect("inserted");
    connection.close().await.expect("closed");
    let error = SqliteStore::open_with(database.options()).await.err().expect("refused");
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

/// A newer program may write states that this one does not read, without another schema.
#[tokio::test]
async fn a_database_with_states_of_a_newer_program_is_refused() {
    let database = Sqlite::new();
    database.open_with(database.options()).await.close().await;
    let path = database.options().path;
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("opens");
    sqlx::query("update counters set value = 99 where name = 'states'").execute(&mut connection).await.expect("written");
    connection.close().await.expect("closed");
    let error = SqliteStore::open_with(database.options()).await.err().expect("refused");
    assert!(matches!(error, StoreError::NewerStates { found: 99, .. }), "{error}");
    let error = SqliteStore::open_to_read(&path).await.err().expect("refused").to_string();
    assert!(error.contains("states of version 99") && error.contains("use the newer program"), "{error}");
}

#[tokio::test]
async fn a_database_of_another_program_is_left_as_it_is() {
    let database = Sqlite::new();
    let path = database.options().path;
    let url = format!("sqlite:{}?mode=rwc", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("opens");
    sqlx::query("create table profiles (a)").execute(&mut connection).await.expect("created");
    let error = SqliteStore::open_with(database.options()).await.err().expect("refused");
    assert!(error.to_string().contains("another program"), "{error}");
    let tables = sqlx::query("select name from sqlite_master").fetch_all(&mut connection).await.expect("read");
    assert_eq!(tables.len(), 1, "nothing was added to it");
}

#[tokio::test]
async fn many_writers_share_transactions_and_each_gets_its_own_answer() {
    let database = Sqlite::new();
    let store = Arc::new(database.open_with(database.options()).await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200_u32 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            if n % 10 == 0 {
                // a rule that never was: this one fails, and fails alone
                return store.set_hold(hour(1), "nobody", None, "test").await.is_err();
            }
            let appended = store.append_events(vec![from_user(&format!("u{}", n % 7), event(&format!("e{}", n / 2), hour(1)))]).await;
            appended.is_ok_and(|appended| appended.new + appended.duplicates == 1)
        });
    }
    while let Some(answer) = tasks.join_next().await {
        assert!(answer.expect("no panic"));
    }
    let distinct: std::collections::BTreeSet<u32> = (0..200).filter(|n| n % 10 != 0).map(|n| n / 2).collect();
    assert_eq!(store.counts().await.expect("read").events, distinct.len() as u64);
}

#[tokio::test]
async fn forgotten_ids_are_still_found_in_the_tables() {
    let database = Sqlite::new();
    let store = database.open_with(Options { recent_ids_max: 3, ..database.options() }).await;
    let events: Vec<_> = (0..20).map(|n| from_user(&format!("u{}", n % 3), event(&format!("e{n}"), hour(n)))).collect();
    for event in &events {
        store.append_events(vec![event.clone()]).await.expect("appended");
    }
    let again = store.append_events(events.clone()).await.expect("appended");
    assert_eq!((again.new, again.duplicates), (0, 20));
    for event in events.into_iter().rev() {
        assert_eq!(store.append_events(vec![event]).await.expect("appended").duplicates, 1);
    }
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let database = Sqlite::new();
    let store = database.open_with(database.options()).await;
    let other = store.clone();
    store.close().await;
    let answer = other.append_events(vec![from_user("u", event("e", hour(1)))]).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn reads_go_on_beside_a_long_write() {
    let database = Sqlite::new();
    let store = database.open_with(database.options()).await;
    settled(&store, "u", Timestamp::FOREVER).await;
    let batch = (0..5000).map(|n| from_user(&format!("v{n}"), event(&format!("e{n}"), hour(1)))).collect();
    let user = user_named("u");
    let (written, read) = tokio::join!(store.append_events(batch), store.find_profile(&user));
    assert_eq!(written.expect("appended").profiles_created, 5000);
    assert!(read.expect("read").is_some());
    let claimed = store.claim_due(hour(1), 10_000, WORKER).await.expect("claimed").profiles;
    assert_eq!(claimed.len(), 5000);
    let commits = claimed.iter().rev().map(|p| commit(p, decision(p.profile.clone(), hour(9)))).collect();
    let answers = store.commit_decisions(commits).await.expect("answered");
    assert!(answers.iter().all(|answer| *answer == Committed::Committed));
}

/// Power is lost: of the log whatever was flushed is there, and then anything. What was answered had been flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_prefix_of_the_log_is_a_database_with_what_was_answered_until_then() {
    const EVENTS: usize = 12;
    let sqlite = Sqlite::new();
    let path = sqlite.directory.path().join("rekindle.db");
    let store = sqlite.open_with(sqlite.options()).await;
    let log = path.with_file_name("rekindle.db-wal");
    let mut answered_at = Vec::new();
    for n in 0..EVENTS {
        store.append_events(vec![from_user("u", event(&format!("e{n}"), hour(n as i64)))]).await.expect("appended");
        answered_at.push(std::fs::metadata(&log).expect("a log").len());
    }
    let (whole, bytes) = (std::fs::read(&path).expect("the database"), std::fs::read(&log).expect("the log"));
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (copy, copied_log) = (elsewhere.path().join("rekindle.db"), elsewhere.path().join("rekindle.db-wal"));
    let lengths = answered_at.iter().flat_map(|length| [*length as usize, *length as usize + 1_000, *length as usize - 7]);
    for length in lengths.map(|length| length.min(bytes.len())) {
        std::fs::remove_file(elsewhere.path().join("rekindle.db-shm")).ok();
        std::fs::write(&copy, &whole).expect("written");
        std::fs::write(&copied_log, &bytes[..length]).expect("written");
        let survived = SqliteStore::open(&copy, "test").await.expect("it opens");
        let found = survived.events(rekindle::store::EventSeq(0), 100).await.expect("read").len();
        let answered = answered_at.iter().filter(|at| **at as usize <= length).count();
        assert!(found >= answered && found <= answered + 1, "{length} bytes of the log: {found} events, {answered} were answered for");
        survived.close().await;
    }
    store.close().await;
}
