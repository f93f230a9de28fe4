//! The daemon as it is shipped, for tests: the built binary on a free port with a directory of its own. Nothing here waits for a time; it
//! waits for what can be seen from outside (health, figures, the log, the tables), up to a limit that only a fault reaches.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rekindle::clock::{Clock as _, SystemClock};
use rekindle::engine::action::MessageState;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Identity, MessageRow, Store as _};

/// Looks until something is seen, and the pause between two of them: a minute in all.
const TRIES: u32 = 3_000;
const PAUSE: Duration = Duration::from_millis(20);
/// Lines of the log that a failed test shows.
const LOG_SHOWN: usize = 12;
/// No answer takes so long, unless the process is stopped.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What `look` sees as soon as it sees anything.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(seen) = look() {
            return seen;
        }
        // not `park`: a thread that ends elsewhere would cut it short
        std::thread::sleep(PAUSE);
    }
    panic!("never seen: {what}");
}

/// A directory with rules and settings, in which daemons are started.
pub struct Place {
    directory: tempfile::TempDir,
    /// What the settings say beside where things are: providers, secrets.
    more: String,
}

impl Place {
    /// `templates`: path below `rules/templates` and text.
    pub fn new(rules: &str, templates: &[(&str, &str)]) -> Place {
        let place = Place { directory: tempfile::tempdir().expect("a directory"), more: String::new() };
        fs::create_dir_all(place.path("rules")).expect("a directory");
        for (path, text) in templates {
            let path = place.path("rules/templates").join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
            fs::write(path, text).expect("written");
        }
        place.write_rules(rules);
        place.write_settings("shop", "rekindle=trace,info");
        place
    }

    /// With more settings.
    pub fn with(mut self, more: &str) -> Place {
        self.more = more.to_owned();
        self.write_settings("shop", "rekindle=trace,info");
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("shop.db")
    }

    /// The file by which a daemon's clock is set ([`rekindle::faults::CLOCK_OFFSET`]), where a test names it.
    pub fn offset(&self) -> PathBuf {
        self.path("offset")
    }

    pub fn write_rules(&self, text: &str) {
        fs::write(self.path("rules/rules.yaml"), text).expect("written");
    }

    pub fn write_settings(&self, environment: &str, level: &str) {
        let at = |name: &str| self.path(name).display().to_string();
        let (database, rules, out, more) = (at("shop.db"), at("rules"), at("out"), &self.more);
        let public = if more.contains("secrets:") { ", public_url: \"https://rekindle.shop.example\"" } else { "" };
        let text = format!(
            "environment: {environment}\ndatabase: {{ path: {database} }}\nrules: {{ directory: {rules} }}\nrecording: {{ directory: {out} }}\n\
             http: {{ listen: \"127.0.0.1:0\"{public} }}\nserve: {{ drain_seconds: 10 }}\nlogs: {{ format: json, level: \"{level}\" }}\n{more}"
        );
        fs::write(self.path("rekindle.yaml"), text).expect("written");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(args).arg("--config").arg(self.path("rekindle.yaml")).env_remove("REKINDLE_BY");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it runs")
    }

    /// A command that only reads, on the database itself.
    pub fn look(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(args).arg("--db").arg(self.database()).output().expect("it runs")
    }

    /// Starts a daemon and waits until it serves.
    pub fn serve(&self, name: &str) -> Daemon<'_> {
        let mut daemon = self.begin(name, &[]);
        assert!(daemon.is_up(), "it ended: {}", daemon.log());
        daemon
    }

    /// Starts a daemon that may die before it serves.
    pub fn begin(&self, name: &str, environment: &[(&str, &str)]) -> Daemon<'_> {
        let log = self.path(name);
        let stderr = fs::File::create(&log).expect("a file");
        let mut command = self.command(&["serve", "--by", "anna"]);
        command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().expect("it starts");
        Daemon { place: self, child, log, address: String::new() }
    }

    /// A key to send events with, made beside whatever runs.
    pub fn write_key(&self) -> String {
        let made = self.run(&["key", "new", "shop"]);
        let said = text(&made);
        assert!(made.status.success(), "{said}");
        said.split(|c: char| c.is_whitespace() || c == '`').find(|word| word.len() > 30).unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    /// What the database holds, beside whatever works on it.
    pub fn read<T: Send>(&self, read: impl AsyncFnOnce(&SqliteStore) -> T + Send) -> T {
        // the caller may be within a runtime of its own
        let reading = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let store = SqliteStore::open_to_read(&self.database()).await.expect("it opens");
                read(&store).await
            })
        };
        std::thread::scope(|scope| scope.spawn(reading).join().expect("it is read"))
    }

    /// Every message of a person.
    pub fn messages(&self, user: &str) -> Vec<MessageRow> {
        self.read(async |store: &SqliteStore| {
            let id = store.find_profile(&Identity::User(user.into())).await.expect("read");
            match id {
                Some(id) => store.history(id).await.expect("a history").messages,
                None => Vec::new(),
            }
        })
    }

    /// Their states, in order of time.
    pub fn states(&self, user: &str) -> Vec<&'static str> {
        self.messages(user).iter().map(|row| row.state.name()).collect()
    }
}

pub struct Daemon<'p> {
    place: &'p Place,
    child: Child,
    log: PathBuf,
    address: String,
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(LOG_SHOWN).collect();
            eprintln!("the last of `{}`:\n{}", self.log.display(), last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        // ended already, mostly
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon<'_> {
    /// Waits until it serves; false: it died before.
    pub fn is_up(&mut self) -> bool {
        let died = |child: &mut Child| child.try_wait().expect("it can be asked").is_some();
        let address = eventually("the address it listens on, or its end", || {
            let log = self.log();
            let found = log.lines().filter(|line| line.contains("\"http.address\"")).find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                line["http.address"].as_str().map(str::to_owned)
            });
            if found.is_some() { Some(found) } else { died(&mut self.child).then_some(None) }
        });
        let Some(address) = address else { return false };
        self.address = address;
        eventually("ready, or its end", || if self.get("/readyz").0 == "200" { Some(true) } else { died(&mut self.child).then_some(false) })
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line of the log with all of these words.
    pub fn says(&self, words: &[&str]) -> String {
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        eventually(&format!("{words:?} in the log"), || self.log().lines().find(has).map(str::to_owned))
    }

    /// Status and body of an answer; an empty status if there is none.
    pub fn request(&self, head: &str, body: &str) -> (String, String) {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return Default::default() };
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("an option");
        let request = format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).is_err() || stream.read_to_string(&mut answer).is_err() {
            return Default::default();
        }
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }

    pub fn get(&self, path: &str) -> (String, String) {
        self.request(&format!("GET {path} HTTP/1.1"), "")
    }

    /// Waits until `/metrics` has this line.
    pub fn figure(&self, line: &str) {
        eventually(line, || self.get("/metrics").1.lines().any(|found| found == line).then_some(()));
    }

    /// Sends events as a shop's client does; true: they were answered for, so they are on disk.
    pub fn try_send(&self, key: &str, messages: &[serde_json::Value]) -> bool {
        let head = format!("POST /v1/batch HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json");
        self.request(&head, &serde_json::json!({ "batch": messages }).to_string()).0 == "200"
    }

    pub fn send(&self, key: &str, messages: &[serde_json::Value]) {
        assert!(self.try_send(key, messages), "events are refused: {}", self.log());
    }

    /// The instant of its first line: a time for events, which stays the same when they are sent again.
    pub fn begun_at(&self) -> String {
        let log = self.log();
        let first: serde_json::Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
        first["timestamp"].as_str().expect("an instant").to_owned()
    }

    pub fn signal(&self, signal: &str) {
        let told = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status().expect("it runs");
        assert!(told.success());
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().expect("it can be asked"))
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> (Option<i32>, String) {
        self.signal("TERM");
        let code = self.ended().code();
        (code, self.log())
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is dead");
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    /// Nothing is due, leased or on its way any more.
    pub fn is_settled(&self) -> bool {
        // by the clock of the daemon, where a test has set it
        let offset_ms = fs::read_to_string(self.place.offset()).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        self.place.read(async |store: &SqliteStore| {
            let is_due = !store.agenda(SystemClock.now().plus_ms(offset_ms)).await.expect("an agenda").is_empty();
            let counts = store.counts().await.expect("counts");
            let is_under_way = |state: MessageState| matches!(state, MessageState::Leased | MessageState::Sending);
            !is_due && !counts.messages.iter().any(|((.., state), count)| is_under_way(*state) && *count > 0)
        })
    }

    pub fn settles(&self) {
        eventually("everything that is due has been done", || self.is_settled().then_some(()));
    }
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Files that the recording channel wrote for one channel.
pub fn recorded(place: &Place, channel: &str) -> usize {
    let files = |dir: &Path| fs::read_dir(dir).map_or(0, |entries| entries.flatten().count());
    files(&place.path("out").join(channel))
}
