//! A timeline through the engine's front door, in memory: rule tests, `simulate` and the facts of a real year.
//!
//! Time jumps from stop to stop: every event, every instant at which somebody is due, every instant at which a message is due.
//! At a stop, [`decide`](crate::engine::decide::decide) looks, what it queued goes through the gates again as `dispatch` does it,
//! and the receipts that [`Deliver`] plays share the decision's instant. Receipts wait for the person's next look unless a run
//! waits for them, exactly as in the store.
//!
//! Deliberately not here: files, tables, rendering, providers. Nothing is sent, and people do not react to what was not sent.

pub mod compare;
pub mod coverage;
pub mod expect;
pub mod explain;
pub mod figures;
pub mod film;
pub mod journal;
pub mod report;
pub mod testfile;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use self::coverage::Coverage;
use crate::engine::action::{Channel, Entry, ExposureRecord, Message, MessageState, Outcome, Posting, What};
use crate::engine::consent::said_by_traits;
use crate::engine::decide::{self, Context, Decision, Pause, RuleState, World};
use crate::engine::event::{Event, Value};
use crate::engine::gate::{self, Intent};
use crate::engine::profile::{Attribute, Name, Profile};
use crate::engine::rule::{RuleSet, check};
use crate::engine::run::{self, ResultOf};
use crate::engine::time::{HOUR_MS, Timestamp};
use crate::message;

use self::journal::Journal;

/// More looks than that at one person at one instant mean that the engine does not come to rest there: a fault, reported.
const MOST_LOOKS_AT_AN_INSTANT: usize = 64;

/// What a provider answers, in rule tests and replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    Accepted,
    /// Accepted, and a receipt says that it arrived.
    Delivered,
    /// Definitely refused. Suppresses nothing.
    Failed,
    /// Accepted, then bounced: the address is suppressed.
    Bounced,
    /// Nobody knows.
    Ambiguous,
}

impl Receipt {
    pub const ALL: [Receipt; 5] = [Receipt::Accepted, Receipt::Delivered, Receipt::Failed, Receipt::Bounced, Receipt::Ambiguous];

    pub fn name(self) -> &'static str {
        match self {
            Receipt::Accepted => "accepted",
            Receipt::Delivered => "delivered",
            Receipt::Failed => "failed",
            Receipt::Bounced => "bounced",
            Receipt::Ambiguous => "ambiguous",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }

    /// The results that are recorded, in order.
    fn outcomes(self) -> &'static [Outcome] {
        match self {
            Receipt::Accepted => &[Outcome::Accepted],
            Receipt::Delivered => &[Outcome::Accepted, Outcome::Delivered],
            Receipt::Failed => &[Outcome::Failed],
            Receipt::Bounced => &[Outcome::Accepted, Outcome::Bounced],
            Receipt::Ambiguous => &[Outcome::Unknown],
        }
    }
}

/// How each channel answers. What is not named: delivered, on channels without receipts accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deliver(pub BTreeMap<Channel, Receipt>);

impl Deliver {
    pub fn receipt(&self, channel: Channel) -> Receipt {
        let default = if channel.has_receipts() { Receipt::Delivered } else { Receipt::Accepted };
        self.0.get(&channel).copied().unwrap_or(default)
    }
}

/// One person on the timeline: the row, what waits for it, and what became of everything so far.
#[derive(Debug, Default)]
pub struct Person {
    pub profile: Profile,
    /// When the engine wants to look again; `FOREVER`: only an event.
    pub due_at: Timestamp,
    pub messages: Vec<Sending>,
    pub postings: Vec<Posting>,
    pub exposures: Vec<ExposureRecord>,
    pub entries: Vec<Entry>,
    /// The engine's own events, and the receipts.
    pub own_events: Vec<Event>,
    /// What became of each step, by (rule, run number, step).
    pub steps: BTreeMap<(Name, u32, Name), Fate>,
    /// Has joined, or an event has arrived: from then on the person exists.
    known: bool,
    /// Arrived, and not yet absorbed by a look.
    waiting: Vec<Event>,
    /// Not yet arrived, by instant of arrival.
    coming: VecDeque<Event>,
    /// The stop that stands in the agenda.
    next_stop: Timestamp,
}

/// A message on its way, as the table of messages would have it.
#[derive(Debug, Clone)]
pub struct Sending {
    pub message: Message,
    pub state: MessageState,
    /// Since when it is in that state.
    pub at: Timestamp,
    /// Why it is where it is, if a gate stopped it.
    pub because: Option<String>,
    /// Some provider had it for sure at some time, whatever came later.
    pub accepted: bool,
}

/// What a step has been through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fate {
    /// A message of it was accepted.
    pub sent: bool,
    /// Another action of it happened.
    pub acted: bool,
    pub held: bool,
    pub skipped: bool,
    /// Ended without effect: by a gate, by its deadline, or because its last channel refused.
    pub ended: bool,
}

/// What a timeline has cost and counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Looks: one `decide` of one person at one instant.
    pub evaluations: u64,
    /// Of these, looks for which no event had arrived: made by the clock, or for a receipt that a run waited for.
    pub clock_instants: u64,
    /// Events that arrived.
    pub events: u64,
    /// Runs begun, by rule; held-out people included.
    pub entered: BTreeMap<Name, u64>,
    /// People skipped as existing, by rule.
    pub existing: BTreeMap<Name, u64>,
}

/// Many people in memory, one rule set, and an instant that moves forward.
pub struct Timeline {
    rules: Arc<RuleSet>,
    older: HashMap<u64, Arc<RuleSet>>,
    /// Pauses, brakes, quiet sources: a story may change it between two advances (then [`Timeline::look_again`]).
    pub world: World,
    pub deliver: Deliver,
    pub counts: Counts,
    /// What the looks have seen of conditions, where somebody wants to know.
    pub coverage: Option<Coverage>,
    /// Faults of the engine that a replay met (a promise broken, no rest at an instant): empty, or a bug.
    pub faults: Vec<String>,
    now: Timestamp,
    /// In the order in which they came, each at a place that stays theirs.
    people: Vec<Person>,
    places: HashMap<Name, usize>,
    /// Who is to be looked at when; of those at one instant, who came first.
    agenda: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// Entries of the last hour by rule, for the brake.
    recent_entries: BTreeMap<Name, VecDeque<Timestamp>>,
    /// Calendar month of the shop for which `world.budgets` counts.
    budget_month: Option<(i16, i8)>,
    keep_history: bool,
    journal: Option<Journal>,
}

impl Timeline {
    /// A timeline at `start`, on which every rule has been live since `live_since`.
    pub fn new(rules: Arc<RuleSet>, start: Timestamp, live_since: Timestamp) -> Self {
        let live = |when_hash| RuleState { first_live_at: live_since, when_live_at: live_since, when_hash, paused: None, held: None };
        let states = rules.rules.iter().map(|rule| (Name::clone(&rule.id), live(rule.when_hash))).collect();
        Timeline {
            rules,
            older: HashMap::new(),
            world: World { rules: states, addresses_given: true, ..World::default() },
            deliver: Deliver::default(),
            counts: Counts::default(),
            coverage: None,
            faults: Vec::new(),
            now: start,
            people: Vec::new(),
            places: HashMap::new(),
            agenda: BinaryHeap::new(),
            recent_entries: BTreeMap::new(),
            budget_month: None,
            keep_history: true,
            journal: None,
        }
    }

    /// Keeps what is counted and forgets the history (entries, postings, ended messages): for large replays.
    #[must_use]
    pub fn without_history(mut self) -> Self {
        self.keep_history = false;
        self
    }

    /// Notes in brief what happens to everybody: for reports and comparisons.
    #[must_use]
    pub fn with_journal(mut self) -> Self {
        self.journal = Some(Journal::default());
        self
    }

    /// In a world that has been going on: its pauses and rules, what its budgets have given this month, and who entered within the hour, as
    /// if they had come just now.
    #[must_use]
    pub fn in_world(mut self, world: World, entered: BTreeMap<Name, u64>) -> Self {
        self.world = world;
        self.budget_month = self.month();
        let now = self.now;
        let recent = |count: u64| std::iter::repeat_n(now, usize::try_from(count).unwrap_or(usize::MAX)).collect();
        self.recent_entries = entered.into_iter().map(|(rule, count)| (rule, recent(count))).collect();
        self
    }

    /// What happened until now counts no more; it stays as it is.
    pub fn count_from_here(&mut self) {
        self.counts = Counts::default();
        self.people.iter_mut().for_each(|person| person.steps.clear());
        if let Some(journal) = &mut self.journal {
            journal.entered_by.clear();
        }
    }

    /// What was noted so far; empty if nothing was to be.
    pub fn into_journal(self) -> Journal {
        self.journal.unwrap_or_default()
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Everybody known by now, by their names.
    pub fn people(&self) -> impl Iterator<Item = (&Name, &Person)> {
        let mut known: Vec<(&Name, &Person)> = self.people.iter().filter(|p| p.known).map(|p| (&p.profile.key, p)).collect();
        known.sort_by(|a, b| a.0.cmp(b.0));
        known.into_iter()
    }

    pub fn person(&self, user: &str) -> Option<&Person> {
        self.people.get(*self.places.get(user)?)
    }

    /// Puts a person on the timeline as they are, to be looked at now.
    pub fn join(&mut self, mut profile: Profile) {
        give_addresses(&mut profile);
        self.world.profiles += 1;
        self.add(Person { profile, due_at: self.now, next_stop: Timestamp::FOREVER, known: true, ..Person::default() });
    }

    /// Puts a person on the timeline as a database has them, with what waits for them. The world counts them already.
    pub fn join_as_stored(&mut self, profile: Profile, due_at: Timestamp, waiting: Vec<Event>) {
        let due_at = if waiting.is_empty() { due_at.max(self.now) } else { self.now };
        self.add(Person { profile, due_at, waiting, next_stop: Timestamp::FOREVER, known: true, ..Person::default() });
    }

    fn add(&mut self, person: Person) -> usize {
        let place = *self.places.entry(Name::clone(&person.profile.key)).or_insert(self.people.len());
        match self.people.get_mut(place) {
            Some(there) => *there = person,
            None => self.people.push(person),
        }
        self.schedule(place);
        place
    }

    /// A rule set that runs under way began with.
    pub fn knows(&mut self, older: Arc<RuleSet>) {
        self.older.insert(older.version, older);
    }

    /// An event that arrives at its `received_at`; at once if that is past. An unknown user begins to exist with it.
    pub fn event(&mut self, user: &str, event: Event) {
        let place = self.places.get(user).copied().unwrap_or_else(|| {
            let mut profile = Profile::new(user);
            give_addresses(&mut profile);
            self.add(Person { profile, due_at: Timestamp::FOREVER, next_stop: Timestamp::FOREVER, ..Person::default() })
        });
        let records = said_by_traits(&event, &self.rules.dictionary);
        if let Some(person) = self.people.get_mut(place) {
            for event in std::iter::once(event).chain(records) {
                let index = person.coming.partition_point(|e| e.received_at <= event.received_at);
                person.coming.insert(index, event);
            }
        }
        self.schedule(place);
    }

    /// Everybody is due now: for when the world changed (a rule released, a pause ended, a source that speaks again).
    pub fn look_again(&mut self) {
        for place in 0..self.people.len() {
            if let Some(person) = self.people.get_mut(place).filter(|person| person.known) {
                person.due_at = person.due_at.min(self.now);
            }
            self.schedule(place);
        }
    }

    /// Another rule set takes over at this instant; runs under way finish on theirs, under its definitions. A rule whose `when` changed went live now.
    pub fn reload(&mut self, rules: Arc<RuleSet>) {
        for rule in &rules.rules {
            let state = self.world.rules.entry(Name::clone(&rule.id)).or_insert(RuleState {
                first_live_at: self.now,
                when_live_at: self.now,
                when_hash: rule.when_hash,
                paused: None,
                held: None,
            });
            if state.when_hash != rule.when_hash {
                state.when_hash = rule.when_hash;
                state.when_live_at = self.now;
            }
        }
        let before = std::mem::replace(&mut self.rules, rules);
        self.older.insert(before.version, before);
        self.older.remove(&self.rules.version);
        for set in self.older.values_mut() {
            *set = Arc::new(check::under_present(set, &self.rules).0);
        }
        self.look_again();
    }

    /// A restart: everybody's row goes through its stored form, which is the caller's to know.
    pub fn restart(&mut self, stored_and_read: impl Fn(&Profile) -> Profile) {
        for person in &mut self.people {
            person.profile = stored_and_read(&person.profile);
        }
    }

    /// Moves to `until`, stopping at everything that is due on the way, `until` included.
    pub fn advance_to(&mut self, until: Timestamp) {
        while let Some(Reverse((at, _))) = self.agenda.peek() {
            if *at > until {
                break;
            }
            let Some(Reverse((at, place))) = self.agenda.pop() else { break };
            if self.people.get(place).is_some_and(|person| person.next_stop == at) {
                self.now = self.now.max(at);
                self.stop(place);
            }
        }
        self.now = self.now.max(until);
    }

    /// No worker is alive until `until`: events arrive and wait, nothing is looked at or sent. Then one late look at everything.
    pub fn sleep_to(&mut self, until: Timestamp) {
        self.world.downtime.push((self.now, until));
        self.now = self.now.max(until);
        self.advance_to(until);
    }

    /// Lets a rule that its brake held go on.
    pub fn release(&mut self, rule: &str) {
        if let Some(state) = self.world.rules.get_mut(rule) {
            state.held = None;
        }
        self.recent_entries.remove(rule);
        self.look_again();
    }

    // ------------------------------------------------------------------------------------------------------------- one stop

    fn schedule(&mut self, place: usize) {
        let Some(person) = self.people.get_mut(place) else { return };
        let arrival = person.coming.front().map_or(Timestamp::FOREVER, |event| event.received_at);
        let queued = person.messages.iter().filter(|m| m.state == MessageState::Queued).map(|m| m.message.due_at);
        let receipts = queued.min().unwrap_or(Timestamp::FOREVER);
        let stop = person.due_at.min(arrival).min(receipts);
        if stop != person.next_stop {
            person.next_stop = stop;
            if !stop.is_forever() {
                self.agenda.push(Reverse((stop, place)));
            }
        }
    }

    /// Looks and sends, in turn, until nothing about this person is due at this instant.
    fn stop(&mut self, place: usize) {
        let Some(mut person) = self.people.get_mut(place).map(std::mem::take) else { return };
        let arrived = self.take_arrivals(&mut person);
        let mut look = arrived || person.due_at <= self.now;
        let mut by_event = arrived;
        let mut looks = 0;
        loop {
            if look {
                self.look(&mut person, by_event);
                by_event = false;
                looks += 1;
            }
            let woken = self.send_what_is_due(&mut person);
            look = woken || person.due_at <= self.now;
            if !look {
                break;
            }
            if looks > MOST_LOOKS_AT_AN_INSTANT {
                self.faults.push(format!("{} does not come to rest at {}", person.profile.key, self.now));
                person.due_at = Timestamp::FOREVER;
                break;
            }
        }
        if !self.keep_history {
            person.messages.retain(|m| m.state == MessageState::Queued);
        }
        person.next_stop = Timestamp::FOREVER;
        if let Some(there) = self.people.get_mut(place) {
            *there = person;
        }
        self.schedule(place);
    }

    fn take_arrivals(&mut self, person: &mut Person) -> bool {
        let mut arrived = false;
        while person.coming.front().is_some_and(|event| event.received_at <= self.now) {
            person.waiting.extend(person.coming.pop_front());
            self.counts.events += 1;
            self.world.profiles += u64::from(!person.known);
            person.known = true;
            arrived = true;
        }
        arrived
    }

    fn look(&mut self, person: &mut Person, by_event: bool) {
        self.turn_budget_month();
        self.counts.evaluations += 1;
        self.counts.clock_instants += u64::from(!by_event);
        let braked = self.apply_brakes();
        let ctx = Context { rules: &self.rules, older: &self.older, world: &self.world };
        let profile = std::mem::take(&mut person.profile);
        let arrived = std::mem::take(&mut person.waiting);
        let seen = self.coverage.is_some().then(|| arrived.clone());
        let mut decision = decide::decide(&ctx, profile, arrived, self.now);
        message::write_alerts(self.rules.names(), &mut decision);
        if let Err(broken) = decision.check_promises(&ctx) {
            self.faults.push(format!("{} at {}: {broken}", decision.profile.key, self.now));
        }
        self.loosen_brakes(braked, &decision);
        if let (Some(coverage), Some(arrived)) = (&mut self.coverage, seen) {
            coverage.look(&self.rules, &decision.profile, self.now, &arrived);
        }
        self.keep(person, decision);
    }

    /// What the commit of a decision does.
    fn keep(&mut self, person: &mut Person, decision: Decision) {
        if let Some(journal) = &mut self.journal {
            journal.decided(&decision, self.now);
        }
        person.profile = decision.profile;
        person.due_at = decision.due_at;
        for (id, because) in decision.cancelled {
            if let Some(sending) = person.messages.iter_mut().find(|m| m.message.id == id && m.state.is_open()) {
                sending.because = Some(because.to_string());
                sending.hear(Outcome::Cancelled, self.now);
                person.steps.entry(sending.step_key()).or_default().ended = true;
            }
        }
        for message in decision.messages {
            let sending = Sending { message, state: MessageState::Queued, at: self.now, because: None, accepted: false };
            person.messages.push(sending);
        }
        for entry in &decision.entries {
            self.count(person, entry);
        }
        for (coupon, _, used) in decision.budget_used {
            *self.world.budgets.entry(coupon).or_default() += used;
        }
        for (rule, at) in decision.entered {
            self.recent_entries.entry(rule).or_default().push_back(at);
        }
        if self.keep_history {
            person.entries.extend(decision.entries);
            person.postings.extend(decision.postings);
            person.exposures.extend(decision.exposures);
            person.own_events.extend(decision.own_events);
        }
    }

    fn count(&mut self, person: &mut Person, entry: &Entry) {
        match entry.what {
            What::Entered => *self.counts.entered.entry(Name::clone(&entry.rule)).or_default() += 1,
            What::Existing => *self.counts.existing.entry(Name::clone(&entry.rule)).or_default() += 1,
            What::Acted | What::Alerted | What::Shadowed | What::Skipped | What::Held | What::Dropped if !entry.step.is_empty() => {
                let key = (Name::clone(&entry.rule), entry.run, Name::clone(&entry.step));
                let fate = person.steps.entry(key).or_default();
                match entry.what {
                    What::Acted | What::Alerted | What::Shadowed => fate.acted = true,
                    What::Skipped => fate.skipped = true,
                    What::Held => fate.held = true,
                    _ => fate.ended = true,
                }
            }
            _ => {}
        }
    }

    /// Holds every rule that has had all the entries it may have in 60 minutes, so that one more would wait.
    fn apply_brakes(&mut self) -> Vec<Name> {
        let mut braked = Vec::new();
        for (rule, recent) in &mut self.recent_entries {
            while recent.front().is_some_and(|first| self.now.ms_since(*first) >= HOUR_MS) {
                recent.pop_front();
            }
            if recent.is_empty() {
                continue;
            }
            let limit = self.rules.rule(rule).and_then(|r| r.max_entries.limit(self.world.profiles));
            if let (Some(limit), Some(state)) = (limit, self.world.rules.get_mut(rule))
                && recent.len() as u64 >= limit
                && state.held.is_none()
            {
                let reason = format!("more than {limit} entries within 60 minutes");
                state.held = Some(Pause { at: self.now, reason: Arc::from(reason) });
                braked.push(Name::clone(rule));
            }
        }
        braked
    }

    /// The brake stays on where somebody wanted in; where nobody did, the rule was never held.
    fn loosen_brakes(&mut self, braked: Vec<Name>, decision: &Decision) {
        for rule in braked {
            let profile = &decision.profile;
            let waits = profile.holds.iter().any(|hold| hold.rule == rule && hold.run == 0)
                || profile.waiting.iter().any(|entry| entry.rule == rule);
            if !waits && let Some(state) = self.world.rules.get_mut(&rule) {
                state.held = None;
            }
        }
    }

    /// The shop's month of this instant.
    fn month(&self) -> Option<(i16, i8)> {
        let today = self.now.local(&self.rules.policy.zone.last).date();
        Some((today.year(), today.month()))
    }

    fn turn_budget_month(&mut self) {
        let month = self.month();
        if self.budget_month != month {
            self.budget_month = month;
            self.world.budgets.clear();
        }
    }

    // ------------------------------------------------------------------------------------------------------------- messages

    /// What `dispatch` does with every message that is due: the gates once more, the send, the results. True if a result makes
    /// the person due.
    fn send_what_is_due(&mut self, person: &mut Person) -> bool {
        let mut woken = false;
        let due = |m: &Sending, now| m.state == MessageState::Queued && m.message.due_at <= now;
        for index in 0..person.messages.len() {
            let Some(sending) = person.messages.get_mut(index).filter(|m| due(m, self.now)) else { continue };
            let ctx = Context { rules: &self.rules, older: &self.older, world: &self.world };
            let outcomes: &[Outcome] = match gate::at_intent(&ctx, &person.profile, &sending.message, self.now) {
                Intent::Send { profile, own_event } => {
                    person.profile = *profile;
                    person.own_events.extend(own_event.filter(|_| self.keep_history));
                    self.deliver.receipt(sending.message.channel).outcomes()
                }
                Intent::Hold { until, gate, because } => {
                    if let Some(journal) = &mut self.journal {
                        journal.stopped(&sending.message, &person.profile.key, self.now, &gate, false);
                    }
                    sending.because = Some(because);
                    sending.message.due_at = until;
                    person.steps.entry(sending.step_key()).or_default().held = true;
                    &[]
                }
                Intent::Block { gate, because } => {
                    if let Some(journal) = &mut self.journal {
                        journal.stopped(&sending.message, &person.profile.key, self.now, &gate, true);
                    }
                    sending.stopped(because, &[Outcome::Blocked])
                }
                Intent::Expire { because } => sending.stopped(because, &[Outcome::Expired]),
                Intent::Cancel { because } => sending.stopped(because, &[Outcome::Cancelled]),
            };
            for outcome in outcomes {
                woken |= self.record(person, index, *outcome);
            }
        }
        woken
    }

    /// Records a result as a fact; true if the person's run waits for it.
    fn record(&mut self, person: &mut Person, index: usize, outcome: Outcome) -> bool {
        let Some(sending) = person.messages.get_mut(index) else { return false };
        sending.hear(outcome, self.now);
        if let Some(journal) = self.journal.as_mut().filter(|_| outcome == Outcome::Accepted) {
            journal.sent(&sending.message, &person.profile.key, self.now);
        }
        let fate = person.steps.entry(sending.step_key()).or_default();
        fate.sent |= sending.accepted;
        fate.ended |= !sending.accepted && !sending.state.is_open() && sending.state != MessageState::Unknown;
        let event = run::result_event(&ResultOf::from(&sending.message), outcome, self.now, "");
        if self.keep_history {
            person.own_events.push(event.clone());
        }
        person.waiting.push(event);
        let makes_room = run::never_went(outcome) && gate::waits_for_room(&person.profile);
        sending.message.wakes_on & outcome.bit() != 0 || makes_room
    }
}

/// Every channel has an address here, so that `reachable` and the gates speak of consent and suppression alone. What `identify`
/// says later replaces it.
fn give_addresses(profile: &mut Profile) {
    for channel in Channel::ALL {
        let given = Attribute { value: Value::text("given"), at: Timestamp::DISTANT_PAST };
        profile.addresses.entry(channel).or_insert(given);
    }
}

impl Sending {
    pub fn step_key(&self) -> (Name, u32, Name) {
        (Name::clone(&self.message.rule), self.message.run, Name::clone(&self.message.step))
    }

    /// Keeps the reason and hands on what is to be recorded.
    fn stopped(&mut self, because: String, outcomes: &'static [Outcome]) -> &'static [Outcome] {
        self.because = Some(because);
        outcomes
    }

    fn hear(&mut self, outcome: Outcome, at: Timestamp) {
        let state = match outcome {
            Outcome::Accepted => MessageState::Accepted,
            Outcome::Delivered | Outcome::Opened | Outcome::Clicked => MessageState::Delivered,
            Outcome::Failed => MessageState::Failed,
            Outcome::Bounced => MessageState::Bounced,
            Outcome::Unknown => MessageState::Unknown,
            Outcome::Blocked => MessageState::Blocked,
            Outcome::Expired => MessageState::Expired,
            Outcome::Cancelled => MessageState::Cancelled,
            Outcome::Dead => MessageState::Dead,
        };
        self.accepted |= state == MessageState::Accepted || state == MessageState::Delivered;
        self.state = state;
        self.at = at;
    }
}
