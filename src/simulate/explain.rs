//! Why, why not, until when: one rule and one person at one instant, as a record that prints as text and as JSON.
//!
//! Nothing is decided here and nothing is guessed: conditions, gates and plans are asked of the very functions that decide. The
//! state is the one stored; an instant that lies ahead shows what holds then if nothing happens.

use std::fmt;

use serde::Serialize;

use crate::engine::decide::Context;
use crate::engine::event::Value;
use crate::engine::gate::{self, Answer, Ask, Asked, SendAsked};
use crate::engine::profile::{Exposure, Hold, Passage, Profile, Run, RunOutcome, StepState};

use crate::engine::rule::expr::{Condition, Leaf, Subject};
use crate::engine::rule::{Action, Place, Rule, Send, Step, Trigger};
use crate::engine::run;
use crate::engine::time::{Timestamp, Zone};

/// The gates are asked again at most so often to find the earliest instant at which all are open.
const MOST_HOPS: usize = 64;
const PASSES: &str = "passes";

/// Everything there is to say about one rule and one person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    pub rule: String,
    /// The rule set in force, or that of the run under way: the first digits of its hash.
    pub version: String,
    pub user: String,
    pub at: String,
    pub zone: String,
    /// `sent`, `pending`, `not_true`, `existing`, `held_by_brake`, the check or gate that answered; `due`: a look comes before.
    pub outcome: String,
    /// In words.
    pub because: String,
    pub next_check: Option<String>,
    /// The next flip of `when`, if nothing happens.
    pub would_change_at: Option<String>,
    pub conditions: Vec<Part>,
    pub run: Option<RunState>,
    pub steps: Vec<StepLine>,
    pub gates: Vec<ChannelGates>,
}

/// A condition of the rule as a tree, or an answer that was given once.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// `audience`, `when`, `unless`, `only_if_at_start`.
    pub name: &'static str,
    pub place: String,
    /// None: it could not be evaluated.
    pub truth: Option<bool>,
    pub until: Option<String>,
    pub note: Option<String>,
    pub leaves: Vec<Line>,
}

/// One node of a condition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub depth: usize,
    pub text: String,
    pub truth: Option<bool>,
    /// Names it reads, with their values.
    pub values: Vec<(String, String)>,
    pub until: Option<String>,
    /// What the rule's author says of it, or why it cannot be answered.
    pub why: Option<String>,
    /// False: the answer was settled without it.
    pub needed: bool,
    /// The part whose expiry is the whole condition's.
    pub witness: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunState {
    /// `idle`, `pending`, `running`, `done`, `waiting`.
    pub state: &'static str,
    /// Runs begun so far.
    pub runs: u32,
    pub number: Option<u32>,
    pub started_at: Option<String>,
    /// How the latest run ended.
    pub outcome: Option<&'static str>,
    pub ended_at: Option<String>,
    /// Held out, or treated, once it was asked.
    pub exposure: Option<&'static str>,
}

/// A step with its times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepLine {
    pub id: String,
    /// `planned`, `held`, `acted`, `shadowed` (would have acted), `sent`, `skipped`, `ended`.
    pub state: &'static str,
    pub planned_at: Option<String>,
    /// After that it is too late (messages).
    pub deadline: Option<String>,
    pub detail: String,
}

/// The gates in order, for one channel of the next send (or for its next action, which has none).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelGates {
    pub step: String,
    pub channel: Option<&'static str>,
    /// No run is under way: asked as if the step were due now.
    pub supposed: bool,
    pub gates: Vec<GateLine>,
    /// All gates are open then, as far as is known; none: an event or an operator must change something.
    pub earliest_at: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateLine {
    pub gate: &'static str,
    /// `passes`, `holds`, `blocks`, `drops`, `skips`, `expires`.
    pub answer: &'static str,
    pub because: Option<String>,
    pub until: Option<String>,
}

/// Explains one rule for one person; `due_at` is when the engine looks next.
pub fn explain(ctx: &Context<'_>, profile: &Profile, due_at: Timestamp, rule: &Rule, now: Timestamp) -> Explanation {
    let live = profile.runs.iter().filter(|run| run.rule == rule.id && run.ended.is_none());
    // the latest, if several run in parallel; it goes by the text that it began with
    let run = live.max_by_key(|run| run.number);
    let own_set = run.and_then(|run| ctx.set(run.version));
    let rule = own_set.and_then(|set| set.rule(&rule.id)).unwrap_or(rule);
    let view = View { ctx, profile, rule, now, zone: ctx.rules.policy.zone_of(profile) };
    let (outcome, because) = if due_at <= now { view.before_the_next_look(due_at) } else { view.outcome(run) };
    Explanation {
        rule: rule.id.to_string(),
        version: format!("{:016x}", own_set.unwrap_or(ctx.rules).version).chars().take(7).collect(),
        user: profile.key.to_string(),
        at: view.local(now),
        zone: view.zone.name().to_owned(),
        outcome,
        because: localized(&because, &view.zone),
        next_check: view.instant(due_at),
        would_change_at: view.next_flip().filter(|_| due_at > now),
        conditions: view.conditions(),
        run: view.run_state(run),
        steps: view.steps(run),
        // what stands in a step's way once the next look has decided is not known before it
        gates: view.next_action(run).filter(|_| due_at > now).map(|(index, step)| view.gates(run, index, step)).unwrap_or_default(),
    }
}

struct View<'a> {
    ctx: &'a Context<'a>,
    profile: &'a Profile,
    rule: &'a Rule,
    now: Timestamp,
    zone: Zone,
}

impl View<'_> {
    fn local(&self, at: Timestamp) -> String {
        local(at, &self.zone)
    }

    fn instant(&self, at: Timestamp) -> Option<String> {
        (!at.is_forever()).then(|| self.local(at))
    }

    fn subject(&self) -> Subject<'_> {
        Subject { profile: self.profile, now: self.now, event: None, run: None }
    }

    fn holds(&self, run: Option<&Run>) -> impl Iterator<Item = &Hold> {
        let number = run.map_or(0, |run| run.number);
        self.profile.holds.iter().filter(move |hold| hold.rule == self.rule.id && (hold.run == number || hold.run == 0))
    }

    // ------------------------------------------------------------------------------------------------------------- outcome

    /// The stored state ends where the engine looks next: what it decides there comes before the instant asked about.
    fn before_the_next_look(&self, due_at: Timestamp) -> (String, String) {
        let when = if due_at == self.now { "at this instant" } else { "before this instant" };
        word("due", &format!("the engine looks at {} {}, {when}, and decides then", self.profile.key, self.local(due_at)))
    }

    /// The one word, and the sentence behind it.
    fn outcome(&self, run: Option<&Run>) -> (String, String) {
        if !self.rule.enabled {
            return word("disabled", "the rule says `enabled: false`");
        }
        if let Some(hold) = self.holds(run).find(|hold| hold.step.is_empty()) {
            let name = if &*hold.gate == "brake" { "held_by_brake" } else { &hold.gate };
            return (name.to_owned(), hold.because.to_string());
        }
        match run {
            Some(run) => self.running(run),
            None => self.not_running(),
        }
    }

    fn running(&self, run: &Run) -> (String, String) {
        if let Some(hold) = self.holds(Some(run)).next() {
            return (hold.gate.to_string(), format!("{}: {}", hold.step, hold.because));
        }
        let finished = run.steps.iter().enumerate().rfind(|(_, step)| !matches!(step, StepState::Waiting));
        let Some((index, state)) = finished else { return word("pending", "the run has begun, no step is due yet") };
        let step = run::step_at(self.rule, index).map_or("", |step| &*step.id);
        match state {
            StepState::Skipped { because, .. } | StepState::Ended { because, .. } => (because.to_string(), format!("{step}: {because}")),
            StepState::Sent { .. } => ("sent".to_owned(), format!("{step} was sent, the run goes on")),
            _ => ("pending".to_owned(), format!("{step} is done, the run goes on")),
        }
    }

    fn not_running(&self) -> (String, String) {
        let memory = self.profile.memory(&self.rule.id);
        match memory.map(|m| m.passage).unwrap_or_default() {
            Passage::Existing(since) => word(
                "existing",
                &format!("`when` held already as the rule first looked, at {}; left alone until it has been false", self.local(since)),
            ),
            Passage::Pending(since) => {
                let starts = self.rule.hold_for.after(since, &self.zone);
                word("pending", &format!("true since {}, must hold until {}", self.local(since), self.local(starts)))
            }
            Passage::Waiting(since) => word("waiting", &format!("true since {}, entries wait", self.local(since))),
            Passage::Tried(since) => match memory {
                Some(m) if m.looked_once.is_some_and(|(at, answer)| at >= since && !answer) => {
                    word("only_if_at_start", "looked at once as the run would have started, and was false")
                }
                Some(m) if m.outcome == Some(RunOutcome::Done) && m.ended_at >= Some(since) => {
                    word("done", "all steps of this passage's run are done")
                }
                _ => word("reentry", &format!("true since {}, but this person may not start again yet", self.local(since))),
            },
            Passage::False => self.what_is_false(),
        }
    }

    fn what_is_false(&self) -> (String, String) {
        let truth = |condition: Option<&Condition>| {
            condition.and_then(|c| c.verdict(self.ctx.rules.names(), self.subject()).ok()).map(|verdict| verdict.truth)
        };
        if truth(self.rule.audience.as_ref()) == Some(false) {
            return word("audience", "this person is not in the audience");
        }
        match &self.rule.trigger {
            Trigger::When(when) if truth(Some(when)) == Some(false) => word("not_true", "`when` does not hold"),
            _ if truth(self.rule.unless.as_ref()) == Some(true) => word("unless", "`unless` holds"),
            Trigger::When(_) => word("not_true", "not looked at since it turned true"),
            Trigger::Event { event, .. } => word("not_true", &format!("waits for an event `{event}`")),
            Trigger::At(_) => word("not_true", "waits for its day"),
        }
    }

    fn next_flip(&self) -> Option<String> {
        let Trigger::When(when) = &self.rule.trigger else { return None };
        when.next_flip(self.ctx.rules.names(), self.subject()).ok().and_then(|verdict| self.instant(verdict.until))
    }

    // ---------------------------------------------------------------------------------------------------------- conditions

    fn conditions(&self) -> Vec<Part> {
        let when = match &self.rule.trigger {
            Trigger::When(when) => Some(when),
            _ => None,
        };
        let asked = [("audience", self.rule.audience.as_ref()), ("when", when), ("unless", self.rule.unless.as_ref())];
        let mut parts: Vec<Part> = asked.into_iter().filter_map(|(name, c)| Some(self.part(name, c?))).collect();
        if let Some(once) = &self.rule.only_if_at_start {
            let mut part = self.part("only_if_at_start", once);
            let asked = self.profile.memory(&self.rule.id).and_then(|m| m.looked_once);
            part.note = Some(match asked {
                Some((at, answer)) => format!("looked at once, on {}, was {answer}", self.local(at)),
                None => "not asked yet; this is what it would answer now".to_owned(),
            });
            parts.push(part);
        }
        parts
    }

    fn part(&self, name: &'static str, condition: &Condition) -> Part {
        let (names, subject) = (self.ctx.rules.names(), self.subject());
        let verdict = condition.next_flip(names, subject);
        let leaves = condition.explain(names, subject).into_iter().map(|leaf| self.line(leaf));
        Part {
            name,
            place: said_place(&self.rule.place),
            truth: verdict.as_ref().ok().map(|v| v.truth),
            until: verdict.as_ref().ok().and_then(|v| self.instant(v.until)),
            note: verdict.err().map(|error| format!("cannot be evaluated: {error}")),
            leaves: leaves.collect(),
        }
    }

    fn line(&self, leaf: Leaf) -> Line {
        let value = |value: Option<Value>| match value {
            Some(Value::Instant(at)) => self.local(at),
            Some(value) => value.to_string(),
            None => "missing".to_owned(),
        };
        Line {
            depth: leaf.depth,
            text: leaf.text,
            truth: leaf.truth,
            values: leaf.values.into_iter().map(|(name, read)| (name, value(read))).collect(),
            until: self.instant(leaf.until),
            why: leaf.why.or(leaf.trouble),
            needed: leaf.needed,
            witness: leaf.witness,
        }
    }

    // ------------------------------------------------------------------------------------------------------- run and steps

    fn run_state(&self, run: Option<&Run>) -> Option<RunState> {
        let memory = self.profile.memory(&self.rule.id)?;
        Some(RunState {
            state: super::expect::state(self.rule, self.profile),
            runs: memory.runs,
            number: run.map(|run| run.number),
            started_at: run.map(|run| self.local(run.started_at)),
            outcome: memory.outcome.map(RunOutcome::name),
            ended_at: memory.ended_at.map(|at| self.local(at)),
            exposure: run.and_then(|run| run.exposure).map(|exposure| match exposure {
                Exposure::Treated => "treated",
                Exposure::HeldOut => "held out",
            }),
        })
    }

    fn steps(&self, run: Option<&Run>) -> Vec<StepLine> {
        let steps = self.rule.steps.iter().enumerate();
        steps.map(|(index, step)| self.step_line(run, index, step)).collect()
    }

    fn step_line(&self, run: Option<&Run>, index: usize, step: &Step) -> StepLine {
        let id = step.id.to_string();
        let Some(run) = run else {
            return StepLine { id, state: "planned", planned_at: None, deadline: None, detail: format!("{} after the start", step.after) };
        };
        let planned = run::planned(self.rule, run, index, &self.profile.key, &self.zone);
        let is_send = matches!(step.action, Action::Send(_));
        let deadline = is_send.then(|| run::deadline(&self.ctx.rules.policy, self.rule, step, planned, &self.zone));
        let (state, detail) = match run.steps.get(index) {
            None | Some(StepState::Waiting) => match self.holds(Some(run)).find(|hold| hold.step == step.id) {
                Some(hold) => ("held", format!("{} since {}: {}", hold.gate, self.local(hold.since), localized(&hold.because, &self.zone))),
                None => ("planned", String::new()),
            },
            Some(StepState::Acted { at }) if self.rule.shadow => ("shadowed", self.local(*at)),
            Some(StepState::Acted { at }) => ("acted", self.local(*at)),
            Some(StepState::Skipped { at, because }) => ("skipped", format!("{}: {because}", self.local(*at))),
            Some(StepState::Ended { at, because }) => ("ended", format!("{}: {because}", self.local(*at))),
            Some(StepState::Sent { tries, notice }) => {
                let tries =
                    tries.iter().map(|t| format!("{} {} {}", t.channel, t.outcome.map_or("under way", |o| o.name()), self.local(t.at)));
                let announced = notice.map(|n| format!("announced {} points, not before {}", n.amount, self.local(n.not_before)));
                ("sent", tries.chain(announced).collect::<Vec<_>>().join("; "))
            }
        };
        StepLine { id, state, planned_at: self.instant(planned), deadline: deadline.and_then(|at| self.instant(at)), detail }
    }

    // --------------------------------------------------------------------------------------------------------------- gates

    /// The next step that has not acted.
    fn next_action(&self, run: Option<&Run>) -> Option<(usize, &Step)> {
        let waits = |index: usize| run.is_none_or(|run| matches!(run.steps.get(index), None | Some(StepState::Waiting)));
        self.rule.steps.iter().enumerate().find(|(index, _)| waits(*index))
    }

    fn gates(&self, run: Option<&Run>, index: usize, step: &Step) -> Vec<ChannelGates> {
        match &step.action {
            Action::Send(send) => {
                send.channels.iter().map(|channel| self.channel_gates(run, index, step, Some((send, *channel)))).collect()
            }
            _ => vec![self.channel_gates(run, index, step, None)],
        }
    }

    fn channel_gates(
        &self,
        run: Option<&Run>,
        index: usize,
        step: &Step,
        send: Option<(&Send, crate::engine::action::Channel)>,
    ) -> ChannelGates {
        // without a run the step is asked as if it were planned for now
        let planned = run.map_or(self.now, |run| run::planned(self.rule, run, index, &self.profile.key, &self.zone));
        let deadline = run::deadline(&self.ctx.rules.policy, self.rule, step, planned, &self.zone);
        let at = |now: Timestamp| Ask {
            ctx: self.ctx,
            profile: self.profile,
            zone: &self.zone,
            rule: self.rule,
            run: run.map_or(0, |run| run.number),
            exposure: run.and_then(|run| run.exposure),
            action: match send {
                Some((send, channel)) => {
                    Asked::Send(SendAsked { channel, category: send.category, offer: send.offer.as_ref(), deadline, own: None })
                }
                None => Asked::Other,
            },
            budget_used: &[],
            now,
        };
        let first = planned.max(self.now);
        let gates = gate::walk(&at(first)).map(|(gate, answer)| self.gate_line(gate, answer)).collect();
        ChannelGates {
            step: step.id.to_string(),
            channel: send.map(|(_, channel)| channel.name()),
            supposed: run.is_none(),
            gates,
            earliest_at: earliest(first, |now| gate::ask(&at(now)).1).and_then(|at| self.instant(at)),
        }
    }

    fn gate_line(&self, gate: &'static str, answer: Answer) -> GateLine {
        let (answer, because, until) = match answer {
            Answer::Pass => (PASSES, None, None),
            Answer::Hold { until, because } => ("holds", Some(because), self.instant(until)),
            Answer::Block { because } => ("blocks", Some(because), None),
            Answer::Drop { because } => ("drops", Some(because), None),
            Answer::Skip { because } => ("skips", Some(because), None),
            Answer::Expire { because } => ("expires", Some(because), None),
        };
        GateLine { gate, answer, because: because.map(|because| localized(&because, &self.zone)), until }
    }
}

/// The first instant from `from` on at which every gate passes, found by asking again whenever a hold ends.
fn earliest(from: Timestamp, ask: impl Fn(Timestamp) -> Answer) -> Option<Timestamp> {
    let mut at = from;
    for _ in 0..MOST_HOPS {
        match ask(at) {
            Answer::Pass => return Some(at),
            Answer::Hold { until, .. } if until > at && !until.is_forever() => at = until,
            _ => return None,
        }
    }
    None
}

fn word(word: &str, because: &str) -> (String, String) {
    (word.to_owned(), because.to_owned())
}

fn said_place(place: &Place) -> String {
    format!("{}:{}", place.file, place.line)
}

/// An instant as people in that zone read it: seconds only where there are any.
pub fn local(at: Timestamp, zone: &Zone) -> String {
    if at.is_forever() {
        return "never".to_owned();
    }
    let wall = at.local(zone);
    let pattern = if wall.second() == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
    wall.strftime(pattern).to_string()
}

/// A sentence of the log as people in that zone read it: what decided wrote instants as RFC 3339 in UTC.
pub fn localized(text: &str, zone: &Zone) -> String {
    const SHORTEST: usize = "2026-01-01T00:00:00Z".len();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(t) = rest.find('T') {
        let start = t.saturating_sub("2026-01-01".len());
        let end = rest.get(start..).and_then(|found| found.find('Z')).map(|z| start + z + 1);
        let found = end.and_then(|end| rest.get(start..end)).filter(|found| (SHORTEST..=SHORTEST + 10).contains(&found.len()));
        let (read, written) = match found.and_then(|found| Some((found.len(), Timestamp::parse(found)?))) {
            Some((length, at)) => (start + length, format!("{}{}", rest.get(..start).unwrap_or_default(), local(at, zone))),
            None => (t + 1, rest.get(..=t).unwrap_or_default().to_owned()),
        };
        out.push_str(&written);
        rest = rest.get(read..).unwrap_or_default();
    }
    out + rest
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} @ {}   user {}   {} {}", self.rule, self.version, self.user, self.at, self.zone)?;
        for part in &self.conditions {
            part.fmt(f)?;
        }
        if let Some(run) = &self.run {
            run.fmt(f)?;
        }
        for step in &self.steps {
            step.fmt(f)?;
        }
        for gates in &self.gates {
            gates.fmt(f)?;
        }
        writeln!(f, "  => {}: {}", self.outcome, self.because)?;
        let next = self.next_check.as_deref().unwrap_or("only when something happens");
        write!(f, "     next check {next}")?;
        match &self.would_change_at {
            Some(at) => write!(f, "; if nothing happens, `when` changes on {at}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let truth = match self.truth {
            Some(true) => "TRUE",
            Some(false) => "FALSE",
            None => "?",
        };
        let until = self.until.as_ref().map_or_else(|| "until a fact changes".to_owned(), |until| format!("until {until}"));
        write!(f, "  {:<8} {truth} {until}", self.name)?;
        if let Some(note) = &self.note {
            write!(f, "   ({note})")?;
        }
        writeln!(f, "   {}", self.place)?;
        // the first line repeats the whole; alone it is the condition itself
        let skipped = usize::from(self.leaves.len() > 1);
        self.leaves.iter().skip(skipped).try_for_each(|leaf| leaf.fmt(f))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = "   ".repeat(self.depth.saturating_sub(1));
        write!(f, "  {indent}|- {:<width$}", self.text, width = 36usize.saturating_sub(indent.len()))?;
        match (self.needed, self.truth) {
            (false, _) => write!(f, "  not needed")?,
            (true, Some(truth)) => write!(f, "  {truth}")?,
            (true, None) => write!(f, "  ?")?,
        }
        match self.values.as_slice() {
            [] => {}
            [(_, value)] => write!(f, "   value {value}")?,
            several => {
                let read: Vec<String> = several.iter().map(|(name, value)| format!("{name} {value}")).collect();
                write!(f, "   {}", read.join(", "))?;
            }
        }
        if let Some(until) = &self.until {
            write!(f, "   until {until}")?;
        }
        if let Some(why) = &self.why {
            write!(f, "   {why}")?;
        }
        writeln!(f, "{}", if self.witness { "   <- witness" } else { "" })
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  state    {}", self.state)?;
        if let (Some(number), Some(started)) = (self.number, &self.started_at) {
            write!(f, "   run {number} since {started}")?;
        }
        if let Some(exposure) = self.exposure {
            write!(f, "   {exposure}")?;
        }
        if let (Some(outcome), Some(ended)) = (self.outcome, &self.ended_at) {
            write!(f, "   latest run ended {ended} as {outcome}")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for StepLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  step     {:<16} {:<8}", self.id, self.state)?;
        if let Some(planned) = &self.planned_at {
            write!(f, " due {planned}")?;
        }
        if let Some(deadline) = &self.deadline {
            write!(f, ", by {deadline}")?;
        }
        if !self.detail.is_empty() {
            write!(f, "   {}", self.detail)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for ChannelGates {
    /// In the order of the gates; those that pass in a row share a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.channel.map(|channel| format!(" by {channel}")).unwrap_or_default();
        let supposed = if self.supposed { ", were it due now" } else { "" };
        let earliest = self.earliest_at.as_deref().map_or_else(|| "closed".to_owned(), |at| format!("earliest at {at}"));
        writeln!(f, "  gates    {}{by}{supposed}: {earliest}", self.step)?;
        for group in self.gates.chunk_by(|left, right| left.passes() && right.passes()) {
            let names: Vec<&str> = group.iter().map(|gate| gate.gate).collect();
            match group {
                [gate] if !gate.passes() => gate.fmt(f)?,
                _ => writeln!(f, "     {:<12} {}", "passes", names.join(", "))?,
            }
        }
        Ok(())
    }
}

impl GateLine {
    fn passes(&self) -> bool {
        self.answer == PASSES
    }
}

impl fmt::Display for GateLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "     {:<12} {}", self.gate, self.answer)?;
        if let Some(until) = &self.until {
            write!(f, " until {until}")?;
        }
        if let Some(because) = &self.because {
            write!(f, "   {because}")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_in_a_sentence_are_told_in_the_persons_zone() {
        let zone = Zone::named("Europe/Berlin").expect("a zone");
        let said = |text: &str| localized(text, &zone);
        assert_eq!(said("until=2011-07-30T17:42:00Z for Tom"), "until=2011-07-30 19:42 for Tom");
        assert_eq!(said("2011-12-01T00:00:05Z, 2011-12-31T23:30:00.250Z"), "2011-12-01 01:00:05, 2012-01-01 00:30");
        assert_eq!(said("at TZ, T2011-13-01T00:00:00Z and ÄT"), "at TZ, T2011-13-01T00:00:00Z and ÄT");
    }
}
