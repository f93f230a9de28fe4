//! docs/faults.md names the tests that cover each fault: they must be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The list is of so many.
const FAULTS: usize = 70;
/// At least so many have a test.
const COVERED_MIN: usize = 60;

/// Functions of a file that are tests: marked as such, of the conformance suite (which each store's module makes tests of), or of the
/// tests of many processes (which are made of them for each way that PostgreSQL is used).
fn tests_of(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_marked = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_marked = true;
        }
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let name = after.split(['(', '<']).next().unwrap_or_default();
        let is_exercise = before == "pub async " && after.contains("(h: &dyn Harness)");
        let is_of_many_processes = before == "async " && after.contains("(database: Postgres)") && text.contains("many_processes!");
        if std::mem::take(&mut is_marked) || is_exercise || is_of_many_processes {
            found.insert(name);
        }
    }
    found
}

/// What is wrong with the list.
fn faults_of(doc: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let rows: Vec<Vec<&str>> = doc
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let rows: Vec<(usize, &[&str])> = rows.iter().filter_map(|row| Some((row.first()?.parse().ok()?, row.get(1..)?))).collect();
    let mut wrong = Vec::new();
    if !rows.iter().map(|(number, _)| *number).eq(1..=FAULTS) {
        wrong.push(format!("the faults are not numbered from 1 to {FAULTS}"));
    }
    let mut covered = 0;
    for (number, row) in rows {
        let covers = row.get(1).copied().unwrap_or_default();
        if covers.starts_with("not covered, because ") {
            continue;
        }
        covered += 1;
        let named: Vec<&str> = covers.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("{number}: neither a test nor a reason why there is none"));
        }
        for name in named {
            let found = name.split_once("::").is_some_and(|(file, test)| read(file).is_some_and(|text| tests_of(&text).contains(test)));
            if !found {
                wrong.push(format!("{number}: there is no test `{name}`"));
            }
        }
    }
    if covered < COVERED_MIN {
        wrong.push(format!("{covered} faults are covered, {COVERED_MIN} should be"));
    }
    wrong
}

#[test]
fn every_fault_has_its_tests_or_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let doc = read("docs/faults.md").expect("the list");
    let wrong = faults_of(&doc, read);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_test_that_is_not_there_is_found() {
    let rows = |covers: &str| (1..=FAULTS).map(|number| format!("| {number} | a fault | {covers} |\n")).collect::<String>();
    let read = |file: &str| (file == "a.rs").then(|| "#[test]\nfn good() {}\nfn helper() {}".to_owned());
    assert_eq!(faults_of(&rows("`a.rs::good`"), read), Vec::<String>::new());
    for bad in ["`a.rs::gone`", "`a.rs::helper`", "`b.rs::good`", "some day", "not covered, because it is late"] {
        assert!(!faults_of(&rows(bad), read).is_empty(), "{bad}");
    }
    assert!(!faults_of(&rows("`a.rs::good`").replacen("| 7 |", "| 8 |", 1), read).is_empty());
}
