//! The door for events, and people read back: what senders are told, and what is on disk by then.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rekindle::clock::{Clock as _, VirtualClock};
use rekindle::engine::event::Event;
use rekindle::engine::time::{DAY_MS, HOUR_MS, Timestamp};
use rekindle::evaluate::{self, Evaluator};
use rekindle::ingest::http::{self, Ingest, Setup, keys};
use rekindle::rulebook::Rulebook;
use rekindle::store::sqlite::{Options, SqliteStore};
use rekindle::store::{Identity, KeyId, KeyScope, Look, NewKey, Store};
use rekindle::telemetry::Telemetry;
use rekindle::telemetry::metrics::ByResult;
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};
use sqlx::Connection as _;
use tokio::sync::Notify;
use tower::ServiceExt as _;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
pub const NOW: &str = "2026-03-02T10:00:00Z";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an instant")
}

/// The shipped rules behind the door, over a database of its own, at an instant that stands still.
pub struct Door {
    directory: tempfile::TempDir,
    pub store: SqliteStore,
    pub rules: Arc<RuleVersions>,
    pub clock: Arc<VirtualClock>,
    pub telemetry: Arc<Telemetry>,
    pub router: Router,
    pub write_key: String,
    pub read_key: String,
}

impl Door {
    pub async fn open() -> Door {
        Door::open_with(|options| options).await
    }

    async fn open_with(change: impl Fn(Options) -> Options) -> Door {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open_with(change(Options::new(&directory.path().join("shop.db"), "test"))).await.expect("a database");
        let book = Rulebook::open(std::path::Path::new(RULES)).expect("the shipped rules");
        let set = book.set().expect("sound rules");
        let published_at = at(NOW).plus_ms(-30 * DAY_MS);
        store.publish_rules(book.publication(&set, published_at, "tests", "first")).await.expect("published");
        let rules = Arc::new(RuleVersions::new(set, book.templates()));
        let clock = Arc::new(VirtualClock::at(at(NOW)));
        let telemetry = Arc::new(Telemetry::default());
        let write_key = new_key(&store, "shop", KeyScope::Write).await.1;
        let read_key = new_key(&store, "till", KeyScope::Read).await.1;
        let setup = Setup {
            store: Arc::new(store.clone()),
            rules: rules.clone(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            wake: Arc::new(Notify::new()),
            future_tolerance: Duration::from_secs(300),
            keys_fresh: Duration::ZERO,
        };
        let router = http::router(Arc::new(Ingest::new(setup)));
        Door { directory, store, rules, clock, telemetry, router, write_key, read_key }
    }

    pub async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Json) {
        let response = self.router.clone().oneshot(request).await.expect("routers do not fail");
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.expect("a small answer");
        (head.status, head.headers, serde_json::from_slice(&bytes).unwrap_or(Json::Null))
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, HeaderMap, Json) {
        self.send(post(path, Some(&self.write_key)).body(body.into()).expect("a request")).await
    }

    /// Sends a batch, which is taken.
    pub async fn batch(&self, messages: Json) -> Json {
        let (status, _, answer) = self.post("/v1/batch", json!({ "batch": messages, "sentAt": NOW }).to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    pub fn database(&self) -> std::path::PathBuf {
        self.directory.path().join("shop.db")
    }

    pub async fn events(&self, user: &str) -> Vec<Event> {
        let id = self.store.find_profile(&Identity::User(user.into())).await.expect("read").expect("a person");
        self.store.history(id).await.expect("read").events.into_iter().map(|(event, _)| event).collect()
    }

    pub async fn evaluate(&self) {
        let evaluator = Evaluator { store: Arc::new(self.store.clone()), rules: self.rules.clone(), worker: "w".into() };
        evaluate::run_once(&evaluator, Look::Now(self.clock.now()), 100).await.expect("a pass");
    }

    async fn read(&self, path: &str) -> (StatusCode, Json) {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {}", self.read_key));
        let (status, _, answer) = self.send(request.body(Body::empty()).expect("a request")).await;
        (status, answer)
    }

    fn counted(&self, source: &str, result: &str) -> u64 {
        let label = ByResult { source: source.into(), result: result.into() };
        self.telemetry.metrics.events.get_or_create(&label).get()
    }
}

pub async fn new_key(store: &SqliteStore, source: &str, scope: KeyScope) -> (KeyId, String) {
    let key = keys::generate().expect("random numbers");
    let new = NewKey { source: source.into(), scope, hash: keys::hash(&key), at: at(NOW), by: "tests".into() };
    (store.add_key(new).await.expect("added"), key)
}

fn post(path: &str, key: Option<&str>) -> axum::http::request::Builder {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    match key {
        Some(key) => request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{key}:")))),
        None => request,
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

pub fn order(id: &str, user: &str, total: f64) -> Json {
    json!({ "type": "track", "messageId": id, "userId": user, "event": "Order Completed", "timestamp": "2026-03-01T10:00:00Z",
        "properties": { "order_id": id, "total": total, "currency": "GBP" } })
}

#[tokio::test]
async fn what_is_answered_is_on_disk_once() {
    let door = Door::open().await;
    let messages = json!([order("1", "ana", 10.0), order("2", "ana", 20.0), order("1", "ana", 10.0)]);
    let answer = door.batch(messages.clone()).await;
    assert_eq!(answer, json!({ "success": true, "accepted": 2, "duplicates": 1, "rejected": [] }));
    let again = door.batch(messages).await;
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(3)));
    let events = door.events("ana").await;
    let told: Vec<_> = events.iter().map(|event| (&*event.id, &*event.source, event.received_at)).collect();
    assert_eq!(told, [("1", "shop", at(NOW)), ("2", "shop", at(NOW))]);
    assert_eq!((door.counted("shop", "new"), door.counted("shop", "duplicate"), door.counted("shop", "rejected")), (2, 4, 0));
}

#[tokio::test]
async fn a_bad_message_is_refused_by_itself_and_kept() {
    let door = Door::open().await;
    let large = json!({ "type": "track", "messageId": "l", "userId": "ana", "event": "x", "properties": { "text": "x".repeat(33_000) } });
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let body = format!(
        r#"{{"batch":[{},{{"type":"track","event":"Order Completed","properties":{{}}}},"text",{large},{deep},{{"type":"track","userId":7.5,"event":"x"}},
        {{"type":"track","messageId":"f","userId":"ana","event":"x","timestamp":"2062-01-01T00:00:00Z"}},{}]}}"#,
        order("1", "ana", 10.0),
        order("2", "ben", 10.0),
    );
    let (status, _, answer) = door.post("/v1/batch", body).await;
    assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(2)), "{answer}");
    let told: Vec<(u64, &str)> = answer["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row["index"].as_u64().expect("a place"), row["reason"].as_str().expect("text")))
        .collect();
    let expected = [
        (1, "nobody to whom it happened"),
        (2, "not a JSON object"),
        (3, "more than the 32768"),
        (4, "recursion limit"),
        (5, "`userId` must be text, not a number"),
        (6, "has not come yet"),
    ];
    assert_eq!(told.len(), expected.len(), "{answer}");
    for ((index, reason), (place, part)) in told.iter().zip(expected) {
        assert!(*index == place && reason.contains(part), "{index}: {reason}, expected {place}: {part}");
    }
    let kept = door.store.rejects(0, 100).await.expect("read");
    let reasons: Vec<&str> = kept.iter().map(|row| &*row.reason).collect();
    assert_eq!(reasons, told.iter().map(|(_, reason)| *reason).collect::<Vec<_>>());
    assert_eq!((kept[1].row.as_str(), &*kept[1].source, kept[2].row.len()), ("\"text\"", "shop", 32 << 10));
    assert_eq!((door.counted("shop", "new"), door.counted("shop", "rejected")), (2, 6));
}

#[tokio::test]
async fn bytes_that_are_no_text_spoil_only_their_own_message() {
    let door = Door::open().await;
    let mut body = format!("{{\"batch\":[{},", order("1", "ana", 10.0)).into_bytes();
    body.extend_from_slice(b"{\"type\":\"track\",\"userId\":\"\xff\xfe\",\"event\":\"x\"}]}");
    let (status, _, answer) = door.post("/v1/batch", body).await;
    assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(1)));
    assert_eq!(answer["rejected"], json!([{ "index": 1, "reason": "the message is not UTF-8 text" }]));
}

#[tokio::test]
async fn every_call_is_heard_by_its_own_path_and_by_its_letter() {
    let door = Door::open().await;
    let calls = [
        ("/v1/track", json!({ "userId": "ana", "event": "Order Completed" }), "Order Completed"),
        ("/v1/t", json!({ "userId": "ana", "event": "Cart Viewed" }), "Cart Viewed"),
        ("/v1/identify", json!({ "userId": "ana", "traits": { "country": "DE" } }), ""),
        ("/v1/i", json!({ "userId": "ana", "traits": { "country": "FR" } }), ""),
        ("/v1/page", json!({ "userId": "ana", "name": "Home" }), "Page Viewed"),
        ("/v1/p", json!({ "userId": "ana" }), "Page Viewed"),
        ("/v1/screen", json!({ "userId": "ana" }), "Screen Viewed"),
        ("/v1/s", json!({ "userId": "ana", "name": "Home" }), "Screen Viewed"),
        ("/v1/group", json!({ "userId": "ana", "groupId": "club" }), "Group Joined"),
        ("/v1/g", json!({ "userId": "ana", "groupId": "team" }), "Group Joined"),
        ("/v1/alias", json!({ "userId": "ana", "previousId": "anna" }), ""),
        ("/v1/a", json!({ "userId": "ana", "previousId": "annie" }), ""),
        ("/v1/consent", json!({ "userId": "ana", "properties": { "purpose": "marketing", "channel": "email", "granted": true } }), ""),
    ];
    for (number, (path, mut message, _)) in calls.clone().into_iter().enumerate() {
        message["messageId"] = json!(format!("{number:02}"));
        let (status, _, answer) = door.post(path, message.to_string()).await;
        assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(1)), "{path}: {answer}");
    }
    let names: Vec<String> = door.events("annie").await.iter().map(|event| event.name.to_string()).collect();
    assert_eq!(names, calls.map(|(_, _, name)| name.to_owned()));
}

#[tokio::test]
async fn packed_bodies_form_types_and_browsers_are_understood() {
    let door = Door::open().await;
    let body = |id: &str| json!({ "batch": [order(id, "ana", 10.0)] }).to_string();
    let gzip = post("/v1/batch", Some(&door.write_key)).header(header::CONTENT_ENCODING, "gzip").body(packed(body("1").as_bytes()).into());
    let form = Request::post("/v1/batch")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{}:", door.write_key))))
        .body(body("2").into());
    let mut in_body: Json = order("3", "ana", 10.0);
    in_body["writeKey"] = json!(door.write_key);
    let browser = Request::post("/v1/t").header(header::ORIGIN, "https://shop.example").header(header::CONTENT_TYPE, "text/plain");
    let browser = browser.body(in_body.to_string().into());
    for (request, is_browser) in [(gzip, false), (form, false), (browser, true)] {
        let (status, headers, answer) = door.send(request.expect("a request")).await;
        assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(1)), "{answer}");
        assert_eq!(headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), is_browser);
    }
    let question = Request::options("/v1/batch").header(header::ORIGIN, "https://shop.example").body(Body::empty());
    let (status, headers, _) = door.send(question.expect("a request")).await;
    assert_eq!(
        (status, &headers[header::ACCESS_CONTROL_ALLOW_ORIGIN]),
        (StatusCode::NO_CONTENT, &"*".parse::<axum::http::HeaderValue>().expect("a header"))
    );
    assert_eq!(door.events("ana").await.len(), 3);
}

#[tokio::test]
async fn what_is_not_taken_says_why_and_whether_to_come_back() {
    let door = Door::open().await;
    let good = json!({ "batch": [order("1", "ana", 10.0)] }).to_string();
    let (write, read) = (Some(door.write_key.as_str()), Some(door.read_key.as_str()));
    let gzip = |body: Vec<u8>| post("/v1/batch", write).header(header::CONTENT_ENCODING, "gzip").body(Body::from(body));
    let plain = |key, body: Vec<u8>| post("/v1/batch", key).body(Body::from(body));
    let mut cut = packed(good.as_bytes());
    cut.truncate(20);
    let table = [
        (plain(None, good.clone().into()), 401, "no_key"),
        (plain(Some("rk_nobody"), good.clone().into()), 401, "unknown_key"),
        (plain(Some(&"x".repeat(10_000)), good.clone().into()), 401, "unknown_key"),
        (plain(read, good.clone().into()), 403, "wrong_scope"),
        (plain(write, b"nonsense".to_vec()), 400, "not_json"),
        (plain(write, Vec::new()), 400, "not_json"),
        (plain(write, b"[]".to_vec()), 400, "wrong_shape"),
        (plain(write, b"{\"batch\":7}".to_vec()), 400, "wrong_shape"),
        (plain(write, b"{}".to_vec()), 400, "wrong_shape"),
        (plain(write, vec![b' '; 5 << 20]), 413, "too_large"),
        (gzip(cut), 400, "bad_gzip"),
        (gzip(good.clone().into()), 400, "bad_gzip"),
        (gzip(packed(&vec![b' '; 100 << 20])), 413, "too_large"),
        (post("/v1/batch", write).header(header::CONTENT_ENCODING, "br").body(good.clone().into()), 415, "unknown_encoding"),
    ];
    for (request, expected, code) in table {
        let request = request.expect("a request");
        let (status, headers, answer) = door.send(request).await;
        assert_eq!((status.as_u16(), answer["code"].as_str()), (expected, Some(code)), "{answer}");
        assert!(answer["message"].as_str().is_some_and(|message| message.len() > 15), "{answer}");
        assert_eq!(headers.get(header::RETRY_AFTER), None, "it will be no better later");
    }
    assert_eq!(door.send(Request::get("/v1/batch").body(Body::empty()).expect("a request")).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(door.store.counts().await.expect("read").events, 0);
    // the body comes in pieces, so that its length is not announced
    let endless = futures_util::stream::iter((0..1000).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20])));
    let (status, _, answer) = door.post("/v1/batch", Body::from_stream(endless)).await;
    assert_eq!((status.as_u16(), answer["code"].as_str()), (413, Some("too_large")));
    let broken = futures_util::stream::iter([Ok(b"{".to_vec()), Err(std::io::Error::other("gone"))]);
    let (status, _, answer) = door.post("/v1/batch", Body::from_stream(broken)).await;
    assert_eq!((status.as_u16(), answer["code"].as_str()), (400, Some("cut_short")));
}

#[tokio::test]
async fn a_key_works_until_it_is_revoked_and_two_at_once_bring_the_same_source() {
    let door = Door::open().await;
    let (id, second) = new_key(&door.store, "shop", KeyScope::Write).await;
    let send = |key: String, id: &str| {
        let body = json!({ "batch": [order(id, "ana", 10.0)] }).to_string();
        door.send(post("/v1/batch", Some(&key)).body(body.into()).expect("a request"))
    };
    assert_eq!(send(door.write_key.clone(), "1").await.0, StatusCode::OK);
    assert_eq!(send(second.clone(), "1").await.2["duplicates"], 1, "the same source, so the same event");
    assert!(door.store.revoke_key(id, at(NOW), "tests").await.expect("revoked"));
    assert_eq!(send(second, "2").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(send(door.write_key.clone(), "2").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_full_disk_and_a_closed_database_tell_senders_to_come_back() {
    let door = Door::open_with(|options| Options { pages_max: Some(260), ..options }).await;
    let mut taken = 0;
    let (status, headers, answer) = loop {
        let messages: Vec<Json> = (0..50).map(|n| order(&format!("{}", taken + n), "ana", 10.0)).collect();
        let answer = door.post("/v1/batch", json!({ "batch": messages }).to_string()).await;
        if answer.0 != StatusCode::OK {
            break answer;
        }
        taken += 50;
        assert!(taken < 100_000, "the disk is never full");
    };
    assert_eq!(
        (status.as_u16(), answer["code"].as_str(), headers[header::RETRY_AFTER].to_str().ok()),
        (503, Some("disk_full"), Some("30"))
    );
    assert_eq!(door.events("ana").await.len(), taken, "everything that was acknowledged, and nothing else");
    door.store.clone().close().await;
    let (status, headers, answer) = door.post("/v1/batch", json!({ "batch": [order("x", "ana", 1.0)] }).to_string()).await;
    assert_eq!(
        (status.as_u16(), answer["code"].as_str(), headers[header::RETRY_AFTER].to_str().ok()),
        (503, Some("unavailable"), Some("5"))
    );
}

#[tokio::test]
async fn a_person_is_read_back_as_the_row_stands() {
    let door = Door::open().await;
    assert_eq!(door.read("/v1/profiles/ana%20b").await.0, StatusCode::NOT_FOUND);
    let mut visit = json!({ "type": "page", "messageId": "v", "anonymousId": "phone", "timestamp": "2026-01-01T10:00:00Z" });
    let old = |id: &str, total| {
        let mut order = order(id, "ana b", total);
        order["timestamp"] = json!("2026-01-05T10:00:00Z");
        order
    };
    let identify =
        json!({ "type": "identify", "messageId": "i", "userId": "ana b", "anonymousId": "phone", "traits": { "country": "GB" } });
    door.batch(json!([visit, old("1", 300.0), identify])).await;
    let (status, before) = door.read("/v1/profiles/ana%20b").await;
    assert_eq!((status, &before["events_waiting"], &before["points"]["spendable"]), (StatusCode::OK, &json!(3), &json!(0)));
    door.evaluate().await;
    visit["messageId"] = json!("v2");
    door.batch(json!([visit])).await;
    let (_, view) = door.read("/v1/profiles/phone?by=anonymous").await;
    insta::assert_snapshot!(format!("{view:#}"));
    let asked = [
        (Request::get("/v1/profiles/ana%20b"), StatusCode::UNAUTHORIZED),
        (Request::get("/v1/profiles/ana%20b").header(header::AUTHORIZATION, format!("Bearer {}", door.write_key)), StatusCode::FORBIDDEN),
        (
            Request::get("/v1/profiles/x?by=name").header(header::AUTHORIZATION, format!("Bearer {}", door.read_key)),
            StatusCode::BAD_REQUEST,
        ),
        (Request::get("/v1/profiles/%ff").header(header::AUTHORIZATION, format!("Bearer {}", door.read_key)), StatusCode::BAD_REQUEST),
    ];
    for (request, expected) in asked {
        let request = request.body(Body::empty()).expect("a request");
        assert_eq!(door.send(request).await.0, expected);
    }
}

#[tokio::test]
async fn a_wrong_clock_of_a_sender_moves_no_event_into_the_future() {
    let door = Door::open().await;
    let ahead =
        |id: &str, timestamp: &str| json!({ "type": "track", "messageId": id, "userId": "ana", "event": "x", "timestamp": timestamp });
    let body =
        json!({ "sentAt": "2026-03-02T12:00:03Z", "batch": [ahead("1", "2026-03-02T11:30:00Z"), ahead("2", "2026-03-02T12:00:01Z")] });
    let (status, _, answer) = door.post("/v1/batch", body.to_string()).await;
    assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(2)), "{answer}");
    let instants: Vec<Timestamp> = door.events("ana").await.iter().map(|event| event.occurred_at).collect();
    assert_eq!(instants, [at(NOW).plus_ms(-HOUR_MS / 2), at(NOW)]);
}

#[tokio::test]
async fn the_books_agree_after_two_turned_out_to_be_one() {
    let door = Door::open().await;
    let said = |id: &str, who: Json, kind: &str, more: Json| {
        let mut message = json!({ "type": kind, "messageId": id, "timestamp": "2026-03-01T10:00:00Z" });
        for part in [who, more] {
            let Json::Object(part) = part else { panic!("parts are objects") };
            message.as_object_mut().expect("an object").extend(part);
        }
        message
    };
    let (visitor, ana) = (json!({ "anonymousId": "phone" }), json!({ "userId": "ana" }));
    let consent = json!({ "properties": { "purpose": "marketing", "channel": "email", "granted": true, "basis": "opt_in" } });
    let order = |id: &str| json!({ "event": "Order Completed", "properties": { "order_id": id, "total": 300, "currency": "GBP" } });
    door.batch(json!([
        said("1", visitor.clone(), "track", order("1")),
        said("2", visitor.clone(), "consent", consent),
        said("3", ana.clone(), "identify", json!({ "traits": { "email": "ana@post.example", "country": "GB" } })),
        said("4", ana.clone(), "track", order("2")),
    ]))
    .await;
    door.evaluate().await;
    door.batch(json!([
        said("5", visitor.clone(), "track", order("3")),
        said("6", json!({ "anonymousId": "phone", "userId": "ana" }), "identify", json!({ "traits": { "first_name": "Ana" } })),
    ]))
    .await;
    door.evaluate().await;
    let (_, view) = door.read("/v1/profiles/phone?by=anonymous").await;
    assert_eq!((&view["events_waiting"], &view["points"]["pending"]), (&json!(0), &json!(900)), "three orders, each once: {view}");
    door.store.clone().close().await;
    let database = door.directory.path().join("shop.db");
    let run = super::demo::rekindle().arg("doctor").arg("--db").arg(&database).output().expect("it runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_when_too_much_is_under_way_is_told_to_come_back() {
    let door = Door::open().await;
    door.batch(json!([order("first", "ana", 10.0)])).await;
    // somebody else writes and does not end, so whoever was let in waits for the disk
    let path = door.directory.path().join("shop.db");
    let mut holder = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("it opens");
    let transaction = holder.begin_with("begin immediate").await.expect("nobody else writes");
    let requests = (0..200).map(|n| door.post("/v1/batch", json!({ "batch": [order(&n.to_string(), "ana", 10.0)] }).to_string()));
    let mut answers: FuturesUnordered<_> = requests.collect();
    let (status, headers, answer) = answers.next().await.expect("an answer");
    assert_eq!((status.as_u16(), answer["code"].as_str()), (429, Some("busy")));
    assert_eq!(headers[header::RETRY_AFTER].to_str().ok(), Some("1"));
    transaction.rollback().await.expect("rolled back");
    let mut taken = 0;
    while let Some((status, _, answer)) = answers.next().await {
        assert!(status == StatusCode::OK || status == StatusCode::TOO_MANY_REQUESTS, "{status}: {answer}");
        taken += usize::from(status == StatusCode::OK);
    }
    assert!(taken >= 128, "{taken}");
    assert_eq!(door.events("ana").await.len(), taken + 1);
}

/// The real daemon, taking events in and doing nothing else.
struct Serving {
    scratch: tempfile::TempDir,
    settings: std::path::PathBuf,
    key: String,
    daemon: Child,
    address: String,
}

impl Serving {
    fn start() -> Serving {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("shop.db");
        let text = format!(
            "http: {{ listen: \"127.0.0.1:0\" }}\nrules: {{ directory: \"{RULES}\" }}\ndatabase: {{ path: \"{}\" }}\n",
            path.display()
        );
        let settings = super::demo::write(scratch.path(), "rekindle.yaml", &text);
        // before the first start of the daemon: it makes the database
        let made = super::demo::rekindle().args(["key", "new", "shop", "--config"]).arg(&settings).output().expect("it runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key = String::from_utf8(made.stdout).expect("text").trim().to_owned();
        let mut serve = super::demo::rekindle();
        serve.args(["serve", "--role", "ingest", "--config"]).arg(&settings).env("NO_COLOR", "1").stderr(Stdio::piped());
        let mut daemon = serve.spawn().expect("it starts");
        let log = BufReader::new(daemon.stderr.take().expect("its log"));
        let address = |line: String| Some(line.split_once("http.address=")?.1.split(' ').next()?.to_owned());
        // nobody reads on: the pipe of its log is closed, and the daemon answers all the same
        let address = log.lines().map_while(Result::ok).find_map(address).expect("it says where it listens");
        Serving { scratch, settings, key, daemon, address }
    }

    /// The first line of the answer.
    fn send(&self, batch: &Json) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).expect("connected");
        let body = json!({ "batch": batch }).to_string();
        let authorization = STANDARD.encode(format!("{}:", self.key));
        let length = body.len();
        let head =
            format!("POST /v1/batch HTTP/1.1\r\nhost: x\r\nauthorization: Basic {authorization}\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("answered");
        answer.trim().to_owned()
    }

    fn run(&self, command: &[&str]) -> (Option<i32>, String) {
        let run = super::demo::rekindle().args(command).arg("--config").arg(&self.settings).output().expect("it runs");
        (run.status.code(), String::from_utf8_lossy(&run.stdout).into_owned())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // it may be dead already
        let _killed = self.daemon.kill();
        let _reaped = self.daemon.wait();
    }
}

#[test]
fn what_was_answered_is_due_after_a_kill() {
    let mut serving = Serving::start();
    let answer = serving.send(&json!([order("1", "ana", 10.0)]));
    serving.daemon.kill().expect("it can be killed"); // SIGKILL
    serving.daemon.wait().expect("it is dead");
    assert_eq!(answer, "HTTP/1.1 200 OK");
    let due = tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let store = SqliteStore::open(&serving.scratch.path().join("shop.db"), "development").await.expect("the lock died with it");
        store.claim_due(at("2100-01-01T00:00:00Z"), 10, "w").await.expect("claimed").profiles
    });
    let heard: Vec<(&str, &str)> =
        due.iter().flat_map(|claimed| claimed.events.iter().map(|event| (&*claimed.profile.key, &*event.id))).collect();
    assert_eq!(heard, [("ana", "1")]);
}

#[test]
fn keys_and_rejects_are_looked_after_beside_the_daemon() {
    let serving = Serving::start();
    assert_eq!(serving.send(&json!([{ "type": "track" }])), "HTTP/1.1 200 OK");
    let (code, rejects) = serving.run(&["rejects", "--source", "shop"]);
    let row: Json = serde_json::from_str(rejects.trim()).expect("one row");
    assert_eq!((code, &row["row"]), (Some(1), &json!("{\"type\":\"track\"}")));
    assert_eq!(serving.run(&["rejects", "--source", "till"]), (Some(0), String::new()));

    let (code, key) = serving.run(&["key", "new", "till", "--scope", "read"]);
    assert!(code == Some(0) && key.starts_with("rk_") && key.trim().len() == 67, "{key}");
    assert_eq!(serving.run(&["key", "new", "rekindle"]).0, Some(1), "the engine's own source");
    assert_eq!(serving.run(&["key", "revoke", "1"]).0, Some(0));
    assert_eq!(serving.run(&["key", "revoke", "1"]).0, Some(1), "it is revoked already");
    let (_, list) = serving.run(&["key", "list", "--format", "json"]);
    let list: Json = serde_json::from_str(&list).expect("JSON");
    assert_eq!((&list[0]["source"], list[0]["revoked_at"].is_string()), (&json!("shop"), true));
    assert_eq!((&list[1]["scope"], list[1]["revoked_at"].is_null(), list.to_string().contains(key.trim())), (&json!("read"), true, false));
}

/// Every path that is described exists.
#[tokio::test]
async fn what_is_described_is_there() {
    let door = Door::open().await;
    let api = serde_json::to_value(http::openapi()).expect("JSON");
    let paths = api["paths"].as_object().expect("paths");
    assert!(paths.len() >= 9, "{paths:?}");
    for (path, item) in paths {
        for method in item.as_object().expect("methods").keys() {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path.replace("{id}", "x"));
            let (status, _, _) = door.send(request.body("{\"batch\":[]}".into()).expect("a request")).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        }
    }
}
