//! `--what-if 'win-back.when=days_silent >= 45'`: one key of a rule with another value, without a copy of the files.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{anyhow, bail};

use crate::engine::rule::diagnostic::SourceFile;
use crate::engine::rule::syntax::{self, Node};
use crate::rulebook::Rulebook;

/// A key of a rule, by its path, and the value that it would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatIf {
    rule: String,
    path: Vec<String>,
    value: String,
}

impl FromStr for WhatIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` names no key of a rule; write it like `win-back.when=days_silent >= 45`");
        let (key, value) = text.split_once('=').ok_or_else(form)?;
        let mut parts = key.trim().split('.').map(str::to_owned);
        let rule = parts.next().filter(|rule| !rule.is_empty()).ok_or_else(form)?;
        let path: Vec<String> = parts.collect();
        if path.is_empty() || path.iter().any(String::is_empty) {
            return Err(form());
        }
        Ok(WhatIf { rule, path, value: value.trim().to_owned() })
    }
}

/// The same rules with the changes made: checked like any others.
pub fn changed(book: &Rulebook, changes: &[WhatIf]) -> anyhow::Result<Rulebook> {
    let mut sources = book.sources().to_vec();
    for change in changes {
        let (file, text) = sources
            .iter()
            .enumerate()
            .find_map(|(file, source)| change.in_text(source).map(|text| text.map(|text| (file, text))))
            .ok_or_else(|| anyhow!("there is no rule `{}` in these files", change.rule))??;
        if let Some(source) = sources.get_mut(file) {
            source.text = Arc::from(text);
        }
    }
    Ok(Rulebook::of(sources))
}

impl WhatIf {
    /// The file's text with the value in place; none if the rule is not in it.
    fn in_text(&self, source: &SourceFile) -> Option<anyhow::Result<String>> {
        let (root, _) = syntax::parse(&source.path, &source.text);
        let root = root?;
        let rules = root.get("rules")?.items()?;
        let rule = rules.iter().find(|rule| rule.get("id").and_then(Node::text) == Some(&*self.rule))?;
        Some(self.in_rule(rule, source))
    }

    fn in_rule(&self, rule: &Node, source: &SourceFile) -> anyhow::Result<String> {
        let mut node = rule;
        for key in &self.path {
            let by_id = || node.items()?.iter().find(|item| item.get("id").and_then(Node::text) == Some(key));
            node = node.get(key).or_else(by_id).ok_or_else(|| {
                let known: Vec<&str> = node.entries().unwrap_or_default().iter().map(|entry| &*entry.key.text).collect();
                anyhow!("rule `{}` has no `{}` to change; there it has {}", self.rule, self.path.join("."), known.join(", "))
            })?;
        }
        let key = self.path.join(".");
        let Some(scalar) = node.scalar() else {
            bail!("`{key}` of rule `{}` is {}: to change that, compare with a copy of the rules (--against)", self.rule, node.described());
        };
        let value = serde_json::to_string(&self.value)?;
        let value = if scalar.is_plain && is_plain(&self.value) { self.value.clone() } else { value };
        let replaced = replaced(&source.text, node, &value);
        replaced.ok_or_else(|| {
            anyhow!("`{key}` of rule `{}` goes over several lines: to change that, compare with a copy of the rules (--against)", self.rule)
        })
    }
}

/// Whether a value may stand without quotes where another stood without.
fn is_plain(value: &str) -> bool {
    value.chars().all(|c| c.is_alphanumeric() || "_-.%/() <>=&|+*".contains(c)) && value.starts_with(|c: char| c.is_alphanumeric())
}

/// The text with the scalar at this node replaced; none unless it stands in one line, as it is written.
fn replaced(text: &str, node: &Node, value: &str) -> Option<String> {
    let scalar = node.scalar()?;
    let start = offset(text, node.place.line, node.place.column)?;
    let rest = text.get(start..)?;
    let written = match rest.chars().next()? {
        _ if scalar.is_plain => scalar.text.len(),
        quote @ ('"' | '\'') => 2 + rest.get(1..)?.find(quote)?,
        _ => return None,
    };
    let old = rest.get(..written)?;
    let says_so = old.trim_matches(['"', '\'']) == &*scalar.text;
    (says_so && !old.contains('\n'))
        .then(|| format!("{}{value}{}", text.get(..start).unwrap_or_default(), rest.get(written..).unwrap_or_default()))
}

/// Byte at which a line and column (in characters, both from 1) begin.
fn offset(text: &str, line: u32, column: u32) -> Option<usize> {
    let start = match line {
        1 => 0,
        _ => text.match_indices('\n').nth(line as usize - 2)?.0 + 1,
    };
    let within = text.get(start..)?.char_indices().nth(column as usize - 1)?.0;
    Some(start + within)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "rekindle: 1\nrules:\n  - id: back\n    name: 客户 zurück\n    when: \"days_silent >= 30\"\n    for: 6h\n    \
                         steps:\n      - { id: one, after: 2d, send: { template: t, channels: [email] } }\n";

    fn asked(change: &str) -> Result<String, String> {
        let change: WhatIf = change.parse()?;
        let source = SourceFile { path: Arc::from("a.yaml"), text: Arc::from(RULES) };
        change.in_text(&source).ok_or("no such rule")?.map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        for (change, old, new) in [
            ("back.when=days_silent >= 45", "\"days_silent >= 30\"", "\"days_silent >= 45\""),
            ("back.when=tier == \"gold\"", "\"days_silent >= 30\"", "\"tier == \\\"gold\\\"\""),
            ("back.for=12h", "for: 6h", "for: 12h"),
            ("back.steps.one.after=3d", "after: 2d", "after: 3d"),
            ("back.steps.one.send.template=other", "template: t", "template: other"),
        ] {
            assert_eq!(asked(change), Ok(RULES.replacen(old, new, 1)), "{change}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_told() {
        for (change, told) in [
            ("back", "names no key of a rule"),
            ("back=1", "names no key of a rule"),
            ("other.when=x", "no such rule"),
            ("back.whn=x", "has no `whn` to change"),
            ("back.steps=x", "is a list"),
        ] {
            let error = asked(change).expect_err(change);
            assert!(error.contains(told), "{change}: {error}");
        }
    }
}
