//! `rekindle simulate`: recorded events through a rule set, in memory and without side effects; beside another set, if asked.

mod facts;
mod limits;
mod page;
mod what_if;

use std::collections::HashSet;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::facts::Facts;
use self::limits::Limit;
use self::what_if::WhatIf;
use super::{ExitCode, Format, database};
use crate::engine::gate;
use crate::engine::profile::Category;
use crate::engine::rule::RuleSet;
use crate::engine::rule::difference::{Difference, difference};
use crate::engine::time::{DAY_MS, Timestamp};
use crate::rulebook::Rulebook;
use crate::simulate::Timeline;
use crate::simulate::compare::Comparison;
use crate::simulate::figures::Figures;
use crate::simulate::journal::Journal;
use crate::simulate::report::Report;
use crate::store::place::Place;

/// So many rejected rows are shown; the rest is counted.
const REJECTS_SHOWN: usize = 10;

/// Replay events through the rules: who would have entered, what would have been sent, held and dropped
///
/// Every event and every instant at which a rule wants to look is decided by the very function that decides live. Nothing is sent
/// and nothing is stored. The holdout is on; every channel has an address; providers deliver. With `--against` or `--what-if` two
/// rule sets are replayed and compared: what differs in their meaning first, then who gains, loses or hears something else.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  $ rekindle simulate --rules rules --events events.ndjson.gz --until 2011-12-10T00:00:00Z
  $ rekindle simulate --db rekindle.db --against live --html report.html
  $ rekindle simulate --events events.ndjson.gz --assume-consent --what-if 'win-back.when=days_silent >= 45'
  $ rekindle simulate --events events.ndjson.gz --fail-if 'sends > 50000' --fail-if 'peak_minute > 600'")]
pub struct Args {
    /// Directory of rule files
    #[arg(long, value_name = "DIR", default_value = "rules")]
    pub rules: PathBuf,
    /// Newline-delimited JSON in Segment's shape, also gzipped
    #[arg(long, value_name = "FILE", required_unless_present = "db")]
    pub events: Option<PathBuf>,
    /// The events that this database has recorded: a file, or postgres://user@host/name
    #[arg(long, value_name = "DATABASE", conflicts_with = "events")]
    pub db: Option<Place>,
    /// Count what happens after this instant; what came before is replayed and not counted [default: the first event]
    #[arg(long, value_name = "T", value_parser = instant)]
    pub from: Option<Timestamp>,
    /// Replay up to this instant (RFC 3339), it included [default: the last event]
    #[arg(long, value_name = "T", value_parser = instant)]
    pub until: Option<Timestamp>,
    /// Since when the rules have been live; people who satisfied a `when` by then are existing [default: the first event]
    #[arg(long, value_name = "T", value_parser = instant)]
    pub live_since: Option<Timestamp>,
    /// Compare with these rules: a directory, `live` (with --db), or the version that was live there
    #[arg(long, value_name = "RULES", conflicts_with = "what_if")]
    pub against: Option<String>,
    /// Compare the rules with themselves, this key changed: `RULE.KEY=VALUE`, `RULE.steps.STEP.KEY=VALUE`; may be given several times
    #[arg(long, value_name = "CHANGE")]
    pub what_if: Vec<WhatIf>,
    /// Everybody agreed to marketing at their first event: for files of orders, which say nothing of consent
    #[arg(long)]
    pub assume_consent: bool,
    #[command(flatten)]
    pub report: Reporting,
}

/// What a report is about and what becomes of it, for `simulate` and `plan` alike.
#[derive(Debug, clap::Args)]
pub struct Reporting {
    /// Look at this share of the people only, always the same ones; counts are not scaled up
    #[arg(long, value_name = "PERCENT", value_parser = limits::share)]
    sample: Option<u16>,
    /// End with exit code 1 if this holds, as `sends > 50000`; may be given several times
    #[arg(long, value_name = "LIMIT")]
    fail_if: Vec<Limit>,
    /// So many people are shown as examples of what differs
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub examples: usize,
    /// Write the report as a page with charts, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Reporting {
    /// Whether somebody is in the sample; the salt decides who is.
    pub fn is_about(&self, salt: &str, user: &str) -> bool {
        self.sample.is_none_or(|share| gate::bucket(salt, user) < share)
    }

    /// Asks the limits, prints the report, and draws it as a page if somebody wants one.
    pub fn conclude(&self, mut outcome: Outcome, title: &str) -> anyhow::Result<ExitCode> {
        outcome.passed_limits = limits::passed(&self.fail_if, &outcome)?;
        if let Some(path) = &self.html {
            fs::write(path, page::render(title, &outcome)).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        match self.format {
            Format::Text => print!("{outcome}"),
            Format::Json => println!("{}", serde_json::to_string_pretty(&outcome).context("the report cannot be written as JSON")?),
        }
        if let Some(path) = self.html.as_ref().filter(|_| self.format == Format::Text) {
            println!("the same with charts: {}", path.display());
        }
        let is_fine = outcome.report.faults.is_empty() && outcome.passed_limits.is_empty();
        Ok(if is_fine { ExitCode::Fine } else { ExitCode::Finding })
    }
}

/// An instant on the command line; a date alone is its first instant in UTC.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    let with_time = || Timestamp::parse(&format!("{text}T00:00:00Z"));
    Timestamp::parse(text).or_else(with_time).ok_or_else(|| format!("`{text}` is no instant; write it like 2011-12-10T00:00:00Z"))
}

/// What is printed, as JSON or in words, and drawn.
#[derive(Serialize)]
pub struct Outcome {
    /// What differs in meaning; first of all, where two sets are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    #[serde(flatten)]
    pub report: Report,
    pub figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Limits of `--fail-if` that were passed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_limits: Vec<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.rules)?;
    let set = usable(&book)?;
    let facts = facts::read(&args, &set).await?;
    let sides = sides(&args, &book, set, &facts).await?;
    let outcome = replay(&args, &sides, &facts)?;
    let ended = args.report.conclude(outcome, "A replay")?;
    facts.tell_rejected(REJECTS_SHOWN);
    Ok(ended)
}

/// The rules in question, and those that they are compared with.
struct Sides {
    rules: Arc<RuleSet>,
    before: Option<Arc<RuleSet>>,
}

async fn sides(args: &Args, book: &Rulebook, set: Arc<RuleSet>, facts: &Facts) -> anyhow::Result<Sides> {
    if !args.what_if.is_empty() {
        let changed = what_if::changed(book, &args.what_if)?;
        return Ok(Sides { rules: usable(&changed)?, before: Some(set) });
    }
    let before = match &args.against {
        None => None,
        Some(against) if Path::new(against).is_dir() => Some(usable(&Rulebook::open(Path::new(against))?)?),
        Some(against) => match &facts.store {
            None => bail!("`--against {against}` is no directory; `live` and versions are those of a database: name it with --db"),
            Some(store) if against == "live" => Some(database::live_rules(store.as_ref()).await?),
            Some(store) => {
                let version = u64::from_str_radix(against, 16);
                let version = version.map_err(|_| anyhow!("`--against {against}` is neither a directory, nor `live`, nor a version"))?;
                Some(database::rules_of(store.as_ref(), version).await?)
            }
        },
    };
    Ok(Sides { rules: set, before })
}

/// The compiled set, or its errors as the reason why nothing can run.
pub fn usable(book: &Rulebook) -> anyhow::Result<Arc<RuleSet>> {
    match book.set() {
        Some(set) => Ok(set),
        None => bail!("the rules have errors, nothing can run\n\n{}", book.render_errors()),
    }
}

fn replay(args: &Args, sides: &Sides, facts: &Facts) -> anyhow::Result<Outcome> {
    let run = |set: &Arc<RuleSet>, bar: ProgressBar| replayed(set, args, facts, &bar);
    let bar = progress(facts.start, facts.until);
    let ((report, journal), before) = match &sides.before {
        None => (run(&sides.rules, bar), None),
        // each side has a core of its own, if there are two
        Some(before) => thread::scope(|scope| {
            let before = scope.spawn(|| run(before, ProgressBar::hidden()));
            let after = run(&sides.rules, bar);
            let Ok(before) = before.join() else { bail!("the rules to compare with could not be replayed") };
            Ok((after, Some(before)))
        })?,
    };
    let from = args.from.unwrap_or_else(|| facts.start.plus_ms(-1));
    let figures = Figures::of(&journal, &sides.rules, from, facts.until);
    let compared = |(_, old): &(Report, Journal)| Comparison::of(old, &journal, from, facts.until, args.report.examples);
    let comparison = before.as_ref().map(compared);
    let difference = sides.before.as_ref().map(|before| difference(before, &sides.rules));
    Ok(Outcome { difference, report, figures, comparison, passed_limits: Vec::new() })
}

fn replayed(set: &Arc<RuleSet>, args: &Args, facts: &Facts, bar: &ProgressBar) -> (Report, Journal) {
    let live_since = args.live_since.unwrap_or(facts.start);
    let mut timeline = Timeline::new(Arc::clone(set), facts.start, live_since).without_history().with_journal();
    let mut seen = HashSet::new();
    for (user, event) in &facts.events {
        // a second event with that id is the same event
        if seen.insert((&event.source, &event.id)) {
            timeline.event(user, event.clone());
        }
    }
    if let Some(from) = args.from.filter(|from| *from >= facts.start) {
        timeline.advance_to(from);
        timeline.count_from_here();
    }
    let mut at = timeline.now();
    while at < facts.until {
        at = at.plus_ms(DAY_MS).min(facts.until);
        timeline.advance_to(at);
        bar.set_position(days(facts.start, at));
    }
    timeline.advance_to(facts.until);
    bar.finish_and_clear();
    (Report::of(&timeline), timeline.into_journal())
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(difference) = &self.difference {
            writeln!(f, "{difference}")?;
        }
        write!(f, "{}", self.report)?;
        write!(f, "\n{}", self.figures)?;
        if let Some(comparison) = &self.comparison {
            write!(f, "\n{comparison}")?;
        }
        for limit in &self.passed_limits {
            writeln!(f, "\nlimit passed: {limit}")?;
        }
        Ok(())
    }
}

/// What `--assume-consent` lets everybody have agreed to.
const ASSUMED: Category = Category::Marketing;

fn days(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.ms_since(from) / DAY_MS).unwrap_or_default()
}

fn progress(start: Timestamp, until: Timestamp) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(days(start, until));
    match ProgressStyle::with_template("{bar:40} {pos} of {len} days, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
