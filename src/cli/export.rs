//! `rekindle export USER`: everything that is on record about one person.

use clap::Parser;

use super::{ExitCode, operator};
use crate::clock::{Clock as _, SystemClock};
use crate::console::person;

/// Hand out everything that is on record about one person, as JSON
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle export or-12347 --dir rekindle-demo > or-12347.json")]
pub struct Args {
    /// The user id
    user: String,
    #[command(flatten)]
    operator: operator::Args,
}

/// Only reads, so it runs beside a daemon.
///
/// # Errors
/// There is no database, or it cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.operator.existing()?.0.open_to_read().await?;
    let Some(export) = person::export(store.as_ref(), &args.user, SystemClock.now()).await? else {
        eprintln!("error: nobody with the user id `{}` is in this database", args.user);
        return Ok(ExitCode::Finding);
    };
    println!("{}", serde_json::to_string_pretty(&export)?);
    Ok(ExitCode::Fine)
}
