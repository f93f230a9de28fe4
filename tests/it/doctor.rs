//! `rekindle doctor` finds what somebody changed behind its back, and says where.

use std::path::Path;
use std::process::Output;

use serde_json::Value as Json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::demo::{part_of_the_year, rekindle, summary_of, write};

fn doctor(dir: &Path) -> Output {
    rekindle().args(["doctor", "--format", "json", "--dir"]).arg(dir).output().expect("it runs")
}

/// The kinds of finding after a change to the database.
async fn found_after(dir: &Path, change: &str) -> Vec<String> {
    let path = dir.join("rekindle.db");
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let changed = sqlx::query(AssertSqlSafe(change.to_owned())).execute(&mut connection).await.expect(change);
    assert!(changed.rows_affected() > 0, "{change} changes nothing");
    connection.close().await.expect("it closes");
    let out = doctor(dir);
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
        ("delete from events where seq = (select max(seq) from events where name = 'Order Completed')", "facts"),
        ("delete from entries where seq = (select min(seq) from entries where what = 'entered')", "runs"),
        ("update attempts set started_at = (select max(started_at) from attempts), outcome = null", "caps"),
    ];
    for (change, expected) in changes {
        let found = found_after(&dir, change).await;
        assert!(found.iter().any(|what| what == expected), "{change}: {found:?}");
    }
}
