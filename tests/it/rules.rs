//! Rule files: the good ones load as one set, each bad one is told off exactly as the text beside it says.
//!
//! A bad file is loaded together with the shop's events, program and policy of `good/`, but for those that its first line leaves out
//! (`# without: policy.yaml`). `UPDATE=1 cargo test --test it rules::` rewrites the expected texts: read what changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekindle::engine::action::Channel;
use rekindle::engine::profile::Name;
use rekindle::engine::rule::check::load;
use rekindle::engine::rule::diagnostic::{Diagnostic, SourceFile};
use rekindle::engine::rule::syntax::{self, Kind, Node};
use rekindle::engine::rule::{TemplateCatalog, TemplateInfo};
use rekindle::rulebook::Rulebook;
use serde::Deserialize;
use serde_yaml::Value as Yaml;

const GOOD: &str = "tests/data/rules/good";
const BAD: &str = "tests/data/rules/bad";
/// What a bad file stands beside, unless it says otherwise.
const BASE: [&str; 3] = ["policy.yaml", "program.yaml", "shop.yaml"];

#[derive(Deserialize)]
struct TemplateLine {
    purpose: String,
    #[serde(default)]
    has_offer: bool,
    #[serde(default)]
    has_notice: bool,
    locales: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    variables: Vec<String>,
}

/// The templates of `tests/data/rules/templates.yaml`.
pub fn catalog() -> TemplateCatalog {
    let text = fs::read_to_string("tests/data/rules/templates.yaml").expect("the templates");
    let lines: BTreeMap<String, TemplateLine> = serde_yaml::from_str(&text).expect("the templates are YAML");
    let info = |line: TemplateLine| {
        let channels = |names: Vec<String>| names.iter().map(|name| Channel::named(name).expect("a channel")).collect();
        TemplateInfo {
            purpose: Name::from(line.purpose),
            locales: line.locales.keys().map(|locale| Name::from(&**locale)).collect(),
            variables: line.variables.iter().map(|name| Name::from(&**name)).collect(),
            has_offer: line.has_offer,
            has_notice: line.has_notice,
            channels_per_locale: line.locales.into_iter().map(|(locale, names)| (Name::from(locale), channels(names))).collect(),
            ..TemplateInfo::default()
        }
    };
    lines.into_iter().map(|(name, line)| (Name::from(name), info(line))).collect()
}

/// The shop that examples stand beside, but for what they replace.
pub fn base(wanted: impl Fn(&str) -> bool) -> Vec<SourceFile> {
    BASE.iter().filter(|name| wanted(name)).map(|name| source(&Path::new(GOOD).join(name))).collect()
}

/// All files of the good set.
pub fn good() -> Vec<SourceFile> {
    yaml_files(GOOD).iter().map(|path| source(path)).collect()
}

pub fn yaml_files(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory of rule files");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    paths.sort();
    paths
}

fn source(path: &Path) -> SourceFile {
    let name = path.file_name().expect("a file").to_string_lossy();
    SourceFile { path: Arc::from(name), text: Arc::from(fs::read_to_string(path).expect("a readable file")) }
}

fn rendered(findings: &[Diagnostic], sources: &[SourceFile]) -> String {
    let mut text = String::new();
    for finding in findings {
        writeln!(text, "{}\n", finding.render(sources, "")).expect("a string takes everything");
    }
    text.trim_end().to_owned() + "\n"
}

#[test]
fn the_good_files_make_one_set() {
    let sources = good();
    let loaded = load(&sources, &catalog());
    let errors: Vec<Diagnostic> = loaded.diagnostics.iter().filter(|finding| finding.is_error()).cloned().collect();
    assert!(errors.is_empty(), "{}", rendered(&errors, &sources));
    let set = loaded.set.expect("a set without errors");
    assert!(set.rules.len() >= 10, "{} rules", set.rules.len());
}

#[test]
fn every_bad_file_is_told_off_as_the_text_beside_it_says() {
    let catalog = catalog();
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let paths = yaml_files(BAD);
    assert!(paths.len() >= 45, "only {} bad files", paths.len());
    for path in paths {
        let bad = source(&path);
        let left_out = bad.text.lines().next().and_then(|line| line.strip_prefix("# without: ")).unwrap_or_default().to_owned();
        let mut sources = base(|name| !left_out.split(' ').any(|out| out == name));
        sources.push(bad);
        let loaded = load(&sources, &catalog);
        assert_eq!(loaded.set.is_some(), !loaded.diagnostics.iter().any(Diagnostic::is_error), "{}", path.display());
        if loaded.diagnostics.is_empty() {
            wrong.push(format!("== {} is found to be good", path.display()));
            continue;
        }
        let found = rendered(&loaded.diagnostics, &sources);
        let beside = path.with_extension("txt");
        if update {
            fs::write(&beside, &found).expect("the expected text is written");
        } else if fs::read_to_string(&beside).unwrap_or_default() != found {
            wrong.push(format!("== {}\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Two parsers, one tree: what ours makes of a file is what serde_yaml does.
#[test]
fn the_tree_equals_that_of_another_parser() {
    let shipped = rule_files_below(Path::new("rules"));
    for path in yaml_files(GOOD).into_iter().chain(shipped) {
        let text = fs::read_to_string(&path).expect("a readable file");
        let (node, findings) = syntax::parse(&Arc::from(path.to_string_lossy()), &text);
        assert!(findings.is_empty(), "{}: {findings:?}", path.display());
        let other: Yaml = serde_yaml::from_str(&text).expect("YAML");
        let node = node.expect("a tree");
        same(&node, &other).unwrap_or_else(|place| panic!("{}: {place}", path.display()));
    }
}

pub fn rule_files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(rule_files_below(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "yaml") {
            found.push(entry);
        }
    }
    found
}

fn same(ours: &Node, theirs: &Yaml) -> Result<(), String> {
    let differs = || format!("line {}: {ours:?} is not {theirs:?}", ours.place.line);
    match (&ours.kind, theirs) {
        (Kind::Mapping(entries), Yaml::Mapping(mapping)) if entries.len() == mapping.len() => {
            for (entry, (key, value)) in entries.iter().zip(mapping) {
                if key.as_str() != Some(&entry.key.text) {
                    return Err(differs());
                }
                same(&entry.value, value)?;
            }
            Ok(())
        }
        (Kind::Sequence(items), Yaml::Sequence(sequence)) if items.len() == sequence.len() => {
            items.iter().zip(sequence).try_for_each(|(item, value)| same(item, value))
        }
        (Kind::Scalar(scalar), Yaml::String(text)) if *text == *scalar.text => Ok(()),
        (Kind::Scalar(scalar), value) if scalar.is_plain => {
            let alone: Yaml = serde_yaml::from_str(&scalar.text).map_err(|_| differs())?;
            if alone == *value { Ok(()) } else { Err(differs()) }
        }
        _ => Err(differs()),
    }
}

#[test]
fn comments_and_formatting_do_not_change_a_version_and_a_number_does() {
    let of = |text: &str| {
        let files = [SourceFile { path: Arc::from("a.yaml"), text: Arc::from(text) }];
        load(&files, &TemplateCatalog::new()).set.expect("a good set").version
    };
    let plain = "rekindle: 1\nattributes:\n  size: { type: int, default: 3 }\n";
    let formatted = "# sizes\nrekindle: 1\nattributes:\n  size:\n    default: 3 # three\n    type: int\n";
    assert_eq!(of(plain), of(formatted));
    assert_ne!(of(plain), of(&plain.replace('3', "4")));
}

#[test]
fn the_shipped_pack_has_no_findings() {
    let book = Rulebook::open(Path::new("rules")).expect("the shipped rules");
    assert!(book.diagnostics().is_empty(), "{}", rendered(book.diagnostics(), book.sources()));
    assert!(book.set().is_some_and(|set| set.rules.len() >= 12));
}

/// Whatever somebody types, the answer is findings with places that exist, never a crash.
#[test]
fn no_slip_of_the_keyboard_crashes_the_check() {
    let catalog = catalog();
    let good = good();
    let base: Vec<SourceFile> = good.iter().filter(|file| BASE.contains(&&*file.path)).cloned().collect();
    let mut seed = 7u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below.max(1)
    };
    let slips = [
        "",
        " ",
        "\n",
        ":",
        "- ",
        "'",
        "\"",
        "{",
        "]",
        "&x ",
        "!",
        "|\n",
        "\t",
        "0",
        "老",
        "%",
        "~",
        "\u{0}",
        "\r",
        "#",
        "99999999999999999999d",
    ];
    for round in 0..400 {
        let file = &good[round % good.len()];
        let mut chars: Vec<char> = file.text.chars().collect();
        for _ in 0..=next(3) {
            let at = next(chars.len());
            let until = (at + next(4)).min(chars.len());
            chars.splice(at..until, slips[next(slips.len())].chars());
        }
        let text: String = chars.into_iter().collect();
        let mut sources: Vec<SourceFile> = base.iter().filter(|other| other.path != file.path).cloned().collect();
        sources.push(SourceFile { path: file.path.clone(), text: Arc::from(text.as_str()) });
        let loaded = load(&sources, &catalog);
        for finding in &loaded.diagnostics {
            let text = &sources.iter().find(|source| source.path == finding.place.file).expect("a file that was given").text;
            // a lone carriage return ends a line for YAML
            let lines = text.split(['\n', '\r']).count();
            assert!(finding.place.line as usize <= lines + 1, "{finding:?} in\n{text}");
            finding.render(&sources, "");
        }
    }
}

// --------------------------------------------------------------------------------------------------------------- the command

fn check(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rekindle")).arg("check").arg(dir).args(more).output().expect("the command runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("a file");
    }
    dir
}

#[test]
fn check_ends_with_0_1_or_2() {
    let good = directory(&[("a.yaml", b"rekindle: 1\nattributes:\n  size: { type: int, default: 3 }\n")]);
    let (code, out, _) = check(good.path(), &[]);
    assert_eq!((code, out.as_str()), (Some(0), "0 rules, 0 templates, no findings\n"));

    let bad = directory(&[("sub/a.yaml", b"rekindle: 1\nrule: []\n")]);
    let (code, out, _) = check(bad.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("sub/a.yaml:2:1") && out.contains("did you mean `rules`?") && out.ends_with("1 error\n"), "{out}");

    let (code, _, err) = check(&bad.path().join("nowhere"), &[]);
    assert_eq!(code, Some(2));
    assert!(err.contains("cannot read"), "{err}");
    let (code, _, err) = check(directory(&[("readme.md", b"hello")]).path(), &[]);
    assert_eq!(code, Some(2));
    assert!(err.contains("no rule files"), "{err}");
}

#[test]
fn check_speaks_json() {
    let bad = directory(&[("a.yaml", b"rekindle: 1\nrule: []\n")]);
    let (code, out, _) = check(bad.path(), &["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, Some(1));
    assert_eq!(json["errors"], 1);
    let finding = &json["findings"][0];
    assert_eq!((finding["code"].as_str(), finding["line"].as_i64(), finding["column"].as_i64()), (Some("RK0101"), Some(2), Some(1)));
}

#[test]
fn check_marks_pull_requests_and_speaks_sarif() {
    let bad = directory(&[("a.yaml", b"rekindle: 1\nrule: []\n")]);
    let at = bad.path().join("a.yaml").display().to_string();
    let (code, out, _) = check(bad.path(), &["--format", "github"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        out,
        format!("::error file={at},line=2,col=1,endColumn=5,title=RK0101::unknown section `rule`%0Ahelp: did you mean `rules`?\n")
    );
    let (code, out, _) = check(bad.path(), &["--format", "sarif"]);
    let sarif: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, sarif["version"].as_str(), sarif["runs"][0]["results"][0]["ruleId"].as_str()),
        (Some(1), Some("2.1.0"), Some("RK0101"))
    );
}

/// It checks again as soon as a file is other than before, and Ctrl-C ends it with the latest answer.
#[test]
fn check_watches_until_it_is_told_to_stop() {
    let dir = directory(&[("a.yaml", b"rekindle: 1\nsegments: {}\n")]);
    let mut watching = Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args(["check", "--watch"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command runs");
    let out = BufReader::new(watching.stdout.take().expect("a pipe"));
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let said = |wanted: &str| loop {
        let line = lines.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("it never said `{wanted}`"));
        if line.ends_with(wanted) {
            break;
        }
    };
    said("no findings");
    fs::write(dir.path().join("a.yaml"), "rekindle: 1\nsegment: {}\n").expect("a file");
    said("1 error");
    fs::write(dir.path().join("a.yaml"), "rekindle: 1\nsegments: {}\n").expect("a file");
    said("no findings");
    fs::write(dir.path().join("b.yaml"), "rekindle: 1\nsegment: {}\n").expect("a file");
    said("1 error");
    let told = Command::new("kill").arg("-INT").arg(watching.id().to_string()).status().expect("it runs");
    assert!(told.success());
    assert!(lines.recv_timeout(Duration::from_secs(60)).is_err(), "it goes on after Ctrl-C");
    assert_eq!(watching.wait().expect("an end").code(), Some(1));
}

#[test]
fn a_file_of_50_mb_is_answered_at_once() {
    let dir = directory(&[("a.yaml", b"rekindle: 1\nrule: []\n")]);
    let mut file = fs::File::create(dir.path().join("big.yaml")).expect("a file");
    let line = b"- [x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x]\n";
    let chunk: Vec<u8> = line.repeat(10_000);
    for _ in 0..50 {
        file.write_all(&chunk).expect("fifty megabytes");
    }
    drop(file);
    let started = Instant::now();
    let book = Rulebook::open(dir.path()).expect("a directory");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let codes: Vec<_> = book.diagnostics().iter().map(|finding| (finding.code, &*finding.place.file)).collect();
    assert_eq!(codes, [("RK0101", "a.yaml"), ("RK0100", "big.yaml")], "the large file hides no other");
    assert!(book.set().is_none());
}

#[test]
fn what_is_no_text_is_said_to_be_none() {
    let dir = directory(&[("a.yaml", b"rekindle: 1\nrules: [\xff]\n")]);
    let (code, out, _) = check(dir.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("not UTF-8") && out.contains("line 2"), "{out}");
}
