//! docs/codes.md: each code of a finding has a page, and what the pages show as bad and as mended is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rekindle::channel;
use rekindle::engine::rule::check::load;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::rulebook::Rulebook;
use rekindle::rulebook::rule_tests::run_tests;
use rekindle::settings::Settings;

use crate::rules;

struct Page {
    code: String,
    /// As docs/rules.md has it.
    title: String,
    paragraphs: usize,
    bad: Vec<Example>,
    mended: Vec<Example>,
}

/// A block of a page.
#[derive(Clone)]
struct Example {
    /// None: a rule file, or keys of a rule.
    path: Option<String>,
    /// Files of the shop that it stands in for.
    without: Vec<String>,
    text: String,
}

fn pages() -> Vec<Page> {
    let text = fs::read_to_string("docs/codes.md").expect("the pages");
    text.split("\n## ").skip(1).map(page).collect()
}

fn page(section: &str) -> Page {
    let (heading, body) = section.split_once('\n').expect("a heading");
    let (code, title) = heading.split_once(": ").expect("a code and what it is");
    let (code, title) = match code.strip_suffix(" (warning)") {
        Some(code) => (code, format!("*warning*: {title}")),
        None => (code, title.to_owned()),
    };
    let (said, examples) = body.split_once("\nBad:\n").unwrap_or_else(|| panic!("{code} shows nothing bad"));
    let (bad, mended) = examples.split_once("\nMended").unwrap_or_else(|| panic!("{code} shows nothing mended"));
    let paragraphs = said.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()).count();
    let bad = blocks(bad);
    let mut after = blocks(mended);
    if mended.starts_with(", the files of the rules as above:") {
        let is_of_rules = |example: &&Example| example.path.as_deref() != Some("rekindle.yaml");
        after.extend(bad.iter().filter(is_of_rules).cloned());
    }
    Page { code: code.to_owned(), title, paragraphs, bad, mended: after }
}

fn blocks(text: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut path = None;
    let mut parts = text.split("```");
    while let Some(before) = parts.next() {
        path = before.lines().find_map(|line| line.strip_prefix('`')?.strip_suffix("`:").map(str::to_owned)).or(path.take());
        let Some((info, text)) = parts.next().and_then(|block| block.split_once('\n')) else { break };
        let without = info.split_once("without=").map(|(_, names)| names.split(',').map(str::to_owned).collect());
        found.push(Example { path: path.take(), without: without.unwrap_or_default(), text: text.to_owned() });
    }
    found
}

/// A rule file made of an example: as it is, with its format version, or with the rest of the rule that it leaves out.
pub fn whole(text: &str) -> String {
    let keys: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with([' ', '\t', '#', '-'])).filter_map(|l| l.split(':').next()).collect();
    if keys.contains("rekindle") {
        return text.to_owned();
    }
    if keys.iter().any(|key| ["events", "attributes", "features", "segments", "rules", "policy", "program", "tests"].contains(key)) {
        return format!("rekindle: 1\n{text}");
    }
    let has_trigger = ["when", "event", "at"].iter().any(|key| keys.contains(key));
    let mut rule = String::from("rekindle: 1\nrules:\n  - id: example\n    owner: crm\n");
    if !has_trigger {
        rule.push_str("    when: days_silent >= 30\n");
    }
    if !keys.contains("existing") && (keys.contains("when") || !has_trigger) {
        rule.push_str("    existing: skip\n");
    }
    text.lines().for_each(|line| rule.push_str(&format!("    {line}\n")));
    if !keys.contains("steps") {
        rule.push_str("    steps: [{ id: tell, send: { template: plain, channels: [email] } }]\n");
    }
    rule
}

/// The codes of everything that is found in an example.
fn found(examples: &[Example]) -> BTreeSet<String> {
    let mut sources = rules::base(|name| !examples.iter().any(|example| example.without.iter().any(|left| left == name)));
    let mut settings = None;
    for example in examples {
        match example.path.as_deref() {
            Some("rekindle.yaml") => settings = Some(example.text.clone()),
            Some(path) => sources.push(SourceFile { path: Arc::from(path), text: Arc::from(&*example.text) }),
            None => sources.push(SourceFile { path: Arc::from("example.yaml"), text: Arc::from(whole(&example.text)) }),
        }
    }
    let settings = match settings.map(|text| settings_of(&text)) {
        Some(Err(codes)) => return codes,
        Some(Ok(_)) if examples.len() == 1 => return BTreeSet::new(),
        Some(Ok(settings)) => Some(settings),
        None => None,
    };
    let has_templates = sources.iter().any(|source| source.path.starts_with("templates/"));
    let has_tests = sources.iter().any(|source| source.text.contains("\ntests:"));
    if !has_templates && !has_tests && settings.is_none() {
        return load(&sources, &rules::catalog()).diagnostics.iter().map(|finding| finding.code.to_owned()).collect();
    }
    let book = Rulebook::of(sources);
    let mut codes: BTreeSet<String> = book.diagnostics().iter().map(|finding| finding.code.to_owned()).collect();
    if let (Some(settings), Some(set)) = (settings, book.set()) {
        codes.extend(channel::lacking(&settings, &set).iter().map(|finding| finding.code.to_owned()));
    }
    let outcome = run_tests(&book, None);
    let of_tests = outcome.errors.iter().chain(outcome.tests.iter().flat_map(|test| &test.failures));
    codes.extend(of_tests.map(|finding| finding.code.to_owned()));
    codes
}

/// The administrator's file of an example, or the codes of what is wrong with it.
fn settings_of(text: &str) -> Result<Settings, BTreeSet<String>> {
    let secrets = tempfile::tempdir().expect("a directory");
    for name in ["links.key", "dkim.pem"] {
        fs::write(secrets.path().join(name), "sixteen bytes or more of chance").expect("a file");
    }
    let text = text.replace("/etc/rekindle", &secrets.path().display().to_string());
    Settings::read("rekindle.yaml", &text).map_err(|error| {
        let said = error.to_string();
        said.match_indices("[RK").filter_map(|(at, _)| said.get(at + 1..at + 7)).map(str::to_owned).collect()
    })
}

#[test]
fn every_code_has_a_page_and_a_line_in_the_docs_that_agree() {
    let table = fs::read_to_string("docs/rules.md").expect("the page");
    let rows: BTreeSet<(String, String)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| RK")?.strip_suffix(" |")?.split_once(" | "))
        .map(|(number, title)| (format!("RK{number}"), title.to_owned()))
        .collect();
    let told: BTreeSet<(String, String)> = pages().into_iter().map(|page| (page.code, page.title)).collect();
    assert_eq!(told.difference(&rows).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "pages that docs/rules.md tells otherwise");
    assert_eq!(rows.difference(&told).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "codes of docs/rules.md without such a page");
    let in_source = codes_of(Path::new("src"));
    let codes: BTreeSet<String> = told.into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, in_source, "the pages and the codes of the source");
}

fn codes_of(dir: &Path) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            codes.extend(codes_of(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).expect("a source");
            codes.extend(text.match_indices("\"RK0").filter_map(|(at, _)| text.get(at + 1..at + 7)).map(str::to_owned));
        }
    }
    codes
}

#[test]
fn what_a_page_shows_as_bad_is_and_what_it_shows_as_mended_is_not() {
    let mut wrong = Vec::new();
    for page in pages() {
        assert!(page.paragraphs >= 2, "{}: what happened, and why it matters", page.code);
        let bad = found(&page.bad);
        if bad != BTreeSet::from([page.code.clone()]) {
            wrong.push(format!("{}: the bad example has {bad:?}", page.code));
        }
        let mended = found(&page.mended);
        if !mended.is_empty() {
            wrong.push(format!("{}: the mended example has {mended:?}", page.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn explain_code_prints_a_page_lists_all_and_suggests_the_nearest() {
    let explain = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_rekindle")).arg("explain-code").args(args).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = explain(&["rk0207"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("RK0207: what can be missing") && out.contains("\n    when: (churn_score ?? 0.0) > 0.7\n"), "{out}");
    let (code, out, _) = explain(&[]);
    assert_eq!((code, out.lines().count()), (Some(0), pages().len()));
    let (code, _, err) = explain(&["RK0206"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("there is no code `RK0206`; did you mean `RK0"), "{err}");
}
