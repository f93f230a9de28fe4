//! The end of the story in figures: collected from what is on record, printed for people or for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::tally::{Gate, Life, Tally, Week};
use crate::engine::action::{Channel, MessageState, PostingKind, What};
use crate::engine::profile::Name;
use crate::engine::rule::RuleSet;
use crate::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp, Zone};
use crate::store::{Counts, ProfileId, Store, StoreError};

/// What goes in: for the head of the summary.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Name of the data and, of ours, its author.
    pub name: String,
    pub events: u64,
    pub rejected: u64,
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub assumptions: Vec<String>,
}

/// What this run of the program did, apart from what is on record: differs when a run was killed and went on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effort {
    pub evaluations: u64,
    pub heartbeats: u64,
    /// Batches in which people were moved on.
    pub rounds: u64,
    pub seconds: f64,
    pub resumed: bool,
}

/// One rule's year.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleYear {
    pub name: String,
    pub entered: u64,
    pub running: u64,
    /// By how runs ended: done, left, stopped ...
    pub ended: BTreeMap<Name, u64>,
    pub existing: u64,
    pub refused: u64,
    pub held_out: u64,
    pub sent: u64,
    pub acted: u64,
}

/// The whole of it.
#[derive(Clone, Debug)]
pub struct Summary {
    pub directory: PathBuf,
    pub input: Input,
    pub effort: Effort,
    pub profiles: u64,
    pub facts: u64,
    pub rules: BTreeMap<Name, RuleYear>,
    pub messages: BTreeMap<(Channel, MessageState), u64>,
    /// In the order in which they are asked.
    pub gates: Vec<(Name, Gate)>,
    pub postings: BTreeMap<(PostingKind, Name), (u64, i64)>,
    /// Customers by level, at the beginning of each quarter and at the end.
    pub tiers: Vec<(Timestamp, BTreeMap<Name, u64>)>,
    /// The lowest level first.
    pub tier_names: Vec<Name>,
    pub daily_scan: u64,
    pub quiet: Vec<(Timestamp, Timestamp)>,
    pub weeks: Vec<(String, Week)>,
    pub quarantined: u64,
}

impl Summary {
    /// Collects it; `tally` has read everything.
    pub async fn collect(
        store: &dyn Store,
        rules: &RuleSet,
        tally: &Tally,
        directory: PathBuf,
        input: Input,
        effort: Effort,
    ) -> Result<Summary, StoreError> {
        let counts = store.counts().await?;
        let until = input.until.unwrap_or_default();
        let quiet = store.world(until).await?.world.quiet.clone();
        Ok(Summary {
            directory,
            profiles: counts.profiles,
            facts: counts.events,
            rules: rule_years(rules, &counts),
            messages: by_channel_and_state(&counts),
            gates: tally.gates_at_the_end(&quiet),
            tiers: tiers(rules, tally, &input),
            tier_names: tier_names(rules),
            daily_scan: tally.daily_scan(until),
            quiet,
            weeks: tally.weeks.iter().map(|(monday, week)| (monday.to_string(), week.clone())).collect(),
            postings: counts.postings,
            quarantined: counts.quarantined,
            input,
            effort,
        })
    }

    fn points(&self, kinds: &[PostingKind]) -> i64 {
        self.postings.iter().filter(|((kind, _), _)| kinds.contains(kind)).map(|(_, (_, points))| points.abs()).sum()
    }

    fn sent(&self) -> u64 {
        let went = |state: MessageState| matches!(state, MessageState::Accepted | MessageState::Delivered | MessageState::Bounced);
        self.messages.iter().filter(|((_, state), _)| went(*state)).map(|(_, count)| count).sum()
    }

    /// For machines. What a killed and resumed run may differ in stands under `effort`.
    pub fn to_json(&self) -> Json {
        let rules: BTreeMap<&str, Json> = self.rules.iter().map(|(id, rule)| (&**id, rule.to_json())).collect();
        let mut by_channel: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for ((channel, state), count) in &self.messages {
            by_channel.entry(channel.name()).or_default().insert(state.name(), *count);
        }
        let mut by_state: BTreeMap<&str, u64> = BTreeMap::new();
        for ((_, state), count) in &self.messages {
            *by_state.entry(state.name()).or_default() += count;
        }
        let gates: BTreeMap<&str, Json> = self.gates.iter().map(|(name, gate)| (&**name, gate_json(gate))).collect();
        let postings: BTreeMap<String, i64> =
            self.postings.iter().map(|((kind, class), (_, points))| (format!("{}/{class}", kind.name()), *points)).collect();
        let tiers: Vec<Json> = self.tiers.iter().map(|(at, levels)| json!({ "at": at.to_string(), "customers": levels })).collect();
        let weeks: Vec<Json> = self.weeks.iter().map(|(monday, week)| week_json(monday, week)).collect();
        json!({
            "directory": self.directory.display().to_string(),
            "data": {
                "name": self.input.name, "events": self.input.events, "rejected": self.input.rejected, "profiles": self.profiles,
                "from": self.input.from.map(|at| at.to_string()), "until": self.input.until.map(|at| at.to_string()),
            },
            "assumptions": self.input.assumptions,
            "facts": self.facts,
            "rules": rules,
            "messages": { "by_channel": by_channel, "by_state": by_state },
            "gates": gates,
            "points": {
                "granted": self.points(&[PostingKind::Grant]), "lapsed": self.points(&[PostingKind::Expire, PostingKind::Lapse]),
                "deducted": self.points(&[PostingKind::Take]), "restored": self.points(&[PostingKind::Restore]),
                "reversed": self.points(&[PostingKind::Reverse]), "by_kind_and_class": postings,
            },
            "tiers": tiers,
            "quiet": self.quiet.iter().map(|(from, until)| json!([from.to_string(), until.to_string()])).collect::<Vec<_>>(),
            "weeks": weeks,
            "quarantined": self.quarantined,
            "daily_scan_evaluations": self.daily_scan,
            "effort": {
                "evaluations": self.effort.evaluations, "heartbeats": self.effort.heartbeats, "rounds": self.effort.rounds, "seconds": self.effort.seconds,
                "resumed": self.effort.resumed,
            },
        })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out).expect("writing to memory cannot fail");
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let day = |at: Option<Timestamp>| at.map_or("?".into(), date);
        writeln!(out, "{} to {}: {}", day(self.input.from), day(self.input.until), self.input.name)?;
        let rejected = if self.input.rejected > 0 { format!(", {} rows rejected", number(self.input.rejected)) } else { String::new() };
        writeln!(
            out,
            "{} customers, {} events{rejected}; on record now {} facts",
            number(self.profiles),
            number(self.input.events),
            number(self.facts)
        )?;
        writeln!(out, "Assumed, not in the data (config/demo.yaml):")?;
        self.input.assumptions.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        self.write_rules(out)?;
        self.write_messages(out)?;
        self.write_gates(out)?;
        self.write_points_and_tiers(out)?;
        self.write_effort(out)
    }

    fn write_rules(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\nRule                    entered  running     done     left  stopped  expired existing held out     sent  other acts"
        )?;
        for (id, rule) in &self.rules {
            let ended = |name: &str| rule.ended.get(name).copied().unwrap_or(0);
            write!(out, "{id:<22}")?;
            let columns = [
                rule.entered,
                rule.running,
                ended("done"),
                ended("left"),
                ended("stopped") + ended("superseded") + ended("disabled"),
                ended("expired"),
                rule.existing,
                rule.held_out,
                rule.sent,
            ];
            columns.iter().try_for_each(|count| write!(out, "{:>9}", number(*count)))?;
            writeln!(out, "{:>12}", number(rule.acted))?;
        }
        if self.rules.values().all(|rule| rule.existing == 0) {
            // the column means something where rules come to people who are there already
            writeln!(out, "(existing: nobody satisfied a rule as it went live, since the rules were there before the first customer)")?;
        }
        Ok(())
    }

    fn write_messages(&self, out: &mut String) -> std::fmt::Result {
        let states: Vec<MessageState> =
            MessageState::ALL.into_iter().filter(|state| self.messages.keys().any(|(_, s)| s == state)).collect();
        write!(out, "\nMessages (simulated) ")?;
        states.iter().try_for_each(|state| write!(out, "{:>11}", state.name()))?;
        writeln!(out)?;
        for channel in Channel::ALL {
            let count = |state: &MessageState| self.messages.get(&(channel, *state)).copied().unwrap_or(0);
            if states.iter().any(|state| count(state) > 0) {
                write!(out, "  {:<19}", channel.name())?;
                states.iter().try_for_each(|state| write!(out, "{:>11}", number(count(state))))?;
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn write_gates(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nGate (steps)    held   for (median)       at most  still held  ended unsent  skipped")?;
        for (name, gate) in &self.gates {
            let median = gate.median_ms().map_or("-".into(), duration);
            let longest = gate.longest_ms().map_or("-".into(), duration);
            let (held, waiting, dropped, skipped) = (number(gate.held), number(gate.waiting), number(gate.dropped), number(gate.skipped));
            writeln!(out, "{name:<12}{held:>8}{median:>15}{longest:>14}{waiting:>12}{dropped:>14}{skipped:>9}")?;
        }
        if !self.quiet.is_empty() {
            let spans: Vec<String> = self.quiet.iter().map(|(from, until)| span(*from, *until)).collect();
            writeln!(out, "The shop sold nothing where it usually does, so nobody's silence counted: {}", spans.join("; "))?;
        }
        Ok(())
    }

    fn write_points_and_tiers(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\nPoints: {} granted, {} lapsed, {} deducted, {} restored, {} taken back with refunds",
            number(self.points(&[PostingKind::Grant]).unsigned_abs()),
            number(self.points(&[PostingKind::Expire, PostingKind::Lapse]).unsigned_abs()),
            number(self.points(&[PostingKind::Take]).unsigned_abs()),
            number(self.points(&[PostingKind::Restore]).unsigned_abs()),
            number(self.points(&[PostingKind::Reverse]).unsigned_abs()),
        )?;
        for (at, levels) in &self.tiers {
            let customers = |level: &Name| format!("{level} {}", number(levels.get(level).copied().unwrap_or(0)));
            let shown: Vec<String> = self.tier_names.iter().map(customers).collect();
            writeln!(out, "Tiers on {}: {}", date(*at), shown.join(", "))?;
        }
        Ok(())
    }

    fn write_effort(&self, out: &mut String) -> std::fmt::Result {
        let Effort { evaluations, seconds, resumed, .. } = &self.effort;
        let share = *evaluations as f64 * 100.0 / (self.daily_scan.max(1) as f64);
        let since = if *resumed { " since it went on" } else { "" };
        writeln!(
            out,
            "\n{} evaluations{since}; looking at everybody once a day would have taken {} ({share:.0} %), and would have been up to a day late",
            number(*evaluations),
            number(self.daily_scan)
        )?;
        if self.quarantined > 0 {
            writeln!(out, "{} customers were set aside after an error: `rekindle doctor` says why", number(self.quarantined))?;
        }
        writeln!(out, "{} messages taken by the recording channel; {seconds:.1} s", number(self.sent()))
    }
}

impl RuleYear {
    fn to_json(&self) -> Json {
        json!({
            "name": self.name, "entered": self.entered, "running": self.running, "ended": self.ended, "existing": self.existing,
            "refused": self.refused, "held_out": self.held_out, "sent": self.sent, "acted": self.acted,
        })
    }
}

fn gate_json(gate: &Gate) -> Json {
    json!({
        "held": gate.held, "median_hours": gate.median_ms().map(hours), "longest_hours": gate.longest_ms().map(hours),
        "still_held": gate.waiting, "dropped": gate.dropped, "skipped": gate.skipped, "for_example": gate.example,
    })
}

fn week_json(monday: &str, week: &Week) -> Json {
    json!({
        "week_of": monday, "fell_silent": week.fell_silent, "warned": week.warned.len(), "returned": week.returned, "entered": week.entered,
        "sent": week.sent, "sent_by_rule": week.sent_by_rule, "held": week.held, "dropped": week.dropped,
        "points_taken": week.points_taken, "points_restored": week.points_restored,
    })
}

fn hours(ms: i64) -> f64 {
    (ms as f64 / HOUR_MS as f64 * 10.0).round() / 10.0
}

fn rule_years(rules: &RuleSet, counts: &Counts) -> BTreeMap<Name, RuleYear> {
    let named = |rule: &crate::engine::rule::Rule| (rule.id.clone(), RuleYear { name: rule.name.clone(), ..RuleYear::default() });
    let mut years: BTreeMap<Name, RuleYear> = rules.rules.iter().map(named).collect();
    for ((rule, _step, what, outcome), count) in &counts.entries {
        let Some(year) = years.get_mut(rule) else { continue };
        match what {
            What::Entered => year.entered += count,
            What::Existing => year.existing += count,
            What::Refused => year.refused += count,
            What::Acted | What::Alerted => year.acted += count,
            // the log writes `left: because`
            What::Ended => *year.ended.entry(Name::from(outcome.split(':').next().unwrap_or_default())).or_default() += count,
            _ => {}
        }
    }
    for ((rule, held_out), count) in &counts.exposures {
        if let Some(year) = years.get_mut(rule).filter(|_| *held_out) {
            year.held_out += count;
        }
    }
    for ((rule, _step, _channel, state), count) in &counts.messages {
        let went = matches!(state, MessageState::Accepted | MessageState::Delivered | MessageState::Bounced);
        if let Some(year) = years.get_mut(rule).filter(|_| went) {
            year.sent += count;
        }
    }
    for year in years.values_mut() {
        year.running = year.entered.saturating_sub(year.ended.values().sum());
    }
    years
}

fn by_channel_and_state(counts: &Counts) -> BTreeMap<(Channel, MessageState), u64> {
    let mut messages = BTreeMap::new();
    for ((_rule, _step, channel, state), count) in &counts.messages {
        *messages.entry((*channel, *state)).or_default() += count;
    }
    messages
}

/// Customers by tier as each quarter begins (reviews are due then in the shipped program) and at the end.
fn tiers(rules: &RuleSet, tally: &Tally, input: &Input) -> Vec<(Timestamp, BTreeMap<Name, u64>)> {
    let Some(tiers) = rules.program.as_ref().and_then(|program| program.tiers.as_ref()) else { return Vec::new() };
    let (Some(from), Some(until)) = (input.from, input.until) else { return Vec::new() };
    let lowest = tiers.levels.first().map(|level| level.id.clone()).unwrap_or_else(|| Name::from(""));
    let at = |instant: Timestamp| {
        let mut held: BTreeMap<ProfileId, Name> = BTreeMap::new();
        for (profile, life) in &tally.lives {
            if life.first_at.is_some_and(|first| first <= instant) {
                held.insert(*profile, lowest.clone());
            }
        }
        for step in tally.tier_moves.iter().filter(|step| step.at <= instant) {
            held.insert(step.profile, step.to.clone());
        }
        let mut levels: BTreeMap<Name, u64> = BTreeMap::new();
        held.into_values().for_each(|level| *levels.entry(level).or_default() += 1);
        (instant, levels)
    };
    quarters(from, until).chain([until]).map(at).collect()
}

fn tier_names(rules: &RuleSet) -> Vec<Name> {
    let tiers = rules.program.as_ref().and_then(|program| program.tiers.as_ref());
    tiers.map(|tiers| tiers.levels.iter().map(|level| level.id.clone()).collect()).unwrap_or_default()
}

/// The beginnings of quarters strictly between two instants.
fn quarters(from: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> {
    let first = from.local(&Zone::UTC).date().first_of_month();
    let months = (0..).map_while(move |months| first.checked_add(jiff::Span::new().months(months)).ok());
    let starts = months.filter(|date| date.month() % 3 == 1).map(|date| Zone::UTC.start_of_day(date));
    starts.skip_while(move |at| *at <= from).take_while(move |at| *at < until)
}

/// A span in days.
pub fn span(from: Timestamp, until: Timestamp) -> String {
    if until.is_forever() { format!("from {} on", date(from)) } else { format!("{} to {}", date(from), date(until)) }
}

/// `1 Dec 2010`.
pub fn date(at: Timestamp) -> String {
    at.local(&Zone::UTC).strftime("%-d %b %Y").to_string()
}

/// `12,345`.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `3 d 4 h`, `5 h 20 min`, `12 min`.
pub fn duration(ms: i64) -> String {
    let (days, hours, minutes) = (ms / DAY_MS, ms % DAY_MS / HOUR_MS, ms % HOUR_MS / MINUTE_MS);
    match (days, hours, minutes) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// The customer whose year tells the story best: fell silent, was warned, lost points, came back, got them back, and something had to
/// wait. Of several the one
/// with the shortest log, so that it can be read; then the first.
pub fn hero(tally: &Tally) -> Option<ProfileId> {
    let score = |life: &Life| {
        let steps =
            [life.returns > 0, life.warnings > 0, life.taken > 0, life.restored > 0, life.holds > 0, (2..=12).contains(&life.messages)];
        steps.iter().filter(|step| **step).count()
    };
    let best = tally.lives.iter().max_by_key(|(id, life)| (score(life), std::cmp::Reverse(life.lines), std::cmp::Reverse(**id)))?;
    Some(*best.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!([number(0), number(999), number(1000), number(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        let shown = [5 * MINUTE_MS, 3 * HOUR_MS, 5 * HOUR_MS + 20 * MINUTE_MS, 2 * DAY_MS, 3 * DAY_MS + 4 * HOUR_MS].map(duration);
        assert_eq!(shown, ["5 min", "3 h", "5 h 20 min", "2 d", "3 d 4 h"]);
    }
}
