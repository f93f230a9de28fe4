//! The demo end to end, with the real binary on a part of the real year: what it says is held against a plain count of the same
//! facts, and what it writes is opened.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rekindle::engine::time::{DAY_MS, Timestamp};
use rekindle::store::Store;
use rekindle::store::sqlite::SqliteStore;
use serde_json::Value as Json;

/// The binary under test.
pub fn rekindle() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rekindle"))
}

/// The lines of the retailer's year about every `nth` customer, up to a date.
pub fn part_of_the_year(nth: u64, until: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/online-retail/events.ndjson.gz");
    let file = fs::File::open(path).expect("the data is in the project");
    let mut part = String::new();
    for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines() {
        let line = line.expect("text");
        let json: Json = serde_json::from_str(&line).expect("JSON");
        let user: u64 = json["userId"].as_str().and_then(|id| id.strip_prefix("or-")).and_then(|id| id.parse().ok()).expect("a customer");
        if user.is_multiple_of(nth) && json["timestamp"].as_str().expect("a timestamp") < until {
            part.push_str(&line);
            part.push('\n');
        }
    }
    part
}

pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("the test's own directory can be written to");
    path
}

/// Runs the demo on a file of events, and reads its summary.
pub fn summary_of(dir: &Path, events: &Path, more: &[&str]) -> Json {
    let out =
        rekindle().args(["demo", "--format", "json", "--events"]).arg(events).arg("--dir").arg(dir).args(more).output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one JSON document")
}

/// What may differ between two runs of the same year.
pub fn without_effort(mut summary: Json) -> Json {
    let object = summary.as_object_mut().expect("an object");
    object.remove("effort");
    object.remove("directory");
    summary
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Times somebody was silent for more than 30 days (until the end or the next order), and returns after it: counted plainly.
fn silences_and_returns(part: &str, end: Timestamp) -> (u64, u64) {
    let mut orders: HashMap<String, Vec<Timestamp>> = HashMap::new();
    for line in part.lines() {
        let json: Json = serde_json::from_str(line).expect("JSON");
        if json["event"] == "Order Completed" {
            let at = Timestamp::parse(json["timestamp"].as_str().expect("text")).expect("an instant");
            orders.entry(json["userId"].as_str().expect("text").to_owned()).or_default().push(at);
        }
    }
    let (mut silences, mut returns) = (0, 0);
    for mut instants in orders.into_values() {
        instants.sort_unstable();
        let gaps = instants.windows(2).filter(|pair| pair[1].ms_since(pair[0]) > 30 * DAY_MS).count() as u64;
        let last = instants.last().expect("an order");
        silences += gaps + u64::from(last.plus_ms(30 * DAY_MS) < end);
        returns += gaps;
    }
    (silences, returns)
}

#[test]
fn a_part_of_the_year_is_replayed_and_told_as_it_was() {
    let scratch = tempfile::tempdir().expect("a directory");
    let part = part_of_the_year(20, "2012");
    let events = write(scratch.path(), "part.ndjson", &part);
    let dir = scratch.path().join("demo");
    let summary = summary_of(&dir, &events, &[]);

    // facts, against a plain count
    let users: BTreeSet<String> =
        part.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON")["userId"].as_str().expect("text").to_owned()).collect();
    assert_eq!(summary["data"]["profiles"], users.len());
    assert_eq!(summary["data"]["events"], part.lines().count());
    let end = Timestamp::parse(summary["data"]["until"].as_str().expect("text")).expect("an instant");
    let (silences, returns) = silences_and_returns(&part, end);
    let total =
        |what: &str| summary["weeks"].as_array().expect("weeks").iter().map(|week| week[what].as_u64().expect("a count")).sum::<u64>();
    assert_eq!((total("fell_silent"), total("returned")), (silences, returns));

    // two ways to count the same messages
    let by_state = |state: &str| summary["messages"]["by_state"][state].as_u64().unwrap_or_default();
    assert_eq!(total("sent"), by_state("accepted") + by_state("delivered") + by_state("bounced"));
    assert!(by_state("delivered") > 0 && total("warned") < total("sent"));

    // the story has all its parts
    let points = |what: &str| summary["points"][what].as_i64().expect("points");
    for what in ["granted", "lapsed", "deducted", "restored"] {
        assert!(points(what) > 0, "no points were {what}: {}", summary["points"]);
    }
    assert!(points("restored") <= points("deducted") + points("lapsed"));
    for gate in ["quiet_hours", "caps", "holdout"] {
        assert!(summary["gates"].get(gate).is_some(), "gate {gate} did nothing: {}", summary["gates"]);
    }
    for (rule, year) in summary["rules"].as_object().expect("rules") {
        let ended: u64 = year["ended"].as_object().expect("ended").values().map(|count| count.as_u64().expect("a count")).sum();
        assert_eq!(year["entered"].as_u64().expect("a count"), ended + year["running"].as_u64().expect("a count"), "{rule}");
    }
    assert!(summary["effort"]["evaluations"].as_u64() < summary["daily_scan_evaluations"].as_u64());

    messages_are_on_disk(&dir, &summary);
    page_is_whole(&dir);
    doctor_agrees(&dir);

    // once more: afresh, and the same; what is not the demo's stays where it is
    let mine = write(&dir.join("messages/email"), "notes.txt", "mine");
    let again = summary_of(&dir, &events, &[]);
    assert_eq!(without_effort(again), without_effort(summary));
    assert_eq!(fs::read_to_string(mine).expect("it is there"), "mine");
    messages_are_on_disk_and_no_others(&dir);
}

/// Every file of a message belongs to a line of the same run.
fn messages_are_on_disk_and_no_others(dir: &Path) {
    let known: BTreeSet<String> = recorded_lines(dir).iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect();
    for entry in fs::read_dir(dir.join("messages/email")).expect("mails") {
        let path = entry.expect("an entry").path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        assert!(id == "notes" || known.contains(&id), "{} is of an earlier run", path.display());
    }
}

#[test]
fn what_was_killed_before_its_first_line_begins_with_resume() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(200, "2011-02"));
    let dir = scratch.path().join("demo");
    fs::create_dir(&dir).expect("a directory");
    write(&dir, ".demo.json.tmp", "{");
    let begun = summary_of(&dir, &events, &["--resume"]);
    assert_eq!(without_effort(begun), without_effort(summary_of(&scratch.path().join("other"), &events, &[])));
}

#[test]
fn what_claims_to_come_from_the_future_does_not_make_decades_of_a_year() {
    let scratch = tempfile::tempdir().expect("a directory");
    let part = part_of_the_year(200, "2011-02");
    let far = r#"{"type":"track","userId":"or-12400","event":"Order Completed","messageId":"far","timestamp":"2961-01-05T10:00:00Z"}"#;
    let events = write(scratch.path(), "part.ndjson", &format!("{part}{far}\n"));
    let out = rekindle().args(["demo", "--format", "json", "--events"]).arg(&events).arg("--dir").arg(scratch.path().join("demo")).output();
    let out = out.expect("it runs");
    let summary: Json = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(summary["data"]["rejected"], 1);
    assert!(summary["data"]["until"].as_str().expect("text").starts_with("2011-0"), "{}", summary["data"]);
    assert!(stderr(&out).contains("which is still to come"), "{}", stderr(&out));
}

#[test]
fn the_rules_to_change_are_there_wherever_the_binary_is() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "my part.ndjson", &part_of_the_year(200, "2011-03"));
    let run = |args: &[&str]| rekindle().current_dir(scratch.path()).args(args).output().expect("it runs");
    let out = run(&["demo", "--events", "my part.ndjson", "--dir", "mine"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("rekindle demo --rules mine/rules --events 'my part.ndjson' --dir mine\n"), "{said}");
    let place = said.split("Change a rule: ").nth(1).and_then(|rest| rest.split(':').next()).expect("a file");
    assert!(scratch.path().join(place).is_file(), "{place}");
    // nobody lost points in these three months, so nobody got any back
    let page = fs::read_to_string(scratch.path().join("mine/index.html")).expect("a page");
    assert!(page.contains("Chosen because this customer ") && !page.contains("got points back"), "a claim without ground");
    let again = run(&["demo", "--rules", "mine/rules", "--events", &events.display().to_string(), "--dir", "mine", "--format", "json"]);
    assert!(again.status.success() && scratch.path().join(place).is_file(), "{}", stderr(&again));
}

fn messages_are_on_disk(dir: &Path, summary: &Json) {
    let mut by_channel: BTreeMap<String, u64> = BTreeMap::new();
    for line in recorded_lines(dir) {
        assert!(line.get("simulated").is_some(), "{line}");
        *by_channel.entry(line["channel"].as_str().expect("a channel").to_owned()).or_default() += 1;
    }
    for (channel, states) in summary["messages"]["by_channel"].as_object().expect("channels") {
        let count = |state: &str| states.get(state).and_then(Json::as_u64).unwrap_or(0);
        let recorded = ["accepted", "delivered", "bounced", "unknown"].map(count).iter().sum::<u64>();
        assert_eq!(by_channel.get(channel).copied().unwrap_or(0), recorded, "{channel}: {states}");
    }
    let mails: Vec<_> = fs::read_dir(dir.join("messages/email")).expect("mails").collect();
    let mail = fs::read_to_string(mails[0].as_ref().expect("a mail").path()).expect("a mail is text");
    for header in ["Message-ID:", "Date:", "From:", "To:", "Subject:", "X-Rekindle-Simulated:"] {
        assert!(mail.to_lowercase().contains(&header.to_lowercase()), "{header} is missing in\n{mail}");
    }
}

/// Every line that the recording channel wrote.
pub fn recorded_lines(dir: &Path) -> Vec<Json> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir.join("messages")).expect("the messages' directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            let text = fs::read_to_string(path).expect("text");
            lines.extend(text.lines().map(|line| serde_json::from_str::<Json>(line).expect("every line is JSON")));
        }
    }
    lines
}

fn page_is_whole(dir: &Path) {
    let page = fs::read_to_string(dir.join("index.html")).expect("a page");
    for part in
        ["The year by week", "What the gates held", "Points and tiers", "One customer's year: or-", "not now", "simulated", "</html>"]
    {
        assert!(page.contains(part), "the page lacks `{part}`");
    }
    for elsewhere in ["src=\"http", "href=\"http", "src=http", "@import", "<script", "<link"] {
        assert!(!page.contains(elsewhere), "the page is not self-contained: `{elsewhere}`");
    }
    assert!(!page.contains("{{"), "a placeholder was left");
}

pub fn doctor_agrees(dir: &Path) {
    let out = rekindle().args(["doctor", "--dir"]).arg(dir).output().expect("it runs");
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), stderr(&out));
}

#[test]
fn a_directory_that_is_not_a_demos_is_left_alone() {
    let scratch = tempfile::tempdir().expect("a directory");
    let precious = write(scratch.path(), "precious.txt", "mine");
    let out = rekindle().args(["demo", "--dir"]).arg(scratch.path()).output().expect("it runs");
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("is not a demo's"), "{}", stderr(&out));
    assert_eq!(fs::read_to_string(precious).expect("it is there"), "mine");
    assert_eq!(fs::read_dir(scratch.path()).expect("it is there").count(), 1, "nothing was added");

    let out = rekindle().args(["demo", "--resume", "--dir"]).arg(scratch.path()).output().expect("it runs");
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("nothing to go on with"), "{}", stderr(&out));
}

#[tokio::test]
async fn a_second_process_on_the_same_database_is_turned_away_and_nothing_is_lost() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events = write(scratch.path(), "part.ndjson", &part_of_the_year(200, "2011-02"));
    let dir = scratch.path().join("demo");
    summary_of(&dir, &events, &[]);
    let store = SqliteStore::open(&dir.join("rekindle.db"), "demo").await.expect("the demo is over");
    let before = store.counts().await.expect("counts");
    for command in [&["demo"][..], &["demo", "--resume"]] {
        let mut run = rekindle();
        run.args(command).arg("--dir").arg(&dir).arg("--events").arg(&events);
        let out = run.output().expect("it runs");
        assert_eq!(out.status.code(), Some(2), "{command:?}");
        assert!(stderr(&out).contains("in use"), "{command:?}: {}", stderr(&out));
    }
    assert_eq!(store.counts().await.expect("counts"), before);
}

#[test]
fn bad_rows_are_shown_and_do_not_stop_the_year() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut text = part_of_the_year(200, "2011-02");
    let good = text.lines().count();
    text.push_str("{\"type\":\"track\",\"event\":\"Order Completed\",\"timestamp\":\"2011-01-05T10:00:00Z\"}\nnot json\n");
    text.push_str(&"x".repeat(50_000_000));
    text.push('\n');
    let events = write(scratch.path(), "part.ndjson", &text);
    let out = rekindle().args(["demo", "--format", "json", "--events"]).arg(&events).arg("--dir").arg(scratch.path().join("demo")).output();
    let out = out.expect("it runs");
    assert!(out.status.success(), "{}", stderr(&out));
    let summary: Json = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((&summary["data"]["events"], &summary["data"]["rejected"]), (&good.into(), &3.into()));
    for reason in ["nobody to whom it happened", "not JSON", "50000000 bytes"] {
        assert!(stderr(&out).contains(reason), "{reason} is not said: {}", stderr(&out));
    }
}

#[test]
fn your_own_orders_tell_the_same_story() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut csv = "Customer ID;Order Date;Total\n".to_owned();
    for line in part_of_the_year(50, "2011-06").lines() {
        let json: Json = serde_json::from_str(line).expect("JSON");
        if json["event"] == "Order Completed" {
            let at = json["timestamp"].as_str().expect("text");
            csv.push_str(&format!(
                "{};{} {};{}\n",
                json["userId"].as_str().expect("text"),
                &at[..10],
                &at[11..16],
                json["properties"]["total"]
            ));
        }
    }
    let orders = write(scratch.path(), "orders.csv", &csv);
    let out = rekindle().args(["demo", "--orders"]).arg(&orders).arg("--dir").arg(scratch.path().join("mine")).output().expect("it runs");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(said.contains("fell silent") && said.contains("warned"), "{said}");
    assert!(said.contains("Assumed, not in the data"), "{said}");
    assert!(said.contains("rekindle timeline --user or-"), "{said}");
}

#[test]
fn rules_with_errors_are_shown_and_nothing_is_replayed() {
    let scratch = tempfile::tempdir().expect("a directory");
    let rules = scratch.path().join("rules");
    fs::create_dir(&rules).expect("a directory");
    write(&rules, "bad.yaml", "rekindle: 1\nrules:\n  - id: oops\n    owner: me\n    whn: days_silent >= 30\n");
    let dir = scratch.path().join("demo");
    let out = rekindle().args(["demo", "--rules"]).arg(&rules).arg("--dir").arg(&dir).output().expect("it runs");
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    assert!(stderr(&out).contains("bad.yaml:5") && stderr(&out).contains("did you mean `when`"), "{}", stderr(&out));
    assert!(!dir.exists());
}
