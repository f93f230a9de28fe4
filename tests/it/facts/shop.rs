//! The shop's year, read once, and what the facts share: rule directories, answers, a timeline.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rekindle::engine::event::{Event, Value};
use rekindle::engine::features;
use rekindle::engine::rule::RuleSet;
use rekindle::engine::rule::check;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::rule::expr::Subject;
use rekindle::engine::time::Timestamp;
use rekindle::ingest::file::{Origin, Received, read_events};
use rekindle::message::Templates;
use rekindle::simulate::{Person, Timeline};
use rekindle::store::Identity;
use serde_json::Value as Json;

/// As far as the facts go.
pub const END: &str = "2011-12-10T00:00:00Z";

/// Every event of the year with its user, in the order of the file.
pub static YEAR: LazyLock<Vec<(Arc<str>, Event)>> = LazyLock::new(|| {
    let path = project("data/online-retail/events.ndjson.gz");
    let rows = read_events(&path, Origin::new("shop", Received::AsItHappened)).expect("the shop's year is part of the project");
    rows.map(|row| {
        let incoming = row.unwrap_or_else(|rejected| panic!("{rejected}"));
        let Identity::User(user) = incoming.identity else { panic!("every event of the year has a user") };
        (user, incoming.event)
    })
    .collect()
});

/// The answers.
pub static FACTS: LazyLock<Json> = LazyLock::new(|| {
    let text = fs::read_to_string(project("data/online-retail/facts.json")).expect("the facts are part of the project");
    serde_json::from_str(&text).expect("the facts are JSON")
});

/// A number of `simulated_online_retail`.
pub fn simulated(name: &str) -> u64 {
    FACTS["simulated_online_retail"][name].as_u64().unwrap_or_else(|| panic!("no fact `{name}`"))
}

/// The row of a query of `queries` at an as-of instant.
pub fn as_of(query: &str, date: &str) -> &'static Json {
    let rows = FACTS["queries"][query].as_array().unwrap_or_else(|| panic!("no query `{query}`"));
    rows.iter().find(|row| row["T"] == date).unwrap_or_else(|| panic!("`{query}` has no row for {date}"))
}

pub fn instant(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap_or_else(|| panic!("`{text}` is no instant"))
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The rules of a directory below tests/data/rules/good, with `patch` applied to each text.
pub fn rules(dir: &str, patch: impl Fn(&str, String) -> String) -> Arc<RuleSet> {
    let root = project("tests/data/rules/good").join(dir);
    let mut texts = Vec::new();
    collect(&root, &root, &mut texts);
    let (templates, yaml): (Vec<_>, Vec<_>) = texts.into_iter().partition(|(path, _)| path.starts_with("templates/"));
    let sources: Vec<SourceFile> =
        yaml.into_iter().map(|(path, text)| SourceFile { text: Arc::from(patch(&path, text)), path: Arc::from(path) }).collect();
    let (templates, faults) = Templates::parse(&templates);
    assert!(faults.is_empty(), "{faults:?}");
    let loaded = check::load(&sources, &templates.catalog());
    let errors: Vec<String> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.render(&sources, dir)).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    Arc::new(loaded.set.expect("because there was no error"))
}

fn collect(root: &Path, dir: &Path, texts: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("a directory of rules") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, texts);
        } else {
            let relative = path.strip_prefix(root).expect("because the entry came from below").to_string_lossy().into_owned();
            texts.push((relative, fs::read_to_string(&path).expect("a text")));
        }
    }
}

/// A timeline of the year before its first event; nobody is held out.
pub fn year(rules: Arc<RuleSet>, events: impl IntoIterator<Item = (Arc<str>, Event)>) -> Timeline {
    let start = instant("2010-12-01T00:00:00Z");
    let mut timeline = Timeline::new(rules, start, start);
    timeline.world.holdout_off = true;
    for (user, event) in events {
        timeline.event(&user, event);
    }
    timeline
}

/// Whether a segment holds for a person now.
pub fn is_in(timeline: &Timeline, person: &Person, segment: &str) -> bool {
    let subject = Subject { profile: &person.profile, now: timeline.now(), event: None, run: None };
    let reading = features::read(timeline.rules().names(), subject, segment).unwrap_or_else(|e| panic!("{segment}: {e}"));
    reading.0 == Some(Value::Bool(true))
}

/// How many people a segment holds now.
pub fn members(timeline: &Timeline, segment: &str) -> u64 {
    timeline.people().filter(|(_, person)| is_in(timeline, person, segment)).count() as u64
}
