//! The rule tests of a rulebook: what `rekindle test` prints, and what a set must pass before it goes live.

use serde_json::Value as Json;

use super::Rulebook;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::simulate::coverage::Coverage;
use crate::simulate::expect::{self, Keep, Ran};
use crate::simulate::testfile;

/// What became of one test.
#[derive(Debug)]
pub struct Tested {
    pub name: String,
    pub file: String,
    pub line: u32,
    /// Empty: it passed.
    pub failures: Vec<Diagnostic>,
    /// Of each failure what was expected and what was so, where it is that.
    pub differences: Vec<Option<(Json, Json)>>,
    /// Everything that happened, line by line; only of [`examine`].
    pub film: Vec<String>,
}

/// What became of all tests of a directory.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tests: Vec<Tested>,
    /// Tests that cannot be read, or rules with errors.
    pub errors: Vec<Diagnostic>,
    /// Which parts of conditions were tried; only of [`examine`].
    pub coverage: Coverage,
}

impl Outcome {
    pub fn failed(&self) -> usize {
        self.tests.iter().filter(|test| !test.failures.is_empty()).count()
    }

    /// No error in the files, no failed test: the set may go live.
    pub fn is_fine(&self) -> bool {
        self.errors.is_empty() && self.failed() == 0
    }
}

/// Runs the tests of a rulebook that match a filter.
pub fn run_tests(book: &Rulebook, filter: Option<&str>) -> Outcome {
    run_and_keep(book, filter, Keep::Outcome)
}

/// Runs them, and keeps each one's film and what they have tried.
pub fn examine(book: &Rulebook, filter: Option<&str>) -> Outcome {
    run_and_keep(book, filter, Keep::Everything)
}

fn run_and_keep(book: &Rulebook, filter: Option<&str>, keep: Keep) -> Outcome {
    let mut outcome = Outcome { errors: book.errors(), ..Outcome::default() };
    let Some(set) = book.set() else { return outcome };
    if keep == Keep::Everything {
        // a rule without any test is not covered either
        outcome.coverage = Coverage::of(&set);
    }
    for section in book.tests() {
        let (tests, findings) = testfile::read(section, &set);
        outcome.errors.extend(findings);
        for test in tests {
            let matches = |filter: &str| test.name.contains(filter) || test.rules.iter().any(|rule| rule.contains(filter));
            if !filter.is_none_or(matches) {
                continue;
            }
            // each test leaves only its own rules in force, so each gets a set of its own
            let Some(own) = book.compile() else { continue };
            let Ran { failures, film, coverage } = expect::run(&test, own, keep);
            outcome.coverage.merge(coverage);
            let (failures, differences) =
                failures.into_iter().map(|failure| (failure.finding, failure.expected.zip(failure.found))).unzip();
            let (file, line) = (test.place.file.to_string(), test.place.line);
            outcome.tests.push(Tested { name: test.name, file, line, failures, differences, film });
        }
    }
    outcome
}
