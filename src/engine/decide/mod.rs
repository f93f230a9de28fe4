//! The front door: one pure function decides everything for one person at one instant.
//!
//! A look goes through these stages, in this order, one file each:
//! 1. *facts*: rules that never saw this profile ask `when` at the instant they went live (who satisfies it is existing); the
//!    waiting events are absorbed by (occurred_at, id), with lots and reviews that fell due before each booked at their own
//!    instants; event runs start;
//! 2. *calendar*: `at` firings that are due;
//! 3. *passage*: passages begin and end, runs start and leave;
//! 4. *steps* that are due act, in order of priority, through the gates; then 3 again until nothing moves;
//! 5. *due*: the smallest instant at which anything about this profile can change.

mod calendar;
mod due;
mod facts;
mod ladder;
mod notice;
mod passage;
mod shadow;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::action::{Alert, Entry, ExposureRecord, Message, MessageId, Posting, PostingKind, What};
use super::coupon::Salt;
use super::event::{Event, EventKind};
use super::points::{Booked, OwnEvent};
use super::profile::{Hold, Name, Profile, RuleMemory, Run, RunOutcome, StepState};
use super::rule::expr::Condition;
use super::rule::expr::{EvalError, Names, Subject};
use super::rule::{CapWindow, Rule, RuleSet};
use super::run;
pub use super::run::{ResultOf, result_event};
use super::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp, Zone};
use super::verdict::Verdict;

/// What a decision may look at besides the person.
pub struct Context<'a> {
    pub rules: &'a RuleSet,
    /// Older rule sets by version: runs finish on the one they began with.
    pub older: &'a HashMap<u64, Arc<RuleSet>>,
    pub world: &'a World,
}

impl<'a> Context<'a> {
    /// The rule set of that version, if it is the present one or still known.
    pub fn set(&self, version: u64) -> Option<&'a RuleSet> {
        if version == self.rules.version { Some(self.rules) } else { self.older.get(&version).map(Arc::as_ref) }
    }

    /// The rule a run goes by: the text it began with, as long as the present set still has the rule switched on.
    pub fn rule_of(&self, run: &Run) -> Option<&'a Rule> {
        let present = self.rules.rule(&run.rule).filter(|rule| rule.enabled)?;
        Some(self.set(run.version).and_then(|set| set.rule(&run.rule)).unwrap_or(present))
    }

    /// Whether the activity source is quiet at that instant.
    pub fn source_is_quiet(&self, at: Timestamp) -> bool {
        self.rules.policy.sources.is_some() && self.world.quiet.iter().any(|(from, until)| *from <= at && at < *until)
    }
}

/// What is known beyond one person: the state of rules, pauses, sources, our own downtime.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub rules: BTreeMap<Name, RuleState>,
    /// Everything is paused.
    pub paused: Option<Pause>,
    pub paused_channels: BTreeMap<Name, Pause>,
    pub paused_tags: BTreeMap<Name, Pause>,
    /// Spans in which no worker was alive (heartbeat gaps over 5 minutes), sorted.
    pub downtime: Vec<(Timestamp, Timestamp)>,
    /// Spans in which the activity source was quiet, sorted; the last may be open (`FOREVER`).
    pub quiet: Vec<(Timestamp, Timestamp)>,
    pub profiles: u64,
    /// Coupon name to the face value (minor units) already reserved in this calendar month of the shop's zone.
    pub budgets: BTreeMap<Name, i64>,
    /// What codes of coupons are derived with.
    pub coupon_salt: Salt,
    /// Rule tests: nobody is held out unless asked.
    pub holdout_off: bool,
    /// Rule tests with `holdout: true`: everybody is held out.
    pub holdout_all: bool,
    /// Rule tests: every channel has an address.
    pub addresses_given: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pause {
    pub at: Timestamp,
    pub reason: Arc<str>,
}

/// A rule beyond one person.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleState {
    /// The rule as such first went live: silences that began before cost nothing.
    pub first_live_at: Timestamp,
    /// Its present `when` went live.
    pub when_live_at: Timestamp,
    pub when_hash: u32,
    pub paused: Option<Pause>,
    /// Held by its brake until somebody releases it.
    pub held: Option<Pause>,
}

/// What one look decided. The store commits it whole or not at all.
#[derive(Debug)]
pub struct Decision {
    pub profile: Profile,
    /// Why it was looked at and when it wants to be looked at again; `FOREVER`: only an event.
    pub due_at: Timestamp,
    pub messages: Vec<Message>,
    /// Open messages that must not go out any more, with the reason.
    pub cancelled: Vec<(MessageId, Name)>,
    pub postings: Vec<Posting>,
    pub exposures: Vec<ExposureRecord>,
    /// The engine's own events, absorbed already.
    pub own_events: Vec<Event>,
    pub entries: Vec<Entry>,
    /// Notes to the people who run the shop, each with its place among the entries.
    pub alerts: Vec<Alert>,
    /// Rules entered (the brake counts them), with the instant.
    pub entered: Vec<(Name, Timestamp)>,
    /// Coupon name, instant and face value (minor units) reserved from its monthly budget.
    pub budget_used: Vec<(Name, Timestamp, i64)>,
    /// Runs as they stood when one of their steps took points: what the second check of I10 reads.
    pub taking: Vec<Run>,
}

/// At most so many generations of the engine's own events follow one event (I7).
const MAX_GENERATIONS: u8 = 8;

/// Property of the engine's own events: how many of them lie between it and the fact that began it all, itself included.
const GENERATION: &str = "generation";

/// Conditions and steps take turns until nothing moves; a set that never settles is cut off here and goes on at the next look.
const MAX_ROUNDS: usize = 16;

/// A step whose hold is over as it is noted is looked at again after this long.
const LOOK_AGAIN_MS: i64 = 15 * MINUTE_MS;

/// What a quiet source holds is looked at once an hour, a quarter past: its counts are kept by the hour, so looking more often would
/// ask the same thing again (in the demo's year that was three looks of five).
fn source_looked_at_again(now: Timestamp) -> Timestamp {
    const QUARTER_PAST_MS: i64 = 15 * MINUTE_MS;
    let shifted = now.as_ms() - QUARTER_PAST_MS;
    Timestamp::from_ms((shifted.div_euclid(HOUR_MS) + 1) * HOUR_MS + QUARTER_PAST_MS)
}

/// How long slots are kept beyond the longest cap: built-in counts (`sends_7d`) read them.
const SLOTS_KEPT_MS: i64 = 35 * DAY_MS;

/// Decides everything for one person at one instant: `events` are all that wait for the profile, in any order. Pure: the same
/// arguments give the same decision. If `now` lies before the profile's latest decision, that instant counts: time does not go
/// backwards for a person.
pub fn decide(ctx: &Context<'_>, profile: Profile, mut events: Vec<Event>, now: Timestamp) -> Decision {
    let now = profile.decided_at.map_or(now, |at| at.max(now));
    events.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
    let mut look = Look::new(ctx, profile, now);
    look.absorb(&events);
    look.fire_calendar();
    for _ in 0..MAX_ROUNDS {
        look.judge();
        if !look.act() {
            break;
        }
    }
    look.tidy();
    look.profile.decided_at = Some(now);
    look.made.due_at = look.due();
    Decision { profile: look.profile, ..look.made }
}

/// When a person wants to be looked at next, by the stored state alone, as the latest decision would say it in this world: what the
/// due instant on record is held against. `FOREVER` before the first decision.
pub fn next_due(ctx: &Context<'_>, profile: &Profile) -> Timestamp {
    let Some(decided_at) = profile.decided_at else { return Timestamp::FOREVER };
    Look::new(ctx, profile.clone(), decided_at).due()
}

impl Decision {
    /// I10 once more, from the decision's own data, before it is committed: every deduction names a notice of its run that counts as
    /// delivered, takes no more than was announced, comes no earlier than was announced and not within the grace (which our downtime
    /// and a quiet source extend), and is the only one of its stage in this silence.
    pub fn check_promises(&self, ctx: &Context<'_>) -> Result<(), String> {
        for posting in self.postings.iter().filter(|posting| posting.kind == PostingKind::Take) {
            if let Some(broken) = notice::broken(ctx, &self.profile, &self.taking, posting) {
                let step = posting.step.as_deref().unwrap_or("?");
                return Err(format!("a deduction of {} by step {step} {broken}", -posting.amount));
            }
        }
        Ok(())
    }
}

/// One look at one person under way: the profile as it changes, and what has been decided so far.
struct Look<'a> {
    ctx: &'a Context<'a>,
    names: Names<'a>,
    now: Timestamp,
    zone: Zone,
    profile: Profile,
    made: Decision,
}

impl<'a> Look<'a> {
    fn new(ctx: &'a Context<'a>, profile: Profile, now: Timestamp) -> Self {
        let zone = ctx.rules.policy.zone_of(&profile);
        let made = Decision {
            profile: Profile::default(),
            due_at: Timestamp::FOREVER,
            messages: vec![],
            cancelled: vec![],
            postings: vec![],
            exposures: vec![],
            own_events: vec![],
            entries: vec![],
            alerts: vec![],
            entered: vec![],
            budget_used: vec![],
            taking: vec![],
        };
        Look { ctx, names: ctx.rules.names(), now, zone, profile, made }
    }

    fn rules(&self) -> &'a [Rule] {
        &self.ctx.rules.rules
    }

    fn subject(&self) -> Subject<'_> {
        Subject { profile: &self.profile, now: self.now, event: None, run: None }
    }

    /// Truth of an optional condition now; a condition that is not there says `otherwise`.
    fn truth(&self, condition: Option<&Condition>, otherwise: bool) -> Result<bool, EvalError> {
        condition.map_or(Ok(otherwise), |c| c.verdict(self.names, self.subject()).map(|verdict| verdict.truth))
    }

    fn memory_mut(&mut self, rule: &Rule) -> &mut RuleMemory {
        self.profile.rules.entry(rule.id.clone()).or_default()
    }

    fn log(&mut self, rule: &Name, run: u32, step: &Name, what: What, because: impl AsRef<str>, until: Option<Timestamp>) {
        let until = until.filter(|until| !until.is_forever());
        let entry = Entry { at: self.now, rule: rule.clone(), run, step: step.clone(), what, because: Arc::from(because.as_ref()), until };
        self.made.entries.push(entry);
    }

    /// A rule that cannot be evaluated for this person is set aside here and said so, once a day; the others go on (I9).
    fn set_aside(&mut self, rule: &Rule, error: &EvalError) {
        let (gate, no_step) = (Name::from("error"), Name::from(""));
        let because: Arc<str> = Arc::from(error.to_string());
        let is_said = |hold: &Hold| hold.rule == rule.id && hold.run == 0 && hold.gate == gate && hold.because == because;
        if self.profile.holds.iter().any(is_said) {
            return;
        }
        let until = self.now.plus_ms(DAY_MS);
        self.unhold(&rule.id, 0, &no_step);
        self.log(&rule.id, 0, &no_step, What::Quarantined, &because, Some(until));
        let (rule, step, since) = (rule.id.clone(), no_step, self.now);
        self.profile.holds.push(Hold { rule, run: 0, step, gate, since, until, because });
    }

    /// Moves what booking produced into the decision; its events are the engine's own and are heard at once.
    fn take_in(&mut self, booked: Booked, generation: u8) {
        self.made.postings.extend(booked.postings);
        for own in booked.events {
            // what follows from one event ends somewhere (I7)
            if generation <= MAX_GENERATIONS {
                let mut event = own_event(&mut self.profile, own, self.now);
                // a run that this event starts hands it on, however much later it acts
                event.properties.insert(GENERATION.to_owned(), generation.into());
                self.hear(&event, generation, false);
                self.made.own_events.push(event);
            }
        }
    }

    /// What stands between a person and a rule as such, before any condition: a pause, the brake, a quiet source.
    fn closed(&self, rule: &Rule) -> Option<(&'static str, String, Timestamp)> {
        if let Some((what, pause)) = super::gate::rule_pause(self.ctx.world, rule) {
            return Some(("paused", format!("{what} is paused: {}", pause.reason), Timestamp::FOREVER));
        }
        if let Some(pause) = self.ctx.world.rules.get(&rule.id).and_then(|state| state.held.as_ref()) {
            return Some(("brake", format!("held by its brake since {}: {}", pause.at, pause.reason), Timestamp::FOREVER));
        }
        let holds_absence = self.ctx.rules.policy.sources.is_some_and(|sources| sources.holds_absence);
        if rule.rests_on_absence && holds_absence && self.ctx.source_is_quiet(self.now) {
            let because = "the activity source is quiet: absence may be blindness".to_owned();
            return Some(("source", because, source_looked_at_again(self.now)));
        }
        None
    }

    /// Notes "not now, until" for a step; it is logged when the reason is new.
    fn hold(&mut self, rule: &Name, run: u32, step: &Name, gate: &str, because: String, until: Timestamp) {
        let found = self.profile.holds.iter_mut().find(|hold| hold.rule == *rule && hold.run == run && hold.step == *step);
        let because: Arc<str> = Arc::from(because);
        match found {
            Some(hold) if *hold.gate == *gate => {
                hold.until = until;
                hold.because = because;
                return;
            }
            Some(hold) => {
                hold.gate = gate.into();
                hold.since = self.now;
                hold.until = until;
                hold.because = because.clone();
            }
            None => self.profile.holds.push(Hold {
                rule: rule.clone(),
                run,
                step: step.clone(),
                gate: gate.into(),
                since: self.now,
                until,
                because: because.clone(),
            }),
        }
        self.log(rule, run, step, What::Held, format!("{gate}: {because}"), Some(until));
    }

    fn unhold(&mut self, rule: &Name, run: u32, step: &Name) {
        self.profile.holds.retain(|hold| !(hold.rule == *rule && hold.run == run && hold.step == *step));
    }

    /// Ends a run: open messages are called back, its holds go, `on_exit` follows unless it came to its natural end.
    fn end_run(&mut self, index: usize, outcome: RunOutcome, because: &str) {
        let Some(run) = self.profile.runs.get(index).cloned() else { return };
        let no_step = Name::from("");
        if run.ended.is_none() {
            self.log(&run.rule, run.number, &no_step, What::Ended, format!("{}: {because}", outcome.name()), None);
            let now = self.now;
            let memory = self.profile.rules.entry(run.rule.clone()).or_default();
            memory.outcome = Some(outcome);
            memory.ended_at = Some(now);
        }
        self.profile.holds.retain(|hold| !(hold.rule == run.rule && hold.run == run.number));
        if outcome != RunOutcome::Done {
            self.call_back(index, &run, outcome.name());
        }
        let on_exit = self.ctx.rule_of(&run).map_or(0, |rule| rule.on_exit.len());
        let Some(run) = self.profile.runs.get_mut(index) else { return };
        if outcome != RunOutcome::Done && on_exit > 0 && run.ended.is_none() {
            for step in run.steps.iter_mut().filter(|step| **step == StepState::Waiting) {
                *step = StepState::Skipped { at: self.now, because: outcome.name().into() };
            }
            run.steps.extend(std::iter::repeat_n(StepState::Waiting, on_exit));
        }
        run.ended_at.get_or_insert(self.now);
        run.ended = Some(outcome);
    }

    /// A coupon whose message never went out is free again, and so is its share of the budget.
    fn release_coupon(&mut self, message: MessageId) {
        let reserved = self.profile.coupons.iter().find(|coupon| coupon.message == Some(message) && coupon.issued_at.is_none());
        if let Some(offer) = reserved.map(|coupon| coupon.offer.clone())
            && let Some(kind) = self.names.program.and_then(|program| program.coupons.get(&offer))
        {
            self.made.budget_used.push((offer, self.now, -super::coupon::face_value(kind)));
        }
        super::coupon::release(&mut self.profile, message);
    }

    /// Cancels the messages of a run that have not gone out.
    fn call_back(&mut self, index: usize, run: &Run, because: &str) {
        for message in run.open_messages() {
            self.call_back_one(index, message, because);
        }
    }

    fn call_back_one(&mut self, run_index: usize, message: MessageId, because: &str) {
        let is_pending = self.profile.slots.iter().any(|slot| slot.message == message && slot.sent_at.is_none());
        if !is_pending {
            // it may have gone, or wait for another try after nobody knows what: only the latter can still be called back, and its
            // slot stays taken
            return self.made.cancelled.push((message, because.into()));
        }
        self.profile.slots.retain(|slot| slot.message != message);
        self.release_coupon(message);
        if let Some(run) = self.profile.runs.get_mut(run_index) {
            run.cancel(message, self.now);
        }
        match self.made.messages.iter().position(|queued| queued.id == message) {
            // queued by this very decision: it never was
            Some(index) => drop(self.made.messages.remove(index)),
            None => self.made.cancelled.push((message, because.into())),
        }
    }

    /// Drops what nobody will ask for again, so that the row stays small.
    fn tidy(&mut self) {
        let policy = &self.ctx.rules.policy;
        let longest = policy.caps.iter().map(|cap| match cap.window {
            CapWindow::Rolling(ms) => ms,
            CapWindow::LocalDay => DAY_MS + DAY_MS,
            CapWindow::LocalWeek | CapWindow::LocalMonth => SLOTS_KEPT_MS,
        });
        let spans = policy.one_marketing_send_ms.into_iter().chain(policy.duplicates.as_ref().map(|duplicates| duplicates.within_ms));
        let kept = self.now.plus_ms(-longest.chain(spans).max().unwrap_or(0).max(SLOTS_KEPT_MS));
        self.profile.slots.retain(|slot| slot.sent_at.is_none_or(|at| at > kept));
        let rules = self.rules();
        self.profile.looked.retain(|hash| rules.iter().any(|rule| rule.when_hash == *hash));
        let runs = &self.profile.runs;
        let is_live = |rule: &Name, number: u32| runs.iter().any(|run| run.rule == *rule && run.number == number);
        let now = self.now;
        self.profile.holds.retain(|hold| match hold.run {
            0 => &*hold.gate != "error" || hold.until > now,
            run => is_live(&hold.rule, run),
        });
    }
}

/// One of the engine's own events. Its id is derived from the profile and its running number, so that deciding the same thing twice
/// appends once.
pub(super) fn own_event(profile: &mut Profile, own: OwnEvent, now: Timestamp) -> Event {
    profile.own_events += 1;
    Event {
        id: Arc::from(format!("{}:{}:{}", profile.key, own.name, profile.own_events)),
        kind: EventKind::Engine,
        name: own.name,
        occurred_at: own.at,
        received_at: now,
        source: Arc::from("rekindle"),
        properties: own.properties,
    }
}

/// Parts of the truth that somebody stands in a rule: each condition, and whether it must be false.
type Part<'a> = (&'a Condition, bool);

/// Whether all parts hold at an instant and until when that stands, by the algebra of conjunctions; followed to its next real
/// change (at most 64 hops).
fn all_hold(names: Names<'_>, subject: Subject<'_>, parts: &[Part<'_>]) -> Result<Verdict, EvalError> {
    let first = conjunction(names, subject, parts)?;
    let mut until = first.until;
    for _ in 0..64 {
        if until.is_forever() {
            break;
        }
        match conjunction(names, Subject { now: until, ..subject }, parts) {
            Ok(next) if next.truth == first.truth && next.until > until => until = next.until,
            // another truth, or no answer any more: that is a change
            _ => break,
        }
    }
    Ok(Verdict::new(first.truth, until))
}

/// One false part is enough, whatever cannot be answered: a guard in the audience counts for `when`.
fn conjunction(names: Names<'_>, subject: Subject<'_>, parts: &[Part<'_>]) -> Result<Verdict, EvalError> {
    let mut when_true = Timestamp::FOREVER;
    let mut when_false: Option<Timestamp> = None;
    let mut trouble = None;
    for (condition, negated) in parts {
        match condition.verdict(names, subject) {
            Ok(verdict) if verdict.truth != *negated => when_true = when_true.min(verdict.until),
            Ok(verdict) => when_false = when_false.max(Some(verdict.until)),
            Err(error) => trouble = Some(error),
        }
    }
    match (when_false, trouble) {
        (Some(until), _) => Ok(Verdict::new(false, until)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(Verdict::new(true, when_true)),
    }
}

/// The next instant of a run's own: a step's planned time, or the end of what holds it.
fn next_of_run(look: &Look<'_>, rule: &Rule, run: &Run) -> Timestamp {
    let in_reach = |index: usize, step: &StepState| match run.ended {
        None => *step == StepState::Waiting,
        Some(RunOutcome::Done) => false,
        Some(_) => index >= rule.steps.len() && *step == StepState::Waiting,
    };
    let instants = run.steps.iter().enumerate().filter_map(|(index, step)| {
        let id = &run::step_at(rule, index)?.id;
        let hold = look.profile.holds.iter().find(|h| h.rule == run.rule && h.run == run.number && h.step == *id);
        match hold {
            Some(hold) => Some(hold.until),
            None => in_reach(index, step).then(|| run::planned(rule, run, index, &look.profile.key, &look.zone)),
        }
    });
    instants.min().unwrap_or(Timestamp::FOREVER)
}
