//! What differs between two rule sets in meaning: rule by rule and key by key, without what is only written differently. Comments, order
//! of files and keys, and quotes do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use twox_hash::XxHash3_64;

use super::RuleSet;
use super::check::is_list;
use super::syntax::{self, Kind, Node};

/// Longer values are cut in the middle of a line.
const SHOWN: usize = 100;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub changes: Vec<KeyChange>,
}

/// One key whose meaning changed: `rules.win-back.when`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    pub key: String,
    /// None: it is new.
    pub before: Option<String>,
    /// None: it is gone.
    pub after: Option<String>,
}

/// From the set in force to the other.
pub fn difference(before: &RuleSet, after: &RuleSet) -> Difference {
    let (old, new) = (leaves(before), leaves(after));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let whole_new: BTreeSet<String> = items(&new).difference(&items(&old)).cloned().collect();
    let whole_gone: BTreeSet<String> = items(&old).difference(&items(&new)).cloned().collect();
    let mut changes = Vec::new();
    for item in &whole_new {
        changes.push(KeyChange { key: item.clone(), before: None, after: Some(summary(&new, item)) });
    }
    for item in &whole_gone {
        changes.push(KeyChange { key: item.clone(), before: Some(summary(&old, item)), after: None });
    }
    for key in keys {
        let (was, is) = (old.get(key), new.get(key));
        let in_whole = item_of(key).is_some_and(|item| whole_new.contains(&item) || whole_gone.contains(&item));
        if was != is && !in_whole {
            changes.push(KeyChange { key: key.clone(), before: was.cloned(), after: is.cloned() });
        }
    }
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Difference { changes }
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Value of every key by its path. Lists of mappings with an `id` go by that, not by their place.
fn leaves(set: &RuleSet) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    for source in set.files.iter() {
        if is_list(&source.path) {
            // the digest tells that it is another list; how many rows there are tells people more
            let rows = source.text.lines().skip(1).filter(|line| !line.trim().is_empty()).count();
            let digest = XxHash3_64::oneshot(source.text.as_bytes());
            leaves.insert(format!("lists.{}", source.path), format!("{rows} rows ({digest:016x})"));
            continue;
        }
        let (Some(root), _) = syntax::parse(&source.path, &source.text) else { continue };
        for section in root.entries().unwrap_or_default().iter().filter(|section| !matches!(&*section.key.text, "rekindle" | "tests")) {
            walk(&section.value, &section.key.text, false, &mut leaves);
        }
    }
    leaves
}

/// `is_item`: the node stands in a list, and its `id` is its name, which stands in the path already.
fn walk(node: &Node, path: &str, is_item: bool, leaves: &mut BTreeMap<String, String>) {
    match &node.kind {
        Kind::Mapping(entries) if !entries.is_empty() => {
            for entry in entries.iter().filter(|entry| &*entry.key.text != "id" || !is_item) {
                walk(&entry.value, &format!("{path}.{}", entry.key.text), false, leaves);
            }
        }
        Kind::Sequence(items) if items.iter().all(|item| item.get("id").is_some()) && !items.is_empty() => {
            for (place, item) in items.iter().enumerate() {
                let id = item.get("id").and_then(Node::text).unwrap_or_default();
                walk(item, &format!("{path}.{id}"), true, leaves);
                if path.ends_with(".steps") {
                    // the order of steps means something
                    leaves.insert(format!("{path}.{id}.(place)"), (place + 1).to_string());
                }
            }
        }
        Kind::Scalar(scalar) => {
            leaves.insert(path.to_owned(), scalar.text.to_string());
        }
        _ => {
            let mut text = String::new();
            node.normalise(&mut text);
            leaves.insert(path.to_owned(), text);
        }
    }
}

/// `rules.win-back` of `rules.win-back.when`: what is told as a whole when all of it is new or gone.
fn item_of(key: &str) -> Option<String> {
    let mut parts = key.split('.');
    let (section, item) = (parts.next()?, parts.next()?);
    parts.next()?;
    Some(format!("{section}.{item}"))
}

fn items(leaves: &BTreeMap<String, String>) -> BTreeSet<String> {
    leaves.keys().filter_map(|key| item_of(key)).collect()
}

fn summary(leaves: &BTreeMap<String, String>, item: &str) -> String {
    let of = |key: &str| leaves.get(&format!("{item}.{key}"));
    let named = ["when", "event", "count", "sum", "expr", "type", "value"].into_iter().find_map(|key| Some(format!("{key}: {}", of(key)?)));
    named.or_else(|| of("name").cloned()).unwrap_or_else(|| "...".to_owned())
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "the rules mean the same");
        }
        for change in &self.changes {
            match (&change.before, &change.after) {
                (None, Some(after)) => writeln!(f, "+ {}: {}", change.key, cut(after))?,
                (Some(before), None) => writeln!(f, "- {}: {}", change.key, cut(before))?,
                (Some(before), Some(after)) => writeln!(f, "~ {}: {} -> {}", change.key, cut(before), cut(after))?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::rule::check;
    use crate::engine::rule::diagnostic::SourceFile;

    const BEFORE: &str = "rekindle: 1
policy: { consent: { marketing: always } }
segments:
  big: { when: orders_lifetime >= 9 }
rules:
  - id: one
    owner: o
    event: session_started
    steps:
      - { id: a, set: { seen: 1 } }
      - { id: b, set: { seen: 2 }, after: 1d }
events: { session_started: { name: Session Started, active: true } }
attributes: { seen: { type: int, default: 0 } }
";

    fn set(text: &str) -> RuleSet {
        let loaded = check::load(&[SourceFile { path: Arc::from("a.yaml"), text: Arc::from(text) }], &Default::default());
        loaded.set.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics))
    }

    #[test]
    fn only_what_means_something_differs() {
        let many = |old: &str, new: &str| BEFORE.replacen(old, new, 1);
        for (after, told) in [
            (many("rules:", "# said otherwise\nrules:"), ""),
            (many("owner: o\n    event: session_started", "event: \"session_started\"\n    owner: o"), ""),
            (many("orders_lifetime >= 9", "orders_lifetime >= 8"), "~ segments.big.when: orders_lifetime >= 9 -> orders_lifetime >= 8\n"),
            (many("{ seen: 2 }, after: 1d", "{ seen: 2 }, after: 2d"), "~ rules.one.steps.b.after: 1d -> 2d\n"),
            (many("id: a, set: { seen: 1 }", "id: a, set: { seen: 3 }"), "~ rules.one.steps.a.set.seen: 1 -> 3\n"),
            (many("event: session_started", "event: session_started\n    for: 1h"), "+ rules.one.for: 1h\n"),
            (many("segments:\n  big: { when: orders_lifetime >= 9 }\n", ""), "- segments.big: when: orders_lifetime >= 9\n"),
            (many("id: one", "id: two"), "- rules.one: event: session_started\n+ rules.two: event: session_started\n"),
        ] {
            let said = difference(&set(BEFORE), &set(&after));
            let expected = if told.is_empty() { "the rules mean the same\n" } else { told };
            assert_eq!(said.to_string(), expected);
            assert_eq!(said.is_empty(), told.is_empty());
        }
    }
}
