//! Tiers of a real year: the thresholds as segments, whose changes the verdicts find, and the program with reviews and grace against
//! a slow and plain reckoning that shares no code with the engine.

use std::collections::BTreeMap;

use rekindle::engine::absorb::absorb;
use rekindle::engine::event::Event;
use rekindle::engine::profile::Profile;
use rekindle::engine::rule::RuleSet;
use rekindle::engine::rule::expr::{Condition, Subject};
use rekindle::engine::time::{DAY_MS, Timestamp};

use super::points::by_user;
use super::shop::{END, YEAR, instant, rules, simulated, year};

// ------------------------------------------------------------------------------------------------------ as segments

/// How many of the thresholds hold, and the first instant at which one of them flips by the clock alone.
fn tier_by_segments(set: &RuleSet, conditions: &[&Condition], profile: &Profile, now: Timestamp) -> (usize, Timestamp) {
    let subject = Subject { profile, now, event: None, run: None };
    conditions.iter().fold((0, Timestamp::FOREVER), |(tier, until), condition| {
        let verdict = condition.next_flip(set.names(), subject).expect("an answer");
        (tier + usize::from(verdict.truth), until.min(verdict.until))
    })
}

#[test]
fn changes_of_tier_by_event_and_by_the_clock_alone() {
    let set = rules("tiers", |_, text| text);
    let segment = |name: &str| &set.dictionary.segments.iter().find(|s| &*s.name == name).expect("a segment of the file").condition;
    let conditions = [segment("from_silver"), segment("from_gold"), segment("from_platinum")];
    let mut changes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut at_the_end: BTreeMap<usize, u64> = BTreeMap::new();
    for (user, events) in by_user() {
        let mut profile = Profile::new(&user);
        let (mut tier, mut flips_at) = (0, Timestamp::FOREVER);
        let mut instants = events.chunk_by(|a, b| a.occurred_at == b.occurred_at).map(|together| (together[0].occurred_at, together));
        let mut next = instants.next();
        loop {
            let event_at = next.as_ref().map_or(instant(END), |(at, _)| *at);
            let by_clock = flips_at < event_at;
            let now = if by_clock { flips_at } else { event_at };
            if now >= instant(END) {
                break;
            }
            if !by_clock {
                let together: &[&Event] = next.as_ref().map_or(&[], |(_, together)| together);
                together.iter().for_each(|event| absorb(&mut profile, event, set.names()));
                next = instants.next();
            }
            let (reached, until) = tier_by_segments(&set, &conditions, &profile, now);
            let what = match (reached.cmp(&tier), by_clock) {
                (std::cmp::Ordering::Greater, false) => Some("tier up by event"),
                (std::cmp::Ordering::Greater, true) => Some("tier up by clock"),
                (std::cmp::Ordering::Less, false) => Some("tier down by event"),
                (std::cmp::Ordering::Less, true) => Some("tier down by clock"),
                (std::cmp::Ordering::Equal, _) => None,
            };
            what.into_iter().for_each(|what| *changes.entry(what).or_default() += 1);
            assert!(!by_clock || what.is_some(), "{user} at {now}: the clock was asked for nothing");
            (tier, flips_at) = (reached, until);
        }
        *at_the_end.entry(tier).or_default() += 1;
    }
    for what in ["tier up by event", "tier down by event", "tier down by clock", "tier up by clock"] {
        assert_eq!(changes.get(what).copied().unwrap_or_default(), simulated(what), "{what}");
    }
    let expected = |name: &str| super::shop::FACTS["simulated_online_retail"]["tiers at the end"][name].as_u64().expect("a fact");
    for (tier, name) in ["basic", "silver", "gold", "platinum"].into_iter().enumerate() {
        assert_eq!(at_the_end.get(&tier).copied().unwrap_or_default(), expected(name), "{name}");
    }
}

// ------------------------------------------------------------------------------------------------------ as a program

/// What happened to somebody: when, and the tier it led to; `None` for a warning that it was at risk.
type Reckoning = Vec<(String, Option<usize>)>;

/// Reviews of the year, midnight in London, with the midnight thirty London days before and after: two of these spans cross a change of
/// the clocks.
const REVIEWS: [(&str, &str, &str); 4] = [
    ("2010-12-02T00:00:00Z", "2011-01-01T00:00:00Z", "2011-01-31T00:00:00Z"),
    ("2011-03-02T00:00:00Z", "2011-03-31T23:00:00Z", "2011-04-30T23:00:00Z"),
    ("2011-05-31T23:00:00Z", "2011-06-30T23:00:00Z", "2011-07-30T23:00:00Z"),
    ("2011-08-31T23:00:00Z", "2011-09-30T23:00:00Z", "2011-10-31T00:00:00Z"),
];
/// The next one is warned of within the year but comes after it.
const NEXT: (&str, &str) = ("2011-12-02T00:00:00Z", "2012-01-01T00:00:00Z");

/// Adds up everything, every time: net pennies of the half-open 180 days before and with `now`, of what had happened by then. 44 people
/// order and are refunded within one instant: together, as here, that lifts nobody.
fn level(money: &[(i64, i64)], now: i64) -> usize {
    let spend: i64 = money.iter().filter(|(at, _)| now - 180 * DAY_MS < *at && *at <= now).map(|(_, pennies)| pennies).sum();
    [25_000, 100_000, 500_000].iter().filter(|from| spend >= **from).count()
}

fn pennies(event: &Event) -> Option<(i64, i64)> {
    let amount = (event.property("total")?.as_f64()? * 100.0).round() as i64;
    Some((event.occurred_at.as_ms(), if &*event.name == "Order Refunded" { -amount } else { amount }))
}

/// Looks at every instant at which anything can happen, in order, and does what the program says.
fn on_paper(money: &[(i64, i64)]) -> Reckoning {
    let ms = |text: &str| instant(text).as_ms();
    let mut instants: Vec<i64> = money.iter().flat_map(|(at, _)| [*at, at + 180 * DAY_MS]).collect();
    for (notice, review, end_of_grace) in REVIEWS {
        instants.extend([notice, review, end_of_grace].map(ms));
    }
    instants.push(ms(NEXT.0));
    instants.sort_unstable();
    instants.dedup();
    instants.retain(|at| money.first().is_some_and(|(first, _)| at >= first) && *at < ms(END));

    let (mut tier, mut in_grace, mut warned_of) = (0, false, "");
    let mut happened: Reckoning = vec![];
    let mut say = |at: i64, what: Option<usize>| happened.push((Timestamp::from_ms(at).to_string(), what));
    for now in instants {
        let reached = level(money, now);
        if reached > tier {
            (tier, in_grace) = (reached, false);
            // a new tier has the next review before it like an old one, and is warned of it anew
            warned_of = "";
            say(now, Some(tier));
        }
        if in_grace && REVIEWS.iter().any(|(_, _, end_of_grace)| ms(end_of_grace) == now) {
            in_grace = false;
            if reached < tier {
                tier -= 1;
                warned_of = "";
                say(now, Some(tier));
            }
        }
        let dates = REVIEWS.iter().map(|(notice, review, _)| (*notice, *review)).chain([NEXT]);
        let near = dates.into_iter().find(|(notice, review)| ms(notice) <= now && now <= ms(review));
        if let Some((_, review)) = near.filter(|(_, review)| reached < tier && !in_grace && warned_of != *review) {
            warned_of = review;
            say(now, None);
        }
        if REVIEWS.iter().any(|(_, review, _)| ms(review) == now) && reached < tier && !in_grace {
            in_grace = true;
        }
    }
    happened
}

#[test]
fn tiers_with_reviews_and_grace_equal_a_plain_reckoning() {
    let mut timeline = year(rules("tiers", |_, text| text), YEAR.iter().cloned());
    timeline.advance_to(instant(END));
    assert_eq!(timeline.faults, Vec::<String>::new());
    let tiers = ["basic", "silver", "gold", "platinum"];
    let (mut ups, mut downs, mut warnings) = (0, 0, 0);
    for (user, events) in by_user() {
        let money: Vec<(i64, i64)> = events.iter().filter_map(|event| pennies(event)).collect();
        let person = timeline.person(&user).expect("everybody of the year");
        let said = person.own_events.iter().filter_map(|own| match &*own.name {
            "tier_changed" => {
                let to = own.text_property("to").and_then(|to| tiers.iter().position(|tier| *tier == to));
                (if own.text_property("direction") == Some("up") { ups += 1 } else { downs += 1 });
                Some((own.occurred_at.to_string(), to))
            }
            "tier_at_risk" => {
                warnings += 1;
                Some((own.occurred_at.to_string(), None))
            }
            _ => None,
        });
        assert_eq!(said.collect::<Reckoning>(), on_paper(&money), "{user}");
    }
    println!("{ups} up, {downs} down, {warnings} warned");
    assert!(ups > 3000 && downs > 300 && warnings > downs, "too few to have shown anything");
}
