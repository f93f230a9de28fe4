//! `rekindle migrate`: one database carried into another.

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::doctor::evidence::Evidence;
use super::{ExitCode, doctor};
use crate::store::place::Place;

/// Move everything from one database into another: from the file to PostgreSQL when one machine is not enough, or back
///
/// Stop every daemon first. A move that was interrupted goes on when it is started again; until it has ended nobody else opens the
/// new database. The old one is left as it is. At the end the new one is counted and examined as `rekindle doctor` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle migrate --from rekindle.db --to postgres://rekindle@db.example/rekindle")]
pub struct Args {
    /// The database to move out of: a file, or postgres://user@host/name
    #[arg(long, value_name = "DATABASE")]
    pub from: Place,
    /// The empty database to move into; a file is made if it is not there
    #[arg(long, value_name = "DATABASE")]
    pub to: Place,
}

/// # Errors
/// One of the databases cannot be opened, or somebody works on the first or lives in the second.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { from, to } = args;
    if from == to {
        bail!("`{from}` is the database to move out of and into: name two");
    }
    if !from.may_exist() {
        bail!("there is no database `{from}`");
    }
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3} %  {pos} of {len} people  {eta} to go").context("the bar's template")?,
    );
    let told = |moved: i64, of: i64| {
        bar.set_length(of.max(0) as u64);
        bar.set_position(moved.max(0) as u64);
    };
    from.move_to(&to, &told).await?;
    bar.finish_and_clear();

    let (old, new) = (from.open_to_read().await?, to.open_to_read().await?);
    let (before, after) = (old.counts().await?, new.counts().await?);
    let mut report = doctor::examine(new.as_ref(), Evidence::default()).await?;
    if before != after {
        report.find("", "move", format!("the old database counts {before:?}, the new one {after:?}"));
    }
    old.close().await;
    new.close().await;
    if !report.findings.is_empty() {
        print!("{}", report.to_text());
        return Ok(ExitCode::Finding);
    }
    println!(
        "moved {} people, {} events, {} messages into `{to}`; doctor finds nothing wrong",
        after.profiles,
        after.events,
        after.messages.values().sum::<u64>()
    );
    println!("`{from}` is left as it is: point the settings at the new one, and start no daemon on the old one again");
    Ok(ExitCode::Fine)
}
