//! `rekindle resume`: goes on after a pause, once somebody has seen what that means.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Parser;

use super::pause::ScopeArgs;
use super::{ExitCode, operator};
use crate::console::control::Request;

/// Go on after a pause: shows first what is overdue, would expire or would go out late, then asks
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle resume --channel sms")]
pub struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Go on without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    operator: operator::Args,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(scope) = args.scope.scope() else {
        eprintln!("error: say what goes on: --all, --rule ID, --channel NAME or --tag TAG");
        return Ok(ExitCode::CouldNotRun);
    };
    let survey = args.operator.ask(Request::Survey { scope: scope.clone() }).await?;
    if operator::tell(&survey) == ExitCode::Finding {
        return Ok(ExitCode::Finding);
    }
    if !args.yes && !agreed()? {
        println!("nothing was changed");
        return Ok(ExitCode::Finding);
    }
    let by = args.operator.by.clone();
    Ok(operator::tell(&args.operator.ask(Request::Resume { scope, by }).await?))
}

/// Asks; who cannot be asked has not agreed.
fn agreed() -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        println!("nobody can be asked here: say --yes to go on");
        return Ok(false);
    }
    print!("Go on? [y/N] ");
    io::stdout().flush()?;
    let mut said = String::new();
    io::stdin().read_line(&mut said)?;
    Ok(matches!(said.trim().to_lowercase().as_str(), "y" | "yes"))
}
