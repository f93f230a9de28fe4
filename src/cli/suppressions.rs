//! `rekindle suppressions`: the list of addresses that must not be written to.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

use super::{ExitCode, operator};
use crate::clock::{Clock as _, SystemClock};
use crate::console::control::Request;
use crate::console::suppressions::{NewEntry, word};

/// Rows that go to the database together.
const BATCH: usize = 1_000;
/// So many bad rows are shown; all are counted.
const SHOWN: usize = 10;

/// The addresses that must not be written to: put one on the list, take it off, ask, or bring in a whole list
///
/// The list holds keyed hashes, so it cannot be printed; who asks about an address is told what it says of that one. It takes effect
/// at the moment before a message begins to be sent, and works beside a running daemon.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  $ rekindle suppressions add ana@post.example --reason complaint\n  $ rekindle suppressions show ana@post.example\n  $ rekindle suppressions import unsubscribed.csv --channel email"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Nothing more goes to this address
    ///
    /// $ rekindle suppressions add ana@post.example --reason unsubscribe
    #[command(verbatim_doc_comment)]
    Add(Add),
    /// Takes an address off the list
    ///
    /// $ rekindle suppressions remove ana@post.example --user ana
    #[command(verbatim_doc_comment)]
    Remove(Remove),
    /// What the list says of an address
    ///
    /// $ rekindle suppressions show ana@post.example
    #[command(verbatim_doc_comment)]
    Show(Show),
    /// Brings in a CSV file: a column `address` (or `email`, `phone`), and if there `channel`, `reason`, `category`, `since`, `until`
    ///
    /// $ rekindle suppressions import unsubscribed.csv --channel email
    #[command(verbatim_doc_comment)]
    Import(Import),
}

/// An address, and by which channel.
#[derive(Debug, clap::Args)]
struct Address {
    /// An e-mail address, a phone number, a push token
    address: String,
    /// email, sms, whatsapp, push [default: email for what has an @, sms and whatsapp for a number]
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    address: Address,
    /// hard_bounce, complaint, unsubscribe or manual
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    /// Only messages of this category [default: everything; marketing for an unsubscribe]
    #[arg(long, value_name = "NAME")]
    category: Option<String>,
    /// Over by itself from then on [default: until somebody takes it off]
    #[arg(long, value_name = "INSTANT")]
    until: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

#[derive(Debug, clap::Args)]
struct Remove {
    #[command(flatten)]
    address: Address,
    /// The user id of whoever was stopped by it and is to be let go
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    operator: operator::Args,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// The CSV file, with a header
    file: PathBuf,
    /// The channel of rows that name none
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// The reason of rows that name none [default: manual]
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

/// # Errors
/// There is no database, it cannot be opened, or its daemon takes no commands; the file cannot be read.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Add(args) => add(args).await,
        What::Remove(args) => remove(args).await,
        What::Show(args) => show(args).await,
        What::Import(args) => import(args).await,
    }
}

async fn add(args: Add) -> anyhow::Result<ExitCode> {
    let Add { address, reason, category, until, operator } = args;
    let entry = |channel: String| NewEntry {
        channel,
        address: address.address.clone(),
        reason: reason.clone(),
        category: category.clone(),
        since: None,
        until: until.clone(),
    };
    let entries = channels(&address.address, address.channel.as_deref())?.into_iter().map(entry).collect();
    let by = operator.by.clone();
    Ok(operator::tell(&operator.ask(Request::Suppress { entries, by }).await?))
}

async fn remove(args: Remove) -> anyhow::Result<ExitCode> {
    let Remove { address, user, operator } = args;
    let mut worst = ExitCode::Fine;
    for channel in channels(&address.address, address.channel.as_deref())? {
        let (address, user, by) = (address.address.clone(), user.clone(), operator.by.clone());
        if operator::tell(&operator.ask(Request::Lift { channel, address, user, by }).await?) != ExitCode::Fine {
            worst = ExitCode::Finding;
        }
    }
    Ok(worst)
}

async fn show(args: Show) -> anyhow::Result<ExitCode> {
    let Show { address, operator } = args;
    let channels = channels(&address.address, address.channel.as_deref())?;
    for channel in &channels {
        if channels.len() > 1 {
            println!("{channel}:");
        }
        let (channel, address) = (channel.clone(), address.address.clone());
        operator::tell(&operator.ask(Request::Suppressions { channel, address }).await?);
    }
    Ok(ExitCode::Fine)
}

/// The channels of an address that names none.
fn channels(address: &str, named: Option<&str>) -> anyhow::Result<Vec<String>> {
    let is_number =
        |text: &str| text.chars().all(|c| c.is_ascii_digit() || " +-()/.".contains(c)) && text.contains(|c: char| c.is_ascii_digit());
    match named {
        Some(channel) => Ok(vec![channel.to_owned()]),
        None if address.contains('@') => Ok(vec!["email".to_owned()]),
        None if is_number(address) => Ok(vec!["sms".to_owned(), "whatsapp".to_owned()]),
        None => bail!("say by which channel the address is reached: --channel NAME"),
    }
}

// --------------------------------------------------------------------------------------------------------------- a whole list

async fn import(args: Import) -> anyhow::Result<ExitCode> {
    let (mut taken, mut bad) = (0, 0);
    let mut batch = Vec::with_capacity(BATCH);
    for row in rows(&args.file)? {
        match row.and_then(|row| entries(&row, &args)) {
            Ok(entries) => batch.extend(entries),
            Err(why) => {
                bad += 1;
                if bad <= SHOWN {
                    eprintln!("{}: {why}", args.file.display());
                }
            }
        }
        if batch.len() >= BATCH {
            taken += hand_over(&args.operator, &mut batch).await?;
        }
    }
    taken += hand_over(&args.operator, &mut batch).await?;
    println!("{taken} entries taken in, {bad} rows rejected");
    Ok(if bad > 0 { ExitCode::Finding } else { ExitCode::Fine })
}

async fn hand_over(operator: &operator::Args, batch: &mut Vec<NewEntry>) -> anyhow::Result<usize> {
    let entries = std::mem::take(batch);
    if entries.is_empty() {
        return Ok(0);
    }
    let (count, by) = (entries.len(), operator.by.clone());
    let reply = operator.ask(Request::Suppress { entries, by }).await?;
    if reply.refused {
        bail!("{}", reply.lines.join("; "));
    }
    Ok(count)
}

/// A row's cells by the names of their columns.
type Row = Vec<(String, String)>;

fn rows(path: &Path) -> anyhow::Result<impl Iterator<Item = Result<(u64, Row), String>>> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_path(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let header: Vec<String> = reader.headers().context("the header cannot be read")?.iter().map(str::to_lowercase).collect();
    if !header.iter().any(|name| ADDRESS_COLUMNS.contains(&name.trim_start_matches('\u{feff}'))) {
        bail!("`{}` has no column `address`, `email` or `phone`", path.display());
    }
    Ok(reader.into_records().map(move |record| {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells = header.iter().zip(&record).map(|(name, cell)| (name.trim_start_matches('\u{feff}').to_owned(), cell.to_owned()));
        Ok((line, cells.filter(|(_, cell)| !cell.is_empty()).collect()))
    }))
}

const ADDRESS_COLUMNS: [&str; 3] = ["address", "email", "phone"];

/// What a row asks for, checked before anything is handed over.
fn entries((line, row): &(u64, Row), args: &Import) -> Result<Vec<NewEntry>, String> {
    let cell = |name: &str| row.iter().find(|(column, _)| column == name).map(|(_, cell)| cell.clone());
    let address = ADDRESS_COLUMNS.iter().find_map(|name| cell(name)).ok_or_else(|| format!("line {line}: no address"))?;
    let named = cell("channel").or_else(|| args.channel.clone());
    let channels = channels(&address, named.as_deref()).map_err(|error| format!("line {line}: {error}"))?;
    let entry = |channel: String| {
        let (reason, category) = (cell("reason").or_else(|| args.reason.clone()), cell("category"));
        let entry = NewEntry { channel, address: address.clone(), reason, category, since: cell("since"), until: cell("until") };
        word(&entry, &args.operator.by, SystemClock.now()).map(|_| entry).map_err(|why| format!("line {line}: {why}"))
    };
    channels.into_iter().map(entry).collect()
}
