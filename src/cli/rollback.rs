//! `rekindle rollback`: back to rules that were live before.

use clap::Parser;

use super::{ExitCode, operator};
use crate::console::control::Request;

/// Go back to rules that were live before: at once, and until the files on disk change
///
/// Without a version it is the one before. Runs under way finish on the version they began with. `--list` shows what went live, by whom, why,
/// and what it changed.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  $ rekindle rollback --list\n  $ rekindle rollback --reason \"the ladder writes to everybody\"\n  $ rekindle rollback 00c9f4c1 --reason \"back to the rules of Monday\""
)]
pub struct Args {
    /// Its first digits, as `--list` shows them [default: the version before the live one]
    #[arg(value_name = "VERSION")]
    to: Option<String>,
    /// Why: stands on record beside the version
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show what went live instead
    #[arg(long, conflicts_with_all = ["to", "reason"])]
    list: bool,
    #[command(flatten)]
    operator: operator::Args,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.list {
        return Ok(operator::tell(&args.operator.ask(Request::Publications).await?));
    }
    let Some(reason) = args.reason else {
        eprintln!("error: a rollback needs a reason: --reason TEXT; it stands on record beside the version");
        return Ok(ExitCode::CouldNotRun);
    };
    let by = args.operator.by.clone();
    Ok(operator::tell(&args.operator.ask(Request::Rollback { version: args.to, reason, by }).await?))
}
