//! `rekindle timeline`: everything that was done and not done for one person.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value as Json;

use super::database::{self, Database};
use super::{ExitCode, Format};
use crate::engine::event::{Event, EventKind};
use crate::engine::time::{Timestamp, Zone};
use crate::simulate::explain::local;
use crate::store::{History, MessageRow, Store};

/// Show everything we did and did not do for one person, in the order of time
///
/// Events, what the rules decided and why, messages with every attempt, points, and who was held out. Personal data that
/// `identify` brought is named, not shown.
///
/// Example:
///
///   $ rekindle timeline --user or-17850 --dir demo
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
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
    /// `event`, `decision`, `message`, `attempt`, `points`, `exposure`.
    pub kind: &'static str,
    pub rule: Option<String>,
    pub run: Option<u32>,
    pub step: Option<String>,
    /// One sentence.
    pub text: String,
    #[serde(skip)]
    instant: Timestamp,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Database { store, .. } = args.database.open().await?;
    let stored = database::person(&store, &args.user).await?;
    let history = store.history(stored.id).await.with_context(|| format!("the history of `{}` cannot be read", args.user))?;
    let zone = database::live_rules(&store).await.map(|set| set.policy.zone_of(&stored.profile)).unwrap_or(Zone::UTC);
    let within = |line: &Line| args.from.is_none_or(|from| line.instant >= from) && args.until.is_none_or(|until| line.instant < until);
    let lines: Vec<Line> = lines(&history).into_iter().filter(within).collect();
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
        println!("  {time:<8}  {:<8}  {subject}{}", line.kind, line.text);
    }
    if lines.is_empty() {
        println!("  nothing on record");
    }
}

/// Everything on record, sorted by its own time; what happened at one instant keeps the order event, decision, message, points.
pub fn lines(history: &History) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    lines.extend(history.events.iter().map(|(event, absorbed)| event_line(event, *absorbed)));
    lines.extend(history.entries.iter().map(|row| {
        let entry = &row.entry;
        let until = entry.until.map(|until| format!(", until {until}")).unwrap_or_default();
        let step = (!entry.step.is_empty()).then(|| entry.step.to_string());
        let text = format!("{}: {}{until}", entry.what.name(), entry.because);
        Line { rule: Some(entry.rule.to_string()), run: Some(entry.run), step, ..Line::new(entry.at, "decision", text) }
    }));
    lines.extend(history.exposures.iter().map(|exposure| {
        let side = if exposure.held_out { "held out" } else { "treated" };
        let text = format!("{side}, by {}", exposure.by);
        Line { rule: Some(exposure.rule.to_string()), run: Some(exposure.run), ..Line::new(exposure.at, "exposure", text) }
    }));
    lines.extend(history.messages.iter().flat_map(message_lines));
    lines.extend(history.postings.iter().map(|posting| {
        let text = format!("{} {:+} {} ({})", posting.kind.name(), posting.amount, posting.class, posting.reason);
        let (rule, step) = (posting.rule.as_ref().map(ToString::to_string), posting.step.as_ref().map(ToString::to_string));
        Line { rule, run: posting.run, step, ..Line::new(posting.at, "points", text) }
    }));
    lines.sort_by_key(|line| line.instant);
    lines
}

impl Line {
    fn new(at: Timestamp, kind: &'static str, text: String) -> Self {
        Line { at: at.to_string(), kind, rule: None, run: None, step: None, text, instant: at }
    }
}

fn event_line(event: &Event, absorbed: bool) -> Line {
    let mut text = match event.kind {
        EventKind::Track => format!("{} {}", event.name, properties(event)),
        EventKind::Engine => format!("{} {}", event.name, properties(event)),
        EventKind::Consent => format!("consent {}", properties(event)),
        // traits are personal: their names suffice here
        EventKind::Identify => format!("identify ({})", event.properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
    };
    if event.received_at != event.occurred_at {
        text.push_str(&format!("  (learned {})", event.received_at));
    }
    if !absorbed {
        text.push_str("  (waits)");
    }
    Line::new(event.occurred_at, "event", text.trim_end().to_owned())
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

fn message_lines(row: &MessageRow) -> Vec<Line> {
    let message = &row.message;
    let of = |at: Timestamp, kind: &'static str, text: String| Line {
        rule: Some(message.rule.to_string()),
        run: Some(message.run),
        step: Some(message.step.to_string()),
        ..Line::new(at, kind, text)
    };
    let name = format!("{} by {}", message.template, message.channel);
    let mut lines = vec![of(message.decided_at, "message", format!("{name} queued, to go out by {}", message.expires_at))];
    for attempt in &row.attempts {
        let outcome = attempt.outcome.as_deref().unwrap_or("no result on record");
        let detail = attempt.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        lines.push(of(attempt.started_at, "attempt", format!("{name}, attempt {}: {outcome}{detail}", attempt.number)));
    }
    let because = row.because.as_deref().map(|because| format!(": {because}")).unwrap_or_default();
    lines.push(of(row.changed_at, "message", format!("{name} is {}{because}", row.state.name())));
    lines
}
