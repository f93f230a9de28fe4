//! The language as JSON Schema: the table it is made from knows the keys that `check` knows, and the real yaml-language-server completes,
//! explains and underlines by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rekindle::engine::rule::check::load;
use rekindle::engine::rule::diagnostic::{Diagnostic, SourceFile};
use rekindle::engine::rule::language::{Key, READ_BY_CHECK, Takes};
use rekindle::engine::rule::syntax::{self, Node};
use serde_json::{Value as Json, json};

use crate::rules;

/// What the good files do not show.
const MORE: &str = r#"rekindle: 1
attributes:
  newsletter: { type: bool, default: false, consent: { purpose: marketing, channels: [email] } }
  shade: { type: enum, values: [light, dark], optional: true }
events:
  painted: { name: Painted, properties: { shade: { type: enum, values: [light, dark] } } }
features:
  twice: { expr: days_silent * 2 }
rules:
  - id: more
    owner: crm
    active: { from: "2026-11-01T00:00", zone: UTC }
    when: days_silent >= 30
    existing: skip
    max_entries: 500
    max_late: 1d
    steps:
      - id: first
        send_at: { between: "10:00-12:00", days: [mon] }
        max_late: 1d
        send: { template: comeback-coupon, channels: [email], category: marketing, offer: { coupon: CART-5, valid: 2d } }
      - { id: second, points: { add: 1, class: bonus, reason: gift, expires: 3d } }
      - { id: third, tier: { overlay: { up: 1, for: 3d } } }
      - { id: fourth, set: { favourite: '"garden"' } }
    on_exit:
      - { id: last, alert: { level: notice, notify: [anna], text: gone } }
"#;

// ------------------------------------------------------------------------------------------------------- the table and the check

/// Each mapping of the good files gets a key that does not exist; `check` then lists those that do.
#[test]
fn the_table_has_the_keys_that_check_knows() {
    let catalog = rules::catalog();
    let mut good = rules::good();
    good.push(SourceFile { path: Arc::from("more.yaml"), text: Arc::from(MORE) });
    assert_eq!(
        load(&good, &catalog).diagnostics.iter().filter(|finding| finding.is_error()).collect::<Vec<_>>(),
        Vec::<&Diagnostic>::new()
    );
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (index, file) in good.iter().enumerate() {
        let root = syntax::parse(&file.path, &file.text).0.expect("a tree");
        let mut mappings = Vec::new();
        mappings_below(&root, &mut mappings);
        for mapping in mappings {
            let mut files = good.clone();
            files[index].text = Arc::from(with_another_key(&file.text, mapping));
            for finding in
                load(&files, &catalog).diagnostics.iter().filter(|finding| finding.message.starts_with("unknown key `zzzzzz` in "))
            {
                let what = finding.message.trim_start_matches("unknown key `zzzzzz` in ");
                let keys = finding.help.as_deref().and_then(|help| help.split_once(" knows ")).expect("the keys that exist").1;
                known.entry(what.to_owned()).or_default().extend(keys.split(", ").map(str::to_owned));
            }
        }
    }
    let described = READ_BY_CHECK.map(|shape| (shape.what.to_owned(), shape.names().map(str::to_owned).collect::<BTreeSet<_>>()));
    let mut wrong = Vec::new();
    for (what, keys) in described {
        match known.get(&what) {
            Some(known) if *known == keys => {}
            Some(known) => wrong.push(format!("{what}: check knows {known:?}, the table {keys:?}")),
            None => wrong.push(format!("{what}: no good file shows it")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn mappings_below<'n>(node: &'n Node, found: &mut Vec<&'n Node>) {
    for entry in node.entries().unwrap_or_default() {
        mappings_below(&entry.value, found);
    }
    for item in node.items().unwrap_or_default() {
        mappings_below(item, found);
    }
    if node.entries().is_some_and(|entries| !entries.is_empty()) {
        found.push(node);
    }
}

/// The text with `zzzzzz: 1` as the first key of a mapping.
fn with_another_key(text: &str, mapping: &Node) -> String {
    let (line, column) = (mapping.place.line as usize, mapping.place.column as usize);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let row = &mut lines[line - 1];
    let at = row.char_indices().nth(column - 1).map_or(row.len(), |(at, _)| at);
    if row[at..].starts_with('{') {
        row.insert_str(at + 1, " zzzzzz: 1,");
    } else {
        row.insert_str(at, &format!("zzzzzz: 1\n{}", " ".repeat(column - 1)));
    }
    lines.join("\n") + "\n"
}

/// A line for whoever hovers over the key, without a full stop left out or a word missing.
#[test]
fn every_key_says_what_it_is() {
    for shape in READ_BY_CHECK {
        for Key { name, doc, takes, .. } in shape.keys {
            let is_said = doc.len() > 3 && (doc.ends_with('.') || doc.ends_with("..."));
            assert!(is_said, "{name} of {}: {doc:?}", shape.what);
            assert!(!matches!(takes, Takes::Either(all) if all.len() < 2), "{name} of {}", shape.what);
        }
    }
}

// --------------------------------------------------------------------------------------------------------------- the real editor

/// The server where it is installed; none: the test has nothing to try with.
fn server() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/node_modules/yaml-language-server/bin/yaml-language-server");
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var_os("REKINDLE_REQUIRE_SERVICES").is_none(), "tests/foreign: run `npm install` there first");
    None
}

/// An editor that talks to the server.
struct Editor {
    child: Child,
    to: ChildStdin,
    from: Receiver<Json>,
    next_id: u64,
    /// By file.
    underlined: BTreeMap<String, Vec<Json>>,
    directory: tempfile::TempDir,
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Editor {
    fn open(server: &Path) -> Editor {
        let directory = tempfile::tempdir().expect("a directory");
        let schema = directory.path().join("schema.json");
        let written =
            Command::new(env!("CARGO_BIN_EXE_rekindle")).args(["schema", "rules", "--out"]).arg(&schema).status().expect("it runs");
        assert!(written.success());
        let mut child = Command::new("node")
            .arg(server)
            .arg("--stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node runs");
        let to = child.stdin.take().expect("a pipe");
        let (sender, from) = channel();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            while let Some(message) = next_message(&mut out) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut editor = Editor { child, to, from, next_id: 1, underlined: BTreeMap::new(), directory };
        let capabilities = json!({
            "workspace": { "configuration": true },
            "textDocument": { "completion": { "completionItem": { "snippetSupport": true } }, "hover": { "contentFormat": ["plaintext"] } },
        });
        editor.ask("initialize", &json!({ "processId": null, "rootUri": null, "capabilities": capabilities }));
        editor.tell("initialized", &json!({}));
        editor
    }

    fn tell(&mut self, method: &str, params: &Json) {
        self.write(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn write(&mut self, message: &Json) {
        let body = message.to_string();
        write!(self.to, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("the server listens");
        self.to.flush().expect("the server listens");
    }

    fn ask(&mut self, method: &str, params: &Json) -> Json {
        let id = self.next_id;
        self.next_id += 1;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.hear();
            if message["id"] == json!(id) && message.get("method").is_none() {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    /// The next message; what the server wants to know is answered on the way.
    fn hear(&mut self) -> Json {
        let message = self.from.recv_timeout(Duration::from_secs(60)).expect("the server answers");
        match message["method"].as_str() {
            Some("workspace/configuration") => {
                let schemas = json!({ format!("file://{}", self.directory.path().join("schema.json").display()): "*.yaml" });
                let yaml =
                    json!({ "schemas": schemas, "validate": true, "hover": true, "completion": true, "schemaStore": { "enable": false } });
                let answer = |item: &Json| if item["section"] == json!("yaml") { yaml.clone() } else { Json::Null };
                let items: Vec<Json> = message["params"]["items"].as_array().into_iter().flatten().map(answer).collect();
                self.write(&json!({ "jsonrpc": "2.0", "id": message["id"], "result": items }));
            }
            Some("textDocument/publishDiagnostics") => {
                let params = &message["params"];
                let found = params["diagnostics"].as_array().cloned().unwrap_or_default();
                self.underlined.insert(params["uri"].as_str().unwrap_or_default().to_owned(), found);
            }
            Some(_) if message.get("id").is_some() => self.write(&json!({ "jsonrpc": "2.0", "id": message["id"], "result": null })),
            _ => {}
        }
        message
    }

    /// Opens a file, by its modeline under our schema.
    fn show(&mut self, name: &str, text: &str) -> String {
        let uri = format!("file://{}", self.directory.path().join(name).display());
        let schema = self.directory.path().join("schema.json");
        let text = format!("# yaml-language-server: $schema=file://{}\n{text}", schema.display());
        self.tell("textDocument/didOpen", &json!({ "textDocument": { "uri": uri, "languageId": "yaml", "version": 1, "text": text } }));
        uri
    }

    /// What it underlines in a file.
    fn underlined(&mut self, name: &str, text: &str) -> Vec<String> {
        let uri = self.show(name, text);
        while !self.underlined.contains_key(&uri) {
            self.hear();
        }
        self.underlined[&uri].iter().map(|found| found["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Where `|` stands in the text: what is offered there.
    fn completed(&mut self, name: &str, text: &str) -> Vec<String> {
        let (text, position) = cursor(text);
        let uri = self.show(name, &text);
        let answer = self.ask("textDocument/completion", &json!({ "textDocument": { "uri": uri }, "position": position }));
        let items = answer["items"].as_array().or_else(|| answer.as_array()).cloned().unwrap_or_default();
        items.iter().map(|item| item["label"].as_str().unwrap_or_default().trim_matches('"').to_owned()).collect()
    }

    fn hovered(&mut self, name: &str, text: &str) -> String {
        let (text, position) = cursor(text);
        let uri = self.show(name, &text);
        self.ask("textDocument/hover", &json!({ "textDocument": { "uri": uri }, "position": position }))["contents"].to_string()
    }
}

fn next_message(out: &mut impl std::io::BufRead) -> Option<Json> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if out.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().split_once(": ") {
            Some(("Content-Length", number)) => length = number.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    out.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

/// The text without its `|`, and where that stood (a line lower, below the modeline).
fn cursor(text: &str) -> (String, Json) {
    let (before, after) = text.split_once('|').expect("a cursor");
    let position =
        json!({ "line": before.matches('\n').count() + 1, "character": before.rsplit('\n').next().unwrap_or_default().chars().count() });
    (format!("{before}{after}"), position)
}

const RULE: &str = "rekindle: 1\nrules:\n  - id: quiet\n    owner: crm\n    when: days_silent >= 30\n    existing: skip\n";

#[test]
fn the_real_language_server_completes_explains_and_underlines() {
    static SERVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(server) = SERVER.get_or_init(server) else { return };
    let mut editor = Editor::open(server);

    // the shipped pack and the language's examples are as the schema says
    for path in rules::rule_files_below(Path::new("rules")).into_iter().chain(rules::yaml_files("tests/data/rules/good")) {
        let text = fs::read_to_string(&path).expect("a readable file");
        let is_of_the_pack = path.starts_with("rules");
        let named = editor.underlined(&path.display().to_string().replace('/', "-"), &text);
        // names of another shop are none of this one's
        let wrong: Vec<&String> = named.iter().filter(|said| is_of_the_pack || !said.starts_with("Value is not accepted")).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
    }

    let said = editor.underlined("bad-key.yaml", &RULE.replace("when:", "whn:"));
    assert!(said.iter().any(|said| said.contains("whn")), "{said:?}");
    let said = editor.underlined("bad-value.yaml", &format!("{RULE}    for: six hours\n    steps: []\n"));
    assert_eq!(said, ["a duration like `7d`, `36h` or `7d10h` is expected"]);
    let said = editor.underlined(
        "bad-name.yaml",
        &format!("{RULE}    steps:\n      - {{ id: tell, send: {{ template: welcom, channels: [email] }} }}\n"),
    );
    assert!(said.len() == 1 && said[0].contains("\"welcome\""), "{said:?}");

    let offered = editor.completed("keys.yaml", &format!("{RULE}    un|\n"));
    assert!(offered.contains(&"unless".to_owned()), "{offered:?}");
    let offered =
        editor.completed("templates.yaml", &format!("{RULE}    steps:\n      - id: tell\n        send:\n          template: |\n"));
    assert!(offered.contains(&"win-back".to_owned()) && offered.contains(&"welcome".to_owned()), "{offered:?}");
    let offered = editor
        .completed("channels.yaml", &format!("{RULE}    steps:\n      - id: tell\n        send:\n          channels:\n            - |\n"));
    assert!(offered.contains(&"whatsapp".to_owned()), "{offered:?}");
    let offered = editor.completed("events.yaml", "rekindle: 1\nrules:\n  - id: quiet\n    owner: crm\n    event: |\n");
    assert!(offered.contains(&"order_completed".to_owned()) && offered.contains(&"tier_changed".to_owned()), "{offered:?}");
    let offered = editor.completed("segments.yaml", "rekindle: 1\nrules:\n  - id: quiet\n    owner: crm\n    audience: |\n");
    assert!(offered.contains(&"just_refunded".to_owned()), "{offered:?}");

    let shown = editor.hovered("hover.yaml", &RULE.replace("existing", "exis|ting"));
    assert!(shown.contains("What becomes of those who fulfil"), "{shown}");
}
