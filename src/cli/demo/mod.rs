//! `rekindle demo`: a real shop's year goes in, rules decide, messages come out. The facts are a retailer's orders (or your own); the
//! rules are the shipped pack (or yours); evaluation and dispatch are those of the daemon; only the clock is virtual, and the
//! provider's answers are played by the recording channel. Nothing leaves the machine.

mod assumptions;
mod kill;
mod page;
mod replay;
mod summary;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use self::assumptions::Assumptions;
use self::page::{Recorded, Story};
use self::replay::{Done, Replay, Stage, Stretch};
use self::summary::{Effort, Input, Summary, number};
use self::tally::Tally;
use super::{ExitCode, Format, database};
use crate::channel::Channels;
use crate::channel::recording::{Form, Options as RecordingOptions, Recording};
use crate::clock::{Clock as _, Stopwatch, SystemClock, VirtualClock};
use crate::dispatch::Dispatcher;
use crate::engine::action::{Channel as Kind, MessageId};
use crate::engine::profile::Name;
use crate::engine::rule::RuleSet;
use crate::engine::rule::diagnostic::SourceFile;
use crate::engine::time::{DAY_MS, Timestamp, Zone};
use crate::evaluate::Evaluator;
use crate::ingest::Incoming;
use crate::ingest::file::{self, Origin, Received, Rejected, Rows};
use crate::rulebook::Rulebook;
use crate::store::sqlite::{Durability, Options as StoreOptions, SqliteStore};
use crate::store::{ProfileId, Publication, Store, StoreError};
use crate::versions::RuleVersions;

/// The retailer's year, in the binary.
const YEAR: &[u8] = include_bytes!("../../../data/online-retail/events.ndjson.gz");
const YEAR_NAME: &str = "orders of a British gift shop (Chen, D., Online Retail, UCI Machine Learning Repository, CC BY 4.0)";
/// The shipped rule pack: path and text of every file.
const PACK: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/pack.rs"));

/// The environment that a demo's database belongs to.
pub const ENVIRONMENT: &str = "demo";
/// Where a demo goes if nobody says so.
const DIRECTORY: &str = "rekindle-demo";
/// Says that a directory is a demo's, and of what.
const MARKER: &str = "demo.json";
const MESSAGES: &str = "messages";
const PAGE: &str = "index.html";
/// So many rejected rows are shown; all are counted.
const REJECTED_SHOWN: usize = 10;
/// Basis points of messages that get a file of their own, so that there is something to open in a mail program.
const OWN_FILES_BP: u16 = 200;

/// Replay a real shop's year on your machine: who is welcomed, warned, held, won back (nothing is sent)
///
/// Loads a British gift shop's year of orders (or yours) into an embedded database, replays it under a virtual clock through the rules,
/// and writes every message to files. Ends with a summary and a page to open.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle demo --orders my-orders.csv --dir my-shop")]
pub struct Args {
    /// Rules to use instead of the shipped pack
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// Your events instead of the shop's: newline-delimited JSON in Segment's shape, also gzipped
    #[arg(long, value_name = "FILE", conflicts_with = "orders")]
    pub events: Option<PathBuf>,
    /// Your orders instead of the shop's: CSV with customer, date, amount
    #[arg(long, value_name = "FILE")]
    pub orders: Option<PathBuf>,
    /// Where database, messages and page go; a demo that was there before makes way
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    pub dir: PathBuf,
    /// Go on where an interrupted run ended, instead of starting afresh; a run that had not begun yet begins
    #[arg(long)]
    pub resume: bool,
    /// Kill the replay twenty times on its way (kill -9), go on each time, and examine at the end what was lost, doubled or exceeded
    #[arg(long, conflicts_with = "resume")]
    pub kill: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.kill {
        return kill::run(args).await;
    }
    let watch = Stopwatch::start();
    let book = read_rules(args.rules.as_deref())?;
    let Some(rules) = book.set() else {
        eprint!("{}", book.render_errors());
        eprintln!("the rules have errors: nothing was replayed");
        return Ok(ExitCode::Finding);
    };
    let assumptions = Assumptions::shipped()?;
    let source = read_facts(&args, &rules)?;
    let facts = assumptions.apply(source.facts);
    let zone = rules.policy.zone.last.clone();
    let until = end_of(&facts, &zone)?;
    let input = Input { until: Some(until), assumptions: assumptions.lines(), ..source.input };

    let marker = Marker::of(&input.name, &facts, rules.version);
    let stretches = replay::stretches(&facts, &rules.dictionary, rules.policy.sources.as_ref(), &zone, until);
    let Some(first) = stretches.first().copied() else { bail!("{} holds no event: there is nothing to replay", input.name) };
    let store = open(&args, &marker).await?;
    let begin = replay::position(&stretches, &store.source_hours(Timestamp::DISTANT_PAST).await?);
    let rest = stretches.get(begin..).unwrap_or_default();
    let from = rest.first().unwrap_or(&first).from;

    publish(&store, &book, &rules, first.from).await?;
    let recording = open_recording(&args.dir, &assumptions, from)?;
    let mut tally = Tally::of(&rules, zone.clone());
    tally.catch_up(&store, from).await?;
    let recorded = tally.lives.iter().filter_map(|(id, life)| Some((*id, life.received_at?))).collect();
    let mut replay = Replay::new(stage(&store, &book, &rules, &recording), facts, from, recorded);
    replay.recover(rest.first().unwrap_or(&first).until.plus_ms(-1)).await?;

    let story = Telling { format: args.format, zone: &zone, total: stretches.len(), begun: begin };
    let tally = story.play(&mut replay, rest, tally, &input).await?;

    let effort = effort(replay.done, watch.elapsed().as_secs_f64(), args.resume);
    let summary = Summary::collect(&store, &rules, &tally, args.dir.clone(), input, effort).await?;
    let hero = match summary::hero(&tally) {
        Some(id) => Some(read_story(&store, &rules, &args.dir, id).await?),
        None => None,
    };
    fs::write(args.dir.join(PAGE), page::render(&summary, hero.as_ref()))
        .with_context(|| format!("cannot write `{}`", args.dir.join(PAGE).display()))?;
    write_pack(&args)?;
    match args.format {
        Format::Json => println!("{:#}", summary.to_json()),
        Format::Text => print!("\n{}\n{}", summary.to_text(), next_steps(&args, &rules, hero.as_ref())),
    }
    drop(replay);
    store.close().await;
    Ok(ExitCode::Fine)
}

fn effort(done: Done, seconds: f64, resumed: bool) -> Effort {
    Effort { evaluations: done.evaluations, heartbeats: done.heartbeats, rounds: done.rounds, seconds, resumed }
}

// ------------------------------------------------------------------------------------------------------------- what goes in

fn read_rules(dir: Option<&Path>) -> anyhow::Result<Rulebook> {
    match dir {
        Some(dir) => Ok(Rulebook::open(dir)?),
        None => Ok(Rulebook::of(PACK.iter().map(|(path, text)| SourceFile { path: Arc::from(*path), text: Arc::from(*text) }).collect())),
    }
}

/// Facts as they were read, sorted by time.
struct Facts {
    facts: Vec<Incoming>,
    input: Input,
}

fn read_facts(args: &Args, rules: &RuleSet) -> anyhow::Result<Facts> {
    // one date of 2061 among those of a year would have the replay walk through decades of silence
    let plausible = (Origin::EARLIEST, SystemClock.now().plus_ms(DAY_MS));
    let origin = Origin { currency: rules.dictionary.currency, plausible, ..Origin::new("shop", Received::AsItHappened) };
    let opened = |path: &Path, rows: io::Result<Rows>| rows.with_context(|| format!("cannot read `{}`", path.display()));
    let (name, rows) = match (&args.events, &args.orders) {
        (Some(path), _) => (path.display().to_string(), opened(path, file::read_events(path, origin))?),
        (None, Some(path)) => (path.display().to_string(), opened(path, file::read_orders(path, origin))?),
        (None, None) => (YEAR_NAME.to_owned(), file::events_of(YEAR, origin)),
    };
    let (mut facts, mut rejected) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Ok(fact) => facts.push(fact),
            Err(row) => rejected.push(row),
        }
    }
    tell_rejected(&name, &rejected);
    if let Some(end) = rejected.iter().find(|row| row.ends_file) {
        bail!("{name}: {end}");
    }
    facts.sort_by(|a, b| a.event.order_key().cmp(&b.event.order_key()));
    let from = facts.first().map(|fact| fact.event.occurred_at);
    let input = Input { name, events: facts.len() as u64, rejected: rejected.len() as u64, from, ..Input::default() };
    Ok(Facts { facts, input })
}

fn tell_rejected(name: &str, rejected: &[Rejected]) {
    for row in rejected.iter().filter(|row| !row.ends_file).take(REJECTED_SHOWN) {
        eprintln!("warning: {name}: {row}");
    }
    if rejected.len() > REJECTED_SHOWN {
        eprintln!(
            "warning: {name}: {} more rows were rejected; `rekindle import --rejects FILE` writes them all down",
            rejected.len() - REJECTED_SHOWN
        );
    }
}

/// The midnight after the last fact, by the shop's clock.
fn end_of(facts: &[Incoming], zone: &Zone) -> anyhow::Result<Timestamp> {
    let Some(last) = facts.last() else { bail!("there is no event to replay") };
    let day = last.event.occurred_at.local(zone).date();
    Ok(zone.start_of_day(day.tomorrow().context("the last event lies beyond the calendar")?))
}

// ------------------------------------------------------------------------------------------------------------- the directory

/// What stands in a demo's directory: that it is one, and of what it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    rekindle_demo: u32,
    input: String,
    /// Hash of all facts, assumed ones included.
    facts: String,
    rules: String,
}

impl Marker {
    fn of(input: &str, facts: &[Incoming], rules: u64) -> Self {
        let mut hash = twox_hash::XxHash3_128::new();
        for fact in facts {
            hash.write(fact.event.id.as_bytes());
            hash.write(&fact.event.occurred_at.as_ms().to_le_bytes());
            hash.write(serde_json::Value::Object(fact.event.properties.clone()).to_string().as_bytes());
        }
        Marker { rekindle_demo: 1, input: input.to_owned(), facts: format!("{:032x}", hash.finish_128()), rules: format!("{rules:016x}") }
    }

    /// The marker of a directory; none if it is no demo's.
    fn read(dir: &Path) -> Option<Marker> {
        serde_json::from_slice(&fs::read(dir.join(MARKER)).ok()?).ok()
    }
}

/// Makes the directory ready and opens the database in it: a new one, or with `--resume` the one that is there.
async fn open(args: &Args, marker: &Marker) -> anyhow::Result<SqliteStore> {
    let dir = &args.dir;
    let path = dir.join(database::FILE);
    let is_empty = holds_nothing(dir).with_context(|| format!("cannot use `{}` for the demo", dir.display()))?;
    let found = Marker::read(dir);
    if args.resume && !is_empty {
        let Some(found) = found else { bail!("nothing to go on with: `{}` is no demo's directory; start without --resume", dir.display()) };
        ensure!(
            found.facts == marker.facts,
            "`{}` was made of other data ({}): give the same, or start afresh without --resume",
            dir.display(),
            found.input
        );
        ensure!(
            found.rules == marker.rules,
            "`{}` was made with other rules: give the same, or start afresh without --resume",
            dir.display()
        );
    } else {
        if args.resume {
            // killed before its first line: a run that goes on from nothing is a run from the beginning
            eprintln!("nothing to go on with in `{}` yet: it begins", dir.display());
        }
        ensure!(
            is_empty || found.is_some(),
            "`{}` exists and is not a demo's (it has no {MARKER}): nothing was touched; name another directory with --dir",
            dir.display()
        );
        fs::create_dir_all(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        if !is_empty {
            clear(dir, &path).await?;
        }
        write_marker(dir, marker)?;
    }
    // nobody can use the codes of a replay, and each replay gives the same ones
    let coupon_salt = Some(*b"the same codes in every replay..");
    let options = StoreOptions { durability: Durability::Process, coupon_salt, ..StoreOptions::new(&path, ENVIRONMENT) };
    Ok(SqliteStore::open_with(options).await?)
}

/// Whether there is nothing in a directory, or only what a demo leaves that was killed as it wrote its first file.
fn holds_nothing(dir: &Path) -> io::Result<bool> {
    let mut entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    entries.try_fold(true, |empty, entry| Ok(empty && entry?.file_name().to_str() == Some(&marker_draft())))
}

/// Removes what an earlier demo wrote, and only that. A database that another process has open stays, and so does everything.
async fn clear(dir: &Path, database: &Path) -> anyhow::Result<()> {
    if database.exists() {
        match SqliteStore::open(database, ENVIRONMENT).await {
            Ok(store) => store.close().await,
            Err(error @ StoreError::Locked { .. }) => return Err(error.into()),
            // unreadable, or a newer program's: a demo's all the same
            Err(_) => {}
        }
    }
    let remove = |result: io::Result<()>, path: &Path| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| format!("cannot remove `{}`", path.display())),
        _ => Ok(()),
    };
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = dir.join(format!("{}{suffix}", database::FILE));
        remove(fs::remove_file(&path), &path)?;
    }
    let path = dir.join(PAGE);
    remove(fs::remove_file(&path), &path)?;
    clear_messages(&dir.join(MESSAGES))
}

/// Removes what the recording channel wrote. What somebody else has put there stays, and its directories with it.
fn clear_messages(messages: &Path) -> anyhow::Result<()> {
    let ours = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        MessageId::parse(stem.trim_start_matches('.').trim_end_matches(".eml").trim_end_matches(".json")).is_some()
    };
    for kind in Kind::ALL {
        remove_files(&messages.join(kind.name()), ours)?;
    }
    let is_a_day = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("sent-") && name.ends_with(".ndjson")
    };
    remove_files(messages, is_a_day)
}

/// Removes the files of a directory that are ours, and the directory if nothing is left in it.
fn remove_files(directory: &Path, ours: impl Fn(&Path) -> bool) -> anyhow::Result<()> {
    let cannot = |path: &Path| format!("cannot remove `{}`", path.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read `{}`", directory.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_file() && ours(&path) {
            fs::remove_file(&path).with_context(|| cannot(&path))?;
        }
    }
    if fs::read_dir(directory)?.next().is_none() {
        fs::remove_dir(directory).with_context(|| cannot(directory))?;
    }
    Ok(())
}

fn marker_draft() -> String {
    format!(".{MARKER}.tmp")
}

fn write_marker(dir: &Path, marker: &Marker) -> anyhow::Result<()> {
    let path = dir.join(MARKER);
    let temporary = dir.join(marker_draft());
    let mut file = fs::File::create(&temporary)?;
    file.write_all(serde_json::to_string_pretty(marker)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path).with_context(|| format!("cannot write `{}`", path.display()))
}

fn open_recording(dir: &Path, assumptions: &Assumptions, from: Timestamp) -> anyhow::Result<Arc<Recording>> {
    let form = Form::Compact { files_bp: OWN_FILES_BP, files_for: BTreeSet::new() };
    let sender = "The shop <shop@shop.example>".parse().context("the demo's sender")?;
    let options = RecordingOptions { form, shares: assumptions.shares(), sender };
    // a receipt of the very instant at which the stretch begins belongs to it
    Ok(Arc::new(Recording::open(&dir.join(MESSAGES), options, from.plus_ms(-1))?))
}

// --------------------------------------------------------------------------------------------------------------- the stage

fn stage(store: &SqliteStore, book: &Rulebook, rules: &Arc<RuleSet>, recording: &Arc<Recording>) -> Stage {
    let store: Arc<dyn Store> = Arc::new(store.clone());
    let versions = Arc::new(RuleVersions::new(rules.clone(), book.templates()));
    let worker = Name::from("demo");
    let channels = Kind::ALL.into_iter().map(|kind| (kind, recording.clone() as Arc<dyn crate::channel::Channel>)).collect();
    Stage {
        evaluator: Evaluator { store: store.clone(), rules: versions.clone(), worker: worker.clone() },
        dispatcher: Dispatcher::new(store.clone(), versions, Channels::fixed(channels), worker),
        store,
        recording: recording.clone(),
        clock: VirtualClock::at(Timestamp::DISTANT_PAST),
        rules: rules.clone(),
    }
}

/// Puts the rules live as the year begins, so that nobody satisfied them before.
async fn publish(store: &SqliteStore, book: &Rulebook, rules: &RuleSet, at: Timestamp) -> anyhow::Result<()> {
    if store.current_version().await? == Some(rules.version) {
        return Ok(());
    }
    let publication = Publication { spread_ms: 0, ..book.publication(rules, at, "demo", "the year begins") };
    store.publish_rules(publication).await?;
    store.finish_first_looks().await?;
    Ok(())
}

// ----------------------------------------------------------------------------------------------------------------- telling

/// How the replay is watched.
struct Telling<'a> {
    format: Format,
    zone: &'a Zone,
    total: usize,
    begun: usize,
}

impl Telling<'_> {
    /// Plays the stretches, with a bar and a line for each week.
    async fn play(&self, replay: &mut Replay, stretches: &[Stretch], tally: Tally, input: &Input) -> anyhow::Result<Tally> {
        let bar = ProgressBar::new(self.total as u64).with_position(self.begun as u64);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} to go").context("the bar's template")?;
        bar.set_style(style);
        self.say(
            &bar,
            &format!(
                "{} events, {} customers' year, replayed under a virtual clock; every message goes into files",
                number(input.events),
                number(self.people(replay))
            ),
        );
        let store = replay.store().clone();
        let mut counting = Counting::start(tally, &store, None);
        for stretch in stretches {
            bar.set_message(summary::date(stretch.from));
            replay.play(*stretch).await.with_context(|| format!("replaying the week of {}", summary::date(stretch.from)))?;
            bar.inc(1);
            if ends_week(stretch, self.zone, input.until.unwrap_or_default()) {
                let tally = self.tell(&bar, counting).await?;
                counting = Counting::start(tally, &store, Some(stretch.until));
            }
        }
        let tally = self.tell(&bar, counting).await?;
        bar.finish_and_clear();
        Ok(tally)
    }

    /// Waits until a week is counted, and says it in a line.
    async fn tell(&self, bar: &ProgressBar, counting: Counting) -> anyhow::Result<Tally> {
        let tally = counting.task.await.context("counting a week")??;
        if let Some(until) = counting.until {
            self.say(bar, &week_line(&tally, until.plus_ms(-1)));
        }
        Ok(tally)
    }

    fn people(&self, replay: &Replay) -> u64 {
        replay.people_to_come()
    }

    /// A line for people: on standard output, unless a machine reads that.
    fn say(&self, bar: &ProgressBar, line: &str) {
        bar.suspend(|| match self.format {
            Format::Text => println!("{line}"),
            Format::Json => eprintln!("{line}"),
        });
    }
}

/// Whether a week is told of at the end of a stretch: a stretch may also end within a Monday, where a source changes.
fn ends_week(stretch: &Stretch, zone: &Zone, until: Timestamp) -> bool {
    let next = stretch.until.local(zone).date();
    stretch.until == until || next.weekday() == jiff::civil::Weekday::Monday && zone.start_of_day(next) == stretch.until
}

/// A week being counted, while the next one is played.
struct Counting {
    /// End of the week; none before the first.
    until: Option<Timestamp>,
    task: tokio::task::JoinHandle<Result<Tally, StoreError>>,
}

impl Counting {
    fn start(mut tally: Tally, store: &Arc<dyn Store>, until: Option<Timestamp>) -> Self {
        let store = store.clone();
        let task = tokio::spawn(async move {
            if let Some(until) = until {
                tally.catch_up(store.as_ref(), until).await?;
            }
            Ok(tally)
        });
        Counting { until, task }
    }
}

/// "412 customers fell silent this week, 96 were warned": one week in one line.
fn week_line(tally: &Tally, at: Timestamp) -> String {
    let monday = tally.monday(at);
    let week = tally.weeks.get(&monday).cloned().unwrap_or_default();
    let mut line = format!(
        "week of {}: {:>4} fell silent, {:>4} warned, {:>4} returned; {:>4} runs began, {:>4} messages, {:>4} held",
        monday.strftime("%e %b %Y"),
        number(week.fell_silent),
        number(week.warned.len() as u64),
        number(week.returned),
        number(week.entered),
        number(week.sent),
        number(week.held),
    );
    for (points, what) in [(week.points_taken, "deducted"), (week.points_restored, "restored")] {
        if points > 0 {
            line.push_str(&format!(", {} points {what}", number(points.unsigned_abs())));
        }
    }
    line
}

/// Everything on record about one customer, with the messages as they were rendered.
async fn read_story(store: &SqliteStore, rules: &RuleSet, dir: &Path, id: ProfileId) -> anyhow::Result<Story> {
    let stored = store.profile(id).await?.context("the chosen customer's row")?;
    let key = stored.profile.key.clone();
    Ok(Story {
        country: stored.profile.country().to_owned(),
        zone: rules.policy.zone_of(&stored.profile),
        history: store.history(id).await?,
        contents: recorded(&dir.join(MESSAGES), &key)?,
        key,
    })
}

/// What the recording channel wrote to one person.
fn recorded(messages: &Path, key: &str) -> anyhow::Result<BTreeMap<MessageId, Recorded>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(messages).with_context(|| format!("cannot read `{}`", messages.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "ndjson") {
            continue;
        }
        for line in io::BufReader::new(fs::File::open(&path)?).lines() {
            let line = line?;
            // most lines are somebody else's: not worth parsing
            if !line.contains(key) {
                continue;
            }
            let message: Recorded = serde_json::from_str(&line).with_context(|| format!("a line of `{}`", path.display()))?;
            if message.user == key {
                found.extend(MessageId::parse(&message.id).map(|id| (id, message)));
            }
        }
    }
    Ok(found)
}

/// What to try next.
fn next_steps(args: &Args, rules: &RuleSet, hero: Option<&Story>) -> String {
    let dir = args.dir.display();
    let mut text = format!("Look at it:   open {}\n", args.dir.join(PAGE).display());
    text.push_str(&format!("The messages: {}\n", args.dir.join(MESSAGES).display()));
    if let Some(story) = hero {
        let rule = story.rule_to_explain(rules).unwrap_or_default();
        text.push_str(&format!("One customer: rekindle timeline --user {} --dir {dir}\n", story.key));
        text.push_str(&format!("Why, why not: rekindle explain --user {} --rule {rule} --dir {dir}\n", story.key));
        if let Some(rule) = rules.rule(&rule) {
            let root = args.rules.clone().unwrap_or_else(|| pack_on_disk(args));
            let file = root.join(&*rule.place.file);
            let again = again(args, &root);
            text.push_str(&format!("Change a rule: {}:{} ({}), then: {again}\n", file.display(), rule.place.line, rule.id));
        }
    }
    text
}

/// The same once more with the rules of a directory, as one types it.
fn again(args: &Args, rules: &Path) -> String {
    let mut line = format!("rekindle demo --rules {}", quoted(rules));
    for (option, path) in [("--events", args.events.as_ref()), ("--orders", args.orders.as_ref())] {
        if let Some(path) = path {
            line.push_str(&format!(" {option} {}", quoted(path)));
        }
    }
    if args.dir != Path::new(DIRECTORY) {
        line.push_str(&format!(" --dir {}", quoted(&args.dir)));
    }
    line
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "/._-~+=:,@".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Where the shipped pack can be changed: the project's own directory if that is where we are, else what [`write_pack`] wrote.
fn pack_on_disk(args: &Args) -> PathBuf {
    let here = Path::new("rules");
    let is_the_pack = PACK.iter().all(|(path, _)| here.join(path).is_file());
    if is_the_pack { here.to_owned() } else { args.dir.join("rules") }
}

/// Lays the shipped pack into the demo's directory, so that there are rules to change wherever the binary is. What is there stays: it
/// may have been changed.
fn write_pack(args: &Args) -> anyhow::Result<()> {
    let root = pack_on_disk(args);
    if args.rules.is_some() || root.exists() {
        return Ok(());
    }
    for (path, text) in PACK {
        let path = root.join(path);
        let parent = path.parent().unwrap_or(&root);
        fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
