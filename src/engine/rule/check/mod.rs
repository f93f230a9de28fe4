//! From files to a rule set: everything that is wrong with any of them is said at once, with its place and a remedy. A set comes out
//! only if nothing is.
//!
//! The order is that of dependence: events and attributes, the policy, the program, features and segments (each after what it refers
//! to), then the rules, each for itself. What the language has and this version does not carry out is refused by name (RK0199).

mod condition;
mod derive;
mod dictionary;
pub mod engine_events;
mod ladder;
mod lists;
mod policy;
mod program;
mod read;
mod rules;
mod steps;
mod templates;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use twox_hash::XxHash3_64;

use self::condition::Compiler;
use self::derive::Texts;
use self::lists::Lists;
pub use self::lists::is_list;
use self::read::Findings;
use super::diagnostic::{Diagnostic, SourceFile};
use super::language::FILE;
use super::suggest::nearest;
use super::syntax::{self, Entry, Kind, Node};
use super::{Dictionary, Place, Policy, Rule, RuleSet, TemplateCatalog};
use crate::engine::profile::{Category, Name};

/// The version of the format that this program reads.
const FORMAT: &str = "1";

/// What came of the files.
#[derive(Debug)]
pub struct Loaded {
    /// None if there is any error.
    pub set: Option<RuleSet>,
    /// By file, line and column.
    pub diagnostics: Vec<Diagnostic>,
    /// The lists under `tests`, with the index of their file.
    pub tests: Vec<(usize, Node)>,
}

/// Reads, checks and compiles all files as one set.
pub fn load(files: &[SourceFile], templates: &TemplateCatalog) -> Loaded {
    let findings = Findings::default();
    let (roots, lists) = roots(files, &findings);
    let set = set(&roots, &lists, templates, &findings, Reading::AllOrNothing);
    let tests = roots.iter().filter_map(|(index, root)| Some((*index, root.get("tests")?.clone()))).collect();
    let set = (findings.errors() == 0).then(|| RuleSet { files: files.into(), ..set });
    Loaded { set, diagnostics: findings.into_sorted(), tests }
}

/// An older set as the runs that began with it go by it: its rules with its segments, read under the present events, attributes,
/// features, policy, program and templates. A rule that these leave without a meaning keeps the one it had; the second value names such
/// rules.
pub fn under_present(older: &RuleSet, present: &RuleSet) -> (RuleSet, Vec<Name>) {
    // findings were told as each set was loaded
    let unheard = Findings::default();
    let mut lists = Lists::new();
    let mut read = |files: &[SourceFile], wanted: fn(&str) -> bool| -> Vec<(usize, Node)> {
        let (roots, named) = roots(files, &unheard);
        lists.extend(named);
        roots.into_iter().map(|(index, root)| (index, root.with_keys(wanted))).collect()
    };
    // the first of two segments of one name counts
    let mut roots = read(&older.files, |section| matches!(section, "rules" | "segments"));
    roots.extend(read(&present.files, |section| !matches!(section, "rules" | "tests")));
    let found = set(&roots, &lists, &present.templates, &unheard, Reading::EachRule);
    let is_missing = |rule: &&Rule| found.rule(&rule.id).is_none();
    let kept: Vec<Name> = older.rules.iter().filter(is_missing).map(|rule| rule.id.clone()).collect();
    let mut rules = found.rules;
    if !kept.is_empty() {
        let as_they_were = load(&older.files, &older.templates).set.map(|set| set.rules).unwrap_or_default();
        rules.extend(as_they_were.into_iter().filter(|rule| kept.contains(&rule.id)));
    }
    (RuleSet { version: older.version, rules, files: older.files.clone(), templates: older.templates.clone(), ..found }, kept)
}

/// What stands in the rule files, each with its place among the files, and the lists that they name.
fn roots(files: &[SourceFile], findings: &Findings) -> (Vec<(usize, Node)>, Lists) {
    let rule_files = files.iter().enumerate().filter(|(_, file)| !is_list(&file.path));
    let mut roots: Vec<(usize, Node)> = rule_files.filter_map(|(index, file)| Some((index, root(file, findings)?))).collect();
    let lists = lists::resolve(&mut roots, files, findings);
    (roots, lists)
}

/// The mapping at the top of a file.
fn root(file: &SourceFile, findings: &Findings) -> Option<Node> {
    let (node, found) = syntax::parse(&file.path, &file.text);
    let is_sound = found.is_empty();
    findings.extend(found);
    let whole = Place { file: file.path.clone(), line: 0, column: 0 };
    let Some(node) = node else {
        if is_sound {
            let finding = Diagnostic::error("RK0102", whole, "the file is empty");
            findings.add(finding.help("write `rekindle: 1` and a section, or remove the file"));
        }
        return None;
    };
    let Some(entries) = node.entries() else {
        let help = "a file is a mapping of sections: `rekindle: 1`, `rules:` ...".to_owned();
        findings.wrong(&node, format!("{} stands here, sections are expected", node.described()), help);
        return None;
    };
    match node.get("rekindle") {
        Some(version) if version.text() == Some(FORMAT) => {}
        Some(version) => {
            let message = format!("format version `{}` is not known", version.text().unwrap_or_default());
            findings.wrong(version, message, format!("this version reads `rekindle: {FORMAT}`"));
        }
        None => {
            let finding = Diagnostic::error("RK0102", node.place.clone(), "the file does not say its format version");
            findings.add(finding.help(format!("write `rekindle: {FORMAT}` as its first line")));
        }
    }
    for entry in entries.iter().filter(|entry| !FILE.names().any(|name| name == &*entry.key.text)) {
        let key = &*entry.key.text;
        let mut finding = Diagnostic::error("RK0101", entry.key_place.clone(), format!("unknown section `{key}`")).len(key.chars().count());
        finding.help = match nearest(key, FILE.names()) {
            Some(name) => Some(format!("did you mean `{name}`?")),
            None => Some(format!("there are {}", FILE.names().collect::<Vec<_>>().join(", "))),
        };
        findings.add(finding);
    }
    Some(node)
}

/// A section of names, gathered from all files.
pub struct Section<'n> {
    entries: Vec<&'n Entry>,
    /// The same key in another file, or the same file's if it was taken already.
    again: Vec<&'n Entry>,
    /// Where the section's key stands, per file.
    places: Vec<Place>,
}

impl<'n> Section<'n> {
    fn gather(roots: &'n [(usize, Node)], name: &str, findings: &Findings) -> Self {
        let mut section = Section { entries: Vec::new(), again: Vec::new(), places: Vec::new() };
        for entry in roots.iter().filter_map(|(_, root)| root.entries()).flatten().filter(|entry| &*entry.key.text == name) {
            section.places.push(entry.key_place.clone());
            match &entry.value.kind {
                Kind::Mapping(entries) => section.take(entries),
                Kind::Refused => {}
                _ if entry.value.is_null() => {}
                _ => findings.wrong(&entry.value, format!("{} stands here, `{name}` is a mapping of names", entry.value.described()), None),
            }
        }
        section
    }

    fn take(&mut self, entries: &'n [Entry]) {
        for entry in entries {
            let taken = self.entries.iter().any(|other| other.key.text == entry.key.text);
            if taken { self.again.push(entry) } else { self.entries.push(entry) }
        }
    }

    /// One key stands in one file only.
    fn check_once(&self, findings: &Findings) {
        for entry in &self.again {
            let first = self.entries.iter().find(|other| other.key.text == entry.key.text);
            let Some(place) = first.map(|first| &first.key_place) else { continue };
            let message = format!("`{}` stands in two files; first in {}:{}", entry.key.text, place.file, place.line);
            let finding = Diagnostic::error("RK0107", entry.key_place.clone(), message).len(entry.key.text.chars().count());
            findings.add(finding.help("keep one of the two"));
        }
    }

    /// The entries, each name once.
    pub fn entries(&self) -> impl Iterator<Item = &'n Entry> {
        self.entries.iter().copied()
    }

    /// Also those whose name was taken.
    pub fn all_entries(&self) -> impl Iterator<Item = &'n Entry> {
        self.entries.iter().chain(&self.again).copied()
    }

    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries().find(|entry| &*entry.key.text == key).map(|entry| &entry.value)
    }

    /// The section as if it stood in one file; none if no file has it.
    pub fn as_node(&self) -> Option<Node> {
        let place = self.places.first()?.clone();
        Some(Node { place, kind: Kind::Mapping(self.entries.iter().map(|entry| (*entry).clone()).collect()) })
    }
}

/// What becomes of rules with an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Their findings keep the whole set from being used.
    AllOrNothing,
    /// They are left out, whatever is wrong with the rest.
    EachRule,
}

fn set(roots: &[(usize, Node)], lists: &Lists, templates: &TemplateCatalog, findings: &Findings, reading: Reading) -> RuleSet {
    let section = |name: &str| Section::gather(roots, name, findings);
    let (events, attributes, features, segments) = (section("events"), section("attributes"), section("features"), section("segments"));
    let (policy_section, program_section) = (section("policy"), section("program"));
    for once in [&events, &policy_section, &program_section] {
        once.check_once(findings);
    }
    dictionary::names_once(&attributes, &features, &segments, findings);
    refuse_sections(roots, findings);

    let mut broken: BTreeSet<Name> = BTreeSet::new();
    let mut dictionary = Dictionary::default();
    engine_events::declare(&mut dictionary);
    dictionary::events(&events, findings, &mut dictionary);
    dictionary::attributes(&attributes, findings, &mut dictionary, &mut broken);
    let mut policy = policy::policy(&policy_section, findings);
    let program = program::program(&program_section, findings, &dictionary);
    dictionary.currency = program.as_ref().map(|program| program.currency);
    if program.is_none() && !program_section.places.is_empty() {
        broken.insert(Name::from("program"));
    }
    dictionary::derived((&features, &segments, lists), findings, &mut dictionary, (&policy, program.as_ref()), &mut broken);
    if let Some(program) = &program {
        program::check_metric(&program_section, findings, &dictionary, program);
    }
    if reading == Reading::EachRule {
        // whoever uses a name without a meaning is left out, so it must be told of
        broken.clear();
    }
    let nodes = rule_nodes(roots, findings);
    let ids: Vec<Name> = nodes.iter().filter_map(|node| node.get("id")?.text()).map(Name::from).collect();
    let compiler = |policy| Compiler {
        findings,
        dictionary: &dictionary,
        policy,
        program: program.as_ref(),
        broken: &broken,
        event: None,
        steps: &[],
        rules: &ids,
    };
    let inhibit = policy::inhibit(&policy_section, &compiler(&policy));
    let texts = linked(&features, &segments, &policy_section);
    let rules = rules::rules(&nodes, &compiler(&policy), templates, &texts);
    check_consent(&policy_section, &policy, findings);
    policy.inhibit = inhibit;
    let (files, templates) = (Arc::from([]), Arc::new(templates.clone()));
    RuleSet { version: version(roots), rules, dictionary, policy, program, files, templates }
}

fn refuse_sections(roots: &[(usize, Node)], findings: &Findings) {
    for entry in roots.iter().filter_map(|(_, root)| root.entries()).flatten() {
        if let "blueprints" | "monitors" = &*entry.key.text {
            findings.add(read::not_yet(entry.key_place.clone(), &entry.key.text));
        }
    }
}

fn rule_nodes<'n>(roots: &'n [(usize, Node)], findings: &Findings) -> Vec<&'n Node> {
    let lists = roots.iter().filter_map(|(_, root)| root.get("rules")).filter(|node| !node.is_null() && !node.is_refused());
    lists
        .flat_map(|node| findings.list(node, "[{ id: ..., owner: ..., when: ..., steps: [...] }]"))
        .filter(|node| !node.is_refused())
        .collect()
}

/// What conditions may lead on to, by name.
fn linked<'n>(features: &Section<'n>, segments: &Section<'n>, policy: &Section<'n>) -> Texts<'n> {
    let declared = features.entries().chain(segments.entries()).map(|entry| (&*entry.key.text, &entry.value)).collect();
    let calendars = policy.get("calendars").and_then(Node::entries).unwrap_or_default();
    Texts { declared, calendars: calendars.iter().map(|entry| (&*entry.key.text, &entry.value)).collect::<BTreeMap<_, _>>() }
}

/// Somebody must have said what is needed before a marketing message. A `consent` that lacks it is reported where it stands.
fn check_consent(section: &Section<'_>, policy: &Policy, findings: &Findings) {
    let is_said = policy.consent.contains_key(&Category::Marketing) || section.get("consent").is_some();
    if let (Some(place), false) = (findings.first_marketing(), is_said) {
        let message = "this is a marketing message, and `policy.consent` does not say what must be on record before one";
        let help = "write in a file: `policy: { consent: { marketing: { basis: opt_in } } }`, or `marketing: always`";
        findings.add(Diagnostic::error("RK0401", place, message).help(help));
    }
}

/// Hash over the normalised texts: equal meanings have equal versions, whatever the comments say and wherever the files stand.
fn version(roots: &[(usize, Node)]) -> u64 {
    let mut sections: HashMap<&str, Vec<String>> = HashMap::new();
    for entry in roots.iter().filter_map(|(_, root)| root.entries()).flatten().filter(|entry| &*entry.key.text != "tests") {
        let list = sections.entry(&*entry.key.text).or_default();
        let mut write = |node: &Node, name: &str| {
            let mut text = name.to_owned();
            node.normalise(&mut text);
            list.push(text);
        };
        match &entry.value.kind {
            Kind::Mapping(entries) => entries.iter().for_each(|entry| write(&entry.value, &entry.key.text)),
            Kind::Sequence(items) => items.iter().for_each(|item| write(item, "")),
            _ => {}
        }
    }
    let mut all: Vec<(&str, Vec<String>)> = sections.into_iter().collect();
    all.sort_unstable();
    let mut text = String::new();
    for (name, mut items) in all {
        items.sort_unstable();
        text.push_str(name);
        text.extend(items);
    }
    XxHash3_64::oneshot(text.as_bytes())
}
