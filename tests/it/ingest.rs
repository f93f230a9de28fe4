//! `rekindle import`: what comes in once, what is turned away, and what is said about it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Identity, Store};
use serde_json::Value as Json;

use super::demo::{part_of_the_year, rekindle, write};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");

fn import(dir: &Path, file: &Path, more: &[&str]) -> Output {
    let db = dir.join("shop.db");
    let run = rekindle().arg("import").arg(file).args(["--rules", RULES, "--format", "json", "--db"]).arg(db).args(more).output();
    run.expect("it runs")
}

fn report(out: &Output) -> Json {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
}

fn events() -> String {
    let rows = [
        r#"{"type":"identify","messageId":"a","userId":"u1","timestamp":"2026-01-01T10:00:00Z","traits":{"country":"DE"}}"#,
        r#"{"type":"track","messageId":"b","userId":"u1","event":"Order Completed","timestamp":"2026-01-01T10:00:00Z","properties":{"order_id":"1","total":10}}"#,
        r#"{"type":"track","messageId":"c","event":"Order Completed","timestamp":"2026-01-01T10:00:00Z"}"#,
        r#"{"type":"track","messageId":"d","userId":"u2","event":7,"timestamp":"2026-01-01T10:00:00Z"}"#,
        r#"{"type":"track","messageId":"e","userId":"u2","event":"Order Completed","timestamp":"soon"}"#,
        "nonsense",
        r#"{"type":"consent","userId":"u2","timestamp":"2026-01-02","properties":{"purpose":"marketing","channel":"email","granted":true}}"#,
    ];
    rows.join("\n")
}

#[test]
fn a_file_is_taken_in_once_and_bad_rows_are_written_down() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = write(scratch.path(), "events.ndjson", &events());
    // a directory that is not there is a slip of the pen: nothing is made, nothing is taken in
    let nowhere = scratch.path().join("bad/rows.ndjson");
    let out = import(scratch.path(), &file, &["--rejects", nowhere.to_str().expect("text")]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("bad/rows.ndjson") && !scratch.path().join("bad").exists());

    let rejects = scratch.path().join("rows.ndjson");
    let out = import(scratch.path(), &file, &["--rejects", rejects.to_str().expect("text")]);
    assert_eq!(out.status.code(), Some(1), "rejected rows are a finding");
    let first = report(&out);
    assert_eq!((&first["new"], &first["rejected"], &first["people_created"]), (&3.into(), &4.into(), &2.into()), "{first}");

    let written: Vec<Json> =
        fs::read_to_string(rejects).expect("it was written").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let lines: Vec<u64> = written.iter().map(|row| row["line"].as_u64().expect("a line")).collect();
    assert_eq!(lines, [3, 4, 5, 6]);
    assert_eq!(written[3]["row"], "nonsense");
    assert!(written[0]["reason"].as_str().expect("text").contains("nobody to whom it happened"));

    let second = report(&import(scratch.path(), &file, &[]));
    assert_eq!((&second["new"], &second["duplicates"]), (&0.into(), &3.into()), "{second}");
}

#[tokio::test]
async fn a_packed_csv_of_orders_is_told_by_its_content() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("orders"); // no ending to go by
    let mut packed = flate2::write::GzEncoder::new(fs::File::create(&file).expect("a file"), flate2::Compression::fast());
    packed.write_all(b"customer,date,amount\nc1,2026-01-02,10\nc1,2026-02-30,10\nc2,2026-01-03 09:30,20.50\n").expect("written");
    packed.finish().expect("written");
    let out = import(scratch.path(), &file, &[]);
    let said = report(&out);
    assert_eq!((&said["new"], &said["rejected"]), (&2.into(), &1.into()), "{said}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("line 3: the date is `2026-02-30`"));

    let store = SqliteStore::open(&scratch.path().join("shop.db"), "local").await.expect("the import is over");
    let id = store.find_profile(&Identity::User("c2".into())).await.expect("it reads").expect("c2 is on record");
    let history = store.history(id).await.expect("it reads");
    assert_eq!(history.events[0].0.occurred_at.to_string(), "2026-01-03T09:30:00Z");
}

#[tokio::test]
async fn a_database_in_use_is_named_with_its_holder() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = write(scratch.path(), "events.ndjson", &events());
    let _held = SqliteStore::open(&scratch.path().join("shop.db"), "local").await.expect("it opens");
    let out = import(scratch.path(), &file, &[]);
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("shop.db") && said.contains(&format!("(pid {})", std::process::id())), "{said}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let scratch = tempfile::tempdir().expect("a directory");
    let out = import(scratch.path(), &scratch.path().join("none.csv"), &[]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("none.csv"));
    let empty = write(scratch.path(), "empty.csv", "");
    let out = import(scratch.path(), &empty, &[]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("the file is empty"));
}

/// The system lets no file grow further, as on a full disk: the shell sets the limit and becomes the command.
#[cfg(unix)]
#[test]
fn a_full_disk_is_told_of_and_importing_again_goes_on() {
    let scratch = tempfile::tempdir().expect("a directory");
    let facts = part_of_the_year(4, "2011-06");
    let (few, all) = (facts.lines().take(200).collect::<Vec<_>>().join("\n"), facts.lines().count() as u64);
    let database = scratch.path().join("shop.db");
    let import = |command: &mut Command, file: &str, text: &str| {
        let file = write(scratch.path(), file, text);
        command.args(["import", "--rules", "rules", "--format", "json", "--db"]).arg(&database).arg(file).output().expect("it runs")
    };
    let begun = import(&mut rekindle(), "few.ndjson", &few);
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));

    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rekindle")]);
    let full = import(&mut limited, "facts.ndjson", &facts);
    let said = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(2), "{said}");
    assert!(said.contains("shop.db` is full, or takes no more") && said.contains("nothing earlier is lost"), "{said}");
    assert!(said.contains("importing the file again goes on"), "{said}");

    let again = import(&mut rekindle(), "facts.ndjson", &facts);
    let report: serde_json::Value = serde_json::from_slice(&again.stdout).expect("JSON");
    let count = |what: &str| report[what].as_u64().expect("a count");
    assert_eq!(count("new") + count("duplicates"), all, "{report}");
    assert!(count("duplicates") >= 200, "what was there before is there still: {report}");
    let doctor = rekindle().args(["doctor", "--db"]).arg(&database).output().expect("it runs");
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}
