//! `rekindle test`: the rule tests of a directory.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::{ExitCode, Format};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::rulebook::Rulebook;
use crate::rulebook::rule_tests::{Outcome, run_tests};

/// Run the rule tests: given people and events, does each rule do what its test expects?
///
/// Tests stand beside the rules in `*.test.yaml`. Time jumps from wake-up to wake-up, so a test over a year takes milliseconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  $ rekindle test\n  $ rekindle test rules --run silence")]
pub struct Args {
    /// Directory of rule files
    #[arg(value_name = "DIR", default_value = "rules")]
    pub dir: PathBuf,
    /// Only tests whose name, or the id of one of whose rules, contains this text
    #[arg(long, value_name = "FILTER")]
    pub run: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.dir)?;
    let outcome = run_tests(&book, args.run.as_deref());
    match args.format {
        Format::Text => print_text(&book, &args.dir, &outcome),
        Format::Json => println!("{}", serde_json::to_string_pretty(&as_json(&outcome)).context("the outcome cannot be written as JSON")?),
    }
    Ok(if outcome.is_fine() { ExitCode::Fine } else { ExitCode::Finding })
}

fn print_text(book: &Rulebook, dir: &Path, outcome: &Outcome) {
    let root = dir.display().to_string();
    for finding in &outcome.errors {
        println!("{}\n", finding.render(book.sources(), &root));
    }
    for test in &outcome.tests {
        let word = if test.failures.is_empty() { "ok  " } else { "FAIL" };
        println!("{word} {}", test.name);
        for failure in &test.failures {
            println!("\n{}\n", failure.render(book.sources(), &root));
        }
    }
    let (failed, errors) = (outcome.failed(), outcome.errors.len());
    let passed = outcome.tests.len() - failed;
    let broken = if errors > 0 { format!(", {} in the files", super::counted(errors, "error")) } else { String::new() };
    println!("{passed} passed, {failed} failed{broken}");
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let tests = outcome.tests.iter().map(|test| {
        json!({
            "name": test.name,
            "file": test.file,
            "line": test.line,
            "passed": test.failures.is_empty(),
            "failures": test.failures.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        })
    });
    json!({
        "passed": outcome.tests.len() - outcome.failed(),
        "failed": outcome.failed(),
        "errors": outcome.errors.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        "tests": tests.collect::<Vec<_>>(),
    })
}
