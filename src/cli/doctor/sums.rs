//! Sums over everybody, held against those that the database makes: what belongs to nobody stands out.

use std::collections::BTreeMap;

use super::{Finding, Report};
use crate::engine::action::{MessageState, PostingKind, What};
use crate::engine::profile::Name;
use crate::store::{Counts, History};

/// Sums over everybody, to be held against those that the database makes.
#[derive(Debug, Default)]
pub(super) struct Sums {
    events: u64,
    attempts: u64,
    entries: BTreeMap<(Name, Name, What), u64>,
    messages: BTreeMap<(Name, Name, MessageState), u64>,
    postings: BTreeMap<(PostingKind, Name), (u64, i64)>,
    exposures: BTreeMap<(Name, bool), u64>,
}

impl Sums {
    pub fn add(&mut self, history: &History) {
        self.events += history.events.len() as u64;
        for row in &history.entries {
            *self.entries.entry((row.entry.rule.clone(), row.entry.step.clone(), row.entry.what)).or_default() += 1;
        }
        self.attempts += history.messages.iter().map(|row| row.attempts.len() as u64).sum::<u64>();
        for row in &history.messages {
            *self.messages.entry((row.message.rule.clone(), row.message.step.clone(), row.state)).or_default() += 1;
        }
        for posting in &history.postings {
            let (count, points) = self.postings.entry((posting.kind, posting.class.clone())).or_default();
            *count += 1;
            *points += posting.amount;
        }
        for exposure in &history.exposures {
            *self.exposures.entry((exposure.rule.clone(), exposure.held_out)).or_default() += 1;
        }
    }

    pub fn compare(&self, counts: &Counts, report: &mut Report) {
        let mut entries: BTreeMap<(Name, Name, What), u64> = BTreeMap::new();
        for ((rule, step, what, _), count) in &counts.entries {
            *entries.entry((rule.clone(), step.clone(), *what)).or_default() += count;
        }
        let mut messages: BTreeMap<(Name, Name, MessageState), u64> = BTreeMap::new();
        for ((rule, step, _, state), count) in &counts.messages {
            *messages.entry((rule.clone(), step.clone(), *state)).or_default() += count;
        }
        let differs = [
            ("profiles", report.profiles != counts.profiles),
            ("events", self.events != counts.events),
            ("log entries", self.entries != entries),
            ("attempts", self.attempts != counts.attempts),
            ("messages", self.messages != messages),
            ("postings", self.postings != counts.postings),
            ("exposures", self.exposures != counts.exposures),
        ];
        for (part, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            let detail = format!("the database's sum of {part} is not what its people add up to");
            report.findings.push(Finding { user: Name::from(""), what: "sums", detail });
        }
    }
}
