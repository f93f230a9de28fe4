//! The system administrator's file. The defaults are `config/rekindle.yaml`, built in and commented key by key; a file says only what
//! differs from them. Everything wrong in a file is found at once, each with its place.
//!
//! Any value may be a reference: `env:NAME` or `file:PATH`. A secret may be given in no other way (the type [`Secret`] is for the
//! channels that need one): a file with settings may stand in version control, a secret may not.

mod fields;
pub mod providers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use self::providers::Provider;
use crate::engine::rule::diagnostic::{Diagnostic, SourceFile};
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::{self, Kind, Node};
use crate::store::place::{Capacity, Place};

/// The defaults, as text with comments: what `rekindle` prints for somebody who wants a file to start from.
pub const DEFAULTS: &str = include_str!("../../config/rekindle.yaml");

/// Written where a value need not be set and is not.
const UNSET: &str = "none";
/// Larger is no settings file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How this installation is set up. The meaning, unit and default of each field stand in `config/rekindle.yaml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub environment: String,
    pub database: DatabaseSettings,
    pub rules: RulesSettings,
    pub recording: RecordingSettings,
    pub ingest: IngestSettings,
    pub nats: NatsSettings,
    pub evaluate: BatchSettings,
    pub dispatch: BatchSettings,
    pub audit: AuditSettings,
    pub http: HttpSettings,
    pub serve: ServeSettings,
    pub retention: RetentionSettings,
    pub secrets: SecretSettings,
    /// Who carries messages, by the name under which the policy's channels call them.
    pub providers: BTreeMap<String, Provider>,
    pub logs: LogSettings,
    /// What was read: the file itself, and whatever it refers to. When one of them changes, the settings may say something else.
    pub files: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    pub path: PathBuf,
    /// PostgreSQL instead of the file.
    pub url: Option<Secret>,
    pub readers: u32,
    pub recent_event_ids: usize,
    pub connections: u32,
    pub beat_seconds: u64,
    pub answer_seconds: u64,
    /// PostgreSQL spreads people over machines.
    pub distributed: bool,
}

impl DatabaseSettings {
    pub fn place(&self) -> Place {
        match &self.url {
            Some(url) => Place::Server(url.reveal().to_owned()),
            None => Place::File(self.path.clone()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesSettings {
    pub directory: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingSettings {
    pub directory: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestSettings {
    pub future_tolerance_seconds: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSettings {
    pub url: Option<String>,
    pub stream: String,
    pub consumer: String,
    pub source: String,
    pub batch: usize,
    pub credentials: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    pub batch: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    pub people_per_second: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    pub listen: String,
    pub connections: usize,
    pub head_seconds: u64,
    pub request_seconds: u64,
    pub public_url: Option<Url>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    pub drain_seconds: u64,
}

/// Days for which each kind of data is kept; none: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionSettings {
    pub events_days: Option<u32>,
    pub messages_days: Option<u32>,
    pub decisions_days: Option<u32>,
    pub rejects_days: Option<u32>,
    pub people_days: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSettings {
    pub links: Option<Secret>,
    pub links_before: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What is wrong with the settings: all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the settings `{}`: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("the settings have errors\n\n{0}")]
    Wrong(String),
}

impl Settings {
    /// The defaults, overridden by a file if one is given.
    pub fn load(path: Option<&Path>) -> Result<Settings, SettingsError> {
        let Some(path) = path else { return Settings::read("the defaults", "") };
        let unreadable = |reason: String| SettingsError::Unreadable { path: path.to_owned(), reason };
        let bytes = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(unreadable(format!("it has {bytes} bytes, which is no settings file")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
        let mut settings = Settings::read(&path.display().to_string(), &text)?;
        settings.files.insert(0, path.to_owned());
        Ok(settings)
    }

    /// How the database is opened.
    pub fn capacity(&self) -> Capacity {
        let DatabaseSettings { readers, recent_event_ids, connections, beat_seconds, answer_seconds, distributed, .. } = self.database;
        Capacity {
            readers,
            recent_ids_max: recent_event_ids,
            connections,
            beat: Duration::from_secs(beat_seconds),
            answer: Duration::from_secs(answer_seconds),
            distributed,
            clocks_differ_ms: self.ingest.future_tolerance_seconds as i64 * 1_000,
        }
    }

    /// These settings with the providers, secrets and the public address of others: what may change while a daemon runs.
    pub fn renewed_by(&self, other: &Settings) -> Settings {
        Settings {
            providers: other.providers.clone(),
            secrets: other.secrets.clone(),
            http: HttpSettings { public_url: other.http.public_url.clone(), ..self.http.clone() },
            files: other.files.clone(),
            ..self.clone()
        }
    }

    /// The defaults, overridden by a text; `name` is what its findings call it.
    pub fn read(name: &str, text: &str) -> Result<Settings, SettingsError> {
        let mut reader = Reader::new(name, text);
        let settings = Settings {
            environment: reader.value("environment", word),
            database: DatabaseSettings {
                path: reader.value("database.path", path_of),
                url: reader.secret("database.url"),
                connections: reader.value("database.connections", |text| number(text, 2, 1_000)),
                beat_seconds: reader.value("database.beat_seconds", |text| number(text, 1, 300)),
                answer_seconds: reader.value("database.answer_seconds", |text| number(text, 1, 600)),
                distributed: reader.value("database.distributed", truth),
                readers: reader.value("database.readers", |text| number(text, 1, 64)),
                recent_event_ids: reader.value("database.recent_event_ids", |text| number(text, 1_000, 100_000_000)),
            },
            rules: RulesSettings { directory: reader.value("rules.directory", path_of) },
            recording: RecordingSettings { directory: reader.value("recording.directory", path_of) },
            ingest: IngestSettings {
                future_tolerance_seconds: reader.value("ingest.future_tolerance_seconds", |text| number(text, 0, 86_400)),
            },
            nats: NatsSettings {
                url: reader.value("nats.url", |text| or_none(text, nats_address)),
                stream: reader.value("nats.stream", word),
                consumer: reader.value("nats.consumer", word),
                source: reader.value("nats.source", word),
                batch: reader.value("nats.batch", |text| number(text, 1, 10_000)),
                credentials: reader.secret("nats.credentials"),
            },
            evaluate: BatchSettings { batch: reader.value("evaluate.batch", |text| number(text, 1, 10_000)) },
            dispatch: BatchSettings { batch: reader.value("dispatch.batch", |text| number(text, 1, 10_000)) },
            audit: AuditSettings { people_per_second: reader.value("audit.people_per_second", |text| number(text, 0, 10_000)) },
            http: HttpSettings {
                listen: reader.value("http.listen", address),
                connections: reader.value("http.connections", |text| number(text, 1, 1_000_000)),
                head_seconds: reader.value("http.head_seconds", |text| number(text, 1, 600)),
                request_seconds: reader.value("http.request_seconds", |text| number(text, 1, 600)),
                public_url: reader.value("http.public_url", |text| or_none(text, web_address)),
            },
            serve: ServeSettings { drain_seconds: reader.value("serve.drain_seconds", |text| number(text, 0, 600)) },
            retention: RetentionSettings {
                events_days: reader.value("retention.events_days", |text| days(text, 30)),
                messages_days: reader.value("retention.messages_days", |text| days(text, 90)),
                decisions_days: reader.value("retention.decisions_days", |text| days(text, 30)),
                rejects_days: reader.value("retention.rejects_days", |text| days(text, 1)),
                people_days: reader.value("retention.people_days", |text| days(text, 180)),
            },
            secrets: SecretSettings { links: reader.secret("secrets.links"), links_before: reader.secret("secrets.links_before") },
            providers: reader.providers(),
            logs: LogSettings { format: reader.value("logs.format", log_format), level: reader.value("logs.level", word) },
            files: reader.file.as_ref().map(referred_to).unwrap_or_default(),
        };
        reader.finish(settings)
    }
}

// --------------------------------------------------------------------------------------------------- what a value may be

fn word(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".into()) } else { Ok(text.to_owned()) }
}

fn path_of(text: &str) -> Result<PathBuf, String> {
    word(text).map(PathBuf::from)
}

/// What need not be set: `none` says that it is not.
fn or_none<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == UNSET { Ok(None) } else { parse(text).map(Some) }
}

/// The address of a web server.
fn web_address(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err("expected an address like `https://rekindle.shop.example`".into()),
    }
}

fn nats_address(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "nats" | "tls") && url.has_host() => Ok(text.to_owned()),
        _ => Err("expected an address like `nats://nats.shop.example:4222`".into()),
    }
}

fn number<T: FromStr + PartialOrd + Copy + std::fmt::Display>(text: &str, min: T, max: T) -> Result<T, String> {
    match text.replace('_', "").parse::<T>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("expected a number from {min} to {max}")),
    }
}

fn truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected `true` or `false`".to_owned())
}

/// Days for which something is kept, or `keep`: for ever.
fn days(text: &str, min: u32) -> Result<Option<u32>, String> {
    const CENTURY: u32 = 36_500;
    match text {
        "keep" => Ok(None),
        text => number(text, min, CENTURY).map(Some).map_err(|_| format!("expected `keep`, or days from {min} to {CENTURY}")),
    }
}

/// `HOST:PORT`; whether it can be listened on is seen when it is tried.
fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    port.map(|_| text.to_owned()).ok_or_else(|| "expected HOST:PORT, like 127.0.0.1:8650".into())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected `text` or `json`".into()),
    }
}

// ------------------------------------------------------------------------------------------------------------ references

/// Where a value stands that is not written here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reference {
    Environment(String),
    File(PathBuf),
}

impl Reference {
    fn of(text: &str) -> Option<Self> {
        let variable = text.strip_prefix("env:").map(|name| Reference::Environment(name.to_owned()));
        variable.or_else(|| text.strip_prefix("file:").map(|path| Reference::File(PathBuf::from(path))))
    }

    /// The text that it refers to, without the line end that editors put after the last line.
    fn resolve(&self) -> Result<String, String> {
        match self {
            Reference::Environment(name) => std::env::var(name).map_err(|_| format!("the environment has no variable `{name}`")),
            Reference::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}

/// A secret: given by reference only, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a reference as written (`env:NAME`, `file:PATH`) to what it refers to.
    pub fn refer(text: &str) -> Result<Secret, String> {
        match Reference::of(text) {
            Some(reference) => reference.resolve().map(Secret),
            None => Err("a secret is not written here: give `env:NAME` or `file:PATH`".into()),
        }
    }

    /// A secret that is at hand already: one of several in a file, a test's.
    pub fn given(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// The secret itself, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a secret)")
    }
}

// --------------------------------------------------------------------------------------------------------------- reading

/// Two trees, the defaults and the file, and what was found wrong in the file.
struct Reader {
    defaults: Option<Node>,
    file: Option<Node>,
    source: SourceFile,
    findings: Vec<Diagnostic>,
}

impl Reader {
    fn new(name: &str, text: &str) -> Self {
        let path: Arc<str> = Arc::from(name);
        let (defaults, _) = syntax::parse(&Arc::from("config/rekindle.yaml"), DEFAULTS);
        let has_content = text.lines().any(|line| !matches!(line.trim_start().chars().next(), None | Some('#')));
        let (file, findings) = if has_content { syntax::parse(&path, text) } else { (None, Vec::new()) };
        let mut reader = Reader { defaults, file, source: SourceFile { path, text: Arc::from(text) }, findings };
        match (&reader.defaults, &reader.file) {
            (Some(defaults), Some(file)) if file.entries().is_some() => compare(defaults, file, "", &mut reader.findings),
            (_, Some(file)) if !file.is_refused() => {
                let message = format!("the settings are a mapping, not {}", file.described());
                reader.findings.push(Diagnostic::error("RK0902", file.place.clone(), message));
            }
            _ => {}
        }
        reader
    }

    /// The value of a key (`database.path`): the file's, else the default. After a finding it is the default too, which nobody will
    /// see: so that everything wrong is found at once.
    fn value<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        if let Some(node) = find(self.file.as_ref(), key)
            && let Some(text) = node.text()
        {
            let read = Reference::of(text).map_or_else(|| Ok(text.to_owned()), |reference| reference.resolve());
            match read.and_then(|read| parse(&read)) {
                Ok(value) => return value,
                Err(why) => {
                    let finding = Diagnostic::error("RK0902", node.place.clone(), format!("`{text}` is no value for `{key}`"));
                    self.findings.push(finding.len(node.width()).label(why));
                }
            }
        }
        let default = find(self.defaults.as_ref(), key).and_then(Node::text).map(parse);
        default.and_then(Result::ok).expect("the defaults are built in, and a test reads every one of them")
    }

    /// A secret that need not be set; written openly it is refused.
    fn secret(&mut self, key: &str) -> Option<Secret> {
        let node = find(self.file.as_ref(), key).or_else(|| find(self.defaults.as_ref(), key))?;
        let text = node.text().filter(|text| *text != UNSET)?;
        match Secret::refer(text) {
            Ok(secret) => Some(secret),
            Err(why) => {
                // neither is the text repeated nor its line shown: it may be the secret itself
                self.source.text = Arc::from(self.source.text.replace(text, &"*".repeat(text.chars().count())));
                let finding = Diagnostic::error("RK0902", node.place.clone(), format!("no secret for `{key}`"));
                self.findings.push(finding.len(node.width()).label(why));
                None
            }
        }
    }

    /// The providers: names are free here, what stands below each belongs to its kind.
    fn providers(&mut self) -> BTreeMap<String, Provider> {
        let Reader { file, findings, source, .. } = self;
        let entries = find(file.as_ref(), "providers").and_then(Node::entries).unwrap_or_default();
        let read = |entry: &syntax::Entry| Some((entry.key.text.to_string(), providers::read(entry, findings, source)?));
        let read: BTreeMap<String, Provider> = entries.iter().filter_map(read).collect();
        providers::check_pools(entries, &read, &mut self.findings);
        read
    }

    fn finish(self, settings: Settings) -> Result<Settings, SettingsError> {
        if self.findings.is_empty() {
            return Ok(settings);
        }
        let sources = [self.source];
        let texts: Vec<String> = self.findings.iter().map(|finding| finding.render(&sources, "")).collect();
        Err(SettingsError::Wrong(texts.join("\n\n")))
    }
}

/// The files that are named anywhere in a settings file: by reference, or as the description of a provider.
fn referred_to(node: &Node) -> Vec<PathBuf> {
    if let Some(Reference::File(path)) = node.text().and_then(Reference::of) {
        return vec![path];
    }
    let described = node.get("file").and_then(Node::text).filter(|text| text.contains(['/', '.']) && Reference::of(text).is_none());
    let below = node.entries().unwrap_or_default().iter().map(|entry| &entry.value).chain(node.items().unwrap_or_default());
    described.map(PathBuf::from).into_iter().chain(below.flat_map(referred_to)).collect()
}

fn find<'n>(root: Option<&'n Node>, key: &str) -> Option<&'n Node> {
    key.split('.').try_fold(root?, |node, part| node.get(part))
}

/// Every key of a file must be one of the defaults', and a mapping where they have one.
fn compare(defaults: &Node, file: &Node, within: &str, findings: &mut Vec<Diagnostic>) {
    let (Some(known), Some(written)) = (defaults.entries(), file.entries()) else { return };
    for entry in written {
        let key = if within.is_empty() { entry.key.text.to_string() } else { format!("{within}.{}", entry.key.text) };
        let Some(default) = defaults.get(&entry.key.text) else {
            let finding = Diagnostic::error("RK0901", entry.key_place.clone(), format!("unknown key `{key}`"));
            let near = nearest(&entry.key.text, known.iter().map(|e| &*e.key.text));
            let all = || known.iter().map(|e| format!("`{}`", e.key.text)).collect::<Vec<_>>().join(", ");
            let help = near.map_or_else(|| format!("known here: {}", all()), |near| format!("did you mean `{near}`?"));
            findings.push(finding.len(entry.key.text.chars().count()).help(help));
            continue;
        };
        match (&default.kind, &entry.value.kind) {
            (_, Kind::Refused) => {}
            (Kind::Mapping(_), Kind::Mapping(_)) if key == "providers" => {} // free names: read by kind
            (Kind::Mapping(_), Kind::Mapping(_)) => compare(default, &entry.value, &key, findings),
            (Kind::Scalar(_), Kind::Scalar(_)) if !entry.value.is_null() => {}
            _ => {
                let found = entry.value.described();
                let expected = default.described();
                let finding = Diagnostic::error("RK0902", entry.value.place.clone(), format!("`{key}` is {expected}, not {found}"));
                findings.push(finding.len(entry.value.width()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Settings::read("my.yaml", text).expect_err("an error").to_string()
    }

    #[test]
    fn the_defaults_are_read_from_the_commented_file() {
        let settings = Settings::load(None).expect("the defaults");
        assert_eq!((settings.environment.as_str(), settings.database.readers), ("development", 4));
        assert_eq!((settings.evaluate.batch, settings.dispatch.batch), (500, 200));
        assert_eq!(settings, Settings::read("the defaults again", DEFAULTS).expect("a file like any other"));
    }

    #[test]
    fn every_key_of_the_defaults_has_a_comment() {
        let mut before = "";
        for line in DEFAULTS.lines() {
            let is_value = line.contains(": ") && !line.trim_start().starts_with('#');
            assert!(!is_value || before.trim_start().starts_with('#'), "`{}` has no comment above it", line.trim());
            before = line;
        }
    }

    #[test]
    fn a_file_says_only_what_differs() {
        let settings = Settings::read("my.yaml", "environment: production\ndatabase:\n  recent_event_ids: 2_000_000\n").expect("fine");
        let defaults = Settings::load(None).expect("the defaults");
        assert_eq!((settings.environment.as_str(), settings.database.recent_event_ids), ("production", 2_000_000));
        assert_eq!((settings.database.path, settings.logs), (defaults.database.path, defaults.logs));
        assert!(Settings::read("my.yaml", "# nothing\n\n").is_ok());
    }

    #[test]
    fn everything_wrong_is_found_at_once_with_its_place() {
        let text = "enviroment: production\ndatabase:\n  readers: many\n  pfad: x\nlogs: loud\nrules:\n  directory:\n";
        let found = wrong(text);
        for expected in [
            "unknown key `enviroment`",
            "my.yaml:1:1",
            "did you mean `environment`?",
            "`many` is no value for `database.readers`",
            "my.yaml:3:12",
            "expected a number from 1 to 64",
            "unknown key `database.pfad`",
            "known here: `path`, `url`, `connections`, `beat_seconds`, `answer_seconds`, `distributed`, `readers`, `recent_event_ids`",
            "`logs` is a mapping, not a text",
            "`rules.directory` is a text, not nothing",
        ] {
            assert!(found.contains(expected), "missing: {expected}\n{found}");
        }
    }

    #[test]
    fn broken_yaml_has_a_place_too() {
        let found = wrong("environment: \"production\ndatabase: {path: x}\n");
        assert!(found.contains("my.yaml:"), "{found}");
        assert!(wrong("- a\n- b\n").contains("a mapping"), "{}", wrong("- a\n- b\n"));
    }

    #[test]
    fn a_value_may_be_a_reference_and_a_secret_must_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("name");
        std::fs::write(&path, "staging\n").expect("written");
        let settings = Settings::read("my.yaml", &format!("environment: \"file:{}\"\n", path.display())).expect("fine");
        assert_eq!(settings.environment, "staging");
        let found = wrong("environment: env:NO_SUCH_VARIABLE_ANYWHERE\n");
        assert!(found.contains("the environment has no variable `NO_SUCH_VARIABLE_ANYWHERE`") && found.contains("my.yaml:1:14"), "{found}");

        let secret = Secret::refer(&format!("file:{}", path.display())).expect("a reference");
        assert_eq!((secret.reveal(), format!("{secret:?}").as_str()), ("staging", "(a secret)"));
        assert!(Secret::refer("hunter2").expect_err("written openly").contains("env:NAME"));

        let settings = Settings::read("my.yaml", &format!("secrets:\n  links: \"file:{}\"\n", path.display())).expect("fine");
        assert_eq!(settings.secrets.links.as_ref().map(Secret::reveal), Some("staging"));
        let found = wrong("secrets:\n  links: hunter2\n");
        assert!(found.contains("no secret for `secrets.links`") && found.contains("my.yaml:2:10"), "{found}");
        assert!(!found.contains("hunter2"), "{found}");
    }

    #[test]
    fn providers_are_read_by_their_kind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        std::fs::write(&path, "hunter2\n").expect("written");
        let secret = format!("\"file:{}\"", path.display());
        let text = format!(
            "providers:
  relay: {{ kind: smtp, host: mail.shop.example, user: shop, password: {secret}, dkim: [{{ domain: shop.example, selector: s1, key: {secret} }}] }}
  texts: {{ kind: http, file: sms-gateway, url: 'https://sms.example/send', token: {secret}, callback_token: {secret} }}
  own: {{ kind: webhook, url: 'https://shop.example/hook', secret: {secret}, allow_networks: [10.0.0.0/8] }}
  fcm: {{ kind: fcm, service_account: {secret} }}
  mails: {{ kind: pool, of: [relay, own] }}
"
        );
        let settings = Settings::read("my.yaml", &text).unwrap_or_else(|error| panic!("{error}"));
        let Some(Provider::Smtp(relay)) = settings.providers.get("relay") else { panic!("a relay") };
        assert_eq!((relay.port, relay.tls, relay.connections, relay.dkim.len()), (587, providers::Tls::StartTls, 10, 1));
        let Some(Provider::Http(texts)) = settings.providers.get("texts") else { panic!("a gateway") };
        assert_eq!(texts.values.get("token").map(Secret::reveal), Some("hunter2"));
        assert_eq!(settings.providers.get("mails"), Some(&Provider::Pool(vec!["relay".into(), "own".into()])));
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_wrong_with_a_provider_has_its_place() {
        let text = "providers:
  relay: { kind: smtp, hots: x, user: shop, tls: maybe }
  texts: { kind: http, file: no-such-file }
  own: { kind: webhook, url: ftp://x, secret: open-secret, allow_networks: [10.0.0.0/99] }
  pigeon: { kind: pigeon }
  recording: { kind: smtp }
  some: { kind: pool, of: [relay, nobody, some] }
  flat: 5
  fcm: { kind: fcm }
";
        let found = wrong(text);
        for expected in [
            "unknown key `providers.relay.hots`",
            "did you mean `host`?",
            "`providers.relay` lacks `host`",
            "`providers.relay` lacks `password`",
            "`maybe` is no value for `providers.relay.tls`",
            "no shipped file has this name (sendgrid, mailgun,",
            "`ftp://x` is no value for `providers.own.url`",
            "no secret for `providers.own.secret`",
            "`10.0.0.0/99` is no value for `providers.own.allow_networks`",
            "expected one of `smtp`, `http`, `webhook`, `fcm`, `pool`",
            "`recording` is always there",
            "`nobody` cannot be in the pool `some`",
            "it is a pool itself",
            "`providers.flat` is a mapping, not a text",
            "`providers.fcm` lacks `service_account`",
            "my.yaml:4:47",
        ] {
            assert!(found.contains(expected), "missing: {expected}\n{found}");
        }
        assert!(!found.contains("open-secret"), "{found}");
    }
}
