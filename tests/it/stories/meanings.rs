//! What conditions mean, pinned by [`SEMANTICS`]: known people, known conditions, known answers. A changed answer is a changed meaning,
//! and a changed meaning must count as a changed `when`, or an upgrade would send people into rules by surprise.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use rekindle::engine::SEMANTICS;
use rekindle::engine::rule::expr::{Scope, Subject, parse};
use rekindle::engine::time::{DAY_MS, HOUR_MS};
use serde_json::json;

use super::stage::Story;

/// One condition at least for each thing that may come to mean something else.
const CONDITIONS: [&str; 36] = [
    "country == \"DE\"",
    "tenure_days >= 45",
    "is_new",
    "in_holdout",
    "local_hour >= 9 && local_hour < 21",
    "local_weekday == \"mon\"",
    "days_silent >= 3",
    "!(days_silent < 30)",
    "has(last_active_at)",
    "(hours_since(last_active_at) ?? 0) > 36",
    "(days_since(last_order_at) ?? 0) >= 14",
    "(local_days_since(last_order_at) ?? 0) == 14",
    "silent_spells_365d >= 1",
    "has(reactivated_at)",
    "active_days_7d >= 2",
    "active_days_28d >= 3",
    "sessions_14d >= 2",
    "(days_since(first_order_at) ?? 0) >= 30",
    "orders_30d >= 2",
    "orders_90d >= 3",
    "orders_365d == 4",
    "orders_lifetime >= 4",
    "spend_30d >= \"100 EUR\"",
    "spend_90d >= \"150 EUR\"",
    "spend_180d >= \"200 EUR\"",
    "spend_365d >= \"250 EUR\"",
    "spend_lifetime > \"250 EUR\"",
    "has(aov_365d) && aov_365d >= \"60 EUR\"",
    "points >= 500",
    "points_of(\"bonus\") >= 1000",
    "points_pending > 0",
    "has(next_expiry_at)",
    "consent(\"marketing\", \"email\")",
    "reachable(\"email\")",
    "running(\"quiet\")",
    "(visits_planned ?? 0) > 2",
];

const QUIET: &str = r#"
rekindle: 1
rules:
  - id: quiet
    owner: tests
    when: days_silent >= 20
    existing: skip
    steps: [{ id: word, send: { template: miss-you, channels: [email] } }]
"#;

/// Four people over the weeks around a change of the clocks: a buyer, one who sends back, a visitor, one who is only known.
fn people() -> Story {
    let mut story = Story::begin("Europe/Berlin", "2026-02-02T08:00", QUIET);
    story.identify("ada", "2026-02-02T09:00", json!({ "country": "DE", "email": "ada@post.example", "visits_planned": 3 }));
    story.consent("ada", "2026-02-02T09:01", "email", true);
    for (at, euros) in [("2026-02-03T10:00", 80), ("2026-02-20T18:30", 45), ("2026-03-14T23:45", 120), ("2026-03-29T01:30", 60)] {
        story.order("ada", at, euros);
    }
    story.order("bo", "2026-03-01T12:00", 50);
    story.event("bo", "2026-03-05T12:00", "Order Refunded", json!({ "order_id": "o8", "total": 50, "currency": "EUR" }));
    story.identify("cy", "2026-02-10T09:00", json!({ "country": "FR", "email": "cy@post.example" }));
    for at in ["2026-03-25T08:00", "2026-03-26T08:00", "2026-03-29T03:30", "2026-03-30T20:00"] {
        story.session("cy", at);
    }
    story.identify("di", "2026-03-28T12:00", json!({ "country": "AT" }));
    story.until("2026-03-31T07:30");
    story
}

/// Condition to a hash of its answers: truth and expiry for each person, now, in some hours and in some days.
fn answers() -> BTreeMap<&'static str, String> {
    let story = people();
    let rules = story.rules();
    let scope = Scope { rules: &["quiet".into()], ..Scope::of(rules.names()) };
    let (mut answers, mut refused) = (BTreeMap::new(), Vec::new());
    for text in CONDITIONS {
        let condition = match parse::condition(text, &scope) {
            Ok(condition) => condition,
            Err(errors) => {
                refused.push(format!("{text}: {}", errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ")));
                continue;
            }
        };
        let mut said = String::new();
        for user in ["ada", "bo", "cy", "di"] {
            for later in [0, 5 * HOUR_MS, 4 * DAY_MS, 40 * DAY_MS] {
                let now = story.timeline.now().plus_ms(later);
                let subject = Subject { profile: &story.person(user).profile, now, event: None, run: None };
                let verdict = condition.verdict(rules.names(), subject).unwrap_or_else(|error| panic!("{text}: {error}"));
                write!(said, "{user} {} {};", verdict.truth, verdict.until.as_ms()).expect("a string takes everything");
            }
        }
        answers.insert(text, format!("{:016x}", twox_hash::XxHash3_64::oneshot(said.as_bytes())));
    }
    assert!(refused.is_empty(), "{refused:#?}");
    answers
}

#[test]
fn a_changed_meaning_moves_the_version_of_meanings() {
    let path = format!("{}/tests/data/semantics/v{SEMANTICS}.txt", env!("CARGO_MANIFEST_DIR"));
    let known = fs::read_to_string(&path).unwrap_or_default();
    let known: BTreeMap<&str, &str> = known.lines().filter_map(|line| line.split_once("  ").map(|(hash, text)| (text, hash))).collect();
    let now = answers();
    let changed: Vec<&&str> =
        known.iter().filter(|(text, hash)| now.get(*text).is_some_and(|now| now != *hash)).map(|(text, _)| text).collect();
    assert!(
        changed.is_empty(),
        "these conditions answer otherwise than SEMANTICS {SEMANTICS} did: {changed:#?}\n\
         if that is meant, count engine::SEMANTICS up and run this test with UPDATE=1; if not, mend it"
    );
    if std::env::var_os("UPDATE").is_some() {
        // what is on record stays: only conditions that are new here are added
        let lines: String = now.iter().map(|(text, hash)| format!("{hash}  {text}\n")).collect();
        fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/semantics")).expect("a directory");
        return fs::write(&path, lines).expect("written");
    }
    let unknown: Vec<&&str> = now.keys().filter(|text| !known.contains_key(**text)).collect();
    assert!(unknown.is_empty(), "not on record for SEMANTICS {SEMANTICS}: {unknown:?}; run this test with UPDATE=1");
}
