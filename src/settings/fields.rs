//! The keys of a mapping with keys of its own kind, read one by one: what nobody asked for is unknown.

use std::sync::Arc;

use super::{Reference, Secret};
use crate::engine::rule::diagnostic::{Diagnostic, SourceFile};
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::{Entry, Node};

pub struct Fields<'r> {
    entry: &'r Entry,
    /// `providers.relay`.
    path: String,
    known: Vec<String>,
    findings: &'r mut Vec<Diagnostic>,
    source: &'r mut SourceFile,
}

impl<'r> Fields<'r> {
    /// None, with a finding: the value is no mapping.
    pub fn of(within: &str, entry: &'r Entry, findings: &'r mut Vec<Diagnostic>, source: &'r mut SourceFile) -> Option<Self> {
        let path = format!("{within}.{}", entry.key.text);
        if entry.value.entries().is_none() {
            if !entry.value.is_refused() {
                let message = format!("`{path}` is a mapping, not {}", entry.value.described());
                findings.push(Diagnostic::error("RK0902", entry.value.place.clone(), message).len(entry.value.width()));
            }
            return None;
        }
        Some(Fields { entry, path, known: Vec::new(), findings, source })
    }

    pub fn node(&mut self, key: &str) -> Option<&'r Node> {
        self.known.push(key.to_owned());
        self.entry.value.get(key).filter(|node| !node.is_null())
    }

    pub fn has(&self, key: &str) -> bool {
        self.entry.value.get(key).is_some()
    }

    /// A value, or the reference to one, read by `parse`.
    pub fn parsed<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let node = self.node(key)?;
        self.parse(key, node, parse)
    }

    fn parse<T>(&mut self, key: &str, node: &Node, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(text) = node.text() else {
            self.wrong(key, node, format!("is a text, not {}", node.described()));
            return None;
        };
        let read = Reference::of(text).map_or_else(|| Ok(text.to_owned()), |reference| reference.resolve());
        match read.and_then(|read| parse(&read)) {
            Ok(value) => Some(value),
            Err(why) => {
                let message = format!("`{text}` is no value for `{}.{key}`", self.path);
                self.findings.push(Diagnostic::error("RK0902", node.place.clone(), message).len(node.width()).label(why));
                None
            }
        }
    }

    pub fn text(&mut self, key: &str) -> Option<String> {
        self.parsed(key, super::word)
    }

    /// A list of texts, each read by `parse`.
    pub fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Some(items) = node.items() else {
            self.wrong(key, node, format!("is a list, not {}", node.described()));
            return Vec::new();
        };
        items.iter().filter_map(|item| self.parse(key, item, &parse)).collect()
    }

    /// Entries of a list of mappings, each as fields of its own.
    pub fn mappings(&mut self, key: &str) -> Vec<Entry> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let items = node.items().map_or_else(|| vec![node.clone()], <[Node]>::to_vec);
        let name = self.entry.key.clone();
        items.into_iter().map(|value| Entry { key: name.clone(), key_place: value.place.clone(), value }).collect()
    }

    /// What belongs to an inner entry of [`Fields::mappings`].
    pub fn inner<'i>(&'i mut self, entry: &'i Entry) -> Option<Fields<'i>> {
        let within = self.path.rsplit_once('.').map_or("", |(within, _)| within).to_owned();
        Fields::of(&within, entry, self.findings, self.source)
    }

    /// A secret: by reference only. What stands there openly is neither repeated nor shown.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let node = self.node(key)?;
        let text = node.text().unwrap_or_default();
        match Secret::refer(text) {
            Ok(secret) => Some(secret),
            Err(why) => {
                if Reference::of(text).is_none() {
                    self.source.text = Arc::from(self.source.text.replace(text, &"*".repeat(text.chars().count())));
                }
                let message = format!("no secret for `{}.{key}`", self.path);
                self.findings.push(Diagnostic::error("RK0902", node.place.clone(), message).len(node.width()).label(why));
                None
            }
        }
    }

    /// Says that a key must be there.
    pub fn missing(&mut self, key: &str, example: &str) {
        if self.has(key) {
            return; // said already: what stands there is wrong
        }
        let message = format!("`{}` lacks `{key}`", self.path);
        let finding = Diagnostic::error("RK0902", self.entry.key_place.clone(), message);
        self.findings.push(finding.len(self.entry.key.text.chars().count()).help(format!("write `{key}: {example}`")));
    }

    pub fn wrong(&mut self, key: &str, node: &Node, what: impl std::fmt::Display) {
        let message = format!("`{}.{key}` {what}", self.path);
        self.findings.push(Diagnostic::error("RK0902", node.place.clone(), message).len(node.width()));
    }

    /// What nobody asked for is unknown.
    pub fn finish(self) {
        for entry in self.entry.value.entries().unwrap_or_default() {
            if self.known.iter().any(|known| **known == *entry.key.text) {
                continue;
            }
            let message = format!("unknown key `{}.{}`", self.path, entry.key.text);
            let near = nearest(&entry.key.text, self.known.iter().map(String::as_str));
            let all = || self.known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let help = near.map_or_else(|| format!("known here: {}", all()), |near| format!("did you mean `{near}`?"));
            let finding = Diagnostic::error("RK0901", entry.key_place.clone(), message);
            self.findings.push(finding.len(entry.key.text.chars().count()).help(help));
        }
    }
}
