//! What a monitoring system is told: the figures of the shipped binary are well-formed, every alert of the example speaks of figures
//! that there are and fires on what it is for, and the docs know each of them. Prometheus' own tool judges form and firing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rekindle::audit::{self, Auditor};
use rekindle::clock::{Clock as _, VirtualClock};
use rekindle::telemetry::Metrics;
use serde_yaml::Value as Yaml;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::daemon::{eventually, recorded};
use super::http::{Door, order};
use super::serve::{place, signed_up};

/// Debian's package `prometheus`; none: say so, unless it must be there.
fn promtool() -> Option<Command> {
    let found = Command::new("promtool").arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("REKINDLE_REQUIRE_SERVICES").is_none(), "there is no promtool (see .ci/run)");
        eprintln!("skipped: there is no promtool (Debian's package prometheus)");
    }
    found.then(|| Command::new("promtool"))
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn prometheus_takes_the_figures_of_a_daemon_that_works() {
    let Some(mut promtool) = promtool() else { return };
    let place = place();
    let key = place.write_key();
    let daemon = place.serve("first.log");
    let traits = serde_json::json!({ "type": "identify", "messageId": "i", "userId": "ana", "traits": { "phone": "+441632960001" } });
    daemon.send(&key, &[traits, signed_up(&daemon, "ana", "t")]);
    eventually("the greeting was recorded", || (recorded(&place, "sms") == 1).then_some(()));
    let wanted = ["rekindle_messages_total{outcome=\"accepted\"} 1", "rekindle_audit_findings_total{compared=\"caps\"} 0"];
    wanted.into_iter().for_each(|line| daemon.figure(line));
    eventually("somebody was examined", || {
        let text = daemon.get("/metrics").1;
        text.lines().any(|line| line.strip_prefix("rekindle_audit_people_total ").is_some_and(|count| count != "0")).then_some(())
    });
    let text = daemon.get("/metrics").1;
    let found: Vec<&str> = text.lines().filter(|line| line.starts_with("rekindle_audit_findings_total") && !line.ends_with(" 0")).collect();
    assert!(found.is_empty(), "{found:?}");
    let mut lint = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    lint.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let said = lint.wait_with_output().expect("it ends");
    assert!(said.status.success() && said.stderr.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn every_alert_is_sound_and_fires_on_what_it_is_for() {
    if promtool().is_none() {
        return;
    }
    for args in [["check", "rules", "config/prometheus/alerts.yaml"], ["test", "rules", "config/prometheus/alerts.test.yaml"]] {
        let said = Command::new("promtool").current_dir(in_repository("")).args(args).output().expect("it runs");
        assert!(said.status.success(), "{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    }
}

#[test]
fn alerts_speak_of_figures_that_there_are_and_the_docs_know_them() {
    let read = |path: &str| fs::read_to_string(in_repository(path)).expect("a text");
    let alerts: Yaml = serde_yaml::from_str(&read("config/prometheus/alerts.yaml")).expect("YAML");
    let alerts = alerts["groups"][0]["rules"].as_sequence().expect("rules").clone();
    let text = |alert: &Yaml, key: &str| alert[key].as_str().expect(key).to_owned();
    let metrics = Metrics::default();
    let known: BTreeSet<&str> = metrics.names().iter().map(String::as_str).collect();
    for alert in &alerts {
        let expression = text(alert, "expr");
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("rekindle_")) {
            assert!(known.contains(word.strip_suffix("_total").unwrap_or(word)), "{word} is no figure");
        }
    }
    let page = read("docs/operating.md");
    let section = page.split_once("\n## Alerts\n").expect("the section on alerts").1.split("\n## ").next().expect("its text");
    let told: Vec<&str> = section.lines().filter(|line| line.starts_with("| `Rekindle")).collect();
    let meant: Vec<String> = alerts
        .iter()
        .map(|alert| {
            let (summary, action) = (text(&alert["annotations"], "summary"), text(&alert["annotations"], "action"));
            assert!(!summary.is_empty());
            format!("| `{}` | {action} |", text(alert, "alert"))
        })
        .collect();
    assert_eq!(told, meant, "what to do first stands in docs/operating.md as in the alert, in the same order");
    let tested = read("config/prometheus/alerts.test.yaml");
    for alert in &alerts {
        assert!(tested.contains(&format!("alertname=\"{}\"", text(alert, "alert"))), "{} is never shown firing", text(alert, "alert"));
    }
}

#[tokio::test]
async fn the_audit_finds_what_was_changed_behind_its_back_and_nothing_else() {
    let door = Door::open().await;
    door.batch(serde_json::json!([order("o1", "ana", 20.0), order("o2", "ben", 30.0)])).await;
    door.evaluate().await;
    let later = Arc::new(VirtualClock::at(door.clock.now().plus_ms(3_600_000)));
    let auditor = Auditor { store: Arc::new(door.store.clone()), rules: door.rules.clone(), clock: later };
    let sound = audit::run_once(&auditor, None, 10).await.expect("a pass");
    assert_eq!((sound.people, &sound.findings), (2, &Vec::new()));
    assert_eq!(audit::run_once(&auditor, sound.last, 10).await.expect("a pass").last, None, "then from the beginning");

    let mut behind = SqliteConnectOptions::new().filename(door.database()).connect().await.expect("it opens");
    let change = "update profiles set due_at = null where id = (select min(id) from profiles)";
    sqlx::query(change).execute(&mut behind).await.expect("changed");
    behind.close().await.expect("closed");
    let found = audit::run_once(&auditor, None, 10).await.expect("a pass").findings;
    assert_eq!(found.iter().map(|(_, finding)| finding.what).collect::<Vec<_>>(), ["due"], "{found:?}");
    // while a change of the rules still moves everybody up, a late look is no finding
    let auditor = Auditor { store: auditor.store, rules: auditor.rules, clock: door.clock.clone() };
    auditor.store.set_hold(door.clock.now(), "welcome", None, "tests").await.expect("written");
    assert_eq!(audit::run_once(&auditor, None, 10).await.expect("a pass").findings, []);
}
