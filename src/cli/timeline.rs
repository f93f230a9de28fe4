//! `rekindle timeline`: everything that was done and not done for one person.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value as Json;

use super::database::{self, Database};
use super::{ExitCode, Format};
use crate::engine::action::{Entry, ExposureRecord, MessageState, Posting};
use crate::engine::event::{Event, EventKind};
use crate::engine::run::read_result;
use crate::engine::time::{Timestamp, Zone};
use crate::simulate::explain::local;
use crate::store::{History, MessageRow, Store};

/// Show everything we did and did not do for one person, in the order of time
///
/// Events, what the rules decided and why, messages with every attempt, points, and who was held out. Personal data that
/// `identify` brought is named, not shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle timeline --user or-17850 --dir rekindle-demo")]
pub struct Args {
    /// The person's user id
    #[arg(long, value_name = "ID")]
    pub user: String,
    #[command(flatten)]
    pub database: database::Args,
    /// Only what happened from then on
    #[arg(long, value_name = "T", value_parser = super::simulate::instant)]
    pub from: Option<Timestamp>,
    /// Only what happened before
    #[arg(long, value_name = "T", value_parser = super::simulate::instant)]
    pub until: Option<Timestamp>,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// One line of somebody's life.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// RFC 3339.
    pub at: String,
    pub kind: Kind,
    pub rule: Option<String>,
    pub run: Option<u32>,
    pub step: Option<String>,
    /// One sentence; instants in it are in the person's zone.
    pub text: String,
    #[serde(skip)]
    instant: Timestamp,
}

/// What a line speaks of. What happened at one instant stands in this order: cause before effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Event,
    Decision,
    Exposure,
    Message,
    Attempt,
    /// What became of a message.
    Result,
    Points,
    /// The engine's own events (`tier_changed`, `points_taken` ...).
    Engine,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::Decision => "decision",
            Kind::Exposure => "exposure",
            Kind::Message => "message",
            Kind::Attempt => "attempt",
            Kind::Result => "result",
            Kind::Points => "points",
            Kind::Engine => "engine",
        }
    }
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Database { store, .. } = args.database.open().await?;
    let stored = database::person(&store, &args.user).await?;
    let history = store.history(stored.id).await.with_context(|| format!("the history of `{}` cannot be read", args.user))?;
    let zone = database::live_rules(&store).await.map(|set| set.policy.zone_of(&stored.profile)).unwrap_or(Zone::UTC);
    let within = |line: &Line| args.from.is_none_or(|from| line.instant >= from) && args.until.is_none_or(|until| line.instant < until);
    let lines: Vec<Line> = lines(&history, &zone).into_iter().filter(within).collect();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&lines).context("the lines cannot be written as JSON")?),
        Format::Text => print(&args.user, &zone, &lines),
    }
    Ok(ExitCode::Fine)
}

fn print(user: &str, zone: &Zone, lines: &[Line]) {
    println!("{user}   times in {}", zone.name());
    let mut day = String::new();
    for line in lines {
        let at = local(line.instant, zone);
        let (date, time) = at.split_once(' ').unwrap_or((&at, ""));
        if date != day {
            println!("{date}");
            date.clone_into(&mut day);
        }
        let subject = match (&line.rule, &line.step) {
            (Some(rule), Some(step)) => format!("{rule}.{step}: "),
            (Some(rule), None) => format!("{rule}: "),
            _ => String::new(),
        };
        println!("  {time:<8}  {:<8}  {subject}{}", line.kind.name(), line.text);
    }
    if lines.is_empty() {
        println!("  nothing on record");
    }
}

/// Everything on record, in the order of its own time.
pub fn lines(history: &History, zone: &Zone) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    lines.extend(history.events.iter().filter(|(event, _)| !is_told_by_an_attempt(event, history)).map(|row| event_line(row, zone)));
    lines.extend(history.entries.iter().map(|row| decision_line(&row.entry, zone)));
    lines.extend(history.exposures.iter().map(exposure_line));
    lines.extend(history.messages.iter().flat_map(|row| message_lines(row, zone)));
    lines.extend(history.postings.iter().map(posting_line));
    lines.sort_by_key(|line| (line.instant, line.kind));
    lines
}

impl Line {
    fn new(at: Timestamp, kind: Kind, text: String) -> Self {
        Line { at: at.to_string(), kind, rule: None, run: None, step: None, text, instant: at }
    }

    fn of(self, rule: &str, run: Option<u32>, step: &str) -> Self {
        let step = (!step.is_empty()).then(|| step.to_owned());
        Line { rule: Some(rule.to_owned()), run, step, ..self }
    }
}

fn decision_line(entry: &Entry, zone: &Zone) -> Line {
    let until = entry.until.map(|until| format!(", until {}", local(until, zone))).unwrap_or_default();
    let text = format!("{}: {}{until}", entry.what.name(), entry.because);
    Line::new(entry.at, Kind::Decision, text).of(&entry.rule, Some(entry.run), &entry.step)
}

fn exposure_line(exposure: &ExposureRecord) -> Line {
    let side = if exposure.held_out { "held out" } else { "treated" };
    let text = format!("{side}, by {}", exposure.by);
    Line::new(exposure.at, Kind::Exposure, text).of(&exposure.rule, Some(exposure.run), "")
}

fn posting_line(posting: &Posting) -> Line {
    let text = format!("{} {:+} {} ({})", posting.kind.name(), posting.amount, posting.class, posting.reason);
    let line = Line::new(posting.at, Kind::Points, text);
    match &posting.rule {
        Some(rule) => line.of(rule, posting.run, posting.step.as_deref().unwrap_or_default()),
        None => line,
    }
}

/// A result that the line of its attempt says already.
fn is_told_by_an_attempt(event: &Event, history: &History) -> bool {
    let Some((message, outcome)) = read_result(event) else { return false };
    let row = history.messages.iter().find(|row| row.message.id == message);
    row.is_some_and(|row| row.attempts.iter().any(|attempt| attempt.outcome.as_deref() == Some(outcome.name())))
}

fn event_line((event, absorbed): &(Event, bool), zone: &Zone) -> Line {
    let waits = if *absorbed { "" } else { "  (waits for the next look)" };
    if let Some((_, outcome)) = read_result(event) {
        let said = |name: &str| event.text_property(name).unwrap_or_default();
        let detail = Some(said("detail")).filter(|detail| !detail.is_empty()).map(|detail| format!(" ({detail})")).unwrap_or_default();
        let text = format!("{} by {} {}{detail}{waits}", said("template"), said("channel"), outcome.name());
        let run = event.property("run").and_then(Json::as_u64).and_then(|run| u32::try_from(run).ok());
        return Line::new(event.occurred_at, Kind::Result, text).of(said("rule"), run, said("step"));
    }
    let (kind, mut text) = match event.kind {
        EventKind::Track => (Kind::Event, format!("{} {}", event.name, properties(event))),
        EventKind::Engine => (Kind::Engine, format!("{} {}", event.name, properties(event))),
        EventKind::Consent => (Kind::Event, format!("consent {}", properties(event))),
        // traits are personal: their names suffice here
        EventKind::Identify => {
            (Kind::Event, format!("identify ({})", event.properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ")))
        }
    };
    if event.received_at != event.occurred_at {
        text.push_str(&format!("  (learned {})", local(event.received_at, zone)));
    }
    text.push_str(waits);
    Line::new(event.occurred_at, kind, text.trim_end().to_owned())
}

fn properties(event: &Event) -> String {
    let said = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let all: Vec<String> =
        event.properties.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| format!("{key}={}", said(value))).collect();
    all.join(" ")
}

fn message_lines(row: &MessageRow, zone: &Zone) -> Vec<Line> {
    let message = &row.message;
    let of = |at: Timestamp, kind: Kind, text: String| Line::new(at, kind, text).of(&message.rule, Some(message.run), &message.step);
    let name = format!("{} by {}", message.template, message.channel);
    let mut lines = vec![of(message.decided_at, Kind::Message, format!("{name} queued, to go out by {}", local(message.expires_at, zone)))];
    for attempt in &row.attempts {
        let outcome = attempt.outcome.as_deref().unwrap_or("no result on record");
        let detail = attempt.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        lines.push(of(attempt.started_at, Kind::Attempt, format!("{name}, attempt {}: {outcome}{detail}", attempt.number)));
    }
    // where a message stands is said where no result says it
    if row.state.is_open() || row.state == MessageState::Cancelled {
        let because = row.because.as_deref().map(|because| format!(": {because}")).unwrap_or_default();
        lines.push(of(row.changed_at, Kind::Result, format!("{name} is {}{because}", row.state.name())));
    }
    lines
}
