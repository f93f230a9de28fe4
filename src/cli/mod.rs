//! The command line: one file per command, dispatched here. What a command does lives in the layers below; a command reads its
//! arguments, calls them, prints, and says how it ended.

mod backup;
mod check;
mod database;
mod demo;
mod doctor;
mod erase;
mod explain;
mod explain_code;
mod export;
mod findings;
mod fmt;
mod import;
mod key;
mod migrate;
mod new;
mod operator;
mod page;
mod pause;
mod plan;
mod preview;
mod provider;
mod rejects;
mod release;
mod reload;
mod replay;
mod resume;
mod retain;
mod rollback;
mod schema;
mod send_test;
mod serve;
mod simulate;
mod suppressions;
mod test;
mod timeline;

use std::process;

use clap::{Parser, Subcommand};

/// Rules in YAML over user state decide who gets which message, penalty or benefit, and when.
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked of Rekindle. The first line of each help says the task in the operator's words.
#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(serve::Args),
    New(new::Args),
    Check(check::Args),
    ExplainCode(explain_code::Args),
    Fmt(fmt::Args),
    Schema(schema::Args),
    Preview(preview::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Import(import::Args),
    Key(key::Args),
    Migrate(migrate::Args),
    Provider(provider::Args),
    Rejects(rejects::Args),
    Export(export::Args),
    Erase(erase::Args),
    Retain(retain::Args),
    Backup(backup::Args),
    Suppressions(suppressions::Args),
    Test(test::Args),
    Simulate(simulate::Args),
    Plan(plan::Args),
    Explain(explain::Args),
    Timeline(timeline::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Release(release::Args),
    Replay(replay::Args),
    Reload(reload::Args),
    Rollback(rollback::Args),
    SendTest(send_test::Args),
}

/// How a command ended, for scripts: 0 fine, 1 a finding (a failed check or test), 2 could not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    Fine,
    Finding,
    CouldNotRun,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        process::ExitCode::from(match code {
            ExitCode::Fine => 0,
            ExitCode::Finding => 1,
            ExitCode::CouldNotRun => 2,
        })
    }
}

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON document on standard output.
    Json,
}

/// `1 rule`, `12 rules`.
fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Parses the command line, runs the command and reports its error, if any, on standard error.
pub async fn main() -> ExitCode {
    end_quietly_when_nobody_reads_on();
    // one implementation of cryptography for whatever speaks TLS; it fails only if somebody else chose one before
    let _ = rustls::crypto::ring::default_provider().install_default();
    // clap prints help, and usage errors with exit code 2
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::CouldNotRun
        }
    }
}

/// `rekindle timeline ... | head` closes our output while we print: no fault, and nothing left to say. The standard library turns
/// it into a panic of `println!`, and has no stable way to ask for another answer.
fn end_quietly_when_nobody_reads_on() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            process::exit(0);
        }
        report(panic);
    }));
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(args).await,
        Command::New(args) => new::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::ExplainCode(args) => explain_code::run(args).await,
        Command::Fmt(args) => fmt::run(args).await,
        Command::Preview(args) => preview::run(args).await,
        Command::Schema(args) => schema::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Key(args) => key::run(args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Provider(args) => provider::run(args).await,
        Command::Rejects(args) => rejects::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Erase(args) => erase::run(args).await,
        Command::Retain(args) => retain::run(args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::Suppressions(args) => suppressions::run(args).await,
        Command::Test(args) => test::run(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Timeline(args) => timeline::run(args).await,
        Command::Pause(args) => pause::run(args).await,
        Command::Resume(args) => resume::run(args).await,
        Command::Release(args) => release::run(args).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Reload(args) => reload::run(args).await,
        Command::Rollback(args) => rollback::run(args).await,
        Command::SendTest(args) => send_test::run(args).await,
    }
}
