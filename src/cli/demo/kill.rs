//! `rekindle demo --kill`: the replay in a process of its own, which is killed with SIGKILL again and again and goes on each time. At the
//! end an examination says what came of it: everything that was handed in must be on record once, everything that the recording
//! channel took must be there as sent, and once.
//!
//! Nothing of this is the dying process's own word: the facts are read anew from where they came, the messages from the files that the
//! channel wrote, and the examination is that of `rekindle doctor`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::super::doctor::evidence::{Balance, Evidence};
use super::super::doctor::examine;
use super::tally::monday;
use super::{Args, Assumptions, MESSAGES, end_of, ends_week, read_facts, read_rules, replay};
use crate::cli::{ExitCode, Format, database};
use crate::clock::Stopwatch;
use crate::engine::action::MessageId;
use crate::engine::profile::Name;
use crate::store::Store as _;
use crate::store::sqlite::SqliteStore;

/// So often it is killed.
const KILLS: usize = 20;
/// How a line begins that tells of a week.
const WEEK: &str = "week of ";
/// Before the first week has shown how long one takes.
const WEEK_AT_FIRST: Duration = Duration::from_millis(200);

/// A replay under way in its own process.
struct Life {
    process: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

/// What was seen of the replay so far, whichever process told of it.
struct Seen {
    first_monday: Date,
    told: BTreeSet<Date>,
    /// Weeks that lie behind it: one that a kill fell into is told of by nobody.
    weeks: usize,
    /// How long the latest week took.
    week: Duration,
    format: Format,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Replayed { first_monday, weeks, facts } = what_is_replayed(&args)?;
    let mut seen = Seen { first_monday, told: BTreeSet::new(), weeks: 0, week: WEEK_AT_FIRST, format: args.format };
    let mut kills = 0;
    for kill in 0..KILLS {
        let mut life = Life::begin(&args, kill > 0, Format::Text)?;
        let wanted = weeks * kill / KILLS;
        if !life.comes_to(wanted, &mut seen)? {
            break;
        }
        // somewhere within the next half of a week, at another place each time
        let share = twox_hash::XxHash3_64::oneshot(&kill.to_le_bytes()) % 1_000;
        tokio::time::sleep(seen.week.mul_f64(share as f64 / 2_000.0)).await;
        if !life.dies(&mut seen)? {
            break;
        }
        kills += 1;
        seen.say(&format!("killed ({kills} of {KILLS}), and on"));
    }
    let summary = Life::begin(&args, true, args.format)?.ends(&mut seen)?;
    let evidence = Evidence { acknowledged: Some(facts), taken: Some(taken(&args.dir.join(MESSAGES))?) };
    let store = SqliteStore::open_to_read(&args.dir.join(database::FILE)).await?;
    let report = examine(&store, evidence).await?;
    store.close().await;
    let balance = report.evidence.unwrap_or_default();
    match args.format {
        Format::Json => println!("{:#}", with_balance(&summary, kills, balance)?),
        Format::Text => {
            print!("{summary}\nKilled {kills} times, and examined (unknown: the played provider did not say)\n{}", report.to_text())
        }
    }
    Ok(if report.findings.is_empty() { ExitCode::Fine } else { ExitCode::Finding })
}

/// What goes in.
struct Replayed {
    first_monday: Date,
    weeks: usize,
    /// Ids of all facts.
    facts: BTreeSet<Name>,
}

fn what_is_replayed(args: &Args) -> anyhow::Result<Replayed> {
    let book = read_rules(args.rules.as_deref())?;
    let Some(rules) = book.set() else { bail!("the rules have errors\n\n{}", book.render_errors()) };
    let facts = Assumptions::shipped()?.apply(read_facts(args, &rules)?.facts);
    let zone = rules.policy.zone.last.clone();
    let until = end_of(&facts, &zone)?;
    let stretches = replay::stretches(&facts, &rules.dictionary, rules.policy.sources.as_ref(), &zone, until);
    let Some(first) = stretches.first() else { bail!("there is nothing to replay") };
    let weeks = stretches.iter().filter(|stretch| ends_week(stretch, &zone, until)).count();
    let first_monday = monday(first.from.local(&zone).date());
    Ok(Replayed { first_monday, weeks, facts: facts.into_iter().map(|fact| fact.event.id).collect() })
}

impl Life {
    fn begin(args: &Args, goes_on: bool, format: Format) -> anyhow::Result<Life> {
        let mut command = Command::new(std::env::current_exe().context("where this program is")?);
        command.arg("demo").arg("--dir").arg(&args.dir);
        for (option, path) in [("--rules", &args.rules), ("--events", &args.events), ("--orders", &args.orders)] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
        if goes_on {
            command.arg("--resume");
        }
        if format == Format::Json {
            command.args(["--format", "json"]);
        }
        // its bar would be drawn over ours; what goes wrong is seen by how it ends
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cannot start the replay")?;
        let output = process.stdout.take().context("its output")?;
        Ok(Life { process, lines: BufReader::new(output).lines() })
    }

    /// Reads on until so many weeks have been seen in all; false: it came to its end before.
    fn comes_to(&mut self, weeks: usize, seen: &mut Seen) -> anyhow::Result<bool> {
        let mut watch = Stopwatch::start();
        let mut lines_read = 0;
        // one line at least: then it is at work
        while lines_read == 0 || seen.weeks < weeks {
            let Some(line) = self.lines.next() else { return Ok(false) };
            if seen.hear(&line?) {
                seen.week = watch.elapsed();
            }
            watch = Stopwatch::start();
            lines_read += 1;
        }
        Ok(true)
    }

    /// False: it had come to its end before.
    fn dies(mut self, seen: &mut Seen) -> anyhow::Result<bool> {
        self.process.kill().context("cannot kill the replay")?; // SIGKILL
        // what it had said is still in the pipe
        for line in self.lines {
            seen.hear(&line?);
        }
        let status = self.process.wait()?;
        ensure!(status.code().is_none_or(|code| code == 0), "the replay ended badly by itself ({status})");
        Ok(status.code().is_none())
    }

    /// Waits for its end; what it said beside its weeks.
    fn ends(mut self, seen: &mut Seen) -> anyhow::Result<String> {
        let mut rest = String::new();
        for line in self.lines {
            let line = line?;
            if !line.starts_with(WEEK) {
                rest.push_str(&line);
                rest.push('\n');
            }
            seen.hear(&line);
        }
        let status = self.process.wait()?;
        ensure!(status.success(), "the replay ended badly ({status}); `rekindle demo --resume` says why");
        Ok(rest)
    }
}

impl Seen {
    /// True: it tells of a week that nobody has told of.
    fn hear(&mut self, line: &str) -> bool {
        let week = line.strip_prefix(WEEK).and_then(|rest| rest.split_once(':'));
        let Some(monday) = week.and_then(|(week, _)| Date::strptime("%d %b %Y", week.trim()).ok()) else { return false };
        let is_new = self.told.insert(monday);
        if is_new {
            let days = monday.duration_since(self.first_monday).as_hours() / 24;
            self.weeks = self.weeks.max(usize::try_from(days / 7 + 1).unwrap_or_default());
            self.say(line);
        }
        is_new
    }

    fn say(&self, line: &str) {
        match self.format {
            Format::Text => println!("{line}"),
            Format::Json => eprintln!("{line}"),
        }
    }
}

/// The messages that the recording channel took or may have taken, as often as it wrote them down.
fn taken(messages: &Path) -> anyhow::Result<BTreeMap<MessageId, u32>> {
    #[derive(Deserialize)]
    struct Line {
        id: String,
        simulated: Play,
    }
    #[derive(Deserialize)]
    struct Play {
        answer: String,
    }
    let mut taken = BTreeMap::new();
    for entry in fs::read_dir(messages).with_context(|| format!("cannot read `{}`", messages.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "ndjson") {
            continue;
        }
        for line in BufReader::new(fs::File::open(&path)?).lines() {
            let line: Line = serde_json::from_str(&line?).with_context(|| format!("a line of `{}`", path.display()))?;
            let id = MessageId::parse(&line.id).with_context(|| format!("`{}` in `{}` is no message's id", line.id, path.display()))?;
            if line.simulated.answer != "failed" {
                *taken.entry(id).or_default() += 1;
            }
        }
    }
    Ok(taken)
}

fn with_balance(summary: &str, kills: usize, balance: Balance) -> anyhow::Result<Json> {
    let mut summary: Json = serde_json::from_str(summary).context("the summary of the replay")?;
    if let Some(fields) = summary.as_object_mut() {
        fields.insert("kill".to_owned(), json!({ "times": kills, "balance": balance.to_json() }));
    }
    Ok(summary)
}
