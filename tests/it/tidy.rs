//! The tidiness of the sources: what the compiler does not hold. Arrows between the layers, one clock, SQL in one place, a pure
//! engine, and nothing that speaks of the machine it was written on. Each check has a bad text that it must find.
//!
//! There is no rule about lengths: look at the longest function and file now and then, and ask whether each has one reason for it.

use std::fs;
use std::path::{Path, PathBuf};

/// What may use what: a module uses modules of the layers before its own, and of its own layer unless it is a service.
const LAYERS: [&[&str]; 5] = [
    &["engine"],
    &["message", "simulate"],
    &["store", "channel", "links", "rulebook", "versions", "clock", "settings", "telemetry", "faults"],
    &["ingest", "feedback", "evaluate", "dispatch", "audit", "retention", "console"],
    &["serve", "cli", "main", "lib"],
];
const SERVICES: usize = 3;
/// Layers without I/O, async, clock and chance.
const PURE: usize = 1;

/// Ways to read the wall clock, or the zone of the machine.
const CLOCKS: [&str; 8] = [
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "Utc::now",
    "Local::now",
    "OffsetDateTime::now",
    "TimeZone::system",
];
/// The clock itself, and the only place that has one.
const CLOCK_FILE: &str = "src/clock.rs";

/// What a pure layer has no business with.
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "tokio::",
    "sqlx::",
    "async fn",
    ".await",
    "println!",
    "rand::",
    "thread_rng",
];

/// How a statement begins. Lower-cased; one of them at the start of a literal is SQL.
const SQL: [&str; 11] = [
    "select ",
    "insert into ",
    "insert or ",
    "update ",
    "delete from ",
    "create table ",
    "create index ",
    "with recursive ",
    "pragma ",
    "begin immediate",
    "alter table ",
];

#[test]
fn sources_keep_arrows_clock_sql_and_purity() {
    let found: Vec<String> = rust_files("src").iter().flat_map(|path| findings(path, &read(path))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nothing_speaks_of_the_machine_it_was_written_on() {
    let mut found = Vec::new();
    for path in texts() {
        for (line, text) in read(&path).lines().enumerate() {
            found.extend(machine_paths(text).map(|what| format!("{path}:{}: `{what}` is a place on somebody's machine", line + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Every finding in one Rust source, with its place.
fn findings(path: &str, text: &str) -> Vec<String> {
    let source = Source::of(text);
    let mut found = arrows(path, &source);
    if path != CLOCK_FILE {
        found.extend(source.code_with(&CLOCKS).map(|(line, what)| format!("{path}:{line}: `{what}` outside {CLOCK_FILE}: take a `Clock`")));
    }
    if layer_of(module_of(path)).is_some_and(|layer| layer <= PURE) {
        // its tests may read the shop's year
        let tests_from = source.code.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
        let impure = source.code_with(&IMPURE).filter(|(line, _)| *line <= tests_from);
        found.extend(impure.map(|(line, what)| format!("{path}:{line}: `{what}` in a pure layer")));
    }
    if module_of(path) != "store" {
        let literals = source.literals.iter().filter(|(_, literal)| is_sql(literal));
        found.extend(literals.map(|(line, literal)| format!("{path}:{line}: SQL outside src/store: {literal:.40}")));
    }
    found
}

fn arrows(path: &str, source: &Source) -> Vec<String> {
    let from = module_of(path);
    let Some(layer) = layer_of(from) else {
        return vec![format!("{path}: `{from}` stands in no layer: add it to LAYERS and to docs/architecture.md")];
    };
    // lib.rs lists the modules, main.rs calls one: neither has anything to keep apart
    if matches!(from, "lib" | "main") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, to) in source.uses(depth_of(path)).into_iter().filter(|(_, to)| to != from) {
        match layer_of(&to) {
            Some(other) if other > layer => found.push(format!("{path}:{line}: `{from}` uses `{to}`, which lies in a later layer")),
            Some(other) if other == layer && layer == SERVICES => {
                found.push(format!("{path}:{line}: service `{from}` uses service `{to}`: they meet in tables only"));
            }
            _ => {}
        }
    }
    found
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// `src/engine/gate/mod.rs` belongs to `engine`, `src/clock.rs` to `clock`.
fn module_of(path: &str) -> &str {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    inner.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// How many `super::` lead from a file to the root: the depth of its module.
fn depth_of(path: &str) -> usize {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    inner.split('/').filter(|part| *part != "mod").count()
}

fn is_sql(literal: &str) -> bool {
    let start: String = literal.trim_start().to_ascii_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let begins = SQL.iter().any(|begin| format!("{start} ").starts_with(begin));
    // "update" alone is a word, "update every customer" a sentence, "update profiles set" neither
    begins
        && start.contains(' ')
        && (!start.starts_with("update ") || start.contains(" set "))
        && (!start.starts_with("select ") || start.contains(" from "))
}

fn machine_paths(line: &str) -> impl Iterator<Item = &'static str> + '_ {
    // written in two pieces, so that this file does not find itself
    [concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("C:\\", "Users")]
        .into_iter()
        .filter(|what| line.contains(what))
}

// ------------------------------------------------------------------------------------------------------------- reading sources

/// A Rust source taken apart: code without comments and literals, and the literals, each with its line.
struct Source {
    /// Comments and literals are blanks; line breaks stand where they stood.
    code: String,
    literals: Vec<(usize, String)>,
}

impl Source {
    fn of(text: &str) -> Source {
        let mut source = Source { code: String::with_capacity(text.len()), literals: Vec::new() };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else if let Some(length) = source.literal(rest) {
                length
            } else {
                source.code.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            source.blank(&rest[..length]);
            rest = &rest[length..];
        }
        source
    }

    /// The length of the literal that begins here, if one does; its text is kept.
    fn literal(&mut self, rest: &str) -> Option<usize> {
        if self.code.chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_') {
            return None; // `r` and `b` may end a name
        }
        let plain = rest.strip_prefix('b').unwrap_or(rest);
        let prefix = rest.len() - plain.len();
        let (body, close) = match plain.strip_prefix('r').map(|raw| (raw, raw.chars().take_while(|c| *c == '#').count())) {
            Some((raw, hashes)) if raw[hashes..].starts_with('"') => (prefix + 2 + hashes, format!("\"{}", "#".repeat(hashes))),
            _ if plain.starts_with('"') => (prefix + 1, String::new()),
            _ => return char_literal(plain).map(|length| prefix + length),
        };
        let inner = &rest[body..];
        let end = if close.is_empty() { end_of_string(inner) } else { inner.find(&close).unwrap_or(inner.len()) };
        self.literals.push((self.line(), inner[..end].to_owned()));
        Some((body + end + close.len().max(1)).min(rest.len()))
    }

    fn line(&self) -> usize {
        self.code.matches('\n').count() + 1
    }

    fn blank(&mut self, text: &str) {
        self.code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    }

    fn code_with<'s>(&'s self, patterns: &'s [&'static str]) -> impl Iterator<Item = (usize, &'static str)> + 's {
        let lines = self.code.lines().enumerate();
        lines.flat_map(move |(line, code)| patterns.iter().filter(move |pattern| contains_path(code, pattern)).map(move |p| (line + 1, *p)))
    }

    /// Modules of this crate that the code names: `crate::x`, `crate::{x, y::z}`, `super::super::x` that leads to the root.
    fn uses(&self, depth: usize) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let to_root = "super::".repeat(depth);
        for start in ["crate::", to_root.as_str()] {
            for (at, _) in self.code.match_indices(start) {
                let before = self.code[..at].chars().next_back();
                // `pub(crate)` has no `::`; `super::` in front would lead elsewhere
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let line = self.code[..at].matches('\n').count() + 1;
                found.extend(first_names(&self.code[at + start.len()..]).into_iter().map(|name| (line, name)));
            }
        }
        found
    }
}

/// `x::y` gives x; `{x, y::{a, b}, z}` gives x, y and z.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = vec![name(group)];
    let mut open = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            ',' if open == 1 => names.push(name(&group[at + 1..])),
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// `Timestamp::now` is found in `jiff::Timestamp::now()`, not in `MyTimestamp::now()`.
fn contains_path(code: &str, pattern: &str) -> bool {
    code.match_indices(pattern).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let is_name = pattern.starts_with(|c: char| c.is_alphanumeric());
        !(is_name && before.is_some_and(|c| c.is_alphanumeric() || c == '_'))
    })
}

fn end_of_string(inner: &str) -> usize {
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    inner.len()
}

/// `'x'` and `'\n'`, but not the lifetime `'a`.
fn char_literal(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let escaped = inner.starts_with('\\');
    let close = if escaped { 2 + inner[2..].find('\'')? } else { inner.chars().next()?.len_utf8() };
    inner[close..].starts_with('\'').then_some(close + 2)
}

// ----------------------------------------------------------------------------------------------------------------- the project

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn rust_files(dir: &str) -> Vec<String> {
    let mut files = Vec::new();
    walk(&root().join(dir), &mut files);
    files.retain(|path| path.ends_with(".rs"));
    assert!(!files.is_empty(), "no sources below {dir}");
    files
}

/// Everything that is read as text, in the project's own folders.
fn texts() -> Vec<String> {
    let mut files = Vec::new();
    for entry in
        ["src", "tests", "benches", "docs", "rules", "config", "migrations", "data", ".ci", "README.md", "CHANGELOG.md", "Cargo.toml"]
    {
        walk(&root().join(entry), &mut files);
    }
    files.retain(|path| !path.ends_with(".gz"));
    files
}

fn walk(path: &PathBuf, files: &mut Vec<String>) {
    if path.ends_with("node_modules") {
        return; // other people's libraries, installed to compare with
    }
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| walk(entry, files));
    } else if path.is_file() {
        let inner = path.strip_prefix(root()).unwrap_or(path);
        files.push(inner.to_string_lossy().replace('\\', "/"));
    }
}

// ------------------------------------------------------------------------------------------------------- the tests of the test

#[test]
fn a_use_against_the_arrows_is_found() {
    let bad = [
        ("src/engine/decide/mod.rs", "use crate::store::Store;"),
        ("src/engine/time.rs", "fn x() { crate::cli::main() }"),
        ("src/engine/rule/check/mod.rs", "use super::super::super::store::Store;"),
        ("src/message/mod.rs", "use crate::{engine::time::Timestamp,\n    channel::Outgoing};"),
        ("src/evaluate.rs", "use crate::dispatch::run_once;"),
        ("src/store/mod.rs", "use crate::evaluate::Pass;"),
        ("src/nowhere.rs", "fn x() {}"),
    ];
    for (path, text) in bad {
        assert_eq!(findings(path, text).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/engine/decide/mod.rs", "use super::action::Message; // crate::store is told of in a comment"),
        ("src/message/mod.rs", "use crate::engine::time::Timestamp;\nconst DOC: &str = \"crate::store\";"),
        ("src/evaluate.rs", "use crate::{engine::decide, store::Store};\nuse self::inner::dispatch;"),
        ("src/cli/demo/mod.rs", "use crate::evaluate;\nuse crate::dispatch;\nuse super::super::cli::ExitCode;"),
    ];
    for (path, text) in good {
        assert_eq!(findings(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn a_second_clock_is_found() {
    for text in ["let t = std::time::Instant::now();", "jiff::Timestamp::now()", "use std::time::SystemTime;\nlet t = SystemTime::now();"] {
        assert_eq!(findings("src/cli/demo/mod.rs", text).len(), 1, "{text}");
        assert_eq!(findings(CLOCK_FILE, text).len(), 0, "{text}");
    }
    assert_eq!(findings("src/evaluate.rs", "let t = clock.now(); // not Instant::now()").len(), 0);
}

#[test]
fn sql_outside_the_store_is_found() {
    let bad = [
        "q(\"select id from profiles\")",
        "q(r#\"\n  update profiles\n  set due_at = 0\"#)",
        "q(\"DELETE FROM events\")",
        "q(\"pragma wal\")",
    ];
    for text in bad {
        assert_eq!(findings("src/evaluate.rs", text).len(), 1, "{text}");
        assert_eq!(findings("src/store/sqlite/claim.rs", text).len(), 0, "{text}");
    }
    for text in [
        "key(\"update\")",
        "say(\"update every customer\")",
        "// select id from profiles",
        "let c = '\"'; // select a from b",
        "say(\"select one\")",
    ] {
        assert_eq!(findings("src/evaluate.rs", text).len(), 0, "{text}");
    }
}

#[test]
fn impurity_of_the_engine_is_found() {
    for text in ["use std::fs;", "async fn x() {}", "fn x() { println!(\"x\") }", "let x = rand::random();"] {
        assert_eq!(findings("src/engine/run.rs", text).len(), 1, "{text}");
        assert_eq!(findings("src/cli/check.rs", text).len(), 0, "{text}");
    }
    assert_eq!(findings("src/engine/run.rs", "fn x() {}\n#[cfg(test)]\nmod tests { use std::fs; }").len(), 0);
    assert_eq!(findings("src/engine/run.rs", "/* async fn */ let operand = brand::new();").len(), 0);
}

#[test]
fn a_machine_path_is_found() {
    assert_eq!(machine_paths(concat!("see /ho", "me/anna/x")).count(), 1);
    assert_eq!(machine_paths("see /etc/rekindle and homework/x").count(), 0);
}
