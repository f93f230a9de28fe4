//! What a shop's own system and its operators say of consent: traits, the suppression list by hand, and what `check` refuses.

use std::fs;

use serde_json::{Value as Json, json};

use super::daemon::{Place, text};

const RULES: &str = r#"
rekindle: 1
events:
  signed_up: { name: "Signed Up", active: true }
attributes:
  newsletter: { type: bool, optional: true, consent: { purpose: marketing, channels: [email], text_version: sign-up-2026 } }
  consent_ads: { type: bool, optional: true, consent: { purpose: marketing, channels: [email] } }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: { basis: opt_in }, service: always, transactional: always }
  categories: { default: marketing, marketing: { max_late: 24h } }
  channels: { email: { provider: recording } }
rules:
  - id: hello
    name: Greet who signs up
    owner: tests
    event: signed_up
    key: event.round
    steps: [{ id: greet, send: { template: hello, channels: [email] } }]
"#;

const TEMPLATES: [(&str, &str); 3] = [
    ("hello/template.yaml", "rekindle: 1\ntemplate: { purpose: marketing }"),
    ("hello/en/subject.liquid", "Hello"),
    ("hello/en/text.liquid", "Hello!"),
];

fn place() -> Place {
    let declared = RULES.replace("active: true }", "active: true, properties: { round: { type: int, required: true } } }");
    Place::new(&declared, &TEMPLATES)
}

fn identify(user: &str, traits: Json, context: Json) -> Json {
    json!({ "type": "identify", "messageId": format!("i-{user}-{traits}"), "userId": user, "traits": traits, "context": context })
}

fn sign_up(user: &str, round: u32) -> Json {
    json!({ "type": "track", "messageId": format!("s-{user}-{round}"), "userId": user, "event": "Signed Up", "properties": { "round": round } })
}

#[test]
fn traits_tell_of_consent_and_the_list_stands_above_them() {
    let place = place();
    let daemon = place.serve("serve.log");
    let key = place.write_key();
    let email = |user: &str| json!({ "email": format!("{user}@post.example") });
    let with = |user: &str, name: &str, value: Json| {
        let mut traits = email(user);
        traits[name] = value;
        identify(user, traits, json!({}))
    };
    let banner = json!({ "consent": { "categoryPreferences": { "Ads": true } } });
    let people = [with("ana", "newsletter", json!(true)), with("ben", "newsletter", json!("no")), identify("cleo", email("cleo"), banner)];
    daemon.send(&key, &people);
    daemon.send(&key, &[identify("dora", email("dora"), json!({}))]);
    let users = ["ana", "ben", "cleo", "dora"];
    daemon.send(&key, &users.map(|user| sign_up(user, 1)));
    daemon.settles();
    // the receipts of the recording channel come in their own time
    let went = |user: &str| place.states(user).last().is_some_and(|state| matches!(*state, "accepted" | "delivered"));
    assert_eq!(users.map(went), [true, false, true, false]);
    let proof = place.messages("ana").first().and_then(|row| row.consent);
    assert!(proof.is_some(), "the message keeps the record that let it go");
    let export = place.look(&["export", "ana"]);
    let export: Json = serde_json::from_slice(&export.stdout).expect("JSON");
    assert_eq!((&export["consents"][0]["granted"], &export["consents"][0]["purpose"]), (&json!(true), &json!("marketing")));

    // by hand, beside the daemon; the customer database says yes again, and is not believed
    let added = place.run(&["suppressions", "add", "ana@post.example", "--reason", "unsubscribe"]);
    assert!(added.status.success() && text(&added).contains("1 addresses are on the suppression list"), "{}", text(&added));
    let shown = place.run(&["suppressions", "show", "ANA@post.example"]);
    assert!(text(&shown).contains("unsubscribe: marketing, since") && text(&shown).contains("by operator"), "{}", text(&shown));
    daemon.send(&key, &[with("ana", "newsletter", json!(1)), sign_up("ana", 2)]);
    daemon.settles();
    assert!(matches!(place.states("ana").as_slice(), [_, "blocked" | "cancelled"]), "{:?}", place.states("ana"));

    let other = place.run(&["suppressions", "remove", "ana@post.example", "--user", "cleo"]);
    assert!(text(&other).contains("not the email address of this person"), "{}", text(&other));
    let removed = place.run(&["suppressions", "remove", "ana@post.example", "--user", "ana"]);
    assert!(removed.status.success() && text(&removed).contains("must give it anew"), "{}", text(&removed));
    daemon.send(&key, &[with("ana", "newsletter", json!("true")), sign_up("ana", 3)]);
    daemon.settles();
    assert!(went("ana"), "{:?}", place.states("ana"));
    assert!(!daemon.log().contains("post.example"), "no address in the log");
    assert_eq!(daemon.terminate().0, Some(0));
}

#[test]
fn a_list_of_the_system_before_is_taken_over() {
    let place = place();
    drop(place.serve("serve.log"));
    let list = place.path("list.csv");
    let rows = "email,reason,since,until\nana@post.example,complaint,2020-01-01T00:00:00Z,\nben@post.example,,,2020-01-01T00:00:00Z\nnobody,,,\ncleo@post.example,spite,,\n";
    fs::write(&list, rows).expect("written");
    let list = list.display().to_string();
    let taken = place.run(&["suppressions", "import", &list]);
    let said = text(&taken);
    assert_eq!(taken.status.code(), Some(1), "{said}");
    for expected in ["2 entries taken in, 2 rows rejected", "line 4: say by which channel", "line 5: `spite` is no reason"] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    let show = |address: &str| text(&place.run(&["suppressions", "show", address]));
    assert!(show("ana@post.example").contains("complaint: everything, since 2020-01-01T00:00:00Z, by operator"));
    assert!(show("ben@post.example").contains("(over)"));
    assert!(show("+44 1632 960001").contains("sms:\nthat address is not on the suppression list"));
    assert!(text(&place.run(&["suppressions", "remove", "dora@post.example"])).contains("not on the suppression list"));
}

#[test]
fn check_refuses_mails_without_a_way_out_or_of_another_domain() {
    let channels =
        "channels: { email: { provider: relay, sender: { from: The shop <news@shop.example>, postal_address: \"1 High Street\" } } }";
    let place = Place::new(
        &RULES.replace("channels: { email: { provider: recording } }", channels).replace("    key: event.round\n", ""),
        &TEMPLATES,
    );
    let secret = place.path("secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("written");
    let secret = format!("\"file:{}\"", secret.display());
    let relay = |domain: &str| {
        format!(
            "providers: {{ relay: {{ kind: smtp, host: mail.example, dkim: [{{ domain: {domain}, selector: s1, key: {secret} }}] }} }}\n"
        )
    };
    let rules = place.path("rules").display().to_string();
    let check = |place: &Place| text(&place.run(&["check", &rules]));
    let place = place.with(&relay("relay.example"));
    let said = check(&place);
    for expected in [
        "RK0412",
        "set `http.public_url` and `secrets.links`",
        "RK0413",
        "mails from `shop.example` are signed by `relay` for relay.example only",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    let place = place.with(&format!("{}secrets: {{ links: {secret} }}\n", relay("shop.example")));
    let said = check(&place);
    assert!(said.contains("no findings"), "{said}");
}
