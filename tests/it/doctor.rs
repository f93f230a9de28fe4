//! `rekindle doctor` finds what somebody changed behind its back, and says where.

use std::path::Path;
use std::process::Output;

use serde_json::Value as Json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use rekindle::engine::time::Timestamp;
use rekindle::store::Store as _;
use rekindle::store::sqlite::SqliteStore;

use super::demo::{part_of_the_year, rekindle, summary_of, write};

fn doctor(dir: &Path) -> Output {
    rekindle().args(["doctor", "--format", "json", "--dir"]).arg(dir).output().expect("it runs")
}

/// The kinds of finding in a copy of the database after a change to it.
async fn found_after(dir: &Path, change: &str) -> Vec<String> {
    let copy = tempfile::tempdir().expect("a directory");
    let path = copy.path().join("rekindle.db");
    std::fs::copy(dir.join("rekindle.db"), &path).expect("it is copied");
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let changed = sqlx::query(AssertSqlSafe(change.to_owned())).execute(&mut connection).await.expect(change);
    assert!(changed.rows_affected() > 0, "{change} changes nothing");
    connection.close().await.expect("it closes");
    let out = doctor(copy.path());
    assert_eq!(out.status.code(), Some(1), "{change}: {}", String::from_utf8_lossy(&out.stderr));
    let report: Json = serde_json::from_slice(&out.stdout).expect("JSON");
    report["findings"].as_array().expect("findings").iter().map(|f| f["what"].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn what_was_changed_behind_its_back_is_found() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(100, "2011-05"));
    let dir = scratch.path().join("demo");
    summary_of(&dir, &events, &[]);
    let sound = doctor(&dir);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));

    let changes = [
        ("update postings set amount = amount + 1 where profile_id = (select min(profile_id) from postings) and number = 0", "ledger"),
        // the sum of the class stays the same, the lots do not
        (
            "update allocations set lot = (select lot from allocations o where o.profile_id = allocations.profile_id and o.posting = 1)
                where posting = 0 and profile_id = (select min(profile_id) from postings where number = 1 and kind = 'grant')",
            "ledger",
        ),
        ("delete from events where seq = (select max(seq) from events where name = 'Order Completed')", "facts"),
        ("delete from entries where seq = (select min(seq) from entries where what = 'entered')", "runs"),
        ("update attempts set started_at = (select max(started_at) from attempts), outcome = null", "caps"),
        ("update profiles set due_at = null where id = (select min(id) from profiles where due_at is not null)", "due"),
        ("update profiles set due_at = due_at + 9000000000 where id = (select min(id) from profiles where due_at is not null)", "due"),
        ("update profiles set state = x'ff00' where id = (select max(id) from profiles)", "row"),
        ("delete from consents where event_seq = (select min(event_seq) from consents)", "consents"),
        ("update consents set granted = 1 - granted where event_seq = (select min(event_seq) from consents)", "consents"),
        ("delete from exposures where profile_id = (select min(profile_id) from exposures)", "exposures"),
        ("update exposures set held_out = 1 - held_out where profile_id = (select min(profile_id) from exposures)", "exposures"),
        ("delete from identities where profile_id = (select min(id) from profiles)", "identities"),
        ("update messages set state = 'failed' where seq = (select min(seq) from messages where state = 'accepted')", "messages"),
        ("update messages set state = 'accepted' where seq = (select min(seq) from messages where state = 'failed')", "messages"),
        ("delete from messages where seq = (select min(seq) from messages)", "messages"),
        (
            "insert into messages select (select max(seq) + 1 from messages), randomblob(16), profile_id, randomblob(16), rule, rules_version,
                run_key, run, step, channel, category, template, languages, decided_at, due_at, expires_at, priority, wakes_on, state,
                because, changed_at, worker, epoch, claims, attempts, first_attempt_at, outcomes, data, consent_seq
                from messages where seq = (select min(seq) from messages where state = 'delivered')",
            "messages",
        ),
        ("delete from attempts where profile_id = (select min(profile_id) from attempts)", "messages"),
        ("update attempts set outcome = 'failed' where profile_id = (select min(profile_id) from attempts) and outcome = 'accepted'", "messages"),
    ];
    for (change, expected) in changes {
        let found = found_after(&dir, change).await;
        assert!(found.iter().any(|what| what == expected), "{change}: {found:?}");
    }
}

#[tokio::test]
async fn one_unreadable_row_does_not_hide_the_others() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(20, "2011-02"));
    let dir = scratch.path().join("demo");
    summary_of(&dir, &events, &[]);
    let broken = "update profiles set state = x'ff00', due_at = null where id in (select min(id) from profiles);
        update profiles set due_at = null where id in (select max(id) from profiles where due_at is not null)";
    let found = found_after(&dir, broken).await;
    assert_eq!(found, ["row", "due"]);
}

#[tokio::test]
async fn an_import_without_rules_is_checked_as_far_as_it_goes() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(5, "2011-02"));
    let database = scratch.path().join("rekindle.db");
    let imported = rekindle().args(["import", "--rules", "rules", "--db"]).args([&database, &events]).output().expect("it runs");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let out = rekindle().args(["doctor", "--db"]).arg(&database).output().expect("it runs");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("no rules have gone live here: facts were checked"), "{said}");
    let missing = found_after(scratch.path(), "delete from identities").await;
    assert!(missing.iter().all(|what| what == "identities") && !missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn who_only_looks_changes_nothing_and_needs_no_lock() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(5, "2011-02"));
    let dir = scratch.path().join("demo");
    summary_of(&dir, &events, &[]);
    let database = dir.join("rekindle.db");
    let before = std::fs::read(&database).expect("read");
    let working = SqliteStore::open(&database, "demo").await.expect("a process works on it");
    let user = serde_json::from_str::<Json>(part_of_the_year(5, "2011-02").lines().next().expect("a line")).expect("JSON");
    let user = user["userId"].as_str().expect("text");
    for command in [&["doctor"][..], &["timeline", "--user", user], &["explain", "--user", user, "--rule", "welcome"]] {
        let out = rekindle().args(command).arg("--dir").arg(&dir).output().expect("it runs");
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    let refused = rekindle().args(["release", "welcome", "--dir"]).arg(&dir).output().expect("it runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the database is in use"), "who writes needs the lock");
    working.close().await;

    let store = SqliteStore::open_to_read(&database).await.expect("it opens");
    let error = store.set_hold(Timestamp::default(), "welcome", None, "somebody").await.expect_err("nothing is written");
    assert!(error.to_string().contains("to read only"), "{error}");
    store.close().await;
    let again = std::fs::read(&database).expect("read");
    assert!(before.len() == again.len(), "the boot that opened to write may count itself, nothing else");
}
