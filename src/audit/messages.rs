//! Messages under examination: each is the one that its step queued, stands where its results put it, and has the tries that they
//! speak of.

use std::collections::{BTreeMap, BTreeSet};

use super::person::Person;
use crate::engine::action::{MessageId, MessageState, Outcome, What, dedupe_key};
use crate::engine::profile::Name;
use crate::engine::run::read_result;
use crate::engine::time::Timestamp;
use crate::store::MessageRow;

impl Person<'_> {
    pub(super) fn messages(&mut self) {
        let results = self.results();
        let mut found = Vec::new();
        for row in &self.history.messages {
            let known = results.get(&row.message.id).cloned().unwrap_or_default();
            let mut faults = vec![self.is_another(row), self.is_misplaced(row)];
            // results of a message whose time is over were events, and are gone
            if self.history.removed.events.is_none_or(|mark| row.message.decided_at >= mark.older_than) {
                faults.extend([state_differs(row, &known), tries_differ(row, &known)]);
            }
            found.extend(faults.into_iter().flatten().map(|fault| format!("{}: {fault}", named(row))));
        }
        found.extend(self.missing());
        found.into_iter().for_each(|detail| self.find("messages", detail));
    }

    /// What became of each message, by the events on record.
    fn results(&self) -> BTreeMap<MessageId, BTreeSet<Outcome>> {
        let mut results: BTreeMap<MessageId, BTreeSet<Outcome>> = BTreeMap::new();
        for (message, outcome) in self.history.events.iter().filter_map(|(event, _)| read_result(event)) {
            results.entry(message).or_default().insert(outcome);
        }
        results
    }

    /// Its key is derived from what it is, its id from the key and the instant: a copy or a changed one gives itself away.
    fn is_another(&self, row: &MessageRow) -> Option<String> {
        let message = &row.message;
        let profile = &self.stored.profile.key;
        let key = dedupe_key(&message.rule, &message.run_key, message.run, profile, &message.step, message.channel);
        if message.dedupe_key != key {
            return Some("its key is not that of its rule, run, step and channel".to_owned());
        }
        (message.id != MessageId::derive(message.decided_at, key)).then(|| "its id is not the one that its decision gave".to_owned())
    }

    /// An open message is due in time and has its slot.
    fn is_misplaced(&self, row: &MessageRow) -> Option<String> {
        let message = &row.message;
        if !row.state.is_open() {
            return None;
        }
        if message.due_at > message.expires_at {
            return Some(format!("it is {} and due after its deadline", row.state.name()));
        }
        let has_slot = self.stored.profile.slots.iter().any(|slot| slot.message == message.id);
        (!has_slot).then(|| format!("it is {} and holds no slot", row.state.name()))
    }

    /// The log says that a message was queued, and there is none; or there is one more than it says.
    ///
    /// Where lines or messages were removed, only what was queued later can be told.
    fn missing(&self) -> Vec<String> {
        let removed = &self.history.removed;
        let since = [removed.decisions, removed.messages].into_iter().flatten().map(|mark| mark.older_than).max();
        let is_told = |at: Timestamp| since.is_none_or(|since| at >= since);
        let mut queued: BTreeMap<(&Name, u32, &Name), (i64, i64)> = BTreeMap::new();
        for entry in self.history.entries.iter().map(|row| &row.entry) {
            // what was queued and called back by one and the same decision never was
            let ended_at_once = || {
                let same = |other: &crate::engine::action::Entry| {
                    other.what == What::Ended && other.rule == entry.rule && other.run == entry.run && other.at == entry.at
                };
                self.history.entries.iter().any(|row| same(&row.entry))
            };
            if entry.what == What::Queued && is_told(entry.at) {
                let (least, most) = queued.entry((&entry.rule, entry.run, &entry.step)).or_default();
                *most += 1;
                *least += i64::from(!ended_at_once());
            }
        }
        for message in self.history.messages.iter().map(|row| &row.message).filter(|message| is_told(message.decided_at)) {
            let (least, most) = queued.entry((&message.rule, message.run, &message.step)).or_default();
            (*least, *most) = (*least - 1, *most - 1);
        }
        let said = |rule: &Name, run: u32, step: &Name| format!("rule `{rule}`, run {run}, step `{step}`");
        let differs = queued.into_iter().filter_map(|((rule, run, step), (least, most))| match (least, most) {
            (1.., _) => Some(format!("{}: {least} fewer on record than the log says were queued", said(rule, run, step))),
            (_, ..0) => Some(format!("{}: {} more on record than the log says were queued", said(rule, run, step), -most)),
            _ => None,
        });
        differs.collect()
    }
}

/// A message in words; its id is for machines.
fn named(row: &MessageRow) -> String {
    let message = &row.message;
    format!(
        "`{}` by {} of rule `{}`, run {}, decided at {}",
        message.template, message.channel, message.rule, message.run, message.decided_at
    )
}

/// The states in which a message may stand once these outcomes are known; none: any that needs no result.
fn states_after(known: &BTreeSet<Outcome>) -> Vec<MessageState> {
    use Outcome as O;
    let has = |outcome| known.contains(&outcome);
    let ends = [
        (O::Failed, MessageState::Failed),
        (O::Unknown, MessageState::Unknown),
        (O::Blocked, MessageState::Blocked),
        (O::Expired, MessageState::Expired),
        (O::Cancelled, MessageState::Cancelled),
        (O::Dead, MessageState::Dead),
    ];
    let ended: Vec<MessageState> = ends.into_iter().filter(|(outcome, _)| has(*outcome)).map(|(_, state)| state).collect();
    let proven = if has(O::Bounced) {
        Some(MessageState::Bounced)
    } else if has(O::Delivered) || has(O::Opened) || has(O::Clicked) {
        Some(MessageState::Delivered)
    } else {
        has(O::Accepted).then_some(MessageState::Accepted)
    };
    // a proof that comes after we gave up is kept as a fact and changes the state no more
    let given_up = ended.iter().copied().filter(|state| *state != MessageState::Unknown || proven.is_none());
    proven.into_iter().chain(given_up).collect()
}

fn state_differs(row: &MessageRow, known: &BTreeSet<Outcome>) -> Option<String> {
    let bits = known.iter().map(|outcome| outcome.bit()).sum::<u16>();
    let said: Vec<&str> = known.iter().map(|outcome| outcome.name()).collect();
    let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
    if row.outcomes != bits {
        return Some(format!("its events say {said}, its row something else"));
    }
    let fits = match states_after(known) {
        // tried again where the provider deduplicates
        states if row.state.is_open() => states.iter().all(|state| *state == MessageState::Unknown),
        states if states.is_empty() => row.state == MessageState::Cancelled,
        states => states.contains(&row.state),
    };
    (!fits).then(|| format!("it is {}, its events say {said}", row.state.name()))
}

/// Tries are numbered without a gap, and who took a message or refused it was asked.
fn tries_differ(row: &MessageRow, known: &BTreeSet<Outcome>) -> Option<String> {
    let numbers = row.attempts.iter().map(|attempt| attempt.number);
    if numbers.clone().ne(1..=row.tries) {
        return Some(format!("{} tries on record, {} were begun", row.attempts.len(), row.tries));
    }
    let ended_as = |outcome: Outcome| row.attempts.iter().any(|attempt| attempt.outcome.as_deref() == Some(outcome.name()));
    let in_doubt = row.attempts.iter().any(|attempt| attempt.outcome.as_deref().is_none_or(|outcome| outcome == "unknown"));
    for outcome in [Outcome::Accepted, Outcome::Failed, Outcome::Dead] {
        // what a provider reports later needs no try that said so, if one of them is in doubt
        let untold = known.contains(&outcome) && !ended_as(outcome) && !in_doubt && !row.attempts.is_empty();
        let unheard = ended_as(outcome) && !known.contains(&outcome) && known.is_empty();
        if untold || unheard {
            return Some(format!("its tries and its events do not agree that it was {}", outcome.name()));
        }
    }
    let went = matches!(row.state, MessageState::Accepted | MessageState::Delivered | MessageState::Bounced | MessageState::Unknown);
    (went && row.attempts.is_empty()).then(|| format!("it is {} and was never tried", row.state.name()))
}
