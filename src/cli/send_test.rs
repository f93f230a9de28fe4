//! `rekindle send-test`: one rendered message to an address of one's own.

use clap::Parser;

use super::{ExitCode, operator};
use crate::console::control::Request;

/// Send one message of a rule to yourself, written as for somebody
///
/// It is marked as a test, and leaves nothing behind: no points, no coupon, no cap, no line in anybody's record.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  $ rekindle send-test welcome --as or-17850 --to me@shop.example")]
pub struct Args {
    /// The rule's id
    rule: String,
    /// The person as whom it is written, by user id
    #[arg(long = "as", value_name = "USER")]
    user: String,
    /// Where it goes: an address, a phone number, a push token
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// The step that sends [default: the first one]
    #[arg(long, value_name = "ID")]
    step: Option<String>,
    /// The channel [default: the step's first]
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { rule, user, to, step, channel, operator } = args;
    Ok(operator::tell(&operator.ask(Request::SendTest { rule, step, channel, user, to }).await?))
}
