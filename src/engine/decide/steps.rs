//! Stage 4: due steps act. Each asks, in this order: audience, `if`, `require` (or the notice of a take), the gates; a step that had
//! to wait asks all of it again. What is due in one decision asks by priority, then rule, then step order.

use serde_json::{Map, Value as Json, json};

use super::notice::MayTake;
use super::{LOOK_AGAIN_MS, Look};
use crate::engine::action::{Alert, Channel, ExposureRecord, Message, MessageId, Outcome, What, dedupe_key};
use crate::engine::benefit::{self, GrantOrder};
use crate::engine::coupon;
use crate::engine::gate::{self, Answer, Ask, Asked, SendAsked};
use crate::engine::points::{self, Booked, PointsGrant, TakeOrder};
use crate::engine::profile::{Attribute, Exposure, Name, Notice, Run, RunOutcome, Slot, StepState, Try};
use crate::engine::rule::expr::{EvalError, Subject};
use crate::engine::rule::{Action, Required, Rule, Send, Step, TakeAction};
use crate::engine::run;
use crate::engine::tier;
use crate::engine::time::Timestamp;

/// A due step, as its stages see it.
pub(super) struct Due<'a> {
    pub rule: &'a Rule,
    pub step: &'a Step,
    /// Index into `profile.runs` and into the run's steps.
    pub run_index: usize,
    pub index: usize,
    /// The run as it stood when the step's turn came.
    pub run: Run,
    planned: Timestamp,
}

/// What the gates of an action that is no send said.
pub(super) enum Passed {
    Through,
    /// `moved`: the step has come to its end by that, so conditions are asked again.
    Stopped {
        moved: bool,
    },
}

impl<'a> Look<'a> {
    /// Lets every due step act once, in order. True if one of them did something that conditions may read.
    pub(super) fn act(&mut self) -> bool {
        let mut turns = self.due_steps();
        turns.sort_by(|a, b| a.0.cmp(&b.0));
        let mut moved = false;
        for (_, run_index, index) in turns {
            if let Some(due) = self.due_step(run_index, index) {
                moved |= self.act_step(&due);
            }
        }
        moved
    }

    /// (order, run, step) of what is due: waiting steps whose time has come, and sends whose last channel failed.
    fn due_steps(&self) -> Vec<((u8, Name, usize), usize, usize)> {
        let mut turns = vec![];
        for (run_index, run) in self.profile.runs.iter().enumerate() {
            let Some(rule) = self.ctx.rule_of(run) else { continue };
            for (index, step) in run.steps.iter().enumerate() {
                let is_turn = match step {
                    StepState::Waiting => run::planned(rule, run, index, &self.profile.key, &self.zone) <= self.now,
                    StepState::Sent { tries, .. } => run::lets_next_follow(tries.last().and_then(|last| last.outcome)),
                    _ => false,
                };
                // a run that came to its natural end only falls back; one that was cut short only walks `on_exit`
                let in_reach = match run.ended {
                    None => true,
                    Some(RunOutcome::Done) => *step != StepState::Waiting,
                    Some(_) => index >= rule.steps.len(),
                };
                if is_turn && in_reach {
                    turns.push(((u8::MAX - rule.priority, run.rule.clone(), index), run_index, index));
                }
            }
        }
        turns
    }

    fn due_step(&self, run_index: usize, index: usize) -> Option<Due<'a>> {
        let run = self.profile.runs.get(run_index)?.clone();
        let rule = self.ctx.rule_of(&run)?;
        let step = run::step_at(rule, index)?;
        let planned = run::planned(rule, &run, index, &self.profile.key, &self.zone);
        Some(Due { rule, step, run_index, index, run, planned })
    }

    fn act_step(&mut self, due: &Due<'a>) -> bool {
        let tries = match due.run.steps.get(due.index) {
            Some(StepState::Sent { tries, .. }) => Some(tries),
            _ => None,
        };
        match self.conditions_allow(due) {
            Ok(None) => {}
            Ok(Some(because)) if tries.is_some_and(|tries| was_accepted(tries)) => return self.forgo(due, because),
            Ok(Some(because)) => return self.skip(due, because),
            Err(error) => {
                self.set_aside(due.rule, &error);
                let until = self.now.plus_ms(super::facts::SET_ASIDE_MS);
                self.hold_step(due, "error", error.to_string(), until);
                return false;
            }
        }
        if !due.rule.shadow {
            self.note_exposure(due);
        }
        if tries.is_some() {
            return self.fall_back(due);
        }
        let held_out = self.exposure_of(due) == Some(Exposure::HeldOut);
        if !held_out && let Some(missing) = self.require_missing(due) {
            return self.wait_for_require(due, missing);
        }
        match &due.step.action {
            Action::Send(send) => self.send(due, send),
            _ if due.rule.shadow => self.act_in_shadow(due),
            Action::Alert { level, text, notify } => self.alert(due, level, text.as_deref(), notify),
            Action::Take(take) if !held_out => self.take(due, take),
            _ => match self.through_gates(due) {
                Passed::Through => self.do_action(due),
                Passed::Stopped { moved } => moved,
            },
        }
    }

    // ----------------------------------------------------------------------------------------------------------- conditions

    /// Why the step is skipped: its audience or `if` says no.
    fn conditions_allow(&self, due: &Due<'_>) -> Result<Option<&'static str>, EvalError> {
        let properties = due.run.event_properties();
        let subject = Subject { profile: &self.profile, now: self.now, event: Some(&properties), run: Some(&due.run) };
        let on_exit = due.index >= due.rule.steps.len();
        if let Some(audience) = due.rule.audience.as_ref().filter(|_| !on_exit)
            && !audience.verdict(self.names, subject)?.truth
        {
            return Ok(Some("audience"));
        }
        if let Some(condition) = &due.step.condition
            && !condition.verdict(self.names, subject)?.truth
        {
            return Ok(Some("if"));
        }
        Ok(None)
    }

    /// The earlier step whose outcome is still missing.
    fn require_missing(&self, due: &Due<'a>) -> Option<(&'a Name, Required)> {
        let require = due.step.require?;
        let named = &due.rule.steps.get(require.step)?.id;
        let mut states = run::rungs_of(due.rule, require.step).filter_map(|index| due.run.steps.get(index));
        (!states.any(|state| run::satisfies(state, require.outcome))).then_some((named, require.outcome))
    }

    fn wait_for_require(&mut self, due: &Due<'a>, (step, outcome): (&Name, Required)) -> bool {
        let deadline = self.deadline(due);
        let is_send = matches!(due.step.action, Action::Send(_));
        if is_send && self.now > deadline {
            return self.drop_step(due, "expired", &format!("waited for step {step} until its deadline {deadline}"));
        }
        let until = if is_send { deadline.plus_ms(1) } else { Timestamp::FOREVER };
        self.hold_step(due, "require", format!("step {step} is not {} yet", outcome.name()), until);
        false
    }

    // ---------------------------------------------------------------------------------------------------------------- gates

    /// The side of the holdout this run is on, as far as it concerns the rule.
    fn exposure_of(&self, due: &Due<'_>) -> Option<Exposure> {
        due.run.exposure.or_else(|| gate::holdout::assign(self.ctx, due.rule, &self.profile).map(|(exposure, _)| exposure))
    }

    fn ask(&self, due: &Due<'_>, action: Asked<'_>) -> (&'static str, Answer) {
        gate::ask(&Ask {
            ctx: self.ctx,
            profile: &self.profile,
            zone: &self.zone,
            rule: due.rule,
            run: due.run.number,
            exposure: due.run.exposure,
            action,
            budget_used: &self.made.budget_used,
            now: self.now,
        })
    }

    /// Writes the run's exposure, once, at its first action other than an alert: before `require`, a notice or a gate is asked, so that
    /// it is written for both sides alike.
    fn note_exposure(&mut self, due: &Due<'_>) {
        let asked = self.profile.runs.get(due.run_index).is_some_and(|run| run.exposure.is_some());
        if asked || matches!(due.step.action, Action::Alert { .. }) {
            return;
        }
        let Some((exposure, by)) = gate::holdout::assign(self.ctx, due.rule, &self.profile) else { return };
        if let Some(run) = self.profile.runs.get_mut(due.run_index) {
            run.exposure = Some(exposure);
        }
        self.made.exposures.push(ExposureRecord {
            rule: due.rule.id.clone(),
            run_key: due.run.key.clone(),
            run: due.run.number,
            at: self.now,
            held_out: exposure == Exposure::HeldOut,
            by,
        });
    }

    /// The gates of an action that is no send.
    pub(super) fn through_gates(&mut self, due: &Due<'a>) -> Passed {
        let (gate, answer) = self.ask(due, Asked::Other);
        match answer {
            Answer::Pass => Passed::Through,
            Answer::Hold { until, because } => {
                self.hold_step(due, gate, because, until);
                Passed::Stopped { moved: false }
            }
            Answer::Skip { .. } | Answer::Block { .. } | Answer::Drop { .. } | Answer::Expire { .. } => {
                Passed::Stopped { moved: self.skip(due, gate) }
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------------------- sends

    fn deadline(&self, due: &Due<'_>) -> Timestamp {
        run::deadline(&self.ctx.rules.policy, due.rule, due.step, due.planned, &self.zone)
    }

    fn send(&mut self, due: &Due<'a>, send: &'a Send) -> bool {
        if let Some(because) = self.rung_is_needless(due) {
            return self.skip(due, because);
        }
        let notice = match self.notice_to_give(due) {
            Ok(notice) => notice,
            Err(because) => return self.skip(due, because),
        };
        self.try_channels(due, send, &send.channels, vec![], notice)
    }

    /// What this step announces, if it is the notice of a take; nothing to take means nothing to announce, so nothing to send.
    fn notice_to_give(&self, due: &Due<'a>) -> Result<Option<Notice>, &'static str> {
        let Some(take_index) = due.step.notice_of.filter(|_| self.exposure_of(due) != Some(Exposure::HeldOut)) else { return Ok(None) };
        let Some(Action::Take(take)) = due.rule.steps.get(take_index).map(|step| &step.action) else { return Ok(None) };
        self.announce(due.rule, &due.run, take_index, take).map(Some).ok_or("its take would take nothing")
    }

    /// The channel before failed for good: the next one gets its chance.
    fn fall_back(&mut self, due: &Due<'a>) -> bool {
        let (Some(StepState::Sent { tries, notice }), Action::Send(send)) = (due.run.steps.get(due.index), &due.step.action) else {
            return false;
        };
        let left = run::channels_left(&send.channels, tries);
        let why_not = match left.is_empty() {
            true => Some(("failed", "no channel took it")),
            false if self.now > self.deadline(due) => Some(("expired", "no time was left for another channel")),
            false => None,
        };
        if let Some((gate, because)) = why_not {
            return if was_accepted(tries) { self.forgo(due, because) } else { self.drop_step(due, gate, because) };
        }
        self.try_channels(due, send, left, tries.clone(), *notice)
    }

    /// Asks the gates channel by channel; the first that passes gets the message.
    fn try_channels(&mut self, due: &Due<'a>, send: &'a Send, channels: &[Channel], tries: Vec<Try>, notice: Option<Notice>) -> bool {
        let deadline = self.deadline(due);
        let mut refused: Vec<String> = vec![];
        for (position, channel) in channels.iter().enumerate() {
            let asked = SendAsked { channel: *channel, category: send.category, offer: send.offer.as_ref(), deadline, own: None };
            let (gate, answer) = self.ask(due, Asked::Send(asked));
            match answer {
                Answer::Pass => {
                    let more = position + 1 < channels.len();
                    return self.queue(due, send, *channel, deadline, tries, notice, more);
                }
                Answer::Hold { until, because } => {
                    self.hold_step(due, gate, because, until);
                    return false;
                }
                Answer::Block { because } => refused.push(format!("{channel}: {gate}: {because}")),
                Answer::Drop { because } => return self.drop_step(due, gate, &because),
                Answer::Skip { .. } => return self.skip(due, gate),
                Answer::Expire { because } => return self.drop_step(due, "expired", &because),
            }
        }
        let gate = refused.last().and_then(|text| text.split(": ").nth(1)).unwrap_or("consent").to_owned();
        self.drop_step(due, &gate, &refused.join("; "))
    }

    #[allow(clippy::too_many_arguments)] // the message's parts, gathered by one caller
    fn queue(
        &mut self,
        due: &Due<'a>,
        send: &Send,
        channel: Channel,
        deadline: Timestamp,
        mut tries: Vec<Try>,
        notice: Option<Notice>,
        more_channels: bool,
    ) -> bool {
        let (rule, run) = (due.rule, &due.run);
        if let Some(rung) = due.step.rung {
            self.overtake(due, rung);
        }
        if rule.shadow {
            self.remember_sent(rule, run.number);
            return self.in_shadow(due, &format!("send {} by {channel}", send.template));
        }
        let key = dedupe_key(&rule.id, &run.key, run.number, &self.profile.key, &due.step.id, channel);
        let id = MessageId::derive(self.now, key);
        if let Some(offer) = &send.offer {
            match coupon::reserve(&mut self.profile, self.names, offer, id, &rule.id, &self.ctx.world.coupon_salt, self.now) {
                Ok(face_value) => self.made.budget_used.push((offer.coupon.clone(), self.now, face_value)),
                Err(because) => return self.drop_step(due, "budget", &because),
            }
        }
        self.profile.slots.push(Slot { message: id, rule: rule.id.clone(), category: send.category, channel, sent_at: None, text: None });
        self.remember_sent(rule, run.number);
        tries.push(Try { channel, message: id, outcome: None, accepted_at: None, at: self.now });
        self.settle(due, StepState::Sent { tries, notice });
        self.log(&rule.id, run.number, &due.step.id, What::Queued, format!("{} by {channel}", send.template), None);
        self.made.messages.push(Message {
            id,
            dedupe_key: key,
            rule: rule.id.clone(),
            version: run.version,
            run_key: run.key.clone(),
            run: run.number,
            step: due.step.id.clone(),
            channel,
            category: send.category,
            template: send.template.clone(),
            languages: send.languages.clone(),
            decided_at: self.now,
            due_at: self.now,
            expires_at: deadline,
            priority: rule.priority,
            wakes_on: due.step.wakes_on | if more_channels { Outcome::bits(&run::FOLLOWED) } else { 0 },
            data: message_data(run, send, notice),
        });
        true
    }

    /// `at_most` counts runs that sent or reserved a message; rules without it remember nothing.
    fn remember_sent(&mut self, rule: &Rule, number: u32) {
        let Some((_, within_ms)) = rule.at_most else { return };
        let (now, since) = (self.now, self.now.plus_ms(-within_ms));
        let memory = self.memory_mut(rule);
        memory.sent_runs.retain(|(run, at)| *run != number && *at > since);
        memory.sent_runs.push((number, now));
    }

    // -------------------------------------------------------------------------------------------------------- other actions

    fn take(&mut self, due: &Due<'a>, take: &'a TakeAction) -> bool {
        // a person who is held out loses nothing: asked before the notice, which held-out runs do not have
        let (notice, announced) = match self.may_take(due.rule, &due.run, due.index, take) {
            MayTake::Now { notice, announced } => (notice, announced),
            MayTake::Never { because } => return self.skip(due, because),
            MayTake::Wait { until, because } => {
                self.hold_step(due, "notice", because, until);
                return false;
            }
        };
        if let Passed::Stopped { moved } = self.through_gates(due) {
            return moved;
        }
        let order = TakeOrder {
            announced,
            at: self.now,
            rule: due.rule.id.clone(),
            run: due.run.number,
            step: due.step.id.clone(),
            notice,
            silence_since: due.run.silence_since.unwrap_or(self.now),
        };
        let mut booked = Booked::default();
        let taken = points::take(&mut self.profile, self.names, take, order, &mut booked);
        self.take_in(booked, due.run.generation() + 1);
        if taken == 0 {
            return self.skip(due, "nothing that may be taken is left");
        }
        self.made.taking.extend(self.profile.runs.get(due.run_index).cloned());
        self.acted(due, format!("took {taken} points, {announced} were announced"))
    }

    fn do_action(&mut self, due: &Due<'a>) -> bool {
        let (rule, run, step) = (due.rule.id.clone(), due.run.number, due.step.id.clone());
        let mut booked = Booked::default();
        let done: Result<String, String> = match &due.step.action {
            Action::Points { class, add, expires, reason } => {
                let grant = PointsGrant {
                    class: class.clone(),
                    amount: *add,
                    at: self.now,
                    expires: *expires,
                    reason: reason.clone(),
                    rule: Some(rule),
                    run: Some(run),
                    step: Some(step),
                };
                points::grant(&mut self.profile, self.names, grant, &mut booked);
                Ok(format!("granted {add} points of {class}"))
            }
            Action::Grant { grant, expires } => {
                let mut budgets = self.ctx.world.budgets.clone();
                for (coupon, _, value) in &self.made.budget_used {
                    *budgets.entry(coupon.clone()).or_default() += value;
                }
                let order = GrantOrder { at: self.now, rule, run, step, budgets: &budgets, salt: &self.ctx.world.coupon_salt };
                benefit::grant(&mut self.profile, self.names, grant, *expires, order, &mut booked).map(|used| {
                    self.made.budget_used.extend(used.into_iter().map(|(coupon, value)| (coupon, self.now, value)));
                    "granted".to_owned()
                })
            }
            Action::Tier(action) => tier::act(&mut self.profile, self.names, action, self.now, &rule, &mut booked),
            Action::Set(assignments) => self.set(due, assignments),
            Action::Send(_) | Action::Alert { .. } | Action::Take(_) => Ok(String::new()),
        };
        self.take_in(booked, due.run.generation() + 1);
        match done {
            Ok(because) => self.acted(due, because),
            Err(because) => self.drop_step(due, "failed", &because),
        }
    }

    /// All expressions are read before anything is written: `set: {a: b, b: a}` swaps.
    fn set(&mut self, due: &Due<'_>, assignments: &[(Name, crate::engine::rule::expr::Expr)]) -> Result<String, String> {
        let properties = due.run.event_properties();
        let subject = Subject { profile: &self.profile, now: self.now, event: Some(&properties), run: Some(&due.run) };
        let mut values = vec![];
        for (name, expression) in assignments {
            let (value, _) = expression.reading(self.names, subject).map_err(|error| error.to_string())?;
            values.push((name.clone(), value));
        }
        let mut said = vec![];
        for (name, value) in values {
            match value {
                Some(value) => {
                    said.push(format!("{name} = {value}"));
                    self.profile.attributes.insert(name, Attribute { value, at: self.now });
                }
                None => drop(self.profile.attributes.remove(&name)),
            }
        }
        Ok(format!("set {}", said.join(", ")))
    }

    /// An alert concerns nobody's treatment: of the gates, only a pause stops it.
    fn alert(&mut self, due: &Due<'a>, level: &Name, text: Option<&str>, notify: &[Name]) -> bool {
        if let Some((what, pause)) = gate::rule_pause(self.ctx.world, due.rule) {
            self.hold_step(due, "paused", format!("{what} is paused: {}", pause.reason), Timestamp::FOREVER);
            return false;
        }
        let (level, notify, text, event) = (level.clone(), notify.to_vec(), text.map(Name::from), due.run.event_properties());
        let alert = Alert { entry: self.made.entries.len(), level, notify, text, event };
        let by_default = || format!("{}: {}", self.profile.key, due.rule.name);
        let sentence = alert.sentence(&alert.text.as_deref().map_or_else(by_default, str::to_owned));
        self.settle(due, StepState::Acted { at: self.now });
        self.log(&due.rule.id, due.run.number, &due.step.id, What::Alerted, sentence, None);
        self.made.alerts.push(alert);
        true
    }

    // -------------------------------------------------------------------------------------------------------------- outcomes

    /// Writes what has become of the step; nothing holds it any more.
    pub(super) fn settle(&mut self, due: &Due<'_>, state: StepState) {
        self.unhold(&due.rule.id, due.run.number, &due.step.id);
        let steps = self.profile.runs.get_mut(due.run_index).map(|run| &mut run.steps);
        if let Some(step) = steps.and_then(|steps| steps.get_mut(due.index)) {
            *step = state;
        }
    }

    fn acted(&mut self, due: &Due<'_>, because: String) -> bool {
        self.settle(due, StepState::Acted { at: self.now });
        self.log(&due.rule.id, due.run.number, &due.step.id, What::Acted, because, None);
        true
    }

    pub(super) fn skip(&mut self, due: &Due<'_>, because: impl AsRef<str>) -> bool {
        let because = because.as_ref();
        self.settle(due, StepState::Skipped { at: self.now, because: because.into() });
        self.log(&due.rule.id, due.run.number, &due.step.id, What::Skipped, because, None);
        true
    }

    fn drop_step(&mut self, due: &Due<'_>, gate: &str, because: &str) -> bool {
        self.settle(due, StepState::Ended { at: self.now, because: gate.into() });
        self.log(&due.rule.id, due.run.number, &due.step.id, What::Dropped, format!("{gate}: {because}"), None);
        true
    }

    /// Gives up on a further channel of a message that was accepted and bounced later: the step stays what it was, sent.
    fn forgo(&mut self, due: &Due<'_>, because: &str) -> bool {
        let (rule, run, step) = (&due.rule.id, due.run.number, &due.step.id);
        let waited = self.profile.holds.iter().any(|hold| hold.rule == *rule && hold.run == run && hold.step == *step);
        if waited {
            self.unhold(rule, run, step);
            self.log(rule, run, step, What::Dropped, format!("the next channel: {because}"), None);
        }
        waited
    }

    fn hold_step(&mut self, due: &Due<'_>, gate: &str, because: String, until: Timestamp) {
        // an answer that is over already would be asked again at once, for ever
        let until = if until <= self.now { self.now.plus_ms(LOOK_AGAIN_MS) } else { until };
        self.hold(&due.rule.id, due.run.number, &due.step.id, gate, because, until);
    }
}

/// Whether a provider had the message at some time, whatever came later.
fn was_accepted(tries: &[Try]) -> bool {
    tries.iter().any(|t| t.accepted_at.is_some())
}

/// What the template may read besides the person.
fn message_data(run: &Run, send: &Send, notice: Option<Notice>) -> Map<String, Json> {
    let mut data = Map::new();
    if !run.event.is_empty() {
        data.insert("event".to_owned(), Json::Object(run.event_properties()));
    }
    if !send.data.is_empty() {
        let texts = send.data.iter().map(|(name, text)| (name.to_string(), Json::from(text.as_str())));
        data.insert("data".to_owned(), Json::Object(texts.collect()));
    }
    if let Some(offer) = &send.offer {
        data.insert("offer".to_owned(), json!({ "coupon": &*offer.coupon }));
    }
    if let Some(notice) = notice {
        data.insert("notice".to_owned(), json!({ "amount": notice.amount, "from": notice.not_before.to_string() }));
    }
    data
}

impl Run {
    /// All tries of its sends.
    pub(super) fn tries(&self) -> impl Iterator<Item = &Try> {
        let sent = self.steps.iter().filter_map(|step| match step {
            StepState::Sent { tries, .. } => Some(tries),
            _ => None,
        });
        sent.flatten()
    }

    /// Its messages that have no result yet.
    pub(super) fn open_messages(&self) -> Vec<MessageId> {
        self.tries().filter(|t| t.outcome.is_none()).map(|t| t.message).collect()
    }

    /// Notes that a message was called back before it went out.
    pub(super) fn cancel(&mut self, message: MessageId, now: Timestamp) {
        for step in &mut self.steps {
            if let StepState::Sent { tries, .. } = step {
                for found in tries.iter_mut().filter(|t| t.message == message) {
                    (found.outcome, found.at) = (Some(Outcome::Cancelled), now);
                }
            }
        }
    }

    /// Properties of the event that started the run; empty for other triggers.
    pub fn event_properties(&self) -> Map<String, Json> {
        if self.event.is_empty() { Map::new() } else { serde_json::from_str(&self.event).unwrap_or_default() }
    }
}

impl Run {
    /// How many generations of the engine's own events lie between this run and the fact that began it all.
    fn generation(&self) -> u8 {
        if self.event.is_empty() {
            return 0;
        }
        let said = self.event_properties().get(super::GENERATION).and_then(Json::as_u64);
        said.and_then(|said| u8::try_from(said).ok()).unwrap_or(0)
    }
}

impl Required {
    pub fn name(self) -> &'static str {
        match self {
            Required::Done => "done",
            Required::Accepted => "accepted",
            Required::Delivered => "delivered",
            Required::Opened => "opened",
        }
    }
}
