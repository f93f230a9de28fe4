//! `rekindle reload`: takes the rules on disk now.

use clap::Parser;

use super::{ExitCode, operator};
use crate::console::control::Request;

/// Put the rules on disk live now, or say why they are: checked and tested first, as the daemon does by itself
///
/// The daemon sees a change within seconds; this does not wait, says what is wrong, and takes the files also after a rollback. With a
/// reason it says why on record, also for rules that are live already.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle reload --reason \"$(git log -1 --format=%s)\"")]
pub struct Args {
    /// Why: stands on record beside the version [default: the files that changed]
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let by = args.operator.by.clone();
    Ok(operator::tell(&args.operator.ask(Request::Reload { reason: args.reason, by }).await?))
}
