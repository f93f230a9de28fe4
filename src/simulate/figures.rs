//! What a replay came to, beyond its counts by rule: sends per day against the providers' rates, what each gate stopped, points, coupons
//! and money at stake, who entered, and the people whom several rules wrote to within a day.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::journal::{Index, Journal, Note, Noted};
use crate::engine::action::Channel;
use crate::engine::money::{Currency, Money};
use crate::engine::profile::Name;
use crate::engine::rule::RuleSet;
use crate::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};

/// Two messages by different rules this close to one another are an overlap.
const OVERLAP_MS: i64 = DAY_MS;
/// So many values of a trait are told apart; the rest is "other".
const TOLD_APART: usize = 8;

/// By trait (`country`, `tier` ...): the values, the most frequent first.
type Traits = BTreeMap<&'static str, Vec<(Name, u64)>>;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// By date in the shop's zone.
    pub days: BTreeMap<String, Day>,
    pub channels: BTreeMap<&'static str, ChannelFigures>,
    /// What stopped steps and messages, by gate.
    pub gates: BTreeMap<Name, GateFigures>,
    pub stakes: Vec<Stake>,
    /// Entries by rule.
    pub entered_by: BTreeMap<Name, Traits>,
    /// Pairs of rules that wrote to the same people within 24 hours, the most people first.
    pub overlaps: Vec<Overlap>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Day {
    pub entered: u64,
    /// Messages accepted, by channel.
    pub sent: BTreeMap<&'static str, u64>,
    pub held: u64,
    pub dropped: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChannelFigures {
    pub sent: u64,
    pub people: u64,
    /// When it sent most, and how much.
    pub busiest_day: (String, u64),
    pub busiest_hour: (String, u64),
    pub busiest_minute: (String, u64),
    /// What the provider may take, as the policy says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Hours in which more was to go than the rate lets pass: those messages go later.
    pub hours_over_rate: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
}

/// How many steps or messages a gate held or ended, and of how many people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GateFigures {
    pub held: u64,
    pub dropped: u64,
    pub skipped: u64,
    pub people: u64,
}

/// What people gain or lose in all, and how it is spread over those concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stake {
    pub what: String,
    /// `points`, or a currency (then in minor units).
    pub unit: String,
    pub people: u64,
    pub sum: i64,
    pub median: i64,
    pub p95: i64,
    pub most: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlap {
    pub rules: (Name, Name),
    pub people: u64,
}

impl Figures {
    /// The figures of what was noted after `from`, up to `until`.
    pub fn of(journal: &Journal, rules: &RuleSet, from: Timestamp, until: Timestamp) -> Self {
        let mut reading = Reading { journal, rules, figures: Figures::default(), gated: HashMap::new(), staked: BTreeMap::new() };
        let mut sent: BTreeMap<Channel, Vec<&Note>> = BTreeMap::new();
        for note in journal.within(from, until) {
            if let Noted::Sent { channel, .. } = note.what {
                sent.entry(channel).or_default().push(note);
            }
            reading.read(note);
        }
        for (channel, notes) in &sent {
            let figures = reading.channel(*channel, notes);
            reading.figures.channels.insert(channel.name(), figures);
        }
        let all: Vec<&Note> = sent.into_values().flatten().collect();
        reading.figures.overlaps = overlaps(journal, all);
        reading.figures.entered_by = entered_by(journal);
        reading.finish()
    }

    /// Messages accepted in all.
    pub fn sends(&self) -> u64 {
        self.channels.values().map(|channel| channel.sent).sum()
    }
}

struct Reading<'a> {
    journal: &'a Journal,
    rules: &'a RuleSet,
    figures: Figures,
    /// Who was stopped, by gate.
    gated: HashMap<Index, HashSet<Index>>,
    /// (what, unit) by person.
    staked: BTreeMap<(String, String), HashMap<Index, i64>>,
}

impl Reading<'_> {
    fn read(&mut self, note: &Note) {
        let zone = &self.rules.policy.zone.last;
        let day = self.figures.days.entry(note.at.local(zone).date().to_string()).or_default();
        match note.what {
            Noted::Entered => day.entered += 1,
            Noted::Sent { channel, .. } => *day.sent.entry(channel.name()).or_default() += 1,
            Noted::Held { gate } => {
                day.held += 1;
                self.gate(gate, note.person).held += 1;
            }
            Noted::Dropped { gate } => {
                day.dropped += 1;
                self.gate(gate, note.person).dropped += 1;
            }
            Noted::Skipped { because } => self.gate(because, note.person).skipped += 1,
            Noted::Points { kind, class, amount } => {
                let what = format!("points: {} ({})", kind.name(), self.journal.name(class));
                self.stake(what, "points".to_owned(), note.person, amount);
            }
            Noted::Coupon { coupon, value } => {
                let unit = self.rules.program.as_ref().map_or_else(String::new, |program| program.currency.to_string());
                self.stake(format!("coupon {}", self.journal.name(coupon)), unit, note.person, value);
            }
            Noted::Existing | Noted::Acted | Noted::Tier { .. } => {}
        }
    }

    fn gate(&mut self, gate: Index, person: Index) -> &mut GateFigures {
        self.gated.entry(gate).or_default().insert(person);
        self.figures.gates.entry(Name::clone(self.journal.name(gate))).or_default()
    }

    fn stake(&mut self, what: String, unit: String, person: Index, amount: i64) {
        *self.staked.entry((what, unit)).or_default().entry(person).or_default() += amount;
    }

    fn channel(&self, channel: Channel, notes: &[&Note]) -> ChannelFigures {
        let policy = self.rules.policy.channels.get(&channel);
        let zone = &self.rules.policy.zone.last;
        let day = |at: Timestamp| zone.start_of_day(at.local(zone).date());
        let hours = counts(notes, |at| floor(at, HOUR_MS));
        let rate = policy.and_then(|policy| policy.rate);
        let an_hour = rate.map(|rate| rate.count.saturating_mul(HOUR_MS as u64) / rate.per_ms.max(1) as u64);
        let date = |(at, count): (Timestamp, u64)| (at.local(zone).date().to_string(), count);
        let instant = |(at, count): (Timestamp, u64)| (at.to_string(), count);
        ChannelFigures {
            sent: notes.len() as u64,
            people: notes.iter().map(|note| note.person).collect::<HashSet<_>>().len() as u64,
            busiest_day: date(busiest(&counts(notes, day))),
            busiest_hour: instant(busiest(&hours)),
            busiest_minute: instant(busiest(&counts(notes, |at| floor(at, MINUTE_MS)))),
            rate: rate.map(|rate| format!("{} per {}", rate.count, of_time(rate.per_ms))),
            hours_over_rate: an_hour.map_or(0, |limit| hours.values().filter(|count| **count > limit).count() as u64),
            cost: policy.and_then(|policy| policy.cost_micros).map(|(micros, currency)| {
                let minor = notes.len() as i64 * micros / (1_000_000 / 10_i64.pow(currency.minor_digits()));
                Money::new(minor, currency).to_string()
            }),
        }
    }

    fn finish(mut self) -> Figures {
        for (gate, people) in &self.gated {
            if let Some(figures) = self.figures.gates.get_mut(self.journal.name(*gate)) {
                figures.people = people.len() as u64;
            }
        }
        self.figures.stakes = self.staked.into_iter().map(|((what, unit), people)| Stake::of(what, unit, people)).collect();
        self.figures
    }
}

impl Stake {
    /// An amount as people read it: a number of points, or money.
    pub fn amount(&self, amount: i64) -> String {
        match self.unit.parse::<Currency>() {
            Ok(currency) => Money::new(amount, currency).to_string(),
            Err(_) => amount.to_string(),
        }
    }

    fn of(what: String, unit: String, people: HashMap<Index, i64>) -> Self {
        // what was given and went back concerns nobody
        let mut amounts: Vec<i64> = people.into_values().filter(|amount| *amount != 0).collect();
        amounts.sort_unstable_by_key(|amount| amount.abs());
        // the smallest amount that at least that share of the people do not exceed
        let at = |share: usize| amounts.get((amounts.len() * share).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
        Stake { what, unit, people: amounts.len() as u64, sum: amounts.iter().sum(), median: at(50), p95: at(95), most: at(100) }
    }
}

/// A rate's time in words: `s`, `min`, `h`, `day`.
fn of_time(per_ms: i64) -> String {
    match per_ms {
        1_000 => "s".to_owned(),
        MINUTE_MS => "min".to_owned(),
        HOUR_MS => "h".to_owned(),
        DAY_MS => "day".to_owned(),
        other => format!("{other} ms"),
    }
}

fn floor(at: Timestamp, step_ms: i64) -> Timestamp {
    Timestamp::from_ms(at.as_ms().div_euclid(step_ms) * step_ms)
}

fn counts(notes: &[&Note], of: impl Fn(Timestamp) -> Timestamp) -> BTreeMap<Timestamp, u64> {
    let mut counts = BTreeMap::new();
    for note in notes {
        *counts.entry(of(note.at)).or_default() += 1;
    }
    counts
}

/// The first of those that have most.
fn busiest(counts: &BTreeMap<Timestamp, u64>) -> (Timestamp, u64) {
    counts.iter().fold((Timestamp::default(), 0), |most, (at, count)| if *count > most.1 { (*at, *count) } else { most })
}

fn overlaps(journal: &Journal, mut sent: Vec<&Note>) -> Vec<Overlap> {
    sent.sort_by_key(|note| (note.person, note.at));
    let mut pairs: BTreeMap<(Index, Index), BTreeSet<Index>> = BTreeMap::new();
    for (place, note) in sent.iter().enumerate() {
        let later = sent.get(place + 1..).unwrap_or_default();
        let close = later.iter().take_while(|other| other.person == note.person && other.at.ms_since(note.at) < OVERLAP_MS);
        for other in close.filter(|other| other.rule != note.rule) {
            let pair = (note.rule.min(other.rule), note.rule.max(other.rule));
            pairs.entry(pair).or_default().insert(note.person);
        }
    }
    let name = |index| Name::clone(journal.name(index));
    let mut overlaps: Vec<Overlap> =
        pairs.into_iter().map(|((a, b), people)| Overlap { rules: (name(a), name(b)), people: people.len() as u64 }).collect();
    overlaps.sort_by(|a, b| b.people.cmp(&a.people).then_with(|| a.rules.cmp(&b.rules)));
    overlaps
}

/// Most first; beyond the first few, values are one line "other".
fn entered_by(journal: &Journal) -> BTreeMap<Name, Traits> {
    let mut by: BTreeMap<Name, Traits> = BTreeMap::new();
    for ((rule, kind, value), count) in &journal.entered_by {
        let values = by.entry(Name::clone(journal.name(*rule))).or_default().entry(kind.name()).or_default();
        values.push((Name::clone(journal.name(*value)), *count));
    }
    for values in by.values_mut().flat_map(BTreeMap::values_mut) {
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let other: u64 = values.iter().skip(TOLD_APART).map(|(_, count)| count).sum();
        if other > 0 {
            values.truncate(TOLD_APART);
            values.push((Name::from("other"), other));
        }
    }
    by
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, channel) in &self.channels {
            let (day, most) = &channel.busiest_day;
            let (minute, peak) = &channel.busiest_minute;
            write!(f, "{name}: {} to {} people; most on {day}: {most}; peak minute {minute}: {peak}", channel.sent, channel.people)?;
            if let Some(rate) = &channel.rate {
                write!(f, "; the provider takes {rate}")?;
                if channel.hours_over_rate > 0 {
                    write!(f, ", too little in {} hours: those go later", channel.hours_over_rate)?;
                }
            }
            if let Some(cost) = &channel.cost {
                write!(f, "; cost {cost}")?;
            }
            writeln!(f)?;
        }
        if !self.gates.is_empty() {
            writeln!(f, "\n{:14}  {:>9}  {:>9}  {:>9}  {:>9}", "stopped by", "held", "dropped", "skipped", "people")?;
            for (gate, g) in &self.gates {
                writeln!(f, "{gate:14}  {:>9}  {:>9}  {:>9}  {:>9}", g.held, g.dropped, g.skipped, g.people)?;
            }
        }
        if !self.stakes.is_empty() {
            writeln!(f, "\n{:32}  {:>8}  {:>12}  {:>9}  {:>9}  {:>9}", "at stake", "people", "sum", "median", "95 %", "most")?;
            for s in &self.stakes {
                let [sum, median, p95, most] = [s.sum, s.median, s.p95, s.most].map(|amount| s.amount(amount));
                writeln!(f, "{:32}  {:>8}  {sum:>12}  {median:>9}  {p95:>9}  {most:>9}", s.what, s.people)?;
            }
        }
        for overlap in self.overlaps.iter().take(10) {
            writeln!(f, "{} and {} wrote to the same {} people within 24 hours", overlap.rules.0, overlap.rules.1, overlap.people)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stake_tells_how_it_is_spread() {
        let people = |amounts: &[i64]| {
            let mut journal = Journal::default();
            amounts.iter().enumerate().map(|(person, amount)| (journal.someone(&person.to_string()), *amount)).collect()
        };
        let spread = |amounts: &[i64]| {
            let stake = Stake::of("points".to_owned(), "points".to_owned(), people(amounts));
            (stake.people, stake.sum, stake.median, stake.p95, stake.most)
        };
        assert_eq!(spread(&[]), (0, 0, 0, 0, 0));
        assert_eq!(spread(&[7]), (1, 7, 7, 7, 7));
        assert_eq!(spread(&[-1, -30, -2, -3]), (4, -36, -2, -30, -30));
        assert_eq!(spread(&(1..=100).collect::<Vec<_>>()), (100, 5050, 50, 95, 100));
    }

    #[test]
    fn money_is_told_as_money() {
        let stake = Stake::of("coupon A".to_owned(), "GBP".to_owned(), HashMap::new());
        assert_eq!((stake.amount(1050).as_str(), stake.amount(-5).as_str()), ("10.50 GBP", "-0.05 GBP"));
    }

    #[test]
    fn rules_overlap_where_they_write_to_one_person_within_a_day() {
        let mut journal = Journal::default();
        for (user, rule, hour) in [
            ("anna", "a", 0),
            ("anna", "b", 23), // within a day of the first
            ("ben", "a", 0),
            ("ben", "b", 24), // a day later
            ("carl", "a", 0),
            ("carl", "a", 1), // the same rule
            ("dora", "b", 5),
            ("dora", "a", 6),
        ] {
            journal.sent_by(user, rule, Timestamp::from_ms(hour * HOUR_MS));
        }
        let found = overlaps(&journal, journal.notes.iter().collect());
        assert_eq!(found, [Overlap { rules: (Name::from("a"), Name::from("b")), people: 2 }]);
    }
}
