//! The canonical form of a rule file. It touches what differs and nothing else: a file that is in form stays as it is, byte for byte,
//! with its comments, its columns and its line breaks.
//!
//! In form is: two blanks for each level, dashes below their key; keys of rules, steps and tests in the order of
//! [`language`](super::language); double quotes unless single ones save escapes, and quotes around times of day; blanks within `{ }`,
//! none within `[ ]`; a mapping or list in one line where it fits, else a key to a line; `&&`, `||`, `!`, `==` and double quotes in
//! conditions; no blanks at line ends, no two empty lines together, one line end at the end.
//!
//! **The meaning never changes.** What comes out is parsed again and compared; where it would differ, the file is left alone.

mod print;
mod tree;

use std::sync::Arc;

use self::print::Printer;
use super::diagnostic::Diagnostic;
use super::expr;
use super::language::{FILE, RULE, STEP, Shape, TEMPLATE_FILE, TEST, Takes};
use super::syntax::{self, Kind, Node};

/// Lines are broken that would be longer, as far as they can be.
const WIDTH: usize = 160;

/// Why a file is left as it is.
#[derive(Debug)]
pub enum Unformatted {
    /// It cannot be read: `check` says the same.
    Broken(Vec<Diagnostic>),
    /// Something in it that this version cannot write back with the same meaning.
    Unsure,
}

/// The text in canonical form.
///
/// # Errors
/// The file cannot be read, or would not mean the same afterwards.
pub fn format(file: &Arc<str>, text: &str) -> Result<String, Unformatted> {
    let (node, findings) = syntax::parse(file, text);
    if !findings.is_empty() {
        return Err(Unformatted::Broken(findings));
    }
    let Some(node) = node else { return Ok(text.to_owned()) };
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let tree = tree::parse(&plain).ok_or(Unformatted::Unsure)?;
    let formatted = Printer::new(&plain, &tree).print(root(&node)).ok_or(Unformatted::Unsure)?;
    let (again, findings) = syntax::parse(file, &formatted);
    let is_same = findings.is_empty() && again.is_some_and(|again| meaning(&again) == meaning(&node));
    if is_same { Ok(formatted) } else { Err(Unformatted::Unsure) }
}

fn root(node: &Node) -> &'static Takes {
    if node.get("template").is_some() { &Takes::Of(&TEMPLATE_FILE) } else { &Takes::Of(&FILE) }
}

/// What a file says, with each text in the form in which conditions are written.
fn meaning(node: &Node) -> String {
    let mut node = node.clone();
    canonical_texts(&mut node);
    let mut out = String::new();
    node.normalise(&mut out);
    out
}

fn canonical_texts(node: &mut Node) {
    match &mut node.kind {
        Kind::Scalar(scalar) => scalar.text = Arc::from(expr::canonical(&scalar.text).unwrap_or_else(|| scalar.text.to_string())),
        Kind::Sequence(items) => items.iter_mut().for_each(canonical_texts),
        Kind::Mapping(entries) => entries.iter_mut().for_each(|entry| canonical_texts(&mut entry.value)),
        Kind::Refused => {}
    }
}

/// Whether the keys of such a mapping have an order of their own. Elsewhere the writer's is kept.
fn is_ordered(shape: &Shape) -> bool {
    [RULE.what, STEP.what, TEST.what].contains(&shape.what)
}

/// What the values below a key are, where the language says it.
fn below(takes: &'static Takes, is_wanted: impl Fn(&Takes) -> bool + Copy) -> Option<&'static Takes> {
    match takes {
        Takes::Either(all) => all.iter().find_map(|one| below(one, is_wanted)),
        takes if is_wanted(takes) => Some(takes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(text: &str) -> String {
        let file = Arc::from("a.yaml");
        let once = format(&file, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(format(&file, &once).expect("its own output"), once, "a second time");
        once
    }

    #[test]
    fn what_differs_is_brought_into_form() {
        for (written, expected) in [
            // indentation, and dashes below their key
            ("rekindle: 1\nrules:\n- id: abc\n  owner: crm\n", "rekindle: 1\nrules:\n  - id: abc\n    owner: crm\n"),
            ("rekindle: 1\nrules:\n    -   id: abc\n        owner: crm\n", "rekindle: 1\nrules:\n  - id: abc\n    owner: crm\n"),
            // blanks and line ends
            ("\n\nrekindle: 1   \n\n\n\nrules: []", "rekindle: 1\n\nrules: []\n"),
            ("\u{feff}rekindle: 1\r\nrules: []\r\n", "rekindle: 1\nrules: []\n"),
            ("rekindle: 1\npolicy: {holdout: {share: 5%,salt: x}}\n", "rekindle: 1\npolicy: { holdout: { share: 5%, salt: x } }\n"),
            ("rekindle: 1\nrules: [ a,b ]\n", "rekindle: 1\nrules: [a, b]\n"),
            // quotes
            ("rekindle: 1\nrules:\n  - { name: 'a b' }\n", "rekindle: 1\nrules:\n  - { name: \"a b\" }\n"),
            ("rekindle: 1\nrules:\n  - { name: 'say \"a\"' }\n", "rekindle: 1\nrules:\n  - { name: 'say \"a\"' }\n"),
            (
                "rekindle: 1\nrules:\n  - at: { daily: true, time: 10:00 }\n",
                "rekindle: 1\nrules:\n  - at: { daily: true, time: \"10:00\" }\n",
            ),
            // conditions
            ("rekindle: 1\nrules:\n  - when: a and not b or c = 'gold'\n", "rekindle: 1\nrules:\n  - when: a && !b || c == \"gold\"\n"),
            ("rekindle: 1\nrules:\n  - when: not b\n", "rekindle: 1\nrules:\n  - when: \"!b\"\n"),
            // order
            ("rules: []\nrekindle: 1\n", "rekindle: 1\nrules: []\n"),
            (
                "rekindle: 1\nrules:\n  - owner: crm # who\n    # what\n    id: abc\n",
                "rekindle: 1\nrules:\n  # what\n  - id: abc\n    owner: crm # who\n",
            ),
        ] {
            assert_eq!(formatted(written), expected, "{written}");
        }
    }

    #[test]
    fn what_is_in_form_stays_as_it_is() {
        for text in [
            "# head\n\nrekindle: 1 # one\n\n# below\nrules: # many\n  # the first\n  - id: abc # its id\n    owner: crm\n\n  # the second\n  - id: def\n# end\n",
            "rekindle: 1\nattributes:\n  a:    { type: int,   default: 3 }   # aligned\n  long: { type: money, optional: true }\n",
            "rekindle: 1\nrules:\n  - id: abc\n    name: a text\n      over two lines\n    doc: >\n      folded\n      text\n\n      and more\n    when: |\n      a &&\n        b\n",
            "rekindle: 1\npolicy:\n  notify: {\n    anna: { email: a@b.example }, # she\n    bert: { email: b@b.example }\n  }\n",
            "rekindle: 1\nsegments: {}\nfeatures:\n",
            "rekindle: 1\nrules:\n  - id: abc\n    steps:\n      - id: x\n        # if: later\n  - id: def\n",
        ] {
            assert_eq!(formatted(text), text);
        }
    }

    #[test]
    fn a_line_that_is_too_long_gets_a_key_to_a_line() {
        let long = "x".repeat(150);
        let text = format!("rekindle: 1\nevents:\n  a: {{ name: {long}, properties: {{ b: {{ type: int }} }} }} # why\n");
        let expected = format!("rekindle: 1\nevents:\n  a: # why\n    name: {long}\n    properties: {{ b: {{ type: int }} }}\n");
        assert_eq!(formatted(&text), expected);
    }

    #[test]
    fn a_file_with_faults_is_left_to_check() {
        let broken = |text: &str| matches!(format(&Arc::from("a.yaml"), text), Err(Unformatted::Broken(_)));
        assert!(broken("rekindle: 1\nrules: &a []\n") && broken("a: 'x\n") && broken("a: 1\n---\nb: 2\n"));
    }
}
