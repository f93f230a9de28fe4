//! Copies of a database at work, what a start on one of them does, and databases of every schema there ever was.

use std::io::Read as _;
use std::path::Path;

use rekindle::engine::action::MessageState;
use rekindle::engine::event::EventKind;
use rekindle::engine::time::{DAY_MS, HOUR_MS};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Appended, PauseScope, Store};
use serde_json::json;

use super::daemon::{Place, recorded, text};
use super::retention::{Shop, book, event, start};
use super::store::given::from_user;

/// Ana has a mail that went, ben one that waits: it goes after the backup was taken.
#[tokio::test]
async fn what_a_backup_was_about_to_send_is_in_doubt_and_nothing_goes_out() {
    let shop = Shop::open(&book()).await;
    let at = start();
    for user in ["ana", "ben"] {
        let traits = json!({ "email": format!("{user}@post.example") });
        shop.append(event(&format!("i-{user}"), EventKind::Identify, "", traits, at, at), user).await;
        let consent = json!({ "purpose": "marketing", "channel": "email", "granted": true });
        shop.append(event(&format!("c-{user}"), EventKind::Consent, "", consent, at, at), user).await;
    }
    let order =
        |id: &str| event(id, EventKind::Track, "Order Completed", json!({ "order_id": id, "total": 20, "currency": "EUR" }), at, at);
    shop.append(order("1"), "ana").await;
    shop.work(at).await;
    shop.append(order("2"), "ben").await;
    shop.evaluate(at).await;
    let copy = shop.path().with_file_name("copy.db");
    let taken_at = at.plus_ms(HOUR_MS);
    SqliteStore::back_up(&shop.path(), &copy, taken_at).await.expect("a backup beside a store that is at work");
    let again = SqliteStore::back_up(&shop.path(), &copy, taken_at).await.expect_err("a backup replaces nothing");
    assert!(again.to_string().contains("it is there already"), "{again}");
    shop.work(at).await;
    assert_eq!(shop.sent(), 2, "the original goes on");
    assert_eq!(shop.store.after_restore(taken_at).await.expect("asked"), None, "and is no backup");

    let restored = Shop::at(&book(), &copy).await;
    let now = at.plus_ms(2 * DAY_MS);
    let found = restored.store.after_restore(now).await.expect("asked").expect("it is a backup");
    assert_eq!((found.taken_at, found.messages), (taken_at, 1));
    assert_eq!(restored.store.after_restore(now).await.expect("asked"), None, "once");
    assert_eq!(restored.states("ben").await, [MessageState::Unknown]);
    assert_eq!(restored.states("ana").await, [MessageState::Accepted]);
    for hours in 0..48 {
        restored.work(now.plus_ms(hours * HOUR_MS)).await;
    }
    assert_eq!(restored.sent(), 0, "everything is paused");
    restored.store.set_pause(now, PauseScope::All, None, "tests").await.expect("resumed");
    restored.store.make_all_due(now.plus_ms(2 * DAY_MS), 0).await.expect("due");
    restored.work(now.plus_ms(2 * DAY_MS)).await;
    assert_eq!(restored.states("ben").await[0], MessageState::Unknown, "nobody sends it a second time");
    restored.doctor();
}

#[tokio::test]
async fn a_backup_holds_everything_that_was_acknowledged_before_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("shop.db");
    let store = SqliteStore::open(&path, "test").await.expect("a database");
    let writing = store.clone();
    let append = async move |n: i64| -> Appended {
        let one = super::store::given::event(&format!("e{n}"), super::store::given::hour(1));
        writing.append_events(vec![from_user(&format!("u{}", n % 9), one)]).await.expect("appended")
    };
    for n in 0..200 {
        append(n).await;
    }
    let copy = directory.path().join("copy.db");
    let (backed_up, ()) = tokio::join!(SqliteStore::back_up(&path, &copy, start()), async {
        for n in 200..400 {
            append(n).await;
        }
    });
    assert!(backed_up.expect("a backup") > 0);
    let held = SqliteStore::open_to_read(&copy).await.expect("it opens").counts().await.expect("counts").events;
    assert!((200..=400).contains(&held), "{held}");
    assert_eq!(store.counts().await.expect("counts").events, 400);
    let beside: Vec<String> =
        std::fs::read_dir(directory.path()).expect("read").map(|e| e.expect("read").file_name().to_string_lossy().into_owned()).collect();
    assert!(!beside.iter().any(|name| name.contains(".part")), "{beside:?}");
}

const RULES: &str = r#"
rekindle: 1
events: { signed_up: { name: "Signed Up", active: true } }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  channels: { sms: { provider: recording } }
rules:
  - { id: hello, name: Greet who signs up, owner: tests, event: signed_up, steps: [{ id: greet, send: { template: hello, channels: [sms] } }] }
"#;

/// With the built binary: copied beside a daemon, and started on after the original has sent what waited.
#[test]
fn a_daemon_that_starts_on_a_backup_is_paused_and_says_so() {
    let templates = [("hello/template.yaml", "rekindle: 1\ntemplate: { purpose: account }"), ("hello/en/sms.liquid", "Hello!")];
    let place = Place::new(RULES, &templates);
    let daemon = place.serve("serve.log");
    let key = place.write_key();
    assert!(place.run(&["pause", "--channel", "sms", "--reason", "tests"]).status.success());
    let person = |user: &str| {
        [
            json!({ "type": "identify", "messageId": format!("i-{user}"), "userId": user, "traits": { "phone": "+441632960001" } }),
            json!({ "type": "track", "messageId": format!("s-{user}"), "userId": user, "event": "Signed Up" }),
        ]
    };
    daemon.send(&key, &person("ana"));
    daemon.settles();
    let copy = place.path("copy.db");
    let made = place.run(&["backup", "--to", &copy.display().to_string()]);
    assert!(made.status.success() && text(&made).contains("read back and sound"), "{}", text(&made));
    assert!(place.run(&["resume", "--channel", "sms", "--yes"]).status.success());
    daemon.settles();
    let sent = recorded(&place, "sms");
    daemon.kill();

    for beside in ["shop.db", "shop.db-wal", "shop.db-shm"] {
        let _gone = std::fs::remove_file(place.path(beside));
    }
    std::fs::rename(&copy, place.database()).expect("restored");
    let daemon = place.serve("again.log");
    daemon.says(&["started on a backup of"]);
    let said = text(&place.run(&["pause"]));
    assert!(said.contains("everything since") && said.contains("restored from a backup"), "{said}");
    daemon.send(&key, &person("ben"));
    daemon.settles();
    assert_eq!(recorded(&place, "sms"), sent, "nothing goes out");
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
    assert_eq!(daemon.terminate().0, Some(0));
    // a second start is an ordinary one
    let daemon = place.serve("third.log");
    assert!(!daemon.log().contains("started on a backup"));
}

/// Databases of every schema, as programs of their time left them (`tests/data/schemas`): opened, brought up to date, gone on with.
#[tokio::test]
async fn a_database_of_every_schema_opens_and_goes_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schemas");
    let mut files: Vec<_> = std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    files.sort();
    let migrations = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite")).expect("the folder").count();
    assert_eq!(files.len(), migrations, "a file for each schema: see tests/data/schemas/README.md");
    for file in &files {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("old.db");
        let mut bytes = Vec::new();
        let packed = std::fs::File::open(file).expect("it opens");
        flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("it unpacks");
        std::fs::write(&path, bytes).expect("written");
        let store = SqliteStore::open(&path, "demo").await.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let before = store.counts().await.expect("counts");
        assert!(before.profiles > 2 && before.events > 20 && before.messages.len() > 1, "{}: {before:?}", file.display());
        let id = store.profiles(None, 1).await.expect("read").profiles.first().expect("somebody").profile.key.clone();
        let one = super::store::given::event("after the upgrade", super::store::given::hour(1));
        assert_eq!(store.append_events(vec![from_user(&id, one)]).await.expect("appended").profiles_created, 0, "{}", file.display());
        store.close().await;
        let doctor = super::demo::rekindle().args(["doctor", "--db"]).arg(&path).output().expect("it runs");
        assert!(doctor.status.success(), "{}: {}", file.display(), text(&doctor));
    }
}
