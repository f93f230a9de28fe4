//! The shipped rule pack: what a new user meets first must be sound, in every language it claims to speak.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rekindle::engine::features::{BUILT_INS, FUNCTIONS, Read};
use rekindle::message::Templates;
use rekindle::telemetry::Metrics;

fn rules_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).expect("a readable folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

fn pack_files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    files_below(&rules_dir(), &mut files);
    let relative = |path: &PathBuf| path.strip_prefix(rules_dir()).expect("below rules").to_string_lossy().into_owned();
    files.iter().map(|path| (relative(path), fs::read_to_string(path).expect("readable text"))).collect()
}

#[test]
fn every_template_is_sound_and_speaks_two_languages() {
    let files: Vec<_> = pack_files().into_iter().filter(|(path, _)| path.starts_with("templates/")).collect();
    let (templates, faults) = Templates::parse(&files);
    assert_eq!(faults, []);
    assert!(templates.iter().count() >= 12);
    for (name, template) in templates.iter() {
        let (en, de) = (template.info.channels_per_locale.get("en"), template.info.channels_per_locale.get("de"));
        assert!(en.is_some() && en == de, "{name}: the same channels in both languages");
    }
}

#[test]
fn no_template_is_left_that_no_rule_sends() {
    let files = pack_files();
    let is_rule = |path: &str| path.ends_with(".yaml") && !path.ends_with(".test.yaml") && !path.starts_with("templates/");
    let rules: String = files.iter().filter(|(path, _)| is_rule(path)).map(|(_, text)| text.as_str()).collect();
    let templates: BTreeSet<&str> = files.iter().filter_map(|(path, _)| path.strip_prefix("templates/")?.split('/').next()).collect();
    for name in templates {
        assert!(rules.contains(&format!("template: {name},")), "{name}");
    }
}

#[test]
fn every_rule_file_has_its_test_beside_it() {
    let files = pack_files();
    let paths: BTreeSet<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    let with_rules =
        files.iter().filter(|(path, text)| path.ends_with(".yaml") && !path.ends_with(".test.yaml") && text.contains("\nrules:"));
    for (path, _) in with_rules {
        let test = path.replace(".yaml", ".test.yaml");
        assert!(paths.contains(test.as_str()), "{path} has no {test}");
    }
}

/// What README and docs quote from a file says so (`<!-- file: PATH -->` before the block), and is what the file says.
#[test]
fn what_the_docs_quote_is_what_the_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut quoted = 0;
    for page in ["README.md", "docs/rules.md", "docs/operating.md"] {
        for block in read(page).split("<!-- file: ").skip(1) {
            let (path, rest) = block.split_once(" -->\n").expect("the mark ends its line");
            let body = rest.split("```").nth(1).and_then(|fenced| fenced.split_once('\n')).expect("a block follows the mark").1;
            assert!(read(path).contains(body), "{page} quotes {path} as it is not:\n{body}");
            quoted += 1;
        }
    }
    assert!(quoted >= 4, "{quoted} quotes");
}

/// docs/rules.md lists every name and function with what the engine itself says of it, and those that are still to come.
#[test]
fn the_docs_list_every_name_that_conditions_may_use() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md")).expect("the page");
    let conditions = page.split_once("\n## Conditions\n").expect("the section on conditions").1;
    let (available, later) = conditions.split_once("## Not yet available").expect("the last section");
    for name in &BUILT_INS {
        match name.read {
            Read::Later => assert!(later.contains(&format!("`{}`", name.name)), "{} is still to come", name.name),
            _ => {
                let row = available.lines().find(|line| line.starts_with(&format!("| `{}` |", name.name)));
                let row = row.unwrap_or_else(|| panic!("docs/rules.md has no row for `{}`", name.name));
                assert!(row.ends_with(&format!("| {} |", name.doc)), "{row}\nthe engine says: {}", name.doc);
                assert_eq!(row.contains(", opt."), name.optional, "{row}");
            }
        }
    }
    for function in &FUNCTIONS {
        let row = format!("| `{}` | {} |", function.form, function.doc);
        let listed = if function.available { available.contains(&row) } else { later.contains(&format!("`{}`", function.name)) };
        assert!(listed, "docs/rules.md lacks {row}");
    }
}

/// Every figure of `/metrics` stands in docs/operating.md, and no other.
#[test]
fn the_docs_list_every_figure() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md")).expect("the page");
    let section = page.split_once("\n## Figures\n").expect("the section on figures").1.split("\n## ").next().expect("its text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `rekindle_"));
    let told: BTreeSet<String> = rows.filter_map(|row| Some(format!("rekindle_{}", row.split_once('`')?.0))).collect();
    let there: BTreeSet<String> = Metrics::default().names().iter().cloned().collect();
    assert_eq!(told, there);
}

/// Every code that a finding may have stands in docs/rules.md with what it means.
#[test]
fn the_docs_list_every_code_of_a_finding() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/rules.md")).expect("the page");
    let mut files = Vec::new();
    files_below(&root.join("src"), &mut files);
    let mut codes = BTreeSet::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(path).expect("a source");
        codes.extend(text.match_indices("\"RK0").filter_map(|(at, _)| text.get(at + 1..at + 7)).map(str::to_owned));
    }
    assert!(codes.len() > 40, "{codes:?}");
    let lacking: Vec<&String> = codes.iter().filter(|code| !page.contains(&format!("| {code} |"))).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

/// Every setting stands in docs/operating.md with the default that is built in, and no other.
#[test]
fn the_docs_list_every_setting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/operating.md")).expect("the page");
    let section = page.split_once("\n## Configuration\n").expect("the section").1.split("\n## ").next().expect("its text");
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| line.trim_matches('|').split('|').collect::<Vec<_>>());
    let told: BTreeSet<(String, String)> = rows.map(|row| (cell(row[0]), cell(row.last().expect("a default")))).collect();
    let defaults: serde_yaml::Value = serde_yaml::from_str(rekindle::settings::DEFAULTS).expect("YAML");
    assert_eq!(told, leaves("", &defaults).into_iter().collect::<BTreeSet<_>>());
}

fn leaves(within: &str, value: &serde_yaml::Value) -> Vec<(String, String)> {
    match value.as_mapping().filter(|fields| !fields.is_empty()) {
        Some(fields) => fields
            .iter()
            .flat_map(|(key, value)| {
                let key = key.as_str().expect("a name");
                leaves(&if within.is_empty() { key.to_owned() } else { format!("{within}.{key}") }, value)
            })
            .collect(),
        None if value.is_mapping() => vec![(within.to_owned(), "{}".to_owned())],
        None => vec![(within.to_owned(), serde_yaml::to_string(value).expect("a value").trim().trim_matches('\'').to_owned())],
    }
}

/// docs/threats.md names the test that shows each defence: every one of them is there.
#[test]
fn the_threats_name_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/threats.md")).expect("the page");
    let mut files = Vec::new();
    files_below(&root.join("tests/it"), &mut files);
    files_below(&root.join("src"), &mut files);
    let sources: String = files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let last_cells = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.trim_end_matches('|').rsplit('|').next());
    let named: Vec<&str> = last_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(named.len() > 35, "{}", named.len());
    for name in named {
        let is_there = match name.strip_suffix("...") {
            _ if name.contains('/') => root.join(name).exists(),
            Some(beginning) => sources.contains(&format!("fn {beginning}")),
            None => sources.contains(&format!("fn {}(", name.rsplit("::").next().unwrap_or(name))),
        };
        assert!(is_there, "docs/threats.md names `{name}`, and there is no such test");
    }
}

/// docs/providers.md has a section for each way out, with how to try it.
#[test]
fn the_docs_tell_how_to_try_every_provider() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/providers.md")).expect("the page");
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    // the gateway of one's own is named as the file that it begins with
    let shipped = rekindle::channel::http::provider::shipped().map(|(name, _)| match name {
        "sms-gateway" => "config/providers/sms-gateway.yaml".to_owned(),
        name => format!("file: {name}"),
    });
    for mark in shipped.iter().map(String::as_str).chain(["kind: smtp", "kind: webhook", "kind: fcm"]) {
        let section = sections.iter().find(|section| section.contains(mark)).unwrap_or_else(|| panic!("no section says `{mark}`"));
        assert!(section.contains("**Try it**"), "how is `{mark}` tried?");
    }
}
