//! `--fail-if 'sends > 50000'`: a figure of the report against a number, so that a script may stop what is too much.

use std::str::FromStr;

use anyhow::bail;

use super::Outcome;
use crate::engine::action::Channel;
use crate::engine::rule::suggest;
use crate::simulate::compare::Comparison;
use crate::simulate::figures::Figures;

/// A figure, how it is compared, and with what.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    text: String,
    name: String,
    compared: Compared,
    number: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Below,
    AtMost,
    Equal,
    Not,
    AtLeast,
    Above,
}

/// Two characters before one: `>=` begins with `>`.
const OPERATORS: [(&str, Compared); 6] = [
    ("<=", Compared::AtMost),
    (">=", Compared::AtLeast),
    ("==", Compared::Equal),
    ("!=", Compared::Not),
    ("<", Compared::Below),
    (">", Compared::Above),
];

/// The figures that may be named, beside those of one channel or rule.
const NAMES: [&str; 18] = [
    "sends",
    "entered",
    "held",
    "dropped",
    "people",
    "overlapping",
    "peak_minute",
    "peak_hour",
    "points_granted",
    "points_taken",
    "points_lapsed",
    "coupons",
    "coupon_value",
    "gained",
    "lost",
    "changed",
    "evaluations",
    "faults",
];

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is no limit; write it like `sends > 50000`");
        let found = OPERATORS.iter().find_map(|(sign, compared)| Some((text.split_once(sign)?, *compared)));
        let ((name, number), compared) = found.ok_or_else(form)?;
        let number = number.trim().replace('_', "").parse().map_err(|_| form())?;
        let name = name.trim().to_owned();
        let base = name.split('.').next().unwrap_or_default();
        let of_one = matches!(base, "sends" | "entered" | "gained" | "lost" | "changed");
        if !NAMES.contains(&base) || (name.contains('.') && !of_one) {
            let near = suggest::nearest(base, NAMES).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
            let names = NAMES.join(", ");
            return Err(format!(
                "there is no figure `{name}`{near}; there are {names}; of one channel or rule: sends.email, entered.RULE, gained.RULE"
            ));
        }
        Ok(Limit { text: text.trim().to_owned(), name, compared, number })
    }
}

/// A percentage on the command line, in basis points.
pub fn share(text: &str) -> Result<u16, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match percent {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok((percent * 100.0).round().max(1.0) as u16),
        _ => Err(format!("`{text}` is no share of people; write it like 2%")),
    }
}

/// The limits that hold, each with the figure it met.
///
/// # Errors
/// A limit speaks of a channel or rule that is not there, or of a comparison where nothing is compared: it could never be passed.
pub fn passed(limits: &[Limit], outcome: &Outcome) -> anyhow::Result<Vec<String>> {
    let mut passed = Vec::new();
    for limit in limits {
        let (base, of) = limit.name.split_once('.').unwrap_or((&limit.name, ""));
        let is_compared = matches!(base, "gained" | "lost" | "changed");
        let known_rule = || outcome.report.rules.contains_key(of) || outcome.comparison.as_ref().is_some_and(|c| c.rules.contains_key(of));
        if is_compared && outcome.comparison.is_none() {
            bail!("`{}`: nothing is compared; say with what by --against or --what-if", limit.text);
        }
        if base == "sends" && !of.is_empty() && Channel::named(of).is_none() {
            bail!("`{}`: there is no channel `{of}`; there are {}", limit.text, Channel::ALL.map(Channel::name).join(", "));
        }
        if base != "sends" && !of.is_empty() && !known_rule() {
            bail!("`{}`: there is no rule `{of}`", limit.text);
        }
        let value = value(&limit.name, outcome);
        if limit.holds(value) {
            passed.push(format!("{} ({} is {value})", limit.text, limit.name));
        }
    }
    Ok(passed)
}

impl Limit {
    fn holds(&self, value: f64) -> bool {
        match self.compared {
            Compared::Below => value < self.number,
            Compared::AtMost => value <= self.number,
            Compared::Equal => value == self.number,
            Compared::Not => value != self.number,
            Compared::AtLeast => value >= self.number,
            Compared::Above => value > self.number,
        }
    }
}

fn value(name: &str, outcome: &Outcome) -> f64 {
    let Outcome { report, figures, comparison, .. } = outcome;
    let (base, of) = name.split_once('.').unwrap_or((name, ""));
    let channels = figures.channels.values();
    let count = match base {
        "sends" if !of.is_empty() => figures.channels.get(of).map_or(0, |channel| channel.sent),
        "sends" => figures.sends(),
        "entered" if !of.is_empty() => report.rules.get(of).map_or(0, |rule| rule.entered),
        "entered" => report.rules.values().map(|rule| rule.entered).sum(),
        "held" => figures.gates.values().map(|gate| gate.held).sum(),
        "dropped" => figures.gates.values().map(|gate| gate.dropped).sum(),
        "people" => report.profiles,
        "overlapping" => figures.overlaps.iter().map(|overlap| overlap.people).max().unwrap_or(0),
        "peak_minute" => channels.map(|channel| channel.busiest_minute.1).max().unwrap_or(0),
        "peak_hour" => channels.map(|channel| channel.busiest_hour.1).max().unwrap_or(0),
        "points_granted" => staked(figures, "points: grant"),
        "points_taken" => staked(figures, "points: take"),
        "points_lapsed" => staked(figures, "points: lapse"),
        "coupons" => figures.stakes.iter().filter(|stake| stake.what.starts_with("coupon ")).map(|stake| stake.people).sum(),
        "coupon_value" => staked(figures, "coupon "),
        "gained" => moved(comparison.as_ref(), of, |change| change.gained),
        "lost" => moved(comparison.as_ref(), of, |change| change.lost),
        "changed" => moved(comparison.as_ref(), of, |change| change.changed),
        "evaluations" => report.evaluations,
        _ => report.faults.len() as u64,
    };
    count as f64
}

fn staked(figures: &Figures, what: &str) -> u64 {
    figures.stakes.iter().filter(|stake| stake.what.starts_with(what)).map(|stake| stake.sum.unsigned_abs()).sum()
}

fn moved(comparison: Option<&Comparison>, rule: &str, of: fn(&crate::simulate::compare::Change) -> u64) -> u64 {
    match comparison {
        None => 0,
        Some(comparison) if rule.is_empty() => of(&comparison.everything),
        Some(comparison) => comparison.rules.get(rule).map_or(0, of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_names_a_figure_that_there_is() {
        for (text, is_fine) in [
            ("sends > 50000", true),
            ("sends.email>=1_000", true),
            ("lost.win-back != 0", true),
            ("sends", false),
            ("sends > many", false),
            ("sent > 5", false),
            ("faults.x > 0", false),
        ] {
            assert_eq!(text.parse::<Limit>().is_ok(), is_fine, "{text}");
        }
        let told = "sents > 5".parse::<Limit>().expect_err("no such figure");
        assert!(told.starts_with("there is no figure `sents`, did you mean `sends`?; there are sends, "), "{told}");
    }

    #[test]
    fn a_share_is_read_in_basis_points() {
        for (text, share_of) in [("2%", Some(200)), ("0.5%", Some(50)), ("100", Some(10_000)), ("0%", None), ("101%", None), ("x", None)] {
            assert_eq!(share(text).ok(), share_of, "{text}");
        }
    }
}
