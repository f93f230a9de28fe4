//! The SDKs that shops have, unpatched, against the door on a loopback port: what they send is on record once, also when an answer is lost
//! and they send it again. And a tool that reads the description of the endpoints and tries what it allows. `.ci/run` installs them; where they are missing the test says so and is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekindle::channel::Channels;
use rekindle::console::{self, Console};
use rekindle::engine::event::{Event, EventKind};
use rekindle::links::Purpose;
use rekindle::serve::api;
use rekindle::store::{Identity, Store};
use rekindle::versions::publisher::Publisher;
use tokio::sync::Notify;

use super::feedback::http::{Site, TOKEN};
use super::http::Door;

/// Orders that each SDK sends: more than one batch holds.
const ORDERS: usize = 250;

struct Sdk {
    name: &'static str,
    /// In the directory of `REKINDLE_SDKS`.
    interpreter: &'static str,
    script: &'static str,
}

const SDKS: [Sdk; 4] = [
    Sdk { name: "segment-python", interpreter: "python/bin/python", script: "segment_python.py" },
    Sdk { name: "segment-node", interpreter: "node", script: "segment_node.cjs" },
    Sdk { name: "rudderstack-python", interpreter: "python/bin/python", script: "rudderstack_python.py" },
    Sdk { name: "rudderstack-node", interpreter: "node", script: "rudderstack_node.cjs" },
];

/// Where the SDKs are installed; none: say so, unless they must be there.
fn installed() -> Option<PathBuf> {
    let directory = std::env::var_os("REKINDLE_SDKS").map(PathBuf::from);
    if directory.is_none() {
        assert!(std::env::var_os("REKINDLE_REQUIRE_SERVICES").is_none(), "REKINDLE_SDKS does not say where the SDKs are");
        eprintln!("skipped: REKINDLE_SDKS does not say where the SDKs are (see .ci/run)");
    }
    directory
}

fn command(directory: &Path, sdk: &Sdk) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(sdk.script);
    let in_directory = directory.join(sdk.interpreter);
    let mut command = Command::new(if in_directory.exists() { in_directory } else { sdk.interpreter.into() });
    command.arg(script).env("NODE_PATH", directory.join("node_modules"));
    command
}

/// The first batch is taken, and its answer lost: the sender is told to come back.
async fn lose_the_first_answer(is_lost: Arc<AtomicBool>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status() == StatusCode::OK && !is_lost.swap(true, Ordering::SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, HeaderValue::from_static("0"))]).into_response();
    }
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdks_bring_their_events_once_even_if_an_answer_is_lost() {
    let Some(directory) = installed() else { return };
    for sdk in SDKS {
        let door = Door::open().await;
        let is_lost = Arc::new(AtomicBool::new(false));
        let losing = middleware::from_fn({
            let is_lost = is_lost.clone();
            move |request, next| lose_the_first_answer(is_lost.clone(), request, next)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(axum::serve(listener, door.router.clone().layer(losing)).into_future());
        let mut command = command(&directory, &sdk);
        command.args([&address, &door.write_key, "ana", &ORDERS.to_string()]);
        let run = tokio::task::spawn_blocking(move || command.output()).await.expect("it runs").expect("it starts");
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{}: {said}", sdk.name);
        server.abort();
        assert!(is_lost.load(Ordering::SeqCst), "{}", sdk.name);
        expect_everything_once(&door, sdk.name).await;
    }
}

async fn expect_everything_once(door: &Door, sdk: &str) {
    let events = door.events("ana").await;
    let named = |name: &str| events.iter().filter(|event| event.kind == EventKind::Track && *event.name == *name).count();
    assert_eq!(named("Order Completed"), ORDERS, "{sdk}");
    assert_eq!((named("Page Viewed"), named("Screen Viewed"), named("Group Joined")), (1, 1, 1), "{sdk}: the visit became the customer's");
    let traits: Vec<&Event> = events.iter().filter(|event| event.text_property("country") == Some("DE")).collect();
    assert_eq!(traits.len(), 1, "{sdk}");
    let ids: std::collections::BTreeSet<&str> = events.iter().map(|event| &*event.id).collect();
    assert_eq!(ids.len(), events.len(), "{sdk}");
    for alias in [Identity::User("old-ana".into()), Identity::Anonymous("visitor-of-ana".into())] {
        let found = door.store.find_profile(&alias).await.expect("read");
        assert_eq!(found, door.store.find_profile(&Identity::User("ana".into())).await.expect("read"), "{sdk}: {alias:?}");
    }
    assert_eq!(door.store.rejects(0, 10).await.expect("read"), [], "{sdk}");
}

/// Schemathesis sends what the description allows and what it does not, and compares the answers with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_of_the_endpoints_holds() {
    let Some(directory) = installed() else { return };
    let door = Door::open().await;
    let (store, clock, telemetry) = (Arc::new(door.store.clone()), door.clock.clone(), door.telemetry.clone());
    let publisher = Publisher::new(store.clone(), "rules".into(), clock, telemetry, None).with_rules(door.rules.clone());
    let console = Console {
        store,
        clock: door.clock.clone(),
        rules: door.rules.clone(),
        publisher: Arc::new(publisher),
        channels: Channels::default(),
        telemetry: door.telemetry.clone(),
        wake: Arc::new(Notify::new()),
    };
    let site = Site::open().await;
    let router = door.router.clone().merge(console::router(Arc::new(console))).merge(api::router()).merge(site.router.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let description = format!("http://{}/openapi.json", listener.local_addr().expect("an address"));
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let scratch = tempfile::tempdir().expect("a directory");
    let config = scratch.path().join("schemathesis.toml");
    std::fs::write(&config, what_opens(&door, &site).await).expect("written");
    let mut command = Command::new(directory.join("python/bin/schemathesis"));
    command.current_dir(scratch.path()).arg("--config-file").arg(&config).args(["run", &description, "--checks", "all", "--no-color"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "40", "--seed", "7", "--warnings", "off"]);
    let run = tokio::task::spawn_blocking(move || command.output()).await.expect("it runs").expect("it starts");
    server.abort();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

/// What chance does not find: keys, and tokens that open a path.
async fn what_opens(door: &Door, site: &Site) -> String {
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:", door.write_key)));
    let keys = [("events", basic), ("people", format!("Bearer {}", door.read_key))];
    let keys = keys.map(|(tag, key)| format!("[[operations]]\ninclude-tag = \"{tag}\"\nheaders = {{ Authorization = \"{key}\" }}\n"));
    let token = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let tokens = [
        ("/u/{token}", token(site.path(Purpose::Unsubscribe).await), ""),
        ("/p/{token}", token(site.path(Purpose::Preferences).await), ""),
        ("/callbacks/{provider}/{token}", TOKEN.to_owned(), ", provider = \"sms\""),
    ];
    let tokens = tokens
        .map(|(path, token, more)| format!("[[operations]]\ninclude-path = \"{path}\"\nparameters = {{ token = \"{token}\"{more} }}\n"));
    [keys.concat(), tokens.concat()].concat()
}
