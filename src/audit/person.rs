//! One person under examination: every part of the row that is a fold of facts, folded anew.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::Finding;
use crate::engine::absorb::absorb;
use crate::engine::action::{MessageState, PostingKind, What};
use crate::engine::decide::{self, Context};
use crate::engine::event::{Event, EventKind};
use crate::engine::gate::holdout;
use crate::engine::points;
use crate::engine::profile::{Exposure, Name, Point, Profile, Series};
use crate::engine::rule::{Action, Cap, CapWindow, RuleSet, Step};
use crate::engine::run::TOOK_PLACE;
use crate::engine::time::{Timestamp, Zone};
use crate::store::{ConsentRecord, EntryRow, History, Identity, MessageRow, StoredProfile};

/// One person under examination.
pub(super) struct Person<'a> {
    pub ctx: &'a Context<'a>,
    pub stored: &'a StoredProfile,
    pub history: &'a History,
    pub found: Vec<Finding>,
}

impl Person<'_> {
    pub fn examine(mut self) -> Vec<Finding> {
        self.facts();
        self.identities();
        self.consents();
        self.ledger();
        self.caps();
        self.runs();
        self.exposures();
        self.messages();
        self.due();
        self.found
    }

    pub(super) fn find(&mut self, what: &'static str, detail: impl Into<String>) {
        self.found.push(Finding { user: self.stored.profile.key.clone(), what, detail: detail.into() });
    }

    /// The part of the row that is a fold of events and of nothing else.
    fn facts(&mut self) {
        let stored = &self.stored.profile;
        let mut events: Vec<&Event> = self.history.events.iter().filter(|(_, absorbed)| *absorbed).map(|(event, _)| event).collect();
        events.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
        let mut again = Profile::new(&stored.key);
        events.iter().for_each(|event| absorb(&mut again, event, self.ctx.rules.names()));
        let since = self.history.removed.events.map(|mark| mark.older_than);
        let by_rules = attributes_set_by_rules(self.ctx.rules);
        let attributes = |profile: &Profile| {
            profile
                .attributes
                .iter()
                .filter(|(name, _)| !by_rules.contains(*name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        // a feature that was declared later has not seen what came before
        let features = |profile: &Profile, other: &Profile| {
            profile
                .features
                .iter()
                .filter(|(name, _)| other.features.contains_key(*name))
                .map(|(name, series)| (name.clone(), series.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let differs = [
            ("country", again.country != stored.country),
            ("locale", again.locale != stored.locale),
            ("zone", again.zone != stored.zone),
            ("attributes", attributes(&again) != attributes(stored)),
            ("addresses", again.addresses != stored.addresses),
            ("consents", again.consents != stored.consents),
        ];
        let deeds = match since {
            None => vec![
                ("first_seen_at", again.first_seen_at != stored.first_seen_at),
                ("activity", again.activity != stored.activity),
                ("orders", again.orders != stored.orders),
                ("refunds", again.refunds != stored.refunds),
                ("features", features(&again, stored) != features(stored, &again)),
            ],
            // deeds before that instant were removed: what has come since is what can still be proved
            Some(since) => vec![
                ("first_seen_at", again.first_seen_at < stored.first_seen_at),
                ("activity", active_since(&again, since) != active_since(stored, since)),
                ("orders", points_since(&again.orders, since) != points_since(&stored.orders, since)),
                ("refunds", points_since(&again.refunds, since) != points_since(&stored.refunds, since)),
            ],
        };
        for (part, _) in differs.iter().chain(&deeds).filter(|(_, differs)| *differs) {
            self.find("facts", format!("`{part}` is not what {} events on record say", events.len()));
        }
    }

    /// Under the identity a person was created by, a sender must find this person again.
    fn identities(&mut self) {
        let key = &self.stored.profile.key;
        let own = |identity: &Identity| matches!(identity, Identity::User(value) | Identity::Anonymous(value) if value == key);
        if !self.history.identities.iter().any(own) {
            self.find("identities", "no identity leads to this person any more: new events of the same person would make another");
        }
    }

    /// Each consent event has its proof, and no proof speaks of an event that never was.
    fn consents(&mut self) {
        let events = self.history.events.iter().map(|(event, _)| event).filter(|event| event.kind == EventKind::Consent);
        let said: BTreeSet<ConsentRecord> = events.map(proof_of).collect();
        let kept: BTreeSet<ConsentRecord> = self.history.consents.iter().cloned().collect();
        for record in said.difference(&kept) {
            let detail = format!("the consent event `{}` has no proof that says the same", record.event);
            self.find("consents", detail);
        }
        for record in kept.difference(&said) {
            self.find("consents", format!("the proof of `{}` says what no event on record says", record.event));
        }
    }

    fn ledger(&mut self) {
        let postings = &self.history.postings;
        if postings.len() != self.stored.profile.postings as usize {
            self.find("ledger", format!("{} postings on record, the row counts {}", postings.len(), self.stored.profile.postings));
        }
        if let Err(difference) = points::audit(&self.stored.profile.wallet, postings) {
            self.find("ledger", difference);
        }
        for posting in postings.iter().filter(|posting| posting.kind == PostingKind::Take) {
            let notice = posting.notice.and_then(|id| self.history.messages.iter().find(|row| row.message.id == id));
            let delivered = notice.is_some_and(|row| matches!(row.state, MessageState::Accepted | MessageState::Delivered));
            let first = notice.and_then(|row| row.attempts.first()).map(|attempt| attempt.started_at);
            // a bounce that came after the deduction does not undo the notice of that time
            let bounced_later = notice.is_some_and(|row| row.state == MessageState::Bounced && row.changed_at > posting.at);
            if !(delivered || bounced_later) || first.is_none_or(|first| first >= posting.at) {
                self.find("ledger", format!("{} points were taken at {} without a notice delivered before", -posting.amount, posting.at));
            }
        }
    }

    /// No cap of the live set was exceeded by messages decided under it.
    fn caps(&mut self) {
        let zone = self.ctx.rules.policy.zone_of(&self.stored.profile);
        let reached: Vec<(&MessageRow, Timestamp)> = self.history.messages.iter().filter_map(|row| Some((row, reached_at(row)?))).collect();
        for cap in &self.ctx.rules.policy.caps {
            let mut instants: Vec<Timestamp> = reached.iter().filter(|(row, _)| self.counts_against(cap, row)).map(|(_, at)| *at).collect();
            instants.sort_unstable();
            if let Some((at, count)) = exceeded(cap, &instants, &zone, self.ctx.rules) {
                self.find("caps", format!("cap `{}` allows {}, at {at} there were {count}", cap.id, cap.max));
            }
        }
    }

    fn counts_against(&self, cap: &Cap, row: &MessageRow) -> bool {
        let message = &row.message;
        let tags = self.ctx.rules.rule(&message.rule).map(|rule| rule.tags.as_slice()).unwrap_or_default();
        message.version == self.ctx.rules.version
            && (cap.channels.is_empty() || cap.channels.contains(&message.channel))
            && (cap.categories.is_empty() || cap.categories.contains(&message.category))
            && (cap.tags.is_empty() || cap.tags.iter().any(|tag| tags.contains(tag)))
    }

    /// Runs begun and ended, by the log and by the row.
    fn runs(&mut self) {
        let mut begun: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for row in &self.history.entries {
            let (entered, ended) = begun.entry(&row.entry.rule).or_default();
            *entered += u32::from(row.entry.what == What::Entered);
            *ended += u32::from(row.entry.what == What::Ended);
        }
        let profile = &self.stored.profile;
        let rules: BTreeSet<&str> = begun.keys().copied().chain(profile.rules.keys().map(|rule| &**rule)).collect();
        for rule in rules {
            let (entered, ended) = begun.get(rule).copied().unwrap_or_default();
            let known = profile.rules.get(rule).map_or(0, |memory| memory.runs);
            // whole runs are removed, so what is left of the log counts what is left of the runs
            let differs = if self.history.removed.decisions.is_some() { entered > known } else { entered != known };
            if differs {
                self.find("runs", format!("rule `{rule}`: the log says {entered} runs began, the row {known}"));
            }
            let under_way = profile.runs.iter().filter(|run| &*run.rule == rule && run.ended.is_none()).count();
            if entered.saturating_sub(ended) as usize != under_way {
                self.find(
                    "runs",
                    format!("rule `{rule}`: by the log {} are under way, by the row {under_way}", entered.saturating_sub(ended)),
                );
            }
        }
        for hold in &profile.holds {
            let said = |row: &&crate::store::EntryRow| {
                row.entry.what == What::Held && row.entry.rule == hold.rule && row.entry.run == hold.run && row.entry.step == hold.step
            };
            if !self.history.entries.iter().any(|row| said(&row)) {
                self.find(
                    "runs",
                    format!("rule `{}`, step `{}` is held by {} and the log does not say so", hold.rule, hold.step, hold.gate),
                );
            }
        }
    }

    /// Every run that was asked is on one side, for good: by the row, by the log, and by the stable hash that chose it.
    fn exposures(&mut self) {
        let exposures = &self.history.exposures;
        let of = |rule: &Name, run: u32| exposures.iter().find(|exposure| exposure.rule == *rule && exposure.run == run);
        let mut found = Vec::new();
        for run in &self.stored.profile.runs {
            let stored = run.exposure.map(|side| side == Exposure::HeldOut);
            if of(&run.rule, run.number).map(|exposure| exposure.held_out) != stored {
                found.push(format!(
                    "rule `{}`, run {}: the row says {}, the record {}",
                    run.rule,
                    run.number,
                    side(stored),
                    side(of(&run.rule, run.number).map(|exposure| exposure.held_out))
                ));
            }
        }
        for row in &self.history.entries {
            let entry = &row.entry;
            let treats = self.ctx.set(row.rules_version).and_then(|set| set.rule(&entry.rule)).is_some_and(|rule| rule.treats);
            if entry.what == What::Queued && treats && of(&entry.rule, entry.run).is_none() {
                found.push(format!(
                    "rule `{}`, run {}: a message was queued and nobody asked on which side the run is",
                    entry.rule, entry.run
                ));
            }
        }
        for exposure in exposures {
            let begun =
                |row: &&EntryRow| row.entry.what == What::Entered && row.entry.rule == exposure.rule && row.entry.run == exposure.run;
            let Some(begun) = self.history.entries.iter().find(begun) else {
                if self.history.removed.decisions.is_some_and(|mark| exposure.at < mark.older_than) {
                    continue;
                }
                found.push(format!(
                    "rule `{}`, run {}: it is {} and never began",
                    exposure.rule,
                    exposure.run,
                    side(Some(exposure.held_out))
                ));
                continue;
            };
            // the holdout may have been another one in an older set, and changes for those who come later only; a run that took another's
            // place stays on its side
            if begun.rules_version == self.ctx.rules.version
                && *begun.entry.because != *TOOK_PLACE
                && let Some(rule) = self.ctx.rules.rule(&exposure.rule)
                && let Some((by_hash, _)) = holdout::assign(self.ctx, rule, &self.stored.profile)
                && (by_hash == Exposure::HeldOut) != exposure.held_out
            {
                let (said, is) = (side(Some(exposure.held_out)), side(Some(by_hash == Exposure::HeldOut)));
                found.push(format!("rule `{}`, run {}: recorded as {said}, and the person's hash says {is}", exposure.rule, exposure.run));
            }
        }
        found.into_iter().for_each(|detail| self.find("exposures", detail));
    }

    /// What waits makes its person due; who is set aside waits for somebody to look.
    fn due(&mut self) {
        if let Some((at, because)) = &self.stored.quarantined {
            self.find("due", format!("set aside at {at}: {because}"));
            return;
        }
        let own = |event: &&Event| event.kind != EventKind::Engine;
        if let Some(waiting) = self.stored.waiting.iter().filter(own).map(|event| event.received_at).min()
            && self.stored.due_at > waiting
        {
            self.find("due", format!("an event received at {waiting} waits, and the next look is at {}", self.stored.due_at));
        }
        let wanted = decide::next_due(self.ctx, &self.stored.profile);
        if self.stored.due_at > wanted {
            let next = if self.stored.due_at.is_forever() { "never".to_owned() } else { format!("at {}", self.stored.due_at) };
            self.find("due", format!("something is due at {wanted}, and the next look is {next}"));
        }
    }
}

/// When the person was there from an instant on, as far as the row tells.
fn active_since(profile: &Profile, since: Timestamp) -> (Option<Timestamp>, Vec<Timestamp>) {
    let activity = &profile.activity;
    let recent = activity.recent.iter().copied().filter(|at| *at >= since).collect();
    (activity.last_active_at.filter(|at| *at >= since), recent)
}

/// What was counted from an instant on, as far as the row tells.
fn points_since(series: &Series, since: Timestamp) -> Vec<Point> {
    series.points.iter().copied().filter(|point| point.at >= since).collect()
}

fn side(held_out: Option<bool>) -> &'static str {
    match held_out {
        Some(true) => "held out",
        Some(false) => "treated",
        None => "not asked",
    }
}

/// What the proof of a consent event says.
fn proof_of(event: &Event) -> ConsentRecord {
    let text = |name: &str| Name::from(event.text_property(name).unwrap_or_default());
    let granted = match event.property("granted") {
        Some(Json::Bool(granted)) => *granted,
        Some(Json::String(text)) => text == "true",
        Some(Json::Number(number)) => number.as_i64() == Some(1),
        _ => false,
    };
    ConsentRecord {
        event: event.id.clone(),
        source: event.source.clone(),
        purpose: text("purpose"),
        channel: text("channel"),
        granted,
        occurred_at: event.occurred_at,
    }
}

/// Attributes that a rule's `set` may write: not a fold of events alone.
fn attributes_set_by_rules(rules: &RuleSet) -> BTreeSet<Name> {
    let steps = rules.rules.iter().flat_map(|rule| rule.steps.iter().chain(&rule.on_exit));
    let set = |step: &Step| match &step.action {
        Action::Set(assignments) => assignments.iter().map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    };
    steps.flat_map(set).collect()
}

/// When a message may have reached a provider: its attempt that was not definitely refused.
fn reached_at(row: &MessageRow) -> Option<Timestamp> {
    let refused = |outcome: &Name| matches!(&**outcome, "failed" | "retry" | "dead");
    let attempt = row.attempts.iter().rfind(|attempt| !attempt.outcome.as_ref().is_some_and(refused))?;
    Some(attempt.started_at)
}

/// The first instant at which a cap was exceeded, with the count; `instants` are sorted.
fn exceeded(cap: &Cap, instants: &[Timestamp], zone: &Zone, rules: &RuleSet) -> Option<(Timestamp, usize)> {
    let most = cap.max as usize;
    if let CapWindow::Rolling(window_ms) = cap.window {
        // half-open: what was sent exactly one window ago does not count any more
        return instants.iter().enumerate().find_map(|(index, at)| {
            let first = instants.partition_point(|other| *other <= at.plus_ms(-window_ms));
            let count = index + 1 - first;
            (count > most).then_some((*at, count))
        });
    }
    let mut counts: BTreeMap<jiff::civil::Date, usize> = BTreeMap::new();
    instants.iter().find_map(|at| {
        let date = at.local(zone).date();
        let period = match cap.window {
            CapWindow::LocalWeek => {
                let back = date.weekday().since(rules.policy.week_start);
                date.checked_sub(jiff::Span::new().days(i64::from(back))).unwrap_or(date)
            }
            CapWindow::LocalMonth => date.first_of_month(),
            CapWindow::LocalDay | CapWindow::Rolling(_) => date,
        };
        let count = counts.entry(period).or_default();
        *count += 1;
        (*count > most).then_some((*at, *count))
    })
}
