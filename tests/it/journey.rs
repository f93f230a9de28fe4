//! Whole ways through the built binary: events by HTTP in, mail by SMTP out, what comes back, and what must hold when somebody pulls
//! the brake, the plug or the wire in between.

use std::sync::Arc;

use rekindle::faults::CLOCK_OFFSET;
use rekindle::store::suppression::Reason;
use rekindle::store::{Store as _, sqlite::SqliteStore};
use ring::hmac;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use super::daemon::{Daemon, Place, eventually, text};
use super::mail::sink::{self, Act, Options, Script, Sink};

/// A mail for each order.
pub const RULES: &str = r#"
rekindle: 1
events:
  order_placed: { name: "Order Placed", active: true, properties: { order: { type: string, required: true } } }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  channels:
    email: { provider: relay, sender: { from: "The shop <news@shop.example>", postal_address: "1 High Street, London" } }
rules:
  - id: thanks
    name: Thank for each order
    owner: tests
    event: order_placed
    key: event.order
    max_entries: 1000000
    steps: [{ id: thank, send: { template: thanks, channels: [email] } }]
"#;

const TEMPLATES: [(&str, &str); 3] = [
    ("thanks/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing }"),
    ("thanks/en/subject.liquid", "Thank you"),
    ("thanks/en/text.liquid", "Thank you for your order."),
];

/// How the relay reports: as many do, signed with a secret over time and body.
const REPORTS: &str = r#"
rekindle: 1
name: The relay's reports
channels: [email]
send: { url: "https://relay.shop.example/unused", json: { to: "{{ to }}" } }
callback:
  signature: { scheme: hmac_sha256, header: X-Sig, timestamp_header: X-Time, signed: '{timestamp}.{body}' }
  events: /*
  message: /m
  id: /id
  outcomes: [{ when: { /e: bounced }, is: hard_bounce }]
"#;
const REPORT_SECRET: &str = "the secret of the reports";

/// A shop whose mail goes to that port. `tls`: the relay's key in the settings.
fn shop(port: u16, tls: &str) -> Place {
    let place = Place::new(RULES, &TEMPLATES);
    let write = |name: &str, text: &str| {
        let path = place.path(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let links = write("links.key", "0123456789abcdef0123456789abcdef");
    let (token, secret) = (write("token.key", "opensesame-opensesame"), write("reports.key", REPORT_SECRET));
    let reports = write("reports.yaml", REPORTS);
    let settings = format!(
        "secrets: {{ links: \"file:{links}\" }}\nproviders:\n  relay: {{ kind: smtp, host: localhost, port: {port}, connections: 4, {tls} }}\n  \
         reports: {{ kind: http, file: {reports}, callback_token: \"file:{token}\", callback_secret: \"file:{secret}\" }}\n"
    );
    place.with(&settings)
}

fn known(daemon: &Daemon<'_>, user: &str) -> Json {
    let traits = json!({ "email": format!("{user}@post.example") });
    json!({ "type": "identify", "messageId": format!("i-{user}"), "userId": user, "traits": traits, "timestamp": daemon.begun_at() })
}

fn ordered(daemon: &Daemon<'_>, user: &str, order: &str) -> Json {
    let properties = json!({ "order": order });
    json!({ "type": "track", "messageId": format!("o-{order}"), "userId": user, "event": "Order Placed", "properties": properties,
        "timestamp": daemon.begun_at() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_becomes_a_mail_its_bounce_closes_the_address_and_the_next_mail_stays() {
    let sink = Sink::start(Options { offers: vec!["PIPELINING"], ..Options::default() }).await;
    let place = shop(sink.port, "tls: none");
    let key = place.write_key();
    let daemon = place.serve("first.log");
    daemon.send(&key, &[known(&daemon, "ana"), ordered(&daemon, "ana", "a1")]);
    eventually("the mail", || (sink.mails().len() == 1).then_some(()));
    let mail = sink.mails().remove(0);
    assert!(mail.contains("To: ana@post.example") && mail.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click"), "{mail}");
    eventually("it is recorded", || (place.states("ana") == ["accepted"]).then_some(()));

    let body = json!([{ "m": sink.message_ids()[0], "id": "r1", "e": "bounced" }]).to_string();
    let report = |secret: &str| {
        let time = rekindle::clock::Clock::now(&rekindle::clock::SystemClock).as_ms() / 1_000;
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), format!("{time}.{body}").as_bytes());
        let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let head = format!("POST /callbacks/reports/opensesame-opensesame HTTP/1.1\r\nX-Sig: {signature}\r\nX-Time: {time}");
        daemon.request(&head, &body).0
    };
    assert_eq!(report("somebody else's"), "401");
    assert_eq!(place.states("ana"), ["accepted"], "a forged report changes nothing");
    assert_eq!(report(REPORT_SECRET), "200");
    assert_eq!(place.states("ana"), ["bounced"]);
    let listed = place.read(async |store: &SqliteStore| {
        store.suppressions(rekindle::engine::action::Channel::Email, "ana@post.example").await.expect("read")
    });
    assert_eq!(listed.iter().map(|entry| entry.reason).collect::<Vec<_>>(), [Reason::HardBounce]);

    daemon.send(&key, &[ordered(&daemon, "ana", "a2"), known(&daemon, "ben"), ordered(&daemon, "ben", "b1")]);
    eventually("somebody else's mail", || (sink.mails().len() == 2).then_some(()));
    daemon.settles();
    assert_eq!(sink.mails().iter().filter(|mail| mail.contains("To: ana@post.example")).count(), 1, "nothing more to a dead address");
    let timeline = text(&place.look(&["timeline", "--user", "ana"]));
    assert!(timeline.contains("bounced") && timeline.contains("suppression"), "{timeline}");
    let explained = text(&place.look(&["explain", "--user", "ana", "--rule", "thanks"]));
    assert!(explained.contains("suppression"), "{explained}");
    let (code, log) = daemon.terminate();
    assert!(code == Some(0) && !log.contains("post.example"), "{log}");
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_in_the_middle_of_a_wave_stops_it_at_once_and_resume_goes_on() {
    const WAVE: usize = 300;
    let gate = Arc::new(Semaphore::new(20));
    let sink = Sink::start(Options { gate: Some(gate.clone()), offers: vec!["PIPELINING"], ..Options::default() }).await;
    let place = shop(sink.port, "tls: none");
    let key = place.write_key();
    let daemon = place.serve("first.log");
    let wave: Vec<Json> =
        (0..WAVE).flat_map(|n| [known(&daemon, &format!("u{n}")), ordered(&daemon, &format!("u{n}"), &n.to_string())]).collect();
    for part in wave.chunks(100) {
        daemon.send(&key, part);
    }
    // all four connections wait for their answer: nothing can be between its last question and its first byte
    eventually("the wave is under way", || (sink.mails().len() == 24 && sink.begun() == 24).then_some(()));

    let paused = place.run(&["pause", "--all", "--reason", "wrong prices", "--by", "anna"]);
    assert!(paused.status.success(), "{}", text(&paused));
    gate.add_permits(WAVE);
    daemon.figure("rekindle_pauses 1");
    daemon.settles();
    assert_eq!((sink.begun(), sink.mails().len()), (24, 24), "nothing begins after the command has answered");
    let count = |state: &str| (0..WAVE).flat_map(|n| place.states(&format!("u{n}"))).filter(|found| *found == state).count();
    assert_eq!((count("accepted"), count("queued")), (24, WAVE - 24), "the others wait");

    let resumed = place.run(&["resume", "--all", "--yes", "--by", "anna"]);
    assert!(resumed.status.success() && text(&resumed).contains("276"), "{}", text(&resumed));
    eventually("the rest of the wave", || (sink.mails().len() == WAVE).then_some(()));
    daemon.settles();
    let mut ids = sink.message_ids();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), count("accepted")), (WAVE, WAVE), "each once");
    assert_eq!(daemon.terminate().0, Some(0));
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_intent_and_answer_it_says_unknown_and_sends_no_second_mail() {
    let sink = Sink::start(Options { script: Script::from([("dot", vec![Act::Silence])]), ..Options::default() }).await;
    let place = shop(sink.port, "tls: none");
    let key = place.write_key();
    let daemon = place.serve("first.log");
    daemon.send(&key, &[known(&daemon, "ana"), ordered(&daemon, "ana", "a1")]);
    eventually("the relay has the mail and says nothing", || (sink.mails().len() == 1).then_some(()));
    assert_eq!(place.states("ana"), ["sending"]);
    daemon.kill();

    let daemon = place.serve("second.log");
    daemon.says(&["interrupted while sending"]);
    eventually("it is in doubt", || (place.states("ana") == ["unknown"]).then_some(()));
    daemon.send(&key, &[known(&daemon, "ben"), ordered(&daemon, "ben", "b1")]);
    eventually("the next mail", || (sink.mails().len() == 2).then_some(()));
    daemon.settles();
    assert_eq!(sink.mails().iter().filter(|mail| mail.contains("To: ana@post.example")).count(), 1);
    let timeline = text(&place.look(&["timeline", "--user", "ana"]));
    assert!(timeline.contains("unknown"), "{timeline}");
    assert_eq!(daemon.terminate().0, Some(0));
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
}

/// Waits out every retry: the clock of the daemon goes forward, and the relay works again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_not_trusted_or_not_there_costs_no_message() {
    let (ca, good, expired) = sink::authority_with_an_expired_certificate();
    let offers = vec!["STARTTLS", "PIPELINING"];
    let with = |tls| Options { tls: Some(tls), offers: offers.clone(), ..Options::default() };
    for (what, words) in [("expired", ["out of order", "expired"]), ("unreachable", ["out of order", "refused"])] {
        let sink = Sink::start(with(expired.clone())).await;
        let port = sink.port;
        let listening = (what == "expired").then_some(sink);
        let place = shop(port, "ca: \"file:CA\"");
        let authority = place.path("ca.pem");
        std::fs::write(&authority, &ca).expect("written");
        let settings = std::fs::read_to_string(place.path("rekindle.yaml")).expect("settings");
        std::fs::write(place.path("rekindle.yaml"), settings.replace("CA", &authority.display().to_string())).expect("written");
        let key = place.write_key();
        let offset = place.offset();
        let mut daemon = place.begin("first.log", &[(CLOCK_OFFSET, offset.to_str().expect("a path"))]);
        assert!(daemon.is_up(), "{}", daemon.log());
        let users: Vec<String> = (0..8).map(|n| format!("u{n}")).collect();
        daemon.send(&key, &users.iter().flat_map(|user| [known(&daemon, user), ordered(&daemon, user, user)]).collect::<Vec<_>>());
        let line = daemon.says(&words);
        assert!(line.contains("ERROR") && line.contains("relay") && !line.contains("post.example"), "{line}");
        eventually("it is counted", || daemon.get("/metrics").1.contains("outcome=\"to_be_tried_again\"").then_some(()));
        daemon.settles();
        let states: Vec<_> = users.iter().flat_map(|user| place.states(user)).collect();
        assert!(states.len() == 8 && states.iter().all(|state| *state == "queued"), "{what}: {states:?}");

        drop(listening);
        let sink = eventually("the port is free again", || {
            let free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            free.then(|| {
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(Sink::start_at(port, with(good.clone()))))
            })
        });
        for minutes in 1..=20 {
            std::fs::write(&offset, (minutes * 60_000).to_string()).expect("written");
            daemon.settles();
        }
        eventually("every mail", || (sink.mails().len() == 8).then_some(()));
        daemon.settles();
        let mut ids = sink.message_ids();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 8, "{what}: each once");
        assert!(users.iter().all(|user| place.states(user) == ["accepted"]), "{what}");
        assert!(daemon.log().contains("works again"), "{what}");
        assert_eq!(daemon.terminate().0, Some(0));
    }
}
