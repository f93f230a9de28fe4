//! `rekindle test`: the rule tests of a directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::{ExitCode, Format};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::rulebook::Rulebook;
use crate::rulebook::rule_tests::{Outcome, Tested, examine};
use crate::simulate::coverage::Part;

/// Run the rule tests: given people and events, does each rule do what its test expects?
///
/// Tests stand beside the rules in `*.test.yaml`. Time jumps from wake-up to wake-up, so a test over a year takes milliseconds.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  $ rekindle test\n  $ rekindle test rules --run silence --film\n  $ rekindle test rules --coverage --junit tests.xml"
)]
pub struct Args {
    /// Directory of rule files
    #[arg(value_name = "DIR", default_value = "rules")]
    pub dir: PathBuf,
    /// Only tests whose name, or the id of one of whose rules, contains this text
    #[arg(long, value_name = "FILTER")]
    pub run: Option<String>,
    /// Show each test as a film: what happened, what was decided and sent, when
    #[arg(long)]
    pub film: bool,
    /// Show what was expected and what was so line by line
    #[arg(long)]
    pub diff: bool,
    /// Show the parts of conditions that no test has seen both true and false
    #[arg(long)]
    pub coverage: bool,
    /// Write the outcome as JUnit XML too, which most build servers show
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.dir)?;
    let outcome = examine(&book, args.run.as_deref());
    match args.format {
        Format::Text => print_text(&book, &args, &outcome),
        Format::Json => println!("{:#}", as_json(&outcome, &args)),
    }
    if let Some(path) = &args.junit {
        let text = as_junit(&outcome, &book, &args.dir);
        fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(if outcome.is_fine() { ExitCode::Fine } else { ExitCode::Finding })
}

// ------------------------------------------------------------------------------------------------------------------- for people

fn print_text(book: &Rulebook, args: &Args, outcome: &Outcome) {
    let root = args.dir.display().to_string();
    for finding in &outcome.errors {
        println!("{}\n", finding.render(book.sources(), &root));
    }
    for test in &outcome.tests {
        let word = if test.failures.is_empty() { "ok  " } else { "FAIL" };
        println!("{word} {}", test.name);
        if args.film {
            test.film.iter().for_each(|line| println!("  {line}"));
        }
        for (failure, difference) in test.failures.iter().zip(&test.differences) {
            println!("\n{}\n", failure.render(book.sources(), &root));
            if let (true, Some((expected, found))) = (args.diff, difference) {
                println!("{}", difference_of(expected, found));
            }
        }
    }
    if args.coverage {
        print_coverage(outcome);
    }
    let (failed, errors) = (outcome.failed(), outcome.errors.len());
    let passed = outcome.tests.len() - failed;
    let broken = if errors > 0 { format!(", {} in the files", super::counted(errors, "error")) } else { String::new() };
    println!("{passed} passed, {failed} failed{broken}");
}

fn print_coverage(outcome: &Outcome) {
    let parts: Vec<(&str, &str, &Part)> = outcome.coverage.parts().collect();
    let tried = parts.iter().filter(|(_, _, part)| part.lacks().is_none()).count();
    println!();
    for (rule, place, part) in &parts {
        if let Some(lacks) = part.lacks() {
            println!("{rule}: {place}: `{}` was {lacks}", part.text);
        }
    }
    println!("{tried} of {} parts of conditions were seen both true and false\n", parts.len());
}

/// Both as lines, those alone that differ marked.
fn difference_of(expected: &Json, found: &Json) -> String {
    let (expected, found) = (lines(expected), lines(found));
    let common = common(&expected, &found);
    let mut out = String::new();
    let (mut left, mut right) = (expected.iter(), found.iter());
    let mut write = |mark: char, line: &str| out.push_str(&format!("  {mark} {line}\n"));
    for line in common {
        left.by_ref().take_while(|other| **other != line).for_each(|other| write('-', other));
        right.by_ref().take_while(|other| **other != line).for_each(|other| write('+', other));
        write(' ', &line);
    }
    left.for_each(|other| write('-', other));
    right.for_each(|other| write('+', other));
    out
}

fn lines(value: &Json) -> Vec<String> {
    match value {
        Json::Array(items) if items.is_empty() => Vec::new(),
        Json::Array(items) => items.iter().map(said).collect(),
        Json::Object(entries) => entries.iter().map(|(key, value)| format!("{key}: {}", said(value))).collect(),
        other => vec![said(other)],
    }
}

fn said(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The longest run of lines that both have in that order.
fn common(left: &[String], right: &[String]) -> Vec<String> {
    let mut lengths = vec![vec![0usize; right.len() + 1]; left.len() + 1];
    let at = |lengths: &[Vec<usize>], i: usize, j: usize| lengths.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    for (i, a) in left.iter().enumerate().rev() {
        for (j, b) in right.iter().enumerate().rev() {
            let length = if a == b { at(&lengths, i + 1, j + 1) + 1 } else { at(&lengths, i + 1, j).max(at(&lengths, i, j + 1)) };
            if let Some(cell) = lengths.get_mut(i).and_then(|row| row.get_mut(j)) {
                *cell = length;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while let (Some(a), Some(b)) = (left.get(i), right.get(j)) {
        if a == b {
            found.push(a.clone());
            (i, j) = (i + 1, j + 1);
        } else if at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

// ----------------------------------------------------------------------------------------------------------------- for machines

fn as_json(outcome: &Outcome, args: &Args) -> Json {
    let test = |test: &Tested| {
        let mut told = json!({
            "name": test.name,
            "file": test.file,
            "line": test.line,
            "passed": test.failures.is_empty(),
            "failures": test.failures.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        });
        if let (true, Some(fields)) = (args.film, told.as_object_mut()) {
            fields.insert("film".to_owned(), json!(test.film));
        }
        told
    };
    let mut told = json!({
        "passed": outcome.tests.len() - outcome.failed(),
        "failed": outcome.failed(),
        "errors": outcome.errors.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        "tests": outcome.tests.iter().map(test).collect::<Vec<_>>(),
    });
    if let (true, Some(fields)) = (args.coverage, told.as_object_mut()) {
        let part = |(rule, place, part): (&str, &str, &Part)| json!({ "rule": rule, "condition": place, "part": part.text, "was_true": part.was_true, "was_false": part.was_false });
        fields.insert("coverage".to_owned(), outcome.coverage.parts().map(part).collect());
    }
    told
}

/// One suite per file. Errors of the files are a suite of their own, so that a build server shows them too.
fn as_junit(outcome: &Outcome, book: &Rulebook, dir: &Path) -> String {
    let root = dir.display().to_string();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let total = outcome.tests.len() + usize::from(!outcome.errors.is_empty());
    out.push_str(&format!("<testsuites tests=\"{total}\" failures=\"{}\" errors=\"{}\">\n", outcome.failed(), outcome.errors.len()));
    if !outcome.errors.is_empty() {
        out.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"1\" errors=\"1\">\n    <testcase name=\"the files can be read\">\n",
            xml(&root)
        ));
        for error in &outcome.errors {
            let text = error.render(book.sources(), &root);
            out.push_str(&format!("      <error type=\"{}\" message=\"{}\">{}</error>\n", error.code, xml(&error.message), xml(&text)));
        }
        out.push_str("    </testcase>\n  </testsuite>\n");
    }
    for suite in outcome.tests.chunk_by(|a, b| a.file == b.file) {
        let file = suite.first().map(|test| test.file.as_str()).unwrap_or_default();
        let failed = suite.iter().filter(|test| !test.failures.is_empty()).count();
        out.push_str(&format!("  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\">\n", xml(file), suite.len()));
        for test in suite {
            let (class, name) = (xml(file.trim_end_matches(".yaml")), xml(&test.name));
            let head = format!("    <testcase classname=\"{class}\" name=\"{name}\" file=\"{}\" line=\"{}\"", xml(file), test.line);
            if test.failures.is_empty() {
                out.push_str(&format!("{head}/>\n"));
                continue;
            }
            out.push_str(&format!("{head}>\n"));
            for failure in &test.failures {
                let text = failure.render(book.sources(), &root);
                let (message, text) = (xml(&failure.message), xml(&text));
                out.push_str(&format!("      <failure type=\"{}\" message=\"{message}\">{text}</failure>\n", failure.code));
            }
            out.push_str("    </testcase>\n");
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// A text within XML; what XML cannot hold at all is left out.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_marks_what_is_lacking_and_what_is_too_much() {
        let found = difference_of(&json!(["a", "b", "c"]), &json!(["a", "x", "c", "d"]));
        assert_eq!(found, "    a\n  - b\n  + x\n    c\n  + d\n");
        assert_eq!(difference_of(&json!(20), &json!(10)), "  - 20\n  + 10\n");
        assert_eq!(difference_of(&json!({ "bonus": 5 }), &json!({ "bonus": 7 })), "  - bonus: 5\n  + bonus: 7\n");
        assert_eq!(difference_of(&json!([]), &json!(["a"])), "  + a\n");
    }

    #[test]
    fn whatever_a_test_is_called_is_xml() {
        assert_eq!(xml("a <b> & \"c\"\u{0}\n"), "a &lt;b&gt; &amp; &quot;c&quot;&#10;");
    }
}
