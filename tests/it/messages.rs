//! The recording channel: what it writes, what it plays, and that a second send of an id is the first.

use std::fs;
use std::path::Path;

use rekindle::channel::recording::{Form, Options, Recording, Shares};
use rekindle::channel::{Channel, Outcome, Outgoing};
use rekindle::engine::action::{Channel as Kind, MessageId, Outcome as Fact};
use rekindle::engine::profile::Category;
use rekindle::engine::time::{DAY_MS, Timestamp};
use rekindle::message::{Content, Templates};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an instant")
}

fn options(form: Form, shares: Shares) -> Options {
    Options { form, shares, sender: "Shop <news@shop.example>".parse().expect("a mailbox") }
}

fn open(directory: &Path, form: Form, shares: Shares) -> Recording {
    Recording::open(directory, options(form, shares), Timestamp::DISTANT_PAST).expect("a directory")
}

fn content() -> Content {
    Content {
        locale: "de".into(),
        subject: Some("Grüße, Ana".into()),
        text: Some("Hallo Ana,\nschön.".into()),
        html: Some("<p>Hallo Ana</p>".into()),
        push_title: Some("Hallo".into()),
        push_body: Some("Ana".into()),
        ..Content::default()
    }
}

fn outgoing(id: u128, kind: Kind, content: &Content) -> Outgoing<'_> {
    let message = MessageId::derive(at("2011-03-05T09:00:00Z"), id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    Outgoing {
        message,
        attempt: 1,
        kind,
        category: Category::Marketing,
        policy: None,
        at: at("2011-03-05T09:00:01Z"),
        profile: "u1",
        address: "ana@post.example",
        rule: "welcome",
        template: "welcome",
        content,
    }
}

/// Every file of a folder, as (path below it, text).
fn files_of(folder: &Path, below: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => files_of(&entry.path(), &format!("{name}/"), files),
            false => files.push((name, fs::read_to_string(entry.path()).expect("a text"))),
        }
    }
}

#[test]
fn the_shipped_templates_have_no_faults_and_two_languages() {
    let mut files = Vec::new();
    files_of(Path::new("rules/templates"), "", &mut files);
    let (templates, faults) = Templates::parse(&files);
    assert!(faults.is_empty(), "{faults:#?}");
    for (name, info) in templates.catalog() {
        assert!(info.locales.len() >= 2, "{name} speaks {:?}", info.locales);
    }
}

fn lines(directory: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(directory.join("sent-2011-03-05.ndjson")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test]
async fn an_e_mail_becomes_a_mail_file_and_a_push_becomes_json() {
    let directory = tempfile::tempdir().expect("a directory");
    let recording = open(directory.path(), Form::Files, Shares::ALL_DELIVERED);
    let content = content();
    for kind in [Kind::Email, Kind::Push] {
        let outcome = recording.send(&outgoing(kind as u128, kind, &content)).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let mail = outgoing(Kind::Email as u128, Kind::Email, &content).message;
    let text = fs::read_to_string(directory.path().join(format!("email/{mail}.eml"))).expect("the mail");
    let text = text.replace("\r\n", "\n");
    for expected in [
        &format!("Message-ID: <{mail}@shop.example>") as &str,
        "Date: Sat, 05 Mar 2011 09:00:01 +0000",
        "From: Shop <news@shop.example>",
        "To: ana@post.example",
        "multipart/alternative",
        "text/plain; charset=utf-8",
        "<p>Hallo Ana</p>",
        "X-Rekindle-Simulated: {\"answer\":\"accepted\"}",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let lines = lines(directory.path());
    assert_eq!(lines.len(), 2);
    let push = lines.last().and_then(|line| line["file"].as_str()).expect("the file of the push");
    let push: serde_json::Value = serde_json::from_slice(&fs::read(directory.path().join(push)).expect("the push")).expect("JSON");
    assert_eq!(push["push_title"], "Hallo");
    let temporary = fs::read_dir(directory.path().join("email")).expect("a folder").count();
    assert_eq!(temporary, 1, "nothing half-written is left");
}

#[tokio::test]
async fn a_second_send_answers_alike_and_writes_nothing_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let form = Form::Compact { files_bp: 0, files_for: ["u2".to_owned()].into() };
    let shares = Shares { failed_bp: 1000, ambiguous_bp: 1000, ..Shares::default() };
    let content = content();
    let mut answers = Vec::new();
    let recording = open(directory.path(), form.clone(), shares);
    for id in 0..300 {
        answers.push(recording.send(&outgoing(id, Kind::Sms, &content)).await);
    }
    let written = lines(directory.path()).len();
    let count = |wanted: fn(&Outcome) -> bool| answers.iter().filter(|answer| wanted(answer)).count();
    let failed = count(|answer| matches!(answer, Outcome::Rejected { .. }));
    let ambiguous = count(|answer| matches!(answer, Outcome::Ambiguous { .. }));
    assert!((10..60).contains(&failed) && (10..60).contains(&ambiguous), "{failed} {ambiguous}");
    assert_eq!(written, 300 - failed);
    let receipts = recording.receipts_until(Timestamp::FOREVER);
    drop(recording);

    // a kill may cut the last line off: that message was never answered for, and is written again
    let log = directory.path().join("sent-2011-03-05.ndjson");
    let whole = fs::read(&log).expect("the log");
    fs::write(&log, &whole[..whole.len() - 20]).expect("a torn log");
    let recording = open(directory.path(), form, shares);
    assert_eq!(recording.sent_count(), written - 1);
    for id in 0..300 {
        let again = recording.send(&outgoing(id, Kind::Sms, &content)).await;
        assert_eq!(again, answers[id as usize]);
    }
    assert_eq!(lines(directory.path()).len(), written);
    assert_eq!(recording.receipts_until(Timestamp::FOREVER), receipts);
    assert!(!directory.path().join("sms").exists(), "no file of its own for u1");
    for id in 1000..1010 {
        let named = Outgoing { profile: "u2", ..outgoing(id, Kind::Sms, &content) };
        recording.send(&named).await;
    }
    assert!(directory.path().join("sms").exists(), "a file of its own for u2");
}

#[tokio::test]
async fn receipts_come_in_their_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let shares = Shares { failed_bp: 0, ambiguous_bp: 500, resolved_bp: 5000, bounced_bp: 500, silent_bp: 500, delayed_bp: 500 };
    let recording = open(directory.path(), Form::Compact { files_bp: 0, files_for: [].into() }, shares);
    let content = content();
    for id in 0..1000 {
        recording.send(&outgoing(id, Kind::Sms, &content)).await;
    }
    let sent_at = at("2011-03-05T09:00:01Z");
    assert!(recording.next_receipt_at() > Some(sent_at));
    let soon = recording.receipts_until(sent_at.plus_ms(DAY_MS));
    let late = recording.receipts_until(Timestamp::FOREVER);
    assert!(soon.is_sorted() && late.is_sorted());
    let count = |wanted: Fact| soon.iter().chain(&late).filter(|receipt| receipt.outcome == wanted).count();
    assert!((800..980).contains(&count(Fact::Delivered)), "{}", count(Fact::Delivered));
    assert!((25..80).contains(&count(Fact::Bounced)), "{}", count(Fact::Bounced));
    assert!((20..90).contains(&late.len()), "{}", late.len());
    assert!(soon.len() + late.len() < 1000, "some are never heard of");
}

#[tokio::test]
async fn an_address_cannot_smuggle_headers() {
    let directory = tempfile::tempdir().expect("a directory");
    let recording = open(directory.path(), Form::Files, Shares::ALL_DELIVERED);
    let content = content();
    for address in ["a@b.example\r\nBcc: c@d.example", "nobody", "", "a b@c.example"] {
        let outcome = recording.send(&Outgoing { address, ..outgoing(1, Kind::Email, &content) }).await;
        assert!(matches!(outcome, Outcome::Rejected { suppress: true, .. }), "{address:?}: {outcome:?}");
    }
    let outcome = recording.send(&Outgoing { address: "+44\n1", ..outgoing(1, Kind::Sms, &content) }).await;
    assert!(matches!(outcome, Outcome::Rejected { suppress: true, .. }));
    assert_eq!(recording.sent_count(), 0);
}

/// Without a message, a person or a provider: the page, the mail's own file, and what each costs.
#[test]
fn preview_shows_every_language_on_one_page() {
    let out = tempfile::tempdir().expect("a directory");
    let preview = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("preview").args(args).arg("--out").arg(out.path());
        let output = command.output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, said, _) = preview(&["still-here"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("still-here  de  sample 1: e-mail \"") && said.contains(", 1 SMS segment\n"), "{said}");
    let page = std::fs::read_to_string(out.path().join("index.html")).expect("the page");
    assert!(page.contains("<small>en, sample 1</small>") && page.contains("<iframe sandbox srcdoc=\"") && page.contains("SMS, 1 segment"));
    assert!(page.contains("default-src 'none'"), "nothing from outside is loaded");
    assert!(out.path().join("still-here.de.1.html").exists());
    let (code, _, err) = preview(&["still-her"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("the templates are ") && err.contains("still-here"), "{err}");
}

/// A browser where there is one.
#[test]
fn preview_makes_pictures() {
    let has_browser = std::process::Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_browser {
        return;
    }
    let out = tempfile::tempdir().expect("a directory");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["preview", "welcome", "--locale", "en", "--picture", "--out"]).arg(out.path());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture = std::fs::read(out.path().join("welcome.en.1.png")).expect("a picture");
    assert_eq!(picture.get(1..4), Some(b"PNG".as_slice()));
}
