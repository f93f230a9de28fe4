//! `rekindle simulate`: a file of events through a rule set, in memory and without side effects.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::{ExitCode, Format};
use crate::engine::event::Event;
use crate::engine::profile::Name;
use crate::engine::rule::RuleSet;
use crate::engine::time::{DAY_MS, Timestamp};
use crate::ingest::file::{Origin, Received, read_events};
use crate::rulebook::Rulebook;
use crate::simulate::Timeline;
use crate::simulate::report::Report;
use crate::store::Identity;

/// So many rejected rows are shown; the rest is counted.
const REJECTS_SHOWN: usize = 10;

/// Replay events through the rules: who would have entered, what would have been sent, held and dropped
///
/// Every event and every instant at which a rule wants to look is decided by the very function that decides live. Nothing is sent
/// and nothing is stored. The holdout is on; every channel has an address; providers deliver.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle simulate --rules rules --events events.ndjson.gz --until 2011-12-10T00:00:00Z")]
pub struct Args {
    /// Directory of rule files
    #[arg(long, value_name = "DIR")]
    pub rules: PathBuf,
    /// Newline-delimited JSON in Segment's shape, also gzipped
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
    /// Replay up to this instant (RFC 3339), it included
    #[arg(long, value_name = "T", value_parser = instant)]
    pub until: Timestamp,
    /// Since when the rules have been live; people who satisfied a `when` by then are existing [default: the first event]
    #[arg(long, value_name = "T", value_parser = instant)]
    pub live_since: Option<Timestamp>,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// An instant on the command line; a date alone is its first instant in UTC.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    let with_time = || Timestamp::parse(&format!("{text}T00:00:00Z"));
    Timestamp::parse(text).or_else(with_time).ok_or_else(|| format!("`{text}` is no instant; write it like 2011-12-10T00:00:00Z"))
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.rules)?;
    let set = usable(&book)?;
    let (events, rejected) = read(&args)?;
    let report = replay(set, events, &args);
    match args.format {
        Format::Text => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report).context("the report cannot be written as JSON")?),
    }
    for reason in rejected.iter().take(REJECTS_SHOWN) {
        eprintln!("warning: {}: {reason}", args.events.display());
    }
    if rejected.len() > REJECTS_SHOWN {
        eprintln!("warning: {}: {} more rows were not taken", args.events.display(), rejected.len() - REJECTS_SHOWN);
    }
    Ok(if report.faults.is_empty() { ExitCode::Fine } else { ExitCode::Finding })
}

/// The compiled set, or its errors as the reason why nothing can run.
pub fn usable(book: &Rulebook) -> anyhow::Result<Arc<RuleSet>> {
    match book.set() {
        Some(set) => Ok(set),
        None => bail!("the rules have errors, nothing can run\n\n{}", book.render_errors()),
    }
}

/// The events by user, and what was not taken.
type Read = (Vec<(Name, Event)>, Vec<String>);

/// Reads the events, those after `--until` left out.
fn read(args: &Args) -> anyhow::Result<Read> {
    let cannot_open = || format!("cannot read the events of `{}`", args.events.display());
    let rows = read_events(&args.events, Origin::new("replay", Received::AsItHappened)).with_context(cannot_open)?;
    let mut events = Vec::new();
    let mut rejected = Vec::new();
    for row in rows {
        match row {
            Ok(incoming) if incoming.event.received_at > args.until => {}
            Ok(incoming) => {
                // without a merge an anonymous visitor is a person of their own
                let (Identity::User(user) | Identity::Anonymous(user)) = incoming.identity;
                events.push((user, incoming.event));
            }
            Err(reason) => rejected.push(reason.to_string()),
        }
    }
    if events.is_empty() {
        let hint = rejected.first().map(|first| format!(": {first}")).unwrap_or_default();
        bail!("`{}` holds no event until {}{hint}", args.events.display(), args.until);
    }
    Ok((events, rejected))
}

fn replay(set: Arc<RuleSet>, events: Vec<(Name, Event)>, args: &Args) -> Report {
    let start = events.iter().map(|(_, event)| event.received_at).min().unwrap_or(args.until);
    let mut timeline = Timeline::new(set, start, args.live_since.unwrap_or(start)).without_history();
    let mut seen = HashSet::new();
    for (user, event) in events {
        // a second event with that id is the same event
        if seen.insert(Arc::clone(&event.id)) {
            timeline.event(&user, event);
        }
    }
    let bar = progress(start, args.until);
    let mut at = start;
    while at < args.until {
        at = at.plus_ms(DAY_MS).min(args.until);
        timeline.advance_to(at);
        bar.set_position(days(start, at));
    }
    timeline.advance_to(args.until);
    bar.finish_and_clear();
    Report::of(&timeline)
}

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
