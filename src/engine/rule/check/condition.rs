//! Conditions and expressions in the files: a text, `{ expr, why }`, or a tree of `all`, `any`, `none`. What is wrong inside a text
//! is shown under the character that causes it.

use std::collections::BTreeSet;

use super::read::Findings;
use crate::engine::profile::Name;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::expr::parse::{self, ExprError, Scope};
use crate::engine::rule::expr::{Condition, Expr, Group, Guards, Names, ValueType};
use crate::engine::rule::syntax::Node;
use crate::engine::rule::{Dictionary, EventType, Policy, Program};

/// What conditions may speak of at some place in the files.
#[derive(Clone, Copy)]
pub struct Compiler<'c> {
    pub findings: &'c Findings,
    pub dictionary: &'c Dictionary,
    pub policy: &'c Policy,
    pub program: Option<&'c Program>,
    /// Names declared with an error of their own: whoever uses them is not to blame.
    pub broken: &'c BTreeSet<Name>,
    /// The event in question (`event.x`).
    pub event: Option<&'c EventType>,
    pub steps: &'c [Name],
    pub rules: &'c [Name],
}

impl Compiler<'_> {
    fn scope(&self) -> Scope<'_> {
        let names = Names { dictionary: self.dictionary, policy: self.policy, program: self.program };
        Scope { names, event: self.event, steps: self.steps, rules: self.rules }
    }

    pub fn condition(&self, node: &Node) -> Option<Condition> {
        self.part(node, &Guards::default()).map(|(condition, _)| condition)
    }

    pub fn expression(&self, node: &Node) -> Option<(Expr, ValueType)> {
        let text = self.findings.text(node, "an expression")?;
        self.told(node, parse::expression(text, &self.scope()))
    }

    /// A text or a tree, with its `why`.
    fn part(&self, node: &Node, guards: &Guards) -> Option<(Condition, Option<String>)> {
        match node.entries() {
            Some(_) => self.tree(node, guards),
            None => self.leaf(node, guards).map(|condition| (condition, None)),
        }
    }

    fn leaf(&self, node: &Node, guards: &Guards) -> Option<Condition> {
        if node.items().is_some() {
            let help = "a condition is a text, or `all:`, `any:`, `none:` over a list of texts".to_owned();
            self.findings.wrong(node, "a list stands here, a condition is expected", help);
            return None;
        }
        let text = self.findings.text(node, "a condition")?;
        self.told(node, parse::condition_given(text, &self.scope(), guards))
    }

    /// `{ expr, why }` or one of `all`, `any`, `none` with an optional `why`.
    fn tree(&self, node: &Node, guards: &Guards) -> Option<(Condition, Option<String>)> {
        let entries = node.entries()?;
        let mut why = None;
        let mut found = None;
        let mut sound = true;
        for entry in entries {
            let group = match &*entry.key.text {
                "why" => {
                    why = self.findings.text(&entry.value, "a text").map(str::to_owned);
                    continue;
                }
                "expr" => None,
                "all" => Some(Group::All),
                "any" => Some(Group::Any),
                "none" => Some(Group::None),
                other => {
                    let message = format!("unknown key `{other}` in a condition");
                    let finding = Diagnostic::error("RK0101", entry.key_place.clone(), message).len(other.chars().count());
                    self.findings.add(finding.help("a condition knows `all`, `any`, `none`, or `expr` with `why`"));
                    sound = false;
                    continue;
                }
            };
            if found.is_some() {
                let message = format!("`{}` stands beside another of `all`, `any`, `none`, `expr`", entry.key.text);
                let finding = Diagnostic::error("RK0102", entry.key_place.clone(), message).len(entry.key.text.chars().count());
                self.findings.add(finding.help("one mapping is one of them; put one into the other's list"));
                sound = false;
                continue;
            }
            found = Some(match group {
                None => self.leaf(&entry.value, guards),
                Some(group) => self.group(group, &entry.value, guards),
            });
        }
        if found.is_none() && sound {
            self.findings.wrong(node, "a mapping without `all`, `any`, `none` or `expr` is no condition", None);
        }
        found.flatten().filter(|_| sound).map(|condition| (condition, why))
    }

    /// What an earlier part of `all` has asked for with `has` is known to be there in the later ones.
    fn group(&self, group: Group, list: &Node, guards: &Guards) -> Option<Condition> {
        let items = self.findings.list(list, "[days_silent >= 30, points > 100]");
        if items.is_empty() && list.items().is_some() {
            self.findings.wrong(list, "an empty list is no condition", None);
        }
        let mut known = guards.clone();
        let mut parts = Vec::new();
        for item in items {
            let part = self.part(item, &known);
            if let (Group::All, Some((condition, _))) = (group, &part) {
                known = known.with(condition);
            }
            parts.push(part);
        }
        let parts: Option<Vec<_>> = parts.into_iter().collect();
        parts.filter(|parts| !parts.is_empty()).map(|parts| Condition::combine(group, parts))
    }

    fn told<T>(&self, node: &Node, result: Result<T, Vec<ExprError>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(errors) => {
                for error in errors {
                    self.tell(node, error);
                }
                None
            }
        }
    }

    fn tell(&self, node: &Node, error: ExprError) {
        let text = node.text().unwrap_or_default();
        let word: String = text.chars().skip(error.at).take(error.len).collect();
        // without its program the shop has no currency, and without a sound declaration a name no meaning: said there already
        let is_followed = error.code == "RK0242" && self.broken.contains("program");
        if is_followed || self.broken.contains(&*word) {
            return;
        }
        let mut finding = Diagnostic::error(error.code, node.place_at(error.at), error.message).len(error.len);
        finding.help = error.help;
        self.findings.add(finding);
    }
}

/// All texts of a condition's tree.
pub fn texts<'n>(node: &'n Node, into: &mut Vec<&'n str>) {
    if let Some(text) = node.text() {
        into.push(text);
    }
    for item in node.items().unwrap_or_default() {
        texts(item, into);
    }
    for entry in node.entries().unwrap_or_default() {
        if &*entry.key.text != "why" {
            texts(&entry.value, into);
        }
    }
}

/// The names a text speaks of: its words outside of quotes, but for properties (`event.total`).
pub fn identifiers(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut quote = None;
    let mut start: Option<usize> = None;
    let mut before_word = ' ';
    let mut previous = ' ';
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let is_word = quote.is_none() && (c.is_ascii_alphanumeric() || c == '_');
        if let (Some(from), false) = (start, is_word) {
            let word = text.get(from..at).unwrap_or_default();
            if before_word != '.' && !word.starts_with(|c: char| c.is_ascii_digit()) {
                found.push(word);
            }
            start = None;
        }
        if is_word && start.is_none() {
            start = Some(at);
            before_word = previous;
        }
        quote = match quote {
            Some(open) if c == open => None,
            None if matches!(c, '"' | '\'' | '`') => Some(c),
            unchanged => unchanged,
        };
        previous = c;
    }
    found
}

/// The texts in quotes within a text: calendars, classes, rules.
pub fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_outside_of_quotes() {
        assert_eq!(identifiers(r#"a >= 30 && b_1("x y") == "c" || event.d > 5d"#), ["a", "b_1", "event"]);
        assert_eq!(quoted(r#"in_calendar("x") && y == "z""#).collect::<Vec<_>>(), ["x", "z"]);
    }
}
