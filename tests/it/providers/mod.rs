//! Providers behind HTTP: what leaves, what answers mean, what may never be reached; webhooks as foreign libraries see them; push against
//! a fake that keeps Google's protocol.

pub mod sink;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rekindle::channel::http::HttpProvider;
use rekindle::channel::http::provider::{Description, shipped};
use rekindle::channel::push::Fcm;
use rekindle::channel::webhook::Webhook;
use rekindle::channel::{Channel, Outcome, Outgoing, RetryClass};
use rekindle::engine::action::Channel as Kind;
use rekindle::engine::rule::ChannelPolicy;
use rekindle::message::Content;
use rekindle::settings::Secret;
use rekindle::settings::providers::{Fcm as FcmSettings, Http, Webhook as WebhookSettings};
use serde_json::{Value as Json, json};

use self::sink::{Answer, HttpSink};
use crate::mail::{content, has_python, links, outgoing, policy, python, sink::authority};

/// An authority of our own, so that nothing depends on what the machine trusts.
fn ca() -> Option<String> {
    static CA: OnceLock<String> = OnceLock::new();
    Some(CA.get_or_init(|| authority().0).clone())
}

fn says(status: u16, body: Json) -> Answer {
    (status, Vec::new(), body.to_string())
}

fn class(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Retry { class: RetryClass::Transient, .. } => "transient",
        Outcome::Retry { class: RetryClass::Throttle, .. } => "throttle",
        Outcome::Retry { class: RetryClass::Config, .. } => "config",
        Outcome::Rejected { suppress: true, .. } => "suppress",
        Outcome::Rejected { suppress: false, .. } => "rejected",
        Outcome::Ambiguous { ask_again: true, .. } => "ask again",
        Outcome::Ambiguous { ask_again: false, .. } => "unknown",
    }
}

fn everywhere() -> Content {
    Content {
        sms: Some("Hallo Ana".into()),
        whatsapp: Some("Ana\n10 %".into()),
        push_title: Some("Hallo".into()),
        push_body: Some("Ana".into()),
        ..content()
    }
}

/// A shipped provider with made-up settings, talking to the sink.
fn provider(name: &str, sink: &HttpSink) -> HttpProvider {
    let (_, text) = shipped().into_iter().find(|(shipped, _)| *shipped == name).expect("a shipped file");
    let description = Description::read(name, text).expect("a sound file");
    let mut values: BTreeMap<String, Secret> =
        description.settings.keys().map(|key| (key.clone(), Secret::given(&format!("the-{key}")))).collect();
    let url = if name == "sms-gateway" { "url" } else { "base_url" };
    values.insert(url.into(), Secret::given(&sink.url("")));
    let settings = Http {
        description,
        values,
        callback_token: Some(Secret::given("path-token")),
        callback_secret: None,
        callback_secret_before: None,
        allow_networks: vec!["127.0.0.1".parse().expect("a network")],
        ca: ca(),
    };
    let public_url = "https://rekindle.shop.example/".parse().expect("an address");
    HttpProvider::new(name, &settings, Some(links()), Some(&public_url)).expect("a provider")
}

fn message<'a>(kind: Kind, content: &'a Content, policy: &'a ChannelPolicy) -> Outgoing<'a> {
    let address = if kind == Kind::Email { "ana@post.example" } else { "+441632960001" };
    Outgoing { kind, address, ..outgoing(1, content, policy) }
}

async fn answered(name: &str, kind: Kind, answer: Answer) -> (Outcome, Vec<sink::Asked>) {
    let sink = HttpSink::start(vec![answer]).await;
    let (content, policy) = (everywhere(), policy());
    let outcome = provider(name, &sink).send(&message(kind, &content, &policy)).await;
    (outcome, sink.asked())
}

#[tokio::test]
async fn shipped_providers_get_what_they_expect() {
    let mut told = String::new();
    for (name, kind) in [
        ("sendgrid", Kind::Email),
        ("mailgun", Kind::Email),
        ("postmark", Kind::Email),
        ("resend", Kind::Email),
        ("twilio", Kind::Sms),
        ("whatsapp-cloud", Kind::Whatsapp),
        ("sms-gateway", Kind::Sms),
    ] {
        let (outcome, asked) = answered(name, kind, says(200, json!({}))).await;
        assert_eq!(class(&outcome), "accepted", "{name}: {outcome:?}");
        let [asked] = &asked[..] else { panic!("{name}: one request") };
        told.push_str(&format!("== {name}\n{} {}\n", asked.method, asked.path));
        for header in ["authorization", "content-type", "idempotency-key", "x-postmark-server-token"] {
            if asked.headers.contains_key(header) {
                told.push_str(&format!("{header}: {}\n", asked.header(header)));
            }
        }
        match serde_json::from_str::<Json>(&asked.body) {
            Ok(json) => told.push_str(&format!("{json:#}\n\n")),
            Err(_) => {
                for (key, value) in url::form_urlencoded::parse(asked.body.as_bytes()) {
                    told.push_str(&format!("{key} = {value}\n"));
                }
                told.push('\n');
            }
        }
    }
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn answers_of_shipped_providers_are_understood() {
    use Kind::{Email, Sms, Whatsapp};
    let cases: Vec<(&str, Kind, Answer, &str)> = vec![
        ("sendgrid", Email, (202, vec![("x-message-id", "abc".into())], String::new()), "accepted"),
        ("sendgrid", Email, says(401, json!({})), "config"),
        ("sendgrid", Email, says(413, json!({})), "rejected"),
        ("sendgrid", Email, says(429, json!({})), "throttle"),
        ("sendgrid", Email, says(500, json!({})), "transient"),
        ("sendgrid", Email, (302, vec![("location", "http://169.254.169.254/".into())], String::new()), "rejected"),
        ("sendgrid", Email, (202, vec![], "<html>garbage".into()), "accepted"),
        ("sendgrid", Email, (202, vec![], "x".repeat(3_000_000)), "accepted"),
        ("mailgun", Email, says(200, json!({ "id": "<1@mg>", "message": "Queued" })), "accepted"),
        ("mailgun", Email, says(404, json!({ "message": "Domain not found" })), "config"),
        ("postmark", Email, says(422, json!({ "ErrorCode": 406 })), "suppress"),
        ("postmark", Email, says(422, json!({ "ErrorCode": 300 })), "rejected"),
        ("postmark", Email, says(422, json!({ "ErrorCode": 405 })), "config"),
        ("resend", Email, says(409, json!({ "name": "concurrent_idempotent_requests" })), "transient"),
        ("resend", Email, says(422, json!({ "name": "validation_error" })), "rejected"),
        ("twilio", Sms, says(201, json!({ "sid": "SM1" })), "accepted"),
        ("twilio", Sms, says(400, json!({ "code": 21610 })), "suppress"),
        ("twilio", Sms, says(400, json!({ "code": 21211 })), "suppress"),
        ("twilio", Sms, says(400, json!({ "code": 21617 })), "rejected"),
        ("twilio", Sms, says(401, json!({ "code": 20003 })), "config"),
        ("whatsapp-cloud", Whatsapp, says(200, json!({ "messages": [{ "id": "wamid.1" }] })), "accepted"),
        ("whatsapp-cloud", Whatsapp, says(400, json!({ "error": { "code": 131026 } })), "suppress"),
        ("whatsapp-cloud", Whatsapp, says(400, json!({ "error": { "code": 130429 } })), "throttle"),
        ("whatsapp-cloud", Whatsapp, says(400, json!({ "error": { "code": 190 } })), "config"),
        ("whatsapp-cloud", Whatsapp, says(400, json!({ "error": { "code": 131049 } })), "rejected"),
        ("sms-gateway", Sms, says(400, json!({ "error": "opted_out" })), "suppress"),
    ];
    for (name, kind, answer, expected) in cases {
        let shown = format!("{name} {} {:.60}", answer.0, answer.2);
        let (outcome, asked) = answered(name, kind, answer).await;
        assert_eq!(class(&outcome), expected, "{shown}: {outcome:?}");
        assert_eq!(asked.len(), 1, "{shown}: no redirect is followed, nothing is repeated behind our back");
    }
    for (name, kind, answer, id) in [
        ("sendgrid", Email, (202, vec![("x-message-id", "abc".to_owned())], String::new()), "abc"),
        ("whatsapp-cloud", Whatsapp, says(200, json!({ "messages": [{ "id": "wamid.1" }] })), "wamid.1"),
        ("twilio", Sms, says(201, json!({ "sid": "SM1" })), "SM1"),
    ] {
        assert_eq!(answered(name, kind, answer).await.0, Outcome::Accepted { provider_id: id.into() });
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_was_sent_nothing_and_one_that_says_nothing_leaves_doubt() {
    let content = everywhere();
    let impatient = ChannelPolicy { timeout_ms: Some(50), ..policy() };
    for (name, kind, expected) in
        [("sendgrid", Kind::Email, "unknown"), ("resend", Kind::Email, "ask again"), ("twilio", Kind::Sms, "unknown")]
    {
        let sink = HttpSink::start(vec![(0, vec![], String::new())]).await;
        let outcome = provider(name, &sink).send(&message(kind, &content, &impatient)).await;
        assert_eq!(class(&outcome), expected, "{name}: {outcome:?}");
        let gone = HttpSink::start(vec![]).await;
        let provider = provider(name, &gone);
        drop(gone);
        let outcome = provider.send(&message(kind, &content, &impatient)).await;
        assert!(["transient", expected].contains(&class(&outcome)), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_word_for_how_long_is_passed_on_and_secrets_are_in_no_answer() {
    let (outcome, _) = answered("sendgrid", Kind::Email, (429, vec![("retry-after", "120".into())], "the-api_key".into())).await;
    let Outcome::Retry { class: RetryClass::Throttle, after_ms: Some(120_000), .. } = outcome else { panic!("{outcome:?}") };
    let sink = HttpSink::start(vec![]).await;
    let content = everywhere();
    let policy = policy();
    let outcome = provider("twilio", &sink).send(&Outgoing { address: "not a number", ..message(Kind::Sms, &content, &policy) }).await;
    assert_eq!(class(&outcome), "suppress");
    assert!(sink.asked().is_empty());
}

#[tokio::test]
async fn whatsapp_goes_as_an_approved_template_where_the_policy_says_so() {
    let sink = HttpSink::start(vec![]).await;
    let content = Content { locale: "pt-BR".into(), ..everywhere() };
    let policy = ChannelPolicy { templates_only: true, ..policy() };
    let outgoing = Outgoing { template: "win-back", ..message(Kind::Whatsapp, &content, &policy) };
    assert_eq!(class(&provider("whatsapp-cloud", &sink).send(&outgoing).await), "accepted");
    let body = sink.asked().remove(0).json();
    assert_eq!((body["type"].as_str(), body.get("text")), (Some("template"), None));
    let parameters = json!([{ "type": "text", "text": "Ana" }, { "type": "text", "text": "10 %" }]);
    let template =
        json!({ "name": "win_back", "language": { "code": "pt_BR" }, "components": [{ "type": "body", "parameters": parameters }] });
    assert_eq!(body["template"], template);
}

// --------------------------------------------------------------------------------------------------------------------- webhooks

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECRET_BEFORE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn webhook(url: &str, allow: &[&str]) -> Webhook {
    let settings = WebhookSettings {
        url: url.parse().expect("an address"),
        secrets: vec![Secret::given(SECRET), Secret::given(SECRET_BEFORE)],
        allow_networks: allow.iter().map(|network| network.parse().expect("a network")).collect(),
        ca: ca(),
    };
    Webhook::new(&settings).expect("a webhook")
}

#[tokio::test]
async fn a_webhook_is_answered_by_the_specification() {
    let (content, policy) = (everywhere(), policy());
    for (status, headers, expected) in [
        (204, vec![], "accepted"),
        (301, vec![("location", "http://127.0.0.1/".to_owned())], "transient"),
        (400, vec![], "transient"),
        (410, vec![], "config"),
        (429, vec![("retry-after", "7".to_owned())], "throttle"),
        (503, vec![], "transient"),
        (0, vec![], "ask again"),
    ] {
        let sink = HttpSink::start(vec![(status, headers, String::new())]).await;
        let impatient = ChannelPolicy { timeout_ms: Some(200), ..policy.clone() };
        let outgoing = Outgoing { kind: Kind::Webhook, address: "", ..outgoing(1, &content, &impatient) };
        let outcome = webhook(&sink.url("/hook"), &["127.0.0.1"]).send(&outgoing).await;
        assert_eq!(class(&outcome), expected, "{status}: {outcome:?}");
        assert_eq!(sink.asked().len(), 1, "{status}");
    }
    let sink = HttpSink::start(vec![(500, vec![], String::new()), (500, vec![], String::new())]).await;
    let hook = webhook(&sink.url("/hook"), &["127.0.0.1"]);
    let first = outgoing(1, &content, &policy);
    let last = Outgoing { attempt: 10, ..first.clone() };
    let Outcome::Retry { after_ms: Some(after_ms), .. } = hook.send(&first).await else { panic!("a retry") };
    assert!((4_000..=6_000).contains(&after_ms));
    assert_eq!(class(&hook.send(&last).await), "rejected", "after the last of the schedule");
}

#[tokio::test]
async fn a_webhook_never_reaches_what_is_not_public() {
    let sink = HttpSink::start(vec![]).await;
    let (content, policy) = (everywhere(), policy());
    let port = sink.port;
    for url in [
        format!("https://127.0.0.1:{port}/"),
        format!("https://[::1]:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        format!("https://0x7f000001:{port}/"),
        // names that resolve to this machine: the filter sits where the connection is made
        format!("https://localhost:{port}/"),
        format!("http://localhost:{port}/"),
    ] {
        let outcome = webhook(&url, &[]).send(&outgoing(1, &content, &policy)).await;
        let Outcome::Retry { class: RetryClass::Transient, detail, .. } = outcome else { panic!("{url}: {outcome:?}") };
        assert!(detail.contains("not public") || detail.contains("only https"), "{url}: {detail}");
    }
    // a name is resolved, filtered, and the connection goes to what was kept: an own network that is let in does not let in this one
    let outcome = webhook(&format!("http://localhost:{port}/"), &["10.0.0.0/8"]).send(&outgoing(1, &content, &policy)).await;
    assert_eq!(class(&outcome), "transient");
    assert!(sink.asked().is_empty());
    let outcome = webhook(&format!("http://localhost:{port}/"), &["127.0.0.0/8"]).send(&outgoing(1, &content, &policy)).await;
    assert_eq!(class(&outcome), "accepted", "{outcome:?}");
}

#[tokio::test]
async fn foreign_libraries_believe_our_webhooks_and_no_others() {
    let sink = HttpSink::start(vec![]).await;
    let (content, policy) = (everywhere(), policy());
    // they look at the clock: the message is of now
    let now = rekindle::clock::Clock::now(&rekindle::clock::SystemClock);
    let outgoing = Outgoing { at: now, ..outgoing(1, &content, &policy) };
    assert_eq!(class(&webhook(&sink.url("/hook"), &["127.0.0.1"]).send(&outgoing).await), "accepted");
    let asked = sink.asked().remove(0);
    assert_eq!(asked.header("webhook-id"), outgoing.message.to_string());
    assert_eq!(asked.header("webhook-signature").split(' ').count(), 2, "one for each live secret");
    assert_eq!(asked.json()["data"]["content"]["sms"], "Hallo Ana");

    for library in ["standardwebhooks", "svix"] {
        if !has_python(library, &format!("pip install {library}")) {
            continue;
        }
        let verify = |secret: &str, body: &str| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/webhooks/verify.py");
            let (id, at, signature) = ("webhook-id", "webhook-timestamp", "webhook-signature");
            let headers = [id, at, signature].map(|name| asked.header(name).to_owned());
            let output = Command::new(python()).arg(script).args([library, secret, body]).args(headers).output().expect("python");
            String::from_utf8_lossy(&output.stdout).trim().to_owned() + &*String::from_utf8_lossy(&output.stderr)
        };
        assert_eq!(verify(SECRET, &asked.body), "good", "{library}");
        assert_eq!(verify(SECRET_BEFORE, &asked.body), "good", "{library}: while the secret is replaced");
        assert_eq!(verify("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &asked.body), "bad", "{library}");
        assert_eq!(verify(SECRET, &asked.body.replace("Ana", "Eve")), "bad", "{library}");
    }
}

// ------------------------------------------------------------------------------------------------------------------------- push

fn account(sink: &HttpSink) -> Secret {
    let key = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail/rsa.pem")).expect("a key");
    Secret::given(
        &json!({
            "type": "service_account", "project_id": "shop-1", "private_key_id": "k1", "private_key": key,
            "client_email": "rekindle@shop-1.iam.example", "token_uri": sink.url("/token"),
        })
        .to_string(),
    )
}

fn fcm(sink: &HttpSink) -> Fcm {
    let base_url = sink.url("/").parse().expect("an address");
    let allow_networks = vec!["127.0.0.1".parse().expect("a network")];
    Fcm::new(&FcmSettings { service_account: account(sink), base_url, allow_networks, ca: ca() }).expect("a channel")
}

fn token(name: &str, seconds: u32) -> Answer {
    says(200, json!({ "access_token": name, "expires_in": seconds, "token_type": "Bearer" }))
}

#[tokio::test]
async fn push_asks_for_a_token_once_and_says_what_google_expects() {
    let sink = HttpSink::start(vec![token("t1", 3_600), says(200, json!({ "name": "projects/shop-1/messages/9" }))]).await;
    let (content, policy) = (everywhere(), policy());
    let push = Outgoing { kind: Kind::Push, address: "device-token", ..outgoing(1, &content, &policy) };
    let fcm = fcm(&sink);
    assert_eq!(fcm.send(&push).await, Outcome::Accepted { provider_id: "projects/shop-1/messages/9".into() });
    assert_eq!(class(&fcm.send(&push).await), "accepted");
    let asked = sink.asked();
    assert_eq!(
        asked.iter().map(|asked| asked.path.as_str()).collect::<Vec<_>>(),
        ["/token", "/v1/projects/shop-1/messages:send", "/v1/projects/shop-1/messages:send"]
    );
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(asked[0].body.as_bytes()).into_owned().collect();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let parts: Vec<&str> = form["assertion"].split('.').collect();
    let decoded = |n: usize| URL_SAFE_NO_PAD.decode(parts[n]).expect("base64url");
    let claims: Json = serde_json::from_slice(&decoded(1)).expect("claims");
    assert_eq!((claims["iss"].as_str(), claims["aud"].as_str()), (Some("rekindle@shop-1.iam.example"), Some(&*sink.url("/token"))));
    assert_eq!(claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat"), 3_600);
    let pem = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail/rsa.pem")).expect("a key");
    let der = <rustls::pki_types::PrivatePkcs8KeyDer as rustls::pki_types::pem::PemObject>::from_pem_slice(&pem).expect("a key");
    let pair = ring::signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("a key");
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, pair.public());
    public.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &decoded(2)).expect("its own signature");

    assert_eq!(asked[1].header("authorization"), "Bearer t1");
    let message = &asked[1].json()["message"];
    assert_eq!(message["token"], "device-token");
    assert_eq!(message["notification"], json!({ "title": "Hallo", "body": "Ana" }));
    assert_eq!(message["data"]["rekindle_message"], push.message.to_string());
}

#[tokio::test]
async fn push_replaces_its_token_in_time_and_once_if_it_is_taken_back() {
    let (content, policy) = (everywhere(), policy());
    let push = Outgoing { kind: Kind::Push, address: "device-token", ..outgoing(1, &content, &policy) };
    let refused = || says(401, json!({ "error": { "code": 401, "status": "UNAUTHENTICATED" } }));
    let good = || says(200, json!({ "name": "n" }));
    // good for a minute: shorter than we look ahead
    let sink = HttpSink::start(vec![token("t1", 60), good(), token("t2", 60), good()]).await;
    let channel = fcm(&sink);
    assert_eq!((class(&channel.send(&push).await), class(&channel.send(&push).await)), ("accepted", "accepted"));
    assert_eq!(sink.asked().iter().filter(|asked| asked.path == "/token").count(), 2);

    let sink = HttpSink::start(vec![token("t1", 3_600), refused(), token("t2", 3_600), good()]).await;
    assert_eq!(class(&fcm(&sink).send(&push).await), "accepted");
    assert_eq!(sink.asked()[3].header("authorization"), "Bearer t2");

    let sink = HttpSink::start(vec![token("t1", 3_600), refused(), token("t2", 3_600), refused()]).await;
    assert_eq!(class(&fcm(&sink).send(&push).await), "config", "a second refusal is the account's");

    let sink = HttpSink::start(vec![says(400, json!({ "error": "invalid_grant" }))]).await;
    assert_eq!(class(&fcm(&sink).send(&push).await), "config");
    let sink = HttpSink::start(vec![says(503, json!({}))]).await;
    assert_eq!(class(&fcm(&sink).send(&push).await), "transient");
    for account in ["", "{}", "{\"project_id\": \"x\"}", "hunter2"] {
        let settings = FcmSettings {
            service_account: Secret::given(account),
            base_url: sink.url("/").parse().expect("an address"),
            allow_networks: vec![],
            ca: ca(),
        };
        let error = Fcm::new(&settings).err().expect("refused").to_string();
        assert!(error.contains("not the JSON file") && !error.contains("hunter2"), "{error}");
    }
}
