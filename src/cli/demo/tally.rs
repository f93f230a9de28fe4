//! What happened, counted from what is on record: the decision log and the events, walked once in the order in which they were
//! written. Nothing is counted while it happens, so a replay that was killed and went on counts the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::civil::{Date, Weekday};

use crate::engine::action::{Entry, MessageId, Outcome, What};
use crate::engine::event::{Event, EventKind};
use crate::engine::gate::GATES;
use crate::engine::profile::{Category, Name};
use crate::engine::rule::{Action, RuleSet, Step};
use crate::engine::run::read_result;
use crate::engine::time::{DAY_MS, Timestamp, Zone};
use crate::store::{EntryRow, EventRow, EventSeq, ProfileId, Store, StoreError};

/// Rows read at a time.
const PAGE: usize = 5_000;
/// Who has not ordered for that long has fallen silent; an order after it is a return.
const SILENT_MS: i64 = 30 * DAY_MS;

/// One week of the shop, Monday to Sunday by its own clock.
#[derive(Clone, Debug, Default)]
pub struct Week {
    /// Customers who reached 30 days without an order.
    pub fell_silent: u64,
    /// Customers who ordered again after 30 days or more.
    pub returned: u64,
    pub entered: u64,
    /// Messages that a provider took, by their first sign of it: a receipt may come where the answer was lost.
    pub sent: u64,
    pub sent_by_rule: BTreeMap<Name, u64>,
    /// Customers who were told that a rule that rests on absence is about to cost them something: its messages that are no marketing.
    pub warned: BTreeSet<ProfileId>,
    /// "Not now, until": a gate, `require` or `notice`.
    pub held: u64,
    pub dropped: u64,
    pub points_taken: i64,
    pub points_restored: i64,
}

/// What one gate did in the year.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Holds begun.
    pub held: u64,
    /// Those that are over: since when and until when.
    pub spans: Vec<(Timestamp, Timestamp)>,
    /// Holds that last still.
    pub waiting: u64,
    /// Steps that ended unsent because of it.
    pub dropped: u64,
    /// Steps skipped because of it (holdout): one run may count several times.
    pub skipped: u64,
    /// One reason as it was written, the first.
    pub example: Option<String>,
}

impl Gate {
    pub fn median_ms(&self) -> Option<i64> {
        let mut sorted = self.durations();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    pub fn longest_ms(&self) -> Option<i64> {
        self.durations().into_iter().max()
    }

    fn durations(&self) -> Vec<i64> {
        self.spans.iter().map(|(since, until)| until.ms_since(*since)).collect()
    }
}

/// A person's way through the year, as far as the choice of the one to show needs it.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub first_at: Option<Timestamp>,
    /// The newest fact from outside.
    pub received_at: Option<Timestamp>,
    pub last_active_at: Option<Timestamp>,
    /// Returns after 30 silent days.
    pub returns: u32,
    /// Messages taken by a provider that warned: of rules that rest on absence, and no marketing.
    pub warnings: u32,
    pub messages: u32,
    pub taken: i64,
    pub restored: i64,
    /// Times that something was told "not now, until".
    pub holds: u32,
    /// Lines of the decision log.
    pub lines: u32,
}

/// A change of a person's tier.
#[derive(Clone, Debug, PartialEq)]
pub struct TierMove {
    pub at: Timestamp,
    pub from: Option<Name>,
    pub to: Name,
    pub profile: ProfileId,
}

/// A step that is held, and by whom.
type Held = (ProfileId, Name, u32, Name);

/// The counts so far. [`Tally::catch_up`] reads on.
pub struct Tally {
    zone: Zone,
    /// Events that count as the person being there, by their name on the wire.
    active: BTreeSet<Name>,
    /// Rule and step of what warns: sends of rules that rest on absence, marketing aside.
    warnings: BTreeSet<(Name, Name)>,
    /// Messages counted as sent.
    sent: HashSet<MessageId>,
    entries_upto: i64,
    events_upto: EventSeq,
    pub weeks: BTreeMap<Date, Week>,
    pub gates: BTreeMap<Name, Gate>,
    pub lives: HashMap<ProfileId, Life>,
    pub tier_moves: Vec<TierMove>,
    open_holds: BTreeMap<Held, (Name, Timestamp)>,
    /// Instants at which people will have been silent for 30 days, unless they order before.
    silences: BTreeSet<(Timestamp, ProfileId)>,
}

impl Tally {
    /// For the rules of a set, in the weeks of a zone.
    pub fn of(rules: &RuleSet, zone: Zone) -> Self {
        let active = rules.dictionary.events.values().filter(|event| event.active).map(|event| event.wire_name.clone()).collect();
        let of_absence = rules.rules.iter().filter(|rule| rule.rests_on_absence);
        let steps = of_absence.flat_map(|rule| rule.steps.iter().map(move |step| (rule, step)));
        let warns = |step: &Step| matches!(&step.action, Action::Send(send) if send.category != Category::Marketing);
        let warnings = steps.filter(|(_, step)| warns(step)).map(|(rule, step)| (rule.id.clone(), step.id.clone())).collect();
        Tally {
            zone,
            active,
            warnings,
            sent: HashSet::new(),
            entries_upto: 0,
            events_upto: EventSeq(0),
            weeks: BTreeMap::new(),
            gates: BTreeMap::new(),
            lives: HashMap::new(),
            tier_moves: Vec::new(),
            open_holds: BTreeMap::new(),
            silences: BTreeSet::new(),
        }
    }

    /// Reads what was written since the last time, and counts silences reached before `now`.
    pub async fn catch_up(&mut self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let rows = store.events(self.events_upto, PAGE).await?;
            let Some(last) = rows.last() else { break };
            self.events_upto = last.seq;
            rows.iter().for_each(|row| self.event(row));
        }
        loop {
            let rows = store.entries(self.entries_upto, PAGE).await?;
            let Some(last) = rows.last() else { break };
            self.entries_upto = last.seq;
            rows.iter().for_each(|row| self.entry(row));
        }
        self.silent_upto(now);
        Ok(())
    }

    /// The Monday of the week of `at` by the shop's clock.
    pub fn monday(&self, at: Timestamp) -> Date {
        monday(at.local(&self.zone).date())
    }

    /// Looks that a scan of everybody once a day would have made until then.
    pub fn daily_scan(&self, until: Timestamp) -> u64 {
        let days = |first: Timestamp| (until.ms_since(first).max(0) / DAY_MS) as u64 + 1;
        self.lives.values().filter_map(|life| life.first_at).map(days).sum()
    }

    fn week(&mut self, at: Timestamp) -> &mut Week {
        let monday = self.monday(at);
        self.weeks.entry(monday).or_default()
    }

    // -- events

    fn event(&mut self, row: &EventRow) {
        let event = &row.event;
        match event.kind {
            EventKind::Engine => self.own_event(row.profile, event),
            EventKind::Track if self.active.contains(&event.name) => self.active_event(row.profile, event.occurred_at),
            EventKind::Track | EventKind::Identify | EventKind::Consent => {}
        }
        if event.kind != EventKind::Engine {
            let life = self.lives.entry(row.profile).or_default();
            life.first_at = Some(life.first_at.map_or(event.occurred_at, |first| first.min(event.occurred_at)));
            life.received_at = life.received_at.max(Some(event.received_at));
        }
    }

    /// Each person's events come in order of time; those of different people in any order.
    fn active_event(&mut self, profile: ProfileId, at: Timestamp) {
        let life = self.lives.entry(profile).or_default();
        let before = life.last_active_at.replace(life.last_active_at.map_or(at, |last| last.max(at)));
        // at exactly 30 days the order comes first: no silence
        let returned = before.is_some_and(|before| at.ms_since(before) > SILENT_MS);
        life.returns += u32::from(returned);
        if let Some(silent_at) = before.map(|before| before.plus_ms(SILENT_MS)) {
            let is_pending = self.silences.remove(&(silent_at, profile));
            if is_pending && returned {
                self.week(silent_at).fell_silent += 1;
            }
        }
        self.silences.insert((at.max(before.unwrap_or(at)).plus_ms(SILENT_MS), profile));
        if returned {
            self.week(at).returned += 1;
        }
    }

    /// Counts the silences reached before `now`; everybody's events up to then have been read.
    fn silent_upto(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.silences.first().copied().filter(|(at, _)| *at < now) {
            self.silences.pop_first();
            self.week(at).fell_silent += 1;
        }
    }

    fn own_event(&mut self, profile: ProfileId, event: &Event) {
        let at = event.occurred_at;
        let points = || event.property("points").and_then(serde_json::Value::as_i64).unwrap_or(0);
        match &*event.name {
            "points_taken" => {
                self.week(at).points_taken += points();
                self.lives.entry(profile).or_default().taken += points();
            }
            "points_restored" => {
                self.week(at).points_restored += points();
                self.lives.entry(profile).or_default().restored += points();
            }
            "tier_changed" => {
                let to = event.text_property("to").map(Name::from);
                let from = event.text_property("from").map(Name::from);
                self.tier_moves.extend(to.map(|to| TierMove { at, from, to, profile }));
            }
            _ => {
                let took = |outcome| matches!(outcome, Outcome::Accepted | Outcome::Delivered | Outcome::Bounced);
                if let Some((message, _)) = read_result(event).filter(|(_, outcome)| took(*outcome))
                    && self.sent.insert(message)
                {
                    self.message(profile, event);
                }
            }
        }
    }

    fn message(&mut self, profile: ProfileId, event: &Event) {
        let named = |property: &str| Name::from(event.text_property(property).unwrap_or_default());
        let (rule, step) = (named("rule"), named("step"));
        let warns = self.warnings.contains(&(rule.clone(), step));
        let week = self.week(event.occurred_at);
        week.sent += 1;
        *week.sent_by_rule.entry(rule).or_default() += 1;
        if warns {
            week.warned.insert(profile);
        }
        let life = self.lives.entry(profile).or_default();
        life.messages += 1;
        life.warnings += u32::from(warns);
    }

    // -- the decision log

    fn entry(&mut self, row: &EntryRow) {
        let entry = &row.entry;
        self.lives.entry(row.profile).or_default().lines += 1;
        self.end_holds(row);
        match entry.what {
            What::Entered => self.week(entry.at).entered += 1,
            What::Held => {
                self.week(entry.at).held += 1;
                self.lives.entry(row.profile).or_default().holds += 1;
                let (gate, because) = gate_of(entry);
                let counts = self.gates.entry(gate.clone()).or_default();
                counts.held += 1;
                counts.example.get_or_insert_with(|| because.to_owned());
                self.open_holds.insert((row.profile, entry.rule.clone(), entry.run, entry.step.clone()), (gate, entry.at));
            }
            What::Dropped => {
                self.week(entry.at).dropped += 1;
                let (gate, because) = gate_of(entry);
                let counts = self.gates.entry(gate).or_default();
                counts.dropped += 1;
                counts.example.get_or_insert_with(|| because.to_owned());
            }
            What::Skipped if entry.because.starts_with("holdout") => {
                let (gate, because) = gate_of(entry);
                let counts = self.gates.entry(gate).or_default();
                counts.skipped += 1;
                counts.example.get_or_insert_with(|| because.to_owned());
            }
            _ => {}
        }
    }

    /// Whatever is said next of a held step ends its hold; the start of a run ends the hold of its entry, its end all of its holds.
    fn end_holds(&mut self, row: &EntryRow) {
        let entry = &row.entry;
        let of_run = |run: u32| (row.profile, entry.rule.clone(), run, Name::from(""));
        let ended: Vec<Held> = match entry.what {
            What::Result => Vec::new(),
            What::Entered | What::Refused => vec![of_run(0)],
            What::Ended => {
                self.open_holds.range(of_run(entry.run)..of_run(entry.run.saturating_add(1))).map(|(key, _)| key.clone()).collect()
            }
            _ => vec![(row.profile, entry.rule.clone(), entry.run, entry.step.clone())],
        };
        for key in ended {
            if let Some((gate, since)) = self.open_holds.remove(&key) {
                self.gates.entry(gate).or_default().spans.push((since, entry.at));
            }
        }
    }

    /// The gates when all is read, THE ordered list first. Holds that nothing has ended count as waiting. What a quiet source held went
    /// on when the source was heard again, whatever the log says next of it.
    pub fn gates_at_the_end(&self, quiet: &[(Timestamp, Timestamp)]) -> Vec<(Name, Gate)> {
        let mut gates = self.gates.clone();
        for (gate, _) in self.open_holds.values() {
            gates.entry(gate.clone()).or_default().waiting += 1;
        }
        if let Some(source) = gates.get_mut("source") {
            for (since, until) in &mut source.spans {
                let heard = quiet.iter().find(|(from, to)| *from <= *since && *since < *to).map(|(_, to)| *to);
                *until = heard.map_or(*until, |heard| heard.min(*until));
            }
        }
        let place = |name: &Name| GATES.iter().position(|gate| gate.name == &**name).unwrap_or(GATES.len());
        let mut ordered: Vec<(Name, Gate)> = gates.into_iter().collect();
        ordered.sort_by_key(|(name, _)| place(name));
        ordered
    }
}

fn gate_of(entry: &Entry) -> (Name, &str) {
    let (gate, because) = entry.gate_and_reason();
    (Name::from(gate), because)
}

/// The Monday of a date's week.
pub fn monday(date: Date) -> Date {
    let back = date.weekday().since(Weekday::Monday);
    date.checked_sub(jiff::Span::new().days(i64::from(back))).unwrap_or(date)
}
