//! `rekindle backup`: a copy of the database while it is at work.

use std::path::PathBuf;

use anyhow::bail;
use clap::Parser;

use super::{ExitCode, operator};
use crate::clock::{Clock as _, SystemClock};
use crate::store::sqlite::SqliteStore;

/// Copy the database to a new file, beside a daemon that works on it
///
/// The copy is whole as of one instant, has no gaps, and knows that it is a backup: the first `serve` on it pauses everything, and what was
/// still to go out then is `unknown`, since the original may have sent it.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle backup --to /backup/shop-2026-11-06.db --config rekindle.yaml")]
pub struct Args {
    /// The new file; one that is there already is left as it is
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    operator: operator::Args,
}

/// # Errors
/// There is no database, it cannot be opened, the file is there already, or the disk does not take it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let at = SystemClock.now();
    let (place, _) = args.operator.existing()?;
    let Some(path) = place.file() else { bail!("`{place}` is no file: a server's own tools copy it, like `pg_dump`") };
    let bytes = SqliteStore::back_up(path, &args.to, at).await?;
    println!("{} holds the database as of {at}: {bytes} bytes, read back and sound", args.to.display());
    Ok(ExitCode::Fine)
}
