//! Stage 1: what happened. Waiting events are absorbed in the order in which they happened; what books (lots, reviews) books at its
//! own instants in between; runs begin for events, and rules that never saw this person ask who was there before them.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Look, Part};
use crate::engine::action::{ExposureRecord, MessageId, What};
use crate::engine::event::{Event, EventKind, Value};
use crate::engine::points::{self, Booked};
use crate::engine::profile::{Exposure, Name, Passage, Run, RunOutcome, Start, StepState, WaitingEntry};
use crate::engine::rule::expr::{EvalError, Subject};
use crate::engine::rule::{Existing, Reentry, Rule, Trigger, WhileRunning};
use crate::engine::time::{DAY_MS, SECOND_MS, Timestamp};
use crate::engine::{absorb, coupon, gate, run, tier};

/// Most starts remembered per rule: the latest, one per key.
const STARTS_KEPT: usize = 64;

/// Most runs of one rule and key side by side (`while_running: parallel`), so that no flood of events makes the row grow without end.
const PARALLEL_MAX: usize = 64;

impl<'a> Look<'a> {
    /// Absorbs the waiting events, oldest first; everything that fell due on the way is booked at its own instant.
    pub(super) fn absorb(&mut self, events: &[Event]) {
        let mut first_looks = self.first_looks(events).into_iter().peekable();
        for (index, event) in events.iter().enumerate() {
            while let Some((at, rule)) = first_looks.next_if(|(at, _)| *at <= event.occurred_at) {
                self.ask_existing(rule, at);
            }
            // at one instant events come before timers, so only what fell due earlier is booked before this event
            self.book(event.occurred_at.plus_ms(-1));
            let mut same_instant = events.iter().skip(index + 1).take_while(|next| next.occurred_at == event.occurred_at);
            let is_deed = |next: &Event| next.kind == EventKind::Track && absorb::rule_name(next, self.names.dictionary).is_some();
            let is_last_deed = !same_instant.any(is_deed);
            self.hear(event, 0, is_last_deed);
        }
        for (at, rule) in first_looks {
            self.ask_existing(rule, at);
        }
        self.book(self.now);
        self.admit_waiting();
    }

    /// Books what falls due up to and including `until`: expiries, lapses, tier reviews.
    fn book(&mut self, until: Timestamp) {
        let mut booked = Booked::default();
        points::book(&mut self.profile, self.names, until, &mut booked);
        tier::book(&mut self.profile, self.names, until, &mut booked);
        booked.events.sort_by_key(|own| own.at);
        self.take_in(booked, 1);
    }

    /// Takes one event in: facts, what it restores, earns and (`qualifies`) lifts to, runs that it stops and starts. What happens at one
    /// instant counts together: an order that is refunded at its own instant lifts nobody, so only the last deed of an instant qualifies.
    pub(super) fn hear(&mut self, event: &Event, generation: u8, qualifies: bool) {
        if let Some((message, outcome)) = run::read_result(event) {
            if run::never_went(outcome) {
                self.release_coupon(message);
                self.forget_sent(message, event);
            }
            run::hear_result(&mut self.profile, message, outcome, event);
        }
        absorb::absorb(&mut self.profile, event, self.names);
        if event.kind != EventKind::Engine {
            self.zone = self.ctx.rules.policy.zone_of(&self.profile);
        }
        let Some(name) = absorb::rule_name(event, self.names.dictionary) else { return };
        let mut booked = Booked::default();
        if absorb::is_active(event, self.names.dictionary) {
            points::restore(&mut self.profile, self.names, event.occurred_at, self.now, &mut booked);
        }
        points::earn(&mut self.profile, event, self.names, &mut booked);
        coupon::redeem(&mut self.profile, event, self.names, &mut booked);
        if qualifies {
            let at = self.at_or_after_last_look(event.occurred_at);
            tier::qualify(&mut self.profile, self.names, at, &mut booked);
        }
        self.take_in(booked, generation + 1);
        self.stop_runs(&name, event);
        self.start_event_runs(&name, event);
    }

    /// `at_most` counts runs that sent or reserved a message: one whose only message never went does not count. A message that a
    /// restart has handed on is of the run that has it now.
    fn forget_sent(&mut self, message: MessageId, event: &Event) {
        let (Some(rule), Some(number)) = (event.text_property("rule"), event.property("run").and_then(Json::as_u64)) else { return };
        let has = |run: &&Run| run.rule.as_ref() == rule && run.tries().any(|t| t.message == message);
        let holder = self.profile.runs.iter().rev().find(has);
        let went = holder.is_some_and(|run| run.tries().any(|t| t.message != message && t.accepted_at.is_some()));
        let number = holder.map_or(number, |run| u64::from(run.number));
        if let Some(memory) = self.profile.rules.get_mut(rule).filter(|_| !went) {
            memory.sent_runs.retain(|(run, _)| u64::from(*run) != number);
        }
    }

    /// A late event books now, not into a past that has been decided.
    fn at_or_after_last_look(&self, at: Timestamp) -> Timestamp {
        self.profile.decided_at.map_or(at, |last| at.max(last))
    }

    // ------------------------------------------------------------------------------------------------------- existing people

    /// When which rule asks for existing people, in order: at its first look at the instant it went live (or `lateness.start` ago),
    /// and again that long ago if this look absorbs older events (an import).
    fn first_looks(&self, events: &[Event]) -> Vec<(Timestamp, &'a Rule)> {
        let horizon = self.now.plus_ms(-self.ctx.rules.policy.lateness_start_ms);
        let imports = events.iter().any(|event| event.occurred_at < horizon && event.kind != EventKind::Engine);
        let mut looks = vec![];
        for rule in self.rules().iter().filter(|rule| rule.enabled && matches!(rule.trigger, Trigger::When(_))) {
            let is_first = !self.profile.looked.contains(&rule.when_hash);
            if is_first {
                let live_at = self.ctx.world.rules.get(&rule.id).map_or(Timestamp::DISTANT_PAST, |state| state.when_live_at);
                looks.push((live_at.max(horizon), rule));
            } else if imports {
                looks.push((horizon, rule));
            }
        }
        looks.sort_by_key(|(at, _)| *at);
        looks
    }

    /// Asks one rule's `when` as of `at`; whoever satisfies it already, by an earlier fact, is existing.
    fn ask_existing(&mut self, rule: &'a Rule, at: Timestamp) {
        let is_first = !self.profile.looked.contains(&rule.when_hash);
        if is_first {
            self.profile.looked.push(rule.when_hash);
        }
        let Trigger::When(when) = &rule.trigger else { return };
        if self.profile.first_seen_at.is_none() {
            return;
        }
        let subject = Subject { profile: &self.profile, now: at, event: None, run: None };
        let stands = match when.verdict(self.names, subject) {
            Ok(verdict) => verdict.truth,
            Err(error) => return self.set_aside(rule, &error),
        };
        let was = self.profile.memory(&rule.id).map_or(Passage::False, |memory| memory.passage);
        if !is_first && was != Passage::False {
            return;
        }
        let tried_by_the_text_before = matches!(was, Passage::Tried(_) | Passage::Existing(_));
        self.memory_mut(rule).when_hash = rule.when_hash;
        if !stands || tried_by_the_text_before {
            if is_first && !stands {
                self.memory_mut(rule).passage = Passage::False;
            }
            return;
        }
        match rule.existing {
            Existing::Enter => {}
            Existing::Skip => {
                self.memory_mut(rule).passage = Passage::Existing(at);
                self.log(
                    &rule.id,
                    0,
                    &Name::from(""),
                    What::Existing,
                    "satisfied `when` before the rule saw this person: left alone",
                    None,
                );
            }
            Existing::Spread(span) => {
                let spread_ms = (span.exact_ms() as f64 * gate::fraction(&rule.id, &self.profile.key)) as i64;
                let begins = self.now.plus_ms(spread_ms / SECOND_MS * SECOND_MS);
                self.memory_mut(rule).passage = Passage::Pending(begins);
                self.log(
                    &rule.id,
                    0,
                    &Name::from(""),
                    What::Existing,
                    "satisfied `when` before the rule saw this person: spread",
                    Some(begins),
                );
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------ event runs

    fn stop_runs(&mut self, name: &Name, event: &Event) {
        self.drop_waiting(name, event);
        for index in 0..self.profile.runs.len() {
            let is_live = |run: &&Run| matches!(run.ended, None | Some(RunOutcome::Done));
            let Some(run) = self.profile.runs.get(index).filter(is_live) else { continue };
            // what happened before a run began does not stop it; events of one look come in the order in which they happened
            if run.started_at < self.now && event.occurred_at < run.started_at {
                continue;
            }
            let stop = self.ctx.rule_of(run).and_then(|rule| rule.stop_on.as_ref());
            let Some(stop) = stop.filter(|stop| stop.event == *name) else { continue };
            let matches = stop.matching.as_ref().is_none_or(|property| {
                let started = run.event_properties();
                started.get(&**property).is_some_and(|value| event.property(property) == Some(value))
            });
            if matches {
                self.end_run(index, RunOutcome::Stopped, &format!("{name} came"));
            }
        }
    }

    /// What stops a run also ends the wait of an event for its run.
    fn drop_waiting(&mut self, name: &Name, event: &Event) {
        let rules = self.rules();
        self.profile.waiting.retain(|entry| {
            let stop = rules.iter().find(|rule| rule.id == entry.rule).and_then(|rule| rule.stop_on.as_ref());
            let Some(stop) = stop.filter(|stop| stop.event == *name && entry.occurred_at <= event.occurred_at) else { return true };
            !stop.matching.as_ref().is_none_or(|property| {
                let waited: Map<String, Json> = serde_json::from_str(&entry.event).unwrap_or_default();
                waited.get(&**property).is_some_and(|value| event.property(property) == Some(value))
            })
        });
    }

    fn start_event_runs(&mut self, name: &Name, event: &Event) {
        let too_old = event.occurred_at < self.now.plus_ms(-self.ctx.rules.policy.lateness_start_ms);
        for rule in self.rules() {
            let Trigger::Event { event: wanted, .. } = &rule.trigger else { continue };
            if wanted != name || !rule.enabled || too_old {
                continue;
            }
            match self.event_entry(rule, &event.properties) {
                Ok(None) => {}
                Ok(Some(key)) => self.enter_by_event(rule, key, event),
                Err(error) => self.set_aside(rule, &error),
            }
        }
    }

    /// The key of the run that this event starts, if audience, `where` and `unless` let it.
    fn event_entry(&self, rule: &Rule, properties: &Map<String, Json>) -> Result<Option<Name>, EvalError> {
        let Trigger::Event { filter, key, .. } = &rule.trigger else { return Ok(None) };
        if rule.active.is_some_and(|active| self.now < active.from || self.now >= active.until) {
            return Ok(None);
        }
        let subject = Subject { event: Some(properties), ..self.subject() };
        let parts: [(Option<&_>, bool); 3] = [(rule.audience.as_ref(), false), (filter.as_ref(), false), (rule.unless.as_ref(), true)];
        for (condition, negated) in parts.into_iter().filter_map(|(condition, negated)| Some((condition?, negated))) {
            if condition.verdict(self.names, subject)?.truth == negated {
                return Ok(None);
            }
        }
        let Some(key) = key else { return Ok(Some(Name::from(""))) };
        Ok(match key.reading(self.names, subject)?.0 {
            Some(Value::Text(text)) => Some(text),
            Some(value) => Some(Arc::from(value.to_string())),
            // an event without its key starts nothing
            None => None,
        })
    }

    fn enter_by_event(&mut self, rule: &'a Rule, key: Name, event: &Event) {
        let properties: Arc<str> = serde_json::Value::Object(event.properties.clone()).to_string().into();
        if let Some((gate, because, until)) = self.closed(rule) {
            self.log(&rule.id, 0, &Name::from(""), What::Held, format!("{gate}: {because}"), Some(until));
            self.profile.waiting.push(WaitingEntry { rule: rule.id.clone(), key, event: properties, occurred_at: event.occurred_at });
            return;
        }
        self.try_start(rule, key, properties, self.now);
    }

    /// Entries that waited for a pause, a brake or a quiet source start now, unless they have become too old.
    fn admit_waiting(&mut self) {
        let oldest = self.now.plus_ms(-self.ctx.rules.policy.lateness_start_ms);
        for entry in std::mem::take(&mut self.profile.waiting) {
            let Some(rule) = self.rules().iter().find(|rule| rule.id == entry.rule && rule.enabled) else { continue };
            if entry.occurred_at < oldest {
                self.log(&rule.id, 0, &Name::from(""), What::Refused, "the event that waited is too old by now", None);
            } else if self.closed(rule).is_some() {
                self.profile.waiting.push(entry);
            } else {
                let properties = serde_json::from_str(&entry.event).unwrap_or_default();
                match self.event_entry(rule, &properties) {
                    Ok(Some(key)) => self.try_start(rule, key, entry.event, self.now),
                    Ok(None) => self.log(&rule.id, 0, &Name::from(""), What::Refused, "no longer true when entries were let in", None),
                    Err(error) => self.set_aside(rule, &error),
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------- starting a run

    /// Starts a run unless `while_running`, `reentry` or `only_if_at_start` says no. Returns nothing: what happened stands in the log.
    pub(super) fn try_start(&mut self, rule: &'a Rule, key: Name, event: Arc<str>, started_at: Timestamp) {
        let no_step = Name::from("");
        let alive = |run: &&Run| run.rule == rule.id && run.key == key && run.ended.is_none();
        let restarts = match (self.profile.runs.iter().filter(alive).count(), rule.while_running) {
            (0, _) => false,
            (_, WhileRunning::Restart) => true,
            (under_way, WhileRunning::Parallel) if under_way < PARALLEL_MAX => false,
            (under_way, WhileRunning::Parallel) => {
                return self.log(&rule.id, 0, &no_step, What::Refused, format!("{under_way} runs are under way already"), None);
            }
            (_, WhileRunning::Ignore) => return self.log(&rule.id, 0, &no_step, What::Refused, "a run is under way already", None),
        };
        // for `reentry` a run and the one that takes its place are one
        if !restarts && let Some((because, until)) = self.reentry_refuses(rule, &key) {
            return self.log(&rule.id, 0, &no_step, What::Refused, because, Some(until));
        }
        let properties = serde_json::from_str(&event).unwrap_or_default();
        let subject = Subject { event: Some(&properties), ..self.subject() };
        if let Some(condition) = &rule.only_if_at_start {
            let answer = condition.verdict(self.names, subject).map(|verdict| verdict.truth);
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => return self.set_aside(rule, &error),
            };
            let now = self.now;
            self.memory_mut(rule).looked_once = Some((now, answer));
            if !answer {
                let because = format!("only_if_at_start was looked at once, on {now}, and was false");
                return self.log(&rule.id, 0, &no_step, What::Refused, because, None);
            }
        }
        if restarts {
            return self.restart(rule, key, event, started_at);
        }
        self.remember_start(rule, &key, started_at);
        if !rule.shadow {
            self.made.entered.push((rule.id.clone(), self.now));
        }
        self.start(rule, key, event, started_at, "a run begins");
    }

    fn reentry_refuses(&self, rule: &Rule, key: &Name) -> Option<(String, Timestamp)> {
        let (after, max) = match rule.reentry {
            Reentry::Never => (None, Some(1)),
            Reentry::After { after, max } => (Some(after), max),
        };
        let latest = self.profile.memory(&rule.id)?.starts.iter().rev().find(|start| start.key == *key)?;
        if max.is_some_and(|max| latest.times >= max) || after.is_none() {
            return Some(("reentry: it has run as often as it may".to_owned(), Timestamp::FOREVER));
        }
        let again = after?.after(latest.at, &self.zone);
        (self.now < again).then(|| (format!("reentry: it ran on {}", latest.at), again))
    }

    /// What `reentry` will ask for: when this key last started, and how often it has.
    fn remember_start(&mut self, rule: &Rule, key: &Name, at: Timestamp) {
        let (now, zone) = (self.now, self.zone.clone());
        let starts = &mut self.memory_mut(rule).starts;
        let times = starts.iter().find(|start| start.key == *key).map_or(0, |start| start.times);
        starts.retain(|start| {
            // a start that no longer stands in anybody's way need not be remembered
            start.key != *key && !matches!(rule.reentry, Reentry::After { after, max: None } if after.after(start.at, &zone) <= now)
        });
        starts.push(Start { key: key.clone(), at, times: times + 1 });
        if starts.len() > STARTS_KEPT {
            starts.remove(0);
        }
    }

    /// The run under way ends as superseded, and another takes its place: what it has done is done and happens no second time, and for
    /// `reentry`, `at_most`, the brake and the holdout both are one. A notice is given anew: its run is another, and its time too.
    fn restart(&mut self, rule: &'a Rule, key: Name, event: Arc<str>, started_at: Timestamp) {
        let is_alive = |run: &Run| run.rule == rule.id && run.key == key && run.ended.is_none();
        let under_way: Vec<usize> =
            (0..self.profile.runs.len()).filter(|index| self.profile.runs.get(*index).is_some_and(is_alive)).collect();
        for index in &under_way {
            self.end_run(*index, RunOutcome::Superseded, "it came again, and a new run takes its place");
        }
        let before = under_way.last().and_then(|index| self.profile.runs.get(*index)).cloned();
        let number = self.start(rule, key, event, started_at, run::TOOK_PLACE);
        let Some(before) = before else { return };
        self.stay_on_side(rule, &before, number);
        let Some(run) = self.profile.runs.last_mut() else { return };
        let old_rule = self.ctx.rule_of(&before).unwrap_or(rule);
        for (step, state) in rule.steps.iter().zip(&mut run.steps).filter(|(step, _)| step.notice_of.is_none()) {
            let index = old_rule.steps.iter().position(|old| old.id == step.id);
            if let Some(done) = index.and_then(|index| before.steps.get(index)).filter(|state| run::has_happened(state)) {
                *state = done.clone();
            }
        }
        let has_sent = run.tries().next().is_some();
        let memory = self.memory_mut(rule);
        memory.sent_runs.retain(|(run, _)| has_sent || *run != before.number);
        memory.sent_runs.iter_mut().filter(|(run, _)| *run == before.number).for_each(|(run, _)| *run = number);
    }

    /// The run that took another's place is on its side of the holdout, and that is written down for it too.
    fn stay_on_side(&mut self, rule: &Rule, before: &Run, number: u32) {
        let (Some(exposure), Some(run)) = (before.exposure, self.profile.runs.last_mut()) else { return };
        run.exposure = Some(exposure);
        let by = gate::holdout::assign(self.ctx, rule, &self.profile).map_or_else(|| Name::from("policy"), |(_, by)| by);
        let (rule, run_key, held_out) = (rule.id.clone(), before.key.clone(), exposure == Exposure::HeldOut);
        self.made.exposures.push(ExposureRecord { rule, run_key, run: number, at: self.now, held_out, by });
    }

    /// Puts a run with its number into the row.
    fn start(&mut self, rule: &'a Rule, key: Name, event: Arc<str>, started_at: Timestamp, because: &str) -> u32 {
        let memory = self.memory_mut(rule);
        memory.runs += 1;
        memory.outcome = None;
        let number = memory.runs;
        let run = Run {
            rule: rule.id.clone(),
            key,
            number,
            version: self.ctx.rules.version,
            started_at,
            event: if &*event == "{}" { Arc::from("") } else { event },
            exposure: None,
            silence_since: self.profile.silent_since(),
            steps: vec![StepState::Waiting; rule.steps.len()],
            ended: None,
            ended_at: None,
        };
        self.profile.runs.push(run);
        self.log(&rule.id, number, &Name::from(""), What::Entered, because, None);
        number
    }

    /// Conditions under which somebody stands in a rule with `when`: audience, `when`, not `unless`.
    pub(super) fn entry_parts<'r>(rule: &'r Rule, when: &'r crate::engine::rule::expr::Condition) -> Vec<Part<'r>> {
        let audience = rule.audience.iter().map(|condition| (condition, false));
        let unless = rule.unless.iter().map(|condition| (condition, true));
        audience.chain(std::iter::once((when, false))).chain(unless).collect()
    }
}

/// How long a rule that cannot be evaluated is left alone.
pub(super) const SET_ASIDE_MS: i64 = DAY_MS;
