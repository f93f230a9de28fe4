//! The rule tests of a rulebook: what `rekindle test` prints, and what a set must pass before it goes live.

use super::Rulebook;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::simulate::{expect, testfile};

/// What became of one test.
#[derive(Debug)]
pub struct Tested {
    pub name: String,
    pub file: String,
    pub line: u32,
    /// Empty: it passed.
    pub failures: Vec<Diagnostic>,
}

/// What became of all tests of a directory.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tests: Vec<Tested>,
    /// Tests that cannot be read, or rules with errors.
    pub errors: Vec<Diagnostic>,
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
    let mut outcome = Outcome { tests: Vec::new(), errors: book.errors() };
    let Some(set) = book.set() else { return outcome };
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
            let failures = expect::run(&test, own);
            outcome.tests.push(Tested { name: test.name, file: test.place.file.to_string(), line: test.place.line, failures });
        }
    }
    outcome
}
