//! `rekindle replay`: gives back what was set aside after an error.

use clap::Parser;

use super::{ExitCode, operator};
use crate::console::control::Request;

/// Give back who was set aside after an error, once its cause is mended: looked at now, with the events that waited
///
/// Without arguments it shows who is set aside, since when and why. (A rule that was paused because its template could not be written goes on
/// with `rekindle resume --rule`.)
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  $ rekindle replay\n  $ rekindle replay or-12347 --dir rekindle-demo\n  $ rekindle replay --all")]
pub struct Args {
    /// One person, by user id
    #[arg(conflicts_with_all = ["all", "rule"])]
    user: Option<String>,
    /// Everybody who is set aside
    #[arg(long, conflicts_with = "rule")]
    all: bool,
    /// Everybody is looked at again because of this rule, which was set aside for some
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

/// # Errors
/// There is no database, it cannot be opened, or its daemon takes no commands.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let by = args.operator.by.clone();
    let request = match (args.user, args.rule, args.all) {
        (Some(user), ..) => Request::Replay { user, by },
        (None, Some(rule), _) => Request::ReplayRule { rule, by },
        (None, None, true) => Request::ReplayAll { by },
        (None, None, false) => Request::SetAside,
    };
    Ok(operator::tell(&args.operator.ask(request).await?))
}
