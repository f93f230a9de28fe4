//! Stage 3: conditions. A passage begins when `audience && when && !unless` turns true and is tried once, after `for`; a run leaves
//! when `when` turns false or `unless` true.

use super::facts::SET_ASIDE_MS;
use super::{Look, Part, all_hold};
use crate::engine::action::What;
use crate::engine::profile::{Name, Passage, Run, RunOutcome, StepState};
use crate::engine::rule::expr::{Condition, EvalError};
use crate::engine::rule::{Action, Rule, Trigger};
use crate::engine::run;
use crate::engine::time::Timestamp;

impl<'a> Look<'a> {
    /// Ends what is over, leaves what no longer holds, begins what does.
    pub(super) fn judge(&mut self) {
        self.close_finished();
        self.leave();
        self.close_finished();
        for rule in self.rules() {
            if let Trigger::When(when) = &rule.trigger
                && rule.enabled
                && let Err(error) = self.pass(rule, when)
            {
                self.set_aside(rule, &error);
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------------------- ends

    /// Runs with nothing left to do are done; those that may yet need their next channel stay in the row until that chance is over.
    fn close_finished(&mut self) {
        for index in 0..self.profile.runs.len() {
            let Some(run) = self.profile.runs.get(index) else { continue };
            if run.ended.is_none() && run.steps.iter().all(run::is_finished) {
                self.end_run(index, RunOutcome::Done, "all steps are done");
            }
        }
        let over: Vec<bool> = self.profile.runs.iter().map(|run| self.is_over(run)).collect();
        let mut over = over.into_iter();
        self.profile.runs.retain(|_| !over.next().unwrap_or(false));
    }

    fn is_over(&self, run: &Run) -> bool {
        let Some(rule) = self.ctx.rule_of(run) else { return run.ended.is_some() };
        match run.ended {
            None => false,
            // its messages can still be called back, and a result that is not known yet may ask for the next channel
            Some(_) if !run.open_messages().is_empty() => false,
            Some(RunOutcome::Done) => !run.steps.iter().enumerate().any(|(index, step)| self.may_fall_back(rule, run, index, step)),
            Some(_) => run
                .steps
                .iter()
                .enumerate()
                .skip(rule.steps.len())
                .all(|(index, step)| run::is_finished(step) && !self.may_fall_back(rule, run, index, step)),
        }
    }

    /// Whether a sent step may still need its next channel: a bounce can follow an acceptance.
    fn may_fall_back(&self, rule: &Rule, run: &Run, index: usize, step: &StepState) -> bool {
        let (StepState::Sent { tries, .. }, Some(written)) = (step, run::step_at(rule, index)) else { return false };
        let Action::Send(send) = &written.action else { return false };
        use crate::engine::action::Outcome::{Cancelled, Clicked, Delivered, Expired, Opened, Unknown};
        let settled =
            matches!(tries.last().and_then(|last| last.outcome), Some(Delivered | Opened | Clicked | Unknown | Expired | Cancelled));
        if settled || run::channels_left(&send.channels, tries).is_empty() {
            return false;
        }
        let planned = run::planned(rule, run, index, &self.profile.key, &self.zone);
        let deadline = run::deadline(&self.ctx.rules.policy, rule, written, planned, &self.zone);
        // past the deadline its turn comes once more, to say that there is no time left
        let is_held = || self.profile.holds.iter().any(|h| h.rule == run.rule && h.run == run.number && h.step == written.id);
        let has_failed =
            || run::lets_next_follow(tries.last().and_then(|last| last.outcome)) && tries.iter().all(|t| t.accepted_at.is_none());
        self.now <= deadline || is_held() || has_failed()
    }

    /// Runs whose rule is gone, whose time is over, or whose condition no longer holds.
    fn leave(&mut self) {
        for index in 0..self.profile.runs.len() {
            let Some(run) = self.profile.runs.get(index).cloned() else { continue };
            let Some(rule) = self.ctx.rule_of(&run) else {
                self.end_run(index, RunOutcome::Disabled, "the rule is gone or disabled");
                continue;
            };
            if run.ended.is_some_and(|outcome| outcome != RunOutcome::Done) {
                continue;
            }
            match self.why_leave(rule) {
                Ok(None) => {}
                // also if it was done already, and kept for a message that has not gone out or for its next channel: that is over too
                Ok(Some((outcome, because))) => self.end_run(index, outcome, because),
                Err(error) => self.set_aside(rule, &error),
            }
        }
    }

    fn why_leave(&self, rule: &Rule) -> Result<Option<(RunOutcome, &'static str)>, EvalError> {
        if rule.active.is_some_and(|active| self.now >= active.until) {
            return Ok(Some((RunOutcome::Expired, "its `active` span is over")));
        }
        if let Trigger::When(when) = &rule.trigger
            && !self.truth(Some(when), true)?
        {
            return Ok(Some((RunOutcome::Left, "`when` no longer holds")));
        }
        if self.truth(rule.unless.as_ref(), false)? {
            return Ok(Some((RunOutcome::Left, "`unless` has come true")));
        }
        Ok(None)
    }

    // --------------------------------------------------------------------------------------------------------------- begins

    fn pass(&mut self, rule: &'a Rule, when: &'a Condition) -> Result<(), EvalError> {
        let was = self.profile.memory(&rule.id).map_or(Passage::False, |memory| memory.passage);
        if let Passage::Existing(_) = was {
            // left alone until `when` itself has been false
            if !self.truth(Some(when), true)? {
                self.memory_mut(rule).passage = Passage::False;
            }
            return Ok(());
        }
        let stands = self.is_active(rule) && self.stands(rule, when)?;
        match (stands, was) {
            (false, Passage::False) => {}
            (false, _) => {
                self.memory_mut(rule).passage = Passage::False;
                self.unhold(&rule.id, 0, &Name::from(""));
            }
            (true, Passage::False) => {
                let now = self.now;
                self.memory_mut(rule).passage = Passage::Pending(now);
                if !rule.hold_for.is_zero() {
                    let until = rule.hold_for.after(now, &self.zone);
                    self.log(&rule.id, 0, &Name::from(""), What::Pending, format!("must hold for {}", rule.hold_for), Some(until));
                }
                self.try_passage(rule, now);
            }
            (true, Passage::Pending(since) | Passage::Waiting(since)) => self.try_passage(rule, since),
            (true, Passage::Tried(_) | Passage::Existing(_)) => {}
        }
        Ok(())
    }

    fn stands(&self, rule: &Rule, when: &Condition) -> Result<bool, EvalError> {
        Ok(self.truth(rule.audience.as_ref(), true)? && self.truth(Some(when), true)? && !self.truth(rule.unless.as_ref(), false)?)
    }

    fn is_active(&self, rule: &Rule) -> bool {
        rule.active.is_none_or(|active| active.from <= self.now && self.now < active.until)
    }

    /// Once `for` is over: the run starts, or entries wait, or this passage has had its chance.
    fn try_passage(&mut self, rule: &'a Rule, since: Timestamp) {
        if self.now < rule.hold_for.after(since, &self.zone) || self.now < since {
            return;
        }
        if let Some((gate, because, until)) = self.closed(rule) {
            self.memory_mut(rule).passage = Passage::Waiting(since);
            return self.hold(&rule.id, 0, &Name::from(""), gate, because, until);
        }
        self.unhold(&rule.id, 0, &Name::from(""));
        self.memory_mut(rule).passage = Passage::Tried(since);
        self.try_start(rule, Name::from(""), Name::from(""), self.now);
    }

    // ------------------------------------------------------------------------------------------------------------------ due

    /// When a rule's conditions can next change anything for this person while no fact changes.
    pub(super) fn next_of_conditions(&self, rule: &Rule, when: &Condition) -> Timestamp {
        let passage = self.profile.memory(&rule.id).map_or(Passage::False, |memory| memory.passage);
        let parts: Vec<Part<'_>> = match passage {
            Passage::Existing(_) => vec![(when, false)],
            _ => Self::entry_parts(rule, when),
        };
        let flip = match all_hold(self.names, self.subject(), &parts) {
            Ok(verdict) => verdict.until,
            Err(_) => self.now.plus_ms(SET_ASIDE_MS),
        };
        let chance = match passage {
            Passage::Pending(since) => rule.hold_for.after(since, &self.zone).max(since),
            Passage::Waiting(_) => self.closed(rule).map_or(Timestamp::FOREVER, |(_, _, until)| until),
            _ => Timestamp::FOREVER,
        };
        let edges = rule.active.into_iter().flat_map(|active| [active.from, active.until]).filter(|edge| *edge > self.now);
        edges.chain([flip, chance]).min().unwrap_or(Timestamp::FOREVER)
    }

    /// When a live run may have to leave by the clock.
    pub(super) fn next_leave(&self, rule: &Rule) -> Timestamp {
        let when = match &rule.trigger {
            Trigger::When(when) => Some((when, false)),
            _ => None,
        };
        let parts: Vec<Part<'_>> = when.into_iter().chain(rule.unless.iter().map(|unless| (unless, true))).collect();
        let flip = match all_hold(self.names, self.subject(), &parts) {
            Ok(verdict) => verdict.until,
            Err(_) => self.now.plus_ms(SET_ASIDE_MS),
        };
        rule.active.map_or(flip, |active| flip.min(active.until))
    }
}
