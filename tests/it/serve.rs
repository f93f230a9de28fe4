//! The daemon as it is shipped: the built binary on a free port with a directory of its own. Nothing here waits for a time; it waits for
//! what can be seen from outside (health, figures, the log), up to a limit that only a fault reaches.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rekindle::engine::action::What;
use rekindle::engine::event::EventKind;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{EventSeq, Identity, Store};

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

/// Strings of a person that must stand in no log.
const CANARIES: [&str; 4] = ["canary-user-71", "canary.mail@post.example", "+441632960777", "Canaryname"];

/// Pauses of 50 ms until something is seen: a minute in all.
const TRIES: u32 = 1_200;

/// What `look` sees as soon as it sees anything.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("never seen: {what}");
}

/// A directory with rules and settings, in which daemons are started.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a directory"));
        let template = place.path("rules/templates/hello/en");
        fs::create_dir_all(&template).expect("directories");
        fs::write(template.with_file_name("template.yaml"), "rekindle: 1\ntemplate: { purpose: account }").expect("written");
        fs::write(template.join("sms.liquid"), "Hello!").expect("written");
        place.write_rules(RULES);
        place.write_settings("shop", "rekindle=trace,info");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write_rules(&self, text: &str) {
        fs::write(self.path("rules/rules.yaml"), text).expect("written");
    }

    fn write_settings(&self, environment: &str, level: &str) {
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "environment: {environment}\ndatabase: {{ path: {} }}\nrules: {{ directory: {} }}\nrecording: {{ directory: {} }}\n\
             http: {{ listen: \"127.0.0.1:0\" }}\nserve: {{ drain_seconds: 10 }}\nlogs: {{ format: json, level: \"{level}\" }}\n",
            at("shop.db"),
            at("rules"),
            at("out")
        );
        fs::write(self.path("rekindle.yaml"), text).expect("written");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(args).arg("--config").arg(self.path("rekindle.yaml")).env_remove("REKINDLE_BY");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it runs")
    }

    /// Starts a daemon and waits until it serves.
    fn serve(&self, name: &str) -> Daemon<'_> {
        let log = self.path(name);
        let stderr = fs::File::create(&log).expect("a file");
        let child = self.command(&["serve", "--by", "anna"]).stdout(Stdio::null()).stderr(stderr).spawn().expect("it starts");
        let mut daemon = Daemon { _place: self, child, log, address: String::new() };
        daemon.address = eventually("the address it listens on", || {
            assert!(daemon.child.try_wait().expect("it can be asked").is_none(), "it ended: {}", daemon.log());
            let log = daemon.log();
            let line = log.lines().find(|line| line.contains("\"http.address\""))?;
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["http.address"].as_str().map(str::to_owned)
        });
        eventually("ready", || daemon.get("/readyz").0.eq("200").then_some(()));
        daemon
    }
}

struct Daemon<'p> {
    _place: &'p Place,
    child: Child,
    log: PathBuf,
    address: String,
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // ended already, mostly
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon<'_> {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status and body of an answer; an empty status if there is none.
    fn request(&self, head: &str, body: &str) -> (String, String) {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return Default::default() };
        let request = format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).is_err() || stream.read_to_string(&mut answer).is_err() {
            return Default::default();
        }
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }

    fn get(&self, path: &str) -> (String, String) {
        self.request(&format!("GET {path} HTTP/1.1"), "")
    }

    /// Waits until `/metrics` has this line.
    fn figure(&self, line: &str) {
        eventually(line, || self.get("/metrics").1.lines().any(|found| found == line).then_some(()));
    }

    /// Sends events as a shop's client does; they are on disk when it returns.
    fn send(&self, key: &str, messages: &[serde_json::Value]) {
        let head = format!("POST /v1/batch HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json");
        let (status, body) = self.request(&head, &serde_json::json!({ "batch": messages }).to_string());
        assert_eq!(status, "200", "{body}");
    }

    /// SIGTERM, and how it ended.
    fn terminate(mut self) -> (Option<i32>, String) {
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("it runs");
        assert!(told.success());
        let code = eventually("the end of the process", || self.child.try_wait().expect("it can be asked")).code();
        (code, self.log())
    }

    fn kill(mut self) {
        self.child.kill().expect("it can be killed"); // SIGKILL
        self.child.wait().expect("it is dead");
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A key to send events with, made beside whatever runs.
fn write_key(place: &Place) -> String {
    let made = place.run(&["key", "new", "shop"]);
    let said = text(&made);
    assert!(made.status.success(), "{said}");
    said.split(|c: char| c.is_whitespace() || c == '`').find(|word| word.len() > 30).unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// As SDKs send it: with the instant at which it happened, which stays the same when it is sent again.
fn signed_up(daemon: &Daemon<'_>, user: &str, id: &str) -> serde_json::Value {
    let log = daemon.log();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    serde_json::json!({ "type": "track", "messageId": id, "userId": user, "event": "Signed Up", "timestamp": first["timestamp"] })
}

fn recorded(place: &Place) -> usize {
    let files = |dir: PathBuf| fs::read_dir(dir).map_or(0, |entries| entries.flatten().count());
    files(place.path("out/sms"))
}

#[test]
fn rules_are_broken_mended_and_rolled_back_while_it_serves() {
    let place = Place::new();
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
    let place = Place::new();
    let key = write_key(&place);
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (events, entered) = runtime.block_on(async {
        let store = SqliteStore::open_to_read(&place.path("shop.db")).await.expect("it opens");
        let events = store.events(EventSeq(0), 10_000).await.expect("events");
        let entries = store.entries(0, 10_000).await.expect("entries");
        let signed_up = events.iter().filter(|row| row.event.kind == EventKind::Track).count();
        (signed_up, entries.iter().filter(|row| row.entry.what == What::Entered).count())
    });
    assert_eq!((events, entered), (50, 50), "each once");
}

#[test]
fn nothing_of_a_person_stands_in_the_logs_even_at_trace() {
    let place = Place::new();
    let key = write_key(&place);
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
    eventually("the greeting was recorded", || (recorded(&place) == 1).then_some(()));
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
    let place = Place::new();
    let key = write_key(&place);
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
    eventually("the greeting was recorded", || (recorded(&place) == 1).then_some(()));
    assert!(daemon.log().contains("belongs to the environment `shop`"), "{}", daemon.log());
}

#[test]
fn an_empty_database_asks_nothing_and_sends_nothing_until_a_channel_is_configured() {
    let place = Place::new();
    place.write_rules(&RULES.replace("  channels: { sms: { provider: recording } }\n", ""));
    let key = write_key(&place);
    let daemon = place.serve("first.log");
    let traits = serde_json::json!({ "phone": "+441632960001" });
    daemon.send(
        &key,
        &[serde_json::json!({ "type": "identify", "messageId": "i", "userId": "ana", "traits": traits }), signed_up(&daemon, "ana", "t")],
    );
    eventually("it was decided", || daemon.get("/metrics").1.lines().any(|line| line == "rekindle_entries_total 1").then_some(()));
    assert_eq!(daemon.terminate().0, Some(0));
    assert_eq!(recorded(&place), 0);
    assert_eq!(sent_of(&place.path("shop.db"), "ana"), 0, "nothing left the house");
}

/// Messages of a person that may have reached anybody.
fn sent_of(database: &Path, user: &str) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = SqliteStore::open_to_read(database).await.expect("it opens");
        let id = store.find_profile(&Identity::User(user.into())).await.expect("read").expect("a person");
        let messages = store.history(id).await.expect("a history").messages;
        messages.iter().filter(|row| matches!(row.state.name(), "accepted" | "delivered" | "unknown" | "sending")).count()
    })
}
