//! The command line as its users meet it: help texts, exit codes, and what the commands print.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory;
use rekindle::cli::Cli;
use serde_json::Value as Json;

#[test]
fn the_command_tree_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_its_task_and_shows_an_example() {
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty(), "`{}` does not say what it is for", command.get_name());
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("$ rekindle "), "`{}` shows no example:\n{help}", command.get_name());
    }
}

fn rekindle(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
    command.output().expect("the program is built with the tests")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const RULE: &str = r#"rekindle: 1
rules:
  - id: quiet
    owner: tests
    when: days_silent >= 30
    existing: skip
    steps:
      - { id: mail, send: { template: note, channels: [email] } }
"#;

const TEST: &str = r#"rekindle: 1
tests:
  - name: written to on the thirtieth day
    rules: [quiet]
    start: "2026-03-05T09:00:00Z"
    given:
      user: { id: u1, first_seen_at: -400d, last_active_at: -29d }
    timeline:
      - { at: +23h, expect: { when: false, sent: [] } }
      - { at: +1d, expect: { sent: [{ note: EXPECTED }] } }
"#;

/// A directory with one rule and its test, which expects the message on `channel`.
fn shop(dir: &Path, channel: &str) {
    let files = [
        ("rule.yaml", RULE.to_owned()),
        ("rule.test.yaml", TEST.replace("EXPECTED", channel)),
        ("policy.yaml", "rekindle: 1\npolicy:\n  time: { zone: { last: UTC } }\n  consent: { marketing: always }\n  categories: { default: marketing }\n".to_owned()),
        ("events.yaml", "rekindle: 1\nevents:\n  session_started: { name: \"Session Started\", active: true }\n".to_owned()),
        ("templates/note/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing, states: { en: reviewed } }\n".to_owned()),
        ("templates/note/en/subject.liquid", "Hello\n".to_owned()),
        ("templates/note/en/text.liquid", "Come and see us.\n".to_owned()),
    ];
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("because every path has one")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

#[test]
fn test_passes_fails_and_cannot_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("a path of letters");
    shop(dir.path(), "email");
    let good = rekindle(&["test", path]);
    assert_eq!(code(&good), Some(0), "{}{}", stdout(&good), stderr(&good));
    assert!(stdout(&good).contains("1 passed, 0 failed"), "{}", stdout(&good));

    shop(dir.path(), "push");
    let bad = rekindle(&["test", path]);
    let said = stdout(&bad);
    assert_eq!(code(&bad), Some(1));
    for part in ["RK0610", "rule.test.yaml:10", "expected `sent` [{\"note\":\"push\"}], got [{\"note\":\"email\"}]", "days_silent >= 30"] {
        assert!(said.contains(part), "`{part}` is missing in\n{said}");
    }

    let missing = rekindle(&["test", "no/such/place"]);
    assert_eq!(code(&missing), Some(2), "{}", stderr(&missing));
    assert!(stderr(&missing).starts_with("error: "), "{}", stderr(&missing));
}

#[test]
fn test_names_what_is_wrong_with_a_test_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    shop(dir.path(), "email");
    let broken = TEST
        .replace("rules: [quiet]", "rules: [quite]")
        .replace("+23h", "+26h")
        .replace("user: { id: u1,", "usr: { id: u1,")
        .replace("EXPECTED", "email");
    fs::write(dir.path().join("rule.test.yaml"), broken).expect("a file");
    let output = rekindle(&["test", dir.path().to_str().expect("a path of letters")]);
    let said = stdout(&output);
    assert_eq!(code(&output), Some(1), "{said}{}", stderr(&output));
    for part in ["RK0601", "no rule `quite`", "RK0602", "RK0101", "unknown key `usr`"] {
        assert!(said.contains(part), "`{part}` is missing in\n{said}");
    }
}

#[test]
fn simulate_counts_what_the_rules_would_have_done() {
    let dir = tempfile::tempdir().expect("a directory");
    shop(dir.path(), "email");
    let events = dir.path().join("events.ndjson");
    let session = |id: &str, user: &str, at: &str| {
        format!(r#"{{"type":"track","messageId":"{id}","userId":"{user}","event":"Session Started","timestamp":"{at}"}}"#)
    };
    let lines = [
        session("1", "anna", "2026-01-01T10:00:00Z"),
        session("2", "ben", "2026-01-01T11:00:00Z"),
        "this is no event".to_owned(),
        session("3", "anna", "2026-01-20T10:00:00Z"),
        session("3", "anna", "2026-01-20T10:00:00Z"),
        session("4", "anna", "2026-03-01T10:00:00Z"),
        session("5", "late", "2026-03-20T10:00:00Z"),
    ];
    fs::write(&events, lines.join("\n")).expect("a file");
    let (rules, events) = (dir.path().to_str().expect("a path"), events.to_str().expect("a path"));
    let output = rekindle(&["simulate", "--rules", rules, "--events", events, "--until", "2026-03-10T00:00:00Z", "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("line 3"), "{}", stderr(&output));
    let report: Json = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    assert_eq!(report["events"], 4, "the one after T and the one told twice do not count");
    assert_eq!(report["profiles"], 2);
    // ben on 31 January; anna on 19 February, and not again within thirty days
    assert_eq!(report["rules"]["quiet"]["entered"], 2);
    assert_eq!(report["rules"]["quiet"]["existing"], 0);
    let mail = &report["rules"]["quiet"]["steps"]["mail"];
    for (what, count) in [("sent", 2), ("dropped", 0), ("held", 0), ("blocked", 0)] {
        assert_eq!(mail[what], count, "{what}");
    }
    assert!(report["evaluations"].as_u64().is_some_and(|evaluations| (6..=10).contains(&evaluations)), "{report}");

    let text = rekindle(&["simulate", "--rules", rules, "--events", events, "--until", "2026-03-10"]);
    assert!(stdout(&text).contains("People do not react in a replay"), "{}", stdout(&text));
    let nothing = rekindle(&["simulate", "--rules", rules, "--events", events, "--until", "2020-01-01"]);
    assert_eq!(code(&nothing), Some(2), "{}", stderr(&nothing));
}

#[test]
fn two_thresholds_are_compared_over_the_same_events() {
    let dir = tempfile::tempdir().expect("a directory");
    shop(&dir.path().join("rules"), "email");
    let path = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let session = |id: &str, user: &str, at: &str| {
        format!(r#"{{"type":"track","messageId":"{id}","userId":"{user}","event":"Session Started","timestamp":"{at}"}}"#)
    };
    let lines = [
        session("1", "anna", "2026-01-01T10:00:00Z"),
        session("2", "ben", "2026-01-01T11:00:00Z"),
        session("3", "ben", "2026-02-05T11:00:00Z"), // 35 days: silent for 30, not for 45
        session("4", "carl", "2026-03-01T11:00:00Z"),
    ];
    fs::write(path("events.ndjson"), lines.join("\n")).expect("a file");
    let (rules, events) = (path("rules"), path("events.ndjson"));
    let ask = |more: &[&str]| {
        let mut all = vec!["simulate", "--rules", &rules, "--events", &events, "--until", "2026-03-05", "--format", "json"];
        all.extend(more);
        let output = rekindle(&all);
        let told = serde_json::from_slice::<Json>(&output.stdout).unwrap_or_default();
        (code(&output), told, stderr(&output))
    };
    let (ended, told, error) = ask(&["--what-if", "quiet.when=days_silent >= 45", "--html", &path("report.html")]);
    assert_eq!(ended, Some(0), "{error}");
    let change = &told["difference"]["changes"][0];
    assert_eq!(change["key"], "rules.quiet.when");
    assert_eq!((&change["before"], &change["after"]), (&Json::from("days_silent >= 30"), &Json::from("days_silent >= 45")));
    let quiet = &told["comparison"]["rules"]["quiet"];
    assert_eq!(
        (&quiet["gained"], &quiet["lost"], &quiet["changed"], &quiet["same"]),
        (&0.into(), &1.into(), &1.into(), &0.into()),
        "{quiet}"
    );
    assert_eq!((&quiet["sent"]["before"], &quiet["sent"]["after"]), (&2.into(), &1.into()));
    let example = told["comparison"]["examples"].as_array().expect("a list").iter().find(|example| example["user"] == "ben");
    let example = example.expect("who is lost is an example");
    assert_eq!(example["kind"], "lost");
    assert_eq!(example["before"][0]["at"], "2026-01-31T11:00:00Z");
    assert_eq!(told["figures"]["channels"]["email"]["sent"], 1);
    let page = fs::read_to_string(path("report.html")).expect("the page");
    for part in ["What differs in the rules", "days_silent &gt;= 45", "Who it changes something for", "<svg", "</html>"] {
        assert!(page.contains(part), "`{part}` is missing in the page");
    }

    // the same set, written otherwise, is no difference
    shop(&dir.path().join("others"), "email");
    let rule = dir.path().join("others/rule.yaml");
    let text = fs::read_to_string(&rule).expect("the rule").replace("rules:", "# a comment\nrules:   # and another");
    fs::write(&rule, text).expect("written");
    let (_, same, _) = ask(&["--against", &path("others")]);
    assert_eq!((&same["difference"]["changes"], &same["comparison"]["everything"]["same"]), (&Json::Array(vec![]), &2.into()), "{same}");

    for (more, ends, part) in [
        (&["--fail-if", "sends > 1"][..], Some(1), ""),
        (&["--fail-if", "sends > 2"], Some(0), ""),
        (&["--fail-if", "sent > 2"], Some(2), "there is no figure `sent`"),
        (&["--fail-if", "gained > 0"], Some(2), "nothing is compared"),
        (&["--fail-if", "sends.emial > 0"], Some(2), "there is no channel `emial`; there are email"),
        (&["--fail-if", "entered.quite > 0"], Some(2), "there is no rule `quite`"),
        (&["--from", "2026-01-31T10:30:00Z", "--fail-if", "entered > 0", "--fail-if", "sends > 1"], Some(1), ""),
        (&["--from", "2026-01-31T10:30:00Z", "--fail-if", "entered > 1"], Some(0), ""),
        (&["--what-if", "quiet.wen=1"], Some(2), "has no `wen` to change; there it has id"),
        (&["--what-if", "quiet.when=days_silnt >= 1"], Some(2), "did you mean `days_silent`?"),
        (&["--what-if", "nobody.when=true"], Some(2), "there is no rule `nobody`"),
        (&["--against", "live"], Some(2), "name it with --db"),
        (&["--sample", "0%"], Some(2), "write it like 2%"),
    ] {
        let (ended, _, error) = ask(more);
        assert_eq!(ended, ends, "{more:?}: {error}");
        assert!(error.contains(part), "{more:?}: {error}");
    }
}

#[test]
fn a_plan_says_what_going_live_would_change_and_for_whom() {
    let dir = tempfile::tempdir().expect("a directory");
    shop(&dir.path().join("rules"), "email");
    let path = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let session = |id: &str, user: &str, at: &str| {
        format!(r#"{{"type":"track","messageId":"{id}","userId":"{user}","event":"Session Started","timestamp":"{at}"}}"#)
    };
    let identify = |id: &str, user: &str| {
        format!(
            r#"{{"type":"identify","messageId":"{id}","userId":"{user}","timestamp":"2026-01-01T09:00:00Z","traits":{{"email":"{user}@example.com"}}}}"#
        )
    };
    let lines = [
        identify("0", "anna"),
        identify("1", "ben"),
        session("2", "anna", "2026-01-01T10:00:00Z"),
        session("3", "ben", "2026-01-25T11:00:00Z"),
    ];
    fs::write(path("events.ndjson"), lines.join("\n")).expect("a file");
    let demo = rekindle(&["demo", "--rules", &path("rules"), "--events", &path("events.ndjson"), "--dir", &path("data")]);
    assert_eq!(code(&demo), Some(0), "{}{}", stdout(&demo), stderr(&demo));
    let plan = |more: &[&str]| {
        let (rules, data) = (path("rules"), path("data"));
        let mut all = vec!["plan", &rules, "--dir", &data, "--format", "json"];
        all.extend(more);
        let output = rekindle(&all);
        let told = serde_json::from_slice::<Json>(&output.stdout).unwrap_or_default();
        (code(&output), told, stderr(&output))
    };
    // the replay ended on 25 January: anna falls silent on the 31st, ben on 24 February, one day too late for 30 days ahead
    let (ended, nothing, error) = plan(&["--ahead", "30d"]);
    assert_eq!(ended, Some(0), "{error}");
    assert_eq!(nothing["difference"]["changes"], Json::Array(vec![]), "{nothing}");
    assert_eq!(nothing["comparison"]["everything"]["changed"], 0);

    let rule = dir.path().join("rules/rule.yaml");
    let text = fs::read_to_string(&rule).expect("the rule");
    fs::write(&rule, text.replace("days_silent >= 30", "days_silent >= 20")).expect("written");
    let (ended, told, error) = plan(&["--ahead", "30d"]);
    assert_eq!(ended, Some(0), "{error}");
    assert_eq!(told["difference"]["changes"][0]["key"], "rules.quiet.when");
    // anna is silent for 24 days already: existing, and left alone; ben is told ten days earlier
    let quiet = &told["comparison"]["rules"]["quiet"];
    assert_eq!(told["rules"]["quiet"]["existing"], 1, "{told}");
    assert_eq!((&quiet["lost"], &quiet["changed"]), (&1.into(), &1.into()), "{quiet}");
    let (ended, ..) = plan(&["--fail-if", "lost > 0"]);
    assert_eq!(ended, Some(1));

    // the store's own events, replayed
    let db = dir.path().join("data/rekindle.db").display().to_string();
    let output =
        rekindle(&["simulate", "--rules", &path("rules"), "--db", &db, "--against", "live", "--until", "2026-03-05", "--format", "json"]);
    let told: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    let quiet = &told["comparison"]["rules"]["quiet"];
    assert_eq!((&quiet["sent"]["before"], &quiet["changed"]), (&2.into(), &2.into()), "{quiet}");
}

#[test]
fn explain_and_timeline_read_what_a_replay_has_left_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    shop(&dir.path().join("rules"), "email");
    let path = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let session = |id: &str, user: &str, at: &str| {
        format!(
            r#"{{"type":"track","messageId":"{id}","userId":"{user}","event":"Session Started","timestamp":"{at}","properties":{{"page":"start"}}}}"#
        )
    };
    let identify = r#"{"type":"identify","messageId":"0","userId":"anna","timestamp":"2026-01-01T10:00:00Z","traits":{"email":"anna@example.com","country":"GB"}}"#;
    let lines = [identify.to_owned(), session("1", "anna", "2026-01-01T10:00:00Z"), session("2", "ben", "2026-02-20T11:00:00Z")];
    fs::write(path("events.ndjson"), lines.join("\n")).expect("a file");
    let demo = rekindle(&["demo", "--rules", &path("rules"), "--events", &path("events.ndjson"), "--dir", &path("data")]);
    assert_eq!(code(&demo), Some(0), "{}{}", stdout(&demo), stderr(&demo));

    let timeline = rekindle(&["timeline", "--user", "anna", "--dir", &path("data")]);
    let said = stdout(&timeline);
    assert_eq!(code(&timeline), Some(0), "{}", stderr(&timeline));
    for part in ["Session Started page=start", "quiet: entered", "quiet.mail: note by email queued", "attempt 1: "] {
        assert!(said.contains(part), "`{part}` is missing in\n{said}");
    }
    assert!(!said.contains("anna@example.com"), "an address is shown:\n{said}");
    let order = |part: &str| said.find(part).unwrap_or_else(|| panic!("`{part}` is missing in\n{said}"));
    assert!(order("Session Started") < order("quiet: entered") && order("quiet: entered") < order("attempt 1: "));

    let explain = |args: &[&str]| {
        let mut all = vec!["explain", "--rule", "quiet", "--user", "ben", "--format", "json"];
        all.extend(args);
        let output = rekindle(&all);
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        serde_json::from_slice::<Json>(&output.stdout).expect("JSON on standard output")
    };
    let dir_args = ["--dir", &path("data")];
    let now = explain(&dir_args);
    assert_eq!((&now["outcome"], &now["next_check"]), (&Json::from("not_true"), &Json::from("2026-03-22 11:00")));
    let ahead = explain(&[dir_args[0], dir_args[1], "--at", "2026-03-22T11:00:00Z"]);
    assert_eq!(ahead["conditions"][0]["truth"], true, "at that instant thirty days are over: {ahead}");
    let before = explain(&[dir_args[0], dir_args[1], "--at", "2026-01-01T00:00:00Z"]);
    assert_eq!(before, Json::Array(vec![]), "nothing had been decided by then");
    assert_eq!(now["at"], "2026-02-20 23:59:59", "the replay was there to its end, however long ago this person was looked at");
    // what the next look decides comes before an instant after it: nothing is said of that
    for (at, when) in [("2026-03-22T11:00:00Z", "at this instant"), ("2400-01-01T00:00:00Z", "before this instant")] {
        let ahead = explain(&[dir_args[0], dir_args[1], "--at", at]);
        assert_eq!((&ahead["outcome"], &ahead["gates"]), (&Json::from("due"), &Json::Array(vec![])), "{at}");
        let because = ahead["because"].as_str().expect("text");
        assert!(because.contains("looks at ben 2026-03-22 11:00") && because.contains(when), "{because}");
    }
    let unborn = rekindle(&["explain", "--rule", "quiet", "--user", "ben", "--at", "2000-01-01T00:00:00Z", "--dir", &path("data")]);
    assert!(stdout(&unborn).contains("the first that is known of this person is of 2026-02-20 11:00"), "{}", stdout(&unborn));

    for (args, reason) in [
        (["explain", "--rule", "quiet", "--user", "nobody"], "nobody with the user id `nobody`"),
        (["explain", "--rule", "quite", "--user", "anna"], "no rule `quite` is live here; there are quiet"),
    ] {
        let output = rekindle(&[&args[..], &dir_args[..]].concat());
        assert_eq!(code(&output), Some(2));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn a_reader_who_goes_away_is_no_fault() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["test", "rules", "--run", "goodwill"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program is built with the tests");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn a_callback_whose_address_names_the_message_is_read_with_its_query() {
    let scratch = tempfile::tempdir().expect("a directory");
    let body = scratch.path().join("body.txt");
    fs::write(&body, "MessageStatus=undelivered&ErrorCode=30005&To=%2B441632960001").expect("written");
    let sample = body.display().to_string();
    let id = "019cb2d3-4e5f-7000-8000-000000000001";
    let read = rekindle(&["provider", "check", "twilio", "--sample", &sample, "--query", &format!("rekindle_message={id}")]);
    let said = stdout(&read);
    assert!(said.contains("hard_bounce") && said.contains(id) && said.contains("1 understood"), "{said}{}", stderr(&read));
    let without = rekindle(&["provider", "check", "twilio", "--sample", &sample]);
    assert!(stdout(&without).contains("a message that is not named"), "{}", stdout(&without));
}

#[test]
fn test_shows_a_film_a_difference_and_what_no_test_has_tried() {
    let dir = tempfile::tempdir().expect("a directory");
    shop(dir.path(), "sms");
    let (path, junit) = (dir.path().to_string_lossy().into_owned(), dir.path().join("tests.xml"));
    let output = rekindle(&["test", &path, "--film", "--diff", "--coverage", "--junit", &junit.to_string_lossy()]);
    assert_eq!(code(&output), Some(1));
    let out = stdout(&output);
    // the film, with offset and local time
    assert!(out.lines().any(|line| line.trim_start().starts_with("+1d  2026-03-06 09:00  quiet entered: ")), "{out}");
    assert!(out.contains("  - {\"note\":\"sms\"}\n  + {\"note\":\"email\"}\n"), "{out}");
    assert!(out.contains("\n1 of 1 parts of conditions were seen both true and false\n"), "{out}");
    let xml = fs::read_to_string(&junit).expect("the file");
    assert!(xml.contains("<testsuites tests=\"1\" failures=\"1\" errors=\"0\">"), "{xml}");
    assert!(
        xml.contains("<testcase classname=\"rule.test\" name=\"written to on the thirtieth day\" file=\"rule.test.yaml\" line=\"3\">"),
        "{xml}"
    );
    assert!(xml.contains("<failure type=\"RK0610\" message=\"at +1d: expected `sent`"), "{xml}");
}

#[test]
fn coverage_names_the_part_that_no_test_has_seen_true() {
    let dir = tempfile::tempdir().expect("a directory");
    shop(dir.path(), "email");
    let rule = RULE.replace("when: days_silent >= 30", "when: days_silent >= 30 || orders_lifetime >= 5");
    fs::write(dir.path().join("rule.yaml"), rule).expect("a file");
    let path = dir.path().to_string_lossy().into_owned();
    let output = rekindle(&["test", &path, "--coverage"]);
    let out = stdout(&output);
    assert_eq!(code(&output), Some(0), "{out}");
    assert!(out.contains("quiet: when: `orders_lifetime >= 5` was never true\n"), "{out}");
    assert!(out.contains("1 of 2 parts of conditions"), "{out}");
    let json: Json = serde_json::from_str(&stdout(&rekindle(&["test", &path, "--coverage", "--film", "--format", "json"]))).expect("JSON");
    assert_eq!(json["coverage"][1]["was_true"], Json::from(false));
    assert!(json["tests"][0]["film"].as_array().is_some_and(|film| !film.is_empty()));
}

fn copy_pack(to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

/// What it writes is sound, in form, tested under the shop's own policy, and never over something that is there.
#[test]
fn new_writes_a_rule_with_its_test_and_template_that_pass_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    copy_pack(dir.path());
    let rules = dir.path().join("rules").to_string_lossy().into_owned();
    for (id, more) in [
        ("quiet-45d", ["--kind", "silence", "--after", "45d", "--channel", "email"].as_slice()),
        ("quiet-push", &["--kind", "silence", "--after", "10d", "--channel", "push", "--owner", "team: growth"]),
        ("thanks", &["--kind", "event", "--event", "order_completed", "--after", "2h", "--channel", "sms"]),
        ("next-day", &["--kind", "event", "--event", "order_completed", "--after", "1d", "--channel", "email", "--template", "welcome"]),
    ] {
        let mut args = vec!["new", id, "--rules", &rules];
        args.extend(more);
        if !more.contains(&"--owner") {
            args.extend(["--owner", "crm"]);
        }
        let output = rekindle(&args);
        assert_eq!(code(&output), Some(0), "{id}: {}{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).matches("ok  ").count() == 2, "{id}: {}", stdout(&output));
        assert!(dir.path().join(format!("rules/templates/{id}/en")).exists() == (id != "next-day"), "{id}");
    }
    assert_eq!(code(&rekindle(&["fmt", &rules, "--check"])), Some(0), "{}", stdout(&rekindle(&["fmt", &rules, "--check"])));
    assert_eq!(code(&rekindle(&["check", &rules, "--strict"])), Some(0), "{}", stdout(&rekindle(&["check", &rules])));

    // nothing is overwritten, and nobody is asked where nobody is
    let again =
        rekindle(&["new", "quiet-45d", "--rules", &rules, "--kind", "silence", "--after", "45d", "--channel", "email", "--owner", "crm"]);
    assert!(code(&again) == Some(2) && stderr(&again).contains("there is a rule `quiet-45d` already"), "{}", stderr(&again));
    let unsaid = Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args(["new", "other", "--rules", &rules])
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert!(code(&unsaid) == Some(2) && stderr(&unsaid).contains("`--kind` is not said"), "{}", stderr(&unsaid));
    for (more, said) in [
        (["--kind", "silence", "--after", "2h"].as_slice(), "a silence is counted in days"),
        (&["--kind", "event", "--event", "order_complete"], "did you mean `order_completed`?"),
        (&["--kind", "event", "--event", "tier_at_risk"], "an event of the engine's own"),
        (&["--kind", "silence", "--after", "30d", "--channel", "e-mail"], "`e-mail` is no channel"),
    ] {
        let mut args = vec!["new", "other", "--rules", &rules];
        args.extend(more);
        let output = rekindle(&args);
        assert!(code(&output) == Some(2) && stderr(&output).contains(said), "{}", stderr(&output));
    }
}
