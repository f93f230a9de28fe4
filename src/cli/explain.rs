//! `rekindle explain`: why, why not, until when.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::database;
use super::{ExitCode, Format};
use crate::clock::{Clock, SystemClock};
use crate::engine::decide::Context;
use crate::engine::event::EventKind;
use crate::engine::rule::{RuleSet, check};
use crate::engine::time::Timestamp;
use crate::simulate::explain::{Explanation, explain, local, localized};
use crate::store::{EntryRow, Store, StoredProfile};

/// So many lines of the decision log are shown for an instant that is past.
const LOG_LINES: usize = 20;

/// Explain why a rule did or did not do something for one person, and until when that stands
///
/// The condition as a tree with the values read, the run and its steps with their times, every gate in order with the earliest
/// instant at which it opens, and the next instant at which anything can change. For an instant that is past, what was decided by
/// then is shown from the decision log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle explain --rule silence-60d --user or-17850 --dir rekindle-demo")]
pub struct Args {
    /// The rule's id
    #[arg(long, value_name = "ID")]
    pub rule: String,
    /// The person's user id
    #[arg(long, value_name = "ID")]
    pub user: String,
    /// The instant in question [default: now; in a demo, the end of the replay]
    #[arg(long, value_name = "T", value_parser = super::simulate::instant)]
    pub at: Option<Timestamp>,
    #[command(flatten)]
    pub database: database::Args,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let database = args.database.open().await?;
    let store = &database.store;
    let stored = database::person(store.as_ref(), &args.user).await?;
    let set = database::live_rules(store.as_ref()).await?;
    let Some(rule) = set.called(&args.rule) else {
        let known: Vec<&str> = set.rules.iter().map(|rule| &*rule.id).collect();
        bail!("no rule `{}` is live here; there are {}", args.rule, known.join(", "));
    };
    let decided = stored.profile.decided_at;
    // the replay was there to its end; a person may have been looked at last long before
    let replayed = if database.is_demo() { store.latest_heartbeat().await?.max(decided) } else { None };
    let now = args.at.or(replayed).unwrap_or_else(|| SystemClock.now());
    if decided.is_some_and(|decided| now < decided) {
        return past(&args, store.as_ref(), &set, &rule.id, &stored, now).await;
    }
    let view = store.world(set.policy.month_start(now)).await?;
    let older = older_rules(store.as_ref(), &set, &stored).await?;
    let ctx = Context { rules: &set, older: &older, world: &view.world };
    show(&args, &explain(&ctx, &stored.profile, stored.due_at, rule, now))?;
    if args.format == Format::Text {
        tell_waiting(&stored);
    }
    if let Some((at, reason)) = &stored.quarantined {
        eprintln!("warning: this person was set aside at {at}: {reason}");
    }
    Ok(ExitCode::Fine)
}

/// Facts that wait are news; results of messages that no run waits for are read at the next look, whenever that is.
fn tell_waiting(stored: &StoredProfile) {
    let facts = stored.waiting.iter().filter(|event| event.kind != EventKind::Engine).count();
    match facts {
        0 => {}
        1 => println!("     1 event has not been looked at yet"),
        facts => println!("     {facts} events have not been looked at yet"),
    }
}

/// The rule sets that this person's runs began with, where that is not the present one.
async fn older_rules(store: &dyn Store, set: &RuleSet, stored: &StoredProfile) -> anyhow::Result<HashMap<u64, Arc<RuleSet>>> {
    let mut older = HashMap::new();
    for version in stored.profile.runs.iter().map(|run| run.version).filter(|version| *version != set.version) {
        let as_written = database::rules_of(store, version).await?;
        older.insert(version, Arc::new(check::under_present(&as_written, set).0));
    }
    Ok(older)
}

fn show(args: &Args, explanation: &Explanation) -> anyhow::Result<()> {
    match args.format {
        Format::Text => println!("{explanation}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(explanation).context("cannot be written as JSON")?),
    }
    Ok(())
}

/// The state of a past instant is not kept, but every decision is: what the rule decided about this person by then.
async fn past(
    args: &Args,
    store: &dyn Store,
    set: &RuleSet,
    rule: &str,
    stored: &StoredProfile,
    at: Timestamp,
) -> anyhow::Result<ExitCode> {
    let history = store.history(stored.id).await?;
    let by_then = |row: &&EntryRow| *row.entry.rule == *rule && row.entry.at <= at;
    let rows: Vec<&EntryRow> = history.entries.iter().filter(by_then).collect();
    let shown = rows.get(rows.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    let zone = set.policy.zone_of(&stored.profile);
    if args.format == Format::Json {
        let lines: Vec<_> = shown.iter().map(|row| json(row)).collect();
        println!("{}", serde_json::to_string_pretty(&lines).context("cannot be written as JSON")?);
        return Ok(ExitCode::Fine);
    }
    println!("{rule}   user {}   decided by {} {}", args.user, local(at, &zone), zone.name());
    for row in shown {
        let entry = &row.entry;
        let until = entry.until.map(|until| format!(", until {}", local(until, &zone))).unwrap_or_default();
        let version: String = format!("{:016x}", row.rules_version).chars().take(7).collect();
        let (at, because) = (local(entry.at, &zone), localized(&entry.because, &zone));
        println!("  {at:<19}  @ {version}  {:<10} {:<11} {because}{until}", entry.step, entry.what.name());
    }
    if shown.is_empty() {
        match history.events.iter().map(|(event, _)| event.occurred_at).min().filter(|first| *first > at) {
            Some(first) => println!("  nothing: the first that is known of this person is of {}", local(first, &zone)),
            None => println!("  nothing: the rule had not spoken about this person"),
        }
    }
    Ok(ExitCode::Fine)
}

fn json(row: &EntryRow) -> BTreeMap<&'static str, serde_json::Value> {
    let entry = &row.entry;
    BTreeMap::from([
        ("at", entry.at.to_string().into()),
        ("version", format!("{:016x}", row.rules_version).into()),
        ("rule", (*entry.rule).into()),
        ("run", entry.run.into()),
        ("step", (*entry.step).into()),
        ("what", entry.what.name().into()),
        ("because", (*entry.because).into()),
        ("until", entry.until.map(|until| until.to_string()).into()),
    ])
}
