//! Which parts of the rules' conditions the tests have seen true, and which false: a part that was only ever one of them is a branch that
//! no test has tried.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::engine::event::Event;
use crate::engine::profile::{Name, Profile, Run};
use crate::engine::rule::expr::{Condition, Subject};
use crate::engine::rule::{Rule, RuleSet, Trigger};
use crate::engine::time::Timestamp;

/// What the looks of one or many tests have seen.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    /// By rule and condition (`when`, `tell.if`), its parts in the order of the text.
    seen: BTreeMap<(Name, String), Vec<Part>>,
}

/// A leaf of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub text: String,
    pub was_true: bool,
    pub was_false: bool,
}

impl Part {
    /// What no look has shown: `never true`, `never false`.
    pub fn lacks(&self) -> Option<&'static str> {
        match (self.was_true, self.was_false) {
            (true, true) => None,
            (false, true) => Some("never true"),
            (true, false) => Some("never false"),
            (false, false) => Some("never asked"),
        }
    }
}

impl Coverage {
    /// Every condition of these rules, not looked at yet.
    pub fn of(set: &RuleSet) -> Self {
        let mut coverage = Coverage::default();
        let nobody = Profile::default();
        for rule in &set.rules {
            for (place, condition) in conditions(rule) {
                let subject = Subject { profile: &nobody, now: Timestamp::default(), event: None, run: None };
                coverage.seen.insert((rule.id.clone(), place), parts(condition, set, subject, false));
            }
        }
        coverage
    }

    /// A look at a person, after what had arrived was absorbed.
    pub fn look(&mut self, set: &RuleSet, profile: &Profile, now: Timestamp, arrived: &[Event]) {
        for rule in &set.rules {
            for (event, run) in subjects(rule, set, profile, arrived) {
                for (place, condition) in conditions(rule) {
                    let subject = Subject { profile, now, event: event.as_ref(), run };
                    self.add((rule.id.clone(), place), parts(condition, set, subject, true));
                }
            }
        }
    }

    /// What another test has seen.
    pub fn merge(&mut self, other: Coverage) {
        for (key, parts) in other.seen {
            self.add(key, parts);
        }
    }

    fn add(&mut self, key: (Name, String), parts: Vec<Part>) {
        let known = self.seen.entry(key).or_insert_with(|| parts.clone());
        for (known, part) in known.iter_mut().zip(parts) {
            known.was_true |= part.was_true;
            known.was_false |= part.was_false;
        }
    }

    /// Rule, condition and part.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &str, &Part)> {
        self.seen.iter().flat_map(|((rule, place), parts)| parts.iter().map(move |part| (&**rule, place.as_str(), part)))
    }
}

/// The conditions of a rule by where they stand.
fn conditions(rule: &Rule) -> Vec<(String, &Condition)> {
    let (when, filter) = match &rule.trigger {
        Trigger::When(condition) => (Some(condition), None),
        Trigger::Event { filter, .. } => (None, filter.as_ref()),
        Trigger::At(_) => (None, None),
    };
    let own = [
        ("audience", rule.audience.as_ref()),
        ("when", when),
        ("where", filter),
        ("unless", rule.unless.as_ref()),
        ("only_if_at_start", rule.only_if_at_start.as_ref()),
    ];
    let own = own.into_iter().filter_map(|(place, condition)| Some((place.to_owned(), condition?)));
    let steps = rule.steps.iter().chain(&rule.on_exit);
    own.chain(steps.filter_map(|step| Some((format!("{}.if", step.id), step.condition.as_deref()?)))).collect()
}

/// The properties of the event in question, and the run.
type Asked<'p> = (Option<Map<String, Json>>, Option<&'p Run>);

/// As whom a rule's conditions are asked: with the events that may start it, and with those of its runs.
fn subjects<'p>(rule: &Rule, set: &RuleSet, profile: &'p Profile, arrived: &[Event]) -> Vec<Asked<'p>> {
    let runs = || profile.runs.iter().filter(|run| run.rule == rule.id);
    match &rule.trigger {
        Trigger::Event { event, .. } => {
            let wire = set.dictionary.events.get(event).map_or(event, |declared| &declared.wire_name);
            let starting = arrived.iter().filter(|arrived| arrived.name == *wire).map(|arrived| (Some(arrived.properties.clone()), None));
            starting.chain(runs().map(|run| (Some(run.event_properties()), Some(run)))).collect()
        }
        Trigger::When(_) | Trigger::At(_) => match runs().next() {
            Some(run) => vec![(None, Some(run))],
            None => vec![(None, None)],
        },
    }
}

/// The leaves of a condition, with their truth now if it is `asked`.
fn parts(condition: &Condition, set: &RuleSet, subject: Subject<'_>, asked: bool) -> Vec<Part> {
    let lines = condition.explain(set.names(), subject);
    let is_leaf = |index: usize| lines.get(index + 1).zip(lines.get(index)).is_none_or(|(next, this)| next.depth <= this.depth);
    let leaves = lines.iter().enumerate().filter(|(index, _)| is_leaf(*index)).map(|(_, line)| line);
    leaves
        .map(|line| Part {
            text: line.text.clone(),
            was_true: asked && line.truth == Some(true),
            was_false: asked && line.truth == Some(false),
        })
        .collect()
}
