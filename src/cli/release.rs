//! `rekindle release RULE`: lets a rule that its brake holds go on.

use clap::Parser;

use super::{ExitCode, database};
use crate::clock::{Clock, SystemClock};
use crate::store::Store;

/// Let a rule go on that its brake put on hold: who waited starts then, if it is still true
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle release silence-60d --dir rekindle-demo")]
pub struct Args {
    /// The rule's id
    rule: String,
    #[command(flatten)]
    database: database::Args,
}

/// # Errors
/// There is no database, or it cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let database = args.database.open_to_write().await?;
    let store = &database.store;
    let now = SystemClock.now();
    let world = store.world(now).await?.world;
    let Some(state) = world.rules.get(args.rule.as_str()) else {
        eprintln!("error: no rule `{}` has gone live in this database", args.rule);
        return Ok(ExitCode::Finding);
    };
    let Some(held) = &state.held else {
        println!("{} is not held by its brake: nothing to release", args.rule);
        return Ok(ExitCode::Finding);
    };
    println!("{} was held since {}: {}", args.rule, held.at, held.reason);
    store.set_hold(now, &args.rule, None, "release").await?;
    // who waits for it stands in nobody's list, so everybody is looked at once, spread over some minutes
    let due = store.make_all_due(now, SPREAD_MS).await?;
    println!("released; {due} people are looked at within the next ten minutes");
    Ok(ExitCode::Fine)
}

const SPREAD_MS: i64 = 10 * crate::engine::time::MINUTE_MS;
