//! The daemon's own promises, by the built binary: rules while it serves, kills, a second process, silence about people, environments.

use std::fs;
use std::process::Command;

use rekindle::engine::action::What;
use rekindle::engine::event::EventKind;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{EventSeq, Store};

use super::daemon::{Daemon, Place, eventually, recorded, text};

const RULES: &str = r#"
rekindle: 1
events:
  signed_up: { name: "Signed Up", active: true }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  channels: { sms: { provider: recording } }
rules:
  - id: hello
    name: Greet who signs up
    owner: tests
    event: signed_up
    steps: [{ id: greet, send: { template: hello, channels: [sms] } }]
"#;

const TEMPLATES: [(&str, &str); 2] =
    [("hello/template.yaml", "rekindle: 1\ntemplate: { purpose: account }"), ("hello/en/sms.liquid", "Hello!")];

/// Strings of a person that must stand in no log.
const CANARIES: [&str; 4] = ["canary-user-71", "canary.mail@post.example", "+441632960777", "Canaryname"];

pub fn place() -> Place {
    Place::new(RULES, &TEMPLATES)
}

/// As SDKs send it: with the instant at which it happened, which stays the same when it is sent again.
pub fn signed_up(daemon: &Daemon<'_>, user: &str, id: &str) -> serde_json::Value {
    serde_json::json!({ "type": "track", "messageId": id, "userId": user, "event": "Signed Up", "timestamp": daemon.begun_at() })
}

#[test]
fn rules_are_broken_mended_and_rolled_back_while_it_serves() {
    let place = place();
    let daemon = place.serve("first.log");
    daemon.figure("rekindle_rules_reload_failed 0");
    place.write_rules(&RULES.replace("template: hello", "template: helo"));
    daemon.figure("rekindle_rules_reload_failed 1");
    let (status, body) = daemon.get("/readyz");
    assert!(status == "200" && body.contains("the files on disk are refused"), "{status} {body}");
    let doctor =
        Command::new(env!("CARGO_BIN_EXE_rekindle")).args(["doctor", "--db"]).arg(place.path("shop.db")).output().expect("it runs");
    assert!(doctor.status.code() == Some(1) && text(&doctor).contains("refused since"), "{}", text(&doctor));

    place.write_rules(&RULES.replace("Greet who signs up", "Greet whoever signs up"));
    daemon.figure("rekindle_rules_reloads_total 2");
    daemon.figure("rekindle_rules_reload_failed 0");
    let back = place.run(&["rollback", "--reason", "it was better before", "--by", "ben"]);
    assert!(back.status.success(), "{}", text(&back));
    daemon.figure("rekindle_rules_reloads_total 3");
    assert!(daemon.get("/readyz").1.contains("rolled back"), "{}", daemon.get("/readyz").1);
    let list = text(&place.run(&["rollback", "--list"]));
    let said: Vec<&str> =
        list.lines().filter(|line| line.contains(" by ")).map(|line| line.split(" by ").nth(1).expect("a half")).collect();
    let expected = ["ben (rollback): it was better before", "anna: rules.yaml changed on disk", "anna: the first rules of this database"];
    assert_eq!(said, expected, "{list}");

    let (code, log) = daemon.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"stopped\"") || log.contains("stopped"), "{log}");
    // the rollback stands over the restart
    let daemon = place.serve("second.log");
    assert!(daemon.get("/readyz").1.contains("rolled back"), "{}", daemon.get("/readyz").1);
    let taken = place.run(&["reload"]);
    assert!(taken.status.success(), "{}", text(&taken));
    assert!(!daemon.get("/readyz").1.contains("rolled back"), "{}", daemon.get("/readyz").1);
}

#[test]
fn killed_with_events_answered_it_loses_nothing_and_a_second_process_is_refused() {
    let place = place();
    let key = place.write_key();
    let daemon = place.serve("first.log");
    let second = place.run(&["serve"]);
    assert!(second.status.code() == Some(2) && text(&second).contains("in use by another process"), "{}", text(&second));
    let messages: Vec<_> = (0..50).map(|n| signed_up(&daemon, &format!("u{n}"), &format!("m{n}"))).collect();
    daemon.send(&key, &messages);
    daemon.kill();

    let daemon = place.serve("second.log");
    // the sender knows nothing of it and sends again
    daemon.send(&key, &messages);
    eventually("everybody was looked at", || {
        let report = daemon.get("/metrics").1;
        report.lines().any(|line| line == "rekindle_evaluation_lateness_seconds 0.0").then_some(())
    });
    assert_eq!(daemon.terminate().0, Some(0));
    let (events, entered) = place.read(async |store: &SqliteStore| {
        let events = store.events(EventSeq(0), 10_000).await.expect("events");
        let entries = store.entries(0, 10_000).await.expect("entries");
        let signed_up = events.iter().filter(|row| row.event.kind == EventKind::Track).count();
        (signed_up, entries.iter().filter(|row| row.entry.what == What::Entered).count())
    });
    assert_eq!((events, entered), (50, 50), "each once");
}

#[test]
fn nothing_of_a_person_stands_in_the_logs_even_at_trace() {
    let place = place();
    let key = place.write_key();
    let daemon = place.serve("first.log");
    let [user, mail, phone, name] = CANARIES;
    let traits = serde_json::json!({ "email": mail, "phone": phone, "firstName": name, "lastName": name });
    let bad = serde_json::json!({ "type": "track", "messageId": "bad", "userId": user, "event": "Signed Up", "timestamp": mail });
    daemon.send(
        &key,
        &[
            serde_json::json!({ "type": "identify", "messageId": "i", "userId": user, "traits": traits }),
            signed_up(&daemon, user, "t"),
            bad,
        ],
    );
    eventually("the greeting was recorded", || (recorded(&place, "sms") == 1).then_some(()));
    let (status, _) = daemon.get(&format!("/v1/profiles/{user}"));
    assert_eq!(status, "401", "the key may write, not read");
    let (code, log) = daemon.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"level\":\"DEBUG\""), "our own words are all there: {log}");
    for canary in CANARIES {
        assert!(!log.contains(canary), "`{canary}` stands in the log: {:?}", log.lines().find(|line| line.contains(canary)));
    }
}

#[test]
fn a_database_of_another_environment_records_and_says_so() {
    let place = place();
    let key = place.write_key();
    assert_eq!(place.serve("first.log").terminate().0, Some(0));
    // the copy's policy names a provider that would reach people
    place.write_settings("rehearsal", "info");
    place.write_rules(&RULES.replace("provider: recording", "provider: some-gateway"));
    let daemon = place.serve("second.log");
    let (status, body) = daemon.get("/readyz");
    assert!(status == "200" && body.contains("belongs to `shop`") && body.contains("recorded, not sent"), "{status} {body}");
    let traits = serde_json::json!({ "phone": "+441632960001" });
    daemon.send(
        &key,
        &[serde_json::json!({ "type": "identify", "messageId": "i", "userId": "ana", "traits": traits }), signed_up(&daemon, "ana", "t")],
    );
    eventually("the greeting was recorded", || (recorded(&place, "sms") == 1).then_some(()));
    assert!(daemon.log().contains("belongs to the environment `shop`"), "{}", daemon.log());
}

#[test]
fn an_empty_database_asks_nothing_and_sends_nothing_until_a_channel_is_configured() {
    let place = place();
    place.write_rules(&RULES.replace("  channels: { sms: { provider: recording } }\n", ""));
    let key = place.write_key();
    let daemon = place.serve("first.log");
    let traits = serde_json::json!({ "phone": "+441632960001" });
    daemon.send(
        &key,
        &[serde_json::json!({ "type": "identify", "messageId": "i", "userId": "ana", "traits": traits }), signed_up(&daemon, "ana", "t")],
    );
    eventually("it was decided", || daemon.get("/metrics").1.lines().any(|line| line == "rekindle_entries_total 1").then_some(()));
    assert_eq!(daemon.terminate().0, Some(0));
    assert_eq!(recorded(&place, "sms"), 0);
    let went = |state: &&str| matches!(*state, "accepted" | "delivered" | "unknown" | "sending");
    assert_eq!(place.states("ana").iter().filter(|state| went(state)).count(), 0, "nothing left the house");
}

/// What a gateway calls back with; it says nothing of a message of ours, and is on record as such.
fn callback(daemon: &Daemon<'_>, token: &str, secret: &str) -> String {
    let body = r#"{"status":"delivered","reference":"0190aaaa-0000-7000-8000-000000000001"}"#;
    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    daemon.request(&format!("POST /callbacks/gateway/{token} HTTP/1.1\r\nX-Signature: {signature}"), body).0
}

const GATEWAY: &str = "
rekindle: 1
name: A gateway
channels: [sms]
settings:
  token: { about: its token, secret: true }
send:
  url: https://gateway.example/send
  auth: { bearer: '{{ settings.token }}' }
  json: { to: '{{ to }}' }
  message_id: { json: /id }
callback:
  signature: { scheme: hmac_sha256, header: X-Signature }
  message: /reference
  outcomes:
    - { when: { /status: delivered }, is: delivered }
";

#[test]
fn secrets_are_renewed_without_a_restart() {
    let place = place();
    let secret = |name: &str, text: &str| fs::write(place.path(name), text).expect("written");
    secret("gateway.yaml", GATEWAY);
    secret("token", "key-1");
    secret("path", "path-1");
    secret("signed", "secret-1");
    let settings = fs::read_to_string(place.path("rekindle.yaml")).expect("settings");
    let at = |name: &str| place.path(name).display().to_string();
    let provider = format!(
        "providers:\n  gateway: {{ kind: http, file: {}, token: \"file:{}\", callback_token: \"file:{}\", callback_secret: \"file:{}\" }}\n",
        at("gateway.yaml"),
        at("token"),
        at("path"),
        at("signed")
    );
    secret("rekindle.yaml", &format!("{settings}{provider}"));
    let daemon = place.serve("first.log");
    assert_eq!(callback(&daemon, "path-1", "secret-1"), "200");
    assert_eq!(callback(&daemon, "path-1", "secret-2"), "401");

    secret("signed", "secret-2");
    eventually("the new secret counts", || (callback(&daemon, "path-1", "secret-2") == "200").then_some(()));
    assert_eq!(callback(&daemon, "path-1", "secret-1"), "401", "the old one opens nothing any more");

    // what is wrong leaves everything as it was, and is told
    secret("rekindle.yaml", &format!("{settings}{}", provider.replace("callback_token", "calback_token")));
    daemon.figure("rekindle_settings_reload_failed 1");
    assert!(daemon.get("/readyz").1.contains("refused"), "{}", daemon.get("/readyz").1);
    assert_eq!(callback(&daemon, "path-1", "secret-2"), "200");
    secret("path", "path-2");
    secret("rekindle.yaml", &format!("{settings}{provider}"));
    daemon.figure("rekindle_settings_reload_failed 0");
    eventually("the new path counts", || (callback(&daemon, "path-2", "secret-2") == "200").then_some(()));

    // a secret that comes later than the file that refers to it
    secret("rekindle.yaml", &format!("{settings}{}", provider.replace(&at("signed"), &at("signed-anew"))));
    daemon.figure("rekindle_settings_reload_failed 1");
    secret("signed-anew", "secret-3");
    eventually("the latest secret counts", || (callback(&daemon, "path-2", "secret-3") == "200").then_some(()));
    let log = daemon.log();
    assert!(log.contains("calback_token") && !log.contains("secret-2"), "{log}");
}

#[cfg(not(feature = "nats"))]
#[test]
fn a_program_without_nats_says_that_it_cannot_read_from_it() {
    let place = place().with("nats: { url: \"nats://127.0.0.1:4222\" }");
    let said = place.run(&["serve"]);
    assert!(said.status.code() == Some(2) && text(&said).contains("--features nats"), "{}", text(&said));
}
