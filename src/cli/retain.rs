//! `rekindle retain`: what the retention schedule removes, would remove, and has removed.

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;

use super::{ExitCode, Format, operator};
use crate::clock::{Clock as _, SystemClock};
use crate::retention::{Cutoffs, Walk};
use crate::store::retention::Kept;
use crate::store::{Store, StoreError};

/// Passes shown.
const SHOWN: usize = 50;

/// Remove what the retention schedule does not keep, now; with --dry-run only count it, with --list show what passes removed
///
/// The schedule stands in the settings (`retention`). A running daemon follows it every hour by itself.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  $ rekindle retain --dry-run --config rekindle.yaml\n  $ rekindle retain --list --db shop.db")]
pub struct Args {
    /// Remove nothing; say how much would go
    #[arg(long, conflicts_with = "list")]
    dry_run: bool,
    /// What was removed, pass by pass
    #[arg(long)]
    list: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    operator: operator::Args,
}

/// # Errors
/// The settings are wrong, the database cannot be opened, or (without `--dry-run` and `--list`) a daemon has it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (place, settings) = args.operator.existing()?;
    let only_looks = args.dry_run || args.list;
    let opened = if only_looks { place.open_to_read().await } else { place.open("", None).await };
    let store = match opened {
        Err(error @ StoreError::Locked { .. }) => return Err(error).context("a running daemon follows the schedule by itself, every hour"),
        opened => opened?,
    };
    if args.list {
        list(store.as_ref(), args.format).await?;
        return Ok(ExitCode::Fine);
    }
    let now = SystemClock.now();
    let cutoffs = Cutoffs::of(&settings.retention, now);
    let walk = Walk { store: store.as_ref(), cutoffs, at: now, is_dry: args.dry_run, breath: Duration::ZERO };
    let report = walk.pass(&mut None, usize::MAX).await?;
    match args.format {
        Format::Json => {
            let counts: serde_json::Map<_, _> =
                Kept::ALL.into_iter().map(|kind| (kind.name().to_owned(), json!(report.of_kind(kind)))).collect();
            println!("{:#}", json!({ "dry_run": args.dry_run, "removed": counts }));
        }
        Format::Text => {
            let verb = if args.dry_run { "would be removed" } else { "removed" };
            for kind in Kept::ALL {
                println!("{:>12} {} {verb}", report.of_kind(kind), kind.name());
            }
        }
    }
    store.close().await;
    Ok(ExitCode::Fine)
}

async fn list(store: &dyn Store, format: Format) -> anyhow::Result<()> {
    let rows = store.removals(SHOWN).await?;
    match format {
        Format::Json => {
            let row = |row: &crate::store::retention::RemovalRow| json!({ "at": row.at.to_string(), "kind": row.kind.name(), "older_than": row.older_than.to_string(), "removed": row.removed });
            println!("{:#}", json!(rows.iter().map(row).collect::<Vec<_>>()));
        }
        Format::Text if rows.is_empty() => println!("nothing was removed yet"),
        Format::Text => {
            for row in rows {
                println!("{}  {} {} older than {}", row.at, row.removed, row.kind.name(), row.older_than);
            }
        }
    }
    Ok(())
}
