//! `rekindle pause`: the red button.

use clap::Parser;

use super::{ExitCode, operator};
use crate::console::control::{Request, Scope};

/// Stop sending at once: everything, one rule, one channel, or the rules with a tag
///
/// Takes effect at the moment before a message begins to be sent, and stays across restarts. Without a scope it shows what is paused or
/// held, and what operators did last.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  $ rekindle pause --all --reason \"wrong prices in the spring mail\"\n  $ rekindle pause --channel sms --reason \"gateway is down\"\n  $ rekindle pause"
)]
pub struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Why: shown wherever it holds something
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

/// What a pause is about.
#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
pub struct ScopeArgs {
    /// Everything
    #[arg(long)]
    all: bool,
    /// One rule, by its id
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// One channel: email, push, sms, whatsapp, webhook ...
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Every rule with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
}

impl ScopeArgs {
    pub fn scope(self) -> Option<Scope> {
        let named = self.rule.map(Scope::Rule).or(self.channel.map(Scope::Channel)).or(self.tag.map(Scope::Tag));
        named.or(self.all.then_some(Scope::All))
    }
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(scope) = args.scope.scope() else {
        return Ok(operator::tell(&args.operator.ask(Request::Status).await?));
    };
    let Some(reason) = args.reason else {
        eprintln!("error: a pause needs a reason: --reason TEXT; it is shown wherever the pause holds something");
        return Ok(ExitCode::CouldNotRun);
    };
    let by = args.operator.by.clone();
    Ok(operator::tell(&args.operator.ask(Request::Pause { scope, reason, by }).await?))
}
