//! `rekindle release RULE`: lets a rule that its brake holds go on.

use clap::Parser;

use super::{ExitCode, operator};
use crate::console::control::Request;

/// Let a rule go on that its brake put on hold: who waited starts then, if it is still true
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle release silence-60d --dir rekindle-demo")]
pub struct Args {
    /// The rule's id
    rule: String,
    #[command(flatten)]
    operator: operator::Args,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let by = args.operator.by.clone();
    Ok(operator::tell(&args.operator.ask(Request::Release { rule: args.rule, by }).await?))
}
