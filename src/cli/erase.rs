//! `rekindle erase USER`: a person's right to be forgotten.

use std::io::{IsTerminal as _, Write as _};

use clap::Parser;

use super::{ExitCode, operator};
use crate::console::control::Request;

/// Erase one person: their facts, names, addresses and texts; what they were sent is counted on without them
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle erase or-12347 --reason \"asked by mail, ticket 4711\" --yes --dir rekindle-demo")]
pub struct Args {
    /// The user id
    user: String,
    /// Why: stands in the record of it, which is all that stays. Do not name the person here
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    operator: operator::Args,
}

/// # Errors
/// There is no database, it cannot be opened, or its daemon takes no commands.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.yes && !agreed()? {
        eprintln!("nothing was changed (`--yes` to erase without being asked)");
        return Ok(ExitCode::Finding);
    }
    let (user, reason, by) = (args.user, args.reason, args.operator.by.clone());
    Ok(operator::tell(&args.operator.ask(Request::Erase { user, reason, by }).await?))
}

fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("This cannot be undone. Erase this person? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
