//! `rekindle import`: facts from a file into a database, each exactly once. Bad rows never stop the rest: they are counted, shown, and
//! written down with their reasons if asked for.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{ExitCode, Format, database};
use crate::clock::{Clock, SystemClock};
use crate::engine::rule::{Dictionary, RuleSet};
use crate::ingest::file::{Origin, Received, Rejected, Rows, events_of, orders_of};
use crate::rulebook::Rulebook;
use crate::store::place::Place;
use crate::store::{Appended, NewEvent, Store};

/// Rows that share a commit.
const BATCH: usize = 2_000;
/// So many rejected rows are shown; all are counted.
const SHOWN: usize = 10;

/// Bring facts from a file into a database: events as NDJSON, or orders as CSV
///
/// A row that is on record already changes nothing, so importing a file again is safe. Ends with exit code 1 if rows were rejected.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle import orders-2025.csv --db shop.db --rules rules --rejects bad-rows.ndjson")]
pub struct Args {
    /// Newline-delimited JSON in Segment's shape, or CSV of orders (customer, date, amount); also gzipped
    pub file: PathBuf,
    /// The database: a file, or postgres://user@host/name; made if it is not there
    #[arg(long, value_name = "DATABASE", default_value = "rekindle.db")]
    pub db: Place,
    /// What the file holds [default: told by its first character]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub kind: Option<Kind>,
    /// Where rejected rows are written, one JSON object a line: line, reason, row
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// Rules that say which events count as activity [default: those live in the database]
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// The source (write key) under which the facts are kept: with a message's id it makes a fact unique
    #[arg(long, value_name = "NAME", default_value = "import")]
    pub source: String,
    /// The environment that a new database belongs to
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub environment: String,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Ndjson,
    Csv,
}

/// What came of the rows.
#[derive(Debug, Default)]
struct Report {
    rows: u64,
    appended: Appended,
    rejected: u64,
    shown: Vec<Rejected>,
    /// The file could not be read to its end.
    cut_short: Option<Rejected>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let kind = match args.kind {
        Some(kind) => kind,
        None => kind_of(&args.file)?,
    };
    let store = args.db.open(&args.environment, None).await?;
    let rules = rules(&args, store.as_ref()).await?;
    let (rows, bar) = rows(&args, kind, &rules)?;
    let mut rejects = args.rejects.as_deref().map(Rejects::create).transpose()?;
    let report = import(store.as_ref(), &rules.dictionary, rows, &bar, rejects.as_mut()).await;
    bar.finish_and_clear();
    if let Some(rejects) = rejects {
        rejects.finish()?;
    }
    let report = report?;
    store.close().await;
    tell(&args, &report);
    Ok(if report.rejected > 0 || report.cut_short.is_some() { ExitCode::Finding } else { ExitCode::Fine })
}

/// JSON begins with a brace; a header of CSV does not.
fn kind_of(path: &Path) -> anyhow::Result<Kind> {
    let open = || File::open(path).with_context(|| format!("cannot read `{}`", path.display()));
    let mut input = BufReader::new(open()?);
    let packed = input.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut start = Vec::new();
    let input: &mut dyn Read = if packed { &mut MultiGzDecoder::new(input) } else { &mut input };
    // a file that is cut short says so when it is read
    let _cut = input.take(4096).read_to_end(&mut start);
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start).trim_ascii_start();
    Ok(if text.starts_with(b"{") { Kind::Ndjson } else { Kind::Csv })
}

/// The rules that say what events mean.
async fn rules(args: &Args, store: &dyn Store) -> anyhow::Result<Arc<RuleSet>> {
    let Some(dir) = &args.rules else {
        let hint = "which events count as activity is said by rules: name them with --rules";
        return database::live_rules(store).await.context(hint);
    };
    let book = Rulebook::open(dir)?;
    let Some(rules) = book.set() else { bail!("the rules in `{}` have errors\n\n{}", dir.display(), book.render_errors()) };
    Ok(rules)
}

fn rows(args: &Args, kind: Kind, rules: &RuleSet) -> anyhow::Result<(Rows, ProgressBar)> {
    let file = File::open(&args.file).with_context(|| format!("cannot read `{}`", args.file.display()))?;
    let bar = ProgressBar::new(file.metadata().map_or(0, |metadata| metadata.len()));
    bar.set_style(ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} to go").context("the bar's template")?);
    let input = bar.wrap_read(file);
    let currency = rules.dictionary.currency;
    let zone = rules.policy.zone.last.clone();
    let origin = Origin { currency, zone, ..Origin::new(&args.source, Received::At(SystemClock.now())) };
    let rows = match kind {
        Kind::Ndjson => events_of(input, origin),
        Kind::Csv => orders_of(input, origin),
    };
    Ok((rows, bar))
}

async fn import(
    store: &dyn Store,
    dictionary: &Dictionary,
    rows: Rows,
    bar: &ProgressBar,
    mut rejects: Option<&mut Rejects>,
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut batch: Vec<NewEvent> = Vec::with_capacity(BATCH);
    for row in rows {
        match row {
            Ok(fact) => batch.extend(fact.into_new(dictionary)),
            Err(rejected) if rejected.ends_file => report.cut_short = Some(rejected),
            Err(rejected) => {
                report.rejected += 1;
                if let Some(rejects) = rejects.as_deref_mut() {
                    rejects.write(&rejected)?;
                }
                if report.shown.len() < SHOWN {
                    report.shown.push(rejected);
                }
            }
        }
        if batch.len() >= BATCH {
            append(store, &mut batch, &mut report).await?;
            bar.set_message(format!("{} rows", report.rows));
        }
    }
    append(store, &mut batch, &mut report).await?;
    Ok(report)
}

async fn append(store: &dyn Store, batch: &mut Vec<NewEvent>, report: &mut Report) -> anyhow::Result<()> {
    let taken = std::mem::take(batch);
    report.rows += taken.len() as u64;
    let appended = store
        .append_events(taken)
        .await
        .with_context(|| format!("after {} rows; importing the file again goes on", report.appended.new))?;
    report.appended.new += appended.new;
    report.appended.duplicates += appended.duplicates;
    report.appended.profiles_created += appended.profiles_created;
    Ok(())
}

fn tell(args: &Args, report: &Report) {
    let Report { rows, appended, rejected, shown, cut_short } = report;
    for row in shown.iter().chain(cut_short) {
        eprintln!("{}: {row}", args.file.display());
    }
    if *rejected > shown.len() as u64 {
        eprintln!("{}: {} more rows were rejected", args.file.display(), rejected - shown.len() as u64);
    }
    match args.format {
        Format::Json => println!(
            "{:#}",
            json!({
                "rows": rows + rejected, "new": appended.new, "duplicates": appended.duplicates, "people_created": appended.profiles_created,
                "rejected": rejected, "cut_short": cut_short.as_ref().map(ToString::to_string),
            })
        ),
        Format::Text => {
            let written =
                args.rejects.as_ref().filter(|_| *rejected > 0).map(|path| format!(" (see {})", path.display())).unwrap_or_default();
            println!(
                "{} facts taken in, {} were on record already, {} rows rejected{written}; {} people are new",
                appended.new, appended.duplicates, rejected, appended.profiles_created
            );
        }
    }
}

/// The file of rejected rows.
struct Rejects {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Rejects {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let out = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Rejects { path: path.to_owned(), out: BufWriter::new(out) })
    }

    fn write(&mut self, rejected: &Rejected) -> anyhow::Result<()> {
        let line = json!({ "line": rejected.line, "reason": rejected.reason, "row": rejected.row });
        writeln!(self.out, "{line}").with_context(|| self.failed())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.out.flush().with_context(|| self.failed())
    }

    fn failed(&self) -> String {
        format!("cannot write rejected rows to `{}`", self.path.display())
    }
}
