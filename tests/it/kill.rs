//! The demo killed with -9, again and again, and started with `--resume` each time: in the end everything is as if nothing had
//! happened. The moments are seeded, and reached by what has been written, not by the clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value as Json;

use super::demo::{doctor_agrees, part_of_the_year, recorded_lines, rekindle, summary_of, without_effort, write};

const MOMENTS: u64 = 12;

/// Bytes that the recording channel has written: grows within a batch, between send-intent and result.
fn recorded_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir.join("messages")) else { return 0 };
    let logs = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "ndjson"));
    logs.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Kills the process once it has come so far; false if it ended before.
fn kill_when(mut child: Child, has_come: impl Fn() -> bool) -> bool {
    while !has_come() {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            assert!(status.success(), "it ended by itself, and badly");
            return false;
        }
        std::thread::yield_now();
    }
    child.kill().expect("it can be killed"); // SIGKILL
    child.wait().expect("it is dead");
    true
}

fn start(dir: &Path, events: &Path, resume: bool) -> Child {
    let mut command = rekindle();
    command.arg("demo").arg("--events").arg(events).arg("--dir").arg(dir);
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("it starts")
}

/// A message as recorded, without what its own instant of writing may change.
fn by_id(dir: &Path) -> BTreeMap<String, Json> {
    let mut messages = BTreeMap::new();
    for line in recorded_lines(dir) {
        let id = line["id"].as_str().expect("an id").to_owned();
        assert!(messages.insert(id.clone(), line).is_none(), "message {id} was recorded twice");
    }
    messages
}

#[test]
fn killed_at_a_dozen_moments_and_resumed_it_ends_with_the_same_summary() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(20, "2011-08"));
    let whole_dir = scratch.path().join("whole");
    let whole = summary_of(&whole_dir, &events, &[]);
    let bytes = recorded_bytes(&whole_dir);

    let dir = scratch.path().join("killed");
    let mut killed = 0;
    for moment in 0..MOMENTS {
        // spread over the run, at an odd place within its share
        let jitter = twox_hash::XxHash3_64::oneshot(&moment.to_le_bytes()) % 1_000;
        let at = bytes * (moment * 1_000 + jitter) / (MOMENTS * 1_000) + 1;
        killed += u64::from(kill_when(start(&dir, &events, moment > 0), || recorded_bytes(&dir) >= at));
    }
    assert!(killed >= MOMENTS - 1, "only {killed} of {MOMENTS} kills met a living process");

    let resumed = summary_of(&dir, &events, &["--resume"]);
    assert_eq!(resumed["effort"]["resumed"], true);
    assert_eq!(without_effort(resumed), without_effort(whole), "nothing lost, nothing doubled");
    assert_eq!(by_id(&dir), by_id(&whole_dir), "the same messages, each once");
    doctor_agrees(&dir);
}

/// Bytes of a database with its log: grows with every commit.
fn database_bytes(path: &Path) -> u64 {
    let of = |suffix: &str| fs::metadata(format!("{}{suffix}", path.display())).map_or(0, |metadata| metadata.len());
    of("") + of("-wal")
}

#[test]
fn killed_while_the_rules_go_live_it_goes_on_as_if_nothing_had_happened() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(40, "2011-03"));
    let whole_dir = scratch.path().join("whole");
    let whole = summary_of(&whole_dir, &events, &[]);

    let dir = scratch.path().join("killed");
    let database = dir.join("rekindle.db");
    // from the first byte of the database on: tables made, rules published, the first week loaded
    let mut killed = 0;
    let mut bytes = 1;
    while recorded_bytes(&dir) == 0 && killed < MOMENTS {
        // the directory is a demo's once its marker is written
        let resume = dir.join("demo.json").exists();
        if !kill_when(start(&dir, &events, resume), || database_bytes(&database) >= bytes) {
            break;
        }
        killed += 1;
        bytes = database_bytes(&database) + 1;
    }
    assert!(killed >= 3, "only {killed} kills met the time before the first message");
    let resumed = summary_of(&dir, &events, &["--resume"]);
    assert_eq!(without_effort(resumed), without_effort(whole), "nothing lost, nothing doubled");
    assert_eq!(by_id(&dir), by_id(&whole_dir), "the same messages, each once");
    doctor_agrees(&dir);
}

#[test]
fn killed_while_facts_come_in_and_started_again_each_is_there_once() {
    let scratch = tempfile::tempdir().expect("a directory");
    let facts = part_of_the_year(2, "2011-09");
    let file = write(scratch.path(), "facts.ndjson", &facts);
    let database = scratch.path().join("shop.db");
    let import = || {
        let mut command = rekindle();
        command.args(["import", "--rules", "rules", "--format", "json", "--db"]).arg(&database).arg(&file);
        command
    };
    let mut killed = 0;
    for moment in 1..=MOMENTS {
        let child = import().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        // each life comes a little further than the one before
        let bytes = database_bytes(&database) + moment * 40_000;
        if !kill_when(child, || database_bytes(&database) >= bytes) {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 5, "only {killed} kills met a living process");
    let out = import().output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Json = serde_json::from_slice(&out.stdout).expect("JSON");
    let count = |what: &str| report[what].as_u64().unwrap_or_else(|| panic!("no `{what}` in {report}"));
    assert_eq!(count("new") + count("duplicates"), facts.lines().count() as u64, "each fact is on record once");
    assert!(count("duplicates") > 0, "nothing had been kept: the kills came before the first commit");
    let out = rekindle().args(["doctor", "--db"]).arg(&database).output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn the_demo_kills_itself_and_its_own_examination_finds_nothing() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(40, "2012"));
    let whole = summary_of(&scratch.path().join("whole"), &events, &[]);

    let dir = scratch.path().join("killed");
    let mut killed = summary_of(&dir, &events, &["--kill"]);
    let kill = killed.as_object_mut().expect("an object").remove("kill").expect("what came of the kills");
    // so small a shop's year may be over before the last of the twenty
    assert!(kill["times"].as_u64().is_some_and(|times| times >= MOMENTS), "{kill:#}");
    let in_doubt = whole["messages"]["by_state"]["unknown"].as_u64().unwrap_or_default();
    let balance = serde_json::json!({ "lost": 0, "doubled": 0, "caps_exceeded": 0, "unknown": in_doubt });
    assert_eq!(kill["balance"], balance, "{kill:#}");
    assert_eq!(without_effort(killed), without_effort(whole), "nothing lost, nothing doubled");
}
