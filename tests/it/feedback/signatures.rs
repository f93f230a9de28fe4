//! Calls are believed if the provider signed them, and not otherwise: against known answers, and against the providers' own libraries.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use rekindle::channel::callback::Scheme;
use rekindle::engine::time::Timestamp;
use rekindle::feedback::signature::{Call, Refused, Verifier, is_one_of};
use ring::signature::KeyPair as _;
use ring::{hmac, signature};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// A signed call, as tests write it.
#[derive(Deserialize, Clone)]
struct Signed {
    scheme: Json,
    secret: String,
    #[serde(default)]
    url: String,
    headers: serde_json::Map<String, Json>,
    body: String,
}

impl Signed {
    fn verify_with(&self, secrets: &[&str], now: Timestamp) -> Result<(), Refused> {
        let scheme: Scheme = serde_json::from_value(self.scheme.clone()).expect("a scheme");
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| {
                let value = value.as_str().expect("a text");
                (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        let call = Call { url: &self.url, headers: &headers, body: self.body.as_bytes(), now };
        Verifier::new(&scheme, secrets).expect("secrets").verify(&call)
    }

    fn verify(&self, now: Timestamp) -> Result<(), Refused> {
        self.verify_with(&[&self.secret], now)
    }

    fn with_header(&self, name: &str, value: &str) -> Signed {
        let mut other = self.clone();
        other.headers.insert(name.to_owned(), value.into());
        other
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(seconds * 1000)
}

fn vectors(name: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("the vectors")).expect("JSON")
}

fn text(of: &Json, name: &str) -> String {
    of.get(name).and_then(Json::as_str).unwrap_or_else(|| panic!("`{name}` in {of}")).to_owned()
}

/// Calls with known answers, each with the instant at which it was signed.
fn known() -> Vec<(Signed, i64)> {
    let mut known = Vec::new();
    for vector in vectors("standard-webhooks.json") {
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers = names.iter().map(|name| ((*name).to_owned(), text(&vector, name).into())).collect();
        let scheme = json!({ "scheme": "standard_webhooks" });
        let signed = Signed { scheme, secret: text(&vector, "secret"), url: String::new(), headers, body: text(&vector, "body") };
        known.push((signed, text(&vector, "webhook-timestamp").parse().expect("seconds")));
    }
    for vector in vectors("sendgrid.json") {
        let headers = json!({
            "x-twilio-email-event-webhook-signature": text(&vector, "signature"),
            "x-twilio-email-event-webhook-timestamp": text(&vector, "timestamp"),
        });
        let signed = Signed {
            scheme: json!({ "scheme": "sendgrid" }),
            secret: text(&vector, "public_key"),
            url: String::new(),
            headers: headers.as_object().cloned().expect("headers"),
            body: text(&vector, "body"),
        };
        known.push((signed, text(&vector, "timestamp").parse().expect("seconds")));
    }
    for vector in vectors("twilio.json") {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in vector.get("params").and_then(Json::as_object).expect("params") {
            form.append_pair(name, value.as_str().expect("a text"));
        }
        let headers = json!({ "x-twilio-signature": text(&vector, "x-twilio-signature") });
        let signed = Signed {
            scheme: json!({ "scheme": "twilio" }),
            secret: text(&vector, "auth_token"),
            url: text(&vector, "url"),
            headers: headers.as_object().cloned().expect("headers"),
            body: form.finish(),
        };
        known.push((signed, 0));
    }
    known
}

#[test]
fn known_answers_are_believed_and_their_forgeries_are_not() {
    let known = known();
    assert!(known.len() >= 7, "{}", known.len());
    for (signed, seconds) in known {
        assert_eq!(signed.verify(at(seconds)), Ok(()), "{}", signed.body);
        for body in [format!("{}x", signed.body), format!("x={}&", signed.body)] {
            assert_eq!(Signed { body, ..signed.clone() }.verify(at(seconds)), Err(Refused::Forged), "a changed body");
        }
    }
}

/// One call of each scheme that is signed by hand, made for the tables below.
fn made(scheme: &Json, now: i64) -> Signed {
    let (secret, body) = ("a secret", "{\"event\":\"delivered\"}".to_owned());
    let tag = |signed: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::sign(&key, signed.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (headers, body, secret) = match scheme["scheme"].as_str().expect("a name") {
        "meta" => (json!({ "X-Hub-Signature-256": format!("sha256={}", tag(&body)) }), body, secret),
        "hmac_sha256" => (json!({ "x-time": now.to_string(), "x-sig": format!("v0={}", tag(&format!("v0:{now}:{body}"))) }), body, secret),
        "mailgun" => {
            let block = json!({ "timestamp": now.to_string(), "token": "t0k3n", "signature": tag(&format!("{now}t0k3n")) });
            (json!({}), json!({ "signature": block, "event-data": {} }).to_string(), secret)
        }
        "basic" => (json!({ "authorization": format!("Basic {}", STANDARD.encode("user:pass")) }), body, "user:pass"),
        other => panic!("{other}"),
    };
    let headers = headers.as_object().cloned().expect("headers");
    Signed { scheme: scheme.clone(), secret: secret.to_owned(), url: String::new(), headers, body }
}

fn by_hand() -> [Json; 4] {
    [
        json!({ "scheme": "meta" }),
        json!({ "scheme": "hmac_sha256", "header": "X-Sig", "prefix": "v0=", "timestamp_header": "X-Time", "signed": "v0:{timestamp}:{body}", "tolerance_s": 60 }),
        json!({ "scheme": "mailgun" }),
        json!({ "scheme": "basic" }),
    ]
}

#[test]
fn every_scheme_takes_any_live_secret_and_no_other() {
    for scheme in by_hand() {
        let signed = made(&scheme, 1_764_000_000);
        let now = at(1_764_000_010);
        assert_eq!(signed.verify_with(&["old:secret", &signed.secret], now), Ok(()), "{scheme}");
        assert_eq!(signed.verify_with(&["old:secret", "another:one"], now), Err(Refused::Forged), "{scheme}");
        let bare = Signed { headers: serde_json::Map::new(), body: "{}".into(), ..signed };
        assert!(matches!(bare.verify(now), Err(Refused::Missing(_))), "{scheme}: {:?}", bare.verify(now));
    }
}

#[test]
fn a_call_is_believed_only_for_a_while() {
    let now = 1_764_000_000;
    let standard = |seconds: i64| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let signature = STANDARD.encode(hmac::sign(&key, format!("m.{seconds}.x").as_bytes()));
        let headers =
            json!({ "webhook-id": "m", "webhook-timestamp": seconds.to_string(), "webhook-signature": format!("v1,{signature}") });
        let headers = headers.as_object().cloned().expect("headers");
        let secret = format!("whsec_{}", STANDARD.encode("key"));
        Signed { scheme: json!({ "scheme": "standard_webhooks" }), secret, url: String::new(), headers, body: "x".into() }
    };
    let [_, hmac, mailgun, _] = by_hand();
    let (hour, minute) = (3600, 60);
    for (name, signed, age, is_believed) in [
        ("standard webhooks, at the limit", standard(now), 5 * minute, true),
        ("standard webhooks, past it", standard(now), 5 * minute + 1, false),
        ("standard webhooks, from the future", standard(now), -5 * minute - 1, false),
        ("own tolerance, at the limit", made(&hmac, now), minute, true),
        ("own tolerance, past it", made(&hmac, now), minute + 1, false),
        ("mailgun repeats for eight hours", made(&mailgun, now), 8 * hour, true),
        ("mailgun, past them", made(&mailgun, now), 8 * hour + 1, false),
    ] {
        let answer = signed.verify(at(now + age));
        match is_believed {
            true => assert_eq!(answer, Ok(()), "{name}"),
            false => assert!(matches!(answer, Err(Refused::Stale { .. } | Refused::Future { .. })), "{name}: {answer:?}"),
        }
    }
    // the time is signed: it cannot be moved
    let moved = standard(now).with_header("webhook-timestamp", &(now + 600).to_string());
    assert_eq!(moved.verify(at(now + 600)), Err(Refused::Forged));
}

#[test]
fn standard_webhooks_may_carry_several_signatures_and_public_keys() {
    let random = ring::rand::SystemRandom::new();
    let document = signature::Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
    let pair = signature::Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key pair");
    let signed = STANDARD.encode(pair.sign(b"m.1764000000.x").as_ref());
    let public = format!("whpk_{}", STANDARD.encode(pair.public_key().as_ref()));
    let headers = json!({ "svix-id": "m", "svix-timestamp": "1764000000", "svix-signature": format!("v1,AAAA v1a,{signed} v2,whatever") });
    let call = Signed {
        scheme: json!({ "scheme": "standard_webhooks", "prefix": "svix" }),
        secret: public,
        url: String::new(),
        headers: headers.as_object().cloned().expect("headers"),
        body: "x".into(),
    };
    let now = at(1_764_000_000);
    assert_eq!(call.verify(now), Ok(()));
    let as_v1 = call.with_header("svix-signature", &format!("v1,{signed}"));
    assert_eq!(as_v1.verify(now), Err(Refused::Forged), "a signature counts under its own version only");
    assert_eq!(call.with_header("svix-signature", "nonsense").verify(now), Err(Refused::Unreadable("the header `svix-signature`".into())));
}

#[test]
fn wrong_secrets_are_refused_at_the_start_and_never_shown() {
    for (scheme, secrets, expected) in [
        (json!({ "scheme": "sendgrid" }), vec!["hunter2"], "base64"),
        (json!({ "scheme": "sendgrid" }), vec!["aHVudGVyMg=="], "P-256"),
        (json!({ "scheme": "basic" }), vec!["hunter2"], "user:password"),
        (json!({ "scheme": "meta" }), vec![], "needs a secret"),
        (json!({ "scheme": "meta" }), vec!["hunter2", ""], "empty"),
        (json!({ "scheme": "standard_webhooks" }), vec!["whsec_hunter2!"], "secret 1"),
    ] {
        let scheme: Scheme = serde_json::from_value(scheme).expect("a scheme");
        let found = Verifier::new(&scheme, &secrets).expect_err("an error");
        assert!(found.contains(expected) && !found.contains("hunter2"), "{found}");
    }
    assert!(is_one_of("b", &["a", "b"]) && !is_one_of("c", &["a", "b"]) && !is_one_of("", &["", "a"]));
}

#[test]
fn the_providers_own_libraries_are_believed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
    if !folder.join("node_modules").is_dir() {
        assert!(std::env::var_os("REKINDLE_REQUIRE_SERVICES").is_none(), "tests/foreign: run `npm install` there first");
        return;
    }
    let now = 1_764_000_000;
    let output = Command::new("node").arg(folder.join("sign.mjs")).arg(now.to_string()).output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    let calls: Vec<Signed> = lines.lines().map(|line| serde_json::from_str(line).expect("a call")).collect();
    assert!(calls.len() >= 7, "{lines}");
    for call in calls {
        assert_eq!(call.verify(at(now + 60)), Ok(()), "{} {}", call.scheme, call.url);
        let forged = Signed { body: format!("{}&x=1", call.body), ..call };
        assert_eq!(forged.verify(at(now + 60)), Err(Refused::Forged), "{} {}", forged.scheme, forged.url);
    }
}
