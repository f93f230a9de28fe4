//! What of one person may go. State is a fold of facts and is kept; so what has been folded into it is not asked for again, except
//! as a proof. Here stands what must remain because something still hangs on it:
//!
//! - of **facts**: what waits to be absorbed, and everything of a visitor who is not known by name: whoever signs up tomorrow hears them
//!   anew. (The store itself keeps what was said of a person or agreed to, see [`crate::store::retention::Removal`].)
//! - of **messages**: those that are open or in doubt, those of a run that goes on, and those that announced a deduction: without
//!   its notice a deduction has no right. (What counts against a cap is a slot in the person's row.)
//! - of **decisions**: every line of a run until all of them are old and the run is over, and what tells why something is held.
//!
//! Ledger, exposures, consents with their proof, suppressions and the record of erasures are in no schedule.

use std::collections::{BTreeMap, BTreeSet};

use super::Cutoffs;
use crate::engine::action::{MessageId, MessageState};
use crate::engine::profile::{Name, Profile};
use crate::engine::time::Timestamp;
use crate::store::retention::RemovalOf;
use crate::store::{EntryRow, History, Identity, MessageRow, StoredProfile};

/// What of this person may go; none if nothing may. Who is set aside waits for somebody to look, with everything.
pub fn plan(stored: &StoredProfile, history: &History, cutoffs: &Cutoffs) -> Option<RemovalOf> {
    let is_closed = stored.merged_into.is_some() || history.identities.is_empty();
    if stored.quarantined.is_some() && !is_closed {
        return None;
    }
    let is_known = history.identities.iter().any(|identity| matches!(identity, Identity::User(_)));
    let profile = &stored.profile;
    let events = cutoffs.events.is_some_and(|before| {
        (is_known || is_closed) && history.events.iter().any(|(event, absorbed)| *absorbed && event.received_at < before)
    });
    let removal = RemovalOf {
        profile: stored.id,
        version: stored.version,
        events,
        messages: cutoffs.messages.map(|before| messages(profile, history, before)).unwrap_or_default(),
        decisions: cutoffs.decisions.map(|before| decisions(profile, &history.entries, before)).unwrap_or_default(),
    };
    (removal.events || !removal.messages.is_empty() || !removal.decisions.is_empty()).then_some(removal)
}

fn messages(profile: &Profile, history: &History, before: Timestamp) -> Vec<MessageId> {
    let notices: BTreeSet<MessageId> = history.postings.iter().filter_map(|posting| posting.notice).collect();
    let may_go = |row: &&MessageRow| {
        let message = &row.message;
        let is_over = !row.state.is_open() && row.state != MessageState::Unknown && row.changed_at < before;
        is_over && !goes_on(profile, &message.rule, message.run) && !notices.contains(&message.id)
    };
    history.messages.iter().filter(may_go).map(|row| row.message.id).collect()
}

/// Whole runs, so that the log never tells of an end without a beginning.
fn decisions(profile: &Profile, entries: &[EntryRow], before: Timestamp) -> Vec<i64> {
    let mut latest: BTreeMap<(&Name, u32), Timestamp> = BTreeMap::new();
    for row in entries {
        let at = latest.entry((&row.entry.rule, row.entry.run)).or_insert(row.entry.at);
        *at = (*at).max(row.entry.at);
    }
    let is_held = |rule: &Name, run: u32| profile.holds.iter().any(|hold| hold.rule == *rule && hold.run == run);
    let may_go = |row: &&EntryRow| {
        let (rule, run) = (&row.entry.rule, row.entry.run);
        // lines of no run stand each for itself
        let at = if run == 0 { Some(row.entry.at) } else { latest.get(&(rule, run)).copied() };
        at.is_some_and(|at| at < before) && !goes_on(profile, rule, run) && !is_held(rule, run)
    };
    entries.iter().filter(may_go).map(|row| row.seq).collect()
}

fn goes_on(profile: &Profile, rule: &Name, run: u32) -> bool {
    profile.runs.iter().any(|own| own.rule == *rule && own.number == run)
}

/// Whether this person is long gone: nothing was heard of them since `before`, nothing goes on for them, they have nothing left to lose,
/// and nothing is on its way to them.
pub fn is_long_gone(stored: &StoredProfile, history: &History, before: Timestamp) -> bool {
    let profile = &stored.profile;
    let heard = history.events.iter().filter(|(event, _)| event.kind != crate::engine::event::EventKind::Engine);
    let last = heard.map(|(event, _)| event.received_at).chain(profile.activity.last_active_at).chain(profile.first_seen_at).max();
    let has_points = profile.wallet.lots.iter().any(|lot| lot.left > 0);
    let is_settled = |row: &MessageRow| !row.state.is_open() && row.changed_at < before;
    stored.merged_into.is_none()
        && stored.quarantined.is_none()
        && stored.waiting.is_empty()
        && last.is_some_and(|last| last < before)
        && profile.runs.is_empty()
        && !has_points
        && history.messages.iter().all(is_settled)
}
