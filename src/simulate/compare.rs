//! Two rule sets over the same facts: who would hear more, less or something else, by rule and in all, and a few people as examples.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::journal::{Journal, Note, Noted};
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;

/// So many lines of an example's timeline are shown on each side.
const LINES_SHOWN: usize = 12;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// By rule: of either side.
    pub rules: BTreeMap<Name, Change>,
    /// Whatever rule it is by.
    pub everything: Change,
    /// People whose tier moves on one side and not, or otherwise, on the other.
    pub tiers: Vec<TierChange>,
    pub examples: Vec<Example>,
}

/// How many people something happens to with the one and with the other rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Nothing before, something now.
    pub gained: u64,
    /// Something before, nothing now.
    pub lost: u64,
    /// Something on both sides, and not the same or not at the same time.
    pub changed: u64,
    pub same: u64,
    pub entered: BeforeAfter,
    pub sent: BeforeAfter,
    pub acted: BeforeAfter,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BeforeAfter {
    pub before: u64,
    pub after: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TierChange {
    pub from: Name,
    pub to: Name,
    pub before: u64,
    pub after: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    pub user: Name,
    pub kind: Kind,
    /// What happens to them on one side only; what happens on both at the same instant is counted.
    pub before: Vec<Line>,
    pub after: Vec<Line>,
    pub same: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Gained,
    Lost,
    Changed,
}

/// One thing that happens to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub at: String,
    pub rule: Name,
    pub step: Name,
    pub what: String,
}

/// What happens to one person, in order; without what is only withheld.
type Life<'a> = Vec<&'a Note>;

impl Comparison {
    /// What happened after `from`, up to `until`, under either rule set; at most so many examples.
    pub fn of(before: &Journal, after: &Journal, from: Timestamp, until: Timestamp, examples: usize) -> Self {
        let (old, new) = (lives(before, from, until), lives(after, from, until));
        let mut comparison = Comparison { tiers: tiers(before, after, from, until), ..Comparison::default() };
        count(&mut comparison, before, from, until, |both| &mut both.before);
        count(&mut comparison, after, from, until, |both| &mut both.after);
        let people: BTreeSet<&Name> = old.keys().chain(new.keys()).copied().collect();
        let mut picked: BTreeMap<Kind, Vec<&Name>> = BTreeMap::new();
        let nothing = Life::new();
        for person in people {
            let (was, is) = (old.get(person).unwrap_or(&nothing), new.get(person).unwrap_or(&nothing));
            let (was, is) = (said(before, was), said(after, is));
            let rules: BTreeSet<&str> = was.iter().chain(&is).map(|said| said.rule).collect();
            for rule in rules {
                comparison.rules.entry(Name::from(rule)).or_default().note(&by(rule, &was), &by(rule, &is));
            }
            if let Some(kind) = comparison.everything.note(&was, &is) {
                picked.entry(kind).or_default().push(person);
            }
        }
        let lives = |person| (said(before, old.get(person).unwrap_or(&nothing)), said(after, new.get(person).unwrap_or(&nothing)));
        comparison.examples = pick(&picked, examples).map(|(kind, person)| Example::of(person, kind, lives(person))).collect();
        comparison
    }

    pub fn is_nothing(&self) -> bool {
        let Change { gained, lost, changed, .. } = self.everything;
        gained + lost + changed == 0 && self.tiers.is_empty()
    }
}

/// A thing as it is compared: names, not places in a table, for each journal has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said<'a> {
    at: Timestamp,
    rule: &'a str,
    step: &'a str,
    what: String,
}

fn said<'a>(journal: &'a Journal, life: &Life<'_>) -> Vec<Said<'a>> {
    let said = |note: &&Note| Said { at: note.at, rule: journal.name(note.rule), step: journal.name(note.step), what: what(journal, note) };
    life.iter().map(said).collect()
}

fn by<'s>(rule: &str, said: &[Said<'s>]) -> Vec<Said<'s>> {
    said.iter().filter(|said| said.rule == rule).cloned().collect()
}

impl Change {
    /// Counts one person; what they are, unless all is the same.
    fn note(&mut self, was: &[Said<'_>], is: &[Said<'_>]) -> Option<Kind> {
        let (count, kind) = match (was.is_empty(), is.is_empty()) {
            (true, true) => return None,
            (true, false) => (&mut self.gained, Some(Kind::Gained)),
            (false, true) => (&mut self.lost, Some(Kind::Lost)),
            (false, false) if was == is => (&mut self.same, None),
            (false, false) => (&mut self.changed, Some(Kind::Changed)),
        };
        *count += 1;
        kind
    }
}

/// What a person feels or what counts for them: messages, actions, points, coupons, tiers. Entering alone is not felt.
fn is_felt(note: &Note) -> bool {
    matches!(note.what, Noted::Sent { .. } | Noted::Acted | Noted::Points { .. } | Noted::Coupon { .. } | Noted::Tier { .. })
}

fn lives<'a>(journal: &'a Journal, from: Timestamp, until: Timestamp) -> BTreeMap<&'a Name, Life<'a>> {
    let mut lives: BTreeMap<&Name, Life<'_>> = BTreeMap::new();
    for note in journal.within(from, until).filter(|note| is_felt(note)) {
        lives.entry(journal.person(note.person)).or_default().push(note);
    }
    lives
}

fn count(comparison: &mut Comparison, journal: &Journal, from: Timestamp, until: Timestamp, side: fn(&mut BeforeAfter) -> &mut u64) {
    for note in journal.within(from, until) {
        let of: fn(&mut Change) -> &mut BeforeAfter = match note.what {
            Noted::Entered => |change| &mut change.entered,
            Noted::Sent { .. } => |change| &mut change.sent,
            Noted::Acted => |change| &mut change.acted,
            _ => continue,
        };
        let rule = comparison.rules.entry(Name::clone(journal.name(note.rule))).or_default();
        *side(of(rule)) += 1;
        *side(of(&mut comparison.everything)) += 1;
    }
}

fn tiers(before: &Journal, after: &Journal, from: Timestamp, until: Timestamp) -> Vec<TierChange> {
    let mut moves: BTreeMap<(Name, Name), (u64, u64)> = BTreeMap::new();
    for (journal, is_after) in [(before, false), (after, true)] {
        for note in journal.within(from, until) {
            if let Noted::Tier { from, to } = note.what {
                let counts = moves.entry((Name::clone(journal.name(from)), Name::clone(journal.name(to)))).or_default();
                *(if is_after { &mut counts.1 } else { &mut counts.0 }) += 1;
            }
        }
    }
    let differ = moves.into_iter().filter(|(_, (before, after))| before != after);
    differ.map(|((from, to), (before, after))| TierChange { from, to, before, after }).collect()
}

/// Some of each kind, in turn, spread over all there are.
fn pick<'a>(picked: &BTreeMap<Kind, Vec<&'a Name>>, count: usize) -> impl Iterator<Item = (Kind, &'a Name)> {
    let share = count.div_ceil(picked.len().max(1));
    let spread = |people: &Vec<&'a Name>| {
        let step = (people.len() / share.max(1)).max(1);
        people.iter().copied().step_by(step).take(share).collect::<Vec<_>>()
    };
    let all: Vec<(Kind, &Name)> =
        picked.iter().flat_map(|(kind, people)| spread(people).into_iter().map(|person| (*kind, person))).collect();
    all.into_iter().take(count)
}

impl Example {
    fn of(user: &Name, kind: Kind, (was, is): (Vec<Said<'_>>, Vec<Said<'_>>)) -> Self {
        let same = was.iter().filter(|said| is.contains(said)).count();
        let before = lines(was.iter().filter(|said| !is.contains(said)));
        let after = lines(is.iter().filter(|said| !was.contains(said)));
        Example { user: Name::clone(user), kind, before, after, same }
    }
}

fn lines<'s, 'j: 's>(said: impl Iterator<Item = &'s Said<'j>>) -> Vec<Line> {
    let line = |said: &Said<'_>| Line {
        at: said.at.to_string(),
        rule: Name::from(said.rule),
        step: Name::from(said.step),
        what: said.what.clone(),
    };
    let mut lines: Vec<Line> = said.map(line).collect();
    let more = lines.len().saturating_sub(LINES_SHOWN);
    if more > 0 {
        let nothing = Name::from("");
        lines.truncate(LINES_SHOWN);
        lines.push(Line { at: String::new(), rule: Name::clone(&nothing), step: nothing, what: format!("and {more} more") });
    }
    lines
}

fn what(journal: &Journal, note: &Note) -> String {
    let name = |index| journal.name(index);
    match note.what {
        Noted::Entered => "entered".to_owned(),
        Noted::Existing => "existing".to_owned(),
        Noted::Sent { channel, template } => format!("{} by {channel}", name(template)),
        Noted::Acted => "done".to_owned(),
        Noted::Held { gate } => format!("held by {}", name(gate)),
        Noted::Dropped { gate } => format!("dropped by {}", name(gate)),
        Noted::Skipped { because } => format!("skipped: {}", name(because)),
        Noted::Points { kind, class, amount } => format!("{amount:+} points ({}, {})", kind.name(), name(class)),
        Noted::Coupon { coupon, value } => format!("coupon {} ({value} minor units)", name(coupon)),
        Noted::Tier { from, to } => format!("tier {} to {}", name(from), name(to)),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return writeln!(f, "nothing changes for anybody");
        }
        let width = self.rules.keys().map(|rule| rule.chars().count()).max().unwrap_or(0).max(15);
        let columns = ["gained", "lost", "changed", "same", "entered", "sent"];
        write!(f, "{:width$}", "people by rule")?;
        columns.iter().try_for_each(|column| write!(f, "  {column:>15}"))?;
        writeln!(f)?;
        let rules = self.rules.iter().map(|(rule, change)| (&**rule, change));
        // postings and tiers that no rule ordered are the programme's own
        let named = rules.map(|(rule, change)| (if rule.is_empty() { "(programme)" } else { rule }, change));
        for (rule, change) in named.chain([("whatever rule", &self.everything)]) {
            let both = |both: BeforeAfter| format!("{} -> {}", both.before, both.after);
            write!(f, "{rule:width$}")?;
            for number in [change.gained, change.lost, change.changed, change.same] {
                write!(f, "  {number:>15}")?;
            }
            writeln!(f, "  {:>15}  {:>15}", both(change.entered), both(change.sent))?;
        }
        for tier in &self.tiers {
            writeln!(f, "tier {} to {}: {} times before, {} after", tier.from, tier.to, tier.before, tier.after)?;
        }
        for example in &self.examples {
            let kind = match example.kind {
                Kind::Gained => "gains",
                Kind::Lost => "loses",
                Kind::Changed => "changes",
            };
            let same = if example.same == 0 { String::new() } else { format!("; {} the same on both sides", example.same) };
            writeln!(f, "\n{} {kind}{same}", example.user)?;
            for (sign, lines) in [('-', &example.before), ('+', &example.after)] {
                for line in lines {
                    let by = format!("{} {}", line.rule, line.step);
                    writeln!(f, "  {sign} {:<20}  {by:<28}  {}", line.at, line.what)?;
                }
            }
        }
        Ok(())
    }
}
