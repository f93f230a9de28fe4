//! Rule tests as operators write them: the shipped pack's, and those of the language's description, run in `cargo test` too.

use std::path::Path;

use rekindle::rulebook::Rulebook;
use rekindle::rulebook::rule_tests::run_tests;

/// Runs the tests of a directory of the project; all must pass, and there must be at least so many.
fn pass(dir: &str, at_least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let book = Rulebook::open(&root).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let outcome = run_tests(&book, None);
    let findings = outcome.errors.iter().chain(outcome.tests.iter().flat_map(|test| &test.failures));
    let said: Vec<String> = findings.map(|finding| finding.render(book.sources(), dir)).collect();
    assert!(said.is_empty(), "{} of {} tests failed\n\n{}", outcome.failed(), outcome.tests.len(), said.join("\n\n"));
    assert!(outcome.tests.len() >= at_least, "{dir}: only {} tests", outcome.tests.len());
}

#[test]
fn the_shipped_pack_does_what_its_tests_say() {
    pass("rules", 25);
}

#[test]
fn the_example_of_the_language_does_what_its_tests_say() {
    pass("tests/data/rules/good/silence", 6);
    pass("tests/data/rules/good/mailing", 3);
}
