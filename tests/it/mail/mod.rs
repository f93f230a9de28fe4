//! E-mail against a server that misbehaves: what becomes of a message at each stage at which it can go wrong, and what stands in a mail.

pub mod sink;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rekindle::channel::email::Email;
use rekindle::channel::{Channel, Outcome, Outgoing, RetryClass};
use rekindle::engine::action::{Channel as Kind, MessageId};
use rekindle::engine::profile::Category;
use rekindle::engine::rule::{ChannelPolicy, Place, Sender};
use rekindle::engine::time::Timestamp;
use rekindle::links::{Links, Purpose};
use rekindle::message::Content;
use rekindle::settings::Secret;
use rekindle::settings::providers::{Dkim, Smtp, Tls};

use self::sink::{Act, Options, Script, Sink};

pub fn links() -> Links {
    Links::new("https://rekindle.shop.example".parse().expect("an address"), &[Secret::given("0123456789abcdef")]).expect("links")
}

pub fn policy() -> ChannelPolicy {
    ChannelPolicy {
        provider: "relay".into(),
        place: Place { file: "policy.yaml".into(), line: 1, column: 1 },
        timeout_ms: None,
        retries: None,
        rate: None,
        warm_up: None,
        templates_only: false,
        sender: Some(Sender {
            from: "The Shöp <news@shop.example>".into(),
            reply_to: Some("care@shop.example".into()),
            postal_address: Some("1 High Street, London".into()),
            list_id: Some("news.shop.example".into()),
        }),
        cost_micros: None,
    }
}

pub fn content() -> Content {
    Content {
        locale: "de".into(),
        subject: Some("Grüße, Ana".into()),
        text: Some("Hallo Ana,\n.\nschön.\n..".into()),
        html: Some("<html><body><p>Hallo Ana</p></body></html>".into()),
        ..Content::default()
    }
}

pub fn outgoing<'a>(id: u128, content: &'a Content, policy: &'a ChannelPolicy) -> Outgoing<'a> {
    Outgoing {
        message: MessageId(0x0190_0000_0000_7000_8000_0000_0000_0000 + id),
        attempt: 1,
        kind: Kind::Email,
        category: Category::Marketing,
        policy: Some(policy),
        at: Timestamp::parse("2026-03-05T09:00:00Z").expect("an instant"),
        profile: "u1",
        address: "ana@post.example",
        rule: "welcome",
        template: "welcome",
        content,
    }
}

fn relay(port: u16) -> Smtp {
    Smtp {
        host: "localhost".into(),
        port,
        tls: Tls::None,
        login: None,
        connections: 3,
        bounce_domain: Some("bounces.shop.example".into()),
        dkim: Vec::new(),
        ca: None,
        hello: Some("rekindle.shop.example".into()),
    }
}

fn email(settings: &Smtp) -> Email {
    Email::new(settings, Some(links())).expect("a channel")
}

fn script(stage: &'static str, acts: &[Act]) -> Options {
    Options { script: Script::from([(stage, acts.to_vec())]), ..Options::default() }
}

/// One mail to a sink with these options.
async fn sent(options: Options) -> (Outcome, Sink) {
    let sink = Sink::start(options).await;
    let (content, policy) = (content(), policy());
    let outcome = email(&relay(sink.port)).send(&outgoing(1, &content, &policy)).await;
    (outcome, sink)
}

fn class(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Retry { class: RetryClass::Transient, .. } => "transient",
        Outcome::Retry { class: RetryClass::Throttle, .. } => "throttle",
        Outcome::Retry { class: RetryClass::Config, .. } => "config",
        Outcome::Rejected { suppress: true, .. } => "suppress",
        Outcome::Rejected { suppress: false, .. } => "rejected",
        Outcome::Ambiguous { .. } => "unknown",
    }
}

#[tokio::test]
async fn every_stage_that_goes_wrong_is_told_by_what_it_means() {
    let cases: [(&'static str, Act, &str); 21] = [
        ("banner", Act::Say("421 4.3.2 not now"), "transient"),
        ("banner", Act::Say("554 5.7.1 go away"), "config"),
        ("banner", Act::Close, "transient"),
        ("banner", Act::Say("HTTP/1.1 400 Bad Request"), "transient"),
        ("ehlo", Act::Say("550 what"), "config"),
        ("ehlo", Act::Close, "transient"),
        ("mail", Act::Say("451 4.3.0 later"), "transient"),
        ("mail", Act::Say("421 4.7.0 too many messages"), "throttle"),
        ("mail", Act::Say("550 5.1.8 bad sender"), "rejected"),
        ("mail", Act::Say("530 5.7.0 log in first"), "config"),
        ("mail", Act::Close, "transient"),
        ("rcpt", Act::Say("450 4.7.1 greylisted"), "transient"),
        ("rcpt", Act::Say("550 5.1.1 no such user"), "suppress"),
        ("rcpt", Act::Say("552 5.2.2 mailbox full"), "rejected"),
        ("rcpt", Act::Say("550 5.7.1 relaying denied"), "rejected"),
        ("data", Act::Say("451 4.3.1 no space"), "transient"),
        ("data", Act::Say("554 5.5.1 no"), "rejected"),
        ("data", Act::Close, "transient"),
        ("dot", Act::Say("451 4.7.1 greylisted"), "transient"),
        ("dot", Act::Say("554 5.6.0 no"), "rejected"),
        // the one case in which nobody knows
        ("dot", Act::Close, "unknown"),
    ];
    for offers in [vec![], vec!["PIPELINING"]] {
        for (stage, act, expected) in &cases {
            let options = Options { offers: offers.clone(), ..script(stage, std::slice::from_ref(act)) };
            let (outcome, sink) = sent(options).await;
            assert_eq!(class(&outcome), *expected, "{stage} {act:?} {offers:?}: {outcome:?}");
            assert!(sink.mails().len() <= 1, "{stage}");
        }
    }
}

#[tokio::test]
async fn silence_is_a_failure_before_the_dot_and_doubt_after_it() {
    for (stage, expected) in [("banner", "transient"), ("mail", "transient"), ("data", "transient")] {
        let sink = Sink::start(script(stage, &[Act::Silence])).await;
        let content = content();
        let impatient = ChannelPolicy { timeout_ms: Some(20), ..policy() };
        let outcome = email(&relay(sink.port)).send(&outgoing(1, &content, &impatient)).await;
        assert_eq!(class(&outcome), expected, "{stage}: {outcome:?}");
    }
    // the policy's patience is not that of the last answer: ten minutes, whatever it says
    let sink = Sink::start(script("dot", &[Act::Silence])).await;
    let (content, impatient) = (content(), ChannelPolicy { timeout_ms: Some(20), ..policy() });
    let email = email(&relay(sink.port));
    let message = outgoing(1, &content, &impatient);
    let sending = email.send(&message);
    assert!(tokio::time::timeout(Duration::from_millis(200), sending).await.is_err(), "it still waits");
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn a_greylisted_mail_goes_through_later_from_the_same_sender() {
    let sink = Sink::start(script("rcpt", &[Act::Say("451 4.7.1 try again in five minutes")])).await;
    let (content, policy) = (content(), policy());
    let email = email(&relay(sink.port));
    assert_eq!(class(&email.send(&outgoing(1, &content, &policy)).await), "transient");
    assert_eq!(class(&email.send(&Outgoing { attempt: 2, ..outgoing(1, &content, &policy) }).await), "accepted");
    let senders: Vec<String> = sink.commands().into_iter().filter(|line| line.starts_with("MAIL")).collect();
    assert_eq!(senders.len(), 2);
    assert_eq!(senders[0], senders[1]);
}

#[tokio::test]
async fn a_mail_says_who_writes_and_how_to_get_off_the_list() {
    let (outcome, sink) = sent(Options { offers: vec!["PIPELINING", "8BITMIME"], ..Options::default() }).await;
    assert_eq!(outcome, Outcome::Accepted { provider_id: "Q1".into() });
    let message = outgoing(1, &content(), &policy()).message;
    let mail = sink.mails().remove(0);
    let unsubscribe = links().url(Purpose::Unsubscribe, message);
    for line in [
        &format!("Message-ID: <{message}@shop.example>"),
        &format!("X-Rekindle-Message: {message}"),
        "To: ana@post.example",
        "Reply-To: care@shop.example",
        "List-Id: <marketing.news.shop.example>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        "Date: Thu, 05 Mar 2026 09:00:00 +0000",
        "MIME-Version: 1.0",
        // of the content: a dot alone is doubled on its way
        "..",
        "...",
    ] {
        assert!(mail.lines().any(|found| found == line), "missing: {line}\n{mail}");
    }
    let unfolded = mail.replace("\r\n ", " ");
    assert!(unfolded.contains(&format!("List-Unsubscribe: <{unsubscribe}>")), "{mail}");
    assert!(unfolded.contains("From: =?utf-8?") && unfolded.contains("<news@shop.example>"), "{mail}");
    let return_path = sink.commands().into_iter().find(|line| line.starts_with("MAIL")).expect("MAIL");
    let local =
        return_path.strip_prefix("MAIL FROM:<").and_then(|rest| rest.split_once("@bounces.shop.example>")).expect("a return path").0;
    assert_eq!(links().verify_return_path(local), Some(message));

    // a receipt needs no way out, and carries none
    let (content, policy) = (content(), policy());
    let transactional = Outgoing { category: Category::Transactional, ..outgoing(2, &content, &policy) };
    let sink = Sink::start(Options::default()).await;
    assert_eq!(class(&email(&relay(sink.port)).send(&transactional).await), "accepted");
    assert!(!sink.mails().remove(0).contains("Unsubscribe"));
}

#[tokio::test]
async fn marketing_without_a_way_out_does_not_leave() {
    let sink = Sink::start(Options::default()).await;
    let (content, policy) = (content(), policy());
    let email = Email::new(&relay(sink.port), None).expect("a channel");
    assert_eq!(class(&email.send(&outgoing(1, &content, &policy)).await), "config");
    let nobody = ChannelPolicy { sender: None, ..policy };
    assert_eq!(class(&email.send(&outgoing(1, &content, &nobody)).await), "config");
    assert_eq!(sink.seen(|seen| seen.connections), 0);
}

#[tokio::test]
async fn nothing_that_a_person_is_called_becomes_a_header_a_command_or_a_second_mail() {
    let sink = Sink::start(Options { offers: vec!["PIPELINING"], ..Options::default() }).await;
    let policy = policy();
    let email = email(&relay(sink.port));
    for address in ["ana@post.example\r\nRCPT TO:<eve@post.example>", "ana\0@post.example", "<a@b.example>", "\"a b\"@post.example", "x"] {
        let content = content();
        let outcome = email.send(&Outgoing { address, ..outgoing(1, &content, &policy) }).await;
        assert_eq!(class(&outcome), "suppress", "{address:?}");
    }
    assert_eq!(sink.seen(|seen| seen.connections), 0, "refused before anybody is asked");

    let nasty = Content {
        subject: Some("Hello\r\nBcc: eve@post.example".into()),
        text: Some("a\r\n.\r\nMAIL FROM:<eve@post.example>\r\n\n.\n\r.\r\n\r.\rb\n.".into()),
        html: Some("<p>a\n.\nb\r.\rc</p>\n.\n".into()),
        locale: "x\r\ny".into(),
        ..Content::default()
    };
    assert_eq!(class(&email.send(&outgoing(1, &nasty, &policy)).await), "accepted");
    let mail = sink.mails().remove(0);
    assert!(!mail.to_ascii_lowercase().contains("\nbcc:"), "{mail}");
    assert_eq!(sink.seen(|seen| seen.mails.len()), 1);
    assert_eq!(sink.commands().iter().filter(|line| line.starts_with("RCPT")).count(), 1);
    let bytes = sink.seen(|seen| seen.mails[0].clone());
    for (n, byte) in bytes.iter().enumerate() {
        assert!(*byte != b'\n' || n > 0 && bytes[n - 1] == b'\r', "a bare LF at {n}");
        assert!(*byte != b'\r' || bytes.get(n + 1) == Some(&b'\n'), "a bare CR at {n}");
    }
}

#[tokio::test]
async fn names_beyond_ascii_travel_where_the_relay_takes_them() {
    let (content, policy) = (content(), policy());
    for (offers, address, expected, rcpt) in [
        (vec![], "ana@bücher.example", "accepted", "RCPT TO:<ana@xn--bcher-kva.example>"),
        (vec![], "jörg@post.example", "rejected", ""),
        (vec!["SMTPUTF8", "8BITMIME"], "jörg@post.example", "accepted", "RCPT TO:<jörg@post.example>"),
        (vec![], "ana@😀.example", "accepted", "RCPT TO:<ana@xn--e28h.example>"),
    ] {
        let sink = Sink::start(Options { offers: offers.clone(), ..Options::default() }).await;
        let outcome = email(&relay(sink.port)).send(&Outgoing { address, ..outgoing(1, &content, &policy) }).await;
        assert_eq!(class(&outcome), expected, "{address} {offers:?}: {outcome:?}");
        let found = sink.commands().into_iter().find(|line| line.starts_with("RCPT")).unwrap_or_default();
        assert_eq!(found, rcpt, "{address} {offers:?}");
        let utf8 = sink.commands().iter().any(|line| line.starts_with("MAIL") && line.ends_with(" SMTPUTF8"));
        assert_eq!(utf8, offers.contains(&"SMTPUTF8"), "{address}");
    }
}

#[tokio::test]
async fn connections_are_kept_counted_and_replaced_when_they_are_dead() {
    let options = Options { mails_per_connection: Some(4), offers: vec!["PIPELINING"], ..Options::default() };
    let sink = Sink::start(options).await;
    let (content, policy) = (content(), policy());
    let email = email(&relay(sink.port));
    for id in 0..10 {
        assert_eq!(class(&email.send(&outgoing(id, &content, &policy)).await), "accepted", "{id}");
    }
    assert_eq!(sink.seen(|seen| (seen.mails.len(), seen.connections)), (10, 3), "a dead one is noticed before the dot");

    let sink = Sink::start(Options::default()).await;
    let email = crate::mail::email(&relay(sink.port));
    let messages: Vec<_> = (0..40).map(|id| outgoing(id, &content, &policy)).collect();
    let all = futures_util::future::join_all(messages.iter().map(|message| email.send(message))).await;
    assert!(all.iter().all(|outcome| class(outcome) == "accepted"));
    assert!(sink.seen(|seen| seen.open_most) <= 3, "no more than the relay allows");
}

#[tokio::test]
async fn nothing_leaves_in_the_clear_where_tls_is_wanted() {
    let (ca, trusted) = sink::authority();
    let login = Some(("shop".to_owned(), Secret::given("hunter2")));
    let with = |tls, port, ca: &str| Smtp { tls, ca: Some(ca.to_owned()), login: login.clone(), ..relay(port) };
    let (content, policy) = (content(), policy());
    let offers = vec!["STARTTLS", "AUTH PLAIN LOGIN", "PIPELINING"];

    for (tls, implicit) in [(Tls::StartTls, false), (Tls::Implicit, true)] {
        let sink = Sink::start(Options { tls: Some(trusted.clone()), implicit, offers: offers.clone(), ..Options::default() }).await;
        let outcome = email(&with(tls, sink.port, &ca)).send(&outgoing(1, &content, &policy)).await;
        assert_eq!(class(&outcome), "accepted", "{tls:?}: {outcome:?}");
        let clear: Vec<String> = sink.commands().into_iter().filter(|line| !line.starts_with("EHLO")).take(1).collect();
        assert_eq!(clear, [if implicit { "AUTH PLAIN AHNob3AAaHVudGVyMg==" } else { "STARTTLS" }]);
    }
    // STARTTLS taken out on the way: a middle man, or a relay that has none
    let sink = Sink::start(Options { offers: vec!["AUTH PLAIN"], ..Options::default() }).await;
    let outcome = email(&with(Tls::StartTls, sink.port, &ca)).send(&outgoing(1, &content, &policy)).await;
    assert_eq!(class(&outcome), "config", "{outcome:?}");
    assert!(sink.commands().iter().all(|line| line.starts_with("EHLO")), "{:?}", sink.commands());
    // a certificate of nobody, and one of somebody else
    for stranger in [sink::server("localhost", None), sink::authority().1] {
        let sink = Sink::start(Options { tls: Some(stranger), offers: offers.clone(), ..Options::default() }).await;
        let outcome = email(&with(Tls::StartTls, sink.port, &ca)).send(&outgoing(1, &content, &policy)).await;
        assert_eq!(class(&outcome), "config", "{outcome:?}");
        assert!(!sink.commands().iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")));
    }
    // words slipped in between STARTTLS and TLS
    let slipped = Act::Say("220 go ahead\r\n250 2.0.0 believe me");
    let options = Options { tls: Some(trusted), offers: offers.clone(), ..script("starttls", &[slipped]) };
    let sink = Sink::start(options).await;
    let outcome = email(&with(Tls::StartTls, sink.port, &ca)).send(&outgoing(1, &content, &policy)).await;
    assert_eq!(class(&outcome), "config", "{outcome:?}");
    // a refused account is ours to mend, and the password is in no answer
    let sink = Sink::start(Options { offers: vec!["AUTH LOGIN"], ..script("auth", &[Act::Say("535 5.7.8 no")]) }).await;
    let outcome = email(&Smtp { login, ..relay(sink.port) }).send(&outgoing(1, &content, &policy)).await;
    assert_eq!(class(&outcome), "config", "{outcome:?}");
    assert!(!format!("{outcome:?}").contains("hunter2"));
}

/// Where the libraries of others are installed, or the machine's own.
pub fn python() -> PathBuf {
    let installed = std::env::var_os("REKINDLE_SDKS").map(|sdks| PathBuf::from(sdks).join("python/bin/python"));
    installed.unwrap_or_else(|| PathBuf::from("python3"))
}

/// Whether a foreign library is there; where services are required, it must be.
pub fn has_python(module: &str, how: &str) -> bool {
    let found = Command::new(python()).args(["-c", &format!("import {module}")]).output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var_os("REKINDLE_REQUIRE_SERVICES").is_none(), "needed here: {how}");
    if !found {
        eprintln!("skipped: {how}");
    }
    found
}

/// Keys made for these tests: RSA by openssl, Ed25519 by the library.
fn dkim_keys() -> Vec<Dkim> {
    let key = |selector: &str, file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail").join(file);
        let key = Secret::given(&std::fs::read_to_string(path).expect("a key"));
        Dkim { domain: "shop.example".into(), selector: selector.into(), key }
    };
    vec![key("rsa", "rsa.pem"), key("ed", "ed25519.pem")]
}

#[tokio::test]
async fn signatures_are_those_that_others_accept() {
    let sink = Sink::start(Options::default()).await;
    let (content, policy) = (content(), policy());
    let email = email(&Smtp { dkim: dkim_keys(), ..relay(sink.port) });
    assert_eq!(class(&email.send(&outgoing(1, &content, &policy)).await), "accepted");
    let mail = sink.mails().remove(0);
    let unstuffed: Vec<String> = mail.split("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line).to_owned()).collect();
    let mail = unstuffed.join("\r\n");
    assert_eq!(mail.matches("DKIM-Signature:").count(), 2);
    let unfolded = mail.replace("\r\n\t", "");
    let signed = unfolded.split("h=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default().to_ascii_lowercase();
    for header in ["from", "to", "subject", "date", "message-id", "reply-to", "list-id", "list-unsubscribe", "list-unsubscribe-post"] {
        assert!(signed.split(':').any(|name| name == header), "{header} is not signed: {signed}");
    }
    assert_eq!(signed.split(':').filter(|name| *name == "from").count(), 2, "a second From breaks it");

    if !has_python("dkim", "pip install dkimpy pynacl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mail.eml");
    let verify = |mail: &str| {
        std::fs::write(&path, mail).expect("written");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail/verify.py");
        let output = Command::new(python()).arg(script).arg(&path).output().expect("python");
        String::from_utf8_lossy(&output.stdout).trim().to_owned() + &*String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(verify(&mail), "rsa True\ned True");
    assert_eq!(verify(&mail.replace("Hallo Ana", "Hallo Eve")), "rsa False\ned False");
    assert_eq!(verify(&format!("From: eve@shop.example\r\n{mail}")), "rsa False\ned False");
}

#[tokio::test]
async fn a_relay_whose_name_is_not_known_is_tried_again_later() {
    let (content, policy) = (content(), policy());
    // a label of 64 letters is none: no resolver is asked
    let nowhere = Smtp { host: format!("{}.example", "x".repeat(64)), ..relay(25) };
    let outcome = email(&nowhere).send(&outgoing(1, &content, &policy)).await;
    assert_eq!(class(&outcome), "transient", "{outcome:?}");
}
