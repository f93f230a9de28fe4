//! The canonical form: the shipped files are in it; whatever is brought into it means the same, keeps its comments, and stays as it is
//! the second time.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rekindle::engine::rule::check::load;
use rekindle::engine::rule::diagnostic::{Diagnostic, SourceFile};
use rekindle::engine::rule::format::{Unformatted, format};
use rekindle::engine::rule::syntax;

use crate::rules;

fn in_form(text: &str) -> Result<String, Unformatted> {
    format(&Arc::from("a.yaml"), text)
}

/// What a file says, whatever its form.
fn said(text: &str) -> String {
    let (node, findings) = syntax::parse(&Arc::from("a.yaml"), text);
    assert_eq!(findings, [], "{text}");
    let mut out = String::new();
    node.expect("a tree").normalise(&mut out);
    out
}

#[test]
fn the_shipped_files_are_in_form() {
    let mut wrong = Vec::new();
    for path in rules::rule_files_below(Path::new("rules")) {
        let text = fs::read_to_string(&path).expect("a readable file");
        match in_form(&text) {
            Ok(formatted) if formatted == text => {}
            Ok(formatted) => wrong.push(format!("== {}\n{}", path.display(), difference(&text, &formatted))),
            Err(error) => wrong.push(format!("== {}: {error:?}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(before: &str, after: &str) -> String {
    let pairs = before.lines().zip(after.lines()).filter(|(before, after)| before != after);
    pairs.take(5).map(|(before, after)| format!("- {before}\n+ {after}\n")).collect()
}

/// Good and bad files alike: what can be read can be brought into form, and is told off as before.
#[test]
fn every_example_means_the_same_in_form() {
    let catalog = rules::catalog();
    let good = rules::good();
    let formatted: Vec<SourceFile> = good
        .iter()
        .map(|file| SourceFile { path: file.path.clone(), text: Arc::from(in_form(&file.text).expect("a good file")) })
        .collect();
    let (before, after) = (load(&good, &catalog).set.expect("a good set"), load(&formatted, &catalog).set.expect("a good set"));
    for rule in &before.rules {
        let other = after.rule(&rule.id).expect("the same rule");
        assert_eq!((rule.when_hash, &rule.steps.len()), (other.when_hash, &other.steps.len()), "{}", rule.id);
        assert_eq!(rule.hash, other.hash, "{}", rule.id);
    }
    assert_eq!(before.version, after.version);

    let mut brought = 0;
    for path in rules::yaml_files("tests/data/rules/bad") {
        let text = fs::read_to_string(&path).expect("a readable file");
        match in_form(&text) {
            Ok(formatted) => {
                let codes = |text: &str| {
                    let mut sources = rules::base(|_| true);
                    sources.push(SourceFile { path: Arc::from("z.yaml"), text: Arc::from(text) });
                    let mut found: Vec<&str> = load(&sources, &catalog).diagnostics.iter().map(|finding| finding.code).collect();
                    found.sort_unstable();
                    found
                };
                assert_eq!(codes(&formatted), codes(&text), "{}:\n{formatted}", path.display());
                assert_eq!(in_form(&formatted).expect("its own output"), formatted, "{}", path.display());
                brought += 1;
            }
            Err(Unformatted::Broken(findings)) => assert!(findings.iter().any(Diagnostic::is_error), "{}", path.display()),
            Err(Unformatted::Unsure) => panic!("{} cannot be brought into form", path.display()),
        }
    }
    assert!(brought > 100, "only {brought} files");
}

// ---------------------------------------------------------------------------------------------------------------- random files

struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most.max(1)
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// A file written by somebody without habits.
struct Scribbler {
    chance: Chance,
    text: String,
    comments: Vec<String>,
    /// A block text has just ended: a comment that is indented deeper would belong to it.
    after_text: bool,
}

const SCALARS: [&str; 14] = [
    "5%",
    "30d",
    "true",
    "'it''s'",
    "\"a # b\"",
    "days_silent >= 30",
    "a and not b",
    "'tier == \"gold\"'",
    "\"x: y\"",
    "2026-11-06",
    "~",
    "a: b",
    "\"\\u00e9\"",
    "老客户",
];
const KEYS: [&str; 12] = ["id", "owner", "when", "steps", "rules", "name", "send", "policy", "at", "zone", "unless", "data"];

impl Scribbler {
    fn file(seed: u64) -> Scribbler {
        let mut scribbler = Scribbler { chance: Chance(seed), text: String::new(), comments: Vec::new(), after_text: false };
        scribbler.mapping(0, 0, true);
        scribbler
    }

    fn comment(&mut self) -> String {
        let comment = format!("# c{}.", self.comments.len());
        self.comments.push(comment.clone());
        comment
    }

    fn end_of_line(&mut self) {
        if self.chance.below(4) == 0 {
            let gap = " ".repeat(1 + self.chance.below(3));
            let comment = self.comment();
            write!(self.text, "{gap}{comment}").expect("room");
        }
        self.text.push('\n');
    }

    fn between(&mut self, indent: usize) {
        for _ in 0..self.chance.below(3) {
            self.text.push('\n');
        }
        if self.chance.below(4) == 0 {
            let comment = self.comment();
            let indent = if !self.after_text && self.chance.below(5) == 0 { self.chance.below(9) } else { indent };
            writeln!(self.text, "{}{comment}", " ".repeat(indent)).expect("room");
        }
        self.after_text = false;
    }

    fn scalar(&mut self, in_flow: bool) -> &'static str {
        loop {
            let scalar = self.chance.one(&SCALARS);
            // a plain text with a colon and a blank is a mapping, and nothing is no value of a list
            if scalar != "a: b" && !(in_flow && scalar == "~") {
                return scalar;
            }
        }
    }

    fn mapping(&mut self, indent: usize, depth: usize, indent_first: bool) {
        let first = self.chance.below(KEYS.len());
        for index in 0..1 + self.chance.below(4) {
            if indent_first || index > 0 {
                self.between(indent);
                self.text.push_str(&" ".repeat(indent));
            }
            self.text.push_str(KEYS[(first + index * 5) % KEYS.len()]);
            self.text.push(':');
            self.value(indent, depth + 1);
        }
    }

    fn value(&mut self, indent: usize, depth: usize) {
        let deeper = indent + 1 + self.chance.below(4);
        match self.chance.below(if depth > 3 { 4 } else { 8 }) {
            0 | 1 => {
                let gap = " ".repeat(1 + self.chance.below(3));
                let scalar = self.scalar(false);
                write!(self.text, "{gap}{scalar}").expect("room");
                self.end_of_line();
            }
            2 => {
                let flow = self.flow(0);
                write!(self.text, " {flow}").expect("room");
                self.end_of_line();
            }
            3 => {
                let mark = self.chance.one(&["|", ">", "|-", ">-"]);
                write!(self.text, " {mark}").expect("room");
                self.end_of_line();
                let pad = " ".repeat(deeper);
                write!(self.text, "{pad}some text\n{pad}  deeper # no comment\n\n{pad}more\n").expect("room");
                self.after_text = true;
            }
            4 | 5 => {
                self.end_of_line();
                self.mapping(deeper, depth, true);
            }
            _ => {
                self.end_of_line();
                // dashes may stand below their key
                let at = if self.chance.below(3) == 0 { indent } else { deeper };
                for _ in 0..1 + self.chance.below(3) {
                    self.between(at);
                    let gap = 1 + self.chance.below(3);
                    write!(self.text, "{}-{}", " ".repeat(at), " ".repeat(gap)).expect("room");
                    if self.chance.below(2) == 0 {
                        self.mapping(at + 1 + gap, depth, false);
                    } else {
                        let item = if self.chance.below(2) == 0 { self.flow(0) } else { self.scalar(true).to_owned() };
                        self.text.push_str(&item);
                        self.end_of_line();
                    }
                }
            }
        }
    }

    fn flow(&mut self, depth: usize) -> String {
        let pad = self.chance.one(&["", " "]);
        let comma = self.chance.one(&[",", ", ", ",  "]);
        let count = self.chance.below(4);
        let first = self.chance.below(KEYS.len());
        let is_mapping = self.chance.below(2) == 0;
        let parts: Vec<String> = (0..count)
            .map(|index| {
                let value = if depth < 2 && self.chance.below(4) == 0 { self.flow(depth + 1) } else { self.scalar(true).to_owned() };
                if is_mapping { format!("{}: {value}", KEYS[(first + index * 5) % KEYS.len()]) } else { value }
            })
            .collect();
        let parts = parts.join(comma);
        if is_mapping { format!("{{{pad}{parts}{pad}}}") } else { format!("[{pad}{parts}{pad}]") }
    }
}

#[test]
fn whatever_somebody_writes_means_the_same_in_form_and_keeps_its_comments() {
    let (mut formed, mut unsure) = (0, 0);
    for seed in 0..3_000 {
        let Scribbler { text, comments, .. } = Scribbler::file(seed);
        match in_form(&text) {
            Ok(once) => {
                formed += 1;
                let twice = in_form(&once).unwrap_or_else(|error| panic!("{seed}: {error:?}\n{text}\n==\n{once}"));
                assert_eq!(twice, once, "{seed}: not the same a second time\n{text}");
                let ends: Vec<&str> = comments.iter().map(String::as_str).filter(|comment| once.matches(*comment).count() != 1).collect();
                assert!(ends.is_empty(), "{seed}: {ends:?} are lost or doubled\n{text}\n==\n{once}");
                assert!(!once.lines().any(|line| line.ends_with(' ')) && !once.contains("\n\n\n"), "{seed}\n{once}");
                // conditions are written otherwise, and nothing else
                let plain = |text: &str| said(text).replace("a && !b", "a and not b");
                assert_eq!(plain(&once), plain(&text), "{seed}\n{text}\n==\n{once}");
            }
            Err(Unformatted::Unsure) => unsure += 1,
            Err(Unformatted::Broken(findings)) => panic!("{seed}: the scribbler wrote what cannot be read: {findings:?}\n{text}"),
        }
    }
    assert!(unsure * 50 < formed, "{unsure} of {} files were left alone", unsure + formed);
}

// ----------------------------------------------------------------------------------------------------------------- the command

fn fmt(args: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rekindle")).arg("fmt").args(args).current_dir(dir).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn fmt_writes_what_differs_and_check_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| -> PathBuf { dir.path().join("rules").join(name) };
    fs::create_dir_all(file("")).expect("a directory");
    let (fine, differs, broken) = ("rekindle: 1\nsegments: {}\n", "rekindle: 1\nsegments: { }\n", "rekindle: 1\nsegments: {\n");
    fs::write(file("fine.yaml"), fine).expect("a file");
    fs::write(file("differs.yaml"), differs).expect("a file");
    let (code, out, _) = fmt(&["--check"], dir.path());
    assert_eq!((code, out.as_str()), (Some(1), "rules/differs.yaml\n2 files, 1 not in form, 0 left alone\n"));
    assert_eq!(fs::read_to_string(file("differs.yaml")).expect("the file"), differs);
    let (code, out, _) = fmt(&[], dir.path());
    assert_eq!((code, out.as_str()), (Some(0), "rules/differs.yaml\n2 files, 1 brought into form, 0 left alone\n"));
    assert_eq!(fs::read_to_string(file("differs.yaml")).expect("the file"), fine);
    assert_eq!(fmt(&["--check"], dir.path()).0, Some(0));

    fs::write(file("broken.yaml"), broken).expect("a file");
    let (code, _, err) = fmt(&[], dir.path());
    assert_eq!(code, Some(1));
    assert!(err.contains("rules/broken.yaml: left as it is") && err.contains("RK0100"), "{err}");
    assert_eq!(fs::read_to_string(file("broken.yaml")).expect("the file"), broken);
}

#[test]
fn fmt_is_a_filter_for_editors() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args(["fmt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"rekindle: 1\nrules:\n- id: a\n").expect("it listens");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "rekindle: 1\nrules:\n  - id: a\n");
}
