//! What comes back over HTTP: who may say something, what it changes, and what people see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use http::{Request, StatusCode};
use rekindle::channel::callback::Callback;
use rekindle::clock::{Clock, VirtualClock};
use rekindle::engine::action::{Channel, MessageState};
use rekindle::engine::time::{MINUTE_MS, Timestamp};
use rekindle::feedback::http::{CALLBACK_BYTES_MAX, Feedback, Partners, Provider, router};
use rekindle::feedback::signature::Verifier;
use rekindle::links::{Links, Purpose};
use rekindle::settings::Secret;
use rekindle::store::Store;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::suppression::{Reason, Scope};
use rekindle::telemetry::Telemetry;
use ring::hmac;
use tower::ServiceExt as _;

use crate::services::{Shop, start};

const CALLBACK: &str = "
signature: { scheme: hmac_sha256, header: X-Sig, timestamp_header: X-Time, signed: '{timestamp}.{body}' }
events: /*
message: /m
id: /id
outcomes:
  - { when: { /e: bounced }, is: hard_bounce }
  - { when: { /e: complained }, is: complained }
";
pub const TOKEN: &str = "a token of the path";
const SECRET: &str = "the secret in use";

/// A shop whose public listener is asked directly.
pub struct Site {
    shop: Shop,
    pub router: Router,
    links: Links,
    now: Timestamp,
    telemetry: Arc<Telemetry>,
}

impl Site {
    /// Ana was greeted by text message and has read it.
    pub async fn open() -> Site {
        let shop = Shop::open().await;
        shop.meet("ana").await;
        shop.sign_up("ana", start()).await;
        shop.evaluate(start()).await;
        shop.dispatch(start()).await;
        let now = start().plus_ms(MINUTE_MS);
        let callback: Callback = serde_yaml::from_str(CALLBACK).expect("a callback");
        let provider = |secret: &str, token: &str| Provider {
            channels: vec![Channel::Sms],
            verifier: Verifier::new(&callback.signature, &["the secret before", secret]).expect("secrets"),
            callback: callback.clone(),
            tokens: vec![Secret::given("the token before"), Secret::given(token)],
        };
        let meta: Callback = serde_yaml::from_str("signature: { scheme: meta }\nmessage: /m\noutcomes: []\n").expect("a callback");
        let meta = Provider {
            channels: vec![Channel::Whatsapp],
            verifier: Verifier::new(&meta.signature, &["app secret"]).expect("a secret"),
            callback: meta,
            tokens: vec![Secret::given(TOKEN)],
        };
        let providers = [("sms", provider(SECRET, TOKEN)), ("other", provider("another account's secret", "another")), ("meta", meta)];
        let url: url::Url = "https://rekindle.shop.example".parse().expect("an address");
        let links = Links::new(url.clone(), &[Secret::given("0123456789abcdef0123456789abcdef")]).expect("links");
        let telemetry = Arc::new(Telemetry::default());
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::at(now));
        let feedback = Feedback {
            store: shop.store.clone(),
            clock,
            telemetry: telemetry.clone(),
            partners: Arc::new(ArcSwap::from_pointee(Partners {
                providers: providers.into_iter().map(|(name, provider)| (name.to_owned(), provider)).collect::<BTreeMap<_, _>>(),
                links: Some(links.clone()),
                public_url: Some(url),
            })),
            wake: Arc::default(),
        };
        Site { router: router(Arc::new(feedback)), shop, links, now, telemetry }
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, String) {
        let answer = self.router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.ask(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.ask(request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    /// A call signed with a secret at an instant.
    async fn call(&self, path: &str, secret: &str, at: Timestamp, body: &str) -> StatusCode {
        let time = (at.as_ms() / 1000).to_string();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), format!("{time}.{body}").as_bytes());
        let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = Request::post(path).header("x-sig", signature).header("x-time", time);
        self.ask(request.body(Body::from(body.to_owned())).expect("a request")).await.0
    }

    async fn message(&self) -> rekindle::store::MessageRow {
        self.shop.messages("ana").await.remove(0)
    }

    /// Everything that could have changed.
    async fn state(&self) -> String {
        let row = self.message().await;
        let listed = self.shop.store.suppressions(Channel::Sms, "+441632960001").await.expect("read");
        format!("{}{listed:?}", self.shop.store.dump(row.profile).await.expect("a dump"))
    }

    pub async fn path(&self, purpose: Purpose) -> String {
        let url = self.links.url(purpose, self.message().await.message.id);
        url.strip_prefix("https://rekindle.shop.example").expect("our address").to_owned()
    }
}

#[tokio::test]
async fn a_call_that_is_not_proved_changes_nothing() {
    let site = Site::open().await;
    let body = format!("[{{\"m\":\"{}\",\"id\":\"1\",\"e\":\"complained\"}}]", site.message().await.message.id);
    let before = site.state().await;
    let good = "/callbacks/sms/a%20token%20of%20the%20path";
    let (stale, fresh) = (site.now.plus_ms(-6 * MINUTE_MS), site.now);
    for (what, path, secret, at, status) in [
        ("forged", good, "guessed", fresh, 401),
        ("stale", good, SECRET, stale, 401),
        ("from the future", good, SECRET, site.now.plus_ms(6 * MINUTE_MS), 401),
        ("of another account", good, "another account's secret", fresh, 401),
        ("to another provider's path", "/callbacks/other/a%20token%20of%20the%20path", SECRET, fresh, 404),
        ("to a path that is guessed", "/callbacks/sms/guessed", SECRET, fresh, 404),
        ("to nobody", "/callbacks/nobody/x", SECRET, fresh, 404),
    ] {
        assert_eq!(site.call(path, secret, at, &body).await.as_u16(), status, "{what}");
        assert_eq!(site.state().await, before, "{what}");
    }
    assert_eq!(site.call(good, SECRET, fresh, "{\"no\":").await, StatusCode::BAD_REQUEST);
    assert_eq!(site.state().await, before);
    // what is proved is taken, also under the token and the secret before; played again it changes nothing
    assert_eq!(site.call("/callbacks/sms/the%20token%20before", "the secret before", fresh, &body).await, StatusCode::OK);
    let after = site.state().await;
    assert!(after != before && after.contains("Complaint"), "{after}");
    assert_eq!(site.call(good, SECRET, fresh, &body).await, StatusCode::OK);
    assert_eq!(site.state().await, after);
    let figures = site.telemetry.metrics.render();
    for line in [r#"source="sms",result="refused"} 4"#, r#"source="sms",result="new"} 1"#, r#"source="sms",result="known"} 1"#] {
        assert!(figures.contains(line), "{line}\n{figures}");
    }
}

#[tokio::test]
async fn a_body_of_five_mebibytes_is_refused_without_being_read() {
    let site = Site::open().await;
    let read = Arc::new(AtomicUsize::new(0));
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let counted = read.clone();
    let chunks = (0..80).map(move |_| {
        counted.fetch_add(chunk.len(), Ordering::Relaxed);
        Ok::<Bytes, std::io::Error>(chunk.clone())
    });
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let request = Request::post("/callbacks/sms/a%20token%20of%20the%20path").body(body).expect("a request");
    assert_eq!(site.ask(request).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let taken = read.load(Ordering::Relaxed);
    assert!(taken <= CALLBACK_BYTES_MAX + (128 << 10), "{taken} bytes were taken");
    // who does not know the token is not read at all
    read.store(0, Ordering::Relaxed);
    let unread = read.clone();
    let chunks = (0..80).map(move |_| {
        unread.fetch_add(1, Ordering::Relaxed);
        Ok::<Bytes, std::io::Error>(Bytes::from_static(b"x"))
    });
    let request = Request::post("/callbacks/sms/guessed").body(Body::from_stream(futures_util::stream::iter(chunks))).expect("a request");
    assert_eq!(site.ask(request).await.0, StatusCode::NOT_FOUND);
    assert_eq!(read.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn meta_is_shown_that_the_address_is_ours() {
    let site = Site::open().await;
    let ask = |path: &str, token: &str, challenge: &str| {
        format!("/callbacks/{path}?hub.mode=subscribe&hub.verify_token={token}&hub.challenge={challenge}")
    };
    let token = "a%20token%20of%20the%20path";
    let good = site.get(&ask(&format!("meta/{token}"), token, "1158201444")).await;
    assert_eq!(good, (StatusCode::OK, "1158201444".to_owned()));
    for bad in [
        ask("meta/guessed", "guessed", "1"),
        ask(&format!("meta/{token}"), "other", "1"),
        ask(&format!("meta/{token}"), token, "%3Cscript%3E"),
        ask(&format!("sms/{token}"), token, "1"),
        format!("/callbacks/meta/{token}"),
    ] {
        assert_eq!(site.get(&bad).await.0, StatusCode::NOT_FOUND, "{bad}");
    }
}

#[tokio::test]
async fn one_click_ends_it_and_a_look_changes_nothing() {
    let site = Site::open().await;
    let path = site.path(Purpose::Unsubscribe).await;
    let before = site.state().await;
    let (status, page) = site.get(&path).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Stop receiving news and offers by text message (…001)?") && page.contains("<form method=post>"), "{page}");
    assert!(!page.contains("+441632960001") && !page.contains("<script"), "{page}");
    assert_eq!(site.state().await, before, "a scanner that opens links unsubscribes nobody");

    let (status, page) = site.post(&path, "List-Unsubscribe=One-Click").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("You are unsubscribed"), "{page}");
    let listed = site.shop.store.suppressions(Channel::Sms, "+44 1632 960001").await.expect("read");
    let listed: Vec<_> = listed.iter().map(|entry| (entry.reason, entry.scope, entry.until)).collect();
    use rekindle::engine::profile::Category::Marketing;
    assert_eq!(listed, [(Reason::Unsubscribe, Scope::Only(Marketing), None)]);
    let after = site.state().await;
    assert_eq!(site.post(&path, "").await.0, StatusCode::OK);
    assert_eq!(site.state().await, after, "once is enough");
    // and the next greeting stays here
    site.shop.sign_up("ana", site.now).await;
    for _ in 0..2 {
        site.shop.evaluate(site.now).await;
        site.shop.dispatch(site.now).await;
    }
    let sent = site.shop.states("ana").await.into_iter().filter(|(kind, state)| (*kind, *state) == (Channel::Sms, MessageState::Accepted));
    assert_eq!(sent.count(), 1);
}

#[tokio::test]
async fn links_that_are_not_ours_open_nothing() {
    let site = Site::open().await;
    let before = site.state().await;
    let ours = site.path(Purpose::Unsubscribe).await;
    let preferences = site.path(Purpose::Preferences).await;
    let foreign = Links::new("https://x.example".parse().expect("an address"), &[Secret::given("another key of 32 bytes.........")]);
    let foreign = foreign.expect("links").sign(Purpose::Unsubscribe, site.message().await.message.id);
    let unknown = site.links.sign(Purpose::Unsubscribe, rekindle::engine::action::MessageId(7));
    let paths = [
        ours.replace("/u/", "/p/"),
        preferences.replace("/p/", "/u/"),
        format!("/u/{foreign}"),
        format!("/u/{unknown}"),
        ours[..ours.len() - 2].to_owned(),
        "/u/x".into(),
    ];
    for path in paths {
        for (status, page) in [site.get(&path).await, site.post(&path, "").await] {
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert!(page.contains("This link is not valid"), "{page}");
        }
    }
    assert_eq!(site.state().await, before);
    assert_eq!(site.post(&preferences, &"x".repeat(20 << 10)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_somebody_chooses_holds_at_once_and_can_be_taken_back() {
    let site = Site::open().await;
    let path = site.path(Purpose::Preferences).await;
    let boxes = |page: &str| {
        let inputs = page.split("<input ").skip(1).map(|input| input.split('>').next().unwrap_or_default().to_owned());
        let named = inputs.map(|input| (input.split('"').nth(1).unwrap_or_default().to_owned(), input.ends_with("checked")));
        named.collect::<BTreeMap<String, bool>>()
    };
    let shown = boxes(&site.get(&path).await.1);
    assert_eq!(shown.len(), 6, "two categories on three channels: {shown:?}");
    assert_eq!((shown["marketing.sms"], shown["marketing.whatsapp"], shown["service.email"]), (true, false, true));

    let (status, page) = site.post(&path, "marketing.email=on&service.email=on&service.sms=on").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Saved"), "{page}");
    let shown = boxes(&page);
    assert_eq!((shown["marketing.sms"], shown["marketing.email"], shown["service.whatsapp"]), (false, true, false));
    site.shop.evaluate(site.now).await;
    assert_eq!(boxes(&site.get(&path).await.1), shown, "as it stays once it is absorbed");
    assert_eq!(site.shop.store.suppressions(Channel::Sms, "+441632960001").await.expect("read").len(), 1);

    // a yes of one's own takes one's own no back, and is on record with what it was given to
    site.post(&path, "marketing.email=on&service.email=on&service.sms=on&marketing.sms=on").await;
    assert!(site.shop.store.suppressions(Channel::Sms, "+441632960001").await.expect("read").is_empty());
    let history = site.shop.store.history(site.message().await.profile).await.expect("a history");
    let record = history.consents.last().expect("a record");
    assert_eq!((&*record.purpose, &*record.channel, record.granted), ("marketing", "sms", true));
}

/// The page in a real browser; the picture in docs/ is of this test (`REKINDLE_BLESS=1` makes it anew).
#[tokio::test]
async fn the_page_of_preferences_is_shown_by_a_browser() {
    let Some(browser) = ["chromium", "chromium-browser"].into_iter().find(|name| Command::new(name).arg("--version").output().is_ok())
    else {
        return;
    };
    let site = Site::open().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = site.router.clone();
    let server = tokio::spawn(async move { axum::serve(listener, served).await });
    let url = format!("http://{address}{}", site.path(Purpose::Preferences).await);
    let scratch = tempfile::tempdir().expect("a directory");
    let picture = scratch.path().join("preferences.png");
    let (profile, shot) = (scratch.path().join("profile"), picture.clone());
    let shown = tokio::task::spawn_blocking(move || {
        let browse = |what: &[String]| {
            let common = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=de", "--window-size=760,900"];
            let mut command = Command::new(browser);
            command.args(common).arg(format!("--user-data-dir={}", profile.display())).args(what).arg(&url);
            command.output().expect("the browser runs")
        };
        browse(&[format!("--screenshot={}", shot.display())]);
        String::from_utf8_lossy(&browse(&["--dump-dom".to_owned()]).stdout).into_owned()
    });
    let dom = shown.await.expect("no panic");
    server.abort();
    assert_eq!(dom.matches("type=\"checkbox\"").count(), 6, "{dom}");
    assert!(dom.contains("<main>") && dom.contains("name=\"marketing.sms\""), "{dom}");
    let size = std::fs::metadata(&picture).expect("a picture").len();
    assert!(size > 5_000, "{size} bytes are no picture of a page");
    if std::env::var_os("REKINDLE_BLESS").is_some() {
        let kept: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/preferences.png");
        std::fs::copy(&picture, kept).expect("kept");
    }
}

#[tokio::test]
async fn an_unsubscribe_that_cannot_be_kept_is_not_thanked_for() {
    let site = Site::open().await;
    let path = site.path(Purpose::Unsubscribe).await;
    SqliteStore::clone(&site.shop.store).close().await;
    let (status, page) = site.post(&path, "List-Unsubscribe=One-Click").await;
    assert!(status.is_server_error(), "{status}");
    assert!(!page.contains("You are unsubscribed"), "{page}");
}
