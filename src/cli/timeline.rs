//! `rekindle timeline`: everything that was done and not done for one person.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value as Json;

use super::database::{self, Database};
use super::{ExitCode, Format};
use crate::engine::action::{ExposureRecord, MessageState, Posting, What};
use crate::engine::event::{Event, EventKind};
use crate::engine::run::read_result;
use crate::engine::time::{Timestamp, Zone};
use crate::simulate::explain::{local, localized};
use crate::store::{EntryRow, History, MessageRow};

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
    #[serde(skip)]
    place: Place,
}

/// Where a line stands among those of one instant: cause before effect. First the facts and what they brought by themselves, then
/// the decisions in the order in which they were taken, each with what it did, then what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Fact(Kind),
    /// The number of the decision in the log; what led to it stands before it, what it did after it.
    Decision {
        seq: i64,
        part: Part,
    },
    After(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// On which side of the holdout the run is.
    Side,
    Itself,
    Done(Kind),
}

/// What a line speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Event,
    Points,
    /// The engine's own events (`tier_changed`, `points_taken` ...).
    Engine,
    Decision,
    Exposure,
    Message,
    Attempt,
    /// What became of a message.
    Result,
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
    let stored = database::person(store.as_ref(), &args.user).await?;
    let history = store.history(stored.id).await.with_context(|| format!("the history of `{}` cannot be read", args.user))?;
    let zone = database::live_rules(store.as_ref()).await.map(|set| set.policy.zone_of(&stored.profile)).unwrap_or(Zone::UTC);
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
    lines.extend(history.entries.iter().map(|row| decision_line(row, zone)));
    lines.extend(history.exposures.iter().map(exposure_line));
    lines.extend(history.messages.iter().flat_map(|row| message_lines(row, zone)));
    lines.extend(history.postings.iter().map(posting_line));
    for line in &mut lines {
        if let Some(entry) = decision_of(line, history) {
            line.place = Place::Decision { seq: entry, part: if line.kind == Kind::Exposure { Part::Side } else { Part::Done(line.kind) } };
        }
    }
    lines.sort_by_key(|line| (line.instant, line.place));
    lines
}

/// The decision of the same instant that did what a line says, or had the run's side asked.
fn decision_of(line: &Line, history: &History) -> Option<i64> {
    if !matches!(line.kind, Kind::Exposure | Kind::Message | Kind::Points | Kind::Engine) {
        return None;
    }
    let acts = |what| matches!(what, What::Acted | What::Queued);
    let asks = |what| acts(what) || matches!(what, What::Held | What::Skipped | What::Dropped);
    let is_of_it = |row: &&EntryRow| {
        let entry = &row.entry;
        let is_one = if line.kind == Kind::Exposure { asks(entry.what) } else { acts(entry.what) };
        entry.at == line.instant
            && is_one
            && line.rule.as_deref() == Some(&*entry.rule)
            && line.run.is_none_or(|run| run == entry.run)
            && line.step.as_deref().is_none_or(|step| step == &*entry.step)
    };
    history.entries.iter().find(is_of_it).map(|row| row.seq)
}

impl Line {
    fn new(at: Timestamp, kind: Kind, text: String) -> Self {
        let place = match kind {
            Kind::Event | Kind::Points | Kind::Engine => Place::Fact(kind),
            _ => Place::After(kind),
        };
        Line { at: at.to_string(), kind, rule: None, run: None, step: None, text, instant: at, place }
    }

    fn of(self, rule: &str, run: Option<u32>, step: &str) -> Self {
        let step = (!step.is_empty()).then(|| step.to_owned());
        Line { rule: Some(rule.to_owned()), run, step, ..self }
    }
}

fn decision_line(row: &EntryRow, zone: &Zone) -> Line {
    let entry = &row.entry;
    let until = entry.until.map(|until| format!(", until {}", local(until, zone))).unwrap_or_default();
    let text = format!("{}: {}{until}", entry.what.name(), localized(&entry.because, zone));
    let place = Place::Decision { seq: row.seq, part: Part::Itself };
    Line { place, ..Line::new(entry.at, Kind::Decision, text).of(&entry.rule, Some(entry.run), &entry.step) }
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
        EventKind::Engine => (Kind::Engine, localized(&format!("{} {}", event.name, properties(event)), zone)),
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
    let line = Line::new(event.occurred_at, kind, text.trim_end().to_owned());
    match (kind, event.text_property("rule"), event.text_property("step")) {
        (Kind::Engine, Some(rule), Some(step)) => line.of(rule, None, step),
        _ => line,
    }
}

fn properties(event: &Event) -> String {
    let said = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    // the line says of which rule and step an event of the engine's own is, and how it came about is nobody's concern
    let is_ours = event.kind == EventKind::Engine;
    let told = |key: &str| !(is_ours && matches!(key, "rule" | "step" | "generation"));
    let all: Vec<String> = (event.properties.iter())
        .filter(|(key, value)| !value.is_null() && told(key))
        .map(|(key, value)| format!("{key}={}", said(value)))
        .collect();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::engine::action::{Entry, PostingKind};
    use crate::store::ProfileId;

    fn event(id: &str, kind: EventKind, name: &str, at: Timestamp, properties: Json) -> (Event, bool) {
        let properties = properties.as_object().expect("an object").clone();
        let source = Arc::from("shop");
        (Event { id: id.into(), kind, name: name.into(), occurred_at: at, received_at: at, source, properties }, true)
    }

    fn entry(seq: i64, at: Timestamp, (rule, step): (&str, &str), what: What) -> EntryRow {
        let entry = Entry { at, rule: rule.into(), run: 1, step: step.into(), what, because: "so".into(), until: None };
        EntryRow { seq, profile: ProfileId(1), rules_version: 0, entry }
    }

    #[test]
    fn at_one_instant_causes_come_before_effects() {
        let at = Timestamp::parse("2026-07-01T10:00:00Z").expect("an instant");
        let (number, class, allocations, reason) = (0, "bonus".into(), vec![], "silence-1".into());
        let kind = PostingKind::Take;
        let (rule, run, step) = (Some("silence".into()), Some(1), Some("take-1".into()));
        let take = Posting { number, kind, class, amount: -10, at, allocations, reason, rule, run, step, notice: None };
        let earned = Posting { kind: PostingKind::Grant, amount: 5, rule: None, run: None, step: None, ..take.clone() };
        let of_take = json!({ "rule": "silence", "step": "take-1", "restore_until": "2026-08-01T10:00:00Z", "generation": 1 });
        let side = ExposureRecord { rule: "silence".into(), run_key: "".into(), run: 1, at, held_out: false, by: "policy".into() };
        let history = History {
            events: vec![
                event("1", EventKind::Engine, "points_taken", at, of_take),
                event("2", EventKind::Engine, "tier_changed", at, json!({ "to": "gold" })),
                event("3", EventKind::Track, "Order Completed", at, json!({})),
            ],
            postings: vec![take, earned],
            entries: vec![
                entry(1, at, ("silence", ""), What::Entered),
                entry(2, at, ("silence", "take-1"), What::Acted),
                entry(3, at, ("thanks", ""), What::Entered),
            ],
            exposures: vec![side],
            ..History::default()
        };
        let zone = Zone::named("Europe/Berlin").expect("a zone");
        let said: Vec<String> = lines(&history, &zone).into_iter().map(|line| format!("{}: {}", line.kind.name(), line.text)).collect();
        let expected = [
            "event: Order Completed",
            "points: grant +5 bonus (silence-1)",
            "engine: tier_changed to=gold",
            "decision: entered: so",
            "exposure: treated, by policy",
            "decision: acted: so",
            "points: take -10 bonus (silence-1)",
            "engine: points_taken restore_until=2026-08-01 12:00",
            "decision: entered: so",
        ];
        assert_eq!(said, expected);
    }
}
