//! What a replay found, as `rekindle simulate` prints it: per rule who entered, per step what became of it, and what it cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::{Fate, Person, Timeline};
use crate::engine::action::MessageState;
use crate::engine::profile::{Category, Name};
use crate::engine::rule::ConsentBasis;
use crate::engine::time::{DAY_MS, Timestamp};

/// Printed under every report: a replay measures no effect.
pub const CAVEAT: &str = "People do not react in a replay: nobody came back because of a message that this run would have sent. \
                          No uplift is claimed; only a holdout measures that.";

/// The report of a replay at the instant it reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The instant at which it was taken.
    pub until: String,
    /// One `decide` of one person at one instant.
    pub evaluations: u64,
    /// Of these, looks that no event caused.
    pub clock_instants: u64,
    /// What a full scan of everybody known, once a day, would have looked at.
    pub daily_scan: u64,
    pub events: u64,
    pub profiles: u64,
    pub rules: BTreeMap<Name, RuleReport>,
    /// What a reader should know before reading the figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Faults of the engine, if any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    pub caveat: &'static str,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Runs begun, held-out people included.
    pub entered: u64,
    /// People skipped because they satisfied `when` already as the rule first saw them.
    pub existing: u64,
    pub steps: BTreeMap<Name, StepReport>,
}

/// How many runs of the rule met each fate at this step. A step that is not due yet counts nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// A message of it was accepted.
    pub sent: u64,
    /// Another action happened (points, a grant ...).
    pub acted: u64,
    /// It ended unsent: dropped by a gate, refused on every channel, expired, or the run was over while it was held.
    pub dropped: u64,
    /// It was held at some time, whatever came of it.
    pub held: u64,
    /// It waits at this instant: for a gate, for what it requires, for its notice.
    pub blocked: u64,
    /// Skipped: audience, `if`, holdout.
    pub skipped: u64,
}

impl Report {
    /// The state of the timeline as it stands.
    pub fn of(timeline: &Timeline) -> Self {
        let mut rules: BTreeMap<Name, RuleReport> = BTreeMap::new();
        for rule in &timeline.rules().rules {
            let steps = rule.steps.iter().chain(&rule.on_exit).map(|step| (Name::clone(&step.id), StepReport::default())).collect();
            let entered = timeline.counts.entered.get(&rule.id).copied().unwrap_or_default();
            let existing = timeline.counts.existing.get(&rule.id).copied().unwrap_or_default();
            rules.insert(Name::clone(&rule.id), RuleReport { entered, existing, steps });
        }
        let mut profiles = 0;
        let mut daily_scan = 0;
        for (_, person) in timeline.people() {
            profiles += 1;
            daily_scan += days_known(person, timeline.now());
            count_steps(person, &mut rules);
        }
        Report {
            until: timeline.now().to_string(),
            evaluations: timeline.counts.evaluations,
            clock_instants: timeline.counts.clock_instants,
            daily_scan,
            events: timeline.counts.events,
            profiles,
            rules,
            notes: notes(timeline),
            faults: timeline.faults.clone(),
            caveat: CAVEAT,
        }
    }
}

/// A file of orders says nothing of consent, and then no marketing rule does anything: that would be read as a fault of the rules.
fn notes(timeline: &Timeline) -> Vec<String> {
    let asks = timeline.rules().policy.consent.get(&Category::Marketing).is_some_and(|basis| !matches!(basis, ConsentBasis::Always));
    let nobody_said = timeline.people().all(|(_, person)| person.profile.consents.is_empty());
    let note = "no event records consent, and the policy asks for it: nobody may be written to for marketing, nobody is `reachable`";
    if asks && nobody_said { vec![note.to_owned()] } else { Vec::new() }
}

/// Whole days since the person is known: so often a daily scan would have looked.
fn days_known(person: &Person, now: Timestamp) -> u64 {
    let since = person.profile.first_seen_at.map_or(0, |first| now.ms_since(first) / DAY_MS);
    u64::try_from(since).unwrap_or_default()
}

fn count_steps(person: &Person, rules: &mut BTreeMap<Name, RuleReport>) {
    let waiting = steps_that_wait(person);
    for (key, fate) in &person.steps {
        let Some(report) = rules.get_mut(&key.0) else { continue };
        report.steps.entry(Name::clone(&key.2)).or_default().count(*fate, waiting.contains(key));
    }
}

/// Steps with a hold, or with a message that is still ours.
fn steps_that_wait(person: &Person) -> BTreeSet<(Name, u32, Name)> {
    let open = person.messages.iter().filter(|m| m.state == MessageState::Queued).map(|m| m.step_key());
    let holds = person.profile.holds.iter().map(|h| (Name::clone(&h.rule), h.run, Name::clone(&h.step)));
    open.chain(holds).collect()
}

impl StepReport {
    fn count(&mut self, fate: Fate, waits: bool) {
        let happened = fate.sent || fate.acted;
        self.sent += u64::from(fate.sent);
        self.acted += u64::from(fate.acted);
        self.held += u64::from(fate.held);
        self.blocked += u64::from(waits && !happened);
        self.skipped += u64::from(fate.skipped && !happened);
        // a step that was held or queued, and is neither waiting nor skipped, has ended without effect with its run
        self.dropped += u64::from(!happened && !waits && !fate.skipped && (fate.ended || fate.held));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} events of {} people until {}\n", self.events, self.profiles, self.until)?;
        let width = self.rules.values().flat_map(|r| r.steps.keys()).map(|id| id.chars().count() + 2).max();
        let width = width.unwrap_or_default().max(self.rules.keys().map(|id| id.chars().count()).max().unwrap_or_default()).max(4);
        let columns = ["entered", "existing", "sent", "acted", "dropped", "held", "blocked", "skipped"];
        write!(f, "{:width$}", "rule")?;
        for column in columns {
            write!(f, "  {column:>8}")?;
        }
        writeln!(f)?;
        for (id, rule) in &self.rules {
            writeln!(f, "{id:width$}  {:>8}  {:>8}", rule.entered, rule.existing)?;
            for (step, s) in &rule.steps {
                write!(f, "{:width$}  {:>8}  {:>8}", format!("  {step}"), "", "")?;
                for number in [s.sent, s.acted, s.dropped, s.held, s.blocked, s.skipped] {
                    write!(f, "  {number:>8}")?;
                }
                writeln!(f)?;
            }
        }
        writeln!(
            f,
            "\nevaluations {} ({} by the clock alone); a daily scan of everybody would have made {}",
            self.evaluations, self.clock_instants, self.daily_scan
        )?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for fault in &self.faults {
            writeln!(f, "fault of the engine: {fault}")?;
        }
        writeln!(f, "{}", self.caveat)
    }
}
