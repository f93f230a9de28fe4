//! Who falls silent, how often, and what a chain of three messages makes of it, with and without a cap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use rekindle::engine::action::What;
use rekindle::simulate::report::{Report, StepReport};
use rekindle::simulate::{Person, Timeline};

use super::shop::{END, FACTS, YEAR, as_of, instant, members, rules, simulated, year};

const SEGMENTS: [(&str, &str); 5] =
    [("buyers", "buyers"), ("silent_30", "silent30"), ("silent_60", "silent60"), ("silent_90", "silent90"), ("silent_180", "silent180")];
const DATES: [&str; 2] = ["2011-06-01", "2011-12-10"];
const CHAIN: [&str; 3] = ["warning", "penalty", "winback"];

/// The year under the chain without a cap, replayed once for all facts: members of the segments at both dates, and the end.
pub struct Replay {
    members: BTreeMap<(&'static str, &'static str), u64>,
    pub end: Timeline,
    pub report: Report,
}

pub static CHAIN_OF_THE_YEAR: LazyLock<Replay> = LazyLock::new(|| {
    let mut timeline = year(rules("chain", |_, text| text), YEAR.iter().cloned());
    let mut counted = BTreeMap::new();
    for date in DATES {
        timeline.advance_to(instant(&format!("{date}T00:00:00Z")));
        for (segment, _) in SEGMENTS {
            counted.insert((date, segment), members(&timeline, segment));
        }
    }
    assert!(timeline.faults.is_empty(), "{:?}", timeline.faults);
    let report = Report::of(&timeline);
    Replay { members: counted, end: timeline, report }
});

fn entries<'a>(person: &'a Person, rule: &'a str) -> impl DoubleEndedIterator<Item = rekindle::engine::time::Timestamp> + 'a {
    person.entries.iter().filter(move |e| &*e.rule == rule && e.what == What::Entered).map(|e| e.at)
}

#[test]
fn silent_for_30_60_90_and_180_days_at_both_dates() {
    for date in DATES {
        let fact = as_of("or_silent_by_order", date);
        for (segment, column) in SEGMENTS {
            assert_eq!(CHAIN_OF_THE_YEAR.members[&(date, segment)], fact[column].as_u64().expect("a count"), "{segment} at {date}");
        }
    }
}

#[test]
fn thirty_days_of_silence_are_passed_as_often_as_the_data_says() {
    let fact = &FACTS["queries"]["or_silence_episodes"][0];
    let passages: Vec<u64> = CHAIN_OF_THE_YEAR.end.people().map(|(_, person)| entries(person, "penalty").count() as u64).collect();
    assert_eq!(Some(passages.iter().sum()), fact["episodes"].as_u64());
    assert_eq!(Some(passages.iter().filter(|count| **count > 0).count() as u64), fact["users"].as_u64());
    assert_eq!(passages.iter().max().copied(), fact["most_for_one_user"].as_u64());
    // all but a person's latest silence were ended by a later order, the latest only where it is over at the end
    let over = |person: &Person| {
        let silent = is_still_silent(person);
        entries(person, "penalty").count() as u64 - u64::from(silent)
    };
    let ended: u64 = CHAIN_OF_THE_YEAR.end.people().map(|(_, person)| over(person)).sum();
    assert_eq!(Some(ended), fact["ended_by_a_later_order"].as_u64());
}

/// Whether the latest silence of a person lasts to the end.
fn is_still_silent(person: &Person) -> bool {
    super::shop::is_in(&CHAIN_OF_THE_YEAR.end, person, "silent_30")
}

#[test]
fn the_chain_without_a_cap() {
    for rule in CHAIN {
        let report = &CHAIN_OF_THE_YEAR.report.rules[rule];
        let sends = &report.steps["mail"];
        assert_eq!(report.entered, simulated(rule), "{rule}");
        assert_eq!((sends.sent, sends.dropped, sends.held), (simulated(rule), 0, 0), "{rule}");
        assert_eq!(report.existing, 0, "nobody existed before the first event");
    }
}

#[test]
fn the_chain_under_three_in_ninety_days_dropped() {
    let capped = |path: &str, text: String| match path {
        "policy.yaml" => text + "  caps:\n    - { id: three, per: user, max: 3, window: 90d, on_block: drop }\n",
        _ => text,
    };
    let mut timeline = year(rules("chain", capped), YEAR.iter().cloned()).without_history();
    timeline.advance_to(instant(END));
    let report = Report::of(&timeline);
    for rule in CHAIN {
        let sends = &report.rules[rule].steps["mail"];
        let fact = |what: &str| simulated(&format!("cap 3 in 90 d: {what} {rule}"));
        let expected = StepReport { sent: fact("sent"), dropped: fact("dropped"), ..StepReport::default() };
        assert_eq!(*sends, expected, "{rule}");
        assert_eq!(report.rules[rule].entered, simulated(rule), "a cap keeps nobody from entering: {rule}");
    }
}

#[test]
fn an_order_at_exactly_thirty_days_is_no_silence() {
    let fact = &FACTS["queries"]["or_order_at_exactly_30_days"][0];
    let user = fact["uid"].as_str().expect("a user");
    let order = instant(fact["next_order"].as_str().expect("an instant"));
    let person = CHAIN_OF_THE_YEAR.end.person(user).expect("a customer");
    assert!(entries(person, "penalty").all(|at| at != order), "at one instant the order comes before the clock");
    assert!(entries(person, "warning").any(|at| at < order), "the warning a week before was right");
}

#[test]
fn at_one_instant_the_order_of_arrival_does_not_matter() {
    let mut per_instant: BTreeMap<_, usize> = BTreeMap::new();
    for (user, event) in YEAR.iter() {
        *per_instant.entry((user, event.occurred_at)).or_default() += 1;
    }
    let crowded: BTreeSet<&Arc<str>> = per_instant.iter().filter(|(_, count)| **count > 1).map(|((user, _), _)| *user).take(400).collect();
    assert!(crowded.len() > 100, "the year has many instants with several events of one person");
    let theirs: Vec<_> = YEAR.iter().filter(|(user, _)| crowded.contains(user)).cloned().collect();
    let set = rules("chain", |_, text| text);
    let mut forward = year(Arc::clone(&set), theirs.iter().cloned());
    // equal instants keep the order in which they come, so turning the file round turns every instant round
    let mut backward = year(set, theirs.into_iter().rev());
    forward.advance_to(instant(END));
    backward.advance_to(instant(END));
    assert_eq!(forward.counts, backward.counts);
    for ((user, left), (_, right)) in forward.people().zip(backward.people()) {
        assert_eq!(left.profile, right.profile, "{user}");
        assert_eq!(left.entries, right.entries, "{user}");
    }
}
